"""Segments that are slices of one solid of revolution: the body and the neck of a bottle."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.shapes.revolution import profile_of
from wm_perception.types import Array, Cloud

_POINTS = 140
"""Points taken of each segment. Larger is slower."""
_BORDER_PX = 5
"""Pixels on either side of the border whose colors are compared. Larger looks at labels and caps, too."""
_BORDER_COLOR, _BORDER_SHADE = 12.0, 0.25
"""Difference of a* + b* (0..255 each), plus this part of the difference of L*, up to which the border has one color."""
_ASIDE_M = 0.02
"""Distance [m] of the middles of the two segments, seen from above, beyond which they are not compared."""
_NARROWER = 0.75
"""Width of the upper over that of the lower one up to which it is a neck. Larger takes cans on jars for one thing."""
_ONE_AXIS_M = 0.004
"""Distance [m] between the axis of the lower part alone and that of both. Larger joins what merely stands on the
other's middle."""
_ON_WALL, _WALL_M = 0.75, 0.004
"""Part of the points of each that must lie this near [m] to the common surface."""
_LEVEL_M = 0.006
"""Distance [m] from the top of a part up to which points are of its level face."""
_NEAR_M = 0.06
"""Depth [m] from a segment's median beyond which its pixels are of the background."""
_TOUCH_M = 0.02
"""Gap in height [m] between the two up to which they are one piece."""


def are_one_revolution(cloud: Cloud, labels: NDArray[np.int32], a: int, b: int) -> bool:
    """Whether the segments ``a`` and ``b`` (labels of the cloud's pixels) are parts of one upright solid of revolution.

    They have one axis to within a few millimeters, the upper one is narrower, and the color goes on across the border:
    what stands on another thing by chance has not all of this.
    """
    one, other = _points(cloud, labels == a), _points(cloud, labels == b)
    if one is None or other is None:
        return False
    if float(np.median(one[:, 2])) < float(np.median(other[:, 2])):
        one, other, a, b = other, one, b, a
    middles = [0.5 * (p[:, :2].min(axis=0) + p[:, :2].max(axis=0)) for p in (one, other)]
    low, high = float(np.percentile(one[:, 2], 5.0)), float(np.percentile(other[:, 2], 95.0))
    wide = [float(np.ptp(np.percentile(p[:, 0:2], [4.0, 96.0], axis=0), axis=0).max()) for p in (one, other)]
    if np.linalg.norm(middles[0] - middles[1]) > _ASIDE_M + 0.5 * wide[1] or abs(low - high) > _TOUCH_M:
        return False
    return wide[0] < _NARROWER * wide[1] and _one_color(cloud, labels, a, b) and _one_axis(one, other, middles[1])


def _points(cloud: Cloud, mask: NDArray[np.bool_]) -> Array | None:
    """(P, 3) some of a segment's points [m], without those far behind; None where they are few."""
    rows, columns = np.nonzero(mask)
    some = slice(None, None, max(1, len(rows) // _POINTS))
    rows, columns = rows[some], columns[some]
    depth = cloud.depth[rows, columns]
    if not len(depth) or not np.isfinite(depth).any():
        return None
    with np.errstate(invalid="ignore"):
        near = np.abs(depth - np.nanmedian(depth)) < _NEAR_M
    return cloud.points[rows, columns][near].astype(np.float64) if near.sum() >= 25 else None


def _one_axis(upper: Array, lower: Array, guess: Array) -> bool:
    base, top = float(np.percentile(lower[:, 2], 1.0)), float(np.percentile(upper[:, 2], 99.0))
    both = profile_of(np.concatenate([lower, upper]), base, top, guess)
    alone = profile_of(lower, base, float(np.percentile(lower[:, 2], 99.0)), guess)
    if both is None or alone is None or np.linalg.norm(both.center - alone.center) > _ONE_AXIS_M:
        return False
    on_wall = np.abs(both.ring - both.wall) < _WALL_M
    # Level faces are of it, too: the top of the cap, the shoulder.
    faces = [np.abs(p[:, 2] - np.percentile(p[:, 2], 97.0)) < _LEVEL_M for p in (lower, upper)]
    on_wall |= np.concatenate(faces) & (both.ring < both.wall)
    return bool(on_wall[: len(lower)].mean() > _ON_WALL and on_wall[len(lower) :].mean() > _ON_WALL)


def _one_color(cloud: Cloud, labels: NDArray[np.int32], a: int, b: int) -> bool:
    """Whether the pixels on both sides of the border have one color."""
    rows, columns = np.nonzero(labels == a)
    h, w = labels.shape
    window = np.s_[
        max(rows.min() - _BORDER_PX, 0) : min(rows.max() + _BORDER_PX + 1, h),
        max(columns.min() - _BORDER_PX, 0) : min(columns.max() + _BORDER_PX + 1, w),
    ]
    own = [(labels[window] == k).astype(np.uint8) for k in (a, b)]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _BORDER_PX + 1, 2 * _BORDER_PX + 1))
    sides = [own[k].astype(bool) & (cv2.dilate(own[1 - k], disc) > 0) for k in (0, 1)]
    if min(int(side.sum()) for side in sides) < 3:
        return False
    first, second = (np.median(cloud.lab[window][side], axis=0) for side in sides)
    apart = np.abs(first - second)
    return bool(apart[1] + apart[2] + _BORDER_SHADE * apart[0] < _BORDER_COLOR)
