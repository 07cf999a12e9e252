"""The simulator: its scenes, its pictures, its ground truth, and counterfactual futures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml

from wm_core.geometry import pose_matrix
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Property,
    UnknownObjectError,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    restyle,
    set_property,
)
from wm_core.scene_graph import Predicate, Shape
from wm_dynamics.factory import make_dynamics
from wm_sim.depth_noise import DepthNoise
from wm_sim.gazebo import to_sdf
from wm_sim.scene_model import SceneError, SceneModel, load_scene, scene_names
from wm_sim.scenes import build_scene
from wm_sim.simulator import Simulator

PACKAGE = Path(__file__).resolve().parents[2] / "ros2_ws" / "src" / "wm_sim"
SMALL = {"width": 320, "height": 240}
TIMES = np.arange(46) / 30.0


@pytest.fixture(scope="module")
def demo():
    with Simulator("demo", **SMALL) as simulator:
        yield simulator


def test_there_are_many_scenes():
    assert len(scene_names()) >= 10 and "demo" in scene_names()


@pytest.mark.slow
@pytest.mark.parametrize("name", scene_names())
def test_scene_loads_is_seen_and_moves(name):
    with Simulator(name, seed=3, **SMALL) as simulator:
        start = simulator.live.states()
        frame = simulator.render()
        assert frame.rgb.shape == (240, 320, 3) and frame.rgb.std() > 20
        assert frame.depth.shape == (240, 320) and 0.3 < frame.depth[frame.depth > 0].min() < 1.5
        pixels = np.bincount(simulator.instances().ravel(), minlength=20)
        graph = simulator.ground_truth()
        assert (pixels[graph.ids[np.array(graph.class_names) != "ball"]] > 40).all(), "everything is in the picture"
        first = min([a.time for a in simulator.scene.model.actions] or [3.0])
        simulator.advance_to(min(first, 1.5) - 0.1)
        resting = np.linalg.norm(start[:, 7:13], axis=1) == 0.0
        supported = np.array([b.is_static for b in simulator.scene.bodies]) | resting
        if name != "tumble":
            moved = np.linalg.norm((simulator.live.states() - start)[supported, :3], axis=1)
            assert moved[: len(simulator.scene.ids) - len(simulator.scene.pushers)].max() < 2e-3, (
                "rests until it is moved"
            )
        simulator.advance_to(first + 1.2)
        assert np.linalg.norm((simulator.live.states() - start)[:, :3], axis=1).max() > 0.02
        assert np.isfinite(simulator.live.states()).all()


def test_seed_draws_within_ranges():
    model = load_scene("crowd")
    one, same, other = build_scene(model, 1), build_scene(model, 1), build_scene(model, 2)
    assert one.states.tobytes() == same.states.tobytes() and one.colors.tobytes() == same.colors.tobytes()
    assert np.abs(one.states - other.states).max() > 1e-3
    for built in (one, other):
        for item, state in zip(model.objects, built.states[1:], strict=True):
            spread = (item.randomize or model.randomize).position
            assert np.abs(state[:2] - item.position[:2]).max() <= spread + 0.02


def test_wrong_scene_files_are_refused(tmp_path):
    with pytest.raises(SceneError, match="there are"):
        load_scene("no_such_scene")
    with pytest.raises(SceneError, match=r"missing\.yaml"):
        load_scene(str(tmp_path / "missing.yaml"))
    content = yaml.safe_load((PACKAGE / "scenes" / "demo.yaml").read_text())
    for change in ({"objects": []}, {"gravity": 3}, {"objects": [{**content["objects"][0], "size": [1, 2]}]}):
        path = tmp_path / "wrong.yaml"
        path.write_text(yaml.safe_dump(content | {"actions": []} | change))
        with pytest.raises(SceneError, match=r"wrong\.yaml"):
            load_scene(str(path))


def test_depth_is_that_of_the_table(demo):
    demo.reset()
    frame = demo.render()
    points = demo.camera.back_project(frame.depth)
    world = (
        points[demo.instances() == 1].astype(np.float64) @ frame.world_T_camera[:3, :3].T + frame.world_T_camera[:3, 3]
    )
    top = world[np.abs(world[:, 2] - 0.75) < 0.02]
    assert len(top) > 0.8 * len(world)
    assert np.abs(top[:, 2] - 0.75).max() < 1.5e-3


def test_true_objects_are_where_they_are_seen(demo):
    demo.reset()
    frame, instances, graph = demo.render(), demo.instances(), demo.ground_truth(with_visibility=True)
    points = demo.camera.back_project(frame.depth)
    for row in np.flatnonzero(~graph.is_static):
        mask = instances == graph.ids[row]
        world = points[mask] @ frame.world_T_camera[:3, :3].T + frame.world_T_camera[:3, 3]
        offset = np.nanmedian(world, axis=0) - graph.positions[row]
        assert np.linalg.norm(offset) < 0.6 * np.linalg.norm(graph.extents[row])
    assert graph.visibilities.min() > 0.5 and graph.visibilities.max() == 1.0
    assert (5, Predicate.ON, 4) in [(r.subject, r.predicate, r.object) for r in graph.relations]


def test_restore_is_bit_exact(demo):
    demo.reset()
    demo.advance_to(5.0)
    snapshot = demo.snapshot()
    demo.advance_to(6.0)
    states, picture = demo.live.packed.tobytes(), demo.render().rgb
    demo.restore(snapshot)
    assert demo.time_s == pytest.approx(5.0)
    demo.advance_to(6.0)
    assert demo.live.packed.tobytes() == states
    np.testing.assert_array_equal(demo.render().rgb, picture)
    with pytest.raises(ValueError, match="later"):
        demo.advance_to(1.0)


@pytest.mark.slow
def test_factual_truth_is_what_happens_and_others_differ(demo):
    demo.reset()
    demo.advance_to(5.0)
    ids = {name: demo.scene.id_of(name) for name in demo.scene.names}
    hypotheses = [
        Hypothesis("factual"),
        Hypothesis("no can", (remove(ids["can"]),)),
        Hypothesis("can aside", (apply_impulse(ids["can"], (0.12, 0, 0)),)),
        Hypothesis("heavy ball", (set_property(ids["ball"], Property.MASS, 0.25, factor=True),)),
        Hypothesis(
            "paddle",
            (
                follow_path(
                    [0, 1.0],
                    [[-0.2, 0.05, 0.8], [0.2, 0.05, 0.8]],
                    body=BodySpec(Shape.BOX, np.array([0.02, 0.3, 0.08])),
                ),
            ),
        ),
    ]
    before = demo.live.packed.tobytes()
    rollout = demo.ground_truth_rollout(hypotheses, TIMES)
    assert demo.live.packed.tobytes() == before, "asking changes nothing"
    assert rollout.states.shape == (5, 46, 9, 13)
    last = np.linalg.norm(rollout.states[:, -1, 1:8, :3] - rollout.states[0, -1, 1:8, :3], axis=-1).max(axis=1)
    assert (last[1:] > 0.02).all()
    assert not rollout.present[1, :, 2].any() and rollout.present[4, :, 8].all() and not rollout.present[0, :, 8].any()
    assert any((t.a, t.b) == (ids["ball"], ids["can"]) and t.began for t in rollout.touches[0])
    demo.advance_to(6.5)
    np.testing.assert_array_equal(rollout.states[0, -1, :8], demo.live.states().astype(np.float32))
    with pytest.raises(UnknownObjectError):
        demo.ground_truth_rollout([Hypothesis("none", (remove(99),))], TIMES)


@pytest.mark.slow
def test_true_futures_are_drawn(demo):
    demo.reset()
    demo.advance_to(5.0)
    now = demo.render()
    change = (
        restyle(8, (0.9, 0.0, 0.9)),
        morph(6, (1.5, 1.5, 1.5)),
        add(
            BodySpec(
                Shape.SPHERE,
                np.full(3, 0.06),
                position=np.array([-0.1, -0.2, 0.9]),
                color=np.array([0.0, 0.0, 1.0]),
            )
        ),
        remove(3),
    )
    rollout = demo.ground_truth_rollout([Hypothesis("factual"), Hypothesis("changed", change)], TIMES[:10])
    color, depth = demo.render_ground_truth(rollout, 0, [0, 9])
    # States travel as float32: single pixels may round the other way.
    assert (np.abs(color[0].astype(int) - now.rgb).max(axis=-1) > 2).mean() < 1e-3
    assert (np.abs(depth[0] - now.depth) > 1e-4).mean() < 1e-3
    changed, _ = demo.render_ground_truth(rollout, 1, [9])
    magenta = (changed[0, ..., 0] > 100) & (changed[0, ..., 1] < 40) & (changed[0, ..., 2] > 100)
    assert magenta.sum() > 150, "the bottle has its new color"
    np.testing.assert_array_equal(demo.render().rgb, now.rgb)


@pytest.mark.slow
@pytest.mark.parametrize("name, at", [("demo", 5.0), ("two_balls", 2.3), ("bowling", 3.2), ("stack_knock", 2.6)])
def test_physics_backend_comes_closer_to_the_truth_than_straight_lines(name, at):
    with Simulator(name, **SMALL) as simulator:
        simulator.advance_to(at)
        hypotheses = [Hypothesis("factual")]
        rollout = simulator.ground_truth_rollout(hypotheses, TIMES)
        scene = simulator.ground_truth()
        error = {}
        for backend in ("physics", "straight"):
            states = make_dynamics(backend).rollout([scene], hypotheses, TIMES).states[0, 0]
            error[backend] = np.linalg.norm(states[:, :, :3] - rollout.states[0][:, :, :3], axis=-1).mean()
        assert error["physics"] < 0.5 * error["straight"]


def test_moving_camera_looks_at_its_target():
    with Simulator("orbit", **SMALL) as simulator:
        poses = [simulator.world_T_camera(t) for t in (0.0, 2.0, 3.0)]
    for pose in poses:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert abs(pose[2, 0]) < 1e-9, "no roll"
    assert np.linalg.norm(poses[0][:3, 3] - poses[2][:3, 3]) > 0.2


def test_depth_noise_statistics():
    noise = DepthNoise(lateral_px=0.0, disparity_step_px=0.0, edge_hole_probability=0.0, dropout=0.0)
    rng = np.random.default_rng(0)
    for distance in (0.5, 1.0, 2.0, 4.0):
        measured = noise.apply(np.full((240, 320), distance, np.float32), rng)
        expected = 0.0012 + 0.0019 * (distance - 0.4) ** 2
        assert measured.std() == pytest.approx(expected, rel=0.1)
        assert measured.mean() == pytest.approx(distance, abs=0.1 * expected + 1e-4)


def test_depth_noise_holes_steps_and_range():
    plain = np.full((240, 320), 1.0, np.float32)
    rng = np.random.default_rng(0)
    quiet = {"axial_offset_m": 0.0, "axial_gain_per_m": 0.0, "lateral_px": 0.0}
    dropped = DepthNoise(**quiet, dropout=0.02, disparity_step_px=0.0).apply(plain, rng)
    assert (dropped == 0.0).mean() == pytest.approx(0.02, abs=0.006)
    steps = np.unique(
        DepthNoise(**quiet, dropout=0.0).apply(np.linspace(0.9, 1.1, 76800, dtype=np.float32).reshape(240, 320), rng)
    )
    assert np.median(np.diff(steps[steps > 0])) == pytest.approx(0.125 / (0.075 * 580.0), rel=0.1)
    edge = plain.copy()
    edge[:, 160:] = 1.5
    holes = DepthNoise(**quiet, dropout=0.0).apply(edge, rng) == 0.0
    assert holes[:, 157:163].mean() > 0.3 and holes[:, :150].sum() == 0
    far = DepthNoise(**quiet, dropout=0.0).apply(np.full((240, 320), 8.0, np.float32), rng)
    assert (far == 0.0).all() and (DepthNoise().apply(np.zeros((240, 320), np.float32), rng) == 0.0).all()


def test_noise_is_part_of_the_frame():
    with Simulator("demo", seed=5, noise=DepthNoise(), **SMALL) as noisy:
        first, again = noisy.render().depth, noisy.render().depth
    np.testing.assert_array_equal(first, again)
    assert 0.002 < (first == 0.0).mean() < 0.2


def test_every_field_of_a_scene_has_its_default():
    ball = {"name": "b", "shape": "sphere", "size": [0.1], "position": [0, 0]}
    model = SceneModel.model_validate({"name": "m", "description": "d", "objects": [ball]})
    assert build_scene(model).names == ("table", "b")


def test_gazebo_world_is_that_of_the_scene():
    built = build_scene(load_scene("demo"), 0)
    assert to_sdf(built) == (PACKAGE / "worlds" / "tabletop.sdf").read_text(), "write it again: wm_sim/gazebo.py"
    chain = np.eye(4)
    for row in yaml.safe_load((PACKAGE / "config" / "gz_static_tf.yaml").read_text()):
        chain = chain @ pose_matrix(row["translation"], row["rotation"])
    with Simulator("demo", **SMALL) as simulator:
        np.testing.assert_allclose(chain, simulator.world_T_camera(), atol=1e-5)


def test_gazebo_world_and_bridge():
    root = ElementTree.parse(PACKAGE / "worlds" / "tabletop.sdf").getroot()
    world = root.find("world")
    assert root.tag == "sdf" and world is not None
    built = build_scene(load_scene("demo"), 0)
    models = {m.get("name") for m in world.findall("model")}
    assert set(built.names) <= models
    sensor = world.find(".//sensor[@type='rgbd_camera']")
    assert sensor is not None and sensor.findtext("camera/optical_frame_id") == "camera_color_optical_frame"
    topic = sensor.findtext("topic")
    bridge = yaml.safe_load((PACKAGE / "config" / "gz_bridge.yaml").read_text())
    by_ros = {entry["ros_topic_name"]: entry for entry in bridge}
    assert by_ros["camera/color/image_raw"]["gz_topic_name"] == f"/{topic}/image"
    assert by_ros["camera/depth/image_raw"]["gz_topic_name"] == f"/{topic}/depth_image"
    assert by_ros["/clock"]["ros_type_name"] == "rosgraph_msgs/msg/Clock"
    assert all(entry["direction"] == "GZ_TO_ROS" for entry in bridge)
