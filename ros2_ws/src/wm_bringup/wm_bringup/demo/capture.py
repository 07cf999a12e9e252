"""A demonstration captured: the graph runs in processes of its own, and gets its requests at one instant."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo

from wm_bringup.client import Answer, GraphClient
from wm_bringup.demo.scenarios import MOVING_M_S, Scenario, choose_scenarios, timing_hypotheses
from wm_bringup.progress import ProgressLog, Stage
from wm_bringup.report.results import BASELINES
from wm_bringup.run.node_command import node_command
from wm_bringup.run.nodes import START_S, start_nodes
from wm_bringup.run.private_graph import graph_environment
from wm_bringup.run.processes import ProcessGroup, check_nodes
from wm_core.interventions import InterventionKind
from wm_core.rollout import ImageRequest, ImagineRequest
from wm_core.scene_graph import SceneGraph
from wm_ros import qos
from wm_ros.conversions.basics import camera_from_msg
from wm_sim.scene_model import load_scene
from wm_sim.scenes import build_scene

NAMESPACE = "/wm"
GROUND_TRUTH_TOPIC = "/sim/scene_graph"
CAMERA_TOPICS = ("/camera/color/image_raw", "/camera/depth/image_raw")
QUERY_S = 5.0
"""Simulated time of the request [s] in a scene in which nothing is set in motion: perception has settled by then."""
AFTER_START_S = 0.2
"""Time [s] from setting an object in motion to the request: perception has seen it move by then."""
REST_S = 0.5
"""The request comes at least this long [s] before the end of the scene."""
HORIZON_S = 2.0
STEP_S = 1.0 / 30.0
VIDEO_RATE_HZ = 10.0
"""Of imagined images; more takes longer in proportion."""
PATIENCE_S = 0.5
"""How much later [s] the request may come where nothing is seen to move yet."""
MAX_LEAD_S = 0.07
"""The simulated world waits where it is further ahead of the scene graph [s]: how often a moving object is seen must
not depend on how busy the machine is. Two frames at 30 Hz. The report has the real-time factor."""
TIMED_COUNTS = (64, 256)
TIMED_HORIZON_S = 1.0


@dataclass(frozen=True)
class Plan:
    """Options of a demonstration.

    Attributes:
        is_quick: a shorter video.
        width, height: of imagined images [pixels].
        video_rate_hz: of imagined images.
        linger_s: wall-clock time that is still recorded after the answers.
        timed_counts: numbers of futures of one second that are timed.
        repeats: of the first timing; the median counts.
    """

    is_quick: bool = False
    width: int = 480
    height: int = 360
    video_rate_hz: float = VIDEO_RATE_HZ
    linger_s: float = 0.5
    timed_counts: tuple[int, ...] = TIMED_COUNTS
    repeats: int = 3

    @classmethod
    def quick(cls) -> Plan:
        """Fewer and smaller frames."""
        return cls(is_quick=True, width=320, height=240, video_rate_hz=5.0, linger_s=0.0, repeats=1)


@dataclass
class Capture:
    """Results of a run of the graph.

    Attributes:
        stamp_ns: of the scene graph that the futures start from.
        perceived, published: perceived and true scene graph of that stamp.
        scenarios: of the request.
        answer: to all of them, with images.
        baselines: answers of other backends, by name.
        timings_s: round trips of the service [s], by number of futures.
        query_wall_ns: wall-clock time of the request.
        recording, latency: files of the recorder.
        cores_used: processor seconds per second of each process before the request; empty: not known here.
    """

    stamp_ns: int
    perceived: SceneGraph
    published: SceneGraph
    scenarios: list[Scenario]
    answer: Answer
    baselines: dict[str, Answer]
    timings_s: dict[int, float]
    query_wall_ns: int
    recording: Path
    latency: Path
    cores_used: dict[str, float] = field(default_factory=dict)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """This process's environment replaced for a while: rclpy reads it when a context is made."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def capture(
    out: Path, scene: str, seed: int, plan: Plan, progress: ProgressLog, perception: Mapping[str, Any] | None = None
) -> Capture:
    """Run the graph, send the requests, stop it. ``perception``: parameters of that node.

    Raises:
        ProcessDied: a process of the graph ended by itself.
        NodeRefused: a node does not accept its parameters.
        wm_bringup.client.ClientError: no answer, or a refusal.
    """
    environ = graph_environment()
    recording, latency = out / "demo.mcap", out / "latency.json"
    with (
        environment(environ),
        ProcessGroup(out / "logs", environ) as processes,
        GraphClient("wm_demo", NAMESPACE, lambda: check_nodes(processes), GROUND_TRUTH_TOPIC) as client,
    ):
        with progress.stage("start perception, imagination, recorder and the simulated camera") as stage:
            command = node_command(
                "wm_bringup.recording.recorder", arguments=["--out", str(recording), "--latency", str(latency)]
            )
            processes.start("recorder", command)
            start_nodes(processes, namespace=NAMESPACE, parameters={"use_sim_time": True}, perception=perception)
            client.wait_for(lambda: client.ready() and _listeners(client) >= 2, START_S, "the nodes to start")
            parameters = {"scene": scene, "seed": seed, "wait_for_subscriber": True, "max_lead_s": MAX_LEAD_S}
            processes.start("camera", node_command("wm_sim.node", parameters=parameters))
            client.wait_for(lambda: bool(client.ground_truths), START_S, "the first camera frame")
            stage.detail(f"ROS domain {environ['ROS_DOMAIN_ID']}")
        with progress.stage("watch the table") as stage:
            before = _processor_seconds(processes)
            begin = time.monotonic()
            stamp_ns = _watch(client, query_time(scene, seed), stage)
            seconds = time.monotonic() - begin
            cores_used = {name: (s - before[name]) / seconds for name, s in _processor_seconds(processes).items()}
        perceived, published = client.scene(stamp_ns), client.ground_truth(stamp_ns)
        with progress.stage("imagine what will happen, and what would happen if") as stage:
            query_wall_ns = time.time_ns()
            scenarios, answer = _imagine_scenarios(client, perceived, plan, stage)
        with progress.stage("imagine with the baselines, and time many futures at once") as stage:
            hypotheses = tuple(q.hypothesis for q in scenarios)
            baselines = {name: client.imagine(_request(hypotheses, backend=name), perceived) for name in BASELINES}
            timings = _time_futures(client, perceived, plan)
            stage.detail(", ".join(f"{count} futures of 1 s: {1e3 * s:.0f} ms" for count, s in timings.items()))
            client.spin(plan.linger_s)
        with progress.stage("stop the graph"):
            processes.stop("camera")
            client.spin(0.3)
            processes.stop()
    return Capture(
        stamp_ns,
        perceived,
        published,
        scenarios,
        answer,
        baselines,
        timings,
        query_wall_ns,
        recording,
        latency,
        cores_used,
    )


def _processor_seconds(processes: ProcessGroup) -> dict[str, float]:
    """Processor time that each process has used [s]; empty where the system does not say."""
    seconds = {}
    for managed in processes:
        try:
            words = Path("/proc", str(managed.pid), "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seconds[managed.name] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _listeners(client: GraphClient) -> int:
    """How many of the graph's nodes listen to the camera (the recorder does so only once it publishes)."""
    return min(client.node.count_subscribers(topic) for topic in CAMERA_TOPICS)


def query_time(scene: str, seed: int) -> float:
    """Simulated time of the request [s]: just after the last object was set in motion.

    What is set in motion later, imagination cannot know; so it is no part of the ground truth either.
    """
    built = build_scene(load_scene(scene), seed)
    pushes = (InterventionKind.SET_VELOCITY, InterventionKind.APPLY_IMPULSE)
    starts = [action.time_offset for _, action in built.schedule if action.kind in pushes]
    wanted = max(starts) + AFTER_START_S if starts else QUERY_S
    return float(max(min(wanted, built.model.duration - REST_S), 0.0))


def _watch(client: GraphClient, query_s: float, stage: Stage) -> int:
    """Waits for a scene graph of the request's instant in which an object is seen to move; its stamp [ns]."""
    chosen = 0

    def due() -> bool:
        nonlocal chosen
        stamp_ns = client.latest_stamp_ns
        if stamp_ns:
            stage.detail(f"{stamp_ns * 1e-9:4.1f} s of {query_s:g} s, {len(client.graphs)} scene graphs")
        if stamp_ns <= chosen or stamp_ns < query_s * 1e9 - 1 or stamp_ns not in client.ground_truths:
            return False
        chosen = stamp_ns
        return stamp_ns > (query_s + PATIENCE_S) * 1e9 or _moving(client.scene(stamp_ns)) > 0

    client.wait_for(due, START_S + 12.0 * query_s, "a scene graph of the instant of the request")
    scene = client.scene(chosen)
    movable = int((~scene.is_static).sum())
    stage.detail(f"{movable} objects, {_moving(scene)} moving, {len(client.graphs)} scene graphs")
    return chosen


def _moving(scene: SceneGraph) -> int:
    """How many objects are seen to move."""
    return int((np.linalg.norm(scene.linear_velocities[~scene.is_static], axis=1) > MOVING_M_S).sum())


def _request(hypotheses: Any, backend: str = "auto", horizon_s: float = HORIZON_S, **more: Any) -> Any:
    return ImagineRequest(tuple(hypotheses), horizon_s, STEP_S, backend=backend, **more)


def _imagine_scenarios(
    client: GraphClient, scene: SceneGraph, plan: Plan, stage: Stage
) -> tuple[list[Scenario], Answer]:
    scenarios = choose_scenarios(scene)
    images = ImageRequest(video=True, depth=True, points=True, rate_hz=plan.video_rate_hz, camera=_camera(client, plan))
    count = 0

    def show(feedback: Any) -> None:
        nonlocal count
        count += bool(len(feedback.frame.data))
        stage.detail(
            f"{feedback.progress:4.0%}, {scenarios[feedback.hypothesis].name}: "
            + (f"frame at {feedback.frame_time:.1f} s" if len(feedback.frame.data) else "states")
        )

    request = _request([q.hypothesis for q in scenarios], images=images)
    answer = client.imagine_streaming(request, scene, show)
    stage.detail(
        f"{len(scenarios)} futures of {HORIZON_S:g} s, first feedback after {answer.first_feedback_s or 0.0:.2f} s, "
        f"{answer.feedbacks} in all, {len(answer.message.video)} images"
    )
    return scenarios, answer


def _camera(client: GraphClient, plan: Plan) -> Any:
    """The live camera, scaled to the size of imagined images."""
    got: list[Any] = []
    subscription = client.node.create_subscription(CameraInfo, "/camera/color/camera_info", got.append, qos.SENSOR)
    client.wait_for(lambda: bool(got), 10.0, "the camera's intrinsics")
    client.node.destroy_subscription(subscription)
    camera = camera_from_msg(got[0])
    x, y = plan.width / camera.width, plan.height / camera.height
    # Pixel centers lie at whole numbers, so the image's edge is at -0.5.
    return replace(
        camera,
        width=plan.width,
        height=plan.height,
        fx=camera.fx * x,
        fy=camera.fy * y,
        cx=(camera.cx + 0.5) * x - 0.5,
        cy=(camera.cy + 0.5) * y - 0.5,
    )


def _time_futures(client: GraphClient, scene: SceneGraph, plan: Plan) -> dict[int, float]:
    """Seconds from request to answer, by number of futures of one second each."""
    seconds = {}
    for n, count in enumerate(plan.timed_counts):
        request = _request(timing_hypotheses(scene, count), horizon_s=TIMED_HORIZON_S)
        seconds[count] = float(
            np.median([client.imagine(request, scene).round_trip_s for _ in range(1 if n else plan.repeats)])
        )
    return seconds
