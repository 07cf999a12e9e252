"""Held-out worlds with interventions on them, and their true futures: those of the simulator itself.

A case is a world at an instant (mostly while something moves), the factual future, and seven interventions, most of
which lead to contacts. Everything in it follows from split and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.imagination.scenarios import scenarios
from benchmarks.imagination.store import ROOT, cached, fingerprint
from training.worlds.splits import SPLITS, Split
from training.worlds.worlds import random_scene
from wm_core.interventions import (
    Hypothesis,
)
from wm_core.rollout import LINEAR_VELOCITY
from wm_core.scene_graph import SceneGraph
from wm_dynamics.mujoco.bodies import BodyDef
from wm_sim.scenes import BuiltScene
from wm_sim.simulator import Simulator

Array = NDArray[np.float64]

FIRST_SEED = 70_000
"""Worlds are drawn from here on: the perception benchmark draws from 50000 (retries in steps of 1000, to 54015), the
reasoner's card from 20000, the data of the dynamics from 500000, and what training draws is of the split ``train``."""
LEAST_OBJECTS = 3
"""Worlds with fewer movable objects are passed over."""
CAMERA_RATE_HZ = 15.0
"""Images a second that perception is given; more make the benchmark slower."""
HORIZON_S = 2.0
"""Length of the futures [s]: the longest horizon of the figures."""
STEP_S = 1.0 / 30.0
"""Time between states [s]: that of the imagination service by default."""
MAX_SPEED_M_S = 20.0
"""A world with a faster object is left out as diverged: interventions give 2 m/s at most, a fall from a table 5."""

Draw = Callable[[SceneGraph, float, np.random.Generator], list[tuple[str, Hypothesis]] | None]
"""Hypotheses by kind, the factual one first, of a true scene, the height [m] of its table, and a generator."""

_PACKAGES = ROOT / "ros2_ws/src"
CASE_SOURCES = (
    Path(__file__),
    Path(__file__).with_name("scenarios.py"),
    *(ROOT / "training/worlds").rglob("*.py"),
    *(p for p in (_PACKAGES / "wm_sim/wm_sim").glob("*.py") if p.stem not in ("node", "main", "parameters", "gazebo")),
    *(_PACKAGES / "wm_dynamics/wm_dynamics/mujoco").glob("*.py"),
    _PACKAGES / "wm_dynamics/wm_dynamics/interventions.py",
    *(_PACKAGES / "wm_core/wm_core").glob("*.py"),
)
"""What a case is made by: where one of these files changes, cases on disk are made again."""


@dataclass(frozen=True)
class Case:
    """A world at an instant, K hypotheses about it (the first without intervention), and the K true futures.

    Attributes:
        split, seed, start_s: which world, and when [s] after its start (a whole number of frames at 15 Hz).
        scene: the true scene graph then, without covariance; shapes as primitives or hulls, with their convex parts.
        bodies: the true bodies of its objects, in its order, with all their parts.
        hypotheses: K, with true object ids; kinds: K names of the interventions.
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
    """The scene without materials and meshes: the physics is the same, and nothing has to be drawn."""
    bodies = tuple(
        replace(b, geoms=tuple(replace(g, material="") for g in b.geoms if g.mesh is None)) for b in scene.bodies
    )
    return replace(scene, bodies=bodies)


def undrawn(body: BodyDef) -> BodyDef:
    """A body's parts that collide, without materials."""
    return replace(body, geoms=tuple(replace(g, material="") for g in body.geoms if not g.visual_only))


def start_time(scene: BuiltScene, rng: np.random.Generator) -> float:
    """The instant [s] of a case: in 8 of 10 just after an object was set in motion, else 1 s; at a camera frame."""
    begins = [do.time_offset for _, do in scene.schedule]
    late = rng.uniform(0.10, 0.18)
    chosen = float(rng.choice(begins)) + late if begins and rng.uniform() < 0.8 else 1.0
    return float(np.ceil(chosen * CAMERA_RATE_HZ - 1e-6) / CAMERA_RATE_HZ)


def usable(scene: BuiltScene) -> bool:
    """Whether a world has enough objects and no pusher, whose further path cannot be known from images."""
    return len(scene.ids) - 1 >= LEAST_OBJECTS and not scene.pushers


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
    return cached(f"truth-{split}-{seed}", fingerprint(CASE_SOURCES), lambda: _make_case(split, seed))


def _make_case(split: Split, seed: int) -> Case | None:
    scene = random_scene(seed, split)
    if not usable(scene):
        return None
    rng = np.random.default_rng([SPLITS.index(split), seed, 31])
    return case_of(scene, split, seed, start_time(scene, rng), scenarios, rng)


def case_of(
    scene: BuiltScene, split: Split, seed: int, start_s: float, draw: Draw, rng: np.random.Generator
) -> Case | None:
    """The case of a world at an instant [s], with the hypotheses that ``draw`` gives; None: none, or it diverges."""
    with Simulator(bare(scene), seed, 64, 48, decorate=lambda _: None) as simulator:
        simulator.advance_to(start_s)
        graph = simulator.ground_truth()
        top = scene.table_top_z
        drawn = draw(graph, top, rng)
        if drawn is None:
            return None
        kinds, hypotheses = zip(*drawn, strict=True)
        times = np.arange(round(HORIZON_S / STEP_S) + 1, dtype=np.float64) * STEP_S
        ground_truth = simulator.ground_truth_rollout(hypotheses, times)
    if (
        not np.isfinite(ground_truth.states).all()
        or np.abs(ground_truth.states[..., LINEAR_VELOCITY]).max() > MAX_SPEED_M_S
    ):
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
        ground_truth.object_ids,
        ground_truth.states,
        ground_truth.present,
        tuple(tuple((t.time_s, t.a, t.b, t.began) for t in touches) for touches in ground_truth.touches),
        float(top),
    )


def load_cases(split: Split, seeds: Sequence[int]) -> list[Case]:
    """The cases of seeds, those that cannot be used left out."""
    return [case for case in (make_case(split, int(seed)) for seed in seeds) if case is not None]
