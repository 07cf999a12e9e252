"""When a finding is said: once per cause, with a reminder, and when it is over. The clock is the test's own."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wm_core.health.findings import Announcer, Finding, Severity, worst

WARN = Finding("far", Severity.WARN, "all is far", "something near", "move")
ERROR = Finding("silent", Severity.ERROR, "nothing comes", run="start it")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_finding_is_a_sentence():
    assert str(WARN) == "far: all is far; expected something near; move"
    assert ERROR.text == "nothing comes; start it"
    assert worst([WARN, ERROR]) == Severity.ERROR and worst([]) == Severity.OK


def test_once_then_a_reminder_then_over():
    clock = Clock()
    announcer = Announcer(hold_s=0.9, remind_s=60.0, settle_s=3.0, clock=clock)
    said = {}
    for second in range(200):
        clock.now = 100.0 + second
        lines = announcer.update([ERROR] if second < 130 else [])
        if lines:
            said[second] = lines
    assert sorted(said) == [1, 61, 121, 132]
    assert said[1] == [(Severity.ERROR, "silent: nothing comes; start it")]
    assert said[61] == [(Severity.ERROR, "silent: nothing comes; start it (still so after 61 s)")]
    assert said[132] == [(Severity.OK, "silent: over")]


def test_a_moment_is_not_said():
    clock = Clock()
    announcer = Announcer(hold_s=0.9, clock=clock)
    assert announcer.update([WARN]) == []
    clock.now += 0.5
    assert announcer.update([]) == []
    clock.now += 5.0
    assert announcer.update([WARN]) == [] and announcer.update([]) == []


def test_within_five_seconds_of_standing_idle():
    """Two seconds of silence, a look each second, and one look to be sure."""
    from wm_core.health.inputs import SILENT_S

    announcer = Announcer(clock=(clock := Clock()))
    spoken = None
    for look in range(10):
        clock.now = 100.0 + look + 0.99
        silent = clock.now - 100.0 > SILENT_S
        if announcer.update([ERROR] if silent else []) and spoken is None:
            spoken = clock.now - 100.0
    assert spoken is not None and spoken <= 5.0


def test_cleared_it_is_said_anew():
    announcer = Announcer(hold_s=0.0, clock=(clock := Clock()))
    assert announcer.update([WARN])
    announcer.clear()
    clock.now += 1.0
    assert announcer.update([WARN])


@given(st.lists(st.tuples(st.floats(0.1, 3.0), st.booleans(), st.booleans()), max_size=150))
def test_a_flapping_cause_does_not_fill_the_console(steps: list[tuple[float, bool, bool]]):
    announcer = Announcer(hold_s=0.9, remind_s=60.0, settle_s=3.0, gap_s=10.0, clock=(clock := Clock()))
    times: dict[str, list[float]] = {"far": [], "silent": []}
    standing_since: dict[str, float | None] = {"far": None, "silent": None}
    for step, far, silent in steps:
        clock.now += step
        present = [f for f, holds in ((WARN, far), (ERROR, silent)) if holds]
        for finding in (WARN, ERROR):
            if finding in present and standing_since[finding.cause] is None:
                standing_since[finding.cause] = clock.now
            elif finding not in present:
                standing_since[finding.cause] = None
        for severity, line in announcer.update(present):
            cause = line.partition(":")[0]
            if severity == Severity.OK:
                assert times[cause], "over, but never said"
                assert all(f.cause != cause for f in present)
                continue
            times[cause].append(clock.now)
            assert any(f.cause == cause for f in present), "said, but not there"
        for cause, since in standing_since.items():
            if since is not None and clock.now - since >= 10.0 + 0.9 + 3.0:
                assert times[cause], "stands and was never said"
    for said in times.values():
        assert all(b - a >= 10.0 - 1e-6 for a, b in pairwise(said))
