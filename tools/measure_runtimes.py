# SPDX-License-Identifier: Apache-2.0
"""Would another inference runtime be faster? The shipped graphs in ONNX Runtime and in OpenVINO, by turns, in ms.

    pip install openvino
    python tools/measure_runtimes.py [--objects 1,4] [--threads 1,2] [--rounds 12] [--json FILE]

The inputs are those of a tracker on the benchmark's scene at 854x480. Of each call the median is given, and the median
of the ratios of each round; and by how much the outputs differ at most. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino

from maskrnn_ros.benchmark.measure import PERIOD_NS
from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.disk import write_text
from maskrnn_ros.model import files, onnx_engine
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Frame, Seed

GRAPHS = {
    "trunk": files.trunk_graph(files.TRUNK),
    "columns": files.columns_graph(files.TRUNK),
    "place": files.place_graph(files.DECODER),
    "look": files.look_graph(files.DECODER),
    "learn": files.learn_graph(files.DECODER),
}
_CALLS = 3
_FRAMES = 6

Feed = dict[str, np.ndarray]
Run = Callable[[], list[np.ndarray]]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", default="1,4", metavar="N,...", help="numbers of objects")
    parser.add_argument("--threads", default="1,2", metavar="N,...", help="threads of an operation")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each, of three calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    args = parser.parse_args()
    rows = []
    print(f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}")
    print(f"{'graph':8} objects threads  onnxruntime ms  openvino ms  ratio  largest difference")
    for objects in map(int, args.objects.split(",")):
        feeds = recorded(objects)
        for threads in map(int, args.threads.split(",")):
            for name, graph in GRAPHS.items():
                row = compared(graph, feeds[graph.name], threads, args.rounds)
                rows.append({"graph": name, "objects": objects, "threads": threads, **row})
                print(
                    f"{name:8} {objects:7} {threads:7}  {row['onnxruntime_ms']:14.2f}  {row['openvino_ms']:11.2f}  "
                    f"{row['ratio']:5.2f}  {row['difference']:.1e}",
                    flush=True,
                )
    if args.json is not None:
        write_text(args.json, json.dumps(rows, indent=2) + "\n")


def recorded(objects: int) -> dict[str, Feed]:
    """The last inputs of every graph, by its file's name, while a tracker follows so many objects."""
    feeds: dict[str, Feed] = {}

    class Recording(onnx_engine._Session):
        def __init__(self, file: Path, *args: Any) -> None:
            super().__init__(file, *args)
            self._file = file.name

        def __call__(self, *inputs: np.ndarray) -> list[Any]:
            feeds[self._file] = {name: np.array(one) for name, one in zip(self._names, inputs, strict=True)}
            return super().__call__(*inputs)

    original, onnx_engine._Session = onnx_engine._Session, Recording
    try:
        tracker = build_tracker(with_values(Config(), threads=1, engine="onnxruntime", precision="float32"))
    finally:
        onnx_engine._Session = original
    scene = Scene(854, 480, objects)
    tracker.seed(Seed(stamp_ns=PERIOD_NS, labels=scene.labels(0)), Frame(stamp_ns=PERIOD_NS, image=scene.image(0)))
    for number in range(1, _FRAMES):
        tracker.step(Frame(stamp_ns=PERIOD_NS * (number + 1), image=scene.image(number)))
    return feeds


def compared(graph: Path, feed: Feed, threads: int, rounds: int) -> dict[str, float]:
    """Both by turns."""
    one, other = of_onnxruntime(graph, feed, threads), of_openvino(graph, feed, threads)
    spent = np.array([[timed(run) for run in (one, other)] for _ in range(rounds)])
    medians = np.median(spent, axis=0)
    difference = max(float(np.nanmax(np.abs(a - b))) for a, b in zip(one(), other(), strict=True) if a.size)
    return {
        "onnxruntime_ms": float(medians[0]),
        "openvino_ms": float(medians[1]),
        "ratio": float(np.median(spent[:, 1] / spent[:, 0])),
        "difference": difference,
    }


def timed(run: Run) -> float:
    """Milliseconds of a call."""
    begin = time.perf_counter()
    for _ in range(_CALLS):
        run()
    return (time.perf_counter() - begin) * 1e3 / _CALLS


def of_onnxruntime(graph: Path, feed: Feed, threads: int) -> Run:
    """As the tracker runs it, but for the places of the threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def of_openvino(graph: Path, feed: Feed, threads: int) -> Run:
    """In float32, for the shortest time of one call."""
    wanted = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(graph), "CPU", wanted).create_infer_request()

    def run() -> list[np.ndarray]:
        request.infer(feed, share_inputs=True, share_outputs=True)
        return [np.array(request.get_output_tensor(k).data) for k in range(len(request.model_outputs))]

    return run


if __name__ == "__main__":
    main()
