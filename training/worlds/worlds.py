"""Random table-top worlds by seed: objects and their poses, motion, colors, and the camera.

Splits: ``train``; ``seeds``, the same families of shapes and textures from seeds that training never draws;
``families``, shapes and textures that training never sees; ``assemblies``, more to train on: parts joined at random,
and views that miss the table; ``homeware``, household things with prints, in piles, bins and shelves
(``training.worlds.homeware``); ``stacks``, blocks and cans that stand on each other; ``household``, scanned and
modelled objects, for measuring alone (``training.worlds.household``). A world depends on its split and seed alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from training.worlds import families
from training.worlds.homeware.scenes import homeware_scene
from training.worlds.household.scenes import household_scene
from training.worlds.motions import DURATION_S, movers, sweeping_pusher
from training.worlds.splits import Split, generator
from training.worlds.tables import random_camera, random_table
from training.worlds.tabletop import Tabletop, Thing
from training.worlds.textures import random_texture
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, body_points, rest_state
from wm_sim.objects import centered
from wm_sim.scene_model import Randomize, SceneModel, TableModel
from wm_sim.scenes import TABLE_ID, BuiltScene

Array = NDArray[np.float64]

_POOLS = {"families": families.HELD_OUT, "assemblies": families.ASSEMBLIES, "stacks": families.STACKED}

_DENSITY_KG_M3 = (120.0, 1200.0)
"""Of the materials: from foam and light wood to plastics."""


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
    pool = _POOLS.get(split, families.TRAINING)
    area = np.array([min(0.40, 0.5 * size[0]), min(0.55, 0.5 * size[1])]) * rng.uniform(0.5, 0.95)
    tabletop = Tabletop(area, height)
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
        thing = Thing(body, turn, lying, drawn.carries and not lying)
        state = tabletop.stack(thing, rng) if split == "stacks" else tabletop.put(thing, rng)
        if state is None:
            continue
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
