"""Futures side by side, stepped by the network in ONNX Runtime: what is awake and near, what interventions change."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.geometry import interpolate_pose
from wm_core.interventions import BodySpec, Hypothesis, Intervention, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import Contact
from wm_dynamics.contact_step.body_tables import (
    HOVER_M,
    HULL_POINTS,
    MAX_SLACK_M,
    PARAMETER_ROWS,
    ROWS,
    SLOW_START_M_S,
    STEP_S,
    SUNK_M,
    BodyShape,
    body_shape,
    near_distance,
    surface_rows,
    surfaces_beneath,
)
from wm_dynamics.contact_step.network import DynamicsNetwork, Floats
from wm_dynamics.contact_step.sleeping import SCATTER_SHARE, SLEEP_STEPS, SLOW_M_S, TOUCH_N_S, WAKE_M_S
from wm_dynamics.interventions import apply
from wm_dynamics.learned.scene import Array, Flags, PreparedScene
from wm_dynamics.learned.touches import touches_of
from wm_dynamics.mujoco.bodies import BodyDef
from wm_dynamics.preparation import FREEING_KINDS

log = logging.getLogger(__name__)


def scatter_limit(was: Floats, now: Floats) -> Floats:
    """(B,) speed up to which a step may scatter velocities whose sizes (B,) it took from ``was`` to ``now``.

    Scatter must not make energy: added step by step to things that lie in one another it would drive itself, from the
    first touch to hundreds of meters a second. So nothing gets faster by it than it was before the step - but of a blow
    that sped it up, by how much is open (``SCATTER_SHARE``).
    """
    limit: Floats = np.maximum(was, now + SCATTER_SHARE * np.maximum(now - was, 0.0)).astype(np.float32)
    return limit


def at_most(velocity: Floats, speed: Floats) -> Floats:
    """Velocities (3, B), those faster than a speed (B,) shortened to it."""
    own = np.linalg.norm(velocity, axis=0)
    shortened: Floats = velocity * np.where(own > speed, speed / np.maximum(own, np.float32(1e-12)), np.float32(1.0))
    return shortened


def cross(a: ArrayLike, b: Array) -> Array:
    """Vector product of two vectors (3,); NumPy's takes far longer for one."""
    ax, ay, az = np.asarray(a, dtype=np.float64).tolist()
    bx, by, bz = np.asarray(b, dtype=np.float64).tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


@dataclass
class BodySlot:
    """What one body of one future is at the moment: definition, shape, whether it follows a path."""

    body: BodyDef
    shape: BodyShape
    path: Intervention | None = None
    path_since: int = 0


class FutureBatch:
    """R = K x S futures side by side, their bodies in flat columns: body m of future r is column r M + m."""

    def __init__(
        self, known: PreparedScene, hypotheses: Sequence[Hypothesis], network: DynamicsNetwork, times: Array
    ) -> None:
        self.known, self.network, self.times = known, network, times
        k, s, m = len(hypotheses), known.samples, known.slots
        self.rows, self.slots = k * s, m
        self.hypothesis_count = k
        self.doubts = [""] * k
        count = self.rows * m
        self.position = np.zeros((3, count), dtype=np.float32)
        self.quaternion = np.zeros((4, count), dtype=np.float32)
        self.quaternion[3] = 1.0
        self.linear = np.zeros((3, count), dtype=np.float32)
        self.angular = np.zeros((3, count), dtype=np.float32)
        self.parameters = np.tile(known.columns[:, None], (1, k, 1, 1)).reshape(PARAMETER_ROWS, count)
        self.bounds = np.tile(known.bounds, self.rows)
        self.offsets = np.tile(known.offsets, (1, self.rows))
        self.has_hull = np.tile(known.has_hull, self.rows)
        self.own_hulls: dict[int, Floats] = {}
        self.fixed = np.tile(known.fixed, (k, 1)).reshape(-1)
        self.obstacle = np.tile(known.obstacle, self.rows)
        self.present = np.zeros(count, dtype=bool)
        self.present.reshape(self.rows, m)[:, : known.count] = True
        self.asleep = np.tile(known.asleep, (k, 1)).reshape(-1) | self.fixed
        self.kinematic = np.zeros(count, dtype=bool)
        self.quiet_steps = np.zeros(count, dtype=np.int16)
        self.surfaces = np.tile(known.surfaces, (self.rows, 1, 1))
        self.surface_friction: Floats | None = None
        self.surface_restitution: Floats | None = None
        start = np.zeros((s, m, STATE_SIZE))
        start[:, :, 6] = 1.0
        for number, state in enumerate(known.starts):
            start[number, : known.count] = state
        arms = self._arms(start[..., QUATERNION], known.offsets.T)
        start[..., POSITION] += arms
        start[..., LINEAR_VELOCITY] += np.cross(start[..., ANGULAR_VELOCITY], arms)
        tiled = np.tile(start, (k, 1, 1)).reshape(count, STATE_SIZE).T
        self.position[:], self.quaternion[:] = tiled[0:3], tiled[3:7]
        self.linear[:], self.angular[:] = tiled[7:10], tiled[10:13]
        self.hypotheses = hypotheses
        self.changed: dict[tuple[int, int], BodySlot] = {}
        self.paths: list[tuple[int, int, Intervention, int]] = []
        self.paths_changed = False
        self.led_columns: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.led_positions = np.zeros((0, 0, 3), dtype=np.float32)
        self.turned_columns: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.led_quaternions: Array = np.zeros((0, 0, 4))
        self.pathed: set[int] = set()
        self.events: list[tuple[int, int, int, int, Intervention]] = []
        self.next_event = 0
        self.now = 0
        self.last = int(np.ceil(float(times[-1]) / STEP_S - 1e-6)) if len(times) else 0
        self.output_step = np.floor(times / STEP_S + 1e-6).astype(np.int64)
        self.states = np.zeros((k, s, len(times), m, STATE_SIZE), dtype=np.float32)
        self.present_out = np.zeros((k, len(times), m), dtype=bool)
        self.written = 0
        self.pairs = known.pairs
        self.pair_touch: list[Flags] = []
        self.surface_touch: list[NDArray[np.int16]] = []
        self.touching = np.tile(known.touching, (k, 1))
        # Depths to which things may overlap, as they did when first seen; NaN: not yet known.
        self.plane_slack = np.full(count, np.nan, dtype=np.float32)
        self.pair_slack = np.full((self.rows, len(self.pairs)), np.nan, dtype=np.float32)
        # Standard deviations that the network leaves open: of the positions so far [m], of the velocities now [m/s].
        self.left_open = np.zeros(count, dtype=np.float32)
        self.drift = np.zeros(count, dtype=np.float32)
        self.on_surface = np.tile(known.on_surface, (k, 1))
        self._cache_key: bytes | None = None
        self._cached: tuple[Floats, NDArray[np.int64], Floats] | None = None

    @staticmethod
    def _arms(quaternions: Array, offsets: ArrayLike) -> Array:
        """(..., M, 3) offsets (M, 3) of the centers of mass turned into world axes [m]."""
        result: Array = np.einsum("...mij,mj->...mi", quaternion_to_matrix(quaternions), np.asarray(offsets, float))
        return result

    @property
    def finished(self) -> bool:
        """Whether the last time is reached."""
        return self.now >= self.last

    # -- interventions

    def schedule(self, scene: SceneGraph, hypotheses: Sequence[Hypothesis]) -> None:
        """Take in what the hypotheses do, in order of time, and free what they move and only rested on something
        unseen.
        """
        known = self.known
        for k, hypothesis in enumerate(hypotheses):
            created = itertools.count(known.count)
            for order, do in enumerate(hypothesis.interventions):
                if do.creates_body:
                    m = next(created)
                elif do.object_id in known.row_of:
                    m = known.row_of[do.object_id]
                else:
                    m = scene.index(do.object_id)  # raises
                at = min(round(do.time_offset / STEP_S), max(self.last, 0))
                self.events.append((at, order, k, m, do))
                if m < known.count and known.preparation.held[m] and do.kind in FREEING_KINDS:
                    for s in range(known.samples):
                        body = replace(known.bodies[s][m], is_static=False)
                        self.set_body(k, s, m, body)
        self.events.sort(key=lambda e: (e[0], e[2], e[1]))
        self._apply_due()
        self._write()

    def slot(self, k: int, s: int, m: int) -> BodySlot:
        """The body of a slot as it is now."""
        key = (k * self.known.samples + s, m)
        if key not in self.changed:
            if m < self.known.count:
                self.changed[key] = BodySlot(self.known.bodies[s][m], self.known.shapes[m])
            else:
                specs = [i.body for i in self.hypotheses[k].interventions if i.creates_body]
                spec = specs[m - self.known.count]
                assert spec is not None  # validated
                self.changed[key] = BodySlot(*self.known.created(spec))
        return self.changed[key]

    def set_body(self, k: int, s: int, m: int, body: BodyDef, kinematic: bool | None = None) -> None:
        """Give a slot another body (shape or properties), and the network's tables with it."""
        slot = self.slot(k, s, m)
        if body is not slot.body and body.shape_key()[0] != slot.body.shape_key()[0]:
            slot.shape = body_shape(body)
        slot.body = body
        n = (k * self.known.samples + s) * self.slots + m
        kinematic = bool(self.kinematic[n]) if kinematic is None else kinematic
        self.kinematic[n] = kinematic
        self.fixed[n] = body.is_static
        shape = slot.shape
        before = self.position[:, n] - self.arm(n)
        self.parameters[:, n] = self.known.column(body, shape, kinematic)
        self.bounds[n] = shape.bound
        # A led body is moved by its center, whatever its mass.
        self.offsets[:, n] = 0.0 if body.is_static else shape.offset
        self.position[:, n] = before + self.arm(n)
        self.has_hull[n] = shape.hull is not None and not body.is_static
        if self.has_hull[n]:
            self.own_hulls[n] = shape.hull.astype(np.float32)  # type: ignore[union-attr]
        self._cache_key = None

    def arm(self, n: int) -> Array:
        """(3,) from the origin of a body to its center of mass, in world axes [m]."""
        a, b, c = self.offsets[:, n].tolist()
        if not (a or b or c):
            return np.zeros(3)
        x, y, z, w = self.quaternion[:, n].tolist()
        # v + 2 u x (u x v + w v) of the quaternion (u, w).
        d, e, f = y * c - z * b + w * a, z * a - x * c + w * b, x * b - y * a + w * c
        return np.array([a + 2.0 * (y * f - z * e), b + 2.0 * (z * d - x * f), c + 2.0 * (x * e - y * d)])

    def _apply_due(self) -> None:
        """Carry out the interventions of this step."""
        while self.next_event < len(self.events) and self.events[self.next_event][0] <= self.now:
            _, _, k, m, do = self.events[self.next_event]
            for s in range(self.known.samples):
                apply(do, _BatchBody(self, k, s, m))
            self.next_event += 1

    def forget_path(self, n: int) -> None:
        """A column follows no path any more."""
        if n in self.pathed:
            self.paths = [p for p in self.paths if p[0] != n]
            self.pathed.discard(n)
            self.paths_changed = True

    def place(
        self,
        n: int,
        position: ArrayLike,
        quaternion: ArrayLike,
        linear: ArrayLike = (0.0, 0.0, 0.0),
        angular: ArrayLike = (0.0, 0.0, 0.0),
    ) -> None:
        """Put a column elsewhere: pose and velocities of the body frame [m, m/s, rad/s]."""
        q = np.asarray(quaternion, float)
        self.quaternion[:, n] = q / max(math.sqrt(float(q @ q)), 1e-9)
        arm = self.arm(n)
        self.position[:, n] = np.asarray(position, float) + arm
        self.angular[:, n] = angular
        self.linear[:, n] = np.asarray(linear, float) + cross(angular, arm)
        # Elsewhere is a new beginning: what it stands on there, or overlaps, is seen anew.
        self.plane_slack[n] = 0.0
        row, m = divmod(n, self.slots)
        self.pair_slack[row, self.known.pairs_of[m]] = 0.0
        self.wake(n)

    def move_static(self, k: int, s: int, m: int, body: BodyDef) -> None:
        """A support elsewhere, or of another size."""
        row = k * self.known.samples + s
        self.set_body(k, s, m, body)
        self.position[:, row * self.slots + m] = body.static_state[POSITION]
        if m in self.known.surface_of:
            top = surface_rows(body)
            self.surfaces[row, self.known.surface_of.index(m)] = np.nan if top is None else top
        self.wake_row(row)

    def wake(self, n: int) -> None:
        """Wake a column."""
        self.asleep[n] = self.fixed[n]
        self.quiet_steps[n] = 0

    def wake_row(self, row: int) -> None:
        """Wake all of a future."""
        part = slice(row * self.slots, (row + 1) * self.slots)
        self.asleep[part] = self.fixed[part]
        self.quiet_steps[part] = 0

    def wake_near(self, row: int, n: int) -> None:
        """Wake what may touch a body that comes or goes."""
        part = slice(row * self.slots, (row + 1) * self.slots)
        apart = self.position[:, part] - self.position[:, n : n + 1]
        near = (apart * apart).sum(axis=0) < (self.bounds[part] + (self.bounds[n] + np.float32(0.01))) ** 2
        self.asleep[part] &= ~near | self.fixed[part]
        self.quiet_steps[part][near] = 0

    # -- time

    def advance(self) -> None:
        """One step, the interventions that are due after it, and what is to be reported."""
        self.step()
        self._apply_due()
        self._write()

    def portion(self) -> int:
        """Steps to make before the time is looked at again."""
        return 1

    def make_steps(self, count: int) -> None:
        """Steps without interventions and outputs."""
        for _ in range(count):
            self.step()

    def step(self) -> None:
        """One step of the network over all that is awake."""
        self._lead()
        included, held, pair_a, pair_b, pair_number, pair_row = self.broad_phase()
        if len(included):
            self._network_step(included, held, pair_a, pair_b, pair_number, pair_row)
        self.now += 1
        self._follow()
        self.pair_touch.append(self.touching.copy())
        self.surface_touch.append(self.on_surface.copy())

    def _compile_paths(self) -> None:
        """Places of all path followers at all steps; those of one time grid are interpolated together."""
        count, steps = len(self.paths), self.last + 2
        self.led_columns = np.fromiter((p[0] for p in self.paths), dtype=np.int64, count=count)
        self.led_positions = np.zeros((count, steps, 3), dtype=np.float32)
        turned_columns, quaternions = [], []
        groups: dict[tuple[int, bytes], list[int]] = {}
        for index, (n, _, do, since) in enumerate(self.paths):
            q = do.path_quaternions
            if len(q) > 1 and np.abs(q - q[0]).max() > 1e-9:
                query = np.maximum(np.arange(steps) - since, 0) * STEP_S
                position, turned = interpolate_pose(do.path_times, do.path_positions, q, query)
                self.led_positions[index] = position
                turned_columns.append(n)
                quaternions.append(turned)
            else:
                groups.setdefault((since, do.path_times.tobytes()), []).append(index)
        for (since, _), members in groups.items():
            times = self.paths[members[0]][2].path_times
            places = np.stack([self.paths[i][2].path_positions for i in members])  # (F, M, 3)
            query = np.clip((np.arange(steps) - since) * STEP_S, times[0], times[-1])
            after = np.clip(np.searchsorted(times, query, side="right"), 1, max(len(times) - 1, 1))
            if len(times) == 1:
                self.led_positions[members] = places[:, :1]
                continue
            weight = ((query - times[after - 1]) / (times[after] - times[after - 1]))[:, None]
            self.led_positions[members] = places[:, after - 1] * (1.0 - weight) + places[:, after] * weight
        self.turned_columns = np.array(turned_columns, dtype=np.int64)
        self.led_quaternions = np.stack(quaternions) if quaternions else np.zeros((0, steps, 4))
        self.paths_changed = False

    def _lead(self) -> None:
        """Velocities of what follows a path, those that take it to its next place."""
        if self.paths_changed:
            self._compile_paths()
        if not len(self.led_columns):
            return
        move = self.led_positions[:, self.now + 1] - self.led_positions[:, self.now]
        self.linear[:, self.led_columns] = move.T / STEP_S
        if len(self.turned_columns):
            a, b = self.led_quaternions[:, self.now], self.led_quaternions[:, self.now + 1]
            b = b * np.where((a * b).sum(axis=1, keepdims=True) >= 0.0, 1.0, -1.0)
            vector = a[:, 3:] * b[:, :3] - b[:, 3:] * a[:, :3] - np.cross(b[:, :3], a[:, :3])
            self.angular[:, self.turned_columns] = 2.0 * vector.T / STEP_S

    def _follow(self) -> None:
        """Poses of what follows a path."""
        if not len(self.led_columns):
            return
        self.position[:, self.led_columns] = self.led_positions[:, self.now].T
        if len(self.turned_columns):
            self.quaternion[:, self.turned_columns] = self.led_quaternions[:, self.now].T

    def broad_phase(
        self,
    ) -> tuple[NDArray[np.int64], Flags, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Columns that take part in this step, which of them are held still, and the near pairs among them.

        Pairs come as columns (a the smaller), their number among all pairs of slots, and their row.
        """
        r, m = self.rows, self.slots
        shape = (r, m)
        position = self.position.reshape(3, r, m)
        linear = self.linear.reshape(3, r, m)
        speed = np.sqrt((linear * linear).sum(axis=0))
        spin = np.sqrt((self.angular.reshape(3, r, m) ** 2).sum(axis=0))
        bounds = self.bounds.reshape(shape)
        surface_speed = speed + bounds * spin
        present, fixed = self.present.reshape(shape), self.fixed.reshape(shape)
        asleep, kinematic = self.asleep.reshape(shape), self.kinematic.reshape(shape)
        first, second = self.pairs[:, 0], self.pairs[:, 1]
        awake = present & ~asleep & ~fixed
        # Only pairs of which one is awake matter.
        live = (awake[:, first] | awake[:, second]) & present[:, first] & present[:, second]
        live &= ~((fixed | kinematic)[:, first] & (fixed | kinematic)[:, second])
        row, number = np.nonzero(live)
        i, j = first[number], second[number]
        apart = position[:, row, i] - position[:, row, j]
        distance = np.sqrt((apart * apart).sum(axis=0))
        touch = bounds[row, i] + bounds[row, j] + near_distance(STEP_S)
        closing = STEP_S * (speed[row, i] + speed[row, j])
        obstacle = self.obstacle.reshape(shape)
        is_static = obstacle[row, i] | obstacle[row, j]
        near = (distance - touch < closing) & ~is_static
        if is_static.any():
            some = np.flatnonzero(is_static)
            near[some] = self._near_static(row[some], i[some], j[some], position, bounds)
        row, number, i, j = row[near], number[near], i[near], j[near]

        # What something fast (or a pusher) comes near wakes up.
        fast = (surface_speed > WAKE_M_S) & awake
        for one, other in ((i, j), (j, i)):
            woken = fast[row, one] & asleep[row, other] & ~fixed[row, other]
            if woken.any():
                self.asleep.reshape(shape)[row[woken], other[woken]] = False
                self.quiet_steps.reshape(shape)[row[woken], other[woken]] = 0
        asleep = self.asleep.reshape(shape)
        awake = present & ~asleep & ~fixed

        # What is slow, with all that is near it, falls asleep.
        slow = (surface_speed < SLOW_M_S) | asleep | fixed
        unrest = np.zeros(shape, dtype=bool)
        np.logical_or.at(unrest, (row, i), ~slow[row, j])
        np.logical_or.at(unrest, (row, j), ~slow[row, i])
        quiet = self.quiet_steps.reshape(shape)
        supported = self._is_held()
        quiet[:] = np.where(awake & slow & ~unrest & ~kinematic & supported, quiet + 1, 0)
        tired = quiet >= SLEEP_STEPS
        if tired.any():
            self.asleep.reshape(shape)[tired] = True
            columns = np.flatnonzero(tired.reshape(-1))
            self.linear[:, columns] = 0.0
            self.angular[:, columns] = 0.0
            self.drift[columns] = 0.0
            awake = awake & ~tired

        keep = awake[row, i] | awake[row, j]
        row, number, i, j = row[keep], number[keep], i[keep], j[keep]
        a, b = row * m + i, row * m + j
        used = awake.reshape(-1).copy()
        used[a] = True
        used[b] = True
        included = np.flatnonzero(used)
        held = ~awake.reshape(-1)[included]
        local = np.full(r * m, -1, dtype=np.int64)
        local[included] = np.arange(len(included))
        swap = self.bounds[a] > self.bounds[b]
        small, large = np.where(swap, b, a), np.where(swap, a, b)
        return included, held, local[small], local[large], number, row

    def _is_held(self) -> Flags:
        """(R, M) things that touch something: nothing falls asleep in the air, at the top of its flight."""
        held = self.on_surface != -1
        if len(self.pairs):
            row, number = np.nonzero(self.touching)
            held[row, self.pairs[number, 0]] = True
            held[row, self.pairs[number, 1]] = True
        return held

    def _near_static(
        self, row: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64], position: Floats, bounds: Floats
    ) -> Flags:
        """Which pairs with a support are near it from the side or below: from above, its surface is what counts."""
        m = self.slots
        static_first = self.fixed[row * m + i] & self.obstacle[row * m + i]
        static, mover = np.where(static_first, i, j), np.where(static_first, j, i)
        top = self.surfaces[row, self.known.surface_row[static]].T
        beside = ~(position[2, row, mover] > top[0] - SUNK_M)  # also where there is no level top
        dx, dy = position[0, row, mover] - top[1], position[1, row, mover] - top[2]
        beside |= np.abs(top[3] * dx + top[4] * dy) > top[5]
        beside |= np.abs(top[3] * dy - top[4] * dx) > top[6]
        result = np.zeros(len(row), dtype=bool)
        some = np.flatnonzero(beside)
        if len(some):
            row, static, mover = row[some], static[some], mover[some]
            n = row * m + static
            rotation = quaternion_to_matrix(self.quaternion[:, n].astype(np.float64).T)
            local = np.einsum("nij,ni->nj", rotation, (position[:, row, mover] - self.position[:, n]).T)
            half = self.parameters[ROWS["half"], n].T
            center = self.parameters[ROWS["center"], n].T
            beyond = np.maximum(np.abs(local - center) - half, 0.0)
            result[some] = np.linalg.norm(beyond, axis=1) < bounds[row, mover] + 0.01
        return result

    def _network_step(
        self,
        included: NDArray[np.int64],
        held: Flags,
        pair_a: NDArray[np.int64],
        pair_b: NDArray[np.int64],
        pair_number: NDArray[np.int64],
        pair_row: NDArray[np.int64],
    ) -> None:
        row = included // self.slots
        plane, which = surfaces_beneath(
            self.position[:, included], self.bounds[included], self.surfaces[row], self.known.floor_z
        )
        key = included.tobytes() + held.tobytes()
        if key != self._cache_key or self._cached is None:
            parameters = self.parameters[:, included]
            if held.any():
                parameters[ROWS["inverse_mass"], held] = 0.0
                parameters[ROWS["inverse_inertia"].start : ROWS["inverse_inertia"].stop, held] = 0.0
                parameters[ROWS["falls"], held] = 0.0
            hull_row = np.flatnonzero(self.has_hull[included])
            hulls = np.zeros((3, HULL_POINTS, len(hull_row)), dtype=np.float32)
            if len(hull_row):
                source = included[hull_row]
                hulls = np.ascontiguousarray(self.known.hulls[:, :, source % self.slots])
                for number, n in enumerate(source.tolist()):
                    if n in self.own_hulls:
                        hulls[:, :, number] = self.own_hulls[n]
            self._cache_key, self._cached = key, (parameters, hull_row, hulls)
        parameters, hull_row, hulls = self._cached
        if self.surface_friction is not None and self.surface_restitution is not None:
            parameters = parameters.copy()
            for source, name in ((self.surface_friction, "friction"), (self.surface_restitution, "restitution")):
                own = np.where(which >= 0, source[row, np.maximum(which, 0)], np.nan)
                parameters[ROWS[name], ~np.isnan(own)] = own[~np.isnan(own)]
        linear, angular = self.linear[:, included], self.angular[:, included]
        feeds: dict[str, NDArray[Any]] = {
            "position": self.position[:, included],
            "quaternion": self.quaternion[:, included],
            "linear": linear,
            "angular": angular,
            "parameters": parameters,
            "plane": plane,
            "pair_a": pair_a,
            "pair_b": pair_b,
            "hull_row": hull_row,
            "hull_points": hulls,
        }
        position, quaternion, linear, angular, plane_impulse, pair_impulse, deviation = self._run(
            feeds, included, held, pair_row, pair_number
        )
        free = ~held & ~self.kinematic[included]
        columns = included[free]
        linear, angular = linear[:, free], angular[:, free]
        was, now = np.linalg.norm(self.linear[:, columns], axis=0), np.linalg.norm(linear, axis=0)
        fastest = scatter_limit(was, now)
        if self.known.samples > 1:
            noise = self.known.noise_at(self.now)
            sample = (columns // self.slots) % self.known.samples
            drawn = noise[:, sample, columns % self.slots]
            spin = scatter_limit(np.linalg.norm(self.angular[:, columns], axis=0), np.linalg.norm(angular, axis=0))
            linear = at_most(linear + drawn[:3] * deviation[0, free], fastest)
            angular = at_most(angular + drawn[3:] * deviation[1, free], spin)
        self.position[:, columns], self.quaternion[:, columns] = position[:, free], quaternion[:, free]
        self.linear[:, columns], self.angular[:, columns] = linear, angular
        # What contacts slow down loses the same share of what was left open of its speed.
        struck = plane_impulse.copy()
        np.maximum.at(struck, pair_a, pair_impulse)
        np.maximum.at(struck, pair_b, pair_impulse)
        kept = np.where(
            struck[free] > TOUCH_N_S,
            np.minimum(now / np.maximum(was, np.float32(1e-6)), np.float32(1.0)),
            np.float32(1.0),
        )
        drift = np.sqrt((kept * self.drift[columns]) ** 2 + np.minimum(deviation[0, free], fastest) ** 2)
        self.drift[columns] = drift
        self.left_open[columns] += np.float32(STEP_S) * drift
        # Touches: of pairs that were not looked at since both sleep, those before go on.
        row, m = included // self.slots, included % self.slots
        awake = np.zeros((self.rows, self.slots), dtype=bool)
        awake[row[~held], m[~held]] = True
        self.touching &= ~(awake[:, self.pairs[:, 0]] | awake[:, self.pairs[:, 1]])
        touched = pair_impulse > TOUCH_N_S
        self.touching[pair_row[touched], pair_number[touched]] = True
        rests = (plane_impulse > TOUCH_N_S) & free
        self.on_surface[row[free], m[free]] = -1
        self.on_surface[row[rests], m[rests]] = which[rests]

    def _run(
        self,
        feeds: dict[str, NDArray[Any]],
        included: NDArray[np.int64],
        held: Flags,
        pair_row: NDArray[np.int64],
        pair_number: NDArray[np.int64],
    ) -> list[Floats]:
        """The network's outputs. What takes part for the first time and overlaps is measured, and the step made
        again.
        """
        new_body = np.isnan(self.plane_slack[included]) & ~held & ~self.kinematic[included]
        new_pair = np.isnan(self.pair_slack[pair_row, pair_number])
        feeds["plane_slack"] = np.nan_to_num(self.plane_slack[included])
        feeds["pair_slack"] = np.nan_to_num(self.pair_slack[pair_row, pair_number])
        *out, plane_gap, pair_gap = self.network.run(feeds)
        if not (new_body.any() or new_pair.any()):
            return out
        columns = included[new_body]
        gap = plane_gap[new_body]
        speed = np.linalg.norm(self.linear[:, columns], axis=0)
        speed += self.bounds[columns] * np.linalg.norm(self.angular[:, columns], axis=0)
        hovers = (speed < SLOW_START_M_S) & (gap > 0.0) & (gap < HOVER_M)
        plane_slack = np.where(hovers, -gap, np.clip(-gap, 0.0, MAX_SLACK_M))
        # What comes near through the air is looked at before it touches, so it does not overlap.
        pair_slack = np.clip(-pair_gap[new_pair], 0.0, MAX_SLACK_M)
        self.plane_slack[columns] = plane_slack
        self.pair_slack[pair_row[new_pair], pair_number[new_pair]] = pair_slack
        if (np.abs(plane_slack) > 1e-5).any() or (pair_slack > 1e-5).any():
            feeds["plane_slack"] = np.nan_to_num(self.plane_slack[included])
            feeds["pair_slack"] = self.pair_slack[pair_row, pair_number]
            out = self.network.run(feeds)[:7]
        return out

    # -- what comes out

    def _write(self) -> None:
        """Copy the state to all output times up to the next step."""
        while self.written < len(self.times) and self.output_step[self.written] <= self.now:
            index = self.written
            rest = float(self.times[index]) - self.now * STEP_S
            k, s, m = self.hypothesis_count, self.known.samples, self.slots
            out = self.states[:, :, index].reshape(k * s * m, STATE_SIZE)
            position = self.position + (rest * self.linear if rest > 1e-6 else 0.0)
            out[:, 0:3], out[:, 3:7] = position.T, self.quaternion.T
            out[:, 7:10], out[:, 10:13] = self.linear.T, self.angular.T
            some = np.flatnonzero(np.abs(self.offsets).sum(axis=0) > 0.0)
            if len(some):
                q = self.quaternion[:, some].astype(np.float64).T
                arm = np.einsum("nij,nj->ni", quaternion_to_matrix(q), self.offsets[:, some].T)
                out[some, 0:3] -= arm
                out[some, 7:10] -= np.cross(self.angular[:, some].T, arm)
            self.states[:, :, index] = out.reshape(k, s, m, STATE_SIZE)
            self.present_out[:, index] = self.present.reshape(k, s, m)[:, 0]
            self.written += 1

    def gather(self) -> None:
        """Make the output whole: absent things hold their last (or first) pose; what is not finite holds the pose
        before.
        """
        bad = np.logical_not(np.asarray(np.isfinite(self.states).all(axis=-1)))
        if bad.any():
            log.warning("learned: %d states were not finite and were held", int(bad.sum()))
            for k, count in enumerate(bad.any(axis=(2, 3)).sum(axis=1).tolist()):
                if count:
                    self.doubts[k] = f"{count} of {self.known.samples} samples: not finite, held at the state before"
            for k, s, m in {(int(a), int(b), int(d)) for a, b, _, d in np.argwhere(bad)}:
                first = int(np.argmax(bad[k, s, :, m]))
                self.states[k, s, first:, m] = self.states[k, s, max(first - 1, 0), m]
                self.states[k, s, first:, m, 7:] = 0.0
        for k, m in np.argwhere(~self.present_out.all(axis=1)):
            here = np.flatnonzero(self.present_out[k, :, m])
            gone = np.flatnonzero(~self.present_out[k, :, m])
            if not len(here):
                self.states[k, :, :, m] = 0.0
                self.states[k, :, :, m, 6] = 1.0
                continue
            for index in gone:
                before = here[here < index]
                source = before[-1] if len(before) else here[0]
                self.states[k, :, index, m, :7] = self.states[k, :, source, m, :7]
                self.states[k, :, index, m, 7:] = 0.0

    @property
    def scatter(self) -> Floats:
        """(K, M) standard deviation [m] of the last positions that the network leaves open, root mean square over
        samples.
        """
        left_open = self.left_open.reshape(self.hypothesis_count, self.known.samples, self.slots)
        scatter: Floats = np.sqrt((left_open * left_open).mean(axis=1))
        return scatter

    def _touched(self) -> tuple[Flags, NDArray[np.int16]]:
        """Which pairs touch (steps, R, Q), and which surface each thing stands on (steps, R, M)."""
        return np.stack(self.pair_touch), np.stack(self.surface_touch)

    def contacts(self, first: int, ids: NDArray[np.int64]) -> list[Contact]:
        """Touches in order of hypothesis, sample, time."""
        if not self.now:
            return []
        pair, surface = self._touched()
        tables = [touches_of(pair, ids[self.pairs[:, 0]], ids[self.pairs[:, 1]])]
        for number, i in enumerate(self.known.surface_of):
            tables.append(touches_of(surface == number, np.full(self.slots, ids[i]), ids))
        row, when, a, b, began = (np.concatenate(column) for column in zip(*tables, strict=True))
        low, high = np.minimum(a, b), np.maximum(a, b)
        order = np.lexsort((began, high, low, when, row))
        hypothesis, sample = np.divmod(row[order], self.known.samples)
        columns = (hypothesis + first, sample, when[order], low[order], high[order], began[order])
        return [Contact(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]


class _BatchBody:
    """A body of one future of a batch, as interventions act on it (``wm_dynamics.interventions.BodyHandle``).

    Body m of sample s under hypothesis k; ``n``: its column, ``row``: of its future.
    """

    def __init__(self, batch: FutureBatch, k: int, s: int, m: int) -> None:
        self._batch, self._which, self._m = batch, (k, s, m), m
        self._row = k * batch.known.samples + s
        self._n = self._row * batch.slots + m

    @property
    def present(self) -> bool:
        return bool(self._batch.present[self._n])

    @property
    def kinematic(self) -> bool:
        return bool(self._batch.kinematic[self._n])

    @property
    def body(self) -> BodyDef:
        return self._batch.slot(*self._which).body

    @property
    def quaternion(self) -> Array:
        body = self.body
        return body.static_state[QUATERNION] if body.is_static else self._batch.quaternion[:, self._n].astype(float)

    def add(self, spec: BodySpec) -> None:
        batch, n = self._batch, self._n
        batch.present[n] = True
        batch.set_body(*self._which, self.body)
        batch.place(n, spec.position, spec.quaternion, spec.linear_velocity, spec.angular_velocity)
        batch.wake_near(self._row, n)

    def follow(self, path: Intervention) -> None:
        batch, n = self._batch, self._n
        batch.present[n] = True
        batch.set_body(*self._which, self.body, kinematic=True)
        batch.offsets[:, n] = 0.0
        batch.place(n, path.path_positions[0], path.path_quaternions[0])
        batch.forget_path(n)
        batch.paths.append((n, self._which[0], path, batch.now))
        batch.pathed.add(n)
        batch.paths_changed = True
        batch.wake_near(self._row, n)

    def remove(self) -> None:
        batch, n = self._batch, self._n
        batch.wake_near(self._row, n)
        batch.present[n] = False
        batch.forget_path(n)
        if self._m < batch.known.count and self._m in batch.known.surface_of:
            batch.surfaces[self._row, batch.known.surface_of.index(self._m)] = np.nan
            batch.wake_row(self._row)

    def place(self, position: ArrayLike, quaternion: ArrayLike) -> None:
        batch, n = self._batch, self._n
        batch.wake_near(self._row, n)
        batch.place(n, position, quaternion)
        if batch.fixed[n]:
            state = self.body.static_state.copy()
            state[POSITION], state[QUATERNION] = position, quaternion
            batch.move_static(*self._which, replace(self.body, static_state=state))
        batch.wake_near(self._row, n)

    def set_velocity(self, linear: Array, angular: Array) -> None:
        batch, n = self._batch, self._n
        batch.angular[:, n] = angular
        batch.linear[:, n] = linear + cross(angular, batch.arm(n))
        batch.wake(n)

    def push(self, impulse: Array, point: Array) -> None:
        batch, n = self._batch, self._n
        column = batch.parameters[:, n]
        rotation = quaternion_to_matrix(self.quaternion)
        inverse = rotation @ column[ROWS["inverse_inertia"]].reshape(3, 3) @ rotation.T
        batch.linear[:, n] += column[0] * impulse
        batch.angular[:, n] += inverse @ cross(point - batch.arm(n), impulse)
        batch.wake(n)

    def set_property(self, which: Property, body: BodyDef) -> None:
        batch, known = self._batch, self._batch.known
        batch.set_body(*self._which, body)
        if which == Property.MASS:
            return
        if not (body.is_static and self._m in known.surface_of):
            batch.wake(self._n)
            return
        # A support's own coefficients overrule those of what touches it, once they are set.
        if batch.surface_friction is None or batch.surface_restitution is None:
            batch.surface_friction = np.full(batch.surfaces.shape[:2], np.nan, dtype=np.float32)
            batch.surface_restitution = np.full(batch.surfaces.shape[:2], np.nan, dtype=np.float32)
        at = (self._row, known.surface_of.index(self._m))
        batch.surface_friction[at], batch.surface_restitution[at] = body.friction, body.restitution
        batch.wake_row(self._row)

    def set_shape(self, body: BodyDef, rise_m: float) -> None:
        batch, n = self._batch, self._n
        if body.is_static:
            state = self.body.static_state.copy()
            state[2] += rise_m
            batch.move_static(*self._which, replace(body, static_state=state))
            return
        batch.wake_near(self._row, n)
        batch.set_body(*self._which, body)
        batch.position[2, n] += rise_m
        batch.wake(n)
        batch.wake_near(self._row, n)
