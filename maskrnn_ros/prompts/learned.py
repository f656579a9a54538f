# SPDX-License-Identifier: Apache-2.0
"""Boxes and points to masks by a small network: where it looks, what it is told, what comes back. No torch here.

Of a click alone the first view is wide and the next ones close to what was found there, so that a small object has as
many pixels as a large one. What is found in a view goes into the next one as the mask before.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from maskrnn_ros.model.digests import DIGEST, digest_of, read_graph
from maskrnn_ros.model.files import PROMPTS, TRUNKS, trunk_file
from maskrnn_ros.model.refinement import luma, refine
from maskrnn_ros.prompts import Point, Prompt, UnsureError
from maskrnn_ros.prompts.view import CONTEXT, SIDE, Floats, View
from maskrnn_ros.types import BoolArray, Box, UInt8Array

ZOOMS = ("whole", "mask", "clicks")
"""Where clicks are looked at: the whole image; that, then what was found there; half of it around the clicks, then what
was found there."""

TRUNK_DIGEST = "trunk_sha256"
"""Key of the digest of the trunk's weights that a network learned with, in the metadata of its weights and graph."""

_VIEWS = 4
"""Views whose features are kept: the whole picture's are the same for every further click on it."""

_PIECE = 0.2
"""Share of a mask below which a piece without a click goes: mean IoU of five held out sets 0.000 to 0.014 higher.
Done at the first look, too, that of one set becomes 0.013 lower: what goes there is not looked at closer."""

_EDGE = np.ones((5, 5), np.uint8)
"""What the mask's edge is drawn with: pixels of the view within two of it."""

_SLOPE = 1.44
"""IoU over what ``confidence_of`` sees: a line from 0 through 690 masks of 230 held out objects, after one and two
clicks and of boxes, a third of ECSSD. To be drawn anew for other weights (``tools/measure_prompts.py``)."""

_NARROW, _BETWEEN = 1.25, 1.35
"""As ``CONTEXT``, of the second and the last view of a box."""

_REACH, _SMOOTHNESS = 1 / 128, 1e-3
"""Radius of ``refine`` over the side of a view, and the variance below which brightness says nothing. Mean IoU of four
held out sets: of a box 0.001 to 0.004 higher, of one click 0.001 to 0.004, of two -0.009 to 0.004, of three -0.004 to
0.018 (the next click is elsewhere)."""

_CLOSER_LOOKS = 2
"""After the first one at clicks."""


class Look(Protocol):
    """Looks at a view."""

    def __call__(self, view: UInt8Array, planes: Floats) -> Floats:
        """Log-odds of the object, float32 (P, P), P a multiple of 16.

        Args:
            view: RGB, uint8 (P, P, 3).
            planes: See ``View.planes``.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """The last look.

    Args:
        view: Where.
        log_odds: float32 (P, P).
        firm: ``firmness`` of the first look.
    """

    view: View
    log_odds: Floats
    firm: float


class LearnedPrompts:
    """A ``PromptBackend`` that looks again at what it found.

    Of clicks three times, each time closer to what was found; of a box at a wide and at a narrow view, then with what
    was found in both, mirrored, too; of a mask before once, mirrored, too. Median IoU of one click on four held out
    sets (192 objects), in place of two looks of which the last was mirrored: 0.816 to 0.821, 0.718 to 0.759, 0.661 to
    0.692, 0.625 to 0.628; of a box, in place of one mirrored look: 0.875 to 0.898, 0.823 to 0.831, 0.856 to 0.850,
    0.784 to 0.821. Mirroring the last look at a click adds nothing to a third look, and a fourth look next to nothing.
    The finer view, with later weights (mean of 192 objects, which were not seen in training, either): 0.879 to 0.884,
    0.819 to 0.828, 0.776 to 0.785, 0.794 to 0.788 (small objects on rendered tables); 448 pixels in place of 384
    add 0.001. At a click it would add 0.003 and take longer than a preview may.

    Args:
        look: Looks at a view.
        zoom: Where clicks are looked at, see ``ZOOMS``; a box or the mask before say themselves where.
        min_confidence: A mask that is thought to have a lower IoU is not given.
    """

    def __init__(self, look: Look, zoom: str = "mask", min_confidence: float = 0.0) -> None:
        if zoom not in ZOOMS:
            raise ValueError(f"zoom must be one of {', '.join(ZOOMS)}, got {zoom!r}")
        self._look, self._mirrored, self._zoom, self._least = look, Mirrored(look), zoom, min_confidence

    def __call__(self, image: UInt8Array, prompt: Prompt) -> BoolArray:
        """See ``PromptBackend``.

        Raises:
            ValueError: The prompt lies outside the image.
            UnsureError: The mask is thought to be too bad.
        """
        prompt.check_inside((image.shape[0], image.shape[1]))
        if prompt.mask is not None:
            found = self._of_mask(image, prompt)
        elif prompt.box is not None:
            found = self._of_box(image, prompt, prompt.box)
        else:
            found = self._of_clicks(image, prompt)
        share = _along_edges(_share(found.log_odds), found.view.cut(image))
        mask: BoolArray = found.view.paste(share, (image.shape[0], image.shape[1]), beyond=0.0) > 0.5
        confidence = confidence_of(found.log_odds, found.firm)
        if confidence < self._least and mask.any():
            raise UnsureError(mask, confidence, self._least)
        return mask

    def _of_mask(self, image: UInt8Array, prompt: Prompt) -> _Found:
        assert prompt.mask is not None
        size = image.shape[0], image.shape[1]
        view = View.of_box(_extent(prompt.mask, prompt.points, size, prompt.box), size)
        found = self._mirrored(view.cut(image), view.planes(prompt, prompt.mask.astype(np.float32)))
        return _Found(view, found, firmness(found))

    def _of_box(self, image: UInt8Array, prompt: Prompt, box: Box) -> _Found:
        view, before, firm = before_last(self._look, image, prompt, box)
        return _Found(view, self._mirrored(view.cut(image), view.planes(prompt, before)), firm)

    def _of_clicks(self, image: UInt8Array, prompt: Prompt) -> _Found:
        size = image.shape[0], image.shape[1]
        on = _on(prompt.points)
        view = self._first_view(prompt, size)
        found = self._look(view.cut(image), view.planes(prompt))
        firm = firmness(found)
        if self._zoom == "whole":
            return _Found(view, without_specks(found, [view.at(point.x, point.y) for point in on]), firm)
        for _ in range(_CLOSER_LOOKS):
            share = view.paste(_share(found), size, beyond=0.0)
            view = View.of_box(_extent(share > 0.5, on, size), size)
            found = self._look(view.cut(image), view.planes(prompt, share))
            found = without_specks(found, [view.at(point.x, point.y) for point in on])
        return _Found(view, found, firm)

    def _first_view(self, prompt: Prompt, size: tuple[int, int]) -> View:
        if self._zoom != "clicks":
            return View.whole(size)
        about = _extent(None, prompt.points, size)
        centre = (about.x0 + about.x1) / 2, (about.y0 + about.y1) / 2
        return View.around(centre, max(max(size) / 2, CONTEXT * max(about.width, about.height)), size)


def before_last(look: Look, image: UInt8Array, prompt: Prompt, box: Box) -> tuple[View, Floats, float]:
    """All looks at a box but the last: where that one is, its mask before, and the ``firmness`` of the first look.

    Args:
        look: Looks at a view.
        image: RGB, uint8 (H, W, 3).
        prompt: What is said of the object.
        box: The box in it.

    Returns:
        The view, the mask before, float32 (H, W), 0..1, and a number in 0..1.
    """
    size = image.shape[0], image.shape[1]
    about = _extent(None, _on(prompt.points), size, box)
    wide, narrow = View.of_box(about, size), View.of_box(about, size, _NARROW)
    first, second = (look(view.cut(image), view.planes(prompt)) for view in (wide, narrow))
    share, closer = wide.paste(_share(first), size, beyond=0.0), narrow.paste(_share(second), size, beyond=-1.0)
    share = np.where(closer < 0, share, (share + closer) / 2)
    return View.of_box(about, size, _BETWEEN).finer(), share, firmness(first)


def without_specks(log_odds: Floats, places: Sequence[tuple[float, float]]) -> Floats:
    """Log-odds of a view without what of the mask is apart from the clicks and small: it lies on other things.

    Args:
        log_odds: float32 (P, P).
        places: Of the clicks on the object, (x, y) in pixels of the view; where the mask has none of them, it stays.
    """
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((log_odds > 0).astype(np.uint8), connectivity=8)
    last = len(log_odds) - 1
    clicked = {int(pieces[min(max(int(y), 0), last), min(max(int(x), 0), last)]) for x, y in places} - {0}
    if not clicked:
        return log_odds
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas < _PIECE * areas[1:].sum()
    small[[0, *clicked]] = False
    return np.where(small[pieces], -log_odds, log_odds)


def firmness(log_odds: Floats) -> float:
    """How little a mask changes with its threshold, 0..1: IoU of what is above log-odds of 1 and of what is above -1.

    Of a look that no mask was given to: one that was repeats it, right or wrong.
    """
    wide = np.count_nonzero(log_odds > -1)
    return float(np.count_nonzero(log_odds > 1) / wide) if wide else 0.0


def confidence_of(log_odds: Floats, firm: float) -> float:
    """The IoU that a mask is thought to have, 0..1, by its look's log-odds, (P, P), and the first look's ``firmness``.

    The network's own judgement (``prompt_net``) foretells it less well: correlation 0.47 with the true IoU, this 0.70.
    """
    log_odds = cv2.resize(log_odds, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # an edge has its width there
    mask = (log_odds > 0).astype(np.uint8)
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _EDGE) > 0
    sharp = float(np.tanh(np.abs(log_odds[edge]) / 2).mean()) if edge.any() else 0.0
    return min(1.0, _SLOPE * float(np.sqrt(firm * sharp)))


class GraphLook:
    """Looks by ONNX Runtime on one core: the stream has the others.

    Args:
        weights: Of the prompt network; its graph lies beside them (``maskrnn export --prompts``).
        trunk: Weights of the trunk that it learned with; likewise.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: A file cannot be read, is damaged or was made from other weights, or the trunk is another one.
    """

    def __init__(self, weights: Path, trunk: Path) -> None:
        self._features = functools.lru_cache(_VIEWS)(self._computed)
        self._net = _session(weights, "prompts")
        learned_with = self._net.get_modelmeta().custom_metadata_map.get(TRUNK_DIGEST)
        if learned_with != digest_of(trunk):
            raise RuntimeError(f"prompts {weights} learned with another trunk than {trunk}: name it by trunk.weights")
        if isinstance(side := self._net.get_inputs()[0].shape[2], int):
            raise RuntimeError(
                f"graph beside {weights} takes views of {side} pixels alone: run maskrnn export --prompts"
            )
        self._trunk = _session(trunk, "trunk")

    def __call__(self, view: UInt8Array, planes: Floats) -> Floats:
        """See ``Look``."""
        pixels = np.ascontiguousarray(view.transpose(2, 0, 1)[None])
        feed = {"image": pixels, "planes": planes[None], **self._features(view.tobytes())}
        (log_odds,) = self._net.run(["log_odds"], feed)
        return np.asarray(log_odds[0])

    def _computed(self, pixels: bytes) -> dict[str, Floats]:
        """The trunk's features of a view, by the name of the network's input."""
        side = math.isqrt(len(pixels) // 3)
        view = np.frombuffer(pixels, np.uint8).reshape(1, side, side, 3)
        maps = self._trunk.run(None, {"image": view})
        return dict(zip(("stride4", "stride8", "stride16"), maps, strict=True))


class Mirrored:
    """Looks at a view and at its mirror image and takes the mean: 0.01 more IoU for twice the time. A ``Look``.

    Args:
        look: Looks at either.
    """

    def __init__(self, look: Look) -> None:
        self._look = look

    def __call__(self, view: UInt8Array, planes: Floats) -> Floats:
        """See ``Look``."""
        one = self._look(view, planes)
        other = self._look(np.ascontiguousarray(view[:, ::-1]), np.ascontiguousarray(planes[..., ::-1]))
        return np.asarray((one + other[:, ::-1]) / 2, np.float32)


class ShippedLook:
    """Looks with what ships, which a process reads when it is asked for the first time: most never are. A ``Look``.

    Args:
        name: What ``prompts.weights`` calls it.
    """

    def __init__(self, name: str = "shipped") -> None:
        self._name = name

    def __call__(self, view: UInt8Array, planes: Floats) -> Floats:
        """See ``Look``.

        Raises:
            ValueError: What ships is missing or damaged.
        """
        try:
            look = _shipped(self._name)
        except (ImportError, OSError, RuntimeError) as error:
            raise _unusable(error) from error
        return look(view, planes)


def build_learned(weights: str, trunk: str, zoom: str, min_confidence: float) -> LearnedPrompts:
    """The backend ``learned`` of what ``prompts.*`` and ``trunk.weights`` name.

    What ships looks with the trunk of the same name, whatever the tracker's is.

    Raises:
        ValueError: The weights cannot be used.
    """
    if weights in PROMPTS:
        return LearnedPrompts(ShippedLook(weights), zoom, min_confidence)
    try:
        look = GraphLook(Path(weights), trunk_file(trunk))
    except (ImportError, OSError, RuntimeError) as error:
        raise _unusable(error) from error
    return LearnedPrompts(look, zoom, min_confidence)


@functools.cache
def _shipped(name: str) -> Look:
    """By ONNX Runtime, or where that is not installed by torch, as ``engine: auto`` does."""
    try:
        return GraphLook(PROMPTS[name], TRUNKS[name])
    except ImportError as missing:
        try:
            from maskrnn_ros.model.torch.weights import load_trunk
            from maskrnn_ros.prompts.torch.graph import load_prompts
            from maskrnn_ros.prompts.torch.net import TorchLook
        except ImportError:
            raise ImportError(
                "needs onnxruntime (or torch), which is not installed: pip install onnxruntime"
            ) from missing
        return TorchLook(load_prompts(PROMPTS[name]), load_trunk(str(TRUNKS[name])))


def _unusable(error: Exception) -> ValueError:
    return ValueError(f"prompts.backend learned: {' '.join(str(error).split())}")


def _session(weights: Path, option: str) -> Any:
    """The graph beside weights, on one core."""
    import onnxruntime

    file = weights.with_suffix(".onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(read_graph(file), options, providers=["CPUExecutionProvider"])
    if session.get_modelmeta().custom_metadata_map.get(DIGEST) != digest_of(weights):
        raise RuntimeError(f"graph {file} was not made from {weights}: run maskrnn export --{option} {weights}")
    return session


def _share(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)


def _along_edges(share: Floats, view: UInt8Array) -> Floats:
    """The share of the object in each pixel of a view so that its edges lie on edges of the picture."""
    guide = luma(view)
    return refine(share, guide, guide, round(_REACH * len(view)), _SMOOTHNESS)


def _on(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(point for point in points if point.on_object)


def _extent(mask: BoolArray | None, points: Iterable[Point], size: tuple[int, int], box: Box | None = None) -> Box:
    """What holds the mask, the box and all points; of none of them the whole image."""
    found = [] if box is None else [box]
    if mask is not None and (around := Box.of_mask(mask)) is not None:
        found.append(around)
    found += [Box(int(point.x), int(point.y), int(point.x) + 1, int(point.y) + 1) for point in points]
    if not found:
        return Box(0, 0, size[1], size[0])
    whole = found[0]
    for one in found[1:]:
        whole = whole.union(one)
    return whole
