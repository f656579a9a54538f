# SPDX-License-Identifier: Apache-2.0
"""What is common to all seeds, and those that are not labels yet: masks of single objects, boxes and points."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol, TypeVar

import cv2
import numpy as np

from maskrnn_ros.limits import check_name
from maskrnn_ros.prompts import Prompt, PromptBackend, UnsureError
from maskrnn_ros.types import BoolArray, Box, LabelArray, Seed, UInt8Array

SeedT = TypeVar("SeedT", bound="AnySeed")


class AnySeed(Protocol):
    """Marks instances on one image: a ``Seed`` by labels, a ``PromptSeed`` by what becomes labels on the image."""

    @property
    def stamp_ns(self) -> int:
        """Time of the image, ns; 0 = the next image."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that it marks, ascending."""

    @property
    def boxes(self) -> Mapping[int, Box | None]:
        """Boxes of what it marks, by id; None where that is not known."""

    @property
    def distinct(self) -> bool:
        """Whether it is refused where an instance is there already (``prompts.same_iou``)."""

    @property
    def needs_picture(self) -> bool:
        """Whether something has to be cut out of the image."""

    def content(self) -> Iterator[bytes]:
        """All but the stamp: two seeds that give the same are the same."""

    def settled(self: SeedT, free: Callable[[Collection[int]], Iterator[int]]) -> SeedT:
        """The same with its final ids; ``free`` gives free ones beside those that it is given."""

    def cut(
        self,
        image: UInt8Array,
        size: tuple[int, int],
        backend: PromptBackend,
        before: Mapping[int, BoolArray] | None = None,
    ) -> Seed:
        """Its labels on an image, see ``PromptSeed.cut``."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaskPrompt:
    """The mask of one object, as a prompt that needs no backend.

    Args:
        mask: bool, (H, W), size of the input image, at least one pixel set.

    Raises:
        ValueError: It is of another dtype or shape, or empty.
    """

    mask: BoolArray

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.mask.ndim != 2:
            raise ValueError(f"mask must be bool (H, W), got {self.mask.dtype} {self.mask.shape}")
        if not self.mask.any():
            raise ValueError(f"mask must mark at least one pixel, got none of {_text(self.size)}")

    def __str__(self) -> str:
        return "mask"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.mask.shape[0], self.mask.shape[1]

    @functools.cached_property
    def box(self) -> Box | None:
        """Smallest box around it."""
        return Box.of_mask(self.mask)

    def check_inside(self, size: tuple[int, int]) -> None:
        """Refuse a mask that is not of an image of (H, W).

        Raises:
            ValueError: It is of another size.
        """
        if self.size != size:
            raise ValueError(f"mask must be {_text(size)} (width x height) like the image, got {_text(self.size)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedInstance:
    """One instance that is to be marked by a prompt.

    Args:
        prompt: What is said of it, pixels of the input image.
        instance_id: Its id; 0 = the next free one.
        name: Its name; empty leaves the one that it has.

    Raises:
        ValueError: The id is negative, or the name too long.
    """

    prompt: Prompt | MaskPrompt
    instance_id: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.instance_id < 0:
            raise ValueError(f"ids of prompts must be >= 1, or 0 for the next free one, got {self.instance_id}")
        check_name(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptSeed:
    """Marks instances on one image by prompts.

    Args:
        stamp_ns: Time of the image, ns; 0 = the next image.
        prompted: The instances, at least one.
        distinct: Reject it where an instance is there already (``prompts.same_iou``): for what a detector or a
            double click may say twice.

    Raises:
        ValueError: No instance is prompted, or an id is marked twice.
    """

    stamp_ns: int
    prompted: tuple[PromptedInstance, ...]
    distinct: bool = False

    def __post_init__(self) -> None:
        if self.stamp_ns < 0:
            raise ValueError(f"stamp of a seed must be >= 0 ns, got {self.stamp_ns}")
        if not self.prompted:
            raise ValueError("a seed must mark at least one instance, got no prompt")
        counts = Counter(item.instance_id for item in self.prompted if item.instance_id)
        twice = sorted(i for i, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"an id must be marked once, by one prompt, got {twice} more than once")

    @functools.cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids that it marks, ascending; 0 stands for those that are not settled yet."""
        return tuple(sorted({item.instance_id for item in self.prompted}))

    @property
    def needs_picture(self) -> bool:
        """Whether something has to be cut out of the image."""
        return any(isinstance(item.prompt, Prompt) for item in self.prompted)

    @property
    def boxes(self) -> Mapping[int, Box | None]:
        """Boxes of what it marks, by id; None where only points mark it."""
        return {item.instance_id: item.prompt.box for item in self.prompted}

    def content(self) -> Iterator[bytes]:
        """All but the stamp: two seeds that give the same are the same."""
        for item in self.prompted:
            prompt = item.prompt
            if isinstance(prompt, MaskPrompt):
                yield np.packbits(prompt.mask).tobytes()
            what = prompt.size if isinstance(prompt, MaskPrompt) else prompt
            yield repr((item.instance_id, item.name, what, self.distinct)).encode()

    def settled(self, free: Callable[[Collection[int]], Iterator[int]]) -> PromptSeed:
        """The same with its final ids: prompts without one have free ones, in their order.

        Args:
            free: Gives free ids, the next ones first, beside those that it is given.
        """
        next_ones = free([i for i in self.ids if i])
        settled = [
            item if item.instance_id else dataclasses.replace(item, instance_id=next(next_ones))
            for item in self.prompted
        ]
        return dataclasses.replace(self, prompted=tuple(settled))

    def cut(
        self,
        image: UInt8Array,
        size: tuple[int, int],
        backend: PromptBackend,
        before: Mapping[int, BoolArray] | None = None,
    ) -> Seed:
        """The labels: masks first, then what is cut out by boxes and points of the pixels that are not the masks'.

        Where several of a kind share pixels the smaller object gets them: it lies on the larger one or in front of it
        (a cup on a table), and the order in which a detector names its boxes says nothing.

        Args:
            image: RGB, uint8 (h, w, 3), the image that it was drawn on or that one scaled down.
            size: (H, W) of the input image, whose pixels the prompts are in.
            backend: Makes masks of boxes and points.
            before: Masks on this image of instances that live, bool (H, W), by id: points start from them.

        Raises:
            ValueError: A prompt lies outside the image, gives no pixel or an unsure mask, or a mask is of another
                size. None of the others is used then: a seed is applied as a whole or changes nothing.
        """
        labels: LabelArray = np.zeros(size, np.int32)
        found = [(item, _cut(_begun(item, before or {}), image, size, backend)) for item in self.prompted]
        for kind in (MaskPrompt, Prompt):
            free = labels == 0
            mine = [(item, mask & free) for item, mask in found if isinstance(item.prompt, kind)]
            for item, mask in sorted(mine, key=lambda pair: int(pair[1].sum()), reverse=True):
                labels[mask] = item.instance_id
        left = np.bincount(labels.ravel(), minlength=max(self.ids) + 1)
        for item, mask in found:
            if not left[item.instance_id]:
                why = "others have all of its pixels" if mask.any() else "no object was found there"
                raise ValueError(f"instance {item.instance_id}: {item.prompt} gives an empty mask ({why})")
        names = {item.instance_id: item.name for item in self.prompted if item.name}
        return Seed(stamp_ns=self.stamp_ns, labels=labels, names=names)


def _begun(item: PromptedInstance, before: Mapping[int, BoolArray]) -> PromptedInstance:
    """The same; points without a box that correct an instance start from the mask that it has.

    Raises:
        ValueError: They say what is not the object, and it has none.
    """
    prompt = item.prompt
    if isinstance(prompt, MaskPrompt) or prompt.box is not None:
        return item
    mask = before.get(item.instance_id)
    if mask is not None:
        return dataclasses.replace(item, prompt=dataclasses.replace(prompt, mask=mask))
    if not prompt.says_where:
        raise ValueError(
            f"instance {item.instance_id}: points beside the object mend the mask that an instance has on the newest "
            "image, and there is none: click on the object, too"
        )
    return item


def _cut(item: PromptedInstance, image: UInt8Array, size: tuple[int, int], backend: PromptBackend) -> BoolArray:
    """The mask at the size of the input."""
    prompt = item.prompt
    if isinstance(prompt, MaskPrompt):
        prompt.check_inside(size)
        return prompt.mask
    height, width = image.shape[:2]
    try:
        if (height, width) == size:
            return backend(image, prompt)
        small = backend(image, prompt.scaled(width / size[1], height / size[0]))
    except UnsureError as error:
        raise ValueError(f"instance {item.instance_id}: {prompt}: {error}") from error
    large = cv2.resize(small.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    mask: BoolArray = large >= 0.5
    return mask


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
