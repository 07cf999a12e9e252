"""The push planner over a live graph: the simulated table and the imagination as processes, a task in closed loop."""

from __future__ import annotations

import pytest

from wm_bringup.planning.plan import main, run_graph, write_scene
from wm_bringup.planning.pushing import GOAL_TOLERANCE_M
from wm_bringup.planning.tasks import make_task
from wm_planning.config import PushPlannerConfig
from wm_sim.scene_model import load_scene

EASY_SEED = 12


@pytest.mark.ros
@pytest.mark.slow
def test_a_task_is_done_over_ros(tmp_path):
    cycles = []
    few = PushPlannerConfig(rollouts=16, rounds=1)
    result, distance = run_graph(
        EASY_SEED,
        "physics",
        tmp_path,
        config=few,
        image=(160, 120),
        on_cycle=lambda number, plan: cycles.append(plan.kind),
    )
    assert result.done and distance < GOAL_TOLERANCE_M, (cycles, distance)
    assert cycles[0] == "carry" and cycles[-1] == "done" and "push" in cycles
    assert "refused" not in (tmp_path / "logs" / "camera.log").read_text()


def test_a_task_is_a_scene_file(tmp_path):
    task = make_task(EASY_SEED)
    assert load_scene(str(write_scene(task, tmp_path / "task.yaml"))) == task.scene


def test_what_a_running_graph_needs_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        main(["--live"])
    assert "--target" in capsys.readouterr().err
