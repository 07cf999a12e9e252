"""``wm run``: perception and imagination on live topics or a recording, with a live table of what they make of it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_bringup.environment import make_console
from wm_bringup.run.inputs import perception_inputs, remap_table, unread_names
from wm_bringup.run.node_command import node_command
from wm_bringup.run.nodes import START_S, start_nodes
from wm_bringup.run.players import WAITING, Playing, player_command, player_notes
from wm_bringup.run.processes import ProcessGroup, check_nodes
from wm_bringup.run.view import View

_PLAYER_GRACE_S = 1.5
_PLAIN_EVERY_S = 5.0
_REDRAW_EVERY_S = 0.25


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
        view.add(scene_graph_from_msg(msg))

    def on_diagnostics(msg: Any) -> None:
        for status in msg.status:
            if status.hardware_id == "wm" and not view.ended:
                level = int.from_bytes(status.level, "little") if isinstance(status.level, bytes) else int(status.level)
                view.statuses[status.name] = (level, status.message, {v.key: v.value for v in status.values})

    node.create_subscription(CameraInfo, camera_info, on_info, qos.SENSOR)
    node.create_subscription(SceneGraph, f"{namespace}/scene_graph", on_graph, qos.SCENE_GRAPH)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.DIAGNOSTICS)


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
        imagine: also imagine a few futures, at the end.
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
    from wm_bringup.imagine_cli import ImagineError, imagine

    try:
        return imagine(None, namespace=namespace)
    except ImagineError as error:
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
        """Handle incoming messages for so long [s]."""
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
