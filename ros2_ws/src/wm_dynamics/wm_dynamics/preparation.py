"""Belief samples brought to rest where they rest, before any backend moves them.

What is perceived is a little wrong: objects hover over or dip into what they stand on, tilt by a degree, overlap their
neighbors, and creep. Simulated as they are they would drop, rock, spring apart and drift. So each belief sample is
first brought to rest, within what its uncertainty allows; a scene without covariance (the truth) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.interventions import InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix, rotation_between
from wm_core.scene_graph import Predicate, SceneGraph, Shape
from wm_dynamics.base import Array
from wm_dynamics.belief import moving_objects, scene_body, scene_states
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, lowest_point, lowest_points, simplify_hull
from wm_dynamics.mujoco.world import World

FREEING_KINDS = (
    InterventionKind.REMOVE,
    InterventionKind.SET_POSE,
    InterventionKind.SET_VELOCITY,
    InterventionKind.APPLY_IMPULSE,
    InterventionKind.FOLLOW_PATH,
)
"""Interventions that free an object which only rested on something unseen."""
FLOOR_BELOW_SUPPORT_M = 0.75
"""Height of a table over the floor that nobody has seen: an object that falls further hits it later."""
SUPPORT_THICKNESS_M = 0.03
"""Perceived supports are surfaces; they are made at least this thick, downwards, so that nothing passes
through.
"""
SNAP_GAP_M = (0.01, 0.03)
"""Smallest and largest gap to a support that is closed; in between, 2.5 standard deviations of the height."""
SNAP_GAP_ON_M = 0.05
"""Largest gap that is closed where the scene graph says that the object is on something."""
LEVEL_ANGLE_RAD = (np.radians(5.0), np.radians(12.0))
"""Smallest and largest tilt of a standing face that is leveled; in between, 3.5 standard deviations of
the tilt.
"""
SINK_M = 3e-5
"""What stands on something starts this deep in it, about where the contact carries it. Just touching is
neither in nor out
of contact, and whichever rounding makes of it would show in the future."""
FALLING_SPEED_M_S = 0.15
"""Vertical speed above which a moving object is taken to be in the air."""


class ScenePreparation:
    """Bodies, floor and start states for belief samples of one scene.

    From the mean sample: which objects move and which rest; supports, leveled when within 5 degrees,
    thickened downwards, and widened under what stands on their edge; hulls of objects at rest with a flat
    base (else an imperfectly seen bottom would rock). Per sample: standing faces leveled, gaps to what is
    beneath closed, balls and lying cylinders set rolling when their spin was not observed, overlaps moved
    apart without speed.

    Attributes:
        bodies: N bodies, properties of the mean.
        floor_z: height of the floor [m].
        moves: (N,) objects that start with a velocity.
    """

    def __init__(
        self,
        mean: SceneGraph,
        floor_z: float | None,
        timestep: float,
        make_world: Callable[[Sequence[BodyDef], float | None, float], World] = World,
    ) -> None:
        self.given = self.mean = mean
        self.moves, self.turns = moving_objects(mean)
        count = len(mean)
        self._level_supports()
        self.bodies = [scene_body(mean, i) for i in range(count)]
        self.airborne = np.zeros(count, dtype=bool)
        for i in range(count):
            speed = abs(float(mean.linear_velocities[i, 2])) if self.moves[i] else 0.0
            deviation = float(np.sqrt(max(mean.twist_covariances[i, 2, 2], 0.0)))
            self.airborne[i] = speed > max(FALLING_SPEED_M_S, 2.0 * deviation)
        self.on = {r.subject for r in mean.relations if r.predicate == Predicate.ON and r.probability >= 0.5}
        self.known_exactly = ~(np.abs(mean.pose_covariances).sum(axis=(1, 2)) > 0.0).reshape(count)
        for i in np.flatnonzero(mean.is_static):
            self.bodies[i] = self._support(int(i))
        for i in np.flatnonzero(~mean.is_static):
            if Shape(int(mean.shapes[i])) == Shape.CONVEX and not self.moves[i] and not self.known_exactly[i]:
                self.bodies[i] = _flat_based(self.bodies[i], mean.quaternions[i])
        self.floor_z = self._floor() if floor_z is None else float(floor_z)
        self._make_world = make_world
        self.world = make_world(self.bodies, self.floor_z, timestep)
        self.data = mujoco.MjData(self.world.model)
        self.held = np.zeros(count, dtype=bool)
        self._mean_start: Array | None = None
        self._hold_what_hangs()

    def _hold_what_hangs(self) -> None:
        """Make static what rests with nothing perceived beneath it: something unseen carries it (a chair's back).

        It stays where it is, and objects bump into it, until a hypothesis moves it.
        """
        unsupported: list[int] = []
        start = self.start(self.mean, unsupported)
        hanging = [i for i in unsupported if not self.moves[i] and not self.turns[i]]
        for i in hanging:
            self.held[i] = True
            self.bodies[i] = replace(self.bodies[i], is_static=True, static_state=start[i].copy())
        self._mean_start = None if hanging else start
        if hanging:
            self.world = self._make_world(self.bodies, self.floor_z, self.world.timestep)
            self.data = mujoco.MjData(self.world.model)

    def freed(self, bodies: Sequence[BodyDef], moved: Sequence[int]) -> tuple[BodyDef, ...]:
        """Bodies with those made free that are held only as long as nobody moves them."""
        free = {i for i in moved if i < len(self.held) and self.held[i]}
        return tuple(replace(b, is_static=False) if i in free else b for i, b in enumerate(bodies))

    def _level_supports(self) -> None:
        quaternions = self.mean.quaternions.copy()
        for i in np.flatnonzero(self.mean.is_static):
            up = _nearest_axis(quaternion_to_matrix(quaternions[i]), np.array([0.0, 0.0, 1.0]))
            if 1e-6 < np.arccos(np.clip(up[2], -1.0, 1.0)) < np.radians(5.0):
                level = Rotation.from_matrix(rotation_between(up, [0.0, 0.0, 1.0]))
                quaternions[i] = (level * Rotation.from_quat(quaternions[i])).as_quat()
        self.mean = replace(self.mean, quaternions=quaternions)

    def _support(self, index: int) -> BodyDef:
        """The static body of a support: its surface, thickened downwards and widened under what stands at
        its edge.
        """
        body, mean = self.bodies[index], self.mean
        state = body.static_state.copy()
        rotation = quaternion_to_matrix(state[QUATERNION])
        is_surface = mean.class_names[index] == "support" or int(mean.shapes[index]) == Shape.BOX
        if not is_surface or rotation[2, 2] < np.cos(np.radians(5.0)):
            return body
        extents = mean.extents[index].copy()
        top = state[2] + 0.5 * extents[2]
        if mean.class_names[index] == "support":
            low, high = -0.5 * extents[:2], 0.5 * extents[:2]
            for i in np.flatnonzero(~mean.is_static):
                if self.airborne[i] or self.known_exactly[i]:
                    continue
                bottom = mean.positions[i, 2] + lowest_point(self.bodies[i], mean.quaternions[i])
                center = (rotation.T @ (mean.positions[i] - state[POSITION]))[:2]
                beyond = np.maximum(np.maximum(low - center, center - high), 0.0).max()
                near = 0.5 * float(np.linalg.norm(mean.extents[i, :2]))
                if abs(bottom - top) < SNAP_GAP_M[1] and beyond + near > 0.0 and beyond < near and not self.moves[i]:
                    low, high = np.minimum(low, center - near), np.maximum(high, center + near)
            shift = rotation @ np.array([*(0.5 * (low + high)), 0.0])
            extents[:2] = high - low
            state[POSITION] += shift
        thickness = max(float(extents[2]), SUPPORT_THICKNESS_M)
        state[2] = top - 0.5 * thickness
        extents[2] = thickness
        geom = GeomDef(Shape.BOX, extents, color=body.geoms[0].color)
        return replace(body, geoms=(geom,), static_state=state)

    def _floor(self) -> float:
        """0.75 m below the lowest support, or at the lowest of what is lower: what has fallen is not in the floor.

        Without supports: right below the lowest object (something that was not perceived holds it), or 0.75 m
        below it when it falls.
        """
        mean = self.mean
        statics = np.flatnonzero(mean.is_static)
        bottoms = [mean.positions[i, 2] + lowest_point(self.bodies[i], mean.quaternions[i]) for i in range(len(mean))]
        if len(statics):
            tops = [2.0 * mean.positions[i, 2] - bottoms[i] if self.bodies[i] is not None else 0.0 for i in statics]
            return float(min(min(tops) - FLOOR_BELOW_SUPPORT_M, min(bottoms)))
        if not bottoms:
            return 0.0
        lowest = int(np.argmin(bottoms))
        return float(bottoms[lowest] - (FLOOR_BELOW_SUPPORT_M if self.airborne[lowest] else 0.0))

    def sample_bodies(self, scene: SceneGraph) -> list[BodyDef]:
        """The bodies with the masses, frictions and restitutions of a sample."""
        properties = (column.tolist() for column in sample_properties(scene))
        return [
            replace(body, mass=mass, friction=friction, restitution=restitution)
            for body, mass, friction, restitution in zip(self.bodies, *properties, strict=True)
        ]

    def start(self, scene: SceneGraph, unsupported: list[int] | None = None) -> Array:
        """(N, 13) start states of a sample, at rest where it rests.

        ``unsupported`` is given the rows of what should stand on something and has nothing beneath it.
        """
        if (scene is self.given or scene is self.mean) and self._mean_start is not None:
            return self._mean_start.copy()
        return self.starts([scene], unsupported)[0]

    def starts(
        self,
        scenes: Sequence[SceneGraph],
        unsupported: list[int] | None = None,
        ended: Callable[[], bool] = lambda: False,
    ) -> Array:
        """(S, N, 13) start states of samples, as of each by itself with ``start``.

        Args:
            ended: whether the time is over; asked at every sample. What is returned then is not fit to begin from.
        """
        states = np.array([self._seen(scene) for scene in scenes])
        fixed = self.mean.is_static | self.held
        uncertain = ~self.known_exactly & ~fixed & ~self.airborne
        for i in np.flatnonzero(uncertain).tolist():
            states[:, i, QUATERNION] = self._leveled(i, states[:, i, QUATERNION])
        bottoms = np.zeros(states.shape[:2])
        for i in np.flatnonzero(~fixed).tolist():
            bottoms[:, i] = states[:, i, 2] + lowest_points(self.bodies[i], states[:, i, QUATERNION])
        self._let_down(states, bottoms, fixed, uncertain, unsupported, ended)
        if not self.known_exactly.all() and not ended():
            for s in np.flatnonzero(self.world.overlapping(states, self.data)).tolist():
                if ended():
                    break
                states[s] = self.world.resolve_penetrations(self.world.model, states[s], data=self.data)
        for s, scene in enumerate(scenes):
            if (scene is self.given or scene is self.mean) and self._mean_start is not None:
                states[s] = self._mean_start
        return states

    def _seen(self, scene: SceneGraph) -> Array:
        """(N, 13) states of a sample as it was drawn; what does not move is at rest, what is fixed in its place."""
        states = scene_states(scene)
        if scene is self.given or scene is self.mean:  # samples have the velocities that were drawn
            states[:, LINEAR_VELOCITY] *= self.moves[:, None]
        states[:, ANGULAR_VELOCITY] *= self.turns[:, None]
        for i in np.flatnonzero(self.mean.is_static | self.held):
            states[i] = self.bodies[i].static_state
        return states

    def _leveled(self, index: int, quaternions: Array) -> Array:
        """The orientations (S, 4) with the face that it stands on made level, where it nearly is."""
        shape = Shape(int(self.mean.shapes[index]))
        if shape in (Shape.SPHERE, Shape.CONVEX):
            return quaternions
        if self.turns[index] and np.linalg.norm(self.mean.angular_velocities[index, :2]) > 1.0:
            return quaternions
        rotation = quaternion_to_matrix(quaternions)
        if shape == Shape.BOX:
            axes = rotation.transpose(0, 2, 1)
            axes = np.concatenate([axes, -axes], axis=1)  # (S, 6, 3)
            face = axes[np.arange(len(axes)), np.argmin(axes[..., 2], axis=1)]
        else:
            axis = rotation[:, :, 2]
            lying = axis * axis[:, 2:] - np.array([0.0, 0.0, 1.0])  # the side that faces down
            upright = np.abs(axis[:, 2]) > np.sqrt(0.5)
            side = lying / np.maximum(np.linalg.norm(lying, axis=1, keepdims=True), 1e-12)
            face = np.where(upright[:, None], -axis * np.sign(axis[:, 2:]), side)
        deviation = float(np.sqrt(max(np.max(np.diag(self.mean.pose_covariances[index])[3:5]), 0.0)))
        limit = float(np.clip(3.5 * deviation, *LEVEL_ANGLE_RAD))
        angle = np.arccos(np.clip(-face[:, 2], -1.0, 1.0))
        near = angle <= limit
        if shape == Shape.CAPSULE:
            near &= ~upright
        # About the face's vector product with the vertical downwards.
        turn = np.stack([-face[:, 1], face[:, 0], np.zeros(len(face))], axis=1)
        turn *= (angle / np.maximum(np.linalg.norm(turn, axis=1), 1e-12))[:, None]
        level = (Rotation.from_rotvec(turn) * Rotation.from_quat(quaternions)).as_quat()
        return np.where(near[:, None], level, quaternions)

    def _let_down(
        self,
        states: Array,
        bottoms: Array,
        fixed: NDArray[np.bool_],
        uncertain: NDArray[np.bool_],
        unsupported: list[int] | None,
        ended: Callable[[], bool],
    ) -> None:
        """Let down (S, N, 13) states, in place, what stands on something onto it, the lowest first."""
        world, data = self.world, self.data
        places, turned = self._geom_poses(states)
        limits = [self._gap_limit(i) if uncertain[i] else 2.0 * SINK_M for i in range(len(fixed))]
        radius = np.array([np.max(world.model.geom_rbound[g], initial=0.0) for g in world.geom_ids])
        level = states[:, :, :2]
        apart = np.linalg.norm(level[:, :, None] - level[:, None], axis=-1)  # (S, N, N)
        beside = apart <= radius[:, None] + radius + np.array(limits)[:, None]
        held, free = np.flatnonzero(fixed).tolist(), np.flatnonzero(~fixed).tolist()
        for s in range(len(states)):
            if ended():
                return
            data.geom_xpos[:], data.geom_xmat[:] = places[s], turned[s]
            settled = list(held)
            low = bottoms[s].tolist()
            for i in sorted(free, key=lambda i: (low[i], i)):
                if not self.airborne[i]:
                    near = beside[s, i].tolist()
                    gap = self._clearance(i, low[i], [j for j in settled if near[j]], limits[i])
                    own = world.geom_ids[i]
                    if gap is not None:
                        lowered = gap + SINK_M if uncertain[i] else max(gap + SINK_M, 0.0)
                        states[s, i, 2] -= lowered
                        if uncertain[i]:
                            self._set_rolling(i, states[s, i])
                    else:
                        lowered = 0.0
                        if uncertain[i] and unsupported is not None:
                            unsupported.append(i)
                    data.geom_xpos[own, 2] = places[s, own, 2] - lowered
                settled.append(i)

    def _geom_poses(self, states: Array) -> tuple[Array, Array]:
        """(S, G, 3) places and (S, G, 9) rotation matrices of the world's geoms at states (S, N, 13)."""
        model = self.world.model
        places = np.tile(self.data.geom_xpos, (len(states), 1, 1))
        turned = np.tile(self.data.geom_xmat, (len(states), 1, 1))
        local = quaternion_to_matrix(np.roll(model.geom_quat, -1, axis=1)) if model.ngeom else np.zeros((0, 3, 3))
        for i, geoms in enumerate(self.world.geom_ids):
            rotation = quaternion_to_matrix(states[:, i, QUATERNION])
            for g in geoms:
                places[:, g] = states[:, i, POSITION] + rotation @ model.geom_pos[g]
                turned[:, g] = (rotation @ local[g]).reshape(-1, 9)
        return places, turned

    def _gap_limit(self, index: int) -> float:
        """Largest gap [m] to what is beneath an object that is closed."""
        if int(self.mean.ids[index]) in self.on:
            return SNAP_GAP_ON_M
        return float(np.clip(2.5 * np.sqrt(max(self.mean.pose_covariances[index, 2, 2], 0.0)), *SNAP_GAP_M))

    def _set_rolling(self, index: int, state: Array) -> None:
        """Set the velocities of an object's state (13,) that is supported; in place."""
        if not state[LINEAR_VELOCITY].any():
            return
        mean = self.mean
        velocity = state[LINEAR_VELOCITY]
        velocity[2] = 0.0
        spin_deviation = float(np.sqrt(max(np.trace(mean.twist_covariances[index, 3:, 3:]) / 3.0, 0.0)))
        shape, extents = Shape(int(mean.shapes[index])), mean.extents[index]
        axis = quaternion_to_matrix(state[QUATERNION])[:, 2]
        if shape == Shape.SPHERE:
            radius, rolling = 0.5 * float(extents.mean()), velocity
        elif shape in (Shape.CYLINDER, Shape.CAPSULE) and abs(axis[2]) < 0.2:
            radius, rolling = 0.25 * float(extents[0] + extents[1]), velocity - axis * (axis @ velocity)
        else:
            # What slides on a face does not turn over; only a turn about the vertical remains.
            state[ANGULAR_VELOCITY][:2] = 0.0
            return
        spin = np.cross([0.0, 0.0, 1.0], rolling) / radius
        known = self.turns[index] and spin_deviation < 0.3 * float(np.linalg.norm(spin))
        if not known and spin_deviation > 0.0:
            state[ANGULAR_VELOCITY] = spin

    def _clearance(self, index: int, bottom: float, others: Sequence[int], limit: float) -> float | None:
        """How far a body can be lowered until it touches one of others beneath it, or the floor [m].

        Negative when it is inside by up to ``limit``; None where there is nothing within ``limit``. The places of all
        geoms are those in ``data``, from which the body's own are lowered; ``bottom``: height of its lowest point [m].
        """
        world, data, model = self.world, self.data, self.world.model
        own = world.geom_ids[index]
        pairs = [(a, b) for other in others for a in own for b in world.geom_ids[other]]
        lowered, ends = 0.0, np.zeros(6)
        for _ in range(20):
            nearest = np.inf
            for a, b in pairs:
                distance = mujoco.mj_geomDistance(model, data, a, b, limit + 0.01, ends)
                if distance > limit:
                    continue
                ax, ay, az, bx, by, bz = ends.tolist()
                length, upward = math.dist((ax, ay, az), (bx, by, bz)), bz - az
                # Only what is beneath holds it: the nearest points lie one above the other.
                if length > 1e-6 and (abs(upward) < 0.7 * length or (upward > 0.0) == (distance > 0.0)):
                    continue
                nearest = min(nearest, distance)
            if lowered == 0.0 and nearest < 0.0:
                return nearest if nearest > -limit else None
            nearest = min(nearest, bottom - self.floor_z - lowered)
            if nearest > limit - lowered:
                return None
            if nearest < 1e-6:
                return lowered + nearest
            lowered += nearest
            data.geom_xpos[own, 2] -= nearest
        return lowered


def sample_properties(scene: SceneGraph) -> tuple[Array, Array, Array]:
    """(N,) masses [kg], frictions and restitutions of a sample, within what can be simulated."""
    return (
        np.clip(np.exp(scene.log_mass), 1e-6, 1e5).astype(np.float64),
        np.clip(scene.friction, 0.0, 10.0).astype(np.float64),
        np.clip(scene.restitution, 0.0, 1.0).astype(np.float64),
    )


def _nearest_axis(rotation: Array, direction: Array) -> Array:
    """The one of a frame's six axis directions (3,) that is nearest to a direction."""
    axes = np.concatenate([rotation.T, -rotation.T])
    return axes[int(np.argmax(axes @ direction))]


def _flat_based(body: BodyDef, quaternion: ArrayLike) -> BodyDef:
    """A hull at rest with a flat base under its lowest points, wide enough for it to stand.

    Points within 8 % of the height (6 mm at least) of the lowest are let down to its level. If the center is
    not over the base that results (a bottom that was hidden), the outline of the lower half is let down as
    well: it rests, so something under it holds it.
    """
    hull = simplify_hull(body.geoms[0].hull)
    if hull is None:
        return body
    rotation = quaternion_to_matrix(quaternion)
    points = hull @ rotation.T
    lowest, height = float(points[:, 2].min()), float(np.ptp(points[:, 2]))
    reach = max(0.006, 0.08 * height)
    center = points[:, :2].mean(axis=0)
    while True:
        base = points[points[:, 2] < lowest + reach].copy()
        base[:, 2] = lowest
        if _inside(center, base[:, :2]) or reach >= 0.5 * height:
            break
        reach = min(2.0 * reach, 0.5 * height)
    widened = simplify_hull(np.concatenate([points, base]) @ rotation)
    if widened is None:
        return body
    return replace(body, geoms=(replace(body.geoms[0], hull=widened),))


def _inside(point: Array, polygon: Array) -> bool:
    """True when a point (2,) is in the convex hull of points (P, 2), by an eighth of its size from every
    edge.
    """
    if len(polygon) < 3:
        return False
    angles = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    support = (polygon @ directions.T).max(axis=0)
    return bool((support - directions @ point > 0.125 * np.ptp(polygon, axis=0).min()).all())
