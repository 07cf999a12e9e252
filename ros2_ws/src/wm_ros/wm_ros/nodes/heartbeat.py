"""Heartbeats of lifecycle nodes: each publishes its state a few times a second, and a manager notices their end.

The topic is ``NODE/heartbeat`` (lifecycle_msgs/State). Its QoS is liveliness *manual by topic*: the middleware itself
reports a writer that has not published for the time the reader asked for, or that is gone. It is published by the
node's executor, so that heartbeats also end when callbacks hang.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError

from wm_ros import qos
from wm_ros.nodes.managed_parameters import HEARTBEAT_PERIOD_S

_GONE_S = 2.0 * HEARTBEAT_PERIOD_S
"""Time without a message [s] after which a report of no living writer counts, as a new writer may be starting."""


class HeartbeatWatch:
    """Watches the heartbeats of one node.

    Attributes:
        state: label in the newest heartbeat since ``expect``; empty: none came.
        incompatible: its publisher offers a longer lease than ``timeout_s``.
    """

    def __init__(self, node: Any, name: str, timeout_s: float, callback_group: Any = None) -> None:
        """``name``: of the node watched, absolute or relative to ``node``'s namespace."""
        self.name, self.timeout_s = name, timeout_s
        self.state = ""
        self.incompatible = False
        self._heard_ever = False
        self._writers: int | None = None
        self._last = time.monotonic()
        events = SubscriptionEventCallbacks(liveliness=self._on_liveliness, incompatible_qos=self._on_incompatible)

        def subscribe(**options: Any) -> Any:
            return node.create_subscription(
                State,
                f"{name}/heartbeat",
                self._on_heartbeat,
                qos.heartbeat(timeout_s),
                callback_group=callback_group,
                **options,
            )

        try:
            self.subscription = subscribe(event_callbacks=events)
        except UnsupportedEventTypeError:  # a middleware without these events: the messages alone tell
            self.subscription = subscribe()

    def expect(self) -> None:
        """Heartbeats are due from now on."""
        self.state = ""
        self._last = time.monotonic()

    def lost(self) -> str:
        """Why the node counts as gone; empty: its heartbeats come, or it never had any."""
        age_s = time.monotonic() - self._last
        if not self._heard_ever or age_s <= min(_GONE_S, self.timeout_s):
            return ""
        if self._writers != 0 and age_s <= self.timeout_s:
            return ""
        return f"has had no heartbeat for {age_s:.1f} s: its process is gone, or its callbacks hang"

    def _on_heartbeat(self, msg: State) -> None:
        self._last, self.state, self._heard_ever = time.monotonic(), msg.label, True

    def _on_liveliness(self, event: Any) -> None:
        self._writers = int(event.alive_count)

    def _on_incompatible(self, event: Any) -> None:
        self.incompatible = True


class Heartbeat:
    """Publishes a node's state at a steady rate."""

    def __init__(
        self, node: Any, state: Callable[[], tuple[int, str]], period_s: float, clock: Any, group: Any
    ) -> None:
        """``state`` gives id and label; ``clock``: a steady one, that ticks while simulated time stands still."""
        self._state = state
        self._publisher = node.create_publisher(
            State, "~/heartbeat", qos.heartbeat(2.0 * period_s), callback_group=group
        )
        self._timer = node.create_timer(period_s, self.publish, callback_group=group, clock=clock)

    def publish(self) -> None:
        """Publish the state now."""
        number, label = self._state()
        self._publisher.publish(State(id=number, label=label))
