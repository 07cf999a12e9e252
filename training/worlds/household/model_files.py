"""Objects described by MJCF files: their textured meshes and their collision boxes, in one frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.rotations import matrix_to_quaternion, quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef, VisualMesh

Array = NDArray[np.float64]

TEXTURE_PIXELS = 512
"""Longest side [pixels] that textures are reduced to: an object fills a third of an image of 640 pixels at most. Larger
ones cost memory and time in every scene that is compiled, smaller ones blur print."""


class ModelFileError(ValueError):
    """A model file that cannot be used: the path, and what is wrong with it."""


@dataclass(frozen=True)
class ModelFile:
    """What a MJCF file describes, in the frame of its worldbody [m].

    Attributes:
        drawn: parts that are ``visual_only``, with their meshes. boxes: the collision geoms that are boxes.
    """

    drawn: tuple[GeomDef, ...]
    boxes: tuple[GeomDef, ...]

    def vertices(self) -> Array:
        """(V, 3) of all drawn parts."""
        return np.concatenate([g.mesh.vertices for g in self.drawn if g.mesh is not None])

    def turned(self, rotation: Array, origin: Array) -> ModelFile:
        """The same with the origin (3,) at zero, then rotated by (3, 3)."""
        drawn = []
        for g in self.drawn:
            assert g.mesh is not None
            vertices = (g.mesh.vertices - origin) @ rotation.T
            mesh = VisualMesh(vertices, g.mesh.faces, g.mesh.uv, g.mesh.texture)
            drawn.append(GeomDef(g.shape, np.ptp(vertices, axis=0), color=g.color, visual_only=True, mesh=mesh))
        boxes = tuple(
            GeomDef(
                g.shape,
                g.extents,
                rotation @ (g.position - origin),
                matrix_to_quaternion(rotation @ quaternion_to_matrix(g.quaternion)),
            )
            for g in self.boxes
        )
        return ModelFile(tuple(drawn), boxes)


def read_model(path: Path) -> ModelFile:
    """The drawn meshes and the collision boxes of a MJCF file, by MuJoCo's own reader.

    Raises:
        FileNotFoundError: no such file. ModelFileError: MuJoCo refuses it, or it has no mesh.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a MJCF model")
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ModelFileError(f"{path}: {' '.join(str(error).split())}") from error
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    drawn, boxes = [], []
    for geom in range(model.ngeom):
        rotation, position = data.geom_xmat[geom].reshape(3, 3), data.geom_xpos[geom]
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            if not model.geom_contype[geom]:
                drawn.append(_drawn(model, geom, rotation, position))
        elif model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX and model.geom_contype[geom]:
            extents = 2.0 * model.geom_size[geom]
            boxes.append(GeomDef(Shape.BOX, extents, position.copy(), matrix_to_quaternion(rotation)))
    if not drawn:
        raise ModelFileError(f"{path}: found no mesh that is drawn, expected at least one (contype 0)")
    return ModelFile(tuple(drawn), tuple(boxes))


def _drawn(model: mujoco.MjModel, geom: int, rotation: Array, position: Array) -> GeomDef:
    """A mesh geom as a part; corners that share place and texture coordinates become one vertex."""
    mesh = int(model.geom_dataid[geom])
    first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    vertices = model.mesh_vert[first : first + count].astype(np.float64) @ rotation.T + position
    rows = slice(int(model.mesh_faceadr[mesh]), int(model.mesh_faceadr[mesh] + model.mesh_facenum[mesh]))
    faces = model.mesh_face[rows].astype(np.int64)
    texture = _texture(model, geom)
    material = int(model.geom_matid[geom])
    rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
    color = tuple(float(c) for c in rgba)
    start = int(model.mesh_texcoordadr[mesh])
    if start < 0 or not texture.size:
        if texture.size:
            color = (*(float(c) for c in texture.reshape(-1, 3).mean(axis=0) / 255.0), 1.0)
        welded, faces = _welded(vertices, faces)
        drawn = VisualMesh(welded, faces)
    else:
        coordinates = model.mesh_texcoord[start : start + int(model.mesh_texcoordnum[mesh])].astype(np.float64)
        corners = coordinates[model.mesh_facetexcoord[rows]] * model.mat_texrepeat[material]
        rows_of = np.column_stack([vertices[faces.ravel()], corners.reshape(-1, 2)])
        welded, faces = _welded(rows_of, np.arange(faces.size).reshape(-1, 3))
        # MuJoCo counts v from the texture's first row.
        drawn = VisualMesh(welded[:, :3], faces, np.column_stack([welded[:, 3], 1.0 - welded[:, 4]]), texture)
    return GeomDef(Shape.CONVEX, np.ptp(drawn.vertices, axis=0), color=color, visual_only=True, mesh=drawn)  # type: ignore[arg-type]


def _welded(rows: Array, faces: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Rows (R, D) without duplicates (to a hundredth of a millimeter), the faces on them; degenerate faces left out."""
    _, first, inverse = np.unique(np.round(rows, 5), axis=0, return_index=True, return_inverse=True)
    found = inverse.reshape(-1)[faces]
    whole = (found[:, 0] != found[:, 1]) & (found[:, 1] != found[:, 2]) & (found[:, 0] != found[:, 2])
    return rows[first], found[whole]


def _texture(model: mujoco.MjModel, geom: int) -> NDArray[np.uint8]:
    """(H, W, 3), reduced to ``TEXTURE_PIXELS``; (0, 0, 3): none."""
    material = int(model.geom_matid[geom])
    texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]) if material >= 0 else -1
    if texture < 0:
        return np.zeros((0, 0, 3), np.uint8)
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    pixels = model.tex_data[start : start + height * width * channels].reshape(height, width, channels)[..., :3]
    shrink = TEXTURE_PIXELS / max(height, width)
    if shrink < 1.0:
        size = (max(round(shrink * width), 1), max(round(shrink * height), 1))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return pixels.copy()  # not a view, which would keep the model
