# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``maskrnn bag``: bags made of data sets, images of bags, and bags over real topics."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from maskrnn_ros.arguments import add_command, add_json, add_threshold, write_report
from maskrnn_ros.bags.topics import IGNORE_TOPIC, IMAGE_TOPIC, SEED_TOPIC, TRUTH_TOPIC


def add_bag(commands: Any) -> None:
    """Add the command and its actions to the command line."""
    bag = commands.add_parser("bag", help="Convert and play bags.")
    actions = bag.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = add_command(
        actions,
        "from-davis",
        _from_davis,
        "Write a sequence in the layout of DAVIS as a bag that ros2 bag can play.",
    )
    parser.add_argument(
        "--root", type=Path, required=True, help="data set: folder with JPEGImages/ and the annotations"
    )
    parser.add_argument("--sequence", required=True, help="name of the sequence")
    parser.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder of the new bag")
    parser.add_argument("--annotations", default="Annotations", metavar="DIR", help="folder of the annotations in ROOT")
    parser.add_argument("--fps", type=float, default=24.0, help="frames per second")
    parser.add_argument("--compressed", action="store_true", help="write CompressedImage with the JPEG files unchanged")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="format of the bag")
    parser.add_argument("--image-topic", default=IMAGE_TOPIC, help="topic of the images")
    parser.add_argument("--truth-topic", default=TRUTH_TOPIC, help="topic of the ground truth")
    parser.add_argument("--seed-topic", default=SEED_TOPIC, help="topic of the seed")
    parser.add_argument("--overwrite", action="store_true", help="replace BAG")
    add_threshold(parser)
    add_json(parser)

    parser = add_command(actions, "to-frames", _to_frames, "Write the images of a bag as PNG files.")
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder of the bag, or a .mcap or .db3 file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for 00000.png, ...")
    parser.add_argument("--image-topic", default=IMAGE_TOPIC, help="topic of the images, raw or compressed")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="keep every N-th image")
    add_json(parser)

    parser = add_command(
        actions, "play", _play, "Publish a bag over real topics, if ros2 bag is not installed or for lockstep."
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder of the bag, or a .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="playback speed, 1 = as recorded")
    parser.add_argument("--lockstep", action="store_true", help="wait for the masks of each image before the next one")
    parser.add_argument("--tracker", default="/tracker", help="name of the tracker node, for --lockstep")
    parser.add_argument("--remap", nargs="*", default=[], metavar="FROM:=TO", help="publish under other topic names")
    parser.add_argument("--image-topic", default=IMAGE_TOPIC, help="topic of the images in the bag")
    parser.add_argument("--seed-topic", default=SEED_TOPIC, help="topic of the seeds in the bag")
    parser.add_argument("--ignore-topic", default=IGNORE_TOPIC, help="topic of the ignore masks in the bag")
    text = "topics to play with the images, none for the images alone; default all"
    parser.add_argument("--topics", nargs="*", metavar="TOPIC", help=text)
    parser.add_argument(
        "--subscribers", type=int, default=1, metavar="N", help="wait for this many subscribers of the images"
    )
    parser.add_argument("--loops", type=int, default=1, help="number of repetitions; 0 = until Ctrl-C")
    parser.add_argument("--clock", action="store_true", help="publish /clock, for nodes with use_sim_time")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="longest wait for an answer, seconds")
    add_json(parser)


def _from_davis(args: argparse.Namespace) -> int:
    from maskrnn_ros.bags.convert import from_davis

    report = from_davis(
        args.root,
        args.sequence,
        args.out,
        args.annotations,
        fps=args.fps,
        compressed=args.compressed,
        threshold=args.threshold,
        storage=args.storage,
        image_topic=args.image_topic,
        truth_topic=args.truth_topic,
        seed_topic=args.seed_topic,
        overwrite=args.overwrite,
        progress=True,
    )
    print(f"labels: {report.labels}")
    for instance_id, start in report.late.items():
        print(f"object {instance_id} begins on frame {start} and has a seed there")
    print(args.out)
    write_report(report, args.json)
    return 0


def _to_frames(args: argparse.Namespace) -> int:
    from maskrnn_ros.bags.pictures import to_frames

    report = to_frames(args.bag, args.out, args.image_topic, every=args.every, progress=True)
    print(f"{report.frames} images of {report.width}x{report.height}")
    print(report.out)
    write_report(report, args.json)
    return 0


def _play(args: argparse.Namespace) -> int:
    from maskrnn_ros.replay.player import play  # needs ROS

    wrong = [rule for rule in args.remap if rule.count(":=") != 1]
    if wrong:
        raise ValueError(f"--remap takes FROM:=TO, got {wrong[0]!r}")
    report = play(
        args.bag,
        rate=args.rate,
        lockstep=args.lockstep,
        tracker=args.tracker,
        remap=dict(rule.split(":=") for rule in args.remap),
        image_topic=args.image_topic,
        seed_topic=args.seed_topic,
        ignore_topic=args.ignore_topic,
        topics=args.topics,
        subscribers=args.subscribers,
        loops=args.loops,
        publish_clock=args.clock,
        timeout_s=args.timeout,
    )
    for topic, count in report.published.items():
        print(f"{count:6d}  {topic}")
    print(f"{report.seconds:.1f} s, messages late by {report.late_ms_p95:.1f} ms (p95)")
    write_report(report, args.json)
    refused = (*report.rejected_images, *report.rejected_seeds)
    if refused:
        print(f"the tracker refused {len(refused)} messages, the first: {refused[0]}", file=sys.stderr)
    if report.held_images:
        print(f"{report.held_images} images gave no masks: time may have jumped before them", file=sys.stderr)
    return 130 if report.interrupted else 1 if refused or report.held_images else 0
