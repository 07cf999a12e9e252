"""Outlines of objects from above: convex polygons (P, 2) in their order around [m]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Array = NDArray[np.float64]

_CLEARANCE_M = 0.002
"""Least distance of two outlines: overlapping objects would be thrown apart."""


def overlap(first: Array, second: Array) -> bool:
    """Whether two convex outlines come closer than a small clearance (separating axes)."""
    for outline in (first, second):
        edge = np.roll(outline, -1, axis=0) - outline
        normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.maximum(np.linalg.norm(edge, axis=1), 1e-9)[:, None]
        a, b = first @ normal.T, second @ normal.T
        if np.maximum(b.min(0) - a.max(0), a.min(0) - b.max(0)).max() > _CLEARANCE_M:
            return False
    return True


def inside(base: Array, outline: Array) -> bool:
    """Whether an outline is within another, up to 1 cm."""
    hull = ConvexHull(base)
    return bool((outline @ hull.equations[:, :2].T + hull.equations[:, 2] < 0.01).all())
