"""The perception node on a live graph: bad input is counted and named, the node goes on and publishes again.

The node has a stand-in pipeline (tests/perceived_robot.py), so that the tests choose what the pipeline does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from conftest import NodeProcess
from perceived_robot import (
    CAMERA,
    CRASH,
    EARLY_CRASH,
    EMPTY,
    FRAME,
    SLOW,
    STEP_NS,
    Robot,
    StandInPipeline,
    good_color,
    good_depth,
    parameters,
    start,
)
from wm_bringup.recording.replay_node import ReplayNode
from wm_core.camera import Camera
from wm_ros import qos
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import ENCODINGS, array_to_image, depth_to_image, image_to_array, image_to_rgb, rgb_to_image
from wm_ros.stamps import ns_to_stamp
from wm_ros.transforms import transform_to_msg

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    given = parameters(diagnostics_period_s=0.25, overlap_frames="always")  # off by itself on two cores
    process = start(tmp_path_factory.mktemp("perception") / "log", *given)
    yield process
    process.stop()
    print(process.output[-4000:])


@pytest.fixture(scope="module")
def robot_of_module() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture
def robot(robot_of_module: Robot, node: NodeProcess) -> Iterator[Robot]:
    """A robot whose node is up and has published; afterwards it must still be alive."""
    robot_of_module.expect_graph()
    yield robot_of_module
    assert node.alive, node.output[-3000:]


# The first test finds a node that has had no camera info yet.


def test_missing_camera_info_is_waited_for_and_named(robot_of_module: Robot, node: NodeProcess) -> None:
    robot = robot_of_module
    robot.spin_until(
        lambda: robot.counter("missing_camera_info") > 0 and "/camera/color/camera_info" in robot.counters_message,
        "missing_camera_info",
        timeout_s=30.0,
        each=lambda: robot.frame(info=False),
    )
    robot.spin_until(
        lambda: "silent.camera_info: /camera/color/camera_info (intrinsics) has sent nothing" in node.output,
        "a log line",
        each=lambda: robot.frame(info=False),
    )
    robot.expect_graph()
    assert node.alive


@pytest.mark.smoke
def test_a_graph_has_stamp_frame_and_camera_pose_of_its_frame(robot: Robot) -> None:
    graph = robot.expect_graph()
    assert graph.frame_id == "map"
    assert graph.ids.tolist() == [1]
    np.testing.assert_allclose(graph.world_T_camera[:3, 3], [0.0, 0.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(graph.world_T_camera[:3, 2], [1.0, 0.0, 0.0], atol=1e-6)  # looks along x


@pytest.mark.smoke
def test_instances_overlay_and_markers_come_when_subscribed(robot: Robot) -> None:
    subscriptions = robot.listen_to_images()
    robot.spin_until(lambda: robot.instances and robot.overlays and robot.markers, "three outputs", each=robot.frame)
    ids = image_to_array(robot.instances[-1])
    assert robot.instances[-1].encoding == "mono16" and (ids == 1).all()
    assert robot.overlays[-1].encoding == "rgb8" and image_to_rgb(robot.overlays[-1]).std() > 1.0
    assert {m.ns for m in robot.markers[-1].markers} == {"objects", "labels"}
    for subscription in subscriptions:
        robot.node.destroy_subscription(subscription)


@pytest.mark.smoke
def test_matched_inputs_are_the_publishers_that_each_subscription_hears(robot: Robot) -> None:
    heard: list[dict[str, int]] = []

    def take(msg: DiagnosticArray) -> None:
        heard.append({v.key: int(v.value) for v in msg.status[0].values})

    subscription = robot.node.create_subscription(DiagnosticArray, "/wm/matched_inputs", take, qos.MATCHED_INPUTS)
    info = "/camera/color/camera_info"
    images = {"/camera/color/image_raw": 1, "/camera/depth/image_raw": 1}
    robot.spin_until(lambda: heard and heard[-1] == {**images, info: 1}, "one publisher each")
    publisher = robot.node.create_publisher(CameraInfo, info, qos.SENSOR)
    robot.spin_until(lambda: heard[-1] == {**images, info: 2}, "a second one")
    robot.node.destroy_publisher(publisher)
    robot.spin_until(lambda: heard[-1] == {**images, info: 1}, "one again")
    robot.node.destroy_subscription(subscription)


def test_different_sizes(robot: Robot) -> None:
    depth = depth_to_image(np.ones((24, 32), np.float32))
    robot.expect_counter("size_mismatch", lambda: robot.frame(depth=depth), "32x24", "64x48", "resize_depth")
    narrow = depth_to_image(np.ones((48, 32), np.float32))
    robot.expect_counter("size_mismatch", lambda: robot.frame(depth=narrow), "32x48", "64x48")


def test_camera_info_of_another_size(robot: Robot) -> None:
    robot.expect_counter(
        "camera_info_size",
        lambda: robot.frame(info=camera_to_info(Camera(128, 96, 60.0, 60.0, 63.5, 47.5))),
        "128x96",
        "64x48",
    )


def test_uncalibrated_camera(robot: Robot) -> None:
    robot.expect_counter(
        "bad_camera_info", lambda: robot.frame(info=CameraInfo(width=64, height=48)), "fx", "calibrate"
    )


def test_unsynchronised(robot: Robot) -> None:
    robot.expect_counter("unsynchronised", lambda: robot.frame(depth_offset_ns=STEP_NS // 2), "max_stamp_difference_s")


@pytest.mark.parametrize("encoding", ["nv24", "", "32FC1"])
def test_unknown_color_encoding(robot: Robot, encoding: str) -> None:
    color = rgb_to_image(good_color())
    color.encoding = encoding
    robot.expect_counter(
        "bad_color", lambda: robot.frame(color=color), repr(encoding), "/camera/color/image_raw", "rgb8"
    )


def test_unknown_depth_encoding_and_short_data(robot: Robot) -> None:
    depth = depth_to_image(good_depth())
    depth.encoding = "64FC1"
    robot.expect_counter("bad_depth", lambda: robot.frame(depth=depth), "64FC1", "16UC1")
    short = depth_to_image(good_depth())
    short.data = short.data[:100]
    robot.expect_counter("bad_depth", lambda: robot.frame(depth=short), "100 bytes")


@pytest.mark.parametrize("value", [np.nan, 0.0, np.inf, -1.0])
def test_depth_without_measurements_keeps_objects_and_warns(robot: Robot, value: float) -> None:
    pixels = np.full((CAMERA.height, CAMERA.width), value, np.float32)
    depth = array_to_image(pixels, "32FC1")
    before, start_ns = robot.counter("empty_depth"), robot.stamp_ns
    robot.spin_until(
        lambda: robot.counter("empty_depth") > before and robot.graphs[-1].stamp_ns > start_ns,
        "empty_depth",
        each=lambda: robot.frame(depth=depth),
    )
    assert "/camera/depth/image_raw" in robot.counters_message
    assert robot.graphs[-1].ids.tolist() and robot.graphs[-1].visibilities.tolist() == [0.0]
    assert robot.expect_graph().visibilities.tolist() == [1.0]


def test_an_empty_scene_is_a_graph_without_objects(robot: Robot) -> None:
    robot.spin_until(lambda: len(robot.graphs[-1]) == 0, "an empty graph", each=lambda: robot.frame(order=EMPTY))
    assert len(robot.expect_graph()) == 1


def test_late_tf_is_waited_for(robot: Robot) -> None:
    robot.expect_graph()
    stamp_ns = robot.frame(tf=False)
    deadline = time.monotonic() + 0.06
    while time.monotonic() < deadline:
        robot.executor.spin_once(timeout_sec=0.01)
    robot.send_tf(stamp_ns, x_m=0.25)
    graph = robot.spin_until(lambda: [g for g in robot.graphs if g.stamp_ns == stamp_ns], "the graph of that frame")[0]
    assert graph.world_T_camera[0, 3] == pytest.approx(0.25)


def test_tf_that_never_comes(robot: Robot) -> None:
    robot.expect_counter("tf_late", lambda: robot.frame(tf=False), "after the newest one", "tf_timeout_s")


def test_unknown_frame(robot: Robot) -> None:
    def publish() -> None:
        color = rgb_to_image(good_color())
        robot.stamp_ns += STEP_NS
        color.header.stamp, color.header.frame_id = ns_to_stamp(robot.stamp_ns), "nowhere"
        depth = depth_to_image(good_depth(), robot.stamp_ns, "nowhere")
        robot.color_out.publish(color)
        robot.depth_out.publish(depth)

    robot.expect_counter("tf_missing", publish, "'nowhere' is not known", FRAME, "camera_frame")


def test_bad_transforms_are_refused_by_name(robot: Robot) -> None:
    def publish() -> None:
        pose = np.eye(4)
        msg = transform_to_msg("map", "gripper", robot.stamp_ns, pose)
        msg.transform.translation.x = float("nan")
        robot.tf_out.publish(TFMessage(transforms=[msg]))
        robot.frame()

    robot.expect_counter("bad_transform", publish, "gripper")


def test_time_going_backwards_resets_the_tracks(robot: Robot) -> None:
    first_id = int(robot.expect_graph().ids[0])
    robot.stamp_ns -= 5_000_000_000
    restarted_at_ns = robot.stamp_ns
    robot.spin_until(
        lambda: restarted_at_ns < robot.graphs[-1].stamp_ns <= robot.stamp_ns,
        "a graph of the new time",
        each=robot.frame,
    )
    assert robot.graphs[-1].ids.tolist() == [first_id + 1]
    robot.spin_until(lambda: robot.counter("time_restarts") >= 1, "time_restarts", each=robot.frame)


def test_time_set_back_while_the_node_is_inactive_resets_the_tracks_too() -> None:
    """A simulation that starts again meanwhile: the synchronizer is new with every activation, the pipeline is not."""
    graphs: list[SceneGraphMsg] = []
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "-r", "__ns:=/alone", "-p", "pose_source:=fixed"])
    node = ReplayNode({"scene_graph": graphs.append}, context=context, pipeline=StandInPipeline)
    try:

        def ids_at(stamp_ns: int) -> list[int]:
            before = len(graphs)
            for topic, message in (
                ("/camera/color/camera_info", camera_to_info(CAMERA, stamp_ns, FRAME)),
                ("/camera/color/image_raw", rgb_to_image(good_color(), stamp_ns, FRAME)),
                ("/camera/depth/image_raw", depth_to_image(good_depth(), stamp_ns, FRAME)),
            ):
                node.inputs[topic][1][-1](message)
            assert node.wait_until_idle(10.0) and len(graphs) == before + 1
            return [o.id for o in graphs[-1].objects]

        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert ids_at(10_000_000_000) == ids_at(10_000_000_000 + STEP_NS) == [1]
        assert node.trigger_deactivate() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert ids_at(10_000_000_000 + 2 * STEP_NS) == [1], "time went on: so do the tracks"
        assert node.trigger_deactivate() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert ids_at(2_000_000_000) == [2]
    finally:
        node.deactivate()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def test_one_late_image_is_dropped_and_counted(robot: Robot) -> None:
    def publish() -> None:
        robot.frame()
        late = rgb_to_image(good_color(), robot.stamp_ns - STEP_NS, FRAME)
        robot.color_out.publish(late)

    first_id = int(robot.expect_graph().ids[0])
    robot.expect_counter("out_of_order", publish)
    assert robot.expect_graph().ids.tolist() == [first_id]


def test_a_failing_pipeline_is_reported_and_survived(robot: Robot, node: NodeProcess) -> None:
    robot.expect_counter("exceptions.pipeline", lambda: robot.frame(order=CRASH), "the stand-in was told to fail")
    assert "RuntimeError: the stand-in was told to fail" in node.output
    robot.expect_graph()
    early = "the stand-in was told to fail early"
    robot.expect_counter("exceptions.pipeline", lambda: robot.frame(order=EARLY_CRASH), early)


def test_no_message_kills_the_node(robot: Robot) -> None:
    """Three hundred frames of nonsense: any encoding, size, step, length, stamp, intrinsics, frame and transform."""
    random = np.random.default_rng(7)
    encodings = [*ENCODINGS, "", "bayer_rggb8", "64FC1"]

    def odd_image() -> Image:
        msg = Image(encoding=str(random.choice(encodings)), is_bigendian=int(random.integers(2)))
        msg.height, msg.width = int(random.choice([0, 1, 48, 2**31])), int(random.choice([0, 1, 64, 2**31]))
        msg.step = int(random.choice([0, 64, 128, 192, 256, 2**32 - 1]))
        msg.data = random.integers(0, 256, int(random.choice([0, 1, 48 * 64, 48 * 192])), np.uint8).tobytes()
        return msg

    def odd_frame() -> None:
        stamp_ns = max(0, robot.stamp_ns + int(random.choice([STEP_NS, STEP_NS, STEP_NS, -STEP_NS, -(10**9), 10**9])))
        robot.stamp_ns = stamp_ns
        frame = str(random.choice([FRAME, FRAME, "", "/", "nowhere"]))
        info = camera_to_info(CAMERA, stamp_ns, frame)
        if random.random() < 0.5:
            info.k = random.choice([0.0, 60.0, -1.0, np.nan, np.inf], 9)
            info.width, info.height = int(random.choice([0, 64])), int(random.choice([0, 48]))
        color = odd_image() if random.random() < 0.6 else rgb_to_image(good_color())
        depth = odd_image() if random.random() < 0.6 else depth_to_image(good_depth())
        for msg in (color, depth):
            msg.header.stamp, msg.header.frame_id = ns_to_stamp(stamp_ns), frame
        odd = transform_to_msg("map", "x", stamp_ns, np.eye(4))
        odd.header.frame_id, odd.child_frame_id = (str(v) for v in random.choice(["", "map", "x", FRAME], 2))
        odd.transform.rotation.w = float(random.choice([0.0, 1.0, np.nan, np.inf]))
        robot.info_out.publish(info)
        if odd.child_frame_id != "map":  # a map with a parent would outlast this test
            robot.tf_out.publish(TFMessage(transforms=[odd]))
        robot.color_out.publish(color)
        robot.depth_out.publish(depth)

    for _ in range(300):
        odd_frame()
        robot.executor.spin_once(timeout_sec=0.005)
    robot.stamp_ns += 10_000_000_000
    robot.expect_graph()
    assert robot.counter("bad_color") and robot.counter("bad_depth") and robot.counter("time_restarts")


def test_a_slow_pipeline_takes_the_newest_frame_and_queues_nothing(robot: Robot) -> None:
    before = len(robot.graphs)
    sent: list[int] = []
    robot.spin_until(lambda: len(sent) >= 45, "frames", each=lambda: sent.append(robot.frame(order=SLOW)))
    ended = time.monotonic()
    robot.spin_until(lambda: robot.graphs[-1].stamp_ns == sent[-1], "the last frame's graph")
    # Two of a quarter second at most lie before the last: the one being worked on and its own.
    assert time.monotonic() - ended < 1.2
    assert len(robot.graphs) - before < 15
    robot.spin_until(lambda: robot.counter("frames_passed_over") >= 20, "frames_passed_over")
    status = robot.diagnostics["perception: image to scene graph"]
    assert float({v.key: v.value for v in status.values}["max_s"]) < 1.0


def test_silence_is_an_error_that_names_the_topics(robot: Robot) -> None:
    def silent() -> bool:
        return all(robot.level(f"perception: {n} input") == b"\x02" for n in ("color", "depth", "camera_info"))

    robot.spin_until(silent, "an error on every input")
    assert "/camera/depth/image_raw" in robot.said("perception: depth input")
    robot.expect_graph()
    robot.spin_until(lambda: robot.level("perception: color input") == b"\x00", "recovery", each=robot.frame)


@pytest.mark.smoke
def test_parameters_are_checked_on_set(robot: Robot) -> None:
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    client = robot.node.create_client(SetParameters, "/wm/perception/set_parameters")

    def set_parameter(name: str, value: float) -> Any:
        double = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=double)])
        future = client.call_async(request)
        robot.spin_until(future.done, "an answer")
        return future.result().results[0]

    robot.spin_until(client.service_is_ready, "the parameter service")
    refused = set_parameter("tf_timeout_s", 11.0)
    assert not refused.successful and "tf_timeout_s" in refused.reason and "11.0" in refused.reason
    assert "10" in refused.reason
    assert not set_parameter("tf_timeout_s", float("nan")).successful
    assert set_parameter("tf_timeout_s", 0.3).successful
    assert set_parameter("tf_timeout_s", 0.2).successful


@pytest.mark.smoke
def test_lifecycle_by_service_and_clean_end(tmp_path: Path, robot_of_module: Robot, node: NodeProcess) -> None:
    """The module's node is taken down and up again; last, so that nothing depends on it."""
    from lifecycle_msgs.msg import State
    from lifecycle_msgs.srv import GetState

    robot = robot_of_module
    change = robot.node.create_client(ChangeState, "/wm/perception/change_state")
    state = robot.node.create_client(GetState, "/wm/perception/get_state")
    robot.spin_until(lambda: change.service_is_ready() and state.service_is_ready(), "services")

    def transition(number: int) -> int:
        future = change.call_async(ChangeState.Request(transition=Transition(id=number)))
        robot.spin_until(future.done, "a transition")
        assert future.result().success
        future = state.call_async(GetState.Request())
        robot.spin_until(future.done, "the state")
        return future.result().current_state.id

    assert transition(Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
    before = len(robot.graphs)
    sent: list[int] = []
    robot.spin_until(lambda: len(sent) > 10, "frames", each=lambda: sent.append(robot.frame()))
    assert len(robot.graphs) == before
    assert transition(Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED
    assert transition(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert transition(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    robot.expect_graph()
    assert node.stop() == 0
    assert "Traceback" not in node.output.split("told to fail")[-1]
