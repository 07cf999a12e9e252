"""Rules of moving, stopping, falling and toppling, the same for ground truth and for perceived motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import GRAVITY_M_S2, TOPPLE_ANGLE_RAD
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape

Array = NDArray[np.float64]

MOVE_SPEED_M_S = 0.06
"""Speed [m/s] above which an object moves. Chosen by hand; larger means that slow motion is no event."""
STOP_SPEED_M_S = 0.03
"""Speed [m/s] below which, for ``STOP_S``, it has come to rest: less than ``MOVE_SPEED_M_S``, so that one motion is one
event. Chosen by hand; larger means earlier rest."""
STOP_S = 0.2
"""Time [s], three frames at 15 Hz. Chosen by hand; larger means that short rests are no event."""
MOVE_LEAST_M = 0.012
"""Displacement [m] that a motion must reach. Chosen by hand; larger means fewer events of objects that only shake."""
GONE_M = 0.25
"""Depth [m] below the supporting surface at which an object has left. Chosen by hand; larger means later stamps."""
LEAST_LIFE_S = 0.5
"""An object that was seen for less than this [s] did not leave: it was a false segment. Chosen by hand; larger means
that short visits have no end."""


def left_after(height_m: float, rises_m_s: float) -> float:
    """Time [s] from the last sight of an object that falls past an edge until it is ``GONE_M`` below.

    Free fall from a height above the surface [m] at a vertical velocity [m/s].
    """
    drop = max(height_m + GONE_M, 0.0)
    return float((rises_m_s + np.sqrt(rises_m_s**2 + 2.0 * GRAVITY_M_S2 * drop)) / GRAVITY_M_S2)


def moving_spans(
    times: Array, positions: Array, speeds: Array, fast: float, slow: float
) -> list[tuple[float | None, float | None]]:
    """(began to move, came to rest) [s] of every motion; None where that is before the first instant or after the last.

    Args:
        times: (T,) [s]; positions: (T, 3) [m]; speeds: (T,) [m/s].
    """
    spans: list[tuple[float | None, float | None]] = []
    row, count = 0, len(times)
    while row < count:
        if speeds[row] <= fast:
            row += 1
            continue
        begin = row
        while begin > 0 and speeds[begin - 1] > slow and begin > (0 if not spans else 1):
            begin -= 1
        end = row
        while end < count:
            if speeds[end] < slow:
                stay = end
                while stay < count and speeds[stay] < fast and times[stay] - times[end] < STOP_S:
                    stay += 1
                if stay >= count or speeds[stay] < fast:
                    break
                end = stay
            end += 1
        rests = end < count and times[-1] - times[end] >= STOP_S - 1e-6
        reach = float(np.linalg.norm(positions[begin : end + 1] - positions[begin], axis=1).max(initial=0.0))
        if reach > MOVE_LEAST_M:
            start = None if begin == 0 else float(times[begin])
            spans.append((start, float(times[end]) if rests else None))
        row = max(end, row) + 1
    return spans


def upright_axis(shape: int, extents: Array, quaternion: Array) -> tuple[Array, bool] | None:
    """The body axis (3,) that points up, and whether the body is round about its z axis and so rolls freely.

    None for spheres, which have no upright axis.
    """
    extents = np.asarray(extents, dtype=np.float64)
    if shape == Shape.SPHERE:
        return None
    rotation = quaternion_to_matrix(quaternion)
    wide = abs(extents[0] - extents[1]) < 0.15 * max(extents[0], extents[1])
    is_round = shape in (Shape.CYLINDER, Shape.CAPSULE) or (shape == Shape.CONVEX and bool(wide))
    axis = np.zeros(3)
    k = 2 if is_round else int(np.abs(rotation[2]).argmax())
    axis[k] = 1.0 if rotation[2, k] >= 0.0 else -1.0
    return axis, is_round


def tilts(quaternions: Array, upright: tuple[Array, bool]) -> Array:
    """(T,) how far [rad] a body at orientations (T, 4) has turned over since it was upright at the first.

    The angle of its upright axis to the vertical; of round objects, the change of their axis' elevation.
    """
    axis, is_round = upright
    x, y, z, w = np.asarray(quaternions, dtype=np.float64).T
    vertical = (
        2.0 * (x * z - w * y) * axis[0] + 2.0 * (y * z + w * x) * axis[1] + (1.0 - 2.0 * (x * x + y * y)) * axis[2]
    )
    if is_round:
        elevation = np.arcsin(np.clip(np.abs(vertical), 0.0, 1.0))
        return np.abs(elevation - elevation[0])
    return np.arccos(np.clip(vertical, -1.0, 1.0))


def topple_row(quaternions: Array, upright: tuple[Array, bool]) -> int | None:
    """First row at which a body has turned over by more than 45 degrees, or None."""
    rows = np.flatnonzero(tilts(quaternions, upright) > TOPPLE_ANGLE_RAD)
    return int(rows[0]) if len(rows) else None
