"""Tableware: mugs, cups, bowls, plates, pans, pots, cutlery, teapots, vases, trays and baskets.

A function is a family: from a random generator to an object that stands on z = 0; lengths in meters.
"""

from __future__ import annotations

import numpy as np

from training.worlds.families import DrawnObject
from training.worlds.homeware import prints
from training.worlds.homeware.solids import (
    Pieces,
    assembled,
    bands,
    block,
    cylinder,
    hull,
    stacked,
    turned,
    vessel,
    walls,
)
from training.worlds.homeware.surfaces import Array, Image, lathe, loft, section, smooth, sweep
from training.worlds.textures import random_color
from wm_dynamics.mujoco.bodies import GeomDef


def _inner(color: Array, rng: np.random.Generator) -> Image:
    """The inside of a glazed thing: as outside, or white."""
    return prints.plain(color if rng.uniform() < 0.5 else np.full(3, 0.92), rng)


def _loop(
    rng: np.random.Generator, x: float, low: float, high: float, reach: float, lean: float, image: Image
) -> tuple[Pieces, list[GeomDef]]:
    """A handle beyond x between two heights; ``lean``: how much farther out the wall is at the upper end [m]."""
    sunk = 0.003
    span = high - low
    points = [
        (x - sunk + lean, 0, high),
        (x + reach + 0.6 * lean, 0, high - 0.04 * span),
        (x + reach * rng.uniform(0.7, 1.0), 0, low + 0.3 * span),
        (x - sunk, 0, low),
    ]
    path = smooth(points, 11)
    rings = sweep(path, (float(rng.uniform(0.0032, 0.006)), float(rng.uniform(0.004, 0.009))), 8, up=(0, 1, 0))
    return [(loft(rings, True, True), image)], bands(rings, [0, 3, 7, 10])


def mug(rng: np.random.Generator) -> DrawnObject:
    """A mug with a round handle: straight, conical or bulging."""
    r, h = rng.uniform(0.034, 0.052), rng.uniform(0.075, 0.115)
    foot, belly = r * rng.uniform(0.72, 1.0), r * rng.choice([1.0, rng.uniform(1.0, 1.12)])
    profile = smooth([(foot, 0.0), (0.5 * (foot + belly) + 0.004, 0.2 * h), (belly, 0.5 * h), (r, h)], 7)
    rings = lathe(np.concatenate([[(0.86 * foot, 0.0)], profile]))
    color = prints.ceramic(rng)
    image = prints.decor(rng, 96, 256, color)
    pieces = vessel(rings, rng.uniform(0.003, 0.005), 0.006, image, _inner(color, rng))
    own = prints.plain(color if rng.uniform() < 0.75 else random_color(rng), rng)
    handle, solids = _loop(
        rng, float(profile[1, 0]), 0.2 * h, 0.85 * h, rng.uniform(0.022, 0.036), r - profile[1, 0], own
    )
    parts = [cylinder(foot, 0.0, 0.007), *walls(rings[1:], 0.005), *solids]
    return assembled(pieces + handle, parts, "mug", 0.22)


def cup(rng: np.random.Generator) -> DrawnObject:
    """A cup without a handle: tumblers, paper cups, tea bowls; opaque."""
    r, h = rng.uniform(0.03, 0.048), rng.uniform(0.06, 0.15)
    foot = r * rng.uniform(0.6, 0.98)
    curve = rng.choice([0.0, rng.uniform(0.0, 0.12)])
    rows = [(foot + (r - foot) * t + curve * r * np.sin(np.pi * t), h * t) for t in np.linspace(0.0, 1.0, 7)]
    rings = lathe([(0.9 * foot, 0.0), *rows])
    if rng.uniform() < 0.25:
        # The rolled rim of a paper cup.
        rim = lathe([(r + 0.002, h - 0.001), (r + 0.002, h + 0.002), (r, h + 0.003)])
        rings = np.concatenate([rings, rim])
    color = prints.ceramic(rng) if rng.uniform() < 0.5 else random_color(rng)
    image = prints.decor(rng, 96, 256, color)
    if rng.uniform() < 0.25:
        image = prints.wrap(rng, 96, 256, prints.colors(rng), prints.word(rng))
    pieces = vessel(rings, rng.uniform(0.0015, 0.004), 0.005, image, _inner(color, rng))
    return assembled(pieces, [cylinder(foot, 0.0, 0.006), *walls(rings[1:8], 0.005)], "cup", 0.2, lies=True)


def bowl(rng: np.random.Generator) -> DrawnObject:
    """A bowl on a foot: deep or flat, also of metal and wood."""
    r, h = rng.uniform(0.05, 0.13), rng.uniform(0.32, 0.62)
    h *= r * rng.uniform(0.9, 1.3)
    foot = r * rng.uniform(0.35, 0.6)
    t = np.linspace(0.0, 1.0, 8)
    bulge = rng.uniform(0.35, 0.9)
    rows = np.column_stack([foot + (r - foot) * np.sin(0.5 * np.pi * t) ** bulge, h * (0.06 + 0.94 * t**1.15)])
    rings = lathe([(0.97 * foot, 0.0), (foot, 0.02 * h), *rows])
    color = prints.ceramic(rng)
    kind = rng.uniform()
    skin = (
        prints.steel(rng) if kind < 0.15 else prints.timber(rng) if kind < 0.25 else prints.decor(rng, 64, 256, color)
    )
    lining = skin if kind < 0.25 else _inner(color, rng)
    pieces = vessel(rings, rng.uniform(0.0025, 0.006), 0.08 * h, skin, lining)
    parts = [cylinder(foot, 0.0, 0.1 * h + 0.003), *walls(rings[1:5], 0.006), *walls(rings[4:], 0.006)]
    return assembled(pieces, parts, "bowl", 0.16)


def plate(rng: np.random.Generator) -> DrawnObject:
    """A plate or a saucer with a rim, flat or deep."""
    r = rng.uniform(0.06, 0.145)
    h = r * rng.uniform(0.1, 0.28)
    well = r * rng.uniform(0.55, 0.75)
    low = 0.35 * h
    rows = [(0.75 * well, 0.0), (well, 0.1 * h), (well + 0.4 * (r - well), low + 0.3 * h), (r, h)]
    rings = lathe(rows, power=rng.choice([2.0, 2.0, 2.0, 5.0]))
    color = prints.ceramic(rng)
    face = prints.decor(rng, 96, 192, color) if rng.uniform() < 0.5 else _inner(color, rng)
    pieces = vessel(rings, 0.004, 0.004, prints.plain(color, rng), face)
    parts = [*bands(rings[:2], [0, 1]), *walls(rings[1:], 0.008)]
    return assembled(pieces, parts, "plate", 0.3, carries=False)


def pan(rng: np.random.Generator) -> DrawnObject:
    """A frying pan or a saucepan with a long handle of its own color, joined by a bracket."""
    r, deep = rng.uniform(0.07, 0.14), rng.uniform() < 0.4
    h = r * (rng.uniform(0.6, 1.0) if deep else rng.uniform(0.22, 0.42))
    foot = r * (rng.uniform(0.92, 1.0) if deep else rng.uniform(0.72, 0.9))
    rings = lathe([(0.95 * foot, 0.0), (foot, 0.004), (0.6 * foot + 0.4 * r + 0.002, 0.4 * h), (r, 0.9 * h), (r, h)])
    skin = prints.steel(rng) if rng.uniform() < 0.4 else prints.plain(random_color(rng) * rng.choice([0.3, 1.0]), rng)
    lining = skin if rng.uniform() < 0.4 else prints.plain(np.full(3, rng.uniform(0.06, 0.3)), rng)
    pieces = vessel(rings, 0.003, 0.004, skin, lining)
    reach, rise = rng.uniform(0.11, 0.2), rng.uniform(-0.01, 0.05)
    path = smooth(
        [(r - 0.004, 0, 0.8 * h), (r + 0.3 * reach, 0, 0.85 * h + 0.4 * rise), (r + reach, 0, 0.85 * h + rise)], 9
    )
    wide = np.column_stack([np.linspace(0.006, rng.uniform(0.009, 0.016), 9), np.full(9, rng.uniform(0.004, 0.009))])
    wide[-1] *= 0.7
    handle = sweep(path, wide, 10)
    grip = prints.timber(rng) if rng.uniform() < 0.25 else prints.plain(random_color(rng) * rng.choice([0.2, 0.8]), rng)
    pieces += stacked(handle, [2], [prints.steel(rng), grip])
    parts = [cylinder(foot, 0.0, 0.006), *walls(rings[1:], 0.006), *bands(handle, [0, 4, 8])]
    return assembled(pieces, parts, "pan", 0.12)


def pot(rng: np.random.Generator) -> DrawnObject:
    """A cooking pot with two handles, often with its lid on."""
    r = rng.uniform(0.07, 0.12)
    h = r * rng.uniform(0.8, 1.4)
    rings = lathe([(0.95 * r, 0.0), (r, 0.006), (r, 0.5 * h), (r, h)])
    skin = prints.steel(rng) if rng.uniform() < 0.6 else prints.plain(random_color(rng), rng)
    grip = prints.plain(np.full(3, rng.uniform(0.05, 0.4)), rng) if rng.uniform() < 0.6 else skin
    pieces = vessel(rings, 0.003, 0.004, skin, prints.steel(rng))
    parts = [cylinder(r, 0.0, 0.006), *walls(rings[1:], 0.006)]
    for side in (-1, 1):
        z, out = 0.8 * h, rng.uniform(0.025, 0.04)
        path = smooth(
            [
                (side * 0.98 * r, -0.03, z),
                (side * (r + out), -0.02, z),
                (side * (r + out), 0.02, z),
                (side * 0.98 * r, 0.03, z),
            ],
            9,
        )
        handle = sweep(path, 0.0045, 8)
        pieces.append((loft(handle, True, True), grip))
        parts += bands(handle, [0, 4, 8])
    if rng.uniform() < 0.5:
        lid = lathe([(1.02 * r, h - 0.002), (1.02 * r, h + 0.004), (0.6 * r, h + 0.14 * r), (0.12 * r, h + 0.2 * r)])
        knob = lathe([(0.12 * r, h + 0.18 * r), (0.16 * r, h + 0.32 * r), (0.1 * r, h + 0.42 * r)], 16)
        pieces += stacked(lid, [], [skin]) + stacked(knob, [], [grip])
        parts += [*bands(lid, [0, 3]), *bands(knob, [0, 2])]
    return assembled(pieces, parts, "pan", 0.25)


def _utensil(path: Array, radii: Array, image: Image, sides: int = 10) -> tuple[Pieces, Array]:
    rings = sweep(path, radii, sides)
    return [(loft(rings, True, True), image)], rings


def spoon(rng: np.random.Generator) -> DrawnObject:
    """A spoon from tea to ladle, of metal, wood or plastic."""
    length, big = rng.uniform(0.13, 0.3), rng.uniform(0.014, 0.03)
    t = np.linspace(0.0, 1.0, 16)
    thin = rng.uniform(0.0022, 0.004)
    z = 0.012 * np.sin(np.pi * t) ** 2 * rng.uniform(0.0, 1.0) + thin + 0.001
    wide = 0.0035 + 0.004 * (1.0 - t) + (big - 0.004) * np.exp(-(((t - 0.88) / 0.1) ** 2))
    wide[[0, -1]] *= 0.45
    image = (
        prints.steel(rng)
        if rng.uniform() < 0.6
        else prints.timber(rng)
        if rng.uniform() < 0.5
        else prints.plain(random_color(rng), rng)
    )
    pieces, rings = _utensil(
        np.column_stack([length * (t - 0.5), 0 * t, z]), np.column_stack([wide, np.full(16, thin)]), image
    )
    return assembled(pieces, bands(rings, [0, 5, 11, 15]), "tool", 0.3)


def knife(rng: np.random.Generator) -> DrawnObject:
    """A kitchen knife: blade and grip of two materials."""
    blade, grip = rng.uniform(0.09, 0.2), rng.uniform(0.09, 0.13)
    deep, thick = rng.uniform(0.008, 0.022), rng.uniform(0.006, 0.01)
    path = np.column_stack([np.linspace(-grip, 0, 6), np.zeros(6), np.full(6, thick + 0.001)])
    radii = np.column_stack([rng.uniform(0.009, 0.014) * np.array([0.7, 1, 0.9, 0.95, 1, 0.8]), np.full(6, thick)])
    color = np.full(3, rng.uniform(0.04, 0.3)) if rng.uniform() < 0.5 else random_color(rng)
    image = prints.timber(rng) if rng.uniform() < 0.3 else prints.plain(color, rng)
    pieces, rings = _utensil(path, radii, image)
    t = np.linspace(0.0, 1.0, 7)
    edge = np.column_stack([blade * t - 0.004, deep * 0.4 * (1 - t), np.full(7, thick + 0.001)])
    wide = deep * np.sqrt(np.maximum(1.0 - t**2.5, 0.003))
    metal = sweep(edge, np.column_stack([wide, np.full(7, 0.0016)]), 8)
    pieces.append((loft(metal, True, True), prints.steel(rng)))
    return assembled(pieces, [*bands(rings, [0, 5]), *bands(metal, [0, 4, 6])], "tool", 0.3)


def fork(rng: np.random.Generator) -> DrawnObject:
    """A fork with four tines."""
    length, thin = rng.uniform(0.15, 0.21), 0.0022
    t = np.linspace(0.0, 1.0, 9)
    wide = np.array([0.004, 0.007, 0.006, 0.004, 0.003, 0.003, 0.006, 0.011, 0.012])
    stem = np.column_stack([length * (0.72 * t - 0.5), 0 * t, thin + 0.001 + 0.012 * np.sin(np.pi * t) ** 2])
    image = prints.steel(rng) if rng.uniform() < 0.8 else prints.plain(random_color(rng), rng)
    pieces, rings = _utensil(stem, np.column_stack([wide, np.full(9, thin)]), image)
    tines = []
    for y in (-0.0095, -0.0032, 0.0032, 0.0095):
        path = np.column_stack([length * np.array([0.21, 0.36, 0.5]), [y, y, y], [0.003, 0.0025, 0.007]])
        tine = sweep(path, np.array([0.0019, 0.0017, 0.0008]), 6)
        pieces.append((loft(tine, True, True), image))
        tines.append(tine)
    return assembled(pieces, [*bands(rings, [0, 4, 8]), hull(np.concatenate(tines))], "tool", 0.3)


def teapot(rng: np.random.Generator) -> DrawnObject:
    """A teapot: a round body with a spout, a handle and a lid."""
    r = rng.uniform(0.055, 0.085)
    h = r * rng.uniform(1.4, 1.9)
    profile = smooth([(0.6 * r, 0), (r, 0.4 * h), (0.72 * r, 0.85 * h), (0.4 * r, h)], 9)
    rings = lathe(profile)
    color = prints.ceramic(rng)
    skin, lid = prints.decor(rng, 96, 256, color), prints.plain(color * rng.uniform(0.8, 1.0), rng)
    pieces = stacked(rings, [6], [skin, lid])
    knob = lathe([(0.1 * r, h - 0.002), (0.16 * r, h + 0.12 * r), (0.12 * r, h + 0.24 * r)], 12)
    spout = sweep(
        smooth([(-0.85 * r, 0, 0.35 * h), (-1.3 * r, 0, 0.5 * h), (-1.65 * r, 0, 0.88 * h)], 7),
        np.linspace(0.22 * r, 0.11 * r, 7),
        10,
        (0, 1, 0),
    )
    own = prints.plain(color, rng)
    pieces += [(loft(knob, True, True), own), (loft(spout, True, True), own)]
    handle, solids = _loop(rng, 0.82 * r, 0.25 * h, 0.78 * h, 0.55 * r, 0.0, own)
    parts = [*turned(profile, [0, 4, 8]), *bands(knob, [0, 2]), *bands(spout, [0, 3, 6]), *solids]
    return assembled(pieces + handle, parts, "object", 0.3)


def vase(rng: np.random.Generator) -> DrawnObject:
    """A vase or a turned thing of several steps, in one glaze or several."""
    r, h = rng.uniform(0.035, 0.075), rng.uniform(0.12, 0.26)
    if rng.uniform() < 0.5:
        profile = smooth(
            [(0.6 * r, 0), (r, h * rng.uniform(0.2, 0.5)), (rng.uniform(0.3, 0.6) * r, 0.8 * h), (0.6 * r, h)], 12
        )
        cuts = [0, 3, 6, 9, 11]
    else:
        # Steps, as of turned wood.
        radii = r * np.array([1.0, rng.uniform(0.55, 0.9), rng.uniform(0.3, 0.7)])
        z = h * np.array([0.0, rng.uniform(0.25, 0.45), rng.uniform(0.6, 0.8), 1.0])
        profile = np.array([(radii[k // 2], z[(k + 1) // 2]) for k in range(6)])
        cuts = [0, 1, 2, 3, 4, 5]
    rings = lathe(profile)
    color = prints.ceramic(rng)
    if rng.uniform() < 0.35:
        skins = [prints.plain(random_color(rng), rng) for _ in range(2)]
        pieces = stacked(rings, [cuts[len(cuts) // 2]], skins)
    else:
        pieces = stacked(rings, [], [prints.timber(rng) if rng.uniform() < 0.3 else prints.decor(rng, 192, 256, color)])
    solids = (
        turned(profile, cuts)
        if len(profile) > 6
        else turned(profile, [0, 1]) + turned(profile, [2, 3]) + turned(profile, [4, 5])
    )
    return assembled(pieces, solids, "object", 0.4, lies=True)


def tray(rng: np.random.Generator) -> DrawnObject:
    """A tray with a low rim, some with handles; what it holds lies in it."""
    size = np.array([rng.uniform(0.11, 0.2), rng.uniform(0.08, 0.15)])
    h, power = rng.uniform(0.015, 0.04), rng.choice([2.0, 5.0, 9.0])
    slope = rng.uniform(0.88, 1.0)
    rings = np.stack(
        [section(size * slope, 0, power), section(size * (0.5 + 0.5 * slope), 0.5 * h, power), section(size, h, power)]
    )
    kind = rng.uniform()
    skin = (
        prints.timber(rng)
        if kind < 0.35
        else prints.steel(rng)
        if kind < 0.5
        else prints.woven(rng)
        if kind < 0.6
        else prints.plain(random_color(rng), rng)
    )
    lining = skin if rng.uniform() < 0.6 else prints.decor(rng, 96, 192, random_color(rng))
    pieces = vessel(rings, 0.004, 0.004, skin, lining)
    parts = [*bands(np.stack([rings[0], rings[0] + [0, 0, 0.005]]), [0, 1]), *walls(rings, 0.006)]
    if rng.uniform() < 0.4:
        for side in (-1, 1):
            x = side * size[0] * 0.98
            path = smooth(
                [
                    (x, -0.04, 0.8 * h),
                    (x + side * 0.025, -0.03, h + 0.01),
                    (x + side * 0.025, 0.03, h + 0.01),
                    (x, 0.04, 0.8 * h),
                ],
                9,
            )
            handle = sweep(path, 0.004, 8)
            pieces.append((loft(handle, True, True), prints.steel(rng)))
            parts += bands(handle, [0, 4, 8])
    return assembled(pieces, parts, "tray", 0.12)


def basket(rng: np.random.Generator) -> DrawnObject:
    """A basket or an open storage box, woven or of plastic, some with an arch as a handle."""
    size = np.array([rng.uniform(0.07, 0.15), rng.uniform(0.06, 0.12)])
    h, power = rng.uniform(0.06, 0.15), rng.choice([2.0, 4.0, 8.0])
    slope = rng.uniform(0.72, 1.0)
    rings = np.stack([section(size * (slope + (1 - slope) * t), h * t, power) for t in np.linspace(0, 1, 4)])
    skin = prints.woven(rng) if rng.uniform() < 0.55 else prints.plain(random_color(rng), rng)
    pieces = vessel(rings, 0.004, 0.004, skin, skin)
    parts = [*bands(np.stack([rings[0], rings[0] + [0, 0, 0.006]]), [0, 1]), *walls(rings, 0.006)]
    if rng.uniform() < 0.35:
        y = 0.97 * size[1]
        rise = rng.uniform(0.08, 0.14)
        path = smooth(
            [
                (0, -y, 0.9 * h),
                (0, -0.9 * y, h + 0.6 * rise),
                (0, 0, h + rise),
                (0, 0.9 * y, h + 0.6 * rise),
                (0, y, 0.9 * h),
            ],
            13,
        )
        arch = sweep(path, (0.003, 0.008), 8, up=(1, 0, 0))
        pieces.append((loft(arch, True, True), skin))
        parts += bands(arch, [0, 3, 6, 9, 12])
    return assembled(pieces, parts, "basket", 0.12)


def board(rng: np.random.Generator) -> DrawnObject:
    """A chopping board, some with a grip."""
    from training.worlds.homeware.surfaces import box

    size = np.array([rng.uniform(0.2, 0.34), rng.uniform(0.14, 0.24), rng.uniform(0.01, 0.022)])
    image = prints.timber(rng) if rng.uniform() < 0.7 else prints.plain(random_color(rng), rng)
    pieces: Pieces = [(s.moved((0, 0, 0.5 * size[2])), image) for s in box(size, 0.004)]
    parts = [block(size, (0, 0, 0.5 * size[2]))]
    if rng.uniform() < 0.5:
        grip = np.array([rng.uniform(0.08, 0.12), 0.04, size[2]])
        center = (0.5 * (size[0] + grip[0]) - 0.006, 0, 0.5 * size[2])
        pieces += [(s.moved(center), image) for s in box(grip, 0.004)]
        parts.append(block(grip, center))
    return assembled(pieces, parts, "object", 0.9, carries=True)
