# SPDX-License-Identifier: Apache-2.0
"""What is in a training scene, and what happens in it (`render_training_scenes.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from render_tabletop import FLOOR_Z_M, Array, CameraPath, Picture, Pinhole, Rng, Scene, Thing
from scene_arms import MODELS, Arm, HumanArm, JointedArm, ModelArm, claw, human_hand, suction, two_fingers
from scene_objects import make
from scene_parts import GROUNDS, STYLES, blotches, colour, plain, texture, tiling

FPS = 15
STEPS = 20  # of physics in a frame: 1/300 s
WIDTH, HEIGHT = 448, 252
PROGRAMS = ("hide", "push", "lift")
ARMS = {"train": ("panda", "iiwa", "two fingers", "claw", "human", "human"), "held": ("xarm", "suction", "human")}
SKIN = ((255, 219, 190), (236, 188, 150), (198, 140, 104), (150, 98, 70), (92, 60, 46), (240, 200, 178))


@dataclass(frozen=True, kw_only=True)
class PannedPath(CameraPath):
    """A camera path whose target moves too."""

    pan: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def eye_and_target(self, progress: float, seconds: float) -> tuple[Array, Array]:
        eye, target = super().eye_and_target(progress, seconds)
        return eye, target + np.asarray(self.pan) * (progress - 0.5)


@dataclass(frozen=True, kw_only=True)
class TrainingScene(Scene):
    arm: Arm
    arm_kind: str
    program: str
    clutter: tuple[Thing, ...]
    props: tuple[tuple[Sequence[float], Sequence[float], Picture], ...]  # centre, size: furniture at the wall
    table_size: tuple[float, float]
    twins: tuple[int, ...]
    is_moving: bool
    is_permissive: bool
    lifted: tuple[int, float, float] | None = None  # which thing, from when, until when


# --------------------------------------------------------------------------------------------------
# What is in a scene
# --------------------------------------------------------------------------------------------------


def placed(rng: Rng, thing: Thing, others: Sequence[Thing], reach: tuple[float, float], gap_m: float) -> Thing:
    """The thing at a free place; the wish for a gap shrinks, so that this ends."""
    while True:
        position = (float(rng.uniform(-reach[0], reach[0])), float(rng.uniform(-reach[1], reach[1])) + 0.02)
        if all(math.dist(position, t.position) > thing.radius + t.radius + gap_m for t in others):
            return replace(thing, position=position)
        gap_m -= 0.002


def random_things(
    rng: Rng, split: str, permissive: bool, with_twins: bool
) -> tuple[list[Thing], list[Thing], list[int]]:
    """Things with ids, clutter, and the ids of things that look the same."""
    count, spare = int(rng.integers(2, 6)), int(rng.integers(0, 5))
    things: list[Thing] = []
    for _ in range(count + spare - with_twins):
        name, mesh, picture = make(rng, split, permissive)
        thing = Thing(name=name, mesh=mesh, texture=picture, position=(0, 0), yaw=float(rng.uniform(-3, 3)),
                      mass_kg=float(rng.uniform(0.15, 0.5)))  # fmt: skip
        things.append(placed(rng, thing, things, (0.26, 0.17), float(rng.uniform(0.0, 0.05))))
    twins: list[int] = []
    if with_twins:
        first = things[0]
        for angle in rng.permutation(12) / 12 * 2 * np.pi:
            step = 2 * first.radius + float(rng.uniform(0.004, 0.03))
            x, y = first.position[0] + step * math.cos(angle), first.position[1] + step * math.sin(angle)
            if all(math.dist((x, y), t.position) > first.radius + t.radius for t in things[1:]):
                break
        twin = replace(first, position=(x, y), yaw=first.yaw + float(rng.normal(0, 0.3)))
        is_labelled = rng.random() < 0.75 or count == 2
        things.insert(1 if is_labelled else count, twin)
        twins = [1, 2] if is_labelled else [1]
    return things[:count], things[count:], twins


def random_arm(rng: Rng, kind: str, opening_m: float, side: float, is_lifting: bool) -> Arm:
    reach = float(rng.uniform(0.55, 0.68))
    base = np.array([reach * math.cos(side), reach * math.sin(side), 0.0])
    cover = texture(rng, (plain, plain, blotches, *STYLES["train"][:4]), float(rng.uniform(0.3, 1.0)))
    if kind == "human":
        skin = np.array(SKIN[int(rng.integers(len(SKIN)))]) * rng.uniform(0.85, 1.05)
        cover = texture(rng, (lambda r: np.tile(skin, (256, 256, 1)) + 10 * r.standard_normal((256, 256, 1)),))
        sleeve = texture(rng, STYLES["train"]) if rng.random() < 0.65 else None
        hand, back = human_hand(rng, opening_m, is_open=bool(rng.random() < 0.3) and not is_lifting)
        return HumanArm(hand, cover, base, back, sleeve)
    shape = {"claw": claw, "suction": suction}.get(kind, two_fingers)(rng, opening_m)
    if kind not in MODELS:
        return JointedArm(rng, shape, cover, base * 1.15 + (0, 0, rng.uniform(0.25, 0.5)))
    paint = (
        [(np.array(colour(rng)) / 255).tolist() for _ in range(int(rng.integers(1, 4)))] if rng.random() < 0.6 else []
    )
    return ModelArm(MODELS[kind], shape, cover, base + (0, 0, rng.uniform(-0.1, 0.1)), paint, opening_m)


def _any_camera(rng: Rng, is_moving: bool) -> PannedPath:
    azimuth, distance, height = rng.uniform((-35, 0.5, 0.3), (35, 1.1, 0.95))
    turn, near, rise = rng.uniform((-22, -0.2, -0.2), (22, 0.2, 0.2)) * is_moving
    field_m = float(rng.uniform(0.6, 0.95))  # width of the picture at the target
    fov_deg = math.degrees(2 * math.atan(0.5 * field_m * HEIGHT / WIDTH / math.hypot(distance, height)))
    return PannedPath(
        azimuth_deg=(azimuth, azimuth + turn),
        distance_m=(distance, distance + near),
        height_m=(height, height + rise),
        target=(float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.02, 0.06)), float(rng.uniform(0.02, 0.07))),
        vertical_fov_deg=fov_deg,
        sway_m=float(rng.choice([0.002, 0.008, 0.016])) if is_moving else 0.0,
        pan=tuple((rng.uniform(-0.12, 0.12, 3) * (1, 1, 0.4) * is_moving * (rng.random() < 0.5)).tolist()),
    )


def _share_in_picture(camera: CameraPath, thing: Thing, progress: float) -> float:
    """How far the middle of a thing is from that of the picture, 1 = at its edge."""
    eye, target = camera.eye_and_target(progress, 0.0)
    view = Pinhole.looking(eye, target, camera.vertical_fov_deg, WIDTH, HEIGHT)
    x, y, z = (np.array([*thing.position, thing.half_height]) - eye) @ view.rotation
    return float(max(abs(x) / WIDTH, abs(y) / HEIGHT) * 2 * view.focal_px / z)


def random_camera(rng: Rng, is_moving: bool, things: Sequence[Thing]) -> PannedPath:
    """A camera path that has the things in its picture at first, and most of them until the end."""
    for _ in range(60):
        camera = _any_camera(rng, is_moving)
        first, last = (max(_share_in_picture(camera, thing, at) for thing in things) for at in (0.0, 0.8))
        if first < 0.88 and last < 1.0:
            break
    return camera


# --------------------------------------------------------------------------------------------------
# What happens in it: way points (progress, x, y, z) of the grip
# --------------------------------------------------------------------------------------------------

Points = list[tuple[float, ...]]


def hide(rng: Rng, thing: Thing, camera: CameraPath, arm: Arm, span: tuple[float, float]) -> Points:
    """The hand stands, or passes slowly, in the line of sight to a thing."""
    eye, target = camera.eye_and_target(sum(span) / 2, 0.0)
    centre = np.array([*thing.position, thing.half_height])
    ray = (eye - centre) / np.linalg.norm(eye - centre)
    nearer = 0.08 if arm.is_human else 0.0  # a hand is smaller, and it is its palm that hides
    before = centre + ray * float(rng.uniform(0.13 + nearer, 0.26 + nearer)) - (0, 0, arm.shape.centre_z_m)
    if arm.is_human:
        before[:2] -= 0.08 * arm.shoulder[:2] / np.linalg.norm(arm.shoulder[:2])
    before[2] = max(before[2], arm.grip_height(0.0))
    along = np.cross(target - eye, (0, 0, 1))
    along *= float(rng.uniform(-0.06, 0.06)) / np.linalg.norm(along)
    return [(span[0], *(before - along)), (span[1], *(before + along))]


def program_of(rng: Rng, scene: TrainingScene, side: float) -> tuple[Array, tuple[int, float, float] | None]:
    """The path of the hand (K, 5) and what it lifts."""
    arm, camera, things = scene.arm, scene.camera, scene.things
    out = np.array([math.cos(side), math.sin(side), 0.0])
    outside = out * float(rng.uniform(0.42, 0.58)) + (0, 0, rng.uniform(0.12, 0.28))
    first = things[0]
    hidden = [things[i] for i in rng.permutation(len(things)) if things[i] is not first] or [first]
    lifted: tuple[int, float, float] | None = None
    points: Points = [(0.0, *outside)]
    if scene.program == "hide":
        points += hide(rng, hidden[0], camera, arm, (0.25, float(rng.uniform(0.4, 0.5))))
        if rng.random() < 0.6:
            points += hide(rng, hidden[-1] if len(hidden) > 1 else first, camera, arm, (0.62, 0.75))
        points += [(0.97, *outside)]
    elif scene.program == "push":
        angle = float(rng.uniform(-0.6, 0.6)) + side + np.pi
        way = np.array([math.cos(angle), math.sin(angle), 0.0])
        low = arm.grip_height(0.0)
        start = np.array([*first.position, low]) - way * (first.radius + (0.07 if arm.is_human else 0.085))
        end = np.array([*first.position, low]) + way * float(rng.uniform(0.03, 0.1))
        points += [(0.2, *(start + (0, 0, 0.08))), (0.26, *start), (0.5, *end), (0.58, *(end + (0, 0, 0.1)))]
        points += [*hide(rng, hidden[0], camera, arm, (0.7, 0.82)), (1.0, *outside)]
    else:
        grip = np.array([*first.position, arm.grip_height(first.half_height)])
        before = grip + (0.13 * out + (0, 0, 0.03) if arm.is_human else (0, 0, 0.12))
        lift = (0, 0, float(rng.uniform(0.05, 0.16)))
        aim = np.array([*hidden[0].position, grip[2]]) + (*rng.uniform(-0.06, 0.06, 2), 0)
        points += [(0.18, *before), (0.3, *grip), (0.34, *grip), (0.48, *(grip + lift)), (0.72, *(aim + lift))]
        if rng.random() < 0.5:
            points += [(0.85, *(grip + lift)), (0.93, *(grip + (0, 0, 0.004))), (1.0, *before)]
            lifted = (0, 0.32, 0.94)
        else:
            points += [(1.0, *(outside * 0.6 + lift))]
            lifted = (0, 0.32, 2.0)
    yaw = (side + np.pi if arm.is_human else 0.0) + rng.uniform(-0.35, 0.35) + rng.uniform(-0.15, 0.15, len(points))
    return np.column_stack([np.array(points), yaw]), lifted


def random_scene(split: str, number: int, attempt: int, permissive: bool) -> TrainingScene:
    rng = np.random.default_rng((split == "held", number, attempt, 15))
    # By the number, so that each share of the scenes is kept whatever is refused.
    program, is_moving, with_twins = PROGRAMS[number % 3], number % 6 < 4, number % 3 == (number // 3) % 3
    permissive = permissive or number % 2 == 0  # half of the scenes are free of unclear terms in any case
    kinds = [k for k in ARMS[split] if not permissive or k not in MODELS or MODELS[k].permissive]
    kind = kinds[(number // 2) % len(kinds)]
    things, clutter, twins = random_things(rng, split, permissive, with_twins)
    sides = (0.2, 0.2 + np.pi - 0.4, -0.7, -0.7 - np.pi + 1.4) if kind == "human" else (0.15, np.pi - 0.15, np.pi / 2)
    side = sides[int(rng.integers(len(sides)))] + float(rng.uniform(-0.35, 0.35))
    opening_m = min(float(np.ptp(things[0].mesh.vertices[:, :2], axis=0).min()) / 2, 0.05)
    grounds = GROUNDS[split]
    scene = TrainingScene(
        things=tuple(things),
        clutter=tuple(clutter),
        twins=tuple(twins),
        camera=random_camera(rng, is_moving, things),
        arm=random_arm(rng, kind, opening_m, side, program == "lift"),
        arm_kind=kind,
        program=program,
        is_moving=is_moving,
        is_permissive=permissive,
        shoulder=(0, 0, 0),  # the arm has its own
        hand_path=np.zeros((2, 5)),
        table=tiling(texture(rng, grounds, float(rng.uniform(0.2, 0.9)))),
        wall=tiling(texture(rng, (*grounds, plain), float(rng.uniform(0.1, 0.6)))),
        floor=tiling(texture(rng, grounds, float(rng.uniform(0.2, 0.8)))),
        table_size=((3.6, 2.4) if rng.random() < 0.3 else tuple(rng.uniform((0.9, 0.7), (1.6, 1.1)).tolist())),
        props=tuple(random_prop(rng, split) for _ in range(int(rng.integers(0, 7)))),
        cover=np.zeros((1, 1, 3), np.uint8),
        light=(float(rng.uniform(-1.3, 1.3)), float(rng.uniform(-1.5, 0.8)), float(rng.uniform(1.7, 2.7))),
        shadow=float(rng.uniform(0.2, 0.65)),
        steps_per_frame=STEPS,
        light_map_px=400,
        exposure_steps=(0,),
        seed=1_000_000 * (split == "held") + 1000 * number + attempt,
    )
    path, lifted = program_of(rng, scene, side)
    return replace(scene, hand_path=path, lifted=lifted)


def random_prop(rng: Rng, split: str) -> tuple[Sequence[float], Sequence[float], Picture]:
    width, depth, height = rng.uniform((0.1, 0.1, 0.4), (0.6, 0.3, 1.5)).tolist()
    centre = (float(rng.uniform(-1.4, 1.4)), float(rng.uniform(0.75, 1.05)), FLOOR_Z_M + height / 2)
    return centre, (width, depth, height), texture(rng, STYLES[split], 0.8)
