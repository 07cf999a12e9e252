"""Which segment is which thing: place, size, look and what covers what, in one assignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from wm_core.rotations import matrix
from wm_perception.shapes.surfaces import signed_distance
from wm_perception.tracking.track import Track
from wm_perception.types import Array

_SAMPLE = 48
_FAR_M = 0.25
_IMPOSSIBLE = 1e3
_GATE = 5.0
_AGAIN_GATE = 3.0
_AGAIN_SPEED_M_S = 1.2
_COLOR_STEP = 22.0
_EMBEDDING_STEP = 0.35
_FRAGMENT_M = 0.012
_ONE_LOOK = 0.5
_ONE_COLOR = 12.0
_SHARE = 0.25
_SHARE_POINTS = 15


@dataclass
class Observation:
    """One segment of a frame.

    Attributes:
        points: (P, 3) world [m]. noise_m: of their depth.
        color: (3,) mean RGB 0..255. pixels: count, at the cloud's size. area_m2: of the segment, as seen.
        bottom: height of the support under it [m], None: none known. support_height [m].
        height_low, height_high: over the support [m].
        on_border: cut off by the image's edge. outside_fraction: of points beyond the outline of their support.
        over_fraction: of points, 0..1, that are over a support.
        hidden_fraction: of its outline, 0..1, along which something nearer covers what may be more of it.
        extent: longest side of its bounds [m]. center: (3,) middle of its bounds.
        score: 0..1 from the segmenter, NaN: it does not say.
        embedding: (D,) unit length, or (0,). classes: (C,) probabilities in the order of the vocabulary, or (0,).
    """

    points: Array
    noise_m: float
    color: Array
    pixels: int
    bottom: float | None
    support_height: float
    height_low: float
    height_high: float
    on_border: bool
    outside_fraction: float
    extent: float
    center: Array
    area_m2: float
    over_fraction: float = 1.0
    hidden_fraction: float = 0.0
    score: float = float("nan")
    embedding: Array = field(default_factory=lambda: np.zeros(0))
    classes: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def sure(self) -> bool:
        """Whether the segmenter is sure that this is one whole thing."""
        return self.score >= 0.5

    def sample(self, count: int = _SAMPLE) -> Array:
        """At most ``count`` of the points, evenly taken."""
        return self.points[:: max(1, len(self.points) // count)][:count]

    def with_points(self, points: Array, share: float) -> Observation:
        """The same with only some of its points, (Q, 3), which are a share 0..1 of it."""
        low, high = np.percentile(points, 2.0, axis=0), np.percentile(points, 98.0, axis=0)
        return replace(
            self,
            points=points,
            pixels=max(int(self.pixels * share), 1),
            area_m2=self.area_m2 * share,
            extent=float((high - low).max()),
            center=0.5 * (low + high),
            hidden_fraction=max(self.hidden_fraction, 0.5),
        )


def outside(track: Track, points: Array) -> Array:
    """|distance| [m] of world points (P, 3) to a track's surface; half as much inside, where fits are vague."""
    distance, _ = signed_distance(
        track.shape, track.extents, (points - track.position) @ matrix(track.quaternion), track.planes
    )
    return np.where(distance < 0.0, -0.5 * distance, distance)


def look_distance(track: Track, o: Observation) -> float:
    """How unlike they look, about 1 where it is doubtful: by embedding where there is one, and mean color."""
    color = min(float(np.abs(o.color - track.color).mean()) / _COLOR_STEP, 4.0)
    if len(o.embedding) and len(track.embedding) == len(o.embedding):
        apart = 1.0 - float(o.embedding @ track.embedding)
        return 0.7 * min(apart / _EMBEDDING_STEP, 4.0) + 0.3 * color
    return color


def assign(tracks: Sequence[Track], observations: Sequence[Observation], dt: float) -> list[tuple[int, int]]:
    """Pairs (track, observation) of least total cost.

    The cost of a pair is the mean distance of the points to the track's predicted surface in units of what prediction
    and measurement may be off, plus how unlike they look, plus the mismatch of sizes.
    """
    if not tracks or not observations:
        return []
    cost = np.full((len(tracks), len(observations)), _IMPOSSIBLE)
    samples = [o.sample() for o in observations]
    centers = np.stack([o.center for o in observations])
    for r, t in enumerate(tracks):
        spread = float(np.sqrt(max(np.trace(t.filter.covariance[:3, :3]) / 3.0, 0.0)))
        speed = float(np.linalg.norm(t.filter.velocity))
        unit = float(np.clip(0.006 + 1.5 * spread + 0.25 * speed * min(dt, 0.2), 0.008, 0.12))
        reach = 0.5 * float(np.linalg.norm(t.extents)) + 4.0 * unit + 0.05
        near = np.flatnonzero(np.linalg.norm(centers - t.position, axis=1) < reach)
        for c in near:
            o = observations[c]
            apart = float(np.minimum(outside(t, samples[c]), _FAR_M).mean())
            size = abs(np.log((o.extent + 0.01) / (t.seen_extent + 0.01)))
            place = apart / (unit + o.noise_m)
            if place > 6.0:
                continue
            cost[r, c] = place + look_distance(t, o) + 0.5 * min(size, 3.0)
            if cost[r, c] > _GATE + (2.0 if place < 1.0 else 0.0):
                cost[r, c] = _IMPOSSIBLE
    return _solve(cost, _GATE)


def assign_again(tracks: Sequence[Track], observations: Sequence[Observation]) -> list[tuple[int, int]]:
    """Pairs of things that are not where they were left and of segments on no known place, by look and size.

    A thing that has not been seen for a while may have gone as far as a push takes it. Of what rested and is out of
    view nobody has seen anything that would have it elsewhere: what looks like it there is another of its kind.
    """
    if not tracks or not observations:
        return []
    cost = np.full((len(tracks), len(observations)), _IMPOSSIBLE)
    for r, t in enumerate(tracks):
        still = t.resting and t.in_view < 0.5
        for c, o in enumerate(observations):
            away = float(np.linalg.norm(o.center - t.position))
            reach = 0.06 + min(0.6, 0.0 if still else _AGAIN_SPEED_M_S * t.unseen_s)
            cut = o.on_border or o.hidden_fraction > 0.2
            size = abs(np.log((o.extent + 0.01) / (t.seen_extent + 0.01))) * (0.4 if cut else 1.0)
            if away > reach or size > 0.7:
                continue
            total = 1.2 * look_distance(t, o) + away / reach + 1.5 * size
            if total < _AGAIN_GATE:
                cost[r, c] = total
    return _solve(cost, _AGAIN_GATE)


def _solve(cost: Array, gate: float) -> list[tuple[int, int]]:
    """Pairs of least total cost, where to leave one of each side alone costs as much as the gate.

    Were that forbidden, a good pair would be torn apart for two bad ones.
    """
    rows, columns = linear_sum_assignment(np.minimum(cost, gate))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < 0.5 * _IMPOSSIBLE]


def is_fragment(track: Track, seen: Observation, o: Observation) -> bool:
    """Whether a segment is a further piece of a thing of which this frame already shows another segment."""
    if o.pixels > 1.2 * seen.pixels or o.extent > 1.1 * float(track.extents.max()) + 0.01:
        return False
    near = outside(track, o.sample())
    if float((near < _FRAGMENT_M + o.noise_m).mean()) < 0.75:
        return False
    return look_distance(track, o) < 1.0


def of_one_look(a: Track, b: Track) -> bool:
    """Whether two tracks look so alike that a segmenter that takes them for one thing is to be believed."""
    if not len(a.embedding) or len(a.embedding) != len(b.embedding):
        return False
    return float(a.embedding @ b.embedding) > _ONE_LOOK and float(np.abs(a.color - b.color).mean()) < _ONE_COLOR


def divide(owner: Track, other: Track, o: Observation) -> tuple[Observation, Observation] | None:
    """A segment that covers two things, parted by whose surface is nearer; None: it does not cover both."""
    mine, theirs = outside(owner, o.points), outside(other, o.points)
    to_other = (theirs < mine - 0.003) & (theirs < 0.02 + o.noise_m) & (mine > 0.006)
    count = int(to_other.sum())
    if count < _SHARE_POINTS or count < _SHARE * len(o.points) or len(o.points) - count < _SHARE_POINTS:
        return None
    # What is claimed must be a fair part of what is to be seen of the other, not only where the two meet.
    part = o.points[to_other]
    if float(np.ptp(part, axis=0).max()) < 0.4 * other.seen_extent:
        return None
    share = count / len(o.points)
    return o.with_points(o.points[~to_other], 1.0 - share), o.with_points(part, share)
