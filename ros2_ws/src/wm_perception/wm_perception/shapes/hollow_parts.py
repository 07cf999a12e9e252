"""Convex parts of a hollow body: sectors of its wall, its floor and foot, its handle."""

from __future__ import annotations

import itertools

import numpy as np

from wm_core.convex_parts import MAX_PARTS, ConvexPart, hull_part
from wm_core.rotations import matrix_to_quaternion
from wm_core.scene_graph import Shape
from wm_perception.shapes.handles import Handle
from wm_perception.shapes.hollow import Hollow
from wm_perception.shapes.profiles import convex_pieces, ellipse_points, solid_of
from wm_perception.shapes.rim import Rim
from wm_perception.shapes.surfaces import Array

_SECTORS = 8
"""Sectors of a round wall. With floor and handle they are at most ``MAX_PARTS``."""

_THINNEST = 0.3
"""Thickness of a round wall at the corners of its sectors, over that between them."""


def hollow_parts(hollow: Hollow) -> tuple[ConvexPart, ...]:
    """At most ``MAX_PARTS`` convex parts of a body, in its own frame."""
    handle = _handle_parts(hollow) if hollow.handle is not None else []
    foot = _foot_parts(hollow, MAX_PARTS - len(handle) - (_SECTORS if hollow.rim.elliptic else 4))
    return (*_wall_parts(hollow), *foot, *handle)


def _wall_parts(hollow: Hollow) -> list[ConvexPart]:
    """Sectors between the outer surface and the inside, which is straight from the floor's edge to the rim."""
    floor = hollow.floor
    above = hollow.outer[hollow.outer[:, 1] > floor + 1e-4]
    outer = np.concatenate([[[outer_factor(hollow, floor), floor]], above])
    heights = (floor, hollow.top)
    if not hollow.rim.elliptic:
        return _flat_walls(hollow, outer, heights)
    step = 2.0 * np.pi / _SECTORS
    # A chord is inside the circle: its corners are set out so that its middle is in as much as they are out.
    out, into = 1.0 / np.sqrt(np.cos(0.25 * step)), 1.0 / np.sqrt(np.cos(0.5 * step))
    thin = _THINNEST * hollow.wall / float(hollow.rim.half.min())
    parts = []
    for k in range(_SECTORS):
        outside = np.array([k - 0.5, k, k + 0.5]) * step
        rows = [ellipse_points(hollow.rim, outside, out * factor, height) for factor, height in outer]
        for height in heights:
            factor = min(into * inner_factor(hollow, height), out * outer_factor(hollow, height) - thin)
            rows.append(ellipse_points(hollow.rim, outside[[0, 2]], factor, height))
        parts.append(hull_part(np.concatenate(rows)))
    return parts


def _flat_walls(hollow: Hollow, outer: Array, heights: tuple[float, float]) -> list[ConvexPart]:
    """The four walls of a rectangular body: two go from side to side, the other two between them."""
    rim, half = hollow.rim, float(hollow.rim.half.min())
    parts = []
    for axis, sign in itertools.product((0, 1), (-1.0, 1.0)):
        rows = []
        for factor, height in [*outer, *((outer_factor(hollow, z), z) for z in heights)]:
            end = factor * rim.half if axis == 0 else rim.half - (1.0 - inner_factor(hollow, height)) * half
            rows.append(_edge(rim, axis, sign * factor * rim.half[axis], end[1 - axis], height))
        for height in heights:
            # As thick on the long sides as on the short ones.
            inside = rim.half - (1.0 - inner_factor(hollow, height)) * half
            end = outer_factor(hollow, height) * rim.half if axis == 0 else inside
            rows.append(_edge(rim, axis, sign * inside[axis], end[1 - axis], height))
        parts.append(hull_part(np.concatenate(rows)))
    return parts


def _edge(rim: Rim, axis: int, away: float, end: float, height: float) -> Array:
    """(2, 3) ends of a level line across an axis of the rim, ``away`` from its center and ``end`` to both sides [m]."""
    corners = np.array([[away, -end], [away, end]])[:, [axis, 1 - axis]]
    return np.column_stack([rim.world(corners), np.full(2, height)])


def outer_factor(hollow: Hollow, height: float) -> float:
    """Factor of the rim of the outer surface at a height [m]."""
    return float(np.interp(height, hollow.outer[:, 1], hollow.outer[:, 0]))


def inner_factor(hollow: Hollow, height: float) -> float:
    """Factor of the rim of the inside at a height [m] over the floor."""
    rim = 1.0 - hollow.wall / float(hollow.rim.half.min())
    return float(np.interp(height, [hollow.floor, hollow.top], [hollow.floor_factor, rim]))


def _foot_parts(hollow: Hollow, limit: int) -> list[ConvexPart]:
    """What is under the inner floor: a plate, or stem and foot of a goblet; at most ``limit`` parts."""
    below = hollow.outer[hollow.outer[:, 1] < hollow.floor - 1e-4]
    at_floor = outer_factor(hollow, hollow.floor)
    profile = (
        np.concatenate([below, [[at_floor, hollow.floor]]])
        if len(below)
        else np.array([[at_floor, hollow.base], [at_floor, hollow.floor]])
    )
    if len(profile) < 2:
        profile = np.concatenate([[[profile[0, 0], hollow.base]], profile])
    pieces = convex_pieces(profile, min(limit, 3))
    return [solid_of(hollow.rim, piece) for piece in pieces]


def _handle_parts(hollow: Hollow) -> list[ConvexPart]:
    handle = hollow.handle
    assert handle is not None
    if not handle.loop:
        return [_stick(hollow, handle)]
    radius = handle.reach - handle.begin
    parts = []
    inner_end = handle.begin - 0.5 * hollow.wall
    for height in (handle.low + 0.5 * handle.thick, handle.high - 0.5 * handle.thick):
        run = radius + 0.5 * hollow.wall
        parts.append(_bar(hollow.rim, handle, inner_end + 0.5 * run, height, (run, handle.width, handle.thick)))
    between = handle.high - handle.low - 2.0 * handle.thick
    if between > 0.002:
        parts.append(
            _bar(
                hollow.rim,
                handle,
                handle.reach - 0.5 * handle.thick,
                0.5 * (handle.low + handle.high),
                (handle.thick, handle.width, between),
            )
        )
    return parts


def _stick(hollow: Hollow, handle: Handle) -> ConvexPart:
    """A straight handle, which may rise outward."""
    begin = handle.begin - 0.5 * hollow.wall
    run = handle.reach - begin
    tilt = float(np.arctan(handle.rise))
    middle = 0.5 * (handle.low + handle.high) + handle.rise * (0.5 * (begin + handle.reach) - handle.begin)
    return _bar(
        hollow.rim, handle, 0.5 * (begin + handle.reach), middle, (run / np.cos(tilt), handle.width, handle.thick), tilt
    )


def _bar(
    rim: Rim, handle: Handle, out: float, height: float, size: tuple[float, float, float], tilt: float = 0.0
) -> ConvexPart:
    """A box in the handle's plane at a distance from the body's axis: sizes outward, across, upward [m]."""
    c, s = np.cos(handle.azimuth), np.sin(handle.azimuth)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    ct, st = np.cos(tilt), np.sin(tilt)
    turn = turn @ np.array([[ct, 0.0, -st], [0.0, 1.0, 0.0], [st, 0.0, ct]])
    position = np.array([rim.center[0] + c * out, rim.center[1] + s * out, height])
    return ConvexPart(Shape.BOX, np.array(size), position, np.asarray(matrix_to_quaternion(turn)))
