# SPDX-License-Identifier: Apache-2.0
"""The interfaces are frozen: a type hash that changes is a CHANGELOG entry and a major version.

Subscribers and bags of another hash do not match: whoever changes an interface breaks every user's recordings.
"""

import json
from pathlib import Path

import pytest

pytest.importorskip("ament_index_python", reason="needs ament_index_python")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from ament_index_python.packages import get_package_share_directory  # noqa: E402

FROZEN = {
    "maskrnn_ros/msg/InstanceEvent": "RIHS01_594be7c724436e2304448cd45e41d16d02b883cf2b98ae1ced386ddaa00ed551",
    "maskrnn_ros/msg/InstanceMask": "RIHS01_0ff10e7c2df4e196c9fd1242a5413a6ae5f1450e44ba9a013b67e89515012a7b",
    "maskrnn_ros/msg/InstanceMaskArray": "RIHS01_4aa8a137092568df950118984949201869ce19582506cb6e99b2500bacd7b713",
    "maskrnn_ros/msg/InstancePosition": "RIHS01_ef1841aabefbf0b33c94d01e2777ce249af8e914230732f3e6ae7bef7887441c",
    "maskrnn_ros/msg/InstancePositionArray": "RIHS01_9082fe2c07b63ddf911a8b6a23e1e98ff33a00a6de14219dea1e1a5731ec2f61",
    "maskrnn_ros/msg/Prompt": "RIHS01_a54bd616e65d5e3f50cbc2e363c9f14696e625d1aa351a864020891b81f5ad08",
    "maskrnn_ros/msg/SeedResult": "RIHS01_21855f4d0accccd04703b5b43c86a7def6c58f418da7da6c74d1aee58f3a1c7c",
    "maskrnn_ros/msg/TrackerStatus": "RIHS01_bb759622541328a3a779ea0fe831bb6da5fd92840cd4f5293032fcbe08c46031",
    "maskrnn_ros/srv/AddInstances": "RIHS01_f3142546a27331a30abf8bdb8a7d953feaf75b8dcc2d686c8aca4ffe3cf11448",
    "maskrnn_ros/srv/RemoveInstances": "RIHS01_7cbc043fa86568471b337c4cf42d72f581473ae4241454109195403f19d27d82",
}


def installed_hashes() -> dict[str, str]:
    share = Path(get_package_share_directory("maskrnn_ros"))
    found = {}
    for kind in ("msg", "srv"):
        for file in sorted((share / kind).glob("*.json")):
            entries = json.loads(file.read_text())["type_hashes"]
            found.update({entry["type_name"]: entry["hash_string"] for entry in entries})
    return {name: found[name] for name in found if name.startswith("maskrnn_ros/")}


@pytest.mark.parametrize("name", FROZEN)
def test_type_hashes_are_frozen(name: str) -> None:
    if not installed_hashes():
        pytest.skip("this ROS has no type hashes (before Iron)")
    assert installed_hashes()[name] == FROZEN[name]


def test_every_interface_is_frozen_here() -> None:
    if not installed_hashes():
        pytest.skip("this ROS has no type hashes (before Iron)")
    generated = ("_Request", "_Response", "_Event")
    assert {name for name in installed_hashes() if not name.endswith(generated)} == set(FROZEN)


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.parent.glob("*/*.[ms][sr][gv]")), ids=lambda f: f.name)
def test_every_field_is_explained(file: Path) -> None:
    for line in file.read_text().splitlines():
        if line and not line.startswith(("#", "-", " ")):
            assert "#" in line, f"{file.name}: {line}"
