"""Objects that tilt or topple."""

from __future__ import annotations

import numpy as np

from wm_core.rollout import QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array


def _rolls(scene: SceneGraph, i: int) -> bool:
    """Whether object ``i`` may turn without falling: a ball, or something round that lies."""
    lies = abs(quaternion_to_matrix(scene.quaternions[i])[2, 2]) < 0.7
    return bool(scene.shapes[i] == Shape.SPHERE or (scene.shapes[i] in (Shape.CYLINDER, Shape.CAPSULE) and lies))


def tilt(pushes: ImaginedPushes) -> Array:
    """(K, S) for the greatest tilt of each object, summed, and more for objects that topple."""
    c = pushes.config.costs
    cost = np.zeros_like(pushes.left)
    for i in pushes.movable:
        if _rolls(pushes.scene, i):
            continue
        # The vertical, carried along with the body: z . R(t) R(now)^T z.
        now = quaternion_to_matrix(pushes.scene.quaternions[i])[2]
        upright = (quaternion_to_matrix(pushes.states[:, :, :, i, QUATERNION])[..., 2, :] * now).sum(axis=-1)
        worst = np.arccos(np.clip(upright, -1.0, 1.0)).max(axis=-1)
        cost += c.tilt_per_rad * np.clip(worst - c.tilt_free_rad, 0.0, None) + c.toppled * (worst > np.pi / 4.0)
    return cost
