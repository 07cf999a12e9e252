"""Where household things stand and how they are seen: tables, floors, bins and shelves, from 0.3 to 3 m."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.worlds.textures import random_color
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, rest_state
from wm_sim.scene_model import CameraModel, OrbitModel

Array = NDArray[np.float64]

KINDS = ("table", "floor", "bin", "shelf")
_CHANCES = (0.52, 0.13, 0.15, 0.2)
"""Of each kind. Tables are what robots work at; the others are as often as they are met in recordings."""


@dataclass(frozen=True)
class Setting:
    """A support and a camera.

    Attributes:
        kind: of ``KINDS``; support: the static body, whose first part is the board that carries.
        size: (3,) of the board [m]; top: height of what things stand on over the floor [m].
        area: (2,) half sizes of where things may stand, about the origin [m].
        camera: its positions relative to (0, 0, ``top``); reach: largest distance of the camera [m].
        low: nothing may be higher than this over ``top`` at the start [m].
    """

    kind: str
    support: BodyDef
    size: Array
    top: float
    area: Array
    camera: CameraModel
    reach: float
    low: float = 1.0


def _slab(size: Array, center: Array, color: tuple[float, float, float, float], visual: bool = False) -> GeomDef:
    return GeomDef(
        Shape.BOX, np.asarray(size, float), position=np.asarray(center, float), color=color, visual_only=visual
    )


def _support(board: Array, top: float, more: list[GeomDef]) -> BodyDef:
    """A static body whose frame is at the board's center; the board's upper face is at a height ``top`` [m]."""
    first = GeomDef(Shape.BOX, board, color=(1.0, 1.0, 1.0, 1.0), material="table")
    return BodyDef((first, *more), 0.0, 0.5, 0.1, True, rest_state((0.0, 0.0, top - 0.5 * board[2])))


def _rgba(rng: np.random.Generator) -> tuple[float, float, float, float]:
    red, green, blue = (float(v) for v in random_color(rng))
    return red, green, blue, 1.0


def _legs(board: Array, height: float) -> list[GeomDef]:
    length = height - board[2]
    return [
        _slab(
            np.array([0.05, 0.05, length]),
            np.array([sx * (0.5 * board[0] - 0.06), sy * (0.5 * board[1] - 0.06), -0.5 * (length + board[2])]),
            (0.35, 0.3, 0.26, 1.0),
            True,
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def random_setting(rng: np.random.Generator) -> Setting:
    """A setting of a random kind."""
    kind = KINDS[int(rng.choice(len(KINDS), p=_CHANCES))]
    return {"table": _table, "floor": _floor, "bin": _bin, "shelf": _shelf}[kind](rng)


def _table(rng: np.random.Generator) -> Setting:
    board = np.array([rng.uniform(0.6, 1.1), rng.uniform(0.8, 1.6), rng.uniform(0.02, 0.06)])
    height = float(rng.uniform(0.35, 1.0))
    area = np.minimum(0.5 * board[:2] - 0.06, [0.4, 0.5]) * rng.uniform(0.45, 1.0)
    camera, reach = _around(rng, area, (10.0, 85.0))
    return Setting("table", _support(board, height, _legs(board, height)), board, height, area, camera, reach)


def _floor(rng: np.random.Generator) -> Setting:
    board = np.array([4.6, 4.6, 0.02])
    area = np.array([0.6, 0.6]) * rng.uniform(0.4, 1.0)
    camera, reach = _around(rng, area, (15.0, 75.0), nearest=0.7)
    return Setting("floor", _support(board, 0.01, []), board, 0.01, area, camera, reach)


def _bin(rng: np.random.Generator) -> Setting:
    """A box without a lid on a table; what is in it is seen from above."""
    inner = np.array([rng.uniform(0.28, 0.42), rng.uniform(0.34, 0.6)])
    deep, wall = rng.uniform(0.07, 0.2), 0.012
    board = np.array([rng.uniform(0.7, 1.1), rng.uniform(0.9, 1.6), rng.uniform(0.02, 0.06)])
    table, color = float(rng.uniform(0.0, 0.9)) + board[2], _rgba(rng)
    up = 0.5 * board[2]
    more = _legs(board, table) if table > 0.2 else []
    more.append(_slab(np.array([*(inner + 2 * wall), 0.006]), np.array([0.0, 0.0, up + 0.003]), color))
    for axis in (0, 1):
        for side in (-1, 1):
            size = np.array([*(inner + 2 * wall), deep])
            size[axis] = wall
            center = np.array([0.0, 0.0, up + 0.5 * deep])
            center[axis] = side * 0.5 * (inner[axis] + wall)
            more.append(_slab(size, center, color))
    area = 0.5 * inner - 0.02
    camera, reach = _around(rng, area, (45.0, 88.0), nearest=0.55)
    return Setting("bin", _support(board, table, more), board, table + 0.006, area, camera, min(reach, 1.2))


def _shelf(rng: np.random.Generator) -> Setting:
    """A board between two sides, before a back, below another board; seen from its open side, at -x."""
    board = np.array([rng.uniform(0.26, 0.42), rng.uniform(0.6, 1.1), rng.uniform(0.016, 0.03)])
    top, gap = float(rng.uniform(0.25, 1.3)), float(rng.uniform(0.32, 0.5))
    thick, color = board[2], _rgba(rng)
    more = [_slab(np.array([0.01, board[1], gap]), np.array([0.5 * board[0], 0.0, 0.5 * gap]), _rgba(rng))]
    for side in (-1, 1):
        tall = np.array([board[0], thick, top + gap])
        more.append(_slab(tall, np.array([0.0, side * 0.5 * board[1], 0.5 * (top + gap) - top]), color))
    for z in (gap, -gap):
        if z > 0 and rng.uniform() < 0.3:
            continue  # the uppermost board
        more.append(_slab(board, np.array([0.0, 0.0, z]), color))
    area = np.array([0.5 * board[0] - 0.03, 0.5 * board[1] - 0.05])
    distance = rng.uniform(0.55, 1.6)
    azimuth, elevation = np.pi + rng.uniform(-0.5, 0.5), np.radians(rng.uniform(0.0, 22.0))
    target = np.array([0.0, rng.uniform(-0.6, 0.6) * area[1], rng.uniform(0.04, 0.14)])
    position = target + distance * _direction(azimuth, elevation)
    camera = _moving(rng, position, target, float(rng.uniform(38.0, 60.0)), 8.0)
    return Setting("shelf", _support(board, top, more), board, top, area, camera, distance + 0.2, gap - thick - 0.01)


def _direction(azimuth: float, elevation: float) -> Array:
    c = np.cos(elevation)
    return np.array([np.cos(azimuth) * c, np.sin(azimuth) * c, np.sin(elevation)])


def _around(
    rng: np.random.Generator, area: Array, elevations: tuple[float, float], nearest: float = 0.32
) -> tuple[CameraModel, float]:
    """A camera anywhere around, from close to 3 m away; steep, oblique or level [degrees]."""
    kind = rng.uniform()
    if kind < 0.2:
        distance = rng.uniform(nearest, nearest + 0.3)
    elif kind < 0.86:
        distance = rng.uniform(nearest + 0.2, 1.2)
    else:
        distance = rng.uniform(1.2, 3.0)
    low, high = elevations
    span = high - low
    elevation = low + span * rng.choice([rng.uniform(0.0, 0.25), rng.uniform(0.2, 0.7), rng.uniform(0.7, 1.0)])
    spread = 0.75 * area if distance < 0.6 else 0.3 * area
    target = np.array([*rng.uniform(-spread, spread), rng.uniform(0.0, 0.1)])
    position = target + distance * _direction(rng.uniform(-np.pi, np.pi), np.radians(elevation))
    # Cameras that look from afar have longer lenses, or the objects are too small to be seen.
    fov = rng.uniform(40.0, 66.0) if distance < 1.4 else rng.uniform(30.0, 50.0)
    return _moving(rng, position, target, float(fov), 30.0), float(distance) + 0.25


def _moving(rng: np.random.Generator, position: Array, target: Array, fov: float, swing: float) -> CameraModel:
    """Still, swinging around its target [degrees], or wandering as if held by hand."""
    kind = rng.uniform()
    if kind < 0.35:
        orbit = OrbitModel(amplitude=float(rng.uniform(0.3, 1.0) * swing), period=float(rng.uniform(4.0, 10.0)))
        return CameraModel(position=position.tolist(), target=target.tolist(), vertical_fov=fov, orbit=orbit)
    rows: list[list[float]] = []
    if kind < 0.65:
        scale = 0.03 * float(np.clip(np.linalg.norm(position - target), 0.3, 1.0))
        drift = np.cumsum(rng.normal(0.0, scale, (12, 6)), axis=0) * [1, 1, 1, 0.5, 0.5, 0.5]
        for k, by in enumerate(drift):
            p, t = position + by[:3], target + by[3:]
            rows.append([0.5 * k, *p[:2], max(float(p[2]), 0.02), *t])
    return CameraModel(position=position.tolist(), target=target.tolist(), vertical_fov=fov, path=rows)
