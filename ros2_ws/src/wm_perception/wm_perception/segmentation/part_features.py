"""What speaks for and against two neighboring segments of a frame being parts of one object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_perception.segmentation.one_axis import RevolutionSlices
from wm_perception.types import Array, Cloud

BORDER_PX = 4
"""Least length of a border [pixels] for two segments to be neighbors. Larger compares fewer pairs."""
_STEP_M = 0.012
"""Step in depth [m] across a border up to which it is level there."""
_INSIDE_PX = 2
"""Pixels from a border at which surfaces and colors are compared, as the outermost ones mix both. Larger looks past
small parts."""
_ZONE_SAMPLES = 3
"""Every so many pixels of a segment tell its place. Larger is faster and coarser."""
FEATURES = (
    "level",
    "border",
    "small",
    "shade",
    "color",
    "border_shade",
    "border_color",
    "embedding",
    "classes",
    "votes",
    "vote_gap",
    "bend",
    "turn",
    "plane_step",
    "score",
    "score_both",
    "hang",
    "aside",
    "above",
    "wider",
    "one_axis",
)
"""Names of the columns of ``part_features``.

level: part of the border without a step in depth. border: logarithm of its length over the root of the smaller area.
small: logarithm of the ratio of areas. shade, color: difference of the mean L*, and of a* + b* (0..255 each, over 30);
border_shade, border_color: the same of pixels on either side of the border. embedding: cosine. classes: scalar product
of the class probabilities. votes: distance of the centers that the network's offsets point at, over the root of the
areas together. vote_gap: the part of that distance by which the votes jump at the border: 1 where the network sees two.
bend: of the surface at the border, positive where it is convex; turn: cosine of normals; plane_step: distance of either
pixel from the other's plane [cm]. score: the smaller one; score_both: the larger. hang: height over the support of the
lower end of the upper one [10 cm], where it is not over the other one. aside: part of the upper one's outline, seen from
above, that is beyond the other's. above: cosine of the way from one middle to the other with the vertical. wider: the
logarithm of the upper one's width over the lower one's. one_axis: both are slices of one solid of revolution.
"""


def part_features(
    labels: NDArray[np.int32],
    scores: NDArray[np.float32],
    offset_px: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    classes: NDArray[np.float32],
    cloud: Cloud,
    height: NDArray[np.float32],
) -> tuple[NDArray[np.int64], Array]:
    """Neighboring segments (P, 2), the smaller label first, and what speaks for them being one (P, F), see FEATURES.

    Args:
        labels: (h, w), 0 = background, 1..L; scores: (L,); embeddings: (L, D) unit length; classes: (L, C).
        offset_px: (2, h, w) x and y from each pixel to the middle of its object, by the network [pixels].
        height: (h, w) over the support [m], NaN where there is none.
    """
    count = len(scores)
    none = np.zeros((0, 2), np.int64), np.zeros((0, len(FEATURES)))
    if count < 2:
        return none
    h, w = labels.shape
    size = count + 1
    ones, others, inner, outer, steps = [], [], [], [], []
    depth = cloud.depth.ravel()
    flat = labels.ravel()
    for first, second, stride, across in ((np.s_[1:, :], np.s_[:-1, :], w, 0), (np.s_[:, 1:], np.s_[:, :-1], 1, 1)):
        a, b = labels[first], labels[second]
        rows, columns = np.nonzero((a != b) & (a > 0) & (b > 0))
        after = (rows + (across == 0)) * w + columns + (across == 1)
        before = after - stride
        place = (after // w) if across == 0 else (after % w)
        room = (place >= _INSIDE_PX + 1) & (place + _INSIDE_PX < (h if across == 0 else w))
        far_after = np.where(room, after + _INSIDE_PX * stride, after)
        far_before = np.where(room, before - _INSIDE_PX * stride, before)
        swap = flat[after] > flat[before]
        ones.append(np.where(swap, before, after))
        others.append(np.where(swap, after, before))
        inner.append(np.where(swap, far_before, far_after))
        outer.append(np.where(swap, far_after, far_before))
    one, other = np.concatenate(ones), np.concatenate(others)
    near, far = np.concatenate(inner), np.concatenate(outer)
    key = flat[one].astype(np.int64) * size + flat[other]
    pairs, index = np.unique(key, return_inverse=True)
    borders = np.bincount(index, minlength=len(pairs))
    use = borders >= BORDER_PX
    if not use.any():
        return none
    number = np.where(use, np.cumsum(use) - 1, -1)[index]
    rows = number >= 0
    one, other, near, far, number = one[rows], other[rows], near[rows], far[rows], number[rows]
    found = np.stack([pairs[use] // size, pairs[use] % size], axis=1)
    borders = borders[use].astype(np.float64)
    p = len(found)

    def mean(values: NDArray[np.floating], where: NDArray[np.bool_] | None = None, empty: float = 0.0) -> Array:
        known = np.isfinite(values) if where is None else where & np.isfinite(values)
        total = np.bincount(number[known], minlength=p)
        summed = np.bincount(number[known], weights=values[known], minlength=p)
        return np.where(total > 0, summed / np.maximum(total, 1), empty)

    steps = np.abs(depth[one] - depth[other])
    with np.errstate(invalid="ignore"):
        level = mean((steps < _STEP_M).astype(np.float64))
    within = (flat[near] == flat[one]) & (flat[far] == flat[other])
    lab = cloud.lab.reshape(-1, 3)
    shift = np.abs(lab[near] - lab[far])
    points, normals = cloud.points.reshape(-1, 3), cloud.normals.reshape(-1, 3)
    way = points[far] - points[near]
    length = np.maximum(np.linalg.norm(way, axis=1), 1e-4)
    bend = np.einsum("pi,pi->p", normals[far] - normals[near], way) / length
    turn = np.einsum("pi,pi->p", normals[far], normals[near])
    plane_step = np.minimum(
        np.abs(np.einsum("pi,pi->p", normals[near], way)), np.abs(np.einsum("pi,pi->p", normals[far], way))
    )

    inside = np.flatnonzero(flat)
    owner = flat[inside]
    areas = np.bincount(owner, minlength=size).astype(np.float64)
    some = np.maximum(areas, 1.0)
    middle_lab = np.stack([np.bincount(owner, weights=lab[inside, k], minlength=size) for k in range(3)], 1) / some[:, None]
    vote_x = (inside % w) + offset_px[0].ravel()[inside]
    vote_y = (inside // w) + offset_px[1].ravel()[inside]
    centers = np.stack([np.bincount(owner, weights=v, minlength=size) for v in (vote_x, vote_y)], 1) / some[:, None]
    i, j = found.T
    both = np.sqrt(np.maximum(areas[i] + areas[j], 1.0))
    between = centers[j] - centers[i]
    apart = np.maximum(np.linalg.norm(between, axis=1), 1e-3)
    votes = np.stack(
        [(far % w) + offset_px[0].ravel()[far], (far // w) + offset_px[1].ravel()[far]], axis=1
    ) - np.stack([(near % w) + offset_px[0].ravel()[near], (near // w) + offset_px[1].ravel()[near]], axis=1)
    jump = np.einsum("pi,pi->p", votes, (between / apart[:, None])[number])
    shades = np.abs(middle_lab[i] - middle_lab[j])
    zones = _zones(found, flat, points, height)
    slices = RevolutionSlices(cloud, labels, count)
    small = np.minimum(areas[i], areas[j])
    columns = (
        level,
        np.log(borders / np.sqrt(small)),
        np.log(small / np.maximum(areas[i], areas[j])),
        shades[:, 0] / 30.0,
        (shades[:, 1] + shades[:, 2]) / 30.0,
        mean(shift[:, 0], within) / 30.0,
        mean(shift[:, 1] + shift[:, 2], within) / 30.0,
        np.einsum("pd,pd->p", embeddings[i - 1], embeddings[j - 1]).astype(np.float64),
        np.einsum("pd,pd->p", classes[i - 1], classes[j - 1]).astype(np.float64),
        np.minimum(apart / both, 3.0),
        np.clip(mean(jump, within, 0.0) / np.maximum(apart, 2.0), -1.0, 2.0),
        mean(bend, within),
        mean(turn, within, 0.5),
        100.0 * np.minimum(mean(plane_step, within, 0.01), 0.05),
        np.minimum(scores[i - 1], scores[j - 1]).astype(np.float64),
        np.maximum(scores[i - 1], scores[j - 1]).astype(np.float64),
        *zones,
        np.array([float(slices.are_one(int(a), int(b))) for a, b in found]),
    )
    return found, np.stack(columns, axis=1)


def _zones(
    pairs: NDArray[np.int64], flat: NDArray[np.int32], points: NDArray[np.float32], height: NDArray[np.float32]
) -> tuple[Array, Array, Array, Array]:
    """The features of two segments' places: hang, aside, above, wider."""
    over = height.ravel()
    bounds: dict[int, tuple[Array, Array, Array, float]] = {}
    some = np.flatnonzero(flat)[::_ZONE_SAMPLES]
    owner = flat[some]
    order = np.argsort(owner, kind="stable")
    some, owner = some[order], owner[order]
    hang, aside, above, wider = (np.zeros(len(pairs)) for _ in range(4))
    for label in np.unique(pairs):
        rows = some[np.searchsorted(owner, label) : np.searchsorted(owner, label, side="right")]
        own = points[rows].astype(np.float64)
        known = np.isfinite(own[:, 0])
        own, heights = own[known], over[rows][known]
        if len(own) < 3:
            continue
        low, middle, high = np.percentile(own, (4.0, 50.0, 96.0), axis=0)
        heights = heights[np.isfinite(heights)]
        base = float(np.percentile(heights, 4.0)) if len(heights) else 0.0
        bounds[int(label)] = low, middle, high, base
    for n, (a, b) in enumerate(pairs):
        if int(a) not in bounds or int(b) not in bounds:
            continue
        lower, upper = bounds[int(a)], bounds[int(b)]
        if lower[1][2] > upper[1][2]:
            lower, upper = upper, lower
        low, high = np.maximum(lower[0], upper[0])[:2], np.minimum(lower[2], upper[2])[:2]
        area = float(np.prod(np.maximum(upper[2][:2] - upper[0][:2], 0.005)))
        aside[n] = 1.0 - min(float(np.prod(np.maximum(high - low, 0.0))) / area, 1.0)
        hang[n] = min(max(upper[3], 0.0), 0.2) * 10.0 * aside[n]
        way = upper[1] - lower[1]
        above[n] = way[2] / max(float(np.linalg.norm(way)), 1e-3)
        wide = [max(float((z[2] - z[0])[:2].max()), 0.005) for z in (upper, lower)]
        wider[n] = np.clip(np.log(wide[0] / wide[1]), -2.0, 2.0)
    return hang, aside, above, wider
