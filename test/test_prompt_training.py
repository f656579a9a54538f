# SPDX-License-Identifier: Apache-2.0
"""The training of the prompt network: simulated clicks, views, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_bench import write_data

from maskrnn_ros import cli
from maskrnn_ros.model.files import PROMPTS
from maskrnn_ros.model.torch.weights import load_trunk
from maskrnn_ros.prompts import Point, Prompt, UnsureError, view
from maskrnn_ros.prompts import learned as learned_prompts
from maskrnn_ros.prompts.clicks import click_through, clicks_needed, jittered, next_click
from maskrnn_ros.prompts.torch.graph import load_prompts
from maskrnn_ros.prompts.torch.net import PromptNet
from maskrnn_ros.prompts.view import BEFORE, BOX, NEGATIVE, POSITIVE
from maskrnn_ros.training import prompt_samples, prompts
from maskrnn_ros.training.prompt_samples import Draws, Steps, join
from maskrnn_ros.training.prompts import (
    PromptOptions,
    clicked,
    held_out_stills,
    last_looks,
    loss_of,
    train_prompts,
    with_maps,
)
from maskrnn_ros.training.sources import DrawOptions
from maskrnn_ros.types import Box

STEPS = 40
"""Of the training in a test."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (prompts, prompt_samples):
        monkeypatch.setattr(module, "SIZE", (96, 128))
    for module in (view, learned_prompts):
        monkeypatch.setattr(module, "SIDE", 128)
    monkeypatch.setattr(view, "FINE", 192)


@pytest.fixture
def options(tmp_path: Path) -> PromptOptions:
    data = write_data(tmp_path / "data", size=2)
    return PromptOptions(
        data=data, out=tmp_path / "out", steps=2, batch=2, validate_every=1, processes=0, validate_on=1
    )


def square(*box: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[Box(*box).slices] = True
    return mask


def test_clicks_go_to_the_middle_of_the_largest_error() -> None:
    truth = square(10, 10, 31, 31)
    nothing = np.zeros_like(truth)
    assert next_click(truth, nothing) == Point(x=20.5, y=20.5)
    too_much = truth | square(50, 5, 79, 34)
    assert next_click(truth, too_much) == Point(x=64.5, y=19.5, on_object=False)
    known = ~square(45, 0, 80, 60)
    assert next_click(truth, too_much, known) is None
    again = next_click(truth, nothing, before=[Point(x=20.5, y=20.5)])
    assert again is not None and again != Point(x=20.5, y=20.5)
    random = np.random.default_rng(0)
    drawn = {next_click(truth, nothing, random=random) for _ in range(20)}
    assert len(drawn) > 5 and all(13 < point.x < 28 and 13 < point.y < 28 and point.on_object for point in drawn)


def test_a_jittered_box_is_near_and_inside() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        box = jittered(Box(0, 20, 40, 60), (60, 80), random)
        assert box.iou(Box(0, 20, 40, 60)) > 0.6 and box.x0 >= 0 and box.y1 <= 60


def test_a_person_clicks_until_the_mask_is_right() -> None:
    truth = square(10, 10, 31, 31) | square(40, 10, 61, 31)

    def backend(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        mask = np.zeros(image.shape[:2], bool)
        for point in prompt.points:
            mask |= square(10, 10, 31, 31) if point.x < 35 else square(40, 10, 61, 31)
        if len(prompt.points) == 1:
            raise UnsureError(mask, 0.1, 0.5)
        return mask

    ious = list(click_through(backend, np.zeros((60, 80, 3), np.uint8), truth, most=4))
    assert ious == [0.5, 1.0, 1.0, 1.0] and clicks_needed(ious) == 2


def test_views_depend_on_their_number_alone_and_say_something_of_the_object(options: PromptOptions) -> None:
    source = DrawOptions(data=options.data)
    draws, others = Draws(source), Draws(source)
    drawn = [draws.draw(number) for number in range(16)]
    again = others.draw(5)
    for name in ("images", "planes", "truth", "known"):
        assert torch.equal(getattr(drawn[5], name), getattr(again, name)), name
    assert all(torch.equal(one, other) for one, other in zip(drawn[5].maps, again.maps, strict=True))
    whole = join(drawn)
    said = whole.planes.amax(dim=(2, 3))
    assert ((said[:, POSITIVE] > 0) | (said[:, BOX] > 0) | (said[:, BEFORE] > 0)).all()
    assert all((said[:, plane] > 0).any() and (said[:, plane] == 0).any() for plane in (NEGATIVE, BOX, BEFORE))
    assert (whole.truth.sum(dim=(1, 2)) > 20).all()
    on_it = (whole.planes[:, POSITIVE] * whole.truth).sum(dim=(1, 2)) / whole.planes[:, POSITIVE].sum(dim=(1, 2))
    assert on_it[said[:, POSITIVE] > 0].mean() > 0.8


def test_the_last_view_of_a_box_is_learned_from_as_it_is_looked_at(options: PromptOptions) -> None:
    draws = Draws(DrawOptions(data=options.data))
    objects = [draws.draw_boxed(number) for number in range(3)]
    seen = list[tuple[np.ndarray, np.ndarray]]()

    def look(pixels: np.ndarray, planes: np.ndarray) -> np.ndarray:
        seen.append((pixels, planes))
        return np.asarray(8 * planes[BOX] * (pixels[..., 0] > 60) - 4, np.float32)

    backend = learned_prompts.LearnedPrompts(look)
    samples = last_looks(objects, look)
    seen.clear()
    for number, one in enumerate(objects):
        assert one.prompt.box is not None and one.prompt.box.iou(Box.of_mask(one.mask)) > 0.6
        backend(one.image, one.prompt)
        pixels, planes = seen[-2]  # the last one is its mirror image
        np.testing.assert_array_equal(samples.images[number].permute(1, 2, 0).numpy(), pixels)
        np.testing.assert_array_equal(samples.planes[number].numpy(), planes)
    assert samples.planes.shape == (3, 4, view.FINE, view.FINE) and samples.planes[:, BEFORE].amax() > 0.9
    assert (samples.truth.sum(dim=(1, 2)) > 20).all() and not samples.maps
    again = Draws(DrawOptions(data=options.data)).draw_boxed(2)
    assert again.prompt == objects[2].prompt and np.array_equal(again.mask, objects[2].mask)


def test_a_share_of_the_steps_sees_the_last_view_of_a_box(options: PromptOptions) -> None:
    source = DrawOptions(data=options.data)
    draw = Steps(source, 3, source.material((96, 128)), 0.5)()
    found = [draw(step) for step in range(12)]
    fine = [one for one in found if isinstance(one, tuple)]
    assert 2 < len(fine) < 10 and {len(one) for one in fine} == {2}
    assert {len(one.images) for one in found if not isinstance(one, tuple)} == {3}
    whole = dataclasses.replace(options, steps=1, fine=1.0, init=PROMPTS["shipped"])
    before, after = load_file(PROMPTS["shipped"]), load_file(train_prompts(whole))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert whole.settings()["fine"] == "1" and "fine" not in options.settings()
    with pytest.raises(ValueError, match=r"fine must be in 0\.\.1, got 2"):
        dataclasses.replace(options, fine=2.0)


def test_a_look_is_followed_by_a_click_on_what_is_wrong(options: PromptOptions) -> None:
    samples = join([Draws(DrawOptions(data=options.data)).draw(number) for number in range(3)])
    log_odds = torch.where(samples.truth > 0, 5.0, -5.0)
    log_odds[0] = -5.0  # the first object was missed
    log_odds[1] = 5.0  # all of the second view was taken
    before = samples.planes.clone()
    after = clicked(samples.planes.clone(), log_odds, samples, np.random.default_rng(0))
    new = [(after[k] > before[k])[:BEFORE].flatten(1).any(dim=1).tolist() for k in range(3)]
    assert new[0][POSITIVE] and not new[0][NEGATIVE] and new[1][NEGATIVE] and not any(new[2])
    torch.testing.assert_close(after[:, BEFORE], log_odds.sigmoid())


def test_what_nobody_knows_costs_nothing(options: PromptOptions) -> None:
    torch.manual_seed(0)
    net = PromptNet()
    samples = with_maps(Draws(DrawOptions(data=options.data)).draw(0), load_trunk().net)
    known = samples.known.clone()
    known[:, :, 100:] = 0
    other = samples.truth.clone()
    other[:, :, 100:] = 1 - other[:, :, 100:]
    random = np.random.default_rng(0)
    given = {
        "truth": dataclasses.replace(samples, known=known),
        "other beyond": dataclasses.replace(samples, known=known, truth=other),
        "other, and known": dataclasses.replace(samples, truth=other),
    }
    with torch.no_grad():
        found = {name: loss_of(net, one, 0, random) for name, one in given.items()}
    loss = {name: float(parts["loss"]) for name, parts in found.items()}
    # near its border the truth beyond still says where the edge is
    changed = abs(loss["other, and known"] - loss["truth"])
    assert changed > 0.05 and abs(loss["other beyond"] - loss["truth"]) < 0.3 * changed
    assert float(found["truth"]["reached"]) == float(found["other beyond"]["reached"])


def test_a_resumed_training_ends_where_an_unbroken_one_does(
    options: PromptOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(train_prompts(options))
    broken = dataclasses.replace(options, out=options.out.with_name("broken"))
    original = prompts.drawn

    def interrupted(*arguments: object) -> object:
        yield next(original(*arguments))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(prompts, "drawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_prompts(broken)
    monkeypatch.setattr(prompts, "drawn", original)
    again = load_file(train_prompts(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    rows = (options.out / "log.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,loss,mask,judged,reached,norm,iou,click1,click2,click3,box,noc85" and len(rows) == 3
    row = dict(zip(rows[0].split(","), map(float, rows[2].split(",")), strict=True))
    assert row["iou"] == pytest.approx(np.mean([row[name] for name in ("click1", "click2", "click3", "box")]), abs=1e-3)
    with pytest.raises(ValueError, match="--resume expected batch = 2, found 1"):
        train_prompts(dataclasses.replace(broken, resume=True, batch=1))


def test_what_is_held_out_is_taken_of_every_set_alike(options: PromptOptions) -> None:
    found = held_out_stills(options.data, 2)
    assert [still.source for still in found] == ["davis2016_train_288p"] * 2


def test_it_learns_to_tell_the_clicked_one_of_two() -> None:
    """Two disks that look the same, and either is clicked once: only the click tells which one is meant."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    trunk = load_trunk().net
    samples = with_maps(join([_clicked_disks(random) for _ in range(2)]), trunk)
    net = PromptNet()
    net.standardise(*samples.maps[1:])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    reached = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 5) * (1 - step / (STEPS + 10))
        optimizer.zero_grad()
        parts = loss_of(net, samples, 0, random)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        reached.append(float(parts["reached"].detach()))
    assert reached[0] < 0.6 and reached[-1] > 0.8


def _disks(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image = random.integers(0, 90, (256, 256, 3)).astype(np.uint8)
    labels = np.zeros((256, 256), np.uint8)
    rows, columns = np.mgrid[:256, :256]
    for i, x in ((1, 70), (2, 186)):
        where = np.hypot(columns - x - random.uniform(-8, 8), rows - random.uniform(70, 186)) < random.uniform(35, 50)
        labels[where] = i
    image[labels > 0] = (210, 190, 60)
    return image, labels


def _clicked_disks(random: np.random.Generator) -> prompt_samples.Samples:
    """One picture twice, with a click on either disk."""
    image, labels = _disks(random)
    view, both = prompt_samples.View(0, 0, 256), list[prompt_samples.Samples]()
    for i in (1, 2):
        point = next_click(labels == i, np.zeros(labels.shape, bool), random=random)
        assert point is not None
        truth = view.cut((labels == i).astype(np.float32)) >= 0.5
        both.append(
            prompt_samples.Samples(
                images=torch.from_numpy(view.cut(image).transpose(2, 0, 1).copy())[None],
                planes=torch.from_numpy(view.planes(Prompt(points=(point,))))[None],
                truth=torch.from_numpy(truth.astype(np.uint8))[None],
                known=torch.ones(1, 128, 128, dtype=torch.uint8),
                maps=(),
            )
        )
    return join(both)


def test_one_command_trains_and_one_makes_the_graph(options: PromptOptions, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    common = ["--data", str(options.data), "--out", str(options.out), "--steps", "1", "--batch", "1"]
    more = ["--processes", "0", "--validate-on", "1", "--terms", "research", "--rate", "1e-3", "--threads", "1"]
    more += ["--init", "shipped", "--fine", "0.5"]
    assert cli.main(["train", "prompts", *common, *more]) == 0
    file = options.out / prompts.WEIGHTS
    assert str(file) in capsys.readouterr().out
    load_prompts(file)
    assert cli.main(["export", "--prompts", str(file)]) == 0
    assert "differs from torch by at most" in capsys.readouterr().out and file.with_suffix(".onnx").is_file()
    assert not (options.out / "nearest.onnx").exists()
