"""The assignment of segments to tracks by place, size and appearance."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from wm_core.rotations import matrix
from wm_perception.shapes.surfaces import surface_distance
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.one_or_two import OneOrTwo
from wm_perception.tracking.pieces import holds_pieces, joined, share_on, share_under
from wm_perception.tracking.track import Track
from wm_perception.types import Array

_FAR_M = 0.25
"""Distance [m] at which a point counts as far; farther ones do not count more. Chosen by hand; larger means that a few
stray points weigh more."""
_IMPOSSIBLE = 1e3
"""Cost of a pair that is excluded: any value far above the gates."""
_GATE = 5.0
"""Cost from which a track and a segment are not paired: the sum of place, appearance and size, each about 1 where it is
doubtful. Chosen by hand; larger means fewer lost tracks and more exchanged ids."""
_AGAIN_GATE = 3.0
"""The same for a track that is found away from its place. Chosen by hand; larger means that more new objects take over
the id of a lost one."""
_AGAIN_SPEED_M_S = 1.2
"""Speed [m/s] at which an unseen object may have gone from its place. Chosen by hand; larger means that it is looked
for farther away."""
_FRAGMENT_M = 0.012
"""Distance [m] to the surface within which three quarters of a further piece of an object must lie. Chosen by hand;
larger means that small neighbors are taken for pieces."""
_ON_SEEN = 0.75
"""Part of a segment that must lie on what was seen of an object before for it to be a piece of that. Larger means that
more pieces become objects, smaller that small objects on large ones are taken for pieces."""
_UNDER = 0.6
"""Part of what was seen of an object that must lie on another's segment for that to cover both. Larger means fewer
votes for one object."""
_SHARE, _SHARE_POINTS = 0.25, 15
"""Part of a segment's points, and their count, that must be nearer to another object for the segment to be divided.
Chosen by hand; larger means that merged segments stay whole more often."""
_LOST_FRAMES = 30
"""Frames after which a track that is not seen takes no part of another's segment (2 s at 15 Hz). Chosen by hand; larger
means that remembered places claim points for longer."""


def outside(track: Track, points: Array) -> Array:
    """|distance| [m] of world points (P, 3) to a track's surface; half as much inside, where fits are vague."""
    local = (points - track.position) @ matrix(track.quaternion)
    distance = surface_distance(track.shape, track.extents, local, track.planes)
    return np.where(distance < 0.0, -0.5 * distance, distance)


def assign(tracks: Sequence[Track], observations: Sequence[Observation], dt: float) -> list[tuple[int, int]]:
    """Pairs (track, observation) of least total cost.

    The cost of a pair is the mean distance of the points to the track's predicted surface in units of the deviation
    of prediction and measurement, plus the difference of appearance, plus the mismatch of sizes.
    """
    if not tracks or not observations:
        return []
    cost = np.full((len(tracks), len(observations)), _IMPOSSIBLE)
    samples = [o.sample() for o in observations]
    centers = np.stack([o.center for o in observations])
    for r, t in enumerate(tracks):
        spread = float(np.sqrt(max(np.trace(t.motion.filter.covariance[:3, :3]) / 3.0, 0.0)))
        speed = float(np.linalg.norm(t.motion.filter.velocity))
        unit = float(np.clip(0.006 + 1.5 * spread + 0.25 * speed * min(dt, 0.2), 0.008, 0.12))
        reach = 0.5 * float(np.linalg.norm(t.extents)) + 4.0 * unit + 0.05
        near = np.flatnonzero(np.linalg.norm(centers - t.position, axis=1) < reach).tolist()
        if not near:
            continue
        # The points of all segments at once, as each call takes longer than its points.
        away = np.minimum(outside(t, np.concatenate([samples[c] for c in near])), _FAR_M)
        ends = np.cumsum([len(samples[c]) for c in near]).tolist()
        for c, begin, end in zip(near, [0, *ends], ends, strict=False):
            o = observations[c]
            apart = float(away[begin:end].mean())
            size = abs(np.log((o.extent + 0.01) / (t.appearance.seen_extent + 0.01)))
            place = apart / (unit + o.noise_m)
            if place > 6.0:
                continue
            cost[r, c] = place + t.appearance.distance(o) + 0.5 * min(size, 3.0)
            if cost[r, c] > _GATE + (2.0 if place < 1.0 else 0.0):
                cost[r, c] = _IMPOSSIBLE
    return _solve(cost, _GATE)


def assign_again(tracks: Sequence[Track], observations: Sequence[Observation]) -> list[tuple[int, int]]:
    """Pairs of objects that are not where they were left and of segments on no known place, by appearance and size.

    An object that has not been seen for a while may have moved as far as a push moves it. A sleeping object that is out
    of view has not been seen to leave: a similar segment elsewhere is another object of its kind.
    """
    if not tracks or not observations:
        return []
    cost = np.full((len(tracks), len(observations)), _IMPOSSIBLE)
    for r, t in enumerate(tracks):
        still = t.motion.sleeping and t.visibility.in_view < 0.5
        for c, o in enumerate(observations):
            away = float(np.linalg.norm(o.center - t.position))
            reach = 0.06 + min(0.6, 0.0 if still else _AGAIN_SPEED_M_S * t.visibility.unseen_s)
            cut = o.on_border or o.hidden_fraction > 0.2
            size = abs(np.log((o.extent + 0.01) / (t.appearance.seen_extent + 0.01))) * (0.4 if cut else 1.0)
            if away > reach or size > 0.7:
                continue
            total = 1.2 * t.appearance.distance(o) + away / reach + 1.5 * size
            if total < _AGAIN_GATE:
                cost[r, c] = total
    return _solve(cost, _AGAIN_GATE)


def _solve(cost: Array, gate: float) -> list[tuple[int, int]]:
    """Pairs of least total cost, where leaving one of each side unpaired costs as much as the gate.

    Without that, a good pair would be given up for two bad ones.
    """
    rows, columns = linear_sum_assignment(np.minimum(cost, gate))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < 0.5 * _IMPOSSIBLE]


def is_fragment(track: Track, seen: Observation, o: Observation) -> bool:
    """Whether a segment is a further piece of an object of which this frame already shows another segment.

    By the fitted shape, of what looks like the object; or, however it looks, by the points that were seen of the object
    when it was one segment.
    """
    if o.extent > 1.1 * float(track.extents.max()) + 0.01:
        return False
    if share_on(track, o) > _ON_SEEN:
        return track.appearance.distance(o) < 1.0 or holds_pieces(track)
    near = outside(track, o.sample())
    if o.pixels > 1.2 * seen.pixels or float((near < _FRAGMENT_M + o.noise_m).mean()) < 0.75:
        return False
    return track.appearance.distance(o) < 1.0


def divide(owner: Track, other: Track, o: Observation) -> tuple[Observation, Observation] | None:
    """A segment that covers two objects, divided by the nearer surface; None: it does not cover both."""
    mine, theirs = outside(owner, o.points), outside(other, o.points)
    to_other = (theirs < mine - 0.003) & (theirs < 0.02 + o.noise_m) & (mine > 0.006)
    count = int(to_other.sum())
    if count < _SHARE_POINTS or count < _SHARE * len(o.points) or len(o.points) - count < _SHARE_POINTS:
        return None
    # The points claimed must cover a fair part of the other's visible side, not only where the two touch.
    part = o.points[to_other]
    if float(np.ptp(part, axis=0).max()) < 0.4 * other.appearance.seen_extent:
        return None
    share = count / len(o.points)
    return o.with_points(o.points[~to_other], 1.0 - share), o.with_points(part, share)


class Matching:
    """Which track each segment of a frame belongs to.

    Attributes:
        observations: of labels 1..L, None where a label has too few points.
        by_track: observation by index of the track.
        assigned: (L,) index of the track of each label, -1 = none.
        found_again: indices of tracks that were found away from their place, by appearance.
        in_pieces: indices of tracks with several segments that do not look alike.
        one: (index, index) of a track with a segment and of another that is of the same object.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        observations: Sequence[Observation | None],
        votes: OneOrTwo | None = None,
        apart: Collection[tuple[int, int]] = (),
    ) -> None:
        self.observations = observations
        self.in_pieces: set[int] = set()
        self.one: list[tuple[int, int]] = []
        self._votes = votes or OneOrTwo()
        self._apart = apart
        self.by_track: dict[int, Observation] = {}
        self.assigned: NDArray[np.int64] = np.full(len(observations), -1, dtype=np.int64)
        self.found_again: set[int] = set()
        self._tracks = tracks

    def solve(self, keys: NDArray[np.int64], dt: float) -> None:
        """Match what the segmenter has not assigned itself by ``Track.key`` (``keys`` (L,), -1 = none)."""
        rows = {t.key: i for i, t in enumerate(self._tracks)}
        for label, (key, observation) in enumerate(zip(keys, self.observations, strict=True)):
            row = rows.get(int(key), -1)
            if observation is not None and row >= 0:
                self.by_track[row] = observation
                self.assigned[label] = row
        self._by_place(dt)
        self._join_fragments()
        self._divide_merged()
        self._by_appearance()

    def free(self) -> list[tuple[int, Observation]]:
        """Index and observation of the labels without a track."""
        return [(n, o) for n, o in enumerate(self.observations) if o is not None and self.assigned[n] < 0]

    def _free_tracks(self) -> list[int]:
        return [i for i in range(len(self._tracks)) if i not in self.by_track]

    def _add(self, pairs: list[tuple[int, int]], rows: list[int], free: list[tuple[int, Observation]]) -> None:
        for r, c in pairs:
            label, self.by_track[rows[r]] = free[c]
            self.assigned[label] = rows[r]

    def _by_place(self, dt: float) -> None:
        rows, free = self._free_tracks(), self.free()
        self._add(assign([self._tracks[i] for i in rows], [o for _, o in free], dt), rows, free)

    def _join_fragments(self) -> None:
        """Add further pieces to objects that another segment of this frame already shows."""
        for label, o in self.free():
            for row, whole in list(self.by_track.items()):
                t = self._tracks[row]
                if self._are_apart(label, row):
                    continue
                if np.linalg.norm(o.center - t.position) > 0.5 * float(np.linalg.norm(t.extents)) + 0.02:
                    continue
                if is_fragment(t, whole, o):
                    self.by_track[row] = joined([whole, o])
                    self.assigned[label] = row
                    if t.appearance.distance(o) >= 1.0:
                        self.in_pieces.add(row)
                    break

    def _are_apart(self, label: int, row: int) -> bool:
        """Whether a label beside one of a track's was found to be of another object."""
        return any(self.assigned[a + b - label] == row for a, b in self._apart if label in (a, b))

    def _divide_merged(self) -> None:
        """Give tracks without a segment their part of a neighbor's that covers both, unless they are one object."""
        self._votes.apart({self._tracks[row].key: self._tracks[row] for row in self.by_track})
        for row in self._free_tracks():
            t = self._tracks[row]
            if not t.id or t.visibility.misses > _LOST_FRAMES:
                continue
            for holder in [h for h in self.by_track if h != row]:
                keeper = self._tracks[holder]
                apart = float(np.linalg.norm(keeper.position - t.position))
                if apart > 0.5 * float(np.linalg.norm(t.extents) + np.linalg.norm(keeper.extents)) + 0.02:
                    continue
                if share_under(t, self.by_track[holder]) > _UNDER:
                    self._votes.covered(keeper, t)
                    if self._votes.are_one(keeper, t):
                        self.one.append((holder, row))
                        break
                if keeper.appearance.is_like(t.appearance):
                    continue
                parts = divide(keeper, t, self.by_track[holder])
                if parts is not None:
                    self.by_track[holder], self.by_track[row] = parts
                    break

    def _by_appearance(self) -> None:
        rows, free = [i for i in self._free_tracks() if self._tracks[i].id], self.free()
        pairs = assign_again([self._tracks[i] for i in rows], [o for _, o in free])
        self._add(pairs, rows, free)
        self.found_again = {rows[r] for r, _ in pairs}
