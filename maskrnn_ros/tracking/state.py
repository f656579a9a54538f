# SPDX-License-Identifier: Apache-2.0
"""What is known of a frame and of an instance between two steps."""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import Future
from typing import TYPE_CHECKING

from torch import Tensor

from maskrnn_ros.model.backbone import Features
from maskrnn_ros.model.head import Head
from maskrnn_ros.model.matching import Reference, describe
from maskrnn_ros.model.network import Hidden
from maskrnn_ros.model.similarity import Nearest, nearest
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.tracking.adaptation import SeedView
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.types import BoolArray, InstanceStatus, UInt8Array

if TYPE_CHECKING:
    from maskrnn_ros.tracking.follow import Known


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PreparedFrame:
    """A frame at the working size, on the device; all instances share it.

    Args:
        stamp_ns: Stamp of the image, ns.
        size: (H, W) of the input image, pixels.
        image: RGB, uint8, (3, h, w), the working image.
        trunk: Computes the features when they are first asked for: before any seed no network runs.
        host: The working image on the CPU, RGB, uint8, (h, w, 3), where the device is another one.
        ignored: Where surely is no object; None: nowhere.
    """

    stamp_ns: int
    size: tuple[int, int]
    image: Tensor
    trunk: Trunk | None = None
    host: UInt8Array | None = None
    ignored: Ignored | None = None

    @property
    def unknown(self) -> Tensor | None:
        """Where nothing may be found or learned, bool (h, w); None: nowhere."""
        return None if self.ignored is None else self.ignored.working

    @property
    def pixels(self) -> UInt8Array:
        """The working image on the CPU, RGB, uint8, (h, w, 3), not to be written to."""
        return self.image.permute(1, 2, 0).cpu().numpy() if self.host is None else self.host

    @functools.cached_property
    def features(self) -> Features:
        """Features of the working image, computed once and held."""
        if self.trunk is None:
            raise RuntimeError("this frame was prepared without a trunk: it has no features")
        return self.trunk.features(self.image)

    @functools.cached_property
    def descriptors(self) -> Tensor:
        """Descriptors of its cells for the matching, int8 (C, j, i), likewise."""
        return describe(self.features)

    @property
    def nearest(self) -> Nearest:
        """What compares its descriptors."""
        return nearest if self.trunk is None else self.trunk.nearest

    @property
    def nbytes(self) -> int:
        """Memory that it holds now, bytes; it grows when features are computed."""
        held = self.__dict__
        features = held["features"].nbytes if "features" in held else 0
        features += 0 if self.host is None else self.host.nbytes
        features += 0 if self.ignored is None else self.ignored.nbytes
        return features + sum(int(held[name].nbytes) for name in ("image", "descriptors") if name in held)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InstanceState:
    """All that is carried for one instance; without a decoder it depends on no other instance, see ``Tracker``.

    Args:
        instance_id: Public id, >= 1.
        name: Name given with the seed, may be empty.
        patch: Its probability at the working size: before the merge, after the instance's own box gate.
        status: State on the newest frame.
        seeded_ns: Stamp of the image that its last seed was drawn on, ns.
        age: Images since then.
        frames_unseen: Images since it was last seen.
        area: Pixels with probability >= 0.5, at the working size.
        usual_area: Slow mean of the area while seen, likewise.
        velocity: (x, y), pixels of the input per second; None where unknown.
        seed_mask: bool, (H, W), at the size of the input: the seed itself, on the seeded frame only.
        seeds: The frames on which it was marked, by ascending stamp; empty without matching and adaptation.
        recent: References of the frames on which it was seen last, for the matching.
        head: Its adapted head; None while there is none.
        promise: The head that is being trained in the background.
        hidden: What the network remembers of it; None without a network, or where it begins anew.
        known: What the decoder carries of it; None where there is none.
    """

    instance_id: int
    name: str
    patch: Patch
    status: InstanceStatus
    seeded_ns: int
    age: int
    frames_unseen: int
    area: int
    usual_area: float
    velocity: tuple[float, float] | None
    seed_mask: BoolArray | None
    seeds: tuple[SeedView, ...] = ()
    recent: tuple[Reference, ...] = ()
    head: Head | None = None
    promise: Future[Head] | None = None
    hidden: Hidden | None = None
    known: Known | None = None

    @property
    def probability(self) -> Tensor:
        """Its probability, float32 (h, w)."""
        return self.patch.full
