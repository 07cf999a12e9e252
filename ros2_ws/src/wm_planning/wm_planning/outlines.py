"""Outlines of objects on a table, and the gaps between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_planning.config import PushPlannerConfig

Array = NDArray[np.float64]

ANGLES = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
"""(D, 2) directions in which outlines are compared."""


def outline(shape: int, extents: ArrayLike, quaternion: ArrayLike, hull: Array | None = None) -> Array:
    """(D,) support function [m] of a body seen from above, about its center, in ``DIRECTIONS``."""
    rotation = quaternion_to_matrix(np.asarray(quaternion, dtype=np.float64))
    half = 0.5 * np.asarray(extents, dtype=np.float64)
    across = DIRECTIONS @ rotation[:2]  # (D, 3) the directions in the body's axes
    if shape == Shape.SPHERE:
        return np.full(len(DIRECTIONS), float(half.mean()))
    if shape in (Shape.CYLINDER, Shape.CAPSULE):
        radius = 0.5 * (half[0] + half[1])
        if shape == Shape.CAPSULE:
            return radius + np.abs(across[:, 2]) * max(half[2] - radius, 0.0)
        return radius * np.linalg.norm(across[:, :2], axis=1) + half[2] * np.abs(across[:, 2])
    if shape == Shape.CONVEX and hull is not None and len(hull):
        return np.asarray((across @ np.asarray(hull).T).max(axis=1))
    return np.abs(across) @ half


def gap(here: Array, own: Array, there: Array, other: Array) -> Array:
    """Distance [m] between outlines (D,) at places (..., 2), negative when they overlap.

    The largest over directions of the distance between their supporting lines: never more than the true distance.
    """
    opposite = np.roll(other, len(DIRECTIONS) // 2, axis=-1)
    return np.asarray(((there - here) @ DIRECTIONS.T - own - opposite).max(axis=-1))


def paddle_outline(config: PushPlannerConfig, yaw: Array) -> Array:
    """(..., D) of the paddle at yaws (...)."""
    relative = ANGLES - np.asarray(yaw)[..., None]
    return 0.5 * (config.paddle[0] * np.abs(np.cos(relative)) + config.paddle[1] * np.abs(np.sin(relative)))
