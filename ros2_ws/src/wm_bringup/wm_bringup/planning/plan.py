"""``wm plan``, the push planner: on a simulated table in this process, over a ROS graph of its own, or a running one.

wm plan --seed 3                         one task in this process; picture and video
wm plan --seed 3 --graph                 the same over ROS: camera and imagination as processes
wm plan --live --target 4 --goal 0.1 0.2 push object 4 of a running graph to a place in its frame
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_bringup.planning.pushing import GOAL_TOLERANCE_M, MAX_CYCLES
from wm_bringup.planning.tasks import Task, make_task
from wm_core.interventions import BodySpec
from wm_core.rotations import roll_pitch_yaw
from wm_core.scene_graph import SceneGraph
from wm_planning.config import PlanError, PushPlannerConfig
from wm_planning.futures import Futures, push_request
from wm_planning.paths import PusherPath, PusherPose, PushPaths
from wm_planning.planner import Plan, PushPlanner

NAMESPACE = "/wm"
GROUND_TRUTH_TOPIC = "/sim/scene_graph"
NANOSECONDS = 1_000_000_000
_SETTLE_S = 0.2
"""After a push, until objects are at rest, as in ``pushing``."""
_MOVE_TIMEOUT_S = 60.0
_GRAPH_TIMEOUT_S = 60.0
_UNSEEN_TRIES = 20
"""Scene graphs in a row without the target, after which it counts as lost; more waits longer for a hidden one."""


@dataclass
class LiveResult:
    """The outcome of a task on a graph.

    Attributes:
        done: whether the planner saw the target at its goal.
        distance_m: from the target to the goal in the last scene graph that was planned from.
        plans: one for each cycle.
    """

    done: bool = False
    distance_m: float = float("inf")
    plans: list[Plan] = field(default_factory=list)


class LivePusher:
    """Pushes objects over ROS: plans from scene graphs by calling ``imagine_rollouts``, publishes ``pusher/path``.

    Args:
        client: a ``GraphClient`` inside its context.
        ground_truth: plan from the simulator's true scene graph in place of the perceived one.
        pusher_namespace: of ``pusher/pose`` and ``pusher/path``.
    """

    def __init__(self, client: Any, ground_truth: bool = False, pusher_namespace: str = "") -> None:
        from geometry_msgs.msg import PoseStamped
        from nav_msgs.msg import Path as PathMsg

        from wm_ros import qos

        self._client, self._ground_truth, self._path_type = client, ground_truth, PathMsg
        self._pose: tuple[int, PusherPose] | None = None
        prefix = f"/{pusher_namespace.strip('/')}" if pusher_namespace.strip("/") else ""
        self._out = client.node.create_publisher(PathMsg, f"{prefix}/pusher/path", qos.COMMAND)
        self._in = client.node.create_subscription(PoseStamped, f"{prefix}/pusher/pose", self._on_pose, qos.SENSOR)

    def _on_pose(self, msg: Any) -> None:
        p, q = msg.pose.position, msg.pose.orientation
        yaw = float(roll_pitch_yaw([q.x, q.y, q.z, q.w])[2])
        stamp_ns = msg.header.stamp.sec * NANOSECONDS + msg.header.stamp.nanosec
        self._pose = stamp_ns, PusherPose(np.array([p.x, p.y, p.z]), yaw)

    @property
    def pose(self) -> PusherPose:
        """The paddle's newest pose; waits for the first."""
        self._client.wait_for(lambda: self._pose is not None, _GRAPH_TIMEOUT_S, "pusher/pose")
        assert self._pose is not None
        return self._pose[1]

    def imagine(self, backend: str, samples: int = 1, seed: int = 0) -> Any:
        """A function for the planner that gets futures from the graph's imagination node."""

        def imagine(scene: SceneGraph, body: BodySpec, paths: PushPaths, horizon_s: float, step_s: float) -> Futures:
            request = push_request(body, paths, horizon_s, step_s, backend, samples, seed)
            rollout = self._client.imagine(request, scene).rollout
            return Futures(rollout.states, rollout.usable, rollout.invalid_reasons)

        return imagine

    def scene_after(self, stamp_ns: int) -> SceneGraph:
        """The newest scene graph, waiting for one that is no older than a stamp [ns]."""
        graphs = self._client.ground_truths if self._ground_truth else self._client.graphs
        self._client.wait_for(
            lambda: next(reversed(graphs), -1) >= stamp_ns, _GRAPH_TIMEOUT_S, "a scene graph from after the last push"
        )
        newest = next(reversed(graphs))
        return self._client.ground_truth(newest) if self._ground_truth else self._client.scene(newest)

    def send(self, path: PusherPath) -> int:
        """Publish a path and wait for the paddle at its end; the stamp [ns] from which on objects rest."""
        from geometry_msgs.msg import PoseStamped

        from wm_ros.conversions.basics import time_to_msg, transform_to_pose_msg

        assert self._pose is not None
        msg = self._path_type()
        msg.header.frame_id = "map"
        for time_s, position, quaternion in zip(path.times, path.positions, path.quaternions, strict=True):
            pose = PoseStamped()
            pose.header.frame_id = "map"
            pose.header.stamp = time_to_msg(round(float(time_s) * NANOSECONDS))
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), position
            pose.pose = transform_to_pose_msg(matrix)
            msg.poses.append(pose)
        begin_ns, end = self._pose[0], path.end
        self._out.publish(msg)

        def arrived() -> bool:
            assert self._pose is not None
            stamp_ns, pose = self._pose
            turn = abs((pose.yaw - end.yaw + np.pi) % (2.0 * np.pi) - np.pi)
            there = float(np.linalg.norm(pose.position - end.position)) < 1e-3 and turn < 0.01
            return there and stamp_ns - begin_ns >= path.duration_s * NANOSECONDS

        self._client.wait_for(arrived, _MOVE_TIMEOUT_S, "the paddle to come to the end of its path")
        return self._pose[0] + round(_SETTLE_S * NANOSECONDS)

    def run(
        self,
        target_id: int,
        goal: NDArray[np.float64],
        backend: str = "auto",
        *,
        config: PushPlannerConfig | None = None,
        samples: int = 1,
        seed: int = 0,
        max_cycles: int = MAX_CYCLES,
        on_cycle: Callable[[int, Plan], None] = lambda number, plan: None,
    ) -> LiveResult:
        """Push an object to a goal (2,) [m] in the graph's frame.

        Raises:
            PlanError: the target is not seen, or cannot be pushed.
            wm_bringup.client.ClientError: a node of the graph does not answer.
        """
        planner = PushPlanner(self.imagine(backend, samples, seed), config, seed)
        result = LiveResult()
        ready_ns, unseen = 0, 0
        while len(result.plans) < max_cycles:
            pose, scene = self.pose, self.scene_after(ready_ns)
            try:
                plan = planner.plan(scene, target_id, goal, pose)
            except PlanError:
                # The paddle may hide the target for a moment.
                unseen += 1
                if unseen > _UNSEEN_TRIES:
                    raise
                ready_ns = scene.stamp_ns + 1
                continue
            unseen = 0
            result.plans.append(plan)
            result.distance_m = float(np.linalg.norm(scene.positions[scene.index(target_id), :2] - goal))
            on_cycle(len(result.plans) - 1, plan)
            ready_ns = self.send(plan.path)
            if plan.kind == "done":
                result.done = True
                break
        return result


def write_scene(task: Task, path: Path) -> Path:
    """The task's table as a scene file of wm_sim."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(task.scene.model_dump(), sort_keys=False), encoding="utf-8")
    return path


def run_graph(
    seed: int,
    backend: str,
    out: Path,
    *,
    perceived: bool = False,
    config: PushPlannerConfig | None = None,
    image: tuple[int, int] = (640, 480),
    on_cycle: Callable[[int, Plan], None] = lambda number, plan: None,
) -> tuple[LiveResult, float]:
    """The task of a seed over a graph of processes; the result, and the target's true distance [m] at the end.

    From perceived scene graphs with ``perceived``, else from the simulator's true one (and perception is not started).
    """
    from wm_bringup.client import GraphClient
    from wm_bringup.demo.capture import environment
    from wm_bringup.environment import package_file
    from wm_bringup.run.node_command import node_command
    from wm_bringup.run.nodes import start_nodes
    from wm_bringup.run.private_graph import graph_environment
    from wm_bringup.run.processes import ProcessGroup, check_nodes

    task = make_task(seed)
    scene = write_scene(task, out / f"task_{seed}.yaml")
    environ = graph_environment()
    names = ["table", *(o.name for o in task.scene.objects)]
    with (
        environment(environ),
        ProcessGroup(out / "logs", environ) as processes,
        GraphClient("push_planner", NAMESPACE, lambda: check_nodes(processes), GROUND_TRUTH_TOPIC) as client,
    ):
        if perceived:
            start_nodes(processes, namespace=NAMESPACE, parameters={"use_sim_time": True})
        else:
            file = package_file("wm_imagination", "config", "imagination.yaml")
            command = node_command("wm_imagination.node", NAMESPACE, {"use_sim_time": True}, [file])
            processes.start("imagination", command)
        parameters = {"scene": str(scene), "seed": seed, "width": image[0], "height": image[1]}
        processes.start("camera", node_command("wm_sim.node", parameters=parameters))
        pusher = LivePusher(client, ground_truth=not perceived)
        client.wait_for(lambda: client.ready() and bool(client.ground_truths), 60.0, "the nodes to start")
        target_id = 1 + names.index(task.target)
        if perceived:
            target_id = _seen_as(client, client.ground_truth(next(reversed(client.ground_truths))), target_id)
        result = pusher.run(target_id, task.goal, backend, config=config, seed=seed, on_cycle=on_cycle)
        ground_truth = client.ground_truth(next(reversed(client.ground_truths)))
        row = ground_truth.index(1 + names.index(task.target))
        return result, float(np.linalg.norm(ground_truth.positions[row, :2] - task.goal))


def _seen_as(client: Any, ground_truth: SceneGraph, true_id: int) -> int:
    """The perceived id of a true object: the nearest one, once perception sees an object within 3 cm of it."""
    place = ground_truth.positions[ground_truth.index(true_id)]

    def nearest() -> tuple[float, int]:
        if not client.latest_stamp_ns:
            return float("inf"), 0
        scene = client.scene(client.latest_stamp_ns)
        rows = np.flatnonzero(~scene.is_static)
        if not len(rows):
            return float("inf"), 0
        apart = np.linalg.norm(scene.positions[rows] - place, axis=1)
        return float(apart.min()), int(scene.ids[rows[int(apart.argmin())]])

    client.wait_for(lambda: nearest()[0] < 0.03, 60.0, "perception to see the target")
    client.spin(1.0)
    return nearest()[1]


def _print_cycle(number: int, plan: Plan) -> None:
    print(
        f"{number:2d} {plan.kind:5s} {1e3 * plan.way_left_m:4.0f} mm left, cost {1e3 * plan.cost:4.0f} mm, "
        f"{plan.imagined} futures in {1e3 * plan.seconds:.0f} ms",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; status 0 when the object is at its goal."""
    parser = argparse.ArgumentParser(
        prog="wm plan", description="Push an object to a place, planning by imagined futures (docs/planning.md)."
    )
    parser.add_argument("--seed", type=int, default=0, help="of the task on the simulated table (default: 0)")
    parser.add_argument("--backend", default="auto", help="learned, physics, straight, still or auto (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("out/planner"), help="default: %(default)s")
    parser.add_argument("--no-film", dest="no_video", action="store_true", help="the picture alone")
    parser.add_argument("--graph", action="store_true", help="over ROS: the world and the imagination as processes")
    parser.add_argument("--perceived", action="store_true", help="from perceived scene graphs")
    parser.add_argument("--live", action="store_true", help="over a graph that runs already")
    parser.add_argument("--target", type=int, help="with --live: object id")
    parser.add_argument("--goal", type=float, nargs=2, metavar=("X", "Y"), help="with --live: place [m], graph frame")
    parser.add_argument(
        "--truth", dest="ground_truth", action="store_true", help="with --live: from the simulator's true scene graph"
    )
    given = parser.parse_args(arguments)
    if given.live:
        if given.target is None or given.goal is None:
            parser.error("--live needs --target ID and --goal X Y")
        from wm_bringup.client import GraphClient

        with GraphClient("push_planner", NAMESPACE, ground_truth_topic=GROUND_TRUTH_TOPIC) as client:
            client.wait_for(client.ready, 20.0, "the imagination node")
            pusher = LivePusher(client, given.ground_truth)
            result = pusher.run(given.target, np.array(given.goal), given.backend, on_cycle=_print_cycle)
        print("done" if result.done else "not done", f"{1e3 * result.distance_m:.0f} mm from the goal")
        return 0 if result.done else 1
    if given.graph:
        result, distance = run_graph(
            given.seed, given.backend, given.out, perceived=given.perceived, on_cycle=_print_cycle
        )
        print("done" if result.done else "not done", f"{1e3 * distance:.0f} mm from the goal")
        return 0 if result.done and distance < GOAL_TOLERANCE_M else 1
    from wm_bringup.planning.push_pictures import draw_episode, write_episode_video
    from wm_bringup.planning.pushing import run_episode

    episode = run_episode(given.backend, given.seed, given.perceived, keep_steps=True, on_cycle=_print_cycle)
    name = f"task_{given.seed}_{given.backend}{'_perceived' if given.perceived else ''}"
    draw_episode(episode, given.out / f"{name}.png")
    files = f"{given.out / name}.png"
    if not given.no_video:
        write_episode_video(episode, given.out / f"{name}.mp4")
        files += f", {given.out / name}.mp4"
    print(
        "done" if episode.success else f"failed: {episode.reason}", f"{1e3 * episode.distance_m:.0f} mm from the goal"
    )
    print(files)
    return 0 if episode.success else 1


if __name__ == "__main__":
    sys.exit(main())
