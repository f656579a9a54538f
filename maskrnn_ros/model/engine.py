# SPDX-License-Identifier: Apache-2.0
"""What runs the networks, behind one interface of NumPy arrays: ONNX Runtime, or torch.

What lies on a device stays there: features of a frame, hidden states, keys. The tracker hands those on without looking
inside. Which of the two is taken: ``load``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray, LabelArray, UInt8Array

Floats: TypeAlias = npt.NDArray[np.float32]

Opaque: TypeAlias = Any
"""An array of an engine, NumPy's or torch's, with ``shape``, ``nbytes`` and an index of numbers, or lists of them."""

PLACE_INPUTS = (
    "flow",  # (1, 2, h4, w4): backward flow, pixels
    "ignored",  # (1, h4, w4): share of each cell where no object may be
    "beside",  # (1, h4, w4): what objects that are shown and not carried along covered before, where they are now
    "switches",  # (4,) of 0 or 1: masks are warped, masks are carried, flow is shown, hidden states are carried
    "probability",  # (K, 1, FINE, FINE): of the frame before, in the crops
    "boxes",  # (K, 4): those crops, x0 y0 x1 y1 in pixels of the working image
    "sought",  # (K, 4): where an object is looked for that has no warped mask, pixels; NaN: nowhere
)
"""Inputs of the first part of a step: where K objects are looked for, all of them at once. float32."""

PLACE_OUTPUTS = (
    "around",  # (K, 4): boxes of the warped masks, or what was sought
    "crops",  # (K, 4): what is looked at
    "looked",  # (K,): 0 where there is nothing to look at
    "others",  # (K, h4, w4): most of the warped masks of all others
)
"""What it says."""

LOOK_INPUTS = (
    "stride8",  # (1, 40, h8, w8)
    "stride16",  # (1, 112, h16, w16)
    "flow",
    "switches",
    "crops",
    "others",
    "image",  # uint8, (K, FINE, FINE, 3): RGB in the crops, ``BEYOND`` the image
    "columns",  # (K, CROP, CROP, COLUMNS): in the crops, 0 beyond the map
    "probability",
    "boxes",
    "hidden",  # (K, HIDDEN, CROP / 2, CROP / 2)
    "coefficients",  # (K, COLUMNS + 1, TARGET): of the target models
    "seed_code",  # (K, CODES, KEYS): cells of the seeds, and in the next (K, 2, KEYS) what they are of
    "seed_values",
    "newest_code",  # likewise, of the newest frame that could be trusted
    "newest_values",
)
"""Inputs of the second part: what is seen there, of each object by itself. float32 where nothing else is said."""

LOOK_OUTPUTS = (
    "log_odds",  # (K, FINE, FINE)
    "deltas",  # (K, 4): of the predicted box against ``around``
    "presence",  # (K,): log-odds
    "hidden",
    "code",  # (K, CODES, CROP / 2, CROP / 2)
    "matched",  # (K, 2 * MATCHED, CROP / 2, CROP / 2)
)
"""What it says, see ``step.Output``."""

STEP_OUTPUTS = (*PLACE_OUTPUTS[:3], *LOOK_OUTPUTS, "columns")
"""What a step says, see ``Looked``."""

BEYOND = 127
"""What is beyond the image in crops of it, 0 for the decoder but for half a grey level."""

LEARN_INPUTS = ("columns", "code", "share", "rivals", "known")
"""Of K crops: columns, as the decoder's graph is given them, its codes, and (K, 1, CROP, CROP) each: masks, those of
others, weight of each cell."""

BEGIN_INPUTS = ("columns", "stride8", "stride16", "boxes", "share", "others", "known")
"""Features of a frame, boxes (K, 4) of masks, and (K, h4, w4) each: masks, those of others, weight of each cell."""

SUMS = ("square", "target", "key_code", "key_values")
"""What both say: sums of the regressions, (K, COLUMNS + 1, COLUMNS + 1) and (K, COLUMNS + 1, TARGET), and keys."""


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of one frame, on the engine's device.

    Args:
        stride8: (1, 40, h8, w8).
        stride16: (1, 112, h16, w16).
        columns: (1, COLUMNS, h4, w4).
        image: The working image as a step takes it: uint8, (h, w, 3) in ONNX Runtime, (1, 3, h, w) in torch.
    """

    stride8: Opaque
    stride16: Opaque
    columns: Opaque
    image: Opaque


@dataclasses.dataclass(frozen=True, eq=False)
class Keys:
    """Cells that K objects are known by, on the engine's device: code (K, CODES, KEYS), values (K, 2, KEYS)."""

    code: Opaque
    values: Opaque


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
    """What a step is given of K objects, see ``LOOK_INPUTS``; here ``probability`` is (K, FINE, FINE)."""

    probability: Floats
    boxes: Floats
    hidden: Opaque
    coefficients: Floats
    seed: Keys
    newest: Keys
    sought: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class Lesson:
    """What some of K objects learn from a frame.

    Args:
        which: Numbers of those n that learn, ascending.
        share: Their masks, float32, (n, CROP, CROP).
        rivals: Those of others, likewise.
        known: Weight of each cell, likewise.
        seen: Weight of each key, float32, (n, KEYS); None: 1.
    """

    which: Sequence[int]
    share: Floats
    rivals: Floats
    known: Floats
    seen: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Around:
    """What a step is given beside the features and the objects, see ``PLACE_INPUTS``."""

    flow: Floats
    ignored: Floats
    beside: Floats
    switches: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class Looked:
    """What a step says of K objects, see ``STEP_OUTPUTS``; ``hidden``, ``code`` and ``columns`` are the engine's."""

    around: Floats
    crops: Floats
    looked: Floats
    log_odds: Floats
    deltas: Floats
    presence: Floats
    hidden: Opaque
    code: Opaque
    matched: Floats
    columns: Opaque


@dataclasses.dataclass(frozen=True, eq=False)
class Summed:
    """Sums of K regressions, float32 on the CPU, and keys on the engine's device, see ``SUMS``."""

    square: Floats
    target: Floats
    code: Opaque
    values: Opaque


@dataclasses.dataclass(frozen=True, eq=False)
class Drafts:
    """Objects at the working size whose masks are wanted at the size of the input.

    Args:
        ids: By which they are labelled, ascending, at least one.
        values: Probabilities, float32 (b, a) each; beside them they are 0.
        boxes: Where they are, int64 (K, 4): x0 y0 x1 y1, pixels of the working image.
        shown: Beside these boxes no pixel is likely enough to be labelled, likewise.
        size_of_work: (h, w).
        size: (H, W) of the input.
        guides: Brightness of the working image and of the input, uint8 (h, w) and (H, W), along whose edges masks end;
            None: along no edges, bilinear.
        radius: Of the guided filter, see ``refinement``.
        smoothness: Likewise.
        ignored: Where no object may be, bool (H, W); None: nowhere.
    """

    ids: Sequence[int]
    values: Sequence[Floats]
    boxes: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]
    size_of_work: tuple[int, int]
    size: tuple[int, int]
    guides: tuple[UInt8Array, UInt8Array] | None
    radius: int
    smoothness: float
    ignored: BoolArray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """Masks at the size of the input, every pixel given to the likeliest.

    Args:
        labels: int32 (H, W) of ids, 0 = background.
        boxes: int32 (K, 4), around the masks, x0 y0 x1 y1; x1 <= x0 where there is none.
        pixels: Of each mask, (K,).
        inside: Sum of its probability in it, float64 (K,).
        around: Likewise, in its box.
    """

    labels: LabelArray
    boxes: npt.NDArray[np.int32]
    pixels: npt.NDArray[np.int64]
    inside: npt.NDArray[np.float64]
    around: npt.NDArray[np.float64]


Merge: TypeAlias = Callable[[Drafts], Merged]


class Engine(Protocol):
    """Runs the networks."""

    name: str
    """onnxruntime or torch."""

    device: str
    """cpu, cuda or cuda:N."""

    precision: str
    """Numbers that the trunk computes in: float32, float16 or int8."""

    decoder_precision: str
    """Likewise, of a step: float32 or int8. The rest is float32."""

    ridge: float
    """Log of the ridge of the target models over the mean square of the columns."""

    @property
    def merge(self) -> Merge | None:
        """Merges masks at the size of the input on the engine's device; None: that is the CPU, and OpenCV does."""
        ...

    def features(self, image: UInt8Array) -> Features:
        """Features of a working image, RGB, uint8 (h, w, 3)."""
        ...

    def scores(self, features: Features, coefficients: Floats) -> Floats:
        """How much each cell of a frame is like K objects, by their target models, float32 (K, h4, w4), about 0..1.

        Args:
            features: Of the frame.
            coefficients: Of the target models, (K, COLUMNS + 1, TARGET).
        """
        ...

    def begin(self, features: Features, boxes: Floats, share: Floats, others: Floats, known: Floats) -> Summed:
        """What K masks say on their frame, see ``BEGIN_INPUTS``."""
        ...

    def step(self, features: Features, around: Around, objects: Objects) -> Looked:
        """Look at K objects, at least one."""
        ...

    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        """What crops say with these masks.

        Args:
            looked: K crops.
            lesson: Masks of some of them, which learn.
            newest: Keys of all K until now.

        Returns:
            Sums of those that learn; keys of all K, new ones of those.
        """
        ...

    def stack(self, arrays: Sequence[Opaque]) -> Opaque:
        """Arrays of single objects as one of all."""
        ...

    def without(self, batch: Opaque, which: Sequence[int]) -> Opaque:
        """A batch, which is not used any more, with 0 for some objects."""
        ...

    def zeros(self, *shape: int) -> Opaque:
        """Zeros, float32."""
        ...

    def times(self, array: Opaque, factors: Floats) -> Opaque:
        """An array of the engine times one of NumPy."""
        ...
