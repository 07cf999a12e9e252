"""Push an object to a place on a table with a paddle, by imagining many pushes and choosing the best. Free of ROS.

The planner is a receding-horizon controller whose optimizer is the cross-entropy method (Rubinstein, "The cross-entropy
method for combinatorial and continuous optimization", 1999; for paths of robots: Kobilarov, "Cross-entropy motion
planning", IJRR 2012): draw K pushes from a normal distribution, imagine each, fit the distribution's mean and deviation
to the best ones (the elite), draw again. The best push is carried out, and the next is planned from what is perceived
then.

A push is a start of the paddle and a second of motion. The paddle may start where it is, or be lifted, carried over
the objects and let down at another side of the target: both are imagined, and the cost decides. The cost is in meters:
the way that is left for the target around what stands in between (Dijkstra's shortest path on a grid), plus a penalty
for each unwanted effect (``wm_planning.costs``, a file each; weights: ``PushCosts``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_planning.config import KNOTS, RAMP_S, PlanError, PushPlannerConfig
from wm_planning.costs.imagined import Cost, ImaginedPushes
from wm_planning.costs.total import PUSH_COSTS, total_costs
from wm_planning.futures import Imagine
from wm_planning.outlines import ANGLES, Array, gap, paddle_outline
from wm_planning.paths import PusherPath, PusherPose, PushPaths
from wm_planning.table import OwnPaddle, Table, make_table

_DOWN_M = 0.02
"""The paddle is down when its height differs from that of a push by less [m]: more than the error of its control."""
_BESIDE_M = 0.10
"""A push may start where the paddle is when it is closer to the target than this [m]; from farther away the push would
end before it moves the target by much."""
_START_GAP_M = 0.012
"""Distance from the target at which a push starts [m]: more than the error of the target's outline."""
_START_TURNS = np.radians([0, 12, -12, 25, -25, 40, -40, 60, -60, 90, -90, 130, -130, 180])
"""Directions of the starts around the target, from that of its way [rad]; closest together where most pushes start."""
_POSE_TURNS = np.radians(np.arange(16) * 22.5)
"""Directions of the starts where the target has to be turned as well [rad]: all around."""
_OFFSETS, _POSE_OFFSETS = (0.0, 0.25, -0.25), (0.0, 0.35, -0.35)
"""Starts beside the line through the target's center, in widths of the target; farther out turns it more."""
_LIFT_M = 0.03
"""Clearance at which the paddle is carried over objects [m]: more than the error of their heights."""


@dataclass(frozen=True)
class Plan:
    """The next piece of the paddle's path.

    Attributes:
        kind: ``push`` (go along ``path``), ``carry`` (``path`` leads over the objects to where the next push starts)
            or ``done`` (the target is there; ``path`` only lifts the paddle).
        path: from where the paddle is.
        push: the push that was imagined and chosen; after a ``carry`` it is what comes next. None when done.
        target_way: (T, 2) imagined places of the target [m] during ``push``.
        cost: of the choice [m]; costs: of all that were imagined in the last round.
        way_left_m: the target's way to the goal, around what stands in between, as it is now.
        turn_left_rad: the turn about the vertical that it lacks [rad]; 0 where the goal has no orientation.
        imagined: how many futures; seconds: planning time, wall clock.
    """

    kind: Literal["push", "carry", "done"]
    path: PusherPath
    push: PusherPath | None
    target_way: Array
    cost: float
    costs: Array
    way_left_m: float
    imagined: int
    seconds: float
    turn_left_rad: float = 0.0


@dataclass(frozen=True)
class _Start:
    """Where a push may start.

    Attributes:
        position: (3,) of the paddle's center [m]; yaw: of its face [rad].
        carried: whether the paddle has to be carried there.
        reach: distance to the target [m].
    """

    position: Array
    yaw: float
    carried: bool
    reach: float


class PushPlanner:
    """Plans the next piece of the paddle's path.

    Args:
        imagine: gives the futures of K paths, see ``Imagine``.
        config: settings.
        seed: of the draws; the same seed and the same answers give the same plans.
        costs: whose sum is the cost of a push.
    """

    def __init__(
        self,
        imagine: Imagine,
        config: PushPlannerConfig | None = None,
        seed: int = 0,
        costs: Sequence[Cost] = PUSH_COSTS,
    ) -> None:
        self.imagine, self.config, self.costs = imagine, config or PushPlannerConfig(), costs
        self._rng = np.random.default_rng(seed)
        self._next: Array | None = None
        self._own = OwnPaddle()

    def plan(
        self,
        scene: SceneGraph,
        target_id: int,
        goal: ArrayLike,
        pusher: PusherPose,
        goal_quaternion: ArrayLike | None = None,
    ) -> Plan:
        """The next piece of path.

        Args:
            scene: as perceived now, graph frame, z up; the paddle in it is ignored.
            target_id: which object to push.
            goal: (2,) where its center shall be [m], graph frame.
            pusher: where the paddle is now.
            goal_quaternion: (4,) xyzw that the target's axes shall have, of which the turn about the vertical counts;
                None: it may be turned in any way.

        Raises:
            PlanError: the target is not in the scene or is static, the goal is not on a support, or no number.
        """
        begin = time.perf_counter()
        config = self.config
        rest = self._own.without(scene, pusher, config.paddle, target_id)
        turned = None if goal_quaternion is None else np.asarray(goal_quaternion, dtype=np.float64)
        table = make_table(rest, target_id, np.asarray(goal, dtype=np.float64), config.tall_ratio, turned)
        left = float(table.way(table.place))
        turn = float(table.turn_left(table.scene.quaternions[table.target]))
        if float(np.linalg.norm(table.place - table.way.goal)) < config.done_m and abs(turn) < config.done_rad:
            path = self._lift(table, pusher)
            none = np.zeros((0, 2))
            return Plan("done", path, None, none, left, np.zeros(0), left, 0, time.perf_counter() - begin, turn)
        starts = self._starts(table, pusher)
        near = self._near(table)
        best: tuple[float, _Start, PusherPath, Array, Array] | None = None
        paths, chosen = self._first(table, starts)
        imagined, costs = 0, np.zeros(0)
        mean = deviation = np.zeros(0)
        keep = 0
        for number in range(config.rounds):
            if number:
                paths, chosen, drawn = self._drawn(starts, keep, mean, deviation)
            else:
                drawn = self._first_controls
            futures = self.imagine(near, config.body, paths, config.horizon_s, config.step_s)
            carried = np.array([starts[c].carried for c in chosen])
            costs = total_costs(ImaginedPushes(table, near, paths, futures, drawn, carried, config), self.costs)
            imagined += int(futures.done.sum())
            k = int(np.argmin(costs))
            if np.isfinite(costs[k]) and (best is None or costs[k] < best[0]):
                column = near.index(target_id)
                way = futures.states[k, :, :, column, :2].mean(axis=0).astype(np.float64)
                best = (float(costs[k]), starts[chosen[k]], paths.one(k), way, drawn[k])
            if best is not None and best[0] < config.enough_m:
                break
            if best is None:
                why = next((reason for reason in futures.reasons if reason), "none was computed in time")
                raise PlanError(f"imagine: got no future that is valid, expected at least one: {why}")
            if not np.isfinite(costs).any():
                break
            # The distribution of the start that did best; its elite only.
            keep = int(chosen[int(np.argmin(costs))]) if number == 0 else keep
            mine = np.flatnonzero((chosen == keep) & np.isfinite(costs))
            if not len(mine):
                break
            order = mine[np.argsort(costs[mine])][: config.elite]
            if number == 0 or len(order) < 4:
                mean, deviation = drawn[order[0]], self._spread()
            else:
                mean = drawn[order].mean(axis=0)
                deviation = np.maximum(drawn[order].std(axis=0), 0.1 * self._spread())
        assert best is not None
        cost, start, push, way, controls = best
        # Once the paddle has been carried to its start, planning begins with the push that was chosen for it.
        self._next = controls if start.carried else None
        seconds = time.perf_counter() - begin
        if start.carried:
            path = self._carry(table, pusher, push)
            return Plan("carry", path, push, way, cost, costs, left, imagined, seconds, turn)
        return Plan("push", push.until(config.execute_s), push, way, cost, costs, left, imagined, seconds, turn)

    def _near(self, table: Table) -> SceneGraph:
        """The scene without objects too far away to matter within the horizon."""
        away = np.linalg.norm(table.scene.positions[:, :2] - table.place, axis=1)
        keep = table.scene.is_static | (away < self.config.near_m)
        return table.scene.select(np.flatnonzero(keep))

    # -- where pushes start

    def _height(self, table: Table) -> float:
        return table.top + self.config.ground_gap_m + 0.5 * self.config.paddle[2]

    def _starts(self, table: Table, pusher: PusherPose) -> list[_Start]:
        """Where the paddle is, if it is down beside the target; then places around the target that are free."""
        config, z = self.config, self._height(table)
        starts: list[_Start] = []
        if abs(pusher.position[2] - z) < _DOWN_M:
            apart = float(
                gap(pusher.position[:2], paddle_outline(config, np.array(pusher.yaw)), table.place, table.own)
            )
            if apart < _BESIDE_M:
                starts.append(_Start(np.array([*pusher.position[:2], z]), pusher.yaw, False, max(apart, 0.0)))
        wanted = float(np.arctan2(*table.way.heading(table.place)[::-1]))
        width = float((table.own + np.roll(table.own, len(table.own) // 2)).mean())
        free: list[_Start] = []
        to_pose = table.goal_quaternion is not None
        for turn in _POSE_TURNS if to_pose else _START_TURNS:
            yaw = wanted + turn
            ahead = np.array([np.cos(yaw), np.sin(yaw)])
            side = np.array([-ahead[1], ahead[0]])
            back = float(np.interp((yaw + np.pi) % (2 * np.pi), [*ANGLES, 2 * np.pi], [*table.own, table.own[0]]))
            for share in _POSE_OFFSETS if to_pose else _OFFSETS:
                place = table.place - (back + 0.5 * config.paddle[0] + _START_GAP_M) * ahead + share * width * side
                if self._is_free(table, place, yaw):
                    free.append(_Start(np.array([*place, z]), yaw, True, _START_GAP_M))
        starts += free
        if not starts:
            raise PlanError("target_id: found no free place for the paddle beside it, expected one")
        return starts

    def _is_free(self, table: Table, place: Array, yaw: float, margin_m: float = 0.008) -> bool:
        own = paddle_outline(self.config, np.array(yaw))
        if float(gap(place, own, table.place, table.own)) < 0.004:
            return False
        centers = table.scene.positions[table.others, :2]
        return all(float(gap(place, own, c, o)) > margin_m for c, o in zip(centers, table.outlines, strict=True))

    # -- pushes: (v, v, v, turn, turn, turn, sideways) at the knots

    def _spread(self) -> Array:
        v, w = self.config.max_speed_m_s, self.config.max_turn_rad_s
        return np.array([*[0.20 * v] * KNOTS, *[0.35 * w] * KNOTS, 0.10 * v])

    def _limited(self, controls: Array) -> Array:
        v, w = self.config.max_speed_m_s, self.config.max_turn_rad_s
        limit = np.array([*[v] * KNOTS, *[w] * KNOTS, 0.4 * v])
        low = -limit
        low[:KNOTS] = -0.1 * v
        return np.clip(controls, low, limit)

    def paths(self, positions: Array, yaws: Array, controls: Array) -> PushPaths:
        """The K paths of controls (K, 7) from starts (K, 3) [m] and (K,) [rad]: at rest, along the knots, at rest.

        The paddle moves along its face's direction (and a little sideways) and turns, all piecewise linear in time.
        """
        knots = np.arange(KNOTS + 2) * RAMP_S
        end = knots[-1]
        times = np.arange(round(end / 0.05) + 1) * 0.05
        zero = np.zeros((len(controls), 1))

        def profile(values: Array) -> Array:
            padded = np.concatenate([zero, values, zero], axis=1)
            return np.stack([np.interp(times, knots, row) for row in padded])

        speed, turn = profile(controls[:, :KNOTS]), profile(controls[:, KNOTS : 2 * KNOTS])
        drift = profile(np.repeat(controls[:, 2 * KNOTS :], KNOTS, axis=1))

        def integral(rates: Array) -> Array:
            steps = 0.5 * (rates[:, 1:] + rates[:, :-1]) * np.diff(times)
            return np.concatenate([zero, np.cumsum(steps, axis=1)], axis=1)

        yaw = yaws[:, None] + integral(turn)
        cos, sin = np.cos(yaw), np.sin(yaw)
        x = positions[:, :1] + integral(speed * cos - drift * sin)
        y = positions[:, 1:2] + integral(speed * sin + drift * cos)
        z = np.repeat(positions[:, 2:], len(times), axis=1)
        hold = max(self.config.horizon_s, end + 0.05)
        times = np.append(times, hold)
        xyz = np.stack([x, y, z], axis=-1)
        return PushPaths(times, np.concatenate([xyz, xyz[:, -1:]], axis=1), np.concatenate([yaw, yaw[:, -1:]], axis=1))

    def _first(self, table: Table, starts: list[_Start]) -> tuple[PushPaths, NDArray[np.int64]]:
        """A straight push from every start, and the rest of the K pushes from where the paddle is."""
        config = self.config
        left = table.left_now
        to_pose = table.goal_quaternion is not None
        chosen, controls = [], []

        def straight(start: _Start, share: float = 1.0, turn: float = 0.0) -> Array:
            way = min(start.reach + share * left, config.max_speed_m_s * RAMP_S * KNOTS)
            speed = way / (RAMP_S * KNOTS)
            return np.array([*[speed] * KNOTS, *[turn] * KNOTS, 0.0])

        here = [s for s, start in enumerate(starts) if not start.carried]
        there = [s for s, start in enumerate(starts) if start.carried]
        room = config.rollouts - (config.rollouts // 2 if here else 0)
        for s in there[:room]:
            chosen.append(s)
            # How far a push has to go to turn the target is not known from what is left.
            controls.append(straight(starts[s], float(self._rng.uniform(0.2, 1.2)) if to_pose else 1.0))
        most = config.rollouts if here else room
        turns = np.linspace(-0.8, 0.8, 7) * config.max_turn_rad_s
        if here and self._next is not None:
            chosen.append(here[0])
            controls.append(self._next)
        while len(chosen) < most:
            n = len(chosen)
            if here and not (to_pose and there and n % 2):
                chosen.append(here[0])
                base = straight(starts[here[0]], float(self._rng.uniform(0.4, 1.3)), float(turns[n % len(turns)]))
                controls.append(base + 0.3 * self._spread() * self._rng.standard_normal(len(base)))
            else:
                s = there[int(self._rng.integers(len(there)))]
                chosen.append(s)
                base = straight(starts[s], float(self._rng.uniform(0.2 if to_pose else 0.5, 1.2)))
                controls.append(base + 0.7 * self._spread() * self._rng.standard_normal(len(base)))
        self._first_controls = self._limited(np.array(controls))
        index = np.array(chosen, dtype=np.int64)
        return self._from(starts, index, self._first_controls), index

    def _from(self, starts: list[_Start], chosen: NDArray[np.int64], controls: Array) -> PushPaths:
        positions = np.array([starts[s].position for s in chosen])
        return self.paths(positions, np.array([starts[s].yaw for s in chosen]), controls)

    def _drawn(
        self, starts: list[_Start], keep: int, mean: Array, deviation: Array
    ) -> tuple[PushPaths, NDArray[np.int64], Array]:
        """K draws at one start; the first is the mean itself."""
        draws = mean + deviation * self._rng.standard_normal((self.config.rollouts, len(mean)))
        draws[0] = mean
        draws = self._limited(draws)
        chosen = np.full(len(draws), keep, dtype=np.int64)
        return self._from(starts, chosen, draws), chosen, draws

    # -- over the objects

    def _over(self, table: Table) -> float:
        """Height of the paddle's center [m] at which it passes over everything."""
        tops = [table.top]
        for i in [*table.others.tolist(), table.target]:
            half = 0.5 * np.abs(quaternion_to_matrix(table.scene.quaternions[i])) @ table.scene.extents[i]
            tops.append(float(table.scene.positions[i, 2] + half[2]))
        return max(tops) + _LIFT_M + 0.5 * self.config.paddle[2]

    def _along(self, corners: list[Array], yaws: list[float]) -> PusherPath:
        """A path through corners at the speed of carrying, from rest to rest on each piece, turning on the way."""
        turns = np.unwrap(yaws)
        times, positions, turned = [0.0], [corners[0]], [float(turns[0])]
        for k in range(len(corners) - 1):
            length = max(float(np.linalg.norm(corners[k + 1] - corners[k])), 0.08 * abs(turns[k + 1] - turns[k]))
            if length < 1e-6:
                continue
            # The greatest slope of half a cosine is pi / 2 of its mean.
            seconds = 0.5 * np.pi * length / self.config.carry_speed_m_s
            for s in np.linspace(0.0, 1.0, 7)[1:]:
                share = 0.5 - 0.5 * np.cos(np.pi * s)
                times.append(times[-1] + seconds / 6.0)
                positions.append(corners[k] + share * (corners[k + 1] - corners[k]))
                turned.append(float(turns[k] + share * (turns[k + 1] - turns[k])))
        return PusherPath(np.array(times), np.array(positions), np.array(turned))

    def _retreat(self, table: Table, pusher: PusherPose) -> Array:
        """A little back from the target before the paddle is lifted, so that it does not drag it up; (3,) [m]."""
        for back in (0.015, 0.008):
            place = pusher.position - back * np.array([np.cos(pusher.yaw), np.sin(pusher.yaw), 0.0])
            if self._is_free(table, place[:2], pusher.yaw, 0.002):
                return place
        return pusher.position

    def _lift(self, table: Table, pusher: PusherPose) -> PusherPath:
        over, back = self._over(table), self._retreat(table, pusher)
        up = np.array([*back[:2], max(over, pusher.position[2])])
        return self._along([pusher.position, back, up], [pusher.yaw] * 3)

    def _carry(self, table: Table, pusher: PusherPose, push: PusherPath) -> PusherPath:
        there, yaw = push.positions[0], float(push.yaws[0])
        over = max(self._over(table), 0.0)
        down = abs(pusher.position[2] - self._height(table)) < _DOWN_M
        back = self._retreat(table, pusher) if down else pusher.position
        up = np.array([*back[:2], max(over, back[2])])
        above = np.array([*there[:2], up[2]])
        return self._along([pusher.position, back, up, above, there], [pusher.yaw, pusher.yaw, pusher.yaw, yaw, yaw])
