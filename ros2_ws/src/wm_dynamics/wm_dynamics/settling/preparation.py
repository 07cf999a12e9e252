"""Start states of belief samples: objects that were seen at rest are put to rest before any backend moves them.

What is perceived is a little wrong: objects hover over or dip into what they stand on, tilt by a degree, overlap their
neighbors, and creep. Simulated as they are they would drop, rock, spring apart and drift. So the poses of each belief
sample are corrected first, within what its uncertainty allows; a scene without covariance (ground truth) is used as is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.interventions import InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import CARRIED_BY, SceneGraph, Shape
from wm_dynamics.base import Array
from wm_dynamics.belief import moving_objects, scene_states
from wm_dynamics.mujoco.bodies import BodyDef, lowest_points
from wm_dynamics.mujoco.penetration import overlapping
from wm_dynamics.settling.bodies import MakeWorld, floor_height, make_world, sample_properties, simulated_bodies
from wm_dynamics.settling.projection import MinimumChange, PartPairs, movable_pairs

FREEING_KINDS = (
    InterventionKind.REMOVE,
    InterventionKind.SET_POSE,
    InterventionKind.SET_VELOCITY,
    InterventionKind.APPLY_IMPULSE,
    InterventionKind.FOLLOW_PATH,
)
"""Interventions that free an object that was held because nothing perceived carries it."""
SNAP_GAP_M = (0.01, 0.03)
"""Smallest and largest gap [m] to a support that is closed; in between, ``SNAP_GAP_DEVIATIONS`` of the height. Larger,
and what floats (held by something unseen) is let down; smaller, and what stands drops when a future begins."""
SNAP_GAP_DEVIATIONS = 2.5
"""Standard deviations of a height within which 99 of 100 objects are that stand on what is beneath (normal errors)."""
SNAP_GAP_ON_M = 0.05
"""Largest gap [m] that is closed where the scene graph has the object on something."""
LEVEL_ANGLE_RAD = (np.radians(5.0), np.radians(12.0))
"""Smallest and largest tilt of a standing face that is leveled; in between, ``LEVEL_DEVIATIONS`` of the tilt. Larger,
and what leans is put upright; smaller, and what stands rocks when a future begins."""
CHI2_1_99 = 6.635
"""99 % quantile of the chi-square distribution with one degree of freedom."""
LEVEL_DEVIATIONS = 3.5
"""Standard deviations of a tilt within which nearly all objects are that stand level (normal errors)."""
SINK_M = 3e-5
"""What stands on something starts this deep in it, about where the contact carries it. Just touching is neither in nor
out of contact, and whichever rounding decides would show in the future."""
BESIDE_GAP_M = 1e-4
"""Gap [m] that is left between bodies that lay in one another sideways: what only stands beside another does not touch
it, so that it rests when the other leaves. Larger moves them farther than needed."""
STANDS_M = 0.001
"""Standard deviation of the height of what stands on something, which says how high it is [m]. Larger, and what
overlaps its neighbor is lifted over it; smaller, and it is moved aside along the table however far that is."""
FALLING_SPEED_M_S = 0.15
"""Vertical speed above which a moving object is in the air, if it is also outside two standard deviations: that after
15 ms of fall. Larger, and what begins to fall is set down; smaller, and the tracker's noise lifts what slides."""


class ScenePreparation:
    """Bodies, floor and start states for belief samples of one scene.

    From the mean sample: which objects move and which rest, and their bodies (``simulated_bodies``). Per sample:
    standing faces leveled, gaps to what is beneath closed, balls and lying cylinders set rolling when their spin was
    not observed, overlaps moved apart without speed.

    Args:
        mean: the mean sample, N objects.
        floor_z: height of the floor [m]; None: ``floor_height``.
        timestep: of the world [s].
        make_world: makes or finds the compiled world.

    Attributes:
        bodies: N bodies, properties of the mean.
        floor_z: height of the floor [m].
        moves, turns: (N,) bool, objects that start with a velocity, and with an angular velocity.
        airborne: (N,) bool, objects that fall or fly.
        known_exactly: (N,) bool, objects whose pose has no covariance.
        on: ids of objects that are on something in the scene graph.
        held: (N,) bool, objects that only something unseen carries (``_hold_unsupported``).
        passing: pairs of rows that lie in one another deeper than errors of their poses explain: their shapes are
            wrong, or they are parts of one object. They stay as they were seen, and do not repel one another.
        world, data: the compiled world of the bodies, and scratch data of it.
    """

    def __init__(
        self,
        mean: SceneGraph,
        floor_z: float | None,
        timestep: float,
        make_world: MakeWorld = make_world,
    ) -> None:
        self.mean = mean
        self.moves, self.turns = moving_objects(mean)
        count = len(mean)
        self.airborne = np.zeros(count, dtype=bool)
        for i in range(count):
            speed = abs(float(mean.linear_velocities[i, 2])) if self.moves[i] else 0.0
            deviation = float(np.sqrt(max(mean.twist_covariances[i, 2, 2], 0.0)))
            self.airborne[i] = speed > max(FALLING_SPEED_M_S, 2.0 * deviation)
        self.on = {r.subject for r in mean.relations if r.predicate in CARRIED_BY and r.probability >= 0.5}
        self.known_exactly = ~(np.abs(mean.pose_covariances).sum(axis=(1, 2)) > 0.0).reshape(count)
        self._forget_impossible_turns()
        self.bodies = simulated_bodies(mean, self.moves, self.airborne, self.known_exactly)
        self.floor_z = floor_height(mean, self.bodies, self.airborne) if floor_z is None else float(floor_z)
        self._make_world = make_world
        self.world = make_world(self.bodies, self.floor_z, timestep)
        self.data = mujoco.MjData(self.world.model)
        self.held = np.zeros(count, dtype=bool)
        self.passing: list[tuple[int, int]] = []
        self._mean_start: Array | None = None
        self._hold_unsupported()

    def _forget_impossible_turns(self) -> None:
        """Only what moves can turn over: of what rests, a turn counts that is about the vertical, and sure."""
        spins = self.mean.angular_velocities[:, 2]
        variances = self.mean.twist_covariances[:, 5, 5]
        sure = spins * spins > CHI2_1_99 * np.maximum(variances, 1e-12)
        self._spins_only = self.turns & ~self.moves & ~self.known_exactly
        self.turns &= ~self._spins_only | sure

    def _hold_unsupported(self) -> None:
        """Make static what rests with nothing perceived beneath it: something unseen carries it (a chair's back).

        It stays where it is, and objects collide with it, until a hypothesis moves it.
        """
        unsupported: list[int] = []
        start = self.start(self.mean, unsupported)
        hanging = [i for i in unsupported if not self.moves[i] and not self.turns[i]]
        for i in hanging:
            self.held[i] = True
            self.bodies[i] = replace(self.bodies[i], is_static=True, static_state=start[i].copy())
        if not self.known_exactly.all():
            stands = ~(self.known_exactly | self.airborne | self.mean.is_static)
            stands[unsupported] = False
            covariances = self._position_covariances(self.mean.is_static, stands)
            parts = PartPairs(self.world, self.data, movable_pairs(self.mean.is_static | self.known_exactly))
            self.passing = MinimumChange(parts, covariances).unexplained(start)
        self._mean_start = None if hanging else start
        if hanging or self.passing:
            self.world = self._make_world(self.bodies, self.floor_z, self.world.timestep, self.passing)
            self.data = mujoco.MjData(self.world.model)

    def freed(self, bodies: Sequence[BodyDef], moved: Sequence[int]) -> tuple[BodyDef, ...]:
        """The bodies, those made free that are held until a hypothesis moves them (``moved``: rows)."""
        free = {i for i in moved if i < len(self.held) and self.held[i]}
        return tuple(replace(b, is_static=False) if i in free else b for i, b in enumerate(bodies))

    def seen_at_rest(self, starts: Array) -> NDArray[np.bool_]:
        """(S, N) which objects were seen at rest, and not drawn to move, of start states (S, N, 13).

        Static objects, and those whose poses are known exactly, are not among them: the latter may hover.
        """
        moves = starts[..., LINEAR_VELOCITY].any(axis=-1) | starts[..., ANGULAR_VELOCITY].any(axis=-1)
        rests: NDArray[np.bool_] = ~(moves | self.airborne | self.known_exactly | self.mean.is_static)
        return rests

    def carried(self) -> dict[int, frozenset[int]]:
        """Rows of the objects that the scene graph has on or inside an object, by its row."""
        row_of = {int(object_id): row for row, object_id in enumerate(self.mean.ids)}
        found: dict[int, set[int]] = {}
        for relation in self.mean.relations:
            upper, lower = row_of.get(relation.subject), row_of.get(relation.object)
            likely = relation.predicate in CARRIED_BY and relation.probability >= 0.5
            if likely and upper is not None and lower is not None:
                found.setdefault(lower, set()).add(upper)
        return {lower: frozenset(upper) for lower, upper in found.items()}

    def sample_bodies(self, scene: SceneGraph) -> list[BodyDef]:
        """The bodies with the masses, frictions and restitutions of a sample."""
        properties = (column.tolist() for column in sample_properties(scene))
        return [
            replace(body, mass=mass, friction=friction, restitution=restitution)
            for body, mass, friction, restitution in zip(self.bodies, *properties, strict=True)
        ]

    def start(self, scene: SceneGraph, unsupported: list[int] | None = None) -> Array:
        """(N, 13) corrected start states of a sample.

        Args:
            unsupported: is given the rows of what should stand on something and has nothing beneath it.
        """
        if scene is self.mean and self._mean_start is not None:
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
            ended: whether the time is over; called at every sample. What is returned then is not fit to begin from.
        """
        states = np.array([self._seen(scene) for scene in scenes])
        fixed = self.mean.is_static | self.held
        uncertain = ~self.known_exactly & ~fixed & ~self.airborne
        for i in np.flatnonzero(uncertain).tolist():
            states[:, i, QUATERNION] = self._leveled(i, states[:, i, QUATERNION])
        bottoms = np.zeros(states.shape[:2])
        for i in np.flatnonzero(~fixed).tolist():
            bottoms[:, i] = states[:, i, 2] + lowest_points(self.bodies[i], states[:, i, QUATERNION])
        stands = self._let_down(states, bottoms, fixed, uncertain, unsupported, ended)
        if not self.known_exactly.all() and not ended():
            parts = PartPairs(self.world, self.data, movable_pairs(fixed | self.known_exactly))
            for s in np.flatnonzero(overlapping(self.world, states, self.data, BESIDE_GAP_M)).tolist():
                if ended():
                    break
                covariances = self._position_covariances(fixed, stands[s])
                states[s] = MinimumChange(parts, covariances, BESIDE_GAP_M).apply(states[s], ended)
        for s, scene in enumerate(scenes):
            if scene is self.mean and self._mean_start is not None:
                states[s] = self._mean_start
        return states

    def _position_covariances(self, fixed: NDArray[np.bool_], stands: NDArray[np.bool_]) -> Array:
        """(N, 3, 3) covariances of the positions [m^2], given what stands on something (N,); 0: fixed (N,)."""
        covariances = self.mean.pose_covariances[:, :3, :3].copy()
        covariances[fixed | ~np.isfinite(covariances).all(axis=(1, 2))] = 0.0
        for i in np.flatnonzero(stands & ~fixed).tolist():
            # What carries it measures its height.
            column = covariances[i][:, 2]
            covariances[i] -= np.outer(column, column) / max(float(column[2]) + STANDS_M**2, 1e-12)
        return covariances

    def _seen(self, scene: SceneGraph) -> Array:
        """(N, 13) states of a sample as it was drawn; what does not move is at rest, what is fixed in its place."""
        states = scene_states(scene)
        if scene is self.mean:  # samples have the velocities that were drawn
            states[:, LINEAR_VELOCITY] *= self.moves[:, None]
        states[:, ANGULAR_VELOCITY] *= self.turns[:, None]
        states[self._spins_only, 10:12] = 0.0
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
        limit = float(np.clip(LEVEL_DEVIATIONS * deviation, *LEVEL_ANGLE_RAD))
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
    ) -> NDArray[np.bool_]:
        """Let down (S, N, 13) states, in place, what stands on something onto it, the lowest first.

        Returns:
            (S, N) which uncertain objects stand on something.
        """
        world, data = self.world, self.data
        stands = np.zeros(states.shape[:2], dtype=bool)
        places, turned = self._geom_poses(states)
        limits = np.array([self._gap_limit(i) if uncertain[i] else 2.0 * SINK_M for i in range(len(fixed))])
        # What is drawn higher than it was seen is let down by so much more: it was seen to rest.
        limits = limits + np.maximum(states[:, :, 2] - self.mean.positions[:, 2], 0.0) * (uncertain & ~self.moves)
        radius = np.array([np.max(world.model.geom_rbound[g], initial=0.0) for g in world.geom_ids])
        level = states[:, :, :2]
        apart = np.linalg.norm(level[:, :, None] - level[:, None], axis=-1)  # (S, N, N)
        beside = apart <= radius[:, None] + radius + limits[:, :, None]
        held, free = np.flatnonzero(fixed).tolist(), np.flatnonzero(~fixed).tolist()
        for s in range(len(states)):
            if ended():
                return stands
            data.geom_xpos[:], data.geom_xmat[:] = places[s], turned[s]
            settled = list(held)
            low, reach = bottoms[s].tolist(), limits[s].tolist()
            for i in sorted(free, key=lambda i: (low[i], i)):
                if not self.airborne[i]:
                    near = beside[s, i].tolist()
                    gap = self._clearance(i, low[i], [j for j in settled if near[j]], reach[i])
                    own = world.geom_ids[i]
                    if gap is not None:
                        lowered = gap + SINK_M if uncertain[i] else max(gap + SINK_M, 0.0)
                        states[s, i, 2] -= lowered
                        if uncertain[i]:
                            stands[s, i] = True
                            self._set_rolling(i, states[s, i])
                    else:
                        lowered = 0.0
                        if uncertain[i] and unsupported is not None:
                            unsupported.append(i)
                    data.geom_xpos[own, 2] = places[s, own, 2] - lowered
                settled.append(i)
        return stands

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
        deviation = np.sqrt(max(self.mean.pose_covariances[index, 2, 2], 0.0))
        return float(np.clip(SNAP_GAP_DEVIATIONS * deviation, *SNAP_GAP_M))

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
