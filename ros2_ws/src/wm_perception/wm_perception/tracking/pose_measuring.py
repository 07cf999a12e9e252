"""The pose of a track's shape in one frame: which points of its segment say where it is, and what fits them best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.rim_error import RimError
from wm_perception.shapes.surfaces import Alignment, align, signed_distance_to_parts, surface_distance
from wm_perception.tracking.association import outside
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.track import Track
from wm_perception.types import Array

_ALIGN_POINTS = 110
"""Points of a segment that are aligned to the surface. Chosen by hand; larger is slower and less noisy."""
_ALIGNED_PARTS = 4
"""Parts up to which an object is aligned by its parts. The walls of a mug are many and thin and say no more than its
outline; larger costs time in every frame."""
_WITHIN_M = 0.004
"""Depth [m] within the outline of an object of several parts, beside the noise, from which points are not of its
outside. Chosen by hand, as thick as a wall; larger pulls bowls toward the camera, smaller loses noisy points."""
_HOLLOW_SPIN, _HOLLOW_STILL, _SLOW_SPIN_M_S = 0.02, 0.004, 0.05
"""Standard deviation [rad] of the turn about the vertical in one frame of what is aligned by the outline of many parts,
of what moves and of what is slower than a speed [m/s]. Larger lets mugs slide around their handles, smaller is late
where they are turned."""
_ASTRAY, _BETTER = 1.0, 0.5
"""Mean distance of the points to the parts, in depth noise, from which the pose may be a wrong minimum, and part of it
that another pose has to have to be taken. Of a T of 17 cm it is 0.3 where the pose is right, 1.4 where it is 12 degrees
off. Larger and smaller keep wrong poses, the opposites take time."""
_TURNS = np.radians([-15.0, 15.0, -30.0, 30.0])
"""Turns about the vertical [rad] at which another minimum is looked for: a start finds the right one from 20 degrees
off. More find what has turned farther since it was last seen well."""
_LOOKS, _SELDOM = 3, 8
"""Frames in succession in which that is done in vain before it is done in one of eight: then its shape may be wrong,
not its pose. Larger and smaller take more time."""


def points_to_align(t: Track, o: Observation) -> Observation:
    """The segment with the points that a track is aligned to.

    Of prisms, which end where the segment ends, its outermost pixels say where that is. Without them what is far would
    be drawn toward the camera: a row of pixels covers more of a table than a column.
    """
    return o.with_edge if _is_of_few_parts(t) and not t.is_round else o


def rows_to_align(t: Track, o: Observation, mixed: bool) -> NDArray[np.int64]:
    """(P,) rows of a segment's points to align a track to; of a merged segment (``mixed``) those near its surface."""
    rows = np.arange(len(o.points))
    if len(rows) > _ALIGN_POINTS:
        # Other ones in every frame, so that their errors differ from frame to frame.
        step = len(rows) / _ALIGN_POINTS
        rows = ((np.arange(_ALIGN_POINTS) + (0.37 * t.hits) % 1.0) * step).astype(np.int64)
    if mixed:
        near = rows[outside(t, o.points[rows]) < 0.02 + 2.0 * o.noise_m]
        rows = near if len(near) >= 20 else rows
    return rows


def carried_start(t: Track, o: Observation, points: Array) -> Array:
    """(3,) where alignment starts: the predicted position, or the last one moved by as much as the segment's center.

    The second where it explains the points (P, 3) better.
    """
    start = t.position
    motion = t.motion
    if motion.last_position is None or motion.last_center is None:
        return start
    carried = motion.last_position + (o.center - motion.last_center)
    if np.linalg.norm(carried - start) <= 0.006:
        return start
    some = points[::2]
    here = float(np.minimum(outside(t, some), 0.05).mean())
    there = float(np.minimum(outside(t, some - (carried - t.position)), 0.05).mean())
    return carried if there < 0.8 * here else start


def measure_pose(
    t: Track, o: Observation, rows: NDArray[np.int64], start: Array, eye: Array | None = None
) -> Alignment:
    """The pose of a track's shape that fits some points of a segment best.

    Args:
        rows: (P,) of the points. start: (3,) position from which it is sought; eye: (3,) camera position, world [m].
    """
    points = o.points[rows]
    sleeping = t.motion.sleeping
    by_parts = _is_of_few_parts(t)
    parts = t.parts if by_parts else ()
    if t.parts and not by_parts:
        # The outline between a body and its handle is not there: what is seen of the body would pull it. The walls'
        # outline is the body's.
        parts = t.body_and_handle()
        local = (points - start) @ rotations.matrix(t.quaternion)
        # What is seen within the outline, the inside of a bowl or a notch, would pull the outline toward it.
        if parts:
            within = signed_distance_to_parts(parts, local)[0]
        else:
            within = surface_distance(t.shape, t.extents, local, t.planes)
        outer = within > -_WITHIN_M - o.noise_m
        if int(outer.sum()) >= 20:
            rows, points = rows[outer], points[outer]
    upright_axis = t.shape == Shape.CYLINDER and abs(rotations.matrix(t.quaternion)[2, 2]) > 0.9
    tilt, spin = (0.012, 0.04) if sleeping or not t.evidence.fits else (0.05, 0.15)
    if by_parts and t.evidence.whole and not t.visibility.cut:
        # Its arms say how it is turned, at rest too: held, it would be found half way when it has been turned.
        spin = 0.15
    if t.parts and not by_parts:
        # A handle that is not seen does not hold the yaw of what is round but for it, and its outline slides around.
        spin = _HOLLOW_SPIN if np.linalg.norm(t.velocity) > _SLOW_SPIN_M_S else _HOLLOW_STILL
    return align(
        t.shape,
        t.extents,
        points,
        start,
        t.quaternion,
        hull=t.planes,
        parts=parts,
        prior_std_m=0.03 if not sleeping else 0.02,
        # Noise does not turn what is round about the vertical.
        prior_std_rad=(tilt, 0.002 if t.is_round and (t.yaw_free or upright_axis) else spin),
        noise_m=_noise_m(o),
        rim=_rim_error(o, rows, eye),
    )


def without_wrong_turn(
    t: Track, o: Observation, rows: NDArray[np.int64], pose: Alignment, eye: Array | None
) -> Alignment:
    """A measured pose, or one turned about the vertical that fits much better: an arm of a T near its other arm.

    Points between two parts are drawn to the nearer one, so that what has turned by 10 degrees since the last frame is
    held where it was. Arguments as for ``measure_pose``.
    """
    motion = t.motion
    noise_m = _noise_m(o)
    if not _is_of_few_parts(t) or t.visibility.cut or pose.mean_m < _ASTRAY * noise_m:
        motion.astray_frames = 0
        return pose
    motion.astray_frames += 1
    if motion.astray_frames > _LOOKS and motion.astray_frames % _SELDOM:
        return pose
    rim = _rim_error(o, rows, eye)
    turned = [
        align(
            t.shape,
            t.extents,
            o.points[rows],
            t.position,
            rotations.multiply(rotations.about_z(turn), t.quaternion),
            hull=t.planes,
            parts=t.parts,
            prior_std_m=0.03,
            noise_m=noise_m,
            rim=rim,
        )
        for turn in _TURNS
    ]
    best = min(turned, key=lambda a: a.mean_m)
    if best.mean_m > _BETTER * pose.mean_m:
        return pose
    motion.astray_frames = 0
    return best


def _is_of_few_parts(t: Track) -> bool:
    """Whether an object is aligned by its parts, and not by its outline."""
    return 0 < len(t.parts) <= _ALIGNED_PARTS


def _noise_m(o: Observation) -> float:
    """Standard deviation of one point [m], not below that of near and even depth."""
    return max(0.002, o.noise_m)


def _rim_error(o: Observation, rows: NDArray[np.int64], eye: Array | None) -> RimError | None:
    """Of some points of a segment, seen from (3,); None where their normals are not known."""
    if eye is None or not len(o.normals):
        return None
    rays = o.points[rows] - eye
    return RimError(o.normals[rows], rays / np.linalg.norm(rays, axis=1, keepdims=True), o.pixel_m)
