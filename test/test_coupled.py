# SPDX-License-Identifier: Apache-2.0
"""Instances that learn from each other: what one changes of the others, and late seeds among them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import world
from shipped import CONFIG, assert_same, tracker

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.follow import Beside, Following
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.moment import Moment
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.types import Frame, Seed, Tracks

SHAPES = (
    world.Shape(1, 12, 12, 40, 36, 2, 0),
    world.Shape(2, 76, 40, 40, 48, -1, 1),
    world.Shape(3, 40, 34, 40, 44, 1, 0),
)
"""They overlap."""

EXACT = with_values(CONFIG, catch_up__mode="exact")


def build(config: Config) -> Tracker:
    return tracker(config, SHAPES)


@functools.cache
def picture(number: int) -> np.ndarray:
    return world.image(number, SHAPES)


def frame(number: int) -> Frame:
    return Frame(stamp_ns=world.stamp_ns(number), image=picture(number))


def marked(number: int, *ids: int, shift: int = 0) -> Seed:
    """A seed; shifted, it is another one than the exact one."""
    seed = world.seed(number, *ids, shapes=SHAPES)
    return Seed(stamp_ns=seed.stamp_ns, labels=np.roll(seed.labels, shift, axis=1))


class Bench:
    """A session of coupled instances, and all that it reported."""

    def __init__(self, saved: Saved | None = None, **changes: object) -> None:
        self.config = with_values(EXACT, **changes)
        self.outcomes: list[SeedOutcome] = []
        self.events: list[str] = []
        self.kept: list[Saved] = []
        self.ids = IdBook()
        if saved is not None:
            self.ids.take_up([one.instance_id for one in saved.instances], saved.used)
        self.session = Session(
            self.config,
            build,
            self.ids,
            self.outcomes.append,
            self.events.append,
            clock=lambda: 0.0,
            saved=saved,
            keep=self.kept.append,
        )

    def images(self, *numbers: int, era: int = 0) -> list[Tracks]:
        return [self.session.process(frame(number), era) for number in numbers]

    def seed(self, seed: Seed, own: Frame | None = None) -> None:
        admission = self.ids.admit(seed, self.config)
        request = SeedRequest(ticket=None, admission=admission, arrived=0.0, frame=None if own is None else lambda: own)
        self.session.seed(request)

    def remove(self, *ids: int, stamp_ns: int = 0) -> None:
        self.ids.check(ids) if stamp_ns else self.ids.remove(ids)
        self.session.remove(ids, stamp_ns)

    def configure(self, **changes: object) -> None:
        self.config = with_values(self.config, **changes)
        self.session.configure(self.config)

    @property
    def last(self) -> tuple[SeedStatus, str]:
        return self.outcomes[-1].status, self.outcomes[-1].reason

    @property
    def moment(self) -> Moment:
        return self.session._tracker.moment


def assert_same_from_here(one: Bench, other: Bench, *numbers: int) -> None:
    assert_same(one.moment, other.moment)
    for number in numbers:
        assert_same(one.images(number)[0], other.images(number)[0], f"image {number}")
        assert_same(one.moment, other.moment, f"image {number}")


# --- what one changes of the others ---


def on_frame_3(change: Callable[[Tracker], object], ids: tuple[int, ...] = (1, 2, 3)) -> InstanceMemory:
    """The first one on the frame where something changes."""
    tracker = build(EXACT)
    tracker.seed(marked(0, *ids), frame(0))
    for number in (1, 2):
        tracker.step(frame(number))
    change(tracker)
    return tracker.states[1]


CHANGES: dict[str, tuple[tuple[int, ...], Callable[[Tracker], object]]] = {
    "added": ((1, 2), lambda tracker: tracker.seed(marked(3, 3), frame(3))),
    "corrected": ((1, 2, 3), lambda tracker: tracker.seed(marked(3, 3, shift=4), frame(3))),
    "removed": ((1, 2, 3), lambda tracker: (tracker.remove([3]), tracker.step(frame(3)))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_to_one_leaves_the_others_as_they_are_on_that_frame(change: str) -> None:
    ids, make = CHANGES[change]
    untouched, changed = (on_frame_3(one, ids) for one in (lambda tracker: tracker.step(frame(3)), make))
    assert_same(untouched, changed)


def test_what_is_removed_is_gone_at_once_and_shown_to_the_others_once_more() -> None:
    tracker = build(EXACT)
    tracker.seed(marked(0), frame(0))
    tracker.step(frame(1))
    shown: list[tuple[int, ...]] = []
    original = tracker._following.advance  # type: ignore[union-attr]

    def advance(states: Mapping[int, InstanceMemory], *rest: object) -> object:
        shown.append(tuple(states))
        return original(states, *rest)  # type: ignore[arg-type]

    tracker._following.advance = advance  # type: ignore[union-attr, method-assign, assignment]
    tracker.remove([2])
    assert tuple(tracker.states) == (1, 3)
    assert [track.instance_id for track in tracker.step(frame(2)).tracks] == [1, 3]
    tracker.step(frame(3))
    tracker.remove([1, 3])
    assert tracker.step(frame(4)).tracks == ()
    assert shown == [(1, 2, 3), (1, 3)]  # the last ones have nobody to be shown to


def test_a_removal_with_a_stamp_leaves_the_others_as_they_are_on_that_frame() -> None:
    bench, untouched = Bench(), Bench()
    for one in (bench, untouched):
        one.seed(marked(0))
    bench.remove(3, stamp_ns=world.stamp_ns(2))
    bench.images(0, 1, 2), untouched.images(0, 1, 2)
    for i in (1, 2):
        assert_same(bench.session.states[i], untouched.session.states[i])


# --- catch_up.mode exact ---


@dataclasses.dataclass(frozen=True)
class Plan:
    """Seeds, at most one on a frame, with the image after which each comes late; removals after an image."""

    seeds: tuple[tuple[Seed, int], ...]
    removals: Mapping[int, int]

    @staticmethod
    def drawn(random: np.random.Generator, frames: int) -> Plan:
        removals = {int(random.integers(2, frames - 1)): 3}
        seeds = []
        for number in sorted(random.choice(frames, 4, replace=False).tolist()):
            ids = [i for i in (1, 2, 3) if i != 3 or number <= min(removals)]
            chosen = random.choice(ids, int(random.integers(1, len(ids) + 1)), replace=False).tolist()
            last = min(removals) if 3 in chosen else frames - 1
            seeds.append(
                (marked(number, *chosen, shift=int(random.integers(-3, 4))), int(random.integers(number, last + 1)))
            )
        has_third = any(3 in seed.ids for seed, _ in seeds)
        return Plan(tuple(seeds), removals if has_third else {})


def run(plan: Plan, frames: int, random: np.random.Generator | None) -> Bench:
    """All in time, or late, in an order that is drawn."""
    bench = Bench()
    for number in range(frames):
        for seed, _ in plan.seeds:
            if random is None and seed.stamp_ns == world.stamp_ns(number):
                bench.seed(seed)
        bench.images(number)
        due = [seed for seed, late in plan.seeds if random is not None and late == number]
        for k in random.permutation(len(due)) if random is not None else ():
            bench.seed(due[k])
        if number in plan.removals:
            bench.remove(plan.removals[number])
    assert [outcome for outcome in bench.outcomes if outcome.status == SeedStatus.REJECTED] == []
    return bench


@pytest.mark.parametrize("number", range(3))
def test_whatever_comes_late_in_whatever_order_all_is_as_if_it_had_come_in_time(number: int) -> None:
    random = np.random.default_rng(number)
    plan = Plan.drawn(random, frames=6)
    in_time, late = run(plan, 6, None), run(plan, 6, random)
    assert_same_from_here(in_time, late, 6, 7)


def test_a_late_seed_changes_what_the_others_learnt_since() -> None:
    """Else the tests above would show nothing."""
    late = Bench()
    late.seed(marked(0, 1, 2))
    late.images(0, 1, 2, 3)
    before = late.session.states[1].known
    late.seed(marked(1, 3))
    assert late.outcomes[-1].frames_used == 2 and late.last == (SeedStatus.APPLIED, "")
    after = late.session.states[1].known
    assert before is not None and after is not None and not np.array_equal(before.weights, after.weights)


@pytest.mark.parametrize("newer_first", [True, False])
def test_two_late_seeds_know_of_each_other(newer_first: bool) -> None:
    in_time, late = Bench(), Bench()
    seeds = marked(0, 2), marked(2, 3)
    for bench in (in_time, late):
        bench.seed(marked(0, 1))
    for seed in seeds:
        in_time.seed(seed)
    in_time.images(0, 1, 2, 3), late.images(0, 1, 2, 3)
    for seed in reversed(seeds) if newer_first else seeds:
        late.seed(seed)
    assert_same_from_here(in_time, late, 4)


def test_a_late_correction_keeps_the_later_one_and_says_so() -> None:
    in_time, late = Bench(), Bench()
    corrections = marked(1, 1, shift=3), marked(3, 1, shift=-2)
    for bench in (in_time, late):
        bench.seed(marked(0))
    for correction in corrections:
        in_time.seed(correction)
    in_time.images(0, 1, 2, 3, 4), late.images(0, 1, 2, 3, 4)
    for correction in reversed(corrections):
        late.seed(correction)
    assert late.last == (SeedStatus.APPLIED, "instances [1] were corrected on a later image, which stays")
    assert_same_from_here(in_time, late, 5)


def test_a_seed_of_the_newest_image_is_in_time_even_after_a_removal() -> None:
    in_time, late = Bench(), Bench()
    for bench in (in_time, late):
        bench.seed(marked(0, 1, 2))
    in_time.seed(marked(1, 3))
    in_time.images(0, 1), late.images(0, 1)
    in_time.remove(2), late.remove(2)
    late.seed(marked(1, 3))
    assert tuple(late.session.states) == (1, 3)
    assert_same_from_here(in_time, late, 2)


def test_a_seed_of_an_image_that_was_dropped_enters_on_the_next_late_as_in_time() -> None:
    in_time, late = Bench(), Bench()
    for bench in (in_time, late):
        bench.seed(marked(0, 1, 2))
    in_time.seed(marked(2, 3), own=frame(2))
    in_time.images(0, 1, 3, 4), late.images(0, 1, 3, 4)
    late.seed(marked(2, 3), own=frame(2))
    assert late.outcomes[-1].frames_used == 2
    late.seed(marked(1, 1)), in_time.seed(marked(1, 1))  # both run it again
    assert_same_from_here(in_time, late, 5)


def test_what_was_removed_before_its_seed_was_applied_never_was_there() -> None:
    bench, without = Bench(), Bench()
    for one in (bench, without):
        one.seed(marked(0, 1, 2))
        one.images(0, 1, 2, 3)
    bench.session.interrupted.set()
    bench.seed(marked(1, 3))
    bench.remove(3)
    bench.session.interrupted.clear()
    bench.session.catch_up()
    assert bench.last == (SeedStatus.REJECTED, "instances [3] were removed meanwhile")
    assert_same_from_here(without, bench, 4)


def test_a_replay_that_is_interrupted_begins_again_with_what_came_meanwhile() -> None:
    in_time, late = Bench(), Bench()
    for bench in (in_time, late):
        bench.seed(marked(0, 1))
    in_time.seed(marked(1, 3)), in_time.seed(marked(3, 2))
    in_time.images(0, 1, 2, 3), late.images(0, 1, 2, 3)
    before = late.moment
    late.session.interrupted.set()
    late.seed(marked(1, 3))
    assert late.session.catching_up and late.last[0] == SeedStatus.PENDING
    assert_same(before, late.moment)
    late.session.interrupted.clear()
    late.seed(marked(3, 2))
    late.session.catch_up()
    assert late.last == (SeedStatus.APPLIED, "") and not late.session.catching_up
    assert_same_from_here(in_time, late, 4)


def test_a_fault_on_the_way_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, without = Bench(), Bench()
    for one in (bench, without):
        one.seed(marked(0, 1, 2))
        one.images(0, 1, 2, 3)
    original, calls = Following.advance, iter(range(10))

    def broken(self: Following, *arguments: object) -> object:
        if next(calls) == 1:
            raise RuntimeError("it broke")
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Following, "advance", broken)
    bench.seed(marked(1, 3))
    monkeypatch.undo()
    assert bench.last == (SeedStatus.REJECTED, "internal error: RuntimeError: it broke")
    assert bench.ids.live == (1, 2)
    without.seed(marked(2, 2, shift=2)), bench.seed(marked(2, 2, shift=2))  # the snapshots are as they were, too
    assert_same_from_here(without, bench, 4)


def oldest(bench: Bench) -> int | None:
    return bench.session.buffer.replays_from_ns


def test_before_the_oldest_snapshot_a_seed_is_refused_with_its_stamp() -> None:
    bench = Bench(catch_up__mode="skip")
    bench.seed(marked(0, 1))
    bench.images(0, 1)
    assert oldest(bench) is None
    bench.configure(catch_up__mode="exact")
    bench.images(2)
    bench.seed(marked(0, 2))
    assert bench.last[0] == SeedStatus.REJECTED and bench.last[1].endswith(
        f"their states there are not held: the oldest held are of {world.stamp_ns(1)}"
    )
    bench.seed(marked(1, 2))
    assert bench.last == (SeedStatus.APPLIED, "")
    bench.configure(catch_up__mode="skip")
    assert oldest(bench) is None  # what skip does is not noted: from before it no way leads to after it


@pytest.mark.parametrize("has_image", [False, True])
def test_before_the_buffer_a_seed_is_refused_even_with_its_image(has_image: bool) -> None:
    bench = Bench(buffer__seconds=0.05)
    bench.images(0, 1, 2, 3)
    bench.seed(marked(0, 1), own=frame(0) if has_image else None)
    bench.images(4)
    assert bench.last[0] == SeedStatus.REJECTED
    assert f"instances' states from {world.stamp_ns(2)} on" in bench.last[1]


@pytest.mark.parametrize("changes", [{"gate__enlarge": 2.0}, {"presence__min_pixels": 9}])
def test_settings_that_change_masks_begin_anew(changes: dict[str, object]) -> None:
    bench = Bench()
    bench.seed(marked(0, 1))
    bench.images(0, 1)
    bench.remove(1)
    bench.configure(**changes)
    assert oldest(bench) == world.stamp_ns(1)
    bench.seed(marked(0, 2))
    assert bench.last[0] == SeedStatus.REJECTED
    bench.seed(marked(1, 2))
    assert bench.last == (SeedStatus.APPLIED, "") and tuple(bench.session.states) == (2,)


def test_settings_that_do_not_leave_the_snapshots() -> None:
    bench = Bench()
    bench.images(0, 1)
    bench.configure(buffer__seconds=5.0, mask_encoding="rle", prompts__same_iou=0.5, seed_timeout=1.0)
    assert oldest(bench) == world.stamp_ns(0)


def test_a_jump_that_keeps_the_instances_and_a_reset_begin_anew() -> None:
    bench = Bench(on_time_jump="keep")
    bench.seed(marked(4, 1))
    bench.images(4, 5)
    bench.remove(1)
    bench.images(3, era=1)
    assert oldest(bench) == world.stamp_ns(3) and bench.moment.leaving == {}
    bench.ids.clear()
    bench.session.reset("asked for")
    assert (oldest(bench), len(bench.session.buffer)) == (None, 0)


def test_what_is_taken_up_after_a_restart_is_in_the_first_snapshot() -> None:
    before = Bench()
    before.seed(marked(0, 1, 2))
    before.images(0, 1)
    in_time, late = Bench(before.kept[-1]), Bench(before.kept[-1])
    in_time.seed(marked(2, 3))
    in_time.images(2, 3), late.images(2, 3)
    late.seed(marked(2, 3))
    assert late.last == (SeedStatus.APPLIED, "") and tuple(late.session.states) == (1, 2, 3)
    assert_same_from_here(in_time, late, 4)


# --- catch_up.mode skip ---


def test_with_skip_the_others_do_not_change_and_are_shown_as_they_were_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, without = (Bench(catch_up__mode="skip") for _ in range(2))
    for one in (bench, without):
        one.seed(marked(0, 1, 2))
    shown: list[Beside] = []
    original = Following.advance

    def advance(self: Following, *arguments: object) -> object:
        if arguments[4] is not None:
            shown.append(arguments[4])  # type: ignore[arg-type]
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Following, "advance", advance)
    published = [tracks.labels for tracks in bench.images(0, 1, 2, 3)]
    without.images(0, 1, 2, 3)
    bench.seed(marked(1, 2, 3, shift=2))
    others = bench.session.states[1]
    while bench.session.catching_up:
        bench.session.catch_up()
    assert bench.last == (SeedStatus.APPLIED, "")
    assert_same(bench.session.states[1], others)
    assert_same(bench.session.states[1], without.session.states[1])
    assert len(shown) == 2
    for number, (beside, first) in enumerate(zip(shown, (1, 2), strict=True)):
        for found, labels in ((beside.before, published[first]), (beside.now, published[first + 1])):
            assert found is not None, number
            assert np.array_equal(found > 0, labels[2::4, 2::4] == 1)


def test_what_lies_beside_counts_where_an_object_is_looked_for_and_what_it_learns() -> None:
    tracker = build(EXACT)
    tracker.seed(marked(0, 1), frame(0))
    tracker.step(frame(1))
    there = np.zeros((world.HEIGHT // 4, world.WIDTH // 4), np.float32)
    there[4:10, 8:14] = 1
    previous, now = tracker.newest, tracker.prepare(frame(2))
    assert previous is not None
    alone, seen, learnt = (
        tracker.carry(tracker.states, previous, now, beside=beside)[1].known
        for beside in (None, Beside(there, None), Beside(None, there))
    )
    assert alone is not None and seen is not None and learnt is not None
    assert not np.array_equal(alone.carried.probability, seen.carried.probability)
    assert np.array_equal(alone.carried.probability, learnt.carried.probability)
    assert not np.array_equal(alone.weights, learnt.weights)


def test_a_late_seed_begins_with_what_was_published_around_it() -> None:
    tracker = build(EXACT)
    prepared = tracker.prepare(frame(0))
    there = np.zeros((world.HEIGHT // 4, world.WIDTH // 4), np.float32)
    there[4:10, 13:20] = 1
    alone, beside = (tracker.start(marked(0, 1), prepared, others)[1].known for others in (None, there))
    assert alone is not None and beside is not None and not np.array_equal(alone.weights, beside.weights)


# --- the memory of it ---


def moment(*values: np.ndarray) -> Moment:
    states = {i: value for i, value in enumerate(values)}
    return Moment(states, {}, 1, {})  # type: ignore[arg-type]


def test_the_buffer_is_bounded_with_what_it_holds_beside_the_frames() -> None:
    held = FrameBuffer(with_values(Config(), buffer__megabytes=1).buffer)
    always = np.zeros(75_000, np.float32)
    image = np.zeros((10, 10, 3), np.uint8)
    for number in range(1, 9):
        prepared = PreparedFrame(stamp_ns=number, size=(10, 10), image=image)
        held.add(prepared, moment(always, always[3:], np.zeros(50_000, np.float32)))
    assert (len(held), held.nbytes) == (3, 3 * (300 + 200_000) + 300_000)
    assert held.replays_from_ns == 6
    held.renew(None)
    assert held.nbytes == 900 and held.replays_from_ns is None


def test_what_did_not_change_is_held_once() -> None:
    bench = Bench()
    bench.seed(marked(0, 1))
    bench.images(0, 1, 2)
    first, *later = (bench.session.buffer.held(world.stamp_ns(number)).moment for number in range(3))  # type: ignore[union-attr]
    memory = first.states[1].known.memory
    for one, is_due in zip(later, (False, True), strict=True):
        known = one.states[1].known
        assert np.shares_memory(known.memory.seed.square, memory.seed.square)
        assert np.shares_memory(known.memory.seed_keys.code, memory.seed_keys.code)
        assert np.array_equal(known.memory.recent.square, memory.recent.square) != is_due
    counted = first.pieces | later[0].pieces
    assert sum(counted.values()) < sum((*first.pieces.values(), *later[0].pieces.values()))


def test_a_snapshot_counts_every_array_of_the_instances_and_the_ids_that_were_published() -> None:
    bench = Bench()
    bench.images(0)
    empty = bench.session.buffer.nbytes
    bench.seed(marked(0, 1))
    state = bench.session.states[1]
    known = state.known
    assert known is not None and state.seed_mask is not None
    memory = [getattr(known.memory, part) for part in ("seed", "recent", "seed_keys", "newest_keys")]
    arrays = [getattr(one, field.name) for one in memory for field in dataclasses.fields(one)]
    arrays += [known.carried.probability, known.carried.crop, known.carried.hidden, known.weights, state.patch.values]
    least = sum({array.ctypes.data: array.nbytes for array in arrays}.values()) + state.seed_mask.nbytes
    labels = 4 * world.HEIGHT * world.WIDTH
    assert least <= bench.session.buffer.nbytes - empty - labels < 1.5 * least
    skipping = Bench(catch_up__mode="skip")
    skipping.images(0)
    assert skipping.session.buffer.nbytes == empty + 2 * (world.HEIGHT // 4) * (world.WIDTH // 4)
