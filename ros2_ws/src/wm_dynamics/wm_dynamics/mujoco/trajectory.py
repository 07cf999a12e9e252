"""Input and output of a simulated world: actions; states, touches, warnings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Intervention
from wm_core.rollout import POSITION, QUATERNION
from wm_dynamics.mujoco.bodies import Array, rest_state
from wm_dynamics.mujoco.contacts import Touch


@dataclass(frozen=True)
class SolverWarning:
    """MuJoCo warned; from there to the next intervention the states are constant.

    Attributes:
        time_s: [s].
        kind: MuJoCo's name: ``BADQPOS``, ``BADQVEL``, ``BADQACC`` (not finite, or beyond 1e10), ``INERTIA``,
            ``CONTACTFULL``, ``CNSTRFULL``.
    """

    time_s: float
    kind: str


@dataclass(frozen=True)
class Trajectory:
    """The future of n bodies at T times.

    Attributes:
        states: (T, n, 13), layout of ``wm_core.rollout``.
        present: (T, n) bool.
        touches: in time order.
        stable: False: the solver diverged, and the last finite state was kept.
        warnings: of MuJoCo, also where the states stayed finite.
    """

    states: Array
    present: NDArray[np.bool_]
    touches: tuple[Touch, ...]
    stable: bool
    warnings: tuple[SolverWarning, ...] = ()


@dataclass(frozen=True)
class Action:
    """An intervention on a body of a world.

    Attributes:
        body: index of the body (instead of an object id).
        intervention: carried out at its ``time_offset``.
    """

    body: int
    intervention: Intervention


def hold_absent(states: Array, present: NDArray[np.bool_]) -> None:
    """Where a body is absent, give it the last pose before (or the first after) at zero velocity, in place.

    Args:
        states: (T, n, 13); present: (T, n).
    """
    for i in np.flatnonzero(~present.all(axis=0)):
        here = np.flatnonzero(present[:, i])
        for t in np.flatnonzero(~present[:, i]):
            if not len(here):
                states[t, i] = rest_state(np.zeros(3))
                continue
            before = here[here < t]
            source = before[-1] if len(before) else here[0]
            states[t, i] = rest_state(states[source, i, POSITION], states[source, i, QUATERNION])
