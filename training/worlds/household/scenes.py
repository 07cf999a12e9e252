"""Table-tops with household objects by seed: 3 to 10 of them standing, lying, or in and on one another.

Odd seeds set up to three objects in motion, even seeds leave everything at rest. Objects are placed a little above what
carries them and come to rest in the physics of the simulator before the scene begins, so that it begins at rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from training.worlds.household.catalogue import CATALOGUE, Entry
from training.worlds.household.scanned import ScannedObject, load
from training.worlds.motions import DURATION_S, movers
from training.worlds.outlines import inside, overlap
from training.worlds.simulate import compile_world, simulate
from training.worlds.splits import generator
from training.worlds.tables import random_camera, random_table
from wm_core.interventions import Intervention
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, body_points, lowest_point, rest_state
from wm_sim.scene_model import CameraModel, Randomize, SceneModel, TableModel
from wm_sim.scenes import TABLE_ID, BuiltScene

Array = NDArray[np.float64]

OBJECTS = (3, 10)
"""Fewest and most objects of a table."""
NEAREST_M, FARTHEST_M = 0.5, 1.4
"""Distances of the camera [m]."""
HIGHEST_M = 1.05
"""Height of the camera over the table [m] at most: what is further below it than 1.1 m is a floor to perception
(``floor_below_camera_m``), on which it looks for nothing."""
_ABOVE_M = 0.002
"""Height [m] from which objects fall onto what carries them; larger ones bounce."""
_REST_S = 1.5
"""Time [s] in which objects come to rest; what has not by then, or fell off the table, is left out."""
_STILL_M_S = 0.02
"""Speed [m/s] below which an object is at rest."""
_ON_ANOTHER = 0.12
"""How often an object is put on or into another, where it fits."""


@dataclass(frozen=True)
class Placed:
    """An object on the table from above: outline (P, 2) and center (2,) [m], top [m], whether it may carry another."""

    outline: Array
    center: Array
    top: float
    carries: bool


@dataclass(frozen=True)
class Arrangement:
    """Objects, their bodies and their states (N, 13), without the table; lying: (N,) whether each was laid down."""

    objects: tuple[ScannedObject, ...]
    bodies: tuple[BodyDef, ...]
    states: Array
    lying: tuple[bool, ...]

    def only(self, rows: Sequence[int], states: Array | None = None) -> Arrangement:
        """These objects alone; states: (n, 13) of theirs, in place of those they have."""
        return Arrangement(
            tuple(self.objects[k] for k in rows),
            tuple(self.bodies[k] for k in rows),
            self.states[list(rows)] if states is None else states,
            tuple(self.lying[k] for k in rows),
        )


@lru_cache(maxsize=8)
def household_scene(seed: int) -> BuiltScene:
    """The table-top of a seed.

    Raises:
        MissingObjectsError: the objects are not installed.
    """
    rng = generator("household", seed, 0)
    size, height, board = random_table(rng)
    area = np.array([min(0.40, 0.5 * size[0]), min(0.55, 0.5 * size[1])]) * rng.uniform(0.55, 0.95)
    least, most = OBJECTS
    count = int(rng.integers(least, most + 1))
    found = at_rest(arrange(draw_entries(rng, count + 1), area, height, rng), board, height)
    found = found.only(range(min(count, len(found.objects))))
    camera = camera_above(rng)
    scene = built_scene(f"household-{seed}", found, board, size, height, camera)
    if seed % 2:
        rolls = [0.0] + [
            0.5 * float(o.extents[0]) if lies and o.entry.shape == Shape.CYLINDER else 0.0
            for o, lies in zip(found.objects, found.lying, strict=True)
        ]
        schedule: list[tuple[int, Intervention]] = []
        while found.objects and not schedule:
            schedule = movers(scene.states, scene.extents, list(scene.bodies), rolls, rng)
        scene = replace(scene, schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)))
    return scene


def camera_above(rng: np.random.Generator) -> CameraModel:
    """A camera at random that is never higher over the table than ``HIGHEST_M``."""
    while True:
        camera = random_camera(rng, False, NEAREST_M, FARTHEST_M)
        if max([camera.position[2], *(row[3] for row in camera.path)]) <= HIGHEST_M:
            return camera


def draw_entries(rng: np.random.Generator, count: int) -> list[Entry]:
    """Different objects of the catalogue at random."""
    weights = np.array([e.likely for e in CATALOGUE])
    rows = rng.choice(len(CATALOGUE), size=count, replace=False, p=weights / weights.sum())
    return [CATALOGUE[int(k)] for k in rows]


def arrange(entries: list[Entry], area: Array, table_top: float, rng: np.random.Generator) -> Arrangement:
    """Objects on free places of a table, or on and in one another; those without room are left out.

    Args:
        area: (2,) half sizes of where their centers may be [m]; table_top: height [m].
    """
    things = sorted((load(e.name) for e in entries), key=lambda o: -float(np.prod(o.extents[:2])))
    chosen, bodies, states, lying = [], [], [], []
    placed: list[Placed] = []
    for thing in things:
        body = thing.body(float(rng.uniform(0.25, 0.8)), float(rng.uniform(0.0, 0.3)))
        lies = bool(rng.uniform() < thing.entry.lies)
        spot = free_place(body, thing.entry, lies, placed, area, table_top, rng)
        if spot is None:
            continue
        state, mark = spot
        placed.append(mark)
        chosen.append(thing)
        bodies.append(body)
        states.append(state)
        lying.append(lies)
    return Arrangement(tuple(chosen), tuple(bodies), np.array(states).reshape(-1, 13), tuple(lying))


def free_place(
    body: BodyDef,
    entry: Entry,
    lies: bool,
    placed: list[Placed],
    area: Array,
    table_top: float,
    rng: np.random.Generator,
) -> tuple[Array, Placed] | None:
    """A state (13,) on the table or on what carries, and its mark; None: no room."""
    on_another = rng.uniform() < _ON_ANOTHER
    tilt = Rotation.from_euler("yx"[int(rng.integers(2))], 90.0 if lies else 0.0, degrees=True)
    for attempt in range(25):
        rotation = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)) * tilt
        quaternion = rotation.as_quat()
        points = rotation.apply(body_points(body))
        outline = points[:, :2][ConvexHull(points[:, :2]).vertices]
        carriers = [p for p in placed if p.carries]
        center, level = rng.uniform(-area, area), table_top
        if carriers and attempt < 6 and on_another:
            base = carriers[int(rng.integers(len(carriers)))]
            others = [p for p in placed if p is not base]
            center, level = base.center, base.top
            if not inside(base.outline, outline + center):
                continue
            if any(overlap(p.outline, outline + center) for p in others):
                continue
            placed[:] = [replace(p, carries=False) if p is base else p for p in placed]
        elif any(overlap(p.outline, outline + center) for p in placed):
            continue
        z = level - lowest_point(body, quaternion) + _ABOVE_M
        top = z + float(points[:, 2].max())
        state = rest_state((center[0], center[1], z), quaternion)
        return state, Placed(outline + center, center, top, entry.carries and not lies)
    return None


def at_rest(found: Arrangement, board: BodyDef, table_top: float, seconds: float = _REST_S) -> Arrangement:
    """The objects where they come to rest; those that fall off the table, or are still moving, are left out."""
    kept = list(range(len(found.objects)))
    states = found.states
    for _ in range(3):  # what is left out may have held others
        scene = built_scene(
            "resting-0", found.only(kept, states), board, board.geoms[0].extents, table_top, CameraModel()
        )
        clip = simulate(scene, seconds, 10.0, world=compile_world(scene))
        last = clip.states[-1, 1:]
        speed = np.linalg.norm(last[:, LINEAR_VELOCITY], axis=1)
        good = np.isfinite(last).all(axis=1) & (speed < _STILL_M_S) & (last[:, POSITION][:, 2] > table_top)
        states = last[good].copy()
        states[:, LINEAR_VELOCITY] = states[:, ANGULAR_VELOCITY] = 0.0
        kept = [k for k, fine in zip(kept, good, strict=True) if fine]
        if good.all():
            break
    return found.only(kept, states)


def built_scene(
    name: str, found: Arrangement, board: BodyDef, size: Array, height: float, camera: CameraModel
) -> BuiltScene:
    """The scene of a table (its size (3,) [m], height [m]) and objects on it; nothing is scheduled."""
    corners = np.array([[sx, sy, 1.0] for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * 0.5 * size
    model = SceneModel.model_construct(
        name=name,
        description=f"household objects on a table, {name}",
        duration=DURATION_S,
        table=TableModel(size=np.asarray(size).tolist(), height=height),
        walls=True,
        camera=camera,
        randomize=Randomize(),
        objects=[],
        actions=[],
        pushers=[],
    )
    count = len(found.objects)
    return BuiltScene(
        model=model,
        names=("table", *(f"{o.entry.name}{k}" for k, o in enumerate(found.objects, start=1))),
        class_names=("support", *(o.entry.class_name for o in found.objects)),
        bodies=(board, *found.bodies),
        states=np.concatenate([board.static_state[None], found.states]),
        schedule=(),
        pushers=(),
        table_top_z=height,
        extents=np.array([size, *(o.extents for o in found.objects)]),
        shapes=(Shape.BOX, *(o.entry.shape for o in found.objects)),
        hulls=(
            corners,
            *(
                body_points(b) if o.entry.shape == Shape.CONVEX else np.zeros((0, 3))
                for o, b in zip(found.objects, found.bodies, strict=True)
            ),
        ),
        colors=np.array([[0.5, 0.5, 0.5], *(o.color for o in found.objects)]),
        ids=tuple(range(TABLE_ID, TABLE_ID + count + 1)),
    )
