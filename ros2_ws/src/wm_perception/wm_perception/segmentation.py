"""Instances from geometry: pieces bounded by depth edges, creases and colour edges, joined where they belong together."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wm_perception.cloud import depth_noise_m
from wm_perception.shapes import hull_planes, signed_distance
from wm_perception.types import Array, Cloud, Frame, PredictedObject, Segmentation

_CREASE_RADIANS = np.radians(35.0)
_CREASE_REACH = 3
_CHROMA_EDGE = 22.0
_JOIN_CHROMA = 14.0
_JOIN_LIGHTNESS = 60.0
_SMALL_PIECE = 60
_SHARED_FRACTION = 0.2


class GeometricSegmenter:
    """Cuts the pixels that stand clear of the supports into things.

    Pieces are connected pixels without depth edge, concave crease (Stein et al., Object Partitioning using Local
    Convexity, CVPR 2014: surfaces of one thing meet convexly) or chroma edge between them. Pieces go to the tracked
    object that they lie on; a piece that two tracked objects share is divided between them pixel by pixel, so that
    things which touch after a collision stay apart. Pieces on no tracked object are joined by contact and colour.
    """

    def segment(
        self,
        frame: Frame,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """See ``Segmenter.segment``."""
        pieces, count = self._pieces(cloud, candidates)
        if not count:
            return Segmentation(np.zeros(candidates.shape, np.int32), np.zeros(0, np.int64))
        owner = self._owners(cloud, pieces, count, predicted)
        return self._join(cloud, pieces, count, owner)

    def _pieces(self, cloud: Cloud, candidates: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
        edges = candidates & (self._creases(cloud) | self._chroma_edges(cloud))
        inner = candidates & ~edges
        labels, count = _connected(cloud, inner)
        # Give the pixels on edges to the nearest piece at their own depth.
        for _ in range(4):
            missing = candidates & (labels == 0)
            if not missing.any():
                break
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                neighbour = np.roll(labels, (dy, dx), axis=(0, 1))
                near = np.abs(np.roll(cloud.depth, (dy, dx), axis=(0, 1)) - cloud.depth) < 0.02
                take = missing & (labels == 0) & (neighbour > 0) & near
                labels[take] = neighbour[take]
        rest, more = _connected(cloud, candidates & (labels == 0))
        labels[rest > 0] = rest[rest > 0] + count
        return labels, count + more

    @staticmethod
    def _creases(cloud: Cloud) -> NDArray[np.bool_]:
        crease = np.zeros(cloud.depth.shape, dtype=bool)
        cosine_limit = np.cos(_CREASE_RADIANS)
        for axis in (0, 1):
            lead = [slice(None)] * 2
            trail = [slice(None)] * 2
            middle = [slice(None)] * 2
            lead[axis], trail[axis] = slice(2 * _CREASE_REACH, None), slice(None, -2 * _CREASE_REACH)
            middle[axis] = slice(_CREASE_REACH, -_CREASE_REACH)
            n1, n2 = cloud.normals[tuple(lead)], cloud.normals[tuple(trail)]
            offset = cloud.points[tuple(lead)] - cloud.points[tuple(trail)]
            with np.errstate(invalid="ignore"):
                bend = np.einsum("hwi,hwi->hw", n1, n2) < cosine_limit
                concave = np.einsum("hwi,hwi->hw", n1 - n2, offset) < 0.0
                close = np.einsum("hwi,hwi->hw", offset, offset) < 0.04**2
            crease[tuple(middle)] |= bend & concave & close
        return crease

    @staticmethod
    def _chroma_edges(cloud: Cloud) -> NDArray[np.bool_]:
        edge = np.zeros(cloud.depth.shape, dtype=bool)
        chroma = cloud.lab[..., 1:]
        for axis in (0, 1):
            difference = np.abs(np.diff(chroma, n=1, axis=axis)).sum(axis=-1) > 0.6 * _CHROMA_EDGE
            wide = np.abs(
                chroma[2:] - chroma[:-2] if axis == 0 else chroma[:, 2:] - chroma[:, :-2]
            ).sum(axis=-1) > _CHROMA_EDGE
            if axis == 0:
                edge[1:-1] |= wide & (difference[1:] | difference[:-1])
            else:
                edge[:, 1:-1] |= wide & (difference[:, 1:] | difference[:, :-1])
        return edge

    def _owners(
        self, cloud: Cloud, pieces: NDArray[np.int32], count: int, predicted: list[PredictedObject]
    ) -> NDArray[np.int64]:
        """Index into ``predicted`` of each pixel's owner, -1 = none; may divide pieces in place by owner."""
        owner = np.full(pieces.shape, -1, dtype=np.int64)
        if not predicted:
            return owner
        mask = pieces > 0
        points = cloud.points[mask].astype(np.float64)
        labels = pieces[mask]
        distances = np.stack([_distance_to(p, points) for p in predicted])
        # Colour decides where two predictions overlap.
        rgb = cloud.rgb[mask].astype(np.float32)
        cost = distances.copy()
        for row, p in enumerate(predicted):
            cost[row] += 0.00008 * np.abs(rgb - p.color.astype(np.float32)).sum(axis=1)
            cost[row][distances[row] > p.margin_m] = np.inf
        nearest = np.where(np.isfinite(cost).any(axis=0), cost.argmin(axis=0), -1)
        votes = np.zeros((count + 1, len(predicted)))
        claimed = nearest >= 0
        np.add.at(votes, (labels[claimed], nearest[claimed]), 1.0)
        sizes = np.bincount(labels, minlength=count + 1).astype(np.float64)
        chosen = np.full(len(labels), -1, dtype=np.int64)
        best = votes.argmax(axis=1)
        order = np.sort(votes, axis=1)
        second = order[:, -2] if len(predicted) > 1 else np.zeros(count + 1)
        contested = (second > _SHARED_FRACTION * sizes) & (second > 15)
        owned = (votes.max(axis=1) > 0.3 * sizes) & ~contested
        rows = owned[labels]
        chosen[rows] = best[labels[rows]]
        rows = contested[labels]
        # Between the tracks that share a piece every pixel goes to the nearer one, gate or no gate.
        share = votes > np.maximum(_SHARED_FRACTION * sizes, 15)[:, None]
        open_cost = np.where(share[labels[rows]].T, distances[:, rows], np.inf)
        chosen[rows] = open_cost.argmin(axis=0)
        owner[mask] = chosen
        self._predicted = predicted
        return owner

    def _join(
        self, cloud: Cloud, pieces: NDArray[np.int32], count: int, owner: NDArray[np.int64]
    ) -> Segmentation:
        labels = np.zeros(pieces.shape, dtype=np.int32)
        keys: list[int] = []
        for index in np.unique(owner[owner >= 0]):
            keys.append(int(self._predicted[index].key))
            labels[owner == index] = len(keys)
        free = np.where(owner < 0, pieces, 0)
        present = [int(v) for v in np.unique(free) if v]
        if present:
            merged = self._merge_free(cloud, free, present)
            for group in np.unique(merged[merged > 0]):
                keys.append(-1)
                labels[merged == group] = len(keys)
        return Segmentation(labels, np.array(keys, dtype=np.int64))

    @staticmethod
    def _merge_free(cloud: Cloud, free: NDArray[np.int32], present: list[int]) -> NDArray[np.int32]:
        """Join neighbouring pieces of one colour, and small pieces with the neighbour they share most border with."""
        index = {v: i for i, v in enumerate(present)}
        lookup = np.zeros(max(present) + 1, dtype=np.int64)
        lookup[present] = np.arange(len(present))
        sizes = np.bincount(free.ravel(), minlength=max(present) + 1)[present]
        colors = np.stack(
            [ndimage.mean(cloud.lab[..., c], free, present) for c in range(3)], axis=1
        )
        borders: dict[tuple[int, int], int] = {}
        for dy, dx in ((0, 1), (1, 0), (0, 2), (2, 0)):
            a = free[dy:, dx:]
            b = free[: free.shape[0] - dy, : free.shape[1] - dx]
            gap = np.abs(cloud.depth[dy:, dx:] - cloud.depth[: free.shape[0] - dy, : free.shape[1] - dx])
            # Depth steps of a few centimetres are still one thing where the colour agrees: a mug's rim and inside.
            touching = (a != b) & (a > 0) & (b > 0) & (gap < 0.08)
            pairs = np.sort(np.stack([lookup[a[touching]], lookup[b[touching]]], axis=1), axis=1)
            for (i, j), n in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
                borders[(int(i), int(j))] = borders.get((int(i), int(j)), 0) + int(n)
        parent = list(range(len(present)))

        def root(i: int) -> int:
            while parent[i] != i:
                i = parent[i]
            return i

        for (i, j), length in sorted(borders.items(), key=lambda item: -item[1]):
            small = min(sizes[i], sizes[j])
            chroma = float(np.abs(colors[i, 1:] - colors[j, 1:]).sum())
            lightness = float(abs(colors[i, 0] - colors[j, 0]))
            one_color = chroma < _JOIN_CHROMA and lightness < _JOIN_LIGHTNESS
            if (one_color and length > 6) or (small < _SMALL_PIECE and length > 0.3 * np.sqrt(small)):
                parent[root(j)] = root(i)
        groups = np.zeros(free.shape, dtype=np.int32)
        table = np.zeros(max(present) + 1, dtype=np.int32)
        for value, i in index.items():
            table[value] = root(i) + 1
        groups[:] = table[free]
        return groups


def _distance_to(predicted: PredictedObject, points: Array) -> Array:
    """|signed distance| [m], with the inside counted as near, of world points (P, 3) to a predicted object."""
    from scipy.spatial.transform import Rotation

    local = (points - predicted.position) @ Rotation.from_quat(predicted.quaternion).as_matrix()
    planes = None
    if len(predicted.hull):
        try:
            planes = hull_planes(predicted.hull)
        except ValueError:
            planes = None
    distance, _ = signed_distance(predicted.shape, predicted.extents, local, planes)
    return np.where(distance < 0.0, -0.5 * distance, distance)


def _connected(cloud: Cloud, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Connected components of pixels without a depth edge between neighbours; at least 6 pixels each."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    total = int(mask.sum())
    if not total:
        return labels, 0
    index = np.full(mask.shape, -1, dtype=np.int64)
    index[mask] = np.arange(total)
    limit = 0.012 + 4.0 * depth_noise_m(cloud.depth)
    rows, columns = [], []
    for dy, dx in ((0, 1), (1, 0)):
        a, b = index[dy:, dx:], index[: mask.shape[0] - dy, : mask.shape[1] - dx]
        step = np.abs(cloud.depth[dy:, dx:] - cloud.depth[: mask.shape[0] - dy, : mask.shape[1] - dx])
        linked = (a >= 0) & (b >= 0) & (step < limit[dy:, dx:])
        rows.append(a[linked])
        columns.append(b[linked])
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(i), dtype=np.int8), (i, j)), shape=(total, total))
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component)
    keep = np.cumsum(sizes >= 6) * (sizes >= 6)
    labels[mask] = keep[component]
    return labels, int(keep.max())


def candidate_pixels(
    cloud: Cloud, height: NDArray[np.float32], on_support: NDArray[np.bool_], min_height_m: float, max_height_m: float
) -> NDArray[np.bool_]:
    """Pixels (h, w) that stand clear of the support below them.

    The least height grows with the sensor's noise (three standard deviations). Flying pixels at depth edges are
    dropped: they hang between a thing and what is behind it.
    """
    with np.errstate(invalid="ignore"):
        threshold = np.maximum(min_height_m, 3.0 * depth_noise_m(cloud.depth))
        clear = (height > threshold) & (height < max_height_m) & ~(on_support & (height < 1.5 * threshold))
    filled = np.nan_to_num(cloud.depth, nan=0.0)
    low = cv2.erode(np.where(filled > 0, filled, np.float32(99.0)), np.ones((3, 3), np.uint8))
    high = cv2.dilate(filled, np.ones((3, 3), np.uint8))
    flying = (filled - low > 0.015) & (high - filled > 0.015)
    return clear & ~flying
