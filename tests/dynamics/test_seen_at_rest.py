"""Scenes that were seen at rest: nothing moves that nothing touches, and what is touched moves as it should."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dynamics_backends import shared_dynamics
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Intervention,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION
from wm_core.scene_graph import Predicate, Relation, SceneGraph, Shape
from wm_dynamics.base import Dynamics, DynamicsResult
from wm_dynamics.belief import sample_belief
from wm_dynamics.learned.backend import LearnedDynamics
from wm_dynamics.settling.preparation import ScenePreparation

BACKENDS = ("learned", pytest.param("onnxruntime", marks=pytest.mark.slow), "physics")
BOTH = ("learned", "physics")
TIMES = np.arange(61) / 30.0
NOTHING = Hypothesis("nothing")
POSITION_DEVIATION_M, TILT_DEVIATION_RAD = 0.006, 0.025
TABLE, LOW, HIGH, CAN, BALL, WALL, LEANING = range(1, 8)
"""Ids of the objects of ``clutter``."""
THINGS: list[tuple[Shape, tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = [
    (Shape.BOX, (0.10, 0.08, 0.06), (0.0, 0.0, 0.03), (0.0, 0.0, 0.0)),
    (Shape.BOX, (0.06, 0.06, 0.05), (0.01, 0.0, 0.085), (0.0, 0.0, 0.3)),
    (Shape.CYLINDER, (0.07, 0.07, 0.12), (0.085, 0.0, 0.06), (0.0, 0.0, 0.0)),
    (Shape.SPHERE, (0.07, 0.07, 0.07), (0.0, 0.076, 0.035), (0.0, 0.0, 0.0)),
    (Shape.BOX, (0.04, 0.20, 0.15), (-0.075, 0.05, 0.075), (0.0, 0.0, 0.0)),
    (Shape.BOX, (0.015, 0.06, 0.16), (-0.145, 0.05, 0.08), (0.0, 0.35, 0.0)),
]


@cache
def backend(name: str) -> Dynamics:
    return LearnedDynamics(engine="onnxruntime") if name == "onnxruntime" else shared_dynamics(name)


def seen(
    things: list[tuple[Any, ...]],
    position_m: float = POSITION_DEVIATION_M,
    tilt_rad: float = TILT_DEVIATION_RAD,
    **more: Any,
) -> SceneGraph:
    """Uncertain objects (shape, extents, position, rotation vector) on a table with its top at 0; ids from 2."""
    count = len(things) + 1
    turns = [(0.0, 0.0, 0.0), *(t[3] for t in things)]
    return SceneGraph.build(
        np.arange(1, count + 1),
        [(0.0, 0.0, -0.02), *(t[2] for t in things)],
        [(1.2, 1.2, 0.04), *(t[1] for t in things)],
        quaternions=Rotation.from_rotvec(turns).as_quat(),
        shapes=[Shape.BOX, *(t[0] for t in things)],
        class_names=["support"] + ["object"] * len(things),
        is_static=[True] + [False] * len(things),
        pose_covariances=np.tile(np.diag([position_m**2] * 3 + [tilt_rad**2] * 3), (count, 1, 1)),
        log_mass=np.log(np.full(count, 0.2)),
        **more,
    )


def clutter(errors: NDArray[np.float64] | None = None) -> SceneGraph:
    """A stack of two, a can, a ball and a wall that touch it, and a plate that leans on the wall.

    Args:
        errors: (6, 6) of each object: position and rotation vector in standard deviations.
    """
    off = np.zeros((6, 6)) if errors is None else errors
    things = []
    for (shape, extents, position, turn), e in zip(THINGS, off, strict=True):
        turned = Rotation.from_rotvec(TILT_DEVIATION_RAD * e[3:]) * Rotation.from_rotvec(turn)
        things.append((shape, extents, np.add(position, POSITION_DEVIATION_M * e[:3]), turned.as_rotvec()))
    return seen(things, relations=[Relation(HIGH, Predicate.ON, LOW, 0.9, 0)])


def rollout(name: str, scene: SceneGraph, *futures: tuple[Intervention, ...], **more: Any) -> DynamicsResult:
    """The futures of interventions, the first without any."""
    hypotheses = [NOTHING, *(Hypothesis(f"h{k}", do) for k, do in enumerate(futures))]
    return backend(name).rollout([scene], hypotheses, TIMES, **more)


def moved(result: DynamicsResult, k: int) -> NDArray[np.float64]:
    """(M,) largest distance from the start [m] in a future; by id at ``id - 1``."""
    positions = result.states[k, 0, :, :, POSITION].astype(np.float64)
    distances: NDArray[np.float64] = np.linalg.norm(positions - positions[0], axis=-1).max(axis=0)
    return distances


ERRORS = st.lists(st.floats(-2.0, 2.0, width=32), min_size=36, max_size=36)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(errors=ERRORS)
def test_nothing_moves_where_nothing_is_done(name: str, errors: list[float]) -> None:
    """Objects seen hovering, tilted, and in one another, by errors within what perception says of them."""
    result = rollout(name, clutter(np.reshape(errors, (6, 6))))
    assert moved(result, 0).max() < 1e-3
    assert not any(result.doubts)


@pytest.mark.parametrize("name", BACKENDS)
def test_nothing_moves_in_any_sample(name: str) -> None:
    scenes = sample_belief(clutter(), 6, seed=3)
    result = backend(name).rollout(scenes, [NOTHING], TIMES)
    positions = result.states[0, ..., POSITION]
    assert np.linalg.norm(positions - positions[:, :1], axis=-1).max() < 1e-3


@pytest.mark.parametrize("name", BOTH)
def test_samples_that_are_drawn_to_move_do(name: str) -> None:
    velocities = np.zeros((7, 3))
    velocities[BALL - 1] = (0.0, 0.02, 0.0)
    twist = np.tile(np.diag([0.05**2] * 2 + [1e-8] + [1e-6] * 3), (7, 1, 1))
    scene = replace(clutter(), linear_velocities=velocities, twist_covariances=twist)
    result = backend(name).rollout(sample_belief(scene, 8, seed=0), [NOTHING], TIMES)
    track = result.states[0, :, :, BALL - 1, POSITION]
    way = np.linalg.norm(track - track[:, :1], axis=-1).max(axis=1)
    assert way[0] < 1e-3 < 0.01 < np.max(way[1:])


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_pushed_moves_and_wakes_what_it_hits(name: str) -> None:
    apart = [
        (*THINGS[0][:2], (0.0, 0.0, 0.033), (0.0, 0.03, 0.0)),
        (*THINGS[0][:2], (0.16, 0.01, 0.027), (0.02, 0.0, 0.0)),
    ]
    apart.append((*THINGS[0][:2], (0.0, 0.3, 0.03), (0.0, 0.0, 0.0)))
    result = rollout(name, seen(apart), (set_velocity(2, (1.5, 0.0, 0.0)),))
    assert moved(result, 0).max() < 1e-3
    way = moved(result, 1)
    assert way[1] > 0.05 and way[2] > 0.02 and way[3] < 1e-3
    assert any((c.a, c.b, c.began) == (2, 3, True) and 0.0 < c.time_s < 0.2 for c in result.contacts)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_push_reaches_what_touches_from_the_start(name: str) -> None:
    row = [(*THINGS[0][:2], (0.1 * k - 0.004 * k, 0.0, 0.03), (0.0, 0.0, 0.0)) for k in range(3)]
    result = rollout(name, seen(row), (set_velocity(2, (0.8, 0.0, 0.0)),))
    end = result.states[1, 0, -1, 1:, 0] - result.states[1, 0, 0, 1:, 0]
    assert (end > 0.003).all() and np.linalg.norm(result.states[1, ..., LINEAR_VELOCITY], axis=-1).max() < 0.9


@pytest.mark.parametrize("name", BACKENDS)
def test_removing_what_carries_lets_fall_and_removing_a_neighbor_does_not(name: str) -> None:
    errors = np.random.default_rng(5).uniform(-1.0, 1.0, (6, 6))
    result = rollout(name, clutter(errors), (remove(LOW),), (remove(CAN),), (remove(BALL),), (remove(HIGH),))
    fallen = result.states[1, 0, -1, HIGH - 1, 2] - result.states[1, 0, 0, HIGH - 1, 2]
    assert fallen == pytest.approx(-0.06, abs=0.012)
    for k, gone in ((2, CAN), (3, BALL), (4, HIGH)):
        others = np.delete(moved(result, k), gone - 1)
        assert others.max() < 1e-3, (gone, others)


@pytest.mark.parametrize("name", BACKENDS)
def test_removing_the_table_lets_all_fall(name: str) -> None:
    result = rollout(name, clutter(), (remove(TABLE),))
    assert moved(result, 1)[1:].min() > 0.3


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("shape", [Shape.BOX, Shape.SPHERE, Shape.CYLINDER])
def test_a_sleeper_that_is_hit_moves_as_if_it_had_been_awake(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: Shape
) -> None:
    target = (shape, (0.07, 0.07, 0.07), (0.15, 0.01, 0.035), (0.0, 0.0, 0.0))
    scene = seen([(Shape.SPHERE, (0.08, 0.08, 0.08), (-0.1, 0.0, 0.04), (0.0, 0.0, 0.0)), target], 1e-5, 1e-5)
    roll = (set_velocity(2, (0.9, 0.0, 0.0), (0.0, 0.9 / 0.04, 0.0)),)
    asleep = rollout(name, scene, roll).states[1, 0]
    # The same with nothing asleep at the start.
    monkeypatch.setattr("wm_dynamics.learned.backend.put_to_rest", lambda *_: None)
    monkeypatch.setattr(ScenePreparation, "seen_at_rest", lambda _, starts: np.zeros(starts.shape[:2], dtype=bool))
    fresh = LearnedDynamics() if name == "learned" else shared_dynamics(name)
    awake = fresh.rollout([scene], [NOTHING, Hypothesis("roll", roll)], TIMES).states[1, 0]
    at = 30
    assert np.linalg.norm(awake[at, 2, POSITION] - awake[0, 2, POSITION]) > 0.015
    np.testing.assert_allclose(asleep[at, 1:, POSITION], awake[at, 1:, POSITION], atol=0.006)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_pusher_takes_along_what_it_meets(name: str) -> None:
    scene = seen(
        [(*THINGS[0][:2], (0.0, 0.0, 0.03), (0.0, 0.0, 0.0)), (*THINGS[1][:2], (0.0, 0.0, 0.085), (0.0, 0.0, 0.0))]
    )
    body = BodySpec(Shape.SPHERE, np.full(3, 0.04))
    path = follow_path([0.0, 2.0], [(-0.12, 0.0, 0.03), (0.0, 0.0, 0.03)], body=body)
    result = rollout(name, scene, (path,))
    way = result.states[1, 0, -1, 1:3, 0] - result.states[1, 0, 0, 1:3, 0]
    assert way == pytest.approx([0.07, 0.07], abs=0.01)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_was_seen_as_two_that_lie_in_one_another_does_not_fly_apart(name: str) -> None:
    """Parts of one object, 3 cm deep in one another: they rest, and a push gives them no more than its speed."""
    parts = [
        (Shape.BOX, (0.10, 0.08, 0.08), (0.0, 0.0, 0.04), (0.0, 0.0, 0.0)),
        (Shape.BOX, (0.10, 0.08, 0.08), (0.07, 0.0, 0.04), (0.0, 0.0, 0.0)),
    ]
    result = rollout(name, seen(parts), (apply_impulse(2, (0.0, 0.1, 0.0)),))
    assert moved(result, 0).max() < 1e-3
    speed = np.linalg.norm(result.states[1, ..., LINEAR_VELOCITY], axis=-1)
    assert 0.2 < speed.max() < 0.1 / 0.2 + 0.1


@pytest.mark.parametrize("name", BACKENDS)
def test_every_intervention_wakes_what_it_is_on(name: str) -> None:
    scene = clutter()
    drop = BodySpec(Shape.BOX, np.full(3, 0.04), np.array([0.01, 0.0, 0.25]), mass=0.2)
    result = rollout(
        name,
        scene,
        (set_pose(HIGH, (0.3, 0.3, 0.2)),),
        (add(drop),),
        (morph(LOW, (1.0, 1.0, 0.5)),),
        (set_property(CAN, Property.MASS, 0.5),),
        (set_velocity(CAN, (0.5, 0.0, 0.0), at_s=1.0),),
    )
    assert result.states[1, 0, -1, HIGH - 1, 2] == pytest.approx(0.025, abs=0.005)
    assert any(c.hypothesis == 2 and c.began and c.time_s > 0.05 and c.b == 8 for c in result.contacts)
    assert result.states[3, 0, -1, HIGH - 1, 2] == pytest.approx(0.055, abs=0.01)
    assert moved(result, 4).max() < 1e-3
    assert moved(result, 5)[CAN - 1] > 0.02


@pytest.mark.parametrize("name", BACKENDS)
def test_what_touches_at_the_start_is_reported(name: str) -> None:
    scene = seen(
        [(*THINGS[0][:2], (0.0, 0.0, 0.03), (0.0, 0.0, 0.0)), (*THINGS[1][:2], (0.0, 0.0, 0.085), (0.0, 0.0, 0.0))]
    )
    result = rollout(name, scene, (set_velocity(3, (1.5, 0.0, 0.0), at_s=0.5),))
    begun = {(c.hypothesis, c.a, c.b) for c in result.contacts if c.began and c.time_s == 0.0}
    assert begun == {(k, a, b) for k in range(2) for a, b in ((1, 2), (2, 3))}
    assert any((c.hypothesis, c.a, c.b, c.began) == (1, 2, 3, False) and c.time_s > 0.5 for c in result.contacts)
    assert not any(c.hypothesis == 0 and c.time_s > 0.0 for c in result.contacts)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("known", [True, False])
def test_what_leaves_the_table_lands_on_the_floor_and_stays_there(name: str, known: bool) -> None:
    """The floor lies 0.75 m below the table's top where none was seen."""
    shapes: list[tuple[Shape, tuple[float, ...], float]] = [
        (Shape.BOX, (0.08, 0.06, 0.05), 0.025),
        (Shape.CYLINDER, (0.07, 0.07, 0.12), 0.06),
        (Shape.SPHERE, (0.07, 0.07, 0.07), 0.035),
        (Shape.BOX, (0.10, 0.07, 0.008), 0.004),
        (Shape.BOX, (0.02, 0.02, 0.02), 0.01),
    ]
    scene = seen([(s, e, (0.5, 0.2 * k - 0.4, z), (0.0, 0.0, 0.0)) for k, (s, e, z) in enumerate(shapes)])
    if known:
        scene = replace(scene, pose_covariances=np.zeros_like(scene.pose_covariances))
    times = np.arange(121) / 30.0
    speeds = [(1.2, 0.0, 0.0), (4.0, 0.0, 3.0)]
    futures = [Hypothesis("off", (set_velocity(i, v),)) for v in speeds for i in range(2, 7)]
    result = backend(name).rollout([scene], futures, times)
    for k in range(len(futures)):
        height, half = result.states[k, 0, :, k % 5 + 1, 2], 0.5 * min(shapes[k % 5][1])
        assert height.min() > -0.75 - 0.5 * half
        assert -0.75 + half - 0.003 < height[-1] < -0.75 + 0.5 * max(shapes[k % 5][1]) + 0.003
        assert np.ptp(height[-15:]) < 2e-3
        if shapes[k % 5][0] == Shape.BOX:
            assert np.linalg.norm(result.states[k, 0, -1, k % 5 + 1, ANGULAR_VELOCITY]) < 0.05


@pytest.mark.parametrize("name", BOTH)
def test_a_floor_that_was_seen_goes_on_beyond_what_was_seen_of_it(name: str) -> None:
    """A part of the floor, 0.6 m below the table's top; the ball lands a meter beyond it."""
    scene = seen([(Shape.SPHERE, (0.07, 0.07, 0.07), (0.5, 0.0, 0.035), (0.0, 0.0, 0.0))])
    floor = SceneGraph.build(
        [9], [(0.0, 0.0, -0.61)], [(1.6, 1.6, 0.02)], shapes=[Shape.BOX], class_names=["support"], is_static=[True]
    )
    both = SceneGraph.build(
        [1, 2, 9],
        np.concatenate([scene.positions, floor.positions]),
        np.concatenate([scene.extents, floor.extents]),
        shapes=[Shape.BOX, Shape.SPHERE, Shape.BOX],
        class_names=["support", "object", "support"],
        is_static=[True, False, True],
        pose_covariances=np.concatenate([scene.pose_covariances, floor.pose_covariances]),
    )
    result = backend(name).rollout([both], [Hypothesis("off", (set_velocity(2, (4.0, 0.0, 1.0)),))], TIMES)
    end = result.states[0, 0, -1, 1]
    assert end[0] > 2.0 and end[2] == pytest.approx(-0.6 + 0.035, abs=0.004)
    assert result.states[0, 0, :, 1, 2].min() > -0.6
