"""Pushes whose speed and turn change much from knot to knot."""

from __future__ import annotations

import numpy as np

from wm_planning.config import KNOTS
from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array

WEIGHT_M = 5e-4
"""Cost of a change by the greatest speed or turn [m]; small: it decides between pushes of the same effect."""


def smoothness(pushes: ImaginedPushes) -> Array:
    """(K,) for the changes of speed and turn between knots."""
    config, controls = pushes.config, pushes.controls
    changes = np.abs(np.diff(controls[:, :KNOTS], axis=1)).sum(axis=1) / config.max_speed_m_s
    changes += np.abs(np.diff(controls[:, KNOTS : 2 * KNOTS], axis=1)).sum(axis=1) / config.max_turn_rad_s
    return WEIGHT_M * changes
