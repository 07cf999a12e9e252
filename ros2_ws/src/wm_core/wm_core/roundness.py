"""Whether points are of a solid of revolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

ROUND_SHARE = 0.12
"""Part of its radius by which a hull may reach farther to one side of its axis than to another and still counts as
round. The corners of a prism of eight sides do by 0.08, of six sides by 0.13. Larger, and stones roll on rims that they
do not have and sink; smaller, and cans of noisy points stand on corners."""

_AZIMUTH = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
_AROUND = np.stack([np.cos(_AZIMUTH), np.sin(_AZIMUTH)], axis=1)
_SLANTS = np.radians([-60.0, -30.0, 0.0, 30.0, 60.0])


def is_of_revolution(points: ArrayLike, radius: float) -> bool:
    """Whether points (P, 3) about their middle [m] reach equally far to all sides of the z axis, level and at a slant.

    Args:
        radius: of the solid [m], which the difference is measured against.
    """
    p = np.asarray(points, dtype=np.float64)
    for slant in _SLANTS:
        directions = np.column_stack([np.cos(slant) * _AROUND, np.full(len(_AROUND), np.sin(slant))])
        if np.ptp((p @ directions.T).max(axis=0)) > ROUND_SHARE * radius:
            return False
    return True
