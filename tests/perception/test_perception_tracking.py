"""Filter, assignment and relations by themselves."""

import numpy as np
import pytest
from scipy.stats import chi2

from wm_core.scene_graph import Predicate, SceneGraph, Shape
from wm_perception.evaluation import match, score_sequence
from wm_perception.reasoning.relations import RelationGraph, measure_relations
from wm_perception.tracking.motion import MotionFilter, MotionModels
from wm_perception.types import PerceptionConfig

DT = 1.0 / 30.0
MODELS = MotionModels()


def sample_paths(count, steps, kind, rng, dt=DT):
    """Positions and velocities (count, steps + 1, 3) of things that roll, slide to rest, or are knocked on the way."""
    v = rng.normal(0.0, 0.3, (count, 3))
    x = np.zeros((count, 3))
    xs, vs = [x], [v]
    slowing = rng.uniform(1.0, 4.0, (count, 1))
    knock = rng.integers(steps // 3, steps // 2, count)
    for n in range(steps):
        speed = np.linalg.norm(v, axis=1, keepdims=True)
        if kind == "slide":
            a = -v / np.maximum(speed, 1e-9) * np.minimum(slowing, speed / dt)
        else:
            a = rng.normal(0.0, 0.5, (count, 3))
        x, v = x + dt * v + 0.5 * dt**2 * a, v + dt * a
        if kind == "knock":
            v = v + (knock == n)[:, None] * rng.normal(0.0, 0.4, (count, 3))
        xs.append(x)
        vs.append(v)
    return np.stack(xs, axis=1), np.stack(vs, axis=1), knock + 1 if kind == "knock" else np.full(count, -1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roll", "slide", "knock"])
@pytest.mark.parametrize("rate", [15.0, 30.0])
def test_the_filter_is_consistent(kind, rate):
    """Normalized errors squared of position and velocity against chi-square with 3 degrees of freedom.

    The motions are not those that the filter assumes, so it may be somewhat too careful, but not too sure: the mean
    over all is not above 3 by more than chance and a small allowance, and 95 % lie within the 95 % bound.
    """
    rng = np.random.default_rng(0)
    noise = np.diag([0.003, 0.002, 0.004]) ** 2
    xs, vs, knocks = sample_paths(60, 12, kind, rng, 1.0 / rate)
    place, speed = [], []
    for x, v, knock in zip(xs, vs, knocks, strict=True):
        tracked = MotionFilter(x[0], 0.01, 0.3)
        for n in range(1, len(x)):
            tracked.predict(1.0 / rate, MODELS)
            tracked.update(x[n] + rng.multivariate_normal(np.zeros(3), noise), noise)
            if n == knock:
                continue  # it has happened at this very moment: nobody can know
            c = tracked.covariance
            place.append((x[n] - tracked.position) @ np.linalg.solve(c[:3, :3], x[n] - tracked.position))
            speed.append((v[n] - tracked.velocity) @ np.linalg.solve(c[3:6, 3:6], v[n] - tracked.velocity))
    for errors in (np.array(place), np.array(speed)):
        assert errors.mean() < 3.6
        assert (errors < chi2.ppf(0.95, 3)).mean() > 0.9
    assert np.mean(place) > 1.5


def test_the_filter_does_not_lag_behind_a_steady_roll():
    tracked = MotionFilter(np.zeros(3), 0.003, 0.3)
    for n in range(1, 31):
        tracked.predict(DT, MODELS)
        tracked.update(np.array([0.5 * n * DT, 0.0, 0.0]), np.eye(3) * 0.002**2)
    assert np.allclose(tracked.mean[:6], [0.5, 0.0, 0.0, 0.5, 0.0, 0.0], atol=1e-3)


def test_the_velocity_of_a_sliding_thing_is_that_of_now_not_of_the_last_interval():
    """At 3 m/s^2 the mean velocity over the last frame is 0.1 m/s behind at 15 Hz."""
    dt, slowing = 1.0 / 15.0, 3.0
    tracked = MotionFilter(np.zeros(3), 0.003, 1.0)
    errors = []
    for n in range(1, 6):
        t = n * dt
        tracked.predict(dt, MODELS)
        tracked.update(np.array([1.2 * t - 0.5 * slowing * t * t, 0.0, 0.0]), np.eye(3) * 0.001**2)
        errors.append(abs(tracked.velocity[0] - (1.2 - slowing * t)))
    assert max(errors[2:]) < 0.5 * 0.5 * slowing * dt


def test_after_a_knock_the_velocity_is_known_within_two_frames():
    tracked = MotionFilter(np.zeros(3), 0.003, 0.3)
    errors = []
    for n in range(1, 20):
        x = 0.4 * min(n, 10) * DT - 0.3 * max(n - 10, 0) * DT
        tracked.predict(DT, MODELS)
        tracked.update(np.array([x, 0.0, 0.0]), np.eye(3) * 0.001**2)
        errors.append(abs(tracked.velocity[0] - (0.4 if n <= 10 else -0.3)))
    assert errors[11] < 0.12 and errors[12] < 0.06 and errors[9] < 0.02


def test_uncertainty_grows_without_measurements():
    tracked = MotionFilter(np.zeros(3), 0.003, 0.1)
    spreads = []
    for _ in range(5):
        tracked.coast(DT)
        spreads.append(np.trace(tracked.covariance[:3, :3]))
    assert (np.diff(spreads) > 0.0).all()
    assert np.allclose(tracked.covariance, tracked.covariance.T)


def test_what_rests_becomes_better_known_and_does_not_move():
    rng = np.random.default_rng(1)
    tracked = MotionFilter(np.zeros(3), 0.01, 0.3)
    for _ in range(30):
        tracked.hold(0.0003)
        tracked.settle(rng.normal(0.0, 0.004, 3), np.eye(3) * 0.004**2)
    assert np.linalg.norm(tracked.position) < 0.003 and not tracked.velocity.any()
    assert np.sqrt(tracked.covariance[0, 0]) < 0.002


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
