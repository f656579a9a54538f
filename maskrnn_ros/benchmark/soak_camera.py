# SPDX-License-Identifier: Apache-2.0
"""The camera of the soak: a process that publishes the benchmark's scene and adds, corrects and removes instances.

It prints a line for each image, its stamp and number, and a line of JSON for each request and each answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from maskrnn_ros.benchmark.latency_camera import Camera
from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.image_messages import ns_to_stamp
from maskrnn_ros.ros.messages import mask_prompt
from maskrnn_ros.ros.qos import client_node, spin_until
from maskrnn_ros.srv import AddInstances, RemoveInstances

KINDS = ("add", "correct", "remove")
_WITHOUT = float("inf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--scene", type=int, nargs=3, required=True, metavar=("WIDTH", "HEIGHT", "OBJECTS"))
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--every", type=float, required=True, help="seconds between two requests; 0: none")
    args = parser.parse_args(arguments)
    width, height, objects = args.scene
    scene = Scene(width, height, objects + 1)  # the last one comes and goes
    with client_node("maskrnn_soak_camera") as (node, executor):
        camera = Camera(scene, node, executor, args.namespace, marked=objects)
        requests = Requests(scene, node, f"{args.namespace}/tracker")
        camera.seed()
        begin = due = time.monotonic()
        asked = begin + args.every if args.every else _WITHOUT
        while due < begin + args.seconds:
            stamp_ns, number = time.time_ns(), camera.number
            print(stamp_ns, number, flush=True)  # before it is published: who hears of its masks knows it
            camera.publish(stamp_ns)
            if time.monotonic() >= asked:
                requests.ask(stamp_ns, number)
                asked += args.every
            due = max(due + 1 / args.rate, time.monotonic() - 1 / args.rate)  # what was missed is not made up for
            spin_until(executor, lambda: False, due - time.monotonic())
    return 0


class Requests:
    """Adds an instance, corrects one, removes what was added, in turn; masks are exact.

    Args:
        scene: Its last object comes and goes, the others are followed throughout.
        node: Makes the clients.
        tracker: Name of the tracker's node.
    """

    def __init__(self, scene: Scene, node: Any, tracker: str) -> None:
        self._scene = scene
        self._turn = itertools.count()
        self._added = 0
        self._add = node.create_client(AddInstances, f"{tracker}/add_instances")
        self._remove = node.create_client(RemoveInstances, f"{tracker}/remove_instances")

    def ask(self, stamp_ns: int, number: int) -> None:
        """Make the next request, about the image that was just published."""
        turn = next(self._turn)
        kind = KINDS[turn % len(KINDS)]
        if kind == "remove":
            if self._added:
                self._send(f"remove {turn}", kind, self._remove, RemoveInstances.Request(ids=[self._added]))
            self._added = 0
            return
        body, instance = self._target(kind, turn // len(KINDS))
        prompt = mask_prompt(self._scene.labels(number) == body, instance)
        request = AddInstances.Request(token=f"{kind} {turn}", prompts=[prompt])
        ns_to_stamp(stamp_ns, request.stamp)
        self._send(request.token, kind, self._add, request)

    def _target(self, kind: str, cycle: int) -> tuple[int, int]:
        """Which object of the scene to mark, and the id of its instance."""
        last = self._scene.objects
        if kind == "add":
            return last, 0
        body = cycle % last + 1
        if body < last:
            return body, body
        return (last, self._added) if self._added else (1, 1)

    def _send(self, token: str, kind: str, client: Any, request: Any) -> None:
        print(json.dumps({"asked": token, "kind": kind}), flush=True)

        def answered(future: Any) -> None:
            answer = future.result()
            if kind == "add" and answer.success:
                self._added = answer.ids[0]
            line = {"answered": token, "success": answer.success, "message": answer.message, "ids": list(answer.ids)}
            print(json.dumps(line), flush=True)

        client.call_async(request).add_done_callback(answered)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, TimeoutError) as error:
        print(f"camera: {error}", file=sys.stderr)
        sys.exit(1)
