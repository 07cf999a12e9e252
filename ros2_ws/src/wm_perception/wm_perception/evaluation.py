"""How right a sequence of scene graphs is, against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from wm_core.scene_graph import SceneGraph

MATCH_DISTANCE_M = 0.06


@dataclass(frozen=True)
class PerceptionScore:
    """Counts and errors over a sequence.

    Attributes:
        objects_true: movable things that exist in the truth.
        found: of those, how many were matched in at least half of the frames that they could be seen in.
        missed: objects_true - found.
        phantom: perceived ids that matched no true thing in most of their frames.
        id_switches: times that a true thing changed its perceived id (motmetrics).
        position_error_median_m, position_error_p90_m: over all matches.
        velocity_error_median_m_s: over all matches of things that truly move (over 0.05 m/s); NaN if none do.
        frames: frames compared.
    """

    objects_true: int
    found: int
    missed: int
    phantom: int
    id_switches: int
    position_error_median_m: float
    position_error_p90_m: float
    velocity_error_median_m_s: float
    frames: int

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name."""
        return asdict(self)


def match(perceived: SceneGraph, truth: SceneGraph, gate_m: float = MATCH_DISTANCE_M) -> list[tuple[int, int, float]]:
    """Optimal pairs (row in perceived, row in truth, distance [m]) of movable objects nearer than a gate.

    The gate widens with the size of the thing: the centre of a large one is known less well.
    """
    p = np.flatnonzero(~perceived.is_static)
    t = np.flatnonzero(~truth.is_static)
    if not len(p) or not len(t):
        return []
    distance = np.linalg.norm(perceived.positions[p][:, None] - truth.positions[t][None], axis=-1)
    gates = np.maximum(gate_m, 0.3 * truth.extents[t].max(axis=1))[None]
    cost = np.where(distance < gates, distance, 1e3)
    return [
        (int(p[i]), int(t[j]), float(distance[i, j]))
        for i, j in zip(*linear_sum_assignment(cost), strict=True)
        if cost[i, j] < 1e3
    ]


def score_sequence(
    pairs: Sequence[tuple[SceneGraph, SceneGraph]], visible: Sequence[set[int]] | None = None
) -> PerceptionScore:
    """Score (perceived, truth) pairs of equal stamps, in time order.

    Args:
        visible: for each pair the true ids that can be seen; None: all of them.

    Raises:
        ValueError: no pairs.
    """
    import motmetrics

    if not pairs:
        raise ValueError("score: got no pairs of scene graphs, expected at least one")
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    true_frames: dict[int, int] = {}
    true_matched: dict[int, int] = {}
    seen_frames: dict[int, int] = {}
    seen_matched: dict[int, int] = {}
    errors: list[float] = []
    velocity_errors: list[float] = []
    for n, (perceived, truth) in enumerate(pairs):
        matches = match(perceived, truth)
        can_see = set(truth.ids[~truth.is_static].tolist()) if visible is None else visible[n]
        for i in truth.ids[~truth.is_static].tolist():
            true_frames[i] = true_frames.get(i, 0) + (i in can_see)
        for i in perceived.ids[~perceived.is_static].tolist():
            seen_frames[i] = seen_frames.get(i, 0) + 1
        for p, t, distance in matches:
            true_id, seen_id = int(truth.ids[t]), int(perceived.ids[p])
            true_matched[true_id] = true_matched.get(true_id, 0) + (true_id in can_see)
            seen_matched[seen_id] = seen_matched.get(seen_id, 0) + 1
            if true_id not in can_see:
                continue
            errors.append(distance)
            if np.linalg.norm(truth.linear_velocities[t]) > 0.05:
                velocity_errors.append(
                    float(np.linalg.norm(perceived.linear_velocities[p] - truth.linear_velocities[t]))
                )
        cost = np.full((len(true_frames), len(perceived)), np.nan)
        order = list(true_frames)
        for p, t, distance in matches:
            cost[order.index(int(truth.ids[t])), p] = distance
        accumulator.update(order, perceived.ids.tolist(), cost)
    switches = motmetrics.metrics.create().compute(accumulator, metrics=["num_switches"])
    found = sum(1 for i, n in true_frames.items() if n and true_matched.get(i, 0) >= 0.5 * n)
    existing = sum(1 for n in true_frames.values() if n)
    phantom = sum(1 for i, n in seen_frames.items() if seen_matched.get(i, 0) < 0.5 * n)
    return PerceptionScore(
        objects_true=existing,
        found=found,
        missed=existing - found,
        phantom=phantom,
        id_switches=int(switches["num_switches"].iloc[0]),
        position_error_median_m=float(np.median(errors)) if errors else float("nan"),
        position_error_p90_m=float(np.percentile(errors, 90)) if errors else float("nan"),
        velocity_error_median_m_s=float(np.median(velocity_errors)) if velocity_errors else float("nan"),
        frames=len(pairs),
    )
