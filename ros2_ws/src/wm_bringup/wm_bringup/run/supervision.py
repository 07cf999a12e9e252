"""The rules by which a lifecycle manager activates nodes, watches them and recovers them. This module needs no ROS.

    supervisor = Supervisor(("perception", "imagination"), nodes)
    supervisor.startup()              # configure and activate, in order
    while True:
        supervisor.watch()            # recovers a node that failed
        time.sleep(0.1)

``nodes`` is an object of the protocol ``Nodes``, which reaches the nodes (``wm_bringup.run.lifecycle_manager``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

_STEP_S = 0.1
"""Time between two requests for the state of a node that does not answer yet [s]; larger: it is noticed later."""
_REMIND_S = 10.0
"""Time between two log messages about a node that does not answer [s]."""
_ANSWER_S = 2.0
"""Longest wait for the answer to a request for a state [s]; larger: an absent node holds the manager up for longer."""


class Phase(Enum):
    """The state of the manager; diagnostics publish the value.

    DOWN: no node has been activated, or all were reset or shut down. STARTING and RECOVERING: transitions are under
    way, at the start or after a failure. ACTIVE: all nodes are active, except those that another client deactivated.
    PAUSED: all were deactivated. FAILED: ``max_attempts`` recoveries have failed, and the nodes keep their states.
    """

    DOWN = "down"
    STARTING = "starting"
    ACTIVE = "active"
    RECOVERING = "recovering"
    PAUSED = "paused"
    FAILED = "failed"


class Nodes(Protocol):
    """The supervisor's interface to the managed nodes. Names are those given to the supervisor."""

    def state(self, name: str, timeout_s: float) -> str | None:
        """Request the lifecycle state: unconfigured, inactive, active, finalized, or a transition; None: no answer."""

    def change(self, name: str, transition: str, timeout_s: float) -> bool | None:
        """Request configure, activate, deactivate, cleanup or shutdown; False: the node refused; None: no answer."""

    def lost(self, name: str) -> str:
        """Why the node counts as gone by its heartbeats; empty: they come, or none has ever come."""

    def heard_state(self, name: str) -> str:
        """The lifecycle state in the newest heartbeat; empty: none has come since ``expect``."""

    def expect(self, name: str) -> None:
        """Count the absence of heartbeats as a failure from now on."""


class Interrupted(Exception):
    """A wait has ended early, because the manager has another command or ends."""


@dataclass(frozen=True)
class SupervisionLimits:
    """When the supervisor recovers nodes, and when it stops doing so.

    Attributes:
        transition_s: longest wall-clock time of a transition [s].
        max_attempts: number of recoveries in a row, after which a failure is final; 0: a failure is final at once.
        retry_delay_s: time between taking nodes down and activating them again [s].
        stable_s: time without a failure after which the count of attempts starts again [s].
    """

    transition_s: float = 120.0
    max_attempts: int = 3
    retry_delay_s: float = 1.0
    stable_s: float = 60.0


class Supervisor:
    """Activates nodes in order and keeps them active.

    When a node fails, the supervisor takes it and the later nodes down, last first, and activates them again. Later
    nodes depend on it; earlier ones do not. The class is not thread-safe: one thread calls it.

    Attributes:
        names: names of the nodes, in the order of activation.
        limits: see ``SupervisionLimits``.
        phase: see ``Phase``.
        message: the state of the nodes in one sentence, for people.
        attempts: number of failures in a row.
        by_hand: names of nodes that another client has deactivated; the supervisor leaves them inactive.
    """

    def __init__(
        self,
        names: Sequence[str],
        nodes: Nodes,
        limits: SupervisionLimits | None = None,
        *,
        log: Callable[[str, bool], None] = lambda text, error: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start in ``Phase.DOWN``; no node is reached yet.

        Args:
            names: names of the nodes, in the order of activation.
            nodes: the interface to the nodes.
            limits: None: the defaults.
            log: called with a text and whether it is an error.
            sleep: waits for seconds; it may raise ``Interrupted``, which the methods pass on.
            clock: monotonic time [s].

        Raises:
            ValueError: there are no names, or one comes twice.
        """
        if not names or len(set(names)) != len(names):
            raise ValueError(f"node_names: got {list(names)}, expected at least one name, and none twice")
        self.names = tuple(names)
        self.limits = limits or SupervisionLimits()
        self.phase = Phase.DOWN
        self.message = "not started"
        self.attempts = 0
        self.by_hand: set[str] = set()
        self._nodes, self._log, self._sleep, self._clock = nodes, log, sleep, clock
        self._active_since = 0.0

    # Commands

    def startup(self) -> bool:
        """Configure and activate all nodes in order, and wait for absent ones; returns whether all are active."""
        self.attempts = 0
        self._say(Phase.STARTING, f"bringing up {', '.join(self.names)}")
        return self._bring_up()

    def pause(self) -> bool:
        """Deactivate all nodes, last first; they keep their models loaded. Returns whether all answered."""
        answers = [self._to_inactive(name) for name in reversed(self.names)]
        done = all(answers)
        self._say(Phase.PAUSED, "paused" if done else "paused, but not all nodes answered")
        return done

    def resume(self) -> bool:
        """Activate all nodes, as ``startup`` does."""
        return self.startup()

    def reset(self) -> bool:
        """Deactivate and clean up all nodes, last first. Returns whether all answered."""
        answers = [self._to_unconfigured(name) for name in reversed(self.names)]
        done = all(answers)
        self._say(Phase.DOWN, "reset" if done else "reset, but not all nodes answered")
        return done

    def shutdown(self) -> bool:
        """Finalize all nodes, last first; only new processes can be activated afterwards. Returns whether all did."""
        done = True
        for name in reversed(self.names):
            state = self._nodes.state(name, _ANSWER_S)
            if state != "finalized":
                done &= state is not None and bool(self._nodes.change(name, "shutdown", self.limits.transition_s))
        self._say(Phase.DOWN, "shut down" if done else "shut down, but not all nodes answered")
        return done

    def watch(self) -> None:
        """Check the heartbeats once and recover the first node that failed; no effect outside ``Phase.ACTIVE``."""
        if self.phase is not Phase.ACTIVE:
            return
        for name in self.names:
            why = self._failure(name)
            if why:
                self._recover(name, why)
                return
        if self.attempts and self._clock() - self._active_since > self.limits.stable_s:
            self.attempts = 0
        self._say_active()

    # Steps

    def _failure(self, name: str) -> str:
        lost = self._nodes.lost(name)
        if lost:
            return lost
        heard = self._nodes.heard_state(name)
        if heard == "inactive":
            self.by_hand.add(name)  # a deliberate deactivation is not undone
        elif heard == "active":
            self.by_hand.discard(name)
        elif heard in ("unconfigured", "finalized"):
            return f"is {heard} although it was active: it was restarted" if heard == "unconfigured" else f"is {heard}"
        return ""

    def _recover(self, name: str, why: str) -> None:
        self._log(f"{name} {why}", True)
        if not self._may_try_again(name, why):
            return
        self._say(Phase.RECOVERING, f"{name} {why}; {self._attempt_text()}")
        for behind in reversed(self.names[self.names.index(name) :]):
            self._to_unconfigured(behind)
        self._sleep(self.limits.retry_delay_s)
        self._bring_up()

    def _bring_up(self) -> bool:
        while True:
            self.by_hand.clear()
            failed = next(((name, why) for name in self.names if (why := self._to_active(name))), None)
            if failed is None:
                for name in self.names:
                    self._nodes.expect(name)
                self._active_since = self._clock()
                self.phase = Phase.ACTIVE
                self._say_active()
                self._log(self.message, False)
                return True
            name, why = failed
            self._log(f"{name} {why}", True)
            if not self._may_try_again(name, why):
                return False
            self._say(Phase.RECOVERING, f"{name} {why}; {self._attempt_text()}")
            self._sleep(self.limits.retry_delay_s)

    def _may_try_again(self, name: str, why: str) -> bool:
        self.attempts += 1
        if self.attempts <= self.limits.max_attempts:
            return True
        tried = f"after {self.limits.max_attempts} attempts" if self.limits.max_attempts else "as max_attempts is 0"
        self._say(Phase.FAILED, f"{name} {why}; given up {tried}; mend it, then call the service startup")
        self._log(self.message, True)
        return False

    def _to_active(self, name: str) -> str:
        """Bring one node to active; returns why that failed, empty: it is active."""
        state = self._wait_for(name)
        if state == "unconfigured":
            why = self._change(name, "configure")
            if why:
                return why
            state = "inactive"
        if state == "inactive":
            return self._change(name, "activate")
        if state == "active":
            return ""
        return f"is {state}: its process has to be started again"

    def _change(self, name: str, transition: str) -> str:
        answer = self._nodes.change(name, transition, self.limits.transition_s)
        if answer is None:
            return f"did not answer to {transition} within {self.limits.transition_s:g} s"
        return "" if answer else f"refused to {transition}: its log and its diagnostics say why"

    def _wait_for(self, name: str) -> str:
        """The node's primary state, after waiting for its answer and the end of a transition; logs an absent node."""
        begun, said = self._clock(), self._clock()
        while True:
            state = self._nodes.state(name, _ANSWER_S)
            if state in ("unconfigured", "inactive", "active", "finalized"):
                return state
            now = self._clock()
            if now - said >= _REMIND_S:
                said = now
                text = f"waiting for {name} since {now - begun:.0f} s: no such lifecycle node answers; is it started?"
                self._say(self.phase, text)
                self._log(text, True)
            self._sleep(_STEP_S)

    def _to_inactive(self, name: str) -> bool:
        state = self._nodes.state(name, _ANSWER_S)
        if state == "active":
            return bool(self._nodes.change(name, "deactivate", self.limits.transition_s))
        return state is not None

    def _to_unconfigured(self, name: str) -> bool:
        if not self._to_inactive(name):
            return False
        if self._nodes.state(name, _ANSWER_S) == "inactive":
            return bool(self._nodes.change(name, "cleanup", self.limits.transition_s))
        return True

    def _attempt_text(self) -> str:
        return f"attempt {self.attempts} of {self.limits.max_attempts} to bring it up again"

    def _say(self, phase: Phase, message: str) -> None:
        self.phase, self.message = phase, message

    def _say_active(self) -> None:
        text = f"active: {', '.join(name for name in self.names if name not in self.by_hand)}"
        if self.by_hand:
            text = f"{', '.join(sorted(self.by_hand))} was made inactive by somebody else, and is left so; {text}"
        self.message = text
