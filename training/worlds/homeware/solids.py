"""What collides: convex parts of rings, walls and boxes, hidden behind the mesh that is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from training.worlds.families import WHITE, DrawnObject
from training.worlds.homeware.surfaces import Array, Image, Surface, lathe, loft, paint
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, lowest_point

WALL_PARTS = 7
"""Convex parts around a hollow thing. More are rounder inside, and slower to collide in proportion."""
LEAST_WALL_M = 0.005
"""Least thickness [m] of walls that collide; they thicken inwards. Thinner ones let fast things through in a step."""

Pieces = list[tuple[Surface, Image]]


def hull(points: ArrayLike) -> GeomDef:
    """The convex hull of points (P, 3) [m]."""
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    return GeomDef(Shape.CONVEX, np.ptp(p, axis=0), hull=p, color=WHITE, hidden=True)


def block(size: ArrayLike, center: ArrayLike) -> GeomDef:
    """A box of full size (3,) at a center (3,) [m]."""
    return GeomDef(Shape.BOX, np.asarray(size, float), position=np.asarray(center, float), color=WHITE, hidden=True)


def cylinder(radius: float, low: float, high: float) -> GeomDef:
    """An upright cylinder about z between two heights [m]."""
    size = np.array([2.0 * radius, 2.0 * radius, high - low])
    center = np.array([0.0, 0.0, 0.5 * (low + high)])
    return GeomDef(Shape.CYLINDER, size, position=center, color=WHITE, hidden=True)


def ball(diameter: float) -> GeomDef:
    """A sphere that lies on z = 0 [m]."""
    center = np.array([0.0, 0.0, 0.5 * diameter])
    return GeomDef(Shape.SPHERE, np.full(3, diameter), position=center, color=WHITE, hidden=True)


def bands(rings: Array, breaks: Sequence[int]) -> list[GeomDef]:
    """Hulls of the rings (P, S, 3) between consecutive breaks (indices of rings, both included)."""
    # Every other corner is enough for what is round.
    step = 2 if rings.shape[1] >= 24 else 1
    return [hull(rings[a : b + 1, ::step]) for a, b in itertools.pairwise(breaks)]


def turned(profile: ArrayLike, breaks: Sequence[int]) -> list[GeomDef]:
    """A full body of revolution of a profile (P, 2) of radius and height [m]: cylinders and frusta between breaks."""
    p = np.asarray(profile, dtype=np.float64)
    parts = []
    for a, b in itertools.pairwise(breaks):
        piece = p[a : b + 1]
        if np.ptp(piece[:, 0]) < 2e-4:
            parts.append(cylinder(float(piece[0, 0]), float(piece[0, 1]), float(piece[-1, 1])))
        else:
            parts.append(hull(lathe(piece, 20)))
    return parts


def walls(outside: Array, thickness: float, parts: int = WALL_PARTS) -> list[GeomDef]:
    """Parts around a wall.

    Args:
        outside: (P, S, 3) rings of its outer face from the bottom to the top; each part is the hull of its share of
            them, so the profile must not bulge inwards. S must be a multiple of ``parts``.
        thickness: of the wall [m], at least ``LEAST_WALL_M`` is taken.
    """
    sides = outside.shape[1]
    share = sides // parts
    middle = outside.mean(axis=1, keepdims=True)
    away = outside - middle
    length = np.linalg.norm(away[..., :2], axis=2, keepdims=True)
    inside = middle + away * np.maximum(1.0 - max(thickness, LEAST_WALL_M) / np.maximum(length, 1e-9), 0.05)
    made = []
    for k in range(parts):
        columns = np.arange(k * share, (k + 1) * share + 1) % sides
        outer = outside[:, columns]
        inner = inside[:, columns[[0, -1]]]
        made.append(hull(np.concatenate([outer.reshape(-1, 3), inner.reshape(-1, 3)])))
    return made


def stacked(rings: Array, cuts: Sequence[int], images: Sequence[Image]) -> Pieces:
    """The closed skin of a full body of rings (P, S, 3), with an image for each stretch between the cuts.

    Args:
        cuts: ascending indices of rings, 0 and P - 1 left out, one fewer than there are images.
    """
    ends = [0, *cuts, len(rings) - 1]
    last = len(images) - 1
    return [
        (loft(rings[a : b + 1], first_cap=k == 0, last_cap=k == last), images[k])
        for k, (a, b) in enumerate(itertools.pairwise(ends))
    ]


def vessel(outside: Array, thickness: float, floor: float, skin: Image, lining: Image) -> Pieces:
    """The closed skin of a hollow thing that is open above.

    Args:
        outside: (P, S, 3) rings of its outer face from the bottom to the rim. thickness: of the wall [m].
        floor: height of the floor inside over the lowest ring [m]. skin, lining: images outside and inside.
    """
    middle = outside.mean(axis=1, keepdims=True)
    away = outside - middle
    length = np.linalg.norm(away[..., :2], axis=2, keepdims=True)
    inside = middle + away * np.maximum(1.0 - thickness / np.maximum(length, 1e-9), 0.05)
    low = float(outside[0, 0, 2]) + floor
    inside = inside[inside[:, 0, 2] > low + 1e-4][::-1]
    lowest = inside[-1].copy()
    lowest[:, :2] = inside[-1].mean(axis=0)[:2] + 0.94 * (lowest - inside[-1].mean(axis=0))[:, :2]
    lowest[:, 2] = low
    inner = loft(np.concatenate([outside[-1:], inside, lowest[None]]), last_cap=True)
    return [(loft(outside, first_cap=True), skin), (inner, lining)]


def assembled(
    pieces: Pieces,
    solids: Sequence[GeomDef],
    class_name: str,
    fill: float,
    *,
    carries: bool = False,
    lies: bool = False,
    stands: bool = True,
    rolls: bool = False,
) -> DrawnObject:
    """An object of painted surfaces and the parts that collide, put on z = 0. Arguments as of ``DrawnObject``."""
    rise = np.array([0.0, 0.0, -lowest_point(BodyDef(tuple(solids)), (0.0, 0.0, 0.0, 1.0))])
    solids = [replace(part, position=part.position + rise) for part in solids]
    mesh = paint([(surface.moved(rise), image) for surface, image in pieces])
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    drawn = GeomDef(Shape.BOX, high - low, color=WHITE, visual_only=True, mesh=mesh)
    shape = solids[0].shape if len(solids) == 1 else Shape.CONVEX
    return DrawnObject(
        (*solids, drawn), class_name, fill, carries=carries, lies=lies, stands=stands, rolls=rolls, shape=shape
    )
