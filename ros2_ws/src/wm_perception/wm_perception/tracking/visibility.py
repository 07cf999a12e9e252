"""The depth image at the place of every track, and the update of tracks without a segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core import rotations
from wm_perception.tracking.track import Track
from wm_perception.types import Array, Cloud

_TOLERANCE_M, _TOLERANCE_PER_EXTENT = 0.025, 0.1
"""A measured depth within 2.5 cm plus a tenth of the largest extent is taken to be the object's own surface. Chosen by
hand; larger means that objects close in front hide less, and that departures from in front of a wall show less."""
VACATED_M = 0.008
"""Depth [m], plus three times the noise, behind a surface from which it counts as vacated. From the work against false
motion on the recorded clip (commit fb11c0a); larger means that thin objects are never seen to leave."""
_EMPTY_FRACTION = 0.65
"""Part of the surface that must show something deeper for an object's place to be empty. Chosen by hand; larger means
that objects which were taken away are remembered for longer."""
_EMPTY_MEMORY = 0.7
"""Factor of the existence probability per frame in which its place is empty. Chosen by hand; larger: it falls
slower."""
_LEAST_COLOR = 0.3
"""Part of what was seen of an object that must still show its color where it is in plain sight and the segmenter finds
no object, or its place counts as empty: the depth image cannot show that something flat has left. Larger means that
objects are forgotten when shadows pass over them, smaller that flat ones are remembered where they are not."""
_UNCLAIMED_RATE, _UNSEEN_RATE = 0.7, 0.02
"""Decay of the existence probability [1/s] while the segmenter finds no object in plain sight, and while the object is
hidden or out of view. Chosen by hand; larger means that it is believed in for a shorter time."""
_PLAIN = 0.6
"""Part of the surface that must be in view and uncovered for an object to be in plain sight. Chosen by hand; larger
means that lost objects are remembered for longer."""
_LEAST_EXISTENCE = 0.05
"""Existence probability of what is not seen does not fall below this. Chosen by hand."""
_STILL_M_S = 0.15
"""Speed [m/s] below which the velocity of an object that gets out of sight is taken for noise, so that a hidden object
does not drift. Chosen by hand; larger means that more objects are held where they were seen last."""
_COASTS_S = 0.5
"""Time [s] for which an unseen object keeps its velocity. Chosen by hand; larger means that it is looked for farther
on."""


def update_visibility(tracks: Sequence[Track], cloud: Cloud, dt: float, scored: bool) -> None:
    """Update the visibility of every track from the depth image, and the existence of those that were not matched.

    Args:
        dt: time since the frame before [s].
        scored: whether the segmenter gives scores, so that a lack of segments in plain sight is evidence.
    """
    if not tracks:
        return
    faces, inside, difference = _compare_depths(tracks, cloud)
    start = 0
    for t, count in zip(tracks, faces, strict=True):
        rows = slice(start, start + count)
        start += count
        in_view = float(inside[rows].mean()) if count else 0.0
        off = difference[rows]
        measured = max(int(np.isfinite(off).sum()), 1)
        tolerance = _TOLERANCE_M + _TOLERANCE_PER_EXTENT * float(t.extents.max())
        # An object no higher than this cannot be seen to have left: the top of another one would show the same depth.
        beneath = VACATED_M + 3.0 * t.noise_m
        # Only what something nearer covers is hidden. What lies deeper (the inside of a bowl) is in sight all the same,
        # and where nothing was measured it is as elsewhere.
        with np.errstate(invalid="ignore"):
            clear = float((off >= -tolerance).sum()) / measured
            empty = float((off > tolerance).sum()) / measured
            vacated = float((off > beneath).sum()) / measured if t.thickness > 2.0 * beneath else 0.0
        visibility = t.visibility
        visibility.fraction, visibility.in_view, visibility.vacated = clear * in_view, in_view, vacated
        if not visibility.seen_now:
            gone = in_view >= 0.3 and empty > _EMPTY_FRACTION
            if not gone and t.seen is not None and scored and visibility.fraction > _PLAIN:
                gone = t.seen.color_share(cloud, t.position, t.quaternion, tolerance) < _LEAST_COLOR
            _miss(t, gone, dt, scored)


def _compare_depths(tracks: Sequence[Track], cloud: Cloud) -> tuple[list[int], NDArray[np.bool_], Array]:
    """Surface points that face the camera, of all tracks at once.

    Returns:
        Count of points of each track; for all P points: (P,) whether it is in the image, and (P,) measured depth minus
        its own [m], NaN where unknown.
    """
    camera_T_world = np.linalg.inv(cloud.world_T_camera)
    eye = cloud.world_T_camera[:3, 3]
    faces = []
    for t in tracks:
        local, normals = t.surface()
        turn = rotations.matrix(t.quaternion).T
        points = local @ turn + t.position
        facing = np.einsum("pi,pi->p", normals @ turn, eye - points) > 0.0
        faces.append(points[facing])
    optical = np.concatenate(faces) @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]
    v, u, depth, inside = cloud.camera.nearest_pixels(optical)
    return [len(face) for face in faces], inside, np.where(inside, cloud.nearest[v, u] - depth, np.nan)


def _miss(t: Track, gone: bool, dt: float, scored: bool) -> None:
    """A frame without a segment of a track; ``gone``: its place was seen to be empty."""
    visibility, motion = t.visibility, t.motion
    visibility.misses += 1
    visibility.unseen_s += dt
    if t.jumped or np.linalg.norm(motion.filter.velocity) < _STILL_M_S:
        motion.filter.forget_velocity(0.05)
        motion.angular_velocity = np.zeros(3)
    t.hits = min(t.hits, 30)
    if gone:
        visibility.empty_frames += 1
        t.existence *= _EMPTY_MEMORY
        return
    rate = _UNSEEN_RATE
    if scored and visibility.fraction > _PLAIN:
        # Something is there in plain sight, but the segmenter finds no object.
        visibility.unclaimed_s += dt
        rate = _UNCLAIMED_RATE
    t.existence = max(_LEAST_EXISTENCE, t.existence * float(np.exp(-rate * dt)))
    if not motion.sleeping and visibility.unseen_s > _COASTS_S:
        motion.filter.forget_velocity(0.05)
