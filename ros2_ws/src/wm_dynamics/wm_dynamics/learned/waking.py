"""Which sleeping bodies an awake one touches, in NumPy.

The same rule compiled: ``wm_dynamics.contact_step.waking_kernel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.array_step import Hulls, geometry
from wm_dynamics.contact_step.body_tables import MAX_SLACK_M, STEP_S
from wm_dynamics.contact_step.numbers import Fields
from wm_dynamics.contact_step.rollout_tables import BodyTable, Floats, PairTable
from wm_dynamics.contact_step.sleeping import WAKE_DEPTH_M, WAKE_GAP_M, WAKE_M_S, WAKE_STEEP
from wm_dynamics.learned.broad_phase import Participants


def pair_fields(feeds: Mapping[str, NDArray[Any]], chosen: NDArray[np.int64]) -> Fields:
    """Gaps, normals and arms of some of the pairs (P',) that the network is given (``DynamicsNetwork.run``)."""
    bodies = feeds["position"].shape[1]
    number = np.zeros(bodies, dtype=np.int64)
    number[feeds["hull_row"]] = 1 + np.arange(len(feeds["hull_row"]))
    state = [feeds[name] for name in ("position", "quaternion", "linear", "angular")]
    _, pair = geometry(
        state,
        feeds["parameters"],
        feeds["plane"],
        feeds["pair_a"][chosen],
        feeds["pair_b"][chosen],
        Hulls(feeds["hull_row"], number, feeds["hull_points"]),
    )
    return pair


def _strikes(pair: Fields, allowed: Floats, expected: Floats) -> Floats:
    """(P,) speed [m/s] of the contact that closes in fastest, of those that are fast enough and will touch within this
    step; 0: there is none.

    Args:
        allowed: (P,) overlaps that may stay [m].
        expected: (3, P) what b is expected to be faster than a, by what is struck in this step [m/s].
    """
    a, b, normal = pair.a, pair.b, pair.normal[:, 0]
    at_a = a.linear + np.cross(a.angular, pair.arm_a, axis=0)
    at_b = b.linear + np.cross(b.angular, pair.arm_b, axis=0)
    speed = (normal[:, None] * (at_a - at_b - expected[:, None])).sum(axis=0)
    fall = GRAVITY_M_S2 * STEP_S * np.abs(normal[2])
    strikes = (speed > WAKE_M_S) & (pair.gap + allowed < WAKE_GAP_M + STEP_S * (speed + fall))
    fastest: Floats = np.where(strikes, speed, 0.0).max(axis=0)
    return fastest


def wake_touched(
    feeds: Mapping[str, NDArray[Any]], active: Participants, bodies: BodyTable, pairs: PairTable, expected: Floats
) -> bool:
    """Wake, in place, sleeping bodies that an awake one touches in this step; returns whether there were any.

    It touches one that it closes in on, that it slides on or beneath, or that it was put into.

    Args:
        expected: (3, N) velocities that what is struck is about to get [m/s], so that it wakes what it touches; filled.
    """
    a, b = active.columns[active.pair_a], active.columns[active.pair_b]
    sleeps = bodies.asleep & ~bodies.fixed
    mixed = np.flatnonzero((sleeps[a] != sleeps[b]) & ~bodies.fixed[a] & ~bodies.fixed[b])
    if not len(mixed):
        return False
    pair = pair_fields(feeds, mixed)
    a, b = a[mixed], b[mixed]
    sleeper, mover = np.where(sleeps[a], a, b), np.where(sleeps[a], b, a)
    slack = pairs.slack[active.pair_row[mixed], pairs.begin[active.pair_number[mixed]]]
    allowed = np.where(np.isnan(slack), np.clip(-pair.least_gap[0], 0.0, MAX_SLACK_M), slack).astype(np.float32)
    gap = pair.least_gap[0] + allowed
    speed = np.linalg.norm(bodies.linear[:, mover], axis=0)
    speed += bodies.bounds[mover] * np.linalg.norm(bodies.angular[:, mover], axis=0)
    slides = (np.abs(pair.normal[2, 0]) > WAKE_STEEP) & (speed > WAKE_M_S) & (gap < WAKE_GAP_M + STEP_S * speed)
    struck = _strikes(pair, allowed, expected[:, b] - expected[:, a])
    wakes = slides | (gap < -WAKE_DEPTH_M) | (struck > 0.0)
    woken = sleeper[wakes]
    bodies.asleep[woken] = False
    bodies.quiet_steps[woken] = 0
    away = np.where(sleeper == b, struck, -struck)
    expected[:, woken] = (away * pair.normal[:, 0])[:, wakes]
    return bool(len(woken))
