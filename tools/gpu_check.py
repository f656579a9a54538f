# SPDX-License-Identifier: Apache-2.0
"""What is right, how fast is it, and what fails on a GPU? Everything in six minutes, as tables and as JSON.

Needs torch, torchvision, OpenCV, onnxruntime and what a checkout holds: no ROS, no network, no installation. What
fails, hangs or breaks the device does not end the others: see ``PHASES``.

    python tools/gpu_check.py --pack PACK.tar --root DAVIS --sequences A,B --raft raft_small.safetensors   # beforehand
    python tools/gpu_check.py --data PACK.tar --out OUT                                                    # on the GPU
    python tools/gpu_check.py --device cpu --quick --out OUT                                               # anywhere

Without --data the demo clip alone is followed, and RAFT has random weights. Ends with 1 where something failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from maskrnn_ros.datasets.davis import davis_sequence  # noqa: E402

if TYPE_CHECKING:  # torch takes seconds to come, and whoever starts the checks needs none of it
    from gpu_bench import Bench

Row = dict[str, Any]
DEMO = ROOT / "maskrnn_ros" / "data" / "tabletop"
RAFT = "raft_small.safetensors"
PACK_MIB = 28
"""Of all packs together; what travels to a borrowed machine is limited."""

FRAMES = 48
"""Of a clip at most."""

MINUTES = {False: 6.0, True: 60.0}
"""For all checks; and for quick ones."""

GRACE_S = 8.0
"""A case that has begun is let end, but for no longer than this."""

NO_DEVICE = 2


@dataclasses.dataclass(frozen=True)
class Phase:
    """Checks that run at the same time.

    Args:
        processes: The checks of each process, one after the other: torch and the device take seconds to begin with.
        until: Share of the time by which it ends.
    """

    processes: tuple[tuple[str, ...], ...]
    until: float


PHASES = (
    Phase((("machine", "precision"), ("cpu",), ("training",), ("engine", "onnxruntime", "commands")), 0.42),
    Phase((("times", "flow", "copies"),), 0.97),  # alone: these are the times that count
    Phase((("more", "paper", "compile"),), 1.0),
)
"""In the order of what is worth most; where the time is up, the rest is left out."""

SHARES = {"times": 4.0}
"""Of what is left of a phase to a check beside those after it; 1 where it is not said."""

LEAST_S = {"compile": 90.0}
"""A case is not begun with less time: beside an H100, on 16 cores, half a minute was too little for the first code."""

CHECKS = tuple(name for phase in PHASES for names in phase.processes for name in names)


def run_checks(names: Sequence[str], bench: Bench, parts: Path, until: float) -> None:
    """Run checks one after the other; each has a file of what it found."""
    for number, name in enumerate(names):
        shares = [SHARES.get(one, 1.0) for one in names[number:]]
        begin = time.time()
        run_check(name, bench, parts / f"{name}.json", begin + (until - begin) * shares[0] / sum(shares))


def run_check(name: str, bench: Bench, file: Path, until: float) -> None:
    """Run the cases of a check; the file has what is done after each of them.

    Raises:
        BrokenDevice: Nothing can go on in this process.
    """
    import gpu_checks

    begin, rows = time.time(), list[Row]()

    def write(**more: Any) -> None:
        file.write_text(json.dumps({"rows": rows, "s": time.time() - begin, **more}))

    write()
    least_s = LEAST_S.get(name, 0.0)
    try:
        for case, measure in gpu_checks.CHECKS[name](bench):
            left_s = until - time.time()
            if left_s < least_s or left_s < 0:
                why = f": {left_s:.0f} s, it may take {least_s:g}" if least_s else ""
                rows.append({"case": case, "skipped": f"no time left{why}"})
                continue
            write(running=case)
            row_begin = time.time()
            rows.append({"case": case, **run_case(measure)})
            print(f"{_line(rows[-1])}  ({time.time() - row_begin:.1f} s)", flush=True)
            write()
            if "CUDA error" in rows[-1].get("error", ""):
                raise BrokenDevice(rows[-1]["error"])
    except BrokenDevice:
        raise
    except Exception as error:
        traceback.print_exc()
        rows.append({"case": "-", "error": _short(error)})
    write(done=True)


class BrokenDevice(Exception):
    """After an error on the device every other call of the process fails, too."""


def run_case(measure: Callable[[], Row]) -> Row:
    """The figures of a case, or why there are none."""
    from gpu_bench import Beyond, Skipped

    try:
        return measure()
    except Skipped as error:
        return {"skipped": str(error)}
    except Beyond as error:
        return {**error.row, "error": str(error)}
    except Exception as error:  # whatever it is: the others go on
        traceback.print_exc()
        return {"error": _short(error)}


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _line(row: Row) -> str:
    return "  " + "  ".join(f"{key} {_cell(value)}" for key, value in row.items())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return "-" if value is None else str(value)


def table(name: str, found: Row) -> str:
    """A check as a table in Markdown; what failed or was skipped stands below it."""
    rows = [row for row in found["rows"] if set(row) - {"case", "error", "skipped"}]
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("error", "skipped")))
    lines = [f"## {name}", ""]
    if name == "machine":
        lines += [f"* {key}: {_cell(value)}" for row in rows for key, value in row.items() if key != "case"]
    elif rows:
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in rows]
    for word in ("error", "skipped"):
        lines += ["", *(f"* {row['case']}: {word}: {row[word]}" for row in found["rows"] if word in row)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Pack, or run all checks; returns the exit status."""
    args = _arguments()
    if args.pack:
        return pack(args)
    if args.check:
        return in_this_process(args)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        return run_all(args, Path(work))


def in_this_process(args: argparse.Namespace) -> int:
    """Run some checks; the status is ``NO_DEVICE`` where there is none."""
    from gpu_bench import FULL, QUICK, Bench

    from maskrnn_ros.model.torch.engine import choose_device

    bench = Bench(**{**json.loads(args.bench), "extent": QUICK if args.quick else FULL})
    paths = {name: Path(getattr(bench, name)) for name in ("root", "work")}
    bench = dataclasses.replace(bench, **paths, raft=Path(bench.raft) if bench.raft else None)
    try:
        choose_device(args.device)
    except RuntimeError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return NO_DEVICE
    # what does not end is killed soon after; where it was, is the last that its log says
    faulthandler.dump_traceback_later(max(1.0, args.until + GRACE_S / 2 - time.time()))
    run_checks(args.check, bench, args.parts, args.until)
    return 0


def run_all(args: argparse.Namespace, work: Path) -> int:
    """Every phase; 1 where something failed."""
    parts = args.out / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    root, raft = unpack(args.data, work, FRAMES)
    bench = {"device": args.device, "root": str(root), "raft": raft and str(raft), "work": str(work)}
    begin, seconds = time.time(), 60 * (args.minutes or MINUTES[args.quick])
    command = [sys.executable, __file__, "--device", args.device, "--bench", json.dumps(bench)]
    command += ["--parts", str(parts.resolve()), *(["--quick"] if args.quick else [])]
    found: dict[str, Row] = {}
    wanted = chosen(args.only or CHECKS)
    for number, (groups, until) in enumerate(wanted):
        share = until if number + 1 < len(wanted) else 1.0
        if run_phase(groups, command, parts, begin + seconds * share) == NO_DEVICE:
            return NO_DEVICE
        for name in (name for names in groups for name in names):
            found[name] = _found(name, parts)
            print(table(name, found[name]), flush=True)
        (args.out / "gpu_check.json").write_text(json.dumps(found, indent=2) + "\n")
        (args.out / "gpu_check.md").write_text("\n".join(table(name, one) for name, one in found.items()))
    failed = [name for name, one in found.items() if any("error" in row for row in one["rows"])]
    print(f"{time.time() - begin:.0f} s; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


def chosen(names: Sequence[str]) -> list[tuple[list[tuple[str, ...]], float]]:
    """The phases with these checks alone: groups, and share of the time.

    >>> chosen(["training", "commands", "paper"])
    [([('training',), ('commands',)], 0.42), ([('paper',)], 1.0)]
    """
    found = []
    for phase in PHASES:
        groups = [tuple(name for name in group if name in names) for group in phase.processes]
        found.append(([group for group in groups if group], phase.until))
    return [(groups, until) for groups, until in found if groups]


def run_phase(groups: list[tuple[str, ...]], command: Sequence[str], parts: Path, until: float) -> int:
    """Run groups of checks at the same time, each in a process of its own; ``NO_DEVICE`` where there is none.

    What comes after a check that ended its process has another one.
    """
    while groups and until - time.time() > 5:
        shared = max(1, (os.cpu_count() or 1) // len(groups))
        started = [
            (names, _start([*command, "--check", *names, "--until", str(until)], names[0], parts, shared))
            for names in groups
        ]
        groups = []
        for names, process in started:
            status = _ended(process, until + GRACE_S)
            if status == NO_DEVICE:
                print((parts / f"{names[0]}.log").read_text().splitlines()[-1], file=sys.stderr)
                return NO_DEVICE
            begun = [name for name in names if (parts / f"{name}.json").exists()]
            if status and begun:
                _say_ended(parts / f"{begun[-1]}.json", status)
                print("\n".join((parts / f"{names[0]}.log").read_text().splitlines()[-12:]))
                groups += [names[len(begun) :]] if len(begun) < len(names) else []
            elif status:
                (parts / f"{names[0]}.json").write_text(json.dumps({"rows": []}))
                _say_ended(parts / f"{names[0]}.json", status)
                groups += [names[1:]] if len(names) > 1 else []
    return 0


def _start(command: list[str], name: str, parts: Path, threads: int) -> subprocess.Popen[bytes]:
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with (parts / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def _ended(process: subprocess.Popen[bytes], until: float) -> int | str:
    """The status of a process; one that does not end in time is killed with all that it started."""
    try:
        return process.wait(timeout=max(1.0, until - time.time()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "no answer when its time was up"


def _say_ended(file: Path, status: int | str) -> None:
    known = json.loads(file.read_text())
    if not known.get("done"):
        error = {"case": known.get("running", "-"), "error": f"the process ended with {status}"}
        file.write_text(json.dumps({**known, "rows": [*known["rows"], error]}))


def _found(name: str, parts: Path) -> Row:
    file = parts / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {"rows": [{"case": name, "skipped": "no time left"}]}


def unpack(data: Path | None, work: Path, frames: int) -> tuple[Path, Path | None]:
    """Clips of so many frames in the layout of DAVIS, and weights of RAFT-small where the pack has them."""
    packed = work / "pack"
    if data is not None:
        with tarfile.open(data) as tar:
            tar.extractall(packed, filter="data")
    for source in (DEMO, packed):
        for folder in sorted((source / "Annotations").glob("*")):
            copy_clip(source, folder.name, work / "data", frames)
    raft = packed / RAFT
    return work / "data", raft if raft.exists() else None


def copy_clip(root: Path, name: str, out: Path, frames: int) -> None:
    """The first frames of a clip with their truth."""
    files = davis_sequence(root, name)
    for path in files.frames[:frames]:
        for kind, source in (("JPEGImages", path), ("Annotations", files.annotations[path.stem])):
            place = out / kind / name / source.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def pack(args: argparse.Namespace) -> int:
    """Write the tar that travels.

    Raises:
        SystemExit: It is too large.
    """
    with tempfile.TemporaryDirectory() as work:
        for name in args.sequences.split(",") if args.root else []:
            copy_clip(args.root, name, Path(work), FRAMES)
        if args.raft:
            shutil.copyfile(args.raft, Path(work) / RAFT)
        with tarfile.open(args.pack, "w") as tar:
            for path in sorted(Path(work).iterdir()):
                tar.add(path, path.name)
    mib = args.pack.stat().st_size / 2**20
    if mib > args.mib:
        args.pack.unlink()
        raise SystemExit(f"gpu_check: the pack would be {mib:.1f} MiB, at most {args.mib:g}: name fewer clips")
    print(f"{args.pack}: {mib:.1f} MiB")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default="cuda", help="cuda, cuda:N or cpu")
    add("--quick", action="store_true", help="tiny sizes: only whether it runs")
    add("--data", type=Path, metavar="FILE", help="what --pack wrote")
    add("--out", type=Path, default=Path(os.environ.get("OUT", "gpu_check")), metavar="DIR", help="gpu_check.md, .json")
    add("--minutes", type=float, help=f"for all checks; default {MINUTES[False]:g}, with --quick {MINUTES[True]:g}")
    add("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    packing = parser.add_argument_group("packing")
    packing.add_argument("--pack", type=Path, metavar="FILE", help="write the data that a bare machine needs")
    packing.add_argument("--root", type=Path, metavar="DAVIS", help="data set in the layout of DAVIS")
    packing.add_argument("--sequences", default="", metavar="A,B", help="its clips, of which the first frames go in")
    packing.add_argument("--raft", type=Path, metavar="FILE", help="weights of RAFT-small, .safetensors")
    packing.add_argument("--mib", type=float, default=PACK_MIB, help="most that the pack may take, MiB")
    add("--check", nargs="+", help=argparse.SUPPRESS)
    add("--bench", help=argparse.SUPPRESS)
    add("--parts", type=Path, help=argparse.SUPPRESS)
    add("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
