"""Which of the fits of a track is its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wm_core.scene_graph import Shape
from wm_perception.shapes.leaning import is_tilted
from wm_perception.shapes.surfaces import ShapeFit
from wm_perception.types import Array

_ALIKE, _ALIKE_M, _ALIKE_PLACE_M = 0.12, 0.002, 0.008
"""Part of the extents, and distances of extents and centers [m], within which fits of one object agree, so that their
differences are noise. Larger averages over more of them, and over wrong ones."""


def choose(fits: list[ShapeFit], at_rest: bool) -> tuple[ShapeFit, int, ShapeFit]:
    """The shape of the kind that explains its views best, the count of fits of that kind, and the last of them.

    An inside that was seen counts before all else, pieces of a solid where most fits have some. A kind's score is the
    sum of 1 / (residual + 1 mm) of its fits. Extents are the median of all fits of the kind; of convex hulls the
    largest is taken.

    Args:
        at_rest: it has not moved since its birth: then fits stand where the object does, and of the kind those that
            agree with the middle one are averaged, their centers too.
    """
    # One that lies across others is seen so in most views; solids of another turn have other sizes. The last one
    # breaks ties.
    tilted = [f for f in fits if is_tilted(f)]
    upright = [f for f in fits if not is_tilted(f)]
    fits = tilted if len(tilted) + is_tilted(fits[-1]) > len(upright) else upright
    compound = [f for f in fits if f.parts]
    hollow = [f for f in compound if f.inside_seen >= 0.0]
    if hollow or 2 * len(compound) > len(fits):
        # The inside is known best from where most of it was seen; else the middle one by size.
        most = max(f.inside_seen for f in compound)
        compound = [f for f in compound if f.inside_seen >= most - 0.1]
        compound.sort(key=lambda f: float(np.prod(f.extents)))
        middle = compound[len(compound) // 2]
        return middle, len(compound), middle
    # Pieces that only some fits have are not of the object; the outline of those fits is as good as that of others.
    fits = [replace(f, parts=()) if f.parts else f for f in fits]
    score = {
        k: sum(1.0 / (f.residual_m + 0.001) for f in fits if f.shape == k) for k in sorted({f.shape for f in fits})
    }
    kind = max(score, key=score.__getitem__)
    same = [f for f in fits if f.shape == kind]
    last = same[-1]
    if at_rest:
        middle = np.median([_like(f, last) for f in same], axis=0)
        chosen = min(same, key=lambda f: float(np.abs(_like(f, last) - middle).sum()))
        return _averaged(chosen, same), len(same), chosen
    if kind == Shape.CONVEX:
        return max(same, key=lambda f: float(np.prod(f.extents))), len(same), last
    extents = np.median([_like(f, last) for f in same], axis=0)
    return ShapeFit(kind, last.position, last.quaternion, extents, last.residual_m), len(same), last


def _averaged(fit: ShapeFit, fits: Sequence[ShapeFit]) -> ShapeFit:
    """A fit with the median center and extents of those that agree with it; hulls as they are."""
    if fit.shape == Shape.CONVEX:
        return fit
    alike = [
        f
        for f in fits
        if (np.abs(_like(f, fit) - fit.extents) < _ALIKE * fit.extents + _ALIKE_M).all()
        and np.linalg.norm(f.position - fit.position) < _ALIKE_PLACE_M
    ]
    return replace(
        fit,
        position=np.median([f.position for f in alike], axis=0),
        extents=np.median([_like(f, fit) for f in alike], axis=0),
    )


def _like(fit: ShapeFit, reference: ShapeFit) -> Array:
    """Extents of a fit in the axes of another of the same kind (boxes may have swapped x and y)."""
    if fit.shape != Shape.BOX:
        return fit.extents
    yaw = 2.0 * np.arctan2(fit.quaternion[2], fit.quaternion[3])
    other = 2.0 * np.arctan2(reference.quaternion[2], reference.quaternion[3])
    turns = int(np.round((yaw - other) / (0.5 * np.pi)))
    return fit.extents[[1, 0, 2]] if turns % 2 else fit.extents
