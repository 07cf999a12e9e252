"""A client of the imagination node on the live graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from wm_msgs.action import Imagine
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.srv import GetSceneGraph, ImagineRollouts

from traced_scene import CAMERA, trace
from wm_core.rollout import ImagineRequest
from wm_core.scene_graph import SceneGraph
from wm_ros import qos
from wm_ros.conversions.requests import request_to_msg
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import array_to_image, depth_to_image, rgb_to_image
from wm_ros.stamps import ns_to_stamp

CODES = ImagineRollouts.Response


FRAME = "camera_color_optical_frame"


class Client:
    """Publishes a synthetic world and asks questions."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("client", namespace="wm", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        make = self.node.create_publisher
        self.scene_out = make(SceneGraphMsg, "scene_graph", qos.SCENE_GRAPH)
        self.instances_out = make(Image, "instances", qos.DERIVED_IMAGE)
        self.color_out = make(Image, "/camera/color/image_raw", qos.SENSOR)
        self.depth_out = make(Image, "/camera/depth/image_raw", qos.SENSOR)
        self.info_out = make(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
        self.imagine_rollouts = self.node.create_client(ImagineRollouts, "imagine_rollouts")
        self.get_scene_graph = self.node.create_client(GetSceneGraph, "get_scene_graph")
        # The default depth of 10 loses feedback when the client is slower than the node.
        self.action = ActionClient(self.node, Imagine, "imagine", feedback_sub_qos_profile=QoSProfile(depth=300))
        self.diagnostics: dict[str, Any] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self.stamp_ns = 1_000_000_000

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self.diagnostics.update({s.name: s for s in msg.status})

    def spin_until(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """First true value of the condition, while callbacks are served."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def wait(self, future: Any, timeout_s: float = 20.0) -> Any:
        """Result of a future."""
        self.spin_until(future.done, timeout_s, "an answer")
        return future.result()

    def ask(self, request: ImagineRequest | Any, timeout_s: float = 20.0) -> Any:
        """Answer of the service."""
        msg = request_to_msg(request) if isinstance(request, ImagineRequest) else request
        return self.wait(self.imagine_rollouts.call_async(ImagineRollouts.Request(request=msg)), timeout_s)

    def publish(self, scene: SceneGraph, with_images: bool = True) -> None:
        """One camera frame and its graph."""
        self.stamp_ns = max(self.stamp_ns + 33_000_000, scene.stamp_ns)
        color, depth, ids = trace(scene)
        msg = scene_graph_to_msg(scene)
        msg.header.stamp = ns_to_stamp(self.stamp_ns)
        if with_images:
            self.info_out.publish(camera_to_info(CAMERA, self.stamp_ns, FRAME))
            self.color_out.publish(rgb_to_image(color, self.stamp_ns, FRAME))
            self.depth_out.publish(depth_to_image(depth, self.stamp_ns + 2_000_000, FRAME))
            self.instances_out.publish(array_to_image(ids, "mono16", self.stamp_ns, FRAME))
        self.scene_out.publish(msg)

    def counter(self, name: str) -> int:
        """A counter of the node's diagnostics."""
        status = self.diagnostics.get("imagination: counters")
        values = {v.key: v.value for v in status.values} if status else {}
        return int(values.get(name, 0))

    def close(self) -> None:
        """End the client."""
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
