"""What-ifs on household objects: the arithmetic of their figures, on futures made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.imagination import household as bench
from benchmarks.imagination.household import (
    KINDS,
    Errors,
    World,
    asked_of,
    document_of,
    errors_of,
    seeds_of,
    whatif_case,
)
from benchmarks.imagination.scenarios import pushes_and_removals
from benchmarks.imagination.starts import Aligned, ground_truth_of
from benchmarks.imagination.worlds import Case
from training.worlds.household.catalogue import missing
from wm_core.intervention_checks import validate_hypotheses
from wm_core.interventions import Hypothesis, remove, set_velocity
from wm_core.scene_graph import Predicate, Relation, SceneGraph, Shape
from wm_dynamics.belief import scene_body

TIMES = np.arange(61) / 30.0
TOP = 0.5


def table_with_boxes() -> SceneGraph:
    """A table and three boxes; box 4 stands on box 3."""
    return SceneGraph.build(
        [1, 2, 3, 4],
        [(0.0, 0.0, TOP - 0.02), (-0.2, 0.0, TOP + 0.03), (0.1, 0.0, TOP + 0.03), (0.1, 0.0, TOP + 0.09)],
        [(1.0, 1.0, 0.04), *[(0.06, 0.06, 0.06)] * 3],
        shapes=[Shape.BOX] * 4,
        class_names=["support", "box", "box", "box"],
        is_static=[True, False, False, False],
        relations=[Relation(4, Predicate.ON, 3, 1.0, 0)],
    )


def case_of_moves(moves: np.ndarray) -> Case:
    """Three hypotheses: factual, a shove of 2, a removal of 3; moves (3, 4): how far along x objects are at 2 s [m]."""
    scene = table_with_boxes()
    states = np.zeros((3, len(TIMES), 4, 13), np.float32)
    states[..., 6] = 1.0
    states[..., :3] = scene.positions
    states[..., 0] += moves[:, None, :] * (TIMES / 2.0)[None, :, None]
    present = np.ones((3, len(TIMES), 4), bool)
    present[2, 1:, 2] = False
    hypotheses = (
        Hypothesis("factual"),
        Hypothesis("set_velocity", (set_velocity(2, (0.5, 0.0, 0.0)),)),
        Hypothesis("remove", (remove(3),)),
    )
    return Case(
        "household", 7, 1.0, scene, tuple(scene_body(scene, i) for i in range(4)), hypotheses,
        ("factual", "shove", "remove"), TIMES, np.arange(1, 5), states, present, ((), (), ()), TOP,
    )  # fmt: skip


def future_of(case: Case, moves: np.ndarray, lost: int | None = None) -> Aligned:
    """A future in which objects are so far along x at 2 s; lost: a column that was not perceived."""
    said = ground_truth_of(case)
    states = said.states.copy()
    states[..., 0] = case.scene.positions[:, 0] + moves[:, None, :] * (TIMES / 2.0)[None, :, None]
    present = said.present.copy()
    if lost is not None:
        present[:, :, lost] = False
    return replace(said, states=states, present=present)


TRUE = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.2]])


def test_errors_of_what_moves_over_those_of_nothing_moves() -> None:
    case = case_of_moves(TRUE)
    said = np.array([[0.0, 0.0, 0.3, 0.0], [0.0, 0.3, 0.05, 0.0], [0.0, 0.0, 0.0, 0.2]])
    errors = errors_of(case, future_of(case, said), future_of(case, np.zeros((3, 4))))
    # Three objects in the shove, two in the removal (3 is gone); the factual future does not count.
    assert errors.kinds == ["shove"] * 3 + ["remove"] * 2
    assert errors.objects == [2, 3, 4, 2, 4] and set(errors.worlds) == {7}
    assert errors.moves == [True, False, False, False, True]
    np.testing.assert_allclose(errors.own, [0.1, 0.05, 0.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(errors.still, [0.4, 0.0, 0.0, 0.0, 0.2], atol=1e-6)
    found = errors.figures()
    assert found["objects"] == 2 and found["resting"] == 3
    assert found["mean_m"] == pytest.approx(0.05) and found["still_mean_m"] == pytest.approx(0.3)
    assert found["ratio_of_means"] == pytest.approx(1 / 6) and found["share_better"] == 1.0
    assert found["resting_moved_share"] == pytest.approx(1 / 3)  # 3 is imagined to go 5 cm
    shove = errors.figures("shove")
    assert shove["ratio_of_medians"] == pytest.approx(0.25) and shove["objects"] == 1
    knocked = Errors(["knock", "push"], [1, 1], [2, 3], [True, True], [5.0, 0.1], [0.1, 0.2])
    assert knocked.figures()["mean_m"] == pytest.approx(0.1) and knocked.figures("knock")["mean_m"] == 5.0
    nothing = errors.figures("push")
    assert nothing["ratio_of_means"] is None and nothing["mean_m"] is None and nothing["objects"] == 0


def test_what_was_not_perceived_or_not_asked_does_not_count() -> None:
    case = case_of_moves(TRUE)
    still = future_of(case, np.zeros((3, 4)))
    lost = errors_of(case, future_of(case, TRUE, lost=3), still)
    assert 4 not in lost.objects and lost.figures("remove")["objects"] == 0
    unasked = replace(future_of(case, TRUE), asked=np.array([True, False, True]))
    assert set(errors_of(case, unasked, still).kinds) == {"remove"}
    assert asked_of(case, unasked) == {"push": (0, 0), "shove": (1, 0), "remove": (1, 1), "knock": (0, 0)}
    assert asked_of(case, None)["remove"] == (1, 0)


def test_an_offset_of_perception_is_no_motion_of_what_rests() -> None:
    case = case_of_moves(np.zeros((3, 4)))
    off = np.full((3, 4), 0.03)
    errors = errors_of(case, future_of(case, off), future_of(case, off))
    assert errors.figures()["resting_moved_share"] == 0.0
    assert errors.figures()["resting_p90_m"] == pytest.approx(0.03, abs=1e-6)


def test_worlds_are_joined_into_one_document() -> None:
    first = Errors(["push"], [1], [2], [True], [0.1], [0.4])
    second = Errors(["push", "remove"], [2, 2], [2, 3], [True, True], [0.3, 0.0], [0.4, 0.1])
    worlds = [
        World({"physics": first}, 4, 4, {"push": (2, 2), "remove": (1, 0)}),
        World({"physics": second}, 6, 5, {"push": (2, 1)}),
    ]
    document = document_of(worlds, ["physics"])
    assert document["worlds"] == 2 and document["found_share"] == pytest.approx(0.9)
    assert document["physics"]["push"]["ratio_of_means"] == pytest.approx(0.5)
    assert document["what_ifs"]["push"] == {"drawn": 4, "asked": 3}
    assert document["what_ifs"]["remove"] == {"drawn": 1, "asked": 0}
    assert document["physics"]["all"]["ratio_of_medians"] == pytest.approx(0.1 / 0.4)
    assert document["physics"]["worst"][0] == [2, "push", 2, 0.3, 0.4]
    assert set(document["physics"]) == {"all", *KINDS, "knock", "worst"}


def test_pushes_shoves_and_what_carries_is_removed() -> None:
    scene = table_with_boxes()
    drawn = pushes_and_removals(scene, TOP, np.random.default_rng(3))
    assert drawn is not None
    assert [kind for kind, _ in drawn] == ["factual", "push", "push", "shove", "shove", "knock", "remove"]
    validate_hypotheses([h for _, h in drawn], scene, 2.0)
    assert drawn[-1][1].interventions[0].object_id == 3  # it carries 4
    alone = scene.select(np.array([True, True, False, False]))
    assert pushes_and_removals(alone, TOP, np.random.default_rng(3)) is None


def test_half_of_the_table_tops_have_a_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of made-up table-tops: every third even seed has a box on another."""
    monkeypatch.setattr("benchmarks.imagination.store.FOLDER", tmp_path / "cache")
    made: list[int] = []

    def scene_of(seed: int) -> SimpleNamespace:
        made.append(seed)
        scene = table_with_boxes()
        states = np.zeros((4, 13))
        states[:, :3], states[:, 6] = scene.positions, 1.0
        states[3, :3] = (0.1, 0.0, TOP + 0.09) if seed % 6 == 0 else (0.3, 0.0, TOP + 0.03)
        bodies = tuple(scene_body(scene, i) for i in range(4))
        return SimpleNamespace(ids=(1, 2, 3, 4), bodies=bodies, states=states, table_top_z=TOP)

    monkeypatch.setattr(bench, "household_scene", scene_of)
    assert seeds_of(5, 71) == [72, 74, 76, 78, 84]
    assert all(seed % 2 == 0 for seed in made)
    count = len(made)
    assert seeds_of(5, 71) == [72, 74, 76, 78, 84] and len(made) == count  # from the disk


def test_without_the_objects_the_command_says_what_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "missing", lambda: "not installed; run: make setup")
    assert bench.main(["--worlds", "1"]) == 1
    assert "run: make setup" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_case_of_a_real_table_top(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.imagination.store.FOLDER", tmp_path / "cache")
    case = whatif_case(70_000)
    assert case is not None and case.start_s == 1.0
    assert not np.linalg.norm(case.scene.linear_velocities, axis=1).max() > 0.01
    assert all(g.mesh is None for body in case.bodies for g in body.geoms)
    truth = ground_truth_of(case)
    errors = errors_of(case, truth, truth)
    assert any(errors.moves) and max(errors.own) == 0.0
    assert whatif_case(70_001) is None  # something moves there
