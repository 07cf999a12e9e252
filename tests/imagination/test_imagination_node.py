"""The imagination node on a live graph: a process of its own, and a client that plays camera and perception."""

from __future__ import annotations

import array
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray
from wm_msgs.action import Imagine
from wm_msgs.msg import Hypothesis as HypothesisMsg
from wm_msgs.srv import GetSceneGraph

from conftest import NodeProcess
from imagination_client import CODES, FRAME, Client
from traced_scene import BALL, BOX, CAMERA, FRONT, TABLE, make_scene, trace
from wm_core.interventions import (
    Hypothesis,
    apply_impulse,
    follow_path,
    impulse_batch,
    path_batch,
    remove,
    set_velocity,
)
from wm_core.rollout import EventQuestion, ImageRequest, ImagineRequest, StatesWanted
from wm_core.scene_graph import EventKind, SceneGraph
from wm_imagination.appearance.frame_matcher import FrameMatcher
from wm_ros import qos
from wm_ros.conversions.requests import request_to_msg
from wm_ros.conversions.rollout import rollout_from_msg
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.compressed import compressed_to_depth, compressed_to_rgb
from wm_ros.images.pixels import array_to_image, depth_to_image, rgb_to_image
from wm_ros.stamps import ns_to_stamp

pytestmark = pytest.mark.ros


def scene_with_camera() -> SceneGraph:
    """The synthetic scene with the pose of its camera."""
    return replace(make_scene(), world_T_camera=FRONT)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, NodeProcess]]:
    """A client and a running node that has seen nothing yet."""
    log = tmp_path_factory.mktemp("imagination") / "node.log"
    # Physics answers one future after the other, which cancelling and progress are watched on.
    command = [sys.executable, "-m", "wm_imagination.node", "--ros-args", "-p", "backend:=physics"]
    process = NodeProcess(command, log, {**os.environ, "PYTHONUNBUFFERED": "1"})
    client = Client()
    try:
        client.spin_until(
            lambda: client.imagine_rollouts.service_is_ready() and client.action.server_is_ready(),
            30.0,
            "the node's services",
        )
        yield client, process
        assert process.alive, process.output
    finally:
        client.close()
        status = process.stop()
        print(process.output[-6000:])
    assert status == 0, "the node did not end cleanly"


@pytest.fixture
def client(graph: tuple[Client, NodeProcess]) -> Iterator[Client]:
    """The client; afterwards the node must still be alive."""
    client, process = graph
    yield client
    assert process.alive, process.output


@pytest.fixture(scope="module")
def seen(graph: tuple[Client, NodeProcess]) -> Client:
    """The client, once the node has a scene graph and has learned appearance."""
    client, _ = graph

    def learned() -> bool:
        client.publish(scene_with_camera())
        for _ in range(5):
            client.executor.spin_once(timeout_sec=0.02)
        status = client.diagnostics.get("imagination: appearance")
        return status is not None and "2 objects" in status.message

    client.spin_until(learned, 20.0, "appearance to be learned")
    return client


FACTUAL = Hypothesis("factual")
PUSH = Hypothesis("push", (set_velocity(BALL, (0.0, 0.4, 0.0)),))


def test_before_anything_was_seen(client: Client) -> None:
    answer = client.ask(ImagineRequest((FACTUAL,), 0.5))
    assert answer.error_code == CODES.NO_SCENE_GRAPH and "scene_graph" in answer.error_msg
    scene = client.wait(client.get_scene_graph.call_async(GetSceneGraph.Request()))
    assert scene.error_code == GetSceneGraph.Response.NO_SCENE_GRAPH and scene.error_msg


def test_given_scene_without_images(client: Client) -> None:
    given = ImagineRequest((FACTUAL, PUSH), 0.5, initial_state=make_scene())
    answer = client.ask(given)
    assert answer.error_code == CODES.OK, answer.error_msg
    rollout = rollout_from_msg(answer.rollout)
    assert rollout.states.shape[:4] == (2, 1, 16, 3) and rollout.backend == "physics" and rollout.complete
    assert rollout.effect[0].max() == 0.0 and rollout.effect[1, 2] > 0.05
    answer = client.ask(replace(given, images=ImageRequest(video=True)))
    assert answer.error_code == CODES.NO_APPEARANCE and "no camera image" in answer.error_msg


def test_empty_scene(client: Client) -> None:
    empty = SceneGraph.build([], np.zeros((0, 3)), np.zeros((0, 3)))
    answer = client.ask(ImagineRequest((FACTUAL,), 0.5, initial_state=empty))
    assert answer.error_code == CODES.OK, answer.error_msg
    assert rollout_from_msg(answer.rollout).states.shape == (1, 1, 16, 0, 13)


@pytest.mark.smoke
def test_scene_graph_service(seen: Client, client: Client) -> None:
    all_of_it = client.wait(client.get_scene_graph.call_async(GetSceneGraph.Request()))
    assert [o.id for o in all_of_it.scene_graph.objects] == [TABLE, BOX, BALL]
    one = client.wait(client.get_scene_graph.call_async(GetSceneGraph.Request(object_ids=[BALL])))
    assert [o.id for o in one.scene_graph.objects] == [BALL]
    none = client.wait(client.get_scene_graph.call_async(GetSceneGraph.Request(object_ids=[77])))
    assert none.error_code == GetSceneGraph.Response.UNKNOWN_OBJECT and "[77]" in none.error_msg


@pytest.mark.smoke
def test_256_hypotheses_in_one_call(seen: Client, client: Client) -> None:
    hypotheses = tuple(Hypothesis(f"push {i}", (set_velocity(BALL, (0.0, 0.003 * i, 0.0)),)) for i in range(256))
    answer = client.ask(ImagineRequest(hypotheses, 1.0, pairs=((BOX, BALL),)), 60.0)
    assert answer.error_code == CODES.OK, answer.error_msg
    rollout = rollout_from_msg(answer.rollout, ((BOX, BALL),))
    assert rollout.complete and rollout.states.shape == (256, 1, 31, 3, 13)
    assert np.isfinite(rollout.states).all() and rollout.present.all()
    assert rollout.pair_collision[0, 0] == 0.0 and rollout.pair_collision[-1, 0] == 1.0
    assert 0.0 < answer.compute_time < 30.0


@pytest.mark.smoke
def test_goal_streams_states_and_frames(seen: Client, client: Client) -> None:
    got: list[Any] = []
    pictures: list[Any] = []
    extra = [
        client.node.create_subscription(Image, "imagined/image", pictures.append, qos.DERIVED_IMAGE),
        client.node.create_subscription(PointCloud2, "imagined/points", pictures.append, qos.MARKERS),
        client.node.create_subscription(MarkerArray, "imagined/markers", pictures.append, qos.MARKERS),
    ]
    client.spin_until(
        lambda: all(client.node.count_publishers(f"imagined/{n}") for n in ("image", "points", "markers")),
        10,
        "topics",
    )
    time.sleep(0.2)  # both ends must have found each other before what is published counts
    hypotheses = (FACTUAL, PUSH, Hypothesis("gone", (remove(BOX),)))
    request = ImagineRequest(hypotheses, 1.0, images=ImageRequest(video=True, depth=True, points=True, rate_hz=5.0))
    goal = Imagine.Goal(request=request_to_msg(request))
    handle = client.wait(client.action.send_goal_async(goal, feedback_callback=lambda m: got.append(m.feedback)))
    assert handle.accepted
    # rclpy's client passes no feedback on once it has the result, even such as came before: first the frames.
    client.spin_until(lambda: sum(bool(f.frame.data) for f in got) >= 18, 30.0, "all frames")
    result = client.wait(handle.get_result_async(), 30.0).result
    assert result.error_code == Imagine.Result.OK, result.error_msg

    partials = {f.hypothesis: f.partial for f in got if len(f.partial.times)}
    assert set(partials) == {0, 1, 2}
    rollout = rollout_from_msg(result.rollout)
    for k, partial in partials.items():
        np.testing.assert_array_equal(rollout_from_msg(partial).states[0], rollout.states[k])
    progress = [f.progress for f in got]
    assert progress == sorted(progress) and progress[-1] == pytest.approx(1.0)

    assert len(result.rollout.video) == len(result.rollout.depth) == 3 * 6
    first = compressed_to_rgb(result.rollout.video[0])
    assert first.shape == (240, 320, 3)
    assert np.abs(first.astype(int) - trace(make_scene())[0]).mean() < 4.0
    depth = compressed_to_depth(result.rollout.depth[0])
    assert np.abs(depth - trace(make_scene())[1]).max() < 2e-3
    without_box = compressed_to_rgb(result.rollout.video[2 * 6 + 5]).astype(int)
    assert not ((without_box[..., 0] > 160) & (without_box[..., 1] < 80)).any()
    assert sum(result.rollout.point_counts) == len(result.rollout.points) // 3 > 1000
    client.spin_until(
        lambda: {type(m).__name__ for m in pictures} == {"Image", "PointCloud2", "MarkerArray"},
        5.0,
        "pictures",
    )
    for subscription in extra:
        client.node.destroy_subscription(subscription)


@pytest.mark.smoke
def test_goal_cancelled_quickly(seen: Client, client: Client) -> None:
    hypotheses = tuple(Hypothesis(f"{i}", (apply_impulse(BALL, (0, 1e-4 * i, 0)),)) for i in range(60))
    request = ImagineRequest(hypotheses, 5.0, samples=4, images=ImageRequest(video=True, rate_hz=5.0))
    got: list[Any] = []
    goal = Imagine.Goal(request=request_to_msg(request))
    handle = client.wait(client.action.send_goal_async(goal, feedback_callback=got.append))
    result_future = handle.get_result_async()
    client.spin_until(lambda: got, 20.0, "feedback")
    # Service and input go on beside the long goal.
    assert client.ask(ImagineRequest((FACTUAL,), 0.2)).error_code == CODES.OK
    begin = time.monotonic()
    assert client.wait(handle.cancel_goal_async()).goals_canceling
    result = client.wait(result_future).result
    assert time.monotonic() - begin < 1.0
    assert result.error_code == Imagine.Result.CANCELLED and "cancelled" in result.error_msg
    assert not result.rollout.complete and len(result.rollout.states)


def test_a_future_that_cannot_be_is_marked_in_the_answer(seen: Client, client: Client) -> None:
    """Such a blow would make the ball faster than any body that the backends are made for."""
    hypotheses = (Hypothesis("as it is"), Hypothesis("shot", (apply_impulse(BALL, (0.0, 900.0, 0.0)),)))
    answer = client.ask(ImagineRequest(hypotheses, 0.5, backend="physics"), 60.0)
    assert answer.error_code == CODES.OK, answer.error_msg
    assert list(answer.rollout.valid) == [1, 0] and list(answer.rollout.computed) == [1, 1]
    assert answer.rollout.invalid_reasons[0] == "" and "m/s after" in answer.rollout.invalid_reasons[1]
    assert any("1 of 2 futures" in text and "'shot'" in text for text in answer.rollout.warnings)
    rollout = rollout_from_msg(answer.rollout)
    assert rollout.usable.tolist() == [True, False] and np.isnan(rollout.effect[1]).all()
    client.spin_until(lambda: client.counter("invalid_futures") >= 1, 5.0, "the invalid future in diagnostics")


@pytest.mark.smoke
def test_a_planner_asks_for_a_batch_and_gets_costs(seen: Client, client: Client) -> None:
    impulses = np.linspace([0.0, 0.0, 0.0], [0.0, 0.12, 0.0], 128)[:, None]
    request = ImagineRequest(
        (),
        1.0,
        backend="physics",
        batches=(impulse_batch(BALL, impulses, name="push"),),
        pairs=((BOX, BALL),),
        want_states=StatesWanted.FINAL,
        want_events=False,
        event_kinds=(EventKind.FALL, EventKind.CONTACT),
    )
    answer = client.ask(request, 60.0)
    assert answer.error_code == CODES.OK, answer.error_msg
    rollout = rollout_from_msg(answer.rollout)
    assert len(rollout.hypotheses) == 128 and rollout.hypotheses[7] == "push/7" and rollout.complete
    assert rollout.valid.all() and not any(rollout.invalid_reasons)
    assert not len(answer.rollout.states) and not answer.rollout.events and rollout.computed.all()
    assert rollout.final_states.shape == (128, 1, 3, 13) and rollout.pairs == ((BOX, BALL),)
    assert rollout.pair_collision[0, 0] == 0.0 and rollout.pair_collision[-1, 0] == 1.0
    assert rollout.event_probability[-1, 1, 1] == 1.0 and rollout.effect[-1, 2] > 0.1
    assert 0.0 < rollout.dynamics_s <= answer.compute_time
    client.spin_until(lambda: client.counter("futures.physics") >= 128, 5.0, "who answered in diagnostics")


def test_what_would_prevent_over_the_service(seen: Client, client: Client) -> None:
    pushed = Hypothesis("push", (set_velocity(BALL, (0.0, 0.5, 0.0)),))
    asked = (EventQuestion(EventKind.CONTACT, BOX, hypothesis=0),)
    answer = client.ask(ImagineRequest((pushed,), 1.0, questions=asked, want_states=StatesWanted.NONE))
    assert answer.error_code == CODES.OK, answer.error_msg
    reasons = rollout_from_msg(answer.rollout, (), asked).answers[0]
    assert reasons.probability == 1.0 and reasons.object_ids.tolist() == [BALL]
    assert reasons.prevented.tolist() == [1.0]


def test_odd_input_over_the_service(seen: Client, client: Client) -> None:
    out = Hypothesis("out", (follow_path([0, 0.3], [[0, 0, 0.2], [0, 3.0, 0.2]]),))
    answer = client.ask(ImagineRequest((FACTUAL, out), 0.5))
    assert answer.error_code == CODES.OK, answer.error_msg
    assert answer.rollout.path_outside[0] == 0.0 < answer.rollout.path_outside[1]
    assert "hypotheses[1].interventions[0].path: leaves the workspace" in answer.rollout.warnings[0]

    msg = request_to_msg(ImagineRequest((FACTUAL,), 0.5, initial_state=scene_with_camera()))
    msg.initial_state.objects[1].pose.pose.position.z = NAN
    answer = client.ask(msg)
    assert answer.error_code == CODES.INVALID_REQUEST and "initial_state: " in answer.error_msg

    hypotheses = tuple(Hypothesis(f"{i}", (apply_impulse(BALL, (0, 1e-4 * i, 0)),)) for i in range(300))
    answer = client.ask(ImagineRequest(hypotheses, 2.0, deadline_s=1e-3), 30.0)
    assert answer.error_code == CODES.OK and not answer.rollout.complete, answer.error_msg
    assert not answer.rollout.computed[-1] and len(answer.rollout.computed) == 300
    print(f"a deadline of 1 ms, 300 futures: answered after {1e3 * answer.compute_time:.0f} ms in the node")

    many = SceneGraph.build(
        range(1, 202),
        [[0, 0, -0.02], *([0.1 * (i % 20), 0.1 * (i // 20), 0.02] for i in range(200))],
        [[6.0, 4.0, 0.04], *([0.04] * 3 for _ in range(200))],
        is_static=[True] + [False] * 200,
        class_names=["support"] + ["box"] * 200,
    )
    answer = client.ask(ImagineRequest((FACTUAL,), 0.2, initial_state=many), 60.0)
    assert answer.error_code == CODES.OK and len(answer.rollout.object_ids) == 201, answer.error_msg


def test_a_named_model_that_does_not_load_is_refused(tmp_path: Any) -> None:
    bad_file = tmp_path / "bad_dynamics.onnx"
    bad_file.write_bytes(b"not a model")
    command = [sys.executable, "-m", "wm_imagination.node", "--ros-args", "-p", f"dynamics_model:={bad_file}"]
    process = NodeProcess([*command, "-r", "__ns:=/other"], tmp_path / "log", dict(os.environ))
    try:
        end = time.monotonic() + 60.0
        while "bad_dynamics.onnx" not in process.output and process.alive and time.monotonic() < end:
            time.sleep(0.1)
        assert "bad_dynamics.onnx" in process.output, process.output[-3000:]
        assert "dynamics backend" not in process.output
    finally:
        process.stop()


def bad(**changes: Any) -> Any:
    return request_to_msg(replace(ImagineRequest((FACTUAL,), 0.5), **changes))


NAN = float("nan")


@pytest.mark.parametrize(
    ("msg", "code", "said"),
    [
        (bad(horizon_s=0.0), CODES.INVALID_REQUEST, "horizon: got 0 s"),
        (bad(horizon_s=1e9), CODES.INVALID_REQUEST, "horizon: got 1e+09 s, expected more than 0 to 30 s"),
        (bad(horizon_s=NAN), CODES.INVALID_REQUEST, "horizon: got nan s"),
        (bad(hypotheses=()), CODES.INVALID_REQUEST, "hypotheses: got 0, expected 1 to 1024"),
        (
            bad(hypotheses=(Hypothesis("x", (set_velocity(BALL, (NAN, 0, 0)),)),)),
            CODES.INVALID_REQUEST,
            "hypotheses[0].interventions[0].twist.linear",
        ),
        (
            bad(hypotheses=(Hypothesis("x", (remove(99),)),)),
            CODES.UNKNOWN_OBJECT,
            "hypotheses[0].interventions[0].object_id: object id 99 is not in the scene graph (ids: [1, 2, 3])",
        ),
        (bad(pairs=((BOX, 55),)), CODES.UNKNOWN_OBJECT, "pairs[0]: object id 55"),
        (
            bad(batches=(path_batch(np.full((3, 2, 3), NAN), [0.0, 0.2]),)),
            CODES.INVALID_REQUEST,
            "batches[0].values: got [nan, nan, nan] at [0, 0], expected finite",
        ),
        (
            bad(questions=(EventQuestion(EventKind.FALL, 66),)),
            CODES.UNKNOWN_OBJECT,
            "questions[0]: object id 66 is not in the scene graph",
        ),
        (bad(backend="magic"), CODES.INVALID_REQUEST, "backend: got 'magic', expected one of auto, learned"),
        (bad(deadline_s=-1.0), CODES.INVALID_REQUEST, "deadline: got -1 s"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refused_by_service_and_action(seen: Client, client: Client, msg: Any, code: int, said: str) -> None:
    answer = client.ask(msg)
    assert answer.error_code == code and said in answer.error_msg, answer.error_msg
    handle = client.wait(client.action.send_goal_async(Imagine.Goal(request=msg)))
    result = client.wait(handle.get_result_async())
    assert result.status == 6  # aborted (action_msgs/GoalStatus), so that the reason reaches the client
    assert result.result.error_code == code and said in result.result.error_msg


def test_a_million_hypotheses_are_refused(seen: Client, client: Client) -> None:
    msg = bad()
    msg.hypotheses = [HypothesisMsg()] * 1_000_000
    begin = time.monotonic()
    answer = client.ask(msg, 60.0)
    assert answer.error_code == CODES.INVALID_REQUEST
    assert "hypotheses: got 1000000, expected 1 to 1024 (max_hypotheses)" in answer.error_msg
    assert answer.compute_time < 0.05
    print(f"refused after {time.monotonic() - begin:.1f} s, nearly all of it in the middleware")


def test_bad_input_is_counted(seen: Client, client: Client) -> None:
    broken = scene_graph_to_msg(scene_with_camera())
    broken.objects[0].extents.x = NAN
    client.scene_out.publish(broken)
    client.spin_until(lambda: client.counter("bad_scene_graph") > 0, 10.0, "a counted scene graph")

    def bad_frame() -> bool:
        client.stamp_ns += 33_000_000
        color, depth, _ = trace(make_scene())
        small = np.zeros((10, 10), np.uint16)
        msg = scene_graph_to_msg(scene_with_camera())
        msg.header.stamp = ns_to_stamp(client.stamp_ns)
        client.info_out.publish(camera_to_info(CAMERA, client.stamp_ns, FRAME))
        client.color_out.publish(rgb_to_image(color, client.stamp_ns, FRAME))
        client.depth_out.publish(depth_to_image(depth, client.stamp_ns, FRAME))
        client.instances_out.publish(array_to_image(small, "mono16", client.stamp_ns, FRAME))
        client.scene_out.publish(msg)
        for _ in range(5):
            client.executor.spin_once(timeout_sec=0.05)
        return client.counter("bad_frame") > 0

    client.spin_until(bad_frame, 10.0, "a counted frame")
    strange = Image(height=4, width=4, encoding="yuv42", step=4, data=array.array("B", bytes(16)))
    strange.header.stamp = ns_to_stamp(client.stamp_ns)
    client.color_out.publish(strange)
    answer = client.ask(ImagineRequest((FACTUAL,), 0.2))
    assert answer.error_code == CODES.OK
    client.spin_until(
        lambda: "imagination: backend" in client.diagnostics and "imagination: imagine" in client.diagnostics,
        5.0,
        "diagnostics",
    )
    assert "physics" in client.diagnostics["imagination: backend"].message


def test_png_is_what_the_contract_says(seen: Client, client: Client) -> None:
    answer = client.ask(ImagineRequest((FACTUAL,), 0.2, images=ImageRequest(depth=True)))
    assert answer.error_code == CODES.OK, answer.error_msg
    pixels = cv2.imdecode(np.frombuffer(answer.rollout.depth[0].data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16 and 500 < np.median(pixels) < 3000
    assert answer.rollout.camera.width == 320 and len(answer.rollout.video) == 0


def test_matcher_waits_for_all_parts_and_counts_what_it_drops() -> None:
    matcher = FrameMatcher(tolerance_ns=5, capacity=3)
    info = CameraInfo()
    matcher.add("scene", 100, "g")
    assert matcher.take(info) is None and "color" in matcher.missing() and "depth" in matcher.missing()
    matcher.add("color", 100, "c")
    matcher.add("instances", 100, "i")
    matcher.add_depth(110, "too late")
    assert matcher.take(info) is None
    matcher.add_depth(104, "d")
    assert matcher.take(None) is None
    frame = matcher.take(info)
    assert frame is not None and (frame.stamp_ns, frame.depth, frame.scene) == (100, "d", "g")
    for stamp in range(200, 260, 10):
        matcher.add("scene", stamp, "g")
    assert matcher.dropped == 3
    matcher.add("scene", 10**10, "later")
    matcher.add("scene", 5, "set back")
    assert len(matcher._parts) == 1
