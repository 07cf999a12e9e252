"""Rotations: quaternions (x, y, z, w), matrices, rotation vectors.

Three families:

- arrays of any shape, by SciPy, which checks and normalizes its input, and gives a row the same bits alone as among
  others: ``quaternion_to_matrix`` and those beside it;
- one rotation, by transforms3d, whose quaternions are (w, x, y, z): ``rotation_between``, ``roll_pitch_yaw``;
- single unit quaternions, or many in few operations, for code that runs thousands of times a second: ``matrix``,
  ``multiply``, ``rotate``, ``rotation_matrices``, ``world_up``; docs/dependencies.md has the figures.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from transforms3d.axangles import axangle2mat
from transforms3d.euler import quat2euler

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
    return np.asarray(axangle2mat(axis, math.atan2(sine, cosine)))


def roll_pitch_yaw(quaternion_xyzw: ArrayLike) -> Array:
    """Angles (3,) [rad] about the fixed axes x, y and z, in this order (REP-103), of one orientation (4,)."""
    return np.array(quat2euler(to_wxyz(normalize_quaternion(quaternion_xyzw)), "sxyz"))


# -- unit quaternions, fast


def matrix(quaternion: Array) -> Array:
    """Rotation matrix (3, 3) of a unit quaternion (4,)."""
    x, y, z, w = (float(v) for v in quaternion)
    xx, yy, zz, xy, xz, yz, xw, yw, zw = x * x, y * y, z * z, x * y, x * z, y * z, x * w, y * w, z * w
    return np.array(
        [
            [1.0 - 2.0 * (yy + zz), 2.0 * (xy - zw), 2.0 * (xz + yw)],
            [2.0 * (xy + zw), 1.0 - 2.0 * (xx + zz), 2.0 * (yz - xw)],
            [2.0 * (xz - yw), 2.0 * (yz + xw), 1.0 - 2.0 * (xx + yy)],
        ]
    )


def multiply(a: Array, b: Array) -> Array:
    """Unit quaternion (4,) of the rotation ``b`` (4,) followed by ``a`` (4,)."""
    ax, ay, az, aw = (float(v) for v in a)
    bx, by, bz, bw = (float(v) for v in b)
    return np.array(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
    )


def conjugate(quaternion: Array) -> Array:
    """The inverse of a unit quaternion (4,)."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def from_vector(vector: Array) -> Array:
    """Quaternion (4,) of a rotation vector (3,) [rad]."""
    x, y, z = (float(v) for v in vector)
    angle = math.sqrt(x * x + y * y + z * z)
    scale = 0.5 if angle < 1e-9 else math.sin(0.5 * angle) / angle
    return np.array([scale * x, scale * y, scale * z, math.cos(0.5 * angle)])


def to_vector(quaternion: Array) -> Array:
    """Rotation vector (3,) [rad], length 0..pi, of a unit quaternion."""
    x, y, z, w = (float(v) for v in quaternion)
    if w < 0.0:
        x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < 1e-9 else 2.0 * math.atan2(sine, w) / sine
    return np.array([scale * x, scale * y, scale * z])


def about_z(angle: float) -> Array:
    """Quaternion (4,) of a rotation about z by an angle [rad]."""
    return np.array([0.0, 0.0, math.sin(0.5 * angle), math.cos(0.5 * angle)])


def tilt_between(a: Array, b: Array) -> float:
    """Angle [rad] between the z axes of two orientations, 0..pi."""
    za, zb = matrix(a)[:, 2], matrix(b)[:, 2]
    return float(np.arccos(np.clip(za @ zb, -1.0, 1.0)))


def rotation_matrices(quaternions: Array) -> Array:
    """(T, 3, 3) of unit quaternions (T, 4) xyzw."""
    x, y, z, w = np.asarray(quaternions, dtype=np.float64).T
    rows = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def world_up(quaternions: Array) -> Array:
    """World z in the axes of bodies at unit quaternions (..., 4): third rows of their rotation matrices, (..., 3)."""
    x, y, z, w = np.moveaxis(quaternions, -1, 0)
    return np.stack([2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)], axis=-1)


def rotate(quaternion: Array, vectors: Array) -> Array:
    """Vectors (..., 3) turned by unit quaternions (..., 4) xyzw."""
    q = quaternion[..., :3]
    t = 2.0 * cross(q, vectors)
    return vectors + quaternion[..., 3:4] * t + cross(q, t)


def cross(a: Array, b: Array) -> Array:
    """Cross products (..., 3); numpy's spends most of its time on shapes where arrays are small."""
    out = np.empty_like(b)
    out[..., 0] = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    out[..., 1] = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    out[..., 2] = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return out


def to_wxyz(quaternion: ArrayLike) -> Array:
    """A quaternion (4,) in the order of MuJoCo and transforms3d."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    return np.array([w, x, y, z])


def turn_about_z(to_xyzw: ArrayLike, from_xyzw: ArrayLike) -> NDArray[np.float64]:
    """(...) turn about the vertical [rad], -pi to pi, nearest to the rotation between quaternions (..., 4)."""
    lacking = quaternion_to_matrix(to_xyzw) @ np.swapaxes(quaternion_to_matrix(from_xyzw), -1, -2)
    # Of a rotation matrix R, the angle a that maximizes trace(Rz(a)^T R).
    return np.asarray(np.arctan2(lacking[..., 1, 0] - lacking[..., 0, 1], lacking[..., 0, 0] + lacking[..., 1, 1]))
