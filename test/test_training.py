# SPDX-License-Identifier: Apache-2.0
"""Losses, unrolled windows and the training loop, on clips of a few moving rectangles."""

import dataclasses
import math

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file

from maskrnn_ros.model.network import FastNet
from maskrnn_ros.training import losses
from maskrnn_ros.training.batches import Batches, mirrored, window_of
from maskrnn_ros.training.cache import TrainingClip
from maskrnn_ros.training.loop import TrainOptions, train, validate
from maskrnn_ros.training.unroll import Dropout, boxes_of, unroll, warp

H, W = 64, 96
FULL = Dropout(prior=0, matching=0, head=0, flow=0, ahead=0, hidden=0, jitter=0)


def clip(name: str, frames: int = 12, step: tuple[int, int] = (4, 0)) -> TrainingClip:
    """A rectangle of 24 x 24 that moves by ``step`` pixels a frame; the head sees it through noise."""
    generator = torch.Generator().manual_seed(len(name))
    truth = torch.zeros(frames, H, W, dtype=torch.uint8)
    for t in range(frames):
        x, y = 8 + step[0] * t, 16 + step[1] * t
        truth[t, y : y + 24, x : x + 24] = 1
    share = torch.nn.functional.avg_pool2d(truth[:, None].float(), 4)[:, 0]
    head = (share - 0.5) * 0.5 + 0.3 * torch.randn(share.shape, generator=generator)
    back = torch.zeros(frames, 2, H // 4, W // 4)
    back[1:, 0], back[1:, 1] = -step[0], -step[1]
    random = [
        torch.rand(frames, c, H // s, W // s, generator=generator).half() for c, s in ((24, 4), (40, 8), (112, 16))
    ]
    return TrainingClip(
        name=name,
        images=(truth[:, None].expand(-1, 3, -1, -1) * 200).contiguous(),
        stride4=random[0],
        stride8=random[1],
        stride16=random[2],
        back=back.half(),
        ahead=torch.full((frames, H // 4, W // 4), 4.0).half(),
        truth=truth,
        seeds=((1, 0),),
        matching=torch.zeros(1, frames, H // 4, W // 4).half(),
        head=head[None].half(),
    )


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("davis_one", "davis_two"):
        clip(name).save(folder / f"{name}.safetensors")
    return folder


def options(cache, out, **values) -> TrainOptions:
    known = {"steps": 4, "batch": 2, "length": 3, "validate_every": 2, "held_out": ("two",)}
    return TrainOptions(cache=cache, out=out, **{**known, **values})


def test_the_balanced_loss_is_that_of_the_paper_by_hand():
    truth = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    log_odds = torch.tensor([[[0.0, 1.0, -1.0, 2.0]]])
    cost = [math.log(2), *(math.log(1 + math.exp(x)) for x in (1.0, -1.0, 2.0))]
    weights = [0.75, 0.25, 0.25, 0.25]
    expected = sum(c * w for c, w in zip(cost, weights, strict=True)) / sum(weights)
    assert losses.balanced_cross_entropy(log_odds, truth).item() == pytest.approx(expected, rel=1e-6)


def test_the_dice_loss_is_0_for_the_truth_and_near_1_for_its_opposite():
    truth = torch.zeros(1, 8, 8)
    truth[:, :4] = 1
    sure = (truth * 2 - 1) * 30
    assert losses.dice(sure, truth).item() == pytest.approx(0, abs=1e-6)
    assert losses.dice(-sure, truth).item() == pytest.approx(1 - 1 / 65, abs=1e-6)


def test_an_absent_object_has_no_box_loss():
    deltas, targets = torch.ones(2, 4), torch.tensor([[0.0] * 4, [math.nan] * 4])
    assert losses.box(deltas, targets, torch.tensor([1.0, 0.0])).tolist() == [2.0, 0.0]


def test_a_map_is_warped_against_the_flow():
    map_ = torch.rand(1, 6, 8)
    back = torch.zeros(1, 2, 6, 8)
    back[:, 0] = -8.0  # two cells
    moved = warp(map_, back)
    torch.testing.assert_close(moved[..., 2:], map_[..., :-2])
    assert (moved[..., :2] == 0).all()


def test_boxes_are_half_open_and_the_other_is_taken_where_there_is_nothing():
    maps = torch.zeros(2, 6, 8)
    maps[0, 1:3, 2:7] = 0.5
    other = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    assert boxes_of(maps, other).tolist() == [[8, 4, 28, 12], [1, 2, 3, 4]]


def test_the_prior_is_the_own_mask_where_the_flow_carries_it():
    """The untrained network with the prior alone keeps the rectangle and moves it on."""
    moving = clip("a")
    window = window_of(moving, 0, range(6))
    alone = dataclasses.replace(window, head=torch.zeros_like(window.head))
    net = FastNet()
    torch.nn.init.constant_(net.weights, 1.0)
    last = list(unroll(net, alone, FULL, [torch.Generator()]))[-1]
    inside = window.truth[0, 5].reshape(H // 4, 4, W // 4, 4).mean(dim=(1, 3)) == 1
    assert last.probability[0][inside].mean() > 0.9 and last.probability[0][~inside].mean() < 0.15


def test_the_gradient_reaches_the_first_mask_through_six_frames_and_not_where_the_prior_is_off():
    window = window_of(clip("a"), 0, range(7))
    for dropout, reaches in ((FULL, True), (dataclasses.replace(FULL, prior=1.0, hidden=1.0), False)):
        first = window.first.clamp(0.1, 0.9).requires_grad_()  # beyond, the log-odds are cut
        looks = list(unroll(FastNet(), dataclasses.replace(window, first=first), dropout, [torch.Generator()]))
        looks[-1].output.log_odds.sum().backward()
        assert (first.grad is not None and bool((first.grad != 0).any())) == reaches


def test_frames_that_are_left_out_have_their_flow_put_together():
    window = window_of(clip("a", step=(2, 1)), 0, range(0, 10, 3))
    inner = window.back[0, 1:, :, 4:-4, 4:-4]
    torch.testing.assert_close(inner[:, 0], torch.full_like(inner[:, 0], -6.0))
    torch.testing.assert_close(inner[:, 1], torch.full_like(inner[:, 1], -3.0))
    assert (window.ahead == 0).all()


def test_a_mirrored_window_moves_the_other_way():
    window = window_of(clip("a"), 0, range(3))
    other = mirrored(window)
    torch.testing.assert_close(other.back[0, 1, 0], -window.back[0, 1, 0].flip(-1))
    torch.testing.assert_close(other.truth, window.truth.flip(-1))
    torch.testing.assert_close(mirrored(other).back, window.back)


def test_a_step_has_the_same_windows_whoever_asks(cache):
    paths = sorted(cache.glob("*.safetensors"))
    batches = Batches([(paths, 1.0)], 3, 4)
    whole = batches.step(7)
    parts = [Batches([(paths, 1.0)], 3, 4).step(7, rank, 2) for rank in range(2)]
    torch.testing.assert_close(whole.truth[0::2], parts[0].truth)
    torch.testing.assert_close(whole.truth[1::2], parts[1].truth)
    assert not torch.equal(whole.truth, batches.step(8).truth)


def test_training_learns_what_the_parts_do_not_know(cache, tmp_path):
    """The head's noise hides the rectangle, the image shows it."""
    before = sum(validate(FastNet(), [cache / "davis_two.safetensors"]).values())
    weights = train(options(cache, tmp_path / "out", steps=40, rate=5e-3, validate_every=40))
    net = FastNet()
    net.load_state_dict(load_file(weights))
    after = sum(validate(net, [cache / "davis_two.safetensors"]).values())
    assert after > before + 0.1


def test_a_resumed_training_ends_where_an_unbroken_one_does(cache, tmp_path):
    whole = load_file(train(options(cache, tmp_path / "whole")))
    # the schedule knows all steps, so the first half is made by stopping at its checkpoint
    broken = options(cache, tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        _train_until(broken, 2)
    again = load_file(train(dataclasses.replace(broken, resume=True)))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def _train_until(options: TrainOptions, last: int) -> None:
    original = Batches.step

    def step(self, number, *rest):
        if number == last:
            raise KeyboardInterrupt
        return original(self, number, *rest)

    Batches.step = step  # type: ignore[method-assign]
    try:
        train(options)
    finally:
        Batches.step = original  # type: ignore[method-assign]


def test_other_settings_are_not_resumed(cache, tmp_path):
    train(options(cache, tmp_path / "out"))
    with pytest.raises(ValueError, match=r"--resume expected rate = 0.001, found 0.01"):
        train(options(cache, tmp_path / "out", rate=0.01, resume=True))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"steps": 0}, "steps, batch and validate_every must be >= 1"),
        ({"loss": "hinge"}, "loss must be one of balanced,"),
        ({"rate": 0.0}, "rate must be in 0..1, got 0"),
    ],
)
def test_nonsense_is_refused_by_name(tmp_path, values, text):
    with pytest.raises(ValueError, match=text):
        options(tmp_path, tmp_path, **values)


def test_an_unknown_held_out_clip_is_refused(cache, tmp_path):
    with pytest.raises(ValueError, match="expected the held out clip davis_three"):
        train(options(cache, tmp_path / "out", held_out=("three",)))


def _process(rank, cache, out):
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29591"}
    torch.set_num_threads(1)
    train(options(cache, out))


def test_two_processes_train_as_one_does(cache, tmp_path):
    one = load_file(train(options(cache, tmp_path / "one")))
    torch.multiprocessing.spawn(_process, (cache, tmp_path / "two"), nprocs=2)
    two = load_file(tmp_path / "two" / "network.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=0, msg=name)


@pytest.mark.parametrize(("frames", "length"), [(6, 7), (2, 3)])
def test_clips_that_are_shorter_than_a_window_are_refused_and_nothing_hangs(tmp_path, frames, length):
    clip("a", frames=frames).save(tmp_path / "a.safetensors")
    batches = Batches([([tmp_path / "a.safetensors"], 1.0)], length, 2)
    with pytest.raises(ValueError, match=f"through {length} frames, found none among 1; the longest has {frames} "):
        batches.step(0)
    for enough in (frames, frames + 1):
        clip("b", frames=length).save(tmp_path / "b.safetensors")
        both = Batches([([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], 1.0)], length, enough)
        assert len(both.step(0).truth) == enough, "short ones are passed over"


def test_objects_that_are_too_small_to_begin_with_are_refused(tmp_path):
    tiny = clip("a")
    truth = torch.zeros_like(tiny.truth)
    truth[:, :4, :4] = 1
    dataclasses.replace(tiny, truth=truth).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="an object of 100 pixels or more through 3 frames, found none"):
        Batches([([tmp_path / "a.safetensors"], 1.0)], 3, 2).step(0)
