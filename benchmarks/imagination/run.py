"""All methods on all worlds, several worlds at a time."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.imagination.accuracy import calibrate, imagine, score_events, score_physics, score_positions
from benchmarks.imagination.perceived import perceive
from benchmarks.imagination.scores import Calibration, Scores, Worst
from benchmarks.imagination.shapes import Worlds
from benchmarks.imagination.starts import Aligned, From, Start, ground_truth_of, translated, true_start
from benchmarks.imagination.worlds import Case, make_case
from training.worlds.splits import Split
from wm_dynamics.base import Dynamics
from wm_dynamics.factory import make_dynamics

METHODS = ("learned", "physics", "straight", "still", "oracle")
NO_CONTACTS = ("straight", "still")
FROM: tuple[From, ...] = ("true", "perceived")


@dataclass
class Outcome:
    """Scores of one world or of many.

    Attributes:
        scores: by (state, method); calibration: by method, from the perceived state.
        ground_truth: violations of physics in the true futures; worlds: how many.
        objects, found: true movable objects of the worlds that were perceived, and how many of them were found.
        position_errors_m: of those that were found.
    """

    scores: dict[tuple[str, str], Scores] = field(default_factory=dict)
    calibration: dict[str, Calibration] = field(default_factory=dict)
    ground_truth: Scores = field(default_factory=Scores)
    worlds: int = 0
    objects: int = 0
    found: int = 0
    position_errors_m: list[float] = field(default_factory=list)

    def merge(self, other: Outcome) -> None:
        """Add the counts of others."""
        for key, scores in other.scores.items():
            self.scores.setdefault(key, Scores()).merge(scores)
        for name, calibration in other.calibration.items():
            self.calibration.setdefault(name, Calibration()).merge(calibration)
        self.ground_truth.merge(other.ground_truth)
        self.worlds += other.worlds
        self.objects += other.objects
        self.found += other.found
        self.position_errors_m += other.position_errors_m


def restricted(future: Aligned, case: Case, start: Start) -> Aligned:
    """Futures from the true state, restricted to objects and hypotheses known to perception: comparable to its own."""
    known = len(case.scene)
    lost = [m for m in range(known) if not case.scene.is_static[m] and int(case.object_ids[m]) not in start.row_of]
    present = future.present.copy()
    present[:, :, lost] = False
    asked = np.array([translated(h, case, start) is not None for h in case.hypotheses])
    solids = tuple(None if m in lost else s for m, s in enumerate(future.solids))
    bodies = tuple(None if m in lost else b for m, b in enumerate(future.bodies))
    return replace(future, present=present, asked=future.asked & asked, solids=solids, bodies=bodies)


def run_case(case: Case, backends: dict[str, Dynamics], samples: int, states: Sequence[From] = FROM) -> Outcome:
    """All scores of one world.

    Args:
        backends: by method; the oracle is the physics backend from the true state.
        samples: of the belief, for calibration; 0: none.
    """
    outcome = Outcome(worlds=1)
    worlds = Worlds()
    ground_truth = true_start(case)
    best: Aligned | None = None
    for state in states:
        start = ground_truth if state == "true" else perceive(case)
        if start is None:
            outcome.objects += int((~case.scene.is_static).sum())
            continue
        if state == "perceived":
            outcome.objects += int((~case.scene.is_static).sum())
            outcome.found += len(start.row_of)
            outcome.position_errors_m += [
                float(np.linalg.norm(start.scene.positions[row] - case.scene.positions[case.scene.index(name)]))
                for name, row in start.row_of.items()
            ]
        for method, dynamics in backends.items():
            scores = Scores()
            begin = time.perf_counter()
            future = imagine(dynamics, case, start)
            scores.seconds = time.perf_counter() - begin
            scores.scenarios, scores.unasked = len(case.hypotheses), int((~future.asked).sum())
            score_positions(scores, case, future, method)
            score_events(scores, case, future, method in NO_CONTACTS)
            if method not in NO_CONTACTS:
                score_physics(scores, worlds, case, start, future)
            outcome.scores[state, method] = scores
            if method == "physics":
                oracle = scores
                if state == "true":
                    best = future
                else:
                    oracle = Scores(scenarios=scores.scenarios, unasked=scores.unasked)
                    known = restricted(best or imagine(dynamics, case, ground_truth), case, start)
                    score_positions(oracle, case, known, "oracle")
                    score_events(oracle, case, known, False)
                outcome.scores[state, "oracle"] = oracle
        if state == "perceived" and samples:
            for method, dynamics in backends.items():
                if method not in NO_CONTACTS:
                    outcome.calibration[method] = calibrate(dynamics, case, start, samples)
    score_physics(outcome.ground_truth, worlds, case, ground_truth, ground_truth_of(case))
    return outcome


_BACKENDS: dict[str, Dynamics] = {}


def backend(name: str, threads: int) -> Dynamics:
    """A backend by name, made once in a process.

    Raises:
        ValueError, RuntimeError, OSError, ImportError: it cannot be made here.
    """
    if name not in _BACKENDS:
        options = {"threads": threads} if name in ("learned", "physics") else {}
        _BACKENDS[name] = make_dynamics(name, **options)
    return _BACKENDS[name]


def unavailable(name: str) -> str | None:
    """Why a backend cannot be made; None where it can."""
    try:
        make_dynamics(name)
    except Exception as error:  # of whatever kind: it goes into the notes
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _job(split: Split, seed: int, methods: Sequence[str], samples: int, states: Sequence[From]) -> Outcome | None:
    case = make_case(split, seed)
    if case is None:
        return None
    return run_case(case, {name: backend(name, 1) for name in methods}, samples, states)


def run_worlds(
    seeds: dict[Split, list[int]],
    methods: Sequence[str],
    samples: int,
    processes: int,
    states: Sequence[From] = FROM,
    on_done: Callable[[str], None] | None = None,
) -> tuple[dict[Split, Outcome], list[str]]:
    """Outcomes by split, and a line for every world that failed (it is left out)."""
    outcomes: dict[Split, Outcome] = {split: Outcome() for split in seeds}
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = {
            pool.submit(_job, split, seed, tuple(methods), samples, tuple(states)): (split, seed)
            for split, each in seeds.items()
            for seed in each
        }
        for future in concurrent.futures.as_completed(waiting):
            split, seed = waiting[future]
            try:
                found = future.result()
                if found is not None:
                    outcomes[split].merge(found)
            except BrokenProcessPool:
                raise
            except Exception as error:  # the other worlds stand without it; the run fails at its end
                failures.append(f"failed, left out: world {split} {seed}: {type(error).__name__}: {error}")
            if on_done is not None:
                on_done(f"{split} {seed}")
    return outcomes, failures


def worst_of(outcomes: dict[Split, Outcome], method: str, state: str, count: int) -> list[Worst]:
    """The futures that a method imagined worst, one of a world."""
    found: list[Worst] = []
    for outcome in outcomes.values():
        scores = outcome.scores.get((state, method))
        found += scores.worst if scores is not None else []
    kept: list[Worst] = []
    for worst in sorted(found, key=lambda w: -w.error_m):
        if len(kept) < count and all((worst.split, worst.seed) != (k.split, k.seed) for k in kept):
            kept.append(worst)
    return kept
