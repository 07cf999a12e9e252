"""A depth camera's errors, for structured-light and active stereo sensors at tabletop range."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DepthNoise:
    """Parameters of the noise model; the defaults are those of a Kinect-like sensor.

    Attributes:
        axial_offset_m, axial_gain_per_m, axial_reference_m: standard deviation along the axis,
            offset + gain (z - reference)^2 [m]: 0.0012 + 0.0019 (z - 0.4)^2 of Nguyen, Izadi and Lovell,
            "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012, equation
            2 (surfaces seen at less than 60 degrees).
        correlation_px: neighboring pixels err alike over about this many pixels (block matching windows).
        lateral_px: standard deviation of the pixel that a ray really hits; 0.8 pixels in the same paper.
        baseline_focal_m_px, disparity_step_px: depth is a disparity d = baseline * focal / z, quantized to
            this step (structured light: 0.075 m x 580 px, 1/8 px).
        edge_jump_m, edge_hole_probability, edge_width_px: pixels within this distance of a depth jump are
            lost with this probability (occlusion between projector and camera).
        dropout: fraction of pixels lost anywhere, in small clumps.
        minimum_m, maximum_m: range outside which nothing is measured.
    """

    axial_offset_m: float = 0.0012
    axial_gain_per_m: float = 0.0019
    axial_reference_m: float = 0.4
    correlation_px: float = 1.5
    lateral_px: float = 0.8
    baseline_focal_m_px: float = 0.075 * 580.0
    disparity_step_px: float = 0.125
    edge_jump_m: float = 0.03
    edge_hole_probability: float = 0.6
    edge_width_px: int = 2
    dropout: float = 0.003
    minimum_m: float = 0.25
    maximum_m: float = 6.0

    def axial_std(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standard deviation [m] along the axis at depths (H, W) [m]."""
        return np.float32(self.axial_offset_m) + np.float32(self.axial_gain_per_m) * np.square(
            depth_m - np.float32(self.axial_reference_m)
        )

    def apply(self, depth_m: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Measured depth (H, W) [m], 0 = no measurement, of true depth (H, W) [m]."""
        height, width = depth_m.shape
        depth = depth_m.astype(np.float32, copy=True)
        if self.lateral_px > 0.0:
            shift = rng.normal(0.0, self.lateral_px, (2, height, width))
            rows = np.clip(np.rint(np.arange(height)[:, None] + shift[0]), 0, height - 1).astype(np.intp)
            columns = np.clip(np.rint(np.arange(width) + shift[1]), 0, width - 1).astype(np.intp)
            # Only where it matters: on a smooth surface the lateral error is small against the axial one.
            jump = self._jumps(depth_m, 1)
            depth[jump] = depth_m[rows, columns][jump]
        noise = rng.standard_normal((height, width), dtype=np.float32)
        if self.correlation_px > 0.0:
            noise = cv2.GaussianBlur(noise, (0, 0), self.correlation_px, borderType=cv2.BORDER_REFLECT)
            noise *= np.float32(2.0 * np.sqrt(np.pi) * self.correlation_px)  # unit variance again
        depth += self.axial_std(depth) * noise
        if self.disparity_step_px > 0.0:
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.float32(self.disparity_step_px)
                disparity = np.rint(np.float32(self.baseline_focal_m_px) / depth / step) * step
                depth = np.where(disparity > 0.0, np.float32(self.baseline_focal_m_px) / disparity, 0.0)
        lost = (depth_m <= 0.0) | (depth < self.minimum_m) | (depth > self.maximum_m)
        if self.edge_hole_probability > 0.0:
            near = self._jumps(depth_m, self.edge_width_px)
            lost |= near & (rng.random((height, width), dtype=np.float32) < self.edge_hole_probability)
        if self.dropout > 0.0:
            seeds = (rng.random((height, width), dtype=np.float32) < self.dropout / 4.0).astype(np.uint8)
            lost |= cv2.dilate(seeds, np.ones((2, 2), np.uint8)) > 0
        return np.where(lost, np.float32(0.0), depth).astype(np.float32)

    def _jumps(self, depth: NDArray[np.float32], width: int) -> NDArray[np.bool_]:
        kernel = np.ones((3, 3), np.uint8)
        jump = (cv2.dilate(depth, kernel) - cv2.erode(depth, kernel) > self.edge_jump_m).astype(np.uint8)
        return cv2.dilate(jump, kernel, iterations=max(width - 1, 0)) > 0 if width > 1 else jump > 0
