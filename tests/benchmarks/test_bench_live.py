"""What is published over the live graph scores as the pipeline in this process does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.perception import live
from benchmarks.perception.clip_pool import draw_clip
from benchmarks.perception.figures import figures
from benchmarks.perception.live_graph import (
    Answers,
    LiveError,
    LiveGraph,
    as_sent,
    pose_as_sent,
    published_masks,
    shifted,
)
from benchmarks.perception.run import ClipRecord, ClipScorer, run_clip
from training.reasoner.metrics import clip_ground_truth
from training.reasoner.rendered_clips import FIRST_SEED, ClipPlan, RenderedClip
from wm_bringup.run.processes import NodeRefused, ProcessDied
from wm_core.geometry import pose_matrix
from wm_core.scene_graph import Event, EventKind, Predicate, Relation, SceneGraph
from wm_perception.types import PerceptionConfig
from wm_ros.conversions.basics import quaternion_from_msg, vector_from_msg
from wm_ros.transforms import TransformBuffer, transform_to_msg

pytestmark = pytest.mark.slow

PLAN = ClipPlan("seeds", FIRST_SEED + 900_000, "random", 1.4, 10.0)
"""A world of primitives, of a seed that no benchmark draws."""
SAME_M = 1e-6
"""Positions over the live graph may differ from those in process by this [m]: those of objects are sent as well."""
KEYS = (
    *("found_share", "phantoms_per_frame", "position_error_median_m", "position_error_p90_m", "extents_error_median"),
    *("rotation_error_median_deg", "idf1", "mota", "relations_macro_f1"),
)


@pytest.fixture(scope="module")
def clip() -> RenderedClip:
    return as_sent(draw_clip(PLAN))


def record_of(clip: RenderedClip, numbers: Sequence[int], scenes: Sequence[SceneGraph]) -> ClipRecord:
    """The record of these frames, without counterfactual worlds, which only causes need."""
    scorer = ClipScorer(clip)
    for number, scene in zip(numbers, scenes, strict=True):
        scorer.add(number, scene, 0.01)
    return scorer.finish(clip_ground_truth(clip.world, clip.ground_truth, counterfactual=False))


def test_true_scenes_score_full_marks_and_left_out_frames_are_not_scored(clip: RenderedClip) -> None:
    every = list(range(len(clip.frames)))
    full = record_of(clip, every, [f.scene for f in clip.frames])
    some = every[::3]
    part = record_of(clip, some, [clip.frames[n].scene for n in some])
    for record in (full, part):
        values, _ = figures([record])
        assert values["found_share"] == 1.0 and values["position_error_p90_m"] == pytest.approx(0.0, abs=1e-9)
        assert values["mask_ap"] is None
    scored = [n for n in some if clip.ground_truth.times[n] >= 0.5]
    assert len(part.tracks) == len(scored) < len(full.tracks)
    # Since when an object has been moving is known from the frames that were left out, too.
    speeds = {(m.speed_m_s, m.moving_s) for m in full.matches}
    assert {(m.speed_m_s, m.moving_s) for m in part.matches} <= speeds


def test_a_late_graph_is_scored_at_its_own_stamp(clip: RenderedClip) -> None:
    scene = replace(
        clip.frames[3].scene,
        relations=(Relation(1, Predicate.NEAR, 2, 0.9, 50),),
        events=(Event(1, EventKind.CONTACT, 1, 2, 60, 0.8),),
    )
    later = shifted(scene, 1_000)
    assert later.stamp_ns == scene.stamp_ns + 1_000
    assert (later.relations[0].since_ns, later.events[0].stamp_ns) == (1_050, 1_060)
    assert (later.first_seen_ns == scene.first_seen_ns + 1_000).all()
    back = shifted(later, -1_000)
    assert back.relations == scene.relations and back.events == scene.events
    assert (back.last_seen_ns == scene.last_seen_ns).all()


def test_poses_are_looked_up_to_the_bit() -> None:
    """One in a hundred was not: a label of a pixel hung on it, and the scores of a clip on that."""
    other = []
    for seed in range(500):
        draw = np.random.default_rng(seed)
        pose = pose_as_sent(pose_matrix(draw.normal(size=3), draw.normal(size=4)))
        sent = transform_to_msg("map", "camera", 7, pose).transform
        buffer = TransformBuffer()
        buffer.set("map", "camera", 7, vector_from_msg(sent.translation), quaternion_from_msg(sent.rotation))
        if not np.array_equal(buffer.lookup("map", "camera", 7), pose):
            other.append(seed)
    assert not other


@pytest.mark.parametrize("background", [True, False])
def test_masks_are_those_of_the_published_ids(clip: RenderedClip, background: bool) -> None:
    scene = clip.frames[0].scene
    first, second = (int(i) for i in scene.ids[:2])
    scene = replace(scene, existence_probabilities=np.linspace(0.5, 0.9, len(scene.ids)))
    ids = np.full((4, 8), second, np.uint16)
    ids[:2] = first
    if background:
        ids[0] = 0
    found = published_masks(ids, scene, 2)
    assert found.labels.shape == (2, 4)
    assert found.labels.tolist() == ([[0] * 4, [1] * 4] if background else [[1] * 4, [2] * 4])
    chance = dict(zip(scene.ids.tolist(), scene.existence_probabilities.tolist(), strict=True))
    named = [second] if background else [first, second]
    assert found.scores == pytest.approx([chance[n] for n in named])


def test_dropped_and_refused_frames_are_counted(clip: RenderedClip) -> None:
    scenes = {n: clip.frames[n].scene for n in range(len(clip.frames)) if n not in (4, 5, 9)}
    answers = Answers(len(clip.frames), scenes, {}, dict.fromkeys(scenes, 0.05), {9: "tf_late: no transform"}, 2.0)
    record = record_of(clip, list(scenes), list(scenes.values()))
    values, more = live.live_figures([record], [answers])
    assert (more["frames_played"], more["frames_dropped"], more["frames_refused"]) == (len(clip.frames), 3, 1)
    assert more["refused"] == {"tf_late: no transform": 1} and more["frames_without_masks"] == len(scenes)
    assert values["latency_median_s"] == pytest.approx(0.05) and values["rate_hz"] == pytest.approx(len(scenes) / 2.0)
    document = {
        "live": values,
        "in_process": None,
        "split": "household",
        "details": more,
        "setting": {"pace": "in lock-step", "speed": None, "without_masks": True},
    }
    document["notes"] = live._notes(document)
    text = live.markdown(document)
    assert "| frames dropped |  | 3 |  |" in text and "≥ 97.0" in text
    assert "3 dropped (of which the node refused 1)" in text and "tf_late: no transform (1 frames)" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--clips", "0"], "--clips: got 0, expected 1 to 1000"),
        (["--speed", "200"], "--speed: got 200, expected 0.01 to 100"),
        (["--split", "seeds", "--segmenter-model", "none.onnx"], "none.onnx is not a file, expected an ONNX file"),
    ],
)
def test_arguments_that_cannot_be(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        live.parse(given)
    assert said in capsys.readouterr().err


class DyingGraph:
    """In place of ``LiveGraph``: publishes the true scenes of so many clips, and then its node ends."""

    lives = 1

    def __init__(self, *_: object) -> None:
        self.played = 0

    def __enter__(self) -> DyingGraph:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, clip: RenderedClip, on_frame: Callable[[int], None]) -> Answers:
        if self.played == self.lives:
            raise ProcessDied("perception", -9, Path("perception.log"), "its last words")
        self.played += 1
        scenes = {n: f.scene for n, f in enumerate(clip.frames)}
        return Answers(len(clip.frames), scenes, {}, dict.fromkeys(scenes, 0.05), {}, 1.0)


@pytest.mark.parametrize("lives", [0, 1])
def test_what_was_measured_before_the_node_died_is_said(
    clip: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int
) -> None:
    monkeypatch.setattr(live, "LiveGraph", DyingGraph)
    monkeypatch.setattr(DyingGraph, "lives", lives)
    monkeypatch.setattr(live, "draw_clip", lambda plan: clip)
    arguments = live.parse(["--split", "seeds", "--clips", "3", "--segmenter", "geometric", "--out", str(tmp_path)])
    console = Console(file=io.StringIO(), width=150)
    if not lives:
        with pytest.raises(LiveError, match=r"no clip was measured; .*perception ended by itself"):
            live.run(arguments, console)
        return
    document = live.run(arguments, console)
    assert document["failures"] == 1 and document["live"]["found_share"] == 1.0
    assert "its last words" in document["notes"][0]


@pytest.mark.ros
def test_the_live_graph_scores_as_the_pipeline_in_process(clip: RenderedClip, tmp_path: Path) -> None:
    """The same frames, twice: the second time the node must know nothing of the first."""
    config = PerceptionConfig(inference_threads=1)
    ground_truth = clip_ground_truth(clip.world, clip.ground_truth, counterfactual=False)
    expected, _ = figures([run_clip(clip, config, ground_truth)])
    seen: list[int] = []
    with LiveGraph(live.node_parameters(config), tmp_path) as graph:
        rounds = [graph.run(clip, seen.append) for _ in range(2)]
    assert seen == 2 * list(range(len(clip.frames)))
    assert expected["found_share"] is not None and expected["found_share"] > 0.5
    for answers in rounds:
        assert answers.published == len(answers.scenes) == len(answers.masks) and not answers.dropped
        assert not answers.refused and all(s > 0.0 for s in answers.latencies_s.values())
        values, _ = live.live_figures([live.score(clip, answers, ground_truth)], [answers])
        assert {k: values[k] for k in KEYS} == pytest.approx({k: expected[k] for k in KEYS}, rel=1e-3, abs=SAME_M)
        assert values["mask_ap50"] is None or 0.3 < values["mask_ap50"] <= 1.0
    for first, second in zip(rounds[0].scenes.values(), rounds[1].scenes.values(), strict=True):
        assert first.stamp_ns == second.stamp_ns
        assert first.ids.tolist() == second.ids.tolist(), "ids begin anew with each clip"
        assert np.allclose(first.positions, second.positions, atol=SAME_M)


@pytest.mark.ros
def test_frames_faster_than_the_node_are_dropped_and_counted(clip: RenderedClip, tmp_path: Path) -> None:
    config = PerceptionConfig(segmenter="geometric", reasoner="geometric")
    with LiveGraph(live.node_parameters(config), tmp_path, speed=100.0, masks=False) as graph:
        answers = graph.run(clip)
    assert answers.published == len(clip.frames) and not answers.masks
    # A thousand frames a second are more than any machine perceives, and the newest is always taken.
    assert 0 < answers.dropped < answers.published
    assert max(answers.scenes) == answers.published - 1


@pytest.mark.ros
def test_a_clip_without_any_graph_is_an_error_that_names_the_topics(clip: RenderedClip, tmp_path: Path) -> None:
    config = PerceptionConfig(segmenter="geometric", reasoner="geometric")
    parameters = {**live.node_parameters(config), "world_frame": "elsewhere", "tf_timeout_s": 0.0}
    short = replace(clip, frames=clip.frames[:2])
    with (
        LiveGraph(parameters, tmp_path) as graph,
        pytest.raises(LiveError, match=r"/wm/scene_graph: got no scene graph for the 2 frames .* tf_missing"),
    ):
        graph.run(short)


@pytest.mark.ros
def test_a_node_that_refuses_its_parameters_is_said(tmp_path: Path) -> None:
    missing = {"pipeline.segmenter": "learned", "pipeline.segmenter_model": str(tmp_path / "none.onnx")}
    with pytest.raises(NodeRefused, match=r"none\.onnx"), LiveGraph(missing, tmp_path):
        pass


@pytest.mark.ros
def test_the_command_prints_the_columns_beside_those_in_process(tmp_path: Path) -> None:
    given = ["--split", "seeds", "--clips", "1", "--seconds", "2", "--rate", "5", "--seed", str(PLAN.seed)]
    given += ["--segmenter", "geometric", "--reasoner", "geometric", "--in-process", "--out", str(tmp_path)]
    console = Console(file=io.StringIO(), width=150)
    document = live.run(live.parse(given), console)
    assert document["failures"] == 0 and document["details"]["frames_dropped"] == 0
    for key in KEYS:
        assert document["live"][key] == pytest.approx(document["in_process"][key], rel=1e-3, abs=SAME_M), key
    assert "in process" in live.markdown(document) and "0 of 11 frames dropped" in console.file.getvalue()  # type: ignore[attr-defined]
