"""Rendered clips played to the perception node in a process of its own, and what it published.

The node runs as on a robot: images, intrinsics and transforms come over Fast DDS, and what is scored is taken from the
messages that it publishes. Only the clock is the clips' (``use_sim_time``, /clock).

Between two clips the node is taken down to "unconfigured" and up again by its lifecycle services. So no track, support,
transform or id of a clip is known in the next one, as after a start of the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from benchmarks.perception.run import FoundMasks
from training.reasoner.rendered_clips import RenderedClip, TrueFrame
from wm_bringup.demo.capture import environment
from wm_bringup.environment import package_file
from wm_bringup.recording.topic_format import stamp_reader
from wm_bringup.run.node_command import node_command
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.run.processes import ProcessGroup, check_nodes
from wm_bringup.sources.playback import DISCOVERY_S, Player
from wm_core.rotations import matrix_to_quaternion, quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_ros import qos
from wm_ros.conversions.basics import (
    quaternion_from_msg,
    transform_from_pose_msg,
    transform_to_pose_msg,
    vector_from_msg,
)
from wm_ros.conversions.scene_graph import scene_graph_from_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import array_to_image, depth_in_meters, depth_to_millimeters, image_to_array, rgb_to_image
from wm_ros.stamps import stamp_to_ns
from wm_ros.transforms import RosTransformBroadcaster, TransformBuffer, transform_to_msg

NAMESPACE = "/wm"
NODE = f"{NAMESPACE}/perception"
GRAPHS, REPORTS, MASKS = (f"{NAMESPACE}/{name}" for name in ("scene_graph", "frame_reports", "instances"))
COLOR, DEPTH, INFO = "/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info"
"""Topics that the node reads by default; the camera's pose is on /tf."""
START_S = 120.0
"""Time [s] that the node has for its start, and for each transition: a busy machine loads models slowly."""
_LAST_S = 20.0
"""Time [s] without any report after which what is left of a clip counts as dropped. The node never passes over the last
frame; only the way may lose it."""
_GAP_NS = 1_000_000_000_000
"""Between the first stamps of two clips [ns], 1000 s: stamps of a run never repeat and never go backwards."""
_FRAME = "camera_color_optical_frame"
_UNPACED = 100.0
"""Speed of the clock in lock-step, the player's largest: the node sets the pace."""
_RESEND_S = 5.0
"""Time [s] without a report after which a frame is sent again in lock-step, as sensor QoS may lose it."""
_MASKS_S = 3.0
"""Time [s] that the last images of object ids may come after their scene graphs; what comes later is not scored."""
_POLL_S = 0.002
"""Time between two looks for a message [s]; each frame may wait this much longer."""
_KEPT = 200
"""Messages that a subscription here may be behind: more than a clip of 4 s at 30 Hz has."""


class LiveError(RuntimeError):
    """The live graph gave no result; the message names the topic or service and what was expected of it."""


@dataclass
class Answers:
    """What the node published for a clip.

    Attributes:
        published: number of frames that were played.
        scenes: scene graph by number of its frame, with the stamps of the clip.
        masks: published object masks by number of the frame, where they were asked for.
        latencies_s: by number of the frame, from before its first message is sent to the arrival of its graph [s].
        refused: reason by number of the frame: those on which the node reported that they give no scene graph.
        seconds: wall-clock time from the first message to the last scene graph.
    """

    published: int
    scenes: dict[int, SceneGraph] = field(default_factory=dict)
    masks: dict[int, FoundMasks] = field(default_factory=dict)
    latencies_s: dict[int, float] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def dropped(self) -> int:
        """Frames without a scene graph: passed over, lost on the way, or refused."""
        return self.published - len(self.scenes)


def as_sent(clip: RenderedClip) -> RenderedClip:
    """The clip with depth and poses as messages have them: in whole millimeters, and by way of quaternions.

    The last bit of a pose can change a pixel's label, and so the shape that is fitted. Perception in this process and
    over the graph get the same bits.
    """

    def sent(frame: TrueFrame) -> TrueFrame:
        depth = depth_in_meters(depth_to_millimeters(frame.depth))
        scene = replace(frame.scene, world_T_camera=pose_as_sent(frame.scene.world_T_camera))
        return replace(frame, depth=depth, scene=scene)

    return replace(clip, frames=tuple(map(sent, clip.frames)))


def pose_as_sent(world_T_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pose (4, 4), or one that differs in late digits, which the node's transforms give back to the bit."""
    pose = np.array(world_T_camera, np.float64)
    quaternion = matrix_to_quaternion(pose[:3, :3])
    # Of nine poses in ten a few conversions find one that stays; of the others last bits go to and fro for ever.
    for digits in range(16, 6, -1):
        pose[:3, :3] = quaternion_to_matrix(np.round(quaternion, digits))
        for _ in range(4):
            before, pose = pose, transform_from_pose_msg(transform_to_pose_msg(pose))
            if np.array_equal(before, pose) and np.array_equal(before, _looked_up(pose)):
                return pose
    return pose


def _looked_up(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pose from a buffer of transforms: it normalizes quaternions once more than a message's conversion does."""
    buffer, sent = TransformBuffer(), transform_to_pose_msg(pose)
    buffer.set("map", _FRAME, 1, vector_from_msg(sent.position), quaternion_from_msg(sent.orientation))
    return buffer.lookup("map", _FRAME, 1)


def shifted(scene: SceneGraph, offset_ns: int) -> SceneGraph:
    """The scene graph with all its stamps later by ``offset_ns`` [ns]."""
    return replace(
        scene,
        stamp_ns=scene.stamp_ns + offset_ns,
        first_seen_ns=scene.first_seen_ns + offset_ns,
        last_seen_ns=scene.last_seen_ns + offset_ns,
        relations=tuple(replace(r, since_ns=r.since_ns + offset_ns) for r in scene.relations),
        events=tuple(replace(e, stamp_ns=e.stamp_ns + offset_ns) for e in scene.events),
    )


def published_masks(ids: NDArray[np.integer[Any]], scene: SceneGraph, height: int) -> FoundMasks:
    """Masks of an image of object ids (H, W), every k-th pixel so that about ``height`` rows are left.

    An object's score is its probability of existence: the node publishes no other.
    """
    step = max(1, ids.shape[0] // height)
    names, labels = np.unique(ids[::step, ::step], return_inverse=True)
    labels = labels.reshape(ids[::step, ::step].shape).astype(np.int32) + (0 if 0 in names else 1)
    known = dict(zip(scene.ids.tolist(), scene.existence_probabilities.tolist(), strict=True))
    scores = np.array([known.get(int(n), 0.0) for n in names if n != 0], np.float32)
    return FoundMasks(labels, scores)


class LiveGraph:
    """The perception node as a process, and this process as its camera and as the subscriber of its results.

    A context manager; one clip after the other is played with ``run``.

    Args:
        parameters: of the node, in addition to those of its own file.
        logs: folder of its log.
        speed: frames are sent at so many times the clip's rate, whether or not the node keeps up; None: each frame is
            sent when the node has reported on the one before, so that none is passed over (lock-step).
        masks: subscribe to the images of object ids, too; they cost the node some milliseconds a frame.

    Raises:
        LiveError: the node did not start, or does not listen.
        wm_bringup.run.processes.ProcessDied: the node ended; its last output is in the message.
        wm_bringup.run.processes.NodeRefused: the node does not accept its parameters.
    """

    def __init__(
        self, parameters: Mapping[str, Any], logs: Path, speed: float | None = None, masks: bool = True
    ) -> None:
        self._parameters, self._logs, self._speed, self._masks = dict(parameters), logs, speed, masks
        self._stack = ExitStack()
        self._processes: Any = None
        self._player: Any = None
        self._transforms: Any = None
        self._change: Any = None
        self._outs: dict[str, Any] = {}
        self._graphs: dict[int, tuple[bytes, float]] = {}
        self._ids: dict[int, bytes] = {}
        self._reports: dict[int, str] = {}
        self._played = 0

    def __enter__(self) -> LiveGraph:
        environ = graph_environment()
        with ExitStack() as stack:
            stack.enter_context(environment(environ))
            self._processes = stack.enter_context(ProcessGroup(self._logs, environ))
            config = package_file("wm_perception", "config", "perception.yaml")
            given = {**self._parameters, "use_sim_time": True}
            self._processes.start("perception", node_command("wm_perception.node", NAMESPACE, given, [config]))
            self._player = stack.enter_context(Player("wm_bench_camera", [], self._speed or _UNPACED))
            self._connect()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, clip: RenderedClip, on_frame: Callable[[int], None] = lambda number: None) -> Answers:
        """Play a clip to a node that knows nothing, and collect what it publishes.

        Args:
            clip: its depth is sent in whole millimeters.
            on_frame: called with the number of each frame, after it was sent and, in lock-step, answered.

        Raises:
            LiveError, ProcessDied: see the class; or no frame of the clip gave a scene graph.
            KeyboardInterrupt: a signal came.
        """
        self._reset()
        offset_ns = (self._played + 1) * _GAP_NS
        self._played += 1
        stamps = {frame.stamp_ns + offset_ns: number for number, frame in enumerate(clip.frames)}
        sent: dict[int, float] = {}
        self._player.restart()
        begin = time.monotonic()
        for number, (stamp_ns, frame) in enumerate(zip(stamps, clip.frames, strict=True)):
            messages = self._messages(clip, frame, stamp_ns)
            if not self._player.wait_until(stamp_ns):
                raise KeyboardInterrupt
            sent[number] = time.monotonic()
            self._send(messages)
            if self._speed is None:
                self._await_report(stamp_ns, messages)
            self._processes.check()
            on_frame(number)
        self._await_rest(stamps)
        return self._answers(clip, stamps, sent, offset_ns, begin)

    # The graph.

    def _connect(self) -> None:
        """Make the publishers, subscriptions and the client, and wait for the node."""
        node = self._player.node
        self._outs = {
            topic: node.create_publisher(kind, topic, qos.SENSOR)
            for topic, kind in ((INFO, CameraInfo), (COLOR, Image), (DEPTH, Image))
        }
        self._transforms = RosTransformBroadcaster(node)
        self._change = node.create_client(ChangeState, f"{NODE}/change_state")
        read_graph, read_ids = stamp_reader(SceneGraphMsg), stamp_reader(Image)

        def on_graph(data: bytes) -> None:
            self._graphs.setdefault(read_graph(data), (data, time.monotonic()))

        def on_ids(data: bytes) -> None:
            self._ids[read_ids(data)] = data

        def on_report(msg: Any) -> None:
            status = msg.status[0]
            reason = "" if status.level == DiagnosticStatus.OK else f"{status.name}: {status.message}"
            self._reports[stamp_to_ns(msg.header.stamp)] = reason

        profile = QoSProfile(
            depth=_KEPT, reliability=qos.SCENE_GRAPH.reliability, durability=qos.SCENE_GRAPH.durability
        )
        node.create_subscription(SceneGraphMsg, GRAPHS, on_graph, profile, raw=True)
        node.create_subscription(DiagnosticArray, REPORTS, on_report, qos.FRAME_REPORTS)
        if self._masks:
            images = QoSProfile(depth=_KEPT, reliability=qos.DERIVED_IMAGE.reliability)
            node.create_subscription(Image, MASKS, on_ids, images, raw=True)
        self._until(self._change.service_is_ready, f"service {NODE}/change_state of the perception node")
        self._until(self._listens, "the perception node to subscribe to " + ", ".join(self._outs))

    def _listens(self) -> bool:
        return all(out.get_subscription_count() for out in self._outs.values())

    def _until(self, condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
        """Wait for a condition while the node runs."""

        def checked() -> bool:
            check_nodes(self._processes)
            return condition()

        if self._player.wait_for(checked, timeout_s):
            return
        if self._player.stopped:
            raise KeyboardInterrupt
        said = self._processes["perception"].tail(5)
        raise LiveError(f"waited {timeout_s:g} s in vain for {what}; perception said last:\n{said}")

    def _transition(self, number: int, name: str) -> None:
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=number)))
        self._until(future.done, f"service {NODE}/change_state to {name} the node")
        if not future.result().success:
            said = self._processes["perception"].tail(5)
            raise LiveError(f"service {NODE}/change_state: {name} failed, expected success; it said last:\n{said}")

    def _reset(self) -> None:
        """A node that knows nothing: by its lifecycle, before every clip but the first."""
        if self._played:
            self._transition(Transition.TRANSITION_DEACTIVATE, "deactivate")
            outs = self._outs.values()
            self._until(lambda: not any(o.get_subscription_count() for o in outs), "the node to let go of the camera")
            self._transition(Transition.TRANSITION_CLEANUP, "clean up")
            self._transition(Transition.TRANSITION_CONFIGURE, "configure")
            self._transition(Transition.TRANSITION_ACTIVATE, "activate")
            self._until(self._listens, "the perception node to subscribe to " + ", ".join(self._outs))
        topics = [GRAPHS, REPORTS, *([MASKS] if self._masks else [])]
        node = self._player.node
        self._until(lambda: all(node.count_publishers(t) for t in topics), "publishers of " + ", ".join(topics))
        if not self._player.sleep(DISCOVERY_S):
            raise KeyboardInterrupt
        for kept in (self._graphs, self._ids, self._reports):
            kept.clear()

    # The camera.

    def _messages(self, clip: RenderedClip, frame: TrueFrame, stamp_ns: int) -> dict[str, Any]:
        """Messages by topic; the transform under the empty name."""
        return {
            "": transform_to_msg("map", _FRAME, stamp_ns, frame.scene.world_T_camera),
            INFO: camera_to_info(clip.camera, stamp_ns, _FRAME),
            COLOR: rgb_to_image(frame.rgb, stamp_ns, _FRAME),
            DEPTH: array_to_image(depth_to_millimeters(frame.depth), "16UC1", stamp_ns, _FRAME),
        }

    def _send(self, messages: Mapping[str, Any]) -> None:
        for topic, message in messages.items():
            if topic:
                self._outs[topic].publish(message)
            else:
                self._transforms.send(message)

    def _await_report(self, stamp_ns: int, messages: Mapping[str, Any]) -> None:
        """Wait for the report on a frame; what was lost on the way, as sensor QoS allows, is sent once more."""
        for _ in range(round(START_S / _RESEND_S)):
            if self._wait(lambda: stamp_ns in self._reports, _RESEND_S):
                return
            self._processes.check()
            self._send(messages)
        said = self._processes["perception"].tail(5)
        raise LiveError(
            f"{REPORTS}: no report within {START_S:g} s on the frame sent on {COLOR}, {DEPTH}, {INFO} and /tf, "
            f"expected one for each; perception said last:\n{said}"
        )

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self._player.sleep(_POLL_S):
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                return False
        return True

    def _await_rest(self, stamps: Mapping[int, int]) -> None:
        """Wait for the report on the last frame, and for the messages that belong to the reports."""
        last = max(stamps)
        while last not in self._reports:
            if not self._wait(partial(self._reported_more_than, len(self._reports)), _LAST_S):
                break
            self._processes.check()
        answered = [s for s, reason in list(self._reports.items()) if s in stamps and not reason]
        self._wait(lambda: all(s in self._graphs for s in answered), _LAST_S)
        if self._masks:
            self._wait(lambda: all(s in self._ids for s in answered), _MASKS_S)

    def _reported_more_than(self, count: int) -> bool:
        return len(self._reports) > count

    def _answers(
        self, clip: RenderedClip, stamps: Mapping[int, int], sent: Mapping[int, float], offset_ns: int, begin: float
    ) -> Answers:

        found = Answers(len(stamps))
        for stamp_ns, number in stamps.items():
            reason = self._reports.get(stamp_ns, "")
            if reason:
                found.refused[number] = reason
            if stamp_ns not in self._graphs:
                continue
            data, arrived = self._graphs[stamp_ns]
            scene = scene_graph_from_msg(deserialize_message(data, SceneGraphMsg))
            found.scenes[number] = shifted(scene, -offset_ns)
            found.latencies_s[number] = arrived - sent[number]
            found.seconds = max(found.seconds, arrived - begin)
            if stamp_ns in self._ids:
                ids = image_to_array(deserialize_message(self._ids[stamp_ns], Image), MASKS, ("mono16",))
                found.masks[number] = published_masks(ids, scene, clip.camera.height // 2)
        if not found.scenes:
            reasons = "; ".join(sorted(set(found.refused.values()))) or "it reported on none"
            raise LiveError(
                f"{GRAPHS}: got no scene graph for the {found.published} frames of clip {clip.plan.name}, expected one "
                f"for each; {REPORTS} says: {reasons}"
            )
        return found
