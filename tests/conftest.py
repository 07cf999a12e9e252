"""What the tests share: recorded data, a private ROS domain, nodes as processes, waiting for a condition."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytest.register_assert_rewrite("gpu_machine")  # fixtures that some test modules load as a plugin

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("wm_msgs") is None:
        pytest.exit("the workspace is not in this environment; run: make test   (or: source tools/env.sh)", 4)
    # Nobody else's nodes in our tests, and ours in nobody else's. 1 to 101 are free of Linux's ephemeral ports.
    # Set here, before any test module can import rclpy; the nodes that tests start inherit it.
    os.environ["ROS_DOMAIN_ID"] = str(_domain_id())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    _refuse_unmarked_ros()


def _domain_id() -> int:
    """A random one that nobody on this machine uses, taken until this process ends.

    The processes that share a run's tests (pytest-xdist) have one each, also while none of their nodes runs: the socket
    is what ``graph_environment`` and other runs of these tests look for.
    """
    from wm_bringup.run.private_graph import domain_is_used, domain_ports

    for domain in random.SystemRandom().sample(range(1, 102), 101):
        if domain_is_used(domain):
            continue
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            taken.bind(("127.0.0.1", domain_ports(domain)[-1]))
        except OSError:
            taken.close()
            continue
        _sockets.append(taken)
        return domain
    pytest.exit("no ROS domain of 1 to 101 is free on this machine", 4)


_sockets: list[socket.socket] = []
"""What takes this process's ROS domain."""


def _refuse_unmarked_ros() -> None:
    """Make rclpy fail in a test without the mark ``ros``: `make test-fast` leaves those with it out."""
    from rclpy.context import Context

    init = Context.init

    def checked(self: Context, *args: Any, **kwargs: Any) -> None:
        if _running and _running[-1].get_closest_marker("ros") is None:
            pytest.fail(f"{_running[-1].nodeid} starts rclpy; expected it to have the mark ros")
        init(self, *args, **kwargs)

    Context.init = checked


_running: list[pytest.Item] = []
"""The test that runs."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the last test of a file with nodes, end the nodes that only circles of references keep on the graph."""
    try:
        return (yield)
    finally:
        if item.get_closest_marker("ros") and (nextitem is None or nextitem.path != item.path):
            gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Remember which test runs."""
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def pytest_report_header() -> str:
    return f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']} MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of recorded data that is not in the repository: WM_SHARED_DATA, or `shared` beside the checkout."""
    named = os.environ.get("WM_SHARED_DATA")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not (folder / "real_rgbd").is_dir():
        pytest.skip(f"no recorded data: {folder / 'real_rgbd'} is not there (WM_SHARED_DATA names the folder)")
    return folder


def wait_until(condition: Callable[[], T], timeout_s: float = 20.0, what: str = "", every_s: float = 0.02) -> T:
    """First true value of condition(); fails the test where there is none within timeout_s."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what or getattr(condition, '__name__', 'a condition')}")
        time.sleep(every_s)


@pytest.fixture
def wait_for() -> Callable[..., object]:
    """wait_for(condition, timeout_s=20, what='...') -> the condition's first true value."""
    return wait_until


class NodeProcess:
    """A child process in a process group of its own, with its output in a file."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]):
        self.command = command
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def signal_group(self, number: int) -> None:
        """Sends a signal to the process and to all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self, timeout_s: float = 10.0) -> int:
        """Ctrl-C, then SIGTERM, then SIGKILL, to the whole group; returns the exit status of the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if not self.alive:
                break
            self.signal_group(number)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue
        self.signal_group(signal.SIGKILL)  # what a dead parent may have left in the group
        return self.process.wait()


@pytest.fixture
def node_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts processes: node_process('wm_sim.node', '--ros-args', '-p', 'seed:=3') runs that module with this Python.

    All are stopped with their process groups when the test ends; the output of those that a failing test leaves is
    in the test's report.
    """
    assert request.node.get_closest_marker("ros") is not None, "expected a test that starts nodes to have the mark ros"
    started: list[NodeProcess] = []

    def start(module: str, *arguments: str, env: dict[str, str] | None = None) -> NodeProcess:
        command = [sys.executable, "-m", module, *arguments]
        log = tmp_path / f"{len(started)}-{module}.log"
        process = NodeProcess(command, log, {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})})
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.stop()
    for process in started:
        print(
            f"--- {' '.join(process.command[1:])} (exit status {process.process.returncode})\n{process.output[-4000:]}"
        )


@pytest.fixture
def ros() -> Iterator[object]:
    """A context of rclpy of its own."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)
