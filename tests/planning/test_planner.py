"""The push planner: outlines, ways, pushes, plans, the commanded pusher, and tasks in closed loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_bringup.planning.push_pictures import draw_episode
from wm_bringup.planning.pushing import GOAL_TOLERANCE_M, estimated, run_episode
from wm_bringup.planning.tasks import make_task
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.engine import Imagination
from wm_planning.config import PlanError, PushPlannerConfig
from wm_planning.cost_to_go import CostToGo
from wm_planning.costs.imagined import ImaginedPushes
from wm_planning.costs.total import way_left
from wm_planning.futures import Futures, in_process
from wm_planning.outlines import gap, outline
from wm_planning.paths import PusherPose
from wm_planning.planner import PushPlanner
from wm_planning.table import without_pusher
from wm_sim.scene_model import load_scene
from wm_sim.scenes import build_scene
from wm_sim.simulator import Simulator

HOME = PusherPose(np.array([-0.3, 0.5, 1.1]), 0.0)
FEW = PushPlannerConfig(rollouts=12, rounds=1, elite=4)


def make_scene(*more: tuple[float, float, float, float]) -> SceneGraph:
    """A table with its top at 0.75, a cube of 6 cm at its center, and boxes (x, y, side, height)."""
    boxes = [(0.0, 0.0, 0.06, 0.06), *more]
    return SceneGraph.build(
        range(1, len(boxes) + 2),
        [(0.0, 0.0, 0.73), *((x, y, 0.75 + 0.5 * h) for x, y, _, h in boxes)],
        [(1.0, 1.3, 0.04), *((s, s, h) for _, _, s, h in boxes)],
        class_names=["support", *["object"] * len(boxes)],
        is_static=[True, *[False] * len(boxes)],
    )


def slid(scene, body, paths, horizon_s, step_s) -> Futures:
    """A stand-in of physics: the target (row 1) is taken along by as much as the paddle's face comes past it."""
    times = np.arange(round(horizon_s / step_s) + 1) * step_s
    states = np.zeros((len(paths), 1, len(times), len(scene) + 1, 13), np.float32)
    states[..., 6] = 1.0
    states[..., : len(scene), :3] = scene.positions
    for k in range(len(paths)):
        path = paths.one(k)
        for t, time_s in enumerate(times):
            pose = path.at(time_s)
            ahead = np.array([np.cos(pose.yaw), np.sin(pose.yaw)])
            place = states[k, 0, max(t - 1, 0), 1, :2].astype(float)
            past = 0.04 - (place - pose.position[:2]) @ ahead
            aside = abs((place - pose.position[:2]) @ [-ahead[1], ahead[0]])
            states[k, 0, t, 1, :2] = place + (max(past, 0.0) if aside < 0.06 and past < 0.05 else 0.0) * ahead
    return Futures(states, np.ones(len(paths), bool))


def test_outlines_and_gaps():
    box = outline(Shape.BOX, [0.1, 0.06, 0.2], [0, 0, 0, 1])
    ball = outline(Shape.SPHERE, [0.05] * 3, [0, 0, 0, 1])
    upright = outline(Shape.CYLINDER, [0.05, 0.05, 0.2], [0, 0, 0, 1])
    lying = outline(Shape.CYLINDER, [0.05, 0.05, 0.2], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    assert box[0] == pytest.approx(0.05) and box[8] == pytest.approx(0.03)
    assert np.allclose(ball, 0.025) and np.allclose(upright, 0.025)
    assert lying[8] == pytest.approx(0.1) and lying[0] == pytest.approx(0.025)
    assert gap(np.zeros(2), box, np.array([0.2, 0.0]), ball) == pytest.approx(0.125)
    assert gap(np.zeros(2), box, np.array([0.06, 0.0]), ball) < 0.0


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(-0.5, 0.5), st.floats(0.02, 0.1), st.floats(0.02, 0.1))
def test_a_gap_is_symmetric_and_never_more_than_the_distance(x, y, a, b):
    one, other = outline(Shape.SPHERE, [a] * 3, [0, 0, 0, 1]), outline(Shape.BOX, [b, b, b], [0, 0, 0, 1])
    there = np.array([x, y])
    found = gap(np.zeros(2), one, there, other)
    assert found == pytest.approx(gap(there, other, np.zeros(2), one), abs=1e-9)
    true = np.linalg.norm(np.maximum(np.abs(there) - 0.5 * b, 0.0)) - 0.5 * a
    assert found <= max(true, 0.0) + 1e-9


def test_the_way_leads_around_a_tall_thing():
    own = outline(Shape.BOX, [0.06, 0.06, 0.06], [0, 0, 0, 1])
    low, high, goal = np.array([-0.5, -0.65]), np.array([0.5, 0.65]), np.array([0.3, 0.0])
    nothing = np.zeros((0, 2)), np.zeros((0, len(own))), np.zeros(0, bool)
    free = CostToGo(low, high, goal, own, *nothing)
    blocked = CostToGo(low, high, goal, own, np.array([[0.15, 0.0]]), own[None], np.array([True]))
    start = np.zeros(2)
    assert free(start) == pytest.approx(0.3, abs=0.01)
    assert free(goal) == 0.0
    assert blocked(start) > free(start) + 0.03
    assert free.heading(start) @ [1.0, 0.0] > 0.99
    assert free(np.array([0.0, 2.0])) > 2.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_pushes_start_where_the_paddle_is_and_end_at_rest(seed):
    config = PushPlannerConfig()
    planner, rng = PushPlanner(slid, config), np.random.default_rng(seed)
    controls = planner._limited(rng.normal(0.0, 1.0, (5, 7)))
    starts = rng.uniform(-0.3, 0.3, (5, 3))
    paths = planner.paths(starts, rng.uniform(-3, 3, 5), controls)
    assert np.array_equal(paths.positions[:, 0], starts)
    assert np.array_equal(paths.positions[:, -1], paths.positions[:, -2])
    speeds = np.linalg.norm(np.diff(paths.positions, axis=1), axis=2) / np.diff(paths.times)
    assert speeds.max() <= np.hypot(1.0, 0.4) * config.max_speed_m_s + 1e-9
    assert speeds[:, 0].max() < 0.2 * config.max_speed_m_s


def test_a_target_is_approached_from_behind_then_pushed_home():
    planner, scene, pose = PushPlanner(slid, PushPlannerConfig(), 1), make_scene(), HOME
    goal, positions, kinds = np.array([0.25, 0.1]), scene.positions.copy(), []
    for _ in range(12):
        scene = make_scene()
        scene.positions[1] = positions[1]
        plan = planner.plan(scene, 2, goal, pose)
        kinds.append(plan.kind)
        assert np.allclose(plan.path.positions[0], pose.position, atol=1e-6)
        if plan.kind == "push":
            positions[1, :2] = plan.target_way[-1]
        pose = plan.path.end
        if plan.kind == "done":
            break
    assert kinds[0] == "carry" and kinds[1] == "push" and kinds[-1] == "done"
    assert np.linalg.norm(positions[1, :2] - goal) < GOAL_TOLERANCE_M
    assert pose.position[2] - 0.05 > 0.81  # lifted off the cube


def test_the_paddle_is_carried_over_everything():
    planner, scene = PushPlanner(slid, FEW, 0), make_scene((0.12, 0.0, 0.04, 0.25))
    plan = planner.plan(scene, 2, [0.3, 0.0], HOME)
    assert plan.kind == "carry"
    path = plan.path
    down = path.positions[:, 2] - 0.5 * FEW.paddle[2] < 1.0
    # Where it is low, it is at the place where it is let down.
    assert np.allclose(path.positions[down, :2], path.positions[-1, :2], atol=1e-6)


def test_a_plan_that_topples_or_runs_into_the_tall_thing_costs_more():
    scene = make_scene((0.15, 0.0, 0.04, 0.25))

    def falling(scene, body, paths, horizon_s, step_s):
        futures = slid(scene, body, paths, horizon_s, step_s)
        angle = np.linspace(0.0, 1.2, futures.states.shape[2])
        futures.states[::2, :, :, 2, 4] = np.sin(0.5 * angle)
        futures.states[::2, :, :, 2, 6] = np.cos(0.5 * angle)
        return futures

    plan = PushPlanner(falling, FEW, 0).plan(scene, 2, [-0.3, 0.0], HOME)
    assert plan.costs[::2].min() > 5.0 and plan.cost < 1.0


def test_plans_are_reproducible_and_see_no_paddle():
    scene = make_scene((0.1, 0.1, 0.05, 0.05))
    one, two = (PushPlanner(slid, FEW, 3).plan(scene, 2, [0.3, 0.0], HOME) for _ in range(2))
    assert np.array_equal(one.path.positions, two.path.positions) and one.cost == two.cost
    # An object within the paddle's own bounds is the paddle.
    here = PusherPose(scene.positions[2], 0.0)
    assert without_pusher(scene, here, FEW.paddle).ids.tolist() == [1, 2]
    assert without_pusher(scene, None, FEW.paddle).ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("target", "goal", "field"),
    [(9, (0.1, 0.0), "target_id"), (1, (0.1, 0.0), "target_id"), (2, (3.0, 0.0), "goal"), (2, (np.nan, 0.0), "goal")],
)
def test_what_cannot_be_planned_for_is_said(target, goal, field):
    with pytest.raises(PlanError, match=field):
        PushPlanner(slid, FEW).plan(make_scene(), target, goal, HOME)


def test_settings_are_checked_and_no_answer_is_an_error():
    for wrong in ({"elite": 2}, {"rounds": 0}, {"execute_s": 2.0}, {"horizon_s": 0.5, "execute_s": 0.5}):
        with pytest.raises(PlanError, match=next(iter(wrong))):
            PushPlannerConfig(**wrong)

    def nothing(scene, body, paths, horizon_s, step_s):
        futures = slid(scene, body, paths, horizon_s, step_s)
        return Futures(futures.states, np.zeros(len(paths), bool))

    with pytest.raises(PlanError, match="no future that is valid, expected at least one: none was computed in time"):
        PushPlanner(nothing, FEW).plan(make_scene(), 2, [0.2, 0.0], HOME)


def test_a_future_that_is_not_valid_is_never_chosen():
    """Not the best one, and not where its states are no numbers; with no other left, the reason is said."""
    plan = PushPlanner(slid, FEW).plan(make_scene(), 2, [0.2, 0.0], HOME)
    best = int(np.argmin(plan.costs))

    def without(rows):
        def ask(scene, body, paths, horizon_s, step_s):
            futures = slid(scene, body, paths, horizon_s, step_s)
            done = np.ones(len(paths), bool)
            done[rows] = False
            futures.states[rows] = np.nan
            return Futures(futures.states, done, tuple("" if d else "5 bottle: 2e+09 m/s" for d in done))

        return ask

    other = PushPlanner(without([best]), FEW).plan(make_scene(), 2, [0.2, 0.0], HOME)
    assert np.isinf(other.costs[best]) and int(np.argmin(other.costs)) != best
    assert np.array_equal(np.delete(other.costs, best), np.delete(plan.costs, best))
    with pytest.raises(PlanError, match=r"2e\+09 m/s"):
        PushPlanner(without(slice(None)), FEW).plan(make_scene(), 2, [0.2, 0.0], HOME)


# -- the simulator's pusher


def test_a_commanded_pusher_follows_from_where_it_is():
    task = make_task(0)
    with Simulator(build_scene(task.scene, 0), 0, 64, 48) as simulator:
        home, quaternion = simulator.pusher_pose()
        end = home + [0.0, -0.2, 0.05]
        simulator.command_pusher([0.0, 1.0], [home, end], [quaternion] * 2)
        simulator.advance_to(0.5)
        assert np.allclose(simulator.pusher_pose()[0], 0.5 * (home + end), atol=6e-3)
        before = simulator.snapshot()
        simulator.advance_to(1.5)
        assert np.allclose(simulator.pusher_pose()[0], end, atol=1e-6)
        simulator.restore(before)
        # In mid-air it is told otherwise: it goes on from there.
        middle = simulator.pusher_pose()[0]
        simulator.command_pusher([0.3], [home], [quaternion])
        simulator.step()
        assert np.linalg.norm(simulator.pusher_pose()[0] - middle) < 0.03
        simulator.advance_to(1.0)
        assert np.allclose(simulator.pusher_pose()[0], home, atol=1e-6)


def test_a_commanded_pusher_pushes():
    task = make_task(0)
    with Simulator(build_scene(task.scene, 0), 0, 64, 48) as simulator:
        target = simulator.scene.names.index("target")
        place = simulator.live.states()[target, :3]
        q = [0.0, 0.0, 0.0, 1.0]
        start = np.array([place[0] - 0.10, place[1], 0.806])
        above = start + [0.0, 0.0, 0.3]
        simulator.command_pusher([1.0, 1.5, 2.5], [above, start, start + [0.12, 0, 0]], [q] * 3)
        simulator.advance_to(3.0)
        assert simulator.live.states()[target, 0] > place[0] + 0.03


@pytest.mark.parametrize(
    ("times", "positions", "quaternions", "words"),
    [
        ([], [], [], "expected as many"),
        ([0.0, 0.0], [[0, 0, 1]] * 2, [[0, 0, 0, 1]] * 2, "ascending"),
        ([0.0], [[np.nan, 0, 1]], [[0, 0, 0, 1]], "finite"),
        ([0.0], [[0, 0, 1]], [[0, 0, 0, 2]], "unit"),
    ],
)
def test_paths_that_are_none_are_refused(times, positions, quaternions, words):
    with (
        Simulator(build_scene(make_task(0).scene, 0), 0, 64, 48) as simulator,
        pytest.raises(ValueError, match=words),
    ):
        simulator.command_pusher(times, positions, quaternions)


def test_a_scene_without_a_pusher_takes_no_command():
    with (
        Simulator(load_scene("stack_knock"), 0, 64, 48) as simulator,
        pytest.raises(ValueError, match="it has none"),
    ):
        simulator.pusher_pose()


# -- tasks


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_tasks_are_as_described(seed):
    task = make_task(seed)
    things = {o.name: np.array(o.position[:2]) for o in task.scene.objects}
    assert 0.2 <= np.linalg.norm(task.goal - things["target"]) <= 0.4
    assert 3 <= len(things) <= 6
    assert (np.abs(task.goal) < [0.5, 0.65]).all()
    assert make_task(seed).scene == task.scene


def test_the_belief_is_near_the_truth_and_knows_no_masses():
    task = make_task(1)
    with Simulator(build_scene(task.scene, 1), 1, 64, 48) as simulator:
        truth = simulator.ground_truth()
    seen = estimated(truth, np.random.default_rng(0))
    moved = ~truth.is_static
    assert 0.0 < np.abs(seen.positions - truth.positions)[moved].max() < 0.02
    assert np.array_equal(seen.positions[~moved], truth.positions[~moved])
    assert not np.allclose(seen.log_mass[moved], truth.log_mass[moved])
    assert np.linalg.eigvalsh(seen.pose_covariances).min() >= 0.0


@pytest.mark.slow
def test_a_task_is_done_with_physics_and_drawn(tmp_path):
    cycles = []
    episode = run_episode(
        "physics", 12, config=PushPlannerConfig(rollouts=24, rounds=1), keep_steps=True,
        on_cycle=lambda number, plan: cycles.append(plan.kind),
    )  # fmt: skip
    assert episode.success, episode.reason
    assert episode.distance_m < GOAL_TOLERANCE_M and cycles[-1] == "done"
    assert len(episode.plan_seconds) == len(cycles) - 1
    draw_episode(episode, tmp_path / "task.png")
    assert (tmp_path / "task.png").stat().st_size > 10_000


def test_nobody_who_knows_of_no_contact_gets_it_done():
    episode = run_episode("still", 12, config=FEW, max_cycles=3)
    assert not episode.success and "from the goal" in episode.reason


def test_the_imagination_of_this_process_answers_paths():
    ask = in_process(Imagination(), "straight")
    planner = PushPlanner(ask, FEW)
    plan = planner.plan(make_scene(), 2, [0.2, 0.0], HOME)
    assert plan.imagined == 12 and len(plan.target_way) == 11


def test_a_planner_with_costs_of_its_own() -> None:
    """Whoever wants something else says so with a function; the weights of the others stay."""
    seen: list[ImaginedPushes] = []

    def to_the_left(pushes: ImaginedPushes) -> np.ndarray:
        seen.append(pushes)
        return 10.0 * np.clip(0.1 - pushes.place[:, :, -1, 1], 0.0, None)  # (K, S)

    goal = np.array([0.2, 0.0])
    plan = PushPlanner(slid, FEW, costs=(way_left, to_the_left)).plan(make_scene(), 2, goal, HOME)
    (pushes,) = seen
    expected = (way_left(pushes) + to_the_left(pushes)).mean(axis=1)
    np.testing.assert_allclose(plan.costs, expected)
    assert plan.costs.shape == (12,) and plan.cost == plan.costs.min()
