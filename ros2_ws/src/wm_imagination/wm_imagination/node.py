"""The imagination node: scene graphs and camera images in, answers to what-if questions out.

It translates messages, time and parameters; what it knows of futures it leaves to
``wm_imagination.engine``. Requests run in the executor's threads, a few at a time; looks are learned in
a thread of its own, always from the newest frame of which all parts have come.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from rclpy.action import CancelResponse, GoalResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray
from wm_msgs.action import Imagine
from wm_msgs.msg import ImagineRequest as ImagineRequestMsg
from wm_msgs.msg import Rollout as RolloutMsg
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.srv import GetSceneGraph, ImagineRollouts

from wm_core.health.depth_unit import DepthUnitWatch
from wm_core.health.findings import Finding, Severity
from wm_core.health.graph import check_appearance, check_scene_graph
from wm_core.interventions import InterventionError, UnknownObjectError
from wm_core.rollout import POSITION, QUATERNION, RequestError, Rollout
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_imagination.answering import Progress
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import Appearance, AppearanceError
from wm_imagination.engine import BackendUnavailableError, Imagination
from wm_imagination.parameters import THREADS, ImaginationParameters
from wm_imagination.validation import NoAppearanceError, check_counts
from wm_ros import qos
from wm_ros.conversions.requests import request_from_msg
from wm_ros.conversions.rollout import rollout_to_msg
from wm_ros.conversions.scene_graph import scene_graph_from_msg, scene_graph_to_msg
from wm_ros.health.diagnostics import Level
from wm_ros.health.inputs import FrameLog, InputHealth
from wm_ros.images import camera_input
from wm_ros.images.clouds import points_to_cloud
from wm_ros.images.compressed import depth_to_compressed, rgb_to_compressed
from wm_ros.images.pixels import ImageError, image_to_array, rgb_to_image
from wm_ros.nodes.clients import AbandonedError, ClientWatch, Gone, WatchedActionServer, WatchedService
from wm_ros.nodes.lifecycle import ManagedNode, guarded, run_node
from wm_ros.nodes.memory import Trimmer, share_arenas
from wm_ros.stamps import stamp_to_ns

_SILENT_S = 5.0
_STALE_S = 3.0  # perception sends a graph for every frame, several a second
_LOOKS = ("color", "depth", "camera_info", "instances")
_KEEP_FRAMES = 45
_MAX_FEEDBACK_PARTIALS = 128
_MAX_PATHS = 64


@dataclass
class _Parts:
    """What came of one camera frame, by the stamp of its color image."""

    color: Any = None
    instances: Any = None
    scene: SceneGraph | None = None


@dataclass(frozen=True)
class _Frame:
    """All parts of one camera frame."""

    stamp_ns: int
    color: Any
    depth: Any
    info: CameraInfo
    instances: Image
    scene: SceneGraph


@dataclass
class FrameMatcher:
    """Brings together graph, instances and color of one stamp, and depth and camera info that go with them.

    Items are kept as they came, unconverted, for at most ``capacity`` stamps. Not thread-safe.

    Attributes:
        tolerance_ns: color and depth may differ by this.
        dropped: incomplete frames that fell out of the buffer although a scene graph had come for them.
    """

    tolerance_ns: int
    capacity: int = _KEEP_FRAMES
    dropped: int = 0
    _parts: OrderedDict[int, _Parts] = field(default_factory=OrderedDict)
    _depths: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    _newest_ns: int = -1

    def add(self, name: str, stamp_ns: int, item: Any) -> None:
        """Add a color, instances or scene item."""
        if stamp_ns < self._newest_ns - 2_000_000_000:  # time was set back: what is held will never be matched
            self._parts.clear()
            self._depths.clear()
            self._newest_ns = -1
        self._newest_ns = max(self._newest_ns, stamp_ns)
        parts = self._parts.setdefault(stamp_ns, _Parts())
        setattr(parts, name, item)
        while len(self._parts) > self.capacity:
            _, old = self._parts.popitem(last=False)
            self.dropped += old.scene is not None

    def add_depth(self, stamp_ns: int, item: Any) -> None:
        """Add a depth item."""
        self._depths[stamp_ns] = item
        while len(self._depths) > self.capacity:
            self._depths.popitem(last=False)

    def missing(self) -> str:
        """What the newest frame that has a scene graph lacks, for people."""
        newest = max((s for s, p in self._parts.items() if p.scene is not None), default=None)
        if newest is None:
            return "a scene graph"
        parts = self._parts[newest]
        lacks = [n for n in ("color", "instances") if getattr(parts, n) is None]
        return ", ".join(lacks + ([] if self._nearest_depth(newest) is not None else ["depth"]))

    def _nearest_depth(self, stamp_ns: int) -> int | None:
        best = min(self._depths, key=lambda s: abs(s - stamp_ns), default=None)
        return best if best is not None and abs(best - stamp_ns) <= self.tolerance_ns else None

    def take(self, info: CameraInfo | None) -> _Frame | None:
        """The newest complete frame, if there is one; it and all that is older is let go."""
        if info is None:
            return None
        for stamp_ns in sorted(self._parts, reverse=True):
            p = self._parts[stamp_ns]
            if p.color is None or p.instances is None or p.scene is None:
                continue
            depth_stamp = self._nearest_depth(stamp_ns)
            if depth_stamp is None:
                continue
            frame = _Frame(stamp_ns, p.color, self._depths[depth_stamp], info, p.instances, p.scene)
            for old in [s for s in self._parts if s <= stamp_ns]:
                del self._parts[old]
            for old in [s for s in self._depths if s < depth_stamp]:
                del self._depths[old]
            return frame
        return None


class BusyError(RuntimeError):
    """Too many requests are waiting already."""


class ImaginationNode(ManagedNode):
    """Lifecycle node ``imagination`` in the namespace ``wm``.

    Services: imagine_rollouts, get_scene_graph. Action: imagine. Publishes imagined/image (frames as they are
    drawn), imagined/points (the last imagined end state) and imagined/markers (paths), each only while
    somebody subscribes. Subscribes scene_graph, instances, and the camera topics in its parameters with
    sensor QoS.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("imagination", parameters=ImaginationParameters, on_parameters=self._on_parameters, **kwargs)
        self._imagination = Imagination()
        self._memory = AppearanceMemory()
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._request_services: list[Any] = []
        self._rollouts: WatchedService | None = None
        self._action: WatchedActionServer | None = None
        self._client_watch = ClientWatch(self)
        self._trimmer = Trimmer()
        self._input_group = MutuallyExclusiveCallbackGroup()
        self._request_group = ReentrantCallbackGroup()
        self._scene: SceneGraph | None = None
        self._camera_info: CameraInfo | None = None
        self._camera_input = camera_input.CameraInput("", "")
        self._depth_unit = DepthUnitWatch()
        self._optical_frame = ""
        self._wake = threading.Condition()
        self._matcher = FrameMatcher(0)
        self._health = InputHealth(self)
        self._frames = FrameLog()
        self._learned, self._first_graph_s = False, np.inf
        self._working = False
        self._worker: threading.Thread | None = None
        self._turns = threading.Semaphore(1)
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._stop_requests = threading.Event()

    # Lifecycle.

    def configure(self) -> None:
        """Make the backend and the publishers."""
        self._imagination = self._make_imagination(self.params)
        self._check_backend(self.params)
        self._memory, self._learned = AppearanceMemory(), False
        self._image_out = self.create_lifecycle_publisher(Image, "imagined/image", qos.DERIVED_IMAGE)
        self._points_out = self.create_lifecycle_publisher(PointCloud2, "imagined/points", qos.MARKERS)
        self._markers_out = self.create_lifecycle_publisher(MarkerArray, "imagined/markers", qos.MARKERS)
        self._outputs = [self._image_out, self._points_out, self._markers_out]

    def activate(self) -> None:
        """Subscribe, offer the services and the action, start to learn looks."""
        p = self.params
        self._scene, self._camera_info = None, None
        self._matcher = FrameMatcher(int(p.max_stamp_difference_s * 1e9))
        self._turns = threading.Semaphore(p.max_concurrent)
        self._stop_requests.clear()

        self._first_graph_s = np.inf
        self._health.clear()
        self._frames.clear()

        def subscribe(
            name: str, role: str, kind: Any, topic: str, callback: Callable[[Any], None], profile: QoSProfile
        ) -> None:
            self._inputs.append(
                self.create_subscription(kind, topic, callback, profile, callback_group=self._input_group)
            )
            named_by = f"{name}_topic" if name in ("color", "depth", "camera_info") else ""
            self._health.listen(name, role, topic, kind, named_by, profile, _STALE_S)

        color_type = Image if p.color_transport == "raw" else CompressedImage
        depth_type = Image if p.depth_transport == "raw" else CompressedImage
        subscribe("scene_graph", "scene graphs", SceneGraphMsg, "scene_graph", self._on_scene_graph, qos.SCENE_GRAPH)
        if p.appearance_rate_hz > 0.0:
            subscribe("instances", "object ids per pixel", Image, "instances", self._on_instances, qos.SENSOR)
            subscribe("color", "color images", color_type, p.color_source, self._on_color, qos.SENSOR)
            subscribe("depth", "depth images", depth_type, p.depth_source, self._on_depth, qos.SENSOR)
            subscribe("camera_info", "intrinsics", CameraInfo, p.camera_info_topic, self._on_camera_info, qos.SENSOR)
            color_in, depth_in = self._inputs[2:4]
            self._camera_input = camera_input.CameraInput(color_in.topic_name, depth_in.topic_name)
            self._depth_unit = DepthUnitWatch()
        self._scene_rate()
        self._working = True
        self._worker = threading.Thread(target=self._learn, name="appearance", daemon=True)
        self._worker.start()
        group = self._request_group
        self._request_services = [
            self.create_service(GetSceneGraph, "get_scene_graph", self._on_get_scene_graph, callback_group=group),
        ]
        self._rollouts = WatchedService(
            self, self._client_watch, ImagineRollouts, "imagine_rollouts", self._on_imagine_rollouts, group
        )
        self._action = WatchedActionServer(
            self,
            self._client_watch,
            Imagine,
            "imagine",
            execute_callback=self._on_goal,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
            feedback_pub_qos_profile=QoSProfile(depth=2 * _MAX_FEEDBACK_PARTIALS),
        )

    def deactivate(self) -> None:
        """End the running requests, withdraw the services, unsubscribe."""
        self._stop_requests.set()
        with self._wake:
            self._working = False
            self._wake.notify_all()
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for service in self._request_services:
            self.destroy_service(service)
        for server in (self._rollouts, self._action):
            if server is not None:
                server.destroy()
        self._inputs, self._request_services, self._rollouts, self._action = [], [], None, None
        if self._worker is not None:
            self._worker.join(5.0)
        self._worker = None
        self.diagnostics.clear_rates()

    def cleanup(self) -> None:
        """Forget what was seen, give back the publishers."""
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = []
        self._imagination.close()
        self._memory.reset()
        self._scene = None

    @staticmethod
    def _make_imagination(value: ImaginationParameters) -> Imagination:
        options: dict[str, object] = {"model": value.dynamics_model} if value.dynamics_model else {}
        return Imagination(value.limits, value.backend, {"learned": options})

    def _check_backend(self, value: ImaginationParameters) -> None:
        """Make the backend that requests will get, and say which it is.

        Raises:
            BackendUnavailableError: it, or the model that was named for it, does not load.
        """
        try:
            if value.dynamics_model:
                # A file that was named and does not load is a mistake, also where auto could do without.
                self._imagination.dynamics("learned")
            dynamics = self._imagination.dynamics()
            name, engine = dynamics.name, str(getattr(dynamics, "engine", ""))
        except (BackendUnavailableError, ValueError) as error:
            self.diagnostics.set_status("backend", Level.ERROR, f"{value.backend}: {error}", asked=value.backend)
            raise
        if value.backend != "auto":
            why = "as configured"
        elif name == "learned":
            why = "auto: physics for the futures that it is unsure of"
        else:
            why = "auto: the learned dynamics does not load, see the log"
        self.diagnostics.set_status(
            "backend",
            Level.OK,
            f"{name} ({why})",
            asked=value.backend,
            model=value.dynamics_model or "shipped",
            engine=engine,
        )
        self.get_logger().info(f"dynamics backend {name} ({why}){f', engine {engine}' if engine else ''}")

    def _on_parameters(self, value: ImaginationParameters) -> None:
        if value.backend == self._imagination.default_backend:
            self._imagination.limits = value.limits
            return
        # Requests that are being worked on keep the old one, and its threads end with the last of them.
        self._imagination = self._make_imagination(value)
        try:
            self._check_backend(value)
        except BackendUnavailableError as error:
            self.get_logger().error(f"backend {value.backend}: {error}; requests that do not name another are refused")

    # Input, in the executor's threads: cheap, so that nothing waits in the middleware.

    def _scene_rate(self) -> Any:
        advice = "is the perception node running? (ros2 topic hz scene_graph)"
        return self.diagnostics.rate("scene graph", max_age_s=_SILENT_S, advice=advice)

    @guarded
    def _on_scene_graph(self, msg: SceneGraphMsg) -> None:
        try:
            scene = scene_graph_from_msg(msg)
        except ValueError as error:
            self.warn("bad_scene_graph", f"scene_graph: {error}", "the last good one stays")
            return
        self._scene_rate().tick()
        self._health.arrived("scene_graph", scene.stamp_ns)
        self._first_graph_s = min(self._first_graph_s, time.monotonic())
        self._scene = scene
        self._offer("scene", scene.stamp_ns, scene)

    @guarded
    def _on_instances(self, msg: Image) -> None:
        self.diagnostics.rate("instances input").tick()
        self._health.arrived("instances", stamp_to_ns(msg.header.stamp))
        self._offer("instances", stamp_to_ns(msg.header.stamp), msg)

    @guarded
    def _on_color(self, msg: Any) -> None:
        self.diagnostics.rate("color input").tick()
        self._health.arrived("color", stamp_to_ns(msg.header.stamp))
        self._offer("color", stamp_to_ns(msg.header.stamp), msg)

    @guarded
    def _on_depth(self, msg: Any) -> None:
        self.diagnostics.rate("depth input").tick()
        self._health.arrived("depth", stamp_to_ns(msg.header.stamp))
        with self._wake:
            self._matcher.add_depth(stamp_to_ns(msg.header.stamp), msg)
            self._wake.notify_all()

    @guarded
    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._health.arrived("camera_info", stamp_to_ns(msg.header.stamp))
        self._camera_info = msg

    def _offer(self, name: str, stamp_ns: int, item: Any) -> None:
        with self._wake:
            self._matcher.add(name, stamp_ns, item)
            self._wake.notify_all()

    def before_diagnostics(self) -> None:
        """Takes over the matcher's count and says what looks are known."""
        self._trimmer.trim()
        if not self.is_active or self.params.appearance_rate_hz <= 0.0:
            return
        snapshot = self._memory.snapshot()
        with self._wake:
            dropped, missing = self._matcher.dropped, self._matcher.missing()
        self.diagnostics.counter(
            "unmatched_frames",
            advice="are color, depth, camera_info and instances published with their own stamps?",
        ).raise_to(dropped, f"scene graphs without images of their stamp (lacking: {missing or 'camera info'})")
        if snapshot.frame is None:
            if self._scene is not None:
                self.diagnostics.set_status(
                    "appearance",
                    Level.WARN,
                    f"no camera frame learned yet (lacking: {missing or 'camera info'}), so no images",
                )
            return
        self.diagnostics.set_status(
            "appearance",
            Level.OK,
            f"{len(snapshot.objects)} objects, {len(snapshot.hidden)} hidden background points",
        )

    def input_findings(self) -> list[Finding]:
        """The scene graph, the clock, and why no looks are learned."""
        streams = {s.name: s for s in self._health.streams()}
        graph = check_scene_graph(streams["scene_graph"])
        # Of the graph's own stream check_scene_graph knows better; what is left is its clock.
        findings = [f for f in self._health.findings(("scene_graph",)) if not f.cause.endswith(".scene_graph")]
        findings += [graph] if graph is not None else []
        looks = [streams[name] for name in _LOOKS if name in streams]
        if self._learned or not looks or time.monotonic() - self._first_graph_s < _STALE_S:
            return findings
        with self._wake:
            missing = self._matcher.missing()
        wrong = self._health.findings(_LOOKS)
        findings += check_appearance(looks, missing, wrong, self._frames.findings())
        return list({f.cause: f for f in findings}.values())

    # Looks, in a thread of their own.

    def _learn(self) -> None:
        last_s = -np.inf
        while True:
            with self._wake:
                self._wake.wait(0.2)
                if not self._working:
                    return
                rate_hz = self.params.appearance_rate_hz
                if rate_hz <= 0.0 or time.monotonic() - last_s < 1.0 / rate_hz:
                    continue
                frame = self._matcher.take(self._camera_info)
            if frame is None:
                continue
            last_s = time.monotonic()
            try:
                self._integrate(frame)
            except (ImageError, AppearanceError) as error:
                self.diagnostics.counter("bad_frame", advice="the frame is left out").add(1, str(error))
                self._frames.bad(Finding("bad_frame", Severity.WARN, str(error), run="the frames are left out"))
            except Exception as error:
                self.report_exception("appearance", error)

    def _integrate(self, frame: _Frame) -> None:
        p = self.params
        begin = time.monotonic()
        unit, pose = self._depth_unit, frame.scene.world_T_camera
        guesses = camera_input.applies_guess(p)
        unit.begin(1e-9 * frame.stamp_ns, camera_input.unit_settings(p))
        read = self._camera_input.read(frame.color, frame.depth, frame.info, p, unit.factor if guesses else 1.0)
        if guesses:
            # By the same rule as perception, which says what it finds; until then nothing is learned.
            guess = unit.look(read.depth_m, read.camera, pose) if unit.due(1e-9 * frame.stamp_ns) else None
            if guess is not None and unit.take(guess):
                self._memory.reset()
                return
            if not unit.decided:
                return
        ids = image_to_array(frame.instances, "instances", ("mono16", "16UC1"))
        self._memory.integrate(frame.stamp_ns, read.color, read.depth_m, read.camera, pose, ids, frame.scene)
        self._optical_frame = frame.color.header.frame_id
        self.diagnostics.rate("frames learned").tick()
        self._frames.good()
        self._learned = True
        self.diagnostics.latency("learn a frame").add(time.monotonic() - begin)

    # Requests.

    @contextmanager
    def _turn(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """A place among those worked on.

        Raises:
            BusyError: too many wait already.
        """
        with self._waiting_lock:
            if self._waiting >= self.params.max_waiting + self.params.max_concurrent:
                raise BusyError(f"{self._waiting} requests are being worked on or waiting; ask again later")
            self._waiting += 1
        mine = False
        try:
            # Who is cancelled while waiting goes in without a turn: the work then ends before it begins.
            while not mine and not should_stop():
                mine = self._turns.acquire(timeout=0.05)
            yield
        finally:
            if mine:
                self._turns.release()
            with self._waiting_lock:
                self._waiting -= 1

    def _answer(
        self,
        msg: ImagineRequestMsg,
        response: Any,
        gone: Gone,
        should_stop: Callable[[], bool],
        on_progress: Callable[[Progress, dict[tuple[int, int], CompressedImage]], None] | None = None,
    ) -> Any:
        """Fill a service response or an action result (their fields have the same names)."""
        begin = time.monotonic()
        codes = ImagineRollouts.Response
        encoded: dict[tuple[int, int], CompressedImage] = {}
        encoded_depth: dict[tuple[int, int], CompressedImage] = {}

        def progress(step: Progress) -> None:
            if step.frame is not None:
                stamp_ns = start_ns + int(step.frame_time_s * 1e9)
                where = (step.hypothesis, step.frame_index)
                if request.images.video:
                    encoded[where] = rgb_to_compressed(
                        step.frame.color, stamp_ns, self._optical_frame, "jpeg", self.params.jpeg_quality
                    )
                if request.images.depth:
                    encoded_depth[where] = depth_to_compressed(step.frame.depth_m, stamp_ns, self._optical_frame, "png")
                if self._image_out.get_subscription_count():
                    self._image_out.publish(rgb_to_image(step.frame.color, stamp_ns, self._optical_frame))
            if on_progress is not None:
                on_progress(step, encoded)

        try:
            check_counts(msg.hypotheses, [int(b.count) for b in msg.batches], self._imagination.limits)
            request = request_from_msg(msg)
            scene = self._scene if request.initial_state is None else request.initial_state
            if scene is None:
                response.error_code = codes.NO_SCENE_GRAPH
                response.error_msg = (
                    "no scene graph was received yet on scene_graph and the request has no initial_state; "
                    "start the perception node, or give one"
                )
            else:
                start_ns = scene.stamp_ns
                # Nobody listens to a service's progress but for the frames, so that it costs nothing without them.
                listens = on_progress is not None or request.images.any_images
                with self._turn(lambda: should_stop() or gone()):
                    rollout = self._imagination.imagine(
                        request,
                        scene,
                        self._memory,
                        should_stop=lambda: should_stop() or gone(),
                        on_progress=progress if listens else None,
                        keep_frames=False,
                        begin=begin,
                    )
                if gone():
                    raise AbandonedError("the client is gone; the request was ended")
                frames = [(k, f) for k in range(len(rollout.hypotheses)) for f in range(len(rollout.frame_times))]
                nothing = CompressedImage()
                response.rollout = rollout_to_msg(
                    rollout,
                    [encoded.get(w, nothing) for w in frames] if request.images.video else (),
                    [encoded_depth.get(w, nothing) for w in frames] if request.images.depth else (),
                )
                response.error_code = codes.OK
                self._show(rollout)
        except UnknownObjectError as error:
            response.error_code, response.error_msg = codes.UNKNOWN_OBJECT, str(error)
        except NoAppearanceError as error:
            response.error_code, response.error_msg = codes.NO_APPEARANCE, str(error)
        except (RequestError, InterventionError, ValueError) as error:
            response.error_code, response.error_msg = codes.INVALID_REQUEST, str(error)
        except BackendUnavailableError as error:
            response.error_code, response.error_msg = codes.BACKEND_UNAVAILABLE, str(error)
        except AbandonedError as error:
            response.error_code, response.error_msg = codes.INTERNAL, str(error)
            self.diagnostics.counter("abandoned_requests", level=Level.OK).add(1, str(error))
            return response
        except BusyError as error:
            response.error_code, response.error_msg = codes.INTERNAL, f"busy: {error}"
        except Exception as error:
            self.report_exception("imagine", error)
            response.error_code = codes.INTERNAL
            response.error_msg = f"{type(error).__name__}: {error} (see the node's log)"
        response.compute_time = time.monotonic() - begin
        if response.error_code == codes.OK:
            self.diagnostics.latency("imagine").add(response.compute_time)
            self.diagnostics.latency("dynamics").add(response.rollout.dynamics_time)
            self._count_answer(response.rollout)
            self.diagnostics.rate("requests").tick()
        else:
            self.diagnostics.counter("refused_requests", level=Level.OK).add(1, response.error_msg)
            self.log_throttled(f"request refused: {response.error_msg}", key="refused")
        return response

    def _count_answer(self, rollout: RolloutMsg) -> None:
        """Diagnostics: who answered, and what was late or odd."""
        backends = list(rollout.backends) or [rollout.backend] * len(rollout.hypotheses)
        for name in sorted(set(backends)):
            self.diagnostics.counter(f"futures.{name}", level=Level.OK).add(backends.count(name), "")
        if not rollout.complete:
            late = f"{int(np.sum(rollout.computed))} of {len(rollout.computed)} futures were done in time"
            self.diagnostics.counter("incomplete_answers", level=Level.OK).add(1, late)
        invalid = int(np.sum(np.asarray(rollout.computed, bool) & ~np.asarray(rollout.valid, bool)))
        if invalid:
            reason = next((r for r, ok in zip(rollout.invalid_reasons, rollout.valid, strict=True) if not ok), "")
            self.diagnostics.counter("invalid_futures", level=Level.WARN).add(invalid, reason)
        if len(rollout.warnings):
            self.diagnostics.counter("odd_requests", level=Level.OK).add(1, rollout.warnings[0])

    def _on_imagine_rollouts(
        self, request: ImagineRollouts.Request, response: ImagineRollouts.Response, gone: Gone
    ) -> ImagineRollouts.Response:
        return self._answer(request.request, response, gone, self._stop_requests.is_set)

    def _on_goal(self, goal: Any) -> Imagine.Result:
        action = self._action
        gone = action.client_gone(goal) if action is not None else self._stop_requests.is_set

        def should_stop() -> bool:
            return goal.is_cancel_requested or self._stop_requests.is_set()

        many = len(goal.request.request.hypotheses) > _MAX_FEEDBACK_PARTIALS
        last_s = -np.inf

        def feed_back(step: Progress, encoded: dict[tuple[int, int], CompressedImage]) -> None:
            nonlocal last_s
            # Of very many hypotheses some are shown; the result has them all.
            if many and step.partial is not None and time.monotonic() - last_s < 0.05:
                return
            last_s = time.monotonic()
            feedback = Imagine.Feedback()
            feedback.progress = float(step.fraction)
            feedback.hypothesis = int(step.hypothesis)
            feedback.frame_time = float(step.frame_time_s)
            if step.partial is not None:
                feedback.partial = rollout_to_msg(step.partial)
            frame = encoded.get((step.hypothesis, step.frame_index)) if step.frame is not None else None
            if frame is not None:
                feedback.frame = frame
            goal.publish_feedback(feedback)

        result = self._answer(goal.request.request, Imagine.Result(), gone, should_stop, feed_back)
        if goal.is_cancel_requested:
            if result.error_code == Imagine.Result.OK:
                result.error_code = Imagine.Result.CANCELLED
                result.error_msg = "cancelled by the client; the rollout holds what was done by then"
            goal.canceled()
        elif result.error_code == Imagine.Result.OK and not self._stop_requests.is_set():
            goal.succeed()
        else:
            if result.error_code == Imagine.Result.OK:
                result.error_code = Imagine.Result.CANCELLED
                result.error_msg = "the node was deactivated; the rollout holds what was done by then"
            goal.abort()
        return result

    def _on_get_scene_graph(
        self, request: GetSceneGraph.Request, response: GetSceneGraph.Response
    ) -> GetSceneGraph.Response:
        scene = self._scene
        wanted = [int(i) for i in request.object_ids]
        if scene is None:
            response.error_code = GetSceneGraph.Response.NO_SCENE_GRAPH
            response.error_msg = "no scene graph was received yet on scene_graph; is the perception node running?"
            return response
        unknown = [i for i in wanted if i not in scene.ids]
        if unknown:
            response.error_code = GetSceneGraph.Response.UNKNOWN_OBJECT
            response.error_msg = f"object_ids: got {unknown}, expected ids out of {scene.ids.tolist()}"
            return response
        if wanted:
            scene = scene.select(np.isin(scene.ids, wanted))
        response.scene_graph = scene_graph_to_msg(scene)
        return response

    # Topics for people.

    def _show(self, rollout: Rollout) -> None:
        if not rollout.states.size:  # what has no states to show was asked for by a planner
            return
        try:
            if self._points_out.get_subscription_count():
                points, colors = end_points(rollout, self._memory.snapshot())
                self._points_out.publish(points_to_cloud(points, colors, rollout.stamp_ns, rollout.frame_id))
            if self._markers_out.get_subscription_count():
                self._markers_out.publish(path_markers(rollout))
        except Exception as error:  # a picture for people must not cost the answer
            self.report_exception("show", error)


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


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    share_arenas()
    sys.exit(run_node(ImaginationNode, threads=THREADS))


if __name__ == "__main__":
    main()
