"""Batches of futures: packing, forces along paths, and reading of states and contacts for all of them at once.

Done in Python for one future alone, these cost about as much as its physics. Each future stays a ``LiveWorld`` and
interventions are carried out on it one by one, so a batch gives bit for bit what ``LiveWorld.execute`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import LINEAR_VELOCITY, POSITION, STATE_SIZE
from wm_dynamics.mujoco.contacts import find_touches
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.native import warning_kinds
from wm_dynamics.mujoco.simulator import Simulator
from wm_dynamics.mujoco.sleeping import still_asleep
from wm_dynamics.mujoco.trajectory import Action, Trajectory, hold_absent
from wm_dynamics.mujoco.world import World

Array = NDArray[np.float64]

_MOST_VALUES = 4_000_000
"""Values of states, sensors and forces of one native call (32 MB); longer batches take several calls."""


class _Course:
    """A future in progress: its live world, schedule, and states so far."""

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
        """Carry out the interventions that are due, and find the step of the next."""
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
        self._should_stop: Callable[[], bool] | None = None
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
            should_stop: called before each native call; once true, the batch is given up and None returned.
        """
        self._should_stop = should_stop
        t = np.asarray(times, dtype=np.float64)
        steps = {live.world.timestep: np.floor(t / live.world.timestep + 1e-6).astype(np.int64) for live, _ in futures}
        courses = [_Course(live, actions, t, steps[live.world.timestep]) for live, actions in futures]
        running = courses
        while running:
            groups: dict[Hashable, list[_Course]] = {}
            for course in running:
                course.intervene()
                key = id(course.live.world), course.end - course.step, bool(course.live.paths)
                groups.setdefault(key, []).append(course)
            for group in groups.values():
                length = group[0].end - group[0].step
                for part in self._parts(group, length):
                    if not self._stretch(part, length):
                        return None
            for course in running:
                course.step = course.end
            running = [course for course in running if not course.last]
        return [course.trajectory(t) for course in courses]

    @staticmethod
    def _parts(group: Sequence[_Course], length: int) -> list[Sequence[_Course]]:
        world = group[0].live.world
        width = world.state_size + world.model.nsensordata + world.model.nv * bool(group[0].live.paths)
        most = max(1, _MOST_VALUES // max(length * width, 1))
        return [group[i : i + most] for i in range(0, len(group), most)]

    def _buffer(self, name: str, *shape: int) -> Array:
        """An array (shape) in memory that is kept from call to call: to allocate it costs more than to fill it."""
        size = int(np.prod(shape))
        if name not in self._room or self._room[name].size < size:
            self._room[name] = np.empty(size)
        return self._room[name][:size].reshape(shape)

    def _stretch(self, group: Sequence[_Course], length: int) -> bool:
        """Advance a group by ``length`` steps, and read the states at the times of the answer; False: stopped."""
        world = group[0].live.world
        control = None
        if length and group[0].live.paths:
            control = self._buffer("control", len(group), length, world.model.nv)
            control[:] = 0.0
            for course, force in zip(group, control, strict=True):
                course.live.steer(course.live.step, course.live.step + length, force)
        # Futures that have not differed yet (the same model, the same state) go together.
        leaders: dict[Hashable, int] = {}
        heads: list[_Course] = []
        which = np.empty(len(group), dtype=np.int64)
        for i, course in enumerate(group):
            key = (
                i if control is not None else (id(course.live.model), course.live.packed.tobytes(), course.live.asleep)
            )
            which[i] = leaders.setdefault(key, len(heads))
            if which[i] == len(heads):
                heads.append(course)
        begun = np.stack([c.live.packed for c in heads])
        if length:
            rolled = self._native(world, heads, begun, length, control)
            if rolled is None:
                return False
            out, touching, warned, asleep = rolled
        else:
            out, touching = begun[:, None][:, :0], np.zeros((len(heads), 0, len(world.pairs)), dtype=bool)
            warned = {}
            asleep = [course.live.asleep for course in heads]
        for index, kinds in warned.items():
            raw = out[index].copy()
            for course in (c for c, i in zip(group, which, strict=True) if i == index):
                out[index] = raw
                course.stable &= course.live.hold_unstable(out[index], kinds)
        self._read(group, which, begun, out)
        for course, index in zip(group, which, strict=True):
            if length:
                course.live.packed = out[index, -1].copy()
                course.live.step += length
                course.live.asleep = asleep[index]
                course.touching.append(touching[index])
        return True

    def _native(
        self, world: World, heads: Sequence[_Course], begun: Array, length: int, control: Array | None
    ) -> tuple[Array, NDArray[np.bool_], dict[int, tuple[str, ...]], list[frozenset[int]]] | None:
        """MuJoCo states (B, length, nstate) in kept room, flags of touching pairs (B, length, pairs), warnings, and B
        times the bodies that have slept since the start.

        None when it was stopped in between. One call of ``mujoco.rollout`` per future: it does not wake what the
        future before it has left asleep.
        """
        sensors = heads[0].live.model.nsensordata
        out = self._buffer("state", len(heads), length, world.state_size)
        sensed = self._buffer("sensed", len(heads), length, sensors)
        warned = {}
        asleep = []
        for i, course in enumerate(heads):
            if self._should_stop is not None and self._should_stop():
                return None
            data = self.simulator.stretch(
                world,
                course.live.model,
                begun[i : i + 1],
                length,
                control[i : i + 1] if control is not None else None,
                out[i : i + 1],
                sensed[i : i + 1],
                course.live.asleep,
            )
            asleep.append(still_asleep(world, data, course.live.asleep))
            kinds = warning_kinds(data)
            if kinds or not np.isfinite(out[i, -1]).all():  # what is not finite stays so
                warned[i] = kinds
        return out, sensed[..., : len(world.pairs)] > 0.5, warned, asleep

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
