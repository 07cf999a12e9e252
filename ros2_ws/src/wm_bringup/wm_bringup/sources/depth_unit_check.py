"""A word on recordings whose depth looks to be in another unit than the folder's layout says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.health.depth_unit import DepthUnitWatch
from wm_perception.types import Frame

_FRAMES = 3


def depth_unit_warning(frame: Callable[[int], Frame], count: int, unit_m: float) -> str:
    """What is wrong with the unit of depth, with the --depth-scale to try; empty: nothing that can be told.

    Args:
        frame: gives a frame by its number, in a world with z up; count: how many there are.
        unit_m: meters per unit that they were read with.
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
