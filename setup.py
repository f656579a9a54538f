# SPDX-License-Identifier: Apache-2.0
"""Lets pip install what CMakeLists.txt describes, messages included; pyproject.toml has all the rest.

ROS comes from the environment that is sourced (AMENT_PREFIX_PATH). Where none is, it comes from Python wheels, and
only then the wheels of cmake/ros_wheels_*.txt are required: the two do not mix.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
NAME = "maskrnn_ros"

DEPENDENCIES = [
    "PyYAML",
    "jinja2",
    "matplotlib",
    "numpy>=1.21",
    "onnxruntime",
    "opencv-python-headless<5",  # 5 changed the type numbers that cv_bridge uses
    "pillow",
    "rosbags>=0.11.9",  # the first seen to check the checksums of mcap files
    "safetensors",
    "tqdm",
]
# Of what CMake installs: what names paths of this machine, and what only C++ packages use.
LEFT_OUT = {"include", "cmake", "parent_prefix_path", "__pycache__"}
# What the generators of a sourced ROS import. pip's isolated builds do not see the system's packages.
SOURCED_BUILD = ["catkin_pkg", "empy>=3.3,<4", "lark", "numpy"]


def sourced_prefixes() -> list[str]:
    """The prefixes of the sourced ROS; those of Python environments with the wheels are none."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [p for p in prefixes if not Path(p, "pyvenv.cfg").exists()]


def wheels(name: str) -> list[str]:
    lines = (HERE / "cmake" / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def wheels_prefix() -> str:
    """Where the wheels are. In an isolated build that is not sys.prefix."""
    spec = find_spec("rosidl_pycommon")
    if spec is None or spec.origin is None:
        raise SystemExit("error: no ROS 2: AMENT_PREFIX_PATH is not set and the ROS wheels are not installed")
    return str(Path(spec.origin).parents[4])


class BuildWithCMake(build_py):
    """Runs CMake, installs into a staging folder and packs what is there.

    An editable install takes the Python sources from the checkout and only the generated modules from there;
    `maskrnn_ros/__init__.py` joins the two.
    """

    def run(self) -> None:
        kept = os.environ.get("MASKRNN_ROS_BUILD_DIR")
        work = Path(kept or tempfile.mkdtemp(prefix=f"{NAME}-build-")).resolve()
        self.stage = Path(self.get_finalized_command("build").build_base, "stage").resolve()
        shutil.rmtree(self.stage, ignore_errors=True)
        try:
            self.cmake(work)
        finally:
            if not kept:
                shutil.rmtree(work, ignore_errors=True)
        self.pack()

    def cmake(self, work: Path) -> None:
        environment = dict(os.environ)
        tools = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        cmake = shutil.which("cmake", path=tools)
        if cmake is None:
            raise SystemExit("error: cmake is missing")
        configure = [
            cmake,
            f"-S{HERE}",
            f"-B{work}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
            f"-DCMAKE_INSTALL_PREFIX={self.stage}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-DCMAKE_PROJECT_INCLUDE={HERE / 'cmake' / 'pip_install.cmake'}",
        ]
        if not sourced_prefixes():
            environment["AMENT_PREFIX_PATH"] = wheels_prefix()
            configure.append(f"-DCMAKE_PREFIX_PATH={wheels_prefix()}")
        build = [cmake, "--build", str(work), "--target", "install", "--parallel", str(os.cpu_count() or 1)]
        for command in (configure, build):
            if subprocess.run(command, env=environment).returncode != 0:
                raise SystemExit(f"error: failed: {' '.join(command)}")  # setuptools goes on after an Exception

    def pack(self) -> None:
        (python,) = self.stage.glob(f"l*/**/{NAME}/__init__.py")
        python = python.parent
        environment = Path(sysconfig.get_path("platlib")).relative_to(sysconfig.get_path("data"))
        files: dict[str, list[str]] = {}
        for path in sorted(self.stage.rglob("*")):
            relative = path.relative_to(self.stage)
            if not path.is_file() or LEFT_OUT.intersection(relative.parts):
                continue
            if path.suffix == ".c" or path.parent.suffix == ".egg-info":
                continue
            if python not in path.parents:
                files.setdefault(str(relative.parent), []).append(str(path))
                continue
            module = path.relative_to(python.parent)
            if not self.editable_mode:
                target = Path(self.build_lib, module)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
            elif not (HERE / module).exists():
                files.setdefault(str(environment / module.parent), []).append(str(path))
        self.distribution.data_files[:] = files.items()

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        if self.editable_mode:
            return []
        return [str(path) for path in Path(self.build_lib).rglob("*") if path.is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(HERE)) for path in (HERE / NAME).rglob("*.py")]


class PlatformDistribution(Distribution):
    """The wheel holds libraries and data files, both of them known only after CMake ran."""

    def has_ext_modules(self) -> bool:
        return True

    def has_data(self) -> bool:
        return True

    has_data_files = has_data


sourced = bool(sourced_prefixes())
setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildWithCMake},
    packages=[NAME],
    package_dir={"": "."},  # makes an editable install a plain path to the checkout
    data_files=[],
    setup_requires=SOURCED_BUILD if sourced else wheels("ros_wheels_build.txt"),
    install_requires=DEPENDENCIES + ([] if sourced else wheels("ros_wheels_run.txt")),
)
