"""What the soak counts with: growth and its certainty, what a process holds, and what the allocator gives back."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.soak import __main__ as soak
from benchmarks.soak import trend
from benchmarks.soak.usage import Usage, usage_of
from wm_core.scene_graph import Shape
from wm_dynamics.contact_step import body_tables
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef

ROOT = Path(__file__).resolve().parents[2]
LOOKED_AT = """
import json, os, threading, numpy as np
from benchmarks.soak.usage import usage_of
before, block = usage_of(os.getpid()), np.ones(50_000_000, np.uint8)
with open(os.devnull):
    thread_may_end = threading.Event()
    thread = threading.Thread(target=thread_may_end.wait)
    thread.start()
    after = usage_of(os.getpid())
    thread_may_end.set()
    thread.join()
print(json.dumps([getattr(after, n) - getattr(before, n)
                  for n in ("rss_bytes", "anonymous_bytes", "descriptors", "threads")]))
"""
"""Prints what 50 MB, a file and a thread add to a process: bytes resident, bytes anonymous, descriptors, threads."""
HELD = """
import gc, json, numpy as np
from wm_ros.nodes.memory import heap
gc.disable()
before = heap()
if before is None:
    print("null")
else:
    large, small = np.ones(40_000_000, np.uint8), [np.ones(50_000, np.uint8) for _ in range(400)]
    objects = [(k,) for k in range(10_000)]
    held = heap()
    del large, small, objects
    after = heap()
    print(json.dumps([held.used_bytes - before.used_bytes, held.python_blocks - before.python_blocks,
                      after.used_bytes - before.used_bytes, after.free_bytes]))
"""
"""Prints what is held more, in bytes and blocks, what is left of it once freed, and what is free then."""
LEAK = """
import sys, threading, numpy as np
from wm_ros.nodes.memory import Trimmer, share_arenas
if sys.argv[1] == "shared":
    assert share_arenas()
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
trimmer, kept, start = Trimmer(0.0), [], rss()
def work():
    # Some 40 MB in blocks that glibc would not map, with a small one above them that stays.
    blocks = [np.ones(100_000, np.uint8) for _ in range(400)]
    kept.append(np.ones(100, np.uint8))
    del blocks
threads, gate = [], threading.Event()
for _ in range(8):  # all alive, so that each has an arena of its own
    threads.append(threading.Thread(target=lambda: (work(), gate.wait())))
    threads[-1].start()
while len(kept) < 8:
    pass
if sys.argv[1] == "shared":
    trimmer.trim()
print(rss() - start)
gate.set()
"""


@given(st.floats(-100.0, 100.0), st.floats(0.0, 500.0), st.integers(3, 400))
@settings(max_examples=50, deadline=None)
def test_a_straight_line_is_found(slope: float, offset: float, count: int) -> None:
    times = np.linspace(0.0, 1800.0, count)
    found = trend.fit(times, offset + slope * times / 3600.0)
    assert found.per_hour == pytest.approx(slope, abs=1e-6) and found.margin < 1e-3


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Samples that hang together, as memory does: a sum of small steps that is pulled back."""
    rng, inside, times = np.random.default_rng(1), 0, np.arange(1800.0)
    for _ in range(200):
        noise, value = np.empty(len(times)), 0.0
        for k, step in enumerate(rng.normal(0.0, 1.0, len(times))):
            value = 0.97 * value + step
            noise[k] = value
        found = trend.fit(times, 30.0 * times / 3600.0 + noise)
        inside += found.low <= 30.0 <= found.high
    assert 170 <= inside <= 200


def test_verdicts() -> None:
    assert trend.Trend(30.0, 5.0).verdict(20.0) == "grows"
    assert trend.Trend(5.0, 5.0).verdict(20.0) == "steady"
    assert trend.Trend(18.0, 5.0).verdict(20.0) == "undecided"
    assert trend.fit([0.0, 1.0], [1.0, 2.0]).verdict(20.0) == "undecided", "two samples say nothing"
    with pytest.raises(ValueError, match="shapes"):
        trend.fit([0.0, 1.0], [1.0])


def test_a_short_run_warms_up_and_is_no_verdict() -> None:
    grows = trend.Trend(300.0, 50.0)
    assert soak.verdict(grows, 240.0, 20.0) == "undecided" and soak.verdict(grows, 1800.0, 20.0) == "grows"


def test_what_a_process_holds() -> None:
    """In a process of its own: here, garbage of other tests may be freed between two looks."""
    command = [sys.executable, "-c", LOOKED_AT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    resident, anonymous, descriptors, threads = json.loads(done.stdout)
    assert resident > 45_000_000 and anonymous > 45_000_000
    assert descriptors == 1 and threads == 1
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        usage_of(child.pid)


def test_what_the_allocators_hold() -> None:
    """In a process of its own: here, garbage of other tests may be freed between two looks."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() == "null":
        pytest.skip("glibc is older than 2.33, or another C library")
    held, blocks, after, free = json.loads(done.stdout)
    assert held == pytest.approx(60e6, rel=0.05) and blocks >= 10_000
    assert after < 5e6 and free > 0


def test_growth_of_the_heap_is_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    run = soak.Soak(argparse.Namespace(minutes=30.0, warm_up=None, limit=20.0))
    for t in np.arange(0.0, 1800.0, 5.0):
        usage = Usage(int(500e6 + 40e6 * t / 3600.0), int(300e6), 10, 5, t)
        run.samples.setdefault("imagination", []).append((t, usage))
        message = DiagnosticArray()
        message.status.append(DiagnosticStatus(name="imagination: memory"))
        message.status[0].values = [
            KeyValue(key="used_mb", value=f"{100.0 + 3.0 * t / 3600.0:.3f}"), KeyValue(key="python_blocks", value="7")
        ]  # fmt: skip
        message.status.append(DiagnosticStatus(name="imagination: state"))
        monkeypatch.setattr(soak.time, "monotonic", lambda t=t: t)
        run.on_diagnostics(message)
    row = run.rows()["imagination"]
    assert row["rss_mb_h"] == pytest.approx(40.0, rel=1e-6) and row["verdict"] == "grows"
    assert row["used_mb_h"] == pytest.approx(3.0, rel=1e-3) and row["python_blocks_h"] == pytest.approx(0.0, abs=1e-6)
    run.samples["camera"] = run.samples["imagination"]
    rows = run.rows()
    assert rows["camera"]["used_mb_h"] is None and soak.table_of(rows, 20.0).row_count == 2


@pytest.mark.slow
def test_freed_memory_goes_back_however_many_threads_used_it() -> None:
    """Eight threads that each free 40 MB."""

    def grown(how: str) -> float:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
        done = subprocess.run([sys.executable, "-c", LEAK, how], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    kept, given_back = grown("own"), grown("shared")
    print(f"kept by glibc as it is: {kept:.0f} MB, with shared arenas and trimming: {given_back:.0f} MB")
    assert given_back < 15.0 < kept


def test_settings_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    from wm_ros.nodes import memory

    class Refusing:
        def mallopt(self, *_: int) -> int:
            raise AssertionError("changed")

    monkeypatch.setattr(memory, "_glibc", Refusing)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not memory.share_arenas()
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    assert not memory.share_arenas() and not memory.Trimmer(0.0).trim()


def test_trimming_waits_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from wm_ros.nodes import memory

    if memory._glibc() is None:
        pytest.skip("another C library than glibc")
    times = iter((100.0, 100.0, 101.9, 102.1, 103.0, 104.0, 104.2))
    monkeypatch.setattr(memory.time, "monotonic", lambda: next(times))
    trimmer = memory.Trimmer(2.0)
    assert [trimmer.trim() for _ in range(6)] == [False, False, True, False, False, True]


def test_a_shape_is_known_again_in_another_color_and_shapes_that_never_come_again_are_forgotten() -> None:
    def box(size: float, color: tuple[float, ...]) -> BodyDef:
        return BodyDef((GeomDef(Shape.BOX, np.full(3, size), color=color),))

    body_tables._shape.cache_clear()
    first = body_tables.body_shape(box(0.05, (0.1, 0.2, 0.3, 1.0)))
    assert body_tables.body_shape(box(0.05, (0.3, 0.2, 0.1, 1.0))) is first
    assert body_tables.body_shape(box(0.06, (0.1, 0.2, 0.3, 1.0))) is not first
    for k in range(body_tables.KEPT_SHAPES + 5):
        body_tables.body_shape(box(0.07 + 1e-5 * k, (0.0, 0.0, 0.0, 1.0)))
    assert body_tables._shape.cache_info().currsize == body_tables.KEPT_SHAPES
