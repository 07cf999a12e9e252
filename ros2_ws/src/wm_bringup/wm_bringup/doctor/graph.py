"""Checks a running graph for ``wm doctor``: subscribes to every stream and checks the last frames.

The checks are those of the nodes (``wm_core.health.inputs``, ``wm_core.health.depth``, ``wm_perception.inspection``),
with perception's parameters. This module subscribes, and words the findings on streams without defects.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from wm_bringup.doctor.frames import FRAMES, FrameLook, of_core
from wm_bringup.doctor.seen import Seen
from wm_core.health.inputs import Stream, check_rate, check_stream, nearest_differences
from wm_perception.parameters import PerceptionParameters
from wm_ros.nodes.lifecycle import diagnostics_prefix

_NODES = ("perception", "imagination")
"""Names of the nodes whose presence and diagnostics are checked."""


@dataclass(frozen=True)
class GraphOptions:
    """Options of a check of a graph.

    Attributes:
        parameters: perception's parameters.
        namespace: namespace of perception and imagination.
        seconds: wall-clock time for which messages are received, from the discovery of the publishers [s].
        use_sim_time: whether to read /clock; None: where a node publishes it.
    """

    parameters: PerceptionParameters = field(default_factory=PerceptionParameters)
    namespace: str = "/wm"
    seconds: float = 3.0
    use_sim_time: bool | None = None


def stamp_of(data: bytes) -> int:
    """Stamp [ns] of a serialized message that begins with a Header; 0: the message is too short.

    CDR has four bytes of encapsulation, then seconds (int32) and nanoseconds (uint32).
    """
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


DISCOVERY_S = 4.0
"""Longest additional wait for the discovery of the publishers of the needed streams [s]. Fast DDS announces a
participant five times in its first half second and then every 3 s (its defaults of initialAnnouncements and
leaseDuration_announcementperiod). Where the first five are lost, as on a busy machine, discovery takes this long, and
it takes this long for one participant while the others are known at once. Larger: a missing stream is reported later.
"""


class GraphListener:
    """Subscribes to all streams that perception reads, and reports on their messages, stamps and rates.

    Attributes:
        options: the options of the check.
        parameters: perception's parameters.
        node, context, executor: the doctor's own node, in a context of its own.
        health: publishers, message counts, ages and stamps of each stream.
        kept: the last messages of each stream, serialized (CDR), oldest first, by the stream's name.
        arrivals: times of arrival by ``time.monotonic()`` [s] of all messages, by the stream's name.
        statuses: the last diagnostic status of the nodes by its name.
        transforms: the transforms received on /tf and /tf_static.
    """

    def __init__(self, options: GraphOptions) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.parameter import Parameter
        from rclpy.signals import SignalHandlerOptions

        from wm_ros.health.inputs import InputHealth
        from wm_ros.transforms import RosTransforms

        self.options, self.parameters = options, options.parameters
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("wm_doctor", context=self.context, start_parameter_services=False)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._sim_time = Parameter("use_sim_time", value=True)
        if options.use_sim_time:
            self.node.set_parameters([self._sim_time])
        self.health = InputHealth(self.node, options.namespace)
        self.kept: dict[str, deque[bytes]] = {}
        self.arrivals: dict[str, list[float]] = {}
        self._topics: dict[str, str] = {}
        self.statuses: dict[str, Any] = {}
        self.transforms = RosTransforms(self.node)
        self._subscribe()

    def _subscribe(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import Odometry
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image
        from tf2_msgs.msg import TFMessage
        from wm_msgs.msg import SceneGraph

        from wm_ros import qos

        p = self.parameters
        color = Image if p.color_transport == "raw" else CompressedImage
        depth = Image if p.depth_transport == "raw" else CompressedImage
        self._follow("color", "color images", p.color_source, color, "color_topic", qos.SENSOR)
        self._follow("depth", "depth images", p.depth_source, depth, "depth_topic", qos.SENSOR)
        self._follow("camera_info", "intrinsics", p.camera_info_topic, CameraInfo, "camera_info_topic", qos.SENSOR)
        if p.pose_source == "odometry":
            self._follow("odometry", "camera pose", p.odometry_topic, Odometry, "odometry_topic", qos.SENSOR)
        if self.needs_tf:
            self._follow("tf", "camera pose", "/tf", TFMessage, "", qos.TF, stamped=False)
            self._follow("tf_static", "camera mounting", "/tf_static", TFMessage, "", qos.TF_STATIC, stamped=False)
        graph = f"{self.options.namespace.rstrip('/')}/scene_graph"
        self._follow("scene_graph", "scene graphs", graph, SceneGraph, "", qos.SCENE_GRAPH)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)

    @property
    def needs_tf(self) -> bool:
        """Whether the camera's pose, or the camera's mounting on the base, comes from tf."""
        p = self.parameters
        return p.pose_source == "tf" or (p.pose_source == "odometry" and p.odometry_camera_from_tf)

    def _follow(
        self, name: str, role: str, topic: str, kind: type, parameter: str, profile: Any, stamped: bool = True
    ) -> None:
        self.kept[name] = deque(maxlen=3 * FRAMES)
        self.arrivals[name] = []
        self._topics[name] = topic
        # The silence limit is shorter than the check, so that a stream that has just stopped is not called silent.
        self.health.listen(name, role, topic, kind, parameter, profile, min(2.0, 0.6 * self.options.seconds))

        def on_message(data: bytes) -> None:
            # Messages stay serialized: all are counted, and only the last few are decoded.
            self.kept[name].append(data)
            self.arrivals[name].append(time.monotonic())
            self.health.arrived(name, stamp_of(data) if stamped else None)

        self.node.create_subscription(kind, topic, on_message, profile, raw=True)

    def _on_diagnostics(self, msg: Any) -> None:
        named = {diagnostics_prefix(self.options.namespace, n) for n in _NODES}
        self.statuses.update({s.name: s for s in msg.status if s.name.partition(":")[0] in named})

    def listen(self) -> None:
        """Spin for ``options.seconds`` from the discovery of the last needed stream, ``DISCOVERY_S`` longer at most."""
        start = time.monotonic()
        end, latest = start + self.options.seconds, start + DISCOVERY_S + self.options.seconds
        missing = self._needed()
        while True:
            now = time.monotonic()
            still = [names for names in missing if not any(self._has_publisher(name) for name in names)]
            if len(still) < len(missing):
                missing, end = still, now + self.options.seconds
            if (left := (latest if missing else min(end, latest)) - now) <= 0.0:
                return
            undecided = self.options.use_sim_time is None and not self.node.get_clock().ros_time_is_active
            if undecided and self.node.count_publishers("/clock"):
                self.node.set_parameters([self._sim_time])
            self.executor.spin_once(timeout_sec=min(left, 0.2))

    def _needed(self) -> list[tuple[str, ...]]:
        """Streams without which perception does not run; of those in one tuple, one is enough."""
        needed: list[tuple[str, ...]] = [
            (name,) for name in ("color", "depth", "camera_info", "odometry") if name in self.kept
        ]
        return [*needed, ("tf", "tf_static")] if self.needs_tf else needed

    def _has_publisher(self, name: str) -> bool:
        return bool(self.node.count_publishers(self._topics[name]))

    def close(self) -> None:
        """Destroy the node and its context."""
        self.executor.shutdown(timeout_sec=1.0)
        self.transforms.destroy()
        self.node.destroy_node()
        self.context.try_shutdown()

    # Findings

    def findings(self) -> list[Finding]:
        """Findings on the topics, their stamps and rates, the clock and the nodes."""
        names = [n for n in self.kept if n not in ("scene_graph", "tf", "tf_static")]
        wrong = self.health.findings(names)
        synchronization = self.health.synchronization("color", "depth", self.parameters.max_stamp_difference_s)
        wrong += [synchronization] if synchronization is not None else []
        result = [of_core("topics", f) for f in wrong]
        for s in self.health.streams(look_at_all=True):
            if s.messages and not s.is_silent and s.name not in ("tf", "tf_static"):
                result += self._heard(s)
            elif s.name == "scene_graph":
                result.append(Finding("topics", s.topic, NOTE, "nothing came: is perception running?"))
        if self.needs_tf:
            result += self._transform_topics()
        if synchronization is None and (offsets := self._offsets_s()) is not None:
            limit = 1e3 * self.parameters.max_stamp_difference_s
            found = f"median {1e3 * float(np.median(offsets)):.1f} ms apart (at most {limit:g} ms makes a pair)"
            values = {"median_ms": 1e3 * float(np.median(offsets))}
            result.append(Finding("topics", "color and depth", OK, found, values=values))
        return result + self._clock() + self._nodes()

    def _heard(self, s: Stream) -> list[Finding]:
        times = self.arrivals[s.name]
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0
        who = ", ".join(sorted({p.node for p in s.publishers}))
        found = f"{s.messages} messages from {who}, {rate:.1f} Hz, last {s.age_s:.2f} s ago"
        values = {"rate_hz": rate, "messages": s.messages, "age_s": s.age_s}
        slow = check_rate(s.topic, rate) if s.name in ("color", "depth") else None
        said = [of_core("topics", slow)] if slow is not None else []
        return [Finding("topics", s.topic, OK, found, values=values), *said]

    def _offsets_s(self) -> NDArray[np.float64] | None:
        color, depth = self.health.stamps_ns("color"), self.health.stamps_ns("depth")
        return np.abs(nearest_differences(depth, color)) * 1e-9 if color and depth else None

    def _transform_topics(self) -> list[Finding]:
        """Findings on /tf and /tf_static. /tf_static alone may be complete, so one silent topic is only a note."""
        streams = {s.name: s for s in self.health.streams(("tf", "tf_static"), look_at_all=True)}
        result = []
        for s in streams.values():
            wrong = check_stream(s)
            if wrong is not None and wrong.cause.startswith("qos."):
                result.append(of_core("topics", wrong))
            elif s.messages:
                who = ", ".join(sorted({p.node for p in s.publishers})) or "a publisher that is gone"
                result.append(Finding("topics", s.topic, OK, f"{s.messages} messages from {who}"))
            else:
                what = "nobody publishes it" if not s.publishers else "nothing came"
                result.append(Finding("topics", s.topic, NOTE, what))
        if not any(s.publishers or s.messages for s in streams.values()):
            advice = "start robot_state_publisher or a static_transform_publisher, or --pose-source odometry or fixed"
            found = "nobody publishes /tf or /tf_static (camera pose)"
            result.append(Finding("topics", "no_tf", ERROR, found, advice))
        return result

    def _clock(self) -> list[Finding]:
        count = self.node.count_publishers("/clock")
        simulated = self.node.get_clock().ros_time_is_active
        now_s = self.node.get_clock().now().nanoseconds * 1e-9
        text = f"{'simulated' if simulated else 'wall'} time, {now_s:.1f} s; {count} publishers of /clock"
        if count > 1:
            who = ", ".join(sorted(f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in self._clock_publishers()))
            advice = "two clocks make time jump back and forth: end one, or give each robot a domain of its own"
            return [Finding("topics", "/clock", ERROR, f"{count} nodes publish it: {who}", advice)]
        return [Finding("topics", "/clock", OK, text, values={"simulated": bool(simulated), "publishers": count})]

    def _clock_publishers(self) -> list[Any]:
        return list(self.node.get_publishers_info_by_topic("/clock"))

    def _nodes(self) -> list[Finding]:
        """Findings on perception and imagination: whether they run, and the defects in their diagnostics."""
        alive = {(namespace.rstrip("/"), name) for name, namespace in self.node.get_node_names_and_namespaces() if name}
        result = []
        for name in _NODES:
            full = f"{self.options.namespace.rstrip('/')}/{name}"
            if (self.options.namespace.rstrip("/"), name) not in alive:
                result.append(
                    Finding("nodes", full, NOTE, "not running (ros2 launch wm_bringup wm.launch.py, or wm run)")
                )
                continue
            begin = f"{diagnostics_prefix(self.options.namespace, name)}: "
            bad = [s for n, s in self.statuses.items() if n.startswith(begin) and s.level != b"\x00"]
            if not bad:
                result.append(Finding("nodes", full, OK, "runs, and says that nothing is wrong"))
            for s in bad:
                level = ERROR if s.level[0] >= 2 else WARNING
                title = f"{full} {s.name.partition(': ')[2]}"
                result.append(Finding("nodes", title, level, s.message, "the same is on its console"))
        return result


def check_graph(options: GraphOptions, picture: Path | None = None, said: Iterable[Finding] = ()) -> list[Finding]:
    """Check a running graph and return the findings.

    Args:
        options: the options of the check.
        picture: image file for the last frame, perception's result and the findings; None: no file.
        said: earlier findings, which precede those of the graph.
    """
    listener = GraphListener(options)
    seen = Seen()
    try:
        listener.listen()
        findings = [*said, *listener.findings(), *FrameLook(listener).findings(seen)]
    finally:
        listener.close()
    if picture is not None:
        from wm_bringup.doctor.picture import draw_picture

        findings.append(draw_picture(picture, seen, options.parameters.pipeline.max_depth_m, findings))
    return findings
