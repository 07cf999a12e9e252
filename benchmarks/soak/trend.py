"""Rate of growth: a straight line through samples that are not independent of one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

BLOCKS = 20
"""Samples are averaged over this many blocks of time before the fit. Neighboring samples of a process' memory are
nearly equal, so that a fit of all of them would give too small an interval; means of blocks are nearly independent."""
CONFIDENCE = 0.95
"""Level of the interval of the growth."""


@dataclass(frozen=True)
class Trend:
    """Growth, and its 95 % confidence interval; both NaN with fewer than 3 blocks.

    Attributes:
        per_hour: growth in the unit of the values per hour; margin: half the width of the interval.
    """

    per_hour: float
    margin: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.per_hour - self.margin

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.per_hour + self.margin

    def verdict(self, limit_per_hour: float) -> str:
        """``grows``: surely faster than the limit; ``steady``: surely slower; ``undecided``: the run was too short."""
        if self.low > limit_per_hour:
            return "grows"
        return "steady" if self.high < limit_per_hour else "undecided"


def fit(times_s: ArrayLike, values: ArrayLike, blocks: int = BLOCKS) -> Trend:
    """Least squares through the means of blocks, with Student's interval of the slope.

    Args:
        times_s: (N,) ascending [s]; values: (N,).
    """
    t, v = np.asarray(times_s, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if t.ndim != 1 or t.shape != v.shape:
        raise ValueError(f"times and values: got shapes {t.shape} and {v.shape}, expected two equal (N,)")
    parts = [p for p in np.array_split(np.arange(len(t)), blocks) if len(p)]
    if len(parts) < 3:
        return Trend(float("nan"), float("nan"))
    hours = np.array([t[p].mean() for p in parts]) / 3600.0
    line = stats.linregress(hours, np.array([v[p].mean() for p in parts]))
    factor = stats.t.ppf(0.5 + 0.5 * CONFIDENCE, len(parts) - 2)
    return Trend(float(line.slope), float(factor * line.stderr))
