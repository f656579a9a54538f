# SPDX-License-Identifier: Apache-2.0
"""What outlives the process: instances, the seeds that mark them and where they were last, and how they are taken up.

What the model derives from the seeds (features, heads, hidden states) is no part of it: it is made anew, so that saved
instances outlive a change of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

import cv2
import numpy as np

from maskrnn_ros.quality import working_size
from maskrnn_ros.tracking.cells import resized
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.tracking.zoom import fine_image
from maskrnn_ros.types import BoolArray, Box, Frame, InstanceState, LabelArray, Seed, Tracks, UInt8Array

MAX_SEEDS = 4
"""Seeds of one instance that are kept: the first and the newest corrections, as the tracker does."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SavedSeed:
    """An image on which instances were marked.

    Args:
        stamp_ns: Stamp of the image, ns.
        image: RGB, uint8, (h, w, 3): the working image, or with a zoom the larger one.
        labels: int32, (H, W), at the size of the input: 0 or ids, those of removed instances included.
        ignored: Its ignore mask, bool (H, W); None: nothing is ignored.
    """

    stamp_ns: int
    image: UInt8Array
    labels: LabelArray
    ignored: BoolArray | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SavedInstance:
    """An instance as it was on the last image.

    Args:
        instance_id: Public id.
        name: May be empty.
        seeds: Stamps of the seeds that mark it, ns, ascending.
        box: Box of its mask, pixels of the input; None where it was not seen.
        mask: bool, (box.height, box.width); (0, 0) where it was not seen.
        age: Images since its last seed.
        frames_unseen: Images since it was last seen.
    """

    instance_id: int
    name: str
    seeds: tuple[int, ...]
    box: Box | None
    mask: BoolArray
    age: int
    frames_unseen: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Saved:
    """A session as it was after an image.

    Args:
        session: Number of the session.
        size: (H, W) of the input; (0, 0) before the first image.
        instances: By ascending id.
        seeds: By ascending stamp.
        used: Ids that may not be given to other instances.
    """

    session: int
    size: tuple[int, int]
    instances: tuple[SavedInstance, ...] = ()
    seeds: tuple[SavedSeed, ...] = ()
    used: frozenset[int] = frozenset()


class SeedLog:
    """The seeds of the instances that live, as far as they are to be saved."""

    def __init__(self) -> None:
        self._seeds: dict[int, SavedSeed] = {}
        self._of: dict[int, tuple[int, ...]] = {}

    def add(self, seed: SavedSeed, ids: Collection[int]) -> None:
        """These instances were marked by it; of two seeds on one image the later one counts."""
        former = self._seeds.get(seed.stamp_ns)
        if former is not None:
            kept = ~np.isin(former.labels, list(ids)) & (seed.labels == 0)
            labels = np.where(kept, former.labels, seed.labels).astype(np.int32)
            both = None if former.ignored is None or seed.ignored is None else former.ignored & seed.ignored
            seed = dataclasses.replace(seed, labels=labels, ignored=both)
        self._seeds[seed.stamp_ns] = seed
        for i in ids:
            stamps = sorted({*self._of.get(i, ()), seed.stamp_ns})
            self._of[i] = (*stamps[:1], *stamps[1:][-(MAX_SEEDS - 1) :])
        self._forget()

    def remove(self, ids: Iterable[int]) -> None:
        """These instances are gone."""
        for i in ids:
            self._of.pop(i, None)
        self._forget()

    def clear(self) -> None:
        """All are gone."""
        self._of.clear()
        self._seeds.clear()

    def take_up(self, saved: Saved) -> None:
        """Begin with the seeds of instances that were taken up."""
        self._seeds = {seed.stamp_ns: seed for seed in saved.seeds}
        self._of = {instance.instance_id: instance.seeds for instance in saved.instances}

    def saved(self, session: int, tracks: Tracks | None, used: frozenset[int]) -> Saved:
        """What is to be saved; it shares its arrays, which nobody changes."""
        shown = {track.instance_id: track for track in tracks.tracks} if tracks is not None else {}
        instances = tuple(
            SavedInstance(
                instance_id=i,
                name=track.name,
                seeds=stamps,
                box=track.box,
                mask=track.mask,
                age=track.age,
                frames_unseen=track.frames_unseen,
            )
            for i, stamps in sorted(self._of.items())
            if (track := shown.get(i)) is not None and track.state != InstanceState.REMOVED
        )
        return Saved(
            session=session,
            size=tracks.size if tracks is not None else (0, 0),
            instances=instances,
            seeds=tuple(seed for _, seed in sorted(self._seeds.items())),
            used=used,
        )

    def _forget(self) -> None:
        wanted = {stamp for stamps in self._of.values() for stamp in stamps}
        self._seeds = {stamp: seed for stamp, seed in self._seeds.items() if stamp in wanted}


def without(saved: Saved, ids: Collection[int]) -> Saved:
    """The same without some instances."""
    instances = tuple(instance for instance in saved.instances if instance.instance_id not in ids)
    wanted = {stamp for instance in instances for stamp in instance.seeds}
    return dataclasses.replace(
        saved, instances=instances, seeds=tuple(seed for seed in saved.seeds if seed.stamp_ns in wanted)
    )


def stamped_before(saved: Saved, stamp_ns: int) -> Saved:
    """The same with seeds older than a stamp: a clock may begin anew with the process, and stamps decide what is newer.

    Raises:
        ValueError: The stamp is too near to 0 to lie after that many seeds.
    """
    if not saved.seeds or saved.seeds[-1].stamp_ns < stamp_ns - 1:
        return saved
    first = stamp_ns - 1 - len(saved.seeds)
    if first < 1:
        raise ValueError(f"stamp of the first image must be > {len(saved.seeds) + 1} ns, got {stamp_ns}")
    stamps = {seed.stamp_ns: first + number for number, seed in enumerate(saved.seeds)}
    return dataclasses.replace(
        saved,
        seeds=tuple(dataclasses.replace(seed, stamp_ns=stamps[seed.stamp_ns]) for seed in saved.seeds),
        instances=tuple(
            dataclasses.replace(instance, seeds=tuple(stamps[stamp] for stamp in instance.seeds))
            for instance in saved.instances
        ),
    )


def take_up(tracker: Tracker, saved: Saved, frame: PreparedFrame) -> None:
    """Give a new tracker saved instances, as if the first image of the stream had been there once before.

    Their masks are the prior of the first image, without motion; what has moved away meanwhile is looked for like what
    was hidden. Call ``advance`` with the frame next.

    Args:
        tracker: Has seen no frame.
        saved: Instances, with seeds older than the frame.
        frame: The first image.

    Raises:
        ValueError: The instances are of images of another size.
    """
    if saved.size != frame.size:
        raise ValueError(
            f"the stream must be {saved.size[1]}x{saved.size[0]} (width x height) as when the instances were saved, "
            f"got {frame.size[1]}x{frame.size[0]}"
        )
    names = {instance.instance_id: instance.name for instance in saved.instances}
    for seed in saved.seeds:
        ids = {instance.instance_id for instance in saved.instances if seed.stamp_ns in instance.seeds}
        marked = Seed(stamp_ns=seed.stamp_ns, labels=seed.labels, names=names)
        started = tracker.start(marked, _prepared(tracker, seed, frame.size))
        tracker.adopt({i: state for i, state in started.items() if i in ids})
    before = dataclasses.replace(frame, stamp_ns=frame.stamp_ns - 1)
    tracker.advance(before)
    there = _begun_there(tracker, saved, before)
    of = {instance.instance_id: instance for instance in saved.instances}
    tracker.adopt({i: _as_last_seen(state, of[i], before, there.get(i)) for i, state in tracker.states.items()})


def _prepared(tracker: Tracker, seed: SavedSeed, size: tuple[int, int]) -> PreparedFrame:
    """A seed's image at the working size of now, which may be another than when it was saved."""
    wanted = working_size(size, tracker.config.working_size)
    image = tracker.prepare(Frame(stamp_ns=seed.stamp_ns, image=_at(seed.image, wanted)))
    fine = fine_image(seed.image, size, wanted, tracker.config)
    return dataclasses.replace(image, size=size, ignored=Ignored.of(seed.ignored, wanted), fine=fine)


def _at(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    if image.shape[:2] == size:
        return image
    shrinks = size[0] <= image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def _begun_there(tracker: Tracker, saved: Saved, frame: PreparedFrame) -> dict[int, InstanceMemory]:
    """States begun where the instances were last, where the decoder carries more of a place than the mask."""
    labels: LabelArray = np.zeros(frame.size, np.int32)
    for instance in saved.instances:
        if instance.box is not None:
            labels[instance.box.slices][instance.mask] = instance.instance_id
    if frame.ignored is not None:  # what was there may be hidden now
        labels[frame.ignored.full] = 0
    if not labels.any() or all(state.known is None for state in tracker.states.values()):
        return {}
    return tracker.start(Seed(stamp_ns=frame.stamp_ns, labels=labels), frame)


def _as_last_seen(
    state: InstanceMemory, instance: SavedInstance, frame: PreparedFrame, there: InstanceMemory | None
) -> InstanceMemory:
    """A state begun on seeds, with place and counts of the last mask; ``there`` is one begun on that mask."""
    whole = np.zeros(frame.size, np.float32)
    if instance.box is not None:
        whole[instance.box.slices] = instance.mask
    share = resized(whole, state.patch.size)
    area = int(np.count_nonzero(share >= 0.5))
    known = state.known
    if known is not None:  # what it looks like is that of the seeds, where it is that of the last mask
        nowhere = dataclasses.replace(known.carried, probability=np.zeros_like(known.carried.probability))
        carried = there.known.carried if there is not None and there.known is not None else nowhere
        known = dataclasses.replace(known, carried=carried)
    return dataclasses.replace(
        state,
        known=known,
        still=None,
        patch=Patch.of(share),
        state=InstanceState.TRACKING if area else InstanceState.OCCLUDED,
        age=instance.age,
        frames_unseen=0 if area else max(1, instance.frames_unseen),
        area=area,
        velocity=None,
        seed_mask=None,
    )
