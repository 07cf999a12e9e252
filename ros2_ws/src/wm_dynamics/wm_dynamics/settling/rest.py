"""Bodies of belief samples that rest under the contact network.

An object that was seen at rest rests: something carries it, whatever perception's errors say (it hovers, tilts, or lies
in its neighbor by some millimeters). So it is put to sleep where it is, in every sample in which it was not drawn to
move, and sleeps until something touches it or what it rests on leaves. What two objects overlap at the start may stay
(``PreparedScene.slack``). Objects whose poses are known exactly are put to sleep where they do not move when nothing is
done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_dynamics.contact_step.body_tables import FLOOR_HALF_M, PLANE_ROWS
from wm_dynamics.contact_step.sleeping import WAKE_STEEP
from wm_dynamics.learned.future_state import FutureState
from wm_dynamics.learned.futures import SETTLE_STEPS, FutureBatch
from wm_dynamics.learned.scene import Array, PreparedScene
from wm_dynamics.learned.waking import pair_fields

SETTLE_MOVE_M = 0.002
"""A body at an exactly known pose that moves by less in the first SETTLE_STEPS, undisturbed, is at rest [m]; larger,
and a body that begins to slide is held."""
SETTLE_ROUNDS = 3
"""Times that bodies are put to sleep: each round those that stand on what slept in the round before."""
BORNE_GAP_M = 0.002
"""Gap [m] up to which what lies over another body at the start rests on it; larger, and what is held over it falls when
it leaves."""
DEEP_M = 1.0
"""Overlap that is allowed to parts of what lies in one another deeper than errors of poses explain [m]: more than any,
as the first step lowers it to what it is (``SLACK_RETURN_M``)."""
TOUCH_STEPS = 2
"""Steps after which it is known what touches what at the start; with more, bodies that do not fit begin to part."""

Ended = Callable[[], bool]
MakeBatch = Callable[[PreparedScene, Sequence[Hypothesis], Array], FutureBatch]


def put_to_rest(prepared: PreparedScene, make_batch: MakeBatch, ended: Ended) -> None:
    """Put to sleep what rests, and find what touches and what overlaps at the start, in place.

    Args:
        make_batch: futures of a prepared scene, as the backend makes them.
        ended: whether the time is over; what is left then is not fit to begin from.
    """
    still = prepared.at_rest & ~prepared.fixed
    prepared.asleep[:] = False
    seen = still & prepared.uncertain
    if prepared.uncertain.any() and not ended():
        # Also of what moves: it was not seen in what it lies in.
        batch = make_batch(prepared, [Hypothesis("")], np.zeros(1))
        _find_overlaps(prepared, batch.state, prepared.uncertain | prepared.fixed)
        for a, b in prepared.preparation.passing:
            own = prepared.slack[:, (prepared.first == a) & (prepared.second == b)]
            prepared.slack[:, (prepared.first == a) & (prepared.second == b)] = np.where(np.isnan(own), DEEP_M, own)
    if seen.any() and not ended():
        batch = make_batch(prepared, [Hypothesis("")], np.zeros(1))
        _make_steps(batch, TOUCH_STEPS, ended)
        prepared.touching[:] = batch.state.pairs.touching
        prepared.on_surface[:] = batch.state.surfaces.on_surface
        prepared.asleep |= seen
    _put_known_to_sleep(prepared, make_batch, still, ended)


def _put_known_to_sleep(prepared: PreparedScene, make_batch: MakeBatch, still: NDArray[np.bool_], ended: Ended) -> None:
    """Put to sleep (S, M) what is at an exactly known pose and stays there when nothing is done."""
    # What stands on something that rocks by a hair while both are awake may rest once that one sleeps.
    for _ in range(SETTLE_ROUNDS):
        awake = still & ~prepared.asleep
        if not awake.any() or ended():
            break
        batch = make_batch(prepared, [Hypothesis("")], np.zeros(1))
        begin = batch.state.bodies.position.copy()
        _make_steps(batch, SETTLE_STEPS, ended)
        moved = np.linalg.norm(batch.state.bodies.position - begin, axis=0).reshape(still.shape)
        prepared.touching[:] = batch.state.pairs.touching
        prepared.on_surface[:] = batch.state.surfaces.on_surface
        rests = awake & (moved < SETTLE_MOVE_M)
        rests = awake & (rests | rests[:1])
        if not rests.any():
            break
        prepared.asleep |= rests


def _find_overlaps(prepared: PreparedScene, state: FutureState, chosen: NDArray[np.bool_]) -> None:
    """Set the overlaps between chosen bodies (S, M), and which of them bear one another, in place."""
    bodies, slots = state.bodies, state.slots
    first, second = prepared.first, prepared.second
    # What lies in a bowl overlaps the bowl's outline and none of its parts: those are measured as they come near.
    whole = (prepared.part_count[first] == 0) & (prepared.part_count[second] == 0)
    row, number = np.nonzero(
        whole & chosen[:, first] & chosen[:, second] & ~(prepared.fixed[:, first] & prepared.fixed[:, second])
    )
    i, j = row * slots + first[number], row * slots + second[number]
    apart = np.linalg.norm(bodies.position[:, i] - bodies.position[:, j], axis=0)
    near = apart < bodies.bounds[i] + bodies.bounds[j]
    row, number, i, j = row[near], number[near], i[near], j[near]
    if not len(i):
        return
    columns, both = np.unique(np.concatenate([i, j]), return_inverse=True)
    swap = bodies.bounds[i] > bodies.bounds[j]
    i, j = both[: len(i)], both[len(i) :]
    plane = np.zeros((PLANE_ROWS, len(columns)), dtype=np.float32)
    plane[3], plane[5:] = 1.0, FLOOR_HALF_M
    hull = bodies.hull[columns]
    hull_row = np.flatnonzero(hull >= 0)
    feeds: dict[str, NDArray[Any]] = {
        "position": bodies.position[:, columns],
        "quaternion": bodies.quaternion[:, columns],
        "linear": bodies.linear[:, columns],
        "angular": bodies.angular[:, columns],
        "parameters": bodies.parameters[:, columns],
        "plane": plane,
        "pair_a": np.where(swap, j, i),
        "pair_b": np.where(swap, i, j),
        "hull_row": hull_row,
        "hull_points": np.ascontiguousarray(state.hulls[hull[hull_row]].transpose(1, 2, 0)),
    }
    pair = pair_fields(feeds, np.arange(len(i)))
    gap, upward = pair.least_gap[0], pair.normal[2, 0]
    prepared.slack[row, number] = np.maximum(-gap, 0.0)
    # The normal points from the first to the second of a pair in the order of the network: b lies on a where it is up.
    a, b = np.where(swap, second[number], first[number]), np.where(swap, first[number], second[number])
    bears = (np.abs(upward) > WAKE_STEEP) & (gap < BORNE_GAP_M)
    upper, lower = np.where(upward > 0.0, b, a), np.where(upward > 0.0, a, b)
    prepared.borne[row[bears], upper[bears], lower[bears]] = True


def _make_steps(batch: FutureBatch, count: int, ended: Ended) -> None:
    """Steps without interventions and outputs, fewer where the time is over before."""
    while count > 0 and not ended():
        portion = min(count, batch.portion())
        batch.make_steps(portion)
        count -= portion
