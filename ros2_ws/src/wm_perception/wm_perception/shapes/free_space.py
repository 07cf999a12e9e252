"""Free space: what the camera sees past an object, on whose rays the object cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wm_core.shapes import Shape
from wm_perception.shapes.surfaces import Array, surface_distance

_SAMPLES = 8
"""Places on each ray at which a solid is looked for, and again around the deepest of them. Larger finds what is thin,
for more time."""
ALLOWED_M = 0.003
"""Depth [m] in a solid up to which a ray has not gone through it: a pixel at 0.8 m, by which outlines are off. Larger
allows more, smaller shrinks solids."""
_MARGIN_M = 0.004
"""Way [m] before its end, beside the noise, from which a ray is not known to be free. Larger is safer with sensors that
are wrong at edges."""
_HOVER_M = 0.015
"""Least height [m] over what it would stand on from which an object is asked whether it hovers. Smaller asks of what
only seems to, by the blur of depth at its lower edge."""
_CORE = 0.6
"""Part of its length and width within which an object would reach down. Larger takes rays that pass by an edge."""
_SECTIONS, _LEAST_SECTIONS, _LEAST_FREE = 6, 5, 2
"""Sections of an object's length, of those the ones beneath which a ray has to pass, and how many of those suffice
where others end beneath the rest. More need more to be seen."""
_BORNE_M, _INTO_M = 0.035, 0.01
"""How far [m] beneath the lowest of an object's points, and over it, what bears it may end. Larger takes what stands
beside it for that."""


@dataclass(frozen=True)
class FreeSpace:
    """Rays from the camera that are free up to some length.

    Attributes:
        eyes: (S, 3) where each begins [m]; directions: (S, 3) unit; lengths: (S,) [m].
    """

    eyes: Array
    directions: Array
    lengths: Array

    @staticmethod
    def up_to(eye: Array, ends: Array, noise_m: float) -> FreeSpace | None:
        """Of rays that end at points (S, 3) of other surfaces; None where there are none."""
        if not len(ends):
            return None
        ways = ends - eye
        lengths = np.linalg.norm(ways, axis=1)
        return FreeSpace(
            np.tile(np.asarray(eye, np.float64), (len(ends), 1)),
            ways / np.maximum(lengths, 1e-9)[:, None],
            np.maximum(lengths - _MARGIN_M - 2.0 * noise_m, 0.0),
        )

    def deepest(
        self, shape: int, extents: Array, position: Array, rotation: Array, planes: Array | None = None
    ) -> tuple[Array, Array]:
        """Of each ray that passes near a solid the point (R, 3) that is deepest in it, and its signed distance (R,)."""
        reach = 0.5 * float(np.linalg.norm(extents))
        to = position - self.eyes
        along = np.einsum("si,si->s", self.directions, to)
        aside = np.sqrt(np.maximum(np.einsum("si,si->s", to, to) - along**2, 0.0))
        half = np.sqrt(np.maximum(reach**2 - aside**2, 0.0))
        near = (half > 0.0) & (along - half < self.lengths)
        if not near.any():
            return np.zeros((0, 3)), np.zeros(0)
        eyes, directions, lengths = self.eyes[near], self.directions[near], self.lengths[near]
        low, high = along[near] - half[near], np.minimum(along[near] + half[near], lengths)
        best, distance = np.zeros(len(low)), np.full(len(low), np.inf)
        rows = np.arange(len(low))
        for _ in range(2):
            start, width = low[rows], (high - low)[rows]
            steps = start[:, None] + width[:, None] * np.linspace(0.0, 1.0, _SAMPLES)
            points = eyes[rows, None] + steps[..., None] * directions[rows, None]
            local = (points.reshape(-1, 3) - position) @ rotation
            found = surface_distance(shape, extents, local, planes).reshape(steps.shape)
            k = (np.arange(len(rows)), found.argmin(axis=1))
            best[rows], distance[rows] = steps[k], found[k]
            # Again, more closely, for the rays that may go into the solid between these places.
            width = width / (_SAMPLES - 1)
            low[rows], high[rows] = np.maximum(steps[k] - width, start), np.minimum(steps[k] + width, high[rows])
            rows = rows[found[k] < width]
            if not len(rows):
                break
        return eyes + best[:, None] * directions, distance

    def intruders(self, shape: int, extents: Array, position: Array, rotation: Array) -> Array:
        """(R, 3) the deepest points of those rays that go through a solid."""
        points, distance = self.deepest(shape, extents, position, rotation)
        return points[distance < -ALLOWED_M]

    def intrusion_m(
        self, shape: int, extents: Array, position: Array, rotation: Array, planes: Array | None = None
    ) -> float:
        """Mean depth [m] over all rays to which they go through a solid."""
        _, distance = self.deepest(shape, extents, position, rotation, planes)
        return float(np.maximum(-distance - ALLOWED_M, 0.0).sum()) / len(self.lengths)


def is_free_beneath(free: FreeSpace, points: Array, bottom: float, others: Array | None = None) -> bool:
    """Whether rays pass beneath the points (P, 3) of an object, so that it does not reach down to ``bottom`` [m].

    A handle, or a part that a segmenter cut off, hovers; what something in front hides does not seem to, as no ray that
    is known to be free passes there. What lies across other things has their tops under its ends: points (Q, 3) on the
    surfaces of ``others`` [m].
    """
    low = float(np.percentile(points[:, 2], 2.0))
    gap = low - bottom
    if gap < _HOVER_M:
        return False
    (x, y), (length, width), angle = cv2.minAreaRect(np.ascontiguousarray(points[:, :2], dtype=np.float32))
    yaw = np.radians(angle) + (0.0 if length >= width else 0.5 * np.pi)
    axis, rotation = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.eye(3)
    rotation[:, 0], rotation[:, 1] = axis, [-axis[1], axis[0], 0.0]
    long, narrow = max(length, width), max(min(length, width), 2.0 * ALLOWED_M)
    extents = np.array([_CORE * long, max(_CORE * narrow, 2.5 * ALLOWED_M), 0.75 * gap])
    middle = np.array([x, y, bottom + 0.5 * gap])
    through = (free.intruders(Shape.BOX, extents, middle, rotation) - middle) @ axis / extents[0]
    sections = _sections(through)
    if others is not None and len(sections) >= _LEAST_FREE:
        top = others[(others[:, 2] > low - _BORNE_M) & (others[:, 2] < low + _INTO_M)]
        local = (top - middle) @ rotation[:, :2]
        # It reaches as far as the object does, where rays may pass by its ends.
        within = (np.abs(local[:, 0]) < 0.5 * long) & (np.abs(local[:, 1]) < 0.5 * extents[1])
        sections |= _sections(np.clip(local[within, 0] / extents[0], -0.5, 0.5))
    return len(sections) >= _LEAST_SECTIONS


def _sections(places: Array) -> set[int]:
    """The sections 0 to 5 of places (P,) along an object, its ends at -0.5 and 0.5."""
    return set(np.clip(np.floor((places + 0.5) * _SECTIONS), 0, _SECTIONS - 1).astype(int).tolist())
