"""The learned dynamics: what its structure promises, whatever its weights, and what the shipped weights reach."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.inference.base import InferenceError
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
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
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.auto import AutomaticDynamics
from wm_dynamics.base import DynamicsResult
from wm_dynamics.contact_step.body_tables import body_shape
from wm_dynamics.contact_step.network import default_model
from wm_dynamics.factory import make_dynamics
from wm_dynamics.learned.backend import LearnedDynamics
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef

TIMES = np.arange(31) / 30.0
BOX = (Shape.BOX, (0.08, 0.06, 0.05))
CAN = (Shape.CYLINDER, (0.07, 0.07, 0.12))
BALL = (Shape.SPHERE, (0.07, 0.07, 0.07))
FACTUAL = Hypothesis("factual")


def scene(things: list[tuple[Any, ...]], **more: Any) -> SceneGraph:
    """Objects (shape, extents, position[, quaternion]) over a table of 1.2 m whose top is at 0; ids from 2."""
    shapes, extents, positions, quaternions = [Shape.BOX], [(1.2, 1.2, 0.04)], [(0.0, 0.0, -0.02)], [(0, 0, 0, 1)]
    for shape, extent, position, *turn in things:
        shapes.append(shape)
        extents.append(extent)
        positions.append(position)
        quaternions.append(turn[0] if turn else (0, 0, 0, 1))
    return SceneGraph.build(
        np.arange(1, len(shapes) + 1),
        positions,
        extents,
        quaternions=quaternions,
        shapes=shapes,
        class_names=["support"] + ["object"] * len(things),
        is_static=[True] + [False] * len(things),
        **more,
    )


def three() -> SceneGraph:
    return scene([(*BOX, (0.0, 0.0, 0.025)), (*CAN, (0.2, 0.1, 0.06)), (*BALL, (-0.2, 0.1, 0.035))])


@pytest.fixture(scope="module")
def learned() -> LearnedDynamics:
    return LearnedDynamics(threads=2)


def roll(
    dynamics: Any, graph: SceneGraph, *hypotheses: Hypothesis, times: NDArray[Any] = TIMES, **more: Any
) -> DynamicsResult:
    result: DynamicsResult = dynamics.rollout([graph], hypotheses or (FACTUAL,), times, **more)
    return result


def test_what_rests_stays_exactly(learned: LearnedDynamics) -> None:
    graph = three()
    states = roll(learned, graph).states[0, 0]
    np.testing.assert_allclose(states[:, 1:, POSITION], np.broadcast_to(states[0, 1:, POSITION], (31, 3, 3)), atol=1e-6)
    np.testing.assert_allclose(states[0, :, POSITION], graph.positions, atol=1e-4)


def test_flight_is_that_of_a_thrown_stone(learned: LearnedDynamics) -> None:
    """Exact but for rounding: x = v t, z = z0 + w t - g t^2 / 2."""
    graph = scene([(*BALL, (-0.4, 0.0, 1.2))])
    throw = Hypothesis("throw", (set_velocity(2, (0.8, 0.2, 1.0), (0.0, 0.0, 2.0)),))
    times = np.arange(16) / 30.0
    states = roll(learned, graph, throw, times=times).states[0, 0, :, 1]
    expected = np.stack([-0.4 + 0.8 * times, 0.2 * times, 1.2 + 1.0 * times - 0.5 * 9.81 * times**2], axis=1)
    np.testing.assert_allclose(states[:, POSITION], expected, atol=2e-3)
    np.testing.assert_allclose(states[:, ANGULAR_VELOCITY], [[0.0, 0.0, 2.0]] * 16, atol=1e-3)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    speed=st.floats(0.3, 2.0),
    offset=st.floats(-0.03, 0.03),
    masses=st.tuples(st.floats(0.05, 2.0), st.floats(0.05, 2.0)),
)
def test_a_collision_in_the_air_keeps_momentum_and_makes_no_energy(
    learned: LearnedDynamics, speed: float, offset: float, masses: tuple[float, float]
) -> None:
    graph = scene([(*BALL, (-0.15, 0.0, 2.0)), (*BALL, (0.15, offset, 2.0))], log_mass=np.log((1.0, *masses)))
    meet = Hypothesis("meet", (set_velocity(2, (speed, 0, 0)), set_velocity(3, (-speed, 0, 0))))
    states = roll(learned, graph, meet, times=np.arange(16) / 30.0).states[0, 0, :, 1:].astype(np.float64)
    mass = np.array(masses)
    momentum = np.einsum("m,tmi->ti", mass, states[..., LINEAR_VELOCITY])
    np.testing.assert_allclose(momentum[:, :2], np.broadcast_to(momentum[0, :2], (16, 2)), atol=1e-3 * mass.sum())
    inertia = 0.1 * mass * 0.07**2 * 4.0
    energy = (
        0.5 * mass * (states[..., LINEAR_VELOCITY] ** 2).sum(-1)
        + 0.5 * inertia * (states[..., ANGULAR_VELOCITY] ** 2).sum(-1)
        + mass * 9.81 * states[..., 2]
    ).sum(axis=1)
    assert energy[-1] < energy[0] * 1.02 + 1e-3


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(yaw=st.floats(-3.1, 3.1), x=st.floats(-5.0, 5.0), y=st.floats(-5.0, 5.0))
def test_moving_and_turning_the_world_moves_and_turns_the_answer(
    learned: LearnedDynamics, yaw: float, x: float, y: float
) -> None:
    things = [(*BOX, (0.0, 0.0, 0.025)), (*CAN, (0.15, 0.01, 0.06)), (*BALL, (-0.2, 0.1, 0.035))]
    turn, shift = Rotation.from_euler("z", yaw), np.array([x, y, 0.0])
    moved = [(shape, extents, turn.apply(position) + shift, turn.as_quat()) for shape, extents, position in things]
    first, second = scene(things), scene(moved)
    second = replace(
        second,
        positions=np.concatenate([[turn.apply(first.positions[0]) + shift], second.positions[1:]]),
        quaternions=np.concatenate([[turn.as_quat()], second.quaternions[1:]]),
    )
    push = np.array([0.06, 0.005, 0.0])
    a = roll(learned, first, Hypothesis("p", (apply_impulse(2, push),))).states[0, 0]
    b = roll(learned, second, Hypothesis("p", (apply_impulse(2, turn.apply(push)),))).states[0, 0]
    back = turn.inv().apply(b[:, 1:, POSITION].reshape(-1, 3) - shift).reshape(31, 3, 3)
    # The first quarter of a second: later, rounding decides what hits what by a hair.
    np.testing.assert_allclose(back[:8], a[:8, 1:, POSITION], atol=2e-3)


def test_permuting_things_permutes_the_answer(learned: LearnedDynamics) -> None:
    graph = three()
    order = [0, 3, 1, 2]
    shuffled = SceneGraph.build(
        graph.ids,
        graph.positions[order],
        graph.extents[order],
        shapes=[Shape(int(graph.shapes[i])) for i in order],
        class_names=[graph.class_names[i] for i in order],
        is_static=graph.is_static[order],
    )
    hit = set_velocity(2, (0.7, 0.4, 0.0))
    a = roll(learned, graph, Hypothesis("hit", (hit,))).states[0, 0]
    b = roll(learned, shuffled, Hypothesis("hit", (replace(hit, object_id=3),))).states[0, 0]
    np.testing.assert_allclose(b[:15], a[:15][:, order], atol=2e-3)


def test_removing_what_touches_nothing_changes_nothing_else(learned: LearnedDynamics) -> None:
    graph = three()
    moves = set_velocity(2, (0.3, -0.3, 0.0))
    result = roll(learned, graph, Hypothesis("a", (moves,)), Hypothesis("b", (moves, remove(4))))
    np.testing.assert_array_equal(result.states[0, 0, :, :3], result.states[1, 0, :, :3])
    assert not result.present[1, :, 3].any() and result.present[0].all()


def test_removing_a_carrier_lets_fall_what_it_carried(learned: LearnedDynamics) -> None:
    graph = scene([(*BOX, (0.0, 0.0, 0.025)), (*BOX, (0.0, 0.0, 0.075))])
    result = roll(learned, graph, FACTUAL, Hypothesis("gone", (remove(2, at_s=0.2),)))
    assert abs(result.states[0, 0, -1, 2, 2] - 0.075) < 2e-3
    assert abs(result.states[1, 0, -1, 2, 2] - 0.025) < 3e-3
    before = TIMES < 0.2
    np.testing.assert_array_equal(result.states[0, 0, before], result.states[1, 0, before])


def test_every_intervention_at_a_time_of_its_own(learned: LearnedDynamics) -> None:
    graph = three()
    spec = BodySpec(shape=Shape.BOX, extents=np.array([0.03, 0.08, 0.06]))
    result = roll(
        learned,
        graph,
        Hypothesis("pose", (set_pose(3, (0.3, -0.3, 0.06), at_s=0.5),)),
        Hypothesis("add", (add(replace(spec, position=np.array([0.3, -0.3, 0.2])), at_s=0.3),)),
        Hypothesis("path", (follow_path([0, 1], [(-0.15, 0, 0.05), (0.15, 0, 0.05)], body=spec, at_s=0.1),)),
        Hypothesis("morph", (morph(3, (1.0, 1.0, 2.0), at_s=0.4),)),
        Hypothesis(
            "light", (set_property(2, Property.MASS, 0.5, factor=True), apply_impulse(2, (0.05, 0.0, 0.0), at_s=0.2))
        ),
        Hypothesis("heavy", (apply_impulse(2, (0.05, 0.0, 0.0), at_s=0.2),)),
        Hypothesis("slippery", (set_property(2, Property.FRICTION, 0.1), set_velocity(2, (0.5, 0, 0), at_s=0.2))),
        Hypothesis("rough", (set_velocity(2, (0.5, 0, 0), at_s=0.2),)),
    )
    end = result.states[:, 0, -1]
    np.testing.assert_allclose(end[0, 2, POSITION], [0.3, -0.3, 0.06], atol=2e-3)
    assert not result.present[1, 8, 4] and result.present[1, 10, 4] and not result.present[0, :, 4].any()
    assert abs(end[1, 4, 2] - 0.03) < 3e-3, "the box that was added lies on the table"
    assert end[2, 1, 0] > 0.1, "the pusher pushed the box"
    np.testing.assert_allclose(end[2, 4, POSITION], [0.12, 0.0, 0.05], atol=5e-3)
    assert abs(end[3, 2, 2] - 0.12) < 3e-3, "what is stretched stands as before"
    assert end[4, 1, 0] > 1.5 * end[5, 1, 0] > 0.0
    assert end[6, 1, 0] > 2.0 * end[7, 1, 0] > 0.0
    assert np.isfinite(result.states).all()


def test_nothing_falls_through_the_table(learned: LearnedDynamics) -> None:
    rng = np.random.default_rng(3)
    things = [
        (shape, extents, (0.25 * (i % 3) - 0.25, 0.25 * (i // 3) - 0.25, 0.25 + 0.1 * rng.uniform()),
         Rotation.random(random_state=rng.integers(1000)).as_quat())
        for i, (shape, extents) in enumerate([BOX, CAN, BALL, BOX, CAN, (Shape.CAPSULE, (0.05, 0.05, 0.12)), BOX])
    ]  # fmt: skip
    drop = Hypothesis("drop", tuple(set_velocity(i + 2, (0.0, 0.0, -2.0)) for i in range(len(things))))
    states = roll(learned, scene(things), drop).states[0, 0]
    on_table = np.abs(states[:, 1:, :2]).max(axis=-1) < 0.6
    assert (states[:, 1:, 2][on_table] > 0.015).all(), "a center below the surface"
    assert np.linalg.norm(states[-1, 1:, LINEAR_VELOCITY], axis=-1).max() < 0.5, "all but what rolls has come to rest"


@pytest.mark.parametrize("seed", range(6))
def test_what_a_heavy_box_falls_upon_does_not_fly_away(learned: LearnedDynamics, seed: int) -> None:
    # A hundred times heavier, on a rod on a plate: the sweeps alone do not find what the light ones do in between.
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-0.03, 0.03, 2)
    tilted = Rotation.from_euler("xyz", rng.uniform(0.3, 0.9, 3)).as_quat()
    lying = Rotation.from_euler("xyz", [0.0, np.pi / 2, rng.uniform(0.0, np.pi)]).as_quat()
    height = rng.uniform(0.24, 0.4)
    start = scene(
        [
            (Shape.BOX, (0.15, 0.09, 0.02), (0.0, 0.0, 0.01)),
            (Shape.CYLINDER, (0.038, 0.038, 0.138), (x, y, 0.039), lying),
            (Shape.BOX, (0.08, 0.17, 0.3), (2 * x, 2 * y, height), tilted),
        ],
        log_mass=np.log([15.0, 0.036, 0.043, 3.8]),
        restitution=[0.1, 0.05, 0.1, 0.1],
    )
    states = learned.rollout([start], [FACTUAL], np.arange(91) / 60.0).states[0, 0]
    speeds = np.linalg.norm(states[:, 1:, LINEAR_VELOCITY], axis=-1).max(axis=0)
    fastest = np.sqrt(2 * 9.81 * height)
    assert speeds[2] < 1.1 * fastest and speeds[:2].max() < 0.75 * fastest
    assert states[:, 1:3, 2].max() < 0.08 and states[:, 1:, 2].min() > -0.01


def test_agrees_with_physics_on_slides_topples_and_pushes(learned: LearnedDynamics) -> None:
    """The shipped weights, against MuJoCo, where that itself is certain."""
    physics = make_dynamics("physics")
    tall = scene([(Shape.BOX, (0.06, 0.06, 0.18), (0.0, 0.0, 0.09))])
    flat = scene([(*BOX, (0.0, 0.0, 0.025))])
    spec = BodySpec(shape=Shape.CYLINDER, extents=np.array([0.03, 0.03, 0.12]))
    path = follow_path([0, 1], [(-0.15, 0, 0.065), (0.1, 0, 0.065)], body=spec)
    mass = float(tall.masses[1])
    for graph, do, tolerance in (
        (flat, set_velocity(2, (0.8, 0, 0)), 0.015),
        (flat, set_velocity(2, (1.2, 0.3, 0)), 0.025),  # of 157 mm
        (flat, path, 0.02),
        (tall, apply_impulse(2, (0.6 * mass, 0, 0), (0, 0, 0.07)), 0.03),
    ):
        a, b = (roll(d, graph, Hypothesis("h", (do,))).states[0, 0, :, 1] for d in (learned, physics))
        assert np.linalg.norm(a[:, :3] - b[:, :3], axis=1).max() < tolerance, do
        up = [1.0 - 2.0 * (s[-1, 3] ** 2 + s[-1, 4] ** 2) for s in (a, b)]
        assert abs(up[0] - up[1]) < 0.1, f"one topples and the other does not: {do}"


def test_samples_scatter_and_hypotheses_share_their_random_numbers(learned: LearnedDynamics) -> None:
    graph = three()
    moves = set_velocity(2, (0.8, 0.1, 0.0))
    result = learned.rollout([graph] * 8, [Hypothesis("a", (moves,)), Hypothesis("b", (moves, remove(4)))], TIMES)
    ends = result.states[0, :, -1, 1, :3]
    assert np.ptp(ends[1:, 0]) > 1e-4, "what the network leaves open shows in the samples"
    np.testing.assert_array_equal(result.states[0][:, :, 1], result.states[1][:, :, 1])
    np.testing.assert_array_equal(result.states[0, 0], roll(learned, graph, Hypothesis("a", (moves,))).states[0, 0])
    assert result.scatter.shape == (2, 4) and result.scatter[0, 1] > result.scatter[0, 2] >= 0.0


def test_contacts_with_their_times(learned: LearnedDynamics) -> None:
    graph = scene([(*BALL, (0.0, 0.0, 0.035)), (*BALL, (0.3, 0.0, 0.035))])
    spin = (0.0, 1.0 / 0.035, 0.0)
    result = roll(learned, graph, Hypothesis("roll", (set_velocity(2, (1.0, 0, 0), spin),)))
    began = [c for c in result.contacts if c.began and (c.a, c.b) == (2, 3)]
    assert began and abs(began[0].time_s - 0.23) < 0.05
    assert any(c.time_s == 0.0 and (c.a, c.b) == (1, 3) for c in result.contacts), "rests on the table from the start"


def test_a_deadline_or_a_stop_ends_it_with_what_is_done(learned: LearnedDynamics) -> None:
    graph = three()
    many = [Hypothesis(str(k), (apply_impulse(2, (0.01 + 0.0001 * k, 0, 0)),)) for k in range(512)]
    begin = time.monotonic()
    none = roll(learned, graph, *many, deadline=time.monotonic() + 0.001)
    assert none.completed == 0 and not none.present.any() and time.monotonic() - begin < 2.0
    seen: list[int] = []
    asked = iter(range(10_000))
    part = roll(
        learned,
        graph,
        *many,
        deadline=time.monotonic() + 1000.0,
        should_stop=lambda: bool(seen) or next(asked) > 5000,
        on_hypothesis=lambda k, states, present: seen.append(k),
    )
    assert seen == list(range(part.completed))
    assert part.present[: part.completed].any() and not part.present[part.completed :].any()


@pytest.mark.slow
def test_auto_says_who_answered_and_hands_over_what_it_is_unsure_of(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = make_dynamics("auto")
    assert isinstance(auto, AutomaticDynamics)
    graph = three()
    hit = Hypothesis("hit", (set_velocity(2, (0.5, 0.3, 0.0)),))
    result = roll(auto, graph, FACTUAL, hit)
    assert result.backends == ("learned", "learned") and result.backend == "learned"
    monkeypatch.setattr("wm_dynamics.auto.UNSURE_M", 1e-9)
    result = roll(auto, graph, FACTUAL, hit)
    assert result.backends == ("physics", "physics") and result.backend == "physics"
    late = roll(auto, graph, FACTUAL, hit, deadline=time.monotonic() + 0.03)
    assert "physics" not in late.backends, "no time is left for physics"


def test_auto_without_its_model_is_physics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dynamics = make_dynamics("auto", model=tmp_path / "none.onnx")
    assert dynamics.name == "physics"
    assert "none.onnx: no such file" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("change", ["absent", "rubbish", "input", "output", "rows", "version"])
def test_a_bad_model_is_refused_by_file_and_tensor(tmp_path: Path, change: str) -> None:
    import onnx

    path = tmp_path / "dynamics.onnx"
    expected = {
        "absent": "no such file",
        "rubbish": "ONNX Runtime refuses it",
        "input": "input 'plane' is missing",
        "output": "output 'deviation' is missing",
        "rows": "expected",
        "version": "made for tables of version 0",
    }[change]
    if change == "rubbish":
        path.write_bytes(b"not a model")
    elif change != "absent":
        model = onnx.load(default_model())
        if change in ("input", "output"):
            name = {"input": "plane", "output": "deviation"}[change]
            for value in (*model.graph.input, *model.graph.output):
                if value.name == name:
                    value.name = "other"
            for node in model.graph.node:
                for names in (node.input, node.output):
                    for k, given_name in enumerate(names):
                        if given_name == name:
                            names[k] = "other"
        elif change == "rows":
            for value in model.graph.input:
                if value.name == "plane":
                    value.type.tensor_type.shape.dim[0].ClearField("dim_value")
                    value.type.tensor_type.shape.dim[0].dim_param = "rows"
        else:
            for entry in model.metadata_props:
                if entry.key == "version":
                    entry.value = "0"
        onnx.save(model, path)
    with pytest.raises(InferenceError, match=expected) as error:
        LearnedDynamics(path)
    assert str(path) in str(error.value)
    with pytest.raises(InferenceError, match=r"dynamics\.onnx"):
        make_dynamics("learned", model=path)


def test_shapes_of_hulls() -> None:
    """A hull that is round about z stands on its rims, any other on its points; both weigh as MuJoCo weighs them."""
    angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(24)], axis=1)
    cone = np.concatenate([0.05 * ring, 0.02 * ring + [0.0, 0.0, 0.1]])
    wedge = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.06, 0], [0.1, 0.06, 0], [0, 0, 0.05], [0, 0.06, 0.05]])
    for points, is_round in ((cone, True), (wedge, False)):
        shape = body_shape(BodyDef((GeomDef(Shape.CONVEX, np.ptp(points, axis=0), hull=points),), 1.0))
        assert shape.cylinder == is_round and shape.hull is not None
        assert 0.0 < shape.offset[2] < 0.5 * np.ptp(points[:, 2]) + points[:, 2].min()
        assert (np.linalg.eigvalsh(shape.inertia) > 0.0).all()
        reach = np.linalg.norm(points - shape.offset, axis=1).max()
        assert shape.bound >= reach - 1e-6
    cone_shape = body_shape(BodyDef((GeomDef(Shape.CONVEX, np.ptp(cone, axis=0), hull=cone),), 1.0))
    np.testing.assert_allclose(cone_shape.rims[[0, 2]], [0.05, 0.02], atol=2e-3)


def test_quaternions_stay_unit(learned: LearnedDynamics) -> None:
    states = roll(learned, three(), Hypothesis("spin", (set_velocity(3, (0.1, 0, 0.5), (3, 9, 2)),))).states
    np.testing.assert_allclose(np.linalg.norm(states[..., QUATERNION], axis=-1), 1.0, atol=1e-4)
