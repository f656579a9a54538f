# SPDX-License-Identifier: Apache-2.0
"""The node ``tracker``: camera images and seeds in, instance masks out.

Callbacks only hand over messages (``Inbox``); one thread owns the tracker (``Worker``); this file is the wiring
between both and the topics. A single-threaded executor serves the callbacks: measured, it answers sooner than a
multi-threaded one.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.config import Config
from maskrnn_ros.image_messages import NS_PER_S, compressed_to_rgb, image_to_rgb, ns_to_stamp, stamp_to_ns
from maskrnn_ros.limits import MAX_IDS, MAX_WAITING, Rate, check_frame_id, check_number, text_line
from maskrnn_ros.ros import parameters
from maskrnn_ros.ros.guard import guard_transitions, transition
from maskrnn_ros.ros.image_source import ImageSource, Source
from maskrnn_ros.ros.messages import Ticket, bounded, seed_from_message
from maskrnn_ros.ros.process import run_node
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.srv import AddInstances, RemoveInstances
from maskrnn_ros.timeline import StampOrder, TimeRule
from maskrnn_ros.tracker_node.detections import vision_msgs
from maskrnn_ros.tracker_node.ignore_masks import IgnoreMasks
from maskrnn_ros.tracker_node.inbox import Arrival, Inbox
from maskrnn_ros.tracker_node.interfaces import INTERFACES as INTERFACES
from maskrnn_ros.tracker_node.outputs import Outputs
from maskrnn_ros.tracker_node.prompt_inputs import PromptInputs
from maskrnn_ros.tracker_node.reports import Reports
from maskrnn_ros.tracker_node.requests import seed_from_request
from maskrnn_ros.tracker_node.results import Result
from maskrnn_ros.tracker_node.store import Store
from maskrnn_ros.tracker_node.worker import Snapshot, Worker
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.ahead import Ahead
from maskrnn_ros.tracking.build import warm_up
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.prompted import SeedT
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, Session
from maskrnn_ros.types import Frame, UInt8Array

_SHARE_FOR_DROPPED = 0.25
"""Share of ``buffer.megabytes``, on top, for images that were dropped unprocessed."""
_DEPTH = 10
_POLL_S = 0.2
_WATCH_S = 0.5
_AWAY_S = 5.0
"""Without a look at the worker: the whole process stood still (SIGSTOP, docker pause), or was starved."""
_END_S = 1.0
"""Time for the worker to end the step in hand when the process ends."""
_SAVE_S = 0.3
"""Likewise, to write what is kept."""


class TrackerNode(LifecycleNode):
    """See the module; topics, services and parameters are listed in the README.

    Args:
        build: Makes the tracker of a new video; tests put a slow one in.
        arguments: Further arguments of ``rclpy.lifecycle.LifecycleNode``.

    Raises:
        ValueError: A parameter override is of the wrong type or out of range.
    """

    def __init__(self, build: Callable[[Config], Tracker] = build_tracker, **arguments: Any) -> None:
        super().__init__("tracker", **arguments)
        parameters.declare(self)
        self._build = build
        self._config = Config()
        self._configured = False
        self._depth = BitDepth()
        self._depth_session = 0
        self._depth_lock = threading.Lock()  # two threads convert images
        self._next_session = 1
        self._ids = IdBook()
        self.run_id = uuid.uuid4().hex  # no counter in a file: another one after any start, whatever ended the last
        self._rate = Rate()
        self._outputs = Outputs(self, self.run_id)
        self._reports = Reports(
            self,
            self._outputs,
            self.run_id,
            inbox=lambda: self._inbox,
            seen=lambda: self._worker.snapshot if self._worker else Snapshot(),
            ignored=lambda: self._ignored.counts,
        )
        self._order = StampOrder[Arrival](TimeRule.of(self._config))
        self._inbox = Inbox(0)
        self._session: Session | None = None
        self._worker: Worker | None = None
        self._ignored = self._new_ignored()
        self._sources: list[Source] = []
        self._inputs: PromptInputs | None = None
        self._handles: list[tuple[Callable[[Any], bool], Any]] = []
        self._store: Store | None = None
        self._watched_s = time.monotonic()
        self.failure = ""  # why the node cannot go on, in one line
        self.add_on_set_parameters_callback(self._on_parameters)
        self._create_services()
        guard_transitions(self)

    # --- lifecycle ---

    @transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up; a device that is absent or a value that makes no sense fails here, in one line."""
        try:
            self._config = parameters.read(self)
            self._depth = BitDepth(self._config.mono16_bits, self.get_logger().warning)
            set_threads(self._config.threads)
            warm_up(self._build(self._config))
            self._ids = IdBook()
            self._order = StampOrder[Arrival](TimeRule.of(self._config))
            self._open_store()
            self._session = Session(
                self._config,
                self._build,
                self._ids,
                report=self._report_seed,
                announce=self._announce_from_worker,
                number=self._next_session,
                saved=self._store.saved if self._store else None,
                keep=self._store.put if self._store else None,
            )
            self._session.fault = partial(self._reports.refuse, "background")
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            self._close_store()
            self.get_logger().error(f"cannot configure: {error or type(error).__name__}")
            return TransitionCallbackReturn.FAILURE
        self._configured = True
        if vision_msgs is None:
            self.get_logger().info("vision_msgs is not installed: there is no ~/seed_box and no ~/detections")
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        assert self._session is not None  # the lifecycle lets nothing activate that was not configured
        self._reports.begin(self._session.tracker.device)
        if self._store is not None and self._store.refusal:  # at configure, when nobody counted yet
            self._reports.count("background", self._store.refusal)
            self._store.refusal = ""
        self._inbox = Inbox(
            self._dropped_bytes(), self._order, wanted=self._session.seeds.wants, enabled=self._inbox.enabled
        )
        self._ignored = self._new_ignored()
        self._worker = Worker(
            self._session,
            self._inbox,
            convert=self._convert,
            publish=self._publish,
            reject=partial(self._reports.refuse_at_once, "image"),
            crash=partial(self._reports.refuse_at_once, "internal"),
            ignored=self._ignored.of,
            ahead=Ahead(self._config) if self._config.while_busy == "propagate" else None,
        )
        queue = self._session.seeds
        self._inputs = PromptInputs(
            self,
            take=self._take_seed,
            reject=self._reject_seed,
            live=lambda: self._ids.live,
            marked=lambda: queue.marked,
            config=lambda: self._config,
        )
        super().on_activate(state)
        self._watched_s = time.monotonic()
        self._worker.start()
        images = self._subscribe()
        seeds = self.create_subscription(Image, "~/seed_mask", self._on_seed, _DEPTH)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a paused /clock must not silence the status
        timer = self.create_timer(self._config.status_period, self._on_timer, clock=steady)
        watch = self.create_timer(_WATCH_S, self._watch, clock=steady)
        self._handles = [
            (self.destroy_subscription, seeds),
            (self.destroy_timer, timer),
            (self.destroy_timer, watch),
        ]
        tracker = self._session.tracker
        networks = f"{tracker.engine} {tracker.precision}" if tracker.engine else "no networks"
        self.get_logger().info(f"active on {tracker.device}, {networks}: images from {images.topic}")
        return TransitionCallbackReturn.SUCCESS

    def _subscribe(self) -> Source:
        """Subscribe to ignore masks and images; gives that of the images.

        The executor serves subscriptions in the order in which they were made: of a mask and an image that are both
        there the mask comes first.
        """
        ignored = Source(
            self, Image, "~/ignore_mask", reliability="auto", setting="nothing", callback=self._ignored.put
        )
        images = ImageSource(
            self,
            compressed=self._config.compressed,
            reliability=self._config.image_reliability,
            callback=self._on_image,
        )
        self._sources = [images, ignored]
        return images

    def _new_ignored(self) -> IgnoreMasks:
        return IgnoreMasks(
            self._dropped_bytes(),
            lambda: self._config.ignore_mask_timeout,
            partial(self._reports.refuse, "ignore mask"),
        )

    @transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop; instances and buffer stay for the next activation."""
        if not self._stop():
            return TransitionCallbackReturn.ERROR
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configure loaded."""
        if self._session is not None:
            self._next_session = self._session.number + 1
            self._outputs.forget()
        self._session = None
        self._close_store()
        self._configured = False
        gc.collect()  # a session that has worked is in cycles, and holds the networks with their threads
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state to the end."""
        if not self._stop():
            return TransitionCallbackReturn.ERROR
        return self.on_cleanup(state)

    @transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a fault in a transition: begin anew, unless the worker holds what there is."""
        if not self._stop():
            return TransitionCallbackReturn.FAILURE
        return self.on_cleanup(state)

    def _open_store(self) -> None:
        """With ``persist_dir``: what an earlier process left, whose ids live from now on."""
        if not self._config.persist_dir:
            return
        self._store = Store(self._config, self.get_fully_qualified_name(), partial(self._reports.refuse, "background"))
        saved = self._store.saved
        if saved is not None:
            self._ids.take_up([instance.instance_id for instance in saved.instances], saved.used)
            self._next_session = max(self._next_session, saved.session + 1)

    def _close_store(self, timeout_s: float | None = None) -> None:
        if self._store is not None:
            self._store.close(timeout_s)
        self._store = None

    def _stop(self) -> bool:
        """Stop hearing and working; False where the worker does not end."""
        for source in self._sources:
            source.close()
        self._sources = []
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        for destroy, handle in self._handles:
            destroy(handle)
        self._handles = []
        if self._worker is not None:
            while not self._worker.stop(timeout_s=_POLL_S):
                self.failure = self.failure or self._worker.fault(self._config.watchdog.worker_s)
                if self.failure:
                    self._end_seeds(self.failure)
                    return False
            self._worker = None
            assert self._session is not None  # it is what the worker worked on
            self._session.give_up("the node was deactivated")
            self._end_seeds("the node was deactivated")
        return True

    @property
    def is_working(self) -> bool:
        """Whether the worker's thread runs."""
        return self._worker is not None and self._worker.is_alive

    def close(self) -> None:
        """End the worker and the node, in whatever state they are; a worker that does not end in time is left."""
        if self._worker is not None and not self._worker.stop(finish=False, timeout_s=_END_S):
            self.get_logger().error(f"the worker does not end and is abandoned: {self._worker.doing}")
            self._end_seeds("the node was stopped")
            return
        self._stop()
        self._close_store(_SAVE_S)
        self.destroy_node()

    def _create_services(self) -> None:
        for kind, name, answer in (
            (AddInstances, "~/add_instances", self._add_instances),
            (RemoveInstances, "~/remove_instances", self._remove_instances),
            (Trigger, "~/reset", self._reset),
            (SetBool, "~/enable", self._enable),
        ):
            self.create_service(kind, name, partial(self._answer, answer))

    # --- callbacks: they hand over and return ---

    def _on_image(self, message: Any) -> None:
        try:
            check_frame_id(message.header.frame_id)
            stamp_ns = stamp_to_ns(message.header.stamp)
        except ValueError as error:
            stamp = message.header.stamp
            self._inbox.refuse_image(stamp.sec * NS_PER_S + stamp.nanosec)
            self._reports.refuse_at_once("image", f"image: {error}")
            return
        before = self._inbox.counts.held_stamps
        for refusal in self._inbox.put_image(message, stamp_ns):
            self._reports.refuse_at_once("image", f"image {refusal.stamp_ns}: {refusal.reason}")
        held = self._inbox.counts.held_stamps
        if stamp_ns in held and held != before:
            self._reports.status(f"image {stamp_ns} is held back: time may have jumped")

    def _on_seed(self, message: Any) -> None:
        try:
            self._rate.check("seeds and requests")
            self._check_room()
            assert self._worker is not None  # seeds come while active only
            seen = self._worker.snapshot
            # without instances the stream may change its size
            self._take_seed(message.header, seed_from_message(message, seen.size if seen.ids else None))
        except ValueError as error:
            self._reject_seed(message.header, str(error))

    def _reject_seed(self, header: Any, reason: str) -> None:
        self._reports.reject_seed(Ticket(header=bounded(header)), (), reason)

    def _end_seeds(self, reason: str) -> None:
        """Tell whoever still waits for a verdict: what owed it does not work any more."""
        if self._session is None:
            return
        for told in self._session.seeds.end_all(reason):
            ticket = told.request.ticket
            assert isinstance(ticket, Ticket)
            self._reports.reject_seed(ticket, told.ids, told.reason)

    def _take_seed(self, header: Any, seed: SeedT, frame: Frame | None = None, token: str = "") -> SeedT:
        """Hand a seed to the worker; gives it back with its ids settled."""
        check_frame_id(header.frame_id)
        self._check_room()
        own = (lambda: self._with_ignored(frame)) if frame is not None else self._dropped_frame(seed.stamp_ns)
        admission = self._ids.admit(seed, self._config)  # last of what may refuse: who admits must hand over
        ticket = Ticket(header=header, token=token)
        request = SeedRequest(ticket=ticket, admission=admission, arrived=time.monotonic(), frame=own)
        assert self._session is not None  # seeds come while active only
        self._session.seeds.arrive(request)
        self._inbox.put_request(partial(self._session.seed, request))
        return admission.seed

    def _check_room(self) -> None:
        """Refuse another seed where many wait: each may be as large as an image."""
        waiting = self._inbox.requests_waiting + (self._worker.snapshot.seeds_waiting if self._worker else 0)
        if waiting >= MAX_WAITING:
            raise ValueError(f"expected at most {MAX_WAITING} seeds and requests that wait, got one more")

    def _dropped_frame(self, stamp_ns: int) -> Callable[[], Frame] | None:
        """Gives the dropped image of that stamp; it is converted by the worker, if at all."""
        message = self._inbox.dropped_image(stamp_ns)
        if message is None:
            return None
        return lambda: self._with_ignored(Frame(stamp_ns=stamp_ns, image=self._convert(message)))

    def _with_ignored(self, frame: Frame) -> Frame:
        return dataclasses.replace(frame, ignored=self._ignored.of(frame.stamp_ns, frame.size))

    def _convert(self, message: Any) -> UInt8Array:
        assert self._session is not None
        with self._depth_lock:
            if self._session.number != self._depth_session:  # a new video, perhaps of another camera
                self._depth_session = self._session.number
                self._depth.reset()
            return (compressed_to_rgb if self._config.compressed else image_to_rgb)(message, self._depth)

    def _on_parameters(self, changes: list[Any]) -> SetParametersResult:
        try:
            self._change(changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:
            self.fault("a parameter", error)
            reason = text_line(f"internal error: {type(error).__name__}: {error}")
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _change(self, changes: list[Any]) -> None:
        config = parameters.changed(self._config, changes, running=self._configured)
        parameters.settle(self, changes)
        if self._configured and config != self._config:
            self._config = config
            self._inbox.dropped_bytes = self._dropped_bytes()
            self._order.rule = TimeRule.of(config)
            assert self._session is not None
            if self._worker is not None:
                self._inbox.put_request(partial(self._session.configure, config))
            else:
                self._session.configure(config)

    def _dropped_bytes(self) -> int:
        return round(self._config.buffer.megabytes * 1e6 * _SHARE_FOR_DROPPED)

    def _on_timer(self) -> None:
        status = self._reports.status("")
        self._reports.diagnose(
            status,
            self._config.watchdog,
            failure=self.failure,
            silent_s=self._worker.silent_s if self._worker else 0.0,
            publishers=self._sources[0].publishers if self._sources else 0,
            lost=self._worker.snapshot.lost if self._worker else 0,
            ids_left=self._ids.left(self._config),
        )

    def _watch(self) -> None:
        """End in the lifecycle's error state where the worker is of no use any more; the process ends after that."""
        now = time.monotonic()
        away_s, self._watched_s = now - self._watched_s, now
        if self._worker is None or self.failure:
            return
        if away_s > _AWAY_S:
            self._worker.excuse(away_s)
        self.failure = self._worker.fault(self._config.watchdog.worker_s)
        if self.failure:
            self.get_logger().fatal(f"{self.failure}: the node ends, so that it can be started anew")
            self._on_timer()  # the last status and diagnosis say why
            self.trigger_deactivate()

    # --- services: answered at once, carried out by the worker in order of time ---

    def _answer(self, answer: Callable[[Any, Any], None], request: Any, response: Any) -> Any:
        try:
            if self._worker is None:
                raise ValueError("the node must be active, it is not")
            self._rate.check("seeds and requests")
            answer(request, response)
            response.success = True
        except ValueError as error:
            self._reports.refuse("request", f"request: {error}")
            response.success, response.message = False, text_line(str(error))
        except Exception as error:  # a fault of ours: who asked must hear of it
            self.fault("a service", error)
            response.success = False
            response.message = text_line(f"internal error: {type(error).__name__}: {error}")
        return response

    def _add_instances(self, request: Any, response: Any) -> None:
        assert self._worker is not None
        self._check_room()
        seed, frame = seed_from_request(request, self._worker.snapshot.size, self._depth)
        header = Header()
        ns_to_stamp(seed.stamp_ns, header.stamp)
        settled = self._take_seed(header, seed, frame, request.token)
        response.ids = [item.instance_id for item in settled.prompted]
        response.message = "taken; the outcome is said on ~/seed_result"

    def _remove_instances(self, request: Any, response: Any) -> None:
        stamp_ns = stamp_to_ns(request.stamp)
        check_number("ids", request.ids, MAX_IDS)
        ids = tuple(sorted(set(request.ids)))
        assert self._session is not None and self._worker is not None
        if stamp_ns > self._worker.snapshot.newest_ns:
            self._ids.check(ids)  # they live until then
        else:
            self._ids.remove(ids)
        self._inbox.put_request(partial(self._session.remove, ids, stamp_ns))
        response.ids = list(ids)

    def _reset(self, request: Any, response: Any) -> None:
        self._ids.clear()
        for refusal in self._inbox.forget_time():
            self._reports.refuse_at_once(
                "image", f"image {refusal.stamp_ns}: {refusal.reason}; then ~/reset was called"
            )
        assert self._session is not None and self._inputs is not None
        self._inputs.forget()
        self._inbox.put_request(partial(self._session.reset, "~/reset was called"))

    def _enable(self, request: Any, response: Any) -> None:
        self._inbox.enabled = bool(request.data)
        self._reports.announce("enabled" if request.data else "disabled: images are dropped")

    # --- called by the worker ---

    def _publish(self, result: Result) -> None:
        if self._inputs is not None:
            self._inputs.newest = result
        self._outputs.publish(result, self._config)

    def _report_seed(self, outcome: SeedOutcome) -> None:
        line = self._reports.seed(outcome)
        if line:
            self._announce_from_worker(line)

    # --- called by both ---

    def _announce_from_worker(self, line: str) -> None:
        if self._worker is not None:
            self._worker.refresh()
        self._reports.announce(line)

    def fault(self, where: str, error: Exception) -> None:
        """Say, inside the handler, that our own code failed; the node goes on."""
        self._reports.refuse("internal", f"internal error in {where}: {type(error).__name__}: {error}")

    def refuse_transition(self, line: str) -> None:
        """Say that a lifecycle transition was asked for that is not possible."""
        self._reports.refuse("request", line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit status is 1 where it could not start."""
    return run_node("tracker", TrackerNode, arguments, _autostart)


def _autostart(node: TrackerNode) -> bool:
    if not node.get_parameter("autostart").value:
        return True
    transitions = (node.trigger_configure, node.trigger_activate)
    return all(transition() == TransitionCallbackReturn.SUCCESS for transition in transitions)
