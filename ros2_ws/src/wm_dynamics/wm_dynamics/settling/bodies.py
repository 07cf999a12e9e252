"""Bodies of a perceived scene as they are simulated: supports that carry, hulls that stand, and a floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import hull_part
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix, rotation_between
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import Array
from wm_dynamics.belief import scene_body
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, geom_points, lowest_point, simplify_hull
from wm_dynamics.mujoco.world import World

FLOOR_BELOW_SUPPORT_M = 0.75
"""Height of a usual table over a floor that was not seen [m]; larger, and what falls off the table lands later."""
FLOOR_SEEN_BELOW_M = (0.4, 1.2)
"""Height of another support over the lowest one [m] at which the lowest is the floor, as below a table. Wider, and a
shelf's lower board is the floor; narrower, and what falls beside the part of the floor that was seen falls on."""
SUPPORT_THICKNESS_M = 0.03
"""Perceived supports are surfaces; they are made at least this thick, downwards. Thinner, and a fast object passes
through within a step; thicker, and what lies beneath a table is inside it."""
SUPPORT_LEVEL_RAD = np.radians(5.0)
"""A support that is tilted by more (a ramp) is neither thickened nor widened."""
EDGE_GAP_M = 0.03
"""Largest distance in height from a support's top at which an object beyond its edge counts as standing on it [m]."""
BASE_REACH_M, BASE_REACH_SHARE = 0.006, 0.08
"""Points of a hull that are let down to its base: so far above its lowest, or by this share of its height, whichever is
more. Larger, and a round bottom stands that would rock; smaller, and noise of the fit makes a flat one rock."""
FLAT_M = 1e-4
"""Points of a part that are all this close to the base stand on it as they are [m]."""


class MakeWorld(Protocol):
    """Makes or finds the compiled world of bodies, a floor, a time step, and pairs that do not collide."""

    def __call__(
        self,
        bodies: Sequence[BodyDef],
        floor_z: float | None,
        timestep: float,
        passing: Sequence[tuple[int, int]] = (),
    ) -> World:
        """The world; it may be shared."""


def make_world(
    bodies: Sequence[BodyDef], floor_z: float | None, timestep: float, passing: Sequence[tuple[int, int]] = ()
) -> World:
    """A compiled world of its own."""
    return World(bodies, floor_z, timestep, passing=passing)


def sample_properties(scene: SceneGraph) -> tuple[Array, Array, Array]:
    """(N,) masses [kg], frictions and restitutions of a sample, within what can be simulated."""
    return (
        np.clip(np.exp(scene.log_mass), 1e-6, 1e5).astype(np.float64),
        np.clip(scene.friction, 0.0, 10.0).astype(np.float64),
        np.clip(scene.restitution, 0.0, 1.0).astype(np.float64),
    )


def simulated_bodies(
    mean: SceneGraph, moves: NDArray[np.bool_], airborne: NDArray[np.bool_], known_exactly: NDArray[np.bool_]
) -> list[BodyDef]:
    """N bodies: supports thickened and widened (``_support``), uncertain hulls at rest with a flat base.

    Args:
        mean: N objects.
        moves, airborne, known_exactly: (N,), see ``ScenePreparation``.
    """
    bodies = [scene_body(mean, i) for i in range(len(mean))]
    stands = ~(moves | airborne | known_exactly | mean.is_static)
    for i in np.flatnonzero(mean.is_static).tolist():
        bodies[i] = _support(mean, bodies, i, np.flatnonzero(stands).tolist())
    for i in np.flatnonzero(~(mean.is_static | moves | known_exactly)).tolist():
        if Shape(int(mean.shapes[i])) == Shape.CONVEX:
            bodies[i] = _flat_based(bodies[i], mean.quaternions[i])
    return bodies


def floor_height(mean: SceneGraph, bodies: list[BodyDef], airborne: NDArray[np.bool_]) -> float:
    """Height [m]: 0.75 m below the lowest support, or at the lowest of what is lower: what has fallen is not in it.

    Where the lowest support lies beneath another as a floor does (``FLOOR_SEEN_BELOW_M``), it is at its top. A
    support's height is that of its box made level. Without supports: right below the lowest object (something that was
    not perceived holds it), or 0.75 m below it when it falls.
    """
    heights: list[float] = []
    bottoms: list[float] = []
    for i, body in enumerate(bodies):
        quaternion = _level(mean.quaternions[i]) if mean.is_static[i] else mean.quaternions[i]
        heights.append(body.static_state[2] if mean.is_static[i] else mean.positions[i, 2])
        bottoms.append(heights[i] + lowest_point(body, quaternion))
    tops = [2.0 * heights[i] - bottoms[i] for i in np.flatnonzero(mean.is_static)]
    if tops:
        lowest_top = min(tops)
        low, high = FLOOR_SEEN_BELOW_M
        if any(low <= top - lowest_top <= high for top in tops):
            return float(min([lowest_top, *(b for b, s in zip(bottoms, mean.is_static, strict=True) if not s)]))
        return float(min(lowest_top - FLOOR_BELOW_SUPPORT_M, min(bottoms)))
    if not bottoms:
        return 0.0
    lowest = int(np.argmin(bottoms))
    return float(bottoms[lowest] - (FLOOR_BELOW_SUPPORT_M if airborne[lowest] else 0.0))


def _support(mean: SceneGraph, bodies: list[BodyDef], index: int, standing: list[int]) -> BodyDef:
    """The static body of a support: its surface, thickened downwards and widened under what stands at its edge.

    Args:
        standing: rows of the objects that it may be widened for.
    """
    body = bodies[index]
    state = body.static_state.copy()
    rotation = quaternion_to_matrix(state[QUATERNION])
    is_surface = mean.class_names[index] == "support" or int(mean.shapes[index]) == Shape.BOX
    if not is_surface or rotation[2, 2] < np.cos(SUPPORT_LEVEL_RAD):
        return body
    extents = mean.extents[index].copy()
    top = state[2] + 0.5 * extents[2]
    if mean.class_names[index] == "support":
        low, high = -0.5 * extents[:2], 0.5 * extents[:2]
        for i in standing:
            bottom = mean.positions[i, 2] + lowest_point(bodies[i], mean.quaternions[i])
            center = (rotation.T @ (mean.positions[i] - state[POSITION]))[:2]
            beyond = np.maximum(np.maximum(low - center, center - high), 0.0).max()
            near = 0.5 * float(np.linalg.norm(mean.extents[i, :2]))
            if abs(bottom - top) < EDGE_GAP_M and beyond + near > 0.0 and beyond < near:
                low, high = np.minimum(low, center - near), np.maximum(high, center + near)
        shift = rotation @ np.array([*(0.5 * (low + high)), 0.0])
        extents[:2] = high - low
        state[POSITION] += shift
    thickness = max(float(extents[2]), SUPPORT_THICKNESS_M)
    state[2] = top - 0.5 * thickness
    extents[2] = thickness
    geom = GeomDef(Shape.BOX, extents, color=body.geoms[0].color)
    return replace(body, geoms=(geom,), static_state=state)


def _level(quaternion: Array) -> Array:
    """A quaternion (4,) xyzw with the axis that points up made vertical, if it is within ``SUPPORT_LEVEL_RAD``."""
    rotation = quaternion_to_matrix(quaternion)
    axes = np.concatenate([rotation.T, -rotation.T])
    up = axes[int(np.argmax(axes @ np.array([0.0, 0.0, 1.0])))]
    if not 1e-6 < np.arccos(np.clip(up[2], -1.0, 1.0)) < SUPPORT_LEVEL_RAD:
        return quaternion
    level = Rotation.from_matrix(rotation_between(up, [0.0, 0.0, 1.0])) * Rotation.from_quat(quaternion)
    return np.asarray(level.as_quat())


def _flat_based(body: BodyDef, quaternion: ArrayLike) -> BodyDef:
    """A hull at rest with a flat base under its lowest points, wide enough for it to stand; of a body of several parts
    under the lowest points of all parts together.

    Points near the lowest (``BASE_REACH_M``, ``BASE_REACH_SHARE``) are let down to its level. If the center is
    not over the base that results (a bottom that was hidden), the outline of the lower half is let down as
    well: it rests, so something under it holds it.
    """
    if len(body.geoms) == 1:
        hull = simplify_hull(body.geoms[0].hull)
        parts = [] if hull is None else [hull]
    else:
        parts = [geom_points(g) for g in body.geoms]
    if not parts:
        return body
    rotation = quaternion_to_matrix(quaternion)
    turned = [part @ rotation.T for part in parts]
    points = np.concatenate(turned)
    lowest, height = float(points[:, 2].min()), float(np.ptp(points[:, 2]))
    reach = max(BASE_REACH_M, BASE_REACH_SHARE * height)
    outline = simplify_hull(points) if len(parts) > 1 else points
    center = (points if outline is None else outline)[:, :2].mean(axis=0)
    while True:
        base = points[points[:, 2] < lowest + reach]
        if _inside(center, base[:, :2]) or reach >= 0.5 * height:
            break
        reach = min(2.0 * reach, 0.5 * height)
    geoms = [
        _let_down(geom, part, lowest, lowest + reach, rotation, len(parts) > 1)
        for geom, part in zip(body.geoms, turned, strict=True)
    ]
    return replace(body, geoms=tuple(geoms))


def _let_down(geom: GeomDef, points: Array, lowest: float, below: float, rotation: Array, is_part: bool) -> GeomDef:
    """A part with copies of its points (P, 3), world axes about the body's origin, that are lower than ``below`` on the
    level ``lowest`` [m]; the part itself where it has none there, or stands on that level flat.
    """
    base = points[points[:, 2] < below].copy()
    if is_part and (not len(base) or base[:, 2].max() < lowest + FLAT_M):
        return geom
    base[:, 2] = lowest
    widened = simplify_hull(np.concatenate([points, base]) @ rotation)
    if widened is None:
        return geom
    if not is_part:
        return replace(geom, hull=widened)
    part = hull_part(widened)
    return replace(
        geom, shape=part.shape, extents=part.extents, position=part.position, quaternion=part.quaternion, hull=part.hull
    )


def _inside(point: Array, polygon: Array) -> bool:
    """True when a point (2,) is in the convex hull of points (P, 2), by an eighth of its size from every edge."""
    if len(polygon) < 3:
        return False
    angles = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    support = (polygon @ directions.T).max(axis=0)
    return bool((support - directions @ point > 0.125 * np.ptp(polygon, axis=0).min()).all())
