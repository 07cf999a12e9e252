"""Tracks of a true clip with the errors of perception, without rendering an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from training.reasoner.data import LabeledClip
from training.worlds.simulate import Clip
from wm_core.rollout import LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.scene_graph import Shape
from wm_perception.reasoning.features import STEP_S
from wm_perception.reasoning.steps import Step

Array = NDArray[np.float64]


def perceive(labeled: LabeledClip, rng: np.random.Generator) -> list[Step]:
    """The movable objects of a clip at 15 Hz as a tracker would give them, with the true ids.

    An object at rest keeps its position, a few mm off, until it is 6 mm away; a moving one is measured anew in each
    frame; a hidden one goes on and slows down; sizes are a few percent wrong, shapes are mistaken, some objects are
    found late.
    """
    clip = labeled.clip
    rows = np.arange(int(rng.integers(2)), len(clip.times), 2)
    times = clip.times[rows]
    objects = np.flatnonzero(~clip.is_static)
    noise = 0.002 * float(np.exp(rng.normal(0.0, 0.4)))
    table = clip.states[0, 0, :2], 0.5 * clip.extents[0, :2]
    tracks = {int(k): _track(labeled, int(k), rows, noise, rng) for k in objects}
    steps = []
    for n, time in enumerate(times):
        here = [k for k in objects if tracks[k][0][n]]
        positions = np.array([tracks[k][1][n] for k in here]).reshape(-1, 3)
        over = (np.abs(positions[:, :2] - table[0]) < table[1] + 0.02).all(axis=1)
        over &= positions[:, 2] > labeled.table_height_m - 0.03
        steps.append(
            Step(
                time=float(time),
                ids=clip.ids[here],
                positions=positions,
                quaternions=np.array([tracks[k][2][n] for k in here]).reshape(-1, 4),
                velocities=np.array([tracks[k][3][n] for k in here]).reshape(-1, 3),
                extents=np.array([tracks[k][4] for k in here]).reshape(-1, 3),
                shapes=np.array([tracks[k][5] for k in here], dtype=np.int64),
                hulls=tuple(tracks[k][6] for k in here),
                visibilities=np.array([tracks[k][7][n] for k in here]),
                floors=np.where(over, labeled.table_height_m, -np.inf),
            )
        )
    return steps


def _mistaken(clip: Clip, k: int, rng: np.random.Generator) -> tuple[Array, int, Array]:
    extents = clip.extents[k] * (1.0 + rng.normal(0.0, 0.04, 3)) + rng.normal(0.0, 0.002, 3)
    extents = np.maximum(extents, 0.008)
    shape, hull = int(clip.shapes[k]), clip.hulls[k]
    if shape == Shape.CONVEX and rng.uniform() < 0.5:
        round_one = abs(extents[0] - extents[1]) < 0.15 * extents[0]
        shape, hull = int(Shape.CYLINDER if round_one and rng.uniform() < 0.8 else Shape.BOX), np.zeros((0, 3))
    elif shape == Shape.CONVEX:
        hull = hull * (extents / clip.extents[k])
    elif rng.uniform() < 0.06:
        shape = int(Shape.BOX if shape != Shape.BOX else Shape.CYLINDER)
    if shape == Shape.SPHERE:
        extents = np.full(3, extents.mean())
    return extents, shape, hull


def _track(labeled: LabeledClip, k: int, rows: NDArray[np.int64], noise: float, rng: np.random.Generator) -> Any:
    """Whether known (T,), positions, quaternions, velocities, extents, shape, hull, visibilities (T,)."""
    clip = labeled.clip
    count = len(rows)
    extents, shape, hull = _mistaken(clip, k, rng)
    offset = rng.normal(0.0, 0.0025, 3)
    offset[2] = rng.normal(0.0, 0.0015) + 0.5 * (extents[2] - clip.extents[k, 2]) * 0.5
    turn = Rotation.from_rotvec(rng.normal(0.0, 0.02, 3))
    known = clip.present[rows, k].copy()
    first = int(rng.integers(15, 30)) if rng.uniform() < 0.1 else int(rng.integers(0, 4))
    known[: int(np.argmax(known)) + first] = False
    visibility = np.clip(rng.uniform(0.5, 1.3) + rng.normal(0.0, 0.03, count), 0.05, 1.0)
    if rng.uniform() < 0.2:
        begin = int(rng.integers(0, count))
        visibility[begin : begin + int(rng.integers(2, 20))] = 0.0
    # An object that leaves the view below the table is soon forgotten.
    below = np.flatnonzero(clip.states[rows, k, 2] < labeled.table_height_m - 0.25)
    if len(below):
        known[below[0] + int(rng.integers(0, 4)) :] = False
    ground_truth = clip.states[rows, k]
    measured = ground_truth[:, POSITION] + offset
    wander = np.zeros(3)
    positions, quaternions, velocities = measured.copy(), ground_truth[:, QUATERNION].copy(), np.zeros((count, 3))
    at_rest, still, last, held, turned = True, 0, measured[0], measured[0], ground_truth[0, QUATERNION]
    velocity = np.zeros(3)
    for n in range(count):
        wander = 0.6 * wander + rng.normal(0.0, 0.8 * noise, 3)
        seen = measured[n] + wander
        if n == 0 or not known[n]:
            held, last, at_rest = seen, seen, True
            turned = (turn * Rotation.from_quat(ground_truth[n, QUATERNION])).as_quat()
            positions[n], quaternions[n] = seen, turned
            continue
        if visibility[n] == 0.0:
            velocity = velocity * 0.87
            if np.linalg.norm(velocity) < 0.15:
                velocity = np.zeros(3)
            last = last + velocity * STEP_S
            positions[n], velocities[n], quaternions[n] = last, velocity, turned
            held = last
            continue
        away = float(np.linalg.norm(seen - held))
        if at_rest and away > 0.006 + 2.0 * noise:
            at_rest = False
        if at_rest:
            velocity = np.zeros(3)
            last = held
        else:
            turned = (
                Rotation.from_rotvec(rng.normal(0.0, 0.03, 3)) * turn * Rotation.from_quat(ground_truth[n, QUATERNION])
            )
            turned = turned.as_quat()
            velocity = 0.15 * velocity + 0.85 * (seen - last) / STEP_S
            last = seen
            still = still + 1 if np.linalg.norm(ground_truth[n, LINEAR_VELOCITY]) < 0.035 else 0
            if still >= 4:
                at_rest, still = True, 0
                held = positions[max(n - 3, 0) : n].mean(axis=0)
                last = held
        positions[n], quaternions[n] = last, turned
        velocities[n] = velocity if np.linalg.norm(velocity) > 0.03 else 0.0
    return known, positions, quaternions, velocities, extents, shape, hull, visibility
