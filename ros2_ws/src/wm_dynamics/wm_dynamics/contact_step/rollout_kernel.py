"""Many futures, many steps, one call: what ``wm_dynamics.learned.backend`` does around the network's step, compiled.

The same rules as there (who is awake, what is near, which surface is beneath, what overlaps at the start, what touches
what), future by future. Futures do not know of one another: they are taken in blocks whose numbers stay in the
processor's caches, each block through all steps before the next. Called from several threads at once, without Python's
lock.
"""

from __future__ import annotations

import math

import numpy as np
from numba import boolean as b1
from numba import float32 as f4
from numba import float64 as f8
from numba import int16 as i2
from numba import int64 as i8
from numba import njit, void

from wm_dynamics.contact_step.body_tables import (
    HOVER_M,
    MAX_SLACK_M,
    PARAMETER_ROWS,
    PLANE_ROWS,
    ROWS,
    SLOW_START_M_S,
    STEP_S,
    SUNK_M,
    near_distance,
)
from wm_dynamics.contact_step.kernel import (
    ANGULAR,
    ANGULAR_NEXT,
    BODY_TILE,
    DEVIATION,
    IMPULSE,
    KEPT,
    LEAST_GAP,
    LINEAR,
    LINEAR_NEXT,
    PAIR_IMPULSE,
    PAIR_LEAST_GAP,
    PAIR_SLACK,
    PAIR_TILE,
    PARAMETER_TO_ROW,
    PLANE,
    POSITION,
    POSITION_NEXT,
    QUATERNION,
    QUATERNION_NEXT,
    SLACK,
    SPARE,
    STRUCK,
    contacts,
    geometry,
    pair_place,
    place,
    run_step,
)
from wm_dynamics.contact_step.simd import SIMD_WIDTH
from wm_dynamics.contact_step.sleeping import SCATTER_SHARE, SLEEP_STEPS, SLOW_M_S, TOUCH_N_S, WAKE_M_S

__all__ = ["advance", "run_step"]

BLOCK_BODIES = 256
"""Bodies of the futures that are taken together."""

_NEAR_M = near_distance(STEP_S)
_INVERSE_MASS, _INVERSE_INERTIA, _FALLS = ROWS["inverse_mass"].start, ROWS["inverse_inertia"].start, ROWS["falls"].start
_FRICTION, _RESTITUTION = ROWS["friction"].start, ROWS["restitution"].start
_CENTER, _HALF = ROWS["center"].start, ROWS["half"].start


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
def _turned(quaternion, n, x, y, z):  # type: ignore[no-untyped-def]  # pragma: no cover
    """A vector in the axes of body n in world axes; float64."""
    a, b, c, d = (
        np.float64(quaternion[0, n]), np.float64(quaternion[1, n]), np.float64(quaternion[2, n]),
        np.float64(quaternion[3, n])
    )  # fmt: skip
    return (
        (1 - 2 * (b * b + c * c)) * x + 2 * (a * b - c * d) * y + 2 * (a * c + b * d) * z,
        2 * (a * b + c * d) * x + (1 - 2 * (a * a + c * c)) * y + 2 * (b * c - a * d) * z,
        2 * (a * c - b * d) * x + 2 * (b * c + a * d) * y + (1 - 2 * (a * a + b * b)) * z,
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _near_support(  # type: ignore[no-untyped-def]  # pragma: no cover
    static, mover, top, position, quaternion, parameters, bounds
):
    """Whether a body (column) is near a support from the side or below, or over its edge: from above, its surface
    (PLANE_ROWS, NaN: no level one) is what counts.
    """
    if position[2, mover] > top[0] - SUNK_M:
        dx, dy = position[0, mover] - top[1], position[1, mover] - top[2]
        if abs(top[3] * dx + top[4] * dy) <= top[5] and abs(top[3] * dy - top[4] * dx) <= top[6]:
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
    return math.sqrt(square) < bounds[mover] + 0.01


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _write(  # type: ignore[no-untyped-def]  # pragma: no cover
    row, slots, samples, index, rest, states, present_out, present, position, quaternion, linear, angular, offsets
):
    """The state of one future into the output, its bodies' origins instead of their centers of mass."""
    k, s = row // samples, row % samples
    for m in range(slots):
        n = row * slots + m
        out = states[k, s, index, m]
        for i in range(3):
            out[i] = position[i, n] + (rest * linear[i, n] if rest > 1e-6 else 0.0)
            out[7 + i] = linear[i, n]
            out[10 + i] = angular[i, n]
        for i in range(4):
            out[3 + i] = quaternion[i, n]
        if abs(offsets[0, n]) + abs(offsets[1, n]) + abs(offsets[2, n]) > 0.0:
            x, y, z = _turned(quaternion, n, offsets[0, n], offsets[1, n], offsets[2, n])
            out[0] -= x
            out[1] -= y
            out[2] -= z
            out[7] -= angular[1, n] * z - angular[2, n] * y
            out[8] -= angular[2, n] * x - angular[0, n] * z
            out[9] -= angular[0, n] * y - angular[1, n] * x
        if s == 0:
            present_out[k, index, m] = present[n]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _lead(  # type: ignore[no-untyped-def]  # pragma: no cover
    begin, end, now, led_columns, led_positions, led_turned, led_quaternions, linear, angular
):
    """Velocities of what follows a path, those that take it to its next place."""
    for f in range(begin, end):
        n = led_columns[f]
        for i in range(3):
            linear[i, n] = np.float32(led_positions[f, now + 1, i] - led_positions[f, now, i]) / STEP_S
        t = led_turned[f]
        if t >= 0:
            a, b = led_quaternions[t, now], led_quaternions[t, now + 1]
            sign = 1.0 if a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] >= 0.0 else -1.0
            x, y, z, w = sign * b[0], sign * b[1], sign * b[2], sign * b[3]
            angular[0, n] = 2.0 * (a[3] * x - w * a[0] - (y * a[2] - z * a[1])) / STEP_S
            angular[1, n] = 2.0 * (a[3] * y - w * a[1] - (z * a[0] - x * a[2])) / STEP_S
            angular[2, n] = 2.0 * (a[3] * z - w * a[2] - (x * a[1] - y * a[0])) / STEP_S


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _broad_phase(  # type: ignore[no-untyped-def]  # pragma: no cover
    row, slots, first, second, position, quaternion, linear, angular, parameters, bounds, present, fixed, asleep,
    kinematic, obstacle, surfaces, surface_row, quiet_steps, on_surface, touching, near, drift, speed, surface_speed,
    awake, unrest, used
):  # fmt: skip
    """Who takes part in a future's next step: fills ``awake`` and ``used`` (M,) and ``near`` (Q,) with pairs' numbers.

    Returns how many near pairs there are.
    """
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
        unrest[m] = False
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
                is_near = _near_support(
                    a, b, surfaces[row, surface_row[i]], position, quaternion, parameters, bounds
                )  # fmt: skip
            else:
                is_near = _near_support(
                    b, a, surfaces[row, surface_row[j]], position, quaternion, parameters, bounds
                )  # fmt: skip
        else:
            x, y, z = (
                position[0, a] - position[0, b], position[1, a] - position[1, b], position[2, a] - position[2, b]
            )  # fmt: skip
            reach = bounds[a] + bounds[b] + _NEAR_M + STEP_S * (speed[i] + speed[j])
            is_near = math.sqrt(x * x + y * y + z * z) < reach
        if is_near:
            near[count] = number
            count += 1
    # What something fast (or a pusher) comes near wakes up.
    for k in range(count):
        i, j = first[near[k]], second[near[k]]
        for one, other in ((i, j), (j, i)):
            n = base + other
            if awake[one] and surface_speed[one] > WAKE_M_S and asleep[n] and not fixed[n]:
                asleep[n] = False
                quiet_steps[n] = 0
    # What is slow, with all that is near it, falls asleep - unless it is in the air, at the top of its flight.
    for m in range(slots):
        n = base + m
        awake[m] = present[n] and not asleep[n] and not fixed[n]
        used[m] = on_surface[row, m] != -1
    for number in range(first.shape[0]):
        if touching[row, number]:
            used[first[number]] = True
            used[second[number]] = True
    for k in range(count):
        i, j = first[near[k]], second[near[k]]
        if not (surface_speed[j] < SLOW_M_S or asleep[base + j] or fixed[base + j]):
            unrest[i] = True
        if not (surface_speed[i] < SLOW_M_S or asleep[base + i] or fixed[base + i]):
            unrest[j] = True
    for m in range(slots):
        n = base + m
        rests = awake[m] and surface_speed[m] < SLOW_M_S and not unrest[m] and not kinematic[n] and used[m]
        quiet_steps[n] = quiet_steps[n] + 1 if rests else 0
        if quiet_steps[n] >= SLEEP_STEPS:
            asleep[n] = True
            awake[m] = False
            for i in range(3):
                linear[i, n] = 0.0
                angular[i, n] = 0.0
            drift[n] = 0.0
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


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _beneath(n, row, position, bounds, surfaces, floor_z, bodies, at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill the rows of the surface beneath column n; which it is, -2 the floor."""
    which = -2
    height = floor_z
    x, y, z, bound = position[0, n], position[1, n], position[2, n], bounds[n]
    for s in range(surfaces.shape[1]):
        top = surfaces[row, s]
        dx, dy = x - top[1], y - top[2]
        lx, ly = top[3] * dx + top[4] * dy, top[3] * dy - top[4] * dx
        if abs(lx) < top[5] + bound and abs(ly) < top[6] + bound and z > top[0] - SUNK_M and top[0] > height:
            which = s
            height = top[0]
    to = at + PLANE * SIMD_WIDTH
    if which >= 0:
        for i in range(PLANE_ROWS):
            bodies[to + i * SIMD_WIDTH] = surfaces[row, which, i]
    else:
        bodies[to] = floor_z
        bodies[to + SIMD_WIDTH] = 0.0
        bodies[to + 2 * SIMD_WIDTH] = 0.0
        bodies[to + 3 * SIMD_WIDTH] = 1.0
        bodies[to + 4 * SIMD_WIDTH] = 0.0
        bodies[to + 5 * SIMD_WIDTH] = 1e4
        bodies[to + 6 * SIMD_WIDTH] = 1e4
    return which


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _size(velocity, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of column n."""
    return math.sqrt(velocity[0, n] ** 2 + velocity[1, n] ** 2 + velocity[2, n] ** 2)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _size_at(bodies, at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of the vector in three rows of the tiles."""
    return math.sqrt(bodies[at] ** 2 + bodies[at + SIMD_WIDTH] ** 2 + bodies[at + 2 * SIMD_WIDTH] ** 2)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _scatter_limit(was, now):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``learned._scatter_limit`` of one body."""
    return max(was, now + SCATTER_SHARE * max(now - was, 0.0))


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _at_most(velocity, n, speed):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``learned._at_most`` of column n, in place."""
    own = _size(velocity, n)
    if own > speed:
        for i in range(3):
            velocity[i, n] *= speed / own


_FLAT, _ROWS, _BLOCK = f4[::1], f4[:, ::1], f4[:, :, ::1]
_SIGNATURE = void(
    _FLAT, i8, i8, i8, i8, i8[::1], i8[::1],
    _ROWS, _ROWS, _ROWS, _ROWS, _ROWS, _FLAT, _ROWS,
    b1[::1], b1[::1], b1[::1], b1[::1], b1[::1], i2[::1],
    _BLOCK, i8[::1], _ROWS, _ROWS, f4,
    _BLOCK, i8[::1], _FLAT, _ROWS, _FLAT, _FLAT, b1[:, ::1], i2[:, ::1], f4[:, :, :, ::1],
    i8[::1], i8[::1], _BLOCK, i8[::1], f8[:, :, ::1],
    i8, i8[::1], f8[::1], f4[:, :, :, :, ::1], b1[:, :, ::1], b1[:, :, ::1], i2[:, :, ::1],
)  # fmt: skip


@njit(_SIGNATURE, nogil=True, cache=KEPT)  # type: ignore[untyped-decorator]
def advance(  # type: ignore[no-untyped-def]  # pragma: no cover
    weights, now, until, slots, samples, first, second,
    position, quaternion, linear, angular, parameters, bounds, offsets,
    present, fixed, asleep, kinematic, obstacle, quiet_steps,
    surfaces, surface_row, surface_friction, surface_restitution, floor_z,
    hulls, hull_of, plane_slack, pair_slack, left_open, drift, touching, on_surface, noise,
    led_rows, led_columns, led_positions, led_turned, led_quaternions,
    written, output_step, output_rest, states, present_out, pair_touch, surface_touch,
):  # fmt: skip
    """Steps ``now`` to ``until`` of all futures; before each step, what is to be reported of its beginning.

    Args:
        first, second: (Q,) slots of all pairs. Columns N = R M; component
            first: position, linear, angular, offsets (3, N), quaternion (4, N), parameters (PARAMETER_ROWS, N);
            bounds, present, fixed, asleep, led, obstacle, quiet_steps, hull_of, plane_slack, left_open,
            drift: (N,).
        surfaces: (R, S, PLANE_ROWS), surface_row: (M,), surface_friction, surface_restitution: (R, S), NaN: the
            body's own counts. hulls: (H, 3, HULL_POINTS), hull_of: -1 none.
        pair_slack, touching: (R, Q); on_surface: (R, M). noise: (steps, 6, S, M), steps 0: none.
        led_rows: (R + 1,) where each future's followers begin in led_columns (F,), led_positions (F, steps, 3),
            led_turned (F,) row in led_quaternions (steps, 4) or -1.
        written: outputs done; output_step (T,), output_rest (T,) seconds beyond it; states (K, S, T, M, 13),
            present_out (K, T, M). pair_touch (steps, R, Q), surface_touch (steps, R, M): filled.
    """
    rows, outputs, number_of_pairs = led_rows.shape[0] - 1, output_step.shape[0], first.shape[0]
    together = max(1, BLOCK_BODIES // max(slots, 1))
    capacity = (min(together, rows) * slots + SIMD_WIDTH - 1) // SIMD_WIDTH * SIMD_WIDTH
    bodies = np.zeros(capacity // SIMD_WIDTH * BODY_TILE, dtype=np.float32)
    pair_capacity = 0
    pairs = np.zeros(0, dtype=np.float32)
    a, b = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    pair_number, pair_row = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    column, which = np.zeros(capacity, dtype=np.int64), np.zeros(capacity, dtype=np.int64)
    held, local_hull = np.zeros(capacity, dtype=np.bool_), np.zeros(capacity, dtype=np.int64)
    spare = np.zeros(SPARE, dtype=np.float32)
    near, local = np.zeros(number_of_pairs, dtype=np.int64), np.zeros(slots, dtype=np.int64)
    speed, surface_speed = np.zeros(slots, dtype=np.float32), np.zeros(slots, dtype=np.float32)
    awake, unrest, used = (
        np.zeros(slots, dtype=np.bool_), np.zeros(slots, dtype=np.bool_), np.zeros(slots, dtype=np.bool_)
    )  # fmt: skip
    for begin in range(0, rows, together):
        end = min(begin + together, rows)
        done = written
        for step in range(now, until):
            while done < outputs and output_step[done] <= step:
                for row in range(begin, end):
                    _write(
                        row, slots, samples, done, output_rest[done], states, present_out, present, position,
                        quaternion, linear, angular, offsets
                    )  # fmt: skip
                done += 1
            body_count, pair_count = 0, 0
            for row in range(begin, end):
                base = row * slots
                _lead(
                    led_rows[row], led_rows[row + 1], step, led_columns, led_positions, led_turned, led_quaternions,
                    linear, angular
                )  # fmt: skip
                count = _broad_phase(
                    row, slots, first, second, position, quaternion, linear, angular, parameters, bounds, present,
                    fixed, asleep, kinematic, obstacle, surfaces, surface_row, quiet_steps, on_surface, touching, near,
                    drift, speed, surface_speed, awake, unrest, used
                )  # fmt: skip
                for m in range(slots):
                    if not used[m]:
                        continue
                    n = base + m
                    at = place(body_count)
                    local[m] = at
                    column[body_count] = n
                    held[body_count] = not awake[m]
                    for i in range(3):
                        bodies[at + (POSITION + i) * SIMD_WIDTH] = position[i, n]
                        bodies[at + (LINEAR + i) * SIMD_WIDTH] = linear[i, n]
                        bodies[at + (ANGULAR + i) * SIMD_WIDTH] = angular[i, n]
                    for i in range(4):
                        bodies[at + (QUATERNION + i) * SIMD_WIDTH] = quaternion[i, n]
                    for i in range(PARAMETER_ROWS):
                        bodies[at + PARAMETER_TO_ROW[i] * SIMD_WIDTH] = parameters[i, n]
                    if held[body_count]:
                        bodies[at + PARAMETER_TO_ROW[_INVERSE_MASS] * SIMD_WIDTH] = 0.0
                        bodies[at + PARAMETER_TO_ROW[_FALLS] * SIMD_WIDTH] = 0.0
                        for i in range(9):
                            bodies[at + PARAMETER_TO_ROW[_INVERSE_INERTIA + i] * SIMD_WIDTH] = 0.0
                    s = _beneath(n, row, position, bounds, surfaces, floor_z, bodies, at)
                    which[body_count] = s
                    if s >= 0:
                        if not math.isnan(surface_friction[row, s]):
                            bodies[at + PARAMETER_TO_ROW[_FRICTION] * SIMD_WIDTH] = surface_friction[row, s]
                        if not math.isnan(surface_restitution[row, s]):
                            bodies[at + PARAMETER_TO_ROW[_RESTITUTION] * SIMD_WIDTH] = surface_restitution[row, s]
                    local_hull[body_count] = hull_of[n]
                    body_count += 1
                if pair_count + count > pair_capacity:
                    pair_capacity = (2 * (pair_count + count) + SIMD_WIDTH - 1) // SIMD_WIDTH * SIMD_WIDTH
                    pairs = np.zeros(pair_capacity // SIMD_WIDTH * PAIR_TILE, dtype=np.float32)
                    old_a, old_b, old_number, old_row = a, b, pair_number, pair_row
                    a, b = np.zeros(pair_capacity, dtype=np.int64), np.zeros(pair_capacity, dtype=np.int64)
                    pair_number = np.zeros(pair_capacity, dtype=np.int64)
                    pair_row = np.zeros(pair_capacity, dtype=np.int64)
                    for k in range(pair_count):
                        a[k], b[k], pair_number[k], pair_row[k] = old_a[k], old_b[k], old_number[k], old_row[k]
                for k in range(count):
                    i, j = first[near[k]], second[near[k]]
                    swap = bounds[base + i] > bounds[base + j]
                    a[pair_count] = local[j] if swap else local[i]
                    b[pair_count] = local[i] if swap else local[j]
                    pair_number[pair_count] = near[k]
                    pair_row[pair_count] = row
                    pair_count += 1
                # Touches: of pairs that are not looked at since both sleep, those before go on.
                for number in range(number_of_pairs):
                    if touching[row, number] and (awake[first[number]] or awake[second[number]]):
                        touching[row, number] = False
            if body_count:
                geometry(bodies, body_count, pairs, pair_count, a, b, hulls, local_hull, spare)
                for k in range(body_count):
                    at, n = place(k), column[k]
                    if math.isnan(plane_slack[n]) and not held[k] and not kinematic[n]:
                        gap = bodies[at + LEAST_GAP * SIMD_WIDTH]
                        moves = math.sqrt(linear[0, n] ** 2 + linear[1, n] ** 2 + linear[2, n] ** 2) + bounds[
                            n
                        ] * math.sqrt(angular[0, n] ** 2 + angular[1, n] ** 2 + angular[2, n] ** 2)
                        if moves < SLOW_START_M_S and 0.0 < gap < HOVER_M:
                            plane_slack[n] = -gap
                        else:
                            plane_slack[n] = min(max(-gap, 0.0), MAX_SLACK_M) if gap == gap else gap
                    bodies[at + SLACK * SIMD_WIDTH] = 0.0 if math.isnan(plane_slack[n]) else plane_slack[n]
                for k in range(pair_count):
                    at, row, number = pair_place(k), pair_row[k], pair_number[k]
                    if math.isnan(pair_slack[row, number]):
                        gap = pairs[at + PAIR_LEAST_GAP * SIMD_WIDTH]
                        # What comes near through the air is looked at before it touches, so it does not overlap.
                        pair_slack[row, number] = min(max(-gap, 0.0), MAX_SLACK_M) if gap == gap else gap
                    slack = pair_slack[row, number]
                    pairs[at + PAIR_SLACK * SIMD_WIDTH] = 0.0 if math.isnan(slack) else slack
                contacts(bodies, body_count, pairs, pair_count, a, b, weights)
                for k in range(body_count):
                    n = column[k]
                    if held[k] or kinematic[n]:
                        continue
                    at = place(k)
                    row, m = n // slots, n % slots
                    deviation = bodies[at + DEVIATION * SIMD_WIDTH]
                    spread = bodies[at + (DEVIATION + 1) * SIMD_WIDTH]
                    sample = row % samples
                    was, then = _size(linear, n), _size_at(bodies, at + LINEAR_NEXT * SIMD_WIDTH)
                    fastest = _scatter_limit(was, then)
                    fastest_spin = _scatter_limit(_size(angular, n), _size_at(bodies, at + ANGULAR_NEXT * SIMD_WIDTH))
                    for i in range(3):
                        position[i, n] = bodies[at + (POSITION_NEXT + i) * SIMD_WIDTH]
                        linear[i, n] = bodies[at + (LINEAR_NEXT + i) * SIMD_WIDTH]
                        angular[i, n] = bodies[at + (ANGULAR_NEXT + i) * SIMD_WIDTH]
                        if samples > 1:
                            linear[i, n] += noise[step, i, sample, m] * deviation
                            angular[i, n] += noise[step, 3 + i, sample, m] * spread
                    if samples > 1:
                        _at_most(linear, n, fastest)
                        _at_most(angular, n, fastest_spin)
                    for i in range(4):
                        quaternion[i, n] = bodies[at + (QUATERNION_NEXT + i) * SIMD_WIDTH]
                    # What contacts slow down loses the same share of what was left open of its speed.
                    touched = max(bodies[at + IMPULSE * SIMD_WIDTH], bodies[at + STRUCK * SIMD_WIDTH]) > TOUCH_N_S
                    kept = min(then / max(was, 1e-6), 1.0) if touched else 1.0
                    drift[n] = math.sqrt((kept * drift[n]) ** 2 + min(deviation, fastest) ** 2)
                    left_open[n] += STEP_S * drift[n]
                    on_surface[row, m] = which[k] if bodies[at + IMPULSE * SIMD_WIDTH] > TOUCH_N_S else -1
                for k in range(pair_count):
                    if pairs[pair_place(k) + PAIR_IMPULSE * SIMD_WIDTH] > TOUCH_N_S:
                        touching[pair_row[k], pair_number[k]] = True
            for row in range(begin, end):
                for f in range(led_rows[row], led_rows[row + 1]):
                    n = led_columns[f]
                    for i in range(3):
                        position[i, n] = led_positions[f, step + 1, i]
                    t = led_turned[f]
                    if t >= 0:
                        for i in range(4):
                            quaternion[i, n] = led_quaternions[t, step + 1, i]
                for number in range(number_of_pairs):
                    pair_touch[step, row, number] = touching[row, number]
                for m in range(slots):
                    surface_touch[step, row, m] = on_surface[row, m]
