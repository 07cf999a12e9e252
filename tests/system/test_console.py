"""What the console of a real node says when its inputs are wrong: one line per cause, the same in diagnostics."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Image
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from broken_robot import COLOR, DEPTH, FAULTS, HEALTHY, INFO, OPTICAL, BrokenRobot
from conftest import NodeProcess, wait_until
from traced_scene import FRONT, make_scene, trace
from wm_ros import qos
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.pixels import array_to_image
from wm_ros.stamps import ns_to_stamp

pytestmark = pytest.mark.ros

GEOMETRIC = ("pipeline.segmenter:=geometric", "pipeline.reasoner:=geometric")
LINE = re.compile(r"\[(INFO|WARN|ERROR)\] \[[\d.]+\] \[\w+\.\w+\]: (?P<text>.*)")


@contextlib.contextmanager
def running(module: str, log: Path, *parameters: str, namespace: str = "/wm") -> Iterator[NodeProcess]:
    """A node process, which ends with status 0 when the block does; ended, too, where the block fails."""
    given = [text for p in ("diagnostics_period_s:=0.25", *parameters) for text in ("-p", p)]
    given += ["-r", f"__ns:={namespace}"]
    process = NodeProcess(
        [sys.executable, "-m", module, "--ros-args", *given], log, {**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        yield process
    finally:
        status = process.stop()
        print(process.output[-6000:])
    assert status == 0


def said(output: str, cause: str) -> list[str]:
    """Console lines of a cause, without level, time and node."""
    lines = [match["text"] for match in map(LINE.search, output.splitlines()) if match]
    return [line for line in lines if line.startswith(f"{cause}: ") and line != f"{cause}: over"]


class Console:
    """A node process whose output is watched, beside the robot whose fault is switched."""

    def __init__(self, process: NodeProcess, robot: BrokenRobot, name: str) -> None:
        self.process, self.robot, self.name = process, robot, name

    def once_active(self) -> Console:
        """Itself, when the node has said that it is active; it loads its libraries first."""
        state = f"{self.name}: state"
        seen = self.robot.diagnostics
        wait_until(lambda: state in seen and seen[state].message == "active", 60.0, f"{self.name} to be active")
        return self

    def status(self) -> Any:
        """The node's status ``inputs`` in diagnostics."""
        return self.robot.diagnostics.get(f"{self.name}: inputs")

    def expect(self, cause: str, *texts: str, before: int | None = None) -> None:
        """A line of the cause that has all the texts comes, once, and the same is in diagnostics.

        ``before``: length of the output from which on it counts; None: from now on.
        """
        before = len(self.process.output) if before is None else before

        def line() -> str | None:
            found = said(self.process.output[before:], cause)
            return found[0] if found else None

        text = wait_until(line, 20.0, f"{cause} on the console")
        assert all(t in text for t in texts), text
        sentence = re.sub(r"[\d.]+", "#", text)
        self.eventually(lambda: sentence in re.sub(r"[\d.]+", "#", self.status().message), "it in diagnostics")
        assert self.status().level != b"\x00"
        assert len(said(self.process.output[before:], cause)) == 1

    def eventually(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for it."""
        wait_until(condition, 20.0, what)


@pytest.fixture(scope="module")
def robot() -> Iterator[BrokenRobot]:
    robot = BrokenRobot(FAULTS["no_camera"])
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def perception(tmp_path_factory: pytest.TempPathFactory, robot: BrokenRobot) -> Iterator[Console]:
    with running("wm_perception.node", tmp_path_factory.mktemp("perception") / "log", *GEOMETRIC) as process:
        yield Console(process, robot, "perception").once_active()


# In this order: the first finds a node that has never had a camera, and no cause comes twice.
CASES = {
    "no_camera": ("no_camera", (COLOR, DEPTH, INFO, "start the camera driver", "ROS_DOMAIN_ID")),
    "wrong_topic": ("wrong_topic.depth", (DEPTH, "/head/depth/image, /head/rgb/image", "set depth_topic")),
    "compressed": ("wrong_transport.color", (COLOR, "set color_transport to compressed")),
    "unsynchronized": ("unsynchronized", ("26.", "ms apart", "max_stamp_difference_s")),
    "stamp_zero": ("stamp_zero.color", (COLOR, "stamp 0")),
    "clocks_apart": ("clocks_apart", ("apart by 100.", "behind", "chrony")),
    "body_frame": ("frame_not_optical", ("'camera_link'", "'map'", "gravity and optical axis disagree", "z forward")),
    "tilted": ("gravity", ("leans by 25 degrees", "nothing is level")),
    "depth_0.25_mm": ("depth_unit", ("0.25 mm", DEPTH, "below the camera", "set depth_scale to 0.25")),
    "not_registered": ("not_registered", ("'camera_depth_optical_frame'", f"'{OPTICAL}'", "aligned_depth_to_color")),
    "far": ("beyond_max_depth", ("max_depth_m 4 m", "100 % of its pixels", "5.20 m", "raise max_depth_m to 6")),
    "wall": ("no_support", ("no horizontal surface", "0.08 m2")),
    "covered": ("empty_depth", ("0.0 % of its pixels", DEPTH)),
    "frame_unknown": ("tf_missing", ("nowhere", "camera_frame")),
    "no_tf": ("no_tf", ("nobody publishes /tf or /tf_static",)),
    "tf_best_effort": ("qos.tf", ("/robot: best effort offered, reliable wanted", "ros2 topic info -v /tf")),
    "color_encoding": ("bad_color", ("'64FC3'", COLOR, "rgb8")),
    "depth_encoding": ("bad_depth", ("'64FC1'", DEPTH, "16UC1")),
    "uncalibrated": ("bad_camera_info", (INFO, "fx", "calibrate")),
    "info_of_another_size": ("camera_info_size", ("640x480", "320x240")),
    "depth_size": ("size_mismatch", ("160x60", "320x240")),
    "wrong_type": ("wrong_type.color", ("std_msgs/msg/String", "sensor_msgs/msg/Image")),
}


@pytest.mark.parametrize("fault", CASES)
def test_perception_says_what_is_wrong(perception: Console, fault: str) -> None:
    cause, texts = CASES[fault]
    before = len(perception.process.output)
    perception.robot.setup = FAULTS[fault]
    perception.expect(cause, *texts, before=before)
    if fault == "compressed":  # this one has no intrinsics, either
        perception.expect("missing.camera_info", INFO, "sensor_msgs/msg/CameraInfo", before=before)


def test_then_a_healthy_robot_silences_it(perception: Console) -> None:
    # The last of the cases; where they are divided between processes, it may not have been in this one.
    perception.robot.setup = FAULTS["wrong_type"]
    perception.eventually(lambda: said(perception.process.output, "wrong_type.color"), "a cause that can end")
    perception.robot.setup = HEALTHY
    perception.eventually(lambda: perception.status().message == "nothing is wrong with them", "nothing wrong")
    perception.eventually(lambda: "wrong_type.color: over" in perception.process.output, "the end of the last cause")
    for sentence in ("[WARN] [", "[ERROR] ["):  # nothing was said of every frame
        assert perception.process.output.count(sentence) < 3 * len(CASES)


def test_distortion_is_said_where_it_is_not_removed(perception: Console) -> None:
    robot = perception.robot
    robot.setup = FAULTS["distorted"]
    camera = "perception: camera"
    perception.eventually(
        lambda: (
            camera in robot.diagnostics and "distortion (plumb_bob) is removed" in robot.diagnostics[camera].message
        ),
        "a status",
    )
    perception.eventually(lambda: perception.status().message == "nothing is wrong with them", "nothing wrong")
    request = SetParameters.Request()
    off = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="off")
    request.parameters = [Parameter(name="rectify", value=off)]
    client = robot.node.create_client(SetParameters, "/wm/perception/set_parameters")
    before = len(perception.process.output)
    wait_until(client.service_is_ready, 10.0, "the parameter service")
    answer = client.call_async(request)  # the robot's thread spins
    wait_until(answer.done, 10.0, "an answer")
    assert answer.result().results[0].successful
    perception.expect("distorted", "plumb_bob", "set rectify to auto", "image_rect", "px", before=before)
    assert "is removed" not in robot.diagnostics[camera].message
    assert not said(perception.process.output[:before], "distorted")
    robot.setup = HEALTHY
    perception.eventually(lambda: perception.status().message == "nothing is wrong with them", "nothing wrong")


def test_simulated_stamps_under_a_wall_clock(perception: Console) -> None:
    perception.robot.setup = FAULTS["sim_time"]
    perception.expect("clocks_apart", "simulated time", "/clock is published: set use_sim_time to true")
    perception.robot.setup = HEALTHY


def test_simulated_time_that_nobody_keeps(tmp_path: Path, robot: BrokenRobot) -> None:
    robot.setup = HEALTHY
    wait_until(lambda: robot.published is HEALTHY, 5.0, "the robot to change")
    texts = ("use_sim_time is true, but nobody publishes /clock", "set use_sim_time to false")
    given = ("use_sim_time:=true", *GEOMETRIC)
    with running("wm_perception.node", tmp_path / "log", *given, namespace="/sim") as process:
        wait_until(lambda: said(process.output, "no_clock"), 60.0, "no_clock on the console")
        assert all(text in said(process.output, "no_clock")[0] for text in texts)


class Perception:
    """Publishes scene graphs and instances in perception's place, with a broken robot's node and from its thread."""

    def __init__(self, robot: BrokenRobot) -> None:
        self._node = robot.node
        self._ids = trace(make_scene())[2]
        self._lock = threading.Lock()
        self._out: dict[str, Any] = {}

    def advertise(self, instances: bool = True) -> None:
        """Graphs, and where asked for instances, in place of what was advertised before."""
        self.withdraw()
        with self._lock:
            self._out["scene"] = self._node.create_publisher(SceneGraphMsg, "/other/scene_graph", qos.SCENE_GRAPH)
            if instances:
                self._out["ids"] = self._node.create_publisher(Image, "/other/instances", qos.DERIVED_IMAGE)

    def withdraw(self) -> None:
        """Publish nothing any more."""
        with self._lock:
            for publisher in self._out.values():
                self._node.destroy_publisher(publisher)
            self._out = {}

    def publish(self, stamp_ns: int) -> None:
        """What belongs to the robot's frame of this stamp."""
        with self._lock:
            if "scene" in self._out:
                msg = scene_graph_to_msg(make_scene(world_T_camera=FRONT))
                msg.header.stamp = ns_to_stamp(stamp_ns)
                self._out["scene"].publish(msg)
            if "ids" in self._out:
                self._out["ids"].publish(array_to_image(self._ids, "mono16", stamp_ns, OPTICAL))


@pytest.fixture(scope="module")
def imagination(tmp_path_factory: pytest.TempPathFactory, robot: BrokenRobot) -> Iterator[Console]:
    """In a namespace of its own, so that perception's graph is not its own."""
    robot.setup = FAULTS["no_camera"]
    log = tmp_path_factory.mktemp("imagination") / "log"
    with running("wm_imagination.node", log, "backend:=physics", namespace="/other") as process:
        yield Console(process, robot, "other/imagination").once_active()
        robot.on_frame = None


def test_imagination_says_what_is_wrong(perception: Console, imagination: Console) -> None:
    robot, perceived = imagination.robot, Perception(imagination.robot)
    one_namespace = "put both nodes into one namespace"
    imagination.expect(
        "no_scene_graph", "nobody publishes /other/scene_graph", "/wm/scene_graph", one_namespace, before=0
    )
    # Looks: no camera, another topic, and then a camera; the graph comes all the time.
    before = len(imagination.process.output)
    perceived.advertise(instances=False)
    robot.on_frame = perceived.publish
    imagination.expect("no_appearance", "images and video cannot be imagined", COLOR, INFO, before=before)
    imagination.expect(
        "wrong_topic.instances", "/other/instances (object ids per pixel)", "/wm/instances", before=before
    )
    robot.setup = FAULTS["wrong_topic"]
    imagination.expect("wrong_topic.color", COLOR, "/head/rgb/image", "set color_topic")
    robot.setup = HEALTHY
    perceived.advertise()
    imagination.eventually(lambda: imagination.status().message == "nothing is wrong with them", "nothing wrong")
    # The graph goes stale, then its publisher goes.
    robot.on_frame = None
    imagination.expect("stale_graph", "the last one came", "/robot is alive")
    perceived.withdraw()
    imagination.expect("perception_gone", "nobody publishes /other/scene_graph any more", "s old")
    assert imagination.process.alive
