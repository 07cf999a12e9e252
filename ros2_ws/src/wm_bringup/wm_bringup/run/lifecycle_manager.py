"""Node ``lifecycle_manager``: activates lifecycle nodes in order, watches their heartbeats, recovers failed nodes.

    python -m wm_bringup.run.lifecycle_manager --ros-args -p node_names:="[perception, imagination]"

Services (std_srvs/Trigger): ~/startup, ~/pause, ~/resume, ~/reset, ~/shutdown, and ~/is_active, which succeeds while
all nodes are active. A service answers when its command is done, or after ``transition_timeout_s`` with the present
state. The node publishes its state on /diagnostics as "lifecycle_manager: nodes"; outside the namespace wm the
namespace precedes that name.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from wm_bringup.run.manager_parameters import LifecycleManagerParameters
from wm_bringup.run.supervision import Interrupted, Phase, SupervisionLimits, Supervisor
from wm_ros import qos
from wm_ros.health.diagnostics import Diagnostics, Level
from wm_ros.nodes.heartbeat import HeartbeatWatch
from wm_ros.nodes.lifecycle import NAMESPACE, diagnostics_name
from wm_ros.nodes.parameters import NodeParameters
from wm_ros.nodes.running import run_node

_LOOK_S = 0.1
"""Time between two checks of commands, answers and the stop flag [s]: the node reacts this much later at most."""
_RESEND_S = 5.0
"""Time without an answer to a transition request after which the node's state is requested [s], and longest wait for
that state. A larger value delays the recovery of a node whose process died during a transition."""
_COMMANDS = ("startup", "pause", "resume", "reset", "shutdown")
"""Services of the manager, by the names of the supervisor's methods."""
_TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
"""Transition ids of lifecycle_msgs by name, except shutdown."""
_SHUTDOWNS = {
    "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}
"""Transition ids of shutdown by the state from which it starts."""
_RESULTS = {
    "configure": "inactive",
    "activate": "active",
    "deactivate": "inactive",
    "cleanup": "unconfigured",
    "shutdown": "finalized",
}
"""Primary state after each transition."""


@dataclass
class _Command:
    """A command for the supervisor's thread: a name of ``_COMMANDS``, its result and message, set before ``done``."""

    name: str
    ok: bool = False
    message: str = ""
    done: threading.Event = field(default_factory=threading.Event)


class RemoteNodes:
    """Reaches the managed nodes by their lifecycle services and heartbeats; implements ``supervision.Nodes``.

    The methods wait for answers; call them from a thread that does not spin the node. They raise ``Interrupted`` once
    ``stopped`` is set.

    Args:
        node: the node that has the clients and subscriptions.
        names: names of the managed nodes, absolute or relative to the node's namespace.
        heartbeat_timeout_s: longest time between two heartbeats [s]; 0: heartbeats are not watched.
        stopped: set to end all waits.
    """

    def __init__(
        self, node: Node, names: tuple[str, ...], heartbeat_timeout_s: float, stopped: threading.Event
    ) -> None:
        self._stopped = stopped
        group = ReentrantCallbackGroup()
        self._change = {n: node.create_client(ChangeState, f"{n}/change_state", callback_group=group) for n in names}
        self._state = {n: node.create_client(GetState, f"{n}/get_state", callback_group=group) for n in names}
        self._watches = (
            {n: HeartbeatWatch(node, n, heartbeat_timeout_s, group) for n in names} if heartbeat_timeout_s > 0.0 else {}
        )

    def state(self, name: str, timeout_s: float) -> str | None:
        """See ``supervision.Nodes``."""
        answer = self._call(self._state[name], GetState.Request(), timeout_s)
        return None if answer is None else str(answer.current_state.label)

    def change(self, name: str, transition: str, timeout_s: float) -> bool | None:
        """See ``supervision.Nodes``."""
        number = _TRANSITIONS.get(transition)
        before = self.state(name, min(timeout_s, _RESEND_S))
        if number is None:
            number = _SHUTDOWNS.get(before or "")
        if before is None or number is None:
            return None if before is None else False
        request = ChangeState.Request(transition=Transition(id=number))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0.0:
            # A process that has died does not answer; request the state, and repeat the transition if need be.
            answer = self._call(
                self._change[name], request, left, until=lambda: self.state(name, _RESEND_S), every_s=_RESEND_S
            )
            if isinstance(answer, str):
                if answer == _RESULTS[transition]:
                    return True
                continue
            return None if answer is None else bool(answer.success)
        return None

    def lost(self, name: str) -> str:
        """See ``supervision.Nodes``."""
        return self._watches[name].lost() if name in self._watches else ""

    def heard_state(self, name: str) -> str:
        """See ``supervision.Nodes``."""
        return self._watches[name].state if name in self._watches else ""

    def expect(self, name: str) -> None:
        """See ``supervision.Nodes``."""
        if name in self._watches:
            self._watches[name].expect()

    def unheard(self) -> list[str]:
        """Names of nodes whose heartbeat QoS does not match, because their period is too long for the timeout."""
        return [name for name, watch in self._watches.items() if watch.incompatible]

    def _call(
        self,
        client: Any,
        request: Any,
        timeout_s: float,
        until: Callable[[], str | None] | None = None,
        every_s: float = float("inf"),
    ) -> Any:
        """Call a service and wait for the answer, ``timeout_s`` at most.

        Returns:
            The response; None: none came; or a primary state, where ``until``, called every ``every_s`` while there is
            no answer, returned one.
        """
        deadline = time.monotonic() + timeout_s
        while not client.service_is_ready():
            if time.monotonic() >= deadline:
                return None
            self._wait(_LOOK_S)
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        look_at = time.monotonic() + every_s
        try:
            while not answered.wait(_LOOK_S):
                if self._stopped.is_set():
                    raise Interrupted
                now = time.monotonic()
                if now >= deadline:
                    return None
                if until is not None and now >= look_at:
                    state = until()
                    if state in _RESULTS.values() and not answered.is_set():
                        return state
                    look_at = time.monotonic() + every_s
            return future.result()
        finally:
            client.remove_pending_request(future)

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Interrupted


class LifecycleManager(Node):
    """The node of the module's docstring. A thread runs the commands; the executor's callbacks never wait for nodes.

    Attributes:
        parameters: values of ``LifecycleManagerParameters``.
        diagnostics: the state that is published on /diagnostics once a second.
        supervisor: used by the thread only, except for reading its phase and message.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__("lifecycle_manager", namespace=NAMESPACE, **kwargs)
        self.parameters = NodeParameters(self, LifecycleManagerParameters)
        values = self.parameters.value
        self.diagnostics = Diagnostics(diagnostics_name(self))
        self._nodes = RemoteNodes(self, values.node_names, values.heartbeat_timeout_s, self._stopping)
        self.supervisor = Supervisor(
            values.node_names,
            self._nodes,
            SupervisionLimits(values.transition_timeout_s, values.max_attempts, values.retry_delay_s, values.stable_s),
            log=self._say,
            sleep=self._sleep,
        )
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._warned: set[str] = set()
        # Commands run one at a time, in a group that does not block the answers that they wait for.
        commands, others = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        for name in _COMMANDS:
            self.create_service(Trigger, f"~/{name}", self._handler(name), callback_group=commands)
        self.create_service(Trigger, "~/is_active", self._on_is_active, callback_group=others)
        self._diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.create_timer(
            1.0, self._publish_diagnostics, callback_group=others, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        if values.autostart:
            self._commands.put(_Command("startup"))
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def destroy_node(self) -> None:
        """End the thread, then the node. The managed nodes keep their states."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)
        super().destroy_node()

    # The supervisor's thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                command = self._commands.get(timeout=_LOOK_S)
            except Empty:
                command = None
            try:
                if command is None:
                    self.supervisor.watch()
                else:
                    command.ok = getattr(self.supervisor, command.name)()
            except Interrupted:
                pass  # there is another command, or the node ends
            except Exception as error:  # logged; the next check may succeed
                self.get_logger().error(f"{type(error).__name__}: {error}")
            if command is not None:
                command.message = self.supervisor.message
                command.done.set()

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if not self._commands.empty() or self._stopping.wait(min(max(left, 0.0), _LOOK_S)):
                raise Interrupted
            if left <= 0.0:
                return

    def _say(self, text: str, error: bool) -> None:
        if error:
            self.get_logger().error(text)
        else:
            self.get_logger().info(text)

    # The executor's threads

    def _handler(self, name: str) -> Callable[[Any, Any], Any]:
        def handle(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            command = _Command(name)
            self._commands.put(command)
            deadline = time.monotonic() + self.parameters.value.transition_timeout_s
            while not command.done.wait(_LOOK_S) and time.monotonic() < deadline and not self._stopping.is_set():
                pass
            response.success = command.ok
            response.message = command.message or f"not done yet: {self.supervisor.message}"
            return response

        return handle

    def _on_is_active(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.supervisor.phase is Phase.ACTIVE and not self.supervisor.by_hand
        response.message = self.supervisor.message
        return response

    def _publish_diagnostics(self) -> None:
        supervisor = self.supervisor
        phase = supervisor.phase
        values = {"phase": phase.value, "attempts": supervisor.attempts, "nodes": ", ".join(supervisor.names)}
        level = Level.ERROR if phase is Phase.FAILED else Level.WARN
        if (
            phase is Phase.PAUSED
            or (phase is Phase.ACTIVE and not supervisor.by_hand and not supervisor.attempts)
            or (phase is Phase.DOWN and not self.parameters.value.autostart)
        ):
            level = Level.OK
        self.diagnostics.set_status("nodes", level, supervisor.message, **values)
        unheard = self._nodes.unheard()
        if unheard:
            text = (
                f"heartbeats of {', '.join(unheard)} cannot be heard: heartbeat_timeout_s is "
                f"{self.parameters.value.heartbeat_timeout_s:g} s, expected at least twice their heartbeat_period_s"
            )
            self.diagnostics.set_status("heartbeats", Level.WARN, text)
            if text not in self._warned:
                self._warned.add(text)
                self.get_logger().warning(text)
        self._diagnostics_out.publish(self.diagnostics.to_msg(max(int(self.get_clock().now().nanoseconds), 0)))


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(LifecycleManager, threads=6))


if __name__ == "__main__":
    main()
