"""Distance of a place from the goal along a free way."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from wm_planning.outlines import Array, gap

_CELL_M = 0.02
"""Edge of a grid cell [m]: larger, and narrow gaps close; smaller, and the search is slower."""
_TALL_WEIGHT, _OTHER_WEIGHT = 8.0, 3.0
"""Extra cost of a meter at the outline of a tall or of another object, relative to a free one: larger, and the way
makes longer detours."""
_EDGE_M, _EDGE_WEIGHT = 0.03, 10.0
"""Closer to the edge than this [m] a meter costs more, at the edge by this factor: what falls off is lost."""
_BEYOND_WEIGHT = 5.0
"""Cost of a meter beyond the support's edge."""


class CostToGo:
    """The length of the way from anywhere on the support to the goal, for the target's center.

    Dijkstra on a grid of 2 cm with 16 neighbors; a meter close to (or through) objects counts as several.

    Args:
        low, high: (2,) corners of the support [m].
        goal: (2,) [m]; own: outline (D,) of the target [m].
        places: (N, 2) [m], outlines: (N, D) [m], tall: (N,) bool, of the other objects.
        tall_margin_m, margin_m: distance from tall and from other objects beyond which the way costs no more [m].
    """

    def __init__(
        self,
        low: Array,
        high: Array,
        goal: Array,
        own: Array,
        places: Array,
        outlines: Array,
        tall: NDArray[np.bool_],
        tall_margin_m: float = 0.05,
        margin_m: float = 0.025,
    ) -> None:
        self.goal, self._low = goal, low
        shape = np.maximum(np.ceil((high - low) / _CELL_M).astype(int) + 1, 2)
        axes = [low[a] + _CELL_M * np.arange(shape[a]) for a in range(2)]
        self._nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        weight = np.ones(len(self._nodes))
        for place, other, high_one in zip(places, outlines, tall, strict=True):
            near = gap(self._nodes, own, place, other)
            margin = tall_margin_m if high_one else margin_m
            depth = np.clip((margin - near) / margin, 0.0, 2.0)
            weight += (_TALL_WEIGHT if high_one else _OTHER_WEIGHT) * depth
        reach = float(own.max())
        inner = np.minimum(self._nodes - low, high - self._nodes).min(axis=1) - reach
        weight += _EDGE_WEIGHT * np.clip((_EDGE_M - inner) / _EDGE_M, 0.0, 3.0)
        count = len(self._nodes)
        index = np.arange(count).reshape(shape)
        rows: list[NDArray[np.int64]] = []
        columns: list[NDArray[np.int64]] = []
        lengths: list[Array] = []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)):
            a = index[: shape[0] - dx, max(0, -dy) : shape[1] - max(0, dy)].ravel()
            b = index[dx:, max(0, dy) : shape[1] + min(0, dy)].ravel()
            rows.append(a)
            columns.append(b)
            lengths.append(_CELL_M * np.hypot(dx, dy) * 0.5 * (weight[a] + weight[b]))
        from_goal = np.linalg.norm(self._nodes - goal, axis=1)
        near_goal = np.flatnonzero(from_goal < 2.0 * _CELL_M)
        if not len(near_goal):
            near_goal = np.array([int(np.argmin(from_goal))])
        rows.append(np.full(len(near_goal), count))
        columns.append(near_goal.astype(np.int64))
        lengths.append(np.maximum(from_goal[near_goal], 1e-6))
        graph = coo_matrix(
            (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))), shape=(count + 1, count + 1)
        )
        self._way = dijkstra(graph.tocsr(), directed=False, indices=count)[:count].reshape(shape)

    def __call__(self, places: ArrayLike) -> Array:
        """(...) [m] of places (..., 2); beyond the support's edge a meter counts five more."""
        p = np.asarray(places, dtype=np.float64)
        at = (p - self._low) / _CELL_M
        limit = np.array(self._way.shape) - 1.0
        inside = np.clip(at, 0.0, limit - 1e-6)
        cell = inside.astype(int)
        fx, fy = np.moveaxis(inside - cell, -1, 0)
        i, j = np.moveaxis(cell, -1, 0)
        w = self._way
        found = (1 - fx) * ((1 - fy) * w[i, j] + fy * w[i, j + 1]) + fx * (
            (1 - fy) * w[i + 1, j] + fy * w[i + 1, j + 1]
        )
        found = found + _BEYOND_WEIGHT * _CELL_M * np.linalg.norm(at - inside, axis=-1)
        straight = np.linalg.norm(p - self.goal, axis=-1)
        return np.where(straight < 2.5 * _CELL_M, straight, np.maximum(found, straight))

    def heading(self, places: ArrayLike) -> Array:
        """(..., 2) unit vectors along which the way leads."""
        p = np.asarray(places, dtype=np.float64)
        h = 0.75 * _CELL_M
        dx, dy = np.array([h, 0.0]), np.array([0.0, h])
        slope = np.stack([self(p - dx) - self(p + dx), self(p - dy) - self(p + dy)], axis=-1)
        direct = self.goal - p
        near = np.linalg.norm(direct, axis=-1, keepdims=True) < 3.0 * _CELL_M
        way = np.where(near, direct, slope)
        return way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)
