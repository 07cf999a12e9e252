"""A camera's images as perception and imagination read them: by the same code, so that their pixels agree.

They are decoded, depth is in meters and of the size of color, and both are in the geometry of one pinhole camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from wm_core.camera import Camera
from wm_core.lens import Lens, Rectifier
from wm_ros.images import camera_info, compressed, pixels


class CameraSettings(Protocol):
    """The part of ``wm_core.camera_parameters.CameraParameters`` that reading images needs; bags' cameras have it."""

    @property
    def color_transport(self) -> str:
        """raw, or how color is compressed."""
        ...

    @property
    def depth_transport(self) -> str:
        """raw, or how depth is compressed."""
        ...

    @property
    def camera_info_topic(self) -> str:
        """Topic of the intrinsics."""
        ...

    @property
    def resize_depth(self) -> bool:
        """Whether depth of another size is brought to that of color."""
        ...

    @property
    def rectify(self) -> str:
        """auto, on or off."""
        ...

    @property
    def depth_scale(self) -> float:
        """Meters per unit; 0: by the kind of the images."""
        ...

    @property
    def depth_scale_guess(self) -> str:
        """warn, apply or off."""
        ...

    @property
    def color_source(self) -> str:
        """Topic of color."""
        ...

    @property
    def depth_source(self) -> str:
        """Topic of depth."""
        ...


def applies_guess(parameters: CameraSettings) -> bool:
    """Whether a guess at the unit of depth is applied: only where the user has not set the unit."""
    return parameters.depth_scale_guess == "apply" and parameters.depth_scale == 0.0


def unit_settings(parameters: CameraSettings) -> tuple[str, float]:
    """The user's settings of the unit of depth; when they change, guessing starts over."""
    return parameters.depth_scale_guess, parameters.depth_scale


class CameraInputError(pixels.ImageError):
    """Images that cannot be used: ``counter`` in diagnostics, what was found, and ``advice`` on what to do."""

    def __init__(self, counter: str, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.counter, self.detail, self.advice = counter, detail, advice


@dataclass(frozen=True)
class CameraImages:
    """One frame.

    Attributes:
        color: (H, W, 3) uint8, RGB. depth_m: (H, W) float32 [m], 0 = no measurement.
        camera: pinhole intrinsics of both.
        depth_unit_m: meters per unit of the depth image that were used.
    """

    color: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: Camera
    depth_unit_m: float


class CameraInput:
    """Reads the messages of one camera; keeps the maps of its lens as long as the calibration stays the same.

    Args:
        color_topic, depth_topic: as subscribed, after remapping; their names tell whether the images are rectified.
    """

    def __init__(self, color_topic: str, depth_topic: str) -> None:
        self.color_topic, self.depth_topic = color_topic, depth_topic
        self._key: tuple[Any, ...] | None = None
        self._lens: Lens | None = None
        self._rectifiers: dict[bool, Rectifier] = {}

    def lens(self, info: CameraInfo, topic: str = "") -> Lens:
        """The lens of a camera info; computed again only when the calibration changes.

        Raises:
            ImageError: as ``camera_info.info_to_lens``.
        """
        roi = info.roi
        key = (info.width, info.height, info.distortion_model, info.binning_x, info.binning_y)
        key += (roi.x_offset, roi.y_offset, roi.width, roi.height)
        key += tuple(np.asarray(v, np.float64).tobytes() for v in (info.d, info.k, info.r, info.p))
        if self._lens is None or key != self._key:
            self._key, self._lens = None, None
            self._lens, self._rectifiers = camera_info.info_to_lens(info, topic), {}
            self._key = key
        return self._lens

    def undistorts(self, lens: Lens, rectify: str, topic: str) -> bool:
        """Whether images on a topic are rectified here."""
        return rectify == "on" or (rectify == "auto" and lens.distorts and not camera_info.says_rectified(topic))

    def corrects(self, lens: Lens, rectify: str) -> bool:
        """Whether color is without the lens's distortion when it is read: undistorted here, or named as rectified."""
        return self.undistorts(lens, rectify, self.color_topic) or camera_info.says_rectified(self.color_topic)

    @staticmethod
    def color(msg: Any, parameters: CameraSettings) -> NDArray[np.uint8]:
        """A color image (H, W, 3), RGB, as it comes, distorted or not.

        Raises:
            CameraInputError: it cannot be decoded.
        """
        p = parameters
        try:
            if p.color_transport == "raw":
                return pixels.image_to_rgb(msg, p.color_source)
            return compressed.compressed_to_rgb(msg, p.color_source)
        except pixels.ImageError as error:
            raise CameraInputError("bad_color", str(error), f"publish {p.color_source} in one of these") from error

    @staticmethod
    def depth(msg: Any, parameters: CameraSettings, depth_factor: float = 1.0) -> tuple[NDArray[np.float32], float]:
        """A depth image (H, W) [m] as it comes, and the meters per unit used; ``depth_factor`` as in ``read``.

        Raises:
            CameraInputError: it cannot be decoded.
        """
        p = parameters
        unit = (p.depth_scale or (1.0 if _is_float(msg) else 0.001)) * depth_factor
        try:
            if p.depth_transport == "raw":
                return pixels.image_to_depth(msg, p.depth_source, unit), unit
            return compressed.compressed_to_depth(msg, p.depth_source, unit), unit
        except pixels.ImageError as error:
            raise CameraInputError("bad_depth", str(error), f"publish {p.depth_source} in one of these") from error

    def read(
        self, color: Any, depth: Any, info: CameraInfo, parameters: CameraSettings, depth_factor: float = 1.0
    ) -> CameraImages:
        """One frame of its messages.

        ``depth_factor``: further factor on depth, where its unit was found to be another.

        Raises:
            CameraInputError: names the topic, what was found, and what to do.
        """
        p = parameters
        rgb = self.color(color, p)
        meters, unit = self.depth(depth, p, depth_factor)
        try:
            lens = self.lens(info, p.camera_info_topic)
        except pixels.ImageError as error:
            advice = "calibrate the camera, or give rectified images with their camera info"
            raise CameraInputError("bad_camera_info", str(error), advice) from error
        height, width = rgb.shape[:2]
        if (lens.raw.width, lens.raw.height) != (width, height):
            raise CameraInputError("camera_info_size", _sizes(info, lens, p, width, height), _SIZE_ADVICE)
        if meters.shape != (height, width):
            meters = self._fit_depth(meters, width, height, p)
        return CameraImages(*self._rectified(rgb, meters, lens, p), unit)

    def _rectified(
        self, rgb: NDArray[np.uint8], meters: NDArray[np.float32], lens: Lens, p: CameraSettings
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], Camera]:
        color_raw = self.undistorts(lens, p.rectify, self.color_topic)
        depth_raw = self.undistorts(lens, p.rectify, self.depth_topic)
        if not color_raw and not depth_raw:
            # P belongs to rectified images; without distortion K belongs to the sensor's.
            named = camera_info.says_rectified(self.color_topic) or lens.distorts
            return rgb, meters, lens.rectified if named else lens.raw
        # Where one image is rectified already, the other is rotated into its frame; else both stay in the sensor's.
        turn = color_raw != depth_raw
        if turn not in self._rectifiers:
            self._rectifiers[turn] = Rectifier(lens, turn)
        rectifier = self._rectifiers[turn]
        return (
            rectifier.color(rgb) if color_raw else rgb,
            rectifier.depth(meters) if depth_raw else meters,
            rectifier.camera,
        )

    @staticmethod
    def _fit_depth(depth: NDArray[np.float32], width: int, height: int, p: CameraSettings) -> NDArray[np.float32]:
        depth_height, depth_width = depth.shape
        sizes = f"depth on {p.depth_source} is {depth_width}x{depth_height}, color on {p.color_source} {width}x{height}"
        if abs(depth_width * height - depth_height * width) > max(width, height):
            raise CameraInputError("size_mismatch", sizes, "use depth that is registered to color")
        if not p.resize_depth:
            advice = "use depth registered to color, or set resize_depth to true"
            raise CameraInputError("size_mismatch", sizes, advice)
        return pixels.resize_depth(depth, width, height)


_SIZE_ADVICE = "publish the camera info of these images"


def _sizes(info: CameraInfo, lens: Lens, p: CameraSettings, width: int, height: int) -> str:
    text = f"camera info on {p.camera_info_topic} is for {lens.raw.width}x{lens.raw.height}"
    if (lens.raw.width, lens.raw.height) != (info.width, info.height):
        text += (
            f" ({info.width}x{info.height} with region {info.roi.width}x{info.roi.height} and binning "
            f"{info.binning_x}x{info.binning_y})"
        )
    return f"{text}, images on {p.color_source} are {width}x{height}"


def _is_float(depth: Any) -> bool:
    """Whether a depth message holds floats [m], or integers [mm]."""
    kind = getattr(depth, "encoding", "") or getattr(depth, "format", "")
    return str(kind).upper().startswith("32FC1")
