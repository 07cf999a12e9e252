"""Images of cameras with lenses, and depth coded as RVL."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage

from wm_core.camera import Camera
from wm_core.lens import Lens
from wm_ros.images.camera_info import camera_to_info

LENSES = {
    "plumb_bob": (-0.28, 0.07, 0.0012, -0.0008, 0.0),
    "rational_polynomial": (0.4, -0.1, 0.001, 0.0005, 0.01, 0.75, -0.05, 0.005),
    "equidistant": (-0.02, 0.008, -0.003, 0.0005),
}


RAW = Camera(320, 240, 260.0, 262.0, 158.0, 121.5)


def encode_rvl(depth: np.ndarray) -> bytes:
    """RVL as its paper describes it, number by number."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            more = value >> 3
            nibbles.append((value & 7) | (8 if more else 0))
            value = more
            if not more:
                return

    flat, at, before = depth.ravel().tolist(), 0, 0
    while at < len(flat):
        begin = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        put(at - begin)
        begin = at
        while at < len(flat) and flat[at] != 0:
            at += 1
        put(at - begin)
        for value in flat[begin:at]:
            step = value - before
            put(2 * step if step >= 0 else -2 * step - 1)
            before = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [sum(n << (28 - 4 * k) for k, n in enumerate(nibbles[i : i + 8])) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<{len(words)}I", *words)


def rvl_message(depth: np.ndarray) -> CompressedImage:
    data = bytes(12) + struct.pack("<2I", depth.shape[1], depth.shape[0]) + encode_rvl(depth)
    return CompressedImage(format="16UC1; compressedDepth rvl", data=data)


def lens_info(lens: Lens, **given) -> CameraInfo:
    """The camera info of a lens, with P as the rectified camera."""
    msg = camera_to_info(lens.raw)
    msg.distortion_model, msg.d = lens.model, list(lens.coefficients)
    msg.p = np.hstack([lens.rectified.matrix, np.zeros((3, 1))]).ravel().tolist()
    msg.r = list(lens.rotation)
    for name, value in given.items():
        setattr(msg, name, value)
    return msg


def seen_through(lens: Lens, color: np.ndarray, depth: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """A pinhole image of ``camera`` as the lens shows it: every raw pixel looks up where its ray goes.

    OpenCV's own inverse of the lens, so that the test does not invert the code under test with itself.
    """
    u, v = np.meshgrid(np.arange(lens.raw.width), np.arange(lens.raw.height))
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2).astype(np.float64)
    d = np.array(lens.coefficients)
    if lens.model == "equidistant":
        rays = cv2.fisheye.undistortPoints(pixels, lens.raw.matrix, d)
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)
        rays = cv2.undistortPointsIter(pixels, lens.raw.matrix, d, None, None, criteria)
    rays = rays.reshape(lens.raw.height, lens.raw.width, 2)
    x = (rays[..., 0] * camera.fx + camera.cx).astype(np.float32)
    y = (rays[..., 1] * camera.fy + camera.cy).astype(np.float32)
    return cv2.remap(color, x, y, cv2.INTER_LINEAR), cv2.remap(depth, x, y, cv2.INTER_NEAREST)
