"""Table-top scenes as data: YAML files, checked by pydantic.

Lengths in meters, angles in degrees, times in seconds. Positions are relative to the center of the table top
(x away from the camera's side, y to its left, z up from the table's surface). ``scenes/*.yaml`` are examples of every
field.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Array = NDArray[np.float64]
Vector = Annotated[list[float], Field(min_length=3, max_length=3)]
Color = Annotated[list[Annotated[float, Field(ge=0.0, le=1.0)]], Field(min_length=3, max_length=3)]
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
    "grey": (0.48, 0.49, 0.51),  # as scene files before 0.2 spell it
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
    shape: Literal["box", "sphere", "cylinder", "capsule", "mug", "bowl", "bottle", "tee"]
    size: list[float] = Field(
        min_length=1,
        max_length=3,
        description="m: box x, y, z; sphere diameter; tee width, height; others diameter, height",
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
    """A change at a time of the scene, of which the robot is not told."""

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
    """Pose and field of view of the camera."""

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
