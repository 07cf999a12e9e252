"""Which segments of a frame are one object, by what all frames so far say of the tracks that they are of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wm_perception.segmentation.part_links import group, joined
from wm_perception.tracking.seen_surface import shares, spacing_of
from wm_perception.tracking.track import Track
from wm_perception.types import Array, Cloud, Segmentation

_PER_FRAME = 0.15
"""Weight of a frame in what is remembered (half of it is of the last 0.3 s at 15 Hz). Larger decides sooner and wavers
more."""
_VIEWS, _MOST = 3.0, 4.0
"""Frames of one view err alike, so that all together count as this many of their mean; and remembered log-odds are no
larger than the latter, one in 55. Larger holds what was decided against what a frame shows."""
_HELD = 3.0
"""Log-odds by which two objects in the scene graph must be one to be joined, and one must be two to be divided. Larger
changes ids less often, and later."""
_COVERED = 2.0
"""Log-odds that all of a track is one object, of a frame in which one segment covers it: of 2431 such segments in
random worlds 2059 were of its object. A segment that covers two tracks says nothing: in 281 of 344 of these cases they
were two objects, which the network saw as one. Larger joins what was seen as one for moments."""
_ON, _UNDER = 0.5, 0.6
"""Part of a segment that must lie on what was seen of a track to be of it, and part of the latter that must lie under a
segment to be covered. Larger finds the tracks of fewer segments."""
_MOVED, _MOVED_M = 0.1, 0.015
"""Way of an object over its size, and at the least [m], from which it says whether a neighbor is of it. Smaller takes
noise for motion."""
_RIGID = 0.3
"""Difference of the ways of two tracks over the longer way up to which they went together. Larger takes what was pushed
along for a part."""
_TOGETHER, _APART = 1.5, -8.0
"""Log-odds of one object when two tracks went together, and when one of them went without the other. In random worlds
most of what went together was pushed along or fell, 10 of 12 pairs. A larger first one joins what is carried."""
_APART_FRAMES = 5
"""Frames in succession in which two tracks must have gone apart: one of two that start together is noticed later.
Larger divides later what was joined."""
_SAMPLES, _LEAST_SAMPLES = 48, 8
"""Points of a segment by which its track is found, and how many it must have. Larger is slower."""
_SPACING = 2.0
"""Distance up to which a segment lies over a point of a track, over the distance of neighboring points of the segment
(median). Larger takes what lies close beside a segment to be covered by it; smaller loses what is between them."""


@dataclass
class _Joint:
    """Two tracks, or the parts of one.

    Attributes:
        look: remembered log-odds of being one by the segmenter; motion: by their ways.
        places: (2, 3) of both tracks when their ways were last compared [m]; frames_apart: in succession in which
            these ways differ.
    """

    look: float
    motion: float = 0.0
    places: Array = field(default_factory=lambda: np.zeros((2, 3)))
    frames_apart: int = 0

    @property
    def odds(self) -> float:
        """Log-odds of being one."""
        return self.look + self.motion

    def learn(self, odds: float) -> None:
        """A frame's log-odds."""
        self.look += _PER_FRAME * (float(np.clip(_VIEWS * odds, -_MOST, _MOST)) - self.look)


@dataclass(frozen=True)
class _Surface:
    """What was seen of a track, where it is now.

    Attributes:
        points: (P, 3) world [m]; low, high: (3,) their bounds [m]; reach_m: distance up to which a point is on it [m].
    """

    track: Track
    points: Array
    low: Array
    high: Array
    reach_m: float

    @classmethod
    def of(cls, t: Track) -> _Surface:
        """Half of the points that are kept of a track that was seen: so it reaches farther."""
        assert t.seen is not None
        points = t.seen.in_world(t.position, t.quaternion)[::2]
        reach = 1.4 * t.seen.reach_m + t.noise_m
        return cls(t, points, points.min(axis=0) - reach, points.max(axis=0) + reach, reach)

    def meets(self, low: Array, high: Array) -> bool:
        """Whether points of these bounds may lie on it."""
        return bool((low < self.high).all() and (high > self.low).all())


class PartMemory:
    """Remembers for every track, and for every pair of tracks with neighboring segments, the log-odds of being one.

    A frame's log-odds of two neighboring segments are those of the segmenter plus what is remembered: of the track that
    both are of, or of the two tracks that they are of. What moves together or apart weighs more than how it looks.
    """

    def __init__(self) -> None:
        self._joints: dict[tuple[int, int], _Joint] = {}

    def forget(self, tracks: Sequence[Track]) -> None:
        """Keep only what is known of these tracks."""
        keys = {t.key for t in tracks}
        self._joints = {pair: joint for pair, joint in self._joints.items() if keys.issuperset(pair)}

    def join(
        self, segmentation: Segmentation, tracks: Sequence[Track], cloud: Cloud
    ) -> tuple[Segmentation, list[tuple[Track, Track]]]:
        """The segmentation with segments of one object joined, and the pairs of tracks that are one object.

        The links left are those that were decided against, with the log-odds decided by. Joined segments of a track
        have its key.
        """
        count = len(segmentation.keys)
        if not count or (not len(segmentation.pairs) and not self._joints):
            return segmentation, []
        by_key = {t.key: t for t in tracks}
        self._compare_ways(by_key)
        owner = self._owners(segmentation, tracks, cloud) if tracks else {}
        odds = segmentation.log_odds.copy()
        for n, (i, j) in enumerate(segmentation.pairs.tolist()):
            if i in owner and j in owner:
                odds[n] += self._remembered(by_key[owner[i]], by_key[owner[j]])
        held, against = self._held_apart(segmentation, owner, by_key)
        new = group(count, np.concatenate([segmentation.pairs, held]), np.concatenate([odds, against]))
        self._learn(segmentation, owner, by_key)
        merged: list[tuple[Track, Track]] = []
        keys = segmentation.keys.copy()
        taken: set[int] = set()
        for label in range(1, int(new.max()) + 1):
            members = np.flatnonzero(new == label)
            # A track of which another group has segments, too, is of that one.
            owners = sorted({owner[int(m)] for m in members if int(m) in owner} - taken)
            if len(members) < 2 or not owners:
                continue
            taken.update(owners)
            kept = by_key[owners[0]]
            for key in owners[1:]:
                kept, gone = older(kept, by_key[key])
                merged.append((kept, gone))
                # What has made them one goes on to hold the parts of one together.
                self._joints[kept.key, kept.key] = self._joint(kept, gone)
            keys[members - 1] = kept.key
        return joined(replace(segmentation, keys=keys, log_odds=odds), new), merged

    def _joint(self, a: Track, b: Track) -> _Joint:
        """What is known of two tracks, or of the parts of one: at first that it was seen whole.

        Of two tracks one may have been cut off the other, whose parts were not one.
        """
        pair = (min(a.key, b.key), max(a.key, b.key))
        if pair not in self._joints:
            if a is b:
                self._joints[pair] = _Joint(_MOST * _settled(a.whole_frames))
            else:
                own = [self._joints[t.key, t.key].odds for t in (a, b) if (t.key, t.key) in self._joints]
                places = np.stack([t.position for t in sorted((a, b), key=lambda t: t.key)])
                # What has moved has come here, and both were seen alone; at rest a gap in the image says nothing.
                came = a.motion.moved or b.motion.moved
                look = -_MOST * _settled(min(a.hits, b.hits)) if came else 0.0
                self._joints[pair] = _Joint(min(*own, look, look), places=places)
        return self._joints[pair]

    def _held_apart(
        self, segmentation: Segmentation, owner: dict[int, int], by_key: dict[int, Track]
    ) -> tuple[NDArray[np.int64], Array]:
        """Pairs (P, 2) of labels of two objects that are no neighbors, and log-odds (P,) that these are one.

        Without these, two objects would be joined by what lies between them and is of neither yet.
        """
        linked = set(map(tuple, segmentation.pairs.tolist()))
        pairs, odds = [], []
        for i, j in itertools.combinations(sorted(owner), 2):
            a, b = by_key[owner[i]], by_key[owner[j]]
            if a is b or not (a.id and b.id) or (i, j) in linked:
                continue
            joint = self._joints.get((min(a.key, b.key), max(a.key, b.key)))
            pairs.append((i, j))
            # They are held apart, never together, by what is no border in this frame.
            odds.append(min(joint.odds - _HELD, 0.0) if joint else -_MOST)
        return np.array(pairs, np.int64).reshape(-1, 2), np.array(odds)

    def _remembered(self, a: Track, b: Track) -> float:
        """What is remembered of two segments of these tracks, and by how much they must be otherwise for a change."""
        odds = self._joint(a, b).odds
        return odds + _HELD * (a.id > 0) if a is b else odds - _HELD * (a.id > 0 and b.id > 0)

    def _owners(self, segmentation: Segmentation, tracks: Sequence[Track], cloud: Cloud) -> dict[int, int]:
        """The key of the track that each label with a neighbor is of, where that is known; learns of covered tracks."""
        owner: dict[int, int] = {}
        linked = set(segmentation.pairs.ravel().tolist())
        known = {key for pair in self._joints for key in pair}
        surfaces = [_Surface.of(t) for t in tracks if t.seen is not None and (linked or t.key in known)]
        covered: dict[int, bool] = {}
        for label, box in enumerate(ndimage.find_objects(segmentation.labels, len(segmentation.keys)), start=1):
            if box is None or (label not in linked and not known):
                continue
            points = _sample(segmentation.labels[box] == label, cloud.depth[box], cloud.points[box])
            if len(points) < _LEAST_SAMPLES:
                continue
            low, high = points.min(axis=0), points.max(axis=0)
            best, spacing = 0.0, None
            for surface in surfaces:
                t = surface.track
                if (label not in linked and t.key not in known) or not surface.meets(low, high):
                    continue
                spacing = _SPACING * spacing_of(points) if spacing is None else spacing
                on, under = shares(points, surface.points, surface.reach_m, max(surface.reach_m, spacing))
                fit = on * (0.5 + 0.5 * under)
                if on > _ON and fit > best:
                    best, owner[label], covered[label] = fit, t.key, under > _UNDER
        self._learn_covered([owner[label] for label, all_of_it in covered.items() if all_of_it], owner)
        return owner

    def _learn_covered(self, covered: list[int], owner: dict[int, int]) -> None:
        """The tracks of these keys are each covered by one of their segments; those that have no other are one."""
        parts = list(owner.values())
        for key in covered:
            if parts.count(key) == 1 and (key, key) in self._joints:
                self._joints[key, key].learn(_COVERED)

    def _learn(self, segmentation: Segmentation, owner: dict[int, int], by_key: dict[int, Track]) -> None:
        """Remember this frame's log-odds: of one track those of its weakest joint, of two those of their strongest."""
        links: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
        for (i, j), odds in zip(segmentation.pairs.tolist(), segmentation.log_odds.tolist(), strict=True):
            if i in owner and j in owner:
                pair = (min(owner[i], owner[j]), max(owner[i], owner[j]))
                links.setdefault(pair, []).append((odds, i, j))
        for (a, b), found in links.items():
            self._joint(by_key[a], by_key[b]).learn(_weakest(found) if a == b else max(found)[0])

    def _compare_ways(self, by_key: dict[int, Track]) -> None:
        """Tracks that moved apart are two; that moved together they are likelier one."""
        for (a, b), joint in self._joints.items():
            one, other = by_key[a], by_key[b]
            if a == b or not (one.visibility.seen_now and other.visibility.seen_now):
                continue
            ways = np.stack([one.position, other.position]) - joint.places
            far = np.linalg.norm(ways, axis=1)
            least = max(_MOVED_M, _MOVED * float(max(one.extents.max(), other.extents.max())))
            apart = float(np.linalg.norm(ways[1] - ways[0]))
            # A center also shifts with the fitted shape: only what is seen to move has gone anywhere.
            both = one.motion.moved and other.motion.moved
            if both and far.min() > least and apart < _RIGID * far.max():
                joint.motion = _TOGETHER if joint.motion >= 0.0 else joint.motion
            else:
                went = apart > least and (one.motion.moved or other.motion.moved)
                joint.frames_apart = joint.frames_apart + 1 if went else 0
                if joint.frames_apart < _APART_FRAMES:
                    continue
                joint.motion = _APART
            joint.places, joint.frames_apart = joint.places + ways, 0


def _settled(frames: int) -> float:
    """Part 0..1 of what is remembered that so many equal frames make up."""
    return float(1.0 - (1.0 - _PER_FRAME) ** max(frames, 0))


def older(a: Track, b: Track) -> tuple[Track, Track]:
    """The one of two tracks that stays, and the other: of those with an id the one seen first."""
    keep_b = (b.id > 0, -b.first_seen_ns, -b.key) > (a.id > 0, -a.first_seen_ns, -a.key)
    return (b, a) if keep_b else (a, b)


def _weakest(links: list[tuple[float, int, int]]) -> float:
    """The least log-odds among those that hold the segments together: of the maximum spanning tree."""
    root: dict[int, int] = {}

    def find(n: int) -> int:
        while root.setdefault(n, n) != n:
            n = root[n]
        return n

    least = np.inf
    for odds, i, j in sorted(links, reverse=True):
        if find(i) != find(j):
            root[find(i)] = find(j)
            least = odds
    return float(least)


def _sample(mask: NDArray[np.bool_], depth: NDArray[np.float32], points: NDArray[np.float32]) -> Array:
    """At most ``_SAMPLES`` points (P, 3) of a mask [m], of pixels with depth."""
    # By index, and only of the points that are taken: a mask that picks rows of points takes several times as long.
    own = np.flatnonzero(mask & np.isfinite(depth))
    return points[np.divmod(own[:: max(1, len(own) // _SAMPLES)][:_SAMPLES], mask.shape[1])].astype(np.float64)
