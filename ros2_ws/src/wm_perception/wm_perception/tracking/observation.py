"""One segment of a frame, lifted to 3D, from which a track is updated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wm_perception.types import Array

SAMPLE_POINTS = 48
"""Points of a segment by which distances to tracks are measured. Chosen by hand; larger is slower and smoother."""
SURE_SCORE = 0.5
"""Segmenter score from which a segment counts as one whole object. Chosen by hand; larger means that more segments have
to pass the geometric tests of a birth."""


def no_edge() -> tuple[Array, Array]:
    """``Observation.edge`` where there is none."""
    return np.zeros((0, 3)), np.zeros((0, 3))


@dataclass
class Observation:
    """One segment of a frame.

    Attributes:
        points: (P, 3) world frame [m]; noise_m: standard deviation of their depth [m].
        color: (3,) mean RGB 0..255. pixels: count, at the cloud's size. area_m2: of the segment, as seen.
        bottom: height of the support under it [m], None: none known.
        support_height: that height [m], or of its lowest point where no support is known.
        height_low, height_high: over the support [m].
        on_border: cut off by the image's edge. outside_fraction: of points beyond the outline of their support.
        over_fraction: of points, 0..1, that are over a support.
        hidden_fraction: of its outline, 0..1, along which something nearer covers what may be more of it.
        extent: longest side of its bounds [m]. center: (3,) middle of its bounds, world [m].
        score: 0..1 from the segmenter, NaN where it gives none.
        embedding: (D,) unit length, or (0,). classes: (C,) probabilities in the order of the vocabulary, or (0,).
        rim: (P,) of each point: 2 beside an outline where the object goes on unseen (behind something nearer, or beyond
            the image), 1 beside its own outline, else 0; (0,): not known. cut_share: part 0..1 of the outline where
            the object goes on.
        normals: (P, 3) unit vectors of the surface at each point, world axes, toward the camera, NaN where unknown;
            (0, 3): not known.
        beneath_m: how far its support is beneath the one that the camera looks at [m]; negative above it.
        measured_share: part 0..1 of its pixels that have depth. uneven_m: between 5 and 95 % of
            what their depths differ from a plane's by [m], 0 where nearly all have depth.
        past_of, edge_of: give ``past`` and ``edge``, which are looked for only where they are needed.
    """

    points: Array
    noise_m: float
    color: Array
    pixels: int
    bottom: float | None
    support_height: float
    height_low: float
    height_high: float
    on_border: bool
    outside_fraction: float
    extent: float
    center: Array
    area_m2: float
    over_fraction: float = 1.0
    hidden_fraction: float = 0.0
    score: float = float("nan")
    embedding: Array = field(default_factory=lambda: np.zeros(0))
    classes: Array = field(default_factory=lambda: np.zeros(0))
    rim: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    cut_share: float = 0.0
    normals: Array = field(default_factory=lambda: np.zeros((0, 3)))
    beneath_m: float = 0.0
    measured_share: float = 1.0
    uneven_m: float = 0.0
    past_of: Callable[[], Array] = lambda: np.zeros((0, 3))
    edge_of: Callable[[], tuple[Array, Array]] = no_edge

    def __post_init__(self) -> None:
        if len(self.rim) not in (0, len(self.points)):
            raise ValueError(f"rim: got {len(self.rim)}, expected one for each of {len(self.points)} points, or none")
        if len(self.normals) not in (0, len(self.points)):
            raise ValueError(f"normals: got {len(self.normals)}, expected one for each of {len(self.points)}, or none")

    @cached_property
    def past(self) -> Array:
        """(S, 3) points of other surfaces [m] that are seen past the object: it is not on the way to them."""
        return self.past_of()

    @cached_property
    def edge(self) -> tuple[Array, Array]:
        """(E, 3) points [m] of its outermost pixels, and (E, 3) their normals, as ``normals``; empty where it is near.

        Far away their depth may be of what is behind: they are at the height, or the depth, of the pixels beside them.
        Empty, too, where what is seen is not mostly its top.
        """
        return self.edge_of()

    @cached_property
    def with_edge(self) -> Observation:
        """The same with its outermost pixels."""
        points, normals = self.edge
        if not len(points) or len(self.normals) != len(self.points):
            return self
        return replace(
            self,
            points=np.concatenate([self.points, points]),
            normals=np.concatenate([self.normals, normals]),
            rim=np.zeros(0, np.uint8),
            edge_of=no_edge,
        )

    @cached_property
    def size(self) -> Array:
        """(3,) extents of its points along the world axes [m], without the outermost 2 % on either side."""
        ranks = np.sort(self.points, axis=0)
        outermost = int(0.02 * (len(ranks) - 1))
        return np.asarray(ranks[-1 - outermost] - ranks[outermost])

    @property
    def pixel_m(self) -> float:
        """What one of its pixels covers across the line of sight [m]."""
        return float(np.sqrt(self.area_m2 / self.pixels))

    @property
    def sure(self) -> bool:
        """Whether the segmenter is sure that this is one whole object."""
        return self.score >= SURE_SCORE

    def sample(self, count: int = SAMPLE_POINTS) -> Array:
        """At most ``count`` of the points, evenly taken."""
        return self.points[:: max(1, len(self.points) // count)][:count]

    def with_points(self, points: Array, share: float) -> Observation:
        """The same with only some of its points, (Q, 3), which are a share 0..1 of it."""
        low, high = np.percentile(points, 2.0, axis=0), np.percentile(points, 98.0, axis=0)
        return replace(
            self,
            points=points,
            pixels=max(int(self.pixels * share), 1),
            area_m2=self.area_m2 * share,
            extent=float((high - low).max()),
            center=0.5 * (low + high),
            hidden_fraction=max(self.hidden_fraction, 0.5),
            rim=np.zeros(0, np.uint8),
            normals=np.zeros((0, 3)),
            edge_of=no_edge,
            cut_share=max(self.cut_share, 0.5),
        )
