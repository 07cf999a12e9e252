"""Figures of a demonstration: errors of futures, latencies, scenarios that fit a scene."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_bringup.demo.clip_choice import choose_object, in_view, shortest_way_off
from wm_bringup.demo.clip_report import presence
from wm_bringup.demo.scenarios import choose_scenarios, find_roles, timing_hypotheses, with_true_ids
from wm_bringup.report.comparison import compare, largest_difference, match_ids
from wm_bringup.report.metrics import latency_figures, split_latency
from wm_core.camera import Camera
from wm_core.intervention_checks import validate_hypotheses
from wm_core.rollout import POSITION, Rollout
from wm_core.scene_graph import SceneGraph

TIMES = np.arange(5) * 0.5
CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)


def rollout_of(paths: np.ndarray, ids: list[int], present: np.ndarray | None = None) -> Rollout:
    """A rollout of one hypothesis of paths (T, N, 3)."""
    states = np.zeros((1, 1, *paths.shape[:2], 13), np.float32)
    states[..., 6] = 1.0
    states[0, 0, :, :, POSITION] = paths
    there = np.ones((1, *paths.shape[:2]), bool) if present is None else present[None]
    return Rollout(0, "map", ("h",), TIMES, np.array(ids), states, there, "physics")


def table_scene(stamp_ns: int = 0, **changes: object) -> SceneGraph:
    """A table with a ball that rolls to a box, and two things aside; ids 1 to 5."""
    given: dict[str, object] = {
        "positions": [[0, 0, 0.73], [0, 0.4, 0.79], [0, 0, 0.80], [0.2, -0.3, 0.80], [-0.2, -0.3, 0.80]],
        "linear_velocities": [[0, 0, 0], [0, -0.5, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        "is_static": [True, False, False, False, False],
        **changes,
    }
    positions = given.pop("positions")
    extents = [[0.9, 1.2, 0.04], [0.08, 0.08, 0.08], [0.08, 0.08, 0.1], [0.07, 0.07, 0.1], [0.07, 0.07, 0.1]]
    return SceneGraph.build([1, 2, 3, 4, 5], positions, extents, stamp_ns=stamp_ns, **given)


def errors_of(offset: np.ndarray, move: np.ndarray, present: np.ndarray | None = None):
    """Comparison of two objects of which the first truly moves by ``move`` and is imagined ``offset`` off."""
    true = np.zeros((5, 2, 3))
    true[:, 0] = np.linspace(0.0, 1.0, 5)[:, None] * move
    truth = np.zeros((5, 2, 13), np.float32)
    truth[..., POSITION] = true
    imagined = true.copy()
    imagined[:, 0] += offset
    there = np.ones((5, 2), bool) if present is None else present
    rollouts = {"imagined": (rollout_of(imagined, [7, 8]), 0), "still": (rollout_of(np.zeros((5, 2, 3)), [7, 8]), 0)}
    return compare("h", rollouts, {7: 1, 8: 2}, np.array([1, 2]), truth, there, True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0.05, 2.0))
def test_a_constant_offset_is_the_error(offset: list[float], distance: float) -> None:
    shift = np.array(offset)
    errors = errors_of(shift, np.array([distance, 0.0, 0.0]))
    size = float(np.linalg.norm(shift))
    assert errors.average("imagined") == pytest.approx(size / 2, abs=1e-5)
    assert errors.final("imagined") == pytest.approx(size / 2, abs=1e-5)
    assert errors.average("imagined", moved_only=True) == pytest.approx(size, abs=1e-5)
    assert errors.final("still", moved_only=True) == pytest.approx(distance, rel=1e-4)
    assert errors.average("still", moved_only=True) == pytest.approx(distance / 2, rel=1e-4)


def test_only_times_at_which_both_exist_count() -> None:
    present = np.ones((5, 2), bool)
    present[2:, 0] = False
    errors = errors_of(np.array([0.3, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), present)
    assert np.isnan(errors.objects[0].error_m["imagined"][2:]).all()
    assert errors.final("imagined") == pytest.approx(0.0, abs=1e-6)
    assert errors.average("imagined") == pytest.approx((2 * 0.3 + 5 * 0.0) / 7, abs=1e-5)


def test_nothing_to_compare_is_not_a_number() -> None:
    errors = errors_of(np.zeros(3), np.zeros(3))
    assert not any(o.moved for o in errors.objects)
    assert math.isnan(errors.average("imagined", moved_only=True))
    assert math.isnan(errors.final("still", moved_only=True))


def test_things_are_matched_by_place() -> None:
    truth = table_scene()
    rows = np.array([0, 1, 2, 3, 4])
    perceived = SceneGraph.build(
        [10, 11, 12, 13, 14],
        truth.positions[rows] + [0.004, -0.003, 0.002],
        truth.extents,
        is_static=truth.is_static,
    )
    assert match_ids(perceived, truth) == {11: 2, 12: 3, 13: 4, 14: 5}
    assert largest_difference(truth, truth) == 0.0
    assert largest_difference(truth, perceived) == math.inf


def stamps(count: int, latency_s: float, period_s: float = 0.1, slow: float = 2.0) -> list[dict[str, int | None]]:
    """Arrivals of a world that runs ``slow`` times slower than real time; every other graph is missing."""
    return [
        {
            "stamp_ns": round(n * period_s / slow * 1e9),
            "from_ns": round(n * period_s * 1e9),
            "to_ns": None if n % 2 else round((n * period_s + latency_s) * 1e9),
        }
        for n in range(count)
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 60), st.floats(0.001, 0.5))
def test_latency_and_rates(count: int, latency_s: float) -> None:
    figures = latency_figures(stamps(count, latency_s))
    assert figures["median_s"] == pytest.approx(latency_s, abs=1e-6)
    assert figures["p95_s"] == pytest.approx(latency_s, abs=1e-6)
    assert figures["rate_from_hz"] == pytest.approx(10.0, rel=1e-3)
    assert figures["rate_to_hz"] == pytest.approx(5.0, rel=1e-3)
    assert figures["real_time_factor"] == pytest.approx(0.5, rel=1e-3)


def test_latency_is_split_at_the_question() -> None:
    summary = {"from": "/a", "stamps": stamps(20, 0.01) + [{"stamp_ns": 10**10, "from_ns": 10**10, "to_ns": None}]}
    split = split_latency(summary, round(1.0 * 1e9))
    assert split["from"] == "/a" and "stamps" not in split
    assert split["count"] == 5 and split["while_imagining"]["count"] == 5
    json.dumps(split)
    empty = latency_figures([])
    assert empty["median_s"] is None and empty["rate_to_hz"] is None and empty["real_time_factor"] is None


def test_roles_are_found_in_the_perceived_scene() -> None:
    roles = find_roles(table_scene())
    assert (roles.mover, roles.target) == (2, 3)
    assert {roles.bystander, roles.second_bystander} == {4, 5}
    still = find_roles(table_scene(linear_velocities=np.zeros((5, 3))))
    assert still.mover is None


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.4, 0.4), st.floats(-0.5, 0.5)), min_size=4, max_size=4), st.floats(0.0, 6.28))
def test_questions_are_valid_whatever_lies_where(places: list[tuple[float, float]], heading: float) -> None:
    positions = [[0, 0, 0.73], *([x, y, 0.80] for x, y in places)]
    velocities = np.zeros((5, 3))
    velocities[1, :2] = 0.5 * np.cos(heading), 0.5 * np.sin(heading)
    scene = table_scene(positions=positions, linear_velocities=velocities)
    scenarios = choose_scenarios(scene)
    assert scenarios[0].hypothesis.interventions == ()
    assert len(scenarios) >= 5 and len({q.name for q in scenarios}) == len(scenarios)
    validate_hypotheses([q.hypothesis for q in scenarios], scene, 2.0)
    assert all(q.title and q.detail for q in scenarios)


def test_a_question_is_asked_of_the_true_thing() -> None:
    scene = table_scene()
    remove = next(q for q in choose_scenarios(scene) if q.name == "remove")
    moved = with_true_ids(remove.hypothesis, {3: 33})
    assert moved is not None and moved.interventions[0].object_id == 33
    assert with_true_ids(remove.hypothesis, {2: 22}) is None


@pytest.mark.parametrize("count", [1, 64, 256])
def test_timed_futures_are_different_and_valid(count: int) -> None:
    scene = table_scene()
    hypotheses = timing_hypotheses(scene, count)
    assert len(hypotheses) == count == len({h.name for h in hypotheses})
    assert len({tuple(h.interventions[0].impulse) for h in hypotheses}) == count
    validate_hypotheses(hypotheses, scene, 1.0)


def test_presence_of_things_in_a_clip() -> None:
    second = int(1e9)
    graphs = [
        table_scene(stamp_ns=n * second, last_seen_ns=[n * second] * 3 + [0, (n % 2) * n * second]) for n in range(1, 7)
    ]
    rows = {p.object_id: p for p in presence(graphs)}
    assert rows[2].seen.all() and rows[2].exists.all()
    assert not rows[4].seen.any() and rows[4].exists.all()
    assert rows[5].seen.tolist() == [True, False] * 3
    assert choose_object(graphs) in (2, 3)
    assert choose_object([]) is None


def test_the_way_off_a_table_is_the_shortest_free_one() -> None:
    scene = table_scene(linear_velocities=np.zeros((5, 3)))
    direction, distance = shortest_way_off(scene, scene.index(2))
    assert direction == pytest.approx([0.0, 1.0], abs=1e-6)
    assert distance == pytest.approx(0.2)
    blocked = table_scene(
        positions=[[0, 0, 0.73], [0, 0.4, 0.79], [0, 0.52, 0.80], [0.2, -0.3, 0.8], [-0.2, -0.3, 0.8]]
    )
    direction, _ = shortest_way_off(blocked, blocked.index(2))
    assert abs(direction[0]) > 0.5


def test_what_is_in_view() -> None:
    pose = np.eye(4)
    assert in_view(pose, np.array([0.0, 0.0, 1.0]), 0.05, CAMERA) == pytest.approx(1 - 25 / 240, abs=0.01)
    assert in_view(pose, np.array([0.0, 0.0, -1.0]), 0.05, CAMERA) == -1.0
    assert in_view(pose, np.array([0.64, 0.0, 1.0]), 0.05, CAMERA) < 0.0
