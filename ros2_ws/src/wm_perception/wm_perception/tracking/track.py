"""One object over time: pose, motion, shape and appearance, with their covariances."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from wm_core import rotations
from wm_core.convex_parts import hull_part
from wm_core.scene_graph import Shape
from wm_perception.shapes.part_frames import Parts
from wm_perception.shapes.surfaces import ShapeFit, hull_planes, surface_distance, surface_samples
from wm_perception.tracking.appearance import Appearance
from wm_perception.tracking.motion import MotionFilter
from wm_perception.tracking.seen_surface import SeenSurface
from wm_perception.types import Array

WAKE_M = 0.006
"""Displacement [m] from which a sleeping object may have been moved. Chosen by hand; larger means that slow pushes are
noticed later, and that depth noise wakes fewer objects."""
_NEW_FRAMES = 10
"""Frames (0.7 s at 15 Hz) for which a new track has to move by twice ``WAKE_M`` before it has a velocity. Introduced
with the measurement of false motion on the recorded clip (commit 4ab077b); larger means later velocities."""
_SLOW_M_S = 0.025
"""Speed [m/s] below which a velocity is reported as zero, up to twice of it where it is within its own deviation;
origin as ``_NEW_FRAMES``. Larger means that slow motion is lost, smaller that noise makes objects drift in rollouts."""
_DISPLACED = 11.345
"""Normalized square of the way of an object from which it has left its place: the 99 % bound of chi-square with 3
degrees of freedom. Larger means later velocities of what comes into view moving."""
_WELL, _RECENT = 4.0, 3
"""Variance of a measured place over that of the surest one up to which a way may begin or end there, and last frames in
one of which it ends: where an end is hidden for a frame, nothing is said against a motion. Larger takes vaguer places,
and keeps a velocity for longer of which nothing is seen any more."""
_CARRIED_ON = 0.25
"""Part of a step that the one before must have gone along it, for the two to be one motion: from rest, what is
accelerated evenly goes a third as far in the first step as in the second. Chosen by that; larger means later velocities
of what falls, smaller that jumps of segments are taken for motion."""
_OVER_M, _OVER = 0.012, 0.9
"""Distance [m] from an outline up to which a point is of it, and share of the points of a part of it. Larger shares and
smaller distances fit the shapes of whole objects anew when something has hidden a part of them."""
_BIAS_M = 0.0015
"""Standard deviation [m] of every center, whatever its size. With the factors below calibrated on random worlds of the
training split; larger means wider stated covariances."""
_BIAS_BALL = (0.012, 0.03)
"""Standard deviation of a ball's center across and along the line of sight, as a part of its largest extent ..."""
_BIAS_SOLID = (0.03, 0.05)
"""... of boxes, cylinders and capsules ..."""
_BIAS_HULL = (0.035, 0.05)
"""... and of convex hulls."""


class Measured(NamedTuple):
    """Where an object was measured: stamp [s], position (3,) [m] and its covariance (3, 3) [m^2]."""

    stamp_s: float
    position: Array
    covariance: Array


@dataclass
class MotionState:
    """Position and motion in the world frame.

    Attributes:
        filter: position [m], velocity [m/s] and acceleration [m/s^2] of the center.
        angular_velocity: (3,) world axes [rad/s].
        rotation_covariance: (3, 3) world axes [rad^2].
        sleeping: at rest; its pose is held until it is measured elsewhere.
        moved: it has been seen to move since its birth, or was found elsewhere.
        toppled: it has turned over by more than 45 degrees.
        seen_moving: it has been seen to move since it was last lost from sight.
        displaced_frames: frames in succession in which a sleeping object was measured away from its place.
        frames: frames since its birth, or since it was last found away from its place.
        doubtful: its measured center may shift without motion, see ``motion_update.is_doubtful``.
        last_flow: (3,) mean velocity by the flow of its surface in the last step [m/s], None: not known.
        measured_s: stamp of the last frame in which it was measured [s], None: in none since its birth.
        trail: where it was measured in the last frames.
        turns: (stamp [s], quaternion (4,) xyzw) of the last frames.
        last_position: (3,) estimate in the frame before [m]; last_center: (3,) of its segment then [m].
        extent_jitter_m: (3,) world axes, half of what the seen extents change by without motion.
        growth_m: (3,) the same, whether the object is seen whole or not; a turn changes it too.
        last_size: (3,) extents of its last segment, world axes [m].
        astray_frames: frames in succession in which its parts were away from what was seen of it.
    """

    filter: MotionFilter
    angular_velocity: Array = field(default_factory=lambda: np.zeros(3))
    rotation_covariance: Array = field(default_factory=lambda: np.diag([0.02**2] * 3))
    sleeping: bool = False
    moved: bool = False
    seen_moving: bool = False
    toppled: bool = False
    displaced_frames: int = 0
    frames: int = 0
    doubtful: bool = False
    last_flow: Array | None = None
    measured_s: float | None = None
    trail: deque[Measured] = field(default_factory=lambda: deque(maxlen=40))
    turns: deque[tuple[float, Array]] = field(default_factory=lambda: deque(maxlen=5))
    last_position: Array | None = None
    last_center: Array | None = None
    extent_jitter_m: Array = field(default_factory=lambda: np.zeros(3))
    growth_m: Array = field(default_factory=lambda: np.zeros(3))
    last_size: Array | None = None
    astray_frames: int = 0

    def shift_trail(self, shift: Array) -> None:
        """Move the places where it was measured by (3,) [m], as its center is another one of the object's points now.

        By as much as two shapes differ that are aligned to the same segment: what is left of the way from the first
        place to the last is the object's.
        """
        self.trail = deque((m._replace(position=m.position + shift) for m in self.trail), maxlen=self.trail.maxlen)


@dataclass
class Visibility:
    """The visibility of a track in the current frame, and the time since it was seen last.

    Attributes:
        seen_now: it has a segment in this frame.
        fraction: 0..1 of its surface facing the camera that is in the image and not hidden by something nearer.
        in_view: 0..1 of that surface that is in the image, hidden or not.
        vacated: 0..1 of that surface behind which the depth image shows something deeper; 0 for thin objects.
        cut: in this frame only a part of it is seen: cut off by the image's edge, or hidden.
        misses: frames in succession without a segment; unseen_s: the same in seconds.
        unclaimed_s: seconds in which it was in plain sight and the segmenter found no object there.
        empty_frames: frames in which its place was seen to be empty.
    """

    seen_now: bool = True
    fraction: float = 1.0
    in_view: float = 1.0
    vacated: float = 0.0
    cut: bool = False
    misses: int = 0
    unseen_s: float = 0.0
    unclaimed_s: float = 0.0
    empty_frames: int = 0


@dataclass
class ShapeEvidence:
    """The fits from which a track's shape was chosen.

    Attributes:
        fits: the last ones; all to the whole object, or all to parts of it.
        whole: whether they are to the whole object.
        stamp_ns, pixels: of the segment that was fitted last.
        partial: fits in succession to a part of the object, of which no more came into sight.
        residual_m: median distance of the current segment's points to the surface.
        view: (3,) unit vector in the world frame from the camera to the object when it was fitted last.
    """

    fits: list[ShapeFit] = field(default_factory=list)
    whole: bool = False
    stamp_ns: int = 0
    pixels: int = 0
    partial: int = 0
    residual_m: float = 0.0
    view: Array = field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))


@dataclass
class PartsEvidence:
    """What is known of a track's parts.

    Attributes:
        solid: views in succession in which it was seen to be closed; hollow: in which its inside was seen.
        pieces: views in succession in which a solid was seen to be of several pieces; looked: views in all.
    """

    solid: int = 0
    hollow: int = 0
    pieces: int = 0
    looked: int = 0


@dataclass
class Track:
    """One object.

    Attributes:
        key: index of the tracker's own, never used twice. id: in the scene graph; 0 until it is confirmed.
        shape, extents, hull: as in ``SceneGraph``; planes: half-spaces of the hull, None for other shapes.
        quaternion: (4,) xyzw, world from object.
        upright: (4,) xyzw, orientation in which it stood when its shape was chosen.
        yaw_free: a convex solid of revolution, whose yaw cannot be seen.
        bottom: height of what it stands on [m], None: not known. support_height: of the support below it [m].
        noise_m: depth noise at its distance. hits: frames in which it was seen (at most 30 while it is not).
        existence: 0..1, probability that it is there.
        first_seen_ns, last_seen_ns: stamps [ns].
        seen: what has been seen of its surface as one segment, None: nothing yet.
        whole_frames, pieces_frames: frames in which it had one segment over all that, and in which it had several that
            do not look alike.
        less_frames: frames in succession in which a part of what was seen of it before is gone.
        beside: it was born right beside another object, of which it may be a part.
        parts: convex parts in the object frame where it is not convex; empty: it is its shape.
        motion, appearance, visibility, evidence, parts_evidence: see their classes.
    """

    key: int
    shape: Shape
    quaternion: Array
    extents: Array
    motion: MotionState
    appearance: Appearance
    first_seen_ns: int
    last_seen_ns: int
    id: int = 0
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    planes: Array | None = None
    yaw_free: bool = False
    upright: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    bottom: float | None = None
    support_height: float = 0.0
    noise_m: float = 0.0
    hits: int = 1
    existence: float = 0.5
    seen: SeenSurface | None = None
    whole_frames: int = 0
    pieces_frames: int = 0
    less_frames: int = 0
    beside: bool = False
    visibility: Visibility = field(default_factory=Visibility)
    evidence: ShapeEvidence = field(default_factory=ShapeEvidence)
    parts: Parts = ()
    parts_evidence: PartsEvidence = field(default_factory=PartsEvidence)
    _samples: tuple[Array, Array] | None = None
    _merged: tuple[Parts, Parts] = ((), ())

    @property
    def position(self) -> Array:
        """(3,) world [m]."""
        return self.motion.filter.mean[:3]

    @property
    def velocity(self) -> Array:
        """(3,) world [m/s]; zero while sleeping, and where it is not above the noise of an object at rest.

        A rollout carries a velocity on for seconds: one that is only noise would make objects at rest drift.
        """
        motion = self.motion
        v = motion.filter.mean[3:6]
        speed = float(np.linalg.norm(v))
        if motion.sleeping or speed < _SLOW_M_S:
            # As of most objects; what follows takes longer.
            return np.zeros(3)
        sigma = float(np.sqrt(np.trace(motion.filter.covariance[3:6, 3:6]) / 3.0))
        way = motion.trail[-1].position - motion.trail[0].position if motion.trail else np.zeros(3)
        # The seen part of an object that has always been cut off or hidden in part grows: that resembles motion.
        part = self.visibility.cut and not self.evidence.whole
        new = motion.frames < _NEW_FRAMES and (part or float(np.linalg.norm(way)) < 2.0 * WAKE_M)
        new = new and not motion.seen_moving
        still = motion.sleeping or new or self.jumped or not self.displaced
        if still or speed < _SLOW_M_S or (speed < 2.0 * _SLOW_M_S and speed < sigma):
            return np.zeros(3)
        return v

    @property
    def displaced(self) -> bool:
        """Whether it was seen to move, or else is elsewhere than at first by more than its measured places are off.

        What comes into view rests until it is seen to move: the place of something flat and far away is known by where
        its mask ends, and so wanders with it.
        """
        motion = self.motion
        if motion.seen_moving or len(motion.trail) < 2:
            return motion.seen_moving
        doubted = [(m, float(np.trace(m.covariance))) for m in motion.trail]
        recent = doubted[-_RECENT:]
        first = next(m for m, d in doubted if d <= _WELL * min(d for _, d in doubted))
        last = next(m for m, d in reversed(recent) if d <= _WELL * min(d for _, d in recent))
        way = last.position - first.position
        return float(way @ np.linalg.solve(first.covariance + last.covariance, way)) > _DISPLACED

    @property
    def jumped(self) -> bool:
        """Whether it was not seen to move, and went in the last step alone where its velocity points, by half its size.

        So does a segment that is taken for another object's. What is knocked goes on from there in the next frame.
        """
        motion = self.motion
        if motion.seen_moving or len(motion.trail) < 3:
            return False
        first, second, third = (m.position for m in list(motion.trail)[-3:])
        before, last = second - first, third - second
        far = float(np.linalg.norm(last)) > 0.5 * float(self.extents.max())
        return far and float(before @ last) < _CARRIED_ON * float(last @ last)

    @property
    def is_round(self) -> bool:
        """Whether it is a solid of revolution."""
        return self.yaw_free or self.shape in (Shape.CYLINDER, Shape.CAPSULE, Shape.SPHERE)

    @property
    def vertical_extent(self) -> float:
        """Height of its bounds [m]; of boxes around cylinders and hulls, so somewhat too much when they are tilted."""
        if self.shape == Shape.SPHERE:
            return float(self.extents[2])
        return float(np.abs(rotations.matrix(self.quaternion)[2]) @ self.extents)

    @property
    def thickness(self) -> float:
        """Extent [m] along the axis nearest to the vertical: a small tilt of a flat object does not change it."""
        return float(self.extents[int(np.abs(rotations.matrix(self.quaternion)[2]).argmax())])

    def pose_covariance(self) -> Array:
        """(6, 6) world axes [m, rad]: of the filter, and of what the shape leaves open."""
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = self.motion.filter.covariance[:3, :3] + self.shape_covariance()
        covariance[3:, 3:] = self.motion.rotation_covariance
        return covariance

    def shape_covariance(self) -> Array:
        """(3, 3) [m^2]: how far the center may be off because the solid is not the right one.

        Half of the uncertainty of the extents: the far side of an object is not seen, so most of it is along the line
        of sight. Filtering does not reduce it, as it is the same in every frame.
        """
        size = float(self.extents.max())
        if self.shape == Shape.SPHERE:
            across, along = _BIAS_BALL
        elif self.shape == Shape.CONVEX:
            across, along = _BIAS_HULL
        else:
            across, along = _BIAS_SOLID
        # Calibrated on random worlds of the training split, by how much of an object its solid was fitted to.
        wider = (1.0 if self.evidence.whole else 3.5) * (1.5 if self.visibility.cut else 1.0)
        across, along = wider * across, wider * along
        # The level axes of two outlines may be named the other way round.
        same = [[*np.sort(f.extents[:2]), f.extents[2]] for f in self.evidence.fits if f.shape == self.shape]
        spread = 0.5 * float(np.std(same, axis=0).max()) if len(same) >= 3 and self.shape != Shape.BOX else 0.0
        level = (_BIAS_M + across * size + spread) ** 2
        view = self.evidence.view
        return np.eye(3) * level + np.outer(view, view) * (along * size) ** 2

    def twist_covariance(self) -> Array:
        """(6, 6) world axes [m/s, rad/s]."""
        sleeping = self.motion.sleeping
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = np.eye(3) * 0.02**2 if sleeping else self.motion.filter.covariance[3:6, 3:6]
        covariance[3:, 3:] = np.eye(3) * (0.05**2 if sleeping else 1.0)
        return covariance

    def set_shape(self, fit: ShapeFit, keep_pose: bool) -> None:
        """Take over the shape of a fit, and its orientation unless that is to be kept."""
        self.shape, self.extents, self.hull = fit.shape, fit.extents, fit.hull
        self.planes = hull_planes(fit.hull) if fit.shape == Shape.CONVEX else None
        self.yaw_free = fit.shape == Shape.CONVEX and fit.is_round
        self._samples = None
        if not keep_pose:
            self.quaternion = fit.quaternion
            self.upright = fit.quaternion

    def take_in(self, part: Track) -> None:
        """Another track turns out to be a part of this one: its shape is fitted anew, to the whole, where that is more.

        Of an object that was seen whole, what is seen beside something in front of it is a part that is known.
        """
        if self.evidence.whole and self._reaches_over(part):
            return
        self.evidence.fits.clear()
        self.evidence.whole = False
        self.parts, self.parts_evidence = (), PartsEvidence()
        self.seen = None
        corners = np.stack([sign * 0.5 * t.extents for t in (self, part) for sign in (-1.0, 1.0)])
        turns = [rotations.matrix(t.quaternion) for t in (self, self, part, part)]
        reach = [np.abs(turn) @ np.abs(corner) for turn, corner in zip(turns, corners, strict=True)]
        low = np.minimum(self.position - reach[0], part.position - reach[2])
        high = np.maximum(self.position + reach[0], part.position + reach[2])
        self.appearance.seen_extent = float((high - low).max())

    def _reaches_over(self, part: Track) -> bool:
        """Whether nearly all that was seen of another track is within the outline of this one."""
        if part.seen is None:
            return False
        points = part.seen.in_world(part.position, part.quaternion)
        local = (points - self.position) @ rotations.matrix(self.quaternion)
        return float((surface_distance(self.shape, self.extents, local, self.planes) < _OVER_M).mean()) > _OVER

    def surface(self) -> tuple[Array, Array]:
        """Surface points (P, 3) [m] and outward normals (P, 3) in the object frame; cached."""
        if self._samples is None:
            self._samples = surface_samples(self.shape, self.extents, self.hull)
        return self._samples

    def body_and_handle(self) -> Parts:
        """The outline of a hollow body's walls and floor, and its handle's parts; empty where it has no handle."""
        if self._merged[0] is not self.parts:
            handle = tuple(part for part in self.parts if part.shape != Shape.CONVEX)
            walls = [part.points() for part in self.parts if part.shape == Shape.CONVEX]
            merged = (hull_part(np.concatenate(walls)), *handle) if handle and walls else ()
            self._merged = (self.parts, merged)
        return self._merged[1]
