"""Poses and paths of a paddle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_planning.outlines import Array


@dataclass(frozen=True)
class PusherPose:
    """A pose of the paddle in the graph frame.

    Attributes:
        position: (3,) of its center [m].
        yaw: direction that its face points in [rad].
    """

    position: Array
    yaw: float

    @property
    def quaternion(self) -> Array:
        """(4,) x, y, z, w."""
        return np.array([0.0, 0.0, np.sin(0.5 * self.yaw), np.cos(0.5 * self.yaw)])


@dataclass(frozen=True)
class PusherPath:
    """A path of the paddle's center.

    Attributes:
        times: (M,) ascending from 0 [s].
        positions: (M, 3) [m].
        yaws: (M,) [rad].
    """

    times: Array
    positions: Array
    yaws: Array

    @property
    def quaternions(self) -> Array:
        """(M, 4) x, y, z, w."""
        zero = np.zeros_like(self.yaws)
        return np.stack([zero, zero, np.sin(0.5 * self.yaws), np.cos(0.5 * self.yaws)], axis=1)

    @property
    def duration_s(self) -> float:
        """Duration of the whole path [s]."""
        return float(self.times[-1])

    @property
    def end(self) -> PusherPose:
        """The last pose."""
        return PusherPose(self.positions[-1], float(self.yaws[-1]))

    def at(self, time_s: float) -> PusherPose:
        """The pose at a time [s], held at both ends."""
        position = np.array([np.interp(time_s, self.times, column) for column in self.positions.T])
        return PusherPose(position, float(np.interp(time_s, self.times, np.unwrap(self.yaws))))

    def until(self, time_s: float) -> PusherPath:
        """The part up to a time [s]."""
        if time_s >= self.duration_s:
            return self
        rows, end = self.times < time_s - 1e-9, self.at(time_s)
        return PusherPath(
            np.append(self.times[rows], time_s),
            np.concatenate([self.positions[rows], end.position[None]]),
            np.append(np.unwrap(self.yaws)[rows], end.yaw),
        )


@dataclass(frozen=True)
class PushPaths:
    """K paths over common times.

    Attributes:
        times: (M,) ascending from 0 [s].
        positions: (K, M, 3) [m].
        yaws: (K, M) [rad].
    """

    times: Array
    positions: Array
    yaws: Array

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def quaternions(self) -> Array:
        """(K, M, 4) x, y, z, w."""
        zero = np.zeros_like(self.yaws)
        return np.stack([zero, zero, np.sin(0.5 * self.yaws), np.cos(0.5 * self.yaws)], axis=-1)

    def one(self, k: int) -> PusherPath:
        """One of them."""
        return PusherPath(self.times, self.positions[k], self.yaws[k])
