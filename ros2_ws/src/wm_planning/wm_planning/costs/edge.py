"""Objects that come close to the table's edge."""

from __future__ import annotations

import numpy as np

from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array


def edge(pushes: ImaginedPushes) -> Array:
    """(K, S) for how much closer to the edge than ``edge_m`` objects come, summed over them."""
    c, table = pushes.config.costs, pushes.table
    places = pushes.states[:, :, :, pushes.movable, :2]
    apart = np.minimum(places - table.low, table.high - places).min(axis=(2, 4))
    return c.edge * np.clip(c.edge_m - apart, 0.0, None).sum(axis=-1)
