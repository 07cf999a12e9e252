"""Which parts of near bodies are near, compiled: the last stage of the broad phase."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from wm_core.convex_parts import MAX_PARTS as _MAX_PARTS
from wm_dynamics.contact_step.body_tables import ROWS, STEP_S, near_distance
from wm_dynamics.contact_step.rollout_tables import Flags, Floats, Integers

_NEAR_M = near_distance(STEP_S)
_CENTER, _HALF, _ROUNDING = ROWS["center"].start, ROWS["half"].start, ROWS["rounding"].start
_HULL_BEYOND = 1.25
"""Factor on the core of a hull, beyond which no hull reaches: ``body_tables`` draws cores in to the hull's volume, to
0.88 at most, and makes the two radii of round ones equal."""
_PLACE, _HALF_AT, _RADIUS_AT, _NUMBERS = 9, 12, 15, 16
"""Of a placed part: where its rotation (9 numbers) ends and its center begins, its half extents, its radius; in all."""


class PartScratch(NamedTuple):
    """Near pairs of parts of one future, used again for the next future.

    Attributes:
        column: (L,) int64, column of the pair's slack.
        number: (L,) int64, pair of bodies.
        part_i, part_j: (L,) int64, rows of the parts of the first and of the second body; -1: the body has none.
        placed: (M,) bool, the parts of the body are in ``boxes``.
        boxes: (M, MAX_PARTS, 16) float32, box about each part in the world: rotation, center, half extents, radius.
    """

    column: Integers
    number: Integers
    part_i: Integers
    part_j: Integers
    placed: Flags
    boxes: Floats


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def make_part_scratch(bodies, columns):  # type: ignore[no-untyped-def]  # pragma: no cover
    """For M bodies and L columns of slack."""
    return PartScratch(
        np.zeros(columns, dtype=np.int64),
        np.zeros(columns, dtype=np.int64),
        np.zeros(columns, dtype=np.int64),
        np.zeros(columns, dtype=np.int64),
        np.zeros(bodies, dtype=np.bool_),
        np.zeros((bodies, _MAX_PARTS, _NUMBERS), dtype=np.float32),
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _place_box(box, n, position, quaternion, frame, center, half, radius):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the box of axes ``frame`` (9,) in body n about ``center`` (3,), in these axes, into ``box`` (16,)."""
    x, y, z, w = quaternion[0, n], quaternion[1, n], quaternion[2, n], quaternion[3, n]
    two = np.float32(2.0)
    one = np.float32(1.0)
    rows = (
        (one - two * (y * y + z * z), two * (x * y - z * w), two * (x * z + y * w)),
        (two * (x * y + z * w), one - two * (x * x + z * z), two * (y * z - x * w)),
        (two * (x * z - y * w), two * (y * z + x * w), one - two * (x * x + y * y)),
    )
    for i in range(3):
        place = position[i, n]
        for j in range(3):
            value = rows[i][0] * frame[j] + rows[i][1] * frame[3 + j] + rows[i][2] * frame[6 + j]
            box[3 * i + j] = value
            place += value * center[j]
        box[_PLACE + i] = place
        box[_HALF_AT + i] = half[i]
    box[_RADIUS_AT] = radius


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _near_boxes(a, b, margin):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether no axis of either box (16,) shows a gap greater than ``margin`` [m]."""
    x, y, z = b[_PLACE] - a[_PLACE], b[_PLACE + 1] - a[_PLACE + 1], b[_PLACE + 2] - a[_PLACE + 2]
    reach = a[_RADIUS_AT] + b[_RADIUS_AT] + margin
    if x * x + y * y + z * z > reach * reach:
        return False
    for k in range(3):
        along = abs(a[k] * x + a[3 + k] * y + a[6 + k] * z) - a[_HALF_AT + k]
        for j in range(3):
            along -= b[_HALF_AT + j] * abs(a[k] * b[j] + a[3 + k] * b[3 + j] + a[6 + k] * b[6 + j])
        if along > margin:
            return False
    for k in range(3):
        along = abs(b[k] * x + b[3 + k] * y + b[6 + k] * z) - b[_HALF_AT + k]
        for j in range(3):
            along -= a[_HALF_AT + j] * abs(b[k] * a[j] + b[3 + k] * a[3 + j] + b[6 + k] * a[6 + j])
        if along > margin:
            return False
    return True


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _place_parts(m, n, bodies, parts, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Place the boxes about the parts of body m (column n), or of one without parts the box about its core."""
    position, quaternion, boxes = bodies.position, bodies.quaternion, scratch.boxes
    if parts.part_count[n] > 0:
        for p in range(parts.part_count[n]):
            row = parts.begin[n] + p
            rounding = parts.rounding[row]
            half = (parts.half[row, 0] + rounding, parts.half[row, 1] + rounding, parts.half[row, 2] + rounding)
            _place_box(
                boxes[m, p], n, position, quaternion, parts.frame[row], parts.center[row], half, parts.radius[row]
            )  # fmt: skip
        return
    zero, one = np.float32(0.0), np.float32(1.0)
    axes = (one, zero, zero, zero, one, zero, zero, zero, one)
    beyond = np.float32(_HULL_BEYOND) if bodies.hull[n] >= 0 else one
    table = bodies.parameters
    center = (table[_CENTER, n], table[_CENTER + 1, n], table[_CENTER + 2, n])
    rounding = table[_ROUNDING, n]
    half = (
        beyond * table[_HALF, n] + rounding, beyond * table[_HALF + 1, n] + rounding,
        beyond * table[_HALF + 2, n] + rounding,
    )  # fmt: skip
    # Bounds are about the center of mass, the box about the middle; their radii add.
    radius = bodies.bounds[n] + (abs(center[0]) + abs(center[1]) + abs(center[2]))
    _place_box(boxes[m, 0], n, position, quaternion, axes, center, half, radius)


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def parts_near(row, count, bodies, pairs, parts, near, surface_speed, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill ``scratch`` with the near pairs of parts of a future's near pairs of bodies; returns how many there are.

    Args:
        near: numbers of the near pairs, the first ``count`` of them count. surface_speed: (M,) [m/s].
    """
    first, second, begin, stride = pairs.first, pairs.second, pairs.begin, pairs.stride
    column, numbers, part_i, part_j = scratch.column, scratch.number, scratch.part_i, scratch.part_j
    placed, boxes, part_begin, part_count = scratch.placed, scratch.boxes, parts.begin, parts.part_count
    slots = placed.shape[0]
    base = row * slots
    for m in range(slots):
        placed[m] = False
    found = 0
    for k in range(count):
        number = near[k]
        i, j = first[number], second[number]
        of_i, of_j = part_count[base + i], part_count[base + j]
        if of_i == 0 and of_j == 0:
            column[found] = begin[number]
            numbers[found] = number
            part_i[found] = -1
            part_j[found] = -1
            found += 1
            continue
        for m in (i, j):
            if not placed[m]:
                _place_parts(m, base + m, bodies, parts, scratch)
                placed[m] = True
        margin = np.float32(_NEAR_M + STEP_S * (surface_speed[i] + surface_speed[j]))
        for p in range(max(of_i, 1)):
            for q in range(max(of_j, 1)):
                if _near_boxes(boxes[i, p], boxes[j, q], margin):
                    column[found] = begin[number] + p * stride[number] + q
                    numbers[found] = number
                    part_i[found] = part_begin[base + i] + p if of_i > 0 else -1
                    part_j[found] = part_begin[base + j] + q if of_j > 0 else -1
                    found += 1
    return found
