"""Bodies of futures that follow paths: poses at every step, and velocities in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wm_core.geometry import interpolate_pose
from wm_core.interventions import Intervention
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.rollout_tables import BodyTable, Doubles, PathTable


class FollowedPaths:
    """Bodies that follow paths in R futures of M bodies; their poses are interpolated once, at their first use.

    Args:
        steps: of the rollout; the table has two more, as the velocity in the last step is toward the pose after it.
    """

    def __init__(self, rows: int, slots: int, steps: int) -> None:
        self._rows, self._slots, self._steps = rows, slots, steps + 2
        self._paths: dict[int, tuple[Intervention, int, Doubles]] = {}
        self._table: PathTable | None = None

    def begin(self, n: int, path: Intervention, step: int, offset: ArrayLike) -> None:
        """Column n follows a path from a step on, instead of the one that it has followed.

        Args:
            offset: (3,) center of mass in the body frame [m]: a path moves the body's origin, the table the center.
        """
        self._paths[n] = (path, step, np.array(offset, dtype=np.float64))
        self._table = None

    def end(self, n: int) -> None:
        """Column n follows no path any more."""
        if self._paths.pop(n, None) is not None:
            self._table = None

    @property
    def table(self) -> PathTable:
        """Poses of all followers at all steps."""
        if self._table is None:
            self._table = self._interpolated()
        return self._table

    def set_velocities(self, step: int, bodies: BodyTable) -> None:
        """Velocities of the followers: those that bring them to their next poses."""
        table = self.table
        if not len(table.columns):
            return
        move = table.positions[:, step + 1] - table.positions[:, step]
        bodies.linear[:, table.columns] = move.T / STEP_S
        turns = table.turned >= 0
        if turns.any():
            quaternions = table.quaternions[table.turned[turns]]
            a, b = quaternions[:, step], quaternions[:, step + 1]
            b = b * np.where((a * b).sum(axis=1, keepdims=True) >= 0.0, 1.0, -1.0)
            vector = a[:, 3:] * b[:, :3] - b[:, 3:] * a[:, :3] - np.cross(b[:, :3], a[:, :3])
            bodies.angular[:, table.columns[turns]] = 2.0 * vector.T / STEP_S

    def set_poses(self, step: int, bodies: BodyTable) -> None:
        """Poses of the followers at the beginning of a step."""
        table = self.table
        if not len(table.columns):
            return
        bodies.position[:, table.columns] = table.positions[:, step].T
        turns = table.turned >= 0
        if turns.any():
            bodies.quaternion[:, table.columns[turns]] = table.quaternions[table.turned[turns], step].T

    def _interpolated(self) -> PathTable:
        """The paths without turns that share their times are interpolated together: a planner's do."""
        steps = self._steps
        columns = np.array(sorted(self._paths), dtype=np.int64)
        positions = np.zeros((len(columns), steps, 3), dtype=np.float32)
        turned = np.full(len(columns), -1, dtype=np.int64)
        quaternions: list[Doubles] = []
        groups: dict[tuple[int, bytes], list[int]] = {}
        for index, n in enumerate(columns.tolist()):
            path, since, _ = self._paths[n]
            q = path.path_quaternions
            if len(q) > 1 and np.abs(q - q[0]).max() > 1e-9:
                query = np.maximum(np.arange(steps) - since, 0) * STEP_S
                position, turn = interpolate_pose(path.path_times, path.path_positions, q, query)
                positions[index] = position
                turned[index] = len(quaternions)
                quaternions.append(turn)
            else:
                groups.setdefault((since, path.path_times.tobytes()), []).append(index)
        for (since, _), members in groups.items():
            paths = [self._paths[n][0] for n in columns[members].tolist()]
            times = paths[0].path_times
            places = np.stack([path.path_positions for path in paths])  # (F, M, 3)
            if len(times) == 1:
                positions[members] = places[:, :1]
                continue
            query = np.clip((np.arange(steps) - since) * STEP_S, times[0], times[-1])
            after = np.clip(np.searchsorted(times, query, side="right"), 1, len(times) - 1)
            weight = ((query - times[after - 1]) / (times[after] - times[after - 1]))[:, None]
            positions[members] = places[:, after - 1] * (1.0 - weight) + places[:, after] * weight
        for index, n in enumerate(columns.tolist()):
            path, _, offset = self._paths[n]
            if offset.any():
                turn = quaternions[turned[index]] if turned[index] >= 0 else path.path_quaternions[:1]
                positions[index] += quaternion_to_matrix(turn) @ offset
        return PathTable(
            begin=np.searchsorted(columns, np.arange(self._rows + 1) * self._slots).astype(np.int64),
            columns=columns,
            positions=positions,
            turned=turned,
            quaternions=np.stack(quaternions) if quaternions else np.zeros((0, steps, 4)),
        )
