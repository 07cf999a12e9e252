"""Sides of a fitted solid that were not seen, because something hides them or the image ends.

A fit to what is seen ends where the view of it ends. Beside the outline that is the object's own it does so rightly;
where something nearer covers more of it, it goes on, as far as things of its class do and as nothing is seen that lies
behind.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.size_prior import likely_extents
from wm_perception.shapes.surfaces import Array, ShapeFit, hull_planes

_BAND_PART, _BAND_M = 0.08, 0.006
"""Width of the band at an end whose points tell whether it is cut: part of the extent, and least [m]."""
_CUT, _LEAST_CUT = 0.7, 4
"""Part of the outline's points in it that are beside something that hides more of the object, and how many there must
be, from which the end goes on unseen. Larger completes less."""
_RANK = 0.15
"""Rank of the likely sizes to which an end that is cut is extended: most of these ends are nearly reached, as things
hide corners more often than halves (of some 90 cut ends on homeware half went on by less than 5 mm). Larger completes
more."""
_STEPS = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Parts of the likely extension that are tried, until free space allows one."""
ALLOWED_INTRUSION_M = 0.0006
"""Mean intrusion into free space [m] that an extension may add. Larger trusts the prior more than what is seen."""
_OWN_POINT, _CUT_POINT = 1, 2
"""See ``Observation.rim``."""
_UPRIGHT = 0.95
"""Vertical part of an axis from which it is upright: 18 degrees."""


def open_ends(fit: ShapeFit, points: Array, rim: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(3, 2) whether the object goes on unseen beyond the low and the high end of each axis of a fit.

    Args:
        points: (P, 3) of the segment [m]; rim: (P,) as ``Observation.rim``, or (0,).
    """
    rotation = rotations.matrix(fit.quaternion)
    local = (points - fit.position) @ rotation
    ends = np.zeros((3, 2), bool)
    for axis in range(3):
        low, high = np.percentile(local[:, axis], [2.0, 98.0])
        band = max(_BAND_PART * (high - low), _BAND_M)
        for side, there in enumerate((local[:, axis] < low + band, local[:, axis] > high - band)):
            if len(rim):
                cut, own = int((rim[there] == _CUT_POINT).sum()), int((rim[there] == _OWN_POINT).sum())
                ends[axis, side] = cut >= _LEAST_CUT and cut > _CUT * (cut + own)
    vertical = int(np.abs(rotation[2]).argmax())
    # It stands on something.
    ends[vertical, 0 if rotation[2, vertical] > 0.0 else 1] = False
    return ends


def completed(
    fit: ShapeFit,
    points: Array,
    rim: NDArray[np.uint8],
    class_name: str,
    free: FreeSpace | None,
) -> ShapeFit:
    """A box or a hull, extended where it goes on unseen to a likely size of its class; other solids as they are.

    Args:
        points, rim: see ``open_ends``; class_name: "" where it is not known; free: what is seen past the object.
    """
    if fit.parts or fit.shape not in (Shape.BOX, Shape.CONVEX):
        return fit
    rotation = rotations.matrix(fit.quaternion)
    if abs(rotation[2, 2]) < _UPRIGHT:
        return fit
    ends = open_ends(fit, points, rim)
    if not ends.any():
        return fit
    likely = likely_extents(class_name, fit.extents, np.asarray(~ends.any(axis=1)), _RANK)
    more = np.maximum(likely - fit.extents, 0.0)
    before = intrusion_m(fit, free)
    for step in _STEPS:
        longer = extended(fit, ends, step * more)
        if free is None or intrusion_m(longer, free) < before + ALLOWED_INTRUSION_M:
            return longer
    return fit


def extended(fit: ShapeFit, ends: NDArray[np.bool_], more: Array) -> ShapeFit:
    """A box or a hull that is longer by ``more`` (3,) [m] along its axes, at the ends (3, 2) that are open."""
    shares = ends / np.maximum(ends.sum(axis=1, keepdims=True), 1)
    low, high = shares[:, 0] * more, shares[:, 1] * more
    middle = 0.5 * (high - low)
    position = fit.position + rotations.matrix(fit.quaternion) @ middle
    extents = fit.extents + low + high
    if fit.shape != Shape.CONVEX:
        return replace(fit, position=position, extents=extents)
    corners = [fit.hull]
    for axis in range(3):
        for amount in (-low[axis], high[axis]):
            if amount != 0.0:
                shift = np.zeros(3)
                shift[axis] = amount
                corners.append(np.concatenate(corners) + shift)
    points = np.concatenate(corners)
    try:
        hull = points[ConvexHull(points).vertices] - middle
    except QhullError:
        return fit
    return replace(fit, position=position, extents=extents, hull=hull)


def intrusion_m(fit: ShapeFit, free: FreeSpace | None) -> float:
    """Mean depth [m] to which rays that are free go through a fit; 0 where none is known."""
    if free is None:
        return 0.0
    planes = hull_planes(fit.hull) if fit.shape == Shape.CONVEX else None
    return free.intrusion_m(fit.shape, fit.extents, fit.position, rotations.matrix(fit.quaternion), planes)
