"""One set of contacts for two bodies, where several of their parts touch.

Eight parts of a mug's wall on the foot of another give 32 contacts, and each gets a small share of every sweep, so that
the sweeps do not converge. Of the contacts of two bodies that push about the same way, four hold as much: the deepest
one, and those farthest from it and from one another (as Bullet reduces contacts that persist). They become the
contacts of one of the pairs of parts, that of the deepest one, so that the network has them as those of two convex
bodies; the others are left out.

The functions are plain Python over arrays: ``kernel`` compiles them, ``array_step`` calls them as they are.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.compilable import compilable
from wm_dynamics.contact_step.numbers import cross, dot

SAME_WAY = 0.95
"""Cosine of the angle (some 18 degrees) between normals that push about the same way. Smaller, and of what lies in a
corner one of the walls is passed over; larger, and round things have as many contacts as parts."""
KEPT = 4
"""Contacts that are kept of those that push the same way: as many as two convex bodies have."""
TOUCHING_M = 0.0025
"""Gap [m] after a step without contacts, beyond the overlap that may stay, up to which contacts are taken together;
beyond it one counts by less than a hundredth (``mechanics.nearness``). Smaller, and those that nearly touch take a
share of the sweeps from those that do; larger costs time."""
SAME_PLACE_M = 0.002
"""Contacts closer to one another [m] than this count as one."""
LEAN = 30.0
"""How much farther apart [m] a contact that is open after the step must be than one that is not, for each meter of its
gap, to be kept before it. Larger, and a landing face is not met at its far end; smaller, and contacts that hardly touch
are kept."""
LEFT_OUT_M = 1.0
"""Gap [m] that a contact gets that is left out: too far to push."""


@compilable
def _square(place: Any, i: Any, j: Any) -> Any:
    """Squared distance of two contacts [m^2]."""
    x, y, z = place[i, 0] - place[j, 0], place[i, 1] - place[j, 1], place[i, 2] - place[j, 2]
    return x * x + y * y + z * z


@compilable
def _along(normal: Any, i: Any, j: Any) -> Any:
    """Cosine of the angle between the normals of two contacts."""
    return normal[i, 0] * normal[j, 0] + normal[i, 1] * normal[j, 1] + normal[i, 2] * normal[j, 2]


@compilable
def keep_widest(count: Any, normal: Any, place: Any, gap: Any, state: Any, apart: Any) -> None:
    """Mark which contacts of two bodies are kept.

    Args:
        count: of contacts, the first of the arrays. normal, place: (C, 3) unit vectors, and places [m].
        gap: (C,) by which the deepest is found [m].
        state: (C,) integers; filled: of what is kept 2 + the first of its group, of what is left out 1.
        apart: (C,) scratch.
    """
    for c in range(count):
        state[c] = 0
    while True:
        first = -1
        for c in range(count):
            if state[c] == 0 and (first < 0 or gap[c] < gap[first]):
                first = c
        if first < 0:
            return
        # A group: -1 of those that push as the deepest one does.
        for c in range(count):
            if state[c] == 0 and _along(normal, first, c) > SAME_WAY:
                state[c] = -1
                apart[c] = _square(place, first, c)
        state[first] = 2 + first
        for _ in range(KEPT - 1):
            farthest, most = -1, SAME_PLACE_M
            for c in range(count):
                if state[c] == -1:
                    reach = math.sqrt(apart[c]) - LEAN * max(gap[c], 0.0)
                    if reach > most:
                        farthest, most = c, reach
            if farthest < 0:
                break
            state[farthest] = 2 + first
            for c in range(count):
                if state[c] == -1:
                    apart[c] = min(apart[c], _square(place, farthest, c))
        for c in range(count):
            if state[c] == -1:
                state[c] = 1


def merge(pair: Any, pair_a: Any, pair_b: Any) -> None:
    """Make the contacts of pairs of parts of the same two bodies one set, as ``kernel`` does; NumPy.

    Args:
        pair: fields of P pairs before ``pairs.pair_before``; gaps and arms are changed.
        pair_a, pair_b: (P,) bodies; pairs of the same two are one behind the other.
    """
    ends = [0, *(np.flatnonzero((np.diff(pair_a) != 0) | (np.diff(pair_b) != 0)) + 1), len(pair_a)]
    expected = _expected_gap(pair)
    for begin, end in itertools.pairwise(ends):
        k, c = np.nonzero(expected[:, begin:end].T < TOUCHING_M)
        k += begin
        if len(k) < 2 or k[0] == k[-1]:
            continue
        state = np.zeros(len(k), dtype=np.int64)
        keep_widest(len(k), pair.normal[:, 0, k].T, pair.arm_a[:, c, k].T, expected[c, k], state, np.zeros(len(k)))
        arm_a, arm_b, gap = pair.arm_a[:, c, k], pair.arm_b[:, c, k], pair.gap[c, k] + pair.slack[0, k]
        pair.gap[c, k] = LEFT_OUT_M
        for first in np.unique(state[state > 1]) - 2:
            to = k[first]
            # Contacts of that pair that do not touch yet stay, where there is room.
            room = np.argsort(pair.gap[:, to] != LEFT_OUT_M, kind="stable")
            for one, slot in zip(np.flatnonzero(state == 2 + first), room, strict=False):
                pair.arm_a[:, slot, to], pair.arm_b[:, slot, to] = arm_a[:, one], arm_b[:, one]
                pair.gap[slot, to] = gap[one] - pair.slack[0, to]


def _expected_gap(pair: Any) -> Any:
    """(4, P) gaps after a step without contacts [m]."""
    closing = 0.0
    for side, arm, sign in ((pair.a, pair.arm_a, -1.0), (pair.b, pair.arm_b, 1.0)):
        speed = dot(pair.normal, side.linear + cross(side.angular, arm))
        closing = closing + sign * (speed - pair.normal[2] * side.falls * (GRAVITY_M_S2 * STEP_S))
    return pair.gap + pair.slack + STEP_S * closing
