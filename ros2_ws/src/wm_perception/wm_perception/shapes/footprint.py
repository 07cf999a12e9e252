"""Views from above: the raster of an object's points, and its body without what sticks out thinly."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.shapes.surfaces import Array

_CELLS = 40
"""Cells along the longer side of a raster at most. Larger is finer; beyond the density of the points it has holes."""
_LEAST_CELL_M = 0.004
"""Least side of a cell [m]: the distance of two pixels at 1.2 m. Smaller leaves holes between far pixels."""
_THIN = 0.36
"""What is thinner than this part of the largest inscribed circle's diameter is no body. Larger counts wide spouts and
short rims as handles; smaller takes thick handles into the body."""
_CORNER = 0.22
"""Points farther from the opened body than this part of the inscribed circle's radius stick out: opening cuts 0.15 of
it off a rectangle's corners."""


@dataclass(frozen=True)
class Raster:
    """Cells from above.

    Attributes:
        low: (2,) of the corner of cell (0, 0) [m]; cell: side [m].
        filled: (rows along y, columns along x) uint8 0 or 1, gaps between neighboring points and holes closed.
    """

    low: Array
    cell: float
    filled: NDArray[np.uint8]

    def cells_of(self, xy: Array) -> NDArray[np.int64]:
        """(P, 2) row and column of points (P, 2) [m], within the raster."""
        index = np.floor((xy - self.low) / self.cell).astype(np.int64)[:, ::-1]
        return np.clip(index, 0, np.array(self.filled.shape) - 1)

    def points_of(self, cells: Array) -> Array:
        """(Q, 2) [m] of cell coordinates (Q, 2) as OpenCV gives them: column and row of centers."""
        return self.low + (np.asarray(cells, np.float64) + 0.5) * self.cell


def rasterize(xy: Array, closing: int = 7) -> Raster:
    """The raster of points (P, 2) [m], without holes; gaps of up to about ``closing`` cells are closed."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    cell = max(float((high - low).max()) / _CELLS, _LEAST_CELL_M)
    low = low - 4.0 * cell
    shape = np.ceil((high - low) / cell).astype(np.int64)[::-1] + 4
    filled = np.zeros(shape, np.uint8)
    raster = Raster(low, cell, filled)
    cells = raster.cells_of(xy)
    filled[cells[:, 0], cells[:, 1]] = 1
    # Filled while it is widened: a ring of points with gaps is closed first, then filled, then as narrow as before.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (closing, closing))
    wide = cv2.dilate(filled, disc)
    outlines, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(wide, outlines, -1, 1, cv2.FILLED)
    filled[:] = cv2.erode(wide, disc)
    return raster


def body_mask(raster: Raster, xy: Array) -> tuple[NDArray[np.bool_], Array, float]:
    """Which of the points (P, 2) are of the body, not of a thin part; its largest inscribed circle.

    The body is the raster opened by a disc.

    Returns:
        (P,) bool, center (2,) and radius [m] of the circle.
    """
    depth = cv2.distanceTransform(raster.filled, cv2.DIST_L2, 5)
    _, radius, _, (column, row) = cv2.minMaxLoc(depth)
    center = raster.points_of(np.array([[column, row]], np.float64))[0]
    reach = max(round(_THIN * radius), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    opened = cv2.morphologyEx(raster.filled, cv2.MORPH_OPEN, disc)
    away = cv2.distanceTransform(1 - opened, cv2.DIST_L2, 5)
    cells = raster.cells_of(xy)
    beyond = away[cells[:, 0], cells[:, 1]]
    return beyond <= max(_CORNER * radius, 1.5), center, float(radius) * raster.cell
