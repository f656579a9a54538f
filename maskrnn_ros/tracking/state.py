# SPDX-License-Identifier: Apache-2.0
"""What is known of a frame and of an instance between two steps."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from maskrnn_ros.types import InstanceStatus


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PreparedFrame:
    """A frame at the working size, on the device; all instances share it.

    Args:
        stamp_ns: Stamp of the image, ns.
        size: (H, W) of the input image, pixels.
        image: RGB, uint8, (3, h, w), the working image.
    """

    stamp_ns: int
    size: tuple[int, int]
    image: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it holds, bytes."""
        return self.image.numel() * self.image.element_size()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InstanceState:
    """All that is carried for one instance; it depends on no other instance.

    Args:
        instance_id: Public id, >= 1.
        name: Name given with the seed, may be empty.
        probability: float32, (h, w), at the working size: before the merge, after the instance's own box gate.
        status: State on the newest frame.
        seeded_ns: Stamp of the image that its last seed was drawn on, ns.
        age: Images since then.
        frames_unseen: Images since it was last seen.
        area: Pixels with probability >= 0.5, at the working size.
        usual_area: Slow mean of the area while seen, likewise.
        velocity: (x, y), pixels of the input per second; None where unknown.
        seed_mask: bool, (H, W), at the size of the input: the seed itself, on the seeded frame only.
    """

    instance_id: int
    name: str
    probability: Tensor
    status: InstanceStatus
    seeded_ns: int
    age: int
    frames_unseen: int
    area: int
    usual_area: float
    velocity: tuple[float, float] | None
    seed_mask: Tensor | None
