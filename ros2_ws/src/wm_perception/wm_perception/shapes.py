"""Signed distances of shape primitives, and the fit of a primitive to the visible part of a thing.

Distances are negative inside. Formulas for box, cylinder and capsule: the usual exact distance functions obtained by
clamping to the solid and taking the larger side distance inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation
from wm_core.scene_graph import Shape

Array = NDArray[np.float64]

FIT_POINTS = 160
"""Points a shape is fitted to: more make it slower, not better."""
MIN_SIZE_M = 0.008


def hull_planes(points: Array) -> Array:
    """Half-spaces (F, 4) of the convex hull of points (P, 3): a point is inside where ``A p + b <= 0``.

    Raises:
        ValueError: the points span no volume.
    """
    try:
        return np.unique(np.round(ConvexHull(points).equations, 6), axis=0)
    except (QhullError, ValueError) as error:
        raise ValueError(f"convex hull of {len(points)} points: they span no volume") from error


def signed_distance(shape: int, extents: Array, points: Array, hull: Array | None = None) -> tuple[Array, Array]:
    """Distance (P,) [m] to the surface and its gradient (P, 3), at points (P, 3) in the object frame.

    Args:
        hull: (F, 4) half-spaces for ``Shape.CONVEX`` (outside, the distance is a lower bound).
    """
    p = np.asarray(points, dtype=np.float64)
    half = 0.5 * np.asarray(extents, dtype=np.float64)
    if shape == Shape.SPHERE:
        norm = np.linalg.norm(p, axis=1)
        return norm - half.mean(), p / np.maximum(norm, 1e-9)[:, None]
    if shape == Shape.CAPSULE:
        radius = 0.5 * (half[0] + half[1])
        core = max(half[2] - radius, 0.0)
        q = p.copy()
        q[:, 2] -= np.clip(p[:, 2], -core, core)
        norm = np.linalg.norm(q, axis=1)
        return norm - radius, q / np.maximum(norm, 1e-9)[:, None]
    if shape == Shape.CYLINDER:
        ring = np.linalg.norm(p[:, :2], axis=1)
        q = np.stack([ring - 0.5 * (half[0] + half[1]), np.abs(p[:, 2]) - half[2]], axis=1)
        distance, g = _corner_distance(q)
        radial = p[:, :2] / np.maximum(ring, 1e-9)[:, None]
        gradient = np.concatenate([g[:, :1] * radial, g[:, 1:] * np.sign(p[:, 2:])], axis=1)
        return distance, gradient
    if shape == Shape.CONVEX and hull is not None and len(hull):
        values = p @ hull[:, :3].T + hull[:, 3]
        nearest = values.argmax(axis=1)
        return values[np.arange(len(p)), nearest], hull[nearest, :3]
    distance, g = _corner_distance(np.abs(p) - half)
    return distance, g * np.where(p < 0.0, -1.0, 1.0)


def _corner_distance(q: Array) -> tuple[Array, Array]:
    """Distance and gradient of ``{q <= 0}`` in coordinates that are side distances."""
    outside = np.maximum(q, 0.0)
    norm = np.linalg.norm(outside, axis=1)
    deepest = q.argmax(axis=1)
    rows = np.arange(len(q))
    inner = np.zeros_like(q)
    inner[rows, deepest] = 1.0
    is_outside = norm > 0.0
    gradient = np.where(is_outside[:, None], outside / np.maximum(norm, 1e-12)[:, None], inner)
    return np.where(is_outside, norm, q[rows, deepest]), gradient


@dataclass(frozen=True)
class ShapeFit:
    """A primitive fitted to points: pose [m, xyzw], full extents [m], residual (median |distance|) [m]."""

    shape: Shape
    position: Array
    quaternion: Array
    extents: Array
    residual_m: float
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))


def _yaw_quaternion(yaw: float) -> Array:
    return np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])


# An axis along world x turned by yaw: the cylinder's own axis is its z, so first tip z onto x.
_TIP = Rotation.from_euler("y", np.pi / 2.0)


def _lying_quaternion(yaw: float) -> Array:
    return (Rotation.from_euler("z", yaw) * _TIP).as_quat()


def _local(points: Array, position: Array, quaternion: Array) -> Array:
    return (points - position) @ Rotation.from_quat(quaternion).as_matrix()


def fit_box(points: Array, bottom: float, top: float) -> ShapeFit:
    """The upright box around points (P, 3) [m] by its footprint's smallest rectangle; the coarse first guess."""
    (cx, cy), (lx, ly), angle = cv2.minAreaRect(np.ascontiguousarray(points[:, :2], dtype=np.float32))
    yaw = np.radians(angle)
    position = np.array([cx, cy, 0.5 * (bottom + top)])
    extents = np.maximum([lx, ly, top - bottom], MIN_SIZE_M)
    quaternion = _yaw_quaternion(yaw)
    distance, _ = signed_distance(Shape.BOX, extents, _local(points, position, quaternion))
    return ShapeFit(Shape.BOX, position, quaternion, extents, float(np.median(np.abs(distance))))


def fit_shape(points: Array, bottom: float | None, *, seed: int = 0) -> ShapeFit:
    """The primitive that best explains the visible points of one thing.

    Box, sphere, upright and lying cylinder are fitted by least squares on their signed distances (soft L1, 4 mm), with
    a weak pull to the smaller solid for what is not visible; the smallest residual wins, and a convex hull where none
    fits. Things are taken to stand upright or lie flat, as things on tables do; tilting is the tracker's work.

    Args:
        points: (P, 3) world coordinates, z up [m]; at least 8.
        bottom: height of what it stands on [m]; None: unknown, then the lowest points.

    Raises:
        ValueError: fewer than 8 points.
    """
    if len(points) < 8:
        raise ValueError(f"shape fit: got {len(points)} points, expected at least 8")
    p = np.asarray(points, dtype=np.float64)
    if len(p) > FIT_POINTS:
        p = p[np.random.default_rng(seed).choice(len(p), FIT_POINTS, replace=False)]
    low, high = np.percentile(p[:, 2], [1.0, 98.0])
    base = float(low) if bottom is None else float(min(bottom, high - MIN_SIZE_M))
    guess = fit_box(p, base, float(high))
    width = float(guess.extents[:2].max())
    height = float(high - base)
    centre = guess.position[:2]
    scale = max(width, height)
    candidates: list[ShapeFit] = []

    def solve(residuals, start: Array) -> Array:  # type: ignore[no-untyped-def]
        return least_squares(residuals, start, loss="soft_l1", f_scale=0.004, max_nfev=12).x

    def box(x: Array) -> tuple[Array, Array, Array]:
        return (
            np.array([x[0], x[1], 0.5 * (base + high)]),
            _yaw_quaternion(x[2]),
            np.array([max(x[3], MIN_SIZE_M), max(x[4], MIN_SIZE_M), max(height, MIN_SIZE_M)]),
        )

    def upright(x: Array) -> tuple[Array, Array, Array]:
        diameter = max(2.0 * x[2], MIN_SIZE_M)
        return (
            np.array([x[0], x[1], 0.5 * (base + high)]),
            _yaw_quaternion(0.0),
            np.array([diameter, diameter, max(height, MIN_SIZE_M)]),
        )

    def lying(x: Array) -> tuple[Array, Array, Array]:
        # Lying on its side it is as high as it is thick.
        return (
            np.array([x[0], x[1], 0.5 * (base + high)]),
            _lying_quaternion(x[2]),
            np.array([max(height, MIN_SIZE_M), max(height, MIN_SIZE_M), max(x[3], MIN_SIZE_M)]),
        )

    def sphere(x: Array) -> tuple[Array, Array, Array]:
        diameter = max(2.0 * x[3], MIN_SIZE_M)
        return x[:3], _yaw_quaternion(0.0), np.full(3, diameter)

    def try_shape(shape: Shape, build, start: Array, sizes: slice, shrink: float) -> None:  # type: ignore[no-untyped-def]
        def residuals(x: Array) -> Array:
            position, quaternion, extents = build(x)
            distance, _ = signed_distance(shape, extents, _local(p, position, quaternion))
            return np.append(distance, shrink * np.sqrt(len(p)) * x[sizes])

        x = solve(residuals, np.asarray(start, dtype=np.float64))
        position, quaternion, extents = build(x)
        # A large curved solid explains any flat patch: nothing may be much larger than what is seen of it.
        if not np.isfinite(x).all() or extents.max() > 1.3 * scale + 0.01:
            return
        if shape == Shape.SPHERE and abs(extents[2] - height) > 0.3 * height:
            return
        distance, _ = signed_distance(shape, extents, _local(p, position, quaternion))
        # The mean catches what the median forgives: a cylinder that explains a box but for its corners. It is bounded,
        # so that a bottle's neck does not outweigh its body.
        residual = float(0.6 * np.median(np.abs(distance)) + 0.4 * np.mean(np.minimum(np.abs(distance), 0.008)))
        candidates.append(ShapeFit(shape, position, quaternion, extents, residual))

    yaw = float(2.0 * np.arctan2(guess.quaternion[2], guess.quaternion[3]))
    lx, ly = guess.extents[:2]
    try_shape(Shape.BOX, box, np.array([*centre, yaw, lx, ly]), slice(3, 5), 0.0015)
    try_shape(Shape.CYLINDER, upright, np.array([*centre, 0.5 * width]), slice(2, 3), 0.0015)
    axis = yaw if lx >= ly else yaw + 0.5 * np.pi
    if max(lx, ly) > 1.15 * height:
        try_shape(
            Shape.CYLINDER, lying, np.array([*centre, axis, max(lx, ly)]), slice(3, 4), 0.0015
        )
    if 0.5 < height / max(width, 1e-6) < 1.8:
        try_shape(
            Shape.SPHERE, sphere, np.array([*centre, 0.5 * (base + high), 0.5 * height]), slice(3, 4), 0.0
        )
    # A ball has one size, a box three: where they explain the points equally well, the simpler one is meant.
    handicap = {Shape.SPHERE: 0.0, Shape.CYLINDER: 0.0003, Shape.BOX: 0.0003}
    candidates = candidates or [guess]
    best = min(candidates, key=lambda c: c.residual_m + handicap.get(c.shape, 0.0))
    if best.residual_m <= max(0.007, 0.06 * scale):
        return _canonical(best)
    corners = np.concatenate([p, np.stack([p[:, 0], p[:, 1], np.full(len(p), base)], axis=1)])
    try:
        hull_points = corners[ConvexHull(corners).vertices]
    except QhullError:
        return _canonical(best)
    position = 0.5 * (hull_points.min(axis=0) + hull_points.max(axis=0))
    extents = np.maximum(hull_points.max(axis=0) - hull_points.min(axis=0), MIN_SIZE_M)
    return ShapeFit(
        Shape.CONVEX, position, _yaw_quaternion(0.0), extents, best.residual_m, hull=hull_points - position
    )


def _canonical(fit: ShapeFit) -> ShapeFit:
    """Boxes with yaw in -45..45 degrees, so that refits of a thing can be compared."""
    if fit.shape != Shape.BOX:
        return fit
    yaw = 2.0 * np.arctan2(fit.quaternion[2], fit.quaternion[3])
    turns = int(np.round(yaw / (0.5 * np.pi)))
    extents = fit.extents[[1, 0, 2]] if turns % 2 else fit.extents
    return ShapeFit(
        fit.shape, fit.position, _yaw_quaternion(yaw - turns * 0.5 * np.pi), extents, fit.residual_m, fit.hull
    )


@dataclass(frozen=True)
class Alignment:
    """A pose found by ``align``: position (3,), quaternion (4,), covariance (6, 6) over position and rotation."""

    position: Array
    quaternion: Array
    covariance: Array
    residual_m: float


def align(
    shape: int,
    extents: Array,
    points: Array,
    position: Array,
    quaternion: Array,
    *,
    hull: Array | None = None,
    prior_std_m: float = 0.05,
    prior_std_rad: tuple[float, float] = (0.05, 0.15),
    noise_m: float = 0.003,
    iterations: int = 5,
) -> Alignment:
    """Turn and shift a primitive onto points by Gauss-Newton on its signed distance, with a prior at the start pose.

    The Jacobian is that of the distance of a point p under a small rotation w about the centre and shift t of the
    solid: ``-g . t - w . ((p - c) x g)``, g the gradient in world axes. Points are weighted by Huber's function.

    Args:
        points: (P, 3) world [m].
        prior_std_rad: standard deviation of tilt and of turning about the vertical.
        noise_m: standard deviation of one point.

    Returns:
        The pose; its covariance is the inverse of the normal matrix, prior included.
    """
    c = np.array(position, dtype=np.float64)
    rotation = Rotation.from_quat(quaternion)
    start, start_rotation = c.copy(), rotation
    information = np.diag(
        1.0 / np.array([prior_std_m] * 3 + [prior_std_rad[0], prior_std_rad[0], prior_std_rad[1]]) ** 2
    )
    # Neighbouring pixels share their error: 150 points are worth about 15 independent ones.
    weight_per_point = 1.0 / (noise_m**2 * max(len(points) / 15.0, 1.0))
    normal_matrix = information
    distance = np.zeros(len(points))
    for _ in range(iterations):
        matrix = rotation.as_matrix()
        relative = points - c
        distance, local_gradient = signed_distance(shape, extents, relative @ matrix, hull)
        gradient = local_gradient @ matrix.T
        jacobian = np.concatenate([-gradient, -np.cross(relative, gradient)], axis=1)
        weights = weight_per_point * np.minimum(1.0, 2.0 * noise_m / np.maximum(np.abs(distance), 1e-9))
        deviation = np.concatenate([c - start, (rotation * start_rotation.inv()).as_rotvec()])
        normal_matrix = information + (jacobian * weights[:, None]).T @ jacobian
        step = -np.linalg.solve(normal_matrix, (jacobian * weights[:, None]).T @ distance + information @ deviation)
        length = np.linalg.norm(step[:3])
        if length > 0.05:
            step *= 0.05 / length
        c = c + step[:3]
        rotation = Rotation.from_rotvec(step[3:]) * rotation
        if np.abs(step).max() < 2e-4:
            break
    return Alignment(c, rotation.as_quat(), np.linalg.inv(normal_matrix), float(np.median(np.abs(distance))))


def surface_samples(shape: int, extents: Array, hull: Array, count: int = 160) -> tuple[Array, Array]:
    """Points (P, 3) spread over the surface, in the object frame [m], and their outward normals (P, 3)."""
    # Fibonacci directions: even and the same every time.
    k = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1.0 - 2.0 * k / count), np.pi * (1.0 + 5.0**0.5) * k
    directions = np.stack(
        [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
    )
    planes = None
    if shape == Shape.CONVEX:
        try:
            planes = hull_planes(hull)
        except ValueError:
            shape = Shape.BOX
    points = directions * 0.5 * np.asarray(extents)
    for _ in range(4):
        distance, gradient = signed_distance(shape, extents, points, planes)
        points = points - distance[:, None] * gradient
    return points, signed_distance(shape, extents, points, planes)[1]
