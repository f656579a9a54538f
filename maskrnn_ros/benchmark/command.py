# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``maskrnn benchmark``, and what it runs in which order."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.limits import check_size, quoted
from maskrnn_ros.parameter_file import load

if TYPE_CHECKING:  # torch takes seconds to import, and most commands need no benchmark
    from maskrnn_ros.benchmark.report import Report
    from maskrnn_ros.benchmark.soak import Plan

T = TypeVar("T")
_PLOTS = (".png", ".pdf", ".svg")
_MOST = 1_000_000_000
_FURTHER = ("calls", "ros", "memory", "cycles", "beside", "services", "cameras", "soak", "persist", "clicks")
"""Options that ask for a measurement besides the runs."""

_TEXT = """\
Measure the tracker on this machine: one run per number of objects and image size, each in its own process. The scene
is generated: textured objects, 1/4 of the image high (1/6 or more with 16 of them), move in front of a textured
background and are never hidden. The runs measure the steady state; with all sizes and numbers they take about ten
minutes. Nothing else should run on the machine meanwhile.

ms per frame are medians of wall time from the image array in to label image, masks and boxes out: the sum of the stages
prepare, flow, trunk, heads and merge. Making the ROS message (messages) is listed separately. `not TRACKING` counts
frames on which not every instance was in state TRACKING; if it is not 0, the run did not measure what it should.
"""
_EPILOG = """\
examples:
  maskrnn benchmark --json figures.json --plot scaling.png
  maskrnn benchmark --objects 4 --size 854x480 --ros --seconds 20
  maskrnn benchmark --objects 4 --size 854x480 --skip-runs --memory 10000 --cycles 200
  maskrnn benchmark --objects 1 --size 854x480 --skip-runs --beside --services
  maskrnn benchmark --objects 1,4,16 --size 854x480 --skip-runs --calls
  maskrnn benchmark --size 854x480 --skip-runs --cameras 2 --threads 1,2 --cpus '0;1'
  maskrnn benchmark --size 854x480 --skip-runs --soak 60 --json soak.json --plot soak.png
"""


def add_benchmark(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark",
        help="Measure ms per frame by stage, memory, and latency through topics on this machine.",
        description=_TEXT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--objects", default="1,2,4,8,16", metavar="N,N,...", help="numbers of objects; default 1,2,4,8,16")
    text = "sizes of the image, pixels; default 854x480,1280x720,1920x1080"
    add("--size", default="854x480,1280x720,1920x1080", metavar="WxH,...", help=text)
    add("--seconds", type=float, default=10.0, metavar="S", help="measured time of each run and each rate; default 10")
    add("--engine", metavar="NAME", help="auto, torch or onnxruntime; default: the one in the config, or auto")
    add("--config", type=Path, metavar="YAML", help="ROS parameter file, as the node takes it")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    add("--plot", type=Path, metavar="FILE.png", help="draw ms against objects and against pixels, or the soak")
    more = parser.add_argument_group(
        "further measurements", "with 4 objects if --objects names 4, else its first number, and the first size"
    )
    text = "calls of Python per image, with each number of objects; one thread"
    more.add_argument("--calls", action="store_true", help=text)
    text = "latency through ROS, from publishing an image to receiving its InstanceMaskArray; three processes"
    more.add_argument("--ros", action="store_true", help=text)
    text = "images per second; default 15,24,30. --cameras takes 24, --soak, --persist and --clicks 30, else the first"
    more.add_argument("--rates", default="15,24,30", metavar="HZ,...", help=text)
    more.add_argument("--memory", type=int, metavar="FRAMES", help="memory over this many frames, with a full buffer")
    more.add_argument("--cycles", type=int, metavar="N", help="memory while an instance is added and removed N times")
    text = "time from a seed to the first mask, and of the images after it"
    more.add_argument("--beside", action="store_true", help=text)
    more.add_argument("--services", action="store_true", help="latency of the services while the tracker is busy")
    text = "mask rate, drop rate and latency of N trackers and cameras on this machine; the demo clip with 4 objects"
    more.add_argument("--cameras", type=int, metavar="N", help=text)
    more.add_argument("--threads", default="1", metavar="N,...", help="with --cameras: threads per tracker; default 1")
    text = "with --cameras: cores of each tracker, e.g. '0;1'; measured without and with them"
    more.add_argument("--cpus", default="", metavar="C;C", help=text)
    text = "memory, threads, open files, mask rate and latency of the node over this many minutes; each 10 s another "
    text += "instance is added, one is corrected, the added one is removed, in turn. --plot draws them over time"
    more.add_argument("--soak", type=float, metavar="MINUTES", help=text)
    text = "what persist_dir costs: a write by itself, and the node without and with it, by turns, --seconds each"
    more.add_argument("--persist", action="store_true", help=text)
    text = "what an editor that makes a mask of a click every second costs the node: without and with it, by turns, "
    text += "--seconds each"
    more.add_argument("--clicks", action="store_true", help=text)
    more.add_argument("--skip-runs", action="store_true", help="only these further measurements")
    parser.set_defaults(run=_benchmark)


def _benchmark(args: argparse.Namespace) -> int:
    objects = _listed("--objects", args.objects, _count)
    sizes = _listed("--size", args.size, _size)
    rates = _listed("--rates", args.rates, _rate)
    config = _config(args)
    _check(args, objects, sizes, config)
    from maskrnn_ros.benchmark.report import Report

    report = Report()
    if not args.skip_runs:
        _runs(report, config, objects, sizes, args)
    if args.calls:
        _calls(report, config, objects, sizes[0], args)
    number = 4 if 4 in objects else objects[0]
    _further(report, config, (*sizes[0], number), rates, args)
    return 0


def _runs(
    report: Report, config: Config, objects: tuple[int, ...], sizes: tuple[tuple[int, int], ...], args: Any
) -> None:
    from maskrnn_ros.benchmark.measure import in_own_process, measure
    from maskrnn_ros.benchmark.report import head, line_row, row
    from maskrnn_ros.benchmark.scaling import lines, plot_scaling

    for width, height in sizes:
        for number in objects:
            run = in_own_process(measure, config, width, height, number, args.seconds)
            if not report.runs:
                print(head(run.stages))
            report.runs.append(run)
            print(row(run), flush=True)
            report.write(args.json)
    for line in lines(report.runs):
        print(line_row(line))
    if args.plot:
        plot_scaling(report.runs, args.plot)
        print(args.plot)


def _calls(report: Report, config: Config, objects: tuple[int, ...], size: tuple[int, int], args: Any) -> None:
    from maskrnn_ros.benchmark.calls import calls_rows, count_calls
    from maskrnn_ros.benchmark.measure import in_own_process

    report.calls = [in_own_process(count_calls, config, *size, number) for number in objects]
    print("\n".join(calls_rows(report.calls)), flush=True)
    report.write(args.json)


def _further(
    report: Report, config: Config, scene: tuple[int, int, int], rates: tuple[float, ...], args: argparse.Namespace
) -> None:
    """Scene: width, height, objects."""
    from maskrnn_ros.benchmark.measure import in_own_process
    from maskrnn_ros.benchmark.memory import over_cycles, over_frames
    from maskrnn_ros.benchmark.report import memory_row, ros_rows

    if args.ros:
        from maskrnn_ros.benchmark.latency import measure_latency  # needs ROS

        report.ros = measure_latency(config, *scene, rates=rates, seconds=args.seconds)
        print("\n".join(ros_rows(report.ros)), flush=True)
        report.write(args.json)
    if args.memory:
        report.memory = in_own_process(over_frames, config, *scene, args.memory)
        print(memory_row(report.memory), flush=True)
        report.write(args.json)
    if args.cycles:
        report.cycles = in_own_process(over_cycles, config, *scene, args.cycles)
        print(memory_row(report.cycles), flush=True)
        report.write(args.json)
    if args.beside:
        from maskrnn_ros.benchmark.first_mask import after_seed, seed_row

        report.seed = in_own_process(after_seed, config, *scene)
        print(seed_row(report.seed), flush=True)
        report.write(args.json)
    _further_nodes(report, config, scene, rates, args)


def _further_nodes(
    report: Report, config: Config, scene: tuple[int, int, int], rates: tuple[float, ...], args: argparse.Namespace
) -> None:
    """What needs ROS and several processes. Scene: width, height, objects."""
    if args.services:
        from maskrnn_ros.benchmark.services import measure_services, services_rows

        report.services = measure_services()
        print("\n".join(services_rows(report.services)), flush=True)
        report.write(args.json)
    if args.cameras:
        from maskrnn_ros.benchmark.cameras import Load, cameras_rows, measure_cameras

        rate = 24.0 if 24.0 in rates else rates[0]
        load = Load(width=scene[0], height=scene[1], rate=rate, seconds=args.seconds)
        threads = _listed("--threads", args.threads, _count)
        report.cameras = measure_cameras(config, args.cameras, load, threads=threads, cpus=args.cpus)
        print("\n".join(cameras_rows(report.cameras)), flush=True)
        report.write(args.json)
    rate = 30.0 if 30.0 in rates else rates[0]
    if args.persist:
        _persist(report, config, scene, rate, args)
    if args.clicks:
        _clicks(report, config, scene, rate, args)
    if args.soak:
        _soak(report, config, scene, rate, args)


def _persist(report: Report, config: Config, scene: tuple[int, int, int], rate: float, args: Any) -> None:
    from maskrnn_ros.benchmark.measure import in_own_process
    from maskrnn_ros.benchmark.persistence import measure_stream, measure_writes, persistence_row
    from maskrnn_ros.benchmark.turns import turns_rows

    write = in_own_process(measure_writes, config, *scene)
    stream = measure_stream(config, _stream(scene, rate, args.seconds))
    report.persistence = {"write": dataclasses.asdict(write), "stream": stream}
    print("\n".join([persistence_row(write), *turns_rows("persist", stream)]), flush=True)
    report.write(args.json)


def _clicks(report: Report, config: Config, scene: tuple[int, int, int], rate: float, args: Any) -> None:
    from maskrnn_ros.benchmark.clicks import clicks_row, measure_clicks
    from maskrnn_ros.benchmark.turns import turns_rows

    report.clicks = measure_clicks(config, _stream(scene, rate, args.seconds))
    print("\n".join([*turns_rows("beside", report.clicks), clicks_row(report.clicks)]), flush=True)
    report.write(args.json)


def _stream(scene: tuple[int, int, int], rate: float, seconds: float) -> Plan:
    """A stream of a scene in which nothing is marked anew."""
    from maskrnn_ros.benchmark.soak import Plan

    width, height, objects = scene
    return Plan(
        width=width,
        height=height,
        objects=objects,
        rate=rate,
        seconds=seconds,
        sample_s=min(1.0, seconds / 4),
        change_s=0.0,
    )


def _soak(report: Report, config: Config, scene: tuple[int, int, int], rate: float, args: Any) -> None:
    from maskrnn_ros.benchmark import soak_report
    from maskrnn_ros.benchmark.soak import CHANGE_S, SAMPLE_S, Plan, Soak, run_soak

    width, height, objects = scene
    seconds = args.soak * 60
    plan = Plan(
        width=width,
        height=height,
        objects=objects,
        rate=rate,
        seconds=seconds,
        sample_s=min(SAMPLE_S, seconds / 12),
        change_s=min(CHANGE_S, seconds / 6),
    )

    def sampled(soak: Soak) -> None:
        line = soak_report.minute_row(soak)
        if line is not None:
            print(line, flush=True)
            report.soak = soak_report.as_json(soak)
            report.write(args.json)

    print(soak_report.HEAD, flush=True)
    soak = run_soak(config, plan, sampled)
    report.soak = soak_report.as_json(soak)
    report.write(args.json)
    print("\n".join(soak_report.summary_rows(report.soak["summary"])), flush=True)
    if args.plot:
        soak_report.plot_soak(soak, args.plot)
        print(args.plot)
    if soak.failure:
        raise RuntimeError(f"the soak ended early: {soak.failure}")


def _config(args: argparse.Namespace) -> Config:
    """Settings of the runs: heads are adapted before the clock starts."""
    config = load(args.config) if args.config else Config()
    return with_values(config, engine=args.engine) if args.engine else config


def _check(
    args: argparse.Namespace, objects: tuple[int, ...], sizes: tuple[tuple[int, int], ...], config: Config
) -> None:
    """Refuse what cannot run, before anything has run.

    Raises:
        ValueError: The message names the option.
    """
    from maskrnn_ros.benchmark.scene import Scene

    if not 0 < args.seconds < math.inf:
        raise ValueError(f"--seconds must be > 0 and finite, got {args.seconds:g}")
    for name, value in (("--memory", args.memory), ("--cycles", args.cycles), ("--cameras", args.cameras)):
        if value is not None and not 1 <= value <= _MOST:
            raise ValueError(f"{name} must be >= 1 and <= {_MOST}, got {quoted(value)}")
    if args.soak is not None and not 0 < args.soak < math.inf:
        raise ValueError(f"--soak must be > 0 and finite, got {args.soak:g}")
    _listed("--threads", args.threads, _count)
    if args.skip_runs and not any(getattr(args, name) for name in _FURTHER):
        named = ", ".join(f"--{name}" for name in _FURTHER[:-1])
        raise ValueError(f"--skip-runs leaves nothing to do without {named} or --{_FURTHER[-1]}")
    if args.plot and args.skip_runs == (args.soak is None):
        raise ValueError("--plot draws the runs, or with --skip-runs --soak the soak")
    if max(objects) > config.max_instances:
        raise ValueError(f"--objects must be <= {config.max_instances} (max_instances), got {max(objects)}")
    for option, file in (("--json", args.json), ("--plot", args.plot)):
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"{option}: there is no folder {file.parent}")
    if args.plot and args.plot.suffix not in _PLOTS:  # said before an hour of measuring, not after it
        raise ValueError(f"--plot must end in {', '.join(_PLOTS)}, got {args.plot.name!r}")
    for width, height in sizes:
        Scene(width, height, max(objects))  # refuses what is too small


def _listed(option: str, text: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    """The values between commas, each once.

    Raises:
        ValueError: There is none, or one cannot be read; the message names the option.
    """
    try:
        return tuple(dict.fromkeys(parse(part.strip()) for part in text.split(",")))
    except ValueError as error:
        raise ValueError(f"{option} {error}") from error


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"takes whole numbers >= 1, separated by commas, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"takes WxH in pixels, e.g. 854x480, separated by commas, got {text!r}")
    check_size(int(height), int(width))
    return int(width), int(height)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 1000:
        raise ValueError(f"takes images per second, > 0 and <= 1000, separated by commas, got {text!r}")
    return rate
