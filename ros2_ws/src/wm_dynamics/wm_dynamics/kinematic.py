"""Dynamics without contacts and gravity: two baselines, and the poses of what follows a path."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.geometry import interpolate_pose, normalize_quaternion, quaternion_to_matrix
from wm_core.interventions import Hypothesis, Intervention, InterventionKind, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Array, DynamicsResult, OnHypothesis, check_scenes, empty_result, object_slots, targets
from wm_dynamics.belief import hypothesis_bodies, inertia, moving_objects, scene_body, scene_states
from wm_dynamics.mujoco.bodies import BodyDef, lowest_point, rest_state, scaled_body
from wm_dynamics.mujoco.live_world import hold_absent


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
                state[ANGULAR_VELOCITY] += rotation @ (torque / np.maximum(inertia(body), 1e-12))
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
