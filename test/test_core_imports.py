# SPDX-License-Identifier: Apache-2.0
"""The core runs without ROS, and each of the two outer packages is imported in one place only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "maskrnn_ros"

IMPORT_ALL = """
import importlib, pkgutil, sys
for blocked in ("rclpy", "rosidl_runtime_py", "sensor_msgs", "std_msgs", "cv_bridge", "message_filters"):
    sys.modules[blocked] = None
import maskrnn_ros
generated = ("maskrnn_ros.ros", "maskrnn_ros.msg", "maskrnn_ros.srv")
skipped = (*generated, "maskrnn_ros.__main__")

def names(path, prefix):
    for module in pkgutil.iter_modules(path, prefix):
        if module.name not in skipped:
            yield module.name
            if module.ispkg:
                yield from names(importlib.import_module(module.name).__path__, module.name + ".")

imported = list(names([sys.argv[1]], "maskrnn_ros."))
for name in imported:
    importlib.import_module(name)
print(*imported)
"""


def imported_packages(path):
    """Top-level packages that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_core_modules_import_without_ros():
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(PACKAGE)], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert result.returncode == 0, result.stderr
    imported = result.stdout.split()
    assert {"maskrnn_ros.types", "maskrnn_ros.files", "maskrnn_ros.bags.read"} <= set(imported)


@pytest.mark.parametrize(("package", "folder"), [("rosbags", "bags"), ("rclpy", "ros")])
def test_package_is_imported_in_its_folder_only(package, folder):
    files = [path for path in PACKAGE.rglob("*.py") if package in set(imported_packages(path))]
    stray = [str(path) for path in files if (PACKAGE / folder) not in path.parents]
    assert not stray, f"{package} belongs into {folder}/"
    assert files, "the test looks in the right place"
