# SPDX-License-Identifier: Apache-2.0
"""What reaches into the training scenes: robot arms of several makes, and forearms with hands.

All of them are pushed through the scene by their hand, a body that a constraint holds to its path; the rest of the arm
follows it and touches nothing. The origin of a hand is where it grips, z is up.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from render_tabletop import (
    FLOOR_Z_M,
    Array,
    Mesh,
    Picture,
    Rng,
    ball,
    box_mesh,
    elbow_of,
    lathe_mesh,
    merged,
    quaternion_of_axis,
)
from scene_parts import capsule, chain, torus, turned


class Stage(Protocol):
    """What an arm needs of the world."""

    bullet: Any

    def picture(self, texture: Picture) -> int: ...

    def body(self, mesh: Mesh, texture: int, **options: Any) -> int: ...


@dataclass(frozen=True)
class Hand:
    mesh: Mesh
    boxes: tuple[tuple[Sequence[float], Sequence[float]], ...]  # centre and half size of what pushes
    centre_z_m: float  # of its bulk: what hides things
    wrist: tuple[float, float, float]


# --------------------------------------------------------------------------------------------------
# Hands
# --------------------------------------------------------------------------------------------------


def _gripper(parts: list[Mesh], opening_m: float, length: float, palm_r: float) -> Hand:
    side = (0.012, 0.01, length / 2)
    boxes = [((0, y, length / 2), side) for y in (-opening_m - 0.008, opening_m + 0.008)]
    boxes.append(((0, 0, length + 0.04), (palm_r, palm_r, 0.04)))
    return Hand(merged(parts), tuple(boxes), length + 0.03, (0, 0, length + 0.13))


def two_fingers(rng: Rng, opening_m: float) -> Hand:
    """A block or a drum with two rods."""
    length, r = float(rng.uniform(0.06, 0.09)), float(rng.uniform(0.007, 0.012))
    parts = [
        merged(
            [capsule((0, y, 0.012), (0, y, length), r), capsule((0, y, length), (0, 0.4 * y, length + 0.02), 1.3 * r)]
        )
        for y in (-opening_m - 0.01, opening_m + 0.01)
    ]
    width = max(0.07, 2 * opening_m + 0.05)
    if rng.random() < 0.5:
        palm = lathe_mesh([(0, 0.09), (width / 2, 0.08), (width / 2, 0.01), (0.35 * width, 0), (0, 0)])
    else:
        palm = box_mesh((0.07, width, 0.08), atlas=False).moved((0, 0, 0.04))
    flange = lathe_mesh([(0, 0.06), (0.03, 0.06), (0.045, 0), (0, 0)]).moved((0, 0, length + 0.08))
    return _gripper([*parts, palm.moved((0, 0, length)), flange], opening_m, length, width / 2.2)


def claw(rng: Rng, opening_m: float) -> Hand:
    """Three bent fingers under a dome."""
    length, r = float(rng.uniform(0.07, 0.09)), float(rng.uniform(0.008, 0.012))
    parts = []
    for angle in np.array([0.5, 1.5, 2.5]) * 2 * np.pi / 3 + np.pi / 2:
        out = np.array([math.cos(angle), math.sin(angle), 0])
        line = [0.03 * out + (0, 0, length), (opening_m + 0.035) * out + (0, 0, 0.6 * length)]
        line += [(opening_m + r) * out + (0, 0, 0.006)]
        parts.append(chain(np.array(line), 1.4 * r, r))
    t = np.linspace(0, np.pi / 2, 8)
    dome = lathe_mesh([*((0.05 * math.sin(a), 0.06 * math.cos(a)) for a in t), (0, 0)]).moved((0, 0, length))
    rod = lathe_mesh([(0, 0.12), (0.03, 0.12), (0.03, 0), (0, 0)]).moved((0, 0, length + 0.02))
    return _gripper([*parts, dome, rod], opening_m, length, 0.045)


def suction(rng: Rng, opening_m: float) -> Hand:
    """Bellows on a tube."""
    del opening_m
    r = float(rng.uniform(0.018, 0.028))
    folds = [torus(r, 0.006).moved((0, 0, 0.008 + 0.011 * i)) for i in range(4)]
    tube = lathe_mesh([(0, 0.1), (0.6 * r, 0.1), (0.6 * r, 0), (0, 0)]).moved((0, 0, 0.03))
    block = box_mesh((0.08, 0.1, 0.07), atlas=False).moved((0, 0, 0.13))
    boxes = (((0, 0, 0.025), (r, r, 0.025)), ((0, 0, 0.13), (0.04, 0.05, 0.035)))
    return Hand(merged([*folds, tube, block]), boxes, 0.11, (0, 0, 0.19))


def human_hand(rng: Rng, opening_m: float, is_open: bool) -> tuple[Hand, Array]:
    """Hand and forearm along -x that reach for, or grip, an upright thing at the origin; and the way to the elbow."""
    size = float(rng.uniform(0.9, 1.15))
    r = max(opening_m, 0.022) + 0.009
    knuckle = np.array([-r - 0.008, 0.0, 0.0])
    parts = []
    for i, z in enumerate((0.032, 0.011, -0.010, -0.030)):
        reach = size * (0.062, 0.075, 0.07, 0.055)[i]
        if is_open:
            spread = np.array([1.0, float(rng.uniform(-0.1, 0.1)), z * 6])
            bones = [knuckle + (0, 0, z), knuckle + (0, 0, z) + reach * spread * 1.4]
        else:  # round the thing: as far as the finger is long
            angles = np.pi - np.linspace(0.25, min(0.4 + 2.1 * reach / r, 3.0), 5)
            bones = [np.array([r * math.cos(a), r * math.sin(a), z * 0.9]) for a in angles]
        parts.append(chain(np.array(bones), 0.0095 * size, 0.0075 * size))
    thumb = [(a, 0.012 + 0.006 * i) for i, a in enumerate((3.5, 4.1, 4.6 if is_open else 5.0))]
    line = np.array([[1.15 * r * math.cos(a), 1.15 * r * math.sin(a), z] for a, z in thumb])
    parts.append(chain(line, 0.012 * size, 0.009 * size))
    for y, z in ((0.012, 0.028), (0.014, 0.006), (0.012, -0.02), (-0.006, 0.012), (-0.004, -0.014)):
        start = knuckle + (-0.004, y, z)
        parts.append(capsule(start, start + (-0.065 * size, -0.3 * y, -0.45 * z), 0.0175 * size, 0.018 * size))
    wrist = knuckle + (-0.08 * size, 0, 0)
    tilt = float(rng.uniform(0.15, 0.65))
    back = np.array([-math.cos(tilt), 0.0, math.sin(tilt)])
    parts.append(capsule(wrist, wrist + 0.22 * back, 0.024 * size, 0.040 * size))
    parts.append(capsule(wrist + 0.22 * back, wrist + 0.75 * back, 0.040 * size, 0.05 * size))
    boxes = ((knuckle + (-0.03, 0, 0), (0.03, 0.02, 0.035)), (wrist + 0.1 * back, (0.06, 0.025, 0.03)))
    return Hand(merged(parts), boxes, 0.0, tuple(wrist.tolist())), back


# --------------------------------------------------------------------------------------------------
# Arms
# --------------------------------------------------------------------------------------------------


def held_body(stage: Stage, mesh: Mesh | None, boxes: Sequence[Any], texture: int, pose: Array) -> tuple[int, int]:
    """The hand and what holds it: a constraint, so that the solver knows its velocity and things are not thrown."""
    b = stage.bullet
    collision = b.createCollisionShapeArray(
        shapeTypes=[b.GEOM_BOX] * len(boxes),
        halfExtents=[list(map(float, half)) for _, half in boxes],
        collisionFramePositions=[list(map(float, centre)) for centre, _ in boxes],
    )
    x, y, z, yaw = pose.tolist()
    if mesh is None:
        body = b.createMultiBody(5.0, collision, -1, [x, y, z], b.getQuaternionFromEuler([0, 0, yaw]))
    else:
        body = stage.body(mesh, texture, position=(x, y, z), yaw=yaw, collision=collision, mass_kg=5.0)
    return body, b.createConstraint(body, -1, -1, -1, b.JOINT_FIXED, [0, 0, 0], [0, 0, 0], [x, y, z])


class Arm:
    """`hand` is the body that grips; `move` holds it to a pose (x, y, z, yaw), `follow` brings the rest of the arm."""

    is_human = False

    def __init__(self, hand: Hand, cover: Picture, shoulder: Sequence[float]) -> None:
        self.shape, self.cover, self.shoulder = hand, cover, np.asarray(shoulder, dtype=np.float64)
        self.shows_hand = True

    def grip_height(self, half_height: float) -> float:
        """Height of the grip above the table for a thing of this half height."""
        return max(0.012, 2 * half_height - 0.05)

    def add(self, stage: Stage, pose: Array) -> None:
        self.stage = stage
        self.texture = stage.picture(self.cover)
        mesh = self.shape.mesh if self.shows_hand else None
        self.hand, self.grip = held_body(stage, mesh, self.shape.boxes, self.texture, pose)

    def move(self, pose: Array) -> None:
        x, y, z, yaw = pose.tolist()
        b = self.stage.bullet
        b.changeConstraint(self.grip, [x, y, z], b.getQuaternionFromEuler([0, 0, yaw]), maxForce=600)

    def follow(self) -> None:
        """Before each picture."""


class HumanArm(Arm):
    """A hand with its forearm and a sleeve."""

    is_human = True

    def __init__(
        self, hand: Hand, cover: Picture, shoulder: Sequence[float], back: Array, sleeve: Picture | None
    ) -> None:
        super().__init__(hand, cover, shoulder)
        self.back, self.sleeve = back, sleeve

    def grip_height(self, half_height: float) -> float:
        return max(0.05, half_height)

    def add(self, stage: Stage, pose: Array) -> None:
        super().add(stage, pose)
        self.cloth = None
        if self.sleeve is not None:
            wrist = np.array(self.shape.wrist)
            tube = capsule(wrist + 0.1 * self.back, wrist + 0.75 * self.back, 0.045, 0.062)
            cuff = turned(torus(0.040, 0.009), self.back).moved((wrist + 0.09 * self.back).tolist())
            self.cloth = stage.body(merged([tube, cuff]), stage.picture(self.sleeve))

    def follow(self) -> None:
        if self.cloth is not None:
            b = self.stage.bullet
            b.resetBasePositionAndOrientation(self.cloth, *b.getBasePositionAndOrientation(self.hand))


class JointedArm(Arm):
    """Two links and three joints of shapes made here."""

    def __init__(self, rng: Rng, hand: Hand, cover: Picture, shoulder: Sequence[float]) -> None:
        super().__init__(hand, cover, shoulder)
        self.thick = float(rng.uniform(0.03, 0.055))
        self.profile = str(rng.choice(["beam", "waist", "bones"]))

    def _link(self, length: float) -> Mesh:
        r = self.thick
        if self.profile == "beam":
            return box_mesh((1.7 * r, 1.4 * r, length), atlas=False).moved((0, 0, length / 2))
        if self.profile == "waist":
            radii = [(r * (0.65 + 0.35 * math.cos(2 * math.pi * t)), t * length) for t in np.linspace(1, 0, 9)]
            return lathe_mesh([(0, length), *radii, (0, 0)])
        rods = [
            capsule((x, y, 0), (x, y, length), 0.32 * r) for x, y in ((r, 0), (-0.6 * r, 0.7 * r), (-0.6 * r, -0.7 * r))
        ]
        return merged([*rods, *(torus(0.8 * r, 0.3 * r).moved((0, 0, t * length)) for t in (0.25, 0.5, 0.75))])

    def add(self, stage: Stage, pose: Array) -> None:
        super().add(stage, pose)
        r = 1.25 * self.thick
        drum = turned(lathe_mesh([(0, r), (r, r), (r, -r), (0, -r)]), (1, 0, 0))
        joint = ball(r) if self.profile == "waist" else drum
        self.joints = [stage.body(joint, self.texture) for _ in range(3)]
        self.links = [stage.body(self._link(length), self.texture) for length in (0.55, 0.50)]

    def follow(self) -> None:
        b = self.stage.bullet
        position, turn = b.getBasePositionAndOrientation(self.hand)
        wrist = np.array(b.multiplyTransforms(position, turn, list(self.shape.wrist), [0, 0, 0, 1])[0])
        elbow = elbow_of(self.shoulder, wrist)
        for joint, place in zip(self.joints, (self.shoulder, elbow, wrist), strict=True):
            b.resetBasePositionAndOrientation(joint, place.tolist(), turn)
        for link, start, end in zip(self.links, (self.shoulder, elbow), (elbow, wrist), strict=True):
            axis = (end - start) / np.linalg.norm(end - start)
            b.resetBasePositionAndOrientation(link, start.tolist(), quaternion_of_axis(axis))


@dataclass(frozen=True)
class Model:
    """A robot of PyBullet's data."""

    path: str
    end_link: int
    grip_below_m: float  # how far the grip is from the end link, along its z axis
    fingers: tuple[int, ...] = ()
    finger_range: tuple[float, float] = (0.0, 0.0)  # closed, 4 cm open each side
    rest: tuple[float, ...] = ()
    shows_hand: bool = False  # it has no gripper of its own
    permissive: bool = True


MODELS = {
    "panda": Model("franka_panda/panda.urdf", 8, 0.105, (9, 10), (0.0, 0.04), (0, -0.3, 0, -2.2, 0, 2.0, 0.8)),
    "iiwa": Model("kuka_iiwa/model.urdf", 6, 0.25, rest=(0, 0.5, 0, -1.6, 0, 1.0, 0), shows_hand=True),
    "xarm": Model("xarm/xarm6_with_gripper.urdf", 6, 0.172, (8, 9, 10, 11, 12, 13), (0.85, 0.0),
                  (0, -0.5, -0.9, 0, 1.4, 0), permissive=False),
}  # fmt: skip


class ModelArm(Arm):
    """A robot of PyBullet's data, which follows the hand by inverse kinematics."""

    def __init__(self, model: Model, hand: Hand, cover: Picture, base: Sequence[float], paint: Sequence[Any],
                 opening_m: float) -> None:  # fmt: skip
        super().__init__(hand, cover, base)
        self.model, self.paint, self.opening_m = model, paint, opening_m
        self.shows_hand = model.shows_hand

    def add(self, stage: Stage, pose: Array) -> None:
        super().add(stage, pose)
        b, model = stage.bullet, self.model
        folder = Path(importlib.import_module("pybullet_data").getDataPath())
        x, y, z = self.shoulder.tolist()
        facing = b.getQuaternionFromEuler([0, 0, math.atan2(-y, -x)])
        self.robot = b.loadURDF(str(folder / model.path), [x, y, z], facing, useFixedBase=True)
        names = [b.getJointInfo(self.robot, i) for i in range(b.getNumJoints(self.robot))]
        for link in range(-1, len(names)):
            b.setCollisionFilterGroupMask(self.robot, link, 0, 0)
            if self.paint:
                b.changeVisualShape(self.robot, link, rgbaColor=[*self.paint[(link + 1) % len(self.paint)], 1])
        movable = [i for i, joint in enumerate(names) if joint[2] != b.JOINT_FIXED]
        self.axes = [i for i in movable if i not in model.fingers]
        self.movable = movable
        for axis, value in zip(self.axes, model.rest, strict=True):
            b.resetJointState(self.robot, axis, value)
        closed, wide = model.finger_range
        for finger in model.fingers:
            b.resetJointState(self.robot, finger, closed + (wide - closed) * min(self.opening_m / 0.04, 1.0))
        pedestal = lathe_mesh([(0, 0), (0.11, 0), (0.13, FLOOR_Z_M), (0, FLOOR_Z_M)])
        stage.body(pedestal, self.texture, position=(x, y, z - 0.001))
        for _ in range(20):
            self.follow()

    def follow(self) -> None:
        b = self.stage.bullet
        position, turn = b.getBasePositionAndOrientation(self.hand)
        end, down = b.multiplyTransforms(position, turn, [0, 0, self.model.grip_below_m], [1, 0, 0, 0])
        joints = b.calculateInverseKinematics(
            self.robot, self.model.end_link, end, down, maxNumIterations=40, residualThreshold=1e-4
        )
        for axis, value in zip(self.movable, joints, strict=True):
            if axis in self.axes:
                b.resetJointState(self.robot, axis, value)
