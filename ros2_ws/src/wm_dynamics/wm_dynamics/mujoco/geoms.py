"""Geometric parts as MuJoCo geoms."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import Array, GeomDef, VisualMesh, geom_points, simplify_hull

_GEOM_TYPE = {
    Shape.BOX: mujoco.mjtGeom.mjGEOM_BOX,
    Shape.CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    Shape.CAPSULE: mujoco.mjtGeom.mjGEOM_CAPSULE,
}


def set_shape(spec: mujoco.MjSpec, geom: mujoco.MjsGeom, part: GeomDef, mesh_name: str) -> None:
    """Give a geom the type and size of a part; a hull, or an elliptic cylinder, as a mesh of this name in ``spec``."""
    half = 0.5 * np.asarray(part.extents, dtype=np.float64)
    hull: Array | None = None
    if part.shape == Shape.CONVEX:
        hull = simplify_hull(part.hull)
    elif part.shape == Shape.CYLINDER and abs(half[0] - half[1]) > 0.02 * half.max():
        hull = geom_points(replace(part, position=np.zeros(3), quaternion=np.array([0.0, 0.0, 0.0, 1.0])))
    if hull is not None:
        spec.add_mesh(name=mesh_name, uservert=hull.astype(np.float32).ravel())
        geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, mesh_name
    elif part.shape == Shape.SPHERE:
        round_ = half.max() - half.min() < 1e-6
        geom.type = mujoco.mjtGeom.mjGEOM_SPHERE if round_ else mujoco.mjtGeom.mjGEOM_ELLIPSOID
        geom.size = half
    elif part.shape in (Shape.CYLINDER, Shape.CAPSULE):
        radius = 0.5 * (half[0] + half[1])
        if part.shape == Shape.CAPSULE and half[2] - radius < 1e-4:
            geom.type, geom.size = mujoco.mjtGeom.mjGEOM_SPHERE, [half[2], 0.0, 0.0]
        else:
            length = half[2] - radius if part.shape == Shape.CAPSULE else half[2]
            geom.type, geom.size = _GEOM_TYPE[part.shape], [radius, length, 0.0]
    else:  # a box, or points that span no volume
        geom.type, geom.size = mujoco.mjtGeom.mjGEOM_BOX, np.maximum(half, 5e-4)


HIDDEN_GROUP = 3
"""Group of geoms that collide and are not drawn: MuJoCo draws groups 0 to 2 unless it is asked for more."""


def set_mesh(spec: mujoco.MjSpec, geom: mujoco.MjsGeom, mesh: VisualMesh, name: str) -> None:
    """Give a geom the form and the texture of a mesh, under names in ``spec`` that begin with ``name``."""
    added = spec.add_mesh(name=name, uservert=mesh.vertices.astype(np.float32).ravel())
    added.userface = mesh.faces.astype(np.int32).ravel()
    # What is drawn has no mass, and scans are seldom closed.
    added.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, name
    if not len(mesh.uv) or not mesh.texture.size:
        return
    # MuJoCo's v is up from the first row, as OpenGL's is.
    added.usertexcoord = mesh.uv.astype(np.float32).ravel()
    texture = spec.add_texture(name=f"{name}_texture", type=mujoco.mjtTexture.mjTEXTURE_2D)
    texture.height, texture.width, texture.nchannel = mesh.texture.shape[0], mesh.texture.shape[1], 3
    texture.data = np.ascontiguousarray(mesh.texture[::-1]).tobytes()
    material = spec.add_material(name=f"{name}_material", specular=0.15, shininess=0.3)
    roles = list(material.textures)
    roles[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = f"{name}_texture"
    material.textures = roles
    geom.material = f"{name}_material"
