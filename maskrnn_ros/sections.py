# SPDX-License-Identifier: Apache-2.0
"""Sections of the config: the settings that belong together, with range, default and one line of help each."""

from __future__ import annotations

import dataclasses
import re

from maskrnn_ros.setting import Checked, setting

_FLOWS = ("auto", "dis", "flownet", "raft", "epicflow")
"""Flow backends of the package, see ``flow.backends.BACKENDS``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig(Checked):
    """Optical flow between two frames."""

    backend: str = setting(
        "dis",
        "Optical flow: dis (OpenCV, CPU), flownet (a small network, CPU or GPU), raft (a large network, "
        "for GPUs; weights do not ship), epicflow (needs opencv-contrib), or package.module:factory for your own. "
        "auto: dis on a CPU, flownet on a GPU.",
        basic=True,
    )
    # medium takes five times as long for masks no better: J .800 F .783 on held out clips, ultrafast J .797 F .782
    preset: str = setting(
        "auto",
        "Effort of dis and epicflow: medium is most accurate, ultrafast needs a fifth of its time or less. "
        "auto: set by quality; any other value is used at every quality.",
        choices=("auto", "ultrafast", "fast", "medium"),
        automatic="auto",
    )
    weights: str = setting(
        "shipped",
        "Weights of the flow network: shipped (none ship for raft), a .safetensors file, or torchvision "
        "(downloads those of raft).",
    )
    raft: str = setting("small", "Size of the RAFT network.", choices=("small", "large"))
    iterations: int = setting(12, "Iterations of RAFT; fewer are faster and less accurate.", low=1, high=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend not in _FLOWS and not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", self.backend):
            names = ", ".join(_FLOWS)
            raise ValueError(f"flow.backend must be {names} or package.module:factory, got {self.backend!r}")
        if self.weights not in ("shipped", "torchvision") and not self.weights.endswith(".safetensors"):
            raise ValueError(f"flow.weights must be shipped, torchvision or a .safetensors file, got {self.weights!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateConfig(Checked):
    """Box gate: a pixel belongs to an instance only inside its enlarged box (MaskRNN, localization net)."""

    enabled: bool = setting(
        True,
        "With network.localization, or without the decoder: restrict each mask to an enlarged box around it.",
        live=True,
    )
    enlarge: float = setting(
        1.25,
        "Width and height of that box relative to the predicted box, or the box of the mask.",
        low=1.0,
        high=10.0,
        live=True,
    )
    spans_prior: bool = setting(
        True,
        "With network.localization: the gate spans the predicted box and the box of the propagated mask. "
        "Off: the predicted box only, as in the paper.",
        live=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptationConfig(Checked):
    """How an instance's own model, which tells it from all else, comes from its seed."""

    method: str = setting(
        "recursive",
        "How the model of an instance is fitted. recursive: in closed form on the seed, then updated on every frame "
        "that can be trusted. none: no such model. finetune: by gradient as in the paper, only for `maskrnn evaluate "
        "--profile paper`.",
        choices=("recursive", "finetune", "none"),
    )
    seed: int = setting(0, "Seed of the random number generator.", low=0, high=2**31 - 1)
    steps: int = setting(100, "With finetune: training steps; the paper uses 200.", low=0, high=100_000)
    rate: float = setting(0.002, "With finetune: initial learning rate.", low=0.0, high=1.0)
    decay: float = setting(
        1.0,
        "With finetune: share of the learning rate that is lost by the last step, linearly.",
        low=0.0,
        high=1.0,
    )


SHIPPED = ("shipped", "permissive")
"""Trunks and decoders of the package; each pair learned together."""


def _check_weights(name: str, value: str) -> None:
    if value not in SHIPPED and not value.endswith(".safetensors"):
        raise ValueError(f"{name} must be {', '.join(SHIPPED)} or a .safetensors file, got {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkConfig(Checked):
    """The features that all instances share."""

    weights: str = setting("shipped", "Weights of the trunk: shipped, permissive, or a .safetensors file.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights("trunk.weights", self.weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(Checked):
    """The network that follows instances."""

    enabled: bool = setting(True, "Use the decoder. Off: masks are propagated by optical flow only.")
    weights: str = setting(
        "shipped",
        "Weights of the decoder: shipped; permissive, which are trained on data of permissive licences alone and are "
        "less accurate (set trunk.weights: permissive, too); or a .safetensors file.",
    )
    flow_stream: bool = setting(True, "Give the decoder the optical flow. Off: it sees zero flow.")
    hidden: bool = setting(True, "Propagate the decoder's hidden state from frame to frame (recurrence).")
    localization: bool = setting(
        False,
        "Gate masks by the box that the network predicts. Off, which is slightly better on held-out clips: no gate.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights("network.weights", self.weights)

    @property
    def ships(self) -> bool:
        """Whether the weights are of the package, not a file of one's own."""
        return self.weights in SHIPPED


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig(Checked):
    """The probability carried from the frame before."""

    source: str = setting(
        "warped",
        "The mask that a frame starts from. warped: the previous mask, propagated by the flow; unwarped: "
        "the previous mask as it was; none: no previous mask.",
        choices=("warped", "unwarped", "none"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZoomConfig(Checked):
    """Small instances are looked at closely, each in a window of its own."""

    size: int = setting(
        0,
        "Longer side of the image in which small instances are looked at, each in a window of its own, pixels; larger "
        "images are scaled down. 0: no zoom.",
        low=0,
        high=4096,
        basic=True,
    )
    below: int = setting(
        48,
        "With zoom.size, an instance is small if the longer side of its box is less than this when it is marked, "
        "pixels of the working image.",
        low=1,
        high=4096,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinementConfig(Checked):
    """Edges of the image at the full resolution (guided filter)."""

    enabled: bool = setting(True, "Snap mask edges to image edges at full resolution (guided filter).", live=True)
    radius: int = setting(2, "Radius of the guided filter, pixels of the working image.", low=1, high=100, live=True)
    smoothness: float = setting(
        0.003,
        "Image variance (values 0..1) above which the guided filter keeps an edge.",
        low=1.0e-6,
        high=1.0,
        live=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresenceConfig(Checked):
    """When an instance counts as seen."""

    min_pixels: int = setting(
        8, "Minimum area of a visible instance, pixels of the working image.", low=1, high=100_000, live=True
    )
    lost_after_frames: int = setting(
        30,
        "Number of images without the instance after which OCCLUDED becomes LOST.",
        low=1,
        high=100_000,
        live=True,
    )
    min_share: float = setting(
        0.05,
        "An instance is not visible below this share of its usual area.",
        low=0.0,
        high=1.0,
        live=True,
    )
    min_probability: float = setting(
        0.78,
        "An instance is not visible below this mean probability inside its mask, unless it looks like its seed.",
        low=0.5,
        high=1.0,
        live=True,
    )
    threshold: float = setting(
        0.5,
        "An instance is not visible below this probability of presence, as predicted by the network.",
        low=0.0,
        high=1.0,
        live=True,
    )
    return_share: float = setting(
        0.15, "Minimum share of its usual area to find an instance again.", low=0.0, high=10.0, live=True
    )
    return_probability: float = setting(
        0.8, "Minimum mean probability to find an instance again.", low=0.5, high=1.0, live=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestConfig(Checked):
    """Instances around which nothing changes keep their masks without a look of the networks."""

    enabled: bool = setting(
        True,
        "With a still camera: an instance keeps its mask without the networks while nothing changes around it. They "
        "look at it on the very image on which something does, and every 15 images.",
        live=True,
    )
    tolerance: float = setting(
        8.0,
        "Most that the mean of 8x8 pixels of the working image may vary while an instance comes to rest, grey levels "
        "(0..255). The noise there is measured meanwhile, and from then on that counts.",
        low=0.0,
        high=255.0,
        live=True,
    )


def time_jump_s() -> float:
    """Field of the setting of that name, which tracker and locator share."""
    field: float = setting(
        2.0,
        "A stamp that is older than the newest by less than this is late, and its message is refused. A "
        "larger difference, back or ahead, may be a time jump, seconds.",
        low=0.1,
        high=600.0,
        live=True,
    )
    return field


def time_jump_images() -> int:
    """Likewise."""
    field: int = setting(
        3,
        "A time jump is accepted after this many messages in a row on the new timeline. Until then they "
        "are held, then used in order; fewer are refused. 1 accepts every stamp.",
        low=1,
        high=30,
        live=True,
    )
    return field


@dataclasses.dataclass(frozen=True, kw_only=True)
class BufferConfig(Checked):
    """Past frames, held for seeds that come late."""

    seconds: float = setting(
        10.0,
        "How old the image of a seed may be, seconds: past images are buffered this long.",
        low=0.0,
        high=600.0,
        live=True,
        basic=True,
    )
    megabytes: int = setting(
        256, "Memory limit of that buffer, MB (10^6 bytes).", low=1, high=100_000, live=True, basic=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CatchUpConfig(Checked):
    """How a late seed gets from its image to now."""

    mode: str = setting(
        "skip",
        "How a seed on a past image catches up with the stream. skip: drops images to finish within "
        "catch_up.max_s while the stream goes on. exact: processes every image while the stream waits (for "
        "bags and tests).",
        choices=("exact", "skip"),
        live=True,
        basic=True,
    )
    max_s: float = setting(2.0, "With skip: time limit for catching up, seconds.", low=0.05, high=60.0, live=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptsConfig(Checked):
    """Boxes and points: how they become masks, and which of a detector's boxes start an instance."""

    backend: str = setting(
        "learned",
        "What turns a box or a click into a mask: learned (a small network), grabcut (OpenCV, by color), "
        "or package.module:factory for your own.",
        basic=True,
    )
    weights: str = setting(
        "shipped",
        "With learned: shipped; permissive, which are trained on data of permissive licences alone and are less "
        "accurate; or a .safetensors file with its graph beside it, which fits one trunk only.",
    )
    zoom: str = setting(
        "mask",
        "With learned: where the network looks for clicks. whole: the whole image; mask: the whole image, "
        "then a crop around the mask it found; clicks: half the image around the clicks, then such a crop.",
        choices=("whole", "mask", "clicks"),
    )
    min_confidence: float = setting(
        0.5,
        "With learned: masks with a lower predicted IoU are rejected as unsure.",
        low=0.0,
        high=1.0,
        basic=True,
    )
    same_iou: float = setting(
        0.5,
        "~/seed_box and clicks do not start an instance where an existing one overlaps by more than this IoU.",
        low=0.0,
        high=1.0,
        live=True,
    )
    min_score: float = setting(
        0.5, "~/seed_box: ignore detections with a lower score.", low=0.0, high=1.0, live=True, basic=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig(Checked):
    """When the node says that something is wrong, and when it gives up."""

    image_s: float = setting(
        3.0,
        "Report on /diagnostics when no image arrived, or no image gave masks, for this long, seconds. 0: never.",
        low=0.0,
        high=3600.0,
        live=True,
    )
    worker_s: float = setting(
        30.0,
        "Exit with status 70 when the worker made no progress for this long, so that a supervisor can "
        "restart the node, seconds. 0: never. Catching up counts as progress.",
        low=0.0,
        high=3600.0,
        live=True,
        basic=True,
    )
