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
from maskrnn_ros.sections import (
    SHIPPED,
    AdaptationConfig,
    BufferConfig,
    CatchUpConfig,
    FlowConfig,
    GateConfig,
    NetworkConfig,
    PresenceConfig,
    PriorConfig,
    PromptsConfig,
    RefinementConfig,
    RestConfig,
    TrunkConfig,
    WatchdogConfig,
    ZoomConfig,
    time_jump_images,
    time_jump_s,
)
from maskrnn_ros.setting import Checked, Setting, Value, no_setting, renewed, setting

T = TypeVar("T", bound=Checked)


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
        "Precision of the networks: float32; int8 (onnxruntime; the trunk takes half the time on CPUs with 8-bit "
        "dot products such as VNNI, and most convolutions of the decoder are in int8, too, if it has such a graph); "
        "float16 (torch, for GPUs; the trunk alone). auto: int8 on such a CPU if the trunk's graph is there, else "
        "float32.",
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
    rest: RestConfig = dataclasses.field(default_factory=RestConfig)
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
