"""Color and depth that were recorded by two unregistered lenses, brought onto each other.

Many RGB-D recordings (a Kinect's raw streams, say) hold depth in the infrared camera's image and color in another's, a
few centimeters beside it and with another focal length. ``estimate_depth_to_color`` finds the second camera from the
recording itself, ``register_color`` resamples color into the depth image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from wm_core.camera import Camera
from wm_perception.types import Array, Frame

_EDGES_PER_FRAME = 3000
"""Depth edge pixels used of a view. Larger is slower and less noisy."""
_DEPTH_STEP_M = 0.15
"""Step in depth [m] that is an edge. Larger keeps fewer, surer edges."""
_LEAST_EDGES, _LEAST_VIEWS = 1000, 4
"""Edge pixels and views below which nothing is estimated. Larger refuses more recordings."""
_SAME_VIEW = 0.5
"""Frames whose depth edges coincide by more than this share, within ``_NEAR_PIXELS``, are one view."""
_NEAR_PIXELS = 3
"""Distance [pixels] up to which edges of two frames coincide."""

FOCAL_RANGE = (0.85, 1.15)
"""Color's focal length over depth's. A Kinect's are 525 to 585, 0.90; other structured-light pairs are nearer to 1."""
OFFSET_M = 0.06
"""Between the lenses: 25 mm in a Kinect, 15 to 55 mm in RealSense, Astra and Azure cameras."""
CENTER_RANGE = 0.05
"""Principal point, as a fraction of the image's size."""
LEAST_GAIN = 1.15
"""Score registered over score unregistered, in views that were not fitted to."""
_LEAST_BETTER = 0.8
"""Share of those views that must gain at all: one lucky view is no camera."""


@dataclass(frozen=True)
class DepthToColor:
    """The color camera: intrinsics, and its offset from the depth camera.

    A point p in the depth camera's optical frame is at rotation p + translation_m in the color camera's.
    ``score`` is the mean strength of color edges under depth edges, in units of the image's mean;
    ``score_unregistered`` is the same for the images as they are; both are 0 where the camera is known from calibration
    and not estimated.

    Attributes:
        camera: intrinsics and size of the color image.
        translation_m: (3,); rotation: (3, 3).
        views: different views that it was estimated from.
        gain: score over score_unregistered in views left out of a fit, mean; better: share of those views that gain.
        at_limit: what of it lies at the limit of the search; empty: nothing.
    """

    camera: Camera
    translation_m: Array
    score: float = 0.0
    score_unregistered: float = 0.0
    views: int = 0
    gain: float = 1.0
    better: float = 0.0
    at_limit: str = ""
    rotation: Array = field(default_factory=lambda: np.eye(3))

    @property
    def refusal(self) -> str:
        """Why this estimate is not to be used; empty: it is."""
        if self.gain < LEAST_GAIN or self.better < _LEAST_BETTER:
            return (
                f"the images fit as they are (edges agree {self.gain:.2f} times as well in views left out, "
                f"in {100 * self.better:.0f} % of them better; expected {LEAST_GAIN:g} and {100 * _LEAST_BETTER:.0f} %)"
            )
        if self.at_limit:
            return f"the best {self.at_limit} lies at the limit of what two lenses of one camera may have"
        return ""

    @property
    def registered_already(self) -> bool:
        """Whether the images are better left as they are."""
        return bool(self.refusal)


@dataclass(frozen=True)
class _View:
    """Depth edge points (P, 3) in the depth camera [m], and the strength of color edges (H, W)."""

    points: Array
    strength: NDArray[np.float32]


def estimate_depth_to_color(frames: Sequence[Frame]) -> DepthToColor:
    """Find the color camera by laying depth edges onto color edges.

    Where a near surface ends, color mostly changes too. The focal length, principal point and offset that put the
    depth edges of all views onto the strongest color edges are sought by Nelder-Mead from a few starts, within the
    limits of what two lenses of one camera may have. Whether it is a gain is judged in views that were left out of a
    second fit: in one view some wrong camera nearly always fits better than the right one.

    Args:
        frames: a dozen or so, spread over the recording; the color image is of the depth image's size.

    Raises:
        ValueError: too few depth edges, or too few different views, to tell.
    """
    views = _views(frames)
    edges = sum(len(view.points) for view in views)
    if edges < _LEAST_EDGES:
        raise ValueError(f"registration: got {edges} depth edge pixels, expected at least {_LEAST_EDGES}")
    if len(views) < _LEAST_VIEWS:
        raise ValueError(
            f"registration: got {len(views)} different views, expected at least {_LEAST_VIEWS}: "
            "what fits one view best is seldom the camera"
        )
    camera = frames[0].camera
    best, best_score, unregistered = _fit(views, camera)
    halves = (views[::2], views[1::2])
    gains: list[float] = []
    for fitted, left_out in (halves, halves[::-1]):
        half, _, _ = _fit(fitted, camera)
        same = _unchanged(camera)
        gains += [_score(half, [v], camera) / max(_score(same, [v], camera), 1e-9) for v in left_out]
    f, cx, cy, tx, ty = best * _unit(camera)
    color_camera = Camera(camera.width, camera.height, f, f * camera.fy / camera.fx, cx, cy)
    return DepthToColor(
        color_camera,
        np.array([tx, ty, 0.0]),
        best_score,
        unregistered,
        len(views),
        float(np.mean(gains)),
        float(np.mean(np.array(gains) > 1.0)),
        _at_limit(best, camera),
    )


def _views(frames: Sequence[Frame]) -> list[_View]:
    """Those of the frames that show enough depth edges, one of each view."""
    views: list[_View] = []
    seen: list[NDArray[np.uint8]] = []
    random = np.random.default_rng(0)
    kernel = np.ones((2 * _NEAR_PIXELS + 1, 2 * _NEAR_PIXELS + 1), np.uint8)
    for frame in frames:
        depth = np.nan_to_num(frame.depth_m, nan=0.0)
        behind = cv2.dilate(depth, np.ones((3, 3), np.uint8))
        mask = (depth > 0.3) & (depth < 4.0) & (behind - depth > _DEPTH_STEP_M)
        rows, columns = np.nonzero(mask)
        if len(rows) < 50 or any((before[rows, columns] > 0).mean() > _SAME_VIEW for before in seen):
            continue
        seen.append(cv2.dilate(mask.astype(np.uint8), kernel))
        chosen = random.choice(len(rows), min(_EDGES_PER_FRAME, len(rows)), replace=False)
        z = depth[rows[chosen], columns[chosen]].astype(np.float64)
        camera = frame.camera
        x = (columns[chosen] - camera.cx) / camera.fx * z
        y = (rows[chosen] - camera.cy) / camera.fy * z
        views.append(_View(np.stack([x, y, z], axis=1), _edge_strength(frame.color)))
    return views


def _unit(camera: Camera) -> Array:
    """What the search's numbers are multiples of: focal length, principal point, offset."""
    return np.array([camera.fx, camera.width, camera.height, 1.0, 1.0])


def _unchanged(camera: Camera) -> Array:
    """The depth camera itself, in the search's numbers."""
    return np.array([1.0, camera.cx / camera.width, camera.cy / camera.height, 0.0, 0.0])


def _limits(camera: Camera) -> Array:
    """(5, 2) of the search."""
    same = _unchanged(camera)
    reach = np.array([0.0, CENTER_RANGE, CENTER_RANGE, OFFSET_M, OFFSET_M])
    limits = np.stack([same - reach, same + reach], axis=1)
    limits[0] = FOCAL_RANGE
    return limits


def _at_limit(x: Array, camera: Camera) -> str:
    limits = _limits(camera)
    near = np.minimum(x - limits[:, 0], limits[:, 1] - x) < 0.02 * (limits[:, 1] - limits[:, 0])
    names = ("focal length", "principal point", "principal point", "offset", "offset")
    return " and ".join(dict.fromkeys(name for name, at in zip(names, near, strict=True) if at))


def _score(x: Array, views: Sequence[_View], camera: Camera) -> float:
    f, cx, cy, tx, ty = x * _unit(camera)
    total = 0.0
    for view in views:
        p = view.points
        u = (f * (p[:, 0] + tx) / p[:, 2] + cx).astype(np.float32)
        v = (f * (p[:, 1] + ty) / p[:, 2] + cy).astype(np.float32)
        total += float(cv2.remap(view.strength, u[:, None], v[:, None], cv2.INTER_LINEAR).mean())
    return total / len(views)


def _fit(views: Sequence[_View], camera: Camera) -> tuple[Array, float, float]:
    """The best camera in the search's numbers, its score, and that of the images as they are."""
    same = _unchanged(camera)
    steps = np.diag([0.04, 0.01, 0.01, 0.008, 0.004])
    limits = _limits(camera)
    best, best_score = same, _score(same, views, camera)
    unregistered = best_score
    for focal in (0.9, 1.0):
        for offset in (-0.025, 0.0, 0.025):
            start = same.copy()
            start[0], start[3] = focal, offset
            found = minimize(
                lambda x: -_score(x, views, camera),
                start,
                method="Nelder-Mead",
                bounds=limits,
                options={"initial_simplex": start + np.vstack([np.zeros(5), steps]), "maxiter": 120},
            )
            if -found.fun > best_score:
                best, best_score = found.x, -float(found.fun)
    return best, best_score, unregistered


def register_color(frame: Frame, registration: DepthToColor) -> NDArray[np.uint8]:
    """The color (H, W, 3) uint8 of every depth pixel; holes of the depth image take the depth around them.

    ``frame.color`` is as the color camera took it, of its size where that is another (see ``register_images``).
    """
    return register_images(frame.color, frame.depth_m, frame.camera, registration)


def register_images(
    color: NDArray[np.uint8], depth_m: NDArray[np.float32], camera: Camera, registration: DepthToColor
) -> NDArray[np.uint8]:
    """The color (H, W, 3) of every pixel of a depth image (H, W) [m], 0 or NaN: no measurement.

    Args:
        color: of the size of ``registration.camera``.
        camera: intrinsics of the depth image.
    """
    depth = np.nan_to_num(depth_m, nan=0.0)
    hole = depth <= 0.0
    filled = depth.copy()
    # Fill coarse to fine: the median-like mean of what is known around, at growing reach.
    weight = (~hole).astype(np.float32)
    for size in (5, 15, 45, 135):
        mean = cv2.blur(np.where(hole, 0.0, depth).astype(np.float32), (size, size))
        count = cv2.blur(weight, (size, size))
        missing = (filled <= 0.0) & (count > 1e-3)
        filled[missing] = mean[missing] / count[missing]
    # Nothing near is known: far away, where the offset between the lenses shifts nothing.
    filled[filled <= 0.0] = 1e3 if hole.all() else float(np.median(depth[~hole]))
    color_camera = registration.camera
    u = np.arange(camera.width, dtype=np.float64)[None]
    v = np.arange(camera.height, dtype=np.float64)[:, None]
    # Per unit of depth: only the offset depends on it.
    rays = np.stack(np.broadcast_arrays((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0), axis=-1)
    points = rays @ registration.rotation.T + registration.translation_m / filled[..., None]
    map_u = color_camera.fx * points[..., 0] / points[..., 2] + color_camera.cx
    map_v = color_camera.fy * points[..., 1] / points[..., 2] + color_camera.cy
    return cv2.remap(
        color,
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
