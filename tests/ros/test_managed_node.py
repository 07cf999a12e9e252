"""Lifecycle nodes: starting, refusing, guarding callbacks, stopping."""

from __future__ import annotations

import time

import pytest
import rclpy

from wm_ros.health.diagnostics import Level
from wm_ros.nodes.lifecycle import ManagedNode, guarded
from wm_ros.nodes.stop_flag import StopFlag


class Recorder(ManagedNode):
    def __init__(self, context, refuse: str = "", **options) -> None:
        self.calls: list[str] = []
        self.refuse = refuse
        super().__init__("recorder", context=context, **options)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.refuse == name:
            raise RuntimeError(f"{name} is told to fail")

    def configure(self) -> None:
        self._call("configure")

    def activate(self) -> None:
        self._call("activate")

    def deactivate(self) -> None:
        self._call("deactivate")

    def cleanup(self) -> None:
        self._call("cleanup")

    @guarded
    def callback(self, value: int) -> int:
        """Tens."""
        return 10 // value


def spin(node, condition, timeout_s: float = 10.0) -> None:
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.05)
    executor.remove_node(node)


@pytest.mark.ros
@pytest.mark.smoke
def test_a_node_starts_itself_and_guards_its_callbacks(ros):
    node = Recorder(ros)
    assert node.get_fully_qualified_name() == "/wm/recorder"
    spin(node, lambda: node.is_active)
    assert node.calls == ["configure", "activate"]
    assert node.callback(5) == 2 and node.callback(0) is None and node.callback(0) is None
    assert node.diagnostics.counter("exceptions.callback").total == 2
    status = next(s for s in node.diagnostics.snapshot() if s.name == "counters")
    assert status.level == Level.ERROR and "ZeroDivisionError" in status.message
    node.trigger_shutdown()
    assert node.calls[2:] == ["deactivate", "cleanup"] and node.state_label == "finalized"
    node.destroy_node()


@pytest.mark.ros
@pytest.mark.smoke
@pytest.mark.parametrize(
    ("refuse", "label", "undone"), [("configure", "unconfigured", "cleanup"), ("activate", "inactive", "deactivate")]
)
def test_a_refused_transition_is_undone_and_said(ros, refuse, label, undone):
    node = Recorder(ros, refuse=refuse)
    spin(node, lambda: refuse in node.calls)
    assert node.state_label == label and node.calls[-1] == undone
    status = next(s for s in node.diagnostics.snapshot() if s.name == "state")
    assert status.level == Level.ERROR and "told to fail" in status.message
    node.refuse = ""
    node._start()  # what a second try does
    assert node.is_active
    node.destroy_node()


@pytest.mark.ros
@pytest.mark.smoke
def test_autostart_can_be_left_to_a_manager(ros):
    from rclpy.parameter import Parameter

    node = Recorder(ros, parameter_overrides=[Parameter("autostart", value=False)])
    deadline = time.monotonic() + 0.3
    spin(node, lambda: time.monotonic() > deadline)
    assert node.state_label == "unconfigured" and not node.calls
    node.destroy_node()


def test_a_signal_handler_may_set_the_stop_flag_at_any_moment():
    """With a threading.Event in its place this blocks within a few hundred rounds."""
    import signal

    previous = signal.getsignal(signal.SIGALRM)
    try:
        for round_ in range(300):
            flag = StopFlag()
            signal.signal(signal.SIGALRM, lambda *_, flag=flag: flag.set())
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 1e-6 * round_)
            deadline = time.monotonic() + 5.0
            while not flag.wait(0.0001):
                assert time.monotonic() < deadline
            flag.set()
            assert flag.is_set() and flag.wait(5.0)
            flag.close()
            flag.set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
