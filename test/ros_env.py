# SPDX-License-Identifier: Apache-2.0
"""Import before rclpy: a ROS of our own, on this machine, that parallel runs do not hear."""

import itertools
import os

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# above 101 the ports may be taken by others; each worker of pytest-xdist has its own, all begin where no other run does
_OWN = range(1 + _WORKER, 101, _WORKERS)
_DOMAINS = itertools.islice(itertools.cycle(_OWN), os.getppid() % len(_OWN), None)


def leave_domain() -> None:
    """What is made from now on is in another domain than what was made before."""
    os.environ["ROS_DOMAIN_ID"] = str(next(_DOMAINS))


leave_domain()
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["RMW_IMPLEMENTATION"] = "rmw_fastrtps_cpp"
