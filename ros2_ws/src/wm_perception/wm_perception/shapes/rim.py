"""The rim of an open body: an ellipse or a rectangle, of which other outlines are multiples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_perception.shapes.surfaces import Array


@dataclass(frozen=True)
class Rim:
    """The outer edge of an opening: an ellipse or a rectangle.

    Attributes:
        center: (2,) [m]; half: (2,) half axes [m] along its own axes; yaw: of the first of them [rad].
        elliptic: an ellipse; else a rectangle.
    """

    center: Array
    half: Array
    yaw: float
    elliptic: bool

    def local(self, xy: Array) -> Array:
        """(P, 2) [m] in the rim's own axes."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return (xy - self.center) @ np.array([[c, -s], [s, c]])

    def world(self, local: Array) -> Array:
        """(P, 2) [m], the inverse of ``local``."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray(local @ np.array([[c, s], [-s, c]]) + self.center)

    def gauge(self, xy: Array) -> Array:
        """(P,) factor by which the rim must be scaled about its center to go through each point."""
        scaled = self.local(xy) / self.half
        if self.elliptic:
            return np.asarray(np.hypot(scaled[:, 0], scaled[:, 1]))
        return np.asarray(np.abs(scaled).max(axis=1))

    def exit(self, xy: Array, direction: Array) -> Array:
        """(P,) how far [m] points inside are from the rim along unit directions (P, 2); 0 outside."""
        p = self.local(xy) / self.half
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        d = direction @ np.array([[c, -s], [s, c]]) / self.half
        if self.elliptic:
            a, b, e = np.einsum("pi,pi->p", d, d), np.einsum("pi,pi->p", p, d), 1.0 - np.einsum("pi,pi->p", p, p)
            return np.asarray(
                np.where(e > 0.0, (np.sqrt(np.maximum(b * b + a * e, 0.0)) - b) / np.maximum(a, 1e-9), 0.0)
            )
        with np.errstate(divide="ignore"):
            reach = (np.sign(d) - p) / np.where(d == 0.0, 1e-9, d)
        return np.asarray(np.where((np.abs(p) < 1.0).all(axis=1), np.maximum(reach.min(axis=1), 0.0), 0.0))
