"""The dynamics network's step for the processor: one call for many bodies, without Python in between (Numba).

``emission`` holds the formulas over sixteen bodies or pairs; here they are called in turn for all bodies and pairs
of a block of futures, and what bodies and pairs exchange is copied between their tiles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32 as f4
from numba import int64 as i8
from numba import njit, types, void

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step import emission
from wm_dynamics.contact_step.body_tables import HULL_POINTS, PARAMETER_ROWS, PLANE_ROWS, STEP_S
from wm_dynamics.contact_step.compile_cache import is_kept
from wm_dynamics.contact_step.manifold import LEFT_OUT_M, TOUCHING_M, keep_widest
from wm_dynamics.contact_step.records import BODY, PAIR, POINTS, SIDE, SWEEPS, TABLE, WEIGHTS
from wm_dynamics.contact_step.records import PARAMETER_TO_ROW as _PARAMETER_TO_ROW
from wm_dynamics.contact_step.rollout_tables import Integers, PartTable
from wm_dynamics.contact_step.simd import SIMD_WIDTH

KEPT = is_kept()
"""Whether compiled code is read from disk and kept there (``compile_cache``)."""
BODY_TILE = BODY.row_count * SIMD_WIDTH
"""Numbers in a tile of sixteen bodies."""
PAIR_TILE = PAIR.row_count * SIMD_WIDTH
SPARE = 16 * SIMD_WIDTH
"""Numbers of scratch beside the tiles."""
PARAMETER_TO_ROW = np.array(_PARAMETER_TO_ROW, dtype=np.int64)

# Rows of the tiles: to Numba, numbers of a module are constants, attributes of objects are not.
POSITION, QUATERNION, LINEAR, ANGULAR = BODY.position, BODY.quaternion, BODY.linear, BODY.angular
PLANE, SLACK, PAIR_SLACK = BODY.plane, BODY.slack, PAIR.slack
PAIR_GAP, PAIR_NORMAL, PAIR_ARM_A, PAIR_ARM_B = PAIR.gap, PAIR.normal, PAIR.arm_a, PAIR.arm_b
CONTACT_POINTS = POINTS
LEAST_GAP, PAIR_LEAST_GAP = BODY.least_gap, PAIR.least_gap
_IS_HULL, _HULL_POINTS, _FEATURES, _LAW = BODY.is_hull, BODY.hull_points, BODY.features, BODY.law
_FALLS, _CYLINDER = BODY.falls, BODY.cylinder
_OF_B = PAIR.b
_AT, _AT_A, _AT_B = BODY.at, PAIR.at_a, PAIR.at_b
_MASS_SCALE_A, _MASS_SCALE_B = PAIR.mass_scale_a, PAIR.mass_scale_b
_PAIR_FEATURES, _PAIR_LAW = PAIR.features, PAIR.law
_CROWD, _PAIRS, _HELD_BY, _WEIGHT, _LOAD = BODY.crowd, BODY.pairs, BODY.held_by, BODY.weight, BODY.load
_START_SQUARE, _LIMIT, STRUCK, _SQUARE, _MOVING = (
    BODY.start_square, BODY.limit, BODY.struck, BODY.square, BODY.moving
)  # fmt: skip
_NEAR_SUM, _BESIDE, _ABOVE_A, _ABOVE_B = PAIR.near_sum, PAIR.beside, PAIR.above_a, PAIR.above_b
_CROWD_A, _CROWD_B, _PAIRS_A, _PAIRS_B, _THROUGH = PAIR.crowd_a, PAIR.crowd_b, PAIR.pairs_a, PAIR.pairs_b, PAIR.through
_MOVING_A, _MOVING_B, _RESPOND_A, _RESPOND_B = PAIR.moving_a, PAIR.moving_b, PAIR.respond_a, PAIR.respond_b
PAIR_IMPULSE, _PAIR_SQUARE, _GIVEN_A, _GIVEN_B = PAIR.impulse, PAIR.square, PAIR.given_a, PAIR.given_b
POSITION_NEXT, QUATERNION_NEXT, LINEAR_NEXT, ANGULAR_NEXT = (
    BODY.position_next, BODY.quaternion_next, BODY.linear_next, BODY.angular_next
)  # fmt: skip
IMPULSE, DEVIATION = BODY.impulse, BODY.deviation
INVERSE_MASS, INVERSE, MASS_SCALE, GAP, GROUND_ARM = (
    BODY.inverse_mass,
    BODY.inverse,
    BODY.mass_scale,
    BODY.gap,
    BODY.arm,
)
_SWEEP_WEIGHTS, _POINTS, _HULL_SIZE = WEIGHTS.sweeps, POINTS, 3 * HULL_POINTS
_SWEEPS = SWEEPS
_ROTATION, _CENTER, _HALF, _ROUNDING, _CORE_CYLINDER = (
    SIDE.rotation, SIDE.center, SIDE.half, SIDE.rounding, SIDE.cylinder
)  # fmt: skip


class Sides(NamedTuple):
    """What collides in each of P pairs, with room for whole tiles.

    Attributes:
        a, b: places of the bodies.
        part_a, part_b: rows of their parts; -1: the whole body.
        hull_a, hull_b: rows of the hulls of those; -1: their core.
    """

    a: Integers
    b: Integers
    part_a: Integers
    part_b: Integers
    hull_a: Integers
    hull_b: Integers


@njit(nogil=True)  # type: ignore[untyped-decorator]
def place(k):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Where the first row of body ``k`` lies."""
    return (k // SIMD_WIDTH) * BODY_TILE + k % SIMD_WIDTH


@njit(nogil=True)  # type: ignore[untyped-decorator]
def number_at(place):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The body whose first row lies at a place."""
    return place // BODY_TILE * SIMD_WIDTH + place % BODY_TILE


@njit(nogil=True)  # type: ignore[untyped-decorator]
def pair_place(k):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Where the first row of pair ``k`` lies."""
    return (k // SIMD_WIDTH) * PAIR_TILE + k % SIMD_WIDTH


@njit(nogil=True)  # type: ignore[untyped-decorator]
def size(velocity, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Length of the vector in column n of (3, N)."""
    return math.sqrt(velocity[0, n] ** 2 + velocity[1, n] ** 2 + velocity[2, n] ** 2)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _law(tile, features, law, weights):  # type: ignore[no-untyped-def]  # pragma: no cover
    emission.contact_law(tile, features, tile, law, weights, 0)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _put_part(tiles, at, part, parts):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Make a side of a pair, whose first row is at ``at``, one of the parts of its body: in the part's own axes."""
    frame, center, half = parts.frame, parts.center, parts.half
    for i in range(3):
        row = at + (_ROTATION + 3 * i) * SIMD_WIDTH
        x, y, z = tiles[row], tiles[row + SIMD_WIDTH], tiles[row + 2 * SIMD_WIDTH]
        for j in range(3):
            tiles[row + j * SIMD_WIDTH] = x * frame[part, j] + y * frame[part, 3 + j] + z * frame[part, 6 + j]
        tiles[at + (_CENTER + i) * SIMD_WIDTH] = center[part, i]
        tiles[at + (_HALF + i) * SIMD_WIDTH] = half[part, i]
    tiles[at + _ROUNDING * SIMD_WIDTH] = parts.rounding[part]
    tiles[at + _CORE_CYLINDER * SIMD_WIDTH] = parts.cylinder[part]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def geometry(bodies, body_count, pairs, pair_count, sides, parts, hulls, hull_of, spare):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Poses and gaps of all bodies and pairs.

    Args:
        bodies: tiles of ``body_count`` bodies whose given rows are filled; the rest of the last tile is filled here.
        pairs: tiles of ``pair_count`` pairs; sides: what collides in them; parts: ``PartTable``.
        hulls: (H, 3, HULL_POINTS); hull_of: hull of each body, -1 none. spare: scratch of SPARE numbers.
    """
    for k in range(body_count):
        at = place(k)
        hull = hull_of[k]
        # What does not fall needs no lowest points, and what is round stands on its rims.
        if hull < 0 or bodies[at + _FALLS * SIMD_WIDTH] <= 0.0 or bodies[at + _CYLINDER * SIMD_WIDTH] > 0.5:
            bodies[at + _IS_HULL * SIMD_WIDTH] = 0.0
            continue
        q = at + QUATERNION * SIMD_WIDTH
        x, y, z, w = bodies[q], bodies[q + SIMD_WIDTH], bodies[q + 2 * SIMD_WIDTH], bodies[q + 3 * SIMD_WIDTH]
        spare[0] = -2 * (x * z - y * w)
        spare[1] = -2 * (y * z + x * w)
        spare[2] = -(1 - 2 * (x * x + y * y))
        emission.hull_lowest(spare, 0, hulls, hull * _HULL_SIZE, spare, SIMD_WIDTH)
        bodies[at + _IS_HULL * SIMD_WIDTH] = 1.0
        for i in range(15):
            bodies[at + (_HULL_POINTS + i) * SIMD_WIDTH] = spare[(i + 1) * SIMD_WIDTH]
    tiles = (body_count + SIMD_WIDTH - 1) // SIMD_WIDTH
    last = place(body_count - 1)
    for k in range(body_count, tiles * SIMD_WIDTH):
        at = place(k)
        for row in range(_HULL_POINTS + 15):
            bodies[at + row * SIMD_WIDTH] = bodies[last + row * SIMD_WIDTH]
    for k in range(tiles):
        emission.ground_geometry(bodies, k * BODY_TILE)
    a, b, part_a, part_b, hull_a, hull_b = (
        sides.a, sides.b, sides.part_a, sides.part_b, sides.hull_a, sides.hull_b
    )  # fmt: skip
    tiles = (pair_count + SIMD_WIDTH - 1) // SIMD_WIDTH
    for k in range(pair_count, tiles * SIMD_WIDTH):
        last = pair_count - 1
        a[k], b[k], part_a[k], part_b[k] = a[last], b[last], part_a[last], part_b[last]
    for k in range(tiles * SIMD_WIDTH):
        at, of_a, of_b = pair_place(k), a[k], b[k]
        for row in range(TABLE):
            pairs[at + row * SIMD_WIDTH] = bodies[of_a + row * SIMD_WIDTH]
            pairs[at + (row + TABLE) * SIMD_WIDTH] = bodies[of_b + row * SIMD_WIDTH]
        if part_a[k] >= 0:
            _put_part(pairs, at, part_a[k], parts)
        if part_b[k] >= 0:
            _put_part(pairs, at + TABLE * SIMD_WIDTH, part_b[k], parts)
    for k in range(tiles):
        emission.pair_geometry(pairs, k * PAIR_TILE)
    for k in range(pair_count):
        if hull_a[k] >= 0 or hull_b[k] >= 0:
            emission.hull_geometry(pairs, pair_place(k), hulls, hull_a[k] * _HULL_SIZE, hulls, hull_b[k] * _HULL_SIZE)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _add(bodies, to, pairs, pair_count, places, row):  # type: ignore[no-untyped-def]  # pragma: no cover
    for k in range(pair_count):
        bodies[places[k] + to * SIMD_WIDTH] += pairs[pair_place(k) + row * SIMD_WIDTH]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _copy(pairs, to, bodies, count, places, row):  # type: ignore[no-untyped-def]  # pragma: no cover
    for k in range(count):
        pairs[pair_place(k) + to * SIMD_WIDTH] = bodies[places[k] + row * SIMD_WIDTH]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _weights_of_stacks(bodies, body_count, pairs, pair_count, a, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    """What each pair carries of the weights above it."""
    for _ in range(3):
        for k in range(pair_count):
            at = pair_place(k)
            part_b = pairs[at + _ABOVE_B * SIMD_WIDTH] / bodies[b[k] + _HELD_BY * SIMD_WIDTH]
            part_a = pairs[at + _ABOVE_A * SIMD_WIDTH] / bodies[a[k] + _HELD_BY * SIMD_WIDTH]
            for i in range(3):
                pairs[at + (_RESPOND_A + i) * SIMD_WIDTH] = part_b * bodies[b[k] + (_LOAD + i) * SIMD_WIDTH]
                pairs[at + (_RESPOND_B + i) * SIMD_WIDTH] = part_a * bodies[a[k] + (_LOAD + i) * SIMD_WIDTH]
        for k in range(body_count):
            at = place(k)
            for i in range(3):
                bodies[at + (_LOAD + i) * SIMD_WIDTH] = bodies[at + (_WEIGHT + i) * SIMD_WIDTH]
        for i in range(3):
            _add(bodies, _LOAD + i, pairs, pair_count, a, _RESPOND_A + i)
            _add(bodies, _LOAD + i, pairs, pair_count, b, _RESPOND_B + i)
    for k in range(body_count):
        at = place(k)
        load = bodies[at + _LOAD * SIMD_WIDTH]
        for i in range(2):
            bodies[at + (_AT + i) * SIMD_WIDTH] = 0.0
            if load > 0.0:
                bodies[at + (_AT + i) * SIMD_WIDTH] = (
                    bodies[at + (_LOAD + 1 + i) * SIMD_WIDTH] / max(load, np.float32(1e-9))
                    - bodies[at + (POSITION + i) * SIMD_WIDTH]
                )  # fmt: skip
    for k in range(pair_count):
        at = pair_place(k)
        part_b = pairs[at + _ABOVE_B * SIMD_WIDTH] / bodies[b[k] + _HELD_BY * SIMD_WIDTH]
        part_a = pairs[at + _ABOVE_A * SIMD_WIDTH] / bodies[a[k] + _HELD_BY * SIMD_WIDTH]
        pairs[at + _THROUGH * SIMD_WIDTH] = (
            part_b * bodies[b[k] + _LOAD * SIMD_WIDTH] + part_a * bodies[a[k] + _LOAD * SIMD_WIDTH]
        )  # fmt: skip


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _respond(bodies, pairs, pair_count, a, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    for k in range(pair_count):
        at = pair_place(k)
        for i in range(6):
            bodies[a[k] + (_MOVING + i) * SIMD_WIDTH] += pairs[at + (_RESPOND_A + i) * SIMD_WIDTH]
    for k in range(pair_count):
        at = pair_place(k)
        for i in range(6):
            bodies[b[k] + (_MOVING + i) * SIMD_WIDTH] += pairs[at + (_RESPOND_B + i) * SIMD_WIDTH]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _speed(pairs, at, side, arm, c):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Speed along the normal [m/s] of contact c of the pair at a place, on the side whose first row is given."""
    v, w, n = at + (side + LINEAR) * SIMD_WIDTH, at + (side + ANGULAR) * SIMD_WIDTH, at + PAIR_NORMAL * SIMD_WIDTH
    r = at + (arm + c) * SIMD_WIDTH
    x, y, z = pairs[r], pairs[r + _POINTS * SIMD_WIDTH], pairs[r + 2 * _POINTS * SIMD_WIDTH]
    wx, wy, wz = pairs[w], pairs[w + SIMD_WIDTH], pairs[w + 2 * SIMD_WIDTH]
    falling = pairs[n + 2 * SIMD_WIDTH] * pairs[at + (side + _FALLS) * SIMD_WIDTH] * np.float32(GRAVITY_M_S2 * STEP_S)
    return (
        pairs[n] * (pairs[v] + wy * z - wz * y)
        + pairs[n + SIMD_WIDTH] * (pairs[v + SIMD_WIDTH] + wz * x - wx * z)
        + pairs[n + 2 * SIMD_WIDTH] * (pairs[v + 2 * SIMD_WIDTH] + wx * y - wy * x)
        - falling
    )


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _expected_gap(pairs, at, c):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Gap of contact c of the pair at a place after a step without contacts [m]."""
    closing = _speed(pairs, at, _OF_B, PAIR_ARM_B, c) - _speed(pairs, at, 0, PAIR_ARM_A, c)
    gap = pairs[at + (PAIR_GAP + c) * SIMD_WIDTH] + pairs[at + PAIR_SLACK * SIMD_WIDTH]
    return gap + np.float32(STEP_S) * closing


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _put_contact(pairs, to, arm_a, arm_b, gap, n, taken):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Put contact n of the lists into the pair at a place, where one was left out or else does not touch.

    Args:
        taken: (POINTS,) slots that have one already.
    """
    slot = -1
    for c in range(_POINTS):
        if slot < 0 and not taken[c] and pairs[to + (PAIR_GAP + c) * SIMD_WIDTH] == LEFT_OUT_M:
            slot = c
    for c in range(_POINTS):
        if slot < 0 and not taken[c]:
            slot = c
    taken[slot] = True
    for i in range(3):
        pairs[to + (PAIR_ARM_A + _POINTS * i + slot) * SIMD_WIDTH] = arm_a[n, i]
        pairs[to + (PAIR_ARM_B + _POINTS * i + slot) * SIMD_WIDTH] = arm_b[n, i]
    pairs[to + (PAIR_GAP + slot) * SIMD_WIDTH] = gap[n] - pairs[to + PAIR_SLACK * SIMD_WIDTH]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _merge(pairs, begin, end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Make the contacts of pairs ``begin`` to ``end``, which are of the same two bodies, one set; see ``manifold``."""
    count, touching = 0, 0
    for k in range(begin, end):
        at, before = pair_place(k), count
        for c in range(_POINTS):
            if _expected_gap(pairs, at, c) < TOUCHING_M:
                count += 1
        if count > before:
            touching += 1
    if touching < 2:
        return
    at_of, state = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    normal, arm_a, arm_b = (
        np.zeros((count, 3), dtype=np.float32), np.zeros((count, 3), dtype=np.float32),
        np.zeros((count, 3), dtype=np.float32)
    )  # fmt: skip
    gap, expected = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.float32)
    apart = np.zeros(count, dtype=np.float32)
    n = 0
    for k in range(begin, end):
        at = pair_place(k)
        for c in range(_POINTS):
            after = _expected_gap(pairs, at, c)
            if not after < TOUCHING_M:
                continue
            at_of[n], expected[n] = at, after
            gap[n] = pairs[at + (PAIR_GAP + c) * SIMD_WIDTH] + pairs[at + PAIR_SLACK * SIMD_WIDTH]
            for i in range(3):
                normal[n, i] = pairs[at + (PAIR_NORMAL + i) * SIMD_WIDTH]
                arm_a[n, i] = pairs[at + (PAIR_ARM_A + _POINTS * i + c) * SIMD_WIDTH]
                arm_b[n, i] = pairs[at + (PAIR_ARM_B + _POINTS * i + c) * SIMD_WIDTH]
            pairs[at + (PAIR_GAP + c) * SIMD_WIDTH] = LEFT_OUT_M
            n += 1
    keep_widest(count, normal, arm_a, expected, state, apart)
    taken = np.zeros(_POINTS, dtype=np.bool_)
    for first in range(count):
        if state[first] != 2 + first:
            continue
        taken[:] = False
        for n in range(count):
            if state[n] == 2 + first:
                _put_contact(pairs, at_of[first], arm_a, arm_b, gap, n, taken)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _merge_contacts(pairs, pair_count, a, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of all pairs of bodies of which several parts touch."""
    begin = 0
    while begin < pair_count:
        end = begin + 1
        while end < pair_count and a[end] == a[begin] and b[end] == b[begin]:
            end += 1
        if end - begin > 1:
            _merge(pairs, begin, end)
        begin = end


@njit(nogil=True)  # type: ignore[untyped-decorator]
def contacts(bodies, body_count, pairs, pair_count, a, b, weights):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The rest of the step, once the rows ``slack`` are filled; arguments as of ``geometry``, places of ``Sides``.

    Pairs of parts of the same two bodies are one behind the other.
    """
    tiles = (body_count + SIMD_WIDTH - 1) // SIMD_WIDTH
    pair_tiles = (pair_count + SIMD_WIDTH - 1) // SIMD_WIDTH
    whole = pair_tiles * SIMD_WIDTH
    for k in range(tiles):
        emission.ground_before(bodies, k * BODY_TILE)
    for k in range(pair_count, whole):
        pairs[pair_place(k) + PAIR_SLACK * SIMD_WIDTH] = 0.0
    _merge_contacts(pairs, pair_count, a, b)
    for k in range(pair_tiles):
        emission.pair_before(pairs, k * PAIR_TILE)
    _add(bodies, _CROWD, pairs, pair_count, a, _NEAR_SUM)
    _add(bodies, _CROWD, pairs, pair_count, b, _NEAR_SUM)
    _add(bodies, _PAIRS, pairs, pair_count, a, _BESIDE)
    _add(bodies, _PAIRS, pairs, pair_count, b, _BESIDE)
    _add(bodies, _HELD_BY, pairs, pair_count, b, _ABOVE_B)
    _add(bodies, _HELD_BY, pairs, pair_count, a, _ABOVE_A)
    for k in range(tiles):
        at = k * BODY_TILE
        emission.ground_features(bodies, at)
        for c in range(_POINTS):
            _law(bodies, at + (_FEATURES + c) * SIMD_WIDTH, at + (_LAW + c) * SIMD_WIDTH, weights)
    # Also where there are no pairs: the rounding of a single body must not depend on the other bodies.
    _weights_of_stacks(bodies, body_count, pairs, pair_count, a, b)
    for k in range(tiles):
        emission.ground_begin(bodies, k * BODY_TILE)
    if pair_count:
        _copy(pairs, _MASS_SCALE_A, bodies, whole, a, MASS_SCALE)
        _copy(pairs, _MASS_SCALE_B, bodies, whole, b, MASS_SCALE)
        _copy(pairs, _CROWD_A, bodies, whole, a, _CROWD)
        _copy(pairs, _CROWD_B, bodies, whole, b, _CROWD)
        _copy(pairs, _PAIRS_A, bodies, whole, a, _PAIRS)
        _copy(pairs, _PAIRS_B, bodies, whole, b, _PAIRS)
        for i in range(2):
            _copy(pairs, _AT_A + i, bodies, whole, a, _AT + i)
            _copy(pairs, _AT_B + i, bodies, whole, b, _AT + i)
        for k in range(pair_count, whole):
            pairs[pair_place(k) + _THROUGH * SIMD_WIDTH] = 0.0
    for k in range(pair_tiles):
        at = k * PAIR_TILE
        emission.pair_features(pairs, at)
        for c in range(_POINTS):
            _law(pairs, at + (_PAIR_FEATURES + c) * SIMD_WIDTH, at + (_PAIR_LAW + c) * SIMD_WIDTH, weights)
        emission.pair_begin(pairs, at)
    _respond(bodies, pairs, pair_count, a, b)
    for sweep in range(_SWEEPS):
        for k in range(whole):
            at = pair_place(k)
            for i in range(6):
                pairs[at + (_MOVING_A + i) * SIMD_WIDTH] = bodies[a[k] + (_MOVING + i) * SIMD_WIDTH]
                pairs[at + (_MOVING_B + i) * SIMD_WIDTH] = bodies[b[k] + (_MOVING + i) * SIMD_WIDTH]
        for k in range(pair_tiles):
            emission.pair_sweep(pairs, k * PAIR_TILE, weights, _SWEEP_WEIGHTS + 4 * sweep)
        _respond(bodies, pairs, pair_count, a, b)
        for k in range(tiles):
            emission.ground_sweep(bodies, k * BODY_TILE, weights, _SWEEP_WEIGHTS + 4 * sweep)
    for k in range(pair_tiles):
        emission.pair_after(pairs, k * PAIR_TILE)
    given = False
    for k in range(pair_count):
        at, of_a, of_b = pair_place(k), a[k], b[k]
        impulse, square = pairs[at + PAIR_IMPULSE * SIMD_WIDTH], pairs[at + _PAIR_SQUARE * SIMD_WIDTH]
        bodies[of_a + STRUCK * SIMD_WIDTH] += impulse
        bodies[of_b + STRUCK * SIMD_WIDTH] += impulse
        bodies[of_a + _SQUARE * SIMD_WIDTH] += square
        bodies[of_b + _SQUARE * SIMD_WIDTH] += square
        # Two bodies collide once, with however many of their parts.
        given = given and of_a == a[k - 1] and of_b == b[k - 1]
        if given:
            continue
        given = impulse > 0.0
        bodies[of_a + _LIMIT * SIMD_WIDTH] += (
            pairs[at + _GIVEN_A * SIMD_WIDTH] * bodies[of_b + _START_SQUARE * SIMD_WIDTH]
        )
        bodies[of_b + _LIMIT * SIMD_WIDTH] += (
            pairs[at + _GIVEN_B * SIMD_WIDTH] * bodies[of_a + _START_SQUARE * SIMD_WIDTH]
        )
    for k in range(tiles):
        emission.finish(bodies, k * BODY_TILE, weights, 0)


def table_type(kind, **fields):  # type: ignore[no-untyped-def]
    """Numba's type of a table with fields of these types."""
    if tuple(fields) != kind._fields:
        raise TypeError(f"{kind.__name__}: got fields {tuple(fields)}, expected {kind._fields}")
    return types.BaseTuple.from_types(tuple(fields.values()), kind)


PART_TABLE = table_type(
    PartTable,
    begin=i8[::1], part_count=i8[::1], frame=f4[:, ::1], center=f4[:, ::1], half=f4[:, ::1], rounding=f4[::1],
    cylinder=f4[::1], radius=f4[::1], hull=i8[::1],
)  # fmt: skip


@njit(  # type: ignore[untyped-decorator]
    void(
        *(
            [f4[::1]]
            + [f4[:, ::1]] * 6
            + [i8[::1]] * 4
            + [PART_TABLE, f4[:, :, ::1], i8[::1], f4[::1], f4[::1]]
            + [f4[:, ::1]] * 3
        )
    ),
    nogil=True,
    cache=KEPT,
)
def run_step(  # type: ignore[no-untyped-def]  # pragma: no cover
    weights, position, quaternion, linear, angular, parameters, plane, pair_a, pair_b, pair_part_a, pair_part_b, parts,
    hulls, hull_of, plane_slack, pair_slack, state, plane_out, pair_out
):  # fmt: skip
    """One step of all bodies together, as the network's graph makes it.

    Args:
        pair_part_a, pair_part_b: (P,) int64 rows of the parts that collide, -1 the whole body; parts: ``PartTable``.
        hulls: (H, 3, HULL_POINTS), hull_of: (B,) int64; the rest as in ``DynamicsStep.forward``.
        state: (13, B), plane_out: (4, B) impulse, two deviations, gap; pair_out: (2, P) impulse, gap. Filled.
    """
    body_count, pair_count = position.shape[1], pair_a.shape[0]
    tiles, pair_tiles = (body_count + SIMD_WIDTH - 1) // SIMD_WIDTH, (pair_count + SIMD_WIDTH - 1) // SIMD_WIDTH
    bodies = np.zeros(tiles * BODY_TILE, dtype=np.float32)
    pairs = np.zeros(pair_tiles * PAIR_TILE, dtype=np.float32)
    spare = np.zeros(SPARE, dtype=np.float32)
    room = pair_tiles * SIMD_WIDTH
    sides = Sides(
        np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.int64), np.full(room, -1), np.full(room, -1),
        np.full(room, -1), np.full(room, -1)
    )  # fmt: skip
    a, b = sides.a, sides.b
    for k in range(body_count):
        at = place(k)
        for i in range(3):
            bodies[at + (POSITION + i) * SIMD_WIDTH] = position[i, k]
            bodies[at + (LINEAR + i) * SIMD_WIDTH] = linear[i, k]
            bodies[at + (ANGULAR + i) * SIMD_WIDTH] = angular[i, k]
        for i in range(4):
            bodies[at + (QUATERNION + i) * SIMD_WIDTH] = quaternion[i, k]
        for i in range(PARAMETER_ROWS):
            bodies[at + PARAMETER_TO_ROW[i] * SIMD_WIDTH] = parameters[i, k]
        for i in range(PLANE_ROWS):
            bodies[at + (PLANE + i) * SIMD_WIDTH] = plane[i, k]
        bodies[at + SLACK * SIMD_WIDTH] = plane_slack[k]
    for k in range(pair_count):
        a[k], b[k] = place(pair_a[k]), place(pair_b[k])
        part_a, part_b = pair_part_a[k], pair_part_b[k]
        sides.part_a[k], sides.part_b[k] = part_a, part_b
        sides.hull_a[k] = parts.hull[part_a] if part_a >= 0 else hull_of[pair_a[k]]
        sides.hull_b[k] = parts.hull[part_b] if part_b >= 0 else hull_of[pair_b[k]]
        pairs[pair_place(k) + PAIR_SLACK * SIMD_WIDTH] = pair_slack[k]
    if body_count == 0:
        return
    geometry(bodies, body_count, pairs, pair_count, sides, parts, hulls, hull_of, spare)
    contacts(bodies, body_count, pairs, pair_count, a, b, weights)
    for k in range(body_count):
        at = place(k)
        for i in range(3):
            state[i, k] = bodies[at + (POSITION_NEXT + i) * SIMD_WIDTH]
            state[7 + i, k] = bodies[at + (LINEAR_NEXT + i) * SIMD_WIDTH]
            state[10 + i, k] = bodies[at + (ANGULAR_NEXT + i) * SIMD_WIDTH]
        for i in range(4):
            state[3 + i, k] = bodies[at + (QUATERNION_NEXT + i) * SIMD_WIDTH]
        plane_out[0, k] = bodies[at + IMPULSE * SIMD_WIDTH]
        plane_out[1, k] = bodies[at + DEVIATION * SIMD_WIDTH]
        plane_out[2, k] = bodies[at + (DEVIATION + 1) * SIMD_WIDTH]
        plane_out[3, k] = bodies[at + LEAST_GAP * SIMD_WIDTH]
    for k in range(pair_count):
        at = pair_place(k)
        pair_out[0, k] = pairs[at + PAIR_IMPULSE * SIMD_WIDTH]
        pair_out[1, k] = pairs[at + PAIR_LEAST_GAP * SIMD_WIDTH]
