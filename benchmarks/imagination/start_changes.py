"""How far the start of a future is from what was perceived, and what of that the overlaps demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mujoco
import numpy as np
from rich.table import Table

from wm_core.rollout import POSITION
from wm_core.scene_graph import SceneGraph
from wm_dynamics.belief import scene_states
from wm_dynamics.mujoco.penetration import OVERLAP_M
from wm_dynamics.mujoco.world import World
from wm_dynamics.settling.preparation import ScenePreparation
from wm_dynamics.settling.projection import PartPairs, deepest

OVERLAPS_MM = 1e3 * OVERLAP_M
"""Depth [mm] from which two bodies lie in one another."""
ROWS = {
    "all": "moved: all objects",
    "clear": "moved: what overlapped nothing",
    "overlapping": "moved: what overlapped something",
    "overlap": "... by",
    "beyond_overlap": "... and was moved beyond that by",
}
"""Rows of the table, by their names in the figures."""
_STEP_S = 1.0 / 240.0
_NEAR_M = 1e-6
"""Distance [m] up to which parts are looked at: only what overlaps counts."""


@dataclass
class StartChanges:
    """The start of a scene's futures against what was perceived.

    Attributes:
        moved_mm: of each movable object, how far its center was moved.
        overlap_mm: of each of these, how deep it lay in another body as it was seen, where errors of the poses explain
            that; 0: in none.
        left_mm: depth of each overlap at the start that is deeper than ``OVERLAPS_MM``, of what was to be parted.
        passing_mm: depth of each overlap that errors of the poses do not explain, so that it stays.
    """

    moved_mm: list[float] = field(default_factory=list)
    overlap_mm: list[float] = field(default_factory=list)
    left_mm: list[float] = field(default_factory=list)
    passing_mm: list[float] = field(default_factory=list)


def start_changes(graph: SceneGraph) -> StartChanges:
    """The start of the mean of a scene, as both backends make it."""
    preparation = ScenePreparation(graph, None, _STEP_S)
    movable = np.flatnonzero(~graph.is_static)
    # What is held because nothing carries it was moved before it was held.
    static = graph.is_static.tolist()
    bodies = [replace(b, is_static=s) for b, s in zip(preparation.bodies, static, strict=True)]
    world = World(bodies, preparation.floor_z, _STEP_S, touch_sensors=False)
    seen, start = scene_states(graph), preparation.start(graph)
    pairs = [(a, b) for a in range(len(graph)) for b in range(a + 1, len(graph)) if not (static[a] and static[b])]
    parts = PartPairs(world, mujoco.MjData(world.model), pairs)
    before, after = deepest(parts.near(seen, _NEAR_M)), deepest(parts.near(start, _NEAR_M))
    passing = set(preparation.passing)
    depth = np.zeros(len(graph))
    for pair, overlap in before.items():
        if pair not in passing and -1e3 * overlap.distance > OVERLAPS_MM:
            depth[list(pair)] = np.maximum(depth[list(pair)], -1e3 * overlap.distance)
    moved = 1e3 * np.linalg.norm(start[:, POSITION] - seen[:, POSITION], axis=1)
    deep = {pair: -1e3 * o.distance for pair, o in after.items() if -1e3 * o.distance > OVERLAPS_MM}
    return StartChanges(
        moved[movable].tolist(),
        depth[movable].tolist(),
        [d for pair, d in deep.items() if pair not in passing],
        [d for pair, d in deep.items() if pair in passing],
    )


def changes_summary(changes: Sequence[StartChanges]) -> dict[str, Any]:
    """Figures [mm] of all objects of scenes: of those that lay in nothing, and of those that did."""
    moved = np.array([m for c in changes for m in c.moved_mm])
    overlap = np.array([o for c in changes for o in c.overlap_mm])
    left, passing = [d for c in changes for d in c.left_mm], [d for c in changes for d in c.passing_mm]
    return {
        "all": _spread(moved),
        "clear": _spread(moved[overlap == 0.0]),
        "overlapping": _spread(moved[overlap > 0.0]),
        "overlap": _spread(overlap[overlap > 0.0]),
        "beyond_overlap": _spread(np.maximum(moved - overlap, 0.0)[overlap > 0.0]),
        "left": len(left),
        "left_worst_mm": max(left, default=0.0),
        "passing": len(passing),
        "passing_worst_mm": max(passing, default=0.0),
    }


def changes_table(figures: dict[str, Any]) -> Table:
    """The figures for people."""
    left, passing = figures["left"], figures["passing"]
    result = Table(
        title="start against what was perceived [mm]",
        caption=f"overlaps that are left: {left}, worst {figures['left_worst_mm']:.1f} mm; deeper than errors of poses "
        f"explain, so that they stay: {passing}, worst {figures['passing_worst_mm']:.0f} mm",
    )
    for name in ("what", "objects", "median", "p90", "worst"):
        result.add_column(name)
    for key, what in ROWS.items():
        f = figures[key]
        result.add_row(what, str(f["objects"]), f"{f['median_mm']:.2f}", f"{f['p90_mm']:.1f}", f"{f['worst_mm']:.1f}")
    return result


def _spread(values: Any) -> dict[str, float]:
    """Count, median, 90 % quantile and largest."""
    if not len(values):
        return {"objects": 0, "median_mm": 0.0, "p90_mm": 0.0, "worst_mm": 0.0}
    return {
        "objects": len(values),
        "median_mm": float(np.median(values)),
        "p90_mm": float(np.percentile(values, 90)),
        "worst_mm": float(np.max(values)),
    }
