# SPDX-License-Identifier: Apache-2.0
"""Sends a mask from a file, points or a box to the tracker and says what became of it."""

from __future__ import annotations

import math
import uuid
from pathlib import Path

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from maskrnn_ros.image_messages import fill_image, label_image_data, ns_to_stamp
from maskrnn_ros.labels import read_labels
from maskrnn_ros.msg import SeedResult
from maskrnn_ros.prompts import Prompt
from maskrnn_ros.ros.messages import prompt_message
from maskrnn_ros.ros.qos import client_node, reliable, spin_until, wait_for_answers, wait_for_subscribers
from maskrnn_ros.ros.tracker_client import seed_request
from maskrnn_ros.srv import AddInstances
from maskrnn_ros.tracking.prompted import PromptedInstance, PromptSeed
from maskrnn_ros.types import Seed

APPLIED, REJECTED, TIMEOUT = 0, 1, 2
"""Exit codes."""


def publish_seed(
    mask_path: Path | str,
    topic: str = "/tracker/seed_mask",
    stamp_ns: int = 0,
    timeout_s: float = 10.0,
    result_topic: str = "/tracker/seed_result",
    threshold: int | None = None,
) -> int:
    """Publish a label image as a seed, wait for its result, and print that.

    Args:
        mask_path: Indexed or grey image: value = id, 0 = background; only 0 and 255 = one new instance.
        topic: Where the tracker takes seeds.
        stamp_ns: Stamp of the image that the mask was drawn on, ns; 0 = the next image.
        timeout_s: Longest wait for the tracker, and then for its result, seconds.
        result_topic: Where the tracker answers.
        threshold: For a soft mask of one object, see ``labels.read_labels``.

    Returns:
        0 where the seed was applied, 1 where it was rejected, 2 where the time ran out.

    Raises:
        ValueError: The file holds no seed, the stamp is negative, or the time is none.
        OSError: The file cannot be read.
    """
    # checked here: the mistake is named before a tracker is waited for
    if not 0 <= timeout_s < math.inf:
        raise ValueError(f"timeout must be >= 0 s and finite, got {timeout_s:g}")
    seed = Seed(stamp_ns=stamp_ns, labels=read_labels(mask_path, threshold))
    message = _message(seed)
    final: list[SeedResult] = []

    def on_result(result: SeedResult) -> None:
        if result.header != message.header:
            return  # of another client
        if result.status == SeedResult.STATUS_PENDING:
            print(f"pending: {result.reason}", flush=True)
        else:
            final.append(result)

    with client_node("maskrnn_seed") as (node, executor):
        publisher = node.create_publisher(Image, topic, reliable(1))
        node.create_subscription(SeedResult, result_topic, on_result, reliable(10))
        tracker = result_topic.rpartition("/")[0]
        try:
            wait_for_subscribers(executor, [publisher], timeout_s)
            wait_for_answers(node, executor, [result_topic], tracker, timeout_s)
        except TimeoutError as error:
            print(f"timeout: {error}", flush=True)
            return TIMEOUT
        publisher.publish(message)
        if not spin_until(executor, lambda: bool(final), timeout_s):
            print(f"timeout: no result on {result_topic}; waited {timeout_s:g} s", flush=True)
            return TIMEOUT
    return _conclude(final[0])


def send_prompt(
    prompt: Prompt,
    instance_id: int = 0,
    service: str = "/tracker/add_instances",
    stamp_ns: int = 0,
    timeout_s: float = 10.0,
    result_topic: str = "/tracker/seed_result",
) -> int:
    """Ask the tracker to start or correct an instance by points or a box, wait for the result, and print that.

    Args:
        prompt: Box and points on the object, pixels of the image.
        instance_id: The instance to correct; 0 = a new one.
        service: Where the tracker takes it.
        stamp_ns: Stamp of the image that is meant, ns; 0 = the next image.
        timeout_s: Longest wait for the tracker, and then for its result, seconds.
        result_topic: Where the tracker answers.

    Returns:
        As ``publish_seed``.

    Raises:
        ValueError: The prompt makes no seed, or the stamp is negative.
    """
    # checked here: the mistake is named before a tracker is waited for
    PromptSeed(stamp_ns=stamp_ns, prompted=(PromptedInstance(prompt=prompt, instance_id=instance_id),))
    header = Header()
    ns_to_stamp(stamp_ns, header.stamp)
    request = seed_request([prompt_message(prompt, instance_id)], header)
    final: list[SeedResult] = []

    def on_result(result: SeedResult) -> None:
        if result.token == request.token and result.status != SeedResult.STATUS_PENDING:
            final.append(result)

    with client_node("maskrnn_seed") as (node, executor):
        client = node.create_client(AddInstances, service)
        node.create_subscription(SeedResult, result_topic, on_result, reliable(10))
        try:
            if not spin_until(executor, client.service_is_ready, timeout_s):
                raise TimeoutError(f"no service {service}; waited {timeout_s:g} s")
            wait_for_answers(node, executor, [result_topic], result_topic.rpartition("/")[0], timeout_s)
        except TimeoutError as error:
            print(f"timeout: {error}", flush=True)
            return TIMEOUT
        answer = client.call_async(request)
        if not spin_until(executor, lambda: answer.done() or bool(final), timeout_s):
            print(f"timeout: no answer of {service}; waited {timeout_s:g} s", flush=True)
            return TIMEOUT
        if answer.done() and not answer.result().success:
            print(f"rejected: {answer.result().message}")
            return REJECTED
        if not spin_until(executor, lambda: bool(final), timeout_s):
            print(f"timeout: no result on {result_topic}; waited {timeout_s:g} s", flush=True)
            return TIMEOUT
    return _conclude(final[0])


def _message(seed: Seed) -> Image:
    message = Image()
    ns_to_stamp(seed.stamp_ns, message.header.stamp)
    # the tracker copies the header into its result: so ours is told from that of another client
    message.header.frame_id = f"seed_{uuid.uuid4().hex}"
    encoding = "mono8" if seed.labels.max() <= 255 else "mono16"
    fill_image(message, label_image_data(seed.labels, encoding), encoding)
    return message


def _conclude(result: SeedResult) -> int:
    if result.status == SeedResult.STATUS_APPLIED:
        ids = ", ".join(map(str, result.ids))
        print(f"applied: ids {ids}; {result.frames_used} frames caught up in {result.duration:.2f} s")
        return APPLIED
    print(f"rejected: {result.reason}")
    return REJECTED
