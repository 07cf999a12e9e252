"""Which segments of a frame are one object, by what all frames so far say of the tracks that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wm_perception.segmentation.part_links import group, joined
from wm_perception.tracking.track import Track
from wm_perception.types import Array, Cloud, Segmentation

_PER_FRAME = 0.25
"""Part of a frame's log-odds that is remembered: frames in succession show nearly the same, and err alike. Larger
decides sooner and wavers more."""
_MOST = 3.0
"""Remembered log-odds are no larger than this: one in 20. Larger keeps a wrong decision for longer against what later
frames show."""
_HELD = 1.0
"""Log-odds by which two objects in the scene graph must be one to be joined, and one must be two to be divided. Larger
changes ids less often, and later."""
_COVERED = 2.0
"""Log-odds that two tracks are one object, of a frame in which one segment covers both (or all of one track): the
network takes one object for two far more often than two for one. Larger joins what was seen as one for moments."""
_ON, _UNDER = 0.5, 0.6
"""Part of a segment that must lie on what was seen of a track to be of it, and part of the latter that must lie under a
segment to be covered. Larger finds the tracks of fewer segments."""
_MOVED, _MOVED_M = 0.1, 0.015
"""Way of an object over its size, and at the least [m], from which it says whether a neighbor is of it. Smaller takes
noise for motion."""
_RIGID = 0.3
"""Difference of the ways of two tracks over the longer way up to which they went together. Larger takes what was pushed
along for a part."""
_WENT = 2.0
"""Log-odds of one object when two tracks went together once. Larger joins what is pushed or carried along."""
_SAMPLES = 48
"""Points of a segment by which its track is found. Larger is slower."""


@dataclass
class _Pair:
    """Attributes: odds: remembered log-odds; places: (2, 3) of both tracks when their ways were last compared [m]."""

    odds: float
    places: Array


class PartMemory:
    """Remembers for every track, and for every pair of tracks with neighboring segments, the log-odds of being one.

    A frame's log-odds of two neighboring segments are those of the segmenter plus what is remembered: of the track that
    both are of, or of the two tracks that they are of. Motion decides at once.
    """

    def __init__(self) -> None:
        self._inner: dict[int, float] = {}
        self._pairs: dict[tuple[int, int], _Pair] = {}

    def forget(self, tracks: Sequence[Track]) -> None:
        """Keep only what is known of these tracks."""
        keys = {t.key for t in tracks}
        self._inner = {k: v for k, v in self._inner.items() if k in keys}
        self._pairs = {pair: v for pair, v in self._pairs.items() if keys.issuperset(pair)}

    def join(
        self, segmentation: Segmentation, tracks: Sequence[Track], cloud: Cloud
    ) -> tuple[Segmentation, list[tuple[Track, Track]]]:
        """The segmentation with segments of one object joined, and the pairs of tracks that are one object.

        The links left are those that were decided against, with the log-odds decided by. Joined segments of a track
        have its key.
        """
        count = len(segmentation.keys)
        if not count:
            return segmentation, []
        by_key = {t.key: t for t in tracks}
        self._compare_ways(by_key)
        owner = self._owners(segmentation, tracks, cloud) if tracks else {}
        odds = segmentation.log_odds.copy()
        for n, (i, j) in enumerate(segmentation.pairs.tolist()):
            odds[n] += self._remembered(owner.get(i), owner.get(j), by_key)
        new = group(count, segmentation.pairs, odds)
        self._learn(segmentation, owner, by_key)
        merged: list[tuple[Track, Track]] = []
        keys = segmentation.keys.copy()
        for label in range(1, int(new.max()) + 1):
            members = np.flatnonzero(new == label)
            owners = sorted({owner[int(m)] for m in members if int(m) in owner})
            if len(members) < 2 or not owners:
                continue
            kept = by_key[owners[0]]
            for key in owners[1:]:
                kept, gone = older(kept, by_key[key])
                merged.append((kept, gone))
            keys[members - 1] = kept.key
        result = joined(replace(segmentation, keys=keys, log_odds=odds), new)
        return result, merged

    def _remembered(self, a: int | None, b: int | None, by_key: dict[int, Track]) -> float:
        """What is remembered of two segments of these tracks, and by how much they must be otherwise for a change."""
        if a is None or b is None:
            return 0.0
        if a == b:
            return self._inner.get(a, 0.0) + _HELD * (by_key[a].id > 0)
        pair = self._pairs.get((min(a, b), max(a, b)))
        both = by_key[a].id > 0 and by_key[b].id > 0
        return (pair.odds if pair else min(self._inner.get(a, 0.0), self._inner.get(b, 0.0), 0.0)) - _HELD * both

    def _owners(self, segmentation: Segmentation, tracks: Sequence[Track], cloud: Cloud) -> dict[int, int]:
        """The key of the track that each label with a neighbor is of, where that is known; learns of covered tracks."""
        owner: dict[int, int] = {}
        linked = set(segmentation.pairs.ravel().tolist())
        known = set(self._inner).union(*self._pairs) if self._pairs else set(self._inner)
        places = np.stack([t.position for t in tracks])
        reach = np.array([0.5 * float(np.linalg.norm(t.extents)) + 0.03 for t in tracks])
        covered: dict[int, list[tuple[int, float]]] = {}
        for label, box in enumerate(ndimage.find_objects(segmentation.labels, len(segmentation.keys)), start=1):
            if box is None or (label not in linked and not known):
                continue
            points = _sample(segmentation.labels[box] == label, cloud.points[box])
            if len(points) < 8:
                continue
            low, high = points.min(axis=0), points.max(axis=0)
            outside = np.maximum(np.maximum(low - places, places - high), 0.0)
            near = np.flatnonzero(np.square(outside).sum(axis=1) < np.square(reach))
            best = 0.0
            for row in near.tolist():
                t = tracks[row]
                if t.seen is None or (label not in linked and t.key not in known):
                    continue
                on, under = t.seen.shares(points, t.noise_m, t.position, t.quaternion)
                if under > _UNDER:
                    covered.setdefault(label, []).append((t.key, under))
                fit = on * (0.5 + 0.5 * under)
                if on > _ON and fit > best:
                    best, owner[label] = fit, t.key
        self._learn_covered(covered, owner)
        return owner

    def _learn_covered(self, covered: dict[int, list[tuple[int, float]]], owner: dict[int, int]) -> None:
        """One segment covers a track, or two."""
        counts: dict[int, int] = {}
        for key in owner.values():
            counts[key] = counts.get(key, 0) + 1
        for label, found in covered.items():
            keys = sorted(key for key, _ in found)
            for n, a in enumerate(keys):
                if counts.get(a, 0) == 1 and owner.get(label) == a:
                    self._add_inner(a, _COVERED)
                for b in keys[n + 1 :]:
                    if (a, b) in self._pairs:
                        self._add(self._pairs[a, b], _COVERED)

    def _learn(self, segmentation: Segmentation, owner: dict[int, int], by_key: dict[int, Track]) -> None:
        """Remember a part of this frame's log-odds: of one track those of its weakest joint."""
        inner: dict[int, list[tuple[float, int, int]]] = {}
        between: dict[tuple[int, int], float] = {}
        for (i, j), odds in zip(segmentation.pairs.tolist(), segmentation.log_odds.tolist(), strict=True):
            a, b = owner.get(i), owner.get(j)
            if a is None or b is None:
                continue
            if a == b:
                inner.setdefault(a, []).append((odds, i, j))
            else:
                pair = (min(a, b), max(a, b))
                between[pair] = max(between.get(pair, -np.inf), odds)
        for key, links in inner.items():
            self._add_inner(key, _weakest(links))
        for pair, odds in between.items():
            if pair not in self._pairs:
                start = min(self._inner.get(pair[0], 0.0), self._inner.get(pair[1], 0.0), 0.0)
                self._pairs[pair] = _Pair(start, np.stack([by_key[k].position for k in pair]))
            self._add(self._pairs[pair], odds)

    def _add_inner(self, key: int, odds: float) -> None:
        self._inner[key] = float(np.clip(self._inner.get(key, 0.0) + _PER_FRAME * odds, -_MOST, _MOST))

    @staticmethod
    def _add(pair: _Pair, odds: float) -> None:
        pair.odds = float(np.clip(pair.odds + _PER_FRAME * odds, -_MOST, _MOST))

    def _compare_ways(self, by_key: dict[int, Track]) -> None:
        """Tracks that moved apart are two; that moved together they are likelier one."""
        for (a, b), pair in self._pairs.items():
            one, other = by_key[a], by_key[b]
            if not (one.visibility.seen_now and other.visibility.seen_now):
                continue
            ways = np.stack([one.position, other.position]) - pair.places
            far = np.linalg.norm(ways, axis=1)
            least = max(_MOVED_M, _MOVED * float(max(one.extents.max(), other.extents.max())))
            if far.max() < least:
                continue
            if float(np.linalg.norm(ways[1] - ways[0])) < _RIGID * far.max():
                pair.odds = min(pair.odds + _WENT, _MOST)
                pair.places = pair.places + ways
            elif one.motion.moved or other.motion.moved:
                pair.odds = -_MOST
                pair.places = pair.places + ways


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


def _sample(mask: NDArray[np.bool_], points: NDArray[np.float32]) -> Array:
    """At most ``_SAMPLES`` points (P, 3) of a mask [m]."""
    own = points[mask]
    own = own[np.isfinite(own[:, 0])]
    return own[:: max(1, len(own) // _SAMPLES)][:_SAMPLES].astype(np.float64)
