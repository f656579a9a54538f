# SPDX-License-Identifier: Apache-2.0
"""ROS parameter files, read without ROS as ROS reads them.

Which node a section is for, and what a bare word or number is, follow rcl_yaml_param_parser: ``/**`` is every node,
a later section overrides an earlier one, ``off`` is a boolean, ``1e-5`` is a number. So a file means the same for the
node and for the command line. The one difference: the command line runs no node of a name, so sections for ``tracker``
hold in any namespace.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from maskrnn_ros.config import Config, from_flat, settings
from maskrnn_ros.disk import regular_file, write_text
from maskrnn_ros.setting import Value, no_setting, renewed

NODE_ONLY = ("autostart", "use_sim_time", "start_type_description_service")
"""Parameters of the node that are no settings of the tracker."""

MOST_BYTES = 1_000_000
"""Of a parameter file; a megabyte of YAML takes a second to read."""

_TRUE, _FALSE = r"y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON", r"n|N|no|No|NO|false|False|FALSE|off|Off|OFF"
_INTEGER = r"[+-]?(0[xX][0-9a-fA-F]+|\d+)"
_FLOAT = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NO_NUMBER = r"[+-]?(\.inf|\.Inf|\.INF|(?i:inf|infinity))|\.nan|\.NaN|\.NAN|(?i:[+-]?nan)"


def load(path: Path | str, node: str = "tracker") -> Config:
    """The settings that a parameter file gives the tracker.

    A name that is none is refused in a section for the node by name; in one for all nodes it may belong to another
    one, and a warning is logged, as the node does.

    Raises:
        ValueError: No such file, a name that is none or none any more, or a value that its field refuses.
        OSError: The file cannot be read.
    """
    known = {name for name, _, _ in settings()}
    try:
        values, for_all = read(path, node)
        values = renewed(values, lambda line: logging.getLogger(__name__).warning("%s: %s", path, line))
        for name in [name for name in values if not _is_node_only(name) and name not in known]:
            if name not in for_all:
                raise ValueError(no_setting(name, known))
            logging.getLogger(__name__).warning("%s: %s; it has no effect", path, no_setting(name, known))
        return from_flat({name: value for name, value in values.items() if name in known})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_node_only(name: str) -> bool:
    return name in NODE_ONLY or name.startswith("qos_overrides.")


def read(path: Path | str, node: str) -> tuple[dict[str, Any], set[str]]:
    """The parameters that a file gives a node of that name, whatever its namespace.

    Args:
        path: The file.
        node: Base name of the node.

    Returns:
        Values by dotted name, and which of these come from sections for all nodes only.

    Raises:
        ValueError: It is no parameter file, or has different values for nodes of that name in several namespaces.
        OSError: It cannot be read.
    """
    sections = [(name, values) for name, values in _sections(path) if name.rpartition("/")[2] in (node, "*", "**")]
    found = {one: _merged(sections, one) for one in _nodes([name for name, _ in sections], node)}
    (first, values), *others = found.items()
    for other, different in others:
        if different != values:
            raise ValueError(f"it has different settings for {first} and {other}: give a file with one of them")
    named = {key for name, given in sections if name.rpartition("/")[2] == node for key in given}
    return values, set(values) - named


def _nodes(patterns: list[str], node: str) -> list[str]:
    """Full names of the nodes that are told apart by the patterns; one of any name where none is."""
    namespaces = {name.rpartition("/")[0] for name in patterns if name != "/**"}
    concrete = sorted(namespace for namespace in namespaces if "*" not in namespace)
    samples = [re.sub(r"\*+", "any", namespace) for namespace in sorted(namespaces)]
    return [f"{namespace}/{node}" for namespace in concrete or samples or [""]]


def _merged(sections: list[tuple[str, dict[str, Any]]], full_name: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for pattern, values in sections:  # the later one wins, be it the more general one
        if re.fullmatch(_pattern(pattern), full_name):
            merged.update(values)
    return merged


def _pattern(name: str) -> str:
    """A section's name as a regular expression: * stands for one part of a name, ** for any number of them."""
    parts = {"**": r"(/\w+)*", "*": r"/\w+"}
    return "".join(parts.get(part, "/" + re.escape(part)) for part in name.split("/")[1:])


def _sections(path: Path | str) -> list[tuple[str, dict[str, Any]]]:
    """Names of nodes, from the root, and what is given to each, in the order of the file."""
    try:
        text = regular_file(path, MOST_BYTES).read_bytes().decode()
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"expected '/**: ros__parameters: ...', got a {root.id}")
    return list(_below(root, ""))


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses aliases, as ROS does: some lines of them may stand for any number of values. And names that are none."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken in a parameter file")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.YAMLError(f"expected a name, got a {key.id}")
        return node


def _below(mapping: Any, path: str) -> Any:
    """Names of nodes below a path, with their parameters by full name."""
    for key, content in mapping.value:
        name = f"{path}/{key.value.strip('/')}"
        if not isinstance(content, yaml.MappingNode):
            raise ValueError(f"expected '{name}: ros__parameters: ...', got no ros__parameters below {name}")
        given = [value for inner, value in content.value if inner.value == "ros__parameters"]
        if not given:
            if not content.value:
                raise ValueError(f"expected '{name}: ros__parameters: ...', got no ros__parameters below {name}")
            yield from _below(content, name)
        for values in given:
            if not isinstance(values, yaml.MappingNode):
                raise ValueError(f"expected names and values below {name}: ros__parameters, got a {values.id}")
            yield name, _flat(values, "")


def _flat(mapping: Any, prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.value:
        name = f"{prefix}{key.value}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, yaml.MappingNode) else {name: _value(value)})
    return flat


def _value(node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        raise ValueError("a list of mappings is no value of a parameter")
    return node.value if node.style else _plain(node.value)


def _plain(text: str) -> Value:
    """What a word without quotes is."""
    if re.fullmatch(_TRUE, text):
        return True
    if re.fullmatch(_FALSE, text):
        return False
    number = _integer(text)
    if number is not None and -(2**63) <= number < 2**63:
        return number
    if re.fullmatch(_FLOAT, text):
        return float(text) if math.isfinite(float(text)) else text
    if re.fullmatch(_NO_NUMBER, text):
        return float(text.replace(".", ""))
    return text


def _integer(text: str) -> int | None:
    digits = text.lstrip("+-")
    if not re.fullmatch(_INTEGER, text) or len(text) > 100:
        return None
    if len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX":  # 010 is 8, as in C
        return int(text, 8) if re.fullmatch("[0-7]+", digits) else None
    return int(text, 0)


def parse_setting(text: str) -> tuple[str, Value]:
    """Name and value of ``NAME=VALUE``, the value read as in a parameter file.

    >>> parse_setting("gate.enlarge=2"), parse_setting("device=cpu")
    (('gate.enlarge', 2), ('device', 'cpu'))

    Raises:
        ValueError: It is none.
    """
    name, found, value = text.partition("=")
    if not found or not name:
        raise ValueError(f"expected NAME=VALUE, got {text!r}")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return name, value[1:-1] if is_quoted else _plain(value)


def write(path: Path | str, values: Mapping[str, Value]) -> None:
    """Write a parameter file for a node of any name; words are in quotes, so that ``off`` stays one.

    Raises:
        OSError: It cannot be written.
    """
    lines = [f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    write_text(path, "\n".join(["/**:", "  ros__parameters:", *lines, ""]))
