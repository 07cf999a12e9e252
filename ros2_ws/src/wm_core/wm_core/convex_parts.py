"""Convex parts of an object that is not convex: the walls of a mug, the head and the handle of a hammer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.rotations import quaternion_to_matrix
from wm_core.shapes import Shape

Array = NDArray[np.float64]

MAX_PARTS = 12
"""Parts of one object. More follow a shape more closely, and cost time in every step in which something is near."""


@dataclass(frozen=True)
class ConvexPart:
    """One convex part of an object.

    Attributes:
        shape, extents: as in wm_msgs/SceneObject; extents (3,) [m].
        position, quaternion: pose of the part in the object's frame [m, xyzw].
        hull: (P, 3) points in the part's frame [m] of a ``CONVEX`` part; (0, 3) else.

    Raises:
        ValueError: a number is not finite, an extent is negative, or an array has another shape.
    """

    shape: Shape
    extents: Array
    position: Array = field(default_factory=lambda: np.zeros(3))
    quaternion: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self) -> None:
        for name, size in (("extents", 3), ("position", 3), ("quaternion", 4)):
            value = np.asarray(getattr(self, name))
            if value.shape != (size,) or not np.isfinite(value).all():
                raise ValueError(f"ConvexPart.{name}: got {value.tolist()}, expected {size} finite numbers")
        if min(self.extents) < 0.0:
            raise ValueError(f"ConvexPart.extents: got {np.asarray(self.extents).tolist()}, expected none < 0")
        hull = np.asarray(self.hull)
        if hull.ndim != 2 or hull.shape[1] != 3 or not np.isfinite(hull).all():
            raise ValueError(f"ConvexPart.hull: got an array of shape {hull.shape}, expected (P, 3) finite numbers")

    def points(self) -> Array:
        """Points (P, 3) in the object's frame [m] whose convex hull is (for round shapes: nearly) the part."""
        return self._points

    @cached_property
    def rotation(self) -> Array:
        """(3, 3) the object's frame from the part's."""
        return _fixed(quaternion_to_matrix(self.quaternion))

    @cached_property
    def _points(self) -> Array:
        return _fixed(surface_points(self.shape, self.extents, self.hull) @ self.rotation.T + self.position)


def _fixed(array: Array) -> Array:
    """An array that is kept, so that nobody may write into it."""
    array.flags.writeable = False
    return array


def _sphere_points(count: int) -> Array:
    index = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1.0 - 2.0 * index / count), np.pi * (1.0 + 5.0**0.5) * index
    unit = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    return np.concatenate([unit, np.eye(3), -np.eye(3)])


_UNIT_SPHERE = _sphere_points(200)
_RING_SIDES = 24


def surface_points(shape: int, extents: ArrayLike, hull: ArrayLike) -> Array:
    """Points (P, 3) [m] whose convex hull is (for round shapes: nearly) a shape, in the shape's frame.

    Args:
        shape, extents: as in wm_msgs/SceneObject; extents (3,) [m]. hull: (P, 3) points [m] of ``CONVEX``.
    """
    half = 0.5 * np.asarray(extents, dtype=np.float64)
    points = np.asarray(hull, dtype=np.float64).reshape(-1, 3)
    if shape == Shape.CONVEX and len(points):
        return points
    if shape == Shape.SPHERE:
        return _UNIT_SPHERE * half
    if shape == Shape.CAPSULE:
        radius = min(0.5 * (half[0] + half[1]), half[2])
        local = _UNIT_SPHERE * radius
        local[:, 2] += np.sign(_UNIT_SPHERE[:, 2]) * (half[2] - radius)
        return local
    if shape == Shape.CYLINDER:
        angle = np.linspace(0.0, 2.0 * np.pi, _RING_SIDES, endpoint=False)
        ring = np.stack([half[0] * np.cos(angle), half[1] * np.sin(angle), np.full(_RING_SIDES, half[2])], axis=1)
        return np.concatenate([ring, ring * [1.0, 1.0, -1.0]])
    return np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * half


def hull_part(points: ArrayLike) -> ConvexPart:
    """The ``CONVEX`` part of points (P, 3) in the object's frame [m]; its frame is at the center of their bounds."""
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    low, high = p.min(axis=0), p.max(axis=0)
    center = 0.5 * (low + high)
    return ConvexPart(Shape.CONVEX, np.maximum(high - low, 1e-4), center, hull=p - center)


def merged(parts: Sequence[ConvexPart], limit: int = MAX_PARTS) -> tuple[ConvexPart, ...]:
    """At most ``limit`` parts: two at a time become their common hull, those first whose hull fills the least depth.

    The depth of what is filled, not its volume: two segments of a wall may merge before the bars of a handle do, whose
    hole is small and is what a hook goes through.
    """
    kept = list(parts)
    if len(kept) <= limit:
        return tuple(kept)
    solids = [_Solid.of(p.points()) for p in kept]
    filled: dict[tuple[int, int], float] = {}
    alive = set(range(len(kept)))
    while len(alive) > limit:
        for i, j in itertools.combinations(sorted(alive), 2):
            if (i, j) not in filled:
                filled[i, j] = round(solids[i].depth_between(solids[j]), _EQUAL_DIGITS)
        i, j = min((pair for pair in filled if alive.issuperset(pair)), key=lambda pair: (filled[pair], pair))
        alive -= {i, j}
        alive.add(len(solids))
        solids.append(_Solid.of(np.concatenate([solids[i].corners, solids[j].corners])))
    return tuple(kept[k] if k < len(kept) else hull_part(solids[k].corners) for k in sorted(alive))


@dataclass(frozen=True)
class _Solid:
    """A convex hull: corners (P, 3) [m], and half-spaces (F, 4), inside where ``A p + b <= 0``; none: no volume."""

    corners: Array
    planes: Array

    @staticmethod
    def of(points: Array) -> _Solid:
        try:
            hull = ConvexHull(points)
        except (QhullError, ValueError):
            return _Solid(points, np.zeros((0, 4)))
        return _Solid(points[hull.vertices], np.unique(np.round(hull.equations, 6), axis=0))

    def outside(self, points: Array) -> Array:
        """(P,) how far points (P, 3) are outside [m], at least; to the nearest corner where it has no volume."""
        if len(self.planes):
            return np.asarray((points @ self.planes[:, :3].T + self.planes[:, 3]).max(axis=1))
        return np.asarray(np.linalg.norm(points[:, None] - self.corners, axis=2).min(axis=1))

    def depth_between(self, other: _Solid) -> float:
        """Largest distance [m] from both, of points between their corners: what a common hull would fill."""
        a, b = self.corners[:, None, None], other.corners[None, :, None]
        between = (a + _SHARES * (b - a)).reshape(-1, 3)
        return float(np.minimum(self.outside(between), other.outside(between)).max())


_EQUAL_DIGITS = 4
"""Depths [m] that are equal to so many digits are: walls around a circle merge in their order, by twos, and not as
rounding has it, by threes and ones."""
_SHARES = np.array([0.25, 0.5, 0.75])[:, None]
"""Where points between two corners are looked at."""
