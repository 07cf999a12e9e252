"""A robotics team's first Monday: the graph starts, is steered, and two of it live side by side. Real processes."""

from __future__ import annotations

import itertools
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
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
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.srv import GetSceneGraph, ImagineRollouts

from conftest import NodeProcess
from live_graph import Asker, Processes, eventually, has_loaded, live, marked
from wm_core.interventions import Hypothesis
from wm_core.rollout import ImagineRequest
from wm_ros import qos
from wm_ros.conversions.basics import time_from_msg
from wm_ros.conversions.requests import request_to_msg
from wm_ros.conversions.scene_graph import scene_graph_from_msg

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "ros2_ws/src/wm_bringup/deploy"

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


# Every node answers.


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


# The lifecycle manager.


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


# Two robots on one domain.

SHARED = {"/clock", "/tf", "/tf_static", "/diagnostics", "/rosout", "/parameter_events"}
SCENES = {"robot1": "demo", "robot2": "two_balls"}


@dataclass
class Robot:
    """What was heard of one robot."""

    name: str
    graphs: list[SceneGraphMsg] = field(default_factory=list)
    truths: list[SceneGraphMsg] = field(default_factory=list)
    markers: list[MarkerArray] = field(default_factory=list)

    @property
    def wm(self) -> str:
        return f"/{self.name}/wm"

    def seen(self) -> bool:
        """Whether a thing was seen, not only what it stands on."""
        return any(o.class_name != "support" for msg in self.graphs[-1:] for o in msg.objects) and bool(self.truths)


@pytest.fixture(scope="class")
def two_robots(tmp_path_factory) -> Iterator[tuple[Processes, Asker, dict[str, Robot]]]:
    """Two whole stacks: simulator, perception, imagination, lifecycle manager; the first makes the clock."""
    with live(tmp_path_factory.mktemp("two_robots")) as (processes, asker):
        robots = {}
        for name, scene in SCENES.items():
            robot = robots[name] = Robot(name)
            robot.graphs = asker.listen(SceneGraphMsg, f"{robot.wm}/scene_graph", qos.SCENE_GRAPH)
            robot.truths = asker.listen(SceneGraphMsg, f"/{name}/sim/scene_graph", qos.SCENE_GRAPH)
            robot.markers = asker.listen(MarkerArray, f"{robot.wm}/markers", qos.MARKERS)
            topics = {
                "color_topic": f"/{name}/camera/color/image_raw",
                "depth_topic": f"/{name}/camera/depth/image_raw",
                "camera_info_topic": f"/{name}/camera/color/camera_info",
                "use_sim_time": True,
                "autostart": False,
            }
            prefix = {"frame_prefix": f"{name}/"}
            processes.start(
                "sim_camera_node",
                f"{name} sim",
                f"/{name}",
                scene=scene,
                clock="publish" if name == "robot1" else "follow",
                width=320,
                height=240,
                lead_topic=f"{robot.wm}/scene_graph",
                **prefix,
            )
            processes.start("perception", f"{name} perception", robot.wm, **topics, **prefix)
            processes.start("imagination", f"{name} imagination", robot.wm, **topics)
            processes.start("lifecycle_manager", f"{name} manager", robot.wm, heartbeat_timeout_s=3.0)
        for robot in robots.values():
            eventually(robot.seen, 90.0, f"{robot.name} to see something")
        yield processes, asker, robots


class TestTwoRobots:
    """Two stacks for all of them."""

    def test_share_no_name(self, two_robots):
        """Topics and services of every node are its own robot's, but for those that are made to be shared."""
        _, asker, robots = two_robots
        nodes = asker.node.get_node_names_and_namespaces()
        for robot in robots.values():
            own = [(node, space) for node, space in nodes if space.split("/")[1:2] == [robot.name]]
            assert {node for node, _ in own} == {"sim_camera_node", "perception", "imagination", "lifecycle_manager"}
            for node, space in own:
                names: list[str] = []
                for find in (
                    asker.node.get_publisher_names_and_types_by_node,
                    asker.node.get_subscriber_names_and_types_by_node,
                    asker.node.get_service_names_and_types_by_node,
                    asker.node.get_client_names_and_types_by_node,
                ):
                    names += [name for name, _ in find(node, space)]
                assert names
                foreign = {name for name in names if not name.startswith(f"/{robot.name}/")} - SHARED
                assert not foreign, f"{space}/{node} has {sorted(foreign)}"
            spoken = {name for name in asker.diagnostics if name.startswith(f"{robot.name}/wm/perception: ")}
            assert spoken, sorted(asker.diagnostics)
        assert not [name for name in asker.diagnostics if not name.startswith(tuple(robots))]

    def test_have_frames_of_their_own(self, two_robots):
        _, asker, robots = two_robots
        moving = asker.listen(TFMessage, "/tf", qos.TF)
        fixed = asker.listen(TFMessage, "/tf_static", qos.TF_STATIC)

        def edges() -> set[tuple[str, str]]:
            return {(t.header.frame_id, t.child_frame_id) for msg in [*moving, *fixed] for t in msg.transforms}

        chain = ["map", "odom", "base_link", "camera_link", "camera_color_optical_frame"]
        expected = {(f"{name}/{a}", f"{name}/{b}") for name in robots for a, b in itertools.pairwise(chain)}
        eventually(lambda: edges() >= expected, 20.0, "all transforms of both")
        assert edges() == expected
        for robot in robots.values():
            eventually(lambda r=robot: r.markers, 20.0, f"markers of {robot.name}")
            frames = {msg.header.frame_id for msg in [*robot.graphs, *robot.truths]}
            frames |= {marker.header.frame_id for msg in robot.markers for marker in msg.markers}
            assert frames == {f"{robot.name}/map"}

    def test_see_their_own_world(self, two_robots):
        _, _, robots = two_robots
        for robot in robots.values():
            graph = scene_graph_from_msg(robot.graphs[-1])
            truth = min(robot.truths, key=lambda msg: abs(time_from_msg(msg.header.stamp) - graph.stamp_ns))
            true_positions = scene_graph_from_msg(truth).positions
            things = [i for i, name in enumerate(graph.class_names) if name != "support"]
            distances = np.linalg.norm(graph.positions[things][:, None] - true_positions[None], axis=2).min(axis=1)
            assert np.median(distances) < 0.05, f"{robot.name}: {distances}"

    def test_have_one_clock(self, two_robots):
        _, asker, robots = two_robots
        clock = asker.listen(Clock, "/clock", qos.CLOCK)
        eventually(lambda: len(clock) > 10, 30.0, "the clock to tick")
        times = [time_from_msg(msg.clock) for msg in clock]
        assert times == sorted(times)
        (maker,) = asker.node.get_publishers_info_by_topic("/clock")
        assert maker.node_namespace == "/robot1"
        # The second simulator's stamps are of that clock: it began later, and has not fallen behind.
        heard = len(robots["robot2"].truths)
        eventually(lambda: len(robots["robot2"].truths) > heard + 2, 30.0, "the second simulator")
        newest = time_from_msg(robots["robot2"].truths[-1].header.stamp)
        assert abs(newest - time_from_msg(clock[-1].clock)) < 2_000_000_000

    def test_answer_for_themselves(self, two_robots):
        _, asker, robots = two_robots
        for robot in robots.values():

            def known(ids: list[int], r: Robot = robot) -> bool:
                return set(ids) <= {o.id for msg in list(r.graphs) for o in msg.objects}

            eventually(
                lambda r=robot: (
                    asker.call(GetSceneGraph, f"{r.wm}/get_scene_graph").error_code == GetSceneGraph.Response.OK
                ),
                60.0,
                f"a scene graph at the imagination of {robot.name}",
            )
            answer = asker.call(GetSceneGraph, f"{robot.wm}/get_scene_graph")
            assert answer.scene_graph.header.frame_id == f"{robot.name}/map"
            eventually(
                lambda a=answer: known([o.id for o in a.scene_graph.objects]), 10.0, "its objects to be its robot's"
            )
            request = request_to_msg(ImagineRequest(hypotheses=(Hypothesis("as it is"),), horizon_s=0.2))
            rollout = asker.call(
                ImagineRollouts, f"{robot.wm}/imagine_rollouts", ImagineRollouts.Request(request=request)
            )
            assert rollout.error_code == ImagineRollouts.Response.OK, rollout.error_msg
            assert rollout.rollout.header.frame_id == f"{robot.name}/map"
            eventually(
                lambda a=rollout: known(list(a.rollout.object_ids)), 10.0, "its futures to be of its robot's objects"
            )

    def test_one_robot_goes_on_when_the_other_fails(self, two_robots):
        processes, asker, robots = two_robots

        def active(robot: Robot) -> bool:
            return bool(asker.call(Trigger, f"{robot.wm}/lifecycle_manager/is_active").success)

        one, two = robots["robot1"], robots["robot2"]
        for robot in (one, two):
            eventually(lambda r=robot: active(r), 60.0, f"{robot.name} to be active")
        processes["robot2 perception"].signal_group(signal.SIGKILL)
        eventually(lambda: not active(two), 30.0, "the failure to be noticed")
        heard = len(one.graphs)
        eventually(lambda: len(one.graphs) > heard + 3, 30.0, "robot1 to go on")
        assert active(one)


# Starting and stopping.

STARTS = [
    ("wm_perception.node", "_multiarray_umath"),
    ("wm_perception.node", "librmw_fastrtps_cpp"),
    ("wm_perception.node", "onnxruntime_pybind11_state"),
    ("wm_imagination.node", "librmw_fastrtps_cpp"),
    ("wm_imagination.node", "libllvmlite"),  # it compiles, as its cache is empty: longer than anybody waits
    ("wm_sim.node", "_multiarray_umath"),
    ("wm_sim.node", "libmujoco"),
    ("wm_bringup.run.lifecycle_manager", "librmw_fastrtps_cpp"),
    ("wm_bringup.run.container", "_rclpy_pybind11"),
]


@pytest.mark.parametrize(
    ("number", "starts"), [(signal.SIGINT, STARTS), (signal.SIGTERM, STARTS[1::4])], ids=["SIGINT", "SIGTERM"]
)
def test_interrupts_while_starting(tmp_path, number, starts):
    """At several points of starting, told by what is loaded: no traceback, status 0, nothing left."""
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "WM_TEST_MARK": mark, "XDG_CACHE_HOME": str(tmp_path)}
    for index, (module, library) in enumerate(starts):
        process = NodeProcess([sys.executable, "-m", module], tmp_path / f"{index}.log", environment)
        try:
            eventually(lambda p=process, name=library: has_loaded(p, name), 60.0, f"{module} to load {library}")
            process.signal_group(number)
            status = process.process.wait(30.0)
        finally:
            process.stop()
        assert status == 0, f"{module} at {library}: {process.output}"
        assert "Traceback" not in process.output and "Error" not in process.output, f"{module}: {process.output}"
    assert not marked(mark)


def test_wm_run_is_interrupted_while_it_starts(tmp_path):
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "WM_TEST_MARK": mark}
    for index, library in enumerate(("_rclpy_pybind11", "librmw_fastrtps_cpp")):
        command = [sys.executable, "-m", "wm_bringup.cli", "run"]
        process = NodeProcess(command, tmp_path / f"{index}.log", environment)
        try:
            eventually(lambda p=process, name=library: has_loaded(p, name), 60.0, f"wm run to load {library}")
            os.kill(process.process.pid, signal.SIGINT)
            assert process.process.wait(30.0) in (0, 130), process.output
            eventually(lambda: not marked(mark), 15.0, "its nodes to end")
        finally:
            process.stop()
        assert "Traceback" not in process.output, process.output


def unit_option(name: str) -> str:
    lines = (DEPLOY / "wm.service").read_text().splitlines()
    (value,) = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
    return value


def deployed_commands() -> dict[str, tuple[list[str], str]]:
    """What the unit and the compose file run, and the signal that they end it with; each pair of the two once."""
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["wm"]
    both = {
        "systemd": (shlex.split(unit_option("ExecStart")), unit_option("KillSignal")),
        "compose": (service["command"], service["stop_signal"]),
    }
    if both["systemd"] == both["compose"]:
        return {"systemd and compose": both["systemd"]}
    return both


@pytest.mark.parametrize("kind", deployed_commands())
def test_deployed_command_ends_on_its_stop_signal(tmp_path, kind):
    """It starts the nodes, and ends on the signal with status 0 and nothing left."""
    words, name = deployed_commands()[kind]
    parameters = tmp_path / "robot.yaml"
    lines = ["/**/perception:", "  ros__parameters:", "    pipeline: {segmenter: geometric, reasoner: geometric}"]
    parameters.write_text("\n".join([*lines, "/**/imagination:", "  ros__parameters: {backend: straight}", ""]))
    words = [word.replace("/opt/wm", str(ROOT)).replace("/etc/wm/robot.yaml", str(parameters)) for word in words]
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "WM_TEST_MARK": mark}
    process = NodeProcess(words, tmp_path / "out.log", environment)
    asker = Asker()
    try:
        eventually(
            lambda: (
                getattr(asker.diagnostics.get("imagination: state"), "message", "") == "active"
                and getattr(asker.diagnostics.get("perception: state"), "message", "") == "active"
            ),
            90.0,
            "the nodes to be active",
        )
        assert len(marked(mark)) >= 3
        os.kill(
            process.process.pid, getattr(signal, name)
        )  # to the main process alone, as KillMode=mixed and docker do
        assert process.process.wait(20.0) == 0, process.output
        eventually(lambda: not marked(mark), 10.0, "all that it started to end")
    finally:
        asker.close()
        process.stop()
    assert "Traceback" not in process.output


def test_unit_file_is_one(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "wm.service").read_text()
    assert "/opt/wm/.venv/bin/wm" in text
    unit = tmp_path / "wm.service"
    unit.write_text(text.replace("/opt/wm", str(ROOT)))
    checked = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if "wm.service" in line]
    assert not complaints, complaints
    # The drop-in replaces the command, and the signal that `ros2 launch` needs.
    dropped = (DEPLOY / "launch.conf").read_text()
    assert "\nExecStart=\nExecStart=/bin/bash -c" in dropped and "\nKillSignal=SIGINT\n" in dropped


def test_compose_file_is_one():
    file = DEPLOY / "compose.yaml"
    service = yaml.safe_load(file.read_text())["services"]["wm"]
    # Names of the Compose specification.
    assert set(service) <= {
        *("image", "build", "command", "volumes", "environment", "network_mode", "ipc", "init", "stop_signal"),
        *("stop_grace_period", "restart"),
    }
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert context == ROOT and (context / service["build"]["dockerfile"]).is_file()
    (volume,) = service["volumes"]
    default = volume.partition(":-")[2].partition("}")[0]
    assert (DEPLOY / default).is_file() and volume.endswith(":/etc/wm/robot.yaml:ro")
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        checked = subprocess.run(["docker", "compose", "-f", file, "config", "-q"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
