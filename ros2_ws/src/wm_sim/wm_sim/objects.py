"""Household objects as rigid bodies made of convex parts.

The functions of objects get the full diameter and height [m] and a color (rgba 0..1). They return parts in a frame
with z up, whose origin is at the center of the object's bottom.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_core.rotations import matrix_to_quaternion
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef, geom_points

Array = NDArray[np.float64]
Color = tuple[float, float, float, float]

WALL_THICKNESS_M = 0.006
"""Thickness of the walls of mugs and bowls [m]. Thinner walls let fast objects pass through in one physics step."""
_WALL_SEGMENTS = 16
"""Number of flat boxes around a wall. More boxes make it rounder and its collisions slower in proportion."""


def _turn_z(angle: float) -> Array:
    """(3, 3) rotation about z by an angle [rad]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _turn_x(angle: float) -> Array:
    """(3, 3) rotation about x by an angle [rad]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _wall(bottom_radius: float, top_radius: float, bottom: float, top: float, color: Color) -> list[GeomDef]:
    """A cylindrical or conical wall of ``_WALL_SEGMENTS`` boxes between two heights; outer radii and heights in [m]."""
    lean = np.arctan2(top_radius - bottom_radius, top - bottom)
    length = float(np.hypot(top_radius - bottom_radius, top - bottom))
    radius = 0.5 * (bottom_radius + top_radius) - 0.5 * WALL_THICKNESS_M
    width = 2.0 * max(bottom_radius, top_radius) * np.tan(np.pi / _WALL_SEGMENTS)
    parts = []
    for k in range(_WALL_SEGMENTS):
        rotation = _turn_z(2.0 * np.pi * k / _WALL_SEGMENTS) @ _turn_x(-lean)
        outward = rotation @ np.array([0.0, 1.0, 0.0])
        center = np.array([outward[0], outward[1], 0.0]) / max(float(np.hypot(*outward[:2])), 1e-9) * radius
        parts.append(
            GeomDef(
                Shape.BOX,
                np.array([width, WALL_THICKNESS_M, length]),
                position=center + np.array([0.0, 0.0, 0.5 * (bottom + top)]),
                quaternion=matrix_to_quaternion(rotation),
                color=color,
            )
        )
    return parts


def _disc(radius: float, bottom: float, top: float, color: Color) -> GeomDef:
    """A solid upright cylinder of a radius between two heights [m]."""
    return GeomDef(
        Shape.CYLINDER,
        np.array([2.0 * radius, 2.0 * radius, top - bottom]),
        position=np.array([0.0, 0.0, 0.5 * (bottom + top)]),
        color=color,
    )


def mug(diameter: float, height: float, color: Color) -> list[GeomDef]:
    """An open mug; the handle extends toward +x beyond the diameter."""
    radius = 0.5 * diameter
    parts = [_disc(radius, 0.0, 0.008, color), *_wall(radius, radius, 0.004, height, color)]
    reach, thick = 0.35 * diameter, 0.012
    for z in (0.27 * height, 0.73 * height):
        parts.append(
            GeomDef(
                Shape.BOX,
                np.array([reach, thick, thick]),
                position=np.array([radius + 0.5 * reach - 0.004, 0.0, z]),
                color=color,
            )
        )
    parts.append(
        GeomDef(
            Shape.BOX,
            np.array([thick, thick, 0.46 * height + thick]),
            position=np.array([radius + reach - 0.004, 0.0, 0.5 * height]),
            color=color,
        )
    )
    return parts


def bowl(diameter: float, height: float, color: Color) -> list[GeomDef]:
    """An open bowl with a foot and a wall that widens in two steps."""
    radius = 0.5 * diameter
    foot, waist = 0.5 * radius, 0.85 * radius
    return [
        _disc(foot, 0.0, 0.01, color),
        *_wall(foot, waist, 0.004, 0.45 * height, color),
        *_wall(waist, radius, 0.43 * height, height, color),
    ]


def bottle(diameter: float, height: float, color: Color, cap: Color = (0.9, 0.9, 0.88, 1.0)) -> list[GeomDef]:
    """A solid bottle: body, shoulder, neck and a cap of its own color."""
    radius = 0.5 * diameter
    angle = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low, high = 0.62 * height, 0.78 * height
    shoulder = np.concatenate(
        [
            np.column_stack([radius * ring, np.full(20, low)]),
            np.column_stack([0.38 * radius * ring, np.full(20, high)]),
        ]
    )
    return [
        _disc(radius, 0.0, low, color),
        GeomDef(Shape.CONVEX, np.ptp(shoulder, axis=0), hull=shoulder, color=color),
        _disc(0.36 * radius, high, 0.92 * height, color),
        _disc(0.44 * radius, 0.92 * height, height, cap),
    ]


def tee(width: float, height: float, color: Color) -> list[GeomDef]:
    """A T lying on its flat side, of the proportions of the Push-T task: a bar along y of a quarter of ``width``, and a
    stem toward -x of three quarters; the whole is ``width`` x ``width`` x ``height``.
    """
    unit = 0.25 * width
    return [
        GeomDef(
            Shape.BOX,
            np.array([unit, width, height]),
            position=np.array([1.5 * unit, 0.0, 0.5 * height]),
            color=color,
        ),
        GeomDef(
            Shape.BOX,
            np.array([3.0 * unit, unit, height]),
            position=np.array([-0.5 * unit, 0.0, 0.5 * height]),
            color=color,
        ),
    ]


def centered(parts: list[GeomDef]) -> tuple[tuple[GeomDef, ...], Array]:
    """The parts with the center of their bounds at the origin, and the full extents (3,) of these bounds [m]."""
    points = np.concatenate([geom_points(p) for p in parts if not p.visual_only])
    low, high = points.min(axis=0), points.max(axis=0)
    center = 0.5 * (low + high)
    return tuple(replace(p, position=p.position - center) for p in parts), high - low
