"""Colour and depth that were recorded by two unregistered lenses, brought onto each other.

Many RGB-D recordings (a Kinect's raw streams, say) hold depth in the infrared camera's image and colour in another's, a
few centimetres beside it and with another focal length. ``estimate_depth_to_color`` finds the second camera from the
recording itself, ``register_color`` resamples colour into the depth image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from wm_core.camera import Camera
from wm_perception.types import Array, Frame

_EDGES_PER_FRAME = 3000
_DEPTH_STEP_M = 0.15


@dataclass(frozen=True)
class DepthToColor:
    """The colour camera: intrinsics, and its offset from the depth camera.

    A point (x, y, z) in the depth camera's optical frame is at (x, y, z) + translation_m in the colour camera's; both
    look in the same direction. ``score`` is the mean strength of colour edges under depth edges, in units of the
    image's mean; ``score_unregistered`` is the same for the images as they are.
    """

    camera: Camera
    translation_m: Array
    score: float
    score_unregistered: float

    @property
    def registered_already(self) -> bool:
        """Whether the images fit as they are: registration would gain less than 15 per cent."""
        return self.score < 1.15 * self.score_unregistered


def estimate_depth_to_color(frames: Sequence[Frame]) -> DepthToColor:
    """Find the colour camera by laying depth edges onto colour edges.

    Where a near surface ends, colour mostly changes too. The focal length, principal point and offset that put the
    depth edges of all frames onto the strongest colour edges are sought by Nelder-Mead from a few starts.

    Args:
        frames: a dozen or so, spread over the recording; the colour image is of the depth image's size.

    Raises:
        ValueError: too few depth edges to tell.
    """
    points: list[Array] = []
    edges: list[NDArray[np.float32]] = []
    random = np.random.default_rng(0)
    for frame in frames:
        depth = np.nan_to_num(frame.depth_m, nan=0.0)
        behind = cv2.dilate(depth, np.ones((3, 3), np.uint8))
        rows, columns = np.nonzero((depth > 0.3) & (depth < 4.0) & (behind - depth > _DEPTH_STEP_M))
        if len(rows) < 50:
            continue
        chosen = random.choice(len(rows), min(_EDGES_PER_FRAME, len(rows)), replace=False)
        z = depth[rows[chosen], columns[chosen]].astype(np.float64)
        camera = frame.camera
        x = (columns[chosen] - camera.cx) / camera.fx * z
        y = (rows[chosen] - camera.cy) / camera.fy * z
        points.append(np.stack([x, y, z], axis=1))
        edges.append(_edge_strength(frame.color))
    if sum(map(len, points)) < 1000:
        raise ValueError(f"registration: got {sum(map(len, points))} depth edge pixels, expected at least 1000")
    camera = frames[0].camera
    unit = np.array([camera.fx, camera.width, camera.height, 1.0, 1.0])

    def score(x: Array) -> float:
        f, cx, cy, tx, ty = x * unit
        total = 0.0
        for p, strength in zip(points, edges, strict=True):
            u = (f * (p[:, 0] + tx) / p[:, 2] + cx).astype(np.float32)
            v = (f * (p[:, 1] + ty) / p[:, 2] + cy).astype(np.float32)
            total += float(cv2.remap(strength, u[:, None], v[:, None], cv2.INTER_LINEAR).mean())
        return total / len(points)

    same = np.array([1.0, camera.cx / camera.width, camera.cy / camera.height, 0.0, 0.0])
    steps = np.diag([0.04, 0.01, 0.01, 0.008, 0.004])
    best, best_score = same, score(same)
    unregistered = best_score
    for focal in (0.9, 1.0):
        for offset in (-0.025, 0.0, 0.025):
            start = same.copy()
            start[0], start[3] = focal, offset
            found = minimize(
                lambda x: -score(x),
                start,
                method="Nelder-Mead",
                options={"initial_simplex": start + np.vstack([np.zeros(5), steps]), "maxiter": 120},
            )
            if -found.fun > best_score:
                best, best_score = found.x, -float(found.fun)
    f, cx, cy, tx, ty = best * unit
    color_camera = Camera(camera.width, camera.height, f, f * camera.fy / camera.fx, cx, cy)
    return DepthToColor(color_camera, np.array([tx, ty, 0.0]), best_score, unregistered)


def register_color(frame: Frame, registration: DepthToColor) -> NDArray[np.uint8]:
    """The colour (H, W, 3) uint8 of every depth pixel; holes of the depth image take the depth around them."""
    depth = np.nan_to_num(frame.depth_m, nan=0.0)
    hole = depth <= 0.0
    if hole.all():
        return frame.color
    filled = depth.copy()
    # Fill coarse to fine: the median-like mean of what is known around, at growing reach.
    weight = (~hole).astype(np.float32)
    for size in (5, 15, 45, 135):
        mean = cv2.blur(np.where(hole, 0.0, depth).astype(np.float32), (size, size))
        count = cv2.blur(weight, (size, size))
        missing = (filled <= 0.0) & (count > 1e-3)
        filled[missing] = mean[missing] / count[missing]
    filled[filled <= 0.0] = float(np.median(depth[~hole]))
    camera, color_camera = frame.camera, registration.camera
    u = np.arange(camera.width, dtype=np.float32)[None]
    v = np.arange(camera.height, dtype=np.float32)[:, None]
    tx, ty, _ = registration.translation_m
    map_u = color_camera.fx * ((u - camera.cx) / camera.fx + tx / filled) + color_camera.cx
    map_v = color_camera.fy * ((v - camera.cy) / camera.fy + ty / filled) + color_camera.cy
    return cv2.remap(
        frame.color,
        map_u.astype(np.float32),
        map_v.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _edge_strength(color: NDArray[np.uint8]) -> NDArray[np.float32]:
    gray = cv2.GaussianBlur(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2.0)
    strength = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    strength = np.minimum(strength, np.percentile(strength, 95))
    return (strength / max(float(strength.mean()), 1e-6)).astype(np.float32)
