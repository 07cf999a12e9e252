"""Diagnostics: rates, latencies and counters."""

from __future__ import annotations

import pytest

from wm_ros.health.diagnostics import Diagnostics, Level

S = 1_000_000_000


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_diagnostics_say_what_is_wrong_and_what_to_do():
    clock = FakeClock()
    diagnostics = Diagnostics("node", clock=clock)
    rate = diagnostics.rate("camera", minimum_hz=5.0, max_age_s=2.0, advice="is /camera published?")
    assert rate.status().level == Level.OK
    clock.now += 3.0
    assert rate.status().level == Level.ERROR and "nothing yet; is /camera published?" in rate.status().message
    for _ in range(20):
        rate.tick()
        clock.now += 0.1
    assert rate.status().level == Level.OK and rate.rate_hz() == pytest.approx(10.0)
    for _ in range(10):
        rate.tick()
        clock.now += 0.5
    assert rate.status().level == Level.WARN and "expected at least 5 Hz" in rate.status().message
    clock.now += 5.0
    assert rate.status().level == Level.ERROR and "nothing for" in rate.status().message

    latency = diagnostics.latency("work", warn_s=0.5, advice="buy a faster one")
    assert latency.status().level == Level.OK
    for k in range(100):
        latency.add(0.1 + 0.001 * k)
    median, p95, largest = latency.percentiles()
    assert (median, p95, largest) == pytest.approx((0.1495, 0.19405, 0.199))
    for _ in range(50):
        latency.add(0.9)
    assert latency.status().level == Level.WARN and "buy a faster one" in latency.status().message

    assert diagnostics.counter("odd", advice="do this") is diagnostics.counter("odd")
    counters = diagnostics.snapshot()[-1]
    assert counters.level == Level.OK and counters.values == {"odd": "0"}
    diagnostics.counter("odd").add(2, "found x, expected y")
    diagnostics.counter("usual", level=Level.OK).add()
    counters = diagnostics.snapshot()[-1]
    assert counters.level == Level.WARN and counters.message == "odd: found x, expected y; do this"
    clock.now += 6.0
    assert diagnostics.snapshot()[-1].level == Level.OK
    msg = diagnostics.to_msg(5 * S)
    assert [s.name for s in msg.status] == ["node: camera", "node: work", "node: counters"]
    assert msg.status[0].level == b"\x02" and {v.key: v.value for v in msg.status[2].values} == {
        "odd": "2",
        "usual": "1",
    }
