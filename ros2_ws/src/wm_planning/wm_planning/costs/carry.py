"""Carrying the paddle over the objects to where the push starts."""

from __future__ import annotations

import numpy as np

from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array


def carry(pushes: ImaginedPushes) -> Array:
    """(K,) for pushes that the paddle is carried to, in proportion to what is left."""
    c, table = pushes.config.costs, pushes.table
    return pushes.carried.astype(np.float64) * min(c.carry * table.left_now, c.carry_most_m)
