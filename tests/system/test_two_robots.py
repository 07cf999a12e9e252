"""Two robots on one ROS domain: names, frames, worlds and clock stay apart. Real processes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.srv import GetSceneGraph, ImagineRollouts

from live_graph import Asker, Processes, eventually, live
from wm_core.interventions import Hypothesis
from wm_core.rollout import ImagineRequest
from wm_ros import qos
from wm_ros.conversions.basics import time_from_msg
from wm_ros.conversions.requests import request_to_msg
from wm_ros.conversions.scene_graph import scene_graph_from_msg

pytestmark = pytest.mark.ros

SHARED = {"/clock", "/tf", "/tf_static", "/diagnostics", "/rosout", "/parameter_events"}
SCENES = {"robot1": "demo", "robot2": "two_balls"}


@dataclass
class Robot:
    """What was heard of one robot."""

    name: str
    graphs: list[SceneGraphMsg] = field(default_factory=list)
    ground_truths: list[SceneGraphMsg] = field(default_factory=list)
    markers: list[MarkerArray] = field(default_factory=list)

    @property
    def wm(self) -> str:
        return f"/{self.name}/wm"

    def seen(self) -> bool:
        """Whether an object was seen, not only its support."""
        return any(o.class_name != "support" for msg in self.graphs[-1:] for o in msg.objects) and bool(
            self.ground_truths
        )


STACK = {"sim_camera_node", "perception", "imagination", "lifecycle_manager"}


@pytest.fixture(scope="class")
def two_robots(tmp_path_factory) -> Iterator[tuple[Processes, Asker, dict[str, Robot]]]:
    """Two whole stacks: simulator, perception, imagination, lifecycle manager; the first makes the clock."""
    with live(tmp_path_factory.mktemp("two_robots")) as (processes, asker):
        robots = {}
        for name, scene in SCENES.items():
            robot = robots[name] = Robot(name)
            robot.graphs = asker.listen(SceneGraphMsg, f"{robot.wm}/scene_graph", qos.SCENE_GRAPH)
            robot.ground_truths = asker.listen(SceneGraphMsg, f"/{name}/sim/scene_graph", qos.SCENE_GRAPH)
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


def whole_stack(asker: Asker, robot: str) -> list[tuple[str, str]]:
    """Names and namespaces of a robot's nodes; empty as long as others are known than those that it has."""
    nodes = asker.node.get_node_names_and_namespaces()
    own = [(node, space) for node, space in nodes if space.split("/")[1:2] == [robot]]
    return own if {node for node, _ in own} == STACK else []


class TestTwoRobots:
    """Two stacks for all of them."""

    def test_share_no_name(self, two_robots):
        """Topics and services of every node are its own robot's, but for those that are made to be shared."""
        _, asker, robots = two_robots
        for robot in robots.values():
            # One that serves others already may not have been announced to this node yet.
            own = eventually(partial(whole_stack, asker, robot.name), 30.0, f"the nodes of {robot.name}")
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
            frames = {msg.header.frame_id for msg in [*robot.graphs, *robot.ground_truths]}
            frames |= {marker.header.frame_id for msg in robot.markers for marker in msg.markers}
            assert frames == {f"{robot.name}/map"}

    def test_see_their_own_world(self, two_robots):
        _, _, robots = two_robots
        for robot in robots.values():
            graph = scene_graph_from_msg(robot.graphs[-1])
            ground_truth = min(
                robot.ground_truths, key=lambda msg: abs(time_from_msg(msg.header.stamp) - graph.stamp_ns)
            )
            true_positions = scene_graph_from_msg(ground_truth).positions
            objects = [i for i, name in enumerate(graph.class_names) if name != "support"]
            distances = np.linalg.norm(graph.positions[objects][:, None] - true_positions[None], axis=2).min(axis=1)
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
        heard = len(robots["robot2"].ground_truths)
        eventually(lambda: len(robots["robot2"].ground_truths) > heard + 2, 30.0, "the second simulator")
        newest = time_from_msg(robots["robot2"].ground_truths[-1].header.stamp)
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
