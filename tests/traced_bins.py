"""Bins and shelves as boxes on the traced table, in a world that may be turned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from traced_table import CONFIG, Thing, camera_pose, frame
from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.supports import Support, SupportMap
from wm_perception.types import Cloud, Frame

WALL_M = 0.012


def bin_of(
    center: tuple[float, float], size: tuple[float, float, float], color: tuple[int, int, int] = (60, 90, 160)
) -> list[Thing]:
    """Four walls about a place (middle of wall to middle of wall), and a floor of 6 mm."""
    x, y = center
    length, width, height = size
    walls = [Thing((x, y, 0.003), (length, width, 0.006), color)]
    for sign in (-1.0, 1.0):
        walls.append(
            Thing(
                (x + 0.5 * sign * length, y, 0.5 * height),
                (WALL_M, width + WALL_M, height),
                (color[0] + 20, *color[1:]),
            )
        )
        walls.append(
            Thing(
                (x, y + 0.5 * sign * width, 0.5 * height),
                (length - WALL_M, WALL_M, height),
                (color[0] + 40, *color[1:]),
            )
        )
    return walls


def around(azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """Pose (4, 4) of a camera that looks at the middle of the table; angles [rad], distance [m]."""
    c = np.cos(elevation)
    return camera_pose(
        eye=(distance * c * np.cos(azimuth), distance * c * np.sin(azimuth), distance * np.sin(elevation)),
        target=(0.0, 0.0, 0.03),
    )


def seen(
    index: int, things: list[Thing], pose: np.ndarray, yaw: float = 0.0, noise_m: float = 0.0, seed: int = 0
) -> Frame:
    """The frame in a world that is turned by a yaw [rad], with noise of depth [m]."""
    given = frame(index, things, pose)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    noise = np.random.default_rng(seed).normal(0.0, max(noise_m, 1e-9), given.depth_m.shape)
    depth = np.where(given.depth_m > 0.0, given.depth_m + noise, 0.0).astype(np.float32)
    return replace(given, depth_m=depth, world_T_camera=turn @ given.world_T_camera)


def lifted(given: Frame) -> tuple[Cloud, np.ndarray, np.ndarray, tuple[Support, ...]]:
    """Cloud, height over the supports, their index, and the supports of a frame alone."""
    cloud = make_cloud(given, CONFIG.stride, CONFIG.max_depth_m)
    ids = iter(range(1, 100))
    supports = SupportMap(CONFIG, lambda: next(ids))
    for stamp in (1, 2):
        supports.update(cloud, stamp)
    height, which = supports.heights(cloud)
    return cloud, height, which, supports.snapshot()
