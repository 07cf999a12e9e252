"""Compiled worlds, models and starts that the futures of one request to the ``physics`` backend share."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_core.rollout import STATE_SIZE
from wm_core.scene_graph import SceneGraph
from wm_dynamics.belief import hypothesis_bodies
from wm_dynamics.mujoco.batch import BatchSimulator
from wm_dynamics.mujoco.bodies import BodyDef, rest_state
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.simulator import Simulator
from wm_dynamics.mujoco.trajectory import Action, Trajectory
from wm_dynamics.mujoco.variants import ModelVariants
from wm_dynamics.mujoco.world import World
from wm_dynamics.settling.preparation import FREEING_KINDS, ScenePreparation

Array = NDArray[np.float64]

_MOST_WORLDS = 32
"""Worlds kept: those of some requests. More cost memory; fewer, and scenes in turn are compiled again."""


class WorldCache:
    """Compiled worlds of the last requests; compiling one takes about as long as half a second of its physics.

    Planners send many requests about the same scene.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worlds: dict[Hashable, World] = {}

    def get(
        self,
        bodies: Sequence[BodyDef],
        floor_z: float | None,
        timestep: float,
        passing: Sequence[tuple[int, int]] = (),
    ) -> World:
        """The world of these bodies, compiled now or before; it is shared and must not be changed.

        Args:
            passing: as of ``World``.
        """
        # Masses and the like are part of the key although they can be changed in a copy: changing them rounds.
        key = (
            tuple((b.shape_key(), b.mass, b.friction, b.restitution) for b in bodies),
            floor_z,
            timestep,
            tuple(passing),
        )
        with self._lock:
            world = self._worlds.pop(key, None)
            if world is None:
                world = World(bodies, floor_z, timestep, passing=passing)
                if len(self._worlds) >= _MOST_WORLDS:
                    del self._worlds[next(iter(self._worlds))]
            self._worlds[key] = world  # the last in the order is the last one used
            return world


class PhysicsJob:
    """Worlds by geometry, models by geometry, properties and edits, and starts by sample, of one request.

    Args:
        preparation: of the mean sample.
        scenes: S belief samples.
        starts: S start states (N, 13).
        times: (T,) [s].
        hypotheses: K.
        worlds: cache of compiled worlds.

    Attributes:
        bodies: S times N definitions, with the properties of each sample; the others as given.
    """

    def __init__(
        self,
        preparation: ScenePreparation,
        scenes: Sequence[SceneGraph],
        starts: Sequence[Array],
        times: Array,
        hypotheses: Sequence[Hypothesis],
        worlds: WorldCache,
    ) -> None:
        self.preparation, self.scenes, self.starts, self.times = preparation, scenes, starts, times
        self.hypotheses = hypotheses
        self._rows = {int(object_id): row for row, object_id in enumerate(scenes[0].ids)}
        self.bodies = [preparation.sample_bodies(scene) for scene in scenes]
        self._cache = worlds
        self._created: dict[Hashable, tuple[BodyDef, ...]] = {}
        self._created_by: dict[int, tuple[BodyDef, ...]] = {}
        for hypothesis in hypotheses:
            created = hypothesis_bodies(scenes[0], hypothesis, ())
            self._created_by[id(hypothesis)] = created
            self._created.setdefault(self._key(created), created)
        self._variants = ModelVariants()
        self._lock = threading.Lock()
        self._worlds: dict[Hashable, World] = {self._key(preparation.bodies): preparation.world}
        self._lives: dict[Hashable, LiveWorld] = {}
        self._stopped = threading.Event()
        self._resting = preparation.seen_at_rest(np.asarray(starts).reshape(len(scenes), -1, STATE_SIZE))
        self._carried = preparation.carried()

    def stop(self) -> None:
        """Let workers give up their batch at the next native call."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the live worlds, which refer to this job; no worker may be at it any more."""
        with self._lock:
            self._lives.clear()

    @staticmethod
    def _key(bodies: Sequence[BodyDef]) -> tuple[Hashable, ...]:
        return tuple(b.shape_key() for b in bodies)

    def _row(self, object_id: int) -> int:
        row = self._rows.get(object_id)
        return self.scenes[0].index(object_id) if row is None else row  # which says what ids there are

    def world(self, bodies: Sequence[BodyDef]) -> World:
        """The compiled world of these geometries; masses, frictions and restitutions may be others'."""
        key = self._key(bodies)
        with self._lock:
            if key not in self._worlds:
                if len(self._worlds) >= 64:  # a request of many different shapes need not keep them all
                    self._worlds.pop(list(self._worlds)[1])
                first = [*self.preparation.bodies, *self._created.get(key[len(self.preparation.bodies) :], ())]
                # The world must not depend on which future comes first: changing a mass rounds.
                bodies = [
                    replace(b, mass=f.mass, friction=f.friction, restitution=f.restitution)
                    for b, f in zip(bodies, [*first, *bodies[len(first) :]], strict=True)
                ]
                self._worlds[key] = self._cache.get(
                    bodies, self.preparation.floor_z, self.preparation.world.timestep, self.preparation.passing
                )
            return self._worlds[key]

    def _live(self, bodies: Sequence[BodyDef], sample: int, simulator: Simulator) -> LiveWorld:
        """A live world at the start of a sample, with bodies beyond the scene's that do not exist yet."""
        properties = tuple((b.mass, b.friction, b.restitution) for b in bodies)
        key = (self._key(bodies), properties, sample)
        with self._lock:
            start = self._lives.get(key)
        if start is None:
            world = self.world(bodies)
            known = len(self.starts[sample])
            created = np.tile(rest_state(np.zeros(3)), (len(bodies) - known, 1))
            start = LiveWorld(
                simulator,
                world,
                self._variants.with_properties(world, bodies),
                np.concatenate([self.starts[sample], created]),
                range(known, len(bodies)),
                bodies,
                self.world,
                self._variants,
            )
            start.asleep = frozenset(i for i in np.flatnonzero(self._resting[sample]) if not bodies[i].is_static)
            start.carried = self._carried
            with self._lock:
                if len(self._lives) >= 256:
                    self._lives.clear()
                self._lives[key] = start
        live = start.branch()
        live.simulator = simulator
        return live

    def run(self, batch: BatchSimulator, wanted: Sequence[tuple[Hypothesis, int]]) -> list[Trajectory] | None:
        """Trajectories of some of the job's hypotheses from samples; None when it has been stopped meanwhile."""
        futures = []
        for hypothesis, sample in wanted:
            created = itertools.count(len(self._rows))
            aims = [
                (next(created) if do.creates_body else self._row(do.object_id), do) for do in hypothesis.interventions
            ]
            moved = [body for body, do in aims if do.kind in FREEING_KINDS]
            bodies = (*self.bodies[sample], *self._created_by[id(hypothesis)])
            live = self._live(self.preparation.freed(bodies, moved), sample, batch.simulator)
            futures.append((live, [Action(body, do) for body, do in aims]))
        return batch.run(futures, self.times, self._stopped.is_set)
