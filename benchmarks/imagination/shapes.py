"""The bodies of futures as MuJoCo models, as they change over time, and the distances between their surfaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis, Intervention, InterventionKind, Property
from wm_core.rollout import POSITION, QUATERNION
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import targets
from wm_dynamics.belief import scene_body
from wm_dynamics.mujoco.bodies import BodyDef, body_from_spec, scaled_body
from wm_dynamics.mujoco.contacts import surface_distance
from wm_dynamics.mujoco.world import PARK_POSITION_M, World

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FAR_M = 0.05
"""Upper limit [m] of ``surface_distances``: MuJoCo's search is faster the smaller it is; events need ``APART_M``."""
_KEPT_WORLDS = 24
"""Compiled worlds that are kept; a case needs about a dozen, one for each set of shapes and masses."""


@dataclass(frozen=True)
class Stretch:
    """A part of a future in which the bodies do not change.

    Attributes:
        from_s: its first time [s]; bodies: in the order of the future's objects.
    """

    from_s: float
    bodies: tuple[BodyDef, ...]


def stretches(bodies: Sequence[BodyDef], actions: Iterable[tuple[int, Intervention]]) -> list[Stretch]:
    """Bodies from the start, and again after every change of shape or mass.

    Args:
        bodies: at the start, those that are created later included.
        actions: (index of a body, what is done to it).
    """
    now = list(bodies)
    found = [Stretch(0.0, tuple(now))]
    for m, do in sorted(actions, key=lambda item: item[1].time_offset):
        if do.kind == InterventionKind.MORPH:
            now[m] = scaled_body(now[m], do.scale)
        elif do.kind == InterventionKind.SET_PROPERTY and do.property == Property.MASS:
            now[m] = replace(now[m], mass=now[m].mass * do.value if do.value_is_factor else do.value)
        else:
            continue
        found.append(Stretch(do.time_offset, tuple(now)))
    return found


def created_bodies(hypothesis: Hypothesis) -> list[BodyDef]:
    """The bodies that a hypothesis brings in, in order."""
    return [body_from_spec(i.body) for i in hypothesis.interventions if i.creates_body and i.body is not None]


def scene_stretches(scene: SceneGraph, hypothesis: Hypothesis) -> list[Stretch]:
    """The bodies of a future of a scene as its graph describes them."""
    bodies = [scene_body(scene, i) for i in range(len(scene))]
    return stretches([*bodies, *created_bodies(hypothesis)], targets(scene, hypothesis))


class Worlds:
    """Compiled worlds by the shapes of their bodies."""

    def __init__(self) -> None:
        self._kept: dict[object, tuple[World, mujoco.MjData]] = {}

    def get(self, bodies: Sequence[BodyDef]) -> tuple[World, mujoco.MjData]:
        """A world of these bodies without a floor, and its MuJoCo data."""
        key = tuple((b.shape_key(), b.mass) for b in bodies)
        if key not in self._kept:
            if len(self._kept) >= _KEPT_WORLDS:
                self._kept.pop(next(iter(self._kept)))
            world = World(bodies, None, 0.004, touch_sensors=False)
            world.model.opt.enableflags = 0
            self._kept[key] = (world, mujoco.MjData(world.model))
        return self._kept[key]


def put(world: World, data: mujoco.MjData, states: Array, present: Mask) -> None:
    """Set the free bodies to states (M, 13) and compute the poses of their parts; absent ones are parked far away."""
    for i in np.flatnonzero(world.movable):
        q = int(world.qpos_address[i])
        if present[i]:
            data.qpos[q : q + 3] = states[i, POSITION]
            data.qpos[q + 3 : q + 7] = np.roll(states[i, QUATERNION], 1)
        else:
            data.qpos[q : q + 7] = [PARK_POSITION_M, 10.0 * i, 0.0, 1.0, 0.0, 0.0, 0.0]
    mujoco.mj_kinematics(world.model, data)


def rows_of(parts: Sequence[Stretch], times: Array) -> list[tuple[Stretch, NDArray[np.int64]]]:
    """Stretches with the rows of times (T,) [s] that fall into them."""
    ends = [*(p.from_s for p in parts[1:]), np.inf]
    return [
        (part, np.flatnonzero((times >= part.from_s - 1e-9) & (times < end - 1e-9)))
        for part, end in zip(parts, ends, strict=True)
    ]


def surface_distances(
    worlds: Worlds,
    parts: Sequence[Stretch],
    times: Array,
    states: Array,
    present: Mask,
    pairs: Iterable[tuple[int, int]],
) -> dict[tuple[int, int], Array]:
    """How far apart the surfaces of pairs of bodies are, (T,) [m] each; negative where they overlap.

    The shortest distance between their parts by MuJoCo, exact for the shapes as they are at each time, up to ``FAR_M``;
    NaN while one of the two is absent.

    Args:
        states: (T, M, 13); present: (T, M); pairs: of body indices.
    """
    found: dict[tuple[int, int], Array] = {pair: np.full(len(times), np.nan) for pair in pairs}
    for part, rows in rows_of(parts, times):
        world, data = worlds.get(part.bodies)
        model = world.model
        for t in rows if found else ():
            put(world, data, states[t], present[t])
            for (i, j), distance in found.items():
                if not (present[t, i] and present[t, j]):
                    continue
                distance[t] = surface_distance(model, data, world.geom_ids[i], world.geom_ids[j], FAR_M)
    return found
