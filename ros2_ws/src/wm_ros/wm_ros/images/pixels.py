"""Image messages to and from NumPy arrays.

Arrays are read-only views of the message where that needs no copy. Message data are built as
``array.array``: rclpy copies those in one piece, and bytes or lists element by element.

Depth in meters: float32 (H, W), 0 where there is no measurement (0, the saturated 65535, NaN, infinite or negative).
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from wm_ros.stamps import ns_to_stamp

_BAYER = {"rggb": "RGGB", "bggr": "BGGR", "gbrg": "GBRG", "grbg": "GRBG"}
_YUV_422 = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUYV", "yuyv": "YUYV"}

ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "8UC3": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "8UC4": ("u1", 4),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "rgb16": ("u2", 3),
    "bgr16": ("u2", 3),
    "rgba16": ("u2", 4),
    "bgra16": ("u2", 4),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
    **{f"bayer_{pattern}{bits}": (f"u{bits // 8}", 1) for bits in (8, 16) for pattern in _BAYER},
    **dict.fromkeys(_YUV_422, ("u1", 2)),
}
"""Encoding (sensor_msgs/image_encodings.hpp) -> NumPy type of one channel and number of channels."""

DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
COLOR_ENCODINGS = tuple(e for e in ENCODINGS if e not in ("16UC1", "32FC1"))

_MAX_PIXELS = 1 << 28
"""Pixels beyond which an image is refused, as its size is wrong."""
_SATURATED = 65535
"""16-bit depth that sensors send where it is out of range."""


class ImageError(ValueError):
    """An image message that cannot be read; says which topic, what was found and what was expected."""


def named(topic: str) -> str:
    """The name of an image in an error."""
    return f"image on {topic}" if topic else "image"


def image_to_array(msg: Image, topic: str = "", expected: Sequence[str] = tuple(ENCODINGS)) -> NDArray[Any]:
    """Pixels as sent: (H, W) or (H, W, C) in the encoding's own type, native byte order.

    Raises:
        ImageError: encoding not among ``expected``, no pixels, row step too small, or data too short.
    """
    if msg.encoding not in expected or msg.encoding not in ENCODINGS:
        raise ImageError(f"{named(topic)}: encoding {msg.encoding!r}, expected one of {', '.join(expected)}")
    kind, channels = ENCODINGS[msg.encoding]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    item = np.dtype(kind).itemsize
    row = width * channels * item
    if height < 1 or width < 1 or height * width > _MAX_PIXELS:
        raise ImageError(f"{named(topic)}: size {width}x{height}, expected 1 to {_MAX_PIXELS} pixels")
    if step < row:
        raise ImageError(f"{named(topic)}: step {step} bytes, expected at least {row} ({width} x {msg.encoding})")
    # The last row may end without its padding.
    needed = step * (height - 1) + row
    if len(msg.data) < needed:
        raise ImageError(f"{named(topic)}: {len(msg.data)} bytes of data, expected {needed} ({height} rows of {step})")
    dtype = np.dtype(kind).newbyteorder(">" if msg.is_bigendian else "<")
    flat = np.frombuffer(msg.data, dtype=np.uint8, count=needed)
    if step == row:
        pixels = flat.view(dtype).reshape(height, width, channels)
    else:
        rows = np.lib.stride_tricks.as_strided(flat, shape=(height, row), strides=(step, 1), writeable=False)
        pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    if not dtype.isnative:
        pixels = pixels.astype(dtype.newbyteorder("="))
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    pixels.flags.writeable = False
    return pixels


def eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The upper eight bits of 16-bit pixels; 8-bit ones as they are."""
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def debayer(pixels: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    """Color (H, W, 3) uint8, red first, of a mosaic (H, W) of 8 or 16 bits; ``encoding`` is bayer_PATTERN8 or 16."""
    code = getattr(cv2, f"COLOR_Bayer{_BAYER[encoding[6:10]]}2RGB")
    return np.asarray(cv2.cvtColor(eight_bits(pixels), code), np.uint8)


def image_to_rgb(msg: Image, topic: str = "") -> NDArray[np.uint8]:
    """Color image (H, W, 3) uint8, red first.

    Gray images are repeated, alpha is dropped, of 16 bits the upper 8 are used, 8UC3 and 8UC4 are read as BGR,
    mosaics (bayer) are interpolated and YUV 4:2:2 is converted by OpenCV (BT.601).

    Raises:
        ImageError: as ``image_to_array``; YUV 4:2:2 of odd width, a mosaic of less than 2x2 pixels.
    """
    pixels = image_to_array(msg, topic, COLOR_ENCODINGS)
    height, width = pixels.shape[:2]
    if msg.encoding.startswith("bayer_"):
        if min(height, width) < 2:
            raise ImageError(f"{named(topic)}: {msg.encoding} of {width}x{height}, expected at least 2x2")
        return debayer(pixels, msg.encoding)
    if msg.encoding in _YUV_422:
        if width % 2:
            raise ImageError(f"{named(topic)}: {msg.encoding} of width {width}, expected an even one")
        code = getattr(cv2, f"COLOR_YUV2RGB_{_YUV_422[msg.encoding]}")
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    pixels = eight_bits(pixels)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if msg.encoding == "rgb8":
        return pixels
    if msg.encoding.startswith("rgb"):
        return np.ascontiguousarray(pixels[:, :, :3])
    return np.ascontiguousarray(pixels[:, :, 2::-1])


def depth_in_meters(pixels: NDArray[Any], scale: float = 0.0) -> NDArray[np.float32]:
    """Depth (H, W) float32 [m], 0 = no measurement, of uint16 or float pixels.

    ``scale``: meters per unit; 0: as REP-118 says, 0.001 of integers and 1 of floats.
    """
    if pixels.dtype == np.uint16:
        depth = pixels.astype(np.float32) * np.float32(scale or 0.001)
        depth[pixels == _SATURATED] = 0.0
        return depth
    depth = pixels.astype(np.float32)
    if scale not in (0.0, 1.0):
        depth = depth * np.float32(scale)
    depth[~(np.isfinite(depth) & (depth > 0.0))] = 0.0
    return depth


def image_to_depth(msg: Image, topic: str = "", scale: float = 0.0) -> NDArray[np.float32]:
    """Depth (H, W) float32 [m], 0 = no measurement, of a 16UC1, mono16 or 32FC1 image.

    ``scale``: as for ``depth_in_meters``.

    Raises:
        ImageError: as ``image_to_array``; only those encodings are accepted.
    """
    return depth_in_meters(image_to_array(msg, topic, DEPTH_ENCODINGS), scale)


def array_to_image(pixels: NDArray[Any], encoding: str, stamp_ns: int = 0, frame_id: str = "") -> Image:
    """Image message of an array (H, W) or (H, W, C).

    Raises:
        ImageError: unknown encoding, or an array of another type or number of channels.
    """
    if encoding not in ENCODINGS:
        raise ImageError(f"encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    kind, channels = ENCODINGS[encoding]
    found = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if pixels.ndim not in (2, 3) or found != channels or pixels.dtype != np.dtype(kind):
        raise ImageError(
            f"{encoding} image: array of shape {pixels.shape} and type {pixels.dtype}, "
            f"expected (H, W{f', {channels}' if channels > 1 else ''}) and {np.dtype(kind)}"
        )
    msg = Image()
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.height, msg.width = int(pixels.shape[0]), int(pixels.shape[1])
    msg.encoding = encoding
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.step = msg.width * channels * np.dtype(kind).itemsize
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data)
    msg.data = data
    return msg


def rgb_to_image(rgb: NDArray[np.uint8], stamp_ns: int = 0, frame_id: str = "") -> Image:
    """rgb8 Image message of (H, W, 3) uint8."""
    return array_to_image(rgb, "rgb8", stamp_ns, frame_id)


def depth_to_image(
    depth_m: NDArray[np.floating[Any]], stamp_ns: int = 0, frame_id: str = "", encoding: str = "32FC1"
) -> Image:
    """Depth Image message of (H, W) [m]: 32FC1 in meters with NaN for no measurement, or 16UC1 in millimeters
    with 0.

    Raises:
        ImageError: another encoding.
    """
    depth = np.asarray(depth_m, dtype=np.float32)
    if encoding == "32FC1":
        return array_to_image(np.where(depth > 0.0, depth, np.float32(np.nan)), "32FC1", stamp_ns, frame_id)
    if encoding == "16UC1":
        return array_to_image(depth_to_millimeters(depth), "16UC1", stamp_ns, frame_id)
    raise ImageError(f"depth encoding {encoding!r}, expected 32FC1 or 16UC1")


def depth_to_millimeters(depth_m: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """(H, W) uint16 [mm] of (H, W) [m]; 0 where there is no measurement or it is beyond 65.534 m."""
    millimeters = np.nan_to_num(np.asarray(depth_m, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0) * 1000.0
    millimeters[(millimeters < 0.0) | (millimeters > _SATURATED - 1)] = 0.0
    return np.round(millimeters).astype(np.uint16)


def resize_depth(depth_m: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Depth (height, width) by nearest neighbor, which never mixes near and far surfaces."""
    rows = ((np.arange(height) + 0.5) * depth_m.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * depth_m.shape[1] / width).astype(np.int64)
    return depth_m[rows[:, None], columns[None, :]]
