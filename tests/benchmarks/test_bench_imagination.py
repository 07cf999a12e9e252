"""The benchmark's figures on cases made by hand: the right answer is known."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.imagination import __main__ as bench
from benchmarks.imagination import metrics, speed, steps, store
from benchmarks.imagination.accuracy import compared, imagine, score_events, score_physics, score_positions
from benchmarks.imagination.document import EMPTY, accuracy_document
from benchmarks.imagination.laws import created_energy, penetrations
from benchmarks.imagination.run import Outcome, restricted, run_case
from benchmarks.imagination.scenarios import scenarios
from benchmarks.imagination.scores import Calibration, Scores, Worst, summary
from benchmarks.imagination.shapes import FAR_M, Worlds, stretches, surface_distances
from benchmarks.imagination.starts import Aligned, Start, align, ground_truth_of, translated, true_start
from benchmarks.imagination.tables import aim_text, markdown, styled
from benchmarks.imagination.touching import clip_of, distances_of, events_of, meetings, movable_pairs, seen_touches
from benchmarks.imagination.worlds import Case, start_time, usable, world_seeds
from training.worlds.simulate import Clip
from training.worlds.worlds import random_scene
from wm_core.intervention_checks import validate_hypotheses
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Intervention,
    add,
    follow_path,
    morph,
    remove,
    set_pose,
    set_velocity,
)
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.belief import scene_body
from wm_dynamics.factory import make_dynamics
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_points, rest_state

TIMES = np.arange(61) / 30.0
TOP = 0.5


# -- positions


def test_ade_and_fde() -> None:
    errors = np.full((1, 61, 2), np.nan)
    errors[0, :, 0] = 0.01 * np.arange(61)
    errors[0, :31, 1] = 0.02  # gone after 1 s
    ade, fde = metrics.displacement(errors, TIMES, 1.0)
    assert ade[0] == pytest.approx([0.01 * np.mean(np.arange(1, 31)), 0.02]) and fde[0] == pytest.approx([0.3, 0.02])
    ade, fde = metrics.displacement(errors, TIMES, 2.0)
    assert ade[0, 1] == pytest.approx(0.02) and np.isnan(fde[0, 1])


def test_what_has_left_the_table_stays_where_it_left() -> None:
    path = np.zeros((1, 4, 2, 3))
    path[0, :, 0, 2] = [0.5, 0.3, 0.2, 0.0]
    path[0, :, 0, 0] = [0.0, 1.0, 2.0, 3.0]
    path[0, :, 1, 2] = 0.5
    held = metrics.held_once_gone(path, TOP)
    assert held[0, :, 0, 0].tolist() == [0.0, 1.0, 2.0, 2.0] and held[0, 3, 0, 2] == 0.2
    assert (held[0, :, 1] == path[0, :, 1]).all()


def test_who_has_moved() -> None:
    path = np.zeros((1, 61, 3, 3))
    path[0, 20:, 0, 0] = 0.02
    path[0, 40:, 1, 0] = 0.02
    present = np.ones((1, 61, 3), bool)
    path[0, :10, 2], present[0, :10, 2] = 5.0, False  # it comes later, and then rests
    assert metrics.moved(path, present, TIMES, 1.0).tolist() == [[True, False, False]]
    assert metrics.moved(path, present, TIMES, 2.0).tolist() == [[True, True, False]]


def test_effects() -> None:
    path = np.zeros((3, 61, 2, 3))
    present = np.ones((3, 61, 2), bool)
    path[1, 10:20, 0, 0] = 0.05  # affected, but back at the end
    path[2, 25:, 1, 1] = 0.03
    present[2, 20:, 0] = False
    affected, vector, both = metrics.effects(path, present, 30)
    assert affected.tolist() == [[True, False], [False, True]] and both.tolist() == [[True, True], [False, True]]
    assert vector[1, 1].tolist() == [0.0, 0.03, 0.0] and not vector[0].any()


def test_f1() -> None:
    assert metrics.f1(3, 1, 1) == pytest.approx(0.75) and metrics.f1(0, 0, 0) is None and metrics.f1(0, 2, 0) == 0.0


# -- events


def test_events_match_within_the_tolerance_once() -> None:
    true = [(0, (1, 2), 0.50), (0, (1, 2), 0.55), (2, (3,), 0.98), (0, (1, 3), 1.05)]
    said = [(0, (1, 2), 0.58), (2, (3,), 1.06), (0, (1, 3), 0.97), (0, (4, 5), 0.2), (0, (4, 6), 1.2)]
    counts = metrics.match_events(true, said, 1.0)
    # Of two contacts one is found; what lies beyond a second is neither missed nor false.
    assert counts[0] == (1, 1, 1) and counts[2] == (1, 0, 0)
    assert metrics.match_events(true, true, 1.0) == {0: (2, 0, 0), 2: (1, 0, 0)}
    assert metrics.match_events([], [], 1.0) == {}


# -- calibration


@pytest.mark.parametrize("inside", [metrics.in_region, metrics.in_rank])
def test_regions_hold_nine_in_ten(inside: object) -> None:
    rng = np.random.default_rng(0)
    shape = np.diag([0.05, 0.02, 0.01]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    draws = rng.normal(size=(4000, 25, 3)) @ shape
    held = inside(draws[:, 1:], draws[:, 0])  # type: ignore[operator]
    assert held.mean() == pytest.approx(0.9, abs=0.03)
    far = draws[:, 0] + 3.0
    assert not inside(draws[:, 1:], far).any()  # type: ignore[operator]


@pytest.mark.parametrize("inside", [metrics.in_region, metrics.in_rank])
def test_what_does_not_scatter_is_known_to_a_millimeter(inside: object) -> None:
    samples = np.zeros((2, 24, 3))
    assert inside(samples, np.array([[5e-4, 0.0, 0.0], [0.01, 0.0, 0.0]])).tolist() == [True, False]  # type: ignore[operator]


# -- what physics forbids


def test_through_the_table() -> None:
    extents, center = np.array([1.0, 1.0, 0.04]), np.array([0.0, 0.0, TOP - 0.02])
    heights = np.linspace(0.6, 0.4, 41)
    path = np.zeros((41, 3, 3))
    path[:, :, 2] = heights[:, None]
    path[:, 1, 0] = 0.7  # falls beside it
    path[:, 2, 2] = TOP + 0.03
    crossed = metrics.crosses_table(path, np.ones((41, 3), bool), center, np.eye(3), extents)
    assert crossed.tolist() == [True, False, False]


def test_energy_that_rises() -> None:
    bounce = np.array([1.0, 1.0, 0.4, 0.3, 0.9, 0.9, 0.9])
    assert metrics.energy_rise(bounce) == 0.0
    assert metrics.energy_rise(np.array([1.0, 0.5] + [0.5] * 6 + [0.8])) == pytest.approx(0.3)
    assert metrics.energy_rise(np.ones(1)) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=30))
def test_energy_that_only_falls_is_not_created(values: list[float]) -> None:
    assert metrics.energy_rise(np.sort(values)[::-1]) == 0.0


# -- a case made by hand: a ball rolls into a box on a table


def make_case(hypotheses: tuple[Hypothesis, ...] = (Hypothesis("factual"),)) -> Case:
    scene = SceneGraph.build(
        [1, 2, 3],
        [(0.0, 0.0, TOP - 0.02), (-0.1, 0.0, TOP + 0.03), (0.1, 0.0, TOP + 0.03)],
        [(1.0, 1.0, 0.04), (0.06, 0.06, 0.06), (0.06, 0.06, 0.06)],
        shapes=[Shape.BOX, Shape.SPHERE, Shape.BOX],
        class_names=["support", "ball", "box"],
        is_static=[True, False, False],
        linear_velocities=[(0, 0, 0), (0.5, 0.0, 0.0), (0, 0, 0)],
        angular_velocities=[(0, 0, 0), (0.0, 0.5 / 0.03, 0.0), (0, 0, 0)],
    )
    created = max(sum(i.creates_body for i in h.interventions) for h in hypotheses)
    ids = np.arange(1, 4 + created)
    result = make_dynamics("physics", threads=1).rollout([scene], hypotheses, TIMES)
    touches = [
        tuple((c.time_s, c.a, c.b, c.began) for c in result.contacts if c.hypothesis == k)
        for k in range(len(hypotheses))
    ]
    return Case(
        "seeds", 0, 1.0, scene, tuple(scene_body(scene, i) for i in range(3)),
        hypotheses, tuple(h.name for h in hypotheses), TIMES, ids, result.states[:, 0],
        result.present, tuple(touches), TOP,
    )  # fmt: skip


HYPOTHESES = (
    Hypothesis("factual"),
    Hypothesis("remove", (remove(3, 0.1),)),
    Hypothesis("faster", (set_velocity(2, (1.0, 0.0, 0.0), (0.0, 1.0 / 0.03, 0.0)),)),
    Hypothesis("pusher", (follow_path([0.0, 1.0], [[0.3, 0.0, TOP + 0.05], [0.1, 0.0, TOP + 0.05]]),)),
    Hypothesis("add", (add(BodySpec(Shape.SPHERE, np.full(3, 0.05), np.array([0.1, 0.0, TOP + 0.2]))),)),
)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.imagination.touching._TRUE_EVENTS", {})


def test_the_truth_measured_against_itself_is_right() -> None:
    case = make_case(HYPOTHESES)
    dynamics = make_dynamics("physics", threads=1)
    scores = Scores(scenarios=len(HYPOTHESES))
    future = imagine(dynamics, case, true_start(case))
    score_positions(scores, case, future, "physics")
    score_events(scores, case, future, False)
    score_physics(scores, Worlds(), case, true_start(case), future)
    found = summary(scores)
    assert found["fde_m"]["1.0"] == pytest.approx(0.0, abs=1e-6) and found["ade_moved_m"]["2.0"] < 1e-6
    assert found["effect_f1"] == 1.0 and found["effect_error_m"] == pytest.approx(0.0, abs=1e-6)
    assert found["events_f1"] == 1.0 and found["events"]["CONTACT"][0] >= 3
    assert found["through_table"] == 0 and found["energy_created"] == 0 and found["energy_checked"] == 4
    assert not compared(case)[3, 3] and compared(case)[4, 3] and not compared(case)[:, 0].any()
    json.dumps(found)


def test_straight_lines_go_through_and_effects_are_missed() -> None:
    case = make_case(HYPOTHESES)
    scores = Scores()
    future = imagine(make_dynamics("straight"), case, true_start(case))
    score_positions(scores, case, future, "straight")
    # The ball goes on at 0.5 m/s; in ground truth it stops at the box.
    assert scores.errors.mean("fde|moved|2.0") > 0.3
    # Without the box it would have gone on: straight lines know of no difference.
    assert scores.effect[2] > 0 and scores.effect_others[2] > 0
    assert scores.worst[0].method == "straight" and scores.worst[0].error_m > 0.1


def test_rotation_of_a_ball_is_not_asked_for() -> None:
    case = make_case()
    scores = Scores()
    score_positions(scores, case, imagine(make_dynamics("still"), case, true_start(case)), "still")
    assert scores.errors.count("rotation|all|1.0") == 1 and scores.errors.count("fde|all|1.0") == 2


def test_touches_are_read_from_places_where_none_are_told() -> None:
    case = make_case()
    future = imagine(make_dynamics("straight"), case, true_start(case))
    clip = clip_of(case, future, 0)
    touches = seen_touches(clip, distances_of(case, future, 0, movable_pairs(clip), len(TIMES)))
    # 0.2 m between centers, half sizes 3 cm each, 0.5 m/s.
    assert touches[0][1:] == (2, 3, True) and touches[0][0] == pytest.approx(0.14 / 0.5, abs=0.02)
    assert touches[1][3] is False and touches[1][0] == pytest.approx(0.26 / 0.5, abs=0.02)
    said = events_of(case, future, 0, True)
    assert (int(EventKind.CONTACT), (2, 3)) in [e[:2] for e in said]
    assert (int(EventKind.CONTACT), (2, 3)) in [e[:2] for e in events_of(case, ground_truth_of(case), 0, False)]


def touching_clip(*touches: tuple[float, int, int, bool]) -> Clip:
    """The ball and the box, with touches told."""
    case = make_case()
    return replace(clip_of(case, ground_truth_of(case), 0), touches=touches)


def test_what_stays_near_does_not_part() -> None:
    distance = np.full(len(TIMES), 0.03)
    distance[6:30] = 0.004  # from 0.2 to 1 s
    told = ((0.19, 2, 3, True), (0.3, 2, 3, False), (0.5, 2, 3, True), (0.6, 2, 3, False), (0.9, 2, 3, True))
    ended = (*told, (0.95, 2, 3, False))
    contact, separation = (int(EventKind.CONTACT), (2, 3), 0.19), (int(EventKind.SEPARATION), (2, 3), 0.95)
    assert meetings(touching_clip(*ended), {(1, 2): distance}) == [contact, separation]
    # What still touches at the end has not parted.
    assert meetings(touching_clip(*told), {(1, 2): distance}) == [contact]
    # What was near from the start, or is not there to be seen apart, was in contact.
    distance[:6] = np.nan
    assert meetings(touching_clip(*ended), {(1, 2): distance}) == [separation]
    distance[12:15] = 0.007
    kinds = [(EventKind(kind).name, when) for kind, _, when in meetings(touching_clip(*ended), {(1, 2): distance})]
    assert kinds == [("SEPARATION", 0.3), ("CONTACT", 0.5), ("SEPARATION", 0.95)]


def test_a_touch_in_the_first_step_is_a_contact_if_they_were_apart() -> None:
    case = make_case()
    told = replace(ground_truth_of(case), touches=(((0.0, 2, 3, True),),))
    assert (int(EventKind.CONTACT), (2, 3), 0.0) in events_of(case, told, 0, False)  # 14 cm apart at the start
    near = told.states.copy()
    near[:, :, 1, 0] = 0.1 - 0.06
    assert not events_of(case, replace(told, states=near), 0, False)


def test_distances_are_of_the_shapes_of_each_world() -> None:
    """A long tray with a rim, as its parts are and as the hull that stands for it; a box on its floor, and morphed."""
    floor = GeomDef(Shape.BOX, np.array([0.3, 0.1, 0.01]), position=np.array([0.0, 0.0, -0.02]))
    rim = GeomDef(Shape.BOX, np.array([0.01, 0.1, 0.05]), position=np.array([0.145, 0.0, 0.0]))
    parts = BodyDef((floor, rim))
    hull = BodyDef((GeomDef(Shape.CONVEX, np.array([0.3, 0.1, 0.05]), hull=body_points(parts)),))
    box = BodyDef((GeomDef(Shape.BOX, np.full(3, 0.02)),))
    states = np.tile(rest_state((0.0, 0.0, 0.0)), (4, 2, 1))
    states[:, 1, :3] = (0.11, 0.0, 0.005)
    states[2, 1, :3] = (-0.162, 0.03, -0.02)  # against the other end, between where samples would lie
    states[3, 1, :3] = (0.5, 0.0, 0.0)
    present = np.ones((4, 2), bool)

    def measured(tray: BodyDef, *actions: Intervention) -> np.ndarray:
        shapes = stretches((tray, box), [(1, do) for do in actions])
        return surface_distances(Worlds(), shapes, TIMES[:4], states, present, [(0, 1)])[0, 1]

    assert measured(parts) == pytest.approx([0.01, 0.01, 0.002, FAR_M], abs=1e-5)
    assert measured(hull)[:2].max() < -0.005  # in the hollow
    assert measured(parts, morph(2, (1.5,) * 3, 0.05)) == pytest.approx([0.01, 0.01, -0.003, FAR_M], abs=1e-5)
    present[1, 1] = False
    assert np.isnan(measured(parts)).tolist() == [False, True, False, False]


def test_taking_a_thing_away_is_no_event() -> None:
    case = make_case(HYPOTHESES)
    assert EventKind.LEAVE not in {EventKind(e[0]) for e in events_of(case, ground_truth_of(case), 1, False)}


def perceived(case: Case) -> Start:
    """The same world with other ids, objects 1 cm aside, the box named by other axes, the ball not seen."""
    turned = np.array([0.0, 0.0, np.sin(np.pi / 4), np.cos(np.pi / 4)])
    scene = SceneGraph.build(
        [4, 7, 9],
        [*case.scene.positions[[0]], (0.11, 0.0, TOP + 0.03), (0.4, 0.4, TOP + 0.03)],
        case.scene.extents[[0, 2, 2]],
        quaternions=[(0, 0, 0, 1), turned, (0, 0, 0, 1)],
        class_names=["support", "object", "object"],
        is_static=[True, False, False],
    )
    return Start(scene, {3: 1})


def test_questions_about_what_was_found() -> None:
    placed = Hypothesis("place", (set_pose(3, (0.2, 0.0, TOP + 0.03), (0, 0, np.sin(0.25), np.cos(0.25))),))
    case = make_case((*HYPOTHESES, placed, Hypothesis("morph", (morph(3, (1.2,) * 3),))))
    start = perceived(case)
    asked = [translated(h, case, start) for h in case.hypotheses]
    assert [h is None for h in asked] == [False, False, True, False, False, False, False]
    assert asked[1] is not None and asked[1].interventions[0].object_id == 7
    angle = 2.0 * np.arctan2(*asked[5].interventions[0].quaternion[[2, 3]])  # type: ignore[union-attr]
    assert angle == pytest.approx(np.pi / 2 + 0.5)
    dynamics = make_dynamics("still")
    future = imagine(dynamics, case, start)
    assert future.asked.tolist() == [True, True, False, True, True, True, True]
    assert not future.present[:, :, 1].any() and future.present[0, :, 2].all() and future.solids[1] is None
    scores = Scores()
    score_positions(scores, case, future, "still")
    assert scores.errors.mean("ade|factual|0.5") is not None
    assert scores.errors.count("fde|all|1.0") == 6 - 1 + 1  # the box, but where it was taken away; the added ball
    oracle = restricted(imagine(make_dynamics("physics", threads=1), case, true_start(case)), case, start)
    assert not oracle.present[:, :, 1].any() and not oracle.asked[2]


def test_perceived_things_are_named_by_where_they_are() -> None:
    from benchmarks.imagination.perceived import found_share, position_error, start_from

    case = make_case()
    graph = perceived(case).scene
    start = start_from(case, graph)
    assert start is not None and start.row_of == {3: 1}
    assert found_share([(case, start)]) == 0.5 and position_error([(case, start)]) == pytest.approx(0.01)
    assert start_from(case, graph.select([0])) is None


def test_contacts_are_named_by_true_ids() -> None:
    case = make_case()
    result = make_dynamics("physics", threads=1).rollout([case.scene], case.hypotheses, TIMES)
    scene = replace(case.scene, ids=np.array([5, 6, 8]))
    moved = make_dynamics("physics", threads=1).rollout([scene], case.hypotheses, TIMES)
    future = align(case, Start(scene, {2: 1, 3: 2}), case.hypotheses, moved)
    assert future.touches == tuple(
        tuple(sorted((c.time_s, c.a, c.b, c.began) for c in result.contacts)) for _ in range(1)
    )


def test_penetration_of_known_depth() -> None:
    case = make_case()
    states = np.tile(case.states[0, :1].astype(float), (4, 1, 1))
    present = np.ones((4, 3), bool)
    states[1:, 1, 0] = 0.1 - 0.06 + 0.01  # 1 cm into the box
    states[2:, 2, 2] -= 0.008  # 8 mm into the table
    depths = penetrations(Worlds(), case.scene, Hypothesis("factual"), TIMES[:4], states, present)
    assert depths[0].max() == 0.0 and depths[1, [1, 2]] == pytest.approx([0.01, 0.01], abs=1e-3)
    assert depths[3, 2] >= 0.008 - 1e-6 and depths[:, 0].max() == 0.0
    # What overlaps from the start is not held against who imagines.
    always = np.tile(states[3:], (4, 1, 1))
    assert penetrations(Worlds(), case.scene, Hypothesis("factual"), TIMES[:4], always, present).max() == 0.0


def test_energy_from_nothing() -> None:
    case = make_case()
    states = case.states[0].astype(float)
    present = case.present[0]
    worlds = Worlds()
    assert created_energy(worlds, case.scene, case.hypotheses[0], TIMES, states, present) == 0.0
    states[40:, 1, 7] += 2.0
    states[40:, 1, 0] += 2.0 * (TIMES[40:] - TIMES[40])
    risen = created_energy(worlds, case.scene, case.hypotheses[0], TIMES, states, present)
    assert risen is not None and risen > 0.5 * float(case.scene.masses[1])
    pusher = HYPOTHESES[3]
    assert created_energy(worlds, case.scene, pusher, TIMES, states, present) is None


def test_what_an_intervention_gives_is_not_created() -> None:
    """Neither where it is carried out a few milliseconds early, nor while a contact holds what it gave."""
    case = make_case()
    states = np.tile(case.states[0, :1].astype(float), (len(TIMES), 1, 1))
    states[:, 1, 7:13] = 0.0
    states[:, 1, 0] = -0.1 + np.linspace(0.0, 0.1, len(TIMES))
    kick = Hypothesis("kick", (set_velocity(2, (2.0, 0.0, 0.0), at_s=0.107),))
    present = case.present[0]
    states[3:, 1, 7], states[3, 1, 7] = 2.0, 1.9  # from 0.1 s on; at first some of it is in a spring

    def risen(hypothesis: Hypothesis) -> float:
        found = created_energy(Worlds(), case.scene, hypothesis, TIMES, states, present)
        assert found is not None
        return found

    assert risen(kick) == 0.0 and risen(Hypothesis("nothing")) > 0.05
    states[20:, 1, 7] = 3.0
    assert risen(kick) > 0.05


def test_scores_add_up() -> None:
    first, second = Scores(steps=10, deep_steps=1), Scores(steps=30, deep_steps=3)
    first.errors.add("ade|all|1.0", [0.1, np.nan])
    second.errors.add("ade|all|1.0", [0.3])
    first.merge(second)
    assert first.errors.mean("ade|all|1.0") == pytest.approx(0.2) and first.deep_steps / first.steps == 0.1
    calibration = Calibration()
    calibration.add("all", np.array([True, False]))
    calibration.merge(calibration)
    assert calibration.share("all") == 0.5 and calibration.share("none") is None


# -- worlds


def test_worlds_and_questions_follow_from_the_seed() -> None:
    (seed,) = world_seeds("seeds", 1)
    scene = random_scene(seed, "seeds")
    assert usable(scene) and not scene.pushers
    assert start_time(scene, np.random.default_rng(1)) == start_time(scene, np.random.default_rng(1))
    graph = SceneGraph.build(
        scene.ids, scene.states[:, :3], scene.extents, quaternions=scene.states[:, 3:7], shapes=scene.shapes,
        is_static=[b.is_static for b in scene.bodies],
    )  # fmt: skip
    drawn = scenarios(graph, scene.table_top_z, np.random.default_rng(2))
    again = scenarios(graph, scene.table_top_z, np.random.default_rng(2))
    assert drawn is not None and again is not None
    kinds = [kind for kind, _ in drawn]
    assert kinds[0] == "factual" and len(set(kinds)) == 8
    assert kinds == [kind for kind, _ in again]
    validate_hypotheses([h for _, h in drawn], graph, 2.0)
    assert scenarios(graph.select([0, 1]), scene.table_top_z, np.random.default_rng(2)) is None


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    made = []

    def make() -> int:
        made.append(1)
        return 7

    assert [store.cached("a-1", "k", make, tmp_path) for _ in range(3)] == [7, 7, 7] and len(made) == 1
    store.cached("a-1", "other", make, tmp_path)
    assert len(made) == 2 and [p.name for p in tmp_path.iterdir()] == ["a-1-other.pickle"]
    assert store.fingerprint([Path(__file__)]) != store.fingerprint([])


# -- speed


@pytest.mark.parametrize("kind", speed.KINDS)
def test_mujoco_runs_the_same_scene_as_the_backends(kind: str) -> None:
    plain = speed.PlainMujoco(kind, 3, 1.0 / 240.0, False, 1)
    try:
        last = plain.run()[:3, -1, 1 : 1 + plain.model.nq].reshape(3, -1, 7)
    finally:
        plain.close()
    physics = make_dynamics("physics", threads=1, max_timestep_s=1.0 / 240.0)
    result = physics.rollout([speed.scene_of(kind)], speed.hypotheses(kind, 3), speed.TIMES)
    apart = np.linalg.norm(last[:, :, :3] - result.states[:, 0, -1, 1:, :3], axis=-1)
    assert np.median(apart) < 0.005 and apart.max() < 0.06
    validate_hypotheses(speed.hypotheses(kind, 3), speed.scene_of(kind), 1.0)


def test_the_planner_asks_the_service_for_the_same_pushes() -> None:
    from benchmarks.imagination.service import make_request

    compact, full = make_request("planner", "physics", 5), make_request("full", "physics", 5)
    assert compact.count == full.count == 5 and compact.times.tolist() == full.times.tolist() and not compact.hypotheses
    for a, b in zip(compact.futures, full.futures, strict=True):
        (x,), (y,) = a.interventions, b.interventions
        assert np.allclose(x.path_positions, y.path_positions) and np.allclose(x.path_times, y.path_times)
        assert x.body == y.body and x.creates_body


def test_best_of_calls_by_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = speed.best_seconds(calls, 2)
    assert order == ["a", "b"] * 3 and set(found) == {"a", "b"}


# -- the document


@pytest.mark.slow
def test_a_world_end_to_end() -> None:
    case = make_case(HYPOTHESES)
    backends = {name: make_dynamics(name) for name in ("physics", "straight", "still")}
    outcome = run_case(case, backends, 0, ("true",))
    document = accuracy_document({"seeds": outcome, "families": Outcome()})
    document |= {"notes": ["learned: not available: no weights"], "failures": []}
    assert document["true_state"]["physics"]["ade_m"]["1.0"] == pytest.approx(0.0, abs=1e-6)
    assert document["true_state"]["oracle"]["fde_m"].keys() == {"0.5", "1.0", "2.0"}
    assert document["true_state"]["learned"] is None and document["perceived_state"]["physics"] is None
    assert document["effect_f1"] is None and document["coverage_90"] is None
    json.dumps(document)
    text = markdown(document)
    assert "who is affected, F1" in text and "not available" in text
    # With a learned backend of that name the same figures are its.
    outcome = run_case(case, {"learned": backends["physics"], **backends}, 0, ("true",))
    document = accuracy_document({"seeds": outcome})
    assert document["effect_f1"] == 1.0 and document["events_f1"] == 1.0
    assert document["effect_error_ratio_to_straight"] == pytest.approx(0.0, abs=1e-5)
    assert document["aimed"]["true_state"]["seeds"]["fde_ratio_to_straight"] == pytest.approx(0.0, abs=1e-5)


def test_the_keys_of_the_issue() -> None:
    wanted = "true_state perceived_state effect_f1 effect_error_ratio_to_straight events_f1 penetration_fraction"
    wanted += " coverage_90 rollouts_per_s service_1024_s planner"
    assert set(wanted.split()) <= set(EMPTY)
    assert aim_text(0.85, 0.95, 1e2, 0) == "85 to 95" and aim_text(None, 0.005, 1e2, 2) == "≤ 0.50"
    assert styled(0.9, "90", 0.85, 0.95) == "[green]90[/]" and styled(0.99, "99", 0.85, 0.95) == "[red]99[/]"
    assert styled(None, "-", 0.85, 0.95) == "-"


def test_arguments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    quick = bench.parse(["--quick", "--only", "speed, service"])
    assert quick.rows == ["speed", "service"] and quick.counts == (1, 64) and quick.worlds == 1
    for wrong, said in (
        (["--only", "speeed"], "--only: got 'speeed'"),
        (["--worlds", "0"], "--worlds: got 0, expected 1 to 1000"),
        (["--samples", "3"], "--samples: got 3"),
    ):
        with pytest.raises(SystemExit):
            bench.parse(wrong)
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_row_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setitem(bench.STEPS, "drawing", fails)
    assert bench.main(["--only", "drawing", "--out", str(tmp_path)]) == 1
    document = json.loads((tmp_path / "imagination.json").read_text())
    assert document["failures"] == ["drawing: OSError: the disk is full"]
    assert set(EMPTY) <= set(document)


def test_planner_episodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_episode(method: str, seed: int) -> object:
        if seed == 2:
            raise RuntimeError("stuck")
        return types.SimpleNamespace(success=seed < 1, plan_seconds=[0.1, 0.3])

    monkeypatch.setattr(steps.planner, "run_episode", run_episode)
    document: dict[str, object] = {"notes": [], "failures": []}
    arguments = bench.parse(["--episodes", "3"])
    steps.run_planner(arguments, ["physics", "straight"], document, steps.Console(quiet=True))
    rows = document["planner"]
    assert isinstance(rows, dict) and rows["learned"] is None
    assert rows["physics"]["success"] == pytest.approx(1 / 3) and rows["physics"]["plan_median_s"] == pytest.approx(0.2)
    assert len(document["failures"]) == 2  # type: ignore[arg-type]


def test_a_tile_of_the_worst(tmp_path: Path) -> None:
    from benchmarks.imagination.pictures import tile

    case = make_case(HYPOTHESES)
    future: Aligned = imagine(make_dynamics("straight"), case, true_start(case))
    for k in range(len(HYPOTHESES)):
        picture = tile(case, future, Worst(0.5, "seeds", 0, k, "straight", HYPOTHESES[k].name), "true")
        assert picture.std() > 5.0 and picture.ndim == 3
    assert rest_state((0, 0, 0)).shape == (13,)
