"""Whether two tracks are of one object: votes of all frames, for and against."""

from __future__ import annotations

from dataclasses import dataclass

from wm_perception.tracking.track import Track

_LEAST_VOTES = 6
"""Frames in which one segment covers both, at the least, for two tracks to be one object (0.4 s at 15 Hz). Larger means
that parts are published as objects for longer, smaller that objects which touch are lost."""
_OVER = 1.5
"""... and over the frames in which they were apart. Larger means that what was two for long stays two."""


@dataclass
class Votes:
    """Attributes: one, two: frames in which a pair had one segment, and in which it had two."""

    one: float
    two: float


class OneOrTwo:
    """The votes for every pair of tracks of which one segment has covered both."""

    def __init__(self) -> None:
        self._votes: dict[tuple[int, int], Votes] = {}

    def covered(self, a: Track, b: Track) -> None:
        """One segment covers both in this frame. Until the first such frame they were seen apart."""
        votes = self._votes.setdefault(_pair(a, b), Votes(0.0, float(min(a.hits, b.hits))))
        votes.one += 1.0

    def apart(self, seen: dict[int, Track]) -> None:
        """The tracks that have segments of their own in this frame, by ``Track.key``."""
        for (one, other), votes in self._votes.items():
            if one in seen and other in seen:
                votes.two += 1.0

    def are_one(self, a: Track, b: Track) -> bool:
        """Whether two tracks are of one object: never when one of them has moved without the other."""
        votes = self._votes.get(_pair(a, b))
        if votes is None or a.motion.moved != b.motion.moved:
            return False
        return votes.one >= max(_LEAST_VOTES, _OVER * votes.two)

    def forget(self, tracks: list[Track]) -> None:
        """Keep only pairs of these tracks."""
        keys = {t.key for t in tracks}
        self._votes = {pair: v for pair, v in self._votes.items() if keys.issuperset(pair)}


def _pair(a: Track, b: Track) -> tuple[int, int]:
    return (min(a.key, b.key), max(a.key, b.key))
