"""Lenses that distort, and the rectification of their images to the pinhole camera that all other code assumes.

The models are those of sensor_msgs/CameraInfo: plumb_bob (Brown 1966), rational_polynomial (OpenCV's), equidistant
(Kannala and Brandt 2006, OpenCV's fisheye).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera

MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5, 8, 12, 14),
    "rational_polynomial": (4, 5, 8, 12, 14),
    "equidistant": (4,),
    "fisheye": (4,),
}
"""Distortion models, and how many coefficients each may have."""

_FISHEYE = ("equidistant", "fisheye")
_ONE_SURFACE = np.float32(0.01)
"""Depths that differ by less than this part are interpolated: a surface at 80 degrees to a lens of 500 px."""
_UNMOVED_PX = 0.05
"""Shift [pixels] up to which images are left as they are: less than interpolation blurs. Larger skips weak lenses."""
_SQUARE = np.ones((2, 2), np.uint8)


@dataclass(frozen=True)
class Lens:
    """A calibrated camera at the size of its images.

    Attributes:
        raw: intrinsics K of the sensor's images.
        rectified: intrinsics of the pinhole image (P).
        model: one of ``MODELS``; coefficients: D, empty without distortion.
        rotation: (9,) row-major, from the sensor's to the rectified optical frame (R); not the identity for stereo.
    """

    raw: Camera
    rectified: Camera
    model: str = "plumb_bob"
    coefficients: tuple[float, ...] = ()
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.coefficients:
            return
        if self.model not in MODELS:
            raise ValueError(f"distortion model: got {self.model!r}, expected one of {', '.join(MODELS)}")
        counts = MODELS[self.model]
        if len(self.coefficients) not in counts:
            expected = " or ".join(str(n) for n in counts)
            raise ValueError(f"distortion of {self.model}: got {len(self.coefficients)} coefficients, not {expected}")
        if not np.isfinite(self.coefficients).all():
            raise ValueError(f"distortion of {self.model}: got {self.coefficients}, expected finite numbers")

    @property
    def distorts(self) -> bool:
        """Whether raw images differ from rectified ones by more than their intrinsics."""
        return any(abs(c) > 1e-9 for c in self.coefficients)

    @property
    def turned(self) -> bool:
        """Whether the rectified optical frame is turned against the sensor's (stereo)."""
        return bool(np.abs(np.reshape(self.rotation, (3, 3)) - np.eye(3)).max() > 1e-3)

    def distort(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw pixels (P, 2) of points (P, 3) [m, the sensor's optical frame, z > 0]."""
        d = np.asarray(self.coefficients if self.coefficients else (0.0,) * 4, np.float64)
        zero = np.zeros(3)
        p = np.asarray(points, np.float64).reshape(-1, 1, 3)
        if self.model in _FISHEYE:
            pixels, _ = cv2.fisheye.projectPoints(p, zero, zero, self.raw.matrix, d)
        else:
            pixels, _ = cv2.projectPoints(p, zero, zero, self.raw.matrix, d)
        return np.asarray(pixels, np.float64).reshape(-1, 2)


class Rectifier:
    """Rectifies raw images of a lens; computes the maps once.

    Args:
        lens: of the images.
        turn: rotate into the rectified optical frame of a stereo camera, too; else the sensor's own frame is kept, with
            K as the intrinsics of the result where the two frames differ.

    Attributes:
        camera: intrinsics of the result.
        identity: whether images are left as they are.
    """

    def __init__(self, lens: Lens, turn: bool = False) -> None:
        self.lens = lens
        self.turn = turn and lens.turned
        self.camera = lens.rectified if self.turn or not lens.turned else lens.raw
        c = self.camera
        u, v = np.meshgrid(np.arange(c.width, dtype=np.float64), np.arange(c.height, dtype=np.float64))
        rays = np.stack([(u - c.cx) / c.fx, (v - c.cy) / c.fy, np.ones_like(u)], axis=-1).reshape(-1, 3)
        if self.turn:
            rays = rays @ np.reshape(lens.rotation, (3, 3))  # the inverse, as row vectors
        pixels = lens.distort(rays).reshape(c.height, c.width, 2)
        moved = np.abs(pixels - np.stack([u, v], axis=-1)).max()
        self.identity = bool(moved < _UNMOVED_PX)
        # Beyond the angles that it was fitted to, a polynomial decreases: far rays would map into the image again.
        beyond = (rays[:, 2] <= 0.0) | (np.hypot(rays[:, 0], rays[:, 1]) > _reach(lens) * np.abs(rays[:, 2]))
        pixels[beyond.reshape(c.height, c.width)] = -1e4
        pixels = np.clip(pixels, -1e4, 1e4).astype(np.float32)
        self._whole, self._part = cv2.convertMaps(pixels, None, cv2.CV_16SC2)
        self._nearest = np.rint(pixels).astype(np.int16)
        self._z = (1.0 / rays[:, 2]).reshape(c.height, c.width).astype(np.float32) if self.turn else None

    def color(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Color (H, W, 3), interpolated; black where the lens saw nothing."""
        if self.identity:
            return image
        return np.asarray(cv2.remap(image, self._whole, self._part, cv2.INTER_LINEAR), np.uint8)

    def depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth (H, W) [m]: interpolated within a surface, never across an edge or a hole; 0 where nothing was seen."""
        if self.identity:
            return depth_m
        low = cv2.erode(depth_m, _SQUARE, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT, borderValue=0.0)
        high = cv2.dilate(depth_m, _SQUARE, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT, borderValue=0.0)
        smooth = ((low > 0.0) & (high - low < _ONE_SURFACE * low)).view(np.uint8)
        smooth = cv2.remap(smooth, self._whole, None, cv2.INTER_NEAREST)
        linear = cv2.remap(depth_m, self._whole, self._part, cv2.INTER_LINEAR)
        nearest = cv2.remap(depth_m, self._nearest, None, cv2.INTER_NEAREST)
        depth = np.where(smooth > 0, linear, nearest)
        return depth if self._z is None else np.maximum(depth * self._z, np.float32(0.0))


def _reach(lens: Lens) -> float:
    """Tangent of the angle up to which the lens's distance from the center grows with the angle."""
    d = np.zeros(14)
    d[: len(lens.coefficients)] = lens.coefficients
    if lens.model in _FISHEYE:
        angle = np.linspace(0.0, 0.5 * np.pi - 1e-3, 4096)
        squared = angle**2
        radius = angle * (1.0 + squared * (d[0] + squared * (d[1] + squared * (d[2] + squared * d[3]))))
        tangent = np.tan(angle)
    else:
        tangent = np.linspace(0.0, 10.0, 8192)
        squared = tangent**2
        above = 1.0 + squared * (d[0] + squared * (d[1] + squared * d[4]))
        below = 1.0 + squared * (d[5] + squared * (d[6] + squared * d[7]))
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = tangent * above / below
    falls = np.flatnonzero(~(np.diff(radius) > 0.0))
    return float(tangent[falls[0]]) if len(falls) else float("inf")
