# SPDX-License-Identifier: Apache-2.0
"""One fault ends nothing: callbacks, services, timers and transitions that raise, and what cannot be taken."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import world
from node_bench import Gate, NodeBench  # skips where ROS is absent, hence first

# isort: split

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from maskrnn_ros.ros import process as run
from maskrnn_ros.ros.ending import EXIT_CRASH, EXIT_NO_START
from maskrnn_ros.ros.guard import GuardedExecutor
from maskrnn_ros.tracker_node import node as node_module
from maskrnn_ros.tracker_node.inbox import Inbox


class Once:
    """Raises at its first call, then does what it replaces."""

    def __init__(self, real, error: Exception) -> None:
        self._real, self._error, self.calls = real, error, 0

    def __call__(self, *arguments, **named):
        self.calls += 1
        if self.calls == 1:
            raise self._error
        return self._real(*arguments, **named)


def change_state(bench: NodeBench, transition: int = 0, label: str = "") -> bool:
    request = ChangeState.Request()
    request.transition.id, request.transition.label = transition, label
    return bench.call(ChangeState, "change_state", request).success


def state(bench: NodeBench) -> int:
    return bench.call(GetState, "get_state", GetState.Request()).current_state.id


def wait_for_error(bench: NodeBench, text: str) -> None:
    bench.wait(
        lambda: any(
            array.status[0].level == DiagnosticStatus.ERROR and text in array.status[0].message
            for array in bench.diagnostics
        )
    )
    bench.wait(lambda: text in bench.statuses[-1].last_error)


def assert_it_tracks(bench: NodeBench, number: int) -> None:
    bench.seed(world.labels(number), world.stamp_ns(number))
    bench.image(number), bench.image(number + 1)
    np.testing.assert_array_equal(bench.labels, world.labels(number + 1))


@pytest.mark.parametrize(
    "asked", [{"transition": Transition.TRANSITION_CONFIGURE}, {"label": "activate"}, {"transition": 77}]
)
def test_a_transition_that_is_not_possible_is_answered_and_changes_nothing(asked: dict) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        assert not change_state(bench, **asked)
        assert state(bench) == State.PRIMARY_STATE_ACTIVE
        bench.wait(lambda: "transition must be one of those of the state active" in bench.statuses[-1].last_error)
        assert_it_tracks(bench, 0)
        assert change_state(bench, label="deactivate") and change_state(bench, label="activate")
        assert_it_tracks(bench, 2)


def test_a_callback_that_raises_is_said_and_the_next_image_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        once = Once(Inbox.put_image, KeyError("gone"))
        monkeypatch.setattr(Inbox, "put_image", lambda *arguments: once(*arguments))
        bench.publish_image(0)
        wait_for_error(bench, "internal error in the callback of /image: KeyError: 'gone'")
        assert_it_tracks(bench, 1)


def test_an_image_for_which_there_is_no_memory_silences_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        real = GuardedExecutor._take_subscription
        once = Once(real, MemoryError("no room"))

        def take(executor, subscription):
            is_image = subscription.topic_name == "/image"
            return once(executor, subscription) if is_image else real(executor, subscription)

        monkeypatch.setattr(GuardedExecutor, "_take_subscription", take)
        bench.publish_image(0)
        wait_for_error(bench, "internal error in taking a message of /image: MemoryError: no room")
        assert_it_tracks(bench, 1)


def test_a_timer_that_raises_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        monkeypatch.setattr(
            bench.node._reports, "status", Once(bench.node._reports.status, ZeroDivisionError("by none"))
        )
        wait_for_error(bench, "internal error in the callback of a timer: ZeroDivisionError: by none")
        bench.counts()


def test_a_service_that_raises_answers_with_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        reports = bench.node._reports
        monkeypatch.setattr(reports, "announce", Once(reports.announce, TypeError("not that")))
        answer = bench.call(SetBool, "enable", SetBool.Request(data=True))
        assert (answer.success, answer.message) == (False, "internal error: TypeError: not that")
        wait_for_error(bench, "internal error in a service: TypeError: not that")
        assert bench.call(SetBool, "enable", SetBool.Request(data=True)).success


def test_a_parameter_that_cannot_be_applied_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        monkeypatch.setattr(node_module.parameters, "changed", Once(node_module.parameters.changed, OSError("no disk")))
        change = SetParameters.Request(parameters=[Parameter("seed_timeout", value=3.0).to_parameter_msg()])
        answer = bench.call(SetParameters, "set_parameters", change).results[0]
        assert (answer.successful, answer.reason) == (False, "internal error: OSError: no disk")
        assert bench.call(SetParameters, "set_parameters", change).results[0].successful


def test_a_transition_that_raises_ends_unconfigured_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        for part in ("PromptInputs", "ImageSource"):  # before and after the worker has started
            assert change_state(bench, label="deactivate")
            monkeypatch.setattr(node_module, part, Once(getattr(node_module, part), KeyError("no topic")))
            assert not change_state(bench, label="activate")
            assert state(bench) == State.PRIMARY_STATE_UNCONFIGURED
            assert not bench.node.is_working and not bench.node.failure
            assert change_state(bench, label="configure") and change_state(bench, label="activate")
        assert_it_tracks(bench, 0)


@pytest.mark.parametrize("how", ["a step that never returns", "a thread that ends"])
def test_a_worker_that_is_of_no_use_ends_in_the_lifecycles_error_state_and_in_a_failure(how: str) -> None:
    gate = Gate()
    gate.is_open = True
    with NodeBench(gate.build, watchdog__worker_s=1.0) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        if how == "a thread that ends":
            bench.node._inbox.put_request(sys.exit)
            bench.wait(lambda: "ended unasked" in bench.node.failure)
        else:
            gate.is_open = False
            bench.publish_image(1)
            bench.wait(lambda: "the worker hangs: image" in bench.node.failure)
            bench.wait(lambda: state(bench) == State.PRIMARY_STATE_FINALIZED)
            assert bench.node.is_working  # which makes the exit status of the process
        gate.open()


# --- the process ---


def spin(node: object, ending: object | None = None) -> int:
    return run._spin(node, ending or SimpleNamespace(asked=threading.Event()))


class Executor:
    """In place of rclpy's: fails as often as the test says."""

    failures: list[Exception] = []
    spun = 0

    def __init__(self, report) -> None:
        pass

    def add_node(self, node) -> None:
        self.ending = node.ending

    def spin_once(self, timeout_sec: float) -> None:
        type(self).spun += 1
        if self.failures:
            raise self.failures.pop()
        self.ending.asked.set()

    def shutdown(self) -> None:
        pass


def reporting_node() -> SimpleNamespace:
    said: list[str] = []
    ending = SimpleNamespace(asked=threading.Event())
    return SimpleNamespace(ending=ending, said=said, fault=lambda where, error: said.append(f"{where}: {error}"))


def test_an_executor_that_fails_now_and_then_goes_on_and_one_that_always_fails_is_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "GuardedExecutor", Executor)
    monkeypatch.setattr(run, "_PAUSE_S", 0.0)
    node = reporting_node()
    monkeypatch.setattr(Executor, "failures", [MemoryError("of a wait set")] * 3)
    assert spin(node, node.ending) == 0
    assert node.said == ["the executor: of a wait set"] * 3
    monkeypatch.setattr(Executor, "failures", [MemoryError("of a wait set")] * 1000)
    node = reporting_node()
    assert spin(node, node.ending) == EXIT_CRASH


def test_a_node_that_cannot_go_on_is_a_crash_and_that_differs_from_a_start_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "GuardedExecutor", Executor)
    node = reporting_node()
    node.failure = "the worker has died"
    assert spin(node, node.ending) == EXIT_CRASH
    assert EXIT_CRASH not in (0, EXIT_NO_START)
