"""Pictures of a table with boxes, by casting rays: what folders and bags of the tests hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.geometry import pose_matrix

CAMERA = Camera(320, 240, 280.0, 280.0, 159.5, 119.5)
BOXES = (
    ((-0.12, -0.08, 0.0), (0.08, 0.10, 0.12), (200, 40, 40)),
    ((0.14, 0.05, 0.0), (0.12, 0.07, 0.08), (40, 60, 200)),
)
"""Middle of the foot, size [m], color."""
TABLE_HALF_M = 0.6
FLOOR_BELOW_M = 0.8


def look_down(pitch_deg: float, distance_m: float = 0.9) -> NDArray[np.float64]:
    """Pose (4, 4) of an optical frame that looks at the middle of the table, tilted down by so much."""
    a = np.radians(pitch_deg)
    forward = np.array([np.cos(a), 0.0, -np.sin(a)])
    right = np.array([0.0, -1.0, 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = -distance_m * forward
    return pose


def render(
    world_T_camera: NDArray[np.float64], camera: Camera = CAMERA
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Color (H, W, 3) and depth (H, W) [m] of the table: its top is z = 0, the floor lies below it."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u, float)], axis=-1)
    rays = rays @ world_T_camera[:3, :3].T  # of length 1 along the optical axis: a ray's parameter is depth
    origin = world_T_camera[:3, 3]
    depth = np.full(u.shape, np.inf)
    color = np.zeros((*u.shape, 3), np.uint8)
    with np.errstate(divide="ignore", invalid="ignore"):
        for height, half, shade in ((-FLOOR_BELOW_M, 20.0, (90, 90, 90)), (0.0, TABLE_HALF_M, (180, 150, 110))):
            t = (height - origin[2]) / rays[..., 2]
            point = origin + rays * t[..., None]
            hit = (t > 0) & (t < depth) & (np.abs(point[..., :2]) < half).all(axis=-1)
            depth[hit], color[hit] = t[hit], shade
        for foot, size, shade in BOXES:
            low = np.array(foot) - [0.5 * size[0], 0.5 * size[1], 0.0]
            t = np.stack([(low - origin) / rays, (low + size - origin) / rays])
            near, far = t.min(axis=0).max(axis=-1), t.max(axis=0).min(axis=-1)
            hit = (near < far) & (near > 0) & (near < depth)
            # Each face in another shade: edges are seen.
            face = t.min(axis=0).argmax(axis=-1)
            depth[hit] = near[hit]
            color[hit] = (np.array(shade) * np.array([0.7, 0.85, 1.0])[face[hit]][:, None]).astype(np.uint8)
    depth[~np.isfinite(depth)] = 0.0
    return color, depth.astype(np.float32)


def millimeters(depth: NDArray[np.float32], per_meter: float = 1000.0) -> NDArray[np.uint16]:
    """As 16-bit images keep it."""
    return np.round(depth * per_meter).astype(np.uint16)


def orbit(count: int, pitch_deg: float = 45.0) -> list[NDArray[np.float64]]:
    """Poses (4, 4) that go round the table a little, as a hand would."""
    poses = []
    for i in range(count):
        yaw = 0.02 * i
        turn = pose_matrix([0.0, 0.0, 0.0], [0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])
        poses.append(turn @ look_down(pitch_deg))
    return poses
