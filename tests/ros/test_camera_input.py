"""What a camera may send: encodings, RVL, lenses, regions and binning, units of depth. No node."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CompressedImage, Image

from lens_images import LENSES, RAW, encode_rvl, lens_info, rvl_message, seen_through
from traced_scene import CAMERA, FRONT, make_scene, trace
from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.health.depth_unit import DepthUnitGuess, DepthUnitWatch, depth_unit_finding, guess_depth_unit
from wm_core.lens import Lens, Rectifier
from wm_core.rvl import decode_rvl
from wm_ros.images.camera_info import camera_to_info, info_to_camera, info_to_lens, says_rectified
from wm_ros.images.camera_input import CameraInput, CameraInputError
from wm_ros.images.compressed import compressed_to_depth, depth_to_compressed
from wm_ros.images.pixels import (
    ImageError,
    array_to_image,
    depth_to_image,
    depth_to_millimeters,
    image_to_depth,
    image_to_rgb,
    rgb_to_image,
)

# Encodings.


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_gives_back_the_color_it_was_made_of(pattern: str, bits: int) -> None:
    color = np.zeros((12, 16, 3), np.uint8) + np.array([200, 120, 40], np.uint8)
    mosaic = np.zeros((12, 16), np.uint8)
    for place, letter in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = color[row::2, column::2, "rgb".index(letter)]
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) << 8
    found = image_to_rgb(array_to_image(pixels, f"bayer_{pattern}{bits}"))
    np.testing.assert_array_equal(found[2:-2, 2:-2], color[2:-2, 2:-2])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV")])
def test_yuv_422_with_padded_rows(encoding: str, order: str) -> None:
    y = np.array([[60, 60, 200, 200], [90, 90, 30, 30]])
    u, v = np.array([[100, 140], [128, 90]]), np.array([[150, 110], [128, 200]])
    rows = []
    for r in range(2):
        parts = []
        for pair in range(2):
            c = {"U": u[r, pair], "V": v[r, pair]}
            luma = iter(y[r, 2 * pair : 2 * pair + 2])
            parts += [next(luma) if letter == "Y" else c[letter] for letter in order]
        rows.append(bytes(int(p) for p in parts) + b"\xff\xff\xff")  # three bytes of padding
    msg = Image(encoding=encoding, width=4, height=2, step=11, data=b"".join(rows))
    found = image_to_rgb(msg).astype(float)
    # ITU-R BT.601, limited range.
    up, down = np.repeat(u, 2, axis=1) - 128.0, np.repeat(v, 2, axis=1) - 128.0
    luma = 1.164 * (y - 16.0)
    wanted = np.stack([luma + 1.596 * down, luma - 0.813 * down - 0.391 * up, luma + 2.018 * up], axis=-1)
    np.testing.assert_allclose(found, np.clip(wanted, 0, 255), atol=2.0)
    msg.width = 3
    with pytest.raises(ImageError, match="width 3, expected an even one"):
        image_to_rgb(msg)


def test_sixteen_bit_color_big_endian_and_alpha() -> None:
    color = (np.arange(2 * 3 * 4).reshape(2, 3, 4) * 2000).astype(np.uint16)
    msg = array_to_image(color, "bgra16")
    msg.data, msg.is_bigendian = color.astype(">u2").tobytes(), 1
    np.testing.assert_array_equal(image_to_rgb(msg), (color[..., 2::-1] >> 8).astype(np.uint8))
    gray = array_to_image(color[..., 0], "mono16")
    np.testing.assert_array_equal(image_to_rgb(gray)[..., 1], color[..., 0] >> 8)


def test_depth_in_another_unit() -> None:
    tenths = np.array([[10_000, 0, 65_535]], np.uint16)
    found = image_to_depth(array_to_image(tenths, "16UC1"), scale=0.0001)
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.0]])
    millimeters = array_to_image(np.array([[1500.0, np.nan]], np.float32), "32FC1")
    np.testing.assert_allclose(image_to_depth(millimeters, scale=0.001), [[1.5, 0.0]])
    png = depth_to_compressed(np.array([[1.5, 0.0]]), form="compressedDepth")
    np.testing.assert_allclose(compressed_to_depth(png, scale=0.00025), [[0.375, 0.0]])


# RVL.


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint16,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(st.just(0), st.integers(0, 65_535), st.integers(900, 1100)),
    )
)
def test_rvl_gives_back_what_was_coded(depth: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rvl(encode_rvl(depth), depth.shape[1], depth.shape[0]), depth)


def test_rvl_of_known_bytes() -> None:
    # 3 zeros, 2 measurements: 5 (zigzag 10, so A and 1) and 4 (difference -1, zigzag 1); 1 zero, 0 measurements.
    word = 0x32A11100
    depth = decode_rvl(struct.pack("<I", word), 6, 1)
    np.testing.assert_array_equal(depth, [[0, 0, 0, 5, 4, 0]])


def test_rvl_messages_of_a_camera_and_of_nonsense() -> None:
    depth = trace(make_scene())[1]
    found = compressed_to_depth(rvl_message(depth_to_millimeters(depth)))
    np.testing.assert_allclose(found, depth, atol=6e-4)
    good = bytes(rvl_message(depth_to_millimeters(depth)).data)
    for data, text in (
        (good[:-2000], "end"),
        (good[:16], "expected width and height"),
        (good[:12] + struct.pack("<2I", 65_536, 65_536) + good[20:], "65536x65536"),
        (good[:12] + struct.pack("<2I", 320, 100) + good[20:], "expected at most 32000"),
        (good[:20] + bytes(len(good)), "0 zeros and 0 measurements"),
        (good[:20] + b"\xff" * 400, "nibbles|end"),
    ):
        with pytest.raises(ImageError, match=text):
            compressed_to_depth(CompressedImage(format="16UC1; compressedDepth rvl", data=data), "/depth")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 40), st.integers(1, 40))
def test_rvl_of_any_bytes_is_an_image_or_a_refusal(data: bytes, width: int, height: int) -> None:
    try:
        assert decode_rvl(data, width, height).shape == (height, width)
    except ValueError as error:
        assert str(error).startswith("RVL: ")


# Lenses.


@pytest.mark.slow
@pytest.mark.parametrize("model", LENSES)
def test_color_and_depth_of_a_lens_become_those_of_a_pinhole(model: str) -> None:
    lens = Lens(RAW, Camera(320, 240, 250.0, 250.0, 159.5, 119.5), model, LENSES[model])
    wide = Camera(960, 720, 500.0, 500.0, 479.5, 359.5)  # finer and wider than the lens sees
    color, depth = seen_through(lens, *trace(make_scene(), FRONT, wide)[:2], wide)
    rectifier = Rectifier(lens)
    assert rectifier.camera == lens.rectified and not rectifier.identity
    found, meters = rectifier.color(color), rectifier.depth(depth)
    true_color, true_depth, ids = trace(make_scene(), FRONT, lens.rectified)
    inside = (meters > 0.0) & (cv2.erode((meters > 0).astype(np.uint8), np.ones((5, 5))) > 0)
    assert inside.mean() > 0.8
    steps = cv2.dilate(true_depth, np.ones((5, 5))) - cv2.erode(true_depth, np.ones((5, 5)))
    flat = inside & (steps < 0.04) & (cv2.dilate(ids, np.ones((5, 5))) == cv2.erode(ids, np.ones((5, 5))))
    assert flat.mean() > 0.5
    assert np.quantile(np.abs(meters - true_depth)[flat], 0.99) < 0.004
    # As they came, the images are that wrong.
    assert np.quantile(np.abs(depth - true_depth)[flat & (depth > 0)], 0.9) > 0.01
    assert np.abs(found.astype(float) - true_color)[flat].mean() < 2.5
    # Nothing lies between the surfaces: depth at an edge is that of one side.
    low, high = cv2.erode(true_depth, np.ones((5, 5))), cv2.dilate(true_depth, np.ones((5, 5)))
    edge = inside & (high - low > 0.25)
    nearer = np.minimum(np.abs(meters - low), np.abs(meters - high))[edge]
    assert edge.sum() > 100 and np.quantile(nearer, 0.97) < 0.04


@pytest.mark.parametrize("model", LENSES)
def test_the_points_of_a_plane_are_flat(model: str) -> None:
    lens = Lens(RAW, RAW, model, LENSES[model])
    normal, distance = np.array([0.25, -0.35, -0.9]), 1.1
    normal /= np.linalg.norm(normal)
    u, v = np.meshgrid(np.arange(960.0), np.arange(720.0))
    wide = Camera(960, 720, 400.0, 400.0, 479.5, 359.5)
    rays = np.stack([(u - wide.cx) / wide.fx, (v - wide.cy) / wide.fy, np.ones_like(u)], -1)
    depth = np.maximum(-distance / np.minimum(rays @ normal, -1e-3), 0.0).astype(np.float32)
    depth[depth > 6.0] = 0.0
    raw = seen_through(lens, np.zeros((720, 960, 3), np.uint8), depth, wide)[1]
    rectifier = Rectifier(lens)

    def off_plane(image: np.ndarray, camera: Camera) -> np.ndarray:
        points = camera.back_project(image).reshape(-1, 3)
        return np.abs(points[np.isfinite(points[:, 2])] @ normal + distance)

    assert np.quantile(off_plane(rectifier.depth(raw), rectifier.camera), 0.99) < 0.004
    assert np.quantile(off_plane(raw, lens.raw), 0.9) > 0.01


def test_far_rays_do_not_see_a_folded_image_again() -> None:
    """With a strong barrel the polynomial turns back: what lies beyond is black and without depth."""
    lens = Lens(RAW, Camera(320, 240, 90.0, 90.0, 159.5, 119.5), "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))
    rectifier = Rectifier(lens)
    color, depth = np.full((240, 320, 3), 255, np.uint8), np.ones((240, 320), np.float32)
    corner = (slice(0, 10), slice(0, 10))  # its rays are at 2.2; the polynomial turns at 1.05
    assert (rectifier.color(color)[corner] == 0).all() and (rectifier.depth(depth)[corner] == 0.0).all()
    assert (rectifier.color(color)[110:130, 150:170] == 255).all()


def test_a_turned_stereo_camera_stays_in_its_own_frame_unless_told() -> None:
    turn = cv2.Rodrigues(np.array([0.0, 0.03, 0.0]))[0]
    lens = Lens(RAW, RAW, "plumb_bob", LENSES["plumb_bob"], tuple(turn.ravel()))
    own, turned = Rectifier(lens), Rectifier(lens, turn=True)
    points = np.array([[0.1, -0.1, 1.5], [-0.2, 0.15, 1.0]])
    raw = lens.distort(points)
    for rectifier, moved in ((own, points), (turned, points @ turn.T)):
        pixels, depth = rectifier.camera.project(moved)
        for (u, v), (x, y), z, before in zip(np.rint(pixels).astype(int), raw, depth, points[:, 2], strict=True):
            image = np.zeros((240, 320), np.float32)
            image[int(y) - 3 : int(y) + 5, int(x) - 3 : int(x) + 5] = before
            assert rectifier.depth(image)[v, u] == pytest.approx(z, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"distortion_model": "mei", "d": [0.1]}, ("'mei'", "plumb_bob")),
        ({"distortion_model": "equidistant", "d": [0.1, 0.1, 0.1]}, ("3 coefficients", "4")),
        ({"d": [np.nan, 0.0, 0.0, 0.0]}, ("nan", "finite")),
        ({"k": [0.0] * 9, "p": [0.0] * 12}, ("fx", "uncalibrated")),
        ({"binning_x": 400, "binning_y": 1}, ("binning 400x1", "320x240")),
    ],
)
def test_an_impossible_lens_is_named(change: dict, texts: tuple[str, ...]) -> None:
    with pytest.raises(ImageError) as caught:
        info_to_lens(lens_info(Lens(RAW, RAW), **change), "/camera_info")
    assert all(text in str(caught.value) for text in (*texts, "/camera_info"))


# CameraInfo.


def test_binning_and_region_see_the_same_rays() -> None:
    full = Camera(640, 480, 520.0, 522.0, 318.0, 243.0)
    msg = camera_to_info(full)
    msg.roi.x_offset, msg.roi.y_offset, msg.roi.width, msg.roi.height = 100, 60, 320, 240
    msg.binning_x, msg.binning_y = 2, 4
    found = info_to_camera(msg)
    assert (found.width, found.height) == (160, 60)
    point = np.array([[0.05, -0.1, 1.2]])
    (u, v), (x, y) = found.project(point)[0][0], full.project(point)[0][0]
    # A binned pixel is the block of pixels whose centers are 2u + 0.5 +- 0.5 and 4v + 1.5 +- 1.5.
    assert (2 * u + 0.5 + 100, 4 * v + 1.5 + 60) == pytest.approx((x, y))


def test_k_of_zeros_is_taken_from_p() -> None:
    msg = camera_to_info(RAW)
    msg.k = [0.0] * 9
    assert info_to_camera(msg) == RAW


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/camera/image_rect", True),
        ("/left/image_rect_color", True),
        ("/depth_registered/image_rect_raw", True),
        ("/camera/image_raw", False),
        ("/direct/image", False),
        ("/zed/rgb/color/rectified/image", True),
    ],
)
def test_names_that_say_rectified(topic: str, rectified: bool) -> None:
    assert says_rectified(topic) == rectified


# Both together, as the nodes read a camera.


def settings_of(**given) -> SimpleNamespace:
    values = {
        "color_transport": "raw", "depth_transport": "raw", "camera_info_topic": "/info", "color_source": "/color",
        "depth_source": "/depth", "resize_depth": False, "rectify": "auto", "depth_scale": 0.0,
        "depth_scale_guess": "warn",
    }  # fmt: skip
    return SimpleNamespace(**{**values, **given})


def messages(width: int = 320, height: int = 240) -> tuple[Image, Image]:
    color = np.random.default_rng(1).integers(0, 255, (height, width, 3)).astype(np.uint8)
    depth = np.broadcast_to(np.linspace(1.0, 2.0, width, dtype=np.float32), (height, width))
    return rgb_to_image(color), depth_to_image(depth)


@pytest.mark.parametrize(
    ("color_topic", "depth_topic", "rectify", "color_moves", "depth_moves"),
    [
        ("/c/image_raw", "/d/image_raw", "auto", True, True),
        ("/c/image_rect_color", "/d/image_rect", "auto", False, False),
        ("/c/image_raw", "/d/image_rect", "auto", True, False),
        ("/c/image_raw", "/d/image_raw", "off", False, False),
        ("/c/image_rect", "/d/image_rect", "on", True, True),
    ],
)
def test_what_is_rectified(
    color_topic: str, depth_topic: str, rectify: str, color_moves: bool, depth_moves: bool
) -> None:
    lens = Lens(RAW, Camera(320, 240, 240.0, 240.0, 159.5, 119.5), "plumb_bob", LENSES["plumb_bob"])
    color, depth = messages()
    given = CameraInput(color_topic, depth_topic)
    read = given.read(color, depth, lens_info(lens), settings_of(rectify=rectify))
    assert read.camera == lens.rectified
    assert (read.color != image_to_rgb(color)).any() == color_moves
    assert (read.depth_m != image_to_depth(depth)).any() == depth_moves
    maps = given._rectifiers.copy()
    given.read(color, depth, lens_info(lens), settings_of(rectify=rectify))
    assert given._rectifiers == maps, "the maps were made again"


def test_without_distortion_images_stay_as_they_are() -> None:
    color, depth = messages()
    read = CameraInput("/c/image_raw", "/d/image_raw").read(color, depth, camera_to_info(RAW), settings_of())
    assert read.camera == RAW and read.depth_unit_m == 1.0
    np.testing.assert_array_equal(read.color, image_to_rgb(color))


def test_a_size_that_does_not_fit_says_region_and_binning() -> None:
    msg = camera_to_info(RAW)
    msg.binning_x = msg.binning_y = 2
    color, depth = messages()
    with pytest.raises(CameraInputError) as caught:
        CameraInput("/c", "/d").read(color, depth, msg, settings_of())
    assert caught.value.counter == "camera_info_size"
    assert all(t in str(caught.value) for t in ("160x120", "320x240", "binning 2x2", "/info", "/color"))
    small = messages(160, 120)
    assert CameraInput("/c", "/d").read(*small, msg, settings_of()).camera.fx == pytest.approx(RAW.fx / 2)


# Units of depth.


@pytest.mark.parametrize("factor", [0.001, 0.1, 0.25, 10.0])
def test_a_wrong_unit_is_found_and_the_right_one_is_not_doubted(factor: float) -> None:
    depth = trace(make_scene())[1]
    guess = guess_depth_unit(depth, CAMERA, FRONT)
    assert guess is not None and guess.factor == 1.0
    assert guess.below_m == pytest.approx(0.6, abs=0.01)
    wrong = guess_depth_unit((depth / factor).astype(np.float32), CAMERA, FRONT)
    assert wrong is not None and wrong.factor == factor
    assert f"{1.0 * factor:.3g}" in wrong.advice(1.0)
    assert "below the camera" in wrong.evidence and f"{wrong.median_m:.3g} m" in wrong.evidence


@pytest.mark.slow
def test_recorded_frames_are_not_doubted_and_tenths_of_millimeters_are(shared_data) -> None:
    from wm_bringup.sources.layouts import open_folder

    recording = open_folder(shared_data / "real_rgbd").leveled()
    frames = [(recording.load(i)[1], recording.camera, recording.frames[i].world_T_camera) for i in (0, 10, 20)]
    for folder in sorted(p for p in (shared_data / "real_frames").iterdir() if p.is_dir()):
        raw = cv2.imread(str(folder / "depth.png"), cv2.IMREAD_UNCHANGED)
        k = np.loadtxt(folder / "camera-intrinsics.txt")
        camera = Camera(raw.shape[1], raw.shape[0], k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        # Tilted down by 40 degrees, about as these were taken: the largest level layer is the table.
        down = pose_matrix([0.0, 0.0, 1.2], [0.0, 0.0, 0.0, 1.0])
        down[:3, :3] = np.array([[0, -np.sin(0.7), np.cos(0.7)], [-1, 0, 0], [0, -np.cos(0.7), -np.sin(0.7)]])
        frames.append((raw.astype(np.float32) * 1e-3, camera, down))
    assert len(frames) == 9
    for depth, camera, pose in frames:
        right, wrong = guess_depth_unit(depth, camera, pose), guess_depth_unit(10.0 * depth, camera, pose)
        assert right is not None and right.factor == 1.0, right
        assert wrong is not None and 0.1 in (wrong.factor, *wrong.others), wrong


@given(st.floats(0.07, 9.0), st.sampled_from((-1.0, 1.0)), st.booleans())
def test_meters_that_no_camera_measures_are_always_doubted(median_m: float, way: float, said: bool) -> None:
    """Millimeters as meters and meters as millimeters, with no level surface in view."""
    depth = np.full((48, 64), median_m * 1000.0**way, np.float32)
    guess = guess_depth_unit(depth, Camera(64, 48, 60.0, 60.0, 31.5, 23.5), np.eye(4), said)
    assert guess is not None
    if not 0.05 <= guess.median_m <= 100.0:
        assert guess.factor != 1.0
    if 0.3 <= median_m <= 5.0:
        assert 1000.0**-way in guess.factors


@pytest.mark.parametrize(
    ("unit_m", "factor", "names", "scale"),
    [
        (0.001, 0.25, "0.25 mm (RealSense L515)", "0.00025"),
        (0.001, 0.1, "0.1 mm (RealSense D405, D410)", "0.0001"),
        (0.001, 1000.0, "meters, sent as if mm", "1"),
        (0.0001, 10.0, "1 mm", "0.001"),
        (1.0, 0.001, "mm, sent as if meters", "0.001"),
        (1.0, 0.25, "0.25 mm (RealSense L515), scaled as if mm", "0.25"),
        (1.0, 1000.0, "meters, scaled as if mm", ""),
    ],
)
def test_what_is_said_of_a_unit_names_it_and_what_to_set(unit_m: float, factor: float, names: str, scale: str) -> None:
    finding = depth_unit_finding("/depth", DepthUnitGuess(factor, (), 5.2, 2.4, -1.8), unit_m)
    assert finding is not None and finding.cause == "depth_unit"
    for part in ("/depth", f"read as {1000.0 * unit_m:g} mm a unit", names, "median depth 5.2 m", "2.4 m below"):
        assert part in finding.found
    # The nodes take at most 1 meter per unit.
    assert (f"set depth_scale to {scale} (" if scale else "mend the driver") in finding.run
    assert f"{unit_m:g} " in finding.run and "is right" in finding.run
    several = depth_unit_finding("/depth", DepthUnitGuess(factor, (0.1,), 5.2, np.nan, np.nan), unit_m)
    assert several is not None and " or " in several.found and "nan" not in several.text
    assert depth_unit_finding("/depth", DepthUnitGuess(1.0, (), 1.2, 0.6, 0.0), unit_m) is None


def test_an_agreed_unit_is_looked_at_seldom_and_a_doubtful_one_often() -> None:
    depth = trace(make_scene())[1]
    watch = DepthUnitWatch()
    now, looks = 0.0, []
    for number in range(120):
        now = number / 30.0
        if watch.due(now):
            looks.append(now)
            agreed = watch.look((10.0 if now > 2.0 else 1.0) * depth, CAMERA, FRONT)
            if now > 2.0 and agreed is not None:
                break
    assert len([t for t in looks if t < 2.0]) == 3
    assert agreed is not None and agreed.factor == 0.1 and now < 3.5


def test_a_unit_is_believed_when_three_images_agree_and_taken_when_one_fits() -> None:
    depth = (10.0 * trace(make_scene())[1]).astype(np.float32)
    watch = DepthUnitWatch()
    assert watch.look(depth, CAMERA, FRONT) is None and watch.look(depth, CAMERA, FRONT) is None
    assert not watch.decided
    guess = watch.look(depth, CAMERA, FRONT)
    assert guess is not None and watch.decided and watch.take(guess) and watch.factor == 0.1
    assert watch.look(np.zeros_like(depth), CAMERA, FRONT) is None, "nothing measured, nothing said"
    several = DepthUnitGuess(0.1, (0.25,), 7.0, 5.0, -4.0)
    assert not watch.take(several) and watch.factor == 0.1


def test_a_unit_that_was_decided_stays_and_a_doubt_is_only_said() -> None:
    depth = trace(make_scene())[1]
    for first, factor in ((1.0, 1.0), (10.0, 0.1)):
        watch = DepthUnitWatch()
        agreed = [watch.look((first * depth).astype(np.float32), CAMERA, FRONT) for _ in range(3)][-1]
        assert agreed is not None and watch.take(agreed) == (factor != 1.0)
        later = [watch.look((1000.0 * depth).astype(np.float32), CAMERA, FRONT) for _ in range(4)][-1]
        assert later is not None and later.factor == 0.001 and not watch.take(later) and watch.factor == factor


@pytest.mark.parametrize("first", [1.0, 10.0])
def test_looks_follow_stamps_and_start_over_with_time_or_with_other_settings(first: float) -> None:
    depth = trace(make_scene())[1]
    watch = DepthUnitWatch()

    def show(start_s: float, settings: object, times: float) -> None:
        for n in range(4):
            watch.begin(start_s + 0.001 * n, settings)
            if watch.due(start_s + 0.001 * n):
                guess = watch.look((times * watch.factor * depth).astype(np.float32), CAMERA, FRONT)
                if guess is not None:
                    watch.take(guess)

    show(100.0, "apply", first)
    assert watch.decided and watch.factor == 1.0 / first and not watch.due(102.0 if first == 1.0 else 100.1)
    watch.begin(103.0, "apply")
    assert watch.decided, "time goes on"
    for start_s, chosen, times in ((5.0, "apply", 10.0), (4.0, "apply", 1.0), (6.0, "other", 10.0)):
        watch.begin(start_s, chosen)
        assert not watch.decided and watch.factor == 1.0
        show(start_s, chosen, times)
        assert watch.decided and watch.factor == 1.0 / times


@pytest.mark.parametrize("far", [1e6, 1e9, 3e38])
def test_a_number_for_too_far_costs_nothing(far: float) -> None:
    depth = np.full((480, 640), 1.0, np.float32)
    depth[:180] = far
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 1.0
    camera = replace(CAMERA, width=640, height=480, cx=319.5, cy=239.5)
    tracemalloc.start()
    guess = guess_depth_unit(depth, camera, pose)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert guess is not None and guess.factor == 1.0 and peak < 50e6


def test_what_the_user_has_set_is_doubted_only_when_it_is_absurd() -> None:
    depth = trace(make_scene())[1]
    assert guess_depth_unit(4.0 * depth, CAMERA, FRONT, said=True).factor == 1.0
    assert guess_depth_unit(1000.0 * depth, CAMERA, FRONT, said=True).factor == 0.001


def test_a_folder_in_tenths_of_millimeters_is_said_with_the_option_to_give(tmp_path, capsys) -> None:
    from wm_bringup.sources import rgbd_folder

    color, depth, _ = trace(make_scene())
    for number in range(3):
        stem = tmp_path / f"frame-{number:06d}"
        cv2.imwrite(f"{stem}.color.png", np.ascontiguousarray(color[..., ::-1]))
        cv2.imwrite(f"{stem}.depth.png", (10_000.0 * depth).astype(np.uint16))
        np.savetxt(f"{stem}.pose.txt", FRONT)
    np.savetxt(tmp_path / "camera-intrinsics.txt", CAMERA.matrix)
    plain = [str(tmp_path), "--check", "--no-level", "--no-register"]
    assert rgbd_folder.main(plain) == 0
    said = capsys.readouterr().err
    assert all(t in said for t in (str(tmp_path), "warning", "read as 1 mm a unit", "--depth-scale 0.0001"))
    assert rgbd_folder.main([*plain, "--depth-scale", "0.0001"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert rgbd_folder.main([*plain, "--depth-scale", "5000"]) == 1
    assert "got 5000, expected meters per unit" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "factor"), [({}, 10.0), ({"depth_scale": 0.0001}, 1.0)])
def test_a_bag_without_poses_is_read_with_the_parameters_of_perception(given: dict, factor: float) -> None:
    from rclpy.serialization import serialize_message

    from wm_bringup.sources.bag_camera import Inputs, _first_frames

    color, depth, _ = trace(make_scene())
    lens = Lens(RAW, Camera(320, 240, 250.0, 250.0, 159.5, 119.5), "plumb_bob", LENSES["plumb_bob"])
    sent = {
        "/info": lens_info(lens),
        "/color": rgb_to_image(color, 5),
        "/depth": array_to_image((10_000.0 * depth).astype(np.uint16), "16UC1", 5),
    }
    kinds = {"/info": "CameraInfo", "/color": "Image", "/depth": "Image"}
    bag = SimpleNamespace(
        topics={name: SimpleNamespace(type=f"sensor_msgs/msg/{kind}") for name, kind in kinds.items()},
        messages=lambda names: [(name, 0, serialize_message(sent[name])) for name in names],
    )
    frames = _first_frames(bag, Inputs("/color", "/depth", "/info", **given), CameraInput("/color", "/depth"))
    assert len(frames) == 1
    frame = frames[0][0]
    seen = frame.depth_m[frame.depth_m > 0.0]
    assert frame.camera == lens.rectified and np.median(seen) == pytest.approx(factor * np.median(depth), rel=0.1)
