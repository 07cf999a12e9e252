"""Perceived bodies that lie in one another, moved apart by the least change that explains it.

What two bodies overlap by is an error of their poses, so the positions are corrected as a measurement would correct
them: the sum of squared changes, each weighted by the inverse of its covariance, is the least with which no two bodies
overlap,

    minimize  sum_i d_i^T S_i^-1 d_i    subject to    n_c . (d_b - d_a) >= r_c  for every pair of convex parts,

with the distance between two parts and its direction n_c from MuJoCo's convex distance. The constraints are made linear
where the bodies are now, so they are made again after each solution (sequential convex programming). Each quadratic
program is solved in its dual, one constraint at a time: C. Hildreth, A quadratic programming procedure, Naval Research
Logistics Quarterly 4, 1957.

An overlap that is deeper than errors of the poses explain is none of poses: the shapes are wrong, or the two are parts
of one object. Moving them apart would put both where nothing was seen. Such a pair is left as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import POSITION
from wm_dynamics.mujoco.bodies import Array
from wm_dynamics.mujoco.penetration import OVERLAP_M
from wm_dynamics.mujoco.world import World

EXPLAINED_DEVIATIONS = 2.576
"""Standard deviations of the distance between two bodies up to which an overlap is an error of their poses: the 99 %
quantile of a normal error. Larger moves bodies far that are one, smaller leaves true neighbors in one another."""
MOST_M = 0.05
"""Overlap [m] that is never explained by poses, however uncertain they are, and farthest that a body is moved. Larger
lets a badly cut object move its neighbors across the table."""
NEAR_M = 0.02
"""Distance [m] up to which two bodies constrain one another: what is moved out of one must not be moved into the next.
Larger costs time, smaller needs more rounds."""
STEEP = 0.7
"""Vertical component of a contact's direction from which on (45 degrees) one body stands on the other."""
ROUNDS, ANCHORED_ROUNDS = 16, 10
"""Times that the constraints are made, and of those the ones that look for the least change from where all was
perceived. The rest begin from what was found, which only parts what still overlaps. More cost time."""
SWEEPS = 60
"""Times that all constraints of a round are gone through; a stack of six needs about 30."""
SETTLED = 1e-3
"""Part of the largest multiplier by which multipliers change when a round is solved."""


@dataclass(frozen=True)
class Overlap:
    """How two bodies lie to one another.

    Attributes:
        a, b: rows of the bodies, a < b.
        distance: between their surfaces [m], negative by the depth.
        normal: (3,) unit vector, the direction from a to b in which they part first.
    """

    a: int
    b: int
    distance: float
    normal: Array


def movable_pairs(fixed: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of rows a < b of which at least one is not fixed (n,)."""
    return [(a, b) for a, b in itertools.combinations(range(len(fixed)), 2) if not (fixed[a] and fixed[b])]


class PartPairs:
    """Pairs of the parts of bodies that collide, and how near they are.

    Args:
        world: of n bodies. data: scratch data of it.
        pairs: of rows of bodies, a < b.
    """

    def __init__(self, world: World, data: mujoco.MjData, pairs: Sequence[tuple[int, int]]) -> None:
        self._world, self._data = world, data
        solid = [
            [g for g, collides in zip(geoms, kept, strict=True) if collides]
            for geoms, kept in zip(world.geom_ids, world.collides, strict=True)
        ]
        rows = [(a, b, one, other) for a, b in pairs for one, other in itertools.product(solid[a], solid[b])]
        self._rows = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
        bounds = world.model.geom_rbound
        self._reach = bounds[self._rows[:, 2]] + bounds[self._rows[:, 3]]

    def near(self, states: Array, near_m: float) -> list[Overlap]:
        """The parts of bodies at states (n, 13) that are nearer than ``near_m`` [m], a row for each two parts."""
        world, data, model = self._world, self._data, self._world.model
        world.set_positions(data, states)
        mujoco.mj_kinematics(model, data)
        between = data.geom_xpos[self._rows[:, 2]] - data.geom_xpos[self._rows[:, 3]]
        close = np.linalg.norm(between, axis=1) < self._reach + near_m
        ends = np.zeros(6)
        found = []
        for a, b, one, other in self._rows[close].tolist():
            distance = mujoco.mj_geomDistance(model, data, one, other, near_m, ends)
            if distance >= near_m or distance == 0.0:
                continue
            normal = (ends[3:] - ends[:3]) / distance
            length = float(np.linalg.norm(normal))
            if length > 0.5:  # else they touch to rounding, and there is no direction
                found.append(Overlap(a, b, float(distance), normal / length))
        return found


def deepest(found: Sequence[Overlap]) -> dict[tuple[int, int], Overlap]:
    """The deepest (or nearest) two parts of each pair of bodies."""
    result: dict[tuple[int, int], Overlap] = {}
    for one in found:
        if (one.a, one.b) not in result or one.distance < result[one.a, one.b].distance:
            result[one.a, one.b] = one
    return result


class MinimumChange:
    """The least change of positions with which the bodies of a world do not overlap.

    Args:
        parts: the pairs of n bodies that may be moved apart.
        covariances: (n, 3, 3) of the positions [m^2]; zero: the body stays where it is.
        beside_gap_m: left between bodies that do not stand on one another [m].
        tolerance_m: depth down to which bodies are left in one another [m].
    """

    def __init__(
        self, parts: PartPairs, covariances: Array, beside_gap_m: float = 0.0, tolerance_m: float = OVERLAP_M
    ) -> None:
        self._covariances = covariances
        self._gap, self._tolerance = beside_gap_m, tolerance_m
        self._parts = parts

    def explained(self, found: Overlap) -> bool:
        """Whether errors of two bodies' poses explain how deep they lie in one another."""
        variance = float(found.normal @ (self._covariances[found.a] + self._covariances[found.b]) @ found.normal)
        return -found.distance <= min(MOST_M, EXPLAINED_DEVIATIONS * float(np.sqrt(max(variance, 0.0))))

    def unexplained(self, states: Array) -> list[tuple[int, int]]:
        """Pairs of bodies at states (n, 13) that lie in one another deeper than is explained by their poses."""
        found = deepest(self._parts.near(states, self._tolerance)).values()
        return [(o.a, o.b) for o in found if o.distance < -self._tolerance and not self.explained(o)]

    def apply(self, states: Array, ended: Callable[[], bool] = lambda: False) -> Array:
        """States (n, 13) with the least change of the positions; the very same where nothing overlaps.

        Args:
            ended: whether the time is over; what is returned then may still overlap.
        """
        near = self._parts.near(states, NEAR_M)
        left = {(o.a, o.b) for o in deepest(near).values() if o.distance < -self._tolerance and not self.explained(o)}
        near = [o for o in near if (o.a, o.b) not in left]
        if not any(self._violated(o) for o in near):
            return states
        begin, result = states, states
        for number in range(ROUNDS):
            if number >= ANCHORED_ROUNDS:
                begin = result
            change = result[:, POSITION] - begin[:, POSITION] + self._solved(near, result, begin)
            result = result.copy()
            result[:, POSITION] = begin[:, POSITION] + change
            moved = result[:, POSITION] - states[:, POSITION]
            length = np.linalg.norm(moved, axis=1)
            far = length > MOST_M
            result[far, POSITION] = states[far, POSITION] + moved[far] * (MOST_M / length[far])[:, None]
            near = [o for o in self._parts.near(result, NEAR_M) if (o.a, o.b) not in left]
            if ended() or not any(self._violated(o) for o in near):
                break
        return result

    def _target(self, found: Overlap) -> float:
        """Distance [m] that two parts are to have."""
        return self._gap if abs(found.normal[2]) <= STEEP else -0.5 * self._tolerance

    def _violated(self, found: Overlap) -> bool:
        limit = -self._tolerance if abs(found.normal[2]) > STEEP or self._gap == 0.0 else 0.0
        return found.distance < limit

    def _solved(self, near: Sequence[Overlap], now: Array, begin: Array) -> Array:
        """(n, 3) change of the positions from ``now`` to the solution of the quadratic program about ``begin`` [m]."""
        offset = now[:, POSITION] - begin[:, POSITION]
        count = len(near)
        a, b = np.array([o.a for o in near]), np.array([o.b for o in near])
        normal = np.array([o.normal for o in near]).reshape(count, 3)
        # n . (d_b - d_a) >= r, for changes d from ``begin``.
        wanted = np.array([self._target(o) - o.distance for o in near])
        wanted += np.einsum("ci,ci->c", normal, offset[b] - offset[a])
        at_a = np.einsum("cij,cj->ci", self._covariances[a], normal)
        at_b = np.einsum("cij,cj->ci", self._covariances[b], normal)
        stiff = np.einsum("ci,ci->c", normal, at_a + at_b)
        useful = stiff > 0.0
        change = np.zeros_like(offset)
        force: NDArray[np.float64] = np.zeros(count)
        rows = np.flatnonzero(useful).tolist()
        for _ in range(SWEEPS):
            largest = 0.0
            for c in rows:
                more = (wanted[c] - float(normal[c] @ (change[b[c]] - change[a[c]]))) / stiff[c]
                more = max(more, -force[c])
                if more != 0.0:
                    force[c] += more
                    change[a[c]] -= more * at_a[c]
                    change[b[c]] += more * at_b[c]
                    largest = max(largest, abs(more))
            if largest <= SETTLED * float(force.max(initial=0.0)):
                break
        return change - offset
