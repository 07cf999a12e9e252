"""The ``auto`` dynamics backend: learned, and physics for the futures of which the learned one is unsure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_dynamics.base import DynamicsResult, RolloutCall
from wm_dynamics.joining.dynamics import JoiningDynamics
from wm_dynamics.learned.backend import LearnedDynamics
from wm_dynamics.physics.backend import PhysicsDynamics
from wm_dynamics.validity import check_futures

log = logging.getLogger(__name__)

UNSURE_M = 0.10
"""Predicted standard deviation of any object's position at the end, from what the network leaves open alone, beyond
which a future is handed to physics."""
MAX_HANDED_OVER = 128
"""Futures (hypotheses x samples) of one request without a deadline that physics answers at most: about a second's work
on two cores. A number, not a time, so that the same request gives the same answer. With a deadline, as many as fit."""
MOST_UNSURE = 0.5
"""Share of unsure futures from which on physics answers all of a request. With fewer, the others would cost more than
those (three to five unsure of 64 took 400 to 560 ms with all, 110 to 140 ms alone)."""
FIRST_ESTIMATE = 0.02
"""Seconds of physics per future and second of horizon before the first was measured; with six objects on two cores."""
PREPARE_S = 0.05
"""About the time that physics needs before the first future, to settle the scene and compile its models [s]."""
RESERVE = 1.3
"""Factor on the estimated time of the futures that are handed over: larger, and fewer fit; smaller, and a deadline is
missed more often."""


class AutomaticDynamics(JoiningDynamics):
    """Answers by the learned backend, and by physics where that is unsure; the result names who answered.

    A future is unsure when the network leaves more than ``UNSURE_M`` of any object's position open, or when it is not
    valid (``wm_dynamics.validity``). Physics answers as many of those as fit in the time, the least sure first, and the
    factual future with them, because effects compare futures of one backend; all futures of the request where most are
    unsure and all fit. Those that do not fit keep the learned answer and are not valid, with the reason in ``doubts``.
    """

    name = "learned"

    def __init__(self, learned: LearnedDynamics, physics: PhysicsDynamics) -> None:
        self.learned, self.physics = learned, physics
        self._estimate = FIRST_ESTIMATE
        self._lock = threading.Lock()

    @property
    def engine(self) -> str:
        """What makes the learned backend's steps: ``compiled`` or ``onnxruntime``."""
        return self.learned.engine

    def close(self) -> None:
        """Ends the worker threads of both."""
        self.learned.close()
        self.physics.close()

    def answer(self, call: RolloutCall) -> DynamicsResult:
        """See ``wm_dynamics.base.Dynamics.answer``; ``backends`` of the result names who answered each
        hypothesis. Futures with doubts are not given to ``on_hypothesis``.
        """
        hypotheses = call.hypotheses
        result = self.learned.answer(replace(call, on_hypothesis=None))
        doubts = self._doubts(call, result)
        result = replace(result, backends=("learned",) * len(hypotheses))
        unsure = self._least_sure_first(result, doubts)
        if len(unsure) and not call.stopped:
            result, doubts = self._handed_over(call, result, doubts, unsure)
        left = [k for k, doubt in enumerate(doubts) if doubt]
        if left:
            log.warning(
                "auto: %d of %d futures are not valid: the learned backend is unsure of them, and physics had no time "
                "for them or failed, too (%s: %s)",
                len(left),
                len(hypotheses),
                repr(hypotheses[left[0]].name),
                doubts[left[0]],
            )
        if call.on_hypothesis is not None:
            for k in range(result.completed):
                if not doubts[k]:
                    call.on_hypothesis(k, result.states[k], result.present[k])
        return replace(result, doubts=tuple(doubts) if left else ())

    # -- parts

    @staticmethod
    def _doubts(call: RolloutCall, result: DynamicsResult) -> list[str]:
        """Why each future is not to be trusted; empty strings where it is, or was not computed."""
        done = result.completed
        own = list(result.doubts[:done]) if result.doubts else [""] * done
        if result.scatter.size:
            for k, spread in enumerate(result.scatter[:done].max(axis=1, initial=0.0).tolist()):
                if not spread <= UNSURE_M:
                    unsure = f"unsure: the learned backend leaves {spread:.2f} m open, expected at most {UNSURE_M:g} m"
                    own[k] = "; ".join(r for r in (own[k], unsure) if r)
        hypotheses = call.hypotheses[:done]
        checked = check_futures(call.scenes, hypotheses, call.times, result.states[:done], result.object_ids, own)
        return [*checked.reasons, *([""] * (len(call.hypotheses) - done))]

    @staticmethod
    def _least_sure_first(result: DynamicsResult, doubts: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the futures with doubts."""
        rows = np.array([k for k, doubt in enumerate(doubts) if doubt], dtype=np.int64)
        if not len(rows) or not result.scatter.size:
            return rows
        spread = np.nan_to_num(result.scatter[rows].max(axis=1, initial=0.0), nan=np.inf)
        return rows[np.argsort(-spread, kind="stable")]

    def _room(self, samples: int, horizon_s: float, deadline: float | None) -> int:
        """Hypotheses that physics can answer in the time."""
        if deadline is None:
            return MAX_HANDED_OVER // samples
        left = deadline - time.monotonic() - PREPARE_S
        with self._lock:
            each = RESERVE * self._estimate * max(horizon_s, 0.05) * samples
        return max(int(left / each), 0)

    def _handed_over(
        self, call: RolloutCall, result: DynamicsResult, doubts: list[str], unsure: NDArray[np.int64]
    ) -> tuple[DynamicsResult, list[str]]:
        """The result with what physics answered in time, and the doubts that are left."""
        hypotheses, horizon_s = call.hypotheses, float(call.times[-1])
        room = self._room(len(call.scenes), horizon_s, call.deadline)
        if room >= len(hypotheses) and len(unsure) >= MOST_UNSURE * len(hypotheses):
            rows = np.arange(len(hypotheses))
        else:
            # The factual future, row 0, goes along: the effects of what physics answers are against its own.
            rows = np.concatenate([[0], unsure[unsure != 0][: max(room - 1, 0)]]).astype(np.int64)
            if room < 1 or (len(rows) == 1 and doubts[0] == ""):
                return result, doubts
        log.info(
            "auto: physics answers %d of %d futures, as the learned backend is unsure of %s (%s)",
            len(rows),
            len(hypotheses),
            ", ".join(repr(hypotheses[k].name) for k in unsure[:4]),
            doubts[int(unsure[0])],
        )
        begin = time.monotonic()
        again = self.physics.answer(call.of(rows.tolist()))
        if again.completed:
            took = time.monotonic() - begin
            each = max(took - PREPARE_S, 0.2 * took) / (again.completed * len(call.scenes) * max(horizon_s, 0.05))
            with self._lock:
                self._estimate += 0.5 * (each - self._estimate)
        if len(rows) == len(hypotheses) == again.completed:
            judged = list(again.doubts) if again.doubts else [""] * len(hypotheses)
            return replace(again, backends=("physics",) * len(hypotheses)), judged
        return _merged(result, again, rows, doubts)


def _merged(
    learned: DynamicsResult, physics: DynamicsResult, rows: NDArray[np.int64], doubts: Sequence[str]
) -> tuple[DynamicsResult, list[str]]:
    """The learned result with those futures as physics answered them that have doubts; the doubts that are left.

    Args:
        physics: of hypotheses ``rows`` of ``learned``, the first of them the factual one, 0.
    """
    left = list(doubts)
    replaced = {n: k for n, k in enumerate(rows[: physics.completed].tolist()) if left[k]}
    if not replaced:
        return learned, left
    states, present, scatter = learned.states, learned.present, learned.scatter
    # Bodies that others of the hypotheses create are beyond those that physics knew of.
    slots = physics.states.shape[3]
    factual = {name: (states[0].copy(), present[0].copy()) for name in ("learned", "physics")}
    factual["physics"][0][:, :, :slots], factual["physics"][1][:, :slots] = physics.states[0], physics.present[0]
    backends = list(learned.backends)
    for n, k in replaced.items():
        states[k, :, :, :slots], present[k, :, :slots] = physics.states[n], physics.present[n]
        scatter[k] = 0.0
        backends[k] = "physics"
        left[k] = physics.doubts[n] if physics.doubts else ""
    contacts = [c for c in learned.contacts if backends[c.hypothesis] == "learned"]
    contacts += [replace(c, hypothesis=replaced[c.hypothesis]) for c in physics.contacts if c.hypothesis in replaced]
    contacts.sort(key=lambda c: (c.hypothesis, c.sample, c.time_s))
    return replace(learned, contacts=tuple(contacts), backends=tuple(backends), factual=factual), left
