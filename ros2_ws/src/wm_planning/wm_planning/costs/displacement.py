"""Other objects that are shifted."""

from __future__ import annotations

import numpy as np

from wm_core.rollout import POSITION
from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array
from wm_planning.table import is_tall

FREE_M = 0.002
"""A shift that costs nothing: about what objects at rest move by in an imagined second."""


def displacement(pushes: ImaginedPushes) -> Array:
    """(K, S) for the largest shift of each other object, summed; tall ones, which may fall, weigh more."""
    c = pushes.config.costs
    cost = np.zeros_like(pushes.left)
    for i in pushes.others:
        own = pushes.states[:, :, :, i, POSITION]
        shifted = np.linalg.norm(own - own[:, :, :1], axis=-1).max(axis=-1)
        weight = c.moved_tall if is_tall(pushes.scene, i, pushes.config.tall_ratio) else c.moved_other
        cost += weight * np.clip(shifted - FREE_M, 0.0, None)
    return cost
