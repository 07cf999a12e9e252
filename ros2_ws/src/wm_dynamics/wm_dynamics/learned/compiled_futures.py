"""Futures side by side, stepped by the compiled contact step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.compiled import CompiledStep
from wm_dynamics.contact_step.network import DynamicsNetwork
from wm_dynamics.learned.futures import FutureBatch
from wm_dynamics.learned.scene import SETTLE_STEPS, Array, Flags, PreparedScene
from wm_dynamics.mujoco.bodies import BodyDef

PORTION_BODY_STEPS = 20_000
"""Steps of bodies that the compiled engine makes before it looks at the time again (some 10 ms)."""


class CompiledFutureBatch(FutureBatch):
    """The same with ``rollout_kernel`` for all that is done every step."""

    def __init__(
        self,
        known: PreparedScene,
        hypotheses: Sequence[Hypothesis],
        network: DynamicsNetwork,
        times: Array,
        compiled: CompiledStep,
    ) -> None:
        super().__init__(known, hypotheses, network, times)
        self._compiled = compiled
        steps = max(self.last, SETTLE_STEPS)
        self._pair_touch = np.zeros((steps, self.rows, len(self.pairs)), dtype=bool)
        self._surface_touch = np.zeros((steps, self.rows, self.slots), dtype=np.int16)
        self._first, self._second = (np.ascontiguousarray(column) for column in self.pairs.T)
        self._hulls = [known.hull_rows]
        self._hull_count = self.slots
        self._hull_of = np.where(self.has_hull, np.tile(np.arange(self.slots), self.rows), -1)
        self._output_rest = self.times - self.output_step * STEP_S
        self._own_surface = np.full(self.surfaces.shape[:2], np.nan, dtype=np.float32)
        self._noise = known.noise_until(steps)
        self._followers: tuple[NDArray[Any], ...] | None = None

    def set_body(self, k: int, s: int, m: int, body: BodyDef, kinematic: bool | None = None) -> None:
        """Give a slot another body, and the compiled step's tables with it."""
        super().set_body(k, s, m, body, kinematic)
        n = (k * self.known.samples + s) * self.slots + m
        self._hull_of[n] = -1
        if self.has_hull[n]:
            self._hull_of[n] = self._hull_count
            self._hulls.append(self.own_hulls[n][None])
            self._hull_count += 1

    def advance(self) -> None:
        """All steps up to the next intervention, or a portion of them, and the interventions that are due then."""
        until = min(self.last, self.now + self.portion())
        if self.next_event < len(self.events):
            until = min(until, max(self.events[self.next_event][0], self.now + 1))
        self.make_steps(until - self.now)
        self._apply_due()
        if self.finished:
            self._write()

    def portion(self) -> int:
        """Steps to make before the time is looked at again."""
        return max(1, PORTION_BODY_STEPS // max(self.rows * self.slots, 1))

    def make_steps(self, count: int) -> None:
        """Steps without interventions; writes out what is due by then."""
        if self.paths_changed:
            self._compile_paths()
            self._followers = None
        if self._followers is None:
            self._followers = self._by_row()
        if len(self._hulls) > 1:
            self._hulls = [np.ascontiguousarray(np.concatenate(self._hulls))]
        friction, restitution = self.surface_friction, self.surface_restitution
        until = self.now + count
        self._compiled.advance(
            self.now, until, self.slots, self.known.samples, self._first, self._second,
            self.position, self.quaternion, self.linear, self.angular, self.parameters, self.bounds, self.offsets,
            self.present, self.fixed, self.asleep, self.kinematic, self.obstacle, self.quiet_steps,
            self.surfaces, self.known.surface_row,
            self._own_surface if friction is None else friction,
            self._own_surface if restitution is None else restitution, self.known.floor_z,
            self._hulls[0], self._hull_of, self.plane_slack, self.pair_slack, self.left_open, self.drift, self.touching,
            self.on_surface, self._noise, *self._followers,
            self.written, self.output_step, self._output_rest, self.states, self.present_out,
            self._pair_touch, self._surface_touch,
        )  # fmt: skip
        if count > 0:
            self.written += int((self.output_step[self.written :] < until).sum())
        self.now = until

    def step(self) -> None:
        """One step."""
        self.make_steps(1)

    def _by_row(self) -> tuple[NDArray[Any], ...]:
        """Followers of paths in order of their futures; see ``rollout_kernel.advance``."""
        order = np.argsort(self.led_columns, kind="stable")
        columns = self.led_columns[order]
        begins = np.searchsorted(columns, np.arange(self.rows + 1) * self.slots).astype(np.int64)
        turned = np.full(len(columns), -1, dtype=np.int64)
        places = {int(n): t for t, n in enumerate(self.turned_columns)}
        if places:
            turned[:] = [places.get(int(n), -1) for n in columns]
        positions = np.ascontiguousarray(self.led_positions[order])
        return begins, columns, positions, turned, np.ascontiguousarray(self.led_quaternions, dtype=np.float64)

    def _touched(self) -> tuple[Flags, NDArray[np.int16]]:
        return self._pair_touch[: self.now], self._surface_touch[: self.now]
