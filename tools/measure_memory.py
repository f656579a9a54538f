# SPDX-License-Identifier: Apache-2.0
"""Does memory stay flat? Plays a clip forth and back for many frames through a session, prints memory on the way.

python tools/measure_memory.py --root DAVIS --sequence dog --frames 2000
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path

import yaml

from maskrnn_ros.config import Value, from_flat
from maskrnn_ros.files import binary_as_instance, davis_sequence, read_frame, read_labels
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.session import SeedRequest, Session
from maskrnn_ros.types import Frame, Seed

_PERIOD_NS = 41_666_667


def main() -> None:
    """Parse, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and Annotations/")
    parser.add_argument("--sequence", required=True, help="clip to play")
    parser.add_argument("--frames", type=int, default=2000, help="frames to process")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    args = parser.parse_args()
    chosen: dict[str, Value] = {"adaptation.mode": "blocking"}
    chosen.update((text.split("=", 1)[0], yaml.safe_load(text.split("=", 1)[1])) for text in args.set)
    config = from_flat(chosen)
    files = davis_sequence(args.root, args.sequence)
    ids = IdBook()
    session = Session(config, build_tracker, ids, report=lambda outcome: None)
    labels = binary_as_instance(read_labels(files.annotations[files.frames[0].stem]))
    admission = ids.admit(Seed(stamp_ns=_PERIOD_NS, labels=labels), config)
    session.seed(SeedRequest(ticket=None, admission=admission, arrived=0.0))
    there_and_back = itertools.cycle([*files.frames, *reversed(files.frames[1:-1])])
    rows = []
    for number, path in enumerate(itertools.islice(there_and_back, args.frames), start=1):
        session.process(Frame(stamp_ns=number * _PERIOD_NS, image=read_frame(path)))
        if number % max(1, args.frames // 8) == 0:
            rows.append({"frame": number, "rss_mb": _rss_mb(), "buffer_mb": session.buffer.nbytes / 1e6})
            print(
                "frame {frame:6d}   RSS {rss_mb:7.1f} MB   of it buffer {buffer_mb:6.1f} MB".format(**rows[-1]),
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
