"""Time stamps in nanoseconds, and pairing of color and depth images by stamp; independent of nodes."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

NANOSECONDS = 1_000_000_000
"""In a second."""


def seconds_to_ns(seconds: float) -> int:
    """Nanoseconds of a duration in seconds."""
    return round(seconds * NANOSECONDS)


def ns_to_seconds(nanoseconds: int) -> float:
    """Seconds of a duration in nanoseconds."""
    return nanoseconds / NANOSECONDS


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> Any:
    """builtin_interfaces/Time of nanoseconds.

    Raises:
        ValueError: negative, which ROS cannot carry.
    """
    from builtin_interfaces.msg import Time

    if nanoseconds < 0:
        raise ValueError(f"stamp: got {nanoseconds} ns, expected >= 0")
    seconds, rest = divmod(int(nanoseconds), NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


@dataclass(frozen=True)
class Pair:
    """A color and a depth item of nearly the same instant.

    Attributes:
        stamp_ns, depth_stamp_ns: stamps of the color and of the depth item [ns].
        color, depth: the items.
        restarted: whether this is the first pair after time went backwards.
    """

    stamp_ns: int
    depth_stamp_ns: int
    color: Any
    depth: Any
    restarted: bool = False


@dataclass
class _Stream:
    items: deque[tuple[int, Any]] = field(default_factory=deque)
    newest_ns: int = -1
    late_run: list[int] = field(default_factory=list)


class ApproximateSynchronizer:
    """Pairs color and depth by stamp, as they come.

    An item is paired at once with the nearest unpaired one of the other stream, if they differ by at most
    ``max_difference_ns``; choose that below half the frame period, so that the nearest is the right one. Memory is
    bounded by ``capacity`` items per stream. Not thread-safe: call it from one callback group.

    A stamp not newer than the newest of its stream is dropped as ``out_of_order``. When it is older by more than
    ``restart_ns``, or ``restart_run`` such stamps follow each other in ascending order, time has gone backwards (a
    recording that loops, a simulation that was reset): both queues are emptied and the next pair is ``restarted``.

    Attributes:
        counts: ``unsynchronised_color``, ``unsynchronised_depth``, ``out_of_order``, ``restarts``, ``pairs``.
    """

    def __init__(
        self,
        max_difference_ns: int,
        capacity: int = 8,
        restart_ns: int = NANOSECONDS // 2,
        restart_run: int = 5,
    ) -> None:
        if max_difference_ns < 0 or capacity < 1:
            raise ValueError(
                f"max_difference_ns, capacity: got {max_difference_ns}, {capacity}, expected >= 0 and >= 1"
            )
        self.max_difference_ns = max_difference_ns
        self.capacity = capacity
        self.restart_ns = restart_ns
        self.restart_run = restart_run
        self.counts: Counter[str] = Counter()
        self._streams = {"color": _Stream(), "depth": _Stream()}
        self._restarted = False

    def __len__(self) -> int:
        """Items held at present."""
        return sum(len(s.items) for s in self._streams.values())

    def reset(self) -> None:
        """Forget all items and stamps; counts stay."""
        self._streams = {"color": _Stream(), "depth": _Stream()}

    def add_color(self, stamp_ns: int, item: Any) -> Pair | None:
        """Add a color item; returns the pair it completes, if any."""
        return self._add("color", "depth", stamp_ns, item)

    def add_depth(self, stamp_ns: int, item: Any) -> Pair | None:
        """Add a depth item; returns the pair it completes, if any."""
        return self._add("depth", "color", stamp_ns, item)

    def _add(self, name: str, other_name: str, stamp_ns: int, item: Any) -> Pair | None:
        stream = self._streams[name]
        if stamp_ns <= stream.newest_ns:
            late = stream.late_run
            late[:] = [*late, stamp_ns] if late and stamp_ns > late[-1] else [stamp_ns]
            if stream.newest_ns - stamp_ns <= self.restart_ns and len(late) < self.restart_run:
                self.counts["out_of_order"] += 1
                return None
            self._restart(stamp_ns)
            stream = self._streams[name]
        stream.late_run.clear()
        stream.newest_ns = stamp_ns

        other = self._streams[other_name]
        best = min(other.items, key=lambda entry: abs(entry[0] - stamp_ns), default=None)
        if best is None or abs(best[0] - stamp_ns) > self.max_difference_ns:
            stream.items.append((stamp_ns, item))
            if len(stream.items) > self.capacity:
                stream.items.popleft()
                self.counts[f"unsynchronised_{name}"] += 1
            return None
        # What is older than the pair can no longer be paired in order.
        self._discard_until(other_name, best[0])
        self._discard_until(name, stamp_ns)
        self.counts["pairs"] += 1
        restarted, self._restarted = self._restarted, False
        if name == "color":
            return Pair(stamp_ns, best[0], item, best[1], restarted)
        return Pair(best[0], stamp_ns, best[1], item, restarted)

    def _restart(self, stamp_ns: int) -> None:
        # The other stream may have jumped first: keep what it holds of the new time.
        old_newest = max(s.newest_ns for s in self._streams.values())
        kept: dict[str, _Stream] = {}
        for name, stream in self._streams.items():
            fresh = _Stream()
            if stream.newest_ns < old_newest and abs(stream.newest_ns - stamp_ns) <= self.restart_ns:
                fresh.items = deque(e for e in stream.items if abs(e[0] - stamp_ns) <= self.restart_ns)
                fresh.newest_ns = stream.newest_ns
            else:
                self.counts[f"unsynchronised_{name}"] += len(stream.items)
            kept[name] = fresh
        self._streams = kept
        if not self._restarted:
            self.counts["restarts"] += 1
        self._restarted = True

    def _discard_until(self, name: str, stamp_ns: int) -> None:
        items = self._streams[name].items
        while items and items[0][0] <= stamp_ns:
            if items.popleft()[0] < stamp_ns:
                self.counts[f"unsynchronised_{name}"] += 1
