"""Bins, crates and large trays: four upright sides of one height about a place that is lower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.lifting.supports import Support
from wm_perception.lifting.walls import STEEP, directions, turned
from wm_perception.types import Array, Cloud

CELL_M = 0.0125
"""Size [m] of the cells of a map from above. Larger blurs sides that are thinner; smaller has gaps between pixels."""
_LEAST_HIGH_M, _NOISE = 0.025, 4.0
"""Height [m] over the support from which a cell is of a side, and in standard deviations of depth. Larger misses flat
trays, smaller takes flat things for sides."""
_MOST_HIGH_M = 0.5
"""Height [m] above which nothing is a side of a container. Larger takes the walls of a room for one."""
_LEAST_PIXELS = 40
"""Upright pixels (of a quarter of the image) over a support below which no container is sought on it."""
_SIDES_M = (0.2, 1.0)
"""Shortest and longest side of a container [m]. Smaller ones are things that a network sees whole."""
_ALONG = 0.6
"""Level part of a normal along a side's own, from which a pixel may be of that side. Smaller takes in round things."""
_LINES = 8
"""Sides tried along each axis. Larger: slower, and better in heaps of boxes."""
_COVERED, _MEAN_COVERED = 0.75, 0.88
"""Part of what is seen of each side that must be wall, and of all sides together. Larger misses bins whose sides are
hidden or not measured, smaller finds bins between boxes."""
_SEEN = 0.4
"""Part of a side's length of which something must be seen, for three sides of the four."""
_INNER = 0.38
"""Part of a side's length that must be seen from within, on one side of each axis at least: a box is seen from without
only."""
_LOW_SHARE = 0.2
"""Part of the seen cells within that must be lower than the rim. Larger misses heaped bins."""
_LEAST_SLOPE = 0.4
"""Tangent of the angle (22 degrees) from which a camera must look down at the middle of the rim. Larger misses bins far
away, smaller finds bins between things on shelves."""
_RIM_M, _RIM_SHARE = 0.015, 0.12
"""Difference from the height of the rim [m], and as a part of it, up to which a cell of a side is at the rim. Larger
takes in boxes and bottles of unlike heights."""
_AT_RIM = 0.55
"""Part of the cells of the sides, without those that things hang over, that must be at the rim. Larger misses bins with
openings, smaller finds bins between things."""
_WALL_M = (0.016, 0.05)
"""Least and greatest half thickness [m] of walls. Sensors with coarse depth blur a wall of 1 cm over several; larger
takes in more of what leans on walls."""
_FACE_PIXELS, _FACE_M = 40, 0.02
"""Pixels of a face from which it places its side, not the rim, and depth [m] across which they may lie: else
some are of what stands beside it. More pixels and less depth: by the rim, which is thin and lost where depth blurs."""
_ALIGNED_M = 0.025
"""Distance [m] from a side, as found in cells, up to which its pixels place it. Larger lets things beside move it."""
_WALL_PART = 0.9
"""Part of a side's pixels that are taken to be within its thickness. Larger: thicker sides where depth is blurred."""
_WALL_MORE_M = 0.004
"""Added to half the thickness that was seen [m], as outermost pixels are noisy. Larger cuts off more of what leans."""


@dataclass(frozen=True)
class Enclosure:
    """A container without a lid, upright.

    Attributes:
        center: (2,) of its middle [m]; sizes: (2,) from middle of wall to middle of wall along its own axes [m]; yaw:
            of the first axis [rad].
        bottom_m: height of what it stands on; top_m: of its rim, in the world [m].
        support: id of what it stands on.
        wall_m: half thickness of its walls, as blurred as they were seen [m].
    """

    center: Array
    sizes: Array
    yaw: float
    bottom_m: float
    top_m: float
    support: int
    wall_m: float

    def inward_m(self, xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distance (...) [m] of level places (..., 2) from the middle of the walls: positive within, negative out."""
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        x, y = xy[..., 0] - np.float32(self.center[0]), xy[..., 1] - np.float32(self.center[1])
        u = np.float32(0.5 * self.sizes[0]) - np.abs(c * x + s * y)
        v = np.float32(0.5 * self.sizes[1]) - np.abs(c * y - s * x)
        return np.asarray(np.minimum(u, v), np.float32)


def find_enclosures(
    cloud: Cloud,
    height: NDArray[np.float32],
    which: NDArray[np.int32],
    supports: Sequence[Support],
    left_out: NDArray[np.bool_] | None = None,
) -> list[Enclosure]:
    """Containers of a frame, one on each support at most.

    Args:
        height, which: (h, w) over the support below each pixel [m], and its index in ``supports``, -1: none.
        left_out: (h, w) pixels that are of no container: walls of rooms and shelves.
    """
    # A quarter of the pixels is plenty for surfaces of this size.
    every = np.s_[::2, ::2]
    seen = _Seen(
        cloud.points[every].reshape(-1, 3),
        cloud.normals[every].reshape(-1, 3),
        cloud.depth[every].ravel(),
        height[every].ravel(),
    )
    with np.errstate(invalid="ignore"):
        limit = np.maximum(np.float32(_LEAST_HIGH_M), np.float32(_NOISE) * depth_noise_m(seen.depth))
        raised = (seen.height > limit) & (seen.height < _MOST_HIGH_M)
        steep = raised & (np.abs(seen.normals[:, 2]) < STEEP)
    known = which[every].ravel()
    if left_out is not None:
        known = np.where(left_out[every].ravel(), -1, known)
    found: list[Enclosure] = []
    for index, support in enumerate(supports):
        here = np.flatnonzero(known == index)
        sides = here[steep[here]]
        if len(sides) < _LEAST_PIXELS:
            continue
        best: tuple[float, Enclosure] | None = None
        for yaw in directions(seen.normals[sides, :2], np.square(seen.depth[sides])):
            candidate = _at_yaw(seen.of(here), raised[here], yaw, support)
            if candidate is not None and (best is None or candidate[0] > best[0]):
                best = candidate
        if best is not None and _looked_into(best[1], cloud.world_T_camera[:3, 3]):
            found.append(best[1])
    return found


def _looked_into(shape: Enclosure, eye: Array) -> bool:
    """Whether a camera at ``eye`` (3,) [m] looks down into a container, and not at things in a row."""
    away = float(np.linalg.norm(eye[:2] - shape.center))
    return float(eye[2]) - shape.top_m > _LEAST_SLOPE * away


@dataclass(frozen=True)
class _Seen:
    """Pixels: points and normals (P, 3), depth and height over the support (P,) [m]."""

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    depth: NDArray[np.float32]
    height: NDArray[np.float32]

    def of(self, rows: NDArray[np.int64]) -> _Seen:
        return _Seen(self.points[rows], self.normals[rows], self.depth[rows], self.height[rows])


class _Map:
    """What is seen of a support from above, in axes along and across the walls.

    Attributes:
        low: (2,) of the corner [m]; top: (X, Y) greatest height in each cell [m], -1: nothing seen there.
        wall: for each axis (X, Y), whether pixels there may be of a side across that axis; inner: for each axis and
            sense of its normal (-1 first), whether pixels there face that way.
        places: (P, 2) of the pixels that may be of a side across each axis [m], a list of two.
        raised: (R, 3) of the raised pixels, with their height [m].
    """

    def __init__(self, seen: _Seen, raised: NDArray[np.bool_], yaw: float) -> None:
        x, y = turned(seen.points[:, :2], yaw)
        self.low = np.array([x[raised].min(), y[raised].min()], np.float64) - 0.05
        most = np.array([x[raised].max(), y[raised].max()], np.float64) + 0.05
        size = ((most - self.low) / CELL_M).astype(np.int64) + 1
        column = np.floor((x - np.float32(self.low[0])) * np.float32(1.0 / CELL_M)).astype(np.int32)
        row = np.floor((y - np.float32(self.low[1])) * np.float32(1.0 / CELL_M)).astype(np.int32)
        use = np.flatnonzero((column >= 0) & (row >= 0) & (column < size[0]) & (row < size[1]))
        code = column[use] * np.int32(size[1]) + row[use]
        high, heights = raised[use], seen.height[use]
        self.raised = np.stack([x[use[high]], y[use[high]], heights[high]], axis=1)
        # The last of those that are written to a cell stays: the highest.
        order = np.argsort(heights, kind="stable")
        self.top = np.full(size, -1.0, np.float32)
        self.top.ravel()[code[order]] = np.clip(heights[order], 0.0, _MOST_HIGH_M)
        self.wall, self.inner, self.places = [], [], []
        facing = turned(seen.normals[use, :2], yaw)
        unknown = high & ~np.isfinite(facing[0])
        for level in facing:
            with np.errstate(invalid="ignore"):
                back, front = high & (level < -_ALONG), high & (level > _ALONG)
            both = unknown | back | front
            self.wall.append(self._cells(code[both], size))
            self.inner.append((self._cells(code[back], size), self._cells(code[front], size)))
            self.places.append(np.stack([x[use[back | front]], y[use[back | front]]], axis=1))

    @staticmethod
    def _cells(code: NDArray[np.int32], size: NDArray[np.int64]) -> NDArray[np.bool_]:
        grid = np.zeros(size, np.bool_)
        grid.ravel()[code] = True
        return grid


def _strip(grid: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """(across, along) of an axis: whether a cell or those beside it are set; gaps of two cells along are closed."""
    image = np.ascontiguousarray((grid if axis == 0 else grid.T).astype(np.uint8))
    image = np.asarray(cv2.dilate(image, np.ones((3, 1), np.uint8)), np.uint8)
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_CLOSE, np.ones((1, 3), np.uint8)) > 0)


def _sums(grid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(across, along + 1) running sums along."""
    return np.concatenate([np.zeros((len(grid), 1), np.int64), np.cumsum(grid, axis=1)], axis=1)


def _lines(wall: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Cells across at which the longest sides are, in order."""
    length = wall.sum(axis=1).astype(np.float64)
    found = []
    for _ in range(_LINES):
        peak = int(length.argmax())
        if length[peak] * CELL_M < 0.7 * _SIDES_M[0]:
            break
        found.append(peak)
        length[max(peak - 2, 0) : peak + 3] = 0.0
    return np.sort(np.array(found, np.int64))


def _at_yaw(pixels: _Seen, raised: NDArray[np.bool_], yaw: float, support: Support) -> tuple[float, Enclosure] | None:
    """The best container of a yaw, and how good it is."""
    seen = _Map(pixels, raised, yaw)
    strips = [_strip(seen.wall[axis], axis) for axis in (0, 1)]
    # Seen, and nothing that stands there: what hides a side is neither for it nor against it.
    lower = (seen.top >= 0.0) & (seen.top < _LEAST_HIGH_M)
    tall = seen.top >= _LEAST_HIGH_M
    opened = [_strip(lower, axis) & ~_strip(tall, axis) & ~strip for axis, strip in zip((0, 1), strips, strict=True)]
    lines = [_lines(strip) for strip in strips]
    pairs = [_pairs(each) for each in lines]
    if not len(pairs[0]) or not len(pairs[1]):
        return None
    # All rectangles at once: pairs of sides across x against pairs across y.
    x, y = np.repeat(pairs[0], len(pairs[1]), axis=0), np.tile(pairs[1], (len(pairs[0]), 1))
    wall, gap = np.zeros((len(x), 4)), np.zeros((len(x), 4))
    inner = np.zeros((len(x), 4))
    for axis, (own, other) in enumerate(((x, y), (y, x))):
        sums, open_sums = _sums(strips[axis]), _sums(opened[axis])
        first, last = other[:, 0], other[:, 1] + 1
        for k in (0, 1):
            wall[:, 2 * axis + k] = sums[own[:, k], last] - sums[own[:, k], first]
            gap[:, 2 * axis + k] = open_sums[own[:, k], last] - open_sums[own[:, k], first]
            # The lower side faces up its axis where it is seen from within, the upper side down.
            within = _sums(_strip(seen.inner[axis][1 - k], axis))
            inner[:, 2 * axis + k] = within[own[:, k], last] - within[own[:, k], first]
    length = np.stack([y[:, 1] - y[:, 0] + 1] * 2 + [x[:, 1] - x[:, 0] + 1] * 2, axis=1).astype(np.float64)
    known = wall + gap
    covered = wall / np.maximum(known, 1.0)
    seen_well = known >= _SEEN * length
    good = ((covered >= _COVERED) | (known < 0.2 * length)).all(axis=1) & (seen_well.sum(axis=1) >= 3)
    good &= wall.sum(axis=1) >= _MEAN_COVERED * known.sum(axis=1)
    from_within = inner >= _INNER * length
    good &= from_within[:, :2].any(axis=1) & from_within[:, 2:].any(axis=1)
    score = np.where(good, (wall - 2.0 * gap).sum(axis=1), -np.inf)
    for row in np.argsort(-score)[:4]:
        if not np.isfinite(score[row]):
            break
        rim = _rim(seen.top, x[row], y[row])
        if rim is None:
            continue
        corner = seen.low + CELL_M * (np.array([x[row, 0], y[row, 0]]) + 0.5)
        far = seen.low + CELL_M * (np.array([x[row, 1], y[row, 1]]) + 0.5)
        corner, far, thick = _aligned(seen.places, seen.raised[seen.raised[:, 2] > rim - _RIM_M, :2], corner, far)
        middle, c, s = 0.5 * (corner + far), np.cos(yaw), np.sin(yaw)
        center = np.array([c * middle[0] - s * middle[1], s * middle[0] + c * middle[1]])
        base = support.height_m
        return float(score[row]), Enclosure(center, far - corner, yaw, base, base + rim, support.id, thick)
    return None


def _aligned(
    places: list[NDArray[np.float32]], rim: NDArray[np.float32], corner: Array, far: Array
) -> tuple[Array, Array, float]:
    """Corners (2,), (2,) moved to the middle of what is seen of each side, and the half thickness of the sides [m].

    Args:
        places: (P, 2) [m] of the pixels that face across each axis, a list of two. rim: (R, 2) [m] of those at the
            height of the rim, by which a side is placed of which no face is seen.
    """
    corner, far = corner.copy(), far.copy()
    distances = []
    for axis, xy in enumerate(places):
        own, along = xy[:, axis], xy[:, 1 - axis]
        beside = (along > corner[1 - axis] + _WALL_M[1]) & (along < far[1 - axis] - _WALL_M[1])
        top, across = rim[:, axis], rim[:, 1 - axis]
        on_top = (across > corner[1 - axis] + _WALL_M[1]) & (across < far[1 - axis] - _WALL_M[1])
        for side in (corner, far):
            near = own[beside & (np.abs(own - side[axis]) < _ALIGNED_M)]
            if len(near) < _FACE_PIXELS or np.ptp(np.quantile(near, [0.05, 0.95])) > _FACE_M:
                edge = top[on_top & (np.abs(top - side[axis]) < _ALIGNED_M)]
                near = edge if len(edge) >= 8 else near
            if len(near) >= 8:
                side[axis] = float(np.quantile(near, [0.05, 0.95]).mean())
        reach = np.minimum(np.abs(own - corner[axis]), np.abs(own - far[axis]))[beside]
        distances.append(reach[reach < _WALL_M[1] + 0.01])
    spread = np.concatenate(distances)
    thick = float(np.quantile(spread, _WALL_PART)) + _WALL_MORE_M if len(spread) else 0.0
    return corner, far, float(np.clip(thick, *_WALL_M))


def _pairs(lines: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, 2) pairs of lines that may be opposite sides."""
    first, second = np.triu_indices(len(lines), 1)
    pairs = np.stack([lines[first], lines[second]], axis=1) if len(lines) else np.zeros((0, 2), np.int64)
    apart = (pairs[:, 1] - pairs[:, 0]) * CELL_M
    return pairs[(apart >= _SIDES_M[0]) & (apart <= _SIDES_M[1])]


def _rim(top: NDArray[np.float32], x: NDArray[np.int64], y: NDArray[np.int64]) -> float | None:
    """Height [m] of the rim over the support, or None where the sides have none, or it is not open within."""
    cells = np.concatenate(
        [
            top[max(x[0] - 1, 0) : x[0] + 2, y[0] : y[1] + 1].max(axis=0),
            top[x[1] - 1 : x[1] + 2, y[0] : y[1] + 1].max(axis=0),
            top[x[0] : x[1] + 1, max(y[0] - 1, 0) : y[0] + 2].max(axis=1),
            top[x[0] : x[1] + 1, y[1] - 1 : y[1] + 2].max(axis=1),
        ]
    )
    cells = cells[cells >= _LEAST_HIGH_M]
    if len(cells) < 4:
        return None
    rim = float(np.median(cells))
    apart = max(_RIM_M, _RIM_SHARE * rim)
    cells = cells[cells < rim + apart]
    within = top[x[0] + 2 : x[1] - 1, y[0] + 2 : y[1] - 1]
    within = within[within >= 0.0]
    if not within.size or float((within < 0.7 * rim).mean()) < _LOW_SHARE:
        return None
    return rim if float((cells > rim - apart).mean()) >= _AT_RIM else None
