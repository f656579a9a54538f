# SPDX-License-Identifier: Apache-2.0
"""`python -m maskrnn_ros` is the command `maskrnn`."""

import sys

from maskrnn_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
