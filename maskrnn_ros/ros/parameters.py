# SPDX-License-Identifier: Apache-2.0
"""ROS parameters from the config's fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException

from maskrnn_ros.config import Config, Setting, Value, from_flat, settings, to_flat

_UNBOUNDED = 1.0e9
"""ROS ranges have two ends; this stands for an open one."""


def declare(node: Any) -> None:
    """Declare ``autostart`` and a parameter for every setting, with its description and range.

    Raises:
        ValueError: An override is of the wrong type or out of range.
    """
    autostart = Setting(help="The node configures and activates itself at its start.")
    declare_all(node, [("autostart", True, autostart), *settings()])


def declare_all(node: Any, known: Iterable[tuple[str, Value, Setting]], *, read_only: bool = False) -> None:
    """Declare parameters.

    An override of none is warned of: it may be a misspelt one, or meant for another node of a ``/**`` file.

    Args:
        node: The rclpy node.
        known: Name, default and what is known of each.
        read_only: They keep the values that they have at the start.

    Raises:
        ValueError: An override is of the wrong type or out of range.
    """
    for name, default, setting in known:
        try:
            descriptor = _descriptor(default, setting)
            descriptor.read_only = read_only
            node.declare_parameter(name, default, descriptor)
        except ParameterException as error:
            raise ValueError(f"parameter {name}: {' '.join(str(error).split())}") from error
    # rclpy has no public way to ask which overrides were given.
    for name in sorted(getattr(node, "_parameter_overrides", {})):
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            node.get_logger().warning(f"parameter {name} is no setting of this node and has no effect")


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
    known = {name: setting for name, _, setting in settings()}
    flat: dict[str, Value] = to_flat(config)
    for parameter in parameters:
        if parameter.name not in known or flat[parameter.name] == parameter.value:
            continue
        if running and not known[parameter.name].live:
            raise ValueError(f"{parameter.name} takes effect at configure only: deactivate and clean up the node first")
        flat[parameter.name] = parameter.value
    return from_flat(flat)


def _descriptor(default: Value, known: Setting) -> Any:
    descriptor = ParameterDescriptor(description=known.help)
    descriptor.additional_constraints = f"one of {', '.join(known.choices)}" if known.choices else ""
    low = -_UNBOUNDED if known.low is None else known.low
    high = _UNBOUNDED if known.high is None else known.high
    if type(default) is int:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    elif type(default) is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return descriptor
