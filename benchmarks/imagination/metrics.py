"""The figures of merit of imagined futures, on plain arrays.

Index letters: K hypotheses, T times, M objects, S belief samples. ``valid`` marks where both the true and the imagined
object exist and are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

HORIZONS_S = (0.5, 1.0, 2.0)
"""Horizons [s] that displacement errors are given for."""
MOVED_M = 0.01
"""An object further than this from its start has moved; one further than this from the factual future is affected."""
GONE_M = 0.25
"""An object so far below the table's top has left it; its path on the floor is not scored."""
# Tolerances and level that the aims in docs/imagination_bench.md are stated for.
EVENT_TOLERANCE_S = 0.1
"""Difference in time [s] up to which an imagined event matches a true one. Larger matches more."""
PENETRATION_M = 0.005
"""Depth [m] from which one object counts as inside another. Larger counts fewer."""
COVERAGE = 0.9
"""Probability that a predictive region should hold the true position."""
MEASURED_M = 1e-3
"""Standard deviation [m] added to each axis of a predictive region: differences below a millimeter do not matter."""


# -- positions


def held_once_gone(positions: Array, top_m: float) -> Array:
    """Positions (..., T, M, 3) [m], constant for an object from where it gets ``GONE_M`` below the table's top."""
    gone = np.maximum.accumulate(positions[..., 2] < top_m - GONE_M, axis=-2)  # (..., T, M)
    first = gone.argmax(axis=-2)[..., None, :, None]  # (..., 1, M, 1)
    return np.where(gone[..., None], np.take_along_axis(positions, first, axis=-3), positions)


@dataclass
class Errors:
    """Sums of errors, which add up over worlds.

    Attributes:
        sums: (sum, count) by name.
    """

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, name: str, values: ArrayLike) -> None:
        """Add the values that are finite."""
        found = np.asarray(values, dtype=np.float64)
        found = found[np.isfinite(found)]
        total, count = self.sums.get(name, (0.0, 0))
        self.sums[name] = (total + float(found.sum()), count + found.size)

    def mean(self, name: str) -> float | None:
        """The mean; None where there is nothing."""
        total, count = self.sums.get(name, (0.0, 0))
        return total / count if count else None

    def count(self, name: str) -> int:
        """How many values."""
        return self.sums.get(name, (0.0, 0))[1]

    def merge(self, other: Errors) -> None:
        """Add the sums of others."""
        for name, (total, count) in other.sums.items():
            mine, had = self.sums.get(name, (0.0, 0))
            self.sums[name] = (mine + total, had + count)


def row_at(times: Array, time_s: float) -> int:
    """The row of the times (T,) nearest to one [s]."""
    return int(np.abs(times - time_s).argmin())


def displacement(errors: Array, times: Array, horizon_s: float) -> tuple[Array, Array]:
    """ADE and FDE (K, M) [m] at a horizon of errors (K, T, M) [m], NaN where not compared.

    ADE: mean over the times after 0 up to the horizon at which both exist; FDE: at the horizon.
    """
    last = row_at(times, horizon_s)
    part = errors[:, 1 : last + 1]
    known = np.isfinite(part)
    count = known.sum(axis=1)
    total = np.where(known, part, 0.0).sum(axis=1)
    ade = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return ade, errors[:, last]


def moved(positions: Array, present: Mask, times: Array, horizon_s: float) -> Mask:
    """(K, M) whether objects get further than ``MOVED_M`` from their first position, up to a horizon.

    Args:
        positions: (K, T, M, 3) [m]; present: (K, T, M).
    """
    last = row_at(times, horizon_s) + 1
    there = present[:, :last]
    first = there.argmax(axis=1)[:, None, :, None]
    start = np.take_along_axis(positions[:, :last], first, axis=1)
    far = np.linalg.norm(positions[:, :last] - start, axis=-1)
    return np.asarray((np.where(there, far, 0.0) > MOVED_M).any(axis=1))


# -- effects


def effects(positions: Array, present: Mask, last: int) -> tuple[Mask, Array, Mask]:
    """The effects of hypotheses 1 to K - 1 against hypothesis 0, the factual future.

    Args:
        positions: (K, T, M, 3) [m]; present: (K, T, M); last: row at which the effect vector is taken.

    Returns:
        affected (K-1, M): further than 1 cm apart at some time up to ``last`` at which both exist; vector (K-1, M, 3)
        [m] at ``last``; both (K-1, M): where both exist then.
    """
    difference = positions[1:, : last + 1] - positions[:1, : last + 1]
    both = present[1:, : last + 1] & present[:1, : last + 1]
    far = np.where(both, np.linalg.norm(difference, axis=-1), 0.0)
    return np.asarray((far > MOVED_M).any(axis=1)), difference[:, -1], both[:, -1]


def f1(hits: float, false: float, misses: float) -> float | None:
    """F1; None where there was nothing to find and nothing was found."""
    return 2.0 * hits / (2.0 * hits + false + misses) if hits + false + misses else None


# -- events

Occurrence = tuple[int, tuple[int, ...], float]
"""Kind, who, when [s]."""


def match_events(
    true: Sequence[Occurrence], said: Sequence[Occurrence], until_s: float, tolerance_s: float = EVENT_TOLERANCE_S
) -> dict[int, tuple[int, int, int]]:
    """By kind: hits, false alarms, misses. The same kind and participants within the tolerance are a match.

    Nearest pairs first, each event once. What lies beyond ``until_s`` is neither missed nor false, but may be matched.
    """
    pairs = sorted(
        (abs(t[2] - s[2]), i, j)
        for i, t in enumerate(true)
        for j, s in enumerate(said)
        if t[:2] == s[:2] and abs(t[2] - s[2]) <= tolerance_s + 1e-9
    )
    matched: set[int] = set()
    used: set[int] = set()
    counts: dict[int, list[int]] = {}
    for _, i, j in pairs:
        if i not in matched and j not in used:
            matched.add(i)
            used.add(j)
            if true[i][2] <= until_s:
                counts.setdefault(true[i][0], [0, 0, 0])[0] += 1
    for j, s in enumerate(said):
        if j not in used and s[2] <= until_s:
            counts.setdefault(s[0], [0, 0, 0])[1] += 1
    for i, t in enumerate(true):
        if i not in matched and t[2] <= until_s:
            counts.setdefault(t[0], [0, 0, 0])[2] += 1
    return {kind: (c[0], c[1], c[2]) for kind, c in counts.items()}


# -- calibration


def in_region(samples: Array, ground_truth: Array, level: float = COVERAGE, floor_m: float = MEASURED_M) -> Mask:
    """Whether the ground truth (..., 3) lies in the region that should hold it with probability ``level``.

    The region is the ellipsoid about the mean of the samples (..., S, 3) in which one more draw from the same normal
    distribution would be: by Hotelling, (S - d) S / (d (S - 1) (S + 1)) D^2 is F(d, S - d) distributed, D^2 the squared
    Mahalanobis distance by the sample covariance. ``floor_m`` [m] is added to the standard deviations: heights of
    objects at rest have no scatter.
    """
    count, d = samples.shape[-2:]
    mean = samples.mean(axis=-2)
    centered = samples - mean[..., None, :]
    covariance = np.einsum("...si,...sj->...ij", centered, centered) / (count - 1) + floor_m**2 * np.eye(d)
    off = ground_truth - mean
    squared = np.einsum("...i,...i->...", off, np.linalg.solve(covariance, off[..., None])[..., 0])
    scale = (count - d) * count / (d * (count - 1) * (count + 1))
    return np.asarray(scale * squared <= f_distribution.ppf(level, d, count - d))


def in_rank(samples: Array, ground_truth: Array, level: float = COVERAGE, floor_m: float = MEASURED_M) -> Mask:
    """The same without assuming a shape: whether the ground truth is among the samples (..., S, 3) by rank.

    Compared are the mean distance of the ground truth to the samples and that of each sample to the others. A point
    nearer than ``floor_m`` to all samples is inside.
    """
    count = samples.shape[-2]
    between = np.linalg.norm(samples[..., :, None, :] - samples[..., None, :, :], axis=-1).sum(axis=-1) / (count - 1)
    own = np.linalg.norm(samples - ground_truth[..., None, :], axis=-1).mean(axis=-1)
    below = (between < own[..., None]).sum(axis=-1)
    return np.asarray((below <= level * (count + 1) - 1.0 + 1e-9) | (own < floor_m))


# -- violations of physics


def crosses_table(positions: Array, present: Mask, center: Array, rotation: Array, extents: Array) -> Mask:
    """(M,) which objects' centers get from above a support's mid-plane to below it within its outline.

    Args:
        positions: (T, M, 3) [m]; present: (T, M); center: (3,), rotation: (3, 3), extents: (3,) of the support.
    """
    local = (positions - center) @ rotation
    inside = (np.abs(local[..., :2]) < 0.5 * extents[:2] - 0.01).all(axis=-1)
    above = np.maximum.accumulate((local[..., 2] > 0.0) & inside & present, axis=0)
    below = (local[..., 2] < 0.0) & (local[..., 2] > -0.5 * extents[2] - 0.05) & inside & present
    return np.asarray((below[1:] & above[:-1]).any(axis=0))


def energy_rise(energy: Array, window: int = 5) -> float:
    """The largest rise [J] of an energy (T,) [J] above what it was before.

    A bounce stores energy for some steps and gives it back; so the measure is the upper envelope, the maximum of the
    last ``window`` values.
    """
    if len(energy) < 2:
        return 0.0
    envelope = np.array([energy[max(0, t - window + 1) : t + 1].max() for t in range(len(energy))])
    return float(np.maximum(envelope - np.minimum.accumulate(envelope), 0.0).max())
