"""What the system tests share: nodes as processes, and a node of this process that asks them things."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from conftest import NodeProcess
from wm_bringup.run.node_command import node_command
from wm_bringup.run.private_graph import graph_environment
from wm_ros import qos

FAST = {
    # What loads in no time: the tests here are about processes, not about what the nodes know.
    "perception": {"pipeline.segmenter": "geometric", "pipeline.reasoner": "geometric"},
    "imagination": {"backend": "straight"},
    "sim_camera_node": {"wait_for_subscriber": True, "width": 160, "height": 120, "rate_hz": 10.0},
}
MODULES = {
    "perception": "wm_perception.node",
    "imagination": "wm_imagination.node",
    "sim_camera_node": "wm_sim.node",
    "lifecycle_manager": "wm_bringup.run.lifecycle_manager",
    "container": "wm_bringup.run.container",
}


class Asker:
    """A node in this process, spun by a thread of its own; ``domain`` None: the domain of the tests."""

    def __init__(self, name: str = "asker", domain: int | None = None) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(name, context=self.context)
        self.diagnostics: dict[str, Any] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self._clients: dict[tuple[Any, str], Any] = {}
        self._closing = False
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing:
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self.diagnostics[status.name] = status

    def call(self, kind: Any, name: str, request: Any = None, timeout_s: float = 30.0, resend_s: float = 4.0) -> Any:
        """The answer of a service; fails where it does not come in time.

        Asked again every ``resend_s``: a server that has not yet discovered the client loses its first answer, which
        the middleware says with "client will not receive response".
        """
        client = self._clients.get((kind, name))
        if client is None:
            client = self._clients[kind, name] = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_s), f"no service {name}"
        answered = threading.Event()
        futures: list[Any] = []
        deadline = time.monotonic() + timeout_s
        while not answered.is_set() and time.monotonic() < deadline:
            futures.append(client.call_async(request if request is not None else kind.Request()))
            futures[-1].add_done_callback(lambda _: answered.set())
            answered.wait(min(resend_s, max(deadline - time.monotonic(), 0.0)))
        done = [future for future in futures if future.done()]
        for future in futures:
            client.remove_pending_request(future)
        assert done, f"{name} does not answer"
        return done[0].result()

    def listen(self, kind: Any, topic: str, profile: Any) -> list[Any]:
        """A list that grows by what comes on a topic."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, profile)
        return heard

    def close(self) -> None:
        """End the node."""
        self._closing = True
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


class Processes:
    """Nodes as processes, by name."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, {**environment, "PYTHONUNBUFFERED": "1"}
        self.by_name: dict[str, NodeProcess] = {}
        self.ended: list[NodeProcess] = []

    def start(
        self, node: str, key: str = "", namespace: str = "", files: Sequence[Path] = (), **parameters: Any
    ) -> NodeProcess:
        """A node of ``MODULES``; ``a__b`` stands for the parameter a.b. ``key``: its name here."""
        key = key or node
        if key in self.by_name:
            self.ended.append(self.by_name[key])
        given = FAST.get(node, {}) | {name.replace("__", "."): value for name, value in parameters.items()}
        command = node_command(MODULES[node], namespace, given, files)
        log = self.folder / f"{len(self.ended)}-{key}.log"
        process = NodeProcess(command, log, self.environment)
        self.by_name[key] = process
        return process

    def __getitem__(self, key: str) -> NodeProcess:
        return self.by_name[key]

    def stop(self) -> None:
        """All of them; their output goes into the report of a test that fails."""
        for key, process in self.by_name.items():
            process.stop()
            print(f"--- {key} (exit status {process.process.returncode})\n{process.output[-4000:]}", file=sys.stderr)
        for process in self.ended:
            process.stop()


@contextmanager
def live(folder: Path) -> Iterator[tuple[Processes, Asker]]:
    """Processes and somebody who asks them, in a domain of their own; all end with the block."""
    environment = graph_environment()
    processes, asker = Processes(folder, environment), Asker(domain=int(environment["ROS_DOMAIN_ID"]))
    try:
        yield processes, asker
    finally:
        asker.close()
        processes.stop()


def marked(mark: str) -> list[int]:
    """Processes that have WM_TEST_MARK=``mark`` in their environment: a program and all that it started."""
    wanted = f"WM_TEST_MARK={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                found += [] if zombie else [int(entry.name)]
        except OSError:
            continue
    return found


def has_loaded(process: NodeProcess, library: str) -> bool:
    """Whether a shared library of this name is in its memory: how far it has come with starting."""
    try:
        return library in Path(f"/proc/{process.process.pid}/maps").read_text()
    except OSError:
        return False


def eventually(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(0.05)
    return value
