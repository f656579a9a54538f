# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``maskrnn seed-ui``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from maskrnn_ros.parameter_file import load


def add_seed_ui(commands: Any) -> None:
    """Add the command to the command line."""
    text = (
        "Mark, correct and remove objects in the browser. The page is served to this machine only; from another one: "
        "ssh -L 8765:localhost:8765 ROBOT, then open http://localhost:8765 there."
    )
    parser: argparse.ArgumentParser = commands.add_parser(
        "seed-ui",
        help="Mark, correct and remove objects in the browser.",
        description=text,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8765, help="port on 127.0.0.1; 0 = any free one")
    add("--tracker", default="/tracker", metavar="NAME", help="full name of the tracker's node")
    add("--image", default="auto", metavar="TOPIC", help="topic of the images; auto: what the tracker subscribes to")
    add(
        "--rate",
        type=float,
        default=10.0,
        metavar="HZ",
        help="most images a second that are shown; all pages share each picture",
    )
    text = "ROS parameter file of the tracker: its prompts.* and trunk.weights say what makes masks of boxes and clicks"
    add("--config", type=Path, metavar="YAML", help=text)
    parser.set_defaults(run=_seed_ui)


def _seed_ui(args: argparse.Namespace) -> int:
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must lie in 0..65535, got {args.port}")
    if not 0.1 <= args.rate <= 100:
        raise ValueError(f"--rate must lie in 0.1..100, got {args.rate:g}")
    if not args.tracker.startswith("/"):
        raise ValueError(f"--tracker must be the full name of a node, as /tracker, got {args.tracker!r}")
    config = load(args.config) if args.config else None
    from maskrnn_ros.seed_ui.node import serve  # needs ROS

    return serve(args.tracker.rstrip("/"), "" if args.image == "auto" else args.image, args.port, args.rate, config)
