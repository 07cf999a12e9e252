"""Messages round trip without loss (float32 fields to float32), and say what they cannot read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo
from wm_msgs.msg import Hypothesis as HypothesisMsg
from wm_msgs.msg import ImagineRequest as ImagineRequestMsg
from wm_msgs.msg import Intervention as InterventionMsg
from wm_msgs.msg import SceneObject as SceneObjectMsg

from wm_core import interventions as do
from wm_core.camera import Camera
from wm_core.convex_parts import ConvexPart, hull_part
from wm_core.geometry import pose_matrix
from wm_core.rollout import ImageRequest, ImagineRequest, RequestError, Rollout, RolloutEvent
from wm_core.rotations import normalize_quaternion
from wm_core.scene_graph import Event, EventKind, Predicate, Relation, SceneGraph, Shape
from wm_ros.conversions.basics import camera_from_msg, camera_to_msg
from wm_ros.conversions.interventions import intervention_to_msg
from wm_ros.conversions.requests import request_from_msg, request_to_msg
from wm_ros.conversions.rollout import rollout_from_msg, rollout_to_msg
from wm_ros.conversions.scene_graph import scene_graph_from_msg, scene_graph_to_msg


def random_scene(seed: int, count: int) -> SceneGraph:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(np.arange(1, 1000), count, replace=False))
    pairs = [(int(ids[0]), int(ids[-1]))] if count > 1 else []
    return SceneGraph.build(
        ids=ids,
        positions=rng.normal(size=(count, 3)),
        extents=rng.uniform(0.01, 0.5, (count, 3)),
        stamp_ns=int(rng.integers(1, 2**60)),
        frame_id="odom",
        class_names=tuple(rng.choice(["box", "object", "support"], count)),
        quaternions=normalize_quaternion(rng.normal(size=(count, 4))),
        linear_velocities=rng.normal(size=(count, 3)),
        angular_velocities=rng.normal(size=(count, 3)),
        shapes=rng.integers(0, 5, count),
        is_static=rng.random(count) < 0.5,
        pose_covariances=rng.normal(size=(count, 6, 6)),
        colors=rng.random((count, 3)),
        first_seen_ns=rng.integers(0, 2**60, count),
        hulls=tuple(rng.normal(size=(rng.integers(0, 5), 3)) for _ in range(count)),
        relations=[Relation(a, Predicate.NEAR, b, 0.5, 12345) for a, b in pairs],
        events=[Event(3, EventKind.CONTACT, a, b, 77, 0.25) for a, b in pairs],
        world_T_camera=pose_matrix(rng.normal(size=3), rng.normal(size=4)),
        class_vocabulary=("box", "mug"),
        # The last object is not classified and has no embedding.
        class_probabilities=rng.dirichlet([1.0, 1.0], count) * (np.arange(count) < count - 1)[:, None],
        embeddings=rng.normal(size=(count, 4)) * (np.arange(count) < count - 1)[:, None],
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 6))
def test_scene_graph_round_trip(seed, count):
    before = random_scene(seed, count)
    after = scene_graph_from_msg(scene_graph_to_msg(before))
    assert after.stamp_ns == before.stamp_ns and after.frame_id == before.frame_id
    assert after.ids.tolist() == before.ids.tolist() and after.class_names == before.class_names
    assert after.relations == before.relations and after.events == before.events
    assert after.first_seen_ns.tolist() == before.first_seen_ns.tolist()
    for name in ("positions", "extents", "linear_velocities", "angular_velocities", "pose_covariances"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert after.class_vocabulary == before.class_vocabulary
    assert np.allclose(after.class_probabilities, before.class_probabilities, atol=1e-6)
    # Where no object has one, its length is not known either.
    assert np.allclose(after.embeddings, before.embeddings if count > 1 else np.zeros((count, 0)), atol=1e-6)
    for name in ("log_mass", "friction", "restitution", "colors", "world_T_camera", "quaternions"):
        assert np.allclose(getattr(after, name), getattr(before, name), atol=1e-6), name
    for hull_after, hull_before in zip(after.hulls, before.hulls, strict=True):
        assert np.allclose(hull_after, hull_before, atol=1e-6)


def test_objects_in_any_order_come_out_sorted_and_unknown_shapes_are_refused():
    msg = scene_graph_to_msg(random_scene(1, 4))
    msg.objects = list(reversed(msg.objects))
    assert (np.diff(scene_graph_from_msg(msg).ids) > 0).all()
    msg.objects[0].shape = 99
    with pytest.raises(ValueError, match=r"shape: got 99, expected 0\.\.5"):
        scene_graph_from_msg(msg)


def mug_scene() -> SceneGraph:
    wall = ConvexPart(Shape.BOX, np.array([0.01, 0.08, 0.1]), np.array([0.03, 0.0, 0.0]))
    floor = ConvexPart(Shape.CYLINDER, np.array([0.07, 0.07, 0.01]), np.array([0.0, 0.0, -0.045]))
    rim = hull_part([[0, 0, 0.05], [0.01, 0, 0.05], [0, 0.01, 0.05], [0, 0, 0.06]])
    return SceneGraph.build(
        [1, 4], np.zeros((2, 3)), [[1, 1, 1], [0.08, 0.08, 0.1]], shapes=[0, 2], parts=[(), (wall, floor, rim)]
    )


def test_convex_parts_round_trip_and_the_outline_stays():
    scene = mug_scene()
    msg = scene_graph_to_msg(scene)
    assert [o.shape for o in msg.objects] == [0, SceneObjectMsg.SHAPE_COMPOUND]
    back = scene_graph_from_msg(msg)
    assert back.shapes.tolist() == [0, 2] and back.parts[0] == () and len(back.parts[1]) == 3
    for before, after in zip(scene.parts[1], back.parts[1], strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(before.points(), after.points(), atol=1e-7)
    np.testing.assert_allclose(back.select([1]).parts[0][1].extents, [0.07, 0.07, 0.01])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: setattr(o, "parts", []), r"id=4\]\.parts: got 0, expected 1\.\.12"),
        (lambda o: setattr(o, "parts", list(o.parts) * 5), r"id=4\]\.parts: got 15, expected 1\.\.12"),
        (lambda o: setattr(o, "outline_shape", 5), r"id=4\]\.outline_shape: got 5, expected 0\.\.4"),
        (lambda o: setattr(o.parts[1], "shape", 5), r"parts\[1\]\.shape: got 5, expected 0\.\.4"),
        (
            lambda o: setattr(o.parts[0].extents, "x", 0.0),
            r"parts\[0\]\.extents: got \[0\.0, .*expected finite and > 0",
        ),
        (
            lambda o: setattr(o.parts[2].pose.position, "x", float("nan")),
            r"parts\[2\]: has a number that is not finite",
        ),
        (lambda o: setattr(o.parts[1], "hull_points", [0.1] * 4), r"parts\[1\]\.hull_points: got 4 numbers"),
        (lambda o: setattr(o, "hull_points", [0.1] * 4), r"id=4\]\.hull_points: got 4 numbers, expected x, y, z"),
        (lambda o: setattr(o, "hull_points", [float("nan")] * 3), r"id=4\]\.hull_points: has a number that is not"),
    ],
)
def test_parts_that_the_message_does_not_allow_are_refused(spoil, message):
    msg = scene_graph_to_msg(mug_scene())
    spoil(msg.objects[1])
    with pytest.raises(ValueError, match=message):
        scene_graph_from_msg(msg)


def test_class_probabilities_of_another_length_than_the_vocabulary_are_refused():
    msg = scene_graph_to_msg(random_scene(1, 3))
    assert len(msg.objects[0].class_probabilities) == 2 and not len(msg.objects[2].class_probabilities)
    msg.class_names.append("bowl")
    with pytest.raises(ValueError, match=r"class_probabilities: got 2 values, expected 3 or none"):
        scene_graph_from_msg(msg)
    with pytest.raises(ValueError, match="got 2 columns, expected 1"):
        SceneGraph.build([1], [[0, 0, 0]], [[1, 1, 1]], class_vocabulary=("a",), class_probabilities=[[0.5, 0.5]])


def test_request_round_trip_with_every_kind_of_intervention():
    body = do.BodySpec(Shape.CYLINDER, np.array([0.04, 0.04, 0.1]), np.array([0.1, 0.2, 0.3]), mass=0.25)
    interventions = (
        do.remove(1),
        do.add(body, at_s=0.5),
        do.set_pose(2, [1, 2, 3], [0, 0, 1, 0]),
        do.set_velocity(2, [1, 0, 0], [0, 0, 3]),
        do.apply_impulse(2, [0, 1, 0], [0, 0, 0.05]),
        do.set_property(2, do.Property.FRICTION, 0.5, factor=True),
        do.follow_path([0, 1], [[0, 0, 0], [1, 0, 0]], body=body),
        do.morph(2, [1, 1, 0.5]),
        do.restyle(2, [1, 0, 0.5]),
    )
    before = ImagineRequest(
        hypotheses=(do.Hypothesis("factual"), do.Hypothesis("all", interventions)),
        horizon_s=2.0,
        samples=4,
        seed=2**40,
        pairs=((1, 2), (2, 3)),
        initial_state=random_scene(2, 3),
        images=ImageRequest(True, False, True, 5.0, Camera(64, 48, 50, 50, 32, 24), np.eye(4)),
    )
    after = request_from_msg(request_to_msg(before))
    assert after.pairs == before.pairs and after.seed == before.seed and after.samples == 4
    assert after.horizon_s == 2.0 and after.step_s == pytest.approx(1 / 30)
    assert after.images.camera == before.images.camera and after.images.points and not after.images.depth
    assert after.initial_state is not None and after.initial_state.ids.tolist() == before.initial_state.ids.tolist()
    for got, sent in zip(after.hypotheses[1].interventions, interventions, strict=True):
        assert got.kind == sent.kind and got.object_id == sent.object_id
        for name in (
            "position",
            "quaternion",
            "linear_velocity",
            "angular_velocity",
            "impulse",
            "point",
            "scale",
        ):
            assert np.allclose(getattr(got, name), getattr(sent, name)), (sent.kind, name)
        assert got.value == sent.value and got.value_is_factor == sent.value_is_factor
        assert np.allclose(got.path_positions, sent.path_positions)
        if sent.body is not None:
            assert got.body is not None and got.body.effective_mass == pytest.approx(sent.body.effective_mass)
            assert got.body.shape == sent.body.shape


def test_defaults_of_an_empty_request():
    request = request_from_msg(ImagineRequestMsg(horizon=1.0))
    assert request.step_s == pytest.approx(1 / 30) and request.backend == "auto" and request.samples == 1
    assert request.initial_state is None and request.images.camera is None
    assert len(request.times) == 31


def test_float32_steps_do_not_lose_the_last_state():
    for horizon, step, count in ((2.0, 1 / 30, 61), (1.0, 0.1, 11), (0.5, 1 / 60, 31), (1.0, 1 / 3000, 3001)):
        request = request_from_msg(ImagineRequestMsg(horizon=horizon, step=float(np.float32(step))))
        assert len(request.times) == count


def test_unreadable_requests_name_the_field():
    msg = ImagineRequestMsg(pairs=[1, 2, 3])
    with pytest.raises(RequestError, match="pairs: got 3 ids"):
        request_from_msg(msg)
    msg = ImagineRequestMsg(hypotheses=[HypothesisMsg(name="h")])
    msg.hypotheses[0].interventions = [InterventionMsg(kind=77)]
    with pytest.raises(do.InterventionError, match=r"hypotheses\[0\]\.interventions\[0\]\.kind: got 77"):
        request_from_msg(msg)
    msg.hypotheses[0].interventions = [intervention_to_msg(do.set_pose(1, [0, 0, 0]))]
    msg.hypotheses[0].interventions[0].pose.orientation.x = float("nan")
    with pytest.raises(do.InterventionError, match="quaternion is not finite"):
        request_from_msg(msg)


def test_rollout_round_trip_and_size_check():
    rng = np.random.default_rng(0)
    k, s, t, n = 3, 2, 5, 4
    before = Rollout(
        stamp_ns=5_000_000_123,
        frame_id="map",
        hypotheses=("a", "b", "c"),
        times=np.arange(t) / 30,
        object_ids=np.array([1, 2, 3, 9]),
        states=rng.normal(size=(k, s, t, n, 13)).astype(np.float32),
        present=rng.random((k, t, n)) < 0.5,
        backend="physics",
        complete=False,
        computed=np.array([True, True, False]),
        valid=np.array([True, False, False]),
        invalid_reasons=("", "2 of 2 samples: MuJoCo diverged", "not computed"),
        position_std=rng.random((k, t, n)).astype(np.float32),
        events=(RolloutEvent(1, 0, EventKind.FALL, 2, 0, 0.5),),
        effect=rng.random((k, n)).astype(np.float32),
        effect_vector=rng.random((k, n, 3)).astype(np.float32),
        pairs=((1, 2),),
        pair_separation=rng.random((k, 1)).astype(np.float32),
        pair_collision=rng.random((k, 1)).astype(np.float32),
        points=tuple(rng.random((i + 1, 3)).astype(np.float32) for i in range(n)),
        point_colors=tuple(rng.integers(0, 255, (i + 1, 3)).astype(np.uint8) for i in range(n)),
    )
    msg = rollout_to_msg(before)
    after = rollout_from_msg(msg, before.pairs)
    for name in (
        "states",
        "present",
        "position_std",
        "effect",
        "effect_vector",
        "pair_separation",
        "pair_collision",
        "computed",
        "valid",
    ):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert after.invalid_reasons == before.invalid_reasons and after.usable.tolist() == [True, False, False]
    assert after.events == before.events and not after.complete and after.object_ids.tolist() == [1, 2, 3, 9]
    assert all(np.array_equal(a, b) for a, b in zip(after.points, before.points, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(after.point_colors, before.point_colors, strict=True))
    msg.present = msg.present[:-1]
    with pytest.raises(ValueError, match=r"Rollout\.present: got 59 values"):
        rollout_from_msg(msg, before.pairs)


def test_camera_round_trip_and_uncalibrated_camera():
    camera = Camera(640, 480, 525.0, 524.0, 320.0, 239.0)
    assert camera_from_msg(camera_to_msg(camera)) == camera
    with pytest.raises(ValueError, match="fx, fy > 0"):
        camera_from_msg(CameraInfo(width=640, height=480))
