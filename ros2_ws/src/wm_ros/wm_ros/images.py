"""Image, CompressedImage, PointCloud2 and CameraInfo messages to and from NumPy arrays.

Arrays come out read-only views of the message where that needs no copy. Message data are built as
``array.array``: rclpy copies those in one piece, and bytes or lists element by element.

Depth in metres: float32 (H, W), 0 where there is no measurement (0, the saturated 65535 mm, NaN, infinite or
negative).
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from wm_core.camera import Camera
from wm_core.messages import camera_from_msg, camera_to_msg
from wm_ros.stamps import ns_to_stamp

ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "8UC3": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "8UC4": ("u1", 4),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
}
"""Encoding -> NumPy type of one channel and number of channels."""

COLOR_ENCODINGS = ("rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4", "mono8", "8UC1")
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")

_MAX_PIXELS = 1 << 28
_SATURATED_MM = 65535


class ImageError(ValueError):
    """An image message that cannot be read; says which topic, what was found and what was expected."""


def _named(topic: str) -> str:
    return f"image on {topic}" if topic else "image"


def image_to_array(msg: Image, topic: str = "", expected: Sequence[str] = tuple(ENCODINGS)) -> NDArray[Any]:
    """Pixels as sent: (H, W) or (H, W, C) in the encoding's own type, native byte order.

    Raises:
        ImageError: encoding not among ``expected``, no pixels, row step too small, or data too short.
    """
    if msg.encoding not in expected or msg.encoding not in ENCODINGS:
        raise ImageError(f"{_named(topic)}: encoding {msg.encoding!r}, expected one of {', '.join(expected)}")
    kind, channels = ENCODINGS[msg.encoding]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    item = np.dtype(kind).itemsize
    row = width * channels * item
    if height < 1 or width < 1 or height * width > _MAX_PIXELS:
        raise ImageError(f"{_named(topic)}: size {width}x{height}, expected 1 to {_MAX_PIXELS} pixels")
    if step < row:
        raise ImageError(f"{_named(topic)}: step {step} bytes, expected at least {row} ({width} x {msg.encoding})")
    # The last row may end without its padding.
    needed = step * (height - 1) + row
    if len(msg.data) < needed:
        raise ImageError(f"{_named(topic)}: {len(msg.data)} bytes of data, expected {needed} ({height} rows of {step})")
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


def image_to_rgb(msg: Image, topic: str = "") -> NDArray[np.uint8]:
    """Colour image (H, W, 3) uint8, red first. Grey images are repeated, alpha is dropped, 8UC3 and 8UC4 are
    taken as BGR.

    Raises:
        ImageError: as ``image_to_array``; only 8-bit encodings are accepted.
    """
    pixels = image_to_array(msg, topic, COLOR_ENCODINGS)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if msg.encoding == "rgb8":
        return pixels
    if msg.encoding == "rgba8":
        return np.ascontiguousarray(pixels[:, :, :3])
    return np.ascontiguousarray(pixels[:, :, 2::-1])


def _depth_in_metres(pixels: NDArray[Any]) -> NDArray[np.float32]:
    if pixels.dtype == np.uint16:
        depth = pixels.astype(np.float32) * np.float32(0.001)
        depth[pixels == _SATURATED_MM] = 0.0
        return depth
    depth = pixels.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0.0))] = 0.0
    return depth


def image_to_depth(msg: Image, topic: str = "") -> NDArray[np.float32]:
    """Depth (H, W) float32 [m], 0 = no measurement, of a 16UC1 or mono16 (millimetres) or 32FC1 (metres)
    image.

    Raises:
        ImageError: as ``image_to_array``; only those encodings are accepted.
    """
    return _depth_in_metres(image_to_array(msg, topic, DEPTH_ENCODINGS))


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
    """Depth Image message of (H, W) [m]: 32FC1 in metres with NaN for no measurement, or 16UC1 in millimetres
    with 0.

    Raises:
        ImageError: another encoding.
    """
    depth = np.asarray(depth_m, dtype=np.float32)
    if encoding == "32FC1":
        return array_to_image(np.where(depth > 0.0, depth, np.float32(np.nan)), "32FC1", stamp_ns, frame_id)
    if encoding == "16UC1":
        return array_to_image(depth_to_millimetres(depth), "16UC1", stamp_ns, frame_id)
    raise ImageError(f"depth encoding {encoding!r}, expected 32FC1 or 16UC1")


def depth_to_millimetres(depth_m: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """(H, W) uint16 [mm] of (H, W) [m]; 0 where there is no measurement or it is beyond 65.534 m."""
    millimetres = np.nan_to_num(np.asarray(depth_m, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0) * 1000.0
    millimetres[(millimetres < 0.0) | (millimetres > _SATURATED_MM - 1)] = 0.0
    return np.round(millimetres).astype(np.uint16)


def _decode(data: Any, topic: str, what: str) -> NDArray[Any]:
    import cv2

    buffer = np.frombuffer(data, dtype=np.uint8)
    decoded = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if len(buffer) else None
    if decoded is None:
        raise ImageError(f"{_named(topic)}: {len(buffer)} bytes that are no {what}")
    return decoded


def compressed_to_rgb(msg: CompressedImage, topic: str = "") -> NDArray[np.uint8]:
    """Colour image (H, W, 3) uint8, red first, of a JPEG or PNG CompressedImage.

    Raises:
        ImageError: another format, depth, or data that do not decode.
    """
    if "compresseddepth" in msg.format.lower():
        raise ImageError(f"{_named(topic)}: format {msg.format!r} is depth, expected a jpeg or png colour image")
    pixels = _decode(msg.data, topic, "jpeg or png image")
    if pixels.dtype != np.uint8:
        raise ImageError(f"{_named(topic)}: {pixels.dtype} pixels, expected 8-bit colour")
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    # OpenCV decodes to BGR whatever the message's own encoding was ("rgb8; jpeg compressed bgr8").
    return np.ascontiguousarray(pixels[:, :, 2::-1])


def compressed_to_depth(msg: CompressedImage, topic: str = "") -> NDArray[np.float32]:
    """Depth (H, W) float32 [m] of a 16-bit PNG, or of compressedDepth (16UC1, or 32FC1 as quantised inverse
    depth).

    Raises:
        ImageError: another format, or data that do not decode to 16 bits.
    """
    form = msg.format.lower()
    if "compresseddepth" not in form:
        pixels = _decode(msg.data, topic, "16-bit png")
        if pixels.ndim != 2 or pixels.dtype != np.uint16:
            raise ImageError(f"{_named(topic)}: format {msg.format!r} gives {pixels.dtype} pixels, expected 16-bit png")
        return _depth_in_metres(pixels)
    if "rvl" in form:
        raise ImageError(f"{_named(topic)}: format {msg.format!r}, expected 'compressedDepth png'")
    # image_transport's header: int32 format, float32 quantisation A and B.
    if len(msg.data) <= 12:
        raise ImageError(f"{_named(topic)}: {len(msg.data)} bytes, expected a 12-byte header and a png")
    pixels = _decode(msg.data[12:], topic, "png after the 12-byte compressedDepth header")
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise ImageError(f"{_named(topic)}: format {msg.format!r} gives {pixels.dtype} pixels, expected 16 bits")
    if form.startswith(("16uc1", "mono16")):
        return _depth_in_metres(pixels)
    quantum_a, quantum_b = np.frombuffer(msg.data, dtype="<f4", count=2, offset=4)
    depth = np.zeros(pixels.shape, dtype=np.float32)
    valid = pixels > 0
    with np.errstate(divide="ignore"):
        depth[valid] = quantum_a / (pixels[valid].astype(np.float32) - quantum_b)
    return _depth_in_metres(depth)


def _encode(extension: str, pixels: NDArray[Any], options: list[int]) -> array.array:
    import cv2

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
    import cv2

    if form not in ("jpeg", "png"):
        raise ImageError(f"compressed format {form!r}, expected jpeg or png")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ImageError(f"colour array of shape {rgb.shape} and type {rgb.dtype}, expected (H, W, 3) uint8")
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
    """CompressedImage of depth (H, W) [m] as 16-bit millimetres; ``form`` is png or compressedDepth.

    Raises:
        ImageError: another form.
    """
    import cv2

    if form not in ("png", "compressedDepth"):
        raise ImageError(f"compressed depth format {form!r}, expected png or compressedDepth")
    data = _encode(".png", depth_to_millimetres(depth_m), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    msg = CompressedImage(format="16UC1; png compressed" if form == "png" else "16UC1; compressedDepth png")
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.data = data if form == "png" else array.array("B", bytes(12)) + data
    return msg


def resize_depth(depth_m: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Depth (height, width) by nearest neighbour, which never mixes near and far surfaces."""
    rows = ((np.arange(height) + 0.5) * depth_m.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * depth_m.shape[1] / width).astype(np.int64)
    return depth_m[rows[:, None], columns[None, :]]


def info_to_camera(msg: CameraInfo, topic: str = "") -> Camera:
    """Pinhole camera of a CameraInfo (its K; images are taken as rectified).

    Raises:
        ImageError: size or intrinsics are impossible; an uncalibrated camera publishes zeros.
    """
    try:
        return camera_from_msg(msg)
    except ValueError as error:
        where = f"camera info on {topic}" if topic else "camera info"
        raise ImageError(f"{where}: {error} (an uncalibrated camera publishes zeros)") from error


def is_distorted(msg: CameraInfo) -> bool:
    """True when the CameraInfo has distortion coefficients, so that its raw images are not rectified."""
    return bool(np.any(np.abs(np.asarray(msg.d, dtype=np.float64)) > 1e-9))


def camera_to_info(camera: Camera, stamp_ns: int = 0, frame_id: str = "") -> CameraInfo:
    """CameraInfo of a pinhole camera, without distortion."""
    msg = camera_to_msg(camera)
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    return msg


_POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


def points_to_cloud(
    points: NDArray[np.floating[Any]],
    colors: NDArray[np.uint8] | None = None,
    stamp_ns: int = 0,
    frame_id: str = "",
) -> PointCloud2:
    """PointCloud2 of points (P, 3) [m, in ``frame_id``] and colours (P, 3) uint8 red first (None: white).

    Points that are not finite are left out. Fields: x, y, z float32 and rgb packed as 0x00RRGGBB, as RViz
    reads it.

    Raises:
        ImageError: shapes do not match.
    """
    xyz = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    rgb = np.full((len(xyz), 3), 255, np.uint8) if colors is None else np.asarray(colors, dtype=np.uint8).reshape(-1, 3)
    if len(rgb) != len(xyz):
        raise ImageError(f"point cloud: {len(rgb)} colours, expected {len(xyz)} (one per point)")
    finite = np.isfinite(xyz).all(axis=1)
    xyz, packed = xyz[finite], rgb[finite].astype(np.uint32)
    records = np.empty(len(xyz), dtype=_POINT_DTYPE)
    records["x"], records["y"], records["z"] = xyz.T
    records["rgb"] = (packed[:, 0] << 16) | (packed[:, 1] << 8) | packed[:, 2]
    msg = PointCloud2(height=1, width=len(records), is_bigendian=False, is_dense=True)
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    msg.point_step = _POINT_DTYPE.itemsize
    msg.row_step = msg.point_step * len(records)
    msg.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(("x", "y", "z", "rgb"))
    ]
    msg.data = array.array("B", records.tobytes())
    return msg


def cloud_to_points(msg: PointCloud2) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points (P, 3) float32 [m] and colours (P, 3) uint8 of a cloud with the layout of ``points_to_cloud``.

    Raises:
        ImageError: another layout.
    """
    layout = [(f.name, f.offset) for f in msg.fields]
    if layout != [("x", 0), ("y", 4), ("z", 8), ("rgb", 12)] or msg.point_step != 16 or msg.is_bigendian:
        raise ImageError(f"point cloud: fields {layout}, step {msg.point_step}, expected x, y, z, rgb of 4 bytes each")
    records = np.frombuffer(msg.data, dtype=_POINT_DTYPE)
    points = np.stack([records["x"], records["y"], records["z"]], axis=-1)
    rgb = records["rgb"]
    colors = np.stack([(rgb >> 16) & 255, (rgb >> 8) & 255, rgb & 255], axis=-1).astype(np.uint8)
    return points, colors
