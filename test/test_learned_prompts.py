# SPDX-License-Identifier: Apache-2.0
"""Where the learned prompt segmenter looks, what it is told, and what it makes of the answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from prompt_bench import Reddish, clicked_at, weights

from maskrnn_ros.model.files import PROMPTS
from maskrnn_ros.model.torch import graphs
from maskrnn_ros.model.torch.graphs import write_graph
from maskrnn_ros.model.torch.weights import LITE0, TRUNK, halve, load_trunk
from maskrnn_ros.prompts import Point, Prompt, UnsureError, build_prompts
from maskrnn_ros.prompts import learned as learned_prompts
from maskrnn_ros.prompts.learned import (
    GraphLook,
    LearnedPrompts,
    Mirrored,
    build_learned,
    confidence_of,
    firmness,
    without_specks,
)
from maskrnn_ros.prompts.torch.graph import export_prompts, load_prompts
from maskrnn_ros.prompts.torch.net import PromptNet, TorchLook
from maskrnn_ros.prompts.view import BEFORE, BOX, FINE, NEGATIVE, SIDE, View
from maskrnn_ros.sections import PromptsConfig
from maskrnn_ros.types import Box

SIZE = (300, 500)
SMALL = Box(400, 60, 424, 80)
CLICK = Prompt(points=(Point(x=412.0, y=70.0),))


def picture(box: Box = SMALL, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = np.full((*size, 3), 90, np.uint8)
    image[box.slices] = (220, 40, 40)
    return image


def overlap(mask: np.ndarray, box: Box) -> float:
    truth = np.zeros(mask.shape, bool)
    truth[box.slices] = True
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize(
    "view", [View(-100, 0, 500), View(0, 0, 300), View(390, 40, 64), View(0, -100, 500), View(0, -100, 500).finer()]
)
def test_what_is_cut_out_comes_back_where_it_was(view: View) -> None:
    image = np.zeros(SIZE, np.float32)
    image[40:100, 390:450] = 1
    back = view.paste(view.cut(image), SIZE, beyond=0.0)
    rows, columns = slice(max(0, view.y0), view.y0 + view.side), slice(max(0, view.x0), view.x0 + view.side)
    inside = np.zeros(SIZE, bool)
    inside[rows, columns] = True
    assert ((back > 0.5) == (image > 0.5) * inside).mean() > 0.999
    assert not back[~inside].any()


def test_views_stay_in_the_image_as_far_as_they_go() -> None:
    assert View.whole(SIZE) == View(0, -100, 500)
    assert View.of_box(SMALL, SIZE) == View(394, 52, 36)
    assert View.of_box(Box(480, 280, 500, 300), SIZE).x0 + 32 == 500
    assert View.of_box(Box(0, 0, 500, 300), SIZE) == View(0, -100, 500)


def test_a_small_object_is_looked_at_again_and_closer() -> None:
    look = Reddish()
    mask = LearnedPrompts(look)(picture(), CLICK)
    first, second, third = look.seen
    assert clicked_at(first[1]) == pytest.approx((412 * SIDE / 500, 170 * SIDE / 500), abs=1)
    assert not first[1][BEFORE].any() and second[1][BEFORE].max() > 0.9 and third[1][BEFORE].max() > 0.9
    share = [float((view[..., 0] > 150).mean()) for view, _ in look.seen]
    assert share[0] < 0.005 and share[1] > 0.3 and share[2] > 0.3
    assert overlap(mask, SMALL) > 0.97


def test_one_setting_says_where_clicks_are_looked_at() -> None:
    whole, clicks = Reddish(), Reddish()
    LearnedPrompts(whole, "whole")(picture(), CLICK)
    LearnedPrompts(clicks, "clicks")(picture(), CLICK)
    assert len(whole.seen) == 1 and len(clicks.seen) == 3
    assert (clicks.seen[0][0][..., 0] > 150).sum() > 3 * (whole.seen[0][0][..., 0] > 150).sum()
    with pytest.raises(ValueError, match="zoom must be one of whole, mask, clicks, got 'far'"):
        LearnedPrompts(whole, "far")


def test_a_box_and_the_mask_before_say_where_to_look() -> None:
    look = Reddish()
    backend = LearnedPrompts(look)
    assert overlap(backend(picture(), Prompt(box=SMALL)), SMALL) > 0.97
    sides = [36, 32, 32, 32]  # 1.5, 1.25 and 1.35 times the box, at least 32; the last one mirrored, too
    for (_, planes), side, pixels in zip(look.seen, sides, [SIDE, SIDE, FINE, FINE], strict=True):
        rows, columns = np.nonzero(planes[BOX])
        assert [np.ptp(columns) + 1, np.ptp(rows) + 1] == pytest.approx([24 * pixels / side, 20 * pixels / side], abs=1)
    assert [bool(planes[BEFORE].any()) for _, planes in look.seen] == [False, False, True, True]
    look.seen.clear()
    before = np.zeros(SIZE, bool)
    before[60:80, 400:412] = True
    mask = backend(picture(), Prompt(points=(Point(x=405.0, y=70.0, on_object=False),), mask=before))
    (_, planes) = look.seen[0]
    assert len(look.seen) == 2 and planes[NEGATIVE].any() and planes[BEFORE].any() and not planes[BOX].any()
    assert overlap(mask, SMALL) > 0.9


def test_a_view_is_looked_at_mirrored_too() -> None:
    look = Reddish()
    mirrored = Mirrored(look)
    view = View(300, 0, 200)
    planes = view.planes(CLICK)
    log_odds = mirrored(view.cut(picture()), planes)
    (one, told), (other, told_too) = look.seen
    np.testing.assert_array_equal(one[:, ::-1], other)
    np.testing.assert_array_equal(told[..., ::-1], told_too)
    assert set(np.unique(log_odds)) == {-5.0, 5.0}, "both are at one place"


def test_what_it_does_not_believe_in_is_not_given() -> None:
    backend = LearnedPrompts(Reddish(log_odds=0.5), min_confidence=0.5)
    with pytest.raises(UnsureError, match=r"unsure \(0.\d\d, below 0.5\): click again or draw") as caught:
        backend(picture(), CLICK)
    assert overlap(caught.value.mask, SMALL) > 0.97
    assert overlap(LearnedPrompts(Reddish(log_odds=5.0), min_confidence=0.9)(picture(), CLICK), SMALL) > 0.97
    assert not backend(np.full((*SIZE, 3), 90, np.uint8), CLICK).any(), "nothing is found, which is sure enough"


def test_small_pieces_without_a_click_go() -> None:
    log_odds = np.full((SIDE, SIDE), -4, np.float32)
    clicked, large, speck = np.s_[20:80, 20:80], np.s_[20:60, 120:180], np.s_[200:210, 200:210]
    for part in (clicked, large, speck):
        log_odds[part] = 3
    found = without_specks(log_odds, [(50.0, 50.0)])
    assert (found[clicked] > 0).all() and (found[large] > 0).all() and not (found[speck] > 0).any()
    assert (without_specks(log_odds, [(50.0, 50.0), (205.5, 205.5)]) == log_odds).all(), "a click holds it"
    assert (without_specks(log_odds, [(5.0, 250.0)]) == log_odds).all(), "no piece has the click"
    assert (without_specks(log_odds, [(300.0, -3.0)]) == log_odds).all(), "a click beyond the view"
    assert (without_specks(-np.abs(log_odds), [(50.0, 50.0)]) < 0).all()


def test_it_is_sure_of_masks_that_stay_and_edges_that_are_sharp() -> None:
    disk = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(disk, (128, 128), 60, 1, -1)
    sure = np.where(disk, np.float32(8), np.float32(-8))
    soft = cv2.GaussianBlur(sure, (0, 0), 12)
    assert firmness(sure) == 1 and 0.6 < firmness(soft) < 0.95 and firmness(-np.abs(sure)) == 0
    best, blurred, doubted = confidence_of(sure, 1.0), confidence_of(soft, 1.0), confidence_of(sure, 0.2)
    assert best == 1 and blurred < 0.9 and doubted < 0.75
    finer = cv2.resize(soft, (FINE, FINE), interpolation=cv2.INTER_LINEAR)
    assert confidence_of(finer, 1.0) == pytest.approx(blurred, abs=0.02), "whatever the pixels of the view"
    assert confidence_of(np.full((SIDE, SIDE), 9, np.float32), 1.0) < 0.5, "a mask without an edge is none"


def test_with_the_whole_image_alone_pieces_away_from_the_click_go_too() -> None:
    image = picture()
    image[200:206, 100:106] = (220, 40, 40)
    mask = LearnedPrompts(Reddish(), "whole")(image, CLICK)
    assert mask[70, 412] and not mask[200:206, 100:106].any()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (40, 30)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), (220, 40, 40), np.uint8)
    for prompt in (Prompt(box=Box(0, 0, 1, 1)), Prompt(points=(Point(x=0.5, y=0.5),))):
        assert LearnedPrompts(Reddish())(image, prompt).shape == size


def test_the_graph_says_what_torch_says(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = weights(tmp_path)
    assert file.stat().st_size < 6e6
    graph, reference = GraphLook(file, TRUNK), TorchLook(load_prompts(file), load_trunk())
    random = np.random.default_rng(0)
    for view in (View(0, 0, SIDE), View(0, 0, SIDE).finer()):
        pixels = random.integers(0, 256, (view.pixels, view.pixels, 3), np.uint8)
        planes = view.planes(Prompt(box=Box(40, 50, 200, 210), points=(Point(x=100.5, y=90.5),)))
        one, other = graph(pixels, planes), reference(pixels, planes)
        assert one.shape == (view.pixels, view.pixels)
        np.testing.assert_allclose(one, other, atol=2e-3)
        assert one.std() > 0.01


def test_a_graph_of_weights_in_half_precision_takes_half_the_room_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = weights(tmp_path)
    halve(file, file)
    view = View(0, 0, SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    planes = view.planes(Prompt(box=Box(40, 50, 200, 210)))
    sizes, found = [], []
    for large in (10**9, 256):  # with the first, no tensor is kept so
        monkeypatch.setattr(graphs, "_LARGE", large)
        made = export_prompts(file)
        assert made.difference < 2e-3
        sizes.append(made.size)
        found.append(GraphLook(file, TRUNK)(pixels, planes))
    assert sizes[1] < 0.55 * sizes[0]
    np.testing.assert_array_equal(*found)


def test_the_picture_is_looked_at_once_for_all_clicks_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    look = GraphLook(weights(tmp_path), TRUNK)
    seen = []
    run = look._trunk.run
    look._trunk = type("Counted", (), {"run": lambda self, *given: seen.append(given[1]["image"]) or run(*given)})()
    backend = LearnedPrompts(look, "whole")
    first = backend(picture(), CLICK)
    backend(picture(), Prompt(points=(Point(x=100.0, y=200.0),)))
    assert len(seen) == 1
    backend(255 - picture(), CLICK)
    assert len(seen) == 2 and not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(backend(picture(), CLICK), first)
    assert len(seen) == 2


def test_weights_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = weights(tmp_path)
    assert isinstance(build_learned(str(file), "shipped", "mask", 0.0), LearnedPrompts)
    with pytest.raises(ValueError, match="prompts.backend learned: .*no/such.onnx"):
        build_learned("no/such.safetensors", "shipped", "mask", 0.0)
    with pytest.raises(ValueError, match="learned with another trunk than .*lite0.*: name it by trunk.weights"):
        build_learned(str(file), str(LITE0), "mask", 0.0)
    other = weights(tmp_path / "other", seed=1)
    file.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="was not made from .*: run maskrnn export --prompts"):
        build_learned(str(file), "shipped", "mask", 0.0)


def test_a_graph_for_views_of_one_size_is_refused(tmp_path: Path) -> None:
    """As versions before wrote it."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    file = weights(tmp_path)
    model = onnx.load(str(file.with_suffix(".onnx")))
    for size in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.dim_value = SIDE
    write_graph(file.with_suffix(".onnx"), model)
    with pytest.raises(ValueError, match="takes views of 256 pixels alone: run maskrnn export --prompts"):
        build_learned(str(file), "shipped", "mask", 0.0)


@pytest.fixture
def fresh() -> Iterator[None]:
    """What ships is read anew, and by later tests once more."""
    learned_prompts._shipped.cache_clear()
    yield
    learned_prompts._shipped.cache_clear()


@pytest.mark.parametrize("weights", PROMPTS)
def test_as_the_package_comes_a_click_is_enough_for_a_plain_object(weights: str) -> None:
    config = PromptsConfig(weights=weights)
    backend = build_prompts(config, "other.safetensors")  # the tracker's trunk is its own matter
    assert isinstance(backend, LearnedPrompts)
    box = Box(180, 90, 300, 210)
    assert overlap(backend(picture(box), Prompt(points=(Point(x=240.0, y=150.0),))), box) > 0.8
    assert overlap(backend(picture(box), Prompt(box=box)), box) > 0.8


def test_what_ships_looks_by_torch_where_onnxruntime_is_not_installed(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    backend = build_learned("shipped", "shipped", "mask", 0.0)
    expected = backend(picture(), CLICK)
    learned_prompts._shipped.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = backend(picture(), CLICK)
    assert isinstance(learned_prompts._shipped("shipped"), TorchLook)
    assert found.any() and (found != expected).mean() < 0.001


WITHOUT = """
import sys
for blocked in sys.argv[1].split(","):
    sys.modules[blocked] = None
import numpy as np
from maskrnn_ros.sections import PromptsConfig
from maskrnn_ros.prompts import Point, Prompt, build_prompts
from maskrnn_ros.types import Box
image, box = np.full((300, 500, 3), 90, np.uint8), Box(180, 90, 300, 210)
image[box.slices] = (220, 40, 40)
backend = build_prompts(PromptsConfig())
for prompt in (Prompt(points=(Point(x=240.0, y=150.0),)), Prompt(box=box)):
    try:
        mask = backend(image, prompt)
    except ValueError as error:
        print(error)
    else:
        print(mask[box.slices].sum() / (mask.sum() + mask[box.slices].size - mask[box.slices].sum()))
assert not [name for name in sys.modules if name.startswith("torch") and sys.modules[name] is not None]
"""


def without(packages: str) -> list[str]:
    """What a click and a box give in a process of their own, where those packages cannot be imported: a line each."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, packages], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_click_and_a_box_need_no_torch() -> None:
    pytest.importorskip("onnxruntime")
    assert all(float(line) > 0.8 for line in without("torch,torchvision,safetensors"))


def test_with_neither_torch_nor_onnxruntime_a_prompt_says_what_to_install() -> None:
    for line in without("torch,torchvision,onnxruntime"):
        assert line.startswith("prompts.backend learned: needs onnxruntime (or torch), which is not installed: pip ")


def test_what_ships_damaged_is_said_of_the_prompt(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROMPTS, "shipped", tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="prompts.backend learned: .*none"):
        build_learned("shipped", "shipped", "mask", 0.0)(picture(), CLICK)


def test_the_gradient_reaches_every_part() -> None:
    torch.manual_seed(0)
    net = PromptNet()
    planes = (torch.rand(2, 4, SIDE, SIDE) > 0.9).float()
    image = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    maps = [torch.randn(2, c, SIDE // s, SIDE // s) for c, s in ((24, 4), (40, 8), (112, 16))]
    log_odds, confidence = net(image, planes, *maps)
    (log_odds.square().mean() + confidence.mean()).backward()
    without = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == []
