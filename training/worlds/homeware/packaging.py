"""Packages: cartons, books, milk cartons, bottles, cans, jars, tubs, tubes, pouches, spray bottles, egg cartons, fruit.

A function is a family: from a random generator to an object that stands on z = 0; lengths in meters.
"""

from __future__ import annotations

import cv2
import numpy as np

from training.worlds.families import DrawnObject
from training.worlds.homeware import prints
from training.worlds.homeware.solids import Pieces, assembled, ball, bands, block, cylinder, hull, stacked, turned
from training.worlds.homeware.surfaces import Array, Image, box, disc, lathe, loft, section, smooth, sweep
from training.worlds.textures import random_color

_PIXELS_PER_M = 1100.0
"""Of print on packages, about 230 to 300 pixels on a cereal box. Finer print is not seen in images of 320 x 240."""


def _pixels(length: float) -> int:
    return int(np.clip(length * _PIXELS_PER_M, 16, 300))


def _printed_faces(rng: np.random.Generator, size: Array) -> list[Image]:
    """Images of the six faces of a package of this size (3,), in the order of ``surfaces.box``."""
    palette, brand = prints.colors(rng), prints.word(rng)
    x, y, z = (_pixels(s) for s in size)
    face = prints.front(rng, z, y, palette, brand)
    other = face if rng.uniform() < 0.5 else prints.back(rng, z, y, palette)
    side = prints.back(rng, z, x, palette) if rng.uniform() < 0.6 else prints.front(rng, z, x, palette, brand)
    lid = prints.front(rng, x, y, palette, brand) if rng.uniform() < 0.5 else prints.plain(palette[0], rng)
    return [face, other, side, side, prints.plain(palette[0], rng), lid]


def _boxed(size: Array, radius: float, images: list[Image]) -> Pieces:
    return [(s.moved((0, 0, 0.5 * size[2])), i) for s, i in zip(box(size, radius), images, strict=True)]


def carton(rng: np.random.Generator) -> DrawnObject:
    """A printed carton of any proportions, from tea bags to a shoe box."""
    size = np.exp(rng.uniform(np.log([0.025, 0.05, 0.04]), np.log([0.14, 0.2, 0.24])))
    if rng.uniform() < 0.35:
        size = np.sort(size)[[2, 1, 0]]
    pieces = _boxed(size, rng.choice([0.0, 0.0015, 0.003]), _printed_faces(rng, size))
    return assembled(pieces, [block(size, (0, 0, 0.5 * size[2]))], "box", 0.95, carries=True, lies=True)


def cereal(rng: np.random.Generator) -> DrawnObject:
    """A tall, thin carton that stands."""
    size = np.array([rng.uniform(0.045, 0.085), rng.uniform(0.12, 0.21), rng.uniform(0.17, 0.31)])
    pieces = _boxed(size, 0.0015, _printed_faces(rng, size))
    return assembled(pieces, [block(size, (0, 0, 0.5 * size[2]))], "box", 0.95, carries=True, lies=True)


def parcel(rng: np.random.Generator) -> DrawnObject:
    """A cardboard box with tape and a slip of paper."""
    size = rng.uniform([0.09, 0.12, 0.05], [0.24, 0.3, 0.2])
    brown = np.array([0.68, 0.52, 0.36]) * rng.uniform(0.75, 1.15)
    images = []
    for k, (h, w) in enumerate(((2, 1), (2, 1), (2, 0), (2, 0), (0, 1), (0, 1))):
        image = np.ascontiguousarray(
            np.full((_pixels(size[h]) // 2, _pixels(size[w]) // 2, 3), np.clip(brown, 0, 1) * 255, np.uint8)
        )
        rows, columns = image.shape[:2]
        if k >= 4:
            image[:, int(0.44 * columns) : int(0.56 * columns)] = np.clip(brown * rng.uniform(1.05, 1.3) * 255, 0, 255)
        if k == 5 or rng.uniform() < 0.2:
            prints.table(image, rng, (int(0.1 * columns), int(0.2 * rows), int(0.35 * columns), int(0.4 * rows)))
        images.append(image)
    return assembled(_boxed(size, 0.002, images), [block(size, (0, 0, 0.5 * size[2]))], "box", 0.95, carries=True)


def book(rng: np.random.Generator) -> DrawnObject:
    """A book that lies: covers around a block of pages."""
    size = np.array([rng.uniform(0.15, 0.29), rng.uniform(0.11, 0.21), rng.uniform(0.008, 0.05)])
    palette, brand = prints.colors(rng), prints.word(rng)
    cover = prints.front(rng, _pixels(size[0]), _pixels(size[1]), palette, brand)
    behind = prints.back(rng, _pixels(size[0]) // 2, _pixels(size[1]) // 2, palette)
    paper = np.full((24, 24, 3), 235, np.uint8) - (rng.uniform(0, 40, (24, 1, 1)) * np.ones((1, 24, 3))).astype(
        np.uint8
    )
    spine = prints.plain(palette[0], rng)
    pieces = _boxed(size, 0.0, [paper, paper, paper, spine, behind, cover])
    return assembled(pieces, [block(size, (0, 0, 0.5 * size[2]))], "box", 0.9, carries=True)


def milk(rng: np.random.Generator) -> DrawnObject:
    """A drink carton: with a gable, or flat with a screw cap."""
    a, h = rng.uniform(0.055, 0.1), rng.uniform(0.13, 0.24)
    b = a * rng.uniform(0.65, 1.0)
    palette, brand = prints.colors(rng), prints.word(rng)
    label = prints.wrap(rng, _pixels(h), 256, palette, brand)
    ring = 0.5 * np.array([[a, b], [-a, b], [-a, -b], [a, -b]])
    cap = prints.plain(prints.saturated(rng), rng)

    def at(scale_y: float, z: float) -> Array:
        return np.column_stack([ring * [1.0, scale_y], np.full(4, z)])

    if rng.uniform() < 0.6:
        rise = 0.35 * b + 0.02
        rings = np.stack([at(1, 0), at(1, h), at(0.06, h + rise), at(0.06, h + rise + 0.018)])
        pieces = stacked(rings, [1], [label, prints.plain(palette[1], rng)])
        parts = [*bands(rings, [0, 1, 2, 3])]
        spot, tilt = np.array([0.0, -0.25 * b, h + 0.45 * rise]), np.arctan2(rise, 0.5 * b)
    else:
        rings = np.stack([at(1, 0), at(1, h)])
        pieces = stacked(rings, [], [label])
        parts = [block((a, b, h), (0, 0, 0.5 * h))]
        spot, tilt = np.array([0.0, -0.15 * b, h]), 0.0
    if rng.uniform() < 0.7:
        lid = lathe([(0.014, -0.002), (0.014, 0.012), (0.012, 0.014)], 16)
        turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        lid = lid @ turn.T + spot
        pieces.append((loft(lid, True, True), cap))
        parts.append(hull(lid[:, ::2]))
    return assembled(pieces, parts, "box", 0.9, lies=True)


def _cap(rng: np.random.Generator, radius: float, low: float, high: float) -> Array:
    """Rings of a screw cap."""
    return lathe([(radius, low), (radius, high - 0.002), (0.9 * radius, high)], 20)


def bottle(rng: np.random.Generator) -> DrawnObject:
    """Bottles of many forms: drinks, oil, shampoo, pills; round or flat, with a label and a cap of its own color."""
    r = rng.uniform(0.022, 0.05)
    h = r * rng.uniform(3.2, 6.8)
    power, squeeze = (2.0, 1.0) if rng.uniform() < 0.65 else (rng.uniform(2.2, 6.0), rng.uniform(0.5, 1.0))
    shoulder, top = rng.uniform(0.5, 0.78) * h, rng.uniform(0.84, 0.92) * h
    neck = r * rng.uniform(0.26, 0.6)
    waist = r * rng.choice([1.0, rng.uniform(0.86, 1.0)])
    low, high = 0.14 * h, shoulder * rng.uniform(0.82, 0.98)
    body = [(0.92 * r, 0.0), (r, 0.006), (r, low), (waist, 0.5 * (low + high)), (r, high)]
    curve = smooth([(r, shoulder), (0.45 * r + 0.55 * neck, shoulder + 0.55 * (top - shoulder)), (neck, top)], 6)
    profile = np.concatenate([body, curve, [(neck, top + 0.01)]])
    rings = lathe(profile, power=power, squeeze=squeeze)
    color = random_color(rng) if rng.uniform() < 0.7 else np.array([0.75, 0.82, 0.85])
    skin = prints.plain(color, rng)
    label = (
        prints.wrap(rng, _pixels(high - low), 256, prints.colors(rng), prints.word(rng))
        if rng.uniform() < 0.85
        else skin
    )
    pieces = stacked(rings, [2, 4], [skin, label, skin])
    lid = _cap(rng, max(neck * rng.uniform(1.02, 1.3), 0.006), top, h)
    pieces.append((loft(lid, True, True), prints.plain(random_color(rng), rng)))
    if power == 2.0 and waist == r:
        parts = [cylinder(r, 0.0, shoulder), *turned(profile, [5, 8, 11])]
    else:
        parts = bands(rings, [0, 4, 8, 11])
    return assembled(pieces, [*parts, *bands(lid, [0, 2])], "bottle", 0.55, lies=True)


def can(rng: np.random.Generator) -> DrawnObject:
    """Food and drink cans, cocoa tins: printed all around, with metal ends."""
    r = rng.uniform(0.026, 0.055)
    h = r * rng.uniform(0.7, 4.2)
    rim = 0.05 * r
    profile = [(0.9 * r, 0.0), (r, rim), (r, h - rim), (0.92 * r, h)]
    rings = lathe(profile)
    label = prints.wrap(rng, _pixels(h), 256, prints.colors(rng), prints.word(rng))
    metal = prints.steel(rng) if rng.uniform() < 0.75 else prints.plain(random_color(rng), rng)
    ends: Pieces = [(loft(rings[:2], first_cap=True), metal), (loft(rings[1:3]), label), (loft(rings[2:]), metal)]
    ends.append((disc(rings[-1]), metal))
    return assembled(ends, [cylinder(r, 0.0, h)], "can", 0.75, carries=True, lies=True)


def jar(rng: np.random.Generator) -> DrawnObject:
    """Jars of jam, spices, creams: a wide lid of its own color on a body with a label."""
    r = rng.uniform(0.02, 0.05)
    h = r * rng.uniform(1.1, 3.2)
    lid = rng.uniform(0.75, 1.02) * r
    top = h * rng.uniform(0.72, 0.86)
    power = 2.0 if rng.uniform() < 0.8 else 5.0
    profile = np.array([(0.93 * r, 0.0), (r, 0.004), (r, 0.15 * h), (r, 0.88 * top), (0.93 * lid, top)])
    rings = lathe(profile, power=power)
    inside = prints.plain(random_color(rng), rng)
    label = prints.wrap(rng, _pixels(h), 256, prints.colors(rng), prints.word(rng))
    pieces = stacked(rings, [2, 3], [inside, label, inside])
    cap = lathe([(lid, top - 0.001), (lid, h - 0.002), (0.95 * lid, h)], 24)
    color = prints.steel(rng) if rng.uniform() < 0.3 else prints.plain(random_color(rng), rng)
    pieces.append((loft(cap, True, True), color))
    body = [cylinder(r, 0.0, 0.88 * top), *turned(profile, [3, 4])] if power == 2.0 else bands(rings, [0, 3, 4])
    return assembled(pieces, [*body, cylinder(lid, top - 0.001, h)], "can", 0.7, carries=True, lies=True)


def tub(rng: np.random.Generator) -> DrawnObject:
    """A tub of yogurt or margarine: wider above, with a foil lid that stands out."""
    r, power = rng.uniform(0.03, 0.07), rng.choice([2.0, 2.0, 4.0])
    h = r * rng.uniform(0.7, 2.0)
    foot = r * rng.uniform(0.7, 0.95)
    squeeze = 1.0 if power == 2.0 else rng.uniform(0.65, 1.0)
    rings = lathe([(foot, 0.0), (r, 0.93 * h)], power=power, squeeze=squeeze)
    lid = lathe([(1.04 * r, 0.93 * h), (1.05 * r, 0.97 * h), (1.05 * r, h)], power=power, squeeze=squeeze)
    palette, brand = prints.colors(rng), prints.word(rng)
    pieces = stacked(rings, [], [prints.wrap(rng, _pixels(h), 256, palette, brand)])
    face = prints.front(rng, 96, 96, palette, brand)
    pieces += [(loft(lid, first_cap=True), prints.plain(palette[1], rng)), (disc(lid[-1]), face)]
    return assembled(pieces, [*bands(rings, [0, 1]), *bands(lid, [0, 2])], "can", 0.7, carries=True)


def tube(rng: np.random.Generator) -> DrawnObject:
    """A tube of paste that lies: round at its cap, flat at its end."""
    length, r = rng.uniform(0.1, 0.18), rng.uniform(0.014, 0.024)
    t = np.linspace(0.0, 1.0, 8)
    wide, thick = r * (1.0 + 0.35 * t), r * (1.0 - 0.93 * t**1.2)
    path = np.column_stack([length * (t - 0.5), 0 * t, thick])
    rings = sweep(path, np.column_stack([wide, thick]), 20)
    label = np.ascontiguousarray(np.rot90(prints.wrap(rng, 200, 128, prints.colors(rng), prints.word(rng))))
    pieces: Pieces = [(loft(rings, True, True), label)]
    x = -0.5 * length
    cap = sweep(
        np.array([[x + 0.002, 0, r], [x - 0.01, 0, r], [x - rng.uniform(0.014, 0.03), 0, r]]),
        r * rng.uniform(0.5, 0.98),
        14,
    )
    pieces.append((loft(cap, True, True), prints.plain(random_color(rng), rng)))
    return assembled(pieces, [*bands(rings, [0, 3, 7]), *bands(cap, [0, 2])], "object", 0.5)


def pouch(rng: np.random.Generator) -> DrawnObject:
    """A bag of crisps, coffee or refills that lies or stands: a cushion with flat seams."""
    a, b = rng.uniform(0.045, 0.11), rng.uniform(0.07, 0.16)
    thick = rng.uniform(0.22, 0.5) * a
    t = np.linspace(-1.0, 1.0, 11)
    swell = np.maximum(1.0 - np.abs(t) ** rng.uniform(2.0, 4.0), 0.0) ** 0.6
    flat = 0.002 + thick * swell
    width = a * (1.0 - 0.08 * swell) * (1.0 + 0.01 * rng.normal(size=11))
    path = np.column_stack([b * t, 0 * t, 0 * t + thick + 0.002])
    rings = sweep(path, np.column_stack([width, flat]), 20)
    # Dents, as of foil: the same at the seam's two ends, nothing below, where it lies.
    dent = rng.uniform(-0.12, 0.06, (11, 20)) * thick * swell[:, None]
    rings[..., 2] += np.where(rings[..., 2] > thick, dent, 0.0)
    palette, brand = prints.colors(rng), prints.word(rng)
    face = np.rot90(prints.front(rng, _pixels(2 * b), _pixels(2 * a), palette, brand))
    # Once around: the face above, the back below.
    around = np.concatenate([np.rot90(prints.back(rng, _pixels(2 * b), _pixels(2 * a), palette)), face])
    image = np.ascontiguousarray(np.rot90(around, -1))
    pieces: Pieces = [(loft(rings, True, True), image)]
    return assembled(pieces, bands(rings, [0, 2, 5, 8, 10]), "object", 0.45)


def spray(rng: np.random.Generator) -> DrawnObject:
    """A spray bottle: a flat or round body, a neck, and a head with a nozzle and a trigger of another color."""
    r, h = rng.uniform(0.032, 0.048), rng.uniform(0.13, 0.2)
    power, squeeze = rng.uniform(2.0, 4.5), rng.uniform(0.6, 1.0)
    profile = np.array(
        [
            (0.93 * r, 0),
            (r, 0.005),
            (r, 0.12 * h),
            (r * rng.uniform(0.8, 1.0), 0.68 * h),
            (0.4 * r, 0.92 * h),
            (0.36 * r, h),
        ]
    )
    rings = lathe(profile, power=power, squeeze=squeeze)
    skin = prints.plain(random_color(rng), rng)
    pieces = stacked(
        rings, [2, 3], [skin, prints.wrap(rng, _pixels(0.6 * h), 256, prints.colors(rng), prints.word(rng)), skin]
    )
    head = prints.plain(random_color(rng), rng)
    size = np.array([rng.uniform(0.06, 0.085), 0.024, rng.uniform(0.022, 0.032)])
    center = (-0.15 * size[0], 0.0, h + 0.016 + 0.5 * size[2])
    collar = lathe([(0.42 * r, 0.95 * h), (0.46 * r, h + 0.012), (0.4 * r, h + 0.018)], 16)
    trigger = sweep(
        smooth([(-0.25 * size[0], 0, h + 0.02), (-0.45 * size[0], 0, h - 0.005), (-0.5 * size[0], 0, h - 0.035)], 6),
        (0.004, 0.007),
        8,
        (0, 1, 0),
    )
    pieces += [(s.moved(center), head) for s in box(size, 0.006)]
    pieces += [
        (loft(collar, True, True), head),
        (loft(trigger, True, True), prints.plain(random_color(rng), rng) if rng.uniform() < 0.4 else head),
    ]
    parts = [*bands(rings, [0, 3, 5]), *bands(collar, [0, 2]), block(size, center), *bands(trigger, [0, 5])]
    return assembled(pieces, parts, "bottle", 0.4, lies=True)


def eggs(rng: np.random.Generator) -> DrawnObject:
    """An egg carton with a row of bumps on its lid."""
    n, pitch = int(rng.choice([3, 5, 6])), 0.045
    size = np.array([n * pitch + 0.015, 0.1, rng.uniform(0.045, 0.055)])
    tone = np.array([0.62, 0.6, 0.55]) * rng.uniform(0.7, 1.3) if rng.uniform() < 0.6 else random_color(rng)
    pulp = prints.plain(tone, rng, 0.05)
    rings = np.stack(
        [
            section(0.5 * size[:2] * s, z, 8.0)
            for s, z in ((0.9, 0.0), (1.0, 0.55 * size[2]), (0.98, 0.58 * size[2]), (0.93, size[2]))
        ]
    )
    label = prints.front(rng, 96, 200, prints.colors(rng), prints.word(rng)) if rng.uniform() < 0.6 else pulp
    pieces: Pieces = [(loft(rings, first_cap=True), pulp), (disc(rings[-1]), label)]
    parts = bands(rings, [0, 1, 3])
    for k in range(n):
        for y in (-0.023, 0.023):
            x = (k - 0.5 * (n - 1)) * pitch
            bump = lathe([(0.018, size[2] - 0.002), (0.014, size[2] + 0.007), (0.006, size[2] + 0.01)], 10) + [
                x,
                y,
                0.0,
            ]
            pieces.append((loft(bump, True, True), pulp))
    low, high = size[2] - 0.002, size[2] + 0.01
    parts.append(block((n * pitch - 0.008, 0.08, high - low), (0, 0, 0.5 * (low + high))))
    return assembled(pieces, parts, "box", 0.7, carries=True)


def fruit(rng: np.random.Generator) -> DrawnObject:
    """Apples, oranges, lemons: nearly balls."""
    d = rng.uniform(0.05, 0.09)
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 11)
    radius = 0.5 * d * np.cos(angle)
    radius[[0, -1]] = 0.004
    rings = lathe(np.column_stack([radius, 0.5 * d * (1.0 + np.sin(angle))]), 24)
    hue = np.array([[0.8, 0.12, 0.1], [0.95, 0.55, 0.1], [0.95, 0.85, 0.2], [0.5, 0.7, 0.15]])[rng.integers(4)]
    coarse = rng.normal(size=(5, 6)).astype(np.float32)
    spots = cv2.resize(np.concatenate([coarse, coarse[:, ::-1]], axis=1), (96, 48), interpolation=cv2.INTER_CUBIC)
    skin = np.clip(hue * (1.0 + 0.1 * spots[..., None]) * 255, 0, 255).astype(np.uint8)
    stem = sweep(np.array([[0, 0, 0.93 * d], [0.001, 0, 0.98 * d], [0.003, 0, 1.06 * d]]), 0.002, 6, (0, 1, 0))
    pieces: Pieces = [(loft(rings, True, True), skin)]
    if rng.uniform() < 0.6:
        pieces.append((loft(stem, True, True), prints.plain(np.array([0.3, 0.2, 0.1]), rng)))
    return assembled(pieces, [ball(d)], "ball", 0.52, rolls=True)


def banana(rng: np.random.Generator) -> DrawnObject:
    """A banana, or a bent sausage, that lies on its side."""
    length, r = rng.uniform(0.13, 0.19), rng.uniform(0.014, 0.02)
    t = np.linspace(-1.0, 1.0, 11)
    path = np.column_stack([0.5 * length * t, rng.uniform(0.02, 0.045) * t**2, np.full(11, r)])
    rings = sweep(path, r * np.maximum(1.0 - np.abs(t) ** 5, 0.22) ** 0.6, 10)
    color = np.array([0.93, 0.8, 0.2]) if rng.uniform() < 0.7 else random_color(rng)
    return assembled(
        [(loft(rings, True, True), prints.plain(color, rng, 0.06))], bands(rings, [0, 3, 5, 7, 10]), "object", 0.4
    )
