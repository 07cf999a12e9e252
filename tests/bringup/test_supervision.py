"""The lifecycle manager's decisions, on nodes that are played; on real ones: system/test_lifecycle.py."""

from __future__ import annotations

import pytest

from wm_bringup.run.supervision import Interrupted, Phase, SupervisionLimits, Supervisor

RESULTS = {"configure": "inactive", "activate": "active", "deactivate": "inactive", "cleanup": "unconfigured"}


class Played:
    """Two nodes that do as told, and a clock that sleeping moves on."""

    def __init__(self, *names: str) -> None:
        self.states: dict[str, str | None] = dict.fromkeys(names, "unconfigured")
        self.silent: dict[str, str] = {}
        self.refusals: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []
        self.now = 0.0
        self.comes_back: dict[str, float] = {}
        self.logged: list[str] = []

    def state(self, name, timeout_s):
        if self.comes_back.get(name, float("inf")) <= self.now:
            self.states[name] = "unconfigured"
            self.silent.pop(name, None)
            del self.comes_back[name]
        if self.states[name] is None:
            self.now += timeout_s
        return self.states[name]

    def change(self, name, transition, timeout_s):
        self.calls.append((name, transition))
        if self.states[name] is None:
            self.now += timeout_s
            return None
        if self.refusals.get(name, 0):
            self.refusals[name] -= 1
            return False
        self.states[name] = RESULTS.get(transition, "finalized")
        return True

    def lost(self, name):
        return self.silent.get(name, "")

    def heard_state(self, name):
        return self.states[name] or ""

    def expect(self, name):
        pass

    def sleep(self, seconds):
        self.now += seconds
        if self.now > 1000.0:
            raise Interrupted

    def die(self, name, back_after_s=None):
        self.states[name], self.silent[name] = None, "has had no heartbeat for 4.0 s"
        if back_after_s is not None:
            self.comes_back[name] = self.now + back_after_s


@pytest.fixture
def nodes():
    return Played("perception", "imagination")


def supervise(nodes, **limits):
    return Supervisor(
        tuple(nodes.states),
        nodes,
        SupervisionLimits(**{"max_attempts": 2, **limits}),
        log=lambda text, error: nodes.logged.append(text),
        sleep=nodes.sleep,
        clock=lambda: nodes.now,
    )


UP = [
    ("perception", "configure"),
    ("perception", "activate"),
    ("imagination", "configure"),
    ("imagination", "activate"),
]


def test_brings_up_in_order_and_adopts_what_is_up(nodes):
    supervisor = supervise(nodes)
    assert supervisor.startup() and supervisor.phase is Phase.ACTIVE and nodes.calls == UP
    assert supervisor.startup() and nodes.calls == UP  # active ones are left as they are
    assert supervisor.message == "active: perception, imagination"


def test_the_failed_one_and_those_behind_it_go_down_and_up(nodes):
    supervisor = supervise(nodes)
    supervisor.startup()
    nodes.calls.clear()
    nodes.die("imagination", back_after_s=5.0)
    supervisor.watch()
    assert supervisor.phase is Phase.ACTIVE and supervisor.attempts == 1
    assert nodes.calls == UP[2:]  # perception keeps its tracks
    nodes.calls.clear()
    nodes.die("perception", back_after_s=5.0)
    supervisor.watch()
    assert nodes.calls == [("imagination", "deactivate"), ("imagination", "cleanup"), *UP]


def test_attempts_are_bounded_and_counted_anew_after_a_quiet_time(nodes):
    supervisor = supervise(nodes)
    supervisor.startup()
    for _ in range(2):
        nodes.die("imagination", back_after_s=1.0)
        supervisor.watch()
        assert supervisor.phase is Phase.ACTIVE
    nodes.now += 61.0
    supervisor.watch()
    assert supervisor.attempts == 0
    for _ in range(3):
        nodes.die("imagination", back_after_s=1.0)
        supervisor.watch()
    assert supervisor.phase is Phase.FAILED
    assert "imagination has had no heartbeat" in supervisor.message and "after 2 attempts" in supervisor.message
    nodes.calls.clear()
    supervisor.watch()
    assert not nodes.calls and nodes.states["perception"] == "active"
    nodes.now += 5.0
    assert supervisor.startup() and supervisor.attempts == 0  # somebody mended it


def test_a_refusal_is_tried_again_and_then_said(nodes):
    nodes.refusals["perception"] = 2
    supervisor = supervise(nodes)
    assert supervisor.startup() and supervisor.attempts == 2
    nodes.states["perception"], nodes.refusals["perception"] = "unconfigured", 99
    nodes.calls.clear()
    assert not supervisor.startup() and supervisor.phase is Phase.FAILED
    assert nodes.calls == [("perception", "configure")] * 3
    assert "perception refused to configure: its log and its diagnostics say why" in supervisor.message


def test_none_is_mended_with_no_attempts(nodes):
    supervisor = supervise(nodes, max_attempts=0)
    supervisor.startup()
    nodes.calls.clear()
    nodes.die("imagination")
    supervisor.watch()
    assert supervisor.phase is Phase.FAILED and not nodes.calls and "max_attempts is 0" in supervisor.message


def test_an_absent_node_is_waited_for_and_named(nodes):
    nodes.states["imagination"] = None
    nodes.comes_back["imagination"] = 35.0
    supervisor = supervise(nodes)
    assert supervisor.startup() and supervisor.attempts == 0
    waiting = [text for text in nodes.logged if "waiting for imagination" in text and "is it started" in text]
    assert len(waiting) == 3
    nodes.die("perception")
    with pytest.raises(Interrupted):  # its process does not come back: until somebody asks for something else
        supervisor.watch()
    assert supervisor.phase is Phase.RECOVERING and "waiting for perception" in supervisor.message


def test_a_restarted_process_is_noticed_without_a_gap(nodes):
    supervisor = supervise(nodes)
    supervisor.startup()
    nodes.states["imagination"] = "unconfigured"
    supervisor.watch()
    assert nodes.states["imagination"] == "active" and any("it was restarted" in text for text in nodes.logged)


def test_what_somebody_made_inactive_is_left_so(nodes):
    supervisor = supervise(nodes)
    supervisor.startup()
    nodes.calls.clear()
    nodes.states["imagination"] = "inactive"
    supervisor.watch()
    assert not nodes.calls and supervisor.by_hand == {"imagination"}
    assert "imagination was made inactive by somebody else" in supervisor.message
    nodes.states["imagination"] = "active"
    supervisor.watch()
    assert not supervisor.by_hand


def test_a_finalized_node_cannot_be_brought_back(nodes):
    supervisor = supervise(nodes)
    supervisor.startup()
    nodes.states["perception"] = "finalized"
    supervisor.watch()
    assert supervisor.phase is Phase.FAILED and "has to be started again" in supervisor.message


def test_pause_resume_reset_shutdown(nodes):
    supervisor = supervise(nodes)
    supervisor.startup()
    nodes.calls.clear()
    assert supervisor.pause() and supervisor.phase is Phase.PAUSED
    assert nodes.calls == [("imagination", "deactivate"), ("perception", "deactivate")]
    supervisor.watch()  # a paused graph is not mended
    assert len(nodes.calls) == 2
    assert supervisor.resume() and set(nodes.states.values()) == {"active"}
    assert supervisor.reset() and set(nodes.states.values()) == {"unconfigured"} and supervisor.phase is Phase.DOWN
    assert supervisor.startup() and supervisor.shutdown() and set(nodes.states.values()) == {"finalized"}
    nodes.die("perception")
    assert not supervisor.reset() and "not all nodes answered" in supervisor.message


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_names_are_checked(names):
    with pytest.raises(ValueError, match="node_names"):
        Supervisor(names, Played("a"))
