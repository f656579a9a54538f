# SPDX-License-Identifier: Apache-2.0
"""The learned prompt segmenter in the node, and ``maskrnn seed --point`` and ``--box``."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from node_bench import NodeBench  # skips where ROS is absent, hence first

# isort: split

from geometry_msgs.msg import Point as PointMessage
from prompt_bench import weights
from test_prompt_inputs import APPLIED, BLUE, RED, REJECTED, Bench, picture

from maskrnn_ros.cli import main
from maskrnn_ros.model.torch.weights import load_trunk
from maskrnn_ros.msg import SeedResult
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.prompts.learned import LearnedPrompts
from maskrnn_ros.prompts.torch.graph import load_prompts
from maskrnn_ros.prompts.torch.net import TorchLook


def test_a_click_becomes_what_the_network_finds_there_or_is_refused_as_unsure(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = weights(tmp_path)
    learned = {"prompts.backend": "learned", "prompts.weights": str(file)}
    with Bench(**learned, **{"prompts.min_confidence": 0.0}) as bench:
        clicks = bench.publisher(PointMessage, "/tracker/click")
        bench.show()
        clicks.publish(PointMessage(x=40.5, y=50.5))
        bench.outcome(SeedResult.STATUS_PENDING)
        bench.show()
        bench.outcome(APPLIED)
        look = TorchLook(load_prompts(file), load_trunk())
        expected = LearnedPrompts(look)(picture(), Prompt(points=(Point(x=40.5, y=50.5),)))
        assert expected.any() and ((bench.labels == 1) != expected).mean() < 0.01
    with Bench(**learned, **{"prompts.min_confidence": 1.0}) as bench:
        clicks = bench.publisher(PointMessage, "/tracker/click")
        bench.show()
        clicks.publish(PointMessage(x=40.5, y=50.5))
        bench.outcome(SeedResult.STATUS_PENDING)
        assert not bench.show().instances
        reason = bench.outcome(REJECTED).reason
        assert reason.startswith("instance 1: point (40.5, 50.5): unsure (0.") and "click again or draw" in reason


def test_the_seed_command_takes_points_and_a_box(capsys: pytest.CaptureFixture[str]) -> None:
    service = ["--service", "/tracker/add_instances", "--timeout", "60"]
    with Bench() as bench:
        bench.show()
        for arguments, number, box in (
            (["--point", "40.5,50.5"], 1, RED),
            (["--box", f"{BLUE.x0},{BLUE.y0},{BLUE.x1},{BLUE.y1}", "--id", "5"], 5, BLUE),
        ):
            assert _sent(bench, [*arguments, *service]) == 0
            assert f"applied: ids {number};" in capsys.readouterr().out
            assert bench.iou(number, box) > 0.9
        assert _sent(bench, ["--box", "300,300,310,310", *service], shows=False) == 1
        assert "rejected: " in (said := capsys.readouterr().out) and "must overlap the 160x120 image" in said


def _sent(bench: NodeBench, arguments: list[str], shows: bool = True) -> int:
    statuses: list[int] = []
    command = threading.Thread(target=lambda: statuses.append(main(["seed", *arguments])))
    before = len([result for result in bench.results if result.status == SeedResult.STATUS_PENDING])
    command.start()
    if shows:
        bench.wait(lambda: len([r for r in bench.results if r.status == SeedResult.STATUS_PENDING]) > before)
        assert isinstance(bench, Bench)
        bench.show()
    bench.wait(lambda: not command.is_alive())
    return statuses[0]


def test_a_mask_has_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed", "--mask", "a.png", "--id", "3"]) == 1
    assert "--id is for --point and --box: a mask has its ids, got 3" in capsys.readouterr().err
