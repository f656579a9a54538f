# SPDX-License-Identifier: Apache-2.0
"""Masks on images that the networks have no time for: MaskRNN's warped prior alone.

Masks of the newest image that the networks have looked at are carried there by optical flow. It takes a few
milliseconds where the networks take fifty, and changes nothing of what they carry: the next image that they look at
follows from the last one that they looked at, as if there had been none in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from maskrnn_ros.config import Config
from maskrnn_ros.flow import FlowEstimator
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.quality import resolved
from maskrnn_ros.tracking.cells import Floats
from maskrnn_ros.tracking.moment import Moment
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.states import States
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.tracking.zoom import at_work
from maskrnn_ros.types import Frame, Tracks, UInt8Array

_HELD = 16
"""Images that are gone through again when the networks have looked at one before them; with more, the flow leaps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """All instances on the newest image that the networks have looked at.

    Args:
        moment: Of the tracker, after it.
        frame: The image.
        config: Settings of the tracker.
    """

    moment: Moment
    frame: PreparedFrame
    config: Config

    @staticmethod
    def of(tracker: Tracker) -> Look | None:
        """The newest one of a tracker; None where there was no image yet."""
        newest = tracker.newest
        return None if newest is None else Look(tracker.moment, newest, tracker.config)

    def marked(self, first: Mapping[int, InstanceMemory]) -> Look:
        """With instances that are just being marked on the image, of which the networks know nothing yet."""
        states = {i: dataclasses.replace(one, known=None) for i, one in self.moment.states.items()}
        return dataclasses.replace(self, moment=dataclasses.replace(self.moment, states=States.of({**states, **first})))

    def is_of(self, other: Look) -> bool:
        """Whether nothing has changed between two."""
        return self.frame is other.frame and self.moment.states is other.moment.states and self.config is other.config


class Ahead:
    """Carries masks by flow; used by one thread, which need not be that of the tracker.

    From the image that was looked at the flow goes through every image since: of fast motion it loses less than a
    flow over all of them at once. Mean J on the five held-out clips of DAVIS and on the demo clip, where every n-th
    image is looked at and is known n images later (the first row is ``tools/measure_propagation.py``; all were compared
    with the decoder in float32, which changes that row by 0.005 at most):

    ======================================  ============  ============  ===========  ===========
    .                                       DAVIS, n = 2  DAVIS, n = 3  demo, n = 2  demo, n = 3
    ======================================  ============  ============  ===========  ===========
    as it is                                0.611         0.523         0.902        0.878
    flow over all images at once            0.582         0.501         0.892        0.863
    flow searched down to half the size     0.633         0.545         0.914        0.895
    flow by the preset medium               0.641         0.546         0.916        0.893
    the object's affine motion for flow     0.578         0.502         0.896        0.873
    without what changed its color          0.488         0.394         0.888        0.864
    the last mask in its place              0.464         0.380         0.854        0.814
    ======================================  ============  ============  ===========  ===========

    The finer flows take 3 and 7 ms more for each image, and so the networks look at fewer: the live demo gains nothing.

    Args:
        config: Settings of the tracker.
        flow: Estimator of backward flow; None: OpenCV's DIS, whatever the tracker uses, for it is quick on a CPU.
    """

    def __init__(self, config: Config, flow: FlowEstimator | None = None) -> None:
        config = resolved(config)
        self._flow = _Remembered(flow or DisFlow(config.flow.preset))
        self._tracker = Tracker(config, self._flow)
        self._look: Look | None = None
        self._past: list[PreparedFrame] = []
        self._now = self._tracker
        self._images = 1

    def tracks(self, frame: Frame, look: Look) -> Tracks:
        """Masks on an image.

        Args:
            frame: The image, newer than all before it.
            look: The newest there is, with instances, of an image of the same size that is not newer.

        Raises:
            ValueError: The image has another size.
        """
        if look is not self._look:
            self._begin_at(look)
        if frame.stamp_ns > look.frame.stamp_ns:
            prepared = self._tracker.prepare(frame)
            self._advance(prepared)
            self._past = [*self._past[1 - _HELD :], prepared]
            self._flow.keep([one.image for one in self._past])
        return self._now.tracks(frame.image)

    def forget(self) -> None:
        """Another time, or another session: nothing of before counts."""
        self._look, self._past, self._images = None, [], 1
        self._now = self._tracker
        self._flow.keep([])

    def _advance(self, frame: PreparedFrame) -> None:
        """All images since a look count as one, that which will be looked at next: no count runs ahead of its."""
        self._now.advance(frame, self._images)
        self._images = 0

    def _begin_at(self, look: Look) -> None:
        """Go through the images since a look."""
        stamp_ns = look.frame.stamp_ns
        # its own image of that stamp: of that the flow to the next is known already
        own = next((one for one in self._past if one.stamp_ns == stamp_ns), None)
        bare = PreparedFrame(
            stamp_ns=stamp_ns, size=look.frame.size, image=look.frame.image, ignored=look.frame.ignored
        )
        self._tracker.config = look.config
        self._now = self._tracker.twin(_at_work(look), own or bare)
        self._images = 1
        self._look, self._past = look, [one for one in self._past if one.stamp_ns > stamp_ns]
        for one in self._past:
            self._advance(one)


def _at_work(look: Look) -> Moment:
    """The moment with all masks at the pixels of the working image."""
    states = look.moment.states
    if look.frame.fine is not None:  # there is a zoom
        whole = {i: at_work(state, look.frame) for i, state in states.items()}
        states = States.of({i: dataclasses.replace(state, known=None) for i, state in whole.items()})
    return dataclasses.replace(look.moment, states=states, leaving={})


class _Remembered:
    """A flow estimator that knows the flows between images that are held.

    Args:
        flow: Estimates those that are not known.
    """

    def __init__(self, flow: FlowEstimator) -> None:
        self._flow = flow
        self._known: list[tuple[UInt8Array, UInt8Array, Floats]] = []

    def __call__(self, current: UInt8Array, previous: UInt8Array) -> Floats:
        """See ``FlowEstimator``."""
        for one, other, flow in self._known:
            if one is current and other is previous:
                return flow
        found = self._flow(current, previous)
        self._known.append((current, previous, found))
        return found

    def keep(self, images: list[UInt8Array]) -> None:
        """Forget the flows to all images but these."""
        held = {id(image) for image in images}
        self._known = [one for one in self._known if id(one[0]) in held]
