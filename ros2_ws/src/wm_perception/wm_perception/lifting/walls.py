"""Upright planes that are larger than any household thing: walls, sides and backs of shelves."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.types import Array, Cloud, PerceptionConfig

STEEP = 0.35
"""Vertical part of a unit normal (20 degrees) up to which a surface is upright. Larger takes in walls that lean, and
more of the sides of cones."""
_YAW_BINS, _YAWS = 36, 2
"""Bins of a right angle in which the direction of walls is sought (2.5 degrees each), and directions that are tried: a
room's or a shelf's, and another. Larger: slower."""
_AXIS_COSINE = 0.94
"""Cosine of the angle between a normal and its wall's (20 degrees). Smaller takes in more noise, and round things."""
_BIN_M = 0.01
"""Width [m] of the bins in which walls are sought along their normal: several times the noise of near depth."""
_LAYER_M, _LAYER_NOISE = 0.015, 2.0
"""Half thickness [m] of a wall's layer of points, and how many standard deviations of depth it is at least."""
_CELL_M = 0.03
"""Size [m] of the cells in which a wall's area is counted: larger than a pixel at 4 m. Larger joins across gaps."""
LEAST_AREA_M2 = 0.10
"""Area [m^2] from which an upright plane is no household thing's: 32 cm squared, above the front of a cereal carton
(0.06) or a parcel. Larger lets more of a cluttered shelf's back through, smaller takes large cartons for walls."""
_LEAST_HIGH_M = 0.08
"""Smaller side [m] of a wall that is large by its length: more than a board's front edge, which no mask survives."""
_BESIDE_PX = 9
"""Window [pixels of half the image's] about what is over a support, in which walls are sought. Larger: slower, as walls
far from what carries things are found too."""
_MOST_PER_SIDE = 6
"""Walls tried in each of the four directions. Larger: slower in rooms full of furniture."""


@dataclass(frozen=True)
class Wall:
    """An upright rectangle.

    Attributes:
        normal: (2,) level unit vector toward the side that was seen; offset_m: ``normal . xy`` of its points [m].
        span_m: (2,) least and largest place along (-normal y, normal x) [m]; height_m: (2,) least and largest z [m].
    """

    normal: Array
    offset_m: float
    span_m: tuple[float, float]
    height_m: tuple[float, float]


def directions(normals: NDArray[np.float32], weights: NDArray[np.float32]) -> list[float]:
    """The likeliest yaws [rad], 0 to 90 degrees, of upright planes at right angles to each other, the likeliest first.

    Args:
        normals: (P, 2) level parts of normals; weights: (P,) area of each.
    """
    if not len(normals):
        return []
    quarter = 0.5 * np.pi
    angle = np.arctan2(normals[:, 1], normals[:, 0]) % quarter
    bins = (angle * (_YAW_BINS / quarter)).astype(np.int64) % _YAW_BINS
    sums = np.bincount(bins, weights=weights, minlength=_YAW_BINS)
    smooth = sums + np.roll(sums, 1) + np.roll(sums, -1)
    found: list[float] = []
    for _ in range(_YAWS):
        peak = int(smooth.argmax())
        if smooth[peak] <= 0.0:
            break
        near = np.abs((bins - peak + _YAW_BINS // 2) % _YAW_BINS - _YAW_BINS // 2) <= 1
        # The mean of directions that repeat every 90 degrees.
        turned = np.exp(4j * angle[near]) * weights[near]
        found.append(float(np.angle(turned.sum()) / 4.0 % quarter))
        smooth[np.arange(peak - 4, peak + 5) % _YAW_BINS] = 0.0
    return found


def turned(xy: NDArray[np.float32], yaw: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Level vectors (P, 2) in axes that are turned by a yaw [rad]: their first and second parts (P,)."""
    c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    return c * xy[:, 0] + s * xy[:, 1], c * xy[:, 1] - s * xy[:, 0]


def find_walls(cloud: Cloud, height: NDArray[np.float32], config: PerceptionConfig) -> list[Wall]:
    """Upright planes at supports that are too large for a thing: longer than ``max_extent_m``, or ``LEAST_AREA_M2``.

    Args:
        height: (h, w) over the support below each pixel [m], NaN where there is none: what is far from any is left out.
    """
    every = np.s_[::2, ::2]  # a quarter of the pixels is plenty for surfaces of this size
    with np.errstate(invalid="ignore"):
        mask = (np.abs(cloud.normals[every][..., 2]) < STEEP) & np.isfinite(cloud.depth[every])
    over = cv2.dilate(np.isfinite(height[every]).astype(np.uint8), np.ones((_BESIDE_PX, _BESIDE_PX), np.uint8))
    mask &= over > 0
    points, normals, depth = cloud.points[every][mask], cloud.normals[every][mask], cloud.depth[every][mask]
    if len(points) < config.min_pixels:
        return []
    level = normals[:, :2] / np.linalg.norm(normals[:, :2], axis=1, keepdims=True)
    areas = np.square(depth) * (4.0 / (cloud.camera.fx * cloud.camera.fy))
    layer = np.maximum(np.float32(_LAYER_M), np.float32(_LAYER_NOISE) * depth_noise_m(depth))
    found: list[Wall] = []
    for yaw in directions(level, areas):
        places, facing = turned(points[:, :2], yaw), turned(level, yaw)
        for axis in (0, 1):
            for sign in (-1.0, 1.0):
                chosen = np.flatnonzero(np.float32(sign) * facing[axis] > _AXIS_COSINE)
                along = np.zeros(2)
                along[axis] = sign
                c, s = np.cos(yaw), np.sin(yaw)
                normal = np.array([c * along[0] - s * along[1], s * along[0] + c * along[1]])
                found += _of_side(points[chosen], places[axis][chosen], areas[chosen], layer[chosen], normal, config)
    return found


def _of_side(
    points: NDArray[np.float32],
    places: NDArray[np.float32],
    areas: NDArray[np.float32],
    layer: NDArray[np.float32],
    normal: Array,
    config: PerceptionConfig,
) -> list[Wall]:
    """Walls of one direction: of points (P, 3) [m], at places (P,) along it [m], with areas (P,) [m^2] and half
    thicknesses of their layers (P,) [m]."""
    found: list[Wall] = []
    if areas.sum() < 0.5 * LEAST_AREA_M2:
        return found
    low = float(places.min())
    bins = ((places - np.float32(low)) / np.float32(_BIN_M)).astype(np.int64)
    window = np.convolve(np.bincount(bins, weights=areas), np.ones(3), mode="same")
    tangent = np.array([-normal[1], normal[0]])
    for _ in range(_MOST_PER_SIDE):
        peak = int(window.argmax())
        if window[peak] < 0.4 * LEAST_AREA_M2:
            break
        window[max(peak - 3, 0) : peak + 4] = 0.0
        near = np.abs(places - np.float32(low + (peak + 0.5) * _BIN_M)) < layer
        on = points[near].astype(np.float64)
        plane = np.column_stack([on[:, :2] @ tangent, on[:, 2]])
        corner = plane.min(axis=0)
        cells = ((plane - corner) / _CELL_M).astype(np.int64)
        grid = np.zeros(cells.max(axis=0) + 3, np.uint8)
        grid[cells[:, 0] + 1, cells[:, 1] + 1] = 1
        count, labels = cv2.connectedComponents(cv2.dilate(grid, np.ones((3, 3), np.uint8)), connectivity=4)
        labels[grid == 0] = 0
        filled = np.bincount(labels.ravel(), minlength=count) * _CELL_M**2
        for label in range(1, count):
            if filled[label] < 0.02:
                continue
            part = plane[labels[cells[:, 0] + 1, cells[:, 1] + 1] == label]
            least, most = np.percentile(part, [0.5, 99.5], axis=0)
            sizes = np.sort(most - least)
            if filled[label] >= LEAST_AREA_M2 or (sizes[1] > config.max_extent_m and sizes[0] > _LEAST_HIGH_M):
                offset = float(np.median(on[labels[cells[:, 0] + 1, cells[:, 1] + 1] == label, :2] @ normal))
                span, heights = (float(least[0]), float(most[0])), (float(least[1]), float(most[1]))
                found.append(Wall(normal, offset, span, heights))
    return found
