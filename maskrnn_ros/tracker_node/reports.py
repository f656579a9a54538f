# SPDX-License-Identifier: Apache-2.0
"""What the node says: what became of seeds, ~/status, /diagnostics, the log."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from maskrnn_ros.limits import text_line
from maskrnn_ros.msg import SeedResult
from maskrnn_ros.ros.messages import Ticket, seed_result
from maskrnn_ros.sections import WatchdogConfig
from maskrnn_ros.tracker_node.health import Health
from maskrnn_ros.tracker_node.ignore_masks import IgnoreCounts
from maskrnn_ros.tracker_node.inbox import Inbox
from maskrnn_ros.tracker_node.outputs import Outputs
from maskrnn_ros.tracker_node.worker import Snapshot
from maskrnn_ros.tracking.session import SeedOutcome, SeedStatus


class Reports:
    """Says what happens; callbacks and worker both tell it.

    Args:
        node: The lifecycle node.
        outputs: Its publishers.
        run_id: Of the node.
        inbox: Gives what the node works by now; with ``seen`` and ``ignored`` a status is made of it.
        seen: Gives what the worker did last.
        ignored: Gives the counts of ignore masks.
    """

    def __init__(
        self,
        node: Any,
        outputs: Outputs,
        run_id: str,
        *,
        inbox: Callable[[], Inbox],
        seen: Callable[[], Snapshot],
        ignored: Callable[[], IgnoreCounts],
    ) -> None:
        self._node, self._outputs, self._run_id = node, outputs, run_id
        self._inbox, self._seen, self._ignored = inbox, seen, ignored
        self._health = Health("", run_id)

    def begin(self, device: str) -> None:
        """Count anew: the node is activated, and its tracker runs there."""
        self._health = Health(device, self._run_id)

    def count(self, kind: str, reason: str) -> None:
        """Something went wrong, and the log has it already; for ``kind`` see ``Health.refuse``."""
        self._health.refuse(kind, reason)

    def refuse(self, kind: str, text: str) -> None:
        """Something went wrong: count it and log it, of our own faults with the traceback."""
        line = text_line(text)
        self._health.refuse(kind, line)
        if kind == "internal":
            self._node.get_logger().error(f"{line}\n{traceback.format_exc()}", throttle_duration_sec=1.0)
        else:
            self._node.get_logger().warning(line, throttle_duration_sec=1.0)

    def refuse_at_once(self, kind: str, line: str) -> None:
        """Refuse, and say so at once on ~/status: a player in lockstep waits for masks that will not come."""
        self.refuse(kind, line)
        self.status(line)

    def announce(self, line: str) -> None:
        """Something has changed: log it, and say it on ~/status."""
        self._node.get_logger().info(text_line(line))
        self.status(line)

    def status(self, event: str) -> Any:
        """Publish a TrackerStatus, with what has just happened or nothing; gives it back."""
        status = self._health.status(
            self._node.get_clock().now().to_msg(),
            inbox=self._inbox(),
            seen=self._seen(),
            event=event,
            ignored=self._ignored(),
        )
        self._outputs.status.publish(status)
        return status

    def diagnose(self, status: Any, limits: WatchdogConfig, **known: Any) -> None:
        """Publish a diagnosis, see ``Health.diagnostics``."""
        name = f"{self._node.get_fully_qualified_name()[1:]}: tracker"
        trackers = self._node.count_publishers(self._outputs.instances.topic_name)
        self._outputs.diagnostics.publish(self._health.diagnostics(name, status, limits, trackers=trackers, **known))

    def seed(self, outcome: SeedOutcome) -> str:
        """Publish what became of a seed; gives the line to announce, empty where there is none."""
        self._outputs.seed_result.publish(seed_result(outcome, self._run_id))
        if outcome.status == SeedStatus.PENDING:
            return ""
        self._health.seed(applied=outcome.status == SeedStatus.APPLIED)
        if outcome.status == SeedStatus.REJECTED:
            self.refuse("seed", f"seed: {outcome.reason}")
            return ""
        return f"seed applied: ids {list(outcome.ids)}, {outcome.frames_used} images caught up"

    def reject_seed(self, ticket: Ticket, ids: Sequence[int], reason: str) -> None:
        """Publish that a seed is rejected which the worker never had, or will not finish."""
        self.refuse("seed", f"seed: {reason}")
        self._health.seed(applied=False)
        result = SeedResult(header=ticket.header, token=ticket.token, ids=list(ids), run_id=self._run_id)
        result.status, result.reason = SeedResult.STATUS_REJECTED, text_line(reason)
        self._outputs.seed_result.publish(result)
