"""Level surfaces of a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.types import Array, Cloud, PerceptionConfig

_UPRIGHT_COSINE = 0.94
"""Cosine of the angle to the vertical (20 degrees) up to which a normal may be of a support. Smaller takes more of the
noise of far surfaces in, and more of what is not level."""
_BIN_M = 0.01
"""Height [m] of a bin in the search for planes: several times the noise of near depth. Larger merges lower steps."""
_APART_M = 0.03
"""Difference of height [m] up to which patches are of one plane. Larger misses steps and thick boards."""
_PEAKS, _JOINED_PEAKS = 12, 4
"""Heights at which planes are sought, and at which divided ones are. Larger: slower in rooms full of furniture."""
_GRAZING_SLOPE, _GRAZING_M = 0.2, (0.05, 0.5)
"""Slope, and least and greatest distance [m] between the pixels above and below, from which a surface without normals
is level: shelves' boards at the height of the eye. Larger takes in edges of things."""
_BELOW_EYE_M = 0.03
"""How far [m] below the camera such a surface is at least: several times the error of heights at 3 m."""
_JOIN_CELL_M, _JOIN_REACH = 0.02, 4
"""Size [m] of cells, and half the gap in cells over which patches of one height are one. Larger joins other tables."""
_JOINED_M2 = 0.15
"""Area [m^2] of the outline from which joined patches are a surface: more than two large cartons side by side. Larger
misses boards full of things, smaller takes the tops of cartons."""
_DIVIDED_REACH_M = 2.0
"""Depth [m] up to which surfaces are joined from patches. Larger finds far worktops, on which things jump with the
noise of depth (8 % of the objects of the recorded clip were said to move)."""
_LOWER_M, _LOWER_SHARE = 0.03, 0.03
"""Depth [m] under the patches of what is lower, and the part of the outline that may be. Larger joins things' tops."""
_MOST_CELLS = 250_000
"""Cells up to which patches are joined: 100 m^2. Larger: slower where a far wall has level noise."""


@dataclass(frozen=True)
class Plane:
    """A plane ``z = a x + b y + c`` in the world frame.

    Attributes:
        coefficients: (3,) a, b and c [m].
        height_m: mean height of the points that it was fitted to [m].
    """

    coefficients: Array
    height_m: float

    def height_over(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Height [m] of points (..., 3) over the plane."""
        return self.height_at(points[..., 0], points[..., 1], points[..., 2])

    def height_at(self, x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same by coordinates (...,): faster where each is contiguous."""
        a, b, c = (np.float32(v) for v in self.coefficients)
        return (z - (a * x + b * y + c)).astype(np.float32, copy=False)


_IN_LINE = 1e-9
"""Determinant of the points' scatter, over the product of its two entries, from which they span a plane. Larger drops
narrow strips that are seen at an angle."""


def find_planes(cloud: Cloud, config: PerceptionConfig) -> list[tuple[Plane, NDArray[np.bool_]]]:
    """Horizontal patches of a frame that are large enough, largest first.

    Returns:
        Plane and pixel mask (h/2, w/2), true at every other pixel in both directions that is on it.
    """
    # A quarter of the pixels is plenty for surfaces of this size; contiguous, as each is read many times.
    cloud = replace(
        cloud,
        points=np.ascontiguousarray(cloud.points[::2, ::2]),
        normals=np.ascontiguousarray(cloud.normals[::2, ::2]),
        depth=np.ascontiguousarray(cloud.depth[::2, ::2]),
        rgb=cloud.rgb[::2, ::2],
        camera=replace(cloud.camera, fx=0.5 * cloud.camera.fx, fy=0.5 * cloud.camera.fy),
    )
    z = cloud.points[..., 2]
    # A pixel covers z^2 / (fx fy) of a surface that faces the camera, more when it is seen at an angle.
    view = cloud.points - cloud.world_T_camera[:3, 3].astype(np.float32)
    distance = np.sqrt(np.einsum("hwi,hwi->hw", view, view))
    cosine = np.clip(-view[..., 2] / np.maximum(distance, 1e-6), 0.1, 1.0)
    area = np.square(cloud.depth) / (cloud.camera.fx * cloud.camera.fy) / cosine
    # A hole can have a normal, from the pixels around it, but no height.
    flat = (cloud.normals[..., 2] > _UPRIGHT_COSINE) & np.isfinite(z)
    found = _patches(cloud, flat, area, config)
    # What things divide, and what is seen at a small angle, is looked at where nothing else was found.
    for plane, _, _ in found:
        flat &= ~(np.abs(z - np.float32(plane.height_m)) < _APART_M)
    flat |= _seen_flat(cloud, tuple(plane.height_m for plane, _, _ in found))
    with np.errstate(invalid="ignore"):
        flat &= cloud.depth < _DIVIDED_REACH_M
    if float(area[flat].sum()) >= config.support_min_area_m2:
        found += _patches(cloud, flat, area, config, joined=True)
    found.sort(key=lambda entry: -entry[2])
    return [(plane, mask) for plane, mask, _ in found]


def _patches(
    cloud: Cloud,
    flat: NDArray[np.bool_],
    area: NDArray[np.float32],
    config: PerceptionConfig,
    joined: bool = False,
) -> list[tuple[Plane, NDArray[np.bool_], float]]:
    """Planes among level pixels (h, w), their pixels, and their areas [m^2].

    Args:
        area: (h, w) that each pixel covers [m^2]. joined: whether patches of one height may be one surface.
    """
    found: list[tuple[Plane, NDArray[np.bool_], float]] = []
    if int(flat.sum()) < config.min_pixels:
        return found
    z = cloud.points[..., 2]
    heights, areas = z[flat], area[flat]
    low = float(heights.min())
    bins = np.floor((heights - low) / _BIN_M).astype(np.int64)
    histogram = np.bincount(bins, weights=areas)
    window = np.convolve(histogram, np.ones(3), mode="same")
    for peak in np.argsort(window)[::-1][: _JOINED_PEAKS if joined else _PEAKS]:
        if window[peak] < config.support_min_area_m2:
            break
        height = low + (peak + 0.5) * _BIN_M
        if any(abs(height - p.height_m) < _APART_M for p, _, _ in found):
            continue
        layer = flat & (np.abs(z - height) < 2.5 * _BIN_M)
        count, labels = cv2.connectedComponents(layer.view(np.uint8), connectivity=8)
        if joined:
            labels = _joined(cloud.points, labels, height, cloud.world_T_camera[:3, 3])
        patch_areas = np.bincount(labels[layer], weights=area[layer], minlength=count)
        for label in np.flatnonzero(patch_areas >= config.support_min_area_m2):
            if label == 0:
                continue
            mask = labels == label
            plane = _fit(cloud.points[mask])
            if plane is None:
                continue
            inlier = mask & (np.abs(plane.height_over(cloud.points)) < config.support_tolerance_m)
            plane = _fit(cloud.points[inlier]) if int(inlier.sum()) >= 30 else None
            if plane is not None:
                found.append((plane, inlier, float(patch_areas[label])))
    return found


def _seen_flat(cloud: Cloud, known_m: tuple[float, ...]) -> NDArray[np.bool_]:
    """Pixels (h, w) of level surfaces that are seen at so small an angle that depth has steps and normals are unknown.

    There the slope between the pixels above and below is small, though they are far apart.

    Args:
        known_m: heights [m] at which nothing is looked for.
    """
    result = np.zeros(cloud.depth.shape, np.bool_)
    if min(result.shape) < 3:
        return result
    step = cloud.points[2:] - cloud.points[:-2]
    with np.errstate(invalid="ignore"):
        away = np.sqrt(np.square(step[..., 0]) + np.square(step[..., 1]))
        limit = np.float32(_GRAZING_SLOPE) * away
        level = (np.abs(step[..., 2]) < limit) & (away < _GRAZING_M[1]) & (away > _GRAZING_M[0])
    # From below, the undersides of boards are level too.
    below_eye = cloud.points[1:-1, :, 2] < np.float32(cloud.world_T_camera[2, 3] - _BELOW_EYE_M)
    level &= below_eye & ~np.isfinite(cloud.normals[1:-1, :, 2])
    for height in known_m:
        level &= ~(np.abs(cloud.points[1:-1, :, 2] - np.float32(height)) < _APART_M)
    result[1:-1] = level & np.isfinite(cloud.points[1:-1, :, 2])
    return result


def _joined(points: NDArray[np.float32], labels: NDArray[np.int32], height_m: float, eye: Array) -> NDArray[np.int32]:
    """Labels of patches (h, w) of one height [m], 0: none, where those that things divide have become one; what
    is no surface becomes 0.

    Patches near each other are one surface if together they are larger than any thing, and nothing lower is seen
    through it from the camera at ``eye`` (3,) [m], as it is between the tops of things that stand side by side.
    """
    rows, columns = np.nonzero(labels)
    result = np.zeros_like(labels)
    if not len(rows):
        return result
    cells = np.floor(points[rows, columns, :2] / _JOIN_CELL_M).astype(np.int64)
    low = cells.min(axis=0) - _JOIN_REACH
    cells -= low
    if int(np.prod(cells.max(axis=0) + _JOIN_REACH + 1)) > _MOST_CELLS:
        return result
    grid = np.zeros(cells.max(axis=0) + _JOIN_REACH + 1, np.uint8)
    grid[cells[:, 0], cells[:, 1]] = 1
    _, groups = cv2.connectedComponents(cv2.dilate(grid, np.ones((2 * _JOIN_REACH + 1,) * 2, np.uint8)))
    owner = groups[cells[:, 0], cells[:, 1]]
    # Where the lines of sight to what is lower cross the surface's height: there it is seen not to be.
    eye_over = float(eye[2]) - height_m
    below = points[points[..., 2] < height_m - _LOWER_M]
    if eye_over <= 0.0:
        below = below[:0]
    share = np.float32(eye_over) / (np.float32(eye[2]) - below[:, 2:])
    crossed = eye[:2].astype(np.float32) + share * (below[:, :2] - eye[:2].astype(np.float32))
    under = np.floor(crossed / _JOIN_CELL_M).astype(np.int64) - low
    under = under[((under >= 0) & (under < grid.shape)).all(axis=1)]
    lower = np.zeros(grid.shape, np.uint8)
    lower[under[:, 0], under[:, 1]] = 1
    for group in np.unique(owner):
        mine = owner == group
        hull = cv2.convexHull(cells[mine][:, ::-1].astype(np.int32))
        filled = cv2.fillPoly(np.zeros(grid.shape, np.uint8), [hull], (1,))
        # Beyond its edge what is lower is seen.
        inner = cv2.erode(filled, np.ones((3, 3), np.uint8))
        within = int(filled.sum())
        if within * _JOIN_CELL_M**2 < _JOINED_M2 or int((inner & lower).sum()) > _LOWER_SHARE * within:
            continue
        result[rows[mine], columns[mine]] = int(labels[rows[mine], columns[mine]].min())
    return result


def _fit(points: NDArray[np.float32]) -> Plane | None:
    """Least-squares plane, or None where it is not level (more than 8 degrees)."""
    if len(points) > 3000:
        points = points[:: len(points) // 3000 + 1]
    x, y, z = np.ascontiguousarray(points.T, dtype=np.float64)
    mean_x, mean_y, c = float(x.mean()), float(y.mean()), float(z.mean())
    # About the middle the slopes do not depend on the height: two equations, many times faster than a general solver.
    x, y, z = x - mean_x, y - mean_y, z - c
    xx, xy, yy = float(x @ x), float(x @ y), float(y @ y)
    determinant = xx * yy - xy * xy
    if determinant <= _IN_LINE * xx * yy:
        return None
    xz, yz = float(x @ z), float(y @ z)
    a, b = (yy * xz - xy * yz) / determinant, (xx * yz - xy * xz) / determinant
    if np.hypot(a, b) > 0.14:
        return None
    return Plane(np.array([a, b, c - a * mean_x - b * mean_y]), c)
