"""Imagined futures for people to watch: frames as they are drawn, end positions, and paths."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from wm_core.rollout import POSITION, QUATERNION, Rollout
from wm_core.rotations import quaternion_to_matrix
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import Appearance
from wm_ros import qos
from wm_ros.images.clouds import points_to_cloud
from wm_ros.images.pixels import rgb_to_image
from wm_ros.nodes.lifecycle import ManagedNode

TOPICS: dict[str, tuple[type, Any]] = {
    "imagined/image": (Image, qos.DERIVED_IMAGE),
    "imagined/points": (PointCloud2, qos.MARKERS),
    "imagined/markers": (MarkerArray, qos.MARKERS),
}
"""Type and QoS of what is published, by its name in the node's namespace."""
_MAX_PATHS = 64
"""Hypotheses whose paths are drawn; with more, single paths cannot be told apart."""


class ImaginedTopics:
    """The node's publishers; each publishes only while it has subscribers."""

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._outputs: dict[str, Any] = {}

    def open(self) -> None:
        """Make the publishers."""
        make = self._node.create_lifecycle_publisher
        self._outputs = {name: make(kind, name, profile) for name, (kind, profile) in TOPICS.items()}

    def close(self) -> None:
        """Give them back."""
        for publisher in self._outputs.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._outputs = {}

    def show_frame(self, color: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> None:
        """An imagined image (H, W, 3), RGB, that was just drawn."""
        image_out = self._outputs["imagined/image"]
        if image_out.get_subscription_count():
            image_out.publish(rgb_to_image(color, stamp_ns, frame_id))

    def show_rollout(self, rollout: Rollout, memory: AppearanceMemory) -> None:
        """The end and the paths of what was imagined."""
        if not rollout.states.size:  # as planners request it: without states
            return
        points_out, markers_out = self._outputs["imagined/points"], self._outputs["imagined/markers"]
        try:
            if points_out.get_subscription_count():
                points, colors = end_points(rollout, memory.snapshot())
                points_out.publish(points_to_cloud(points, colors, rollout.stamp_ns, rollout.frame_id))
            if markers_out.get_subscription_count():
                markers_out.publish(path_markers(rollout))
        except Exception as error:  # an error in what people watch must not cost the answer
            self._node.report_exception("show", error)


def end_points(rollout: Rollout, appearance: Appearance) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Colored points (P, 3) [m, graph frame] of all seen objects at the end of the last hypothesis that is valid."""
    points: list[NDArray[np.float32]] = [np.zeros((0, 3), np.float32)]
    colors: list[NDArray[np.uint8]] = [np.zeros((0, 3), np.uint8)]
    k = int(np.flatnonzero(rollout.usable)[-1]) if rollout.usable.any() else -1
    for n in np.flatnonzero(rollout.present[k, -1]) if k >= 0 else ():
        cloud = appearance.completed(int(rollout.object_ids[n]), np.full(3, 0.5))
        if cloud is None:
            continue
        state = rollout.states[k, 0, -1, n]
        rotation = quaternion_to_matrix(state[QUATERNION]).astype(np.float32)
        points.append(cloud.points @ rotation.T + state[POSITION])
        colors.append(cloud.colors)
    return np.concatenate(points), np.concatenate(colors)


def path_markers(rollout: Rollout) -> MarkerArray:
    """A line per hypothesis and object that moves by more than 5 mm, one color per hypothesis."""
    array = MarkerArray()
    clear = Marker(action=Marker.DELETEALL)
    clear.header.frame_id = rollout.frame_id
    array.markers.append(clear)
    for k in range(min(len(rollout.hypotheses), _MAX_PATHS)):
        if not rollout.usable[k]:
            continue
        hue = 6.0 * (0.618 * k % 1.0)
        red, green, blue = (float(np.clip(abs((hue - s) % 6.0 - 3.0) - 1.0, 0.0, 1.0)) for s in (0.0, 2.0, 4.0))
        for n, object_id in enumerate(rollout.object_ids.tolist()):
            path = rollout.states[k, 0, rollout.present[k, :, n], n, :3]
            if len(path) < 2 or np.ptp(path, axis=0).max() < 0.005:
                continue
            marker = Marker(type=Marker.LINE_STRIP, action=Marker.ADD, ns=f"{k} {rollout.hypotheses[k]}", id=object_id)
            marker.header.frame_id = rollout.frame_id
            marker.pose.orientation.w = 1.0
            marker.scale.x = 0.004
            marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
            marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in path]
            array.markers.append(marker)
    return array
