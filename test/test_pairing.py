# SPDX-License-Identifier: Apache-2.0
"""Our use of message_filters: every message is accounted for, and a jump in time breaks nothing."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

import simple_filters  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402

from maskrnn_ros.image_messages import ns_to_stamp  # noqa: E402
from maskrnn_ros.locator.pairing import Pairing  # noqa: E402

NAMES = ("masks", "depth", "info")
MS = 1_000_000


@pytest.fixture(params=["simple", "real"])
def filters(request):
    if request.param == "simple":
        return simple_filters
    return pytest.importorskip("message_filters", reason="needs the ROS package message_filters")


def at(stamp_ns, tag=None):
    stamp = Time()
    ns_to_stamp(stamp_ns, stamp)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), stamp_ns=stamp_ns, tag=tag)


class Paired:
    """A Pairing and what it hands over."""

    def __init__(self, filters, **options):
        self.sets = []
        options = {"queue_size": 10, **options}
        self.pairing = Pairing(filters, NAMES, lambda *messages: self.sets.append(messages), **options)

    def put(self, name, *stamps_ms, tag=None):
        for stamp in stamps_ms:
            self.pairing.put(name, at(stamp * MS, tag))

    def stamps(self):
        return [[message.stamp_ns // MS for message in messages] for messages in self.sets]

    def counts(self, name):
        source = self.pairing.inputs[name]
        return source.received, source.matched, source.unmatched, len(source.waiting) + len(source.order.held)


def test_equal_stamps_are_paired_in_the_order_of_the_names(filters):
    paired = Paired(filters)
    paired.put("depth", 100, 133, 166)
    paired.put("info", 100, 133, 166)
    paired.put("masks", 133, 150)
    assert paired.stamps() == [[133, 133, 133]]
    assert paired.counts("masks") == (2, 1, 0, 1)
    assert paired.counts("depth") == (3, 1, 0, 2)
    assert paired.pairing.explain("masks") == "the nearest depth is +16.000 ms off, the nearest info is +16.000 ms off"


def test_approximate_pairs_stamps_within_the_slop(filters):
    paired = Paired(filters, slop_s=0.02)
    paired.put("depth", 100, 150)
    paired.put("info", 102, 152)
    paired.put("masks", 149, 190)
    assert paired.stamps() == [[149, 150, 152]]
    assert paired.counts("masks") == (2, 1, 0, 1)


def test_what_a_full_queue_lets_go_is_counted(filters):
    paired = Paired(filters, queue_size=3)
    paired.put("masks", 10, 20, 30, 40, 50)
    assert paired.counts("masks") == (5, 0, 2, 3)
    assert paired.pairing.explain("masks") == "no depth has come, no info has come"


def test_pairing_goes_on_after_a_jump_back(filters):
    paired = Paired(filters, queue_size=3)
    for name in NAMES:
        paired.put(name, 9000, 9033, 9066, 9100)
    paired.put("depth", 9133, 9166)
    paired.sets.clear()
    paired.put("depth", 10, 43, 76, tag="new")  # the masks are late, as they are
    paired.put("info", 10, 43, 76, tag="new")
    paired.put("masks", 9133, tag="old")
    paired.put("masks", 10, 43, tag="new")
    assert paired.stamps() == [[10, 10, 10], [43, 43, 43]], "what came first after the jump is not lost"
    assert {message.tag for messages in paired.sets for message in messages} == {"new"}
    for name in NAMES:
        paired.put(name, 5000, 5033, 5066)  # ahead
        paired.put(name, 6, 7, 8)  # and back once more
    assert paired.stamps()[-3:] == [[6, 6, 6], [7, 7, 7], [8, 8, 8]], "and after the next one"


@pytest.mark.parametrize("wild", [67, 3_600_000, 1])
@pytest.mark.parametrize("name", NAMES)
def test_a_late_or_wild_stamp_costs_no_pair(filters, name, wild):
    paired = Paired(filters)
    late = wild == 67
    stamps = [5000, 5033, 5100, 5067, 5133] if late else [5000, 5033, 5067, wild, 5100, 5133]
    for each in NAMES:
        refused = [paired.pairing.put(each, at(s * MS)) for s in (stamps if each == name else sorted(stamps))]
        if each != name:
            continue
        assert sum(map(len, refused)) == (0 if late else 1), "a late one is paired, a wild one is said"
    assert sorted(stamps[0] for stamps in paired.stamps()) == [5000, 5033, 5067, 5100, 5133]
    assert paired.pairing.jumps == 0
    for each in NAMES:
        received, matched, unmatched, waiting = paired.counts(each)
        assert received == matched + unmatched + waiting and matched == 5


def test_without_a_new_synchronizer_a_jump_would_stop_it(filters):
    """The trap that the pairing guards against is there."""
    sources = [filters.SimpleFilter() for _ in NAMES]
    synchronizer = filters.TimeSynchronizer(sources, 3)
    sets = []
    synchronizer.registerCallback(lambda *messages: sets.append(messages))
    for stamp in (1000, 1033, 1066):
        sources[0].signalMessage(at(stamp * MS))
    for source in sources:
        source.signalMessage(at(10 * MS))
    assert not sets


def test_a_stamp_that_is_none_is_refused_before_it_can_block(filters):
    paired = Paired(filters)
    bad = at(10 * MS)
    bad.header.stamp = SimpleNamespace(sec=-1, nanosec=0)
    with pytest.raises(ValueError, match="stamp.sec must be >= 0, got -1"):
        paired.pairing.put("depth", bad)
    for name in NAMES:
        paired.put(name, 20)
    assert paired.stamps() == [[20, 20, 20]]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from([*range(1, 13), 3001, 3002, 3003, 9001, 9002, 9003])),
        max_size=60,
    ),
    st.sampled_from([None, 0.0025]),
    st.integers(1, 4),
)
@pytest.mark.parametrize("kind", ["simple", "real"])
def test_every_message_is_matched_unmatched_or_waits(kind, events, slop_s, queue_size):
    filters = simple_filters if kind == "simple" else pytest.importorskip("message_filters")
    made = []

    class Watched:
        SimpleFilter = filters.SimpleFilter

        @staticmethod
        def TimeSynchronizer(*arguments):  # noqa: N802
            made.append(filters.TimeSynchronizer(*arguments))
            return made[-1]

        @staticmethod
        def ApproximateTimeSynchronizer(*arguments):  # noqa: N802
            made.append(filters.ApproximateTimeSynchronizer(*arguments))
            return made[-1]

    paired = Paired(Watched, queue_size=queue_size, slop_s=slop_s)
    for name, stamp_ms in events:
        paired.put(name, stamp_ms)
        for each in NAMES:
            received, matched, unmatched, waiting = paired.counts(each)
            assert received == matched + unmatched + waiting
            assert matched == len(paired.sets)
        queues = [dict(queue) for queue in made[-1].queues]
        assert queues == [source.waiting for source in paired.pairing.inputs.values()]
    assert len(made) == 1 + sum(source.order.era for source in paired.pairing.inputs.values())
