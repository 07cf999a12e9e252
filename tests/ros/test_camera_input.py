"""A camera's lens, region and binning, and its images as the nodes read them. No node."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import Image

from lens_images import LENSES, RAW, lens_info, seen_through
from traced_scene import FRONT, make_scene, trace
from wm_core.camera import Camera
from wm_core.lens import Lens, Rectifier
from wm_ros.images.camera_info import camera_to_info, info_to_camera, info_to_lens, says_rectified
from wm_ros.images.camera_input import CameraInput, CameraInputError
from wm_ros.images.pixels import (
    ImageError,
    depth_to_image,
    image_to_depth,
    image_to_rgb,
    rgb_to_image,
)

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
