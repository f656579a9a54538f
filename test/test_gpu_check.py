# SPDX-License-Identifier: Apache-2.0
"""tools/gpu_check.py on the CPU, at tiny sizes: all of its paths, and that it goes on after what fails."""

from __future__ import annotations

import dataclasses
import doctest
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import world

from maskrnn_ros.labels import write_labels
from maskrnn_ros.model.engine import Drafts, Merged

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.append(str(TOOLS))

import gpu_bench  # noqa: E402
import gpu_check  # noqa: E402
import gpu_checks  # noqa: E402

WITHOUT = """
import runpy, sys
for name in ("rclpy", "rosbags", "std_msgs", "sensor_msgs", "ament_index_python", "av", "onnx", "scipy"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> gpu_bench.Bench:
    work = tmp_path_factory.mktemp("work")
    root, raft = gpu_check.unpack(None, work, gpu_bench.QUICK.frames)  # the demo clip alone
    return gpu_bench.Bench(device="cpu", extent=gpu_bench.QUICK, root=root, raft=raft, work=work)


def run(name: str, bench: gpu_bench.Bench) -> list[dict[str, object]]:
    file = bench.work / f"{name}-report.json"
    gpu_check.run_check(name, bench, file, time.time() + 3600)
    found = json.loads(file.read_text())
    assert found["done"]
    assert gpu_check.table(name, found)
    return found["rows"]


def test_the_cpu_equals_itself(bench: gpu_bench.Bench) -> None:
    rows = {row["case"]: row for row in run("precision", bench)}
    exact = rows["float32, tabletop"]
    # torch beside ONNX Runtime, for which OpenCV cuts crops and rounds places
    assert abs(exact["J&F - CPU"]) < 1e-3 and exact["least IoU"] > 0.98 and exact["J"] > 0.3
    assert "error" not in rows["float16, tabletop"] and rows["float16, tabletop"]["IoU"] > 0.9


def test_times_are_taken_by_stage_for_every_scene(bench: gpu_bench.Bench) -> None:
    rows = run("times", bench)
    assert [row["case"] for row in rows] == [
        "flownet, 1 objects, 160x96",
        "flownet, 2 objects, 160x96",
        "raft, 1 objects, 160x96",
        "raft, 2 objects, 160x96",
        "flownet, 1 objects, 160x96, float16",
        "flownet, 2 objects, 160x96, float16",
    ]
    for row in rows:
        assert "error" not in row and row["flow ms"] > 0 and row["heads ms"] > 0 and row["ms"] > 0


def test_what_an_engine_says_otherwise_is_found(bench: gpu_bench.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskrnn_ros.model.torch.engine import TorchEngine

    (row,) = [row for row in run("engine", bench) if row["case"] == "float32"]
    assert row["calls"] > 20 and max(row[name] for name in ("step log_odds", "begin square", "learn key_code")) == 0
    assert 0 <= row["labels"] <= 0.0005
    original = TorchEngine.learn
    made: list[TorchEngine] = []

    def wrong(own: TorchEngine, *given: object) -> object:
        made.extend([] if own in made else [own])
        found = original(own, *given)
        return dataclasses.replace(found, target=found.target * 1.5) if own is made[0] else found

    monkeypatch.setattr(TorchEngine, "learn", wrong)
    (row,) = [row for row in run("engine", bench) if row["case"] == "float32"]
    assert row["error"] == "learn target is off by 0.5000 of its mean size, allowed 0.01"


def test_pixels_that_are_labelled_otherwise_are_found(bench: gpu_bench.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskrnn_ros.model.torch.engine import TorchEngine

    original = TorchEngine.merge_here

    def shifted(own: TorchEngine, drafts: Drafts) -> Merged:
        found = original(own, drafts)
        return dataclasses.replace(found, labels=np.roll(found.labels, 2, axis=1))

    monkeypatch.setattr(TorchEngine, "merge_here", shifted)
    (row,) = [row for row in run("engine", bench) if row["case"] == "float32"]
    assert str(row["error"]).endswith("of an image are labelled otherwise, allowed 0.05%") and row["labels"] > 0.001


@pytest.mark.parametrize(
    "name", ["machine", "copies", "flow", "onnxruntime", "compile", "commands", "more", "cpu", "engine"]
)
def test_a_check_runs_on_the_cpu(name: str, bench: gpu_bench.Bench) -> None:
    compile_ = torch.compile
    rows = run(name, bench)
    assert rows and [row for row in rows if "error" in row] == []
    assert torch.compile is compile_


def test_the_paper_profile_runs_both_stages_and_tunes(bench: gpu_bench.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskrnn_ros.paper import network as paper

    monkeypatch.setattr(paper, "BLOCKS", paper.BLOCKS)  # a quick run narrows them
    monkeypatch.setattr(paper, "Localization", paper.Localization)
    rows = run("paper", bench)
    assert [row["case"] for row in rows] == ["stage 1", "stage 2, 7 frames", "2 iterations, then frames"]
    assert [row for row in rows if "error" in row] == []


def test_decoder_and_prompts_are_trained_for_some_steps_and_go_on_from_a_checkpoint(bench: gpu_bench.Bench) -> None:
    rows = {str(row["case"]): row for row in run("training", bench)}
    assert list(rows) == ["decoder", "decoder, resumed", "prompts"]
    assert [row for row in rows.values() if "error" in row] == []
    assert rows["decoder, resumed"]["s a step"], "two steps were left"


def test_every_check_has_its_place_and_runs_once() -> None:
    assert sorted(gpu_check.CHECKS) == sorted(gpu_checks.CHECKS)
    assert gpu_check.chosen(["more", "precision"]) == [([("precision",)], 0.42), ([("more",)], 1.0)]


def test_what_ends_its_process_is_said_and_the_checks_after_it_run_in_another(tmp_path: Path) -> None:
    script = tmp_path / "checks.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "names = sys.argv[sys.argv.index('--check') + 1 : sys.argv.index('--until')]\n"
        "for name in names:\n"
        f"    file = pathlib.Path({str(tmp_path)!r}, name + '.json')\n"
        "    file.write_text(json.dumps({'rows': [{'case': 'begun'}], 'running': 'next'}))\n"
        "    if name == 'bad':\n"
        "        os._exit(3)\n"
        "    file.write_text(json.dumps({'rows': [{'case': 'all'}], 'done': True}))\n"
    )
    groups = [("first", "bad", "last"), ("beside",)]
    assert gpu_check.run_phase(groups, [sys.executable, str(script)], tmp_path, time.time() + 600) == 0
    found = {name: json.loads((tmp_path / f"{name}.json").read_text())["rows"] for group in groups for name in group}
    assert found["first"] == found["last"] == found["beside"] == [{"case": "all"}]
    assert found["bad"] == [{"case": "begun"}, {"case": "next", "error": "the process ended with 3"}]


def test_without_the_device_nothing_is_checked(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    ended = start(tmp_path, str(TOOLS / "gpu_check.py"), "--device", "cuda", "--only", "machine", "--out", "out")
    assert ended.returncode == 2
    assert ended.stderr.startswith("gpu_check: device 'cuda' was asked for, but torch sees 0 cuda devices")


def test_copies_are_counted_by_their_way_and_size() -> None:
    up = {"name": "Memcpy HtoD (Pageable -> Device)", "cat": "gpu_memcpy", "args": {"bytes": 1_000_000}}
    number = {"name": "Memcpy DtoH (Device -> Pageable)", "cat": "gpu_memcpy", "args": {"bytes": 4}}
    others = [
        {"name": "gemm", "cat": "kernel", "dur": 1500.0},
        {"name": "Memcpy DtoD (Device -> Device)", "args": {"bytes": 99}},
    ]
    others += [{"name": "cudaStreamSynchronize", "cat": "cuda_runtime"}]
    found = gpu_checks.transfers({"traceEvents": [up, up, number, *others, {"ph": "M"}]})
    assert (found["up"], found["down"], found["numbers up"], found["numbers down"]) == (2, 0, 0, 1)
    assert (found["up bytes"], found["down bytes"], found["kernels"]) == (2_000_000, 4, 1)
    assert (found["kernels ms"], found["waits"]) == (1.5, 1)
    assert doctest.testmod(gpu_checks).attempted and not doctest.testmod(gpu_checks).failed


def test_what_fails_or_is_not_there_is_said_and_the_rest_goes_on(bench: gpu_bench.Bench, tmp_path: Path) -> None:
    def cases(bench: gpu_bench.Bench):
        yield "good", lambda: {"ms": 1.0}
        yield "bad", lambda: 1 // 0
        yield "absent", lambda: absent()
        yield "far", lambda: far()
        yield "after", lambda: {"ms": 2.0}
        raise RuntimeError("while it was set up")

    def absent() -> dict[str, float]:
        raise gpu_bench.Skipped("no such provider")

    def far() -> dict[str, float]:
        raise gpu_bench.Beyond({"J": 0.5}, "J&F is +0.1000 from the CPU's, allowed 0.003")

    known = dict(gpu_checks.CHECKS)
    gpu_checks.CHECKS["made"] = cases
    try:
        rows = run("made", bench)
    finally:
        gpu_checks.CHECKS.clear()
        gpu_checks.CHECKS.update(known)
    assert rows == [
        {"case": "good", "ms": 1.0},
        {"case": "bad", "error": "ZeroDivisionError: integer division or modulo by zero"},
        {"case": "absent", "skipped": "no such provider"},
        {"case": "far", "J": 0.5, "error": "J&F is +0.1000 from the CPU's, allowed 0.003"},
        {"case": "after", "ms": 2.0},
        {"case": "-", "error": "RuntimeError: while it was set up"},
    ]
    text = gpu_check.table("made", {"rows": rows})
    assert "| after | 2.000 | - |" in text and "* absent: skipped: no such provider" in text


def test_a_check_that_needs_more_time_than_there_is_does_not_begin(
    bench: gpu_bench.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "LEAST_S", {"compile": 7200.0})
    gpu_check.run_check("compile", bench, tmp_path / "compile.json", time.time() + 3600)
    rows = json.loads((tmp_path / "compile.json").read_text())["rows"]
    assert len(rows) == 4
    assert all(row["skipped"].startswith("no time left: 3") and row["skipped"].endswith("take 7200") for row in rows)


def test_masks_that_are_not_the_cpus_are_an_error(bench: gpu_bench.Bench, tmp_path: Path) -> None:
    other = dataclasses.replace(bench, work=tmp_path)
    (clip,) = other.clips
    labels = np.stack([np.roll(clip.truth(number), 40, axis=1) for number in range(len(clip))])
    np.savez_compressed(tmp_path / f"cpu-{clip.name}-flownet.npz", score=0.05, labels=labels)
    with pytest.raises(gpu_bench.Beyond, match=r"J&F is \+0\.\d+ from the CPU's, allowed 0\.05") as caught:
        gpu_bench.compared(other, clip, precision="float32")
    assert caught.value.row["least IoU"] < 0.9


def test_the_script_runs_without_ros_in_processes_of_its_own_and_ends_with_1_after_a_failure(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "square").mkdir(parents=True)
    for number in range(3):
        picture = cv2.cvtColor(world.image(number), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(root / "JPEGImages/square" / f"{number:05d}.png"), picture)
        write_labels(root / "Annotations/square" / f"{number:05d}.png", world.labels(number))
    (tmp_path / "damaged.safetensors").write_bytes(b"none")
    tool = str(TOOLS / "gpu_check.py")
    pack = [tool, "--pack", "pack.tar", "--root", "root", "--sequences", "square", "--raft", "damaged.safetensors"]
    assert start(tmp_path, *pack, "--mib", "0.01").stderr.startswith("gpu_check: the pack would be ")
    assert not (tmp_path / "pack.tar").exists()
    packed = start(tmp_path, *pack)
    assert packed.returncode == 0, packed.stderr
    with tarfile.open(tmp_path / "pack.tar") as tar:
        assert {"Annotations", "JPEGImages", "raft_small.safetensors"} <= set(tar.getnames())
    only = ["--only", "machine", "times"]
    ended = start(tmp_path, tool, "--device", "cpu", "--quick", "--data", "pack.tar", "--out", "out", *only)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.rstrip().endswith("s; failed: times")
    found = json.loads((tmp_path / "out/gpu_check.json").read_text())
    assert found["machine"]["rows"][0]["device"] == "cpu"
    failed = ["error" in row for row in found["times"]["rows"]]
    assert failed == [False, False, True, True, False, False], "what needs no weights went on"
    assert "pack/raft_small.safetensors" in found["times"]["rows"][2]["error"]
    assert "## times" in (tmp_path / "out/gpu_check.md").read_text()


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


def test_the_command_line_comes_without_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    """Training and the commands on a borrowed machine: no package but those that the script's docstring names."""
    for command in (["train", "decoder"], ["train", "prompts"], ["train", "trunk"], ["track"], ["evaluate"]):
        ended = start(tmp_path, str(TOOLS.parent / "maskrnn_ros" / "__main__.py"), *command, "--help")
        assert ended.returncode == 0, ended.stderr
    ended = start(tmp_path, str(TOOLS.parent / "maskrnn_ros" / "__main__.py"), "evaluate", "--root", "nowhere")
    assert ended.returncode == 2 and "nowhere" in ended.stderr and "rosbags" not in ended.stderr
