"""One object over time: its pose and motion, its shape, its appearance, and how sure all of that is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import ShapeFit, hull_planes, surface_samples
from wm_perception.tracking.motion import MotionFilter
from wm_perception.types import Array

WAKE_M = 0.006
_NEW_FRAMES = 10
_SLOW_M_S = 0.025
_BIAS_M = 0.0015
_BIAS_BALL = (0.012, 0.03)
_BIAS_SOLID = (0.03, 0.05)
_BIAS_HULL = (0.035, 0.05)


@dataclass
class Track:
    """One thing. ``id`` is 0 until it has been seen often enough; positions [m], velocities [m/s, rad/s]."""

    key: int
    shape: Shape
    quaternion: Array
    extents: Array
    filter: MotionFilter
    color: Array
    first_seen_ns: int
    last_seen_ns: int
    seen_extent: float
    id: int = 0
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    planes: Array | None = None
    turned: bool = False
    angular_velocity: Array = field(default_factory=lambda: np.zeros(3))
    rotation_covariance: Array = field(default_factory=lambda: np.diag([0.02**2] * 3))
    resting: bool = False
    toppled: bool = False
    moved: bool = False
    seen_now: bool = True
    cut: bool = False
    visibility: float = 1.0
    existence: float = 0.5
    score: float = 0.0
    embedding: Array = field(default_factory=lambda: np.zeros(0))
    log_classes: Array = field(default_factory=lambda: np.zeros(0))
    hits: int = 1
    misses: int = 0
    unseen_s: float = 0.0
    unclaimed_s: float = 0.0
    empty: int = 0
    odd: int = 0
    away: int = 0
    since: int = 0
    in_view: float = 1.0
    vacated: float = 0.0
    noise_m: float = 0.0
    ragged_m: Array = field(default_factory=lambda: np.zeros(3))
    last_size: Array | None = None
    fits: list[ShapeFit] = field(default_factory=list)
    whole: bool = False
    fit_stamp_ns: int = 0
    fit_pixels: int = 0
    residual_m: float = 0.0
    bottom: float | None = None
    support_height: float = 0.0
    upright: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    last_center: Array | None = None
    last_position: Array | None = None
    view: Array = field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))
    trail: deque[tuple[float, Array]] = field(default_factory=lambda: deque(maxlen=40))
    turns: deque[tuple[float, Array]] = field(default_factory=lambda: deque(maxlen=5))
    samples: tuple[Array, Array] | None = None

    @property
    def position(self) -> Array:
        """(3,) [m]."""
        return self.filter.mean[:3]

    @property
    def velocity(self) -> Array:
        """(3,) [m/s]; zero while resting, and where it cannot be told from the noise of a thing that rests.

        A rollout carries a velocity on for seconds: one that is only noise would make resting things drift.
        """
        v = self.filter.mean[3:6]
        speed = float(np.linalg.norm(v))
        sigma = float(np.sqrt(np.trace(self.filter.covariance[3:6, 3:6]) / 3.0))
        moved = float(np.linalg.norm(self.trail[-1][1] - self.trail[0][1])) if self.trail else 0.0
        # Of what the image or another thing has always cut off, the seen part grows: that looks like motion.
        part = self.cut and not self.whole
        new = self.since < _NEW_FRAMES and (part or moved < 2.0 * WAKE_M)
        if self.resting or new or speed < _SLOW_M_S or (speed < 2.0 * _SLOW_M_S and speed < sigma):
            return np.zeros(3)
        return v

    def pose_covariance(self) -> Array:
        """(6, 6) [m, rad]: of the filter, and of what the shape leaves open."""
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = self.filter.covariance[:3, :3] + self.shape_covariance()
        covariance[3:, 3:] = self.rotation_covariance
        return covariance

    def shape_covariance(self) -> Array:
        """(3, 3) [m^2]: how far the center may be off because the solid is not the right one.

        Half of what the extents are uncertain by: the far side of a thing is not seen, so most of it lies along the
        line of sight. No filter averages it away, as it is the same in every frame.
        """
        size = float(self.extents.max())
        if self.shape == Shape.SPHERE:
            across, along = _BIAS_BALL
        elif self.shape == Shape.CONVEX:
            across, along = _BIAS_HULL
        else:
            across, along = _BIAS_SOLID
        # Calibrated on random worlds of the training split, by how much of a thing its solid was fitted to.
        wider = (1.0 if self.whole else 3.5) * (1.5 if self.cut else 1.0)
        across, along = wider * across, wider * along
        same = [f.extents for f in self.fits if f.shape == self.shape]
        spread = 0.5 * float(np.std(same, axis=0).max()) if len(same) >= 3 and self.shape != Shape.BOX else 0.0
        level = (_BIAS_M + across * size + spread) ** 2
        return np.eye(3) * level + np.outer(self.view, self.view) * (along * size) ** 2

    def twist_covariance(self) -> Array:
        """(6, 6) [m/s, rad/s]."""
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = np.eye(3) * 0.02**2 if self.resting else self.filter.covariance[3:6, 3:6]
        covariance[3:, 3:] = np.eye(3) * (0.05**2 if self.resting else 1.0)
        return covariance

    def set_shape(self, fit: ShapeFit, keep_pose: bool) -> None:
        """Take over the shape of a fit, and its pose unless that is to be kept."""
        self.shape, self.extents, self.hull = fit.shape, fit.extents, fit.hull
        self.planes = hull_planes(fit.hull) if fit.shape == Shape.CONVEX else None
        # A solid of revolution without a handle looks the same however it is turned.
        self.turned = fit.shape == Shape.CONVEX and abs(fit.extents[0] - fit.extents[1]) < 0.02 * fit.extents[0]
        self.samples = None
        if not keep_pose:
            self.quaternion = fit.quaternion
            self.upright = fit.quaternion

    def surface(self) -> tuple[Array, Array]:
        """Cached surface points and normals in the object frame."""
        if self.samples is None:
            self.samples = surface_samples(self.shape, self.extents, self.hull)
        return self.samples

    def class_probabilities(self) -> Array:
        """(C,) over the vocabulary of the segmenter, or (0,)."""
        if not len(self.log_classes):
            return self.log_classes
        p = np.exp(self.log_classes - self.log_classes.max())
        return p / p.sum()
