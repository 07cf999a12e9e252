"""Families of solids on a support, with the parameters and derivatives by which they are fitted to points."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.spatial.transform import Rotation

from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import Array

# A cylinder's own axis is its z: to lie along x it is first tipped over.
_TIP = Rotation.from_euler("y", np.pi / 2.0)


class Solid(ABC):
    """A family of solids with a parameter vector; ``sizes``: indices of the parameters that are lengths."""

    shape = Shape.BOX
    sizes: tuple[int, ...] = ()

    def __init__(self, base: float) -> None:
        self.base = base

    @abstractmethod
    def build(self, x: Array) -> tuple[Array, Array, Array]:
        """Position (3,), rotation matrix (3, 3), full extents (3,)."""

    @abstractmethod
    def jacobian(self, x: Array, relative: Array, world: Array, local: Array) -> Array:
        """(P, len(x)) derivatives of the distances, from gradients in world and object axes (P, 3)."""


def yaw_matrix(yaw: float) -> Array:
    """(3, 3) rotation about the vertical [rad]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _by_yaw(relative: Array, gradient: Array) -> Array:
    """Derivative of the distance when the solid turns about the vertical: -(r x g)_z."""
    return relative[:, 1] * gradient[:, 0] - relative[:, 0] * gradient[:, 1]


class UprightBox(Solid):
    """x, y, yaw, length, width, height; stands on its base."""

    shape, sizes = Shape.BOX, (3, 4, 5)

    def build(self, x: Array) -> tuple[Array, Array, Array]:
        """See ``Solid.build``."""
        return np.array([x[0], x[1], self.base + 0.5 * x[5]]), yaw_matrix(x[2]), x[3:6].copy()

    def jacobian(self, x: Array, relative: Array, world: Array, local: Array) -> Array:
        """See ``Solid.jacobian``."""
        half = -0.5 * np.abs(local)
        height = half[:, 2] - 0.5 * world[:, 2]
        return np.column_stack([-world[:, :2], _by_yaw(relative, world), half[:, :2], height])


class UprightCylinder(Solid):
    """x, y, diameter, height; a cylinder that stands on its base."""

    shape, sizes = Shape.CYLINDER, (2, 3)

    def build(self, x: Array) -> tuple[Array, Array, Array]:
        """See ``Solid.build``."""
        return np.array([x[0], x[1], self.base + 0.5 * x[3]]), np.eye(3), np.array([x[2], x[2], x[3]])

    def jacobian(self, x: Array, relative: Array, world: Array, local: Array) -> Array:
        """See ``Solid.jacobian``."""
        radial = -0.5 * np.hypot(local[:, 0], local[:, 1])
        height = -0.5 * np.abs(local[:, 2]) - 0.5 * world[:, 2]
        return np.column_stack([-world[:, :2], radial, height])


class LyingCylinder(Solid):
    """x, y, yaw of the axis, diameter, length; a cylinder that lies on its base."""

    shape, sizes = Shape.CYLINDER, (3, 4)

    def build(self, x: Array) -> tuple[Array, Array, Array]:
        """See ``Solid.build``."""
        rotation = yaw_matrix(x[2]) @ _TIP.as_matrix()
        return np.array([x[0], x[1], self.base + 0.5 * x[3]]), rotation, np.array([x[3], x[3], x[4]])

    def jacobian(self, x: Array, relative: Array, world: Array, local: Array) -> Array:
        """See ``Solid.jacobian``."""
        radial = -0.5 * np.hypot(local[:, 0], local[:, 1]) - 0.5 * world[:, 2]
        return np.column_stack([-world[:, :2], _by_yaw(relative, world), radial, -0.5 * np.abs(local[:, 2])])


class LyingCapsule(LyingCylinder):
    """As the lying cylinder, with round ends."""

    shape = Shape.CAPSULE

    def jacobian(self, x: Array, relative: Array, world: Array, local: Array) -> Array:
        """See ``Solid.jacobian``."""
        # The core between the caps gets shorter as they get rounder.
        cap = np.where(np.abs(relative @ yaw_matrix(x[2])[:, 0]) > 0.5 * (x[4] - x[3]), np.abs(local[:, 2]), 0.0)
        radial = -0.5 + 0.5 * cap - 0.5 * world[:, 2]
        return np.column_stack([-world[:, :2], _by_yaw(relative, world), radial, -0.5 * cap])


class Ball(Solid):
    """x, y, z, diameter."""

    shape, sizes = Shape.SPHERE, (3,)

    def build(self, x: Array) -> tuple[Array, Array, Array]:
        """See ``Solid.build``."""
        return x[:3].copy(), np.eye(3), np.full(3, x[3])

    def jacobian(self, x: Array, relative: Array, world: Array, local: Array) -> Array:
        """See ``Solid.jacobian``."""
        return np.column_stack([-world, np.full(len(world), -0.5)])
