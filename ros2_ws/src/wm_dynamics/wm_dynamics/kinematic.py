"""Dynamics without contacts and gravity: two baselines, and the poses of what follows a path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.geometry import interpolate_pose
from wm_core.interventions import BodySpec, Intervention, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import normalize_quaternion, quaternion_to_matrix
from wm_dynamics.base import (
    Array,
    Dynamics,
    DynamicsResult,
    RolloutCall,
    empty_result,
    targets,
)
from wm_dynamics.belief import hypothesis_bodies, inertia, moving_objects, scene_body, scene_states
from wm_dynamics.interventions import apply
from wm_dynamics.mujoco.bodies import BodyDef, rest_state
from wm_dynamics.mujoco.trajectory import hold_absent


class _StraightBody:
    """A body without contacts, as interventions act on it (``wm_dynamics.interventions.BodyHandle``).

    Args:
        body: its definition; present: whether it exists.
        state: (13,), layout of ``wm_core.rollout``; None: at rest at the origin.
        name: of the baseline.

    Attributes:
        path: that it follows, or None; on_path_s: for how long [s].
    """

    def __init__(self, body: BodyDef, present: bool, state: Array | None, name: str) -> None:
        self.body, self.present, self._name = body, present, name
        self.state = rest_state(np.zeros(3)) if state is None else state.copy()
        self.path: Intervention | None = None
        self.on_path_s = 0.0

    @property
    def kinematic(self) -> bool:
        return self.path is not None

    @property
    def quaternion(self) -> Array:
        return self.state[QUATERNION]

    def add(self, spec: BodySpec) -> None:
        self.path, self.present, self.state = None, True, rest_state(spec.position, spec.quaternion)
        self.set_velocity(spec.linear_velocity, spec.angular_velocity)

    def follow(self, path: Intervention) -> None:
        self.path, self.on_path_s, self.present = path, 0.0, True
        self.state = rest_state(path.path_positions[0], path.path_quaternions[0])

    def remove(self) -> None:
        self.path, self.present = None, False

    def place(self, position: ArrayLike, quaternion: ArrayLike) -> None:
        self.state = rest_state(position, quaternion)

    def set_velocity(self, linear: Array, angular: Array) -> None:
        if self._name == "straight":
            self.state[LINEAR_VELOCITY], self.state[ANGULAR_VELOCITY] = linear, angular

    def push(self, impulse: Array, point: Array) -> None:
        if self._name != "straight":
            return
        rotation = quaternion_to_matrix(self.state[QUATERNION])
        self.state[LINEAR_VELOCITY] += impulse / self.body.mass
        torque = rotation.T @ np.cross(point, impulse)
        self.state[ANGULAR_VELOCITY] += rotation @ (torque / np.maximum(inertia(self.body), 1e-12))

    def set_property(self, which: Property, body: BodyDef) -> None:
        self.body = body

    def set_shape(self, body: BodyDef, rise_m: float) -> None:
        self.body = body
        self.state[2] += rise_m


class KinematicDynamics(Dynamics):
    """Baselines without contacts.

    Args:
        name: ``straight``: constant velocity, no contacts, no gravity; ``still``: nothing moves but pushers.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def answer(self, call: RolloutCall) -> DynamicsResult:
        """See ``Dynamics.answer``."""
        scenes, hypotheses, t, ids = call.scenes, call.hypotheses, call.times, call.object_ids
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
            if call.ended():
                break
            for s, scene in enumerate(scenes):
                bodies = hypothesis_bodies(scene, hypothesis, known[s])
                future, exists = self._future(starts[s], bodies, targets(scene, hypothesis), t, factual[s])
                count = len(bodies)
                states[k, s, :, :count] = future
                present[k, :, :count] = exists
            completed = k + 1
            if call.on_hypothesis is not None:
                call.on_hypothesis(k, states[k], present[k])
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
            handle = _StraightBody(bodies[index], index < known, start[index] if index < known else None, self.name)
            since = 0.0
            for n in range(len(own) + 1):
                until = own[n].time_offset if n < len(own) else np.inf
                rows = (times >= since - 1e-9) & (times < until - 1e-9)
                states[rows, index] = self._propagate(handle, times[rows] - since)
                present[rows, index] = handle.present
                if n == len(own):
                    break
                handle.state = self._propagate(handle, np.array([until - since]))[0]
                handle.on_path_s += until - since
                since = until
                apply(own[n], handle)
        hold_absent(states, present)
        return states, present

    def _propagate(self, handle: _StraightBody, durations: Array) -> Array:
        """States (T, 13) after durations (T,) [s] of straight motion, or along a path."""
        state = handle.state
        result = np.tile(state, (len(durations), 1))
        if not len(durations):
            return result
        if handle.path is not None:
            return path_states(handle.path, durations + handle.on_path_s)
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
