"""The paddle behind the target, in the direction of the target's way."""

from __future__ import annotations

import numpy as np

from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array


def alignment(pushes: ImaginedPushes) -> Array:
    """(K, S) for the angle between the target's way and the direction from the paddle to the target, at the end."""
    place = pushes.place[:, :, -1]
    toward = place - pushes.paths.positions[:, -1, None, :2]
    toward = toward / np.maximum(np.linalg.norm(toward, axis=-1, keepdims=True), 1e-9)
    cosine = (toward * pushes.table.way.heading(place)).sum(axis=-1)
    return pushes.config.costs.behind * (1.0 - cosine) * np.minimum(pushes.table.way(place), 0.1)
