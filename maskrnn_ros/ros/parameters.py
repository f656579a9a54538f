# SPDX-License-Identifier: Apache-2.0
"""ROS parameters from the config's fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter

from maskrnn_ros.config import Config, from_flat, settings, to_flat
from maskrnn_ros.setting import Setting, Value, no_setting, renewed

AUTOSTART = Setting(help="Configure and activate the node when it starts.", basic=True)
"""The one parameter of the tracker's node that is no setting of the tracker."""

_UNBOUNDED = 1.0e9
"""ROS ranges have two ends; this stands for an open one."""


def declare(node: Any) -> None:
    """Declare ``autostart`` and a parameter for every setting, with its description and range.

    Raises:
        ValueError: An override is of the wrong type or out of range.
    """
    declare_all(node, [("autostart", True, AUTOSTART), *map(_marked, settings())])
    node.describe_parameter("autostart").read_only = True  # it is over


def _marked(row: tuple[str, Value, Setting]) -> tuple[str, Value, Setting]:
    """The same setting; the description of one that few people need says so in rqt and ``ros2 param describe``."""
    name, default, known = row
    return row if known.basic else (name, default, dataclasses.replace(known, help=f"Advanced. {known.help}"))


def declare_all(node: Any, known: Iterable[tuple[str, Value, Setting]], *, read_only: bool = False) -> None:
    """Declare parameters.

    rclpy would refuse an integer where a double is wanted, which ``ros2 param set`` sends for 60. So their types are
    dynamic for it, and ``Setting.take`` checks them, here and in ``changed``.

    An override of none is warned of: it may be a misspelt one, or meant for another node of a ``/**`` file.

    Args:
        node: The rclpy node.
        known: Name, default and what is known of each.
        read_only: They keep the values that they have at the start.

    Raises:
        ValueError: An override is of the wrong type, out of range, or is no setting any more.
    """
    # rclpy has no public way to ask which overrides were given.
    given = {name: parameter.value for name, parameter in getattr(node, "_parameter_overrides", {}).items()}
    given = renewed(given, node.get_logger().warning)
    known = list(known)
    for name, default, setting in known:
        value = setting.take(name, given.get(name, default), type(default))
        descriptor = _descriptor(default, setting)
        descriptor.read_only = read_only
        node.declare_parameter(name, value, descriptor, ignore_override=True)
    names = [name for name, _, _ in known]
    for name in sorted(given):
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            node.get_logger().warning(f"parameter {name}: {no_setting(name, names)}; it has no effect")


def read(node: Any) -> Config:
    """The config that the parameters say.

    Raises:
        ValueError: A value that its field refuses.
    """
    return from_flat({name: node.get_parameter(name).value for name, _, _ in settings()})


def changed(config: Config, parameters: Iterable[Any], *, running: bool) -> Config:
    """The config with some parameters changed; parameters that are no settings are passed over.

    Args:
        config: The config so far.
        parameters: rclpy parameters.
        running: Refuse what needs a restart.

    Raises:
        ValueError: A value that its field refuses, or that cannot change now.
    """
    known = {name: (type(default), setting) for name, default, setting in settings()}
    flat: dict[str, Value] = to_flat(config)
    parameters = list(parameters)
    if any(not parameter.name for parameter in parameters):  # rclpy lets it pass
        raise ValueError("a parameter needs a name, got ''")
    given = {parameter.name: parameter.value for parameter in parameters if parameter.name in known}
    given = renewed(given)
    for name, value in given.items():
        kind, setting = known[name]
        taken = setting.take(name, value, kind)
        if running and taken != flat[name] and not setting.live:
            raise ValueError(f"{name} takes effect at configure only: deactivate and clean up the node first")
        flat[name] = taken
    return from_flat(flat)


def settle(node: Any, parameters: list[Any]) -> None:
    """Make doubles of the integers among accepted parameters that are doubles, before rclpy stores them.

    So a parameter that is read has the type of its default.

    Args:
        node: The rclpy node.
        parameters: The very list that rclpy gave to the callback: it stores what stands in it afterwards.
    """
    doubles = {name for name, default, _ in settings() if type(default) is float}
    for place, parameter in enumerate(parameters):
        if parameter.name in doubles and type(parameter.value) is int:
            parameters[place] = Parameter(parameter.name, value=float(parameter.value))
            node.describe_parameter(parameter.name).type = Parameter.Type.DOUBLE.value


def _descriptor(default: Value, known: Setting) -> Any:
    """How a setting is described to ROS: its help, its choices or its range."""
    descriptor = ParameterDescriptor(description=known.help, dynamic_typing=True)
    descriptor.additional_constraints = f"one of {', '.join(known.choices)}" if known.choices else ""
    low = -_UNBOUNDED if known.low is None else known.low
    high = _UNBOUNDED if known.high is None else known.high
    if isinstance(known.automatic, (int, float)):  # a range has no place for a value beside it
        low, high = min(low, known.automatic), max(high, known.automatic)
    if type(default) is int:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    elif type(default) is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return descriptor
