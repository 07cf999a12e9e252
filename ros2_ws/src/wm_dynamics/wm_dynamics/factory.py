"""Dynamics backends by name."""

from __future__ import annotations

import logging

import mujoco

from wm_dynamics.base import Dynamics
from wm_dynamics.kinematic import KinematicDynamics

log = logging.getLogger(__name__)


def make_dynamics(name: str = "auto", learned: Dynamics | None = None, **options: object) -> Dynamics:
    """The dynamics backend ``auto``, ``learned``, ``physics``, ``straight`` or ``still``; options go to the backend.

    ``auto`` is the learned backend (``learned``, or one made here) with physics for the futures that it is unsure of;
    physics alone where the model does not load (the reason is logged).

    Raises:
        ValueError: unknown name.
        InferenceError: ``learned`` was asked for and its model does not load.
    """
    if name in ("", "auto"):
        from wm_core.inference.base import InferenceError
        from wm_dynamics.auto import AutomaticDynamics
        from wm_dynamics.learned.backend import LearnedDynamics
        from wm_dynamics.physics.backend import PhysicsDynamics

        floor = {k: v for k, v in options.items() if k in ("floor_z", "threads")}
        physics = PhysicsDynamics(**floor)  # type: ignore[arg-type]
        try:
            own = learned if isinstance(learned, LearnedDynamics) else LearnedDynamics(**options)  # type: ignore[arg-type]
            return AutomaticDynamics(own, physics)
        except (InferenceError, ImportError) as error:
            log.warning("dynamics: auto takes physics (MuJoCo %s), because %s", mujoco.__version__, error)
            return physics
    if name == "learned":
        from wm_dynamics.learned.backend import LearnedDynamics

        return LearnedDynamics(**options)  # type: ignore[arg-type]
    if name == "physics":
        from wm_dynamics.physics.backend import PhysicsDynamics

        return PhysicsDynamics(**options)  # type: ignore[arg-type]
    if name in ("straight", "still"):
        return KinematicDynamics(name)
    raise ValueError(f"backend: got {name!r}, expected auto, learned, physics, straight or still")
