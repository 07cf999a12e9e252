"""One reader for each layout of an RGB-D folder; the module ``layouts`` describes the layouts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_bringup.sources.layout_files import (
    camera_of_matrix,
    frame_times_ns,
    image_size,
    numbered_images,
    numbers_in,
    pose_in,
    required_file,
    rigid_pose,
    single_image,
    tum_table,
)
from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.recording import RecordedFrame
from wm_core.geometry import invert_transform, pose_matrix
from wm_ros.stamps import NANOSECONDS

_MILLIMETERS_PER_METER = 1000.0
"""Depth units per meter of 16-bit depth images in millimeters."""
_TUM_DEPTH_SCALE = 5000.0
"""Depth units per meter, from the file formats page of the TUM RGB-D benchmark."""
_TUM_CAMERA = (525.0, 525.0, 319.5, 239.5)
"""fx, fy, cx, cy [pixels] at 640x480: the ROS default, which the TUM RGB-D benchmark uses for registered images."""
_SEVEN_SCENES_CAMERA = (585.0, 585.0, 320.0, 240.0)
"""fx, fy, cx, cy [pixels] at 640x480 of the Kinect depth camera, from the page of the 7-Scenes data set."""
_TUM_MAX_DIFFERENCE_S = 0.02
"""Largest difference of the stamps of one frame [s]: the default of the benchmark's associate.py. A larger value uses
more frames, with poses and depth that fit the color image less well."""


@dataclass(frozen=True)
class FoundFrames:
    """The frames and cameras that a layout's reader has found.

    Attributes:
        layout: name of the layout, for people.
        frames: ordered by time. Their ``camera`` is None, except where it differs from that of the first frame.
        depth_scale: depth units per meter.
        default_camera: published fx, fy, cx, cy [pixels] of the layout's 640x480 images; None: there are none.
        color_matrix, depth_matrix: intrinsics (3, 3) or (4, 4) [pixels] of the two images; None: the folder has none.
        color_T_depth: (4, 4) pose of the depth camera in the color camera [m]; None: the folder does not give it.
        left_out: number of frames without a usable pose or depth image.
        has_poses: whether the folder has poses.
    """

    layout: str
    frames: list[RecordedFrame]
    depth_scale: float
    default_camera: tuple[float, ...] | None = None
    color_matrix: NDArray[np.float64] | None = None
    depth_matrix: NDArray[np.float64] | None = None
    color_T_depth: NDArray[np.float64] | None = None
    left_out: int = 0
    has_poses: bool = True


def read_seven_scenes(folder: Path, rate_hz: float | None) -> FoundFrames:
    """Read frame-N.color.*, frame-N.depth.png and frame-N.pose.txt, as of 7-Scenes and tsdf-fusion."""
    colors: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"frame-(\d+)\.color\.(jpg|jpeg|png)", path.name, re.IGNORECASE)
        if match:
            colors[int(match[1])] = path
    if not colors:
        found = next(folder.glob("frame-*.color.*")).name
        raise SourceError(f"{folder}: no frame-N.color.png, .jpg or .jpeg with N a number; found {found}")
    numbers = sorted(colors)
    has_poses = any(folder.glob("frame-*.pose.txt"))
    frames, left_out = [], 0
    for number, time_ns in zip(numbers, frame_times_ns(numbers, rate_hz), strict=True):
        color = colors[number]
        stem = color.name.split(".")[0]
        depth = required_file(folder / f"{stem}.depth.png", color)
        pose = pose_in(required_file(folder / f"{stem}.pose.txt", color)) if has_poses else np.eye(4)
        if pose is None:
            left_out += 1
        else:
            frames.append(RecordedFrame(color, depth, time_ns, pose))
    return FoundFrames(
        "7-Scenes",
        frames,
        _MILLIMETERS_PER_METER,
        _SEVEN_SCENES_CAMERA if has_poses else None,
        left_out=left_out,
        has_poses=has_poses,
    )


def read_scannet(folder: Path, rate_hz: float | None) -> FoundFrames:
    """Read color/, depth/, pose/ and intrinsic/, as the reader of ScanNet's .sens files writes them."""
    colors, depths = numbered_images(folder / "color"), numbered_images(folder / "depth")
    if not colors:
        raise SourceError(f"{folder / 'color'}: no images, expected 0.jpg and so on")
    has_poses = (folder / "pose").is_dir() and any((folder / "pose").glob("*.txt"))
    frames, left_out = [], 0
    numbers = sorted(colors)
    for number, time_ns in zip(numbers, frame_times_ns(numbers, rate_hz), strict=True):
        color = colors[number]
        depth = depths.get(number) or required_file(folder / "depth" / f"{color.stem}.png", color)
        pose = pose_in(required_file(folder / "pose" / f"{color.stem}.txt", color)) if has_poses else np.eye(4)
        if pose is None:
            left_out += 1
        else:
            frames.append(RecordedFrame(color, depth, time_ns, pose))
    matrices: dict[str, NDArray[np.float64]] = {}
    for name in ("intrinsic_color", "intrinsic_depth", "extrinsic_color", "extrinsic_depth"):
        path = folder / "intrinsic" / f"{name}.txt"
        if path.is_file():
            matrices[name] = numbers_in(path, 16, "a 4x4 matrix").reshape(4, 4)
    color_T_depth = None
    if "extrinsic_color" in matrices and "extrinsic_depth" in matrices:
        # Each extrinsic matrix maps points of its camera to a common frame.
        to_common = [rigid_pose(matrices[f"extrinsic_{n}"], f"extrinsic_{n}.txt") for n in ("color", "depth")]
        color_T_depth = invert_transform(to_common[0]) @ to_common[1]
    return FoundFrames(
        "ScanNet",
        frames,
        _MILLIMETERS_PER_METER,
        None,
        matrices.get("intrinsic_color"),
        matrices.get("intrinsic_depth"),
        color_T_depth,
        left_out,
        has_poses,
    )


def read_bop(folder: Path, rate_hz: float | None) -> FoundFrames:
    """Read rgb/, depth/ and scene_camera.json, as of the BOP data sets."""
    path = folder / "scene_camera.json"
    try:
        described: dict[int, Any] = {int(k): v for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(f"{path}: {error}, expected an object of cameras by image number") from error
    colors = numbered_images(folder / "rgb") if (folder / "rgb").is_dir() else {}
    depths = numbered_images(folder / "depth") if (folder / "depth").is_dir() else {}
    if not colors:
        raise SourceError(f"{folder / 'rgb'}: no images, expected 000000.png and so on")
    numbers = sorted(colors)
    frames = []
    has_poses = all("cam_R_w2c" in (described.get(number) or {}) for number in numbers)
    matrix: NDArray[np.float64] | None = None
    for number, time_ns in zip(numbers, frame_times_ns(numbers, rate_hz), strict=True):
        color = colors[number]
        depth = depths.get(number) or required_file(folder / "depth" / f"{color.stem}.png", color)
        entry = described.get(number)
        where = f"{path}: {number}"
        try:
            if entry is None:
                raise KeyError(number)
            k = np.array(entry["cam_K"], dtype=np.float64).reshape(3, 3)
            scale = float(entry.get("depth_scale", 1.0))
            pose = np.eye(4)
            if has_poses:
                camera_T_world = np.eye(4)
                camera_T_world[:3, :3] = np.array(entry["cam_R_w2c"], dtype=np.float64).reshape(3, 3)
                camera_T_world[:3, 3] = 1e-3 * np.array(entry["cam_t_w2c"], dtype=np.float64)  # BOP gives mm
                if not np.isfinite(camera_T_world).all():
                    raise ValueError("cam_R_w2c or cam_t_w2c is not finite")
                pose = invert_transform(rigid_pose(camera_T_world, where))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"{where}: {error!r}, expected cam_K of 9 numbers and depth_scale, and of poses 9 and 3 finite numbers"
            ) from error
        if not scale > 0.0:
            raise SourceError(f"{where}: depth_scale {scale:g}, expected millimeters per unit > 0")
        matrix = k if matrix is None else matrix
        camera = None if np.array_equal(k, matrix) else camera_of_matrix(folder, image_size(depth), k)
        frames.append(RecordedFrame(color, depth, time_ns, pose, camera, _MILLIMETERS_PER_METER / scale))
    return FoundFrames("BOP", frames, _MILLIMETERS_PER_METER, color_matrix=matrix, has_poses=has_poses)


def read_single_frame(folder: Path, rate_hz: float | None) -> FoundFrames:
    """Read one frame: color.png (or .jpg) and depth.png, with pose.txt where it exists; ``rate_hz`` is not used."""
    color = single_image(folder, "color")
    assert color is not None
    depth = required_file(folder / "depth.png", color)
    pose_file = folder / "pose.txt"
    pose = pose_in(pose_file) if pose_file.is_file() else None
    frame = RecordedFrame(color, depth, 0, np.eye(4) if pose is None else pose)
    return FoundFrames("a single frame", [frame], _MILLIMETERS_PER_METER, has_poses=pose is not None)


def read_tum(folder: Path, rate_hz: float | None) -> FoundFrames:
    """Read rgb.txt, depth.txt and groundtruth.txt, as of the TUM RGB-D benchmark."""
    colors, depths = tum_table(folder / "rgb.txt", 2), tum_table(folder / "depth.txt", 2)
    has_poses = (folder / "groundtruth.txt").is_file()
    poses = np.array(tum_table(folder / "groundtruth.txt", 8), dtype=np.float64) if has_poses else None
    depth_times = np.array([float(row[0]) for row in depths])
    frames: list[RecordedFrame] = []
    left_out, first_s = 0, None
    for stamp, name in colors:
        seconds = float(stamp)
        nearest = int(np.argmin(np.abs(depth_times - seconds)))
        apart = abs(depth_times[nearest] - seconds)
        world_T_camera = np.eye(4)
        if poses is not None:
            row = poses[int(np.argmin(np.abs(poses[:, 0] - seconds)))]
            apart = max(apart, abs(row[0] - seconds)) if np.isfinite(row).all() else np.inf
            world_T_camera = pose_matrix(row[1:4], row[4:8]) if np.isfinite(row).all() else world_T_camera
        if apart > _TUM_MAX_DIFFERENCE_S:
            left_out += 1
            continue
        color, depth = folder / name, folder / depths[nearest][1]
        for path in (color, depth):
            if not path.is_file():
                raise SourceError(f"{path}: no such file, though its list names it")
        first_s = seconds if first_s is None else first_s
        time_s = len(frames) / rate_hz if rate_hz else seconds - first_s
        frames.append(RecordedFrame(color, depth, round(time_s * NANOSECONDS), world_T_camera))
    if not frames:
        what = "depth and pose" if has_poses else "depth"
        raise SourceError(f"{folder}: no color image has {what} within {_TUM_MAX_DIFFERENCE_S:g} s")
    return FoundFrames("TUM", frames, _TUM_DEPTH_SCALE, _TUM_CAMERA, left_out=left_out, has_poses=has_poses)
