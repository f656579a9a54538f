# SPDX-License-Identifier: Apache-2.0
"""The tracker says what the training's rollout says: the same frames through both, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import world
from shipped import CONFIG, engine
from torch.nn import functional

from maskrnn_ros.config import with_values
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.model.files import DECODER
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.model.shapes import CROP, FINE, HIDDEN, RATE, STRIDE
from maskrnn_ros.model.torch import target as training
from maskrnn_ros.model.torch.crops import crop, paste, scaled
from maskrnn_ros.model.torch.matching import Keys
from maskrnn_ros.model.torch.sight import Carried, Shared, crops_around, place, see
from maskrnn_ros.model.torch.step import StepNet
from maskrnn_ros.model.torch.weights import load_step
from maskrnn_ros.tracking import Tracker, decide, follow
from maskrnn_ros.tracking.rivals import meets as meets_of
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.training.boxes import boxes_of
from maskrnn_ros.training.groups import Groups

FAR = (world.Shape(1, 14, 12, 28, 28, 1, 0), world.Shape(2, 84, 52, 28, 28, 0, -1))
"""Neither is seen in the other's crop."""
NEAR = (world.Shape(1, 16, 24, 44, 40, 2, 0), world.Shape(2, 56, 40, 44, 40, -1, 0))
"""They touch: what one covers in the other's crop the training knows at cells of stride 4, the tracker exactly."""


@pytest.fixture(scope="module")
def net() -> StepNet:
    return load_step(DECODER)


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def runs(request: pytest.FixtureRequest) -> Engine:
    return engine() if request.param == "onnxruntime" else load_engine(with_values(CONFIG, engine="torch"))


@pytest.fixture(autouse=True)
def one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training fits a target model to its seed alone."""
    monkeypatch.setattr(follow, "_VIEWS", 1)


def tensor(value: object) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.asarray(value))


def batch(states: dict[int, InstanceMemory], part: Callable[[InstanceMemory], object]) -> torch.Tensor:
    return torch.stack([tensor(part(state)) for state in states.values()])


def in_training(states: dict[int, InstanceMemory]) -> tuple[Carried, training.Memory, torch.Tensor]:
    """What the tracker carries, as the training has it."""

    def known(part: Callable[[follow.Known], object]) -> torch.Tensor:
        return batch(states, lambda state: part(state.known))  # type: ignore[arg-type]

    carried = Carried(
        known(lambda k: k.carried.probability)[:, None],
        known(lambda k: k.carried.crop),
        known(lambda k: k.carried.hidden),
    )
    memory = training.Memory(
        training.Sums(known(lambda k: k.memory.seed.square), known(lambda k: k.memory.seed.target)),
        training.Sums(known(lambda k: k.memory.recent.square), known(lambda k: k.memory.recent.target)),
        Keys(known(lambda k: k.memory.seed_keys.code), known(lambda k: k.memory.seed_keys.values)),
        Keys(known(lambda k: k.memory.newest_keys.code), known(lambda k: k.memory.newest_keys.values)),
    )
    return carried, memory, known(lambda k: k.weights)


def close(found: object, expected: object, what: str, tolerance: float = 1e-3) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=tolerance, rtol=tolerance, err_msg=what)


def shared_of(frame: PreparedFrame, flow: np.ndarray) -> Shared:
    """As ``training.windows`` has them: flow is the mean over cells."""
    features = frame.features
    image = torch.from_numpy(frame.image).permute(2, 0, 1)[None]
    return Shared(
        image=scaled(image),
        columns=tensor(features.columns),
        stride8=tensor(features.stride8),
        stride16=tensor(features.stride16),
        flow=functional.avg_pool2d(torch.from_numpy(flow)[None], STRIDE),
    )


def begun(runs: Engine, shapes: tuple[world.Shape, ...]) -> Tracker:
    config = with_values(CONFIG, presence__threshold=0.0)  # the training decides nothing by it
    one = Tracker(config, world.ExactFlow(shapes), runs)
    one.seed(world.seed(0, shapes=shapes), world.frame(0, shapes))
    return one


@pytest.mark.parametrize("shapes", [FAR, NEAR], ids=["far", "near"])
def test_a_seed_begins_as_in_the_training(net: StepNet, runs: Engine, shapes: tuple[world.Shape, ...]) -> None:
    one = begun(runs, shapes)
    carried, memory, weights = in_training(dict(one.states))
    assert one.newest is not None
    shared = shared_of(one.newest, np.zeros((2, world.HEIGHT, world.WIDTH), np.float32))
    labels = torch.from_numpy(world.labels(0, shapes))
    masks = torch.stack([labels == i for i in one.states]).float()
    rest = (labels > 0).float() - masks
    planes = torch.stack([masks, rest, torch.ones_like(masks)], dim=1)
    share, others, known = functional.avg_pool2d(planes, STRIDE).unbind(1)
    which = torch.zeros(len(masks), dtype=torch.int64)
    boxes = boxes_of(masks, torch.zeros(len(masks), 4))
    with torch.no_grad():
        sums = training.seed_sums(net, shared.columns, which, boxes, share, others, known)
        keys = training.seed_keys(net, shared.stride8, shared.stride16, which, boxes, share, others)
        solved = training.coefficients(net, training.Memory(sums, sums, keys, keys))
    close(memory.seed.square, sums.square, "square")
    close(memory.seed.target, sums.target, "target")
    close(memory.seed_keys.code, keys.code, "code")
    close(memory.seed_keys.values, keys.values, "values")
    close(memory.recent.square, sums.square, "recent")
    close(weights, solved, "coefficients", 1e-2)
    crops = crops_around(boxes)
    close(carried.boxes, crops, "crops")
    rois = torch.cat([torch.arange(len(crops))[:, None].float(), crops], dim=1)
    close(carried.probability, crop(masks[:, None], rois, FINE, 1.0), "masks in their crops")
    assert carried.hidden.shape == (len(masks), HIDDEN, CROP // 2, CROP // 2) and not carried.hidden.any()


@pytest.mark.parametrize("shapes", [FAR, NEAR], ids=["far", "near"])
def test_a_frame_is_looked_at_and_learned_as_in_the_training(
    net: StepNet, runs: Engine, shapes: tuple[world.Shape, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_EVERY", 1)  # in the training every frame is due
    monkeypatch.setattr(decide, "strays", lambda mask, *rest: np.zeros(mask.shape, bool))  # it leaves nothing out
    monkeypatch.setattr(follow, "seen_elsewhere", lambda maps, *rest: maps)  # and knows of no look-alikes
    one = begun(runs, shapes)
    flow = world.ExactFlow(shapes)
    trusted = 0
    for number in (1, 2, 3):
        before = dict(one.states)
        carried, memory, weights = in_training(before)
        frame = one.prepare(world.frame(number, shapes))
        moved = flow(world.image(number, shapes), world.image(number - 1, shapes))
        one.advance(frame)
        after = dict(one.states)
        assert all(state.frames_unseen == 0 for state in after.values())
        learned = [not np.array_equal(after[i].known.weights, before[i].known.weights) for i in after]  # type: ignore[union-attr]
        expected = step(net, shared_of(frame, moved), carried, memory, weights, torch.tensor(learned))
        found, remembered, solved = in_training(after)
        close(found.boxes, expected.carried.boxes, "crops")
        # so it does where ONNX Runtime is given crops, and rounds the image's to bytes
        few = 1 if runs.name == "torch" else 10
        close(found.probability, expected.carried.probability, "masks in their crops", few * 5e-3)
        close(found.hidden, expected.carried.hidden, "hidden states", few * 1e-2)
        for part in ("probability", "hidden"):
            one_part, other_part = getattr(found, part), getattr(expected.carried, part)
            assert (one_part - other_part).abs().mean() < few * 2e-4 * (1 + number)
        pasted = np.stack([state.probability for state in after.values()])
        # OpenCV steps by 1/32 of a cell: at an edge of 16 in log-odds a pixel may be off by a little
        assert np.abs(pasted - expected.pasted.numpy()).mean() < 2e-3
        assert ((pasted >= 0.5) != (expected.pasted.numpy() >= 0.5)).mean() < 1e-3
        trusted += sum(learned)
        tolerance = 2e-3 if shapes is FAR else 2e-2
        for part in ("square", "target"):
            close(getattr(remembered.recent, part), getattr(expected.memory.recent, part), part, tolerance)
        close(remembered.newest_keys.code, expected.memory.newest_keys.code, "code")
        values = (remembered.newest_keys.values - expected.memory.newest_keys.values).abs()
        assert values.mean() < tolerance
        if shapes is FAR:
            close(solved, expected.weights, "coefficients", 2e-2)
    assert trusted >= 4


@dataclasses.dataclass(frozen=True)
class Expected:
    carried: Carried
    memory: training.Memory
    weights: torch.Tensor
    pasted: torch.Tensor


@torch.no_grad()
def step(
    net: StepNet,
    shared: Shared,
    carried: Carried,
    memory: training.Memory,
    weights: torch.Tensor,
    learns: torch.Tensor,
) -> Expected:
    """One frame as in ``training.rollout``, for objects that are all there; ``learns`` says which are trusted."""
    count = len(weights)
    which, groups = torch.zeros(count, dtype=torch.int64), Groups(torch.zeros(count, dtype=torch.int64))
    prior4 = place(carried.probability, carried.boxes, shared.flow, which)
    boxes = crops_around(boxes_of(prior4, torch.zeros(count, 4), STRIDE))
    seen = see(shared, which, boxes, carried, groups.most_of_others(prior4))
    output = net.look(seen, weights, memory.seed_keys, memory.newest_keys)
    probability = output.log_odds.sigmoid()[:, None]
    rois = torch.cat([torch.arange(count)[:, None].float(), boxes], dim=1)
    size4 = shared.flow.shape[-2], shared.flow.shape[-1]
    rivals = groups.most_of_others(paste(output.log_odds, boxes / STRIDE, size4).sigmoid())
    rivals = crop(rivals[:, None], rois, CROP, 1 / STRIDE)
    share = functional.avg_pool2d(probability, 2)
    sure = ((share - 0.5).abs() * 2).clamp(min=0.1)
    own = share * (1 - rivals * (rivals > share))
    half = functional.avg_pool2d(torch.cat([own, rivals], dim=1), 2)
    keys = net.matcher.keys(output.code, half[:, :1], half[:, 1:])
    kept = training.remember(
        memory, training.sums_of(net, seen.columns, own, rivals, sure), keys, learns.float() * RATE
    )
    whole = paste(output.log_odds, boxes, (size4[0] * STRIDE, size4[1] * STRIDE), outside=-100.0).sigmoid()
    return Expected(Carried(probability, boxes, output.hidden), kept, training.coefficients(net, kept), whole)


def test_the_crops_of_some_meet_and_those_of_others_do_not() -> None:
    """Else the tests above would show less than they say."""
    for shapes, meets in ((FAR, False), (NEAR, True)):
        one = begun(engine(), shapes)
        for number in range(4):
            if number:
                one.step(world.frame(number, shapes))
            assert meets_of(one.states.begun.carried.crop, np.array([0, 1])).tolist() == [
                [False, meets],
                [meets, False],
            ]
