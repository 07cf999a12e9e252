"""Overlaps that the sweeps leave in a block of futures, compiled; ``overlaps`` has the rules.

The same for the futures of ONNX Runtime: ``wm_dynamics.learned.overlaps``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.kernel import (
    ANGULAR_NEXT,
    CONTACT_POINTS,
    GAP,
    GROUND_ARM,
    INVERSE,
    INVERSE_MASS,
    LINEAR_NEXT,
    MASS_SCALE,
    PAIR_ARM_A,
    PAIR_ARM_B,
    PAIR_GAP,
    PAIR_NORMAL,
    POSITION_NEXT,
    QUATERNION_NEXT,
    number_at,
    pair_place,
    place,
)
from wm_dynamics.contact_step.overlaps import DEEP_M, NEAR_M, Touching, separate
from wm_dynamics.contact_step.simd import SIMD_WIDTH


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _closing(at, arm, n, tiles, bodies, x, y, z):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Speed after the step [m/s], along a direction, of a body's point whose arm begins in a row; n: its place."""
    p = tiles[at + arm * SIMD_WIDTH]
    q = tiles[at + (arm + CONTACT_POINTS) * SIMD_WIDTH]
    r = tiles[at + (arm + 2 * CONTACT_POINTS) * SIMD_WIDTH]
    v, w = n + LINEAR_NEXT * SIMD_WIDTH, n + ANGULAR_NEXT * SIMD_WIDTH
    wx, wy, wz = bodies[w], bodies[w + SIMD_WIDTH], bodies[w + 2 * SIMD_WIDTH]
    return (
        x * (bodies[v] + wy * r - wz * q)
        + y * (bodies[v + SIMD_WIDTH] + wz * p - wx * r)
        + z * (bodies[v + 2 * SIMD_WIDTH] + wx * q - wy * p)
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _after_pair(at, c, a, b, tiles, bodies):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Gap of contact c of the pair at a place after the step [m]; a, b: places of its bodies."""
    n = at + PAIR_NORMAL * SIMD_WIDTH
    x, y, z = tiles[n], tiles[n + SIMD_WIDTH], tiles[n + 2 * SIMD_WIDTH]
    speed = _closing(at, PAIR_ARM_B + c, b, tiles, bodies, x, y, z)
    speed -= _closing(at, PAIR_ARM_A + c, a, tiles, bodies, x, y, z)
    return tiles[at + (PAIR_GAP + c) * SIMD_WIDTH] + np.float32(STEP_S) * speed


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _after_ground(at, c, bodies):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Gap of contact c of the body at a place with its surface after the step [m]."""
    zero, one = np.float32(0.0), np.float32(1.0)
    speed = _closing(at, GROUND_ARM + c, at, bodies, bodies, zero, zero, one)
    return bodies[at + (GAP + c) * SIMD_WIDTH] + np.float32(STEP_S) * speed


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _is_near(at, tiles):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether a contact of a pair is near enough that it may be deep after the step."""
    least = tiles[at + PAIR_GAP * SIMD_WIDTH]
    for c in range(1, CONTACT_POINTS):
        least = min(least, tiles[at + (PAIR_GAP + c) * SIMD_WIDTH])
    return least < NEAR_M


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _deepest(body_begin, body_end, pair_begin, pair_end, bodies, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Smallest gap after the step of the contacts of a future of which something can move [m]."""
    tiles, of_a, of_b = near.tiles, near.a, near.b
    least = np.float32(NEAR_M)
    for k in range(pair_begin, pair_end):
        at, a, b = pair_place(k), of_a[k], of_b[k]
        if not _is_near(at, tiles):
            continue
        if bodies[a + INVERSE_MASS * SIMD_WIDTH] <= 0.0 and bodies[b + INVERSE_MASS * SIMD_WIDTH] <= 0.0:
            continue
        for c in range(CONTACT_POINTS):
            least = min(least, _after_pair(at, c, a, b, tiles, bodies))
    for k in range(body_begin, body_end):
        at = place(k)
        if bodies[at + INVERSE_MASS * SIMD_WIDTH] > 0.0:
            for c in range(CONTACT_POINTS):
                least = min(least, _after_ground(at, c, bodies))
    return least


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _add_contact(count, a, b, touching, gap):  # type: ignore[no-untyped-def]  # pragma: no cover
    of_a, of_b, gaps = touching.a, touching.b, touching.gap
    of_a[count], of_b[count], gaps[count] = a, b, gap


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _contacts_of(body_begin, body_end, pair_begin, pair_end, bodies, near, touching):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill ``touching`` with the near contacts of a future; returns how many there are."""
    tiles, of_a, of_b = near.tiles, near.a, near.b
    normal, arm_a, arm_b = touching.normal, touching.arm_a, touching.arm_b
    count = 0
    for k in range(pair_begin, pair_end):
        at, a, b = pair_place(k), of_a[k], of_b[k]
        if not _is_near(at, tiles):
            continue
        for c in range(CONTACT_POINTS):
            if _after_pair(at, c, a, b, tiles, bodies) > NEAR_M:
                continue
            _add_contact(
                count, number_at(a) - body_begin, number_at(b) - body_begin, touching,
                tiles[at + (PAIR_GAP + c) * SIMD_WIDTH]
            )  # fmt: skip
            for i in range(3):
                normal[count, i] = tiles[at + (PAIR_NORMAL + i) * SIMD_WIDTH]
                arm_a[count, i] = tiles[at + (PAIR_ARM_A + CONTACT_POINTS * i + c) * SIMD_WIDTH]
                arm_b[count, i] = tiles[at + (PAIR_ARM_B + CONTACT_POINTS * i + c) * SIMD_WIDTH]
            count += 1
    for k in range(body_begin, body_end):
        at = place(k)
        if bodies[at + INVERSE_MASS * SIMD_WIDTH] <= 0.0:
            continue
        for c in range(CONTACT_POINTS):
            if _after_ground(at, c, bodies) > NEAR_M:
                continue
            _add_contact(count, -1, k - body_begin, touching, bodies[at + (GAP + c) * SIMD_WIDTH])
            for i in range(3):
                normal[count, i] = 1.0 if i == 2 else 0.0
                arm_b[count, i] = bodies[at + (GROUND_ARM + CONTACT_POINTS * i + c) * SIMD_WIDTH]
            count += 1
    return count


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _turn(bodies, at, x, y, z):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Turn the orientation after the step of the body at a place by a rotation vector [rad]."""
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-9:
        return
    sine, dw = math.sin(0.5 * angle) / angle, math.cos(0.5 * angle)
    dx, dy, dz = sine * x, sine * y, sine * z
    q = at + QUATERNION_NEXT * SIMD_WIDTH
    x, y, z, w = bodies[q], bodies[q + SIMD_WIDTH], bodies[q + 2 * SIMD_WIDTH], bodies[q + 3 * SIMD_WIDTH]
    bodies[q] = dw * x + dx * w + dy * z - dz * y
    bodies[q + SIMD_WIDTH] = dw * y - dx * z + dy * w + dz * x
    bodies[q + 2 * SIMD_WIDTH] = dw * z + dx * y - dy * x + dz * w
    bodies[q + 3 * SIMD_WIDTH] = dw * w - dx * x - dy * y - dz * z


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _separate_future(body_begin, body_end, pair_begin, pair_end, bodies, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Solve the contacts of a future again, and change the states after the step."""
    count = body_end - body_begin
    room = CONTACT_POINTS * (pair_end - pair_begin + count)
    touching = Touching(
        np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.int64), np.zeros((room, 3), dtype=np.float32),
        np.zeros((room, 3), dtype=np.float32), np.zeros((room, 3), dtype=np.float32),
        np.zeros(room, dtype=np.float32), np.zeros(room, dtype=np.float32),
    )  # fmt: skip
    found = _contacts_of(body_begin, body_end, pair_begin, pair_end, bodies, near, touching)
    inverse_mass, inverse = np.zeros(count, dtype=np.float32), np.zeros((count, 9), dtype=np.float32)
    twist, shift = np.zeros((count, 6), dtype=np.float32), np.zeros((count, 6), dtype=np.float32)
    for n in range(count):
        at = place(body_begin + n)
        inverse_mass[n] = bodies[at + INVERSE_MASS * SIMD_WIDTH]
        scale = bodies[at + MASS_SCALE * SIMD_WIDTH]
        for i in range(9):
            if inverse_mass[n] > 0.0:
                inverse[n, i] = bodies[at + (INVERSE + i) * SIMD_WIDTH] / scale
        for i in range(3):
            twist[n, i] = bodies[at + (LINEAR_NEXT + i) * SIMD_WIDTH]
            twist[n, 3 + i] = bodies[at + (ANGULAR_NEXT + i) * SIMD_WIDTH]
    separate(found, touching, inverse_mass, inverse, twist, shift)
    step = np.float32(STEP_S)
    for n in range(count):
        if inverse_mass[n] <= 0.0:
            continue
        at = place(body_begin + n)
        for i in range(3):
            linear, angular = at + (LINEAR_NEXT + i) * SIMD_WIDTH, at + (ANGULAR_NEXT + i) * SIMD_WIDTH
            bodies[at + (POSITION_NEXT + i) * SIMD_WIDTH] += step * (twist[n, i] - bodies[linear]) + shift[n, i]
            shift[n, 3 + i] += step * (twist[n, 3 + i] - bodies[angular])
            bodies[linear], bodies[angular] = twist[n, i], twist[n, 3 + i]
        _turn(bodies, at, shift[n, 3], shift[n, 4], shift[n, 5])


@njit(nogil=True)  # type: ignore[untyped-decorator]
def part_overlaps(body_count, pair_count, slots, block, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Change the states after the step of the futures of a block that have deep contacts.

    Args:
        slots: bodies of a future. block, near: bodies and pairs, those of a future one behind the other.
    """
    column, rows = block.column, near.row
    body_begin, pair_begin = 0, 0
    while body_begin < body_count:
        row = column[body_begin] // slots
        body_end, pair_end = body_begin, pair_begin
        while body_end < body_count and column[body_end] // slots == row:
            body_end += 1
        while pair_end < pair_count and rows[pair_end] == row:
            pair_end += 1
        if _deepest(body_begin, body_end, pair_begin, pair_end, block.tiles, near) < -DEEP_M:
            _separate_future(body_begin, body_end, pair_begin, pair_end, block.tiles, near)
        body_begin, pair_begin = body_end, pair_end
