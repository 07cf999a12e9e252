"""What is set in motion in a random world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.interventions import Intervention, InterventionKind
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef

Array = NDArray[np.float64]

DURATION_S = 4.0
"""Length of a clip [s]."""


def movers(
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


def sweeping_pusher(states: Array, table_top: float, rng: np.random.Generator) -> tuple[BodyDef, Intervention]:
    """A kinematic block that sweeps through where an object stands."""
    size = np.array([rng.uniform(0.03, 0.06), rng.uniform(0.06, 0.16), rng.uniform(0.05, 0.12)])
    target = states[int(rng.integers(1, len(states))), :2]
    angle = rng.uniform(-np.pi, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    start, end = target - 0.30 * direction, target + rng.uniform(0.0, 0.15) * direction
    z = table_top + 0.5 * size[2] + 0.012
    begin = rng.uniform(0.3, 1.0)
    times = np.array([0.0, begin, begin + np.linalg.norm(end - start) / rng.uniform(0.15, 0.4), DURATION_S + 1.0])
    positions = np.array([[*start, z + 0.35], [*start, z], [*end, z], [*end, z]])
    quaternion = Rotation.from_euler("z", angle).as_quat()
    geom = GeomDef(Shape.BOX, size, color=(1.0, 1.0, 1.0, 1.0), material="pusher")
    path = Intervention(
        InterventionKind.FOLLOW_PATH,
        0,
        0.0,
        path_times=times,
        path_positions=positions,
        path_quaternions=np.tile(quaternion, (len(times), 1)),
    )
    return BodyDef((geom,), 0.5, 0.4, 0.1), path
