"""The unit of depth: guessed from one image, decided by several."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_images import LENSES, RAW, lens_info
from traced_scene import CAMERA, FRONT, make_scene, trace
from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.health.depth_unit import DepthUnitGuess, DepthUnitWatch, depth_unit_finding, guess_depth_unit
from wm_core.lens import Lens
from wm_ros.images.camera_input import CameraInput
from wm_ros.images.pixels import (
    array_to_image,
    rgb_to_image,
)


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
