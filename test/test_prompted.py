# SPDX-License-Identifier: Apache-2.0
"""Seeds by prompts: ids, who gets shared pixels, and which picture they are cut on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import world
from shipped import still

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.prompted import MaskPrompt, PromptedInstance, PromptSeed
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.types import Box, Frame

SIZE = (40, 60)
LARGE, SMALL = Box(10, 10, 40, 30), Box(30, 20, 45, 35)


class Filled:
    """A backend that fills boxes and marks the pixel of a point; it remembers what it was shown."""

    def __init__(self, empty: Box | None = None) -> None:
        self.images: list[np.ndarray] = []
        self._empty = empty

    def __call__(self, image: np.ndarray, prompt: Prompt) -> np.ndarray:
        self.images.append(image)
        mask = np.zeros(image.shape[:2], bool)
        if prompt.box is not None and prompt.box != self._empty:
            mask[prompt.box.slices] = True
        for point in prompt.points:
            mask[int(point.y), int(point.x)] = True
        return mask


def boxes(*given: Box, ids: tuple[int, ...] = (), **more: object) -> PromptSeed:
    ids = ids or (0,) * len(given)
    prompted = tuple(PromptedInstance(prompt=Prompt(box=b), instance_id=i) for b, i in zip(given, ids, strict=True))
    return PromptSeed(**{"stamp_ns": 0, "prompted": prompted, **more})


def mask_of(box: Box, instance_id: int = 0, name: str = "", size: tuple[int, int] = SIZE) -> PromptedInstance:
    mask = np.zeros(size, bool)
    mask[box.slices] = True
    return PromptedInstance(prompt=MaskPrompt(mask), instance_id=instance_id, name=name)


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((*size, 3), np.uint8)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_smaller_one_gets_what_two_boxes_share_in_whatever_order_they_come(order: tuple[int, int]) -> None:
    given = (LARGE, SMALL)
    seed = boxes(*(given[i] for i in order), ids=tuple(i + 1 for i in order)).cut(picture(), SIZE, Filled())
    expected = np.zeros(SIZE, np.int32)
    expected[LARGE.slices] = 1
    expected[SMALL.slices] = 2
    np.testing.assert_array_equal(seed.labels, expected)


def test_masks_keep_their_pixels() -> None:
    nut = mask_of(Box(5, 5, 14, 14), 7, "nut")  # larger than what the box leaves beside it
    box = PromptedInstance(prompt=Prompt(box=Box(4, 4, 15, 15)), instance_id=3)
    for prompted in ((box, nut), (nut, box)):
        seed = PromptSeed(stamp_ns=0, prompted=prompted).cut(picture(), SIZE, Filled())
        assert seed.ids == (3, 7) and seed.names == {7: "nut"}
        np.testing.assert_array_equal(seed.labels == 7, nut.prompt.mask)
        assert np.count_nonzero(seed.labels == 3) == 11 * 11 - 9 * 9


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_masks_the_smaller_one_gets_what_they_share(order: tuple[int, int]) -> None:
    both = (mask_of(LARGE, 1), mask_of(SMALL, 2))
    seed = PromptSeed(stamp_ns=0, prompted=tuple(both[i] for i in order))
    labels = seed.cut(picture(), SIZE, Filled()).labels
    np.testing.assert_array_equal(labels == 2, both[1].prompt.mask)
    np.testing.assert_array_equal(labels == 1, both[0].prompt.mask & ~both[1].prompt.mask)


def test_masks_alone_need_no_picture_and_255_is_an_id_as_any_other() -> None:
    backend = Filled()
    bench = Bench(backend)
    unreadable = Frame(stamp_ns=20, image=picture((1, 1)))
    bench.image(10)
    bench.seed(PromptSeed(stamp_ns=10, prompted=(mask_of(SMALL, 255),)), unreadable)  # of another size, if it was read
    assert bench.outcomes[-1].status == SeedStatus.APPLIED and list(bench.session.states) == [255]
    bench.seed(PromptSeed(stamp_ns=20, prompted=(mask_of(LARGE, 255),)))
    np.testing.assert_array_equal(bench.image(20) == 255, mask_of(LARGE).prompt.mask)
    bench.seed(PromptSeed(stamp_ns=20, prompted=(mask_of(SMALL, size=(50, 60)),)))
    assert bench.outcomes[-1].reason == "mask must be 60x40 (width x height) like the image, got 60x50"
    assert not backend.images


def test_the_same_masks_again_are_one_seed_and_others_are_another() -> None:
    book, config = IdBook(), Config()
    one, other = (PromptSeed(stamp_ns=5, prompted=(mask_of(box),)) for box in (LARGE, SMALL))
    first = book.admit(one, config)
    again = book.admit(PromptSeed(stamp_ns=5, prompted=(mask_of(LARGE),)), config)
    assert again.is_duplicate and again.known is first.known
    assert not book.admit(other, config).is_duplicate
    turned = PromptSeed(stamp_ns=5, prompted=(mask_of(LARGE, size=SIZE[::-1]),))
    assert not book.admit(turned, config).is_duplicate


def test_one_empty_mask_refuses_the_whole_and_says_which() -> None:
    with pytest.raises(
        ValueError, match=r"instance 2: box \(30, 20, 45, 35\) gives an empty mask .no object was found"
    ):
        boxes(LARGE, SMALL, ids=(1, 2)).cut(picture(), SIZE, Filled(empty=SMALL))
    with pytest.raises(ValueError, match="instance 1: .* gives an empty mask .others have all of its pixels"):
        boxes(LARGE, LARGE, ids=(1, 2)).cut(picture(), SIZE, Filled())


def test_on_a_picture_that_is_scaled_down_the_mask_comes_out_where_the_prompt_is() -> None:
    seed = boxes(LARGE, ids=(1,)).cut(picture((20, 30)), SIZE, Filled())
    assert Box.of_mask(seed.labels) == LARGE
    point = PromptedInstance(prompt=Prompt(points=(Point(x=59.9, y=39.9),)), instance_id=1)
    corner = PromptSeed(stamp_ns=0, prompted=(point,)).cut(picture((20, 30)), SIZE, Filled())
    assert corner.labels[-1, -1] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PromptSeed(stamp_ns=0, prompted=()), "at least one instance"),
        (lambda: boxes(LARGE, stamp_ns=-1), "stamp of a seed must be >= 0"),
        (lambda: boxes(LARGE, ids=(-1,)), "ids of prompts must be >= 1, or 0"),
        (lambda: boxes(LARGE, SMALL, ids=(3, 3)), r"marked once.*\[3\]"),
        (lambda: PromptSeed(stamp_ns=0, prompted=(mask_of(LARGE, 3), mask_of(SMALL, 3))), r"once.*\[3\]"),
        (lambda: PromptedInstance(prompt=Prompt(box=LARGE), name="x" * 65), "name must have at most 64 .*, got 65"),
        (lambda: PromptedInstance(prompt=Prompt(box=LARGE), name="a\nb"), "name must be a single line .*, got 'a"),
        (lambda: MaskPrompt(np.zeros(SIZE, bool)), "at least one pixel, got none of 60x40"),
        (lambda: MaskPrompt(np.ones(SIZE, np.uint8)), "mask must be bool"),
    ],
)
def test_contradictions_are_refused(make: Callable[[], PromptSeed], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_ids_are_promised_at_once_and_never_twice() -> None:
    book, config = IdBook(), Config()
    lid = mask_of(Box(0, 0, 5, 5), name="lid")
    mixed = book.admit(PromptSeed(stamp_ns=0, prompted=(*boxes(LARGE).prompted, lid, *boxes(SMALL).prompted)), config)
    assert mixed.seed.ids == mixed.added == (1, 2, 3)
    assert [(item.instance_id, item.name) for item in mixed.seed.prompted] == [(1, ""), (2, "lid"), (3, "")]
    assert book.admit(boxes(LARGE, ids=(9,)), config).seed.ids == (9,)
    assert book.admit(boxes(SMALL, LARGE, SMALL, ids=(0, 20, 0)), config).seed.ids == (20, 21, 22)
    again = book.admit(boxes(SMALL, LARGE, SMALL, ids=(0, 20, 0)), config)
    assert again.is_duplicate and again.seed.ids == (20, 21, 22)
    with pytest.raises(ValueError, match="at most 6 instances"):
        book.admit(boxes(Box(1, 1, 2, 2)), with_values(config, max_instances=6))


class Bench:
    """A session whose objects stand still, and what it reports."""

    def __init__(self, backend: Filled, **changes: object) -> None:
        self.config = with_values(world.WARP_ONLY, **{"catch_up__mode": "exact", **changes})
        self.ids = IdBook()
        self.outcomes: list[SeedOutcome] = []
        self.session = Session(self.config, self._build, self.ids, report=self.outcomes.append, prompts=backend)

    def _build(self, config: Config) -> Tracker:
        return Tracker(config, still)

    def image(self, stamp_ns: int, level: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
        return self.session.process(Frame(stamp_ns=stamp_ns, image=np.full((*size, 3), level, np.uint8))).labels

    def seed(self, seed: PromptSeed, frame: Frame | None = None) -> tuple[int, ...]:
        admission = self.ids.admit(seed, self.config)
        own = (lambda: frame) if frame is not None else None
        self.session.seed(SeedRequest(ticket=None, admission=admission, arrived=0.0, frame=own))
        return admission.seed.ids


def test_a_prompt_is_cut_on_its_own_image_and_applied_in_order_of_time() -> None:
    backend = Filled()
    bench = Bench(backend)
    bench.seed(boxes(LARGE, stamp_ns=20))
    assert not bench.image(10, level=1).any() and not backend.images
    np.testing.assert_array_equal(np.argwhere(bench.image(20, level=2)).min(axis=0), [10, 10])
    bench.image(30, level=3)
    bench.seed(boxes(SMALL, stamp_ns=10))  # late: on the image that the buffer holds
    bench.seed(boxes(Box(0, 0, 5, 5)))  # on the next one
    bench.image(40, level=4)
    assert [int(image[0, 0, 0]) for image in backend.images] == [2, 1, 4]
    assert [o.status for o in bench.outcomes if o.status != SeedStatus.PENDING] == [SeedStatus.APPLIED] * 3
    assert sorted(bench.session.states) == [1, 2, 3]


def test_an_image_that_came_along_is_what_the_prompt_is_cut_on() -> None:
    backend = Filled()
    bench = Bench(backend)
    bench.image(10)
    bench.image(20)
    bench.seed(boxes(LARGE, stamp_ns=10), Frame(stamp_ns=10, image=picture() + 77))
    assert int(backend.images[0][0, 0, 0]) == 77
    bench.seed(boxes(SMALL, stamp_ns=20), Frame(stamp_ns=20, image=picture((41, 60))))
    assert bench.outcomes[-1].status == SeedStatus.REJECTED and "must be 60x40" in bench.outcomes[-1].reason


def test_a_picture_larger_than_the_working_image_is_used_whole_where_it_is_the_newest() -> None:
    backend = Filled()
    bench = Bench(backend, working_size=64)
    size = (160, 240)
    bench.image(10, size=size)
    bench.seed(boxes(LARGE, stamp_ns=20))
    labels = bench.image(20, size=size)
    assert backend.images[0].shape[:2] == size and Box.of_mask(labels) == LARGE
    bench.seed(boxes(Box(100, 80, 180, 140), stamp_ns=10))
    assert backend.images[1].shape[:2] == (43, 64)  # the buffer has no larger one
    assert bench.outcomes[-1].status == SeedStatus.APPLIED


def test_a_prompt_that_gives_nothing_is_rejected_and_its_ids_are_free() -> None:
    bench = Bench(Filled(empty=LARGE))
    bench.seed(boxes(LARGE, SMALL))
    bench.image(10)
    assert bench.outcomes[-1].status == SeedStatus.REJECTED and "instance 1: " in bench.outcomes[-1].reason
    assert bench.ids.live == () and not bench.session.states
    assert bench.outcomes[-1].ids == (1, 2)


def test_what_is_there_already_is_not_started_twice_where_that_is_asked_for() -> None:
    bench = Bench(Filled(), prompts__same_iou=0.4)
    near = Box(LARGE.x0 + 2, LARGE.y0, LARGE.x1 + 2, LARGE.y1)
    bench.seed(boxes(LARGE, distinct=True))
    bench.seed(boxes(near, distinct=True))  # waits for the same image
    bench.image(10)
    assert bench.outcomes[-1].status == SeedStatus.REJECTED
    assert "instance 1 is there already: IoU of the masks 0.88, over 0.4" in bench.outcomes[-1].reason
    bench.image(20)
    bench.seed(boxes(near, stamp_ns=10, distinct=True))  # late
    assert bench.outcomes[-1].status == SeedStatus.REJECTED and list(bench.session.states) == [1]
    bench.seed(boxes(near, stamp_ns=20))
    assert bench.outcomes[-1].status == SeedStatus.APPLIED
    bench.seed(boxes(SMALL, stamp_ns=20, distinct=True))
    assert bench.outcomes[-1].status == SeedStatus.APPLIED


class Mending:
    """A backend that adds the pixels of points on the object to the mask before, and takes the others away."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def __call__(self, image: np.ndarray, prompt: Prompt) -> np.ndarray:
        self.prompts.append(prompt)
        mask = np.zeros(image.shape[:2], bool) if prompt.mask is None else prompt.mask.copy()
        for point in prompt.points:
            mask[int(point.y), int(point.x)] = point.on_object
        return mask


def corrected(instance_id: int, *points: tuple[float, float, bool], stamp_ns: int = 0) -> PromptSeed:
    clicks = tuple(Point(x=x, y=y, on_object=on) for x, y, on in points)
    prompt = Prompt(points=clicks, is_correction=True)
    return PromptSeed(stamp_ns=stamp_ns, prompted=(PromptedInstance(prompt=prompt, instance_id=instance_id),))


def test_a_click_with_the_id_of_a_live_instance_starts_from_its_mask() -> None:
    backend = Mending()
    bench = Bench(backend)
    bench.seed(PromptSeed(stamp_ns=10, prompted=(mask_of(LARGE, 3),)))
    bench.image(10)
    bench.seed(corrected(3, (5.5, 5.5, True), (12.5, 12.5, False)))
    labels = bench.image(20)
    expected = mask_of(LARGE).prompt.mask.copy()
    expected[5, 5], expected[12, 12] = True, False
    assert bench.outcomes[-1].status == SeedStatus.APPLIED
    np.testing.assert_array_equal(labels == 3, expected)
    bench.seed(corrected(3, (30.5, 20.5, False)))  # a point beside it alone will do
    expected[20, 30] = False
    np.testing.assert_array_equal(bench.image(30) == 3, expected)


def test_where_the_mask_is_not_known_a_click_has_to_say_where_the_object_is() -> None:
    bench = Bench(Mending())
    bench.seed(PromptSeed(stamp_ns=10, prompted=(mask_of(LARGE, 3),)))
    bench.image(10)
    bench.image(20)
    bench.seed(corrected(3, (30.5, 20.5, False), stamp_ns=10))  # late
    assert bench.outcomes[-1].status == SeedStatus.REJECTED
    assert "mend the mask that an instance has on the newest image, and there is none" in bench.outcomes[-1].reason
    bench.seed(corrected(7, (30.5, 20.5, False)))
    bench.image(30)
    assert bench.outcomes[-1].status == SeedStatus.REJECTED and 7 not in bench.session.states
