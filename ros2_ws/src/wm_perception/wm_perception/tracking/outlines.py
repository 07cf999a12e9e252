"""The outline of a segment: where the object ends, where it goes on unseen, and what is seen past it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

_NEARER_M = 0.02
"""Depth [m] by which what is beside a segment must be nearer to hide a part of it. Larger misses low things in front,
smaller takes the front of a support's slope for one."""
_STEP_M = 0.03
"""Step in depth [m] within a mask from which its nearer side may be the depth of what is before it. Larger keeps more
leaked points, smaller drops edges of steep surfaces."""
_LEAKED = 0.35
"""How near to the depth of what is in front a leaked pixel is, as a part of the way to the mask's own depth. Larger
drops more of what is between."""
_BESIDE_PX = 2
"""Pixels from a hidden outline up to which points count as cut. Larger finds cut ends of coarse clouds."""
_RINGS_PX = (2, 5, 11)
"""Distances [pixels] from the mask at which other surfaces are sampled that are seen past the object. The first one
allows for masks that are a pixel or two too small; larger ones see past what is narrow and hides a part."""
_PAST_POINTS = 48
"""Of these samples at most. More bound unseen sides more closely, for more time in fits."""
FREE, CUT = np.uint8(1), np.uint8(2)
"""Points beside an outline that is the object's own, and beside one beyond which it goes on unseen."""
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (5, 5))
_SQUARE = np.ones((5, 5), np.uint8)


@dataclass(frozen=True)
class Outline:
    """What surrounds a mask.

    Attributes:
        leaked: (h, w) of its box: pixels of the mask with the depth of what hides the rest of it.
        rim: (h, w) of its box: ``CUT`` beside an outline beyond which the object goes on unseen, ``FREE`` beside one
            that is its own, else 0.
        hidden_share: part 0..1 of the outline along which something nearer covers what may be more of it; cut_share:
            the same, and what the image's edge cuts off.
        around: (H, W) depth [m] of a window about the mask; mask: (H, W) the mask in it; origin: row and column of the
            window in the image.
    """

    leaked: NDArray[np.bool_]
    rim: NDArray[np.uint8]
    hidden_share: float
    cut_share: float
    around: NDArray[np.float32]
    mask: NDArray[np.uint8]
    origin: tuple[int, int]

    @cached_property
    def past(self) -> NDArray[np.int64]:
        """(S, 2) rows and columns in the image of surfaces seen past the mask; looked for when they are asked for."""
        return _past(self.around, np.isfinite(self.around), self.mask) + np.array(self.origin)


def outline_of(
    depth: NDArray[np.float32],
    labels: NDArray[np.int32],
    label: int,
    box: tuple[slice, slice],
    edge_pixels: int,
    ground: NDArray[np.bool_],
    nearest: NDArray[np.float32] | None = None,
) -> Outline:
    """The outline of a label in its bounding box.

    Args:
        depth: (h, w) [m], NaN where unknown. edge_pixels: a mask this near to the image's edge is cut off by it.
        ground: (h, w) pixels of the surface that the object stands on: before it, that is nearer and hides nothing.
        nearest: (h, w) [m], depth with what hides objects and is none, see ``Cloud``; None: there is no such thing.
    """
    h, w = labels.shape
    reach = _RINGS_PX[-1] + 1
    low = [max(s.start - reach, 0) for s in box]
    window = tuple(slice(a, min(s.stop + reach, n)) for a, s, n in zip(low, box, (h, w), strict=True))
    inner = tuple(slice(s.start - a, s.stop - a) for a, s in zip(low, box, strict=True))
    mask = (labels[window] == label).astype(np.uint8)
    around = depth[window]
    nearest = around if nearest is None else nearest[window]
    known = np.isfinite(nearest)
    far = cv2.dilate(np.where((mask > 0) & known, nearest, np.float32(0.0)), _SQUARE)
    ring = (cv2.dilate(mask, _CROSS) > 0) & (mask == 0)
    with np.errstate(invalid="ignore"):
        hiding = ring & (nearest < far - _NEARER_M) & ~ground[window]
    count = max(int(ring.sum()), 1)
    near = cv2.erode(np.where((mask == 0) & known, nearest, np.float32(1e3)), _SQUARE)
    with np.errstate(invalid="ignore"):
        leaked = (mask > 0) & (far - around > _STEP_M) & (np.abs(around - near) < _LEAKED * (far - near))
    beside = cv2.dilate(hiding.astype(np.uint8), np.ones((2 * _BESIDE_PX + 1,) * 2, np.uint8)) > 0
    rim = np.where((mask > 0) & (cv2.erode(mask, _CROSS, borderValue=1) == 0), FREE, np.uint8(0))
    rim[beside & (mask > 0)] = CUT
    edge = 0
    if min(box[0].start, box[1].start, h - box[0].stop, w - box[1].stop) < edge_pixels:
        rows = np.arange(window[0].start, window[0].stop)[:, None]
        columns = np.arange(window[1].start, window[1].stop)[None]
        margin = np.minimum(np.minimum(rows, h - 1 - rows), np.minimum(columns, w - 1 - columns))
        edge = int(((mask > 0) & (margin == margin[mask > 0].min())).sum())
        rim[(mask > 0) & (margin < edge_pixels + _BESIDE_PX)] = CUT
    return Outline(
        leaked[inner],
        rim[inner],
        float(hiding.sum()) / count,
        # The ring is about two pixels wide.
        min((float(hiding.sum()) + 2.0 * edge) / (count + 2.0 * edge), 1.0),
        around,
        mask,
        (low[0], low[1]),
    )


def _past(around: NDArray[np.float32], known: NDArray[np.bool_], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(S, 2) pixels of the window around a mask that show something behind the front of the object.

    They are outside of the mask's convex hull: what is seen through a handle is within the object's outline.
    """
    rows, columns = np.nonzero(mask)
    hull = cv2.convexHull(np.column_stack([columns, rows]).astype(np.int32))
    filled = cv2.fillConvexPoly(mask.copy(), hull, 1)
    away = cv2.distanceTransform(1 - filled, cv2.DIST_L2, 3)
    own = around[(mask > 0) & known]
    # What ends before the object says nothing of it.
    front = float(np.percentile(own, 5.0)) if len(own) else 0.0
    found = []
    for distance in _RINGS_PX:
        with np.errstate(invalid="ignore"):
            rows, columns = np.nonzero((np.abs(away - distance) < 0.7) & known & (around > front))
        step = max(1, len(rows) * len(_RINGS_PX) // _PAST_POINTS)
        found.append(np.column_stack([rows, columns])[::step])
    return np.concatenate(found).astype(np.int64)
