"""A table with a box, a ball and a wall behind, ray-traced analytically: exact color, depth and ids for tests."""

from __future__ import annotations

import numpy as np

from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph, Shape

TABLE, BOX, BALL = 1, 2, 3
CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)


def look_at(eye, target=(0.0, 0.0, 0.05)) -> np.ndarray:
    """(4, 4) ``world_T_camera`` of an optical frame at ``eye`` that looks at ``target``, image upright."""
    eye, target = np.asarray(eye, float), np.asarray(target, float)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


FRONT = look_at((-0.9, 0.0, 0.6))


def make_scene(
    box_position=(0.0, 0.12, 0.05), ball_position=(0.05, -0.12, 0.04), box_quaternion=(0, 0, 0, 1), **given
) -> SceneGraph:
    """The graph: a static table top at z = 0, a red box of 10 cm and a blue ball of 8 cm on it."""
    return SceneGraph.build(
        [TABLE, BOX, BALL],
        [(0.0, 0.0, -0.02), box_position, ball_position],
        [(0.8, 1.0, 0.04), (0.1, 0.1, 0.1), (0.08, 0.08, 0.08)],
        shapes=[Shape.BOX, Shape.BOX, Shape.SPHERE],
        quaternions=[(0, 0, 0, 1), box_quaternion, (0, 0, 0, 1)],
        class_names=["support", "object", "object"],
        is_static=[True, False, False],
        colors=[(0.7, 0.6, 0.4), (0.8, 0.1, 0.1), (0.1, 0.2, 0.8)],
        **given,
    )


def _texture(object_id: int, local: np.ndarray) -> np.ndarray:
    """Smoothly varying colors (P, 3) 0..255 that mark the place on the surface."""
    base = {0: (150, 160, 150), TABLE: (180, 150, 100), BOX: (205, 40, 40), BALL: (40, 60, 205)}[object_id]
    wave = 12.0 * np.sin(local[:, :1] * 40.0) + 12.0 * np.cos(local[:, 1:2] * 35.0) + 8.0 * np.sin(local[:, 2:] * 50)
    return np.clip(np.asarray(base, float) + wave, 0, 255)


def trace(
    scene: SceneGraph,
    world_T_camera: np.ndarray = FRONT,
    camera: Camera = CAMERA,
    without: tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """color (H, W, 3) uint8, depth (H, W) float32 [m], ids (H, W) uint16 (0 for table and wall), exactly."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1).reshape(-1, 3)
    direction = rays @ world_T_camera[:3, :3].T
    origin = world_T_camera[:3, 3]
    depth = np.full(len(rays), np.inf)
    color = np.zeros((len(rays), 3))
    ids = np.zeros(len(rays), np.uint16)

    def paint(t: np.ndarray, hit: np.ndarray, object_id: int, object_T_world: np.ndarray) -> None:
        nearer = hit & (t > 0.01) & (t < depth)
        points = origin + t[nearer, None] * direction[nearer]
        depth[nearer] = t[nearer]
        color[nearer] = _texture(object_id, points @ object_T_world[:3, :3].T + object_T_world[:3, 3])
        ids[nearer] = object_id if object_id != TABLE else 0

    with np.errstate(divide="ignore", invalid="ignore"):
        wall = (1.5 - origin[0]) / direction[:, 0]  # the plane x = 1.5, behind the table
        paint(wall, np.isfinite(wall), 0, np.eye(4))
        floor = (-0.6 - origin[2]) / direction[:, 2]
        paint(floor, np.isfinite(floor), 0, np.eye(4))
        for i, object_id in enumerate(scene.ids.tolist()):
            if object_id in without:
                continue
            to_object = invert_transform(pose_matrix(scene.positions[i], scene.quaternions[i]))
            o, d = to_object[:3, :3] @ origin + to_object[:3, 3], direction @ to_object[:3, :3].T
            half = scene.extents[i] / 2.0
            if scene.shapes[i] == Shape.SPHERE:
                a, b, c = np.sum(d * d, 1), d @ o, o @ o - half[0] ** 2
                root = b * b - a * c
                paint((-b - np.sqrt(np.maximum(root, 0.0))) / a, root >= 0.0, object_id, to_object)
            else:
                low, high = (-half - o) / d, (half - o) / d
                enter, leave = np.minimum(low, high).max(1), np.maximum(low, high).min(1)
                paint(enter, enter < leave, object_id, to_object)
    shape = (camera.height, camera.width)
    return (
        np.round(color).astype(np.uint8).reshape(*shape, 3),
        np.where(np.isfinite(depth), depth, 0.0).astype(np.float32).reshape(shape),
        ids.reshape(shape),
    )


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio [dB] of two uint8 images, over a mask if given; infinite when equal."""
    error = (a.astype(float) - b.astype(float)) ** 2
    mean = float(error[where].mean() if where is not None else error.mean())
    return float("inf") if mean == 0.0 else 10.0 * np.log10(255.0**2 / mean)
