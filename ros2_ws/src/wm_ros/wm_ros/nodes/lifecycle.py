"""Base of every wm node: a lifecycle node that starts itself, reports its health and survives exceptions.

class CameraNode(ManagedNode):
    def __init__(self, **kwargs):
        super().__init__("camera", parameters=CameraParameters, **kwargs)

    def configure(self): ...      # load models, make publishers; raise to refuse
    def activate(self): ...       # subscribe, start working
    def deactivate(self): ...
    def cleanup(self): ...        # release all of it

    @guarded
    def on_image(self, msg): ...  # an exception is counted and logged, never fatal

def main():
    run_node(CameraNode)  # wm_ros.nodes.running
"""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from wm_core.health.findings import Announcer, Finding, Severity, worst
from wm_ros import qos
from wm_ros.health.diagnostics import Diagnostics, Level
from wm_ros.nodes import heartbeat
from wm_ros.nodes.managed_parameters import ManagedNodeParameters
from wm_ros.nodes.memory import heap
from wm_ros.nodes.parameters import NodeParameters

F = TypeVar("F", bound=Callable[..., Any])

NAMESPACE = "wm"
_LOG_EVERY_S = 5.0
"""Least time between log lines of one key [s]."""
_REMIND_EVERY_S = 60.0
"""Time after which a warning that lasts is logged again [s]."""
_CHECK_EVERY_S = 1.0
"""Time between checks of the inputs [s]."""


class Reports(Protocol):
    """A ``ManagedNode``, or a part of one."""

    def report_exception(self, where: str, error: BaseException) -> None:
        """As ``ManagedNode.report_exception``."""
        ...


def guarded(method: F) -> F:
    """Decorates a callback of a ``ManagedNode`` or a part of one: exceptions are counted and logged, not raised."""

    @functools.wraps(method)
    def guard(self: Reports, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # counted and logged; the node goes on
            self.report_exception(method.__name__, error)
            return None

    return guard  # type: ignore[return-value]


class ManagedNode(LifecycleNode):
    """A lifecycle node, in the namespace ``wm`` unless remapped.

    Attributes:
        diagnostics: the node's health, published on /diagnostics in every state, each second unless the
            parameter ``diagnostics_period_s`` says otherwise.
        parameters: the ``NodeParameters`` of the class given, or None; ``params`` is the current frozen
        object.

    With the parameter ``autostart`` (default true) it configures and activates itself once it spins. Where a
    manager drives the transitions, set it to false.
    """

    def __init__(
        self,
        name: str,
        *,
        parameters: type | None = None,
        namespace: str = NAMESPACE,
        on_parameters: Callable[[Any], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, namespace=namespace, **kwargs)
        self.diagnostics = Diagnostics(diagnostics_name(self))
        self._log_times: dict[str, float] = {}
        self._log_skipped: dict[str, int] = {}
        self._log_lock = threading.Lock()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.parameters = NodeParameters(self, parameters, on_parameters) if parameters is not None else None
        self._own_parameters = NodeParameters(self, ManagedNodeParameters)
        self._autostart = self._own_parameters.value.autostart
        self._own_group = MutuallyExclusiveCallbackGroup()
        self._heartbeat_group = MutuallyExclusiveCallbackGroup()
        self._diagnostics_publisher = self.create_publisher(
            _diagnostic_array_type(), "/diagnostics", qos.DIAGNOSTICS, callback_group=self._own_group
        )
        # Steady timers: they tick also while simulated time stands still.
        period_s = self._own_parameters.value.diagnostics_period_s
        self.create_timer(period_s, self._publish_diagnostics, callback_group=self._own_group, clock=self._steady)
        self._heartbeat = heartbeat.Heartbeat(
            self,
            lambda: self._state_machine.current_state,
            self._own_parameters.value.heartbeat_period_s,
            self._steady,
            self._heartbeat_group,
        )
        self._announcer = Announcer()
        if type(self).input_findings is not ManagedNode.input_findings:
            self.create_timer(_CHECK_EVERY_S, self._check_inputs, callback_group=self._own_group, clock=self._steady)
        self._autostart_timer = (
            self.create_timer(0.01, self._start, callback_group=self._own_group, clock=self._steady)
            if self._autostart
            else None
        )
        self._set_state_status("unconfigured")

    # What a node overrides.

    def configure(self) -> None:
        """Load what is needed and make publishers. Raise to refuse: the node stays unconfigured."""

    def activate(self) -> None:
        """Begin to work. Raise to refuse: the node stays inactive."""

    def deactivate(self) -> None:
        """Cease to work; called before ``cleanup``, also on shutdown."""

    def cleanup(self) -> None:
        """Release what ``configure`` acquired; called also on shutdown."""

    # What a node uses.

    @property
    def params(self) -> Any:
        """The current frozen parameters object."""
        if self.parameters is None:
            raise AttributeError(f"node {self.get_name()} was made without a parameters class")
        return self.parameters.value

    @property
    def state_label(self) -> str:
        """unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    @property
    def is_active(self) -> bool:
        """True between activation and deactivation."""
        return self.state_label == "active"

    def warn(self, counter: str, detail: str, advice: str = "", level: Level = Level.WARN) -> None:
        """Count a fault in diagnostics; log it at once, and once a minute while it lasts."""
        self.diagnostics.counter(counter, advice=advice, level=level).add(1, detail)
        self.log_throttled(f"{detail}; {advice}" if advice else detail, counter, level >= Level.ERROR, _REMIND_EVERY_S)

    def log_throttled(
        self, text: str, key: str | None = None, error: bool = False, every_s: float = _LOG_EVERY_S
    ) -> None:
        """Log a warning or error, at most once in ``every_s`` per ``key``; with the count of those left out."""
        key = key or text
        now = time.monotonic()
        with self._log_lock:
            if now - self._log_times.get(key, float("-inf")) < every_s:
                self._log_skipped[key] = self._log_skipped.get(key, 0) + 1
                return
            self._log_times[key] = now
            skipped = self._log_skipped.pop(key, 0)
        text += f" ({skipped} more like it since the last)" if skipped else ""
        if error:
            self.get_logger().error(text)
        else:
            self.get_logger().warning(text)

    def report_exception(self, where: str, error: BaseException) -> None:
        """Count and log an exception that a callback did not expect."""
        self.diagnostics.counter(f"exceptions.{where}", level=Level.ERROR, advice="see the node's log").add(
            1, f"{type(error).__name__}: {error}"
        )
        trace = "".join(traceback.format_exception(error)).rstrip()
        self.log_throttled(f"{where} failed and went on: {trace}", key=f"{where} {type(error).__name__}", error=True)

    def now_ns(self) -> int:
        """The node's time [ns]: simulated where use_sim_time is set."""
        return int(self.get_clock().now().nanoseconds)

    # Transitions: an exception of a hook refuses the transition and is reported.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``configure``."""
        return self._transition("configure", self.configure, super().on_configure, state, "inactive", undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Enables the lifecycle publishers, then runs ``activate``."""

        def enable(previous: LifecycleState) -> TransitionCallbackReturn:
            return TransitionCallbackReturn.SUCCESS

        result = super().on_activate(state)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        return self._transition("activate", self.activate, enable, state, "active", undo=self.deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``deactivate``, then disables the lifecycle publishers."""
        return self._transition("deactivate", self.deactivate, super().on_deactivate, state, "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``cleanup``."""
        return self._transition("cleanup", self.cleanup, super().on_cleanup, state, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``deactivate`` and ``cleanup`` as far as the state asks for them."""
        if state.label == "active":
            self.on_deactivate(state)
        if state.label in ("active", "inactive"):
            self.on_cleanup(state)
        self._set_state_status("finalized")
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, from where it can be configured again."""
        self._set_state_status("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def _transition(
        self,
        name: str,
        hook: Callable[[], None],
        entities: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
        result_label: str,
        undo: Callable[[], None] | None = None,
    ) -> TransitionCallbackReturn:
        try:
            hook()
            result = entities(state)
        except Exception as error:  # counted and logged; the node goes on
            self.get_logger().error(f"{name} refused: {error}")
            self.get_logger().debug("".join(traceback.format_exception(error)))
            self.diagnostics.set_status("state", Level.ERROR, f"{name} refused: {error}", state=state.label)
            if undo is not None:
                try:
                    undo()
                except Exception as second:  # counted and logged; the node goes on
                    self.report_exception(f"{name}.undo", second)
            return TransitionCallbackReturn.FAILURE
        self._set_state_status(result_label)
        return result

    def _set_state_status(self, label: str) -> None:
        level = Level.OK if label == "active" or not self._autostart else Level.WARN
        self.diagnostics.set_status("state", level, label, state=label)

    def _start(self) -> None:
        if self._autostart_timer is not None:
            self._autostart_timer.cancel()
        if self.state_label == "unconfigured":
            self.trigger_configure()
        if self.state_label == "inactive":
            self.trigger_activate()

    def _publish_diagnostics(self) -> None:
        try:
            self.before_diagnostics()
            self._update_memory_status()
            self._diagnostics_publisher.publish(self.diagnostics.to_msg(max(self.now_ns(), 0)))
        except Exception as error:  # counted and logged; the node goes on
            if rclpy.ok(context=self.context):
                self.report_exception("diagnostics", error)

    def _update_memory_status(self) -> None:
        held = heap()
        if held is not None:
            used, free = held.used_bytes / 1e6, held.free_bytes / 1e6
            self.diagnostics.set_status(
                "memory",
                Level.OK,
                f"{used:.1f} MB in use, {free:.1f} MB kept for later",
                used_mb=f"{used:.3f}",
                free_mb=f"{free:.3f}",
                python_blocks=held.python_blocks,
            )

    def input_findings(self) -> Sequence[Finding]:
        """Faults of the inputs now; called once a second while active.

        Each cause is logged once, with a reminder each minute; all that hold now are in the status ``inputs`` of
        diagnostics.
        """
        return ()

    def _check_inputs(self) -> None:
        if not self.is_active:
            self._announcer.clear()
            self.diagnostics.set_status("inputs", Level.OK, "not checked while the node is not active")
            return
        try:
            findings = self.input_findings()
        except Exception as error:  # counted and logged; the node goes on
            if rclpy.ok(context=self.context):
                self.report_exception("input_findings", error)
            return
        for severity, line in self._announcer.update(findings):
            # One call per level: rclpy refuses a call site that logs at another level than before.
            if severity == Severity.ERROR:
                self.get_logger().error(line)
            elif severity == Severity.WARN:
                self.get_logger().warning(line)
            else:
                self.get_logger().info(line)
        self.diagnostics.set_status(
            "inputs",
            Level(int(worst(findings))),
            " | ".join(str(f) for f in sorted(findings, key=lambda f: -f.severity)) or "nothing is wrong with them",
            **{f.cause: f.text for f in findings},
        )

    def before_diagnostics(self) -> None:
        """Called once a second, before diagnostics are published, to update counters."""


def diagnostics_name(node: Any) -> str:
    """The prefix of a node's diagnostics."""
    return diagnostics_prefix(node.get_namespace(), node.get_name())


def diagnostics_prefix(namespace: str, name: str) -> str:
    """The prefix of the diagnostics of a node: its name, with the namespace where that is not ``NAMESPACE``, as with
    several robots.
    """
    inside = namespace.strip("/")
    return name if inside in ("", NAMESPACE) else f"{inside}/{name}"


def _diagnostic_array_type() -> Any:
    from diagnostic_msgs.msg import DiagnosticArray

    return DiagnosticArray
