"""The batch interface for planners: batches, results, causes of events, odd input, deadlines."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from dynamics_backends import shared_dynamics
from wm_core import interventions as do
from wm_core.interventions import BodySpec, Hypothesis, InterventionError, UnknownObjectError
from wm_core.rollout import EventQuestion, ImagineRequest, RequestError, RolloutEvent, StatesWanted
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_dynamics.factory import make_dynamics
from wm_dynamics.kinematic import KinematicDynamics
from wm_imagination import engine as engine_module
from wm_imagination.causal import PREDICTED_KINDS, what_would_prevent
from wm_imagination.engine import BackendUnavailableError, Imagination
from wm_imagination.limits import Limits
from wm_ros.conversions.requests import request_from_msg, request_to_msg
from wm_ros.conversions.rollout import rollout_from_msg, rollout_to_msg

FACTUAL = Hypothesis("factual")
TALL, BALL, APART, PUSHER_ID = 2, 3, 4, 5
PUSHER = BodySpec(Shape.BOX, np.array([0.03, 0.2, 0.06]))
IMAGINATION = Imagination()


def scene(**changes: object) -> SceneGraph:
    """A table (1), a tall thin box (2) that a heavy fast ball (3) comes at, a box far apart (4)."""
    values: dict[str, object] = {
        "shapes": [Shape.BOX, Shape.BOX, Shape.SPHERE, Shape.BOX],
        "is_static": [True, False, False, False],
        "class_names": ["support", "box", "ball", "box"],
        "linear_velocities": [[0, 0, 0], [0, 0, 0], [2.0, 0, 0], [0, 0, 0]],
        "angular_velocities": [[0, 0, 0], [0, 0, 0], [0, 20.0, 0], [0, 0, 0]],
        "log_mass": np.log([100.0, 0.1, 1.0, 0.2]),
        "friction": np.full(4, 0.8),
    }
    positions = [[0, 0, -0.02], [0, 0, 0.15], [-0.35, 0, 0.1], [0.0, -0.6, 0.05]]
    extents = [[2.0, 2.0, 0.04], [0.05, 0.15, 0.3], [0.2, 0.2, 0.2], [0.1, 0.1, 0.1]]
    return SceneGraph.build(range(1, 5), positions, extents, **(values | changes))  # type: ignore[arg-type]


def paths(count: int = 6) -> do.ActionBatch:
    """Pushers that go along y past the box far apart, the later ones into it."""
    y = np.linspace(-0.3, -0.55, count)
    ends = np.stack([np.full(count, 0.3), y, np.full(count, 0.04)], axis=1)
    return do.path_batch(np.stack([ends, ends - [0.5, 0.0, 0.0]], axis=1), [0.0, 0.8], PUSHER, name="go")


def ask(*hypotheses: Hypothesis, **values: object) -> ImagineRequest:
    return ImagineRequest(hypotheses, 1.0, **({"backend": "physics"} | values))  # type: ignore[arg-type]


def through_messages(request: ImagineRequest) -> ImagineRequest:
    return request_from_msg(request_to_msg(request))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["physics", "learned", "straight"])
def test_a_batch_answers_as_its_hypotheses_do(backend: str) -> None:
    shared_dynamics(backend)
    batch, pairs = paths(), ((APART, PUSHER_ID), (TALL, BALL))
    whole = IMAGINATION.imagine(ask(FACTUAL, *batch.hypotheses, backend=backend, pairs=pairs), scene())
    request = ask(FACTUAL, batches=(batch,), backend=backend, pairs=pairs)
    for sent in (request, through_messages(request)):
        answer = IMAGINATION.imagine(sent, scene())
        assert answer.hypotheses == whole.hypotheses == ("factual", *(f"go/{k}" for k in range(6)))
        # Messages carry float32, and contacts make much of little: what is compared over them is what was asked.
        rows = slice(None) if sent is request else slice(4, 5)
        np.testing.assert_allclose(answer.states[..., rows, :3], whole.states[..., rows, :3], atol=1e-5)
        np.testing.assert_array_equal(answer.present, whole.present)
    np.testing.assert_array_equal(whole.final_states, whole.states[:, :, -1])
    assert np.isnan(whole.pair_separation[0, 0]) and whole.computed.all()
    if backend != "straight":
        assert whole.pair_collision[1, 0] == 0.0 and whole.pair_collision[-1, 0] == 1.0
        assert whole.effect[-1, 3] > 0.05


def test_only_what_is_wanted_comes_back_and_it_is_the_same() -> None:
    request = ask(FACTUAL, batches=(paths(),), samples=2, event_kinds=(EventKind.TOPPLE, EventKind.CONTACT))
    everything = IMAGINATION.imagine(request, scene())
    final = IMAGINATION.imagine(replace(request, want_states=StatesWanted.FINAL, want_events=False), scene())
    assert final.states.shape == (7, 2, 0, 5, 13) and final.present.shape == (7, 0, 5) and final.events == ()
    for name in ("final_states", "final_present", "final_position_std", "effect", "effect_vector", "event_probability"):
        np.testing.assert_array_equal(getattr(final, name), getattr(everything, name), err_msg=name)
    nothing = IMAGINATION.imagine(replace(request, want_states=StatesWanted.NONE), scene())
    assert nothing.final_states.size == 0 and nothing.events == everything.events
    for rollout in (everything, final, nothing):
        back = rollout_from_msg(rollout_to_msg(rollout))
        for name in ("states", "present", "final_states", "final_present", "event_probability", "computed"):
            np.testing.assert_array_equal(getattr(back, name), getattr(rollout, name), err_msg=name)
        assert back.event_kinds == rollout.event_kinds and back.backend == "physics"


def test_event_probabilities_count_the_events() -> None:
    uncertain = np.zeros((4, 6, 6))
    uncertain[1:3, :2, :2] = np.eye(2) * 0.03**2
    seen = scene(pose_covariances=uncertain)
    request = ask(FACTUAL, Hypothesis("gone", (do.remove(BALL),)), samples=8, event_kinds=PREDICTED_KINDS)
    rollout = IMAGINATION.imagine(request, seen)
    assert rollout.event_probability.shape == (2, len(PREDICTED_KINDS), 4)
    for k in range(2):
        for e, kind in enumerate(PREDICTED_KINDS):
            for m, object_id in enumerate(rollout.object_ids):
                own = [v for v in rollout.events if (v.hypothesis, v.kind) == (k, kind)]
                hit = {v.sample for v in own if object_id in (v.a, v.b)}
                assert rollout.event_probability[k, e, m] == pytest.approx(len(hit) / 8)
    topple = PREDICTED_KINDS.index(EventKind.TOPPLE)
    assert rollout.event_probability[0, topple, 1] > 0.0 == rollout.event_probability[1, topple, 1]


# What would prevent it?


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["physics", "learned"])
def test_without_the_ball_the_tall_one_does_not_topple(backend: str) -> None:
    shared_dynamics(backend)
    request = ask(FACTUAL, samples=2, backend=backend)
    answer = what_would_prevent(IMAGINATION, scene(), request, EventQuestion(EventKind.TOPPLE, TALL))
    assert answer.probability == 1.0
    assert answer.object_ids.tolist() == [BALL, APART]
    assert answer.prevented.tolist() == [1.0, 0.0] and answer.probability_without.tolist() == [0.0, 1.0]
    asked = replace(request, questions=(EventQuestion(EventKind.TOPPLE, TALL),))
    over_the_wire = IMAGINATION.imagine(through_messages(asked), scene())
    assert over_the_wire.answers[0].object_ids.tolist() == [BALL, APART]
    back = rollout_from_msg(rollout_to_msg(over_the_wire), (), asked.questions)
    assert back.answers[0].prevented.tolist() == [1.0, 0.0] and back.answers[0].question == asked.questions[0]


def test_a_rollout_event_can_be_asked_about() -> None:
    rollout = IMAGINATION.imagine(ask(FACTUAL), scene())
    contact = next(e for e in rollout.events if e.kind == EventKind.CONTACT and {e.a, e.b} == {TALL, BALL})
    assert isinstance(contact, RolloutEvent)
    answer = what_would_prevent(IMAGINATION, scene(), ask(FACTUAL), contact)
    assert answer.probability == 1.0 and answer.object_ids.tolist() == [APART]
    assert answer.prevented.tolist() == [0.0]


def test_a_pusher_can_be_the_cause_and_ids_move_up_without_it() -> None:
    """Of two bodies brought in, the pusher drives the other off its place: without the pusher it is not touched."""
    ball = BodySpec(Shape.SPHERE, np.full(3, 0.06), np.array([0.0, -0.42, 0.03]))
    both = Hypothesis("both", (paths().hypotheses[-1].interventions[0], do.add(ball)))
    request = ask(FACTUAL, both)
    asked = EventQuestion(EventKind.CONTACT, APART, PUSHER_ID, hypothesis=1)
    answer = what_would_prevent(IMAGINATION, scene(), request, asked)
    assert answer.probability == 1.0 and PUSHER_ID not in answer.object_ids
    moved = EventQuestion(EventKind.CONTACT, PUSHER_ID + 1, 1, hypothesis=1, object_ids=(PUSHER_ID, APART))
    rollout = IMAGINATION.imagine(replace(request, questions=(moved,)), scene())
    assert rollout.hypotheses == ("factual", "both"), "removals are not in the answer"
    assert set(rollout.answers[0].object_ids.tolist()) == {PUSHER_ID, APART}
    # The ball that was brought in rests on the table whether or not the pusher is there.
    first = what_would_prevent(IMAGINATION, scene(), request, replace(moved, b=0))
    assert np.isfinite(first.probability_without).all()


def test_until_when_counts() -> None:
    early = EventQuestion(EventKind.TOPPLE, TALL, until_s=0.02)
    rollout = IMAGINATION.imagine(ask(FACTUAL, questions=(early, replace(early, until_s=0.0))), scene())
    assert [a.probability for a in rollout.answers] == [0.0, 1.0]
    assert np.isnan(rollout.answers[0].prevented).all(), "what does not happen cannot be prevented"


@pytest.mark.parametrize(
    ("question", "kind", "said"),
    [
        (EventQuestion(EventKind.TOPPLE, 99), UnknownObjectError, "questions[0]: object id 99 is not in the scene"),
        (EventQuestion(EventKind.CONTACT, 2, 98), UnknownObjectError, "object id 98"),
        (EventQuestion(EventKind.FALL, 2, object_ids=(97,)), UnknownObjectError, "object id 97"),
        (
            EventQuestion(EventKind.FALL, 2, hypothesis=5),
            RequestError,
            "[0]: hypothesis: got 5, expected 0..0",
        ),
        (EventQuestion(EventKind.ENTER, 2), RequestError, "kind: got ENTER, expected one of CONTACT"),
        (EventQuestion(EventKind.FALL, 2, until_s=float("nan")), RequestError, "until: got nan s"),
    ],
)
def test_bad_questions_are_named(question: EventQuestion, kind: type, said: str) -> None:
    with pytest.raises(kind) as error:
        IMAGINATION.imagine(ask(FACTUAL, questions=(question,)), scene())
    assert said in str(error.value)


def test_questions_count_among_the_futures() -> None:
    few = Imagination(Limits(max_hypotheses=2))
    with pytest.raises(RequestError, match="questions: got 3 futures"):
        few.imagine(ask(FACTUAL, questions=(EventQuestion(EventKind.TOPPLE, TALL),)), scene())
    with pytest.raises(RequestError, match="hypotheses and batches: got 7, expected 1 to 2"):
        few.imagine(ask(FACTUAL, batches=(paths(),)), scene())
    with pytest.raises(RequestError, match=r"event_kinds\[0\]: got MOVE, expected one of"):
        IMAGINATION.imagine(ask(FACTUAL, event_kinds=(EventKind.MOVE,)), scene())


# Odd and bad input.


def test_a_path_that_leaves_the_workspace_is_answered_and_said() -> None:
    out = do.follow_path([0, 0.5, 1], [[0, 0.5, 0.1], [0, 1.25, 0.1], [0, 0.5, 0.1]], body=PUSHER)
    late = do.follow_path([0, 2.0], [[0, 0, 0.1], [0, 2.0, 0.1]], body=PUSHER)
    away = replace(paths(), values=paths().values + [0.0, -1.0, 0.0], name="away")
    request = ask(FACTUAL, Hypothesis("out", (out,)), Hypothesis("late", (late,)), batches=(paths(), away))
    rollout = IMAGINATION.imagine(request, scene())
    np.testing.assert_allclose(rollout.path_outside[:3], [0.0, 0.2, 0.0], atol=1e-6)
    assert (rollout.path_outside[3:9] == 0.0).all() and (rollout.path_outside[9:] > 0.2).all()
    assert rollout.warnings[0].startswith("hypotheses[1].interventions[0].path: leaves the workspace (x -1.05 to 1.05")
    assert "batches[1]: 6 of 6 paths leave the workspace" in rollout.warnings[1] and len(rollout.warnings) == 2
    assert rollout.complete and np.isfinite(rollout.states).all()
    np.testing.assert_allclose(rollout.states[1, 0, 15, 4, :3], [0, 1.25, 0.1], atol=1e-3)
    with pytest.raises(InterventionError, match="expected finite, within"):
        IMAGINATION.imagine(ask(Hypothesis("far", (do.follow_path([0], [[1e4, 0, 0]], body=PUSHER),))), scene())


@pytest.mark.parametrize("field", ["position", "orientation", "twist", "extents", "covariance", "log_mass"])
def test_a_state_that_is_not_a_number_is_refused_and_named(field: str) -> None:
    msg = request_to_msg(ask(FACTUAL, initial_state=scene()))
    thing, nan = msg.initial_state.objects[1], float("nan")
    if field == "position":
        thing.pose.pose.position.x = nan
    elif field == "orientation":
        thing.pose.pose.orientation.w = nan
    elif field == "twist":
        thing.twist.twist.angular.z = nan
    elif field == "extents":
        thing.extents.y = nan
    elif field == "covariance":
        thing.pose.covariance[0] = nan
    else:
        thing.log_mass = nan
    if field == "covariance":
        # How sure it is of it is unknown, not where it is: taken as it stands.
        rollout = IMAGINATION.imagine(replace(request_from_msg(msg), samples=2), None)
        assert np.isfinite(rollout.states).all()
        return
    with pytest.raises((RequestError, ValueError), match=r"initial_state|finite"):
        IMAGINATION.imagine(request_from_msg(msg), None)


@pytest.mark.parametrize("backend", ["physics", "learned", "straight", "still"])
def test_no_objects(backend: str) -> None:
    shared_dynamics(backend)
    empty = SceneGraph.build([], np.zeros((0, 3)), np.zeros((0, 3)))
    request = ask(FACTUAL, batches=(paths(),), backend=backend, event_kinds=PREDICTED_KINDS)
    rollout = IMAGINATION.imagine(request, empty)
    assert rollout.object_ids.tolist() == [1] and rollout.complete and (rollout.path_outside == 0.0).all()
    alone = IMAGINATION.imagine(ask(FACTUAL, backend=backend, event_kinds=PREDICTED_KINDS), empty)
    assert alone.states.shape == (1, 1, 31, 0, 13) and alone.event_probability.shape == (1, 6, 0)
    back = rollout_from_msg(rollout_to_msg(alone))
    assert back.states.shape == alone.states.shape and back.final_states.shape == alone.final_states.shape


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["physics", "learned"])
def test_two_hundred_objects(backend: str) -> None:
    shared_dynamics(backend)
    x, y = np.meshgrid(np.arange(20) * 0.12, np.arange(10) * 0.12)
    positions = np.stack([x.ravel(), y.ravel(), np.full(200, 0.025)], axis=1)
    many = SceneGraph.build(
        range(1, 202),
        np.concatenate([[[1.14, 0.54, -0.02]], positions]),
        np.concatenate([[[4.0, 3.0, 0.04]], np.full((200, 3), 0.05)]),
        is_static=[True] + [False] * 200,
        class_names=["support"] + ["box"] * 200,
    )
    begin = time.perf_counter()
    push = Hypothesis("push", (do.set_velocity(2, (0.5, 0.0, 0.0)),))
    rollout = IMAGINATION.imagine(ImagineRequest((FACTUAL, push), 0.5, backend=backend), many)
    print(f"{backend}: 200 objects, 2 futures of 0.5 s: {time.perf_counter() - begin:.2f} s")
    assert rollout.complete and np.isfinite(rollout.states).all() and rollout.effect[1, 1] > 0.02
    drift = np.linalg.norm(rollout.states[0, 0, -1, :, :3] - rollout.states[0, 0, 0, :, :3], axis=-1)
    assert drift.max() < 5e-3
    with pytest.raises(RequestError, match="state values, expected at most 16000000"):
        IMAGINATION.imagine(ImagineRequest(tuple(Hypothesis(f"{k}") for k in range(1000)), 1.0), many)


@pytest.mark.parametrize("backend", ["physics", "learned"])
@pytest.mark.parametrize("known", [True, False])
def test_objects_inside_one_another_do_not_burst(backend: str, known: bool) -> None:
    """Two boxes sharing half their volume, and one that shares its place with a third."""
    shared_dynamics(backend)
    covariance = np.zeros((4, 6, 6)) if known else np.tile(np.eye(6) * 0.005**2, (4, 1, 1))
    inside = SceneGraph.build(
        range(1, 5),
        [[0, 0, -0.02], [0, 0, 0.05], [0.05, 0, 0.05], [0, 0, 0.05]],
        [[2, 2, 0.04], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.06, 0.06, 0.1]],
        is_static=[True, False, False, False],
        class_names=["support", "box", "box", "box"],
        pose_covariances=covariance,
    )
    rollout = IMAGINATION.imagine(ask(FACTUAL, backend=backend, samples=2), inside)
    assert rollout.complete and np.isfinite(rollout.states).all()
    speed = np.linalg.norm(rollout.states[..., 7:10], axis=-1)
    height = rollout.states[..., 2]
    print(f"{backend}, known {known}: fastest {speed.max():.2f} m/s, highest {height.max():.3f} m")
    assert height.max() < 0.5 and speed.max() < 5.0


@pytest.mark.parametrize("backend", ["physics", "learned", "straight"])
def test_a_deadline_of_a_millisecond_is_answered_and_flagged(backend: str) -> None:
    shared_dynamics(backend)
    many = do.impulse_batch(APART, np.zeros((500, 1, 3)) + [0.01, 0, 0], name="many")
    request = ask(
        FACTUAL,
        batches=(many,),
        backend=backend,
        deadline_s=1e-3,
        event_kinds=(EventKind.FALL,),
        pairs=((TALL, BALL),),
        questions=(EventQuestion(EventKind.TOPPLE, TALL, hypothesis=500),),
    )
    begin = time.perf_counter()
    rollout = IMAGINATION.imagine(request, scene())
    print(f"{backend}: a deadline of 1 ms, answered after {1e3 * (time.perf_counter() - begin):.0f} ms")
    assert not rollout.complete and not rollout.computed[-1]
    assert np.isfinite(rollout.states).all() and not rollout.present[~rollout.computed].any()
    for name in ("effect", "pair_separation", "pair_collision", "event_probability"):
        assert np.isnan(getattr(rollout, name)[~rollout.computed]).all(), name
    assert np.isnan(rollout.answers[0].probability)


def test_a_deadline_counts_from_when_the_request_came() -> None:
    late = IMAGINATION.imagine(ask(FACTUAL, deadline_s=5.0), scene(), begin=time.monotonic() - 10.0)
    assert not late.complete and not late.computed.any()


# Backends.


@pytest.mark.slow
@pytest.mark.parametrize("first", ["auto", "learned"])
def test_auto_and_learned_are_one_network(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wm_dynamics.learned import backend

    made: list[object] = []
    network = backend.DynamicsNetwork

    def counted(path: object) -> object:
        made.append(path)
        return network(path)

    monkeypatch.setattr(backend, "DynamicsNetwork", counted)
    # Which engine makes the steps does not matter here, and this one needs no compilation.
    own = Imagination(backend_options={"learned": {"engine": "onnxruntime"}})
    own.dynamics(first)
    assert getattr(own.dynamics("auto"), "learned", None) is own.dynamics("learned") is own.dynamics("learned")
    assert len(made) == 1
    own.close()
    assert own.dynamics("learned") is own.dynamics("learned") and len(made) == 2


def test_a_backend_is_made_once_and_again_after_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(name: str, **options: object) -> object:
        made.append(f"{name} {options}")
        return make_dynamics("still")

    monkeypatch.setattr(engine_module, "make_dynamics", counted)
    own = Imagination(backend="auto", backend_options={"learned": {"model": "m.onnx"}})
    assert own.dynamics() is own.dynamics("auto") and isinstance(own.dynamics("learned"), KinematicDynamics)
    assert made == ["auto {'model': 'm.onnx'}", "learned {'model': 'm.onnx'}"]
    own.close()
    own.dynamics()
    assert len(made) == 3


def test_a_bad_model_file_is_named(tmp_path: object) -> None:
    bad = f"{tmp_path}/bad.onnx"
    with pytest.raises(BackendUnavailableError, match=r"backend 'learned': .*bad\.onnx"):
        Imagination(backend_options={"learned": {"model": bad}}).dynamics("learned")
    with open(bad, "wb") as file:
        file.write(b"not a model")
    with pytest.raises(BackendUnavailableError, match=r"bad\.onnx"):
        Imagination(backend_options={"learned": {"model": bad}}).imagine(ask(FACTUAL, backend="learned"), scene())
