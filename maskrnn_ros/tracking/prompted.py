# SPDX-License-Identifier: Apache-2.0
"""Seeds that are not labels yet: boxes and points, which become labels when their image is there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import cv2
import numpy as np

from maskrnn_ros.prompts import Prompt, PromptBackend
from maskrnn_ros.types import BoolArray, LabelArray, Seed, UInt8Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedInstance:
    """One instance that is to be marked by a prompt.

    Args:
        prompt: What is said of it, pixels of the input image.
        instance_id: Its id; 0 = the next free one.
        name: Its name; empty leaves the one that it has.
    """

    prompt: Prompt
    instance_id: int = 0
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptSeed:
    """Marks instances on one image by prompts, and perhaps others by masks.

    Args:
        stamp_ns: Time of the image, ns; 0 = the next image.
        prompted: The instances, at least one.
        masks: What is marked by masks on the same image.
        distinct: Reject it where an instance is there already (``prompts.same_iou``): for what a detector or a
            double click may say twice.

    Raises:
        ValueError: No instance is prompted, an id is negative or marked twice, or the masks are of another image.
    """

    stamp_ns: int
    prompted: tuple[PromptedInstance, ...]
    masks: Seed | None = None
    distinct: bool = False

    def __post_init__(self) -> None:
        if self.stamp_ns < 0:
            raise ValueError(f"stamp of a seed must be >= 0 ns, got {self.stamp_ns}")
        if not self.prompted:
            raise ValueError("a seed must mark at least one instance, got no prompt")
        if self.masks is not None and self.masks.stamp_ns != self.stamp_ns:
            raise ValueError(f"masks and prompts must have one stamp, got {self.masks.stamp_ns} and {self.stamp_ns}")
        given = [item.instance_id for item in self.prompted if item.instance_id]
        if min(given, default=1) < 0:
            raise ValueError(f"ids of prompts must be >= 1, or 0 for the next free one, got {min(given)}")
        marked = given + list(self.masks.ids if self.masks is not None else ())
        twice = sorted({i for i in marked if marked.count(i) > 1})
        if twice:
            raise ValueError(f"an id must be marked once, by a mask or by one prompt, got {twice} more than once")

    @functools.cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids that it marks, ascending; 0 stands for those that are not settled yet."""
        masked = self.masks.ids if self.masks is not None else ()
        return tuple(sorted({*masked, *(item.instance_id for item in self.prompted)}))

    def settled(self, masks: Seed | None, free: Iterator[int]) -> PromptSeed:
        """The same with the masks' ids settled; prompts without an id get those of ``free``, in their order."""
        settled = [
            item if item.instance_id else dataclasses.replace(item, instance_id=next(free)) for item in self.prompted
        ]
        return dataclasses.replace(self, prompted=tuple(settled), masks=masks)

    def cut(self, image: UInt8Array, size: tuple[int, int], backend: PromptBackend) -> Seed:
        """The labels: masks first, then the prompts' pixels that are not the masks'.

        Where prompts share pixels the smaller object gets them: it lies on the larger one or in front of it (a cup on
        a table), and the order in which a detector names its boxes says nothing.

        Args:
            image: RGB, uint8 (h, w, 3), the image that it was drawn on or that one scaled down.
            size: (H, W) of the input image, whose pixels the prompts are in.
            backend: Makes masks of prompts.

        Raises:
            ValueError: A prompt lies outside the image or gives no pixel, or the masks are of another size. None of
                the others is used then: a seed is applied as a whole or changes nothing.
        """
        if self.masks is not None and self.masks.size != size:
            raise ValueError(
                f"mask must be {_text(size)} (width x height) like the image, got {_text(self.masks.size)}"
            )
        labels: LabelArray = np.zeros(size, np.int32) if self.masks is None else self.masks.labels.copy()
        free = labels == 0
        found = [(item, _cut(item.prompt, image, size, backend) & free) for item in self.prompted]
        for item, mask in sorted(found, key=lambda pair: int(pair[1].sum()), reverse=True):
            labels[mask] = item.instance_id
        left = np.bincount(labels.ravel(), minlength=max(self.ids) + 1)
        for item, mask in found:
            if not left[item.instance_id]:
                why = "others have all of its pixels" if mask.any() else "no object was found there"
                raise ValueError(f"instance {item.instance_id}: {item.prompt} gives an empty mask ({why})")
        names = {item.instance_id: item.name for item in self.prompted if item.name}
        return Seed(stamp_ns=self.stamp_ns, labels=labels, names={**(self.masks.names if self.masks else {}), **names})


def _cut(prompt: Prompt, image: UInt8Array, size: tuple[int, int], backend: PromptBackend) -> BoolArray:
    """The mask at the size of the input."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return backend(image, prompt)
    small = backend(image, prompt.scaled(width / size[1], height / size[0]))
    large = cv2.resize(small.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    mask: BoolArray = large >= 0.5
    return mask


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
