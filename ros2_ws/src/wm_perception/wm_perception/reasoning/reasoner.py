"""Relations, events, properties and causes among the objects: the reasoner on the robot.

It keeps the last seconds of scene graphs on an even time grid. A trained network classifies each instant ``AHEAD``
steps (0.2 s) later, when the motion after it is known; events have the stamp of that instant. Without a network,
relations and contacts come from geometry alone, properties stay at their priors, and no causes are reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import Event, EventKind, SceneGraph
from wm_perception.reasoning.beliefs import PropertyBeliefs
from wm_perception.reasoning.cause_memory import CauseMemory
from wm_perception.reasoning.causes import ObservedEvent
from wm_perception.reasoning.event_detector import DetectedEvent, EventDetector
from wm_perception.reasoning.events import LEAST_LIFE_S
from wm_perception.reasoning.evidence import contact_row, shape_row, step_row
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
)
from wm_perception.reasoning.history import MotionHistory
from wm_perception.reasoning.relations import RelationGraph
from wm_perception.reasoning.sightings import Sighting, update_sightings
from wm_perception.reasoning.steps import Step, between, step_of
from wm_perception.types import PerceptionConfig

log = logging.getLogger(__name__)

Network = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]
"""From the input tensors to the output tensors that training/reasoner/model.py states, by name."""

_GAP_S = 0.5
"""Time [s] without a scene graph after which motion starts anew; properties and causes are kept. Chosen by hand; larger
means that motion is interpolated over longer gaps."""
_OWN = frozenset((*PAIR_EVENTS, *OBJECT_EVENTS))


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
        self.scales = tuple(scales)
        self._event_id = 0
        if network is None:
            log.info("no trained reasoner: relations and contacts from geometry, properties stay at their priors")
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; event ids go on."""
        self.relations = RelationGraph(self.config)
        self.beliefs = PropertyBeliefs(self.scales)
        self._causes = CauseMemory()
        self._sightings: dict[int, Sighting] = {}
        self._start_ns: int | None = None
        self._forget_motion()

    def _forget_motion(self) -> None:
        self._history = MotionHistory()
        self._detector = EventDetector(self._history)
        self._before: Step | None = None
        self._grid = 0
        self._contacts: list[tuple[int, int, int]] = []

    def update(self, scene: SceneGraph, tracked: Sequence[Event] = ()) -> SceneGraph:
        """The scene with relations, events, properties and causes.

        Args:
            scene: without them, later than the one before.
            tracked: events of the tracker in this frame. Appearance and disappearance are reported as they are, motion
                only where there is no network.
        """
        events: list[Event] = []

        def emit(kind: EventKind, a: int, b: int = 0, probability: float = 1.0) -> None:
            events.append(self._event(kind, a, b, scene.stamp_ns, probability))

        for e in tracked:
            if self.network is not None and e.kind in _OWN:
                continue
            # The tracker reports both events some frames late.
            stamp = e.stamp_ns
            if e.kind == EventKind.ENTER and e.a in scene.ids:
                stamp = int(scene.first_seen_ns[scene.index(e.a)])
            elif e.kind == EventKind.LEAVE and (seen := self._sightings.get(e.a)) is not None:
                if seen.seen_for_s < LEAST_LIFE_S:
                    continue
                stamp = seen.left_ns
            events.append(self._event(e.kind, e.a, e.b, stamp, e.probability))
        self._sightings = update_sightings(scene, self._sightings)
        relations = self.relations.update(scene, emit if self.network is None else None)
        if self.network is None:
            return replace(scene, relations=relations, events=tuple(events))
        if self._start_ns is None:
            self._start_ns = scene.stamp_ns
        now = (scene.stamp_ns - self._start_ns) * 1e-9
        step = step_of(scene, now)
        if self._before is not None and now - self._before.time > _GAP_S:
            self._forget_motion()
        if self._before is None:
            self._grid = round(np.ceil(now / STEP_S - 0.02))
        while self._grid * STEP_S <= now + 0.003:
            time = self._grid * STEP_S
            self._history.push(step if self._before is None else between(self._before, step, time))
            self._grid += 1
            events += self._judge(self.network, time, self._start_ns)
        self._before = step
        causes = self._causes.relations(self._start_ns, now)
        return replace(self.beliefs.apply(scene), relations=(*relations, *causes), events=tuple(events))

    def _event(self, kind: EventKind, a: int, b: int, stamp_ns: int, probability: float) -> Event:
        self._event_id += 1
        return Event(self._event_id, kind, a, b, stamp_ns, probability)

    def _judge(self, network: Network, time: float, start_ns: int) -> list[Event]:
        """Run the network on the window that ends with the last step; returns the events that it finds."""
        history = self._history
        last = history.count - 1
        if last < WINDOW - 1:
            return []
        ids, objects, pairs = history.window(last)
        steps = [(int(i), row) for i in ids if (row := step_row(history, int(i), last - STEP_LAG)) is not None]
        contacts: list[tuple[int, NDArray[np.float32]]] = []
        for own, other, step in [c for c in self._contacts if c[2] + CONTACT_LAG <= last]:
            if (row := contact_row(history, own, other, step)) is not None:
                contacts.append((own, row))
        self._contacts = [c for c in self._contacts if c[2] + CONTACT_LAG > last]
        causes = self._causes.next_rows()
        if not len(ids):
            return []
        found = network(
            {
                "objects": objects,
                "pairs": pairs,
                "shapes": np.stack([shape_row(*history.shape[int(i)]) for i in ids]),
                "contacts": _rows([r for _, r in contacts], len(CONTACT_FEATURES)),
                "steps": _rows([r for _, r in steps], len(STEP_FEATURES)),
                "causes": _rows([r for _, _, r in causes], len(CAUSE_FEATURES)),
            }
        )
        for rows, name in ((contacts, "contact_evidence"), (steps, "step_evidence")):
            for (who, _), said in zip(rows, found[name], strict=False):
                self.beliefs.add_evidence(who, said)
        self._causes.answer(causes, found["cause"])
        for who, prior in zip(ids, found["prior"], strict=True):
            self.beliefs.set_prior(int(who), prior)
        step = last - AHEAD
        detected = self._detector.detect(ids, found["pair_probabilities"], found["object_probabilities"], step, time)
        return [self._report(d, step - 1, start_ns) for d in detected]

    def _report(self, detected: DetectedEvent, step: int, start_ns: int) -> Event:
        kind, a, b = detected.key
        event = self._event(kind, a, b, start_ns + round(detected.time * 1e9), detected.probability)
        who = (a, b) if b else (a,)
        if kind == EventKind.CONTACT:
            for own, other in ((a, b), (b, a)):
                self._contacts.append((own, other, step))
                self.beliefs.count_contact(own)
        if kind in EFFECTS:
            motion = tuple(self._history.motion_at(w, step) for w in who)
            self._causes.add(ObservedEvent(kind, who, detected.time, motion), event, start_ns)
        return event


def _rows(rows: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """(K, width), with one row of zeros where there is none: not every runtime takes empty tensors."""
    return np.stack(rows) if rows else np.zeros((1, width), np.float32)
