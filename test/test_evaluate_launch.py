# SPDX-License-Identifier: Apache-2.0
"""evaluate.launch.py ends with the evaluation, and as it ended."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "launch" / "evaluate.launch.py"
NAMES = {
    "launch": ("LaunchContext", "LaunchDescription"),
    "launch.actions": ("DeclareLaunchArgument", "ExecuteProcess", "OpaqueFunction", "Shutdown"),
    "launch.events": (),
    "launch.events.process": ("ProcessExited",),
    "launch.substitutions": ("LaunchConfiguration",),
    "launch_ros": (),
    "launch_ros.substitutions": ("ExecutableInPackage",),
}


class Anything:
    """Stands in for the classes of launch: keeps what it is given."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments, self.named = arguments, named

    def perform(self, context: Any) -> str:
        return {"bag": "some_bag", "player": "maskrnn"}.get(self.arguments[0], "")


def loaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, classes in NAMES.items():
        module = ModuleType(name)
        for each in classes:
            setattr(module, each, type(each, (Anything,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("evaluate_launch", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_failed_evaluation_fails_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler of the process's end raises: launch answers with exit status 1, Shutdown alone with 0."""
    (process,) = loaded(monkeypatch)._evaluate(None)
    on_exit = process.named["on_exit"]
    assert type(on_exit(SimpleNamespace(returncode=0), None)).__name__ == "Shutdown"
    for status in (1, 2, 130, -9):
        with pytest.raises(RuntimeError, match=f"ended with exit status {status}"):
            on_exit(SimpleNamespace(returncode=status), None)
    assert process.named["cmd"][1:] == ["evaluate", "--online", "--bag", "some_bag", "--player", "maskrnn"]


def test_launch_ends_with_1_where_there_is_no_such_bag(tmp_path: Path) -> None:
    pytest.importorskip("launch_ros", reason="needs launch_ros")
    run = [
        "import sys",
        "from launch import LaunchDescription, LaunchService",
        "from launch.actions import IncludeLaunchDescription",
        "from launch.launch_description_sources import PythonLaunchDescriptionSource",
        f"source = PythonLaunchDescriptionSource({str(FILE)!r})",
        f"given = [('bag', {str(tmp_path / 'none')!r}), ('player', 'maskrnn')]",
        "service = LaunchService()",
        "include = IncludeLaunchDescription(source, launch_arguments=given)",
        "service.include_launch_description(LaunchDescription([include]))",
        "sys.exit(service.run())",
    ]
    environment = {**os.environ, "ROS_LOG_DIR": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-c", "\n".join(run)], env=environment, timeout=120)
    assert done.returncode == 1
