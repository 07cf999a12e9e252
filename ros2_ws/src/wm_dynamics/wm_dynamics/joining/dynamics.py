"""Dynamics in whose futures objects that are parts of one body are held together."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import replace

from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Dynamics, DynamicsResult, RolloutCall
from wm_dynamics.joining.compound import JoinedScene
from wm_dynamics.joining.evidence import attached_rows, touching_since_seen
from wm_dynamics.joining.expansion import Expansion
from wm_dynamics.joining.translation import joined_hypothesis
from wm_dynamics.scene_key import scene_key

log = logging.getLogger(__name__)

KEPT_SCENES = 8
"""Scenes of which it is kept what is one body in them, because planners send many requests about one scene."""


class JoiningDynamics(Dynamics):
    """A backend that gets a scene in which parts of one body are one object (``evidence``), and interventions on that;
    its answer comes back by the objects of the scene that was given. Contacts within a body are none.
    """

    def respond(self, call: RolloutCall) -> DynamicsResult:
        """See ``wm_dynamics.base.Dynamics.respond``."""
        joined = _KNOWN.of(call.scenes[0])
        if joined is None:
            return self.answer(call)
        translated = [joined_hypothesis(joined, h) for h in call.hypotheses]
        expansion = Expansion(joined, call, [h.removed for h in translated])
        inner = replace(
            call,
            scenes=[joined.joined(scene) for scene in call.scenes],
            hypotheses=[h.hypothesis for h in translated],
            on_hypothesis=None if call.on_hypothesis is None else expansion.tell,
        )
        return expansion.result(self.answer(inner))

    def joined(self, mean: SceneGraph) -> tuple[tuple[int, ...], ...]:
        """See ``wm_dynamics.base.Dynamics.joined``."""
        known = _KNOWN.of(mean)
        return () if known is None else tuple(tuple(int(mean.ids[i]) for i in c.rows) for c in known.compounds)


class _KnownScenes:
    """What is one body in the last few scenes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], JoinedScene | None] = OrderedDict()

    def of(self, mean: SceneGraph) -> JoinedScene | None:
        """The scene with what is one body as one object; None: there is no body of several objects."""
        pairs = touching_since_seen(mean)
        if not pairs:
            return None
        key = (frozenset(pairs), mean.world_T_camera.tobytes(), *scene_key(mean))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        groups = attached_rows(mean, pairs)
        found = JoinedScene(mean, groups) if groups else None
        for rows in groups:
            log.info("dynamics: objects %s are parts of one body", ", ".join(str(mean.ids[i]) for i in rows))
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > KEPT_SCENES:
                self._kept.popitem(last=False)
        return found


_KNOWN = _KnownScenes()
