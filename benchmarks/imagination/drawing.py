"""How fast imagined frames are drawn, and appearance is learned."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.imagination.speed import OBJECTS, make_scene
from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.rendering.primitives import cast_primitive, ray_directions, scene_bodies, shade
from wm_imagination.rendering.renderer import Renderer


def camera_pose() -> np.ndarray:
    """(4, 4) pose of an optical frame above and beside the table, directed at its center."""
    eye, target = np.array([-0.9, 0.0, 0.7]), np.array([0.0, 0.0, 0.0])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def observe(scene: SceneGraph, camera: Camera, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Color, depth [m] and ids of the scene, drawn from its primitives on a floor."""
    rays = ray_directions(camera, (0, 0, camera.width, camera.height))
    color = np.full((camera.height, camera.width, 3), 120, np.uint8)
    camera_T_world = np.linalg.inv(pose)
    down = rays @ pose[2, :3].astype(np.float32)
    depth = np.where(down < -1e-3, (-0.7 - pose[2, 3]) / np.minimum(down, -1e-3), 8.0).astype(np.float32)
    depth = np.minimum(depth, 6.0)
    ids = np.zeros(depth.shape, np.uint16)
    poses = pose_matrix(scene.positions, scene.quaternions)
    for i in range(len(scene)):
        z, normals = cast_primitive(int(scene.shapes[i]), scene.extents[i], None, camera_T_world @ poses[i], rays)
        nearer = z < depth
        color[nearer] = shade(scene.colors[i], normals[nearer])
        depth[nearer] = z[nearer]
        ids[nearer] = 0 if scene.is_static[i] else scene.ids[i]
    return color, depth, ids


def _median(function: Callable[[], Any], repeats: int) -> float:
    function()
    durations = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        durations.append(time.perf_counter() - begin)
    return float(np.median(durations))


def measure(repeats: int = 5) -> dict[str, float]:
    """Median seconds to render a frame with eight objects moving and at rest, make a renderer, and learn a frame."""
    found: dict[str, float] = {}
    for width, height in ((320, 240), (640, 480)):
        camera = Camera(width, height, 0.9 * width, 0.9 * width, (width - 1) / 2.0, (height - 1) / 2.0)
        pose, scene, memory = camera_pose(), make_scene(), AppearanceMemory()
        color, depth, ids = observe(scene, camera, pose)
        stamp, shift = itertools.count(1), itertools.cycle(np.linspace(0.01, 0.2, 40))
        size = f"{width}x{height}"

        def learn(
            camera: Camera = camera, memory: AppearanceMemory = memory, seen: tuple[Any, ...] = (color, depth, ids)
        ) -> None:
            memory.integrate(next(stamp), seen[0], seen[1], camera, pose, seen[2], scene)  # noqa: B023

        found[f"learn_frame_{size}_s"] = _median(learn, repeats)
        appearance = memory.snapshot()
        found[f"background_{size}_same_view_s"] = _median(lambda a=appearance: Renderer(a, scene), repeats)  # type: ignore[misc]  # noqa: B023
        renderer = Renderer(appearance, scene)
        still = scene_bodies(scene)
        found[f"render_{size}_{OBJECTS}_moving_s"] = _median(
            lambda r=renderer, s=shift: r.render(scene_bodies(make_scene(float(next(s))))),  # type: ignore[misc]
            5 * repeats,
        )
        found[f"render_{size}_at_rest_s"] = _median(lambda r=renderer, b=still: r.render(b), 5 * repeats)  # type: ignore[misc]
        beside = pose.copy()
        beside[1, 3] += 0.15
        found[f"background_{size}_other_view_s"] = _median(
            lambda a=appearance, p=beside: Renderer(a, scene, None, p),  # type: ignore[misc]  # noqa: B023
            repeats,
        )
    return found
