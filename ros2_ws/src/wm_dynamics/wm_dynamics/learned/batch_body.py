"""A body of one future among many, as interventions act on it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from wm_core.interventions import BodySpec, Intervention, Property
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.contact_step.body_tables import ROWS, surface_rows
from wm_dynamics.learned.future_state import FutureState
from wm_dynamics.learned.scene import Array
from wm_dynamics.mujoco.bodies import BodyDef


def cross(a: ArrayLike, b: Array) -> Array:
    """Vector product of two vectors (3,); far faster than NumPy's for a single one."""
    ax, ay, az = np.asarray(a, dtype=np.float64).tolist()
    bx, by, bz = np.asarray(b, dtype=np.float64).tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


class BatchBody:
    """A ``wm_dynamics.interventions.BodyHandle`` on the tables of a ``FutureState``.

    Args:
        state: of all futures.
        row, m: the future, and the body in it.
        now: the step at which the intervention happens.
    """

    def __init__(self, state: FutureState, row: int, m: int, now: int) -> None:
        self._state, self._table, self._row, self._m, self._now = state, state.bodies, row, m, now
        self._n = row * state.slots + m

    @property
    def present(self) -> bool:
        """Whether the body exists."""
        return bool(self._table.present[self._n])

    @property
    def kinematic(self) -> bool:
        """Whether it is moved by a path alone."""
        return bool(self._table.kinematic[self._n])

    @property
    def body(self) -> BodyDef:
        """Its definition now."""
        return self._state.definition(self._row, self._m)[0]

    @property
    def quaternion(self) -> Array:
        """(4,) body to world, xyzw."""
        body = self.body
        return body.static_state[QUATERNION] if body.is_static else self._table.quaternion[:, self._n].astype(float)

    def add(self, spec: BodySpec) -> None:
        """Bring the body into existence."""
        self._table.present[self._n] = True
        self._define(self.body)
        self._put(spec.position, spec.quaternion, spec.linear_velocity, spec.angular_velocity)

    def follow(self, path: Intervention) -> None:
        """Move the body along a path from now on."""
        self._table.present[self._n] = True
        self._define(self.body, kinematic=True)
        self._put(path.path_positions[0], path.path_quaternions[0])
        self._state.paths.begin(self._n, path, self._now, self._table.offsets[:, self._n])

    def remove(self) -> None:
        """Remove the body; what rested on it wakes."""
        self._state.wake_carried(self._row, self._m)
        self._state.pairs.touching[self._row, self._state.prepared.pairs_of[self._m]] = False
        self._table.present[self._n] = False
        self._state.paths.end(self._n)
        if self._is_support:
            self._state.surfaces.rows[self._row, self._state.surfaces.row_of[self._m]] = np.nan

    def place(self, position: ArrayLike, quaternion: ArrayLike) -> None:
        """Move the body to a pose [m, xyzw]; it keeps its shape and is at rest there."""
        self._state.wake_carried(self._row, self._m)
        self._put(position, quaternion)
        if self._table.fixed[self._n]:
            state = self.body.static_state.copy()
            state[POSITION], state[QUATERNION] = position, quaternion
            self._move_static(replace(self.body, static_state=state))

    def set_velocity(self, linear: Array, angular: Array) -> None:
        """Velocities of the body frame [m/s, rad/s]."""
        self._table.angular[:, self._n] = angular
        self._table.linear[:, self._n] = linear + cross(angular, self._state.arm(self._n))
        self._state.wake(self._n)

    def push(self, impulse: Array, point: Array) -> None:
        """An impulse [N s] at a point from the body's origin [m], world axes."""
        n, table = self._n, self._table
        rotation = quaternion_to_matrix(self.quaternion)
        inverse = rotation @ table.parameters[ROWS["inverse_inertia"], n].reshape(3, 3) @ rotation.T
        table.linear[:, n] += table.parameters[ROWS["inverse_mass"], n] * impulse
        table.angular[:, n] += inverse @ cross(point - self._state.arm(n), impulse)
        self._state.wake(n)

    def set_property(self, which: Property, body: BodyDef) -> None:
        """Another mass, friction or restitution."""
        self._define(body)
        if which == Property.MASS:
            return
        if not (body.is_static and self._is_support):
            self._state.wake(self._n)
            return
        # A support's own coefficients overrule those of what touches it, once they are set.
        surfaces = self._state.surfaces
        at = (self._row, surfaces.row_of[self._m])
        surfaces.friction[at], surfaces.restitution[at] = body.friction, body.restitution
        self._state.wake_future(self._row)

    def set_shape(self, body: BodyDef, rise_m: float) -> None:
        """Another shape, its origin raised by ``rise_m`` [m]."""
        if body.is_static:
            state = self.body.static_state.copy()
            state[2] += rise_m
            self._move_static(replace(body, static_state=state))
            return
        self._state.wake_carried(self._row, self._m)
        before = self._state.arm(self._n)
        self._define(body)
        self._table.position[2, self._n] += rise_m
        # The origin keeps its velocity; that of the center of mass, which the table has, is another where it has moved.
        angular = self._table.angular[:, self._n].astype(float)
        self._table.linear[:, self._n] += cross(angular, self._state.arm(self._n) - before)
        self._state.wake(self._n)

    # -- parts

    @property
    def _is_support(self) -> bool:
        return self._m in self._state.prepared.surface_of

    def _define(self, body: BodyDef, kinematic: bool | None = None) -> None:
        self._state.define(self._row, self._m, body, kinematic)

    def _put(
        self,
        position: ArrayLike,
        quaternion: ArrayLike,
        linear: ArrayLike = (0.0, 0.0, 0.0),
        angular: ArrayLike = (0.0, 0.0, 0.0),
    ) -> None:
        """Move the body to another pose, with other velocities, of its frame [m, m/s, rad/s]."""
        n, table = self._n, self._table
        q = np.asarray(quaternion, float)
        table.quaternion[:, n] = q / max(math.sqrt(float(q @ q)), 1e-9)
        arm = self._state.arm(n)
        table.position[:, n] = np.asarray(position, float) + arm
        table.angular[:, n] = angular
        table.linear[:, n] = np.asarray(linear, float) + cross(angular, arm)
        # The pose is given exactly, so no overlap at it counts as an error of perception.
        table.plane_slack[n] = 0.0
        self._state.pairs.slack[self._row, self._state.prepared.slacks_of[self._m]] = 0.0
        self._state.pairs.touching[self._row, self._state.prepared.pairs_of[self._m]] = False
        self._state.wake(n)

    def _move_static(self, body: BodyDef) -> None:
        """A support at another pose, or of another size."""
        self._define(body)
        self._table.position[:, self._n] = body.static_state[POSITION] + self._state.arm(self._n)
        if self._is_support:
            top = surface_rows(body)
            self._state.surfaces.rows[self._row, self._state.surfaces.row_of[self._m]] = np.nan if top is None else top
        self._state.wake_future(self._row)
