# SPDX-License-Identifier: Apache-2.0
"""Every setting of the tracker and its node: name, default, unit, range, and what it does.

Defaults stand here and nowhere else. The ROS parameters are declared from these fields (``flow.preset`` is
``Config().flow.preset``), the README's table is generated from them, and a YAML file holds overrides only: the same
ROS parameter file serves ``params_file:=`` of the launch file and ``--config`` of the command line
(``parameter_file``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from maskrnn_ros.bit_depth import CHOICES as BIT_DEPTHS
from maskrnn_ros.setting import Checked, Setting, Value, no_setting, renewed, setting

T = TypeVar("T", bound=Checked)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig(Checked):
    """Optical flow between two frames."""

    backend: str = setting(
        "dis",
        "Which estimator computes the flow: dis (OpenCV, on the CPU), flownet (a small network, on any device), raft "
        "(a large one, for GPUs; needs weights), epicflow (needs opencv-contrib); auto: dis on the CPU, else flownet.",
        choices=("auto", "dis", "flownet", "raft", "epicflow"),
    )
    # medium takes five times as long for masks no better: J .800 F .783 on held out clips, ultrafast J .797 F .782
    preset: str = setting(
        "auto",
        "Effort of dis, and of epicflow's matches; medium is the most exact, ultrafast takes a fifth of its time or "
        "less. auto: as quality says; any other value holds at all its levels.",
        choices=("auto", "ultrafast", "fast", "medium"),
        live=True,
        automatic="auto",
    )
    weights: str = setting(
        "shipped",
        "Weights of a network: shipped (there are none of raft), the path of a .safetensors file, or torchvision "
        "(raft's, downloaded).",
    )
    raft: str = setting("small", "Which of torchvision's two networks raft is.", choices=("small", "large"))
    iterations: int = setting(
        12, "Updates of raft's flow; time grows with them, fewer are less exact.", low=1, high=100
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in ("shipped", "torchvision") and not self.weights.endswith(".safetensors"):
            raise ValueError(f"flow.weights must be shipped, torchvision or a .safetensors file, got {self.weights!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateConfig(Checked):
    """Box gate: a pixel belongs to an instance only inside its enlarged box (MaskRNN, localization net)."""

    enabled: bool = setting(True, "Leave out what lies outside the gate; without it the whole image counts.", live=True)
    enlarge: float = setting(
        1.25,
        "Width and height of the gate over those of the box, about its centre.",
        low=1.0,
        high=10.0,
        live=True,
    )
    spans_prior: bool = setting(
        True,
        "With the network's localization: let the gate span the box of the carried mask, too, which loses less than "
        "its own box alone (the paper's).",
        live=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingConfig(Checked):
    """Comparison of the frame's features with those of the seed and of recent frames."""

    enabled: bool = setting(
        True, "Match the features of every frame with those of the seed and of recent frames; a decoder always does."
    )
    weight: float = setting(
        0.25, "Weight of the matching's log-odds beside those of the other parts.", low=0.0, high=10.0, live=True
    )
    weight_without_head: float = setting(
        1.0, "The same until there is a head, or without adaptation.", low=0.0, high=10.0, live=True
    )
    recent_frames: int = setting(
        0,
        "Without the network, which knows the seeds alone: recent frames that are matched beside them; each costs as "
        "much time as a seed.",
        low=0,
        high=32,
    )
    radius: int = setting(
        1000,
        "How far from a cell its matches may lie while the instance is seen, cells of 8 pixels; with recent frames 10 "
        "is enough, and takes less time.",
        low=1,
        high=1000,
    )
    top_k: int = setting(10, "Best matches of a cell that are averaged.", low=1, high=100, live=True)
    temperature: float = setting(
        0.05, "Similarity by which a match may be worse and still weigh a third.", low=0.001, high=10.0, live=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptationConfig(Checked):
    """How an instance's own model, which tells it from all else, comes from its seed."""

    method: str = setting(
        "recursive",
        "recursive: in closed form, at once and the same every time (a decoder goes on with it on later frames; the "
        "two-stream network fits its head to the seeds alone); finetune: a head is trained on the seed (needs "
        "network.weights: streams, or no network); none: no model of the instance.",
        choices=("recursive", "finetune", "none"),
    )
    mode: str = setting(
        "background",
        "With finetune: blocking: the head is trained before the next frame (offline, lockstep, tests); background: "
        "in a thread, while tracking goes on.",
        choices=("blocking", "background"),
    )
    weight: float = setting(
        1.0, "Weight of the head's log-odds beside those of the other parts.", low=0.0, high=10.0, live=True
    )
    steps: int = setting(100, "With finetune: training steps.", low=0, high=100_000)
    rate: float = setting(0.002, "With finetune: learning rate of the first step (AdamW).", low=0.0, high=1.0)
    decay: float = setting(
        1.0,
        "With finetune: share of the learning rate that is gone at the last step; falls linearly.",
        low=0.0,
        high=1.0,
    )
    seed: int = setting(0, "Seed of the random numbers.", low=0, high=2**31 - 1)
    views: int = setting(40, "With finetune: views of the seed: itself and augmentations.", low=1, high=1000)
    batch: int = setting(3, "With finetune: views in one step.", low=1, high=1000)
    channels: int = setting(32, "Channels of the head where trunk.weights is imagenet.", low=1, high=1024)
    resize: float = setting(
        1.5, "Augmentation: largest factor by which a view is scaled up or down.", low=1.0, high=10.0
    )
    rotate: float = setting(25.0, "Augmentation: largest rotation, degrees.", low=0.0, high=180.0)
    shift: float = setting(
        0.15, "Augmentation: largest shift, which crops the other side, as a share of the image.", low=0.0, high=1.0
    )
    flip: bool = setting(True, "Augmentation: mirror half of the views.")
    cover: float = setting(
        0.3, "Augmentation: share of the views in which a plain rectangle hides a part.", low=0.0, high=1.0
    )
    lighting: float = setting(
        1.4, "Augmentation: largest factor of gamma; contrast changes by half as much.", low=1.0, high=10.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkConfig(Checked):
    """The features that all instances share."""

    weights: str = setting(
        "shipped",
        "shipped: the one that learned with the network in use; streams: that of the two-stream network; imagenet: as "
        "ImageNet left it; or the path of a .safetensors file.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in ("shipped", "streams", "imagenet") and not self.weights.endswith(".safetensors"):
            raise ValueError(
                f"trunk.weights must be shipped, streams, imagenet or a .safetensors file, got {self.weights!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(Checked):
    """The trained network: it weighs the other parts itself, and adds what it sees in the image and in the flow."""

    enabled: bool = setting(True, "Use the network; the weights of the other parts then only help to find again.")
    weights: str = setting(
        "shipped",
        "Its weights: shipped (the decoder, which adaptation.method recursive is made for); streams (the two-stream "
        "network that ships, too, which finetune is made for); or the path of a .safetensors file of either.",
    )
    flow_stream: bool = setting(True, "Show it how fast everything moves; off, all stands still to it.")
    matching: bool = setting(
        True,
        "Show the streams the matching on every frame; off, the matching only helps to find a lost instance again.",
    )
    hidden: bool = setting(True, "Carry its hidden state from frame to frame (recurrence).")
    localization: bool = setting(
        False,
        "Gate by the box that it predicts, and ask it whether the instance is there; off (a little better on held out "
        "clips), the box is that of the carried mask.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ships and not self.weights.endswith(".safetensors"):
            raise ValueError(f"network.weights must be shipped, streams or a .safetensors file, got {self.weights!r}")

    @property
    def ships(self) -> bool:
        """Whether the weights are of the package, not a file of one's own."""
        return self.weights in ("shipped", "streams")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig(Checked):
    """The probability carried from the frame before."""

    source: str = setting(
        "warped",
        "warped: by the flow; unwarped: as it was; none: every frame is looked at as a whole, as if it were alone.",
        choices=("warped", "unwarped", "none"),
    )
    weight: float = setting(
        0.25,
        "Weight of the prior's log-odds where a head is there.",
        low=0.0,
        high=10.0,
        live=True,
    )
    weight_without_head: float = setting(
        0.5,
        "The same until there is a head, or without adaptation; without matching, too, the prior is all.",
        low=0.0,
        high=10.0,
        live=True,
    )
    floor: float = setting(
        0.02, "How near to 0 and 1 the prior may come before its log-odds are taken.", low=0.0001, high=0.4, live=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinementConfig(Checked):
    """Edges of the image at the full resolution (guided filter)."""

    enabled: bool = setting(True, "Let the masks at the size of the input follow the edges of the image.", live=True)
    radius: int = setting(
        2, "Half side of the filter's window, pixels of the working image.", low=1, high=100, live=True
    )
    smoothness: float = setting(
        0.003, "Variance of the image (values in 0..1) that counts as an edge.", low=1.0e-6, high=1.0, live=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresenceConfig(Checked):
    """When an instance counts as seen."""

    min_pixels: int = setting(
        8, "Smallest area that counts as seen, pixels of the working image.", low=1, high=100_000, live=True
    )
    lost_after_frames: int = setting(
        30,
        "Images without the instance after which it is LOST and no longer OCCLUDED.",
        low=1,
        high=100_000,
        live=True,
    )
    min_share: float = setting(
        0.05,
        "With matching or a head: share of its usual area below which it is not seen.",
        low=0.0,
        high=1.0,
        live=True,
    )
    min_probability: float = setting(
        0.78,
        "With a head: mean probability inside its mask below which it is not seen, unless the matching agrees to it.",
        low=0.5,
        high=1.0,
        live=True,
    )
    threshold: float = setting(
        0.5,
        "With the network's localization: its probability of being there that it takes.",
        low=0.0,
        high=1.0,
        live=True,
    )
    return_share: float = setting(
        0.15, "Share of its usual area from which an unseen instance may be found again.", low=0.0, high=10.0, live=True
    )
    return_probability: float = setting(
        0.8, "Mean probability that it takes to find an unseen instance again.", low=0.5, high=1.0, live=True
    )


def time_jump_s() -> float:
    """Field of the setting of that name, which tracker and locator share."""
    field: float = setting(
        2.0,
        "A stamp that is older than the newest by less than this is late: refused, and everything stays as it is. One "
        "that is further away, back or ahead, may be a jump in time, seconds.",
        low=0.1,
        high=600.0,
        live=True,
    )
    return field


def time_jump_images() -> int:
    """Likewise."""
    field: int = setting(
        3,
        "A jump in time is believed when so many messages in a row are of the new time. Until then they are held back, "
        "then used in order; fewer are refused. 1 believes every stamp.",
        low=1,
        high=30,
        live=True,
    )
    return field


@dataclasses.dataclass(frozen=True, kw_only=True)
class BufferConfig(Checked):
    """Past frames, held for seeds that come late."""

    seconds: float = setting(10.0, "How far back a late seed may lie, seconds.", low=0.0, high=600.0, live=True)
    megabytes: int = setting(256, "Memory for them, MB (10^6 bytes).", low=1, high=100_000, live=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CatchUpConfig(Checked):
    """How a late seed gets from its image to now."""

    mode: str = setting(
        "skip",
        "exact: every processed image in between, the stream waits (offline, lockstep, tests); "
        "skip: leaves images out so as to end in time, the stream goes on.",
        choices=("exact", "skip"),
        live=True,
    )
    max_s: float = setting(2.0, "With skip: time in which to catch up, seconds.", low=0.05, high=60.0, live=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptsConfig(Checked):
    """Boxes and points: how they become masks, and which of a detector's boxes start an instance."""

    backend: str = setting(
        "learned",
        "What makes a mask of a box or a point: learned (a small network, with prompts.weights), grabcut (OpenCV, by "
        "colours), or package.module:factory of your own.",
    )
    weights: str = setting(
        "shipped",
        "With learned: its weights, shipped or a .safetensors file, with the graph beside it; they go with one trunk.",
    )
    zoom: str = setting(
        "mask",
        "With learned: where clicks are looked at. whole: the whole image; mask: that, then closer at what was found; "
        "clicks: half of the image around the clicks, then closer at what was found.",
        choices=("whole", "mask", "clicks"),
    )
    min_confidence: float = setting(
        0.5,
        "With learned: a mask whose IoU with the object is thought to be lower is refused as unsure.",
        low=0.0,
        high=1.0,
    )
    same_iou: float = setting(
        0.5,
        "~/seed_box and clicks start no instance whose box or mask overlaps one that is there by more than this (IoU).",
        low=0.0,
        high=1.0,
        live=True,
    )
    min_score: float = setting(
        0.5, "~/seed_box: detections with a lower score are passed over.", low=0.0, high=1.0, live=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig(Checked):
    """When the node says that something is wrong, and when it gives up."""

    image_s: float = setting(
        3.0,
        "Without an image, or without masks though images come, for so long /diagnostics says so, seconds; 0: never.",
        low=0.0,
        high=3600.0,
        live=True,
    )
    worker_s: float = setting(
        30.0,
        "Without any progress in what is worked on for so long the process ends with status 70, so that it can be "
        "started anew, seconds; 0: never. Catching up and training count as progress.",
        low=0.0,
        high=3600.0,
        live=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Checked):
    """Settings of the tracker and of the node around it; sections are separated by a dot in parameter names."""

    device: str = setting("auto", "Where the tracker runs: auto (cuda where there is one), cpu, cuda or cuda:N.")
    engine: str = setting(
        "auto",
        "What runs the networks: torch, or onnxruntime (faster on a CPU; needs the graphs of `maskrnn export`, which "
        "ship with the shipped weights); auto: onnxruntime on a CPU where it can, else torch.",
        choices=("auto", "torch", "onnxruntime"),
    )
    precision: str = setting(
        "auto",
        "Numbers that the networks compute in: float32; int8 (onnxruntime; half the time on CPUs with VNNI or dot "
        "product instructions); float16 (torch, for GPUs); a decoder stays in float32; auto: int8 on such a CPU where "
        "its graphs are, else float32.",
        choices=("auto", "float32", "float16", "int8"),
    )
    compile: str = setting(
        "off",
        "Let torch.compile make the networks faster (engine torch; the first images take long); reduce-overhead: with "
        "CUDA graphs. Not run on a GPU yet.",
        choices=("off", "default", "reduce-overhead"),
    )
    quality: str = setting(
        "medium",
        "Level that sets working_size and flow.preset, unless these are set themselves: low is the fastest, high the "
        "most exact; see docs/tuning.md. With max_latency_ms it is the best one that is used.",
        choices=("low", "medium", "high"),
        live=True,
    )
    max_latency_ms: float = setting(
        0.0,
        "Time that an image may take in the worker (step_ms of ~/status), milliseconds; over it the node goes to a "
        "lower level of quality, and back up to quality when that fits. 0 is off: masks then depend on no clock.",
        low=0.0,
        high=10_000.0,
        live=True,
    )
    working_size: int = setting(
        0,
        "Longer side of the image that the tracker works on, pixels; smaller is faster. Larger images are scaled down. "
        "0: as quality says; any other value holds at all its levels.",
        low=64,
        high=4096,
        live=True,
        automatic=0,
    )
    max_instances: int = setting(
        32, "Most instances at a time; further ones are rejected.", low=1, high=1000, live=True
    )
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    trunk: TrunkConfig = dataclasses.field(default_factory=TrunkConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)
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
        "How long a seed waits for an image that has not come yet, seconds.",
        low=0.0,
        high=600.0,
        live=True,
    )
    ignore_mask_timeout: float = setting(
        0.2,
        "~/ignore_mask: how much older than the image a mask may be, seconds; the newest that is not newer counts, and "
        "none is waited for. 0: only one with the stamp of the image, as lockstep needs it.",
        low=0.0,
        high=600.0,
        live=True,
    )
    time_jump_s: float = time_jump_s()
    time_jump_images: int = time_jump_images()
    on_time_jump: str = setting(
        "reset",
        "When time jumps back: reset begins a new session; keep goes on with the instances, forgets the buffer.",
        choices=("reset", "keep"),
        live=True,
    )
    compressed: bool = setting(False, "Subscribe to <image>/compressed (CompressedImage) instead of Image.")
    mono16_bits: str = setting(
        "auto",
        "Bits that images of 16 bits fill (mono16, rgb16, bayer_*16, files): 8 to 16; auto: the smallest of 8, 10, 12, "
        "14, 16 that holds the first image, raised when a later one needs more.",
        choices=BIT_DEPTHS,
    )
    image_reliability: str = setting(
        "auto",
        "QoS of the image subscription; auto is reliable when all publishers are, else best effort.",
        choices=("auto", "reliable", "best_effort"),
    )
    mask_encoding: str = setting(
        "mono8",
        "Encoding of the masks in ~/instances; rle is the smallest (for networks), mono8 the quickest to read.",
        choices=("none", "mono8", "bits", "rle", "prob8"),
        live=True,
    )
    label_encoding: str = setting(
        "mono16", "Encoding of ~/label_image; mono8 holds ids up to 255.", choices=("mono8", "mono16")
    )
    persist_dir: str = setting(
        "",
        "Folder in which instances are kept, so that a node of the same name takes them up when it is started again; "
        "empty: they end with the process.",
    )
    persist_period: float = setting(2.0, "Shortest time between two writes into it, seconds.", low=0.1, high=3600.0)
    status_period: float = setting(1.0, "Time between two ~/status messages, seconds.", low=0.05, high=60.0)
    threads: int = setting(
        0,
        "So many objects are worked on at a time, and so many threads share an operation of the others; 0: as many as "
        "there are cores for this process.",
        low=0,
        high=256,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")


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


def deterministic(config: Config) -> Config:
    """The same with heads adapted at once where they would be in the background, and without a limit of latency.

    Results depend on no clock then.
    """
    if ("blocking", 0.0) == (config.adaptation.mode, config.max_latency_ms):
        return config
    return with_values(config, adaptation__mode="blocking", max_latency_ms=0.0)
