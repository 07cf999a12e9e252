"""Objects of several parts are drawn as their parts: bowls and mugs are hollow, a T has its corners free."""

from __future__ import annotations

import numpy as np
import pytest

from traced_scene import CAMERA, FRONT, look_at, make_scene, trace
from wm_core.convex_parts import ConvexPart
from wm_core.geometry import pose_matrix
from wm_core.interventions import Hypothesis
from wm_core.part_solids import within_any
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.belief import scene_states
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_parts, body_points, scaled_body
from wm_imagination.appearance.memory import AppearanceMemory
from wm_imagination.appearance.points import sample_object
from wm_imagination.rendering.bodies import bodies_at
from wm_imagination.rendering.object_points import object_points
from wm_imagination.rendering.primitives import Body, cast_body, ray_directions, scene_bodies
from wm_imagination.rendering.renderer import Renderer
from wm_imagination.rendering.splatting import NO_DEPTH
from wm_sim import objects

WHITE = (1.0, 1.0, 1.0, 1.0)
ABOVE = look_at((-0.02, 0.0, 0.6), (0.0, 0.0, 0.0))
ROW = CAMERA.height // 2
GEOMS, BOWL_SIZE = objects.centered(objects.bowl(0.20, 0.08, WHITE))
BOWL, BOWL_HULL = body_parts(BodyDef(GEOMS)), body_points(BodyDef(GEOMS))
T = (
    ConvexPart(Shape.BOX, np.array([0.16, 0.04, 0.04]), np.array([0.0, 0.06, 0.0])),
    ConvexPart(Shape.BOX, np.array([0.04, 0.12, 0.04]), np.array([0.0, -0.02, 0.0])),
)
T_SIZE = np.array([0.16, 0.16, 0.04])
T_HULL = np.concatenate([p.points() for p in T])


def scene_with(parts, hull, size) -> SceneGraph:
    """The traced table, and on it one object (id 7) of these parts in the middle."""
    return SceneGraph.build(
        [1, 7],
        [(0.0, 0.0, -0.02), (0.0, 0.0, 0.5 * size[2])],
        [(0.8, 1.0, 0.04), size],
        shapes=[Shape.BOX, Shape.CONVEX],
        is_static=[True, False],
        class_names=["support", "object"],
        colors=[(0.7, 0.6, 0.4), (0.2, 0.3, 0.8)],
        hulls=[np.zeros((0, 3)), hull],
        parts=[(), parts],
    )


def drawn_of(scene: SceneGraph, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and ids of the object that nobody has seen yet: an image of the bare table was."""
    color, depth, _ = trace(make_scene(), FRONT, without=(2, 3))
    memory = AppearanceMemory()
    memory.integrate(1, color, depth, CAMERA, FRONT, np.zeros(depth.shape, np.uint16), scene.select([0]))
    frame = Renderer(memory.snapshot(), scene, CAMERA, view).render(scene_bodies(scene))
    return frame.depth_m, frame.instance_ids


def test_a_bowl_from_above_is_deeper_in_its_middle_than_at_its_rim() -> None:
    depth, ids = drawn_of(scene_with(BOWL, BOWL_HULL, BOWL_SIZE), ABOVE)
    columns = np.flatnonzero(ids[ROW] == 7)
    across = depth[ROW, columns]
    rim = min(across[: len(across) // 5].min(), across[-len(across) // 5 :].min())
    assert across[len(across) // 2] - rim > 0.05, "its cavity is 7 cm deep"
    flat, ids = drawn_of(scene_with((), BOWL_HULL, BOWL_SIZE), ABOVE)
    columns = np.flatnonzero(ids[ROW] == 7)
    assert np.ptp(flat[ROW, columns[len(columns) // 4 : -len(columns) // 4]]) < 0.01, "its hull is closed"


def test_the_corners_of_a_t_are_free() -> None:
    scene = scene_with(T, T_HULL, T_SIZE)
    _, ids = drawn_of(scene, ABOVE)
    _, of_hull = drawn_of(scene_with((), T_HULL, T_SIZE), ABOVE)
    share = (ids == 7).sum() / (of_hull == 7).sum()
    # The T covers 112 of the 176 cm^2 of its hull.
    assert share == pytest.approx(112.0 / 176.0, abs=0.1)


def test_parts_are_cast_at_their_places_and_at_the_scale_of_the_body() -> None:
    """As physics scales them, a box and a turned box of other sizes."""
    scale = np.array([1.5, 1.0, 0.7])
    pose = pose_matrix((0.0, 0.0, 0.6), (0.3, 0.1, -0.2, 0.9))
    rays = ray_directions(CAMERA, (0, 0, CAMERA.width, CAMERA.height))
    depth, normals = cast_body(Body(7, pose, Shape.CONVEX, T_SIZE, scale=scale, parts=T), pose, rays)
    hit = depth < NO_DEPTH
    points = CAMERA.back_project(np.where(hit, depth, 0.0))[hit]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    body = BodyDef(tuple(GeomDef(p.shape, p.extents, p.position, p.quaternion, p.hull) for p in T))
    solid = body_parts(scaled_body(body, scale))
    way = normals[hit]
    assert within_any(solid, local - 1e-3 * way).mean() > 0.98
    assert within_any(solid, local + 1e-3 * way).mean() < 0.02


def test_samples_lie_on_the_surface_of_the_union() -> None:
    cloud = sample_object(Shape.CONVEX, BOWL_SIZE, BOWL_HULL, BOWL, 2000)
    assert 800 < len(cloud) <= 2100
    assert within_any(BOWL, cloud.points + 1e-3 * cloud.normals).mean() < 0.02
    assert within_any(BOWL, cloud.points - 1e-3 * cloud.normals).mean() > 0.98
    middle = np.hypot(cloud.points[:, 0], cloud.points[:, 1]) < 0.03
    assert cloud.points[middle, 2].max() < -0.02, "over the floor of the cavity there is nothing"


def test_an_answer_has_the_points_of_the_parts() -> None:
    scene = scene_with(BOWL, BOWL_HULL, BOWL_SIZE)
    points, colors = object_points(scene, [Hypothesis("now")], scene.ids, None, 600)
    assert len(points[1]) == len(colors[1])
    middle = np.hypot(points[1][:, 0], points[1][:, 1]) < 0.03
    assert middle.any() and points[1][middle, 2].max() < -0.02


def test_the_bodies_of_an_imagined_state_have_their_parts() -> None:
    scene = scene_with(T, T_HULL, T_SIZE)
    states = scene_states(scene).astype(np.float32)
    (body,) = bodies_at(scene, Hypothesis("now"), scene.ids, states, np.ones(2, bool), 0.0)
    assert body.parts == T == scene_bodies(scene)[0].parts


def test_the_unseen_side_is_taken_anew_when_parts_come() -> None:
    """An object is a hull until its parts are known."""
    memory = AppearanceMemory()
    color, depth, ids = trace(make_scene(), FRONT, without=(2, 3))
    # Without depth nothing tells that the object is not there.
    depth[:] = 0.0
    depth_of = []
    for n, parts in enumerate(((), BOWL)):
        scene = scene_with(parts, BOWL_HULL, BOWL_SIZE)
        memory.integrate(n, color, depth, CAMERA, FRONT, ids, scene)
        unseen = memory.snapshot().objects[7].unseen.points
        middle = np.hypot(unseen[:, 0], unseen[:, 1]) < 0.03
        depth_of.append(unseen[middle, 2].max() if middle.any() else -np.inf)
    assert depth_of[1] < depth_of[0] - 0.03
