"""How long each camera frame took to become a scene graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class LatencyLog:
    """Wall-clock arrival, by stamp, of what begins a measurement and of what ends it."""

    begin_topic: str
    end_topic: str
    begun: dict[int, int] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)

    def add(self, topic: str, stamp_ns: int, arrival_ns: int) -> None:
        """Take note of a message; others than the two topics are ignored."""
        if topic == self.begin_topic:
            self.begun.setdefault(stamp_ns, arrival_ns)
        elif topic == self.end_topic:
            self.ended.setdefault(stamp_ns, arrival_ns)

    def summary(self) -> dict[str, Any]:
        """Median, 95th percentile and maximum [s], rates [1/s] (None: not measured), and the arrivals [ns]."""
        pairs = [(self.begun[s], self.ended[s]) for s in sorted(self.begun.keys() & self.ended.keys())]
        seconds = np.array([(end - begin) * 1e-9 for begin, end in pairs])

        def rate(arrivals: Mapping[int, int]) -> float | None:
            times = np.sort(np.fromiter(arrivals.values(), dtype=np.int64))
            return float((len(times) - 1) / ((times[-1] - times[0]) * 1e-9)) if np.ptp(times[:]) > 0 else None

        def quantile(q: float) -> float | None:
            return float(np.quantile(seconds, q)) if len(seconds) else None

        return {
            "from": self.begin_topic,
            "to": self.end_topic,
            "count_from": len(self.begun),
            "count_to": len(self.ended),
            "count_matched": len(pairs),
            "median_s": quantile(0.5),
            "p95_s": quantile(0.95),
            "max_s": quantile(1.0),
            "rate_from_hz": rate(self.begun) if len(self.begun) > 1 else None,
            "rate_to_hz": rate(self.ended) if len(self.ended) > 1 else None,
            "stamps": [
                {"stamp_ns": stamp, "from_ns": self.begun.get(stamp), "to_ns": self.ended.get(stamp)}
                for stamp in sorted(self.begun.keys() | self.ended.keys())
            ],
        }
