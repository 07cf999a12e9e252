"""Rigid-body geometry on NumPy arrays.

Conventions (REP-103): meters, radians, quaternions as (x, y, z, w), frames z up; a 4x4 matrix ``a_T_b`` maps
coordinates in frame ``b`` to coordinates in frame ``a``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]


def normalize_quaternion(quaternion_xyzw: ArrayLike) -> Array:
    """Unit quaternions, shape (..., 4). An all-zero quaternion (a message left at its default) is the identity.

    Raises:
        ValueError: a component is not finite.
    """
    q = np.array(quaternion_xyzw, dtype=np.float64)
    if not np.isfinite(q).all():
        raise ValueError("quaternion has a component that is not finite")
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if (norm >= 1e-12).all():
        return q / norm
    identity = np.broadcast_to(np.array([0.0, 0.0, 0.0, 1.0]), q.shape)
    return np.where(norm < 1e-12, identity, q / np.where(norm < 1e-12, 1.0, norm))


def quaternion_to_matrix(quaternion_xyzw: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    q = normalize_quaternion(quaternion_xyzw)
    return Rotation.from_quat(q.reshape(-1, 4)).as_matrix().reshape(*q.shape[:-1], 3, 3)


def matrix_to_quaternion(rotation: ArrayLike) -> Array:
    """Unit quaternions (..., 4) of rotation matrices (..., 3, 3), with w >= 0."""
    r = np.asarray(rotation, dtype=np.float64)
    q = Rotation.from_matrix(r.reshape(-1, 3, 3)).as_quat().reshape(*r.shape[:-2], 4)
    return np.where(q[..., 3:4] < 0.0, -q, q)


def rotation_distance(a_xyzw: ArrayLike, b_xyzw: ArrayLike) -> Array:
    """Angle [rad], 0..pi, between orientations (..., 4)."""
    dot = np.abs(np.sum(normalize_quaternion(a_xyzw) * normalize_quaternion(b_xyzw), axis=-1))
    return 2.0 * np.arccos(np.clip(dot, 0.0, 1.0))


def rotate_by_angular_velocity(quaternion_xyzw: ArrayLike, angular_velocity: ArrayLike, duration_s: float) -> Array:
    """Orientations (..., 4) after turning at a constant angular velocity (..., 3) [rad/s, world axes]."""
    q = normalize_quaternion(quaternion_xyzw)
    w = np.asarray(angular_velocity, dtype=np.float64)
    turned = Rotation.from_rotvec((w * duration_s).reshape(-1, 3)) * Rotation.from_quat(q.reshape(-1, 4))
    return turned.as_quat().reshape(q.shape)


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


def rotation_between(a: ArrayLike, b: ArrayLike) -> Array:
    """Smallest rotation matrix (3, 3) that turns direction ``a`` (3,) into direction ``b`` (3,)."""
    u = np.asarray(a, dtype=np.float64) / np.linalg.norm(a)
    v = np.asarray(b, dtype=np.float64) / np.linalg.norm(b)
    axis = np.cross(u, v)
    sine, cosine = float(np.linalg.norm(axis)), float(u @ v)
    if sine < 1e-12:
        if cosine > 0.0:
            return np.eye(3)
        axis = np.cross(u, np.eye(3)[int(np.argmin(np.abs(u)))])
        return Rotation.from_rotvec(np.pi * axis / np.linalg.norm(axis)).as_matrix()
    return Rotation.from_rotvec(np.arctan2(sine, cosine) * axis / sine).as_matrix()


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
    if (q == q[0]).all():  # most paths do not turn, and a planner has a thousand of them
        return interpolated, np.repeat(q[:1], len(s), axis=0)
    return interpolated, Slerp(t, Rotation.from_quat(q))(s).as_quat()
