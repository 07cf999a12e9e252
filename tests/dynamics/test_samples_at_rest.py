"""Sampled futures of objects at rest: they stay at rest in every sample, and the futures are valid."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from dynamics_backends import shared_dynamics
from wm_core.interventions import Hypothesis, apply_impulse
from wm_core.rollout import LINEAR_VELOCITY, POSITION, ImagineRequest
from wm_core.scene_graph import SceneGraph
from wm_dynamics.auto import AutomaticDynamics
from wm_dynamics.belief import sample_belief
from wm_dynamics.learned.backend import LearnedDynamics
from wm_imagination.engine import Imagination
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig
from wm_sim.depth_noise import DepthNoise
from wm_sim.simulator import Simulator

pytestmark = pytest.mark.slow

TIMES = np.arange(61) / 30.0
FACTUAL = Hypothesis("as it is")
RESTS_M_S = 0.05
SETTLED = TIMES > 1.0
"""What was perceived some degrees off the face that it stands on may rock down in the first second."""
FRAMES = 14


@cache
def perceived(name: str) -> SceneGraph:
    """What perception makes of the first second of a simulated scene, in which everything rests."""
    pipeline = PerceptionPipeline(PerceptionConfig(inference_threads=1))
    with Simulator(name, 0, noise=DepthNoise()) as simulator:
        for number in range(FRAMES):
            simulator.advance_to(number / 15.0)
            image = simulator.render()
            frame = Frame(simulator.stamp_ns + 1, image.rgb, image.depth, simulator.camera, image.world_T_camera)
            result = pipeline.process(frame)
    assert len(result.scene) > 3
    return result.scene


@cache
def known(name: str) -> SceneGraph:
    """Ground truth of a simulated scene after half a second, as uncertain as perception is of it."""
    with Simulator(name, 1) as simulator:
        simulator.advance_to(0.5)
        ground_truth = simulator.ground_truth()
    pose = np.diag([0.005**2, 0.005**2, 0.004**2, 0.015**2, 0.015**2, 0.03**2])
    count = len(ground_truth)
    return replace(
        ground_truth,
        linear_velocities=np.zeros((count, 3)),
        angular_velocities=np.zeros((count, 3)),
        pose_covariances=np.tile(pose, (count, 1, 1)),
        log_mass_std=np.full(count, 0.9),
        friction_std=np.full(count, 0.15),
        restitution_std=np.full(count, 0.1),
    )


SCENES = [
    (perceived, "demo"),
    (perceived, "stack_knock"),
    *((known, n) for n in ("demo", "crowd", "billiard", "dominoes")),
]


@pytest.fixture(scope="module")
def learned() -> LearnedDynamics:
    dynamics = shared_dynamics("learned")
    assert isinstance(dynamics, LearnedDynamics)
    return dynamics


@pytest.mark.parametrize("samples", [16, 64])
@pytest.mark.parametrize(("source", "name"), SCENES, ids=[f"{s.__name__}-{n}" for s, n in SCENES])
def test_what_rests_goes_on_resting_in_every_sample(
    learned: LearnedDynamics, source: Any, name: str, samples: int
) -> None:
    scene = source(name)
    result = learned.rollout(sample_belief(scene, samples, 0), [FACTUAL], TIMES)
    speed = np.linalg.norm(result.states[0, ..., LINEAR_VELOCITY], axis=-1)  # (S, T, M)
    assert speed[:, SETTLED].max() < RESTS_M_S, {
        int(scene.ids[m]): int((speed[:, SETTLED, m].max(axis=1) >= RESTS_M_S).sum()) for m in range(len(scene))
    }
    assert speed.max() < 3.0
    assert not any(result.doubts)


def test_both_engines_rest_alike() -> None:
    scene = known("demo")
    results = [
        LearnedDynamics(engine=engine).rollout(sample_belief(scene, 8, 0), [FACTUAL], TIMES)
        for engine in ("compiled", "onnxruntime")
    ]
    np.testing.assert_allclose(results[0].states[..., POSITION], results[1].states[..., POSITION], atol=1e-3)
    np.testing.assert_allclose(results[0].scatter, results[1].scatter, atol=2e-3)


@pytest.mark.parametrize("samples", [1, 16, 64])
def test_the_documented_question_is_answered(samples: int) -> None:
    """wm imagine --push 4 0.05 0 0 --horizon 2 --samples 16, of what wm sim shows."""
    scene = perceived("demo")
    shared_dynamics("auto")
    hypotheses = (FACTUAL, Hypothesis("push 4", (apply_impulse(4, (0.05, 0.0, 0.0)),)))
    rollout = Imagination().imagine(ImagineRequest(hypotheses, 2.0, samples=samples), scene)
    assert rollout.complete and rollout.valid[0], rollout.invalid_reasons
    start, end = rollout.states[0, :, 0, :, POSITION], rollout.states[0, :, -1, :, POSITION]
    assert np.linalg.norm(end - start, axis=-1).max() < 0.03
    speed = np.linalg.norm(rollout.states[0, ..., LINEAR_VELOCITY], axis=-1)
    assert speed[:, SETTLED].max() < RESTS_M_S
    # What is pushed goes along, no faster than the blow can make the lightest of its samples.
    assert rollout.valid[1], rollout.invalid_reasons
    pushed = scene.index(4)
    moved = rollout.states[1, :, -1, pushed, 0] - rollout.states[1, :, 0, pushed, 0]
    assert moved.mean() > 0.005
    mass = np.exp([sample.log_mass[pushed] for sample in sample_belief(scene, samples, 0)])
    level = np.linalg.norm(rollout.states[1, ..., 7:9], axis=-1)  # (S, T, M)
    assert (level.max(axis=(1, 2)) <= 2.0 * 0.05 / mass + 0.1).all()


def test_auto_says_of_what_it_is_unsure_when_physics_has_no_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    auto = shared_dynamics("auto")
    assert isinstance(auto, AutomaticDynamics)
    scene = known("demo")
    mover = int(scene.ids[~scene.is_static][0])
    pushes = [Hypothesis(f"push {k}", (apply_impulse(mover, (0.02 + 0.01 * k, 0.0, 0.0)),)) for k in range(5)]
    engine = Imagination()
    monkeypatch.setattr(engine, "dynamics", lambda name: auto)
    monkeypatch.setattr("wm_dynamics.auto.UNSURE_M", 1e-9)
    for samples, room in ((1, 0), (16, 0), (16, 3), (16, 99)):
        monkeypatch.setattr("wm_dynamics.auto.MAX_HANDED_OVER", room * samples)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            rollout = engine.imagine(ImagineRequest((FACTUAL, *pushes), 0.5, samples=samples), scene)
        by_physics = np.array([name == "physics" for name in rollout.backends])
        # The factual future rests: of it the learned backend is sure.
        assert rollout.valid[0]
        np.testing.assert_array_equal(rollout.valid[1:], by_physics[1:])
        assert by_physics.sum() == {0: 0, 3: 2, 99: 6}[room]
        for reason, valid in zip(rollout.invalid_reasons, rollout.valid, strict=True):
            assert valid == (reason == "") and (valid or reason.startswith("unsure: the learned backend leaves"))
        assert bool(rollout.warnings) == (not rollout.valid.all())
        assert any("unsure" in record.getMessage() for record in caplog.records) == (not rollout.valid.all())
        assert np.isnan(rollout.effect[~rollout.valid]).all()
        # Effects of what physics answers are against its own factual future.
        assert np.isfinite(rollout.effect[rollout.valid]).all()
        if room:
            assert rollout.effect[by_physics][:, scene.index(mover)].max() > 0.001


def test_with_a_deadline_physics_takes_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = shared_dynamics("auto")
    assert isinstance(auto, AutomaticDynamics)
    scene = known("demo")
    mover = int(scene.ids[~scene.is_static][0])
    pushes = [Hypothesis(f"push {k}", (apply_impulse(mover, (0.02 + 0.001 * k, 0.0, 0.0)),)) for k in range(200)]
    monkeypatch.setattr("wm_dynamics.auto.UNSURE_M", 1e-9)
    monkeypatch.setattr(auto, "_estimate", 1.0)
    engine = Imagination()
    monkeypatch.setattr(engine, "dynamics", lambda name: auto)
    none = engine.imagine(ImagineRequest((FACTUAL, *pushes), 0.5, deadline_s=0.2), scene)
    assert "physics" not in none.backends and not none.valid[1:].any()
    # With 2 ms a future of half a second there is room for all in a minute.
    monkeypatch.setattr(auto, "_estimate", 0.004)
    whole = engine.imagine(ImagineRequest((FACTUAL, *pushes), 0.5, deadline_s=60.0), scene)
    assert set(whole.backends) == {"physics"} and whole.valid.all()
    assert auto._estimate != 0.004, "what it took was not measured"
