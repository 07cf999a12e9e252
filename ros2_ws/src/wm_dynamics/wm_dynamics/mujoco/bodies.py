"""Definitions of rigid bodies made of geometric parts: shapes, points, changes of scale."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.convex_parts import ConvexPart, merged, surface_points
from wm_core.interventions import BodySpec
from wm_core.rollout import POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import normalize_quaternion, quaternion_to_matrix
from wm_core.scene_graph import Shape

Array = NDArray[np.float64]

_MAX_HULL_VERTICES = 64
"""Vertices that a hull is simplified to: more cost time in every collision, fewer round off edges."""


@dataclass(frozen=True)
class VisualMesh:
    """A textured mesh that a part is drawn as.

    Attributes:
        vertices: (V, 3) in the part's frame [m]. faces: (F, 3) int rows of ``vertices``, counterclockwise from outside.
        uv: (V, 2) texture coordinates 0..1, v upwards; (0, 2): none, the part's color counts.
        texture: (H, W, 3) uint8 rgb, its first row the top; (0, 0, 3): none.
    """

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array = field(default_factory=lambda: np.zeros((0, 2)))
    texture: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 3), dtype=np.uint8))

    def key(self) -> int:
        """Equal for meshes of the same content."""
        return hash((self.vertices.tobytes(), self.faces.tobytes(), self.uv.tobytes(), self.texture.tobytes()))


@dataclass(frozen=True)
class GeomDef:
    """One convex part of a body.

    Attributes:
        shape: ``CONVEX`` uses ``hull``; the others ``extents``, as in wm_msgs/SceneObject.
        extents: (3,) full sizes [m]. A sphere with unequal extents is an ellipsoid, a cylinder with unequal
            diameters an elliptic prism; a capsule has the mean of its two diameters.
        position, quaternion: pose of the part in the body frame [m, xyzw].
        hull: (P, 3) points in the part's frame [m], for ``CONVEX``.
        color: (4,) rgba 0..1; material: name of a material that ``decorate`` adds, or "".
        visual_only: drawn, but without mass and collisions. hidden: it collides, but is not drawn.
        mesh: drawn instead of the shape; only of a part that is ``visual_only``. Extents are then its bounds.
    """

    shape: Shape
    extents: Array
    position: Array = field(default_factory=lambda: np.zeros(3))
    quaternion: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    color: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 1.0)
    material: str = ""
    visual_only: bool = False
    hidden: bool = False
    mesh: VisualMesh | None = None


@dataclass(frozen=True)
class BodyDef:
    """A rigid body.

    Attributes:
        geoms: its parts.
        mass: [kg]; friction: Coulomb coefficient; restitution: 0..1.
        is_static: it stays at ``static_state`` and has no mass; the states of other bodies are given for each run.
        static_state: (13,), layout of ``wm_core.rollout``.
    """

    geoms: tuple[GeomDef, ...]
    mass: float = 0.1
    friction: float = 0.5
    restitution: float = 0.1
    is_static: bool = False
    static_state: Array = field(default_factory=lambda: rest_state((0, 0, 0)))

    def shape_key(self) -> tuple[object, ...]:
        """Equal for bodies of the same geometry (mass, friction, restitution left out)."""
        parts = tuple(
            (
                int(g.shape),
                g.extents.tobytes(),
                g.position.tobytes(),
                g.quaternion.tobytes(),
                g.hull.tobytes(),
                g.color,
                g.material,
                g.visual_only,
                g.hidden,
                g.mesh.key() if g.mesh is not None else 0,
            )
            for g in self.geoms
        )
        return parts, self.is_static, self.static_state.tobytes() if self.is_static else b""


def rest_state(position: ArrayLike, quaternion: ArrayLike = (0.0, 0.0, 0.0, 1.0)) -> Array:
    """State (13,) of a body at rest at a pose [m, xyzw]."""
    state = np.zeros(STATE_SIZE)
    state[POSITION] = position
    state[QUATERNION] = normalize_quaternion(quaternion)
    return state


def body_from_spec(spec: BodySpec) -> BodyDef:
    """The body that an ``ADD`` or ``FOLLOW_PATH`` intervention creates."""
    extents = np.asarray(spec.extents, dtype=np.float64)
    if spec.shape == Shape.SPHERE:
        extents = np.full(3, extents.mean())
    color = (*(float(c) for c in spec.color), 1.0)
    geom = GeomDef(Shape(spec.shape), extents, color=color)  # type: ignore[arg-type]
    return BodyDef((geom,), float(spec.effective_mass), float(spec.friction), float(spec.restitution))


def scaled_body(body: BodyDef, scale: ArrayLike) -> BodyDef:
    """The body scaled along its own axes about its frame's origin; mass scales with volume.

    A part that is turned within its body is scaled along the part's axes nearest to those of the body.
    """
    s = np.asarray(scale, dtype=np.float64)
    geoms = []
    for g in body.geoms:
        local = (
            np.abs(quaternion_to_matrix(g.quaternion)).T @ s / np.abs(quaternion_to_matrix(g.quaternion)).sum(axis=0)
        )
        geoms.append(replace(g, extents=g.extents * local, position=g.position * s, hull=g.hull * local))
    return replace(body, geoms=tuple(geoms), mass=body.mass * float(np.prod(s)))


def simplify_hull(points: ArrayLike) -> Array | None:
    """At most 64 vertices (P, 3) of the convex hull of points (P', 3) [m]; None where they span no volume."""
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    p = p[np.isfinite(p).all(axis=1)]
    if len(p) < 4 or np.ptp(p, axis=0).min() < 1e-4:
        return None
    try:
        vertices = p[np.sort(ConvexHull(p).vertices)]
        if len(vertices) > _MAX_HULL_VERTICES:
            # Extreme points along evenly spread directions keep the silhouette from every side.
            index = np.arange(4 * _MAX_HULL_VERTICES) + 0.5
            polar, azimuth = np.arccos(1.0 - 2.0 * index / len(index)), np.pi * (1.0 + 5.0**0.5) * index
            directions = np.stack(
                [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
            )
            votes = np.bincount(np.argmax(vertices @ directions.T, axis=0), minlength=len(vertices))
            keep = np.argsort(-votes, kind="stable")[:_MAX_HULL_VERTICES]
            vertices = vertices[np.sort(keep[votes[keep] > 0])]
        if ConvexHull(vertices).volume < 1e-9:
            return None
    except (QhullError, ValueError):
        return None
    return vertices


def geom_points(geom: GeomDef) -> Array:
    """Points (P, 3) in the body frame [m] whose convex hull is (for round shapes: nearly) the part."""
    local = surface_points(geom.shape, geom.extents, geom.hull)
    return local @ quaternion_to_matrix(geom.quaternion).T + geom.position


def body_parts(body: BodyDef) -> tuple[ConvexPart, ...]:
    """The convex parts of a body, at most ``MAX_PARTS``; empty where it is one part."""
    solid = [g for g in body.geoms if not g.visual_only]
    if len(solid) < 2:
        return ()
    return merged([ConvexPart(g.shape, g.extents, g.position, g.quaternion, g.hull) for g in solid])


def body_points(body: BodyDef) -> Array:
    """Points (P, 3) in the body frame [m] whose convex hull is that of the body."""
    return np.concatenate([geom_points(g) for g in body.geoms if not g.visual_only])


def lowest_point(body: BodyDef, quaternion: ArrayLike) -> float:
    """Height [m] of the body's lowest point relative to its frame's origin, at an orientation (4,)."""
    return float(lowest_points(body, np.asarray(quaternion, dtype=np.float64)[None])[0])


def lowest_points(body: BodyDef, quaternions: ArrayLike) -> Array:
    """(S,) as ``lowest_point``, at orientations (S, 4)."""
    up = quaternion_to_matrix(quaternions)[:, 2]
    lowest = np.full(len(up), np.inf)
    for g in body.geoms:
        if g.visual_only:
            continue
        d, half = up @ quaternion_to_matrix(g.quaternion), 0.5 * g.extents
        if g.shape == Shape.CONVEX and len(g.hull):
            reach = -(d @ g.hull.T).min(axis=1)
        elif g.shape == Shape.SPHERE:
            reach = np.linalg.norm(half * d, axis=1)
        elif g.shape == Shape.CYLINDER:
            reach = np.hypot(half[0] * d[:, 0], half[1] * d[:, 1]) + half[2] * np.abs(d[:, 2])
        elif g.shape == Shape.CAPSULE:
            radius = min(0.5 * (half[0] + half[1]), half[2])
            reach = radius + (half[2] - radius) * np.abs(d[:, 2])
        else:
            reach = np.abs(d) @ half
        lowest = np.minimum(lowest, up @ g.position - reach)
    return lowest
