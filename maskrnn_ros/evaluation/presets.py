# SPDX-License-Identifier: Apache-2.0
"""Named methods for the comparison: config values of the one tracker, and two baselines outside of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from maskrnn_ros.config import Config, Value, deterministic, from_flat, settings, to_flat

_ALL_OFF: dict[str, Value] = {"matching.enabled": False, "adaptation.mode": "off", "refinement.enabled": False}
_NETWORK = "the two-stream network with its localization net"


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
