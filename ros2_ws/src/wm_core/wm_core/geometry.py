"""Rigid-body geometry on NumPy arrays.

Conventions (REP-103): meters, radians, quaternions as (x, y, z, w), frames z up; a 4x4 matrix ``a_T_b`` maps
coordinates in frame ``b`` to coordinates in frame ``a``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

from wm_core.rotations import normalize_quaternion, quaternion_to_matrix

Array = NDArray[np.float64]


def pose_matrix(position: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
    """4x4 (or (..., 4, 4)) transform of a position (..., 3) [m] and a quaternion (..., 4)."""
    p = np.asarray(position, dtype=np.float64)
    matrix = np.zeros((*p.shape[:-1], 4, 4))
    matrix[..., :3, :3] = quaternion_to_matrix(quaternion_xyzw)
    matrix[..., :3, 3] = p
    matrix[..., 3, 3] = 1.0
    return matrix


def invert_transform(transform: ArrayLike) -> Array:
    """Inverse of rigid transforms (..., 4, 4)."""
    t = np.asarray(transform, dtype=np.float64)
    inverse = np.zeros_like(t)
    rotation_transposed = np.swapaxes(t[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation_transposed
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation_transposed, t[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse


def transform_points(transform: ArrayLike, points: ArrayLike) -> Array:
    """Points (P, 3) [m] through a 4x4 transform."""
    t = np.asarray(transform, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ t[:3, :3].T + t[:3, 3]


def interpolate_pose(
    times: ArrayLike, positions: ArrayLike, quaternions_xyzw: ArrayLike, query_times: ArrayLike
) -> tuple[Array, Array]:
    """Linear positions (Q, 3) and slerped quaternions (Q, 4) of a path (M,), (M, 3), (M, 4); held at both ends."""
    t = np.asarray(times, dtype=np.float64)
    p = np.asarray(positions, dtype=np.float64)
    q = normalize_quaternion(quaternions_xyzw)
    s = np.clip(np.asarray(query_times, dtype=np.float64), t[0], t[-1])
    if len(t) == 1:
        return np.repeat(p, len(s), axis=0), np.repeat(q, len(s), axis=0)
    interpolated = np.empty((len(s), 3))
    for axis in range(3):
        interpolated[:, axis] = np.interp(s, t, p[:, axis])
    if (q == q[0]).all():  # most paths do not turn, and a planner sends thousands
        return interpolated, np.repeat(q[:1], len(s), axis=0)
    return interpolated, Slerp(t, Rotation.from_quat(q))(s).as_quat()
