"""When the shape of a track is fitted anew, and which of its fits is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.fitting import fit_shape
from wm_perception.shapes.free_space import FreeSpace, is_free_beneath
from wm_perception.shapes.leaning import fit_leaning, is_tilted
from wm_perception.shapes.surfaces import ShapeFit, align
from wm_perception.shapes.unseen import completed
from wm_perception.tracking.fit_choice import choose
from wm_perception.tracking.loads import under_its_load
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.parts_update import (
    carried_parts,
    sure_of_parts,
    surfaces_near,
    with_parts,
    without_disproved,
)
from wm_perception.tracking.track import PartsEvidence, Track
from wm_perception.types import Array

SETTLED_FITS = 3
"""Fits from which a track can wait in a frame that has taken long already. Set with the search of supports, in whose
frames nothing settled is fitted (commit f4609ed); larger means longer frames."""
_FITS = 7
"""Fits of a track after which only sleeping objects are fitted. Chosen by hand; larger means better shapes of moving
objects for more time."""
_REFIT_NS = 300_000_000
"""Time [ns] between fits, times their count up to 6. Chosen by hand, to keep fits a small part of a frame; larger means
less computing and later corrections."""
_MORE = 1.15
"""Pixels over those of the last fit from which more of an object has come into sight. Smaller: more fits."""
_WRONG_M = 0.004
"""Mean distance [m] of points to the surface from which a rough shape counts as wrong. Chosen by hand; larger means
fewer fits."""
_PATIENCE_FRAMES = 3
"""Frames before a partly seen object is fitted where the segmenter is not sure of it. Chosen by hand; larger means that
fewer false segments get a shape."""
_FIT_SPEED_M_S = 0.1
"""Speed [m/s] from which objects are not fitted, as their depth and color are of different moments. Chosen by hand;
larger means more fits, and worse ones."""
_FACING = 0.4
"""Cosine of a box's axis and the line of sight from which only its near end is seen. Larger moves fewer centers."""
_LOW_VIEW, _FRONT = 0.25, 0.85
"""Slope of the view down on a box's top up to which the top does not show its depth, and cosine between the view and an
axis from which its sides do not either. Larger slopes and smaller cosines change more boxes."""
_LEAST_DEPTH = 0.35
"""Depth over the smaller of width and height that such a box has at least: of cartons, which are flat (5 to 9 cm of
12 to 22). Larger makes the far sides of flat things too far."""
_MISPLACED = 0.25
"""Part of its size by which the first shape of an object may be away from the box about its segment, or that of more
of it from that of less, so that both went the same way. Chosen by hand; larger keeps the velocities of wrong boxes,
smaller loses those of objects that come into view moving."""
_UNKNOWN_M_S = 0.5
"""Standard deviation of a velocity that nothing is known of [m/s], as of a new track."""
_CUT_SHARE, _WHOLE_SHARE = 0.2, 0.25
"""Part of the outline that something hides from which ends beside it may go on, and up to which an object is seen
whole. Smaller: more is completed that is not hidden; fewer views count as whole."""
_EARLY_FRAMES = 10
"""Frames in which an object at rest may be moved to where a fit has it. Larger mends later what was wrong at first, and
follows masks that waver."""
_NEW_PLACE_M = 0.003
"""Distance [m] of a fit's center from the track's from which it is another place. Larger keeps the track's."""
_CENTER_POINTS = 120
"""Points of a segment to which a shape of new extents is aligned. Larger is slower and less noisy."""
_NEW_SIZE_M = 0.002
"""Change of extents [m] from which the center is measured anew: it moves with them, though the object does not. Larger
keeps the average of many frames, and the error of the first shape."""
_FOOT_M = 0.03
"""Height [m] over the support up to which the lowest point that is seen stands on it. Larger takes what lies on other
things for standing on the support."""
_LEVEL_M_S = 0.05
"""Vertical speed [m/s] up to which what is seen down to the support lies on it. Larger takes falling for lying."""
_IMPOSSIBLE, _IMPOSSIBLE_MOVING, _IMPOSSIBLE_M = 0.15, 0.4, 0.02
"""Part of its height, at rest and sliding, and distance [m], by which its lowest point may be off what it lies on.
Larger keeps wrong shapes of what was fitted while it fell; smaller than the error of supports fits good ones anew."""
_LESS_FRAMES = 15
"""Frames, a second, in which a part of an object is gone after which it is fitted anew: two things that touched were
one, and one of them was taken away. Larger keeps the shape of both for longer."""
_FORMS = dict.fromkeys(("ball", "can", "cup", "mug", "bowl", "plate", "bottle", "cylinder"), "round") | {"box": "box"}
"""Kind of solid that each class of the segmenter makes likely. The others (tools, trays, baskets, and pans, which are
round but for the handle) are left to the geometry."""


def line_of_sight(eye: Array | None, position: Array) -> Array:
    """(3,) unit vector from the camera to a world position, nearly level: heights are known from the support."""
    if eye is None:
        return np.array([1.0, 0.0, 0.0])
    way = (position - eye) * np.array([1.0, 1.0, 0.3])
    return way / max(float(np.linalg.norm(way)), 1e-9)


def bottom_of(o: Observation, own: Track | None, tracks: Sequence[Track]) -> float | None:
    """Height [m] of what an object stands on: the support, or the top of an object under it."""
    if o.height_low < _FOOT_M:
        return o.bottom
    low = float(np.percentile(o.points[:, 2], 2.0))
    for t in tracks:
        if t is own or t.visibility.misses:
            continue
        top = t.position[2] + 0.5 * t.vertical_extent
        local = rotations.matrix(t.quaternion).T @ (o.center - t.position)
        # Often only the front of the lower object is seen, and it is deeper than it seems.
        if abs(top - low) < 0.03 and (np.abs(local[:2]) < np.maximum(0.5 * t.extents[:2], 0.03) + 0.01).all():
            return float(top)
    # Nothing is under it: what hides its foot stands in front, and it stands on the support.
    return o.bottom


def is_impossible(t: Track, o: Observation) -> bool:
    """Whether what lies or slides, with nothing before it, would reach into what it lies on, or hover over it.

    Its shape is of when it fell, or of when a hand held it: it was thought to reach down to the support. Of such a
    shape a part is never seen, so ``seen_whole`` says nothing here.
    """
    hidden = o.on_border or o.cut_share >= _WHOLE_SHARE
    level = t.motion.sleeping or abs(float(t.motion.filter.velocity[2])) < _LEVEL_M_S
    if hidden or not (level and t.evidence.fits) or o.bottom is None or o.height_low >= _FOOT_M:
        return False
    points = t.surface()[0] @ rotations.matrix(t.quaternion)[2]
    low, height = float(points.min()), float(np.ptp(points))
    share = _IMPOSSIBLE if t.motion.sleeping else _IMPOSSIBLE_MOVING
    return abs(t.position[2] + low - o.bottom) > max(_IMPOSSIBLE_M, share * height)


def is_due(t: Track, o: Observation, stamp_ns: int) -> bool:
    """Whether the shape of a track should be fitted to this segment."""
    evidence, motion = t.evidence, t.motion
    since_ns = stamp_ns - evidence.stamp_ns
    if since_ns > _REFIT_NS and len(o.points) >= 30 and (is_impossible(t, o) or t.less_frames >= _LESS_FRAMES):
        return True
    if evidence.whole and t.parts and sure_of_parts(t.parts_evidence):
        return False
    # A rough shape from what can be seen is better than none: it is fitted again when more comes into sight, or
    # when it is found to be wrong.
    wrong = evidence.residual_m > _WRONG_M and since_ns > _REFIT_NS
    again = since_ns > _REFIT_NS * min(evidence.partial, 6)
    rough = not evidence.whole and len(o.points) >= 60 and (o.pixels > _MORE * evidence.pixels or wrong or again)
    rough = rough and (o.sure or t.hits >= _PATIENCE_FRAMES)
    slow = motion.sleeping or float(np.linalg.norm(t.velocity)) < _FIT_SPEED_M_S or len(evidence.fits) < 2
    # Often at first, then less and less: fits take longer than all other steps.
    due = len(evidence.fits) < 2 or since_ns > _REFIT_NS * min(len(evidence.fits), 6)
    due = due and (len(evidence.fits) < _FITS or motion.sleeping)
    # After a collision segments may be mixed; a rigid object keeps its shape.
    due = (due or not evidence.whole) and not (motion.moved and evidence.whole and len(evidence.fits) >= 3)
    return (seen_whole(t, o) or rough) and due and not motion.toppled and len(o.points) >= 30 and slow


def seen_whole(t: Track, o: Observation) -> bool:
    """Whether a segment shows the whole side of an object that faces the camera."""
    return t.visibility.fraction > 0.75 and not o.on_border and o.cut_share < _WHOLE_SHARE


class ShapeUpdater:
    """Fits shapes to segments.

    Args:
        max_extent_m: larger fits than 1.3 times this are dropped.
    """

    def __init__(self, max_extent_m: float) -> None:
        self.max_extent_m = max_extent_m

    def refit(
        self,
        t: Track,
        o: Observation,
        tracks: Sequence[Track],
        eye: Array | None,
        stamp_ns: int,
        class_name: str,
        hollow: float = 0.0,
    ) -> None:
        """Fit a track's shape to a segment and choose among its fits.

        The track may be shifted by that; where it was measured before is left to the caller, see ``shift_trail``.

        Args:
            tracks: all tracks: what it stands on, and what stands on it.
            eye: (3,) camera position, world [m].
            class_name: of the track, empty where classes are not estimated.
            hollow: probability of the classes that are hollow.
        """
        evidence = t.evidence
        before = t.position.copy(), t.quaternion, t.extents, t.shape
        less = t.less_frames >= _LESS_FRAMES
        if less:
            t.seen, t.less_frames = None, 0
        if less or is_impossible(t, o):
            evidence.fits.clear()
            evidence.whole, t.motion.toppled = False, False
            t.parts_evidence, t.parts = PartsEvidence(), ()
        whole = seen_whole(t, o)
        more = o.pixels > _MORE * evidence.pixels
        evidence.partial = 0 if whole else 1 if more else evidence.partial + 1
        evidence.stamp_ns, evidence.pixels = stamp_ns, o.pixels
        goes_up_or_down = abs(float(t.motion.filter.velocity[2])) > _FIT_SPEED_M_S
        if goes_up_or_down and t.bottom is not None:
            # It stands on nothing: what it was thought to stand on has made the fits before too high.
            evidence.fits.clear()
        t.bottom = None if goes_up_or_down else bottom_of(o, t, tracks)
        # Of a part of an object no far side and no notch can be known.
        likely = _FORMS.get(class_name, "")
        free = FreeSpace.up_to(eye, o.past, o.noise_m) if eye is not None else None
        near = surfaces_near(t, tracks)
        if t.bottom is not None and free is not None and is_free_beneath(free, o.points, t.bottom, near):
            t.bottom = None
        fit = fit_shape(
            o.points,
            t.bottom,
            seed=len(evidence.fits),
            likely=likely,
            eye=eye if whole else None,
            free=free,
        )
        if whole and o.height_low >= _FOOT_M:
            # It stands on other things than the support, or leans.
            upright = fit
            fit = fit_leaning(o.points, fit, o.bottom, seed=len(evidence.fits), likely=likely, eye=eye, free=free)
            if fit is not upright:
                t.bottom = None
        if fit.extents.max() > 1.3 * self.max_extent_m:
            return
        fit = _of_likely_depth(fit, eye)
        if o.cut_share > _CUT_SHARE:
            fit = completed(fit, o.points, o.rim, class_name, free)
        # Fits to a part of it do not count any more once it, or more of it, has been seen.
        first = not evidence.fits or not evidence.whole
        was_part = first and whole and bool(evidence.fits)
        if first:
            evidence.fits.clear()
        evidence.whole = whole
        evidence.view = line_of_sight(eye, fit.position)
        fit = with_parts(t, o, fit, eye if whole else None, hollow, tracks, class_name)
        evidence.fits.append(fit)
        evidence.fits = without_disproved(evidence.fits, t.parts_evidence)
        if len(evidence.fits) > 3 * _FITS:
            evidence.fits.pop(0)
        chosen, same, last = choose(evidence.fits, not t.motion.moved)
        # Its load may have been found after it.
        loaded = under_its_load(t, chosen, tracks, eye, free)
        deeper, chosen = loaded is not chosen, loaded
        axis_changed = t.shape != chosen.shape or (
            chosen.shape == Shape.CYLINDER and rotations.tilt_between(t.quaternion, chosen.quaternion) > 0.5
        )
        # A hull and parts are given where they were seen; after a motion only the last ones are still there.
        there = chosen.hull is evidence.fits[-1].hull or not t.motion.moved
        own_frame = chosen.shape == Shape.CONVEX and (len(chosen.parts) > 0 or not chosen.is_round)
        new_axes = first or axis_changed or (own_frame and t.hull is not chosen.hull and there)
        # At rest a fit stands where it was found: its center and its sizes belong together. Later fits, to masks that
        # waver or from a camera that is off, do not move what has been followed.
        early = not t.motion.moved and t.hits <= _EARLY_FRAMES
        anew = new_axes or (early and _differs(t, chosen))
        t.set_shape(chosen, keep_pose=not anew)
        if anew:
            # A fit of before stands where the object was then, which may be elsewhere though that is not sure yet.
            slow = float(np.linalg.norm(t.motion.filter.velocity)) < _FIT_SPEED_M_S
            there = len(evidence.fits) == 1 or (not t.motion.moved and slow)
            shift = (chosen.position if there else _center_of(t, None, o)) - t.position
            t.motion.filter.shift(shift)
            misplaced = first and float(np.linalg.norm(shift)) > _MISPLACED * float(chosen.extents.max())
            if (misplaced or was_part) and not t.motion.seen_moving:
                # What was followed so far was something else than its center, as the middle of a part that grew. What
                # was seen to move has its velocity from its surface.
                t.motion.filter.forget_velocity(_UNKNOWN_M_S)
                t.motion.trail.clear()
            if new_axes:
                # The turn from the old to the new ones is none of the object.
                t.motion.turns.clear()
                t.motion.angular_velocity = np.zeros(3)
        elif t.shape != Shape.BOX and np.abs(t.extents - before[2]).max() > _NEW_SIZE_M:
            t.motion.filter.shift(_center_of(t, last if last is evidence.fits[-1] else None, o) - t.position)
        elif t.shape == before[3] == Shape.BOX and (deeper or not t.motion.moved) and not is_tilted(chosen):
            t.motion.filter.shift(_away_from_seen_side(t, before[2], eye))
        if t.motion.sleeping and not anew:
            # The height of what it stands on is known better than its own: its lowest point stays.
            if t.bottom is not None:
                lift = 0.5 * (t.bottom + 0.5 * t.vertical_extent - t.position[2])
                t.motion.filter.shift(np.array([0.0, 0.0, lift]))
            if chosen.shape == Shape.BOX and not is_tilted(chosen):
                t.quaternion = _slerp_yaw(t.quaternion, last.quaternion, 1.0 / same)
                t.upright = t.quaternion
        if chosen.parts:
            t.parts = chosen.parts
        elif t.parts_evidence.solid:
            t.parts = ()
        else:
            # Only a part of it was fitted this time.
            t.parts = carried_parts(t.parts, before, (t.position, t.quaternion, t.extents, t.shape))


def _center_of(t: Track, fit: ShapeFit | None, o: Observation) -> Array:
    """(3,) where the center of a track's new shape is [m], from that of its last fit on, whose extents may differ."""
    start = t.position if fit is None else fit.position
    points = o.sample(_CENTER_POINTS)
    return align(t.shape, t.extents, points, start, t.quaternion, hull=t.planes, prior_std_rad=(0.002, 0.002)).position


def _away_from_seen_side(t: Track, extents: Array, eye: Array | None) -> Array:
    """(3,) by which a box's center moves [m] when it had other extents before: the sides that are seen stay."""
    if eye is None:
        return np.zeros(3)
    view = line_of_sight(eye, t.position) * np.array([1.0, 1.0, 0.0])
    view /= max(float(np.linalg.norm(view)), 1e-9)
    shift = np.zeros(3)
    for axis, along in enumerate(rotations.matrix(t.quaternion).T):
        facing = float(along @ view)
        # Of an axis across the view both ends are seen; the height is known from the support.
        if abs(along[2]) < 0.5 and abs(facing) > _FACING:
            shift += along * np.sign(facing) * 0.5 * (t.extents - extents)[axis]
    return shift


def _differs(t: Track, fit: ShapeFit) -> bool:
    """Whether a fit differs from a track by more than the noise of both."""
    if t.shape != fit.shape:
        return True
    moved = float(np.linalg.norm(fit.position - t.position))
    return bool(np.abs(fit.extents - t.extents).max() > _NEW_SIZE_M or moved > _NEW_PLACE_M)


def _of_likely_depth(fit: ShapeFit, eye: Array | None) -> ShapeFit:
    """A box of which only the front is seen, made as deep as things of its width and height are at least.

    The smallest box that explains a front has hardly any depth. From above, the top shows how deep it is.
    """
    if fit.shape != Shape.BOX or eye is None:
        return fit
    rotation = rotations.matrix(fit.quaternion)
    view = fit.position - eye
    run = float(np.linalg.norm(view[:2]))
    if eye[2] - (fit.position[2] + 0.5 * fit.extents[2]) > _LOW_VIEW * run:
        return fit
    facing = rotation[:2, :2].T @ view[:2] / max(run, 1e-9)
    axis = int(np.abs(facing).argmax())
    likely = _LEAST_DEPTH * float(min(fit.extents[1 - axis], fit.extents[2]))
    if abs(facing[axis]) < _FRONT or fit.extents[axis] >= likely:
        return fit
    extents = fit.extents.copy()
    extents[axis] = likely
    shift = 0.5 * (likely - fit.extents[axis]) * np.sign(facing[axis])
    return replace(fit, position=fit.position + rotation[:, axis] * shift, extents=extents)


def _slerp_yaw(current: Array, target: Array, weight: float) -> Array:
    """Turn a box's orientation toward another, modulo quarter turns, by a fraction of the way."""
    difference = float(rotations.to_vector(rotations.multiply(target, rotations.conjugate(current)))[2])
    difference -= 0.5 * np.pi * np.round(difference / (0.5 * np.pi))
    return rotations.multiply(rotations.about_z(weight * difference), current)
