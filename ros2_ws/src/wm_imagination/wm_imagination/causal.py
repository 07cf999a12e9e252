"""Causes: objects without which an imagined event would not happen.

The counterfactual test of a cause (but for X, would E have happened?), made of every candidate at once: one removal
hypothesis per object, all rolled out in one call from the same belief samples and compared sample by sample, so that
the answer holds the effect of the removal and no sampling noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis, UnknownObjectError, remove
from wm_core.rollout import (
    EventAnswer,
    EventQuestion,
    ImagineRequest,
    Imagines,
    RequestError,
    RolloutEvent,
    StatesWanted,
)
from wm_core.scene_graph import EventKind, SceneGraph
from wm_dynamics.base import targets
from wm_dynamics.events import EventTable

PREDICTED_KINDS = (
    EventKind.CONTACT,
    EventKind.SEPARATION,
    EventKind.FALL,
    EventKind.TOPPLE,
    EventKind.LEAVE,
    EventKind.STOP,
)
"""Kinds of events that are derived from imagined futures."""


def check_kind(kind: EventKind, where: str) -> None:
    """Raises RequestError on a kind of event that is never derived from an imagined future."""
    if kind not in PREDICTED_KINDS:
        known = ", ".join(k.name for k in PREDICTED_KINDS)
        raise RequestError(f"{where}: got {EventKind(kind).name}, expected one of {known}")


@dataclass(frozen=True)
class Removal:
    """A future without one object.

    Attributes:
        object_id: of the object that is left out.
        hypothesis: the future without the object.
        event: the event in the ids of that future: bodies brought in after a removed one move up by one.
    """

    object_id: int
    hypothesis: Hypothesis
    event: EventQuestion


def removals(
    scene: SceneGraph, object_ids: NDArray[np.int64], hypotheses: Sequence[Hypothesis], question: EventQuestion
) -> tuple[Removal, ...]:
    """One future per object whose removal is tried; the object is gone from the start, with all that is done to it.

    Args:
        object_ids: (M,) of the answer, see ``wm_dynamics.base.object_slots``.
        hypotheses: K; ``question.hypothesis`` is one of them.

    Raises:
        RequestError, UnknownObjectError: the question is not about these futures.
    """
    if not 0 <= question.hypothesis < len(hypotheses):
        raise RequestError(f"hypothesis: got {question.hypothesis}, expected 0..{len(hypotheses) - 1}")
    check_kind(question.kind, "kind")
    if not np.isfinite(question.until_s) or question.until_s < 0.0:
        raise RequestError(f"until: got {question.until_s:g} s, expected 0 (the horizon) or more")
    hypothesis = hypotheses[question.hypothesis]
    created = sum(i.creates_body for i in hypothesis.interventions)
    ids = object_ids[: len(scene) + created].tolist()
    wanted = [question.a, *([question.b] if question.b else []), *question.object_ids]
    for object_id in wanted:
        if object_id not in ids:
            raise UnknownObjectError(
                f"object id {object_id} is not in the scene graph or brought in by {hypothesis.name!r} (ids: {ids})"
            )
    candidates = list(question.object_ids) or [
        object_id
        for m, object_id in enumerate(ids)
        if object_id not in (question.a, question.b) and not (m < len(scene) and scene.is_static[m])
    ]
    found = []
    for object_id in candidates:
        slot = ids.index(object_id)
        kept = tuple(i for m, i in targets(scene, hypothesis) if m != slot)
        event = question
        if slot < len(scene):
            kept = (remove(object_id), *kept)
        else:
            event = replace(question, a=_moved_up(question.a, object_id), b=_moved_up(question.b, object_id))
        found.append(Removal(int(object_id), Hypothesis(f"{hypothesis.name} without {object_id}", kept), event))
    return tuple(found)


def _moved_up(object_id: int, removed: int) -> int:
    """Id of a body once ``removed``, which was brought in, is not; 0 (nothing has it) for that one itself."""
    return 0 if object_id == removed else object_id - (object_id > removed)


def happens(table: EventTable, row: int, samples: int, event: EventQuestion) -> NDArray[np.bool_]:
    """(S,) whether the event happens in each sample of future ``row`` of the table."""
    found = (table.hypothesis == row) & (table.kind == int(event.kind))
    if event.b:
        first, second = sorted((event.a, event.b))
        found &= (table.a == first) & (table.b == second)
    else:
        found &= (table.a == event.a) | (table.b == event.a)
    if event.until_s > 0.0:
        found &= table.time_s <= event.until_s + 1e-6
    result = np.zeros(samples, dtype=bool)
    result[table.sample[found]] = event.a != 0
    return result


def answer(
    question: EventQuestion,
    tried: Sequence[Removal],
    factual: NDArray[np.bool_] | None,
    without: Sequence[NDArray[np.bool_] | None],
) -> EventAnswer:
    """The answer from what happens.

    Args:
        factual: (S,) whether it happens with everything there; None: not computed.
        without: the same per removal.
    """
    probability = np.full(len(tried), np.nan)
    prevented = np.full(len(tried), np.nan)
    for c, outcome in enumerate(without):
        if outcome is None:
            continue
        probability[c] = outcome.mean()
        if factual is not None and factual.any():
            prevented[c] = (~outcome[factual]).mean()
    # Not a number sorts last.
    order = np.lexsort((np.nan_to_num(probability, nan=np.inf), -np.nan_to_num(prevented, nan=-1.0)))
    ids = np.array([r.object_id for r in tried], dtype=np.int64)
    return EventAnswer(
        question,
        float("nan") if factual is None else float(factual.mean()),
        ids[order],
        probability[order],
        prevented[order],
    )


def what_would_prevent(
    imagination: Imagines,
    scene: SceneGraph | None,
    request: ImagineRequest,
    event: EventQuestion | RolloutEvent,
) -> EventAnswer:
    """Which objects' removal would have prevented a predicted event, the most preventing first.

    Args:
        request: the futures, samples, seed and backend; other results that it requests are left out.
        event: of one of them, in the ids of its answer. A ``RolloutEvent`` counts whenever it
            happens up to the horizon.

    Raises:
        RequestError, InterventionError, UnknownObjectError, BackendUnavailableError: see ``Imagination.imagine``.
    """
    if isinstance(event, RolloutEvent):
        event = EventQuestion(event.kind, event.a, event.b, event.hypothesis)
    wanted = replace(
        request,
        questions=(event,),
        want_states=StatesWanted.NONE,
        want_events=False,
        event_kinds=(),
        pairs=(),
        images=type(request.images)(),
    )
    return imagination.imagine(wanted, scene).answers[0]
