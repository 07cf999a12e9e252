"""Solids that are not convex seen from above, such as a T, an L, a hammer: upright prisms of measured height.

What is seen of a thing on a support is completed downward: its footprint is the outline of its points from above, cut
into convex pieces, and each piece stands on the support and is as high as its points. CoACD takes seconds,
and closed meshes (docs/dependencies.md).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.convex_parts import ConvexPart, hull_part
from wm_perception.shapes.footprint import Raster, rasterize
from wm_perception.shapes.surfaces import MIN_SIZE_M, Array

Mask = NDArray[np.uint8]

_CONVEX = 0.84
"""Area over that of the hull from which an object is its hull. Larger cuts up noise."""
_PIECE_CONVEX = 0.86
"""The same of a piece that is not cut any more."""
_SEEN_EMPTY = 0.08
"""Part of the hull that must be seen to be empty: what is behind the object is not. Larger misses small notches."""
_HIDDEN_HEIGHT = 0.6
"""Part of the object's height up to which what would fill a notch may be hidden. Larger counts more as seen."""
_MOST_PIECES = 4
"""Pieces at most: what needs more is a frayed mask rather than a thing. Larger follows winding things."""
_FILLED = 0.74
"""Area of all pieces over that of their hulls, below which they are no pieces of a thing."""
_LEAST_PIECE = 0.06
"""Area of a piece over that of the whole below which it is not cut off."""
_NOTCH_CELLS = 2.0
"""Depth of a notch in cells from which it is one."""
_NOTCH_PART = 0.1
"""Depth of the deepest notch over the object's length from which it is not convex. Larger cuts fewer objects."""
_EVEN_TURNS = 8
"""Directions of cuts that are tried through the bottom of a notch, beside those to the other notches."""
_LEAST_POINTS = 6
"""Points of a piece from which its outline is theirs; else that of its cells."""


def find_prisms(
    points: Array, eye: Array, base: float, others: Callable[[], Array] | None = None
) -> tuple[ConvexPart, ...]:
    """The prisms of an object that is not convex seen from above; empty where it is, or where that is not seen.

    Args:
        points: (P, 3) of one object, z up [m]; eye: (3,) camera position [m]; base: height of what it stands on [m].
        others: gives points (Q, 3) of the surfaces of other objects, which may hide a part of it.
    """
    if len(points) < 60:
        return ()
    raster = rasterize(points[:, :2], closing=5)
    mask = _largest(raster.filled)
    whole = _hull_mask(mask)
    if mask.sum() > _CONVEX * whole.sum():
        return ()
    low = base + _HIDDEN_HEIGHT * (float(np.percentile(points[:, 2], 95.0)) - base)
    empty = (whole > 0) & (mask == 0) & ~_shadow(raster, points, eye, low)
    if empty.sum() < _SEEN_EMPTY * whole.sum():
        return ()
    if others is not None:
        hidden = _shadow(raster, others(), eye, low).astype(np.uint8)
        empty &= cv2.dilate(hidden, np.ones((5, 5), np.uint8)) == 0
        if empty.sum() < _SEEN_EMPTY * whole.sum():
            return ()
    if _deepest_notch(mask) < max(_NOTCH_CELLS, _NOTCH_PART * max(np.ptp(np.argwhere(mask), axis=0))):
        return ()
    pieces = convex_partition(mask)
    filled = float(mask.sum()) / max(sum(_hull_area(piece) for piece in pieces), 1.0)
    if len(pieces) < 2 or filled < _FILLED:
        return ()
    parts = [_prism(raster, piece, points, base) for piece in pieces]
    return tuple(part for part in parts if part is not None)


def convex_partition(mask: Mask, limit: int = _MOST_PIECES) -> list[Mask]:
    """A connected mask (H, W) of 0 and 1 cut by straight lines into at most ``limit`` nearly convex masks.

    The pieces do not overlap and together are the mask. Again and again the piece that fills its hull least is cut,
    through the bottom of a notch in the direction after which the hulls are smallest.
    """
    pieces = [mask]
    done: list[Mask] = []
    least = _LEAST_PIECE * float(mask.sum())
    while pieces and len(pieces) + len(done) < limit:
        k = int(np.argmin([p.sum() / max(_hull_area(p), 1.0) for p in pieces]))
        piece = pieces.pop(k)
        if piece.sum() > _PIECE_CONVEX * _hull_area(piece):
            done += [piece, *pieces]
            return done
        halves = _best_cut(piece, least, limit - len(pieces) - len(done))
        if halves:
            pieces += halves
        else:
            done.append(piece)
    return done + pieces


def _best_cut(mask: Mask, least: float, limit: int) -> list[Mask]:
    """The pieces of the best straight cut; empty: no cut makes the hulls smaller."""
    notches = _notches(mask)
    rows, columns = np.nonzero(mask)
    before, best, found = _hull_area(mask), 0.97, []
    for k, notch in enumerate(notches):
        turns = np.arange(_EVEN_TURNS) * np.pi / _EVEN_TURNS
        ways = [np.array([np.cos(t), np.sin(t)]) for t in turns]
        ways += [other - notch for j, other in enumerate(notches) if j != k]
        ways += _edges_at(mask, notch)
        for way in ways:
            length = float(np.linalg.norm(way))
            if length < 1e-6:
                continue
            side = ((columns - notch[0]) * way[1] - (rows - notch[1]) * way[0]) / length > 0.0
            if min(side.sum(), (~side).sum()) < least:
                continue
            area = sum(_points_area(np.column_stack([columns[half], rows[half]])) for half in (side, ~side))
            if area < best * before:
                best, found = area / before, [side]
    if not found:
        return []
    pieces = []
    for half in (found[0], ~found[0]):
        part = np.zeros_like(mask)
        part[rows[half], columns[half]] = 1
        count, labels = cv2.connectedComponents(part, connectivity=8)
        pieces += [(labels == k).astype(np.uint8) for k in range(1, count)]
    pieces.sort(key=lambda p: -int(p.sum()))
    if len(pieces) > limit:
        return []
    return pieces


def _notches(mask: Mask) -> list[Array]:
    """(2,) column and row of the bottoms of a mask's notches, the deepest first."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    if len(outline) < 5:
        return []
    hull = cv2.convexHull(outline, returnPoints=False)
    hull[::-1].sort(axis=0)
    defects = cv2.convexityDefects(outline, hull)
    if defects is None:
        return []
    found = [(d / 256.0, outline[far, 0].astype(np.float64)) for _, _, far, d in defects[:, 0]]
    found = [item for item in found if item[0] > _NOTCH_CELLS]
    found.sort(key=lambda item: -item[0])
    return [place for _, place in found[:6]]


def _deepest_notch(mask: Mask) -> float:
    """In cells, from the hull."""
    notches = _notches(mask)
    if not notches:
        return 0.0
    rows, columns = np.nonzero(mask)
    hull = cv2.convexHull(np.column_stack([columns, rows]).astype(np.int32))
    return float(cv2.pointPolygonTest(hull, (float(notches[0][0]), float(notches[0][1])), True))


def _edges_at(mask: Mask, notch: Array) -> list[Array]:
    """Directions of the outline's straight edges near a place."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corners = cv2.approxPolyDP(max(outlines, key=cv2.contourArea), 1.5, True)[:, 0].astype(np.float64)
    nearest = int(np.linalg.norm(corners - notch, axis=1).argmin())
    return [corners[(nearest + 1) % len(corners)] - corners[nearest], corners[nearest - 1] - corners[nearest]]


def _largest(mask: Mask) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    return (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)


def _hull_mask(mask: Mask) -> Mask:
    rows, columns = np.nonzero(mask)
    filled = np.zeros_like(mask)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.column_stack([columns, rows]).astype(np.int32)), 1)
    return filled


def _points_area(cells: NDArray[np.int64]) -> float:
    """Cells in the hull of cells (Q, 2): its area, and half a cell all around."""
    hull = cv2.convexHull(cells.astype(np.int32))
    return float(cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, True) + 1.0)


def _hull_area(mask: Mask) -> float:
    rows, columns = np.nonzero(mask)
    return _points_area(np.column_stack([columns, rows]))


def _shadow(raster: Raster, points: Array, eye: Array, low: float) -> NDArray[np.bool_]:
    """Cells in which points (P, 3) hide from the camera what is at the height ``low`` [m]."""
    hidden = np.zeros(raster.filled.shape, bool)
    points = points[points[:, 2] > low]
    level = points[:, :2] - eye[:2]
    run = np.linalg.norm(level, axis=1)
    length = run * (points[:, 2] - low) / np.maximum(eye[2] - points[:, 2], 1e-3)
    steps = np.arange(max(raster.filled.shape) + 1) * raster.cell
    reach = np.minimum(steps[None], length[:, None])
    places = points[:, None, :2] + (level / np.maximum(run, 1e-6)[:, None])[:, None] * reach[..., None]
    cells = np.floor((places.reshape(-1, 2) - raster.low) / raster.cell).astype(np.int64)[:, ::-1]
    cells = cells[((cells >= 0) & (cells < raster.filled.shape)).all(axis=1)]
    hidden[cells[:, 0], cells[:, 1]] = True
    return hidden


def _prism(raster: Raster, piece: Mask, points: Array, base: float) -> ConvexPart | None:
    """A piece of the footprint, from the base up to the height of its points."""
    cells = raster.cells_of(points[:, :2])
    inside = piece[cells[:, 0], cells[:, 1]] > 0
    if inside.sum() >= _LEAST_POINTS:
        own = points[inside]
        ground, top = own[:, :2], float(np.percentile(own[:, 2], 95.0))
    else:
        near = cv2.dilate(piece, np.ones((5, 5), np.uint8))[cells[:, 0], cells[:, 1]] > 0
        if not near.any():
            return None
        rows, columns = np.nonzero(piece)
        ground = raster.points_of(np.column_stack([columns, rows]).astype(np.float64))
        top = float(np.percentile(points[near, 2], 80.0))
    outline = cv2.convexHull(np.ascontiguousarray(ground, dtype=np.float32))
    outline = cv2.approxPolyDP(outline, 0.3 * raster.cell, True)[:, 0].astype(np.float64)
    if len(outline) < 3 or cv2.contourArea(outline.astype(np.float32)) < raster.cell**2:
        return None
    top = max(top, base + MIN_SIZE_M)
    return hull_part(np.concatenate([np.column_stack([outline, np.full(len(outline), z)]) for z in (base, top)]))
