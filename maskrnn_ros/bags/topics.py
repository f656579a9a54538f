# SPDX-License-Identifier: Apache-2.0
"""Names of the topics and message types of our bags."""

IMAGE_TOPIC = "/camera/image_raw"
TRUTH_TOPIC = "/camera/ground_truth"
SEED_TOPIC = "/camera/seed_mask"
IGNORE_TOPIC = "/camera/ignore_mask"
COMPRESSED_SUFFIX = "/compressed"

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
