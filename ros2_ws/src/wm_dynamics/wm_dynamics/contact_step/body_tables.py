"""Tables of rigid bodies for the learned dynamics: inputs of its network for a body and the surface beneath it.

Arrays are components first, bodies (B) last, as in the network; SI units, world axes, z up. A body's dynamics
frame has its origin at the center of mass and the axes of the body frame.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.constants import GRAVITY_M_S2
from wm_core.rotations import quaternion_to_matrix
from wm_core.roundness import is_of_revolution
from wm_core.scene_graph import Shape
from wm_dynamics.contact_step.part_shapes import PartShape, outline_points, part_shapes, spread_points
from wm_dynamics.mujoco.bodies import BodyDef, body_parts, body_points, simplify_hull
from wm_dynamics.mujoco.world import ROLLING_COEFFICIENT, TORSIONAL_COEFFICIENT_M, World

Array = NDArray[np.float64]
Table = NDArray[np.float32]

STEP_S = 1.0 / 60.0
"""The fixed step of the network."""
LEAST_PROTRUSION_M, PROTRUSION_SHARE = 0.003, 0.05
"""A round hull that bulges by more [m], or by more of its radius, between the two rims that it would lie on lies on its
points instead. Larger, and a bowl on its side sinks; smaller, and a barrel does not roll."""
HULL_POINTS = 64
"""Points that stand for a hull: as many as ``simplify_hull`` leaves at most."""
KEPT_SHAPES = 256
"""Shapes that are remembered: those of one request. Perception measures a body anew in every frame, so that shapes of
the requests before hardly ever come again."""
VERSION = 2
"""Of the tables below; a model made for another is refused."""
SLOW_START_M_S = 0.02
"""Speed of a body's surface below which the body is at rest at the start [m/s]."""
HOVER_M = 0.004
"""A body at rest this close above its surface at the start stands on it [m]; larger, and what was let go just above a
surface does not fall."""
MAX_SLACK_M = 0.03
"""Deepest overlap at the start that counts as an error of the shapes and is allowed to stay [m]; what is deeper is
pushed out."""
SUNK_M = 0.02
"""A body whose center lies by up to this below a surface still lies on it [m]: larger, and what falls past an edge is
lifted onto it."""
SUPPORT_MARGIN_M = 0.01
"""A body and a support are a near pair when the body's bounding ball is closer than this to the support's box [m]. A
body at 0.6 m/s covers it in one step."""
FLOOR_HALF_M = 1e4
"""Half extents of the floor [m]: no world reaches so far."""

PARAMETERS: dict[str, int] = {
    "inverse_mass": 1,  # [1/kg], 0 for what is static or follows a path
    "inertia": 9,  # [kg m^2], row-major, body axes, about the center of mass
    "inverse_inertia": 9,  # [1/(kg m^2)], 0 where inverse_mass is
    "center": 3,  # geometric center in the dynamics frame [m]
    "half": 3,  # half extents of the core: box, or cylinder about z with half[0] as its radius [m]
    "rounding": 1,  # radius about the core [m]: of spheres (core 0) and capsules (core a segment)
    "cylinder": 1,  # 1: the core is a cylinder
    "rims": 4,  # of round bodies: radius and height of the lower rim, then of the upper one, about the center [m]
    "friction": 1,
    "restitution": 1,
    "rolling": 1,  # rolling resistance [m]
    "torsion": 1,  # torsional resistance [m]
    "falls": 1,  # 1: gravity and the surface beneath act on it
}
"""Rows of the parameter table, in this order, with their sizes."""
PARAMETER_ROWS = sum(PARAMETERS.values())
ROWS: dict[str, slice] = {}
for _name, _size in PARAMETERS.items():
    _begin = ROWS[next(reversed(ROWS))].stop if ROWS else 0
    ROWS[_name] = slice(_begin, _begin + _size)
PLANE_ROWS = 7
"""Surface beneath a body: height, center x, y, cos and sin of its yaw, half extents x, y [m]."""


@dataclass(frozen=True)
class BodyShape:
    """The properties of a body that do not depend on its mass, friction and restitution.

    Attributes:
        offset: (3,) center of mass in the body frame [m].
        inertia: (3, 3) per kilogram, body axes, about the center of mass [m^2].
        center: (3,) geometric center from the center of mass [m].
        half: (3,) half extents of the core [m]; rounding: radius about it [m]; cylinder: whether the core is one;
            rims: (4,) [m]; all as in ``PARAMETERS``.
        bound: radius about the center of mass that holds the whole body [m].
        rolling, torsion: resistances [m].
        hull: (3, HULL_POINTS) from the center of mass [m], or None for boxes, balls, cylinders and capsules. Pairs
            collide with it; a hull that is ``cylinder``, too, stands and lies on its rims, so that it rolls.
        parts: of a body that is not convex, what pairs collide with instead; empty: it is its core or its hull.
    """

    offset: Array
    inertia: Array
    center: Array
    half: Array
    rounding: float
    cylinder: bool
    rims: Array
    bound: float
    rolling: float
    torsion: float
    hull: Array | None
    parts: tuple[PartShape, ...] = ()


@dataclass(frozen=True, eq=False)
class _Keyed:
    """A body by its geometry, for the cache."""

    body: BodyDef
    key: tuple[object, ...]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


def body_shape(body: BodyDef) -> BodyShape:
    """The shape of a body; bodies of one geometry share one.

    Center of mass and inertia are those that MuJoCo computes of the same parts, so they are equal in both backends. A
    body of several parts stands and rolls as their convex hull, its outline; pairs collide with the parts.
    """
    free = BodyDef(tuple(replace(g, material="") for g in body.geoms))
    # Not ``BodyDef.shape_key``: colors, as a camera sees them, change from frame to frame.
    key = tuple(
        (
            int(g.shape),
            g.extents.tobytes(),
            g.position.tobytes(),
            g.quaternion.tobytes(),
            g.hull.tobytes(),
            g.visual_only,
        )
        for g in free.geoms
    )
    return _shape(_Keyed(free, key))


@functools.lru_cache(maxsize=KEPT_SHAPES)
def _shape(keyed: _Keyed) -> BodyShape:
    body = keyed.body
    model = World([body], None, 0.004, touch_sensors=False).model
    b = 1
    mass = float(model.body_mass[b])
    turn = quaternion_to_matrix(np.roll(model.body_iquat[b], -1))
    inertia = turn @ np.diag(model.body_inertia[b] / mass) @ turn.T
    offset = np.array(model.body_ipos[b])
    solid = [g for g in body.geoms if not g.visual_only]
    part = solid[0]
    extents = np.asarray(part.extents, dtype=np.float64)
    plain = len(solid) == 1 and not part.position.any() and abs(part.quaternion[3]) > 1.0 - 1e-9
    round_ = part.shape in (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE)
    rolling = ROLLING_COEFFICIENT * 0.25 * float(extents[0] + extents[1]) if plain and round_ else 0.0
    turns_rubbing = any(g.shape != Shape.BOX for g in solid)
    torsion = TORSIONAL_COEFFICIENT_M if turns_rubbing else 0.0
    hull: Array | None = None
    middle, rounding, cylinder, rims, reach = np.zeros(3), 0.0, False, None, 0.0
    if plain and part.shape == Shape.SPHERE:
        half, rounding = np.zeros(3), 0.5 * float(extents.mean())
    elif plain and part.shape == Shape.CAPSULE:
        rounding = min(0.25 * float(extents[0] + extents[1]), 0.5 * float(extents[2]))
        half = np.array([0.0, 0.0, 0.5 * float(extents[2]) - rounding])
    elif plain and part.shape == Shape.CYLINDER:
        radius = 0.25 * float(extents[0] + extents[1])
        half, cylinder = np.array([radius, radius, 0.5 * float(extents[2])]), True
    elif plain and part.shape == Shape.BOX:
        half = 0.5 * extents
    else:
        points = body_points(body)
        simple = simplify_hull(points) if len(solid) == 1 else outline_points(points, HULL_POINTS)
        points = points if simple is None else simple
        middle, half, cylinder = _bounds(points)
        if cylinder:
            rims = _rims(points - middle)
            cylinder = _protrusion(points - middle, rims) < max(LEAST_PROTRUSION_M, PROTRUSION_SHARE * float(half[0]))
        if cylinder:
            rolling = ROLLING_COEFFICIENT * float(half[0])
        elif len(solid) > 1:
            half = 0.5 * np.ptp(points, axis=0)  # of compounds it only tells what is near
        hull = spread_points(points, HULL_POINTS) - offset[:, None]
        reach = float(np.linalg.norm(points - offset, axis=1).max())
    if rims is None or (hull is not None and not cylinder):
        rims = np.array([half[0], -half[2], half[0], half[2]])
    # Of what is no hull the center of mass is the geometric center.
    bound = reach or float(np.hypot(half[0], half[2]) if cylinder else np.linalg.norm(half)) + rounding
    parts = part_shapes(body_parts(body), offset, HULL_POINTS)
    return BodyShape(
        offset, inertia, middle - offset, half, rounding, cylinder, rims, bound, rolling, torsion, hull, parts
    )  # fmt: skip


def _bounds(points: Array) -> tuple[Array, Array, bool]:
    """Center, half extents and kind (True: cylinder about z) of the box or cylinder nearest to a hull of points (P, 3):
    that of its bounds, drawn in to its volume.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.maximum(0.5 * (high - low), 1e-3)
    middle = 0.5 * (low + high)
    try:
        volume = float(ConvexHull(points).volume)
        outline = float(ConvexHull(points[:, :2]).volume)
    except (QhullError, ValueError):
        return middle, half, False
    round_ = abs(half[0] - half[1]) < 0.12 * half[:2].max() and outline < 0.9 * 4.0 * half[0] * half[1]
    round_ = round_ and is_of_revolution(points - middle, float(half[:2].max()))
    whole = 2.0 * half[2] * (np.pi * half[0] * half[1] if round_ else 4.0 * half[0] * half[1])
    half[:2] *= np.clip(np.sqrt(volume / whole), 0.88, 1.0)
    if round_:
        half[:2] = half[:2].mean()
    return middle, half, bool(round_)


def _rims(points: Array) -> Array:
    """Radius and height of the two rims that a round body stands or lies on; points (P, 3) about its center [m].

    The lower rim is that of its foot. The upper one is where it is about as wide as anywhere and highest (the shoulder
    of a bottle), or its upper end where it is widest at the foot alone (a cone).
    """
    radius, height = np.linalg.norm(points[:, :2], axis=1), points[:, 2]
    low, high = float(height.min()), float(height.max())
    near = 0.03 * (high - low) + 1e-4
    foot = float(radius[height < low + near].max())
    top = float(radius[height > high - near].max())
    wide = height[radius > 0.93 * radius.max()]
    shoulder = float(wide.max())
    if shoulder - low > 0.25 * (high - low):
        return np.array([foot, low, float(radius[height >= shoulder - near].max()), shoulder])
    return np.array([foot, low, top, high])


def _protrusion(points: Array, rims: Array) -> float:
    """How far points (P, 3) about the center of a round body reach into a plane that it lies on with both rims [m]."""
    radius, height = np.linalg.norm(points[:, :2], axis=1), points[:, 2]
    slant = np.arctan2(rims[0] - rims[2], max(float(rims[3] - rims[1]), 1e-6))
    reach = np.cos(slant) * radius + np.sin(slant) * height
    return float(reach.max() - np.cos(slant) * rims[0] - np.sin(slant) * rims[1])


def parameter_column(body: BodyDef, shape: BodyShape, kinematic: bool = False) -> Table:
    """(PARAMETER_ROWS,) of a body; what is static or kinematic has no inverse mass and does not fall."""
    properties = (np.array([value]) for value in (body.mass, body.friction, body.restitution))
    return parameter_columns(body, shape, *properties, kinematic=kinematic)[:, 0]


def parameter_columns(
    body: BodyDef,
    shape: BodyShape,
    mass: NDArray[np.float64],
    friction: NDArray[np.float64],
    restitution: NDArray[np.float64],
    *,
    kinematic: bool = False,
) -> Table:
    """(PARAMETER_ROWS, S) as ``parameter_column``, of a body with masses [kg], frictions and restitutions (S,)."""
    column = np.zeros((PARAMETER_ROWS, len(mass)), dtype=np.float32)
    column[ROWS["center"]] = np.reshape(shape.center, (-1, 1))
    column[ROWS["half"]] = np.reshape(shape.half, (-1, 1))
    column[ROWS["rounding"]] = shape.rounding
    column[ROWS["cylinder"]] = float(shape.cylinder)
    column[ROWS["rims"]] = np.reshape(shape.rims, (-1, 1))
    column[ROWS["friction"]] = friction
    column[ROWS["restitution"]] = restitution
    column[ROWS["rolling"]] = shape.rolling
    column[ROWS["torsion"]] = shape.torsion
    if body.is_static or kinematic:
        # Friction of static and kinematic bodies is that of what touches them.
        column[ROWS["friction"]] = 0.0 if body.is_static else friction
        column[ROWS["restitution"]] = 1.0 if body.is_static else restitution
        return column
    inertia = mass[:, None, None] * shape.inertia
    column[ROWS["inverse_mass"]] = 1.0 / mass
    column[ROWS["inertia"]] = inertia.reshape(len(mass), 9).T
    column[ROWS["inverse_inertia"]] = np.linalg.inv(inertia).reshape(len(mass), 9).T
    column[ROWS["falls"]] = 1.0
    return column


def surface_rows(body: BodyDef) -> Table | None:
    """(PLANE_ROWS,) of the top of a static body that bodies can stand on; None where it has no level top."""
    if not body.is_static:
        return None
    solid = [g for g in body.geoms if not g.visual_only]
    if len(solid) != 1 or solid[0].shape != Shape.BOX:
        return None
    part = solid[0]
    rotation = quaternion_to_matrix(body.static_state[3:7]) @ quaternion_to_matrix(part.quaternion)
    position = body.static_state[:3] + quaternion_to_matrix(body.static_state[3:7]) @ part.position
    up = int(np.argmax(np.abs(rotation[2])))
    if abs(rotation[2, up]) < np.cos(np.radians(3.0)):
        return None
    half = 0.5 * np.asarray(part.extents, dtype=np.float64)
    one, two = [a for a in range(3) if a != up]
    yaw = rotation[:2, one] / max(float(np.linalg.norm(rotation[:2, one])), 1e-9)
    return np.array(
        [position[2] + half[up], position[0], position[1], yaw[0], yaw[1], half[one], half[two]], dtype=np.float32
    )


def surfaces_beneath(
    positions: NDArray[np.float32],
    bounds: NDArray[np.float32],
    surfaces: NDArray[np.float32],
    floor_z: np.float32 | NDArray[np.float32],
) -> tuple[Table, NDArray[np.int16]]:
    """The surface that each body would land on: the highest whose top is below its center and that it overlaps from
    above. ``rollout_kernel`` compiles the same rule.

    Args:
        positions: (3, B) centers of mass [m]; bounds: (B,) bounding radii [m].
        surfaces: (B, S, PLANE_ROWS) tops in each body's world; NaN heights: not there.
        floor_z: height of the floor, one or (B,) [m].

    Returns:
        (PLANE_ROWS, B) and the row of S (B,) that it is, -2 for the floor.
    """
    plane = np.zeros((PLANE_ROWS, len(bounds)), dtype=np.float32)
    plane[0], plane[3], plane[5:] = floor_z, 1.0, FLOOR_HALF_M
    which = np.full(len(bounds), -2, dtype=np.int16)
    for s in range(surfaces.shape[1]):
        top = surfaces[:, s].T
        dx, dy = positions[0] - top[1], positions[1] - top[2]
        lx, ly = top[3] * dx + top[4] * dy, top[3] * dy - top[4] * dx
        over = (np.abs(lx) < top[5] + bounds) & (np.abs(ly) < top[6] + bounds)
        over &= (positions[2] > top[0] - SUNK_M) & (top[0] > plane[0])
        if over.all():
            plane, which[:] = np.array(top, order="C"), s
        elif over.any():
            plane[:, over] = top[:, over]
            which[over] = s
    return plane, which


def pair_candidates(movable: Sequence[bool]) -> NDArray[np.int64]:
    """(Q, 2) all pairs of M bodies of which one moves."""
    count = len(movable)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count) if movable[i] or movable[j]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def near_distance(step_s: float) -> float:
    """Gap between bounding balls [m] below which a pair is near, but for what relative speed closes in a step."""
    return 0.002 + 0.5 * GRAVITY_M_S2 * step_s * step_s
