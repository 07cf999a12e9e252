"""Horizontal surfaces that carry objects: found per frame, kept and completed over frames."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.lifting.planes import Plane, find_planes
from wm_perception.types import Array, Cloud, PerceptionConfig

CELL_M = 0.02
"""Size of the cells in which a support's footprint is remembered [m]."""
_MAX_EXTENT_M = 6.0
"""Supports longer than this [m] take in no further planes. Larger lets floors grow over more of a building."""
_RAISED_M = 0.3
"""Height [m] over the lowest surface seen from which a surface is furniture's and not the floor: lower than seats and
shelves' boards. Larger leaves low tables to be floors where the camera is high, smaller takes steps for tables."""
_OFFSET, _ROW = 1 << 20, 1 << 21
"""Codes of cells are ``x * _ROW + y``, with this offset so that both are positive: 21 km each way."""


def cell_codes(xy: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sorted codes of the footprint cells that points (P, 2) [m] fall into."""
    cells = np.floor(xy / CELL_M).astype(np.int64) + _OFFSET
    return np.unique(cells[:, 0] * _ROW + cells[:, 1])


def _decode(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integer cells (C, 2) of codes."""
    return np.stack([codes // _ROW, codes % _ROW], axis=1) - _OFFSET


@dataclass
class Support:
    """A remembered horizontal surface.

    Attributes:
        id: persistent object id.
        plane: in this frame where it was seen, else the last one seen.
        height_m: mean height over the frames, world frame [m].
        first_seen_ns, last_seen_ns: stamps [ns]; frames: count of those that showed it.
        seen_now: whether the current frame shows it; pixels: by how many pixels.
        color: (3,) mean RGB, 0..255.
        cells: (C,) sorted codes of the footprint's cells; counts: (C,) of the frames that showed each.
        version: goes up when cells change.
    """

    id: int
    plane: Plane
    height_m: float
    first_seen_ns: int
    last_seen_ns: int
    frames: int = 1
    seen_now: bool = True
    pixels: int = 0
    color: Array = field(default_factory=lambda: np.full(3, 128.0))
    cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    version: int = 0
    _rectangle: tuple[int, tuple[Array, Array, float, Array]] | None = None
    _grid: tuple[int, NDArray[np.uint8], NDArray[np.int64]] | None = None

    def add_cells(self, codes: NDArray[np.int64], counts: NDArray[np.int64] | None = None) -> None:
        """Count cells (``cell_codes``) once more, or by ``counts``."""
        merged = np.union1d(self.cells, codes)
        total = np.zeros(len(merged), dtype=np.int64)
        total[np.searchsorted(merged, self.cells)] += self.counts
        total[np.searchsorted(merged, codes)] += 1 if counts is None else counts
        self.cells, self.counts = merged, total
        self.version += 1

    def solid_cells(self) -> NDArray[np.int64]:
        """(C, 2) cells seen often enough to be believed."""
        least = 1 if self.frames < 4 else 2
        return _decode(self.cells[self.counts >= least])

    def grid(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The outline, one cell wider, as an image of cells (rows y, columns x), and the cell (2,) of its corner."""
        if self._grid is not None and self._grid[0] == self.version:
            return self._grid[1], self._grid[2]
        cells = self.solid_cells()
        grid, low = np.zeros((0, 0), np.uint8), np.zeros(2, np.int64)
        if len(cells):
            low = cells.min(axis=0) - 3
            size = cells.max(axis=0) - low + 4
            # The convex outline fills the holes that objects on the support leave; one cell more takes in its rim.
            outline = cv2.convexHull((cells - low).astype(np.int32))
            filled = cv2.fillPoly(np.zeros((size[1], size[0]), np.uint8), [outline], (1,))
            grid = np.asarray(cv2.dilate(filled, np.ones((3, 3), np.uint8)), dtype=np.uint8)
        self._grid = (self.version, grid, low)
        return grid, low

    def outside(self, xy: Array) -> Array:
        """(P,) bool: which points (P, 2) [m] are beyond the outline."""
        outline = self.rectangle()[3]
        edges = np.concatenate([outline[1:], outline[:1]]) - outline
        x, y = xy[:, :1] - outline[:, 0], xy[:, 1:] - outline[:, 1]
        side = edges[:, 0] * y - edges[:, 1] * x
        # The hull's sense of turning is OpenCV's: outside is where a side is of the other sign than the middle.
        turning = np.sign(edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0])
        return (side * turning < 0.0).any(axis=1)

    def rectangle(self) -> tuple[Array, Array, float, Array]:
        """Center (2,) [m], sizes (2,) [m], yaw [rad] and outline (P, 2) [m] of the footprint.

        The outline is the convex hull of the cells; the rectangle the smallest around it. Yaw is within 45 degrees.
        """
        if self._rectangle is not None and self._rectangle[0] == self.frames:
            return self._rectangle[1]
        cells = self.solid_cells()
        if len(cells) < 3:
            cells = _decode(self.cells)
        # The outermost cells alone: the others' corners are within.
        cells = cv2.convexHull(cells.astype(np.int32)).reshape(-1, 2).astype(np.int64)
        corners = (cells[:, None, :] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).reshape(-1, 2) * CELL_M
        hull = cv2.convexHull(corners.astype(np.float32)).reshape(-1, 2)
        (cx, cy), (lx, ly), angle = cv2.minAreaRect(hull)
        yaw = np.radians(angle)
        turns = int(np.round(yaw / (0.5 * np.pi)))
        sizes = np.array([ly, lx] if turns % 2 else [lx, ly])
        result = (np.array([cx, cy]), sizes, float(yaw - turns * 0.5 * np.pi), hull.astype(np.float64))
        self._rectangle = (self.frames, result)
        return result


def carries(height_m: float, lowest_m: float, camera_height_m: float, config: PerceptionConfig) -> bool:
    """Whether objects are searched for on a surface: not on those too deep below the camera (the floor).

    What is seen to be raised over another surface is no floor, however deep it is.

    Args:
        height_m: of the surface; lowest_m: of the lowest one seen, inf: none; camera_height_m: of the camera [m].
    """
    return height_m > min(camera_height_m - config.floor_below_camera_m, lowest_m + _RAISED_M)


class SupportMap:
    """Supports seen so far, with persistent ids.

    Args:
        new_id: gives object ids that were not used before.

    Attributes:
        supports: in the order in which they were found.
        searched: whether the last update searched for planes, which takes about as long as a shape fit.
    """

    def __init__(self, config: PerceptionConfig, new_id) -> None:  # type: ignore[no-untyped-def]
        self.config = config
        self.supports: list[Support] = []
        self._new_id = new_id
        self._updates = 0
        self.searched = False
        self._since_search = 0
        self._camera: Array | None = None

    def update(self, cloud: Cloud, stamp_ns: int) -> None:
        """Find this frame's planes and match them to the supports known.

        While the camera stands still, every fifth frame is enough, else every other: supports do not move.
        """
        self._since_search += 1
        still = self._camera is not None and np.abs(cloud.world_T_camera - self._camera).max() < 1e-3
        self.searched = self._since_search >= (5 if still else 2) or self._updates <= 5
        if not self.searched:
            for support in self.supports:
                if support.seen_now:
                    support.last_seen_ns = stamp_ns
            return
        self._since_search, self._camera = 0, cloud.world_T_camera.copy()
        for support in self.supports:
            support.seen_now = False
        for plane, mask in find_planes(cloud, self.config):
            points, rgb = cloud.points[::2, ::2][mask], cloud.rgb[::2, ::2][mask]
            codes = cell_codes(points[:: max(1, len(points) // 6000), :2])
            support = self._match(plane, codes)
            if support is None:
                support = Support(self._new_id(), plane, plane.height_m, stamp_ns, stamp_ns)
                support.color = rgb.mean(axis=0)
                self.supports.append(support)
            elif not support.seen_now:
                support.frames += 1
            if not support.seen_now or int(mask.sum()) > support.pixels:
                support.plane = plane
                support.pixels = int(mask.sum())
            support.seen_now = True
            support.last_seen_ns = stamp_ns
            weight = 1.0 / min(support.frames, 20)
            support.height_m += weight * (plane.height_m - support.height_m)
            support.color += weight * (rgb.mean(axis=0) - support.color)
            support.add_cells(codes)
        self._updates += 1
        if self._updates % 10 == 1:
            self._merge()

    def snapshot(self) -> tuple[Support, ...]:
        """The supports as they are now; later updates do not change these."""
        for support in self.supports:
            support.rectangle()  # found once, not by every copy
        return tuple(replace(support, color=support.color.copy()) for support in self.supports)

    def _match(self, plane: Plane, codes: NDArray[np.int64]) -> Support | None:
        best, best_overlap = None, 0.0
        center = np.median(_decode(codes), axis=0) * CELL_M
        for support in self.supports:
            if abs(support.height_m - plane.height_m) > 0.035:
                continue
            middle, sizes, _, _ = support.rectangle()
            if max(sizes) > _MAX_EXTENT_M:
                continue
            gap = np.linalg.norm(center - middle) - 0.5 * np.linalg.norm(sizes)
            overlap = len(np.intersect1d(codes, support.cells, assume_unique=True)) / max(len(codes), 1)
            score = overlap + (0.05 if gap < 0.15 else 0.0)
            if score > best_overlap:
                best, best_overlap = support, score
        return best

    def _merge(self) -> None:
        """Join supports of one height whose footprints have grown together; the older id stays."""
        for i, a in enumerate(self.supports):
            for b in self.supports[i + 1 :]:
                shared = len(np.intersect1d(a.cells, b.cells, assume_unique=True))
                if abs(a.height_m - b.height_m) < 0.025 and shared > 0.2 * min(len(a.cells), len(b.cells)):
                    a.add_cells(b.cells, b.counts)
                    a.frames = max(a.frames, b.frames) + 1
                    a.last_seen_ns = max(a.last_seen_ns, b.last_seen_ns)
                    a.seen_now |= b.seen_now
                    self.supports.remove(b)
                    self._merge()
                    return

    def carrying(self, camera_height_m: float) -> list[Support]:
        """Supports on which objects are searched for, see ``carries``."""
        lowest = min((s.height_m for s in self.supports if s.frames >= 2), default=np.inf)
        return [s for s in self.supports if carries(s.height_m, lowest, camera_height_m, self.config)]

    def heights(self, cloud: Cloud) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Height over the highest support under each pixel [m], NaN where none is, and that support's index."""
        over = np.full(cloud.depth.shape, np.nan, dtype=np.float32)
        which = np.full(cloud.depth.shape, -1, dtype=np.int32)
        camera_height = float(cloud.world_T_camera[2, 3])
        carrying = {s.id for s in self.carrying(camera_height)}
        x, y, z = cv2.split(cloud.points)
        for index, support in enumerate(self.supports):
            if support.id not in carrying:
                continue
            inside = self._inside(support, x, y)
            plane = support.plane
            if not support.seen_now:
                plane = Plane(np.array([0.0, 0.0, support.height_m]), support.height_m)
            height = plane.height_at(x, y, z)
            better = inside & (height > -0.02) & ~(over <= height)
            over[better] = height[better]
            which[better] = index
        return over, which

    @staticmethod
    def _inside(support: Support, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(h, w): whether points at (x, y) are over the support's outline."""
        grid, low = support.grid()
        if not grid.size:
            return np.zeros(x.shape, dtype=bool)
        # Nearest, about the middles of the cells; what is not a number falls outside.
        u = cv2.addWeighted(x, 1.0 / CELL_M, x, 0.0, -float(low[0]) - 0.5)
        v = cv2.addWeighted(y, 1.0 / CELL_M, y, 0.0, -float(low[1]) - 0.5)
        cv2.patchNaNs(u, -9.0)
        cv2.patchNaNs(v, -9.0)
        return cv2.remap(grid, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0) > 0
