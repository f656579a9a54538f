# SPDX-License-Identifier: Apache-2.0
"""The paper profile: counts and shapes, weights, training through time, the follower."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import world
from safetensors.torch import save_file
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from training_bench import davis

from maskrnn_ros import cli
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.evaluation.presets import PAPER_PRESETS, apply_preset
from maskrnn_ros.labels import write_labels
from maskrnn_ros.paper import follower as paper_follower
from maskrnn_ros.paper import training as paper
from maskrnn_ros.paper import vgg
from maskrnn_ros.paper.follower import PaperFollower, check_paper, parts_of, tune
from maskrnn_ros.paper.network import PaperNet, PaperParts, Stream, start_from_vgg16
from maskrnn_ros.paper.training import PaperOptions, gated, loss_of, unroll_paper
from maskrnn_ros.paper.windows import PaperWindow, Windows, magnitudes_of, window_of
from maskrnn_ros.types import Frame, Seed

SIZE = (64, 96)


def small_net(monkeypatch: pytest.MonkeyPatch) -> PaperNet:
    """The same network, narrow: of every layer an eighth or less."""
    from maskrnn_ros.paper import network as model

    monkeypatch.setattr(model, "BLOCKS", ((8, 8), (12, 12), (16, 16, 16), (16, 16, 16), (16, 16, 16)))

    class Small(model.Localization):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.layers = torch.nn.Sequential(torch.nn.Linear(16 * 49, 32), torch.nn.ReLU())
            self.deltas = torch.nn.Linear(32, 4)

    monkeypatch.setattr(model, "Localization", Small)
    torch.manual_seed(0)
    return PaperNet()


def a_window(frames: int) -> PaperWindow:
    """A square that moves by two pixels a frame over noise, with its exact flow."""
    random = np.random.default_rng(0)
    ground = random.integers(0, 120, (*SIZE, 3), np.uint8)
    images, masks = [], []
    for t in range(frames + 2):
        image, mask = ground.copy(), np.zeros(SIZE, bool)
        mask[20:44, 10 + 2 * t : 40 + 2 * t] = True
        image[mask] = (220, 60, 30)
        images.append(image)
        masks.append(mask)

    def flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        return np.stack([np.full(SIZE, -2.0, np.float32), np.zeros(SIZE, np.float32)])

    return window_of(np.stack(images), np.stack(masks), flow, random, is_causal=False)


def test_the_network_has_the_papers_size() -> None:
    with torch.device("meta"):
        net = PaperNet()
        streams = sum(parameter.numel() for part in (net.appearance, net.motion) for parameter in part.parameters())
        assert streams == 29_835_714
        assert sum(parameter.numel() for parameter in net.localization.parameters()) == 119_562_244
        image = torch.zeros(1, 3, 480, 854, dtype=torch.uint8)
        with FlopCounterMode(display=False) as counter:
            net(image, torch.zeros(1, 480, 854), torch.zeros(1, 2, 480, 854), None)
    assert round(counter.get_total_flops() / 2e9) == 257


def test_the_trunk_is_torchvisions_vgg16() -> None:
    from torchvision.models import vgg16

    with torch.device("meta"):
        theirs = {name: tuple(value.shape) for name, value in vgg16(weights=None).features.state_dict().items()}
        ours = Stream(3).convolutions()
    assert {f"features.{name}": shape for name, shape in theirs.items()} == vgg.shapes()
    assert [tuple(layer.weight.shape) for layer in ours] == [
        shape for name, shape in vgg.shapes().items() if name.endswith("weight")
    ]


def test_side_outputs_of_odd_sizes_come_back_to_the_size_of_the_image() -> None:
    with torch.device("meta"):
        stream = Stream(4)
        image = torch.zeros(1, 4, 481, 853)
        assert [tuple(output.shape[1:]) for output in stream.trunk(image)] == [
            (128, 240, 426),
            (256, 120, 213),
            (512, 60, 106),
            (512, 30, 53),
        ]
        assert tuple(stream(image)[0].shape) == (1, 1, 481, 853)


def random_vgg() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (2 / max(1, np.prod(shape[1:]))) ** 0.5
        for name, shape in vgg.shapes().items()
    }


def test_keras_weights_answer_the_same_in_the_other_format() -> None:
    """Keras: BGR minus its mean; here: RGB, torchvision's mean and deviation. The layers differ by known factors."""
    keras = {name: value * 10 for name, value in random_vgg().items()}
    found = vgg._scaled(vgg._rgb(keras))
    image = torch.randint(0, 256, (1, 3, 40, 40), generator=torch.Generator().manual_seed(1)).float()
    theirs = image.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    ours = (image / 255 - torch.tensor(vgg.MEAN)[:, None, None]) / torch.tensor(vgg.STD)[:, None, None]
    for number, rms in zip((0, 2), vgg._RMS, strict=False):
        weight, bias = f"features.{number}.weight", f"features.{number}.bias"
        theirs = functional.conv2d(theirs, keras[weight], keras[bias], padding=1).relu()
        ours = functional.conv2d(ours, found[weight], found[bias], padding=1).relu()
        inside = theirs[..., 4:-4, 4:-4]
        torch.testing.assert_close(ours[..., 4:-4, 4:-4] * rms, inside, rtol=1e-3, atol=1e-3 * float(inside.max()))


def test_an_onnx_graph_becomes_a_file_that_loads(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = random_vgg()
    nodes = [
        onnx.helper.make_node("Conv", [f"x{n}", f"features.{n}.weight", f"features.{n}.bias"], [f"y{n}"])
        for n in vgg.NUMBERS
    ]
    tensors = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    for count in (13, 12):
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes[:count], "vgg", [], [], tensors))
        onnx.save(model, tmp_path / f"{count}.onnx")
    assert vgg.convert_vgg16(tmp_path / "13.onnx", tmp_path / "out.safetensors") == 26
    found = vgg.load_vgg16(tmp_path / "out.safetensors")
    torch.testing.assert_close(found["features.28.bias"] * vgg._RMS[-1], weights["features.28.bias"])
    with pytest.raises(ValueError, match=r"features.28.weight \(512, 512, 3, 3\), got none"):
        vgg.convert_vgg16(tmp_path / "12.onnx", tmp_path / "out.safetensors")


def test_weights_that_are_not_vgg16_are_refused(tmp_path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 4, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(RuntimeError, match=r"expected features.0.weight \(64, 3, 3, 3\), got \(64, 4, 3, 3\)"):
        vgg.load_vgg16(tmp_path / "other.safetensors")
    with pytest.raises(RuntimeError, match="cannot be read"):
        vgg.load_vgg16(tmp_path / "none.safetensors")


def test_vgg16_alone_is_no_trained_network(tmp_path) -> None:
    save_file(random_vgg(), tmp_path / "vgg16.safetensors")
    with pytest.raises(RuntimeError, match="do not fit PaperNet"):
        paper.load_paper(str(tmp_path / "vgg16.safetensors"), torch.device("cpu"))
    net = paper.begin_paper(str(tmp_path / "vgg16.safetensors"), torch.device("cpu"))
    torch.testing.assert_close(net.motion.convolutions()[12].weight.detach(), random_vgg()["features.28.weight"])


def test_mask_and_motion_begin_as_brightness() -> None:
    weights, net = random_vgg(), PaperNet.__new__(PaperNet)
    torch.nn.Module.__init__(net)
    net.appearance, net.motion = Stream(4), Stream(3)
    start_from_vgg16(net, weights)
    first, grey = weights["features.0.weight"], weights["features.0.weight"].mean(dim=1)
    torch.testing.assert_close(net.appearance.convolutions()[0].weight.detach()[:, :3], first)
    torch.testing.assert_close(net.appearance.convolutions()[0].weight.detach()[:, 3], grey)
    for channel in range(3):
        torch.testing.assert_close(net.motion.convolutions()[0].weight.detach()[:, channel], grey)
    torch.testing.assert_close(net.motion.convolutions()[12].weight.detach(), weights["features.28.weight"])


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_go_back_six_frames_unless_the_prior_is_cut_off(monkeypatch, detach) -> None:
    net, window = small_net(monkeypatch), a_window(7)
    looks = list(unroll_paper(net, window, detach=detach))
    for found in looks:
        found.output.log_odds.retain_grad()
    loss_of(looks[-1], window.truth[-1])["mask"].backward()
    first = looks[0].output.log_odds.grad
    assert looks[-1].output.log_odds.grad.abs().max() > 0
    if detach:
        assert first is None or not first.any()
    else:
        assert first is not None and first.any()


def test_the_window_moves_with_its_flow() -> None:
    window = a_window(3)
    assert len(window.images) == 3
    moved = torch.roll(window.truth[0], 2, dims=1)
    assert torch.equal(window.truth[1], moved)
    assert window.magnitudes.unique().tolist() == [2.0]


def test_an_unknown_next_image_is_taken_to_move_as_the_last() -> None:
    back = torch.stack([torch.full((2, 2), 3.0), torch.full((2, 2), 4.0)])
    assert magnitudes_of(back).unique().tolist() == [5.0]
    assert magnitudes_of(back, back * 2)[1].unique().tolist() == [10.0]


def test_the_gate_is_the_enlarged_box() -> None:
    inside = gated(torch.ones(40, 40), torch.tensor([[10.0, 10.0, 26.0, 18.0]]), 1.25)
    rows, columns = inside.nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max()) + 1) == (9, 19)
    assert (int(columns.min()), int(columns.max()) + 1) == (8, 28)


def test_the_real_network_fits_one_frame() -> None:
    """VGG-16 in full width; ImageNet's weights are not at hand, so the first ones are random."""
    torch.manual_seed(0)
    net, window = PaperNet(), a_window(1)
    optimizer = torch.optim.Adam(net.groups(1e-5, 100.0), fused=True)
    figures = []
    for _ in range(12):
        (found,) = unroll_paper(net, window)
        parts = loss_of(found, window.truth[0])
        optimizer.zero_grad()
        (parts["mask"] + parts["box"]).backward()
        optimizer.step()
        figures.append(float(parts["mask"].detach()))
    found_mask, truth = found.probability >= 0.5, window.truth[0] >= 0.5
    assert figures[-1] < figures[0] / 3
    assert (found_mask & truth).sum() / (found_mask | truth).sum() > 0.8


def test_both_stages_train_and_go_on(monkeypatch, tmp_path) -> None:
    small_net(monkeypatch)
    folder = tmp_path / "stills"
    _write_stills(folder)
    monkeypatch.setattr(paper, "begin_paper", lambda path, device: PaperNet())
    for length in (1, 3):
        out = tmp_path / str(length)
        options = {"out": out, "stills": (folder,), "size": SIZE, "length": length, "batch": 1, "device": "cpu"}
        file = paper.train_paper(PaperOptions(**options, steps=2))
        assert file.is_file()
        assert len((out / "log.csv").read_text().splitlines()) == 2
        with pytest.raises(ValueError, match="--resume expected steps = 2, found 4"):
            paper.train_paper(PaperOptions(**options, steps=4, resume=True))


@pytest.mark.parametrize(("stage", "length"), [("still", 1), ("recurrent", 7)])
def test_each_stage_has_a_command_and_goes_on(stage, length, monkeypatch, tmp_path) -> None:
    small_net(monkeypatch)
    _write_stills(tmp_path / "stills")
    given = list[PaperOptions]()
    train = paper.train_paper
    monkeypatch.setattr(paper, "begin_paper", lambda path, device: PaperNet())
    monkeypatch.setattr(paper, "train_paper", lambda options: given.append(options) or train(options))
    numbers = {"--steps": 2, "--batch": 1, "--validate-every": 1, "--threads": 1, "--seed": 3, "--box-weight": 0.1}
    values = {**numbers, "--rate": 1e-4, "--size": "96x64", "--device": "cpu", "--stills": tmp_path / "stills"}
    arguments = ["train", stage, *(str(word) for pair in values.items() for word in pair)]
    assert cli.main([*arguments, "--out", str(tmp_path / "one"), "--autocast", "--channels-last"]) == 0
    assert cli.main([*arguments, "--profile", "paper", "--out", str(tmp_path / "one"), "--resume"]) == 0
    assert (tmp_path / "one" / "network.safetensors").is_file()
    (first, again) = given
    assert (first.length, first.size, first.rate, first.init) == (length, SIZE, 1e-4, "torchvision")
    assert first.autocast and first.channels_last and again.resume and not again.autocast


@pytest.mark.parametrize("stage", ["still", "recurrent"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--root", "DAVIS", "--profile", "fast"], "`maskrnn train decoder` took its place"),
        (["--root", "DAVIS", "--init", "shipped"], "--init takes a file or torchvision: no weights of the paper's"),
        (["--root", "DAVIS", "--size", "854"], "--size takes WxH, e.g. 854x480, got '854'"),
        (["--root", "DAVIS", "--held-out", "c"], "expected the held out clip c in "),
        (["--root", "DAVIS", "--held-out", "a,b"], "frames (--root) or stills (--stills), found none"),
        ([], "frames (--root) or stills (--stills), found none"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(stage, arguments, said, tmp_path, capsys) -> None:
    root = str(davis(tmp_path / "davis"))
    arguments = [root if word == "DAVIS" else word for word in arguments]
    try:
        status = cli.main(["train", stage, "--out", str(tmp_path / "out"), *arguments])
    except SystemExit as ended:  # of argparse
        status = ended.code
    assert status == 2 and not (tmp_path / "out").exists()
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_clips_that_are_shorter_than_a_window_are_refused_and_nothing_hangs(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"expected clips of 9 frames \(--root\) or stills \(--stills\), found none"):
        Windows(davis(tmp_path), (), (), SIZE, 7, 0)
    window = Windows(davis(tmp_path), (), (), SIZE, 1, 0).draw(0)
    assert window.images.shape == (1, 3, *SIZE) and window.truth.any()


def test_ids_that_do_not_fit_are_refused(tmp_path) -> None:
    davis(tmp_path)
    for path in (tmp_path / "Annotations").glob("*/*.png"):
        write_labels(path, world.labels(0) * 300)
    with pytest.raises(ValueError, match="expected ids up to 254, found"):
        Windows(tmp_path, (), (), SIZE, 1, 0).draw(0)


def _write_stills(folder) -> None:
    import cv2

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(2):
        image, mask = random.integers(0, 120, (96, 128, 3), np.uint8), np.zeros((96, 128), np.uint8)
        mask[20:70, 30:90] = 255
        image[mask > 0] = 200
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("maskrnn", PaperParts()),
        ("masktrack", PaperParts(localization=False, average=True)),
        ("osvos", PaperParts(flow_stream=False, localization=False)),
    ],
)
def test_presets_are_settings_of_the_network(name, parts, tmp_path) -> None:
    (tmp_path / "net.safetensors").touch()
    config = apply_preset(name, with_values(Config(), network__weights=str(tmp_path / "net.safetensors")))
    assert parts_of(config) == parts
    assert name in PAPER_PRESETS


def test_the_average_is_that_of_both_streams(monkeypatch) -> None:
    net, window = small_net(monkeypatch), a_window(1)
    given = window.images, window.mask[None], window.magnitudes, None
    one = net(*given, PaperParts(flow_stream=False)).log_odds
    with torch.no_grad():
        net.fusion.weight.copy_(torch.tensor([2.0, 0.0])[None, :, None, None])
    torch.testing.assert_close(net(*given, PaperParts()).log_odds, 2 * one)
    average = net(*given, PaperParts(average=True)).log_odds
    motion = net.motion(torch.cat([torch.log1p(window.magnitudes), window.mask[None, None] - 0.5], dim=1))[0][:, 0]
    torch.testing.assert_close(average, (one + motion) / 2)


def test_the_follower_tunes_a_net_of_its_own_for_each_object(monkeypatch) -> None:
    base = small_net(monkeypatch).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    monkeypatch.setattr(paper_follower, "load_paper", lambda path, device: base)
    config = with_values(
        Config(),
        network__weights="x.safetensors",
        adaptation__method="finetune",
        adaptation__rate=1e-4,
        adaptation__steps=60,
        device="cpu",
        network__localization=True,
    )
    window = a_window(3)
    frames = [Frame(stamp_ns=t + 1, image=image.permute(1, 2, 0).numpy()) for t, image in enumerate(window.images)]
    labels = (window.truth[0].numpy() * 3).astype(np.int32)
    follower = PaperFollower(config)
    assert (follower.seed(Seed(stamp_ns=1, labels=labels), frames[0]) == labels).all()
    found = follower.step(frames[1])
    truth = window.truth[1].numpy() > 0.5
    assert ((found == 3) & truth).sum() / ((found == 3) | truth).sum() > 0.7
    assert follower.tuning_s > 0
    follower.step(frames[2])
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_tuning_draws_the_same_numbers_again(monkeypatch) -> None:
    window = a_window(1)
    image, share = window.images[0].permute(1, 2, 0).numpy(), window.truth[0].numpy()
    config = with_values(Config(), network__weights="x.safetensors", adaptation__rate=1e-4, adaptation__steps=3)
    nets = [small_net(monkeypatch) for _ in range(2)]
    for net in nets:
        tune(net, image, share, np.zeros((*SIZE, 2), np.float32), config, torch.device("cpu"))
    one, other = (net.state_dict() for net in nets)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "ships no weights: network.weights must be a .safetensors file; begin with config/paper.yaml"),
        ({"network__weights": "shipped"}, "ships no weights: network.weights must be a .safetensors file"),
        ({"network__weights": "x.safetensors"}, "needs adaptation.method finetune or none, got recursive"),
        (
            {"network__weights": "x.safetensors", "adaptation__method": "finetune"},
            "needs adaptation.rate <= 0.001, the paper's is 1.0e-5, got 0.002",
        ),
    ],
)
def test_settings_of_the_other_profile_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_paper(with_values(Config(), **changes))


def test_boxes_are_pooled_where_they_are_whatever_the_map_is_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[torch.Tensor]()

    def pooled(maps: torch.Tensor, rois: torch.Tensor, cells: int, scale: float) -> torch.Tensor:
        seen.extend((maps, rois))
        return torch.zeros(len(rois), maps.shape[1], cells, cells)

    net = small_net(monkeypatch).localization
    monkeypatch.setattr("maskrnn_ros.paper.network.roi_pool", pooled)
    boxes = torch.tensor([[301.0, 203.0, 853.0, 479.0]])  # in bfloat16 300, 203, 852, 480
    net(torch.zeros(1, 16, 30, 53, dtype=torch.bfloat16), boxes)
    assert torch.equal(seen[1][:, 1:], boxes) and seen[0].dtype == seen[1].dtype == torch.float32
