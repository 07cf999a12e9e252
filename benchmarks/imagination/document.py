"""The document that is written: figures of methods by state and split, and those that have an aim."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.imagination.run import FROM, METHODS, Outcome
from benchmarks.imagination.scores import summary

SPLITS = ("seeds", "families")
STATES = tuple(f"{state}_state" for state in FROM)

# Key, words, unit factor and unit, decimals, lower and upper bound of the aim, and which states it is for.
AIMS: tuple[tuple[str, str, float, str, int, float | None, float | None, tuple[str, ...]], ...] = (
    ("ade_ratio_to_physics", "ADE at 1 s, ratio to physics", 1.0, "", 2, None, 1.5, ("perceived_state",)),
    ("fde_ratio_to_physics", "FDE at 1 s, ratio to physics", 1.0, "", 2, None, 1.5, ("perceived_state",)),
    ("ade_ratio_to_straight", "with contacts: ADE at 1 s, ratio to straight", 1.0, "", 2, None, 1.0 / 3.0, STATES),
    ("fde_ratio_to_straight", "with contacts: FDE at 1 s, ratio to straight", 1.0, "", 2, None, 1.0 / 3.0, STATES),
    ("effect_f1", "who is affected, F1", 1.0, "", 3, 0.9, None, STATES),
    ("effect_error_ratio_to_straight", "effect vector, ratio to straight", 1.0, "", 2, None, 1.0 / 3.0, STATES),
    ("events_f1", "events up to 1 s, F1 within 0.1 s", 1.0, "", 3, 0.85, None, STATES),
    ("penetration_fraction", "deeper than 5 mm in another", 1e2, "%", 2, None, 0.005, STATES),
    ("through_table", "objects through the table", 1.0, "", 0, None, 0.0, STATES),
    ("energy_created", "futures that create energy", 1.0, "", 0, None, 0.0, STATES),
    ("coverage_90", "90 % regions hold", 1e2, "%", 0, 0.85, 0.95, ("perceived_state",)),
)
EMPTY: dict[str, Any] = {
    **{state: dict.fromkeys(METHODS) for state in STATES},
    **dict.fromkeys(("effect_f1", "effect_error_ratio_to_straight", "events_f1", "penetration_fraction")),
    "coverage_90": None,
    "rollouts_per_s": {},
    "service_1024_s": None,
    "planner": {},
}


def numbers(outcome: Outcome, state: str, method: str) -> dict[str, Any] | None:
    """The figures of a method from a state; None where it was not measured."""
    scores = outcome.scores.get((state, method))
    if scores is None or not scores.scenarios:
        return None
    found = summary(scores)
    calibration = outcome.calibration.get(method)
    if state == "perceived" and calibration is not None:
        names = ("all", "moved", "rest")
        found["coverage_90"] = calibration.share("all")
        found["coverage_90_groups"] = {n: calibration.share(n) for n in names}
        found["coverage_90_by_rank"] = {n: calibration.share(f"{n} by rank") for n in names}
    return found


def ratio(first: float | None, second: float | None) -> float | None:
    """First over second; None where either is missing or the second is 0."""
    return first / second if first is not None and second else None


def judged(outcome: Outcome, state: str, method: str = "learned") -> dict[str, float | None]:
    """The keys of ``AIMS`` for a method."""
    own = numbers(outcome, state, method)
    result: dict[str, float | None] = dict.fromkeys(row[0] for row in AIMS)
    if own is None:
        return result
    beside = {name: numbers(outcome, state, name) or {} for name in ("physics", "straight")}

    def at(values: dict[str, Any], key: str) -> float | None:
        return (values.get(key) or {}).get("1.0")

    for name in ("ade", "fde"):
        result[f"{name}_ratio_to_physics"] = ratio(at(own, f"{name}_m"), at(beside["physics"], f"{name}_m"))
        key = f"{name}_contacts_m"
        result[f"{name}_ratio_to_straight"] = ratio(at(own, key), at(beside["straight"], key))
    result["effect_error_ratio_to_straight"] = ratio(own["effect_error_m"], beside["straight"].get("effect_error_m"))
    for key in ("effect_f1", "events_f1", "penetration_fraction", "through_table", "energy_created", "coverage_90"):
        result[key] = own.get(key)
    return result


def merged(outcomes: dict[str, Outcome]) -> Outcome:
    """Both splits together."""
    total = Outcome()
    for outcome in outcomes.values():
        total.merge(outcome)
    return total


def accuracy_document(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """The part of the document that is measured on worlds; keys of ``EMPTY`` first."""
    both = merged(outcomes)
    document: dict[str, Any] = {}
    for state in FROM:
        document[f"{state}_state"] = {method: numbers(both, state, method) for method in METHODS}
    true, perceived = judged(both, "true"), judged(both, "perceived")
    for key in ("effect_f1", "effect_error_ratio_to_straight", "events_f1", "penetration_fraction"):
        document[key] = true[key]
        document[f"{key}_perceived"] = perceived[key]
    document["coverage_90"] = perceived["coverage_90"]
    document["aimed"] = {
        state: {split: judged(outcome, state.removesuffix("_state")) for split, outcome in outcomes.items()}
        for state in STATES
    }
    document["aimed_physics"] = {
        state: {split: judged(outcome, state.removesuffix("_state"), "physics") for split, outcome in outcomes.items()}
        for state in STATES
    }
    document["by_split"] = {
        split: {f"{state}_state": {method: numbers(outcome, state, method) for method in METHODS} for state in FROM}
        for split, outcome in outcomes.items()
    }
    document["by_intervention_fde_1s_m"] = {
        f"{state}_state": {
            method: {
                kind: scores.errors.mean(f"fde|{kind}|1.0")
                for kind in sorted({n.split("|")[1] for n in scores.errors.sums if n.startswith("fde|")})
            }
            for method in METHODS
            if (scores := both.scores.get((state, method))) is not None
        }
        for state in FROM
    }
    ground_truth = both.ground_truth
    document["truth"] = {
        "penetration_fraction": ratio(ground_truth.deep_steps, ground_truth.steps),
        "through_table": ground_truth.through_table,
        "energy_created": ground_truth.energy_created,
        "energy_checked": ground_truth.energy_checked,
    }
    document["perception"] = {
        "worlds": both.worlds,
        "found_share": ratio(both.found, both.objects),
        "position_error_median_m": float(np.median(both.position_errors_m)) if both.position_errors_m else None,
    }
    return document
