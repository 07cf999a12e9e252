"""MuJoCo worlds made of bodies: compilation, properties and states.

The simulator (ground truth) and the ``physics`` dynamics backend both build their worlds here, so that imagined futures
differ from ground truth in what is known of the world, not in how it moves.

Conventions
-----------
* A body's state is 13 numbers in the layout of ``wm_core.rollout``: position of the body frame [m],
  quaternion x, y, z, w, velocity of the body frame's origin [m/s] and angular velocity [rad/s], all in world
  axes, z up.
* Friction and restitution belong to the moving body: against a static support the body's own coefficients
  count; between two moving bodies the larger friction and the smaller restitution count. A static support's
  own coefficients count only once an intervention has set them (they then overrule those of whatever touches
  it).
* Restitution: contacts are spring-dampers in MuJoCo's direct format, ``solref = (-stiffness, -damping)``, in
  units of acceleration. The damping for a restitution e comes from a table that is made by running the very
  recursion of the time-stepper for one contact (v += h max(0, -k r - b v), r += h v), so that e is reached at any
  time step (within 0.07; e below about 0.1 cannot be told from 0.1). Stiffness 1e4 1/s^2: contacts last about
  30 ms, a body at rest sinks in by less than 0.1 mm, a ball that lands at 1 m/s by up to 6 mm.
* Kinematic bodies (pushers) are free bodies, a million times heavier than the heaviest body, with an
  isotropic inertia, and a force that moves them along their path from step to step. So, unlike a
  MuJoCo mocap body, whose velocity in contacts is zero, they push at their true speed. They do not collide
  with static bodies.
* Contacts between bodies are read at every physics step through MuJoCo contact sensors. Two contacts of one
  pair with less than 40 ms of air between them are one contact; any touch, however short, is reported.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Sequence

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

from wm_core.constants import GRAVITY_M_S2
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import normalize_quaternion, quaternion_to_matrix, rotate, to_wxyz
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import Array, BodyDef, rest_state
from wm_dynamics.mujoco.contacts import CONTACT_STIFFNESS, contact_solref
from wm_dynamics.mujoco.geoms import HIDDEN_GROUP, set_mesh, set_shape

log = logging.getLogger(__name__)

PARK_POSITION_M = 500.0
"""Distance from the origin at which bodies that do not exist (yet, or any more) are kept, without collisions."""
ROLLING_COEFFICIENT = 0.008
"""Rolling resistance over radius (dimensionless); hard balls on wood or laminate are around 0.005 to
0.015.
"""
TORSIONAL_COEFFICIENT_M = 0.003
"""Torsional friction as the radius of a contact patch [m], MuJoCo's second coefficient (its default is 0.005): larger,
and spinning objects stop sooner."""
_KINEMATIC_MASS_RATIO = 1.0e6
"""Mass of a pusher over that of the heaviest body: collisions slow it by a millionth of its speed. Larger, and the
solver's matrices are ill-conditioned."""
_MOVING, _STATIC, KINEMATIC = 1, 2, 4
"""Collision bits: moving bodies collide with everything, static bodies and pushers with moving bodies alone."""
_ARENA_BYTES = 64 << 20
"""Room for the contacts of a step: with 8 MiB those of six mugs of twelve parts at one place were left out. Larger is
reserved by each of MuJoCo's data, and taken where it is used."""
_FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS.value


def _quiet_warning(message: str) -> None:
    # MuJoCo's default handler appends to MUJOCO_LOG.TXT in the working directory; states are checked here
    # instead.
    log.debug("mujoco: %s", message)


mujoco.set_mju_user_warning(_quiet_warning)


class World:
    """A compiled MuJoCo world of n bodies and a floor.

    Args:
        bodies: n of them; body i keeps index i in every state array.
        floor_z: height of the floor plane [m]; None: no floor.
        timestep: physics step [s].
        decorate: called with the ``mujoco.MjSpec`` before it is compiled, to add lights, cameras, textures.
        touch_sensors: report contacts between bodies (off for worlds that are only drawn).
        passing: pairs of indices of bodies that do not collide.

    Attributes:
        bodies, floor_z, timestep: as given.
        movable: (n,) bool, not static.
        pairs: (i, j) of bodies, i < j, whose contacts are reported.
        model: compiled; pristine: a copy that is never changed.
        body_ids: MuJoCo's ids of the n bodies; geom_ids: of their geoms.
        qpos_address, qvel_address: (n,) int64, where a moving body's coordinates begin; -1: static.
        collides: of each body's geoms, whether they collide.
    """

    def __init__(
        self,
        bodies: Sequence[BodyDef],
        floor_z: float | None,
        timestep: float,
        decorate: Callable[[mujoco.MjSpec], None] | None = None,
        touch_sensors: bool = True,
        passing: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.bodies = tuple(bodies)
        self.floor_z = floor_z
        self.timestep = float(timestep)
        self._decorate = decorate
        self._touch_sensors = touch_sensors
        self._passing = tuple(passing)
        n = len(self.bodies)
        self.movable = np.array([not b.is_static for b in self.bodies], dtype=bool).reshape(n)
        self.pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if self.movable[i] or self.movable[j]]
        self.model = self._compile()
        self.body_ids = [self.model.body(f"body{i}").id for i in range(n)]
        self.geom_ids = [[g for g in range(self.model.ngeom) if self.model.geom_bodyid[g] == b] for b in self.body_ids]
        joints = [int(self.model.body_jntadr[b]) for b in self.body_ids]
        self.qpos_address = np.array([self.model.jnt_qposadr[j] if j >= 0 else -1 for j in joints], dtype=np.int64)
        self.qvel_address = np.array([self.model.jnt_dofadr[j] if j >= 0 else -1 for j in joints], dtype=np.int64)
        self.collides = [[bool(self.model.geom_contype[g]) for g in geoms] for geoms in self.geom_ids]
        for i, body in enumerate(self.bodies):
            if not body.is_static:
                self.set_mass(self.model, i, body.mass)
        self.pristine = copy.copy(self.model)

    def _compile(self) -> mujoco.MjModel:
        spec = mujoco.MjSpec()
        spec.memory = _ARENA_BYTES
        spec.option.timestep = self.timestep
        spec.option.gravity = [0.0, 0.0, -GRAVITY_M_S2]
        # Euler's explicit gyroscopic term drives what is long and spins fast: a bottle at 130 rad/s went to 10^9 m/s.
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10.0  # keeps stacks at rest from creeping
        spec.option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        # What has come to rest (below 1 mm/s) is left alone until something touches it: 2 to 3 times faster,
        # and bodies at rest keep their place exactly. Each native stretch starts with everything awake but what
        # was seen at rest and has slept since (``sleeping``).
        spec.option.enableflags = int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        if self.floor_z is not None:
            floor = spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.0, 0.0, 0.1])
            floor.pos = [0.0, 0.0, self.floor_z]
            self._set_static_contact(floor)
        for i, body in enumerate(self.bodies):
            self._add_body(spec, i, body)
        for i, j in self._passing:
            spec.add_exclude(bodyname1=f"body{i}", bodyname2=f"body{j}")
        if self._touch_sensors:
            body_type = mujoco.mjtObj.mjOBJ_BODY
            for i, j in self.pairs:
                spec.add_sensor(
                    type=mujoco.mjtSensor.mjSENS_CONTACT,
                    objtype=body_type,
                    objname=f"body{i}",
                    reftype=body_type,
                    refname=f"body{j}",
                    intprm=[1, 0, 1],
                )
        if self._decorate is not None:
            self._decorate(spec)
        return spec.compile()

    @staticmethod
    def _set_static_contact(geom: mujoco.MjsGeom) -> None:
        # Lowest friction and damping, so that in MuJoCo's mixing (larger friction, larger damping) the moving
        # body's count.
        geom.contype, geom.conaffinity, geom.condim = _STATIC, 0, 3
        geom.friction = [0.0, 0.0, 0.0]
        geom.solref = [-CONTACT_STIFFNESS, -1e-3]
        geom.solimp = [0.95, 0.99, 0.001, 0.5, 2.0]

    def _add_body(self, spec: mujoco.MjSpec, index: int, body: BodyDef) -> None:
        state = body.static_state if body.is_static else rest_state((PARK_POSITION_M, 10.0 * index, 0.0))
        added = spec.worldbody.add_body(name=f"body{index}", pos=state[POSITION], quat=to_wxyz(state[QUATERNION]))
        if not body.is_static:
            added.add_freejoint()
        for j, part in enumerate(body.geoms):
            geom = added.add_geom(name=f"body{index}geom{j}", pos=part.position, quat=to_wxyz(part.quaternion))
            geom.rgba = part.color
            geom.material = part.material
            if part.mesh is not None:
                set_mesh(spec, geom, part.mesh, f"body{index}geom{j}mesh")
            else:
                set_shape(spec, geom, part, f"body{index}geom{j}mesh")
            if part.hidden:
                geom.group = HIDDEN_GROUP
            if part.visual_only:
                geom.contype = geom.conaffinity = 0
                geom.mass = 0.0
                continue
            geom.density = 1000.0  # set_mass scales the whole body to its mass
            if body.is_static:
                self._set_static_contact(geom)
                continue
            geom.contype, geom.conaffinity = _MOVING, _MOVING | _STATIC | KINEMATIC
            rolls = part.shape in (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE)
            geom.condim = 6 if rolls else 4 if part.shape == Shape.CONVEX else 3
            radius = 0.25 * float(part.extents[0] + part.extents[1])
            geom.friction = [body.friction, TORSIONAL_COEFFICIENT_M, ROLLING_COEFFICIENT * radius]
            geom.solref = contact_solref(body.restitution, self.timestep)
            geom.solimp = [0.95, 0.99, 0.001, 0.5, 2.0]

    def rebuilt(self, bodies: Sequence[BodyDef]) -> World:
        """A world of other bodies, compiled with the same floor, step and decoration."""
        return World(bodies, self.floor_z, self.timestep, self._decorate, self._touch_sensors, self._passing)

    # -- properties, on a copy of the model

    def set_mass(self, model: mujoco.MjModel, index: int, mass: float) -> None:
        """Give a moving body another mass [kg]; its inertia scales along."""
        if not self.movable[index]:
            return
        body, dof = self.body_ids[index], int(self.qvel_address[index])
        factor = mass / model.body_mass[body]
        model.body_mass[body] *= factor
        model.body_inertia[body] *= factor
        model.body_subtreemass[0] += model.body_mass[body] - model.body_subtreemass[body]
        model.body_subtreemass[body] = model.body_mass[body]
        model.body_invweight0[body] /= factor
        model.dof_invweight0[dof : dof + 6] /= factor
        model.dof_M0[dof : dof + 6] *= factor

    def set_friction(self, model: mujoco.MjModel, index: int, friction: float) -> None:
        """Give a body another friction; a static body's then overrules that of what touches it."""
        for geom in self.geom_ids[index]:
            model.geom_friction[geom, 0] = friction
            if not self.movable[index]:
                self._overrule(model, index, geom)

    def set_restitution(self, model: mujoco.MjModel, index: int, restitution: float) -> None:
        """Give a body another restitution; a static body's then overrules that of what touches it."""
        for geom in self.geom_ids[index]:
            model.geom_solref[geom] = contact_solref(restitution, self.timestep)
            if not self.movable[index]:
                self._overrule(model, index, geom)

    def _overrule(self, model: mujoco.MjModel, index: int, geom: int) -> None:
        # With priority, MuJoCo uses all of the geom's coefficients, so those that were not set get the body's values.
        if model.geom_priority[geom] == 0:
            model.geom_priority[geom] = 1
            if model.geom_friction[geom, 0] == 0.0:
                model.geom_friction[geom, 0] = self.bodies[index].friction
            if model.geom_solref[geom, 1] == -1e-3:
                model.geom_solref[geom] = contact_solref(self.bodies[index].restitution, self.timestep)

    def disable(self, model: mujoco.MjModel, index: int) -> None:
        """Disable a body's collisions (it no longer exists)."""
        for geom in self.geom_ids[index]:
            model.geom_contype[geom] = model.geom_conaffinity[geom] = 0
        if not self.movable[index]:
            model.body_pos[self.body_ids[index]] = [PARK_POSITION_M, 10.0 * index, 0.0]

    def enable(self, model: mujoco.MjModel, index: int) -> None:
        """Enable a body's collisions (it exists from now on)."""
        for geom in self.geom_ids[index]:
            model.geom_contype[geom] = self.pristine.geom_contype[geom]
            model.geom_conaffinity[geom] = self.pristine.geom_conaffinity[geom]

    def make_kinematic(self, model: mujoco.MjModel, index: int) -> tuple[float, float]:
        """Turn a moving body into a pusher; returns its mass [kg] and its (isotropic) inertia [kg m^2]."""
        body, dof = self.body_ids[index], int(self.qvel_address[index])
        heaviest = max([b.mass for b in self.bodies if not b.is_static] + [0.1])
        mass = _KINEMATIC_MASS_RATIO * heaviest
        inertia = mass * max(float(np.max(model.geom_rbound[self.geom_ids[index]])), 0.02) ** 2
        model.body_mass[body] = mass
        model.body_inertia[body] = inertia
        model.body_ipos[body] = 0.0
        model.body_iquat[body] = [1.0, 0.0, 0.0, 0.0]
        model.body_subtreemass[body] = mass
        model.body_invweight0[body] = [1.0 / mass, 1.0 / inertia]
        model.dof_invweight0[dof : dof + 6] = [1.0 / mass] * 3 + [1.0 / inertia] * 3
        model.dof_M0[dof : dof + 6] = [mass] * 3 + [inertia] * 3
        model.tree_sleep_policy[model.body_treeid[body]] = mujoco.mjtSleepPolicy.mjSLEEP_NEVER
        for geom in self.geom_ids[index]:
            model.geom_contype[geom], model.geom_conaffinity[geom] = KINEMATIC, 0
        return mass, inertia

    def place_static(self, model: mujoco.MjModel, index: int, pose: Sequence[float]) -> None:
        """Put a static body at a pose: position [m], quaternion xyzw."""
        body = self.body_ids[index]
        model.body_pos[body] = pose[:3]
        model.body_quat[body] = to_wxyz(pose[3:])

    def with_properties(self, bodies: Sequence[BodyDef]) -> mujoco.MjModel:
        """A copy of the compiled model with the masses, frictions and restitutions of ``bodies`` (same
        shapes).
        """
        model = copy.copy(self.pristine)
        for i, (old, new) in enumerate(zip(self.bodies, bodies, strict=True)):
            if new.is_static:
                continue
            if new.mass != old.mass:
                self.set_mass(model, i, new.mass)
            if new.friction != old.friction:
                self.set_friction(model, i, new.friction)
            if new.restitution != old.restitution:
                self.set_restitution(model, i, new.restitution)
        return model

    # -- states

    @property
    def state_size(self) -> int:
        """Length of MuJoCo's full physics state."""
        return int(mujoco.mj_stateSize(self.model, _FULL))

    def pack(self, states: Array, time_s: float = 0.0) -> Array:
        """MuJoCo's full physics state of body states (n, 13)."""
        packed = np.zeros(self.state_size)
        packed[0] = time_s
        rows = np.flatnonzero(self.movable)
        if len(rows):
            q = 1 + self.qpos_address[rows][:, None] + np.arange(7)
            v = 1 + self.model.nq + self.qvel_address[rows][:, None] + np.arange(6)
            moving = np.asarray(states)[rows]
            quaternion = normalize_quaternion(moving[:, QUATERNION])
            inverse = quaternion * [-1.0, -1.0, -1.0, 1.0]
            packed[q] = np.concatenate([moving[:, POSITION], quaternion[:, 3:], quaternion[:, :3]], axis=1)
            packed[v] = np.concatenate(
                [moving[:, LINEAR_VELOCITY], rotate(inverse, moving[:, ANGULAR_VELOCITY])], axis=1
            )
        return packed

    def pack_body(self, packed: Array, index: int, state: Array) -> None:
        """Write one moving body's state (13,) into MuJoCo's full physics state."""
        q = 1 + int(self.qpos_address[index])
        v = 1 + self.model.nq + int(self.qvel_address[index])
        quaternion = normalize_quaternion(state[QUATERNION])
        packed[q : q + 3] = state[POSITION]
        packed[q + 3 : q + 7] = to_wxyz(quaternion)
        packed[v : v + 3] = state[LINEAR_VELOCITY]
        spin = state[ANGULAR_VELOCITY]
        packed[v + 3 : v + 6] = quaternion_to_matrix(quaternion).T @ spin if spin.any() else 0.0

    def unpack(self, packed: Array) -> Array:
        """Body states (T, n, 13) of MuJoCo states (T, nstate); static bodies at their static state."""
        count = len(packed)
        states = np.zeros((count, len(self.bodies), STATE_SIZE))
        for i in np.flatnonzero(~self.movable):
            states[:, i] = self.bodies[i].static_state
        rows = np.flatnonzero(self.movable)
        if len(rows) and count:
            q = 1 + self.qpos_address[rows][:, None] + np.arange(7)
            v = 1 + self.model.nq + self.qvel_address[rows][:, None] + np.arange(6)
            pose, twist = packed[:, q], packed[:, v]
            quaternion = np.concatenate([pose[..., 4:7], pose[..., 3:4]], axis=-1)
            states[:, rows, POSITION] = pose[..., :3]
            states[:, rows, QUATERNION] = quaternion
            states[:, rows, LINEAR_VELOCITY] = twist[..., :3]
            states[:, rows, ANGULAR_VELOCITY] = rotate(quaternion, twist[..., 3:])
        return states

    def unpack_body(self, packed: Array, index: int) -> Array:
        """One moving body's state (13,) of a MuJoCo state (nstate,)."""
        q = 1 + int(self.qpos_address[index])
        v = 1 + self.model.nq + int(self.qvel_address[index])
        state = np.empty(STATE_SIZE)
        state[POSITION] = packed[q : q + 3]
        state[QUATERNION] = packed[[q + 4, q + 5, q + 6, q + 3]]
        state[LINEAR_VELOCITY] = packed[v : v + 3]
        state[ANGULAR_VELOCITY] = rotate(state[QUATERNION], packed[v + 3 : v + 6])
        return state

    def set_positions(self, data: mujoco.MjData, states: Array, present: NDArray[np.bool_] | None = None) -> None:
        """Put bodies at states (n, 13) for drawing or distance queries; those not present are parked out
        of sight.
        """
        packed = self.pack(states)
        data.qpos[:] = packed[1 : 1 + self.model.nq]
        data.qvel[:] = 0.0
        if present is not None:
            for i in np.flatnonzero(self.movable & ~present):
                q = int(self.qpos_address[i])
                data.qpos[q : q + 3] = [PARK_POSITION_M, 10.0 * i, 0.0]
