"""Clutter of household objects by seed: a heap on the table, or in a bin, under a camera that stands still."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from training.worlds.household.scanned import load
from training.worlds.household.scenes import Arrangement, at_rest, built_scene, draw_entries
from training.worlds.splits import generator
from training.worlds.tabletop import random_table
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, lowest_point, rest_state
from wm_sim.scene_model import CameraModel
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]
Kind = Literal["heap", "bin"]
KINDS: tuple[Kind, ...] = get_args(Kind)

OBJECTS = (6, 14)
"""Fewest and most objects that are dropped."""
LARGEST_M = 0.20
"""Larger objects are not dropped into clutter: racks, the caddy, the pan."""
_HEAP_M = 0.06
"""Half of the side of the square that a heap is dropped on [m]."""
_BIN_M = ((0.26, 0.36), (0.22, 0.30), (0.09, 0.16))
"""Inner length, width and height of bins [m], each from the first to the second."""
_WALL_M = 0.012
"""Thickness of a bin's walls and floor [m]."""
_APART_M = 0.01
"""Height [m] between one dropped object and the next, so that they start apart."""
_REST_S = 2.5
"""Time [s] in which the clutter comes to rest."""


def clutter_scene(seed: int, kind: Kind) -> BuiltScene:
    """The clutter of a seed; a bin is part of what carries, not an object.

    Raises:
        MissingObjectsError: the objects are not installed. ValueError: no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    rng = generator("household", seed, 3 + KINDS.index(kind))
    size, height, board = random_table(rng)
    reach = np.full(2, _HEAP_M)
    floor = height
    if kind == "bin":
        inner = np.array([rng.uniform(*bounds) for bounds in _BIN_M])
        board = with_bin(board, inner, 0.5 * size[2], rng)
        reach, floor = 0.5 * inner[:2] - 0.05, height + _WALL_M
    found = dropped(int(rng.integers(*OBJECTS, endpoint=True)), reach, floor, rng)
    found = at_rest(found, board, height, _REST_S)
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(35.0, 70.0))
    position = rng.uniform(0.6, 1.1) * np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    camera = CameraModel(
        position=position.tolist(), target=[0.0, 0.0, 0.03], vertical_fov=float(rng.uniform(40.0, 55.0))
    )
    scene = built_scene(f"household-{seed}", found, board, size, height, camera)
    return replace(scene, model=scene.model.model_copy(update={"description": f"{kind} {seed}"}))


def with_bin(board: BodyDef, inner: Array, top: float, rng: np.random.Generator) -> BodyDef:
    """A table with a bin of inner sizes (3,) [m] in its middle; top: of the table in its own frame [m]."""
    color = (*(float(c) for c in rng.uniform(0.15, 0.85, 3)), 1.0)
    length, width, height = inner
    rows = [((length, width, _WALL_M), (0.0, 0.0, 0.5 * _WALL_M))]
    for sign in (-1.0, 1.0):
        rows.append(((_WALL_M, width + 2.0 * _WALL_M, height), (sign * 0.5 * (length + _WALL_M), 0.0, 0.5 * height)))
        rows.append(((length, _WALL_M, height), (0.0, sign * 0.5 * (width + _WALL_M), 0.5 * height)))
    turn = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi))
    walls = tuple(
        GeomDef(Shape.BOX, np.array(full), turn.apply(center) + [0.0, 0.0, top], turn.as_quat(), color=color)  # type: ignore[arg-type]
        for full, center in rows
    )
    return replace(board, geoms=(*board.geoms, *walls))


def dropped(count: int, reach: Array, floor: float, rng: np.random.Generator) -> Arrangement:
    """Objects in any orientation above one another, over a place of half sizes ``reach`` (2,) [m] at a height [m]."""
    things = [load(e.name) for e in draw_entries(rng, count + 6)]
    things = [t for t in things if t.extents.max() <= LARGEST_M][:count]
    bodies, states = [], []
    level = floor + _APART_M
    for thing in things:
        body = thing.body(float(rng.uniform(0.4, 0.9)), 0.0)
        quaternion = Rotation.random(random_state=rng).as_quat()
        low = lowest_point(body, quaternion)
        high = -lowest_point(body, (Rotation.from_euler("x", np.pi) * Rotation.from_quat(quaternion)).as_quat())
        states.append(rest_state((*rng.uniform(-reach, reach), level - low), quaternion))
        bodies.append(body)
        level += high - low + _APART_M
    return Arrangement(tuple(things), tuple(bodies), np.array(states).reshape(-1, 13), (False,) * len(things))
