"""``wm run``: perception and imagination on live topics or a recording, with a live table of what they make of it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wm_bringup.environment import make_console, package_file
from wm_bringup.run.node_command import node_command
from wm_bringup.run.params_file import complaints, full_name, graph_nodes, node_parameters
from wm_bringup.run.processes import Managed, ProcessGroup, check_nodes
from wm_core.frames import prefixed
from wm_perception.parameters import PerceptionParameters

CAMERA_INFO = PerceptionParameters.camera_info_topic
START_S = 180.0
"""The first start on a machine compiles imagination's kernels: 40 s, and longer on a busy one."""
WAITING = {"tf_timeout_s": 2.0}
"""Parameters of perception where a recording waits for it: then it may wait for what is still under way, too."""
_PLAYER_GRACE_S = 1.5
_NOT_REPLAYED = ("/clock", "/diagnostics", "/rosout", "/parameter_events")
_PLAIN_EVERY_S = 5.0
_REDRAW_EVERY_S = 0.25
_KEEP_STAMPS = 600
_RATE_WINDOW = 60


@dataclass
class Latency:
    """Wall-clock seconds between two arrivals of the same stamp, over the last few hundred."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=300))
    _begun: dict[int, float] = field(default_factory=dict)

    def begin(self, stamp_ns: int, now_s: float) -> None:
        """The first of the two came."""
        self._begun[stamp_ns] = now_s
        while len(self._begun) > _KEEP_STAMPS:
            del self._begun[next(iter(self._begun))]

    def end(self, stamp_ns: int, now_s: float) -> None:
        """The second came."""
        begun = self._begun.pop(stamp_ns, None)
        if begun is not None:
            self.seconds.append(now_s - begun)

    def text(self) -> str:
        """Median and 95th percentile, for people."""
        if not self.seconds:
            return "not measured yet"
        median, p95 = np.percentile(self.seconds, [50, 95])
        return f"median {1e3 * median:.0f} ms, 95 % below {1e3 * p95:.0f} ms"


@dataclass
class View:
    """What is shown: the newest scene graph, arrivals, the nodes' diagnostics by name.

    ``ended`` is set when a recording is over: that input ceases is then no news. ``graphs``: scene graphs so far;
    ``most_objects``, ``most_supports``: in one of them.
    """

    scene: Any = None
    graph_times: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    latency: Latency = field(default_factory=Latency)
    statuses: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)
    ended: bool = False
    graphs: int = 0
    most_objects: int = 0
    most_supports: int = 0

    def take(self, scene: Any) -> None:
        """A new scene graph."""
        self.scene = scene
        self.graphs += 1
        supports = int(scene.is_static.sum())
        self.most_supports = max(self.most_supports, supports)
        self.most_objects = max(self.most_objects, len(scene) - supports)

    def graph_rate_hz(self) -> float:
        """Scene graphs per second, lately."""
        times = self.graph_times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def rates(self) -> list[tuple[str, str, str, int]]:
        """(name, rate, age, level) of what the nodes measure rates of."""
        return [
            (name, f"{float(values['rate_hz']):.1f}", f"{float(values['age_s']):.2f}", level)
            for name, (level, _, values) in sorted(self.statuses.items())
            if "rate_hz" in values and "age_s" in values and float(values.get("total", "1")) > 0
        ]

    def complaints(self) -> list[tuple[str, str, int]]:
        """(name, message, level) of what is not in order."""
        return [(name, text, level) for name, (level, text, _) in sorted(self.statuses.items()) if level > 0]

    def line(self) -> str:
        """One line, for a log."""
        count = len(self.scene) if self.scene is not None else 0
        moving = 0
        if count:
            moving = int((np.linalg.norm(self.scene.linear_velocities, axis=1) > 0.02).sum())
        text = f"{count} objects ({moving} moving), {self.graph_rate_hz():.1f} graphs/s, latency {self.latency.text()}"
        worst = max(self.complaints(), key=lambda c: c[2], default=None)
        return f"{text}; {worst[0]}: {worst[1]}" if worst else text

    def render(self) -> Any:
        """The tables as a rich renderable."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        parts: list[Any] = []
        topics = Table(box=None, pad_edge=False)
        for heading in ("stream", "rate [Hz]", "age [s]"):
            topics.add_column(escape(heading), justify="left" if heading == "stream" else "right")
        for name, rate, age, level in self.rates():
            style = "red" if level > 1 else "yellow" if level else ""
            topics.add_row(escape(name), rate, age, style=style)
        parts.append(topics)
        scene = self.scene
        if scene is not None:
            objects = Table(box=None, pad_edge=False)
            for heading in ("id", "class", "x y z [m]", "speed [m/s]", "size [m]", "seen", "sure"):
                objects.add_column(escape(heading), justify="left" if heading == "class" else "right")
            for i in range(len(scene)):
                objects.add_row(
                    str(scene.ids[i]),
                    escape(scene.class_names[i]),
                    " ".join(f"{v:+.3f}" for v in scene.positions[i]),
                    "static" if scene.is_static[i] else f"{np.linalg.norm(scene.linear_velocities[i]):.2f}",
                    " ".join(f"{v:.2f}" for v in scene.extents[i]),
                    f"{scene.visibilities[i]:.0%}",
                    f"{scene.existence_probabilities[i]:.0%}",
                )
            parts += [Text(), objects]
        parts += [Text(), Text(f"camera to scene graph: {self.latency.text()}; {self.graph_rate_hz():.1f} graphs/s")]
        parts += [
            Text(f"{name}: {text}", style="red" if level > 1 else "yellow") for name, text, level in self.complaints()
        ]
        return Group(*parts)


def _subscribe(node: Any, view: View, camera_info: str, namespace: str) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import CameraInfo
    from wm_msgs.msg import SceneGraph

    from wm_ros import qos
    from wm_ros.conversions.scene_graph import scene_graph_from_msg
    from wm_ros.stamps import stamp_to_ns

    def on_info(msg: Any) -> None:
        view.latency.begin(stamp_to_ns(msg.header.stamp), time.monotonic())

    def on_graph(msg: Any) -> None:
        now = time.monotonic()
        view.latency.end(stamp_to_ns(msg.header.stamp), now)
        view.graph_times.append(now)
        view.take(scene_graph_from_msg(msg))

    def on_diagnostics(msg: Any) -> None:
        for status in msg.status:
            if status.hardware_id == "wm" and not view.ended:
                level = int.from_bytes(status.level, "little") if isinstance(status.level, bytes) else int(status.level)
                view.statuses[status.name] = (level, status.message, {v.key: v.value for v in status.values})

    node.create_subscription(CameraInfo, camera_info, on_info, qos.SENSOR)
    node.create_subscription(SceneGraph, f"{namespace}/scene_graph", on_graph, qos.SCENE_GRAPH)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.DIAGNOSTICS)


def remap_table(remaps: Sequence[str]) -> dict[str, str]:
    """{"/a": "/b"} of ["/a:=/b"].

    Raises:
        ValueError: another form.
    """
    table = {}
    for rule in remaps:
        old, separator, new = rule.partition(":=")
        if not (separator and old and new):
            raise ValueError(f"--remap: got {rule!r}, expected /OLD:=/NEW, e.g. {CAMERA_INFO}:=/my/camera_info")
        table[old] = new
    return table


@dataclass(frozen=True)
class PerceptionInputs:
    """What perception reads, by its parameters files and remaps; names as on the graph, frames with their prefix.

    ``camera_frame``: empty: that of the images. ``tf_timeout_s``: None: not said, so the node's default.
    """

    color: str = PerceptionParameters.color_topic
    depth: str = PerceptionParameters.depth_topic
    camera_info: str = CAMERA_INFO
    world_frame: str = PerceptionParameters.world_frame
    pose_source: str = PerceptionParameters.pose_source
    max_stamp_difference_s: float = PerceptionParameters.max_stamp_difference_s
    tf_timeout_s: float | None = None
    camera_frame: str = PerceptionParameters.camera_frame


def perception_inputs(
    params_files: Sequence[Path], remaps: Mapping[str, str], namespace: str = "/wm"
) -> PerceptionInputs:
    """The topics that perception reads, by its parameters files and remaps, and how it takes them.

    Raises:
        ValueError: a file that is no parameters file.
    """
    given = node_parameters(params_files, full_name(namespace, "perception"))
    usual = PerceptionInputs()
    prefix = str(given.get("frame_prefix", ""))

    def image(name: str, topic: str) -> str:
        transport = given.get(f"{name}_transport", "raw")
        topic = str(given.get(f"{name}_topic", topic)) + ("" if transport == "raw" else f"/{transport}")
        return remaps.get(topic, topic)

    info = str(given.get("camera_info_topic", usual.camera_info))
    return PerceptionInputs(
        image("color", usual.color),
        image("depth", usual.depth),
        remaps.get(info, info),
        prefixed(prefix, str(given.get("world_frame", usual.world_frame))),
        str(given.get("pose_source", usual.pose_source)),
        float(given.get("max_stamp_difference_s", usual.max_stamp_difference_s)),
        given.get("tf_timeout_s"),
        prefixed(prefix, str(given.get("camera_frame", usual.camera_frame))),
    )


def camera_info_topic(params_files: Sequence[Path], remaps: Mapping[str, str]) -> str:
    """The topic that perception reads intrinsics from. Raises as ``perception_inputs``."""
    return perception_inputs(params_files, remaps).camera_info


def unread_names(params_files: Sequence[Path], namespace: str = "/wm") -> list[str]:
    """A line for each name in parameters files that no node reads; those of nodes that only a launch file starts pass.

    Raises:
        ValueError: a file that is no parameters file.
    """
    nodes = graph_nodes(namespace)
    return [line for file in params_files for line in complaints(file, nodes)]


def start_nodes(
    processes: ProcessGroup,
    *,
    namespace: str = "/wm",
    remaps: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    params_files: Sequence[Path] = (),
    perception: Mapping[str, Any] | None = None,
) -> None:
    """Start perception and imagination with their default parameters, then ``params_files``, then ``parameters``.

    ``perception``: parameters of that node alone, e.g. of ``model_parameters``.
    """
    for name in ("perception", "imagination"):
        files = [package_file(f"wm_{name}", "config", f"{name}.yaml"), *params_files]
        given = {**(parameters or {}), **((perception or {}) if name == "perception" else {})}
        processes.start(name, node_command(f"wm_{name}.node", namespace, given, files, remaps or {}))


def model_parameters(
    segmenter: str = "", segmenter_model: Path | None = None, reasoner: str = "", reasoner_model: Path | None = None
) -> dict[str, str]:
    """Parameters of perception for the models that were asked for; nothing for those that were not.

    Raises:
        FileNotFoundError: a model's file is not there.
    """
    given: dict[str, str] = {}
    for name, kind, path in (("segmenter", segmenter, segmenter_model), ("reasoner", reasoner, reasoner_model)):
        if kind:
            given[f"pipeline.{name}"] = kind
        if path is not None:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not a file")
            given[f"pipeline.{name}_model"] = str(path.resolve())
    return given


def replayed_topics(names: Sequence[str], namespace: str) -> list[str]:
    """Those of a recording's topics that are input: not what the nodes themselves will say again."""
    own = f"/{namespace.strip('/')}/"
    return [name for name in names if name not in _NOT_REPLAYED and not name.startswith(own)]


@dataclass(frozen=True)
class Playing:
    """How a recording is played.

    Attributes:
        rate: times as fast as recorded, where perception keeps up.
        lock_step: each frame is waited for until perception has reported on it; else the recording runs away from it.
        register, level: auto, on or off: color onto depth, the world z-up (see ``sources.recording``).
    """

    rate: float = 1.0
    lock_step: bool = True
    register: str = "auto"
    level: str = "auto"

    def __post_init__(self) -> None:
        for name in ("register", "level"):
            if getattr(self, name) not in ("auto", "on", "off"):
                raise ValueError(f"--{name}: got {getattr(self, name)!r}, expected auto, on or off")


def player_command(
    rgbd: Path | None,
    bag: Path | None,
    playing: Playing,
    remaps: Sequence[str],
    namespace: str,
    inputs: PerceptionInputs | None = None,
    subscribers: int = 1,
) -> list[str] | None:
    """Command line of the player of a recording; None where there is none.

    ``subscribers``: so many nodes hear the camera when all are there.

    Raises:
        ValueError: a recording that cannot be read, or that holds nothing to play.
    """
    inputs = inputs or PerceptionInputs()
    words = ["--speed", f"{playing.rate:g}", "--level", playing.level]
    words += ["--color-topic", inputs.color, "--depth-topic", inputs.depth, "--camera-info-topic", inputs.camera_info]
    words += ["--world-frame", inputs.world_frame]
    if playing.lock_step:
        words += [
            "--lock-step",
            namespace,
            "--subscribers",
            str(subscribers),
            "--max-stamp-difference",
            f"{inputs.max_stamp_difference_s:g}",
        ]
    if rgbd is not None:
        words += ["--register", playing.register]
        words += ["--camera-frame", inputs.camera_frame] if inputs.camera_frame else []
        return node_command("wm_bringup.sources.rgbd_folder", arguments=[str(rgbd), *words])
    if bag is None:
        return None
    from wm_bringup.sources.bag import Bag
    from wm_bringup.sources.playback import SourceError

    try:
        with Bag(bag) as opened:
            topics = replayed_topics([topic.name for topic in opened.choose([])], namespace)
    except SourceError as error:
        raise ValueError(str(error)) from error
    if not topics:
        raise ValueError(f"{bag} has no topic that the nodes read")
    if playing.lock_step and inputs.pose_source == "tf":
        words += ["--still-camera"]
    rules = [word for rule in remaps for word in ("--remap", rule)]
    return node_command("wm_bringup.sources.bag_player", arguments=[str(bag), *words, *rules, "--topics", *topics])


def player_notes(player: Managed) -> list[str]:
    """What a player said that it assumed or changed, and warned of."""
    lines = player.log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith(("note: ", "warning: "))]


def run(
    *,
    rgbd: Path | None = None,
    bag: Path | None = None,
    remaps: Sequence[str] = (),
    out: Path | None = None,
    playing: Playing | None = None,
    imagine: bool = False,
    duration_s: float = 0.0,
    params_files: Sequence[Path] = (),
    perception: Mapping[str, Any] | None = None,
    namespace: str = "/wm",
) -> int:
    """Run until the recording ends, ``duration_s`` have passed (0: no limit), or Ctrl-C; returns the exit status.

    Args:
        rgbd, bag: the recording; neither: live topics of this domain.
        remaps: "/A:=/B". Live topics: the nodes read B in place of A. A bag: its topic A is played as B.
        out: folder for the logs and an MCAP recording; None: nothing is kept.
        playing: how the recording is played.
        imagine: ask what would happen, at the end.
        params_files: of the nodes.
        perception: further parameters of perception.
        namespace: of the nodes.

    Raises:
        ProcessDied: a node or the player ended.
        NodeRefused: a node does not accept its parameters, e.g. a model of perception.
        FileNotFoundError: no such recording or parameters file.
        ValueError: a remap of another form, or a recording that cannot be read.
    """
    from rich.markup import escape

    from wm_bringup.recording.empty_result import empty_text

    table = remap_table(remaps)
    for path in (rgbd, bag, *params_files):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path} is not there")
    if rgbd is not None and not rgbd.is_dir():
        raise FileNotFoundError(f"{rgbd} is no folder")
    console = make_console()
    if rgbd is not None and remaps:
        raise ValueError("--remap: got one with --rgbd, whose topics have the names that the nodes read already")
    table = {} if bag is not None else table
    for line in unread_names(params_files, namespace):
        print(f"warning: {line}", file=sys.stderr)
    playing = playing or Playing()
    inputs = perception_inputs(params_files, table, namespace)
    # Perception, imagination and the recorder: what they miss of a short recording does not come again.
    player = player_command(rgbd, bag, playing, remaps, namespace, inputs, 2 if out is None else 3)
    waits = player is not None and playing.lock_step and inputs.tf_timeout_s is None
    logs = out / "logs" if out is not None else Path(tempfile.mkdtemp(prefix="wm-run-"))
    view = View()
    answer = None
    kept = out is not None
    try:
        with ProcessGroup(logs) as processes, _Watcher(view, inputs.camera_info, namespace) as watcher:
            try:
                if out is not None:
                    command = node_command(
                        "wm_bringup.recording.recorder",
                        arguments=["--out", str(out / "run.mcap"), "--latency-from", inputs.camera_info],
                    )
                    processes.start("recorder", command)
                # Simulated time only where somebody publishes /clock: a player does.
                parameters = {"use_sim_time": True} if player is not None else {}
                start_nodes(
                    processes,
                    namespace=namespace,
                    remaps=table,
                    parameters=parameters,
                    params_files=params_files,
                    perception={**(WAITING if waits else {}), **(perception or {})},
                )
                _wait_for_nodes(processes, watcher, console)
                if player is not None:
                    processes.start("player", player, may_end=True)
                deadline = time.monotonic() + duration_s if duration_s > 0 else float("inf")
                with _Display(view, console) as display:
                    while time.monotonic() < deadline:
                        watcher.spin(0.05)
                        processes.check()
                        display.update()
                        if player is not None and not processes["player"].alive:
                            view.ended = True
                            deadline = min(deadline, time.monotonic() + _PLAYER_GRACE_S)
                if player is not None:
                    for note in player_notes(processes["player"]):
                        console.print(escape(note))
                if imagine:
                    answer = _imagine(namespace)
            except KeyboardInterrupt:
                console.print("stopping")
            except BaseException:
                kept = True  # the message names a log
                raise
    finally:
        if not kept:
            shutil.rmtree(logs, ignore_errors=True)
    if answer is not None:
        from wm_bringup.imagine_cli import print_answer

        print_answer(answer, console)
    if out is not None:
        console.print(f"kept in {out}: run.mcap, latency.json, logs/")
    if player is not None and view.graphs and not view.most_objects:
        print(f"error: {bag or rgbd}: {empty_text(view.graphs, view.most_supports)}", file=sys.stderr)
        return 1
    if view.scene is None and (player is not None or duration_s > 0):
        print(f"error: no scene graph came; run: wm doctor{f'; logs: {logs}' if kept else ''}", file=sys.stderr)
        return 1
    return 0


def _imagine(namespace: str) -> Any:
    from wm_bringup.imagine_cli import AskError, imagine

    try:
        return imagine(None, namespace=namespace)
    except AskError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


class _Display:
    """Shows a view: tables that stay in place on a terminal; into a file a line now and then, the tables at the end."""

    def __init__(self, view: View, console: Any) -> None:
        from rich.live import Live

        self._view, self._console = view, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._shown = time.monotonic()

    def __enter__(self) -> _Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._console.print(self._view.render())

    def update(self) -> None:
        """Show what is new, if it is time to."""
        now = time.monotonic()
        if self._live is not None and now - self._shown > _REDRAW_EVERY_S:
            self._live.update(self._view.render(), refresh=True)
        elif self._live is None and now - self._shown > _PLAIN_EVERY_S:
            print(self._view.line(), flush=True)
        else:
            return
        self._shown = now


class _Watcher:
    """A node of this process that fills a view."""

    def __init__(self, view: View, camera_info: str, namespace: str) -> None:
        self._view, self._camera_info, self._namespace = view, camera_info, f"/{namespace.strip('/')}"

    def __enter__(self) -> _Watcher:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.signals import SignalHandlerOptions

        self._rclpy, self._context = rclpy, rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("wm_run", context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        _subscribe(self.node, self._view, self._camera_info, self._namespace)
        return self

    def __exit__(self, *details: Any) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._rclpy.try_shutdown(context=self._context)

    def spin(self, seconds: float) -> None:
        """Take what comes for this long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def active(self, names: Sequence[str]) -> bool:
        """Whether nodes of these names have said that they are active."""
        # As wm_ros.nodes.lifecycle.diagnostics_name has it.
        space = self._namespace.strip("/")
        full = [name if space == "wm" else f"{space}/{name}" for name in names]
        states = [self._view.statuses.get(f"{name}: state", (0, "", {}))[1] for name in full]
        return all(state == "active" for state in states)


def _wait_for_nodes(processes: ProcessGroup, watcher: _Watcher, console: Any) -> None:
    """Until both nodes are active, so that a recording is not played to nobody."""
    deadline = time.monotonic() + START_S
    with console.status("starting perception and imagination"):
        while not watcher.active(("perception", "imagination")):
            watcher.spin(0.05)
            check_nodes(processes)
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"perception and imagination are not active after {START_S:g} s (ROS_DOMAIN_ID "
                    f"{os.environ.get('ROS_DOMAIN_ID', '0')}); logs: {processes.log_folder}"
                )
