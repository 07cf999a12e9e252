"""Convex parts of meshes by CoACD (Wei et al., "Approximate Convex Decomposition for 3D Meshes with Collision-Aware
Concavity and Tree Search", SIGGRAPH 2022), kept on disk, as a mesh takes ten seconds and more.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_dynamics.mujoco.bodies import VisualMesh

Array = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parents[3] / "out/data/decomposed"
"""Where parts are kept, a file for each mesh."""
PARTS = 24
"""Parts that a mesh is cut into at most. With the 12 of a scene graph a third of a mug's cavity is filled, with these a
sixth; more cost time in every collision."""
CONCAVITY = 0.04
"""CoACD's threshold, 0.01 to 1, of an object scaled to the unit cube: smaller follows hollows more closely, in more
parts."""
FACES = 2000
"""Faces that a mesh is reduced to beforehand: CoACD's time grows with them, and its parts have 64 corners anyway."""
CORNERS = 64
"""Corners of a part at most: those that MuJoCo's hulls are given (``bodies.simplify_hull``)."""
_EXACT_M = 2e-4
"""A part with fewer corners does for a part of which no corner is further outside [m]."""
_LEAST_VOLUME_M3 = 1e-9
"""Smaller parts are left out: they carry nothing, and MuJoCo refuses flat ones."""
_SETTINGS = {
    "threshold": CONCAVITY,
    "max_convex_hull": PARTS,
    "preprocess_resolution": 40,
    "resolution": 1000,
    "mcts_nodes": 10,
    "mcts_iterations": 60,
    "mcts_max_depth": 2,
}


def whole(meshes: tuple[VisualMesh, ...]) -> tuple[Array, NDArray[np.int64]]:
    """Vertices (V, 3) [m] and faces (F, 3) of meshes of one frame together, corners of one place welded."""
    vertices, faces, count = [], [], 0
    for mesh in meshes:
        vertices.append(mesh.vertices)
        faces.append(mesh.faces + count)
        count += len(mesh.vertices)
    _, first, inverse = np.unique(np.round(np.concatenate(vertices), 6), axis=0, return_index=True, return_inverse=True)
    return np.concatenate(vertices)[first], inverse.reshape(-1)[np.concatenate(faces)]


def convex_parts(vertices: Array, faces: NDArray[np.int64], folder: Path | None = None) -> list[Array]:
    """At most ``PARTS`` convex parts of a mesh, each as points (P, 3) [m] of its hull; from the disk where it can.

    Args:
        vertices: (V, 3) [m]; faces: (F, 3). folder: in place of ``FOLDER``.
    """
    digest = hashlib.sha256(repr((_SETTINGS, FACES)).encode())
    digest.update(np.round(vertices, 6).astype(np.float32).tobytes())
    digest.update(faces.astype(np.int64).tobytes())
    path = (folder or FOLDER) / f"{digest.hexdigest()[:16]}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part.npz")
        np.savez_compressed(temporary, *_decomposed(vertices, faces))
        temporary.replace(path)
    with np.load(path) as stored:
        hulls = [corners(stored[name]) for name in stored.files]
    return [h for h in hulls if h is not None]


def _decomposed(vertices: Array, faces: NDArray[np.int64]) -> list[Array]:
    import coacd
    import open3d

    mesh = open3d.geometry.TriangleMesh(open3d.utility.Vector3dVector(vertices), open3d.utility.Vector3iVector(faces))
    if len(faces) > FACES:
        mesh = mesh.simplify_quadric_decimation(FACES)
    coacd.set_log_level("error")
    parts = coacd.run_coacd(
        coacd.Mesh(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.triangles, np.int32)), **_SETTINGS
    )
    return [np.asarray(points, np.float64) for points, _ in parts]


def corners(points: Array, limit: int = CORNERS) -> Array | None:
    """At most ``limit`` points of a convex hull that stay closest to it; None where the points span no volume.

    Begins with the extreme points along 26 directions and adds the point that is furthest outside, so that flat
    undersides stay where they are. Points (P, 3) [m].
    """
    try:
        outer = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return None
    directions = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)], np.float64) - 1.0
    chosen = list(dict.fromkeys(np.argmax(outer @ directions.T, axis=0).tolist()))
    try:
        hull = ConvexHull(outer[chosen], incremental=True)
        while len(chosen) < min(limit, len(outer)):
            outside = (outer @ hull.equations[:, :3].T + hull.equations[:, 3]).max(axis=1)
            furthest = int(outside.argmax())
            if outside[furthest] < _EXACT_M:
                break
            chosen.append(furthest)
            hull.add_points(outer[furthest][None])
        if hull.volume < _LEAST_VOLUME_M3:
            return None
    except QhullError:
        return outer if len(outer) <= limit else None
    return outer[chosen]
