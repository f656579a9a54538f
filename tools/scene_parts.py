# SPDX-License-Identifier: Apache-2.0
"""Textures and meshes of the training scenes (`render_training_scenes.py`), beside those of the demo clip.

Every texture is made here. `MESH_FILES` are the meshes that are not, from PyBullet's data.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from render_tabletop import (
    Array,
    Colour,
    Mesh,
    Picture,
    Rng,
    flat_mesh,
    grid_triangles,
    lathe_mesh,
    merged,
    value_noise,
    wear,
)

SIZE = 256  # of a texture
LETTERS = list("ABCDEFGHKLMNPRSTVXYZ0123456789")

# --------------------------------------------------------------------------------------------------
# Textures
# --------------------------------------------------------------------------------------------------


def colour(rng: Rng, low: float = 15, high: float = 245) -> Colour:
    """Any colour: most of them muted, as most things are, some grey, a few strong."""
    spread = float(rng.choice([4.0, 28.0, 60.0, 110.0], p=[0.15, 0.4, 0.3, 0.15]))
    value = np.clip(rng.uniform(low, high) + rng.uniform(-spread, spread, 3), low, high)
    return int(value[0]), int(value[1]), int(value[2])


def tones(rng: Rng, count: int) -> Array:
    return np.array([colour(rng) for _ in range(count)], dtype=np.float64)


def _mixed(share: Array, palette: Array) -> Array:
    """Colours (H, W, 3) by linear steps through the palette, `share` in 0..1."""
    place = np.clip(share, 0, 1) * (len(palette) - 1)
    low = np.minimum(place.astype(int), len(palette) - 2)
    return np.asarray(palette[low] + (place - low)[..., None] * (palette[low + 1] - palette[low]))


def plain(rng: Rng) -> Array:
    return np.full((SIZE, SIZE, 3), colour(rng), dtype=np.float64)


def marble(rng: Rng) -> Array:
    bend = value_noise(rng, (SIZE, SIZE), (4, 4), 5)
    rows = np.mgrid[0:SIZE, 0:SIZE][0] / SIZE
    return _mixed(0.5 + 0.5 * np.sin(2 * np.pi * (2 * rows + 2.5 * bend)), tones(rng, 3))


def blotches(rng: Rng) -> Array:
    cells = int(rng.integers(3, 9))
    palette = tones(rng, int(rng.integers(2, 5)))
    level = value_noise(rng, (SIZE, SIZE), (cells, cells), 3) * 0.8 + 0.5
    return np.asarray(palette[np.clip(level * len(palette), 0, len(palette) - 1).astype(int)])


def many_stripes(rng: Rng) -> Array:
    palette = tones(rng, int(rng.integers(3, 6)))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    turns, slant = int(rng.integers(0, 4)), int(rng.integers(1, 4))
    edges = np.sort(rng.random(len(palette) - 1))
    return np.asarray(palette[np.searchsorted(edges, (turns * columns + slant * rows) % 1.0)])


def plaid(rng: Rng) -> Array:
    base, first, second = tones(rng, 3)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE * int(rng.integers(2, 6))
    picture = np.tile(base, (SIZE, SIZE, 1))
    width = rng.uniform(0.15, 0.45)
    picture[rows % 1 < width] = 0.5 * picture[rows % 1 < width] + 0.5 * first
    picture[columns % 1 < width] = 0.5 * picture[columns % 1 < width] + 0.5 * second
    return picture


def label(rng: Rng) -> Array:
    """Paper with a printed field, lines of text in three sizes and an emblem."""
    paper, ink, field = colour(rng, 120, 250), colour(rng, 0, 110), colour(rng)
    canvas = Image.new("RGB", (SIZE, SIZE), paper)
    draw = ImageDraw.Draw(canvas)
    top = int(rng.integers(20, 120))
    draw.rectangle((0, top, SIZE, top + int(rng.integers(40, 110))), fill=field)
    for size, x, y in zip((64, 28, 16, 16), rng.integers(0, 90, 4), rng.integers(0, 220, 4), strict=True):
        text = "".join(rng.choice(LETTERS, int(rng.integers(3, 9))))
        draw.text((int(x), int(y)), text, fill=ink, font=ImageFont.load_default(size))
    x, y, r = (int(v) for v in rng.integers((40, 40, 14), (216, 216, 44)))
    draw.regular_polygon((x, y, r), int(rng.integers(3, 9)), fill=colour(rng), outline=ink)
    return np.asarray(canvas, dtype=np.float64)


def speckle(rng: Rng) -> Array:
    canvas = Image.new("RGB", (SIZE, SIZE), colour(rng, 90, 235))
    draw = ImageDraw.Draw(canvas)
    for x, y, r in rng.uniform((0, 0, 1.5), (SIZE, SIZE, 7), (260, 3)):
        draw.regular_polygon((x, y, r), int(rng.integers(3, 7)), rotation=int(360 * rng.random()), fill=colour(rng))
    return np.asarray(canvas, dtype=np.float64)


def bricks(rng: Rng) -> Array:
    """Long tiles in bond, a tone of its own for each, light joints."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    course = rows // 32
    tile = ((columns + 32 * (course % 2)) % SIZE) // 64
    shade = rng.uniform(0.7, 1.15, (8, 4))[course, tile]
    picture = np.asarray(colour(rng, 60, 220), dtype=np.float64) * shade[..., None]
    joint = (rows % 32 < 3) | ((columns + 32 * (course % 2)) % 64 < 3)
    picture[joint] = rng.uniform(110, 200)
    return picture


def planks(rng: Rng) -> Array:
    """Narrow boards along the height, with streaks; any colour of paint or stain."""
    columns = np.mgrid[0:SIZE, 0:SIZE][1] / SIZE * int(rng.integers(5, 10))
    streaks = value_noise(rng, (SIZE, SIZE), (4, 60), 3)
    tone = rng.uniform(-0.15, 0.15, 11)[columns.astype(int)]
    joint = np.exp(-(((columns - np.round(columns)) / 0.03) ** 2))
    return np.asarray(colour(rng, 60, 210) * (1 + tone + 0.14 * streaks - 0.5 * joint)[..., None])


def zigzag(rng: Rng) -> Array:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    count = int(rng.integers(2, 6))
    wave = np.abs((columns * count) % 1 - 0.5)
    return np.asarray(tones(rng, 3)[((rows * count + wave) % 1 * 3).astype(int)])


def rings(rng: Rng) -> Array:
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return np.asarray(tones(rng, 2)[(np.hypot(x, y) * rng.uniform(3, 7)).astype(int) % 2])


def letters(rng: Rng) -> Array:
    canvas = Image.new("RGB", (SIZE, SIZE), colour(rng, 100, 250))
    draw = ImageDraw.Draw(canvas)
    for x, y in rng.integers(-10, SIZE - 20, (34, 2)):
        draw.text((int(x), int(y)), str(rng.choice(LETTERS)), fill=colour(rng, 0, 140), font=ImageFont.load_default(36))
    return np.asarray(canvas, dtype=np.float64)


Style = Callable[[Rng], Array]
STYLES: dict[str, tuple[Style, ...]] = {
    "train": (plain, marble, blotches, many_stripes, plaid, label, label),
    "held": (plain, zigzag, rings, letters, letters),
}
GROUNDS: dict[str, tuple[Style, ...]] = {
    "train": (planks, marble, blotches, plaid, speckle, plain),
    "held": (bricks, zigzag, planks),
}


def texture(rng: Rng, styles: Sequence[Style], strength: float = 1.0) -> Picture:
    """A picture in one of the styles; `strength` < 1 takes contrast away, as grounds need it."""
    picture = styles[int(rng.integers(len(styles)))](rng)
    picture = picture.mean(axis=(0, 1)) * (1 - strength) + picture * strength
    return wear(rng, np.clip(picture, 0, 255).astype(np.uint8))


def tiling(picture: Picture) -> Picture:
    """The picture and its mirror images, so that it repeats without a seam."""
    wide = np.concatenate([picture, picture[:, ::-1]], axis=1)
    return np.concatenate([wide, wide[::-1]])


# --------------------------------------------------------------------------------------------------
# Meshes: parts, each with uv in 0..1
# --------------------------------------------------------------------------------------------------


def turned(mesh: Mesh, axis: Sequence[float], up: Sequence[float] = (0, 0, 1)) -> Mesh:
    """The mesh with its z axis brought to `axis`."""
    z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    helper = np.asarray(up, dtype=np.float64) if abs(np.dot(up, z)) < 0.95 else np.array([1.0, 0, 0])
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    return Mesh(mesh.vertices @ rotation, mesh.normals @ rotation, mesh.uv, mesh.triangles)


def capsule(start: Sequence[float], end: Sequence[float], radius: float, end_radius: float | None = None) -> Mesh:
    """A round rod between two points, with half balls at both ends."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    r0, r1 = radius, end_radius or radius
    length = float(np.linalg.norm(b - a))
    arc = np.linspace(0, np.pi / 2, 5)
    profile = [(r1 * math.sin(t), length + r1 * math.cos(t)) for t in arc]
    profile += [(r0 * math.cos(t), -r0 * math.sin(t)) for t in arc]
    return turned(lathe_mesh(profile, sides=16, smooth=True), b - a).moved(a.tolist())


def chain(points: Array, radius: float, end_radius: float | None = None) -> Mesh:
    """Capsules along a line, thinner towards the end."""
    radii = np.linspace(radius, end_radius or radius, len(points))
    steps = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    return merged([capsule(a, b, float(r), float(s)) for a, b, r, s in steps])


def extruded(outline: Array, height: float) -> Mesh:
    """A plate of an outline (N, 2) that is star-shaped around the origin, counter-clockwise."""
    closed = np.concatenate([outline, outline[:1]])
    reach = float(np.abs(outline).max())
    caps = []
    for z, side in ((height / 2, 1), (-height / 2, -1)):
        grid = np.stack([np.zeros_like(closed), closed])[:, ::side]
        points = np.concatenate([grid, np.full((*grid.shape[:2], 1), z)], axis=2)
        caps.append(flat_mesh(points, grid / (2 * reach) + 0.5, np.array([0, 0, side])))
    walls = []
    for a, b, u in zip(closed[:-1], closed[1:], np.linspace(0, 0.9, len(outline)), strict=True):
        points = np.array([[[*a, height / 2], [*b, height / 2]], [[*a, -height / 2], [*b, -height / 2]]])
        uv = np.array([[[u, 0], [u + 0.1, 0]], [[u, 1], [u + 0.1, 1]]])
        walls.append(flat_mesh(points, uv, np.array([b[1] - a[1], a[0] - b[0], 0]) / np.linalg.norm(b - a)))
    return merged([*caps, *walls])


def torus(radius: float, tube: float, share: float = 1.0) -> Mesh:
    """A ring around z, or a piece of it."""
    around, about = np.meshgrid(np.linspace(0, 2 * np.pi * share, 33), np.linspace(0, 2 * np.pi, 13))
    normals = np.stack([np.cos(about) * np.cos(around), np.cos(about) * np.sin(around), np.sin(about)], axis=-1)
    centre = radius * np.stack([np.cos(around), np.sin(around), 0 * around], axis=-1)
    uv = np.stack([around / (2 * np.pi), about / (2 * np.pi)], axis=-1)
    points = (centre + tube * normals).reshape(-1, 3)
    return Mesh(points, normals.reshape(-1, 3), uv.reshape(-1, 2), grid_triangles(13, 33)[:, ::-1])


@dataclass(frozen=True)
class MeshFile:
    """A mesh of PyBullet's data."""

    path: str
    y_up: bool = False


# None says its own terms clearly enough (tools/README.md), so `--permissive` takes none of them.
MESH_FILES: dict[str, tuple[MeshFile, ...]] = {
    "train": (
        MeshFile("duck.obj", y_up=True),  # SCEA Shared Source License 1.0
        MeshFile("teddy2_VHACD_CHs.obj", y_up=True),
        MeshFile("objects/mug.obj"),
        MeshFile("lego/lego.obj"),
        MeshFile("toys/concave_box.obj"),
        MeshFile("toys/shape_sorter.obj"),
        *(MeshFile(f"random_urdfs/{n:03d}/{n:03d}.obj") for n in range(0, 900, 9)),
    ),
    "held": (
        MeshFile("bunny.obj", y_up=True),
        *(MeshFile(f"random_urdfs/{n:03d}/{n:03d}.obj") for n in range(900, 1000, 9)),
    ),
}


def read_mesh(file: MeshFile, longest_m: float) -> Mesh:
    """A mesh file centred at the origin; its texture is laid on from the six sides of its box."""
    folder = Path(importlib.import_module("pybullet_data").getDataPath())
    points, faces = [], []
    for line in (folder / file.path).read_text(encoding="ascii", errors="replace").splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            points.append([float(v) for v in values[:3]])
        elif kind == "f":
            ring = [int(v.partition("/")[0]) - 1 for v in values]
            faces += [(ring[0], ring[i], ring[i + 1]) for i in range(1, len(ring) - 1)]
    vertices, triangles = np.array(points), np.array(faces)
    if file.y_up:
        vertices = vertices[:, [0, 2, 1]] * (1, -1, 1)
    used = vertices[np.unique(triangles)]
    vertices = (vertices - (used.min(0) + used.max(0)) / 2) * (longest_m / float(np.ptp(used, axis=0).max()))
    corners = vertices[triangles]  # (T, 3, 3)
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(total, triangles[:, i], face)
    unit = face / np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-12)
    smooth = (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))[triangles]
    is_sharp = (smooth * unit[:, None]).sum(axis=2, keepdims=True) < 0.6
    normals = np.where(is_sharp, unit[:, None], smooth)
    kept = np.array([(1, 2), (0, 2), (0, 1)])[np.abs(unit).argmax(axis=1)]
    uv = np.take_along_axis(corners, kept[:, None].repeat(3, axis=1), axis=2) / longest_m + 0.5
    size = 3 * len(triangles)
    return Mesh(corners.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2), np.arange(size).reshape(-1, 3))
