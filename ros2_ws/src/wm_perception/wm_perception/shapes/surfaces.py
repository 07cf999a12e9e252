"""Signed distances of shape primitives, and their alignment to the visible part of an object.

Distances are negative inside. Formulas for box, cylinder and capsule: the usual exact distance functions obtained by
clamping to the solid and taking the larger side distance inside.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core import rotations
from wm_core.convex_parts import ConvexPart
from wm_core.roundness import is_of_revolution
from wm_core.scene_graph import Shape
from wm_perception.shapes.rim_error import RimError

Array = NDArray[np.float64]

FIT_POINTS = 160
"""Points a shape is fitted to: more make it slower, not better."""
MIN_SIZE_M = 0.008
"""Least extent [m] of a fitted shape: the least height at which pixels count as an object (``min_height_m``)."""
_ALIGNED_M, _ALIGNED_RAD = 0.001, 0.01
"""A step [m, rad] after which alignment ends: as steps fall off with their square, what is left is a tenth of a
millimeter. Larger is faster."""
_INDEPENDENT = 15.0
"""Independent points that all those of a segment are worth: neighboring pixels share their error. Chosen by hand;
larger states smaller covariances."""
_SIDES = 4.0
"""The same of points that say where a mask ends: each of its sides is off as a whole. Larger trusts rims more."""
_UNSEEN_M = 0.3
"""Standard deviation [m] of a measured position along directions of which the points say nothing, about the size of the
largest objects. Larger changes nothing, smaller pretends that it was measured."""
_PLANES: OrderedDict[bytes, Array] = OrderedDict()
_SAMPLES: OrderedDict[tuple[object, ...], tuple[Array, Array]] = OrderedDict()
_CACHED = 256
"""Hulls and sampled surfaces that are kept. Larger takes memory; smaller recomputes them in scenes of more objects."""


def hull_planes(points: Array) -> Array:
    """Half-spaces (F, 4) of the convex hull of points (P, 3): a point is inside where ``A p + b <= 0``.

    Raises:
        ValueError: the points span no volume.
    """
    key = np.asarray(points, dtype=np.float64).tobytes()
    if key not in _PLANES:
        try:
            _PLANES[key] = np.unique(np.round(ConvexHull(points).equations, 6), axis=0)
        except (QhullError, ValueError) as error:
            raise ValueError(f"convex hull of {len(points)} points: they span no volume") from error
        while len(_PLANES) > _CACHED:
            _PLANES.popitem(last=False)
    return _PLANES[key]


def signed_distance(shape: int, extents: Array, points: Array, hull: Array | None = None) -> tuple[Array, Array]:
    """Distance (P,) [m] to the surface and its gradient (P, 3), at points (P, 3) in the object frame.

    Args:
        hull: (F, 4) half-spaces for ``Shape.CONVEX`` (outside, the distance is a lower bound).
    """
    p = np.asarray(points, dtype=np.float64)
    half = 0.5 * np.asarray(extents, dtype=np.float64)
    if shape == Shape.SPHERE:
        norm = np.sqrt(np.einsum("pi,pi->p", p, p))
        return norm - half.mean(), p / np.maximum(norm, 1e-9)[:, None]
    if shape == Shape.CAPSULE:
        radius = 0.5 * (half[0] + half[1])
        core = max(half[2] - radius, 0.0)
        q = p.copy()
        q[:, 2] -= np.clip(p[:, 2], -core, core)
        norm = np.sqrt(np.einsum("pi,pi->p", q, q))
        return norm - radius, q / np.maximum(norm, 1e-9)[:, None]
    if shape == Shape.CYLINDER:
        ring = np.sqrt(np.einsum("pi,pi->p", p[:, :2], p[:, :2]))
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


def surface_distance(shape: int, extents: Array, points: Array, hull: Array | None = None) -> Array:
    """The distances (P,) of ``signed_distance`` without their gradients, which take as long again."""
    p = np.asarray(points, dtype=np.float64)
    half = 0.5 * np.asarray(extents, dtype=np.float64)
    if shape in (Shape.SPHERE, Shape.CAPSULE):
        return signed_distance(shape, extents, p)[0]
    if shape == Shape.CYLINDER:
        ring = np.sqrt(np.einsum("pi,pi->p", p[:, :2], p[:, :2]))
        return _corner_depth(np.stack([ring - 0.5 * (half[0] + half[1]), np.abs(p[:, 2]) - half[2]], axis=1))
    if shape == Shape.CONVEX and hull is not None and len(hull):
        return np.asarray((p @ hull[:, :3].T + hull[:, 3]).max(axis=1))
    return _corner_depth(np.abs(p) - half)


def signed_distance_to_parts(parts: Sequence[ConvexPart], points: Array) -> tuple[Array, Array]:
    """As ``signed_distance``, to the union of convex parts (at least one); deep inside, a bound that is not exact."""
    best, gradients = np.full(len(points), np.inf), np.zeros((len(points), 3))
    for part in parts:
        matrix = part.rotation
        planes = hull_planes(part.hull) if part.shape == Shape.CONVEX else None
        distance, gradient = signed_distance(part.shape, part.extents, (points - part.position) @ matrix, planes)
        nearer = distance < best
        best[nearer], gradients[nearer] = distance[nearer], gradient[nearer] @ matrix.T
    return best, gradients


def _corner_distance(q: Array) -> tuple[Array, Array]:
    """Distance and gradient of ``{q <= 0}`` in coordinates that are side distances."""
    outside = np.maximum(q, 0.0)
    norm = np.sqrt(np.einsum("pi,pi->p", outside, outside))
    gradient = outside / np.maximum(norm, 1e-12)[:, None]
    inside = np.flatnonzero(norm <= 0.0)
    if len(inside):
        deepest = q[inside].argmax(axis=1)
        gradient[inside, deepest] = 1.0
        norm[inside] = q[inside, deepest]
    return norm, gradient


def _corner_depth(q: Array) -> Array:
    """The distance of ``_corner_distance``."""
    outside = np.maximum(q, 0.0)
    norm = np.sqrt(np.einsum("pi,pi->p", outside, outside))
    inside = np.flatnonzero(norm <= 0.0)
    if len(inside):
        deepest = q[inside]
        largest = np.maximum(deepest[:, 0], deepest[:, 1])
        norm[inside] = largest if q.shape[1] == 2 else np.maximum(largest, deepest[:, 2])
    return norm


@dataclass(frozen=True)
class ShapeFit:
    """A primitive fitted to points.

    Attributes:
        shape: ``Shape``.
        position: (3,) center, world frame [m]; quaternion: (4,) x, y, z, w, world from object.
        extents: (3,) full sizes along the object's own axes [m].
        residual_m: misfit of the points [m]; 0 where none was computed.
        hull: (P, 3) vertices in the object frame [m] for ``Shape.CONVEX``, else (0, 3).
        parts: convex parts in the object frame of what is not convex; then shape, extents and hull are its outline.
        inside_seen: 0..1, how much of the inside of a hollow body was seen; 0: hollow by its class; -1: not hollow.
    """

    shape: Shape
    position: Array
    quaternion: Array
    extents: Array
    residual_m: float
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    parts: tuple[ConvexPart, ...] = ()
    inside_seen: float = -1.0

    @property
    def is_round(self) -> bool:
        """Whether a convex solid is, or may be, one of revolution: its bounds are square, and its outline is round."""
        if abs(float(self.extents[0] - self.extents[1])) >= 0.02 * float(self.extents[0]):
            return False
        return not len(self.hull) or is_of_revolution(self.hull, 0.5 * float(self.extents[0]))


def _yaw_quaternion(yaw: float) -> Array:
    return np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])


def _local(points: Array, position: Array, quaternion: Array) -> Array:
    return (points - position) @ rotations.matrix(quaternion)


def fit_box(points: Array, bottom: float, top: float) -> ShapeFit:
    """The upright box around points (P, 3) [m] by its footprint's smallest rectangle; the coarse first guess."""
    (cx, cy), (lx, ly), angle = cv2.minAreaRect(np.ascontiguousarray(points[:, :2], dtype=np.float32))
    yaw = np.radians(angle)
    position = np.array([cx, cy, 0.5 * (bottom + top)])
    extents = np.maximum([lx, ly, top - bottom], MIN_SIZE_M)
    quaternion = _yaw_quaternion(yaw)
    distance = surface_distance(Shape.BOX, extents, _local(points, position, quaternion))
    return ShapeFit(Shape.BOX, position, quaternion, extents, float(np.median(np.abs(distance))))


@dataclass(frozen=True)
class Alignment:
    """A pose found by ``align``.

    Attributes:
        position: (3,) world frame [m]; quaternion: (4,) x, y, z, w, world from object.
        covariance: (6, 6) over position and rotation vector, world axes [m, rad].
        residual_m: median |distance| of the points to the surface [m]; mean_m: the mean of it, which says more of ends;
            start_mean_m: the mean at the start pose.
        start: (3,) position [m] about which the prior was, and prior_std_m its standard deviation; None, inf: no prior.
    """

    position: Array
    quaternion: Array
    covariance: Array
    residual_m: float
    start: Array | None = None
    prior_std_m: float = float("inf")
    mean_m: float = 0.0
    start_mean_m: float = 0.0

    def measured(self) -> tuple[Array, Array]:
        """Position (3,) [m] and its covariance (3, 3) [m^2] by the points alone, without the prior at the start.

        A filter that predicted the start must not take it for measured: where the points say nothing (the top of
        something flat, of which no end is seen), that would confirm whatever velocity it has.
        """
        covariance = self.covariance[:3, :3]
        if self.start is None or not np.isfinite(self.prior_std_m):
            return self.position, covariance
        both = np.linalg.inv(covariance)
        alone = np.linalg.inv(both - np.eye(3) * (self.prior_std_m**-2 - _UNSEEN_M**-2))
        position = self.start + alone @ both @ (self.position - self.start)
        return np.asarray(position, np.float64), np.asarray(alone, np.float64)


def align(
    shape: int,
    extents: Array,
    points: Array,
    position: Array,
    quaternion: Array,
    *,
    hull: Array | None = None,
    parts: Sequence[ConvexPart] = (),
    prior_std_m: float = 0.05,
    prior_std_rad: tuple[float, float] = (0.05, 0.15),
    noise_m: float = 0.003,
    rim: RimError | None = None,
    iterations: int = 5,
) -> Alignment:
    """Turn and shift a primitive onto points by Gauss-Newton on its signed distance, with a prior at the start pose.

    The Jacobian is that of the distance of a point p under a small rotation w about the center and shift t of the
    solid: ``-g . t - w . ((p - c) x g)``, g the gradient in world axes. Points are weighted by Huber's function.

    Args:
        points: (P, 3) world [m].
        parts: of the primitive, which then is only their outline; empty: none.
        prior_std_rad: standard deviation of tilt and of turning about the vertical.
        noise_m: standard deviation of one point.
        rim: how far the mask's rim may be off, None: the points are as sure of where the solid ends as of its surface.

    Returns:
        The pose; its covariance is the inverse of the normal matrix, prior included.
    """
    c = np.array(position, dtype=np.float64)
    turn = np.array(quaternion, dtype=np.float64)
    start, back = c.copy(), rotations.conjugate(turn)
    information = np.diag(
        1.0 / np.array([prior_std_m] * 3 + [prior_std_rad[0], prior_std_rad[0], prior_std_rad[1]]) ** 2
    )
    shared = noise_m**2 * max(len(points) / _INDEPENDENT, 1.0)
    variance, spread = np.full(len(points), shared), np.full(len(points), noise_m)
    normal_matrix = information
    distance = np.zeros(len(points))
    start_mean = 0.0
    for iteration in range(iterations):
        matrix = rotations.matrix(turn)
        relative = points - c
        local = relative @ matrix
        if parts:
            distance, local_gradient = signed_distance_to_parts(parts, local)
        else:
            distance, local_gradient = signed_distance(shape, extents, local, hull)
        if not iteration:
            start_mean = float(np.abs(distance).mean())
        gradient = local_gradient @ matrix.T
        if rim is not None:
            off = rim.std_m(gradient)
            variance = shared + off**2 * max(float((off > noise_m).sum()) / _SIDES, 1.0)
            spread = np.sqrt(noise_m**2 + off**2)
        jacobian = np.empty((len(points), 6))
        jacobian[:, :3] = -gradient
        # r x g, written out: np.cross is slower than the rest of the step together.
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            jacobian[:, 3 + i] = relative[:, k] * gradient[:, j] - relative[:, j] * gradient[:, k]
        weights = np.minimum(1.0, 2.0 * spread / np.maximum(np.abs(distance), 1e-9)) / variance
        deviation = np.concatenate([c - start, rotations.to_vector(rotations.multiply(turn, back))])
        weighted = (jacobian * weights[:, None]).T
        normal_matrix = information + weighted @ jacobian
        step = -np.linalg.solve(normal_matrix, weighted @ distance + information @ deviation)
        length = np.linalg.norm(step[:3])
        if length > 0.05:
            step *= 0.05 / length
        c = c + step[:3]
        turn = rotations.multiply(rotations.from_vector(step[3:]), turn)
        if np.abs(step[:3]).max() < _ALIGNED_M and np.abs(step[3:]).max() < _ALIGNED_RAD:
            break
    turn /= np.linalg.norm(turn)
    misfit = np.abs(distance)
    half = len(misfit) // 2
    residual = float(np.partition(misfit, half)[half])
    covariance = np.linalg.inv(normal_matrix)
    return Alignment(c, turn, covariance, residual, start, prior_std_m, float(misfit.mean()), start_mean)


def surface_samples(shape: int, extents: Array, hull: Array, count: int = 160) -> tuple[Array, Array]:
    """Points (P, 3) spread over the surface, in the object frame [m], and their outward normals (P, 3)."""
    key = (int(shape), count, np.asarray(extents).tobytes(), np.asarray(hull).tobytes())
    if key not in _SAMPLES:
        _SAMPLES[key] = _surface_samples(shape, extents, hull, count)
        while len(_SAMPLES) > _CACHED:
            _SAMPLES.popitem(last=False)
    return _SAMPLES[key]


def _surface_samples(shape: int, extents: Array, hull: Array, count: int) -> tuple[Array, Array]:
    # Fibonacci directions: even and the same every time.
    k = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1.0 - 2.0 * k / count), np.pi * (1.0 + 5.0**0.5) * k
    directions = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
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
