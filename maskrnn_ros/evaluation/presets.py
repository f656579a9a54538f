# SPDX-License-Identifier: Apache-2.0
"""Named methods for the comparison, and the rows of the ablation: config values of the one tracker.

Two baselines stand outside of it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from maskrnn_ros.config import Config, from_flat, settings, to_flat
from maskrnn_ros.factory import is_factory
from maskrnn_ros.model.files import network_file
from maskrnn_ros.setting import Value

_ALL_OFF: dict[str, Value] = {
    "network.enabled": False,
    "adaptation.method": "none",
    "refinement.enabled": False,
}

_BARE: dict[str, Value] = {
    "network.enabled": True,
    "network.flow_stream": False,
    "network.hidden": False,
    "network.localization": False,
    "gate.enabled": False,
}
"""The appearance stream and the instance's own model alone; own weights stay.

Edges are refined as configured: that makes up for the working size, which the papers' networks, at the full
one, do not have."""


PAPER_PRESETS = ("maskrnn", "masktrack", "osvos")
"""Presets of which the paper's own networks are capable."""


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
    """

    text: str
    kind: str
    follower: str = "tracker"
    values: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    needs: tuple[str, str] | None = None


PRESETS: dict[str, Preset] = {
    "default": Preset(text="the tracker as configured", kind="as configured"),
    "static": Preset(text="the seed mask stays where it is", kind="baseline", follower="static"),
    "warp": Preset(text="the mask is carried by DIS flow, nothing else", kind="switched", values=_ALL_OFF),
    "graph": Preset(
        text="graph cut on every frame (GrabCut), started from the warped mask", kind="baseline", follower="graph"
    ),
    "maskrnn": Preset(
        text="our network in the MaskRNN setting, without the flow to the next image",
        kind="switched",
        values={
            **_BARE,
            "prior.source": "warped",
            "network.flow_stream": True,
            "network.localization": True,
            "gate.spans_prior": False,
            "gate.enabled": True,
        },
    ),
    "masktrack": Preset(
        text="our network in the MaskTrack setting",
        kind="switched",
        values={**_BARE, "prior.source": "unwarped", "network.flow_stream": True},
    ),
    "osvos": Preset(
        text="our network in the OSVOS setting: each frame alone, where the target model sees the object",
        kind="switched",
        values={**_BARE, "prior.source": "none"},
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A row of the ablation: the row before and one part more.

    Args:
        name: What is added, for people.
        values: Settings that it changes, beside those of the rows before it that are there.
        missing: Part that is not there; the row is then told, not measured.
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


_TARGET: dict[str, Value] = {"network.enabled": True, "adaptation.method": "recursive"}

ABLATION: tuple[AblationRow, ...] = (  # from the mask alone on in the order of the paper's table, then what it lacks
    AblationRow(name="warped mask", values={**_ALL_OFF, "prior.source": "warped", "gate.enabled": False}),
    AblationRow(
        name="appearance only",
        # without its localization the gate has no say: so the last row is the tracker as configured
        values={
            "network.enabled": True,
            "network.flow_stream": False,
            "network.hidden": False,
            "network.localization": False,
            "gate.enabled": True,
        },
        note="the network on the image and the warped mask",
    ),
    AblationRow(name="+ flow stream", values={"network.enabled": True, "network.flow_stream": True}),
    AblationRow(name="+ recurrence", values={"network.enabled": True, "network.hidden": True}, note="the hidden state"),
    AblationRow(name="+ target model", values=_TARGET, note="in closed form, with the matching that belongs to it"),
    AblationRow(name="+ edge refinement", values={"refinement.enabled": True}),
)

TUNED: tuple[AblationRow, ...] = (
    ABLATION[0],
    *(
        dataclasses.replace(row, values={**row.values, **_TARGET})
        for row in ABLATION[1:]
        if row.name != "+ target model"
    ),
)
"""The same with the target model from the first row of the network on."""


def missing_part(values: Mapping[str, Value], config: Config) -> str | None:
    """What is not there of what values need; None where all is."""
    weights = values.get("network.weights", config.network.weights)
    if not values.get("network.enabled") or network_file(str(weights)).is_file():
        return None
    return f"the network: found no weights {weights!r}"


def ablation_rows(config: Config, rows: Sequence[AblationRow] = ABLATION) -> list[AblationRow]:
    """The rows as they are with this config: those that need a network are missing where there are no weights."""
    return [dataclasses.replace(row, missing=row.missing or missing_part(row.values, config)) for row in rows]


def ablation_configs(config: Config, rows: Sequence[AblationRow] = ABLATION) -> list[Config | None]:
    """For each row its config: the one given with the values of all rows up to it; None where a part is missing."""
    flat, configs = to_flat(config), list[Config | None]()
    for row in ablation_rows(config, rows):
        flat |= {} if row.missing else row.values
        configs.append(None if row.missing else from_flat(flat))
    return configs


def _own(values: Mapping[str, Value], config: Config) -> dict[str, Value]:
    """The values without the shipped weights where the config names a file of its own."""
    return {key: value for key, value in values.items() if config.network.ships or key != "network.weights"}


def preset_of(name: str) -> Preset:
    """The preset of a name; ``package.module:factory`` is a baseline of one's own.

    Raises:
        ValueError: There is none.
    """
    if is_factory(name):
        return Preset(text="a follower of one's own", kind="baseline", follower=name)
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, or package.module:factory, got {name!r}")
    return PRESETS[name]


def apply_preset(name: str, config: Config) -> Config:
    """The config with the values of the preset.

    Args:
        name: Name of the preset.
        config: What it changes.

    Raises:
        ValueError: No such preset, or one whose part is not there.
    """
    preset, known = preset_of(name), {setting for setting, _, _ in settings()}
    if preset.needs and preset.needs[0] not in known:
        raise ValueError(f"preset {name!r} needs {preset.needs[1]}, which this version does not have")
    if missing := missing_part(_own(preset.values, config), config):
        raise ValueError(f"preset {name!r} needs {missing}; give network.weights a file that is there")
    own = {key: value for key, value in _own(preset.values, config).items() if key in known}
    return from_flat({**to_flat(config), **own})
