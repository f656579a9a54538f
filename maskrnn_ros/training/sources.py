# SPDX-License-Identifier: Apache-2.0
"""Pictures that a training is made from: where they are, what their values mean, on what terms they may be used.

One folder holds them all (``DATA``): ``davis2016_train_288p``, ``ecssd``, ``pennfudan``, ``objects/stills/*``,
``objects/clips/*``, ``objects/cutouts/*``, and ``rendered`` (``tools/render_training_scenes.py``) where it is there.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from maskrnn_ros.datasets.frames import frame_paths, read_frame
from maskrnn_ros.labels import binary_as_instance, read_labels, read_soft_mask
from maskrnn_ros.runtime import cores
from maskrnn_ros.training.sizes import fit_image, fit_labels
from maskrnn_ros.training.split import Split, both_hashes, read_split
from maskrnn_ros.types import UInt8Array

IGNORE = 255
"""Where nobody knows whose a pixel is: crowds, rims. It is neither object nor background, and costs no loss."""

PERMISSIVE, SHARE_ALIKE, NON_COMMERCIAL, UNKNOWN = "permissive", "share-alike", "non-commercial", "unknown"

TERMS = {
    "coco_mini": PERMISSIVE,
    "coco_persons_multi": PERMISSIVE,
    "coco_single_person": PERMISSIVE,
    "taco_part": PERMISSIVE,
    "feral_cats": PERMISSIVE,
    "rf_human_occlusion": PERMISSIVE,
    "rf_warehouse": PERMISSIVE,
    "rendered": PERMISSIVE,
    "oxford_pets_part": SHARE_ALIKE,
    "tuxpaint_cutouts": SHARE_ALIKE,
    "vosvs_multi": NON_COMMERCIAL,
    "vosvs_robot": NON_COMMERCIAL,
    "ecssd": NON_COMMERCIAL,
    "pennfudan": NON_COMMERCIAL,
}
"""Terms of each set; one that is not named is of unknown terms, as some of DAVIS' clips are."""

SINGLE = frozenset({"ccp_clothing", "car_parts"})
"""Sets whose values are parts of one thing: all of them together are the object."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Still:
    """A picture with the objects in it.

    Args:
        source: Name of its set.
        image: RGB, uint8, (H, W, 3).
        labels: uint8, (H, W): 0 background, 1..N, 255 = ``IGNORE``.
        alpha: uint8, (H, W), of a cut-out: how much of a pixel is the object; it has no background then.
    """

    source: str
    image: UInt8Array
    labels: UInt8Array
    alpha: UInt8Array | None = None

    def read(self) -> Still:
        """Itself: what is in memory already is drawn like what lies in files."""
        return self


@dataclasses.dataclass(frozen=True)
class StillFile:
    """Where a still lies."""

    source: str
    image: Path
    mask: Path

    def read(self) -> Still:
        """Read it.

        Raises:
            ValueError: A file cannot be read, or the sizes differ.
        """
        image = read_frame(self.image)
        is_soft = self.source.endswith("cutouts")
        raw = read_soft_mask(self.mask) if is_soft else read_labels(self.mask, is_known=True)
        if raw.shape != image.shape[:2]:
            raise ValueError(f"{self.mask}: expected the size of {self.image}, {image.shape[:2]}, found {raw.shape}")
        if is_soft:
            alpha = raw.astype(np.uint8)
            return Still(source=self.source, image=image, labels=(alpha >= 128).astype(np.uint8), alpha=alpha)
        return Still(source=self.source, image=image, labels=training_labels(raw, self.source))


def training_labels(raw: np.ndarray, source: str = "") -> UInt8Array:
    """Values of a mask file as ids 1..N and ``IGNORE``.

    A mask of 0 and 255 alone has one object; beside other values, 255 is unknown.
    """
    labels = binary_as_instance(raw.astype(np.int32))
    if source in SINGLE:
        labels = np.where((labels > 0) & (labels < IGNORE), 1, labels)
    return labels.astype(np.uint8)


def still_files(data: Path, kinds: frozenset[str] | None = None) -> list[StillFile]:
    """All stills and cut-outs below a folder, in a fixed order.

    Args:
        data: See the module.
        kinds: Terms that will do; None: any.

    Raises:
        ValueError: There are none.
    """
    folders = [data / "ecssd", data / "pennfudan"]
    folders += sorted((data / "objects" / "stills").glob("*")) + sorted((data / "objects" / "cutouts").glob("*"))
    found: list[StillFile] = []
    for folder in folders:
        if not folder.is_dir() or (kinds is not None and TERMS.get(folder.name, UNKNOWN) not in kinds):
            continue
        masks = {path.stem: path for path in frame_paths(folder / "masks")}
        images = frame_paths(folder / "images")
        found += [StillFile(folder.name, path, masks[path.stem]) for path in images if path.stem in masks]
    if not found:
        raise ValueError(f"{data}: expected stills in ecssd, pennfudan or objects/stills, found none")
    return found


def allowed(files: list[StillFile], split: Split, held_out: bool = False) -> list[StillFile]:
    """Those that a training may see, or with ``held_out`` those that it may not. It reads each picture once."""

    def is_held(file: StillFile) -> bool:
        return split.holds(both_hashes(read_frame(file.image)))

    with ThreadPoolExecutor(len(cores())) as pool:
        return [file for file, held in zip(files, pool.map(is_held, files), strict=True) if held is held_out]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Video:
    """A clip with truth on all of its frames or on some.

    Args:
        name: Of the clip.
        source: Name of its set.
        images: RGB, uint8, (T, h, w, 3).
        labels: uint8, (T, h, w): 0 background, 1..N, 255 = ``IGNORE``.
        is_continuous: Whether frames follow each other at a camera's rate, so that there is a flow between them.
    """

    name: str
    source: str
    images: UInt8Array
    labels: UInt8Array
    is_continuous: bool = True

    def stills(self, every: int) -> list[Still]:
        """Some of its frames as stills, whose objects may be pasted elsewhere."""
        return [
            Still(source=self.source, image=self.images[k], labels=self.labels[k])
            for k in range(0, len(self.images), every)
        ]


def read_videos(
    data: Path, split: Split, size: tuple[int, int], kinds: frozenset[str] | None = None, held_out: bool = False
) -> list[Video]:
    """All clips below a folder, see the module, at one size; those of the split alone with ``held_out``.

    Raises:
        ValueError: A file cannot be read.
    """

    def will_do(source: str) -> bool:
        return kinds is None or TERMS.get(source, UNKNOWN) in kinds

    wanted: list[tuple[str, str, Path, Path, tuple[int, int], bool]] = []
    for source, held in (("davis2016_train_288p", split.clips), ("rendered", None)):
        root = data / source
        folders = sorted((root / "Annotations").glob("*")) if will_do(source) else []
        for folder in folders:
            is_held = folder.name in held if held is not None else folder.name.startswith("held")
            if is_held is held_out:
                wanted.append((folder.name, source, root / "JPEGImages" / folder.name, folder, size, True))
    for source in ("moseg26", "vosvs_robot") if not held_out else ("moseg26",):
        root = data / "objects" / "clips" / source
        for folder in sorted(root.glob("*")) if will_do(source) else []:
            if (source == "moseg26" and folder.name in split.motion) is held_out:
                wanted.append((folder.name, source, folder / "frames", folder / "masks", size, False))
    with ThreadPoolExecutor(len(cores())) as pool:
        return list(pool.map(lambda one: _video(*one), wanted))


def _video(name: str, source: str, frames: Path, masks: Path, size: tuple[int, int], is_continuous: bool) -> Video:
    by_stem = {path.stem: path for path in frame_paths(masks)}
    paths = [path for path in frame_paths(frames) if path.stem in by_stem]
    images = np.stack([fit_image(read_frame(path), size) for path in paths])
    raw = [training_labels(read_labels(by_stem[path.stem], is_known=True)) for path in paths]
    labels = np.stack([fit_labels(one.astype(np.int32), size) for one in raw])
    return Video(name=name, source=source, images=images, labels=labels, is_continuous=is_continuous)


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """All that a training is made from.

    Args:
        videos: Clips.
        stills: Stills, cut-outs, and some frames of the clips.
    """

    videos: tuple[Video, ...]
    stills: tuple[Still | StillFile, ...]


_FRAMES_BETWEEN = 6
"""Of a continuous clip every so manieth frame is a still, too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """What a training's windows or views are drawn from.

    Args:
        data: See the module.
        terms: See ``read_material``.
        trunk: Weights of the trunk: shipped, or a file.
        seed: Of all random numbers.
        has_features: Compute what the trunk says where something is drawn; else it is to be done later.
    """

    data: Path
    terms: str = "research"
    trunk: str = "shipped"
    seed: int = 0
    has_features: bool = True

    def material(self, size: tuple[int, int]) -> Material:
        """All of it, see ``read_material``."""
        return read_material(self.data, self.terms, size)


def read_material(data: Path, terms: str, size: tuple[int, int]) -> Material:
    """Everything below a folder that may be used on some terms and that the split does not hold out.

    Args:
        data: See the module.
        terms: ``research``: all; ``permissive``: only what is clearly so.
        size: (h, w) of the clips, pixels.

    Raises:
        ValueError: Other terms, or the data cannot be read.
    """
    if terms not in ("research", "permissive"):
        raise ValueError(f"terms must be research or permissive, got {terms!r}")
    kinds = None if terms == "research" else frozenset({PERMISSIVE})
    split = read_split()
    videos = read_videos(data, split, size, kinds)
    stills: list[Still | StillFile] = [*allowed(still_files(data, kinds), split)]
    for video in videos:
        stills += video.stills(_FRAMES_BETWEEN if video.is_continuous else 1)
    return Material(tuple(videos), tuple(stills))
