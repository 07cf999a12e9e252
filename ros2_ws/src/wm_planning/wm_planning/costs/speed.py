"""Objects that still move at the end."""

from __future__ import annotations

import numpy as np

from wm_core.rollout import LINEAR_VELOCITY
from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array


def speed(pushes: ImaginedPushes) -> Array:
    """(K, S) for the speeds of all objects at the end, summed."""
    velocities = pushes.states[:, :, -1, pushes.movable, LINEAR_VELOCITY]
    return pushes.config.costs.speed * np.linalg.norm(velocities, axis=-1).sum(axis=-1)
