# SPDX-License-Identifier: Apache-2.0
"""Masks, depth and camera of one image to positions, and positions to messages."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from maskrnn_ros.image_messages import depth_to_metres
from maskrnn_ros.limits import text_line
from maskrnn_ros.locator.camera import camera_of
from maskrnn_ros.locator.locate import LocatorConfig, Position, locate, unlocated
from maskrnn_ros.masks import MaskEncoding, decode
from maskrnn_ros.msg import InstanceMask, InstancePosition, InstancePositionArray
from maskrnn_ros.overlay import colour
from maskrnn_ros.ros.markers import text_scale

_UNSEEN = {
    InstanceMask.STATE_OCCLUDED: "OCCLUDED",
    InstanceMask.STATE_LOST: "LOST",
    InstanceMask.STATE_REMOVED: "REMOVED",
}
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("id", "<i4")])
_BOX_OPACITY = 0.35
_TEXT_SHARE = 0.3
"""Height of a marker's text, as a share of the box's largest side."""
_SMALLEST_M = 1e-3
"""RViz2 refuses markers without a size."""


def locate_all(instances: Any, depth: Any, info: Any, config: LocatorConfig) -> list[Position]:
    """Positions of all instances of an InstanceMaskArray, in its order.

    Args:
        instances: maskrnn_ros/InstanceMaskArray.
        depth: sensor_msgs/Image, registered to the image of the masks.
        info: sensor_msgs/CameraInfo of that image.
        config: Limits.

    Raises:
        ValueError: The messages do not fit each other, one of them contradicts itself, or masks are not sent.
    """
    _check_frames(instances, depth, info, config)
    expected = instances.image_width, instances.image_height
    if (depth.width, depth.height) != expected:
        raise ValueError(
            f"depth must have the size of the masks {_size(*expected)}, got {_size(depth.width, depth.height)}"
        )
    camera = camera_of(info, config.distortion)
    if (camera.width, camera.height) != expected:
        raise ValueError(
            f"camera_info must have the size of the masks {_size(*expected)}, got {_size(camera.width, camera.height)}"
        )
    metres = depth_to_metres(depth, config.depth_unit)
    positions = []
    for instance in instances.instances:
        if not instance.area:
            positions.append(unlocated(f"the mask is empty: {_UNSEEN.get(instance.state, 'no pixel is seen')}"))
            continue
        if instance.encoding == MaskEncoding.NONE:
            raise ValueError(
                f"instances: id {instance.id} comes without its mask (encoding NONE): set the tracker's parameter "
                "mask_encoding to mono8, bits, rle or prob8"
            )
        box = instance.box
        mask = decode(instance.data, box.height, box.width, instance.encoding)
        positions.append(locate(mask, box.x_offset, box.y_offset, metres, camera, config))
    return positions


def position_array(instances: Any, positions: Sequence[Position]) -> Any:
    """An InstancePositionArray; its header is that of the InstanceMaskArray."""
    return InstancePositionArray(
        header=instances.header,
        run_id=instances.run_id,
        session=instances.session,
        instances=[_position(*pair) for pair in zip(instances.instances, positions, strict=True)],
    )


def marker_array(message: Any) -> Any:
    """A MarkerArray of an InstancePositionArray: a box and a text for each instance that has a position.

    It begins with DELETEALL, so that what is gone disappears even where a message was missed.
    """
    markers = [Marker(header=message.header, action=Marker.DELETEALL)]
    for instance in message.instances:
        if instance.points:
            markers += [_box(message.header, instance), _text(message.header, instance)]
    return MarkerArray(markers=markers)


def point_cloud(instances: Any, positions: Sequence[Position]) -> Any:
    """One PointCloud2 of the kept points of all instances: x, y, z (float32, metres) and id (int32)."""
    cloud = np.zeros(sum(len(position.points) for position in positions), _POINT)
    start = 0
    for instance, position in zip(instances.instances, positions, strict=True):
        part = cloud[start : start + len(position.points)]
        part["x"], part["y"], part["z"] = position.points.T
        part["id"] = instance.id
        start += len(part)
    kinds = {"<f4": PointField.FLOAT32, "<i4": PointField.INT32}
    data = array.array("B")
    data.frombytes(cloud.tobytes())
    return PointCloud2(
        header=instances.header,
        height=1,
        width=len(cloud),
        fields=[
            PointField(name=name, offset=4 * i, datatype=kinds[_POINT[name].str], count=1)
            for i, name in enumerate(_POINT.names or ())
        ],
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=_POINT.itemsize * len(cloud),
        data=data,
        is_dense=True,
    )


def _check_frames(instances: Any, depth: Any, info: Any, config: LocatorConfig) -> None:
    expected = instances.header.frame_id
    for name, message in (("depth", depth), ("camera_info", info)):
        if config.same_frame and message.header.frame_id != expected:
            raise ValueError(
                f"{name} must be in the frame of the masks {expected!r}, got {message.header.frame_id!r}: register it "
                "to the colour image, or set same_frame to false if it is"
            )


def _size(width: int, height: int) -> str:
    return f"{width} x {height}"


def _position(instance: Any, position: Position) -> Any:
    return InstancePosition(
        id=instance.id,
        label=instance.label,
        state=instance.state,
        area=instance.area,
        depth_pixels=position.depth_pixels,
        points=len(position.points) if not position.reason else 0,
        inlier_share=position.inlier_share,
        depth=position.depth,
        centroid=_point(position.centroid),
        extent_min=_point(position.extent[0]),
        extent_max=_point(position.extent[1]),
        covariance=position.covariance.ravel().tolist(),
        reason=text_line(position.reason),
    )


def _point(values: Any) -> Any:
    x, y, z = (float(value) for value in values)
    return Point(x=x, y=y, z=z)


def _box(header: Any, instance: Any) -> Any:
    marker = Marker(header=header, ns="boxes", id=instance.id, type=Marker.CUBE, action=Marker.ADD)
    marker.pose.position = _point(_middle(instance))
    marker.pose.orientation.w = 1.0
    marker.scale.x, marker.scale.y, marker.scale.z = (max(float(side), _SMALLEST_M) for side in _sides(instance))
    red, green, blue = (value / 255 for value in colour(instance.id))
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=_BOX_OPACITY)
    return marker


def _text(header: Any, instance: Any) -> Any:
    """Above the box: y points down."""
    marker = Marker(header=header, ns="labels", id=instance.id, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    marker.scale = text_scale(max(float(_TEXT_SHARE * _sides(instance).max()), _SMALLEST_M))
    middle = _middle(instance)
    marker.pose.position = _point((middle[0], instance.extent_min.y - marker.scale.z, middle[2]))
    marker.pose.orientation.w = 1.0
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    marker.text = f"{instance.id} {instance.label} {instance.depth:.3f} m".replace("  ", " ")
    return marker


def _middle(instance: Any) -> Any:
    return (_corner(instance.extent_min) + _corner(instance.extent_max)) / 2


def _sides(instance: Any) -> Any:
    return _corner(instance.extent_max) - _corner(instance.extent_min)


def _corner(point: Any) -> Any:
    return np.array([point.x, point.y, point.z])
