# SPDX-License-Identifier: Apache-2.0
"""Pack the data of ``maskrnn train trunk`` and ``maskrnn train decoder`` into one small tar that a borrowed GPU gets.

    python tools/pack_training_data.py --data DATA --out train_pack.tar [--mib 27]
    python tools/unpack_training_data.py train_pack.tar DIR

Pictures are HEVC (needs ``pip install av``): a clip is a video, stills of about one size are a video of intra frames.
Masks are lossless: stacks of CCITT group 4 where there is one object, WebP else. All clips go in, of held out ones a
short run for the curves, and all stills that the split does not hold out, at the quality that the room leaves; where
that is too low, fewer stills of each set. ``unpack_training_data.py`` says what is in the tar.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import math
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS.parent), str(TOOLS)]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from unpack_training_data import INDEX, frames_of  # noqa: E402

from maskrnn_ros.datasets.frames import frame_paths, read_frame  # noqa: E402
from maskrnn_ros.labels import read_labels, read_soft_mask  # noqa: E402
from maskrnn_ros.training.sizes import fit_image, fit_labels  # noqa: E402
from maskrnn_ros.training.sources import IGNORE, StillFile, allowed, still_files, training_labels  # noqa: E402
from maskrnn_ros.training.split import read_split  # noqa: E402

CLIP = 256, 448
"""(h, w) that frames of clips are cut to, as the training does; smaller ones stay as they are."""

STILL = 320
"""Longer side of stills, pixels; objects are pasted at 205 at most."""

CLIP_CRF, STILL_CRF, WORST_CRF = 23.0, 30.0, 38.0
"""Quality of the clips; that at which a sample says what the stills take; the worst at which all of them are kept."""

E_FOLD = 8.2
"""CRF by which the bytes of intra frames fall to 1/e; measured from 28 to 36."""

SAMPLE, VIDEO, GRID = 12, 128, 32
"""Of how many stills one is the sample; most stills in a video; what canvases of stills are a multiple of, pixels."""

HELD_OUT = 40
"""Frames of a held out clip."""


class Item(NamedTuple):
    """A picture, its mask, and the folders that they go to."""

    kind: str
    image: Path
    mask: Path
    folders: tuple[str, str]
    size: tuple[int, int]


class Group(NamedTuple):
    """Encoded pictures, what they take, and their entry of the index."""

    files: list[bytes]
    entry: dict[str, object]
    counts: dict[str, int]

    @property
    def size(self) -> int:
        """Most bytes in a tar, with the entry of the index."""
        blocks = sum(1 + -(-len(data) // tarfile.BLOCKSIZE) for data in self.files)
        return blocks * tarfile.BLOCKSIZE + len(lzma.compress(json.dumps(self.entry).encode()))


def main() -> int:
    """Pack and say what went in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="tar to write")
    parser.add_argument("--mib", type=float, default=27.0, help="most that it may take, MiB")
    args = parser.parse_args()
    try:
        import av  # noqa: F401
    except ImportError:
        print("pack_training_data: expected PyAV for HEVC, found no module av: pip install av", file=sys.stderr)
        return 2
    room = int(args.mib * 2**20) - 2 * tarfile.RECORDSIZE  # its end
    split = read_split()
    groups = [encode(clip, CLIP_CRF, is_intra=False) for clip in clips(args.data)]
    room -= sum(group.size for group in groups)
    if room < 0:
        print(f"pack_training_data: the clips alone take more than {args.mib:g} MiB", file=sys.stderr)
        return 2
    print(f"{len(groups)} clips: {sum(group.size for group in groups) / 2**20:.2f} MiB", flush=True)
    groups += fitting(in_turn(stills(args.data, allowed(still_files(args.data), split))), room)
    write(groups, args.out)
    report(groups)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB of {args.mib:g}")
    return 0


def clips(data: Path) -> Iterator[list[Item]]:
    """Clips of all sets; held out ones have fewer frames."""
    split = read_split()
    for source, held in (("davis2016_train_288p", split.clips), ("rendered", None)):
        for folder in sorted((data / source / "Annotations").glob("*")):
            is_held = folder.name in held if held is not None else folder.name.startswith("held")
            images = data / source / "JPEGImages" / folder.name
            yield clip(data, source, images, folder)[: HELD_OUT if is_held else None]
    for source in ("moseg26", "vosvs_robot"):
        for folder in sorted((data / "objects" / "clips" / source).glob("*")):
            yield clip(data, source, folder / "frames", folder / "masks")


def clip(data: Path, source: str, images: Path, masks: Path) -> list[Item]:
    """Frames that have a mask, in order."""
    by_stem = {path.stem: path for path in frame_paths(masks)}
    paths = [path for path in frame_paths(images) if path.stem in by_stem]
    height, width = read_frame(paths[0]).shape[:2]
    size = CLIP if height >= CLIP[0] and width >= CLIP[1] else (height, width)
    folders = images.relative_to(data).as_posix(), masks.relative_to(data).as_posix()
    return [Item(source, path, by_stem[path.stem], folders, size) for path in paths]


def stills(data: Path, files: Iterable[StillFile]) -> list[Item]:
    """Stills and cut-outs with the sizes that they get."""
    found = []
    for file in files:
        with Image.open(file.mask) as mask:  # it has no EXIF that may turn it
            width, height = mask.size
        scale = min(1.0, STILL / max(height, width))
        folders = tuple(path.parent.relative_to(data).as_posix() for path in (file.image, file.mask))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        found.append(Item(file.source, file.image, file.mask, (folders[0], folders[1]), size))
    return found


def in_turn(items: list[Item]) -> list[Item]:
    """Some of each set, by its share, wherever the list is cut; which, is drawn by lot, always the same."""
    random = np.random.default_rng(0)
    sets: dict[str, list[Item]] = {}
    for item in items:
        sets.setdefault(item.kind, []).append(item)
    order = [(place, item) for own in sets.values() for place, item in zip(places(len(own), random), own, strict=True)]
    return [item for _, item in sorted(order, key=lambda pair: pair[0])]


def places(count: int, random: np.random.Generator) -> list[float]:
    """Even places in 0..1, in any order."""
    return list((random.permutation(count) + random.random(count)) / count)


def fitting(items: list[Item], room: int) -> list[Group]:
    """Stills at the best quality that fits; at the worst, fewer of them."""
    sample = items[:: max(1, min(SAMPLE, len(items) // 100))]
    found = [encode(group, STILL_CRF, is_intra=True) for group in by_canvas(sample)]
    estimate = sum(map(sum, ((len(data) for data in group.files) for group in found))) * len(items) / len(sample)
    crf = max(10.0, STILL_CRF + E_FOLD * math.log(estimate / (0.98 * max(1, room))))
    while items:
        if crf > WORST_CRF:
            items = items[: int(len(items) * math.exp((WORST_CRF - crf) / E_FOLD))]
            crf = WORST_CRF
        groups = [encode(group, crf, is_intra=True) for group in by_canvas(items)]
        size = sum(group.size for group in groups)
        print(f"{len(items)} stills at CRF {crf:.1f}: {size / 2**20:.2f} MiB of {room / 2**20:.2f}", flush=True)
        if size <= room:
            return groups
        crf += E_FOLD * math.log(size / (0.98 * max(1, room)))
    return []


def by_canvas(items: list[Item]) -> Iterator[list[Item]]:
    """Those of about one size together."""
    found: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        found.setdefault(tuple(-(-side // GRID) for side in item.size), []).append(item)
    for _, group in sorted(found.items()):
        for k in range(0, len(group), VIDEO):
            yield group[k : k + VIDEO]


def encode(items: Sequence[Item], crf: float, is_intra: bool) -> Group:
    """Pictures of about one size as a video, their masks, and their entry of the index."""
    grid = GRID if is_intra else 8
    canvas = tuple(max(64, -(-max(sides) // grid) * grid) for sides in zip(*(item.size for item in items), strict=True))
    pictures, stack, others = [], [], []
    counts: dict[str, int] = {}
    listed = []
    for item in items:
        image, mask = read(item)
        pictures.append(padded(image, canvas, mode="edge"))
        if mask.max() <= 1:
            stack.append(padded(mask, canvas) > 0)
        data = b"" if mask.max() <= 1 else encoded(Image.fromarray(mask), "WEBP", lossless=True, quality=90, method=6)
        others.append(data)
        listed.append([item.kind, *item.folders, item.image.stem, *item.size, len(data)])
        counts[item.kind] = counts.get(item.kind, 0) + 1
    video = hevc(pictures, crf, is_intra)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mkv"
        path.write_bytes(video)
        if sum(1 for _ in frames_of(path)) != len(items):
            raise ValueError(f"{items[0].image}: expected {len(items)} frames in its video, found others")
    files = [video, encoded(Image.fromarray(np.concatenate(stack)), "TIFF", compression="group4") if stack else b""]
    files.append(b"".join(others))
    return Group(files, {"pictures": listed}, counts)


def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
    """A picture and ids, or an alpha, at the size that they get."""
    image = read_frame(item.image)
    if item.kind.endswith("cutouts"):
        return fit_image(image, item.size), fit_image(read_soft_mask(item.mask).astype(np.uint8), item.size)
    raw = training_labels(read_labels(item.mask, is_known=True), item.kind)
    labels = fit_labels(raw.astype(np.int32), item.size)
    if np.isin(labels, (0, IGNORE)).all() and not np.isin(raw, (0, IGNORE)).all():
        labels[:] = 0  # alone, 255 would be read as an object
    return fit_image(image, item.size), labels


def padded(values: np.ndarray, canvas: Sequence[int], **how: str) -> np.ndarray:
    """Filled up at the right and at the bottom."""
    sides = [(0, canvas[k] - values.shape[k]) for k in (0, 1)] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, sides, **how)  # type: ignore[call-overload]


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def hevc(pictures: Sequence[np.ndarray], crf: float, is_intra: bool) -> bytes:
    """Pictures of one size, RGB, as Matroska with HEVC, 4:2:0 of BT.601 in limited range: what OpenCV takes it for."""
    import av

    file = io.BytesIO()
    between = "keyint=1" if is_intra else "keyint=250:min-keyint=250:scenecut=0"
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        options = f"crf={crf:.2f}:log-level=none:info=0:{between}"
        stream.options = {"preset": "veryfast" if is_intra else "fast", "x265-params": options}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU601")))
        container.mux(stream.encode(None))
    return file.getvalue()


def write(groups: Sequence[Group], out: Path) -> None:
    """Write the tar."""
    index = lzma.compress(json.dumps([group.entry for group in groups]).encode())
    with tarfile.open(out, "w") as tar:
        members = [(INDEX, index)]
        for number, group in enumerate(groups):
            members += zip((f"{number}.mkv", f"{number}.tif", f"{number}.webp"), group.files, strict=True)
        for name, data in members:
            if data:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def report(groups: Sequence[Group]) -> None:
    """Print pictures and bytes of each set; in a video of several sets, bytes by their shares of it."""
    counts: dict[str, tuple[int, float]] = {}
    for group in groups:
        size, whole = sum(map(len, group.files)), sum(group.counts.values())
        for kind, count in group.counts.items():
            before = counts.get(kind, (0, 0.0))
            counts[kind] = before[0] + count, before[1] + size * count / whole
    for kind, (count, taken) in counts.items():
        print(f"{kind:22} {count:6} pictures {taken / 2**20:7.2f} MiB")


if __name__ == "__main__":
    sys.exit(main())
