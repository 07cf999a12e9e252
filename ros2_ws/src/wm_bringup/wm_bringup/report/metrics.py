"""Latencies and rates of a recorded run: before the request, and while futures were computed on the same cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def latency_figures(stamps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and 95th percentile [s] from camera to graph, graphs and camera frames per second, and simulated seconds
    per second; None where there are too few messages.

    Args:
        stamps: as in the recorder's latency file: ``stamp_ns``, and wall-clock arrivals ``from_ns`` and ``to_ns``.
    """
    both = [(s["from_ns"], s["to_ns"]) for s in stamps if s["from_ns"] is not None and s["to_ns"] is not None]
    seconds = np.array([1e-9 * (to - begin) for begin, to in both])
    begun = sorted((s["from_ns"], s["stamp_ns"]) for s in stamps if s["from_ns"] is not None)
    wall_s = 1e-9 * (begun[-1][0] - begun[0][0]) if len(begun) > 1 else 0.0

    def rate(arrivals: list[int]) -> float | None:
        span_s = 1e-9 * (max(arrivals) - min(arrivals)) if arrivals else 0.0
        return (len(arrivals) - 1) / span_s if span_s > 0.0 else None

    return {
        "count": len(both),
        "median_s": float(np.median(seconds)) if len(seconds) else None,
        "p95_s": float(np.quantile(seconds, 0.95)) if len(seconds) else None,
        "rate_to_hz": rate([to for _, to in both]),
        "rate_from_hz": rate([begin for begin, _ in begun]),
        "real_time_factor": 1e-9 * (begun[-1][1] - begun[0][1]) / wall_s if wall_s > 0.0 else None,
    }


def split_latency(summary: Mapping[str, Any], request_wall_ns: int) -> dict[str, Any]:
    """The recorder's summary with figures of the time before a request, and in ``while_imagining`` of that after.

    Before, all processes run and imagination is idle; after, it competes for the same cores.

    Args:
        summary: of the recorder's latency file.
        request_wall_ns: wall-clock time of the request [ns].
    """
    before: list[Mapping[str, Any]] = []
    after: list[Mapping[str, Any]] = []
    for stamp in summary["stamps"]:
        # A graph that came after the request competed with it, whenever its frame was taken.
        arrived = max(stamp["from_ns"] or 0, stamp["to_ns"] or 0)
        (before if arrived <= request_wall_ns else after).append(stamp)
    kept = {key: value for key, value in summary.items() if key != "stamps"}
    return {**kept, **latency_figures(before), "while_imagining": latency_figures(after)}
