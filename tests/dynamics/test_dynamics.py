"""Dynamics backends: properties that any future must have, and what an imperfectly seen scene must not do."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    restyle,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.scene_graph import EventKind, Predicate, Relation, SceneGraph, Shape
from wm_dynamics.belief import sample_belief
from wm_dynamics.events import derive_events
from wm_dynamics.factory import make_dynamics
from wm_dynamics.physics.backend import PhysicsDynamics
from wm_dynamics.separation import surface_separation
from wm_dynamics.settling.preparation import ScenePreparation
from wm_dynamics.settling.restoration import Settling

TIMES = np.arange(31) / 30.0
FACTUAL = Hypothesis("factual")
PHYSICS = PhysicsDynamics()


def table_scene(**changes) -> SceneGraph:
    """A table (1), a ball (2) rolling at a box (3), a cylinder (4) and a box (5) standing apart."""
    positions = np.array([[0, 0, -0.02], [-0.3, 0, 0.04], [0, 0, 0.05], [0.1, 0.3, 0.06], [-0.2, -0.3, 0.03]], float)
    extents = [[1.4, 1.4, 0.04], [0.08] * 3, [0.08, 0.08, 0.10], [0.06, 0.06, 0.12], [0.06, 0.10, 0.06]]
    linear, angular = np.zeros((5, 3)), np.zeros((5, 3))
    linear[1], angular[1] = [0.8, 0, 0], [0, 20.0, 0]
    values = {
        "shapes": [Shape.BOX, Shape.SPHERE, Shape.BOX, Shape.CYLINDER, Shape.BOX],
        "is_static": [True, False, False, False, False],
        "class_names": ["support", "ball", "box", "can", "box"],
        "linear_velocities": linear,
        "angular_velocities": angular,
        "log_mass": np.log([100.0, 0.3, 0.25, 0.2, 0.15]),
        "restitution": np.full(5, 0.2),
    }
    return SceneGraph.build(range(1, 6), positions, extents, **(values | changes))


def still_scene() -> SceneGraph:
    return table_scene(linear_velocities=np.zeros((5, 3)), angular_velocities=np.zeros((5, 3)))


def seen(scene: SceneGraph, position_m: float, angle_rad: float, speed_m_s: float, seed: int) -> SceneGraph:
    """The scene as a camera might see it: everything a little off, with the covariance to match."""
    rng = np.random.default_rng(seed)
    n, free = len(scene), ~scene.is_static[:, None]
    turn = Rotation.from_rotvec(rng.normal(0, angle_rad, (n, 3)) * free)
    pose = np.tile(np.diag([position_m**2] * 3 + [max(angle_rad, 1e-4) ** 2] * 3), (n, 1, 1))
    twist = np.tile(np.diag([max(speed_m_s, 1e-4) ** 2] * 3 + [1.0] * 3), (n, 1, 1))
    return replace(
        scene,
        positions=scene.positions + rng.normal(0, position_m, (n, 3)) * free,
        quaternions=(turn * Rotation.from_quat(scene.quaternions)).as_quat(),
        linear_velocities=scene.linear_velocities + rng.normal(0, speed_m_s, (n, 3)) * free,
        pose_covariances=pose,
        twist_covariances=twist,
    )


def future(scene, *interventions, times=TIMES, dynamics=PHYSICS):
    """States (T, M, 13) of one hypothesis."""
    return dynamics.rollout([scene], [Hypothesis("h", tuple(interventions))], times).states[0, 0]


def test_ball_rolls_and_hits():
    result = PHYSICS.rollout([table_scene()], [FACTUAL], TIMES)
    begun = [c for c in result.contacts if (c.a, c.b) == (2, 3) and c.began]
    assert begun and begun[0].time_s == pytest.approx(0.22 / 0.8, abs=0.03)
    assert result.states[0, 0, -1, 2, 0] > 0.02
    events = derive_events(table_scene(), [FACTUAL], TIMES, result)
    assert {e.kind for e in events if e.a == 3} >= {EventKind.STOP}
    assert any(e.kind == EventKind.CONTACT and (e.a, e.b) == (2, 3) for e in events)
    assert not any(e.time_s == 0.0 for e in events), "what touches from the start is no event"


@pytest.mark.parametrize("name", ["physics", "straight", "still"])
def test_no_intervention_no_effect(name):
    dynamics = make_dynamics(name)
    nothing = [FACTUAL, Hypothesis("restyle", (restyle(3, (1, 0, 0)),)), Hypothesis("again")]
    result = dynamics.rollout([table_scene()], nothing, TIMES)
    assert result.states[0].tobytes() == result.states[1].tobytes() == result.states[2].tobytes()
    assert result.present.all() and result.completed == 3


def test_same_request_same_bytes():
    hypotheses = [Hypothesis(f"h{k}", (apply_impulse(3, (0.05 * k, 0.02, 0)),)) for k in range(12)]
    scenes = sample_belief(seen(table_scene(), 0.004, 0.02, 0.02, 0), 3, seed=7)
    one = PHYSICS.rollout(scenes, hypotheses, TIMES)
    other = PhysicsDynamics(threads=3).rollout(sample_belief(scenes[0], 3, seed=7), hypotheses, TIMES)
    assert one.states.tobytes() == other.states.tobytes() and one.contacts == other.contacts


def test_removing_what_touches_nothing_changes_nothing_else():
    with_it, without = future(table_scene()), future(table_scene(), remove(5))
    np.testing.assert_allclose(without[:, :4], with_it[:, :4], atol=1e-6)


@settings(max_examples=6, deadline=None)
@given(st.permutations([1, 2, 3, 4]))
def test_the_order_of_objects_does_not_matter(order):
    scene = table_scene()
    rows = np.array([0, *order])
    swapped = SceneGraph.build(
        scene.ids,
        scene.positions[rows],
        scene.extents[rows],
        shapes=scene.shapes[rows],
        is_static=scene.is_static[rows],
        class_names=[scene.class_names[i] for i in rows],
        linear_velocities=scene.linear_velocities[rows],
        angular_velocities=scene.angular_velocities[rows],
        log_mass=scene.log_mass[rows],
        restitution=scene.restitution[rows],
    )
    np.testing.assert_allclose(future(swapped), future(scene)[:, rows], atol=2e-3)


@settings(max_examples=6, deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-2, 2), st.floats(-2, 2), st.floats(-1, 1))
def test_the_world_can_be_moved_and_turned_about_gravity(angle, x, y, z):
    scene, turn, shift = table_scene(), Rotation.from_euler("z", angle), np.array([x, y, z])
    moved = replace(
        scene,
        positions=turn.apply(scene.positions) + shift,
        quaternions=(turn * Rotation.from_quat(scene.quaternions)).as_quat(),
        linear_velocities=turn.apply(scene.linear_velocities),
        angular_velocities=turn.apply(scene.angular_velocities),
    )
    expected = turn.apply(future(scene)[..., :3].reshape(-1, 3)).reshape(31, 5, 3) + shift
    np.testing.assert_allclose(future(moved)[..., :3], expected, atol=4e-3)


@settings(max_examples=10, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.05, 2.0))
def test_impulse_over_mass_is_the_velocity_change(jx, jy, mass):
    scene = replace(still_scene(), log_mass=np.log([100.0, 0.3, mass, 0.2, 0.15]))
    hit = apply_impulse(3, (jx, jy, 0.0))
    for dynamics in (PHYSICS, make_dynamics("straight")):
        states = future(scene, hit, dynamics=dynamics)
        np.testing.assert_allclose(states[0, 2, 7:9], np.array([jx, jy]) / mass, atol=1e-5)


def test_a_heavier_box_goes_less_far():
    light = future(table_scene())
    heavy = future(table_scene(), set_property(3, Property.MASS, 4.0, factor=True))
    assert heavy[-1, 2, 0] < 0.6 * light[-1, 2, 0]


@pytest.mark.parametrize(
    "position_m, angle_rad, seed", [(0.0, 0.0, 0), (0.005, 0.02, 1), (0.005, 0.03, 2), (0.005, 0.03, 3)]
)
def test_what_rests_stays_at_rest(position_m, angle_rad, seed):
    ground_truth = still_scene()
    scene = ground_truth if position_m == 0.0 else seen(ground_truth, position_m, angle_rad, 0.02, seed)
    times = np.arange(61) / 30.0
    states = future(scene, times=times)
    drift = np.linalg.norm(states[:, :, :3] - states[:1, :, :3], axis=-1)
    assert drift.max() < 1e-3
    start = np.linalg.norm(states[0, 1:, :3] - scene.positions[1:], axis=-1)
    assert start.max() < 0.025, "brought to rest near where it was seen"
    np.testing.assert_allclose(states[0, 1:, 2], ground_truth.positions[1:, 2], atol=2e-3)


def test_an_imperfect_stack_and_overlapping_neighbors_stay():
    extents = [
        [1.0, 1.0, 0.02],
        [0.10, 0.10, 0.08],
        [0.08, 0.08, 0.06],
        [0.05, 0.05, 0.10],
        [0.08, 0.08, 0.08],
    ]
    positions = [[0, 0, -0.01], [0, 0, 0.044], [0.003, 0, 0.106], [0, 0.004, 0.195], [0.086, 0.0, 0.037]]
    scene = SceneGraph.build(
        range(1, 6),
        positions,
        extents,
        shapes=[0, 0, 0, Shape.CYLINDER, 0],
        is_static=[1, 0, 0, 0, 0],
        class_names=["support"] + ["object"] * 4,
        pose_covariances=np.tile(np.eye(6) * 0.005**2, (5, 1, 1)),
        twist_covariances=np.tile(np.eye(6) * 0.02**2, (5, 1, 1)),
        relations=[Relation(4, Predicate.ON, 3, 0.9, 0)],
    )
    states = future(scene, times=np.arange(61) / 30.0)
    drift = np.linalg.norm(states[:, :, :3] - states[:1, :, :3], axis=-1)
    assert drift.max() < 1e-3
    np.testing.assert_allclose(states[0, 1:4, 2], [0.04, 0.11, 0.19], atol=2e-3)


def test_a_resting_hull_with_a_ragged_bottom_does_not_topple():
    rng = np.random.default_rng(0)
    angle, height = rng.uniform(0, 2 * np.pi, 400), rng.uniform(-0.05, 0.05, 400)
    hull = np.stack([0.035 * np.cos(angle), 0.035 * np.sin(angle), height], axis=1) + rng.normal(0, 0.002, (400, 3))
    hull = hull[~((hull[:, 0] > 0.0) & (hull[:, 2] < -0.02))]  # the far side of the bottom was never seen
    low, high = hull.min(axis=0), hull.max(axis=0)
    scene = SceneGraph.build(
        [1, 2],
        [[0, 0, -0.01], [0, 0, 0.5 * (high - low)[2] + 0.004]],
        [[1, 1, 0.02], high - low],
        shapes=[0, Shape.CONVEX],
        is_static=[1, 0],
        class_names=["support", "mug"],
        hulls=[np.zeros((0, 3)), hull - 0.5 * (low + high)],
        pose_covariances=np.tile(np.eye(6) * 0.004**2, (2, 1, 1)),
        twist_covariances=np.tile(np.eye(6) * 0.02**2, (2, 1, 1)),
    )
    states = future(scene, times=np.arange(61) / 30.0)
    assert np.linalg.norm(states[-1, 1, :3] - states[0, 1, :3]) < 2e-3


def test_a_ball_whose_spin_was_not_seen_rolls():
    ground_truth = table_scene()
    scene = seen(replace(ground_truth, angular_velocities=np.zeros((5, 3))), 0.003, 0.01, 0.01, 4)
    scene = replace(scene, linear_velocities=scene.linear_velocities.copy())
    np.testing.assert_allclose(future(scene)[8, 1, :2], future(ground_truth)[8, 1, :2], atol=0.015)


def test_every_kind_of_intervention_in_every_backend():
    pusher = BodySpec(Shape.BOX, np.array([0.02, 0.1, 0.08]))
    hypotheses = [
        Hypothesis("remove", (remove(3, 0.3),)),
        Hypothesis("add", (add(BodySpec(Shape.SPHERE, np.full(3, 0.05), np.array([0, 0.1, 0.2])), 0.2),)),
        Hypothesis("pose", (set_pose(4, (0.3, 0.3, 0.06), at_s=0.1),)),
        Hypothesis("velocity", (set_velocity(3, (0, 0.5, 0)),)),
        Hypothesis("path", (follow_path([0, 0.5], [[0.1, -0.2, 0.05], [0.1, 0.5, 0.05]], body=pusher, at_s=0.1),)),
        Hypothesis("own path", (follow_path([0, 0.5], [[0, 0, 0.05], [0, 0.2, 0.05]], object_id=3),)),
        Hypothesis("morph", (morph(3, (1.5, 1.5, 2.0), 0.2), remove(5, 0.4))),
        Hypothesis("two bodies", (add(pusher), follow_path([0], [[0.5, 0.5, 0.1]], body=pusher))),
        Hypothesis("table", (remove(1, 0.5),)),
    ]
    for name in ("physics", "straight", "still"):
        result = make_dynamics(name).rollout([table_scene()], hypotheses, TIMES)
        assert result.object_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert np.isfinite(result.states).all() and result.completed == len(hypotheses)
        index = {h.name: k for k, h in enumerate(hypotheses)}
        assert result.present[index["remove"], :9, 2].all() and not result.present[index["remove"], 9:, 2].any()
        assert not result.present[index["add"], :6, 5].any() and result.present[index["add"], 6:, 5].all()
        assert not result.present[index["add"], :, 6].any() and result.present[index["two bodies"], :, 5:].all()
        np.testing.assert_allclose(result.states[index["pose"], 0, 5, 3, :2], [0.3, 0.3], atol=1e-3)
        np.testing.assert_allclose(result.states[index["path"], 0, -1, 5, :3], [0.1, 0.5, 0.05], atol=1e-4)
        np.testing.assert_allclose(result.states[index["own path"], 0, -1, 2, :3], [0, 0.2, 0.05], atol=1e-4)
        events = derive_events(table_scene(), hypotheses, TIMES, result)
        if name == "physics":
            falls = {e.a for e in events if e.hypothesis == index["table"] and e.kind == EventKind.FALL}
            assert falls == {2, 3, 4, 5}
            assert result.states[index["morph"], 0, 8, 2, 2] == pytest.approx(0.1, abs=3e-3)


def test_topple_leave_and_separation_are_told():
    scene = still_scene()
    hypotheses = [
        Hypothesis("tip", (apply_impulse(4, (0.0, 0.12, 0.0), (0, 0, 0.055)),)),
        Hypothesis("off", (set_velocity(3, (5.0, 0.0, 0.0)),)),
    ]
    times = np.arange(46) / 30.0
    result = PHYSICS.rollout([scene], hypotheses, times)
    kinds = [{e.kind for e in derive_events(scene, hypotheses, times, result) if e.hypothesis == k} for k in range(2)]
    assert EventKind.TOPPLE in kinds[0] and EventKind.LEAVE not in kinds[0]
    assert kinds[1] >= {EventKind.LEAVE, EventKind.FALL, EventKind.SEPARATION}


def test_surface_separation():
    scene = still_scene()
    hypotheses = [FACTUAL, Hypothesis("away", (remove(3),)), Hypothesis("grown", (morph(3, (2, 1, 1), 0.5),))]
    result = make_dynamics("still").rollout([scene], hypotheses, TIMES)
    gap = surface_separation(scene, hypotheses, TIMES, result, [(2, 3), (3, 5)])
    assert gap.shape == (3, 1, 2)
    assert gap[0, 0, 0] == pytest.approx(0.3 - 0.04 - 0.04, abs=1e-4)
    assert np.isnan(gap[1]).all()
    assert gap[2, 0, 0] == pytest.approx(0.3 - 0.04 - 0.08, abs=1e-4)
    with pytest.raises(ValueError, match="expected ids"):
        surface_separation(scene, hypotheses, TIMES, result, [(2, 99)])


@pytest.mark.parametrize("name", ["physics", "straight", "still"])
def test_odd_scenes(name):
    dynamics = make_dynamics(name)
    empty = SceneGraph.build([], np.zeros((0, 3)), np.zeros((0, 3)))
    assert dynamics.rollout([empty], [FACTUAL], TIMES).states.shape == (1, 1, 31, 0, 13)
    ball = Hypothesis("ball", (add(BodySpec(Shape.SPHERE, np.full(3, 0.05), np.array([0, 0, 0.5]))),))
    assert np.isfinite(dynamics.rollout([empty], [ball], TIMES).states).all()
    alone = SceneGraph.build([7], [[0, 0, 1.0]], [[0.1, 0.1, 0.1]])
    rests = dynamics.rollout([alone], [FACTUAL], TIMES)
    assert abs(rests.states[0, 0, -1, 0, 2] - 1.0) < 1e-3, "nothing is known of what holds it, but it rests"
    falling = replace(alone, linear_velocities=np.array([[0, 0, -1.0]]))
    drop = dynamics.rollout([falling], [FACTUAL], TIMES).states[0, 0, 10, 0, 2]
    assert (drop < 0.7) == (name != "still")
    assert dynamics.rollout([alone], [FACTUAL], [0.0]).states.shape == (1, 1, 1, 1, 13)
    uneven = dynamics.rollout([alone], [FACTUAL], [0.0, 0.1, 0.17, 1.003])
    assert np.isfinite(uneven.states).all()
    with pytest.raises(ValueError, match="scenes"):
        dynamics.rollout([], [FACTUAL], TIMES)
    with pytest.raises(ValueError, match="times"):
        dynamics.rollout([alone], [FACTUAL], [0.0, np.nan])


def test_belief_samples():
    scene = replace(
        still_scene(),
        pose_covariances=np.tile(np.diag([1e-4] * 3 + [1e-3] * 3), (5, 1, 1)),
        log_mass_std=np.full(5, 0.5),
    )
    samples = sample_belief(scene, 200, seed=1)
    assert samples[0] is scene and len(samples) == 200
    positions = np.stack([s.positions for s in samples[1:]])
    assert positions.std(axis=0)[1:].mean() == pytest.approx(0.01, rel=0.15)
    np.testing.assert_array_equal(positions[:, 0], np.tile(scene.positions[0], (199, 1)))
    assert np.stack([s.log_mass for s in samples]).std(axis=0).mean() == pytest.approx(0.5, rel=0.15)
    assert all((s.friction > 0).all() and (s.restitution <= 0.95).all() for s in samples)
    fewer = sample_belief(scene.select([0, 2, 3]), 3, seed=1)
    np.testing.assert_array_equal(fewer[2].positions, samples[2].positions[[0, 2, 3]])


@pytest.mark.parametrize("name", ["physics", "straight"])
def test_heights_that_settling_takes_back_are_of_the_shapes(name):
    """Objects are brought to rest on the table, but the heights of their centers stay as uncertain as they were."""
    covariance = np.tile(np.diag([0.0, 0.0, 0.006**2, 0.0, 0.0, 0.0]), (5, 1, 1))
    scene = replace(still_scene(), pose_covariances=covariance)
    scenes = sample_belief(scene, 40, seed=3)
    dynamics = PHYSICS if name == "physics" else make_dynamics(name)
    knock = apply_impulse(4, (0.05, 0.0, 0.0), (0.0, 0.0, 0.055))
    result = dynamics.rollout(scenes, [FACTUAL, Hypothesis("knock", (knock,))], TIMES)
    before = result.states.copy()
    settling = Settling(scenes, before[0, :, 0])
    settling.restore_centers(result.states)
    offsets = settling.offsets
    assert not offsets[0].any() and not offsets[:, 0].any() and (result.states[..., 3:] == before[..., 3:]).all()
    drawn = np.stack([s.positions[1:, 2] for s in scenes])
    settled = result.states[0, :, 0, 1:, 2] - drawn  # as far as the mean is
    assert settled == pytest.approx(np.tile(settled[0], (40, 1)), abs=1e-6)
    assert result.states[0, :, -1, 1:, 2].std(axis=0).min() > 0.004
    if name == "physics":
        assert before[0, :, -1, 1:, 2].std(axis=0).max() < 0.001
        # Where the can falls over, what was above it is beside it then.
        up = np.abs(Rotation.from_quat(result.states[1, :, -1, 3, 3:7]).as_matrix()[:, 2, 2])
        moved = result.states[1, :, -1, 3, :3] - before[1, :, -1, 3, :3]
        assert (up < 0.1).sum() > 5
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.abs(offsets[:, 3, 2]), abs=1e-6)
        assert np.abs(moved[:, 2]) == pytest.approx(np.abs(up * offsets[:, 3, 2]), abs=1e-6)


@pytest.mark.parametrize("name", ["physics", "straight"])
def test_a_doubtful_velocity_is_in_the_samples(name):
    """Seen at 0.2 m/s, give or take 0.15: at rest by the mean, as fast as drawn in samples. Seen at rest: at rest."""
    velocities = np.zeros((5, 3))
    velocities[1, 0] = 0.2
    twist = np.tile(np.diag([0.15**2] * 3 + [0.1] * 3), (5, 1, 1))
    scene = replace(still_scene(), linear_velocities=velocities, twist_covariances=twist)
    scenes = sample_belief(scene, 30, seed=0)
    drawn = np.stack([s.linear_velocities for s in scenes])
    assert drawn[1:, 1].std(axis=0) == pytest.approx(np.full(3, 0.15), rel=0.4) and not drawn[:, 2:].any()
    dynamics = PHYSICS if name == "physics" else make_dynamics(name)
    states = dynamics.rollout(scenes, [FACTUAL], TIMES).states[0]
    way = states[:, -1, :, :2] - states[:, 0, :, :2]
    assert np.linalg.norm(way[0], axis=1).max() < 1e-3 and np.linalg.norm(way[:, 3:], axis=-1).max() < 1e-3
    assert np.corrcoef(way[1:, 1, 0], drawn[1:, 1, 0])[0, 1] > 0.9


def test_deadline_stop_and_progress():
    hypotheses = [Hypothesis(f"h{k}", (apply_impulse(3, (0.01 * k, 0, 0)),)) for k in range(64)]
    done = []
    result = PHYSICS.rollout(
        [table_scene()], hypotheses, TIMES, on_hypothesis=lambda k, states, present: done.append(k)
    )
    assert done == list(range(64)) and result.completed == 64
    past = PHYSICS.rollout([table_scene()], hypotheses, TIMES, deadline=time.monotonic() - 1.0)
    assert past.completed == 0 and not past.present.any() and np.isfinite(past.states).all()
    count = iter(range(1000))
    halted = PHYSICS.rollout([table_scene()], hypotheses, TIMES, should_stop=lambda: next(count) >= 5)
    assert 0 < halted.completed < 64 and not halted.present[halted.completed :].any()
    np.testing.assert_array_equal(halted.states[: halted.completed], result.states[: halted.completed])


def test_preparation_of_samples_ends_with_the_time() -> None:
    mean = replace(table_scene(), pose_covariances=np.tile(np.eye(6) * 1e-5, (len(table_scene()), 1, 1)))
    scenes = sample_belief(mean, 32, 0)
    preparation = ScenePreparation(mean, None, 1.0 / 240.0)
    asked: list[int] = []
    preparation.starts(scenes, ended=lambda: bool(asked.append(1)))
    assert len(asked) >= len(scenes), "not called at every sample"
    allowed = 4
    calls = iter(range(1000))
    moved = preparation.starts(scenes, ended=lambda: next(calls) >= allowed)
    assert next(calls) <= allowed + 3, "went on after the end"
    assert np.isfinite(moved).all()


def test_unknown_backend():
    assert make_dynamics("auto").name in ("learned", "physics")
    with pytest.raises(ValueError, match="learned"):
        make_dynamics("learned-not")


def test_what_rests_on_nothing_perceived_is_held_until_it_is_moved() -> None:
    scene = SceneGraph.build(
        [1, 2, 3],
        [[0.0, 0.0, -0.02], [0.0, 0.0, 0.05], [0.3, 0.0, 0.3]],
        [[1.0, 1.0, 0.04], [0.1, 0.1, 0.1], [0.05, 0.3, 0.2]],
        is_static=[True, False, False],
        class_names=("support", "box", "box"),
        pose_covariances=np.tile(np.eye(6) * 1e-5, (3, 1, 1)),
    )
    hypotheses = [Hypothesis("factual"), Hypothesis("pushed", (set_velocity(3, [0.2, 0.0, 0.0]),))]
    result = make_dynamics("physics").rollout(
        [scene], hypotheses, np.arange(31) / 30.0, deadline=None, should_stop=None, on_hypothesis=None
    )
    assert np.allclose(result.states[0, 0, :, 2, :3], [0.3, 0.0, 0.3], atol=1e-6)
    assert result.states[1, 0, -1, 2, 2] < 0.2, "pushed, it falls"


@pytest.mark.parametrize(("restitution", "yaw", "y"), [(0.09, -0.31, 0.01), (0.31, -0.19, 0.02), (0.38, 0.34, -0.01)])
def test_a_block_that_is_pushed_at_its_edge_does_not_fly_off(restitution: float, yaw: float, y: float) -> None:
    """It goes as fast as with steps eight times as short; at 1/240 s it went up to half as fast again."""
    scene = SceneGraph.build(
        [1, 2],
        [(0.0, 0.0, -0.02), (0.0, y, 0.02)],
        [(1.4, 1.4, 0.04), (0.09, 0.04, 0.04)],
        quaternions=[(0.0, 0.0, 0.0, 1.0), Rotation.from_euler("z", yaw).as_quat()],
        is_static=[True, False],
        class_names=["support", "box"],
        log_mass=np.log([100.0, 0.2]),
        friction=[0.6, 0.6],
        restitution=[0.0, restitution],
    )
    pusher = BodySpec(Shape.BOX, np.array([0.04, 0.08, 0.08]), friction=0.4)
    push = follow_path([0.0, 1.0], [(-0.15, 0.0, 0.046), (0.25, 0.0, 0.046)], body=pusher)
    fine = PhysicsDynamics(threads=1, max_timestep_s=0.0005)
    speeds = [np.linalg.norm(future(scene, push, dynamics=d)[:, 1, 7:10], axis=1) for d in (PHYSICS, fine)]
    fine.close()
    assert speeds[0].max() == pytest.approx(speeds[1].max(), rel=0.25)


def test_what_has_fallen_deep_is_not_thrown_up_by_the_floor() -> None:
    """The height of a floor that was not seen is guessed, but never above an object."""
    positions = np.array(still_scene().positions)
    positions[3] = (0.9, 0.3, -0.9)
    falls = np.zeros((5, 3))
    falls[3] = (0.0, 0.0, -3.0)
    scene = table_scene(linear_velocities=falls, angular_velocities=np.zeros((5, 3)))
    states = future(replace(scene, positions=positions))
    assert states[:, 3, 2].max() < -0.85 and states[:, 3, 9].max() < 0.5
