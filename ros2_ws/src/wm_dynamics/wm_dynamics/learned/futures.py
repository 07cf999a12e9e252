"""Futures that are stepped together: interventions in order of time, the answer's times, and touches."""

from __future__ import annotations

import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis, Intervention
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Contact
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.rollout_tables import Floats, OutputTable
from wm_dynamics.interventions import apply
from wm_dynamics.learned.batch_body import BatchBody
from wm_dynamics.learned.future_state import FutureState, arms
from wm_dynamics.learned.scene import Array, PreparedScene
from wm_dynamics.learned.touches import touches_of
from wm_dynamics.settling.preparation import FREEING_KINDS

log = logging.getLogger(__name__)

SETTLE_STEPS = 12
"""Steps (0.2 s) after which a body that was seen at rest has shown whether it stays. More cost time when a scene is
first used; with fewer, a body that begins to topple counts as at rest."""


class FutureBatch(ABC):
    """R = K S futures that are stepped together.

    Args:
        prepared: their start, S samples.
        hypotheses: K.
        times: (T,) of the answer, ascending from 0 [s]; 0 of them to make steps alone.

    Attributes:
        state: of all futures now.
        outputs: states and touches of the answer, see ``OutputTable``.
        now, last: steps made, and steps in all.
        written: how many of the T times are in ``outputs`` already.
        most_steps: steps that ``outputs`` has room for.
        doubts: K reasons not to trust a future; empty: none.
    """

    def __init__(self, prepared: PreparedScene, hypotheses: Sequence[Hypothesis], times: Array) -> None:
        self.now = self.written = 0
        self.last = int(np.ceil(float(times[-1]) / STEP_S - 1e-6)) if len(times) else 0
        self.most_steps = max(self.last, SETTLE_STEPS)
        self.state = FutureState(prepared, hypotheses, self.last)
        rows, m, k = self.state.rows, self.state.slots, len(hypotheses)
        step = np.floor(times / STEP_S + 1e-6).astype(np.int64)
        self.outputs = OutputTable(
            step=step,
            rest=times - step * STEP_S,
            states=np.zeros((k, prepared.samples, len(times), m, STATE_SIZE), dtype=np.float32),
            present=np.zeros((k, len(times), m), dtype=bool),
            pair_touch=np.zeros((self.most_steps, rows, len(prepared.first)), dtype=bool),
            surface_touch=np.zeros((self.most_steps, rows, m), dtype=np.int16),
        )
        self.doubts = [""] * k
        self._events: list[tuple[int, int, int, int, Intervention]] = []
        self._next_event = 0

    @property
    def finished(self) -> bool:
        """Whether the last time is reached."""
        return self.now >= self.last

    @property
    def next_event_step(self) -> int:
        """Step at which the next intervention is due; without one, the last."""
        return self._events[self._next_event][0] if self._next_event < len(self._events) else self.last

    @property
    def scatter(self) -> Floats:
        """(K, M) standard deviation [m] of the last positions that the network leaves open, root mean square over
        samples.
        """
        left_open = self.state.bodies.left_open.reshape(len(self.doubts), self.state.prepared.samples, self.state.slots)
        scatter: Floats = np.sqrt((left_open * left_open).mean(axis=1))
        return scatter

    # -- time

    def schedule(self, scene: SceneGraph) -> None:
        """Put the interventions in order of time, and carry out those at the start.

        Held bodies that an intervention moves are free from the start.

        Raises:
            UnknownObjectError: an intervention is on an object that is not in the scene.
        """
        prepared = self.state.prepared
        for k, hypothesis in enumerate(self.state.hypotheses):
            created = itertools.count(prepared.count)
            for order, do in enumerate(hypothesis.interventions):
                if do.creates_body:
                    m = next(created)
                elif do.object_id in prepared.row_of:
                    m = prepared.row_of[do.object_id]
                else:
                    m = scene.index(do.object_id)  # raises
                at = min(round(do.time_offset / STEP_S), max(self.last, 0))
                self._events.append((at, order, k, m, do))
                if m < prepared.count and prepared.preparation.held[m] and do.kind in FREEING_KINDS:
                    self.state.release(k, m)
        self._events.sort(key=lambda e: (e[0], e[2], e[1]))
        self._apply_due()
        self._write()

    @abstractmethod
    def portion(self) -> int:
        """Steps to make before the deadline is checked again."""

    @abstractmethod
    def make_steps(self, count: int) -> None:
        """Steps without interventions."""

    @abstractmethod
    def advance(self) -> None:
        """A portion of steps or less, the interventions that are due after it, and the answer's times until then."""

    def _apply_due(self) -> None:
        """Carry out the interventions that are due by now."""
        while self._next_event < len(self._events) and self._events[self._next_event][0] <= self.now:
            _, _, k, m, do = self._events[self._next_event]
            for s in range(self.state.prepared.samples):
                apply(do, BatchBody(self.state, self.state.row(k, s), m, self.now))
            self._next_event += 1

    # -- outputs

    def _write(self) -> None:
        """Copy the state to the answer's times up to the next step, of the bodies' origins."""
        bodies, outputs = self.state.bodies, self.outputs
        while self.written < len(outputs.step) and outputs.step[self.written] <= self.now:
            index, shape = self.written, outputs.states.shape
            rest = float(outputs.rest[index])
            out = np.empty((bodies.position.shape[1], STATE_SIZE), dtype=np.float32)
            position = bodies.position + (rest * bodies.linear if rest > 1e-6 else 0.0)
            out[:, POSITION], out[:, QUATERNION] = position.T, bodies.quaternion.T
            out[:, LINEAR_VELOCITY], out[:, ANGULAR_VELOCITY] = bodies.linear.T, bodies.angular.T
            columns = np.flatnonzero(bodies.offsets.any(axis=0))
            if len(columns):
                arm = arms(bodies.quaternion[:, columns].T, bodies.offsets[:, columns].T)
                out[columns, POSITION] -= arm
                out[columns, LINEAR_VELOCITY] -= np.cross(bodies.angular[:, columns].T, arm)
            outputs.states[:, :, index] = out.reshape(shape[0], shape[1], *shape[3:])
            outputs.present[:, index] = bodies.present.reshape(shape[0], shape[1], shape[3])[:, 0]
            self.written += 1

    def gather(self) -> None:
        """Complete the answer: absent bodies keep their last (or first) pose; states that are not finite are replaced
        by the state before, and the future gets a doubt.
        """
        states, samples = self.outputs.states, self.state.prepared.samples
        bad = np.logical_not(np.asarray(np.isfinite(states).all(axis=-1)))
        if bad.any():
            log.warning("learned: %d states were not finite and were held", int(bad.sum()))
            for k, count in enumerate(bad.any(axis=(2, 3)).sum(axis=1).tolist()):
                if count:
                    self.doubts[k] = f"{count} of {samples} samples: not finite, held at the state before"
            for k, s, m in {(int(a), int(b), int(d)) for a, b, _, d in np.argwhere(bad)}:
                first = int(np.argmax(bad[k, s, :, m]))
                states[k, s, first:, m] = states[k, s, max(first - 1, 0), m]
                states[k, s, first:, m, 7:] = 0.0
        for k, m in np.argwhere(~self.outputs.present.all(axis=1)):
            here = np.flatnonzero(self.outputs.present[k, :, m])
            gone = np.flatnonzero(~self.outputs.present[k, :, m])
            if not len(here):
                states[k, :, :, m] = 0.0
                states[k, :, :, m, 6] = 1.0
                continue
            for index in gone:
                before = here[here < index]
                source = before[-1] if len(before) else here[0]
                states[k, :, index, m, :7] = states[k, :, source, m, :7]
                states[k, :, index, m, 7:] = 0.0

    def contacts(self, first: int, ids: NDArray[np.int64]) -> list[Contact]:
        """Touches in order of hypothesis, sample, time.

        Args:
            first: number of the first hypothesis among all of the request.
            ids: (M,) of the bodies.
        """
        if not self.now:
            return []
        prepared, outputs = self.state.prepared, self.outputs
        surface = outputs.surface_touch[: self.now]
        tables = [touches_of(outputs.pair_touch[: self.now], ids[prepared.first], ids[prepared.second])]
        for number, i in enumerate(prepared.surface_of):
            tables.append(touches_of(surface == number, np.full(self.state.slots, ids[i]), ids))
        row, when, a, b, began = (np.concatenate(column) for column in zip(*tables, strict=True))
        low, high = np.minimum(a, b), np.maximum(a, b)
        order = np.lexsort((began, high, low, when, row))
        hypothesis, sample = np.divmod(row[order], prepared.samples)
        columns = (hypothesis + first, sample, when[order], low[order], high[order], began[order])
        return [Contact(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]
