# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``maskrnn export``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_TEXT = """\
Make the ONNX graphs of weights, which `engine: onnxruntime` and `auto` take. Each is compared with torch on random
inputs. The graphs of the shipped weights ship; make those of your own after every training.
"""
_EPILOG = """\
With none of --trunk, --network and --prompts the graphs of all shipped weights are made, else those of what is named.

examples:
  maskrnn export --network my.safetensors
  maskrnn export --network shipped --out GRAPHS
  maskrnn export --trunk my_trunk.safetensors --network my.safetensors --calibrate DAVIS --held-out bear,camel
"""


def add_export(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="Make the ONNX graphs of weights.",
        description=_TEXT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_export)
    add = parser.add_argument
    add("--trunk", metavar="SETTING", help="as trunk.weights: shipped, permissive or a .safetensors file")
    add("--network", metavar="SETTING", help="as network.weights: shipped, permissive or a .safetensors file")
    add("--prompts", metavar="SETTING", help="as prompts.weights: shipped, permissive or a .safetensors file")
    add("--out", type=Path, metavar="DIR", help="folder of the graphs; default beside the weights, where they are used")
    text = "make the graphs in int8, too, by this data set: of the trunk, and of the decoder that goes with it"
    add("--calibrate", type=Path, metavar="ROOT", help=text)
    add("--held-out", default="", metavar="A,B,...", help="with --calibrate: its clips to leave out")
    add("--seed", type=int, default=0, help="with --calibrate: of the choice of frames; default 0")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")


def _export(args: argparse.Namespace) -> int:
    from maskrnn_ros.disk import write_text
    from maskrnn_ros.model.files import PROMPTS, prompts_file
    from maskrnn_ros.model.torch.graphs import Exported
    from maskrnn_ros.sections import SHIPPED, NetworkConfig, TrunkConfig

    trunks: tuple[str, ...] = () if args.trunk is None else (args.trunk,)
    networks: tuple[str, ...] = () if args.network is None else (args.network,)
    prompts = [] if args.prompts is None else [prompts_file(args.prompts)]
    if not trunks and not networks and not prompts:
        trunks, networks, prompts = SHIPPED, SHIPPED, list(PROMPTS.values())
    for setting in trunks:
        TrunkConfig(weights=setting)  # refuses what is neither
    for setting in networks:
        NetworkConfig(weights=setting)
    if args.held_out and args.calibrate is None:
        raise ValueError("--held-out takes --calibrate, got none")
    if args.calibrate is not None and not trunks:
        raise ValueError("--calibrate begins with the trunk: expected --trunk, got none")
    made: list[Exported] = []
    for one in _exported(trunks, networks, prompts, args.out):
        made.append(one)
        print(f"{_what(one)}  differs from torch by at most {one.difference:.2g}, values reach {one.scale:.3g}")
    if args.calibrate is not None:
        from maskrnn_ros.training.quantise import Calibration, quantise

        held_out = tuple(name for name in args.held_out.split(",") if name)
        calibration = Calibration(root=args.calibrate, held_out=held_out, seed=args.seed)
        if args.trunk is None:  # clips of DAVIS have no part in the permissive ones
            trunks = networks = ("shipped",)
        for one in quantise(calibration, trunks, networks, args.out):
            made.append(one)
            print(f"{_what(one)}  differs from float32 by {100 * one.share:.1f} % of the values' mean size")
    if args.json is not None:
        figures = [{**dataclasses.asdict(one), "file": str(one.file)} for one in made]
        write_text(args.json, json.dumps({"graphs": figures}, indent=2) + "\n")
    return 0


def _exported(
    trunks: Sequence[str], networks: Sequence[str], prompts: Sequence[Path], out: Path | None
) -> Iterator[Any]:
    from maskrnn_ros.model.torch.graphs import export
    from maskrnn_ros.prompts.torch.graph import export_prompts

    if trunks or networks:
        yield from export(trunks, networks, out)
    for weights in prompts:
        yield export_prompts(weights, out)


def _what(one: Any) -> str:
    return f"{one.file}  {one.size} bytes"
