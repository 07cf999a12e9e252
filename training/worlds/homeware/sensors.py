"""Depth sensors as they err: structured light, active stereo, and the interpolated lidar of telephones.

All take the exact view of one camera and give depth (H, W) [m], 0 where nothing is measured. Lengths in pixels are
those of images 640 wide; they are scaled to the image. The papers and data sheets named below are cited from memory:
their figures were not looked up again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_sim.depth_noise import DepthNoise

Depth = NDArray[np.float32]

_REFERENCE_WIDTH = 640.0
"""Width [pixels] of the images that the figures below are for."""


@dataclass(frozen=True)
class View:
    """What is before a sensor.

    Attributes:
        rgb: (H, W, 3) uint8; depth: (H, W) [m], 0 where there is nothing; gloss: (H, W) 0..1, how much a surface
            mirrors; focal_px: focal length [pixels].
    """

    rgb: NDArray[np.uint8]
    depth: Depth
    gloss: NDArray[np.float32]
    focal_px: float

    @property
    def scale(self) -> float:
        """Pixels of this image for one of an image 640 wide."""
        return self.depth.shape[1] / _REFERENCE_WIDTH


def smooth_noise(shape: tuple[int, ...], sigma_px: float, rng: np.random.Generator) -> Depth:
    """Noise (H, W) of unit variance that is alike over about ``sigma_px`` pixels."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sigma_px < 0.3:
        return noise
    if sigma_px > 4.0:
        # As smooth, from a coarse grid.
        step = sigma_px / 2.0
        coarse = rng.standard_normal((int(shape[0] / step) + 4, int(shape[1] / step) + 4), dtype=np.float32)
        coarse = cv2.GaussianBlur(coarse, (0, 0), 2.0, borderType=cv2.BORDER_REFLECT) * np.float32(4.0 * np.sqrt(np.pi))
        large = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(large[: shape[0], : shape[1]], dtype=np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred * np.float32(2.0 * np.sqrt(np.pi) * sigma_px), dtype=np.float32)


def shadow(depth: Depth, baseline_focal_m_px: float) -> NDArray[np.bool_]:
    """What (H, W) the second eye, or the projector, does not see, as it is a baseline to the right of the camera.

    A pixel at column u and depth z is at u - b f / z in the other eye; where something to the right of it lands at the
    same place or left of it, that is nearer and hides it. So shadows are at the left side of near things.
    """
    with np.errstate(divide="ignore"):
        column = np.arange(depth.shape[1], dtype=np.float32) - np.float32(baseline_focal_m_px) / depth
    column[depth <= 0.0] = np.inf
    nearest = np.minimum.accumulate(column[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(depth.shape, dtype=bool)
    # Half a pixel of tolerance: steep surfaces are not hidden by themselves.
    hidden[:, :-1] = column[:, :-1] > nearest[:, 1:] + 0.5
    return hidden


def incidence(view: View) -> Depth:
    """Cosine (H, W) of the angle between the line of sight and the surface's normal; 1 across steps in depth."""
    z = cv2.GaussianBlur(view.depth, (0, 0), 0.8)
    du = cv2.Sobel(z, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    dv = cv2.Sobel(z, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    h, w = z.shape
    x = np.arange(w, dtype=np.float32) - np.float32(0.5 * (w - 1))
    y = (np.arange(h, dtype=np.float32) - np.float32(0.5 * (h - 1)))[:, None]
    f = np.float32(view.focal_px)
    normal = np.sqrt(np.square(f * du) + np.square(f * dv) + np.square(z + x * du + y * dv))
    ray = np.sqrt(1.0 + np.square(x / f) + np.square(y / f))
    cosine = np.clip(z / np.maximum(normal * ray, 1e-6), 0.0, 1.0)
    step = cv2.dilate(edges(view.depth, 0.08).astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.where(step > 0, 1.0, cosine).astype(np.float32)


def edges(depth: Depth, jump: float = 0.02) -> NDArray[np.bool_]:
    """Pixels (H, W) beside a step in depth of more than this part of it."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(depth, kernel) - cv2.erode(depth, kernel) > jump * np.maximum(depth, 0.1))


def weak(view: View, darkness: float, mirror: float, grazing: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Pixels (H, W) that return too little light, or mirror it away; in patches, as on real things.

    Args:
        darkness: brightness 0..1 below which pixels may be lost at 1 m; farther away more are.
        mirror: part of a fully glossy surface that is lost. grazing: cosine of incidence below which pixels may be.
    """
    brightness = view.rgb.max(axis=2).astype(np.float32) / np.float32(255.0)
    limit = darkness * np.clip(np.square(view.depth), 0.5, 4.0)
    chance = np.clip((limit - brightness) / max(darkness, 1e-6), 0.0, 1.0) * np.float32(darkness > 0.0)
    cosine = incidence(view)
    # Mirrors are lost where they are seen head-on, and much of them elsewhere.
    shine = np.square(view.gloss) * mirror * np.where(cosine > 0.97, 1.4, 0.8)
    # Mirrored light that is not lost for other reasons: bright spots.
    shine += view.gloss * mirror * (brightness > 0.97)
    chance = np.maximum(chance, shine)
    chance = np.maximum(chance, np.clip((grazing - cosine) / max(grazing, 1e-6), 0.0, 1.0))
    patchy = 0.7 * smooth_noise(view.depth.shape, 5.0 * view.scale, rng) + 0.3 * smooth_noise(
        view.depth.shape, 0.0, rng
    )
    # The normal distribution's quantiles in place of its cumulative function.
    return np.asarray((chance > 0.02) & (0.5 + 0.3 * patchy < chance), dtype=bool)


def quantized(depth: Depth, baseline_focal_m_px: float, step_px: float) -> Depth:
    """Depth whose disparity b f / z is a whole number of steps."""
    with np.errstate(divide="ignore", invalid="ignore"):
        disparity = np.rint(np.float32(baseline_focal_m_px / step_px) / depth)
        return np.where(disparity > 0.0, np.float32(baseline_focal_m_px / step_px) / disparity, 0.0).astype(np.float32)


def displaced(depth: Depth, sigma_px: float, over_px: float, rng: np.random.Generator) -> Depth:
    """Depth of a place nearby, at edges only: matching windows make outlines ragged."""
    h, w = depth.shape
    near = cv2.dilate(edges(depth).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = np.nonzero(near)
    by = np.stack([smooth_noise((h, w), over_px, rng), smooth_noise((h, w), over_px, rng)])[:, rows, columns] * sigma_px
    result = depth.copy()
    r = np.clip(np.rint(rows + by[0]), 0, h - 1).astype(np.intp)
    c = np.clip(np.rint(columns + by[1]), 0, w - 1).astype(np.intp)
    result[rows, columns] = depth[r, c]
    return result


def _within(depth: Depth, lost: NDArray[np.bool_], nearest: float, farthest: float) -> Depth:
    out = lost | (depth < nearest) | (depth > farthest) | ~np.isfinite(depth)
    return np.where(out, np.float32(0.0), depth).astype(np.float32)


@dataclass(frozen=True)
class StructuredLight:
    """The first Kinect: a pattern is projected from the right, and matched to its picture in memory.

    Attributes:
        baseline_m, focal_px, disparity_step_px: 7.5 cm, 580 pixels, 1/8 pixel (Khoshelham and Elberink, "Accuracy and
            Resolution of Kinect Depth Data for Indoor Mapping Applications", Sensors 2012).
        disparity_std_px: gives the axial noise of 1.9 mm at 1 m and 6.1 mm at 2 m (Nguyen, Izadi and Lovell,
            "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012: 0.083 and 0.066).
        lateral_px: of outlines, 0.8 pixels (the same paper); window_px: over which errors are alike (9 x 9 windows).
        darkness, mirror, grazing: see ``weak``; surfaces seen at more than about 70 to 80 degrees are lost (Nguyen).
        nearest_m, farthest_m: range.
    """

    baseline_m: float = 0.075
    focal_px: float = 580.0
    disparity_step_px: float = 0.125
    disparity_std_px: float = 0.075
    lateral_px: float = 0.8
    window_px: float = 2.0
    darkness: float = 0.1
    mirror: float = 0.5
    grazing: float = 0.22
    nearest_m: float = 0.45
    farthest_m: float = 5.0

    def measure(self, view: View, rng: np.random.Generator) -> Depth:
        """Measured depth (H, W) [m]."""
        scale = view.scale
        lost = (view.depth <= 0.0) | shadow(view.depth, self.baseline_m * view.focal_px)
        lost |= weak(view, self.darkness, self.mirror, self.grazing, rng)
        # Windows at outlines mix two depths: part of them matches neither.
        lost |= edges(view.depth) & (smooth_noise(view.depth.shape, scale, rng) > 0.6)
        depth = displaced(view.depth, 1.6 * self.lateral_px * scale, self.window_px * scale, rng)
        constant = self.baseline_m * self.focal_px
        noise = self.disparity_std_px * smooth_noise(depth.shape, self.window_px * scale, rng)
        depth = depth + np.square(depth) / np.float32(constant) * noise
        return _within(quantized(depth, constant, self.disparity_step_px), lost, self.nearest_m, self.farthest_m)


@dataclass(frozen=True)
class ActiveStereo:
    """RealSense D415 and D435: two infrared cameras and a pattern that gives both something to match.

    Attributes:
        baseline_m, focal_px: 5 cm and about 320 pixels (D435, 640 wide), 5.5 cm and 500 pixels (D415); data sheet of
            the manufacturer's D400 family.
        subpixel_px: error of disparity; the error of depth is z^2 times this over focal length and baseline. 0.08 with
            good texture, more without (the manufacturer's "Best-Known-Methods for Tuning D400 Depth Cameras").
        waves_px: over how many pixels errors are alike: its surfaces are wavy.
        fattening_px: how far near things grow over what is behind them, half the matching window at most.
        step_px: of disparity, 1/32 pixel. shadow_kept: part of the shadow that is filled with what is behind it.
        smear: outlines become ramps, as its smoothing filters make them; 0..1, part of the images' edges.
        darkness, mirror, grazing: see ``weak``. nearest_m, farthest_m: range.
    """

    baseline_m: float = 0.05
    focal_px: float = 320.0
    subpixel_px: float = 0.08
    waves_px: float = 7.0
    fattening_px: float = 3.0
    step_px: float = 1.0 / 32.0
    shadow_kept: float = 0.3
    smear: float = 0.3
    darkness: float = 0.03
    mirror: float = 0.35
    grazing: float = 0.12
    nearest_m: float = 0.25
    farthest_m: float = 6.0

    def measure(self, view: View, rng: np.random.Generator) -> Depth:
        """Measured depth (H, W) [m]."""
        scale, shape = view.scale, view.depth.shape
        hidden = shadow(view.depth, self.baseline_m * view.focal_px)
        hidden &= smooth_noise(shape, 6.0 * scale, rng) > float(
            np.interp(self.shadow_kept, [0.0, 0.5, 1.0], [-3, 0, 3])
        )
        lost = (view.depth <= 0.0) | hidden | weak(view, self.darkness, self.mirror, self.grazing, rng)
        depth = view.depth
        reach = self.fattening_px * scale
        if reach >= 0.5:
            # By as much as the windows along the edge catch of what is near, which differs from place to place.
            size = 2 * round(reach) + 1
            filled = np.where(depth > 0.0, depth, np.float32(1e3))
            near = cv2.erode(filled, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
            grow = smooth_noise(shape, 4.0 * scale, rng) > -0.3
            depth = np.where(grow & (near < depth * 0.98), near, depth).astype(np.float32)
        depth = displaced(depth, scale, 2.0 * scale, rng)
        if self.smear > 0.0:
            soft = cv2.GaussianBlur(depth, (0, 0), max(1.5 * scale, 0.4))
            ramp = edges(depth) & (smooth_noise(shape, 5.0 * scale, rng) > 1.0 - 2.0 * self.smear)
            depth = np.where(ramp, soft, depth).astype(np.float32)
        constant = self.baseline_m * self.focal_px
        noise = 0.8 * smooth_noise(shape, self.waves_px * scale, rng) + 0.6 * smooth_noise(shape, 1.5 * scale, rng)
        depth = np.asarray(depth + np.square(depth) * np.float32(self.subpixel_px / constant) * noise, np.float32)
        return _within(quantized(depth, constant, self.step_px), lost, self.nearest_m, self.farthest_m)


@dataclass(frozen=True)
class PhoneLidar:
    """The lidar of telephones: few measured points, interpolated along the color image to 256 x 192 depths.

    Attributes:
        cell_px: side of what one value stands for: edges are rounded over it. The points are 576 in an image
            (Luetzenburg, Kroon and Bjork, "Evaluation of the Apple iPhone 12 Pro LiDAR for an Application in
            Geosciences", Scientific Reports 2021), 25 pixels apart; the color image makes outlines about 5 times finer.
        std_m: error of smooth patches, 1 cm for small things (the same paper), as a part of a meter at 1 m.
        waves_px: over how many pixels they are alike. nearest_m, farthest_m: range, 0.2 to 5 m.
    """

    cell_px: float = 5.0
    std_m: float = 0.005
    waves_px: float = 30.0
    nearest_m: float = 0.2
    farthest_m: float = 5.0

    def measure(self, view: View, rng: np.random.Generator) -> Depth:
        """Measured depth (H, W) [m]: without holes, but for what is out of range."""
        h, w = view.depth.shape
        lost = view.depth <= 0.0
        cell = max(self.cell_px * view.scale, 1.0)
        small = (max(int(w / cell), 2), max(int(h / cell), 2))
        filled = np.where(lost, np.float32(self.farthest_m), view.depth)
        # Distances average by their inverse: what is near wins, as it returns more light.
        coarse = cv2.resize(1.0 / filled, small, interpolation=cv2.INTER_AREA)
        depth = 1.0 / cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)
        noise = smooth_noise((h, w), self.waves_px * view.scale, rng) * np.float32(self.std_m)
        noise += smooth_noise((h, w), 2.0 * cell, rng) * np.float32(0.3 * self.std_m)
        return _within((depth * (1.0 + noise)).astype(np.float32), lost, self.nearest_m, self.farthest_m)


Sensor = StructuredLight | ActiveStereo | PhoneLidar


def random_sensor(rng: np.random.Generator, distance_m: float) -> Sensor | DepthNoise:
    """A sensor that measures at this distance [m], its figures varied; one of ten is nearly exact, as in simulators."""
    kind = rng.uniform()
    vary = float(rng.uniform(0.6, 1.5))
    lose = {"darkness": float(rng.uniform(0.0, 0.12)), "mirror": float(rng.uniform(0.1, 0.8))}
    if kind < 0.1:
        return DepthNoise(
            axial_offset_m=2e-4,
            axial_gain_per_m=1e-4,
            lateral_px=0.0,
            disparity_step_px=0.0,
            edge_hole_probability=0.0,
            dropout=0.0,
            minimum_m=0.1,
        )
    if kind < 0.42 and distance_m > 0.65:
        light = StructuredLight(**lose)
        return replace(
            light,
            disparity_std_px=light.disparity_std_px * vary,
            lateral_px=light.lateral_px * float(rng.uniform(0.6, 1.4)),
            disparity_step_px=float(rng.choice([0.0625, 0.125, 0.125])),
        )
    if kind < 0.82:
        wide = rng.uniform() < 0.5
        return ActiveStereo(
            baseline_m=0.05 if wide else 0.055,
            focal_px=320.0 if wide else 500.0,
            subpixel_px=0.06 * vary,
            waves_px=float(rng.uniform(4.0, 14.0)),
            fattening_px=float(rng.uniform(0.0, 4.5)),
            shadow_kept=float(rng.uniform(0.0, 1.0)),
            smear=float(rng.uniform(0.0, 0.7)),
            **lose,
        )
    return PhoneLidar(
        cell_px=float(rng.uniform(4.0, 10.0)), std_m=0.005 * vary, waves_px=float(rng.uniform(15.0, 50.0))
    )
