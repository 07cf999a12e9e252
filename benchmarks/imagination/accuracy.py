"""Imagined futures against true ones: positions, rotations, effects, events, calibration, violations of physics.

To measure a dynamics backend from a Python prompt in the repository's root (environment: ``source tools/env.sh``)::

    >>> from benchmarks.imagination.accuracy import evaluate
    >>> from benchmarks.imagination.worlds import world_seeds
    >>> from wm_dynamics.factory import make_dynamics
    >>> evaluate(make_dynamics("physics"), "seeds", world_seeds("seeds", 6))

The ground truth is simulated once (2 s a world) and kept under out/bench/cache; so is what perception makes of a world.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.imagination.laws import created_energy, penetrations
from benchmarks.imagination.metrics import (
    HORIZONS_S,
    PENETRATION_M,
    Array,
    Mask,
    crosses_table,
    displacement,
    effects,
    held_once_gone,
    in_rank,
    in_region,
    match_events,
    moved,
    row_at,
)
from benchmarks.imagination.perceived import perceive
from benchmarks.imagination.scores import MEASURED_WORST, Calibration, Scores, Worst, summary
from benchmarks.imagination.shapes import Worlds
from benchmarks.imagination.starts import Aligned, From, Start, align, ground_truth_of, solid_of, translated, true_start
from benchmarks.imagination.touching import EVENTS_UNTIL_S, events_of, has_contact, positions_of, true_events_of
from benchmarks.imagination.worlds import Case, load_cases
from training.worlds.splits import Split
from wm_core.interventions import InterventionKind
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.base import Dynamics, targets
from wm_dynamics.belief import sample_belief
from wm_dynamics.factory import make_dynamics
from wm_dynamics.settling.restoration import Settling
from wm_perception.evaluation import rotation_error_deg

EFFECT_AT_S = 1.0
"""Where effect vectors are compared: the horizon of the aims."""
CALIBRATION_TIMES_S = (0.5, 1.0)
"""Times [s] at which true positions are compared with predictive regions (``coverage_90``)."""
CALIBRATION_SCENARIOS = 3
"""Hypotheses of each case that are rolled out from belief samples; more need more time."""


def imagine(dynamics: Dynamics, case: Case, start: Start) -> Aligned:
    """All hypotheses of a case, rolled out by a backend from the mean of the belief."""
    asked = [translated(h, case, start) for h in case.hypotheses]
    result = dynamics.rollout([start.scene], [h for h in asked if h is not None], case.times)
    return align(case, start, asked, result)


def compared(case: Case) -> Mask:
    """(K, M) which objects are scored: movable, no pusher, on the table at the start or created."""
    count, objects = len(case.hypotheses), len(case.object_ids)
    known = len(case.scene)
    scored = np.zeros((count, objects), dtype=bool)
    scored[:, :known] = ~case.scene.is_static & (case.scene.positions[:, 2] > case.table_top_m - 0.02)
    for k, hypothesis in enumerate(case.hypotheses):
        created = [i for i in hypothesis.interventions if i.creates_body]
        for j, do in enumerate(created):
            scored[k, known + j] = do.kind == InterventionKind.ADD
    return scored


def score_positions(scores: Scores, case: Case, future: Aligned, method: str) -> None:
    """Displacement and rotation errors, and effects."""
    scored = compared(case)
    true, said = positions_of(case, ground_truth_of(case)), positions_of(case, future)
    valid = case.present & future.present & scored[:, None] & future.asked[:, None, None]
    errors = np.where(valid, np.linalg.norm(true - said, axis=-1), np.nan)
    # The distance from the true path less the offset at the start.
    begin = (case.present & future.present).argmax(axis=1)[:, None, :, None]
    off = said - true
    shape_error = np.where(valid, np.linalg.norm(off - np.take_along_axis(off, begin, axis=1), axis=-1), np.nan)
    contacts = np.array([has_contact(case, k) for k in range(len(case.hypotheses))])
    for horizon in HORIZONS_S:
        ade, fde = displacement(errors, case.times, horizon)
        going = moved(true, case.present, case.times, horizon)
        for name, values in (("ade", ade), ("fde", fde)):
            scores.errors.add(f"{name}|all|{horizon}", values)
            scores.errors.add(f"{name}|moved|{horizon}", values[going])
            scores.errors.add(f"{name}|contacts|{horizon}", values[contacts])
            scores.errors.add(f"{name}|contacts moved|{horizon}", values[contacts[:, None] & going])
            for k, kind in enumerate(case.kinds):
                scores.errors.add(f"{name}|{kind}|{horizon}", values[k])
        scores.errors.add(f"way|all|{horizon}", displacement(shape_error, case.times, horizon)[1])
        scores.errors.add(f"way|moved|{horizon}", displacement(shape_error, case.times, horizon)[1][going])
        last = row_at(case.times, horizon)
        turned = np.full(fde.shape, np.nan)
        for k, m in zip(*np.nonzero(np.isfinite(fde)), strict=True):
            solid, true_solid = future.solids[m], ground_truth_solid(case, int(k), int(m))
            if solid is None or true_solid is None:
                continue
            angle = rotation_error_deg(
                future.states[k, last, m, QUATERNION],
                solid[1],
                case.states[k, last, m, QUATERNION].astype(np.float64),
                true_solid[1],
                true_solid[0],
                true_solid[2],
            )
            turned[k, m] = np.nan if angle is None else angle
        scores.errors.add(f"rotation|all|{horizon}", turned)
        scores.errors.add(f"rotation|moved|{horizon}", turned[going])
        if horizon == 1.0:
            for k in np.flatnonzero(future.asked):
                if np.isfinite(fde[k]).any():
                    worst = float(np.nanmax(fde[k]))
                    scores.worst.append(Worst(worst, case.split, case.seed, int(k), method, case.kinds[k]))
    scores.worst = sorted(scores.worst, key=lambda w: -w.error_m)[:MEASURED_WORST]
    last = row_at(case.times, EFFECT_AT_S)
    true_there = case.present & scored[:, None]
    affected, vector, both = effects(true, true_there, last)
    said_affected, said_vector, said_both = effects(said, valid, last)
    # What is compared exists in both futures, of the ground truth and of the imagination.
    there = (case.present & case.present[:1] & valid & valid[:1])[1:, : last + 1].any(axis=1)
    acted = np.zeros_like(there)
    for k, hypothesis in enumerate(case.hypotheses[1:]):
        for m, _ in targets(case.scene, hypothesis):
            acted[k, m] = True
    for counts, mask in ((scores.effect, there), (scores.effect_others, there & ~acted)):
        counts += np.array(
            [
                (affected & said_affected & mask).sum(),
                (~affected & said_affected & mask).sum(),
                (affected & ~said_affected & mask).sum(),
            ]
        )
    wrong = np.where(both & said_both, np.linalg.norm(vector - said_vector, axis=-1), np.nan)
    scores.errors.add("effect|all", wrong)
    scores.errors.add("effect|affected", wrong[affected])
    scores.errors.add("effect|others", wrong[~acted])


def ground_truth_solid(case: Case, k: int, m: int) -> tuple[int, Array, Array] | None:
    """Shape, extents (3,) [m] and hull (P, 3) of the true object in column m of hypothesis k; None: none there."""
    known = len(case.scene)
    if m < known:
        return int(case.scene.shapes[m]), case.scene.extents[m], case.scene.hulls[m]
    return solid_of(case.hypotheses[k : k + 1], m - known)


def score_events(scores: Scores, case: Case, future: Aligned, from_places: bool) -> None:
    """Events up to a second ahead, of objects that were found."""
    known = {int(i) for m, i in enumerate(case.object_ids) if future.solids[m] is not None}
    for k in np.flatnonzero(future.asked):
        true = [e for e in true_events_of(case)[k] if set(e[1]) <= known]
        said = [e for e in events_of(case, future, int(k), from_places) if set(e[1]) <= known]
        for kind, counts in match_events(true, said, EVENTS_UNTIL_S).items():
            scores.events[kind] = scores.events.get(kind, np.zeros(3, np.int64)) + np.array(counts)


def score_physics(scores: Scores, worlds: Worlds, case: Case, start: Start, future: Aligned) -> None:
    """Penetration, falls through the table, and created energy, of the future as the backend gave it."""
    raw = future.raw
    table = int(np.flatnonzero(start.scene.is_static)[0]) if start.scene.is_static.any() else None
    for k, hypothesis in enumerate(future.hypotheses[: raw.completed]):
        count = len(start.scene) + sum(i.creates_body for i in hypothesis.interventions)
        states, present = raw.states[k, 0, :, :count].astype(np.float64), raw.present[k, :, :count]
        depths = penetrations(worlds, start.scene, hypothesis, case.times, states, present)
        deep = depths > PENETRATION_M
        movable = np.array([not start.scene.is_static[m] if m < len(start.scene) else True for m in range(count)])
        scores.steps += len(case.times)
        scores.deep_steps += int(deep.any(axis=1).sum())
        scores.object_steps += int(present[:, movable].sum())
        scores.deep_object_steps += int(deep.sum())
        risen = created_energy(worlds, start.scene, hypothesis, case.times, states, present)
        if risen is not None:
            scores.energy_checked += 1
            scores.energy_created += int(risen > 0.0)
            scores.energy_worst_j = max(scores.energy_worst_j, risen)
        if table is not None:
            center = start.scene.positions[table]
            rotation = quaternion_to_matrix(start.scene.quaternions[table])
            extents = start.scene.extents[table]
            through = crosses_table(states[..., POSITION], present, center, rotation, extents)
            scores.through_table += int((through & movable).sum())


def calibrate(dynamics: Dynamics, case: Case, start: Start, samples: int) -> Calibration:
    """The first hypotheses of a case from samples of the belief, up to 1 s: how often regions hold the ground truth."""
    found = Calibration()
    asked = [translated(h, case, start) if k < CALIBRATION_SCENARIOS else None for k, h in enumerate(case.hypotheses)]
    rows = [k for k, h in enumerate(asked) if h is not None]
    last = row_at(case.times, max(CALIBRATION_TIMES_S))
    scenes = sample_belief(start.scene, samples, case.seed)
    result = dynamics.rollout(scenes, [h for h in asked if h is not None], case.times[: last + 1])
    Settling(scenes, result.states[0, :, 0]).restore_centers(result.states)  # hypothesis 0 is factual
    scored = compared(case)
    true = positions_of(case, ground_truth_of(case))
    going = moved(true, case.present, case.times, max(CALIBRATION_TIMES_S))
    said = held_once_gone(result.states[..., POSITION].astype(np.float64), case.table_top_m)  # (K, S, T, M, 3)
    known = len(case.scene)
    for place, k in enumerate(rows[: result.completed]):
        for m in np.flatnonzero(scored[k]):
            column = start.row_of.get(int(case.object_ids[m])) if m < known else len(start.scene) + m - known
            if column is None or column >= said.shape[3]:
                continue
            for when in CALIBRATION_TIMES_S:
                t = row_at(case.times, when)
                if not (case.present[k, t, m] and result.present[place, t, column]):
                    continue
                cloud, ground_truth = said[place, :, t, column], true[k, t, m]
                inside, ranked = in_region(cloud, ground_truth), in_rank(cloud, ground_truth)
                for group in ("all", "moved" if going[k, m] else "rest"):
                    found.add(group, inside)
                    found.add(f"{group} by rank", ranked)
    return found


def starts_of(cases: Sequence[Case], from_: From) -> list[tuple[Case, Start]]:
    """Cases with the state that their rollouts start from; those of which nothing was perceived are left out."""
    found = []
    for case in cases:
        start = true_start(case) if from_ == "true" else perceive(case)
        if start is not None:
            found.append((case, start))
    return found


def score(dynamics: Dynamics, case: Case, start: Start, method: str, worlds: Worlds | None = None) -> Scores:
    """All scores but calibration, of one case; ``worlds`` None: without penetration and energy."""
    scores = Scores()
    begin = time.perf_counter()
    future = imagine(dynamics, case, start)
    scores.seconds = time.perf_counter() - begin
    scores.scenarios, scores.unasked = len(case.hypotheses), int((~future.asked).sum())
    score_positions(scores, case, future, method)
    score_events(scores, case, future, method in ("straight", "still"))
    if worlds is not None:
        score_physics(scores, worlds, case, start, future)
    return scores


def evaluate(
    dynamics: Dynamics, split: Split, seeds: Sequence[int], from_: From = "true", physics: bool = False
) -> dict[str, Any]:
    """Measure a dynamics backend on worlds of a split, beside straight lines and objects that stay still.

    Args:
        dynamics: anything with ``Dynamics.rollout`` (``make_dynamics("physics")``, a ``LearnedDynamics`` with weights
            of one's own, ...).
        split: ``seeds``, ``families`` (or ``train``); seeds: which worlds, for example ``world_seeds(split, 10)``;
            those that are not usable (see ``benchmarks.imagination.worlds.usable``) are left out.
        from_: ``true`` (true scene graph without covariance) or ``perceived`` (perception on rendered images; slow at
            the first call of a world, then from the disk).
        physics: also measure penetration, objects through the table, energy.

    Returns:
        ``{"method": name, "worlds": n, name: {...}, "straight": {...}, "still": {...}}``, each with ``ade_m``,
        ``fde_m``, ``ade_moved_m``, ``fde_moved_m``, ``ade_contacts_m``, ``fde_contacts_m``, ``rotation_deg`` (all
        ``{"0.5": .., "1.0": .., "2.0": ..}``), ``effect_f1``, ``effect_error_m``, ``events_f1``, ``ms_per_question``
        and more; means over objects and futures. ``fde_from_start_m`` leaves out the error of the start. ``moved``:
        objects whose true displacement exceeds 1 cm; ``contacts``: futures in which movable objects begin to touch.
    """
    pairs = starts_of(load_cases(split, seeds), from_)
    result: dict[str, Any] = {"method": dynamics.name, "worlds": len(pairs), "split": split, "from": from_}
    for method, backend in ((dynamics.name, dynamics), *((n, make_dynamics(n)) for n in ("straight", "still"))):
        total, worlds = Scores(), Worlds() if physics and backend is dynamics else None
        for case, start in pairs:
            total.merge(score(backend, case, start, method, worlds))
        result[method] = summary(total)
    return result
