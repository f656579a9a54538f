# SPDX-License-Identifier: Apache-2.0
"""What keeps one fault from ending a node: an executor, and lifecycle transitions, that survive exceptions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

T = TypeVar("T", bound=Callable[..., Any])
Report = Callable[[str, Exception], None]
"""Told, inside the handler, what failed ("the callback of /image") and the exception."""


class GuardedExecutor(SingleThreadedExecutor):
    """A single-threaded executor that reports what a callback raises, and goes on.

    rclpy's own lets the exception out of ``spin_once``. Where taking the message failed already (no memory for a large
    image), it moreover never calls the entity, nor any other of its callback group, again.

    Args:
        report: Told of every fault.
        arguments: Further arguments of ``SingleThreadedExecutor``.
    """

    def __init__(self, report: Report, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._report = report

    # rclpy has no public place for this. `execute` is Humble's, where taking and executing are two functions.
    def _make_handler(self, entity: Any, node: Any, take_from_wait_list: Any, *execute: Any) -> Any:
        def take(taken: Any) -> Any:
            try:
                result = take_from_wait_list(taken)
            except Exception as error:
                self._report(f"taking a message of {name_of(taken)}", error)
                return None
            return result if execute or result is None else self._guarded(result, entity)

        return super()._make_handler(entity, node, take, *(self._guarded(one, entity) for one in execute))

    def _guarded(self, execute: Callable[..., Any], entity: Any) -> Callable[..., Any]:
        async def guarded(*arguments: Any) -> None:
            try:
                await execute(*arguments)
            except Exception as error:
                self._report(f"the callback of {name_of(entity)}", error)

        return guarded


def name_of(entity: Any) -> str:
    """How users know an entity of rclpy: its topic, its service, else its kind."""
    name = getattr(entity, "topic_name", None) or getattr(entity, "srv_name", None)
    return str(name or f"a {type(entity).__name__.lower()}")


def guard_transitions(node: Any) -> None:
    """Answer a transition that is not possible in the node's state with success = false.

    nav2's lifecycle_manager and launch_ros send ``configure`` without looking; rclpy's own service raises then, answers
    nothing and takes the executor with it.

    Args:
        node: A lifecycle node with ``refuse_transition(line)``.
    """
    service = node._service_change_state
    original = service.callback

    def change_state(request: Any, response: Any) -> Any:
        asked = request.transition.label or request.transition.id
        machine = node._state_machine
        possible = {(known[0], known[1]) for known in machine.available_transitions}
        if not any(asked in known for known in possible):
            labels = ", ".join(sorted(label for _, label in possible)) or "none"
            state = machine.current_state[1]
            node.refuse_transition(f"transition must be one of those of the state {state} ({labels}), got {asked!r}")
            response.success = False
            return response
        return original(request, response)

    service.callback = change_state


def transition(method: T) -> T:
    """Let a lifecycle callback say what it raises: rclpy makes ERROR of it without a word.

    The node has ``fault(where, error)``.
    """

    @functools.wraps(method)
    def said(node: Any, state: Any) -> Any:
        try:
            return method(node, state)
        except Exception as error:
            node.fault(method.__name__, error)
            return TransitionCallbackReturn.ERROR

    return said  # type: ignore[return-value]
