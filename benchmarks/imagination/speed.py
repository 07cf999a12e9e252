"""How many rollouts of a second with eight objects per second, beside MuJoCo's own threaded rollouts on the same cores.

Three kinds of scenes: ``planner``, a pusher into one of eight objects at rest (most stay so), ``all_moving``, every
object sent off in a direction of its own, and ``planner_4_of_8_compound``, as ``planner`` where four of the objects are
a mug, a bowl, a T and a hammer of several convex parts. All K hypotheses of a batch differ. MuJoCo: ``mujoco.rollout``
with its own pool of threads, a plain model of the same bodies without sensors, at 1/240 s (twice the physics backend's
step, at which blocks bounce too much, though it may serve a planner) and at 2 ms; with the backend's elliptic friction
cones and with MuJoCo's default pyramidal ones, of which the faster counts. ``mujoco as physics`` has the same work to
do: the physics backend's step, its cones, and the contact sensors that its events are read from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np

from benchmarks.imagination.metrics import Array
from wm_core.convex_parts import ConvexPart
from wm_core.interventions import BodySpec, Hypothesis, follow_path, set_velocity
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import Dynamics
from wm_dynamics.belief import scene_body, scene_states
from wm_dynamics.mujoco.bodies import (
    BodyDef,
    GeomDef,
    body_from_spec,
    body_parts,
    body_points,
    rest_state,
    simplify_hull,
)
from wm_dynamics.mujoco.world import World
from wm_dynamics.physics.backend import MAX_TIMESTEP_S
from wm_sim import objects

OBJECTS = 8
"""Movable objects of the scene."""
COUNTS = (1, 64, 1024)
"""Hypotheses of the batches that are timed."""
PLANNER, ALL_MOVING, COMPOUND = KINDS = ("planner", "all_moving", "planner_4_of_8_compound")
HORIZON_S = 1.0
"""Length of a rollout [s]."""
TIMES = np.arange(31) / 30.0
AS_PHYSICS = "mujoco as physics"
MUJOCO_STEPS_S = {"mujoco 1/240 s": 1.0 / 240.0, "mujoco 2 ms": 0.002}
PHYSICS_STEP_S = MAX_TIMESTEP_S
"""The step that states at 30 Hz are reached in, 16 of them from one to the next."""
PUSHER = BodySpec(Shape.BOX, np.array([0.03, 0.08, 0.08]), friction=0.4)
_CHUNK = 128
"""Rollouts of one native call; larger ones need more memory for their states."""
_PUSHER_Z = 0.046
"""Height of the pusher's center [m]: half of its own, and 6 mm above the table."""


def make_scene(moved: float = 0.0) -> SceneGraph:
    """A table with eight objects on it (id 1 is the table), the objects shifted by ``moved`` meters along y."""
    rng = np.random.default_rng(0)
    grid = [(0.18 * (i % 3) - 0.18, 0.22 * (i // 3) - 0.22) for i in range(OBJECTS)]
    shapes = [Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.BOX, Shape.CAPSULE, Shape.BOX, Shape.CYLINDER]
    shapes.append(Shape.SPHERE)
    extents = [(0.08, 0.08, 0.08), (0.07,) * 3, (0.07, 0.07, 0.12), (0.06, 0.1, 0.05)]
    extents += [(0.05, 0.05, 0.12), (0.1, 0.06, 0.15), (0.08, 0.08, 0.1), (0.08,) * 3]
    return SceneGraph.build(
        np.arange(1, OBJECTS + 2),
        [(0.0, 0.0, -0.02), *((x, y + moved, e[2] / 2) for (x, y), e in zip(grid, extents, strict=True))],
        [(1.0, 1.2, 0.04), *extents],
        shapes=[Shape.BOX, *shapes],
        class_names=["support", *["object"] * OBJECTS],
        is_static=[True, *[False] * OBJECTS],
        colors=rng.uniform(0.1, 0.9, (OBJECTS + 1, 3)),
    )


def _of_boxes(*boxes: tuple[Sequence[float], Sequence[float]]) -> list[GeomDef]:
    """Boxes of extents and positions [m]."""
    return [GeomDef(Shape.BOX, np.array(extents), position=np.array(place)) for extents, place in boxes]


def make_compound_scene() -> SceneGraph:
    """``make_scene`` with a mug, a bowl, a T and a hammer in the places of four of its objects."""
    scene = make_scene()
    white = (0.9, 0.9, 0.9, 1.0)
    drawn = {
        1: objects.mug(0.08, 0.09, white),
        4: objects.bowl(0.12, 0.05, white),
        6: _of_boxes(((0.12, 0.04, 0.04), (0.0, 0.03, 0.0)), ((0.04, 0.08, 0.04), (0.0, -0.03, 0.0))),
        8: _of_boxes(((0.03, 0.09, 0.03), (0.06, 0.0, 0.0)), ((0.12, 0.02, 0.02), (-0.01, 0.0, 0.0))),
    }
    positions, extents, shapes, hulls = (
        scene.positions.copy(),
        scene.extents.copy(),
        scene.shapes.copy(),
        [*scene.hulls],
    )
    parts: list[tuple[ConvexPart, ...]] = [()] * len(scene)
    for row, geoms in drawn.items():
        geoms_, extents[row] = objects.centered(geoms)
        body = BodyDef(geoms_)
        hull = simplify_hull(body_points(body))
        assert hull is not None  # these have a volume
        parts[row], hulls[row], shapes[row] = body_parts(body), hull, Shape.CONVEX
        positions[row, 2] = 0.5 * extents[row, 2]
    return replace(
        scene, positions=positions, extents=extents, shapes=shapes, hulls=tuple(hulls), parts=tuple(parts)
    )  # fmt: skip


def scene_of(kind: str) -> SceneGraph:
    """The scene of a kind of ``KINDS``."""
    return make_compound_scene() if kind == COMPOUND else make_scene()


def push_paths(count: int, seed: int = 0) -> tuple[Array, Array]:
    """Starts and ends (count, 3) [m] of pushes of 0.2 to 0.3 m, each into one of the eight objects."""
    rng = np.random.default_rng(seed)
    scene = make_scene()
    rows = 1 + np.arange(count) % OBJECTS
    angles = rng.uniform(-np.pi, np.pi, count)
    direction = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)
    target = scene.positions[rows].copy()
    target[:, 2] = _PUSHER_Z
    length = rng.uniform(0.2, 0.3, count)[:, None]
    starts = target - 0.11 * direction
    return starts, starts + length * direction


def velocities(count: int, seed: int = 0) -> Array:
    """(count, 8, 3) [m/s] of 0.3 to 1 m/s, level."""
    rng = np.random.default_rng(seed)
    angles, speeds = rng.uniform(-np.pi, np.pi, (count, OBJECTS)), rng.uniform(0.3, 1.0, (count, OBJECTS))
    return np.stack([speeds * np.cos(angles), speeds * np.sin(angles), np.zeros_like(angles)], axis=-1)


def hypotheses(kind: str, count: int) -> tuple[Hypothesis, ...]:
    """K different hypotheses of a kind of ``KINDS``."""
    if kind != ALL_MOVING:
        pushes = zip(*push_paths(count), strict=True)
        return tuple(
            Hypothesis(f"push {k}", (follow_path([0.0, HORIZON_S], [start.tolist(), end.tolist()], body=PUSHER),))
            for k, (start, end) in enumerate(pushes)
        )
    scene = make_scene()
    return tuple(
        Hypothesis(f"all {k}", tuple(set_velocity(int(scene.ids[1 + i]), v.tolist()) for i, v in enumerate(each)))
        for k, each in enumerate(velocities(count))
    )


def best_seconds(calls: dict[str, Callable[[], Any]], repeats: int, enough_s: float = 6.0) -> dict[str, float]:
    """Shortest time [s] of each call, by turns, so that other load on the machine disturbs all alike.

    A call that has used ``enough_s`` in all is not repeated; the first of several repeats does not count.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            if sum(durations[name]) < enough_s:
                begin = time.perf_counter()
                call()
                durations[name].append(time.perf_counter() - begin)
    return {name: min(found[1:] or found) for name, found in durations.items()}


def repeats_for(count: int, quick: bool) -> int:
    """How often to measure K hypotheses."""
    if quick:
        return 3 if count == 1 else 1
    return 15 if count == 1 else 4 if count <= 64 else 2


class PlainMujoco:
    """The same bodies in a plain MuJoCo model, and the K start states of a kind.

    The pusher is a heavy body without gravity that starts at its speed, so that no controls are needed.

    Attributes:
        model: the compiled model; initial: (K, nstate) MuJoCo start states; steps: of a rollout of 1 s.
        pool, data: the threads and the MuJoCo data of each.
        out: (rows, steps, nstate), sensed: (rows, steps, nsensordata): buffers of one native call.
    """

    def __init__(
        self, kind: str, count: int, step_s: float, pyramidal: bool, threads: int, touch_sensors: bool = False
    ) -> None:
        scene = scene_of(kind)
        bodies = [scene_body(scene, i) for i in range(len(scene))]
        states = np.tile(scene_states(scene), (count, 1, 1))
        if kind != ALL_MOVING:
            bodies.append(body_from_spec(PUSHER))
            starts, ends = push_paths(count)
            pusher = np.tile(rest_state(np.zeros(3)), (count, 1, 1))
            pusher[:, 0, POSITION] = starts
            pusher[:, 0, LINEAR_VELOCITY] = (ends - starts) / HORIZON_S
            states = np.concatenate([states, pusher], axis=1)
        else:
            states[:, 1:, LINEAR_VELOCITY] = velocities(count)

        def weightless(spec: mujoco.MjSpec) -> None:
            spec.body(f"body{len(bodies) - 1}").gravcomp = 1.0

        decorate = weightless if kind != ALL_MOVING else None
        world = World(bodies, -0.75, step_s, decorate, touch_sensors=touch_sensors)
        self.model = world.model
        if kind != ALL_MOVING:
            world.make_kinematic(self.model, len(bodies) - 1)
        if pyramidal:
            self.model.opt.cone, self.model.opt.impratio = mujoco.mjtCone.mjCONE_PYRAMIDAL, 1.0
        assert not (states[..., ANGULAR_VELOCITY] != 0.0).any() and (states[..., QUATERNION][..., 3] == 1.0).all()
        self.initial = np.stack([world.pack(s) for s in states])
        self.steps = round(HORIZON_S / step_s)
        self.pool = mujoco.rollout.Rollout(nthread=threads)
        self.data = [mujoco.MjData(self.model) for _ in range(threads)]
        rows = min(count, _CHUNK)
        self.out = np.empty((rows, self.steps, self.initial.shape[1]))
        self.sensed = np.empty((rows, self.steps, self.model.nsensordata))

    def run(self) -> Array:
        """One second of all K; the states (rows, steps, nstate) of the last part."""
        for begin in range(0, len(self.initial), _CHUNK):
            part = self.initial[begin : begin + _CHUNK]
            self.pool.rollout(
                [self.model] * len(part),
                self.data,
                part,
                skip_checks=True,
                nstep=self.steps,
                state=self.out[: len(part)],
                sensordata=self.sensed[: len(part)],
            )
        return self.out

    def close(self) -> None:
        """Ends the threads."""
        self.pool.close()


def measure(
    backends: dict[str, Dynamics],
    counts: Sequence[int],
    threads: int,
    on_row: Callable[[str], None] | None = None,
    quick: bool = False,
) -> dict[str, dict[str, dict[str, float]]]:
    """Rollouts per second: kind -> method (backends, MuJoCo at two steps with the faster cones, and as the physics
    backend has it) -> K.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for kind in KINDS:
        scene = scene_of(kind)
        rows: dict[str, dict[str, float]] = {name: {} for name in (*backends, *MUJOCO_STEPS_S, AS_PHYSICS)}
        for count in counts:
            batch = hypotheses(kind, count)
            calls: dict[str, Callable[[], Any]] = {
                name: lambda d=dynamics, a=batch, g=scene: d.rollout([g], a, TIMES)  # type: ignore[misc]
                for name, dynamics in backends.items()
            }
            plain = {
                f"{name}, {cones}": PlainMujoco(kind, count, step, cones == "pyramidal", threads)
                for name, step in MUJOCO_STEPS_S.items()
                for cones in ("elliptic", "pyramidal")
            }
            plain[AS_PHYSICS] = PlainMujoco(kind, count, PHYSICS_STEP_S, False, threads, touch_sensors=True)
            calls |= {name: model.run for name, model in plain.items()}
            for name, seconds in best_seconds(calls, repeats_for(count, quick)).items():
                rows.setdefault(name, {})[str(count)] = count / seconds
            for name in MUJOCO_STEPS_S:
                rows[name][str(count)] = max(
                    rows[f"{name}, {cones}"][str(count)] for cones in ("elliptic", "pyramidal")
                )
            for model in plain.values():
                model.close()
            if on_row is not None:
                on_row(f"speed, {kind.replace('_', ' ')}, K = {count}")
        result[kind] = rows
    return result
