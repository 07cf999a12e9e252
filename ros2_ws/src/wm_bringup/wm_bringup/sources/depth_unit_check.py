"""Warns of recordings whose depth appears to be in another unit than the folder's layout specifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.health.depth_unit import DepthUnitWatch
from wm_perception.types import Frame

_FRAMES = 3
"""Number of frames checked, evenly spread over the recording. More frames cost time in proportion."""


def depth_unit_warning(frame: Callable[[int], Frame], count: int, unit_m: float) -> str:
    """A warning that names the --depth-scale to try; empty where no other unit fits clearly better.

    Args:
        frame: returns the frame of an index, with its pose in a world whose z points up.
        count: the number of frames.
        unit_m: meters per unit that the frames were read with.
    """
    watch = DepthUnitWatch()
    guess = None
    chosen: Sequence[int] = np.linspace(0, count - 1, _FRAMES).round().astype(int).tolist()
    for number in chosen:
        seen = frame(number)
        pose: NDArray[np.float64] = seen.world_T_camera
        guess = watch.look(seen.depth_m, seen.camera, pose)
    if guess is None or guess.factor == 1.0:
        return ""
    return (
        f"depth, read as {1000.0 * unit_m:g} mm a unit, looks wrong: {guess.evidence}; try --depth-scale "
        f"{guess.advice(unit_m)} (meters per unit), or give {unit_m:g} if that is right"
    )
