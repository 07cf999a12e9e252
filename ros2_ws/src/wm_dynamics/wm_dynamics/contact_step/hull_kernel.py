"""Contacts of pairs with a hull, for the processor: ``training.dynamics.convex_contacts``, pair by pair (Numba).

The same search and the same contacts; there all pairs go through it side by side, here each alone, with the points of
a hull side by side instead.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from wm_dynamics.contact_step import formulas as formulas
from wm_dynamics.contact_step.body_tables import HULL_POINTS
from wm_dynamics.contact_step.formulas import (
    BODY,
    CONTACT_LEAN,
    FAR_M,
    FLAT_M4,
    LEANS,
    PAIR,
    POINTS,
    SHARP,
    TINY,
    TOUCHING_M2,
)
from wm_dynamics.contact_step.simd import SIMD_WIDTH

WORK = 160
"""Numbers of scratch that a search needs."""

_HULL_SIZE = 3 * HULL_POINTS
_A, _B = PAIR.a, PAIR.b
_POSITION, _ROTATION, _CENTER, _HALF = BODY.position, BODY.rotation, BODY.center, BODY.half
_ROUNDING, _CYLINDER = BODY.rounding, BODY.cylinder
_GAP, _LEAST_GAP, _NORMAL, _ARM_A, _ARM_B = PAIR.gap, PAIR.least_gap, PAIR.normal, PAIR.arm_a, PAIR.arm_b
_POINTS = POINTS
# Where in the scratch what lies: turn from b's axes to a's, b's center of mass, directions, differences, ends.
_TURN, _OFFSET, _LOOKS, _SPANS, _ENDS = 0, 9, 12, 48, 84


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _support(pairs, side, hulls, hull, x, y, z, spare):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The point of one side farthest along a direction in its own axes."""
    if hull >= 0:
        spare[0], spare[1], spare[2] = x, y, z
        formulas.hull_farthest(spare, 0, hulls, hull * _HULL_SIZE, spare, SIMD_WIDTH)
        return spare[SIMD_WIDTH], spare[2 * SIMD_WIDTH], spare[3 * SIMD_WIDTH]
    half, center = side + _HALF * SIMD_WIDTH, side + _CENTER * SIMD_WIDTH
    hx, hy, hz = pairs[half], pairs[half + SIMD_WIDTH], pairs[half + 2 * SIMD_WIDTH]
    px = hx * min(max(x * SHARP, -1.0), 1.0)
    py = hy * min(max(y * SHARP, -1.0), 1.0)
    pz = hz * min(max(z * SHARP, -1.0), 1.0)
    if pairs[side + _CYLINDER * SIMD_WIDTH] > 0.5:
        across = math.sqrt(x * x + y * y + TINY * TINY)
        px, py = hx * x / across, hx * y / across
    return px + pairs[center], py + pairs[center + SIMD_WIDTH], pz + pairs[center + 2 * SIMD_WIDTH]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _ends(pairs, at, hulls, hull_a, hull_b, x, y, z, spare, work):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Supporting points of a along a direction and of b against it, in a's axes about a's center of mass."""
    ax, ay, az = _support(pairs, at + _A * SIMD_WIDTH, hulls, hull_a, x, y, z, spare)
    t = work[_TURN : _TURN + 9]
    bx, by, bz = _support(
        pairs, at + _B * SIMD_WIDTH, hulls, hull_b,
        -(t[0] * x + t[3] * y + t[6] * z), -(t[1] * x + t[4] * y + t[7] * z), -(t[2] * x + t[5] * y + t[8] * z), spare
    )  # fmt: skip
    return (
        ax, ay, az, t[0] * bx + t[1] * by + t[2] * bz + work[_OFFSET],
        t[3] * bx + t[4] * by + t[5] * bz + work[_OFFSET + 1], t[6] * bx + t[7] * by + t[8] * bz + work[_OFFSET + 2],
    )  # fmt: skip


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _gap_along(pairs, at, hulls, hull_a, hull_b, k, spare, work):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The difference of the supporting points along direction ``k``, kept; returns the gap along it."""
    d = _LOOKS + 3 * k
    x, y, z = work[d], work[d + 1], work[d + 2]
    ax, ay, az, bx, by, bz = _ends(pairs, at, hulls, hull_a, hull_b, x, y, z, spare, work)
    to = _SPANS + 3 * k
    work[to], work[to + 1], work[to + 2] = bx - ax, by - ay, bz - az
    return x * work[to] + y * work[to + 1] + z * work[to + 2]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _put(work, k, x, y, z, floor):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Direction ``k``, made a unit vector."""
    length = math.sqrt(x * x + y * y + z * z + floor * floor)
    d = _LOOKS + 3 * k
    work[d], work[d + 1], work[d + 2] = x / length, y / length, z / length


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _keep(work, k):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Direction ``k`` and its difference become those of row 0."""
    for i in range(3):
        work[_LOOKS + i] = work[_LOOKS + 3 * k + i]
        work[_SPANS + i] = work[_SPANS + 3 * k + i]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _tangents(x, y, z):  # type: ignore[no-untyped-def]  # pragma: no cover
    sx, sy, sz = abs(x), abs(y), abs(z)
    if sx <= sy and sx <= sz:
        ox, oy, oz = 1.0 - x * x, -x * y, -x * z
    elif sy <= sz:
        ox, oy, oz = -y * x, 1.0 - y * y, -y * z
    else:
        ox, oy, oz = -z * x, -z * y, 1.0 - z * z
    length = math.sqrt(ox * ox + oy * oy + oz * oz)
    ox, oy, oz = ox / length, oy / length, oz / length
    return ox, oy, oz, y * oz - z * oy, z * ox - x * oz, x * oy - y * ox


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _search(pairs, at, hulls, hull_a, hull_b, spare, work):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The direction from a to b along which the gap is greatest: row 0 of the directions."""
    b_center = at + (_B + _CENTER) * SIMD_WIDTH
    a_center = at + (_A + _CENTER) * SIMD_WIDTH
    between = work[_ENDS : _ENDS + 3]
    for i in range(3):
        between[i] = work[_OFFSET + i] - pairs[a_center + i * SIMD_WIDTH]
        for j in range(3):
            between[i] += work[_TURN + 3 * i + j] * pairs[b_center + j * SIMD_WIDTH]
    _put(work, 0, between[0], between[1], between[2], 1e-6)
    for i in range(3):
        sign = -1.0 if between[i] < 0.0 else 1.0
        _put(work, 1 + i, sign * (i == 0), sign * (i == 1), sign * (i == 2), 0.0)
        x, y, z = work[_TURN + i], work[_TURN + 3 + i], work[_TURN + 6 + i]
        sign = -1.0 if x * between[0] + y * between[1] + z * between[2] < 0.0 else 1.0
        _put(work, 4 + i, sign * x, sign * y, sign * z, 0.0)
    # Across the z axes of both, or of either.
    for k in range(3):
        if k < 2:
            x, y, z = (0.0, 0.0, 1.0) if k == 0 else (work[_TURN + 2], work[_TURN + 5], work[_TURN + 8])
            part = x * between[0] + y * between[1] + z * between[2]
            x, y, z = between[0] - part * x, between[1] - part * y, between[2] - part * z
        else:
            x, y, z = -work[_TURN + 5], work[_TURN + 2], 0.0
        if x * x + y * y + z * z <= TOUCHING_M2:
            x, y, z = 0.0, 0.0, 1.0
        sign = -1.0 if x * between[0] + y * between[1] + z * between[2] < 0.0 else 1.0
        _put(work, 7 + k, sign * x, sign * y, sign * z, 1e-9)
    best, which = -1e9, 0
    for k in range(10):
        gap = _gap_along(pairs, at, hulls, hull_a, hull_b, k, spare, work)
        if gap > best:
            best, which = gap, k
    _keep(work, which)
    if best > FAR_M + pairs[at + (_A + _ROUNDING) * SIMD_WIDTH] + pairs[at + (_B + _ROUNDING) * SIMD_WIDTH]:
        return
    for lean in LEANS:
        nx, ny, nz = work[_LOOKS], work[_LOOKS + 1], work[_LOOKS + 2]
        ox, oy, oz, tx, ty, tz = _tangents(nx, ny, nz)
        for k in range(8):
            if k < 4:
                one, two = (lean, 0.0) if k < 2 else (0.0, lean)
            else:
                one, two = (0.7 * lean, 0.7 * lean) if k < 6 else (0.7 * lean, -0.7 * lean)
            if k % 2 == 1:
                one, two = -one, -two
            _put(
                work, 1 + k, nx + one * ox + two * tx, ny + one * oy + two * ty, nz + one * oz + two * tz, 1e-9
            )  # fmt: skip
        which = 0
        for k in range(1, 9):
            gap = _gap_along(pairs, at, hulls, hull_a, hull_b, k, spare, work)
            if gap > best:
                best, which = gap, k
        # The face that four of the supporting points span.
        s = _SPANS
        ux, uy, uz = work[s + 3] - work[s + 6], work[s + 4] - work[s + 7], work[s + 5] - work[s + 8]
        vx, vy, vz = work[s + 9] - work[s + 12], work[s + 10] - work[s + 13], work[s + 11] - work[s + 14]
        fx, fy, fz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        if fx * nx + fy * ny + fz * nz < 0.0:
            fx, fy, fz = -fx, -fy, -fz
        if fx * fx + fy * fy + fz * fz > FLAT_M4:
            _put(work, 9, fx, fy, fz, 1e-12)
        else:
            _put(work, 9, nx, ny, nz, 0.0)
        # The nearest point on the way from the best supporting point to another.
        wx, wy, wz = work[s], work[s + 1], work[s + 2]
        least, qx, qy, qz = 1e9, wx, wy, wz
        for k in range(1, 9):
            dx, dy, dz = work[s + 3 * k] - wx, work[s + 3 * k + 1] - wy, work[s + 3 * k + 2] - wz
            share = -(wx * dx + wy * dy + wz * dz) / max(dx * dx + dy * dy + dz * dz, 1e-12)
            share = min(max(share, 0.0), 1.0)
            px, py, pz = wx + share * dx, wy + share * dy, wz + share * dz
            square = px * px + py * py + pz * pz
            if square < least:
                least, qx, qy, qz = square, px, py, pz
        if qx * qx + qy * qy + qz * qz > TOUCHING_M2:
            _put(work, 10, qx, qy, qz, 1e-9)
        else:
            _put(work, 10, nx, ny, nz, 0.0)
        for k in range(9, 11):
            gap = _gap_along(pairs, at, hulls, hull_a, hull_b, k, spare, work)
            if gap > best:
                best, which = gap, k
        _keep(work, which)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _height(far, far_height, near, near_height, place):  # type: ignore[no-untyped-def]  # pragma: no cover
    length = far - near
    share = min(max((place - near) / length, 0.0), 1.0) if length > 1e-5 else 0.5
    return near_height + share * (far_height - near_height)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def hull_contacts(pairs, at, hulls, hull_a, hull_b, spare, work):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fills the gaps, normals and arms of one pair whose rows of bodies are filled.

    Args:
        at: place of the pair in its tile. hulls: (H, 3, HULL_POINTS); hull_a, hull_b: numbers of the sides' hulls, -1
            none. spare: scratch of 5 rows; work: scratch of WORK numbers.
    """
    rotation_a, rotation_b = at + (_A + _ROTATION) * SIMD_WIDTH, at + (_B + _ROTATION) * SIMD_WIDTH
    between = work[_ENDS + 3 : _ENDS + 6]
    for i in range(3):
        between[i] = pairs[at + (_B + _POSITION + i) * SIMD_WIDTH] - pairs[at + (_A + _POSITION + i) * SIMD_WIDTH]
    for i in range(3):
        total = np.float32(0.0)
        for k in range(3):
            total += pairs[rotation_a + (3 * k + i) * SIMD_WIDTH] * between[k]
        work[_OFFSET + i] = total
        for j in range(3):
            total = np.float32(0.0)
            for k in range(3):
                total += pairs[rotation_a + (3 * k + i) * SIMD_WIDTH] * pairs[rotation_b + (3 * k + j) * SIMD_WIDTH]
            work[_TURN + 3 * i + j] = total
    _search(pairs, at, hulls, hull_a, hull_b, spare, work)
    nx, ny, nz = work[_LOOKS], work[_LOOKS + 1], work[_LOOKS + 2]
    ox, oy, oz, tx, ty, tz = _tangents(nx, ny, nz)
    # Of each end: where a's and b's supporting points are along both tangents and the normal.
    ends = work[_ENDS + 6 : _ENDS + 30].reshape(4, 6)
    for k in range(4):
        one = (CONTACT_LEAN if k == 0 else -CONTACT_LEAN) if k < 2 else 0.0
        two = 0.0 if k < 2 else (CONTACT_LEAN if k == 2 else -CONTACT_LEAN)
        ax, ay, az, bx, by, bz = _ends(
            pairs, at, hulls, hull_a, hull_b, nx + one * ox + two * tx, ny + one * oy + two * ty,
            nz + one * oz + two * tz, spare, work
        )  # fmt: skip
        # The direction against one that leans to one side leans to the other.
        over = k + 1 - 2 * (k % 2)
        ends[k, 0], ends[over, 3] = ox * ax + oy * ay + oz * az, ox * bx + oy * by + oz * bz
        ends[k, 1], ends[over, 4] = tx * ax + ty * ay + tz * az, tx * bx + ty * by + tz * bz
        ends[k, 2], ends[over, 5] = nx * ax + ny * ay + nz * az, nx * bx + ny * by + nz * bz
    low, high = work[_ENDS + 30 : _ENDS + 32], work[_ENDS + 32 : _ENDS + 34]
    for k in range(2):
        top, bottom = min(ends[2 * k, k], ends[2 * k, 3 + k]), max(ends[2 * k + 1, k], ends[2 * k + 1, 3 + k])
        middle = np.float32(0.5) * (top + bottom)
        low[k], high[k] = min(bottom, middle), max(top, middle)
    radius_a, radius_b = pairs[at + (_A + _ROUNDING) * SIMD_WIDTH], pairs[at + (_B + _ROUNDING) * SIMD_WIDTH]
    world, arm = work[_ENDS + 34 : _ENDS + 37], work[_ENDS + 37 : _ENDS + 40]
    for i in range(3):
        row = rotation_a + 3 * i * SIMD_WIDTH
        world[i] = pairs[row] * nx + pairs[row + SIMD_WIDTH] * ny + pairs[row + 2 * SIMD_WIDTH] * nz
    least = np.float32(1e9)
    for c in range(_POINTS):
        k, other = c // 2, 1 - c // 2
        first = c % 2 == 0
        place = high[k] if first else low[k]
        nearer = ends[c, k] <= ends[c, 3 + k] if first else ends[c, k] >= ends[c, 3 + k]
        beside = ends[c, other] if nearer else ends[c, 3 + other]
        beside = min(max(beside, low[other]), high[other])
        far, near = ends[2 * k], ends[2 * k + 1]
        height_a = _height(far[k], far[2], near[k], near[2], place)
        height_b = _height(far[3 + k], far[5], near[3 + k], near[5], place)
        gap = height_b - height_a - radius_a - radius_b
        height = height_a + radius_a + 0.5 * gap
        one, two = (place, beside) if k == 0 else (beside, place)
        arm[0] = ox * one + tx * two + nx * height
        arm[1] = oy * one + ty * two + ny * height
        arm[2] = oz * one + tz * two + nz * height
        pairs[at + (_GAP + c) * SIMD_WIDTH] = gap
        least = min(least, gap)
        for i in range(3):
            row = rotation_a + 3 * i * SIMD_WIDTH
            value = pairs[row] * arm[0] + pairs[row + SIMD_WIDTH] * arm[1] + pairs[row + 2 * SIMD_WIDTH] * arm[2]
            pairs[at + (_NORMAL + c + i * _POINTS) * SIMD_WIDTH] = world[i]
            pairs[at + (_ARM_A + c + i * _POINTS) * SIMD_WIDTH] = value
            pairs[at + (_ARM_B + c + i * _POINTS) * SIMD_WIDTH] = value - between[i]
    pairs[at + _LEAST_GAP * SIMD_WIDTH] = least
