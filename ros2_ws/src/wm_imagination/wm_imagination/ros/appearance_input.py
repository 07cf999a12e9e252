"""From camera frames to appearance: the topics it is learned from, and the thread that learns it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from wm_core.health.depth_unit import DepthUnitWatch
from wm_core.health.findings import Finding, Severity
from wm_core.health.graph import check_appearance
from wm_core.health.inputs import Stream
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.frame_matcher import FrameMatcher, MatchedFrame
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import AppearanceError
from wm_imagination.parameters import ImaginationParameters
from wm_ros import qos
from wm_ros.health.diagnostics import Level
from wm_ros.health.inputs import FrameLog, InputHealth
from wm_ros.images import camera_input
from wm_ros.images.pixels import ImageError, image_to_array
from wm_ros.nodes.lifecycle import ManagedNode, guarded
from wm_ros.stamps import seconds_to_ns, stamp_to_ns

STALE_S = 3.0
"""Perception sends a graph for every frame, several a second: without one for so long something is wrong."""
_STREAMS = ("color", "depth", "camera_info", "instances")


class AppearanceInput:
    """Learns appearance in a thread of its own, always from the newest camera frame of which all parts have come.

    Attributes:
        memory: what was learned.
        optical_frame: frame_id of the camera it was learned from; empty: nothing yet.

    Args:
        node: whose topics, parameters and diagnostics they are. health: follows the streams.
        group: of the callbacks, which only store messages.
    """

    def __init__(self, node: ManagedNode, health: InputHealth, group: CallbackGroup) -> None:
        self.memory = AppearanceMemory()
        self.optical_frame = ""
        self.report_exception = node.report_exception  # for ``guarded``
        self._node, self._health, self._group = node, health, group
        self._subscriptions: list[Any] = []
        self._camera_info: CameraInfo | None = None
        self._camera_input = camera_input.CameraInput("", "")
        self._depth_unit = DepthUnitWatch()
        self._matcher = FrameMatcher(0)
        self._frames = FrameLog()
        self._learned = False
        self._wake = threading.Condition()
        self._working = False
        self._worker: threading.Thread | None = None

    # Lifecycle.

    def forget(self) -> None:
        """Begin without anything learned."""
        self.memory, self._learned = AppearanceMemory(), False

    def start(self, p: ImaginationParameters) -> None:
        """Subscribe, start to learn."""
        self._camera_info = None
        self._matcher = FrameMatcher(seconds_to_ns(p.max_stamp_difference_s))
        self._frames.clear()
        if p.appearance_rate_hz > 0.0:
            color_type = Image if p.color_transport == "raw" else CompressedImage
            depth_type = Image if p.depth_transport == "raw" else CompressedImage
            self._subscribe("instances", "object ids per pixel", Image, "instances", self._on_instances)
            color = self._subscribe("color", "color images", color_type, p.color_source, self._on_color)
            depth = self._subscribe("depth", "depth images", depth_type, p.depth_source, self._on_depth)
            self._subscribe("camera_info", "intrinsics", CameraInfo, p.camera_info_topic, self._on_camera_info)
            self._camera_input = camera_input.CameraInput(color.topic_name, depth.topic_name)
            self._depth_unit = DepthUnitWatch()
        self._working = True
        self._worker = threading.Thread(target=self._learn, name="appearance", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Unsubscribe, end the thread; what was learned stays."""
        with self._wake:
            self._working = False
            self._wake.notify_all()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        if self._worker is not None:
            self._worker.join(5.0)
        self._worker = None

    def _subscribe(self, name: str, role: str, kind: type, topic: str, callback: Callable[[Any], None]) -> Any:
        subscription = self._node.create_subscription(kind, topic, callback, qos.SENSOR, callback_group=self._group)
        self._subscriptions.append(subscription)
        named_by = "" if name == "instances" else f"{name}_topic"
        self._health.listen(name, role, topic, kind, named_by, qos.SENSOR, STALE_S)
        return subscription

    # Input, in the executor's threads: cheap, so that nothing waits in the middleware.

    def add_scene(self, scene: SceneGraph) -> None:
        """A scene graph came."""
        self._add("scene", scene.stamp_ns, scene)

    @guarded
    def _on_instances(self, msg: Image) -> None:
        self._add("instances", self._arrived("instances", msg), msg)

    @guarded
    def _on_color(self, msg: Any) -> None:
        self._add("color", self._arrived("color", msg), msg)

    @guarded
    def _on_depth(self, msg: Any) -> None:
        stamp_ns = self._arrived("depth", msg)
        with self._wake:
            self._matcher.add_depth(stamp_ns, msg)
            self._wake.notify_all()

    @guarded
    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._health.arrived("camera_info", stamp_to_ns(msg.header.stamp))
        self._camera_info = msg

    def _arrived(self, name: str, msg: Any) -> int:
        """Count an image; its stamp [ns]."""
        stamp_ns = stamp_to_ns(msg.header.stamp)
        self._node.diagnostics.rate(f"{name} input").tick()
        self._health.arrived(name, stamp_ns)
        return stamp_ns

    def _add(self, name: str, stamp_ns: int, item: Any) -> None:
        with self._wake:
            self._matcher.add(name, stamp_ns, item)
            self._wake.notify_all()

    # Diagnostics.

    def diagnose(self, graph_came: bool) -> None:
        """Report in diagnostics what is known, and which frames could not be matched."""
        snapshot = self.memory.snapshot()
        with self._wake:
            dropped, missing = self._matcher.dropped, self._matcher.missing()
        missing = missing or "camera info"
        diagnostics = self._node.diagnostics
        diagnostics.counter(
            "unmatched_frames",
            advice="are color, depth, camera_info and instances published with their own stamps?",
        ).raise_to(dropped, f"scene graphs without images of their stamp (lacking: {missing})")
        if snapshot.frame is not None:
            text = f"{len(snapshot.objects)} objects, {len(snapshot.hidden)} hidden background points"
            diagnostics.set_status("appearance", Level.OK, text)
        elif graph_came:
            text = f"no camera frame learned yet (lacking: {missing}), so no images"
            diagnostics.set_status("appearance", Level.WARN, text)

    def findings(self, streams: Mapping[str, Stream]) -> list[Finding]:
        """Why nothing is learned; empty where frames are learned, or none are to be.

        Args:
            streams: of the node's health, by name.
        """
        own = [streams[name] for name in _STREAMS if name in streams]
        if self._learned or not own:
            return []
        with self._wake:
            missing = self._matcher.missing()
        return check_appearance(own, missing, self._health.findings(_STREAMS), self._frames.findings())

    # Work, in a thread of its own.

    def _learn(self) -> None:
        last_s = -np.inf
        while True:
            with self._wake:
                self._wake.wait(0.2)
                if not self._working:
                    return
                rate_hz = self._node.params.appearance_rate_hz
                if rate_hz <= 0.0 or time.monotonic() - last_s < 1.0 / rate_hz:
                    continue
                frame = self._matcher.take(self._camera_info)
            if frame is None:
                continue
            last_s = time.monotonic()
            try:
                self._integrate(frame)
            except (ImageError, AppearanceError) as error:
                self._node.diagnostics.counter("bad_frame", advice="the frame is left out").add(1, str(error))
                self._frames.bad(Finding("bad_frame", Severity.WARN, str(error), run="the frames are left out"))
            except Exception as error:
                self.report_exception("appearance", error)

    def _integrate(self, frame: MatchedFrame) -> None:
        p: ImaginationParameters = self._node.params
        begin = time.monotonic()
        unit, pose = self._depth_unit, frame.scene.world_T_camera
        guesses = camera_input.applies_guess(p)
        unit.begin(1e-9 * frame.stamp_ns, camera_input.unit_settings(p))
        read = self._camera_input.read(frame.color, frame.depth, frame.info, p, unit.factor if guesses else 1.0)
        if guesses:
            # By the same rule as in perception, which reports the unit; nothing is learned before it is decided.
            guess = unit.look(read.depth_m, read.camera, pose) if unit.due(1e-9 * frame.stamp_ns) else None
            if guess is not None and unit.take(guess):
                self.memory.reset()
                return
            if not unit.decided:
                return
        ids = image_to_array(frame.instances, "instances", ("mono16", "16UC1"))
        self.memory.integrate(frame.stamp_ns, read.color, read.depth_m, read.camera, pose, ids, frame.scene)
        self.optical_frame = frame.color.header.frame_id
        self._node.diagnostics.rate("frames learned").tick()
        self._frames.good()
        self._learned = True
        self._node.diagnostics.latency("learn a frame").add(time.monotonic() - begin)
