"""Tall objects that the paddle or the target comes close to."""

from __future__ import annotations

import numpy as np

from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.outlines import Array, gap, paddle_outline
from wm_planning.table import is_tall, outline_of


def clearance(pushes: ImaginedPushes) -> Array:
    """(K, S) for how much closer to tall objects than ``clearance_m`` paddle and target come."""
    c, rows = pushes.config.costs, pushes.rows_of_paths()
    paddle = pushes.paths.positions[:, rows, :2]
    around = paddle_outline(pushes.config, pushes.paths.yaws[:, rows])
    cost = np.zeros_like(pushes.left)
    for i in pushes.others:
        if not is_tall(pushes.scene, i, pushes.config.tall_ratio):
            continue
        shape, spot = outline_of(pushes.scene, i), pushes.scene.positions[i, :2]
        free = gap(pushes.place, pushes.table.own, spot, shape).min(axis=-1)
        free = np.minimum(free, gap(paddle, around, spot, shape).min(axis=-1)[:, None])
        cost += c.clearance * np.clip(c.clearance_m - free, 0.0, None)
    return cost
