"""Many futures side by side: one ``mujoco.rollout`` for all that have the same way to go.

What one future needs in Python (packing, forces along a path, reading states and contacts) costs about as much as its
physics. Here it is done for a batch at a time. Each future stays a ``LiveWorld`` and interventions are carried out on
it one by one, so a batch gives bit for bit what ``LiveWorld.execute`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

from wm_core.mujoco_world import (
    Action,
    LiveWorld,
    Simulator,
    Trajectory,
    World,
    find_touches,
    hold_absent,
)
from wm_core.rollout import LINEAR_VELOCITY, POSITION, STATE_SIZE

Array = NDArray[np.float64]

_QFRC = mujoco.mjtState.mjSTATE_QFRC_APPLIED.value
_MOST_VALUES = 4_000_000
"""Values of states, sensors and forces of one native call (32 MB); longer batches take several calls."""
_FAR = 1.0e6
"""A state [m, m/s, rad/s] that only a diverging solver reaches (MuJoCo itself warns at 1e10)."""


class _Course:
    """A future in progress: where it is, what comes next, and what it has been so far."""

    def __init__(self, live: LiveWorld, actions: Sequence[Action], times: Array, rows: NDArray[np.int64]) -> None:
        self.live, self.rows = live, rows
        h = live.world.timestep
        self.total = int(np.ceil(times[-1] / h - 1e-6)) if len(times) else 0
        self.schedule = sorted(
            ((min(round(a.intervention.time_offset / h), self.total), a) for a in actions), key=lambda item: item[0]
        )
        n = len(live.bodies)
        self.states, self.present = np.zeros((len(times), n, STATE_SIZE)), np.zeros((len(times), n), dtype=bool)
        self.touching: list[NDArray[np.bool_]] = []
        self.stable, self.step, self.end, self.cursor, self.last = True, 0, 0, 0, False

    def intervene(self) -> None:
        """Carry out what is due, and find the end of the next stretch."""
        while self.cursor < len(self.schedule) and self.schedule[self.cursor][0] <= self.step:
            self.live.apply(self.schedule[self.cursor][1])
            self.cursor += 1
        more = self.cursor < len(self.schedule)
        self.end = min(self.schedule[self.cursor][0], self.total) if more else self.total
        self.last = self.end >= self.total and not more

    def chosen(self) -> NDArray[np.int64]:
        """Times of this stretch: from its start to before its end (the next begins there, after interventions)."""
        return np.flatnonzero((self.rows >= self.step) & ((self.rows < self.end) | self.last))

    def trajectory(self, times: Array) -> Trajectory:
        live = self.live
        h = live.world.timestep
        late = np.clip(times - self.rows * h, 0.0, h)
        self.states[..., POSITION] += late[:, None, None] * self.states[..., LINEAR_VELOCITY] * self.present[..., None]
        hold_absent(self.states, self.present)
        empty = np.zeros((0, len(live.world.pairs)), dtype=bool)
        touching = self.touching[0] if len(self.touching) == 1 else np.concatenate([empty, *self.touching])
        return Trajectory(
            self.states, self.present, find_touches(touching, live.world.pairs, h), self.stable, live.warnings
        )


class BatchSimulator:
    """Runs batches of futures; keeps MuJoCo's scratch data and the room for its output, so one per thread.

    Args:
        simulator: the one that the live worlds of its batches were made with; None: an own one.
    """

    def __init__(self, simulator: Simulator | None = None) -> None:
        self.simulator = simulator or Simulator()
        self._rollout = mujoco.rollout.Rollout(nthread=0)
        self._room: dict[str, Array] = {}

    def run(
        self,
        futures: Sequence[tuple[LiveWorld, Sequence[Action]]],
        times: Array,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Trajectory] | None:
        """What ``LiveWorld.execute`` gives for each of the futures, which share a time step but need not share a world.

        Args:
            futures: live worlds at their start, and the interventions on them.
            times: (T,) [s], counted from now as the interventions' offsets are.
            should_stop: asked before each native call; once it says so, the batch is given up and None returned.
        """
        t = np.asarray(times, dtype=np.float64)
        steps = {live.world.timestep: np.floor(t / live.world.timestep + 1e-6).astype(np.int64) for live, _ in futures}
        courses = [_Course(live, actions, t, steps[live.world.timestep]) for live, actions in futures]
        running = courses
        while running:
            groups: dict[Hashable, list[_Course]] = {}
            for course in running:
                course.intervene()
                groups.setdefault(self._key(course), []).append(course)
            for group in groups.values():
                length = group[0].end - group[0].step
                for part in self._parts(group, length):
                    if should_stop is not None and should_stop():
                        return None
                    self._stretch(part, length)
            for course in running:
                course.step = course.end
            running = [course for course in running if not course.last]
        return [course.trajectory(t) for course in courses]

    @staticmethod
    def _key(course: _Course) -> Hashable:
        """Equal for stretches that one native call can make.

        Where static bodies are, MuJoCo works out when its data are reset, so all models of a call must agree on it.
        """
        live = course.live
        static = np.flatnonzero(live.model.body_weldid == 0)
        still = live.model.body_pos[static].tobytes() + live.model.body_quat[static].tobytes()
        return id(live.world), course.end - course.step, bool(live.paths), still

    @staticmethod
    def _parts(group: Sequence[_Course], length: int) -> list[Sequence[_Course]]:
        world = group[0].live.world
        width = world.state_size + world.model.nsensordata + world.model.nv * bool(group[0].live.paths)
        most = max(1, _MOST_VALUES // max(length * width, 1))
        return [group[i : i + most] for i in range(0, len(group), most)]

    def _take(self, name: str, *shape: int) -> Array:
        """Room (shape) that is kept from call to call: fresh memory would cost more than what is written into it."""
        size = int(np.prod(shape))
        if name not in self._room or self._room[name].size < size:
            self._room[name] = np.empty(size)
        return self._room[name][:size].reshape(shape)

    def _stretch(self, group: Sequence[_Course], length: int) -> None:
        """Take all of a group over their next stretch, and read from it what was asked for."""
        world = group[0].live.world
        control = None
        if length and group[0].live.paths:
            control = self._take("control", len(group), length, world.model.nv)
            control[:] = 0.0
            for course, force in zip(group, control, strict=True):
                course.live.steer(course.live.step, course.live.step + length, force)
        # Futures that have not differed yet (the same model, the same state) go together.
        leaders: dict[Hashable, int] = {}
        heads: list[_Course] = []
        which = np.empty(len(group), dtype=np.int64)
        for i, course in enumerate(group):
            key = i if control is not None else (id(course.live.model), course.live.packed.tobytes())
            which[i] = leaders.setdefault(key, len(heads))
            if which[i] == len(heads):
                heads.append(course)
        begun = np.stack([c.live.packed for c in heads])
        if length:
            out, touching = self._native(world, heads, begun, length, control)
        else:
            out, touching = begun[:, None][:, :0], np.zeros((len(heads), 0, len(world.pairs)), dtype=bool)
        for index in np.flatnonzero(self._suspicious(begun, out)):
            followers = [c for c, i in zip(group, which, strict=True) if i == index]
            self._settle(followers, control[index] if control is not None else None, out[index])
        self._read(group, which, begun, out)
        for course, index in zip(group, which, strict=True):
            if length:
                course.live.packed = out[index, -1].copy()
                course.live.step += length
                course.touching.append(touching[index])

    def _native(
        self, world: World, heads: Sequence[_Course], begun: Array, length: int, control: Array | None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """MuJoCo states (B, length, nstate) in kept room, and flags of touching pairs (B, length, pairs)."""
        models = [c.live.model for c in heads]
        out = self._take("state", len(heads), length, world.state_size)
        sensed = self._take("sensed", len(heads), length, models[0].nsensordata)
        data = self.simulator.scratch(world)
        mujoco.mj_resetData(models[0], data)
        self._rollout.rollout(
            models,
            [data],
            begun,
            control,
            control_spec=_QFRC if control is not None else 0,
            skip_checks=True,
            nstep=length,
            state=out,
            sensordata=sensed,
        )
        return out, sensed[..., : len(world.pairs)] > 0.5

    @staticmethod
    def _suspicious(begun: Array, out: Array) -> NDArray[np.bool_]:
        """Which stretches (B,) MuJoCo may have warned about.

        From a warning on, its rollout repeats the state, time included, and what is not finite stays so. A warning at
        the last step shows in speeds or positions out of all reason.
        """
        if not out.shape[1]:
            return np.zeros(len(out), dtype=bool)
        last = out[:, -1]
        before = out[:, -2, 0] if out.shape[1] > 1 else begun[:, 0]
        far = ~(np.abs(last[:, 1:]).max(axis=1, initial=0.0) < _FAR)
        return far | ~np.isfinite(last).all(axis=1) | (last[:, 0] == before)

    def _settle(self, courses: Sequence[_Course], control: Array | None, out: Array) -> None:
        """Hold what diverged (in place), and learn what MuJoCo warned of by making this one stretch again."""
        live = courses[0].live
        frozen = np.flatnonzero(np.diff(out[:, 0]) == 0.0)
        steps = int(frozen[0]) + 1 if len(frozen) else len(out)
        force = control[None, :steps].copy() if control is not None else None
        _, _, kinds = self.simulator.native(live.world, live.model, live.packed, steps, force)
        known = len(live.warnings)
        stable = live.hold_unstable(out, kinds)
        for course in courses:
            course.stable &= stable
        for course in courses[1:]:
            course.live.warnings += live.warnings[known:]

    @staticmethod
    def _read(group: Sequence[_Course], which: NDArray[np.int64], begun: Array, out: Array) -> None:
        """States and presence at the times that fall into the stretch."""
        chosen = [course.chosen() for course in group]
        picked = np.empty((sum(map(len, chosen)), begun.shape[1]))
        at = 0
        for course, index, rows in zip(group, which, chosen, strict=True):
            steps = np.minimum(course.rows[rows], course.end) - course.step
            part = picked[at : at + len(rows)]
            part[steps == 0] = begun[index]
            part[steps > 0] = out[index, steps[steps > 0] - 1]
            at += len(rows)
        states = group[0].live.world.unpack(picked)
        at = 0
        for course, rows in zip(group, chosen, strict=True):
            course.states[rows] = states[at : at + len(rows)]
            for static, state in course.live.statics.items():
                course.states[rows, static] = state
            course.present[rows] = course.live.present
            at += len(rows)


__all__ = ["BatchSimulator"]
