"""Push tasks (``tasks``) carried out on the simulated table in closed loop: observe, plan by imagined futures, push.

A task is done when the center of its target is within 3 cm of the goal, the tall object stands, and every object is on
the table. A task to a pose is done within 2 cm and 10 degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_bringup.planning.tasks import Task, make_task
from wm_core.constants import TOPPLE_ANGLE_RAD
from wm_core.convex_parts import ConvexPart
from wm_core.rotations import quaternion_to_matrix, roll_pitch_yaw, turn_about_z
from wm_core.scene_graph import (
    PRIOR_FRICTION,
    PRIOR_FRICTION_STD,
    PRIOR_LOG_MASS_STD,
    PRIOR_RESTITUTION,
    PRIOR_RESTITUTION_STD,
    SceneGraph,
    shape_volume,
)
from wm_imagination.engine import Imagination
from wm_planning.config import PlanError, PushPlannerConfig
from wm_planning.futures import Imagine, in_process
from wm_planning.paths import PusherPath, PusherPose
from wm_planning.planner import Plan, PushPlanner
from wm_sim.scenes import build_scene
from wm_sim.simulator import FRAME_RATE_HZ, Simulator

Array = NDArray[np.float64]

GOAL_TOLERANCE_M = 0.03
"""Part of the task (docs/planning.md)."""
MAX_CYCLES = 30
"""A task that takes more cycles has failed; those that succeed take a few."""
MAX_POSE_CYCLES = 60
"""The same, where the target has to be turned as well: a carry and a push are two cycles."""
SETTLE_S = 0.2
"""After a push, until objects are at rest; longer makes tasks take longer in simulated time."""

# Standard deviations of what perception errs by on this table, about (docs/perception_bench.md): for ``estimated``.
NOISE_POSITION_M = 0.003
NOISE_YAW_RAD = 0.02
NOISE_SIZE = 0.02


@dataclass
class Step:
    """One cycle.

    Attributes:
        plan: that was carried out.
        ground_truth: the true scene before it.
        pusher: the paddle's pose before it.
    """

    plan: Plan
    ground_truth: SceneGraph
    pusher: PusherPose


@dataclass
class Episode:
    """The outcome of a task.

    Attributes:
        seed, backend, task: what was run.
        success: see the module; reason: what failed, in words.
        distance_m: from the target's center to the goal at the end; turn_rad: the turn that it lacks then, about the
            vertical, 0 where the task has none.
        plan_seconds: wall-clock time of planning in each cycle with imagined futures.
        simulated_s: simulated time of the whole task.
        steps: the cycles, where they are kept.
        end: the true scene at the end.
        track: (time [s], positions (n, 3) [m], quaternions (n, 4)) of all bodies at 30 Hz, where they are kept.
    """

    seed: int
    backend: str
    success: bool
    reason: str
    distance_m: float
    plan_seconds: list[float]
    simulated_s: float
    task: Task
    steps: list[Step] = field(default_factory=list)
    end: SceneGraph | None = None
    track: list[tuple[float, Array, Array]] = field(default_factory=list)
    turn_rad: float = 0.0


def estimated(ground_truth: SceneGraph, rng: np.random.Generator) -> SceneGraph:
    """The true scene with errors like perception's: centers to 3 mm, yaws to 1 degree, sizes to 2 %.

    Masses, frictions and restitutions are the prior's, not the true ones.
    """
    count = len(ground_truth)
    moved = ~ground_truth.is_static
    positions, quaternions, extents = (
        ground_truth.positions.copy(),
        ground_truth.quaternions.copy(),
        ground_truth.extents.copy(),
    )
    positions[moved, :2] += NOISE_POSITION_M * rng.standard_normal((int(moved.sum()), 2))
    turn = Rotation.from_euler("z", NOISE_YAW_RAD * rng.standard_normal(count))
    quaternions[moved] = (turn * Rotation.from_quat(quaternions)).as_quat()[moved]
    # The prior of the mass is about the size as seen.
    extents[moved] *= 1.0 + NOISE_SIZE * rng.standard_normal((int(moved.sum()), 1))
    covariance = np.diag([NOISE_POSITION_M**2] * 2 + [0.001**2] + [0.005**2] * 2 + [NOISE_YAW_RAD**2])
    covariances = np.where(moved[:, None, None], covariance, ground_truth.pose_covariances)
    twist = np.where(moved[:, None, None], 0.01**2 * np.eye(6), ground_truth.twist_covariances)
    volumes = np.array([shape_volume(int(s), e) for s, e in zip(ground_truth.shapes, extents, strict=True)])
    return replace(
        ground_truth,
        positions=positions,
        quaternions=quaternions,
        extents=extents,
        parts=tuple(
            tuple(_scaled(part, extents[i] / ground_truth.extents[i]) for part in own) if moved[i] else own
            for i, own in enumerate(ground_truth.parts)
        ),
        hulls=tuple(
            h * (extents[i] / ground_truth.extents[i]) if len(h) and moved[i] else h
            for i, h in enumerate(ground_truth.hulls)
        ),
        pose_covariances=covariances,
        twist_covariances=twist,
        log_mass=np.where(moved, np.log(400.0 * np.maximum(volumes, 1e-9)), ground_truth.log_mass),
        log_mass_std=np.full(count, PRIOR_LOG_MASS_STD),
        friction=np.where(moved, PRIOR_FRICTION, ground_truth.friction),
        friction_std=np.full(count, PRIOR_FRICTION_STD),
        restitution=np.where(moved, PRIOR_RESTITUTION, ground_truth.restitution),
        restitution_std=np.full(count, PRIOR_RESTITUTION_STD),
    )


def _scaled(part: ConvexPart, scale: Array) -> ConvexPart:
    """A part of an object that is larger by a factor, the same (3,) along all axes."""
    return replace(part, extents=part.extents * scale, position=part.position * scale, hull=part.hull * scale)


class Observer:
    """Perception in this process, on images of the simulator's camera at 15 Hz, without the paddle itself.

    Attributes:
        scene: newest scene graph; None: none yet.
    """

    def __init__(self, simulator: Simulator, paddle: ArrayLike) -> None:
        from wm_perception.pipeline import PerceptionPipeline
        from wm_perception.types import PerceptionConfig

        self._simulator, self._pipeline = simulator, PerceptionPipeline(PerceptionConfig())
        self._paddle = np.asarray(paddle, dtype=np.float64)
        self.scene: SceneGraph | None = None

    def observe(self) -> None:
        """Process the simulator's frame, if its number is even."""
        from wm_perception.lifting.self_filter import OwnBox, without_own_body
        from wm_perception.types import Frame

        simulator = self._simulator
        if simulator.frame % 2:
            return
        seen = simulator.render()
        stamp_ns = simulator.stamp_ns + 1  # a stamp of zero means that there is none
        frame = Frame(stamp_ns, seen.rgb, seen.depth, simulator.camera, seen.world_T_camera)
        own = OwnBox(self._paddle, *simulator.pusher_pose())
        self.scene = self._pipeline.process(without_own_body(frame, [own])).scene

    def nearest(self, place: Array) -> int:
        """Id of the movable object that is seen nearest to a place (3,) [m].

        Raises:
            PlanError: none within 5 cm.
        """
        rows = np.zeros(0, dtype=int) if self.scene is None else np.flatnonzero(~self.scene.is_static)
        if len(rows):
            apart = np.linalg.norm(self.scene.positions[rows] - place, axis=1)  # type: ignore[union-attr]
            if apart.min() < 0.05:
                return int(self.scene.ids[rows[int(apart.argmin())]])  # type: ignore[union-attr]
        raise PlanError(f"target: perception sees nothing within 5 cm of {np.round(place, 3).tolist()}")


@lru_cache(maxsize=4)
def _imagination(backend: str) -> Imagination:
    return Imagination(backend=backend)


def _pose(simulator: Simulator) -> PusherPose:
    position, quaternion = simulator.pusher_pose()
    return PusherPose(position, float(roll_pitch_yaw(quaternion)[2]))


def _bare(task: Task) -> Any:
    """The scene without materials: the same physics, and nothing to draw."""
    scene = build_scene(task.scene, task.seed)
    bodies = tuple(replace(b, geoms=tuple(replace(g, material="") for g in b.geoms)) for b in scene.bodies)
    return replace(scene, bodies=bodies)


def _open(task: Task, perceived: bool) -> Simulator:
    """The task's world: 640x480 images for perception, else nothing to draw."""
    if perceived:
        return Simulator(build_scene(task.scene, task.seed), task.seed)
    return Simulator(_bare(task), task.seed, 64, 48, decorate=lambda _: None)


def follow(simulator: Simulator, path: PusherPath, on_frame: Callable[[], None] = lambda: None) -> None:
    """Carry out a path and let objects come to rest; ``on_frame`` is called at each of the simulator's frames."""
    simulator.command_pusher(path.times, path.positions, path.quaternions)
    for _ in range(int(np.ceil((path.duration_s + SETTLE_S) * FRAME_RATE_HZ))):
        simulator.step()
        on_frame()


def turned(quaternion: Array, turn: float | None) -> Array | None:
    """A quaternion (4,) xyzw turned about the vertical by an angle [rad]; None: no angle."""
    return None if turn is None else (Rotation.from_euler("z", turn) * Rotation.from_quat(quaternion)).as_quat()


def judge(task: Task, simulator: Simulator, start: SceneGraph) -> tuple[bool, str, float, float]:
    """Whether the task is done, what is wrong if not, and the target's distance [m] and turn [rad] from the goal."""
    scene, ground_truth = simulator.scene, simulator.ground_truth()
    name = scene.id_of(task.target)
    index = ground_truth.index(name)
    distance = float(np.linalg.norm(ground_truth.positions[index, :2] - task.goal))
    goal = turned(start.quaternions[start.index(name)], task.turn)
    turn = 0.0 if goal is None else float(turn_about_z(goal, ground_truth.quaternions[index]))
    wrong = []
    for i in range(len(ground_truth)):
        if ground_truth.is_static[i] or ground_truth.class_names[i] == "pusher":
            continue
        if ground_truth.positions[i, 2] < scene.table_top_z:
            wrong.append(f"{scene.names[scene.ids.index(int(ground_truth.ids[i]))]} fell off the table")
    if task.tall:
        tall = ground_truth.index(scene.id_of(task.tall))
        before = quaternion_to_matrix(start.quaternions[start.index(scene.id_of(task.tall))])
        now = quaternion_to_matrix(ground_truth.quaternions[tall])
        if float(np.arccos(np.clip(now[2] @ before[2], -1.0, 1.0))) > TOPPLE_ANGLE_RAD:
            wrong.append("the tall object toppled")
    if distance > task.tolerance_m:
        wrong.append(f"{1e3 * distance:.0f} mm from the goal")
    if abs(turn) > task.tolerance_rad:
        wrong.append(f"{np.degrees(abs(turn)):.0f} degrees from the goal")
    return not wrong, ", ".join(wrong), distance, turn


def _goal_as_seen(
    task: Task, start: SceneGraph, scene: SceneGraph, true_id: int, target_id: int
) -> tuple[Array, Array | None]:
    """Where the target's center shall be (2,) [m] and its orientation (4,), in the axes that it was first seen with.

    The task says how the target shall be moved from its start; perception may have given it other axes and another
    center than the simulator, which move along.
    """
    row = start.index(true_id)
    if task.turn is None or target_id not in scene.ids:
        return task.goal, None
    seen = scene.index(target_id)
    offset = scene.positions[seen, :2] - start.positions[row, :2]
    moved = Rotation.from_euler("z", task.turn).apply([*offset, 0.0])[:2]
    return task.goal + moved, turned(scene.quaternions[seen], task.turn)


def run_episode(
    backend: str,
    seed: int,
    perceived: bool = False,
    *,
    task: Task | None = None,
    config: PushPlannerConfig | None = None,
    samples: int = 1,
    max_cycles: int | None = None,
    imagine: Imagine | None = None,
    keep_steps: bool = False,
    on_cycle: Callable[[int, Plan], None] = lambda number, plan: None,
) -> Episode:
    """One task from start to end, the simulator as the world. The same arguments give the same episode.

    Args:
        backend: of the imagination: learned, physics, straight, still, auto.
        seed: of the task, of the errors of ``estimated``, and of the planner's draws.
        perceived: plan from the perception pipeline on rendered images, not from ``estimated``.
        task: to carry out; None: ``make_task`` of the seed.
        config: of the planner; None: its defaults, for a task to a pose ``PushPlannerConfig.for_poses``.
        samples: of the perceived state, for each path.
        max_cycles: after which the task has failed; None: ``MAX_CYCLES``, to a pose ``MAX_POSE_CYCLES``.
        imagine: used in place of this process's imagination.
        keep_steps: keep the cycles, and the poses of all bodies at 30 Hz, for pictures.
        on_cycle: called with the number of a cycle and its plan.

    Raises:
        BackendUnavailableError, wm_core.inference.backends.InferenceError: the backend cannot run here.
    """
    task = make_task(seed) if task is None else task
    to_pose = task.turn is not None
    if config is None:
        config = PushPlannerConfig.for_poses() if to_pose else PushPlannerConfig()
    if max_cycles is None:
        max_cycles = MAX_POSE_CYCLES if to_pose else MAX_CYCLES
    planner = PushPlanner(imagine or in_process(_imagination(backend), backend, samples, seed), config, seed)
    rng = np.random.default_rng([seed, 815])
    with _open(task, perceived) as simulator:
        start = simulator.ground_truth()
        target_id = simulator.scene.id_of(task.target)
        episode = Episode(seed, backend, False, "", np.inf, [], 0.0, task)
        observer = Observer(simulator, config.paddle) if perceived else None

        def on_frame() -> None:
            if observer is not None:
                observer.observe()
            if keep_steps:
                states = simulator.live.states()
                episode.track.append((simulator.time_s, states[:, :3].copy(), states[:, 3:7].copy()))

        def wait(seconds: float) -> None:
            for _ in range(round(seconds * FRAME_RATE_HZ)):
                simulator.step()
                on_frame()

        on_frame()
        try:
            if observer is not None:
                wait(1.0)
                target_id = observer.nearest(start.positions[start.index(target_id)])
            goal: tuple[Array, Array | None] | None = None
            for number in range(max_cycles):
                pusher, ground_truth = _pose(simulator), simulator.ground_truth()
                scene = observer.scene if observer is not None else estimated(ground_truth, rng)
                assert scene is not None
                if goal is None:
                    goal = _goal_as_seen(task, start, scene, simulator.scene.id_of(task.target), target_id)
                plan = planner.plan(scene, target_id, goal[0], pusher, goal[1])
                if keep_steps:
                    episode.steps.append(Step(plan, ground_truth, pusher))
                if plan.imagined:
                    episode.plan_seconds.append(plan.seconds)
                on_cycle(number, plan)
                follow(simulator, plan.path, on_frame)
                if plan.kind == "done":
                    break
        except PlanError as error:
            episode.reason = f"no plan: {error}"
        wait(0.5)
        success, reason, distance, episode.turn_rad = judge(task, simulator, start)
        episode.success = success
        episode.reason = ", ".join(r for r in (episode.reason, reason) if r)
        episode.distance_m, episode.simulated_s, episode.end = distance, simulator.time_s, simulator.ground_truth()
    return episode
