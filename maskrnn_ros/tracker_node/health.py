# SPDX-License-Identifier: Apache-2.0
"""How the node is doing: ~/status and /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from maskrnn_ros.image_messages import ns_to_stamp
from maskrnn_ros.limits import text_line
from maskrnn_ros.msg import TrackerStatus
from maskrnn_ros.ros.interfaces import HELD_STAMPS, PROPAGATED, REJECTED_STAMPS
from maskrnn_ros.sections import WatchdogConfig
from maskrnn_ros.tracker_node.ignore_masks import IgnoreCounts
from maskrnn_ros.tracker_node.inbox import SAID_STAMPS, Counts, Inbox
from maskrnn_ros.tracker_node.verdict import Facts, verdict
from maskrnn_ros.tracker_node.worker import Snapshot


class Health:
    """Counts what was refused and why, and writes it into messages; callbacks and worker both tell it.

    Args:
        device: Where the tracker runs.
        run_id: Of the node.
    """

    def __init__(self, device: str, run_id: str) -> None:
        self._device = device
        self._run_id = run_id
        self._lock = threading.Lock()
        self._seeds: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._fresh: dict[str, str] = {}  # the newest reason by kind since the last diagnosis
        self._since_s = time.monotonic()
        self._last_error = ""

    def seed(self, *, applied: bool) -> None:
        """A seed was applied or rejected."""
        with self._lock:
            self._seeds["applied" if applied else "rejected"] += 1

    def refuse(self, kind: str, reason: str) -> None:
        """Something went wrong: ``kind`` is image, ignore mask, seed, request, background or internal."""
        with self._lock:
            self._refused[kind] += 1
            self._last_error = self._fresh[kind] = text_line(reason)

    def status(
        self, stamp: Any, *, inbox: Inbox, seen: Snapshot, event: str, ignored: IgnoreCounts | None = None
    ) -> Any:
        """A TrackerStatus."""
        counts, now = inbox.counts, time.monotonic()
        details = _details(seen, counts, ignored or IgnoreCounts())
        with self._lock:
            message = TrackerStatus(
                stamp=stamp,
                run_id=self._run_id,
                session=seen.session,
                enabled=inbox.enabled,
                device=self._device,
                engine=seen.engine,
                precision=seen.precision,
                adaptation=seen.adaptation,
                image_age=_age(inbox.newest_s, now),
                step_age=_age(seen.published_s, now),
                received=counts.received,
                processed=counts.processed,
                dropped=counts.dropped,
                rejected=counts.rejected,
                waiting=counts.waiting,
                requests_waiting=inbox.requests_waiting,
                seeds_applied=self._seeds["applied"],
                seeds_rejected=self._seeds["rejected"],
                seeds_waiting=seen.seeds_waiting,
                ids=list(seen.ids),
                buffer_frames=seen.buffer_frames,
                step_ms_p50=seen.step_ms[0],
                step_ms_p95=seen.step_ms[1],
                age_ms_p50=seen.age_ms[0],
                age_ms_p95=seen.age_ms[1],
                event=text_line(event),
                last_error=self._last_error,
                details=[KeyValue(key=key, value=text_line(value)) for key, value in details.items()],
            )
        ns_to_stamp(seen.buffer_oldest_ns, message.buffer_oldest)
        return message

    def diagnostics(self, name: str, status: Any, limits: WatchdogConfig, **known: Any) -> Any:
        """A DiagnosticArray from a TrackerStatus, with the verdict on all that is known.

        Args:
            name: Of the entry.
            status: The TrackerStatus.
            limits: When something counts as wrong.
            known: Further ``Facts``: ``publishers`` and so on.
        """
        with self._lock:
            refused, fresh, self._fresh = Counter(self._refused), self._fresh, {}
        facts = Facts(
            enabled=status.enabled,
            active_s=time.monotonic() - self._since_s,
            image_age_s=status.image_age,
            step_age_s=status.step_age,
            instances=len(status.ids),
            fresh=fresh,
            **known,
        )
        level, message = verdict(facts, limits)
        values = {
            "images received": status.received,
            "images processed": status.processed,
            "images dropped": status.dropped,
            "images rejected": status.rejected,
            "images waiting": status.waiting,
            "seeds applied": status.seeds_applied,
            "seeds rejected": status.seeds_rejected,
            "seeds waiting": status.seeds_waiting,
            "requests rejected": refused["request"],
            "internal errors": refused["internal"],
            "failures in the background": refused["background"],
            "publishers": facts.publishers,
            "instances lost": facts.lost,
            "ids left": facts.ids_left,
            "requests waiting": status.requests_waiting,
            "run id": status.run_id,
            "session": status.session,
            "engine": status.engine,
            "precision": status.precision,
            "adaptation": status.adaptation,
            "image age s": round(status.image_age, 1),
            "step age s": round(status.step_age, 1),
            "step ms p50": round(status.step_ms_p50, 1),
            "step ms p95": round(status.step_ms_p95, 1),
            "age ms p50": round(status.age_ms_p50, 1),
            "age ms p95": round(status.age_ms_p95, 1),
            **{entry.key.replace("_", " "): entry.value for entry in status.details},
            "last error": status.last_error,
        }
        entry = DiagnosticStatus(level=level.value, name=name, message=text_line(message), hardware_id=self._device)
        entry.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[entry])
        array.header.stamp = status.stamp
        return array


def _age(then: float | None, now: float) -> float:
    """Seconds since then; -1 where there was nothing yet."""
    return -1.0 if then is None else max(0.0, now - then)


def _details(seen: Snapshot, counts: Counts, ignored: IgnoreCounts) -> dict[str, str]:
    """What status says by name: its message is frozen."""
    height, width = seen.working_size or (0, 0)
    return {
        "quality": seen.quality,
        "working_size": f"{width}x{height}",
        PROPAGATED: str(counts.propagated),
        "resting": str(seen.resting),
        REJECTED_STAMPS: " ".join(map(str, counts.rejected_stamps)),
        HELD_STAMPS: " ".join(map(str, counts.held_stamps[-SAID_STAMPS:])),
        "ignore_masks_received": str(ignored.received),
        "ignore_masks_rejected": str(ignored.rejected),
        "ignore_mask_age_ms": "" if ignored.age_ns is None else f"{ignored.age_ns / 1e6:.1f}",
    }
