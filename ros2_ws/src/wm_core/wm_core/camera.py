"""Pinhole camera model (the intrinsics of sensor_msgs/CameraInfo, rectified images)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Its optical frame is that of REP-103: z forward, x right, y down.

    Attributes:
        width, height: of the image [pixels].
        fx, fy: focal lengths [pixels]; cx, cy: principal point [pixels], pixel centers at integer coordinates.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera size: got {self.width}x{self.height}, expected at least 1x1")
        values = (self.fx, self.fy, self.cx, self.cy)
        if not np.isfinite(values).all() or self.fx <= 0.0 or self.fy <= 0.0:
            raise ValueError(f"camera intrinsics: got fx, fy, cx, cy = {values}, expected finite with fx, fy > 0")

    @classmethod
    def from_vertical_field_of_view(cls, width: int, height: int, fov_y_rad: float) -> Camera:
        """A camera of a vertical field of view [rad], with square pixels and its principal point at the center."""
        focal = 0.5 * height / np.tan(0.5 * fov_y_rad)
        return cls(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The 3x3 intrinsic matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def scaled(self, factor: float) -> Camera:
        """The same view at another resolution (pixel centers at integer coordinates)."""
        width, height = max(1, round(self.width * factor)), max(1, round(self.height * factor))
        sx, sy = width / self.width, height / self.height
        return Camera(width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5)

    def back_project(self, depth_m: ArrayLike, stride: int = 1) -> NDArray[np.float32]:
        """Organized points (H', W', 3) [m, optical frame] of every ``stride``-th pixel of a depth image (H, W) [m].

        Pixels without depth (not finite, or <= 0) become NaN.

        Raises:
            ValueError: the depth image is not of this camera's size.
        """
        depth = np.asarray(depth_m, dtype=np.float32)
        if depth.shape != (self.height, self.width):
            raise ValueError(f"depth image: got shape {depth.shape}, expected ({self.height}, {self.width})")
        depth = depth[::stride, ::stride]
        z = np.where(np.isfinite(depth) & (depth > 0.0), depth, np.float32(np.nan))
        u = np.arange(0, self.width, stride, dtype=np.float32)
        v = np.arange(0, self.height, stride, dtype=np.float32)
        x = (u - np.float32(self.cx)) / np.float32(self.fx)
        y = (v - np.float32(self.cy)) / np.float32(self.fy)
        return np.stack([z * x[None, :], z * y[:, None], z], axis=-1)

    def project(self, points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel coordinates (P, 2) as (u, v) and depths (P,) [m] of points (P, 3) [m, optical frame].

        Points at or behind the camera get NaN pixels.
        """
        p = np.asarray(points, dtype=np.float64)
        z = p[:, 2]
        safe = np.where(z > 1e-6, z, np.nan)
        return np.stack([self.fx * p[:, 0] / safe + self.cx, self.fy * p[:, 1] / safe + self.cy], axis=-1), z

    def nearest_pixels(
        self, points: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Rows (P,) and columns (P,) of the pixels that points (P, 3) [m, optical frame] fall on, depths (P,) [m], and
        whether each is in the image (P,); rows and columns of those outside are 0."""
        pixels, depth = self.project(points)
        with np.errstate(invalid="ignore"):
            inside = (pixels > -0.5).all(axis=1) & (pixels < np.array([self.width, self.height]) - 0.5).all(axis=1)
        inside &= depth > 0.0
        nearest = np.round(np.where(inside[:, None], pixels, 0.0)).astype(np.int64)
        return nearest[:, 1], nearest[:, 0], depth, inside
