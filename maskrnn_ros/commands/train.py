# SPDX-License-Identifier: Apache-2.0
"""``maskrnn train``: what its actions call with their options. What needs torch is imported when it is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from maskrnn_ros.arguments import add_command, add_flags, from_flags
from maskrnn_ros.evaluation.options import ScoreOptions
from maskrnn_ros.paper.options import RecurrentOptions, StillOptions
from maskrnn_ros.training.options import DecoderOptions, FlowOptions, PromptOptions, TrunkOptions


def add_train(commands: Any) -> None:
    """Add the command and its actions to the command line."""
    train = commands.add_parser("train", help="Train the networks.")
    actions = train.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, kind: type, run: Callable[[Any], object], text: str) -> None:
        def act(args: argparse.Namespace) -> int:
            run(from_flags(kind, args))
            return 0

        add_flags(add_command(actions, name, act, text), kind)

    text = "Stage 0: the trunk, so that a head fitted on one frame is right on another."
    add("trunk", TrunkOptions, _trunk, text)
    add("decoder", DecoderOptions, _decoder, "Stage 1: the decoder of the objects, on windows of frames.")
    text = "The prompt network, which makes masks of boxes and clicks, on pictures."
    add("prompts", PromptOptions, _prompts, text)
    text = "The paper's networks, stage 1: single frames, whose prior is the truth perturbed."
    add("still", StillOptions, _paper, text)
    text = "The paper's networks, stage 2: windows of video, whose prior is the network's own mask, warped."
    add("recurrent", RecurrentOptions, _paper, text)
    text = "The small flow network, on pairs of images in which objects and background are made to move."
    add("flow", FlowOptions, _flow, text)
    text = "Compare the score of the tracker's masks with J, and fit the constants of the score (tracking/score.py)."
    add("score", ScoreOptions, _score, text)


def _trunk(options: Any) -> None:
    from maskrnn_ros.training.runs import use_threads
    from maskrnn_ros.training.trunk import train_trunk

    use_threads(options.threads)
    print(train_trunk(options))


def _decoder(options: Any) -> None:
    from maskrnn_ros.training.decoder import train_decoder
    from maskrnn_ros.training.runs import use_threads

    use_threads(options.threads)
    print(train_decoder(options))


def _prompts(options: Any) -> None:
    from maskrnn_ros.training.prompts import train_prompts
    from maskrnn_ros.training.runs import use_threads

    use_threads(options.threads)
    print(train_prompts(options))


def _flow(options: Any) -> None:
    from maskrnn_ros.training.flow import train_flow
    from maskrnn_ros.training.runs import use_threads

    use_threads(options.threads)
    print(train_flow(options))


def _paper(options: Any) -> None:
    from maskrnn_ros.paper.training import train_paper
    from maskrnn_ros.training.runs import use_threads

    use_threads(options.threads)
    print(train_paper(options))


def _score(options: ScoreOptions) -> None:
    from maskrnn_ros.evaluation.score_fit import run

    run(options)
