"""Whether one object is inside another, or on it, where the other has parts: by rays against the parts.

A point is enclosed where level rays from it meet the container on nearly all sides: below the rim of a bowl, between
the walls of a basket; not beside the handle of a hammer or between the legs of a stool. A thing is inside where its
center is enclosed, or where it is longer than the cavity is deep and its lower end is: a spoon that leans on the rim of
a mug. So a ball on a plate with a rim is not inside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import half_spaces
from wm_perception.types import Array

_SIDES = 16
"""Level rays from a point. More are slower, and see narrower gaps between walls."""
_ENCLOSED, _ENCLOSED_WIDTH = 0.75, 0.06
"""Share of the level rays that meet a wall from which a point is enclosed, and how soft that limit is: three walls of
four. Chosen by hand; larger asks for more walls."""
_LEAST_DEEP = 0.35
"""Depth of the lower end below the rim over the container's height, from which a thing that sticks out is inside.
Chosen by hand; larger asks for more."""
_STICK = 1.5
"""Length over width from which a thing may be inside by its lower end alone. Chosen by hand: spoons and bottles are,
balls and cans are not. Larger leaves more of what sticks out to its center."""
_LOWER_END = 0.12
"""Where between its lowest point and its center a thing's lower end is taken to be: above the floor of the cavity.
Chosen by hand; larger is less sensitive to errors of the pose."""
_SUPPORTING_POINTS = 24
"""Lowest points of a thing that are looked at for what is beneath them. Larger is slower, and finds narrower rims."""
_LEVEL = 1e-12
"""Cosine of a line to a plane's normal up to which they are parallel."""
_CACHED = 128
"""Sets of parts whose half-spaces are kept. Larger takes memory."""
_PLANES: OrderedDict[tuple[int, ...], tuple[tuple[ConvexPart, ...], Array, NDArray[np.int64]]] = OrderedDict()


@dataclass(frozen=True)
class Placed:
    """A thing at its place.

    Attributes:
        points: (P, 3) of its surface, world axes [m]; center: (3,) [m]; extents: (3,) full sizes [m].
    """

    points: Array
    center: Array
    extents: Array


class Container:
    """An object of several parts at its pose, world axes.

    Args:
        parts: in the object's frame; position: (3,) [m]; rotation: (3, 3).
    """

    def __init__(self, parts: Sequence[ConvexPart], position: Array, rotation: Array) -> None:
        planes, self._first = _planes_of(tuple(parts))
        self._normals = planes[:, :3] @ rotation.T
        self._offsets = planes[:, 3] - self._normals @ position
        heights = np.concatenate([p.points() for p in parts]) @ rotation[2] + position[2]
        self.bottom, self.top = float(heights.min()), float(heights.max())

    def _cross(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Where P lines enter and leave each of K parts, (K, P) [m] along them; a line misses where enter > leave."""
        gap = origins @ self._normals.T + self._offsets
        speed = directions @ self._normals.T
        with np.errstate(divide="ignore", invalid="ignore"):
            at = -gap / speed
        enter = np.where(speed < -_LEVEL, at, -np.inf)
        leave = np.where(speed > _LEVEL, at, np.where((speed >= -_LEVEL) & (gap > 0.0), -np.inf, np.inf))
        return np.maximum.reduceat(enter, self._first, axis=1).T, np.minimum.reduceat(leave, self._first, axis=1).T

    def enclosure(self, point: Array) -> float:
        """Share of the level rays from a point (3,) that meet the container; 0 where the point is in a part of it."""
        angle = 2.0 * np.pi * (np.arange(_SIDES) + 0.5) / _SIDES
        directions = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(_SIDES)])
        enter, leave = self._cross(np.tile(point, (_SIDES, 1)), directions)
        if ((enter <= 0.0) & (leave > 0.0)).all(axis=1).any():
            return 0.0
        return float(((enter <= leave) & (leave > 0.0)).any(axis=0).mean())

    def height_under(self, points: Array, tolerance: float) -> Array:
        """(P,) height [m] of the highest surface that is under points (P, 3), or less than ``tolerance`` above them.

        -inf: nothing is.
        """
        up = np.tile([0.0, 0.0, 1.0], (len(points), 1))
        enter, leave = self._cross(points, up)
        tops = np.where((enter <= leave) & (leave <= tolerance), leave, -np.inf)
        return np.asarray(points[:, 2] + tops.max(axis=0))


def inside(thing: Placed, container: Container) -> float:
    """Probability 0..1 that a thing is inside a container."""
    found = _soft_enclosure(container.enclosure(thing.center))
    low = float(thing.points[:, 2].min())
    sizes = np.sort(thing.extents)
    if found >= 0.5 or sizes[2] < _STICK * sizes[1]:
        return found
    deep = (container.top - low) / max(container.top - container.bottom, 1e-6)
    # Shallower than the thing is thick, it lies in a hollow rather than in a cavity.
    if deep < _LEAST_DEEP or container.top - low < sizes[1]:
        return found
    end = thing.points[thing.points[:, 2] < low + 0.02].mean(axis=0)
    end = end + _LOWER_END * (thing.center - end)
    return max(found, _soft_enclosure(container.enclosure(end)))


def _soft_enclosure(share: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.clip((share - _ENCLOSED) / _ENCLOSED_WIDTH, -30.0, 30.0))))


def clearance(thing: Placed, container: Container, tolerance: float) -> float:
    """Least height [m] of a thing's underside over a surface beneath it, negative where it sinks in; inf: over none.

    Args:
        tolerance: how far the thing may have sunk in [m].
    """
    lowest = np.argsort(thing.points[:, 2])[:_SUPPORTING_POINTS]
    points = thing.points[lowest]
    gaps = points[:, 2] - container.height_under(points, tolerance)
    return float(gaps[np.abs(gaps).argmin()])


def _planes_of(parts: tuple[ConvexPart, ...]) -> tuple[Array, NDArray[np.int64]]:
    """Half-spaces (F, 4) of all parts that have a volume, part by part, and the first row of each."""
    key = tuple(id(p) for p in parts)
    # Parts are never changed, and those that are kept here keep their identity.
    if key not in _PLANES:
        # Without a volume: a half-space that nothing is in.
        found = [f for f in (half_spaces(p.points()) for p in parts) if len(f)] or [np.array([[0.0, 0.0, 0.0, 1.0]])]
        first = np.cumsum([0, *(len(f) for f in found)])[:-1]
        _PLANES[key] = parts, np.concatenate(found), first
        while len(_PLANES) > _CACHED:
            _PLANES.popitem(last=False)
    return _PLANES[key][1:]
