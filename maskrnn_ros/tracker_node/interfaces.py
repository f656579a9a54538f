# SPDX-License-Identifier: Apache-2.0
"""Topics and services of the node ``tracker``."""

from __future__ import annotations

from maskrnn_ros.ros.interfaces import Interface

INTERFACES: tuple[Interface, ...] = (
    Interface(
        name="image",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="The camera: rgb, bgr, rgba, bgra, mono and bayer_\\* with 8 or 16 bits, 8UC and 16UC with 1, 3 or 4 "
        "channels, yuv422, yuv422_yuy2. With `compressed`: CompressedImage on `image/compressed` instead.",
    ),
    Interface(
        name="~/seed_mask",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="A label image (mono8, mono16, 8UC1, 16UC1, 32SC1): value = instance id, 0 = background. Reliable QoS.",
    ),
    Interface(
        name="~/ignore_mask",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="Pixels that cannot belong to an object, e.g. the robot's own arm (mono8, 8UC1; nonzero = ignored), "
        "with the stamp of its image. Used: the newest that is not newer than the image and at most "
        "`ignore_mask_timeout` older. Optional.",
    ),
    Interface(
        name="~/seed_box",
        type="vision_msgs/Detection2DArray",
        kind="subscribes",
        text="Boxes of a detector. Each starts an instance unless one is already there (`prompts.same_iou`).",
        needs="vision_msgs",
    ),
    Interface(
        name="~/click",
        type="geometry_msgs/Point",
        kind="subscribes",
        text="A pixel on an object of the next image, as rqt_image_view publishes it on `<image topic>_mouse_left`.",
    ),
    Interface(
        name="~/click_stamped",
        type="geometry_msgs/PointStamped",
        kind="subscribes",
        text="With z = 0 in the frame of the image: a pixel of the image with that stamp. Otherwise a point for "
        "the next image, as RViz2 publishes it on `/clicked_point`: in the frame `maskrnn_image` a pixel on "
        "the plane of `~/markers`, in any other frame a point in space.",
    ),
    Interface(
        name="camera_info",
        type="sensor_msgs/CameraInfo",
        kind="subscribes",
        text="Camera model of the raw image, to project clicked points in space.",
    ),
    Interface(
        name="/tf",
        type="tf2_msgs/TFMessage",
        kind="subscribes",
        text="To transform clicked points from other frames.",
        needs="tf2_ros",
    ),
    Interface(
        name="/tf_static",
        type="tf2_msgs/TFMessage",
        kind="subscribes",
        text="To transform clicked points from other frames.",
        needs="tf2_ros",
    ),
    Interface(
        name="~/instances",
        type="maskrnn_ros/InstanceMaskArray",
        kind="publishes",
        text="Mask, box, state, score and velocity of every instance; one message per processed image. Late "
        "subscribers get the last message (transient local).",
    ),
    Interface(
        name="~/label_image",
        type="sensor_msgs/Image",
        kind="publishes",
        text="Instance id per pixel (mono16). Computed only while somebody subscribes.",
    ),
    Interface(
        name="~/overlay",
        type="sensor_msgs/Image",
        kind="publishes",
        text="The image with the masks drawn on it (rgb8). Computed only while somebody subscribes.",
    ),
    Interface(
        name="~/markers",
        type="visualization_msgs/MarkerArray",
        kind="publishes",
        text="Outlines and names for RViz2 in the frame `maskrnn_image`: the image lies at z = 0, fits 1 m x 0.75 "
        "m, and pixel (c, r) is at (c / u, -r / u) with u = max(width, height / 0.75). Computed only while "
        "somebody subscribes.",
    ),
    Interface(
        name="~/detections",
        type="vision_msgs/Detection2DArray",
        kind="publishes",
        text="Boxes of the visible instances, with id, name and score. Computed only while somebody subscribes.",
        needs="vision_msgs",
    ),
    Interface(
        name="~/events",
        type="maskrnn_ros/InstanceEvent",
        kind="publishes",
        text="One message when an instance is marked, tracked, occluded, lost, found again or removed.",
    ),
    Interface(
        name="~/seed_result",
        type="maskrnn_ros/SeedResult",
        kind="publishes",
        text="What became of each seed: pending, then applied, or rejected with the reason.",
    ),
    Interface(
        name="~/status",
        type="maskrnn_ros/TrackerStatus",
        kind="publishes",
        text="Counters, ages, latencies and the last error, every `status_period`; received = processed + dropped "
        "+ rejected + waiting. Transient local.",
    ),
    Interface(
        name="/diagnostics",
        type="diagnostic_msgs/DiagnosticArray",
        kind="publishes",
        text="The same for `rqt_robot_monitor`.",
    ),
    Interface(
        name="~/add_instances",
        type="maskrnn_ros/AddInstances",
        kind="serves",
        text="Add or correct instances by masks, boxes or points; the request can carry its own image.",
    ),
    Interface(
        name="~/remove_instances",
        type="maskrnn_ros/RemoveInstances",
        kind="serves",
        text="Remove instances; the others keep their state.",
    ),
    Interface(
        name="~/reset",
        type="std_srvs/Trigger",
        kind="serves",
        text="Remove all instances and start a new session; ids start again.",
    ),
    Interface(
        name="~/enable",
        type="std_srvs/SetBool",
        kind="serves",
        text="false: drop images, keep the instances. true: continue.",
    ),
)
