"""Household objects as bodies: drawn as their textured meshes, colliding as hidden convex parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from training.worlds.household.catalogue import CATALOGUE, Entry, MissingObjectsError, assets_folder, missing
from training.worlds.household.decomposition import convex_parts, corners, whole
from training.worlds.household.model_files import ModelFile, read_model
from wm_core.convex_parts import hull_part
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef

Array = NDArray[np.float64]

_TURNS: dict[str, Array] = {
    "+z": np.eye(3),
    "+y": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
    "+x": np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
}
"""Rotations that bring the axis of a file that points up to z."""


@dataclass(frozen=True)
class ScannedObject:
    """A household object.

    Attributes:
        entry: of the catalogue.
        geoms: drawn and hidden ones, in a frame with z up where it stands, its origin at the center of its bounds.
        extents: (3,) of its bounds in that frame [m]; mass: [kg]; color: (3,) mean rgb 0..1.
    """

    entry: Entry
    geoms: tuple[GeomDef, ...]
    extents: Array
    mass: float
    color: Array

    def body(self, friction: float, restitution: float) -> BodyDef:
        """As a body with these coefficients."""
        return BodyDef(self.geoms, self.mass, friction, restitution)


def load(name: str) -> ScannedObject:
    """A household object of the catalogue; read and decomposed once.

    Raises:
        KeyError: no such object. MissingObjectsError: the packages are not installed.
    """
    entry = next((e for e in CATALOGUE if e.name == name), None)
    if entry is None:
        raise KeyError(f"household object: got {name!r}, expected one of {', '.join(e.name for e in CATALOGUE)}")
    folder, reason = assets_folder(), missing()
    if folder is None or reason is not None:
        raise MissingObjectsError(reason)
    return _loaded(entry, folder)


@cache
def _loaded(entry: Entry, folder: Path) -> ScannedObject:
    return scanned_object(entry, folder / entry.folder / entry.name / f"{entry.name}.xml")


def scanned_object(entry: Entry, path: Path, parts_folder: Path | None = None) -> ScannedObject:
    """The object of a MJCF file.

    Args:
        parts_folder: where convex parts are kept, in place of the usual folder.

    Raises:
        FileNotFoundError, ModelFileError: as ``read_model``.
    """
    file = read_model(path)
    rotation = _TURNS[entry.up]
    vertices = file.vertices() @ rotation.T
    center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    file = file.turned(rotation, center @ rotation)
    hidden = tuple(_hidden(file, entry, parts_folder))
    colors = [
        g.mesh.texture.reshape(-1, 3).mean(axis=0) / 255.0
        if g.mesh is not None and g.mesh.texture.size
        else np.array(g.color[:3])
        for g in file.drawn
    ]
    return ScannedObject(
        entry,
        (*file.drawn, *hidden),
        np.ptp(vertices, axis=0),
        entry.density * sum(_volume(g) for g in hidden),
        np.mean(colors, axis=0),
    )


def _hidden(file: ModelFile, entry: Entry, folder: Path | None) -> list[GeomDef]:
    if entry.solid == "boxes" and file.boxes:
        return [GeomDef(b.shape, b.extents, b.position, b.quaternion, hidden=True) for b in file.boxes]
    if entry.solid == "convex parts":
        meshes = tuple(g.mesh for g in file.drawn if g.mesh is not None)
        clouds = convex_parts(*whole(meshes), folder)
    else:
        hull = corners(file.vertices())
        clouds = [file.vertices() if hull is None else hull]
    parts = [hull_part(points) for points in clouds]
    return [GeomDef(Shape.CONVEX, p.extents, p.position, hull=p.hull, hidden=True) for p in parts]


def _volume(geom: GeomDef) -> float:
    """Of a hidden part [m^3]."""
    return float(ConvexHull(geom.hull).volume) if len(geom.hull) else float(np.prod(geom.extents))
