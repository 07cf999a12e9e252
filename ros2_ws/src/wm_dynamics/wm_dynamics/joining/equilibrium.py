"""Whether a body can stay where it is by what it touches alone: static equilibrium with friction.

Contacts only push. With the weight 1 at the center of mass c, a body stays where forces f at the corners p of what it
touches exist with

    sum f = (0, 0, 1),    sum (p - c) x f = 0,    f in the friction cone about the normal at p,

a linear program once the cones are pyramids. Source: T. Bretl and S. Lall, Testing static equilibrium for legged
robots, IEEE Transactions on Robotics 24(4), 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, QhullError

Array = NDArray[np.float64]

SLAB_M = 0.004
"""Thickness of the layers of two bodies that face one another, of which the surface is made that carries [m], beyond
what the two overlap by: errors of tilt of some degrees over a face of some centimeters. Larger makes a face of an edge,
and smaller a point of a face that is seen tilted."""
CONE_SIDES = 8
"""Sides of the pyramid that a friction cone is; with more, the answer is nearer to that of a cone."""
_LENGTH_M = 0.1
"""Length that torques are divided by [m], so that they are about as large as forces."""


@dataclass(frozen=True)
class Touch:
    """A plane convex surface in which two bodies touch.

    Attributes:
        points: (P, 3) its corners, or the one point of it [m].
        normal: (3,) unit vector from the first body to the second.
        area: [m^2], 0 of a point or an edge.
    """

    points: Array
    normal: Array
    area: float

    def reversed(self) -> Touch:
        """The same with the bodies in the other order."""
        return Touch(self.points, -self.normal, self.area)


def touch_between(first: Array, second: Array, normal: Array, overlap_m: float, slab_m: float = SLAB_M) -> Touch:
    """Where the convex hulls of points (P, 3) and (Q, 3) [m] touch.

    Args:
        normal: (3,) unit vector from the first to the second, along which they part.
        overlap_m: their depth in one another along it [m]; negative: the gap between them.
        slab_m: thickness of the layers of both that touch, beyond the depth [m].
    """
    along = np.stack(_tangents(normal), axis=1)
    thickness = max(overlap_m, 0.0) + slab_m
    top, bottom = float((first @ normal).max()), float((second @ normal).min())
    height = 0.5 * (top + bottom)
    own, other = _facing(first, normal, thickness) @ along, _facing(second, -normal, thickness) @ along
    outlines = [_outline(own), _outline(other)]
    common = _clipped(*outlines) if all(len(o) >= 3 for o in outlines) else np.zeros((0, 2))
    if len(common) < 3:
        middle = own.mean(axis=0) if len(own) <= len(other) else other.mean(axis=0)
        return Touch((along @ middle + height * normal)[None], normal, 0.0)
    return Touch(common @ along.T + height * normal, normal, _area(common))


def common_face(touches: Sequence[Touch]) -> tuple[float, float]:
    """Area [m^2] and least width [m] of the convex hull of those touches that face nearly as the largest does.

    Touches of the parts of two bodies are one face where those parts are beside one another; of points, 0.
    """
    if not touches:
        return 0.0, 0.0
    largest = max(touches, key=lambda t: t.area)
    alike = [t.points for t in touches if t.area > 0.0 and float(t.normal @ largest.normal) > np.sqrt(0.5)]
    if not alike:
        return 0.0, 0.0
    outline = _outline(np.concatenate(alike) @ np.stack(_tangents(largest.normal), axis=1))
    if len(outline) < 3:
        return 0.0, 0.0
    edges = np.roll(outline, -1, axis=0) - outline
    across = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1, keepdims=True)
    return _area(outline), float(np.ptp(outline @ across.T, axis=0).min())


def can_rest(center: ArrayLike, margin_m: ArrayLike, touches: Sequence[Touch], friction: float) -> bool:
    """Whether forces at surfaces can carry a body.

    Args:
        center: (3,) its center of mass [m].
        margin_m: (2,) how far that may lie elsewhere along x and y [m]: it counts as resting if it can with any.
        touches: surfaces in which something touches it, the body the second of each.
        friction: coefficient.
    """
    if not touches:
        return False
    c = np.asarray(center, dtype=np.float64)
    angles = 2.0 * np.pi * np.arange(CONE_SIDES) / CONE_SIDES
    forces, arms = [], []
    for touch in touches:
        u, v = _tangents(touch.normal)
        sides = touch.normal + friction * (np.cos(angles)[:, None] * u + np.sin(angles)[:, None] * v)
        forces.append(np.tile(sides, (len(touch.points), 1)))
        arms.append(np.repeat(touch.points - c, CONE_SIDES, axis=0))
    force, arm = np.concatenate(forces), np.concatenate(arms)
    torque = np.cross(arm, force) / _LENGTH_M
    # The weight at c + (x, y, 0) turns by (-y, x, 0).
    shift = np.array([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, -1.0, 0.0, 0.0]]) / _LENGTH_M
    columns = np.concatenate([np.concatenate([force, torque], axis=1), shift])
    wanted = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    margin = np.asarray(margin_m, dtype=np.float64)
    bounds = [(0.0, None)] * len(force) + [(-m, m) for m in margin.tolist()]
    found = linprog(np.zeros(len(columns)), A_eq=columns.T, b_eq=wanted, bounds=bounds, method="highs")
    return bool(found.status == 0)


def _tangents(normal: Array) -> tuple[Array, Array]:
    """Two unit vectors (3,) at right angles to one another and to a normal (3,)."""
    u = np.cross(normal, np.eye(3)[int(np.argmin(np.abs(normal)))])
    u = np.asarray(u / np.linalg.norm(u), dtype=np.float64)
    return u, np.asarray(np.cross(normal, u), dtype=np.float64)


def _facing(points: Array, direction: Array, thickness: float) -> Array:
    """(Q, 3) corners of the part of a hull of points (P, 3) that is at most ``thickness`` [m] below its top."""
    height = points @ direction
    cut = float(height.max()) - thickness
    above = height >= cut
    upper, lower = points[above], points[~above]
    if not len(lower):
        return upper
    # The plane cuts the hull in the hull of where it cuts the lines between all points above and below it.
    over, under = height[above] - cut, cut - height[~above]
    share = (over[:, None] / (over[:, None] + under))[..., None]
    crossings = upper[:, None] + share * (lower - upper[:, None])
    return np.concatenate([upper, crossings.reshape(-1, 3)])


def _outline(points: Array) -> Array:
    """Corners (Q, 2) of the convex hull of points (P, 2), counterclockwise; fewer than three: it has no area."""
    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except (QhullError, ValueError):
        return np.zeros((0, 2))


def _clipped(polygon: Array, window: Array) -> Array:
    """What a convex polygon (P, 2) and a convex window (Q, 2), both counterclockwise, have in common.

    I. Sutherland and G. Hodgman, Reentrant polygon clipping, Communications of the ACM 17(1), 1974.
    """
    for a, b in zip(window, np.roll(window, -1, axis=0), strict=True):
        if not len(polygon):
            break
        edge = b - a
        side = edge[0] * (polygon[:, 1] - a[1]) - edge[1] * (polygon[:, 0] - a[0])
        kept = []
        for p, q, s, t in zip(polygon, np.roll(polygon, -1, axis=0), side, np.roll(side, -1), strict=True):
            if s >= 0.0:
                kept.append(p)
            if (s > 0.0 > t) or (s < 0.0 < t):
                kept.append(p + s / (s - t) * (q - p))
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def _area(polygon: Array) -> float:
    """Area of a polygon (P, 2)."""
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
