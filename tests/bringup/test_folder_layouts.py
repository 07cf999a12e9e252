"""Folders of RGB-D frames: every layout is read to the same frames; which way is up; color on depth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabletop_images import CAMERA, look_down, millimeters, orbit, render
from wm_bringup.sources.layouts import open_folder
from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.rgbd_folder import prepared
from wm_core.camera import Camera
from wm_core.geometry import invert_transform
from wm_core.rotations import matrix_to_quaternion
from wm_perception.lifting.gravity import find_up
from wm_perception.lifting.registration import estimate_depth_to_color, register_color
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig

pytestmark = pytest.mark.slow

POSES = orbit(4)
BIG = Camera(640, 480, 560.0, 560.0, 319.5, 239.5)
STILL_FRAMES = ("arc_bin", "hammer_rs", "o3d_tum", "osd_learn20", "osd_test0", "osd_test50")


def matrix(camera: Camera) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])


def write(path: Path, rgb: np.ndarray | None = None, depth: np.ndarray | None = None, scale: float = 1000.0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[:, :, ::-1] if rgb is not None else millimeters(depth, scale))
    return path.name


def numbered(folder: Path, poses: bool = True, big_color: bool = False) -> None:
    for i, pose in enumerate(POSES):
        rgb, depth = render(pose)
        raw = millimeters(depth)
        raw[:2] = 65535  # what 7-Scenes writes where nothing was measured
        write(folder / f"frame-{i:06d}.color.png", render(pose, BIG)[0] if big_color else rgb)
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), raw)
        if poses:
            np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    np.savetxt(folder / "camera-intrinsics.txt", matrix(BIG if big_color else CAMERA))


def scannet(folder: Path, poses: bool = True) -> None:
    for i, pose in enumerate(POSES):
        write(folder / f"color/{i}.jpg", render(pose, BIG)[0])
        write(folder / f"depth/{i}.png", depth=render(pose)[1])
        if poses:
            (folder / "pose").mkdir(exist_ok=True)
            np.savetxt(folder / f"pose/{i}.txt", pose)
    for name, camera in (("color", BIG), ("depth", CAMERA)):
        (folder / "intrinsic").mkdir(exist_ok=True)
        intrinsic = np.eye(4)
        intrinsic[:3, :3] = matrix(camera)
        np.savetxt(folder / f"intrinsic/intrinsic_{name}.txt", intrinsic)
        np.savetxt(folder / f"intrinsic/extrinsic_{name}.txt", np.eye(4))


def tum(folder: Path, poses: bool = True) -> None:
    lists: dict[str, list[str]] = {"rgb": ["# color"], "depth": ["# depth"], "groundtruth": []}
    for i, pose in enumerate(POSES):
        stamp = 1305031102.175304 + i / 30.0
        rgb, depth = render(pose)
        lists["rgb"].append(f"{stamp:.6f} rgb/{write(folder / f'rgb/{stamp:.6f}.png', rgb)}")
        lists["depth"].append(f"{stamp + 0.01:.6f} depth/{write(folder / f'depth/{i}.png', depth=depth, scale=5000.0)}")
        x, y, z = pose[:3, 3]
        q = " ".join(f"{v:.9f}" for v in matrix_to_quaternion(pose[:3, :3]))
        lists["groundtruth"].append(f"{stamp:.4f} {x:.6f} {y:.6f} {z:.6f} {q}")
    for name, rows in lists.items():
        if poses or name != "groundtruth":
            (folder / f"{name}.txt").write_text("\n".join(rows))
    c = CAMERA
    (folder / "camera.yaml").write_text(f"{{fx: {c.fx}, fy: {c.fy}, cx: {c.cx}, cy: {c.cy}}}")


def bop(folder: Path, poses: bool = True) -> None:
    described = {}
    for i, pose in enumerate(POSES):
        rgb, depth = render(pose)
        write(folder / f"rgb/{i:06d}.png", rgb)
        write(folder / f"depth/{i:06d}.png", depth=depth, scale=10000.0)
        described[str(i)] = {"cam_K": matrix(CAMERA).ravel().tolist(), "depth_scale": 0.1}
        if poses:
            camera_T_world = invert_transform(pose)
            described[str(i)]["cam_R_w2c"] = camera_T_world[:3, :3].ravel().tolist()
            described[str(i)]["cam_t_w2c"] = (1000.0 * camera_T_world[:3, 3]).tolist()
    (folder / "scene_camera.json").write_text(json.dumps(described))


def one_frame(folder: Path, poses: bool = True) -> None:
    rgb, depth = render(POSES[0])
    write(folder / "color.png", rgb)
    write(folder / "depth.png", depth=depth)
    np.savetxt(folder / "camera-intrinsics.txt", matrix(CAMERA))
    if poses:
        np.savetxt(folder / "pose.txt", POSES[0])


LAYOUTS: dict[str, Callable[..., None]] = {
    "7-Scenes": numbered,
    "7-Scenes, larger color": lambda folder, poses=True: numbered(folder, poses, big_color=True),
    "ScanNet": scannet,
    "TUM": tum,
    "BOP": bop,
    "a single frame": one_frame,
}


@pytest.mark.parametrize("poses", [True, False], ids=["poses", "no poses"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_frames(tmp_path: Path, layout: str, poses: bool):
    LAYOUTS[layout](tmp_path, poses)
    recording = open_folder(tmp_path)
    assert recording.layout == layout.partition(",")[0] and recording.has_poses is poses
    assert len(recording.frames) == (45 if layout == "a single frame" else len(POSES))
    assert any("stands still" in note for note in recording.notes) is not poses
    for i in (0, len(recording.frames) - 1):
        pose = POSES[0 if layout == "a single frame" else i]
        frame = recording.frame(i)
        rgb, depth = render(pose)
        measured = (frame.depth_m > 0.0) & (depth > 0.0)
        assert measured.mean() > 0.97
        assert np.abs(frame.depth_m - depth)[measured].max() < 0.001
        assert (frame.camera.width, frame.camera.fx) == (CAMERA.width, pytest.approx(CAMERA.fx, rel=0.002))
        assert (frame.camera.cx, frame.camera.cy) == (pytest.approx(CAMERA.cx, abs=0.5), pytest.approx(119.5, abs=0.5))
        # Color lies on depth: red pixels are those of the red box.
        red, true = ((c[..., 0] > 110) & (c[..., 1] < 90) for c in (frame.color, rgb))
        assert (red & true).sum() > 0.9 * (red | true).sum()
        np.testing.assert_allclose(frame.world_T_camera, pose if poses else np.eye(4), atol=1e-4)


def test_seven_scenes_as_distributed_has_no_intrinsics(tmp_path: Path):
    camera = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)
    rgb, depth = render(POSES[0], camera)
    for i in range(2):
        write(tmp_path / f"seq-01/frame-{i:06d}.color.png", rgb)
        write(tmp_path / f"seq-01/frame-{i:06d}.depth.png", depth=depth)
        np.savetxt(tmp_path / f"seq-01/frame-{i:06d}.pose.txt", POSES[0])
    recording = open_folder(tmp_path / "seq-01")
    assert recording.camera == camera and any("no intrinsics" in note for note in recording.notes)
    with pytest.raises(SourceError, match=r"holds sequences; expected one of them, e.g. .*seq-01"):
        open_folder(tmp_path)


def not_finite(path: Path) -> None:
    described = json.loads(path.read_text())
    described["1"]["cam_t_w2c"][0] = float("nan")
    path.write_text(json.dumps(described))


def renamed(folder: Path) -> None:
    """Leaves one color image, whose name has no number."""
    first, *others = sorted(folder.glob("frame-*.color.*"))
    for other in others:
        other.unlink()
    first.rename(folder / "frame-first.color.png")


def test_one_frame_is_shown_at_the_rate_that_is_asked_for(tmp_path: Path):
    one_frame(tmp_path)
    usual, fast = open_folder(tmp_path), open_folder(tmp_path, 10.0)
    assert np.diff([f.time_ns for f in fast.frames]).tolist() == [100_000_000] * (len(fast.frames) - 1)
    assert fast.duration_s == pytest.approx(usual.duration_s, abs=0.2) and any("10 Hz" in note for note in fast.notes)
    # It fits in a frame or two at the slowest rates, too.
    assert len(open_folder(tmp_path, 0.1).frames) == 2


@pytest.mark.parametrize(
    ("layout", "damage", "texts"),
    [
        (numbered, lambda f: (f / "frame-000002.pose.txt").unlink(), ("frame-000002.pose.txt: no such file",)),
        (scannet, lambda f: (f / "depth/3.png").unlink(), ("depth/3.png: no such file, expected one beside 3.jpg",)),
        (scannet, lambda f: (f / "intrinsic/intrinsic_depth.txt").write_text("1 2"), ("2 numbers, expected 16",)),
        (tum, lambda f: (f / "camera.yaml").unlink(), ("camera-intrinsics.txt", "320x240", "640x480")),
        (bop, lambda f: (f / "scene_camera.json").write_text("[1]"), ("scene_camera.json", "expected an object")),
        (bop, lambda f: (f / "scene_camera.json").write_text('{"0": {}}'), ("scene_camera.json: 0", "cam_K")),
        (bop, lambda f: (f / "scene_camera.json").write_text('{"0": null}'), ("scene_camera.json: 0", "cam_K")),
        (bop, lambda f: not_finite(f / "scene_camera.json"), ("scene_camera.json: 1", "cam_t_w2c is not finite")),
        (
            tum,
            lambda f: (f / "groundtruth.txt").write_bytes(b"\xff\xfe0 1"),
            ("groundtruth.txt", "expected a TUM list"),
        ),
        (numbered, lambda f: renamed(f), ("no frame-N.color.png", "found frame-first.color.png")),
        (one_frame, lambda f: (f / "depth.png").unlink(), ("depth.png: no such file, expected one beside color.png",)),
        (one_frame, lambda f: write(f / "color.png", render(POSES[0])[0][:200]), ("color.png: 320x200", "320x240")),
        (one_frame, lambda f: (f / "camera-intrinsics.txt").unlink(), ("camera-intrinsics.txt: no such file",)),
    ],
)
def test_what_is_wrong_with_a_layout_is_said_by_file(tmp_path: Path, layout, damage, texts):
    layout(tmp_path)
    damage(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_folder(tmp_path)
    assert all(text in str(caught.value) for text in texts), caught.value


# Which way is up.


def still(pitch_deg: float, pose: np.ndarray | None = None) -> Frame:
    rgb, depth = render(look_down(pitch_deg))
    return Frame(0, rgb, depth, CAMERA, np.eye(4) if pose is None else pose)


@given(pitch=st.floats(20.0, 90.0))
@settings(max_examples=12, deadline=None)
def test_up_is_found_without_poses_however_steep_the_camera_looks(pitch: float):
    up = find_up([still(pitch)]).level_T_world[2, :3]
    assert np.degrees(np.arccos(np.clip(up @ look_down(pitch)[2, :3], -1.0, 1.0))) < 1.0


def write_clip(folder: Path, poses: list[np.ndarray], world: np.ndarray | None = None) -> Path:
    """Frames of the table from these poses; the pose files are in another world, where one is given."""
    for i, pose in enumerate(poses):
        rgb, depth = render(pose)
        write(folder / f"frame-{i:06d}.color.png", rgb)
        write(folder / f"frame-{i:06d}.depth.png", depth=depth)
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose if world is None else world @ pose)
    np.savetxt(folder / "camera-intrinsics.txt", matrix(CAMERA))
    return folder


@pytest.mark.parametrize("pitch", [20.0, 60.0, 80.0, 90.0])
def test_given_poses_are_believed_and_things_are_found(tmp_path: Path, pitch: float):
    recording = prepared(open_folder(write_clip(tmp_path, orbit(10, pitch))))
    for i in (0, 9):
        np.testing.assert_allclose(recording.frames[i].world_T_camera, orbit(10, pitch)[i], atol=1e-6)
    pipeline = PerceptionPipeline(PerceptionConfig(segmenter="geometric", reasoner="geometric"))
    for i in range(10):
        scene = pipeline.process(recording.frame(i)).scene
    assert scene.is_static.any() and (~scene.is_static).any()


def test_a_world_that_is_its_first_camera_is_turned_and_it_is_said(tmp_path: Path):
    poses = orbit(4)
    recording = open_folder(write_clip(tmp_path, poses, invert_transform(poses[0])))
    upright = recording.leveled()
    up = upright.frames[0].world_T_camera[2, :3]
    assert np.degrees(np.arccos(np.clip(up @ poses[0][2, :3], -1.0, 1.0))) < 1.0
    assert any("is turned by" in note for note in upright.notes)
    assert recording.leveled("off") is recording
    with pytest.raises(SourceError, match="--level: got 'yes', expected one of auto, on, off"):
        recording.leveled("yes")


def test_poses_with_a_slanted_surface_are_believed_unless_asked(tmp_path: Path):
    tilt = np.eye(4)
    a = np.radians(25.0)
    tilt[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    recording = open_folder(write_clip(tmp_path, orbit(4), tilt))
    believed = recording.leveled()
    assert all(
        np.array_equal(f.world_T_camera, g.world_T_camera)
        for f, g in zip(recording.frames, believed.frames, strict=True)
    )
    assert any("25 degrees off" in note and "--level on" in note for note in believed.notes)
    turned = recording.leveled("on").frames[0].world_T_camera
    assert np.degrees(np.arccos(np.clip(turned[2, :3] @ orbit(1)[0][2, :3], -1.0, 1.0))) < 1.0


@pytest.mark.parametrize("name", STILL_FRAMES)
def test_real_frames_from_still_cameras_stand_on_something(shared_data: Path, name: str):
    recording = prepared(open_folder(shared_data / "real_frames" / name))
    assert recording.registration is None and not recording.has_poses and len(recording.frames) == 45
    # The camera looks down on a support, by 25 to 60 degrees, by hand from the pictures.
    down = np.degrees(np.arcsin(-recording.frames[0].world_T_camera[2, 2]))
    assert 25.0 < down < 60.0
    raw = cv2.imread(str(shared_data / "real_frames" / name / "color.png"))[:, :, ::-1]
    np.testing.assert_array_equal(recording.load(0)[0], raw)


# Color on depth.


@pytest.fixture(scope="module")
def kinect(shared_data: Path):
    recording = open_folder(shared_data / "real_rgbd")
    return recording, recording.registered()


def test_a_kinects_two_lenses_are_told_apart(kinect):
    recording, registered = kinect
    found = registered.registration
    assert found is not None and found.camera.fx == pytest.approx(528.0, abs=6.0)
    assert 1000.0 * np.linalg.norm(found.translation_m) == pytest.approx(24.0, abs=4.0)
    assert found.gain > 1.5 and found.views >= 10
    assert any("color fx 52" in note and "24 mm" in note and "--register off" in note for note in registered.notes)
    assert recording.registered("off") is recording


def test_what_is_registered_stays_as_it_is(kinect):
    recording, registered = kinect
    frames = [recording.frame(i) for i in range(0, 60, 8)]
    there = [replace(f, color=register_color(f, registered.registration)) for f in frames]
    found = estimate_depth_to_color(there)
    assert found.registered_already and "fit as they are" in found.refusal


def test_one_view_tells_of_no_camera(kinect, shared_data: Path):
    recording, _ = kinect
    with pytest.raises(ValueError, match="1 different views, expected at least 4"):
        estimate_depth_to_color([recording.frame(0)] * 12)
    still = open_folder(shared_data / "real_frames" / "o3d_tum")
    assert still.registered() is still
    with pytest.raises(SourceError, match=r"color cannot be brought onto depth.*--register off"):
        still.registered("on")
