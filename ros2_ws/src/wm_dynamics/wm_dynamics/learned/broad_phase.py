"""Broad phase: the bodies and near pairs of all futures that the next step computes, in NumPy.

The same rules compiled: ``wm_dynamics.contact_step.broad_phase_kernel``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.contact_step.body_tables import (
    ROWS,
    STEP_S,
    SUNK_M,
    SUPPORT_MARGIN_M,
    near_distance,
)
from wm_dynamics.contact_step.rollout_tables import BodyTable, Flags, Integers, PairTable, SurfaceTable
from wm_dynamics.contact_step.sleeping import SLEEP_STEPS, SLOW_M_S


class Participants(NamedTuple):
    """The bodies and pairs that a step computes.

    Attributes:
        columns: (B,) int64, the bodies, ascending.
        held: (B,) bool, which of them the step does not move.
        pair_a, pair_b: (P,) int64, near pairs as rows 0..B-1, the smaller body first.
        pair_number: (P,) int64, which of the Q pairs it is.
        pair_row: (P,) int64, its future.
    """

    columns: Integers
    held: Flags
    pair_a: Integers
    pair_b: Integers
    pair_number: Integers
    pair_row: Integers


def broad_phase(bodies: BodyTable, pairs: PairTable, surfaces: SurfaceTable) -> Participants:
    """Find the bodies and pairs of the next step, and put bodies to sleep, in place; ``waking`` wakes them."""
    r, m = shape = surfaces.on_surface.shape
    position, linear = bodies.position.reshape(3, r, m), bodies.linear.reshape(3, r, m)
    speed = np.sqrt((linear * linear).sum(axis=0))
    spin = np.sqrt((bodies.angular.reshape(3, r, m) ** 2).sum(axis=0))
    bounds = bodies.bounds.reshape(shape)
    surface_speed = speed + bounds * spin
    present, fixed, asleep, kinematic, obstacle = (
        flags.reshape(shape)
        for flags in (bodies.present, bodies.fixed, bodies.asleep, bodies.kinematic, bodies.obstacle)
    )
    quiet = bodies.quiet_steps.reshape(shape)
    first, second = pairs.first, pairs.second
    awake = present & ~asleep & ~fixed
    # Only pairs of which one is awake matter.
    live = (awake[:, first] | awake[:, second]) & present[:, first] & present[:, second]
    live &= ~((fixed | kinematic)[:, first] & (fixed | kinematic)[:, second])
    row, number = np.nonzero(live)
    i, j = first[number], second[number]
    apart = position[:, row, i] - position[:, row, j]
    distance = np.sqrt((apart * apart).sum(axis=0))
    touch = bounds[row, i] + bounds[row, j] + near_distance(STEP_S)
    closing = STEP_S * (speed[row, i] + speed[row, j])
    with_support = obstacle[row, i] | obstacle[row, j]
    near = (distance - touch < closing) & ~with_support
    some = np.flatnonzero(with_support)
    if len(some):
        near[some] = _near_support(row[some], i[some], j[some], bodies, surfaces)
    row, number, i, j = row[near], number[near], i[near], j[near]

    # Bodies that are slow, and all bodies near them too, fall asleep.
    slow = (surface_speed < SLOW_M_S) | asleep | fixed
    restless = np.zeros(shape, dtype=bool)
    np.logical_or.at(restless, (row, i), ~slow[row, j])
    np.logical_or.at(restless, (row, j), ~slow[row, i])
    quiet[:] = np.where(awake & slow & ~restless & ~kinematic & _touches(pairs, surfaces), quiet + 1, 0)
    tired = quiet >= SLEEP_STEPS
    if tired.any():
        asleep[tired] = True
        columns = np.flatnonzero(tired.reshape(-1))
        bodies.linear[:, columns] = 0.0
        bodies.angular[:, columns] = 0.0
        bodies.drift[columns] = 0.0
        awake = awake & ~tired

    keep = awake[row, i] | awake[row, j]
    row, number, i, j = row[keep], number[keep], i[keep], j[keep]
    a, b = row * m + i, row * m + j
    used = awake.reshape(-1).copy()
    used[a] = True
    used[b] = True
    columns = np.flatnonzero(used)
    local = np.full(r * m, -1, dtype=np.int64)
    local[columns] = np.arange(len(columns))
    swap = bodies.bounds[a] > bodies.bounds[b]
    small, large = np.where(swap, b, a), np.where(swap, a, b)
    return Participants(columns, ~awake.reshape(-1)[columns], local[small], local[large], number, row)


def _touches(pairs: PairTable, surfaces: SurfaceTable) -> Flags:
    """(R, M) bodies that touch something: a body that is slow at the top of its flight must not fall asleep."""
    found: Flags = surfaces.on_surface != -1
    row, number = np.nonzero(pairs.touching)
    found[row, pairs.first[number]] = True
    found[row, pairs.second[number]] = True
    return found


def _near_support(row: Integers, i: Integers, j: Integers, bodies: BodyTable, surfaces: SurfaceTable) -> Flags:
    """(P,) pairs with a support that are near it from the side or below: from above, its surface is what counts, but of
    hulls that reach over its edge.
    """
    m = surfaces.on_surface.shape[1]
    static_first = bodies.fixed[row * m + i] & bodies.obstacle[row * m + i]
    static, mover = np.where(static_first, i, j), np.where(static_first, j, i)
    position = bodies.position[:, row * m + mover]
    top = surfaces.rows[row, surfaces.row_of[static]].T
    beside = ~(position[2] > top[0] - SUNK_M)  # also where there is no level top
    dx, dy = position[0] - top[1], position[1] - top[2]
    own = row * m + mover
    over = np.where(bodies.hull[own] >= 0, bodies.bounds[own], np.float32(0.0))
    beside |= np.abs(top[3] * dx + top[4] * dy) > top[5] - over
    beside |= np.abs(top[3] * dy - top[4] * dx) > top[6] - over
    result = np.zeros(len(row), dtype=bool)
    some = np.flatnonzero(beside)
    if len(some):
        n = row[some] * m + static[some]
        rotation = quaternion_to_matrix(bodies.quaternion[:, n].astype(np.float64).T)
        local = np.einsum("nij,ni->nj", rotation, (position[:, some] - bodies.position[:, n]).T)
        half, center = bodies.parameters[ROWS["half"], n].T, bodies.parameters[ROWS["center"], n].T
        beyond = np.maximum(np.abs(local - center) - half, 0.0)
        reach = bodies.bounds[row[some] * m + mover[some]] + SUPPORT_MARGIN_M
        result[some] = np.linalg.norm(beyond, axis=1) < reach
    return result
