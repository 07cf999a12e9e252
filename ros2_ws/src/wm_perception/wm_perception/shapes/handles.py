"""Handles: what sticks out of a hollow body to one side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_perception.shapes.rim import Rim
from wm_perception.shapes.surfaces import Array

_LEAST_POINTS = 6
"""Points that a handle has at least. Larger misses thin ones far away."""
_BEYOND_M = 0.006
"""Distance [m] from the wall from which points are of the handle. Smaller takes noise for one."""
_SIDE, _ONE_SIDE = 0.87, 0.6
"""Cosine within which directions are of one side (30 degrees), and the part of the points beyond the wall that must be
on the handle's. Larger misses handles beside which something else sticks out, smaller takes noise for handles."""
_THICK_M, _WIDE_M = (0.008, 0.02), (0.008, 0.05)
"""Limits of a handle's thickness in the plane of its bow, and of its width across [m]."""
_LOOP_HEIGHT = 0.35
"""Part of the body's height over which a bow goes at least; a stick is flatter than this, or longer than it is tall."""

_TALL = 0.6
"""Height over width from which a body with a short handle is a mug. Larger: more handles are sticks."""


@dataclass(frozen=True)
class Handle:
    """A handle in the plane through the body's axis at an azimuth.

    Attributes:
        azimuth: direction from the body's center [rad].
        begin: distance from the center [m] at which it leaves the wall; reach: that of its outer end.
        low, high: heights [m] between which it lies; width: across its plane; thick: of a bow in its plane [m].
        loop: a bow with both ends at the wall; else a stick.
        rise: of a stick, height over its run.
    """

    azimuth: float
    begin: float
    reach: float
    low: float
    high: float
    width: float
    thick: float
    loop: bool
    rise: float = 0.0


def find_handle(points: Array, rim: Rim, outer: Array, base: float, top: float) -> Handle | None:
    """The handle among points (P, 3) that are beside a body; None where they are too few, or on all sides.

    Args:
        rim, outer: of the body, see ``Hollow``; base, top: heights that it stands between [m].
    """
    if len(points) < _LEAST_POINTS:
        return None
    from_center = points[:, :2] - rim.center
    gauge = rim.gauge(points[:, :2])
    ring = np.linalg.norm(from_center, axis=1)
    wall = ring / np.maximum(gauge, 1e-6) * np.interp(points[:, 2], outer[:, 1], outer[:, 0])
    kept = ring > wall + _BEYOND_M
    if kept.sum() < _LEAST_POINTS:
        return None
    from_center, ring, wall, z = from_center[kept], ring[kept], wall[kept], points[kept, 2]
    # What lies in the body, and mixed pixels, stick out elsewhere: the side with the most points is the handle's.
    directions = from_center / ring[:, None]
    beside = directions @ directions.T > _SIDE
    most = beside[int(beside.sum(axis=1).argmax())]
    if most.sum() < max(_LEAST_POINTS, _ONE_SIDE * len(most)):
        return None
    from_center, ring, wall, z = from_center[most], ring[most], wall[most], z[most]
    mean = np.median(directions[most], axis=0)
    mean /= max(float(np.linalg.norm(mean)), 1e-9)
    aside = from_center @ np.array([-mean[1], mean[0]])
    on_it = (np.abs(aside - np.median(aside)) < _WIDE_M[1]) & (from_center @ mean > 0.0)
    if on_it.sum() < _LEAST_POINTS:
        return None
    middle = float(np.median(aside[on_it]))
    # The handle need not point away from the center exactly: its plane goes through its own middle.
    out = from_center[on_it] @ mean
    azimuth = float(np.arctan2(*(mean * float(np.median(out)) + middle * np.array([-mean[1], mean[0]]))[::-1]))
    axis = np.array([np.cos(azimuth), np.sin(azimuth)])
    out = from_center[on_it] @ axis
    across = from_center[on_it] @ np.array([-axis[1], axis[0]])
    z = z[on_it]
    width = float(np.clip(np.ptp(np.percentile(across, [5.0, 95.0])), *_WIDE_M))
    reach = float(np.percentile(out, 97.0))
    low, high = (float(v) for v in np.percentile(z, [3.0, 97.0]))
    begin = float(np.median(wall[on_it]))
    run = reach - begin
    if run < 0.012:
        return None
    height = top - base
    if height > _TALL * 2.0 * float(rim.half.min()) and run < 1.2 * float(rim.half.min()):
        # A short handle of a tall body is a bow, whose lower end the body or its upper end hides.
        low = min(low, base + max(top - high, 0.15 * height))
    loop = high - low > max(_LOOP_HEIGHT * height, 0.5 * run)
    if loop:
        # The outer bar, whose points are the farthest, shows how thick it is.
        outermost = out > reach - 0.5 * run
        thick = float(np.clip(1.2 * np.ptp(np.percentile(out[outermost], [10.0, 90.0])), 0.008, 0.012))
        return Handle(azimuth, begin, reach, low, high, width, thick, True)
    rise = float(np.polyfit(out, z, 1)[0]) if run > 0.03 else 0.0
    rise = float(np.clip(rise, -1.0, 1.0))
    flat = z - rise * (out - begin)
    low, high = (float(v) for v in np.percentile(flat, [4.0, 96.0]))
    # Its underside is not seen: it is about as thick as it is wide, up to a limit.
    thick = max(high - low, float(np.clip(0.7 * width, *_THICK_M)))
    return Handle(azimuth, begin, reach, high - thick, high, width, thick, False, rise)
