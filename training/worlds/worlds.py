"""Random table-top worlds by seed: objects and their poses, motion, colors, and the camera.

Splits: ``train``; ``seeds``, the same families of shapes and textures from seeds that training never draws;
``families``, shapes and textures that training never sees; ``assemblies``, more to train on: parts joined at random,
and views that miss the table; ``homeware``, household things with prints, in piles, bins and shelves
(``training.worlds.homeware``); ``stacks``, blocks and cans that stand on each other; ``household``, scanned and
modelled objects, for measuring alone (``training.worlds.household``). A world depends on its split and seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from training.worlds import families
from training.worlds.homeware.scenes import homeware_scene
from training.worlds.household.scenes import household_scene
from training.worlds.motions import DURATION_S, movers, sweeping_pusher
from training.worlds.outlines import inside, overlap
from training.worlds.splits import Split, generator
from training.worlds.tables import random_camera, random_table
from training.worlds.textures import random_texture
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, body_points, lowest_point, rest_state
from wm_sim.objects import centered
from wm_sim.scene_model import Randomize, SceneModel, TableModel
from wm_sim.scenes import TABLE_ID, BuiltScene

Array = NDArray[np.float64]

_POOLS = {"families": families.HELD_OUT, "assemblies": families.ASSEMBLIES, "stacks": families.STACKED}

_DENSITY_KG_M3 = (120.0, 1200.0)
"""Of the materials: from foam and light wood to plastics."""


@dataclass(frozen=True)
class _Placed:
    """An object on the table from above: outline (P, 2), center (2,) and top [m], whether it may carry another."""

    outline: Array
    center: Array
    top: float
    carries: bool


def random_scene(seed: int, split: Split = "train") -> BuiltScene:
    """The world of a seed: 1 to 12 objects on a table, some standing on others, up to three set in motion.

    Raises:
        ValueError: no such split. MissingObjectsError: those of ``household`` are not installed.
    """
    if split == "household":
        return household_scene(seed)
    if split == "homeware":
        return homeware_scene(seed)
    rng = generator(split, seed, 0)
    size, height, board = random_table(rng)
    table_state = board.static_state
    names, classes = ["table"], ["support"]
    bodies = [board]
    states, extents, shapes = [table_state], [size], [Shape.BOX]
    corners = np.array([[sx, sy, 1.0] for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * 0.5 * size
    hulls = [corners]
    rolls: list[float] = [0.0]
    placed: list[_Placed] = []
    pool = _POOLS.get(split, families.TRAINING)
    area = np.array([min(0.40, 0.5 * size[0]), min(0.55, 0.5 * size[1])]) * rng.uniform(0.5, 0.95)
    for _ in range(int(rng.integers(5 if split == "stacks" else 1, 13))):
        family, drawn = families.draw(pool, rng)
        parts, full = centered(list(drawn.parts))
        index = len(bodies)
        white = families.WHITE
        parts = tuple(replace(p, material=f"material{index}") if p.color == white else p for p in parts)
        density = float(np.exp(rng.uniform(*np.log(_DENSITY_KG_M3))))
        body = BodyDef(
            parts,
            density * drawn.fill * float(np.prod(full)),
            float(rng.uniform(0.15, 0.9)),
            float(rng.choice([rng.uniform(0.0, 0.2), rng.uniform(0.2, 0.8)])),
        )
        lying = not drawn.stands or (drawn.lies and rng.uniform() < 0.3)
        turn = Rotation.from_euler("y", 90.0 if lying else 0.0, degrees=True)
        place = _stacked_spot if split == "stacks" else _spot
        spot = place(body, turn, drawn, placed, area, height, lying, rng)
        if spot is None:
            continue
        state, mark = spot
        placed.append(mark)
        names.append(f"{family}{index}")
        classes.append(drawn.class_name)
        bodies.append(body)
        states.append(state)
        extents.append(full)
        shapes.append(drawn.shape)
        hulls.append(body_points(body) if drawn.shape == Shape.CONVEX else np.zeros((0, 3)))
        rolls.append(0.5 * float(full[0]) if drawn.rolls or (lying and drawn.class_name == "can") else 0.0)
    schedule = movers(np.array(states), np.array(extents), bodies, rolls, rng)
    pushers: tuple[int, ...] = ()
    if rng.uniform() < 0.15 and len(states) > 1:
        body, path = sweeping_pusher(np.array(states), height, rng)
        pushers = (len(bodies),)
        schedule.append((len(bodies), path))
        names.append("pusher")
        classes.append("object")
        bodies.append(body)
        states.append(rest_state(path.path_positions[0], path.path_quaternions[0]))
        extents.append(body.geoms[0].extents)
        shapes.append(Shape.BOX)
        hulls.append(np.zeros((0, 3)))
    texture_rng = generator(split, seed, 1)
    colors = [
        random_texture(split, texture_rng, row == 0).reshape(-1, 3).mean(axis=0) / 255.0 for row in range(len(bodies))
    ]
    model = SceneModel.model_construct(
        name=f"{split}-{seed}",
        description=f"random world {seed} of {split}",
        duration=DURATION_S,
        table=TableModel(size=size.tolist(), height=height),
        walls=True,
        camera=random_camera(rng, split == "assemblies"),
        randomize=Randomize(),
        objects=[],
        actions=[],
        pushers=[],
    )
    return BuiltScene(
        model=model,
        names=tuple(names),
        class_names=tuple(classes),
        bodies=tuple(bodies),
        states=np.array(states),
        schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)),
        pushers=pushers,
        table_top_z=height,
        extents=np.array(extents),
        shapes=tuple(shapes),
        hulls=tuple(hulls),
        colors=np.array(colors),
        ids=tuple(range(TABLE_ID, TABLE_ID + len(bodies))),
    )


def _spot(
    body: BodyDef,
    turn: Rotation,
    drawn: families.DrawnObject,
    placed: list[_Placed],
    area: Array,
    table_top: float,
    lying: bool,
    rng: np.random.Generator,
) -> tuple[Array, _Placed] | None:
    """A free place on the table or on a carrier: the state (13,) there and its mark. None: no room."""
    for attempt in range(25):
        rotation = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)) * turn
        quaternion = rotation.as_quat()
        points = rotation.apply(body_points(body))
        outline = points[:, :2][ConvexHull(points[:, :2]).vertices]
        carriers = [p for p in placed if p.carries]
        if carriers and attempt < 3 and rng.uniform() < 0.25:
            base = carriers[int(rng.integers(len(carriers)))]
            shifted = outline + base.center
            others = [p for p in placed if p is not base]
            if inside(base.outline, shifted) and not any(overlap(p.outline, shifted) for p in others):
                placed[:] = [replace(p, carries=False) if p is base else p for p in placed]
                center, level = base.center, base.top
            else:
                continue
        else:
            center, level = rng.uniform(-area, area), table_top
            if any(overlap(p.outline, outline + center) for p in placed):
                continue
        z = level - lowest_point(body, quaternion)
        state = rest_state((center[0], center[1], z), quaternion)
        top = z + float(points[:, 2].max())
        return state, _Placed(outline + center, center, top, drawn.carries and not lying)
    return None


_STACKED = 0.75
"""How likely a thing is put onto another one in ``stacks``, where one can carry it."""
_LEAST_FOOT = 0.4
"""Smallest width of what carries, as a share of that of what it carries: a wider one hides it from above."""
_OVER = 0.3
"""Largest offset of what is carried, as a share of the narrower half width. It stays on what carries it."""


def _stacked_spot(
    body: BodyDef,
    turn: Rotation,
    drawn: families.DrawnObject,
    placed: list[_Placed],
    area: Array,
    table_top: float,
    lying: bool,
    rng: np.random.Generator,
) -> tuple[Array, _Placed] | None:
    """As ``_spot``, but onto another thing more often than not, turned and shifted, and wider than it or narrower."""
    for _ in range(6):
        carriers = [p for p in placed if p.carries]
        if not carriers or lying or rng.uniform() > _STACKED:
            break
        base = carriers[int(rng.integers(len(carriers)))]
        rotation = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)) * turn
        points = rotation.apply(body_points(body))
        outline = points[:, :2][ConvexHull(points[:, :2]).vertices]
        own, below = 0.5 * float(np.ptp(outline, axis=0).min()), 0.5 * float(np.ptp(base.outline, axis=0).min())
        if below < _LEAST_FOOT * own:
            continue
        bearing = rng.uniform(-np.pi, np.pi)
        offset = _OVER * min(own, below) * float(rng.uniform()) * np.array([np.cos(bearing), np.sin(bearing)])
        shifted = outline + base.center + offset
        if any(p is not base and p.top > base.top + 0.001 and overlap(p.outline, shifted) for p in placed):
            continue
        placed[:] = [replace(p, carries=False) if p is base else p for p in placed]
        quaternion = rotation.as_quat()
        z = base.top - lowest_point(body, quaternion)
        state = rest_state((*(base.center + offset), z), quaternion)
        mark = _Placed(shifted, base.center + offset, z + float(points[:, 2].max()), drawn.carries)
        return state, mark
    return _spot(body, turn, drawn, placed, area, table_top, lying, rng)
