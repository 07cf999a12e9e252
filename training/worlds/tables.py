"""Tables and cameras of random worlds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, rest_state
from wm_sim.scene_model import CameraModel, OrbitModel

Array = NDArray[np.float64]


def random_table(rng: np.random.Generator) -> tuple[Array, float, BodyDef]:
    """Size (3,) of a table's top [m], the height of its surface [m], and the table."""
    size = np.array([rng.uniform(0.6, 1.1), rng.uniform(0.8, 1.6), rng.uniform(0.02, 0.06)])
    height = float(rng.uniform(0.35, 1.0))
    board = GeomDef(Shape.BOX, size, color=(1.0, 1.0, 1.0, 1.0), material="table")
    legs = tuple(
        GeomDef(
            Shape.BOX,
            np.array([0.05, 0.05, height - size[2]]),
            color=(0.35, 0.30, 0.26, 1.0),
            visual_only=True,
            position=np.array([sx * (0.5 * size[0] - 0.06), sy * (0.5 * size[1] - 0.06), -0.5 * height]),
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    )
    return size, height, BodyDef((board, *legs), 0.0, 0.5, 0.1, True, rest_state((0.0, 0.0, height - 0.5 * size[2])))


def random_camera(
    rng: np.random.Generator, astray: bool, nearest_m: float = 0.55, farthest_m: float = 1.25
) -> CameraModel:
    """Still, swinging around the table, or wandering as if held by hand; astray: some are directed past the table."""
    azimuth, distance = rng.uniform(-np.pi, np.pi), rng.uniform(nearest_m, farthest_m)
    elevation = np.radians(rng.uniform(22.0, 65.0))
    position = distance * np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    target = np.array([*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.0, 0.08)])
    if astray and rng.uniform() < 0.35:
        # The table is cut off by the image's edge, or out of it, so that the image shows no object.
        target += [*rng.normal(0.0, 0.35, 2), rng.normal(0.0, 0.15)]
        position[2] += rng.uniform(0.0, 0.3)
    kind = rng.uniform()
    fov = float(rng.uniform(38.0, 60.0))
    if kind < 0.35:
        orbit = OrbitModel(amplitude=float(rng.uniform(4.0, 30.0)), period=float(rng.uniform(4.0, 10.0)))
        return CameraModel(position=position.tolist(), target=target.tolist(), vertical_fov=fov, orbit=orbit)
    rows: list[list[float]] = []
    if kind < 0.6:
        drift = np.cumsum(rng.normal(0.0, 0.03, (12, 6)), axis=0) * [1, 1, 1, 0.5, 0.5, 0.5]
        for k, by in enumerate(drift):
            p, t = position + by[:3], target + by[3:]
            rows.append([0.5 * k, *p[:2], max(float(p[2]), 0.15), *t])
    return CameraModel(position=position.tolist(), target=target.tolist(), vertical_fov=fov, path=rows)
