"""Distances between the surfaces of two solids, from surface samples of one to the exact distance of the other."""

from __future__ import annotations

import numpy as np

from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import hull_planes, signed_distance, surface_samples
from wm_perception.types import Array

Solid = tuple[int, Array, Array]
"""A shape, its full extents (3,) [m] and its hull (P, 3)."""

GAP_SAMPLES = 96
"""Surface samples of a solid for the gaps of relations and of true contacts. Chosen by hand; larger is slower, and gaps
at edges and corners are less overestimated."""
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
        distance, _ = signed_distance(other[0], other[1], points.reshape(-1, 3), planes_of(other))
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
        distance, gradient = signed_distance(other[0], other[1], points, planes_of(other))
        nearest = int(distance.argmin())
        if distance[nearest] < best:
            best, normal = float(distance[nearest]), sign * (t @ gradient[nearest])
    return best, normal
