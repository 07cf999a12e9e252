"""What happens among the things, what they are made of, and what caused what: the reasoner on the robot.

It keeps the last three seconds of scene graphs on an even time grid. A trained network judges each instant ``AHEAD``
steps (0.2 s) late, when it is seen what came of it, and gives the true instant as the stamp. Without a network,
relations and contacts come from geometry alone, properties stay at their priors, and nothing is said of causes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import SEEN_FALL_SPEED_M_S
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Event, EventKind, Predicate, Relation, SceneGraph
from wm_perception.reasoning.events import LEAST_LIFE_S, MOVE_SPEED_M_S, left_after
from wm_perception.reasoning.features import (
    AHEAD,
    CAUSE_FEATURES,
    CONTACT_FEATURES,
    CONTACT_LAG,
    EFFECTS,
    OBJECT_EVENTS,
    PAIR_EVENTS,
    STEP_FEATURES,
    STEP_LAG,
    STEP_S,
    WINDOW,
    MotionHistory,
    ObservedEvent,
    Step,
    between,
    cause_candidates,
    cause_row,
    log_mass_prior,
    shape_row,
    step_of,
)
from wm_perception.reasoning.relations import RelationGraph
from wm_perception.types import PerceptionConfig

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Network = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]
"""Of the tensors that training/reasoner/model.py states, by name."""

THRESHOLDS = {
    EventKind.CONTACT: 0.2,
    EventKind.SEPARATION: 0.2,
    EventKind.MOVE: 0.18,
    EventKind.STOP: 0.18,
    EventKind.FALL: 0.18,
    EventKind.TOPPLE: 0.2,
}
"""Probability that an event happened at all, from which it is reported."""
CAUSED_THRESHOLD = 0.08
REMEMBERED_S = 6.0
_SHOWN_S = 3.0
_SOON_S = 0.25
"""What will be beyond the edge so soon falls over it."""
_GAP_S = 0.5
_QUESTIONS = 96
_REPEAT_S = {
    EventKind.CONTACT: 0.15,
    EventKind.SEPARATION: 0.15,
    EventKind.MOVE: 0.3,
    EventKind.STOP: 0.3,
    EventKind.FALL: 0.6,
    EventKind.TOPPLE: 1.0,
}
_CLEAR = 0.6
_SEEN = 0.7
"""Part of the instants about an event in which all that take part must be seen for it to be told."""
_MEETS_M, _PARTED_M = 0.02, 0.006
"""Who meets or parts comes this near, and is this far apart before or after (as in the truth of training)."""
_TOUCHES, _APART = 0.85, 0.15
_OWN = frozenset((*PAIR_EVENTS, *OBJECT_EVENTS))


@dataclass
class _Belief:
    """Sum of precisions and of means times precisions (3,) of all evidence on a thing's properties."""

    weighted: Array = field(default_factory=lambda: np.zeros(3))
    precision: Array = field(default_factory=lambda: np.zeros(3))
    contacts: int = 0


@dataclass(frozen=True)
class _Sighting:
    """When a thing was first and last seen, and how long after that it has left, if it was going over an edge [s]."""

    first_ns: int
    stamp_ns: int
    falls_s: float = 0.0


def _sightings(scene: SceneGraph, before: Mapping[int, _Sighting]) -> dict[int, _Sighting]:
    """Of all things the last sight, by id; how what is no longer seen fell is known from when it was."""
    found: dict[int, _Sighting] = {}
    supports = np.flatnonzero(scene.is_static)
    tops = scene.positions[supports, 2] + 0.5 * scene.extents[supports, 2]
    soon = scene.positions + _SOON_S * scene.linear_velocities
    held = np.zeros(len(scene), dtype=bool)
    for k in supports:
        local = (soon - scene.positions[k]) @ quaternion_to_matrix(scene.quaternions[k])
        held |= (np.abs(local[:, :2]) < 0.5 * scene.extents[k, :2]).all(axis=1)
    falling = ~held | (scene.linear_velocities[:, 2] < -SEEN_FALL_SPEED_M_S)
    for row, who in enumerate(scene.ids.tolist()):
        stamp = int(scene.last_seen_ns[row])
        known = before.get(who)
        if known is not None and known.stamp_ns == stamp:
            found[who] = known
            continue
        falls_s = 0.0
        if len(tops) and falling[row]:
            falls_s = left_after(float(scene.positions[row, 2] - tops.max()), float(scene.linear_velocities[row, 2]))
        found[who] = _Sighting(int(scene.first_seen_ns[row]), stamp, falls_s)
    return found


@dataclass
class _Switch:
    """Something that is or is not (touch, motion), with how long the network has thought otherwise."""

    on: bool = False
    against: int = 0

    def settle(self, probability: float, steps: int) -> None:
        """Follow what has been clear for some steps without an event: one was missed, or it began out of sight."""
        other = probability < _APART if self.on else probability > _TOUCHES
        self.against = self.against + 1 if other else 0
        if self.against >= steps:
            self.on, self.against = not self.on, 0


class Reasoner:
    """Relations, events, properties and causes, from one scene graph after the other.

    Args:
        config: see ``PerceptionConfig``.
        network: the trained network; None: geometry alone.
        scales: (3,) by which the network's standard deviations have to be widened (its calibration).
    """

    def __init__(
        self, config: PerceptionConfig, network: Network | None = None, scales: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> None:
        self.config, self.network = config, network
        self.scales = np.asarray(scales, dtype=np.float64)
        self._event_id = 0
        if network is None:
            log.info("no trained reasoner: relations and contacts from geometry, properties stay at their priors")
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; event ids go on."""
        self.relations = RelationGraph(self.config)
        self._start_ns: int | None = None
        self._beliefs: dict[int, _Belief] = {}
        self._happened: list[tuple[ObservedEvent, int]] = []
        self._sure: dict[int, float] = {}
        self._causes: dict[tuple[int, int], tuple[float, int]] = {}
        self._asked: list[tuple[int, int, NDArray[np.float32]]] = []
        self._prior: dict[int, Array] = {}
        self._last_seen: dict[int, _Sighting] = {}
        self._forget()

    def _forget(self) -> None:
        self._history = MotionHistory()
        self._before: Step | None = None
        self._grid = 0
        self._chances: dict[tuple[EventKind, int, int], list[float]] = {}
        self._touch: dict[tuple[int, int], _Switch] = {}
        self._motion: dict[int, _Switch] = {}
        self._reported: dict[tuple[EventKind, int, int], float] = {}
        self._contacts: list[tuple[int, int, int]] = []

    def update(self, scene: SceneGraph, tracked: Sequence[Event] = ()) -> SceneGraph:
        """The scene with relations, events, properties and causes.

        Args:
            scene: without them, later than the one before.
            tracked: what the tracker says has happened in this frame; appearance and disappearance are its to tell,
                motion only where there is no network.
        """
        events: list[Event] = []

        def emit(kind: EventKind, a: int, b: int = 0, probability: float = 1.0) -> None:
            events.append(self._event(kind, a, b, scene.stamp_ns, probability))

        for e in tracked:
            if self.network is not None and e.kind in _OWN:
                continue
            # Both are known for sure some frames late only.
            stamp = e.stamp_ns
            if e.kind == EventKind.ENTER and e.a in scene.ids:
                stamp = int(scene.first_seen_ns[scene.index(e.a)])
            elif e.kind == EventKind.LEAVE:
                seen = self._last_seen.get(e.a)
                if seen is not None:
                    if seen.stamp_ns - seen.first_ns < LEAST_LIFE_S * 1e9:
                        continue
                    stamp = seen.stamp_ns + round(seen.falls_s * 1e9)
            events.append(self._event(e.kind, e.a, e.b, stamp, e.probability))
        self._last_seen = _sightings(scene, self._last_seen)
        relations = self.relations.update(scene, emit if self.network is None else None)
        if self.network is None:
            return replace(scene, relations=relations, events=tuple(events))
        if self._start_ns is None:
            self._start_ns = scene.stamp_ns
        now = (scene.stamp_ns - self._start_ns) * 1e-9
        step = step_of(scene, now)
        if self._before is not None and now - self._before.time > _GAP_S:
            self._forget()
        if self._before is None:
            self._grid = round(np.ceil(now / STEP_S - 0.02))
        while self._grid * STEP_S <= now + 0.003:
            time = self._grid * STEP_S
            self._history.push(step if self._before is None else between(self._before, step, time))
            self._grid += 1
            events += self._judge(time)
        self._before = step
        scene = self._with_properties(scene)
        return replace(scene, relations=(*relations, *self._caused(now)), events=tuple(events))

    def _event(self, kind: EventKind, a: int, b: int, stamp_ns: int, probability: float) -> Event:
        self._event_id += 1
        return Event(self._event_id, kind, a, b, stamp_ns, probability)

    # One instant

    def _judge(self, time: float) -> list[Event]:
        history = self._history
        last = history.count - 1
        if last < WINDOW - 1:
            return []
        assert self.network is not None
        ids, objects, pairs = history.window(last)
        steps = [(int(i), row) for i in ids if (row := history.step_row(int(i), last - STEP_LAG)) is not None]
        contacts: list[tuple[int, NDArray[np.float32]]] = []
        for own, other, step in [c for c in self._contacts if c[2] + CONTACT_LAG <= last]:
            if (row := history.contact_row(own, other, step)) is not None:
                contacts.append((own, row))
        self._contacts = [c for c in self._contacts if c[2] + CONTACT_LAG > last]
        asked, self._asked = self._asked[:_QUESTIONS], self._asked[_QUESTIONS:]
        if not len(ids):
            return []
        found = self.network(
            {
                "objects": objects,
                "pairs": pairs,
                "shapes": np.stack([shape_row(*history.shape[int(i)]) for i in ids]),
                "contacts": _rows([r for _, r in contacts], len(CONTACT_FEATURES)),
                "steps": _rows([r for _, r in steps], len(STEP_FEATURES)),
                "causes": _rows([r for _, _, r in asked], len(CAUSE_FEATURES)),
            }
        )
        for owner, said in (
            *zip([i for i, _ in contacts], found["contact_evidence"], strict=False),
            *zip([i for i, _ in steps], found["step_evidence"], strict=False),
        ):
            belief = self._beliefs.setdefault(owner, _Belief())
            precision = said[3:].astype(np.float64)
            belief.weighted += precision * said[:3]
            belief.precision += precision
        for (a, b, _), probability in zip(asked, found["cause"], strict=False):
            # It caused it if both happened, and the one the other.
            both = self._sure.get(a, 0.0) * self._sure.get(b, 0.0)
            self._causes[a, b] = (both * float(probability), self._causes.get((a, b), (0.0, 0))[1])
        self._prior |= {int(i): row.astype(np.float64) for i, row in zip(ids, found["prior"], strict=True)}
        return self._events(ids, found["pair_probabilities"], found["object_probabilities"], last - AHEAD, time)

    def _events(
        self, ids: NDArray[np.int64], pair: NDArray[np.float32], single: NDArray[np.float32], step: int, time: float
    ) -> list[Event]:
        """What happened about the step before ``step``: a peak of the chances of three steps."""
        chances: dict[tuple[EventKind, int, int], float] = {}
        for i, a in enumerate(ids.tolist()):
            for n, kind in enumerate(OBJECT_EVENTS):
                chances[kind, a, 0] = float(single[i, n])
            speed = float(np.linalg.norm(self._history.velocity[self._history.row(step), self._history.slot[a]]))
            self._motion.setdefault(a, _Switch()).settle(1.0 if speed > 0.08 else 0.0 if speed < 0.02 else 0.5, 6)
        for i, j in zip(*np.nonzero(np.triu(pair.max(axis=-1) > 0.01, 1)), strict=True):
            a, b = int(ids[i]), int(ids[j])
            for n, kind in enumerate(PAIR_EVENTS):
                chances[kind, a, b] = float(pair[i, j, n])
            if (a, b) not in self._touch:
                self._touch[a, b] = _Switch(bool(pair[i, j, 2] > 0.5))
            self._touch[a, b].settle(float(pair[i, j, 2]), 5)
        events = []
        center = time - AHEAD * STEP_S
        kept: dict[tuple[EventKind, int, int], list[float]] = {}
        for key in sorted({*self._chances, *chances}):
            series = [*self._chances.get(key, [0.0, 0.0]), chances.get(key, 0.0)][-3:]
            if max(series) > 0.01:
                kept[key] = series[-2:]
            total = sum(series)
            if total < THRESHOLDS[key[0]] or not (series[1] >= series[0] and series[1] > series[2]):
                continue
            moment = center + STEP_S * (float(np.dot(series, [-2.0, -1.0, 0.0])) / total - 0.5)
            if not self._believable(key, step):
                continue
            if self._allowed(key, moment, total):
                events.append(self._report(key, moment, min(1.0, total), step - 1))
                kept.pop(key, None)
        self._chances = kept
        alive = set(self._history.slot)
        self._touch = {k: v for k, v in self._touch.items() if set(k) <= alive}
        self._motion = {k: v for k, v in self._motion.items() if k in alive}
        self._reported = {k: v for k, v in self._reported.items() if k[1] in alive}
        return events

    def _believable(self, key: tuple[EventKind, int, int], step: int) -> bool:
        """Whether an event is one that was seen, and can be by its own definition.

        All that take part were seen about the instant: where a hidden thing is is a guess, and what has fallen out of
        sight is still thought to be where it was seen last. Those that meet or part come near, and are apart before
        or after. What begins to move or comes to rest was moving for the tracker, too: a shape that is measured anew
        shifts the place of a thing that rests.
        """
        kind, history = key[0], self._history
        slots = [history.slot[who] for who in key[1:] if who]
        if (history.seen[history.rows_about(step, 2, 1)][:, slots].mean(axis=0) < _SEEN).any():
            return False
        if kind in PAIR_EVENTS:
            # At row 4 is the step that the peak of the chances is about.
            gaps = history.gap[history.rows_about(step, 5, 3), slots[0], slots[1]]
            apart = gaps[:5] if kind == EventKind.CONTACT else gaps[4:]
            return bool(gaps[3:7].min() < _MEETS_M and apart.max() > _PARTED_M)
        if kind in (EventKind.MOVE, EventKind.STOP):
            speeds = history.tracked_speed[history.rows_about(step, 3, 3), slots[0]]
            return bool(speeds.max() > MOVE_SPEED_M_S)
        return True

    def _allowed(self, key: tuple[EventKind, int, int], moment: float, probability: float) -> bool:
        """Whether an event fits what was reported before: contact and separation, motion and rest take turns.

        One that is clear is reported out of turn: then the other in between was missed.
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

    def _report(self, key: tuple[EventKind, int, int], moment: float, probability: float, step: int) -> Event:
        kind, a, b = key
        assert self._start_ns is not None
        event = self._event(kind, a, b, self._start_ns + round(moment * 1e9), probability)
        who = (a, b) if b else (a,)
        if kind == EventKind.CONTACT:
            for own, other in ((a, b), (b, a)):
                self._contacts.append((own, other, step))
                self._beliefs.setdefault(own, _Belief()).contacts += 1
        if kind in EFFECTS:
            motion = tuple(self._history.motion_at(w, step) for w in who)
            self._wonder(ObservedEvent(kind, who, moment, motion), event)
        return event

    # Causes

    def _wonder(self, new: ObservedEvent, event: Event) -> None:
        """Ask of the new event which contacts caused it, and of a new contact what it caused."""
        self._happened = [(h, i) for h, i in self._happened if h.time > new.time - REMEMBERED_S]
        self._happened.append((new, event.id))
        self._sure = {i: self._sure.get(i, event.probability) for _, i in self._happened}
        self._happened.sort(key=lambda item: item[0].time)
        happenings = [h for h, _ in self._happened]
        ids = [i for _, i in self._happened]
        me = ids.index(event.id)
        for cause, effect in cause_candidates([(h.kind, h.who, h.time) for h in happenings]):
            if me not in (cause, effect):
                continue
            pair = ids[cause], ids[effect]
            assert self._start_ns is not None
            self._causes[pair] = (0.0, self._start_ns + round(happenings[effect].time * 1e9))
            self._asked.append((*pair, cause_row(happenings, cause, effect)))

    def _caused(self, now: float) -> list[Relation]:
        assert self._start_ns is not None
        oldest = self._start_ns + round((now - _SHOWN_S) * 1e9)
        self._causes = {k: v for k, v in self._causes.items() if v[1] >= oldest}
        return [
            Relation(a, Predicate.CAUSED, b, probability, since)
            for (a, b), (probability, since) in sorted(self._causes.items())
            if probability >= CAUSED_THRESHOLD
        ]

    # Properties

    def _with_properties(self, scene: SceneGraph) -> SceneGraph:
        """Beliefs of things that have been seen long enough; the others keep their priors."""
        columns: dict[str, Any] = {
            name: np.array(getattr(scene, name))
            for name in (
                "log_mass", "log_mass_std", "friction", "friction_std", "restitution", "restitution_std",
            )
        }  # fmt: skip
        for row, who in enumerate(scene.ids.tolist()):
            prior = self._prior.get(who)
            if prior is None or scene.is_static[row]:
                continue
            belief = self._beliefs.get(who, _Belief())
            precision = prior[3:] + belief.precision
            mean = (prior[:3] * prior[3:] + belief.weighted) / precision
            std = self.scales / np.sqrt(precision)
            mean[0] += log_mass_prior(int(scene.shapes[row]), scene.extents[row])
            mean[1] = np.clip(mean[1], 0.02, 1.5)
            mean[2] = np.clip(mean[2], 0.0, 1.0)
            for n, name in enumerate(("log_mass", "friction", "restitution")):
                columns[name][row], columns[f"{name}_std"][row] = mean[n], std[n]
        return replace(scene, **columns)

    def contacts_of(self, who: int) -> int:
        """How many contacts of a thing have been seen."""
        return self._beliefs.get(who, _Belief()).contacts


def _rows(rows: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """(K, width), with one row of zeros where there is none: not every runtime takes empty tensors."""
    return np.stack(rows) if rows else np.zeros((1, width), np.float32)
