"""Events of imagined futures as an answer has them: a list, and probabilities by kind and object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import RolloutEvent
from wm_core.scene_graph import EventKind
from wm_dynamics.events import EventTable


def events_of(table: EventTable, order: NDArray[np.int64], count: int) -> tuple[RolloutEvent, ...]:
    """The events of the first ``count`` hypotheses of a request, by hypothesis, sample and time.

    Args:
        order: the request's index of each hypothesis of the table; -1: it is left out.
    """
    hypothesis = order[table.hypothesis]
    rows = np.flatnonzero((hypothesis >= 0) & (hypothesis < count))
    rows = rows[np.lexsort((table.time_s[rows], table.sample[rows], hypothesis[rows]))]
    return EventTable(
        hypothesis[rows], table.sample[rows], table.kind[rows], table.a[rows], table.b[rows], table.time_s[rows]
    ).events()


def event_probabilities(
    table: EventTable,
    kinds: Sequence[EventKind],
    object_ids: NDArray[np.int64],
    samples: int,
    done: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """(K, E, M) fraction of samples in which an event of a kind happens to an object; NaN: not computed.

    Args:
        kinds: E; object_ids: (M,) ascending: those of the graph, then created ones; done: (K,).
    """
    happened = np.zeros((len(done), len(kinds), len(object_ids), samples), dtype=bool)
    for e, kind in enumerate(kinds):
        of_kind = table.kind == int(kind)
        for ids in (table.a, table.b):
            rows = np.flatnonzero(of_kind & (ids != 0))
            slots = np.searchsorted(object_ids, ids[rows])
            happened[table.hypothesis[rows], e, slots, table.sample[rows]] = True
    probability = happened.mean(axis=3, dtype=np.float32)
    probability[~done] = np.nan
    return probability
