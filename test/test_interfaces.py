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
    "maskrnn_ros/msg/InstanceEvent": "RIHS01_fbf1ca4189ebee3fac786fee33f9bf2806d4fd99a2fce38e62b6c5ff14d99680",
    "maskrnn_ros/msg/InstanceMask": "RIHS01_442446d23a7d8dcd03541f80071dddce24ca08206e53afd0a773d49f7fa76134",
    "maskrnn_ros/msg/InstanceMaskArray": "RIHS01_6fc5baa6174ea76ac42018c55caaa0ed3e81caa8434ccc1d9d05c985e0d5edd3",
    "maskrnn_ros/msg/InstancePosition": "RIHS01_ef1841aabefbf0b33c94d01e2777ce249af8e914230732f3e6ae7bef7887441c",
    "maskrnn_ros/msg/InstancePositionArray": "RIHS01_47b2819b8b025455308136d0c14197b57908d53adc13774cbd159d1434f92b90",
    "maskrnn_ros/msg/SeedResult": "RIHS01_683a3653a306a9ae1709429ed55cc0ffa9e9bb23bb2022376523614451f8a9d0",
    "maskrnn_ros/msg/TrackerStatus": "RIHS01_45cc22f2c515c8ec6dee963bfa4c609873af1743696f3321bf00dde5c7d6eca0",
    "maskrnn_ros/srv/AddInstances": "RIHS01_598899cbdb962961696735cb66f3454ab04e7836ced88071cf9e828d21d87aaa",
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
