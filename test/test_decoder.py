# SPDX-License-Identifier: Apache-2.0
"""Stage 1: windows, the way through them, and the training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_bench import HELD_OUT, write_data

from maskrnn_ros.model.torch.step import StepNet
from maskrnn_ros.model.torch.weights import TRUNK
from maskrnn_ros.training import decoder, losses, windows
from maskrnn_ros.training.decoder import DecoderOptions, loss_of, train_decoder
from maskrnn_ros.training.groups import Groups
from maskrnn_ros.training.rollout import Dropout, rollout
from maskrnn_ros.training.sources import DrawOptions
from maskrnn_ros.training.windows import Draws, join


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (windows, decoder):
        monkeypatch.setattr(module, "SIZE", (96, 128))


@pytest.fixture
def options(tmp_path: Path) -> DecoderOptions:
    return DecoderOptions(
        data=write_data(tmp_path / "data", size=2),
        out=tmp_path / "out",
        steps=2,
        batch=2,
        validate_every=1,
        processes=0,
        lengths=((0.5, 1), (1.0, 2)),
    )


def test_a_window_depends_on_its_number_alone(options: DecoderOptions) -> None:
    source = DrawOptions(data=options.data)
    draws, others = Draws(source), Draws(source)
    one = [draws.draw(number, 2) for number in range(4)][2]
    other = others.draw(2, 2)
    for field in dataclasses.fields(one):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name
    both = join([one, other])
    assert both.which.tolist() == [0] * len(one.ids) + [1] * len(one.ids) and both.images.shape[:2] == (2, 4)


def test_the_gradient_reaches_every_part(options: DecoderOptions) -> None:
    draws = Draws(DrawOptions(data=options.data))
    window = join([draws.draw(number, 3) for number in range(3)])
    net = StepNet()
    torch.manual_seed(1)
    for last in (net.decoder.coarse, net.decoder.sharp, net.decoder.localize[-1]):
        torch.nn.init.normal_(last.weight, std=0.1)  # they begin at zero, which lets nothing through
    parts = loss_of(net, rollout(net, window, Dropout(), torch.Generator().manual_seed(0)))
    parts["loss"].backward()
    assert all(value.isfinite() and value >= 0 for value in parts.values())
    without = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == []


def test_a_resumed_training_ends_where_an_unbroken_one_does(
    options: DecoderOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(train_decoder(options))
    broken = dataclasses.replace(options, out=options.out.with_name("broken"))
    original = decoder.batches

    def interrupted(*arguments: object) -> object:
        found = original(*arguments)  # type: ignore[arg-type]
        yield next(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(decoder, "batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_decoder(broken)
    monkeypatch.setattr(decoder, "batches", original)
    again = load_file(train_decoder(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    rows = (options.out / "log.csv").read_text().splitlines()
    assert rows[0].endswith(HELD_OUT) and len(rows) == 3


def test_merged_masks_cost_what_soft_aggregation_says() -> None:
    odds = torch.tensor([[[3.0, -2.0]], [[1.0, 0.5]]])
    shares = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    groups = Groups(torch.tensor([0, 0]))
    loss = losses.merged_cross_entropy(odds, shares, torch.zeros(2, 1, 2), groups)
    first = torch.log(1 + torch.exp(odds[:, 0, 0]).sum()) - 3
    second = torch.log(1 + torch.exp(odds[:, 0, 1]).sum())
    assert loss.item() == pytest.approx(((first + second) / 2).item(), rel=1e-5)
    unknown = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])
    assert losses.merged_cross_entropy(odds, shares, unknown, groups).item() == pytest.approx(first.item(), rel=1e-5)


def test_objects_of_a_frame_meet_in_their_group_alone() -> None:
    random = torch.Generator().manual_seed(0)
    which = torch.tensor([0, 1, 1, 1, 2, 2])
    maps = torch.rand(6, 4, 5, generator=random)
    found = Groups(which).most_of_others(maps)
    for k in range(6):
        others = maps[[i for i in range(6) if which[i] == which[k] and i != k]]
        assert torch.equal(found[k], others.amax(dim=0) if len(others) else torch.zeros(4, 5))
    assert torch.equal(Groups(torch.tensor([0, 1])).most_of_others(maps[:2]), torch.zeros(2, 4, 5))
    truth, unknown = torch.rand(6, 4, 5, generator=random), torch.rand(3, 4, 5, generator=random)[which]
    apart = [
        losses.merged_cross_entropy(maps[own], truth[own], unknown[own], Groups(torch.zeros(int(own.sum()), dtype=int)))
        for own in (which == frame for frame in range(3))
    ]
    together = losses.merged_cross_entropy(maps, truth, unknown, Groups(which))
    assert together.item() == pytest.approx(torch.stack(apart).mean().item(), rel=1e-5)


def test_a_trunk_that_learns_is_written_beside_the_decoder(options: DecoderOptions) -> None:
    learns = dataclasses.replace(options, steps=1, validate_every=1, trunk_rate=1e-3)
    train_decoder(learns)
    before, after = load_file(TRUNK), load_file(learns.out / decoder.TRUNK)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("net.")} <= changed
    kept = {name for name in before if name.startswith("start.") and "narrow" not in name and "head.bias" not in name}
    assert kept and not changed & kept
    train_decoder(dataclasses.replace(learns, steps=2, resume=True))
    with pytest.raises(ValueError, match=r"--resume expected trunk_rate = 0\.001, found 0\.002"):
        train_decoder(dataclasses.replace(learns, steps=3, resume=True, trunk_rate=2e-3))


@pytest.mark.parametrize("make", ["_shrunk", "_zoomed", "_relit"])
def test_a_window_is_changed_on_all_frames_alike(make: str) -> None:
    random = np.random.default_rng(3)
    images = np.repeat(random.integers(0, 255, (1, 32, 48, 3), dtype=np.uint8), 3, axis=0)
    labels = np.zeros((3, 32, 48), np.uint8)
    labels[:, 8:20, 10:30] = 1
    if make == "_relit":
        lit, marked = windows._relit(images, random), labels
        assert (lit != images).any()
        images = lit
    else:
        images, marked = getattr(windows, make)(images, labels, random)
    assert images.shape == (3, 32, 48, 3) and (images == images[:1]).all() and (marked == marked[:1]).all()
    assert set(np.unique(marked)) <= {0, 1, 255} and (marked == 1).any()
    assert ((marked == 1).sum() < (labels == 1).sum()) == (make == "_shrunk")


def test_what_cannot_be_trained_is_refused(options: DecoderOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="steps, batch and validate_every must be >= 1, got 0, 2, 1"):
        dataclasses.replace(options, steps=0)
    with pytest.raises(ValueError, match=r"rate must be in 0\.\.1, got 2"):
        dataclasses.replace(options, rate=2.0)
    monkeypatch.setattr(windows, "_LEAST", 10**6)
    monkeypatch.setattr(windows, "_TRIES", 3)
    with pytest.raises(ValueError, match="expected a window with an object of 1000000 pixels, found none in 3 tries"):
        Draws(DrawOptions(data=options.data)).draw(0, 1)
