"""Points of an object on a table as a depth camera sees them: rays cast at its true parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.convex_parts import ConvexPart
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef, geom_points
from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.shapes.surfaces import hull_planes
from wm_perception.tracking.observation import Observation
from wm_perception.types import Frame, Segmentation
from wm_sim import objects
from wm_sim.cameras import look_at

MAX_POINTS = 500
"""As of a segment in the pipeline."""
WHITE = (1.0, 1.0, 1.0, 1.0)
PLACE = np.array([0.05, -0.02, 0.0])
FOCAL_PX = 290.0
"""Of images of 320x240 pixels: every second of a camera of 640x480."""


def seen_points(
    parts: Sequence[GeomDef],
    eye: Sequence[float],
    position: Sequence[float] = (0.0, 0.0, 0.0),
    quaternion: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
    noise: float = 0.0,
    seed: int = 0,
) -> NDArray[np.float64]:
    """World points (P, 3) of an object whose frame is at a pose over the table z = 0, at most some hundred of them.

    Args:
        noise: part of the depth noise of a camera, along the ray.
    """
    origin, place = np.asarray(eye, np.float64), np.asarray(position, np.float64)
    solids = [placed(geom_points(p), position, quaternion) for p in parts if not p.visual_only]
    forward = place + [0.0, 0.0, 0.05] - origin
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    u, v = np.meshgrid(np.arange(320) - 159.5, np.arange(240) - 119.5)
    rays = (forward + (u[..., None] * right + v[..., None] * down) / FOCAL_PX).reshape(-1, 3)
    # Only rays near the object, and a length along them is depth.
    corners = np.concatenate(solids) - origin
    seen = np.stack([corners @ right, corners @ down], axis=1) / (corners @ forward)[:, None]
    at = np.stack([u.ravel(), v.ravel()], axis=1) / FOCAL_PX
    rays = rays[((at > seen.min(axis=0)) & (at < seen.max(axis=0))).all(axis=1)]
    depth, _ = cast(solids, origin, rays)
    rays, depth = rays[np.isfinite(depth)], depth[np.isfinite(depth)]
    rng = np.random.default_rng(seed)
    depth = depth + noise * depth_noise_m(depth.astype(np.float32)) * rng.standard_normal(len(depth))
    points = origin + rays * depth[:, None]
    points = points[points[:, 2] > 0.008]
    return points[:: max(1, len(points) // MAX_POINTS)]


def cast(
    solids: Sequence[NDArray[np.float64]], origin: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How far along rays (P, 3) the first of some convex hulls of points begins, inf: none; and which one, -1: none."""
    depth, which = np.full(len(rays), np.inf), np.full(len(rays), -1)
    for k, solid in enumerate(solids):
        planes = hull_planes(solid)
        ahead, offset = rays @ planes[:, :3].T, -(planes[:, :3] @ origin + planes[:, 3])
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = offset / ahead
        enter = np.where(ahead < 0.0, cut, -np.inf).max(axis=1)
        leave = np.where(ahead > 0.0, cut, np.inf).min(axis=1)
        nearer = (enter < leave) & (enter > 0.0) & (enter < depth)
        depth, which = np.where(nearer, enter, depth), np.where(nearer, k, which)
    return depth, which


def seen_frame(
    parts: Sequence[GeomDef], eye: Sequence[float], target: Sequence[float] = (0.0, 0.0, 0.05)
) -> tuple[Frame, NDArray[np.int32]]:
    """A clean frame of 320x240 pixels of parts over the table z = 0, and which part each pixel shows, 0: none."""
    camera = Camera(320, 240, FOCAL_PX, FOCAL_PX, 159.5, 119.5)
    pose = look_at(eye, target)
    u, v = np.meshgrid(np.arange(320) - 159.5, np.arange(240) - 119.5)
    rays = (np.stack([u, v, np.full_like(u, FOCAL_PX)], axis=-1).reshape(-1, 3) / FOCAL_PX) @ pose[:3, :3].T
    depth, which = cast([geom_points(p) for p in parts], pose[:3, 3], rays)
    with np.errstate(divide="ignore"):
        table = np.where(rays[:, 2] < 0.0, -pose[2, 3] / rays[:, 2], np.inf)
    which = np.where(depth < table, which, -1)
    depth = np.minimum(depth, table)
    colors = np.array([*(np.multiply(p.color[:3], 255.0) for p in parts), (170.0, 130.0, 90.0)])
    image = np.where(np.isfinite(depth) & (depth < 5.0), depth, 0.0).astype(np.float32).reshape(240, 320)
    color = colors[which].astype(np.uint8).reshape(240, 320, 3)
    return Frame(1, color, image, camera, pose), (which + 1).astype(np.int32).reshape(240, 320)


def segment(points: NDArray[np.float64]) -> Observation:
    """Points (P, 3) as the segment of a whole object on the table z = 0."""
    low, high = np.percentile(points, [2.0, 98.0], axis=0)
    return Observation(
        points=points,
        noise_m=0.0015,
        color=np.full(3, 128.0),
        pixels=len(points),
        bottom=0.0,
        support_height=0.0,
        height_low=float(low[2]),
        height_high=float(high[2]),
        on_border=False,
        outside_fraction=0.0,
        extent=float((high - low).max()),
        center=0.5 * (low + high),
        area_m2=0.01,
        score=0.9,
    )


def segmentation_of(ids: NDArray[Any], least: int = 1, score: float = 1.0) -> Segmentation:
    """What a segmenter says that was told the masks: ids (h, w) of objects, 0: none, of ``least`` pixels or more."""
    present = [number for number in np.unique(ids) if number and int((ids == number).sum()) >= least]
    labels = np.zeros(ids.shape, np.int32)
    for row, number in enumerate(present, start=1):
        labels[ids == number] = row
    count = len(present)
    return Segmentation(labels, np.full(count, -1, np.int64), ("object",) * count, np.full(count, score, np.float32))


class Told:
    """A segmenter that is told its labels, (h, w)."""

    def __init__(self) -> None:
        self.labels: NDArray[np.int32] = np.zeros((0, 0), np.int32)

    def segment(self, frame, cloud, candidates, height, predicted) -> Segmentation:
        """As ``Segmenter.segment``."""
        return segmentation_of(self.labels, least=30, score=0.9)


def contains(part: ConvexPart, points: NDArray[np.float64], slack: float = 0.0) -> NDArray[np.bool_]:
    """Which of points (P, 3) are within a ``ConvexPart``'s hull, or nearer to it than ``slack`` [m]."""
    planes = hull_planes(part.points())
    return np.asarray((points @ planes[:, :3].T + planes[:, 3]).max(axis=1) <= slack)


def placed(points: NDArray[np.float64], position: Sequence[float], quaternion: Sequence[float]) -> NDArray[np.float64]:
    """Points (P, 3) of an object's frame in the world."""
    return np.asarray(points @ quaternion_to_matrix(quaternion).T + position)


def eye_at(elevation_deg: float, distance: float = 0.8) -> NDArray[np.float64]:
    """Where a camera is that looks down at this angle."""
    angle = np.radians(elevation_deg)
    return np.array([-distance * np.cos(angle), 0.0, distance * np.sin(angle) + 0.05])


def tray(length: float, width: float, height: float, thick: float) -> list[GeomDef]:
    """An open box [m]."""

    def box(size: tuple[float, float, float], center: tuple[float, float, float]) -> GeomDef:
        return GeomDef(Shape.BOX, np.array(size), position=np.array(center), color=WHITE)

    y, x = 0.5 * (width - thick), 0.5 * (length - thick)
    return [
        box((length, width, thick), (0.0, 0.0, 0.5 * thick)),
        *(box((length, thick, height), (0.0, s * y, 0.5 * height)) for s in (-1, 1)),
        *(box((thick, width, height), (s * x, 0.0, 0.5 * height)) for s in (-1, 1)),
    ]


def pan(diameter: float, height: float, handle: float) -> list[GeomDef]:
    """A pan, its handle toward +x [m]."""
    grip = GeomDef(
        Shape.BOX,
        np.array([handle, 0.022, 0.014]),
        position=np.array([0.5 * diameter + 0.5 * handle - 0.008, 0.0, 0.85 * height]),
        color=WHITE,
    )
    return [*objects.bowl(diameter, height, WHITE), grip]


def ball_fits(parts: Sequence[ConvexPart], center: NDArray[np.float64], radius: float) -> bool:
    """Whether no part comes nearer to a point than a radius [m]."""
    spread = np.random.default_rng(0).normal(size=(200, 3))
    inside = center + radius * spread / np.linalg.norm(spread, axis=1)[:, None]
    return not any(contains(part, np.concatenate([inside, center[None]])).any() for part in parts)
