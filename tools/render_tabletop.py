# SPDX-License-Identifier: Apache-2.0
"""Render a tabletop scene with exact instance masks, in the layout of the DAVIS data set.

A robot arm comes in, pushes one object and hides another for a while; the camera drifts. Every mesh and
every texture is generated here, so the pictures depend on no asset of anybody else. Physics and picture come
from PyBullet (its CPU renderer: no GPU, no display).

    python tools/render_tabletop.py --out /tmp/clip --scene 0

writes

    OUT/JPEGImages/NAME/00000.jpg      colour, anti-aliased, with a little motion blur and noise
    OUT/Annotations/NAME/00000.png     8-bit palette PNG, 0 = background, table and robot; 1..N = objects
    OUT/Depth/NAME/00000.png           with --depth: 16-bit PNG, mm along the optical axis, 0 = nothing
    OUT/Robot/NAME/00000.png           with --robot: 8-bit PNG, 255 = robot: what `~/ignore_mask` would be
    OUT/camera.json                    intrinsics, camera pose of each frame, names of the ids

Scene 0 is choreographed by the constants of `choreographed_scene`; any other number is the seed of a random
scene. The same arguments give the same files. World: metres, z up, origin in the middle of the table top, the
camera on the side of negative y, the robot at the left or right.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]
Rng = np.random.Generator
Colour = tuple[int, int, int]

STEPS_PER_FRAME = 10  # physics steps; the exposure is sampled at whole steps, so that nothing is interpolated
EXPOSURE_STEPS = (-1, 0, 1)  # around the frame's time: a shutter of about 110 degrees
PHYSICS_RATE_HZ = 240  # at least
NEAR_M, FAR_M = 0.2, 6.0
TABLE_SIZE_M = (1.5, 0.95, 0.04)
FLOOR_Z_M = -0.74
WALL_Y_M = 1.25
MAX_OBJECTS = 8

# --------------------------------------------------------------------------------------------------
# Textures: uint8 (H, W, 3); row 0 is the upper end of an object
# --------------------------------------------------------------------------------------------------


def value_noise(rng: Rng, size: tuple[int, int], cells: tuple[int, int], octaves: int = 4) -> Array:
    """Smooth noise in about [-1, 1], shape `size` = (H, W), `cells` of it in the lowest octave."""
    height, width = size
    total = np.zeros(size)
    for octave in range(octaves):
        grid_size = (min(height, cells[0] << octave), min(width, cells[1] << octave))
        grid = Image.fromarray(rng.uniform(-1, 1, grid_size).astype(np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.5**octave
    return total / 1.5


def shaded(base: Colour | Array, shade: Array) -> Picture:
    """`base` times (1 + shade), as a picture."""
    picture = np.asarray(base, dtype=np.float64) * (1.0 + shade[..., None])
    return np.clip(picture, 0, 255).astype(np.uint8)


def wood(rng: Rng, base: Colour) -> Picture:
    """Boards with a grain along the width, a tone of its own for each board and dark joints between them."""
    height, width, boards = 1024, 1600, 6
    rows = np.linspace(0, boards, height, endpoint=False)[:, None]
    board = rows.astype(int)
    bend = value_noise(rng, (height, width), (7, 3), 3)
    phase = rng.uniform(0, 6, boards)[board]
    rings = np.sin(2 * np.pi * (3.0 * (rows - board) + phase + 1.3 * bend))
    fibre = value_noise(rng, (height, width), (220, 10), 2)
    joint = np.exp(-(((rows - np.round(rows)) / 0.012) ** 2))
    tone = rng.uniform(-0.10, 0.10, boards)[board]
    return shaded(base, tone + 0.09 * rings + 0.06 * fibre - 0.45 * joint)


def plaster(rng: Rng, base: Colour) -> Picture:
    """A painted wall or floor: blotches and fine grain."""
    return shaded(base, 0.10 * value_noise(rng, (512, 512), (5, 5), 5) + 0.03 * rng.standard_normal((512, 512)))


def tiles(rng: Rng, base: Colour) -> Picture:
    """Square floor tiles of slightly different tone."""
    tone = np.kron(rng.uniform(-0.15, 0.15, (8, 8)), np.ones((64, 64)))
    rows, columns = np.mgrid[0:512, 0:512] % 64
    joint = (rows < 3) | (columns < 3)
    return shaded(base, tone + 0.05 * value_noise(rng, (512, 512), (16, 16)) - 0.4 * joint)


def wear(rng: Rng, picture: Picture) -> Picture:
    """Uneven print and small scratches: no surface of an object is one flat colour."""
    height, width = picture.shape[:2]
    shade = 0.10 * value_noise(rng, (height, width), (6, 6), 5)
    return shaded(picture.astype(np.float64), shade + 0.02 * rng.standard_normal((height, width)))


def stripes(rng: Rng, ink: Colour, paper: Colour, count: int = 7, slant: float = 1.0) -> Picture:
    """Diagonal stripes; `slant` whole turns from top to bottom, so that the seam of a lathe does not show."""
    rows, columns = np.mgrid[0:512, 0:512] / 512.0
    wave = np.sin(2 * np.pi * (count * columns + slant * rows))
    return wear(rng, np.where(wave[..., None] > 0, ink, paper).astype(np.uint8))


def bands(rng: Rng, ink: Colour, paper: Colour, text: str = "") -> Picture:
    """Horizontal bands with a line of print that repeats around."""
    canvas = Image.new("RGB", (512, 512), paper)
    draw = ImageDraw.Draw(canvas)
    for top, bottom in ((0, 130), (178, 196), (330, 348), (400, 512)):
        draw.rectangle((0, top, 512, bottom), fill=ink)
    for column in (0, 171, 341):
        draw.text((column + 12, 212), text, fill=ink, font=ImageFont.load_default(80))
    return wear(rng, np.asarray(canvas))


def checks(rng: Rng, ink: Colour, paper: Colour, count: int = 8) -> Picture:
    """A chequered pattern of `count` by `count` (an even number, for the seam)."""
    rows, columns = np.mgrid[0:512, 0:512] * count // 512
    return wear(rng, np.where(((rows + columns) % 2)[..., None] == 0, ink, paper).astype(np.uint8))


def dots(rng: Rng, ink: Colour, paper: Colour, count: int = 60) -> Picture:
    """Dots of different size, spread at random."""
    canvas = Image.new("RGB", (512, 512), paper)
    draw = ImageDraw.Draw(canvas)
    for x, y, radius in rng.uniform((0, 0, 10), (512, 512, 34), (count, 3)):
        for shift in (-512, 0, 512):
            draw.ellipse((x + shift - radius, y - radius, x + shift + radius, y + radius), fill=ink)
    return wear(rng, np.asarray(canvas))


def carton(rng: Rng, ink: Colour, paper: Colour, text: str = "") -> Picture:
    """The atlas of a box, 3 x 2 faces (see `box_mesh`): frames, print, a bar code and circles."""
    canvas = Image.new("RGB", (768, 512), paper)
    draw = ImageDraw.Draw(canvas)
    large, small = ImageFont.load_default(58), ImageFont.load_default(17)
    for face in range(6):
        x, y = 256 * (face % 3), 256 * (face // 3)
        draw.rectangle((x, y, x + 255, y + 255), fill=paper, outline=ink, width=9)
        draw.rectangle((x, y + 24, x + 255, y + 98), fill=ink)
        draw.text((x + 26, y + 26), text, fill=paper, font=large)
        for cx, cy, radius in rng.uniform((50, 140, 12), (205, 205, 34), (5, 3)):
            tint = tuple(int(v) for v in rng.integers(60, 240, 3))
            draw.ellipse((x + cx - radius, y + cy - radius, x + cx + radius, y + cy + radius), fill=tint)
        draw.text((x + 22, y + 106), "net weight 250 g", fill=ink, font=small)
        for bar in range(18):
            left = x + 150 + 5 * bar
            draw.rectangle((left, y + 218, left + int(rng.integers(1, 4)), y + 240), fill=(20, 20, 20))
    return wear(rng, np.asarray(canvas))


def machine(rng: Rng, base: Colour, accent: Colour) -> Picture:
    """The cover of a robot link: paint, an accent ring, joints of the shell and a few screws."""
    canvas = Image.new("RGB", (512, 512), base)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 70, 512, 130), fill=accent)
    for row in (66, 134, 300, 440):
        draw.line((0, row, 512, row), fill=(70, 70, 75), width=5)
    for column in range(32, 512, 64):
        draw.ellipse((column - 7, 360, column + 7, 374), fill=(60, 60, 66))
    return wear(rng, np.asarray(canvas))


# --------------------------------------------------------------------------------------------------
# Meshes
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mesh:
    """Triangles with one normal and one texture coordinate (v from the top) for each vertex."""

    vertices: Array  # (V, 3) metres
    normals: Array  # (V, 3)
    uv: Array  # (V, 2)
    triangles: NDArray[np.int64]  # (T, 3)

    def moved(self, offset: Sequence[float]) -> Mesh:
        return Mesh(self.vertices + np.asarray(offset), self.normals, self.uv, self.triangles)

    def write_obj(self, path: Path) -> None:
        def lines(form: str, values: NDArray[Any]) -> str:
            return form * len(values) % tuple(values.ravel().tolist())

        corners = np.repeat(self.triangles + 1, 3, axis=1)  # point, texture and normal share an index
        path.write_text(
            lines("v %.6f %.6f %.6f\n", self.vertices)
            + lines("vt %.6f %.6f\n", self.uv * (1, -1) + (0, 1))
            + lines("vn %.5f %.5f %.5f\n", self.normals)
            + lines("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners),
            encoding="ascii",
        )


def merged(meshes: Sequence[Mesh]) -> Mesh:
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    triangles = [mesh.triangles + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate(triangles),
    )


def grid_triangles(rows: int, columns: int) -> NDArray[np.int64]:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def flat_mesh(points: Array, uv: Array, normal: Array) -> Mesh:
    """A flat (R, C, 3) grid of points as triangles."""
    normals = np.broadcast_to(normal, points.shape).reshape(-1, 3)
    return Mesh(points.reshape(-1, 3), normals, uv.reshape(-1, 2), grid_triangles(*points.shape[:2]))


def lathe_mesh(profile: Sequence[tuple[float, float]], sides: int = 40, smooth: bool = False) -> Mesh:
    """Turn a profile of (radius, z), top to bottom, around z.

    Each piece of the profile has its own normals (sharp rims) unless `smooth`. With few sides it is a prism.
    """
    points = np.asarray(profile, dtype=np.float64)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    v = length / length[-1]
    angles = np.linspace(0, 2 * np.pi, sides + 1)
    pieces: list[Mesh] = []
    rings = [np.arange(len(points))] if smooth else [np.array([i, i + 1]) for i in range(len(points) - 1)]
    is_prism = sides <= 12
    spans = [angles[i : i + 2] for i in range(sides)] if is_prism else [angles]
    for ring in rings:
        radius, z = points[ring, 0][:, None], points[ring, 1][:, None]
        for span in spans:
            facing = np.full_like(span, span.mean()) if is_prism else span
            surface = np.stack([radius * np.cos(span), radius * np.sin(span), z + 0 * span], axis=-1)
            # Not from the surface itself: at a pole or a disc it has no gradient along the turn.
            d_radius, d_z = np.gradient(radius, axis=0), np.gradient(z, axis=0)
            normals = np.stack([-d_z * np.cos(facing), -d_z * np.sin(facing), d_radius + 0 * facing], axis=-1)
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            uv = np.stack(np.broadcast_arrays(span[None, :] / (2 * np.pi), v[ring][:, None]), axis=-1)
            pieces.append(
                Mesh(
                    surface.reshape(-1, 3),
                    normals.reshape(-1, 3),
                    uv.reshape(-1, 2),
                    grid_triangles(*surface.shape[:2]),
                )
            )
    return merged(pieces)


def box_mesh(size: Sequence[float], atlas: bool = True) -> Mesh:
    """A box around the origin; its faces -y, +x, top / +y, -x, bottom are the 3 x 2 cells of the texture."""
    half = np.asarray(size, dtype=np.float64) / 2
    faces = [  # right and up of the face as seen from outside
        ((1, 0, 0), (0, 0, 1)),
        ((0, 1, 0), (0, 0, 1)),
        ((1, 0, 0), (0, 1, 0)),
        ((-1, 0, 0), (0, 0, 1)),
        ((0, -1, 0), (0, 0, 1)),
        ((-1, 0, 0), (0, 1, 0)),
    ]
    steps = np.linspace(-1, 1, 9)  # many small triangles: the renderer lights by vertex
    pieces: list[Mesh] = []
    for index, (right, up) in enumerate(faces):
        r, u = np.asarray(right, dtype=np.float64), np.asarray(up, dtype=np.float64)
        outward = np.cross(r, u)
        points = (outward + steps[None, :, None] * r - steps[:, None, None] * u) * half
        uv = np.stack(np.broadcast_arrays((steps[None, :] + 1) / 2, (steps[:, None] + 1) / 2), axis=-1)
        if atlas:
            uv = (0.004 + 0.992 * uv + (index % 3, index // 3)) / (3, 2)
        pieces.append(flat_mesh(points, uv, outward))
    return merged(pieces)


def plane_mesh(origin: Sequence[float], right: Sequence[float], up: Sequence[float], repeat: float) -> Mesh:
    """A rectangle from `origin` along `right` and `up`; the texture repeats `repeat` times each way."""
    s = np.linspace(0, 1, 25)
    points = np.asarray(origin) + s[None, :, None] * np.asarray(right) + (1 - s)[:, None, None] * np.asarray(up)
    uv = np.stack(np.broadcast_arrays(s[None, :], s[:, None]), axis=-1)
    normal = np.cross(right, up).astype(np.float64)
    return flat_mesh(points, uv * repeat, normal / np.linalg.norm(normal))


# --------------------------------------------------------------------------------------------------
# What a scene is
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object on the table; its mesh is centred on its origin. Its id is its place in the scene, from 1."""

    name: str
    mesh: Mesh
    texture: Picture
    position: tuple[float, float]
    yaw: float = 0.0
    mass_kg: float = 0.3
    ball_radius: float | None = None  # a hull of triangles does not roll well

    @property
    def half_height(self) -> float:
        return float(np.ptp(self.mesh.vertices[:, 2]) / 2)

    @property
    def radius(self) -> float:
        return float(np.hypot(self.mesh.vertices[:, 0], self.mesh.vertices[:, 1]).max())


@dataclass(frozen=True, kw_only=True)
class CameraPath:
    """An arc around `target`, from `azimuth_deg[0]` to `[1]` (0 = from negative y), with a small sway."""

    azimuth_deg: tuple[float, float]
    distance_m: tuple[float, float] = (0.93, 0.93)  # horizontal
    height_m: tuple[float, float] = (0.62, 0.62)
    target: tuple[float, float, float] = (0.0, 0.03, 0.04)
    vertical_fov_deg: float = 27.0
    sway_m: float = 0.002

    def eye_and_target(self, progress: float, seconds: float) -> tuple[Array, Array]:
        ease = (1 - math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
        azimuth, distance, height = (a + (b - a) * ease for a, b in (self.azimuth_deg, self.distance_m, self.height_m))
        angle = math.radians(azimuth)
        target = np.array(self.target)
        sway = self.sway_m * np.sin(seconds * np.array([1.9, 2.7, 2.3]) + np.array([0.0, 1.0, 2.0]))
        eye = np.array([math.sin(angle) * distance, -math.cos(angle) * distance, height])
        return eye + sway + (target[0], 0, 0), target - sway / 2


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that decides the pictures, beside their number and size."""

    things: tuple[Thing, ...]
    camera: CameraPath
    shoulder: tuple[float, float, float]  # of the arm, outside the picture
    hand_path: Array  # (K, 5): progress 0..1, x, y, z of the finger tips, yaw of the hand
    table: Picture
    wall: Picture
    floor: Picture
    cover: Picture  # of the robot
    light: tuple[float, float, float] = (-0.7, -1.0, 2.3)
    shadow: float = 0.5  # share of the light that a shadow takes
    steps_per_frame: int = STEPS_PER_FRAME
    light_map_px: int = 1024
    exposure_steps: tuple[int, ...] = EXPOSURE_STEPS
    seed: int = 0


def can(radius: float, height: float) -> Mesh:
    h, bevel = height / 2, 0.004
    profile = [(0, h - 0.003), (radius - 2 * bevel, h - 0.003), (radius - bevel, h), (radius, h - bevel),
               (radius, bevel - h), (radius - bevel, -h), (0, -h)]  # fmt: skip
    return lathe_mesh(profile)


def bottle(radius: float, height: float) -> Mesh:
    h, neck = height / 2, 0.38 * radius
    profile = [(0, h), (neck * 1.15, h), (neck * 1.15, 0.80 * h), (neck, 0.78 * h), (neck, 0.52 * h),
               (0.75 * radius, 0.33 * h), (radius, 0.12 * h), (radius, -h), (0, -h)]  # fmt: skip
    return lathe_mesh(profile)


def ball(radius: float) -> Mesh:
    angles = np.linspace(0, np.pi, 26)
    return lathe_mesh([(radius * math.sin(a), radius * math.cos(a)) for a in angles], smooth=True)


def prism(radius: float, height: float, sides: int) -> Mesh:
    h = height / 2
    return lathe_mesh([(0, h), (radius, h), (radius, -h), (0, -h)], sides=sides)


def cup(radius: float, height: float) -> Mesh:
    h, wall, foot = height / 2, 0.004, 0.75
    profile = [(0, 0.01 - h), (foot * radius - wall, 0.01 - h), (radius - wall, h), (radius, h),
               (foot * radius, -h), (0, -h)]  # fmt: skip
    return lathe_mesh(profile)


def choreographed_scene() -> Scene:
    """Scene 0: a striped can is pushed; the ball behind it disappears behind the hand and returns."""
    rng = np.random.default_rng(0)
    red, cream = (178, 38, 44), (232, 220, 196)
    things = (
        Thing(name="striped can", mesh=can(0.038, 0.10), texture=stripes(rng, red, cream, 6, 1.0),
              position=(0.03, -0.12), yaw=0.3),
        Thing(name="striped bottle", mesh=bottle(0.036, 0.20),
              texture=stripes(rng, (158, 44, 60), cream, 7, 3.0), position=(-0.20, 0.10), yaw=1.0, mass_kg=0.5),
        Thing(name="tea carton", mesh=box_mesh((0.12, 0.06, 0.15)),
              texture=carton(rng, (30, 62, 140), (214, 220, 230), "TEA"), position=(0.01, 0.19), yaw=-0.35),
        Thing(name="dotted ball", mesh=ball(0.033), texture=dots(rng, (236, 200, 60), (36, 120, 70), 70),
              position=(0.20, 0.05), yaw=0.5, ball_radius=0.033),
    )  # fmt: skip
    hand_path = np.array([
        (0.00, 0.54, -0.16, 0.24, 0.0),
        (0.03, 0.54, -0.16, 0.23, 0.0),
        (0.22, 0.265, -0.12, 0.012, 0.0),  # before the ball, slowly
        (0.40, 0.160, -0.12, 0.012, 0.0),  # at the can
        (0.66, -0.075, -0.125, 0.012, 0.1),
        (0.75, 0.00, -0.13, 0.13, 0.0),
        (1.00, 0.56, -0.10, 0.28, -0.1),
    ])  # fmt: skip
    return Scene(
        things=things,
        camera=CameraPath(azimuth_deg=(-6.0, 7.0), height_m=(0.60, 0.64)),
        shoulder=(0.78, 0.12, 0.36),
        hand_path=hand_path,
        table=wood(rng, (172, 130, 90)),
        wall=plaster(rng, (150, 160, 158)),
        floor=tiles(rng, (110, 108, 104)),
        cover=machine(rng, (206, 208, 210), (226, 120, 30)),
    )


# --------------------------------------------------------------------------------------------------
# Random scenes
# --------------------------------------------------------------------------------------------------


def random_colours(rng: Rng) -> tuple[Colour, Colour]:
    """An ink and a paper that differ well in lightness."""
    ink = rng.uniform(20, 130, 3)
    ink[rng.integers(3)] += 80
    paper = rng.uniform(150, 240, 3)
    return (int(ink[0]), int(ink[1]), int(ink[2])), (int(paper[0]), int(paper[1]), int(paper[2]))


def random_texture(rng: Rng, colours: tuple[Colour, Colour], is_box: bool) -> Picture:
    word = "".join(rng.choice(list("ABDEGIKLMNOPRSTU"), 4))
    if is_box:
        return carton(rng, *colours, word)
    styles: list[Callable[[], Picture]] = [
        lambda: stripes(rng, *colours, int(rng.integers(3, 10)), float(rng.integers(-3, 4))),
        lambda: bands(rng, *colours, word),
        lambda: checks(rng, *colours, 2 * int(rng.integers(2, 7))),
        lambda: dots(rng, *colours, int(rng.integers(25, 90))),
    ]
    return styles[int(rng.integers(len(styles)))]()


def random_thing(rng: Rng, colours: tuple[Colour, Colour], placed: Sequence[Thing]) -> Thing:
    kind = str(rng.choice(["can", "bottle", "box", "ball", "prism", "cup"]))
    radius = float(rng.uniform(0.025, 0.045))
    ball_radius = radius if kind == "ball" else None
    mesh = {
        "can": lambda: can(radius, float(rng.uniform(0.05, 0.13))),
        "bottle": lambda: bottle(radius, float(rng.uniform(0.14, 0.20))),
        "box": lambda: box_mesh(rng.uniform((0.05, 0.04, 0.05), (0.13, 0.08, 0.15)).tolist()),
        "ball": lambda: ball(radius),
        "prism": lambda: prism(radius, float(rng.uniform(0.05, 0.12)), int(rng.integers(3, 8))),
        "cup": lambda: cup(radius + 0.005, float(rng.uniform(0.07, 0.11))),
    }[kind]()
    texture = random_texture(rng, colours, kind == "box")
    reach = float(np.hypot(mesh.vertices[:, 0], mesh.vertices[:, 1]).max())
    position = (0.0, 0.0)
    gap_m = 0.06
    while True:  # the wish for a gap shrinks, so that this ends for any number of objects
        position = (float(rng.uniform(-0.30, 0.30)), float(rng.uniform(-0.15, 0.20)))
        if all(math.dist(position, t.position) > reach + t.radius + gap_m for t in placed):
            break
        gap_m = max(0.004, gap_m * 0.99)
    return Thing(name=kind, mesh=mesh, texture=texture, position=position, yaw=float(rng.uniform(-3, 3)),
                 mass_kg=float(rng.uniform(0.15, 0.5)), ball_radius=ball_radius)  # fmt: skip


def random_scene(seed: int, object_count: int) -> Scene:
    """A scene of its own for each seed: one object is pushed, the hand stops before another one."""
    rng = np.random.default_rng(seed)
    things: list[Thing] = []
    colours = random_colours(rng)
    for _ in range(object_count):
        if rng.random() > 0.35:  # else the colours of the one before, so that the two are easily confused
            colours = random_colours(rng)
        things.append(random_thing(rng, colours, things))
    camera = CameraPath(
        azimuth_deg=(float(rng.uniform(-14, 14)), float(rng.uniform(-14, 14))),
        distance_m=(float(rng.uniform(0.85, 1.0)), float(rng.uniform(0.85, 1.0))),
        height_m=(float(rng.uniform(0.50, 0.75)), float(rng.uniform(0.50, 0.75))),
        sway_m=float(rng.uniform(0.0, 0.004)),
    )
    side = float(rng.choice([-1.0, 1.0]))
    shoulder = (side * 0.78, float(rng.uniform(-0.05, 0.25)), float(rng.uniform(0.32, 0.42)))

    def tone(low: float, high: float) -> Colour:
        grey = rng.uniform(low, high)
        r, g, b = np.clip(grey + rng.uniform(-30, 30, 3), 20, 240)
        return int(r), int(g), int(b)

    timber = rng.uniform(90, 200)
    cover, accent = tone(120, 220), random_colours(rng)[0]
    table_styles: list[Callable[[], Picture]] = [
        lambda: wood(rng, (int(timber), int(timber * 0.77), int(timber * 0.54))),
        lambda: plaster(rng, tone(90, 210)),
        lambda: tiles(rng, tone(90, 210)),
    ]
    return Scene(
        things=tuple(things),
        camera=camera,
        shoulder=shoulder,
        hand_path=random_hand_path(rng, things, camera, side),
        table=table_styles[int(rng.choice(3, p=[0.6, 0.2, 0.2]))](),
        wall=plaster(rng, tone(80, 210)),
        floor=tiles(rng, tone(70, 180)),
        cover=machine(rng, cover, accent),
        light=(float(rng.uniform(-1.2, 1.2)), float(rng.uniform(-1.4, 0.6)), float(rng.uniform(1.9, 2.6))),
        shadow=float(rng.uniform(0.25, 0.6)),
        seed=seed,
    )


def random_hand_path(rng: Rng, things: Sequence[Thing], camera: CameraPath, side: float) -> Array:
    """Way points: in, push one thing, stand in the line of sight to another (or first this), out."""
    outside = (side * 0.64, -0.1, 0.28)
    pushed = things[int(rng.integers(len(things)))]
    others = [thing for thing in things if thing is not pushed] or [pushed]
    hidden = others[int(rng.integers(len(others)))]
    angle = float(rng.uniform(-0.7, 0.7))
    direction = np.array([-side * math.cos(angle), math.sin(angle)])
    start = np.array(pushed.position) - direction * (pushed.radius + 0.085)
    end = np.array(pushed.position) + direction * float(rng.uniform(0.03, 0.10))
    push = [(0.08, *start, 0.20), (0.13, *start, 0.012), (0.33, *end, 0.012), (0.38, *end, 0.22)]

    def hide(progress: float) -> list[tuple[float, ...]]:
        eye, _ = camera.eye_and_target(progress, 0.0)
        centre = np.array([*hidden.position, hidden.half_height])
        ray = (eye - centre) / np.linalg.norm(eye - centre)
        before = centre + ray * float(rng.uniform(0.26, 0.34)) - (0, 0, PALM_CENTRE_Z_M)
        before[2] = max(before[2], 0.02)
        away = np.array([side * float(rng.uniform(0.005, 0.015)), 0, 0])
        return [(0.0, *(before - away)), (float(rng.uniform(0.10, 0.18)), *(before + away))]

    points: list[tuple[float, ...]] = [(0.0, *outside)]
    if rng.random() < 0.5:
        points += [(0.05 + t, x, y, z) for t, x, y, z in push]
        points += [(0.60 + t, x, y, z) for t, x, y, z in hide(0.65)]
    else:
        points += [(0.20 + t, x, y, z) for t, x, y, z in hide(0.25)]
        points += [(0.43 + t, x, y, z) for t, x, y, z in push]
    points += [(0.98, *outside), (1.0, *outside)]
    yaw = rng.uniform(-0.4, 0.4, len(points))
    return np.column_stack([np.array(points), yaw])


# --------------------------------------------------------------------------------------------------
# Motion
# --------------------------------------------------------------------------------------------------

FINGER_HEIGHT_M = 0.07
PALM_SIZE_M = (0.13, 0.12, 0.10)
PALM_CENTRE_Z_M = FINGER_HEIGHT_M + PALM_SIZE_M[2] / 2
WRIST_Z_M = 0.24  # of the wrist joint, above the finger tips
UPPER_ARM_M, FOREARM_M = 0.55, 0.50


def hand_at(path: Array, progress: float) -> Array:
    """x, y, z, yaw of the hand: a monotone cubic through the way points, which does not overshoot them."""
    times, values = path[:, 0], path[:, 1:]
    slope = np.diff(values, axis=0) / np.diff(times)[:, None]
    tangent = np.zeros_like(values)
    rising = slope[:-1] * slope[1:] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = 2 * slope[:-1] * slope[1:] / (slope[:-1] + slope[1:])
    tangent[1:-1] = np.where(rising, harmonic, 0.0)
    i = int(np.clip(np.searchsorted(times, progress, side="right") - 1, 0, len(times) - 2))
    step = times[i + 1] - times[i]
    s = float(np.clip((progress - times[i]) / step, 0.0, 1.0))
    point: Array = (
        (1 + 2 * s) * (1 - s) ** 2 * values[i]
        + s * (1 - s) ** 2 * step * tangent[i]
        + s * s * (3 - 2 * s) * values[i + 1]
        + s * s * (s - 1) * step * tangent[i + 1]
    )
    return point


def elbow_of(shoulder: Array, wrist: Array) -> Array:
    """The elbow above the line from shoulder to wrist; the arm is stretched if the wrist is too far."""
    line = wrist - shoulder
    reach = min(float(np.linalg.norm(line)), UPPER_ARM_M + FOREARM_M - 1e-6)
    along = line / np.linalg.norm(line)
    up = np.array([0.0, 0.0, 1.0]) - along[2] * along
    up /= max(float(np.linalg.norm(up)), 1e-9)
    a = (UPPER_ARM_M**2 - FOREARM_M**2 + reach**2) / (2 * reach)
    return np.asarray(shoulder + a * along + math.sqrt(max(UPPER_ARM_M**2 - a * a, 0.0)) * up)


def quaternion_of_axis(axis: Array) -> list[float]:
    """The rotation (x, y, z, w) that brings +z to the unit vector `axis` by the shortest turn."""
    x, y, z, w = -axis[1], axis[0], 0.0, 1.0 + axis[2]
    if w < 1e-6:
        x, y, w = 1.0, 0.0, 0.0
    norm = math.sqrt(x * x + y * y + w * w)
    return [x / norm, y / norm, z, w / norm]


# --------------------------------------------------------------------------------------------------
# World and renderer
# --------------------------------------------------------------------------------------------------


Pose = tuple[Sequence[float], Sequence[float]]  # position and quaternion (x, y, z, w) in the world


@dataclass(frozen=True)
class View:
    """One raw picture of the renderer."""

    colour: Picture  # (H, W, 3)
    depth_m: Floats  # (H, W) along the optical axis, inf where there is nothing
    bodies: NDArray[np.int32]  # (H, W) body id, -1 where there is nothing


@dataclass(frozen=True)
class Pinhole:
    """A camera: pixel (row v, column u) covers [u, u+1) x [v, v+1); axes x right, y down, z forward."""

    eye: Array
    rotation: Array  # (3, 3) camera axes in the world, as columns
    focal_px: float
    width: int
    height: int

    @staticmethod
    def looking(eye: Array, target: Array, vertical_fov_deg: float, width: int, height: int) -> Pinhole:
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
        focal_px = height / 2 / math.tan(math.radians(vertical_fov_deg) / 2)
        return Pinhole(eye, rotation, focal_px, width, height)

    def scaled(self, factor: int) -> Pinhole:
        return Pinhole(self.eye, self.rotation, self.focal_px * factor, self.width * factor, self.height * factor)

    def points(self, depth_m: Floats) -> Floats:
        """World points (H, W, 3) of the pixel centres."""
        u = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal_px
        v = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal_px
        right, down, forward = self.rotation.T
        rays = (u[None, :, None] * right + (v[:, None, None] * down + forward)).astype(np.float32)
        return np.asarray(depth_m[..., None] * rays + self.eye.astype(np.float32))

    def gl_matrices(self) -> tuple[list[float], list[float]]:
        """View and projection, column-major, so that the sample of a pixel is its centre.

        The renderer samples column u at u and row v at v + 1 of the picture plane; the third column of the
        projection moves the picture by that half pixel.
        """
        axes = self.rotation * (1.0, -1.0, -1.0)
        view = np.eye(4)
        view[:3, :3] = axes.T
        view[:3, 3] = -axes.T @ self.eye
        projection = np.zeros((4, 4))
        projection[0, 0] = 2 * self.focal_px / self.width
        projection[1, 1] = 2 * self.focal_px / self.height
        projection[0, 2] = 1 / self.width
        projection[1, 2] = 1 / self.height
        projection[2, 2:] = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
        projection[3, 2] = -1
        return view.T.ravel().tolist(), projection.T.ravel().tolist()


@dataclass
class World:
    """The scene in the physics engine; `step` moves it on, `look` takes a picture of it."""

    scene: Scene
    fps: int
    frames: int
    bullet: Any
    folder: Path  # for the files by which the engine takes meshes and textures
    instance_of_body: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        b = self.bullet
        b.setGravity(0, 0, -9.81)
        rate_hz = self.fps * self.scene.steps_per_frame
        b.setTimeStep(1.0 / rate_hz)
        b.setPhysicsEngineParameter(
            numSolverIterations=100,
            deterministicOverlappingPairs=1,
            numSubSteps=math.ceil(PHYSICS_RATE_HZ / rate_hz),  # a slow film is no reason for coarse physics
        )
        self._add_room()
        before = b.getNumBodies()
        self._add_robot()
        self.robot = [b.getBodyUniqueId(i) for i in range(before, b.getNumBodies())]
        for instance_id, thing in enumerate(self.scene.things, start=1):
            self.instance_of_body[self._add_thing(thing)] = instance_id
        for _ in range(2 * self.scene.steps_per_frame):  # let everything come to rest before the first frame
            self.step(0)

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{len(list(self.folder.iterdir()))}{suffix}"

    def _texture(self, picture: Picture) -> int:
        path = self._path(".png")
        Image.fromarray(picture).save(path, compress_level=1)
        return int(self.bullet.loadTexture(str(path)))

    def _body(
        self,
        mesh: Mesh,
        texture: int,
        position: Sequence[float] = (0, 0, 0),
        yaw: float = 0.0,
        collision: int = -1,
        mass_kg: float = 0.0,
    ) -> int:
        path = self._path(".obj")
        mesh.write_obj(path)
        b = self.bullet
        visual = b.createVisualShape(b.GEOM_MESH, fileName=str(path), rgbaColor=[1, 1, 1, 1])
        turn = b.getQuaternionFromEuler([0, 0, yaw])
        body = int(b.createMultiBody(mass_kg, collision, visual, list(position), turn))
        b.changeVisualShape(body, -1, textureUniqueId=texture)
        return body

    def _add_room(self) -> None:
        b, scene = self.bullet, self.scene
        half = [s / 2 for s in TABLE_SIZE_M]
        table = self._body(
            box_mesh(TABLE_SIZE_M, atlas=False),
            self._texture(scene.table),
            (0, 0, -half[2]),
            collision=b.createCollisionShape(b.GEOM_BOX, halfExtents=half),
        )
        b.changeDynamics(table, -1, lateralFriction=0.5, rollingFriction=0.002, spinningFriction=0.002)
        wall = plane_mesh((-3, WALL_Y_M, FLOOR_Z_M), (6, 0, 0), (0, 0, 3), 5)
        self._body(wall, self._texture(scene.wall))
        floor = plane_mesh((-3, -2, FLOOR_Z_M), (6, 0, 0), (0, WALL_Y_M + 2, 0), 3)
        self._body(floor, self._texture(scene.floor))

    def _add_thing(self, thing: Thing) -> int:
        b = self.bullet
        if thing.ball_radius is not None:
            collision = b.createCollisionShape(b.GEOM_SPHERE, radius=thing.ball_radius)
        else:
            corners = np.unique(thing.mesh.vertices.round(5), axis=0)
            collision = b.createCollisionShape(b.GEOM_MESH, vertices=corners.tolist())  # their convex hull
        position = (*thing.position, thing.half_height + 0.001)
        texture = self._texture(thing.texture)
        body = self._body(thing.mesh, texture, position, thing.yaw, collision, thing.mass_kg)
        b.changeDynamics(body, -1, lateralFriction=0.5, rollingFriction=0.003, spinningFriction=0.003,
                         angularDamping=0.3)  # fmt: skip
        return body

    def _add_robot(self) -> None:
        b = self.bullet
        cover = self._texture(self.scene.cover)
        fingers = [box_mesh((0.026, 0.02, FINGER_HEIGHT_M)).moved((0, y, FINGER_HEIGHT_M / 2))
                   for y in (-0.036, 0.036)]  # fmt: skip
        palm = box_mesh(PALM_SIZE_M).moved((0, 0, PALM_CENTRE_Z_M))
        flange = lathe_mesh([(0, WRIST_Z_M), (0.04, WRIST_Z_M), (0.04, 0.16), (0, 0.16)])
        centres = [[0, -0.036, 0.035], [0, 0.036, 0.035], [0, 0, PALM_CENTRE_Z_M]]
        halves = [[0.013, 0.01, 0.035], [0.013, 0.01, 0.035], [s / 2 for s in PALM_SIZE_M]]
        collision = b.createCollisionShapeArray(
            shapeTypes=[b.GEOM_BOX] * 3, halfExtents=halves, collisionFramePositions=centres
        )
        mesh = merged([*fingers, palm, flange])
        x, y, z, yaw = hand_at(self.scene.hand_path, 0.0).tolist()
        # Held to its path by a constraint and not simply placed there: the solver then knows its velocity,
        # and the objects are pushed, not thrown.
        self.hand = self._body(mesh, cover, (x, y, z), yaw, collision, mass_kg=5.0)
        self.grip = b.createConstraint(self.hand, -1, -1, -1, b.JOINT_FIXED, [0, 0, 0], [0, 0, 0], [x, y, z])
        joint = ball(0.062)
        self.joints = [self._body(joint, cover) for _ in range(3)]
        self.links = [
            self._body(lathe_mesh([(0, length), (0.045, length), (0.058, 0.0), (0, 0.0)]), cover)
            for length in (UPPER_ARM_M, FOREARM_M)
        ]

    def step(self, tick: int) -> None:
        """Move on by one step of physics, the hand towards its place at `tick` (steps since frame 0)."""
        b = self.bullet
        x, y, z, yaw = hand_at(self.scene.hand_path, tick / (self.scene.steps_per_frame * max(self.frames - 1, 1)))
        b.changeConstraint(self.grip, [x, y, z], b.getQuaternionFromEuler([0, 0, yaw]), maxForce=400)
        b.stepSimulation()
        position, turn = b.getBasePositionAndOrientation(self.hand)
        wrist = np.array(b.multiplyTransforms(position, turn, [0, 0, WRIST_Z_M], [0, 0, 0, 1])[0])
        shoulder = np.array(self.scene.shoulder)
        elbow = elbow_of(shoulder, wrist)
        for joint, place in zip(self.joints, (shoulder, elbow, wrist), strict=True):
            b.resetBasePositionAndOrientation(joint, place.tolist(), [0, 0, 0, 1])
        for link, start, end in zip(self.links, (shoulder, elbow), (elbow, wrist), strict=True):
            turn = quaternion_of_axis((end - start) / np.linalg.norm(end - start))
            b.resetBasePositionAndOrientation(link, start.tolist(), turn)

    def look(self, camera: Pinhole) -> View:
        b = self.bullet
        view, projection = camera.gl_matrices()
        light = np.array(self.scene.light)
        _, _, rgba, depth, bodies = b.getCameraImage(
            camera.width,
            camera.height,
            view,
            projection,
            lightDirection=(light / np.linalg.norm(light)).tolist(),
            lightColor=[1, 0.98, 0.94],
            lightDistance=4,
            lightAmbientCoeff=0.62,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.06,
            shadow=0,
            renderer=b.ER_TINY_RENDERER,
        )
        shape = (camera.height, camera.width)
        bodies = np.asarray(bodies, dtype=np.int32).reshape(shape)
        buffer = np.asarray(depth, dtype=np.float64).reshape(shape)
        depth_m = np.where(bodies >= 0, FAR_M * NEAR_M / (FAR_M - (FAR_M - NEAR_M) * buffer), np.inf)
        colour = np.asarray(rgba, dtype=np.uint8).reshape(*shape, 4)[..., :3]
        return View(colour, depth_m.astype(np.float32), bodies)

    def poses(self) -> tuple[Pose, ...]:
        """Where the things are, in the order of their ids."""
        return tuple(self.bullet.getBasePositionAndOrientation(body) for body in self.instance_of_body)

    def labels(self, bodies: NDArray[np.int32]) -> Picture:
        """Instance ids of body ids: 0 for all that is no object."""
        lookup = np.zeros(int(max(bodies.max(), *self.instance_of_body)) + 2, dtype=np.uint8)
        for body, instance_id in self.instance_of_body.items():
            lookup[body] = instance_id
        return lookup[bodies]  # -1, nothing, reads the last entry, which is 0

    def robot_mask(self, bodies: NDArray[np.int32]) -> Picture:
        """255 where the robot is seen, else 0."""
        return np.where(np.isin(bodies, self.robot), np.uint8(255), np.uint8(0))


# The renderer's own shadows miss the table, so the light gets a depth map of its own and each pixel asks it.
SHADOW_BIAS_M = 0.006
LIGHT_RADIUS = 5.0 / 1024  # of the map's width: how soft the edge of a shadow is


def shadow_share(points: Floats, light: Pinhole, light_depth_m: Floats, rng: Rng) -> Floats:
    """Share (H, W) of the light that does not reach the points (H, W, 3), from two random taps for each.

    Few taps are enough, since the picture is rendered larger and averaged afterwards.
    """
    shape = points.shape[:2]
    local = (points - light.eye.astype(np.float32)) @ light.rotation.astype(np.float32)
    z = local[..., 2]
    with np.errstate(invalid="ignore"):  # points at infinity, where there is nothing
        u = light.focal_px * local[..., 0] / z + light.width / 2
        v = light.focal_px * local[..., 1] / z + light.height / 2
        is_lit_area = (u >= 0) & (v >= 0) & (u < light.width) & (v < light.height)
    u, v = np.where(is_lit_area, u, 0), np.where(is_lit_area, v, 0)
    angle = rng.random(shape, dtype=np.float32) * np.float32(2 * np.pi)
    reach = np.sqrt(rng.random(shape, dtype=np.float32)) * np.float32(LIGHT_RADIUS * light.width)
    shift_u, shift_v = reach * np.cos(angle), reach * np.sin(angle)
    share = np.zeros(shape, dtype=np.float32)
    for sign in (1, -1):
        column = np.clip(u + sign * shift_u, 0, light.width - 1).astype(np.int32)
        row = np.clip(v + sign * shift_v, 0, light.height - 1).astype(np.int32)
        share += light_depth_m[row, column] < z - SHADOW_BIAS_M
    return np.where(is_lit_area, share / 2, np.float32(0))


@dataclass(frozen=True)
class Frame:
    image: Picture  # (H, W, 3)
    labels: Picture  # (H, W)
    depth_mm: NDArray[np.uint16]  # (H, W)
    camera: Pinhole
    poses: tuple[Pose, ...]  # of the things, in the order of their ids
    robot: Picture  # (H, W), 0 or 255


def render(
    scene: Scene,
    frames: int,
    fps: int,
    width: int,
    height: int,
    supersample: int,
    world_of: Callable[..., World] = World,
) -> Iterator[Frame]:
    """The frames of a scene, one after the other.

    Colour is the mean of `supersample`**2 samples of each pixel at each of the scene's `exposure_steps`. Labels and
    depth are the one sample at the pixel's centre in the middle of the exposure, so they are never a mixture; that
    is why `supersample` has to be odd.
    """
    bullet = load_bullet()
    client = bullet.connect(bullet.DIRECT)
    try:
        with tempfile.TemporaryDirectory() as folder:
            world = world_of(scene=scene, fps=fps, frames=frames, bullet=bullet, folder=Path(folder))
            for index in range(frames):
                yield _render_frame(world, index, width, height, supersample)
    finally:
        bullet.disconnect(client)


def _render_frame(world: World, index: int, width: int, height: int, supersample: int) -> Frame:
    scene = world.scene
    steps = scene.steps_per_frame
    rng = np.random.default_rng((scene.seed, index))
    size = scene.light_map_px
    light = Pinhole.looking(np.array(scene.light), np.array([0.0, 0.05, 0.0]), 36.0, size, size)
    light_depth_m: Floats | None = None
    total = np.zeros((height, width, 3))
    middle: tuple[View, Pinhole] | None = None
    poses: tuple[Pose, ...] = ()
    first = index * steps + scene.exposure_steps[0]
    for tick in range(max(first - steps + len(scene.exposure_steps), 0), first):
        world.step(tick)
    for offset in scene.exposure_steps:
        tick = index * steps + offset
        world.step(max(tick, 0))
        if light_depth_m is None:  # once for the exposure: in 1/240 s a shadow hardly moves
            light_depth_m = world.look(light).depth_m
        progress = tick / (steps * max(world.frames - 1, 1))
        eye, target = scene.camera.eye_and_target(progress, tick / (steps * world.fps))
        camera = Pinhole.looking(eye, target, scene.camera.vertical_fov_deg, width, height)
        fine = camera.scaled(supersample)
        view = world.look(fine)
        shade = 1 - scene.shadow * shadow_share(fine.points(view.depth_m), light, light_depth_m, rng)
        colour = view.colour * shade[..., None]
        total += colour.reshape(height, supersample, width, supersample, 3).mean(axis=(1, 3))
        if offset == 0:
            middle, poses = (view, camera), world.poses()
    assert middle is not None  # scene.exposure_steps holds 0
    view, camera = middle
    centre = slice(supersample // 2, None, supersample)
    depth_mm = np.nan_to_num(view.depth_m[centre, centre] * 1000, posinf=0.0).round().astype(np.uint16)
    image = sensor(total / len(scene.exposure_steps), rng)
    bodies = view.bodies[centre, centre]
    return Frame(image, world.labels(bodies), depth_mm, camera, poses, world.robot_mask(bodies))


def sensor(colour: Array, rng: Rng) -> Picture:
    """What a cheap camera adds: a soft lens, darker corners and noise that is mostly grey."""
    height, width = colour.shape[:2]
    wide = np.pad(colour, ((1, 1), (0, 0), (0, 0)), mode="edge")
    colour = (wide[:-2] + 4 * colour + wide[2:]) / 6
    wide = np.pad(colour, ((0, 0), (1, 1), (0, 0)), mode="edge")
    colour = (wide[:, :-2] + 4 * colour + wide[:, 2:]) / 6
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    colour = colour * (1.04 - 0.10 * (x * x + y * y))[..., None]
    noise = 1.0 * rng.standard_normal((height, width, 1)) + 0.4 * rng.standard_normal((height, width, 3))
    return np.clip(colour + noise, 0, 255).round().astype(np.uint8)


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------


def davis_palette() -> list[int]:
    """The 256 colours of the DAVIS (and PASCAL VOC) masks, flat: the bits of the id, dealt to r, g, b."""
    palette: list[int] = []
    for value in range(256):
        for channel in range(3):
            bits = [(value >> (3 * i + channel)) & 1 for i in range(3)]
            palette.append(sum(bit << (7 - i) for i, bit in enumerate(bits)))
    return palette


def write_frame(
    frame: Frame, out: Path, name: str, index: int, quality: int, with_depth: bool = False, with_robot: bool = False
) -> None:
    Image.fromarray(frame.image).save(
        out / "JPEGImages" / name / f"{index:05d}.jpg", quality=quality, optimize=True, subsampling="4:2:0"
    )
    mask = Image.fromarray(frame.labels, mode="P")
    mask.putpalette(davis_palette())
    mask.save(out / "Annotations" / name / f"{index:05d}.png", optimize=True)
    if with_depth:
        Image.fromarray(frame.depth_mm).save(out / "Depth" / name / f"{index:05d}.png")
    if with_robot:
        Image.fromarray(frame.robot).save(out / "Robot" / name / f"{index:05d}.png", optimize=True)


def write_cameras(scene: Scene, cameras: Sequence[Pinhole], fps: int, path: Path) -> None:
    """One line for each frame, so that the file can be read by people too."""
    first = cameras[0]
    head = {
        "fps": fps,
        "width": first.width,
        "height": first.height,
        "instances": {str(i): thing.name for i, thing in enumerate(scene.things, start=1)},
        "intrinsics": {
            "fx": round(first.focal_px, 4),
            "fy": round(first.focal_px, 4),
            "cx": first.width / 2,
            "cy": first.height / 2,
        },
        "convention": "pixel (row v, column u) covers [u, u+1) x [v, v+1); camera_to_world is 3 x 4 by rows, "
        "in metres; camera axes x right, y down, z forward; world z up, origin on the table",
    }
    lines = []
    for camera in cameras:
        pose = np.column_stack([camera.rotation, camera.eye]).round(6)
        lines.append(json.dumps(pose.ravel().tolist()))
    poses = ",\n    ".join(lines)
    text = json.dumps(head, indent=2).removesuffix("\n}")
    path.write_text(f'{text},\n  "camera_to_world": [\n    {poses}\n  ]\n}}\n', encoding="ascii")


# --------------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------------


def load_bullet() -> Any:
    try:
        return importlib.import_module("pybullet")
    except ImportError:
        raise SystemExit("render_tabletop: PyBullet is missing: pip install 'maskrnn_ros[render]'") from None


def image_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise argparse.ArgumentTypeError(f"expected WxH, e.g. 640x360, got {text!r}")
    return int(width), int(height)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--scene", type=int, default=0, metavar="SEED", help="0: the demo clip; else a random scene")
    parser.add_argument("--name", help="of the sequence (default: tabletop, or tabletop-SEED)")
    parser.add_argument("--frames", type=int, default=96, metavar="N")
    parser.add_argument("--fps", type=int, default=24)
    parser.add_argument("--size", type=image_size, default=(640, 360), metavar="WxH")
    parser.add_argument("--objects", type=int, default=4, metavar="N", help="of a random scene")
    parser.add_argument("--depth", action="store_true", help="write depth too, 16-bit PNG in millimetres")
    parser.add_argument("--robot", action="store_true", help="write masks of the robot too, 8-bit PNG of 0 and 255")
    parser.add_argument("--supersample", type=int, default=3, metavar="K", help="K x K samples a pixel, K odd")
    parser.add_argument("--quality", type=int, default=80, help="of the JPEG files")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1 or arguments.fps < 1 or arguments.scene < 0:
        parser.error("--frames and --fps must be >= 1, --scene >= 0")
    if arguments.supersample < 1 or arguments.supersample % 2 == 0:
        parser.error(f"--supersample must be odd, got {arguments.supersample}")
    if not 1 <= arguments.objects <= MAX_OBJECTS:
        parser.error(f"--objects must be in 1..{MAX_OBJECTS}, got {arguments.objects}")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    load_bullet()
    number: int = arguments.scene
    scene = choreographed_scene() if number == 0 else random_scene(number, arguments.objects)
    name: str = arguments.name or ("tabletop" if number == 0 else f"tabletop-{number}")
    out: Path = arguments.out
    more = [kind for kind, wanted in (("Depth", arguments.depth), ("Robot", arguments.robot)) if wanted]
    for kind in ("JPEGImages", "Annotations", *more):
        (out / kind / name).mkdir(parents=True, exist_ok=True)
    width, height = arguments.size
    cameras: list[Pinhole] = []
    for frame in render(scene, arguments.frames, arguments.fps, width, height, arguments.supersample):
        write_frame(frame, out, name, len(cameras), arguments.quality, arguments.depth, arguments.robot)
        cameras.append(frame.camera)
    write_cameras(scene, cameras, arguments.fps, out / "camera.json")


if __name__ == "__main__":
    main()
