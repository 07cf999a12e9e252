"""Which segments become new tracks, and which tracks are of one object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_core import rotations
from wm_perception.shapes.surfaces import fit_box, surface_distance
from wm_perception.tracking.appearance import Appearance
from wm_perception.tracking.motion import MotionFilter
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.shape_update import bottom_of, line_of_sight
from wm_perception.tracking.track import MotionState, Track
from wm_perception.types import Array, PerceptionConfig

_LEAST_AREA_M2 = 2.0e-4
"""Least area [m^2] of a segment that the segmenter is not sure of. Chosen by hand; larger means that small objects are
missed, smaller that noise is taken for objects."""
_ONE_COLOR = 30.0
"""Mean difference of RGB (0..255) below which a track mostly inside another one is the same object. Chosen by hand;
larger means fewer double tracks, and that objects inside others are lost."""
_BESIDE_M = 0.012
"""Distance [m] to another object up to which a new one is beside it. Chosen by hand, as for fragments in the
association; larger means that more new objects have to be seen for longer."""
_HEIR_M, _HEIR_M_S, _HEIR_FARTHEST_M = 0.06, 1.2, 0.5
"""How far [m] from the place of a lost object, how much more for each second, and how far at the most it may have been
found as a new one. Chosen by hand; larger means that more new objects inherit ids."""
_HEIR_APPEARANCE, _HEIR_SIZE = 0.8, 0.6
"""Difference of appearance, about 1 where it is doubtful, and of the logarithm of sizes up to which it may be the same.
Chosen by hand; larger as before."""
_MEASURED, _UNEVEN = 0.75, 1.0
"""Part of a segment's pixels that have depth up to which it may be the mixed depth beside an object's edge, and how
uneven that is then for its size. On real frames of a stereo camera slivers beside a hammer had 0.3 to 0.7 and 1.1 to 5,
objects 0.85 and more. Pens that are seen along and half measured have 0.5. Larger and smaller take what glitters for
nothing."""
_FURNITURE_M = 0.3
"""Height [m] over a floor from which what stands beside a table is furniture, and how far that floor is beneath the
surface that the camera looks at: the height from which a surface is a seat or a table in ``SupportMap``. Larger takes
stools for objects, smaller misses bottles on the floor."""
_FOOT_M, _FOOT_HIDDEN = 0.05, 0.2
"""Height [m] of its lower end up to which something stands on the floor, and part of its outline that must be hidden
for that end not to be known. Larger takes what falls off a table for furniture."""
_ONE_EMBEDDING = 0.5
"""Cosine of embeddings below which two tracks are never of one object. Chosen by hand; larger means more double
tracks."""


def may_be_born(o: Observation, config: PerceptionConfig) -> bool:
    """Whether a segment may be a new object."""
    # Furniture and walls are beside every support; the rim of a table is not over it.
    if o.over_fraction < 0.5 or o.height_high < max(config.min_height_m, 3.0 * o.noise_m):
        return False
    if is_furniture(o) or is_between_surfaces(o):
        return False
    if o.sure:
        # It may be cut off by the image's edge, and flat.
        return o.pixels >= 0.5 * config.min_pixels and o.extent <= 1.2 * config.max_extent_m
    return (
        o.pixels >= config.min_pixels
        and o.area_m2 > _LEAST_AREA_M2
        and o.height_high > max(2.0 * config.min_height_m, 6.0 * o.noise_m)
        and o.extent <= config.max_extent_m
        # A segment that the image cuts off may be part of anything, unless it is seen to stand on the support.
        and (not o.on_border or (o.height_low < 0.03 and o.outside_fraction == 0.0))
        and o.outside_fraction < 0.5
    )


def is_furniture(o: Observation) -> bool:
    """Whether a segment stands on the floor beside the surface that the camera looks at, and is as high as a seat.

    Where something hides its foot it may stand there; in the air it does not. Where the image cuts it off, it may be
    higher than what is seen of it.
    """
    if o.beneath_m < _FURNITURE_M:
        return False
    stands = o.height_low < _FOOT_M or o.hidden_fraction > _FOOT_HIDDEN
    return o.on_border or (stands and o.height_high > _FURNITURE_M)


def is_between_surfaces(o: Observation) -> bool:
    """Whether a segment is of the depths that a stereo camera makes up between an object's edge and what is behind it.

    They are few, and on no surface: they differ along the line of sight by more than the segment is large.
    """
    return o.measured_share < _MEASURED and o.uneven_m > _UNEVEN * float(np.sqrt(o.area_m2 / o.measured_share))


def is_part(o: Observation, tracks: Sequence[Track]) -> bool:
    """Whether a segment hangs in the air right beside a known object that is much larger: a handle, a cap."""
    if o.sure or o.height_low < 0.015:
        return False
    for t in tracks:
        if not t.visibility.seen_now or not t.id or o.extent > 0.7 * float(t.extents.max()):
            continue
        local = (o.points - t.position) @ rotations.matrix(t.quaternion)
        distance = surface_distance(t.shape, t.extents, local, t.planes)
        # On top of it, it may be an object of its own.
        aside = float(np.percentile(o.points[:, 2], 10.0)) < t.position[2] + 0.3 * t.vertical_extent
        if aside and np.percentile(distance, 10.0) < 0.012 and np.percentile(distance, 90.0) < 0.045:
            return True
    return False


def is_beside(o: Observation, tracks: Sequence[Track]) -> bool:
    """Whether a segment is right beside an object that is seen, or on it."""
    sample = o.sample()
    for t in tracks:
        if not t.id or not t.visibility.seen_now:
            continue
        if np.linalg.norm(o.center - t.position) > 0.5 * float(np.linalg.norm(t.extents)) + o.extent:
            continue
        local = (sample - t.position) @ rotations.matrix(t.quaternion)
        distance = surface_distance(t.shape, t.extents, local, t.planes)
        if float(np.percentile(distance, 5.0)) < _BESIDE_M + o.noise_m:
            return True
    return False


def is_heir(gone: Track, t: Track) -> bool:
    """Whether a track that is seen now is a lost object: as near as it may have come, alike, and born since."""
    if not t.visibility.seen_now or t.first_seen_ns < gone.last_seen_ns - 200_000_000:
        return False
    reach = min(_HEIR_M + _HEIR_M_S * gone.visibility.unseen_s, _HEIR_FARTHEST_M)
    if float(np.linalg.norm(t.position - gone.position)) > reach:
        return False
    size = abs(np.log((t.appearance.seen_extent + 0.01) / (gone.appearance.seen_extent + 0.01)))
    return bool(size < _HEIR_SIZE and gone.appearance.apart(t.appearance) < _HEIR_APPEARANCE)


def born(o: Observation, key: int, tracks: Sequence[Track], eye: Array | None, stamp_ns: int) -> Track:
    """A new track: a box about the segment, until its shape is fitted."""
    bottom = bottom_of(o, None, tracks)
    top = float(np.percentile(o.points[:, 2], 99.0))
    fit = fit_box(o.points, bottom if bottom is not None else o.points[:, 2].min(), top)
    track = Track(
        key=key,
        shape=fit.shape,
        quaternion=fit.quaternion,
        extents=fit.extents,
        motion=MotionState(MotionFilter(fit.position, 0.01, 0.5), last_center=o.center),
        appearance=Appearance(o.color, o.extent, o.score if np.isfinite(o.score) else 0.0),
        first_seen_ns=stamp_ns,
        last_seen_ns=stamp_ns,
        bottom=bottom,
        support_height=o.support_height,
    )
    track.appearance.update(o, track.hits)
    track.evidence.view = line_of_sight(eye, fit.position)
    track.set_shape(fit, keep_pose=False)
    return track


def is_one_object(a: Track, b: Track, scored: bool) -> bool:
    """Whether two tracks are of one object; where the segmenter sees them apart with scores they are two."""
    if a.visibility.seen_now and b.visibility.seen_now and scored:
        return False
    one, other = a.appearance.embedding, b.appearance.embedding
    if scored and len(one) and len(one) == len(other) and float(one @ other) < _ONE_EMBEDDING:
        return False
    return _in_one_place(a, b)


def _in_one_place(a: Track, b: Track) -> bool:
    """Whether the center of a track is well inside another one, or it is mostly inside and of the same color."""
    if np.linalg.norm(a.position - b.position) > 0.5 * (a.extents.max() + b.extents.max()):
        return False
    alike = float(np.abs(a.appearance.color - b.appearance.color).mean()) < _ONE_COLOR
    for one, other in ((a, b), (b, a)):
        turn = rotations.matrix(one.quaternion)
        if (np.abs((other.position - one.position) @ turn) < 0.35 * one.extents).all():
            return True
        local, _ = other.surface()
        world = local @ rotations.matrix(other.quaternion).T + other.position
        distance = surface_distance(one.shape, one.extents, (world - one.position) @ turn, one.planes)
        if alike and float((distance < 0.0).mean()) > 0.5:
            return True
    return False
