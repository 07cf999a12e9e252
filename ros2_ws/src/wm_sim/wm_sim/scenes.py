"""Builds scenes from their files and a seed: bodies, start states and scheduled interventions."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import ConvexPart
from wm_core.interventions import Intervention, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, STATE_SIZE
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_parts, body_points, lowest_point, rest_state
from wm_dynamics.mujoco.world import World
from wm_sim import objects
from wm_sim.scene_model import PALETTE, ActionModel, SceneError, SceneModel

Array = NDArray[np.float64]

TABLE_ID = 1
"""True id of the table. The objects have the next ids, in the order of the file, then the pushers."""


@dataclass(frozen=True)
class BuiltScene:
    """A scene drawn with a seed, of n bodies: the table, then the objects, then the pushers.

    Attributes:
        model: the content of the scene's file.
        names, class_names: names and classes of the n bodies.
        bodies: the n bodies.
        states: (n, 13) start states [m, m/s, rad/s] in the layout of ``wm_core.rollout``, in the map frame, with its
            origin on the floor below the table's center.
        schedule: (body index, intervention), ordered by the time offset [s] from the start of the scene.
        pushers: indices of the kinematic bodies.
        table_top_z: height of the table's surface [m].
        extents: (n, 3) full sizes [m].
        shapes: the n shapes in the ground truth; the outline of compound objects is ``CONVEX``.
        hulls: n arrays (P, 3) of points in the body's frame [m]; P is 0 where extents and shape suffice.
        colors: (n, 3) rgb 0..1.
        ids: the n true ids.
    """

    model: SceneModel
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    bodies: tuple[BodyDef, ...]
    states: Array
    schedule: tuple[tuple[int, Intervention], ...]
    pushers: tuple[int, ...]
    table_top_z: float
    extents: Array
    shapes: tuple[Shape, ...]
    hulls: tuple[Array, ...]
    colors: Array
    ids: tuple[int, ...] = field(default=())

    @cached_property
    def parts(self) -> tuple[tuple[ConvexPart, ...], ...]:
        """Of the n bodies: their convex parts; empty where a body is one part, or a static support."""
        return tuple(() if body.is_static else body_parts(body) for body in self.bodies)

    def id_of(self, name: str) -> int:
        """True id of the body of a name in the file.

        Raises:
            KeyError: no body has this name; the message lists the names.
        """
        return self.ids[self.names.index(name)] if name in self.names else _unknown(name, self.names)


def _unknown(name: str, names: tuple[str, ...]) -> int:
    raise KeyError(f"no object {name!r} in the scene; there are {', '.join(names)}")


_VOLUME_FACTOR = {
    "box": 1.0,
    "sphere": np.pi / 6.0,
    "cylinder": np.pi / 4.0,
    "capsule": np.pi / 4.0,
    "mug": 0.35,
    "bowl": 0.25,
    "bottle": 0.6,
    "tee": 0.4375,
}
"""Volume of a shape divided by that of its bounds, which with the density gives the mass. Exact but for capsules,
which count as cylinders, and mugs, bowls and bottles, which are estimates. A larger value makes the objects heavier."""


def _rgb(color: list[float] | str) -> tuple[float, float, float]:
    """rgb 0..1 of a color given by its numbers or by a name of ``PALETTE``."""
    if isinstance(color, str):
        return PALETTE[color]
    return float(color[0]), float(color[1]), float(color[2])


def _parts(shape: str, extents: Array, rgba: objects.Color) -> tuple[tuple[GeomDef, ...], Array]:
    """The parts of an object of nominal extents (3,) [m], and the full extents (3,) [m] with e.g. a mug's handle."""
    if shape == "mug":
        return objects.centered(objects.mug(extents[0], extents[2], rgba))
    if shape == "bowl":
        return objects.centered(objects.bowl(extents[0], extents[2], rgba))
    if shape == "tee":
        return objects.centered(objects.tee(extents[0], extents[2], rgba))
    if shape == "bottle":
        return objects.centered(objects.bottle(extents[0], extents[2], rgba))
    kind = {"box": Shape.BOX, "sphere": Shape.SPHERE, "cylinder": Shape.CYLINDER, "capsule": Shape.CAPSULE}[shape]
    return (GeomDef(kind, extents, color=rgba),), extents


def build_scene(model: SceneModel, seed: int = 0) -> BuiltScene:
    """Draw a scene with colors, sizes and poses within its ranges. The same seed gives the same scene.

    Where two bodies overlap by 2 mm or more, the scene is drawn again, 40 times at most, with ranges that shrink
    linearly to 0.

    Raises:
        SceneError: two bodies overlap even at their nominal poses.
    """
    for attempt in range(40):
        built = _draw(model, np.random.default_rng([seed, attempt]), 1.0 - attempt / 39.0)
        if _overlap(built) < 2e-3:
            return built
    raise SceneError(f"scene {model.name!r}: objects overlap by {_overlap(built):.3f} m even at their nominal places")


def _overlap(built: BuiltScene) -> float:
    """Deepest overlap [m] of two bodies at the start, also of an object with the table."""
    import mujoco

    bare = [replace(b, geoms=tuple(replace(g, material="") for g in b.geoms)) for b in built.bodies]
    world = World(bare, 0.0, 0.002, touch_sensors=False)
    data = mujoco.MjData(world.model)
    world.set_positions(data, built.states)
    mujoco.mj_forward(world.model, data)
    return max((-float(c.dist) for c in data.contact), default=0.0)


def _draw(model: SceneModel, rng: np.random.Generator, spread: float) -> BuiltScene:
    """Draw a scene with all ranges multiplied by ``spread`` (0..1); each object uses nine random numbers."""
    table = model.table
    top = table.height
    board = GeomDef(Shape.BOX, np.array(table.size), color=(1.0, 1.0, 1.0, 1.0), material=f"table_{table.look}")
    leg = np.array([0.05, 0.05, top - table.size[2]])
    legs = tuple(
        GeomDef(
            Shape.BOX,
            leg,
            color=(0.35, 0.30, 0.26, 1.0),
            visual_only=True,
            position=np.array([sx * (0.5 * table.size[0] - 0.06), sy * (0.5 * table.size[1] - 0.06), -0.5 * top]),
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    )
    table_state = rest_state((0.0, 0.0, top - 0.5 * table.size[2]))
    names, classes = ["table"], ["support"]
    bodies = [BodyDef((board, *legs), 0.0, 0.5, 0.1, True, table_state)]
    states, extents = [table_state], [np.array(table.size)]
    shapes, hulls, colors = [Shape.BOX], [_corners(np.array(table.size))], [(0.60, 0.46, 0.32)]
    placed: dict[str, tuple[Array, float]] = {}
    for item in model.objects:
        unit = rng.uniform(-1.0, 1.0, 9) * spread
        ranges = item.randomize or model.randomize
        rgb = _jittered(_rgb(item.color), unit[:3] * ranges.color)
        nominal = item.extents * (1.0 + ranges.size * unit[3])
        parts, full = _parts(item.shape, nominal, (*rgb, 1.0))
        if item.pattern != "plain":
            parts = tuple(replace(p, material=f"pattern_{item.pattern}") for p in parts)
        mass = item.density * (1.0 + ranges.density * unit[4]) * _VOLUME_FACTOR[item.shape] * float(np.prod(nominal))
        body = BodyDef(parts, mass, item.friction, item.restitution)
        rotation = Rotation.from_euler("z", item.yaw + ranges.yaw * unit[5], degrees=True)
        if item.lying:
            rotation = rotation * Rotation.from_euler("x", 90.0, degrees=True)
        quaternion = rotation.as_quat()
        offset = np.array([*item.position[:2], item.position[2] if len(item.position) > 2 else 0.0])
        offset[:2] += 0.0 if item.on_top_of else ranges.position * unit[6:8]
        if item.on_top_of:
            base, level = placed[item.on_top_of]
            offset[:2] += base[:2]
            offset[2] += level
        else:
            offset[2] += top
        state = rest_state((offset[0], offset[1], offset[2] - lowest_point(body, quaternion)), quaternion)
        state[LINEAR_VELOCITY] = item.velocity
        state[ANGULAR_VELOCITY] = item.angular_velocity
        radius = 0.5 * float(nominal[0])
        if item.rolling:
            state[ANGULAR_VELOCITY] = np.cross([0.0, 0.0, 1.0], item.velocity) / radius
        flip = (Rotation.from_euler("x", 180.0, degrees=True) * rotation).as_quat()
        placed[item.name] = (offset, float(state[2] - lowest_point(body, flip)))
        names.append(item.name)
        classes.append(item.class_name)
        bodies.append(body)
        states.append(state)
        extents.append(full)
        compound = len(parts) > 1
        shapes.append(Shape.CONVEX if compound else parts[0].shape)
        hulls.append(body_points(body) if compound else np.zeros((0, 3)))
        colors.append(rgb)
    schedule = [_scheduled(a, model, names, bodies) for a in model.actions]
    pushers = []
    for item in model.pushers:
        index = len(bodies)
        rgb = _rgb(item.color)
        size = np.array(item.size if item.shape == "box" else [item.size[0], item.size[0], item.size[-1]])
        geoms, full = _parts(item.shape, size, (*rgb, 1.0))
        body = BodyDef(geoms, 1.0, item.friction, 0.1)
        rows = np.array([[*row, 0.0][:5] for row in item.path], dtype=np.float64)
        positions = rows[:, 1:4] + [0.0, 0.0, top - lowest_point(body, [0, 0, 0, 1])]
        path = Intervention(
            InterventionKind.FOLLOW_PATH,
            0,
            0.0,
            path_times=rows[:, 0] - rows[0, 0],
            path_positions=positions,
            path_quaternions=Rotation.from_euler("z", rows[:, 4:5], degrees=True).as_quat(),
        )
        schedule.append((index, path))
        names.append(item.name)
        classes.append("pusher")
        bodies.append(body)
        states.append(rest_state(positions[0], path.path_quaternions[0]))
        extents.append(full)
        shapes.append(geoms[0].shape)
        hulls.append(np.zeros((0, 3)))
        colors.append(rgb)
        pushers.append(index)
    return BuiltScene(
        model=model,
        names=tuple(names),
        class_names=tuple(classes),
        bodies=tuple(bodies),
        states=np.array(states).reshape(len(bodies), STATE_SIZE),
        schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)),
        pushers=tuple(pushers),
        table_top_z=top,
        extents=np.array(extents),
        shapes=tuple(shapes),
        hulls=tuple(hulls),
        colors=np.array(colors),
        ids=tuple(range(TABLE_ID, TABLE_ID + len(bodies))),
    )


def _corners(size: Array) -> Array:
    """(4, 3) corners of the top of a board of this size (3,) [m], in the board's frame [m]."""
    return np.array([[sx, sy, 1.0] for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * 0.5 * size


def _jittered(rgb: tuple[float, float, float], by: Array) -> tuple[float, float, float]:
    """rgb 0..1 with hue, saturation and value changed by (3,) fractions, the hue by half of its fraction."""
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb(
        (hue + 0.5 * by[0]) % 1.0,
        float(np.clip(saturation + by[1], 0.0, 1.0)),
        float(np.clip(value + by[2], 0.08, 0.95)),
    )


def _scheduled(
    action: ActionModel, model: SceneModel, names: list[str], bodies: list[BodyDef]
) -> tuple[int, Intervention]:
    """The body index and the intervention of a scheduled action."""
    index = names.index(action.object)
    linear, angular = np.array(action.linear), np.array(action.angular)
    if action.kind == "impulse":
        return index, Intervention(
            InterventionKind.APPLY_IMPULSE, 0, action.time, impulse=linear, point=np.array(action.point)
        )
    if action.rolling:
        angular = np.cross([0.0, 0.0, 1.0], linear) / (0.5 * float(bodies[index].geoms[0].extents[0]))
    return index, Intervention(
        InterventionKind.SET_VELOCITY, 0, action.time, linear_velocity=linear, angular_velocity=angular
    )
