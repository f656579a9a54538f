# SPDX-License-Identifier: Apache-2.0
"""Stage 0: heads in closed form, and the trunk that is trained for them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_bench import HELD_OUT, write_data

from maskrnn_ros.model.torch.head import HeadStart
from maskrnn_ros.model.torch.trunk import TrainedTrunk
from maskrnn_ros.model.torch.weights import load_lite0, load_trunk, save_weights
from maskrnn_ros.sections import TrunkConfig
from maskrnn_ros.training import trunk as stage
from maskrnn_ros.training.trunk import Learner, Pairs, TrunkOptions, loss_of, train_trunk


@pytest.fixture
def options(tmp_path: Path) -> TrunkOptions:
    return TrunkOptions(data=write_data(tmp_path / "data"), out=tmp_path / "out", steps=2, batch=2, validate_every=1)


def test_a_head_is_fitted_by_ridge_regression_with_both_classes_alike() -> None:
    random = np.random.default_rng(0)
    columns = random.normal(size=(1, 4, 50)).astype(np.float32)
    shares = (random.random((1, 50)) < 0.2).astype(np.float32)
    start = HeadStart(3)
    solved = start.solve(start.sums(torch.tensor(columns), torch.tensor(shares)))[0].detach().numpy()
    x, y = columns[0].T.astype(np.float64), 2 * shares[0] - 1.0
    weight = np.where(shares[0] > 0, 0.5 / shares.sum(), 0.5 / (1 - shares).sum())
    square = (x * weight[:, None]).T @ x
    square += 1e-3 * np.trace(square) / 4 * np.eye(4)
    np.testing.assert_allclose(solved, np.linalg.solve(square, (x * weight[:, None]).T @ y), rtol=2e-4, atol=1e-5)


def test_other_instances_count_half_of_the_background_and_the_instance_as_much_as_both() -> None:
    shares, others = torch.zeros(1, 20), torch.zeros(1, 20)
    shares[0, :4], others[0, 4:6] = 1, 1
    columns = torch.ones(1, 1, 20)
    start = HeadStart(1)
    for group, expected in ((slice(0, 4), 0.5), (slice(4, 6), 0.25), (slice(6, 20), 0.25)):
        chosen = torch.zeros(1, 1, 20)
        chosen[..., group] = 1
        found = start.sums(torch.cat([columns, chosen], dim=1), shares, others).square[0, 1, 1]
        assert float(found) == pytest.approx(expected)


def test_the_head_that_is_fitted_says_what_the_regression_says() -> None:
    start = HeadStart(8)
    maps = [torch.randn(2, c, 24 // s, 32 // s) for c, s in ((24, 1), (40, 2), (112, 4))]
    shares = (torch.rand(2, 24, 32) < 0.3).float()
    head = start.fit(maps, shares)
    columns = start.columns(maps)
    solved = start.solve(start.sums(columns.transpose(0, 1).flatten(1)[None], shares.flatten()[None]))[0]
    expected = start.scale * (solved @ columns).reshape(2, 24, 32) + start.shift
    torch.testing.assert_close(head(maps), expected, atol=1e-4, rtol=1e-4)


def test_the_gradient_goes_through_the_fit_into_the_trunk_and_the_start() -> None:
    trunk = TrainedTrunk(channels=8)
    trunk.net.load_state_dict(load_lite0().state_dict())
    learner = Learner(trunk)
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    planes = torch.zeros(2, 3, 16, 16)
    planes[:, 0, 4:9, 5:12] = 1
    loss_of(learner, images, planes)["head"].backward()
    for value in (trunk.net.stem.weight, trunk.start.head.bias, trunk.start.ridge, trunk.start.scale):
        assert value.grad is not None and value.grad.abs().sum() > 0
    assert learner.sharpness.grad is None, "that is the matching's"


def test_what_nobody_knows_weighs_nothing_and_costs_nothing() -> None:
    learner = Learner(TrainedTrunk(channels=8))
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    planes = torch.zeros(2, 3, 16, 16)
    planes[:, 0, 4:9, 5:12] = 1
    planes[:, 2, 12:] = 1
    before = loss_of(learner, images, planes)["head"]
    planes[:, 0, 12:] = 1  # whatever stands there
    assert torch.allclose(loss_of(learner, images, planes)["head"], before, atol=1e-5)
    planes[:, 2] = 0
    assert not torch.allclose(loss_of(learner, images, planes)["head"], before, atol=1e-2)


def test_pairs_show_the_object_on_both_frames_and_depend_on_their_number_alone(options: TrunkOptions) -> None:
    pairs, others = Pairs(options), Pairs(options)
    drawn = [pairs.draw(number) for number in range(6)]
    for number in (5, 2):
        assert all(np.array_equal(one, other) for one, other in zip(drawn[number], others.draw(number), strict=True))
    assert all(image.shape == (2, *stage.CROP, 3) and image.dtype == np.uint8 for image, _ in drawn)
    assert min(planes[..., 0].sum(axis=(1, 2)).min() for _, planes in drawn) >= 150
    whole = pairs.step(1, 4, 0, 1)
    parts = [pairs.step(1, 4, rank, 2) for rank in (0, 1)]
    assert torch.equal(whole[0][[0, 2, 4, 6]], parts[0][0]) and torch.equal(whole[0][[1, 3, 5, 7]], parts[1][0])


def test_a_resumed_training_ends_where_an_unbroken_one_does(
    options: TrunkOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(train_trunk(options))
    broken = dataclasses.replace(options, out=options.out.with_name("broken"))
    original = Pairs.step

    def step(self: Pairs, number: int, *rest: int) -> tuple[torch.Tensor, torch.Tensor]:
        if number == 1:
            raise KeyboardInterrupt
        return original(self, number, *rest)

    monkeypatch.setattr(Pairs, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_trunk(broken)
    monkeypatch.setattr(Pairs, "step", original)
    again = load_file(train_trunk(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    begun = load_lite0().state_dict()
    assert not torch.equal(whole["net.stem.weight"], begun["stem.weight"]), "and the trunk has learned"
    rows = (options.out / "log.csv").read_text().splitlines()
    assert rows[0] == f"step,seconds,loss,head,matching,j,{HELD_OUT}" and len(rows) == 3


def _process(rank: int, options: TrunkOptions) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29593"}
    torch.set_num_threads(1)
    train_trunk(options)


def test_two_processes_train_as_one_does(options: TrunkOptions) -> None:
    one = load_file(train_trunk(options))
    two = dataclasses.replace(options, out=options.out.with_name("two"))
    torch.multiprocessing.spawn(_process, (two,), nprocs=2)
    begun = load_lite0().state_dict()
    for name, value in load_file(two.out / "trunk.safetensors").items():
        # AdamW moves a weight whose gradient is next to nothing as far as any other, this way or that
        apart = (one[name] - value).abs()
        assert (apart > 2e-4).float().mean() < 0.02, name
        assert name[4:] not in begun or apart.max() < 1e-3, name


def test_what_cannot_be_trained_on_is_refused(options: TrunkOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected stills in ecssd, pennfudan or objects/stills, found none"):
        train_trunk(dataclasses.replace(options, data=options.out))
    with pytest.raises(ValueError, match="terms must be research or permissive, got 'any'"):
        train_trunk(dataclasses.replace(options, terms="any"))
    with pytest.raises(ValueError, match="steps, batch and validate_every must be >= 1, got 0, 2, 1"):
        dataclasses.replace(options, steps=0)
    with pytest.raises(ValueError, match=r"rate must be in 0\.\.1, got 2"):
        dataclasses.replace(options, rate=2.0)
    monkeypatch.setattr(stage, "_LEAST", 10**6)
    monkeypatch.setattr(stage, "_TRIES", 5)
    with pytest.raises(ValueError, match="expected an object of 1000000 pixels on two frames, found none in 5 tries"):
        Pairs(options).draw(0)


def test_weights_are_named_by_the_config_and_checked(tmp_path: Path) -> None:
    assert not load_trunk().start.ridge.requires_grad
    save_weights(load_lite0(), tmp_path / "other.safetensors")
    with pytest.raises(RuntimeError, match="do not fit TrainedTrunk"):
        load_trunk(str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match=r"trunk.weights must be shipped, permissive or a .* file, got 'best'"):
        TrunkConfig(weights="best")
