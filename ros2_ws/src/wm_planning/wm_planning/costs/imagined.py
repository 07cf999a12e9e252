"""Imagined pushes, as the costs read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import QUATERNION
from wm_core.scene_graph import SceneGraph
from wm_planning.config import PushPlannerConfig
from wm_planning.futures import Futures
from wm_planning.outlines import Array
from wm_planning.paths import PushPaths
from wm_planning.table import Table


@dataclass(frozen=True)
class ImaginedPushes:
    """K pushes and their futures in S samples.

    Attributes:
        table: before the push. scene: what of it was imagined, N objects.
        paths: of the paddle. futures: states of objects and paddle.
        controls: (K, 7) speeds [m/s], turns [rad/s] at the knots, and sideways [m/s].
        carried: (K,) bool, whether the paddle is carried to where the push starts.
        config: settings of the planner.
    """

    table: Table
    scene: SceneGraph
    paths: PushPaths
    futures: Futures
    controls: Array
    carried: NDArray[np.bool_]
    config: PushPlannerConfig

    @cached_property
    def states(self) -> Array:
        """(K, S, T, N, 13) of the objects; zeros and no turn where nothing was computed, so that no NaN enters the
        costs (``total_costs`` makes those infinite).
        """
        states = self.futures.states[:, :, :, : len(self.scene)].astype(np.float64)
        states[~self.futures.done] = 0.0
        states[~self.futures.done, ..., 6] = 1.0
        return states

    @property
    def target(self) -> int:
        """Row of the target in ``scene``."""
        return self.scene.index(int(self.table.scene.ids[self.table.target]))

    @property
    def movable(self) -> list[int]:
        """Rows of ``scene`` of what is not static."""
        return np.flatnonzero(~self.scene.is_static).tolist()

    @property
    def others(self) -> list[int]:
        """Rows of ``scene`` of what is neither static nor the target."""
        return [i for i in self.movable if i != self.target]

    @cached_property
    def place(self) -> Array:
        """(K, S, T, 2) of the target [m]."""
        return self.states[:, :, :, self.target, :2]

    @cached_property
    def left(self) -> Array:
        """(K, S) what is left for the target at the end, way and turn [m]."""
        return self.table.left(self.place[:, :, -1], self.states[:, :, -1, self.target, QUATERNION])

    def rows_of_paths(self) -> NDArray[np.int64]:
        """(T,) rows of ``paths`` at the times of the states."""
        times = np.linspace(0.0, self.config.horizon_s, self.states.shape[2])
        return np.clip(np.searchsorted(self.paths.times, times - 1e-9), 0, len(self.paths.times) - 1)


Cost = Callable[[ImaginedPushes], Array]
"""(K, S) or (K,) [m]."""
