"""CameraInfo messages: the lens and the pinhole camera that they describe."""

from __future__ import annotations

import re

import numpy as np
from sensor_msgs.msg import CameraInfo

from wm_core.camera import Camera
from wm_core.lens import Lens
from wm_ros.conversions.basics import camera_to_msg
from wm_ros.images.pixels import ImageError
from wm_ros.stamps import ns_to_stamp


def info_to_lens(msg: CameraInfo, topic: str = "") -> Lens:
    """The lens of a CameraInfo, at the size of the images that go with it.

    K, P, the region of interest and binning are of the sensor's full resolution, as the message's definition says: the
    size here is that of the region over the binning. Binned pixels are averages over whole blocks. Where K is all
    zeros and P is not, P is used as K.

    Raises:
        ImageError: size, intrinsics or distortion are impossible or of an unknown model; an uncalibrated camera
            publishes zeros.
    """
    try:
        width, height = int(msg.width), int(msg.height)
        k = [float(v) for v in (msg.k[0], msg.k[4], msg.k[2], msg.k[5])]
        p = [float(v) for v in (msg.p[0], msg.p[5], msg.p[2], msg.p[6])]
        if not any(np.nan_to_num(k, nan=1.0)):
            k = p
        projected = bool(np.isfinite(p).all() and p[0] > 0.0 and p[1] > 0.0)
        raw = _delivered(Camera(width, height, *k), msg)
        rectified = _delivered(Camera(width, height, *p), msg) if projected else raw
        rotation = np.asarray(msg.r, np.float64)
        if not (np.isfinite(rotation).all() and abs(np.linalg.det(rotation.reshape(3, 3)) - 1.0) < 0.01):
            rotation = np.eye(3).ravel()
        coefficients = tuple(float(v) for v in msg.d)
        if not any(np.nan_to_num(coefficients, nan=1.0)):
            coefficients = ()
        model = msg.distortion_model or ("rational_polynomial" if len(coefficients) > 5 else "plumb_bob")
        return Lens(raw, rectified, model, coefficients, tuple(float(v) for v in rotation))
    except ValueError as error:
        where = f"camera info on {topic}" if topic else "camera info"
        raise ImageError(f"{where}: {error} (an uncalibrated camera publishes zeros)") from error


def _delivered(full: Camera, msg: CameraInfo) -> Camera:
    """Intrinsics of the images as delivered, of those at full resolution: first the region, then binning."""
    roi = msg.roi
    across, down = max(1, int(msg.binning_x)), max(1, int(msg.binning_y))
    x, y = int(roi.x_offset), int(roi.y_offset)
    width, height = (int(roi.width) or full.width - x), (int(roi.height) or full.height - y)
    if x + width > full.width or y + height > full.height or width < across or height < down:
        raise ValueError(
            f"region of interest {width}x{height} at {x}, {y} with binning {across}x{down}: "
            f"not within {full.width}x{full.height}"
        )
    return Camera(
        width // across,
        height // down,
        full.fx / across,
        full.fy / down,
        (full.cx - x + 0.5) / across - 0.5,
        (full.cy - y + 0.5) / down - 0.5,
    )


def info_to_camera(msg: CameraInfo, topic: str = "") -> Camera:
    """Pinhole camera of the images that go with a CameraInfo as they are, distorted or not: ``Lens.raw``.

    Raises:
        ImageError: as ``info_to_lens``.
    """
    return info_to_lens(msg, topic).raw


def says_rectified(topic: str) -> bool:
    """Whether a topic's name says that its images are rectified, as image_proc's do: image_rect, image_rect_color."""
    return any("rect" in re.split(r"[_0-9]+", part) or "rectified" in part for part in topic.lower().split("/"))


def is_distorted(msg: CameraInfo) -> bool:
    """True when the CameraInfo has distortion coefficients, so that its raw images are not rectified."""
    return bool(np.any(np.abs(np.asarray(msg.d, dtype=np.float64)) > 1e-9))


def camera_to_info(camera: Camera, stamp_ns: int = 0, frame_id: str = "") -> CameraInfo:
    """CameraInfo of a pinhole camera, without distortion."""
    msg = camera_to_msg(camera)
    msg.header.stamp = ns_to_stamp(stamp_ns)
    msg.header.frame_id = frame_id
    return msg
