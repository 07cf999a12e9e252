"""Textured surfaces by rule: lofts of rings (lathes, tubes, pouches), discs, and boxes with rounded edges.

A surface has texture coordinates of its own in 0..1, u around it and v up it; ``paint`` gives every surface its place
in one texture. Lengths in meters, faces counterclockwise as seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.mujoco.bodies import VisualMesh

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

SIDES = 28
"""Corners of a round thing that is drawn. More are rounder, and slower to draw."""
ATLAS_PIXELS = 512
"""Longest side [pixels] of an object's texture. Larger shows finer print, and takes more memory and time to load."""
_MARGIN_PIXELS = 3
"""Border [pixels] around each image in a texture, of the image's own edge, so that neighbors do not shine through."""


@dataclass(frozen=True)
class Surface:
    """A part of an object's skin.

    Attributes:
        vertices: (V, 3) [m]. faces: (F, 3) rows of ``vertices``. uv: (V, 2) 0..1, v upwards.
    """

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array

    def moved(self, offset: ArrayLike, quaternion: ArrayLike = (0.0, 0.0, 0.0, 1.0)) -> Surface:
        """Turned by a quaternion xyzw about the origin, then shifted by an offset (3,) [m]."""
        return replace(
            self,
            vertices=self.vertices @ quaternion_to_matrix(np.asarray(quaternion, float)).T + np.asarray(offset, float),
        )


def arc_length(points: Array) -> Array:
    """Length [m] along a path (P, D) from its first point to each, (P,)."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def loft(rings: Array, first_cap: bool = False, last_cap: bool = False) -> Surface:
    """The skin through rings (P, S, 3) of as many corners each, counterclockwise as seen from the last ring.

    Args:
        rings: a ring whose corners coincide is a tip. first_cap, last_cap: close the ends by fans to their middles.
    """
    count, sides = rings.shape[:2]
    closed = np.concatenate([rings, rings[:, :1]], axis=1)
    middle = closed[:, :-1].mean(axis=1)
    # Along the widest line of corners, as a label is wrapped.
    line = closed[:, int(np.linalg.norm(np.diff(closed, axis=0), axis=2).sum(axis=0).argmax())]
    along = arc_length(line)
    v = along / max(float(along[-1]), 1e-9)
    u = np.linspace(0.0, 1.0, sides + 1)
    uv = np.stack(np.broadcast_arrays(u[None], v[:, None]), axis=-1).reshape(-1, 2)
    row = np.arange(count - 1)[:, None] * (sides + 1)
    a = (row + np.arange(sides)).ravel()
    b, c, d = a + 1, a + sides + 2, a + sides + 1
    faces: list[NDArray[np.int64]] = [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    vertices: list[Array] = [closed.reshape(-1, 3)]
    top = count * (sides + 1)
    for wanted, ring, flip in ((first_cap, 0, True), (last_cap, count - 1, False)):
        if not wanted:
            continue
        edge, _, cap_uv = _fan(rings[ring], middle[ring])
        vertices.append(edge)
        start = top + np.arange(sides)
        fan = np.stack([start, np.roll(start, -1), np.full(sides, top + sides)], 1)
        faces.append(fan[:, ::-1] if flip else fan)
        uv = np.concatenate([uv, np.clip(cap_uv * 0.04 + [0.5, v[ring] * 0.92], 0.0, 1.0)])
        top += sides + 1
    return _without_slivers(Surface(np.concatenate(vertices), np.concatenate(faces), uv))


def _fan(ring: Array, middle: Array) -> tuple[Array, Array, Array]:
    """Vertices, radius and flat texture coordinates 0..1 of a ring (S, 3) and its middle."""
    points = np.concatenate([ring, middle[None]])
    away = points - middle
    # The two widest axes of the ring.
    axes = np.argsort(-np.abs(away).max(axis=0))[:2]
    axes.sort()
    flat = away[:, axes]
    radius = max(float(np.abs(flat).max()), 1e-9)
    return points, np.array(radius), 0.5 + 0.5 * flat / radius


def disc(ring: Array, up: bool = True) -> Surface:
    """A flat lid of a ring (S, 3) counterclockwise from above, with its image laid flat; ``up``: it faces +z."""
    points, _, uv = _fan(ring, ring.mean(axis=0))
    sides = len(ring)
    start = np.arange(sides)
    faces = np.stack([start, np.roll(start, -1), np.full(sides, sides)], 1)
    return Surface(points, faces if up else faces[:, ::-1], uv)


def _without_slivers(surface: Surface) -> Surface:
    """Without faces of no area, which are at the tips."""
    corner = surface.vertices[surface.faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    return replace(surface, faces=surface.faces[area > 1e-12])


def section(radii: ArrayLike, z: float, power: float = 2.0, sides: int = SIDES) -> Array:
    """(S, 3) corners of a superellipse of half sizes (2,) [m] at a height, counterclockwise from above.

    Args:
        power: 2 is an ellipse, 6 nearly a rectangle (Lame curves).
    """
    rx, ry = (float(r) for r in np.broadcast_to(np.asarray(radii, dtype=np.float64), (2,)))
    angle = 2.0 * np.pi * np.arange(sides) / sides
    c, s = np.cos(angle), np.sin(angle)
    reach = (np.abs(c) ** power + np.abs(s) ** power) ** (-1.0 / power)
    return np.column_stack([rx * reach * c, ry * reach * s, np.full(sides, z)])


def circle(radius: float, z: float, sides: int = SIDES) -> Array:
    """(S, 3) corners of a circle at a height, counterclockwise from above."""
    return section(radius, z, 2.0, sides)


def lathe(profile: ArrayLike, sides: int = SIDES, power: float = 2.0, squeeze: float = 1.0) -> Array:
    """Rings (P, S, 3) of a profile (P, 2) of radius and height [m]; upwards outside, downwards inside.

    Args:
        power: of the section, see ``section``. squeeze: radius along y over that along x.
    """
    return np.stack([section((r, squeeze * r), float(z), power, sides) for r, z in np.asarray(profile)])


def smooth(points: ArrayLike, count: int) -> Array:
    """A smooth path (count, D) through control points (P, D), by Catmull-Rom splines (Catmull and Rom, 1974)."""
    p = np.asarray(points, dtype=np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    at = np.linspace(0.0, len(p) - 3 - 1e-9, count)
    k, t = at.astype(int), (at % 1.0)[:, None]
    a, b, c, d = p[k], p[k + 1], p[k + 2], p[k + 3]
    result: Array = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t * t * t
    )
    return result


def sweep(path: Array, radii: ArrayLike, sides: int = 10, up: ArrayLike = (0.0, 0.0, 1.0)) -> Array:
    """Rings (P, S, 3) of an elliptical tube along a path (P, 3).

    Args:
        radii: a number, (P,), or across and along ``up``: (2,) or (P, 2) [m]; P is not 2.
        up: roughly normal to the path everywhere.
    """
    radius = np.asarray(radii, dtype=np.float64)
    radius = np.broadcast_to(radius[:, None] if radius.shape == (len(path),) else radius, (len(path), 2))
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    across = np.cross(tangent, np.asarray(up, dtype=np.float64))
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    over = np.cross(across, tangent)
    angle = 2.0 * np.pi * np.arange(sides) / sides
    # Counterclockwise as seen from the path's end.
    return (
        path[:, None]
        + radius[:, :1, None] * np.cos(angle)[None, :, None] * across[:, None] * -1.0
        + radius[:, 1:, None] * np.sin(angle)[None, :, None] * over[:, None]
    )


_FACES = (  # normal axis, its sign, axes of u and v with their signs: an image is upright seen from outside
    (0, -1, 1, -1, 2, 1),
    (0, 1, 1, 1, 2, 1),
    (1, -1, 0, 1, 2, 1),
    (1, 1, 0, -1, 2, 1),
    (2, -1, 1, 1, 0, 1),
    (2, 1, 1, -1, 0, 1),
)
"""Order of a box's faces: -x, +x, -y, +y, -z, +z."""


def box(size: ArrayLike, radius: float = 0.0) -> list[Surface]:
    """Six surfaces of a box of full size (3,) about the origin, its edges rounded by a radius [m]; see ``_FACES``."""
    half = 0.5 * np.asarray(size, dtype=np.float64)
    radius = float(min(radius, 0.49 * 2.0 * half.min()))
    surfaces = []
    for axis, sign, ua, us, va, vs in _FACES:
        lines = []
        for other in (ua, va):
            h = half[other]
            if radius > 0.0:
                lines.append(np.array([-h, -h + 0.4 * radius, -h + radius, h - radius, h - 0.4 * radius, h]))
            else:
                lines.append(np.array([-h, h]))
        n, m = len(lines[0]), len(lines[1])
        points = np.zeros((m, n, 3))
        points[..., axis] = sign * half[axis]
        points[..., ua] = us * lines[0][None, :]
        points[..., va] = vs * lines[1][:, None]
        uv = np.stack(
            np.broadcast_arrays(
                (lines[0][None, :] + half[ua]) / (2 * half[ua]), (lines[1][:, None] + half[va]) / (2 * half[va])
            ),
            axis=-1,
        )
        flat = points.reshape(-1, 3)
        if radius > 0.0:
            core = np.clip(flat, -(half - radius), half - radius)
            away = flat - core
            flat = core + radius * away / np.linalg.norm(away, axis=1, keepdims=True)
        a = (np.arange(m - 1)[:, None] * n + np.arange(n - 1)).ravel()
        faces = np.concatenate([np.stack([a, a + 1, a + n + 1], 1), np.stack([a, a + n + 1, a + n], 1)])
        corner = flat[faces[len(faces) // 4]]
        outward = np.cross(corner[1] - corner[0], corner[2] - corner[0])[axis] * sign
        surfaces.append(Surface(flat, faces if outward > 0.0 else faces[:, ::-1], uv.reshape(-1, 2)))
    return surfaces


def paint(pieces: Sequence[tuple[Surface, Image]]) -> VisualMesh:
    """One mesh with one texture of surfaces and their images (h, w, 3); an image used twice is stored once."""
    images: dict[int, Image] = {id(image): image for _, image in pieces}
    places, atlas = _packed(images)
    height, width = atlas.shape[:2]
    vertices, faces, uvs, start = [], [], [], 0
    for surface, image in pieces:
        y, x, h, w = places[id(image)]
        u = (x + surface.uv[:, 0] * (w - 1) + 0.5) / width
        v = 1.0 - (y + (1.0 - surface.uv[:, 1]) * (h - 1) + 0.5) / height
        vertices.append(surface.vertices)
        uvs.append(np.column_stack([u, v]))
        faces.append(surface.faces + start)
        start += len(surface.vertices)
    return VisualMesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate(uvs), atlas)


def _packed(images: dict[int, Image]) -> tuple[dict[int, tuple[int, int, int, int]], Image]:
    """Images on shelves of one texture: row, column, height and width of each, and the texture."""
    margin = 2 * _MARGIN_PIXELS
    scale = 1.0
    while True:
        sizes = {k: (max(int(i.shape[0] * scale), 2), max(int(i.shape[1] * scale), 2)) for k, i in images.items()}
        area = sum((h + margin) * (w + margin) for h, w in sizes.values())
        width = max(int(np.sqrt(area) * 1.1), max(w for _, w in sizes.values()) + margin)
        places, x, y, shelf = {}, 0, 0, 0
        for k in sorted(sizes, key=lambda k: -sizes[k][0]):
            h, w = sizes[k]
            if x + w + margin > width:
                x, y, shelf = 0, y + shelf, 0
            places[k] = (y + _MARGIN_PIXELS, x + _MARGIN_PIXELS, h, w)
            x, shelf = x + w + margin, max(shelf, h + margin)
        height = y + shelf
        if max(width, height) <= ATLAS_PIXELS:
            break
        scale *= 0.85
    atlas = np.zeros((height, width, 3), np.uint8)
    for k, (y, x, h, w) in places.items():
        small = (
            images[k] if images[k].shape[:2] == (h, w) else cv2.resize(images[k], (w, h), interpolation=cv2.INTER_AREA)
        )
        m = _MARGIN_PIXELS
        atlas[y - m : y + h + m, x - m : x + w + m] = cv2.copyMakeBorder(small, m, m, m, m, cv2.BORDER_REPLICATE)
    return places, atlas
