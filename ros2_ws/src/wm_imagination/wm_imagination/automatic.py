"""The ``auto`` dynamics backend: learned, and physics for the futures that the learned one is unsure of."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from wm_core.interventions import Hypothesis
from wm_core.scene_graph import SceneGraph
from wm_imagination.dynamics import DynamicsResult, OnHypothesis
from wm_imagination.learned import LearnedDynamics
from wm_imagination.physics import PhysicsDynamics

log = logging.getLogger(__name__)

UNSURE_M = 0.10
"""Predicted standard deviation of any thing's position at the end, from what the network leaves open alone, beyond
which a future is handed to physics."""
MAX_HANDED_OVER = 24
"""Futures (hypotheses x samples) of one request that physics takes at most, the least sure first: a planner that asks
for a thousand futures wants them in time."""


class AutomaticDynamics:
    """Asks the learned backend, then physics for what that is unsure of; says which answered what."""

    name = "learned"

    def __init__(self, learned: LearnedDynamics, physics: PhysicsDynamics) -> None:
        self.learned, self.physics = learned, physics

    @property
    def engine(self) -> str:
        """What makes the learned backend's steps: ``compiled`` or ``onnxruntime``."""
        return self.learned.engine

    def close(self) -> None:
        """Ends the worker threads of both."""
        self.learned.close()
        self.physics.close()

    def rollout(
        self,
        scenes: Sequence[SceneGraph],
        hypotheses: Sequence[Hypothesis],
        times: ArrayLike,
        *,
        deadline: float | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_hypothesis: OnHypothesis | None = None,
    ) -> DynamicsResult:
        """See ``wm_imagination.dynamics.Dynamics.rollout``; ``backends`` of the result names who answered each
        hypothesis.

        The factual future goes with the rest: if one future is handed over, so is it, for effects compare futures of
        one backend. Nothing is handed over when the deadline is near.
        """
        result = self.learned.rollout(
            scenes, hypotheses, times, deadline=deadline, should_stop=should_stop, on_hypothesis=on_hypothesis
        )
        backends = ["learned"] * len(hypotheses)
        unsure = self._unsure(result)
        limit = MAX_HANDED_OVER // max(len(scenes), 1)
        if not len(unsure) or len(unsure) > limit or len(hypotheses) > limit:
            # Effects are against the factual future, so either all are answered by physics or none is.
            return replace(result, backends=tuple(backends))
        if deadline is not None and deadline - time.monotonic() < 0.02 * len(hypotheses) * len(scenes):
            return replace(result, backends=tuple(backends))
        log.info(
            "auto: physics answers, as the learned backend is unsure of %s (standard deviation above %g m)",
            ", ".join(repr(hypotheses[k].name) for k in unsure[:4]),
            UNSURE_M,
        )
        again = self.physics.rollout(
            scenes, hypotheses, times, deadline=deadline, should_stop=should_stop, on_hypothesis=on_hypothesis
        )
        if again.completed < len(hypotheses):
            return replace(result, backends=tuple(backends))
        return replace(again, backends=("physics",) * len(hypotheses))

    @staticmethod
    def _unsure(result: DynamicsResult) -> np.ndarray:
        """Hypotheses whose futures the learned backend is unsure of, the least sure first."""
        if not result.scatter.size:
            return np.zeros(0, dtype=np.int64)
        worst = result.scatter[: result.completed].max(axis=1, initial=0.0)
        return np.argsort(-worst, kind="stable")[: int((worst > UNSURE_M).sum())]
