"""Filter, assignment and relations by themselves."""

import numpy as np
import pytest

from wm_core.scene_graph import Predicate, SceneGraph, Shape
from wm_perception.evaluation import match, score_sequence
from wm_perception.relations import RelationGraph, measure_relations
from wm_perception.tracking import MOVING_ACCELERATION_M_S2, KalmanFilter
from wm_perception.types import PerceptionConfig

DT = 1.0 / 30.0


def test_the_filter_is_consistent():
    """Normalised estimation error squared, over 200 runs of the very model that the filter assumes."""
    rng = np.random.default_rng(0)
    noise = np.diag([0.003, 0.002, 0.004]) ** 2
    errors = []
    for _ in range(200):
        state = np.concatenate([rng.normal(0.0, 0.01, 3), rng.normal(0.0, 0.3, 3)])
        kalman = KalmanFilter.start(np.zeros(3), 0.01, 0.3)
        for _ in range(20):
            push = rng.normal(0.0, MOVING_ACCELERATION_M_S2, 3)
            state = np.concatenate([state[:3] + DT * state[3:] + 0.5 * DT**2 * push, state[3:] + DT * push])
            kalman.predict(DT, MOVING_ACCELERATION_M_S2)
            kalman.update(state[:3] + rng.multivariate_normal(np.zeros(3), noise), noise)
        off = state - kalman.mean
        errors.append(off @ np.linalg.solve(kalman.covariance, off))
    # Chi-squared with 6 degrees of freedom, mean of 200: 6 within 4 standard errors of 0.245.
    assert abs(np.mean(errors) - 6.0) < 1.0


def test_the_filter_does_not_lag_behind_a_steady_roll():
    kalman = KalmanFilter.start(np.zeros(3), 0.003, 0.3)
    for n in range(1, 31):
        kalman.predict(DT, MOVING_ACCELERATION_M_S2)
        kalman.update(np.array([0.5 * n * DT, 0.0, 0.0]), np.eye(3) * 0.002**2)
    assert np.allclose(kalman.mean, [0.5, 0.0, 0.0, 0.5, 0.0, 0.0], atol=1e-3)


def test_uncertainty_grows_without_measurements():
    kalman = KalmanFilter.start(np.zeros(3), 0.003, 0.1)
    spreads = []
    for _ in range(5):
        kalman.predict(DT, 1.0)
        spreads.append(np.trace(kalman.covariance))
    assert (np.diff(spreads) > 0.0).all()
    assert np.allclose(kalman.covariance, kalman.covariance.T)


def scene(positions, extents, stamp_s=0.0, velocities=None, static=(0,), shapes=None):
    n = len(positions)
    pose = np.eye(4)
    # Looks along +x from behind: right is -y.
    pose[:3, :3] = [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
    pose[:3, 3] = [-1.0, 0.0, 0.3]
    return SceneGraph.build(
        range(1, n + 1),
        positions,
        extents,
        stamp_ns=round(stamp_s * 1e9),
        linear_velocities=np.zeros((n, 3)) if velocities is None else velocities,
        is_static=[i in static for i in range(n)],
        shapes=np.zeros(n) if shapes is None else shapes,
        world_T_camera=pose,
    )


TABLE = ([0.0, 0.0, -0.02], [1.0, 1.0, 0.04])


def held(graph):
    return {(r.subject, r.predicate, r.object) for r in graph}


def test_stack_on_a_table():
    graph = scene([TABLE[0], [0.0, 0.0, 0.05], [0.0, 0.0, 0.12]], [TABLE[1], [0.1] * 3, [0.04] * 3])
    found = held(RelationGraph(PerceptionConfig()).update(graph))
    assert {(2, Predicate.ON, 1), (3, Predicate.ON, 2), (1, Predicate.SUPPORTS, 2), (2, Predicate.SUPPORTS, 3)} <= found
    assert (3, Predicate.ON, 1) not in found
    assert (2, Predicate.TOUCHING, 3) in found and (3, Predicate.TOUCHING, 2) not in found


def test_directions_are_those_of_the_camera_and_only_among_near_things():
    graph = scene(
        [TABLE[0], [0.0, 0.05, 0.025], [0.0, -0.05, 0.025], [0.4, 0.05, 0.025]],
        [TABLE[1], [0.05] * 3, [0.05] * 3, [0.05] * 3],
    )
    found = held(RelationGraph(PerceptionConfig()).update(graph))
    # +y is left.
    assert (2, Predicate.LEFT_OF, 3) in found and (3, Predicate.RIGHT_OF, 2) in found
    assert (2, Predicate.NEAR, 3) in found
    assert not [r for r in found if 4 in (r[0], r[2]) and r[1] in (Predicate.NEAR, Predicate.LEFT_OF, Predicate.BEHIND)]


def test_nearer_to_the_camera_is_in_front():
    graph = scene([TABLE[0], [0.0, 0.0, 0.025], [0.1, 0.0, 0.025]], [TABLE[1], [0.05] * 3, [0.05] * 3])
    found = held(RelationGraph(PerceptionConfig()).update(graph))
    assert (2, Predicate.IN_FRONT_OF, 3) in found and (3, Predicate.BEHIND, 2) in found


def test_approaching_and_moving_with():
    positions = [TABLE[0], [0.0, 0.0, 0.025], [0.0, 0.1, 0.025]]
    extents = [TABLE[1], [0.05] * 3, [0.05] * 3]
    towards = scene(positions, extents, velocities=[[0.0] * 3, [0.0, 0.4, 0.0], [0.0] * 3])
    found = held(RelationGraph(PerceptionConfig()).update(towards))
    assert (2, Predicate.APPROACHING, 3) in found and (3, Predicate.APPROACHING, 2) not in found
    positions[2] = [0.0, 0.051, 0.025]
    together = scene(positions, extents, velocities=[[0.0] * 3, [0.0, 0.4, 0.0], [0.0, 0.4, 0.0]])
    found = held(RelationGraph(PerceptionConfig()).update(together))
    assert (2, Predicate.MOVING_WITH, 3) in found and (2, Predicate.APPROACHING, 3) not in found


def test_a_relation_keeps_its_beginning_and_does_not_flicker():
    relations = RelationGraph(PerceptionConfig(near_m=0.1))
    since = []
    for n, gap in enumerate([0.09, 0.098, 0.1025, 0.098, 0.103, 0.16, 0.09]):
        graph = scene(
            [TABLE[0], [0.0, 0.0, 0.025], [0.0, 0.05 + gap, 0.025]], [TABLE[1], [0.05] * 3, [0.05] * 3], stamp_s=n
        )
        near = [r for r in relations.update(graph) if r.predicate == Predicate.NEAR]
        since.append(near[0].since_ns if near else None)
    assert since == [0, 0, 0, 0, 0, None, 6_000_000_000]


def test_probabilities_are_probabilities_and_an_empty_scene_has_no_relations():
    rng = np.random.default_rng(0)
    positions = np.concatenate([[TABLE[0]], rng.uniform(-0.2, 0.2, (8, 3)) * [1, 1, 0] + [0, 0, 0.03]])
    shapes = [0, *rng.integers(0, 4, 8)]
    graph = scene(positions, [TABLE[1]] + [[0.06] * 3] * 8, shapes=shapes, velocities=rng.normal(0, 0.2, (9, 3)))
    measured = measure_relations(graph, PerceptionConfig())
    assert measured and all(0.0 <= p <= 1.0 for p in measured.values())
    assert measure_relations(graph.select(np.zeros(9, bool)), PerceptionConfig()) == {}
    assert RelationGraph(PerceptionConfig()).update(graph.select([0])) == ()


def test_matching_is_optimal_and_gated():
    truth = scene([TABLE[0], [0.0, 0.0, 0.05], [0.05, 0.0, 0.05]], [TABLE[1], [0.05] * 3, [0.05] * 3])
    seen = scene([TABLE[0], [0.04, 0.0, 0.05], [0.09, 0.0, 0.05], [0.4, 0.0, 0.05]], [TABLE[1]] + [[0.05] * 3] * 3)
    pairs = {(p, t): d for p, t, d in match(seen, truth)}
    # Greedy would pair (0.04, 0.05) and lose the other.
    assert set(pairs) == {(1, 1), (2, 2)}
    assert pairs[1, 1] == pytest.approx(0.04)


def test_a_score_counts_what_is_found_missed_and_invented():
    truth = scene([TABLE[0], [0.0, 0.0, 0.05], [0.3, 0.0, 0.05]], [TABLE[1], [0.05] * 3, [0.05] * 3])
    seen = scene([TABLE[0], [0.01, 0.0, 0.05], [-0.3, 0.0, 0.05]], [TABLE[1], [0.05] * 3, [0.05] * 3])
    score = score_sequence([(seen, truth)] * 10, [{2, 3}] * 10)
    assert (score.objects_true, score.found, score.missed, score.phantom, score.id_switches) == (2, 1, 1, 1, 0)
    assert score.position_error_median_m == pytest.approx(0.01)


def test_swapped_ids_are_counted():
    truth = scene([TABLE[0], [0.0, 0.0, 0.05], [0.3, 0.0, 0.05]], [TABLE[1], [0.05] * 3, [0.05] * 3])
    swapped = scene([TABLE[0], [0.3, 0.0, 0.05], [0.0, 0.0, 0.05]], [TABLE[1], [0.05] * 3, [0.05] * 3])
    score = score_sequence([(truth, truth)] * 5 + [(swapped, truth)] * 5, [{2, 3}] * 10)
    assert score.id_switches == 2 and score.found == 2


def test_shapes_touch_by_their_surfaces_not_their_bounds():
    # Two balls whose bounding boxes overlap at the corner but whose surfaces are 12 mm apart.
    apart = 0.05 + 0.012
    d = apart / np.sqrt(2.0)
    graph = scene(
        [TABLE[0], [0.0, 0.0, 0.025], [d, d, 0.025]],
        [TABLE[1], [0.05] * 3, [0.05] * 3],
        shapes=[0, Shape.SPHERE, Shape.SPHERE],
    )
    found = held(RelationGraph(PerceptionConfig()).update(graph))
    assert (2, Predicate.TOUCHING, 3) not in found and (2, Predicate.NEAR, 3) in found
