# SPDX-License-Identifier: Apache-2.0
"""Every seed is PENDING at most once, and then there is exactly one verdict, whatever happens meanwhile."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
import world
from test_session import Bench

from maskrnn_ros.tracking.session import SeedOutcome, SeedStatus
from maskrnn_ros.types import Seed

PENDING, APPLIED, REJECTED = SeedStatus.PENDING, SeedStatus.APPLIED, SeedStatus.REJECTED


def said_of(outcomes: list[SeedOutcome]) -> dict[object, list[SeedStatus]]:
    """What was said of each seed, in order."""
    said = defaultdict(list)
    for outcome in outcomes:
        said[outcome.ticket].append(outcome.status)
    return said


def test_a_seed_older_than_the_buffer_is_pending_once_though_it_waits_and_then_catches_up() -> None:
    bench = Bench(buffer__seconds=0.1, catch_up__mode="skip")
    for number in range(2, 8):
        bench.image(number)
    bench.seed(world.seed(1), frame=world.frame(1))
    bench.image(8)
    assert bench.session.catching_up
    while bench.session.catching_up:
        bench.session.catch_up()
    assert bench.said() == [PENDING, APPLIED]


def test_what_waits_or_catches_up_when_no_image_comes_any_more_is_rejected_and_its_ids_are_free() -> None:
    bench = Bench(catch_up__mode="skip")
    for number in range(6):
        bench.image(number)
    bench.seed(world.seed(1, 1), ticket="late")
    bench.seed(world.seed(9, 2), ticket="early")
    bench.seed(world.seed(9, 2), ticket="the same")
    assert bench.session.catching_up
    bench.session.give_up("the node was deactivated")
    assert said_of(bench.outcomes) == dict.fromkeys(("late", "early", "the same"), [PENDING, REJECTED])
    assert {outcome.reason for outcome in bench.outcomes[-3:]} == {"the node was deactivated"}
    assert bench.ids.live == () and not bench.session.seeds_waiting
    bench.session.give_up("again")
    assert len(bench.outcomes) == 6


def test_a_verdict_stands_when_whoever_hears_it_fails() -> None:
    bench = Bench()
    bench.image(0)
    heard = []

    def fail(outcome: SeedOutcome) -> None:
        heard.append(outcome.status)
        raise RuntimeError("the publisher is gone")

    bench.session._report = fail
    bench.seed(world.seed(0))
    assert heard == [APPLIED] and tuple(bench.session.states) == (1, 2)


@pytest.mark.parametrize("mode", ["exact", "skip"])
@pytest.mark.parametrize("jump", ["reset", "keep"])
def test_whatever_happens_a_seed_gets_one_verdict(mode: str, jump: str) -> None:
    """Seeds for past, coming and next images, with and without an image of their own, twice, and out of turn."""
    random = np.random.default_rng(0)
    kinds = set()
    for _ in range(12):
        bench = Bench(catch_up__mode=mode, on_time_jump=jump, buffer__seconds=0.15, seed_timeout=1.0)
        number, sent = 5, 0
        for _ in range(40):
            match random.choice([*["image", "seed"] * 2, "late", "jump", "catch up", "wait", "reset", "remove"]):
                case "image":
                    number += 1
                    bench.images(number)
                case "late":
                    bench.images(max(0, number - int(random.integers(1, 8))))
                case "jump":
                    number = max(0, number - int(random.integers(1, 8)))
                    bench.jump(number)
                case "seed":
                    sent += 1
                    send(bench, random, max(0, number + int(random.integers(-7, 4))), sent)
                case "catch up":
                    bench.session.catch_up()
                case "wait":
                    bench.now += float(random.choice([0.1, 1.0]))
                    bench.session.expire()
                case "reset":
                    bench.ids.clear()
                    bench.session.reset("asked for")
                case "remove" if bench.ids.live:
                    bench.remove(int(random.choice(bench.ids.live)))
        bench.session.give_up("the end")
        assert not bench.session.seeds_waiting and not bench.session.seeds.end_all("nothing is left")
        for statuses in said_of(bench.outcomes).values():
            kinds.add(tuple(statuses))
    final = {(PENDING, APPLIED), (PENDING, REJECTED), (APPLIED,), (REJECTED,)}
    assert {(PENDING, APPLIED), (PENDING, REJECTED), (APPLIED,)} <= kinds <= final


def send(bench: Bench, random: np.random.Generator, number: int, ticket: int) -> None:
    """A seed of one or both objects, or of a new one; what the book of ids refuses is no seed."""
    seed = world.seed(number, *([1], [2], [1, 2])[random.integers(3)])
    if random.random() < 0.3:
        seed = Seed(stamp_ns=seed.stamp_ns, labels=np.where(seed.labels != 0, 255, 0).astype(np.int32))
    if random.random() < 0.2:
        seed = dataclasses.replace(seed, stamp_ns=0)
    own = world.frame(number) if random.random() < 0.5 and seed.stamp_ns else None
    try:
        bench.seed(seed, frame=own, ticket=ticket)
        if random.random() < 0.3:
            bench.seed(seed, frame=own, ticket=-ticket)
    except ValueError:
        pass
