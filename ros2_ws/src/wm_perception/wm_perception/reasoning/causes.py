"""Pairs of a contact and an event that it may have caused, and their features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import EventKind
from wm_perception.reasoning.features import EFFECTS

BEFORE_S = 0.08
"""An effect may be stamped this much before its cause [s]: a step and a fraction of it, as instants are not known
better."""


@dataclass(frozen=True)
class ObservedEvent:
    """An event with the motion about it.

    Attributes:
        kind: of the event; who: ids of the participants.
        time: since the reasoner's start [s].
        motion: of each participant speed before, speed after, and change of velocity [m/s].
    """

    kind: EventKind
    who: tuple[int, ...]
    time: float
    motion: tuple[tuple[float, float, float], ...]

    def share(self, who: int) -> float:
        """0..1: how much of a participant's motion after the event is due to it."""
        before, after, change = self.motion[self.who.index(who)]
        return change / (change + 0.5 * min(before, after) + 0.03)


def cause_candidates(events: list[tuple[EventKind, tuple[int, ...], float]]) -> list[tuple[int, int]]:
    """Indices (contact, later event) of the pairs in which the first may have caused the second.

    Pairs whose event has both participants of the contact are left out: the counterfactual world lacks one of them.
    """
    pairs = []
    for i, (kind, who, time) in enumerate(events):
        if kind != EventKind.CONTACT:
            continue
        for j, (effect, others, later) in enumerate(events):
            if i == j or effect not in EFFECTS or later <= time - BEFORE_S or set(who) <= set(others):
                continue
            if later >= time or effect == EventKind.MOVE:
                pairs.append((i, j))
    return pairs


def cause_row(events: list[ObservedEvent], cause: int, effect: int) -> NDArray[np.float32]:
    """``CAUSE_FEATURES`` of a contact and a later event, among all events (in time order).

    The influence of a contact starts as the share of each participant's motion that is due to it. Each later contact
    passes it on, times its own share. A start from rest that no contact explains has another cause.
    """
    first, last = events[cause], events[effect]
    influence = {w: first.share(w) for w in first.who}
    plain = dict.fromkeys(first.who, 1.0)
    latest = dict.fromkeys(first.who, first.time)
    hops = dict.fromkeys(first.who, 0.0)
    later, starts = 0, 0
    # The contact that sets an object in motion may have a stamp a little later than the motion.
    until = last.time + (BEFORE_S if last.kind == EventKind.MOVE else 0.0)
    near = [
        (abs(last.time - h.time), k)
        for k, h in enumerate(events)
        if k != effect and h.kind == EventKind.CONTACT and h.time <= until and set(h.who) & set(last.who)
    ]
    nearest, hit = min(near, default=(3.0, -1))
    # The influence on the object that hit last, before that contact.
    source = source_plain = 0.0
    touched: dict[int, float] = dict.fromkeys(first.who, first.time)
    for k, h in enumerate(events):
        if k in (cause, effect) or h.time < first.time or h.time > until:
            continue
        if h.kind == EventKind.CONTACT:
            later += int(bool(set(h.who) & set(last.who)))
            old = {w: (influence.get(w, 0.0), plain.get(w, 0.0), hops.get(w, 9.0)) for w in h.who}
            if k == hit:
                source = max((old[w][0] for w in h.who if w not in last.who), default=max(o[0] for o in old.values()))
                source_plain = max(old[w][1] for w in h.who)
            for w, other in (h.who, h.who[::-1]):
                share = h.share(w)
                passed = old[other][0] * share
                kept = old[w][0]
                if passed > kept:
                    influence[w], hops[w], latest[w] = passed, old[other][2] + 1.0, h.time
                else:
                    influence[w] = kept
                plain[w] = max(old[w][1], old[other][1])
                touched[w] = h.time
        elif h.kind == EventKind.MOVE:
            w = h.who[0]
            if h.time - touched.get(w, -9.0) > 0.2 and w in influence:
                starts += int(w in last.who)
                influence[w] *= 0.3
    levels = sorted((influence.get(w, 0.0) for w in last.who), reverse=True)
    speeds = first.motion
    mover = int(np.argmax([m[0] for m in speeds]))
    a, b = first.who[mover], first.who[1 - mover]
    delay = last.time - first.time
    rivals = [
        h.time
        for k, h in enumerate(events)
        if k not in (cause, effect)
        and h.kind == EventKind.CONTACT
        and h.time <= last.time + 0.03
        and set(h.who) & set(last.who)
    ]
    rival = last.time - max(rivals) if rivals else 3.0
    effect_motion = max(last.motion, key=lambda m: m[2])
    since = min((last.time - latest[w] for w in last.who if w in latest), default=3.0)
    row = [
        delay,
        np.exp(-np.abs(delay) / 0.12),
        levels[0],
        levels[-1],
        max(plain.get(w, 0.0) for w in last.who),
        first.share(a),
        first.share(b),
        speeds[mover][0],
        float(a in last.who),
        float(b in last.who),
        float(speeds[1 - mover][0] < 0.06),
        float(speeds[mover][0] < 0.06),
        min(later, 4),
        min(starts, 3),
        min((hops.get(w, 5.0) for w in last.who), default=5.0),
        *[float(last.kind == kind) for kind in EFFECTS],
        effect_motion[2],
        effect_motion[0],
        min(rival, 3.0),
        since,
        levels[0] * np.exp(-max(since, 0.0) / 0.5),
        min(nearest, 3.0),
        float(hit == cause),
        1.0 if hit == cause else source,
        1.0 if hit == cause else source_plain,
        max((events[hit].share(w) for w in events[hit].who if w in last.who), default=0.0) if hit >= 0 else 0.0,
    ]
    return np.clip(row, -4.0, 5.0).astype(np.float32)
