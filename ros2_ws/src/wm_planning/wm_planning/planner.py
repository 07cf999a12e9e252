"""Push an object to a place on a table with a paddle, by imagining many pushes and taking the best. Knows no ROS.

The planner is a receding-horizon controller whose optimizer is the cross-entropy method (Rubinstein, "The cross-entropy
method for combinatorial and continuous optimization", 1999; for paths of robots: Kobilarov, "Cross-entropy motion
planning", IJRR 2012): draw K pushes from a normal distribution, ask what each would do, fit the distribution's mean
and deviation to the best ones (the elite), draw again. The best push seen is carried out and then everything is looked
at and thought of anew.

A push is a start of the paddle and a second of motion. The paddle may start where it is, or be lifted, carried over
the objects and let down at another side of the target: both are imagined, so the choice falls out of the cost. The cost
is in meters: the way that is left for the target around what stands in between (Dijkstra's shortest path on a grid),
and on top of it whatever is not wanted (``PushCosts``).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.rollout import LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_planning.config import KNOTS, RAMP_S, PlanError, PushPlannerConfig
from wm_planning.cost_to_go import CostToGo
from wm_planning.futures import Futures, Imagine
from wm_planning.outlines import ANGLES, DIRECTIONS, Array, gap, outline, paddle_outline
from wm_planning.paths import PusherPath, PusherPose, PushPaths


@dataclass(frozen=True)
class Plan:
    """What to do next.

    Attributes:
        kind: ``push`` (go along ``path``), ``carry`` (``path`` leads over the objects to where the next push starts)
            or ``done`` (the target is there; ``path`` only lifts the paddle).
        path: from where the paddle is.
        push: the push that was imagined and chosen; after a ``carry`` it is what comes next. None when done.
        target_way: (T, 2) imagined places of the target [m] during ``push``.
        cost: of the choice [m]; costs: of all that were imagined in the last round.
        way_left_m: the target's way to the goal, around what stands in between, as it is now.
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


def without_pusher(
    scene: SceneGraph,
    pose: PusherPose | None,
    extents: ArrayLike,
    keep_ids: Collection[int] = (),
    own_ids: Collection[int] = (),
) -> SceneGraph:
    """The scene without the paddle itself: what is named ``pusher``, and what is centered within its bounds.

    The robot knows where its paddle is; a camera sees just one more object, from one side and some centimeters off.

    Args:
        keep_ids: these are not the paddle, wherever they are.
        own_ids: these are.
    """
    keep = np.array([n != "pusher" for n in scene.class_names], dtype=bool) & ~np.isin(scene.ids, list(own_ids))
    if pose is not None:
        turn = Rotation.from_euler("z", -pose.yaw)
        inside = np.abs(turn.apply(scene.positions - pose.position)) < 0.5 * np.asarray(extents) + 0.03
        keep &= ~inside.all(axis=1)
    keep |= scene.is_static | np.isin(scene.ids, list(keep_ids))
    return scene.select(np.flatnonzero(keep))


# -- the planner


@dataclass(frozen=True)
class _Table:
    """What one planning step knows: the scene without the paddle, and outlines of what stands on it."""

    scene: SceneGraph
    target: int
    top: float
    low: Array
    high: Array
    others: NDArray[np.int64]
    tall: NDArray[np.bool_]
    outlines: Array
    own: Array
    way: CostToGo

    @property
    def place(self) -> Array:
        """(2,) of the target."""
        return self.scene.positions[self.target, :2]


@dataclass(frozen=True)
class _Start:
    """Where a push may start; ``carried``: the paddle is not there yet."""

    position: Array
    yaw: float
    carried: bool
    reach: float


class PushPlanner:
    """Plans the next piece of the paddle's path.

    Args:
        imagine: answers what follows from K paths, see ``Imagine``.
        config: settings.
        seed: of the draws; the same seed and the same answers give the same plans.
    """

    def __init__(self, imagine: Imagine, config: PushPlannerConfig | None = None, seed: int = 0) -> None:
        self.imagine, self.config = imagine, config or PushPlannerConfig()
        self._rng = np.random.default_rng(seed)
        self._next: Array | None = None
        self._own_ids: set[int] = set()
        self._things: set[int] = set()

    def plan(self, scene: SceneGraph, target_id: int, goal: ArrayLike, pusher: PusherPose) -> Plan:
        """The next piece of path.

        Args:
            scene: as perceived now, graph frame, z up; the paddle in it is ignored.
            target_id: which object to push.
            goal: (2,) where its center shall be [m], graph frame.
            pusher: where the paddle is now.

        Raises:
            PlanError: the target is not in the scene or is static, the goal is not on a support, or no number.
        """
        begin = time.perf_counter()
        config = self.config
        table = self._table(scene, target_id, np.asarray(goal, dtype=np.float64), pusher)
        left = float(table.way(table.place))
        if float(np.linalg.norm(table.place - table.way.goal)) < config.done_m:
            path = self._lift(table, pusher)
            none = np.zeros((0, 2))
            return Plan("done", path, None, none, left, np.zeros(0), left, 0, time.perf_counter() - begin)
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
            costs = self._costs(table, near, paths, chosen, starts, futures, drawn)
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
        # What was thought of before the paddle was carried is where thinking begins once it is there.
        self._next = controls if start.carried else None
        seconds = time.perf_counter() - begin
        if start.carried:
            path = self._carry(table, pusher, push)
            return Plan("carry", path, push, way, cost, costs, left, imagined, seconds)
        return Plan("push", push.until(config.execute_s), push, way, cost, costs, left, imagined, seconds)

    # -- what is where

    def _table(self, scene: SceneGraph, target_id: int, goal: Array, pusher: PusherPose) -> _Table:
        seen = scene
        scene = without_pusher(scene, pusher, self.config.paddle, {target_id, *self._things}, self._own_ids)
        # An object that once was the paddle stays so, wherever perception believes it to be when it loses sight of it.
        self._own_ids |= set(seen.ids.tolist()) - set(scene.ids.tolist())
        # And an object that was seen beside the paddle does not become it when the paddle comes close.
        self._things |= set(scene.ids.tolist())
        if target_id not in scene.ids:
            raise PlanError(f"target_id: got {target_id}, expected one of {scene.ids.tolist()}")
        target = scene.index(target_id)
        if scene.is_static[target]:
            raise PlanError(f"target_id: got {target_id}, which is static, expected a movable object")
        if goal.shape != (2,) or not np.isfinite(goal).all():
            raise PlanError(f"goal: got {goal.tolist()}, expected x and y [m]")
        low, high, top = self._support(scene, target)
        if (goal < low).any() or (goal > high).any():
            raise PlanError(
                f"goal: got {goal.tolist()}, expected a place on the support, {low.tolist()} to {high.tolist()}"
            )
        rows = [i for i in range(len(scene)) if i != target and not scene.is_static[i] and scene.positions[i, 2] > top]
        outlines = np.array([self._outline(scene, i) for i in rows]).reshape(-1, len(DIRECTIONS))
        others = np.array(rows, dtype=np.int64)
        tall = np.array([self._is_tall(scene, i) for i in rows], dtype=bool)
        own = self._outline(scene, target)
        way = CostToGo(low, high, goal, own, scene.positions[others, :2], outlines, tall)
        return _Table(scene, target, top, low, high, others, tall, outlines, own, way)

    @staticmethod
    def _outline(scene: SceneGraph, i: int) -> Array:
        return outline(int(scene.shapes[i]), scene.extents[i], scene.quaternions[i], scene.hulls[i])

    def _is_tall(self, scene: SceneGraph, i: int) -> bool:
        sides = np.abs(quaternion_to_matrix(scene.quaternions[i])) @ scene.extents[i]
        return bool(sides[2] > self.config.tall_ratio * min(sides[0], sides[1]))

    @staticmethod
    def _support(scene: SceneGraph, target: int) -> tuple[Array, Array, float]:
        """Corners (2,), (2,) and height of the top of what the target stands on: the highest static object below."""
        best: tuple[Array, Array, float] | None = None
        for i in np.flatnonzero(scene.is_static):
            half = 0.5 * np.abs(quaternion_to_matrix(scene.quaternions[i])) @ scene.extents[i]
            top = float(scene.positions[i, 2] + half[2])
            low, high = scene.positions[i, :2] - half[:2], scene.positions[i, :2] + half[:2]
            here = scene.positions[target]
            over = top < here[2] and (here[:2] > low - 0.05).all() and (here[:2] < high + 0.05).all()
            if over and (best is None or top > best[2]):
                best = (low, high, top)
        if best is None:
            raise PlanError("scene: found no support (a static object) under the target, expected one")
        return best

    def _near(self, table: _Table) -> SceneGraph:
        """What can matter within the horizon."""
        away = np.linalg.norm(table.scene.positions[:, :2] - table.place, axis=1)
        keep = table.scene.is_static | (away < self.config.near_m)
        return table.scene.select(np.flatnonzero(keep))

    # -- where pushes start

    def _height(self, table: _Table) -> float:
        return table.top + self.config.ground_gap_m + 0.5 * self.config.paddle[2]

    def _starts(self, table: _Table, pusher: PusherPose) -> list[_Start]:
        """Where the paddle is, if it is down beside the target; then places around the target that are free."""
        config, z = self.config, self._height(table)
        starts: list[_Start] = []
        if abs(pusher.position[2] - z) < 0.02:
            apart = float(
                gap(pusher.position[:2], paddle_outline(config, np.array(pusher.yaw)), table.place, table.own)
            )
            if apart < 0.10:
                starts.append(_Start(np.array([*pusher.position[:2], z]), pusher.yaw, False, max(apart, 0.0)))
        wanted = float(np.arctan2(*table.way.heading(table.place)[::-1]))
        width = float((table.own + np.roll(table.own, len(table.own) // 2)).mean())
        free: list[_Start] = []
        for turn in np.radians([0, 12, -12, 25, -25, 40, -40, 60, -60, 90, -90, 130, -130, 180]):
            yaw = wanted + turn
            ahead = np.array([np.cos(yaw), np.sin(yaw)])
            side = np.array([-ahead[1], ahead[0]])
            back = float(np.interp((yaw + np.pi) % (2 * np.pi), [*ANGLES, 2 * np.pi], [*table.own, table.own[0]]))
            for shift in (0.0, 0.25 * width, -0.25 * width):
                place = table.place - (back + 0.5 * config.paddle[0] + 0.012) * ahead + shift * side
                if self._is_free(table, place, yaw):
                    free.append(_Start(np.array([*place, z]), yaw, True, 0.012))
        starts += free
        if not starts:
            raise PlanError("target_id: found no free place for the paddle beside it, expected one")
        return starts

    def _is_free(self, table: _Table, place: Array, yaw: float, margin_m: float = 0.008) -> bool:
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

    def _first(self, table: _Table, starts: list[_Start]) -> tuple[PushPaths, NDArray[np.int64]]:
        """A plain push from every start, and from where the paddle is as many as there is room for."""
        config = self.config
        left = float(table.way(table.place))
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
            controls.append(straight(starts[s]))
        most = config.rollouts if here else room
        turns = np.linspace(-0.8, 0.8, 7) * config.max_turn_rad_s
        if here and self._next is not None:
            chosen.append(here[0])
            controls.append(self._next)
        while len(chosen) < most:
            if here:
                n = len(chosen)
                chosen.append(here[0])
                base = straight(starts[here[0]], float(self._rng.uniform(0.4, 1.3)), float(turns[n % len(turns)]))
                controls.append(base + 0.3 * self._spread() * self._rng.standard_normal(len(base)))
            else:
                s = there[int(self._rng.integers(len(there)))]
                chosen.append(s)
                base = straight(starts[s], float(self._rng.uniform(0.5, 1.2)))
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

    # -- what a future costs

    def _costs(
        self,
        table: _Table,
        near: SceneGraph,
        paths: PushPaths,
        chosen: NDArray[np.int64],
        starts: list[_Start],
        futures: Futures,
        controls: Array,
    ) -> Array:
        """(K,) [m], infinite where nothing was computed, or what was is not valid."""
        c, config = self.config.costs, self.config
        count = len(near)
        states = futures.states[:, :, :, :count].astype(np.float64)  # (K, S, T, N, 13)
        # What must not be chosen needs no cost, and may hold no numbers.
        states[~futures.done] = 0.0
        states[~futures.done, ..., 6] = 1.0
        target = near.index(int(table.scene.ids[table.target]))
        place = states[:, :, :, target, :2]
        left = table.way(place[:, :, -1])  # (K, S)
        cost = left.copy()
        # The paddle on the side from which the way goes on.
        end = paths.positions[:, -1, :2]
        toward = place[:, :, -1] - end[:, None]
        toward /= np.maximum(np.linalg.norm(toward, axis=-1, keepdims=True), 1e-9)
        cosine = (toward * table.way.heading(place[:, :, -1])).sum(axis=-1)
        cost += c.behind * (1.0 - cosine) * np.minimum(left, 0.1)
        sample_times = np.linspace(0.0, config.horizon_s, states.shape[2])
        rows = np.clip(np.searchsorted(paths.times, sample_times - 1e-9), 0, len(paths.times) - 1)
        paddle, yaws = paths.positions[:, rows, :2], paths.yaws[:, rows]
        around = paddle_outline(config, yaws)
        for i in range(count):
            if near.is_static[i]:
                continue
            own = states[:, :, :, i]
            now = quaternion_to_matrix(near.quaternions[i])
            round_ = near.shapes[i] == Shape.SPHERE
            lying = near.shapes[i] in (Shape.CYLINDER, Shape.CAPSULE) and abs(now[2, 2]) < 0.7
            if not (round_ or lying):
                # The vertical, carried along with the body: z . R(t) R(now)^T z.
                upright = (quaternion_to_matrix(own[..., QUATERNION])[..., 2, :] * now[2]).sum(axis=-1)
                worst = np.arccos(np.clip(upright, -1.0, 1.0)).max(axis=-1)
                cost += c.tilt_per_rad * np.clip(worst - c.tilt_free_rad, 0.0, None)
                cost += c.toppled * (worst > np.pi / 4.0)
            edge = np.minimum(own[..., :2] - table.low, table.high - own[..., :2]).min(axis=(-1, -2))
            cost += c.edge * np.clip(c.edge_m - edge, 0.0, None)
            cost += c.speed * np.linalg.norm(own[:, :, -1, LINEAR_VELOCITY], axis=-1)
            if i == target:
                continue
            shifted = np.linalg.norm(own[..., POSITION] - own[:, :, :1, POSITION], axis=-1).max(axis=-1)
            tall = self._is_tall(near, i)
            cost += (c.moved_tall if tall else c.moved_other) * np.clip(shifted - 0.002, 0.0, None)
            if tall:
                shape = self._outline(near, i)
                spot = near.positions[i, :2]
                free = gap(place, table.own, spot, shape).min(axis=-1)
                free = np.minimum(free, gap(paddle, around, spot, shape).min(axis=-1)[:, None])
                cost += c.clearance * np.clip(c.clearance_m - free, 0.0, None)
        carried = np.array([starts[s].carried for s in chosen])
        total = cost.mean(axis=1) + carried * min(c.carry * float(table.way(table.place)), c.carry_most_m)
        jerk = np.abs(np.diff(controls[:, :KNOTS], axis=1)).sum(axis=1) / config.max_speed_m_s
        jerk += np.abs(np.diff(controls[:, KNOTS : 2 * KNOTS], axis=1)).sum(axis=1) / config.max_turn_rad_s
        total = total + 5e-4 * jerk
        finite = futures.done & np.isfinite(total)
        return np.where(finite, total, np.inf)

    # -- over the objects

    def _over(self, table: _Table) -> float:
        """Height of the paddle's center [m] at which it passes over everything."""
        tops = [table.top]
        for i in [*table.others.tolist(), table.target]:
            half = 0.5 * np.abs(quaternion_to_matrix(table.scene.quaternions[i])) @ table.scene.extents[i]
            tops.append(float(table.scene.positions[i, 2] + half[2]))
        return max(tops) + 0.03 + 0.5 * self.config.paddle[2]

    def _along(self, corners: list[Array], yaws: list[float]) -> PusherPath:
        """A path through corners at the speed of carrying, from rest to rest on each piece, turning on the way."""
        turns = np.unwrap(yaws)
        times, positions, turned = [0.0], [corners[0]], [float(turns[0])]
        for k in range(len(corners) - 1):
            length = max(float(np.linalg.norm(corners[k + 1] - corners[k])), 0.08 * abs(turns[k + 1] - turns[k]))
            if length < 1e-6:
                continue
            # A cosine's steepest slope is pi / 2 of its mean.
            seconds = 0.5 * np.pi * length / self.config.carry_speed_m_s
            for s in np.linspace(0.0, 1.0, 7)[1:]:
                share = 0.5 - 0.5 * np.cos(np.pi * s)
                times.append(times[-1] + seconds / 6.0)
                positions.append(corners[k] + share * (corners[k + 1] - corners[k]))
                turned.append(float(turns[k] + share * (turns[k + 1] - turns[k])))
        return PusherPath(np.array(times), np.array(positions), np.array(turned))

    def _retreat(self, table: _Table, pusher: PusherPose) -> Array:
        """A little back from the target before the paddle is lifted, so that it does not drag it up; (3,) [m]."""
        for back in (0.015, 0.008):
            place = pusher.position - back * np.array([np.cos(pusher.yaw), np.sin(pusher.yaw), 0.0])
            if self._is_free(table, place[:2], pusher.yaw, 0.002):
                return place
        return pusher.position

    def _lift(self, table: _Table, pusher: PusherPose) -> PusherPath:
        over, back = self._over(table), self._retreat(table, pusher)
        up = np.array([*back[:2], max(over, pusher.position[2])])
        return self._along([pusher.position, back, up], [pusher.yaw] * 3)

    def _carry(self, table: _Table, pusher: PusherPose, push: PusherPath) -> PusherPath:
        there, yaw = push.positions[0], float(push.yaws[0])
        over = max(self._over(table), 0.0)
        down = abs(pusher.position[2] - self._height(table)) < 0.02
        back = self._retreat(table, pusher) if down else pusher.position
        up = np.array([*back[:2], max(over, back[2])])
        above = np.array([*there[:2], up[2]])
        return self._along([pusher.position, back, up, above, there], [pusher.yaw, pusher.yaw, pusher.yaw, yaw, yaw])
