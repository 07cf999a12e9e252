"""The true events of a simulated clip and their causes: the ground truth that the reasoner learns and is scored on.

A contact is what a camera could in principle tell: two objects are in contact from the instant when they touch until
they have come apart by more than ``APART_M``. A touch of objects that were never that far apart began before the clip.

A contact A of x and y caused a later event B where B does not happen without it. The sibling
worlds, without x and without y from the start, are simulated. Only those in which all participants of B exist can tell;
A caused B if B (same kind, same participants) happens within ``SAME_S`` in none of them. If B is of both x and y there
is no such world, and the pair is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.worlds.simulate import Clip
from wm_core.constants import SEEN_FALL_SPEED_M_S
from wm_core.rollout import LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.rotations import rotation_matrices
from wm_core.scene_graph import EventKind
from wm_perception.reasoning.causes import cause_candidates
from wm_perception.reasoning.events import (
    GONE_M,
    MOVE_SPEED_M_S,
    STOP_SPEED_M_S,
    moving_spans,
    topple_row,
    upright_axis,
)
from wm_perception.reasoning.gaps import gaps_between

Array = NDArray[np.float64]

APART_M = 0.006
"""Distance [m] of surfaces that ends a contact; larger values join more touches into one contact."""
SAME_S = 0.15
"""An event of a sibling within this time [s] is the same event; larger values find fewer causes."""
_DROP_M = 0.03
"""A fall is at least this deep [m]; less is a tilt or a slide off an edge."""


@dataclass(frozen=True)
class TrueEvent:
    """An event of a clip.

    Attributes:
        kind: of the event; time: [s] of the clip.
        a, b: true ids, a < b; b = 0 where it is of one object.
        mover: of a contact, the id of the object that was faster before; else 0.
    """

    kind: EventKind
    a: int
    b: int
    time: float
    mover: int = 0

    @property
    def who(self) -> tuple[int, ...]:
        """Ids of the participants."""
        return (self.a, self.b) if self.b else (self.a,)


@dataclass(frozen=True)
class CausedGroundTruth:
    """Which contacts caused which later events.

    Attributes:
        pairs: (index of a contact, index of a later event) for which it is known; caused: whether the first caused it.
    """

    pairs: tuple[tuple[int, int], ...]
    caused: tuple[bool, ...]


def speeds_from(states: Array) -> Array:
    """(T, N) [m/s] of the centers."""
    return np.linalg.norm(states[..., LINEAR_VELOCITY], axis=-1)


def true_events(clip: Clip) -> tuple[TrueEvent, ...]:
    """All events of a clip in time order."""
    events = [*_contacts(clip)]
    index = {int(i): k for k, i in enumerate(clip.ids)}
    moving_objects = [k for k in range(len(clip.ids)) if not clip.is_static[k]]
    speeds = speeds_from(clip.states)
    table_z = float(clip.states[0, 0, 2])
    for k in moving_objects:
        name = int(clip.ids[k])
        present = clip.present[:, k]
        if not present.any():
            continue
        rows = np.flatnonzero(present)
        first, last = int(rows[0]), int(rows[-1]) + 1
        times = clip.times[first:last]
        z = clip.states[first:last, k, 2]
        gone = np.flatnonzero(z < table_z - GONE_M)
        if len(gone):
            events.append(TrueEvent(EventKind.LEAVE, name, 0, float(times[gone[0]])))
            last = first + int(gone[0]) + 1
            times, z = clip.times[first:last], clip.states[first:last, k, 2]
        elif last < len(clip.times):
            events.append(TrueEvent(EventKind.LEAVE, name, 0, float(clip.times[last])))
        if first > 0:
            events.append(TrueEvent(EventKind.ENTER, name, 0, float(times[0])))
        positions = clip.states[first:last, k, POSITION]
        for begin, end in moving_spans(times, positions, speeds[first:last, k], MOVE_SPEED_M_S, STOP_SPEED_M_S):
            if begin is not None:
                events.append(TrueEvent(EventKind.MOVE, name, 0, begin))
            if end is not None:
                events.append(TrueEvent(EventKind.STOP, name, 0, end))
        if clip.kinematic[k]:
            continue
        quaternions = clip.states[first:last, k, QUATERNION]
        axis = upright_axis(int(clip.shapes[k]), clip.extents[k], quaternions[0])
        if axis is not None and (row := topple_row(quaternions, axis)) is not None:
            events.append(TrueEvent(EventKind.TOPPLE, name, 0, float(times[row])))
        touching = np.zeros(len(times), dtype=bool)
        for begin, end, a, b in _touch_spans(clip):
            if k in (index[a], index[b]):
                touching |= (times >= begin - 0.02) & (times <= end + 0.02)
        falling = (clip.states[first:last, k, 9] < -SEEN_FALL_SPEED_M_S) & ~touching
        if falling.any():
            row = int(np.argmax(falling))
            start = row
            while start > 0 and clip.states[first + start - 1, k, 9] < -0.05:
                start -= 1
            if z[start] - z[row:].min() > _DROP_M:
                events.append(TrueEvent(EventKind.FALL, name, 0, float(times[start])))
    return tuple(sorted(events, key=lambda e: (e.time, int(e.kind), e.a, e.b)))


def _touch_spans(clip: Clip) -> list[tuple[float, float, int, int]]:
    """(begin, end, id a, id b) of every touch; those that last at the end end there."""
    began: dict[tuple[int, int], float] = {}
    spans = []
    for time, a, b, begins in clip.touches:
        pair = (a, b) if a < b else (b, a)
        if begins:
            began.setdefault(pair, time)
        elif pair in began:
            spans.append((began.pop(pair), time, *pair))
    end = float(clip.times[-1])
    spans += [(time, end + 1.0, *pair) for pair, time in began.items()]
    return sorted(spans)


def _contacts(clip: Clip) -> list[TrueEvent]:
    index = {int(i): k for k, i in enumerate(clip.ids)}
    by_pair: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for begin, end, a, b in _touch_spans(clip):
        if not clip.is_static[index[a]] and not clip.is_static[index[b]]:
            by_pair.setdefault((a, b), []).append((begin, end))
    events = []
    end_s = float(clip.times[-1])
    for (a, b), spans in by_pair.items():
        i, j = index[a], index[b]
        gaps = clip.distances[a, b] if (a, b) in clip.distances else pair_gaps(clip, i, j)

        def apart(begin: float, end: float, gaps: Array = gaps) -> bool:
            rows = (clip.times >= begin) & (clip.times <= end)
            return bool(rows.any()) and bool(np.nanmax(np.append(gaps[rows], -1.0)) > APART_M)

        touching = not apart(0.0, spans[0][0])
        for k, (begin, end) in enumerate(spans):
            if not touching:
                before = int(np.clip(np.searchsorted(clip.times, begin) - 1, 0, len(clip.times) - 1))
                fast = np.linalg.norm(clip.states[before, [i, j]][:, LINEAR_VELOCITY], axis=1)
                mover = a if fast[0] >= fast[1] else b
                events.append(TrueEvent(EventKind.CONTACT, a, b, begin, mover))
                touching = True
            until = spans[k + 1][0] if k + 1 < len(spans) else end_s
            if end < end_s and apart(end, until):
                events.append(TrueEvent(EventKind.SEPARATION, a, b, end))
                touching = False
    return events


def pair_gaps(clip: Clip, i: int, j: int) -> Array:
    """(T,) distance of the surfaces [m] of two bodies (indices) by shape, extents and hull; NaN while one is absent."""
    states = clip.states[:, [i, j]]
    rotations = rotation_matrices(states[..., QUATERNION].reshape(-1, 4)).reshape(len(states), 2, 3, 3)
    gaps = gaps_between(
        (int(clip.shapes[i]), clip.extents[i], clip.hulls[i]),
        (int(clip.shapes[j]), clip.extents[j], clip.hulls[j]),
        states[:, 0, :3],
        rotations[:, 0],
        states[:, 1, :3],
        rotations[:, 1],
    )
    return np.where(clip.present[:, i] & clip.present[:, j], gaps, np.nan)


def caused_ground_truth(
    events: Sequence[TrueEvent], sibling: Callable[[int], Sequence[TrueEvent] | None]
) -> CausedGroundTruth:
    """Which contacts caused which events.

    Args:
        sibling: events of the world without an object (true id); None where that cannot be simulated.
    """
    known: dict[int, Sequence[TrueEvent] | None] = {}

    def without(who: int) -> Sequence[TrueEvent] | None:
        if who not in known:
            known[who] = sibling(who)
        return known[who]

    pairs, answers = [], []
    for i, j in cause_candidates([(e.kind, e.who, e.time) for e in events]):
        cause, effect = events[i], events[j]
        others = [without(who) for who in cause.who if who not in effect.who]
        if any(o is None for o in others):
            continue
        happens = any(
            e.kind == effect.kind and e.who == effect.who and abs(e.time - effect.time) <= SAME_S
            for o in others
            for e in o or ()
        )
        pairs.append((i, j))
        answers.append(not happens)
    return CausedGroundTruth(tuple(pairs), tuple(answers))
