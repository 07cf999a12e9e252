"""Contacts of bodies of several objects, by the objects that touch."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

import mujoco
import numpy as np

from wm_core.interventions import Hypothesis
from wm_dynamics.base import Array, Contact, DynamicsResult, RolloutCall
from wm_dynamics.belief import hypothesis_bodies, scene_body
from wm_dynamics.joining.compound import JoinedScene
from wm_dynamics.mujoco.world import World

ALIKE_M = 0.001
"""Members that are as near as the nearest, within this, touch as well [m]: a pan and its handle that lie on a table.
Larger takes what only passes by for a contact; smaller misses the second, by rounding."""
FARTHEST_M = 10.0
"""Distance beyond which it does not matter how far members are [m]."""


def member_contacts(scene: JoinedScene, call: RolloutCall, result: DynamicsResult) -> tuple[Contact, ...]:
    """The contacts of a result, those of a compound given to its members that are nearest to what it touches then.

    Args:
        result: its contacts are those of the joined scene, everything else is by object.
    """
    members = {c.object_id: [int(scene.mean.ids[row]) for row in c.rows] for c in scene.compounds}
    if not any(c.a in members or c.b in members for c in result.contacts):
        return result.contacts
    distances = _Distances(scene, call, result)
    touching: dict[Hashable, list[tuple[int, int]]] = {}
    found: list[Contact] = []
    for c in result.contacts:
        if c.a not in members and c.b not in members:
            found.append(c)
            continue
        key = (c.hypothesis, c.sample, c.a, c.b)
        pairs = touching.pop(key, None)
        if c.began or pairs is None:
            choice = list(itertools.product(members.get(c.a, [c.a]), members.get(c.b, [c.b])))
            pairs = distances.nearest(c, choice)
        if c.began:
            touching[key] = pairs
        found += [Contact(c.hypothesis, c.sample, c.time_s, min(p), max(p), c.began) for p in pairs]
    return tuple(found)


class _Distances:
    """Distances of objects in the futures of a result."""

    def __init__(self, scene: JoinedScene, call: RolloutCall, result: DynamicsResult) -> None:
        self._mean, self._call, self._result = scene.mean, call, result
        self._known = [scene_body(scene.mean, i) for i in range(len(scene.mean))]
        self._row = {int(object_id): m for m, object_id in enumerate(result.object_ids)}
        self._worlds: dict[Hashable, tuple[World, mujoco.MjData]] = {}

    def nearest(self, contact: Contact, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those of pairs of ids that are nearest when a contact begins or ends, and those as near as they are."""
        k, result = contact.hypothesis, self._result
        t = int(np.argmin(np.abs(self._call.times - contact.time_s)))
        there = [p for p in pairs if all(result.present[k, t, self._row[i]] for i in p)] or pairs
        if len(there) == 1:
            return there
        world, data = self._world(self._call.hypotheses[k])
        states: Array = result.states[k, contact.sample, t, : len(world.bodies)].astype(np.float64)
        world.set_positions(data, states)
        mujoco.mj_kinematics(world.model, data)
        apart = [self._distance(world, data, self._row[a], self._row[b]) for a, b in there]
        limit = max(min(apart), 0.0) + ALIKE_M
        return [p for p, d in zip(there, apart, strict=True) if d <= limit]

    def _world(self, hypothesis: Hypothesis) -> tuple[World, mujoco.MjData]:
        bodies = hypothesis_bodies(self._mean, hypothesis, self._known)
        key = tuple(b.shape_key() for b in bodies[len(self._known) :])
        if key not in self._worlds:
            world = World(bodies, None, 0.004, touch_sensors=False)
            self._worlds[key] = (world, mujoco.MjData(world.model))
        return self._worlds[key]

    @staticmethod
    def _distance(world: World, data: mujoco.MjData, a: int, b: int) -> float:
        pairs = itertools.product(world.geom_ids[a], world.geom_ids[b])
        return min(mujoco.mj_geomDistance(world.model, data, g, h, FARTHEST_M, None) for g, h in pairs)
