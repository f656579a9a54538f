# SPDX-License-Identifier: Apache-2.0
"""Where weights and graphs lie. No torch here."""

from __future__ import annotations

from pathlib import Path

from maskrnn_ros.model.digests import FOLDER

LITE0 = FOLDER / "efficientnet_lite0.safetensors"
"""The trunk as ImageNet left it: what its training begins with."""

TRUNK = FOLDER / "trunk.safetensors"
"""The trained trunk that ships with the package: it learned with the decoder."""

DECODER = FOLDER / "decoder.safetensors"
"""The decoder that ships with the package and follows objects as the package comes."""

FLOWNET = FOLDER / "flownet.safetensors"
"""The flow network that ships with the package."""

TRUNKS = {"shipped": TRUNK, "permissive": FOLDER / "trunk_permissive.safetensors"}
"""Files of trunks that ship, by what ``trunk.weights`` calls them."""

NETWORKS = {"shipped": DECODER, "permissive": FOLDER / "decoder_permissive.safetensors"}
"""Files of networks that ship, by what ``network.weights`` calls them."""

PROMPTS = {"shipped": FOLDER / "prompts.safetensors", "permissive": FOLDER / "prompts_permissive.safetensors"}
"""Files of prompt networks that ship, by what ``prompts.weights`` calls them; each learned with the trunk so called."""


def trunk_file(setting: str) -> Path:
    """The file that ``trunk.weights`` names: what ships, or a path."""
    return TRUNKS.get(setting) or Path(setting)


def network_file(setting: str) -> Path:
    """The file that ``network.weights`` names: what ships, or a path."""
    return NETWORKS.get(setting) or Path(setting)


def prompts_file(setting: str) -> Path:
    """The file that ``prompts.weights`` names: what ships, or a path."""
    return PROMPTS.get(setting) or Path(setting)


def trunk_graph(weights: Path, precision: str = "float32") -> Path:
    """Where the trunk's graph lies, beside its weights."""
    return weights.with_suffix(".int8.onnx" if precision == "int8" else ".onnx")


def columns_graph(weights: Path) -> Path:
    """Likewise, of the columns, which belong to the trunk."""
    return weights.with_suffix(".columns.onnx")


def place_graph(weights: Path) -> Path:
    """Where the graph lies that says where objects are looked for, beside the decoder's weights."""
    return weights.with_suffix(".place.onnx")


def look_graph(weights: Path, precision: str = "float32") -> Path:
    """Likewise, of the decoder, which says what is seen there."""
    return trunk_graph(weights, precision)


def learn_graph(weights: Path) -> Path:
    """Likewise, of what a frame says of objects."""
    return weights.with_suffix(".learn.onnx")


def begin_graph(weights: Path) -> Path:
    """Likewise, of what seeds say."""
    return weights.with_suffix(".begin.onnx")
