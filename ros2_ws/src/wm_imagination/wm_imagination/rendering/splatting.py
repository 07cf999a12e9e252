"""Points drawn into an image, nearest first."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera

Float32 = NDArray[np.float32]

SAME_LAYER_PIXELS = 0.15
"""Movement of an object's corners [pixels] below which its layer of the previous frame is used again: far less than a
pixel. Larger, and slow objects move in visible steps; smaller, and objects at rest are drawn again."""
NEAR_PLANE_M = 0.05
"""Depth [m, optical frame] below which points are not drawn: a single one would cover the image. Larger, and close
objects lose parts."""
NO_DEPTH = np.float32(1e9)
"""Depth where nothing is, beyond any depth [m]."""
_SPLAT_SIZES = np.array([1, 2, 3, 4, 6, 9, 12], np.int32)
"""Sides of splats [pixels]; few, because each needs a pass over the samples. A larger last one closes the surface of
objects that are closer to the camera."""


def splat(
    camera_points: Float32,
    spacing: Float32,
    camera: Camera,
    window: tuple[int, int, int, int],
    bias: Float32 | None = None,
) -> NDArray[np.int32]:
    """Depth-tested square splats: which sample (row) each pixel shows, -1 for none, (h, w).

    A sample covers as many pixels as its spacing spans, so that a surface has no pinholes; away from its own
    center it counts as farther by its spacing, so that the sample centered on a pixel wins against its
    neighbors' margins.

    Args:
        camera_points: (P, 3) [m, optical frame].
        spacing: (P,) [m].
        window: x, y, width, height of the part of the image to draw.
        bias: (P,) [m], see ``SurfacePoints.bias``; None: zero.
    """
    x0, y0, width, height = window
    z = camera_points[:, 2]
    order = z if bias is None else z + bias
    rows = np.flatnonzero(z > NEAR_PLANE_M)
    rows = rows[np.argsort(-order[rows], kind="stable")]
    z, order = z[rows], order[rows]
    scale = np.float32(camera.fx) / z
    u = camera_points[rows, 0] * scale + np.float32(camera.cx - x0)
    v = camera_points[rows, 1] * np.float32(camera.fy) / z + np.float32(camera.cy - y0)
    # Factor 1.15: splats overlap a little, so that rounding to whole pixels leaves no pinholes.
    size = _SPLAT_SIZES[np.searchsorted(_SPLAT_SIZES, np.minimum(1.15 * spacing[rows] * scale, _SPLAT_SIZES[-1]))]
    index = np.full(height * width, -1, np.int32)
    nearest = np.full(height * width, NO_DEPTH, np.float32)
    for k in np.unique(size):
        group = np.flatnonzero(size == k)
        shift = np.float32(0.5 - 0.5 * (k - 1))
        left = np.floor(u[group] + shift).astype(np.int32)
        top = np.floor(v[group] + shift).astype(np.int32)
        inside = (left > -k) & (left < width) & (top > -k) & (top < height)
        group, left, top = group[inside], left[inside], top[inside]
        depth, step = order[group], spacing[rows[group]]
        whole = (left >= 0) & (left + k <= width) & (top >= 0) & (top + k <= height)
        clipped = not whole.all()
        for dy in range(k):
            for dx in range(k):
                ring = max(abs(dx - 0.5 * (k - 1)), abs(dy - 0.5 * (k - 1))) / max(0.5 * k, 1.0)
                pixel = (top + dy) * width + (left + dx)
                key = depth + np.float32(ring) * step
                if clipped:
                    ok = (left + dx >= 0) & (left + dx < width) & (top + dy >= 0) & (top + dy < height)
                    pixel = np.where(ok, pixel, 0)
                    wins = np.flatnonzero(ok & (key < nearest[pixel]))
                else:
                    wins = np.flatnonzero(key < nearest[pixel])
                # Sorted far to near: of several samples on one pixel the last, the nearest, stays.
                pixel = pixel[wins]
                nearest[pixel] = key[wins]
                index[pixel] = rows[group[wins]]
    return index.reshape(height, width)


def close_pinholes(
    color: NDArray[np.uint8], depth: Float32, mask: NDArray[np.bool_], neighbors: int, rounds: int
) -> NDArray[np.bool_]:
    """Fill, in place, pixels beside at least ``neighbors`` drawn ones by their mean; returns the new mask.

    Args:
        color: (h, w, 3) uint8 RGB; depth: (h, w) [m]; mask: (h, w), pixels that are drawn.
        neighbors: of the eight around a pixel. Fewer fill wider gaps and extend edges.
        rounds: passes, each of which fills gaps by one more pixel.
    """
    for _ in range(rounds):
        weight = mask.astype(np.float32)
        count = cv2.boxFilter(weight, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        holes = ~mask & (count >= neighbors)
        if not holes.any():
            break
        sums = cv2.boxFilter(color * weight[..., None], -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        depth_sum = cv2.boxFilter(depth * weight, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        color[holes] = (sums[holes] / count[holes][:, None]).astype(np.uint8)
        depth[holes] = depth_sum[holes] / count[holes]
        mask = mask | holes
    return mask


def outline(pixels: Float32, sizes: Float32, window: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Pixels (h, w) of a window that a surface covers: the morphological closing of its samples.

    Splats reach half their size beyond the last sample, which would make small objects visibly larger.

    Args:
        pixels: (P, 2) positions of the samples in the image [pixels]; sizes: (P,) their splats [pixels].
        window: x, y, width, height of the part of the image.
    """
    x0, y0, width, height = window
    u = np.clip(np.round(pixels[:, 0]).astype(np.int32) - x0, 0, width - 1)
    v = np.clip(np.round(pixels[:, 1]).astype(np.int32) - y0, 0, height - 1)
    centers = np.zeros((height, width), np.uint8)
    centers[v, u] = 1
    # The 98th percentile ignores single large splats; more than 8 pixels would close real gaps.
    reach = int(np.clip(np.ceil(np.percentile(sizes, 98)), 1, 8))
    pad = reach + 1
    padded = cv2.copyMakeBorder(centers, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return closed[pad:-pad, pad:-pad] > 0
