"""Solids of revolution: circles and profiles through points of which only one side is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_perception.shapes.surfaces import Array

_RING_BINS = 12
"""Slices of a solid of revolution at most. Larger is finer and slower."""
_WALL_M = 0.003
"""Distance [m] from the wall at which a point's weight in the fit of the axis is halved. Larger is less robust."""
_ROUND_BINS, _SEEN_BINS = 24, 8
"""Sectors around the axis, and those in which the wall must be seen: a flat face is seen in fewer."""


@dataclass(frozen=True)
class Profile:
    """A solid of revolution about a vertical axis.

    Attributes:
        center: (2,) of the axis [m]; profile: (K, 2) radius and height [m] of the outer surface, heights ascending.
        ring: (P,) distance of each point from the axis [m]; wall: (P,) radius of its slice [m].
    """

    center: Array
    profile: Array
    ring: Array
    wall: Array


def circle_through(xy: Array, center: Array) -> tuple[Array, float]:
    """Center (2,) and radius [m] of the circle through points (P, 2), from a guess of the center; robust.

    Kasa's fit, linear in the center and in r^2 - |center|^2; points off the circle lose weight from turn to turn.
    """
    relative = xy - center
    design = np.column_stack([2.0 * relative, np.ones(len(xy))])
    square = np.einsum("pi,pi->p", relative, relative)
    weights = np.ones(len(xy))
    middle, radius = np.zeros(2), float(np.sqrt(np.median(square)))
    for turn in range(6):
        weighted = design * weights[:, None]
        normal = weighted.T @ design + np.diag([1e-6, 1e-6, 1e-9])
        middle = np.linalg.solve(normal, weighted.T @ square)[:2]
        ring = np.linalg.norm(relative - middle, axis=1)
        radius = float(_rank(np.sort(ring), 0.6))
        scale = _WALL_M * max(1.0, 4.0 - turn)
        weights = 1.0 / (1.0 + np.square((ring - radius) / scale)) / max(radius, 0.01)
    return center + middle, radius


def _rank(ordered: Array, share: float) -> float:
    """Quantile of ascending values (N,), as NumPy's, which takes longer than the fit around it."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def profile_of(points: Array, base: float, top: float, center: Array) -> Profile | None:
    """The upright solid of revolution through points.

    For an axis at (a, b) and a radius R_k in each of K slices, a point of slice k has
    ``x^2 + y^2 = 2 a x + 2 b y + (R_k^2 - a^2 - b^2)``: linear in a, b and K constants (Kasa's circle fit, with
    one center for all slices). Points inside (the bottom of a bowl) and outside (a handle) get less weight.

    Args:
        points: (P, 3) [m]. base, top: heights that it stands between [m]. center: (2,) where the axis is guessed to be.

    Returns:
        None where the points do not determine one: few, of flat faces, or seen from too narrow a side.
    """
    height = top - base
    if height < 0.02 or len(points) < 30:
        return None
    bins = int(np.clip(height / 0.012, 3, _RING_BINS))
    slices = np.clip(((points[:, 2] - base) / height * bins).astype(np.int64), 0, bins - 1)
    # Relative to the guess, so that squares stay small.
    xy = points[:, :2] - center
    one_hot = np.zeros((len(points), bins))
    one_hot[np.arange(len(points)), slices] = 1.0
    design = np.concatenate([2.0 * xy, one_hot], axis=1)
    square = np.einsum("pi,pi->p", xy, xy)
    counts = np.bincount(slices, minlength=bins)
    ends = np.cumsum(counts)
    filled: NDArray[np.bool_] = counts >= 3
    if filled.sum() < 2:
        return None
    weights = np.ones(len(points))
    axis, radius = np.zeros(2), np.zeros(bins)
    ring = np.zeros(len(points))
    for _ in range(6):
        weighted = design * weights[:, None]
        normal = weighted.T @ design + np.diag(np.append([1e-6, 1e-6], np.full(bins, 1e-9)))
        axis = np.linalg.solve(normal, weighted.T @ square)[:2]
        ring = np.linalg.norm(xy - axis, axis=1)
        ordered = ring[np.lexsort((ring, slices))]
        for k in np.flatnonzero(filled):
            radius[k] = _rank(ordered[ends[k] - counts[k] : ends[k]], 0.7)
        # A weight falls off on either side of the wall, relative to the radius as the equation is quadratic.
        weights = 1.0 / (1.0 + np.square((ring - radius[slices]) / _WALL_M)) / np.maximum(radius[slices], 0.01)
    if not np.isfinite(axis).all() or radius.max() > 0.3:
        return None
    # Visible walls must go around enough of the axis to fix it: a flat face does not.
    near = np.abs(ring - radius[slices]) < 0.006
    if near.sum() < 0.4 * len(points):
        return None
    angle = np.arctan2(*(xy - axis)[near].T[::-1])
    sectors = (np.mod(angle, 2.0 * np.pi) / (2.0 * np.pi / _ROUND_BINS)).astype(np.int64)
    if len(np.unique(sectors)) < _SEEN_BINS:
        return None
    levels = base + (np.arange(bins) + 0.5) * height / bins
    profile = np.column_stack([radius, levels])[filled]
    profile = np.concatenate([[[profile[0, 0], base]], profile, [[profile[-1, 0], top]]])
    return Profile(center + axis, profile, ring, radius[slices])
