"""Pictures of push tasks: the pushes seen from above, and a video of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from wm_bringup.planning.pushing import Episode
from wm_core.scene_graph import SceneGraph
from wm_planning.config import PushPlannerConfig
from wm_planning.outlines import outline

Array = NDArray[np.float64]

_ANGLES = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)


def _ring(support: Array, center: Array) -> Array:
    """(D, 2) polygon whose support function is given: where neighboring supporting lines meet."""
    n = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    a, b = n, np.roll(n, -1, axis=0)
    determinant = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    next_support = np.roll(support, -1)
    x = (support * b[:, 1] - next_support * a[:, 1]) / determinant
    y = (next_support * a[:, 0] - support * b[:, 0]) / determinant
    return np.asarray(np.stack([x, y], axis=1) + center)


def _paddle(position: Array, yaw: float) -> Array:
    thick, wide, _ = PushPlannerConfig().paddle
    corners = 0.5 * np.array([[thick, wide], [-thick, wide], [-thick, -wide], [thick, -wide]])
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return np.asarray(corners @ turn.T + position[:2])


def _draw_objects(axes: Any, scene: SceneGraph, task: Any, ids: dict[str, int], alpha: float) -> None:
    for i in range(len(scene)):
        if scene.is_static[i] or scene.class_names[i] == "pusher":
            continue
        rings = [
            _ring(
                outline(int(scene.shapes[i]), scene.extents[i], scene.quaternions[i], scene.hulls[i]),
                scene.positions[i, :2],
            )
        ]
        if scene.parts[i]:
            turn = Rotation.from_quat(scene.quaternions[i])
            clouds = [turn.apply(p.points())[:, :2] + scene.positions[i, :2] for p in scene.parts[i]]
            rings = [c[ConvexHull(c).vertices] for c in clouds]
        is_tall = int(scene.ids[i]) == ids.get(task.tall)
        for ring in rings:
            axes.fill(
                ring[:, 1], ring[:, 0], color=scene.colors[i], alpha=alpha, ec="black", lw=2.0 if is_tall else 0.6
            )


def _draw_goal_pose(axes: Any, episode: Episode) -> None:
    """The edges of the target's parts where they shall be, dashed; nothing where the task has no orientation."""
    task = episode.task
    if task.turn is None or not episode.steps:
        return
    start = episode.steps[0].ground_truth
    names = ["table", *(o.name for o in task.scene.objects)]
    row = start.index(1 + names.index(task.target))
    turn = Rotation.from_euler("z", task.turn) * Rotation.from_quat(start.quaternions[row])
    for part in start.parts[row]:
        points = turn.apply(part.points())[:, :2] + task.goal
        edge = points[ConvexHull(points).vertices]
        axes.fill(edge[:, 1], edge[:, 0], fc="none", ec="#00796b", lw=1.4, ls="--")


def draw_episode(episode: Episode, path: Path) -> None:
    """One picture, seen from above with the camera's side below: objects before and after, pushes, the target's path.

    Expects an episode that kept its steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.5), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    task = episode.task
    names = ["table", *(o.name for o in task.scene.objects), *(p.name for p in task.scene.pushers)]
    ids = {name: 1 + k for k, name in enumerate(names)}
    half = 0.5 * np.array(task.scene.table.size[:2])
    axes.fill(
        [-half[1], half[1], half[1], -half[1]], [-half[0], -half[0], half[0], half[0]], color="#e8dcc8", ec="black"
    )
    if episode.steps:
        _draw_objects(axes, episode.steps[0].ground_truth, task, ids, 0.35)
    if episode.end is not None:
        _draw_objects(axes, episode.end, task, ids, 0.95)
    if episode.track:
        index = names.index(task.target)
        way = np.array([frame[1][index, :2] for frame in episode.track])
        axes.plot(way[:, 1], way[:, 0], color="#b00020", lw=1.6, label="the target's path")
    for number, step in enumerate(episode.steps):
        if step.plan.kind == "push":
            start, end = _paddle(step.pusher.position, step.pusher.yaw), _paddle(*_pose_of(step.plan.path.end))
            axes.fill(start[:, 1], start[:, 0], fc="none", ec="#38506b", lw=0.8)
            axes.fill(end[:, 1], end[:, 0], color="#38506b", alpha=0.35)
            axes.plot(*step.plan.path.positions[:, 1::-1].T, color="#38506b", lw=0.8)
            x, y = step.plan.path.positions[0, :2]
            axes.text(y, x, str(number), fontsize=7)
            axes.plot(*step.plan.target_way[:, ::-1].T, color="#ff9800", lw=1.0, ls="--")
    ring = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1) * task.tolerance_m + task.goal
    axes.fill(ring[:, 1], ring[:, 0], fc="none", ec="#00796b", lw=1.8)
    axes.plot(task.goal[1], task.goal[0], "+", color="#00796b", ms=9)
    axes.set_aspect("equal")
    axes.invert_xaxis()  # y to the left, as the camera sees it
    axes.set_xlabel("y [m]")
    axes.set_ylabel("x [m], away from the camera")
    _draw_goal_pose(axes, episode)
    what = "done" if episode.success else f"failed: {episode.reason}"
    axes.set_title(
        f"task {episode.seed}, {episode.backend}: {what}\n"
        f"{len(episode.steps)} cycles, {1e3 * episode.distance_m:.0f} mm from the goal; dashed: imagined",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)


def _pose_of(pose: Any) -> tuple[Array, float]:
    return pose.position, pose.yaw


def write_episode_video(episode: Episode, path: Path, width: int = 640, height: int = 480) -> None:
    """An H.264 video at 30 Hz from the table's camera, with the goal marked. Expects kept steps."""
    from wm_bringup.report.drawing import TRUE, Drawing, VideoWriter
    from wm_core.geometry import invert_transform
    from wm_sim.scenes import build_scene
    from wm_sim.simulator import Simulator

    task = episode.task
    with (
        Simulator(build_scene(task.scene, task.seed), task.seed, width, height) as simulator,
        VideoWriter(path, 30, (width, height)) as video,
    ):
        pose = simulator.world_T_camera()
        ring = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1) * task.tolerance_m + task.goal
        points = np.column_stack([ring, np.full(len(ring), simulator.scene.table_top_z + 0.001)])
        seen = points @ invert_transform(pose)[:3, :3].T + invert_transform(pose)[:3, 3]
        camera = simulator.camera
        pixels = seen[:, :2] / seen[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
        pixels = np.concatenate([pixels, pixels[:1]])
        states = simulator.live.states()
        present = np.ones(len(states), bool)
        for time_s, positions, quaternions in episode.track:
            states[:, :3], states[:, 3:7] = positions, quaternions
            picture, _, _ = simulator.look(states, present, pose)
            drawing = Drawing.of(picture)
            drawing.curve(pixels, TRUE, 2)
            drawing.text(12, 10, f"{time_s:5.1f} s", 20)
            video.add(drawing.pixels)
