"""The perception node: color and depth images with a camera pose in, the scene graph out.

It translates messages, time and parameters; what it knows of images it leaves to ``wm_perception.pipeline``.
A worker of two stages always takes the newest synchronized frame, so that latency never queues up; frames it
passes over are counted.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from wm_core.frames import prefixed
from wm_core.geometry import pose_matrix
from wm_core.health.depth_unit import DepthUnitWatch, depth_unit_finding
from wm_core.health.findings import Finding, Severity
from wm_core.health.inputs import check_distortion, check_intrinsics, check_registration, check_stream
from wm_core.inference.onnx_runtime import cores
from wm_perception.frame_worker import FrameWorker, overlaps
from wm_perception.inspection import FrameInspector
from wm_perception.parameters import PerceptionParameters
from wm_perception.types import Frame, PerceptionConfig
from wm_ros import qos
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.health.diagnostics import Level
from wm_ros.health.inputs import FrameLog, InputHealth
from wm_ros.images import camera_input
from wm_ros.images.camera_info import camera_to_info, info_to_lens
from wm_ros.images.pixels import ImageError, array_to_image, rgb_to_image
from wm_ros.markers import MarkerBuilder
from wm_ros.nodes.lifecycle import ManagedNode, guarded, run_node
from wm_ros.stamps import ApproximateSynchronizer, Pair, ns_to_stamp, seconds_to_ns, stamp_to_ns
from wm_ros.transforms import (
    NotConnectedError,
    RosTransforms,
    TooNewError,
    TooOldError,
    TransformBuffer,
    TransformError,
    UnknownFrameError,
)

_INPUT_SILENT_S = 2.0
_MAX_INSTANCE_ID = 65535


@dataclass(frozen=True)
class _Arrived:
    """A message and the wall-clock time at which it came [s, monotonic]."""

    msg: Any
    at_s: float


@dataclass(frozen=True)
class _Taken:
    """A frame between its two halves.

    ``frame_id`` of the camera's pose, ``color_frame_id`` of the image; ``arrived_s``: when its images were there
    [s, monotonic]; ``begun_in_s``: what the pipeline's first half took; ``unit_finding``: what is said of its depth's
    unit.
    """

    frame: Frame
    frame_id: str
    color_frame_id: str
    arrived_s: float
    begun_in_s: float
    unit_finding: Finding | None


class BadFrameError(Exception):
    """A frame that cannot be used: ``counter`` in diagnostics, what was found, and what to do."""

    def __init__(self, counter: str, detail: str, advice: str = "") -> None:
        super().__init__(detail)
        self.counter, self.detail, self.advice = counter, detail, advice


def _pose_of_seven(values: tuple[float, ...]) -> NDArray[np.float64]:
    return pose_matrix(values[:3], values[3:])


def _newest(old: Pair, new: Pair) -> Pair:
    """The pair to work on of two that wait; that time was set back is not forgotten."""
    return replace(new, restarted=old.restarted or new.restarted)


def make_pipeline(config: PerceptionConfig) -> Any:
    """The perception pipeline."""
    # Here, since it imports the heavy libraries: a refused parameter is said at once.
    from wm_perception.pipeline import PerceptionPipeline

    return PerceptionPipeline(config)


class PerceptionNode(ManagedNode):
    """Lifecycle node ``perception`` in the namespace ``wm``.

    Publishes scene_graph (latched), frame_reports (what became of each pair of images), instances (mono16 object ids of
    the color image), overlay (rgb8), camera_info (the pinhole camera of both, undistorted) and markers; the last four
    only while somebody subscribes. Subscribes to the topics in its parameters with sensor QoS.

    ``pipeline`` makes the object that does the work: ``finish(begin(frame))`` is a ``PerceptionResult``, where the next
    frame may be begun before this one is finished, and ``reset()`` forgets tracks after time was set back but never
    reuses an id.
    """

    def __init__(self, pipeline: Callable[[PerceptionConfig], Any] = make_pipeline, **kwargs: Any) -> None:
        super().__init__("perception", parameters=PerceptionParameters, **kwargs)
        self._make_pipeline = pipeline
        self._pipeline: Any = None
        self._markers = MarkerBuilder()
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._transforms: RosTransforms | None = None
        self._odometry = TransformBuffer()
        self._odometry_frames: tuple[str, str] | None = None
        self._camera_info: CameraInfo | None = None
        self._camera_input = camera_input.CameraInput("", "")
        self._depth_unit = DepthUnitWatch()
        self._unit_finding: Finding | None = None
        self._synchronizer = ApproximateSynchronizer(0)
        self._health = InputHealth(self)
        self._frames = FrameLog()
        self._inspector = FrameInspector("", "", PerceptionConfig(), 0.0)
        self._worker: FrameWorker[Pair] | None = None
        self._last_begun_ns = -1

    # Lifecycle.

    def configure(self) -> None:
        """Load the pipeline with its models, make the publishers; a bad model refuses the transition."""
        config = replace(self.params.pipeline, world_frame=self.params.world)
        self._pipeline = self._make_pipeline(config)
        from wm_perception.models.choice import chosen  # after the pipeline, as make_pipeline says
        from wm_perception.models.files import SHIPPED

        for name in SHIPPED:
            choice = str(chosen(name, config))
            self.diagnostics.set_status(name, Level.OK, choice)
            self.get_logger().info(f"{name}: {choice}")
        self._markers = MarkerBuilder()
        self._graph_out = self.create_lifecycle_publisher(SceneGraphMsg, "scene_graph", qos.SCENE_GRAPH)
        self._instances_out = self.create_lifecycle_publisher(Image, "instances", qos.DERIVED_IMAGE)
        self._overlay_out = self.create_lifecycle_publisher(Image, "overlay", qos.DERIVED_IMAGE)
        self._markers_out = self.create_lifecycle_publisher(MarkerArray, "markers", qos.MARKERS)
        self._info_out = self.create_lifecycle_publisher(CameraInfo, "camera_info", qos.DERIVED_IMAGE)
        self._reports_out = self.create_lifecycle_publisher(DiagnosticArray, "frame_reports", qos.FRAME_REPORTS)
        self._outputs = [
            self._graph_out,
            self._instances_out,
            self._overlay_out,
            self._markers_out,
            self._info_out,
            self._reports_out,
        ]

    def activate(self) -> None:
        """Subscribe, start the worker."""
        p = self.params
        self._synchronizer = ApproximateSynchronizer(seconds_to_ns(p.max_stamp_difference_s))
        self._camera_info = None
        self._odometry.clear()
        self._odometry_frames = None
        if p.pose_source == "tf" or (p.pose_source == "odometry" and p.odometry_camera_from_tf):
            self._transforms = RosTransforms(self)
            self.get_logger().info(f"transforms through {self._transforms.backend}")
        color_type = Image if p.color_transport == "raw" else CompressedImage
        depth_type = Image if p.depth_transport == "raw" else CompressedImage
        self._inputs = [
            self.create_subscription(color_type, p.color_source, self._on_color, qos.SENSOR),
            self.create_subscription(depth_type, p.depth_source, self._on_depth, qos.SENSOR),
            self.create_subscription(CameraInfo, p.camera_info_topic, self._on_camera_info, qos.SENSOR),
        ]
        color_in, depth_in = self._inputs[:2]
        self._camera_input = camera_input.CameraInput(color_in.topic_name, depth_in.topic_name)
        self._depth_unit, self._unit_finding = DepthUnitWatch(), None
        if p.pose_source == "odometry":
            self._inputs.append(self.create_subscription(Odometry, p.odometry_topic, self._on_odometry, qos.SENSOR))
        # Followed from now on, so that silence is reported from the start.
        self._frames.clear()
        self._health.clear()
        self._inspector = FrameInspector(p.depth_source, p.world, p.pipeline, p.min_depth_fraction)
        for name, role, topic, kind in (
            ("color", "color images", p.color_source, color_type),
            ("depth", "depth images", p.depth_source, depth_type),
            ("camera_info", "intrinsics", p.camera_info_topic, CameraInfo),
        ):
            self._input(name, topic)
            self._health.listen(name, role, topic, kind, f"{name}_topic")
        if p.pose_source == "odometry":
            self._health.listen("odometry", "camera pose", p.odometry_topic, Odometry, "odometry_topic")
        if self._transforms is not None:
            for name, profile in (("tf", qos.TF), ("tf_static", qos.TF_STATIC)):
                self._health.listen(name, "camera pose", f"/{name}", "tf2_msgs/msg/TFMessage", wanted=profile)
        self._output()
        overlap = overlaps(p.overlap_frames, cores(), p.pipeline.inference_threads)
        self._worker = FrameWorker(self._begin, _newest, overlap, name="perception")
        self.get_logger().info(
            f"color {p.color_source}, depth {p.depth_source}, camera info {p.camera_info_topic}, "
            f"pose from {p.pose_source}"
        )

    def deactivate(self) -> None:
        """Unsubscribe, stop the worker."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(5.0):
            self.get_logger().warning("a frame was still being worked on after 5 s; leaving it")
        if self._transforms is not None:
            self._transforms.destroy()
        self._transforms = None
        self.diagnostics.clear_rates()

    def cleanup(self) -> None:
        """Give back the pipeline and the publishers."""
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = []
        self._pipeline = None

    # Input, in the executor's thread: cheap, so that nothing waits in the middleware.

    def _input(self, name: str, topic: str) -> Any:
        advice = f"is {topic} published? (ros2 topic hz {topic})"
        return self.diagnostics.rate(f"{name} input", max_age_s=_INPUT_SILENT_S, advice=advice)

    def _output(self) -> Any:
        return self.diagnostics.rate("scene graph", max_age_s=_INPUT_SILENT_S, advice="see the inputs and counters")

    @guarded
    def _on_color(self, msg: Any) -> None:
        now_s = time.monotonic()
        self._input("color", self.params.color_source).tick()
        self._health.arrived("color", stamp_to_ns(msg.header.stamp))
        self._offer(self._synchronizer.add_color(stamp_to_ns(msg.header.stamp), _Arrived(msg, now_s)))

    @guarded
    def _on_depth(self, msg: Any) -> None:
        now_s = time.monotonic()
        self._input("depth", self.params.depth_source).tick()
        self._health.arrived("depth", stamp_to_ns(msg.header.stamp))
        self._offer(self._synchronizer.add_depth(stamp_to_ns(msg.header.stamp), _Arrived(msg, now_s)))

    @guarded
    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._input("camera_info", self.params.camera_info_topic).tick()
        self._health.arrived("camera_info", stamp_to_ns(msg.header.stamp))
        self._camera_info = msg

    @guarded
    def _on_odometry(self, msg: Odometry) -> None:
        self._health.arrived("odometry", stamp_to_ns(msg.header.stamp))
        frame, child = msg.header.frame_id.lstrip("/"), msg.child_frame_id.lstrip("/")
        p, q = msg.pose.pose.position, msg.pose.pose.orientation
        if frame != self.params.world:
            self._bad_frame(
                "odometry_frame",
                f"odometry on {self.params.odometry_topic} is in frame {frame!r}, expected {self.params.world!r}",
                f"set world_frame to {frame!r}",
            )
            return
        try:
            self._odometry.set(frame, child, stamp_to_ns(msg.header.stamp), [p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
        except ValueError as error:
            self.warn("bad_transform", str(error), f"the publisher of {self.params.odometry_topic} sends it so")
            return
        self._odometry_frames = (frame, child)

    def _offer(self, pair: Pair | None) -> None:
        counts = self._synchronizer.counts
        self.diagnostics.counter("time_restarts").raise_to(
            counts["restarts"], "stamps went backwards: tracks are reset"
        )
        self.diagnostics.counter("out_of_order").raise_to(counts["out_of_order"], "a stamp not newer than the last")
        worker = self._worker
        if pair is not None and worker is not None and worker.offer(pair):
            # Not an alarm: a camera faster than the machine is normal.
            self.diagnostics.counter("frames_passed_over", level=Level.OK).add()

    def before_diagnostics(self) -> None:
        """Takes over the synchronizer's counters."""
        if not self.is_active:
            return
        p, counts = self.params, self._synchronizer.counts
        lost = counts["unsynchronised_color"] + counts["unsynchronised_depth"]
        before = self.diagnostics.counter("unsynchronised").total
        if lost > before:
            text = (
                f"{lost - before} images without a partner within {p.max_stamp_difference_s:g} s "
                f"(color {counts['unsynchronised_color']}, depth {counts['unsynchronised_depth']} in all)"
            )
            self.diagnostics.counter(
                "unsynchronised", advice="compare their stamps, or raise max_stamp_difference_s"
            ).raise_to(lost, text)

    # What is wrong, for the console and diagnostics (ManagedNode says it).

    def input_findings(self) -> list[Finding]:
        """Streams, stamps, calibration, pose, and what the frames show."""
        p, info = self.params, self._camera_info
        findings = self._health.findings(("color", "depth", "camera_info", "odometry"))
        if info is not None:  # published once is enough
            findings = [f for f in findings if f.cause not in ("silent.camera_info", "stopped.camera_info")]
            findings += self._camera_findings(info)
        unsynchronized = self._health.synchronization("color", "depth", p.max_stamp_difference_s)
        findings += [unsynchronized] if unsynchronized is not None else []
        bad = self._frames.findings()
        if any(f.cause.startswith("tf_") for f in bad) and (reasons := self._transform_findings()):
            findings += reasons
            bad = [f for f in bad if not f.cause.startswith("tf_")]
        known = {f.cause.rpartition(".")[2] for f in findings}
        findings += [f for f in bad if not (f.cause == "missing_camera_info" and known & {"camera_info", "no_camera"})]
        return findings + self._inspector.findings()

    def _camera_findings(self, info: CameraInfo) -> list[Finding]:
        """Intrinsics that cannot be, or distortion that is removed neither here nor before."""
        p = self.params
        topic = p.camera_info_topic
        try:
            lens = info_to_lens(info, topic)
        except ImageError:
            return []  # said of each frame
        corrected = self._camera_input.corrects(lens, p.rectify)
        findings = (
            check_intrinsics(topic, lens.raw),
            check_distortion(topic, lens.model, lens.coefficients, lens.raw, corrected),
        )
        return [f for f in findings if f is not None]

    def _transform_findings(self) -> list[Finding]:
        """Why transforms may be missing: nobody publishes them, or with a QoS that does not reach this node."""
        streams = self._health.streams(("tf", "tf_static"), look_at_all=True)
        if streams and not any(s.publishers for s in streams):
            run = "start robot_state_publisher or a static_transform_publisher, or set pose_source to odometry or fixed"
            return [Finding("no_tf", Severity.ERROR, "nobody publishes /tf or /tf_static (camera pose)", run=run)]
        found = (check_stream(s) for s in streams)
        return [f for f in found if f is not None and f.cause.startswith("qos.")]

    def _bad_frame(self, counter: str, detail: str, advice: str = "", severity: Severity = Severity.ERROR) -> None:
        """Count a frame that cannot be used; where that goes on it is a finding."""
        self.diagnostics.counter(counter, advice=advice).add(1, detail)
        self._frames.bad(Finding(counter, severity, detail, run=advice))

    # Work, in the worker's two threads: all up to the network in the first, the rest in the second.

    def _begin(self, pair: Pair) -> Callable[[], None]:
        """The first half of the work on a pair of images; returns the second."""
        try:
            finish = self._begin_frame(pair)
        except BadFrameError as error:
            self._bad_frame(error.counter, error.detail, error.advice)
            return partial(self._report, pair.stamp_ns, (error.counter, error.detail))
        except Exception as error:  # counted and logged; the next frame may be better
            return partial(self._report, pair.stamp_ns, self._failed(error))
        return partial(self._finish, pair.stamp_ns, finish)

    def _finish(self, stamp_ns: int, finish: Callable[[], None]) -> None:
        """The second half: ``finish`` is what ``_begin_frame`` returned."""
        try:
            finish()
        except Exception as error:  # counted and logged; the next frame may be better
            self._report(stamp_ns, self._failed(error))
        else:
            self._report(stamp_ns)

    def _failed(self, error: Exception) -> tuple[str, str]:
        self.report_exception("pipeline", error)
        return "exception", f"{type(error).__name__}: {error}"

    def _report(self, stamp_ns: int, refused: tuple[str, str] | None = None) -> None:
        """Say what became of a pair: who plays a recording in lock-step waits for it."""
        try:
            name, text = refused or ("scene_graph", "")
            level = DiagnosticStatus.OK if refused is None else DiagnosticStatus.ERROR
            report = DiagnosticArray(status=[DiagnosticStatus(level=level, name=name, message=text, hardware_id="wm")])
            report.header.stamp = ns_to_stamp(max(stamp_ns, 0))
            self._reports_out.publish(report)
        except Exception as error:  # the node was cleaned up while a long frame was worked on
            self.report_exception("frame report", error)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no pair of images waits or is worked on; False when time was up first."""
        worker = self._worker
        return worker is None or worker.wait_until_idle(timeout_s)

    def _reset(self) -> None:
        """Forget the tracks, after earlier frames are done with."""
        worker = self._worker
        if worker is not None:
            worker.drain()
        self._pipeline.reset()

    def _begin_frame(self, pair: Pair) -> Callable[[], None]:
        # The synchronizer starts anew with every activation, the pipeline does not.
        restarted = pair.restarted or pair.stamp_ns <= self._last_begun_ns
        self._last_begun_ns = pair.stamp_ns
        if restarted:
            self.log_throttled("stamps went backwards: tracks are reset", key="time_restarts")
            self._reset()
            if self._transforms is not None:
                self._transforms.clear(pair.stamp_ns + seconds_to_ns(0.5))
            self._odometry.clear(pair.stamp_ns + seconds_to_ns(0.5))
        frames = (pair.color.msg.header.frame_id, pair.depth.msg.header.frame_id)
        apart = check_registration(self.params.color_source, frames[0], self.params.depth_source, frames[1])
        if apart is not None:
            self._frames.bad(apart)
        self._await_camera_info()
        self._depth_unit.begin(1e-9 * pair.stamp_ns, camera_input.unit_settings(self.params))
        read = self._decode(pair)
        frame_id = prefixed(self.params.frame_prefix, self.params.camera_frame) or frames[0]
        world_T_camera = self._camera_pose(frame_id, pair.stamp_ns)
        self._check_depth_unit(read, world_T_camera, pair.stamp_ns)
        started_s = time.monotonic()
        frame = Frame(pair.stamp_ns, read.color, read.depth_m, read.camera, world_T_camera)
        begun = self._pipeline.begin(frame)
        taken = _Taken(
            frame,
            frame_id,
            frames[0],
            max(pair.color.at_s, pair.depth.at_s),
            time.monotonic() - started_s,
            self._unit_finding,
        )
        return partial(self._finish_frame, self._pipeline, taken, begun)

    def _finish_frame(self, pipeline: Any, taken: _Taken, begun: Any) -> None:
        started_s = time.monotonic()
        result = pipeline.finish(begun)
        self.diagnostics.latency("pipeline").add(taken.begun_in_s + time.monotonic() - started_s)
        for warning in result.warnings:
            self.diagnostics.counter("pipeline_warnings").add(1, str(warning))
        scene = result.scene
        if scene.frame_id != self.params.world:
            scene = replace(scene, frame_id=self.params.world)
        self._graph_out.publish(scene_graph_to_msg(scene))
        self.diagnostics.latency("image to scene graph", warn_s=0.5, advice="a smaller image, or a faster machine").add(
            time.monotonic() - taken.arrived_s
        )
        self._output().tick()
        self._frames.good()
        self._inspector.look(taken.frame, scene, taken.frame_id, taken.unit_finding)
        for stage, seconds in result.timings_s.items():
            self.diagnostics.latency(f"stage {stage}").add(seconds)
        self._publish_images(taken.color_frame_id, taken.frame, result)

    def _await_camera_info(self) -> None:
        """The first images may overtake the first camera info: it gets as long as a transform does."""
        deadline_s = time.monotonic() + self.params.tf_timeout_s
        while self._camera_info is None and self._worker is not None and time.monotonic() < deadline_s:
            time.sleep(0.005)

    def _decode(self, pair: Pair) -> camera_input.CameraImages:
        p, info = self.params, self._camera_info
        if info is None:
            raise BadFrameError(
                "missing_camera_info",
                f"no camera info on {p.camera_info_topic} yet",
                "publish it, or remap the topic",
            )
        try:
            factor = self._depth_unit.factor if camera_input.applies_guess(p) else 1.0
            read = self._camera_input.read(pair.color.msg, pair.depth.msg, info, p, factor)
        except camera_input.CameraInputError as error:
            raise BadFrameError(error.counter, error.detail, error.advice) from error
        lens = self._camera_input.lens(info)
        text = f"{read.camera.width}x{read.camera.height}, fx {read.camera.fx:.1f}"
        if self._camera_input.undistorts(lens, p.rectify, self._camera_input.color_topic):
            text += f", distortion ({lens.model}) is removed"
        self.diagnostics.set_status("camera", Level.OK, text, frame=info.header.frame_id)
        measured = np.count_nonzero(read.depth_m) / read.depth_m.size
        if measured < p.min_depth_fraction:
            self.diagnostics.counter("empty_depth").add(
                1,
                f"depth on {p.depth_source} has measurements in {100.0 * measured:.1f} % of its pixels, "
                f"expected at least {100.0 * p.min_depth_fraction:g} %",
            )
        return read

    def _check_depth_unit(
        self, read: camera_input.CameraImages, world_T_camera: NDArray[np.float64], stamp_ns: int
    ) -> None:
        """Keep what is to be said where depth looks to be in another unit, or take that on.

        Raises:
            BadFrameError: the unit is to be guessed and is not known yet, or was found with this very frame.
        """
        p, unit = self.params, self._depth_unit
        if p.depth_scale_guess == "off":
            self._unit_finding = None
            return
        apply = camera_input.applies_guess(p)
        if unit.due(1e-9 * stamp_ns):
            guess = unit.look(read.depth_m, read.camera, world_T_camera, said=p.depth_scale > 0.0)
            finding = depth_unit_finding(p.depth_source, guess, read.depth_unit_m) if guess is not None else None
            self._unit_finding = finding
            if guess is not None and finding is not None:
                if apply and unit.take(guess):
                    self._unit_finding = None
                    self._reset()
                    text = (
                        f"{finding.found}; from now on read as {1000.0 * read.depth_unit_m * guess.factor:g} mm a unit"
                    )
                    self.get_logger().warning(f"{text}; {finding.run}")
                    raise BadFrameError("depth_unit", text, finding.run)
                self.diagnostics.counter("depth_unit", advice=finding.run).add(1, finding.found)
        if apply and not unit.decided:
            raise BadFrameError("depth_unit_unknown", f"the unit of depth on {p.depth_source} is still looked at")

    def _camera_pose(self, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        p = self.params
        if p.pose_source == "fixed":
            return _pose_of_seven(p.fixed_pose)
        if not frame_id:
            raise BadFrameError(
                "tf_missing", f"images on {p.color_source} have no frame_id", "set the parameter camera_frame"
            )
        started_s = time.monotonic()
        try:
            if p.pose_source == "odometry":
                pose = self._pose_from_odometry(frame_id, stamp_ns)
            else:
                assert self._transforms is not None
                pose = self._transforms.wait(p.world, frame_id, stamp_ns, p.tf_timeout_s)
        except TooNewError as error:
            raise BadFrameError(
                "tf_late", f"{error}, waited {p.tf_timeout_s:g} s", "publish tf sooner, or raise tf_timeout_s"
            ) from error
        except TooOldError as error:
            raise BadFrameError("tf_too_old", str(error), "are the clocks of camera and tf the same?") from error
        except (UnknownFrameError, NotConnectedError, TransformError) as error:
            what = "odometry" if p.pose_source == "odometry" else "tf"
            advice = f"publish {what} from {p.world} to {frame_id}, or set world_frame, camera_frame or pose_source"
            raise BadFrameError("tf_missing", str(error), advice) from error
        self.diagnostics.latency("wait for camera pose").add(time.monotonic() - started_s)
        return pose

    def _pose_from_odometry(self, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        p = self.params
        deadline_s = time.monotonic() + p.tf_timeout_s
        while self._odometry_frames is None:
            if time.monotonic() >= deadline_s:
                raise UnknownFrameError(f"nothing usable came on {p.odometry_topic}")
            time.sleep(0.005)
        world, base = self._odometry_frames
        world_T_base = self._odometry.wait(world, base, stamp_ns, max(deadline_s - time.monotonic(), 0.0))
        if not p.odometry_camera_from_tf:
            return world_T_base @ _pose_of_seven(p.odometry_camera_pose)
        assert self._transforms is not None
        return world_T_base @ self._transforms.wait(base, frame_id, stamp_ns, max(deadline_s - time.monotonic(), 0.0))

    def _publish_images(self, frame_id: str, frame: Any, result: Any) -> None:
        stamp_ns, instance_ids = frame.stamp_ns, result.instance_ids
        if self._info_out.get_subscription_count():
            self._info_out.publish(camera_to_info(frame.camera, stamp_ns, frame_id))
        if self._instances_out.get_subscription_count():
            ids = instance_ids
            if ids.dtype != np.uint16 or int(result.scene.ids.max(initial=0)) > _MAX_INSTANCE_ID:
                too_large = ids > _MAX_INSTANCE_ID
                if too_large.any():
                    self.warn("instance_id_too_large", f"an object id exceeds {_MAX_INSTANCE_ID}", "restart the node")
                ids = np.where(too_large | (ids < 0), 0, ids).astype(np.uint16)
            self._instances_out.publish(array_to_image(ids, "mono16", stamp_ns, frame_id))
        if self._markers_out.get_subscription_count():
            self._markers_out.publish(self._markers.build(result.scene))
        if self._overlay_out.get_subscription_count():
            from wm_perception.overlay import draw_overlay

            overlay = draw_overlay(frame, result)
            self._overlay_out.publish(rgb_to_image(overlay, stamp_ns, frame_id))


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(PerceptionNode))


if __name__ == "__main__":
    main()
