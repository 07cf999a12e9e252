"""Folder layouts of RGB-D recordings.

- 7-Scenes and tsdf-fusion: ``frame-N.color.png`` or ``.jpg``, ``frame-N.depth.png`` (16-bit mm, 65535 invalid),
  ``frame-N.pose.txt`` (4x4 camera to world, meters), ``camera-intrinsics.txt`` (3x3; 7-Scenes has none);
- ScanNet as its .sens reader writes it: ``color/N.jpg``, ``depth/N.png``, ``pose/N.txt``, ``intrinsic/*.txt`` (4x4);
- TUM: ``rgb.txt``, ``depth.txt`` (16 bits, 5000 per meter), ``groundtruth.txt``;
- BOP: ``rgb/N.png``, ``depth/N.png``, ``scene_camera.json`` (cam_K, depth_scale, cam_R_w2c, cam_t_w2c);
- one frame: ``color.png``, ``depth.png``, ``camera-intrinsics.txt``.

``camera.yaml`` with fx, fy, cx, cy [pixels] and depth_scale [units per meter] overrides the intrinsics of any layout.
Without poses the camera is assumed not to move. The color image may be larger than the depth image where it shows the
same view, or where the folder has the calibration of both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from wm_bringup.sources.layout_files import (
    camera_of_matrix,
    described_camera,
    image_size,
    scaled_matrix,
    single_image,
)
from wm_bringup.sources.layout_readers import (
    FoundFrames,
    read_bop,
    read_scannet,
    read_seven_scenes,
    read_single_frame,
    read_tum,
)
from wm_bringup.sources.playback import SourceError
from wm_bringup.sources.recording import Recording
from wm_perception.lifting.registration import DepthToColor
from wm_ros.stamps import NANOSECONDS

_STILL_RATE_HZ = 15.0
"""Rate at which a single frame is repeated [Hz]. A higher rate gives more identical frames in the same time."""
_STILL_S = 3.0
"""Time for which a single frame is repeated [s]. Perception reports an object only after several frames; a longer time
also lets its estimates settle."""


def open_folder(folder: str | Path, rate_hz: float | None = None) -> Recording:
    """Read and check a folder of RGB-D frames.

    Args:
        folder: a folder of one of the layouts above.
        rate_hz: frames per second, 0.1 to 1000; None: the folder's times (file numbers count frames at 30 Hz).

    Raises:
        SourceError: the folder has no known layout, or a file is missing or wrong; the message names it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SourceError(f"{path}: is a file, expected a folder" if path.exists() else f"{path}: no such folder")
    if rate_hz is not None and not 0.1 <= rate_hz <= 1000.0:
        raise SourceError(f"rate: got {rate_hz:g} Hz, expected 0.1 to 1000 Hz")
    if (path / "rgb.txt").is_file():
        found = read_tum(path, rate_hz)
    elif any(path.glob("frame-*.color.*")):
        found = read_seven_scenes(path, rate_hz)
    elif (path / "scene_camera.json").is_file():
        found = read_bop(path, rate_hz)
    elif (path / "color").is_dir() and (path / "depth").is_dir():
        found = read_scannet(path, rate_hz)
    elif single_image(path, "color") is not None:
        found = read_single_frame(path, rate_hz)
    else:
        raise SourceError(_no_layout(path))
    recording = _recording(path, found, rate_hz)
    recording.load(0)
    if recording.color_is_larger:
        recording.load(len(recording.frames) - 1)  # refuses a first image of another size than the rest
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


def _recording(folder: Path, found: FoundFrames, rate_hz: float | None) -> Recording:
    """The recording of the found frames: chooses their intrinsics and the mapping of color to depth."""
    if not found.frames:
        raise SourceError(f"{folder}: {found.left_out} frames and none with a finite pose")
    first = found.frames[0]
    size, color_size = image_size(first.depth), image_size(first.color)
    notes: list[str] = []
    given, scale = described_camera(folder)
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
        # The folder has the calibration of both cameras.
        camera = camera_of_matrix(folder, size, found.depth_matrix)
        lens = camera_of_matrix(folder, color_size, found.color_matrix)
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
        # The matrix belongs to the image whose center is nearer to its principal point.
        of_color = larger and abs(known[0, 2] - 0.5 * color_size[0]) < abs(known[0, 2] - 0.5 * size[0])
        if of_color:
            known = scaled_matrix(known, size[0] / color_size[0], size[1] / color_size[1])
        camera = camera_of_matrix(folder, size, known)
        if larger:
            whose = "color's, scaled" if of_color else "depth's"
            notes.append(
                f"color {color_size[0]}x{color_size[1]} is scaled to depth {size[0]}x{size[1]}; the intrinsics are "
                f"taken as {whose} (fx {camera.fx:.0f})"
            )
    frames = found.frames
    if described_camera(folder)[0] is not None:
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
