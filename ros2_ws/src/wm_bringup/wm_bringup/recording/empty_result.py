"""Why a recording gave scene graphs with nothing in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.planes import find_planes
from wm_perception.lifting.supports import carries
from wm_perception.types import Frame, PerceptionConfig

_FACES_UP = 0.94
"""Cosine to the vertical within which a surface may be a support, as in ``wm_perception.lifting.supports``."""


def empty_text(graphs: int, supports: int, frame: Frame | None = None, config: PerceptionConfig | None = None) -> str:
    """One line on a result without objects.

    Args:
        graphs: scene graphs that came; supports: the most in one of them.
        frame: one of them, as perception took it, to look for the reason in.
        config: of perception.
    """
    what = f"an empty result: {graphs} scene graphs"
    if supports:
        what += f" with at most {supports} support{'s' if supports > 1 else ''} and no object"
    else:
        what += " without a support or an object"
    why = reasons(frame, config or PerceptionConfig()) if frame is not None else []
    if not why:
        why = ["nothing on it is taken for an object"] if supports else ["no level surface was seen"]
    return f"{what}; {'; '.join(why)}"


def reasons(frame: Frame, config: PerceptionConfig) -> Sequence[str]:
    """What stands in the way of objects in a frame, in words; empty: nothing that is known."""
    found: list[str] = []
    measured = np.isfinite(frame.depth_m) & (frame.depth_m > 0.0)
    share = float(measured.mean())
    if share < 0.2:
        found.append(f"only {100.0 * share:.1f} % of the pixels have depth")
    if not measured.any():
        return found
    far = float((frame.depth_m[measured] > config.max_depth_m).mean())
    median = float(np.median(frame.depth_m[measured]))
    if far > 0.5:
        found.append(
            f"{100.0 * far:.0f} % of the depth is beyond max_depth_m ({config.max_depth_m:g} m): is its unit right?"
        )
    elif median < 0.15:
        found.append(f"the median depth is {median:.3f} m: is its unit right?")
    cloud = make_cloud(frame, config.stride, config.max_depth_m)
    known = np.isfinite(cloud.normals).all(axis=-1)
    if int(known.sum()) < config.min_pixels:
        return found or ["no surface is seen"]
    level = float((cloud.normals[known][:, 2] > _FACES_UP).mean())
    planes = find_planes(cloud, config)
    if not planes:
        found.append(
            f"no level surface of {config.support_min_area_m2:g} m² is seen "
            f"({100.0 * level:.1f} % of what is seen faces up: is the world frame z-up? --level on turns a folder's)"
        )
        return found
    camera_height = float(frame.world_T_camera[2, 3])
    below = [camera_height - plane.height_m for plane, _ in planes]
    lowest = min(plane.height_m for plane, _ in planes)
    if not any(carries(plane.height_m, lowest, camera_height, config) for plane, _ in planes):
        found.append(
            f"the only level surfaces are {min(below):.2f} m and more below the camera, and objects are looked for "
            f"down to floor_below_camera_m ({config.floor_below_camera_m:g} m)"
        )
    return found
