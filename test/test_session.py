# SPDX-License-Identifier: Apache-2.0
"""Seeds late and early, removals, jumps of time: everything in the order of stamps."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import world
from shipped import assert_same

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.timeline import Refusal, StampOrder, TimeRule
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import MAX_INSTANCE_ID, Frame, InstanceState, Seed, Tracks


class Bench:
    """A session with a clock that the test moves, and all that it reported."""

    def __init__(self, build: Callable[[Config], Tracker] | None = world.exact_tracker, **changes: object) -> None:
        self.now = 0.0
        self.config = with_values(world.WARP_ONLY, **{"catch_up__mode": "exact", **changes})
        self.outcomes: list[SeedOutcome] = []
        self.events: list[str] = []
        self.ids = IdBook()
        self.session = Session(
            self.config,
            build or build_tracker,
            self.ids,
            self.outcomes.append,
            self.events.append,
            clock=lambda: self.now,
        )
        self.order = StampOrder[Frame](TimeRule.of(self.config))
        self.refused: list[Refusal[Frame]] = []

    def image(self, number: int) -> Tracks:
        """An image whose stamp is taken, if need be after others that were held back."""
        return self.images(number)[-1]

    def images(self, *numbers: int) -> list[Tracks]:
        """What the images give whose stamps are taken; the others are in ``refused`` or held back."""
        out = []
        for number in numbers:
            ruling = self.order.put(world.stamp_ns(number), world.frame(number))
            self.refused += ruling.refused
            out += [self.session.process(entry.item, self.order.era) for entry in ruling.passed]
        return out

    def jump(self, number: int) -> Tracks:
        """Time jumps to an image."""
        self.order.clear()
        return self.image(number)

    def seed(self, seed: Seed, frame: Frame | None = None, ticket: object = None) -> None:
        admission = self.ids.admit(seed, self.config)
        own = (lambda: frame) if frame is not None else None
        self.session.seed(SeedRequest(ticket=ticket, admission=admission, arrived=self.now, frame=own))

    def remove(self, *ids: int, stamp_ns: int = 0) -> None:
        self.ids.check(ids) if stamp_ns else self.ids.remove(ids)
        self.session.remove(ids, stamp_ns)

    @property
    def last(self) -> tuple[SeedStatus, tuple[int, ...], int]:
        outcome = self.outcomes[-1]
        return outcome.status, outcome.ids, outcome.frames_used

    def said(self) -> list[SeedStatus]:
        return [outcome.status for outcome in self.outcomes]


def assert_same_states(one: Session, other: Session) -> None:
    assert_same(dict(one.states), dict(other.states))


def test_before_a_seed_every_image_gives_an_empty_result() -> None:
    bench = Bench()
    assert [bench.image(number).tracks for number in range(3)] == [(), (), ()]
    assert bench.session.frame_index == 3


def test_a_seed_in_time_waits_for_its_image_and_is_applied_to_it() -> None:
    bench = Bench()
    bench.image(0)
    bench.seed(world.seed(1), ticket="mine")
    assert bench.said() == [SeedStatus.PENDING]
    tracks = bench.image(1)
    np.testing.assert_array_equal(tracks.labels, world.labels(1))
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 0)
    assert {outcome.ticket for outcome in bench.outcomes} == {"mine"}


def test_a_seed_of_the_newest_image_starts_on_it() -> None:
    bench = Bench()
    bench.image(0)
    bench.seed(world.seed(0))
    assert bench.said() == [SeedStatus.APPLIED]
    np.testing.assert_array_equal(bench.image(1).labels, world.labels(1))


def test_a_seed_without_stamp_is_applied_to_the_next_image() -> None:
    bench = Bench()
    bench.image(0)
    bench.seed(dataclasses.replace(world.seed(1), stamp_ns=0))
    np.testing.assert_array_equal(bench.image(1).labels, world.labels(1))


@pytest.mark.parametrize("build", [world.exact_tracker, None])
def test_a_late_seed_with_exact_catch_up_equals_a_seed_in_time(build) -> None:
    in_time, late = (Bench(build) for _ in range(2))
    in_time.seed(world.seed(2, 2))
    for bench in (in_time, late):
        bench.seed(world.seed(0, 1))
        for number in range(6):
            bench.image(number)
    late.seed(world.seed(2, 2))
    assert late.last == (SeedStatus.APPLIED, (2,), 3)
    assert_same_states(in_time.session, late.session)
    np.testing.assert_array_equal(in_time.image(6).labels, late.image(6).labels)
    assert_same_states(in_time.session, late.session)


def test_a_late_correction_equals_a_correction_in_time() -> None:
    moved = Seed(stamp_ns=world.stamp_ns(2), labels=np.roll(world.labels(2), 5, axis=1))
    in_time, late = Bench(), Bench()
    for bench in (in_time, late):
        bench.seed(world.seed(0))
    in_time.seed(moved)
    for number in range(5):
        in_time.image(number), late.image(number)
    late.seed(moved)
    assert_same_states(in_time.session, late.session)


def test_skip_leaves_frames_out_so_as_to_end_in_time_while_the_stream_goes_on() -> None:
    bench = Bench(catch_up__mode="skip", catch_up__max_s=1.0)
    bench.seed(world.seed(0, 1))
    for number in range(40):
        bench.image(number)
    bench.seed(world.seed(2, 2))
    assert bench.last[0] == SeedStatus.PENDING
    number, steps = 40, 0
    while bench.session.catching_up:  # a step takes 0.2 s; an image comes every other step
        bench.now += 0.2
        bench.session.catch_up()
        steps += 1
        if steps % 2 == 0:
            tracks = bench.image(number)
            assert 1 in [track.instance_id for track in tracks.tracks]
            number += 1
    assert bench.last[0] == SeedStatus.APPLIED
    assert 2 <= bench.outcomes[-1].frames_used <= 8
    assert bench.outcomes[-1].duration_s <= 1.0 + 2 * 0.2
    np.testing.assert_array_equal(bench.image(number).labels, world.labels(number))


def test_a_seed_ahead_of_its_image_waits_then_is_rejected_with_the_nearest_stamp() -> None:
    bench = Bench(seed_timeout=2.0)
    bench.image(0)
    bench.seed(dataclasses.replace(world.seed(0), stamp_ns=world.stamp_ns(0) + 5))
    bench.now = 1.9
    bench.session.expire()
    assert bench.said() == [SeedStatus.PENDING]
    bench.now = 2.0
    assert bench.session.next_timeout == 2.0
    bench.session.expire()
    assert bench.said() == [SeedStatus.PENDING, SeedStatus.REJECTED]
    assert f"nearest is {world.stamp_ns(0)}" in bench.outcomes[-1].reason
    assert bench.ids.live == ()


def test_a_seed_older_than_the_buffer_is_rejected_with_the_oldest_stamp_held() -> None:
    bench = Bench(buffer__seconds=0.1)  # frames come every 0.04 s
    for number in range(6):
        bench.image(number)
    bench.seed(world.seed(1))
    assert bench.said() == [SeedStatus.PENDING]  # a jump back in time would make it a seed of the new session
    bench.image(6)
    assert bench.last[0] == SeedStatus.REJECTED
    assert f"from {world.stamp_ns(3)} to {world.stamp_ns(5)}" in bench.outcomes[-1].reason
    assert bench.ids.live == ()


def test_a_seed_whose_image_was_passed_by_is_rejected_at_once() -> None:
    bench = Bench()
    bench.image(0)
    bench.seed(world.seed(1))
    bench.image(2)
    assert bench.said() == [SeedStatus.PENDING, SeedStatus.REJECTED]
    assert "is not held (too old, or dropped)" in bench.outcomes[-1].reason


@pytest.mark.parametrize("seeded_after", [1, 3])
def test_a_seed_that_brings_its_image_needs_none_of_the_stream(seeded_after: int) -> None:
    bench = Bench()
    for number in (0, 1, 3, 4):  # 2 was dropped
        bench.image(number)
        if number == seeded_after:
            bench.seed(world.seed(2), frame=world.frame(2))
    assert bench.last[:2] == (SeedStatus.APPLIED, (1, 2))
    np.testing.assert_array_equal(bench.image(5).labels, world.labels(5))


def test_a_seed_of_another_size_is_rejected_never_stretched() -> None:
    bench = Bench()
    bench.seed(world.seed(0, 1))
    bench.image(0)
    bench.seed(Seed(stamp_ns=world.stamp_ns(0), labels=np.full((40, 50), 2, np.int32)))
    assert bench.last[0] == SeedStatus.REJECTED
    assert "seed must be 128x96 (width x height) like the video, got 50x40" in bench.outcomes[-1].reason
    assert bench.ids.live == (1,)
    np.testing.assert_array_equal(bench.image(1).labels, np.where(world.labels(1) == 1, 1, 0))


def test_an_image_of_another_size_is_refused_while_instances_live() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.image(0)
    with pytest.raises(ValueError, match="image must be 128x96 .* got 50x40; call ~/reset"):
        bench.session.process(Frame(stamp_ns=world.stamp_ns(1), image=np.zeros((40, 50, 3), np.uint8)))
    np.testing.assert_array_equal(bench.image(2).labels, world.labels(2))


def test_without_instances_another_size_is_taken() -> None:
    bench = Bench(build=None)
    bench.image(0)
    small = Frame(stamp_ns=world.stamp_ns(1), image=np.zeros((40, 50, 3), np.uint8))
    assert bench.session.process(small).size == (40, 50)


def test_the_same_stamp_again_is_refused_and_changes_nothing() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.image(0)
    assert bench.images(0) == [] and "stamp must be newer" in bench.refused[0].reason
    with pytest.raises(ValueError, match="stamp must be newer"):
        bench.session.process(world.frame(0))
    assert (bench.session.frame_index, bench.session.number) == (1, 1)


def test_removal_is_said_once_and_leaves_the_others() -> None:
    bench, alone = Bench(), Bench()
    bench.seed(world.seed(0))
    alone.seed(world.seed(0, 1))
    for number in range(3):
        bench.image(number), alone.image(number)
    bench.remove(2)
    first, second = bench.image(3), bench.image(4)
    alone.image(3), alone.image(4)
    assert [(t.instance_id, t.state) for t in first.tracks][1] == (2, InstanceState.REMOVED)
    assert [t.instance_id for t in second.tracks] == [1]
    assert_same_states(bench.session, alone.session)


def test_a_removal_with_a_stamp_waits_for_its_time() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.image(0)
    bench.remove(2, stamp_ns=world.stamp_ns(3))
    alive = [[t.instance_id for t in bench.image(n).tracks if t.state != InstanceState.REMOVED] for n in (1, 2, 3)]
    assert alive == [[1, 2], [1, 2], [1]]


def test_removing_what_still_waits_rejects_its_seed() -> None:
    bench = Bench()
    bench.image(0)
    bench.seed(world.seed(1, 2))
    bench.remove(2)
    assert [t.instance_id for t in bench.image(1).tracks] == []
    assert bench.last[0] == SeedStatus.REJECTED and "removed meanwhile" in bench.outcomes[-1].reason


def test_time_that_goes_back_begins_a_new_session() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.images(0, 1, 2)
    tracks = bench.jump(1)
    assert (bench.session.number, bench.session.frame_index, tracks.tracks) == (2, 1, ())
    assert "session 2 begins: time went back" in bench.events[-1]
    bench.seed(world.seed(1))  # ids are free again
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 0)


def test_a_looped_bag_gets_its_seed_again() -> None:
    """The seed comes before its image, when the jump of time does not show yet."""
    bench = Bench()
    for _ in range(3):
        bench.now += 100.0
        bench.seed(world.seed(0))
        for number, tracks in enumerate(bench.images(0, 1, 2)):
            np.testing.assert_array_equal(tracks.labels, world.labels(number))
    assert (bench.session.number, bench.session.frame_index, bench.refused) == (3, 3, [])


def test_a_looped_bag_with_an_unnumbered_mask_gets_the_same_id_in_every_session() -> None:
    bench = Bench()
    mask = np.where(world.labels(0) == 1, 255, 0).astype(np.int32)
    for _ in range(2):
        bench.now += 100.0
        bench.seed(Seed(stamp_ns=world.stamp_ns(0), labels=mask))
        first, *_ = bench.images(0, 1, 2)
        assert [t.instance_id for t in first.tracks] == [1]


def test_on_time_jump_keep_goes_on_with_the_instances() -> None:
    bench = Bench(on_time_jump="keep")
    bench.seed(world.seed(5))
    bench.image(5)
    np.testing.assert_array_equal(bench.jump(3).labels, world.labels(3))
    assert (bench.session.number, bench.session.frame_index, len(bench.session.buffer)) == (1, 2, 1)


def test_reset_forgets_all_and_says_so() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.image(0)
    bench.seed(world.seed(7, 1))
    bench.ids.clear()
    bench.session.reset("asked for")
    assert bench.last[0] == SeedStatus.REJECTED
    assert bench.image(1).tracks == ()
    assert (bench.session.number, bench.session.seeds_waiting) == (2, 0)


def test_a_fault_in_one_seed_gives_up_that_seed_alone() -> None:
    bench = Bench()

    def broken() -> Frame:
        raise RuntimeError("it broke")

    bench.seed(world.seed(4, 1))
    for number in (0, 1, 3):
        bench.image(number)
    admission = bench.ids.admit(world.seed(2, 2), bench.config)
    bench.session.seed(SeedRequest(ticket=None, admission=admission, arrived=0.0, frame=broken))
    assert (
        bench.last[0] == SeedStatus.REJECTED and "internal error: RuntimeError: it broke" in bench.outcomes[-1].reason
    )
    assert bench.ids.live == (1,) and "it broke" in bench.events[-1]
    assert [t.instance_id for t in bench.image(4).tracks] == [1]


def test_a_seed_whose_own_image_cannot_be_read_is_rejected_and_frees_its_id() -> None:
    bench = Bench()

    def unreadable() -> Frame:
        raise ValueError("encoding must be rgb8, got jpg9")

    bench.image(1)
    bench.image(3)
    admission = bench.ids.admit(world.seed(2, 2), bench.config)
    bench.session.seed(SeedRequest(ticket=None, admission=admission, arrived=0.0, frame=unreadable))
    assert bench.last[0] == SeedStatus.REJECTED and "jpg9" in bench.outcomes[-1].reason
    assert bench.ids.live == ()


# --- ids ---


def admit(book: IdBook, labels: list[int], stamp_ns: int = 1, **changes) -> tuple[tuple[int, ...], bool]:
    seed = Seed(stamp_ns=stamp_ns, labels=np.array([labels], np.int32))
    admission = book.admit(seed, with_values(Config(), **changes))
    return admission.seed.ids, admission.is_duplicate


def test_ids_are_those_of_the_mask() -> None:
    assert admit(IdBook(), [0, 3, 7, 255]) == ((3, 7, 255), False)


def test_a_mask_of_nothing_but_255_is_one_new_instance_with_the_next_free_id() -> None:
    book = IdBook()
    assert admit(book, [0, 255]) == ((1,), False)
    assert admit(book, [4, 0]) == ((4,), False)
    assert admit(book, [255, 255]) == ((5,), False)
    book.remove([5])
    assert admit(book, [255, 0, 255]) == ((6,), False)


def test_the_book_holds_no_masks_and_forgets_the_seeds_of_removed_instances() -> None:
    book, held = IdBook(), []
    for number in range(1, 4):
        labels = np.full((2, 2), number, np.int32)
        held.append(weakref.ref(labels))
        book.admit(Seed(stamp_ns=number, labels=labels), Config())
        del labels
    book.remove((1, 3))
    assert [reference() is not None for reference in held] == [False, False, False]
    assert [known.ids for known in book._known.values()] == [(2,)]


def test_the_same_seed_twice_is_applied_once_while_its_instance_lives() -> None:
    book = IdBook()
    assert admit(book, [0, 255]) == ((1,), False)
    assert admit(book, [0, 255]) == ((1,), True)
    assert admit(book, [0, 255], stamp_ns=2) == ((2,), False)
    book.remove([1])
    assert admit(book, [0, 255]) == ((3,), False)


def test_a_duplicate_is_reported_applied_and_changes_nothing() -> None:
    bench, once = Bench(), Bench()
    for one in (bench, once):
        one.image(0)
        one.seed(world.seed(0))
        one.image(1)
    bench.seed(world.seed(0), ticket="again")
    bench.image(2), once.image(2)
    assert [(o.ticket, o.status) for o in bench.outcomes[-2:]] == [
        ("again", SeedStatus.PENDING),
        ("again", SeedStatus.APPLIED),
    ]
    assert_same_states(bench.session, once.session)


def test_a_duplicate_of_a_waiting_seed_shares_its_outcome() -> None:
    bench = Bench(seed_timeout=1.0)
    bench.image(0)
    bench.seed(world.seed(5), ticket="a")
    bench.seed(world.seed(5), ticket="b")
    bench.now = 1.0
    bench.session.expire()
    finals = [(o.ticket, o.status) for o in bench.outcomes if o.status != SeedStatus.PENDING]
    assert finals == [("a", SeedStatus.REJECTED), ("b", SeedStatus.REJECTED)]
    bench.seed(world.seed(1), ticket="c")
    bench.seed(world.seed(1), ticket="d")
    bench.image(1)
    assert [(o.ticket, o.status) for o in bench.outcomes[-2:]] == [("c", SeedStatus.APPLIED), ("d", SeedStatus.APPLIED)]


def test_the_next_image_may_be_seeded_with_the_same_mask_again() -> None:
    """That is how one mends a mask that has drifted: the next image is another one now."""
    bench = Bench()
    still = dataclasses.replace(world.seed(0), stamp_ns=0)
    bench.seed(still)
    bench.image(0)
    bench.image(4)
    bench.seed(still)
    tracks = bench.image(5)
    assert [track.state for track in tracks.tracks] == [InstanceState.SEEDED] * 2
    np.testing.assert_array_equal(tracks.labels, world.labels(0))


@pytest.mark.parametrize("newer_first", [True, False])
def test_of_two_corrections_the_one_on_the_later_image_stays_whichever_comes_first(newer_first: bool) -> None:
    corrections = [
        Seed(stamp_ns=world.stamp_ns(n), labels=np.roll(world.seed(n, 1).labels, 3 * n, axis=0)) for n in (2, 4)
    ]
    in_time, late = Bench(), Bench()
    for bench in (in_time, late):
        bench.seed(world.seed(0))
    for correction in corrections:
        in_time.seed(correction)
    for number in range(7):
        in_time.image(number), late.image(number)
    for correction in reversed(corrections) if newer_first else corrections:
        late.seed(correction)
    assert late.said()[-1] == SeedStatus.APPLIED
    assert_same_states(in_time.session, late.session)


def test_a_seed_waits_on_while_its_image_is_in_the_inbox() -> None:
    bench = Bench(seed_timeout=1.0)
    bench.seed(world.seed(2))
    bench.seed(dataclasses.replace(world.seed(0), stamp_ns=0))
    bench.now = 5.0  # the worker was busy
    bench.session.expire(coming={world.stamp_ns(2)})
    assert SeedStatus.REJECTED not in bench.said()
    bench.session.expire(coming={world.stamp_ns(3)})
    assert bench.said().count(SeedStatus.REJECTED) == 1
    bench.session.expire()
    assert bench.said().count(SeedStatus.REJECTED) == 2


def test_a_seed_for_the_next_image_survives_a_jump_of_time() -> None:
    bench = Bench()
    bench.image(5)
    bench.seed(dataclasses.replace(world.seed(1), stamp_ns=0))
    np.testing.assert_array_equal(bench.jump(1).labels, world.labels(1))
    assert bench.session.number == 2 and bench.said()[-1] == SeedStatus.APPLIED


def test_a_jump_of_time_does_not_apply_again_what_was_applied() -> None:
    bench = Bench()
    bench.seed(world.seed(3))
    bench.image(3)
    bench.jump(2)
    assert bench.said() == [SeedStatus.PENDING, SeedStatus.APPLIED]
    assert bench.image(4).tracks == ()


def test_a_seed_admitted_before_a_jump_and_run_after_it_gets_an_id_of_the_new_session() -> None:
    bench = Bench()
    bench.seed(world.seed(5))
    bench.image(5)
    mask = np.where(world.labels(1) == 1, 255, 0).astype(np.int32)
    admission = bench.ids.admit(Seed(stamp_ns=world.stamp_ns(1), labels=mask), bench.config)
    assert admission.seed.ids == (3,)
    bench.jump(1)  # it clears the book
    bench.session.seed(SeedRequest(ticket=None, admission=admission, arrived=0.0))
    assert bench.last == (SeedStatus.APPLIED, (1,), 0)
    assert (bench.ids.live, tuple(bench.session.states)) == ((1,), (1,))


def test_what_catches_up_at_a_jump_of_time_is_rejected() -> None:
    for mode in ("reset", "keep"):
        bench = Bench(catch_up__mode="skip", on_time_jump=mode)
        for number in (3, 4, 5, 6, 7):
            bench.image(number)
        bench.seed(world.seed(4))
        assert bench.session.catching_up
        bench.jump(2)
        assert (bench.last[0], bench.session.catching_up) == (SeedStatus.REJECTED, False)


def test_an_image_brought_along_may_be_older_than_the_buffer() -> None:
    bench = Bench(buffer__seconds=0.1)
    for number in range(2, 8):
        bench.image(number)
    bench.seed(world.seed(1), frame=world.frame(1))  # 5, 6, 7 are held
    assert bench.said() == [SeedStatus.PENDING]
    assert "0.2 s older than the oldest image held" in bench.outcomes[-1].reason
    tracks = bench.image(8)
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 3)  # 6, 7, 8
    np.testing.assert_array_equal(tracks.labels, world.labels(8))


def test_such_a_seed_starts_even_when_the_stream_pauses() -> None:
    bench = Bench(buffer__seconds=0.1, seed_timeout=2.0)
    for number in range(2, 8):
        bench.image(number)
    bench.seed(world.seed(1), frame=world.frame(1))
    bench.now = 2.0
    bench.session.expire()
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 3)


def test_such_a_seed_belongs_to_the_new_session_when_time_jumps() -> None:
    bench = Bench(buffer__seconds=0.1)
    for number in range(2, 8):
        bench.image(number)
    bench.seed(world.seed(1), frame=world.frame(1))
    tracks = bench.jump(1)
    assert (bench.session.number, bench.last[:2]) == (2, (SeedStatus.APPLIED, (1, 2)))
    np.testing.assert_array_equal(tracks.labels, world.labels(1))


def test_an_image_brought_along_must_have_the_size_of_the_stream() -> None:
    bench = Bench()
    bench.image(0)
    bench.image(2)
    other = Frame(stamp_ns=world.stamp_ns(1), image=np.zeros((40, 50, 3), np.uint8))
    bench.seed(Seed(stamp_ns=world.stamp_ns(1), labels=np.ones((40, 50), np.int32)), frame=other)
    assert "image of the seed must be 128x96 (width x height) like the stream, got 50x40" in bench.outcomes[-1].reason


def test_with_skip_the_age_counts_images_not_steps() -> None:
    bench = Bench(catch_up__mode="skip", catch_up__max_s=1.0)
    for number in range(30):
        bench.image(number)
    bench.seed(world.seed(2))
    bench.session.catch_up()
    while bench.session.catching_up:
        bench.now += 0.5
        bench.session.catch_up()
    assert bench.outcomes[-1].frames_used < 10
    assert [state.age for state in bench.session.states.values()] == [27, 27]


def test_an_exact_catch_up_can_be_interrupted_and_goes_on_later() -> None:
    bench = Bench()
    for number in range(6):
        bench.image(number)
    bench.session.interrupted.set()
    bench.seed(world.seed(0))
    assert bench.said() == [SeedStatus.PENDING] and bench.session.catching_up
    bench.session.interrupted.clear()
    bench.session.catch_up()
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 5)


def test_of_a_seed_of_two_the_one_that_was_removed_meanwhile_is_left_out() -> None:
    bench = Bench()
    bench.seed(world.seed(1))
    bench.remove(2)
    assert [t.instance_id for t in bench.image(1).tracks] == [1]
    assert bench.last == (SeedStatus.APPLIED, (1,), 0)


def test_an_instance_lives_until_the_stamp_of_its_removal() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.image(0)
    bench.remove(2, stamp_ns=world.stamp_ns(4))
    bench.seed(world.seed(2, 2))  # a correction before that
    assert (2, InstanceState.SEEDED) in [(t.instance_id, t.state) for t in bench.image(2).tracks]
    assert (2, InstanceState.REMOVED) in [(t.instance_id, t.state) for t in bench.image(4).tracks]
    assert bench.ids.live == (1,)


def test_a_new_session_forgets_removals_that_were_to_come_or_to_be_said() -> None:
    bench = Bench()
    bench.seed(world.seed(0))
    bench.image(0)
    bench.remove(1, stamp_ns=world.stamp_ns(3))
    bench.remove(2)
    bench.ids.clear()
    bench.session.reset("asked for")
    bench.seed(world.seed(1))
    assert [t.instance_id for t in bench.image(1).tracks] == [1, 2]
    assert [t.state for t in bench.image(4).tracks] == [InstanceState.TRACKING] * 2


def test_a_new_size_begins_with_an_empty_buffer() -> None:
    bench = Bench(build=None)
    bench.image(0)
    small = np.zeros((40, 50, 3), np.uint8)
    bench.session.process(Frame(stamp_ns=world.stamp_ns(1), image=small))
    assert (len(bench.session.buffer), bench.session.size) == (1, (40, 50))


def test_live_settings_reach_tracker_and_buffer() -> None:
    bench = Bench()
    bench.session.configure(with_values(bench.config, buffer__seconds=0.05))
    for number in range(5):
        bench.image(number)
    assert len(bench.session.buffer) == 2


def test_a_rejected_seed_may_be_sent_again() -> None:
    bench = Bench(seed_timeout=1.0)
    bench.seed(world.seed(0))
    bench.now = 1.0
    bench.session.expire()
    bench.seed(world.seed(0))
    assert [t.instance_id for t in bench.image(0).tracks] == [1, 2]


REFUSALS = {  # what brings a seed of instance 77 to its rejection
    "of another size": lambda bench: bench.seed(
        Seed(stamp_ns=world.stamp_ns(1), labels=np.full((40, 50), 77, np.int32))
    ),
    "too old": lambda bench: (bench.seed(marked(77, stamp_ns=5)), bench.image(2)),
    "passed by": lambda bench: (bench.seed(marked(77, stamp_ns=world.stamp_ns(2))), bench.image(3)),
    "timed out": lambda bench: (
        bench.seed(marked(77, stamp_ns=world.stamp_ns(9))),
        setattr(bench, "now", 100.0),
        bench.session.expire(),
    ),
    "twice": lambda bench: (
        [bench.seed(marked(77, stamp_ns=world.stamp_ns(2)), ticket=n) for n in range(2)],
        bench.image(3),
    ),
}


def marked(instance_id: int, stamp_ns: int) -> Seed:
    return Seed(stamp_ns=stamp_ns, labels=np.where(world.labels(0) == 2, instance_id, 0).astype(np.int32))


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_seed_leaves_ids_and_instances_as_if_it_had_never_come(case: str) -> None:
    bench = Bench()
    bench.seed(world.seed(0, 1))
    bench.image(0), bench.image(1)
    REFUSALS[case](bench)
    assert bench.last[0] == SeedStatus.REJECTED
    assert (bench.ids.live, tuple(bench.session.states)) == ((1,), (1,))
    assert admit(bench.ids, [255, 0], stamp_ns=0) == ((2,), False)


def test_an_id_of_a_rejected_seed_is_not_given_away_while_another_seed_waits_with_it() -> None:
    book = IdBook()
    first, second = (book.admit(marked(7, stamp_ns=n), Config()) for n in (1, 2))
    book.release(first)
    assert book.live == (7,) and admit(book, [255], stamp_ns=3) == ((8,), False)
    book.confirm(second)
    assert book.live == (7, 8)


def test_behind_the_largest_id_the_smallest_that_was_not_used_comes_next() -> None:
    book = IdBook()
    admit(book, [MAX_INSTANCE_ID, 2])
    book.remove([2])
    assert [admit(book, [255], stamp_ns=n)[0] for n in range(3)] == [(1,), (3,), (4,)]
    mono8 = IdBook()
    admit(mono8, [254], label_encoding="mono8")
    assert [admit(mono8, [255], stamp_ns=n, label_encoding="mono8")[0] for n in (2, 3)] == [(255,), (1,)]


def test_when_all_ids_were_used_the_refusal_names_the_cure() -> None:
    book, mono8 = IdBook(), with_values(Config(), label_encoding="mono8", max_instances=64)
    for first in range(1, 255, 50):
        ids = list(range(first, min(first + 50, 255)))
        admit(book, ids, label_encoding="mono8", max_instances=64)
        book.remove(ids)
    assert book.left(mono8) == 1 and admit(book, [255], label_encoding="mono8") == ((255,), False)
    assert book.left(mono8) == 0
    with pytest.raises(ValueError, match=r"all of 1\.\.255 were used in this session: call ~/reset"):
        admit(book, [255], stamp_ns=2, label_encoding="mono8")


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ([2, 0], {}, r"id \[2\] was removed in this session"),
        ([1, 3, 4], {"max_instances": 2}, "expected at most 2 instances .* got 2 new ones beside 1"),
        ([300], {"label_encoding": "mono8"}, "ids must be <= 255 with label_encoding mono8, got 300"),
    ],
)
def test_bad_ids_are_refused(labels: list[int], changes: dict, message: str) -> None:
    book = IdBook()
    admit(book, [1, 2])
    book.remove([2])
    with pytest.raises(ValueError, match=message):
        admit(book, labels, **changes)
    assert book.live == (1,)


@pytest.mark.parametrize(("ids", "message"), [([], "got none"), ([1, 9], r"among \[1, 2\], got \[9\]")])
def test_bad_removals_remove_nothing(ids: list[int], message: str) -> None:
    book = IdBook()
    admit(book, [1, 2])
    with pytest.raises(ValueError, match=message):
        book.remove(ids)
    assert book.live == (1, 2)


# --- buffer ---


def test_the_buffer_is_bounded_in_memory_and_time() -> None:
    config = with_values(Config(), buffer__megabytes=1, buffer__seconds=5.0).buffer
    held = FrameBuffer(config)
    for number in range(1, 21):  # 0.3 MB each
        image = np.zeros((100, 1000, 3), np.uint8)
        held.add(PreparedFrame(stamp_ns=number * 1_000_000_000, size=(100, 1000), image=image))
    assert (len(held), held.nbytes) == (3, 900_000)
    assert held.oldest is not None and held.oldest.stamp_ns == 18_000_000_000
    held.config = dataclasses.replace(config, megabytes=100)
    tiny = np.zeros((1, 1, 3), np.uint8)
    held.add(PreparedFrame(stamp_ns=24_000_000_000, size=(1, 1), image=tiny))
    assert held.count_after(0) == 3 and held.count_after(19_000_000_000) == 2
    assert [held.following(0, images).stamp_ns // 1_000_000_000 for images in (1, 2, 3)] == [19, 20, 24]
    assert held.at(20_000_000_000) is not None and held.at(20_000_000_001) is None


def test_the_newest_frame_stays_in_the_buffer_however_large_it_is() -> None:
    held = FrameBuffer(with_values(Config(), buffer__megabytes=1).buffer)
    for number in (1, 2):
        image = np.zeros((1000, 1000, 3), np.uint8)
        held.add(PreparedFrame(stamp_ns=number, size=(1000, 1000), image=image))
    assert (len(held), held.nbytes) == (1, 3_000_000)
    held.clear()
    assert (len(held), held.nbytes, held.oldest) == (0, 0, None)


def test_a_new_session_builds_a_new_tracker() -> None:
    built: list[Tracker] = []

    def build(config: Config) -> Tracker:
        built.append(world.exact_tracker(config))
        return built[-1]

    bench = Bench(build=build)
    bench.image(1)
    bench.jump(0)
    assert len(built) == 2
