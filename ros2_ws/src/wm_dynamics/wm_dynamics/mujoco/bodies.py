"""Definitions of rigid bodies made of geometric parts: shapes, points, changes of scale."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.interventions import BodySpec
from wm_core.rollout import POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import normalize_quaternion, quaternion_to_matrix
from wm_core.scene_graph import Shape

Array = NDArray[np.float64]

_MAX_HULL_VERTICES = 64
"""Vertices that a hull is simplified to: more cost time in every collision, fewer round off edges."""


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
        visual_only: drawn, but without mass and collisions.
    """

    shape: Shape
    extents: Array
    position: Array = field(default_factory=lambda: np.zeros(3))
    quaternion: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    color: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 1.0)
    material: str = ""
    visual_only: bool = False


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
    half = 0.5 * geom.extents
    if geom.shape == Shape.CONVEX and len(geom.hull):
        local = geom.hull
    elif geom.shape in (Shape.SPHERE, Shape.CAPSULE):
        index = np.arange(200) + 0.5
        polar, azimuth = np.arccos(1.0 - 2.0 * index / 200.0), np.pi * (1.0 + 5.0**0.5) * index
        unit = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
        unit = np.concatenate([unit, np.eye(3), -np.eye(3)])
        if geom.shape == Shape.SPHERE:
            local = unit * half
        else:
            radius = min(0.5 * (half[0] + half[1]), half[2])
            local = unit * radius
            local[:, 2] += np.sign(unit[:, 2]) * (half[2] - radius)
    elif geom.shape == Shape.CYLINDER:
        angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
        ring = np.stack([half[0] * np.cos(angle), half[1] * np.sin(angle), np.full(24, half[2])], axis=1)
        local = np.concatenate([ring, ring * [1.0, 1.0, -1.0]])
    else:
        local = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * half
    return local @ quaternion_to_matrix(geom.quaternion).T + geom.position


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
