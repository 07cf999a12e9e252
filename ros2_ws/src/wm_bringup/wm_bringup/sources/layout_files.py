"""Reads the files of RGB-D folders: numbers, poses, intrinsics, numbered images, TUM lists.

Every function raises a ``SourceError`` that names the file where it cannot be read or has an unexpected content.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_bringup.sources.playback import SourceError
from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.rotations import matrix_to_quaternion
from wm_ros.stamps import NANOSECONDS

_ORTHONORMAL_TOLERANCE = 0.02
"""Largest absolute entry of R R^T - I of a rotation R. Files have three or four digits, and a matrix
with scale or projection exceeds it by far. A larger tolerance accepts matrices that are no rotations."""
_IMAGES = ("jpg", "jpeg", "png")
"""Endings of image files."""


def numbers_in(path: Path, count: int, what: str) -> NDArray[np.float64]:
    """The numbers (count,) of a text file, separated by white space; ``what`` names them in the error."""
    try:
        values = np.array(path.read_text().split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}, expected {what}") from error
    if len(values) != count:
        raise SourceError(f"{path}: {len(values)} numbers, expected {count} ({what})")
    return values


def pose_in(path: Path) -> NDArray[np.float64] | None:
    """The camera-to-world pose (4, 4) [m] of a text file; None where tracking was lost (ScanNet writes -inf)."""
    pose = numbers_in(path, 16, "a 4x4 camera-to-world transform").reshape(4, 4)
    return rigid_pose(pose, str(path)) if np.isfinite(pose).all() else None


def rigid_pose(pose: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """A pose (4, 4) [m] with its rotation made orthonormal; ``where`` names the file in the error."""
    rotation = pose[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > _ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0.0 or not np.allclose(pose[3], [0, 0, 0, 1]):
        raise SourceError(f"{where}: not a rigid transform (rotation is off by {error:.3f}), expected camera to world")
    return pose_matrix(pose[:3, 3], matrix_to_quaternion(rotation))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file [pixels]."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceError(f"{path}: does not decode, expected an image")
    return int(image.shape[1]), int(image.shape[0])


def described_camera(folder: Path) -> tuple[NDArray[np.float64] | None, float | None]:
    """Intrinsic matrix (3, 3) [pixels] and depth scale [units per meter] of camera.yaml or camera-intrinsics.txt.

    camera.yaml has precedence. The value that the file does not give is None; both are None without a file.
    """
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
        return numbers_in(text, 9, "a 3x3 intrinsic matrix").reshape(3, 3), None
    return None, None


def camera_of_matrix(folder: Path, size: tuple[int, int], matrix: NDArray[np.float64]) -> Camera:
    """A camera of this size [pixels] with an intrinsic matrix (3, 3) or (4, 4) [pixels]."""
    try:
        return Camera(*size, float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))
    except ValueError as error:
        path = next((folder / n for n in ("camera.yaml", "camera-intrinsics.txt") if (folder / n).is_file()), folder)
        raise SourceError(f"{path}: {error}") from error


def scaled_matrix(matrix: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """The intrinsic matrix (3, 3) of the same view at ``x`` times the width and ``y`` times the height.

    Pixel centers have integer coordinates, so the image begins at -0.5.
    """
    scaled = matrix.copy()
    scaled[0, 0], scaled[1, 1] = matrix[0, 0] * x, matrix[1, 1] * y
    scaled[0, 2], scaled[1, 2] = (matrix[0, 2] + 0.5) * x - 0.5, (matrix[1, 2] + 0.5) * y - 0.5
    return scaled


def numbered_images(folder: Path) -> dict[int, Path]:
    """The files N.png, N.jpg and N.jpeg of a folder by their number N."""
    return {int(p.stem): p for p in sorted(folder.iterdir()) if p.stem.isdigit() and p.suffix[1:].lower() in _IMAGES}


def single_image(folder: Path, stem: str) -> Path | None:
    """The first of ``stem``.jpg, .jpeg and .png that exists in a folder; None: none of them exists."""
    return next((folder / f"{stem}.{e}" for e in _IMAGES if (folder / f"{stem}.{e}").is_file()), None)


def required_file(path: Path, beside: Path) -> Path:
    """The path itself, where it is a file; ``beside`` is the image that it belongs to, named in the error."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file, expected one beside {beside.name}")
    return path


def frame_times_ns(numbers: list[int], rate_hz: float | None) -> list[int]:
    """Times [ns] of the frames of these numbers, from 0.

    ``rate_hz`` gives the frames this rate. With None the numbers count camera frames at 30 Hz, so that a recording
    with left-out frames keeps its speed.
    """
    return [
        round((order / rate_hz if rate_hz else (number - numbers[0]) / 30.0) * NANOSECONDS)
        for order, number in enumerate(numbers)
    ]


def tum_table(path: Path, columns: int) -> list[list[str]]:
    """Rows of a list of the TUM RGB-D benchmark, ``columns`` texts each, sorted by the time in the first column."""
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
