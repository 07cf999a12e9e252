"""The parameters of every node that reads an RGB-D camera: topics, transports, pairing, lens and unit of depth."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.parameters import parameter


@dataclass(frozen=True)
class CameraParameters:
    """Parameters of a node that reads an RGB-D camera."""

    color_topic: str = parameter("/camera/color/image_raw", "color images", read_only=True)
    depth_topic: str = parameter("/camera/depth/image_raw", "depth images, registered to color", read_only=True)
    camera_info_topic: str = parameter("/camera/color/camera_info", "intrinsics of the color images", read_only=True)
    color_transport: str = parameter(
        "raw", "compressed: reads COLOR_TOPIC/compressed", choices=("raw", "compressed"), read_only=True
    )
    depth_transport: str = parameter(
        "raw",
        "compressed or compressedDepth: reads DEPTH_TOPIC/compressed or DEPTH_TOPIC/compressedDepth",
        choices=("raw", "compressed", "compressedDepth"),
        read_only=True,
    )
    max_stamp_difference_s: float = parameter(
        0.015,
        "color and depth stamps may differ by this; keep below half a frame",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    resize_depth: bool = parameter(False, "bring depth of another size but the same aspect to the size of color")
    rectify: str = parameter(
        "auto",
        "remove the lens's distortion: auto, where the camera info has one and the image's topic is not named "
        "image_rect or the like",
        choices=("auto", "on", "off"),
    )
    depth_scale: float = parameter(
        0.0,
        "meters per unit of the depth images, 0.0001 for 0.1 mm, 0.00025 for 0.25 mm; 0: as REP-118 says, 0.001 of "
        "integers and 1 of floats",
        minimum=0.0,
        maximum=1.0,
    )
    depth_scale_guess: str = parameter(
        "warn",
        "where depth seems to be in another unit: warn with the depth_scale to set, apply it where only one fits and "
        "depth_scale is 0, or off",
        choices=("warn", "apply", "off"),
    )

    @property
    def color_source(self) -> str:
        """Topic that color is read from."""
        return self.color_topic + ("" if self.color_transport == "raw" else f"/{self.color_transport}")

    @property
    def depth_source(self) -> str:
        """Topic that depth is read from."""
        return self.depth_topic + ("" if self.depth_transport == "raw" else f"/{self.depth_transport}")
