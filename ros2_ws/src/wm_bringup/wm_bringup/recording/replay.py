"""``wm replay``: a recording through the perception node in lock-step: the same recording gives the same graphs.

The node is the one that runs on a robot, ``wm_perception.node.PerceptionNode``, with its own callbacks, pairing,
transform buffer, checks and worker; but it is not spun. Its subscriptions are calls out of this process, made in the
order of the recording, and after each the worker is waited for; its publishers write into a file. So what is processed
depends on the recording alone: nothing passes through the middleware, no image is passed over, and no clock is asked.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rich.markup import escape
from tf2_msgs.msg import TFMessage

from wm_bringup.environment import make_console, package_file
from wm_bringup.recording.empty_result import empty_text
from wm_bringup.recording.graph_file import GraphFile, ReplayError, file_sha256, type_name
from wm_bringup.recording.replay_node import ReplayNode
from wm_bringup.run.node_command import ros_arguments
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.sources.bag import Bag, parse_remap
from wm_bringup.sources.bag_camera import Inputs, still_camera
from wm_bringup.sources.lockstep import LEAD_S, images_behind
from wm_bringup.sources.playback import SourceError
from wm_core.frames import prefixed
from wm_perception.types import Frame, PerceptionConfig
from wm_ros.stamps import NANOSECONDS, seconds_to_ns, stamp_to_ns

GRAPHS_FILE = "scene_graphs.mcap"
SUMMARY_FILE = "replay.json"
_FRAME_S = 300.0
"""A frame that takes longer hangs."""
_VERSIONED = ("wm_perception", "numpy", "scipy", "cv2", "onnxruntime")


@dataclass
class Replay:
    """What came of a replay.

    Attributes:
        frames: pairs of color and depth images that perception took up.
        graphs: of which gave a scene graph; refused: the others by reason; reasons: in words.
        objects: most objects in one graph that are no supports; supports: likewise.
        sha256: of the file of scene graphs.
        seconds: wall clock that it took, start-up left out.
        notes: what was assumed, or is wrong with the recording.
    """

    frames: int = 0
    graphs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    objects: int = 0
    supports: int = 0
    sha256: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def replay(
    path: Path,
    out: Path,
    *,
    rate: float = 0.0,
    remaps: Sequence[str] = (),
    params_files: Sequence[Path] = (),
    perception: Mapping[str, Any] | None = None,
    overlay: bool = False,
    level: str = "auto",
    namespace: str = "/wm",
    progress: Callable[[float, float, str], None] = lambda position_s, total_s, detail: None,
) -> Replay:
    """Put a bag through perception, frame by frame; writes ``scene_graphs.mcap`` and ``replay.json`` into ``out``.

    Args:
        path: MCAP file or rosbag2 folder.
        out: folder, made where it is not there.
        rate: 1: as fast as it was recorded, where perception keeps up; 0: as fast as it goes.
        remaps: "/A:=/B": the bag's topic A is read as B.
        params_files: of the node, after its own.
        perception: further parameters of the node.
        overlay: also write the overlay images.
        level: where gravity comes from in a bag without the camera's pose, see ``bag_camera``.
        namespace: of the topics in the file.
        progress: called with position [s], duration [s] and a word on the state.

    Raises:
        SourceError: the bag cannot be read, or lacks a topic that perception reads.
        ReplayError: perception refuses its parameters, or made no scene graph.
    """
    table = parse_remap(remaps)
    with Bag(path) as bag:
        bag.choose(list(table))
        out.mkdir(parents=True, exist_ok=True)
        result = Replay()
        writing = GraphFile(out / GRAPHS_FILE)
        prefix = f"/{namespace.strip('/')}"

        def take(topic: str) -> Callable[[Any], None]:
            return lambda message: writing.write(f"{prefix}/{topic}", message, stamp_to_ns(message.header.stamp))

        def take_graph(message: Any) -> None:
            result.graphs += 1
            supports = sum(o.is_static for o in message.objects)
            result.supports = max(result.supports, supports)
            result.objects = max(result.objects, len(message.objects) - supports)
            writing.write(f"{prefix}/scene_graph", message, stamp_to_ns(message.header.stamp))

        def take_report(message: DiagnosticArray) -> None:
            result.frames += 1
            status = message.status[0]
            if status.level != DiagnosticStatus.OK:
                result.refused[status.name] += 1
                result.reasons[status.name] = status.message
            writing.write(f"{prefix}/frame_reports", message, stamp_to_ns(message.header.stamp))

        outputs: dict[str, Callable[[Any], None]] = {"scene_graph": take_graph, "frame_reports": take_report}
        if overlay:
            outputs["overlay"] = take("overlay")
        try:
            files = [package_file("wm_perception", "config", "perception.yaml"), *params_files]
            # Nothing comes while a frame is worked on, so that waiting for its transform would only take time.
            given = {"tf_timeout_s": 0.0, **(perception or {})}
            with _running(ros_arguments(namespace, given, files), outputs) as node:
                begin = time.monotonic()
                _give(node, bag, table, rate, level, progress, result, writing)
                result.seconds = time.monotonic() - begin
                models, frame, config = node.models(), node.last_frame, node.params.pipeline
        finally:
            writing.close()
        writing.check()
        result.sha256 = file_sha256(out / GRAPHS_FILE)
        _summarize(out / SUMMARY_FILE, bag, result, {"parameters": given, "models": models})
    _check(path, result, frame, config)
    return result


@contextmanager
def _running(arguments: Sequence[str], outputs: Mapping[str, Callable[[Any], None]]) -> Iterator[ReplayNode]:
    """The node, active. Raises ReplayError where it refuses its parameters."""
    context = rclpy.Context()
    # A domain that nobody is in: its services and its diagnostics are nobody's business.
    domain = int(graph_environment()["ROS_DOMAIN_ID"])
    rclpy.init(context=context, args=list(arguments), domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        try:
            node = ReplayNode(outputs, context=context)
            node.get_logger().set_level(LoggingSeverity.WARN)  # what runs is said in the summary
        except (ValueError, OSError) as error:
            raise ReplayError(f"perception: {error}") from error
        for trigger in (node.trigger_configure, node.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise ReplayError(f"perception refused its configuration: {node.refusal}")
        yield node
    finally:
        if node is not None:
            node.deactivate()
            node.destroy_node()
        rclpy.try_shutdown(context=context)


def _give(
    node: ReplayNode,
    bag: Bag,
    table: Mapping[str, str],
    rate: float,
    level: str,
    progress: Callable[[float, float, str], None],
    result: Replay,
    writing: GraphFile,
) -> None:
    p = node.params
    images = (p.color_source, p.depth_source)
    recorded: dict[str, list[str]] = {}
    for name in bag.topics:
        recorded.setdefault(table.get(name, name), []).append(name)
    for what, topic in (("color", images[0]), ("depth", images[1]), ("camera info", p.camera_info_topic)):
        if topic not in recorded:
            listed = ", ".join(f"{t.name} ({t.type})" for t in bag.choose([])) or "nothing"
            raise SourceError(
                f"{bag.path}: no {what} on {topic}; it has {listed}; read another topic as this one with "
                f"--remap /ITS_NAME:={topic}"
            )
    inputs: dict[str, tuple[Any, list[Callable[[Any], None]]]] = {}
    for topic, (kind, callbacks) in node.inputs.items():
        for name in recorded.get(topic, ()):
            expected = type_name(kind)
            if bag.topics[name].type != expected:
                raise SourceError(f"{bag.path}: topic {name} is of type {bag.topics[name].type}, expected {expected}")
            inputs[name] = (kind, callbacks)
    if p.pose_source == "tf":
        found = still_camera(
            bag,
            Inputs(
                recorded[images[0]][0],
                recorded[images[1]][0],
                recorded[p.camera_info_topic][0],
                p.color_transport != "raw",
                p.depth_transport != "raw",
                p.world,
                prefixed(p.frame_prefix, p.camera_frame),
                seconds_to_ns(p.max_stamp_difference_s),
                p.resize_depth,
                p.rectify,
                p.depth_scale,
                p.depth_scale_guess,
            ),
            level,
            table,
        )
        if found is not None:
            result.notes.append(found.note)
            for callback in node.inputs["/tf_static"][1]:
                callback(TFMessage(transforms=[found.transform]))
    result.notes += bag.warnings
    held = {name for topic in images for name in recorded[topic]}
    start_ns, total_s = bag.start_ns, bag.duration_s
    begin = time.monotonic()
    for name, time_ns, data in images_behind(bag.messages(list(inputs)), held, seconds_to_ns(LEAD_S)):
        kind, callbacks = inputs[name]
        position_s = (time_ns - start_ns) / NANOSECONDS
        if rate > 0.0 and name in held:
            time.sleep(max(position_s / rate - (time.monotonic() - begin), 0.0))
        message = deserialize_message(data, kind)
        for callback in callbacks:
            callback(message)
        if name in held:
            if not node.wait_until_idle(_FRAME_S):
                raise ReplayError(f"perception still works on the frame of {position_s:.2f} s after {_FRAME_S:g} s")
            writing.check()
            progress(position_s, total_s, f"{result.graphs} scene graphs of {result.frames} frames")


def _check(path: Path, result: Replay, frame: Frame | None, config: PerceptionConfig) -> None:
    """Raises ReplayError for a replay without a scene graph, or with nothing in any of them."""
    refused = "; ".join(f"{n} refused, {name}: {result.reasons[name]}" for name, n in result.refused.items())
    if not result.frames:
        raise ReplayError(f"{path}: no pair of color and depth images: no scene graph")
    if not result.graphs:
        raise ReplayError(f"{path}: {result.frames} frames and no scene graph; {refused}")
    if not result.objects:
        raise ReplayError(f"{path}: {empty_text(result.graphs, result.supports, frame, config)}")


def _summarize(path: Path, bag: Bag, result: Replay, given: Mapping[str, Any]) -> None:
    """What was replayed with what, in JSON: nothing that differs between two runs of the same."""
    from importlib import import_module

    recording = {"path": str(bag.path), "topics": {t.name: t.count for t in bag.choose([])}, "warnings": bag.warnings}
    if bag.path.is_file():
        recording["sha256"] = file_sha256(bag.path)
    versions = {name: getattr(import_module(name), "__version__", "") for name in _VERSIONED}
    facts = {
        "recording": recording,
        "notes": result.notes,
        "frames": result.frames,
        "scene_graphs": result.graphs,
        "refused": {n: {"frames": c, "reason": result.reasons[n]} for n, c in sorted(result.refused.items())},
        "scene_graphs_sha256": result.sha256,
        **given,
        "machine": {"processor": platform.machine(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **versions},
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")


def run(path: Path, out: Path, **options: Any) -> int:
    """``replay`` from the command line: the exit status."""
    console = make_console()
    status = _Status(console)
    try:
        result = replay(path, out, progress=status.show, **options)
    except (SourceError, ReplayError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    refused = "".join(f"; {n} refused, {name}: {result.reasons[name]}" for name, n in result.refused.items())
    speed = f"{result.frames / result.seconds:.1f} frames/s" if result.seconds > 0.0 else ""
    console.print(escape(f"{result.frames} frames, {result.graphs} scene graphs, {speed}{refused}"))
    console.print(f"at most {result.objects} objects and {result.supports} supports in one graph")
    console.print(escape(f"sha256 {result.sha256}  {out / GRAPHS_FILE}"), soft_wrap=True)
    return 0


class _Status:
    """How far a replay is: a line in place on a terminal, else one every five seconds."""

    def __init__(self, console: Any) -> None:
        self._terminal, self._shown = console.is_terminal, time.monotonic()

    def show(self, position_s: float, total_s: float, detail: str) -> None:
        """Position and duration [s], and a word on the state."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self._terminal else 5.0):
            return
        self._shown = now
        end = "\r" if self._terminal else "\n"
        print(f"{position_s:.1f} of {total_s:.1f} s, {detail}", end=end, file=sys.stderr, flush=True)
