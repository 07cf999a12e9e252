"""Broad phase, compiled: the bodies and near pairs that the next step of a future computes, and surfaces beneath.

The same rules in NumPy: ``wm_dynamics.learned.broad_phase``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from wm_dynamics.contact_step.body_tables import (
    FLOOR_HALF_M,
    PLANE_ROWS,
    ROWS,
    STEP_S,
    SUNK_M,
    SUPPORT_MARGIN_M,
    near_distance,
)
from wm_dynamics.contact_step.kernel import PLANE
from wm_dynamics.contact_step.rollout_tables import Flags, Floats, Integers
from wm_dynamics.contact_step.simd import SIMD_WIDTH
from wm_dynamics.contact_step.sleeping import SLEEP_STEPS, SLOW_M_S

_NEAR_M = near_distance(STEP_S)
_CENTER, _HALF = ROWS["center"].start, ROWS["half"].start


class Scratch(NamedTuple):
    """Results of the broad phase of one future, used again for the next future.

    Attributes:
        near: (Q,) int64, numbers of the pairs that are near; the first ones count.
        place: (M,) int64, where each body's numbers begin among the tiles.
        speed: (M,) float32 [m/s].
        surface_speed: (M,) float32, largest speed of a point of the body [m/s].
        awake: (M,) bool, the body moves in this step.
        restless: (M,) bool, something near it is not slow.
        used: (M,) bool, the step computes the body: it is awake, or near one that is.
    """

    near: Integers
    place: Integers
    speed: Floats
    surface_speed: Floats
    awake: Flags
    restless: Flags
    used: Flags


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def make_scratch(bodies, pairs):  # type: ignore[no-untyped-def]  # pragma: no cover
    """For M bodies and their pairs."""
    return Scratch(
        np.zeros(pairs, dtype=np.int64),
        np.zeros(bodies, dtype=np.int64),
        np.zeros(bodies, dtype=np.float32),
        np.zeros(bodies, dtype=np.float32),
        np.zeros(bodies, dtype=np.bool_),
        np.zeros(bodies, dtype=np.bool_),
        np.zeros(bodies, dtype=np.bool_),
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _turned_back(quaternion, n, x, y, z):  # type: ignore[no-untyped-def]  # pragma: no cover
    """A vector in world axes in the axes of body n; float64."""
    a, b, c, d = (
        np.float64(quaternion[0, n]), np.float64(quaternion[1, n]), np.float64(quaternion[2, n]),
        np.float64(quaternion[3, n])
    )  # fmt: skip
    return (
        (1 - 2 * (b * b + c * c)) * x + 2 * (a * b + c * d) * y + 2 * (a * c - b * d) * z,
        2 * (a * b - c * d) * x + (1 - 2 * (a * a + c * c)) * y + 2 * (b * c + a * d) * z,
        2 * (a * c + b * d) * x + 2 * (b * c - a * d) * y + (1 - 2 * (a * a + b * b)) * z,
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _near_support(static, mover, top, position, quaternion, parameters, bounds, hull):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether a body (column) is near a support from the side or below, or over its edge.

    From above its surface ``top`` (PLANE_ROWS,) is what counts; NaN: it has no level one. A hull that reaches over the
    edge is near all the same, as the lowest of its points may be beyond it.
    """
    if position[2, mover] > top[0] - SUNK_M:
        reach = bounds[mover] if hull[mover] >= 0 else np.float32(0.0)
        dx, dy = position[0, mover] - top[1], position[1, mover] - top[2]
        if (
            abs(top[3] * dx + top[4] * dy) <= top[5] - reach
            and abs(top[3] * dy - top[4] * dx) <= top[6] - reach
        ):  # fmt: skip
            return False
    local = _turned_back(
        quaternion,
        static,
        position[0, mover] - position[0, static],
        position[1, mover] - position[1, static],
        position[2, mover] - position[2, static],
    )
    square = 0.0
    for i in range(3):
        beyond = abs(local[i] - parameters[_CENTER + i, static]) - parameters[_HALF + i, static]
        if beyond > 0.0:
            square += beyond * beyond
    return math.sqrt(square) < bounds[mover] + SUPPORT_MARGIN_M


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _near_pairs(row, bodies, pairs, surfaces, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill ``scratch.near`` with the numbers of near pairs of which one body is awake; returns how many there are."""
    first, second, awake, speed = pairs.first, pairs.second, scratch.awake, scratch.speed
    position, bounds, fixed, kinematic = bodies.position, bodies.bounds, bodies.fixed, bodies.kinematic
    present, obstacle, quaternion, parameters = bodies.present, bodies.obstacle, bodies.quaternion, bodies.parameters
    tops, row_of, near, hull = surfaces.rows, surfaces.row_of, scratch.near, bodies.hull
    base = row * awake.shape[0]
    count = 0
    for number in range(first.shape[0]):
        i, j = first[number], second[number]
        if not (awake[i] or awake[j]):
            continue
        a, b = base + i, base + j
        if not (present[a] and present[b]) or ((fixed[a] or kinematic[a]) and (fixed[b] or kinematic[b])):
            continue
        if obstacle[a] or obstacle[b]:
            if fixed[a] and obstacle[a]:
                is_near = _near_support(a, b, tops[row, row_of[i]], position, quaternion, parameters, bounds, hull)
            else:
                is_near = _near_support(b, a, tops[row, row_of[j]], position, quaternion, parameters, bounds, hull)
        else:
            x, y, z = (
                position[0, a] - position[0, b], position[1, a] - position[1, b], position[2, a] - position[2, b]
            )  # fmt: skip
            reach = bounds[a] + bounds[b] + _NEAR_M + STEP_S * (speed[i] + speed[j])
            is_near = math.sqrt(x * x + y * y + z * z) < reach
        if is_near:
            near[count] = number
            count += 1
    return count


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _put_to_sleep(row, count, bodies, pairs, surfaces, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Put bodies to sleep that are slow, as all bodies near them; ``waking_kernel`` wakes what is touched.

    A body that touches nothing stays awake: at the top of its flight it is slow, too.
    """
    first, second, near, awake = pairs.first, pairs.second, scratch.near, scratch.awake
    surface_speed, restless, touches = scratch.surface_speed, scratch.restless, scratch.used
    asleep, fixed, quiet_steps = bodies.asleep, bodies.fixed, bodies.quiet_steps
    kinematic, touching, on_surface = bodies.kinematic, pairs.touching, surfaces.on_surface
    slots = awake.shape[0]
    base = row * slots
    for m in range(slots):
        touches[m] = on_surface[row, m] != -1
    for number in range(first.shape[0]):
        if touching[row, number]:
            touches[first[number]] = True
            touches[second[number]] = True
    for k in range(count):
        i, j = first[near[k]], second[near[k]]
        if not (surface_speed[j] < SLOW_M_S or asleep[base + j] or fixed[base + j]):
            restless[i] = True
        if not (surface_speed[i] < SLOW_M_S or asleep[base + i] or fixed[base + i]):
            restless[j] = True
    for m in range(slots):
        n = base + m
        rests = awake[m] and surface_speed[m] < SLOW_M_S and not restless[m] and not kinematic[n] and touches[m]
        quiet_steps[n] = quiet_steps[n] + 1 if rests else 0
        if quiet_steps[n] >= SLEEP_STEPS:
            asleep[n] = True
            awake[m] = False
            for i in range(3):
                bodies.linear[i, n] = 0.0
                bodies.angular[i, n] = 0.0
            bodies.drift[n] = 0.0


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def broad_phase(row, bodies, pairs, surfaces, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find the bodies and near pairs of the next step of a future: fills ``scratch``; returns the number of pairs."""
    linear, angular, bounds, awake, used = bodies.linear, bodies.angular, bodies.bounds, scratch.awake, scratch.used
    present, asleep, fixed = bodies.present, bodies.asleep, bodies.fixed
    speed, surface_speed, restless = scratch.speed, scratch.surface_speed, scratch.restless
    first, second, near = pairs.first, pairs.second, scratch.near
    slots = awake.shape[0]
    base = row * slots
    any_awake = False
    for m in range(slots):
        n = base + m
        awake[m] = present[n] and not asleep[n] and not fixed[n]
        any_awake = any_awake or awake[m]
        used[m] = False
    if not any_awake:
        return 0
    for m in range(slots):
        n = base + m
        speed[m] = math.sqrt(linear[0, n] ** 2 + linear[1, n] ** 2 + linear[2, n] ** 2)
        spin = math.sqrt(angular[0, n] ** 2 + angular[1, n] ** 2 + angular[2, n] ** 2)
        surface_speed[m] = speed[m] + bounds[n] * spin
        restless[m] = False
    count = _near_pairs(row, bodies, pairs, surfaces, scratch)
    _put_to_sleep(row, count, bodies, pairs, surfaces, scratch)
    for m in range(slots):
        used[m] = awake[m]
    kept = 0
    for k in range(count):
        i, j = first[near[k]], second[near[k]]
        if awake[i] or awake[j]:
            near[kept] = near[k]
            kept += 1
            used[i] = True
            used[j] = True
    return kept


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def fill_surface(n, row, bodies, surfaces, tiles, at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the surface beneath column n to the tiles; returns its row, -2 for the floor."""
    which = -2
    height = surfaces.floor_z
    position, tops, bound = bodies.position, surfaces.rows, bodies.bounds[n]
    x, y, z = position[0, n], position[1, n], position[2, n]
    for s in range(tops.shape[1]):
        top = tops[row, s]
        dx, dy = x - top[1], y - top[2]
        lx, ly = top[3] * dx + top[4] * dy, top[3] * dy - top[4] * dx
        if abs(lx) < top[5] + bound and abs(ly) < top[6] + bound and z > top[0] - SUNK_M and top[0] > height:
            which = s
            height = top[0]
    to = at + PLANE * SIMD_WIDTH
    if which >= 0:
        for i in range(PLANE_ROWS):
            tiles[to + i * SIMD_WIDTH] = tops[row, which, i]
    else:
        tiles[to] = surfaces.floor_z
        tiles[to + SIMD_WIDTH] = 0.0
        tiles[to + 2 * SIMD_WIDTH] = 0.0
        tiles[to + 3 * SIMD_WIDTH] = 1.0
        tiles[to + 4 * SIMD_WIDTH] = 0.0
        tiles[to + 5 * SIMD_WIDTH] = FLOOR_HALF_M
        tiles[to + 6 * SIMD_WIDTH] = FLOOR_HALF_M
    return which
