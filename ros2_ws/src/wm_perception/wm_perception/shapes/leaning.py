"""Solids that lie across other things or lean on them: neither upright nor flat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.fitting import fit_shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.surfaces import ShapeFit
from wm_perception.types import Array

_GOOD_M = 0.0006
"""Residual [m] of an upright solid up to which no tilted one is looked for. Larger keeps slabs for what leans."""
_AS_GOOD, _AS_GOOD_M, _EXPLAINED_M = 1.15, 0.0003, 0.0025
"""Residual of the tilted solid, as a factor of the upright one's and beyond that [m], and at the most [m], up to which
it is taken: an upright hull explains whatever is seen. Larger tilts more of what stands."""
_BETTER = 0.6
"""Part of the upright one's residual up to which a tilted one that is no hull is taken whatever its size. Larger as
before."""
_SMALLER, _HULL_SMALLER = 0.6, 0.35
"""Part of the upright solid's size up to which the tilted one is the simpler explanation, and the same of a hull, which
explains whatever is seen in any turn. Larger tilts more of what stands."""
_LONG = 1.5
"""Length over width of the points from which they have an axis whose tilt is known. Smaller tilts what is compact."""
_LEAST_TILT, _MOST_TILT = np.radians(6.0), np.radians(65.0)
"""Tilts [rad] of the axis that are no noise and no standing. Chosen by hand; wider tries more, and takes time."""
_UNDER_M = 0.012
"""How far [m] it may reach beneath the surface that it would stand on. Larger keeps what is tilted too far."""
_UPRIGHT = 0.995
"""Vertical part of one of its axes from which a solid is upright or lies flat: 6 degrees, as ``_LEAST_TILT``."""


def is_tilted(fit: ShapeFit) -> bool:
    """Whether none of a solid's axes is vertical."""
    return bool(np.abs(rotations.matrix(fit.quaternion)[2]).max() < _UPRIGHT)


def fit_leaning(
    points: Array,
    fit: ShapeFit,
    bottom: float | None,
    *,
    seed: int = 0,
    likely: str = "",
    eye: Array | None = None,
    free: FreeSpace | None = None,
) -> ShapeFit:
    """A solid whose long axis is tilted, where that explains the points much better than an upright fit; or that fit.

    The points are turned until their long axis is level, a solid is fitted to them as to any other, and turned back.

    Args:
        points: (P, 3) world [m]; fit: the upright one.
        bottom: height [m] of the surface that it must not reach into, None: none known.
        seed, likely, eye, free: as for ``fit_shape``.
    """
    if fit.residual_m < _GOOD_M or fit.shape not in (Shape.BOX, Shape.CONVEX) or fit.is_round:
        return fit
    center = points.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov((points - center).T))
    axis = axes[:, 2]
    level = float(np.hypot(axis[0], axis[1]))
    tilt = float(np.arctan2(abs(axis[2]), level))
    if spread[2] < _LONG**2 * spread[1] or not _LEAST_TILT < tilt < _MOST_TILT:
        return fit
    along = np.array([axis[0], axis[1], 0.0]) / level
    turn = np.cross(axis, along)
    back = rotations.from_vector(-turn / np.linalg.norm(turn) * tilt)
    matrix = rotations.matrix(rotations.conjugate(back))

    def leveled(p: Array) -> Array:
        return np.asarray((p - center) @ matrix.T)

    rays = None if free is None else replace(free, eyes=leveled(free.eyes), directions=free.directions @ matrix.T)
    found = fit_shape(
        leveled(points), None, seed=seed, likely=likely, eye=None if eye is None else leveled(eye), free=rays
    )
    position = center + found.position @ matrix
    quaternion = rotations.multiply(back, found.quaternion)
    half = 0.5 * float(np.abs(rotations.matrix(quaternion)[2]) @ found.extents)
    if found.residual_m > _EXPLAINED_M:
        return fit
    smaller = _HULL_SMALLER if found.shape == Shape.CONVEX else _SMALLER
    simpler = np.prod(found.extents) < smaller * np.prod(fit.extents)
    as_good = found.residual_m < _AS_GOOD * fit.residual_m + _AS_GOOD_M
    better = found.shape != Shape.CONVEX and found.residual_m < _BETTER * fit.residual_m
    if not (simpler and as_good) and not better:
        return fit
    if bottom is not None and position[2] - half < bottom - _UNDER_M:
        return fit
    return replace(found, position=position, quaternion=quaternion)
