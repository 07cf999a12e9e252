"""Families of shapes: objects as bodies of convex parts, drawn at random. Some are held out of training.

A family is a function of a random generator; lengths in meters, z up, the object stands on z = 0 as on a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.rotations import matrix_to_quaternion
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_sim import objects

Array = NDArray[np.float64]

_FIRST = ("box", "ball", "can", "capsule", "mug", "bowl", "plate", "bottle", "tool")
VOCABULARY = (*_FIRST, "cup", "pan", "basket", "tray")
"""Classes of the families seen in training; anything else is an ``object``."""

WHITE = (1.0, 1.0, 1.0, 1.0)
"""RGBA 0..1 of every part."""


@dataclass(frozen=True)
class DrawnObject:
    """A random object of a family.

    Attributes:
        parts: convex parts, z up, standing on z = 0; class_name: of ``VOCABULARY``, or "object".
        fill: volume of the material over that of the bounds; carries: a flat top that something may stand on.
        lies: may also lie on its side (turned about y); stands: may be upright; rolls: is a ball.
        shape: in the ground truth (compound objects are convex hulls).
    """

    parts: tuple[GeomDef, ...]
    class_name: str
    fill: float
    carries: bool = False
    lies: bool = False
    stands: bool = True
    rolls: bool = False
    shape: Shape = Shape.CONVEX


def _box(size: Array, center: tuple[float, float, float]) -> GeomDef:
    return GeomDef(Shape.BOX, np.asarray(size, float), position=np.asarray(center, float), color=WHITE)


def _cylinder(diameter: float, length: float, center: tuple[float, float, float], axis: str = "z") -> GeomDef:
    return _round(Shape.CYLINDER, diameter, length, center, axis)


def _round(shape: Shape, diameter: float, length: float, center: tuple[float, float, float], axis: str) -> GeomDef:
    turns = {
        "z": np.eye(3),
        "x": np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]]),
        "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    }
    return GeomDef(
        shape,
        np.array([diameter, diameter, length]),
        position=np.asarray(center, float),
        quaternion=matrix_to_quaternion(turns[axis]),
        color=WHITE,
    )


def _hull(points: Array) -> GeomDef:
    return GeomDef(Shape.CONVEX, np.ptp(points, axis=0), hull=points, color=WHITE)


def _rings(radii: list[float], heights: list[float], sides: int = 20) -> Array:
    angle = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    return np.concatenate(
        [
            np.column_stack([r * np.cos(angle), r * np.sin(angle), np.full(sides, z)])
            for r, z in zip(radii, heights, strict=True)
        ]
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# -- families of the training set


def box(rng: np.random.Generator) -> DrawnObject:
    """From dice to cereal boxes and books."""
    kind = rng.uniform()
    if kind < 0.25:
        size = np.array([_log_uniform(rng, 0.10, 0.28), _log_uniform(rng, 0.08, 0.22), rng.uniform(0.012, 0.05)])
    elif kind < 0.4:
        size = np.array([rng.uniform(0.05, 0.09), rng.uniform(0.12, 0.22), rng.uniform(0.18, 0.32)])
    else:
        size = np.array([_log_uniform(rng, 0.03, 0.20) for _ in range(3)])
    return DrawnObject((_box(size, (0, 0, 0.5 * size[2])),), "box", 1.0, carries=True, shape=Shape.BOX)


def ball(rng: np.random.Generator) -> DrawnObject:
    """From table tennis balls to small footballs."""
    d = _log_uniform(rng, 0.035, 0.18)
    part = GeomDef(Shape.SPHERE, np.full(3, d), position=np.array([0, 0, 0.5 * d]), color=WHITE)
    return DrawnObject((part,), "ball", np.pi / 6.0, rolls=True, shape=Shape.SPHERE)


def can(rng: np.random.Generator) -> DrawnObject:
    """Cans, jars, rolls of tape, candles."""
    d, h = _log_uniform(rng, 0.035, 0.14), _log_uniform(rng, 0.025, 0.24)
    return DrawnObject(
        (_cylinder(d, h, (0, 0, 0.5 * h)),), "can", np.pi / 4.0, carries=True, lies=True, shape=Shape.CYLINDER
    )


def capsule(rng: np.random.Generator) -> DrawnObject:
    """Lying capsules."""
    d = _log_uniform(rng, 0.03, 0.09)
    length = d * rng.uniform(1.5, 4.0)
    part = _round(Shape.CAPSULE, d, length, (0, 0, 0.5 * length), "z")
    return DrawnObject((part,), "capsule", np.pi / 4.0, stands=False, shape=Shape.CAPSULE)


def mug(rng: np.random.Generator) -> DrawnObject:
    """Mugs and cups with a handle."""
    d = rng.uniform(0.065, 0.11)
    return DrawnObject(tuple(objects.mug(d, d * rng.uniform(0.8, 1.5), WHITE)), "mug", 0.35)


def bowl(rng: np.random.Generator) -> DrawnObject:
    """Open bowls."""
    d = rng.uniform(0.10, 0.24)
    return DrawnObject(tuple(objects.bowl(d, d * rng.uniform(0.28, 0.5), WHITE)), "bowl", 0.25)


def plate(rng: np.random.Generator) -> DrawnObject:
    """Flat plates with a rim."""
    d, h = rng.uniform(0.14, 0.28), rng.uniform(0.015, 0.03)
    foot = _hull(_rings([0.30 * d, 0.36 * d], [0.0, 0.4 * h]))
    rim = _hull(_rings([0.36 * d, 0.5 * d, 0.5 * d], [0.35 * h, 0.85 * h, h]))
    return DrawnObject((foot, rim), "plate", 0.4, carries=True)


def bottle(rng: np.random.Generator) -> DrawnObject:
    """Bottles, standing or lying."""
    d = rng.uniform(0.05, 0.10)
    red, green, blue = (float(v) for v in rng.uniform(0.1, 1.0, 3))
    parts = objects.bottle(d, d * rng.uniform(2.2, 3.8), WHITE, (red, green, blue, 1.0))
    return DrawnObject(tuple(parts), "bottle", 0.6, lies=True)


def hammer(rng: np.random.Generator) -> DrawnObject:
    """A hammer that lies."""
    length, t = rng.uniform(0.18, 0.34), rng.uniform(0.018, 0.03)
    head = rng.uniform(0.07, 0.12)
    z = 0.5 * t * 1.4
    return DrawnObject(
        (_box(np.array([length, t, t]), (0, 0, z)), _box(np.array([1.4 * t, head, 1.4 * t]), (0.5 * length, 0, z))),
        "tool",
        0.4,
    )


def spanner(rng: np.random.Generator) -> DrawnObject:
    """An open-ended spanner that lies."""
    length, w, t = rng.uniform(0.14, 0.30), rng.uniform(0.016, 0.026), rng.uniform(0.010, 0.018)
    jaw = 2.2 * w
    parts = [_box(np.array([length, w, t]), (0, 0, 0.5 * t))]
    parts.append(_box(np.array([w, jaw, t]), (0.5 * length, 0, 0.5 * t)))
    parts += [
        _box(np.array([jaw, 0.6 * w, t]), (0.5 * length + 0.5 * jaw, s * (0.5 * jaw - 0.3 * w), 0.5 * t))
        for s in (-1, 1)
    ]
    return DrawnObject(tuple(parts), "tool", 0.4)


def screwdriver(rng: np.random.Generator) -> DrawnObject:
    """A screwdriver that lies."""
    d, grip, shaft = rng.uniform(0.022, 0.036), rng.uniform(0.08, 0.12), rng.uniform(0.07, 0.16)
    return DrawnObject(
        (_cylinder(d, grip, (0, 0, 0.5 * d), "x"), _cylinder(0.35 * d, shaft, (0.5 * (grip + shaft), 0, 0.5 * d), "x")),
        "tool",
        0.3,
    )


# -- random assemblies of no family: from these the segmenter learns that joined parts are one object


def _attached(rng: np.random.Generator, low: Array, high: Array) -> GeomDef:
    """A primitive that touches the part with these bounds (3,) each [m]: on it, or at one of its sides."""
    size = np.array([_log_uniform(rng, 0.015, 0.14) for _ in range(3)])
    center, half = 0.5 * (low + high), 0.5 * (high - low)
    axis = int(rng.choice(3, p=[0.3, 0.3, 0.4]))
    sign = 1.0 if axis == 2 else float(rng.choice([-1.0, 1.0]))
    # Somewhere on that side, sunk in a little.
    where = center + rng.uniform(-0.8, 0.8, 3) * half
    if rng.uniform() < 0.5:
        where = center.copy()
    where[axis] = center[axis] + sign * (half[axis] + 0.5 * size[axis] - min(0.004, 0.3 * size[axis]))
    return _primitive(rng, size, where)


def _primitive(rng: np.random.Generator, size: Array, center: Array) -> GeomDef:
    """A box, cylinder, frustum or lump that fills a box of this size (3,) at this center (3,) [m]."""
    place = (float(center[0]), float(center[1]), float(center[2]))
    kind = rng.uniform()
    if kind < 0.45:
        return _box(size, place)
    if kind < 0.75:
        axis = ("x", "y", "z")[int(rng.integers(3))]
        along = "xyz".index(axis)
        across = float(min(np.delete(size, along)))
        return _cylinder(across, float(size[along]), place, axis)
    if kind < 0.9:
        sides = int(rng.choice([4, 5, 8, 20]))
        top = rng.uniform(0.3, 1.0)
        points = _rings([0.5, 0.5 * top], [-0.5, 0.5], sides) * size
        return _hull(points * (1.0, 1.0, rng.choice([-1.0, 1.0])) + center)
    points = rng.normal(size=(14, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    return _hull(points * size + center)


def _bounds(part: GeomDef) -> tuple[Array, Array]:
    """Lowest and highest corner (3,) each [m] of a part."""
    if part.hull is not None and len(part.hull):
        return part.hull.min(axis=0), part.hull.max(axis=0)
    x, y, z = part.quaternion[:3]
    size = part.extents
    if part.shape == Shape.CYLINDER:
        size = size[[2, 1, 0]] if abs(y) > 0.5 else size[[0, 2, 1]] if abs(x) > 0.5 else size
    assert abs(z) < 0.5
    return part.position - 0.5 * size, part.position + 0.5 * size


def assembly(rng: np.random.Generator) -> DrawnObject:
    """Two to five parts joined at random, of one texture; in one of five a part has a color of its own."""
    size = np.array([_log_uniform(rng, 0.03, 0.16) for _ in range(3)])
    parts = [_primitive(rng, size, np.zeros(3))]
    for _ in range(int(rng.integers(1, 5))):
        low, high = _bounds(parts[int(rng.integers(len(parts)))])
        parts.append(_attached(rng, low, high))
    corners = [_bounds(p) for p in parts]
    low = np.min([c[0] for c in corners], axis=0)
    high = np.max([c[1] for c in corners], axis=0)
    # No larger than 34 cm, as objects on a table.
    scale = min(1.0, 0.34 / float((high - low).max()))
    foot = np.array([0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), low[2]])
    own = int(rng.integers(len(parts))) if rng.uniform() < 0.2 else -1
    tint = tuple(float(v) for v in rng.uniform(0.1, 1.0, 3))
    made = []
    for k, part in enumerate(parts):
        color = (*tint, 1.0) if k == own else WHITE
        if part.hull is not None and len(part.hull):
            hull = (part.hull - foot) * scale
            made.append(GeomDef(Shape.CONVEX, np.ptp(hull, axis=0), hull=hull, color=color))  # type: ignore[arg-type]
        else:
            made.append(
                GeomDef(
                    part.shape,
                    part.extents * scale,
                    position=(part.position - foot) * scale,
                    quaternion=part.quaternion,
                    color=color,  # type: ignore[arg-type]
                )
            )
    return DrawnObject(tuple(made), "object", 0.35)


def lump(rng: np.random.Generator) -> DrawnObject:
    """One convex part of no family: stones, blocks with slanted sides, prisms of five or eight sides."""
    size = np.array([_log_uniform(rng, 0.04, 0.2) for _ in range(3)])
    if rng.uniform() < 0.4:
        points = _rings([0.5, rng.uniform(0.2, 0.5)], [-0.5, 0.5], int(rng.choice([4, 5, 8]))) * size
    else:
        points = rng.normal(size=(int(rng.integers(8, 24)), 3))
        points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True) * size
    points = points - [0.0, 0.0, points[:, 2].min()]
    return DrawnObject((_hull(points),), "object", 0.5)


# -- families that training never sees


def wedge(rng: np.random.Generator) -> DrawnObject:
    """Triangular prisms."""
    a, b, h = rng.uniform(0.05, 0.16), rng.uniform(0.05, 0.2), rng.uniform(0.04, 0.14)
    tip = rng.uniform(-0.5, 0.5) * a
    points = np.array([[x, s * 0.5 * b, z] for s in (-1, 1) for x, z in ((-0.5 * a, 0.0), (0.5 * a, 0.0), (tip, h))])
    return DrawnObject((_hull(points),), "object", 0.5)


def cone(rng: np.random.Generator) -> DrawnObject:
    """Cones and lampshades."""
    d, h = rng.uniform(0.06, 0.18), rng.uniform(0.06, 0.22)
    return DrawnObject((_hull(_rings([0.5 * d, rng.uniform(0.05, 0.3) * d], [0.0, h])),), "object", 0.4)


def hexagon(rng: np.random.Generator) -> DrawnObject:
    """Hexagonal prisms."""
    d, h = rng.uniform(0.05, 0.14), rng.uniform(0.03, 0.2)
    return DrawnObject((_hull(_rings([0.5 * d, 0.5 * d], [0.0, h], 6)),), "object", 0.65, carries=True)


def cross(rng: np.random.Generator) -> DrawnObject:
    """Thick crosses."""
    a, w, h = rng.uniform(0.08, 0.2), rng.uniform(0.025, 0.05), rng.uniform(0.03, 0.12)
    return DrawnObject(
        (_box(np.array([a, w, h]), (0, 0, 0.5 * h)), _box(np.array([w, a, h]), (0, 0, 0.5 * h))), "object", 0.45
    )


def dumbbell(rng: np.random.Generator) -> DrawnObject:
    """Two discs on a bar, lying."""
    d, length = rng.uniform(0.05, 0.11), rng.uniform(0.12, 0.26)
    w = rng.uniform(0.02, 0.05)
    ends = [_cylinder(d, w, (s * 0.5 * (length - w), 0, 0.5 * d), "x") for s in (-1, 1)]
    return DrawnObject((_cylinder(0.4 * d, length, (0, 0, 0.5 * d), "x"), *ends), "object", 0.4)


def pan(rng: np.random.Generator) -> DrawnObject:
    """A pan with a long handle."""
    d, h = rng.uniform(0.14, 0.24), rng.uniform(0.03, 0.06)
    handle = rng.uniform(0.12, 0.18)
    return DrawnObject(
        (
            *objects.bowl(d, h, WHITE),
            _box(np.array([handle, 0.022, 0.014]), (0.5 * d + 0.5 * handle - 0.008, 0, 0.85 * h)),
        ),
        "object",
        0.2,
    )


def stool(rng: np.random.Generator) -> DrawnObject:
    """A small stool: a seat on four legs."""
    a, h, t = rng.uniform(0.08, 0.18), rng.uniform(0.07, 0.18), rng.uniform(0.012, 0.02)
    legs = [
        _box(np.array([t, t, h]), (sx * 0.5 * (a - t), sy * 0.5 * (a - t), 0.5 * h)) for sx in (-1, 1) for sy in (-1, 1)
    ]
    return DrawnObject((*legs, _box(np.array([a, a, t]), (0, 0, h + 0.5 * t))), "object", 0.3, carries=True)


def glass(rng: np.random.Generator) -> DrawnObject:
    """A goblet: foot, stem and cup."""
    d, h = rng.uniform(0.06, 0.09), rng.uniform(0.13, 0.22)
    return DrawnObject(
        (
            _cylinder(0.9 * d, 0.008, (0, 0, 0.004)),
            _cylinder(0.14 * d, 0.45 * h, (0, 0, 0.225 * h)),
            _hull(_rings([0.12 * d, 0.46 * d, 0.5 * d], [0.42 * h, 0.62 * h, h])),
        ),
        "object",
        0.25,
    )


Family = Callable[[np.random.Generator], DrawnObject]

TRAINING: dict[str, tuple[Family, float]] = {
    "box": (box, 3.0),
    "ball": (ball, 1.6),
    "can": (can, 1.8),
    "capsule": (capsule, 0.6),
    "mug": (mug, 1.3),
    "bowl": (bowl, 0.9),
    "plate": (plate, 0.7),
    "bottle": (bottle, 1.0),
    "hammer": (hammer, 0.4),
    "spanner": (spanner, 0.4),
    "screwdriver": (screwdriver, 0.4),
}
"""Name: family and how often it is drawn."""

ASSEMBLIES: dict[str, tuple[Family, float]] = {**TRAINING, "assembly": (assembly, 11.0), "lump": (lump, 2.0)}
"""What the segmenter also learns from: about half of these objects are of no family at all."""

STACKED: dict[str, tuple[Family, float]] = {**TRAINING, "box": (box, 9.0), "can": (can, 3.0)}
"""Of the split ``stacks``: mostly what stands firmly on another."""

HELD_OUT: dict[str, tuple[Family, float]] = {
    "wedge": (wedge, 1.0),
    "cone": (cone, 1.0),
    "hexagon": (hexagon, 1.0),
    "cross": (cross, 1.0),
    "dumbbell": (dumbbell, 1.0),
    "pan": (pan, 1.0),
    "stool": (stool, 1.0),
    "glass": (glass, 1.0),
}


def draw(families: dict[str, tuple[Family, float]], rng: np.random.Generator) -> tuple[str, DrawnObject]:
    """A family by weight, and an object of it."""
    names = list(families)
    weights = np.array([families[n][1] for n in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    return name, families[name][0](rng)
