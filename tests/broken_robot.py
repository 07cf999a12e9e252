"""A robot whose camera, stamps, calibration, transforms or topics are wrong in one chosen way, on the real graph.

In a test: ``BrokenRobot`` publishes from a thread of its own, and its fault is switched while it runs. As a program:
``python -m broken_robot FAULT`` publishes until it is ended; a test starts it so for ``wm doctor``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from traced_scene import CAMERA, FRONT, make_scene, trace
from wm_core.geometry import pose_matrix
from wm_core.health.depth import BODY_R_OPTICAL
from wm_ros import qos
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.compressed import rgb_to_compressed
from wm_ros.images.pixels import depth_to_image, resize_depth, rgb_to_image
from wm_ros.stamps import ns_to_stamp
from wm_ros.transforms import transform_to_msg

COLOR, DEPTH, INFO = "/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info"
OPTICAL = "camera_color_optical_frame"
PERIOD_S = 0.066
LEVEL = pose_matrix([0.0, 0.0, 0.6], [-0.5, 0.5, -0.5, 0.5])
"""A camera that looks along x."""


def turned(rotation: np.ndarray) -> np.ndarray:
    """A (4, 4) transform of a rotation."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose


@dataclass(frozen=True)
class Setup:
    """What is published; the defaults are a healthy robot."""

    color: bool = True
    depth: bool = True
    info: bool = True
    color_topic: str = COLOR
    depth_topic: str = DEPTH
    info_topic: str = INFO
    compressed: bool = False
    wrong_type: bool = False
    frame_id: str = OPTICAL
    stamp: str = "wall"  # wall, zero, sim
    stamp_offset_s: float = 0.0
    clock: bool = False
    depth_offset_s: float = 0.0
    depth_factor: float = 1.0
    depth_encoding: str = "32FC1"
    depth_size: tuple[int, int] | None = None
    depth_frame: str = ""  # empty: that of the images
    color_encoding: str = ""
    view: str = "table"  # table, wall, far, covered
    distortion: tuple[float, ...] = ()
    calibrated: bool = True
    info_factor: int = 1
    tf: str = "moving"  # moving, static, none, best_effort
    tf_frame: str = ""  # empty: that of the images
    pose: Any = None


HEALTHY = Setup()
FAULTS = {
    "healthy": HEALTHY,
    "no_camera": Setup(color=False, depth=False, info=False),
    "wrong_topic": Setup(
        color_topic="/head/rgb/image", depth_topic="/head/depth/image", info_topic="/head/rgb/camera_info"
    ),
    "compressed": Setup(compressed=True, info=False),
    "wrong_type": Setup(wrong_type=True),
    "unsynchronized": Setup(depth_offset_s=0.4 * PERIOD_S),
    "stamp_zero": Setup(stamp="zero", tf="static"),
    "clocks_apart": Setup(stamp_offset_s=-100.0),
    "sim_time": Setup(stamp="sim", clock=True),
    "body_frame": Setup(frame_id="camera_link", pose=FRONT @ turned(BODY_R_OPTICAL.T)),
    "tilted": Setup(pose=turned(Rotation.from_euler("y", 25.0, degrees=True).as_matrix()) @ FRONT),
    "distorted": Setup(distortion=(-0.3, 0.1, 0.0, 0.0, 0.0)),
    "uncalibrated": Setup(calibrated=False),
    "info_of_another_size": Setup(info_factor=2),
    "depth_0.1_mm": Setup(depth_factor=10.0),
    "depth_0.25_mm": Setup(depth_factor=4.0),
    "depth_mm_in_float": Setup(depth_factor=1000.0),
    "depth_size": Setup(depth_size=(160, 60)),
    "not_registered": Setup(depth_frame="camera_depth_optical_frame"),
    "far": Setup(view="far"),
    "wall": Setup(view="wall"),
    "covered": Setup(view="covered"),
    "color_encoding": Setup(color_encoding="64FC3"),
    "depth_encoding": Setup(depth_encoding="64FC1"),
    "frame_unknown": Setup(frame_id="nowhere", tf_frame=OPTICAL),
    "no_tf": Setup(tf="none"),
    "static_tf": Setup(tf="static"),
    "tf_best_effort": Setup(tf="best_effort"),
}


class BrokenRobot:
    """Publishes about 15 frames a second of what ``setup`` says, from a thread; listens to /diagnostics."""

    def __init__(self, setup: Setup = HEALTHY) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("robot", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self.diagnostics: dict[str, Any] = {}
        self.setup = setup
        self.on_frame: Callable[[int], None] | None = None
        self.published: Setup | None = None  # the set-up of the last frame
        self._out: dict[str, Any] = {}
        self._table = trace(make_scene())[:2]
        self._start_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)
        self._thread.start()

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self.diagnostics.update({s.name: s for s in msg.status})

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + PERIOD_S
                self.publish()
            self._executor.spin_once(timeout_sec=0.01)

    def _advertise(self, s: Setup) -> None:
        """Publishers for this set-up alone, as of another robot."""
        for publisher in self._out.values():
            self.node.destroy_publisher(publisher)
        make = self.node.create_publisher
        self._out = {}
        if s.wrong_type:
            self._out["color"] = make(String, s.color_topic, qos.SENSOR)
        elif s.color and s.compressed:
            self._out["color"] = make(CompressedImage, f"{s.color_topic}/compressed", qos.SENSOR)
        elif s.color:
            self._out["color"] = make(Image, s.color_topic, qos.SENSOR)
        if s.depth:
            self._out["depth"] = make(Image, s.depth_topic, qos.SENSOR)
        if s.info:
            self._out["info"] = make(CameraInfo, s.info_topic, qos.SENSOR)
        if s.clock:
            self._out["clock"] = make(Clock, "/clock", qos.CLOCK)
        if s.tf == "static":
            self._out["tf_static"] = make(TFMessage, "/tf_static", qos.TF_STATIC)
        elif s.tf != "none":
            self._out["tf"] = make(TFMessage, "/tf", qos.SENSOR if s.tf == "best_effort" else qos.TF)

    def _stamp_ns(self, s: Setup) -> int:
        if s.stamp == "zero":
            return 0
        if s.stamp == "sim":
            return round((10.0 + time.monotonic() - self._start_s) * 1e9)
        return time.time_ns() + round(s.stamp_offset_s * 1e9)

    def _images(self, s: Setup) -> tuple[np.ndarray, np.ndarray]:
        color, depth = self._table
        if s.view != "table":
            meters = {"far": 5.2, "wall": 2.0, "covered": 0.0}[s.view]
            depth = np.full_like(depth, meters)
        return color, depth * np.float32(s.depth_factor)

    def publish(self) -> None:
        """One frame."""
        s = self.setup
        if s is not self.published:
            self._advertise(s)
            self.published = s
        stamp_ns, pose = self._stamp_ns(s), FRONT if s.pose is None else s.pose
        if s.view in ("far", "wall"):
            pose = LEVEL
        out = self._out
        if "clock" in out:
            out["clock"].publish(Clock(clock=ns_to_stamp(stamp_ns)))
        transform = TFMessage(transforms=[transform_to_msg("map", s.tf_frame or s.frame_id, stamp_ns, pose)])
        for name in ("tf", "tf_static"):
            if name in out:
                out[name].publish(transform)
        if "info" in out:
            info = camera_to_info(CAMERA.scaled(s.info_factor), stamp_ns, s.frame_id)
            if s.distortion:
                info.d, info.distortion_model = list(s.distortion), "plumb_bob"
            if not s.calibrated:
                info = CameraInfo(header=info.header, width=info.width, height=info.height)
            out["info"].publish(info)
        color, depth = self._images(s)
        if "color" in out:
            msg: Any = String(data="no image")
            if s.compressed and not s.wrong_type:
                msg = rgb_to_compressed(color, stamp_ns, s.frame_id)
            elif not s.wrong_type:
                msg = rgb_to_image(color, stamp_ns, s.frame_id)
                msg.encoding = s.color_encoding or msg.encoding
            out["color"].publish(msg)
        if "depth" in out:
            if s.depth_size is not None:
                depth = resize_depth(depth, *s.depth_size)
            depth_ns = max(stamp_ns + round(s.depth_offset_s * 1e9), 0)
            message = depth_to_image(depth, depth_ns, s.depth_frame or s.frame_id)
            message.encoding = s.depth_encoding
            out["depth"].publish(message)
        if self.on_frame is not None:
            self.on_frame(stamp_ns)

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(5.0)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def main() -> None:
    """Publish until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--namespace", default="", help="of the camera's topics")
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    s, prefix = FAULTS[options.fault], options.namespace.rstrip("/")
    s = replace(
        s, color_topic=prefix + s.color_topic, depth_topic=prefix + s.depth_topic, info_topic=prefix + s.info_topic
    )
    robot = BrokenRobot(s)
    print("ready", flush=True)
    while not ended.wait(0.2):
        pass
    robot.close()
    sys.exit(0)


if __name__ == "__main__":
    main()
