"""From a segmented cloud to observations: the points, place, color and outline of every segment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.lifting.supports import Support
from wm_perception.tracking.observation import Observation, no_edge
from wm_perception.tracking.outlines import Outline, outline_of
from wm_perception.types import Array, Cloud, Segmentation

_MAX_POINTS = 500
"""Points kept of a segment, evenly sampled. Larger makes all that follows slower, and nothing better."""
_CLEAR_SHARE = 0.4
"""Part of a mask that must stand clear of the supports for the rest of it to be dropped. Larger keeps more of the
support's points with flat objects, and with masks that reach over the object's rim."""
_MIXED_PIXEL_NOISE_M = 0.0025
"""Depth noise [m] from which a mask's outermost pixels are dropped: 1.2 m away by ``depth_noise_m``. Larger keeps mixed
pixels of farther objects, smaller loses points of near ones."""
_STEP_M = 0.03
"""Step in depth [m] behind which a pixel at a mask's rim is of another surface. Larger keeps more of the background,
smaller drops parts of steep surfaces."""
_GAPS = 0.9
"""Part of a mask's pixels that have depth up to which it is asked how uneven that is. Larger takes time."""
_BESIDE = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Rows and columns from a pixel to those beside it."""
_TOP_PERCENT = 95.0
"""Of an object's points [%] that are below its top. Larger takes noise for it."""
_MOSTLY_TOP = 0.4
"""Part of an object's pixels at its top from which its edge is looked for: of a T of 4 cm seen at 25 degrees it is 0.6.
Smaller takes the rim of what is seen from the front for more of its top, and finds notches there."""
_LEAST_SLOPE = 0.2
"""Slope of the view down on what is level, from which it is known where it goes on. Smaller trusts heights more."""
_FARTHEST_M = 20.0
"""Depth [m] of what a plane through few pixels has behind it. Larger lets one pixel decide."""
_LEAST_LEFT = 0.2
"""Part of a mask's points that must be left without those that something nearer leaks into. Larger keeps the leaked
points of slivers."""


def observe(
    cloud: Cloud,
    height: NDArray[np.float32],
    which: NDArray[np.int32],
    supports: Sequence[Support],
    segmentation: Segmentation,
    candidates: NDArray[np.bool_],
    edge_pixels: int,
) -> list[Observation | None]:
    """Observations of the labels 1..L; None where a label has too few points with depth.

    Args:
        height, which: (h, w) over the support below each pixel [m], and that support's index in ``supports``; see
            ``SupportMap.heights``.
        candidates: (h, w) pixels that stand clear of the supports.
        edge_pixels: a segment this near to the image's edge is cut off by it.
    """
    observations: list[Observation | None] = []
    looked_at = _looked_at(which, supports)
    # A network may mark pixels without depth.
    labels = np.where(np.isfinite(cloud.depth), segmentation.labels, 0)
    marked = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.keys) + 1)
    boxes = ndimage.find_objects(labels, max_label=len(segmentation.keys))
    h, w = labels.shape
    grounds: dict[int, NDArray[np.bool_]] = {}
    for label, box in enumerate(boxes, start=1):
        if box is None:
            observations.append(None)
            continue
        mask = labels[box] == label
        pixels = int(mask.sum())
        depth = float(np.partition(cloud.depth[box][mask], pixels // 2)[pixels // 2]) if pixels else 0.0
        noise = float(depth_noise_m(np.array(depth, np.float32)))
        # A network's masks reach over the object's rim, onto the support and the background.
        clear = mask & candidates[box]
        use = clear if int(clear.sum()) >= _CLEAR_SHARE * pixels else mask
        use = use & ~_behind(cloud.depth[box], mask)
        below = which[box][mask]
        index = int(np.bincount(below[below >= 0]).argmax()) if (below >= 0).any() else -1
        if index not in grounds:
            grounds[index] = ~candidates & (which == index)
        outline = outline_of(cloud.depth, labels, label, box, edge_pixels, grounds[index], cloud.nearest)
        cleared = use & ~outline.leaked
        use = cleared if int(cleared.sum()) >= _LEAST_LEFT * int(use.sum()) else use
        edge = np.zeros_like(use)
        if noise > _MIXED_PIXEL_NOISE_M:
            # Far away, a sensor's outermost pixels mix the object with what is behind it.
            inner = cv2.erode(use.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
            if int(inner.sum()) >= 0.35 * pixels:
                edge, use = use & ~inner, inner
        rows, columns = np.divmod(np.flatnonzero(use), use.shape[1])
        if len(rows) < 8 or pixels < 12:
            observations.append(None)
            continue
        # Evenly sampled; more would make everything slower and nothing better.
        some = slice(None, None, max(1, len(rows) // _MAX_POINTS))
        rim = outline.rim[rows[some], columns[some]]
        # By index into the flat image: faster than by rows and columns.
        at = (rows[some] + box[0].start) * w + columns[some] + box[1].start
        points = cloud.points.reshape(-1, 3)[at].astype(np.float64)
        heights = height.ravel()[at]
        tall = np.isfinite(heights)
        ranks = np.sort(points, axis=0)[(np.array([0.01, 0.02, 0.98, 0.99]) * (len(points) - 1)).astype(int)]
        center = 0.5 * (ranks[1] + ranks[2])
        bottom: float | None = None
        support_height = float(points[:, 2].min())
        if index >= 0:
            plane = supports[index].plane
            support_height = float(center[2] - plane.height_over(center[None].astype(np.float32))[0])
            bottom = support_height
        tallest = np.sort(heights[tall])
        low, high = (tallest[[int(q * (len(tallest) - 1)) for q in (0.02, 0.95)]]) if len(tallest) else (0.0, 0.0)
        down, right = box
        border = min(down.start, right.start, h - down.stop, w - right.stop) < edge_pixels
        fresh = segmentation.keys[label - 1] < 0
        outside = _outside(points, supports[index]) if fresh and index >= 0 else 0.0
        extent = float((ranks[3] - ranks[0]).max())
        observations.append(
            Observation(
                points=points,
                noise_m=noise,
                color=cloud.rgb.reshape(-1, 3)[at].sum(axis=0, dtype=np.int64) / len(at),
                pixels=pixels,
                bottom=bottom,
                support_height=support_height,
                height_low=float(low),
                height_high=float(high),
                on_border=border,
                outside_fraction=outside,
                extent=extent,
                center=center,
                area_m2=pixels * depth**2 / (cloud.camera.fx * cloud.camera.fy),
                over_fraction=float(tall.mean()),
                hidden_fraction=outline.hidden_share,
                score=float(segmentation.scores[label - 1]) if len(segmentation.scores) else float("nan"),
                embedding=_row(segmentation.embeddings, label - 1),
                classes=_row(segmentation.class_probabilities, label - 1),
                rim=rim,
                normals=cloud.normals.reshape(-1, 3)[at].astype(np.float64),
                cut_share=outline.cut_share,
                measured_share=pixels / float(marked[label]),
                uneven_m=_uneven_m(cloud.depth[box], mask) if pixels < _GAPS * marked[label] else 0.0,
                beneath_m=looked_at - supports[index].height_m if index >= 0 else 0.0,
                past_of=partial(_points_past, cloud, outline),
                edge_of=partial(_points_of_edge, cloud, box, edge, use, noise),
            )
        )
    return observations


def _looked_at(which: NDArray[np.int32], supports: Sequence[Support]) -> float:
    """Height [m] of the support that most of the image's middle is over; -inf: of none."""
    h, w = which.shape
    middle = which[h // 4 : h - h // 4 : 4, w // 4 : w - w // 4 : 4]
    counts = np.bincount(middle[middle >= 0], minlength=1)
    return supports[int(counts.argmax())].height_m if counts.any() else -np.inf


def _points_past(cloud: Cloud, outline: Outline) -> Array:
    """``Observation.past``."""
    return cloud.points[outline.past[:, 0], outline.past[:, 1]].astype(np.float64)


def _points_of_edge(
    cloud: Cloud, box: tuple[slice, slice], edge: NDArray[np.bool_], inner: NDArray[np.bool_], noise_m: float
) -> tuple[Array, Array]:
    """``Observation.edge``, of two masks in a box of the image.

    What is at the top of the object goes on level; what is below it is as far away as the pixel beside. The normals
    there say neither, as they are of both sides of the edge. Empty of what is not mostly seen from above.
    """
    heights = cloud.points[box][inner][:, 2]
    top = float(np.percentile(heights, _TOP_PERCENT)) - 3.0 * noise_m if edge.any() else np.inf
    if float((heights > top).mean()) < _MOSTLY_TOP:
        return no_edge()
    rows, columns = np.nonzero(edge)
    padded = np.pad(inner, 1)
    beside = np.stack([padded[1 + dy :, 1 + dx :][rows, columns] for dy, dx in _BESIDE], axis=1)
    known = beside.any(axis=1)
    rows, columns, first = rows[known], columns[known], beside[known].argmax(axis=1)
    dy, dx = np.array(_BESIDE)[first].T
    v, u = rows + box[0].start, columns + box[1].start
    eye, anchor = cloud.world_T_camera[:3, 3], cloud.points[v + dy, u + dx].astype(np.float64)
    rays = (cloud.points[v, u] - eye) / cloud.depth[v, u][:, None]
    level = (anchor[:, 2] > top) & (rays[:, 2] < -_LEAST_SLOPE)
    scale = np.where(
        level, (anchor[:, 2] - eye[2]) / np.minimum(rays[:, 2], -_LEAST_SLOPE), cloud.depth[v + dy, u + dx]
    )
    return eye + rays * scale[:, None], np.where(level[:, None], [0.0, 0.0, 1.0], np.nan)


def _outside(points: Array, support: Support) -> float:
    """Fraction of points (P, 3) beyond the seen outline of their support."""
    sample = points[:: max(1, len(points) // 40), :2]
    return float(support.outside(sample).mean())


def _uneven_m(depth: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """``Observation.uneven_m`` of a mask; the reciprocal of a plane's depth is linear in the image."""
    rows, columns = np.nonzero(mask)
    seen = depth[rows, columns].astype(np.float64)
    image = np.stack([rows - rows.mean(), columns - columns.mean(), np.ones(len(rows))], axis=1)
    of_plane = image @ np.linalg.lstsq(image, 1.0 / seen, rcond=None)[0]
    off = np.sort(seen - 1.0 / np.maximum(of_plane, 1.0 / _FARTHEST_M))
    outermost = len(off) // 20
    return float(off[-1 - outermost] - off[outermost])


def _row(values: NDArray[np.float32], row: int) -> Array:
    """One row (D,) in double precision, or (0,) where there are none."""
    return values[row].astype(np.float64) if values.size else np.zeros(0)


def _behind(depth: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (h, w) at the rim of a mask that lie behind what is beside them in it: of another surface.

    Only at the rim: within a mask a step in depth may be the object's own (the far wall of a bowl).
    """
    kernel = np.ones((5, 5), np.uint8)
    rim = mask & (cv2.erode(mask.astype(np.uint8), kernel, borderValue=0) == 0)
    nearest = cv2.erode(np.where(mask, depth, np.float32(1e3)), kernel)
    return rim & (depth - nearest > _STEP_M)
