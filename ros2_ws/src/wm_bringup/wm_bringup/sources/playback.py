"""Common parts of the players: timing, /clock, the end on signals, and the progress line."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from wm_ros import qos
from wm_ros.nodes.stop_flag import StopFlag
from wm_ros.stamps import NANOSECONDS, ns_to_stamp

_CLOCK_PERIOD_S = 0.01
"""Wall-clock time between two messages on /clock [s]. A longer period makes timers on simulated time less even."""

DISCOVERY_S = 0.5
"""Time from the discovery of a node's first subscriber to that of its last [s]. A larger value delays the start; with a
smaller one the first messages may reach only some of the subscribers."""


class SourceError(ValueError):
    """A recording cannot be played; the message names the file or topic, what was found and what was expected."""


class Player:
    """A node that publishes at the times of a recording, as a context manager.

    Inside the block SIGINT and SIGTERM set ``stopped`` and end every wait. The end of the block destroys the node.

    Args:
        name: name of the node.
        ros_arguments: arguments for rclpy, from ``--ros-args`` on.
        speed: seconds of the recording per second, 0.01 to 100.
        publish_clock: publish the recording's time on /clock at 100 Hz of wall-clock time.

    Attributes:
        node: the rclpy node; None outside the block.

    Raises:
        SourceError: ``speed`` is out of its range.
    """

    def __init__(self, name: str, ros_arguments: list[str], speed: float = 1.0, publish_clock: bool = True) -> None:
        if not 0.01 <= speed <= 100.0:
            raise SourceError(f"speed: got {speed:g}, expected 0.01 to 100")
        self._name, self._ros_arguments, self._speed = name, ros_arguments, speed
        self._publish_clock = publish_clock
        self._stop = StopFlag()
        self._origin: tuple[float, int] | None = None
        self._now_ns = 0
        self._handlers: dict[int, Any] = {}
        self.node: Any = None

    def __enter__(self) -> Player:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, lambda *_: self._stop.set())
        # rclpy's own handlers would shut the context down while a message is being published.
        rclpy.init(args=["player", *self._ros_arguments], signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(self._name)
        self._clock_out = self.node.create_publisher(Clock, "/clock", qos.CLOCK) if self._publish_clock else None
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._executor.wake()
        self._spinner.join(2.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._stop.close()

    def _spin(self) -> None:
        # The executor answers parameter services and receives subscriptions while the recording plays.
        while not self._stop.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether SIGINT or SIGTERM has come."""
        return self._stop.is_set()

    def sleep(self, seconds: float) -> bool:
        """Sleep for wall-clock seconds; False: a signal ended the sleep early."""
        return not self._stop.wait(seconds)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition holds, for ``timeout_s`` [s] at most; False: it does not, or a signal came first."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() >= deadline or not self.sleep(0.05):
                return False
        return True

    def restart(self) -> None:
        """Let the next stamp given to ``wait_until`` be due at once: at the start, and in each round of a loop."""
        self._origin = None

    def wait_until(self, stamp_ns: int) -> bool:
        """Wait until the recording's time is ``stamp_ns``, and publish /clock meanwhile; False: a signal came first.

        The first stamp after the start or a ``restart`` is due at once. A late caller does not wait; the player skips
        no stamp.
        """
        if self._origin is None:
            self._origin = (time.monotonic(), stamp_ns)
            self._tick(stamp_ns)
        started_s, first_ns = self._origin
        due_s = started_s + (stamp_ns - first_ns) / NANOSECONDS / self._speed
        while (left := due_s - time.monotonic()) > 0.0:
            if not self.sleep(min(left, _CLOCK_PERIOD_S)):
                return False
            elapsed_s = time.monotonic() - started_s
            self._tick(min(stamp_ns, first_ns + round(elapsed_s * self._speed * NANOSECONDS)))
        self._tick(stamp_ns)
        return not self.stopped

    def hold(self) -> None:
        """Continue the recording's time from its present value after a wait, so that the wait is not made up for."""
        if self._origin is not None:
            self._origin = (time.monotonic(), self._now_ns)

    def _tick(self, now_ns: int) -> None:
        if now_ns > self._now_ns or self._now_ns - now_ns > NANOSECONDS // 100:
            if self._clock_out is not None:
                self._clock_out.publish(Clock(clock=ns_to_stamp(now_ns)))
            self._now_ns = now_ns


class Progress:
    """A progress line of a recording: redrawn five times a second on a terminal, else printed every five seconds.

    Args:
        label: text at the start of the line.
        total_s: duration of the recording [s].
        stream: stream that is written to; None: stderr.
    """

    def __init__(self, label: str, total_s: float, stream: TextIO | None = None) -> None:
        self._label, self._total_s = label, total_s
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._last = float("-inf")

    def show(self, position_s: float, detail: str = "", final: bool = False) -> None:
        """Show that ``position_s`` seconds of the recording have been played; ``final`` ends the line."""
        now = time.monotonic()
        if not final and now - self._last < (0.2 if self._terminal else 5.0):
            return
        self._last = now
        share = min(max(position_s / self._total_s, 0.0), 1.0) if self._total_s > 0.0 else 1.0
        filled = round(20 * share)
        bar = "#" * filled + "." * (20 - filled)
        line = f"{self._label} [{bar}] {position_s:.1f}/{self._total_s:.1f} s {detail}".rstrip()
        if self._terminal:
            print(f"\r{line}\x1b[K", end="\n" if final else "", file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)
