"""Heartbeats over the real middleware, within one process."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from wm_ros.nodes.heartbeat import HeartbeatWatch
from wm_ros.nodes.lifecycle import ManagedNode

pytestmark = pytest.mark.ros


@pytest.fixture
def pair():
    """A node that has a heartbeat every 0.1 s, one that watches, and a function that spins both."""
    context = rclpy.Context()
    rclpy.init(context=context)
    parameters = [Parameter("heartbeat_period_s", value=0.1), Parameter("autostart", value=False)]
    node = ManagedNode("beating", context=context, parameter_overrides=parameters)
    watcher = rclpy.create_node("watching", namespace="wm", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(watcher)

    def spin_until(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 15.0
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            executor.spin_once(timeout_sec=0.02)

    executor.add_node(node)
    yield node, watcher, executor, spin_until
    executor.shutdown(timeout_sec=1.0)
    watcher.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_heartbeat_says_the_state_and_is_missed(pair):
    node, watcher, executor, spin_until = pair
    watch = HeartbeatWatch(watcher, "beating", 1.0)
    assert watch.lost() == ""  # one that was never heard is not missed
    spin_until(lambda: watch.state == "unconfigured", "its state")
    node.trigger_configure()
    spin_until(lambda: watch.state == "inactive", "its new state")
    watch.expect()
    assert watch.state == "" and watch.lost() == ""
    spin_until(lambda: watch.state == "inactive", "a heartbeat that was due")
    executor.remove_node(node)  # it lives, but is not spun: its callbacks hang
    spin_until(watch.lost, "its silence to be noticed")
    assert "its process is gone, or its callbacks hang" in watch.lost() and not watch.incompatible
    executor.add_node(node)
    spin_until(lambda: not watch.lost(), "it to be heard again")
    executor.remove_node(node)
    node.destroy_node()
    spin_until(watch.lost, "its end to be noticed")


def test_a_watch_that_is_too_impatient_knows_it(pair):
    node, watcher, _, spin_until = pair
    watch = HeartbeatWatch(watcher, "/wm/beating", 0.15)  # less than two periods
    spin_until(lambda: watch.incompatible, "the refusal of the middleware")
    assert watch.state == "" and watch.lost() == ""
    node.destroy_node()
