"""Scores of imagined futures, which add up over worlds, and the plain numbers made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.imagination.metrics import HORIZONS_S, Errors, Mask, f1
from wm_core.scene_graph import EventKind

MEASURED_WORST = 12
"""Worst futures that are kept of each world; the picture shows six of each state."""


@dataclass
class Worst:
    """A future with a large error.

    Attributes:
        error_m: the largest displacement error at 1 s of its objects [m].
        split, seed: of its world; scenario: row of its hypothesis in the case; kind: of the intervention.
        method: the backend that rolled it out.
    """

    error_m: float
    split: str
    seed: int
    scenario: int
    method: str
    kind: str


@dataclass
class Scores:
    """Scores of a method over worlds; they add up.

    Attributes:
        errors: sums by name: ``ade|all|1.0`` and the like; groups all, moved, contacts, and the kind of intervention.
        effect: (3,) hits, false alarms, misses of "is affected"; effect_others: of objects not acted upon themselves.
        events: (3,) hits, false alarms, misses by kind.
        steps, deep_steps: states, and those in which an object is deeper than 5 mm in another.
        object_steps, deep_object_steps: the same, counted by object.
        energy_checked, energy_created: futures, and those that create energy; energy_worst_j: the largest excess [J].
        through_table: objects that went through the table.
        scenarios, unasked: hypotheses, and those whose object was not found; seconds: of the rollouts [s].
        worst: the futures with the largest errors.
    """

    errors: Errors = field(default_factory=Errors)
    effect: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    effect_others: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    events: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    steps: int = 0
    deep_steps: int = 0
    object_steps: int = 0
    deep_object_steps: int = 0
    energy_checked: int = 0
    energy_created: int = 0
    energy_worst_j: float = 0.0
    through_table: int = 0
    scenarios: int = 0
    unasked: int = 0
    seconds: float = 0.0
    worst: list[Worst] = field(default_factory=list)

    def merge(self, other: Scores) -> None:
        """Add the counts of others."""
        self.errors.merge(other.errors)
        self.effect = self.effect + other.effect
        self.effect_others = self.effect_others + other.effect_others
        for kind, counts in other.events.items():
            self.events[kind] = self.events.get(kind, np.zeros(3, np.int64)) + counts
        for name in (
            *("steps", "deep_steps", "object_steps", "deep_object_steps", "energy_checked", "energy_created"),
            *("through_table", "scenarios", "unasked", "seconds"),
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.energy_worst_j = max(self.energy_worst_j, other.energy_worst_j)
        self.worst = sorted([*self.worst, *other.worst], key=lambda w: -w.error_m)[: 4 * MEASURED_WORST]


@dataclass
class Calibration:
    """How often the ground truth was in the 90 % region of the samples; counts add up.

    Attributes:
        counts: (2,) positions inside and all positions, by group (all, moved, rest, and each "by rank").
    """

    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, name: str, inside: Mask) -> None:
        """Add flags, one for each position."""
        self.counts[name] = self.counts.get(name, np.zeros(2, np.int64)) + np.array([inside.sum(), inside.size])

    def merge(self, other: Calibration) -> None:
        """Add the counts of others."""
        for name, counts in other.counts.items():
            self.counts[name] = self.counts.get(name, np.zeros(2, np.int64)) + counts

    def share(self, name: str) -> float | None:
        """Fraction 0..1 of a group; None where nothing was counted."""
        inside, total = self.counts.get(name, (0, 0))
        return float(inside / total) if total else None


def by_horizon(scores: Scores, name: str, group: str = "all") -> dict[str, float | None]:
    """A mean error by horizon, as in the benchmark's document."""
    return {f"{h:.1f}": scores.errors.mean(f"{name}|{group}|{h}") for h in HORIZONS_S}


def event_f1(scores: Scores) -> float | None:
    """Over all kinds together."""
    total = sum(scores.events.values(), np.zeros(3, np.int64))
    return f1(*total.tolist())


def summary(scores: Scores) -> dict[str, Any]:
    """The figures of the document, by key."""
    asked = scores.scenarios - scores.unasked
    result: dict[str, Any] = {}
    for name in ("ade", "fde"):
        for group in ("all", "moved", "contacts", "contacts moved"):
            key = f"{name}_m" if group == "all" else f"{name}_{group.replace(' ', '_')}_m"
            result[key] = by_horizon(scores, name, group)
    result |= {
        "fde_from_start_m": by_horizon(scores, "way"),
        "fde_from_start_moved_m": by_horizon(scores, "way", "moved"),
        "rotation_deg": by_horizon(scores, "rotation"),
        "rotation_moved_deg": by_horizon(scores, "rotation", "moved"),
        "effect_f1": f1(*scores.effect.tolist()),
        "effect_f1_others": f1(*scores.effect_others.tolist()),
        "effect_counts": scores.effect.tolist(),
        "effect_error_m": scores.errors.mean("effect|all"),
        "effect_error_affected_m": scores.errors.mean("effect|affected"),
        "effect_error_others_m": scores.errors.mean("effect|others"),
        "events_f1": event_f1(scores),
        "events": {EventKind(k).name: v.tolist() for k, v in sorted(scores.events.items())},
        "objects": scores.errors.count("fde|all|1.0"),
        "objects_moved": scores.errors.count("fde|moved|1.0"),
        "objects_contacts": scores.errors.count("fde|contacts|1.0"),
        "questions": scores.scenarios,
        "unasked": scores.unasked,
        "ms_per_question": 1e3 * scores.seconds / asked if asked else None,
    }
    if scores.steps:
        result |= {
            "penetration_fraction": scores.deep_steps / scores.steps,
            "penetration_fraction_of_object_steps": scores.deep_object_steps / max(scores.object_steps, 1),
            "through_table": scores.through_table,
            "energy_created": scores.energy_created,
            "energy_checked": scores.energy_checked,
            "energy_worst_j": scores.energy_worst_j,
        }
    return result
