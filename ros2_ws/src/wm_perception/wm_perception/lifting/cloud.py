"""From a depth image to an organized cloud with normals."""

from __future__ import annotations

from functools import partial

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
    """The organized cloud of every ``stride``-th pixel.

    Depth is smoothed over a small window, without mixing surfaces: values that differ by more than the sensor's noise
    from the pixel itself do not count. Normals come from central differences of the smoothed points.
    """
    # Contiguous first: strided arrays are read several times slower.
    raw = np.ascontiguousarray(frame.depth_m[::stride, ::stride])
    valid = (raw > 0.05) & (raw <= max_depth_m)
    depth = np.where(valid, raw, np.float32(0.0)).astype(np.float32, copy=False)
    smooth = _smooth(depth, valid)
    camera = frame.camera
    small = Camera(
        depth.shape[1], depth.shape[0], camera.fx / stride, camera.fy / stride, camera.cx / stride, camera.cy / stride
    )
    points = small.back_project(smooth)
    # cv2.transform is several times faster than a matrix product with so short an inner dimension.
    world = cv2.transform(points, frame.world_T_camera[:3].astype(np.float64))
    normals = cv2.transform(_normals(points, smooth), frame.world_T_camera[:3, :3].astype(np.float64))
    rgb = _every(frame.color, stride)
    known = np.where(valid, smooth, np.float32(np.nan))
    nearest = known
    if frame.own_depth_m is not None:
        own = frame.own_depth_m[::stride, ::stride]
        nearest = np.where(own > 0.0, own, known)
    return Cloud(world, normals, known, rgb, partial(_lab, rgb), small, frame.world_T_camera, nearest)


def _every(color: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    """Every ``stride``-th pixel of an image (H, W, 3), contiguous."""
    h, w = color.shape[:2]
    if h % stride or w % stride:
        return np.ascontiguousarray(color[::stride, ::stride])
    # The nearest pixel is that one where the sizes divide; this is several times faster than copying the slice.
    return np.asarray(cv2.resize(color, (w // stride, h // stride), interpolation=cv2.INTER_NEAREST), np.uint8)


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``Cloud.lab``."""
    return np.asarray(cv2.cvtColor(cv2.GaussianBlur(rgb, (3, 3), 0), cv2.COLOR_RGB2LAB).astype(np.float32))


def _smooth(depth: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    limit = 4.0 * depth_noise_m(depth) + np.float32(0.004)
    padded = cv2.copyMakeBorder(depth, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0.0)
    h, w = depth.shape
    total, count = np.zeros_like(depth), np.ones(depth.shape, np.uint8)
    step, size, near = np.empty_like(depth), np.empty_like(depth), np.empty(depth.shape, np.bool_)
    # Sums of differences: a neighbor without depth differs by the whole depth and so is left out.
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        np.subtract(padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w], depth, out=step)
        np.less(np.abs(step, out=size), limit, out=near)
        count += near.view(np.uint8)
        total += np.multiply(step, near, out=step)
    total /= count
    total += depth
    total *= valid
    return total


def _normals(points: NDArray[np.float32], depth: NDArray[np.float32], reach: int = 2) -> NDArray[np.float32]:
    normals = np.full(points.shape, np.nan, dtype=np.float32)
    if min(depth.shape) <= 2 * reach:
        return normals
    inner = (slice(reach, -reach), slice(reach, -reach))
    # Channel by channel: contiguous arrays are several times faster than strided ones.
    across, down = [], []
    middle = []
    for channel in cv2.split(points):
        across.append(channel[reach:-reach, 2 * reach :] - channel[reach:-reach, : -2 * reach])
        down.append(channel[2 * reach :, reach:-reach] - channel[: -2 * reach, reach:-reach])
        middle.append(channel[inner])
    n = [down[i] * across[j] - down[j] * across[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    # Toward the camera at the origin of the optical frame, and of unit length.
    facing = n[0] * middle[0] + n[1] * middle[1] + n[2] * middle[2]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.copysign(1.0 / np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]), -facing)
    # A difference across a depth edge is no surface.
    limit = np.float32(0.06) * depth[inner] + np.float32(0.01)
    scale[(np.abs(across[2]) > limit) | (np.abs(down[2]) > limit)] = np.nan
    normals[inner] = cv2.merge([v * scale for v in n])
    return normals
