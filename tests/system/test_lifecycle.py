"""Lifecycle and parameter services of the nodes, and the lifecycle manager that supervises them. Real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from std_srvs.srv import Trigger

from live_graph import Asker, Processes, eventually, live

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.ros

LIFECYCLE_NODES = ("/wm/perception", "/wm/imagination")
# Each node with a parameter that may be changed, and another value for it.
TUNABLE = {
    "/wm/perception": ("tf_timeout_s", 0.3),
    "/wm/imagination": ("appearance_rate_hz", 4.0),
    "/sim_camera_node": ("real_time_factor", 0.5),
    "/wm/lifecycle_manager": ("use_sim_time", False),
}
TRANSITIONS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "unconfigured"),
    "shutdown from inactive": (Transition.TRANSITION_INACTIVE_SHUTDOWN, "finalized"),
    "shutdown from active": (Transition.TRANSITION_ACTIVE_SHUTDOWN, "finalized"),
}


def state_of(asker: Asker, node: str) -> str:
    return str(asker.call(GetState, f"{node}/get_state").current_state.label)


def double(name: str, value: Any) -> Parameter:
    kind = ParameterType.PARAMETER_BOOL if isinstance(value, bool) else ParameterType.PARAMETER_DOUBLE
    fields = {"bool_value": value} if isinstance(value, bool) else {"double_value": value}
    return Parameter(name=name, value=ParameterValue(type=kind, **fields))


def check_parameter_services(asker: Asker, node: str) -> None:
    name, value = TUNABLE[node]
    assert name in asker.call(ListParameters, f"{node}/list_parameters").result.names
    described = asker.call(DescribeParameters, f"{node}/describe_parameters", DescribeParameters.Request(names=[name]))
    assert described.descriptors[0].name == name
    types = asker.call(GetParameterTypes, f"{node}/get_parameter_types", GetParameterTypes.Request(names=[name]))
    assert types.types[0] in (ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_BOOL)
    request = [double(name, value)]
    result = asker.call(SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=request))
    assert result.results[0].successful, result.results[0].reason
    atomic = asker.call(
        SetParametersAtomically,
        f"{node}/set_parameters_atomically",
        SetParametersAtomically.Request(parameters=request),
    )
    assert atomic.result.successful
    got = asker.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name])).values[0]
    assert got == request[0].value


def check_lifecycle_queries(asker: Asker, node: str) -> None:
    states = asker.call(GetAvailableStates, f"{node}/get_available_states").available_states
    assert {"unconfigured", "inactive", "active", "finalized"} <= {state.label for state in states}
    assert asker.call(GetAvailableTransitions, f"{node}/get_available_transitions").available_transitions
    assert len(asker.call(GetAvailableTransitions, f"{node}/get_transition_graph").available_transitions) > 10


def change(asker: Asker, node: str, what: str) -> None:
    number, result = TRANSITIONS[what]
    before = state_of(asker, node)
    request = ChangeState.Request(transition=Transition(id=number))
    # Asked once: a second request would be refused, as the transition is made.
    answer = asker.call(ChangeState, f"{node}/change_state", request, 60.0, resend_s=60.0)
    assert answer.success, f"{node} is {before} and refused to {what}"
    assert state_of(asker, node) == result


@pytest.fixture(scope="class")
def self_started(tmp_path_factory) -> Iterator[tuple[Processes, Asker]]:
    """All nodes as they start by themselves."""
    with live(tmp_path_factory.mktemp("self_started")) as (processes, asker):
        for node in ("perception", "imagination", "sim_camera_node"):
            processes.start(node)
        processes.start("lifecycle_manager", autostart=False)
        yield processes, asker


class TestNodesThatStartThemselves:
    """One graph for all of them."""

    @pytest.mark.parametrize("node", TUNABLE)
    def test_parameter_services_answer(self, self_started, node):
        check_parameter_services(self_started[1], node)

    @pytest.mark.parametrize("node", LIFECYCLE_NODES)
    def test_lifecycle_services_answer_of_a_node_that_starts_itself(self, self_started, node):
        _, asker = self_started
        eventually(lambda: state_of(asker, node) == "active", 60.0, f"{node} to be active")
        check_lifecycle_queries(asker, node)
        for what in ("deactivate", "cleanup", "configure", "activate", "shutdown from active"):
            change(asker, node, what)


def test_every_transition_is_made_from_another_process(tmp_path):
    """With autostart:=false nothing happens by itself, and each transition is done when it is asked for."""
    with live(tmp_path) as (processes, asker):
        for node in ("perception", "imagination"):
            processes.start(node, autostart=False)
        for node in LIFECYCLE_NODES:
            check_lifecycle_queries(asker, node)
            assert state_of(asker, node) == "unconfigured"
            for what in ("configure", "cleanup", "configure", "activate", "deactivate", "activate"):
                change(asker, node, what)
            check_parameter_services(asker, node)
            for what in ("deactivate", "shutdown from inactive"):
                change(asker, node, what)


def manager_state(asker: Asker) -> tuple[bool, str]:
    answer = asker.call(Trigger, "/wm/lifecycle_manager/is_active")
    return answer.success, answer.message


def manager_status(asker: Asker) -> dict[str, str]:
    status = asker.diagnostics.get("lifecycle_manager: nodes")
    return {value.key: value.value for value in status.values} if status else {}


def test_lifecycle_manager(tmp_path):
    with live(tmp_path) as (processes, asker):

        def active(what: str) -> None:
            eventually(lambda: manager_state(asker)[0], 60.0, f"all nodes to be active {what}")
            assert [state_of(asker, node) for node in LIFECYCLE_NODES] == ["active", "active"]

        # In order: the second is not touched while the first is not there.
        processes.start("lifecycle_manager", heartbeat_timeout_s=3.0, max_attempts=3, retry_delay_s=0.2)
        processes.start("imagination", autostart=False)
        assert state_of(asker, "/wm/imagination") == "unconfigured"
        assert not manager_state(asker)[0]
        processes.start("perception", autostart=False)
        active("at first")
        assert asker.diagnostics["lifecycle_manager: nodes"] is not None

        # Down and up on demand.
        assert asker.call(Trigger, "/wm/lifecycle_manager/pause").success
        assert [state_of(asker, node) for node in LIFECYCLE_NODES] == ["inactive", "inactive"]
        assert asker.call(Trigger, "/wm/lifecycle_manager/resume", timeout_s=60.0).success
        active("after a pause")

        # A process that dies, and is started again (by respawn, or systemd).
        processes["perception"].signal_group(signal.SIGKILL)
        eventually(lambda: not manager_state(asker)[0], 20.0, "the loss of perception to be noticed")
        eventually(lambda: state_of(asker, "/wm/imagination") == "unconfigured", 20.0, "what is behind it to go down")
        processes.start("perception", autostart=False)
        active("after perception was started again")
        eventually(lambda: manager_status(asker).get("attempts") == "1", 10.0, "the attempt in diagnostics")

        # A process that lives but hangs.
        processes["imagination"].signal_group(signal.SIGSTOP)
        eventually(lambda: not manager_state(asker)[0], 20.0, "the hanging imagination to be noticed")
        assert state_of(asker, "/wm/perception") == "active"  # it is before the one that failed
        processes["imagination"].signal_group(signal.SIGCONT)
        active("after imagination went on")

        # Attempts are bounded; what is given up is said, with what to do.
        for _ in range(2):
            processes["imagination"].signal_group(signal.SIGKILL)
            eventually(lambda: not manager_state(asker)[0], 20.0, "the loss of imagination to be noticed")
            processes.start("imagination", autostart=False)
            eventually(
                lambda: manager_state(asker)[0] or "given up" in manager_state(asker)[1],
                60.0,
                "it to be up or given up",
            )
        ok, message = manager_state(asker)
        assert not ok and "imagination has had no heartbeat" in message and "after 3 attempts" in message
        eventually(lambda: manager_status(asker).get("phase") == "failed", 10.0, "the failure in diagnostics")
        assert asker.diagnostics["lifecycle_manager: nodes"].level == b"\x02"
        assert state_of(asker, "/wm/imagination") == "unconfigured"
        assert asker.call(Trigger, "/wm/lifecycle_manager/startup", timeout_s=60.0).success
        active("after startup was called")
        assert processes["lifecycle_manager"].stop() == 0
        assert state_of(asker, "/wm/perception") == "active"  # the nodes outlive their manager


def test_two_nodes_in_one_process(tmp_path):
    """As the launch file starts it with container:=true, parameters of both in files and one for all after them."""
    packages = ROOT / "ros2_ws/src"
    files = [packages / f"wm_{name}/config/{name}.yaml" for name in ("perception", "imagination")]
    robot, launched = tmp_path / "robot.yaml", tmp_path / "launched.yaml"
    robot.write_text(
        "/**/perception:\n  ros__parameters: {world_frame: odom, tf_timeout_s: 0.7, pipeline: {segmenter: geometric, "
        "reasoner: geometric}}\n/**/imagination:\n  ros__parameters: {backend: straight}\n"
    )
    # What launch_ros writes for a dictionary of parameters of a process without a node name.
    launched.write_text("/**:\n  ros__parameters: {autostart: false, world_frame: world}\n")
    with live(tmp_path) as (processes, asker):
        process = processes.start("container", namespace="/wm", files=[*files, robot, launched])
        processes.start("lifecycle_manager")
        eventually(lambda: manager_state(asker)[0], 90.0, "both nodes to be active")
        request = GetParameters.Request(names=["world_frame", "tf_timeout_s"])
        values = asker.call(GetParameters, "/wm/perception/get_parameters", request).values
        assert (values[0].string_value, values[1].double_value) == ("world", 0.7)
        process.signal_group(signal.SIGINT)
        assert process.process.wait(30.0) == 0 and "Traceback" not in process.output
