"""Convex parts carried from frame to frame, and scaled with their object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import ConvexHull

from wm_core.convex_parts import ConvexPart, hull_part
from wm_core.rotations import about_z, matrix, matrix_to_quaternion
from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import MIN_SIZE_M, Array, ShapeFit

Parts = tuple[ConvexPart, ...]


def moved(parts: Sequence[ConvexPart], rotation: Array, translation: Array) -> Parts:
    """Parts in another frame, in which a point p of the old one is ``rotation`` (3, 3) p + ``translation`` (3,) [m].

    Hulls stay unturned in the new frame, so that they can be scaled along its axes.
    """
    carried = []
    for part in parts:
        if part.shape == Shape.CONVEX:
            carried.append(hull_part(part.points() @ rotation.T + translation))
        else:
            turn = np.asarray(matrix_to_quaternion(rotation @ matrix(part.quaternion)))
            carried.append(replace(part, position=rotation @ part.position + translation, quaternion=turn))
    return tuple(carried)


def in_object_frame(parts: Sequence[ConvexPart], position: Array, quaternion: Array) -> Parts:
    """Parts given in the world, in the frame of an object at a pose [m, xyzw]."""
    back = matrix(quaternion).T
    return moved(parts, back, -back @ position)


def in_world(parts: Sequence[ConvexPart], position: Array, quaternion: Array) -> Parts:
    """Parts given in the frame of an object at a pose [m, xyzw], in the world."""
    return moved(parts, matrix(quaternion), np.asarray(position))


def scaled(parts: Sequence[ConvexPart], factors: Array) -> Parts:
    """Parts stretched by factors (3,) along their object's axes about its center.

    Boxes that are turned within the object stay boxes: their sides are stretched by what their own axes are.
    """
    stretched = []
    for part in parts:
        if part.shape == Shape.CONVEX:
            stretched.append(hull_part(part.points() * factors))
            continue
        own = np.linalg.norm(factors[:, None] * matrix(part.quaternion), axis=0)
        if part.shape in (Shape.CYLINDER, Shape.CAPSULE):
            own[:2] = np.sqrt(own[0] * own[1])
        stretched.append(replace(part, position=part.position * factors, extents=part.extents * own))
    return tuple(stretched)


def outline_of(parts: Sequence[ConvexPart], yaw: float, residual_m: float, inside_seen: float) -> ShapeFit:
    """The outline of parts that are given in the world, and they in its frame, which is turned by a yaw [rad]."""
    quaternion = about_z(yaw)
    turn = matrix(quaternion)
    local = np.concatenate([part.points() for part in parts]) @ turn
    low, high = local.min(axis=0), local.max(axis=0)
    middle = 0.5 * (low + high)
    position = turn @ middle
    return ShapeFit(
        Shape.CONVEX,
        position,
        quaternion,
        np.maximum(high - low, MIN_SIZE_M),
        residual_m,
        local[ConvexHull(local).vertices] - middle,
        in_object_frame(parts, position, quaternion),
        inside_seen,
    )
