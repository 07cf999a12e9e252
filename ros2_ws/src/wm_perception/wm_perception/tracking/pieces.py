"""Segments that are pieces of one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wm_perception.tracking.observation import Observation
from wm_perception.tracking.parts_update import sure_of_parts
from wm_perception.tracking.seen_surface import SeenSurface
from wm_perception.tracking.track import Track
from wm_perception.tracking.visibility import VACATED_M
from wm_perception.types import Cloud

_WHOLE_WEIGHT, _PIECES_AT_FIRST = 2.0, 8.0
"""A piece is held by its object while the frames in which it was a segment of its own are fewer than these times the
frames in which the object was seen whole, plus this many. Larger means that objects which were seen as one at first are
told apart later, smaller that parts become objects."""
_WHOLE = 0.8
"""Part of what was seen before that a segment must cover for the object to be seen whole again. Larger counts fewer."""
_THERE = 0.8
"""Part of what was seen of an object that shows its color and depth, up to which a part of it has gone. Larger takes
shadows for that, smaller keeps the shape of two things of which a small one has left."""
_AREA = 0.85
"""Part of the area that was seen of it before up to which its segment is smaller. Larger takes turns for that."""
_STILL_M_S = 0.05
"""Speed [m/s] up to which poses are good enough to ask. Larger asks of what is pushed."""
_FRESH_HITS = 5
"""Frames after which what was seen is renewed. Smaller is slower, larger lags behind a camera that moves."""
_COUNTED = 3
"""Frames of which one is looked at for whether the object is seen whole. Larger is faster and coarser."""
_FULL_EXTENT = 0.85
"""Extent of a segment over the usual one from which it may be all of the object. Smaller forgets pieces that the
segmenter leaves out."""


def holds_pieces(t: Track) -> bool:
    """Whether what lies on a track's seen surface is a piece of it, however it looks."""
    return t.pieces_frames < _WHOLE_WEIGHT * t.whole_frames + _PIECES_AT_FIRST


def share_on(t: Track, o: Observation) -> float:
    """Part 0..1 of a segment's points that lie on what has been seen of a track before."""
    return t.seen.share_on(o, t.position, t.quaternion) if t.seen is not None else 0.0


def share_under(t: Track, o: Observation) -> float:
    """Part 0..1 of what has been seen of a track that lies on a segment's points."""
    return t.seen.share_under(o, t.position, t.quaternion) if t.seen is not None else 0.0


def count_pieces(t: Track, o: Observation, in_pieces: bool) -> None:
    """Count a frame in which an object is seen whole, or in pieces."""
    if in_pieces:
        t.pieces_frames += 1
    elif t.seen is not None and t.hits % _COUNTED == 0 and share_under(t, o) > _WHOLE:
        t.whole_frames += _COUNTED


def count_less(t: Track, o: Observation, cloud: Cloud) -> None:
    """Count a frame in which a part of an object whose parts are sure is not where it was seen.

    Its segment is smaller, and what its place shows says so: a segmenter may leave out what is still there, and a pose
    may be off.
    """
    if t.seen is None or t.hits % _COUNTED or not t.parts or not sure_of_parts(t.parts_evidence):
        return
    smaller = o.area_m2 < _AREA * t.seen.area_m2
    still = smaller and not t.visibility.cut and float(np.linalg.norm(t.velocity)) < _STILL_M_S
    there = t.seen.color_share(cloud, t.position, t.quaternion, VACATED_M + 3.0 * t.noise_m) if still else 1.0
    t.less_frames = t.less_frames + _COUNTED if there < _THERE else 0


def remember(t: Track, o: Observation, cloud: Cloud, anew: bool) -> None:
    """Keep what a segment shows of a track at its current pose, where it is all that can be seen of it.

    Args:
        anew: what was kept is of no use any more, as its frame has changed.
    """
    full = not t.visibility.cut and o.extent > _FULL_EXTENT * t.appearance.seen_extent
    if t.seen is None or anew or (full and t.hits % _FRESH_HITS == 0 and not t.less_frames):
        t.seen = SeenSurface.of(o, t.position, t.quaternion, cloud)


def joined(pieces: Sequence[Observation]) -> Observation:
    """One segment of several; scores, embedding and classes are those of the largest."""
    largest = max(pieces, key=lambda o: o.pixels)
    points = np.concatenate([o.points for o in pieces])
    weights = np.array([float(o.pixels) for o in pieces])
    rims, normals = [o.rim for o in pieces], [o.normals for o in pieces]
    low, high = np.percentile(points, 2.0, axis=0), np.percentile(points, 98.0, axis=0)
    return replace(
        largest,
        points=points,
        pixels=int(weights.sum()),
        area_m2=sum(o.area_m2 for o in pieces),
        color=weights @ np.stack([o.color for o in pieces]) / weights.sum(),
        extent=float((high - low).max()),
        center=0.5 * (low + high),
        height_low=min(o.height_low for o in pieces),
        height_high=max(o.height_high for o in pieces),
        on_border=any(o.on_border for o in pieces),
        rim=np.concatenate(rims) if all(map(len, rims)) else np.zeros(0, np.uint8),
        normals=np.concatenate(normals) if all(map(len, normals)) else np.zeros((0, 3)),
        cut_share=float(weights @ [o.cut_share for o in pieces] / weights.sum()),
        past_of=lambda: np.concatenate([o.past for o in pieces]),
        edge_of=lambda: (np.concatenate([o.edge[0] for o in pieces]), np.concatenate([o.edge[1] for o in pieces])),
    )
