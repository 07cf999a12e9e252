"""The ROS glue without a graph: images, stamps, transforms, parameters, diagnostics, markers."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import rclpy
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import Marker

from wm_bringup.run.params_file import flatten
from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.parameters import ParameterError, build, check_fields, group, parameter, specs, to_yaml
from wm_core.rotations import matrix_to_quaternion, rotation_distance
from wm_core.scene_graph import SceneGraph, Shape
from wm_ros import qos
from wm_ros.health.diagnostics import Diagnostics, Level
from wm_ros.images.camera_info import camera_to_info, info_to_camera, is_distorted
from wm_ros.images.clouds import cloud_to_points, points_to_cloud
from wm_ros.images.compressed import compressed_to_depth, compressed_to_rgb, depth_to_compressed, rgb_to_compressed
from wm_ros.images.pixels import (
    ENCODINGS,
    ImageError,
    array_to_image,
    depth_to_image,
    image_to_array,
    image_to_depth,
    image_to_rgb,
    resize_depth,
    rgb_to_image,
)
from wm_ros.markers import MarkerBuilder
from wm_ros.nodes.lifecycle import ManagedNode, guarded
from wm_ros.nodes.parameters import NodeParameters
from wm_ros.nodes.stop_flag import StopFlag
from wm_ros.stamps import ApproximateSynchronizer, ns_to_stamp, stamp_to_ns
from wm_ros.transforms import (
    NotConnectedError,
    RosTransforms,
    TooNewError,
    TooOldError,
    TransformBuffer,
    UnknownFrameError,
)

S = 1_000_000_000
random_arrays = settings(max_examples=40, deadline=None)


def pixels_of(encoding: str) -> st.SearchStrategy[np.ndarray]:
    kind, channels = ENCODINGS[encoding]
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    shapes = sizes.map(lambda s: s if channels == 1 else (*s, channels))
    finite = {"allow_nan": False} if kind == "f4" else {}
    return shapes.flatmap(lambda s: hnp.arrays(np.dtype(kind), s, elements=hnp.from_dtype(np.dtype(kind), **finite)))


# Images.


@pytest.mark.parametrize("encoding", ENCODINGS)
@random_arrays
@given(data=st.data(), padding=st.integers(0, 5), big=st.booleans(), cut=st.booleans())
def test_every_encoding_round_trips_whatever_the_step_and_byte_order(encoding, data, padding, big, cut):
    pixels = data.draw(pixels_of(encoding))
    msg = array_to_image(pixels, encoding, 5 * S + 7, "optical")
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=171).tobytes()
    msg.data = padded[: len(padded) - padding] if cut else padded
    msg.step, msg.is_bigendian = rows.shape[1] + padding, int(big)
    found = image_to_array(msg)
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype.isnative and not found.flags.writeable
    assert stamp_to_ns(msg.header.stamp) == 5 * S + 7 and msg.header.frame_id == "optical"


@pytest.mark.parametrize(
    ("encoding", "pixel", "rgb"),
    [
        ("rgb8", [10, 20, 30], [10, 20, 30]),
        ("bgr8", [30, 20, 10], [10, 20, 30]),
        ("8UC3", [30, 20, 10], [10, 20, 30]),
        ("rgba8", [10, 20, 30, 255], [10, 20, 30]),
        ("bgra8", [30, 20, 10, 255], [10, 20, 30]),
        ("mono8", [40], [40, 40, 40]),
    ],
)
def test_color_comes_out_red_first(encoding, pixel, rgb):
    shape = (2, 3) if len(pixel) == 1 else (2, 3, len(pixel))
    pixels = np.broadcast_to(np.array(pixel, np.uint8), (2, 3, len(pixel))).reshape(shape).copy()
    np.testing.assert_array_equal(image_to_rgb(array_to_image(pixels, encoding)), np.broadcast_to(rgb, (2, 3, 3)))


def test_depth_is_meters_with_zero_for_no_measurement():
    millimeters = np.array([[0, 1500, 65535]], np.uint16)
    for encoding in ("16UC1", "mono16"):
        depth = image_to_depth(array_to_image(millimeters, encoding))
        np.testing.assert_allclose(depth, [[0.0, 1.5, 0.0]])
        assert depth.dtype == np.float32
    meters = np.array([[np.nan, 1.5, np.inf, -np.inf, -1.0, 0.0]], np.float32)
    np.testing.assert_allclose(image_to_depth(array_to_image(meters, "32FC1")), [[0, 1.5, 0, 0, 0, 0]])


@random_arrays
@given(st.integers(0, 65534).map(lambda v: np.array([[v, 0]], np.float32) / 1000.0))
def test_depth_survives_both_encodings_and_both_compressions(depth):
    for msg in (depth_to_image(depth), depth_to_image(depth, encoding="16UC1")):
        np.testing.assert_allclose(image_to_depth(msg), depth, atol=1e-5)
    for form in ("png", "compressedDepth"):
        np.testing.assert_allclose(compressed_to_depth(depth_to_compressed(depth, form=form)), depth, atol=1e-5)


def test_quantized_inverse_depth_of_image_transport_is_read():
    import cv2

    depth = np.array([[0.5, 1.0, 4.0]], np.float32)
    quantum_a = 100.0 * 101.0  # depth_quantization 100, as in compressed_depth_image_transport
    quantum_b = 1.0 - quantum_a / 10.0
    quantized = np.round(quantum_a / depth + quantum_b).astype(np.uint16)
    header = np.array([0], np.int32).tobytes() + np.array([quantum_a, quantum_b], np.float32).tobytes()
    png = cv2.imencode(".png", quantized)[1].tobytes()
    msg = CompressedImage(format="32FC1; compressedDepth png", data=header + png)
    np.testing.assert_allclose(compressed_to_depth(msg), depth, rtol=2e-3)


def test_color_compression():
    rgb = np.zeros((16, 24, 3), np.uint8)
    rgb[..., 0], rgb[:, 12:, 2] = 200, 150
    np.testing.assert_array_equal(compressed_to_rgb(rgb_to_compressed(rgb, form="png")), rgb)
    blurred = compressed_to_rgb(rgb_to_compressed(rgb, form="jpeg", quality=95))
    assert np.abs(blurred.astype(int) - rgb)[:, :8].max() < 12


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"encoding": "nv24"}, ("'nv24'", "rgb8")),
        ({"step": 5}, ("step 5", "at least 12")),
        ({"width": 0}, ("0x3",)),
        ({"height": 2**31, "width": 2**31}, ("expected 1 to",)),
        ({"height": 9}, ("36 bytes of data", "expected 108")),
    ],
)
def test_an_unreadable_image_says_topic_found_and_expected(change, texts):
    msg = rgb_to_image(np.zeros((3, 4, 3), np.uint8))
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(ImageError) as caught:
        image_to_rgb(msg, "/cam/image")
    assert all(t in str(caught.value) for t in ("/cam/image", *texts))


def test_wrong_arrays_and_formats_are_refused():
    with pytest.raises(ImageError, match="expected one of 16UC1"):
        image_to_depth(rgb_to_image(np.zeros((2, 2, 3), np.uint8)), "/d")
    with pytest.raises(ImageError, match=r"expected \(H, W, 3\) and uint8"):
        array_to_image(np.zeros((2, 2), np.uint8), "rgb8")
    with pytest.raises(ImageError, match="encoding 'x'"):
        array_to_image(np.zeros((2, 2), np.uint8), "x")
    with pytest.raises(ImageError, match="32FC1 or 16UC1"):
        depth_to_image(np.zeros((2, 2)), encoding="rgb8")
    with pytest.raises(ImageError, match="no jpeg or png"):
        compressed_to_rgb(CompressedImage(format="jpeg", data=b"abc"), "/c")
    with pytest.raises(ImageError, match="no jpeg or png"):
        compressed_to_rgb(CompressedImage(format="jpeg"), "/c")
    with pytest.raises(ImageError, match="12-byte header and a png or rvl"):
        compressed_to_depth(CompressedImage(format="16UC1; compressedDepth rvl", data=b"abc"))
    with pytest.raises(ImageError, match="12-byte header"):
        compressed_to_depth(CompressedImage(format="16UC1; compressedDepth png", data=b"abc"))
    with pytest.raises(ImageError, match="is depth"):
        compressed_to_rgb(depth_to_compressed(np.ones((2, 2)), form="compressedDepth"))
    with pytest.raises(ImageError, match="expected 16-bit png"):
        compressed_to_depth(rgb_to_compressed(np.zeros((4, 4, 3), np.uint8)))


def test_camera_info_round_trips_and_zeros_are_refused():
    camera = Camera(640, 480, 585.0, 586.0, 320.0, 240.0)
    msg = camera_to_info(camera, S, "optical")
    assert info_to_camera(msg) == camera and not is_distorted(msg)
    msg.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    assert is_distorted(msg)
    with pytest.raises(ImageError, match=r"/info.*fx.*uncalibrated"):
        info_to_camera(CameraInfo(width=640, height=480), "/info")


@random_arrays
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(-9, 9, width=32)), st.data()
)
def test_point_clouds_round_trip_and_drop_what_is_not_finite(points, data):
    colors = data.draw(hnp.arrays(np.uint8, points.shape))
    broken = points.copy()
    broken[::4] = np.nan
    msg = points_to_cloud(broken, colors, S, "map")
    kept = np.isfinite(broken).all(axis=1)
    found_points, found_colors = cloud_to_points(msg)
    np.testing.assert_array_equal(found_points, points[kept])
    np.testing.assert_array_equal(found_colors, colors[kept])
    assert msg.width * msg.point_step == msg.row_step == len(msg.data)


def test_point_cloud_refusals():
    with pytest.raises(ImageError, match="2 colors, expected 3"):
        points_to_cloud(np.zeros((3, 3)), np.zeros((2, 3), np.uint8))
    msg = points_to_cloud(np.zeros((3, 3)))
    msg.fields = msg.fields[:3]
    with pytest.raises(ImageError, match="expected x, y, z, rgb"):
        cloud_to_points(msg)


def test_depth_is_resized_without_mixing_surfaces():
    depth = np.array([[1.0, 4.0], [1.0, 4.0]], np.float32)
    resized = resize_depth(depth, 6, 4)
    assert resized.shape == (4, 6) and set(np.unique(resized)) == {1.0, 4.0}
    np.testing.assert_array_equal(resize_depth(resized, 2, 2), depth)


# Stamps.


@given(st.integers(0, 2**31 * S - 1))
def test_stamps_round_trip(nanoseconds):
    assert stamp_to_ns(ns_to_stamp(nanoseconds)) == nanoseconds


def test_negative_stamps_are_refused():
    with pytest.raises(ValueError, match="-1"):
        ns_to_stamp(-1)


def pairs_of(events: list[tuple[str, int]], difference_ns: int = 10, **options):
    synchronizer = ApproximateSynchronizer(difference_ns, **options)
    found = [getattr(synchronizer, f"add_{kind}")(stamp, stamp) for kind, stamp in events]
    return synchronizer, [p for p in found if p is not None]


def test_pairs_nearest_within_the_difference():
    synchronizer, pairs = pairs_of([("color", 100), ("depth", 111), ("depth", 205), ("color", 200)])
    assert [(p.stamp_ns, p.depth_stamp_ns, p.color, p.depth) for p in pairs] == [(200, 205, 200, 205)]
    assert synchronizer.counts["unsynchronised_color"] == 1 and synchronizer.counts["unsynchronised_depth"] == 1


@given(
    st.lists(st.tuples(st.sampled_from(["color", "depth"]), st.integers(0, 400)), max_size=60),
    st.integers(0, 30),
    st.integers(1, 6),
)
def test_nothing_is_lost_uncounted_and_memory_is_bounded(events, difference, capacity):
    synchronizer = ApproximateSynchronizer(difference, capacity)
    pairs = []
    for kind, stamp in events:
        pair = getattr(synchronizer, f"add_{kind}")(stamp, stamp)
        assert len(synchronizer) <= 2 * capacity
        if pair is not None:
            pairs.append(pair)
            assert abs(pair.stamp_ns - pair.depth_stamp_ns) <= difference
            assert (pair.color, pair.depth) == (pair.stamp_ns, pair.depth_stamp_ns)
    counts = synchronizer.counts
    dropped = counts["unsynchronised_color"] + counts["unsynchronised_depth"] + counts["out_of_order"]
    assert len(events) == 2 * len(pairs) + dropped + len(synchronizer)
    for before, after in itertools.pairwise(pairs):
        assert after.stamp_ns > before.stamp_ns or after.restarted


def test_time_set_back_restarts_once():
    events = [(k, s) for s in (10 * S, 11 * S, 3 * S, 4 * S) for k in ("color", "depth")]
    synchronizer, pairs = pairs_of(events)
    assert [p.restarted for p in pairs] == [False, False, True, False]
    assert synchronizer.counts["restarts"] == 1 and synchronizer.counts["out_of_order"] == 0


def test_a_short_loop_is_a_restart_after_a_few_frames():
    events = [(k, s * S // 100) for s in [*range(30), *range(30)] for k in ("color", "depth")]
    synchronizer, pairs = pairs_of(events)
    assert synchronizer.counts["restarts"] == 1
    assert len(pairs) >= 30 + 24 and sum(p.restarted for p in pairs) == 1


def test_one_late_item_is_out_of_order():
    synchronizer, pairs = pairs_of([("color", 100), ("depth", 100), ("color", 90), ("color", 200), ("depth", 200)])
    assert len(pairs) == 2 and synchronizer.counts["out_of_order"] == 1 and not synchronizer.counts["restarts"]


def test_synchronizer_refuses_nonsense():
    with pytest.raises(ValueError, match="got -1, 8"):
        ApproximateSynchronizer(-1)


# Transforms.

poses = st.tuples(
    hnp.arrays(np.float64, 3, elements=st.floats(-5, 5)),
    hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1),
)


@random_arrays
@given(poses, poses, poses, poses)
def test_transforms_compose_and_invert(a, b, c, d):
    buffer = TransformBuffer()
    buffer.set("map", "odom", 5 * S, *a)
    buffer.set("odom", "base", 5 * S, *b)
    buffer.set("base", "camera", 0, *c, static=True)
    buffer.set("odom", "cup", 5 * S, *d)
    map_T_camera = pose_matrix(*a) @ pose_matrix(*b) @ pose_matrix(*c)
    np.testing.assert_allclose(buffer.lookup("map", "camera", 5 * S), map_T_camera, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("camera", "map", 5 * S), np.linalg.inv(map_T_camera), atol=1e-9)
    cup_T_camera = np.linalg.inv(pose_matrix(*d)) @ pose_matrix(*b) @ pose_matrix(*c)
    np.testing.assert_allclose(buffer.lookup("/cup", "/camera", 5 * S), cup_T_camera, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("cup", "camera"), cup_T_camera, atol=1e-9)
    assert buffer.frames == ["base", "camera", "cup", "map", "odom"]
    np.testing.assert_array_equal(buffer.lookup("x", "x", 7), np.eye(4))


@random_arrays
@given(poses, poses, st.integers(0, 1000), st.integers(0, 2**30))
def test_transforms_are_interpolated_between_neighbors(a, b, thousandth, start_s):
    buffer = TransformBuffer()
    start = start_s * S
    buffer.set("map", "base", start, *a)
    buffer.set("map", "base", start + S, *b)
    found = buffer.lookup("map", "base", start + thousandth * 1_000_000) if start + thousandth else None
    if found is None:
        return
    share = thousandth / 1000.0
    np.testing.assert_allclose(found[:3, 3], (1 - share) * a[0] + share * b[0], atol=1e-9)
    turn = rotation_distance(a[1], b[1])
    done = rotation_distance(a[1], matrix_to_quaternion(found[:3, :3]))
    np.testing.assert_allclose(done, share * turn, atol=1e-6)


def test_lookup_errors_say_why_and_by_how_much():
    buffer = TransformBuffer(extrapolation_s=0.05)
    with pytest.raises(UnknownFrameError, match="nothing came on /tf"):
        buffer.lookup("map", "camera", S)
    identity = ([0, 0, 0], [0, 0, 0, 1])
    buffer.set("map", "base", 10 * S, *identity)
    buffer.set("world", "cup", 10 * S, *identity)
    with pytest.raises(UnknownFrameError, match="'camera' is not known; known frames: base, cup, map, world"):
        buffer.lookup("map", "camera", S)
    with pytest.raises(NotConnectedError, match=r"'map'.*'world'"):
        buffer.lookup("base", "cup", 10 * S)
    with pytest.raises(TooOldError, match=r"'map' to 'base': asked for 1\.500 s before") as old:
        buffer.lookup("map", "base", 8_500_000_000)
    assert old.value.by_ns == 1_500_000_000
    buffer.lookup("map", "base", 10 * S + 50_000_000)
    with pytest.raises(TooNewError, match=r"0\.200 s after") as new:
        buffer.lookup("map", "base", 10 * S + 200_000_000)
    assert new.value.by_ns == 200_000_000
    buffer.set("base", "map", 10 * S, *identity)
    with pytest.raises(NotConnectedError, match="loop"):
        buffer.lookup("base", "cup", 10 * S)


@pytest.mark.parametrize(
    ("parent", "child", "position"), [("", "a", [0, 0, 0]), ("a", "a", [0, 0, 0]), ("a", "b", [0, np.nan, 0])]
)
def test_impossible_transforms_are_refused(parent, child, position):
    with pytest.raises(ValueError, match="transform from"):
        TransformBuffer().set(parent, child, S, position, [0, 0, 0, 1])


def test_buffer_is_bounded_sorts_and_starts_anew():
    buffer = TransformBuffer(cache_s=2.0)
    for k in range(100):
        buffer.set("map", "base", k * S // 10, [k, 0, 0], [0, 0, 0, 1])
    assert len(buffer._edges["base"].stamps) == 21
    buffer.set("map", "base", 9_450_000_000 + 400_000_000, [98.5, 0, 0], [0, 0, 0, 1])  # late, but in the cache
    assert buffer.lookup("map", "base", 9_850_000_000)[0, 3] == pytest.approx(98.5)
    buffer.set("map", "base", S, [7, 0, 0], [0, 0, 0, 1])  # time was set back
    assert buffer.lookup("map", "base")[0, 3] == 7
    buffer.set("map", "other", 50 * S, [1, 0, 0], [0, 0, 0, 1])
    buffer.clear(after_ns=2 * S)
    assert buffer.frames == ["base", "map"]


def test_waiting_ends_when_the_transform_comes_or_the_time_is_up():
    buffer = TransformBuffer()
    buffer.set("map", "base", S, [0, 0, 0], [0, 0, 0, 1])
    timer = threading.Timer(0.1, buffer.set, ("map", "base", 2 * S, [4, 0, 0], [0, 0, 0, 1]))
    timer.start()
    assert buffer.wait("map", "base", 2 * S, 5.0)[0, 3] == 4
    started = time.monotonic()
    with pytest.raises(TooNewError):
        buffer.wait("map", "base", 9 * S, 0.1)
    assert 0.08 < time.monotonic() - started < 2.0
    started = time.monotonic()
    with pytest.raises(TooOldError):  # waiting cannot help
        buffer.wait("map", "base", 0 + 1, 5.0)
    assert time.monotonic() - started < 1.0


def test_tf2_ros_is_used_where_it_imports(monkeypatch):
    """tf2_ros is not on PyPI: a stand-in shows that its exceptions and poses are translated."""
    tf2 = types.ModuleType("tf2_ros")
    for name in ("TransformException", "LookupException", "ConnectivityException", "ExtrapolationException"):
        base = Exception if name == "TransformException" else tf2.TransformException
        setattr(tf2, name, type(name, (base,), {}))

    class Buffer:
        def __init__(self, cache_time):
            self.failures = []
            self.cleared = 0

        def clear(self):
            self.cleared += 1

        def lookup_transform(self, target, source, when):
            if self.failures:
                raise self.failures.pop()
            from geometry_msgs.msg import TransformStamped

            msg = TransformStamped()
            msg.transform.translation.x = when.nanoseconds / S
            return msg

    tf2.Buffer = Buffer
    tf2.TransformListener = lambda buffer, node: object()
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2)
    transforms = RosTransforms(node=None)
    assert transforms.backend == "tf2_ros"
    assert transforms.wait("a", "b", 3 * S, 0.0)[0, 3] == 3.0
    for failure, expected in (
        (tf2.LookupException("who"), UnknownFrameError),
        (tf2.ConnectivityException("apart"), NotConnectedError),
        (tf2.ExtrapolationException("extrapolation into the past"), TooOldError),
        (tf2.ExtrapolationException("extrapolation into the future"), TooNewError),
    ):
        transforms._buffer.failures = [failure]
        with pytest.raises(expected):
            transforms.wait("a", "b", S, 0.0)
    transforms._buffer.failures = [tf2.ExtrapolationException("into the future")]
    assert transforms.wait("a", "b", S, 1.0)[0, 3] == 1.0  # the second try finds it
    transforms.clear(S)
    assert transforms._buffer.cleared == 1


# Parameters.


@dataclass(frozen=True)
class Inner:
    gain: float = parameter(0.5, "gain", minimum=0.0, maximum=1.0)
    names: tuple[str, ...] = parameter(("a", "b"), "names")


@dataclass(frozen=True)
class Example:
    rate_hz: float = parameter(30.0, "frames", unit="Hz", minimum=1.0, maximum=120.0)
    count: int = parameter(3, "how many", minimum=1)
    mode: str = parameter("fast", "mode", choices=("fast", "good"))
    debug: bool = parameter(False, "talk")
    pose: tuple[float, ...] = parameter((0.0, 1.0, 2.0), "pose", length=3)
    plain: float = 2.5
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.mode == "good" and self.rate_hz > 60.0:
            raise ValueError(f"rate_hz: got {self.rate_hz:g} with mode good, expected at most 60")


def read(parameters, text):
    """The object of a file with one node in it."""
    (section,) = yaml.safe_load(text).values()
    return build(parameters, flatten(section["ros__parameters"]))


@given(
    rate=st.floats(1.0, 120.0).map(lambda v: round(v, 6)),
    count=st.integers(1, 2**40),
    debug=st.booleans(),
    pose=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3),
    text=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
)
def test_parameters_survive_the_yaml_file(rate, count, debug, pose, text):
    @dataclass(frozen=True)
    class Generated:
        rate_hz: float = parameter(rate, "frames", unit="Hz", minimum=1.0, maximum=120.0)
        count_of_things: int = parameter(count, "how many", minimum=1)
        debug_: bool = parameter(debug, "talk")
        pose_: tuple[float, ...] = parameter(pose, "pose", length=3)
        text_: str = parameter(text, "any text")

    Generated.__annotations__.update(
        rate_hz=float, count_of_things=int, debug_=bool, pose_=tuple[float, ...], text_=str
    )
    assert read(Generated, to_yaml(Generated, "node")) == Generated()


def test_groups_and_plain_fields():
    assert [s.name for s in specs(Example)] == [
        "rate_hz", "count", "mode", "debug", "pose", "plain", "inner.gain", "inner.names",
    ]  # fmt: skip
    built = build(Example, {"inner.gain": 1, "pose": [1, 2, 3], "plain": 7})
    assert built.inner.gain == 1.0 and built.pose == (1.0, 2.0, 3.0) and built.plain == 7.0
    assert read(Example, to_yaml(Example, "n")) == Example()
    assert "/**/n:" in to_yaml(Example, "n") and "1 to 120 Hz" in to_yaml(Example, "n")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ({"rate_hz": 0.5}, ("rate_hz", "0.5", "1 to 120 Hz")),
        ({"rate_hz": float("nan")}, ("rate_hz", "nan")),
        ({"rate_hz": "3"}, ("rate_hz", "'3'", "double")),
        ({"count": 0}, ("count", "0", "at least 1")),
        ({"count": 1.5}, ("count", "1.5", "int")),
        ({"count": True}, ("count", "True")),
        ({"mode": "slow"}, ("mode", "'slow'", "fast, good")),
        ({"pose": [1.0]}, ("pose", "1 values", "3 values")),
        ({"pose": 1.0}, ("pose", "double[]")),
        ({"inner.gain": 2.0}, ("inner.gain", "2.0", "0 to 1")),
        ({"inner.names": [1]}, ("inner.names", "1", "string[]")),
        ({"mode": "good", "rate_hz": 61.0}, ("rate_hz", "61", "60")),
        ({"nosuch": 1}, ("nosuch", "no such parameter", "rate_hz")),
    ],
)
def test_a_refusal_names_parameter_value_and_limit(values, texts):
    with pytest.raises(ParameterError) as caught:
        build(Example, values)
    assert all(t in str(caught.value) for t in texts)


@dataclass(frozen=True)
class Checked:
    """Something that is made without a node, too."""

    speed: float = parameter(2.0, "how fast", unit="m/s", maximum=9.0)
    frame: str = "map"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.frame == "moon":
            raise ValueError("frame: got 'moon', expected one on earth")


@dataclass(frozen=True)
class Grouped:
    engine: Checked = group(Checked, exclude=("frame",), read_only=True)  # noqa: RUF009


def test_a_group_has_the_limits_of_its_own_class_which_hold_without_a_node():
    (spec,) = specs(Grouped)
    assert (spec.name, spec.read_only) == ("engine.speed", True)
    assert (spec.description, spec.limit) == ("how fast", "at most 9 m/s")
    assert build(Grouped, {"engine.speed": 3}).engine == Checked(speed=3.0)
    with pytest.raises(ParameterError, match=r"parameter engine.speed: got 10.0, expected at most 9 m/s \(double\)"):
        build(Grouped, {"engine.speed": 10.0})
    with pytest.raises(ParameterError, match=r"parameter speed: got 10.0, expected at most 9 m/s \(double\)"):
        Checked(speed=10.0)
    with pytest.raises(ParameterError, match="no such parameter"):
        build(Grouped, {"engine.frame": "odom"})


def test_classes_that_cannot_be_parameters():
    @dataclass(frozen=True)
    class NoDefault:
        x: float

    @dataclass(frozen=True)
    class BadType:
        x: bytes = b""

    NoDefault.__annotations__["x"], BadType.__annotations__["x"] = float, bytes
    with pytest.raises(TypeError, match="needs a default"):
        list(specs(NoDefault))
    with pytest.raises(TypeError, match="bytes"):
        list(specs(BadType))


@pytest.fixture
def ros() -> Iterator[rclpy.Context]:
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


@pytest.mark.smoke
def test_parameters_on_a_node(ros):
    from rclpy.parameter import Parameter

    seen = []

    def on_change(value: Example) -> None:
        if value.count == 13:
            raise ValueError("count: got 13, expected no unlucky number")
        seen.append(value)

    overrides = [Parameter("rate_hz", value=50.0), Parameter("inner.gain", value=0.25)]
    node = rclpy.create_node("p", context=ros, parameter_overrides=overrides)
    parameters = NodeParameters(node, Example, on_change)
    assert parameters.value.rate_hz == 50.0 and parameters.value.inner.gain == 0.25
    descriptor = node.describe_parameter("rate_hz")
    assert descriptor.floating_point_range[0].to_value == 120.0 and descriptor.description == "frames [Hz]"
    assert node.set_parameters([Parameter("count", value=5)])[0].successful and seen[-1].count == 5
    assert node.set_parameters([Parameter("pose", value=[3.0, 2.0, 1.0])])[0].successful
    assert parameters.value.pose == (3.0, 2.0, 1.0)
    for name, value, text in (
        ("rate_hz", 121.0, "rate_hz"),
        ("count", 13, "unlucky"),
        ("mode", "slow", "fast, good"),
        ("pose", [1.0], "3 values"),
        ("mode", "good", None),
    ):
        result = node.set_parameters([Parameter(name, value=value)])[0]
        assert result.successful == (text is None) and (text or "") in result.reason
    # A combination is refused as a whole, and the other value stays.
    assert "60" in node.set_parameters([Parameter("rate_hz", value=61.0)])[0].reason
    assert parameters.value.rate_hz == 50.0 and node.get_parameter("rate_hz").value == 50.0
    node.destroy_node()


def test_a_whole_number_for_a_double_gets_a_hint(ros):
    from rclpy.parameter import Parameter

    node = rclpy.create_node("p", context=ros, parameter_overrides=[Parameter("rate_hz", value=50)])
    with pytest.raises(
        ParameterError, match=r"rate_hz: got 50, expected 1 to 120 Hz \(double\); write a decimal point"
    ):
        NodeParameters(node, Example)
    node.destroy_node()


# Lifecycle.


class Recorder(ManagedNode):
    def __init__(self, context, refuse: str = "", **options) -> None:
        self.calls: list[str] = []
        self.refuse = refuse
        super().__init__("recorder", parameters=Example, context=context, **options)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.refuse == name:
            raise RuntimeError(f"{name} is told to fail")

    def configure(self) -> None:
        self._call("configure")

    def activate(self) -> None:
        self._call("activate")

    def deactivate(self) -> None:
        self._call("deactivate")

    def cleanup(self) -> None:
        self._call("cleanup")

    @guarded
    def callback(self, value: int) -> int:
        """Tens."""
        return 10 // value


def spin(node, condition, timeout_s: float = 10.0) -> None:
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.05)
    executor.remove_node(node)


@pytest.mark.smoke
def test_a_node_starts_itself_and_guards_its_callbacks(ros):
    node = Recorder(ros)
    assert node.get_fully_qualified_name() == "/wm/recorder"
    spin(node, lambda: node.is_active)
    assert node.calls == ["configure", "activate"]
    assert node.callback(5) == 2 and node.callback(0) is None and node.callback(0) is None
    assert node.diagnostics.counter("exceptions.callback").total == 2
    status = next(s for s in node.diagnostics.snapshot() if s.name == "counters")
    assert status.level == Level.ERROR and "ZeroDivisionError" in status.message
    node.trigger_shutdown()
    assert node.calls[2:] == ["deactivate", "cleanup"] and node.state_label == "finalized"
    node.destroy_node()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("refuse", "label", "undone"), [("configure", "unconfigured", "cleanup"), ("activate", "inactive", "deactivate")]
)
def test_a_refused_transition_is_undone_and_said(ros, refuse, label, undone):
    node = Recorder(ros, refuse=refuse)
    spin(node, lambda: refuse in node.calls)
    assert node.state_label == label and node.calls[-1] == undone
    status = next(s for s in node.diagnostics.snapshot() if s.name == "state")
    assert status.level == Level.ERROR and "told to fail" in status.message
    node.refuse = ""
    node._start()  # what a second try does
    assert node.is_active
    node.destroy_node()


@pytest.mark.smoke
def test_autostart_can_be_left_to_a_manager(ros):
    from rclpy.parameter import Parameter

    node = Recorder(ros, parameter_overrides=[Parameter("autostart", value=False)])
    deadline = time.monotonic() + 0.3
    spin(node, lambda: time.monotonic() > deadline)
    assert node.state_label == "unconfigured" and not node.calls
    node.destroy_node()


def test_a_signal_handler_may_set_the_stop_flag_at_any_moment():
    """With a threading.Event in its place this blocks within a few hundred rounds."""
    import signal

    previous = signal.getsignal(signal.SIGALRM)
    try:
        for round_ in range(300):
            flag = StopFlag()
            signal.signal(signal.SIGALRM, lambda *_, flag=flag: flag.set())
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 1e-6 * round_)
            deadline = time.monotonic() + 5.0
            while not flag.wait(0.0001):
                assert time.monotonic() < deadline
            flag.set()
            assert flag.is_set() and flag.wait(5.0)
            flag.close()
            flag.set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


# Diagnostics.


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_diagnostics_say_what_is_wrong_and_what_to_do():
    clock = FakeClock()
    diagnostics = Diagnostics("node", clock=clock)
    rate = diagnostics.rate("camera", minimum_hz=5.0, max_age_s=2.0, advice="is /camera published?")
    assert rate.status().level == Level.OK
    clock.now += 3.0
    assert rate.status().level == Level.ERROR and "nothing yet; is /camera published?" in rate.status().message
    for _ in range(20):
        rate.tick()
        clock.now += 0.1
    assert rate.status().level == Level.OK and rate.rate_hz() == pytest.approx(10.0)
    for _ in range(10):
        rate.tick()
        clock.now += 0.5
    assert rate.status().level == Level.WARN and "expected at least 5 Hz" in rate.status().message
    clock.now += 5.0
    assert rate.status().level == Level.ERROR and "nothing for" in rate.status().message

    latency = diagnostics.latency("work", warn_s=0.5, advice="buy a faster one")
    assert latency.status().level == Level.OK
    for k in range(100):
        latency.add(0.1 + 0.001 * k)
    median, p95, largest = latency.percentiles()
    assert (median, p95, largest) == pytest.approx((0.1495, 0.19405, 0.199))
    for _ in range(50):
        latency.add(0.9)
    assert latency.status().level == Level.WARN and "buy a faster one" in latency.status().message

    assert diagnostics.counter("odd", advice="do this") is diagnostics.counter("odd")
    counters = diagnostics.snapshot()[-1]
    assert counters.level == Level.OK and counters.values == {"odd": "0"}
    diagnostics.counter("odd").add(2, "found x, expected y")
    diagnostics.counter("usual", level=Level.OK).add()
    counters = diagnostics.snapshot()[-1]
    assert counters.level == Level.WARN and counters.message == "odd: found x, expected y; do this"
    clock.now += 6.0
    assert diagnostics.snapshot()[-1].level == Level.OK
    msg = diagnostics.to_msg(5 * S)
    assert [s.name for s in msg.status] == ["node: camera", "node: work", "node: counters"]
    assert msg.status[0].level == b"\x02" and {v.key: v.value for v in msg.status[2].values} == {
        "odd": "2",
        "usual": "1",
    }


# Markers and overlay.


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
