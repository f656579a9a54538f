# SPDX-License-Identifier: Apache-2.0
"""The page of the seed editor in headless Chromium, with real clicks and keys, against the real tracker."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import world
from browser import Browser, find_chromium
from matplotlib.path import Path as Outline
from node_bench import NodeBench
from seed_ui_bench import SeedUi, image, looks_at, requests_of

from maskrnn_ros.datasets.davis import CLIP_NAME, CLIP_ROOT
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.prompts import GrabCut, Prompt
from maskrnn_ros.prompts.clicks import next_click
from maskrnn_ros.types import Box

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium")

CENTRES = np.stack(np.meshgrid(np.arange(world.WIDTH) + 0.5, np.arange(world.HEIGHT) + 0.5), axis=-1).reshape(-1, 2)
MODE = "document.body.dataset.mode"
HOVERED = "document.body.dataset.hover == 'shown'"
ASKED = "performance.getEntriesByType('resource').some((entry) => entry.name.includes('/api/prompt'))"


@dataclasses.dataclass
class Desk:
    """A person at the page, the tracker, and what it is sent."""

    bench: NodeBench
    ui: SeedUi
    browser: Browser
    taken: list

    def wait(self, expression: str) -> None:
        self.browser.wait(expression, meanwhile=lambda: self.bench.executor.spin_once(timeout_sec=0.02))

    def press_twice(self, selector: str) -> None:
        """A button that asks once, and calms down after three seconds: a busy machine may take them for two presses."""
        self.browser.press(selector)
        self.browser.press(selector)
        if self.browser.js(f"document.querySelector({selector!r})?.classList.contains('sure')"):
            self.browser.press(selector)

    def show(self, number: int) -> None:
        """A new image, until it is on the page."""
        image(self.bench, self.ui, number)
        self.wait("document.getElementById('empty').hidden")

    def place(self, x: float, y: float, size: tuple[int, int] = (world.HEIGHT, world.WIDTH)) -> tuple[float, float]:
        """Where a point of an image (H, W) is on the screen."""
        box = json.loads(self.browser.js("JSON.stringify(document.getElementById('canvas').getBoundingClientRect())"))
        scale = min(box["width"] / size[1], box["height"] / size[0])
        left = box["x"] + (box["width"] - size[1] * scale) / 2
        top = box["y"] + (box["height"] - size[0] * scale) / 2
        return left + x * scale, top + y * scale

    def tool(self, name: str) -> None:
        self.browser.press(f"[data-tool={name}]")

    def send(self) -> None:
        """Enter, until the tracker has applied it."""
        self.wait("!document.getElementById('send').disabled")
        before = len(self.taken)
        self.browser.key("Enter", 13)
        self.bench.wait(lambda: len(self.taken) > before)
        self.wait(f"{MODE} == 'live'")

    @property
    def sent(self) -> np.ndarray:
        """The mask that reached the tracker last, bool (H, W)."""
        (item,) = self.taken[-1][0].prompted
        return item.prompt.mask


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    taken = requests_of(monkeypatch)
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui, Browser() as browser:
        browser.open(ui.url)
        looks_at(bench, ui)  # for the page is open
        desk = Desk(bench, ui, browser, taken)
        desk.show(0)
        yield desk
        assert not browser.problems


def polygon_mask(corners: list[tuple[float, float]]) -> np.ndarray:
    """matplotlib's answer to which pixel centres are inside."""
    return Outline(corners).contains_points(CENTRES).reshape(world.HEIGHT, world.WIDTH)


def test_a_polygon_of_clicks_reaches_the_tracker_to_the_pixel(desk: Desk) -> None:
    corners = [(20.3, 20.2), (44.4, 19.1), (50.2, 33.3), (43.1, 40.4), (30.3, 32.2), (20.1, 40.3)]
    desk.tool("polygon")
    for corner in corners:
        desk.browser.click(*desk.place(*corner))
    assert desk.browser.js(MODE) == "frozen"
    desk.browser.click(*desk.place(*corners[0]))  # closes it
    desk.browser.press("#name")
    desk.browser.type("cup <b>1</b>")
    desk.send()
    expected = polygon_mask(corners)
    assert expected.sum() > 300
    assert np.array_equal(desk.sent, expected)
    assert desk.taken[-1][0].stamp_ns == world.stamp_ns(0)
    desk.show(1)
    desk.wait("document.querySelector('.instance .name')?.textContent == '#1 cup <b>1</b>'")  # text, not HTML
    desk.wait("document.getElementById('seeds').textContent.includes('#1 applied')")


def test_a_box_previews_the_mask_that_is_sent(desk: Desk) -> None:
    desk.ui.server.prompts = GrabCut()
    desk.tool("box")
    desk.browser.drag(desk.place(16, 16), desk.place(30, 30), desk.place(48, 44))
    expected = GrabCut()(world.image(0), Prompt(box=Box(16, 16, 48, 44)))
    assert expected.any()
    desk.wait(f"document.getElementById('area').textContent == '{expected.sum()} pixels'")
    desk.send()
    assert np.array_equal(desk.sent, expected)


def stroke_mask(points: list[tuple[float, float]], radius: float) -> np.ndarray:
    """Pixel centres within the radius of a polyline: many discs, close together."""
    dense = [np.linspace(a, b, 2000) for a, b in zip(points, points[1:], strict=False)]
    near = [((CENTRES[:, None] - part[None, ::10]) ** 2).sum(-1).min(1) for part in dense]
    return (np.min(near, axis=0) <= radius**2).reshape(world.HEIGHT, world.WIDTH)


def test_brush_eraser_undo_and_redo(desk: Desk) -> None:
    def ink() -> int:
        return int((desk.browser.js("document.getElementById('area').textContent") or "0").split()[0])

    desk.tool("brush")
    line = [(30.0, 30.0), (60.0, 30.0), (60.0, 60.0)]
    desk.browser.drag(*(desk.place(*point) for point in line))
    painted = ink()
    desk.tool("eraser")
    desk.browser.drag(desk.place(60, 45), desk.place(60, 60))
    erased = ink()
    assert 0 < erased < painted
    desk.browser.key("z", 90, control=True)
    assert ink() == painted
    desk.browser.key("y", 89, control=True)
    assert ink() == erased
    desk.browser.key("z", 90, control=True)
    desk.send()
    assert desk.sent.sum() == painted
    assert (desk.sent != stroke_mask(line, 12)).sum() <= 8  # the oracle's discs are not wholly a line


def test_points_are_on_and_off_the_object(desk: Desk) -> None:
    asked = []
    prompts = desk.ui.server.prompts

    def note(picture: np.ndarray, prompt: Prompt) -> np.ndarray:
        asked.append(prompt)
        return prompts(picture, prompt)

    desk.ui.server.prompts = note
    desk.browser.click(*desk.place(32, 30))
    desk.wait("document.getElementById('hint').textContent.startsWith('Right?')")
    desk.browser.click(*desk.place(100, 80), button="right")
    desk.bench.wait(lambda: len(asked) == 2)
    first, second = asked[-1].points
    assert (first.on_object, second.on_object) == (True, False)
    assert (first.x, first.y, second.x, second.y) == pytest.approx((32, 30, 100, 80), abs=0.2)


def test_an_instance_is_corrected_from_its_mask_and_removed(desk: Desk) -> None:
    desk.tool("polygon")
    for corner in [(10.1, 10.1), (40.1, 10.1), (40.1, 40.1), (10.1, 40.1)]:
        desk.browser.click(*desk.place(*corner))
    desk.send()
    desk.show(1)
    desk.wait("document.querySelector('[data-id=\"1\"]')")
    carried = desk.bench.labels == 1
    assert carried.any()
    stamp_of = f"performance.getEntriesByType('resource').some((e) => e.name.includes('after={world.stamp_ns(1)}'))"
    desk.wait(stamp_of)  # the page shows it: it asks for what comes after
    desk.browser.press("[data-id='1'] button")
    desk.wait(f"document.getElementById('area').textContent == '{carried.sum()} pixels'")
    desk.tool("brush")
    desk.browser.click(*desk.place(100, 80))
    desk.send()
    (sent, frame) = desk.taken[-1]
    (item,) = sent.prompted
    assert (item.instance_id, sent.stamp_ns, frame.stamp_ns) == (1, world.stamp_ns(1), world.stamp_ns(1))
    assert np.array_equal(desk.sent, carried | stroke_mask([(100, 80), (100.0, 80.0)], 12))

    desk.press_twice("[data-id='1'] .danger")
    desk.wait("!document.querySelector('.instance')")
    desk.browser.press("#reset")
    assert desk.ui.state["status"]["session"] == 1  # there is nothing to reset


def test_reset_asks_once(desk: Desk) -> None:
    desk.tool("brush")
    desk.browser.click(*desk.place(60, 60))
    desk.send()
    desk.wait("document.querySelector('.instance')")
    desk.browser.press("#reset")
    assert desk.ui.state["status"]["session"] == 1
    desk.browser.press("#reset")
    desk.wait("!document.querySelector('.instance')")
    assert desk.ui.state["status"]["session"] == 2


def test_a_drawing_moves_to_the_newest_image(desk: Desk) -> None:
    desk.tool("brush")
    desk.browser.click(*desk.place(60, 60))
    desk.show(1)
    assert desk.browser.js(MODE) == "frozen"
    desk.browser.key("n")
    desk.wait("!document.getElementById('newest').disabled")
    desk.wait(f"performance.getEntriesByType('resource').some((e) => e.name.includes('stamp={world.stamp_ns(1)}'))")
    desk.send()
    assert desk.taken[-1][0].stamp_ns == world.stamp_ns(1)
    assert np.array_equal(desk.sent, stroke_mask([(60, 60), (60.0, 60.0)], 12))


def test_it_is_zoomed_about_the_pointer(desk: Desk) -> None:
    # whole pixels of the screen: the browser rounds the place of a wheel event
    x, y = map(round, desk.place(32, 30))
    (x0, y0), (x1, y1) = desk.place(0, 0), desk.place(1, 1)
    at = ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0))
    desk.tool("brush")
    desk.browser.mouse("mouseWheel", x, y, held=False, deltaX=0, deltaY=-500)
    desk.browser.click(x, y)
    desk.send()
    assert np.array_equal(desk.sent, stroke_mask([at, at], 12))


def test_a_lost_editor_and_a_lost_tracker_are_said_and_the_page_recovers() -> None:
    command = [sys.executable, "-m", "maskrnn_ros", "seed-ui", "--port", "0"]
    with Browser() as browser:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            url = process.stdout.readline().partition("seed editor: ")[2].split()[0]
            browser.open(url)
            browser.wait("document.getElementById('trouble')?.textContent.includes('tracker')")
            process.send_signal(signal.SIGINT)
        browser.wait("document.getElementById('trouble').textContent.includes('connection to the seed editor is lost')")
        port = int(url.rpartition(":")[2])
        with NodeBench(world.exact_or_still_tracker) as bench, SeedUi(port=port) as again:
            looks_at(bench, again)
            bench.image(0)
            browser.wait("document.getElementById('empty').hidden && document.getElementById('trouble').hidden")


def test_a_finger_marks_an_object() -> None:
    with (
        NodeBench(world.exact_or_still_tracker) as bench,
        SeedUi() as ui,
        Browser(412, 860, touch=True) as browser,
    ):
        browser.open(ui.url)
        looks_at(bench, ui)
        desk = Desk(bench, ui, browser, [])
        desk.show(0)
        browser.tap(*desk.place(32, 30))
        desk.wait("!document.getElementById('send').disabled")
        assert browser.js("document.documentElement.scrollWidth") <= 412  # nothing hangs out


# --- what rests on the picture, and what one click gives ---


def demo(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of the demo clip and its true ids."""
    stem = f"{CLIP_NAME}/{number:05d}"
    return read_frame(CLIP_ROOT / f"JPEGImages/{stem}.jpg"), read_labels(CLIP_ROOT / f"Annotations/{stem}.png")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, np.ndarray]]:
    """A person at the page with a picture of the demo clip, and the true ids."""
    taken = requests_of(monkeypatch)
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui, Browser() as browser:
        browser.open(ui.url)
        looks_at(bench, ui)
        desk = Desk(bench, ui, browser, taken)
        picture, truth = demo(0)
        bench.publish(bench.images, picture, "rgb8", world.stamp_ns(0))
        desk.wait("document.getElementById('empty').hidden")
        yield desk, truth
        assert not browser.problems


def centre(truth: np.ndarray, instance_id: int) -> tuple[float, float]:
    """Where a person would click on an object."""
    wanted = truth == instance_id
    point = next_click(wanted, np.zeros_like(wanted))
    assert point is not None
    return point.x, point.y


def test_one_click_each_marks_three_objects_of_the_demo_clip(table: tuple[Desk, np.ndarray]) -> None:
    desk, truth = table
    for instance_id in (1, 2, 3):
        desk.browser.click(*desk.place(*centre(truth, instance_id), truth.shape))
        desk.wait("!document.getElementById('send').disabled")
        assert desk.browser.js("document.getElementById('hint').textContent").startswith("Right?")
        desk.send()
        assert jaccard(desk.sent, truth == instance_id) > 0.85


def test_the_object_under_a_resting_mouse_is_shown_before_the_click(table: tuple[Desk, np.ndarray]) -> None:
    desk, truth = table
    asked: list[Prompt] = []
    prompts = desk.ui.server.prompts

    def note(picture: np.ndarray, prompt: Prompt) -> np.ndarray:
        asked.append(prompt)
        return prompts(picture, prompt)

    desk.ui.server.prompts = note
    desk.browser.press("#freeze")
    x, y = desk.place(*centre(truth, 1), truth.shape)
    desk.browser.mouse("mouseMoved", x - 5, y - 5, held=False)
    desk.wait(HOVERED)
    (point,) = asked[-1].points
    assert point.on_object and (point.x, point.y) == pytest.approx(centre(truth, 1), abs=5)
    assert desk.browser.js("document.getElementById('send').disabled"), "nothing is drawn by looking"
    desk.browser.click(x, y)
    desk.wait("!document.getElementById('send').disabled")
    told = len(asked)
    desk.browser.mouse("mouseMoved", x + 40, y, held=False)
    desk.browser.js("new Promise((done) => setTimeout(done, 500))")
    assert len(asked) == told, "where something is drawn, nothing more is asked"
    assert not desk.browser.js(HOVERED)


@pytest.mark.parametrize("tool", ["box", "polygon", "brush"])
def test_nothing_is_asked_while_somebody_draws(table: tuple[Desk, np.ndarray], tool: str) -> None:
    desk, truth = table
    desk.browser.press("#freeze")
    desk.tool(tool)
    desk.browser.mouse("mouseMoved", *desk.place(*centre(truth, 1), truth.shape), held=False)
    desk.browser.js("new Promise((done) => setTimeout(done, 500))")
    assert not desk.browser.js(ASKED)


def test_one_preview_is_asked_for_at_a_time(table: tuple[Desk, np.ndarray]) -> None:
    desk, truth = table
    asked: list[Prompt] = []
    release = threading.Event()

    def slow(picture: np.ndarray, prompt: Prompt) -> np.ndarray:
        asked.append(prompt)
        assert release.wait(60)
        return truth == 2

    desk.ui.server.prompts = slow
    desk.browser.press("#freeze")
    for instance_id in (1, 3, 2):
        desk.browser.mouse("mouseMoved", *desk.place(*centre(truth, instance_id), truth.shape), held=False)
        desk.browser.js("new Promise((done) => setTimeout(done, 400))")
    assert len(asked) == 1
    release.set()
    desk.browser.mouse("mouseMoved", *desk.place(5, 5, truth.shape), held=False)
    desk.browser.js("new Promise((done) => setTimeout(done, 400))")
    assert not desk.browser.js(HOVERED), "what was asked for another place is not shown"
