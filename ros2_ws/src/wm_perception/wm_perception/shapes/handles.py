"""Handles: what sticks out of a hollow body to one side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_core.scene_graph import Shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.rim import Rim
from wm_perception.shapes.surfaces import Array

_LEAST_POINTS = 6
"""Points that a handle has at least. Larger misses thin ones far away."""
_BEYOND_M = 0.006
"""Distance [m] from the wall from which points are of the handle. Smaller takes noise for one."""
_SIDE, _ONE_SIDE = 0.87, 0.6
"""Cosine within which directions are of one side (30 degrees), and the part of the points beyond the wall that must be
on the handle's. Larger misses handles beside which something else sticks out, smaller takes noise for handles."""
_BOTH = 0.25
"""Points on the other side, over those of the handle, from which there are two handles, whose body is in the middle."""
_THICK_M, _WIDE_M = (0.008, 0.02), (0.008, 0.05)
"""Limits of a handle's thickness in the plane of its bow, and of its width across [m]."""
_LOOP_HEIGHT = 0.35
"""Part of the body's height over which a bow goes at least; a stick is flatter than this, or longer than it is tall."""

_TALL = 0.6
"""Height over width from which a body with a short handle is a mug. Larger: more handles are sticks."""
_LEAST_RUN_M = 0.012
"""How far [m] a handle sticks out at least."""
_BOW_M, _BOW_HEIGHT = (0.012, 0.008), 0.6
"""Width and thickness [m], and height over the body's, of the bow of a mug whose own was not seen."""
_TURNS, _BEHIND = 24, 2.0
"""Directions in which a handle is looked for that was not seen, and the angle from the line of sight [rad] beyond which
it would be in front of the body."""
_CLEAR_M = 0.002
"""Depth [m] in the place of a handle to which something is seen past it, from which it is not there."""


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
    opposite = directions @ directions[most].mean(axis=0) < -_SIDE
    if most.sum() < max(_LEAST_POINTS, _ONE_SIDE * len(most)) or opposite.sum() > _BOTH * most.sum():
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


def hidden_handle(rim: Rim, base: float, top: float, length: float, eye: Array, free: FreeSpace) -> Handle | None:
    """The handle of a body that has one by its class and shows none: where nothing would have been seen past it.

    Directions that are free are left out; of the others the middle one is taken, the farthest from the camera where
    they are all around. None: there is no place for one.

    Args:
        rim: of the body; base, top: heights that it stands between [m]; length: of the body with its handle [m].
        eye: (3,) camera position [m]; free: what is seen past the body.
    """
    radius = float(rim.half.mean())
    run = length - 2.0 * radius
    if run < _LEAST_RUN_M:
        return None
    height = top - base
    behind = float(np.arctan2(*(rim.center - eye[:2])[::-1]))
    size = np.array([run, _BOW_M[0], _BOW_HEIGHT * height])
    allowed = []
    for turn in 2.0 * np.pi * (np.arange(_TURNS) - _TURNS // 2) / _TURNS:
        c, s = np.cos(behind + turn), np.sin(behind + turn)
        out = radius + 0.5 * run
        center = np.array([rim.center[0] + c * out, rim.center[1] + s * out, base + 0.55 * height])
        rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        _, distance = free.deepest(Shape.BOX, size, center, rotation)
        # Its own pixels would hide what is behind it: it cannot be where the camera sees past the body, or in front.
        if not (distance < -_CLEAR_M).any() and abs(turn) < _BEHIND:
            allowed.append(turn)
    if not allowed:
        return None
    turns = np.array(allowed)
    middle = float(np.arctan2(np.sin(turns).mean(), np.cos(turns).mean()))
    azimuth = behind + float(turns[np.abs(turns - middle).argmin()])
    low = base + (0.55 - 0.5 * _BOW_HEIGHT) * height
    return Handle(azimuth, radius, radius + run, low, low + _BOW_HEIGHT * height, *_BOW_M, True)
