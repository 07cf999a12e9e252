"""Held-out worlds with questions about them, and what truly follows: the simulator's own futures.

A case is a world at an instant (mostly while something moves), the factual future, and seven interventions, most of
which lead to contacts. Everything in it follows from split and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.imagining.store import ROOT, cached, fingerprint
from training.worlds.worlds import SPLITS, Split, random_scene
from wm_core.constants import GRAVITY_M_S2
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.rollout import LINEAR_VELOCITY
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Predicate, SceneGraph, Shape
from wm_dynamics.mujoco.bodies import BodyDef
from wm_sim.scenes import BuiltScene
from wm_sim.simulator import Simulator

Array = NDArray[np.float64]

FIRST_SEED = 70_000
"""Worlds are drawn from here on: the perception benchmark draws from 50000 (retries in steps of 1000, to 54015), the
reasoner's card from 20000, the data of the dynamics from 500000, and what training draws is of the split ``train``."""
LEAST_THINGS = 3
CAMERA_RATE_HZ = 15.0
HORIZON_S = 2.0
STEP_S = 1.0 / 30.0
MAX_SPEED_M_S = 20.0
"""Faster things are taken for a simulation that diverged."""

_SOURCES = (
    *(Path(__file__), ROOT / "training/worlds/worlds.py", ROOT / "training/worlds/families.py"),
    *(ROOT / "ros2_ws/src/wm_sim/wm_sim" / f"{name}.py" for name in ("simulator", "objects", "scenes")),
    *(
        ROOT / "ros2_ws/src/wm_core/wm_core" / f"{name}.py"
        for name in ("mujoco_world", "interventions", "geometry", "rollout", "scene_graph")
    ),
)


@dataclass(frozen=True)
class Case:
    """A world at an instant, K questions (the first: nothing is done), and the K true futures.

    Attributes:
        split, seed, start_s: which world, and when [s] after its start (a whole number of frames at 15 Hz).
        scene: the true scene graph then, without covariance, shapes as one primitive or one convex hull.
        bodies: the true bodies of its things, in its order, with all their parts.
        hypotheses: K, object ids are true ids; kinds: K names of what is done.
        times: (T,) [s] after the instant, from 0 to 2 in steps of 1/30.
        object_ids: (M,) as in ``DynamicsResult``: those of the scene, then created bodies.
        states: (K, T, M, 13) float32; present: (K, T, M).
        touches: per hypothesis (time [s], id a, id b, began), in time order.
        table_top_m: height of the table's top.
    """

    split: Split
    seed: int
    start_s: float
    scene: SceneGraph
    bodies: tuple[BodyDef, ...]
    hypotheses: tuple[Hypothesis, ...]
    kinds: tuple[str, ...]
    times: Array
    object_ids: NDArray[np.int64]
    states: NDArray[np.float32]
    present: NDArray[np.bool_]
    touches: tuple[tuple[tuple[float, int, int, bool], ...], ...]
    table_top_m: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.split} {self.seed}"


def bare(scene: BuiltScene) -> BuiltScene:
    """The scene without materials: the physics is the same, and nothing has to be drawn."""
    bodies = tuple(replace(b, geoms=tuple(replace(g, material="") for g in b.geoms)) for b in scene.bodies)
    return replace(scene, bodies=bodies)


def undrawn(body: BodyDef) -> BodyDef:
    """A body's parts that collide, without materials."""
    return replace(body, geoms=tuple(replace(g, material="") for g in body.geoms if not g.visual_only))


def start_time(scene: BuiltScene, rng: np.random.Generator) -> float:
    """When to ask [s]: mostly just after something was set in motion, else at 1 s; at a camera frame."""
    begins = [do.time_offset for _, do in scene.schedule]
    late = rng.uniform(0.10, 0.18)
    chosen = float(rng.choice(begins)) + late if begins and rng.uniform() < 0.8 else 1.0
    return float(np.ceil(chosen * CAMERA_RATE_HZ - 1e-6) / CAMERA_RATE_HZ)


def usable(scene: BuiltScene) -> bool:
    """Three things or more, and no pusher under way: where that goes on to, nobody who looks can know."""
    return len(scene.ids) - 1 >= LEAST_THINGS and not scene.pushers


def world_seeds(split: Split, count: int, first: int = FIRST_SEED) -> list[int]:
    """The first ``count`` seeds from ``first`` on whose worlds are usable."""
    found: list[int] = []
    seed = first
    while len(found) < count:
        if usable(random_scene(seed, split)):
            found.append(seed)
        seed += 1
    return found


def make_case(split: Split, seed: int) -> Case | None:
    """The case of a seed, from the disk where it was made before; None: not usable, or its physics diverges."""
    return cached(f"truth-{split}-{seed}", fingerprint(_SOURCES), lambda: _make_case(split, seed))


def _make_case(split: Split, seed: int) -> Case | None:
    scene = random_scene(seed, split)
    if not usable(scene):
        return None
    rng = np.random.default_rng([SPLITS.index(split), seed, 31])
    start_s = start_time(scene, rng)
    with Simulator(bare(scene), seed, 64, 48, decorate=lambda _: None) as simulator:
        simulator.advance_to(start_s)
        graph = simulator.ground_truth()
        top = scene.table_top_z
        asked = questions(graph, top, rng)
        if asked is None:
            return None
        kinds, hypotheses = zip(*asked, strict=True)
        times = np.arange(round(HORIZON_S / STEP_S) + 1, dtype=np.float64) * STEP_S
        truth = simulator.ground_truth_rollout(hypotheses, times)
    if not np.isfinite(truth.states).all() or np.abs(truth.states[..., LINEAR_VELOCITY]).max() > MAX_SPEED_M_S:
        return None
    return Case(
        split,
        seed,
        start_s,
        graph,
        tuple(undrawn(scene.bodies[scene.ids.index(int(i))]) for i in graph.ids),
        tuple(hypotheses),
        tuple(kinds),
        times,
        truth.object_ids,
        truth.states,
        truth.present,
        tuple(tuple((t.time_s, t.a, t.b, t.began) for t in touches) for touches in truth.touches),
        float(top),
    )


def load_cases(split: Split, seeds: Sequence[int]) -> list[Case]:
    """The cases of seeds, those that cannot be used left out."""
    return [case for case in (make_case(split, int(seed)) for seed in seeds) if case is not None]


# -- questions


class _Table:
    """What whoever asks knows of the world: where things are, how heavy and how slippery."""

    def __init__(self, scene: SceneGraph, top_m: float, rng: np.random.Generator) -> None:
        self.scene, self.top, self.rng = scene, top_m, rng
        self.rows = [i for i in range(len(scene)) if not scene.is_static[i] and scene.positions[i, 2] > top_m - 0.02]

    def half_height(self, row: int) -> float:
        """Half of a thing's upright extent [m] as it lies now."""
        return 0.5 * float(np.abs(quaternion_to_matrix(self.scene.quaternions[row]))[2] @ self.scene.extents[row])

    def reach(self, row: int) -> float:
        """Half of the mean horizontal extent [m]."""
        turned = np.abs(quaternion_to_matrix(self.scene.quaternions[row])) @ self.scene.extents[row]
        return 0.25 * float(turned[0] + turned[1])

    def somebody(self) -> int:
        """A row at random."""
        return int(self.rng.choice(self.rows))

    def neighbor(self, row: int) -> tuple[int, Array, float]:
        """One of the three nearest on the same level: its row, the direction (2,) to it, and the gap [m]."""
        others = [k for k in self.rows if k != row]
        apart = self.scene.positions[others, :2] - self.scene.positions[row, :2]
        distance = np.linalg.norm(apart, axis=1)
        near = [int(k) for k in np.argsort(distance) if distance[k] > 0.03][:3] or [int(np.argmax(distance))]
        k = near[int(self.rng.integers(len(near)))]
        direction = apart[k] + self.rng.normal(0.0, 0.012, 2)
        direction /= max(float(np.linalg.norm(direction)), 1e-6)
        gap = max(float(distance[k]) - self.reach(row) - self.reach(others[k]), 0.0)
        return others[k], direction, gap

    def rolls(self, row: int) -> float:
        """Radius [m] if the thing rolls where it is pushed to, else 0."""
        shape = int(self.scene.shapes[row])
        lies = abs(quaternion_to_matrix(self.scene.quaternions[row])[2, 2]) < 0.3
        if shape == Shape.SPHERE or (shape in (Shape.CYLINDER, Shape.CAPSULE) and lies):
            return 0.5 * float(self.scene.extents[row, 0])
        return 0.0

    def speed(self, row: int, gap: float) -> float:
        """A speed [m/s] with which a thing gets across a gap and a little further."""
        if self.rolls(row):
            return float(self.rng.uniform(0.3, 0.9))
        way = gap + self.rng.uniform(0.03, 0.15)
        return float(np.clip(np.sqrt(2.0 * self.scene.friction[row] * GRAVITY_M_S2 * way), 0.3, 2.0))

    def spin(self, row: int, velocity: Array) -> Array:
        """(3,) [rad/s] of rolling without slip; of what slides now and then a turn about the vertical."""
        radius = self.rolls(row)
        if radius:
            return np.asarray(np.cross([0.0, 0.0, 1.0], velocity) / radius, dtype=np.float64)
        return np.array([0.0, 0.0, self.rng.normal(0.0, 2.0) * (self.rng.uniform() < 0.3)])

    def later(self) -> float:
        """A time offset [s]: now, or within half a second."""
        return 0.0 if self.rng.uniform() < 0.5 else float(self.rng.uniform(0.05, 0.5))

    def name(self, row: int) -> int:
        """Its id."""
        return int(self.scene.ids[row])

    def carrier(self) -> int | None:
        """The row of a thing that something else stands on."""
        carries = {r.object for r in self.scene.relations if r.predicate == Predicate.ON}
        found = [k for k in self.rows if int(self.scene.ids[k]) in carries]
        return int(self.rng.choice(found)) if found else None


def _into_neighbor(table: _Table, at_s: float) -> Hypothesis:
    row = table.somebody()
    _, direction, gap = table.neighbor(row)
    velocity = np.array([*(direction * table.speed(row, gap)), 0.0])
    sets_off = set_velocity(table.name(row), velocity.tolist(), table.spin(row, velocity).tolist(), at_s)
    return Hypothesis("set_velocity", (sets_off,))


def _knock(table: _Table, at_s: float) -> Hypothesis:
    row = table.somebody()
    _, direction, gap = table.neighbor(row)
    size = float(table.scene.masses[row]) * table.speed(row, gap)
    height = table.rng.uniform(0.0, 0.6) * table.half_height(row)
    push = apply_impulse(table.name(row), [*(direction * size), 0.0], [0.0, 0.0, height], at_s)
    return Hypothesis("apply_impulse", (push,))


def _pusher(table: _Table, at_s: float) -> Hypothesis:
    """A block that comes at a thing from where there is most room, and pushes it on by 5 to 15 cm."""
    row, rng = table.somebody(), table.rng
    size = np.array([rng.uniform(0.03, 0.05), rng.uniform(0.06, 0.12), rng.uniform(0.05, 0.10)])
    here = table.scene.positions[row, :2]
    angles = rng.uniform(-np.pi, np.pi) + np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    starts = here - (0.10 + table.reach(row)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    room = [
        min(float(np.linalg.norm(table.scene.positions[k, :2] - s)) - table.reach(k) for k in table.rows)
        for s in starts
    ]
    k = int(rng.choice(np.argsort(room)[-4:]))
    direction = np.array([np.cos(angles[k]), np.sin(angles[k])])
    end = here + direction * rng.uniform(0.05, 0.15)
    z = table.top + 0.5 * size[2] + 0.006
    seconds = float(np.linalg.norm(end - starts[k])) / rng.uniform(0.2, 0.5)
    quaternion = Rotation.from_euler("z", angles[k]).as_quat()
    path = follow_path(
        [0.0, seconds, seconds + 5.0],
        [[*starts[k], z], [*end, z], [*end, z]],
        np.tile(quaternion, (3, 1)).tolist(),
        body=BodySpec(Shape.BOX, size, friction=0.4),
        at_s=at_s,
    )
    return Hypothesis("follow_path", (path,))


def _without(table: _Table, at_s: float) -> Hypothesis:
    """What carries something vanishes, else what something moves to, else anything."""
    row = table.carrier()
    if row is None:
        speeds = np.linalg.norm(table.scene.linear_velocities[table.rows], axis=1)
        fastest = table.rows[int(speeds.argmax())]
        if speeds.max() > 0.05:
            others = [k for k in table.rows if k != fastest]
            ahead = table.scene.linear_velocities[fastest, :2] / speeds.max()
            apart = table.scene.positions[others, :2] - table.scene.positions[fastest, :2]
            row = others[int((apart @ ahead / np.maximum(np.linalg.norm(apart, axis=1), 1e-6)).argmax())]
        else:
            row = table.somebody()
    return Hypothesis("remove", (remove(table.name(row), at_s),))


def _placed(table: _Table, at_s: float) -> Hypothesis:
    """A thing is let go over another, or a little over the table beside it."""
    row, rng = table.somebody(), table.rng
    other, direction, _ = table.neighbor(row)
    there = table.scene.positions[other]
    if rng.uniform() < 0.6:
        spot = there[:2] + rng.normal(0.0, 0.02, 2)
        z = there[2] + table.half_height(other) + table.half_height(row) + rng.uniform(0.005, 0.06)
    else:
        spot = there[:2] - direction * (table.reach(other) + table.reach(row) + rng.uniform(0.0, 0.02))
        z = table.top + table.half_height(row) + rng.uniform(0.01, 0.10)
    turn = Rotation.from_euler("z", rng.uniform(-1.0, 1.0)) * Rotation.from_quat(table.scene.quaternions[row])
    return Hypothesis("set_pose", (set_pose(table.name(row), [*spot, z], turn.as_quat(), at_s),))


def _entering(table: _Table, at_s: float) -> Hypothesis:
    """A ball, box or cylinder falls onto a thing, or flies at it low."""
    row, rng = table.somebody(), table.rng
    shape = Shape(int(rng.choice([Shape.SPHERE, Shape.BOX, Shape.CYLINDER])))
    size = rng.uniform(0.04, 0.08, 3)
    size[1] = size[0]
    if shape == Shape.SPHERE:
        size[2] = size[0]
    there = table.scene.positions[row]
    if rng.uniform() < 0.5:
        position = np.array([*(there[:2] + rng.normal(0.0, 0.025, 2)), 0.0])
        position[2] = there[2] + table.half_height(row) + 0.5 * size[2] + rng.uniform(0.02, 0.15)
        velocity = np.zeros(3)
    else:
        angle = rng.uniform(-np.pi, np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        position = np.array([*(there[:2] - (table.reach(row) + size[0] + 0.06) * direction), 0.0])
        position[2] = table.top + 0.5 * size[2] + 0.01
        velocity = np.array([*(direction * rng.uniform(0.5, 1.5)), 0.0])
    body = BodySpec(
        shape,
        size,
        position=position,
        linear_velocity=velocity,
        mass=float(rng.uniform(0.03, 0.4)),
        friction=float(rng.uniform(0.2, 0.8)),
        restitution=float(rng.uniform(0.0, 0.5)),
    )
    return Hypothesis("add", (add(body, at_s),))


def _changed(table: _Table, at_s: float) -> Hypothesis:
    """A thing becomes larger or smaller, or heavier or more slippery, and then is set in motion or is hit."""
    row, rng = table.somebody(), table.rng
    other, direction, gap = table.neighbor(row)
    velocity = np.array([*(direction * table.speed(row, gap)), 0.0])
    then = at_s + float(rng.uniform(0.1, 0.3))
    if rng.uniform() < 0.5:
        scale = float(rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.15, 1.5)]))
        push = apply_impulse(
            table.name(row), (float(table.scene.masses[row]) * scale**3 * velocity).tolist(), at_s=then
        )
        return Hypothesis("morph", (morph(table.name(row), [scale] * 3, at_s), push))
    sets_off = set_velocity(table.name(row), velocity.tolist(), table.spin(row, velocity).tolist(), then)
    if rng.uniform() < 0.5:  # of what is hit
        factor = float(rng.choice([rng.uniform(0.25, 0.6), rng.uniform(1.6, 4.0)]))
        change = set_property(table.name(other), Property.MASS, factor, factor=True, at_s=at_s)
    else:
        change = set_property(table.name(row), Property.FRICTION, float(rng.uniform(0.05, 0.9)), at_s=at_s)
    return Hypothesis("set_property", (change, sets_off))


def questions(scene: SceneGraph, table_top_m: float, rng: np.random.Generator) -> list[tuple[str, Hypothesis]] | None:
    """The factual future, then a question of each kind (of morph and set_property one); None: too few things there."""
    table = _Table(scene, table_top_m, rng)
    if len(table.rows) < 2:
        return None
    asked = [Hypothesis("factual")]
    for ask in (_into_neighbor, _knock, _pusher, _without, _placed, _entering, _changed):
        asked.append(ask(table, table.later()))
    return [(h.name, h) for h in asked]
