"""Frames in, scene graphs out: what is found, remembered and forgotten, and what odd input does."""

import copy
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from traced_table import CAMERA, CONFIG, RATE_HZ, Thing, camera_pose, frame
from wm_core.scene_graph import EventKind, Predicate, Shape
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig

pytestmark = pytest.mark.slow

BALL = Thing((0.0, -0.2, 0.04), 0.08, (220, 60, 40))
BOX = Thing((0.1, 0.15, 0.05), (0.08, 0.12, 0.10), (40, 80, 200))


def run(pipeline, start, things_at, count, pose=None, step=1):
    results = []
    for n in range(start, start + count, step):
        results.append(pipeline.process(frame(n, things_at((n - start) / RATE_HZ), pose)))
    return results


def movable(scene):
    return scene.select(~scene.is_static)


def nearest(scene, position):
    objects = movable(scene)
    distances = np.linalg.norm(objects.positions - position, axis=1)
    return objects, int(distances.argmin()), float(distances.min())


def the_table(scene):
    """The support of the table; the floor is one too."""
    supports = scene.select(scene.is_static)
    return supports.select(supports.positions[:, 2] > -0.3)


@pytest.fixture(scope="module")
def looked():
    pipeline = PerceptionPipeline(CONFIG)
    return pipeline, run(pipeline, 0, lambda t: [BALL, BOX], 20)


@pytest.fixture
def seen(looked):
    """A pipeline that has looked at the ball and the box for twenty frames, and what it made of them."""
    return copy.deepcopy(looked[0]), looked[1]


def test_table_ball_and_box_are_found_where_they_are(seen):
    _, results = seen
    scene = results[-1].scene
    table = the_table(scene)
    assert list(table.class_names) == ["support"]
    assert abs(table.positions[0, 2] + 0.5 * table.extents[0, 2]) < 0.003
    assert np.abs(np.sort(table.extents[0])[1:] - [0.9, 1.2]).max() < 0.25
    objects = movable(scene)
    assert len(objects) == 2
    for thing, shape, name in ((BALL, Shape.SPHERE, "ball"), (BOX, Shape.BOX, "box")):
        _, i, error = nearest(scene, thing.position)
        assert error < 0.005
        assert objects.shapes[i] == shape and objects.class_names[i] == name
        assert np.abs(np.sort(objects.extents[i]) - np.sort(np.broadcast_to(thing.size, 3))).max() < 0.01
        assert np.abs(255.0 * objects.colors[i] - thing.color).max() < 25.0
        assert objects.visibilities[i] > 0.9


def test_resting_things_do_not_move_at_all(seen):
    _, results = seen
    assert not movable(results[-1].scene).linear_velocities.any()
    assert not movable(results[-1].scene).angular_velocities.any()


def test_instance_image_has_the_ids_of_the_graph(seen):
    _, results = seen
    image = results[-1].instance_ids
    assert image.shape == (CAMERA.height, CAMERA.width) and image.dtype == np.uint16
    assert set(np.unique(image)) - {0} == set(movable(results[-1].scene).ids.tolist())


def test_what_stands_on_the_table_is_on_it(seen):
    _, results = seen
    scene = results[-1].scene
    table = int(the_table(scene).ids[0])
    on = {(r.subject, r.object) for r in scene.relations if r.predicate == Predicate.ON}
    assert on == {(int(i), table) for i in movable(scene).ids}
    supports = {(r.object, r.subject) for r in scene.relations if r.predicate == Predicate.SUPPORTS}
    assert supports == on


def test_a_rolling_ball_has_its_velocity_within_three_frames_and_keeps_its_id(seen):
    pipeline, results = seen
    ball_id = movable(results[-1].scene).ids[nearest(results[-1].scene, BALL.position)[1]]

    def rolling(t):
        return [replace(BALL, position=(0.0, -0.2 + 0.5 * t, 0.04)), BOX]

    moved = run(pipeline, 20, rolling, 12)
    for n, result in enumerate(moved[4:], start=4):
        truth = rolling(n / RATE_HZ)[0].position
        objects, i, error = nearest(result.scene, truth)
        assert objects.ids[i] == ball_id and error < 0.008
        assert np.linalg.norm(objects.linear_velocities[i] - [0.0, 0.5, 0.0]) < 0.1
        # A ball on a table rolls: w = v / r about -x for +y.
        assert abs(objects.angular_velocities[i, 0] + 0.5 / 0.04) < 3.0
    kinds = [(e.kind, e.a) for r in moved for e in r.scene.events]
    assert (EventKind.MOVE, ball_id) in kinds
    stopped = run(pipeline, 32, lambda t: [replace(BALL, position=(0.0, -0.017, 0.04)), BOX], 20)
    objects, i, _ = nearest(stopped[-1].scene, (0.0, -0.017, 0.04))
    assert objects.ids[i] == ball_id and not objects.linear_velocities[i].any()
    assert (EventKind.STOP, ball_id) in [(e.kind, e.a) for r in stopped for e in r.scene.events]


def test_a_thing_hidden_for_two_seconds_is_kept_with_its_id(seen):
    pipeline, results = seen
    objects, i, _ = nearest(results[-1].scene, BOX.position)
    box_id, spread = objects.ids[i], np.trace(objects.pose_covariances[i][:3, :3])
    screen = Thing((-0.15, 0.12, 0.2), (0.02, 0.34, 0.4), (90, 90, 90))
    hidden = run(pipeline, 20, lambda t: [BALL, BOX, screen], 60, step=2)
    last = movable(hidden[-1].scene)
    assert box_id in last.ids
    k = int(np.flatnonzero(last.ids == box_id)[0])
    assert last.visibilities[k] < 0.2
    assert np.linalg.norm(last.positions[k] - BOX.position) < 0.01
    assert np.trace(last.pose_covariances[k][:3, :3]) > spread
    assert last.existence_probabilities[k] > 0.5
    back = run(pipeline, 80, lambda t: [BALL, BOX], 5)
    objects, i, error = nearest(back[-1].scene, BOX.position)
    assert objects.ids[i] == box_id and error < 0.01 and objects.visibilities[i] > 0.8


def test_a_thing_whose_place_is_seen_empty_leaves(seen):
    pipeline, results = seen
    objects, i, _ = nearest(results[-1].scene, BOX.position)
    box_id = objects.ids[i]
    after = run(pipeline, 20, lambda t: [BALL], 15)
    assert box_id not in after[-1].scene.ids
    assert (EventKind.LEAVE, box_id) in [(e.kind, e.a) for r in after for e in r.scene.events]
    # What comes later at the same place is another thing.
    again = run(pipeline, 35, lambda t: [BALL, BOX], 15)
    assert box_id not in again[-1].scene.ids and len(movable(again[-1].scene)) == 2


def test_out_of_view_is_not_gone(seen):
    pipeline, results = seen
    ids = set(movable(results[-1].scene).ids.tolist())
    away = run(pipeline, 20, lambda t: [BALL, BOX], 30, camera_pose(target=(-2.0, 3.0, 0.3)), step=3)
    assert ids <= set(away[-1].scene.ids.tolist())
    back = run(pipeline, 50, lambda t: [BALL, BOX], 6)
    assert set(movable(back[-1].scene).ids.tolist()) == ids


def test_a_moving_camera_moves_nothing():
    pipeline = PerceptionPipeline(CONFIG)
    for n in range(40):
        angle = 0.4 * np.sin(0.1 * n)
        pose = camera_pose(eye=(-0.75 * np.cos(angle), -0.75 * np.sin(angle), 0.65))
        result = pipeline.process(frame(n, [BALL, BOX], pose))
    objects = movable(result.scene)
    assert len(objects) == 2
    for thing in (BALL, BOX):
        assert nearest(result.scene, thing.position)[2] < 0.008
    assert np.linalg.norm(objects.linear_velocities, axis=1).max() < 0.03


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_depth_without_measurements_is_a_warning_and_nothing_is_lost(seen, value):
    pipeline, results = seen
    blind = replace(frame(20, []), depth_m=np.full((CAMERA.height, CAMERA.width), value, np.float32))
    result = pipeline.process(blind)
    assert any("depth" in w for w in result.warnings)
    assert result.scene.ids.tolist() == results[-1].scene.ids.tolist()
    assert not result.instance_ids.any()


def test_first_frames_may_be_blind_or_empty():
    pipeline = PerceptionPipeline(CONFIG)
    blind = replace(frame(0, []), depth_m=np.zeros((CAMERA.height, CAMERA.width), np.float32))
    assert len(pipeline.process(blind).scene) == 0
    results = run(pipeline, 1, lambda t: [], 8)
    assert len(movable(results[-1].scene)) == 0 and not results[-1].instance_ids.any()


def test_random_depth_never_raises():
    pipeline, rng = PerceptionPipeline(CONFIG), np.random.default_rng(0)
    for n in range(4):
        noise = rng.uniform(-0.5, 5.0, (CAMERA.height, CAMERA.width)).astype(np.float32)
        noise[rng.random(noise.shape) < 0.2] = np.nan
        result = pipeline.process(replace(frame(n, []), depth_m=noise))
        assert np.isfinite(result.scene.positions).all()


def test_time_that_goes_back_is_refused_with_both_stamps(seen):
    pipeline, results = seen
    with pytest.raises(ValueError, match=r"got 333333333 ns.*later than 666666667 ns"):
        pipeline.process(frame(9, [BALL]))
    # and after a reset ids go on, never again
    pipeline.reset()
    again = run(pipeline, 0, lambda t: [BALL, BOX], 10)
    assert min(again[-1].scene.ids) > max(results[-1].scene.ids)


def test_after_a_long_gap_velocities_start_again(seen):
    pipeline, _ = seen
    run(pipeline, 20, lambda t: [replace(BALL, position=(0.0, -0.2 + 0.5 * t, 0.04)), BOX], 8)
    late = pipeline.process(frame(300, [replace(BALL, position=(0.0, -0.08, 0.04)), BOX]))
    assert np.linalg.norm(movable(late.scene).linear_velocities, axis=1).max() < 0.1
    assert len(movable(late.scene)) == 2


def test_things_that_come_into_contact_stay_two():
    pipeline = PerceptionPipeline(CONFIG)

    def closing(t):
        return [replace(BALL, position=(0.1, min(-0.1 + 0.6 * max(t, 0.0), 0.05), 0.04)), BOX]

    ids = set(movable(run(pipeline, 0, lambda t: closing(0.0), 12)[-1].scene).ids.tolist())
    assert len(ids) == 2
    met = run(pipeline, 12, closing, 24)
    assert set(movable(met[-1].scene).ids.tolist()) == ids
    touching = {(r.subject, r.object) for r in met[-1].scene.relations if r.predicate == Predicate.TOUCHING}
    assert tuple(sorted(ids)) in touching
    assert EventKind.CONTACT in [e.kind for r in met for e in r.scene.events]


@pytest.mark.parametrize("segmenter", ["geometric", "learned"])
def test_a_frame_begun_before_the_last_is_finished_changes_nothing(segmenter):
    """Ball and box are hidden, pushed, and joined by a shelf, so that supports and tracks both change meanwhile."""
    config = replace(CONFIG, segmenter=segmenter)
    shelf = Thing((-0.2, 0.0, 0.10), (0.35, 0.45, 0.02), (120, 110, 90))

    def things_at(n):
        ball = replace(BALL, position=(0.0, -0.2 + 0.02 * max(n - 10, 0), 0.04))
        return [ball, BOX, shelf] if n >= 12 else [ball, BOX]

    frames = [frame(n, things_at(n)) for n in range(24)]
    one_by_one, overlapped = PerceptionPipeline(config), PerceptionPipeline(config)
    expected = [one_by_one.process(f) for f in frames]
    begun, results = overlapped.begin(frames[0]), []
    for f in frames[1:]:
        following = overlapped.begin(f)
        results.append(overlapped.finish(begun))
        begun = following
    results.append(overlapped.finish(begun))
    assert len(expected[-1].scene) > len(expected[8].scene)  # the shelf was found
    for a, b in zip(expected, results, strict=True):
        np.testing.assert_array_equal(a.instance_ids, b.instance_ids)
        for field in fields(a.scene):
            np.testing.assert_equal(getattr(a.scene, field.name), getattr(b.scene, field.name), err_msg=field.name)


def test_supports_of_a_frame_stay_as_they_were_when_later_ones_change_them():
    pipeline = PerceptionPipeline(CONFIG)
    begun = pipeline.begin(frame(0, [BALL, BOX]))
    before = copy.deepcopy(begun.supports)
    for n in range(1, 8):
        pipeline.begin(frame(n, [BALL, BOX], camera_pose((-0.75, 0.03 * n, 0.65))))
    assert pipeline.supports.supports[0].frames > before[0].frames
    for a, b in zip(before, begun.supports, strict=True):
        np.testing.assert_equal(asdict(a), asdict(b))


def test_timings_name_the_stages(seen):
    _, results = seen
    assert {"cloud", "supports", "segment", "track", "relations"} <= set(results[-1].timings_s)
    assert all(s >= 0.0 for s in results[-1].timings_s.values())


@pytest.mark.parametrize(
    "changes", [{"stride": 0}, {"max_depth_m": 0.0}, {"confirm_hits": 0}, {"near_m": -1.0}, {"min_pixels": 1}]
)
def test_a_parameter_out_of_range_is_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=name):
        PerceptionConfig(**changes)


@pytest.mark.parametrize("broken", ["depth_m", "color", "world_T_camera"])
def test_a_frame_of_the_wrong_shape_is_refused(broken):
    good = frame(0, [])
    values = {f: getattr(good, f) for f in ("stamp_ns", "color", "depth_m", "camera", "world_T_camera")}
    values[broken] = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="expected"):
        Frame(**values)
