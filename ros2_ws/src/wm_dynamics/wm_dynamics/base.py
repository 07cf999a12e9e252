"""The interface of the dynamics backends: calls and results."""

from __future__ import annotations

import functools
import itertools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.interventions import Hypothesis, Intervention
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, STATE_SIZE
from wm_core.scene_graph import SceneGraph

Array = NDArray[np.float64]
States = NDArray[np.float32]
OnHypothesis = Callable[[int, States, NDArray[np.bool_]], None]


@dataclass(frozen=True)
class Contact:
    """Two objects began or ceased to touch.

    Attributes:
        hypothesis, sample: 0..K-1, 0..S-1.
        time_s: [s]; 0: they touched at the start.
        a, b: ids of the objects, a < b.
        began: else they ceased.
    """

    hypothesis: int
    sample: int
    time_s: float
    a: int
    b: int
    began: bool


@dataclass(frozen=True)
class FutureWarned:
    """The solver warned in a future (``mujoco.trajectory.SolverWarning``), which is not to be trusted from then on.

    Attributes:
        hypothesis, sample: 0..K-1, 0..S-1.
        time_s: [s].
        kind: MuJoCo's name of the warning.
    """

    hypothesis: int
    sample: int
    time_s: float
    kind: str


@dataclass(frozen=True)
class DynamicsResult:
    """K futures of M objects, S samples each, at T times.

    Attributes:
        object_ids: (M,) int64, those of the scene, then created bodies: the j-th intervention of a hypothesis
            that creates a body fills slot j, id max + 1 + j, in every hypothesis.
        states: (K, S, T, M, 13) float32, layout of ``wm_core.rollout``, graph frame.
        present: (K, T, M) bool; where False, states hold the last (or first) pose. All False for hypotheses
            not done.
        contacts: in order of hypothesis, sample, time.
        completed: hypotheses done before the deadline or the stop, in order.
        backend: name of the dynamics that answered.
        backends: K names, which dynamics answered each hypothesis; empty: all by ``backend``.
        doubts: K reasons of the dynamics itself not to trust a future (its solver diverged and was held, it is unsure
            of it), empty strings where it does; empty: it trusts all.
        factual: where several dynamics answered (``backends``), the factual future by each of them, against which
            effects of its futures are: name -> states (S, T, M, 13), present (T, M). Empty: hypothesis 0 for all.
        scatter: (K, M) standard deviation [m] of positions at the last time that the dynamics itself leaves open
            (belief samples come on top); empty: the backend does not say.
        warnings: what the solver warned of, in order of hypothesis, sample, time.
    """

    object_ids: NDArray[np.int64]
    states: States
    present: NDArray[np.bool_]
    contacts: tuple[Contact, ...]
    completed: int
    backend: str = ""
    backends: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    factual: Mapping[str, tuple[States, NDArray[np.bool_]]] = field(default_factory=dict)
    scatter: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    warnings: tuple[FutureWarned, ...] = ()


@dataclass(frozen=True)
class RolloutCall:
    """The request to a backend.

    Attributes:
        scenes: S samples of the belief, same ids; the first is the mean, and decides what moves and what rests.
        hypotheses: K, validated (``wm_core.intervention_checks.validate_hypotheses``).
        times: (T,) ascending, first 0 [s].
        deadline: ``time.monotonic()`` after which no hypothesis is begun [s]; None: none.
        should_stop: called between hypotheses; None: never stop.
        on_hypothesis: called in order with k, states (S, T, M, 13) and presence (T, M), from the calling thread.
    """

    scenes: Sequence[SceneGraph]
    hypotheses: Sequence[Hypothesis]
    times: Array
    deadline: float | None = None
    should_stop: Callable[[], bool] | None = None
    on_hypothesis: OnHypothesis | None = None

    @functools.cached_property
    def object_ids(self) -> NDArray[np.int64]:
        """(M,) of the answer, see ``object_slots``."""
        return object_slots(self.scenes[0], self.hypotheses)

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def stopped(self) -> bool:
        """Whether the caller wants it to stop."""
        return self.should_stop is not None and self.should_stop()

    def ended(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.late or self.stopped

    def of(self, rows: Sequence[int]) -> RolloutCall:
        """The call for some of the hypotheses, without the callback; bodies that only others create have no slot."""
        return replace(self, hypotheses=[self.hypotheses[k] for k in rows], on_hypothesis=None)


class Dynamics(ABC):
    """Predicts futures of a scene under hypotheses.

    Attributes:
        name: of the backend, as in requests.
    """

    name: str

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
        """Roll every hypothesis out from every belief sample; the arguments are those of ``RolloutCall``.

        Raises:
            ValueError: no scene, samples of different ids, or times that do not ascend from 0.
        """
        t = check_scenes(scenes, times)
        return self.respond(RolloutCall(scenes, hypotheses, t, deadline, should_stop, on_hypothesis))

    def respond(self, call: RolloutCall) -> DynamicsResult:
        """The result of a checked call by the objects that it names; the backend's ``answer``, if nothing is joined."""
        return self.answer(call)

    def joined(self, mean: SceneGraph) -> tuple[tuple[int, ...], ...]:
        """Ids of the objects of a scene that are one body in its futures, for each body of several."""
        return ()

    @abstractmethod
    def answer(self, call: RolloutCall) -> DynamicsResult:
        """The result of a checked call, see ``rollout``."""


def check_scenes(scenes: Sequence[SceneGraph], times: ArrayLike) -> Array:
    """The times as an array; raises ValueError on no scene, samples of different ids, or times that do not
    ascend from 0.
    """
    if not scenes:
        raise ValueError("scenes: got none, expected at least one belief sample")
    for s, scene in enumerate(scenes[1:], start=1):
        if not np.array_equal(scene.ids, scenes[0].ids):
            raise ValueError(f"scenes[{s}].ids: got {scene.ids.tolist()}, expected {scenes[0].ids.tolist()}")
    t = np.asarray(times, dtype=np.float64).reshape(-1)
    if not len(t) or not np.isfinite(t).all() or t[0] != 0.0 or (np.diff(t) <= 0.0).any():
        raise ValueError(f"times: got {t[:8].tolist()}, expected ascending from 0")
    return t


def object_slots(scene: SceneGraph, hypotheses: Sequence[Hypothesis]) -> NDArray[np.int64]:
    """(M,) ids of the scene's objects, then of as many created bodies as the hypothesis with most of them
    has.
    """
    created = max((sum(i.creates_body for i in h.interventions) for h in hypotheses), default=0)
    top = int(scene.ids.max()) if len(scene) else 0
    return np.concatenate([scene.ids, top + 1 + np.arange(created)]).astype(np.int64)


def targets(scene: SceneGraph, hypothesis: Hypothesis) -> list[tuple[int, Intervention]]:
    """(object index, intervention) of a hypothesis; created bodies are indexed N, N + 1, ... in the order
    given.
    """
    created = itertools.count(len(scene))
    return [(next(created) if i.creates_body else scene.index(i.object_id), i) for i in hypothesis.interventions]


def empty_result(
    starts: Sequence[Array], hypotheses: int, times: int, objects: int
) -> tuple[States, NDArray[np.bool_]]:
    """States (K, S, T, M, 13) that hold the start poses, and presence (K, T, M) all False."""
    states = np.zeros((hypotheses, len(starts), times, objects, STATE_SIZE), dtype=np.float32)
    states[..., 6] = 1.0
    for s, start in enumerate(starts):
        states[:, s, :, : len(start)] = start
    states[..., LINEAR_VELOCITY] = states[..., ANGULAR_VELOCITY] = 0.0
    return states, np.zeros((hypotheses, times, objects), dtype=bool)


def default_threads() -> int:
    """Worker threads for rollouts: the processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
