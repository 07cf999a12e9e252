"""Markers of a scene graph, QoS profiles, and the speed of large messages."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker

from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import part_volume
from wm_core.scene_graph import SceneGraph, Shape
from wm_ros import qos
from wm_ros.images.pixels import (
    depth_to_image,
    image_to_depth,
    image_to_rgb,
    rgb_to_image,
)
from wm_ros.markers import MarkerBuilder

S = 1_000_000_000


def example_scene(ids=(1, 2, 5), **given) -> SceneGraph:
    n = len(ids)
    return SceneGraph.build(ids, np.arange(3 * n).reshape(n, 3) * 0.1, np.full((n, 3), 0.2), stamp_ns=S, **given)


def test_markers_show_objects_and_remove_what_is_gone():
    builder = MarkerBuilder()
    corners = np.array([[-0.1, -0.1, 0], [0.1, -0.1, 0], [0.1, 0.1, 0], [-0.1, 0.1, 0]])
    scene = example_scene(
        class_names=("support", "object", "cup"),
        shapes=[Shape.BOX, Shape.SPHERE, Shape.CYLINDER],
        linear_velocities=[[0, 0, 0], [0.5, 0, 0], [0, 0, 0]],
        hulls=(corners, np.zeros((0, 3)), np.zeros((0, 3))),
        visibilities=[1.0, 1.0, 0.0],
    )
    markers = {(m.ns, m.id): m for m in builder.build(scene).markers}
    assert set(markers) == {(ns, i) for ns in ("objects", "labels") for i in (1, 2, 5)} | {
        ("velocities", 2),
        ("supports", 1),
    }
    kinds = [markers["objects", i].type for i in (1, 2, 5)]
    assert kinds == [Marker.CUBE, Marker.SPHERE, Marker.CYLINDER]
    assert markers["labels", 5].text == "5 cup" and markers["labels", 5].pose.position.z == pytest.approx(0.8 + 0.13)
    assert len(markers["supports", 1].points) == 5
    assert markers["objects", 5].color.a < markers["objects", 2].color.a
    arrow = markers["velocities", 2].points
    assert arrow[1].x - arrow[0].x == pytest.approx(0.25)
    after = builder.build(scene.select([0, 1])).markers
    assert {(m.ns, m.id) for m in after if m.action == Marker.DELETE} == {("objects", 5), ("labels", 5)}
    assert builder.clear().markers[0].action == Marker.DELETEALL
    assert all(m.action == Marker.ADD for m in builder.build(scene).markers)


def test_objects_of_parts_are_shown_as_their_triangles():
    """Of a T of two blocks and of a cylinder on it: closed surfaces, turned outwards, of the volume of the parts."""
    parts = (
        ConvexPart(Shape.BOX, np.array([0.2, 0.05, 0.05])),
        ConvexPart(Shape.BOX, np.array([0.05, 0.1, 0.05]), np.array([0.0, 0.075, 0.0])),
        ConvexPart(Shape.CYLINDER, np.array([0.04, 0.04, 0.03]), np.array([0.0, 0.0, 0.04])),
    )
    scene = example_scene(shapes=[Shape.BOX, Shape.CONVEX, Shape.BOX], parts=((), parts, ()))
    builder = MarkerBuilder()
    for _ in range(2):
        marker = next(m for m in builder.build(scene).markers if (m.ns, m.id) == ("objects", 2))
        assert marker.type == Marker.TRIANGLE_LIST and len(marker.points) % 3 == 0
        assert (marker.scale.x, marker.scale.y, marker.scale.z) == (1.0, 1.0, 1.0)
        a, b, c = (np.array([[p.x, p.y, p.z] for p in marker.points[k::3]]) for k in range(3))
        # The divergence theorem: six times the volume is the sum of the triple products.
        enclosed = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0
        assert enclosed == pytest.approx(sum(part_volume(p) for p in parts), rel=0.01)


@pytest.mark.smoke
def test_profiles_are_what_they_are_named():
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    assert qos.SENSOR.reliability == ReliabilityPolicy.BEST_EFFORT and qos.SENSOR.depth == 5
    assert qos.SCENE_GRAPH.durability == DurabilityPolicy.TRANSIENT_LOCAL and qos.SCENE_GRAPH.depth == 1
    assert qos.SCENE_GRAPH.reliability == ReliabilityPolicy.RELIABLE
    named = {k.lower(): v for k, v in vars(qos).items() if k.isupper() and k != "PROFILES"}
    assert named == qos.PROFILES


def test_image_messages_cross_fast():
    """A 640x480 color and depth pair converts in milliseconds (rclpy issue 763 took 100 ms)."""
    rgb, depth = np.zeros((480, 640, 3), np.uint8), np.ones((480, 640), np.float32)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        color_msg, depth_msg = rgb_to_image(rgb), depth_to_image(depth, encoding="16UC1")
        image_to_rgb(color_msg)
        image_to_depth(depth_msg)
        best = min(best, time.perf_counter() - started)
    assert best < 0.03
    assert isinstance(color_msg, Image)
