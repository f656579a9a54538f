# SPDX-License-Identifier: Apache-2.0
"""Named methods for the comparison, and the rows of the ablation: config values of the one tracker.

Two baselines stand outside of it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from maskrnn_ros.config import Config, Value, deterministic, from_flat, settings, to_flat

_ALL_OFF: dict[str, Value] = {"matching.enabled": False, "adaptation.mode": "off", "refinement.enabled": False}
_NETWORK = "the two-stream network with its localization net"

PROFILES = ("fast", "paper")
LOOKAHEADS = (0, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A row of the comparison.

    Args:
        text: What it is, for people.
        kind: What the row is marked as: "as configured", "switched" (parts of the tracker switched by config values,
            nothing trained for it) or "baseline".
        follower: Who follows: the "tracker", "static" or "graph".
        values: Settings that it changes; those of a part that is not there are "off" as it is.
        needs: Setting of the part without which it makes no sense, and the part's name.
        missing: Part that no version has yet.
    """

    text: str
    kind: str
    follower: str = "tracker"
    values: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    needs: tuple[str, str] | None = None
    missing: str | None = None


PRESETS: dict[str, Preset] = {
    "default": Preset(text="the tracker as configured", kind="as configured"),
    "static": Preset(text="the seed mask stays where it is", kind="baseline", follower="static"),
    "warp": Preset(text="the mask is carried by DIS flow, nothing else", kind="switched", values=_ALL_OFF),
    "match": Preset(
        text="reference matching alone",
        kind="switched",
        values={**_ALL_OFF, "matching.enabled": True, "prior.weight_without_head": 0.0},
        needs=("matching.enabled", "reference matching"),
    ),
    "graph": Preset(
        text="graph cut on every frame (GrabCut), started from the warped mask", kind="baseline", follower="graph"
    ),
    "maskrnn": Preset(text="our network in the MaskRNN setting", kind="switched", missing=_NETWORK),
    "masktrack": Preset(text="our network in the MaskTrack setting", kind="switched", missing=_NETWORK),
    "osvos": Preset(text="our network in the OSVOS setting", kind="switched", missing=_NETWORK),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A row of the ablation: the row before and one part more.

    Args:
        name: What is added, for people.
        values: Settings that it changes, beside those of the rows before it that are there.
        missing: Part that no version has yet; the row is then told, not measured.
        note: What one must know to read its figures.
    """

    name: str
    values: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    missing: str | None = None
    note: str = ""

    @property
    def slug(self) -> str:
        """Name of its folder.

        >>> AblationRow(name="+ box gate").slug
        'box-gate'
        """
        return "-".join(re.findall(r"[a-z0-9]+", self.name.lower()))


ABLATION: tuple[AblationRow, ...] = (  # the order of the paper's table; what it does not have comes last
    AblationRow(name="appearance only", missing=_NETWORK),
    AblationRow(name="+ flow stream", missing=_NETWORK),
    AblationRow(name="+ recurrence", missing=_NETWORK),
    AblationRow(name="+ box loss", missing=_NETWORK),
    AblationRow(name="warped mask", values={**_ALL_OFF, "gate.enabled": False}),  # all there is without a network
    AblationRow(
        name="+ box gate",
        values={"gate.enabled": True},
        note="the box is that of the warped mask itself: alone it cuts next to nothing",
    ),
    AblationRow(name="+ reference matching", values={"matching.enabled": True}),
    AblationRow(name="+ fine-tuning", values={"adaptation.mode": "blocking"}),
    AblationRow(name="+ edge refinement", values={"refinement.enabled": True}),
)


def ablation_configs(config: Config, rows: Sequence[AblationRow] = ABLATION) -> list[Config | None]:
    """For each row its config: the one given with the values of all rows up to it; None where a part is missing."""
    flat, configs = to_flat(config), list[Config | None]()
    for row in rows:
        flat |= {} if row.missing else row.values
        configs.append(None if row.missing else from_flat(flat))
    return configs


def check_network(profile: str, lookahead: int) -> None:
    """Refuse what only a network can do that no version has yet.

    Raises:
        ValueError: A profile other than "fast", a look-ahead other than 0, or no such value.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    if lookahead not in LOOKAHEADS:
        raise ValueError(f"lookahead must be 0 or 1, got {lookahead}")
    if profile == "paper":
        raise ValueError("profile 'paper' needs the two VGG-16 streams, which this version does not have")
    if lookahead:
        raise ValueError(f"lookahead 1 needs {_NETWORK}, which this version does not have")


def apply_preset(name: str, config: Config, *, live: bool = False) -> Config:
    """The config with the values of the preset.

    Args:
        name: Name of the preset.
        config: What it changes.
        live: Adapt as the config says, in the background by default. Otherwise tracking waits until adaptation is done,
            so that no clock decides.

    Raises:
        ValueError: No such preset, or one whose part this version does not have.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    preset, known = PRESETS[name], {setting for setting, _, _ in settings()}
    if preset.missing or (preset.needs and preset.needs[0] not in known):
        part = preset.missing or (preset.needs and preset.needs[1])
        raise ValueError(f"preset {name!r} needs {part}, which this version does not have")
    flat = {**to_flat(config), **{key: value for key, value in preset.values.items() if key in known}}
    return from_flat(flat) if live else deterministic(from_flat(flat))
