"""The perception node: color and depth images with a camera pose in, the scene graph out.

It connects its parts (``wm_perception.ros``) with the pipeline, which does all image processing. A worker with two
threads processes the newest synchronized frame, so that no queue adds latency; skipped frames are counted.
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

from wm_core.frames import prefixed
from wm_core.health.findings import Finding
from wm_core.health.inputs import check_registration
from wm_core.inference.onnx_runtime import cores
from wm_perception.frame_worker import FrameWorker, Rest, overlaps
from wm_perception.inspection import FrameInspector
from wm_perception.parameters import PerceptionParameters
from wm_perception.ros.bad_frames import BadFrameError, BadFrames
from wm_perception.ros.camera_pose import CameraPose
from wm_perception.ros.camera_streams import INPUT_SILENT_S, CameraStreams
from wm_perception.ros.frame_reader import FrameReader
from wm_perception.ros.perceived_topics import PerceivedTopics
from wm_perception.types import Frame, PerceptionConfig, PerceptionResult
from wm_ros.health.diagnostics import Level, RateMonitor
from wm_ros.health.inputs import InputHealth
from wm_ros.nodes.lifecycle import ManagedNode
from wm_ros.nodes.memory import share_arenas
from wm_ros.nodes.running import run_node
from wm_ros.stamps import Pair


@dataclass(frozen=True)
class _ReadFrame:
    """A frame between its two halves.

    Attributes:
        frame: as read.
        frame_id: of the camera's pose; color_frame_id: of the color image.
        arrived_s: when the later of its images came [s, monotonic].
        begun_in_s: duration of the pipeline's first half [s].
        unit_finding: what is wrong with the unit of its depth; None: nothing.
    """

    frame: Frame
    frame_id: str
    color_frame_id: str
    arrived_s: float
    begun_in_s: float
    unit_finding: Finding | None


def _newest(old: Pair, new: Pair) -> Pair:
    """The newer of two waiting pairs; it keeps the mark that time was set back."""
    return replace(new, restarted=old.restarted or new.restarted)


def make_pipeline(config: PerceptionConfig) -> Any:
    """The perception pipeline."""
    # Imported here, as its libraries take seconds: a refused parameter is reported before.
    from wm_perception.pipeline import PerceptionPipeline

    return PerceptionPipeline(config)


class PerceptionNode(ManagedNode):
    """Lifecycle node ``perception`` in the namespace ``wm``.

    Publishes scene_graph (latched), frame_reports (the outcome for each pair of images), matched_inputs (of how many
    publishers it hears each input), instances (mono16 object ids of the color image), overlay (rgb8), camera_info (the
    pinhole camera of both, undistorted) and markers; the last four only while somebody subscribes. Subscribes to the
    topics in its parameters with sensor QoS.

    Args:
        pipeline: makes an object with the interface of ``PerceptionPipeline``: ``finish(begin(frame))`` is a
            ``PerceptionResult``, where the next frame may be begun before this one is finished; ``settle()`` is called
            when that is published; ``reset()`` forgets tracks after time was set back, and ids are never used again.
    """

    def __init__(self, pipeline: Callable[[PerceptionConfig], Any] = make_pipeline, **kwargs: Any) -> None:
        super().__init__("perception", parameters=PerceptionParameters, **kwargs)
        self._make_pipeline = pipeline
        self._pipeline: Any = None
        self._health = InputHealth(self)
        self._bad_frames = BadFrames(self)
        self._streams = CameraStreams(self, self._health, self._on_pair)
        self._reader = FrameReader(self)
        self._pose = CameraPose(self, self._health, self._bad_frames)
        self._perceived = PerceivedTopics(self)
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
        self._perceived.open()

    def activate(self) -> None:
        """Subscribe, start the worker."""
        p: PerceptionParameters = self.params
        self._health.clear()
        self._bad_frames.log.clear()
        # Poses first: subscriptions are announced in this order, so whoever knows the camera's knows all.
        self._pose.start(p)
        self._streams.start(p)
        self._reader.start(*self._streams.topics)
        self._inspector = FrameInspector(p.depth_source, p.world, p.pipeline, p.min_depth_fraction)
        self._output()
        overlap = overlaps(p.overlap_frames, cores(), p.pipeline.inference_threads)
        self._worker = FrameWorker(self._begin, _newest, overlap, name="perception")
        self.get_logger().info(
            f"color {p.color_source}, depth {p.depth_source}, camera info {p.camera_info_topic}, "
            f"pose from {p.pose_source}"
        )

    def deactivate(self) -> None:
        """Unsubscribe, stop the worker."""
        self._streams.stop()
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(5.0):
            self.get_logger().warning("a frame was still being processed after 5 s; leaving it")
        self._pose.stop()
        self.diagnostics.clear_rates()

    def cleanup(self) -> None:
        """Give back the pipeline and the publishers."""
        self._perceived.close()
        self._pipeline = None

    # Findings, which ManagedNode reports on the console and in diagnostics.

    def before_diagnostics(self) -> None:
        """Updates the synchronizer's counters."""
        if self.is_active:
            self._streams.diagnose()

    def input_findings(self) -> list[Finding]:
        """Faults of streams, stamps, calibration, pose, and of the frames themselves."""
        findings = self._streams.findings() + self._reader.findings(self._streams.camera_info)
        bad = self._bad_frames.log.findings()
        if any(f.cause.startswith("tf_") for f in bad) and (reasons := self._pose.findings()):
            findings += reasons
            bad = [f for f in bad if not f.cause.startswith("tf_")]
        known = {f.cause.rpartition(".")[2] for f in findings}
        findings += [f for f in bad if not (f.cause == "missing_camera_info" and known & {"camera_info", "no_camera"})]
        return findings + self._inspector.findings()

    def _output(self) -> RateMonitor:
        return self.diagnostics.rate("scene graph", max_age_s=INPUT_SILENT_S, advice="see the inputs and counters")

    # Processing, in the worker's two threads: up to the network in the first, the rest in the second.

    def _on_pair(self, pair: Pair) -> None:
        worker = self._worker
        if worker is not None and worker.offer(pair):
            # Not an alarm: a camera faster than the machine is normal.
            self.diagnostics.counter("frames_passed_over", level=Level.OK).add()

    def _begin(self, pair: Pair) -> Rest:
        """The first half of the work on a pair of images; returns the second."""
        try:
            finish = self._begin_frame(pair)
        except BadFrameError as error:
            if error.resets:
                self._reset()
            self._bad_frames.add(error)
            return partial(self._perceived.report, pair.stamp_ns, (error.counter, error.detail))
        except Exception as error:  # counted and logged; the next frame may be better
            return partial(self._perceived.report, pair.stamp_ns, self._failed(error))
        return partial(self._finish, pair.stamp_ns, finish, self._pipeline)

    def _finish(self, stamp_ns: int, finish: Callable[[], None], pipeline: Any) -> Callable[[], None]:
        """The second half: ``finish`` is what ``_begin_frame`` returned; returns what is left then."""
        refused = None
        try:
            finish()
        except Exception as error:  # counted and logged; the next frame may be better
            refused = self._failed(error)
        self._perceived.report(stamp_ns, refused)
        return partial(self._settle, pipeline)

    def _settle(self, pipeline: Any) -> None:
        """What is left to do for a frame that is published."""
        started_s = time.monotonic()
        try:
            pipeline.settle()
        except Exception as error:  # counted and logged; the next frame may be better
            self._failed(error)
        self.diagnostics.latency("stage after publishing").add(time.monotonic() - started_s)

    def _failed(self, error: Exception) -> tuple[str, str]:
        self.report_exception("pipeline", error)
        return "exception", f"{type(error).__name__}: {error}"

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no pair of images waits or is processed; False when ``timeout_s`` [s] passed first."""
        worker = self._worker
        return worker is None or worker.wait_until_idle(timeout_s)

    def _reset(self) -> None:
        """Forget the tracks, after earlier frames are finished."""
        worker = self._worker
        if worker is not None:
            worker.drain()
        self._pipeline.reset()

    def _begin_frame(self, pair: Pair) -> Callable[[], None]:
        p: PerceptionParameters = self.params
        # The synchronizer starts anew with every activation, the pipeline does not.
        restarted = pair.restarted or pair.stamp_ns <= self._last_begun_ns
        self._last_begun_ns = pair.stamp_ns
        if restarted:
            self.log_throttled("stamps went backwards: tracks are reset", key="time_restarts")
            self._reset()
            self._pose.time_was_set_back(pair.stamp_ns)
        frames = (pair.color.msg.header.frame_id, pair.depth.msg.header.frame_id)
        apart = check_registration(p.color_source, frames[0], p.depth_source, frames[1])
        if apart is not None:
            self._bad_frames.log.bad(apart)
        self._await_camera_info(p.tf_timeout_s)
        read = self._reader.read(pair, self._streams.camera_info)
        frame_id = prefixed(p.frame_prefix, p.camera_frame) or frames[0]
        world_T_camera = self._pose.at(frame_id, pair.stamp_ns)
        self._reader.check_depth_unit(read, world_T_camera, pair.stamp_ns)
        started_s = time.monotonic()
        frame = Frame(pair.stamp_ns, read.color, read.depth_m, read.camera, world_T_camera)
        begun = self._pipeline.begin(frame)
        read_frame = _ReadFrame(
            frame,
            frame_id,
            frames[0],
            max(pair.color.at_s, pair.depth.at_s),
            time.monotonic() - started_s,
            self._reader.unit_finding,
        )
        return partial(self._finish_frame, self._pipeline, read_frame, begun)

    def _finish_frame(self, pipeline: Any, read_frame: _ReadFrame, begun: Any) -> None:
        started_s = time.monotonic()
        result: PerceptionResult = pipeline.finish(begun)
        self.diagnostics.latency("pipeline").add(read_frame.begun_in_s + time.monotonic() - started_s)
        for warning in result.warnings:
            self.diagnostics.counter("pipeline_warnings").add(1, str(warning))
        scene = result.scene
        if scene.frame_id != self.params.world:
            scene = replace(scene, frame_id=self.params.world)
        self._perceived.publish_graph(scene)
        self.diagnostics.latency("image to scene graph", warn_s=0.5, advice="a smaller image, or a faster machine").add(
            time.monotonic() - read_frame.arrived_s
        )
        self._output().tick()
        self._bad_frames.log.good()
        self._inspector.look(read_frame.frame, scene, read_frame.frame_id, read_frame.unit_finding)
        for stage, seconds in result.timings_s.items():
            self.diagnostics.latency(f"stage {stage}").add(seconds)
        self.publish_images(read_frame.frame, read_frame.color_frame_id, result)

    def publish_images(self, frame: Frame, frame_id: str, result: PerceptionResult) -> None:
        """Publish the images and markers of a frame; ``frame_id`` of the color image."""
        self._perceived.publish_images(frame, frame_id, result)

    def _await_camera_info(self, timeout_s: float) -> None:
        """Wait for the first camera info, which the first images may overtake, as long as for a transform."""
        deadline_s = time.monotonic() + timeout_s
        while self._streams.camera_info is None and self._worker is not None and time.monotonic() < deadline_s:
            time.sleep(0.005)


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    share_arenas()
    sys.exit(run_node(PerceptionNode))


if __name__ == "__main__":
    main()
