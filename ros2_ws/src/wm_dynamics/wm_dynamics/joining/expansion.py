"""Futures of a joined scene as futures of the objects of the scene that was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_dynamics.base import DynamicsResult, RolloutCall, States
from wm_dynamics.joining.compound import JoinedScene
from wm_dynamics.joining.member_contacts import member_contacts

SOON_S = 1e-6
"""Time before an intervention that counts as its own [s]: rounding of times."""


class Expansion:
    """The way back from a joined scene.

    Args:
        scene: the joined scene.
        call: as it was asked, of the N objects of the scene.
        removed: of each of the K hypotheses the rows of members that are absent from a time on [s], though others of
            their compounds may be there.
    """

    def __init__(self, scene: JoinedScene, call: RolloutCall, removed: Sequence[Mapping[int, float]]) -> None:
        self._scene, self._call, self._removed = scene, call, removed
        created = len(call.object_ids) - len(scene.mean)
        self._columns = np.concatenate([scene.column, scene.count + np.arange(created)])

    def tell(self, k: int, states: States, present: NDArray[np.bool_]) -> None:
        """Pass states (S, T, M', 13) and presence (T, M') of a hypothesis on to the caller."""
        assert self._call.on_hypothesis is not None
        self._call.on_hypothesis(k, *self._future(k, states, present))

    def result(self, found: DynamicsResult) -> DynamicsResult:
        """The answer by the objects that were asked for."""
        states = self._states(found.states)
        present = found.present[..., self._columns]
        for k in range(len(present)):
            self._hold_removed(k, states[k], present[k])
        factual = {name: self._future(0, *own) for name, own in found.factual.items()}
        scatter = found.scatter[:, self._columns] if found.scatter.size else found.scatter
        result = replace(
            found,
            object_ids=self._call.object_ids,
            states=states,
            present=present,
            factual=factual,
            scatter=scatter,
        )
        return replace(result, contacts=member_contacts(self._scene, self._call, result))

    def _future(self, k: int, states: States, present: NDArray[np.bool_]) -> tuple[States, NDArray[np.bool_]]:
        expanded, exists = self._states(states), present[..., self._columns]
        self._hold_removed(k, expanded, exists)
        return expanded, exists

    def _states(self, states: States) -> States:
        """States (..., M, 13) of objects from those (..., M', 13) of the joined scene."""
        result: States = states[..., self._columns, :]
        for row, (compound, n) in self._scene.member_of.items():
            own = result[..., row, :].reshape(-1, result.shape[-1]).astype(np.float64)
            turn = Rotation.from_quat(own[:, QUATERNION])
            arm = turn.apply(compound.places[n])
            own[:, POSITION] += arm
            own[:, LINEAR_VELOCITY] += np.cross(own[:, ANGULAR_VELOCITY], arm)
            own[:, QUATERNION] = (turn * Rotation.from_quat(compound.turns[n])).as_quat()
            result[..., row, :] = own.reshape(result[..., row, :].shape)
        return result

    def _hold_removed(self, k: int, states: States, present: NDArray[np.bool_]) -> None:
        """Members that were removed are absent in states (S, T, M, 13) and presence (T, M), and keep their last (or
        first) pose; in place.
        """
        for row, time_s in self._removed[k].items():
            gone = np.flatnonzero(self._call.times >= time_s - SOON_S)
            if not len(gone):
                continue
            last = max(int(gone[0]) - 1, 0)
            present[gone, row] = False
            states[:, gone, row, :7] = states[:, last, row, :7][:, None].copy()
            states[:, gone, row, 7:] = 0.0
