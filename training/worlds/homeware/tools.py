"""Tools and desk things of several parts and colors; most of them lie.

A function is a family: from a random generator to an object that stands on z = 0; lengths in meters.
"""

from __future__ import annotations

import numpy as np

from training.worlds.families import DrawnObject
from training.worlds.homeware import prints
from training.worlds.homeware.solids import Pieces, assembled, bands, block, cylinder, hull, stacked, vessel, walls
from training.worlds.homeware.surfaces import Array, Image, box, circle, lathe, loft, section, smooth, sweep
from training.worlds.textures import random_color
from wm_dynamics.mujoco.bodies import GeomDef


def _line(xs: list[float], z: float, y: float = 0.0) -> Array:
    """(P, 3) path along x at a height."""
    return np.array([[x, y, z] for x in xs])


def _grip(rng: np.random.Generator) -> Image:
    """Wood, rubber, or colored plastic."""
    kind = rng.uniform()
    if kind < 0.3:
        return prints.timber(rng)
    return prints.plain(np.full(3, rng.uniform(0.04, 0.2)) if kind < 0.5 else prints.saturated(rng), rng)


def _bar(
    path: Array, radii: Array | float | tuple[float, float], image: Image, sides: int = 10
) -> tuple[Pieces, Array]:
    rings = sweep(path, radii, sides)
    return [(loft(rings, True, True), image)], rings


def hammer(rng: np.random.Generator) -> DrawnObject:
    """A hammer: a grip, a shaft, and a steel head with a face and a claw."""
    length, r = rng.uniform(0.2, 0.34), rng.uniform(0.010, 0.016)
    head, hr = rng.uniform(0.08, 0.13), rng.uniform(0.012, 0.017)
    z = hr + 0.001
    shaft = sweep(
        _line([-0.5 * length, -0.48 * length, -0.1 * length, 0.0, 0.5 * length], z),
        np.column_stack([[0.8 * r, r, r, 0.75 * r, 0.7 * r], [0.6 * r, 0.8 * r, 0.8 * r, 0.6 * r, 0.6 * r]]),
    )
    pieces = stacked(shaft, [2], [_grip(rng), prints.steel(rng) if rng.uniform() < 0.4 else _grip(rng)])
    x = 0.5 * length
    path = np.array([[x, -0.45 * head, z], [x, -0.2 * head, z], [x, 0.15 * head, z], [x - 0.012, 0.55 * head, z]])
    iron = prints.steel(rng) if rng.uniform() < 0.7 else prints.plain(np.full(3, 0.12), rng)
    more, top = _bar(path, np.column_stack([[hr, 0.85 * hr, hr, 0.7 * hr], [hr, 0.85 * hr, hr, 0.35 * hr]]), iron, 12)
    return assembled(pieces + more, [*bands(shaft, [0, 2, 4]), *bands(top, [0, 2, 3])], "tool", 0.35)


def mallet(rng: np.random.Generator) -> DrawnObject:
    """A mallet with a thick head of rubber or wood with end faces of another color."""
    length, r = rng.uniform(0.2, 0.33), rng.uniform(0.010, 0.015)
    head, hr = rng.uniform(0.07, 0.12), rng.uniform(0.022, 0.038)
    shaft = sweep(_line([-0.5 * length, -0.1 * length, 0.5 * length], hr), r)
    pieces = stacked(shaft, [1], [_grip(rng), _grip(rng)])
    x, half = 0.5 * length, 0.5 * head
    path = np.array([[x, y, hr] for y in (-half, -0.6 * half, 0.6 * half, half)])
    rings = sweep(path, hr, 16)
    end = _grip(rng)
    pieces += stacked(rings, [1, 2], [end, _grip(rng), end])
    return assembled(pieces, [*bands(shaft, [0, 2]), *bands(rings, [0, 3])], "tool", 0.3)


def screwdriver(rng: np.random.Generator) -> DrawnObject:
    """A screwdriver: a grip of one or two colors, a shaft, a flat tip."""
    d, grip, shaft = rng.uniform(0.012, 0.019), rng.uniform(0.07, 0.12), rng.uniform(0.06, 0.16)
    radii = d * np.array([0.7, 1.0, 0.85, 1.0, 0.95, 0.5])
    path = _line(list(np.linspace(-grip, 0.0, 6)), d)
    rings = sweep(path, radii, 12)
    pieces = (
        stacked(rings, [2, 4], [_grip(rng), _grip(rng), _grip(rng)])
        if rng.uniform() < 0.6
        else stacked(rings, [], [_grip(rng)])
    )
    blade = sweep(
        _line([-0.002, 0.85 * shaft, shaft], d), np.column_stack([[0.0032, 0.0032, 0.004], [0.0032, 0.0032, 0.001]]), 8
    )
    pieces.append((loft(blade, True, True), prints.steel(rng)))
    return assembled(pieces, [*bands(rings, [0, 3, 5]), *bands(blade, [0, 2])], "tool", 0.3)


def drill(rng: np.random.Generator) -> DrawnObject:
    """A cordless drill that stands on its battery: body, chuck, grip, battery, each in a color of its own."""
    first = prints.plain(prints.saturated(rng), rng)
    dark = prints.plain(np.full(3, rng.uniform(0.05, 0.18)), rng)
    base = np.array([rng.uniform(0.09, 0.13), rng.uniform(0.06, 0.08), rng.uniform(0.035, 0.055)])
    height, r = rng.uniform(0.1, 0.13), rng.uniform(0.026, 0.034)
    z = base[2] + height + r
    pieces: Pieces = [(s.moved((0.0, 0.0, 0.5 * base[2])), dark) for s in box(base, 0.008)]
    grip = sweep(
        smooth([(0.0, 0, 0.9 * base[2]), (0.012, 0, base[2] + 0.5 * height), (0.02, 0, z)], 7),
        (0.022, 0.018),
        12,
        (0, 1, 0),
    )
    pieces += stacked(grip, [2, 5], [first, dark, first])
    body = sweep(_line([0.09, 0.08, -0.02, -0.05], z), np.array([0.75 * r, r, r, 0.8 * r]), 16)
    pieces += stacked(body, [1], [dark if rng.uniform() < 0.5 else first, first])
    chuck = sweep(_line([-0.048, -0.065, -0.09, -0.1], z), r * np.array([0.7, 0.72, 0.55, 0.3]), 14)
    pieces.append((loft(chuck, True, True), dark if rng.uniform() < 0.6 else prints.steel(rng)))
    parts = [block(base, (0, 0, 0.5 * base[2])), *bands(grip, [0, 6]), *bands(body, [0, 3]), *bands(chuck, [0, 3])]
    if rng.uniform() < 0.5:
        more, bit = _bar(_line([-0.098, -0.13, -0.098 - rng.uniform(0.04, 0.09)], z), 0.003, prints.steel(rng), 6)
        pieces, parts = pieces + more, parts + bands(bit, [0, 2])
    return assembled(pieces, parts, "tool", 0.2, lies=True)


def whisk(rng: np.random.Generator) -> DrawnObject:
    """A whisk: a grip and wire loops."""
    grip, loops, wide = rng.uniform(0.1, 0.14), rng.uniform(0.12, 0.17), rng.uniform(0.024, 0.034)
    r, z = rng.uniform(0.008, 0.012), wide + 0.001
    handle = sweep(_line([-grip, -0.5 * grip, 0.0], z), np.array([0.9 * r, r, 0.8 * r]), 10)
    pieces: Pieces = [(loft(handle, True, True), prints.steel(rng) if rng.uniform() < 0.5 else _grip(rng))]
    wire = prints.steel(rng) if rng.uniform() < 0.7 else prints.plain(prints.saturated(rng), rng)
    t = np.linspace(0.0, 1.0, 13)
    x, out = loops * np.sin(np.pi * t) ** 0.8, wide * np.sin(2.0 * np.pi * t) * (0.6 + 0.4 * np.sin(np.pi * t))
    for angle in np.arange(4) * np.pi / 4.0:
        path = np.column_stack([x - 0.004, out * np.cos(angle), z + out * np.sin(angle)])
        pieces.append((loft(sweep(path, 0.0014, 6, (0, -np.sin(angle), np.cos(angle))), True, True), wire))
    shape = sweep(
        _line([0.0, 0.25 * loops, 0.6 * loops, 0.9 * loops, loops - 0.004], z),
        np.array([0.01, 0.6 * wide, wide, 0.75 * wide, 0.3 * wide]),
        12,
    )
    return assembled(pieces, [*bands(handle, [0, 2]), *bands(shape, [0, 2, 4])], "tool", 0.15)


def spatula(rng: np.random.Generator) -> DrawnObject:
    """A spatula, scraper or turner: a grip, a neck and a flat blade of its own color."""
    length, blade = rng.uniform(0.15, 0.22), rng.uniform(0.06, 0.1)
    wide, z = rng.uniform(0.02, 0.042), 0.009
    path = smooth([(-length, 0, z), (-0.4 * length, 0, z + 0.006), (0.0, 0, z + 0.002), (0.012, 0, 0.006)], 9)
    handle = sweep(path, np.column_stack([np.linspace(0.01, 0.004, 9), np.linspace(0.007, 0.003, 9)]), 10)
    pieces = stacked(handle, [5], [_grip(rng), prints.steel(rng) if rng.uniform() < 0.5 else _grip(rng)])
    flat = sweep(
        np.array([[0.008, 0, 0.006], [0.02, 0, 0.004], [blade, 0, 0.003], [blade + 0.006, 0, 0.0025]]),
        np.column_stack([[0.5 * wide, 0.95 * wide, wide, 0.8 * wide], [0.002] * 4]),
        14,
    )
    pieces.append((loft(flat, True, True), _grip(rng) if rng.uniform() < 0.6 else prints.steel(rng)))
    return assembled(pieces, [*bands(handle, [0, 4, 8]), *bands(flat, [0, 3])], "tool", 0.2)


def brush(rng: np.random.Generator) -> DrawnObject:
    """A brush: paint, dish or hair brush with bristles of another color."""
    grip, r = rng.uniform(0.1, 0.18), rng.uniform(0.007, 0.012)
    wide, deep = rng.uniform(0.015, 0.04), rng.uniform(0.02, 0.05)
    z = max(r, 0.012)
    handle = sweep(
        _line([-grip, -0.6 * grip, -0.1 * grip, 0.0], z),
        np.column_stack([[0.7 * r, r, 0.8 * r, 0.8 * wide], [0.7 * r, r, 0.8 * r, 0.8 * z]]),
        12,
    )
    ferrule = sweep(_line([-0.004, 0.01, 0.022], z), np.array([[wide, 0.85 * z]] * 3), 14)
    hair = sweep(
        _line([0.02, 0.022 + 0.5 * deep, 0.022 + deep], z),
        np.column_stack([[0.95 * wide, 1.05 * wide, 0.9 * wide], [0.8 * z, 0.85 * z, 0.4 * z]]),
        14,
    )
    bristle = prints.plain(random_color(rng), rng, 0.15)
    pieces: Pieces = [
        (loft(handle, True, True), _grip(rng)),
        (loft(ferrule, True, True), prints.steel(rng)),
        (loft(hair, True, True), bristle),
    ]
    return assembled(pieces, [*bands(handle, [0, 2, 3]), *bands(ferrule, [0, 2]), *bands(hair, [0, 2])], "tool", 0.3)


def _eye(
    center: tuple[float, float], size: tuple[float, float], z: float, r: float, image: Image
) -> tuple[Pieces, list[GeomDef]]:
    """A closed loop that lies: the eye of scissors or keys, with the four parts that collide."""
    t = np.linspace(0.0, 2.0 * np.pi, 17)
    path = np.column_stack([center[0] + size[0] * np.cos(t), center[1] + size[1] * np.sin(t), np.full(17, z)])
    rings = sweep(path, r, 8)
    # The two ends meet: their tangents are one-sided, so the first ring is taken for both.
    rings[-1] = rings[0]
    return [(loft(rings), image)], bands(rings, [0, 4, 8, 12, 16])


def scissors(rng: np.random.Generator) -> DrawnObject:
    """Scissors that lie, a little open: two blades and two eyes."""
    blade, open_ = rng.uniform(0.07, 0.13), rng.uniform(0.03, 0.25)
    z, r = 0.006, rng.uniform(0.004, 0.0055)
    grip, metal = _grip(rng), prints.steel(rng)
    pieces: Pieces = []
    parts: list[GeomDef] = []
    for side in (-1, 1):
        c, s = np.cos(0.5 * open_), side * np.sin(0.5 * open_)
        path = np.array(
            [
                [-0.02 * c, 0.02 * s, z + 0.0015 * side],
                [0.3 * blade * c, -0.3 * blade * s, z + 0.0015 * side],
                [blade * c, -blade * s, z + 0.0015 * side],
            ]
        )
        more, rings = _bar(path, np.column_stack([[0.006, 0.008, 0.0015], [0.0013] * 3]), metal, 8)
        eye, solids = _eye((-0.05, side * rng.uniform(0.018, 0.024)), (rng.uniform(0.022, 0.032), 0.014), z, r, grip)
        pieces += more + eye
        parts += [*bands(rings, [0, 2]), *solids]
    return assembled(pieces, parts, "tool", 0.25)


def pliers(rng: np.random.Generator) -> DrawnObject:
    """Pliers or tongs that lie: two colored grips, a joint and jaws of steel."""
    length, spread = rng.uniform(0.1, 0.15), rng.uniform(0.012, 0.03)
    z, grip, metal = 0.009, _grip(rng), prints.steel(rng)
    pieces: Pieces = []
    parts: list[GeomDef] = []
    for side in (-1, 1):
        path = smooth(
            [(-length, side * spread, z), (-0.5 * length, side * (spread + 0.004), z), (0.0, side * 0.004, z)], 7
        )
        rings = sweep(path, (0.007, 0.0055), 10)
        pieces += stacked(rings, [5], [grip, metal])
        parts += bands(rings, [0, 3, 6])
    more, jaw = _bar(
        _line([-0.008, 0.012, rng.uniform(0.03, 0.07)], z),
        np.column_stack([[0.013, 0.012, 0.004], [0.007, 0.006, 0.003]]),
        metal,
        10,
    )
    return assembled(pieces + more, [*parts, *bands(jaw, [0, 2])], "tool", 0.3)


def stapler(rng: np.random.Generator) -> DrawnObject:
    """A stapler: a base, an arm that rises toward its hinge, a cap of another color."""
    length, wide = rng.uniform(0.1, 0.17), rng.uniform(0.014, 0.02)
    color, dark = _grip(rng), prints.plain(np.full(3, rng.uniform(0.05, 0.3)), rng)
    size = np.array([length, 2 * wide, 0.012])
    pieces: Pieces = [(s.moved((0, 0, 0.006)), dark) for s in box(size, 0.004)]
    rise = rng.uniform(0.012, 0.025)
    path = np.array(
        [
            [-0.48 * length, 0, 0.022 + rise],
            [-0.3 * length, 0, 0.026 + rise],
            [0.3 * length, 0, 0.034],
            [0.48 * length, 0, 0.026],
        ]
    )
    arm = sweep(path, np.column_stack([[0.8 * wide, wide, wide, 0.8 * wide], [0.007, 0.011, 0.013, 0.014]]), 14)
    pieces.append((loft(arm, True, True), color))
    hinge = np.array([0.03, 1.5 * wide, 0.03])
    center = (0.4 * length, 0, 0.022)
    pieces += [(s.moved(center), prints.steel(rng)) for s in box(hinge, 0.003)]
    return assembled(pieces, [block(size, (0, 0, 0.006)), *bands(arm, [0, 1, 3]), block(hinge, center)], "tool", 0.4)


def tape(rng: np.random.Generator) -> DrawnObject:
    """A roll of tape or of kitchen paper: a ring that lies or stands."""
    r, h = rng.uniform(0.03, 0.06), rng.uniform(0.012, 0.07)
    hole = r * rng.uniform(0.4, 0.8)
    around = np.stack([circle(a, z) for a, z in ((r, 0.0), (r, h), (hole, h), (hole, 0.0))])
    color = prints.plain(random_color(rng), rng)
    core = prints.plain(np.array([0.7, 0.58, 0.42]) * rng.uniform(0.7, 1.2), rng)
    pieces: Pieces = [
        (loft(around[:2]), color),
        (loft(around[1:3]), color),
        (loft(around[2:]), core),
        (loft(around[[3, 0]]), color),
    ]
    return assembled(pieces, walls(around[:2], r - hole), "can", 0.45, carries=True)


def caddy(rng: np.random.Generator) -> DrawnObject:
    """A desk caddy: two or three bins of different height and color, with pens in them."""
    color, other = prints.plain(random_color(rng), rng), prints.plain(random_color(rng), rng)
    pieces: Pieces = []
    parts: list[GeomDef] = []
    x = 0.0
    for k in range(int(rng.integers(2, 4))):
        half, h = np.array([rng.uniform(0.025, 0.045), 0.04]), rng.uniform(0.04, 0.11)
        rings = np.stack([section(half, z, 8.0) for z in (0.0, 0.5 * h, h)]) + [x + half[0], 0, 0]
        skin = other if k == 1 and rng.uniform() < 0.4 else color
        pieces += vessel(rings, 0.0025, 0.004, skin, skin)
        parts += [*bands(np.stack([rings[0], rings[0] + [0, 0, 0.006]]), [0, 1]), *walls(rings[[0, 2]], 0.005, 4)]
        for _ in range(int(rng.integers(0, 3)) if h > 0.07 else 0):
            at = np.array([x + half[0], 0, 0.005]) + [*rng.uniform(-0.5, 0.5, 2) * half, 0.0]
            tip = at + [*rng.uniform(-0.008, 0.008, 2), rng.uniform(0.1, 0.15)]
            pen = sweep(np.stack([at, 0.5 * (at + tip), tip]), 0.004, 8, (1, 0, 0))
            pieces += stacked(pen, [1], [prints.plain(random_color(rng), rng), prints.plain(random_color(rng), rng)])
            parts += bands(pen, [0, 2])
        x += 2 * half[0] - 0.002
    return assembled(pieces, parts, "object", 0.2)


def flashlight(rng: np.random.Generator) -> DrawnObject:
    """A flashlight that lies: tube, ring, head with a lens."""
    r, length = rng.uniform(0.011, 0.018), rng.uniform(0.08, 0.16)
    head = r * rng.uniform(1.3, 2.0)
    rings = sweep(
        _line([-length, -0.97 * length, -0.02, 0.0, 0.03, 0.05], head),
        np.array([0.85 * r, r, r, head, head, 0.95 * head]),
        16,
    )
    color = _grip(rng)
    pieces = stacked(rings, [2, 4], [color, prints.plain(np.full(3, rng.uniform(0.05, 0.6)), rng), color])
    lens = sweep(_line([0.049, 0.051, 0.052], head), 0.85 * head, 16)
    pieces.append((loft(lens, True, True), prints.plain(np.array([0.85, 0.88, 0.8]), rng)))
    return assembled(pieces, [*bands(rings, [0, 2]), *bands(rings, [3, 5]), hull(lens[:, ::2])], "tool", 0.4)


def pen(rng: np.random.Generator) -> DrawnObject:
    """A pen or marker that lies: barrel, cap, tip."""
    r, length = rng.uniform(0.004, 0.01), rng.uniform(0.11, 0.16)
    rings = sweep(
        _line([-0.5 * length, -0.2 * length, -0.19 * length, 0.42 * length, 0.5 * length], r),
        r * np.array([0.85, 1.0, 0.92, 0.92, 0.3]),
        12,
    )
    pieces = stacked(rings, [2], [prints.plain(random_color(rng), rng), prints.plain(random_color(rng), rng)])
    return assembled(pieces, bands(rings, [0, 3, 4]), "tool", 0.6)


def remote(rng: np.random.Generator) -> DrawnObject:
    """A remote control, a telephone or a calculator: a flat body with keys or a screen."""
    size = np.array([rng.uniform(0.11, 0.2), rng.uniform(0.04, 0.08), rng.uniform(0.008, 0.024)])
    tone = np.full(3, rng.uniform(0.03, 0.2)) if rng.uniform() < 0.65 else random_color(rng)
    face = np.ascontiguousarray(np.full((180, 80, 3), np.clip(tone * 255, 0, 255), np.uint8))
    if rng.uniform() < 0.4:
        face[int(rng.uniform(6, 30)) : int(rng.uniform(90, 174)), 6:74] = (random_color(rng) * 255).astype(np.uint8)
    else:
        for y in range(20, 170, int(rng.integers(14, 22))):
            for x in (16, 40, 64):
                prints.logo(face, rng, (x, y), 6, random_color(rng) if rng.uniform() < 0.2 else np.full(3, 0.75))
    body = prints.plain(tone, rng)
    pieces: Pieces = [
        (s.moved((0, 0, 0.5 * size[2])), face if k == 5 else body) for k, s in enumerate(box(size, 0.004))
    ]
    return assembled(pieces, [block(size, (0, 0, 0.5 * size[2]))], "box", 0.9, carries=True)


def letters(rng: np.random.Generator) -> DrawnObject:
    """Blocks of a T, an L, a U or steps, as children's and test blocks: boxes of one color or of one each."""
    a, h = rng.uniform(0.025, 0.055), rng.uniform(0.025, 0.06)
    cells = [
        [(0, 0), (1, 0), (-1, 0), (0, 1)],
        [(0, 0), (0, 1), (0, 2), (1, 0)],
        [(0, 0), (-1, 0), (1, 0), (-1, 1), (1, 1)],
        [(0, 0), (1, 0), (1, 1), (2, 1)],
    ]
    chosen = cells[int(rng.integers(len(cells)))]
    one = prints.plain(prints.saturated(rng), rng) if rng.uniform() < 0.7 else prints.timber(rng)
    pieces: Pieces = []
    parts: list[GeomDef] = []
    for x, y in chosen:
        image = one if rng.uniform() < 0.85 else prints.plain(prints.saturated(rng), rng)
        center = (x * a, y * a, 0.5 * h)
        pieces += [(s.moved(center), image) for s in box((a + 0.0004, a + 0.0004, h), 0.0)]
        parts.append(block((a, a, h), center))
    return assembled(pieces, parts, "object", 0.5, carries=True)


def candle(rng: np.random.Generator) -> DrawnObject:
    """A lamp or candle on a stand: a foot, a stem and a shade or candle, each of its own color."""
    r, h = rng.uniform(0.035, 0.06), rng.uniform(0.12, 0.26)
    stem, top = rng.uniform(0.006, 0.012), r * rng.uniform(0.3, 1.1)
    base = lathe([(r, 0.0), (0.95 * r, 0.01), (1.2 * stem, 0.016)])
    rod = lathe([(stem, 0.012), (stem, 0.62 * h)], 14)
    shade = lathe([(top, 0.58 * h), (top * rng.uniform(0.5, 1.0), h)])
    pieces = (
        stacked(base, [], [_grip(rng)])
        + stacked(rod, [], [prints.steel(rng)])
        + stacked(shade, [], [prints.plain(random_color(rng), rng)])
    )
    return assembled(
        pieces,
        [*bands(base, [0, 1, 2]), cylinder(stem, 0.012, 0.6 * h), *bands(shade, [0, 1])],
        "object",
        0.2,
        lies=True,
    )
