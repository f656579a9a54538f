# SPDX-License-Identifier: Apache-2.0
"""All topics and services of the node ``tracker``."""

from __future__ import annotations

from maskrnn_ros.ros.interfaces import Interface

INTERFACES: tuple[Interface, ...] = (
    Interface(
        name="image",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="rgb, bgr, rgba, bgra, mono and bayer_\\* of 8 and 16 bits, 8UC and 16UC of 1, 3, 4 channels, yuv422, "
        "yuv422_yuy2; with `compressed` CompressedImage on `image/compressed` instead",
    ),
    Interface(
        name="~/seed_mask",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="a label image (mono8, mono16, 8UC1, 16UC1, 32SC1), reliable",
    ),
    Interface(
        name="~/ignore_mask",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="where surely is no object, such as the robot's own body (mono8, 8UC1; not 0 = ignored), with the stamp "
        "of its image; the newest that is not newer and at most `ignore_mask_timeout` older counts; none is normal",
    ),
    Interface(
        name="~/seed_box",
        type="vision_msgs/Detection2DArray",
        kind="subscribes",
        text="boxes of a detector: each starts an instance unless one is there already (`prompts.same_iou`)",
        needs="vision_msgs",
    ),
    Interface(
        name="~/click",
        type="geometry_msgs/Point",
        kind="subscribes",
        text="a pixel on an object of the next image, as rqt_image_view publishes it on `<image topic>_mouse_left`",
    ),
    Interface(
        name="~/click_stamped",
        type="geometry_msgs/PointStamped",
        kind="subscribes",
        text="z = 0 in the frame of the image: a pixel on the image with that stamp; else, as RViz2 publishes it on "
        "`/clicked_point`, on the next image: in the frame `maskrnn_image` a pixel of the plane of `~/markers`, in any "
        "other a point of the world",
    ),
    Interface(
        name="camera_info",
        type="sensor_msgs/CameraInfo",
        kind="subscribes",
        text="for clicked points of the world; of the image as the camera gives it",
    ),
    Interface(
        name="/tf", type="tf2_msgs/TFMessage", kind="subscribes", text="for those in other frames", needs="tf2_ros"
    ),
    Interface(name="/tf_static", type="tf2_msgs/TFMessage", kind="subscribes", text="likewise", needs="tf2_ros"),
    Interface(
        name="~/instances",
        type="maskrnn_ros/InstanceMaskArray",
        kind="publishes",
        text="mask, box, state, velocity of every instance; one message per processed image; the last ones are kept "
        "for who subscribes later (transient local)",
    ),
    Interface(
        name="~/label_image",
        type="sensor_msgs/Image",
        kind="publishes",
        text="ids per pixel (mono16); made only while somebody subscribes",
    ),
    Interface(name="~/overlay", type="sensor_msgs/Image", kind="publishes", text="for people (rgb8); likewise"),
    Interface(
        name="~/markers",
        type="visualization_msgs/MarkerArray",
        kind="publishes",
        text="outlines and names for RViz2, in the frame `maskrnn_image`: the image lies at z = 0, fits 1 m x 0.75 m, "
        "and has pixel (c, r) at (c / u, -r / u) with u = max(width, height / 0.75); likewise",
    ),
    Interface(
        name="~/detections",
        type="vision_msgs/Detection2DArray",
        kind="publishes",
        text="boxes of the instances that are seen, with id, name and score; likewise",
        needs="vision_msgs",
    ),
    Interface(
        name="~/events",
        type="maskrnn_ros/InstanceEvent",
        kind="publishes",
        text="an instance was marked, is tracked, was occluded, lost, found again or removed",
    ),
    Interface(
        name="~/seed_result",
        type="maskrnn_ros/SeedResult",
        kind="publishes",
        text="pending, applied, rejected and why",
    ),
    Interface(
        name="~/status",
        type="maskrnn_ros/TrackerStatus",
        kind="publishes",
        text="counts, ages, times, events; received = processed + dropped + rejected + waiting; kept likewise",
    ),
    Interface(
        name="/diagnostics",
        type="diagnostic_msgs/DiagnosticArray",
        kind="publishes",
        text="the same for `rqt_robot_monitor`",
    ),
    Interface(
        name="~/add_instances",
        type="maskrnn_ros/AddInstances",
        kind="serves",
        text="add or correct by masks, boxes or points, with an image of its own if need be",
    ),
    Interface(
        name="~/remove_instances",
        type="maskrnn_ros/RemoveInstances",
        kind="serves",
        text="the others keep their state",
    ),
    Interface(
        name="~/reset",
        type="std_srvs/Trigger",
        kind="serves",
        text="forget all, begin a new session; ids are free again",
    ),
    Interface(
        name="~/enable",
        type="std_srvs/SetBool",
        kind="serves",
        text="false: images are dropped, instances stay",
    ),
)
