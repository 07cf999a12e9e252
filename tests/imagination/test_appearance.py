"""What the appearance memory keeps, replaces, carves away and completes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from traced_scene import BALL, BOX, CAMERA, FRONT, TABLE, look_at, make_scene, trace
from wm_core.camera import Camera
from wm_core.geometry import invert_transform
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import AppearanceConfig, AppearanceError
from wm_imagination.appearance.points import complete, sample_primitive
from wm_imagination.appearance.views import grow_masks, surface_geometry

SIDE = look_at((-0.7, 0.6, 0.6))
BEHIND = look_at((0.9, 0.1, 0.6))


def learn(memory: AppearanceMemory, scene: SceneGraph, pose: np.ndarray = FRONT, stamp_ns: int | None = None) -> None:
    color, depth, ids = trace(scene, pose)
    stamp = stamp_ns if stamp_ns is not None else (memory.stamp_ns or 0) + 33_000_000
    memory.integrate(stamp, color, depth, CAMERA, pose, ids, scene)


def surface_distance(scene: SceneGraph, object_id: int, points: np.ndarray) -> np.ndarray:
    """Distance [m] of points in the object frame from the true surface."""
    i = scene.index(object_id)
    half = scene.extents[i] / 2.0
    if scene.shapes[i] == Shape.SPHERE:
        return np.abs(np.linalg.norm(points, axis=1) - half[0])
    q = np.abs(points) - half
    return np.abs(np.linalg.norm(np.maximum(q, 0.0), axis=1) + np.minimum(q.max(axis=1), 0.0))


def test_seen_points_lie_on_the_surface() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene)
    snapshot = memory.snapshot()
    for object_id in (BOX, BALL):
        seen = snapshot.objects[object_id].seen
        assert len(seen) > 100
        assert surface_distance(scene, object_id, seen.points).max() < 1e-4
        hue = seen.colors.astype(int)
        assert (hue[:, 0] > hue[:, 2]).all() if object_id == BOX else (hue[:, 2] > hue[:, 0]).all()
    assert TABLE not in snapshot.objects  # supports are background


def test_background_has_no_color_of_objects() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene)
    learn(memory, scene, SIDE)
    snapshot = memory.snapshot()
    for cloud in (snapshot.visible, snapshot.hidden):
        color = cloud.colors.astype(int)
        assert len(cloud) > 1000
        assert not (color[:, 0] - color[:, 1] > 100).any() and not (color[:, 2] - color[:, 0] > 60).any()


def test_hidden_background_is_what_other_views_saw() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene, SIDE)
    learn(memory, scene)
    hidden = memory.snapshot().hidden
    to_camera = invert_transform(FRONT)
    pixels, z = CAMERA.project(hidden.points @ to_camera[:3, :3].T + to_camera[:3, 3])
    _, _, ids = trace(scene)
    rounded = np.round(pixels[z > 0.1]).astype(int)
    inside = ((rounded >= 0) & (rounded < (CAMERA.width, CAMERA.height))).all(axis=1)
    shown = ids[rounded[inside, 1], rounded[inside, 0]]
    assert (shown == BOX).sum() > 50  # the table and wall behind the box


@pytest.mark.slow
def test_same_view_again_adds_nothing() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    for _ in range(4):
        learn(memory, scene)
    snapshot = memory.snapshot()
    assert len(snapshot.hidden) < 100
    once = AppearanceMemory()
    learn(once, scene)
    for object_id in (BOX, BALL):
        before, after = len(once.snapshot().objects[object_id].seen), len(snapshot.objects[object_id].seen)
        assert after <= 1.05 * before


@pytest.mark.slow
def test_what_moved_leaves_no_trail() -> None:
    memory = AppearanceMemory()
    for step in range(5):
        scene = make_scene(ball_position=(0.05, -0.12 - 0.05 * step, 0.04), stamp_ns=step)
        learn(memory, scene)
    snapshot = memory.snapshot()
    assert surface_distance(scene, BALL, snapshot.objects[BALL].seen.points).max() < 2e-3
    color = snapshot.hidden.colors.astype(int)
    assert not (color[:, 2] - color[:, 0] > 60).any()


def test_views_from_around_are_joined() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene, BEHIND)
    learn(memory, scene, SIDE)
    learn(memory, scene, FRONT)
    seen = memory.snapshot().objects[BOX].seen
    assert surface_distance(scene, BOX, seen.points).max() < 5e-3
    # Front, back, one side and top of the box are all known now.
    for axis, sign in ((0, -1), (0, 1), (1, 1), (2, 1)):
        assert (seen.points[:, axis] * sign > 0.045).sum() > 30, (axis, sign)


@pytest.mark.slow
def test_uncertain_or_fast_views_are_not_banked() -> None:
    covariance = np.zeros((3, 6, 6))
    covariance[1, :3, :3] = np.eye(3) * 0.1**2
    for given_values in (
        {"pose_covariances": covariance},
        {"linear_velocities": [(0, 0, 0), (2.0, 0, 0), (0, 0, 0)]},
    ):
        memory = AppearanceMemory()
        scene = make_scene(**given_values)
        learn(memory, scene, BEHIND)
        learn(memory, scene, FRONT)
        seen = memory.snapshot().objects[BOX].seen
        assert not (seen.points[:, 0] > 0.045).any()  # the back is not mixed in
        assert (memory.snapshot().objects[BALL].seen.points[:, 0] > 0.02).any()


def test_completion_closes_the_surface() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene)
    snapshot = memory.snapshot()
    for object_id, color in ((BOX, 0), (BALL, 2)):
        whole = snapshot.completed(object_id, np.zeros(3))
        assert whole is not None
        i = scene.index(object_id)
        wanted = sample_primitive(int(scene.shapes[i]), scene.extents[i], None, 2000)
        gap, _ = cKDTree(whole.points).query(wanted.points)
        assert np.percentile(gap, 99) < 0.009
        assert (whole.colors.argmax(axis=1) == color).all()  # the back has the front's colors
    assert snapshot.completed(77, np.zeros(3)) is None


def test_completion_of_the_never_seen_takes_the_given_color() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    color, depth, ids = trace(scene, without=(BALL,))
    memory.integrate(1, color, depth, CAMERA, FRONT, ids, scene)
    snapshot = memory.snapshot().objects[BALL]
    assert not len(snapshot.seen)
    assert (complete(snapshot.seen, snapshot.unseen, np.array([1.0, 0.0, 0.5])).colors == (255, 0, 127)).all()


def test_empty_places_of_the_primitive_are_carved() -> None:
    """A primitive fitted twice too tall: the upper half was looked through, and must not be drawn."""
    scene = make_scene()
    extents, positions = scene.extents.copy(), scene.positions.copy()
    extents[1, 2], positions[1, 2] = 0.2, 0.1
    memory = AppearanceMemory()
    color, depth, ids = trace(scene)
    memory.integrate(1, color, depth, CAMERA, FRONT, ids, replace(scene, extents=extents, positions=positions))
    unseen = memory.snapshot().objects[BOX].unseen
    assert (unseen.points[:, 2] > 0.04).mean() < 0.05  # of 30 % before


def test_bounds() -> None:
    config = AppearanceConfig(max_background_points=500, max_object_points=200, max_objects=1, forget_after_s=1.0)
    memory, scene = AppearanceMemory(config), make_scene()
    for pose in (SIDE, BEHIND, FRONT):
        learn(memory, scene, pose)
    snapshot = memory.snapshot()
    assert len(snapshot.hidden) <= 500
    assert len(snapshot.objects) == 1
    assert all(len(o.seen) <= 2 * 200 for o in snapshot.objects.values())


def test_gone_objects_are_forgotten_and_time_set_back_clears() -> None:
    memory, scene = AppearanceMemory(AppearanceConfig(forget_after_s=1.0)), make_scene()
    learn(memory, scene, stamp_ns=5_000_000_000)
    later = scene.select([0, 1])
    learn(memory, later, stamp_ns=7_000_000_000)
    assert set(memory.snapshot().objects) == {BOX}
    learn(memory, later, SIDE, stamp_ns=1_000_000_000)
    assert memory.stamp_ns == 1_000_000_000 and not len(memory.snapshot().hidden)
    memory.reset()
    assert memory.snapshot().frame is None


def test_snapshot_does_not_change() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene)
    before = memory.snapshot()
    count, stamp = len(before.objects[BOX].seen), before.frame.stamp_ns
    learn(memory, scene, SIDE)
    assert len(before.objects[BOX].seen) == count and before.frame.stamp_ns == stamp
    assert memory.snapshot() is not before and memory.snapshot() is memory.snapshot()


def test_noise_and_holes_are_survived() -> None:
    rng = np.random.default_rng(0)
    memory, scene = AppearanceMemory(), make_scene()
    for pose in (SIDE, FRONT, FRONT):
        color, depth, ids = trace(scene, pose)
        depth = depth + rng.normal(0.0, 0.003, depth.shape).astype(np.float32)
        depth[rng.random(depth.shape) < 0.1] = np.nan
        depth[rng.random(depth.shape) < 0.01] = 0.3  # flying pixels
        memory.integrate((memory.stamp_ns or 0) + 1, color, depth, CAMERA, pose, ids, scene)
    snapshot = memory.snapshot()
    assert np.isfinite(snapshot.hidden.points).all() and np.isfinite(snapshot.visible.points).all()
    assert np.percentile(surface_distance(scene, BOX, snapshot.objects[BOX].seen.points), 95) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color": np.zeros((240, 320, 4), np.uint8)}, "color: got uint8 (240, 320, 4)"),
        ({"color": np.zeros((240, 320, 3))}, "color: got float64"),
        ({"depth_m": np.zeros((120, 160), np.float32)}, "depth: got shape (120, 160), expected (240, 320)"),
        ({"instance_ids": np.zeros((10, 10), np.uint16)}, "instance_ids: got uint16 (10, 10)"),
        ({"instance_ids": np.zeros((240, 320))}, "instance_ids: got float64"),
        ({"world_T_camera": np.full((4, 4), np.nan)}, "world_T_camera: expected a finite 4x4"),
        ({"world_T_camera": np.eye(4) * 2.0}, "world_T_camera: expected a rotation"),
        ({"camera": Camera(640, 480, 600, 600, 320, 240)}, "expected uint8 (480, 640, 3)"),
    ],
)
def test_bad_frames_are_refused_and_change_nothing(change: dict, said: str) -> None:
    memory, scene = AppearanceMemory(), make_scene()
    learn(memory, scene)
    before = memory.snapshot()
    color, depth, ids = trace(scene)
    frame = {
        "color": color,
        "depth_m": depth,
        "camera": CAMERA,
        "world_T_camera": FRONT,
        "instance_ids": ids,
        "scene": scene,
    }
    with pytest.raises(AppearanceError) as error:
        memory.integrate(stamp_ns=10**10, **{**frame, **change})
    assert said in str(error.value)
    assert memory.snapshot() is before


def test_all_invalid_depth_and_empty_scene() -> None:
    memory = AppearanceMemory()
    empty = SceneGraph.build([], np.zeros((0, 3)), np.zeros((0, 3)))
    zeros = np.zeros((240, 320), np.float32)
    memory.integrate(1, np.zeros((240, 320, 3), np.uint8), zeros, CAMERA, FRONT, zeros.astype(np.uint16), empty)
    snapshot = memory.snapshot()
    assert snapshot.frame is not None and not snapshot.objects and not len(snapshot.visible)


def test_normals_face_the_camera_and_are_right() -> None:
    _, depth, ids = trace(make_scene())
    points, normals, spacing, solid = surface_geometry(depth, CAMERA)
    table = (ids == 0) & solid & (points[..., 2] < 0.9) & (points[..., 2] > 0.6)
    world = normals[table] @ FRONT[:3, :3].T
    assert np.median(world[:, 2]) > 0.99
    assert (np.einsum("ij,ij->i", normals[solid], points[solid]) < 0.0).mean() > 0.99
    assert (spacing[solid] >= 0.99 * points[solid][:, 2] / CAMERA.fx).all()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE]),
    size=st.tuples(*[st.floats(0.01, 0.5)] * 3),
)
def test_primitive_samples_are_on_the_surface_and_spread(shape: Shape, size: tuple[float, float, float]) -> None:
    diameter, _, length = size
    extents = {
        Shape.BOX: np.array(size),
        Shape.SPHERE: np.full(3, diameter),
        Shape.CYLINDER: np.array([diameter, diameter, length]),
        Shape.CAPSULE: np.array([diameter, diameter, max(length, diameter)]),
    }[shape]
    cloud = sample_primitive(shape, extents, None, 1500)
    half = extents / 2.0
    p = cloud.points.astype(float)
    assert (np.abs(p) <= half * (1 + 1e-5) + 1e-7).all()
    radial = np.hypot(p[:, 0], p[:, 1])
    if shape == Shape.SPHERE:
        off = np.abs(np.linalg.norm(p, axis=1) - half[0])
    elif shape == Shape.BOX:
        off = np.abs(np.abs(p) - half).min(axis=1)
    elif shape == Shape.CYLINDER:
        off = np.minimum(np.abs(radial - half[0]), np.abs(np.abs(p[:, 2]) - half[2]))
    else:
        beyond = np.maximum(np.abs(p[:, 2]) - (half[2] - half[0]), 0.0)
        off = np.abs(np.hypot(radial, beyond) - half[0])
    assert off.max() < 1e-5 * max(1.0, half.max()) + 1e-6
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1.0, atol=1e-4)
    assert (np.einsum("ij,ij->i", cloud.normals, cloud.points) > -1e-6).all()  # outward
    nearest, _ = cKDTree(p).query(p, k=2)
    assert np.median(nearest[:, 1]) > 0.2 * cloud.spacing[0]


def test_flat_hull_falls_back_on_bounds() -> None:
    flat = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], float)
    cloud = sample_primitive(Shape.CONVEX, np.array([1.0, 1.0, 0.1]), flat, 500)
    assert len(cloud) == 500 and np.abs(cloud.points[:, 2]).max() == pytest.approx(0.05)


def test_what_had_no_id_yet_is_not_background() -> None:
    """An object gets its id after some frames; until then its pixels count as background."""
    memory, scene = AppearanceMemory(), make_scene()
    color, depth, ids = trace(scene, SIDE)
    memory.integrate(
        1, color, depth, CAMERA, SIDE, np.where(ids == BOX, 0, ids).astype(np.uint16), scene.select([0, 2])
    )
    learn(memory, scene, FRONT)
    hidden = memory.snapshot().hidden
    reddish = hidden.colors.astype(int)
    assert not (reddish[:, 0] - reddish[:, 1] > 100).any()


@pytest.mark.slow
def test_older_views_follow_the_exposure() -> None:
    memory, scene = AppearanceMemory(), make_scene()
    color, depth, ids = trace(scene, SIDE)
    memory.integrate(1, (color * 0.85).astype(np.uint8), depth, CAMERA, SIDE, ids, scene)
    learn(memory, scene, FRONT)
    bright = memory.snapshot().hidden
    reference = AppearanceMemory()
    learn(reference, scene, SIDE)
    learn(reference, scene, FRONT)
    same = reference.snapshot().hidden
    assert len(bright) == pytest.approx(len(same), rel=0.05)
    assert np.abs(bright.colors.mean(axis=0) - same.colors.mean(axis=0)).max() < 5.0


def test_masks_grow_into_the_color_of_the_thing_only() -> None:
    color, _, ids = trace(make_scene())
    shrunk = cv2.erode((ids == BOX).astype(np.uint8), np.ones((5, 5))) * np.uint16(BOX)
    owner = grow_masks(color, shrunk.astype(np.uint16))
    assert (owner[shrunk > 0] == BOX).all()
    assert (owner[ids == BOX] == BOX).mean() > 0.97  # the rim that the mask had lost
    spilled = (owner == BOX) & (cv2.dilate((ids == BOX).astype(np.uint8), np.ones((5, 5))) == 0)
    assert spilled.sum() < 0.05 * (ids == BOX).sum()
    assert not grow_masks(color, np.zeros_like(ids)).any()
