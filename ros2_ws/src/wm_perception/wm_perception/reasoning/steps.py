"""The movable objects of one instant, from a scene graph or between two of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.convex_parts import ConvexPart
from wm_core.rotations import rotation_matrices
from wm_core.scene_graph import SceneGraph
from wm_perception.reasoning.features import SLOTS
from wm_perception.types import Array


@dataclass(frozen=True)
class Step:
    """The N movable objects of one instant.

    Attributes:
        time: since the reasoner's start [s].
        ids: (N,); shapes: (N,) ``Shape``; hulls: N arrays (P, 3) in the object frame [m].
        positions: (N, 3) centers, world frame [m]; quaternions: (N, 4) x, y, z, w.
        velocities: (N, 3) world axes [m/s]; extents: (N, 3) full sizes along the objects' own axes [m].
        visibilities: (N,) 0..1.
        floors: (N,) height of the highest support below [m], -inf: none.
        parts: N tuples of convex parts, each empty where the object is its shape; empty: of all.
    """

    time: float
    ids: NDArray[np.int64]
    positions: Array
    quaternions: Array
    velocities: Array
    extents: Array
    shapes: NDArray[np.int64]
    hulls: tuple[Array, ...]
    visibilities: Array
    floors: Array
    parts: tuple[tuple[ConvexPart, ...], ...] = ()


def step_of(scene: SceneGraph, time: float) -> Step:
    """The movable objects of a scene graph, at most ``SLOTS``."""
    rows = np.flatnonzero(~scene.is_static)[:SLOTS]
    floors = np.full(len(rows), -np.inf)
    for k in np.flatnonzero(scene.is_static):
        rotation = rotation_matrices(scene.quaternions[k : k + 1])[0]
        local = (scene.positions[rows] - scene.positions[k]) @ rotation
        over = (np.abs(local[:, :2]) < 0.5 * scene.extents[k, :2] + 0.02).all(axis=1) & (local[:, 2] > -0.02)
        top = scene.positions[k, 2] + 0.5 * scene.extents[k, 2]
        floors[over] = np.maximum(floors[over], top)
    return Step(
        time=time,
        ids=scene.ids[rows],
        positions=scene.positions[rows],
        quaternions=scene.quaternions[rows],
        velocities=scene.linear_velocities[rows],
        extents=scene.extents[rows],
        shapes=scene.shapes[rows],
        hulls=tuple(scene.hulls[k] for k in rows),
        visibilities=scene.visibilities[rows],
        floors=floors,
        parts=tuple(scene.parts[k] for k in rows),
    )


def between(a: Step, b: Step, time: float) -> Step:
    """The instant between two steps; objects of ``b`` that ``a`` did not have are as in ``b``."""
    weight = float(np.clip((time - a.time) / max(b.time - a.time, 1e-9), 0.0, 1.0))
    if weight > 0.97:
        return replace(b, time=time)
    positions, quaternions, velocities = b.positions.copy(), b.quaternions.copy(), b.velocities.copy()
    visibilities = b.visibilities.copy()
    where = {int(i): k for k, i in enumerate(a.ids)}
    for k, i in enumerate(b.ids):
        if (j := where.get(int(i))) is None:
            continue
        positions[k] += (1.0 - weight) * (a.positions[j] - b.positions[k])
        velocities[k] += (1.0 - weight) * (a.velocities[j] - b.velocities[k])
        sign = 1.0 if a.quaternions[j] @ b.quaternions[k] >= 0.0 else -1.0
        mixed = (1.0 - weight) * sign * a.quaternions[j] + weight * b.quaternions[k]
        quaternions[k] = mixed / np.linalg.norm(mixed)
        visibilities[k] = min(a.visibilities[j], b.visibilities[k])
    return Step(
        time, b.ids, positions, quaternions, velocities, b.extents, b.shapes, b.hulls, visibilities, b.floors, b.parts
    )
