"""How far an object has gone between two frames, by where its surface went: optical flow, with depth at both ends.

The center of a fitted shape shifts with what is seen of the object and with the shape; its surface does not.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.types import Array, Cloud

_LONGEST_NS = 250_000_000
"""Time [ns] between frames up to which the flow is looked for. Larger finds wrong ways where little is alike."""
_POINTS = 160
"""Points of an object whose way is looked for. Larger is slower and less noisy."""
_LEAST, _LEAST_SHARE = 16, 0.5
"""Points that have to agree on one rigid motion, and their part of those whose flow is known. Smaller takes the motion
of what a mask reaches over for the object's."""
_LEAST_GRAIN, _GRAIN_PX = 0.0005, 9
"""Least of the two eigenvalues of the gradients' covariance at a pixel (``cv2.cornerMinEigenVal``) from which its flow
is known, and the side [pixels] of the square that it is taken over: elsewhere the flow is guessed from what is around,
which may be at rest. Larger finds fewer ways, and surer ones."""
_MARGIN_PX = 32
"""Pixels about an object in which its flow is looked for, the farthest that it may have gone. Larger is slower."""
_LEAST_CROP_PX = 48
"""Least sides [pixels] of what flow is looked for in. On sides below 46 OpenCV's search (4.11) takes finer scales than
its preset's and keeps them for all searches to come, so that a way depends on what was looked at before; on a dozen
pixels it can end the process. Larger is slower."""
_FLOW_PX = 0.6
"""Standard deviation [pixels] of the flow at a point. Larger trusts it less."""
_INDEPENDENT = 12.0
"""Independent points that all those of an object are worth: neighbors share their flow. Larger trusts it more."""
_SPIN_RAD_S = 8.0
"""Standard deviation [rad/s] of how fast objects turn, about any axis: of balls that roll and of what tumbles."""


_of_thread = threading.local()


def _search() -> cv2.DISOpticalFlow:
    """The search for flow, one for each thread: it works in memory of its own, and cannot be copied as trackers are."""
    if not hasattr(_of_thread, "search"):
        _of_thread.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search: cv2.DISOpticalFlow = _of_thread.search
    return search


@dataclass(frozen=True)
class Displacement:
    """Displacement (3,) [m] of an object's center since the frame before, world axes, and its covariance (3, 3)."""

    offset: Array
    covariance: Array


class SurfaceFlow:
    """The flow of an object from a frame back to the one before it, by dense inverse search.

    Kroeger, Timofte, Dai, Van Gool, Fast Optical Flow using Dense Inverse Search, ECCV 2016.
    """

    def __init__(self) -> None:
        self._before: tuple[int, Cloud] | None = None
        self._now: tuple[int, Cloud] | None = None

    def add(self, cloud: Cloud, stamp_ns: int) -> None:
        """The frame that is looked at from now on."""
        self._before, self._now = self._now, (stamp_ns, cloud)

    def displacement_of(self, points: Array, center: Array, noise_m: float) -> Displacement | None:
        """How far an object has gone since the frame before; None where that cannot be seen.

        Args:
            points: (P, 3) of its surface, now [m]. center: (3,) whose way is asked for, now [m].
            noise_m: standard deviation of the depth of one point.
        """
        if self._before is None or self._now is None:
            return None
        (s0, before), (s1, now) = self._before, self._now
        shape = now.depth.shape
        if s1 - s0 > _LONGEST_NS or before.depth.shape != shape or min(shape) < _LEAST_CROP_PX:
            return None
        points = points[:: max(1, len(points) // _POINTS)]
        camera_T_world = np.linalg.inv(now.world_T_camera)
        optical = points @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]
        rows, columns, _, valid = now.camera.nearest_pixels(optical)
        pixels = np.stack([columns, rows], axis=1)
        if int(valid.sum()) < _LEAST:
            return None
        points, pixels = points[valid], pixels[valid]
        back, known = self._flow_at(pixels, before, now)
        points, back = points[known], back[known]
        h, w = shape
        inside = (back > -0.5).all(axis=1) & (back[:, 0] < w - 0.5) & (back[:, 1] < h - 0.5)
        a, b = np.round(np.where(inside[:, None], back, 0.0)).astype(np.int64).T
        # Moved by what is left of a pixel.
        earlier = before.points[b, a].astype(np.float64)
        rest = back - np.stack([a, b], axis=1)
        depth = before.depth[b, a].astype(np.float64)
        axes = before.world_T_camera[:3, :3]
        earlier += np.outer(depth * rest[:, 0] / before.camera.fx, axes[:, 0])
        earlier += np.outer(depth * rest[:, 1] / before.camera.fy, axes[:, 1])
        good = inside & np.isfinite(earlier).all(axis=1)
        if int(good.sum()) < _LEAST:
            return None
        spread = float(np.hypot(noise_m, _FLOW_PX * np.median(depth[good]) / before.camera.fx))
        return _rigid(earlier[good], points[good], center, spread, (s1 - s0) * 1e-9)

    def _flow_at(self, pixels: NDArray[np.int64], before: Cloud, now: Cloud) -> tuple[Array, NDArray[np.bool_]]:
        """Where pixels (P, 2), as (u, v), were in the frame before, (P, 2), and for which of them that is known."""
        size = np.array(now.depth.shape[::-1])
        low = np.clip(pixels.min(axis=0) - _MARGIN_PX, 0, size - _LEAST_CROP_PX)
        high = np.clip(pixels.max(axis=0) + _MARGIN_PX, low + _LEAST_CROP_PX, size)
        crop = np.s_[low[1] : high[1], low[0] : high[0]]
        gray = cv2.cvtColor(now.rgb[crop], cv2.COLOR_RGB2GRAY)
        flow = _search().calc(gray, cv2.cvtColor(before.rgb[crop], cv2.COLOR_RGB2GRAY), None)
        u, v = (pixels - low).T
        known = cv2.cornerMinEigenVal(gray, _GRAIN_PX)[v, u] > _LEAST_GRAIN
        return pixels + flow[v, u].astype(np.float64), known


def _rigid(earlier: Array, later: Array, center: Array, spread: float, dt: float) -> Displacement | None:
    """The rigid motion back from points (P, 3) to earlier ones, by iteratively reweighted least squares."""
    arms = later - center
    ways = later - earlier
    # way = t + w x arm, for a small turn w in the step, about the center.
    rows = np.zeros((len(later), 3, 6))
    rows[:, 0, 0] = rows[:, 1, 1] = rows[:, 2, 2] = 1.0
    rows[:, 0, 4], rows[:, 0, 5] = arms[:, 2], -arms[:, 1]
    rows[:, 1, 3], rows[:, 1, 5] = -arms[:, 2], arms[:, 0]
    rows[:, 2, 3], rows[:, 2, 4] = arms[:, 1], -arms[:, 0]
    shared = spread**2 * max(len(later) / _INDEPENDENT, 1.0)
    prior = np.diag([0.0] * 3 + [(_SPIN_RAD_S * dt) ** -2] * 3) + np.eye(6) * 1e-3
    found = np.concatenate([np.median(ways, axis=0), np.zeros(3)])
    normal = np.eye(6)
    off = np.zeros(len(later))
    for _ in range(8):
        off = np.linalg.norm(ways - rows @ found, axis=1)
        weights = 1.0 / (1.0 + (off / (2.0 * spread)) ** 2) ** 2 / shared
        weighted = rows * weights[:, None, None]
        normal = np.einsum("pij,pik->jk", weighted, rows) + prior
        found = np.linalg.solve(normal, np.einsum("pij,pi->j", weighted, ways))
    agree = int((off < 3.0 * spread).sum())
    if agree < max(_LEAST, _LEAST_SHARE * len(later)):
        return None
    covariance = np.linalg.inv(normal)
    return Displacement(found[:3], covariance[:3, :3])
