"""Solids that an outline and its multiples make at ascending heights, cut into nearly convex pieces."""

from __future__ import annotations

import itertools

import numpy as np

from wm_core.convex_parts import ConvexPart, hull_part
from wm_perception.shapes.rim import Rim
from wm_perception.shapes.surfaces import Array

_ROUND = 24
"""Corners of a round floor."""
_DEEP_PART = 0.12
"""Depth of a groove, as a part of the largest radius, from which a profile is cut there. Larger fills more grooves."""


def ellipse_points(rim: Rim, angles: Array, factor: float, height: float) -> Array:
    """(A, 3) points of an ellipse's multiple at angles from its first axis."""
    local = factor * np.stack([np.cos(angles), np.sin(angles)], axis=1) * rim.half
    return np.column_stack([rim.world(local), np.full(len(angles), height)])


def solid_of(rim: Rim, profile: Array) -> ConvexPart:
    """The hull of multiples of the rim; profile (K, 2) are factor and height."""
    rows = []
    for factor, height in profile:
        if rim.elliptic:
            angles = 2.0 * np.pi * np.arange(_ROUND) / _ROUND
            rows.append(ellipse_points(rim, angles, factor / np.sqrt(np.cos(np.pi / _ROUND)), height))
        else:
            local = np.array(list(itertools.product((-1.0, 1.0), repeat=2))) * rim.half * factor
            rows.append(np.column_stack([rim.world(local), np.full(4, height)]))
    return hull_part(np.concatenate(rows))


def convex_pieces(profile: Array, limit: int) -> list[Array]:
    """A profile (K, 2) of radius and height, heights ascending, cut into at most ``limit`` nearly convex pieces.

    Cut is where a piece lies deepest inside its convex hull.
    """
    pieces = [np.asarray(profile, np.float64)]
    deep = _DEEP_PART * float(pieces[0][:, 0].max())
    while len(pieces) < limit:
        depths = [_depths(piece) for piece in pieces]
        k = int(np.argmax([d.max() for d in depths]))
        if depths[k].max() < deep:
            break
        row = int(depths[k].argmax())
        pieces[k : k + 1] = [pieces[k][: row + 1], pieces[k][row:]]
    return pieces


def _depths(piece: Array) -> Array:
    """(K,) how far the rows lie inside the hull of a profile, in radius."""
    upper: list[int] = []
    for k, (radius, height) in enumerate(piece):
        # As Andrew's monotone chain: a corner that lies within the line from its neighbors is none.
        while len(upper) >= 2:
            (r0, z0), (r1, z1) = piece[upper[-2]], piece[upper[-1]]
            if (r1 - r0) * (height - z0) <= (radius - r0) * (z1 - z0):
                upper.pop()
            else:
                break
        upper.append(k)
    return np.asarray(np.interp(piece[:, 1], piece[upper, 1], piece[upper, 0]) - piece[:, 0])
