"""What a box carries says how deep it is, where its load hides the far part of its top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.surfaces import ShapeFit
from wm_perception.shapes.unseen import ALLOWED_INTRUSION_M, intrusion_m
from wm_perception.tracking.track import Track
from wm_perception.types import Array

_BEYOND = 0.15
"""Part of a box's depth by which the middle of a load must be beyond the box's own, for the box to end too early.
Larger mends less."""
_GAP_M = 0.015
"""Distance [m] of a load's bottom from the top of what carries it. Larger takes what leans on a box for its load."""
_OVERHANG_M = 0.05
"""How far beyond an edge the middle of a load may be [m]. Larger finds the loads of boxes of which little is seen."""


def under_its_load(
    t: Track, fit: ShapeFit, tracks: Sequence[Track], eye: Array | None, free: FreeSpace | None
) -> ShapeFit:
    """A box made as deep as it must be to carry what stands on it.

    A load hides the far part of the box's top, so that the fit ends too early. A load that would hang over the far edge
    is assumed to stand in the middle, but no more than it covers is hidden by it, and where the camera sees past the
    box it is not: in a heap a flat thing has others about it that stand as high as its top, on something else.

    Args:
        t: the track that the fit is of; tracks: all tracks; eye: (3,) camera position, world [m]; free: what the camera
            sees past the object.
    """
    if fit.shape != Shape.BOX or eye is None or t.motion.moved:
        return fit
    rotation = rotations.matrix(fit.quaternion)
    deepest, before = fit, intrusion_m(fit, free)
    for load in _loads(t, fit, tracks):
        position, extents = deepest.position.copy(), deepest.extents.copy()
        local = (load.position - position) @ rotation
        away = np.where((eye - position) @ rotation > 0.0, -1.0, 1.0)
        for axis in (0, 1):
            beyond = float(away[axis] * local[axis])
            if beyond > _BEYOND * extents[axis]:
                reach = 0.5 * float(np.abs(rotation[:, axis] @ rotations.matrix(load.quaternion)) @ load.extents)
                more = max(min(2.0 * beyond, beyond + reach - 0.5 * extents[axis]), 0.0)
                extents[axis] += more
                position += rotation[:, axis] * away[axis] * 0.5 * more
        deeper = replace(deepest, position=position, extents=extents)
        if (extents != deepest.extents).any() and intrusion_m(deeper, free) < before + ALLOWED_INTRUSION_M:
            deepest = deeper
    return deepest


def _loads(t: Track, fit: ShapeFit, tracks: Sequence[Track]) -> Iterator[Track]:
    """The tracks that stand on a track of this shape."""
    rotation = rotations.matrix(fit.quaternion)
    top = float(fit.position[2] + 0.5 * (np.abs(rotation[2]) @ fit.extents))
    for load in tracks:
        # An object that has moved may lie or lean in any way.
        if load is t or not load.id or load.motion.moved:
            continue
        if abs(load.position[2] - 0.5 * load.vertical_extent - top) > _GAP_M:
            continue
        local = (load.position - fit.position) @ rotation
        if (np.abs(local[:2]) <= 0.5 * fit.extents[:2] + _OVERHANG_M).all():
            yield load
