"""Segments that are slices of one solid of revolution: the body and the neck of a bottle."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wm_perception.shapes.revolution import profile_of
from wm_perception.types import Array, Cloud

_POINTS = 140
"""Points taken of each segment. Larger is slower."""
_LEAST_POINTS = 25
"""Points of a segment from which it is compared."""
_BORDER_PX = 5
"""Pixels on either side of the border whose colors are compared. Larger looks at labels and caps, too."""
_BORDER_COLOR, _BORDER_SHADE = 12.0, 0.25
"""Difference of a* + b* (0..255 each), plus this part of the difference of L*, up to which the border has one color."""
_ASIDE_M = 0.02
"""Distance [m] of the middles of the two segments, seen from above, beyond which they are not compared."""
_FAR_M, _ABOVE_M = 0.08, 0.02
"""Distance [m] aside from which, and in height up to which, the middles are of no neck and its body: a quick check."""
_NARROWER = 0.75
"""Width of the upper over that of the lower one up to which it is a neck. Larger takes cans on jars for one thing."""
_NARROWER_PX = 0.9
"""The same in the image, where masks have frayed edges."""
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


class RevolutionSlices:
    """Which segments of a frame are parts of one upright solid of revolution.

    Args:
        cloud: of the frame; labels: (h, w) of its pixels, 0 = background, 1..L.
    """

    def __init__(self, cloud: Cloud, labels: NDArray[np.int32], count: int) -> None:
        self._cloud, self._labels = cloud, labels
        self._boxes = ndimage.find_objects(labels, max_label=count)
        self._points: dict[int, Array] = {}
        self._middles: dict[int, Array] = {}

    def are_one(self, a: int, b: int) -> bool:
        """Whether two labels are.

        They have one axis to within a few millimeters, the upper one is narrower, and the color goes on across the
        border: what stands on another thing by chance has not all of this.
        """
        if not self._over_one_another(a, b):
            return False
        for label in (a, b):
            if label not in self._points:
                self._points[label] = self._sample(label)
                few = len(self._points[label]) < _LEAST_POINTS
                self._middles[label] = np.full(3, np.nan) if few else np.median(self._points[label], axis=0)
        if self._middles[a][2] < self._middles[b][2]:
            a, b = b, a
        apart = self._middles[a] - self._middles[b]
        if not (abs(apart[0]) + abs(apart[1]) < _FAR_M and apart[2] > _ABOVE_M):
            return False
        upper, lower = self._points[a], self._points[b]
        middles = [0.5 * (p[:, :2].min(axis=0) + p[:, :2].max(axis=0)) for p in (upper, lower)]
        gap = float(np.percentile(upper[:, 2], 5.0) - np.percentile(lower[:, 2], 95.0))
        wide = [float(np.ptp(np.percentile(p[:, :2], [4.0, 96.0], axis=0), axis=0).max()) for p in (upper, lower)]
        if np.linalg.norm(middles[0] - middles[1]) > _ASIDE_M + 0.5 * wide[1] or abs(gap) > _TOUCH_M:
            return False
        return wide[0] < _NARROWER * wide[1] and self._one_color(a, b) and _one_axis(upper, lower, middles[1])

    def _over_one_another(self, a: int, b: int) -> bool:
        """Whether one is narrower than the other in the image and over or in its columns: the quickest check."""
        one, other = self._boxes[a - 1], self._boxes[b - 1]
        if one is None or other is None:
            return False
        narrow, wide = sorted((one[1], other[1]), key=lambda s: int(s.stop - s.start))
        width = int(wide.stop - wide.start)
        aside = abs(0.5 * (narrow.start + narrow.stop) - 0.5 * (wide.start + wide.stop))
        return narrow.stop - narrow.start < _NARROWER_PX * width and aside < width

    def _sample(self, label: int) -> Array:
        """(P, 3) some of a segment's points [m], without those far behind."""
        box = self._boxes[label - 1]
        if box is None:
            return np.zeros((0, 3))
        rows, columns = np.nonzero(self._labels[box] == label)
        some = slice(None, None, max(1, len(rows) // _POINTS))
        rows, columns = rows[some] + box[0].start, columns[some] + box[1].start
        depth = self._cloud.depth[rows, columns]
        if not np.isfinite(depth).any():
            return np.zeros((0, 3))
        with np.errstate(invalid="ignore"):
            near = np.abs(depth - np.nanmedian(depth)) < _NEAR_M
        return self._cloud.points[rows, columns][near].astype(np.float64)

    def _one_color(self, a: int, b: int) -> bool:
        """Whether the pixels on both sides of the border have one color."""
        labels, box = self._labels, self._boxes[a - 1]
        assert box is not None
        h, w = labels.shape
        window = tuple(
            slice(max(s.start - _BORDER_PX, 0), min(s.stop + _BORDER_PX, n)) for s, n in zip(box, (h, w), strict=True)
        )
        own = [(labels[window] == k).astype(np.uint8) for k in (a, b)]
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _BORDER_PX + 1, 2 * _BORDER_PX + 1))
        sides = [own[k].astype(bool) & (cv2.dilate(own[1 - k], disc) > 0) for k in (0, 1)]
        if min(int(side.sum()) for side in sides) < 3:
            return False
        first, second = (np.median(self._cloud.lab[window][side], axis=0) for side in sides)
        apart = np.abs(first - second)
        return bool(apart[1] + apart[2] + _BORDER_SHADE * apart[0] < _BORDER_COLOR)


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
