"""A table with balls and boxes, ray-cast: exact color and depth without a simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_core.camera import Camera
from wm_perception.types import Frame, PerceptionConfig

CAMERA = Camera(320, 240, 290.0, 290.0, 159.5, 119.5)
CONFIG = PerceptionConfig(stride=1)
RATE_HZ = 30.0


@dataclass
class Thing:
    """A ball (size = diameter) or an upright box (size = three sides) with its center and color."""

    position: tuple[float, float, float]
    size: float | tuple[float, float, float]
    color: tuple[int, int, int]


def camera_pose(eye=(-0.75, 0.0, 0.65), target=(0.05, 0.0, 0.0)):
    z = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = eye
    return pose


def frame(index: int, things: list[Thing], pose=None) -> Frame:
    """Frame ``index`` of a 30 Hz stream: the table top is z = 0, 0.9 x 1.2 m."""
    pose = camera_pose() if pose is None else pose
    u, v = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], axis=-1)
    d, o = rays @ pose[:3, :3].T, pose[:3, 3]
    depth = np.full(u.shape, np.inf)
    color = np.full((*u.shape, 3), 40.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = -(o[2] + 0.75) / d[..., 2]
        depth = np.where(floor > 0.0, floor, depth)
        table = -o[2] / d[..., 2]
        p = o + table[..., None] * d
        hit = (table > 0.0) & (table < depth) & (np.abs(p[..., 0]) < 0.45) & (np.abs(p[..., 1]) < 0.6)
        depth[hit], color[hit] = table[hit], (170, 130, 90)
        for thing in things:
            c = np.asarray(thing.position)
            if np.isscalar(thing.size):
                b, a = (d @ (o - c)), np.einsum("hwi,hwi->hw", d, d)
                root = b * b - a * ((o - c) @ (o - c) - 0.25 * thing.size**2)
                t = (-b - np.sqrt(root)) / a
            else:
                half = 0.5 * np.asarray(thing.size)
                near = np.minimum((c - half - o) / d, (c + half - o) / d).max(axis=-1)
                far = np.maximum((c - half - o) / d, (c + half - o) / d).min(axis=-1)
                t = np.where(near <= far, near, np.nan)
            hit = np.isfinite(t) & (t > 0.0) & (t < depth)
            depth[hit], color[hit] = t[hit], thing.color
    depth = np.where(depth < 4.0, depth, 0.0).astype(np.float32)
    return Frame(round((index + 1) * 1e9 / RATE_HZ), color.astype(np.uint8), depth, CAMERA, pose)
