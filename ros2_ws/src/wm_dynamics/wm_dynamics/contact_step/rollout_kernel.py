"""Many steps of many futures in one compiled call: what ``wm_dynamics.learned.onnx_futures`` does in NumPy.

The rules are the same (which bodies are awake, which pairs are near, which surface is beneath, what overlaps at the
start, what touches), future by future. Futures do not depend on one another, so a block of them whose numbers fit the
processor's caches goes through all steps before the next block begins. Several threads may call it at once; it does not
hold Python's lock. The tables are those of ``rollout_tables``, which also explains the letters of sizes.

The file is longer than usual because its functions are the parts of one compiled loop, ``advance``, and read and write
the same rows of the tiles.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import boolean as b1
from numba import float32 as f4
from numba import float64 as f8
from numba import int16 as i2
from numba import int64 as i8
from numba import njit, types, void
from numba.extending import intrinsic

from wm_dynamics.contact_step.body_tables import (
    HOVER_M,
    MAX_SLACK_M,
    PARAMETER_ROWS,
    ROWS,
    SLOW_START_M_S,
    STEP_S,
)
from wm_dynamics.contact_step.broad_phase_kernel import broad_phase, fill_surface, make_scratch
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
    PART_TABLE,
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
    size,
    table_type,
)
from wm_dynamics.contact_step.overlaps_kernel import part_overlaps
from wm_dynamics.contact_step.parts_kernel import make_part_scratch, parts_near
from wm_dynamics.contact_step.rollout_tables import (
    BodyTable,
    Flags,
    Floats,
    Integers,
    OutputTable,
    PairTable,
    PathTable,
    Span,
    SurfaceTable,
)
from wm_dynamics.contact_step.simd import SIMD_WIDTH
from wm_dynamics.contact_step.sleeping import SCATTER_SHARE, SLACK_RETURN_M, TOUCH_N_S, WAKE_ROUNDS
from wm_dynamics.contact_step.waking_kernel import wake_touched

__all__ = ["advance", "run_step"]

BLOCK_BODIES = 256
"""Bodies of the futures that are stepped together: larger blocks leave the processor's caches, smaller ones leave more
of their last tile of SIMD_WIDTH empty.
"""

_INVERSE_MASS, _INVERSE_INERTIA, _FALLS = ROWS["inverse_mass"].start, ROWS["inverse_inertia"].start, ROWS["falls"].start
_FRICTION, _RESTITUTION = ROWS["friction"].start, ROWS["restitution"].start


class _Block(NamedTuple):
    """The bodies of a block of futures that a step computes, in the order of their tiles.

    Attributes:
        tiles: float32, their numbers, BODY_TILE to SIMD_WIDTH bodies.
        column: (C,) int64, their columns.
        surface: (C,) int64, row of the surface beneath; -2: the floor.
        hull: (C,) int64, row of their hull; -1: none.
        held: (C,) bool, not awake, so that the step does not move them.
    """

    tiles: Floats
    column: Integers
    surface: Integers
    hull: Integers
    held: Flags


class _NearPairs(NamedTuple):
    """The near pairs of a block of futures.

    Attributes:
        tiles: float32, their numbers, PAIR_TILE to SIMD_WIDTH pairs.
        a, b: (C,) int64, where the numbers of the smaller and of the larger body begin in ``_Block.tiles``.
        part_a, part_b, hull_a, hull_b: (C,) int64, see ``kernel.Sides``.
        number: (C,) int64, which of the Q pairs it is.
        column: (C,) int64, of its slack.
        row: (C,) int64, its future.
    """

    tiles: Floats
    a: Integers
    b: Integers
    part_a: Integers
    part_b: Integers
    hull_a: Integers
    hull_b: Integers
    number: Integers
    column: Integers
    row: Integers


def _without_counts(_, table):  # type: ignore[no-untyped-def]
    """The same table, its arrays without reference counts: the caller holds them until the call ends.

    Numba counts each array of a tuple up and down in every function that gets it, which made the kernel a third slower.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        [value] = arguments
        for index, kind in enumerate(signature.args[0]):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, builder.extract_value(value, index))
                array.meminfo, array.parent = array.meminfo.type(None), array.parent.type(None)
                value = builder.insert_value(value, array._getvalue(), index)
        return value

    return table(table), generate


def _nothing(_, block, near, scratch, parts):  # type: ignore[no-untyped-def]
    """Nothing, but what is ``_borrowed`` of these is not freed before."""
    return types.void(block, near, scratch, parts), lambda context, *_: context.get_dummy_value()


_borrowed: Any = intrinsic(_without_counts)
_hold: Any = intrinsic(_nothing)


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


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _write(row, index, bodies, outputs):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The state of one future into the answer's time ``index``: of the bodies' origins, not their centers of mass."""
    slots, samples = outputs.states.shape[3], outputs.states.shape[1]
    k, s, rest = row // samples, row % samples, outputs.rest[index]
    states, present_out, present = outputs.states, outputs.present, bodies.present
    position, quaternion, linear, angular = bodies.position, bodies.quaternion, bodies.linear, bodies.angular
    offsets = bodies.offsets
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


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _set_path_velocities(row, step, paths, bodies):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Velocities of bodies that follow paths: those that bring them to their next poses."""
    linear, angular, positions, quaternions = bodies.linear, bodies.angular, paths.positions, paths.quaternions
    for f in range(paths.begin[row], paths.begin[row + 1]):
        n = paths.columns[f]
        for i in range(3):
            linear[i, n] = np.float32(positions[f, step + 1, i] - positions[f, step, i]) / STEP_S
        t = paths.turned[f]
        if t >= 0:
            a, b = quaternions[t, step], quaternions[t, step + 1]
            sign = 1.0 if a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] >= 0.0 else -1.0
            x, y, z, w = sign * b[0], sign * b[1], sign * b[2], sign * b[3]
            angular[0, n] = 2.0 * (a[3] * x - w * a[0] - (y * a[2] - z * a[1])) / STEP_S
            angular[1, n] = 2.0 * (a[3] * y - w * a[1] - (z * a[0] - x * a[2])) / STEP_S
            angular[2, n] = 2.0 * (a[3] * z - w * a[2] - (x * a[1] - y * a[0])) / STEP_S


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _set_path_poses(row, step, paths, bodies):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Poses of bodies that follow paths, at the end of a step."""
    position, quaternion, positions, quaternions = (
        bodies.position,
        bodies.quaternion,
        paths.positions,
        paths.quaternions,
    )
    for f in range(paths.begin[row], paths.begin[row + 1]):
        n, t = paths.columns[f], paths.turned[f]
        for i in range(3):
            position[i, n] = positions[f, step + 1, i]
        if t >= 0:
            for i in range(4):
                quaternion[i, n] = quaternions[t, step + 1, i]


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _gather_bodies(row, body_count, bodies, surfaces, scratch, block):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Append the bodies of a future that the step computes to the block; returns how many bodies it has then."""
    tiles, held, column, surface, hull = block.tiles, block.held, block.column, block.surface, block.hull
    position, quaternion, linear, angular = bodies.position, bodies.quaternion, bodies.linear, bodies.angular
    parameters, friction, restitution = bodies.parameters, surfaces.friction, surfaces.restitution
    used, awake, hulls, places = scratch.used, scratch.awake, bodies.hull, scratch.place
    slots = used.shape[0]
    for m in range(slots):
        if not used[m]:
            continue
        n = row * slots + m
        at = place(body_count)
        places[m] = at
        column[body_count] = n
        held[body_count] = not awake[m]
        for i in range(3):
            tiles[at + (POSITION + i) * SIMD_WIDTH] = position[i, n]
            tiles[at + (LINEAR + i) * SIMD_WIDTH] = linear[i, n]
            tiles[at + (ANGULAR + i) * SIMD_WIDTH] = angular[i, n]
        for i in range(4):
            tiles[at + (QUATERNION + i) * SIMD_WIDTH] = quaternion[i, n]
        for i in range(PARAMETER_ROWS):
            tiles[at + PARAMETER_TO_ROW[i] * SIMD_WIDTH] = parameters[i, n]
        if held[body_count]:
            tiles[at + PARAMETER_TO_ROW[_INVERSE_MASS] * SIMD_WIDTH] = 0.0
            tiles[at + PARAMETER_TO_ROW[_FALLS] * SIMD_WIDTH] = 0.0
            for i in range(9):
                tiles[at + PARAMETER_TO_ROW[_INVERSE_INERTIA + i] * SIMD_WIDTH] = 0.0
        s = fill_surface(n, row, bodies, surfaces, tiles, at)
        surface[body_count] = s
        if s >= 0:
            if not math.isnan(friction[row, s]):
                tiles[at + PARAMETER_TO_ROW[_FRICTION] * SIMD_WIDTH] = friction[row, s]
            if not math.isnan(restitution[row, s]):
                tiles[at + PARAMETER_TO_ROW[_RESTITUTION] * SIMD_WIDTH] = restitution[row, s]
        hull[body_count] = hulls[n]
        body_count += 1
    return body_count


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _block_of(capacity):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Room for ``capacity`` bodies, a multiple of SIMD_WIDTH."""
    return _Block(
        np.zeros(capacity // SIMD_WIDTH * BODY_TILE, dtype=np.float32),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.bool_),
    )


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _near_pairs_of(capacity):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Room for ``capacity`` pairs, a multiple of SIMD_WIDTH."""
    return _NearPairs(
        np.zeros(capacity // SIMD_WIDTH * PAIR_TILE, dtype=np.float32),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
        np.zeros(capacity, dtype=np.int64),
    )


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _with_room(near, pair_count, needed):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The same pairs with room for twice as many as ``needed``; their tiles are empty."""
    more = _near_pairs_of((2 * needed + SIMD_WIDTH - 1) // SIMD_WIDTH * SIMD_WIDTH)
    for k in range(pair_count):
        more.a[k], more.b[k], more.number[k], more.row[k] = near.a[k], near.b[k], near.number[k], near.row[k]
        more.part_a[k], more.part_b[k], more.column[k] = near.part_a[k], near.part_b[k], near.column[k]
        more.hull_a[k], more.hull_b[k] = near.hull_a[k], near.hull_b[k]
    return more


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _gather_pairs(row, count, pair_count, bodies, pairs, parts, scratch, part_scratch, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Append the ``count`` near pairs of parts of a future, and clear its touches that this step computes again."""
    first, second, touching, bounds, hulls = pairs.first, pairs.second, pairs.touching, bodies.bounds, bodies.hull
    places, awake, part_hull = scratch.place, scratch.awake, parts.hull
    numbers, columns = part_scratch.number, part_scratch.column
    part_i, part_j = part_scratch.part_i, part_scratch.part_j
    to_a, to_b, to_number, to_row, to_column = near.a, near.b, near.number, near.row, near.column
    to_part_a, to_part_b, to_hull_a, to_hull_b = near.part_a, near.part_b, near.hull_a, near.hull_b
    base = row * awake.shape[0]
    for k in range(count):
        number = numbers[k]
        i, j, p, q = first[number], second[number], part_i[k], part_j[k]
        if bounds[base + i] > bounds[base + j]:
            i, j, p, q = j, i, q, p
        to_a[pair_count] = places[i]
        to_b[pair_count] = places[j]
        to_part_a[pair_count] = p
        to_part_b[pair_count] = q
        to_hull_a[pair_count] = part_hull[p] if p >= 0 else hulls[base + i]
        to_hull_b[pair_count] = part_hull[q] if q >= 0 else hulls[base + j]
        to_number[pair_count] = number
        to_column[pair_count] = columns[k]
        to_row[pair_count] = row
        pair_count += 1
    # A pair that is not computed, since both its bodies sleep, keeps its touch.
    for number in range(first.shape[0]):
        if touching[row, number] and (awake[first[number]] or awake[second[number]]):
            touching[row, number] = False
    return pair_count


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _size_at(tiles, at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Length of the vector in three rows of the tiles."""
    return math.sqrt(tiles[at] ** 2 + tiles[at + SIMD_WIDTH] ** 2 + tiles[at + 2 * SIMD_WIDTH] ** 2)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _measured_slack(gap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Overlap that is allowed to stay [m], of what is this far apart at first; NaN where that is NaN."""
    return min(max(-gap, 0.0), MAX_SLACK_M) if gap == gap else gap


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _fill_slack(body_count, pair_count, bodies, pairs, block, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the overlaps that may stay to the tiles; those of new bodies and pairs are measured."""
    tiles, held, column, plane_slack, kinematic = (
        block.tiles,
        block.held,
        block.column,
        bodies.plane_slack,
        bodies.kinematic,
    )
    linear, angular, bounds = bodies.linear, bodies.angular, bodies.bounds
    for k in range(body_count):
        at, n = place(k), column[k]
        if math.isnan(plane_slack[n]) and not held[k] and not kinematic[n]:
            gap = tiles[at + LEAST_GAP * SIMD_WIDTH]
            moves = size(linear, n) + bounds[n] * size(angular, n)
            if moves < SLOW_START_M_S and 0.0 < gap < HOVER_M:
                plane_slack[n] = -gap
            else:
                plane_slack[n] = _measured_slack(gap)
        tiles[at + SLACK * SIMD_WIDTH] = 0.0 if math.isnan(plane_slack[n]) else plane_slack[n]
    tiles, rows, columns, pair_slack = near.tiles, near.row, near.column, pairs.slack
    for k in range(pair_count):
        at, row, number = pair_place(k), rows[k], columns[k]
        if math.isnan(pair_slack[row, number]):
            # A pair that comes near through the air is measured before it touches, so its overlap is zero.
            pair_slack[row, number] = _measured_slack(tiles[at + PAIR_LEAST_GAP * SIMD_WIDTH])
        slack = pair_slack[row, number]
        tiles[at + PAIR_SLACK * SIMD_WIDTH] = 0.0 if math.isnan(slack) else slack
        # As they move apart, they lose what they overlapped at the start.
        if slack > 0.0:
            kept = max(-tiles[at + PAIR_LEAST_GAP * SIMD_WIDTH], np.float32(0.0)) + np.float32(SLACK_RETURN_M)
            pair_slack[row, number] = min(slack, kept)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _scatter_limit(was, now):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``learned.onnx_futures.scatter_limit`` of one body."""
    return max(was, now + SCATTER_SHARE * max(now - was, 0.0))


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _limit(velocity, n, speed):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``learned.onnx_futures.limited`` of column n, in place."""
    own = size(velocity, n)
    if own > speed:
        for i in range(3):
            velocity[i, n] *= speed / own


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _put_back(step, body_count, bodies, surfaces, noise, samples, block):  # type: ignore[no-untyped-def]  # pragma: no cover
    """States after the step from the tiles into the table, scattered where there are several samples."""
    tiles, held, column, surface, kinematic = block.tiles, block.held, block.column, block.surface, bodies.kinematic
    position, quaternion, linear, angular = bodies.position, bodies.quaternion, bodies.linear, bodies.angular
    drift, left_open, on_surface = bodies.drift, bodies.left_open, surfaces.on_surface
    slots = on_surface.shape[1]
    for k in range(body_count):
        n = column[k]
        if held[k] or kinematic[n]:
            continue
        at = place(k)
        row, m = n // slots, n % slots
        deviation = tiles[at + DEVIATION * SIMD_WIDTH]
        spread = tiles[at + (DEVIATION + 1) * SIMD_WIDTH]
        sample = row % samples
        was, then = size(linear, n), _size_at(tiles, at + LINEAR_NEXT * SIMD_WIDTH)
        fastest = _scatter_limit(was, then)
        fastest_spin = _scatter_limit(size(angular, n), _size_at(tiles, at + ANGULAR_NEXT * SIMD_WIDTH))
        for i in range(3):
            position[i, n] = tiles[at + (POSITION_NEXT + i) * SIMD_WIDTH]
            linear[i, n] = tiles[at + (LINEAR_NEXT + i) * SIMD_WIDTH]
            angular[i, n] = tiles[at + (ANGULAR_NEXT + i) * SIMD_WIDTH]
            if samples > 1:
                linear[i, n] += noise[step, i, sample, m] * deviation
                angular[i, n] += noise[step, 3 + i, sample, m] * spread
        if samples > 1:
            _limit(linear, n, fastest)
            _limit(angular, n, fastest_spin)
        for i in range(4):
            quaternion[i, n] = tiles[at + (QUATERNION_NEXT + i) * SIMD_WIDTH]
        # A body that contacts slow down loses the same share of its velocity's deviation.
        touched = max(tiles[at + IMPULSE * SIMD_WIDTH], tiles[at + STRUCK * SIMD_WIDTH]) > TOUCH_N_S
        kept = min(then / max(was, 1e-6), 1.0) if touched else 1.0
        drift[n] = math.sqrt((kept * drift[n]) ** 2 + min(deviation, fastest) ** 2)
        left_open[n] += STEP_S * drift[n]
        on_surface[row, m] = surface[k] if tiles[at + IMPULSE * SIMD_WIDTH] > TOUCH_N_S else -1


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _set_touching(pair_count, pairs, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Which of the near pairs an impulse passed between."""
    touching, tiles, rows, numbers = pairs.touching, near.tiles, near.row, near.number
    for k in range(pair_count):
        if tiles[pair_place(k) + PAIR_IMPULSE * SIMD_WIDTH] > TOUCH_N_S:
            touching[rows[k], numbers[k]] = True


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _record_touches(row, step, pairs, surfaces, outputs):  # type: ignore[no-untyped-def]  # pragma: no cover
    """What touches what after a step, for the answer."""
    touching, on_surface = pairs.touching, surfaces.on_surface
    pair_touch, surface_touch = outputs.pair_touch, outputs.surface_touch
    for number in range(touching.shape[1]):
        pair_touch[step, row, number] = touching[row, number]
    for m in range(on_surface.shape[1]):
        surface_touch[step, row, m] = on_surface[row, m]


_SIGNATURE = void(
    f4[::1],
    table_type(Span, now=i8, until=i8, written=i8),
    table_type(
        BodyTable,
        position=f4[:, ::1], quaternion=f4[:, ::1], linear=f4[:, ::1], angular=f4[:, ::1], parameters=f4[:, ::1],
        bounds=f4[::1], offsets=f4[:, ::1], hull=i8[::1], present=b1[::1], fixed=b1[::1], asleep=b1[::1],
        kinematic=b1[::1], obstacle=b1[::1], quiet_steps=i2[::1], plane_slack=f4[::1], left_open=f4[::1], drift=f4[::1],
    ),
    table_type(
        PairTable,
        first=i8[::1], second=i8[::1], begin=i8[::1], stride=i8[::1], slack=f4[:, ::1], touching=b1[:, ::1],
    ),
    PART_TABLE,
    table_type(
        SurfaceTable,
        rows=f4[:, :, ::1], row_of=i8[::1], friction=f4[:, ::1], restitution=f4[:, ::1], on_surface=i2[:, ::1],
        floor_z=f4,
    ),
    f4[:, :, ::1],
    table_type(
        PathTable,
        begin=i8[::1], columns=i8[::1], positions=f4[:, :, ::1], turned=i8[::1], quaternions=f8[:, :, ::1],
    ),
    f4[:, :, :, ::1],
    table_type(
        OutputTable,
        step=i8[::1], rest=f8[::1], states=f4[:, :, :, :, ::1], present=b1[:, :, ::1], pair_touch=b1[:, :, ::1],
        surface_touch=i2[:, :, ::1],
    ),
)  # fmt: skip


@njit(_SIGNATURE, nogil=True, cache=KEPT)  # type: ignore[untyped-decorator]
def advance(  # type: ignore[no-untyped-def]  # pragma: no cover
    weights, span, bodies, pairs, parts, surfaces, hulls, paths, noise, outputs
):
    """Steps ``span.now`` to ``span.until`` of all futures; before each step, the answer's times that are due by then.

    Args:
        weights: flat, as ``compiled.read_weights`` orders them.
        span, bodies, pairs, parts, surfaces, paths, outputs: ``rollout_tables``; changed in place.
        hulls: (H, 3, HULL_POINTS) points of bodies and of parts about the centers of mass [m].
        noise: (steps, 6, S, M) standard normal numbers; of a single sample no steps.
    """
    bodies, pairs, surfaces = _borrowed(bodies), _borrowed(pairs), _borrowed(surfaces)
    parts, paths, outputs = _borrowed(parts), _borrowed(paths), _borrowed(outputs)
    rows, slots = surfaces.on_surface.shape
    samples, times = outputs.states.shape[1], outputs.step.shape[0]
    together = max(1, BLOCK_BODIES // max(slots, 1))
    capacity = (min(together, rows) * slots + SIMD_WIDTH - 1) // SIMD_WIDTH * SIMD_WIDTH
    spare = np.zeros(SPARE, dtype=np.float32)
    expected = np.zeros(bodies.linear.shape, dtype=np.float32)
    own_block, own_near, own_scratch = _block_of(capacity), _near_pairs_of(0), make_scratch(slots, pairs.first.shape[0])
    block, near, scratch = _borrowed(own_block), _borrowed(own_near), _borrowed(own_scratch)
    own_part_scratch = make_part_scratch(slots, pairs.slack.shape[1])
    part_scratch = _borrowed(own_part_scratch)
    for begin in range(0, rows, together):
        end = min(begin + together, rows)
        done = span.written
        for step in range(span.now, span.until):
            while done < times and outputs.step[done] <= step:
                for row in range(begin, end):
                    _write(row, done, bodies, outputs)
                done += 1
            body_count, pair_count = 0, 0
            woken = False
            for _ in range(WAKE_ROUNDS):
                body_count, pair_count = 0, 0
                for row in range(begin, end):
                    _set_path_velocities(row, step, paths, bodies)
                    count = broad_phase(row, bodies, pairs, surfaces, scratch)
                    body_count = _gather_bodies(row, body_count, bodies, surfaces, scratch, block)
                    count = parts_near(
                        row, count, bodies, pairs, parts, scratch.near, scratch.surface_speed, part_scratch
                    )
                    if pair_count + count > near.a.shape[0]:
                        # From the owner, not from ``near``, which does not keep the pairs that are copied alive.
                        own_near = _with_room(own_near, pair_count, pair_count + count)
                        near = _borrowed(own_near)
                    pair_count = _gather_pairs(
                        row, count, pair_count, bodies, pairs, parts, scratch, part_scratch, near
                    )
                if not body_count:
                    break
                geometry(block.tiles, body_count, near.tiles, pair_count, near, parts, hulls, block.hull, spare)
                _fill_slack(body_count, pair_count, bodies, pairs, block, near)
                if not wake_touched(pair_count, bodies, pairs, block, near, expected):
                    break
                woken = True
            if woken:
                expected[:, begin * slots : end * slots] = 0.0
            if body_count:
                contacts(block.tiles, body_count, near.tiles, pair_count, near.a, near.b, weights)
                part_overlaps(body_count, pair_count, slots, block, near)
                _put_back(step, body_count, bodies, surfaces, noise, samples, block)
                _set_touching(pair_count, pairs, near)
            for row in range(begin, end):
                _set_path_poses(row, step, paths, bodies)
                _record_touches(row, step, pairs, surfaces, outputs)
    _hold(own_block, own_near, own_scratch, own_part_scratch)
