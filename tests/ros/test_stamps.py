"""Stamps, and pairs of color and depth."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm_ros.stamps import ApproximateSynchronizer, ns_to_stamp, stamp_to_ns

S = 1_000_000_000


@given(st.integers(0, 2**31 * S - 1))
def test_stamps_round_trip(nanoseconds):
    assert stamp_to_ns(ns_to_stamp(nanoseconds)) == nanoseconds


def test_negative_stamps_are_refused():
    with pytest.raises(ValueError, match="-1"):
        ns_to_stamp(-1)


def pairs_of(events: list[tuple[str, int]], difference_ns: int = 10, **options):
    synchronizer = ApproximateSynchronizer(difference_ns, **options)
    found = [getattr(synchronizer, f"add_{kind}")(stamp, stamp) for kind, stamp in events]
    return synchronizer, [p for p in found if p is not None]


def test_pairs_nearest_within_the_difference():
    synchronizer, pairs = pairs_of([("color", 100), ("depth", 111), ("depth", 205), ("color", 200)])
    assert [(p.stamp_ns, p.depth_stamp_ns, p.color, p.depth) for p in pairs] == [(200, 205, 200, 205)]
    assert synchronizer.counts["unsynchronised_color"] == 1 and synchronizer.counts["unsynchronised_depth"] == 1


@given(
    st.lists(st.tuples(st.sampled_from(["color", "depth"]), st.integers(0, 400)), max_size=60),
    st.integers(0, 30),
    st.integers(1, 6),
)
def test_nothing_is_lost_uncounted_and_memory_is_bounded(events, difference, capacity):
    synchronizer = ApproximateSynchronizer(difference, capacity)
    pairs = []
    for kind, stamp in events:
        pair = getattr(synchronizer, f"add_{kind}")(stamp, stamp)
        assert len(synchronizer) <= 2 * capacity
        if pair is not None:
            pairs.append(pair)
            assert abs(pair.stamp_ns - pair.depth_stamp_ns) <= difference
            assert (pair.color, pair.depth) == (pair.stamp_ns, pair.depth_stamp_ns)
    counts = synchronizer.counts
    dropped = counts["unsynchronised_color"] + counts["unsynchronised_depth"] + counts["out_of_order"]
    assert len(events) == 2 * len(pairs) + dropped + len(synchronizer)
    for before, after in itertools.pairwise(pairs):
        assert after.stamp_ns > before.stamp_ns or after.restarted


def test_time_set_back_restarts_once():
    events = [(k, s) for s in (10 * S, 11 * S, 3 * S, 4 * S) for k in ("color", "depth")]
    synchronizer, pairs = pairs_of(events)
    assert [p.restarted for p in pairs] == [False, False, True, False]
    assert synchronizer.counts["restarts"] == 1 and synchronizer.counts["out_of_order"] == 0


def test_a_short_loop_is_a_restart_after_a_few_frames():
    events = [(k, s * S // 100) for s in [*range(30), *range(30)] for k in ("color", "depth")]
    synchronizer, pairs = pairs_of(events)
    assert synchronizer.counts["restarts"] == 1
    assert len(pairs) >= 30 + 24 and sum(p.restarted for p in pairs) == 1


def test_one_late_item_is_out_of_order():
    synchronizer, pairs = pairs_of([("color", 100), ("depth", 100), ("color", 90), ("color", 200), ("depth", 200)])
    assert len(pairs) == 2 and synchronizer.counts["out_of_order"] == 1 and not synchronizer.counts["restarts"]


def test_synchronizer_refuses_nonsense():
    with pytest.raises(ValueError, match="got -1, 8"):
        ApproximateSynchronizer(-1)
