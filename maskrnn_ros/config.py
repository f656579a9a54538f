# SPDX-License-Identifier: Apache-2.0
"""Every setting of the tracker and its node: name, default, unit, range, and what it does.

Defaults are defined here and nowhere else. The ROS parameters are declared from these fields (``flow.preset`` is
``Config().flow.preset``), and docs/reference.md is generated from them. A YAML file holds overrides only: the same ROS
parameter file serves ``params_file:=`` of the launch file and ``--config`` of the command line (``parameter_file``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from maskrnn_ros.bit_depth import CHOICES as BIT_DEPTHS
from maskrnn_ros.setting import Checked, Setting, Value, no_setting, renewed, setting

T = TypeVar("T", bound=Checked)

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
        "With learned: shipped, or a .safetensors file with its graph beside it. The weights fit one trunk only.",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Checked):
    """Settings of the tracker and of the node around it; sections are separated by a dot in parameter names."""

    device: str = setting(
        "auto", "Where the networks run: cpu, cuda, cuda:N, or auto (cuda if there is a GPU, else cpu).", basic=True
    )
    engine: str = setting(
        "auto",
        "What runs the networks: onnxruntime (faster on a CPU; the shipped weights come with its graphs, "
        "`maskrnn export` makes them for your own) or torch. auto: onnxruntime on a CPU if the graphs are "
        "there, else torch.",
        choices=("auto", "torch", "onnxruntime"),
        basic=True,
    )
    precision: str = setting(
        "auto",
        "Precision of the trunk: float32; int8 (onnxruntime; half the time on CPUs with 8-bit dot products "
        "such as VNNI); float16 (torch, for GPUs). auto: int8 on such a CPU if the graph is there, else "
        "float32. The decoder always runs in float32.",
        choices=("auto", "float32", "float16", "int8"),
    )
    compile: str = setting(
        "off",
        "Speed up the networks by torch.compile (engine torch; the first images take long). "
        "reduce-overhead: with CUDA graphs. Not tried on a GPU yet.",
        choices=("off", "default", "reduce-overhead"),
    )
    quality: str = setting(
        "medium",
        "Speed against accuracy: high is more accurate and takes 1.4 to 1.9 times as long. Sets working_size and "
        "flow.preset unless you set those yourself.",
        choices=("medium", "high"),
        basic=True,
    )
    working_size: int = setting(
        0,
        "Longer side of the image the tracker works on, pixels. Smaller is faster. Larger images are "
        "scaled down. 0: set by quality; any other value is used at every quality.",
        low=64,
        high=4096,
        automatic=0,
        basic=True,
    )
    zoom: ZoomConfig = dataclasses.field(default_factory=ZoomConfig)
    while_busy: str = setting(
        "propagate",
        "Images that come while the networks are at work: propagate gives them the masks of the newest image that the "
        "networks have looked at, carried there by optical flow, within milliseconds; drop gives them none.",
        choices=("propagate", "drop"),
        basic=True,
    )
    max_instances: int = setting(
        32, "Maximum number of instances; further seeds are rejected.", low=1, high=1000, live=True, basic=True
    )
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    trunk: TrunkConfig = dataclasses.field(default_factory=TrunkConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
    adaptation: AdaptationConfig = dataclasses.field(default_factory=AdaptationConfig)
    refinement: RefinementConfig = dataclasses.field(default_factory=RefinementConfig)
    gate: GateConfig = dataclasses.field(default_factory=GateConfig)
    presence: PresenceConfig = dataclasses.field(default_factory=PresenceConfig)
    buffer: BufferConfig = dataclasses.field(default_factory=BufferConfig)
    catch_up: CatchUpConfig = dataclasses.field(default_factory=CatchUpConfig)
    prompts: PromptsConfig = dataclasses.field(default_factory=PromptsConfig)
    watchdog: WatchdogConfig = dataclasses.field(default_factory=WatchdogConfig)
    seed_timeout: float = setting(
        2.0,
        "How long a seed waits for its image to arrive, seconds.",
        low=0.0,
        high=600.0,
        live=True,
        basic=True,
    )
    ignore_mask_timeout: float = setting(
        0.2,
        "How much older than the image its ~/ignore_mask may be, seconds. The newest one that is not newer "
        "than the image is used; the node does not wait for one. 0: only a mask with the stamp of the "
        "image, for lockstep.",
        low=0.0,
        high=600.0,
        live=True,
        basic=True,
    )
    time_jump_s: float = time_jump_s()
    time_jump_images: int = time_jump_images()
    on_time_jump: str = setting(
        "reset",
        "When time jumps back: reset starts a new session, keep keeps the instances and clears the buffer.",
        choices=("reset", "keep"),
        live=True,
        basic=True,
    )
    compressed: bool = setting(
        False, "Subscribe to `<image>/compressed` (CompressedImage) instead of Image.", basic=True
    )
    mono16_bits: str = setting(
        "auto",
        "Bits in use in 16-bit images (mono16, rgb16, bayer_*16, files), 8 to 16. auto: the smallest of 8, "
        "10, 12, 14, 16 that holds the first image, raised when a later image needs more.",
        choices=BIT_DEPTHS,
        basic=True,
    )
    image_reliability: str = setting(
        "auto",
        "QoS reliability of the image subscription. auto: reliable if all publishers are, else best effort.",
        choices=("auto", "reliable", "best_effort"),
        basic=True,
    )
    mask_encoding: str = setting(
        "mono8",
        "Encoding of the masks in ~/instances: rle is smallest (for networks), mono8 is fastest to read, "
        "none sends boxes and states only.",
        choices=("none", "mono8", "bits", "rle", "prob8"),
        live=True,
        basic=True,
    )
    label_encoding: str = setting(
        "mono16", "Encoding of ~/label_image; mono8 holds ids up to 255.", choices=("mono8", "mono16"), basic=True
    )
    persist_dir: str = setting(
        "",
        "Folder in which the node saves its instances, to restore them after a restart. Empty: they end "
        "with the process.",
        basic=True,
    )
    persist_period: float = setting(
        2.0, "Minimum time between two writes to persist_dir, seconds.", low=0.1, high=3600.0
    )
    status_period: float = setting(1.0, "Period of ~/status, seconds.", low=0.05, high=60.0)
    threads: int = setting(
        0,
        "Threads for processing an image. 0: one per core this process may use.",
        low=0,
        high=256,
        basic=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        trunk, network = self.trunk.weights, self.network.weights
        if trunk != network and trunk in SHIPPED and network in SHIPPED:
            raise ValueError(
                "network.weights and trunk.weights must be the same, they learned together, "
                f"got {network!r} and {trunk!r}"
            )


def settings(section: type[Checked] = Config, prefix: str = "") -> Iterator[tuple[str, Value, Setting]]:
    """All settings, in order: (dotted name, default, what is known of it)."""
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        name = prefix + field.name
        if "setting" in field.metadata:
            yield name, field.default, field.metadata["setting"]  # type: ignore[misc]
        else:
            yield from settings(field.default_factory, f"{name}.")  # type: ignore[arg-type]


def to_flat(config: Checked, prefix: str = "") -> dict[str, Value]:
    """Values by dotted name.

    >>> to_flat(Config())["gate.enlarge"]
    1.25
    """
    flat: dict[str, Value] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, Checked):
            flat.update(to_flat(value, f"{prefix}{field.name}."))
        else:
            flat[prefix + field.name] = value
    return flat


def from_flat(values: Mapping[str, Value]) -> Config:
    """A config from values by dotted name; what is not named keeps its default.

    Raises:
        ValueError: A name that is none or none any more, or a value that its field refuses.
    """
    values = renewed(values)
    known = {name: (type(default), known) for name, default, known in settings()}
    for name, value in values.items():
        if name not in known:
            raise ValueError(no_setting(name, known))
        kind, known_setting = known[name]
        known_setting.take(name, value, kind)  # here the whole dotted name is at hand
    return _build(Config, values, "")


def _build(section: type[T], values: Mapping[str, Value], prefix: str) -> T:
    """A section of the config, with the values of its settings by full name and defaults for the rest."""
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        name = prefix + field.name
        if "setting" not in field.metadata:
            arguments[field.name] = _build(field.default_factory, values, f"{name}.")  # type: ignore[arg-type]
        elif name in values:
            arguments[field.name] = values[name]
    return section(**arguments)


def with_values(config: Config, **changes: Value) -> Config:
    """A copy with some values changed; a dot in a name is written as two underscores.

    >>> with_values(Config(), catch_up__mode="exact").catch_up.mode
    'exact'
    """
    return from_flat({**to_flat(config), **{name.replace("__", "."): value for name, value in changes.items()}})
