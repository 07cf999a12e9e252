"""Motion that no mask can feign: a surface where the camera saw through a moment ago."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_perception.types import Array, Cloud

_AGO_NS, _LATEST_NS = 100_000_000, 300_000_000
"""Age [ns] of the view that a frame is compared with, at least and at most. A larger least age shows slower motion and
shows it later; a larger most one lets the drift of a camera's pose be taken for motion."""
_BESIDE_PX = 5
"""Side [pixels] of the square in which all of the earlier view must lie deeper: two pixels on either side, as a mask's
rim is off. Larger misses slow motion, smaller takes noise of outlines for it."""
_DEEPER_M, _DEEPER_SIGMAS = 0.01, 4.0
"""Depth [m], and in standard deviations of the depth's noise, from which the earlier view lies deeper. Larger: motion
of flatter things is not seen."""
_SHARE, _LEAST_POINTS = 0.08, 6
"""Part of an object's points, and their least count, that have to be where it was seen through. Larger needs farther
ways; smaller lets a mask that reaches over something else's moving edge count."""


@dataclass(frozen=True)
class _View:
    """A depth image, each pixel with the least depth beside it (0: not known), and where it was seen from."""

    stamp_ns: int
    nearest: NDArray[np.float32]
    camera: Camera
    camera_T_world: Array


class SeenThrough:
    """The views of the last moments, and which points lie where they saw through.

    A mask that grows, wavers or hops shows surfaces that were there before, whatever its object; what was hidden was
    behind something nearer. Only what moves is found where the view was free.
    """

    def __init__(self) -> None:
        self._views: deque[_View] = deque(maxlen=16)

    def add(self, cloud: Cloud, stamp_ns: int) -> None:
        """Keep the view of a frame, after its objects were looked at."""
        known = np.where(np.isfinite(cloud.depth), cloud.depth, np.float32(0.0))
        nearest = cv2.erode(known, np.ones((_BESIDE_PX, _BESIDE_PX), np.uint8))
        camera_T_world = np.asarray(np.linalg.inv(cloud.world_T_camera), np.float64)
        self._views.append(_View(stamp_ns, np.asarray(nearest, np.float32), cloud.camera, camera_T_world))

    def has_come(self, points: Array, noise_m: float, stamp_ns: int) -> bool:
        """Whether the surface at points (P, 3), world [m], has come there in the last moments.

        Args:
            noise_m: standard deviation of their depth; stamp_ns: of the frame that they are of.
        """
        ages = [stamp_ns - v.stamp_ns for v in self._views]
        view = next((v for v, age in zip(reversed(self._views), reversed(ages), strict=True) if age >= _AGO_NS), None)
        if view is None or stamp_ns - view.stamp_ns > _LATEST_NS:
            return False
        optical = points @ view.camera_T_world[:3, :3].T + view.camera_T_world[:3, 3]
        v, u, depth, inside = view.camera.nearest_pixels(optical)
        deeper = view.nearest[v, u] - depth > _DEEPER_M + _DEEPER_SIGMAS * noise_m
        come = int((inside & deeper).sum())
        return come >= max(_LEAST_POINTS, _SHARE * len(points))
