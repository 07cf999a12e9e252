"""Images, clouds and intrinsics between messages and NumPy arrays: one name for what lies in several modules."""

from wm_ros.camera_info import camera_to_info, info_to_camera, info_to_lens, is_distorted, says_rectified
from wm_ros.clouds import cloud_to_points, points_to_cloud
from wm_ros.compressed import compressed_to_depth, compressed_to_rgb, depth_to_compressed, rgb_to_compressed
from wm_ros.pixels import (
    COLOR_ENCODINGS,
    DEPTH_ENCODINGS,
    ENCODINGS,
    ImageError,
    array_to_image,
    depth_to_image,
    depth_to_millimetres,
    image_to_array,
    image_to_depth,
    image_to_rgb,
    resize_depth,
    rgb_to_image,
)

__all__ = [
    "COLOR_ENCODINGS",
    "DEPTH_ENCODINGS",
    "ENCODINGS",
    "ImageError",
    "array_to_image",
    "camera_to_info",
    "cloud_to_points",
    "compressed_to_depth",
    "compressed_to_rgb",
    "depth_to_compressed",
    "depth_to_image",
    "depth_to_millimetres",
    "image_to_array",
    "image_to_depth",
    "image_to_rgb",
    "info_to_camera",
    "info_to_lens",
    "is_distorted",
    "points_to_cloud",
    "resize_depth",
    "rgb_to_compressed",
    "rgb_to_image",
    "says_rectified",
]
