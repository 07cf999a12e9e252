"""The health of a node: rates, ages, latencies, counters. Published on /diagnostics at 1 Hz.

The collector is plain Python, thread-safe, and has its clock as an argument, so that it is tested without ROS. Latency
and rates are in wall-clock time, also while simulated time runs slow or fast.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np


class Level(IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Status:
    """One status of /diagnostics.

    Attributes:
        name: without the node's. level: OK, WARN or ERROR.
        message: what is wrong, and what to do about it.
        values: further figures, by name.
    """

    name: str
    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)


class RateMonitor:
    """Rate of an event, and time since the last one.

    Attributes:
        minimum_hz: rate below which it warns; max_age_s: silence from which it is an error [s].
        advice: what to do then. total: count so far.
    """

    def __init__(self, name: str, minimum_hz: float, max_age_s: float, advice: str, clock: Callable[[], float]) -> None:
        self.name, self.minimum_hz, self.max_age_s, self.advice = name, minimum_hz, max_age_s, advice
        self.total = 0
        self._clock = clock
        self._started = clock()
        self._times: deque[float] = deque(maxlen=200)
        self._lock = threading.Lock()

    def tick(self) -> None:
        """It happened now."""
        with self._lock:
            self.total += 1
            self._times.append(self._clock())

    def rate_hz(self, window_s: float = 5.0) -> float:
        """Events per second over the last ``window_s`` seconds; 0 when there were fewer than two."""
        now = self._clock()
        with self._lock:
            recent = [t for t in self._times if now - t <= window_s]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    def age_s(self) -> float:
        """Seconds since it last happened, or since the monitor was made if it never did."""
        with self._lock:
            return self._clock() - (self._times[-1] if self._times else self._started)

    def status(self) -> Status:
        """OK, WARN when too slow, ERROR when silent for longer than ``max_age_s``."""
        rate, age = self.rate_hz(), self.age_s()
        values = {"rate_hz": f"{rate:.2f}", "age_s": f"{age:.3f}", "total": str(self.total)}
        if age > self.max_age_s:
            what = "nothing yet" if not self.total else f"nothing for {age:.1f} s"
            return Status(self.name, Level.ERROR, f"{what}; {self.advice}" if self.advice else what, values)
        if self.minimum_hz > 0.0 and self.total > 1 and rate < self.minimum_hz:
            what = f"{rate:.1f} Hz, expected at least {self.minimum_hz:g} Hz"
            return Status(self.name, Level.WARN, f"{what}; {self.advice}" if self.advice else what, values)
        return Status(self.name, Level.OK, f"{rate:.1f} Hz", values)


class LatencyMonitor:
    """Durations: median, 95th percentile and maximum of the last ``window``.

    Attributes:
        warn_s: 95th percentile above which it warns [s]; advice: what to do then. total: count so far.
    """

    def __init__(self, name: str, warn_s: float, advice: str, window: int) -> None:
        self.name, self.warn_s, self.advice = name, warn_s, advice
        self.total = 0
        self._durations: deque[float] = deque(maxlen=window)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """One duration [s]."""
        with self._lock:
            self.total += 1
            self._durations.append(float(seconds))

    def percentiles(self) -> tuple[float, float, float]:
        """Median, 95th percentile, maximum [s]; NaN before the first."""
        with self._lock:
            durations = np.array(self._durations)
        if not len(durations):
            return float("nan"), float("nan"), float("nan")
        median, p95 = np.percentile(durations, [50, 95])
        return float(median), float(p95), float(durations.max())

    def status(self) -> Status:
        """WARN when the 95th percentile exceeds ``warn_s``."""
        median, p95, largest = self.percentiles()
        values = {
            "median_s": f"{median:.4f}",
            "p95_s": f"{p95:.4f}",
            "max_s": f"{largest:.4f}",
            "total": str(self.total),
        }
        if p95 > self.warn_s:
            what = f"p95 {1e3 * p95:.0f} ms, expected below {1e3 * self.warn_s:.0f} ms"
            return Status(self.name, Level.WARN, f"{what}; {self.advice}" if self.advice else what, values)
        message = "nothing measured yet" if not self.total else f"median {1e3 * median:.1f} ms, p95 {1e3 * p95:.1f} ms"
        return Status(self.name, Level.OK, message, values)


class Counter:
    """Counter of a fault; it warns while the fault lasts.

    Attributes:
        advice: what to do. level: of its status. total: count so far. detail: of the last one.
    """

    def __init__(self, name: str, advice: str, level: Level, clock: Callable[[], float]) -> None:
        self.name, self.advice, self.level = name, advice, level
        self.total = 0
        self.detail = ""
        self._clock = clock
        self._last = float("-inf")
        self._lock = threading.Lock()

    def add(self, count: int = 1, detail: str = "") -> None:
        """Count it; ``detail``: what was found and what was expected."""
        if count <= 0:
            return
        with self._lock:
            self.total += count
            self._last = self._clock()
            self.detail = detail or self.detail

    def raise_to(self, total: int, detail: str = "") -> None:
        """Set a larger total, which is counted elsewhere."""
        self.add(total - self.total, detail)

    def age_s(self) -> float:
        """Seconds since it last happened; infinite if never."""
        with self._lock:
            return self._clock() - self._last


class Diagnostics:
    """Collects the monitors of one node.

    ``rate``, ``latency`` and ``counter`` create a monitor on first use and return the same one afterwards.
    """

    def __init__(self, node_name: str, recent_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.node_name = node_name
        self.recent_s = recent_s
        self._clock = clock
        self._lock = threading.Lock()
        self._rates: dict[str, RateMonitor] = {}
        self._latencies: dict[str, LatencyMonitor] = {}
        self._counters: dict[str, Counter] = {}
        self._statuses: dict[str, Status] = {}

    def rate(
        self, name: str, *, minimum_hz: float = 0.0, max_age_s: float = float("inf"), advice: str = ""
    ) -> RateMonitor:
        """Monitor of how often something happens."""
        with self._lock:
            if name not in self._rates:
                self._rates[name] = RateMonitor(name, minimum_hz, max_age_s, advice, self._clock)
            return self._rates[name]

    def latency(
        self, name: str, *, warn_s: float = float("inf"), advice: str = "", window: int = 300
    ) -> LatencyMonitor:
        """Monitor of durations."""
        with self._lock:
            if name not in self._latencies:
                self._latencies[name] = LatencyMonitor(name, warn_s, advice, window)
            return self._latencies[name]

    def counter(self, name: str, *, advice: str = "", level: Level = Level.WARN) -> Counter:
        """Counter of a fault; ``advice``: what to do about it.

        With level OK it is merely counted.
        """
        with self._lock:
            if name not in self._counters:
                self._counters[name] = Counter(name, advice, level, self._clock)
            counter = self._counters[name]
            counter.advice = counter.advice or advice
            return counter

    def set_status(self, name: str, level: Level, message: str, **values: object) -> None:
        """Set a status, kept until it is set again (runtime, model, state)."""
        with self._lock:
            self._statuses[name] = Status(name, level, message, {k: str(v) for k, v in values.items()})

    def clear_rates(self) -> None:
        """Drop the rate monitors, so that an inactive node reports no silence."""
        with self._lock:
            self._rates.clear()

    def snapshot(self) -> list[Status]:
        """All statuses now; counters together in one called ``counters``."""
        with self._lock:
            rates, latencies = list(self._rates.values()), list(self._latencies.values())
            counters, statuses = list(self._counters.values()), list(self._statuses.values())
        result = [*statuses, *(r.status() for r in rates), *(m.status() for m in latencies)]
        alarming = [c for c in counters if c.level > Level.OK and c.age_s() <= self.recent_s]
        recent = sorted(alarming, key=lambda c: (-c.level, c.age_s()))
        level = max((c.level for c in recent), default=Level.OK)
        texts = [f"{c.name}: {c.detail or 'happened'}" + (f"; {c.advice}" if c.advice else "") for c in recent[:3]]
        values = {c.name: str(c.total) for c in counters}
        result.append(Status("counters", level, " | ".join(texts) or "nothing unusual", values))
        return result

    def to_msg(self, stamp_ns: int) -> Any:
        """diagnostic_msgs/DiagnosticArray of ``snapshot``; names are "NODE: STATUS"."""
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        from wm_ros.stamps import ns_to_stamp

        msg = DiagnosticArray()
        msg.header.stamp = ns_to_stamp(stamp_ns)
        for status in self.snapshot():
            msg.status.append(
                DiagnosticStatus(
                    level=bytes([int(status.level)]),
                    name=f"{self.node_name}: {status.name}",
                    message=status.message,
                    hardware_id="wm",
                    values=[KeyValue(key=k, value=v) for k, v in status.values.items()],
                )
            )
        return msg
