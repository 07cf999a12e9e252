"""Table-top scenes as data: YAML files, checked by pydantic, made into bodies by a seed.

Lengths in meters, angles in degrees, times in seconds. Positions are relative to the center of the table top
(x away from the camera's side, y to its left, z up from the table's surface). ``scenes/*.yaml`` are examples
of every field.
"""

from __future__ import annotations

import colorsys
import itertools
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.spatial.transform import Rotation

from wm_core.interventions import Intervention, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, STATE_SIZE
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_points, lowest_point, rest_state
from wm_dynamics.mujoco.world import World
from wm_sim import objects

Array = NDArray[np.float64]
Vector = Annotated[list[float], Field(min_length=3, max_length=3)]
Color = Annotated[list[Annotated[float, Field(ge=0.0, le=1.0)]], Field(min_length=3, max_length=3)]

TABLE_ID = 1
"""True id of the table; objects follow in the order of the file, then pushers."""

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.13, 0.12),
    "orange": (0.92, 0.45, 0.10),
    "yellow": (0.93, 0.76, 0.15),
    "green": (0.18, 0.52, 0.24),
    "teal": (0.10, 0.52, 0.52),
    "blue": (0.13, 0.32, 0.70),
    "navy": (0.10, 0.16, 0.36),
    "purple": (0.42, 0.22, 0.58),
    "pink": (0.88, 0.45, 0.60),
    "brown": (0.42, 0.27, 0.16),
    "wood": (0.72, 0.53, 0.33),
    "cardboard": (0.70, 0.56, 0.40),
    "white": (0.90, 0.90, 0.88),
    "gray": (0.48, 0.49, 0.51),
    "grey": (0.48, 0.49, 0.51),  # as scenes of before 0.2 spell it
    "black": (0.10, 0.10, 0.11),
    "steel": (0.62, 0.64, 0.67),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Randomize(_Strict):
    """Ranges that the seed draws from, uniformly, each way."""

    position: float = Field(0.0, ge=0.0, le=0.3, description="m, x and y")
    yaw: float = Field(0.0, ge=0.0, le=180.0, description="degrees")
    size: float = Field(0.0, ge=0.0, le=0.5, description="fraction of the size")
    color: float = Field(0.0, ge=0.0, le=0.5, description="hue, saturation and value, fraction")
    density: float = Field(0.0, ge=0.0, le=0.9, description="fraction")


class ObjectModel(_Strict):
    """One object on the table."""

    name: str
    class_name: str = Field("object", description="class in the ground truth, e.g. ball, box, can, mug")
    shape: Literal["box", "sphere", "cylinder", "capsule", "mug", "bowl", "bottle"]
    size: list[float] = Field(
        min_length=1, max_length=3, description="m: box x, y, z; sphere diameter; others diameter, height"
    )
    position: list[float] = Field(min_length=2, max_length=3, description="m, of the center; z: of the lowest point")
    on_top_of: str | None = Field(
        None, description="name of an earlier object that it stands on (position is then relative)"
    )
    yaw: float = 0.0
    lying: bool = Field(False, description="axis horizontal, along y before yaw (cylinders, capsules, bottles)")
    color: Color | str = "gray"
    pattern: Literal["plain", "speckle", "stripes", "checker"] = "plain"
    density: float = Field(400.0, gt=1.0, le=20000.0, description="kg/m^3 of its outline")
    friction: float = Field(0.45, ge=0.0, le=2.0)
    restitution: float = Field(0.1, ge=0.0, le=0.95)
    velocity: Vector = [0.0, 0.0, 0.0]
    angular_velocity: Vector = [0.0, 0.0, 0.0]
    rolling: bool = Field(False, description="spin as when rolling at `velocity`")
    randomize: Randomize | None = Field(None, description="overrides the scene's")

    @model_validator(mode="after")
    def _check_size(self) -> ObjectModel:
        expected = {"box": 3, "sphere": 1}.get(self.shape, 2)
        if len(self.size) != expected or not all(0.005 <= s <= 1.0 for s in self.size):
            raise ValueError(f"object {self.name!r}: size {self.size}, expected {expected} lengths of 0.005..1 m")
        if isinstance(self.color, str) and self.color not in PALETTE:
            raise ValueError(f"object {self.name!r}: color {self.color!r}, expected one of {sorted(PALETTE)}")
        return self

    @property
    def extents(self) -> Array:
        """(3,) nominal full sizes [m]."""
        if self.shape == "box":
            return np.array(self.size)
        if self.shape == "sphere":
            return np.full(3, self.size[0])
        return np.array([self.size[0], self.size[0], self.size[1]])


class ActionModel(_Strict):
    """Something that happens at a time, by no hand that the robot knows of."""

    time: float = Field(ge=0.0)
    object: str
    kind: Literal["set_velocity", "impulse"]
    linear: Vector = Field([0.0, 0.0, 0.0], description="m/s, or N s for an impulse")
    angular: Vector = [0.0, 0.0, 0.0]
    point: Vector = Field([0.0, 0.0, 0.0], description="m, offset of an impulse from the center")
    rolling: bool = False


class PusherModel(_Strict):
    """A kinematic body on a path."""

    name: str
    shape: Literal["box", "cylinder", "sphere"] = "box"
    size: list[float]
    color: Color | str = "steel"
    friction: float = 0.4
    path: list[Annotated[list[float], Field(min_length=4, max_length=5)]] = Field(
        min_length=1, description="rows of time, x, y, z of the lowest point, and yaw (0 when left out)"
    )


class OrbitModel(_Strict):
    """Swing of the camera around its target: azimuth = amplitude sin(2 pi t / period)."""

    amplitude: float = Field(gt=0.0, le=180.0)
    period: float = Field(gt=0.5)


class CameraModel(_Strict):
    """Where the camera is and looks."""

    position: Vector = [-0.82, 0.0, 0.58]
    target: Vector = [0.0, 0.0, 0.02]
    vertical_fov: float = Field(45.0, gt=5.0, lt=120.0)
    orbit: OrbitModel | None = None
    path: list[Annotated[list[float], Field(min_length=7, max_length=7)]] = Field(
        [],
        description="rows of time, position x, y, z and target x, y, z; linear between them; overrides the others",
    )

    @model_validator(mode="after")
    def _check_path(self) -> CameraModel:
        times = [row[0] for row in self.path]
        if any(b <= a for a, b in itertools.pairwise(times)):
            raise ValueError(f"camera path: times {times}, expected ascending")
        return self


class TableModel(_Strict):
    """The support: a board on legs."""

    size: Vector = [1.0, 1.3, 0.04]
    height: float = Field(0.75, ge=0.1, le=2.0)
    look: Literal["wood", "light", "dark", "white"] = "wood"


class SceneModel(_Strict):
    """A scene file."""

    name: str
    description: str
    duration: float = Field(10.0, gt=0.0, le=600.0)
    table: TableModel = TableModel()
    walls: bool = True
    camera: CameraModel = CameraModel()
    randomize: Randomize = Randomize()
    objects: list[ObjectModel] = Field(min_length=1, max_length=30)
    actions: list[ActionModel] = []
    pushers: list[PusherModel] = []

    @model_validator(mode="after")
    def _check_names(self) -> SceneModel:
        seen: set[str] = set()
        for item in self.objects:
            if item.name in seen:
                raise ValueError(f"objects: {item.name!r} twice, expected unique names")
            if item.on_top_of is not None and item.on_top_of not in seen:
                raise ValueError(
                    f"object {item.name!r}: on_top_of {item.on_top_of!r}, expected the name of an earlier object"
                )
            seen.add(item.name)
        for action in self.actions:
            if action.object not in seen:
                raise ValueError(f"actions: object {action.object!r}, expected one of {sorted(seen)}")
        return self


class SceneError(ValueError):
    """A scene file that is missing or wrong; the message names the file and the field."""


def scene_folders() -> list[Path]:
    """Where scene files are looked for: beside the sources, then in the installed share folders."""
    folders = [Path(__file__).resolve().parents[1] / "scenes"]
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders += [Path(prefix) / "share" / "wm_sim" / "scenes" for prefix in [*prefixes, sys.prefix]]
    return [f for f in folders if f.is_dir()]


def scene_names() -> list[str]:
    """Names of the scenes that come with the package."""
    folders = scene_folders()
    return sorted(p.stem for p in folders[0].glob("*.yaml")) if folders else []


def load_scene(name: str) -> SceneModel:
    """The scene of a name (as in ``scene_names``) or of a YAML file's path.

    Raises:
        SceneError: no such scene, or a field that is wrong.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        found = [f / f"{name}.yaml" for f in scene_folders() if (f / f"{name}.yaml").is_file()]
        if not found:
            raise SceneError(f"scene {name!r}: not found; there are {', '.join(scene_names())}, or give a .yaml file")
        path = found[0]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return SceneModel.model_validate(content)
    except OSError as error:
        raise SceneError(f"scene file {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise SceneError(f"scene file {path}: {error}") from error


@dataclass(frozen=True)
class BuiltScene:
    """A scene made by a seed.

    Attributes:
        model: the file's contents.
        names, class_names: of the bodies; bodies: table first, then objects, then pushers.
        states: (n, 13) start states, map frame (origin on the floor below the table's center).
        colors: (n, 3) rgb 0..1; volumes: (n,) [m^3] of the outlines.
        patterns: n names of surface patterns.
        schedule: (body index, intervention) with the time offset counted from the start of the scene.
        pushers: indices of kinematic bodies.
        table_top_z: [m].
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

    def id_of(self, name: str) -> int:
        """True id of an object by its name in the file; KeyError where there is none."""
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
}
"""Volume of a shape over that of its bounds (walls of a mug or bowl, contents of a bottle: about)."""


def _rgb(color: list[float] | str) -> tuple[float, float, float]:
    if isinstance(color, str):
        return PALETTE[color]
    return float(color[0]), float(color[1]), float(color[2])


def _parts(shape: str, extents: Array, rgba: objects.Color) -> tuple[tuple[GeomDef, ...], Array]:
    if shape == "mug":
        return objects.centered(objects.mug(extents[0], extents[2], rgba))
    if shape == "bowl":
        return objects.centered(objects.bowl(extents[0], extents[2], rgba))
    if shape == "bottle":
        return objects.centered(objects.bottle(extents[0], extents[2], rgba))
    kind = {"box": Shape.BOX, "sphere": Shape.SPHERE, "cylinder": Shape.CYLINDER, "capsule": Shape.CAPSULE}[shape]
    return (GeomDef(kind, extents, color=rgba),), extents


def build_scene(model: SceneModel, seed: int = 0) -> BuiltScene:
    """Draw a scene: colors, sizes and poses within its ranges. The same seed gives the same scene.

    Draws in which two objects overlap by more than 2 mm are drawn again, with ranges that shrink to nothing.
    """
    for attempt in range(40):
        built = _draw(model, np.random.default_rng([seed, attempt]), 1.0 - attempt / 39.0)
        if _overlap(built) < 2e-3:
            return built
    raise SceneError(f"scene {model.name!r}: objects overlap by {_overlap(built):.3f} m even at their nominal places")


def _overlap(built: BuiltScene) -> float:
    """Deepest overlap [m] of two bodies at the start (the table's with what stands on it included)."""
    import mujoco

    bare = [replace(b, geoms=tuple(replace(g, material="") for g in b.geoms)) for b in built.bodies]
    world = World(bare, 0.0, 0.002, touch_sensors=False)
    data = mujoco.MjData(world.model)
    world.set_positions(data, built.states)
    mujoco.mj_forward(world.model, data)
    return max((-float(c.dist) for c in data.contact), default=0.0)


def _draw(model: SceneModel, rng: np.random.Generator, spread: float) -> BuiltScene:
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
    """(4, 3) corners of a board's top in its own frame [m]."""
    return np.array([[sx, sy, 1.0] for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * 0.5 * size


def _jittered(rgb: tuple[float, float, float], by: Array) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb(
        (hue + 0.5 * by[0]) % 1.0,
        float(np.clip(saturation + by[1], 0.0, 1.0)),
        float(np.clip(value + by[2], 0.08, 0.95)),
    )


def _scheduled(
    action: ActionModel, model: SceneModel, names: list[str], bodies: list[BodyDef]
) -> tuple[int, Intervention]:
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
