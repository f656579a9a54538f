# SPDX-License-Identifier: Apache-2.0
"""Pack the data of ``maskrnn train trunk`` and ``maskrnn train decoder`` into one small tar that a borrowed GPU gets.

    python tools/pack_training_data.py --data DATA --out train_pack.tar [--mib 22]

Inside is the layout that ``--data`` takes (``maskrnn_ros/training/sources.py``), with smaller pictures. Each source has
a share of the room (``SHARES``); what one does not need goes to the stills, of which as many are taken as fit, from
all sets alike. Of a clip a run of frames that follow each other is kept, since windows need real motion between
frames; of held out clips a short one, for the curves. What the split holds out of the stills stays out.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from maskrnn_ros.files import davis_palette, frame_paths, read_frame, read_labels  # noqa: E402
from maskrnn_ros.training.sources import StillFile, allowed, still_files  # noqa: E402
from maskrnn_ros.training.split import read_split  # noqa: E402

CLIP, STILL = 400, 288
"""Longer side of the frames of clips and of stills, pixels; the training works at 448 and 320."""

QUALITY = 60
"""Of JPEG."""

SHARES = {"davis": 0.42, "rendered": 0.1, "moseg": 0.05, "robot": 0.05, "cutouts": 0.04}
"""Of the room; the rest is for the stills."""

HELD_OUT = 20
"""Frames of a held out clip."""

File = tuple[str, bytes]


def main() -> int:
    """Pack and say what went in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="tar to write")
    parser.add_argument("--mib", type=float, default=22.0, help="most that it may take, MiB")
    args = parser.parse_args()
    room = int(args.mib * 2**20) - 2 * tarfile.RECORDSIZE  # its end
    with Packer(args.out) as packer:
        pack(args.data, packer, room)
    if args.out.stat().st_size > args.mib * 2**20:
        args.out.unlink()
        print(f"pack_training_data: two frames of each clip take more than {args.mib:g} MiB", file=sys.stderr)
        return 2
    for name, (count, size) in packer.counts.items():
        print(f"{name:10} {count:6} pictures {size / 2**20:7.2f} MiB")
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB of {args.mib:g}")
    return 0


class Packer:
    """Writes files into a tar and counts what each kind of them takes."""

    def __init__(self, out: Path) -> None:
        self._tar = tarfile.open(out, "w")
        self.counts: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._tar.offset

    def add(self, kind: str, files: Iterable[File]) -> None:
        """Add a picture and its mask."""
        (count, size), before = self.counts.get(kind, (0, 0)), self.size
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            self._tar.addfile(entry, io.BytesIO(data))
        self.counts[kind] = count + 1, size + self.size - before


def taken(files: Iterable[File]) -> int:
    """Most bytes in a tar: headers, with room for a long name, and whole blocks of 512."""
    return sum(tarfile.BLOCKSIZE * (4 + -(-len(data) // tarfile.BLOCKSIZE)) for _, data in files)


def pack(data: Path, packer: Packer, room: int) -> None:
    """Fill the room; sources that are not there leave theirs to the stills."""
    split = read_split()
    clips = {
        "davis": davis(data, "davis2016_train_288p", frozenset(split.clips)),
        "rendered": davis(data, "rendered", None),
        "moseg": sparse(data, "moseg26", frozenset(split.motion)),
        "robot": sparse(data, "vosvs_robot", frozenset()),
    }
    for kind, found in clips.items():
        pack_clips(kind, found, packer, round(room * SHARES[kind]))
    files = allowed(still_files(data), split)
    cutouts = [file for file in files if file.source.endswith("cutouts")]
    pack_stills("cutouts", cutouts, packer, packer.size + round(room * SHARES["cutouts"]), data)
    pack_stills("stills", [file for file in files if not file.source.endswith("cutouts")], packer, room, data)


Clip = tuple[list[tuple[Path, Path]], str, str, bool]
"""Frames and masks, the folders that they go to, and whether it is held out."""


def davis(data: Path, source: str, held: frozenset[str] | None) -> list[Clip]:
    """Clips in the layout of DAVIS."""
    root, found = data / source, list[Clip]()
    for folder in sorted((root / "Annotations").glob("*")):
        is_held = folder.name in held if held is not None else folder.name.startswith("held")
        places = f"{source}/JPEGImages/{folder.name}", f"{source}/Annotations/{folder.name}"
        found.append((pairs(root / "JPEGImages" / folder.name, folder), *places, is_held))
    return found


def sparse(data: Path, source: str, held: frozenset[str]) -> list[Clip]:
    """Clips whose frames do not follow each other: none is left out but for room."""
    found = []
    for folder in sorted((data / "objects" / "clips" / source).glob("*")):
        place = f"objects/clips/{source}/{folder.name}"
        known = pairs(folder / "frames", folder / "masks")
        found.append((known, f"{place}/frames", f"{place}/masks", folder.name in held))
    return found


def pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pictures with a mask of the same name."""
    by_stem = {path.stem: path for path in frame_paths(masks)}
    return [(path, by_stem[path.stem]) for path in frame_paths(images) if path.stem in by_stem]


def pack_clips(kind: str, clips: list[Clip], packer: Packer, room: int) -> None:
    """From every clip the same share of its frames, from its middle, as large as fits."""
    if not clips:
        return
    encoded = [
        [encode(image, mask, places, CLIP) for image, mask in (middle(known, HELD_OUT) if is_held else known)]
        for known, *places, is_held in clips
    ]
    held, whole = (
        sum(taken(files) for clip, frames in zip(clips, encoded, strict=True) if clip[3] is is_held for files in frames)
        for is_held in (True, False)
    )
    for_held = min(held, room / 4)
    shares = {True: for_held / max(1, held), False: min(1.0, (room - for_held) / max(1, whole))}
    for clip, frames in zip(clips, encoded, strict=True):
        for files in middle(frames, max(2, int(shares[clip[3]] * len(frames)))):
            packer.add(kind, files)


def middle(values: list, count: int) -> list:
    """So many in a row.

    >>> middle([0, 1, 2, 3, 4], 3)
    [1, 2, 3]
    """
    begin = max(0, len(values) - count) // 2
    return values[begin : begin + count]


def pack_stills(kind: str, files: list[StillFile], packer: Packer, until: int, data: Path) -> None:
    """As many as fit, a set after the other in turn."""
    for file in in_turn(files):
        folders = [path.parent.relative_to(data).as_posix() for path in (file.image, file.mask)]
        encoded = encode(file.image, file.mask, folders, STILL, is_alpha=kind == "cutouts")
        if packer.size + taken(encoded) > until:
            return
        packer.add(kind, encoded)


def in_turn(files: list[StillFile]) -> Iterator[StillFile]:
    """One of each set, then another one of each; which, is drawn by lot, always the same."""
    random = np.random.default_rng(0)
    sets: dict[str, list[StillFile]] = {}
    for file in files:
        sets.setdefault(file.source, []).append(file)
    left = [[own[k] for k in random.permutation(len(own))] for own in sets.values()]
    while left:
        yield from (own.pop() for own in left)
        left = [own for own in left if own]


def encode(image: Path, mask: Path, folders: list[str], longest: int, is_alpha: bool = False) -> list[File]:
    """A picture as JPEG and its mask as PNG, at most so long."""
    picture, labels = read_frame(image), read_labels(mask).astype(np.uint8)
    scale = min(1.0, longest / max(labels.shape))
    size = max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_AREA if is_alpha else cv2.INTER_NEAREST)
    ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert ok
    png, drawn = io.BytesIO(), Image.fromarray(labels)
    if not is_alpha:
        drawn.putpalette(davis_palette().tobytes())
    drawn.save(png, "PNG", optimize=True)
    return [(f"{folders[0]}/{image.stem}.jpg", jpeg.tobytes()), (f"{folders[1]}/{image.stem}.png", png.getvalue())]


if __name__ == "__main__":
    sys.exit(main())
