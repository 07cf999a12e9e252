"""Imagined images against exact ones: the same scene traced analytically with and without the intervention."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traced_scene import BALL, BOX, CAMERA, FRONT, look_at, make_scene, psnr, trace
from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.model import Appearance
from wm_imagination.rendering.filling import push_pull
from wm_imagination.rendering.primitives import Body, cast_primitive, ray_directions, recolor, scene_bodies
from wm_imagination.rendering.renderer import Renderer, render
from wm_imagination.rendering.splatting import NO_DEPTH, splat

LEFT = look_at((-0.75, 0.45, 0.6))
BESIDE = look_at((-0.85, 0.2, 0.62))


def appearance_of(scene: SceneGraph, *poses: np.ndarray, noise_m: float = 0.0) -> Appearance:
    memory = AppearanceMemory()
    rng = np.random.default_rng(0)
    for i, pose in enumerate(poses):
        color, depth, ids = trace(scene, pose)
        depth = depth + rng.normal(0.0, noise_m, depth.shape).astype(np.float32) if noise_m else depth
        memory.integrate(i, color, depth, CAMERA, pose, ids, scene)
    return memory.snapshot()


def without(scene: SceneGraph, object_id: int) -> list[Body]:
    return [b for b in scene_bodies(scene) if b.object_id != object_id]


def reddish(color: np.ndarray) -> np.ndarray:
    c = color.astype(int)
    return (c[..., 0] > 150) & (c[..., 1] < 90) & (c[..., 2] < 90)


def test_unchanged_scene_is_the_frame_itself() -> None:
    scene = make_scene()
    color, depth, ids = trace(scene)
    frame = Renderer(appearance_of(scene, LEFT, FRONT), scene).render(scene_bodies(scene))
    np.testing.assert_array_equal(frame.color, color)
    np.testing.assert_array_equal(frame.instance_ids, ids)
    np.testing.assert_array_equal(frame.depth_m, depth)


def test_unchanged_scene_at_another_resolution() -> None:
    scene = make_scene()
    small = CAMERA.scaled(0.5)
    frame = render(appearance_of(scene, FRONT), scene, scene_bodies(scene), small)
    assert frame.color.shape == (120, 160, 3)
    assert psnr(frame.color, trace(scene, FRONT, small)[0]) > 30.0


@pytest.mark.slow
@pytest.mark.parametrize("views", [(FRONT,), (LEFT, FRONT)], ids=["one view", "two views"])
def test_removal_leaves_nothing_behind(views: tuple[np.ndarray, ...]) -> None:
    scene = make_scene()
    true_color, true_depth, _ = trace(scene, without=(BOX,))
    frame = Renderer(appearance_of(scene, *views), scene).render(without(scene, BOX))
    assert not reddish(frame.color).any()
    assert BOX not in frame.instance_ids
    assert psnr(frame.color, true_color) > 40.0
    gone = trace(scene)[2] == BOX
    assert psnr(frame.color, true_color, gone) > 24.0
    error = np.abs(frame.depth_m - true_depth)
    assert (frame.depth_m > 0.0).all()
    assert np.percentile(error[gone], 95) < 0.005
    assert error[~gone & ~cv2.dilate(gone.astype(np.uint8), np.ones((9, 9))).astype(bool)].max() == 0.0


@pytest.mark.slow
def test_removal_with_sensor_noise_leaves_no_step() -> None:
    scene = make_scene()
    frame = Renderer(appearance_of(scene, LEFT, FRONT, noise_m=0.003), scene).render(without(scene, BOX))
    true_depth = trace(scene, without=(BOX,))[1]
    gone = trace(scene)[2] == BOX
    assert np.median(np.abs(frame.depth_m - true_depth)[gone]) < 0.006
    assert not reddish(frame.color).any()


def test_parts_without_depth_vanish_too() -> None:
    """A shiny patch of the box has no depth and therefore no instance id; removed with the box all the same."""
    scene = make_scene()
    color, depth, ids = trace(scene)
    v, u = (int(x) for x in np.argwhere(ids == BOX).mean(axis=0))
    patch = (slice(v - 3, v + 8), slice(u - 15, u + 15))
    lost = np.zeros(ids.shape, bool)
    lost[patch] = ids[patch] == BOX
    memory = AppearanceMemory()
    memory.integrate(1, color, np.where(lost, 0, depth), CAMERA, FRONT, np.where(lost, 0, ids).astype(np.uint16), scene)
    frame = Renderer(memory.snapshot(), scene).render(without(scene, BOX))
    assert not reddish(frame.color).any()


def test_moved_things_are_at_the_right_pixels() -> None:
    scene = make_scene()
    turned = (0.0, 0.0, np.sin(0.3), np.cos(0.3))
    after = make_scene((0.1, 0.02, 0.05), (-0.1, -0.15, 0.04), turned)
    color, depth, ids = trace(after)
    frame = Renderer(appearance_of(scene, LEFT, FRONT), scene).render(scene_bodies(after))
    for object_id in (BOX, BALL):
        mine, true = frame.instance_ids == object_id, ids == object_id
        assert (mine & true).sum() / (mine | true).sum() > 0.85
        assert np.median(np.abs(frame.depth_m - depth)[mine & true]) < 0.006
        solid = cv2.erode((mine & true).astype(np.uint8), np.ones((3, 3))) > 0
        assert psnr(frame.color, color, solid) > 22.0
    assert psnr(frame.color, color) > 30.0


@pytest.mark.slow
@pytest.mark.parametrize("pose", [BESIDE, LEFT, look_at((-0.7, 0.0, 0.7))], ids=["beside", "left", "nearer"])
def test_other_viewpoints_match_the_true_render(pose: np.ndarray) -> None:
    scene = make_scene()
    frame = render(appearance_of(scene, look_at((-0.8, 0.5, 0.65)), FRONT), scene, scene_bodies(scene), None, pose)
    color, depth, ids = trace(scene, pose)
    # What no view has shown cannot be known: compare where the table and the objects are.
    known = (depth < 1.5) & (frame.depth_m > 0.0)
    known &= cv2.erode(known.astype(np.uint8), np.ones((5, 5))) > 0
    assert known.mean() > 0.3
    assert psnr(frame.color, color, known) > 24.0
    assert np.percentile(np.abs(frame.depth_m - depth)[known], 90) < 0.01
    for object_id in (BOX, BALL):
        mine, true = frame.instance_ids == object_id, ids == object_id
        assert (mine & true).sum() / (mine | true).sum() > 0.8
    assert (frame.color.sum(axis=-1) > 0).all()  # nothing black


def test_unseen_regions_are_smooth_not_black_nor_speckled() -> None:
    scene = make_scene()
    frame = render(appearance_of(scene, FRONT), scene, scene_bodies(scene), None, look_at((0.1, 0.9, 0.6)))
    assert (frame.color.sum(axis=-1) > 60).all()
    unknown = cv2.erode((frame.depth_m == 0.0).astype(np.uint8), np.ones((9, 9))) > 0
    if unknown.any():
        rough = np.abs(cv2.Laplacian(frame.color.astype(np.float32), cv2.CV_32F)).max(axis=-1)
        assert np.percentile(rough[unknown], 99) < 30.0


def test_nearer_things_hide_farther_ones() -> None:
    scene = make_scene()
    after = make_scene((0.2, 0.0, 0.05), (-0.2, 0.0, 0.04))  # the ball before the box
    ids = trace(after)[2]
    frame = Renderer(appearance_of(scene, FRONT), scene).render(scene_bodies(after))
    both = (frame.instance_ids > 0) & (ids > 0)
    assert (frame.instance_ids[both] == ids[both]).mean() > 0.97


def test_what_was_half_hidden_is_whole_when_uncovered() -> None:
    scene = make_scene((0.15, 0.0, 0.05), (-0.05, 0.0, 0.04))  # the ball covers the lower part of the box
    frame = Renderer(appearance_of(scene, LEFT, FRONT), scene).render(without(scene, BALL))
    true = trace(scene, without=(BALL,))[2] == BOX
    mine = frame.instance_ids == BOX
    assert (mine & true).sum() / (mine | true).sum() > 0.93
    blue = frame.color.astype(int)
    assert not (blue[..., 2] - blue[..., 0] > 80).any()


def test_behind_static_things_is_hidden() -> None:
    scene = make_scene()
    below = make_scene(ball_position=(0.0, -0.1, -0.3))  # under the table top
    frame = Renderer(appearance_of(scene, FRONT), scene).render(scene_bodies(below))
    assert not (frame.instance_ids == BALL).any()


def test_morph_and_restyle() -> None:
    scene = make_scene()
    renderer = Renderer(appearance_of(scene, LEFT, FRONT), scene)
    tall = make_scene(box_position=(0.0, 0.12, 0.1))
    bodies = [
        replace(b, scale=np.array([1.0, 1.0, 2.0])) if b.object_id == BOX else replace(b, restyle=np.array([0, 1.0, 0]))
        for b in scene_bodies(tall)
    ]
    frame = renderer.render(bodies)
    extents = tall.extents.copy()
    extents[1, 2] = 0.2
    true = trace(replace(tall, extents=extents))[2]
    mine, wanted = frame.instance_ids == BOX, true == BOX
    assert (mine & wanted).sum() / (mine | wanted).sum() > 0.85
    ball = cv2.erode((true == BALL).astype(np.uint8), np.ones((5, 5))) > 0
    green = frame.color[ball].astype(int)
    assert (green[:, 1] > green[:, 2] + 50).all()


def test_created_bodies_are_drawn_shaded() -> None:
    scene = make_scene()
    pose = pose_matrix((-0.2, 0.0, 0.03), (0, 0, 0, 1))
    pusher = Body(9, pose, Shape.BOX, np.array([0.05, 0.1, 0.06]), np.array([0.1, 0.8, 0.2]))
    frame = Renderer(appearance_of(scene, FRONT), scene).render([*scene_bodies(scene), pusher])
    shown = frame.instance_ids == 9
    assert shown.sum() > 300
    assert len(np.unique(frame.color[shown], axis=0)) >= 2  # its faces differ
    assert np.abs(frame.depth_m[shown] - 0.8).max() < 0.25


def test_object_without_looks_is_drawn_as_its_primitive() -> None:
    scene = make_scene()
    color, depth, ids = trace(scene, without=(BALL,))
    memory = AppearanceMemory()
    memory.integrate(1, color, depth, CAMERA, FRONT, ids, scene.select([0, 1]))
    frame = Renderer(memory.snapshot(), scene).render(scene_bodies(scene))
    mine, true = frame.instance_ids == BALL, trace(scene)[2] == BALL
    assert (mine & true).sum() / (mine | true).sum() > 0.9


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image was seen yet"):
        Renderer(AppearanceMemory().snapshot(), make_scene())


def test_same_background_for_every_frame() -> None:
    scene = make_scene()
    renderer = Renderer(appearance_of(scene, FRONT), scene)
    first = renderer.render(without(scene, BALL))
    for step in range(3):
        renderer.render(scene_bodies(make_scene(ball_position=(0.0, -0.05 * step, 0.04))))
    again = renderer.render(without(scene, BALL))
    np.testing.assert_array_equal(first.color, again.color)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from([Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE, Shape.CONVEX]),
    turn=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
    size=st.tuples(*[st.floats(0.03, 0.2)] * 3),
)
def test_cast_primitives_lie_on_their_surface(shape: Shape, turn: tuple, size: tuple) -> None:
    extents = np.array(size)
    if shape == Shape.SPHERE:
        extents[:] = size[0]
    elif shape in (Shape.CYLINDER, Shape.CAPSULE):
        extents[1] = extents[0]
        extents[2] = max(extents[2], extents[0])
    hull = None
    if shape == Shape.CONVEX:
        hull = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * extents / 2.0
    camera = Camera(64, 48, 80.0, 80.0, 31.5, 23.5)
    pose = pose_matrix((0.01, -0.02, 0.6), turn)
    depth, normals = cast_primitive(shape, extents, hull, pose, ray_directions(camera, (0, 0, 64, 48)))
    hit = depth < NO_DEPTH
    assert hit.any()
    points = camera.back_project(np.where(hit, depth, 0.0))[hit]
    to_object = invert_transform(pose)
    local = points @ to_object[:3, :3].T + to_object[:3, 3]
    half = extents / 2.0
    assert (np.abs(local) <= half + 1e-4).all()
    radial = np.hypot(local[:, 0], local[:, 1])
    if shape == Shape.SPHERE:
        off = np.abs(np.linalg.norm(local, axis=1) - half[0])
    elif shape == Shape.CYLINDER:
        off = np.minimum(np.abs(radial - half[0]), np.abs(np.abs(local[:, 2]) - half[2]))
    elif shape == Shape.CAPSULE:
        beyond = np.maximum(np.abs(local[:, 2]) - (half[2] - half[0]), 0.0)
        off = np.abs(np.hypot(radial, beyond) - half[0])
    else:
        off = np.abs(np.abs(local) - half).min(axis=1)
    assert off.max() < 1e-4
    facing = np.einsum("ij,ij->i", normals[hit] @ pose[:3, :3].T, points)
    assert (facing < 1e-6).all()


def test_splat_has_no_pinholes_and_prefers_the_nearest() -> None:
    grid = np.stack(np.meshgrid(np.linspace(-0.3, 0.3, 80), np.linspace(-0.2, 0.2, 60)), -1).reshape(-1, 2)
    far = np.column_stack([grid, np.full(len(grid), 1.0)]).astype(np.float32)
    near = np.column_stack([grid[:, 0] * 0.3, grid[:, 1] * 0.3, np.full(len(grid), 0.5)]).astype(np.float32)
    spacing = np.full(len(grid), 0.6 / 79, np.float32)
    index = splat(
        np.concatenate([far, near]),
        np.concatenate([spacing, 0.3 * spacing]),
        CAMERA,
        (0, 0, CAMERA.width, CAMERA.height),
    )
    assert (index[70:170, 80:240] >= 0).all()
    assert (index[110:130, 140:180] >= len(grid)).all()
    assert (splat(np.array([[0, 0, -1.0]], np.float32), spacing[:1], CAMERA, (0, 0, 10, 10)) == -1).all()


def test_push_pull_keeps_the_known_and_stays_in_range() -> None:
    rng = np.random.default_rng(1)
    image = rng.uniform(50, 200, (37, 53, 3)).astype(np.float32)
    known = rng.random((37, 53)) < 0.1
    filled = push_pull(image, known)
    np.testing.assert_allclose(filled[known], image[known], rtol=1e-4)
    assert filled.min() > 40 and filled.max() < 210
    np.testing.assert_allclose(push_pull(image[..., 0], known), filled[..., 0], rtol=1e-4)


def test_recolor_keeps_the_texture() -> None:
    rng = np.random.default_rng(2)
    gray = np.repeat(rng.integers(60, 180, (200, 1), dtype=np.uint8), 3, axis=1)
    green = recolor(gray, np.array([0.0, 0.8, 0.0]))
    assert (green[:, 0] == 0).all()
    assert np.corrcoef(gray[:, 0], green[:, 1])[0, 1] > 0.95
    assert not recolor(np.zeros((0, 3), np.uint8), np.ones(3)).size


def test_frames_are_quick() -> None:
    """A loose bound, against regressions; the measured figures come from benchmarks/imagination."""
    scene = make_scene()
    renderer = Renderer(appearance_of(scene, FRONT), scene)
    renderer.render(scene_bodies(make_scene(ball_position=(0.0, -0.2, 0.04))))
    begin = time.perf_counter()
    for step in range(10):
        renderer.render(scene_bodies(make_scene((0.01 * step, 0.1, 0.05), (0.0, -0.2 + 0.01 * step, 0.04))))
    assert (time.perf_counter() - begin) / 10 < 0.1
