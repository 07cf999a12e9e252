"""The perception node with other settings, each a node of its own on a live graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from tf2_msgs.msg import TFMessage

from model_files import learned_model
from perceived_robot import (
    CAMERA,
    FRAME,
    STEP_NS,
    Robot,
    good_color,
    good_depth,
    parameters,
    start,
)
from traced_scene import CAMERA as TRACED_CAMERA
from traced_scene import FRONT, make_scene, trace
from wm_core.scene_graph import SceneGraph
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.compressed import depth_to_compressed, rgb_to_compressed
from wm_ros.images.pixels import depth_to_image, rgb_to_image
from wm_ros.stamps import ns_to_stamp
from wm_ros.transforms import transform_to_msg

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def robot_of_module() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


@pytest.mark.smoke
def test_compressed_images_fixed_pose_and_simulated_time(tmp_path: Path, robot_of_module: Robot) -> None:
    robot = robot_of_module
    robot.diagnostics.clear()
    process = start(
        tmp_path / "log",
        *parameters(
            color_transport="compressed",
            depth_transport="compressedDepth",
            pose_source="fixed",
            fixed_pose="[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]",
            use_sim_time="true",
        ),
    )

    def publish() -> None:
        robot.stamp_ns += STEP_NS
        robot.clock_out.publish(Clock(clock=ns_to_stamp(robot.stamp_ns)))
        robot.info_out.publish(camera_to_info(CAMERA, robot.stamp_ns, FRAME))
        robot.color_compressed_out.publish(rgb_to_compressed(good_color(), robot.stamp_ns, FRAME, "png"))
        robot.depth_compressed_out.publish(depth_to_compressed(good_depth(), robot.stamp_ns, FRAME, "compressedDepth"))

    try:
        before = len(robot.graphs)
        robot.spin_until(lambda: len(robot.graphs) > before, "a graph", timeout_s=30.0, each=publish)
        np.testing.assert_allclose(robot.graphs[-1].world_T_camera[:3, 3], [1.0, 2.0, 3.0])
        np.testing.assert_allclose(robot.graphs[-1].positions, [[1.0, 2.0, 4.5]], atol=1e-3)
        robot.spin_until(
            lambda: abs(getattr(robot, "diagnostics_stamp_ns", 0) - robot.stamp_ns) < 3e9,
            "simulated stamps",
            each=publish,
        )

        def publish_rubbish() -> None:
            publish()
            robot.stamp_ns += STEP_NS
            rubbish = CompressedImage(format="jpeg", data=[1, 2, 3])
            rubbish.header.stamp = ns_to_stamp(robot.stamp_ns)
            robot.color_compressed_out.publish(rubbish)
            robot.depth_compressed_out.publish(
                depth_to_compressed(good_depth(), robot.stamp_ns, FRAME, "compressedDepth")
            )

        robot.spin_until(lambda: robot.counter("bad_color") > 0, "bad_color", each=publish_rubbish)
        before = len(robot.graphs)
        robot.spin_until(lambda: len(robot.graphs) > before + 2, "graphs again", each=publish)
    finally:
        status = process.stop()
    assert status == 0, process.output


def test_pose_from_odometry_and_resized_depth(tmp_path: Path, robot_of_module: Robot) -> None:
    robot = robot_of_module
    robot.diagnostics.clear()
    process = start(
        tmp_path / "log",
        *parameters(
            pose_source="odometry",
            odometry_camera_from_tf="false",
            odometry_camera_pose="[0.1, 0.0, 1.0, -0.5, 0.5, -0.5, 0.5]",
            world_frame="odom",
            resize_depth="true",
        ),
    )
    frame_id = "odom"

    def publish() -> None:
        msg = Odometry(child_frame_id="base_link")
        msg.header.frame_id = frame_id
        msg.header.stamp = ns_to_stamp(robot.stamp_ns + STEP_NS)
        msg.pose.pose.position.x = 2.0
        msg.pose.pose.orientation.w = 1.0
        robot.odometry_out.publish(msg)
        robot.frame(tf=False, depth=depth_to_image(np.full((24, 32), 2.0, np.float32)))

    try:
        before = len(robot.graphs)
        robot.spin_until(lambda: len(robot.graphs) > before, "a graph", timeout_s=30.0, each=publish)
        assert robot.graphs[-1].frame_id == "odom"
        np.testing.assert_allclose(robot.graphs[-1].world_T_camera[:3, 3], [2.1, 0.0, 1.0], atol=1e-6)
        frame_id = "map"
        robot.spin_until(
            lambda: robot.counter("odometry_frame") > 0 and "set world_frame to 'map'" in robot.counters_message,
            "odometry_frame",
            each=publish,
        )
        frame_id = "odom"
        before = len(robot.graphs)
        robot.spin_until(lambda: len(robot.graphs) > before, "a graph again", each=publish)
    finally:
        status = process.stop()
    assert status == 0, process.output


@pytest.mark.smoke
def test_the_real_pipeline_finds_the_objects_within_a_deadline(tmp_path: Path, robot_of_module: Robot) -> None:
    robot = robot_of_module
    robot.graphs.clear()
    truth = make_scene()
    color, depth, _ = trace(truth, FRONT)
    process = start(tmp_path / "log", module="wm_perception.node")

    def publish() -> None:
        robot.stamp_ns += 2 * STEP_NS
        robot.tf_out.publish(TFMessage(transforms=[transform_to_msg("map", FRAME, robot.stamp_ns, FRONT)]))
        robot.info_out.publish(camera_to_info(TRACED_CAMERA, robot.stamp_ns, FRAME))
        robot.color_out.publish(rgb_to_image(color, robot.stamp_ns, FRAME))
        robot.depth_out.publish(depth_to_image(depth, robot.stamp_ns, FRAME))

    def found() -> SceneGraph | None:
        graph = robot.graphs[-1] if robot.graphs else None
        movable = [] if graph is None else np.flatnonzero(~graph.is_static)
        return graph if len(movable) == 2 and "support" in graph.class_names else None

    try:
        graph = robot.spin_until(found, "a table and two objects", timeout_s=30.0, each=publish)
        for index in (1, 2):
            error = np.linalg.norm(graph.positions[~graph.is_static] - truth.positions[index], axis=1).min()
            assert error < 0.02, f"nearest object is {error:.3f} m off"
        ids = graph.ids.tolist()
        later_ns = graph.stamp_ns + 500_000_000
        robot.spin_until(lambda: robot.graphs[-1].stamp_ns > later_ns, "later graphs", each=publish)
        assert set(ids) <= set(robot.graphs[-1].ids.tolist())
        robot.stamp_ns -= 5_000_000_000  # a reset of the simulation
        robot.graphs.clear()
        robot.spin_until(
            lambda: found() and robot.graphs[-1].stamp_ns <= robot.stamp_ns, "graphs after a reset", 30.0, each=publish
        )
        again = robot.graphs[-1]
        assert not set(ids) & set(again.ids.tolist())
        robot.spin_until(lambda: "perception: image to scene graph" in robot.diagnostics, "latency", each=publish)
    finally:
        status = process.stop()
    assert status == 0, process.output


def test_bad_weights_refuse_configure_by_file_and_tensor(tmp_path: Path, robot_of_module: Robot) -> None:
    robot = robot_of_module
    bad = learned_model(tmp_path / "bad.onnx", rename={"centre": "center"})
    robot.diagnostics.clear()
    # Time went back in the test before: a graph of its node from before that may still arrive, with a later stamp.
    robot.stamp_ns += 20_000_000_000
    first_ns = robot.stamp_ns
    given = {"pipeline.segmenter": "learned", "pipeline.segmenter_model": bad, "diagnostics_period_s": 0.25}
    process = start(tmp_path / "log", *parameters(**given), module="wm_perception.node")

    def refused() -> Any:
        status = robot.diagnostics.get("perception: state")
        return status if status is not None and status.level == b"\x02" else None

    try:
        status = robot.spin_until(refused, "a refusal in diagnostics", 30.0, each=robot.frame)
        for text in ("configure refused", str(bad), "output 'centre' is missing", "'center'"):
            assert text in status.message and text in process.output, (status.message, process.output)
        assert {v.key: v.value for v in status.values}["state"] == "unconfigured"
        assert process.alive and all(graph.stamp_ns <= first_ns for graph in robot.graphs)
        # A good file in its place, and the same node takes it.
        learned_model(bad)
        client = robot.node.create_client(ChangeState, "/wm/perception/change_state")
        robot.spin_until(client.service_is_ready, "the node's lifecycle service")
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        future = client.call_async(request)
        robot.spin_until(future.done, "the second configure", 30.0)
        assert future.result().success, process.output

        def used() -> str:
            status = robot.diagnostics.get("perception: segmenter")
            return status.message if status is not None else ""

        # What the node of the test before says of its own may still arrive.
        robot.spin_until(lambda: used().startswith(f"learned, {bad} (sha256 "), "what is used, in diagnostics")
    finally:
        assert process.stop() == 0, process.output


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"pose_source": "gps"}, ("pose_source", "'gps'", "tf, odometry, fixed")),
        ({"tf_timeout_s": "-1.0"}, ("tf_timeout_s", "-1.0", "0 to 10 s")),
        ({"fixed_pose": "[0.0, 1.0]"}, ("fixed_pose", "7 values")),
        ({"pipeline.stride": "9"}, ("stride", "9", "1 to 8")),
        ({"pipeline.segmenter": "best"}, ("segmenter", "'best'", "auto, learned, geometric, onnx")),
        ({"pipeline.segmenter": "onnx"}, ("segmenter_model", "expected the path of an ONNX file")),
    ],
)
def test_bad_parameters_end_the_start_with_one_line(
    tmp_path: Path, given: dict[str, str], texts: tuple[str, ...]
) -> None:
    process = start(tmp_path / "log", *parameters(**given))
    assert process.process.wait(30.0) == 1
    errors = [line for line in process.output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and all(text in errors[0] for text in texts), process.output
