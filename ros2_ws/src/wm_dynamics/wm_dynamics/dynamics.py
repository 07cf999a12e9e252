"""Dynamics: from belief samples and hypotheses to imagined states, behind one interface.

Backends: ``physics`` (``wm_dynamics.physics.backend``: MuJoCo on the reconstructed scene), and two yardsticks that
know no
contacts and no gravity: ``straight`` (constant velocity) and ``still`` (nothing moves). In all of them
interventions have their immediate effect on existence and pose; in ``straight`` also on velocity; pushers
always follow their path.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.geometry import interpolate_pose, normalize_quaternion, quaternion_to_matrix
from wm_core.interventions import Hypothesis, Intervention, InterventionKind, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE, RolloutEvent
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.mujoco.world import (
    BodyDef,
    GeomDef,
    World,
    body_from_spec,
    hold_absent,
    lowest_point,
    rest_state,
    scaled_body,
)

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
States = NDArray[np.float32]

OnHypothesis = Callable[[int, States, NDArray[np.bool_]], None]

CHI2_3_99 = 11.345
"""99 % quantile of the chi-square distribution with three degrees of freedom."""


@dataclass(frozen=True)
class Contact:
    """Objects ``a`` < ``b`` (ids) began (or ceased) to touch; begun at time 0: they touched at the start."""

    hypothesis: int
    sample: int
    time_s: float
    a: int
    b: int
    began: bool


@dataclass(frozen=True)
class FutureWarned:
    """The solver warned in a future (``mujoco.world.SolverWarning``): from then on it is not to be trusted."""

    hypothesis: int
    sample: int
    time_s: float
    kind: str


@dataclass(frozen=True)
class DynamicsResult:
    """K futures of M objects, S samples each, at T times.

    Attributes:
        object_ids: (M,) int64, those of the scene, then created bodies: the j-th intervention of a hypothesis
            that creates a body fills slot j, id max + 1 + j, in every hypothesis.
        states: (K, S, T, M, 13) float32, layout of ``wm_core.rollout``, graph frame.
        present: (K, T, M) bool; where False, states hold the last (or first) pose. All False for hypotheses
            not done.
        contacts: in order of hypothesis, sample, time.
        completed: hypotheses done before the deadline or the stop, in order.
        backend: which dynamics answered.
        backends: K names, which dynamics answered each hypothesis; empty: all by ``backend``.
        doubts: K reasons of the dynamics itself not to trust a future (its solver diverged and was held, it is unsure
            of it), empty strings where it does; empty: it trusts all.
        factual: where several dynamics answered (``backends``), the factual future by each of them, against which
            effects of its futures are: name -> states (S, T, M, 13), present (T, M). Empty: hypothesis 0 for all.
        scatter: (K, M) standard deviation [m] of positions at the last time that the dynamics itself leaves open
            (belief samples come on top); empty: the backend does not say.
        warnings: what the solver warned of, in order of hypothesis, sample, time.
    """

    object_ids: NDArray[np.int64]
    states: States
    present: NDArray[np.bool_]
    contacts: tuple[Contact, ...]
    completed: int
    backend: str = ""
    backends: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    factual: Mapping[str, tuple[States, NDArray[np.bool_]]] = field(default_factory=dict)
    scatter: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    warnings: tuple[FutureWarned, ...] = ()


class Dynamics(Protocol):
    """Predicts futures of a scene under hypotheses."""

    name: str

    def rollout(
        self,
        scenes: Sequence[SceneGraph],
        hypotheses: Sequence[Hypothesis],
        times: ArrayLike,
        *,
        deadline: float | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_hypothesis: OnHypothesis | None = None,
    ) -> DynamicsResult:
        """Roll every hypothesis out from every belief sample.

        Args:
            scenes: S samples of the belief, same ids; the first is the mean, and decides what moves and what
                rests.
            hypotheses: K, validated (``wm_core.interventions.validate_hypotheses``).
            times: (T,) ascending, first 0 [s].
            deadline: ``time.monotonic()`` after which no hypothesis is begun [s].
            should_stop: asked between hypotheses.
            on_hypothesis: called in order with k, states (S, T, M, 13) and presence (T, M), from the calling
                thread.

        Raises:
            ValueError: no scene, or samples of different ids.
        """
        ...


def make_dynamics(name: str = "auto", learned: Dynamics | None = None, **options: object) -> Dynamics:
    """The dynamics backend ``auto``, ``learned``, ``physics``, ``straight`` or ``still``; options go to the backend.

    ``auto`` is the learned backend (``learned``, or one made here) with physics for the futures that it is unsure of;
    physics alone where the model does not load (the reason is logged).

    Raises:
        ValueError: unknown name.
        InferenceError: ``learned`` was asked for and its model does not load.
    """
    if name in ("", "auto"):
        from wm_core.inference import InferenceError
        from wm_dynamics.auto import AutomaticDynamics
        from wm_dynamics.learned.backend import LearnedDynamics
        from wm_dynamics.physics.backend import PhysicsDynamics

        floor = {k: v for k, v in options.items() if k in ("floor_z", "threads")}
        physics = PhysicsDynamics(**floor)  # type: ignore[arg-type]
        try:
            own = learned if isinstance(learned, LearnedDynamics) else LearnedDynamics(**options)  # type: ignore[arg-type]
            return AutomaticDynamics(own, physics)
        except (InferenceError, ImportError) as error:
            log.warning("dynamics: auto takes physics (MuJoCo %s), because %s", mujoco.__version__, error)
            return physics
    if name == "learned":
        from wm_dynamics.learned.backend import LearnedDynamics

        return LearnedDynamics(**options)  # type: ignore[arg-type]
    if name == "physics":
        from wm_dynamics.physics.backend import PhysicsDynamics

        return PhysicsDynamics(**options)  # type: ignore[arg-type]
    if name in ("straight", "still"):
        return KinematicDynamics(name)
    raise ValueError(f"backend: got {name!r}, expected auto, learned, physics, straight or still")


def check_scenes(scenes: Sequence[SceneGraph], times: ArrayLike) -> Array:
    """The times as an array; raises ValueError on no scene, samples of different ids, or times that do not
    ascend from 0.
    """
    if not scenes:
        raise ValueError("scenes: got none, expected at least one belief sample")
    for s, scene in enumerate(scenes[1:], start=1):
        if not np.array_equal(scene.ids, scenes[0].ids):
            raise ValueError(f"scenes[{s}].ids: got {scene.ids.tolist()}, expected {scenes[0].ids.tolist()}")
    t = np.asarray(times, dtype=np.float64).reshape(-1)
    if not len(t) or not np.isfinite(t).all() or t[0] != 0.0 or (np.diff(t) <= 0.0).any():
        raise ValueError(f"times: got {t[:8].tolist()}, expected ascending from 0")
    return t


def object_slots(scene: SceneGraph, hypotheses: Sequence[Hypothesis]) -> NDArray[np.int64]:
    """(M,) ids of the scene's objects, then of as many created bodies as the hypothesis with most of them
    has.
    """
    created = max((sum(i.creates_body for i in h.interventions) for h in hypotheses), default=0)
    top = int(scene.ids.max()) if len(scene) else 0
    return np.concatenate([scene.ids, top + 1 + np.arange(created)]).astype(np.int64)


def targets(scene: SceneGraph, hypothesis: Hypothesis) -> list[tuple[int, Intervention]]:
    """(object index, intervention) of a hypothesis; created bodies are indexed N, N + 1, ... in the order
    given.
    """
    created = itertools.count(len(scene))
    return [(next(created) if i.creates_body else scene.index(i.object_id), i) for i in hypothesis.interventions]


def moving_objects(scene: SceneGraph) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which objects (N,) are believed to move, and which to turn.

    A velocity counts when it is outside the 99 % region of its covariance around zero; a velocity without
    covariance is known exactly and counts as it is. Static objects do neither.
    """

    def significant(velocities: Array, covariances: Array) -> NDArray[np.bool_]:
        result = np.zeros(len(scene), dtype=bool)
        for i, (v, covariance) in enumerate(zip(velocities, covariances, strict=True)):
            speed = float(np.linalg.norm(v))
            if scene.is_static[i] or speed == 0.0:
                continue
            if not np.isfinite(covariance).all() or np.trace(covariance) <= 0.0:
                result[i] = True
                continue
            regular = covariance + 1e-9 * np.eye(3)
            result[i] = float(v @ np.linalg.solve(regular, v)) > CHI2_3_99
        return result

    return (
        significant(scene.linear_velocities, scene.twist_covariances[:, :3, :3]),
        significant(scene.angular_velocities, scene.twist_covariances[:, 3:, 3:]),
    )


def sample_belief(scene: SceneGraph, samples: int, seed: int) -> tuple[SceneGraph, ...]:
    """Samples of what the scene is believed to be; the first is always the mean.

    Drawn: pose (from ``pose_covariances``); of objects that were seen to move, the velocity (from
    ``twist_covariances``), also where it is not certain that they do and the mean has them at rest
    (``moving_objects``); of objects that are believed to turn, the angular velocity; mass (log-normal), friction and
    restitution (normal, clipped to 0.02..2 and 0..0.95).
    Static objects keep their pose: what rests on them is known relative to them. Objects are drawn in the
    order of their ids, each from its own stream, so that one object's samples do not depend on which others
    are there.
    """
    result = [scene]
    _, turns = moving_objects(scene)
    moves = np.linalg.norm(scene.linear_velocities, axis=1) > 0.0
    for s in range(1, max(int(samples), 1)):
        positions, quaternions = scene.positions.copy(), scene.quaternions.copy()
        linear, angular = scene.linear_velocities.copy(), scene.angular_velocities.copy()
        log_mass, friction, restitution = (
            scene.log_mass.copy(),
            scene.friction.copy(),
            scene.restitution.copy(),
        )
        for i in range(len(scene)):
            rng = np.random.default_rng([int(seed), s, int(scene.ids[i])])
            unit = rng.standard_normal(15)
            log_mass[i] += scene.log_mass_std[i] * unit[12]
            friction[i] = np.clip(scene.friction[i] + scene.friction_std[i] * unit[13], 0.02, 2.0)
            restitution[i] = np.clip(scene.restitution[i] + scene.restitution_std[i] * unit[14], 0.0, 0.95)
            if scene.is_static[i]:
                continue
            pose = _square_root(scene.pose_covariances[i]) @ unit[:6]
            positions[i] += pose[:3]
            quaternions[i] = (Rotation.from_rotvec(pose[3:]) * Rotation.from_quat(quaternions[i])).as_quat()
            twist = _square_root(scene.twist_covariances[i]) @ unit[6:12]
            linear[i] += twist[:3] * moves[i]
            angular[i] += twist[3:] * turns[i]
        result.append(
            replace(
                scene,
                positions=positions,
                quaternions=quaternions,
                linear_velocities=linear,
                angular_velocities=angular,
                log_mass=log_mass,
                friction=friction,
                restitution=restitution,
            )
        )
    return tuple(result)


def centre_offsets(scenes: Sequence[SceneGraph], starts: ArrayLike) -> Array:
    """(S, N, 3) how far, in their own axes [m], objects' centres are off the bodies that stand for them in each sample.

    Where a thing's surface rests or touches is known better than its centre: how high a centre is depends on the shape
    that nobody has seen all of. Backends bring the things of every sample to rest where they rest and out of one
    another, which takes back part of what was drawn for their places. That part is of the shape: the centre is there,
    relative to the body, and goes along with it. The first sample, the mean, has none.

    Args:
        scenes: S samples (``sample_belief``).
        starts: (S, M, 13), M >= N, their states at time 0 in a future in which nothing is done to them by then.
    """
    if len(scenes) == 1 or not len(scenes[0]):
        return np.zeros((len(scenes), len(scenes[0]), 3))
    begun = np.asarray(starts, dtype=np.float64)[:, : len(scenes[0])]
    taken = np.stack([scene.positions for scene in scenes]) - begun[..., POSITION]
    taken = (taken - taken[:1]) * ~scenes[0].is_static[:, None]
    rotations = quaternion_to_matrix(begun[..., QUATERNION])
    return np.nan_to_num(np.einsum("snji,snj->sni", rotations, taken))


def move_centres(states: States, offsets: Array) -> None:
    """Move the positions in states (..., S, T, M, 13) to where the objects' centres are, in place.

    Args:
        offsets: (S, N, 3) as from ``centre_offsets``, N <= M.
    """
    for sample, index in np.argwhere(np.linalg.norm(offsets, axis=-1) > 1e-6).tolist():
        own = states[..., sample, :, index, :]
        axis = own[..., QUATERNION][..., :3]
        offset = offsets[sample, index].astype(states.dtype)
        turned = 2.0 * np.cross(axis, offset)
        own[..., POSITION] += offset + own[..., 6:7] * turned + np.cross(axis, turned)


def _square_root(covariance: Array) -> Array:
    """L with L L^T = covariance, for symmetric positive semi-definite matrices; zero where it is not
    finite.
    """
    if not np.isfinite(covariance).all():
        return np.zeros_like(covariance)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return vectors * np.sqrt(np.clip(values, 0.0, None))


def scene_states(scene: SceneGraph) -> Array:
    """(N, 13) states of the scene's objects as perceived."""
    return np.concatenate(
        [
            scene.positions,
            normalize_quaternion(scene.quaternions),
            scene.linear_velocities,
            scene.angular_velocities,
        ],
        axis=1,
    ).reshape(len(scene), STATE_SIZE)


def scene_body(scene: SceneGraph, index: int) -> BodyDef:
    """The body of a scene object as perceived."""
    shape = Shape(int(scene.shapes[index]))
    extents = np.asarray(scene.extents[index], dtype=np.float64)
    hull = scene.hulls[index] if shape == Shape.CONVEX else np.zeros((0, 3))
    if shape == Shape.SPHERE:
        extents = np.full(3, extents.mean())
    color = (*(float(c) for c in scene.colors[index]), 1.0)
    return BodyDef(
        (GeomDef(shape, extents, hull=np.asarray(hull, dtype=np.float64), color=color),),  # type: ignore[arg-type]
        mass=float(np.clip(np.exp(scene.log_mass[index]), 1e-6, 1e5)),
        friction=float(np.clip(scene.friction[index], 0.0, 10.0)),
        restitution=float(np.clip(scene.restitution[index], 0.0, 1.0)),
        is_static=bool(scene.is_static[index]),
        static_state=rest_state(scene.positions[index], scene.quaternions[index]),
    )


def hypothesis_bodies(scene: SceneGraph, hypothesis: Hypothesis, bodies: Sequence[BodyDef]) -> tuple[BodyDef, ...]:
    """The scene's bodies, then those that the hypothesis creates."""
    created = []
    for intervention in hypothesis.interventions:
        if intervention.creates_body:
            assert intervention.body is not None  # validated
            created.append(body_from_spec(intervention.body))
    return (*bodies, *created)


def _inertia(body: BodyDef) -> Array:
    """(3,) principal moments [kg m^2] of a body of uniform density, about its own axes."""
    x, y, z = body.geoms[0].extents
    shape = body.geoms[0].shape
    if shape == Shape.SPHERE:
        return np.full(3, 0.1 * body.mass * x * x)
    if shape in (Shape.CYLINDER, Shape.CAPSULE):
        side = body.mass * (3.0 * 0.25 * x * x + z * z) / 12.0
        return np.array([side, side, 0.125 * body.mass * x * x])
    return body.mass / 12.0 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])


class KinematicDynamics:
    """``straight``: constant velocity, no contacts, no gravity; ``still``: nothing moves but pushers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def rollout(
        self,
        scenes: Sequence[SceneGraph],
        hypotheses: Sequence[Hypothesis],
        times: ArrayLike,
        *,
        deadline: float | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_hypothesis: OnHypothesis | None = None,
    ) -> DynamicsResult:
        """See ``Dynamics.rollout``."""
        t = check_scenes(scenes, times)
        ids = object_slots(scenes[0], hypotheses)
        moves, turns = moving_objects(scenes[0])
        starts = []
        for scene in scenes:
            start = scene_states(scene)
            if scene is scenes[0]:
                start[:, LINEAR_VELOCITY] *= moves[:, None]
            start[:, ANGULAR_VELOCITY] *= turns[:, None]
            starts.append(start)
        states, present = empty_result(starts, len(hypotheses), len(t), len(ids))
        completed = 0
        known = [[scene_body(scene, i) for i in range(len(scene))] for scene in scenes]
        factual = [self._future(start, own, [], t)[0] for start, own in zip(starts, known, strict=True)]
        for k, hypothesis in enumerate(hypotheses):
            if (deadline is not None and time.monotonic() >= deadline) or (should_stop is not None and should_stop()):
                break
            for s, scene in enumerate(scenes):
                bodies = hypothesis_bodies(scene, hypothesis, known[s])
                future, exists = self._future(starts[s], bodies, targets(scene, hypothesis), t, factual[s])
                count = len(bodies)
                states[k, s, :, :count] = future
                present[k, :, :count] = exists
            completed = k + 1
            if on_hypothesis is not None:
                on_hypothesis(k, states[k], present[k])
        return DynamicsResult(ids, states, present, (), completed, self.name)

    def _future(
        self,
        start: Array,
        bodies: Sequence[BodyDef],
        actions: Sequence[tuple[int, Intervention]],
        times: Array,
        factual: Array | None = None,
    ) -> tuple[Array, NDArray[np.bool_]]:
        count, known = len(bodies), len(start)
        states = np.zeros((len(times), count, STATE_SIZE))
        present = np.zeros((len(times), count), dtype=bool)
        if factual is not None:
            states[:, :known], present[:, :known] = factual, True
        touched = {index for index, _ in actions}
        for index in range(count):
            if factual is not None and index not in touched:
                continue
            own = sorted((a for i, a in actions if i == index), key=lambda a: a.time_offset)
            body, exists, path, since = bodies[index], index < known, None, 0.0
            state = start[index].copy() if exists else rest_state(np.zeros(3))
            for n in range(len(own) + 1):
                until = own[n].time_offset if n < len(own) else np.inf
                rows = (times >= since - 1e-9) & (times < until - 1e-9)
                states[rows, index] = self._propagate(state, path, times[rows] - since)
                present[rows, index] = exists
                if n == len(own):
                    break
                state = self._propagate(state, path, np.array([until - since]))[0]
                if path is not None:
                    path = (path[0], path[1] + until - since)
                since = until
                path, exists, body, state = self._apply(own[n], path, exists, body, state)
        hold_absent(states, present)
        return states, present

    def _apply(
        self,
        do: Intervention,
        path: tuple[Intervention, float] | None,
        exists: bool,
        body: BodyDef,
        state: Array,
    ) -> tuple[tuple[Intervention, float] | None, bool, BodyDef, Array]:
        kind, state = do.kind, state.copy()
        if kind == InterventionKind.ADD and do.body is not None:
            state = rest_state(do.body.position, do.body.quaternion)
            if self.name == "straight":
                state[LINEAR_VELOCITY], state[ANGULAR_VELOCITY] = (
                    do.body.linear_velocity,
                    do.body.angular_velocity,
                )
            return None, True, body, state
        if kind == InterventionKind.FOLLOW_PATH:
            return (do, 0.0), True, body, rest_state(do.path_positions[0], do.path_quaternions[0])
        if not exists:
            return path, exists, body, state
        if kind == InterventionKind.REMOVE:
            return None, False, body, state
        if kind == InterventionKind.SET_POSE and path is None:
            state = rest_state(do.position, do.quaternion)
        elif kind == InterventionKind.SET_PROPERTY and do.property == Property.MASS:
            body = replace(body, mass=body.mass * do.value if do.value_is_factor else do.value)
        elif kind == InterventionKind.MORPH:
            new = scaled_body(body, do.scale)
            state[2] += lowest_point(body, state[QUATERNION]) - lowest_point(new, state[QUATERNION])
            body = new
        elif self.name == "straight" and not body.is_static and path is None:
            if kind == InterventionKind.SET_VELOCITY:
                state[LINEAR_VELOCITY], state[ANGULAR_VELOCITY] = do.linear_velocity, do.angular_velocity
            elif kind == InterventionKind.APPLY_IMPULSE:
                rotation = quaternion_to_matrix(state[QUATERNION])
                state[LINEAR_VELOCITY] += do.impulse / body.mass
                torque = rotation.T @ np.cross(do.point, do.impulse)
                state[ANGULAR_VELOCITY] += rotation @ (torque / np.maximum(_inertia(body), 1e-12))
        return path, exists, body, state

    def _propagate(self, state: Array, path: tuple[Intervention, float] | None, durations: Array) -> Array:
        """States (T, 13) after durations (T,) [s] of straight motion, or along a path."""
        result = np.tile(state, (len(durations), 1))
        if not len(durations):
            return result
        if path is not None:
            do, begun = path
            return path_states(do, durations + begun)
        if self.name == "still":
            result[:, LINEAR_VELOCITY] = result[:, ANGULAR_VELOCITY] = 0.0
            return result
        result[:, POSITION] += durations[:, None] * state[LINEAR_VELOCITY]
        turn = Rotation.from_rotvec(durations[:, None] * state[ANGULAR_VELOCITY])
        result[:, QUATERNION] = (turn * Rotation.from_quat(normalize_quaternion(state[QUATERNION]))).as_quat()
        return result


def path_states(path: Intervention, durations: Array) -> Array:
    """States (T, 13) of a path follower, durations (T,) [s] after its start; velocities from differences
    over 1 ms.
    """

    def at(query: Array) -> tuple[Array, Array]:
        return interpolate_pose(path.path_times, path.path_positions, path.path_quaternions, query)

    step = 1e-3
    position, quaternion = at(durations)
    ahead, turned = at(durations + step)
    states = np.zeros((len(durations), STATE_SIZE))
    states[:, POSITION], states[:, QUATERNION] = position, quaternion
    states[:, LINEAR_VELOCITY] = (ahead - position) / step
    states[:, ANGULAR_VELOCITY] = (Rotation.from_quat(turned) * Rotation.from_quat(quaternion).inv()).as_rotvec() / step
    return states


def empty_result(
    starts: Sequence[Array], hypotheses: int, times: int, objects: int
) -> tuple[States, NDArray[np.bool_]]:
    """States (K, S, T, M, 13) that hold the start poses, and presence (K, T, M) all False."""
    states = np.zeros((hypotheses, len(starts), times, objects, STATE_SIZE), dtype=np.float32)
    states[..., 6] = 1.0
    for s, start in enumerate(starts):
        states[:, s, :, : len(start)] = start
    states[..., LINEAR_VELOCITY] = states[..., ANGULAR_VELOCITY] = 0.0
    return states, np.zeros((hypotheses, times, objects), dtype=bool)


def surface_separation(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: ArrayLike,
    result: DynamicsResult,
    pairs: Sequence[tuple[int, int]],
) -> NDArray[np.float32]:
    """Smallest surface distance of pairs over all times.

    Args:
        scene: the mean scene that the rollouts started from (its shapes count; morphs are followed).
        hypotheses: K, as rolled out; times: (T,) [s].
        pairs: P pairs of ids out of ``result.object_ids``.

    Returns:
        (K, S, P) [m], negative by the depth of penetration; NaN where the two are never there together, or
        the hypothesis was not done. Distances are exact between the bodies' shapes (MuJoCo
        ``mj_geomDistance``) at the times given; touches between two of those times are in
        ``result.contacts``.

    Raises:
        ValueError: an id that is not in the result.
    """
    t = np.asarray(times, dtype=np.float64)
    column = {int(i): m for m, i in enumerate(result.object_ids)}
    for a, b in pairs:
        if a not in column or b not in column:
            raise ValueError(f"pairs: got ({a}, {b}), expected ids out of {sorted(column)}")
    samples = result.states.shape[1]
    separation = np.full((len(hypotheses), samples, len(pairs)), np.nan, dtype=np.float32)
    base = [scene_body(scene, i) for i in range(len(scene))]
    # Hypotheses whose bodies have the same shapes at the same times are looked at together.
    groups: dict[object, list[int]] = {}
    for k in range(min(result.completed, len(hypotheses))):
        groups.setdefault(_shape_changes(hypotheses[k]), []).append(k)
    worlds: dict[object, tuple[World, mujoco.MjData]] = {}
    for members in groups.values():
        hypothesis, rows_k = hypotheses[members[0]], np.array(members)
        bodies = list(hypothesis_bodies(scene, hypothesis, base))
        morphs = sorted(
            ((i.time_offset, m, i) for m, i in targets(scene, hypothesis) if i.kind == InterventionKind.MORPH),
            key=lambda item: item[0],
        )
        edges = [0.0, *(m[0] for m in morphs), np.inf]
        for part in range(len(edges) - 1):
            if part:
                _, index, do = morphs[part - 1]
                bodies[index] = scaled_body(bodies[index], do.scale)
            rows = np.flatnonzero((t >= edges[part] - 1e-9) & (t < edges[part + 1] - 1e-9))
            if not len(rows):
                continue
            key = tuple(b.shape_key() for b in bodies)
            if key not in worlds:
                world = World(bodies, None, 0.004, touch_sensors=False)
                worlds[key] = (world, mujoco.MjData(world.model))
            world, data = worlds[key]
            for p, (a, b) in enumerate(pairs):
                ma, mb = column[a], column[b]
                if ma >= len(bodies) or mb >= len(bodies):
                    continue
                together = result.present[rows_k][:, rows, ma] & result.present[rows_k][:, rows, mb]  # (G, R)
                at = np.ix_(rows_k, np.arange(samples), rows)
                found = _least_distances(
                    world, data, ma, mb, result.states[..., ma, :][at], result.states[..., mb, :][at], together
                )
                separation[rows_k, :, p] = np.fmin(separation[rows_k, :, p], found)
    return separation


def _shape_changes(hypothesis: Hypothesis) -> tuple[object, ...]:
    """Equal for hypotheses that bring in the same shapes, and scale the same objects at the same times."""
    changes: list[object] = []
    for i in hypothesis.interventions:
        if i.creates_body and i.body is not None:
            changes.append((int(i.body.shape), np.asarray(i.body.extents).tobytes()))
        elif i.kind == InterventionKind.MORPH:
            changes.append((i.object_id, i.time_offset, np.asarray(i.scale).tobytes()))
    return tuple(changes)


def _least_distances(
    world: World, data: mujoco.MjData, a: int, b: int, states_a: States, states_b: States, together: NDArray[np.bool_]
) -> Array:
    """Smallest distances (G, S) [m] of two bodies over states (G, S, R, 13), where ``together`` (G, R); else NaN."""
    shape = states_a.shape[:2]
    model = world.model
    best = np.full(states_a.shape[0] * states_a.shape[1], np.inf)
    g, s, r = np.nonzero(np.broadcast_to(together[:, None], states_a.shape[:3]))
    poses = np.concatenate([states_a[g, s, r, :7], states_b[g, s, r, :7]], axis=1)
    owner = g * shape[1] + s
    # What stands still relative to the time before is as far away as then.
    fresh = np.ones(len(owner), dtype=bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (poses[1:] != poses[:-1]).any(axis=1)
    poses, owner = poses[fresh], owner[fresh]
    for ga, gb in itertools.product(world.geom_ids[a], world.geom_ids[b]):
        pa, pb = _geom_centres(model, ga, poses[:, :7]), _geom_centres(model, gb, poses[:, 7:])
        # Distance between the bounding spheres.
        bound = np.linalg.norm(pa - pb, axis=1) - model.geom_rbound[ga] - model.geom_rbound[gb]
        order = np.lexsort((bound, owner))
        nearest = np.ones(len(order), dtype=bool)
        nearest[1:] = owner[order[1:]] != owner[order[:-1]]
        xpos_a, xpos_b = data.geom_xpos[ga], data.geom_xpos[gb]
        xmat_a, xmat_b = data.geom_xmat[ga], data.geom_xmat[gb]
        # First the most promising state of each, then those that may still be nearer.
        for rows in (order[nearest], order[~nearest]):
            rows = rows[bound[rows] < best[owner[rows]]]
            ra, rb = _geom_rotations(model, ga, poses[rows, 3:7]), _geom_rotations(model, gb, poses[rows, 10:14])
            for n, (row, who, low) in enumerate(
                zip(rows.tolist(), owner[rows].tolist(), bound[rows].tolist(), strict=True)
            ):
                if low < best[who]:
                    xpos_a[:], xpos_b[:], xmat_a[:], xmat_b[:] = pa[row], pb[row], ra[n], rb[n]
                    distance = mujoco.mj_geomDistance(model, data, ga, gb, 1e3, None)
                    best[who] = min(best[who], distance)
    return np.where(np.isinf(best), np.nan, best).reshape(shape)


def _geom_centres(model: mujoco.MjModel, geom: int, poses: States) -> Array:
    """(n, 3) centres [m] of a geom of a body at poses (n, 7)."""
    local = model.geom_pos[geom]
    position = poses[:, :3].astype(np.float64)
    return position + quaternion_to_matrix(poses[:, 3:]) @ local if local.any() else position


def _geom_rotations(model: mujoco.MjModel, geom: int, quaternions: States) -> Array:
    """(n, 9) rotation matrices of a geom of a body at quaternions (n, 4)."""
    local = quaternion_to_matrix(np.roll(model.geom_quat[geom], -1))
    return (quaternion_to_matrix(quaternions) @ local).reshape(-1, 9)


# Thresholds of events [m, m/s, rad]; a fall is a drop of the lowest point, so toppling over is none.
FALL_DROP_M = 0.02
FALL_SPEED_M_S = 0.3
TOPPLE_ANGLE_RAD = np.pi / 4.0
REST_SPEED_M_S = 0.03
REST_DURATION_S = 0.1
WORKSPACE_MARGIN_M = 0.05


def workspace_bounds(scene: SceneGraph) -> Array | None:
    """(2, 3) lower and upper corner [m] of the space over the scene's supports; None where it has none."""
    tops = np.flatnonzero(scene.is_static)
    if not len(tops):
        return None
    rotation = np.abs(quaternion_to_matrix(scene.quaternions[tops]))
    half = 0.5 * np.einsum("nij,nj->ni", rotation, scene.extents[tops])
    lower = (scene.positions[tops] - half).min(axis=0) - WORKSPACE_MARGIN_M
    upper = (scene.positions[tops] + half).max(axis=0) + WORKSPACE_MARGIN_M
    lower[2] = float((scene.positions[tops] + half)[:, 2].min()) - WORKSPACE_MARGIN_M
    upper[2] = np.inf
    return np.stack([lower, upper])


@dataclass(frozen=True)
class EventTable:
    """E events as arrays, in order of hypothesis, sample, time.

    Attributes:
        hypothesis, sample, kind, a, b: (E,) int64; ``a`` and ``b`` are object ids, ``b`` 0: none.
        time_s: (E,) [s].
    """

    hypothesis: NDArray[np.int64]
    sample: NDArray[np.int64]
    kind: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    time_s: Array

    def __len__(self) -> int:
        return len(self.hypothesis)

    def events(self) -> tuple[RolloutEvent, ...]:
        """The same, one by one."""
        columns = (self.hypothesis, self.sample, self.kind, self.a, self.b, self.time_s)
        rows = zip(*(c.tolist() for c in columns), strict=True)
        return tuple(RolloutEvent(k, s, EventKind(kind), a, b, time_s) for k, s, kind, a, b, time_s in rows)


def derive_events(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: ArrayLike,
    result: DynamicsResult,
    workspace: ArrayLike | None = None,
) -> tuple[RolloutEvent, ...]:
    """Events of imagined futures, in order of hypothesis, sample, time.

    CONTACT and SEPARATION from the contacts (those that hold at the start are none); of movable bodies that
    follow no
    path: FALL (the lowest point has dropped by 2 cm below its highest so far, at more than 0.3 m/s), TOPPLE
    (turned by more than 45 degrees from how it stood at the start, or was placed; of cylinders and capsules
    the axis counts, of spheres nothing does), LEAVE (the centre leaves the workspace), STOP (at rest, below
    0.03 m/s for the last 0.1 s or more, after having moved).

    Args:
        scene: the mean scene; hypotheses: K; times: (T,) [s].
        workspace: (2, 3) lower and upper corner [m]; None: over the supports, 5 cm wider
            (``workspace_bounds``).
    """
    return event_table(scene, hypotheses, times, result, workspace).events()


def event_table(
    scene: SceneGraph,
    hypotheses: Sequence[Hypothesis],
    times: ArrayLike,
    result: DynamicsResult,
    workspace: ArrayLike | None = None,
) -> EventTable:
    """As ``derive_events``, as arrays: what is counted and not listed needs no object per event."""
    t = np.asarray(times, dtype=np.float64)
    bounds = workspace_bounds(scene) if workspace is None else np.asarray(workspace, dtype=np.float64)
    done, count = min(result.completed, len(hypotheses)), len(scene)
    row_of = {int(i): m for m, i in enumerate(scene.ids)}
    led = np.zeros((done, len(result.object_ids)), dtype=bool)
    placed: dict[tuple[int, int], list[float]] = {}
    added: dict[tuple[int, object], tuple[BodyDef, list[int]]] = {}
    for k in range(done):
        free_slot = count
        for i in hypotheses[k].interventions:
            if i.creates_body:
                m, free_slot = free_slot, free_slot + 1
                if i.kind == InterventionKind.ADD and i.body is not None:
                    key = (m, (int(i.body.shape), np.asarray(i.body.extents).tobytes()))
                    if key not in added:
                        added[key] = (body_from_spec(i.body), [])
                    added[key][1].append(k)
            elif i.kind in (InterventionKind.FOLLOW_PATH, InterventionKind.SET_POSE):
                m = row_of[i.object_id]
            if i.kind == InterventionKind.FOLLOW_PATH:
                led[k, m] = True
            elif i.kind == InterventionKind.SET_POSE:
                placed.setdefault((k, m), []).append(i.time_offset)
    bodies: list[tuple[int, BodyDef, NDArray[np.int64]]] = [
        (int(m), scene_body(scene, m), np.arange(done)) for m in np.flatnonzero(~scene.is_static)
    ]
    bodies += [(key[0], body, np.array(members)) for key, (body, members) in added.items()]
    found = [_contact_columns(result)]
    for m, body, members in bodies:
        members = members[result.present[members, :, m].any(axis=1) & ~led[members, m]]
        if not len(members):
            continue
        exists = result.present[members, :, m]
        reference = np.repeat(np.argmax(exists, axis=1)[:, None], len(t), axis=1)
        for g, k in enumerate(members.tolist() if placed else ()):
            for at in sorted(placed.get((k, m), ())):
                reference[g, t >= at - 1e-9] = min(int(np.searchsorted(t, at - 1e-9)), len(t) - 1)
        g, s, kind, row = _motion_events(body, result.states[members, :, :, m], exists, reference, t, bounds)
        a = np.full(len(g), result.object_ids[m])
        found.append((members[g], s, kind, a, np.zeros_like(a), t[row]))
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    hypothesis, sample, kinds, first, second, when = columns
    order = np.lexsort((second, first, kinds, when, sample, hypothesis))

    def whole(column: NDArray[Any]) -> NDArray[np.int64]:
        return column[order].astype(np.int64)

    return EventTable(whole(hypothesis), whole(sample), whole(kinds), whole(first), whole(second), when[order])


def _contact_columns(result: DynamicsResult) -> tuple[NDArray[Any], ...]:
    """Contacts that begin or end after the start, as columns of an ``EventTable``."""
    began, ended = int(EventKind.CONTACT), int(EventKind.SEPARATION)
    rows = [(c.hypothesis, c.sample, began if c.began else ended, c.a, c.b) for c in result.contacts if c.time_s > 0.0]
    numbers = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return (*numbers.T, np.array([c.time_s for c in result.contacts if c.time_s > 0.0], dtype=np.float64))


def _upward(quaternions: Array) -> Array:
    """World z in the axes of bodies at unit quaternions (..., 4): third rows of their rotation matrices, (..., 3)."""
    x, y, z, w = np.moveaxis(quaternions, -1, 0)
    return np.stack([2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)], axis=-1)


def _motion_events(
    body: BodyDef,
    states: States,
    exists: NDArray[np.bool_],
    reference: NDArray[np.int64],
    times: Array,
    bounds: Array | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """FALL, TOPPLE, LEAVE and STOP of one object in G futures.

    Args:
        states: (G, S, T, 13); exists: (G, T).
        reference: (G, T) row of the time from which on uprightness and height count.
        times: (T,) [s]; bounds: (2, 3) of the workspace [m], or None.

    Returns:
        Future 0..G-1, sample, kind and time row of each event, (E,) each.
    """
    count = states.shape[2]
    shape, half = body.geoms[0].shape, 0.5 * body.geoms[0].extents
    found: list[tuple[NDArray[np.int64], ...]] = []

    def first(kind: EventKind, happens: NDArray[np.bool_], g: NDArray[np.int64], s: NDArray[np.int64]) -> None:
        """Where something happens (n, T) in futures and samples (n,): the first time."""
        rows = np.flatnonzero(happens.any(axis=1))
        found.append((g[rows], s[rows], np.full(len(rows), int(kind)), np.argmax(happens[rows], axis=1)))

    if bounds is not None:
        position = states[..., POSITION]
        outside = ((position < bounds[0]) | (position > bounds[1])).any(axis=-1)  # (G, S, T)
        gs, ss = np.nonzero(outside.any(axis=2))
        out = outside[gs, ss]
        start = out[np.arange(len(gs)), np.argmax(exists, axis=1)[gs]]
        first(EventKind.LEAVE, exists[gs] & out & ~start[:, None], gs, ss)
    linear, angular = states[..., LINEAR_VELOCITY], states[..., ANGULAR_VELOCITY]
    speed = np.sqrt(np.einsum("gstj,gstj->gst", linear, linear))
    spin = np.sqrt(np.einsum("gstj,gstj->gst", angular, angular))
    gs, ss = np.nonzero(((speed > REST_SPEED_M_S) | (spin > REST_SPEED_M_S)).any(axis=2))
    if len(gs):
        own, there, since = states[gs, ss].astype(np.float64), exists[gs], reference[gs]  # (n, T, 13), (n, T), (n, T)
        up = _upward(own[..., QUATERNION])
        if shape == Shape.SPHERE:
            reach = np.full(up.shape[:2], half[0])
        elif shape in (Shape.CYLINDER, Shape.CAPSULE):
            reach = half[0] * np.sqrt(np.clip(1.0 - up[..., 2] ** 2, 0.0, 1.0)) + half[2] * np.abs(up[..., 2])
        else:
            reach = np.abs(up) @ half
        bottom = np.where(there, own[..., 2] - reach, -np.inf)
        highest = np.maximum.accumulate(bottom, axis=1)
        # Placing a thing lower is no fall: the highest so far starts anew there.
        for n in np.flatnonzero((since != since[:, :1]).any(axis=1)):
            for begin in np.unique(since[n]):
                rows = since[n] == begin
                highest[n, rows] = np.maximum.accumulate(bottom[n, rows])
        drops = (bottom < highest - FALL_DROP_M) & (own[..., LINEAR_VELOCITY][..., 2] < -FALL_SPEED_M_S)
        first(EventKind.FALL, there & drops, gs, ss)
        if shape in (Shape.CYLINDER, Shape.CAPSULE):
            upright = np.abs(up[..., 2]) > np.cos(TOPPLE_ANGLE_RAD)
            first(EventKind.TOPPLE, there & np.take_along_axis(upright, since, axis=1) & ~upright, gs, ss)
        elif shape != Shape.SPHERE:
            # World z of the vertical at the reference, carried along with the body: R(t) R(ref)^T z.
            tilt = np.einsum("ntj,ntj->nt", up, np.take_along_axis(up, since[..., None], axis=1))
            first(EventKind.TOPPLE, there & (tilt < np.cos(TOPPLE_ANGLE_RAD)), gs, ss)
        moving = (speed[gs, ss] > REST_SPEED_M_S) | (spin[gs, ss] * half.max() > REST_SPEED_M_S)
        stop = count - np.argmax(moving[:, ::-1], axis=1)  # the row after the last that moves
        rests = there[:, -1] & moving.any(axis=1) & ~moving[:, -1]
        rests[rests] = times[-1] - times[stop[rests]] >= REST_DURATION_S - 1e-9
        found.append((gs[rests], ss[rests], np.full(int(rests.sum()), int(EventKind.STOP)), stop[rests]))
    if not found:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty, empty
    future, sample, kind, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return future, sample, kind, row


def default_threads() -> int:
    """Worker threads for rollouts: the processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
