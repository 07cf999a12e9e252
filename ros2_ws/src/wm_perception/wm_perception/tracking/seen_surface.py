"""The part of a surface that was seen as one segment, by which later segments are known as pieces of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm_core import rotations
from wm_perception.tracking.observation import Observation
from wm_perception.types import Array, Cloud

_POINTS = 120
"""Points kept of a surface. Larger is slower, and tells neighbors that nearly touch better apart."""
_SPACING = 1.6
"""Distances between neighboring kept points (median) within which a point is on the surface. Larger takes what lies
close beside an object for a piece of it; smaller loses pieces between the points."""
_LEAST_REACH_M = 0.006
"""The same at least [m]: as far as poses jitter between frames."""
_COLOR, _SHADE = 18.0, 0.3
"""Difference of a* + b* (0..255 each), plus this part of the difference of L*, up to which a pixel still shows the
point: shadows that pass change the latter. Larger means that fewer departures are seen."""
_LEAST_COMPARED = 20
"""Points in the image at the least for their colors to say anything."""


@dataclass
class SeenSurface:
    """Points of one view of an object.

    Attributes:
        points: (P, 3) object frame [m].
        colors: (P, 3) CIE L*a*b* scaled to 0..255, NaN where the pixel was not in the image.
        reach_m: distance up to which a point is on this surface [m]. area_m2: of the segment, as seen; 0: not known.
    """

    points: Array
    colors: Array = field(default_factory=lambda: np.zeros((0, 3)))
    reach_m: float = _LEAST_REACH_M
    area_m2: float = 0.0

    @classmethod
    def of(cls, o: Observation, position: Array, quaternion: Array, cloud: Cloud | None) -> SeenSurface:
        """What a segment shows of an object at this pose, with the colors of the cloud that it is of."""
        world = o.sample(_POINTS)
        colors = _colors(world, cloud)[0] if cloud is not None else np.zeros((0, 3))
        local = (world - position) @ rotations.matrix(quaternion)
        return cls(local, colors, max(_LEAST_REACH_M, _SPACING * spacing_of(world)), o.area_m2)

    def in_world(self, position: Array, quaternion: Array) -> Array:
        """(P, 3) world [m], at the object's pose."""
        return np.asarray(self.points @ rotations.matrix(quaternion).T + position)

    def move(self, world: Array, position: Array, quaternion: Array) -> None:
        """Keep the points where they are in the world (P, 3) while the object's frame changes to this pose."""
        self.points = (world - position) @ rotations.matrix(quaternion)

    def share_on(self, o: Observation, position: Array, quaternion: Array) -> float:
        """Part 0..1 of a segment's points that lie on this surface."""
        near = _squared(o.sample(), self.in_world(position, quaternion)).min(axis=1) < (self.reach_m + o.noise_m) ** 2
        return float(near.mean())

    def share_under(self, o: Observation, position: Array, quaternion: Array) -> float:
        """Part 0..1 of this surface that lies on a segment's points."""
        own = self.in_world(position, quaternion)[::2]
        near = _squared(own, o.sample(2 * _POINTS)).min(axis=1) < (self.reach_m + o.noise_m) ** 2
        return float(near.mean())

    def color_share(self, cloud: Cloud, position: Array, quaternion: Array, tolerance_m: float) -> float:
        """Part 0..1 of this surface whose place still shows its color; NaN where too little of it is in sight.

        Points that something nearer covers are left out; where the depth image shows something deeper it is not there.
        """
        if not len(self.colors):
            return float("nan")
        colors, behind = _colors(self.in_world(position, quaternion), cloud)
        known = np.isfinite(colors[:, 0]) & np.isfinite(self.colors[:, 0]) & (behind > -tolerance_m)
        if int(known.sum()) < _LEAST_COMPARED:
            return float("nan")
        apart = np.abs(colors[known] - self.colors[known])
        same = apart[:, 1] + apart[:, 2] + _SHADE * apart[:, 0] < _COLOR
        return float((same & (behind[known] < tolerance_m)).mean())


def spacing_of(points: Array) -> float:
    """Distance between neighboring points (P, 3) [m], the median, 0 of fewer than two.

    A few that are far from all others, as pixels at an outline that show what is behind it, change it little.
    """
    if len(points) < 2:
        return 0.0
    squared = _squared(points, points)
    np.fill_diagonal(squared, np.inf)
    return float(np.median(np.sqrt(np.maximum(squared.min(axis=1), 0.0))))


def shares(points: Array, surface: Array, on_m: float, under_m: float) -> tuple[float, float]:
    """Part 0..1 of points (P, 3) [m] that lie on a surface, and part of the surface (Q, 3) that lies on them.

    Args:
        on_m, under_m: distances [m] up to which they do.
    """
    squared = _squared(points, surface)
    on, under = squared.min(axis=1) < on_m**2, squared.min(axis=0) < under_m**2
    return float(on.mean()), float(under.mean())


def _squared(points: Array, others: Array) -> Array:
    """(P, Q) squared distances [m^2] between points (P, 3) and (Q, 3)."""
    dots = points @ others.T
    return np.asarray(
        np.square(points).sum(axis=1)[:, None] + np.square(others).sum(axis=1)[None] - 2.0 * dots, dtype=np.float64
    )


def _colors(points: Array, cloud: Cloud) -> tuple[Array, Array]:
    """Colors (P, 3) of the pixels at world points, NaN outside of the image; (P,) their depth minus the points' [m]."""
    camera_T_world = np.linalg.inv(cloud.world_T_camera)
    optical = points @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]
    v, u, depth, inside = cloud.camera.nearest_pixels(optical)
    colors = np.where(inside[:, None], cloud.lab[v, u], np.nan)
    return colors.astype(np.float64), np.where(inside, cloud.depth[v, u] - depth, np.nan)
