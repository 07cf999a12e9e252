"""What stands upright and is no single thing: walls, and the sides of bins, kept over frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.lifting.enclosures import Enclosure, find_enclosures
from wm_perception.lifting.supports import Support
from wm_perception.lifting.walls import Wall, find_walls, turned
from wm_perception.types import Array, Cloud, PerceptionConfig

_FIRST_SEARCHES = 3
"""Frames at the start that are all searched, as nothing is known yet."""
_EVERY = 10
"""After that, frames from one search to the next at least. Larger is cheaper, and sees a pushed bin move later."""
_MISSED = 4
"""Searches without a wall, or without a container that is in view, after which it is forgotten. Larger keeps what was
taken away, smaller forgets what a hand hides."""
_MOST_WALLS = 32
"""Walls kept, those seen last. Larger: slower in rooms full of furniture."""
_SAME_WALL_M, _SAME_COSINE = 0.04, 0.985
"""Distance [m] and cosine of normals up to which two walls are one."""
_SAME_CENTER_M, _SAME_SIZES_M = 0.12, 0.12
"""Differences of centers and sizes [m] up to which two containers are one. Larger follows faster pushes, and mixes up
bins that stand side by side."""
_MOVED_M = 0.02
"""Distance [m] from which a container has moved, and its place is taken anew and not averaged. Larger averages more
noise away and lags behind slow pushes."""
_AVERAGED = 8
"""Sightings over which the place of a container that stands still is averaged. Larger: nearer to the truth, later."""
_WALL_LAYER_M, _WALL_NOISE = 0.015, 2.0
"""Half thickness [m] of a wall, and in standard deviations of depth. Larger takes in flat things that lean on it."""
_FLAT, _FACING = 0.9, 0.85
"""Vertical part of a normal from which a pixel is the top of a thing, and cosine to the walls' directions (32 degrees)
under which it is of something round or turned, where it is at a side. Smaller cuts less off what leans on sides."""
_BEYOND_M = 0.03
"""How far beyond its seen rectangle a wall may go on, and above its rim a container [m]."""


@dataclass
class Container:
    """A remembered container.

    Attributes:
        id: persistent object id.
        shape: as averaged over sightings; seen: as seen last.
        first_seen_ns, last_seen_ns: stamps [ns]; frames: count of the searches that found it; missed: in succession
            that did not; seen_now: whether the last one did.
        color: (3,) mean RGB of its sides, 0..255.
    """

    id: int
    shape: Enclosure
    first_seen_ns: int
    last_seen_ns: int
    frames: int = 1
    missed: int = 0
    seen_now: bool = True
    color: Array = field(default_factory=lambda: np.full(3, 128.0))


@dataclass(frozen=True)
class Structure:
    """What was known at a frame.

    Attributes:
        walls: upright planes; containers: copies of those known.
    """

    walls: tuple[Wall, ...] = ()
    containers: tuple[Container, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.walls or self.containers)

    def on_walls(self, points: NDArray[np.float32], depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which points (P, 3) [m], seen at depths (P,) [m], are of a wall."""
        if not self.walls:
            return np.zeros(len(points), np.bool_)
        limit = np.maximum(np.float32(_WALL_LAYER_M), np.float32(_WALL_NOISE) * depth_noise_m(depth))
        on = np.zeros(len(points), np.bool_)
        for wall in self.walls:
            nx, ny = (np.float32(v) for v in wall.normal)
            near = np.flatnonzero(np.abs(points[:, 0] * nx + points[:, 1] * ny - np.float32(wall.offset_m)) < limit)
            along = points[near, 1] * nx - points[near, 0] * ny
            z = points[near, 2]
            within = (along > wall.span_m[0] - _BEYOND_M) & (along < wall.span_m[1] + _BEYOND_M)
            within &= (z > wall.height_m[0] - _BEYOND_M) & (z < wall.height_m[1] + _BEYOND_M)
            on[near[within]] = True
        return on

    def on_sides(
        self, points: NDArray[np.float32], depth: NDArray[np.float32], normals: NDArray[np.float32] | None = None
    ) -> NDArray[np.int64]:
        """Index of the container whose sides each point (P, 3) [m], seen at a depth (P,) [m], is of; -1: of none.

        Args:
            normals: (P, 3) unit, NaN where unknown: those that face as no side does are of no side.
        """
        which = np.full(len(points), -1, np.int64)
        noise = np.float32(_WALL_NOISE) * depth_noise_m(depth)
        for index, container in enumerate(self.containers):
            shape = container.shape
            with np.errstate(invalid="ignore"):
                on = np.abs(shape.inward_m(points[:, :2])) < np.maximum(np.float32(shape.wall_m), noise)
                on &= points[:, 2] < np.float32(shape.top_m + _BEYOND_M)
            rows = np.flatnonzero(on)
            if normals is not None:
                rows = rows[~_faces_otherwise(normals[rows], shape.yaw)]
            which[rows] = index
        return which


def _faces_otherwise(normals: NDArray[np.float32], yaw: float) -> NDArray[np.bool_]:
    """Which normals (P, 3) are known, and neither along nor across walls of a yaw [rad], nor between these and up."""
    x, y = turned(normals[:, :2], yaw)
    with np.errstate(invalid="ignore"):
        level = np.hypot(x, y)
        askew = np.maximum(np.abs(x), np.abs(y)) < np.float32(_FACING) * level
        return np.asarray((normals[:, 2] > _FLAT) | (askew & (level > 0.5)))


class StructureMap:
    """Walls and containers seen so far.

    Args:
        new_id: gives object ids that were not used before.

    Attributes:
        searched: whether the last update searched, which takes about as long as a search for supports.
    """

    def __init__(self, config: PerceptionConfig, new_id: Callable[[], int]) -> None:
        self.config = config
        self.searched = False
        self._new_id = new_id
        self._walls: list[Wall] = []
        self._missed: list[int] = []
        self._containers: list[Container] = []
        self._searches = 0
        self._since = 0

    def update(
        self,
        cloud: Cloud,
        height: NDArray[np.float32],
        which: NDArray[np.int32],
        supports: Sequence[Support],
        stamp_ns: int,
        busy: bool = False,
    ) -> None:
        """Search this frame, if it is time for it.

        Args:
            height, which: (h, w) over the support below each pixel [m], and its index in ``supports``.
            busy: supports were searched for in this frame: wait for the next, but at the start.
        """
        self._since += 1
        first = self._searches < _FIRST_SEARCHES
        self.searched = first or (self._since >= _EVERY and not busy)
        if not self.searched:
            for container in self._containers:
                if container.seen_now:
                    container.last_seen_ns = stamp_ns
            return
        self._since = 0
        self._searches += 1
        self._keep_walls(find_walls(cloud, height, self.config))
        known = Structure(tuple(self._walls)).on_walls(cloud.points.reshape(-1, 3), cloud.depth.ravel())
        found = find_enclosures(cloud, height, which, supports, known.reshape(cloud.depth.shape))
        self._keep_containers(found, cloud, stamp_ns)

    def snapshot(self) -> Structure:
        """What is known now; later updates do not change it."""
        return Structure(tuple(self._walls), tuple(replace(c, color=c.color.copy()) for c in self._containers))

    def _keep_walls(self, found: Sequence[Wall]) -> None:
        """Those found now, and those of before that were not found again for a few searches."""
        walls = list(found)
        missed = [0] * len(walls)
        for wall, misses in zip(self._walls, self._missed, strict=True):
            if misses + 1 < _MISSED and not any(_is_one_wall(wall, other) for other in found):
                walls.append(wall)
                missed.append(misses + 1)
        self._walls, self._missed = walls[:_MOST_WALLS], missed[:_MOST_WALLS]

    def _keep_containers(self, found: Sequence[Enclosure], cloud: Cloud, stamp_ns: int) -> None:
        free = list(found)
        for container in self._containers:
            container.seen_now = False
            near = [e for e in free if _is_one_container(container.shape, e)]
            if near:
                shape = min(near, key=lambda e: float(np.linalg.norm(e.center - container.shape.center)))
                free.remove(shape)
                container.shape = _averaged(container.shape, shape, container.frames)
                container.frames += 1
                container.missed = 0
                container.seen_now, container.last_seen_ns = True, stamp_ns
            elif _in_view(container.shape, cloud):
                container.missed += 1
        self._containers = [c for c in self._containers if c.missed < _MISSED]
        for shape in free:
            self._containers.append(Container(self._new_id(), shape, stamp_ns, stamp_ns, color=_color(shape, cloud)))


def _is_one_wall(a: Wall, b: Wall) -> bool:
    if float(a.normal @ b.normal) < _SAME_COSINE:
        return False
    overlap = min(a.span_m[1], b.span_m[1]) > max(a.span_m[0], b.span_m[0])
    level = min(a.height_m[1], b.height_m[1]) > max(a.height_m[0], b.height_m[0])
    return overlap and level and abs(a.offset_m - b.offset_m) < _SAME_WALL_M


def _turned_as(shape: Enclosure, other: Enclosure) -> Enclosure:
    """The same container, with the axes of another as near as they can be."""
    quarters = round((other.yaw - shape.yaw) / (0.5 * np.pi))
    return replace(
        shape, yaw=shape.yaw + quarters * 0.5 * np.pi, sizes=shape.sizes[::-1].copy() if quarters % 2 else shape.sizes
    )


def _is_one_container(a: Enclosure, b: Enclosure) -> bool:
    apart = float(np.linalg.norm(a.center - b.center))
    return apart < _SAME_CENTER_M and bool((np.abs(_turned_as(b, a).sizes - a.sizes) < _SAME_SIZES_M).all())


def _averaged(before: Enclosure, now: Enclosure, frames: int) -> Enclosure:
    """The container after another sighting; after ``_AVERAGED`` it stays as it is until it is seen to have moved."""
    now = _turned_as(now, before)
    apart = float(np.linalg.norm(now.center - before.center))
    if apart > _MOVED_M or float(np.abs(now.sizes - before.sizes).max()) > 2.0 * _MOVED_M:
        return now
    if frames >= _AVERAGED:
        return before
    share = 1.0 / (frames + 1)
    return Enclosure(
        before.center + share * (now.center - before.center),
        before.sizes + share * (now.sizes - before.sizes),
        before.yaw + share * (now.yaw - before.yaw),
        before.bottom_m + share * (now.bottom_m - before.bottom_m),
        before.top_m + share * (now.top_m - before.top_m),
        now.support,
        before.wall_m + share * (now.wall_m - before.wall_m),
    )


def _in_view(shape: Enclosure, cloud: Cloud) -> bool:
    """Whether the middle of a container's opening is within the image."""
    camera_T_world = np.linalg.inv(cloud.world_T_camera)
    x, y, z = camera_T_world[:3, :3] @ np.array([*shape.center, shape.top_m]) + camera_T_world[:3, 3]
    if z < 0.05:
        return False
    u = cloud.camera.fx * x / z + cloud.camera.cx
    v = cloud.camera.fy * y / z + cloud.camera.cy
    return bool(0.0 <= u < cloud.camera.width and 0.0 <= v < cloud.camera.height)


def _color(shape: Enclosure, cloud: Cloud) -> Array:
    """Mean RGB (3,) 0..255 of the pixels of a container's sides."""
    some = np.s_[::4, ::4]
    points, rgb = cloud.points[some].reshape(-1, 3), cloud.rgb[some].reshape(-1, 3)
    on = Structure((), (Container(0, shape, 0, 0),)).on_sides(points, cloud.depth[some].ravel()) >= 0
    return cv2.mean(rgb[on].reshape(-1, 1, 3))[:3] @ np.eye(3) if on.any() else np.full(3, 128.0)
