# SPDX-License-Identifier: Apache-2.0
"""One contract for all flow backends, on motion that is known exactly."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import world
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_large, raft_small
from world import texture

from maskrnn_ros.config import from_flat, with_values
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.datasets.motion import MovingPair, affine, endpoint_error, moving_pair
from maskrnn_ros.flow import BACKENDS, FlowEstimator, build_flow, warp
from maskrnn_ros.flow.backends import chosen
from maskrnn_ros.flow.torch.on_device import OnDevice
from maskrnn_ros.labels import read_labels
from maskrnn_ros.model.torch.weights import load_into
from maskrnn_ros.sections import FlowConfig
from maskrnn_ros.tracking import build_tracker

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "weights" / "raft_small_torchvision.safetensors"
DEMO = Path(__file__).resolve().parent.parent / "maskrnn_ros" / "data" / "tabletop"
RAFT = Path(os.environ.get("MASKRNN_RAFT_SMALL", SHARED))
SIZE = (144, 200)
MOTIONS = {
    "still": {},
    "shift right": {"shift": (3, 0)},
    "shift up": {"shift": (0, -4)},
    "shift by a fraction": {"shift": (-2.5, 1.25)},
    "rotation": {"degrees": 3.0},
    "rotation the other way": {"degrees": -3.0},
    "zoom in": {"zoom": 1.05},
    "zoom out": {"zoom": 0.95},
    "all at once": {"shift": (2, -3), "degrees": -2.0, "zoom": 1.03},
}
TOLERANCE = {"dis": 0.35, "flownet": 0.35, "raft": 0.35, "epicflow": 0.35}
"""Mean endpoint error on these, pixels, where what is seen was seen before; 16 pixels from the border on."""

TOLERANCE_OCCLUDER = {"dis": 0.5, "flownet": 1.0, "raft": 1.0, "epicflow": 0.8}
"""The same with an object that moves by 7 pixels before it."""


@functools.cache
def estimator(name: str) -> FlowEstimator:
    """The backend with its weights; skips the test where that is not at hand."""
    if name == "epicflow" and not hasattr(cv2, "ximgproc"):
        pytest.skip("needs cv2.ximgproc (opencv-contrib-python-headless)")
    if name == "raft" and not RAFT.is_file():
        pytest.skip("needs the weights of RAFT-small: MASKRNN_RAFT_SMALL=FILE.safetensors")
    weights = str(RAFT) if name == "raft" else "shipped"
    return build_flow(FlowConfig(backend=name, preset="medium", weights=weights))


def estimated(name: str, pair: MovingPair) -> np.ndarray:
    flow = estimator(name)(pair.current, pair.previous)
    assert flow.dtype == np.float32 and flow.shape == pair.flow.shape and flow.flags.c_contiguous
    assert np.isfinite(flow).all()
    return flow


def inner_error(flow: np.ndarray, pair: MovingPair) -> float:
    inner = (slice(16, -16), slice(16, -16))
    return float(endpoint_error(flow, pair)[inner][pair.visible[inner]].mean())


def with_occluder() -> MovingPair:
    mask = np.zeros(SIZE, bool)
    mask[50:100, 60:120] = True
    motions = affine(SIZE, shift=(-2, 1)), affine(SIZE, shift=(5, -2))
    return moving_pair(texture(4, *SIZE), motions[0], texture(5, *SIZE), mask, motions[1])


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("name", BACKENDS)
def test_the_flow_is_that_of_the_motion(name: str, motion: str) -> None:
    pair = moving_pair(texture(3, *SIZE), affine(SIZE, **MOTIONS[motion]))
    assert inner_error(estimated(name, pair), pair) < TOLERANCE[name]


@pytest.mark.parametrize("name", BACKENDS)
def test_an_occluder_moves_on_its_own(name: str) -> None:
    pair = with_occluder()
    flow = estimated(name, pair)
    assert inner_error(flow, pair) < TOLERANCE_OCCLUDER[name]
    np.testing.assert_allclose(np.median(flow[:, 60:85, 75:110], axis=(1, 2)), [-5, 2], atol=0.5)
    np.testing.assert_allclose(np.median(flow[:, 110:130], axis=(1, 2)), [2, -1], atol=0.5)


@pytest.mark.parametrize("name", BACKENDS)
def test_both_directions_are_two_calls_of_the_same_estimator(name: str) -> None:
    pair = moving_pair(texture(3, *SIZE), affine(SIZE, shift=(4, -3)))
    back = estimated(name, pair)
    forth = estimator(name)(pair.previous, pair.current)
    np.testing.assert_allclose(np.median(forth + back, axis=(1, 2)), 0, atol=0.2)
    tiny = np.zeros((8, 8, 3), np.uint8)
    estimator(name)(tiny, tiny)
    np.testing.assert_array_equal(estimated(name, pair), back)  # whatever was computed in between


@pytest.mark.parametrize("size", [(1, 1), (24, 448), (101, 37), (130, 137), (129, 240)])
@pytest.mark.parametrize("name", BACKENDS)
def test_any_size_is_taken_and_comes_back(name: str, size: tuple[int, int]) -> None:
    pair = moving_pair(texture(3, *size), affine(size, shift=(1, 0)))
    flow = estimated(name, pair)
    if min(size) > 100:  # padding must not shift what it is cut back to
        np.testing.assert_allclose(np.median(flow, axis=(1, 2)), [-1, 0], atol=0.2)


@pytest.mark.parametrize("name", BACKENDS)
def test_images_without_texture_have_a_flow(name: str) -> None:
    grey = np.full((*SIZE, 3), 128, np.uint8)
    flow = estimator(name)(grey, grey)
    most = 4.0 if name == "flownet" else 1.0  # it invents some motion
    assert np.isfinite(flow).all() and np.median(np.abs(flow)) < most


@pytest.mark.parametrize(
    ("current", "previous", "message"),
    [
        ((40, 50, 3), (40, 51, 3), r"share their shape, got \(40, 50, 3\) and \(40, 51, 3\)"),
        ((40, 50, 1), (40, 50, 1), r"must be \(H, W, 3\), got \(40, 50, 1\)"),
        ((3, 40, 50), (3, 40, 50), r"must be \(H, W, 3\), got \(3, 40, 50\)"),
        ((1, 8, 8, 3), (1, 8, 8, 3), r"must be \(H, W, 3\), got \(1, 8, 8, 3\)"),
        ((0, 50, 3), (0, 50, 3), r"must be \(H, W, 3\), got \(0, 50, 3\)"),
    ],
)
@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_no_pair_of_images_is_refused(
    name: str, current: tuple[int, ...], previous: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimator(name)(np.zeros(current, np.uint8), np.zeros(previous, np.uint8))


@pytest.mark.parametrize("name", BACKENDS)
def test_other_types_are_refused(name: str) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    for pair in ((image.astype(np.float32), image), (image, image.astype(np.float32))):
        with pytest.raises(ValueError, match=r"must be uint8, got (uint8 and float32|float32 and uint8)"):
            estimator(name)(*pair)


@pytest.mark.parametrize("name", ["flownet", "raft"])
def test_the_newest_image_goes_to_the_device_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a rule it is the previous one of the next pair; another image of the same size is not mistaken for it."""
    images = [texture(number, *SIZE) for number in range(3)]
    expected = [estimator(name)(images[1], images[0]), estimator(name)(images[2], images[1])]
    apart = estimator(name)(images[2], images[0])
    brought: list[int] = []
    original = OnDevice._up
    monkeypatch.setattr(OnDevice, "_up", lambda own, image: brought.append(id(image)) or original(own, image))
    flow = estimator(name)
    np.testing.assert_array_equal(flow(images[1], images[0]), expected[0])
    np.testing.assert_array_equal(flow(images[2], images[1]), expected[1])
    assert brought.count(id(images[1])) == 1
    np.testing.assert_array_equal(flow(images[2], images[0]), apart)


@pytest.mark.parametrize(("background", "things"), [((-2, 1), (5, -2)), ((-6, 3), (14, -6)), ((-4, 2), (24, -8))])
def test_raft_is_better_than_dis_on_a_picture_with_things(background: tuple[int, int], things: tuple[int, int]) -> None:
    """The demo clip's first image, its objects mirrored and moved before it."""
    files = davis_sequence(DEMO, "tabletop")
    image = cv2.resize(read_frame(files.frames[0]), (320, 180), interpolation=cv2.INTER_AREA)
    labels = read_labels(files.annotations[files.frames[0].stem]).astype(np.uint8)
    mask = cv2.resize(labels, (320, 180), interpolation=cv2.INTER_NEAREST)[:, ::-1] > 0
    motions = affine(mask.shape, background), affine(mask.shape, things, degrees=4.0)
    pair = moving_pair(image, motions[0], np.ascontiguousarray(image[:, ::-1]), mask, motions[1])
    error = inner_error(estimated("raft", pair), pair)
    assert error < 2.0 and error < 0.8 * inner_error(estimated("dis", pair), pair)


def test_more_iterations_of_raft_are_more_exact() -> None:
    estimator("raft")
    pair = moving_pair(texture(3, *SIZE), affine(SIZE, shift=(12, -9)))
    one, twelve = (build_flow(FlowConfig(backend="raft", weights=str(RAFT), iterations=number)) for number in (1, 12))
    errors = [inner_error(flow(pair.current, pair.previous), pair) for flow in (one, twelve)]
    assert errors[1] < 0.5 * errors[0]


def test_the_truth_of_the_pairs_is_right() -> None:
    """The image of before, carried by the flow, is the image of now, wherever it was seen before."""
    for pair in (with_occluder(), moving_pair(texture(3, *SIZE), affine(SIZE, (2, -3), -2.0, 1.03))):
        planes = pair.previous.astype(np.float32).transpose(2, 0, 1)
        carried = np.stack([warp(np.ascontiguousarray(plane), pair.flow) for plane in planes], axis=-1)
        difference = np.abs(carried - pair.current).max(axis=2)
        assert np.percentile(difference[pair.visible], 99) < 6
        assert pair.visible.mean() > 0.9
    hidden = ~with_occluder().visible
    assert hidden[50:100, 58].any() and not hidden[70, 90]  # uncovered beside the object, not on it


def random_weights(path: Path, size: str) -> Path:
    torch.manual_seed(0)
    network = {"small": raft_small, "large": raft_large}[size]()
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, str(path))
    return path


@pytest.mark.parametrize("size", ["small", "large"])
def test_raft_is_torchvisions(size: str, tmp_path: Path) -> None:
    file = random_weights(tmp_path / "raft.safetensors", size)
    network = {"small": raft_small, "large": raft_large}[size]().eval()
    load_into(network, file)
    flow = build_flow(FlowConfig(backend="raft", weights=str(file), raft=size, iterations=3))
    now, before = texture(1, 200, 136), texture(2, 200, 136)  # sides that are multiples of 8 as they are
    pair = [torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1 for image in (now, before)]
    with torch.no_grad():
        expected = network(*pair, num_flow_updates=3)[-1][0].numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(flow(now, before), expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("size", ["small", "large"])
def test_raft_of_both_sizes_takes_weights_from_a_file(size: str, tmp_path: Path) -> None:
    file = random_weights(tmp_path / "raft.safetensors", size)
    flow = build_flow(FlowConfig(backend="raft", weights=str(file), raft=size, iterations=1))
    image = texture(3, 30, 150)
    assert flow(image, image).shape == (2, 30, 150)
    with pytest.raises(ValueError, match="share their shape"):
        flow(image, image[:20])


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    file = random_weights(tmp_path / "raft.safetensors", "small")
    with pytest.raises(RuntimeError, match=r"raft.safetensors do not fit RAFT: \d+ tensors differ, the first is"):
        build_flow(FlowConfig(backend="raft", weights=str(file), raft="large"))
    with pytest.raises(RuntimeError, match=r"none.safetensors cannot be read"):
        build_flow(FlowConfig(backend="raft", weights=str(tmp_path / "none.safetensors")))
    with pytest.raises(RuntimeError, match=r"no weights of it are shipped; flow.weights must be"):
        build_flow(FlowConfig(backend="raft"))
    with pytest.raises(ValueError, match=r"flow.weights must be shipped, torchvision or a .safetensors file, got 'x'"):
        from_flat({"flow.weights": "x"})


def test_torchvisions_own_weights_are_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network: what an earlier download left."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth"
    cached.parent.mkdir(parents=True)
    torch.manual_seed(1)
    torch.save(raft_small().state_dict(), cached)
    flow = build_flow(FlowConfig(backend="raft", weights="torchvision", iterations=1))
    image = texture(3, 40, 50)
    assert flow(image, image).shape == (2, 40, 50)


def test_a_download_that_fails_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(RuntimeError, match=r"^flow.weights torchvision: https://\S+ cannot be had: .*$"):
        build_flow(FlowConfig(backend="raft", weights="torchvision"))


def test_epicflow_without_contrib_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(RuntimeError, match=r"^flow.backend epicflow needs cv2.ximgproc, .* in place of .*$"):
        build_flow(FlowConfig(backend="epicflow"))


def test_auto_chooses_by_the_device() -> None:
    assert chosen(FlowConfig(backend="auto"), "cpu") == "dis"
    assert chosen(FlowConfig(backend="auto"), "cuda:0") == "flownet"
    assert chosen(FlowConfig(backend="raft"), "cpu") == "raft"


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_can_be_named(name: str) -> None:
    assert from_flat({"flow.backend": name}).flow.backend == name


@pytest.mark.parametrize("package", ["torch", "torchvision"])
@pytest.mark.parametrize("name", ["flownet", "raft"])
def test_a_network_without_torch_is_refused_in_one_line(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeError) as refused:
        build_flow(FlowConfig(backend=name))
    assert str(refused.value).startswith(f"flow.backend {name} needs {package}, which is not installed: pip install ")
    assert "maskrnn_ros[gpu]" in str(refused.value) and "\n" not in str(refused.value)


# --- backends of one's own ---


OWN = r"""
import numpy as np

class Constant:
    def __init__(self, pixels, device):
        self.pixels, self.device = pixels, device

    def __call__(self, current, previous):
        flow = np.zeros((2, *current.shape[:2]), np.float32)
        flow[0] = -self.pixels
        return flow

def build(config, device):
    return Constant(config.iterations, device)

def nothing(config, device):
    return "no estimator"

def failing(config, device):
    raise ValueError("weights of own_flow:\nnowhere")

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that is installed beside the package."""
    (tmp_path / "own_flow.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_flow", None)


@pytest.mark.usefixtures("own")
def test_a_backend_of_ones_own_is_made_of_settings_and_device_and_masks_follow_it() -> None:
    config = from_flat({"flow.backend": "own_flow:build", "flow.iterations": 4, "network.enabled": False})
    flow = build_flow(config.flow, "cuda:1")
    assert flow.device == "cuda:1" and flow.pixels == 4
    tracker = build_tracker(with_values(config, refinement__enabled=False))
    tracker.seed(world.seed(0, 1), world.frame(0))
    found = tracker.step(world.frame(1)).labels
    np.testing.assert_array_equal(found, np.roll(world.labels(0) == 1, 4, axis=1))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:build", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("own_flow:absent", "AttributeError: module 'own_flow' has no attribute 'absent'"),
        ("own_flow:number", "TypeError: 'int' object is not callable"),
        ("own_flow:nothing", "expected a FlowEstimator, got str"),
        ("own_flow:failing", "ValueError: weights of own_flow: nowhere"),
    ],
)
def test_a_backend_that_cannot_be_made_is_said_in_one_line(name: str, said: str) -> None:
    with pytest.raises(RuntimeError) as refused:
        build_flow(FlowConfig(backend=name))
    assert str(refused.value) == f"flow.backend {name}: {said}"


@pytest.mark.parametrize("name", ["Dis", "", "own_flow", "own_flow:", ":build", "own flow:build", "a:b:c"])
def test_a_name_that_is_no_backend_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="flow.backend must be auto, dis, flownet, raft, epicflow or"):
        from_flat({"flow.backend": name})
