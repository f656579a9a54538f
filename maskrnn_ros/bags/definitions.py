# SPDX-License-Identifier: Apache-2.0
"""Whether the messages of a bag are of the definition that is installed: read as another one they are nonsense.

DDS and ``ros2 bag play`` look at the name of a type alone: bytes of an older definition are read as the newer one, with
luck into an error, without it into wrong values. The type hash (REP-2011) tells them apart.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from rosbags.interfaces import MessageDefinitionFormat
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

from maskrnn_ros.installed import share_path

OURS = "maskrnn_ros/"
"""How the names of our own types begin."""


def difference(connection: Any) -> str:
    """Why messages of a connection must not be read as what is installed, one line; empty where they may be.

    Where a hash is known on one side only there is nothing to say, except of our own types, which have changed: a bag
    that holds no definition of them is not trusted.

    Args:
        connection: ``rosbags.interfaces.Connection``.
    """
    msgtype = connection.msgtype
    installed, recorded = installed_hash(msgtype), recorded_hash(connection)
    if installed and recorded and installed != recorded:
        return (
            f"it was recorded with another definition of {msgtype}, {recorded[:15]}..., installed is "
            f"{installed[:15]}...; read it with the version of the package that recorded it"
        )
    if installed and not recorded and msgtype.startswith(OURS):
        return f"it was recorded without the definition of {msgtype}, which differs between versions"
    return ""


def recorded_hash(connection: Any) -> str:
    """Type hash of the messages of a connection, as ``RIHS01_...``; empty where the bag says nothing of it."""
    if connection.digest.startswith("RIHS"):
        return str(connection.digest)
    parse = {MessageDefinitionFormat.MSG: get_types_from_msg, MessageDefinitionFormat.IDL: _types_from_idl}
    if connection.msgdef.format not in parse:
        return ""
    try:
        store = get_typestore(Stores.EMPTY)
        store.register(parse[connection.msgdef.format](connection.msgdef.data, connection.msgtype))
        return store.hash_rihs01(connection.msgtype)
    except (TypesysError, KeyError):  # what cannot be read says nothing
        return ""


def _types_from_idl(text: str, name: str) -> Any:
    return get_types_from_idl(text)


@functools.cache
def installed_hash(msgtype: str) -> str:
    """Type hash of an installed message type, such as "sensor_msgs/msg/Image"; empty where it is not known."""
    package, _, name = msgtype.partition("/msg/")
    try:
        folder = share_path(package) / "msg"
    except (LookupError, ValueError):
        return ""
    described = folder / f"{name}.json"
    if described.is_file():  # Iron and newer
        entries = json.loads(described.read_text())["type_hashes"]
        return next((str(entry["hash_string"]) for entry in entries if entry["type_name"] == msgtype), "")
    store = get_typestore(Stores.ROS2_HUMBLE)
    for file in sorted(folder.glob("*.msg")):
        known = get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}")
        store.register({other: definition for other, definition in known.items() if other not in store.fielddefs})
    try:
        return store.hash_rihs01(msgtype)
    except KeyError:  # it is not there, or needs messages of a package that is not among the common ones
        return ""
