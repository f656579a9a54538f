# SPDX-License-Identifier: Apache-2.0
"""The C++ of docs/examples.md, compiled with the generated message and run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import world

pytest.importorskip("ament_index_python", reason="needs ament_index_python")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from maskrnn_ros.masks import MaskEncoding, encode
from maskrnn_ros.types import Box

HERE = Path(__file__).resolve().parent
HEADER = "maskrnn_ros/msg/instance_mask_array.hpp"
MAIN = """
#include <iostream>
int main()
{
  maskrnn_ros::msg::InstanceMaskArray message;
  message.image_height = HEIGHT;
  message.image_width = WIDTH;
  maskrnn_ros::msg::InstanceMask one;
  INSTANCES
  message.instances.push_back(maskrnn_ros::msg::InstanceMask());  // not seen
  for (const auto label : label_image(message)) {std::cout << label << ' ';}
}
"""


def include_folders() -> list[str]:
    """Where the headers of our messages and of those that they hold are; none without those of ours."""
    found = []
    for package in ("maskrnn_ros", "sensor_msgs", "std_msgs", "builtin_interfaces", "rosidl_runtime_cpp"):
        try:
            prefix = Path(get_package_prefix(package))
        except PackageNotFoundError:
            return []
        found += [prefix / "include" / package, prefix / "include", prefix / "build" / "rosidl_generator_cpp"]
    for package in ("rosidl_runtime_c", "rosidl_typesupport_interface", "rcutils"):
        found += [folder / package for folder in found if (folder / package / package).is_dir()]
    is_there = any((folder / HEADER).is_file() for folder in found)
    return [str(folder) for folder in dict.fromkeys(found) if folder.is_dir()] if is_there else []


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_program_gives_the_label_image(tmp_path: Path) -> None:
    folders = include_folders()
    if not folders:
        pytest.skip("the generated C++ headers are not installed")
    (text,) = re.findall(r"```cpp\n(.*?)```", (HERE.parent / "docs" / "examples.md").read_text(), re.DOTALL)
    labels, instances = world.labels(0), ""
    for i in (1, 2):
        box = Box.of_mask(labels == i)
        assert box is not None
        data = encode((labels == i)[box.slices], None, MaskEncoding.RLE)
        values = {"id": i, "area": (labels == i).sum(), "encoding": int(MaskEncoding.RLE), "box.x_offset": box.x0}
        values |= {"box.y_offset": box.y0, "box.width": box.width, "box.height": box.height}
        instances += "".join(f"one.{name} = {value};\n" for name, value in values.items())
        instances += f"one.data = {{{', '.join(map(str, data))}}};\nmessage.instances.push_back(one);\n"
    main = MAIN.replace("HEIGHT", str(world.HEIGHT)).replace("WIDTH", str(world.WIDTH))
    source, program = tmp_path / "example.cpp", tmp_path / "example"
    source.write_text(text + main.replace("INSTANCES", instances))
    command = ["g++", "-std=c++17", "-Wall", f"-I{HERE.parent / 'include'}", *(f"-I{folder}" for folder in folders)]
    built = subprocess.run([*command, str(source), "-o", str(program)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    found = np.array(said.split(), np.int32).reshape(world.HEIGHT, world.WIDTH)
    np.testing.assert_array_equal(found, labels)
