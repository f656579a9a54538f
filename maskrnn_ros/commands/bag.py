# SPDX-License-Identifier: Apache-2.0
"""``maskrnn bag``: bags made of data sets, images of bags, and bags over real topics."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from maskrnn_ros.arguments import add_command, add_flags, from_flags, write_report
from maskrnn_ros.bags.options import FromDavisOptions, PlayOptions, ToFramesOptions


def add_bag(commands: Any) -> None:
    """Add the command and its actions to the command line."""
    bag = commands.add_parser("bag", help="Convert and play bags.")
    actions = bag.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Write a sequence in the layout of DAVIS as a bag that ros2 bag can play."
    add_flags(add_command(actions, "from-davis", _from_davis, text), FromDavisOptions)
    text = "Write the images of a bag as PNG files."
    add_flags(add_command(actions, "to-frames", _to_frames, text), ToFramesOptions)
    text = "Publish a bag over real topics, if ros2 bag is not installed or for lockstep."
    add_flags(add_command(actions, "play", _play, text), PlayOptions)


def _from_davis(args: argparse.Namespace) -> int:
    from maskrnn_ros.bags.convert import from_davis

    options = from_flags(FromDavisOptions, args)
    report = from_davis(
        options.root,
        options.sequence,
        options.out,
        options.annotations,
        fps=options.fps,
        compressed=options.compressed,
        threshold=options.threshold,
        storage=options.storage,
        image_topic=options.image_topic,
        truth_topic=options.truth_topic,
        seed_topic=options.seed_topic,
        overwrite=options.overwrite,
        progress=True,
    )
    print(f"labels: {report.labels}")
    for instance_id, start in report.late.items():
        print(f"object {instance_id} begins on frame {start} and has a seed there")
    print(options.out)
    write_report(report, options.json)
    return 0


def _to_frames(args: argparse.Namespace) -> int:
    from maskrnn_ros.bags.pictures import to_frames

    options = from_flags(ToFramesOptions, args)
    report = to_frames(options.bag, options.out, options.image_topic, every=options.every, progress=True)
    print(f"{report.frames} images of {report.width}x{report.height}")
    print(report.out)
    write_report(report, options.json)
    return 0


def _play(args: argparse.Namespace) -> int:
    from maskrnn_ros.replay.player import play  # needs ROS

    options = from_flags(PlayOptions, args)
    report = play(
        options.bag,
        rate=options.rate,
        lockstep=options.lockstep,
        tracker=options.tracker,
        remap=options.renamed(),
        image_topic=options.image_topic,
        seed_topic=options.seed_topic,
        ignore_topic=options.ignore_topic,
        topics=options.topics,
        subscribers=options.subscribers,
        loops=options.loops,
        publish_clock=options.clock,
        timeout_s=options.timeout,
    )
    for topic, count in report.published.items():
        print(f"{count:6d}  {topic}")
    print(f"{report.seconds:.1f} s, messages late by {report.late_ms_p95:.1f} ms (p95)")
    write_report(report, options.json)
    refused = (*report.rejected_images, *report.rejected_seeds)
    if refused:
        print(f"the tracker refused {len(refused)} messages, the first: {refused[0]}", file=sys.stderr)
    if report.held_images:
        print(f"{report.held_images} images gave no masks: time may have jumped before them", file=sys.stderr)
    return 130 if report.interrupted else 1 if refused or report.held_images else 0
