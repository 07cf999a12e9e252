"""Simulation of a world with interventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from wm_dynamics.mujoco.bodies import Array, BodyDef
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.native import NativeRollout
from wm_dynamics.mujoco.trajectory import Action, Trajectory
from wm_dynamics.mujoco.world import World


class Simulator(NativeRollout):
    """Runs worlds with interventions; keeps MuJoCo's scratch data, so one per thread."""

    def run(
        self,
        world: World,
        model: mujoco.MjModel,
        states: Array,
        actions: Sequence[Action],
        times: ArrayLike,
        *,
        absent: Sequence[int] = (),
        bodies: Sequence[BodyDef] | None = None,
        world_for: Callable[[Sequence[BodyDef]], World] | None = None,
    ) -> Trajectory:
        """Simulate a world from states (n, 13), with interventions, and report it at times (T,) [s].

        Static bodies start where their definition says, whatever ``states`` holds for them.

        One native call per interval between interventions, which are carried out at the nearest physics step, in the
        order given. States between steps are extrapolated from the last step at constant velocity.

        Args:
            model: the world's compiled model or a variant of it (``World.with_properties``); left unchanged.
            absent: bodies that do not exist until an ``ADD`` or ``FOLLOW_PATH`` brings them in.
            bodies: definitions with the properties of ``model``; None: those of the world.
            world_for: makes (or finds) the world of other bodies, for ``MORPH``; None: compiled on the spot.

        ``MORPH`` scales about the center, then lifts or lowers the body so that its lowest point keeps its height: what
        stood on a support still stands on it. Bodies that it then overlaps sideways are moved apart without speed; so
        are those that ``ADD`` and ``SET_POSE`` place something into.
        """
        live = LiveWorld(self, world, model, states, absent, bodies, world_for)
        return live.execute(actions, np.asarray(times, dtype=np.float64))
