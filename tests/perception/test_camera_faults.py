"""Cameras as drivers really send them, on a live graph: positions come out right, or the console says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from conftest import NodeProcess
from imagination_client import Client
from lens_images import LENSES, RAW, lens_info, rvl_message, seen_through
from perceived_robot import FRAME, STEP_NS, Robot, parameters, start
from traced_scene import BALL, BOX, CAMERA, FRONT, make_scene, trace
from wm_core.camera import Camera
from wm_core.interventions import Hypothesis
from wm_core.lens import Lens
from wm_core.rollout import ImageRequest, ImagineRequest
from wm_core.scene_graph import SceneGraph
from wm_ros import qos
from wm_ros.conversions.basics import camera_from_msg
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.compressed import compressed_to_rgb
from wm_ros.images.pixels import array_to_image, depth_to_image, image_to_array, rgb_to_image
from wm_ros.stamps import ns_to_stamp
from wm_ros.transforms import transform_to_msg

pytestmark = pytest.mark.ros

TRUTH = make_scene()


class Driver:
    """Sends one frame over and over, as it is told to."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.color: Image | None = None
        self.depth: Image | None = None
        self.rvl: CompressedImage | None = None
        self.info = camera_to_info(CAMERA)
        self.infos: list[CameraInfo] = []
        robot.node.create_subscription(CameraInfo, "/wm/camera_info", self.infos.append, qos.DERIVED_IMAGE)
        robot.listen_to_images()

    def send(self) -> None:
        robot = self.robot
        robot.stamp_ns += 2 * STEP_NS
        stamp = ns_to_stamp(robot.stamp_ns)
        robot.tf_out.publish(TFMessage(transforms=[transform_to_msg("map", FRAME, robot.stamp_ns, FRONT)]))
        for msg, out in (
            (self.info, robot.info_out),
            (self.color, robot.color_out),
            (self.depth, robot.depth_out),
            (self.rvl, robot.depth_compressed_out),
        ):
            if msg is not None:
                msg.header.stamp, msg.header.frame_id = stamp, FRAME
                out.publish(msg)

    def expect_objects(self, what: str) -> SceneGraph:
        """New tracks of the box and the ball, where they are to within 2 cm."""
        robot = self.robot
        self.restart_time()
        first_ns = robot.stamp_ns

        def found() -> SceneGraph | None:
            graph = robot.graphs[-1] if robot.graphs else None
            if graph is None or not first_ns < graph.stamp_ns <= robot.stamp_ns:
                return None
            seen = ~graph.is_static & (graph.visibilities > 0.5)
            errors = [np.linalg.norm(graph.positions[seen] - TRUTH.positions[k], axis=1) for k in (1, 2)]
            right = seen.sum() == 2 and all(len(e) and e.min() < 0.02 for e in errors)
            return graph if right and "support" in graph.class_names else None

        return robot.spin_until(found, f"a table and two objects where they are: {what}", 30.0, each=self.send)

    def restart_time(self) -> None:
        """As a looping bag: tracks are dropped."""
        self.robot.stamp_ns -= 100_000_000_000
        self.robot.graphs.clear()


def set_parameters(robot: Robot, **values: str | float) -> None:
    client = robot.node.create_client(SetParameters, "/wm/perception/set_parameters")
    robot.spin_until(client.service_is_ready, "the parameter service")
    request = SetParameters.Request()
    for name, value in values.items():
        given = (
            ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
            if isinstance(value, str)
            else ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        )
        request.parameters.append(Parameter(name=name, value=given))
    future = client.call_async(request)
    robot.spin_until(future.done, "an answer")
    assert all(r.successful for r in future.result().results), future.result()


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    robot = Robot()
    robot.stamp_ns = 5_000_000_000_000
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def driver(robot: Robot) -> Driver:
    return Driver(robot)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, robot: Robot) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp("faults") / "log"
    process = start(log, *parameters(diagnostics_period_s=0.25), module="wm_perception.node")
    yield process
    status = process.stop()
    print(process.output[-6000:])
    assert status == 0


# Nodes of their own, before that of the module starts: all read the same topics.


def test_rvl_in_tenths_of_millimeters(tmp_path: Path, driver: Driver) -> None:
    color, depth, _ = trace(TRUTH)
    driver.color, driver.depth, driver.info = rgb_to_image(color), None, camera_to_info(CAMERA)
    driver.rvl = rvl_message((10_000.0 * depth).astype(np.uint16))
    given: dict[str, Any] = {"depth_transport": "compressedDepth", "depth_scale": 0.0001}
    process = start(tmp_path / "log", *parameters(**given), module="wm_perception.node")
    try:
        driver.expect_objects("rvl")
    finally:
        status = process.stop()
    driver.rvl = None
    assert status == 0, process.output


def test_imagination_learns_looks_in_the_geometry_of_the_instances(node_process: Callable[..., NodeProcess]) -> None:
    """What it draws for now is the pinhole image of what the distorted camera showed."""
    process = node_process("wm_imagination.node", "--ros-args", "-p", "backend:=physics")
    client = Client()
    rectified = Camera(320, 240, 250.0, 250.0, 159.5, 119.5)
    lens = Lens(RAW, rectified, "plumb_bob", LENSES["plumb_bob"])
    wide = Camera(960, 720, 500.0, 500.0, 479.5, 359.5)
    color, depth = seen_through(lens, *trace(TRUTH, FRONT, wide)[:2], wide)
    true_color, _, ids = trace(TRUTH, FRONT, rectified)

    def learned() -> bool:
        client.stamp_ns += STEP_NS
        scene = scene_graph_to_msg(replace(TRUTH, world_T_camera=FRONT, stamp_ns=client.stamp_ns))
        info = lens_info(lens)
        info.header.stamp, info.header.frame_id = ns_to_stamp(client.stamp_ns), FRAME
        client.info_out.publish(info)
        client.color_out.publish(rgb_to_image(color, client.stamp_ns, FRAME))
        client.depth_out.publish(depth_to_image(depth, client.stamp_ns, FRAME))
        client.instances_out.publish(array_to_image(ids, "mono16", client.stamp_ns, FRAME))
        client.scene_out.publish(scene)
        status = client.diagnostics.get("imagination: appearance")
        return status is not None and status.message.startswith("2 objects")

    try:
        client.spin_until(client.imagine_rollouts.service_is_ready, 30.0, "the node's services")
        client.spin_until(learned, 30.0, "looks of two objects")
        answer = client.ask(ImagineRequest((Hypothesis("as it is"),), 0.2, images=ImageRequest(video=True)))
        assert answer.error_code == 0, answer.error_msg
        assert camera_from_msg(answer.rollout.camera) == rectified
        drawn = compressed_to_rgb(answer.rollout.video[0]).astype(float)
        middle = (slice(20, -20), slice(20, -20))
        assert np.abs(drawn - true_color)[middle].mean() < 5.0
        assert client.counter("bad_frame") == 0
    finally:
        client.close()
    assert process.alive, process.output


# The module's node.


@pytest.mark.parametrize("model", LENSES)
def test_a_distorted_camera_gives_true_positions_and_pixels(driver: Driver, node: NodeProcess, model: str) -> None:
    rectified = Camera(320, 240, 250.0, 250.0, 159.5, 119.5)
    lens = Lens(RAW, rectified, model, LENSES[model])
    wide = Camera(960, 720, 500.0, 500.0, 479.5, 359.5)
    color, depth = seen_through(lens, *trace(TRUTH, FRONT, wide)[:2], wide)
    driver.color, driver.depth = rgb_to_image(color), depth_to_image(depth, encoding="16UC1")
    driver.info = lens_info(lens)
    graph = driver.expect_objects(model)
    robot = driver.robot
    robot.instances.clear()
    driver.infos.clear()
    robot.spin_until(lambda: robot.instances and driver.infos, "instances and their camera info", each=driver.send)
    # Instances are in the pinhole camera's geometry, which the camera info beside them states.
    assert camera_from_msg(driver.infos[-1]) == rectified and not any(driver.infos[-1].d)
    ids, true_ids = image_to_array(robot.instances[-1]), trace(TRUTH, FRONT, rectified)[2]
    for true_id in (BOX, BALL):
        near = np.linalg.norm(graph.positions - TRUTH.positions[true_id - 1], axis=1).argmin()
        mask, true_mask = ids == graph.ids[near], true_ids == true_id
        assert (mask & true_mask).sum() / (mask | true_mask).sum() > 0.75, true_id
    removed = f"distortion ({model}) is removed"
    robot.spin_until(lambda: removed in robot.said("perception: camera"), removed, each=driver.send)


def test_bayer_yuv_and_regions_with_binning(driver: Driver, node: NodeProcess) -> None:
    color, depth, _ = trace(TRUTH)
    mosaic = color[:, :, 2].copy()
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1)):
        mosaic[row::2, column::2] = color[row::2, column::2, channel]
    driver.color = array_to_image(mosaic, "bayer_rggb8")
    driver.depth = depth_to_image(depth)
    # The sensor has 1280x960 pixels; these are every other of its middle.
    driver.info = camera_to_info(Camera(1280, 960, 600.0, 600.0, 639.5, 479.5))
    driver.info.binning_x = driver.info.binning_y = 2
    roi = driver.info.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = 320, 240, 640, 480
    driver.expect_objects("bayer, a region and binning")
    yuv = cv2.cvtColor(color, cv2.COLOR_RGB2YUV)
    packed = np.zeros((240, 320, 2), np.uint8)
    packed[..., 0] = np.clip(16 + 0.859 * yuv[..., 0], 0, 255)
    packed[:, 0::2, 1], packed[:, 1::2, 1] = yuv[:, 0::2, 1], yuv[:, 0::2, 2]
    driver.color, driver.info = array_to_image(packed, "yuv422_yuy2"), camera_to_info(CAMERA)
    driver.expect_objects("yuv")


@pytest.mark.parametrize(("encoding", "per_meter", "name"), [("16UC1", 10_000.0, "0.0001"), ("32FC1", 1000.0, "0.001")])
def test_depth_in_another_unit_is_said_on_the_console_with_what_to_set(
    driver: Driver, node: NodeProcess, encoding: str, per_meter: float, name: str
) -> None:
    robot = driver.robot
    color, depth, _ = trace(TRUTH)
    kind = np.uint16 if encoding == "16UC1" else np.float32
    driver.color, driver.info = rgb_to_image(color), camera_to_info(CAMERA)
    driver.depth = array_to_image((per_meter * depth).astype(kind), encoding)
    before, said = robot.counter("depth_unit"), len(node.output)
    driver.restart_time()
    robot.spin_until(lambda: robot.counter("depth_unit") > before, "depth_unit", each=driver.send)
    robot.spin_until(lambda: f"set depth_scale to {name}" in node.output[said:], "a line", 30.0, each=driver.send)
    for text in ("depth_unit: depth on /camera/depth/image_raw", "median depth", "below the camera"):
        assert text in node.output[said:]
    assert node.output[said:].count("looks wrong") == 1, "said once"
    # What it says is what helps.
    set_parameters(robot, depth_scale=float(name))
    driver.expect_objects(f"depth_scale {name}")
    robot.spin_until(lambda: "depth_unit: over" in node.output[said:], "the end of it", each=driver.send)
    driver.depth = depth_to_image(depth)
    set_parameters(robot, depth_scale=0.0)


def test_the_unit_found_is_applied_where_that_is_asked_for(driver: Driver, node: NodeProcess) -> None:
    robot = driver.robot
    color, depth, _ = trace(TRUTH)
    driver.color, driver.info = rgb_to_image(color), camera_to_info(CAMERA)
    driver.depth = array_to_image((10_000.0 * depth).astype(np.uint16), "16UC1")
    set_parameters(robot, depth_scale_guess="apply")
    driver.expect_objects("the unit applied")
    assert "from now on read as 0.1 mm a unit" in node.output
    # Millimeters again, as after a restart of the driver with other settings: found as well.
    driver.depth = depth_to_image(depth, encoding="16UC1")
    driver.expect_objects("the unit changed back")
    set_parameters(robot, depth_scale_guess="warn")


def test_an_unknown_lens_is_refused_by_name(driver: Driver, node: NodeProcess) -> None:
    robot = driver.robot
    driver.info = lens_info(Lens(RAW, RAW), distortion_model="mei", d=[0.1, 0.2])
    before = robot.counter("bad_camera_info")

    def said() -> bool:
        return robot.counter("bad_camera_info") > before and "'mei'" in robot.counters_message

    robot.spin_until(said, "bad_camera_info", each=driver.send)
    assert "plumb_bob" in robot.counters_message and "/camera/color/camera_info" in robot.counters_message
