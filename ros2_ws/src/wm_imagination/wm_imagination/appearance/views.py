"""Surfaces in one RGB-D view: their geometry, their noise, and masks of objects."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.points import Float32, SurfacePoints, move_points, turn_vectors


def depth_tolerance(depth_m: Float32) -> Float32:
    """Difference [m] within which two depths count as the same surface.

    1 cm plus about three standard deviations of a structured-light camera's axial noise, which grows with the
    square of the distance (Nguyen, Izadi, Lovell 2012).
    """
    return (0.01 + 0.005 * np.square(depth_m)).astype(np.float32)


def support_top(scene: SceneGraph, row: int) -> float:
    """Height [m] of a support's surface in its own frame: that of its seen corners, else of its extents."""
    hull = scene.hulls[row]
    return float(np.max(hull[:, 2])) if len(hull) >= 3 else float(scene.extents[row, 2]) / 2.0


def grow_masks(color: NDArray[np.uint8], instance_ids: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Instance ids (H, W) with the pixels around each mask that may hold the object's color.

    A narrow fringe always (blur and demosaicing mix colors there), and beyond it, up to about three times as far, the
    pixels whose color is nearer to that of the object's rim than to that around it: masks come from depth, whose edges
    are ragged and never perfectly aligned with the colors.
    """
    width = instance_ids.shape[1]
    narrow, wide = max(1, round(width / 210)), max(2, round(width / 75))
    mask = (instance_ids > 0).astype(np.uint8)
    if not mask.any():
        return instance_ids.copy()

    def grown(by: int) -> NDArray[np.uint16]:
        return cv2.dilate(instance_ids, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1)))

    fringe, around = grown(narrow), grown(wide)
    pixels = color.astype(np.float32)

    def mean_of(weight: Float32, by: int) -> tuple[Float32, Float32]:
        size = (2 * by + 1, 2 * by + 1)
        total = cv2.blur(weight, size)
        return cv2.blur(pixels * weight[..., None], size) / np.maximum(total, 1e-6)[..., None], total

    inner, has_inner = mean_of(mask.astype(np.float32), wide)
    outer, has_outer = mean_of((around == 0).astype(np.float32), 2 * wide)
    rows = np.flatnonzero((around > 0) & (fringe == 0) & (has_inner > 1e-4) & (has_outer > 1e-4))
    own, inside, beyond = (a.reshape(-1, 3)[rows] for a in (pixels, inner, outer))
    contrast = np.linalg.norm(inside - beyond, axis=1)
    like_object = np.linalg.norm(own - inside, axis=1) < 0.8 * np.linalg.norm(own - beyond, axis=1)
    joined = (fringe > 0).astype(np.uint8)
    joined.ravel()[rows[like_object & (contrast > 25.0)]] = 1
    # Pixels that are not connected to the mask belong to something else of that color.
    count, labels = cv2.connectedComponents(joined, connectivity=4)
    touching = np.zeros(count, bool)
    touching[np.unique(labels[mask > 0])] = True
    owner = np.where((joined > 0) & touching[labels], around, 0)
    return np.where(fringe > 0, fringe, owner).astype(np.uint16) * (mask == 0) + instance_ids


@dataclass
class View:
    """One frame, prepared for comparing samples with it.

    Attributes:
        camera, world_T_camera: intrinsics and pose of the optical frame.
        depth: (H, W) [m], 0: none.
        ids: (H, W) object ids, 0: background.
        near_object: (H, W), pixels of or beside an object.
        grown_ids: (H, W) object ids with the pixels around that may hold the object's color.
    """

    camera: Camera
    world_T_camera: NDArray[np.float64]
    depth: Float32
    ids: NDArray[np.uint16]
    near_object: NDArray[np.bool_]
    grown_ids: NDArray[np.uint16]

    def look_up(self, camera_points: Float32) -> tuple[NDArray[np.bool_], NDArray[np.int64], Float32]:
        """Inside the image (P,), flat pixel index (P,) (0 outside), depth of the points (P,) [m]."""
        z = camera_points[:, 2]
        safe = np.where(z > 0.05, z, np.float32(1.0))
        # float to int truncates: adding a half rounds, and what is negative is masked below.
        u = np.floor(camera_points[:, 0] * (np.float32(self.camera.fx) / safe) + np.float32(self.camera.cx + 0.5))
        v = np.floor(camera_points[:, 1] * (np.float32(self.camera.fy) / safe) + np.float32(self.camera.cy + 0.5))
        inside = (z > 0.05) & (u >= 0) & (u < self.camera.width) & (v >= 0) & (v < self.camera.height)
        pixel = np.where(inside, v * self.camera.width + u, 0).astype(np.int64)
        return inside, pixel, z


@dataclass(frozen=True)
class VisibleSurface:
    """Background pixels of one frame, transformed to the world frame only when they are needed.

    Attributes:
        rows: (P,) flat pixel indices.
        points: (P, 3) [m, optical frame].
        colors, normals: (H*W, 3) uint8 RGB, and unit vectors in the optical frame.
        spacing: (H*W,) [m].
        world_T_camera: (4, 4) pose of the optical frame.
    """

    rows: NDArray[np.int64]
    points: Float32
    colors: NDArray[np.uint8]
    normals: Float32
    spacing: Float32
    world_T_camera: NDArray[np.float64]

    def in_world(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> SurfacePoints:
        """The chosen ones of the P samples."""
        rows = self.rows[chosen]
        return SurfacePoints(
            move_points(self.world_T_camera, self.points[chosen]),
            self.colors[rows],
            turn_vectors(self.world_T_camera, self.normals[rows]),
            self.spacing[rows],
            np.zeros(len(rows), np.float32),
        )


def surface_geometry(depth_m: Float32, camera: Camera) -> tuple[Float32, Float32, Float32, NDArray[np.bool_]]:
    """Organized points (H, W, 3) [m, optical frame], normals (H, W, 3) toward the camera, spacing (H, W) [m].

    And where a measurement stands on one surface (H, W), not between two (flying pixels) nor beside a hole.
    """
    depth = np.where(depth_m > 0.0, depth_m, np.float32(0.0))
    valid = depth > 0.0
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)
    solid = valid & (spread < 0.01 + 0.04 * depth)
    ray_x = ((np.arange(camera.width, dtype=np.float32) - camera.cx) / camera.fx).astype(np.float32)
    ray_y = ((np.arange(camera.height, dtype=np.float32) - camera.cy) / camera.fy).astype(np.float32)
    points = np.empty((*depth.shape, 3), np.float32)
    np.multiply(depth, ray_x[None, :], out=points[..., 0])
    np.multiply(depth, ray_y[:, None], out=points[..., 1])
    points[..., 2] = depth
    smooth = cv2.blur(depth, (5, 5))
    gx = np.zeros_like(depth)
    gy = np.zeros_like(depth)
    gx[:, 1:-1] = 0.5 * (smooth[:, 2:] - smooth[:, :-2])
    gy[1:-1] = 0.5 * (smooth[2:] - smooth[:-2])
    # n ~ (fx dz/du, fy dz/dv, -(z + (u-cx) dz/du + (v-cy) dz/dv)): the cross product of the image-plane
    # tangents of the perspective surface.
    nx, ny = camera.fx * gx, camera.fy * gy
    nz = -(depth + ray_x[None, :] * nx + ray_y[:, None] * ny)
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9)
    normals = np.stack([nx / length, ny / length, nz / length], axis=-1)
    pitch = depth / np.float32(camera.fx)
    spacing = np.minimum(np.sqrt(pitch * pitch + gx * gx + gy * gy), 4.0 * pitch)
    return points, normals.astype(np.float32, copy=False), spacing, solid
