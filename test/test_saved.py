# SPDX-License-Identifier: Apache-2.0
"""Instances over a restart: the same ids, found again on the next image; files that are torn or tampered with."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import world
from safetensors.numpy import load, save
from shipped import CONFIG, assert_same, tracker

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow import build_flow
from maskrnn_ros.tracking import Tracker, state_file
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.keeping import Keeper
from maskrnn_ros.tracking.look_alikes import none_yet
from maskrnn_ros.tracking.saved import Saved, SavedInstance, SavedSeed, SeedLog, _as_last_seen
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.tracking.state_file import StateFile, StateWriter, from_bytes, to_bytes
from maskrnn_ros.tracking.target import Carried, Known
from maskrnn_ros.types import Box, Frame, InstanceState, Seed, Tracks

TIMEOUT_S = 60.0


class Run:
    """A session of one process; what it keeps goes through the bytes of a file."""

    def __init__(self, content: bytes | None = None, config: Config = world.WARP_ONLY, build=world.exact_tracker):
        self.config = config
        self.content = content
        self.events: list[str] = []
        self.outcomes: list[SeedOutcome] = []
        self.ids = IdBook()
        saved = from_bytes(content) if content is not None else None
        if saved is not None:
            self.ids.take_up([one.instance_id for one in saved.instances], saved.used)
        self.session = Session(
            config,
            build,
            self.ids,
            self.outcomes.append,
            self.events.append,
            number=saved.session + 1 if saved else 1,
            saved=saved,
            keep=self._keep,
        )

    def _keep(self, saved: Saved) -> None:
        self.content = to_bytes(saved)

    def seed(self, seed: Seed) -> None:
        request = SeedRequest(ticket=None, admission=self.ids.admit(seed, self.config), arrived=0.0)
        self.session.seed(request)

    def image(self, number: int, stamp_ns: int | None = None) -> Tracks:
        frame = world.frame(number)
        return self.session.process(dataclasses.replace(frame, stamp_ns=stamp_ns or frame.stamp_ns))

    def remove(self, *ids: int) -> None:
        self.ids.remove(ids)
        self.session.remove(ids)

    def killed(self, **arguments: object) -> Run:
        """The next process; nothing of this one is left but the file."""
        return Run(self.content, self.config, **arguments)


def with_networks(config: Config) -> Tracker:
    """The networks, and the flow that is estimated."""
    return tracker(config, flow=build_flow(config.flow))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_a_new_process_finds_the_instances_again_with_their_ids_and_names() -> None:
    run = Run()
    run.seed(dataclasses.replace(world.seed(0), names={1: "cup", 2: "box"}))
    for number in range(4):
        run.image(number)
    run.remove(2)
    run.seed(dataclasses.replace(world.seed(4, 2), labels=np.where(world.labels(4) == 2, 7, 0).astype(np.int32)))
    run.image(4)
    again = run.killed()
    assert again.ids.live == (1, 7)
    tracks = again.image(5)
    assert [(t.instance_id, t.name, t.state) for t in tracks.tracks] == [
        (1, "cup", InstanceState.TRACKING),
        (7, "", InstanceState.TRACKING),
    ]
    assert again.session.number == 2
    for track, true in zip(tracks.tracks, (1, 2), strict=True):  # where they were, for the flow is not known
        assert iou(tracks.labels == track.instance_id, world.labels(5) == true) > 0.8
    with pytest.raises(ValueError, match=r"id \[2\] was removed"):
        again.seed(world.seed(5, 2))
    again.seed(Seed(stamp_ns=0, labels=np.where(world.labels(6) == 2, 255, 0).astype(np.int32)))
    again.image(6)
    assert again.outcomes[-1].ids == (8,)


@pytest.mark.parametrize("gap", [3, 6])
def test_a_restart_costs_what_was_learned_since_the_seed_and_no_more(gap: int) -> None:
    """With networks and real flow: what moved meanwhile is found again, as after a gap in one process.

    The world's noise looks alike everywhere: what frames taught since the seed counts for much in it.
    """
    run = Run(config=CONFIG, build=with_networks)
    run.seed(world.seed(0))
    for number in range(3):
        run.image(number)
    again = run.killed(build=with_networks)
    for number in range(2 + gap, 8 + gap):
        here, there = again.image(number), run.image(number)
    truth = world.labels(7 + gap)
    for i in (1, 2):
        found = iou(here.labels == i, truth == i)
        assert found > 0.5 and found > iou(there.labels == i, truth == i) - 0.3


def test_what_is_taken_up_is_rebuilt_from_the_seeds_of_every_kept_correction() -> None:
    run = Run(config=CONFIG, build=with_networks)
    run.seed(world.seed(0))
    for number in range(8):
        if number:
            run.seed(world.seed(number, 1))
        run.image(number)
    before = run.session.states
    again = run.killed(build=with_networks)
    again.image(8)
    read = from_bytes(run.content)
    assert [seed.stamp_ns for seed in read.seeds] == [world.stamp_ns(number) for number in (0, 5, 6, 7)]
    assert [one.seeds for one in read.instances] == [tuple(seed.stamp_ns for seed in read.seeds), (world.stamp_ns(0),)]
    one, other = (again.session.states[i].known for i in (1, 2))
    former = before[2].known
    assert one is not None and other is not None and former is not None
    assert_same(other.memory.seed, former.memory.seed)
    assert_same(other.memory.seed_keys, former.memory.seed_keys)
    anew = with_networks(CONFIG)  # the newest correction, of which it is not known what was beside it
    marked = anew.start(world.seed(7, 1), anew.prepare(world.frame(7)))[1].known
    assert marked is not None
    assert_same(one.memory.seed, marked.memory.seed)
    assert_same(one.memory.seed_keys, marked.memory.seed_keys)
    assert len(from_bytes(again.content).seeds) == 4


def test_they_outlive_a_second_kill_before_any_image_and_a_change_of_the_working_size() -> None:
    run = Run(config=CONFIG, build=with_networks)
    run.seed(world.seed(0))
    run.image(0)
    again = run.killed(build=with_networks).killed(build=with_networks)
    small = Run(again.content, with_values(CONFIG, working_size=96), with_networks)
    tracks = small.image(1)
    assert small.session.working_size == (72, 96)
    assert [t.instance_id for t in tracks.tracks if t.box is not None] == [1, 2]
    large = Run(small.content, CONFIG, with_networks)
    tracks = large.image(2)
    assert large.session.working_size == (96, 128)
    assert [t.instance_id for t in tracks.tracks if t.box is not None] == [1, 2]


def test_a_clock_that_begins_anew_makes_no_seed_newer_than_the_stream() -> None:
    run = Run(config=CONFIG, build=with_networks)
    run.seed(world.seed(0)), run.image(0), run.image(1)
    again = run.killed(build=with_networks)
    assert [t.instance_id for t in again.image(2, stamp_ns=1_000).tracks] == [1, 2]
    again.seed(dataclasses.replace(world.seed(3, 1), stamp_ns=2_000))
    again.image(3, stamp_ns=2_000)
    assert again.outcomes[-1].status == SeedStatus.APPLIED and again.session.states[1].seeded_ns == 2_000


def test_a_removal_and_a_reset_before_the_first_image_hold() -> None:
    run = Run()
    run.seed(world.seed(0)), run.image(0)
    again = run.killed()
    again.remove(1)
    assert [t.instance_id for t in again.image(1).tracks if t.state != InstanceState.REMOVED] == [2]
    reset = run.killed()
    reset.ids.clear()
    reset.session.reset("asked for")
    assert reset.killed().image(1).tracks == ()


def test_what_the_decoder_knows_is_of_the_seeds_and_its_place_is_of_the_last_mask() -> None:
    tracker = world.exact_tracker(world.WARP_ONLY)
    tracker.seed(world.seed(0, 1), world.frame(0))
    frame, state = tracker.newest, tracker.states[1]
    assert frame is not None

    def known(value: float) -> Known:
        carried = Carried(*(np.full(shape, value, np.float32) for shape in ((2, 2), (4,), (1, 1, 1))))
        weights, likeness, alike = np.full((1, 1), value, np.float32), np.array(0.5), none_yet(1)[0]
        return Known(carried, memory=object(), weights=weights, likeness=likeness, alike=alike)  # type: ignore[arg-type]

    seeded, there = (dataclasses.replace(state, known=known(value)) for value in (1.0, 2.0))
    seen = SavedInstance(
        instance_id=1, name="", seeds=(1,), box=Box(4, 5, 9, 9), mask=np.ones((4, 5), bool), age=3, frames_unseen=0
    )
    hidden = dataclasses.replace(seen, box=None, mask=np.zeros((0, 0), bool), frames_unseen=5)
    for instance, begun, value in ((seen, there, 2.0), (hidden, None, 0.0)):
        found = _as_last_seen(seeded, instance, frame, begun).known
        assert found is not None and seeded.known is not None
        assert found.memory is seeded.known.memory and found.weights is seeded.known.weights
        assert (found.carried.probability == value).all()


def test_a_stream_of_another_size_is_told_and_frees_the_place() -> None:
    run = Run()
    run.seed(world.seed(0)), run.image(0)
    again = run.killed(build=with_networks)
    frame = Frame(stamp_ns=world.stamp_ns(1), image=np.zeros((40, 50, 3), np.uint8))
    assert again.session.process(frame).tracks == ()
    assert "not taken up: the stream must be 128x96" in again.events[-1] and again.ids.live == ()
    assert [t.instance_id for t in again.killed().image(1).tracks] == [1, 2]  # the right camera comes after all
    again.seed(Seed(stamp_ns=0, labels=np.ones((40, 50), np.int32) * 5))
    again.session.process(dataclasses.replace(frame, stamp_ns=world.stamp_ns(2)))
    assert [one.instance_id for one in from_bytes(again.content).instances] == [5]


def test_a_fault_while_they_are_taken_up_ends_neither_the_stream_nor_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.seed(world.seed(0)), run.image(0)
    again = run.killed()
    monkeypatch.setattr(Tracker, "start", lambda *_: (_ for _ in ()).throw(KeyError("no head")))
    assert again.image(1).tracks == () and again.ids.live == ()
    assert again.events[-1] == "saved instances [1, 2] are not taken up: internal error: KeyError: 'no head'"
    assert len(from_bytes(again.content).instances) == 2


def test_the_seeds_that_are_kept_are_bounded_and_end_with_their_instances() -> None:
    log = SeedLog()
    labels = world.labels(0)
    for stamp_ns in range(1, 30):
        log.add(SavedSeed(stamp_ns=stamp_ns, image=world.image(0), labels=labels), [1] if stamp_ns > 1 else [1, 2])
    saved = log.saved(1, None, frozenset())
    assert [seed.stamp_ns for seed in saved.seeds] == [1, 27, 28, 29]
    log.remove([1])
    assert [seed.stamp_ns for seed in log.saved(1, None, frozenset()).seeds] == [1]


@pytest.mark.parametrize("keep", [None, lambda saved: None])
def test_the_images_of_seeds_are_held_where_they_are_to_be_saved_alone(keep: Callable[[Saved], None] | None) -> None:
    keeper = Keeper(None, keep)
    seed = SavedSeed(stamp_ns=1, image=world.image(0), labels=world.labels(0))
    held = weakref.ref(seed)
    keeper.add(seed, [1, 2])
    del seed
    gc.collect()
    assert (held() is None) is (keep is None)


# --- the file ---


def example() -> Saved:
    mask = np.tri(4, 5, dtype=bool)
    instance = SavedInstance(
        instance_id=3, name="cup", seeds=(5,), box=Box(1, 2, 6, 6), mask=mask, age=4, frames_unseen=0
    )
    hidden = dataclasses.replace(instance, instance_id=9, box=None, mask=np.zeros((0, 0), bool), frames_unseen=2)
    labels = np.zeros((20, 30), np.int32)
    labels[2:9, 3:8], labels[12:15, 20:25] = 3, 9
    seed = SavedSeed(stamp_ns=5, image=world.texture(1, 10, 15), labels=labels)
    return Saved(session=2, size=(20, 30), instances=(instance, hidden), seeds=(seed,), used=frozenset({3, 5, 9}))


def test_what_is_written_is_read_back_bit_for_bit() -> None:
    saved, read = example(), from_bytes(to_bytes(example()))
    assert (read.session, read.size, read.used) == (saved.session, saved.size, saved.used)
    for one, other in zip((*read.seeds, *read.instances), (*saved.seeds, *saved.instances), strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def signed(change: Callable[[dict, dict], None]) -> bytes:
    """A file that says something else, with the right digest: written by somebody who knows how."""
    arrays = load(to_bytes(example()))
    document = json.loads(arrays["document"].tobytes())
    del arrays["digest"]
    change(document, arrays)
    arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    arrays["digest"] = state_file._digest(arrays)
    return save(arrays)


def bomb(document: dict, arrays: dict) -> None:
    arrays["seed.0.labels"] = arrays["seed.0.labels"].copy()
    arrays["seed.0.labels"][16:24] = np.frombuffer((30_000).to_bytes(4, "big") * 2, np.uint8)


def chunk(document: dict, arrays: dict) -> None:
    """The second chunk says that it is longer than the picture: OpenCV would make room for it."""
    picture = arrays["seed.0.image"] = arrays["seed.0.image"].copy()
    picture[33:37] = np.frombuffer((0x7FFFFFFF).to_bytes(4, "big"), np.uint8)


BAD = {
    "empty": b"",
    "no such format": b"\x80\x04K\x01.",
    "torn": to_bytes(example())[:-7],
    "longer": to_bytes(example()) + b"\0",
    "a bit": bytes(value ^ (number == 700) for number, value in enumerate(to_bytes(example()))),
    "format": signed(lambda document, _: document.update(format=2)),
    "missing": signed(lambda document, _: document.pop("used")),
    "not a list": signed(lambda document, _: document.update(instances={"id": 3})),
    "id": signed(lambda document, _: document["instances"][0].update(id=70_000)),
    "id as text": signed(lambda document, _: document["instances"][0].update(id="3")),
    "twice": signed(lambda document, _: document["instances"].append(document["instances"][0])),
    "box": signed(lambda document, _: document["instances"][0].update(box=[0, 0, 31, 20])),
    "box of nothing": signed(lambda document, _: document["instances"][0].update(box=[3, 3, 3, 3])),
    "mask": signed(lambda _, arrays: arrays.update({"mask.3": np.zeros(2, np.uint8)})),
    "seed of no one": signed(lambda document, _: document["instances"][0].update(seeds=[6])),
    "name": signed(lambda document, _: document["instances"][0].update(name="x" * 1_000_000)),
    "size": signed(lambda document, _: document.update(size=[1_000_000, 1_000_000])),
    "bomb": signed(bomb),
    "chunk": signed(chunk),
    "no picture": signed(lambda _, arrays: arrays.update({"seed.0.image": np.zeros(50, np.uint8)})),
    "picture of floats": signed(lambda _, arrays: arrays.update({"seed.0.image": np.zeros(50, np.float32)})),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line_and_set_aside(case: str, tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.path.write_bytes(BAD[case])
    saved, refusal = file.read()
    assert saved is None
    assert refusal.startswith(f"{file.path} is refused and set aside as instances.refused: ")
    assert "\n" not in refusal and len(refusal) < 400
    assert file.path.with_suffix(".refused").read_bytes() == BAD[case]
    assert file.read() == (None, "")  # as at the first start
    file.write(to_bytes(example()))
    assert file.read()[0] is not None
    file.close()


def test_every_torn_file_is_refused() -> None:
    content = to_bytes(example())
    for length in range(0, len(content), 97):
        with pytest.raises(ValueError):
            from_bytes(content[:length])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_regular_file_is_refused_and_does_not_hang(make: Callable[[str], None], tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    make(str(file.path))
    assert file.read()[1].startswith(f"{file.path} is refused")
    file.close()


def test_a_folder_belongs_to_one_process_and_to_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "robot" / "tracker"
    file = StateFile(folder)
    with pytest.raises(ValueError, match="is in use by another process"):
        StateFile(folder)
    file.write(b"x")
    assert (folder.stat().st_mode & 0o777, file.path.stat().st_mode & 0o777) == (0o700, 0o600)
    file.close()
    StateFile(folder).close()


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "robot" / "tracker"
    file = StateFile(folder)
    shutil.rmtree(tmp_path / "robot")
    file.write(b"x")
    assert file.path.read_bytes() == b"x" and folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ValueError, match="is in use by another process"):
        StateFile(folder)
    shutil.rmtree(folder)
    file.write(b"y")
    file.close()
    StateFile(folder).close()


class Disk:
    """In place of a file: a test lets every write through."""

    path = Path("instances")

    def __init__(self) -> None:
        self.permits, self.begun = threading.Semaphore(0), threading.Semaphore(0)
        self.sessions: list[int] = []
        self.is_closed = False

    def write(self, content: bytes) -> None:
        self.begun.release()
        assert self.permits.acquire(timeout=TIMEOUT_S)
        self.sessions.append(from_bytes(content).session)

    def close(self) -> None:
        self.is_closed = True


def numbered(session: int) -> Saved:
    return dataclasses.replace(example(), session=session)


def test_the_writer_lets_nobody_wait_and_leaves_out_what_is_overtaken() -> None:
    disk = Disk()
    writer = StateWriter(disk, 0.0, pytest.fail)
    writer.put(numbered(1))
    assert disk.begun.acquire(timeout=TIMEOUT_S)
    for session in range(2, 100):  # while the disk is slow
        writer.put(numbered(session))
    disk.permits.release(10)
    assert writer.close(TIMEOUT_S)
    assert disk.sessions == [1, 99] and disk.is_closed


def test_a_full_disk_is_said_and_tried_again() -> None:
    said: list[str] = []
    disk = Disk()
    disk.permits.release(10)
    real, fails = disk.write, [OSError(28, "No space left on device")]

    def write(content: bytes) -> None:
        if fails:
            raise fails.pop()
        real(content)

    disk.write = write  # type: ignore[method-assign]
    writer = StateWriter(disk, 0.0, said.append)
    writer.put(numbered(1))
    while not said:
        assert writer._thread.is_alive()
    writer.put(numbered(2))
    assert writer.close(TIMEOUT_S)
    assert said == ["instances cannot be written: [Errno 28] No space left on device"] and disk.sessions == [2]


def test_a_write_that_is_cut_short_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path)
    file.write(to_bytes(numbered(1)))
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("power")))
    with pytest.raises(OSError):
        file.write(to_bytes(numbered(2)))
    assert file.read()[0].session == 1
    file.close()
