"""Touches and events of imagined and true futures, read by the same rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from benchmarks.imagination.metrics import Array, Occurrence, held_once_gone, row_at
from benchmarks.imagination.shapes import Worlds, created_bodies, stretches, surface_distances
from benchmarks.imagination.starts import Aligned, Pair, Touching, ground_truth_of
from benchmarks.imagination.worlds import Case
from training.reasoner.events import APART_M, true_events
from training.worlds.simulate import Clip
from wm_core.interventions import InterventionKind
from wm_core.rollout import POSITION
from wm_core.scene_graph import EventKind, Shape
from wm_dynamics.base import targets
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef

KINDS = (EventKind.CONTACT, EventKind.SEPARATION, EventKind.FALL, EventKind.TOPPLE, EventKind.LEAVE)
EVENTS_UNTIL_S = 1.0
"""Time [s] up to which events are compared."""
STEP_OF_INTERVENTIONS_S = 0.5 / 60.0 + 1e-3
"""Backends begin an intervention at the nearest of their steps, at most half a step of 60 Hz off."""

_WORLDS = Worlds()
_TRUE_EVENTS: dict[tuple[str, int], list[list[Occurrence]]] = {}


def positions_of(case: Case, future: Aligned) -> Array:
    """(K, T, M, 3) [m], held once an object has left the table."""
    return held_once_gone(future.states[..., POSITION], case.table_top_m)


# -- events


def clip_of(case: Case, future: Aligned, k: int) -> Clip:
    """A future as a clip, from which events are read by the rules of ``training.reasoner.events``."""
    objects = len(case.object_ids)
    empty = (int(Shape.BOX), np.full(3, 0.05), np.zeros((0, 3)))
    solids = [s or empty for s in future.solids]
    known = len(case.scene)
    created = [i for i in case.hypotheses[k].interventions if i.creates_body]
    for j, do in enumerate(created):
        assert do.body is not None
        solids[known + j] = (int(do.body.shape), np.asarray(do.body.extents, float), np.zeros((0, 3)))
    kinematic = np.zeros(objects, dtype=bool)
    for j, do in enumerate(created):
        kinematic[known + j] = do.kind == InterventionKind.FOLLOW_PATH
    static = np.zeros(objects, dtype=bool)
    static[:known] = case.scene.is_static
    return Clip(
        times=case.times,
        ids=case.object_ids,
        class_names=("object",) * objects,
        states=future.states[k],
        present=future.present[k],
        touches=future.touches[k],
        extents=np.array([s[1] for s in solids]),
        shapes=np.array([s[0] for s in solids]),
        hulls=tuple(s[2] for s in solids),
        is_static=static,
        log_mass=np.zeros(objects),
        friction=np.zeros(objects),
        restitution=np.zeros(objects),
        kinematic=kinematic,
        scheduled=(),
        stable=True,
    )


def distances_of(case: Case, future: Aligned, k: int, pairs: Iterable[Pair], rows: int) -> dict[Pair, Array]:
    """How far apart the surfaces of pairs of objects (columns) are at the first times, (rows,) [m] each.

    Shapes are those of that future, changed by its interventions: of the ground truth all parts of an object, of an
    imagined future the primitive or hull of its scene graph. Up to ``shapes.FAR_M``; NaN while one of them is absent.
    """
    hypothesis = case.hypotheses[k]
    nothing = BodyDef((GeomDef(Shape.SPHERE, np.full(3, 0.01)),))
    bodies = [b or nothing for b in future.bodies] + created_bodies(hypothesis)
    known = np.array([b is not None for b in future.bodies] + [True] * (len(bodies) - len(future.bodies)))
    count = len(bodies)
    parts = stretches(bodies, targets(case.scene, hypothesis))
    states, present = future.states[k, :rows, :count], future.present[k, :rows, :count] & known
    return surface_distances(_WORLDS, parts, case.times[:rows], states, present, pairs)


def movable_pairs(clip: Clip) -> list[Pair]:
    """Columns i < j of movable objects that exist at some time."""
    there = [m for m in range(len(clip.ids)) if not clip.is_static[m] and clip.present[:, m].any()]
    return list(itertools.combinations(there, 2))


def seen_touches(clip: Clip, distances: dict[Pair, Array]) -> tuple[Touching, ...]:
    """Touches of movable objects from their positions: when surfaces meet, linearly interpolated between states.

    For backends that report no contacts.
    """
    found: list[Touching] = []
    for (i, j), gap in distances.items():
        inside = np.nan_to_num(gap, nan=np.inf) <= 0.0
        a, b = sorted((int(clip.ids[i]), int(clip.ids[j])))
        if inside[0]:
            found.append((0.0, a, b, True))
        for row in np.flatnonzero(inside[1:] != inside[:-1]) + 1:
            before, after = gap[row - 1], gap[row]
            part = before / (before - after) if np.isfinite(before) and np.isfinite(after) else 1.0
            when = float(clip.times[row - 1] + part * (clip.times[row] - clip.times[row - 1]))
            found.append((when, a, b, bool(inside[row])))
    return tuple(sorted(found))


def meetings(clip: Clip, distances: dict[Pair, Array]) -> list[Occurrence]:
    """Contacts and separations of movable objects, by the rule of ``training.reasoner.events``.

    Two objects are in contact from the instant when they touch until they have come apart by more than ``APART_M``; a
    pair that was never that far apart before its first touch was in contact from the start. A separation is at the
    end of the last touch.

    Args:
        clip: with touches; distances: (T,) [m] of the surfaces of all pairs that touch, by columns.
    """
    found: list[Occurrence] = []
    end_s = float(clip.times[-1])
    for (i, j), distance in distances.items():
        who = (min(int(clip.ids[i]), int(clip.ids[j])), max(int(clip.ids[i]), int(clip.ids[j])))
        begins = [t for t, a, b, began in clip.touches if (a, b) == who and began]
        ends = [t for t, a, b, began in clip.touches if (a, b) == who and not began]
        apart = clip.times[np.nan_to_num(distance) > APART_M]
        touching = not begins or not (apart <= begins[0]).any()
        for begin, end, until in zip(begins, [*ends, end_s], [*begins[1:], end_s], strict=False):
            if not touching:
                found.append((int(EventKind.CONTACT), who, begin))
            touching = end >= end_s or not ((apart >= end) & (apart <= until)).any()
            if not touching:
                found.append((int(EventKind.SEPARATION), who, end))
    return found


def events_of(case: Case, future: Aligned, k: int, from_places: bool) -> list[Occurrence]:
    """Contacts, separations, falls, topples and departures, up to a little over a second.

    Args:
        from_places: find touches from positions (for backends that report none).
    """
    clip = clip_of(case, future, k)
    last = row_at(case.times, EVENTS_UNTIL_S + 0.5) + 1
    clip = replace(clip, times=clip.times[:last], states=clip.states[:last], present=clip.present[:last])
    pairs = movable_pairs(clip)
    if from_places:
        distances = distances_of(case, future, k, pairs, last)
        clip = replace(clip, touches=seen_touches(clip, distances))
    else:
        clip = replace(clip, touches=tuple(t for t in clip.touches if t[0] <= float(clip.times[-1])))
        touching = {(a, b) for _, a, b, _ in clip.touches}
        touched = [(i, j) for i, j in pairs if tuple(sorted((int(clip.ids[i]), int(clip.ids[j])))) in touching]
        distances = distances_of(case, future, k, touched, last)
    removed = {do.object_id for do in case.hypotheses[k].interventions if do.kind == InterventionKind.REMOVE}
    found = meetings(clip, distances)
    found += [
        (int(e.kind), e.who, e.time)
        for e in true_events(clip)
        if e.kind in (EventKind.FALL, EventKind.TOPPLE, EventKind.LEAVE)
        and not (e.kind == EventKind.LEAVE and e.a in removed)
    ]
    # A contact at time 0 of a pair that was apart happens in the first step; other events at time 0 happened before.
    kept = [e for e in found if e[2] > 0.0 or e[0] == int(EventKind.CONTACT)]
    return sorted(kept, key=lambda e: (e[2], e[0], e[1]))


def has_contact(case: Case, k: int, until_s: float = 1.0) -> bool:
    """Whether movable objects begin to touch in the true future."""
    return any(e[0] == int(EventKind.CONTACT) and e[2] <= until_s for e in true_events_of(case)[k])


def true_events_of(case: Case) -> list[list[Occurrence]]:
    """The true events of every future of a case."""
    key = (case.split, case.seed)
    if key not in _TRUE_EVENTS:
        ground_truth = ground_truth_of(case)
        _TRUE_EVENTS[key] = [events_of(case, ground_truth, k, False) for k in range(len(case.hypotheses))]
    return _TRUE_EVENTS[key]
