# SPDX-License-Identifier: Apache-2.0
"""Render robot scenes for training: things that an arm or a hand passes in front of, pushes and lifts.

    python tools/render_training_scenes.py --out DATA            # 60 scenes to train on and 8 to hold out

writes, in the layout of the DAVIS data set,

    OUT/JPEGImages/NAME/00000.jpg      448x252; NAME is train_000.. or held_000..
    OUT/Annotations/NAME/00000.png     8-bit palette PNG, 0 = background, table, arm and clutter; 1..N = things
    OUT/Robot/NAME/00000.png           8-bit PNG, 255 = arm or hand
    OUT/visibility/NAME.json           of each thing and frame: its pixels, and those with nothing in front of it

A scene comes with its number: the same arguments give the same scene. Scenes that are there already are skipped, and
`JPEGImages/NAME` appears when the scene is complete. Held-out scenes have other things and arms than those for
training; none has the things, the arm, the table, the floor or the camera path of the demo clip.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from render_tabletop import (
    FLOOR_Z_M,
    WALL_Y_M,
    Frame,
    Picture,
    Pinhole,
    Pose,
    Rng,
    Scene,
    View,
    World,
    box_mesh,
    hand_at,
    load_bullet,
    plane_mesh,
    render,
    write_frame,
)
from scene_random import FPS, HEIGHT, STEPS, WIDTH, TrainingScene, random_scene

MIN_PX = 35  # of a thing in the first frame, at half the size


@dataclass
class TrainingWorld(World):
    scene: TrainingScene

    def __post_init__(self) -> None:
        self.held: int | None = None
        super().__post_init__()
        for _ in range(6 * STEPS):  # some things tip over first
            self.step(0)

    def picture(self, picture: Picture) -> int:
        return self._texture(picture)

    def body(self, *arguments: Any, **options: Any) -> int:
        return self._body(*arguments, **options)

    def _add_room(self) -> None:
        b, scene = self.bullet, self.scene
        width, depth = scene.table_size
        half = [width / 2, depth / 2, 0.02]
        table = self._texture(scene.table)
        collision = b.createCollisionShape(b.GEOM_BOX, halfExtents=half)
        body = self._body(
            box_mesh([2 * h for h in half], False).moved((0, 0, -0.001)), table, (0, 0, -0.02), 0.0, collision
        )
        b.changeDynamics(body, -1, lateralFriction=0.6, rollingFriction=0.003, spinningFriction=0.003)
        self._body(plane_mesh((-width / 2, -depth / 2, 0), (width, 0, 0), (0, depth, 0), max(1, round(width))), table)
        wall, floor = self._texture(scene.wall), self._texture(scene.floor)
        room = WALL_Y_M + 2
        self._body(plane_mesh((-2, WALL_Y_M, FLOOR_Z_M), (4, 0, 0), (0, 0, 3), 3), wall)
        self._body(plane_mesh((-2, -2, FLOOR_Z_M), (0, room, 0), (0, 0, 3), 3), wall)
        self._body(plane_mesh((2, WALL_Y_M, FLOOR_Z_M), (0, -room, 0), (0, 0, 3), 3), wall)
        self._body(plane_mesh((-2, -2, FLOOR_Z_M), (4, 0, 0), (0, room, 0), 4), floor)
        for centre, size, picture in scene.props:
            self._body(box_mesh(size, atlas=False), self._texture(picture), centre)
        for thing in scene.clutter:
            self._add_thing(thing)

    def _add_robot(self) -> None:
        self.scene.arm.add(self, hand_at(self.scene.hand_path, 0.0))

    def step(self, tick: int) -> None:
        progress = tick / (STEPS * max(self.frames - 1, 1))
        self.scene.arm.move(hand_at(self.scene.hand_path, progress))
        if self.scene.lifted is not None and len(self.instance_of_body) == len(self.scene.things):
            self._hold(*self.scene.lifted, progress)
        self.bullet.stepSimulation()

    def look(self, camera: Pinhole) -> View:
        self.scene.arm.follow()
        return super().look(camera)

    def _hold(self, index: int, start: float, end: float, progress: float) -> None:
        """Ties the thing to the hand while it is gripped."""
        b, hand = self.bullet, self.scene.arm.hand
        thing = list(self.instance_of_body)[index]
        if self.held is None and progress < end:
            b.setCollisionFilterPair(hand, thing, -1, -1, 0)  # the fingers close round it
        if self.held is None and start <= progress < end:
            there = b.getBasePositionAndOrientation(thing)
            inverse = b.invertTransform(*b.getBasePositionAndOrientation(hand))
            place, turn = b.multiplyTransforms(*inverse, *there)
            self.held = b.createConstraint(hand, -1, thing, -1, b.JOINT_FIXED, [0] * 3, place, [0] * 3, turn)
            b.changeConstraint(self.held, maxForce=200)
        elif self.held is not None and progress >= end:
            b.removeConstraint(self.held)
            self.held = None


# --------------------------------------------------------------------------------------------------
# Visible shares, and which scenes are worth rendering
# --------------------------------------------------------------------------------------------------


def pixels_alone(scene: Scene, poses: Sequence[Sequence[Pose]], cameras: Sequence[Pinhole]) -> NDArray[np.int64]:
    """Pixels (frames, things) that each thing would have with nothing in front of it."""
    counts = np.zeros((len(poses), len(scene.things)), dtype=np.int64)
    bullet = load_bullet()
    for index, thing in enumerate(scene.things):
        client = bullet.connect(bullet.DIRECT)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "thing.obj")
            thing.mesh.write_obj(path)
            body = bullet.createMultiBody(0, -1, bullet.createVisualShape(bullet.GEOM_MESH, fileName=str(path)))
            for frame, (pose, camera) in enumerate(zip(poses, cameras, strict=True)):
                bullet.resetBasePositionAndOrientation(body, *pose[index])
                view, projection = camera.gl_matrices()
                seen = bullet.getCameraImage(
                    camera.width, camera.height, view, projection, renderer=bullet.ER_TINY_RENDERER
                )[4]
                counts[frame, index] = np.count_nonzero(np.asarray(seen) == body)
        bullet.disconnect(client)
    return counts


def pixels_seen(labels: Sequence[Picture], count: int) -> NDArray[np.int64]:
    return np.array([np.bincount(picture.ravel(), minlength=count + 1)[1 : count + 1] for picture in labels])


def rehearse(scene: TrainingScene, frames: int) -> tuple[list[Picture], NDArray[np.int64]]:
    """Labels, and the pixels of each thing with nothing in front, at half the size; one frame if a thing is missing."""
    bullet = load_bullet()
    blank = np.full((4, 4, 3), 128, np.uint8)
    scene = replace(scene, table=blank, wall=blank, floor=blank, props=(),
                    things=tuple(replace(thing, texture=blank) for thing in scene.things),
                    clutter=tuple(replace(thing, texture=blank) for thing in scene.clutter))  # fmt: skip
    client = bullet.connect(bullet.DIRECT)
    labels, poses, cameras = [], [], []
    try:
        with tempfile.TemporaryDirectory() as folder:
            world = TrainingWorld(scene=scene, fps=FPS, frames=frames, bullet=bullet, folder=Path(folder))
            for tick in range(frames * STEPS):
                world.step(tick)
                if tick % (2 * STEPS) == 0:  # every second frame is enough
                    progress = tick / (STEPS * max(frames - 1, 1))
                    eye, target = scene.camera.eye_and_target(progress, tick / (STEPS * FPS))
                    camera = Pinhole.looking(eye, target, scene.camera.vertical_fov_deg, WIDTH // 2, HEIGHT // 2)
                    labels.append(world.labels(world.look(camera).bodies))
                    poses.append(world.poses())
                    cameras.append(camera)
                    if pixels_seen(labels[:1], len(scene.things)).min() < MIN_PX:
                        break
    finally:
        bullet.disconnect(client)
    return labels, pixels_alone(scene, poses, cameras)


def fault_of(scene: TrainingScene, frames: int, hidden_share: float = 0.08) -> str:
    """Why a scene is of little use, or nothing.

    Args:
        scene: To judge.
        frames: How many it will have.
        hidden_share: What may be seen of a thing that counts as hidden.
    """
    labels, alone = rehearse(scene, frames)
    seen = pixels_seen(labels, len(scene.things))
    share = seen / np.maximum(alone, 1)
    if seen[0].min() < MIN_PX or share[0].min() < 0.55:
        return "a thing is not seen at the start"
    if (alone > 20).mean(axis=0).min() < 0.6:
        return "a thing is out of the picture"
    low = share.min(axis=0)
    returns = np.array([share[int(k) :, i].max() for i, k in enumerate(share.argmin(axis=0))])
    if scene.program == "hide" and not np.any((low < hidden_share) & (returns > 0.6)):
        return "nothing is hidden and comes back"
    if low.min() > 0.8:
        return "nothing is hidden"
    return ""


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------


def filmed(rng: Rng, frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames as another camera sees them: exposure, tint, contrast, softness and noise of its own."""
    gain, tint = rng.uniform(0.85, 1.2), rng.uniform(0.93, 1.07, 3)
    gamma, softness, noise = rng.uniform(0.75, 1.15), float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.5, 4.0))
    for frame in frames:
        picture = np.clip(frame.image / 255.0, 0, 1) ** gamma * (255 * gain * tint)
        picture += noise * rng.standard_normal((*picture.shape[:2], 1)) + 0.3 * noise * rng.standard_normal(
            picture.shape
        )
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(softness))
        yield replace(frame, image=np.asarray(image))


def write_scene(scene: TrainingScene, name: str, frame_count: int, out: Path) -> None:
    """All files of a scene; `JPEGImages/NAME` is the last to appear."""
    rng = np.random.default_rng((scene.seed, 7))
    frames: list[Frame] = []
    with tempfile.TemporaryDirectory(prefix=".part-", dir=out) as folder:
        part = Path(folder)
        for kind in ("JPEGImages", "Annotations", "Robot"):
            (part / kind / name).mkdir(parents=True)
        for frame in filmed(rng, render(scene, frame_count, FPS, WIDTH, HEIGHT, 1, TrainingWorld)):
            write_frame(frame, part, name, len(frames), int(80 + 12 * rng.random()), with_robot=True)
            frames.append(frame)
        seen = pixels_seen([frame.labels for frame in frames], len(scene.things))
        alone = pixels_alone(scene, [frame.poses for frame in frames], [frame.camera for frame in frames])
        record = {
            "fps": FPS,
            "size": [WIDTH, HEIGHT],
            "program": scene.program,
            "arm": scene.arm_kind,
            "moving_camera": scene.is_moving,
            "permissive": scene.is_permissive,
            "look_alikes": list(scene.twins),
            "things": [
                {"id": i, "name": thing.name, "seen_px": seen[:, i - 1].tolist(), "alone_px": alone[:, i - 1].tolist()}
                for i, thing in enumerate(scene.things, start=1)
            ],
        }
        (out / "visibility").mkdir(exist_ok=True)
        (part / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")
        os.replace(part / "record.json", out / "visibility" / f"{name}.json")
        for kind in ("Robot", "Annotations", "JPEGImages"):
            (out / kind).mkdir(exist_ok=True)
            shutil.rmtree(out / kind / name, ignore_errors=True)
            os.rename(part / kind / name, out / kind / name)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--train", type=int, default=60, metavar="N", help="scenes to train on")
    parser.add_argument("--held", type=int, default=8, metavar="N", help="scenes to hold out")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="at 15 per second")
    parser.add_argument("--permissive", action="store_true", help="no mesh of unclear terms in any scene")
    arguments = parser.parse_args(argv)
    if arguments.frames < 2 or arguments.train < 0 or arguments.held < 0:
        parser.error("--frames must be >= 2, --train and --held >= 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    load_bullet()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    wanted = [("train", i) for i in range(arguments.train)] + [("held", i) for i in range(arguments.held)]
    # Held-out scenes early: a training looks at them from its first validation on.
    wanted.sort(key=lambda item: item[1] * (arguments.train / max(arguments.held, 1) if item[0] == "held" else 1))
    for split, number in wanted:
        name = f"{split}_{number:03d}"
        if (out / "JPEGImages" / name).exists():
            continue
        for attempt in range(40):
            scene = random_scene(split, number, attempt, arguments.permissive)
            fault = fault_of(scene, arguments.frames, 0.08 if attempt < 5 else 0.4)
            if not fault:
                write_scene(scene, name, arguments.frames, out)
                print(
                    f"{name}: {scene.program}, {scene.arm_kind}, {len(scene.things)} things, attempt {attempt}",
                    flush=True,
                )
                break
            print(f"{name}: attempt {attempt}: {fault}", flush=True)
        else:
            print(f"{name}: left out: no scene of use in 40 attempts", flush=True)


if __name__ == "__main__":
    main()
