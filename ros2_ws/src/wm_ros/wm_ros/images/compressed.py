"""CompressedImage messages, image_transport's compressed and compressedDepth, to and from NumPy arrays."""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage

from wm_core.rvl import decode_rvl
from wm_ros.images.pixels import (
    COLOR_ENCODINGS,
    ImageError,
    debayer,
    depth_in_meters,
    depth_to_millimeters,
    eight_bits,
    named,
)
from wm_ros.stamps import ns_to_stamp

_HEADER_BYTES, _RVL_SIZE_BYTES = 12, 8
"""Sizes of compressed_depth_image_transport's header, and of width and height before RVL data."""
_MAX_RVL_PIXELS = 1 << 25
"""Pixels beyond which an RVL image is refused before memory is allocated for it."""


def _decode(data: Any, topic: str, what: str) -> NDArray[Any]:
    buffer = np.frombuffer(data, dtype=np.uint8)
    decoded = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if len(buffer) else None
    if decoded is None:
        raise ImageError(f"{named(topic)}: {len(buffer)} bytes that are no {what}")
    return decoded


def compressed_to_rgb(msg: CompressedImage, topic: str = "") -> NDArray[np.uint8]:
    """Color image (H, W, 3) uint8, red first, of a JPEG or PNG CompressedImage of 8 or 16 bits.

    Raises:
        ImageError: another format, depth, or data that do not decode.
    """
    if "compresseddepth" in msg.format.lower():
        raise ImageError(f"{named(topic)}: format {msg.format!r} is depth, expected a jpeg or png color image")
    pixels = _decode(msg.data, topic, "jpeg or png image")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{named(topic)}: {pixels.dtype} pixels, expected 8-bit color")
    pixels = eight_bits(pixels)
    if pixels.ndim == 2:
        encoding = msg.format.split(";")[0].strip()
        if encoding in COLOR_ENCODINGS and encoding.startswith("bayer_") and min(pixels.shape) >= 2:
            return debayer(pixels, encoding)
        return np.repeat(pixels[:, :, None], 3, axis=2)
    # OpenCV decodes to BGR whatever the message's own encoding was ("rgb8; jpeg compressed bgr8").
    return np.ascontiguousarray(pixels[:, :, 2::-1])


def compressed_to_depth(msg: CompressedImage, topic: str = "", scale: float = 0.0) -> NDArray[np.float32]:
    """Depth (H, W) float32 [m] of a 16-bit PNG, or of compressedDepth by png or rvl (16UC1, or 32FC1 as quantized
    inverse depth).

    ``scale``: as for ``pixels.depth_in_meters``.

    Raises:
        ImageError: another format, or data that do not decode to 16 bits.
    """
    form = msg.format.lower()
    if "compresseddepth" not in form:
        pixels = _decode(msg.data, topic, "16-bit png")
        if pixels.ndim != 2 or pixels.dtype != np.uint16:
            raise ImageError(f"{named(topic)}: format {msg.format!r} gives {pixels.dtype} pixels, expected 16-bit png")
        return depth_in_meters(pixels, scale)
    # image_transport's header: int32 format, float32 quantization A and B.
    if len(msg.data) <= _HEADER_BYTES:
        raise ImageError(f"{named(topic)}: {len(msg.data)} bytes, expected a 12-byte header and a png or rvl image")
    body = msg.data[_HEADER_BYTES:]
    if "rvl" in form.partition("compresseddepth")[2]:
        pixels = _decode_rvl(body, topic)
    else:
        pixels = _decode(body, topic, "png after the 12-byte compressedDepth header")
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise ImageError(f"{named(topic)}: format {msg.format!r} gives {pixels.dtype} pixels, expected 16 bits")
    if form.startswith(("16uc1", "mono16")):
        return depth_in_meters(pixels, scale)
    quantum_a, quantum_b = np.frombuffer(msg.data, dtype="<f4", count=2, offset=4)
    depth = np.zeros(pixels.shape, dtype=np.float32)
    valid = pixels > 0
    with np.errstate(divide="ignore"):
        depth[valid] = quantum_a / (pixels[valid].astype(np.float32) - quantum_b)
    return depth_in_meters(depth, scale)


def _decode_rvl(data: Any, topic: str) -> NDArray[np.uint16]:
    if len(data) < _RVL_SIZE_BYTES:
        raise ImageError(f"{named(topic)}: {len(data)} bytes of rvl, expected width and height of 4 bytes each first")
    width, height = (int(v) for v in np.frombuffer(data, dtype="<u4", count=2))
    # A run of zeros of any length takes two numbers: few bytes may stand for a large image.
    if not (width >= 1 and height >= 1 and width * height <= _MAX_RVL_PIXELS):
        raise ImageError(f"{named(topic)}: rvl image of {width}x{height}, expected 1 to {_MAX_RVL_PIXELS} pixels")
    try:
        return decode_rvl(data[_RVL_SIZE_BYTES:], width, height)
    except ValueError as error:
        raise ImageError(f"{named(topic)}: {error}") from error


def _encode(extension: str, pixels: NDArray[Any], options: list[int]) -> array.array:
    done, buffer = cv2.imencode(extension, pixels, options)
    if not done:
        raise ImageError(f"array of shape {pixels.shape} and type {pixels.dtype} does not encode as {extension}")
    return array.array("B", buffer.tobytes())


def rgb_to_compressed(
    rgb: NDArray[np.uint8], stamp_ns: int = 0, frame_id: str = "", form: str = "jpeg", quality: int = 90
) -> CompressedImage:
    """CompressedImage of (H, W, 3) uint8, red first; ``form`` is jpeg or png, ``quality`` 1..100 is for jpeg.

    Raises:
        ImageError: another form, shape or type.
    """
    if form not in ("jpeg", "png"):
        raise ImageError(f"compressed format {form!r}, expected jpeg or png")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ImageError(f"color array of shape {rgb.shape} and type {rgb.dtype}, expected (H, W, 3) uint8")
    msg = CompressedImage(format=f"rgb8; {form} compressed bgr8")
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    msg.data = _encode(".jpg" if form == "jpeg" else ".png", bgr, options)
    return msg


def depth_to_compressed(
    depth_m: NDArray[np.floating[Any]], stamp_ns: int = 0, frame_id: str = "", form: str = "png"
) -> CompressedImage:
    """CompressedImage of depth (H, W) [m] as 16-bit millimeters; ``form`` is png or compressedDepth.

    Raises:
        ImageError: another form.
    """
    if form not in ("png", "compressedDepth"):
        raise ImageError(f"compressed depth format {form!r}, expected png or compressedDepth")
    data = _encode(".png", depth_to_millimeters(depth_m), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    msg = CompressedImage(format="16UC1; png compressed" if form == "png" else "16UC1; compressedDepth png")
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.data = data if form == "png" else array.array("B", bytes(12)) + data
    return msg
