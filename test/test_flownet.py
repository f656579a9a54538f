# SPDX-License-Identifier: Apache-2.0
"""The small flow network, the pairs that it learns from, and its training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import world
from safetensors.torch import load_file, save_file
from test_training_data import write_stills
from training_bench import davis

from maskrnn_ros.flow import build_flow
from maskrnn_ros.flow.torch.flownet import FLOWNET, STRIDES, FlowNet, FlowNetFlow, correlate
from maskrnn_ros.sections import FlowConfig
from maskrnn_ros.training import flow as stage
from maskrnn_ros.training.flow import FlowOptions, errors_of, held_out_pairs, multiscale, train_flow
from maskrnn_ros.training.pairs import Layer, Motion, Pair, Sources, compose, roughen
from maskrnn_ros.training.stills import still_paths


def shifted(dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """Current and previous image, 128x192; the scene moves by (dx, dy)."""
    large = world.texture(7, 240, 300)
    return large[50 - dy : 178 - dy, 50 - dx : 242 - dx], large[50:178, 50:242]


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (4, 0), (0, -6), (-9, 5), (16, 0), (0, 12), (20, -10), (30, 0)])
def test_flow_points_back_to_where_it_was(dx: int, dy: int) -> None:
    """The content moves by (dx, dy), so it was at p - (dx, dy); within half a pixel and 6 % of the motion."""
    flow = build_flow(FlowConfig(backend="flownet"), "cpu")(*shifted(dx, dy))
    assert flow.shape == (2, 128, 192) and flow.dtype == np.float32
    middle = np.median(flow[:, 24:-24, 24:-24], axis=(1, 2))
    assert np.linalg.norm(middle - (-dx, -dy)) < 0.5 + 0.06 * np.hypot(dx, dy)


@pytest.mark.parametrize("size", [(1, 1), (17, 300), (63, 65), (130, 33)])
def test_flow_of_any_size_is_finite(size: tuple[int, int]) -> None:
    still = world.texture(3, *size).reshape(*size, 3)
    flow = FlowNetFlow()(still, still)
    assert flow.shape == (2, *size) and flow.flags.c_contiguous and np.isfinite(flow).all()


def test_images_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"share their shape, got \(64, 64, 3\) and \(64, 65, 3\)"):
        FlowNetFlow()(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 65, 3), np.uint8))


def test_weights_that_ship_fit_and_are_small() -> None:
    FlowNetFlow()
    assert FLOWNET.stat().st_size <= 8_000_000


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    wrong = load_file(FLOWNET) | {"sharpness": torch.ones(3)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(RuntimeError, match=r"1 tensors differ, the first is sharpness: expected \(2,\), got \(3,\)"):
        FlowNetFlow(tmp_path / "wrong.safetensors")
    with pytest.raises(RuntimeError, match="cannot be read"):
        FlowNetFlow(tmp_path / "none.safetensors")


def test_correlation_is_the_product_with_the_cells_about() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 5, 4, 6, generator=generator), torch.rand(2, 5, 4, 6, generator=generator)
    found = correlate(one, other, 2)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            for v, u in ((0, 0), (1, 3), (3, 5), (2, 2)):
                inside = 0 <= v + dy < 4 and 0 <= u + dx < 6
                expected = one[:, :, v, u].mul(other[:, :, v + dy, u + dx]).sum(1) if inside else torch.zeros(2)
                torch.testing.assert_close(found[:, (dy + 2) * 5 + dx + 2, v, u], expected)


def test_the_loss_is_the_endpoint_error_at_every_scale() -> None:
    flow = torch.zeros(1, 2, 128, 128)
    flow[:, 0], flow[:, 1] = 3.0, -4.0
    exact = [torch.zeros(1, 2, 128 // stride, 128 // stride) + flow[..., :1, :1] for stride in STRIDES]
    assert float(multiscale(exact, flow)["loss"]) < 0.05
    for level, weight in enumerate((0.25, 0.25, 0.25, 0.5, 1.0)):
        found = [value * (number != level) for number, value in enumerate(exact)]  # no motion at one scale: 5 pixels
        assert float(multiscale(found, flow)["loss"]) == pytest.approx(5 * weight, abs=0.05)
    assert float(multiscale([0 * value for value in exact], flow)["finest"]) == pytest.approx(5, abs=0.01)


def test_the_true_flow_of_a_cell_is_that_in_its_middle() -> None:
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    flow = torch.stack([columns, rows])[None]  # linear: its value in the middle of a cell is the mean of the cell
    means = [torch.nn.functional.avg_pool2d(flow, stride) for stride in STRIDES]
    assert float(multiscale(means, flow)["loss"]) < 0.05


def test_every_scale_has_its_shape_and_a_gradient() -> None:
    net = FlowNet()
    images = torch.randint(0, 255, (2, 3, 64, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = net(images, images.roll(3, dims=3))
    assert [tuple(value.shape) for value in found] == [(2, 2, 64 // s, 128 // s) for s in STRIDES]
    multiscale(found, torch.ones(2, 2, 64, 128))["loss"].backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in net.parameters())


def moved(image: np.ndarray, alpha: np.ndarray | None, dx: float, dy: float) -> Layer:
    """A layer whose content was (dx, dy) further before."""
    turn = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])
    field = np.zeros((*image.shape[:2], 2))
    return Layer(image, alpha, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), Motion(turn, field))


def test_a_pair_of_whole_pixel_shifts_is_exact() -> None:
    """Background and object by hand: images, flow and what was hidden."""
    back, front = world.texture(1, 60, 80), world.texture(2, 60, 80)
    alpha = np.zeros((60, 80), np.float32)
    alpha[20:40, 30:50] = 1.0  # where the object is on the previous frame
    pair = compose([moved(back, None, 3, 0), moved(front, alpha, -6, 2)])
    here = np.zeros((60, 80), bool)
    here[18:38, 36:56] = True  # it was (-6, 2) from here
    assert (pair.flow[here] == (-6, 2)).all() and (pair.flow[~here] == (3, 0)).all()
    np.testing.assert_array_equal(pair.previous, np.where(alpha[..., None] > 0, front, back))
    np.testing.assert_array_equal(pair.current[18:38, 36:56], front[20:40, 30:50])
    np.testing.assert_array_equal(pair.current[:18, :77], back[:18, 3:])
    hidden = np.zeros((60, 80), bool)
    hidden[:, 77:] = True  # outside before
    hidden[20:40, 27:47] = True  # behind the object before
    hidden[here] = False
    np.testing.assert_array_equal(pair.hidden, hidden)


def test_the_previous_image_warped_by_the_flow_is_the_current_one(tmp_path: Path) -> None:
    """Affine, bent, in perspective: smooth images, so that interpolation costs little."""
    write_stills(tmp_path / "stills")
    sources = Sources(still_paths(tmp_path / "stills"), (96, 128))
    moving = 0
    for number in range(12):
        pair = sources.draw(np.random.default_rng(number))
        rows, columns = np.mgrid[:96, :128]
        at = (np.stack([columns, rows], axis=-1) + pair.flow).astype(np.float32)
        warped = cv2.remap(pair.previous, at, None, cv2.INTER_LINEAR)
        away = np.abs(warped.astype(float) - pair.current).mean(axis=2)
        still = np.abs(pair.previous.astype(float) - pair.current).mean(axis=2)
        seen = cv2.erode((~pair.hidden).astype(np.uint8), np.ones((5, 5))) > 0
        step = np.abs(np.diff(pair.flow, axis=0, append=pair.flow[-1:])).sum(axis=2)
        step += np.abs(np.diff(pair.flow, axis=1, append=pair.flow[:, -1:])).sum(axis=2)
        seen &= cv2.dilate((step > 0.5).astype(np.uint8), np.ones((7, 7))) == 0  # soft edges mix two motions
        assert seen.mean() > 0.2
        if np.hypot(*pair.flow[seen].T).mean() > 2:
            moving += 1
            assert away[seen].mean() < 0.35 * still[seen].mean()
    assert moving >= 4


def test_a_mirrored_pair_has_a_mirrored_flow() -> None:
    """Whatever is drawn at random, the flow still leads to where the bright spot was."""
    current, previous = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)
    current[8:12, 10:14], previous[13:17, 17:21] = 255, 255
    flow = np.zeros((40, 60, 2), np.float32)
    flow[8:12, 10:14] = 7, 5
    for number in range(8):
        pair = Pair(current=current, previous=previous, flow=flow, hidden=np.zeros((40, 60), bool))
        rough = roughen(pair, np.random.default_rng(number))
        places = [
            np.mean(np.argwhere(image.sum(axis=2) > image.sum(axis=2).max() * 0.9), axis=0)[::-1]
            for image in (rough.current, rough.previous)
        ]
        step = rough.flow[tuple(np.rint(places[0][::-1]).astype(int))]
        np.testing.assert_allclose(places[0] + step, places[1], atol=1.0)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowOptions:
    monkeypatch.setattr(stage, "CROP", (64, 64))
    monkeypatch.setattr(stage, "VALIDATION", (64, 128))
    write_stills(tmp_path / "stills")
    return FlowOptions(
        davis=davis(tmp_path / "davis"),
        out=tmp_path / "out",
        stills=(tmp_path / "stills",),
        held_out=("b",),
        steps=2,
        batch=2,
        validate_every=1,
        validation_pairs=2,
    )


def test_an_interrupted_training_goes_on_to_the_bit(options: FlowOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_file(train_flow(options))
    broken = dataclasses.replace(options, out=options.out.with_name("broken"))
    original = stage.draw

    def draw(sources: Sources, chosen: FlowOptions, step: int, *rest: int) -> tuple[torch.Tensor, ...]:
        if step == 1:
            raise KeyboardInterrupt
        return original(sources, chosen, step, *rest)

    monkeypatch.setattr(stage, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        train_flow(broken)
    monkeypatch.setattr(stage, "draw", original)
    again = load_file(train_flow(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    rows = (options.out / "log.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,loss,finest,epe,pairs" and len(rows) == 3
    assert (options.out / "curves.png").stat().st_size > 0
    with pytest.raises(ValueError, match="--resume expected seed = 0, found 1"):
        train_flow(dataclasses.replace(broken, resume=True, seed=1))


def test_a_few_steps_make_the_loss_smaller(options: FlowOptions) -> None:
    """On one batch, drawn again and again."""
    sources = Sources(still_paths(options.stills[0]), (64, 64))
    batch = stage.draw(sources, options, 0, 0, 1)
    torch.manual_seed(0)
    net = FlowNet()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    found = []
    for _ in range(25):
        loss = stage.loss_of(net, *batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.7 * found[0]


def test_endpoint_errors_are_told_apart_by_length() -> None:
    flow = np.zeros((10, 30, 2), np.float32)
    flow[:, 10:20, 0], flow[:, 20:, 1] = -10.0, 30.0
    hidden = np.zeros((10, 30), bool)
    hidden[:, 20:] = True
    image = np.zeros((10, 30, 3), np.uint8)
    pair = Pair(current=image, previous=image, flow=flow, hidden=hidden)
    found = errors_of(lambda current, previous: torch.zeros(2, *current.shape[1:]), [pair])
    assert found == pytest.approx({"all": 40 / 3, "small": 0.0, "middle": 10.0, "large": 30.0, "seen": 5.0})


def test_held_out_pairs_are_the_same_for_every_training(options: FlowOptions) -> None:
    one, other = held_out_pairs(options), held_out_pairs(dataclasses.replace(options, seed=5, stills=()))
    assert len(one) == 2
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.current, b.current)
        np.testing.assert_array_equal(a.flow, b.flow)


def test_what_cannot_be_trained_on_is_refused(options: FlowOptions) -> None:
    with pytest.raises(ValueError, match="expected images to make pairs of, found none"):
        train_flow(dataclasses.replace(options, davis=None, stills=(), held_out=()))
    with pytest.raises(ValueError, match="held out clips need a data set, got b without davis"):
        train_flow(dataclasses.replace(options, davis=None))
    with pytest.raises(ValueError, match="batch must be >= 1, got 0"):
        dataclasses.replace(options, batch=0)
    with pytest.raises(ValueError, match=r"rate must be in 0\.\.1, got 1"):
        dataclasses.replace(options, rate=1.0)
