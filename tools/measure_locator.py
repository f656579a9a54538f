# SPDX-License-Identifier: Apache-2.0
"""How far are the locator's positions from the truth, in mm, on the demo clip?

The scene is rendered again, with depth, and located with its true masks and, with --tracker, with the masks that the
tracker gives from the clip's pictures and the first annotation. The truth is the VISIBLE surface at 3 x 3 rays for each
pixel (its mean, its median depth, its box), without erosion, rejection of outliers, or rounding to whole mm. The centre
of the object is another point, behind that surface: its distance is printed last, for comparison.

    pip install 'maskrnn_ros[render]'
    python tools/measure_locator.py [--tracker] [--every 8] [--mixed] [--set erosion=1]

--mixed gives each pixel the mean depth of its rays, as a real sensor does at the border of an object; without it the
depth is that of the pixel's centre.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import render_tabletop as tabletop

import maskrnn_ros
from maskrnn_ros.config import Config
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.labels import read_labels
from maskrnn_ros.locator.camera import Camera
from maskrnn_ros.locator.locate import LocatorConfig, locate
from maskrnn_ros.parameter_file import parse_setting
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Frame, Seed

Array = npt.NDArray[Any]

CLIP = Path(maskrnn_ros.__file__).parent / "data" / "tabletop"
FINE = 3
"""Rays a pixel, along each side; odd, so that one goes through the centre."""
SMALLEST = 100
"""Pixels that must be seen of an object for its figures to count."""


class Scene:
    """One frame of the demo clip as it was rendered."""

    def __init__(self, world: Any, camera: Any) -> None:
        view = world.look(camera.scaled(FINE))
        self.pinhole = camera
        self.fine_labels = world.labels(view.bodies)
        self.fine_depth = view.depth_m
        centre = slice(FINE // 2, None, FINE)
        self.labels = self.fine_labels[centre, centre].astype(np.int32)
        self.centres = {}
        for body, instance_id in world.instance_of_body.items():
            position, _ = world.bullet.getBasePositionAndOrientation(body)
            self.centres[instance_id] = (np.array(position) - camera.eye) @ camera.rotation

    def depth(self, mixed: bool) -> Array:
        """What a sensor gives, float32 (H, W), whole mm in metres."""
        height, width = self.labels.shape
        rays = self.fine_depth.reshape(height, FINE, width, FINE)
        metres = rays.mean(axis=(1, 3)) if mixed else rays[:, FINE // 2, :, FINE // 2]
        return (np.nan_to_num(metres * 1000, posinf=0.0).round() / 1000).astype(np.float32)

    def surface(self, instance_id: int) -> Array:
        """Points (N, 3) that can be seen of an object, in the camera's frame."""
        rows, columns = np.nonzero(self.fine_labels == instance_id)
        z = self.fine_depth[rows, columns].astype(np.float64)
        x, y = (
            ((index + 0.5) / FINE - size / 2) / self.pinhole.focal_px
            for index, size in ((columns, self.pinhole.width), (rows, self.pinhole.height))
        )
        return np.stack([x * z, y * z, z], axis=1)

    @property
    def camera(self) -> Camera:
        """What a CameraInfo would say: there the centre of the first pixel is 0."""
        pinhole = self.pinhole
        return Camera(
            width=pinhole.width,
            height=pinhole.height,
            fx=pinhole.focal_px,
            fy=pinhole.focal_px,
            cx=pinhole.width / 2 - 0.5,
            cy=pinhole.height / 2 - 0.5,
        )


def scenes(every: int, frames: int = 96, fps: int = 24) -> Iterator[tuple[int, Scene]]:
    """Frames of the clip; physics takes the steps that `render_tabletop` takes, whatever is looked at."""
    scene = tabletop.choreographed_scene()
    bullet = tabletop.load_bullet()
    client = bullet.connect(bullet.DIRECT)
    try:
        with tempfile.TemporaryDirectory() as folder:
            world = tabletop.World(scene=scene, fps=fps, frames=frames, bullet=bullet, folder=Path(folder))
            world.step(0)  # frame 0 is exposed from one step before the start
            for tick in range((frames - 1) * tabletop.STEPS_PER_FRAME + 1):
                world.step(tick)
                index, rest = divmod(tick, tabletop.STEPS_PER_FRAME)
                if rest == 0 and index % every == 0:
                    seconds = tick / (tabletop.STEPS_PER_FRAME * fps)
                    eye, target = scene.camera.eye_and_target(index / (frames - 1), seconds)
                    fov = scene.camera.vertical_fov_deg
                    yield index, Scene(world, tabletop.Pinhole.looking(eye, target, fov, 640, 360))
    finally:
        bullet.disconnect(client)


def tracked(every: int) -> dict[int, Array]:
    """The tracker's labels of the clip, from its first annotation."""
    clip = davis_sequence(CLIP, "tabletop")
    tracker = build_tracker(Config())
    labels = {}
    for index, path in enumerate(clip.frames):
        frame = Frame(stamp_ns=index + 1, image=read_frame(path))
        if index == 0:
            tracks = tracker.seed(Seed(stamp_ns=1, labels=read_labels(clip.annotations[path.stem])), frame)
        else:
            tracks = tracker.step(frame)
        if index % every == 0:
            labels[index] = tracks.labels
    return labels


def errors(scene: Scene, labels: Array, instance_id: int, depth: Array, config: LocatorConfig) -> list[float] | None:
    """Errors in mm: centroid, median depth, sides of the box (mean), then the distance of the object's centre."""
    if np.count_nonzero(scene.labels == instance_id) < SMALLEST:
        return None
    found = locate(labels == instance_id, 0, 0, depth, scene.camera, config)
    if found.reason:
        return None
    truth = scene.surface(instance_id)
    sides = np.ptp(truth, axis=0)
    values = (
        np.linalg.norm(found.centroid - truth.mean(axis=0)),
        abs(found.depth - np.median(truth[:, 2])),
        np.abs(np.ptp(found.extent, axis=0) - sides).mean(),
        np.linalg.norm(scene.centres[instance_id] - truth.mean(axis=0)),
    )
    return [1000 * float(value) for value in values]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=8, metavar="N", help="of the 96 frames, each Nth is measured")
    parser.add_argument("--tracker", action="store_true", help="the tracker's masks, too")
    parser.add_argument("--mixed", action="store_true", help="depth is the mean over the pixel, not that of its centre")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the locator")
    args = parser.parse_args()
    config = LocatorConfig(**dict(map(parse_setting, args.set)))
    masks = {"true masks": {}, **({"tracker's masks": tracked(args.every)} if args.tracker else {})}
    found: dict[tuple[str, int], list[list[float]]] = {}
    missed: dict[str, int] = dict.fromkeys(masks, 0)
    names = [thing.name for thing in tabletop.choreographed_scene().things]
    for index, scene in scenes(args.every):
        annotation = read_labels(CLIP / "Annotations" / "tabletop" / f"{index:05d}.png")
        if np.mean(annotation != scene.labels) > 1e-3:
            raise SystemExit(f"measure_locator: frame {index} is not rendered as the clip was; other PyBullet?")
        depth = scene.depth(args.mixed)
        for kind, labels in masks.items():
            for instance_id in range(1, len(names) + 1):
                row = errors(scene, labels.get(index, scene.labels), instance_id, depth, config)
                if row is not None:
                    found.setdefault((kind, instance_id), []).append(row)
                elif np.count_nonzero(scene.labels == instance_id) >= SMALLEST:
                    missed[kind] += 1
    report(names, found, missed)


def report(names: list[str], found: dict[tuple[str, int], list[list[float]]], missed: dict[str, int]) -> None:
    """Print median and largest error; an object that is taken for another shows in the latter."""
    print("mm, median (largest)   |  frames |      centroid |         depth |   side of box | centre of the object")
    for kind, count in missed.items():
        print(f"{kind}, {count} positions missing")
        per_object = [(name, found.get((kind, i), [])) for i, name in enumerate(names, start=1)]
        together = [row for _, rows in per_object for row in rows]
        for name, rows in [*per_object, ("all", together)]:
            if rows:
                table = np.array(rows)
                cells = " | ".join(
                    f"{middle:5.1f} ({top:5.1f})" for middle, top in zip(np.median(table, 0), table.max(0), strict=True)
                )
                print(f"  {name:20s} | {len(rows):7d} | {cells}")


if __name__ == "__main__":
    main()
