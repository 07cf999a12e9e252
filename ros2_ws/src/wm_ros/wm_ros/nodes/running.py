"""Running nodes in a process: executors, signals and the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.signals import SignalHandlerOptions

from wm_ros.nodes.lifecycle import ManagedNode
from wm_ros.nodes.stop_flag import StopFlag


def spin_guarded(executor: Executor, stop: StopFlag) -> None:
    """Spin until ``stop`` is set; an exception out of a callback is logged and spinning goes on."""
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=0.2)
        except ExternalShutdownException:
            stop.set()
        except Exception as error:  # counted and logged; the node goes on
            if stop.is_set() or not rclpy.ok(context=executor.context):
                break
            nodes = executor.get_nodes()
            owner = next((n for n in nodes if isinstance(n, ManagedNode)), None)
            if owner is not None:
                owner.report_exception("callback", error)
            else:
                traceback.print_exception(error)


def run_node(
    make_node: Callable[[], Any],
    *,
    threads: int = 1,
    arguments: Sequence[str] | None = None,
    shutdown_timeout_s: float = 5.0,
) -> int:
    """Run one node until SIGINT, SIGTERM or the end of its context; returns the exit status.

    ``threads`` 1: one executor thread; more: a multi-threaded executor (for nodes that wait in callbacks). On
    a signal the node is deactivated and cleaned up, so that its ``deactivate`` and ``cleanup`` run with
    publishers still alive.
    Status 0: ended by a signal; 1: the node could not be made (the reason is printed in one line).
    """
    return run_nodes([(make_node, threads)], arguments=arguments, shutdown_timeout_s=shutdown_timeout_s)


def run_nodes(
    makers: Sequence[tuple[Callable[[], Any], int]],
    *,
    arguments: Sequence[str] | None = None,
    shutdown_timeout_s: float = 5.0,
) -> int:
    """As ``run_node``, for several nodes in this process, each given by its factory and the threads of its executor.

    A callback that does not end within ``shutdown_timeout_s`` is abandoned, and the process ends at once.
    """
    stop = StopFlag()
    # Own handlers, set before anything slow: rclpy's would end the context before the node could clean up.
    previous = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init(
        args=list(arguments) if arguments is not None else None,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    nodes: list[Any] = []
    hanging: list[Any] = []
    try:
        running: list[tuple[Any, Executor, threading.Thread]] = []
        for make_node, threads in makers:
            if stop.is_set():
                return 0
            try:
                node = make_node()
            except (ValueError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            nodes.append(node)
            executor: Executor = MultiThreadedExecutor(threads) if threads > 1 else SingleThreadedExecutor()
            executor.add_node(node)
            spinner = threading.Thread(target=spin_guarded, args=(executor, stop), name="executor", daemon=True)
            running.append((node, executor, spinner))
        for _, _, spinner in running:
            spinner.start()
        while not stop.wait(0.5):
            if not rclpy.ok():
                stop.set()
        hanging = [node for node, executor, spinner in running if not _end(node, executor, spinner, shutdown_timeout_s)]
        return 0
    finally:
        for node in nodes:
            if node not in hanging:  # its thread still uses it
                node.destroy_node()
        rclpy.try_shutdown()
        if hanging:
            # Python's own exit would unload modules that the thread still uses.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        for number, handler in previous.items():
            signal.signal(number, handler)
        stop.close()


def _end(node: Any, executor: Executor, spinner: threading.Thread, timeout_s: float) -> bool:
    """Stop a node's executor and shut the node down; False where a callback does not end."""
    executor.wake()
    spinner.join(timeout_s)
    ended = not spinner.is_alive()
    if ended:
        if isinstance(node, LifecycleNode) and rclpy.ok():
            _finalize(node)
        # A multi-threaded executor waits for its threads without limit, whatever the timeout.
        ending = threading.Thread(target=executor.shutdown, kwargs={"timeout_sec": 1.0}, daemon=True)
        ending.start()
        ending.join(timeout_s)
        ended = not ending.is_alive()
    if not ended:
        node.get_logger().warning(f"a callback did not end within {timeout_s:g} s; leaving it")
    return ended


def _finalize(node: Any) -> None:
    try:
        if node._state_machine.current_state[1] in ("unconfigured", "inactive", "active"):
            node.trigger_shutdown()
    except Exception as error:  # counted and logged; the node goes on
        node.get_logger().error(f"shutdown: {error}")
