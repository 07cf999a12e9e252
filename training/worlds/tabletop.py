"""What random table-tops of every split are made of: a table, outlines from above, motion, and a camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from wm_core.interventions import Intervention, InterventionKind
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, rest_state
from wm_sim.scene_model import CameraModel, OrbitModel

Array = NDArray[np.float64]

DURATION_S = 4.0
"""Length of a clip [s]."""
_CLEARANCE_M = 0.002
"""Least distance of two outlines: overlapping objects would be thrown apart."""


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


def outlines_overlap(first: Array, second: Array) -> bool:
    """Whether two convex outlines come closer than a small clearance (separating axes)."""
    for outline in (first, second):
        edge = np.roll(outline, -1, axis=0) - outline
        normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.maximum(np.linalg.norm(edge, axis=1), 1e-9)[:, None]
        a, b = first @ normal.T, second @ normal.T
        if np.maximum(b.min(0) - a.max(0), a.min(0) - b.max(0)).max() > _CLEARANCE_M:
            return False
    return True


def outline_inside(base: Array, outline: Array) -> bool:
    """Whether an outline (P, 2) lies in a convex one (Q, 2), both [m], or reaches a centimeter over it."""
    hull = ConvexHull(base)
    return bool((outline @ hull.equations[:, :2].T + hull.equations[:, 2] < 0.01).all())


def random_movers(
    states: Array, extents: Array, bodies: list[BodyDef], rolls: list[float], rng: np.random.Generator
) -> list[tuple[int, Intervention]]:
    """Up to three objects set in motion, mostly towards others."""
    schedule: list[tuple[int, Intervention]] = []
    count = len(states) - 1
    if count < 1 or rng.uniform() < 0.12:
        return schedule
    chosen = rng.permutation(count)[: int(rng.integers(1, 4))] + 1
    for index in chosen:
        others = [k for k in range(1, count + 1) if k != index]
        angle = rng.uniform(-np.pi, np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        if others and rng.uniform() < 0.85:
            distance = np.linalg.norm(states[others, :2] - states[index, :2], axis=1)
            near = np.array(others)[np.argsort(distance)[:3]]
            target = states[int(rng.choice(near)), :2] + rng.normal(0.0, 0.015, 2)
            direction = target - states[index, :2]
            direction /= max(float(np.linalg.norm(direction)), 1e-6)
        time = float(rng.uniform(0.6, 2.2))
        if rng.uniform() < 0.15:
            # A knock near the top, which may topple it.
            height = 0.35 * float(extents[index, 2])
            impulse = np.array([*direction, 0.0]) * bodies[index].mass * rng.uniform(0.4, 1.2)
            schedule.append(
                (
                    int(index),
                    Intervention(
                        InterventionKind.APPLY_IMPULSE, 0, time, impulse=impulse, point=np.array([0.0, 0.0, height])
                    ),
                )
            )
            continue
        speed = float(rng.uniform(0.25, 0.9 if rolls[index] else 1.6))
        linear = np.array([*(direction * speed), 0.0])
        angular = np.cross([0.0, 0.0, 1.0], linear) / rolls[index] if rolls[index] else np.zeros(3)
        schedule.append(
            (
                int(index),
                Intervention(InterventionKind.SET_VELOCITY, 0, time, linear_velocity=linear, angular_velocity=angular),
            )
        )
    return schedule


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
