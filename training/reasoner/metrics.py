"""Figures of a sequence of scene graphs against the ground truth: relations, events, properties and causes.

Counts are true positives, false positives and false negatives, (3,), that add up over frames and clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.reasoner.data import counterfactuals
from training.reasoner.events import CausedGroundTruth, TrueEvent, caused_ground_truth, true_events
from training.worlds.simulate import Clip, compile_world
from wm_core.scene_graph import Event, EventKind, Predicate, SceneGraph
from wm_perception.reasoning.causes import cause_candidates
from wm_perception.reasoning.relations import measure_relations
from wm_perception.types import PerceptionConfig
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]
Counts = dict[str, Array]

PROPERTIES = ("log_mass", "friction", "restitution")
TOLERANCE_S = 0.1
"""Of the time of an event, as the aim is stated (docs/perception_bench.md)."""
SAME_EVENT_S = 0.2
"""Within this time [s] a perceived event stands for a true one, when causes are scored."""
END_S = 0.35
"""Events this near [s] to the end of a clip cannot be reported before it ends, and are not counted."""
Z90 = 1.6449
"""Half width of the 90 % interval of a normal distribution, in standard deviations."""
_SYMMETRIC = (Predicate.TOUCHING, Predicate.NEAR, Predicate.MOVING_WITH)


@dataclass(frozen=True)
class ClipGroundTruth:
    """A clip with its true events and their causes.

    Attributes:
        clip: states and touches; events: in time order; caused: of pairs of these events.
    """

    clip: Clip
    events: tuple[TrueEvent, ...]
    caused: CausedGroundTruth


def clip_ground_truth(scene: BuiltScene, clip: Clip, counterfactual: bool = True) -> ClipGroundTruth:
    """The ground truth of a clip of a scene.

    Args:
        counterfactual: also simulate the worlds without each object that touches another, about 0.3 s each.
    """
    events = true_events(clip)
    caused = CausedGroundTruth((), ())
    if counterfactual:
        rate = 1.0 / float(clip.times[1] - clip.times[0])
        seconds = float(clip.times[-1])
        caused = caused_ground_truth(events, counterfactuals(scene, compile_world(scene), seconds, rate))
    return ClipGroundTruth(clip, events, caused)


def relation_counts(perceived: SceneGraph, ground_truth: SceneGraph, ids: Mapping[int, int]) -> Counts:
    """Of one frame, by predicate: the relations held against those that the true poses give.

    Args:
        ids: true id of each perceived id that has one; supports need not be in it. Relations of objects that are not
            perceived are not scored, nor are those of phantoms (both have figures of their own).
    """
    statics = ground_truth.ids[ground_truth.is_static].tolist()
    known = dict(ids)
    for i in perceived.ids[perceived.is_static].tolist():
        if statics:
            known.setdefault(int(i), int(statics[0]))
    scored = set(known.values())
    true = {
        key
        for key, probability in measure_relations(ground_truth, PerceptionConfig()).items()
        if probability >= 0.5 and key[0] in scored and key[2] in scored
    }
    held = set()
    for r in perceived.relations:
        if r.predicate == Predicate.CAUSED or r.subject not in known or r.object not in known:
            continue
        a, b = known[r.subject], known[r.object]
        if r.predicate in _SYMMETRIC and a > b:
            a, b = b, a
        held.add((a, r.predicate, b))
    counts: Counts = {}
    for predicate in Predicate:
        one, other = ({k for k in keys if k[1] == predicate} for keys in (held, true))
        if one or other:
            counts[predicate.name] = np.array([len(one & other), len(one - other), len(other - one)], dtype=np.float64)
    return counts


@dataclass(frozen=True)
class _Seen:
    """A perceived event in true ids, with its time [s]."""

    event: Event
    who: tuple[int, ...]
    time: float


def _collect(scenes: Sequence[SceneGraph], ids: Sequence[Mapping[int, int]]) -> tuple[list[_Seen], set[int]]:
    """All perceived events, those of phantoms with negative ids; and the true ids that were ever perceived."""
    known: dict[int, int] = {}
    seen: dict[int, _Seen] = {}
    for scene, mapping in zip(scenes, ids, strict=True):
        known.update({int(k): int(v) for k, v in mapping.items()})
        for e in scene.events:
            who = tuple(known.get(i, -i) for i in ((e.a, e.b) if e.b else (e.a,)))
            seen[e.id] = _Seen(e, tuple(sorted(who)), (e.stamp_ns - 1) * 1e-9)
    return list(seen.values()), set(known.values())


def _pair_up(seen: Sequence[_Seen], ground_truth: Sequence[TrueEvent], tolerance_s: float) -> dict[int, int]:
    """Index of the true event of each perceived one, nearest in time first."""
    options = sorted(
        (abs(s.time - t.time), i, j)
        for i, s in enumerate(seen)
        for j, t in enumerate(ground_truth)
        if s.event.kind == t.kind and s.who == tuple(sorted(t.who)) and abs(s.time - t.time) <= tolerance_s
    )
    pairs: dict[int, int] = {}
    for _, i, j in options:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def event_counts(
    scenes: Sequence[SceneGraph],
    ground_truth: ClipGroundTruth,
    ids: Sequence[Mapping[int, int]],
    from_s: float = 0.5,
    tolerance_s: float = TOLERANCE_S,
) -> Counts:
    """Of one clip, by kind: events with the right participants within a tolerance of the true time.

    Counted are those from ``from_s`` on. Those of objects that were never perceived (out of view) are not
    missed; ENTER of an object that was present from the start is not counted.
    """
    seen, perceived = _collect(scenes, ids)
    until = float(ground_truth.clip.times[-1]) - END_S
    pairs = _pair_up(seen, ground_truth.events, tolerance_s)
    counts: Counts = {kind.name: np.zeros(3) for kind in EventKind}
    hits = set(pairs.values())
    begun = {int(i) for k, i in enumerate(ground_truth.clip.ids) if ground_truth.clip.present[0, k]}
    for i, s in enumerate(seen):
        if i in pairs:
            t = ground_truth.events[pairs[i]]
            if from_s <= t.time <= until:
                counts[t.kind.name][0] += 1
        elif from_s <= s.time <= until:
            late = s.event.kind == EventKind.ENTER and s.who[0] in begun
            if not late:
                counts[s.event.kind.name][1] += 1
    for j, t in enumerate(ground_truth.events):
        if j not in hits and from_s <= t.time <= until and set(t.who) <= perceived:
            counts[t.kind.name][2] += 1
    return {k: v for k, v in counts.items() if v.any()}


def caused_counts(
    scenes: Sequence[SceneGraph], ground_truth: ClipGroundTruth, ids: Sequence[Mapping[int, int]], from_s: float = 0.5
) -> Counts:
    """Of one clip: CAUSED edges and "any earlier contact" against the counterfactual ground truth.

    An edge between events of which one did not happen is wrong; one without a known answer (no sibling) is not counted.
    """
    seen, perceived = _collect(scenes, ids)
    seen.sort(key=lambda s: s.time)
    until = float(ground_truth.clip.times[-1]) - END_S
    pairs = _pair_up(seen, ground_truth.events, SAME_EVENT_S)
    by_id = {s.event.id: i for i, s in enumerate(seen)}
    answers = dict(zip(ground_truth.caused.pairs, ground_truth.caused.caused, strict=True))
    times = [e.time for e in ground_truth.events]
    wanted = {
        pair
        for pair, caused in answers.items()
        if caused
        and times[pair[0]] >= from_s
        and times[pair[1]] <= until
        and all(set(ground_truth.events[k].who) <= perceived for k in pair)
    }

    def score(edges: set[tuple[int, int]]) -> Array:
        right, wrong = set(), 0
        for i, j in edges:
            if i in pairs and j in pairs:
                pair = pairs[i], pairs[j]
                if pair not in answers or times[pair[0]] < from_s or times[pair[1]] > until:
                    continue
                if answers[pair]:
                    right.add(pair)
                else:
                    wrong += 1
            elif from_s <= seen[i].time and seen[j].time <= until:
                wrong += 1
        return np.array([len(right & wanted), wrong, len(wanted - right)], dtype=np.float64)

    edges_held = {
        (by_id[r.subject], by_id[r.object])
        for scene in scenes
        for r in scene.relations
        if r.predicate == Predicate.CAUSED and r.subject in by_id and r.object in by_id
    }
    any_earlier = set(cause_candidates([(s.event.kind, s.who, s.time) for s in seen]))
    return {"reasoner": score(edges_held), "baseline": score(any_earlier)}


def property_rows(
    scenes: Sequence[SceneGraph], ground_truth: ClipGroundTruth, ids: Sequence[Mapping[int, int]], contacts: int = 3
) -> Array:
    """(K, 3, 3): beliefs at the end of the clip, of each object that had at least so many true contacts.

    Second axis: log mass, friction, restitution. Third: mean, standard deviation, ground truth.
    """
    contact_counts: dict[int, int] = {}
    for e in ground_truth.events:
        if e.kind == EventKind.CONTACT:
            for who in e.who:
                contact_counts[who] = contact_counts.get(who, 0) + 1
    where = {int(i): k for k, i in enumerate(ground_truth.clip.ids)}
    last: dict[int, Array] = {}
    for scene, mapping in zip(scenes, ids, strict=True):
        for row, i in enumerate(scene.ids.tolist()):
            true = mapping.get(i)
            if true is None or contact_counts.get(true, 0) < contacts or ground_truth.clip.kinematic[where[true]]:
                continue
            believed: list[list[float]] = [
                [getattr(scene, n)[row], getattr(scene, f"{n}_std")[row], getattr(ground_truth.clip, n)[where[true]]]
                for n in PROPERTIES
            ]
            last[true] = np.array(believed, dtype=np.float64)
    return np.array(list(last.values()), dtype=np.float64).reshape(-1, 3, 3)


def add_counts(total: Counts, more: Mapping[str, Any]) -> Counts:
    """Adds counts up, in place; returns them."""
    for name, value in more.items():
        total[name] = total.get(name, np.zeros(3)) + np.asarray(value, dtype=np.float64)
    return total


def f1(count: Any) -> float:
    """F1 of (tp, fp, fn); NaN where there is nothing to find and nothing was found."""
    tp, fp, fn = (float(v) for v in count)
    return 2.0 * tp / (2.0 * tp + fp + fn) if tp + fp + fn else float("nan")


def macro_f1(counts: Mapping[str, Any]) -> float:
    """Mean F1 over the predicates or kinds that occur in the ground truth."""
    values = [f1(c) for c in counts.values() if float(c[0]) + float(c[2]) > 0.0]
    return float(np.mean(values)) if values else float("nan")


def micro_f1(counts: Mapping[str, Any]) -> float:
    """F1 of all kinds together."""
    return f1(np.sum([np.asarray(c, dtype=np.float64) for c in counts.values()], axis=0)) if counts else float("nan")


def spearman(rows: Array) -> dict[str, float]:
    """Rank correlation of belief and ground truth by property, and their mean; NaN for fewer than three objects."""
    from scipy.stats import spearmanr

    result = {}
    for k, name in enumerate(PROPERTIES):
        enough = len(rows) >= 3 and np.ptp(rows[:, k, 0]) > 0.0 and np.ptp(rows[:, k, 2]) > 0.0
        result[name] = float(spearmanr(rows[:, k, 0], rows[:, k, 2]).statistic) if enough else float("nan")
    result["mean"] = float(np.mean(list(result.values())))
    return result


def coverage(rows: Array) -> float:
    """Fraction of the true values within the 90 % intervals, over all properties."""
    if not len(rows):
        return float("nan")
    return float((np.abs(rows[..., 0] - rows[..., 2]) <= Z90 * rows[..., 1]).mean())
