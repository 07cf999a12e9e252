"""The benchmark of stillness: what it counts as moved, and what as resting on what was removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.imagination.start_changes import changes_summary, changes_table, start_changes
from benchmarks.imagination.still import ALL, CALM, measure, parse, resting_on, summary
from benchmarks.imagination.still_scenes import StaticScene, scenes_of
from wm_core.scene_graph import Predicate, Relation, SceneGraph, Shape
from wm_dynamics.factory import make_dynamics


def tower() -> SceneGraph:
    """A table (1), a tower of three boxes (2, 3, 4), and a box beside it (5), whose poses are known exactly."""
    positions = [(0, 0, -0.02), (0, 0, 0.03), (0, 0, 0.09), (0, 0, 0.15), (0.2, 0, 0.03)]
    return SceneGraph.build(
        range(1, 6),
        positions,
        [(1.0, 1.0, 0.04)] + [(0.06, 0.06, 0.06)] * 4,
        shapes=[Shape.BOX] * 5,
        class_names=["support"] + ["box"] * 4,
        is_static=[True] + [False] * 4,
    )


def test_what_rests_on_what() -> None:
    on = resting_on(tower())
    assert on[2, 1] and on[3, 2] and on[3, 1], "the tower, one by one and through one another"
    assert not on[1:4, 4].any() and not on[4, 1:].any() and on[1:, 0].all()
    related = replace(tower(), relations=(Relation(5, Predicate.ON, 4, 0.9, 0),))
    assert resting_on(related)[4, 1:4].all()


@pytest.mark.parametrize("name", ["still", "physics"])
def test_movement_is_counted(name: str) -> None:
    dynamics = make_dynamics(name)
    still, removals = measure(dynamics, StaticScene("seeds", "tower", tower()), True)
    assert still.moved_mm < 0.5 and still.objects == 4 and not still.moving
    assert [r.removed for r in removals] == [2, 3, 4, 5] and not any(r.moved for r in removals)
    hovering = tower()
    hovering.positions[4, 2] += 0.2
    still, removals = measure(dynamics, StaticScene("seeds", "hovering", hovering), True)
    falls = name == "physics"
    assert (still.moved_mm > 100.0) == falls and still.who == (5 if falls else still.who)
    assert [r.moved for r in removals] == ([[5], [5], [5], []] if falls else [[]] * 4)
    figures = summary([still], removals)
    assert figures[ALL]["over_5_mm"] == figures[CALM]["over_5_mm"] == int(falls)
    assert figures["seeds"]["removals_that_move_others"] == (3 if falls else 0)


def test_changes_of_the_start_are_counted_with_what_demands_them() -> None:
    uncertain = replace(tower(), pose_covariances=np.tile(np.diag([0.005**2] * 3 + [0.01**2] * 3), (5, 1, 1)))
    clear = start_changes(uncertain)
    assert max(clear.moved_mm) < 0.1 and clear.overlap_mm == [0.0] * 4 and not clear.left_mm and not clear.passing_mm
    uncertain.positions[4, 0] = 0.056
    beside = start_changes(uncertain)
    np.testing.assert_allclose(beside.moved_mm, [2.0, 0.0, 0.0, 2.0], atol=0.2)
    np.testing.assert_allclose(beside.overlap_mm, [4.0, 0.0, 0.0, 4.0], atol=0.01)
    uncertain.positions[4, 0] = 0.02
    inside = start_changes(uncertain)
    np.testing.assert_allclose(inside.passing_mm, [40.0], atol=0.1)
    assert max(inside.moved_mm) < 0.1
    figures = changes_summary([clear, beside, inside])
    assert figures["all"]["objects"] == 12 and figures["overlapping"]["objects"] == 2
    assert figures["beyond_overlap"]["worst_mm"] == 0.0 and figures["passing"] == 1
    assert changes_table(figures).row_count == 5


def test_arguments_and_missing_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scenes_of("real", 10, tmp_path) == []
    assert len(scenes_of("seeds", 7, tmp_path)) == 7
    assert np.all([parse(["--scenes", "3"]).scenes == 3, parse([]).backend == ["learned", "physics"]])
    with pytest.raises(SystemExit):
        parse(["--scenes", "0"])
    assert "--scenes: got 0, expected 1 to 1000" in capsys.readouterr().err
