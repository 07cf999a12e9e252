"""How large an object likely is on sides that were not seen, from its class and the sizes that were.

The posterior over the things of ``size_table``: each counts by how well it has the sizes that are known (a kernel in
their logarithms) and reaches those that are only known to be exceeded. Nothing about the far side of a carton is seen
from its front; what cartons of this width and height are like is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from wm_perception.shapes.size_table import SIZES_MM
from wm_perception.shapes.surfaces import Array

_ALIKE = 0.18
"""Standard deviation of the logarithm of a known size within which a thing of the table is alike. Larger takes more
things into account, less like this one."""
_BEYOND = 0.08
"""The same of a thing that is smaller than what was seen. Larger allows things that are too small."""
_FLOOR = 1e-3
"""Weight of a thing that is not alike at all: where none is, all of them count. Larger pulls toward the class."""
_UNKNOWN = "object"


@cache
def _sizes(name: str) -> Array:
    """(K, 3) sizes [m] of a class along two level axes and upward, both ways around."""
    table = 1e-3 * np.array(SIZES_MM.get(name) or SIZES_MM[_UNKNOWN], np.float64)
    return np.concatenate([table, table[:, [1, 0, 2]]])


def likely_extents(class_name: str, extents: Array, known: NDArray[np.bool_], rank: float = 0.5) -> Array:
    """Likely full sizes (3,) of an object along two level axes and upward [m].

    Args:
        class_name: "" or unknown to the table: of no class.
        extents: (3,) sizes seen [m]; known: (3,) bool, False where the object goes on unseen, so that it is larger.
        rank: of the size among all that are likely, 0..1: the median, or a smaller one.
    """
    sizes = _sizes(class_name)
    ratio = np.log(np.maximum(sizes, 1e-4) / np.maximum(extents, 1e-4))
    misfit = np.where(known, ratio / _ALIKE, np.minimum(ratio, 0.0) / _BEYOND)
    # Of a thing that something hides from a random place on, the chance to see just this much is one over its size.
    chance = np.where(known, 1.0, np.minimum(np.exp(-ratio), 1.0)).prod(axis=1)
    weights = chance * (np.exp(-0.5 * np.square(misfit).sum(axis=1)) + _FLOOR / len(sizes))
    weights /= weights.sum()
    likely = np.asarray(extents, np.float64).copy()
    for axis in np.flatnonzero(~known):
        values = np.maximum(sizes[:, axis], extents[axis])
        order = np.argsort(values)
        likely[axis] = values[order][np.searchsorted(np.cumsum(weights[order]), rank).clip(0, len(values) - 1)]
    return likely
