"""Folder layouts of RGB-D recordings.

- 7-Scenes and tsdf-fusion: ``frame-N.color.png`` or ``.jpg``, ``frame-N.depth.png`` (16-bit mm, 65535 invalid),
  ``frame-N.pose.txt`` (4x4 camera to world, meters), ``camera-intrinsics.txt`` (3x3; 7-Scenes has none);
- ScanNet as its .sens reader writes it: ``color/N.jpg``, ``depth/N.png``, ``pose/N.txt``, ``intrinsic/*.txt`` (4x4);
- TUM: ``rgb.txt``, ``depth.txt`` (16 bits, 5000 per meter), ``groundtruth.txt``;
- BOP: ``rgb/N.png``, ``depth/N.png``, ``scene_camera.json`` (cam_K, depth_scale, cam_R_w2c, cam_t_w2c);
- one frame: ``color.png``, ``depth.png``, ``camera-intrinsics.txt``.

``camera.yaml`` with fx, fy, cx, cy and depth_scale overrides the intrinsics of any of them. Without poses a camera that
stands still is assumed. Color may be larger than depth where it shows the same view, or where both are calibrated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.recording import RecordedFrame, Recording
from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.rotations import matrix_to_quaternion
from wm_perception.lifting.registration import DepthToColor
from wm_ros.stamps import NANOSECONDS

_MILLIMETERS_PER_METER = 1000.0
_TUM_DEPTH_SCALE = 5000.0
_TUM_CAMERA = (525.0, 525.0, 319.5, 239.5)
"""The ROS default that the TUM RGB-D benchmark names for its registered images (640x480)."""
_SEVEN_SCENES_CAMERA = (585.0, 585.0, 320.0, 240.0)
"""The Kinect depth camera that the 7-Scenes page names (640x480)."""
_TUM_MAX_DIFFERENCE_S = 0.02
_ORTHONORMAL_TOLERANCE = 0.02
_STILL_RATE_HZ = 15.0
_STILL_S = 3.0
"""One frame is shown as a clip: perception believes what it has seen several times."""
_IMAGES = ("jpg", "jpeg", "png")


@dataclass(frozen=True)
class _Found:
    """What a layout's reader found: frames without cameras, intrinsics if it has any."""

    layout: str
    frames: list[RecordedFrame]
    depth_scale: float
    default_camera: tuple[float, ...] | None = None
    color_matrix: NDArray[np.float64] | None = None
    depth_matrix: NDArray[np.float64] | None = None
    color_T_depth: NDArray[np.float64] | None = None
    left_out: int = 0
    has_poses: bool = True


def open_folder(folder: str | Path, rate_hz: float | None = None) -> Recording:
    """Read and check a folder of RGB-D frames.

    ``rate_hz``: frames follow each other at this rate; None: the folder's own times (numbers in names at 30 Hz).

    Raises:
        SourceError: names the file and what is wrong with it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SourceError(f"{path}: no such folder")
    if rate_hz is not None and not 0.1 <= rate_hz <= 1000.0:
        raise SourceError(f"rate: got {rate_hz:g} Hz, expected 0.1 to 1000 Hz")
    if (path / "rgb.txt").is_file():
        found = _tum(path, rate_hz)
    elif any(path.glob("frame-*.color.*")):
        found = _numbered(path, rate_hz)
    elif (path / "scene_camera.json").is_file():
        found = _bop(path, rate_hz)
    elif (path / "color").is_dir() and (path / "depth").is_dir():
        found = _scannet(path, rate_hz)
    elif _single(path, "color") is not None:
        found = _one_frame(path, rate_hz)
    else:
        raise SourceError(_no_layout(path))
    recording = _recording(path, found, rate_hz)
    recording.load(0)
    if recording.color_is_larger:
        recording.load(len(recording.frames) - 1)  # one image of another size is no layout
    return recording


def _no_layout(path: Path) -> str:
    inside = sorted(p.name for p in path.iterdir() if p.is_dir() and any(p.glob("frame-*.color.*")))
    if inside:
        return f"{path}: holds sequences; expected one of them, e.g. {path / inside[0]}"
    if any(path.glob("*.sens")):
        return (
            f"{path}: holds a .sens file; expected color/, depth/, pose/, intrinsic/, as ScanNet's reader writes them"
        )
    return (
        f"{path}: expected frame-N.color.jpg or .png with .depth.png (7-Scenes), color/ and depth/ (ScanNet), rgb.txt "
        "(TUM), scene_camera.json (BOP), or color.png and depth.png"
    )


def _recording(folder: Path, found: _Found, rate_hz: float | None) -> Recording:
    """With cameras, and color's relation to depth."""
    if not found.frames:
        raise SourceError(f"{folder}: {found.left_out} frames and none with a finite pose")
    first = found.frames[0]
    size, color_size = _size(first.depth), _size(first.color)
    notes: list[str] = []
    given, scale = _described(folder)
    matrix = found.color_matrix if found.color_matrix is not None else found.depth_matrix
    if given is None and matrix is None and found.default_camera is None:
        raise SourceError(f"{folder / 'camera-intrinsics.txt'}: no such file, expected a 3x3 intrinsic matrix")
    if given is None and matrix is None and found.default_camera is not None:
        if size != (640, 480):
            raise SourceError(
                f"{folder / 'camera-intrinsics.txt'}: no such file, expected a 3x3 intrinsic matrix (images are "
                f"{size[0]}x{size[1]}, and the layout's own intrinsics are for 640x480)"
            )
        fx, fy, cx, cy = found.default_camera
        given = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        notes.append(f"no intrinsics in the folder: those of the layout are taken (fx {fx:g}; camera-intrinsics.txt)")
    if not found.has_poses:
        notes.append("no poses in the folder: a camera that stands still is assumed")
    registration, larger = None, False
    if given is None and found.color_matrix is not None and found.depth_matrix is not None:
        # Both are calibrated.
        camera = _camera(folder, size, found.depth_matrix)
        lens = _camera(folder, color_size, found.color_matrix)
        moved = found.color_T_depth if found.color_T_depth is not None else np.eye(4)
        if size != color_size or not np.allclose(found.color_matrix, found.depth_matrix, atol=0.5):
            registration = DepthToColor(lens, moved[:3, 3], rotation=moved[:3, :3])
            notes.append(
                f"color {color_size[0]}x{color_size[1]} (fx {lens.fx:.0f}) is brought onto depth {size[0]}x{size[1]} "
                f"(fx {camera.fx:.0f}) by the folder's calibration"
            )
    else:
        known = given if given is not None else matrix
        assert known is not None
        larger = size != color_size
        if larger and abs(color_size[0] * size[1] - color_size[1] * size[0]) > max(color_size):
            raise SourceError(
                f"{first.color}: {color_size[0]}x{color_size[1]}, expected {size[0]}x{size[1]} as {first.depth.name}, "
                "or a larger image of the same shape"
            )
        if larger and color_size[0] < size[0]:
            raise SourceError(
                f"{first.depth}: {size[0]}x{size[1]}, expected {color_size[0]}x{color_size[1]} as {first.color.name}"
            )
        # The matrix is of the image whose middle its principal point is nearer to.
        of_color = larger and abs(known[0, 2] - 0.5 * color_size[0]) < abs(known[0, 2] - 0.5 * size[0])
        if of_color:
            known = _scaled(known, size[0] / color_size[0], size[1] / color_size[1])
        camera = _camera(folder, size, known)
        if larger:
            whose = "color's, scaled" if of_color else "depth's"
            notes.append(
                f"color {color_size[0]}x{color_size[1]} is scaled to depth {size[0]}x{size[1]}; the intrinsics are "
                f"taken as {whose} (fx {camera.fx:.0f})"
            )
    frames = found.frames
    if _described(folder)[0] is not None:
        frames = [replace(f, camera=None, depth_scale=None if scale else f.depth_scale) for f in frames]
    if len(frames) == 1:
        rate_hz = rate_hz or _STILL_RATE_HZ
        count = max(2, round(_STILL_S * rate_hz))
        frames = [replace(frames[0], time_ns=round(i * NANOSECONDS / rate_hz)) for i in range(count)]
        notes.append(f"one frame: shown {count} times at {rate_hz:g} Hz")
    return Recording(
        folder,
        tuple(frames),
        camera,
        scale or found.depth_scale,
        found.layout,
        found.left_out,
        found.has_poses,
        registration,
        larger and registration is None,
        tuple(notes),
    )


# Files.


def _numbers(path: Path, count: int, what: str) -> NDArray[np.float64]:
    try:
        values = np.array(path.read_text().split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}, expected {what}") from error
    if len(values) != count:
        raise SourceError(f"{path}: {len(values)} numbers, expected {count} ({what})")
    return values


def _pose(path: Path) -> NDArray[np.float64] | None:
    """Camera to world; None where tracking was lost (ScanNet writes -inf)."""
    pose = _numbers(path, 16, "a 4x4 camera-to-world transform").reshape(4, 4)
    return _rigid(pose, str(path)) if np.isfinite(pose).all() else None


def _rigid(pose: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    rotation = pose[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > _ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0.0 or not np.allclose(pose[3], [0, 0, 0, 1]):
        raise SourceError(f"{where}: not a rigid transform (rotation is off by {error:.3f}), expected camera to world")
    return pose_matrix(pose[:3, 3], matrix_to_quaternion(rotation))


def _size(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceError(f"{path}: does not decode, expected an image")
    return int(image.shape[1]), int(image.shape[0])


def _described(folder: Path) -> tuple[NDArray[np.float64] | None, float | None]:
    """Intrinsic matrix (3, 3) and depth scale of camera.yaml, else of camera-intrinsics.txt; None: not said."""
    text, described = folder / "camera-intrinsics.txt", folder / "camera.yaml"
    if described.is_file():
        import yaml

        try:
            values = yaml.safe_load(described.read_text())
            fx, fy, cx, cy = (float(values[name]) for name in ("fx", "fy", "cx", "cy"))
            scale = float(values["depth_scale"]) if "depth_scale" in values else None
        except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            raise SourceError(f"{described}: {error!r}, expected fx, fy, cx, cy and optionally depth_scale") from error
        if scale is not None and not scale > 0.0:
            raise SourceError(f"{described}: depth_scale {scale:g}, expected units per meter > 0")
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), scale
    if text.is_file():
        return _numbers(text, 9, "a 3x3 intrinsic matrix").reshape(3, 3), None
    return None, None


def _camera(folder: Path, size: tuple[int, int], matrix: NDArray[np.float64]) -> Camera:
    try:
        return Camera(*size, float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))
    except ValueError as error:
        path = next((folder / n for n in ("camera.yaml", "camera-intrinsics.txt") if (folder / n).is_file()), folder)
        raise SourceError(f"{path}: {error}") from error


def _scaled(matrix: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """Intrinsics of the same view at another size; pixel centers are at whole numbers."""
    scaled = matrix.copy()
    scaled[0, 0], scaled[1, 1] = matrix[0, 0] * x, matrix[1, 1] * y
    scaled[0, 2], scaled[1, 2] = (matrix[0, 2] + 0.5) * x - 0.5, (matrix[1, 2] + 0.5) * y - 0.5
    return scaled


def _images(folder: Path) -> dict[int, Path]:
    """Files N.png or N.jpg of a folder, by number."""
    return {int(p.stem): p for p in sorted(folder.iterdir()) if p.stem.isdigit() and p.suffix[1:].lower() in _IMAGES}


def _single(folder: Path, stem: str) -> Path | None:
    return next((folder / f"{stem}.{e}" for e in _IMAGES if (folder / f"{stem}.{e}").is_file()), None)


def _there(path: Path, beside: Path) -> Path:
    if not path.is_file():
        raise SourceError(f"{path}: no such file, expected one beside {beside.name}")
    return path


def _times(numbers: list[int], rate_hz: float | None) -> list[int]:
    """[ns] of frames of these numbers. Numbers count camera frames: a thinned recording keeps its pace."""
    return [
        round((order / rate_hz if rate_hz else (number - numbers[0]) / 30.0) * NANOSECONDS)
        for order, number in enumerate(numbers)
    ]


# Layouts.


def _numbered(folder: Path, rate_hz: float | None) -> _Found:
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
    for number, time_ns in zip(numbers, _times(numbers, rate_hz), strict=True):
        color = colors[number]
        stem = color.name.split(".")[0]
        depth = _there(folder / f"{stem}.depth.png", color)
        pose = _pose(_there(folder / f"{stem}.pose.txt", color)) if has_poses else np.eye(4)
        if pose is None:
            left_out += 1
        else:
            frames.append(RecordedFrame(color, depth, time_ns, pose))
    return _Found(
        "7-Scenes",
        frames,
        _MILLIMETERS_PER_METER,
        _SEVEN_SCENES_CAMERA if has_poses else None,
        left_out=left_out,
        has_poses=has_poses,
    )


def _scannet(folder: Path, rate_hz: float | None) -> _Found:
    colors, depths = _images(folder / "color"), _images(folder / "depth")
    if not colors:
        raise SourceError(f"{folder / 'color'}: no images, expected 0.jpg and so on")
    has_poses = (folder / "pose").is_dir() and any((folder / "pose").glob("*.txt"))
    frames, left_out = [], 0
    numbers = sorted(colors)
    for number, time_ns in zip(numbers, _times(numbers, rate_hz), strict=True):
        color = colors[number]
        depth = depths.get(number) or _there(folder / "depth" / f"{color.stem}.png", color)
        pose = _pose(_there(folder / "pose" / f"{color.stem}.txt", color)) if has_poses else np.eye(4)
        if pose is None:
            left_out += 1
        else:
            frames.append(RecordedFrame(color, depth, time_ns, pose))
    matrices: dict[str, NDArray[np.float64]] = {}
    for name in ("intrinsic_color", "intrinsic_depth", "extrinsic_color", "extrinsic_depth"):
        path = folder / "intrinsic" / f"{name}.txt"
        if path.is_file():
            matrices[name] = _numbers(path, 16, "a 4x4 matrix").reshape(4, 4)
    color_T_depth = None
    if "extrinsic_color" in matrices and "extrinsic_depth" in matrices:
        # Each takes its camera into a common frame.
        to_common = [_rigid(matrices[f"extrinsic_{n}"], f"extrinsic_{n}.txt") for n in ("color", "depth")]
        color_T_depth = invert_transform(to_common[0]) @ to_common[1]
    return _Found(
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


def _bop(folder: Path, rate_hz: float | None) -> _Found:
    path = folder / "scene_camera.json"
    try:
        described: dict[int, Any] = {int(k): v for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(f"{path}: {error}, expected an object of cameras by image number") from error
    colors = _images(folder / "rgb") if (folder / "rgb").is_dir() else {}
    depths = _images(folder / "depth") if (folder / "depth").is_dir() else {}
    if not colors:
        raise SourceError(f"{folder / 'rgb'}: no images, expected 000000.png and so on")
    numbers = sorted(colors)
    frames = []
    has_poses = all("cam_R_w2c" in (described.get(number) or {}) for number in numbers)
    matrix: NDArray[np.float64] | None = None
    for number, time_ns in zip(numbers, _times(numbers, rate_hz), strict=True):
        color = colors[number]
        depth = depths.get(number) or _there(folder / "depth" / f"{color.stem}.png", color)
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
                camera_T_world[:3, 3] = 1e-3 * np.array(entry["cam_t_w2c"], dtype=np.float64)  # BOP counts in mm
                if not np.isfinite(camera_T_world).all():
                    raise ValueError("cam_R_w2c or cam_t_w2c is not finite")
                pose = invert_transform(_rigid(camera_T_world, where))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"{where}: {error!r}, expected cam_K of 9 numbers and depth_scale, and of poses 9 and 3 finite numbers"
            ) from error
        if not scale > 0.0:
            raise SourceError(f"{where}: depth_scale {scale:g}, expected millimeters per unit > 0")
        matrix = k if matrix is None else matrix
        camera = None if np.array_equal(k, matrix) else _camera(folder, _size(depth), k)
        frames.append(RecordedFrame(color, depth, time_ns, pose, camera, _MILLIMETERS_PER_METER / scale))
    return _Found("BOP", frames, _MILLIMETERS_PER_METER, color_matrix=matrix, has_poses=has_poses)


def _one_frame(folder: Path, rate_hz: float | None) -> _Found:
    color = _single(folder, "color")
    assert color is not None
    depth = _there(folder / "depth.png", color)
    pose_file = folder / "pose.txt"
    pose = _pose(pose_file) if pose_file.is_file() else None
    frame = RecordedFrame(color, depth, 0, np.eye(4) if pose is None else pose)
    return _Found("a single frame", [frame], _MILLIMETERS_PER_METER, has_poses=pose is not None)


def _table(path: Path, columns: int) -> list[list[str]]:
    if not path.is_file():
        raise SourceError(f"{path}: no such file, expected a TUM list")
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}, expected a TUM list") from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            row = line.replace(",", " ").split()
            try:
                [float(v) for v in (row[:1] if columns == 2 else row)]
            except ValueError:
                row = []
            if len(row) != columns:
                raise SourceError(f"{path}:{number}: {line[:60]!r}, expected {columns} columns, time first")
            rows.append(row)
    if not rows:
        raise SourceError(f"{path}: no rows")
    return sorted(rows, key=lambda row: float(row[0]))


def _tum(folder: Path, rate_hz: float | None) -> _Found:
    colors, depths = _table(folder / "rgb.txt", 2), _table(folder / "depth.txt", 2)
    has_poses = (folder / "groundtruth.txt").is_file()
    poses = np.array(_table(folder / "groundtruth.txt", 8), dtype=np.float64) if has_poses else None
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
    return _Found("TUM", frames, _TUM_DEPTH_SCALE, _TUM_CAMERA, left_out=left_out, has_poses=has_poses)
