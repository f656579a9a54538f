# SPDX-License-Identifier: Apache-2.0
"""What is right, how fast is it, and what fails on a GPU? Everything in six minutes, as tables and as JSON.

Needs torch, torchvision, OpenCV, onnxruntime and what a checkout holds: no ROS, no network, no installation. Every
check has a process of its own, so that one that fails, hangs or breaks the device does not end the others.

    python tools/gpu_check.py --pack PACK.tar --root DAVIS --sequences A,B --raft raft_small.safetensors   # beforehand
    python tools/gpu_check.py --data PACK.tar --out OUT                                                    # on the GPU
    python tools/gpu_check.py --device cpu --quick --out OUT                                               # anywhere

Without --data the demo clip is followed, and RAFT has random weights. Ends with 1 where something failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from gpu_bench import FULL, QUICK, Bench, Beyond, Row, Skipped  # noqa: E402
from gpu_checks import CHECKS  # noqa: E402

from maskrnn_ros.evaluation.readers import folder_names  # noqa: E402
from maskrnn_ros.files import davis_sequence  # noqa: E402
from maskrnn_ros.tracking.tracker import choose_device  # noqa: E402

DEMO = ROOT / "maskrnn_ros" / "data" / "tabletop"
RAFT = "raft_small.safetensors"
PACK_MIB = 28
"""Of all packs together; what travels to a borrowed machine is limited."""


def run_check(name: str, bench: Bench, file: Path, until: float) -> None:
    """Run the cases of a check; the file has what is done after each of them."""
    rows: list[Row] = []
    try:
        for case, measure in CHECKS[name](bench):
            if time.time() > until:
                rows.append({"case": case, "skipped": "no time left"})
                continue
            rows.append({"case": case, **run_case(measure)})
            print(_line(rows[-1]), flush=True)
            file.write_text(json.dumps({"rows": rows}))
    except Exception as error:
        traceback.print_exc()
        rows.append({"case": "-", "error": _short(error)})
    file.write_text(json.dumps({"rows": rows, "done": True}))


def run_case(measure: Callable[[], Row]) -> Row:
    """The figures of a case, or why there are none."""
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
        bench = Bench(**{**json.loads(args.bench), "extent": QUICK if args.quick else FULL})
        paths = {name: Path(getattr(bench, name)) for name in ("root", "work")}
        bench = dataclasses.replace(bench, **paths, raft=Path(bench.raft) if bench.raft else None)
        run_check(args.check, bench, Path(args.report), args.until)
        return 0
    try:
        choose_device(args.device)
    except RuntimeError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        return run_all(args, Path(work))


def run_all(args: argparse.Namespace, work: Path) -> int:
    """Every check in a process of its own; 1 where something failed."""
    extent = QUICK if args.quick else FULL
    root, raft = unpack(args.data, work, extent.frames)
    bench = {"device": args.device, "root": str(root), "raft": raft and str(raft), "work": str(work)}
    until = time.time() + 60 * (args.minutes or extent.minutes)
    found: dict[str, Row] = {}
    for name in args.only or CHECKS:
        print(f"{name}:", flush=True)
        begin = time.time()
        found[name] = {**_in_own_process(name, bench, args.quick, work, until), "s": time.time() - begin}
        (args.out / "gpu_check.json").write_text(json.dumps(found, indent=2) + "\n")
    text = "\n".join(table(name, one) for name, one in found.items())
    (args.out / "gpu_check.md").write_text(text)
    print(f"\n{text}")
    failed = [name for name, one in found.items() if any("error" in row for row in one["rows"])]
    print(f"failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


def _in_own_process(name: str, bench: Row, is_quick: bool, work: Path, until: float) -> Row:
    left = until - time.time()
    if left < 5:
        return {"rows": [{"case": name, "skipped": "no time left"}]}
    report = work / f"{name}.json"
    command = [sys.executable, __file__, "--check", name, "--bench", json.dumps(bench), "--report", str(report)]
    # a case that has begun is let end, but not for long
    command += ["--until", str(until), *(["--quick"] if is_quick else [])]
    try:
        status: int | str = subprocess.run(command, timeout=left + 30).returncode
    except subprocess.TimeoutExpired:
        status = "no answer"
    known = json.loads(report.read_text()) if report.exists() else {"rows": []}
    if status or not known.get("done"):
        known["rows"].append({"case": "-", "error": f"the process ended with {status}"})
    return {"rows": known["rows"]}


def unpack(data: Path | None, work: Path, frames: int) -> tuple[Path, Path | None]:
    """Clips of so many frames in the layout of DAVIS, and weights of RAFT-small where the pack has them."""
    source = DEMO
    if data is not None:
        source = work / "pack"
        with tarfile.open(data) as tar:
            tar.extractall(source, filter="data")
    for name in folder_names(source, "Annotations"):
        copy_clip(source, name, work / "data", frames)
    raft = source / RAFT
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
        for root, names in ((DEMO, ["tabletop"]), (args.root, args.sequences.split(",") if args.root else [])):
            for name in names:
                copy_clip(root, name, Path(work), FULL.frames)
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
    add("--minutes", type=float, help=f"for all checks; default {FULL.minutes:g}, with --quick {QUICK.minutes:g}")
    add("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    packing = parser.add_argument_group("packing")
    packing.add_argument("--pack", type=Path, metavar="FILE", help="write the data that a bare machine needs")
    packing.add_argument("--root", type=Path, metavar="DAVIS", help="data set in the layout of DAVIS")
    packing.add_argument("--sequences", default="", metavar="A,B", help="its clips, of which the first frames go in")
    packing.add_argument("--raft", type=Path, metavar="FILE", help="weights of RAFT-small, .safetensors")
    packing.add_argument("--mib", type=float, default=PACK_MIB, help="most that the pack may take, MiB")
    for name in ("--check", "--bench", "--report"):
        add(name, help=argparse.SUPPRESS)
    add("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
