"""Requests: what is refused and how it is said, what comes out, effect, pairs, deadlines, cancelling, images."""

from __future__ import annotations

import gc
import time
from dataclasses import replace

import numpy as np
import pytest

from dynamics_backends import shared_dynamics
from traced_scene import BALL, BOX, CAMERA, FRONT, TABLE, make_scene, psnr, trace
from wm_core.camera import Camera
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    InterventionError,
    UnknownObjectError,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    restyle,
    set_pose,
    set_velocity,
)
from wm_core.rollout import ImageRequest, ImagineRequest, RequestError
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.settling.restoration import states_as_seen
from wm_imagination.answering import Progress
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.engine import Imagination
from wm_imagination.limits import BACKENDS, Limits
from wm_imagination.rendering.bodies import bodies_at
from wm_imagination.validation import NoAppearanceError, frame_rows

FACTUAL = Hypothesis("factual")
PUSH = Hypothesis("push", (set_velocity(BALL, (0.0, 0.5, 0.0)),))
GONE = Hypothesis("gone", (remove(BOX),))
VIDEO = ImageRequest(video=True, depth=True, rate_hz=5.0)
NAN = float("nan")


@pytest.fixture(scope="module")
def memory() -> AppearanceMemory:
    memory, scene = AppearanceMemory(), make_scene()
    color, depth, ids = trace(scene)
    memory.integrate(1, color, depth, CAMERA, FRONT, ids, scene)
    return memory


def ask(*hypotheses: Hypothesis, horizon_s: float = 0.5, **values: object) -> ImagineRequest:
    return ImagineRequest(hypotheses or (FACTUAL,), horizon_s, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        (ImagineRequest((), 1.0), RequestError, "hypotheses: got 0, expected 1 to 1024 (max_hypotheses)"),
        (ask(horizon_s=0.0), RequestError, "horizon: got 0 s, expected more than 0 to 30 s"),
        (ask(horizon_s=-1.0), RequestError, "horizon: got -1 s"),
        (ask(horizon_s=1e9), RequestError, "horizon: got 1e+09 s, expected more than 0 to 30 s"),
        (ask(horizon_s=NAN), RequestError, "horizon: got nan s"),
        (ask(step_s=0.0), RequestError, "step: got 0 s, expected 0.001 to 0.5 s"),
        (ask(step_s=NAN), RequestError, "step: got nan s"),
        (ask(step_s=1.0), RequestError, "step: got 1 s, expected 0.001 to 0.5 s"),
        (ask(horizon_s=30.0, step_s=0.001), RequestError, "which are 30001 states, expected at most 10001"),
        (ask(samples=0), RequestError, "samples: got 0, expected 1 to 256"),
        (ask(samples=10**6), RequestError, "samples: got 1000000"),
        (ask(seed=-1), RequestError, "seed: got -1"),
        (
            ask(backend="magic"),
            RequestError,
            "backend: got 'magic', expected one of auto, learned, physics, straight, still",
        ),
        (ask(deadline_s=NAN), RequestError, "deadline: got nan s"),
        (ask(deadline_s=-0.1), RequestError, "deadline: got -0.1 s"),
        (ask(pairs=((BOX, 42),)), UnknownObjectError, "pairs[0]: object id 42 is not in the scene graph"),
        (ask(pairs=((BOX, BOX),)), RequestError, "pairs[0]: got 2 twice, expected two objects"),
        (ask(pairs=((BOX, BALL),) * 2000), RequestError, "pairs: got 2000, expected at most 1024"),
        (ask(GONE, GONE), InterventionError, "hypotheses[1].name: got 'gone' twice"),
        (
            ask(Hypothesis("x", (remove(99),))),
            UnknownObjectError,
            "hypotheses[0].interventions[0].object_id: object id 99 is not in the scene graph (ids: [1, 2, 3])",
        ),
        (
            ask(FACTUAL, Hypothesis("x", (set_velocity(BALL, (NAN, 0, 0)),))),
            InterventionError,
            "hypotheses[1].interventions[0].twist.linear: got [nan, 0.0, 0.0], expected finite",
        ),
        (
            ask(Hypothesis("x", (set_velocity(TABLE, (1, 0, 0)),))),
            InterventionError,
            "is static, expected a movable object for SET_VELOCITY",
        ),
        (ask(Hypothesis("x", (remove(BOX, at_s=0.9),))), InterventionError, "time_offset: got 0.9 s, expected 0..0.5"),
        (
            ask(Hypothesis("x", tuple(remove(BOX) for _ in range(65)))),
            RequestError,
            "hypotheses[0].interventions: got 65, expected at most 64",
        ),
        (
            ask(Hypothesis("x", (follow_path(np.arange(10_001.0), np.zeros((10_001, 3))),))),
            RequestError,
            "hypotheses[0].interventions[0].path: got 10001 poses, expected at most 10000",
        ),
        (
            ask(*(Hypothesis(str(i)) for i in range(1000)), horizon_s=30.0),
            RequestError,
            "state values, expected at most 16000000; ask for fewer, or a larger step",
        ),
        (ask(images=replace(VIDEO, rate_hz=0.0)), RequestError, "video_rate: got 0 Hz"),
        (ask(images=replace(VIDEO, rate_hz=NAN)), RequestError, "video_rate: got nan Hz"),
        (
            ask(images=replace(VIDEO, camera=Camera(100_000, 10, 1.0, 1.0, 0.0, 0.0))),
            RequestError,
            "camera: got 100000x10 pixels, expected at most 4096 a side",
        ),
        (
            ask(images=replace(VIDEO, world_T_camera=np.full((4, 4), NAN))),
            RequestError,
            "camera_pose: got a number that is not finite",
        ),
        (
            ask(
                *(Hypothesis(str(i)) for i in range(300)),
                horizon_s=5.0,
                images=replace(VIDEO, rate_hz=30.0),
            ),
            RequestError,
            "bytes of images, expected at most 536870912; ask for fewer hypotheses",
        ),
        (
            ask(images=VIDEO, initial_state=replace(make_scene(), frame_id="odom")),
            RequestError,
            "initial_state.header.frame_id: got 'odom', expected 'map'",
        ),
    ],
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)
def test_bad_requests(memory: AppearanceMemory, request_: ImagineRequest, kind: type, said: str) -> None:
    with pytest.raises(kind) as error:
        Imagination().imagine(request_, make_scene(), memory)
    assert said in str(error.value)


def test_a_million_hypotheses_cost_nothing() -> None:
    request = ImagineRequest((FACTUAL,) * 1_000_000, 1.0)
    begin = time.perf_counter()
    with pytest.raises(RequestError, match="hypotheses: got 1000000, expected 1 to 1024"):
        Imagination().imagine(request, make_scene())
    assert time.perf_counter() - begin < 0.05


def test_no_scene_and_no_appearance() -> None:
    with pytest.raises(RequestError, match="no scene graph was received yet"):
        Imagination().imagine(ask(), None)
    for nothing in (None, AppearanceMemory()):
        with pytest.raises(NoAppearanceError, match="no camera image was seen yet"):
            Imagination().imagine(ask(images=VIDEO), make_scene(), nothing)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_answers(backend: str) -> None:
    dynamics = shared_dynamics(backend)
    rollout = Imagination().imagine(ask(FACTUAL, PUSH, GONE, backend=backend), make_scene())
    assert rollout.backend in (("learned", "physics") if backend == "auto" else (backend,))
    assert backend == "auto" or dynamics.name == backend
    assert rollout.hypotheses == ("factual", "push", "gone") and rollout.complete
    assert rollout.states.shape == (3, 1, 16, 3, 13) and rollout.states.dtype == np.float32
    assert rollout.times[-1] == pytest.approx(0.5)
    assert rollout.present[:2].all() and not rollout.present[2, :, 1].any()
    assert np.isfinite(rollout.states).all()


@pytest.mark.slow
def test_effect_of_the_factual_is_zero_and_of_others_is_theirs() -> None:
    for order in ((FACTUAL, PUSH, GONE), (PUSH, GONE, FACTUAL), (PUSH, GONE)):
        rollout = Imagination().imagine(ask(*order, samples=4), make_scene())
        effect = dict(zip(rollout.hypotheses, rollout.effect, strict=True))
        vector = dict(zip(rollout.hypotheses, rollout.effect_vector, strict=True))
        if "factual" in effect:
            assert (effect["factual"] == 0.0).all() and (vector["factual"] == 0.0).all()
        assert effect["push"][2] > 0.1 and vector["push"][2, 1] > 0.1
        assert effect["push"][0] == 0.0
        assert np.isnan(effect["gone"][1]) and np.isnan(vector["gone"][1]).all()
        assert effect["gone"][2] < 1e-3


@pytest.mark.slow
def test_effect_holds_no_sampling_noise() -> None:
    """The same samples in both futures: what does not touch the intervention has no effect, however uncertain."""
    covariance = np.zeros((3, 6, 6))
    covariance[1:, :3, :3] = np.eye(3) * 0.005**2
    covariance[:, 2, 2] = 0.0
    scene = make_scene(pose_covariances=covariance, log_mass_std=[0.0, 1.0, 1.0])
    away = Hypothesis("away", (set_velocity(BALL, (0.0, -0.3, 0.0)),))
    rollout = Imagination().imagine(ask(away, samples=8), scene)
    assert rollout.effect[0, 1] < 1e-6 < rollout.effect[0, 2]


@pytest.mark.slow
def test_same_seed_same_answer() -> None:
    covariance = np.zeros((3, 6, 6))
    covariance[2, :3, :3] = np.eye(3) * 0.01**2
    scene = make_scene(pose_covariances=covariance)
    first, again, other = (Imagination().imagine(ask(PUSH, samples=4, seed=seed), scene).states for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.slow
def test_position_std() -> None:
    covariance = np.zeros((3, 6, 6))
    covariance[2, :3, :3] = np.diag([0.03, 0.04, 0.0]) ** 2
    scene = make_scene(pose_covariances=covariance)
    one = Imagination().imagine(ask(), scene)
    np.testing.assert_allclose(one.position_std[0, :, 2], 0.05, rtol=1e-5)
    assert (one.position_std[0, :, 1] == 0.0).all()
    many = Imagination().imagine(ask(samples=64, backend="still"), scene)
    np.testing.assert_allclose(many.position_std[0, 0, 2], 0.05, rtol=0.3)
    assert (many.position_std[0, :, 2] >= 0.05 - 1e-6).all()


@pytest.mark.slow
def test_centers_stay_as_uncertain_as_they_were_seen() -> None:
    """In the answer and in what is told of it underway; the mean is where it was."""
    covariance = np.zeros((3, 6, 6))
    covariance[2, 2, 2] = 0.006**2
    scene = make_scene(pose_covariances=covariance)
    told: list[np.ndarray] = []

    def listen(progress) -> None:
        told.append(progress.partial.states[0])

    rollout = Imagination().imagine(ask(FACTUAL, PUSH, samples=24), scene, on_progress=listen)
    np.testing.assert_array_equal(np.stack(told), rollout.states)
    assert (rollout.states[0, :, :, 2, 2].std(axis=0) > 0.004).all()
    alone = Imagination().imagine(ask(FACTUAL, PUSH), scene)
    np.testing.assert_allclose(rollout.states[:, 0, 0], alone.states[:, 0, 0], atol=1e-6)


@pytest.mark.slow
def test_pairs_and_events() -> None:
    pairs = ((BOX, BALL), (BALL, BOX), (BALL, TABLE))
    rollout = Imagination().imagine(ask(FACTUAL, PUSH, GONE, horizon_s=1.0, pairs=pairs), make_scene())
    assert rollout.pairs == pairs
    np.testing.assert_allclose(rollout.pair_separation[0, :2], 0.15, atol=0.005)
    assert rollout.pair_collision[0, 0] == 0.0 and rollout.pair_collision[0, 2] == 1.0
    assert (rollout.pair_separation[1, :2] <= 0.0).all() and (rollout.pair_collision[1, :2] == 1.0).all()
    assert np.isnan(rollout.pair_separation[2, 0]) and np.isnan(rollout.pair_collision[2, 0])
    touches = [e for e in rollout.events if e.kind == EventKind.CONTACT and {e.a, e.b} == {BOX, BALL}]
    assert {e.hypothesis for e in touches} == {1}
    assert all(type(v) is int for e in rollout.events for v in (e.hypothesis, e.sample, e.a, e.b))


@pytest.mark.slow
def test_created_bodies_get_new_ids() -> None:
    ball = BodySpec(Shape.SPHERE, np.full(3, 0.06), position=np.array([-0.2, 0.0, 0.2]))
    rollout = Imagination().imagine(
        ask(FACTUAL, Hypothesis("add", (add(ball, 0.2),)), pairs=((BOX, 4),), images=ImageRequest(points=True)),
        make_scene(),
    )
    assert rollout.object_ids.tolist() == [1, 2, 3, 4]
    assert not rollout.present[0, :, 3].any()
    np.testing.assert_array_equal(rollout.present[1, :, 3], rollout.times >= 0.2 - 1e-6)
    assert np.isnan(rollout.effect[1, 3]) and np.isnan(rollout.pair_separation[0, 0])
    assert rollout.pair_separation[1, 0] > 0.0
    assert len(rollout.points) == 4 and len(rollout.points[3])


@pytest.mark.slow
def test_empty_scene() -> None:
    empty = SceneGraph.build([], np.zeros((0, 3)), np.zeros((0, 3)))
    rollout = Imagination().imagine(ask(samples=3), empty)
    assert rollout.states.shape == (1, 3, 16, 0, 13) and rollout.complete
    assert rollout.effect.shape == (1, 0) and rollout.position_std.shape == (1, 16, 0)
    dropped = Hypothesis("drop", (add(BodySpec(position=np.array([0.0, 0.0, 1.0]))),))
    rollout = Imagination().imagine(ask(dropped), empty)
    assert rollout.object_ids.tolist() == [1] and rollout.states[0, 0, -1, 0, 2] < 0.9


@pytest.mark.slow
def test_initial_state_is_used_instead() -> None:
    given = make_scene(ball_position=(0.0, -0.3, 0.04))
    rollout = Imagination().imagine(ask(initial_state=given), make_scene())
    assert rollout.states[0, 0, 0, 2, 1] == pytest.approx(-0.3, abs=1e-3)


@pytest.mark.slow
def test_progress_comes_in_order_and_matches_the_answer(memory: AppearanceMemory) -> None:
    steps: list[Progress] = []
    request = ask(PUSH, FACTUAL, GONE, images=VIDEO)
    rollout = Imagination().imagine(request, make_scene(), memory, on_progress=steps.append)
    partials = {p.hypothesis: p.partial for p in steps if p.partial is not None}
    assert set(partials) == {0, 1, 2}
    for k, partial in partials.items():
        assert partial.hypotheses == (rollout.hypotheses[k],)
        np.testing.assert_array_equal(partial.states[0], rollout.states[k])
    fractions = [p.fraction for p in steps]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    frames = [p for p in steps if p.frame is not None]
    assert [(p.hypothesis, p.frame_index) for p in frames] == [(k, f) for k in range(3) for f in range(3)]
    for p in frames:
        np.testing.assert_array_equal(p.frame.color, rollout.video[p.hypothesis, p.frame_index])
        assert p.frame_time_s == rollout.frame_times[p.frame_index]


@pytest.mark.slow
def test_frames_can_be_left_to_the_listener(memory: AppearanceMemory) -> None:
    rollout = Imagination().imagine(ask(images=VIDEO), make_scene(), memory, keep_frames=False)
    assert rollout.video is None and rollout.depth is None and len(rollout.frame_times) == 3


@pytest.mark.slow
def test_cancelling_keeps_what_is_done(memory: AppearanceMemory) -> None:
    done: list[Progress] = []
    hypotheses = tuple(Hypothesis(f"{i}", (apply_impulse(BALL, (0, 1e-3 * i, 0)),)) for i in range(20))
    rollout = Imagination().imagine(
        ask(*hypotheses, backend="physics"),  # one after the other; the learned one answers all at once
        make_scene(),
        should_stop=lambda: sum(p.partial is not None for p in done) >= 3,
        on_progress=done.append,
    )
    assert not rollout.complete
    count = int(rollout.present.any(axis=(1, 2)).sum())
    assert 3 <= count < 20 and not rollout.present[count:].any()
    assert np.isfinite(rollout.effect[:count]).all() and np.isnan(rollout.effect[count:]).all()

    done.clear()
    rollout = Imagination().imagine(
        ask(FACTUAL, PUSH, images=VIDEO),
        make_scene(),
        memory,
        should_stop=lambda: sum(p.frame is not None for p in done) >= 2,
        on_progress=done.append,
    )
    assert not rollout.complete and rollout.present.all()
    assert rollout.video[0, 1].any() and not rollout.video[0, 2].any() and not rollout.video[1].any()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "physics", "still"])
def test_a_request_leaves_nothing_that_holds_itself(memory: AppearanceMemory, backend: str) -> None:
    """What only the collector of garbage would free holds images of the scene for as long as it does not run."""
    images = ImageRequest(video=True, depth=True, points=True, rate_hz=4.0)
    push = Hypothesis("push", (apply_impulse(BALL, (0.02, 0.0, 0.0)),))
    request = ask(push, samples=2, images=images, deadline_s=30.0, backend=backend)
    imagination = Imagination()
    steps: list[object] = []
    for _ in range(2):  # the first makes what is kept
        gc.collect()
        gc.disable()
        try:
            imagination.imagine(request, make_scene(), memory, should_stop=lambda: False, on_progress=steps.append)
            steps.clear()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
        finally:
            gc.set_debug(0)
            gc.enable()
        found = sorted({type(o).__qualname__ for o in gc.garbage if type(o).__module__.startswith("wm_")})
        gc.garbage.clear()
    assert not found


def test_deadline() -> None:
    hypotheses = tuple(Hypothesis(f"{i}", (apply_impulse(BALL, (0, 1e-4 * i, 0)),)) for i in range(500))
    begin = time.perf_counter()
    rollout = Imagination().imagine(ask(*hypotheses, horizon_s=2.0, deadline_s=0.2, backend="physics"), make_scene())
    print(f"a deadline of 0.2 s: answered after {time.perf_counter() - begin:.2f} s")
    assert not rollout.complete and not rollout.present[-1].any()


def test_images_show_what_the_states_say(memory: AppearanceMemory) -> None:
    scene = make_scene()
    place = Hypothesis("place", (set_pose(BALL, (-0.1, -0.2, 0.04)),))
    rollout = Imagination().imagine(ask(FACTUAL, GONE, place, backend="still", images=VIDEO), scene, memory)
    assert rollout.video.shape == (3, 3, 240, 320, 3) and rollout.depth.shape == (3, 3, 240, 320)
    np.testing.assert_allclose(rollout.frame_times, [0.0, 0.2, 0.4], atol=1e-9)
    np.testing.assert_array_equal(rollout.video[0, -1], trace(scene)[0])
    assert psnr(rollout.video[1, -1], trace(scene, without=(BOX,))[0]) > 40.0
    color, depth, _ = trace(make_scene(ball_position=(-0.1, -0.2, 0.04)))
    assert psnr(rollout.video[2, -1], color) > 30.0
    assert np.median(np.abs(rollout.depth[2, -1] - depth)) < 0.002
    assert rollout.camera == CAMERA
    np.testing.assert_allclose(rollout.world_T_camera, FRONT)


def test_looks_change_from_their_time_on() -> None:
    scene = make_scene()
    hypothesis = Hypothesis(
        "looks",
        (
            morph(BOX, (1, 1, 2), 0.2),
            morph(BOX, (1, 2, 1), 0.3),
            restyle(BALL, (0, 1, 0), 0.1),
            add(BodySpec(color=np.array([0.9, 0.1, 0.9])), 0.0),
        ),
    )
    ids = np.array([1, 2, 3, 4])
    states = np.zeros((4, 13), np.float32)
    states[:, 6] = 1.0
    early = {b.object_id: b for b in bodies_at(scene, hypothesis, ids, states, np.ones(4, bool), 0.0)}
    late = {b.object_id: b for b in bodies_at(scene, hypothesis, ids, states, np.ones(4, bool), 0.3)}
    assert set(early) == {BOX, BALL, 4}  # the table is background
    assert early[BOX].scale.tolist() == [1, 1, 1] and late[BOX].scale.tolist() == [1, 2, 2]
    assert early[BALL].restyle is None and late[BALL].restyle.tolist() == [0, 1, 0]
    assert late[4].color.tolist() == [0.9, 0.1, 0.9]
    gone = bodies_at(scene, hypothesis, ids, states, np.array([True, False, True, False]), 0.3)
    assert [b.object_id for b in gone] == [BALL]


@pytest.mark.slow
def test_points_are_bounded_and_colored(memory: AppearanceMemory) -> None:
    imagination = Imagination(Limits(max_object_points=300))
    rollout = imagination.imagine(ask(images=ImageRequest(points=True)), make_scene(), memory)
    assert len(rollout.points) == len(rollout.point_colors) == 3
    assert all(
        0 < len(p) <= 300 and len(p) == len(c) for p, c in zip(rollout.points, rollout.point_colors, strict=True)
    )
    assert (rollout.point_colors[1].argmax(axis=1) == 0).all() and (rollout.point_colors[2].argmax(axis=1) == 2).all()
    without_memory = imagination.imagine(ask(images=ImageRequest(points=True)), make_scene())
    assert len(without_memory.points[1])


def test_frame_rows() -> None:
    times = np.arange(31) / 30.0
    np.testing.assert_array_equal(frame_rows(times, 10.0), np.arange(0, 31, 3))
    np.testing.assert_array_equal(frame_rows(times, 1000.0), np.arange(31))
    np.testing.assert_array_equal(frame_rows(times, 0.1), [0])
    np.testing.assert_array_equal(frame_rows(np.zeros(1), 10.0), [0])


def state_rows(positions: list[tuple[float, float, float]]) -> np.ndarray:
    """(T, 3, 13) states of the synthetic scene with the ball (row 2) at these positions."""
    scene = make_scene()
    states = np.zeros((len(positions), 3, 13), np.float32)
    states[..., :3], states[..., 6] = scene.positions, 1.0
    states[:, 2, :3] = positions
    return states


def test_settling_is_not_drawn() -> None:
    scene = make_scene()  # the ball is seen at (0.05, -0.12, 0.04)
    settling = state_rows([(0.05, -0.12, 0.045), (0.05, -0.12, 0.035), (0.05, -0.12, 0.035)])
    drawn = states_as_seen(scene, settling, settling)
    np.testing.assert_allclose(drawn[:, 2, :3], np.tile(scene.positions[2], (3, 1)), atol=1e-6)
    pushed = settling.copy()
    pushed[1:, 2, 1] -= 0.1
    drawn = states_as_seen(scene, pushed, settling)
    np.testing.assert_allclose(drawn[1:, 2, :3], np.tile((0.05, -0.22, 0.04), (2, 1)), atol=1e-6)
    falling = state_rows([(0.05, -0.12, 0.045), (0.05, -0.12, -0.1), (0.05, -0.12, -0.4)])
    drawn = states_as_seen(scene, falling, falling)
    np.testing.assert_allclose(drawn[:, 2, 2], [0.04, -0.105, -0.405], atol=1e-6)
    assert states_as_seen(scene, falling, None) is falling


def test_balls_are_drawn_as_they_were_seen_however_they_roll() -> None:
    """Perception cannot tell how a ball is turned: turning its remembered half would show the half never seen."""
    scene = make_scene()
    states = state_rows([(0.05, -0.02, 0.04)])[0]
    states[:, 3:7] = [0.0, 0.0, np.sin(0.7), np.cos(0.7)]
    bodies = {b.object_id: b for b in bodies_at(scene, Hypothesis(""), scene.ids, states, np.ones(3, bool), 0.0)}
    np.testing.assert_allclose(bodies[BALL].world_T_object[:3, :3], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(bodies[BALL].world_T_object[:3, 3], (0.05, -0.02, 0.04), atol=1e-6)
    assert abs(bodies[BOX].world_T_object[0, 1]) > 0.5
