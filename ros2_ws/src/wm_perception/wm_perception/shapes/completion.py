"""Convex hulls of objects of no family, completed by what the camera did not see: the foot and the far side."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import ConvexHull, QhullError

from wm_core.rotations import about_z, matrix
from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import MIN_SIZE_M, Array, ShapeFit

_TOP_PART, _TOP_M = 0.12, 0.008
"""Part of the height, and distance [m], below the top within which points are of the ridge: of what is flat all are."""
_RIDGE = 2.5
"""Length over width of the top from which it is a ridge, across which the object is symmetric; else along the view."""
_FACING = 0.35
"""Cosine between the view and the normal of the plane of symmetry from which the far side is hidden."""
_SHADOW_M = 0.005
"""What may reach beyond the shadow of the ridge [m]: an edge of pixels. Larger completes what would be seen."""
_BEYOND_RIDGE = 0.5
"""Depth seen beyond the ridge, over that before it, from which the far side is seen. Larger completes more."""


def completed_hull(points: Array, base: float, eye: Array | None) -> ShapeFit:
    """The convex hull of points (P, 3) and their foot on the base, with a far side that mirrors the near one.

    Of a wedge, a roof or a pyramid the camera sees the near slope up to the ridge. What lies behind the ridge is
    assumed to be as what lies before it: no solid that is at hand is nearer to the truth on average.

    Args:
        base: height of what it stands on [m]; eye: (3,) camera position [m], None: nothing is mirrored.
    """
    if eye is not None:
        points = np.concatenate([points, _mirrored(points, base, eye)])
    corners = np.concatenate([points, np.column_stack([points[:, :2], np.full(len(points), base)])])
    _, _, angle = cv2.minAreaRect(np.ascontiguousarray(points[:, :2], dtype=np.float32))
    quaternion = about_z(float(np.radians(angle)))
    turn = matrix(quaternion)
    local = corners @ turn
    low, high = local.min(axis=0), local.max(axis=0)
    middle, extents = 0.5 * (low + high), np.maximum(high - low, MIN_SIZE_M)
    position = turn @ middle
    try:
        hull = local[ConvexHull(local).vertices]
    except QhullError:
        return ShapeFit(Shape.BOX, position, quaternion, extents, 0.0)
    return ShapeFit(Shape.CONVEX, position, quaternion, extents, 0.0, hull=hull - middle)


def _mirrored(points: Array, base: float, eye: Array) -> Array:
    """(Q, 3) the near side of points behind the ridge; none where the far side is seen, or lies aside."""
    height = float(np.percentile(points[:, 2], 98.0)) - base
    view = points[:, :2].mean(axis=0) - eye[:2]
    view /= max(float(np.linalg.norm(view)), 1e-9)
    top = points[points[:, 2] > base + height - max(_TOP_PART * height, _TOP_M)][:, :2]
    if len(top) < 5 or height < MIN_SIZE_M:
        return np.zeros((0, 3))
    spread, axes = np.linalg.eigh(np.cov(top.T) + 1e-10 * np.eye(2))
    normal = axes[:, 0] if spread[1] > _RIDGE**2 * spread[0] else view
    facing = float(normal @ view)
    if abs(facing) < _FACING:
        return np.zeros((0, 3))
    normal = normal * np.sign(facing)
    along = points[:, :2] @ normal
    low, high = np.percentile(along, [2.0, 98.0])
    ridge = float(np.mean(np.percentile(top @ normal, [5.0, 95.0])))
    if high - ridge > _BEYOND_RIDGE * (ridge - low):
        return np.zeros((0, 3))
    near = (along < ridge) & (along > low - 0.005)
    # Only what the ridge hides can be there: beyond its shadow on the base the camera would have seen it.
    ahead = float(np.linalg.norm(top.mean(axis=0) - eye[:2]))
    over = max(float(eye[2]) - base - height, 1e-3)
    near &= 2.0 * ridge - along < ridge + height * ahead / over + _SHADOW_M
    copies = points[near].copy()
    copies[:, :2] += 2.0 * (ridge - along[near])[:, None] * normal
    return copies
