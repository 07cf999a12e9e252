"""Stretches of steps in one call of MuJoCo's native rollout."""

from __future__ import annotations

from collections.abc import Collection

import mujoco
import mujoco.rollout
import numpy as np

from wm_dynamics.mujoco.bodies import Array
from wm_dynamics.mujoco.sleeping import begin_asleep, still_asleep
from wm_dynamics.mujoco.world import World

_MOST_SCRATCH = 16
"""Worlds that MuJoCo's data are kept for: as many as the futures of a batch may have."""
_WARNING_NAMES = {
    int(w): name.removeprefix("mjWARN_") for name, w in mujoco.mjtWarning.__members__.items() if name != "mjNWARNING"
}
_QFRC = mujoco.mjtState.mjSTATE_QFRC_APPLIED.value


class NativeRollout:
    """MuJoCo's native rollout of one world; keeps MuJoCo's scratch data, so one per thread."""

    def __init__(self) -> None:
        self._rollout = mujoco.rollout.Rollout(nthread=0)
        self._data: dict[int, tuple[World, mujoco.MjData]] = {}

    def scratch(self, world: World) -> mujoco.MjData:
        """MuJoCo's data for models of a world; reset it before use."""
        key = id(world)
        if key not in self._data:
            if len(self._data) >= _MOST_SCRATCH:
                self._data.pop(next(iter(self._data)))
            self._data[key] = (world, mujoco.MjData(world.model))
        return self._data[key][1]

    def native(
        self,
        world: World,
        model: mujoco.MjModel,
        state: Array,
        steps: int,
        control: Array | None,
        asleep: Collection[int] = (),
    ) -> tuple[Array, Array, tuple[str, ...], frozenset[int]]:
        """States (steps, nstate) and sensor values (steps, pairs) of one stretch, the kinds of MuJoCo's warnings, and
        which of the bodies ``asleep`` sleep at its end.

        After a step with a warning, MuJoCo's rollout repeats the state.
        """
        out = np.empty((1, steps, len(state)))
        sensed = np.empty((1, steps, model.nsensordata))
        data = self.stretch(world, model, state[None].copy(), steps, control, out, sensed, asleep)
        return out[0], sensed[0], warning_kinds(data), still_asleep(world, data, asleep)

    def stretch(
        self,
        world: World,
        model: mujoco.MjModel,
        state: Array,
        steps: int,
        control: Array | None,
        out: Array,
        sensed: Array,
        asleep: Collection[int] = (),
    ) -> mujoco.MjData:
        """One stretch from a state (1, nstate), with forces (1, steps, nv) or none, written into ``out``
        (1, steps, nstate) and ``sensed`` (1, steps, pairs); returns MuJoCo's data at its end.

        Args:
            asleep: bodies that sleep at its start, whose velocities in the state become 0.
        """
        data = self.scratch(world)
        mujoco.mj_resetData(model, data)  # wakes everything, so that a stretch depends on nothing before it
        if asleep:
            begin_asleep(world, model, data, state[0], asleep)
        self._rollout.rollout(
            [model],
            [data],
            state,
            control,
            control_spec=_QFRC if control is not None else 0,
            skip_checks=True,
            nstep=steps,
            state=out,
            sensordata=sensed,
        )
        return data


def warning_kinds(data: mujoco.MjData) -> tuple[str, ...]:
    """Names of MuJoCo's warnings since its data were reset."""
    counts = data.warning.number
    return tuple(_WARNING_NAMES[int(i)] for i in np.flatnonzero(counts)) if counts.any() else ()
