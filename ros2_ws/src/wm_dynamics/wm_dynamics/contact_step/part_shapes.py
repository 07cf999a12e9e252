"""Shapes of the convex parts of bodies that are not convex, as pairs collide with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.convex_parts import ConvexPart
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import simplify_hull

Array = NDArray[np.float64]

SAME_FACE = 0.9995
"""Cosine of the angle (some 2 degrees) between the normals of two facets that count as one face of a hull."""
LEAST_HALF_M = 5e-4
"""Half extents of a part that spans no volume [m], as in the MuJoCo worlds."""
ROUND_SHARE = 0.02
"""A cylinder whose diameters differ by more of the larger half extent is a prism, as in the MuJoCo worlds."""
_EVEN_DIRECTIONS, _OUTLINE_TIPS = 400, (0.05, 0.15, 0.3)
"""Directions in which an outline is compared: so many evenly spread, and about each axis with these tangents."""


@dataclass(frozen=True)
class PartShape:
    """A convex part of a body, in axes of its own about the body's center of mass.

    Attributes:
        frame: (3, 3) columns: the part's axes in the body's axes. Those of a hull are normal to its largest faces, as
            the search for the nearest points begins along the axes.
        center: (3,) middle of its bounds [m], its axes.
        half, rounding, cylinder: its core as in ``body_tables.PARAMETERS``; of a hull half its bounds.
        radius: about ``center`` that holds it [m].
        hull: (3, N) points [m], its axes; None where the core is the part.
    """

    frame: Array
    center: Array
    half: Array
    rounding: float
    cylinder: bool
    radius: float
    hull: Array | None


def part_shape(part: ConvexPart, center_of_mass: Array, hull_points: int) -> PartShape:
    """The shape of a part.

    Args:
        center_of_mass: (3,) of the body, in the body's frame [m]. hull_points: number of points that stand for a hull.
    """
    half = 0.5 * np.asarray(part.extents, dtype=np.float64)
    is_prism = part.shape == Shape.CYLINDER and abs(half[0] - half[1]) > ROUND_SHARE * half.max()
    is_ellipsoid = part.shape == Shape.SPHERE and half.max() - half.min() > 1e-6
    if part.shape == Shape.CONVEX or is_prism or is_ellipsoid:
        points = simplify_hull(part.points())
        if points is not None:
            return _hull_shape(points - center_of_mass, hull_points)
    frame = quaternion_to_matrix(part.quaternion)
    rounding, is_round = 0.0, part.shape in (Shape.CYLINDER, Shape.CAPSULE)
    radius = 0.5 * float(half[0] + half[1])
    if part.shape == Shape.SPHERE:
        rounding, half = float(half.mean()), np.zeros(3)
    elif part.shape == Shape.CAPSULE:
        rounding = min(radius, float(half[2]))
        half = np.array([0.0, 0.0, half[2] - rounding])
    elif part.shape == Shape.CYLINDER:
        half = np.array([radius, radius, half[2]])
    else:
        half = np.maximum(half, LEAST_HALF_M)
    cylinder = is_round and part.shape == Shape.CYLINDER
    bound = float(np.hypot(half[0], half[2]) if cylinder else np.linalg.norm(half)) + rounding
    center = frame.T @ (np.asarray(part.position, dtype=np.float64) - center_of_mass)
    return PartShape(frame, center, half, rounding, cylinder, bound, None)


def _hull_shape(points: Array, hull_points: int) -> PartShape:
    """Of a hull of points (P, 3) about the center of mass, body axes."""
    frame = face_axes(points)
    local = points @ frame
    low, high = local.min(axis=0), local.max(axis=0)
    center = 0.5 * (low + high)
    radius = float(np.linalg.norm(local - center, axis=1).max())
    half = np.maximum(0.5 * (high - low), LEAST_HALF_M)
    return PartShape(frame, center, half, 0.0, False, radius, spread_points(local, hull_points))


def face_axes(points: Array) -> Array:
    """(3, 3) columns: axes along the normal of the largest face of a hull of points (P, 3), and along that of the
    largest face that is steep to it.
    """
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        return np.eye(3)
    corners = points[hull.simplices]
    normals = np.asarray(hull.equations[:, :3])
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    # Opposite faces count together.
    faces = (np.abs(normals @ normals.T) > SAME_FACE) @ areas
    z = normals[int(np.argmax(faces))]
    across = normals - np.outer(normals @ z, z)
    x = across[int(np.argmax(faces * (np.linalg.norm(across, axis=1) > np.sqrt(0.75))))]
    if np.linalg.norm(x) < 0.5:
        x = np.cross(z, np.eye(3)[int(np.argmin(np.abs(z)))])
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def spread_points(points: Array, count: int) -> Array:
    """(3, count) of points (P, 3) that are far from one another (farthest point sampling); the first again where P is
    less.
    """
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    chosen += [chosen[0]] * (count - len(chosen))
    return np.ascontiguousarray(points[chosen].T)


def outline_points(points: Array, count: int) -> Array:
    """At most ``count`` of points (P, 3) whose convex hull is nearest to that of all: the one after the other that
    reaches farthest out of the hull of those before.

    Directions near the axes count most, as what stands does so on points that a small tip makes the lowest: with points
    spread evenly a pan missed some of its bottom's, and fell over into the table.
    """
    index = np.arange(_EVEN_DIRECTIONS) + 0.5
    polar, azimuth = np.arccos(1.0 - 2.0 * index / len(index)), np.pi * (1.0 + 5.0**0.5) * index
    even = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    around = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
    tips = np.concatenate(
        [np.column_stack([t * np.cos(around), t * np.sin(around), np.ones(len(around))]) for t in _OUTLINE_TIPS]
    )
    near_axes = [np.roll(tips * [1.0, 1.0, sign], axis, axis=1) for axis in range(3) for sign in (-1.0, 1.0)]
    directions = np.concatenate([even, *near_axes])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = points @ directions.T  # (P, D)
    farthest, wanted = reach.argmax(axis=0), reach.max(axis=0)
    covered = reach[farthest[0]]
    chosen = [int(farthest[0])]
    while len(chosen) < count:
        worst = int(np.argmax(wanted - covered))
        if wanted[worst] - covered[worst] < 1e-6:
            break
        chosen.append(int(farthest[worst]))
        covered = np.maximum(covered, reach[chosen[-1]])
    return points[chosen]


def part_shapes(parts: Sequence[ConvexPart], center_of_mass: Array, hull_points: int) -> tuple[PartShape, ...]:
    """``part_shape`` of all parts of a body."""
    return tuple(part_shape(part, center_of_mass, hull_points) for part in parts)
