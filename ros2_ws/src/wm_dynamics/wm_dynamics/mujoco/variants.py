"""Compiled models that futures with the same edits share."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Sequence

import mujoco

from wm_dynamics.mujoco.bodies import BodyDef
from wm_dynamics.mujoco.world import World

_MOST = 1024
"""Models kept: some 40 kB each with ten bodies. More cost memory; fewer, and a request of many edits copies again."""


class ModelVariants:
    """Copies of compiled models by what was changed in them, made once; safe to use from several threads.

    A thousand pushes of the same body make the same edits, and copying a model takes longer than everything else in
    Python for a future. The models returned are shared: do not write to them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The first of a value is what its key names by identity: kept, so that the identity stays its own.
        self._models: dict[Hashable, tuple[object, mujoco.MjModel]] = {}

    def _keep(self, key: Hashable, source: object, model: mujoco.MjModel) -> mujoco.MjModel:
        with self._lock:
            if len(self._models) >= _MOST:
                self._models.clear()
            return self._models.setdefault(key, (source, model))[1]

    def edited(
        self, world: World, model: mujoco.MjModel, edit: str, index: int, *values: float | tuple[float, ...]
    ) -> mujoco.MjModel:
        """The model after a method of its world has been carried out on a copy: ``edit(copy, index, *values)``."""
        key = (id(model), edit, index, values)
        known = self._models.get(key)
        if known is not None:
            return known[1]
        changed = copy.copy(model)
        getattr(world, edit)(changed, index, *values)
        return self._keep(key, model, changed)

    def with_properties(self, world: World, bodies: Sequence[BodyDef]) -> mujoco.MjModel:
        """The world's model with the masses, frictions and restitutions of ``bodies``."""
        key = (id(world), tuple((b.mass, b.friction, b.restitution) for b in bodies))
        known = self._models.get(key)
        if known is not None:
            return known[1]
        return self._keep(key, world, world.with_properties(bodies))
