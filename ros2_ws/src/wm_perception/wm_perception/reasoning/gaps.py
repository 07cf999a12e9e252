"""Distances between the surfaces of two solids, from surface samples of one to the exact distance of the other.

Of an object of several convex parts, each part is a solid of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from wm_core.convex_parts import ConvexPart
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import hull_planes, signed_distance, surface_distance, surface_samples
from wm_perception.types import Array

Solid = tuple[int, Array, Array]
"""A shape, its full extents (3,) [m] and its hull (P, 3)."""

GAP_SAMPLES = 96
"""Surface samples of a solid for the gaps of relations and of true contacts. Chosen by hand; larger is slower, and gaps
at edges and corners are less overestimated."""
_LEAST_PART_SAMPLES = 24
"""The least of one of several parts: its corners and the middles of its faces."""
_NORMAL_SAMPLES = 64
"""The same for the network's features, of which every step needs many; the network was trained with it."""


def planes_of(solid: Solid) -> Array | None:
    """Half-spaces of a convex hull; None where the shape needs none or the hull is flat (it then counts as a box)."""
    shape, _, hull = solid
    if shape != Shape.CONVEX or len(hull) < 4:
        return None
    try:
        return hull_planes(hull)
    except ValueError:
        return None


def gaps_between(
    first: Solid, second: Solid, positions_a: Array, rotations_a: Array, positions_b: Array, rotations_b: Array
) -> Array:
    """(T,) distance of the surfaces [m] of two solids at T poses, negative where they overlap.

    From surface samples of one to the exact distance of the other, both ways.

    Args:
        positions_a, positions_b: (T, 3); rotations_a, rotations_b: (T, 3, 3).
    """
    result = np.full(len(positions_a), np.inf)
    ways = (
        (first, second, positions_a, rotations_a, positions_b, rotations_b),
        (second, first, positions_b, rotations_b, positions_a, rotations_a),
    )
    for one, other, p, r, q, s in ways:
        local, _ = surface_samples(one[0], one[1], one[2], GAP_SAMPLES)
        turn = np.einsum("tji,tjk->tik", s, r)
        shift = np.einsum("tji,tj->ti", s, p - q)
        points = np.einsum("tik,pk->tpi", turn, local) + shift[:, None]
        distance = surface_distance(other[0], other[1], points.reshape(-1, 3), planes_of(other))
        result = np.minimum(result, distance.reshape(len(p), -1).min(axis=1))
    return result


def gap_and_normal(
    first: Solid, second: Solid, position_a: Array, rotation_a: Array, position_b: Array, rotation_b: Array
) -> tuple[float, Array]:
    """Distance of the surfaces [m] and the direction (3,) from the first to the second where they are nearest."""
    best, normal = np.inf, np.zeros(3)
    ways = (
        (first, second, position_a, rotation_a, position_b, rotation_b, -1.0),
        (second, first, position_b, rotation_b, position_a, rotation_a, 1.0),
    )
    for one, other, p, r, q, t, sign in ways:
        local, _ = surface_samples(*one, _NORMAL_SAMPLES)
        points = (local @ r.T + (p - q)) @ t
        planes = planes_of(other)
        distance = surface_distance(other[0], other[1], points, planes)
        nearest = int(distance.argmin())
        if distance[nearest] < best:
            gradient = signed_distance(other[0], other[1], points[nearest : nearest + 1], planes)[1][0]
            best, normal = float(distance[nearest]), sign * (t @ gradient)
    return best, normal


@dataclass(frozen=True)
class Pieces:
    """The convex parts of one object, or the one solid of an object without parts.

    Attributes:
        solids: K shapes; positions: (K, 3) [m] and rotations: (K, 3, 3) of each in the object's frame.
    """

    solids: tuple[Solid, ...]
    positions: Array
    rotations: Array
    _samples: dict[int, Array] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, solid: Solid, parts: Sequence[ConvexPart] = ()) -> Pieces:
        """The parts, or the solid where there are none."""
        if not parts:
            return cls((solid,), np.zeros((1, 3)), np.eye(3)[None])
        return cls(
            tuple((int(p.shape), np.asarray(p.extents), np.asarray(p.hull)) for p in parts),
            np.array([p.position for p in parts]),
            quaternion_to_matrix(np.array([p.quaternion for p in parts])),
        )

    def samples(self, count: int) -> Array:
        """About ``count`` points (P, 3) of the surfaces of all parts, object frame [m]."""
        if count not in self._samples:
            each = max(count // len(self.solids), min(count, _LEAST_PART_SAMPLES))
            self._samples[count] = np.concatenate(
                [
                    surface_samples(*solid, each)[0] @ r.T + p
                    for solid, p, r in zip(self.solids, self.positions, self.rotations, strict=True)
                ]
            )
        return self._samples[count]

    @cached_property
    def planes(self) -> tuple[Array | None, ...]:
        """``planes_of`` each part."""
        return tuple(planes_of(solid) for solid in self.solids)

    def nearest(self, points: Array) -> tuple[float, int, int]:
        """The least distance [m] of any part to points (P, 3) in the object's frame, and which point and part it is."""
        best, point, part = np.inf, 0, 0
        for k, (solid, position, rotation) in enumerate(zip(self.solids, self.positions, self.rotations, strict=True)):
            found = surface_distance(solid[0], solid[1], (points - position) @ rotation, self.planes[k])
            at = int(found.argmin())
            if found[at] < best:
                best, point, part = float(found[at]), at, k
        return best, point, part

    def gradient(self, point: Array, part: int) -> Array:
        """(3,) of the distance of a part at a point (3,), both in the object's frame."""
        solid, rotation = self.solids[part], self.rotations[part]
        local = ((point - self.positions[part]) @ rotation)[None]
        return np.asarray(rotation @ signed_distance(solid[0], solid[1], local, self.planes[part])[1][0])


def gap_of_pieces(
    first: Pieces,
    second: Pieces,
    position_a: Array,
    rotation_a: Array,
    position_b: Array,
    rotation_b: Array,
    samples: int = _NORMAL_SAMPLES,
) -> tuple[float, Array]:
    """As ``gap_and_normal``, of objects of which at least one has parts."""
    best, normal = np.inf, np.zeros(3)
    ways = (
        (first, second, position_a, rotation_a, position_b, rotation_b, -1.0),
        (second, first, position_b, rotation_b, position_a, rotation_a, 1.0),
    )
    for one, other, p, r, q, t, sign in ways:
        points = (one.samples(samples) @ r.T + (p - q)) @ t
        distance, point, part = other.nearest(points)
        if distance < best:
            best, normal = distance, sign * (t @ other.gradient(points[point], part))
    return best, normal
