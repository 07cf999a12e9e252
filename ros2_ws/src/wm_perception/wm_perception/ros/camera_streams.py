"""The camera's topics: images in, pairs of one instant out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wm_core.health.findings import Finding
from wm_perception.parameters import PerceptionParameters
from wm_ros import qos
from wm_ros.health.diagnostics import RateMonitor
from wm_ros.health.inputs import InputHealth
from wm_ros.nodes.lifecycle import ManagedNode, guarded
from wm_ros.stamps import ApproximateSynchronizer, Pair, seconds_to_ns, stamp_to_ns

INPUT_SILENT_S = 2.0
"""Time [s] without a message after which an input is an error in diagnostics: cameras have 5 Hz and more."""


@dataclass(frozen=True)
class Arrived:
    """A message that came.

    Attributes:
        msg: the message. at_s: when it came [s, monotonic wall clock].
    """

    msg: Any
    at_s: float


class CameraStreams:
    """Subscribes to color, depth and camera info, and pairs color and depth by stamp.

    Its callbacks run in the executor's thread and are cheap, so that nothing waits in the middleware.

    It publishes ``matched_inputs``: the number of publishers that each of its subscriptions hears. A publisher learns
    of a subscription before or after the subscription learns of it, and what a best-effort or volatile one sends in
    between is lost. So only this end can say that a recording may begin.

    Attributes:
        camera_info: the newest; None: none came yet. topics: of color and depth, after remapping.

    Args:
        node: whose topics, parameters and diagnostics they are. health: follows the streams.
        on_pair: called with pairs of ``Arrived``.
    """

    def __init__(self, node: ManagedNode, health: InputHealth, on_pair: Callable[[Pair], None]) -> None:
        self.camera_info: CameraInfo | None = None
        self.topics = ("", "")
        self.report_exception = node.report_exception  # for ``guarded``
        self._node, self._health, self._on_pair = node, health, on_pair
        self._subscriptions: list[Any] = []
        self._synchronizer = ApproximateSynchronizer(0)
        self._matched: dict[str, int] = {}
        # Not a lifecycle publisher: the middleware may match while the node is still being activated.
        self._matched_out: Any = node.create_publisher(DiagnosticArray, "matched_inputs", qos.MATCHED_INPUTS)

    def start(self, p: PerceptionParameters) -> None:
        """Subscribe; silence is reported from now on."""
        self._synchronizer = ApproximateSynchronizer(seconds_to_ns(p.max_stamp_difference_s))
        self.camera_info = None
        color_type = Image if p.color_transport == "raw" else CompressedImage
        depth_type = Image if p.depth_transport == "raw" else CompressedImage
        color = self._subscribe("color", "color images", color_type, p.color_source, self._on_color)
        depth = self._subscribe("depth", "depth images", depth_type, p.depth_source, self._on_depth)
        self._subscribe("camera_info", "intrinsics", CameraInfo, p.camera_info_topic, self._on_camera_info)
        self.topics = (color.topic_name, depth.topic_name)

    def stop(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._matched = {}
        self._publish_matched()

    def _subscribe(self, name: str, role: str, kind: type, topic: str, callback: Callable[[Any], None]) -> Any:
        resolved = self._node.resolve_topic_name(topic)
        events = SubscriptionEventCallbacks(matched=partial(self._on_matched, resolved))
        try:
            subscription = self._node.create_subscription(kind, topic, callback, qos.SENSOR, event_callbacks=events)
        except UnsupportedEventTypeError:
            # A middleware that does not tell. Without this topic a player goes by what it knows itself.
            subscription = self._node.create_subscription(kind, topic, callback, qos.SENSOR)
            if self._matched_out is not None:
                self._node.destroy_publisher(self._matched_out)
                self._matched_out = None
        self._subscriptions.append(subscription)
        self._rate(name, topic)
        self._health.listen(name, role, topic, kind, f"{name}_topic")
        return subscription

    @guarded
    def _on_matched(self, topic: str, event: Any) -> None:
        self._matched[topic] = int(event.current_count)
        self._publish_matched()

    def _publish_matched(self) -> None:
        if self._matched_out is None:
            return
        values = [KeyValue(key=topic, value=str(count)) for topic, count in self._matched.items()]
        status = DiagnosticStatus(level=DiagnosticStatus.OK, name="matched_inputs", hardware_id="wm", values=values)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._matched_out.publish(message)

    def _rate(self, name: str, topic: str) -> RateMonitor:
        advice = f"is {topic} published? (ros2 topic hz {topic})"
        return self._node.diagnostics.rate(f"{name} input", max_age_s=INPUT_SILENT_S, advice=advice)

    def _arrived(self, name: str, topic: str, msg: Any) -> int:
        """Count a message; its stamp [ns]."""
        stamp_ns = stamp_to_ns(msg.header.stamp)
        self._rate(name, topic).tick()
        self._health.arrived(name, stamp_ns)
        return stamp_ns

    @guarded
    def _on_color(self, msg: Any) -> None:
        arrived = Arrived(msg, time.monotonic())
        stamp_ns = self._arrived("color", self._node.params.color_source, msg)
        self._offer(self._synchronizer.add_color(stamp_ns, arrived))

    @guarded
    def _on_depth(self, msg: Any) -> None:
        arrived = Arrived(msg, time.monotonic())
        stamp_ns = self._arrived("depth", self._node.params.depth_source, msg)
        self._offer(self._synchronizer.add_depth(stamp_ns, arrived))

    @guarded
    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._arrived("camera_info", self._node.params.camera_info_topic, msg)
        self.camera_info = msg

    def _offer(self, pair: Pair | None) -> None:
        counts, diagnostics = self._synchronizer.counts, self._node.diagnostics
        diagnostics.counter("time_restarts").raise_to(counts["restarts"], "stamps went backwards: tracks are reset")
        diagnostics.counter("out_of_order").raise_to(counts["out_of_order"], "a stamp not newer than the last")
        if pair is not None:
            self._on_pair(pair)

    def diagnose(self) -> None:
        """Update the counter of images without a partner from the synchronizer."""
        counts, within_s = self._synchronizer.counts, self._node.params.max_stamp_difference_s
        lost = counts["unsynchronised_color"] + counts["unsynchronised_depth"]
        counter = self._node.diagnostics.counter(
            "unsynchronised", advice="compare their stamps, or raise max_stamp_difference_s"
        )
        if lost > counter.total:
            text = (
                f"{lost - counter.total} images without a partner within {within_s:g} s "
                f"(color {counts['unsynchronised_color']}, depth {counts['unsynchronised_depth']} in all)"
            )
            counter.raise_to(lost, text)

    def findings(self) -> list[Finding]:
        """Faults of streams and stamps."""
        findings = self._health.findings(("color", "depth", "camera_info", "odometry"))
        if self.camera_info is not None:  # published once is enough
            findings = [f for f in findings if f.cause not in ("silent.camera_info", "stopped.camera_info")]
        apart = self._health.synchronization("color", "depth", self._node.params.max_stamp_difference_s)
        return findings + ([apart] if apart is not None else [])
