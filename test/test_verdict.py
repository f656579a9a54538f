# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says, by time: every way in which nothing works any more has its level and its line."""

from __future__ import annotations

import dataclasses

import pytest

from maskrnn_ros.sections import WatchdogConfig
from maskrnn_ros.tracker_node.verdict import Facts, Level, verdict

LIMITS = WatchdogConfig(image_s=3.0, worker_s=30.0)
WELL = Facts(active_s=100.0, image_age_s=0.1, step_age_s=0.1, publishers=1, instances=2)

CASES = {
    "all is well": ({}, Level.OK, "following 2 instances"),
    "just activated": ({"active_s": 1.0, "image_age_s": -1.0, "step_age_s": -1.0}, Level.OK, "following 2 instances"),
    "a slow step": ({"step_age_s": 2.9}, Level.OK, "following 2 instances"),
    "one instance of two is lost": ({"lost": 1}, Level.OK, "following 2 instances"),
    "disabled": ({"enabled": False, "image_age_s": 50.0, "step_age_s": 50.0}, Level.OK, "disabled: images are dropped"),
    "the camera froze": ({"image_age_s": 20.0, "step_age_s": 20.0}, Level.STALE, "no image for 20 s, though there is"),
    "the camera was killed": (
        {"image_age_s": 20.0, "step_age_s": 20.0, "publishers": 0},
        Level.STALE,
        "no image for 20 s, nor a publisher",
    ),
    "there is no camera yet": (
        {"image_age_s": -1.0, "step_age_s": -1.0, "publishers": 0},
        Level.WARN,
        "no publisher on the image topic",
    ),
    "there is one and nothing comes": (
        {"image_age_s": -1.0, "step_age_s": -1.0},
        Level.STALE,
        "no image for 100 s, though there is",
    ),
    "two cameras on one topic": (
        {"publishers": 2},
        Level.WARN,
        "2 publishers on the image topic: their images are mixed",
    ),
    "two trackers of one name": ({"trackers": 2}, Level.WARN, "2 publishers of ~/instances, expected one: give each"),
    "a step that takes long": (
        {"silent_s": 5.0, "step_age_s": 5.0},
        Level.WARN,
        "no progress with what is worked on for 5 s",
    ),
    "every image is rejected": (
        {"step_age_s": 40.0, "fresh": {"image": "image 7: stamp must be newer"}},
        Level.ERROR,
        "images come, but none gave masks for 40 s: image 7: stamp must be newer",
    ),
    "a seed is refused while there is no image": (
        {"image_age_s": 20.0, "fresh": {"seed": "seed: too old"}},
        Level.STALE,
        "no image for 20 s, though there is a publisher on the image topic; seed: too old",
    ),
    "a seed is refused before there is a camera": (
        {"publishers": 0, "image_age_s": -1.0, "fresh": {"seed": "seed: too old"}},
        Level.WARN,
        "seed: too old",
    ),
    "one image is rejected": ({"fresh": {"image": "image 7: torn"}}, Level.WARN, "image 7: torn"),
    "a fault of ours": (
        {"fresh": {"image": "image 7: torn", "internal": "internal error: KeyError"}},
        Level.ERROR,
        "internal error: KeyError",
    ),
    "a training failed": (
        {"fresh": {"training": "instance 1: adaptation failed"}},
        Level.WARN,
        "instance 1: adaptation",
    ),
    "all are lost": ({"lost": 2}, Level.WARN, "all of 2 instances are lost"),
    "ids run out": ({"ids_left": 3}, Level.WARN, "3 ids are left in this session: call ~/reset"),
    "it cannot go on": ({"failure": "the worker hangs", "image_age_s": 99.0}, Level.ERROR, "the worker hangs"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_state_has_its_level_and_its_line(case: str) -> None:
    changes, level, line = CASES[case]
    found, message = verdict(dataclasses.replace(WELL, **changes), LIMITS)
    assert found == level
    assert message.startswith(line)
    assert "\n" not in message


@pytest.mark.parametrize("image_s", [0.0, 1000.0])
def test_limits_are_settings(image_s: float) -> None:
    frozen = dataclasses.replace(WELL, image_age_s=20.0, step_age_s=20.0, silent_s=20.0)
    assert verdict(frozen, WatchdogConfig(image_s=image_s))[0] == Level.OK


def test_levels_are_those_of_the_message() -> None:
    status = pytest.importorskip("diagnostic_msgs.msg", reason="needs diagnostic_msgs").DiagnosticStatus
    assert {level.name: level.value for level in Level} == {level.name: getattr(status, level.name) for level in Level}
