"""The checks of topics, stamps, calibration, depth and gravity, on plain values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from traced_scene import CAMERA, FRONT, look_at, make_scene, trace
from wm_core.camera import Camera
from wm_core.health.depth import (
    BODY_R_OPTICAL,
    DepthSummary,
    check_depth,
    check_gravity,
    check_support,
    find_surfaces,
    level_share,
    summarize_depth,
)
from wm_core.health.findings import Severity
from wm_core.health.graph import check_appearance, check_scene_graph
from wm_core.health.inputs import (
    Publisher,
    Stream,
    check_clock,
    check_distortion,
    check_intrinsics,
    check_rate,
    check_registration,
    check_stamps,
    check_stream,
    check_streams,
    check_synchronization,
    nearest_differences,
    rank_candidates,
)

IMAGE = "sensor_msgs/msg/Image"
S = 1_000_000_000


def stream(**given_values) -> Stream:
    values = {
        "name": "color",
        "role": "color images",
        "topic": "/color",
        "type_name": IMAGE,
        "parameter": "color_topic",
    }
    return Stream(**{**values, "age_s": 3.0, **given_values})


# Streams


def test_a_stream_that_comes_is_fine():
    assert check_stream(stream(messages=5, age_s=0.1)) is None
    assert check_stream(stream(age_s=0.5)) is None  # too early to say


@pytest.mark.parametrize(
    ("given_values", "cause", "texts"),
    [
        ({}, "missing.color", ("nobody publishes /color", "no other topic", "ros2 topic list")),
        ({"candidates": ("/rgb", "/depth")}, "wrong_topic.color", ("/rgb, /depth", "set color_topic")),
        ({"candidates": ("/color/compressed",)}, "wrong_transport.color", ("color_transport to compressed",)),
        (
            {"candidates": ("/color/theora", "/color/zstd", "/color/compressed")},
            "wrong_transport.color",
            ("color_transport to compressed: /color/compressed is",),
        ),
        (
            {"candidates": ("/color/zstd",)},
            "wrong_transport.color",
            ("/color/zstd cannot be read", "expected raw images or compressed"),
        ),
        ({"publishers": (Publisher("/cam", IMAGE),)}, "silent.color", ("/cam publishes it", "ros2 topic hz")),
        ({"publishers": (Publisher("/cam", IMAGE),), "messages": 9}, "silent.color", ("stopped 3.0 s ago",)),
        ({"messages": 9}, "stopped.color", ("its publisher is gone",)),
        ({"publishers": (Publisher("/x", "std_msgs/msg/String"),)}, "wrong_type.color", ("String", IMAGE)),
        ({"publishers": (Publisher("/cam", IMAGE, "best effort offered"),)}, "qos.color", ("/cam: best effort",)),
    ],
)
def test_why_a_stream_does_not_come(given_values, cause, texts):
    finding = check_stream(stream(**given_values))
    assert finding is not None and finding.cause == cause and finding.severity == Severity.ERROR
    assert all(text in finding.text for text in (*texts, "/color")), finding.text


def test_depth_is_read_without_loss_where_it_can_be():
    both = ("/depth/compressed", "/depth/compressedDepth")
    finding = check_stream(stream(name="depth", topic="/depth", parameter="depth_topic", candidates=both))
    assert finding is not None and "set depth_transport to compressedDepth" in finding.text


def test_no_camera_is_one_finding():
    three = [stream(name=n, topic=f"/{n}") for n in ("color", "depth", "camera_info")]
    (only,) = check_streams(three)
    assert only.cause == "no_camera" and all(s.topic in only.found for s in three)
    # With one of them there it is the others that are missing, each.
    some = [stream(name="color", messages=3, age_s=0.1), *three[1:]]
    assert [f.cause for f in check_streams(some)] == ["missing.depth", "missing.camera_info"]


def test_candidates_of_the_same_kind_come_first():
    names = ["/cam/depth/image", "/cam/rgb/image", "/other", "/camera/depth/image_raw"]
    assert rank_candidates("/camera/depth/image_rect", "depth images", names)[0] == "/camera/depth/image_raw"
    assert "depth" not in rank_candidates("/camera/color/image_raw", "color images", names)[0]
    assert set(rank_candidates("/other", "intrinsics", names)) == set(names) - {"/other"}


# Stamps and clocks


def test_stamps_of_zero_and_frozen_ones():
    assert check_stamps("color", "color images", "/c", []) is None
    assert check_stamps("color", "color images", "/c", [1, 2, 3]) is None
    zero = check_stamps("color", "color images", "/c", [0, 0, 0])
    assert zero is not None and zero.cause == "stamp_zero.color"
    frozen = check_stamps("color", "color images", "/c", [7 * S] * 5)
    assert frozen is not None and frozen.cause == "stamp_frozen.color" and "7.000 s" in frozen.found


NOW = 1_800_000_000 * S


@pytest.mark.parametrize(
    ("stamp_ns", "now_ns", "sim", "published", "cause", "text"),
    [
        (NOW - S // 10, NOW, False, False, None, ""),
        (NOW - 100 * S, NOW, False, False, "clocks_apart", "apart by 100.0 s"),
        (NOW + 5 * S, NOW, False, False, "clocks_apart", "ahead of"),
        (12 * S, NOW, False, True, "clocks_apart", "set use_sim_time to true"),
        (12 * S, NOW, False, False, "clocks_apart", "since boot"),
        (NOW, 12 * S, True, True, "clocks_apart", "set use_sim_time in the camera driver"),
        (NOW, 0, True, False, "no_clock", "nobody publishes /clock"),
        (NOW, 0, True, True, "no_clock", "paused"),
        (12 * S, 12 * S, True, True, None, ""),
    ],
)
def test_clocks(stamp_ns, now_ns, sim, published, cause, text):
    finding = check_clock("/c", stamp_ns, now_ns, sim, published)
    assert (finding.cause if finding else None) == cause
    assert finding is None or text in finding.text


@given(st.integers(1, 2**60), st.integers(1, 2**60), st.booleans(), st.booleans())
def test_clocks_are_apart_by_what_is_said(stamp_ns, now_ns, sim, published):
    finding = check_clock("/c", stamp_ns, now_ns, sim, published)
    assert (finding is not None) == (abs(now_ns - stamp_ns) > S)
    if finding is not None:
        assert f"{abs(now_ns - stamp_ns) * 1e-9:.1f} s" in finding.found


@given(st.lists(st.integers(0, 10**12), min_size=1), st.lists(st.integers(0, 10**12), min_size=1))
def test_nearest_differences_are_the_nearest(a, b):
    found = nearest_differences(a, b)
    assert [abs(int(d)) for d in found] == [min(abs(y - x) for y in b) for x in a]


@settings(deadline=None)
@given(
    st.sampled_from([5.0, 15.0, 30.0, 60.0]),
    st.sampled_from([5.0, 15.0, 30.0, 60.0]),
    st.floats(-0.4, 0.4),
    st.integers(20, 90),
    st.booleans(),
)
def test_synchronization_of_any_two_rates(rate_a, rate_b, offset, kept, swap):
    """The slower stream's images all have a partner within the tolerance, or, half a period off, none has."""
    slow, fast = sorted((rate_a, rate_b))
    assume(fast % slow == 0)
    end = 1_700_000_000 * S
    fast_ns = [end - round(i * S / fast) for i in range(kept)][::-1]
    offset_s = offset / fast
    slow_ns = [end - round(i * S / slow) + round(offset_s * S) for i in range(kept)][::-1]
    color, depth = (slow_ns, fast_ns) if swap else (fast_ns, slow_ns)
    tolerance = 0.1 / fast
    finding = check_synchronization("/c", color, "/d", depth, tolerance)
    assume(abs(abs(offset_s) - tolerance) > 1e-4)
    assert (finding is not None) == (abs(offset_s) > tolerance)
    if finding is not None:
        assert finding.severity == Severity.ERROR and "0 % make a pair" in finding.found
        assert "raise max_stamp_difference_s to" in finding.run


def test_two_clocks_are_no_matter_of_tolerance():
    color = [i * S // 30 + 10 * S for i in range(60)]
    finding = check_synchronization("/c", color, "/d", [c - 500 * S for c in color], 0.015)
    assert finding is not None and "one clock" in finding.run and " s apart" in finding.found


# Calibration


def test_intrinsics():
    good = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
    assert check_intrinsics("/i", good, (640, 480)) is None
    other = check_intrinsics("/i", good, (1280, 720))
    assert other is not None and other.cause == "camera_info_size" and "1280x720" in other.found
    small = check_intrinsics("/i", Camera(640, 480, 1050.0, 1050.0, 639.5, 479.5))
    assert small is not None and "principal point" in small.found
    narrow = check_intrinsics("/i", Camera(640, 480, 9000.0, 9000.0, 319.5, 239.5))
    assert narrow is not None and "degrees wide" in narrow.found


@pytest.mark.parametrize(
    ("model", "d", "cause"),
    [
        ("plumb_bob", (), None),
        ("plumb_bob", (0.0,) * 5, None),
        ("plumb_bob", (1e-4, 0.0, 0.0, 0.0, 0.0), None),
        ("plumb_bob", (-0.3, 0.1, 0.0, 0.0, 0.0), "distorted"),
        ("rational_polynomial", (0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), "distorted"),
        ("equidistant", (0.2, 0.0, 0.0, 0.0), "distorted"),
        ("made_up", (0.2,), "distorted"),
    ],
)
def test_distortion(model, d, cause):
    finding = check_distortion("/i", model, d, Camera(640, 480, 525.0, 525.0, 319.5, 239.5))
    assert (finding.cause if finding else None) == cause
    assert check_distortion("/i", model, d, CAMERA, corrected=True) is None


def test_registration_and_rate():
    assert check_registration("/c", "optical", "/d", "/optical") is None
    assert check_registration("/c", "", "/d", "depth_optical") is None
    apart = check_registration("/c", "color_optical", "/d", "depth_optical")
    assert apart is not None and apart.cause == "not_registered" and "'depth_optical'" in apart.found
    assert check_rate("/c", 0.0) is None and check_rate("/c", 15.0) is None
    slow = check_rate("/c", 1.0)
    assert slow is not None and "1.0 Hz" in slow.found


# Depth


def test_depth_findings():
    depth = np.full((48, 64), 1.0, np.float32)
    assert check_depth("/d", summarize_depth(depth, 4.0), 4.0, 0.02) is None
    for pixels, cause in (
        (0.0 * depth, "empty_depth"),
        (np.nan * depth, "empty_depth"),
        (5.0 * depth, "beyond_max_depth"),
    ):
        finding = check_depth("/d", summarize_depth(pixels, 4.0), 4.0, 0.02)
        assert finding is not None and finding.cause == cause, (cause, finding)
    beyond = check_depth("/d", summarize_depth(5.0 * depth, 4.0), 4.0, 0.02)
    assert beyond is not None and "100 % of its pixels" in beyond.found  # it is not "without depth"


@given(st.floats(0.0, 1.0), st.floats(0.0, 2000.0), st.floats(0.3, 20.0))
def test_depth_is_judged_whatever_the_figures(measured, median, max_depth):
    summary = DepthSummary(measured, 0.5 * median, median, 2.0 * median, float(median > max_depth))
    finding = check_depth("/d", summary, max_depth, 0.02)
    if measured < 0.02:
        assert finding is not None and finding.cause == "empty_depth"
    assert finding is None or (finding.text and "nan" not in finding.text)


# Gravity

COLOR, DEPTH, _ = trace(make_scene())
SURFACES = find_surfaces(DEPTH, CAMERA)


def turned(rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose


def test_normals_are_those_of_the_scene():
    world = SURFACES.normals @ FRONT[:3, :3].T
    up, back = world[:, 2] > 0.99, world[:, 0] < -0.99  # table and floor, and the wall behind
    assert (up | back).mean() > 0.85
    assert level_share(SURFACES.normals, FRONT[:3, :3]) > 0.5
    assert check_gravity(SURFACES, FRONT, "optical", "map") is None


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.floats(-1.2, -0.5), st.floats(-0.5, 0.5), st.floats(0.35, 1.2), st.floats(-180.0, 180.0))
def test_a_body_frame_is_told_from_an_optical_one(x, y, z, yaw):
    pose = look_at((x, y, z))
    surfaces = find_surfaces(trace(make_scene(), pose)[1], CAMERA)
    pose = turned(Rotation.from_euler("z", yaw, degrees=True).as_matrix()) @ pose
    assert check_gravity(surfaces, pose, "optical", "map") is None
    down = -np.degrees(np.arcsin(pose[2, 2]))
    finding = check_gravity(surfaces, pose @ turned(BODY_R_OPTICAL.T), "camera_link", "map")
    twice = check_gravity(surfaces, pose @ turned(BODY_R_OPTICAL), "camera_optical", "map")
    # Steeper, the misread axis points up or sideways by 30 degrees or less, and the table may be a wall ahead.
    if down < 58.0:
        assert finding is not None and "gravity and optical axis disagree" in finding.found
        assert twice is not None and "twice" in twice.found
        assert down > 55.0 or (finding.cause == "frame_not_optical" and "'camera_link'" in finding.found)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("degrees", [-50.0, -25.0, 25.0, 50.0])
def test_a_tilted_world_is_told(axis, degrees):
    pose = turned(Rotation.from_euler(axis, degrees, degrees=True).as_matrix()) @ FRONT
    finding = check_gravity(SURFACES, pose, "optical", "map")
    assert finding is not None and finding.cause in ("gravity", "frame_not_optical")
    if finding.cause == "gravity":
        assert f"leans by {abs(degrees):.0f} degrees" in finding.found


@pytest.mark.parametrize("yaw", [0.0, 30.0, -60.0])
def test_a_wall_is_no_mistake_of_the_pose(yaw):
    wall = find_surfaces(np.full((240, 320), 2.0, np.float32), CAMERA)
    pose = turned(Rotation.from_euler("z", yaw, degrees=True).as_matrix() @ BODY_R_OPTICAL)
    assert check_gravity(wall, pose, "optical", "map") is None
    assert check_support(0, 0.08, 4.0) is not None and check_support(1, 0.08, 4.0) is None
    empty = find_surfaces(np.zeros((240, 320), np.float32), CAMERA)
    assert len(empty.normals) == 0 and check_gravity(empty, pose, "optical", "map") is None


def test_a_corridor_is_no_mistake_of_the_pose():
    """A camera that looks level along a wall at its left, with no floor in view."""
    u = (np.arange(320) - CAMERA.cx) / CAMERA.fx
    depth = np.where(u < -0.1, -0.8 / np.minimum(u, -0.1), 8.0)[None].repeat(240, 0).astype(np.float32)
    finding = check_gravity(find_surfaces(depth, CAMERA), turned(BODY_R_OPTICAL), "optical", "map")
    assert finding is None


# Scene graph


GRAPH = {
    "name": "scene_graph",
    "role": "scene graphs",
    "topic": "/wm/scene_graph",
    "type_name": "wm_msgs/msg/SceneGraph",
}
PERCEPTION = (Publisher("/wm/perception", "wm_msgs/msg/SceneGraph"),)


@pytest.mark.parametrize(
    ("given_values", "cause", "text"),
    [
        ({"messages": 3, "age_s": 0.2}, None, ""),
        ({}, "no_scene_graph", "start perception"),
        ({"candidates": ("/robot2/scene_graph",)}, "no_scene_graph", "/robot2/scene_graph"),
        ({"publishers": PERCEPTION}, "no_scene_graph", "/wm/perception publishes"),
        ({"publishers": PERCEPTION, "messages": 3}, "stale_graph", "/wm/perception is alive"),
        ({"messages": 3}, "perception_gone", "any more"),
        ({"publishers": (Publisher("/x", "std_msgs/msg/String"),)}, "wrong_type.scene_graph", "String"),
        ({"publishers": (Publisher("/x", GRAPH["type_name"], "volatile offered"),)}, "qos.scene_graph", "volatile"),
    ],
)
def test_scene_graph(given_values, cause, text):
    finding = check_scene_graph(stream(**{**GRAPH, "parameter": "", **given_values}))
    assert (finding.cause if finding else None) == cause
    assert finding is None or text in finding.text


def test_why_no_looks_are_learned():
    silent = stream()
    findings = check_appearance([silent], "color", [check_stream(silent)], [])
    assert [f.cause for f in findings] == ["no_appearance", "missing.color"]
    assert all(f.severity == Severity.WARN for f in findings) and "/color (color images)" in findings[0].found
    coming = stream(messages=9, age_s=0.1)
    (unmatched,) = check_appearance([coming], "instances", [], [])
    assert "lacking: instances" in unmatched.found
