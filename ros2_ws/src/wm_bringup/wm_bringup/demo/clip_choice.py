"""Which object of a recorded clip futures are imagined of, and which futures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wm_bringup.demo.scenarios import clearance, distance_to_edge, object_name, radius_xy, support_of
from wm_core import interventions as do
from wm_core.camera import Camera
from wm_core.constants import GRAVITY_M_S2
from wm_core.geometry import invert_transform
from wm_core.interventions import Hypothesis
from wm_core.scene_graph import PRIOR_FRICTION, SceneGraph

COMPACT_M = (0.04, 0.25)
"""Smallest and largest side [m] of an object that may be chosen: between noise and furniture. Set by hand."""
FALLS_BEYOND_M = 0.15
"""Where a pushed object is checked to be in view [m]: this far beyond the edge, and this far below it. Set by hand."""
_DIRECTIONS = 72
"""Tried around an object: every 5 degrees."""


def in_view(world_T_camera: NDArray[np.float64], point: NDArray[np.float64], radius_m: float, camera: Camera) -> float:
    """How far [fraction of the image's half size] a ball is from the nearest border; negative: not wholly in view."""
    x, y, z = (invert_transform(world_T_camera) @ np.append(point, 1.0))[:3]
    if z <= 0.1:
        return -1.0
    right, down = camera.fx * radius_m / z, camera.fy * radius_m / z
    u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    across = min(u - right, camera.width - u - right) / (0.5 * camera.width)
    along = min(v - down, camera.height - v - down) / (0.5 * camera.height)
    return float(max(min(across, along), -1.0))


def choose_object(graphs: list[SceneGraph]) -> int | None:
    """Id of the compact object on a large surface that was seen most often; None: there is none.

    Compact by its latest size, as an object is often seen only in part at first.
    """
    areas: dict[int, float] = {}
    latest = {int(i): np.sort(e) for graph in graphs for i, e in zip(graph.ids, graph.extents, strict=True)}
    votes: dict[int, float] = {}
    for graph in graphs:
        for row in np.flatnonzero(~graph.is_static).tolist():
            extents = latest[int(graph.ids[row])]
            if extents[0] < COMPACT_M[0] or extents[2] > COMPACT_M[1]:
                continue
            support = support_of(graph, row)
            if support is None or graph.last_seen_ns[row] != graph.stamp_ns:
                continue
            object_id = int(graph.ids[row])
            areas[object_id] = float(np.prod(graph.extents[support][:2]))
            votes[object_id] = votes.get(object_id, 0.0) + float(graph.visibilities[row])
    if not votes:
        return None
    largest = max(areas.values())
    return max(votes, key=lambda i: votes[i] * (1.0 if areas[i] > 0.25 * largest else 0.1))


def shortest_way_off(
    graph: SceneGraph, row: int, cost_of: Callable[[NDArray[np.float64]], float] = lambda fallen: 0.0
) -> tuple[NDArray[np.float64], float]:
    """Unit direction (2,) of the shortest free way over the edge of what an object stands on, and its length [m].

    Args:
        cost_of: penalty [m] of a way, by the place (3,) [m] that it leads to, in the air beside the edge.
    """
    best: tuple[float, NDArray[np.float64], float] | None = None
    for k in range(_DIRECTIONS):
        angle = 2.0 * np.pi * k / _DIRECTIONS
        direction = np.array([np.cos(angle), np.sin(angle)])
        edge = distance_to_edge(graph, row, direction)
        if not np.isfinite(edge):
            continue
        free = clearance(graph, row, direction, radius_xy(graph, row))
        fallen = graph.positions[row] + np.array([*((edge + FALLS_BEYOND_M) * direction), -FALLS_BEYOND_M])
        # A way that is blocked gets a penalty of half a meter.
        cost = edge + (0.5 if free < edge - 1e-6 else 0.0) + cost_of(fallen)
        if best is None or cost < best[0]:
            best = (cost, direction, edge)
    if best is None:
        return np.array([1.0, 0.0]), 0.3
    return best[1], best[2]


def clip_scenarios(graph: SceneGraph, object_id: int, camera: Camera) -> list[tuple[Hypothesis, str, str]]:
    """(hypothesis, title, what is changed): nothing, the object removed, the object pushed off its support."""
    row = graph.index(object_id)
    who = object_name(graph, object_id)

    def out_of_view(fallen: NDArray[np.float64]) -> float:
        return 0.3 if in_view(graph.world_T_camera, fallen, radius_xy(graph, row), camera) < 0.0 else 0.0

    direction, distance = shortest_way_off(graph, row, out_of_view)
    # Sliding to a stop at speed v takes v^2 / (2 mu g); the object shall still move at the edge.
    speed = float(np.sqrt(2.0 * PRIOR_FRICTION * GRAVITY_M_S2 * (distance + radius_xy(graph, row)))) + 0.3
    velocity = speed * np.array([*direction, 0.0])
    return [
        (Hypothesis("factual"), "What will happen?", "nothing is changed"),
        (Hypothesis("remove", (do.remove(object_id),)), f"What if {who} were not there?", "it is removed"),
        (
            Hypothesis("push", (do.set_velocity(object_id, velocity.tolist()),)),
            f"What if {who} were pushed off the table?",
            f"it gets {speed:.1f} m/s towards an edge {100 * distance:.0f} cm away",
        ),
    ]
