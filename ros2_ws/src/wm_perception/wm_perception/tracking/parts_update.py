"""The convex parts of a track: when they are looked for, and which finding is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.handles import hidden_handle
from wm_perception.shapes.hollow import Hollow, Verdict, find_hollow
from wm_perception.shapes.hollow_parts import hollow_parts
from wm_perception.shapes.part_frames import Parts, in_object_frame, in_world, moved, outline_of, scaled
from wm_perception.shapes.prisms import find_prisms
from wm_perception.shapes.profiles import convex_pieces, solid_of
from wm_perception.shapes.revolution import profile_of
from wm_perception.shapes.rim import Rim
from wm_perception.shapes.size_prior import likely_extents
from wm_perception.shapes.surfaces import ShapeFit
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.track import PartsEvidence, Track
from wm_perception.types import Array

_SURE_SOLID = 2
"""Views in succession in which a body was seen to be closed before it is not looked at for an inside any more, and in
which one that was hollow becomes solid. Larger costs time, and keeps false insides longer."""
_SURE_HOLLOW = 3
"""Views of an inside after which they are kept as they are."""
_SURE_PIECES = 3
"""Views in succession in which a solid was seen to be of several pieces after which they are kept as they are."""
_MOST_LOOKS = 6
"""Views after which a body without parts is not looked at any more. Larger costs time."""
_THICK_SIGMAS = 10.0
"""Height, in standard deviations of depth, from which a solid's footprint is sharp enough to be cut up. Larger takes
tools far away for boxes, smaller cuts up heaps of paper."""
_SLICES = 4
"""Slices of a solid of revolution at most: body, shoulder, neck, cap."""
_LYING = 0.3
"""Vertical part of a cylinder's axis below which it lies: 17 degrees."""
_NEAR_M = 0.6
"""Distance [m] up to which other objects may hide a part of one."""
_UPRIGHT = 0.95
"""Vertical part of an axis from which it stands: 18 degrees."""
_WITH_HANDLE = frozenset(("mug",))
"""Classes of bodies with one handle, which is hidden where none is seen."""
_SCALE_LIMIT = 1.3
"""Ratio of extents up to which parts are stretched with them; beyond, the outline is of another part of the object."""


def sure_of_parts(evidence: PartsEvidence) -> bool:
    """Whether the parts that were found are kept as they are: fits after them are of the outline alone."""
    return evidence.hollow >= _SURE_HOLLOW or evidence.pieces >= _SURE_PIECES


def settled(evidence: PartsEvidence) -> bool:
    """Whether more views of the same will change nothing."""
    closed = evidence.solid >= _SURE_SOLID or evidence.looked >= _MOST_LOOKS
    return sure_of_parts(evidence) or (closed and not evidence.pieces)


def with_parts(
    t: Track,
    o: Observation,
    fit: ShapeFit,
    eye: Array | None,
    likely: float,
    tracks: Sequence[Track] = (),
    class_name: str = "",
) -> ShapeFit:
    """The outline and the parts that a segment of a track shows, in place of the convex solid fitted to it; or that.

    Args:
        eye: (3,) camera position, world [m]; None: not known, then nothing is looked for.
        likely: probability that it is of a class that is hollow, see ``hollow_probability``.
        tracks: all tracks; others may hide a part of it.
        class_name: of the track, "" where it is not known.
    """
    evidence = t.parts_evidence
    if eye is None or settled(evidence) or t.motion.toppled:
        return fit
    evidence.looked += 1
    base = t.bottom if t.bottom is not None else float(np.percentile(o.points[:, 2], 1.0))
    upright = abs(float(rotations.matrix(fit.quaternion)[2, 2]))
    if fit.shape in (Shape.CYLINDER, Shape.CAPSULE) and upright < _LYING:
        verdict, hollow, turn = _find_lying(fit, o, eye)
    else:
        turn = np.eye(3)
        verdict, hollow = find_hollow(o.points, eye, base, likely, o.noise_m)
    if hollow is not None:
        if hollow.handle is None and class_name in _WITH_HANDLE and turn[2, 2] > 0.5 and hollow.rim.elliptic:
            hollow = _with_hidden_handle(hollow, o, eye, class_name)
        if verdict is Verdict.HOLLOW:
            evidence.solid = 0
            evidence.hollow += 1
        parts = moved(hollow_parts(hollow), turn.T, np.zeros(3))
        yaw = hollow.handle.azimuth if hollow.handle is not None else hollow.rim.yaw
        return outline_of(parts, yaw if turn[2, 2] > 0.5 else 0.0, hollow.residual_m, hollow.seen)
    if verdict is Verdict.SOLID:
        evidence.solid += 1
        evidence.hollow = 0
    if not seen_in_full(t, o) or fit.position[2] + 0.5 * fit.extents[2] - base < _THICK_SIGMAS * o.noise_m:
        return fit
    parts = _solid_parts(fit, o, eye, base, partial(surfaces_near, t, tracks))
    evidence.pieces = evidence.pieces + 1 if parts else 0
    if not parts:
        return fit
    if fit.shape == Shape.CONVEX and upright > _UPRIGHT and fit.is_round:
        return replace(fit, parts=in_object_frame(parts, fit.position, fit.quaternion))
    # The axes of a hammer are those of its handle, not those of the smallest rectangle around it, which lies askew.
    rectangles = [cv2.minAreaRect(np.ascontiguousarray(part.points()[:, :2], dtype=np.float32)) for part in parts]
    yaw = float(np.radians(max(rectangles, key=lambda r: max(r[1]))[2]))
    # Named as before: who has seen an object in some axes goes on with them.
    before = 2.0 * float(np.arctan2(t.quaternion[2], t.quaternion[3]))
    yaw += 0.5 * np.pi * float(np.round((before - yaw) / (0.5 * np.pi)))
    return outline_of(parts, yaw, fit.residual_m, -1.0)


def _with_hidden_handle(hollow: Hollow, o: Observation, eye: Array, class_name: str) -> Hollow:
    """The same with the handle that bodies of its class have, where one can be that is not seen."""
    free = FreeSpace.up_to(eye, o.past, o.noise_m)
    if free is None:
        return hollow
    wide = 2.0 * float(hollow.rim.half.mean())
    seen = np.array([wide, wide, hollow.top - hollow.base])
    sizes = likely_extents(class_name, seen, np.array([False, True, True]))
    handle = hidden_handle(hollow.rim, hollow.base, hollow.top, float(sizes[0]), eye, free)
    return replace(hollow, handle=handle)


def without_disproved(fits: list[ShapeFit], evidence: PartsEvidence) -> list[ShapeFit]:
    """The fits but those with an inside that was since seen to be closed."""
    if not evidence.solid:
        return fits
    most = 0.0 if evidence.solid < _SURE_SOLID else 1.0
    kept = [f for f in fits if not 0.0 <= f.inside_seen <= most]
    return kept or fits[-1:]


def seen_in_full(t: Track, o: Observation) -> bool:
    """Whether nothing hides a part of the segment that would look like a notch."""
    return not o.on_border and o.hidden_fraction < 0.15 and not t.visibility.cut


def _solid_parts(fit: ShapeFit, o: Observation, eye: Array, base: float, others: Callable[[], Array]) -> Parts:
    """Parts in the world of what is not hollow: slices of a solid of revolution, or prisms; empty: it is convex."""
    upright = abs(float(rotations.matrix(fit.quaternion)[2, 2])) > _UPRIGHT
    if fit.shape == Shape.SPHERE or (fit.shape == Shape.CYLINDER and upright):
        return ()
    if fit.shape == Shape.CONVEX and fit.is_round and upright:
        top = float(fit.position[2] + 0.5 * fit.extents[2])
        found = profile_of(o.points, base, top, fit.position[:2])
        if found is None:
            return ()
        pieces = convex_pieces(found.profile, _SLICES)
        circle = Rim(found.center, np.ones(2), 0.0, True)
        return tuple(solid_of(circle, piece) for piece in pieces) if len(pieces) > 1 else ()
    # Their outlines are all that is measured of prisms: without the outermost pixels they are too small.
    return find_prisms(np.concatenate([o.points, o.edge[0]]), eye, base, others)


def surfaces_near(t: Track, tracks: Sequence[Track]) -> Array:
    """(Q, 3) points of the surfaces of the tracks near a track, in the world [m]."""
    found: list[Array] = [np.zeros((0, 3))]
    for other in tracks:
        if other is not t and np.linalg.norm(other.position - t.position) < _NEAR_M:
            found.append(np.asarray(other.surface()[0] @ rotations.matrix(other.quaternion).T + other.position))
    return np.concatenate(found)


def _find_lying(fit: ShapeFit, o: Observation, eye: Array) -> tuple[Verdict, Hollow | None, Array]:
    """As ``find_hollow``, of a body that lies: either end of its axis may be open; and the turn (3, 3) from the world.

    Its class alone does not say which end that is, so only an inside that was seen counts.
    """
    found: tuple[Verdict, Hollow | None, Array] = (Verdict.UNSEEN, None, np.eye(3))
    axes = rotations.matrix(fit.quaternion)
    for sign in (1.0, -1.0):
        turn = np.stack([sign * axes[:, 0], axes[:, 1], sign * axes[:, 2]])
        points, camera = o.points @ turn.T, turn @ eye
        middle = float(turn[2] @ fit.position)
        if camera[2] < middle:
            continue
        verdict, hollow = find_hollow(points, camera, middle - 0.5 * float(fit.extents[2]), 0.0, o.noise_m)
        if verdict is not Verdict.UNSEEN:
            found = verdict, hollow, turn
    return found


def carried_parts(
    parts: Parts, old: tuple[Array, Array, Array, Shape], new: tuple[Array, Array, Array, Shape]
) -> Parts:
    """Parts after a new shape was chosen; each state is position, quaternion, extents, shape.

    Where the pose is another one they stay where they are in the world; else they are stretched with the extents.
    """
    if not parts:
        return parts
    same_pose = np.allclose(old[0], new[0], atol=1e-9) and np.allclose(old[1], new[1], atol=1e-9)
    if not same_pose:
        return in_object_frame(in_world(parts, old[0], old[1]), new[0], new[1])
    factors = new[2] / np.maximum(old[2], 1e-6)
    if old[3] != new[3] or np.allclose(factors, 1.0) or (np.abs(np.log(factors)) > np.log(_SCALE_LIMIT)).any():
        return parts
    return scaled(parts, factors)
