"""The resolution that perception works at: large images are reduced first, object ids enlarged last."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_perception.types import Frame

_NEAR = 0.25
"""Widths from 1 - 0.25 / n of n working widths on are divided by n: 1152 by 2, 848 by 1."""


def reduction(width: int, working_width: int) -> int:
    """The whole number that an image's sides are divided by; 1 where ``working_width`` is 0."""
    return max(1, int(width / working_width + _NEAR)) if working_width > 0 else 1


def reduced(frame: Frame, factor: int) -> Frame:
    """The frame with its sides divided by ``factor``; the rest at the right and at the bottom is dropped.

    Depth is that of one pixel of each block, so that no surfaces are mixed, and the intrinsics are its; color is the
    mean of the block, half a pixel of the large image beside it at most.
    """
    if factor == 1:
        return frame
    height, width = frame.camera.height // factor, frame.camera.width // factor
    color = cv2.resize(frame.color[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
    middle = factor // 2
    depth = np.ascontiguousarray(frame.depth_m[middle::factor, middle::factor][:height, :width])
    own = None if frame.own_depth_m is None else frame.own_depth_m[middle::factor, middle::factor][:height, :width]
    c = frame.camera
    camera = Camera(width, height, c.fx / factor, c.fy / factor, (c.cx - middle) / factor, (c.cy - middle) / factor)
    return replace(frame, color=np.asarray(color, np.uint8), depth_m=depth, camera=camera, own_depth_m=own)


def enlarged(small: NDArray[np.uint16], factor: int, height: int, width: int) -> NDArray[np.uint16]:
    """Ids (H, W) of an image of ``factor`` times the size; the rim beyond the last whole block repeats that block."""
    full = cv2.resize(small, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)[:height, :width]
    below, right = height - full.shape[0], width - full.shape[1]
    if below or right:
        full = cv2.copyMakeBorder(full, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(full, dtype=np.uint16)
