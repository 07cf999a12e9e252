"""Faults of a depth image and of its camera pose, from the surfaces in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.camera import Camera
from wm_core.health.findings import Finding, Severity

_ALL = 0.98
"""From this share on all of the depth counts as unusable: what is left is flying pixels."""
_GRID = 80
"""Points along the image's longer side at which normals are computed. Larger is slower, and noisier normals."""
_LEVEL_COSINE = float(np.cos(np.radians(15.0)))
_SAME_COSINE = float(np.cos(np.radians(10.0)))
"""Angles up to which a normal is level, and up to which two are of one direction. Larger finds more of both."""
_MIN_NORMALS = 200
"""Normals below which a pose is not judged."""
_FEW, _MANY = 0.05, 0.15
"""Share of level normals from which a pose is not doubted, and which another reading of it must exceed. A larger first
and a smaller second report more poses, right ones among them."""
_DOMINANT = 0.25
"""Share of normals from which the largest surface is judged. Larger reports fewer poses."""
_UPWARD_DEGREES = 30.0
"""Elevation or roll of the optical axes from which a table camera's pose is doubtful."""

BODY_R_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Optical axes (z forward, x right, y down) in a body frame (x forward, y left, z up), REP-103."""


@dataclass(frozen=True)
class DepthSummary:
    """Figures of a depth image.

    Attributes:
        measured: share of pixels with a measurement, 0..1.
        p05_m, median_m, p95_m: 5, 50 and 95 % quantiles of those [m].
        beyond: share of those beyond the range that is used, 0..1.
    """

    measured: float
    p05_m: float
    median_m: float
    p95_m: float
    beyond: float


def summarize_depth(depth_m: ArrayLike, max_depth_m: float) -> DepthSummary:
    """Figures of a depth image (H, W) [m], 0 or NaN where nothing was measured."""
    depth = np.asarray(depth_m, dtype=np.float32)
    valid = depth[np.isfinite(depth) & (depth > 0.0)]
    if not valid.size:
        return DepthSummary(0.0, 0.0, 0.0, 0.0, 0.0)
    low, middle, high = (float(v) for v in np.percentile(valid, (5.0, 50.0, 95.0)))
    return DepthSummary(valid.size / depth.size, low, middle, high, float((valid > max_depth_m).mean()))


def check_depth(topic: str, summary: DepthSummary, max_depth_m: float, min_fraction: float) -> Finding | None:
    """Depth that is missing or beyond the range used; ``depth_unit`` judges its unit."""
    s = summary
    if s.measured < min_fraction:
        return Finding(
            "empty_depth",
            Severity.WARN,
            f"depth on {topic} has measurements in {100.0 * s.measured:.1f} % of its pixels",
            f"at least {100.0 * min_fraction:g} % (min_depth_fraction)",
            "objects are held by permanence; is the sensor covered, too near, or its emitter off?",
        )
    if s.beyond > _ALL:
        return Finding(
            "beyond_max_depth",
            Severity.ERROR,
            f"everything lies beyond max_depth_m {max_depth_m:g} m: depth on {topic} in "
            f"{100.0 * s.measured:.0f} % of its pixels, median {s.median_m:.2f} m, nearest {s.p05_m:.2f} m",
            run=f"raise max_depth_m to {np.ceil(1.1 * s.p95_m):g}, or bring the camera nearer; "
            "if it is nearer, its unit is another: set depth_scale",
        )
    return None


@dataclass(frozen=True)
class Surfaces:
    """Surface elements of a depth image.

    Attributes:
        normals: (M, 3) unit vectors toward the camera; points: (M, 3) [m]; both in the optical frame.
    """

    normals: NDArray[np.float32]
    points: NDArray[np.float32]


def find_surfaces(depth_m: ArrayLike, camera: Camera, max_depth_m: float = 20.0) -> Surfaces:
    """Surfaces of a depth image (H, W) [m] on a coarse grid.

    Neighbors on the grid lie far apart, so that the sensor's noise turns a normal by little; across edges of depth
    there is none.
    """
    depth = np.asarray(depth_m, dtype=np.float32)
    stride = max(1, round(max(depth.shape) / _GRID))
    points = camera.back_project(depth, stride)
    z = points[..., 2]
    points[~(z <= max_depth_m)] = np.nan
    if min(z.shape) < 3:
        return Surfaces(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    middle = points[1:-1, 1:-1]
    normals = np.cross(down, across)
    length = np.linalg.norm(normals, axis=-1)
    with np.errstate(invalid="ignore"):
        limit = 0.12 * middle[..., 2] + 0.02
        smooth = (np.abs(across[..., 2]) < limit) & (np.abs(down[..., 2]) < limit) & (length > 0.0)
        smooth &= np.isfinite(middle).all(axis=-1)
    seen, at = normals[smooth] / length[smooth][:, None], middle[smooth]
    seen = np.where((np.einsum("mi,mi->m", seen, at) > 0.0)[:, None], -seen, seen)
    return Surfaces(seen.astype(np.float32), at.astype(np.float32))


def level_share(normals: ArrayLike, world_R_camera: ArrayLike) -> float:
    """Share of normals (M, 3, camera frame) that point up in the world, within 15 degrees."""
    up = np.asarray(world_R_camera, dtype=np.float64)[2]
    return float((np.asarray(normals, dtype=np.float64) @ up > _LEVEL_COSINE).mean())


def dominant_normal(normals: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """The direction (3,) that most normals (M, 3) share within 10 degrees, and their share."""
    every = np.asarray(normals, dtype=np.float64)
    some = every[:: max(1, len(every) // 300)]
    near = some @ every.T > _SAME_COSINE
    best = near[int(near.sum(axis=1).argmax())]
    mean = every[best].mean(axis=0)
    return mean / np.linalg.norm(mean), float(best.mean())


def check_gravity(surfaces: Surfaces, world_T_camera: ArrayLike, frame_id: str, world_frame: str) -> Finding | None:
    """A camera pose by which no surface in view is level.

    Args:
        surfaces: those in view (``find_surfaces``).
        world_T_camera: (4, 4), the pose that ``frame_id`` has in ``world_frame``.

    No finding where a level surface is in view, or where no other reading of the pose explains the view (a wall).
    """
    seen = surfaces.normals.astype(np.float64)
    rotation = np.asarray(world_T_camera, dtype=np.float64)[:3, :3]
    if len(seen) < _MIN_NORMALS or level_share(seen, rotation) >= _FEW:
        return None
    elevation, roll = (float(np.degrees(np.arcsin(np.clip(rotation[2, i], -1.0, 1.0)))) for i in (2, 0))
    axis = f"its z axis points {abs(elevation):.0f} degrees {'up' if elevation > 0.0 else 'down'}"
    # A table camera faces down or ahead, with its image upright; each mistake breaks that in its own way.
    for turn, doubtful, what, run in (
        (
            BODY_R_OPTICAL,
            elevation > _UPWARD_DEGREES,
            f"{frame_id!r} is a body frame (x forward) and not an optical one",
            "let the driver stamp images with its optical frame (..._optical_frame), or set camera_frame to it",
        ),
        (
            BODY_R_OPTICAL.T,
            abs(roll) > _UPWARD_DEGREES,
            f"the turn from body to optical axes is in the pose of {frame_id!r} twice",
            f"take one of the two out of tf (ros2 run tf2_ros tf2_echo {world_frame} {frame_id})",
        ),
    ):
        share = level_share(seen, rotation @ turn)
        if doubtful and share > _MANY:
            found = (
                f"gravity and optical axis disagree: nothing seen is level as {frame_id!r} lies in {world_frame!r} "
                f"({axis}); {100.0 * share:.0f} % would be if {what}"
            )
            expected = "an optical frame: z forward, x right, y down"
            return Finding("frame_not_optical", Severity.ERROR, found, expected, run)
    direction, share = dominant_normal(seen)
    degrees = float(np.degrees(np.arccos(np.clip(direction @ rotation[2], -1.0, 1.0))))
    # A wall is at 90 degrees. Between are tables and floors under a wrong pose, and ramps; a camera that faces up sees
    # only surfaces that face down.
    if share > _DOMINANT and 12.0 < degrees < (130.0 if elevation > _UPWARD_DEGREES else 65.0):
        found = (
            f"gravity and optical axis disagree: the largest surface in view ({100.0 * share:.0f} % of it) leans by "
            f"{degrees:.0f} degrees as {frame_id!r} lies in {world_frame!r} ({axis}), and nothing is level"
        )
        run = f"is {world_frame} z up, the mounting right? (ros2 run tf2_ros tf2_echo {world_frame} {frame_id})"
        return Finding("gravity", Severity.WARN, found, "a level table or floor in view", run)
    return None


def check_support(
    supports_in_view: int, min_area_m2: float, max_depth_m: float, others: Sequence[Finding] = ()
) -> Finding | None:
    """No surface that carries objects; reported only where no other finding explains it."""
    if supports_in_view or others:
        return None
    return Finding(
        "no_support",
        Severity.WARN,
        "no support in view: no horizontal surface was found, so nothing can stand on it and no object is looked for",
        f"one of at least {min_area_m2:g} m2 (support_min_area_m2) within {max_depth_m:g} m (max_depth_m)",
        "point the camera at the table or floor; if it is, is the world frame z up? (wm doctor --picture)",
    )
