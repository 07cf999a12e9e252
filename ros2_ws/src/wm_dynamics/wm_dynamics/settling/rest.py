"""Bodies of belief samples that rest under the contact network, and samples in which they would not.

An object that was seen at rest can only be where something carries it. The draws of a belief do not know that, as each
object is drawn by itself. So what rests in the mean is put to sleep in every sample, and a sample in which it would
topple is drawn toward the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from wm_core.interventions import Hypothesis
from wm_core.rollout import POSITION, QUATERNION
from wm_dynamics.learned.futures import SETTLE_STEPS, FutureBatch
from wm_dynamics.learned.scene import Array, Flags, PreparedScene

SETTLE_MOVE_M = 0.002
"""A body that was seen at rest and moves by less in the first SETTLE_STEPS, undisturbed, is at rest [m]; larger, and a
body that begins to slide is held."""
SETTLE_ROUNDS = 3
"""Times that bodies are put to sleep: each round those that stand on what slept in the round before."""
CALM_S = 1.0
"""Time from the start [s] within which a body that was seen at rest must sleep to count as settled. Larger accepts
slower settling and steps longer."""
CALM_MOVE_M = 0.025
"""Distance from the start [m] within which it must sleep: a body perceived some degrees off the face that it stands on
rocks down by a centimeter. Larger accepts slides."""
CALM_ROUNDS = 4
"""Times that a sample is drawn halfway to the mean, the last time all the way."""

Ended = Callable[[], bool]
MakeBatch = Callable[[PreparedScene, Sequence[Hypothesis], Array], FutureBatch]


def put_to_rest(prepared: PreparedScene, make_batch: MakeBatch, ended: Ended) -> None:
    """Put to sleep what rests, and draw samples in which it would topple toward the mean, in place.

    Answers undo the change of the positions (``wm_dynamics.settling.restoration``).

    Args:
        make_batch: futures of a prepared scene, as the backend makes them.
        ended: whether the time is over; what is left then is not fit to begin from.
    """
    _put_to_sleep(prepared, make_batch, ended)
    if prepared.samples == 1 or (prepared.asleep[0] | prepared.fixed[0])[: prepared.count].all():
        return
    part = prepared
    rows = np.arange(prepared.samples)
    for attempt in range(CALM_ROUNDS):
        rows = rows[_restless(part, make_batch, ended)]
        if not len(rows) or ended():
            return
        share = 0.5 if attempt < CALM_ROUNDS - 1 else 0.0
        rests = np.flatnonzero(prepared.at_rest[0, : prepared.count])
        starts = prepared.starts
        starts[np.ix_(rows, rests)] = _toward_mean(starts[0, rests], starts[rows][:, rests], share)
        # Samples are independent and the others rest, so that only these are stepped again, beside the mean.
        rows = np.concatenate([[0], rows])
        part = prepared.part(rows)
        _put_to_sleep(part, make_batch, ended)
        for name in ("asleep", "touching", "on_surface"):
            getattr(prepared, name)[rows] = getattr(part, name)


def _put_to_sleep(prepared: PreparedScene, make_batch: MakeBatch, ended: Ended) -> None:
    """Put to sleep (S, M) what stays where it is when nothing is done.

    What rests in the mean rests in every sample. It was seen to rest, so a draw of its place in which it would
    slide or tip over (a box drawn half off the box that bears it) is wrong about the place, not about the rest.
    """
    still = prepared.at_rest & ~prepared.fixed
    prepared.asleep[:] = False
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


def _restless(prepared: PreparedScene, make_batch: MakeBatch, ended: Ended) -> Flags:
    """(S,) samples in which what comes to rest in the mean, nearly where it was seen, does not."""
    batch = make_batch(prepared, [Hypothesis("")], np.array([0.0, CALM_S]))
    bodies, shape = batch.state.bodies, prepared.at_rest.shape
    begin = bodies.position.copy()
    _make_steps(batch, batch.last, ended)
    moved = np.linalg.norm(bodies.position - begin, axis=0).reshape(shape)
    asleep = bodies.asleep.reshape(shape)
    calm = prepared.at_rest[0] & ~prepared.fixed[0] & asleep[0] & (moved[0] < CALM_MOVE_M)
    unlike = ~asleep | (np.abs(moved - moved[:1]) > CALM_MOVE_M)
    # A sample may be drawn to move (``sample_belief``): that is no contradiction.
    found: Flags = (calm & prepared.at_rest & unlike).any(axis=1)
    return found


def _make_steps(batch: FutureBatch, count: int, ended: Ended) -> None:
    """Steps without interventions and outputs, fewer where the time is over before."""
    while count > 0 and not ended():
        portion = min(count, batch.portion())
        batch.make_steps(portion)
        count -= portion


def _toward_mean(mean: Array, starts: Array, share: float) -> Array:
    """Samples' start states (S, N, 13) with their poses at ``share`` of the way from the mean's (N, 13)."""
    result = starts.copy()
    result[..., POSITION] = mean[:, POSITION] + share * (starts[..., POSITION] - mean[:, POSITION])
    if result.size:
        origin = Rotation.from_quat(np.tile(mean[:, QUATERNION], (len(starts), 1)))
        turn = Rotation.from_quat(starts[..., QUATERNION].reshape(-1, 4)) * origin.inv()
        turned = Rotation.from_rotvec(share * turn.as_rotvec()) * origin
        result[..., QUATERNION] = turned.as_quat().reshape(*starts.shape[:2], 4)
    return result
