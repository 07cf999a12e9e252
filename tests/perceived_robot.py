"""A robot whose camera the perception node reads, and a pipeline that stands in for the real one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from conftest import NodeProcess
from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.scene_graph import SceneGraph
from wm_perception.types import PerceptionConfig
from wm_ros import qos
from wm_ros.conversions.scene_graph import scene_graph_from_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import depth_to_image, rgb_to_image
from wm_ros.stamps import ns_to_stamp, stamp_to_ns
from wm_ros.transforms import transform_to_msg

FRAME = "camera_color_optical_frame"


CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)


STEP_NS = 33_000_000
CRASH, SLOW, EMPTY, EARLY_CRASH = 1, 2, 3, 4  # blue of the first pixel tells the stand-in what to do


class StandInPipeline:
    """One object where depth is seen, held by permanence where it is not; its id grows with each reset."""

    def __init__(self, config: PerceptionConfig) -> None:
        self.resets = self.settled = 0
        self.world_frame = config.world_frame

    def reset(self) -> None:
        self.resets += 1

    def begin(self, frame: Any) -> Any:
        if int(frame.color[0, 0, 2]) == EARLY_CRASH:
            raise RuntimeError("the stand-in was told to fail early")
        return frame

    def finish(self, frame: Any) -> Any:
        order = int(frame.color[0, 0, 2])
        if order == CRASH:
            raise RuntimeError("the stand-in was told to fail")
        if order == SLOW:
            time.sleep(0.25)
        seen = bool((frame.depth_m > 0.0).any())
        scene = SceneGraph.build(
            ids=[] if order == EMPTY else [1 + self.resets],
            positions=[] if order == EMPTY else [frame.world_T_camera[:3, 3] + [0.0, 0.0, frame.depth_m.max()]],
            extents=[] if order == EMPTY else [[0.1, 0.1, 0.1]],
            visibilities=[] if order == EMPTY else [1.0 if seen else 0.0],
            stamp_ns=frame.stamp_ns,
            frame_id=self.world_frame,
            world_T_camera=frame.world_T_camera,
        )
        ids = np.where(frame.depth_m > 0.0, 1 + self.resets, 0).astype(np.int32)
        return SimpleNamespace(scene=scene, instance_ids=ids, timings_s={"all": 0.001}, warnings=())

    def settle(self) -> None:
        self.settled += 1


class Robot:
    """Publishes what a camera on a robot publishes, and listens to the node."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        make = self.node.create_publisher
        self.color_out = make(Image, "/camera/color/image_raw", qos.SENSOR)
        self.depth_out = make(Image, "/camera/depth/image_raw", qos.SENSOR)
        self.color_compressed_out = make(CompressedImage, "/camera/color/image_raw/compressed", qos.SENSOR)
        self.depth_compressed_out = make(CompressedImage, "/camera/depth/image_raw/compressedDepth", qos.SENSOR)
        self.info_out = make(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
        self.odometry_out = make(Odometry, "/odom", qos.SENSOR)
        self.clock_out = make(Clock, "/clock", qos.CLOCK)
        self.tf_out = make(TFMessage, "/tf", qos.TF)
        self.graphs: list[SceneGraph] = []
        self.diagnostics: dict[str, Any] = {}
        self.instances: list[Image] = []
        self.overlays: list[Image] = []
        self.markers: list[MarkerArray] = []
        listen = self.node.create_subscription
        listen(SceneGraphMsg, "/wm/scene_graph", self._on_graph, qos.SENSOR)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self.stamp_ns = 10_000_000_000

    def _on_graph(self, msg: SceneGraphMsg) -> None:
        self.graphs.append(scene_graph_from_msg(msg))

    def said(self, name: str) -> str:
        """The newest message of a diagnostic status; empty where none of this name has come yet (1 Hz)."""
        status = self.diagnostics.get(name)
        return "" if status is None else str(status.message)

    def level(self, name: str) -> bytes:
        """The newest level of a diagnostic status; empty where none of this name has come yet."""
        status = self.diagnostics.get(name)
        return b"" if status is None else bytes(status.level)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self.diagnostics.update({s.name: s for s in msg.status})
        self.diagnostics_stamp_ns = stamp_to_ns(msg.header.stamp)

    def listen_to_images(self) -> list[Any]:
        listen = self.node.create_subscription
        return [
            listen(Image, "/wm/instances", self.instances.append, qos.DERIVED_IMAGE),
            listen(Image, "/wm/overlay", self.overlays.append, qos.DERIVED_IMAGE),
            listen(MarkerArray, "/wm/markers", self.markers.append, qos.MARKERS),
        ]

    def counter(self, name: str) -> int:
        """Value of a counter in the latest diagnostics."""
        status = self.diagnostics.get("perception: counters")
        return next((int(v.value) for v in status.values if v.key == name), 0) if status else 0

    @property
    def counters_message(self) -> str:
        return self.said("perception: counters")

    def spin_until(
        self, condition: Callable[[], Any], what: str, timeout_s: float = 15.0, each: Callable[[], None] | None = None
    ) -> Any:
        """First true value of the condition; ``each`` is called at about 30 Hz meanwhile."""
        deadline, next_call = time.monotonic() + timeout_s, 0.0
        while not (value := condition()):
            now = time.monotonic()
            assert now < deadline, f"waited {timeout_s:g} s in vain for {what}; counters: {self.counter_values()}"
            if each is not None and now >= next_call:
                each()
                next_call = now + 0.033
            self.executor.spin_once(timeout_sec=0.01)
        return value

    def counter_values(self) -> dict[str, str]:
        status = self.diagnostics.get("perception: counters")
        return {v.key: v.value for v in status.values} if status else {}

    def send_tf(self, stamp_ns: int, x_m: float = 0.0) -> None:
        pose = pose_matrix([x_m, 0.0, 0.5], [-0.5, 0.5, -0.5, 0.5])
        self.tf_out.publish(TFMessage(transforms=[transform_to_msg("map", FRAME, stamp_ns, pose)]))

    def frame(
        self,
        *,
        order: int = 0,
        color: Image | None = None,
        depth: Image | None = None,
        info: CameraInfo | bool | None = True,
        tf: bool = True,
        depth_offset_ns: int = 0,
    ) -> int:
        """Publish one frame, good but for what is given; returns its stamp."""
        self.stamp_ns += STEP_NS
        stamp_ns = self.stamp_ns
        if tf:
            self.send_tf(stamp_ns)
        if info:
            msg = info if isinstance(info, CameraInfo) else camera_to_info(CAMERA)
            msg.header.stamp, msg.header.frame_id = ns_to_stamp(stamp_ns), FRAME
            self.info_out.publish(msg)
        color = color or rgb_to_image(good_color(order))
        depth = depth or depth_to_image(good_depth(), encoding="16UC1")
        color.header.stamp, color.header.frame_id = ns_to_stamp(stamp_ns), FRAME
        depth.header.stamp, depth.header.frame_id = ns_to_stamp(stamp_ns + depth_offset_ns), FRAME
        self.color_out.publish(color)
        self.depth_out.publish(depth)
        return stamp_ns

    def expect_graph(self) -> SceneGraph:
        """Good frames give a new graph."""
        before = len(self.graphs)
        first_ns = self.stamp_ns
        self.spin_until(
            lambda: len(self.graphs) > before and self.graphs[-1].stamp_ns > first_ns, "a scene graph", each=self.frame
        )
        return self.graphs[-1]

    def expect_counter(self, name: str, publish: Callable[[], Any], *texts: str) -> None:
        """Publishing bad input raises a counter whose message has the texts; good input then gives graphs again."""
        before = self.counter(name)

        def said() -> bool:
            message = self.said("perception: counters")
            return self.counter(name) > before and all(t in message for t in texts)

        self.spin_until(said, f"counter {name} with {texts}", each=publish)
        self.expect_graph()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def good_color(order: int = 0) -> np.ndarray:
    color = np.full((CAMERA.height, CAMERA.width, 3), 90, np.uint8)
    color[0, 0, 2] = order
    return color


def good_depth() -> np.ndarray:
    return np.full((CAMERA.height, CAMERA.width), 1.5, np.float32)


def start(log: Path, *arguments: str, module: str = "perceived_robot") -> NodeProcess:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    return NodeProcess([sys.executable, "-m", module, "--ros-args", *arguments], log, env)


def parameters(**values: Any) -> list[str]:
    return [text for name, value in values.items() for text in ("-p", f"{name}:={value}")]


def main() -> None:
    from wm_perception.node import PerceptionNode
    from wm_ros.nodes.running import run_node

    sys.exit(run_node(lambda: PerceptionNode(pipeline=StandInPipeline)))


if __name__ == "__main__":
    main()
