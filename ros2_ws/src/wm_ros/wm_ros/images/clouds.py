"""PointCloud2 messages to and from NumPy arrays."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from wm_ros.images.pixels import ImageError
from wm_ros.stamps import ns_to_stamp

_POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


def points_to_cloud(
    points: NDArray[np.floating[Any]],
    colors: NDArray[np.uint8] | None = None,
    stamp_ns: int = 0,
    frame_id: str = "",
) -> PointCloud2:
    """PointCloud2 of points (P, 3) [m, in ``frame_id``] and colors (P, 3) uint8 red first (None: white).

    Points that are not finite are left out. Fields: x, y, z float32 and rgb packed as 0x00RRGGBB, as RViz
    reads it.

    Raises:
        ImageError: shapes do not match.
    """
    xyz = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    rgb = np.full((len(xyz), 3), 255, np.uint8) if colors is None else np.asarray(colors, dtype=np.uint8).reshape(-1, 3)
    if len(rgb) != len(xyz):
        raise ImageError(f"point cloud: {len(rgb)} colors, expected {len(xyz)} (one per point)")
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
    """Points (P, 3) float32 [m] and colors (P, 3) uint8 of a cloud with the layout of ``points_to_cloud``.

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
