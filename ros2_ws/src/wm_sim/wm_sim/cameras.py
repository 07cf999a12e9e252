"""Intrinsics and poses of simulated cameras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.camera import Camera

Array = NDArray[np.float64]


def make_camera(width: int, height: int, vertical_fov_deg: float) -> Camera:
    """Intrinsics of images of this size [pixels] and vertical field of view [degrees], as plain floats."""
    camera = Camera.from_vertical_field_of_view(width, height, float(np.radians(vertical_fov_deg)))
    return replace(camera, fx=float(camera.fx), fy=float(camera.fy))


def look_at(position: ArrayLike, target: ArrayLike) -> Array:
    """(4, 4) pose of an optical frame (z forward, x right, y down) at a position, toward a target [m], without roll."""
    p = np.asarray(position, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - p
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / max(float(np.linalg.norm(right)), 1e-9)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, p
    return pose
