"""Objects of several convex parts, and scenes of them, for tests of the dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import ConvexPart
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_parts, body_points, simplify_hull
from wm_sim import objects

Array = NDArray[np.float64]
Numbers = Sequence[float] | Array


@dataclass(frozen=True)
class Thing:
    """An object: its outline, its parts (none: it is its outline), its pose and its mass [m, xyzw, kg]."""

    shape: Shape
    extents: Array
    position: Array
    mass: float = 0.2
    quaternion: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    parts: tuple[ConvexPart, ...] = ()


def solid(shape: Shape, extents: Numbers, position: Numbers, mass: float = 0.2, turn: Rotation | None = None) -> Thing:
    """A primitive."""
    quaternion = (turn or Rotation.identity()).as_quat()
    return Thing(shape, np.array(extents, float), np.array(position, float), mass, quaternion)


def compound(geoms: Sequence[GeomDef], place: Numbers, mass: float = 0.3, turn: Rotation | None = None) -> Thing:
    """An object of parts; ``place``: of the middle of its bottom [m]."""
    centered, extents = objects.centered(list(geoms))
    body = BodyDef(centered)
    hull = simplify_hull(body_points(body))
    assert hull is not None
    position = np.array(place, float) + [0.0, 0.0, 0.5 * extents[2]]
    quaternion = (turn or Rotation.identity()).as_quat()
    return Thing(Shape.CONVEX, extents, position, mass, quaternion, hull, body_parts(body))


def scene(things: Sequence[Thing], static: Sequence[int] = (), **more: object) -> SceneGraph:
    """Things on a table of 1.2 m whose top is at 0; their ids begin with 2. ``static``: ids of those that are."""
    ids = np.arange(1, len(things) + 2)
    graph = SceneGraph.build(
        ids,
        [(0.0, 0.0, -0.02), *(t.position for t in things)],
        [(1.2, 1.2, 0.04), *(t.extents for t in things)],
        quaternions=[(0.0, 0.0, 0.0, 1.0), *(t.quaternion for t in things)],
        shapes=[Shape.BOX, *(t.shape for t in things)],
        hulls=[np.zeros((0, 3)), *(t.hull for t in things)],
        class_names=["support", *["object"] * len(things)],
        is_static=[True, *(k in static for k in range(2, len(things) + 2))],
        log_mass=np.log([1.0, *(t.mass for t in things)]),
        **more,
    )
    return replace(graph, parts=((), *(t.parts for t in things)))


def cup(diameter: float = 0.09, height: float = 0.1, handle: bool = True, wall: float = 0.006) -> list[GeomDef]:
    """A cup of eight walls; with its handle, a loop toward +x, it has twelve parts."""
    radius, sides = 0.5 * diameter, 8
    disc = np.array([diameter, diameter, 0.008])
    parts = [GeomDef(Shape.CYLINDER, disc, position=np.array([0.0, 0.0, 0.004]))]
    for k in range(sides):
        angle = 2.0 * np.pi * (k + 0.5) / sides
        place = (radius - 0.5 * wall) * np.array([np.cos(angle), np.sin(angle), 0.0])
        extents = np.array([wall, 2.0 * radius * np.tan(np.pi / sides), height - 0.004])
        place[2] = 0.5 * (height + 0.004)
        turn = Rotation.from_euler("z", angle).as_quat()
        parts.append(GeomDef(Shape.BOX, extents, position=place, quaternion=turn))
    if handle:
        reach, thick = 0.035, 0.012
        for z in (0.27 * height, 0.73 * height):
            extents, place = np.array([reach, thick, thick]), np.array([radius + 0.5 * reach - 0.004, 0.0, z])
            parts.append(GeomDef(Shape.BOX, extents, position=place))
        extents = np.array([thick, thick, 0.46 * height + thick])
        parts.append(GeomDef(Shape.BOX, extents, position=np.array([radius + reach - 0.004, 0.0, 0.5 * height])))
    return parts


def boxes(*each: tuple[Numbers, Numbers]) -> list[GeomDef]:
    """Boxes of extents and positions [m]."""
    return [GeomDef(Shape.BOX, np.array(e, float), position=np.array(p, float)) for e, p in each]


LETTER_T = boxes(((0.16, 0.04, 0.04), (0.0, 0.0, 0.02)), ((0.04, 0.12, 0.04), (0.0, -0.08, 0.02)))
"""A T that lies, its stem toward -y."""


def bowl(place: Numbers, mass: float = 0.3) -> Thing:
    """The simulator's bowl of 16 cm, its walls merged to twelve parts."""
    return compound(objects.bowl(0.16, 0.07, (1.0, 1.0, 1.0, 1.0)), place, mass)
