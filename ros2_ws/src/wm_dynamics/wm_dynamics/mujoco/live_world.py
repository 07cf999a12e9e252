"""A simulated world in progress, on which interventions are carried out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.constants import GRAVITY_M_S2
from wm_core.geometry import interpolate_pose
from wm_core.interventions import BodySpec, Intervention, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.interventions import apply
from wm_dynamics.mujoco.bodies import Array, BodyDef, rest_state
from wm_dynamics.mujoco.contacts import find_touches
from wm_dynamics.mujoco.native import NativeRollout
from wm_dynamics.mujoco.penetration import OVERLAP_M, resolve_penetrations
from wm_dynamics.mujoco.sleeping import borne_by
from wm_dynamics.mujoco.trajectory import Action, SolverWarning, Trajectory, hold_absent
from wm_dynamics.mujoco.variants import ModelVariants
from wm_dynamics.mujoco.world import PARK_POSITION_M, World


class LiveWorld:
    """A world in progress.

    Its state is complete: everything that the next steps depend on is in it (MuJoCo's solver starts each native call
    without memory), so a ``branch`` goes on bit for bit as the original does, if advanced by the same numbers of steps.

    Args:
        simulator: MuJoCo's scratch data of this thread; the others as in ``Simulator.run``.
        variants: models that futures of equal edits share; None: an edited model is a copy of this world's own.

    Attributes:
        world, model: compiled; owns_model: whether the model is a copy of its own.
        bodies: definitions of the n bodies, as interventions have changed them.
        world_for: makes or finds the compiled world of other bodies.
        step: physics steps made.
        packed: (nstate,) MuJoCo's full physics state.
        statics: (13,) states of the static bodies, by index.
        present: (n,) bool, which bodies exist.
        paths: by index of the body: the step at which its path begins, the path, its mass [kg] and inertia [kg m^2].
        overruled: (index, property, value) of static bodies whose coefficients count, see ``World``.
        warnings: of MuJoCo so far.
        asleep: bodies that have slept since the start; an awake one that touches them wakes them, and so do
            interventions on them or on what they rest on. None, unless the maker of the world sets them.
        carried: bodies that are known to rest on a body, by its index.
    """

    def __init__(
        self,
        simulator: NativeRollout,
        world: World,
        model: mujoco.MjModel,
        states: Array,
        absent: Sequence[int] = (),
        bodies: Sequence[BodyDef] | None = None,
        world_for: Callable[[Sequence[BodyDef]], World] | None = None,
        variants: ModelVariants | None = None,
    ) -> None:
        self.simulator, self.world, self.model = simulator, world, model
        self.owns_model = False
        self.variants = variants
        self.warnings: tuple[SolverWarning, ...] = ()
        self.asleep: frozenset[int] = frozenset()
        self.carried: Mapping[int, frozenset[int]] = {}
        self.bodies = list(bodies if bodies is not None else world.bodies)
        self.world_for = world_for or world.rebuilt
        self.step = 0
        self.packed = world.pack(np.asarray(states, dtype=np.float64))
        self.statics = {int(i): world.bodies[i].static_state.copy() for i in np.flatnonzero(~world.movable)}
        self.present = np.ones(len(self.bodies), dtype=bool)
        self.present[list(absent)] = False
        self.paths: dict[int, tuple[int, Intervention, float, float]] = {}
        self.overruled: list[tuple[int, Property, float]] = []
        for index in absent:
            self._change("disable", index)
            self._park(index)

    def branch(self, created: Sequence[BodyDef] = (), world: World | None = None) -> LiveWorld:
        """An independent copy, with room for bodies that are to be created (absent so far).

        Args:
            created: bodies appended to those of this world.
            world: the compiled world of all of them (same order); None: made here.
        """
        twin = copy.copy(self)
        twin.model, twin.owns_model = (
            (copy.copy(self.model) if self.owns_model else self.model),
            self.owns_model,
        )
        twin.bodies, twin.packed, twin.present = list(self.bodies), self.packed.copy(), self.present.copy()
        twin.statics = {i: s.copy() for i, s in self.statics.items()}
        twin.paths, twin.overruled = dict(self.paths), list(self.overruled)
        if created:
            count = len(self.bodies)
            twin.bodies.extend(created)
            twin.present = np.concatenate([twin.present, np.zeros(len(created), dtype=bool)])
            old_nq, old_nv = self.world.model.nq, self.world.model.nv
            twin._rebuild(world or self.world_for(tuple(twin.bodies)))
            packed = twin.world.pack(np.tile(rest_state(np.zeros(3)), (len(twin.bodies), 1)))
            # New bodies come last, so the old ones' coordinates are copied as they are.
            packed[: 1 + old_nq] = self.packed[: 1 + old_nq]
            start = 1 + twin.world.model.nq
            packed[start : start + old_nv] = self.packed[1 + old_nq :]
            twin.packed = packed
            for index in range(count, len(twin.bodies)):
                twin._park(index)
        return twin

    @property
    def time_s(self) -> float:
        """Time since the start [s]."""
        return self.step * self.world.timestep

    def states(self) -> Array:
        """(n, 13) states now; bodies that do not exist are parked far away."""
        return self.unpacked(self.packed[None])[0]

    def _rebuild(self, world: World) -> None:
        """Change to another compiled world of the same bodies (with other shapes, or more bodies)."""
        self.world = world
        if self.variants is not None:
            self.model = self.variants.with_properties(world, self.bodies)
        else:
            self.model, self.owns_model = world.with_properties(self.bodies), True
        for i in np.flatnonzero(~self.present):
            self._change("disable", int(i))
        for i, still in self.statics.items():
            if self.present[i]:
                self._place(i, still)
        for i, (begin, path, _, _) in list(self.paths.items()):
            self._follow(i, begin, path)
        for i, name, value in self.overruled:
            self._change("set_friction" if name == Property.FRICTION else "set_restitution", i, value)

    def _change(self, edit: str, index: int, *values: float | tuple[float, ...]) -> None:
        """Edit the model by a method of the world: a copy of its own, or one shared with all of the same edits."""
        if self.variants is not None:
            self.model = self.variants.edited(self.world, self.model, edit, index, *values)
            return
        if not self.owns_model:
            self.model, self.owns_model = copy.copy(self.model), True
        getattr(self.world, edit)(self.model, index, *values)

    def _follow(self, index: int, begin: int, path: Intervention) -> None:
        """Make a body follow a path from a step on."""
        self._change("make_kinematic", index)
        body = self.world.body_ids[index]
        self.paths[index] = (begin, path, float(self.model.body_mass[body]), float(self.model.body_inertia[body, 0]))

    def _park(self, index: int) -> None:
        if self.world.movable[index]:
            self.world.pack_body(self.packed, index, rest_state((PARK_POSITION_M, 10.0 * index, 0.0)))

    def _body_state(self, index: int) -> Array:
        if not self.world.movable[index]:
            return self.statics[index].copy()
        return self.world.unpack_body(self.packed, index)

    def advance(self, steps: int) -> tuple[Array, NDArray[np.bool_], bool]:
        """Make steps; returns MuJoCo states (steps, nstate), touching pairs (steps, pairs), whether it was stable."""
        control = self.control(self.step, self.step + steps)
        out, sensed, kinds, self.asleep = self.simulator.native(
            self.world, self.model, self.packed, steps, control, self.asleep
        )
        stable = self.hold_unstable(out, kinds)
        self.packed = out[-1].copy()
        self.step += steps
        return out, sensed[:, : len(self.world.pairs)] > 0.5, stable

    def hold_unstable(self, out: Array, kinds: Sequence[str]) -> bool:
        """Keep the last finite state in the states (steps, nstate) from now on, in place, and add the warnings; returns
        whether the solver stayed stable.
        """
        finite = np.isfinite(out).all(axis=1)
        if kinds:
            frozen = np.flatnonzero(np.diff(out[:, 0]) == 0.0)
            steps = int(frozen[0]) + 1 if len(frozen) else len(out)
            at = (self.step + steps) * self.world.timestep
            self.warnings += tuple(SolverWarning(at, kind) for kind in kinds)
        if not finite.all():
            first = int(np.argmin(finite))
            out[first:] = out[first - 1] if first else self.packed
            out[first:, 1 + self.world.model.nq :] = 0.0
        return bool(finite.all()) and not any(kind.startswith("BAD") for kind in kinds)

    def execute(self, actions: Sequence[Action], times: Array, max_stretch: int | None = None) -> Trajectory:
        """Go on with interventions; times (T,) [s] and the interventions' offsets count from now.

        Args:
            max_stretch: longest native call [steps]; None: as long as can be.
        """
        h, origin = self.world.timestep, self.step
        rows = np.floor(times / h + 1e-6).astype(np.int64)
        total = int(np.ceil(times[-1] / h - 1e-6)) if len(times) else 0
        schedule = sorted(
            ((min(round(a.intervention.time_offset / h), total), a) for a in actions),
            key=lambda item: item[0],
        )
        n = len(self.bodies)
        states, present = np.zeros((len(times), n, STATE_SIZE)), np.zeros((len(times), n), dtype=bool)
        touching = np.zeros((total, len(self.world.pairs)), dtype=bool)
        stable, step, cursor = True, 0, 0
        while True:
            while cursor < len(schedule) and schedule[cursor][0] <= step:
                self.apply(schedule[cursor][1])
                cursor += 1
            end = min(schedule[cursor][0], total) if cursor < len(schedule) else total
            if max_stretch is not None:
                end = min(end, step + max_stretch - (origin + step) % max_stretch)
            stretch = self.packed[None]
            if end > step:
                out, touching[step:end], finite = self.advance(end - step)
                stable &= finite
                stretch = np.concatenate([stretch, out])
            # Rows of this stretch: from its start to before its end (the next begins there, after
            # interventions).
            last = end >= total and cursor >= len(schedule)
            chosen = np.flatnonzero((rows >= step) & ((rows < end) | last))
            if len(chosen):
                states[chosen] = self.unpacked(stretch[np.minimum(rows[chosen], end) - step])
                present[chosen] = self.present
            step = end
            if last:
                break
        late = np.clip(times - rows * h, 0.0, h)
        states[..., POSITION] += late[:, None, None] * states[..., LINEAR_VELOCITY] * present[..., None]
        hold_absent(states, present)
        return Trajectory(states, present, find_touches(touching, self.world.pairs, h), stable, self.warnings)

    def unpacked(self, packed: Array) -> Array:
        """Body states (T, n, 13) of MuJoCo states (T, nstate), static bodies where they are now."""
        states = self.world.unpack(packed)
        for index, state in self.statics.items():
            states[:, index] = state
        return states

    def control(self, start: int, end: int) -> Array | None:
        """Generalized forces (1, steps, nv) that keep kinematic bodies on their paths; None where there are none."""
        if not self.paths:
            return None
        force = np.zeros((1, end - start, self.world.model.nv))
        self.steer(start, end, force[0])
        return force

    def steer(self, start: int, end: int, force: Array) -> None:
        """Write the forces of kinematic bodies from step ``start`` to ``end`` into (steps, nv), and put them on their
        paths.
        """
        h, model = self.world.timestep, self.model
        for index, (begin, path, mass, inertia) in self.paths.items():
            position, quaternion = self._path_at(path, begin, np.arange(start, end + 1))
            linear = np.diff(position, axis=0) / h
            v = int(self.world.qvel_address[index])
            at = 1 + model.nq + v
            # Semi-implicit stepping: the velocity after a step moves the body in that step. The pose, which
            # interventions elsewhere may have changed, is set at each native call.
            self.world.pack_body(self.packed, index, rest_state(position[0], quaternion[0]))
            self.packed[at : at + 3] = linear[0]
            force[1:, v : v + 3] = mass * np.diff(linear, axis=0) / h
            force[0, v : v + 3] = 0.0
            force[:, v + 2] += mass * GRAVITY_M_S2
            if (quaternion == quaternion[0]).all():
                self.packed[at + 3 : at + 6] = force[:, v + 3 : v + 6] = 0.0
                continue
            turn = Rotation.from_quat(quaternion[:-1]).inv() * Rotation.from_quat(quaternion[1:])
            angular = turn.as_rotvec() / h
            self.packed[at + 3 : at + 6] = angular[0]
            force[:, v + 3 : v + 6] = inertia * np.diff(angular, axis=0, prepend=angular[:1]) / h

    def _path_at(self, path: Intervention, begin: int, steps: NDArray[np.int64]) -> tuple[Array, Array]:
        return interpolate_pose(
            path.path_times, path.path_positions, path.path_quaternions, (steps - begin) * self.world.timestep
        )

    def _wake_carried(self, index: int) -> None:
        """Wake what rests on a body, which is about to leave."""
        if self.asleep and self.present[index]:
            data = self.simulator.scratch(self.world)
            self.asleep -= borne_by(self.world, self.model, data, self.packed, index)
            self.asleep -= self.carried.get(index, frozenset())

    def _place(self, index: int, state: Array) -> None:
        if self.world.movable[index]:
            self.asleep -= {index}
            self.world.pack_body(self.packed, index, state)
        else:
            self.asleep = frozenset()
            still = rest_state(state[POSITION], state[QUATERNION])
            self.statics[index] = still
            self._change("place_static", index, tuple(still[:7].tolist()))

    def _separate(self, index: int) -> None:
        """Move apart, without speed, what ``index`` was placed into."""
        if not self._overlaps(index):
            return
        states = self.unpacked(self.packed[None])[0]
        # A body that is placed into another has to be moved out of it altogether, or the contact would accelerate it.
        moved = resolve_penetrations(
            self.world, self.model, states, only=[index], max_shift_m=0.2, data=self.simulator.scratch(self.world)
        )
        for i in np.flatnonzero((moved != states).any(axis=1)):
            self.asleep -= {int(i)}
            self.world.pack_body(self.packed, int(i), moved[i])

    def _overlaps(self, index: int, tolerance_m: float = OVERLAP_M) -> bool:
        """Whether a body is inside another by more than ``resolve_penetrations`` leaves."""
        model, data = self.model, self.simulator.scratch(self.world)
        mujoco.mj_resetData(model, data)
        data.qpos[:] = self.packed[1 : 1 + model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        deep = data.contact.geom[data.contact.dist < -tolerance_m]
        return bool((model.geom_bodyid[deep] == self.world.body_ids[index]).any())

    def apply(self, action: Action) -> None:
        """Carry an intervention out now (whatever its time offset)."""
        apply(action.intervention, _LiveBody(self, action.body))


class _LiveBody:
    """A body of a live world, as interventions act on it (``wm_dynamics.interventions.BodyHandle``)."""

    def __init__(self, live: LiveWorld, index: int) -> None:
        self._live, self._index = live, index

    @property
    def present(self) -> bool:
        return bool(self._live.present[self._index])

    @property
    def kinematic(self) -> bool:
        return self._index in self._live.paths

    @property
    def body(self) -> BodyDef:
        return self._live.bodies[self._index]

    @property
    def quaternion(self) -> Array:
        return self._live._body_state(self._index)[QUATERNION]

    def add(self, spec: BodySpec) -> None:
        self._bring_in()
        state = rest_state(spec.position, spec.quaternion)
        state[LINEAR_VELOCITY], state[ANGULAR_VELOCITY] = spec.linear_velocity, spec.angular_velocity
        self._put(state)

    def follow(self, path: Intervention) -> None:
        live = self._live
        self._bring_in()
        live._follow(self._index, live.step, path)
        position, quaternion = live._path_at(path, live.step, np.array([live.step]))
        self._put(rest_state(position[0], quaternion[0]))

    def remove(self) -> None:
        live, index = self._live, self._index
        live._wake_carried(index)
        live.asleep -= {index}
        live.present[index] = False
        live.paths.pop(index, None)
        live._change("disable", index)
        live._park(index)

    def place(self, position: ArrayLike, quaternion: ArrayLike) -> None:
        self._live._wake_carried(self._index)
        self._put(rest_state(position, quaternion))

    def set_velocity(self, linear: Array, angular: Array) -> None:
        state = self._live._body_state(self._index)
        state[LINEAR_VELOCITY], state[ANGULAR_VELOCITY] = linear, angular
        self._live._place(self._index, state)

    def push(self, impulse: Array, point: Array) -> None:
        # dv = J / m, dw = I^-1 ((r - c) x J), c: the center of mass, r: from the body frame's origin.
        live, model = self._live, self._live.model
        body = live.world.body_ids[self._index]
        state = live._body_state(self._index)
        rotation = quaternion_to_matrix(state[QUATERNION])
        to_mass_center = rotation @ model.body_ipos[body]
        principal = rotation @ quaternion_to_matrix(np.roll(model.body_iquat[body], -1))
        torque = np.cross(point - to_mass_center, impulse)
        turn = principal @ ((principal.T @ torque) / model.body_inertia[body])
        # The state holds the velocity of the frame's origin, which also moves when the body turns about its
        # mass center.
        state[LINEAR_VELOCITY] += impulse / model.body_mass[body] - np.cross(turn, to_mass_center)
        state[ANGULAR_VELOCITY] += turn
        live._place(self._index, state)

    def set_property(self, which: Property, body: BodyDef) -> None:
        live, index = self._live, self._index
        live.bodies[index] = body
        if which == Property.MASS:
            if not self.kinematic:
                live._change("set_mass", index, body.mass)
            return
        live.asleep = frozenset() if body.is_static else live.asleep - {index}
        name = "friction" if which == Property.FRICTION else "restitution"
        live._change(f"set_{name}", index, getattr(body, name))
        if body.is_static:
            live.overruled.append((index, which, getattr(body, name)))

    def set_shape(self, body: BodyDef, rise_m: float) -> None:
        live, index = self._live, self._index
        state = live.statics[index].copy() if body.is_static else live._body_state(index)
        state[2] += rise_m
        live._wake_carried(index)
        live.bodies[index] = replace(body, static_state=state) if body.is_static else body
        # Another geometry is another compiled world, of the same bodies in the same order.
        live._rebuild(live.world_for(tuple(live.bodies)))
        self._put(state)

    def _bring_in(self) -> None:
        self._live._change("enable", self._index)
        self._live.present[self._index] = True

    def _put(self, state: Array) -> None:
        self._live._place(self._index, state)
        self._live._separate(self._index)
