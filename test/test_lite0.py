# SPDX-License-Identifier: Apache-2.0
"""The trunk: its weights load or the start stops, and its cells lie where they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskrnn_ros.cli import main
from maskrnn_ros.model.shapes import CHANNELS, STRIDES
from maskrnn_ros.model.torch.trunk import Lite0
from maskrnn_ros.model.torch.weights import LITE0, load_lite0


@pytest.fixture(scope="module")
def trunk() -> Lite0:
    return load_lite0()


@pytest.mark.parametrize("size", [(1, 1), (16, 32), (33, 47), (64, 64), (97, 130)])
def test_every_size_has_whole_cells_at_each_stride(trunk: Lite0, size: tuple[int, int]) -> None:
    maps = trunk.maps(torch.zeros(2, 3, *size, dtype=torch.uint8))
    for map_, stride, channels in zip(maps, STRIDES, CHANNELS, strict=True):
        assert tuple(map_.shape) == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))


def test_features_move_with_the_image(trunk: Lite0) -> None:
    """16 pixels to the right are 4, 2 and 1 cells: strides and cell order are what they say."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randint(0, 256, (1, 3, 320, 352), dtype=torch.uint8, generator=generator)
    both = trunk.maps(torch.cat([wide[..., :320], wide[..., 16:336]]))
    for maps, stride, cells, margin in zip(both, STRIDES, (4, 2, 1), (8, 6, 8), strict=True):
        before, after = maps
        inner = (slice(None), slice(margin, -margin), slice(margin, -margin - cells))
        shifted = (slice(None), slice(margin, -margin), slice(margin + cells, -margin))
        scale = before.abs().max()
        # not 0: a cell of stride 16 sees nearly the whole image, its border included
        assert (after[inner] - before[shifted]).abs().max() / scale < 0.02, stride
        assert (after[inner] - before[inner]).abs().max() / scale > 0.1, stride


def test_the_trunk_is_frozen_and_the_same_image_gives_the_same_features(trunk: Lite0) -> None:
    image = torch.arange(3 * 40 * 40).reshape(1, 3, 40, 40).to(torch.uint8)
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert all(torch.equal(one, other) for one, other in zip(trunk.maps(image), trunk.maps(image), strict=True))


def test_missing_or_damaged_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    torn, other, short = tmp_path / "torn.safetensors", tmp_path / "other.safetensors", tmp_path / "short.safetensors"
    torn.write_bytes(LITE0.read_bytes()[:1000])
    tensors = load_file(LITE0)
    save_file({**tensors, "stem.weight": torch.zeros(1, 2)}, other)
    save_file({name: tensor for name, tensor in tensors.items() if name != "stem.bias"}, short)
    for path, message in (
        (tmp_path / "none.safetensors", "cannot be read"),
        (torn, "cannot be read"),
        (other, r"stem.weight: expected \(32, 3, 3, 3\), got \(1, 2\)"),
        (short, r"stem.bias: expected \(32,\), got none"),
    ):
        with pytest.raises(RuntimeError, match=message) as raised:
            load_lite0(path)
        assert "\n" not in str(raised.value)


def original(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A state dict in the names of the source package, with random values and statistics."""
    tensors: dict[str, torch.Tensor] = {}

    def add(convolution: str, norm: str, shape: torch.Size) -> None:
        tensors[f"{convolution}.weight"] = torch.randn(shape, generator=generator) * 0.2
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            tensors[f"{norm}.{name}"] = torch.rand(shape[0], generator=generator) + low

    net = Lite0()
    add("_conv_stem", "_bn0", net.stem.weight.shape)
    for number, block in enumerate(net.blocks):
        theirs = f"_blocks.{number}"
        if block.expand is not None:
            add(f"{theirs}._expand_conv", f"{theirs}._bn0", block.expand.weight.shape)
        add(f"{theirs}._depthwise_conv", f"{theirs}._bn1", block.depthwise.weight.shape)
        add(f"{theirs}._project_conv", f"{theirs}._bn2", block.project.weight.shape)
    return tensors


def test_folding_equals_convolution_and_normalisation_one_after_the_other(tmp_path: Path) -> None:
    tensors = original(torch.Generator().manual_seed(1))
    source, out = tmp_path / "original.pth", tmp_path / "ours.safetensors"
    torch.save(tensors, source)
    assert main(["weights", "convert-lite0", "--source", str(source), "--out", str(out)]) == 0
    ours = load_lite0(out)
    x = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(2))
    norm = [tensors[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    expected = torch.nn.functional.conv2d(x, tensors["_conv_stem.weight"])
    expected = torch.nn.functional.batch_norm(expected, *norm, eps=1e-3)
    actual = torch.nn.functional.conv2d(x, ours.stem.weight, ours.stem.bias)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_what_is_no_state_dict_is_refused_by_the_conversion(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number, content in enumerate((b"", b"not a file of torch", None)):
        source = tmp_path / f"{number}.pth"
        source.write_bytes(content) if content is not None else torch.save({"a": torch.zeros(1)}, source)
        assert main(["weights", "convert-lite0", "--source", str(source), "--out", str(tmp_path / "x")]) == 2
        assert "expected the state dict of EfficientNet-Lite0" in capsys.readouterr().err
