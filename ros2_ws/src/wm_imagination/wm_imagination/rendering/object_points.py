"""Colored points of the objects of an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import Hypothesis
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import targets
from wm_imagination.appearance.model import Appearance
from wm_imagination.appearance.points import sample_object
from wm_imagination.rendering.primitives import shade

_PRIMITIVE_POINTS = 1000
"""Points of an object that was never seen; it has no texture that more would show."""


def object_points(
    scene: SceneGraph,
    futures: Sequence[Hypothesis],
    object_ids: NDArray[np.int64],
    appearance: Appearance | None,
    limit: int,
) -> tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.uint8], ...]]:
    """Points (P, 3) [m] and colors (P, 3) of every object in its own frame; of its shape where it was never seen.

    Args:
        object_ids: (M,) those of the scene, then of bodies that the futures create; limit: points of each at most.
    """
    created = {
        m: i.body for h in futures for m, i in reversed(targets(scene, h)) if i.creates_body and i.body is not None
    }
    points, colors = [], []
    for m, object_id in enumerate(object_ids.tolist()):
        seen = None
        if m < len(scene):
            if appearance is not None:
                seen = appearance.completed(object_id, scene.colors[m])
            shape, extents = int(scene.shapes[m]), scene.extents[m]
            hull, parts, color = scene.hulls[m], scene.parts[m], scene.colors[m]
        else:
            body = created[m]
            shape, extents, hull, parts, color = int(body.shape), body.extents, None, (), body.color
        if seen is None or not len(seen):
            seen = sample_object(shape, extents, hull, parts, min(_PRIMITIVE_POINTS, limit))
            points.append(seen.points)
            colors.append(shade(color, seen.normals))
        else:
            step = int(np.ceil(len(seen) / limit))
            points.append(np.ascontiguousarray(seen.points[::step]))
            colors.append(np.ascontiguousarray(seen.colors[::step]))
    return tuple(points), tuple(colors)
