"""Instances from geometry: pieces bounded by depth edges, creases and color edges, joined where they belong."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.shapes.surfaces import hull_planes, signed_distance
from wm_perception.types import Array, Cloud, Frame, PredictedObject, Segmentation

_CREASE_RADIANS = np.radians(35.0)
"""Angle between normals from which a concave bend is a crease. Larger joins objects that touch."""
_CREASE_REACH = 3
"""Pixels on each side over which normals are compared. Larger is less noisy and misses small pieces."""
_CHROMA_EDGE = 22.0
"""Difference of a* and b* (0..255 each, summed) over two pixels that is an edge. Larger joins objects of like color."""
_JOIN_CHROMA, _JOIN_LIGHTNESS = 14.0, 60.0
"""Differences of mean a* and b* (summed) and of L* (0..255) up to which pieces are of one color. Larger joins more."""
_SMALL_PIECE = 60
"""Pixels below which a piece is no object by itself. Larger loses small objects."""
_SHARED_FRACTION = 0.2
"""Part of a piece that a second tracked object must claim for the piece to be divided. Larger divides less often."""
_PART_FRACTION = 0.15
"""Size relative to its neighbor up to which a piece that hangs in the air is its part. Larger joins more."""


class GeometricSegmenter:
    """Divides the pixels that stand clear of the supports into objects.

    Pieces are connected pixels without depth edge, concave crease (Stein et al., Object Partitioning using Local
    Convexity, CVPR 2014: surfaces of one object meet convexly) or chroma edge between them. Pieces go to the tracked
    object that they lie on; a piece that two tracked objects share is divided between them pixel by pixel, so that
    objects which touch after a collision stay apart. Pieces on no tracked object are joined by contact and color.
    """

    def segment(
        self,
        frame: Frame,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """See ``Segmenter.segment``."""
        labels = np.zeros(candidates.shape, np.int32)
        rows, columns = np.flatnonzero(candidates.any(axis=1)), np.flatnonzero(candidates.any(axis=0))
        if not len(rows):
            return Segmentation(labels, np.zeros(0, np.int64))
        # Only the part of the image that has candidates is processed.
        window = (
            slice(max(int(rows[0]) - 4, 0), int(rows[-1]) + 5),
            slice(max(int(columns[0]) - 4, 0), int(columns[-1]) + 5),
        )
        part = replace(
            cloud,
            points=cloud.points[window],
            normals=cloud.normals[window],
            depth=cloud.depth[window],
            rgb=cloud.rgb[window],
            lab_of=lambda: cloud.lab[window],
        )
        creases = self._creases(part)
        pieces, count = self._pieces(part, candidates[window], creases)
        if not count:
            return Segmentation(labels, np.zeros(0, np.int64))
        owner = self._owners(part, pieces, count, predicted)
        found = self._join(part, pieces, height[window], creases, owner, predicted)
        labels[window] = found.labels
        return Segmentation(labels, found.keys)

    def _pieces(
        self, cloud: Cloud, candidates: NDArray[np.bool_], creases: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], int]:
        inner = candidates & ~(creases | self._chroma_edges(cloud))
        labels, count = _connected(cloud, inner)
        # Give the pixels on edges to the nearest piece at their own depth.
        for _ in range(4):
            missing = candidates & (labels == 0)
            if not missing.any():
                break
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                neighbor = np.roll(labels, (dy, dx), axis=(0, 1))
                near = np.abs(np.roll(cloud.depth, (dy, dx), axis=(0, 1)) - cloud.depth) < 0.02
                filled = missing & (labels == 0) & (neighbor > 0) & near
                labels[filled] = neighbor[filled]
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
        a = np.ascontiguousarray(cloud.lab[..., 1])
        b = np.ascontiguousarray(cloud.lab[..., 2])
        edge[1:-1] |= np.abs(a[2:] - a[:-2]) + np.abs(b[2:] - b[:-2]) > _CHROMA_EDGE
        edge[:, 1:-1] |= np.abs(a[:, 2:] - a[:, :-2]) + np.abs(b[:, 2:] - b[:, :-2]) > _CHROMA_EDGE
        return edge

    def _owners(
        self, cloud: Cloud, pieces: NDArray[np.int32], count: int, predicted: list[PredictedObject]
    ) -> NDArray[np.int64]:
        """Index into ``predicted`` of each pixel's owner, -1 = none; may divide pieces in place by owner."""
        owner = np.full(pieces.shape, -1, dtype=np.int64)
        if not predicted:
            return owner
        mask = pieces > 0
        points = cloud.points[mask]
        labels = pieces[mask]
        distances = np.stack([distance_to(p, points) for p in predicted])
        # Color decides where two predictions overlap.
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
        # Between the tracks that share a piece every pixel goes to the nearer one, also beyond its margin.
        share = votes > np.maximum(_SHARED_FRACTION * sizes, 15)[:, None]
        open_cost = np.where(share[labels[rows]].T, distances[:, rows], np.inf)
        chosen[rows] = open_cost.argmin(axis=0)
        owner[mask] = chosen
        return owner

    @staticmethod
    def _join(
        cloud: Cloud,
        pieces: NDArray[np.int32],
        height: NDArray[np.float32],
        creases: NDArray[np.bool_],
        owner: NDArray[np.int64],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """Join the pieces of each owner, neighboring free pieces of one color, and parts with what they are part of.

        Pieces of one color are joined where no crease divides them, or where one lies within the other's footprint
        (the bottom of a mug). Small pieces go with the neighbor that they share most border with, and so does a piece
        that hangs in the air beside a much larger one (a handle, a cap), also where that one is a tracked object's.
        """
        owners = np.unique(owner[owner >= 0])
        nodes = np.where(owner < 0, pieces, 0)
        free = np.unique(nodes)
        table = np.zeros(int(pieces.max()) + 1, dtype=np.int64)
        table[free[free > 0]] = np.arange(1, int((free > 0).sum()) + 1)
        nodes = table[nodes]
        first_owned = int(nodes.max()) + 1
        for n, index in enumerate(owners):
            nodes[owner == index] = first_owned + n
        count = first_owned + len(owners) - 1
        if count < 1:
            return Segmentation(np.zeros(pieces.shape, np.int32), np.zeros(0, np.int64))
        present = np.arange(1, count + 1)
        sizes = np.bincount(nodes.ravel(), minlength=count + 1).astype(np.float64)
        # Pixels in the order of their nodes, so that each node's are one run.
        pixels = np.flatnonzero(nodes)
        pixels = pixels[np.argsort(nodes.ravel()[pixels], kind="stable")]
        starts = np.searchsorted(nodes.ravel()[pixels], present)

        def per_node(values: NDArray[np.float32], f: np.ufunc) -> Array:
            """(count + 1, ...) reduction of an image's values over each node; row 0 is of no node."""
            flat = values.reshape(nodes.size, -1)[pixels]
            return np.concatenate([np.zeros((1, flat.shape[1])), f.reduceat(flat, starts, axis=0)])

        colors = per_node(cloud.lab, np.add) / np.maximum(sizes, 1.0)[:, None]
        lowest = per_node(np.nan_to_num(height, nan=9.0), np.minimum)[:, 0]
        lows, highs = (per_node(cloud.points[..., :2], f) for f in (np.minimum, np.maximum))
        # Each group's tracked object, 0 = none yet; two tracked objects are never joined.
        holder = np.where(np.arange(count + 1) >= first_owned, np.arange(count + 1), 0)
        parent = np.arange(count + 1)

        def root(i: int) -> int:
            while parent[i] != i:
                i = int(parent[i])
            return i

        for (i, j), (length, smooth) in sorted(_borders(cloud, nodes, creases).items(), key=lambda item: -item[1][0]):
            a, b = root(i), root(j)
            if a == b or (holder[a] and holder[b]):
                continue
            smaller, larger = (i, j) if sizes[i] < sizes[j] else (j, i)
            part = lowest[smaller] > 0.02 and sizes[smaller] < _PART_FRACTION * sizes[larger]
            minor = (part or sizes[smaller] < _SMALL_PIECE) and length > 0.3 * np.sqrt(sizes[smaller])
            chroma = float(np.abs(colors[i, 1:] - colors[j, 1:]).sum())
            alike = chroma < _JOIN_CHROMA and abs(colors[i, 0] - colors[j, 0]) < _JOIN_LIGHTNESS
            slack = 0.1 * (highs[larger] - lows[larger])
            within = (lows[smaller] > lows[larger] - slack).all() and (highs[smaller] < highs[larger] + slack).all()
            alike = alike and (smooth > max(6, 0.5 * length) or (within and length > 6))
            if minor or (alike and not (holder[a] or holder[b])):
                parent[b] = a
                holder[a] = max(holder[a], holder[b])
        groups = np.array([root(i) for i in range(count + 1)])
        kept = np.unique(groups[1:])
        renumber = np.zeros(count + 1, dtype=np.int32)
        renumber[kept] = np.arange(1, len(kept) + 1)
        keys = [int(predicted[owners[holder[g] - first_owned]].key) if holder[g] else -1 for g in kept]
        return Segmentation(renumber[groups][nodes].astype(np.int32), np.array(keys, dtype=np.int64))


def _borders(
    cloud: Cloud, nodes: NDArray[np.int64], creases: NDArray[np.bool_]
) -> dict[tuple[int, int], tuple[int, int]]:
    """Pixel pairs along the border of each two regions with depth steps under 8 cm: all, and those on no crease."""
    borders: dict[tuple[int, int], tuple[int, int]] = {}
    bent = cv2.dilate(creases.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    h, w = nodes.shape
    # Noise leaves gaps of a few pixels between an object and its handle.
    for dy, dx in ((0, 1), (1, 0), (0, 2), (2, 0), (0, 4), (4, 0)):
        a, b = nodes[dy:, dx:], nodes[: h - dy, : w - dx]
        differ = (a != b) & (a > 0) & (b > 0)
        # Depth steps of a few centimeters are still one object where the color agrees: a mug's rim and inside.
        near = np.abs(cloud.depth[dy:, dx:][differ] - cloud.depth[: h - dy, : w - dx][differ]) < 0.08
        low = np.minimum(a[differ][near], b[differ][near])
        high = np.maximum(a[differ][near], b[differ][near])
        flat = ~(bent[dy:, dx:][differ][near] | bent[: h - dy, : w - dx][differ][near])
        size = int(nodes.max()) + 1
        codes, inverse, counts = np.unique(low * size + high, return_inverse=True, return_counts=True)
        smooth = np.bincount(inverse, weights=flat, minlength=len(codes))
        for code, n, m in zip(codes.tolist(), counts.tolist(), smooth.tolist(), strict=True):
            before = borders.get((code // size, code % size), (0, 0))
            borders[(code // size, code % size)] = (before[0] + n, before[1] + int(m))
    return borders


def distance_to(predicted: PredictedObject, points: NDArray[np.float32]) -> Array:
    """|signed distance| [m], with the inside counted as near, of world points (P, 3) to a predicted object."""
    # Most points belong to other objects: those beyond the object's bounding sphere need no exact distance.
    offset = points - predicted.position.astype(np.float32)
    reach = 0.5 * float(np.linalg.norm(predicted.extents)) + max(predicted.margin_m, 0.05)
    far = np.einsum("pi,pi->p", offset, offset)
    near = np.flatnonzero(far < reach**2)
    result = np.sqrt(far).astype(np.float64)
    local = offset[near].astype(np.float64) @ Rotation.from_quat(predicted.quaternion).as_matrix()
    planes = None
    if len(predicted.hull):
        try:
            planes = hull_planes(predicted.hull)
        except ValueError:
            planes = None
    distance, _ = signed_distance(predicted.shape, predicted.extents, local, planes)
    result[near] = np.where(distance < 0.0, -0.5 * distance, distance)
    return result


def _connected(cloud: Cloud, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Connected components of pixels without a depth edge between neighbors; at least 6 pixels each."""
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
    cloud: Cloud, height: NDArray[np.float32], min_height_m: float, max_height_m: float
) -> NDArray[np.bool_]:
    """Pixels (h, w) that stand clear of the support below them.

    The least height grows with the sensor's noise (three standard deviations). Flying pixels at depth edges are
    dropped: they hang between an object and what is behind it.
    """
    with np.errstate(invalid="ignore"):
        threshold = np.maximum(min_height_m, 3.0 * depth_noise_m(cloud.depth))
        clear = (height > threshold) & (height < max_height_m)
    filled = np.where(np.isfinite(cloud.depth), cloud.depth, np.float32(0.0))
    low = cv2.erode(np.where(filled > 0, filled, np.float32(99.0)), np.ones((3, 3), np.uint8))
    high = cv2.dilate(filled, np.ones((3, 3), np.uint8))
    flying = (filled - low > 0.015) & (high - filled > 0.015)
    return clear & ~flying
