"""Which sleeping bodies an awake one touches, compiled.

The same rule in NumPy: ``wm_dynamics.learned.waking``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.kernel import (
    CONTACT_POINTS,
    PAIR_ARM_A,
    PAIR_ARM_B,
    PAIR_GAP,
    PAIR_LEAST_GAP,
    PAIR_NORMAL,
    number_at,
    pair_place,
    size,
)
from wm_dynamics.contact_step.simd import SIMD_WIDTH
from wm_dynamics.contact_step.sleeping import WAKE_DEPTH_M, WAKE_GAP_M, WAKE_M_S, WAKE_STEEP


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _turning(at, arm, tiles, angular, n, x, y, z):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Speed [m/s] along a direction that turning of column n gives to the point whose arm begins in a row of a pair."""
    p = tiles[at + arm * SIMD_WIDTH]
    q = tiles[at + (arm + CONTACT_POINTS) * SIMD_WIDTH]
    r = tiles[at + (arm + 2 * CONTACT_POINTS) * SIMD_WIDTH]
    return (
        x * (angular[1, n] * r - angular[2, n] * q)
        + y * (angular[2, n] * p - angular[0, n] * r)
        + z * (angular[0, n] * q - angular[1, n] * p)
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _strikes(at, a, b, allowed, tiles, linear, expected, angular):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Speed [m/s] of the contact of a pair (columns a, b) that closes in fastest, of those that are fast enough and
    will touch within this step; 0: there is none.

    Args:
        allowed: overlap that may stay [m].
        expected: (3, N) velocities that what is woken in this step is about to get [m/s].
    """
    x, y, z = (
        tiles[at + PAIR_NORMAL * SIMD_WIDTH], tiles[at + (PAIR_NORMAL + 1) * SIMD_WIDTH],
        tiles[at + (PAIR_NORMAL + 2) * SIMD_WIDTH]
    )  # fmt: skip
    closing = (
        x * (linear[0, a] + expected[0, a] - linear[0, b] - expected[0, b])
        + y * (linear[1, a] + expected[1, a] - linear[1, b] - expected[1, b])
        + z * (linear[2, a] + expected[2, a] - linear[2, b] - expected[2, b])
    )
    fastest = np.float32(0.0)
    for c in range(CONTACT_POINTS):
        speed = closing + _turning(at, PAIR_ARM_A + c, tiles, angular, a, x, y, z)
        speed -= _turning(at, PAIR_ARM_B + c, tiles, angular, b, x, y, z)
        gap = tiles[at + (PAIR_GAP + c) * SIMD_WIDTH] + allowed
        if speed > WAKE_M_S and gap < WAKE_GAP_M + STEP_S * (speed + GRAVITY_M_S2 * STEP_S * abs(z)):
            fastest = max(fastest, np.float32(speed))
    return fastest


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def wake_touched(pair_count, bodies, pairs, block, near, expected):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Wake sleeping bodies that an awake one touches in this step; returns whether there were any.

    It touches one that it closes in on, that it slides on or beneath, or that it was put into; ``sleeping`` has the
    limits. ``learned.waking`` has the same rule.

    Args:
        expected: (3, N) velocities that what is struck is about to get [m/s], so that it wakes what it touches; filled.
    """
    asleep, fixed, quiet_steps, bounds = bodies.asleep, bodies.fixed, bodies.quiet_steps, bodies.bounds
    linear, angular, column, tiles = bodies.linear, bodies.angular, block.column, near.tiles
    of_a, of_b, rows, columns, slack = near.a, near.b, near.row, near.column, pairs.slack
    any_woken = False
    for k in range(pair_count):
        a, b = column[number_at(of_a[k])], column[number_at(of_b[k])]
        a_sleeps, b_sleeps = asleep[a] and not fixed[a], asleep[b] and not fixed[b]
        if a_sleeps == b_sleeps:
            continue
        sleeper, mover = (a, b) if a_sleeps else (b, a)
        if fixed[mover]:
            continue
        at = pair_place(k)
        allowed = slack[rows[k], columns[k]]
        allowed = 0.0 if math.isnan(allowed) else allowed
        gap = tiles[at + PAIR_LEAST_GAP * SIMD_WIDTH] + allowed
        steep = abs(tiles[at + (PAIR_NORMAL + 2) * SIMD_WIDTH]) > WAKE_STEEP
        speed = size(linear, mover) + bounds[mover] * size(angular, mover)
        slides = steep and speed > WAKE_M_S and gap < WAKE_GAP_M + STEP_S * speed
        struck = _strikes(at, a, b, allowed, tiles, linear, expected, angular)
        if slides or gap < -WAKE_DEPTH_M or struck > 0.0:
            asleep[sleeper] = False
            quiet_steps[sleeper] = 0
            any_woken = True
            away = struck if sleeper == b else -struck
            for i in range(3):
                expected[i, sleeper] = away * tiles[at + (PAIR_NORMAL + i) * SIMD_WIDTH]
    return any_woken
