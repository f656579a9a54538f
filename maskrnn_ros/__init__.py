# SPDX-License-Identifier: Apache-2.0
"""Instance-level video object segmentation with a recurrent network (MaskRNN), and its ROS 2 node."""

import pkgutil

# The generated `maskrnn_ros.msg` and `maskrnn_ros.srv` lie where the package is installed. A checkout that comes
# first in sys.path must not hide them.
__path__ = pkgutil.extend_path(__path__, __name__)

__version__ = "0.1.0"
