"""Primitives, hulls and objects of several convex parts, drawn by casting rays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.camera import Camera
from wm_core.convex_parts import ConvexPart
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.rendering.splatting import NEAR_PLANE_M, NO_DEPTH, Float32


@dataclass(frozen=True)
class Body:
    """One movable object to draw.

    Attributes:
        object_id: >= 1; its remembered appearance is used, or a shaded primitive where there are none.
        world_T_object: (4, 4) pose of its center.
        shape, extents: primitive, extents (3,) [m], before ``scale``.
        color: (3,) 0..1 of the primitive.
        scale: (3,) factors along its own axes.
        restyle: (3,) 0..1, the color that replaces its own (shading and texture contrast stay); None: its
            own.
        hull: (P, 3) [m] for ``Shape.CONVEX``.
        parts: drawn instead of the shape, where there are any.
    """

    object_id: int
    world_T_object: NDArray[np.float64]
    shape: int
    extents: NDArray[np.float64]
    color: NDArray[np.float64] = field(default_factory=lambda: np.full(3, 0.5))
    scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(3))
    restyle: NDArray[np.float64] | None = None
    hull: NDArray[np.float64] | None = None
    parts: tuple[ConvexPart, ...] = ()


def scene_bodies(scene: SceneGraph) -> list[Body]:
    """The movable objects of a scene graph, where they are now."""
    poses = pose_matrix(scene.positions, scene.quaternions)
    return [
        Body(
            int(scene.ids[i]),
            poses[i],
            int(scene.shapes[i]),
            scene.extents[i],
            scene.colors[i],
            hull=scene.hulls[i] if len(scene.hulls[i]) else None,
            parts=scene.parts[i],
        )
        for i in range(len(scene))
        if not scene.is_static[i]
    ]


def ray_directions(camera: Camera, window: tuple[int, int, int, int]) -> Float32:
    """Directions (h, w, 3) with z = 1 of the pixels of a window (x, y, width, height), optical frame."""
    x, y, width, height = window
    u = (np.arange(x, x + width, dtype=np.float32) - np.float32(camera.cx)) / np.float32(camera.fx)
    v = (np.arange(y, y + height, dtype=np.float32) - np.float32(camera.cy)) / np.float32(camera.fy)
    rays = np.empty((height, width, 3), np.float32)
    rays[..., 0], rays[..., 1], rays[..., 2] = u[None, :], v[:, None], 1.0
    return rays


def window_of(pixels: NDArray[np.float64], camera: Camera, margin: int) -> tuple[int, int, int, int] | None:
    """Window (left, top, width, height) around pixels (P, 2), a margin wider; None: outside the image."""
    low = np.floor(np.nanmin(pixels, axis=0)).astype(int) - margin
    high = np.ceil(np.nanmax(pixels, axis=0)).astype(int) + margin + 1
    x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
    x1, y1 = min(int(high[0]), camera.width), min(int(high[1]), camera.height)
    return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross products (...,) of plane vectors (..., 2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def corners(extents: NDArray[np.float64]) -> NDArray[np.float64]:
    """(8, 3) corners of a box of these full sizes (3,) about the origin."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    return signs * np.asarray(extents, np.float64) / 2.0


def _half_spaces(shape: int, extents: NDArray[np.float64], hull: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Planes (F, 4) with n.x + d <= 0 inside, of a box or a convex hull."""
    if shape == Shape.CONVEX and hull is not None and len(hull) >= 4:
        try:
            return np.unique(np.round(ConvexHull(hull).equations, 9), axis=0)
        except QhullError:
            pass
    half = np.asarray(extents, np.float64) / 2.0
    return np.concatenate([np.column_stack([np.eye(3), -half]), np.column_stack([-np.eye(3), -half])])


def cast_primitive(
    shape: int,
    extents: NDArray[np.float64],
    hull: NDArray[np.float64] | None,
    camera_T_object: NDArray[np.float64],
    rays: Float32,
) -> tuple[Float32, Float32]:
    """Depth (h, w) [m], ``NO_DEPTH`` where missed, and normals (h, w, 3) in the object frame, of a primitive.

    Args:
        extents: (3,) full sizes [m]; a sphere or cylinder with unequal ones is an ellipsoid or elliptic
            cylinder.
        rays: (h, w, 3) optical-frame directions with z = 1.
    """
    object_T_camera = invert_transform(camera_T_object)
    direction = (rays.reshape(-1, 3) @ object_T_camera[:3, :3].T.astype(np.float32)).astype(np.float64)
    origin = object_T_camera[:3, 3]
    half = np.asarray(extents, np.float64) / 2.0
    hit = np.full(len(direction), np.inf)
    normals = np.zeros((len(direction), 3))

    def keep_nearest(t: NDArray[np.float64], ok: NDArray[np.bool_], normal: NDArray[np.float64]) -> None:
        better = ok & (t > NEAR_PLANE_M) & (t < hit)
        hit[better] = t[better]
        normals[better] = normal[better]

    def roots(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64] | float) -> tuple:
        discriminant = b * b - a * c
        ok = discriminant >= 0.0
        return (-b - np.sqrt(np.where(ok, discriminant, 0.0))) / np.where(np.abs(a) < 1e-12, 1e-12, a), ok

    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == Shape.SPHERE:
            o, d = origin / half, direction / half
            t, ok = roots(np.sum(d * d, axis=1), d @ o, o @ o - 1.0)
            keep_nearest(t, ok, (origin + t[:, None] * direction) / half**2)
        elif shape in (Shape.CYLINDER, Shape.CAPSULE):
            straight = half[2] - (min(half[0], half[2]) if shape == Shape.CAPSULE else 0.0)
            o, d = origin[:2] / half[:2], direction[:, :2] / half[:2]
            t, ok = roots(np.sum(d * d, axis=1), d @ o, o @ o - 1.0)
            point = origin + t[:, None] * direction
            side = point / np.array([half[0] ** 2, half[1] ** 2, 1.0]) * np.array([1.0, 1.0, 0.0])
            keep_nearest(t, ok & (np.abs(point[:, 2]) <= straight), side)
            for sign in (-1.0, 1.0):
                if shape == Shape.CYLINDER:
                    t = (sign * half[2] - origin[2]) / direction[:, 2]
                    point = origin + t[:, None] * direction
                    disc = (point[:, 0] / half[0]) ** 2 + (point[:, 1] / half[1]) ** 2 <= 1.0
                    keep_nearest(t, disc & np.isfinite(t), np.tile([0.0, 0.0, sign], (len(direction), 1)))
                else:
                    center = np.array([0.0, 0.0, sign * straight])
                    o = origin - center
                    t, ok = roots(np.sum(direction**2, axis=1), direction @ o, o @ o - half[0] ** 2)
                    keep_nearest(t, ok, origin + t[:, None] * direction - center)
        else:
            enter = np.full(len(direction), -np.inf)
            leave = np.full(len(direction), np.inf)
            enter_normal = np.zeros((len(direction), 3))
            for plane in _half_spaces(shape, extents, hull):
                speed, gap = direction @ plane[:3], float(origin @ plane[:3] + plane[3])
                t = -gap / speed
                entering = speed < 0.0
                later = entering & (t > enter)
                enter[later] = t[later]
                enter_normal[later] = plane[:3]
                leave = np.where(speed > 0.0, np.minimum(leave, t), leave)
                leave = np.where((speed == 0.0) & (gap > 0.0), -np.inf, leave)
            keep_nearest(enter, enter < leave, enter_normal)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.where(length > 0.0, length, 1.0)
    depth = np.where(np.isfinite(hit), hit, NO_DEPTH).astype(np.float32)
    return depth.reshape(rays.shape[:2]), normals.astype(np.float32).reshape(rays.shape)


def cast_body(body: Body, camera_T_object: NDArray[np.float64], rays: Float32) -> tuple[Float32, Float32]:
    """As ``cast_primitive``, of a body at its scale: of its parts, the nearest at each ray."""
    if not body.parts:
        hull = None if body.hull is None else body.hull * body.scale
        return cast_primitive(body.shape, body.extents * body.scale, hull, camera_T_object, rays)
    depth = np.full(rays.shape[:2], NO_DEPTH, np.float32)
    normals = np.zeros(rays.shape, np.float32)
    for part in body.parts:
        turn = pose_matrix(part.position * body.scale, part.quaternion)
        # As in physics: a turned part is scaled along its axes nearest to those of the object.
        weights = np.abs(turn[:3, :3])
        scale = weights.T @ body.scale / weights.sum(axis=0)
        own_depth, own_normals = cast_primitive(
            part.shape, part.extents * scale, part.hull * scale, camera_T_object @ turn, rays
        )
        nearer = own_depth < depth
        depth[nearer] = own_depth[nearer]
        normals[nearer] = own_normals[nearer] @ turn[:3, :3].T.astype(np.float32)
    return depth, normals


_LIGHT = np.array([0.30, 0.25, 0.92]) / np.linalg.norm([0.30, 0.25, 0.92])
"""Direction to the light of drawn primitives, world frame: above and a little aside, so that side faces differ."""


def shade(color: NDArray[np.float64], world_normals: Float32) -> NDArray[np.uint8]:
    """Colors (..., 3) uint8 of a matt surface of one color (3,) 0..1 (Lambert's law with a sky term)."""
    brightness = 0.5 + 0.5 * np.clip(world_normals @ _LIGHT.astype(np.float32), 0.0, 1.0)
    return np.clip(255.0 * brightness[..., None] * np.asarray(color, np.float32), 0.0, 255.0).astype(np.uint8)


def recolor(colors: NDArray[np.uint8], target: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colors (..., 3) with another hue: each keeps its brightness relative to the mean (Rec. 709 luma)."""
    if not colors.size:
        return colors
    luma = colors.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    relative = np.clip(luma / max(float(luma.mean()), 1.0), 0.4, 1.6)
    return np.clip(255.0 * relative[..., None] * np.asarray(target, np.float32), 0.0, 255.0).astype(np.uint8)
