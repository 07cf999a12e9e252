"""Random table-top worlds by seed: objects and their poses, motion, colors, and the camera.

Splits: ``train``; ``seeds``, the same families of shapes and textures from seeds that training never draws;
``families``, shapes and textures that training never sees; ``assemblies``, more to train on: parts joined at random,
and views that miss the table; ``household``, scanned and modelled objects, for measuring alone
(``training.worlds.household``). A world depends on its split and seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from training.worlds import families
from training.worlds.splits import Split, generator
from training.worlds.textures import random_texture
from wm_core.interventions import Intervention, InterventionKind
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_points, lowest_point, rest_state
from wm_sim.objects import centered
from wm_sim.scene_model import CameraModel, OrbitModel, Randomize, SceneModel, TableModel
from wm_sim.scenes import TABLE_ID, BuiltScene

Array = NDArray[np.float64]

_POOLS = {"families": families.HELD_OUT, "assemblies": families.ASSEMBLIES}

DURATION_S = 4.0
"""Length of a clip [s]."""
_DENSITY_KG_M3 = (120.0, 1200.0)
"""Of the materials: from foam and light wood to plastics."""
_CLEARANCE_M = 0.002
"""Least distance of two outlines: overlapping objects would be thrown apart."""


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
        from training.worlds.household.scenes import household_scene  # here, as it builds on this module

        return household_scene(seed)
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
    for _ in range(int(rng.integers(1, 13))):
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
        spot = _spot(body, turn, drawn, placed, area, height, lying, rng)
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
    schedule = random_movers(np.array(states), np.array(extents), bodies, rolls, rng)
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


def random_table(rng: np.random.Generator) -> tuple[Array, float, BodyDef]:
    """Size (3,) of a table's top [m], the height of its surface [m], and the table."""
    size = np.array([rng.uniform(0.6, 1.1), rng.uniform(0.8, 1.6), rng.uniform(0.02, 0.06)])
    height = float(rng.uniform(0.35, 1.0))
    board = GeomDef(Shape.BOX, size, color=(1.0, 1.0, 1.0, 1.0), material="table")
    legs = tuple(
        GeomDef(
            Shape.BOX,
            np.array([0.05, 0.05, height - size[2]]),
            color=(0.35, 0.30, 0.26, 1.0),
            visual_only=True,
            position=np.array([sx * (0.5 * size[0] - 0.06), sy * (0.5 * size[1] - 0.06), -0.5 * height]),
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    )
    return size, height, BodyDef((board, *legs), 0.0, 0.5, 0.1, True, rest_state((0.0, 0.0, height - 0.5 * size[2])))


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
            if outline_inside(base.outline, shifted) and not any(outlines_overlap(p.outline, shifted) for p in others):
                placed[:] = [replace(p, carries=False) if p is base else p for p in placed]
                center, level = base.center, base.top
            else:
                continue
        else:
            center, level = rng.uniform(-area, area), table_top
            if any(outlines_overlap(p.outline, outline + center) for p in placed):
                continue
        z = level - lowest_point(body, quaternion)
        state = rest_state((center[0], center[1], z), quaternion)
        top = z + float(points[:, 2].max())
        return state, _Placed(outline + center, center, top, drawn.carries and not lying)
    return None


def outlines_overlap(first: Array, second: Array) -> bool:
    """Whether two convex outlines come closer than a small clearance (separating axes)."""
    for outline in (first, second):
        edge = np.roll(outline, -1, axis=0) - outline
        normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.maximum(np.linalg.norm(edge, axis=1), 1e-9)[:, None]
        a, b = first @ normal.T, second @ normal.T
        if np.maximum(b.min(0) - a.max(0), a.min(0) - b.max(0)).max() > _CLEARANCE_M:
            return False
    return True


def outline_inside(base: Array, outline: Array) -> bool:
    """Whether an outline (P, 2) lies in a convex one (Q, 2), both [m], or reaches a centimeter over it."""
    hull = ConvexHull(base)
    return bool((outline @ hull.equations[:, :2].T + hull.equations[:, 2] < 0.01).all())


def random_movers(
    states: Array, extents: Array, bodies: list[BodyDef], rolls: list[float], rng: np.random.Generator
) -> list[tuple[int, Intervention]]:
    """Up to three objects set in motion, mostly towards others."""
    schedule: list[tuple[int, Intervention]] = []
    count = len(states) - 1
    if count < 1 or rng.uniform() < 0.12:
        return schedule
    chosen = rng.permutation(count)[: int(rng.integers(1, 4))] + 1
    for index in chosen:
        others = [k for k in range(1, count + 1) if k != index]
        angle = rng.uniform(-np.pi, np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        if others and rng.uniform() < 0.85:
            distance = np.linalg.norm(states[others, :2] - states[index, :2], axis=1)
            near = np.array(others)[np.argsort(distance)[:3]]
            target = states[int(rng.choice(near)), :2] + rng.normal(0.0, 0.015, 2)
            direction = target - states[index, :2]
            direction /= max(float(np.linalg.norm(direction)), 1e-6)
        time = float(rng.uniform(0.6, 2.2))
        if rng.uniform() < 0.15:
            # A knock near the top, which may topple it.
            height = 0.35 * float(extents[index, 2])
            impulse = np.array([*direction, 0.0]) * bodies[index].mass * rng.uniform(0.4, 1.2)
            schedule.append(
                (
                    int(index),
                    Intervention(
                        InterventionKind.APPLY_IMPULSE, 0, time, impulse=impulse, point=np.array([0.0, 0.0, height])
                    ),
                )
            )
            continue
        speed = float(rng.uniform(0.25, 0.9 if rolls[index] else 1.6))
        linear = np.array([*(direction * speed), 0.0])
        angular = np.cross([0.0, 0.0, 1.0], linear) / rolls[index] if rolls[index] else np.zeros(3)
        schedule.append(
            (
                int(index),
                Intervention(InterventionKind.SET_VELOCITY, 0, time, linear_velocity=linear, angular_velocity=angular),
            )
        )
    return schedule


def sweeping_pusher(states: Array, table_top: float, rng: np.random.Generator) -> tuple[BodyDef, Intervention]:
    """A kinematic block that sweeps through where an object stands."""
    size = np.array([rng.uniform(0.03, 0.06), rng.uniform(0.06, 0.16), rng.uniform(0.05, 0.12)])
    target = states[int(rng.integers(1, len(states))), :2]
    angle = rng.uniform(-np.pi, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    start, end = target - 0.30 * direction, target + rng.uniform(0.0, 0.15) * direction
    z = table_top + 0.5 * size[2] + 0.012
    begin = rng.uniform(0.3, 1.0)
    times = np.array([0.0, begin, begin + np.linalg.norm(end - start) / rng.uniform(0.15, 0.4), DURATION_S + 1.0])
    positions = np.array([[*start, z + 0.35], [*start, z], [*end, z], [*end, z]])
    quaternion = Rotation.from_euler("z", angle).as_quat()
    geom = GeomDef(Shape.BOX, size, color=(1.0, 1.0, 1.0, 1.0), material="pusher")
    path = Intervention(
        InterventionKind.FOLLOW_PATH,
        0,
        0.0,
        path_times=times,
        path_positions=positions,
        path_quaternions=np.tile(quaternion, (len(times), 1)),
    )
    return BodyDef((geom,), 0.5, 0.4, 0.1), path


def random_camera(
    rng: np.random.Generator, astray: bool, nearest_m: float = 0.55, farthest_m: float = 1.25
) -> CameraModel:
    """Still, swinging around the table, or wandering as if held by hand; astray: some are directed past the table."""
    azimuth, distance = rng.uniform(-np.pi, np.pi), rng.uniform(nearest_m, farthest_m)
    elevation = np.radians(rng.uniform(22.0, 65.0))
    position = distance * np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    target = np.array([*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.0, 0.08)])
    if astray and rng.uniform() < 0.35:
        # The table is cut off by the image's edge, or out of it, so that the image shows no object.
        target += [*rng.normal(0.0, 0.35, 2), rng.normal(0.0, 0.15)]
        position[2] += rng.uniform(0.0, 0.3)
    kind = rng.uniform()
    fov = float(rng.uniform(38.0, 60.0))
    if kind < 0.35:
        orbit = OrbitModel(amplitude=float(rng.uniform(4.0, 30.0)), period=float(rng.uniform(4.0, 10.0)))
        return CameraModel(position=position.tolist(), target=target.tolist(), vertical_fov=fov, orbit=orbit)
    rows: list[list[float]] = []
    if kind < 0.6:
        drift = np.cumsum(rng.normal(0.0, 0.03, (12, 6)), axis=0) * [1, 1, 1, 0.5, 0.5, 0.5]
        for k, by in enumerate(drift):
            p, t = position + by[:3], target + by[3:]
            rows.append([0.5 * k, *p[:2], max(float(p[2]), 0.15), *t])
    return CameraModel(position=position.tolist(), target=target.tolist(), vertical_fov=fov, path=rows)
