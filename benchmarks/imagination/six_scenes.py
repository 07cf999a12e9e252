"""Six scenes of hollow and forked objects, each with one intervention, built as the simulator's scenes are.

A ball dropped into a bowl, a spoon into a mug, two boxes stacked on a pan, a mug hooked by its handle, a T pushed at
the end of its bar, a tower of mugs. What is imagined of them is measured by ``benchmarks.imagination.compounds``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core import interventions as do
from wm_core.interventions import BodySpec, Hypothesis
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_points, lowest_point, rest_state
from wm_sim import objects
from wm_sim.scene_model import CameraModel, Randomize, SceneModel, TableModel
from wm_sim.scenes import TABLE_ID, BuiltScene

Array = NDArray[np.float64]

TABLE_SIZE_M, TABLE_HEIGHT_M = (1.0, 1.3, 0.04), 0.75
"""Of the table: that of the demo."""
_DENSITY_KG_M3 = 500.0
"""Of every material: plastics and wood lie around it."""
_FRICTION = 0.5
_COLORS = ((0.85, 0.25, 0.2), (0.2, 0.45, 0.8), (0.95, 0.75, 0.2), (0.3, 0.65, 0.35))
_VARIATION = 0.12
"""Sizes vary by this share, places by this times 10 cm, so that a scene is a family and not one lucky arrangement."""


@dataclass(frozen=True)
class Scene:
    """A scene and what is done in it.

    Attributes:
        name: for people. built: the world. hypothesis: the intervention, with true ids.
    """

    name: str
    built: BuiltScene
    hypothesis: Hypothesis


@dataclass(frozen=True)
class _Item:
    """An object: its parts, standing on z = 0, its place on the table (2,) [m], yaw [rad], class."""

    name: str
    class_name: str
    parts: tuple[GeomDef, ...]
    place: tuple[float, float]
    yaw: float = 0.0
    lying: bool = False


def _color(k: int) -> objects.Color:
    return (*_COLORS[k % len(_COLORS)], 1.0)


def _one(shape: Shape, size: tuple[float, float, float], k: int) -> tuple[GeomDef, ...]:
    return (GeomDef(shape, np.array(size), color=_color(k)),)


def pan(diameter: float, height: float, color: objects.Color) -> list[GeomDef]:
    """A flat pan with a straight handle toward +x, half as long again as the pan is wide."""
    bowl = objects.mug(diameter, height, color)[:17]  # floor and walls, without the handle
    length = 0.8 * diameter
    handle = GeomDef(
        Shape.BOX,
        np.array([length, 0.025, 0.015]),
        position=np.array([0.5 * (diameter + length) - 0.004, 0.0, 0.7 * height]),
        color=color,
    )
    return [*bowl, handle]


def _build(name: str, items: list[_Item], rng: np.random.Generator) -> BuiltScene:
    """The scene of objects on the table; places are varied."""
    size = np.array(TABLE_SIZE_M)
    table = BodyDef(
        (GeomDef(Shape.BOX, size, color=(1.0, 1.0, 1.0, 1.0), material="table_wood"),),
        0.0,
        0.5,
        0.1,
        True,
        rest_state((0.0, 0.0, TABLE_HEIGHT_M - 0.5 * size[2])),
    )
    corners = np.array([[sx, sy, 1.0] for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * 0.5 * size
    bodies, states, extents, hulls, shapes = [table], [table.static_state], [size], [corners], [Shape.BOX]
    for item in items:
        parts, full = objects.centered(list(item.parts))
        solid = sum(_volume(p) for p in parts)
        body = BodyDef(parts, _DENSITY_KG_M3 * solid, _FRICTION, 0.1)
        turn = Rotation.from_euler("z", item.yaw + rng.uniform(-0.2, 0.2))
        if item.lying:
            turn = turn * Rotation.from_euler("y", 90.0, degrees=True)
        x, y = np.array(item.place) + 0.1 * _VARIATION * rng.uniform(-1.0, 1.0, 2)
        quaternion = turn.as_quat()
        states.append(rest_state((x, y, TABLE_HEIGHT_M - lowest_point(body, quaternion)), quaternion))
        bodies.append(body)
        extents.append(full)
        shapes.append(parts[0].shape if len(parts) == 1 else Shape.CONVEX)
        hulls.append(np.zeros((0, 3)) if len(parts) == 1 else body_points(body))
    model = SceneModel.model_construct(
        name=name,
        description=name,
        duration=4.0,
        table=TableModel(size=list(TABLE_SIZE_M), height=TABLE_HEIGHT_M),
        walls=True,
        camera=CameraModel(position=[-0.75, 0.1, 0.55], target=[0.0, 0.0, 0.03], vertical_fov=45.0),
        randomize=Randomize(),
        objects=[],
        actions=[],
        pushers=[],
    )
    count = len(bodies)
    return BuiltScene(
        model=model,
        names=("table", *(i.name for i in items)),
        class_names=("support", *(i.class_name for i in items)),
        bodies=tuple(bodies),
        states=np.array(states),
        schedule=(),
        pushers=(),
        table_top_z=TABLE_HEIGHT_M,
        extents=np.array(extents),
        shapes=tuple(shapes),
        hulls=tuple(hulls),
        colors=np.array([(0.6, 0.46, 0.32), *(i.parts[0].color[:3] for i in items)]),
        ids=tuple(range(TABLE_ID, TABLE_ID + count)),
    )


def _volume(part: GeomDef) -> float:
    return float(np.prod(part.extents)) * {Shape.SPHERE: np.pi / 6.0, Shape.CYLINDER: np.pi / 4.0}.get(part.shape, 1.0)


def _top(built: BuiltScene, name: str) -> Array:
    """(3,) center of the top of an object [m]."""
    k = built.names.index(name)
    flip = (Rotation.from_euler("x", np.pi) * Rotation.from_quat(built.states[k, 3:7])).as_quat()
    return np.asarray(built.states[k, :3] + [0.0, 0.0, -lowest_point(built.bodies[k], flip)])


def _bottom(built: BuiltScene, name: str, quaternion: Array) -> float:
    return -lowest_point(built.bodies[built.names.index(name)], quaternion)


def _onto(built: BuiltScene, what: str, place: Array, drop_m: float, at_s: float = 0.0) -> do.Intervention:
    """Put an object, turned as it is, above a place (3,) by a drop."""
    quaternion = built.states[built.names.index(what), 3:7]
    position = place + [0.0, 0.0, drop_m + _bottom(built, what, quaternion)]
    return do.set_pose(built.id_of(what), position, quaternion, at_s)


def ball_into_bowl(rng: np.random.Generator) -> Scene:
    """A ball dropped into a bowl, off its center."""
    s = 1.0 + _VARIATION * rng.uniform(-1, 1, 2)
    items = [
        _Item("bowl", "bowl", tuple(objects.bowl(0.15 * s[0], 0.065, _color(1))), (0.05, 0.1)),
        _Item("ball", "ball", _one(Shape.SPHERE, (0.05 * s[1],) * 3, 0), (-0.15, -0.15)),
    ]
    built = _build("ball into bowl", items, rng)
    place = _top(built, "bowl") + [*rng.uniform(-0.02, 0.02, 2), 0.0]
    return Scene(built.model.name, built, Hypothesis("drop", (_onto(built, "ball", place, 0.05),)))


def spoon_in_mug(rng: np.random.Generator) -> Scene:
    """A rod as long as a spoon, let down into a mug."""
    s = 1.0 + _VARIATION * rng.uniform(-1, 1, 2)
    items = [
        _Item("mug", "mug", tuple(objects.mug(0.085 * s[0], 0.095, _color(2))), (0.05, 0.1), 0.8),
        _Item("spoon", "tool", _one(Shape.CAPSULE, (0.014, 0.014, 0.15 * s[1]), 3), (-0.15, -0.1), 0.5, lying=True),
    ]
    built = _build("spoon in mug", items, rng)
    mug = built.states[built.names.index("mug"), :3]
    upright = (Rotation.from_euler("z", rng.uniform(-3, 3)) * Rotation.from_euler("y", 8.0, degrees=True)).as_quat()
    # Beside the center of the walls; the handle draws the center of the extents off it.
    walls = mug + Rotation.from_quat(built.states[built.names.index("mug"), 3:7]).apply([-0.0149, 0.0, 0.0])
    place = np.array([*walls[:2], TABLE_HEIGHT_M + 0.03 + _bottom(built, "spoon", upright)])
    return Scene(
        built.model.name, built, Hypothesis("let down", (do.set_pose(built.id_of("spoon"), place, upright, 0.0),))
    )


def stack_on_pan(rng: np.random.Generator) -> Scene:
    """Two boxes put into a pan, one upon the other."""
    s = 1.0 + _VARIATION * rng.uniform(-1, 1, 2)
    items = [
        _Item("pan", "pan", tuple(pan(0.2 * s[0], 0.045, (0.2, 0.2, 0.22, 1.0))), (0.1, 0.05), -1.0),
        _Item("lower", "box", _one(Shape.BOX, (0.07, 0.06, 0.05), 0), (-0.2, -0.2)),
        _Item("upper", "box", _one(Shape.BOX, (0.06, 0.05 * s[1], 0.05), 2), (-0.2, 0.25)),
    ]
    built = _build("stack on a pan", items, rng)
    k = built.names.index("pan")
    axis = Rotation.from_quat(built.states[k, 3:7])
    # The center of the round part: the handle lies beyond it.
    length = 0.8 * 0.2 * s[0]
    center = built.states[k, :3] + axis.apply([-0.5 * (length - 0.004), 0.0, 0.0])
    floor = np.array([*center[:2], TABLE_HEIGHT_M + 0.008])
    first = _onto(built, "lower", floor, 0.01)
    second = _onto(built, "upper", floor + [0.01, 0.0, 0.05], 0.02)
    return Scene(built.model.name, built, Hypothesis("stack", (first, second)))


def hook_by_handle(rng: np.random.Generator) -> Scene:
    """A rod goes through a mug's handle from the side and draws it along."""
    s = 1.0 + _VARIATION * rng.uniform(-1, 1, 1)
    diameter, height = 0.085 * s[0], 0.095
    # The handle points aside, where the camera sees it, and through its hole.
    items = [_Item("mug", "mug", tuple(objects.mug(diameter, height, _color(1))), (0.0, 0.0), 1.9)]
    built = _build("hook by the handle", items, rng)
    state = built.states[1]
    axis = Rotation.from_quat(state[3:7])
    reach = 0.35 * diameter
    # In the frame of the mug's extents: the handle's hole lies between wall and outer bar.
    full = built.extents[1]
    hole = state[:3] + axis.apply([0.5 * full[0] - 0.012 - 0.35 * reach, 0.0, 0.0])
    side, ahead = axis.apply([0.0, 1.0, 0.0]), axis.apply([1.0, 0.0, 0.0])
    positions = np.array([hole + 0.16 * side, hole, hole, hole + 0.15 * ahead])
    body = BodySpec(Shape.BOX, np.array([0.008, 0.09, 0.008]), friction=0.4)
    quaternions = np.tile(state[3:7], (4, 1))
    path = do.follow_path([0.0, 0.3, 0.35, 1.1], positions, body=body, quaternions=quaternions)
    return Scene(built.model.name, built, Hypothesis("hook", (path,)))


def push_tee(rng: np.random.Generator) -> Scene:
    """A T pushed at one end of its bar, so that it turns."""
    s = 1.0 + _VARIATION * rng.uniform(-1, 1, 1)
    width = 0.16 * s[0]
    items = [_Item("tee", "object", tuple(objects.tee(width, 0.05, _color(3))), (0.0, 0.0), rng.uniform(-3, 3))]
    built = _build("T pushed", items, rng)
    state = built.states[1]
    axis = Rotation.from_quat(state[3:7])
    side = float(rng.choice([-1.0, 1.0]))
    begin = state[:3] + axis.apply([0.5 * width + 0.03, side * 0.36 * width, 0.0])
    end = begin + axis.apply([-0.13, 0.0, 0.0])
    body = BodySpec(Shape.BOX, np.array([0.02, 0.04, 0.06]), friction=0.4)
    path = do.follow_path([0.0, 0.7], np.array([begin, end]), body=body, quaternions=np.tile(state[3:7], (2, 1)))
    return Scene(built.model.name, built, Hypothesis("push", (path,)))


def tower_of_mugs(rng: np.random.Generator) -> Scene:
    """Mugs set upon one another, rim to foot, by up to 3 cm off: a foot that hangs over a mouth dips into it."""
    s = 1.0 + _VARIATION * rng.uniform(-1, 1, 1)
    items = [
        _Item(f"mug{k}", "mug", tuple(objects.mug(0.085, 0.09 * s[0], _color(k))), place, yaw)
        for k, (place, yaw) in enumerate((((0.1, 0.05), 0.3), ((-0.15, -0.2), 1.5), ((-0.15, 0.25), -1.2)))
    ]
    built = _build("tower of mugs", items, rng)
    moves = []
    center = np.array([*_wall_center(built, 1), TABLE_HEIGHT_M])
    for k in (1, 2):
        name = f"mug{k}"
        height = built.extents[built.names.index(name), 2]
        own = built.states[built.names.index(name)]
        offset = own[:2] - _wall_center(built, 1 + k)
        center[:2] += rng.uniform(-0.02, 0.02, 2)
        position = np.array([*(center[:2] + offset), TABLE_HEIGHT_M + (k + 0.5) * height + 0.004 * k])
        moves.append(do.set_pose(built.id_of(name), position, own[3:7], 0.0))
    return Scene(built.model.name, built, Hypothesis("tower", tuple(moves)))


def _wall_center(built: BuiltScene, k: int) -> Array:
    """(2,) of the axis of a mug's wall, from which its handle draws the center of the extents off."""
    state, full = built.states[k], built.extents[k]
    return np.asarray((state[:3] + Rotation.from_quat(state[3:7]).apply([-0.5 * (full[0] - full[1]), 0.0, 0.0]))[:2])


SCENES: tuple[Callable[[np.random.Generator], Scene], ...] = (
    ball_into_bowl, spoon_in_mug, stack_on_pan, hook_by_handle, push_tee, tower_of_mugs,
)  # fmt: skip
