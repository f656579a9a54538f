# SPDX-License-Identifier: Apache-2.0
"""The old name of ``maskrnn_ros.image_messages``."""

from maskrnn_ros.image_messages import *  # noqa: F403
