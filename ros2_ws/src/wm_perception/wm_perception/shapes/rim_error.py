"""How far points that a mask takes in may be off along a direction, because the mask's rim is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LEAST_FACING = 0.2
"""Cosine between the line of sight and a surface's normal that is taken where it is less: such normals are not known
well. Larger trusts the rims of surfaces seen at small angles more."""


@dataclass(frozen=True)
class RimError:
    """The points of a segment, and the error of the mask that says which points are its own.

    Along the normal of the surface that it was measured on, a point is as sure as its depth. What the points say of
    where that surface ends is as sure as the mask, whose rim is known to about a pixel. Something flat shows little but
    its top: where it is in the plane of that is known by the rim alone.

    Attributes:
        normals: (P, 3) unit vectors of the measured surface, world axes, toward the camera; NaN where unknown.
        rays: (P, 3) unit vectors from the camera to the points, world axes.
        pixel_m: what a pixel covers at their depth, across the line of sight [m].
    """

    normals: Array
    rays: Array
    pixel_m: float

    @cached_property
    def _faces(self) -> tuple[Array, Array]:
        """Normals (P, 3), known or taken, and how they face the camera (P,), negative: the same for all gradients."""
        known = np.isfinite(self.normals[:, :1])
        n = np.where(known, self.normals, -self.rays)
        return n, np.minimum(np.einsum("pi,pi->p", n, self.rays), -_LEAST_FACING)

    def std_m(self, gradients: Array) -> Array:
        """(P,) standard deviations [m] of the points along unit vectors (P, 3), world axes, for a rim off by a pixel.

        A ray that is turned by a pixel meets the plane of the surface elsewhere: across the line of sight by s, along
        it by as much more as the plane is inclined. By how much along g, at most, over the directions of the turn, is
        the length of ``s (g - n (g . v) / (n . v))``, n the normal and v the ray: nothing along the normal itself.
        Where no normal is known the surface is taken to face the camera.
        """
        n, facing = self._faces
        along = np.einsum("pi,pi->p", gradients, self.rays) / facing
        return np.asarray(self.pixel_m * np.linalg.norm(gradients - n * along[:, None], axis=1))
