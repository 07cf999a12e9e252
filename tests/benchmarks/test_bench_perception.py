"""The benchmark's figures on cases made by hand: the right answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

pytest.importorskip("pycocotools", reason="needs requirements/training.txt (make setup WITH=training)")

from benchmarks.perception import __main__ as bench
from benchmarks.perception import real
from benchmarks.perception.clip_pool import job
from benchmarks.perception.figures import figures, reasoning_figures
from benchmarks.perception.latency import figures as latency_figures
from benchmarks.perception.masks import average_precision, best_ious, encode, mean_iou
from benchmarks.perception.pictures import draw_worst_frames
from benchmarks.perception.run import (
    ClipRecord,
    ReasoningCounts,
    WorstPicture,
    could_be_seen,
    errors_of,
    track_frame,
)
from benchmarks.perception.tables import KEYS, acceptance_table, mark, markdown, real_table
from training.reasoner.rendered_clips import (
    _LEAST_S,
    ClipPlan,
    TrueFrame,
    build_scene,
    image_area,
    plan_clips,
)
from training.worlds.simulate import simulate
from wm_core.camera import Camera
from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.evaluation import (
    Reappearance,
    TrackFrame,
    extents_error,
    reappearances,
    rotation_error_deg,
    round_axis,
    score_tracks,
)
from wm_perception.types import PerceptionConfig

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)


def quaternion(axis: str, degrees: float) -> np.ndarray:
    return Rotation.from_euler(axis, degrees, degrees=True).as_quat()


# -- masks


def labels_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(60, 80) with rectangles (row, column, height, width) as labels 1, 2, ..."""
    image = np.zeros((60, 80), np.int32)
    for number, (row, column, height, width) in enumerate(boxes, start=1):
        image[row : row + height, column : column + width] = number
    return image


def test_perfect_masks_have_ap_one() -> None:
    image = labels_of((2, 2, 10, 10), (20, 30, 15, 20))
    found = average_precision([encode(image * 7)], [encode(image, np.array([0.9, 0.4]))])
    assert found == (pytest.approx(1.0), pytest.approx(1.0))


def test_half_of_the_things_found_is_half_the_precision() -> None:
    image = labels_of((2, 2, 10, 10), (20, 30, 15, 20))
    only = np.where(image == 1, 1, 0)
    ap50, ap = average_precision([encode(image)], [encode(only, np.array([0.9]))])
    # Recall levels 0, 0.01, ... 0.5 of 101 are reached.
    assert ap50 == pytest.approx(51 / 101) and ap == pytest.approx(51 / 101)


def test_masks_that_overlap_by_70_percent_count_at_five_of_ten_thresholds() -> None:
    true, found = labels_of((0, 0, 20, 20)), labels_of((0, 0, 20, 14))
    ap50, ap = average_precision([encode(true)], [encode(found, np.array([1.0]))])
    assert ap50 == pytest.approx(1.0) and ap == pytest.approx(0.5)


def test_a_confident_phantom_costs_and_an_unsure_one_does_not() -> None:
    true = labels_of((0, 0, 20, 20))
    found = labels_of((0, 0, 20, 20), (40, 40, 15, 15))
    sure, _ = average_precision([encode(true)], [encode(found, np.array([0.5, 0.9]))])
    unsure, _ = average_precision([encode(true)], [encode(found, np.array([0.9, 0.5]))])
    assert sure == pytest.approx(0.5) and unsure == pytest.approx(1.0)


def test_small_things_do_not_count_either_way() -> None:
    true, found = labels_of((0, 0, 20, 20), (40, 40, 4, 4)), labels_of((0, 0, 20, 20), (50, 70, 4, 4))
    assert average_precision([encode(true)], [encode(found, np.array([0.5, 0.9]))])[0] == pytest.approx(1.0)
    only_small = labels_of((40, 40, 4, 4))
    assert average_precision([encode(only_small)], [encode(found, np.ones(2))]) == (None, None)
    assert average_precision([encode(true)], [[]]) == (0.0, 0.0)


def test_quality_of_a_frame() -> None:
    true = labels_of((0, 0, 20, 20), (40, 40, 10, 10))
    assert mean_iou(true, true, [1, 2]) == 1.0
    assert best_ious(true, labels_of((0, 0, 20, 10)), [1, 2]).tolist() == [0.5, 0.0]
    assert mean_iou(true, labels_of((0, 0, 20, 20)), [1, 2]) == 0.5
    phantom = labels_of((0, 0, 20, 20), (40, 40, 10, 10), (30, 0, 8, 8))
    assert mean_iou(true, phantom, [1, 2]) == pytest.approx(2 / 3)
    empty = np.zeros((60, 80), np.int32)
    assert mean_iou(empty, empty, []) == 1.0


# -- sizes and orientations


def test_extents_are_compared_in_the_best_order() -> None:
    assert extents_error([0.1, 0.2, 0.3], [0.3, 0.1, 0.2]) == 0.0
    assert extents_error([0.11, 0.22, 0.33], [0.1, 0.2, 0.3]) == pytest.approx(0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 23), st.integers(0, 10_000))
def test_naming_a_boxs_axes_otherwise_is_no_error(turn: int, seed: int) -> None:
    from wm_perception.evaluation import _TURNS

    true = Rotation.random(random_state=seed)
    extents = np.array([0.1, 0.2, 0.32])
    other = true.as_matrix() @ _TURNS[turn]
    sizes = np.abs(_TURNS[turn].T) @ extents
    error = rotation_error_deg(Rotation.from_matrix(other).as_quat(), sizes, true.as_quat(), extents, Shape.BOX)
    assert error == pytest.approx(0.0, abs=1e-4)


def test_symmetries() -> None:
    none = quaternion("z", 0.0)
    slab, stick = [0.1, 0.2, 0.05], [0.1, 0.104, 0.3]
    assert rotation_error_deg(quaternion("z", 30.0), slab, none, slab, Shape.BOX) == pytest.approx(30.0)
    assert rotation_error_deg(quaternion("z", 170.0), slab, none, slab, Shape.BOX) == pytest.approx(10.0)
    # A quarter turn about the axis between near-equal sides is none; of a slab it is one.
    assert rotation_error_deg(quaternion("z", 85.0), stick, none, stick, Shape.BOX) == pytest.approx(5.0)
    assert rotation_error_deg(quaternion("z", 85.0), slab, none, slab, Shape.BOX) == pytest.approx(85.0)
    can = [0.08, 0.08, 0.2]
    assert rotation_error_deg(quaternion("z", 77.0), can, none, can, Shape.CYLINDER) == pytest.approx(0.0, abs=1e-4)
    assert rotation_error_deg(quaternion("x", 170.0), can, none, can, Shape.CYLINDER) == pytest.approx(10.0)
    assert rotation_error_deg(quaternion("x", 20.0), can, none, can, Shape.CYLINDER) == pytest.approx(20.0)
    assert rotation_error_deg(none, [0.1] * 3, quaternion("x", 20.0), [0.1] * 3, Shape.SPHERE) is None


def test_a_capsule_whose_axis_is_called_otherwise() -> None:
    true, found = [0.2, 0.06, 0.06], [0.06, 0.06, 0.2]
    lying = quaternion("y", 90.0)  # z of the found one along x of the true one
    assert rotation_error_deg(lying, found, quaternion("x", 40.0), true, Shape.CAPSULE) == pytest.approx(0.0, abs=1e-4)
    standing = quaternion("y", 0.0)
    assert rotation_error_deg(standing, found, quaternion("x", 0.0), true, Shape.CAPSULE) == pytest.approx(90.0)


def test_round_hulls_are_seen_to_be_round() -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    ring = np.column_stack([0.04 * np.cos(angle), 0.04 * np.sin(angle), np.zeros(24)])
    bottle = np.concatenate([ring, ring * 0.4 + [0.0, 0.0, 0.2]])
    assert round_axis(Shape.CONVEX, np.ptp(bottle, axis=0), bottle) == 2
    handle = np.concatenate([bottle, [[0.08, 0.0, 0.1]]])
    assert round_axis(Shape.CONVEX, np.ptp(handle, axis=0), handle) is None
    assert round_axis(Shape.SPHERE, [0.1] * 3) == -1
    assert round_axis(Shape.CYLINDER, [0.1, 0.1, 0.1]) == 2


# -- identities


def frames_of(ids: list[list[int]], true: tuple[int, ...] = (1, 2)) -> list[TrackFrame]:
    """Two true objects found under ids; 0: not found."""
    found = []
    for names in ids:
        pairs = tuple((t, p, 0.0) for t, p in zip(true, names, strict=True) if p)
        found.append(TrackFrame(true, tuple(p for p in names if p), pairs))
    return found


def test_perfect_tracks() -> None:
    score = score_tracks([frames_of([[5, 6]] * 10), frames_of([[9, 8]] * 10)])
    assert (score.idf1, score.mota, score.id_switches, score.object_frames) == (1.0, 1.0, 0, 40)


def test_a_swap_in_the_middle() -> None:
    score = score_tracks([frames_of([[5, 6]] * 5 + [[6, 5]] * 5)])
    assert score.id_switches == 2 and score.id_switches_per_1000 == pytest.approx(100.0)
    assert score.idf1 == pytest.approx(0.5) and score.mota == pytest.approx(1.0 - 2 / 20)


def test_misses_and_phantoms() -> None:
    score = score_tracks([frames_of([[5, 0]] * 10)])
    assert (score.misses, score.mota) == (10, pytest.approx(0.5))
    phantom = [replace(f, perceived_ids=(*f.perceived_ids, 77)) for f in frames_of([[5, 6]] * 10)]
    score = score_tracks([phantom])
    assert (score.false_positives, score.mota) == (10, pytest.approx(0.5))
    assert np.isnan(score_tracks([]).idf1)


def hidden_for(frames: int, back_as: int | None, rate: float = 10.0) -> list[Reappearance]:
    """An object seen for 2 s as id 4, wholly hidden for some frames, and seen again for 1 s."""
    count = 20 + frames + 10
    times = np.arange(count) / rate
    away = [20 <= n < 20 + frames for n in range(count)]
    visible = [set() if a else {1} for a in away]
    gone = [{1} if a else set() for a in away]
    found = [{} if a else {1: 4} if n < 20 else ({} if back_as is None else {1: back_as}) for n, a in enumerate(away)]
    return reappearances(times, visible, gone, found)


def test_the_same_id_after_two_seconds() -> None:
    assert [r.same for r in hidden_for(19, 4)] == [True]
    assert [r.same for r in hidden_for(19, 5)] == [False]
    assert [(r.before, r.after, r.same) for r in hidden_for(25, None)] == [(4, None, False)]
    assert hidden_for(10, 4) == []
    assert hidden_for(19, 4)[0].hidden_s == pytest.approx(2.0)


# -- frames


def scene_of(positions: list[list[float]], ids: list[int] | None = None, **given: object) -> SceneGraph:
    n = len(positions)
    return SceneGraph.build(ids or list(range(1, n + 1)), positions, np.full((n, 3), 0.1), **given)


def frame_of(ground_truth: SceneGraph, visible: set[int], depth_m: float = 2.0) -> TrueFrame:
    depth = np.full((480, 640), depth_m, np.float32)
    image = np.zeros((480, 640), np.int32)
    return TrueFrame(1, np.zeros((480, 640, 3), np.uint8), depth, image, ground_truth, frozenset(visible), frozenset())


def test_what_cannot_be_seen_is_not_held_against() -> None:
    ahead, beside, hidden = [0.0, 0.0, 1.0], [5.0, 0.0, 1.0], [0.3, 0.0, 3.0]
    size, depth = np.full(3, 0.1), np.full((480, 640), 2.0, np.float32)
    pose = np.eye(4)
    assert could_be_seen(np.array(ahead), size, depth, CAMERA, pose)
    assert not could_be_seen(np.array(beside), size, depth, CAMERA, pose)
    assert not could_be_seen(np.array(hidden), size, depth, CAMERA, pose)
    assert not could_be_seen(np.array(ahead), size, np.zeros_like(depth), CAMERA, pose)
    scene = scene_of([ahead, beside, hidden, [0.2, 0.0, 1.0]], [4, 5, 6, 7])
    frame = track_frame(scene, frame_of(scene_of([ahead]), {1}), [(4, 1, 0.0)], CAMERA)
    assert frame == TrackFrame((1,), (4, 7), ((1, 4, 0.0),))
    # An object that is there, but not asked for, is neither a miss nor a phantom.
    frame = track_frame(scene, frame_of(scene_of([ahead]), set()), [(4, 1, 0.0)], CAMERA)
    assert frame == TrackFrame((), (7,), ())


def test_errors_of_a_match() -> None:
    ground_truth = scene_of([[0.0, 0.0, 1.0]], linear_velocities=[[0.5, 0.0, 0.0]], visibilities=[0.7])
    covariance = np.zeros((1, 6, 6))
    covariance[0, :3, :3] = np.eye(3) * 0.01**2
    found = scene_of([[0.01, 0.0, 1.0]], linear_velocities=[[0.5, 0.05, 0.0]], pose_covariances=covariance)
    errors = errors_of(found, 0, ground_truth, 0, 0.3)
    assert errors.position_m == pytest.approx(0.01) and errors.velocity_error_m_s == pytest.approx(0.05)
    assert errors.extents == 0.0 and errors.rotation_deg == pytest.approx(0.0, abs=1e-4)
    assert errors.seen == 0.7 and errors.normalized_squared == pytest.approx(1.0, rel=1e-3)


def test_image_area_of_a_square() -> None:
    corners = np.array([[x, y, 0.0] for x in (-0.05, 0.05) for y in (-0.05, 0.05)])
    state = np.array([0.0, 0.0, 1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], float)
    assert image_area(corners, state, CAMERA, np.eye(4)) == pytest.approx(50.0 * 50.0)
    state[2] = -1.0
    assert image_area(corners, state, CAMERA, np.eye(4)) == np.inf


def test_counts_of_reasoning_are_summed_over_clips() -> None:
    counts = {"ON": np.array([8.0, 0, 2]), "NEAR": np.array([5.0, 5, 0])}
    rows = np.zeros((4, 3, 3))
    rows[:, :, 0] = rows[:, :, 2] = np.arange(4.0)[:, None]
    rows[:, :, 1] = 0.1
    rows[0, :, 0] += 0.5  # beyond its interval, the order stays
    causes = {"reasoner": np.array([3.0, 1, 0]), "baseline": np.array([2.0, 6, 1])}
    clips = [ReasoningCounts(counts, counts, causes, rows[:2]), ReasoningCounts(counts, {}, causes, rows[2:])]
    values, more = reasoning_figures(clips)
    assert values["relations_macro_f1"] == pytest.approx((16 / 18 + 10 / 15) / 2)
    assert values["events_f1"] == pytest.approx(26 / 33)
    assert values["property_spearman"] == pytest.approx(1.0) and values["property_coverage_90"] == pytest.approx(0.75)
    assert values["caused_f1"] == pytest.approx(6 / 7) and values["caused_f1_baseline"] == pytest.approx(4 / 11)
    assert more["relations"]["ON"] == [16, 0, 4]
    nothing, _ = reasoning_figures([])
    assert set(nothing.values()) == {None}


def test_latency() -> None:
    second = 1_000_000_000
    arrivals = [(n * second // 10, n * second // 10 + second // 20) for n in range(11)]
    found = latency_figures(arrivals)
    assert found["latency_median_s"] == pytest.approx(0.05) and found["latency_p95_s"] == pytest.approx(0.05)
    assert found["rate_hz"] == pytest.approx(10.0) and found["graphs"] == 11
    assert latency_figures(arrivals[:1])["latency_median_s"] is None


# -- the recorded clip


def test_the_mug_must_be_one_thing_with_one_id() -> None:
    mug, elsewhere = [*real.MUG, -0.78], [0.0, 0.0, -0.8]
    right, two = scene_of([mug, elsewhere], [3, 4]), scene_of([mug, mug], [3, 5])
    other, none = scene_of([mug], [9]), scene_of([elsewhere], [4])
    assert real.mug_present([right] * 10) == 1.0
    assert real.mug_present([right] * 6 + [two, other, none, none]) == pytest.approx(0.6)
    assert real.mug_present([none] * 3) == 0.0


def test_phantoms_are_on_no_thing() -> None:
    mug, bare, wall = [*real.MUG, -0.78], [-0.2, 1.9, -0.8], [0.5, 3.4, 0.0]
    assert real.phantoms(scene_of([mug])) == []
    assert real.phantoms(scene_of([mug, bare, wall], [3, 4, 5])) == [4, 5]
    assert real.phantoms(scene_of([mug, mug], [3, 4])) == [4]
    huge = SceneGraph.build([7], [mug], [[0.5, 0.5, 0.1]])
    assert real.phantoms(huge) == [7]


def test_tilt_of_the_table() -> None:
    table = SceneGraph.build([1], [real.TABLE - [0, 0, 0.02]], [[1.0, 1.0, 0.04]], is_static=[True])
    tilted = [np.sin(np.radians(2.0)), 0.0, np.cos(np.radians(2.0))]
    assert real.table_tilt_deg([table] * 3, np.array(tilted)) == pytest.approx(2.0)
    assert real.table_tilt_deg([scene_of([[0.0, 0.0, 0.0]])], np.array(tilted)) is None


def test_plane_of_the_table() -> None:
    pytest.importorskip("open3d", reason="comes with WITH=training")
    rng = np.random.default_rng(0)
    plane = np.column_stack([rng.uniform(-0.4, 0.4, (3000, 2)), rng.normal(0.0, 0.002, 3000)])
    above = np.column_stack([rng.uniform(-0.1, 0.1, (600, 2)), rng.uniform(0.0, 0.1, 600)])
    normal = real.fit_plane(np.concatenate([plane, above]))
    assert np.degrees(np.arccos(normal[2])) < 0.5


# -- clips


def test_clips_are_planned_by_seed() -> None:
    plans = plan_clips("families", 20, 4.0, 15.0)
    assert [p.kind for p in plans].count("random") == 6
    assert {p.kind for p in plans} == set(_LEAST_S)
    assert len({p.seed for p in plans}) == 20
    assert all(p.seconds == (4.0 if p.kind == "random" else 5.6) for p in plans)


@pytest.mark.parametrize("kind", ["behind", "passing"])
def test_what_is_carried_stays_for_over_two_seconds(kind: str) -> None:
    plan = ClipPlan("seeds", 50_003, kind, 5.6, 15.0)  # type: ignore[arg-type]
    scene, again = build_scene(plan), build_scene(plan)
    assert (scene.states == again.states).all() and scene.names == again.names
    clip = simulate(scene, plan.seconds, plan.rate_hz)
    (carried,) = scene.pushers
    speed = np.linalg.norm(np.diff(clip.states[:, carried, :3], axis=0), axis=1) * plan.rate_hz
    at_rest = np.flatnonzero(speed < 1e-3)
    assert (
        clip.stable and (np.diff(np.split(at_rest, np.flatnonzero(np.diff(at_rest) > 1) + 1)[1][[0, -1]]) >= 33).all()
    )
    # Nobody is touched on the way: the others are where they were.
    others = [k for k in range(1, len(scene.ids)) if k != carried]
    assert np.abs(clip.states[-1, others, :3] - clip.states[0, others, :3]).max() < 0.01


@pytest.mark.slow
def test_things_meet_more_than_once_in_busy_worlds() -> None:
    plan = ClipPlan("seeds", 50_008, "busy", 5.6, 15.0)
    scene, again = build_scene(plan), build_scene(plan)
    assert len(scene.schedule) > 4
    assert [t.time_offset for _, t in scene.schedule] == [t.time_offset for _, t in again.schedule]
    clip = simulate(scene, plan.seconds, plan.rate_hz)
    contacts = [i for _, a, b, began in clip.touches if began and 1 not in (a, b) for i in (a, b)]
    assert clip.stable and max(contacts.count(i) for i in set(contacts)) >= 3


def test_the_camera_turns_away_and_comes_back() -> None:
    from wm_sim.cameras import look_at

    scene = build_scene(ClipPlan("seeds", 50_001, "away", 5.6, 15.0))
    rows = np.array(scene.model.camera.path)
    forward = rows[:, 4:] - rows[:, 1:4]
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(forward @ forward[0], -1.0, 1.0)))
    away = rows[angle > 60.0, 0]
    assert np.ptp(away) > 2.0 and angle[-1] < 1.0 and np.isfinite(look_at(rows[0, 1:4], rows[0, 4:])).all()


@pytest.mark.slow
def test_a_clip_is_drawn_and_scored() -> None:
    plan = ClipPlan("seeds", 50_000, "random", 1.0, 8.0)
    tried, records = job(plan, {"untrained": PerceptionConfig(segmenter="geometric", reasoner="geometric")})
    record = records["untrained"]
    # The first half second is not scored.
    assert tried == plan and len(record.seconds) == 9 and len(record.tracks) == 5 == len(record.ground_truths)
    assert record.reasoning is not None and record.matches and 0.0 < min(record.quality) <= max(record.quality) <= 1.0
    values, _ = figures([record])
    assert values["mask_ap50"] is not None and values["mask_ap50"] > 0.3
    assert values["position_error_median_m"] is not None and values["position_error_median_m"] < 0.03


# -- the document


def test_the_table_and_the_keys() -> None:
    wanted = (
        "found_share phantoms_per_frame mask_ap50 mask_ap position_error_median_m position_error_p90_m "
        "extents_error_median rotation_error_median_deg "
        "velocity_error_m_s idf1 mota id_switches_per_1000 reid_after_2s relations_macro_f1 events_f1 "
        "property_spearman property_coverage_90 caused_f1 caused_f1_baseline latency_median_s latency_p95_s rate_hz"
    )
    assert list(KEYS) == wanted.split()
    empty = dict.fromkeys(KEYS)
    document = {
        "seeds": {**empty, "mask_ap50": 0.93, "position_error_p90_m": 0.03},
        "families": empty,
        "untrained": empty,
        "untrained_families": empty,
        "real_clip": {"mug_present": 1.0, "phantoms_per_frame": 0.2, "table_tilt_deg": None},
        "untrained_real_clip": {},
        "notes": ["nothing to say"],
    }
    text = markdown(document)
    assert "| mask AP50 |  | 0.930 | ≥ 0.920 | - |" in text and "nothing to say" in text
    assert acceptance_table(document).row_count == 22 and real_table(document).row_count == 3
    assert "household" not in text
    document |= {"household": {**empty, "found_share": 0.98, "phantoms_per_frame": 0.2}, "untrained_household": None}
    assert "| visible objects found | % | - |  | - | - |  | - | 98.0 | ≥ 97.0 | - |" in markdown(document)
    assert mark(0.93, 0.92, True, "mask_ap50") == "green"
    assert mark(0.03, 0.02, False, "position_error_p90_m") == "red"
    assert mark(0.99, 0.85, True, "property_coverage_90") == "red"
    assert mark(None, 0.85, True, "idf1") == ""


def test_figures_of_clips_made_by_hand() -> None:
    plan = ClipPlan("seeds", 1, "random", 4.0, 15.0)
    image = labels_of((2, 2, 10, 10))
    ground_truth = scene_of([[0.0, 0.0, 1.0]], linear_velocities=[[0.5, 0.0, 0.0]])
    off = replace(errors_of(ground_truth, 0, ground_truth, 0, 0.0), velocity_error_m_s=0.7)
    record = ClipRecord(
        plan,
        ground_truths=[encode(image)],
        predictions=[encode(image, np.ones(1))],
        matches=[errors_of(ground_truth, 0, ground_truth, 0, 0.3), replace(off, moving_s=0.1)],
        tracks=frames_of([[5, 6]] * 10),
        returns=[Reappearance(1, 2.1, 4, 4), Reappearance(2, 2.1, 5, 6), Reappearance(3, 2.1, None, 7)],
    )
    values, more = figures([record, record])
    assert values["mask_ap"] == pytest.approx(1.0) and values["idf1"] == 1.0 and values["mota"] == 1.0
    assert values["found_share"] == 1.0 and values["phantoms_per_frame"] == 0.0
    half = replace(record, tracks=[replace(f, perceived_ids=(*f.perceived_ids, 9)) for f in frames_of([[5, 0]] * 10)])
    missed, _ = figures([half])
    assert missed["found_share"] == 0.5 and missed["phantoms_per_frame"] == 1.0
    assert values["position_error_p90_m"] == 0.0 and values["velocity_error_m_s"] == 0.0
    assert more["velocity_samples"] == 2 and more["velocity_error_just_knocked_m_s"] == 0.7
    assert values["reid_after_2s"] == 0.5 and more["hidden_never_found"] == 2
    assert values["latency_median_s"] is None and values["relations_macro_f1"] is None
    json.dumps([values, more])
    nothing, _ = figures([])
    assert all(v is None for v in nothing.values())


def test_arguments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.parse(["--quick"]).clips == 2 and bench.parse(["--quick"]).household_clips == 2
    with pytest.raises(SystemExit):
        bench.parse(["--clips", "0"])
    assert "--clips: got 0, expected 1 to 1000" in capsys.readouterr().err
    assert bench.main(["--segmenter-model", "nowhere.onnx"]) == 1
    assert "nowhere.onnx" in capsys.readouterr().out


def test_household_is_left_out_where_its_objects_are_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "missing", lambda: "not installed; run: make setup WITH=household")
    assert bench.parse([]).splits == ["seeds", "families"]
    with pytest.raises(SystemExit):
        bench.parse(["--splits", "household"])
    assert "run: make setup WITH=household" in capsys.readouterr().err
    monkeypatch.setattr(bench, "missing", lambda: None)
    assert bench.parse([]).splits == ["seeds", "families", "household"]


def test_worst_frames_are_drawn(tmp_path: Path) -> None:
    import cv2

    image = labels_of((2, 2, 10, 10), (20, 30, 15, 20))
    picture = WorstPicture("seeds 1 (random)", 3, 0.25, np.full((60, 80, 3), 90, np.uint8), image, image)
    draw_worst_frames(tmp_path / "worst.png", [picture] * 3)
    sheet = cv2.imread(str(tmp_path / "worst.png"))
    assert sheet is not None and sheet.std() > 5.0
