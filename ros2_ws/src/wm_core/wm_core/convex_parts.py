"""Convex parts of an object that is not convex: the walls of a mug, the head and the handle of a hammer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    """

    shape: Shape
    extents: Array
    position: Array = field(default_factory=lambda: np.zeros(3))
    quaternion: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def points(self) -> Array:
        """Points (P, 3) in the object's frame [m] whose convex hull is (for round shapes: nearly) the part."""
        return surface_points(self.shape, self.extents, self.hull) @ quaternion_to_matrix(self.quaternion).T + (
            self.position
        )


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
    """At most ``limit`` parts: two at a time become their common hull, those first that add the least volume."""
    kept = list(parts)
    if len(kept) <= limit:
        return tuple(kept)
    clouds = [_corners(p.points()) for p in kept]
    volumes = [_volume(c) for c in clouds]
    added: dict[tuple[int, int], float] = {}
    alive = set(range(len(kept)))
    while len(alive) > limit:
        for i, j in itertools.combinations(sorted(alive), 2):
            if (i, j) not in added:
                added[i, j] = _volume(np.concatenate([clouds[i], clouds[j]])) - volumes[i] - volumes[j]
        i, j = min((pair for pair in added if alive.issuperset(pair)), key=lambda pair: (added[pair], pair))
        alive -= {i, j}
        alive.add(len(clouds))
        clouds.append(_corners(np.concatenate([clouds[i], clouds[j]])))
        volumes.append(_volume(clouds[-1]))
    return tuple(kept[k] if k < len(kept) else hull_part(clouds[k]) for k in sorted(alive))


def _corners(points: Array) -> Array:
    """The points that span the convex hull; all of them where they span no volume."""
    try:
        return points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return points


def _volume(points: Array) -> float:
    """Of the convex hull [m^3]; 0 where the points span none."""
    try:
        return float(ConvexHull(points).volume)
    except (QhullError, ValueError):
        return 0.0
