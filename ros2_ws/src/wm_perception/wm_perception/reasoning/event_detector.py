"""Events from the network's probabilities: peaks in time that are consistent with the motion and earlier events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import EventKind
from wm_perception.reasoning.events import MOVE_SPEED_M_S
from wm_perception.reasoning.features import AHEAD, OBJECT_EVENTS, PAIR_EVENTS, STEP_S
from wm_perception.reasoning.history import MotionHistory

THRESHOLDS = {
    EventKind.CONTACT: 0.2,
    EventKind.SEPARATION: 0.2,
    EventKind.MOVE: 0.18,
    EventKind.STOP: 0.18,
    EventKind.FALL: 0.18,
    EventKind.TOPPLE: 0.2,
}
"""Probability, summed over three steps, from which an event is reported; chosen on 30 development clips that perception
saw (training/reasoner/card.py). Larger means fewer and surer events."""
_REPEAT_S = {
    EventKind.CONTACT: 0.15,
    EventKind.SEPARATION: 0.15,
    EventKind.MOVE: 0.3,
    EventKind.STOP: 0.3,
    EventKind.FALL: 0.6,
    EventKind.TOPPLE: 1.0,
}
"""Time [s] in which an event of the same objects is not reported again. Chosen by hand; larger means fewer double
reports, and more lost ones of quick successions."""
_CLEAR = 0.6
"""Probability from which an event is reported out of turn. Chosen by hand; larger means that after a missed event the
next one is missed, too."""
_SEEN = 0.7
"""Part of the four steps about an event in which all participants must be seen. Chosen by hand with commit 4becb6d, so
that no event is reported of hidden objects; larger means fewer events at the rim of occlusions."""
_MEETS_M, _PARTED_M = 0.02, 0.006
"""Gap [m] that a pair in contact comes below, and exceeds before or after; the second as ``APART_M`` in
the ground truth of training (training/reasoner/events.py). Larger means more, and fewer, contacts of objects that pass
closely."""
_TOUCHES, _APART = 0.85, 0.15
"""Probability of touch beyond which a pair is clearly in contact, or apart. Chosen by hand; nearer to 0.5 means that
missed contacts are made up for sooner, and by noise."""
_TOUCH_STEPS, _MOTION_STEPS = 5, 6
"""Steps for which a state must be clear without an event before it is taken over. Chosen by hand; larger means that
missed events are made up for later."""
_FAST_M_S, _SLOW_M_S = 0.08, 0.02
"""Speeds [m/s] above and below which an object clearly moves, or rests. Chosen by hand about ``MOVE_SPEED_M_S`` and
``STOP_SPEED_M_S``."""
_LEAST = 0.01
"""Probabilities below this are taken for 0, which keeps the list of pairs short."""

EventKey = tuple[EventKind, int, int]
"""Kind and ids of the participants; 0 where there is no second one."""


@dataclass
class _Switch:
    """A state (touch, motion), and for how many steps the network has clearly held the opposite."""

    on: bool = False
    against: int = 0

    def settle(self, probability: float, steps: int) -> None:
        """Switch where the opposite was clear for ``steps`` steps: the event was missed, or happened out of sight."""
        other = probability < _APART if self.on else probability > _TOUCHES
        self.against = self.against + 1 if other else 0
        if self.against >= steps:
            self.on, self.against = not self.on, 0


@dataclass(frozen=True)
class DetectedEvent:
    """An event.

    Attributes:
        key: kind and participants. time: on the reasoner's clock [s]. probability: 0..1.
    """

    key: EventKey
    time: float
    probability: float


class EventDetector:
    """Finds events in the network's probabilities, one step after the other.

    Args:
        history: the motion that the network has seen.
    """

    def __init__(self, history: MotionHistory) -> None:
        self._history = history
        self._chances: dict[EventKey, list[float]] = {}
        self._touch: dict[tuple[int, int], _Switch] = {}
        self._motion: dict[int, _Switch] = {}
        self._reported: dict[EventKey, float] = {}

    def detect(
        self, ids: NDArray[np.int64], pair: NDArray[np.float32], single: NDArray[np.float32], step: int, time: float
    ) -> list[DetectedEvent]:
        """Events about the step before ``step``: peaks of the probabilities of three steps.

        Args:
            ids: (N,) objects; pair: (N, N, 3) of ``PAIR_EVENTS`` and of touch; single: (N, 4) of ``OBJECT_EVENTS``.
            time: of the grid's last step [s], ``AHEAD`` steps after ``step``.
        """
        chances = self._read(ids, pair, single, step)
        events = []
        center = time - AHEAD * STEP_S
        kept: dict[EventKey, list[float]] = {}
        for key in sorted({*self._chances, *chances}):
            series = [*self._chances.get(key, [0.0, 0.0]), chances.get(key, 0.0)][-3:]
            if max(series) > _LEAST:
                kept[key] = series[-2:]
            total = sum(series)
            if total < THRESHOLDS[key[0]] or not (series[1] >= series[0] and series[1] > series[2]):
                continue
            moment = center + STEP_S * (float(np.dot(series, [-2.0, -1.0, 0.0])) / total - 0.5)
            if self._believable(key, step) and self._allowed(key, moment, total):
                events.append(DetectedEvent(key, moment, min(1.0, total)))
                kept.pop(key, None)
        self._chances = kept
        alive = set(self._history.slot)
        self._touch = {k: v for k, v in self._touch.items() if set(k) <= alive}
        self._motion = {k: v for k, v in self._motion.items() if k in alive}
        self._reported = {k: v for k, v in self._reported.items() if k[1] in alive}
        return events

    def _read(
        self, ids: NDArray[np.int64], pair: NDArray[np.float32], single: NDArray[np.float32], step: int
    ) -> dict[EventKey, float]:
        """Probabilities by event; the states of touch and motion follow clear probabilities."""
        chances: dict[EventKey, float] = {}
        for i, a in enumerate(ids.tolist()):
            for n, kind in enumerate(OBJECT_EVENTS):
                chances[kind, a, 0] = float(single[i, n])
            speed = float(np.linalg.norm(self._history.velocity[self._history.row(step), self._history.slot[a]]))
            moves = 1.0 if speed > _FAST_M_S else 0.0 if speed < _SLOW_M_S else 0.5
            self._motion.setdefault(a, _Switch()).settle(moves, _MOTION_STEPS)
        for i, j in zip(*np.nonzero(np.triu(pair.max(axis=-1) > _LEAST, 1)), strict=True):
            a, b = int(ids[i]), int(ids[j])
            for n, kind in enumerate(PAIR_EVENTS):
                chances[kind, a, b] = float(pair[i, j, n])
            if (a, b) not in self._touch:
                self._touch[a, b] = _Switch(bool(pair[i, j, 2] > 0.5))
            self._touch[a, b].settle(float(pair[i, j, 2]), _TOUCH_STEPS)
        return chances

    def _believable(self, key: EventKey, step: int) -> bool:
        """Whether an event was seen, and is possible by its own definition.

        All participants were seen about the instant: the place of a hidden object is a guess, and one that has fallen
        out of sight keeps its last place. Objects that begin or end a contact come near, and are apart before or after.
        An object that begins to move or comes to rest moves in the tracker, too: a shape that is fitted anew shifts the
        place of an object at rest.
        """
        kind, history = key[0], self._history
        slots = [history.slot[who] for who in key[1:] if who]
        if (history.seen[history.rows_about(step, 2, 1)][:, slots].mean(axis=0) < _SEEN).any():
            return False
        if kind in PAIR_EVENTS:
            # At row 4 is the step that the peak of the probabilities is about.
            gaps = history.gap[history.rows_about(step, 5, 3), slots[0], slots[1]]
            apart = gaps[:5] if kind == EventKind.CONTACT else gaps[4:]
            return bool(gaps[3:7].min() < _MEETS_M and apart.max() > _PARTED_M)
        if kind in (EventKind.MOVE, EventKind.STOP):
            speeds = history.tracked_speed[history.rows_about(step, 3, 3), slots[0]]
            return bool(speeds.max() > MOVE_SPEED_M_S)
        return True

    def _allowed(self, key: EventKey, moment: float, probability: float) -> bool:
        """Whether an event fits what was reported before: contact and separation, motion and rest take turns.

        One that is clear is reported out of turn: then the other one in between was missed.
        """
        kind, a, b = key
        if moment - self._reported.get(key, -9.0) < _REPEAT_S[kind]:
            return False
        switch = None
        if kind in PAIR_EVENTS:
            switch = self._touch.setdefault((a, b), _Switch())
        elif kind in (EventKind.MOVE, EventKind.STOP):
            switch = self._motion.setdefault(a, _Switch())
        if switch is not None:
            begins = kind in (EventKind.CONTACT, EventKind.MOVE)
            if switch.on == begins and probability < _CLEAR:
                return False
            switch.on, switch.against = begins, 0
        self._reported[key] = moment
        return True
