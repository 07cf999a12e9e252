"""Faults of the inputs, as data, and when to report them.

The checks (``inputs``, ``depth``, ``depth_unit``, ``graph``) return findings; nodes and ``wm doctor`` print the same
text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus. ERROR: there is no output; WARN: the output is worse than it could be, or
    wrong."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One fault of the inputs.

    Attributes:
        cause: short name, which stays the same while the fault lasts, whatever its figures.
        severity: WARN or ERROR.
        found: the state found, with topic and figures.
        expected: the state expected; empty where ``found`` implies it.
        run: what to run, set or do.
    """

    cause: str
    severity: Severity
    found: str
    expected: str = ""
    run: str = ""

    @property
    def text(self) -> str:
        """The sentence, without the cause."""
        parts = [self.found, f"expected {self.expected}" if self.expected else "", self.run]
        return "; ".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.cause}: {self.text}"


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity among them; OK where there is none."""
    return max((f.severity for f in findings), default=Severity.OK)


@dataclass
class _Standing:
    """State of one cause: since when, when seen last, when reported last [s, announcer's clock]."""

    since_s: float
    seen_s: float
    said_s: float | None = None


class Announcer:
    """Reports each cause once, again after ``remind_s`` while it lasts, and once when it is over.

    Call ``update`` with all findings that hold now, about once a second. A cause is reported when it has lasted for
    ``hold_s``, so that a moment at start is not, and is over when it has been absent for ``settle_s``. One that comes
    and goes is reported at most every ``gap_s``. All times in [s]. Not thread-safe.
    """

    def __init__(
        self,
        hold_s: float = 0.9,
        remind_s: float = 60.0,
        settle_s: float = 3.0,
        gap_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hold_s, self.remind_s, self.settle_s, self.gap_s = hold_s, remind_s, settle_s, gap_s
        self._clock = clock
        self._standing: dict[str, _Standing] = {}
        self._last_said: dict[str, float] = {}

    def update(self, findings: Sequence[Finding]) -> list[tuple[Severity, str]]:
        """The lines to be printed now, with their severity; OK for causes that are over."""
        now = self._clock()
        lines: list[tuple[Severity, str]] = []
        for finding in findings:
            state = self._standing.setdefault(finding.cause, _Standing(now, now))
            state.seen_s = now
            if now - state.since_s < self.hold_s:
                continue
            if state.said_s is None:
                if now - self._last_said.get(finding.cause, float("-inf")) < self.gap_s:
                    continue
                lines.append((finding.severity, str(finding)))
            elif now - state.said_s >= self.remind_s:
                lines.append((finding.severity, f"{finding} (still so after {now - state.since_s:.0f} s)"))
            else:
                continue
            state.said_s = self._last_said[finding.cause] = now
        for cause, state in list(self._standing.items()):
            away_s = now - state.seen_s
            if away_s > 0.0 and state.said_s is None:
                del self._standing[cause]  # gone before it was reported
            elif away_s >= self.settle_s:
                del self._standing[cause]
                lines.append((Severity.OK, f"{cause}: over"))
        self._last_said = {c: t for c, t in self._last_said.items() if c in self._standing or now - t < self.gap_s}
        return lines

    def clear(self) -> None:
        """Forget all causes, so that those which still hold are reported again."""
        self._standing.clear()
        self._last_said.clear()
