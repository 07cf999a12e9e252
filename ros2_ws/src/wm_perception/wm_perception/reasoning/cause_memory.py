"""The events of the last seconds, and the probability that a contact caused an event."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import Event, Predicate, Relation
from wm_perception.reasoning.causes import ObservedEvent, cause_candidates, cause_row

CAUSED_THRESHOLD = 0.08
"""Probability from which a cause is reported; chosen on 30 development clips that perception saw
(training/reasoner/card.py). Larger means fewer and surer causes."""
REMEMBERED_S = 6.0
"""Time [s] for which an event may still be a cause. Chosen by hand; larger means more candidates."""
_SHOWN_S = 3.0
"""Time [s] for which a cause is in the scene graph after its effect. Chosen by hand; larger means longer messages."""
_ROWS_PER_STEP = 96
"""Candidates that the network judges in one step; the others wait. Chosen by hand; larger means longer steps."""

CauseRow = tuple[int, int, NDArray[np.float32]]
"""Event id of the cause, of the effect, and ``CAUSE_FEATURES``."""


class CauseMemory:
    """Candidates of causes, with the network's answers."""

    def __init__(self) -> None:
        self._happened: list[tuple[ObservedEvent, int]] = []
        self._sure: dict[int, float] = {}
        self._causes: dict[tuple[int, int], tuple[float, int]] = {}
        self._waiting: list[CauseRow] = []

    def add(self, new: ObservedEvent, event: Event, start_ns: int) -> None:
        """Collect the contacts that may have caused the new event, and the events that a new contact may have caused.

        Args:
            start_ns: stamp at which event times are 0.
        """
        self._happened = [(h, i) for h, i in self._happened if h.time > new.time - REMEMBERED_S]
        self._happened.append((new, event.id))
        self._sure = {i: self._sure.get(i, event.probability) for _, i in self._happened}
        self._happened.sort(key=lambda item: item[0].time)
        happened = [h for h, _ in self._happened]
        ids = [i for _, i in self._happened]
        own = ids.index(event.id)
        for cause, effect in cause_candidates([(h.kind, h.who, h.time) for h in happened]):
            if own not in (cause, effect):
                continue
            pair = ids[cause], ids[effect]
            self._causes[pair] = (0.0, start_ns + round(happened[effect].time * 1e9))
            self._waiting.append((*pair, cause_row(happened, cause, effect)))

    def next_rows(self) -> list[CauseRow]:
        """The candidates that the network judges next."""
        rows, self._waiting = self._waiting[:_ROWS_PER_STEP], self._waiting[_ROWS_PER_STEP:]
        return rows

    def answer(self, rows: list[CauseRow], probabilities: Iterable[float]) -> None:
        """Store the network's probabilities that the first caused the second, given that both happened."""
        for (a, b, _), probability in zip(rows, probabilities, strict=False):
            both = self._sure.get(a, 0.0) * self._sure.get(b, 0.0)
            self._causes[a, b] = (both * float(probability), self._causes.get((a, b), (0.0, 0))[1])

    def relations(self, start_ns: int, now_s: float) -> list[Relation]:
        """The causes of recent effects, ``now_s`` [s] after a start stamp [ns]."""
        oldest = start_ns + round((now_s - _SHOWN_S) * 1e9)
        self._causes = {k: v for k, v in self._causes.items() if v[1] >= oldest}
        return [
            Relation(a, Predicate.CAUSED, b, probability, since)
            for (a, b), (probability, since) in sorted(self._causes.items())
            if probability >= CAUSED_THRESHOLD
        ]
