"""Depth images without the robot's own body.

A robot knows from its joints where its arm or paddle is. Seen as one more object, and pressed against what it moves, it
would be taken for a part of that. So its pixels are left unmeasured, as the self filters of robots do. Their depth is
kept apart: behind it objects go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wm_core.geometry import invert_transform, pose_matrix
from wm_perception.types import Array, Frame

MARGIN_M = 0.008
"""The body is this much larger on all sides [m]: more than depth noise at a meter, and a pixel's mixed edge. Larger
takes more of what is pressed against it; smaller leaves a rim of the body."""
_AT_LEAST_M = 0.02
"""Corners nearer to the image plane than this [m] have no place in the image: all of the image is looked at then."""


@dataclass(frozen=True)
class OwnBox:
    """A box of the robot's own body.

    Attributes:
        extents: (3,) full sizes [m]. position, quaternion: of its center in the world frame [m, xyzw].
    """

    extents: Array
    position: Array
    quaternion: Array


def without_own_body(frame: Frame, boxes: list[OwnBox], margin_m: float = MARGIN_M) -> Frame:
    """The frame with the depth of what lies in the boxes in ``Frame.own_depth_m``, and not measured."""
    depth = np.array(frame.depth_m, dtype=np.float32)
    camera = frame.camera
    for box in boxes:
        camera_T_box = invert_transform(frame.world_T_camera) @ pose_matrix(box.position, box.quaternion)
        half = 0.5 * np.asarray(box.extents) + margin_m
        signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        corners = (signs * half) @ camera_T_box[:3, :3].T + camera_T_box[:3, 3]
        rows, columns = slice(0, camera.height), slice(0, camera.width)
        if corners[:, 2].min() > _AT_LEAST_M:
            u = corners[:, 0] / corners[:, 2] * camera.fx + camera.cx
            v = corners[:, 1] / corners[:, 2] * camera.fy + camera.cy
            columns = slice(max(int(u.min()), 0), max(int(u.max()) + 2, 0))
            rows = slice(max(int(v.min()), 0), max(int(v.max()) + 2, 0))
        elif corners[:, 2].max() <= 0.0:
            continue
        part = depth[rows, columns]
        if not part.size:
            continue
        y, x = np.mgrid[rows.start : rows.start + part.shape[0], columns.start : columns.start + part.shape[1]]
        rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones(part.shape)], axis=-1)
        points = (rays * part[..., None] - camera_T_box[:3, 3]) @ camera_T_box[:3, :3]
        part[(np.abs(points) < half).all(axis=-1)] = 0.0
    own = np.where((depth == 0.0) & (frame.depth_m > 0.0), frame.depth_m, np.float32(0.0))
    return replace(frame, depth_m=depth, own_depth_m=own)
