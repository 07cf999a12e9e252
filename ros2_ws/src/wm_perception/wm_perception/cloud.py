"""From a depth image to an organised cloud with normals."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from wm_core.camera import Camera

from wm_perception.types import Cloud, Frame


def depth_noise_m(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation [m] of structured-light depth: 1.2 mm + 1.9 mm/m^2 (z - 0.4 m)^2.

    Source: Nguyen, Izadi, Lovell, Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking, 2012.
    """
    return (0.0012 + 0.0019 * np.square(depth_m - 0.4)).astype(np.float32)


def make_cloud(frame: Frame, stride: int, max_depth_m: float) -> Cloud:
    """The organised cloud of every ``stride``-th pixel.

    Depth is smoothed over a small window, without mixing surfaces: values that differ by more than the sensor's noise
    from the pixel itself do not count. Normals come from central differences of the smoothed points.
    """
    raw = frame.depth_m[::stride, ::stride]
    valid = np.isfinite(raw) & (raw > 0.05) & (raw <= max_depth_m)
    depth = np.where(valid, raw, np.float32(0.0)).astype(np.float32)
    smooth = _smooth(depth, valid)
    camera = frame.camera
    small = Camera(
        depth.shape[1], depth.shape[0], camera.fx / stride, camera.fy / stride, camera.cx / stride, camera.cy / stride
    )
    points = small.back_project(smooth)
    rotation = frame.world_T_camera[:3, :3].astype(np.float32)
    world = points @ rotation.T + frame.world_T_camera[:3, 3].astype(np.float32)
    normals = _normals(points, smooth) @ rotation.T
    rgb = np.ascontiguousarray(frame.color[::stride, ::stride])
    lab = cv2.cvtColor(cv2.GaussianBlur(rgb, (3, 3), 0), cv2.COLOR_RGB2LAB).astype(np.float32)
    return Cloud(
        world, normals, np.where(valid, smooth, np.float32(np.nan)), rgb, lab, small, frame.world_T_camera
    )


def _smooth(depth: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    limit = 4.0 * depth_noise_m(depth) + 0.004
    total = depth.copy()
    count = valid.astype(np.float32)
    h, w = depth.shape
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        here = (slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0)))
        there = (slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0)))
        near = (np.abs(depth[here] - depth[there]) < limit[here]) & valid[there]
        total[here] += np.where(near, depth[there], 0.0)
        count[here] += near
    return np.where(valid, total / np.maximum(count, 1.0), 0.0).astype(np.float32)


def _normals(points: NDArray[np.float32], depth: NDArray[np.float32], reach: int = 2) -> NDArray[np.float32]:
    normals = np.full(points.shape, np.nan, dtype=np.float32)
    inner = (slice(reach, -reach), slice(reach, -reach))
    right, left = points[reach:-reach, 2 * reach :], points[reach:-reach, : -2 * reach]
    down, up = points[2 * reach :, reach:-reach], points[: -2 * reach, reach:-reach]
    dx, dy = right - left, down - up
    # A difference across a depth edge is no surface.
    limit = 0.06 * depth[inner] + 0.01
    edge = (np.abs(dx[..., 2]) > limit) | (np.abs(dy[..., 2]) > limit)
    n = np.stack(
        [
            dy[..., 1] * dx[..., 2] - dy[..., 2] * dx[..., 1],
            dy[..., 2] * dx[..., 0] - dy[..., 0] * dx[..., 2],
            dy[..., 0] * dx[..., 1] - dy[..., 1] * dx[..., 0],
        ],
        axis=-1,
    )
    length = np.sqrt(np.einsum("hwi,hwi->hw", n, n))
    with np.errstate(invalid="ignore", divide="ignore"):
        n = n / length[..., None]
    n[edge] = np.nan
    # Towards the camera, which looks along +z.
    flip = np.einsum("hwi,hwi->hw", n, points[inner]) > 0.0
    n[flip] *= -1.0
    normals[inner] = n
    return normals
