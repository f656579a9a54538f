# SPDX-License-Identifier: Apache-2.0
"""Label images: the one place that says what their values mean.

A label image holds an id at every pixel, 0 is background. What looks like one need not be one: masks are saved as JPEG,
resized with interpolation, or hold probabilities. ``check_labels`` tells those by where their values lie; files and
messages go through it alike.

The value 255 has one rule (``LabelRule``), decided by all label images of a sequence:

* 255 and no other value: it is the object (DAVIS-2016, most binary masks), and its id is 1;
* 255 beside 1..254: it is void, which belongs to no object and counts as background (DAVIS-2017, PASCAL VOC);
* a value above 255 occurs: the images are deeper than 8 bits, and 255 is an id as any other.

A seed on its own follows ``binary_as_instance``: nothing but 255 is one new instance, else every value is an id.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from maskrnn_ros.disk import regular_file, replacing
from maskrnn_ros.image_header import check_encoded, read_encoded
from maskrnn_ros.types import MAX_INSTANCE_ID, BoolArray, LabelArray, UInt8Array

VOID = 255
"""The value that has a meaning of its own."""

_LEAST_SHARE = {"binary": 0.02, "many": 0.12, "few": 0.2}
"""Share of the pixels beside an edge that the values of a soft mask have at least: where all others are 0 and 255,
where there are three or more such values, and else. In 3200 label images of public sets it is 0.08 at most, where
objects of a few pixels lie between others; in soft masks 0.04 (only 0 and 255 beside) or 0.19 at least."""

_SMALL = 8
"""Pixels in a piece of a value that noise scatters along edges, at most."""


def read_labels(path: Path | str, threshold: int | None = None, *, is_known: bool = False) -> LabelArray:
    """Read a label image: palette indices, grey values of 1 to 16 bits, or colours of the DAVIS palette.

    It is turned as its EXIF orientation says, as frames are.

    Args:
        path: The file.
        threshold: Read a soft mask or a probability map: values of this or more are the object, id 1. None: values are
            ids.
        is_known: A data set vouches for it: it is not examined for soft edges, which tiny objects resemble.

    Returns:
        int32, (H, W), 0 = background; the values as they stand, see ``LabelRule``.

    Raises:
        ValueError: The file is no image, its colours are not those of the palette, or it is a soft mask.
        OSError: The file cannot be read.
    """
    labels, is_lossy = _decoded(Path(path))
    if threshold is not None:
        return LabelRule.of(values_of(labels), threshold).apply(labels)
    if not is_known:
        check_labels(labels, f"{path}: ", is_lossy=is_lossy)
    return labels


def read_soft_mask(path: Path | str) -> UInt8Array:
    """Values of a mask that is meant to be soft, such as the alpha of a cut-out, upright.

    Returns:
        uint8, (H, W).

    Raises:
        ValueError: The file is no grey image.
        OSError: The file cannot be read.
    """
    return np.clip(_decoded(Path(path))[0], 0, 255).astype(np.uint8)


def read_mask(path: Path | str) -> BoolArray:
    """Mask of a binary image, grey or colour: 128 or more is the object, or what is not 0 where nothing exceeds 1.

    Returns:
        bool, (H, W).

    Raises:
        ValueError: The file is no image.
        OSError: The file cannot be read.
    """
    data = np.frombuffer(read_encoded(Path(path)), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise ValueError(f"{path}: expected a mask, found {data.size} bytes that are no image")
    return np.asarray(image >= 128 if image.max() > 1 else image > 0)


def check_labels(labels: npt.NDArray[np.integer], place: str = "", *, is_lossy: bool = False) -> None:
    """Refuse what looks like a label image and is none: a mask with soft edges, a JPEG, a probability map.

    An id covers a piece of the image. Where a mask was blurred, resized or compressed, most of its values occur along
    edges only, between two others or in many small pieces.

    Args:
        labels: (H, W), any integers.
        place: What the message begins with.
        is_lossy: They come from a file that does not keep values: only 0 and 255 are believed then.

    Raises:
        ValueError: It is none; the message says what it looks like.
    """
    if not labels.size:
        return
    present = values_of(labels)
    cure = "save it without interpolation and compression, or threshold it (--threshold 128)"
    if is_lossy and not set(present) <= {0, VOID}:
        raise ValueError(
            f"{place}expected a label image (value = id), found {len(present)} values in a JPEG, which changes "
            f"values along edges: not a label image; {cure}"
        )
    if len(present) > 2 and (pale := _edge_values(labels)):
        raise ValueError(
            f"{place}expected a label image (value = id), found {len(present)} values, {pale} of them only along "
            f"edges: many values along edges: not a label image but a soft mask or a probability map; {cure}"
        )


def values_of(labels: npt.NDArray[np.integer]) -> list[int]:
    """The values that occur, ascending, 0 too."""
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > 2**20:
        return [int(value) for value in np.unique(labels)]
    found: list[int] = np.flatnonzero(np.bincount(labels.ravel())).tolist()  # ten times faster than np.unique
    return found


def _edge_values(labels: npt.NDArray[np.integer]) -> int:
    """How many values occur only along edges, as they do in soft masks; 0 for a label image."""
    if min(labels.shape) < 3 or labels.min() < 0:
        return 0
    exact = labels.astype(np.float32 if labels.max() > 65535 else np.uint16)
    block = np.ones((3, 3), np.uint8)
    least, most = cv2.erode(exact, block), cv2.dilate(exact, block)
    is_edge = least != most
    has_core = set(values_of(labels[~is_edge]))
    # void runs along edges by its nature
    coreless = [value for value in values_of(labels) if value not in (0, VOID) and value not in has_core]
    if not coreless:
        return 0
    between = (least < exact) & (exact < most)
    among = np.isin(exact, coreless)
    counts, inside = _counts(exact[among], coreless), _counts(exact[among & between], coreless)
    pieces = _pieces(exact, among, coreless)
    scattered = (pieces >= 4) & (counts / np.maximum(pieces, 1) <= _SMALL)
    suspects = (inside >= 0.9 * counts) | scattered
    number, pixels = int(suspects.sum()), int(counts[suspects].sum())
    is_binary = has_core == {0, VOID} and number >= 2
    share = pixels / np.count_nonzero(is_edge)
    return number if share >= _LEAST_SHARE["binary" if is_binary else "many" if number >= 3 else "few"] else 0


def _counts(found: npt.NDArray[np.generic], values: Sequence[int]) -> npt.NDArray[np.int64]:
    """How often each of the ascending values occurs among those found, which are no others."""
    return np.bincount(np.searchsorted(values, found), minlength=len(values))


def _pieces(exact: npt.NDArray[np.generic], among: BoolArray, values: Sequence[int]) -> npt.NDArray[np.int64]:
    """Connected pieces of each value, roughly: pixels whose left and upper neighbours have other values."""
    begins = among.copy()
    begins[:, 1:] &= exact[:, 1:] != exact[:, :-1]
    begins[1:] &= exact[1:] != exact[:-1]
    return _counts(exact[begins], values)


def _decoded(path: Path) -> tuple[LabelArray, bool]:
    """Values as they are stored, upright, and whether the format keeps values only roughly."""
    data = regular_file(path).read_bytes()
    check_encoded(data, str(path))  # Pillow says of what is none what is wrong with it
    try:
        with Image.open(io.BytesIO(data)) as image:
            is_lossy = image.format in ("JPEG", "MPO")
            turned = ImageOps.exif_transpose(image)
            return _values(turned, data, path), is_lossy
    except (OSError, SyntaxError) as error:  # Pillow: not an image; cut short or damaged
        raise ValueError(f"{path}: expected an indexed or grey image of ids, found none: {error}") from error


def _values(image: Image.Image, data: bytes, path: Path) -> LabelArray:
    """Ids of the pixels, whatever kind of image they are in."""
    if image.mode in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        return np.asarray(image).astype(np.int32) // _stretch(data, image.mode)
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise ValueError(f"{path}: expected an image of ids, found {image.mode} with transparent pixels")
        image = image.convert(image.mode[:-1])
        return _values(image, data, path)
    if image.mode == "RGB":
        return _ids_of_colours(np.asarray(image), path)
    raise ValueError(f"{path}: expected an indexed or grey image of ids, found {image.mode}")


def _stretch(data: bytes, mode: str) -> int:
    """By what Pillow multiplies the values of a grey PNG of 2 or 4 bits, so that they fill 8."""
    is_grey_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == b"\0"
    return {2: 85, 4: 17}.get(data[24], 1) if is_grey_png and mode == "L" else 1


def _ids_of_colours(image: UInt8Array, path: Path) -> LabelArray:
    """Ids of a palette image that was saved as colours; a grey one gives its values."""
    if (image == image[..., :1]).all():
        return image[..., 0].astype(np.int32)
    codes = image.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    known = davis_palette().astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    ids = {int(code): i for i, code in reversed(list(enumerate(known)))}
    found, places = np.unique(codes, return_inverse=True)
    strange = [int(code) for code in found if int(code) not in ids]
    if strange:
        red, green, blue = strange[0] >> 16, strange[0] >> 8 & 255, strange[0] & 255
        raise ValueError(
            f"{path}: expected an indexed or grey image of ids, found RGB with {found.size} colours, of which "
            f"({red}, {green}, {blue}) is none of the DAVIS palette"
        )
    return np.array([ids[int(code)] for code in found], np.int32)[places.reshape(codes.shape)]


def write_labels(path: Path | str, labels: npt.NDArray[np.integer]) -> None:
    """Write a label image: 8-bit PNG with the DAVIS palette where ids reach 255, 16-bit grey PNG above.

    Args:
        path: File to write, with the suffix .png.
        labels: Integers, (H, W), 0..65535.

    Raises:
        ValueError: Other suffix, shape, dtype or range.
        OSError: The file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"label images are written as .png, got {path}")
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers (H, W), got {labels.dtype} {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ValueError(f"ids of a label image must lie in 0..65535, got {low}..{high}")
    image = Image.fromarray(labels.astype(np.uint8 if high <= 255 else np.uint16))
    if high <= 255:
        image.putpalette(davis_palette().tobytes())
    with replacing(path) as made:
        image.save(made, format="PNG")


@functools.cache
def davis_palette() -> UInt8Array:
    """The colours of DAVIS and PASCAL VOC: bits 0, 3, 6 of the id are the high bits of red, and so on.

    >>> davis_palette()[:4].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]

    Returns:
        RGB, uint8, (256, 3).
    """
    ids = np.arange(256)[:, None]
    bits = [((ids >> (3 * k + np.arange(3))) & 1) << (7 - k) for k in range(3)]
    return np.asarray(np.bitwise_or.reduce(bits), np.uint8)


def binary_as_instance(labels: LabelArray, free: int = 1) -> LabelArray:
    """The rule for a seed, or for any image on its own: nothing but 255 is one new instance; else values are ids.

    Args:
        labels: int32, (H, W).
        free: Id of the new instance.

    Returns:
        int32, (H, W).
    """
    marked = labels != 0
    if not marked.any() or not (labels[marked] == VOID).all():
        return labels
    return np.where(marked, free, 0).astype(np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How the values of a sequence become ids; the whole sequence decides, see the module.

    >>> rule = LabelRule.of({0, 1, 255})
    >>> rule.ids, rule.text
    ((1,), '255 is void, beside ids')

    Args:
        ids: The ids, ascending.
        meaning: Of 255: "object", "void", "id", or "" where it does not occur.
        threshold: Values of this or more are the object, id 1; None: values are ids.
    """

    ids: tuple[int, ...]
    meaning: str
    threshold: int | None = None

    @staticmethod
    def of(values: Collection[int], threshold: int | None = None) -> LabelRule:
        """The rule of a sequence with these values."""
        marked = set(values) - {0}
        if threshold is not None and marked != {1}:  # a mask of 0 and 1 has its threshold behind it
            return LabelRule(ids=(1,) if any(v >= threshold for v in marked) else (), meaning="", threshold=threshold)
        if marked == {VOID}:
            return LabelRule(ids=(1,), meaning="object")
        meaning = "" if VOID not in marked else "id" if max(marked) > VOID else "void"
        return LabelRule(ids=tuple(sorted(marked - ({VOID} if meaning == "void" else set()))), meaning=meaning)

    def apply(self, labels: LabelArray) -> LabelArray:
        """Ids of one of its images, int32 (H, W)."""
        if self.threshold is not None:
            return (labels >= self.threshold).astype(np.int32)
        if self.meaning in ("object", "void"):
            return np.where(labels == VOID, int(self.meaning == "object"), labels).astype(np.int32)
        return labels

    @property
    def text(self) -> str:
        """The rule in words."""
        if self.threshold is not None:
            return f"values of {self.threshold} or more are the object"
        return {
            "object": "255 is the object: no other value occurs",
            "void": "255 is void, beside ids",
            "id": "255 is an id, as values above it occur",
            "": "values are ids, 255 does not occur",
        }[self.meaning]


class LabelFiles:
    """The label images of a sequence under one rule; all are read once before the first is given.

    Args:
        paths: A file for each frame; None where there is none.
        threshold: See ``read_labels``.

    Raises:
        ValueError: When asked: a file is no label image, or a value is no id.
    """

    def __init__(self, paths: Sequence[Path | None], threshold: int | None = None) -> None:
        if threshold is not None and not 1 <= threshold <= 65535:
            raise ValueError(f"the threshold of a mask must lie in 1..65535, got {threshold}")
        self.paths = tuple(paths)
        self._threshold = threshold

    @functools.cached_property
    def _seen(self) -> dict[int, int]:
        """Every value with the number of the first frame that has it."""
        first: dict[int, int] = {}
        for number, path in enumerate(self.paths):
            for value in values_of(self._raw(path)) if path is not None else ():
                first.setdefault(value, number)
        if max(first, default=0) > MAX_INSTANCE_ID and self._threshold is None:
            value = max(first)
            raise ValueError(f"{self.paths[first[value]]}: ids must be <= {MAX_INSTANCE_ID}, got {value}")
        return first

    def _raw(self, path: Path) -> LabelArray:
        if self._threshold is None:
            return read_labels(path)
        return _decoded(path)[0]

    @property
    def values(self) -> frozenset[int]:
        """Every value as it is stored, 0 too where it occurs."""
        return frozenset(self._seen)

    @functools.cached_property
    def rule(self) -> LabelRule:
        """What the values mean."""
        return LabelRule.of(self.values, self._threshold)

    @functools.cached_property
    def starts(self) -> Mapping[int, int]:
        """For each id the number of the first frame that shows it, ids ascending."""
        if self.rule.threshold is not None:
            values = [v for v in self.values if v >= self.rule.threshold]
            return {1: min(self._seen[v] for v in values)} if values else {}
        return {i: self._seen[VOID if self.rule.meaning == "object" else i] for i in self.rule.ids}

    def ids(self, number: int) -> LabelArray | None:
        """Ids of a frame, int32 (H, W); None where it has no file."""
        path = self.paths[number]
        return None if path is None else self.rule.apply(self._raw(path))
