"""Geometric parts as MuJoCo geoms."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import Array, GeomDef, geom_points, simplify_hull

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
