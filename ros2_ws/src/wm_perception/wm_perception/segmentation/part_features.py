"""What speaks for and against two neighboring segments of a frame being parts of one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_perception.segmentation.division import APART_PX
from wm_perception.segmentation.one_axis import RevolutionSlices
from wm_perception.types import Array, Cloud, Segmentation

BORDER_PX = 4
"""Least length of a border [pixels] for two segments to be neighbors. Larger compares fewer pairs."""
_STEP_M = 0.012
"""Step in depth [m] across a border up to which it is level there."""
_INSIDE_PX = 2
"""Pixels from a border at which surfaces and colors are compared, as the outermost ones mix both. Larger looks past
small parts."""
_QUANTILES = (0.04, 0.5, 0.96)
"""Of a segment's points along each axis: its lower end, middle and upper end."""
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
    "apart",
    "apart_far",
)
"""Names of the columns of ``part_features``.

level: part of the border without a step in depth. border: logarithm of its length over the root of the smaller area.
small: logarithm of the ratio of areas. shade, color: difference of the mean L*, and of a* + b* (0..255 each, over 30);
border_shade, border_color: the same of pixels on either side of the border. embedding: cosine. classes: scalar product
of the class probabilities. votes: distance of the centers that the network's offsets point at, over the root of the
areas together. vote_gap: the part of that distance by which the votes jump at the border: 1 where the network sees two.
bend: of the surface at the border, positive where it is convex; turn: cosine of normals; plane_step: distance of either
pixel from the other's plane [cm]. score: the smaller one; score_both: the larger. hang: height over the support of the
lower end of the upper one [10 cm], where it is not over the other one. aside: part of the upper one's outline, from
above, that is beyond the other's. above: cosine of the way from one middle to the other with the vertical. wider: the
logarithm of the upper one's width over the lower one's. one_axis: both are slices of one solid of revolution. apart:
mean log-odds along the border, by the network, that pixels on either side of it are of two objects; apart_far: of
pixels further from it.
"""


def part_features(
    parts: Segmentation,
    offset_px: NDArray[np.float32],
    apart: NDArray[np.float32],
    cloud: Cloud,
    height: NDArray[np.float32],
) -> tuple[NDArray[np.int64], Array]:
    """Neighboring segments (P, 2), the smaller label first, and what speaks for them being one (P, F), see FEATURES.

    Args:
        parts: segments with scores, embeddings and class probabilities.
        offset_px: (2, h, w) x and y from each pixel to the middle of its object, by the network [pixels].
        apart: (N, h, w) log-odds that pixels and their neighbors ``APART_PX`` are of two objects, by the network.
        height: (h, w) over the support [m], NaN where there is none.
    """
    labels, scores = parts.labels, parts.scores
    count = len(scores)
    border = _borders(labels) if count > 1 else None
    if border is None:
        return np.zeros((0, 2), np.int64), np.zeros((0, len(FEATURES)))
    pairs, number, one, other, near, far = border
    p, w, flat, size = len(pairs), labels.shape[1], labels.ravel(), count + 1
    lengths = np.bincount(number, minlength=p).astype(np.float64)
    within = (flat[near] == flat[one]) & (flat[far] == flat[other])

    def mean(values: NDArray[np.floating[Any]], where: NDArray[np.bool_], empty: float = 0.0) -> Array:
        known = where & np.isfinite(values)
        total = np.bincount(number[known], minlength=p)
        summed = np.bincount(number[known], weights=values[known], minlength=p)
        return np.where(total > 0, summed / np.maximum(total, 1), empty)

    depth, lab = cloud.depth.ravel(), cloud.lab.reshape(-1, 3)
    points, normals = cloud.points.reshape(-1, 3), cloud.normals.reshape(-1, 3)
    with np.errstate(invalid="ignore"):
        level = mean((np.abs(depth[one] - depth[other]) < _STEP_M).astype(np.float64), np.ones(len(one), np.bool_))
    shift = np.abs(lab[near] - lab[far])
    way = points[far] - points[near]
    length = np.maximum(np.linalg.norm(way, axis=1), 1e-4)
    bend = np.einsum("pi,pi->p", normals[far] - normals[near], way) / length
    turn = np.einsum("pi,pi->p", normals[far], normals[near])
    steps = [np.abs(np.einsum("pi,pi->p", normals[side], way)) for side in (near, far)]

    inside = np.flatnonzero(flat)
    owner = flat[inside]
    areas = np.bincount(owner, minlength=size).astype(np.float64)
    votes_x = np.arange(w, dtype=np.float32) + offset_px[0]
    votes_y = np.arange(labels.shape[0], dtype=np.float32)[:, None] + offset_px[1]
    votes = np.stack([votes_x.ravel(), votes_y.ravel()], axis=1)

    def of_segments(values: NDArray[np.float32]) -> Array:
        columns = [np.bincount(owner, weights=values[inside, k], minlength=size) for k in range(values.shape[1])]
        return np.asarray(np.stack(columns, axis=1) / np.maximum(areas, 1.0)[:, None])

    i, j = pairs.T
    centers, colors = of_segments(votes), of_segments(lab)
    between = centers[j] - centers[i]
    gap = np.maximum(np.linalg.norm(between, axis=1), 1e-3)
    jump = np.einsum("pi,pi->p", votes[far] - votes[near], (between / gap[:, None])[number])
    shades = np.abs(colors[i] - colors[j])
    small = np.minimum(areas[i], areas[j])
    slices = RevolutionSlices(cloud, labels, count)
    classes, embeddings = parts.class_probabilities, parts.embeddings
    columns = (
        level,
        np.log(lengths / np.sqrt(small)),
        np.log(small / np.maximum(areas[i], areas[j])),
        shades[:, 0] / 30.0,
        (shades[:, 1] + shades[:, 2]) / 30.0,
        mean(shift[:, 0], within) / 30.0,
        mean(shift[:, 1] + shift[:, 2], within) / 30.0,
        np.einsum("pd,pd->p", embeddings[i - 1], embeddings[j - 1]).astype(np.float64),
        np.einsum("pd,pd->p", classes[i - 1], classes[j - 1]).astype(np.float64),
        np.minimum(gap / np.sqrt(areas[i] + areas[j]), 3.0),
        np.clip(mean(jump, within) / np.maximum(gap, 2.0), -1.0, 2.0),
        mean(bend, within),
        mean(turn, within, 0.5),
        100.0 * np.minimum(mean(np.minimum(*steps), within, 0.01), 0.05),
        np.minimum(scores[i - 1], scores[j - 1]).astype(np.float64),
        np.maximum(scores[i - 1], scores[j - 1]).astype(np.float64),
        *_zones(pairs, flat, points, height),
        np.array([float(slices.are_one(int(a), int(b))) for a, b in pairs]),
        *(mean(values, known) for values, known in _across(apart, flat, one, other)),
    )
    return pairs, np.stack(columns, axis=1)


def _borders(labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], ...] | None:
    """Where segments (h, w) meet; None: nowhere.

    Returns:
        pairs (P, 2) of labels, the smaller first. For B places at their borders: number (B,) of the pair, flat indices
        (B,) of the two pixels that touch, of the smaller label and of the larger one, and of those ``_INSIDE_PX``
        further in, likewise; at the image's edge the same again.
    """
    h, w = labels.shape
    flat = labels.ravel()
    found: list[tuple[NDArray[np.int64], ...]] = []
    for first, second, stride in ((np.s_[1:, :], np.s_[:-1, :], w), (np.s_[:, 1:], np.s_[:, :-1], 1)):
        a, b = labels[first], labels[second]
        # Flat indices at once: those of two axes take several times as long.
        at = np.flatnonzero((a != b) & (a > 0) & (b > 0))
        before = at if stride == w else at + at // max(w - 1, 1)
        after = before + stride
        place, sides = (after // w, h) if stride == w else (after % w, w)
        room = np.where((place > _INSIDE_PX) & (place + _INSIDE_PX < sides), _INSIDE_PX * stride, 0)
        swap = flat[after] > flat[before]
        found.append(
            (
                np.where(swap, before, after),
                np.where(swap, after, before),
                np.where(swap, before - room, after + room),
                np.where(swap, after + room, before - room),
            )
        )
    one, other, near, far = (np.concatenate(ends) for ends in zip(*found, strict=True))
    if not len(one):
        return None
    size = int(labels.max()) + 1
    keys, number = np.unique(flat[one].astype(np.int64) * size + flat[other], return_inverse=True)
    use = np.bincount(number, minlength=len(keys)) >= BORDER_PX
    if not use.any():
        return None
    rows = use[number]
    number = (np.cumsum(use) - 1)[number][rows]
    return (
        np.stack([keys[use] // size, keys[use] % size], axis=1),
        number,
        one[rows],
        other[rows],
        near[rows],
        far[rows],
    )


def _across(
    apart: NDArray[np.float32], flat: NDArray[np.int32], one: NDArray[np.int64], other: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """For each distance in ``APART_PX``, log-odds (B,) across the borders' places, and whether both ends are in them.

    Args:
        flat: labels of the flat image; one, other: (B,) flat indices of pixels that touch.
    """
    count, h, w = apart.shape
    first = np.minimum(one, other)
    level = np.abs(one - other) == 1
    row, column = np.divmod(first, w)
    sides = np.sort(np.stack([flat[one], flat[other]]), axis=0)
    for k in range(0, count, 2):
        values, known = np.zeros(len(first), np.float32), np.zeros(len(first), np.bool_)
        for channel, along, place, stride in ((k, level, column, 1), (k + 1, ~level, row, w)):
            reach = max(APART_PX[channel])
            back = (reach - 1) // 2
            start = first - back * stride
            use = along & (place >= back) & (place - back + reach < (w if stride == 1 else h))
            use[use] = (
                np.sort(np.stack([flat[start[use]], flat[start[use] + reach * stride]]), axis=0) == sides[:, use]
            ).all(axis=0)
            values[use], known[use] = apart[channel].ravel()[start[use]], True
        yield values, known


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
        own = points[rows]
        known = np.isfinite(own[:, 0])
        own, heights = np.sort(own[known], axis=0), np.sort(over[rows][known])  # what is not known is last
        if len(own) < 3:
            continue
        low, middle, high = own[(np.array(_QUANTILES) * (len(own) - 1)).astype(int)].astype(np.float64)
        tall = int(np.isfinite(heights).sum())
        base = float(heights[int(_QUANTILES[0] * (tall - 1))]) if tall else 0.0
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
