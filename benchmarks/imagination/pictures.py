"""The worst futures as a picture: where objects were, where they went, and what was imagined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from benchmarks.imagination.accuracy import ground_truth_solid, imagine
from benchmarks.imagination.metrics import Array, row_at
from benchmarks.imagination.perceived import perceive
from benchmarks.imagination.scores import Worst
from benchmarks.imagination.starts import Aligned, ground_truth_of, true_start
from benchmarks.imagination.worlds import Case, make_case
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_dynamics.base import Dynamics
from wm_dynamics.mujoco.bodies import GeomDef, geom_points

Image = NDArray[np.uint8]

_SIDE = 360
"""Pixels of a square picture."""
_METERS = 1.5
"""Its width in the world [m]; objects start within 0.55 m of the middle."""
_BEFORE, _TRUE, _IMAGINED = (190, 190, 190), (40, 150, 60), (215, 60, 50)
"""RGB 0..255 of the outlines at the start, and of the true and the imagined ones at ``_AT_S``."""
_AT_S = 1.0
"""Time [s] of the true and imagined outlines."""


def _outline(points: Array) -> Array:
    """Corners (Q, 2) of the hull of points (P, 2)."""
    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except QhullError:
        return points


def _draw(
    image: Image, points: Array, center: Array, color: tuple[int, int, int], width: int, columns: Sequence[int]
) -> None:
    flat = (points - center)[:, list(columns)] * [1.0, -1.0] * (_SIDE / _METERS) + 0.5 * _SIDE
    corners = np.round(np.clip(_outline(flat), -5000, 5000) * 16).astype(np.int32)
    cv2.polylines(image, [corners.reshape(-1, 1, 2)], True, color, width, cv2.LINE_AA, shift=4)


def _points(solid: tuple[int, Array, Array], state: Array) -> Array:
    body = GeomDef(Shape(solid[0]), np.asarray(solid[1], float), hull=np.asarray(solid[2], float))
    return geom_points(body) @ quaternion_to_matrix(state[QUATERNION]).T + state[POSITION]


def tile(case: Case, future: Aligned, worst: Worst, state: str) -> Image:
    """One future, from above (x to the right, y up) and from the side (x, z)."""
    row, k = row_at(case.times, _AT_S), worst.scenario
    ground_truth = ground_truth_of(case)
    center = np.array([0.0, 0.0, case.table_top_m + 0.2])
    pictures = []
    for columns in ((0, 1), (0, 2)):
        image = np.full((_SIDE, _SIDE, 3), 252, np.uint8)
        for m in range(len(case.object_ids)):
            solid = ground_truth_solid(case, k, m)
            if solid is None:
                continue
            static = m < len(case.scene) and bool(case.scene.is_static[m])
            if case.present[k, 0, m]:
                color = (120, 120, 120) if static else _BEFORE
                _draw(image, _points(solid, ground_truth.states[k, 0, m]), center, color, 1, columns)
            if static:
                continue
            if case.present[k, row, m]:
                _draw(image, _points(solid, ground_truth.states[k, row, m]), center, _TRUE, 2, columns)
            own = future.solids[m]
            if own is not None and future.present[k, row, m]:
                _draw(image, _points(own, future.states[k, row, m]), center, _IMAGINED, 1, columns)
        pictures.append(image)
    band = np.full((40, 2 * _SIDE + 4, 3), 238, np.uint8)
    words = (
        f"{worst.split} {worst.seed}, {worst.kind}, {worst.method} from {state} state: "
        f"{100 * worst.error_m:.0f} cm at 1 s",
        "gray: at the start; green: true; red: imagined. left: from above, right: from the side",
    )
    for line, text in enumerate(words):
        cv2.putText(band, text, (6, 15 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.43, (20, 20, 20), 1, cv2.LINE_AA)
    gap = np.full((_SIDE, 4, 3), 200, np.uint8)
    return np.vstack([band, np.hstack([pictures[0], gap, pictures[1]])])


def draw_worst(path: Path, dynamics: Dynamics, chosen: Sequence[tuple[str, Worst]]) -> int:
    """Write a contact sheet of (state, future), two in a row; returns how many were drawn."""
    tiles = []
    for state, worst in chosen:
        case = make_case(worst.split, worst.seed)  # type: ignore[arg-type]
        start = None if case is None else true_start(case) if state == "true" else perceive(case)
        if case is not None and start is not None:
            tiles.append(tile(case, imagine(dynamics, case, start), worst, state))
    if not tiles:
        return 0
    if len(tiles) % 2:
        tiles.append(np.full_like(tiles[0], 252))
    gap = np.full((tiles[0].shape[0], 12, 3), 252, np.uint8)
    sheet = np.vstack([np.hstack([a, gap, b]) for a, b in zip(tiles[::2], tiles[1::2], strict=True)])
    cv2.imwrite(str(path), sheet[..., ::-1])
    return len(chosen)
