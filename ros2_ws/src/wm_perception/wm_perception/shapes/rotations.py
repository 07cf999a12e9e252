"""Unit quaternions (x, y, z, w) in few operations: these run thousands of times per second on single rotations."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
    """The rotation ``b`` followed by ``a``."""
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
    """The inverse rotation."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def from_vector(vector: Array) -> Array:
    """Quaternion of a rotation vector (3,) [rad]."""
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
    """Quaternion of a turn about the vertical [rad]."""
    return np.array([0.0, 0.0, math.sin(0.5 * angle), math.cos(0.5 * angle)])


def tilt_between(a: Array, b: Array) -> float:
    """Angle [rad] between the z axes of two orientations, 0..pi."""
    za, zb = matrix(a)[:, 2], matrix(b)[:, 2]
    return float(np.arccos(np.clip(za @ zb, -1.0, 1.0)))
