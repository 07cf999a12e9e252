"""Images, camera infos and point clouds to and from messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CameraInfo, CompressedImage

from wm_core.camera import Camera
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
from wm_ros.stamps import stamp_to_ns

S = 1_000_000_000
random_arrays = settings(max_examples=40, deadline=None)


def pixels_of(encoding: str) -> st.SearchStrategy[np.ndarray]:
    kind, channels = ENCODINGS[encoding]
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    shapes = sizes.map(lambda s: s if channels == 1 else (*s, channels))
    finite = {"allow_nan": False} if kind == "f4" else {}
    return shapes.flatmap(lambda s: hnp.arrays(np.dtype(kind), s, elements=hnp.from_dtype(np.dtype(kind), **finite)))


@pytest.mark.slow
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
