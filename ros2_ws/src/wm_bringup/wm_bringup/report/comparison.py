"""Imagined futures against true ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import POSITION, Rollout
from wm_core.scene_graph import SceneGraph
from wm_perception.evaluation import match

MOVED_M = 0.01
"""An object moves if the ground truth puts it farther than this from its start: well above what perception errs by."""


@dataclass(frozen=True)
class ObjectErrors:
    """Distance of one imagined object from the true one.

    Attributes:
        object_id, true_id: of the perceived object and of the true one that it was matched to.
        moved: whether it moves by more than ``MOVED_M`` in the ground truth.
        error_m: by backend name (T,) distances [m]; NaN where it is absent from either future.
    """

    object_id: int
    true_id: int
    moved: bool
    error_m: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class HypothesisErrors:
    """Errors of one future: of all matched movable objects, T times.

    Attributes:
        name: of the hypothesis.
        times: (T,) [s].
        contacts: whether in the ground truth two movable bodies come to touch.
        objects: by object.
    """

    name: str
    times: NDArray[np.float64]
    contacts: bool
    objects: tuple[ObjectErrors, ...] = field(default=())

    def mean_error(self, backend: str, moved_only: bool = False) -> NDArray[np.float64]:
        """(T,) mean over the objects [m]; NaN where there is none."""
        rows = [o.error_m[backend] for o in self.objects if o.moved or not moved_only]
        if not rows:
            return np.full(len(self.times), np.nan)
        errors = np.stack(rows)
        known = np.isfinite(errors)
        count = known.sum(axis=0)
        total = np.where(known, errors, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def average(self, backend: str, moved_only: bool = False) -> float:
        """ADE [m]: mean over objects and times; NaN: nothing to compare."""
        rows = [o.error_m[backend] for o in self.objects if o.moved or not moved_only]
        errors = np.concatenate(rows) if rows else np.zeros(0)
        errors = errors[np.isfinite(errors)]
        return float(errors.mean()) if len(errors) else float("nan")

    def final(self, backend: str, moved_only: bool = False) -> float:
        """FDE [m]: mean over objects at the last time; NaN: nothing to compare."""
        return float(self.mean_error(backend, moved_only)[-1])


def match_ids(perceived: SceneGraph, ground_truth: SceneGraph) -> dict[int, int]:
    """Perceived id -> true id of movable objects, by nearest position."""
    return {int(perceived.ids[p]): int(ground_truth.ids[t]) for p, t, _ in match(perceived, ground_truth)}


def compare(
    name: str,
    rollouts: dict[str, tuple[Rollout, int]],
    true_ids: dict[int, int],
    true_object_ids: NDArray[np.int64],
    true_states: NDArray[np.floating],
    true_present: NDArray[np.bool_],
    contacts: bool,
) -> HypothesisErrors:
    """Errors of one hypothesis; NaN of a backend whose future is not valid, or was not computed.

    Args:
        rollouts: by backend name a rollout and the index of the hypothesis in it; all with the same times.
        true_ids: perceived id -> true id.
        true_object_ids: (M,); true_states: (T, M, 13); true_present: (T, M).
    """
    times = next(iter(rollouts.values()))[0].times
    column = {int(i): m for m, i in enumerate(true_object_ids)}
    objects = []
    for object_id, true_id in sorted(true_ids.items()):
        m = column.get(true_id)
        if m is None or not true_present[:, m].any():
            continue
        there = true_present[:, m]
        true_path = np.where(there[:, None], true_states[:, m, POSITION], np.nan)
        start = true_path[np.flatnonzero(there)[0]]
        moved = bool(np.nanmax(np.linalg.norm(true_path - start, axis=1)) > MOVED_M)
        errors: dict[str, NDArray[np.float64]] = {}
        for backend, (rollout, k) in rollouts.items():
            found = np.flatnonzero(rollout.object_ids == object_id)
            if not len(found) or not rollout.usable[k]:
                errors[backend] = np.full(len(times), np.nan)
                continue
            path = rollout.states[k, :, :, found[0], POSITION].mean(axis=0).astype(np.float64)
            both = rollout.present[k, :, found[0]] & there
            errors[backend] = np.where(both, np.linalg.norm(path - true_path, axis=1), np.nan)
        if any(np.isfinite(e).any() for e in errors.values()):
            objects.append(ObjectErrors(object_id, true_id, moved, errors))
    return HypothesisErrors(name, np.asarray(times), contacts, tuple(objects))


def largest_difference(a: SceneGraph, b: SceneGraph) -> float:
    """Largest distance [m] between objects of the same id in two graphs; inf where the ids differ."""
    if a.ids.tolist() != b.ids.tolist():
        return float("inf")
    return float(np.abs(a.positions - b.positions).max(initial=0.0))
