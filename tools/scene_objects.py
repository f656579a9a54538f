# SPDX-License-Identifier: Apache-2.0
"""The kinds of objects in the training scenes: `train` and `held` share no shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from render_tabletop import Mesh, Picture, Rng, ball, box_mesh, lathe_mesh, merged, prism
from scene_parts import (
    MESH_FILES,
    STYLES,
    capsule,
    chain,
    extruded,
    plain,
    read_mesh,
    texture,
    torus,
    turned,
)

Shape = list[Mesh]  # parts of an object; each gets a texture of its own
Maker = Callable[[Rng], Shape]


def centred(parts: Shape) -> Shape:
    points = np.concatenate([part.vertices for part in parts])
    middle = (points.min(0) + points.max(0)) / 2
    return [part.moved((-middle).tolist()) for part in parts]


def box(rng: Rng) -> Shape:
    return [box_mesh(rng.uniform((0.05, 0.03, 0.04), (0.15, 0.11, 0.18)).tolist(), atlas=False)]


def flat_box(rng: Rng) -> Shape:
    """A book or a tile."""
    return [box_mesh(rng.uniform((0.10, 0.08, 0.015), (0.20, 0.15, 0.04)).tolist(), atlas=False)]


def tin(rng: Rng) -> Shape:
    """Low and wide, with a lid that stands over."""
    r, h = float(rng.uniform(0.04, 0.065)), float(rng.uniform(0.03, 0.09))
    body = lathe_mesh([(0, h), (r, h), (r, 0), (0, 0)])
    lid = lathe_mesh([(0, h + 0.014), (r, h + 0.014), (r + 0.004, h + 0.01), (r + 0.004, h - 0.004), (r, h - 0.004)])
    return [body, lid]


def jar(rng: Rng) -> Shape:
    r, h = float(rng.uniform(0.03, 0.05)), float(rng.uniform(0.08, 0.15))
    body = lathe_mesh([(0.7 * r, h), (0.72 * r, 0.86 * h), (r, 0.72 * h), (r, 0.08 * h), (0.85 * r, 0), (0, 0)])
    lid = lathe_mesh([(0, h + 0.02), (0.78 * r, h + 0.02), (0.8 * r, h - 0.005), (0, h - 0.005)])
    return [body, lid]


def flask(rng: Rng) -> Shape:
    """A bulb with a thin neck and a stopper."""
    r, h = float(rng.uniform(0.035, 0.05)), float(rng.uniform(0.12, 0.2))
    angle = np.linspace(0.35, np.pi - 0.6, 14)
    bulb = [(r * math.sin(a), r + r * math.cos(a) * 0.95) for a in angle]
    body = lathe_mesh([(0.3 * r, h), (0.3 * r, 1.95 * r), *bulb, (0, 0.15 * r)], smooth=False)
    return [body, capsule((0, 0, h), (0, 0, h + 0.015), 0.36 * r)]


def spray(rng: Rng) -> Shape:
    r, h = float(rng.uniform(0.028, 0.04)), float(rng.uniform(0.12, 0.17))
    body = lathe_mesh([(0.4 * r, h), (0.5 * r, 0.85 * h), (r, 0.65 * h), (0.8 * r, 0.35 * h), (r, 0), (0, 0)])
    head = box_mesh((2.4 * r, 0.9 * r, 0.03)).moved((0.5 * r, 0, h + 0.012))
    return [body, merged([head, capsule((r, 0, h), (0.8 * r, 0, h - 0.035), 0.005)])]


def bowl(rng: Rng) -> Shape:
    r, h = float(rng.uniform(0.06, 0.09)), float(rng.uniform(0.04, 0.07))
    t = np.linspace(0.15, np.pi / 2, 9)
    outer = [(r * math.sin(a), h - h * math.cos(a)) for a in t[::-1]]
    inner = [((r - 0.006) * math.sin(a), h - (h - 0.006) * math.cos(a)) for a in t]
    return [lathe_mesh([(0, 0.007), *inner, *outer, (0, 0)], smooth=False)]


def mug(rng: Rng) -> Shape:
    r, h = float(rng.uniform(0.032, 0.045)), float(rng.uniform(0.07, 0.11))
    body = lathe_mesh([(0, 0.01), (r - 0.004, 0.01), (r - 0.004, h), (r, h), (r, 0), (0, 0)])
    return [body, turned(torus(0.3 * h, 0.006), (0, 1, 0)).moved((r, 0, h / 2))]


def vase(rng: Rng) -> Shape:
    h, r = float(rng.uniform(0.12, 0.2)), float(rng.uniform(0.03, 0.045))
    a, b = rng.uniform(0, 6.28), rng.uniform(4, 7)
    z = np.linspace(1, 0, 18)
    radius = r * (0.75 + 0.3 * np.sin(a + b * z))
    return [lathe_mesh([(0, 0.97 * h), (0.8 * radius[0], h), *zip(radius, h * z, strict=True), (0, 0)])]


def donut(rng: Rng) -> Shape:
    radius = float(rng.uniform(0.035, 0.06))
    return [torus(radius, radius * float(rng.uniform(0.3, 0.55)))]


def star(rng: Rng) -> Shape:
    points, r = int(rng.integers(4, 8)), float(rng.uniform(0.045, 0.065))
    angles = np.arange(2 * points) * np.pi / points
    reach = np.where(np.arange(2 * points) % 2, 0.5 * r, r)
    return [extruded(reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), float(rng.uniform(0.03, 0.06)))]


def fruit(rng: Rng) -> Shape:
    """A round body with a dent, a stalk and perhaps a long shape."""
    r, tall = float(rng.uniform(0.03, 0.045)), float(rng.uniform(0.85, 1.5))
    a = np.linspace(0, np.pi, 24)
    reach = r * (1 - 0.25 * np.exp(-((a / 0.4) ** 2))) * (1 + 0.15 * np.cos(2 * a) + rng.uniform(-0.2, 0.2) * np.cos(a))
    body = lathe_mesh(list(zip(reach * np.sin(a), tall * reach * np.cos(a), strict=True)), smooth=True)
    top = tall * reach[0]
    return [body, capsule((0, 0, top - 0.005), (0.006, 0, top + 0.018), 0.0035)]


def banana(rng: Rng) -> Shape:
    t = np.linspace(-0.9, 0.9, 9)
    r = float(rng.uniform(0.06, 0.1))
    line = np.stack([r * np.sin(t), r * np.cos(t), 0.018 + 0 * t], axis=1)
    tube = float(rng.uniform(0.014, 0.02))
    return [chain(line, tube, 0.6 * tube), capsule(line[-1], line[-1] + (line[-1] - line[-2]) * 0.8, 0.4 * tube)]


def mushroom(rng: Rng) -> Shape:
    r, h = float(rng.uniform(0.035, 0.05)), float(rng.uniform(0.05, 0.09))
    t = np.linspace(0, np.pi / 2, 9)
    cap = lathe_mesh([*((r * math.sin(a), h + 0.8 * r * math.cos(a)) for a in t), (0, h - 0.005)])
    return [lathe_mesh([(0.4 * r, h), (0.35 * r, 0.5 * h), (0.6 * r, 0), (0, 0)]), cap]


def snowman(rng: Rng) -> Shape:
    r = float(rng.uniform(0.035, 0.045))
    hat = lathe_mesh([(0, 0.05), (0.6 * r, 0.05), (0.6 * r, 0.006), (0.95 * r, 0.006), (0.95 * r, 0), (0, 0)])
    return [ball(r).moved((0, 0, r * 0.9)), ball(0.75 * r).moved((0, 0, 2.3 * r)), hat.moved((0, 0, 2.9 * r))]


def hammer(rng: Rng) -> Shape:
    length, r = float(rng.uniform(0.14, 0.22)), float(rng.uniform(0.009, 0.014))
    handle = capsule((0, 0, 0.017), (length, 0, 0.017), r)
    head = turned(prism(0.018, float(rng.uniform(0.07, 0.1)), 8), (0, 1, 0)).moved((length, 0, 0.017))
    return [handle, head]


def car(rng: Rng) -> Shape:
    length, width = float(rng.uniform(0.1, 0.15)), float(rng.uniform(0.05, 0.07))
    body = box_mesh((length, width, 0.035)).moved((0, 0, 0.035))
    cabin = box_mesh((0.5 * length, 0.85 * width, 0.03)).moved((-0.05 * length, 0, 0.066))
    wheel = turned(lathe_mesh([(0, 0.008), (0.018, 0.008), (0.018, -0.008), (0, -0.008)]), (0, 1, 0))
    places = [(x, y, 0.018) for x in (-0.3 * length, 0.3 * length) for y in (-width / 2, width / 2)]
    return [body, cabin, merged([wheel.moved(place) for place in places])]


def house(rng: Rng) -> Shape:
    w, d, h = (float(v) for v in rng.uniform((0.06, 0.06, 0.05), (0.1, 0.09, 0.09)))
    roof = turned(prism(0.66 * d, w, 3), (1, 0, 0), up=(0, -1, 0)).moved((0, 0, h + 0.33 * d))
    return [box_mesh((w, d, h)).moved((0, 0, h / 2)), roof]


def corner(rng: Rng) -> Shape:
    """Two or three bars joined at right angles, of different colours or not."""
    a, b, t = (float(v) for v in rng.uniform((0.08, 0.06, 0.025), (0.14, 0.12, 0.04)))
    bars = [box_mesh((a, t, t)).moved((a / 2, 0, 0)), box_mesh((t, b, t)).moved((0, b / 2, 0))]
    if rng.random() < 0.5:
        bars.append(box_mesh((t, t, b)).moved((a * float(rng.uniform(0, 0.9)), 0, b / 2)))
    return bars


# Held out --------------------------------------------------------------------------------------------


def gear(rng: Rng) -> Shape:
    teeth, r = int(rng.integers(8, 14)), float(rng.uniform(0.045, 0.06))
    angles = np.arange(4 * teeth) * np.pi / (2 * teeth)
    reach = np.where(np.arange(4 * teeth) % 4 < 2, r, 0.8 * r)
    outline = reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return [extruded(outline, 0.025), prism(0.3 * r, 0.05, 6).moved((0, 0, 0.015))]


def kettle(rng: Rng) -> Shape:
    r = float(rng.uniform(0.045, 0.055))
    t = np.linspace(0.25, np.pi - 0.7, 14)
    body = lathe_mesh([(0, r), *((r * math.sin(a), r * math.cos(a)) for a in t), (0, -0.76 * r)])
    spout = capsule((0.8 * r, 0, 0), (1.6 * r, 0, 0.7 * r), 0.25 * r, 0.12 * r)
    handle = turned(torus(0.75 * r, 0.006), (0, 1, 0)).moved((-0.2 * r, 0, 0.9 * r))
    return [merged([body, spout]), handle, ball(0.2 * r).moved((0, 0, 1.05 * r))]


def bolt(rng: Rng) -> Shape:
    r, h = float(rng.uniform(0.015, 0.022)), float(rng.uniform(0.07, 0.12))
    return [prism(2.1 * r, 1.4 * r, 6).moved((0, 0, 0.7 * r)), lathe_mesh([(0, h), (r, h), (r, 0), (0, 0)])]


def cactus(rng: Rng) -> Shape:
    h, r = float(rng.uniform(0.1, 0.15)), float(rng.uniform(0.018, 0.025))
    stem = [capsule((0, 0, 0.05), (0, 0, h + 0.04), r)]
    for side in (-1, 1):
        z = 0.05 + h * float(rng.uniform(0.3, 0.6))
        stem += [capsule((0, 0, z), (side * 2.2 * r, 0, z), 0.6 * r)]
        stem += [capsule((side * 2.2 * r, 0, z), (side * 2.2 * r, 0, z + 0.035), 0.6 * r)]
    return [lathe_mesh([(0, 0.05), (0.045, 0.05), (0.032, 0), (0, 0)]), merged(stem)]


def animal(rng: Rng) -> Shape:
    length, leg = float(rng.uniform(0.07, 0.11)), float(rng.uniform(0.03, 0.05))
    body = capsule((0, 0, leg + 0.02), (length, 0, leg + 0.02), 0.024)
    legs = [capsule((x, y, 0.009), (x, y, leg + 0.01), 0.009) for x in (0, length) for y in (-0.015, 0.015)]
    neck = (length + 0.03, 0, leg + 0.06)
    head = [capsule((length, 0, leg + 0.03), neck, 0.013), capsule(neck, (length + 0.055, 0, leg + 0.055), 0.018)]
    return [merged([body, *legs]), merged(head)]


def lamp(rng: Rng) -> Shape:
    h, r = float(rng.uniform(0.1, 0.15)), float(rng.uniform(0.035, 0.05))
    shade = lathe_mesh([(0, h + 0.05), (0.5 * r, h + 0.05), (r, h), (0, h)])
    foot = lathe_mesh([(0, 0.012), (r, 0.012), (r, 0), (0, 0)])
    return [shade, merged([capsule((0, 0, 0.01), (0, 0, h), 0.006), foot])]


KINDS: dict[str, tuple[Maker, ...]] = {
    "train": (box, box, flat_box, tin, tin, jar, flask, spray, bowl, mug, vase, donut, star, fruit, fruit, banana,
              mushroom, snowman, hammer, car, house, corner),
    "held": (gear, kettle, bolt, cactus, animal, lamp),
}  # fmt: skip


def painted(rng: Rng, parts: Shape, split: str) -> tuple[Mesh, Picture]:
    """One mesh with an atlas: a texture for each part, or one for all of them."""
    count = len(parts) if rng.random() < 0.75 else 1
    pictures = [texture(rng, STYLES[split] if i == 0 else (plain, *STYLES[split][:2])) for i in range(count)]
    meshes = []
    for i, part in enumerate(parts):
        uv = part.uv.copy()
        uv[:, 0] = (0.01 + 0.98 * np.clip(uv[:, 0], 0, 1) + i % count) / count
        meshes.append(Mesh(part.vertices, part.normals, uv, part.triangles))
    atlas = np.concatenate([np.asarray(Image.fromarray(picture).resize((256, 256))) for picture in pictures], axis=1)
    return merged(meshes), atlas


def make(rng: Rng, split: str, permissive: bool) -> tuple[str, Mesh, Picture]:
    """Name, mesh and texture of a random object; its mesh is centred at the origin and may lie in any yaw."""
    files: Sequence = () if permissive else MESH_FILES[split]
    if files and rng.random() < 0.3:
        # the first few are things of their own, the rest are random blobs
        file = files[int(rng.integers(6 if rng.random() < 0.6 else len(files))) % len(files)]
        parts = [read_mesh(file, float(rng.uniform(0.08, 0.15)))]
        name = file.path
    else:
        maker = KINDS[split][int(rng.integers(len(KINDS[split])))]
        parts, name = centred(maker(rng)), maker.__name__
    mesh, picture = painted(rng, parts, split)
    return name, mesh, picture
