"""Futures that the compiled contact step steps together."""

from __future__ import annotations

from collections.abc import Sequence

from wm_core.interventions import Hypothesis
from wm_dynamics.contact_step.compiled import CompiledStep
from wm_dynamics.contact_step.rollout_tables import Span
from wm_dynamics.learned.futures import FutureBatch
from wm_dynamics.learned.scene import Array, PreparedScene

PORTION_BODY_STEPS = 20_000
"""Steps of bodies between two checks of the deadline: some 10 ms. Larger, and a deadline is missed by
more; smaller, and Python's share of the time grows."""


class CompiledFutureBatch(FutureBatch):
    """A ``FutureBatch`` that makes all steps up to the next intervention in one call of ``rollout_kernel.advance``.

    Args:
        compiled: the step; the others as of ``FutureBatch``.
    """

    def __init__(
        self, prepared: PreparedScene, hypotheses: Sequence[Hypothesis], times: Array, compiled: CompiledStep
    ) -> None:
        super().__init__(prepared, hypotheses, times)
        self._compiled = compiled
        self._noise = prepared.noise_until(self.most_steps)

    def portion(self) -> int:
        """Steps that take some 10 ms."""
        return max(1, PORTION_BODY_STEPS // max(self.state.rows * self.state.slots, 1))

    def advance(self) -> None:
        """All steps up to the next intervention, or a portion of them."""
        until = min(self.last, self.now + self.portion(), self.next_event_step)
        self.make_steps(max(until, self.now + 1) - self.now)
        self._apply_due()
        if self.finished:
            self._write()

    def make_steps(self, count: int) -> None:
        """Steps without interventions; also writes the answer's times that are due before the last of them."""
        state, until = self.state, self.now + count
        self._compiled.advance(
            Span(self.now, until, self.written),
            state.bodies,
            state.pairs,
            state.parts,
            state.surfaces,
            state.hulls,
            state.paths.table,
            self._noise,
            self.outputs,
        )
        self.written += int((self.outputs.step[self.written :] < until).sum())
        self.now = until
