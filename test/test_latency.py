# SPDX-License-Identifier: Apache-2.0
"""Which level of quality is taken: by the settings, and by what images take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrnn_ros.config import Config, deterministic, from_flat, to_flat, with_values
from maskrnn_ros.config import settings as known_settings
from maskrnn_ros.quality import LEVELS, SET_BY_LEVELS, at_level, relative_cost
from maskrnn_ros.tracking.latency import CALM, MARGIN, SETTLING, TOLERATED, WINDOW, LatencyControl
from maskrnn_ros.tracking.tuning import Tuning

VGA = (480, 640)


# --- levels ---


def test_the_levels_are_those_of_the_setting_and_what_they_set_is_left_to_them_by_default() -> None:
    known = {name: (default, setting) for name, default, setting in known_settings()}
    assert tuple(LEVELS) == known["quality"][1].choices
    assert {name for name, (_, setting) in known.items() if setting.automatic is not None} == set(SET_BY_LEVELS)
    for name in SET_BY_LEVELS:
        assert known[name][0] == known[name][1].automatic
    for level, values in LEVELS.items():
        assert set(values) == set(SET_BY_LEVELS)
        from_flat({**values, "quality": level})  # values that their settings take


def test_a_level_sets_what_has_its_default_and_leaves_what_the_user_says() -> None:
    low = at_level(Config(), "low")
    assert {name: to_flat(low)[name] for name in SET_BY_LEVELS} == LEVELS["low"]
    assert low == at_level(low, "low") and low.quality == "low"
    for size in (448, *(values["working_size"] for values in LEVELS.values())):
        mine = with_values(Config(), working_size=size, gate__enlarge=2.0)
        for level in LEVELS:
            found = at_level(mine, level)
            assert (found.working_size, found.gate.enlarge) == (size, 2.0)
            assert found.flow.preset == LEVELS[level]["flow.preset"]
    assert at_level(with_values(Config(), flow__preset="ultrafast"), "high").flow.preset == "ultrafast"


def test_costs_ascend_with_the_levels_and_count_the_pixels_that_are_there() -> None:
    costs = [relative_cost(at_level(Config(), level), (1080, 1920)) for level in LEVELS]
    assert costs == sorted(set(costs))
    assert (384 / 512) ** 2 < costs[0] / costs[1] < 1.0  # not all of a step grows with the pixels
    low, medium = at_level(Config(), "low"), at_level(Config(), "medium")
    assert relative_cost(low, (240, 320)) == relative_cost(medium, (240, 320))
    raft = with_values(medium, flow__backend="raft")
    other = with_values(raft, flow__preset="medium")
    assert relative_cost(raft, VGA) == relative_cost(other, VGA)  # it has no presets


def test_what_must_not_depend_on_the_clock_has_no_limit() -> None:
    found = deterministic(with_values(Config(), max_latency_ms=40.0))
    assert found.max_latency_ms == 0.0
    assert deterministic(found) is found


# --- control ---


def run(control: LatencyControl, times: list[float], images: int, instances: int = 1) -> list[int]:
    """Levels after each image, where images take what the level they are worked on at takes."""
    levels = []
    for _ in range(images):
        control.observe(times[control.level], instances)
        levels.append(control.level)
    return levels


def steps(levels: list[int]) -> list[int]:
    return [now - before for before, now in zip(levels, levels[1:], strict=False) if now != before]


def test_it_goes_down_when_more_images_than_tolerated_take_too_long() -> None:
    control = LatencyControl((1.0, 2.0, 4.0), 2, 40.0)
    times = [30.0] * (SETTLING + WINDOW - TOLERATED) + [41.0] * TOLERATED
    assert all(control.observe(time, 1) is None for time in times)
    step = control.observe(41.0, 1)
    assert step is not None and (step.level, step.p90_ms, step.expected_ms) == (1, 41.0, 20.5)
    assert control.level == 1


def test_images_that_set_the_new_size_up_do_not_count() -> None:
    control = LatencyControl((1.0, 2.0), 1, 40.0)
    slow = [1000.0] * SETTLING + [20.0] * 100
    assert all(control.observe(time, 1) is None for time in slow)


def test_the_lowest_level_stays_however_slow_it_is() -> None:
    assert set(run(LatencyControl((1.0, 2.0), 0, 40.0), [90.0, 180.0], 500)) == {0}


def test_it_goes_up_when_the_next_level_has_seemed_to_fit_for_long() -> None:
    control = LatencyControl((1.0, 2.0), 0, 40.0)
    fitting = MARGIN * 40.0 / 2
    levels = run(control, [fitting, fitting * 2], 1000)
    assert levels.index(1) == SETTLING + WINDOW - 1 + CALM - 1
    assert steps(levels) == [1]
    too_slow = LatencyControl((1.0, 2.0), 0, 40.0)
    assert set(run(too_slow, [fitting + 0.1, fitting * 2], 1000)) == {0}


def test_a_level_that_fails_is_tried_ever_more_rarely_until_the_load_is_another() -> None:
    control = LatencyControl((1.0, 2.0), 0, 40.0)
    times = [10.0, 100.0]  # twice the cost is expected, ten times it is
    levels = run(control, times, 40 * CALM)
    rises = [k for k in range(1, len(levels)) if levels[k] > levels[k - 1]]
    gaps = [later - earlier for earlier, later in zip(rises, rises[1:], strict=False)]
    assert len(gaps) >= 3
    for shorter, longer in zip(gaps, gaps[1:], strict=False):
        assert longer > 1.6 * shorter
    assert 1 in run(control, times, CALM + 2 * WINDOW, instances=2)


def test_a_level_that_held_for_long_did_not_fail() -> None:
    control = LatencyControl((1.0, 2.0), 0, 40.0)
    assert run(control, [10.0, 20.0], 10 * CALM)[-1] == 1
    assert run(control, [25.0, 50.0], WINDOW + 5)[-1] == 0  # another process takes time, then ends
    assert run(control, [10.0, 20.0], CALM + WINDOW + SETTLING)[-1] == 1


@given(
    st.lists(st.floats(1.0, 300.0), min_size=1, max_size=4).map(sorted),
    st.floats(0.3, 3.0),
    st.floats(1.0, 200.0),
    st.data(),
)
@settings(max_examples=60)
def test_constant_times_lead_to_a_level_that_fits_and_to_few_steps(
    costs: list[float], speed: float, limit: float, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(costs) - 1))
    control = LatencyControl(costs, begin, limit)
    times = [cost * speed for cost in costs]
    levels = run(control, times, 3000)
    assert set(levels) <= set(range(len(costs)))
    # costs are in proportion here: no level is tried in vain, so that there is no way back
    assert len({step > 0 for step in steps(levels)}) <= 1
    last = levels[-1]
    assert times[last] <= limit or last == 0
    if last + 1 < len(costs):  # the next one does not fit, or is too near to the limit to be tried
        assert times[last + 1] > MARGIN * limit * (1 - 1e-9)


@given(st.lists(st.floats(0.0, 500.0), min_size=1, max_size=600), st.integers(0, 2))
@settings(max_examples=60)
def test_whatever_images_take_the_level_stays_within_the_levels_and_the_same_times_give_the_same(
    times: list[float], begin: int
) -> None:
    one, other = (LatencyControl((1.0, 1.5, 3.0), begin, 40.0) for _ in range(2))
    for time in times * 3:
        before = one.level
        step = one.observe(time, 1)
        assert step == other.observe(time, 1)
        assert one.level in (0, 1, 2)
        assert one.level - before in ((0,) if step is None else (-1, 1))


# --- the level of a session ---


def told(tuning: Tuning, step_ms: float, images: int, size: tuple[int, int] = VGA, instances: int = 1) -> list[str]:
    lines = [tuning.observe(step_ms, size, instances) for _ in range(images)]
    return [line for line in lines if line is not None]


def test_without_a_limit_or_an_instance_the_level_is_the_one_that_is_set() -> None:
    tuning = Tuning(Config())
    assert told(tuning, 500.0, 200) == [] and tuning.level == "medium"
    tuning.configure(with_values(Config(), max_latency_ms=40.0))
    assert told(tuning, 500.0, 200, instances=0) == [] and tuning.level == "medium"


def test_steps_are_told_with_their_reason_and_never_pass_the_level_that_is_set() -> None:
    tuning = Tuning(with_values(Config(), max_latency_ms=40.0))
    assert told(tuning, 61.0, WINDOW + SETTLING) == ["quality medium -> low: p90 61 ms over max_latency_ms 40"]
    assert tuning.settings.working_size == 384
    assert told(tuning, 10.0, 1000) == ["quality low -> medium: p90 10 ms with max_latency_ms 40, about 15 ms expected"]
    assert tuning.settings.working_size == 512


def test_settings_that_say_nothing_of_levels_leave_the_level_others_set_it_anew() -> None:
    config = with_values(Config(), max_latency_ms=40.0)
    tuning = Tuning(config)
    told(tuning, 61.0, WINDOW + SETTLING)
    tuning.configure(with_values(config, gate__enlarge=2.0))
    assert tuning.level == "low" and tuning.settings.gate.enlarge == 2.0
    tuning.configure(with_values(config, max_latency_ms=50.0))
    assert tuning.level == "medium"
    tuning.configure(with_values(config, quality="high"))
    assert tuning.said == "quality high: working_size 640, flow.preset medium"


@pytest.mark.parametrize(
    ("changes", "size", "levels"),
    [
        ({}, (1080, 1920), ["medium", "low"]),
        ({}, (288, 512), ["medium", "low"]),  # high and medium differ in the flow
        ({}, (240, 320), ["medium"]),
        ({"working_size": 300}, VGA, ["medium"]),
        ({"working_size": 300, "flow__preset": "fast"}, VGA, []),
        ({"flow__backend": "raft"}, (240, 320), []),
        ({"quality": "low"}, VGA, []),
    ],
)
def test_levels_that_do_the_same_are_one(changes: dict[str, object], size: tuple[int, int], levels: list[str]) -> None:
    config = with_values(Config(), **{"quality": "high", "max_latency_ms": 40.0, **changes})
    tuning = Tuning(config)
    lines = told(tuning, 90.0, 10 * WINDOW, size)
    assert [line.split()[3].rstrip(":") for line in lines] == levels
