# SPDX-License-Identifier: Apache-2.0
"""The node as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

import rclpy.logging  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402

from maskrnn_ros.ros.logs import library_logs_to  # noqa: E402
from maskrnn_ros.ros.qos import client_node, spin_until  # noqa: E402

COMMAND = [sys.executable, "-m", "maskrnn_ros.tracker_node", "--ros-args"]
TIMEOUT_S = 120


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()  # does nothing where it has ended
    return process.returncode, errors


def test_ctrl_c_twice_ends_it_cleanly() -> None:
    process = start()
    assert process.stderr is not None
    lines = []
    while "active on" not in (line := process.stderr.readline()):
        lines.append(line)
        assert process.poll() is None, lines
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    status, errors = ended(process)
    assert status == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "device:=cuda:99"], "cannot configure: device 'cuda:99' was asked for, but torch sees"),
        (["-p", "device:=tpu"], "cannot configure: device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (["-p", "gate.enlarge:=0"], "tracker: gate.enlarge must be >= 1, got 0"),
        (["-p", "working_size:=3"], "tracker: working_size must be >= 64 (or 0), got 3"),
        (["-p", "autostart:=1"], "tracker: autostart must be bool, got int 1"),
        (["-p", "compile:=off"], "tracker: compile must be one of off, default, reduce-overhead, got bool False: YAML"),
        (["--params-file", "absent.yaml"], "absent.yaml"),
    ],
)
def test_a_bad_parameter_stops_the_start_in_one_line(arguments: list[str], message: str) -> None:
    status, errors = ended(start(*arguments))
    assert status == 1
    assert message in errors
    assert "Traceback" not in errors
    assert len([line for line in errors.splitlines() if "[rcl]" not in line]) == 1, errors  # rcl logs one of its own


def test_what_the_library_warns_of_is_in_the_log_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str, str]] = []

    def logger(name: str) -> SimpleNamespace:
        kinds = ("warning", "error")
        return SimpleNamespace(**{kind: lambda line, kind=kind: said.append((name, kind, line)) for kind in kinds})

    monkeypatch.setattr(rclpy.logging, "get_logger", logger)
    log = logging.getLogger("maskrnn_ros.model.load")
    log.warning("before")
    with library_logs_to("tracker"):
        log.info("of no interest")
        log.warning("engine %s", "torch")
        log.error("worse")
    log.warning("after")
    assert said == [("tracker", "warning", "engine torch"), ("tracker", "error", "worse")]


def test_ctrl_c_while_it_still_imports_ends_it_cleanly() -> None:
    script = Path(__file__).resolve().parent.parent / "scripts" / "tracker"
    process = subprocess.Popen([sys.executable, "-X", "importtime", str(script)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "numpy" not in process.stderr.readline():  # the first of what takes long
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, errors = ended(process)
    assert (status, "Traceback" in errors) == (0, False)


def test_a_misspelt_parameter_is_warned_of() -> None:
    process = start("-p", "workingsize:=64")
    assert process.stderr is not None
    while "parameter workingsize: unknown setting 'workingsize'" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)


def test_without_autostart_a_bad_device_fails_configure_and_leaves_it_running() -> None:
    process = start("-p", "autostart:=false", "-p", "device:=cuda:99", "-r", "__ns:=/manual")
    with client_node("operator") as (node, executor):
        client = node.create_client(ChangeState, "/manual/tracker/change_state")
        assert spin_until(executor, client.service_is_ready, TIMEOUT_S)
        request = ChangeState.Request()
        request.transition.id = Transition.TRANSITION_CONFIGURE
        # A call in the moment in which client and server find each other can be lost: then it is made again, as an
        # operator would; a node that hangs in configure answers none of them.
        for _ in range(5):
            future = client.call_async(request)
            if spin_until(executor, future.done, TIMEOUT_S / 5):
                break
        assert future.done() and not future.result().success
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, errors = ended(process)
    assert status == 0 and "cannot configure: device 'cuda:99'" in errors
