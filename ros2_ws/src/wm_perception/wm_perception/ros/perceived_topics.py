"""Publishers of perception's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import MarkerArray
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from wm_core.scene_graph import SceneGraph
from wm_perception.types import Frame, PerceptionResult
from wm_ros import qos
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import array_to_image, rgb_to_image
from wm_ros.markers import MarkerBuilder
from wm_ros.nodes.lifecycle import ManagedNode
from wm_ros.stamps import ns_to_stamp

_MAX_INSTANCE_ID = 65535
"""Of 16 bits, the type of ``instances``."""
TOPICS: dict[str, tuple[type, Any]] = {
    "scene_graph": (SceneGraphMsg, qos.SCENE_GRAPH),
    "instances": (Image, qos.DERIVED_IMAGE),
    "overlay": (Image, qos.DERIVED_IMAGE),
    "markers": (MarkerArray, qos.MARKERS),
    "camera_info": (CameraInfo, qos.DERIVED_IMAGE),
    "frame_reports": (DiagnosticArray, qos.FRAME_REPORTS),
}
"""Type and QoS of each topic, by its name in the node's namespace."""


class PerceivedTopics:
    """The node's publishers; images and markers go out only while somebody subscribes."""

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._outputs: dict[str, Any] = {}
        self._markers = MarkerBuilder()

    def open(self) -> None:
        """Make the publishers."""
        self._markers = MarkerBuilder()
        make = self._node.create_lifecycle_publisher
        self._outputs = {name: make(kind, name, profile) for name, (kind, profile) in TOPICS.items()}

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._outputs.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._outputs = {}

    def publish_graph(self, scene: SceneGraph) -> None:
        """The scene graph."""
        self._outputs["scene_graph"].publish(scene_graph_to_msg(scene))

    def publish_images(self, frame: Frame, frame_id: str, result: PerceptionResult) -> None:
        """The camera, object ids, markers and overlay of a frame; ``frame_id`` of the color image."""
        stamp_ns = frame.stamp_ns
        if self._wanted("camera_info"):
            self._outputs["camera_info"].publish(camera_to_info(frame.camera, stamp_ns, frame_id))
        if self._wanted("instances"):
            self._outputs["instances"].publish(array_to_image(self._ids(result), "mono16", stamp_ns, frame_id))
        if self._wanted("markers"):
            self._outputs["markers"].publish(self._markers.build(result.scene))
        if self._wanted("overlay"):
            from wm_perception.overlay import draw_overlay  # with the pipeline's libraries, as ``make_pipeline`` says

            self._outputs["overlay"].publish(rgb_to_image(draw_overlay(frame, result), stamp_ns, frame_id))

    def report(self, stamp_ns: int, refused: tuple[str, str] | None) -> None:
        """Publish the outcome for a pair of images, for which a player in lock-step waits.

        Args:
            refused: counter and text of the reason why it gave no graph; None: it gave one.
        """
        try:
            name, text = refused or ("scene_graph", "")
            level = DiagnosticStatus.OK if refused is None else DiagnosticStatus.ERROR
            report = DiagnosticArray(status=[DiagnosticStatus(level=level, name=name, message=text, hardware_id="wm")])
            report.header.stamp = ns_to_stamp(max(stamp_ns, 0))
            self._outputs["frame_reports"].publish(report)
        except Exception as error:  # the node was cleaned up while a frame was processed
            self._node.report_exception("frame report", error)

    def _wanted(self, name: str) -> bool:
        return bool(self._outputs[name].get_subscription_count())

    def _ids(self, result: PerceptionResult) -> NDArray[np.uint16]:
        ids = result.instance_ids
        if ids.dtype == np.uint16 and int(result.scene.ids.max(initial=0)) <= _MAX_INSTANCE_ID:
            return ids
        too_large = ids > _MAX_INSTANCE_ID
        if too_large.any():
            self._node.warn("instance_id_too_large", f"an object id exceeds {_MAX_INSTANCE_ID}", "restart the node")
        return np.where(too_large | (ids < 0), 0, ids).astype(np.uint16)
