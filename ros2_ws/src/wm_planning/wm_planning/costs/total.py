"""The sum of the costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_planning.costs.alignment import alignment
from wm_planning.costs.carry import carry
from wm_planning.costs.clearance import clearance
from wm_planning.costs.displacement import displacement
from wm_planning.costs.edge import edge
from wm_planning.costs.imagined import Cost, ImaginedPushes
from wm_planning.costs.smoothness import smoothness
from wm_planning.costs.speed import speed
from wm_planning.costs.tilt import tilt
from wm_planning.outlines import Array


def way_left(pushes: ImaginedPushes) -> Array:
    """(K, S) the target's way to the goal at the end, and the turn that it lacks."""
    return pushes.left


PUSH_COSTS: tuple[Cost, ...] = (
    way_left, alignment, tilt, edge, speed, displacement, clearance, carry, smoothness,
)  # fmt: skip
"""The costs of a push unless the planner is given others."""


def total_costs(pushes: ImaginedPushes, costs: Sequence[Cost] = PUSH_COSTS) -> Array:
    """(K,) [m], the mean over samples; infinite where nothing valid was computed."""
    found = [cost(pushes) for cost in costs]
    total = np.sum([c if c.ndim == 1 else c.mean(axis=1) for c in found], axis=0)
    return np.where(pushes.futures.done & np.isfinite(total), total, np.inf)
