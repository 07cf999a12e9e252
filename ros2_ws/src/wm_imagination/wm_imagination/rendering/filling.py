"""Holes in images, filled from what is around them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_imagination.rendering.splatting import Float32


def push_pull(values: Float32, known: NDArray[np.bool_]) -> Float32:
    """Smooth fill of the unknown pixels of an image (H, W) or (H, W, C) from the known ones, coarse to fine.

    The pyramid scheme of Gortler et al. 1996, "The Lumigraph", section 3.4.
    """
    squeeze = values.ndim == 2
    image = np.ascontiguousarray(values[..., None] if squeeze else values, dtype=np.float32)
    levels = [(image * known[..., None], known.astype(np.float32))]
    while min(levels[-1][1].shape) > 2:
        height, width = levels[-1][1].shape
        size = ((width + 1) // 2, (height + 1) // 2)
        color = cv2.resize(levels[-1][0], size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
        weight = cv2.resize(levels[-1][1], size, interpolation=cv2.INTER_AREA)
        levels.append((color, weight))
    filled = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)[..., None]
    for color, weight in reversed(levels[:-1]):
        height, width = weight.shape
        coarse = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)
        own = np.minimum(weight, 1.0)[..., None]
        filled = color + (1.0 - own) * coarse
        partly = (weight > 0.0) & (weight < 1.0)
        if partly.any():
            filled[partly] = color[partly] + (1.0 - weight[partly])[:, None] * coarse[partly]
    return filled[..., 0] if squeeze else filled


def inpaint(color: NDArray[np.uint8], hole: NDArray[np.bool_], forbidden: NDArray[np.bool_]) -> None:
    """Fill ``hole`` in place from everything but ``forbidden`` pixels.

    By Telea's method (2004) at the edge of a hole; with distance from it, where that method draws rays, increasingly by
    the smooth fill of ``push_pull``.

    Args:
        color: (H, W, 3) uint8 RGB, changed in place.
        hole: (H, W) pixels to fill.
        forbidden: (H, W) pixels that are neither filled nor used.
    """
    if not hole.any():
        return
    ys, xs = np.nonzero(hole)
    # Pixels around the holes that are used. Larger is slower; colors from farther away hardly count.
    pad = 24
    y0, y1 = max(ys.min() - pad, 0), min(ys.max() + pad + 1, hole.shape[0])
    x0, x1 = max(xs.min() - pad, 0), min(xs.max() + pad + 1, hole.shape[1])
    window = (slice(y0, y1), slice(x0, x1))
    unknown = (hole | forbidden)[window]
    patch = np.ascontiguousarray(color[window])
    if unknown.all():
        smooth = push_pull(color.astype(np.float32), ~(hole | forbidden))[window]
    else:
        smooth = push_pull(patch.astype(np.float32), ~unknown)
    if unknown.mean() > 0.85:  # too little known to march inward from
        filled = smooth
    else:
        marched = cv2.inpaint(patch, unknown.astype(np.uint8), 4, cv2.INPAINT_TELEA).astype(np.float32)
        # From 2 % of the image's width into the hole, the smooth fill alone.
        depth_in_hole = cv2.distanceTransform(unknown.astype(np.uint8), cv2.DIST_L2, 3)
        share = np.clip(depth_in_hole / (0.02 * hole.shape[1]), 0.0, 1.0)[..., None]
        filled = (1.0 - share) * marched + share * smooth
    filled = np.clip(filled, 0, 255).astype(np.uint8)
    target = hole[window]
    color[window][target] = filled[target]
