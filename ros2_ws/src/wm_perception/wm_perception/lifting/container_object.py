"""A container of the scene graph: one object of five parts, four sides and a floor."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.convex_parts import ConvexPart
from wm_core.scene_graph import Shape
from wm_perception.lifting.enclosures import Enclosure
from wm_perception.lifting.structure import Container

CLASS_NAME = "container"
"""Of what was found by its sides and not by a segmenter, which may call smaller ones baskets and trays."""
LEAST_FRAMES = 3
"""Searches that must have found a container before it is in the scene graph. Larger: later, and fewer false ones."""
_SIDE_M, _FLOOR_M = 0.01, 0.004
"""Thickness [m] of sides and floor, which is not seen where depth is blurred. Larger touches what lies within."""
_COVARIANCE = np.diag([0.006**2, 0.006**2, 0.005**2, 0.01**2, 0.01**2, 0.02**2])
"""Of position [m^2] and rotation [rad^2]: 6 mm and 1 degree, as measured on worlds of the split ``homeware``."""


def container_parts(shape: Enclosure) -> tuple[ConvexPart, ...]:
    """Sides and floor in the frame of the container, which is at the middle of its height."""
    x, y = (float(v) for v in shape.sizes)
    high = max(shape.top_m - shape.bottom_m, 2.0 * _FLOOR_M)
    sides = [
        ConvexPart(Shape.BOX, np.array([_SIDE_M, y + _SIDE_M, high]), np.array([sign * 0.5 * x, 0.0, 0.0]))
        for sign in (-1.0, 1.0)
    ]
    sides += [
        ConvexPart(Shape.BOX, np.array([x - _SIDE_M, _SIDE_M, high]), np.array([0.0, sign * 0.5 * y, 0.0]))
        for sign in (-1.0, 1.0)
    ]
    floor = np.array([x - _SIDE_M, y - _SIDE_M, _FLOOR_M])
    return (*sides, ConvexPart(Shape.BOX, floor, np.array([0.0, 0.0, -0.5 * (high - _FLOOR_M)])))


def container_row(container: Container) -> dict[str, Any]:
    """The columns of ``SceneGraph.build`` for a container: movable, at rest."""
    shape = container.shape
    high = max(shape.top_m - shape.bottom_m, 2.0 * _FLOOR_M)
    return {
        "ids": container.id,
        "class_names": CLASS_NAME,
        "positions": np.array([*shape.center, shape.bottom_m + 0.5 * high]),
        "quaternions": np.array([0.0, 0.0, np.sin(0.5 * shape.yaw), np.cos(0.5 * shape.yaw)]),
        "linear_velocities": np.zeros(3),
        "angular_velocities": np.zeros(3),
        "extents": np.array([*(shape.sizes + _SIDE_M), high]),
        "shapes": int(Shape.BOX),
        "is_static": False,
        "pose_covariances": _COVARIANCE,
        "twist_covariances": np.zeros((6, 6)),
        "colors": np.clip(container.color / 255.0, 0.0, 1.0),
        "visibilities": 1.0 if container.seen_now else 0.0,
        "existence_probabilities": min(0.999, 0.5 + 0.1 * container.frames),
        "first_seen_ns": container.first_seen_ns,
        "last_seen_ns": container.last_seen_ns,
        "hulls": np.zeros((0, 3)),
        "parts": container_parts(shape),
    }
