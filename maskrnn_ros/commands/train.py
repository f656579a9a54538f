# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``maskrnn train``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from maskrnn_ros.arguments import add_command, add_flags, from_flags, names
from maskrnn_ros.evaluation.options import ScoreOptions


def add_train(commands: Any) -> None:
    """Add the command and its actions to the command line."""
    train = commands.add_parser("train", help="Train the networks.")
    actions = train.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_trunk(actions)
    _add_decoder(actions)
    _add_prompts(actions)
    text = "The paper's networks, stage 1: single frames, whose prior is the truth perturbed."
    _add_paper(actions, "still", 1, 1000, text)
    text = "The paper's networks, stage 2: windows of video, whose prior is the network's own mask, warped."
    _add_paper(actions, "recurrent", 7, 4000, text)
    _add_flow(actions)
    _add_score(actions)


def _weights(named: str | None, shipped: Path) -> Path | None:
    """What --init names: a file, or ``shipped``: the weights of what is trained that ship."""
    return None if named is None else shipped if named == "shipped" else Path(named)


def _add_held_out(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--held-out", type=names, default="", metavar="A,B,...", help=text)


def _add_stills(parser: argparse.ArgumentParser) -> None:
    text = "folders of still images: DIR/images, DIR/masks"
    parser.add_argument("--stills", type=Path, nargs="+", default=[], metavar="DIR", help=text)


def _add_run(parser: argparse.ArgumentParser, validate_every: int) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for checkpoint, weights, log and curves")
    add("--validate-every", type=int, default=validate_every, metavar="N", help="steps between two validations")
    add("--threads", type=int, default=0, help="of one process; 0 leaves torch's default")
    add("--seed", type=int, default=0, help="of the random numbers")
    add("--resume", action="store_true", help="go on from the checkpoint in OUT")


def _add_trunk(actions: Any) -> None:
    text = "Stage 0: the trunk, so that a head fitted on one frame is right on another."
    parser = add_command(actions, "trunk", _trunk, text)
    _add_data(parser)
    parser.add_argument("--steps", type=int, default=1700, help="steps in all")
    parser.add_argument("--batch", type=int, default=8, help="pairs in a step, over all processes")
    parser.add_argument("--rate", type=float, default=2e-4, help="peak learning rate of the trunk")
    _add_pace(parser, 0)
    _add_run(parser, 100)


def _trunk(args: argparse.Namespace) -> int:
    from maskrnn_ros.runtime import set_threads
    from maskrnn_ros.training.trunk import TrunkOptions, train_trunk

    set_threads(args.threads)
    names = ("data", "terms", "out", "steps", "batch", "rate", "seed", "resume", "validate_every")
    values = {name: getattr(args, name) for name in (*names, "minutes", "processes", "device")}
    print(train_trunk(TrunkOptions(**values)))
    return 0


def _add_decoder(actions: Any) -> None:
    text = "Stage 1: the decoder of the objects, on windows of frames."
    parser = add_command(actions, "decoder", _decoder, text)
    _add_data(parser)
    add = parser.add_argument
    add("--trunk", default="shipped", metavar="FILE", help="weights of the trunk: shipped or a file")
    add("--init", metavar="FILE", help="weights to begin with: a file, or `shipped`, the decoder that ships")
    add("--steps", type=int, default=2000, help="steps in all")
    add("--batch", type=int, default=4, help="windows in a step")
    add("--rate", type=float, default=1e-3, help="peak learning rate")
    add("--trunk-rate", type=float, default=0.0, help="of the trunk; 0: it does not learn; wants a GPU")
    text = "until which share of the training windows have how many frames, e.g. 0.5:3,1:8"
    add("--lengths", type=_lengths, metavar="S:N,...", help=text)
    _add_pace(parser, 1)
    _add_run(parser, 200)


def _decoder(args: argparse.Namespace) -> int:
    from maskrnn_ros.model.torch.weights import DECODER
    from maskrnn_ros.runtime import set_threads
    from maskrnn_ros.training.decoder import DecoderOptions, train_decoder

    set_threads(args.threads)
    names = ("data", "terms", "out", "trunk", "steps", "batch", "rate", "seed", "resume", "validate_every")
    values = {name: getattr(args, name) for name in (*names, "minutes", "processes", "device", "trunk_rate")}
    if args.lengths is not None:
        values["lengths"] = args.lengths
    print(train_decoder(DecoderOptions(**values, init=_weights(args.init, DECODER))))
    return 0


def _lengths(text: str) -> tuple[tuple[float, int], ...]:
    """Shares of a training and lengths of windows.

    Raises:
        argparse.ArgumentTypeError: They are none, or do not reach to its end.
    """
    try:
        found = tuple((float(share), int(count)) for share, _, count in (one.partition(":") for one in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected shares and frames such as 0.5:3,1:8, got {text!r}") from None
    if sorted(found) != list(found) or found[-1][0] != 1 or min(count for _, count in found) < 1:
        raise argparse.ArgumentTypeError(f"expected rising shares up to 1 and frames >= 1, got {text!r}")
    return found


def _add_prompts(actions: Any) -> None:
    text = "The prompt network, which makes masks of boxes and clicks, on pictures."
    parser = add_command(actions, "prompts", _prompts, text)
    _add_data(parser)
    add = parser.add_argument
    add("--trunk", default="shipped", metavar="FILE", help="weights of the trunk: shipped or a file")
    add("--init", type=Path, metavar="FILE", help="weights to begin with")
    add("--steps", type=int, default=6000, help="steps in all")
    add("--batch", type=int, default=8, help="views in a step")
    add("--rate", type=float, default=1e-3, help="peak learning rate")
    add("--validate-on", type=int, default=40, metavar="N", help="held out objects that a validation looks at")
    _add_pace(parser, 1)
    _add_run(parser, 500)


def _prompts(args: argparse.Namespace) -> int:
    from maskrnn_ros.runtime import set_threads
    from maskrnn_ros.training.prompts import PromptOptions, train_prompts

    set_threads(args.threads)
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(PromptOptions)}
    print(train_prompts(PromptOptions(**values)))
    return 0


def _add_pace(parser: argparse.ArgumentParser, processes: int) -> None:
    add = parser.add_argument
    text = "time in all, in place of --steps; what was spent before --resume counts"
    add("--minutes", type=float, metavar="M", help=text)
    add(
        "--processes", type=int, default=processes, help="that draw what a step sees ahead, with a thread each; 0: none"
    )
    add("--device", default="cpu", help="where it learns: cpu, cuda or cuda:N")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of the sets, see docs/training.md"
    )
    parser.add_argument(
        "--terms", choices=("research", "permissive"), default="research", help="which of them may be used"
    )


def _add_flow(actions: Any) -> None:
    text = "The small flow network, on pairs of images in which objects and background are made to move."
    parser = add_command(actions, "flow", _flow, text)
    parser.add_argument("--davis", type=Path, metavar="ROOT", help="data set in the layout of DAVIS")
    _add_held_out(parser, "its clips to validate on, never trained on")
    _add_stills(parser)
    parser.add_argument("--init", metavar="FILE", help="weights to begin with: a file, or `shipped`")
    parser.add_argument("--steps", type=int, default=4000, help="steps in all")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step, over all processes")
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate")
    _add_run(parser, 250)


def _flow(args: argparse.Namespace) -> int:
    from maskrnn_ros.flow.torch.flownet import FLOWNET
    from maskrnn_ros.runtime import set_threads
    from maskrnn_ros.training.flow import FlowOptions, train_flow

    set_threads(args.threads)
    names = ("davis", "out", "held_out", "steps", "batch", "rate", "seed", "resume", "validate_every")
    values = {name: getattr(args, name) for name in names}
    print(train_flow(FlowOptions(**values, stills=tuple(args.stills), init=_weights(args.init, FLOWNET))))
    return 0


def _add_paper(actions: Any, name: str, length: int, steps: int, text: str) -> None:
    parser = add_command(actions, name, _paper, text)
    parser.set_defaults(length=length)
    add = parser.add_argument
    add("--profile", type=_profile, choices=("paper",), default="paper", help="whose networks")
    add("--root", type=Path, metavar="ROOT", help="data set in the layout of DAVIS")
    _add_held_out(parser, "its clips that are left alone")
    _add_stills(parser)
    add("--init", default="torchvision", metavar="FILE", help="weights to begin with: a file, or `torchvision`")
    add("--steps", type=int, default=steps, help="steps in all")
    add("--batch", type=int, default=4, help="windows in a step")
    add("--rate", type=float, default=1e-5, help="peak learning rate")
    add("--box-weight", type=float, default=0.2, help="weight of the box loss; 0 switches it off")
    add("--size", default="854x480", metavar="WxH", help="of the pictures, pixels")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--autocast", action="store_true", help="compute in bfloat16 where torch deems it safe")
    add("--channels-last", action="store_true", help="memory format of the convolutions")
    _add_run(parser, 500)


def _profile(text: str) -> str:
    if text == "fast":
        raise argparse.ArgumentTypeError("the fast profile's network is gone: `maskrnn train decoder` took its place")
    return text


def _paper(args: argparse.Namespace) -> int:
    from maskrnn_ros.paper.training import PaperOptions, train_paper
    from maskrnn_ros.runtime import set_threads

    if args.init == "shipped":
        raise ValueError("--init takes a file or torchvision: no weights of the paper's networks ship")
    width, _, height = args.size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size takes WxH, e.g. 854x480, got {args.size!r}")
    set_threads(args.threads)
    names = ("out", "steps", "length", "held_out", "batch", "rate", "init", "seed", "resume", "validate_every")
    values = {name: getattr(args, name) for name in (*names, "box_weight", "device", "autocast", "channels_last")}
    size = int(height), int(width)
    print(train_paper(PaperOptions(**values, davis=args.root, stills=tuple(args.stills), size=size)))
    return 0


def _add_score(actions: Any) -> None:
    text = "Compare the score of the tracker's masks with J, and fit the constants of the score (tracking/score.py)."
    add_flags(add_command(actions, "score", _score, text), ScoreOptions)


def _score(args: argparse.Namespace) -> int:
    from maskrnn_ros.evaluation.score_fit import run

    run(from_flags(ScoreOptions, args))
    return 0
