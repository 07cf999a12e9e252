"""Instances from a trained network, which gives each pixel's object probability and its offset to the object's center.

The network (training/segmenter/model.py) gives foreground, center, offset, class and embedding maps, after
Cheng et al., Panoptic-DeepLab, CVPR 2020; pixels go to the center that they point at.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.segmentation.one_axis import RevolutionSlices
from wm_perception.segmentation.part_links import group, joined, with_links
from wm_perception.types import Cloud, Frame, PredictedObject, Segmentation

Image = NDArray[np.float32]

CHANNELS = (
    "red",
    "green",
    "blue",
    "height",
    "height_known",
    "normal_right",
    "normal_forward",
    "normal_up",
    "log_depth",
    "relief",
)
"""Of the network's input, each in -1..1; see ``network_input``."""

INPUT = "image"
OUTPUTS = ("foreground", "centre", "offset", "classes", "embedding")
"""Names of the network's tensors in its file."""
# Scales of the input and output that the network was trained with.
OFFSET_SCALE_PX = 32.0
"""Pixels of an offset of 1."""
_HEIGHT_SCALE_M = 0.3
"""Height [m] of an input of 1."""
_RELIEF_WINDOW, _RELIEF_GAIN = 15, 12.0
"""Window [pixels] and gain of relief: a step of 8 % is an input of 1."""
_MAX_INSTANCES = 48
"""Instances at most, the surest first. Larger is slower in cluttered frames."""
_UNKNOWN_CLASS = 0.5
"""Class probability below which the name is object. Larger names fewer classes."""
_OVER_SUPPORT = 0.25
"""Part of an instance that must be over a support. Larger drops objects that hang over an edge."""
# Joining of parts, measured on worlds of random assemblies (mask AP50 0.892 to 0.929, commit acb3397).
_PART_STEP_M = 0.012
"""Step in depth [m] across a border up to which it is level, ..."""
_PART_LEVEL = 0.5
"""... and the part of the border that must be."""
_PART_BORDER_PX, _PART_BORDER = 4, 0.5
"""Least length of a border [pixels], also over the root of the smaller area. Larger joins less."""
_PART_COLOR, _PART_SHADE = 9.0, 0.3
"""Difference of mean a* + b* (0..255 each), plus this part of the difference of L*, up to which colors are one."""
_PART_ALIKE = 0.4
"""Least cosine of embeddings. Larger joins less."""
_PART_NOT_UNLIKE = 0.25
"""The same of parts that have one axis, as a neck and its bottle."""

Network = Callable[[Image], tuple[NDArray[np.float32], ...]]


def network_input(cloud: Cloud, height: NDArray[np.float32]) -> Image:
    """The network's input for a frame, (10, h, w) float32 in -1..1, 0 where unknown.

    Colors; height over the support below, over 0.3 m; whether that is known; normals toward the right of the camera,
    level forward, and up; the logarithm of depth over the image's median; depth against its surroundings of 15 pixels
    (a step of 8 % is 1).

    Args:
        cloud: of the frame; height: (h, w) [m], NaN where there is no support below.
    """
    out = np.zeros((len(CHANNELS), *cloud.depth.shape), np.float32)
    for k, channel in enumerate(cv2.split(cloud.rgb)):
        out[k] = channel
    out[:3] *= np.float32(2.0 / 255.0)
    out[:3] -= np.float32(1.0)
    known = np.isfinite(height)
    np.divide(height, np.float32(_HEIGHT_SCALE_M), out=out[3])
    cv2.patchNaNs(out[3], 0.0)
    np.clip(out[3], -1.0, 1.0, out=out[3])
    out[4] = known
    right = cloud.world_T_camera[:3, 0].astype(np.float32)
    turn = np.zeros((3, 3), np.float64)
    level = float(np.hypot(right[0], right[1]))
    c, s = (right[0] / level, right[1] / level) if level > 1e-6 else (1.0, 0.0)
    turn[0, :2], turn[1, :2], turn[2, 2] = (c, s), (-s, c), 1.0
    normals = cv2.transform(cloud.normals, turn)
    cv2.patchNaNs(normals, 0.0)
    out[5:8] = cv2.split(normals)
    valid = np.isfinite(cloud.depth)
    if valid.any():
        depth = np.where(valid, cloud.depth, np.float32(0.0))
        middle = float(np.median(depth[::4, ::4][valid[::4, ::4]])) if valid[::4, ::4].any() else 1.0
        logarithm = np.log(np.maximum(depth, 0.05) / np.float32(middle))
        out[8] = np.clip(logarithm, -1.0, 1.0) * valid
        weight = cv2.boxFilter(valid.astype(np.float32), -1, (_RELIEF_WINDOW, _RELIEF_WINDOW))
        mean = cv2.boxFilter(logarithm * valid, -1, (_RELIEF_WINDOW, _RELIEF_WINDOW)) / np.maximum(weight, 1e-3)
        out[9] = np.clip((logarithm - mean) * np.float32(_RELIEF_GAIN), -1.0, 1.0) * valid
    return out


def group_pixels(
    foreground: Image, center: Image, offset: Image, min_pixels: int = 20, threshold: float = 0.5
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Instances from the network's maps.

    Args:
        foreground, center: (h, w) probabilities; offset: (2, h, w) x and y to the instance's center [pixels / 32].

    Returns:
        labels (h, w) int32, 0 = background, 1..L; scores (L,) 0..1.
    """
    h, w = foreground.shape
    labels = np.zeros((h, w), np.int32)
    inside = foreground > threshold
    rows, columns = np.nonzero(inside)
    if not len(rows):
        return labels, np.zeros(0, np.float32)
    vote_x = columns + offset[0, rows, columns] * OFFSET_SCALE_PX
    vote_y = rows + offset[1, rows, columns] * OFFSET_SCALE_PX
    # Votes concentrate at centers; the center map gives their probability and separates close ones.
    x = np.clip(np.rint(vote_x), 0, w - 1).astype(np.int64)
    y = np.clip(np.rint(vote_y), 0, h - 1).astype(np.int64)
    votes = np.bincount(y * w + x, minlength=h * w).reshape(h, w).astype(np.float32)
    votes = cv2.GaussianBlur(votes, (0, 0), 2.0)
    peak = np.sqrt(votes / max(float(votes.max()), 1e-6)) * 0.3 + cv2.GaussianBlur(center, (0, 0), 1.0)
    strongest = cv2.dilate(peak, np.ones((9, 9), np.uint8))
    near_center = cv2.dilate(center, np.ones((5, 5), np.uint8))
    candidates = (peak >= strongest) & (near_center > 0.12) & (votes > 0.05)
    cy, cx = np.nonzero(candidates)
    if not len(cy):
        return labels, np.zeros(0, np.float32)
    order = np.argsort(-peak[cy, cx])[:_MAX_INSTANCES]
    cy, cx = cy[order], cx[order]
    squared = np.square(vote_x[:, None] - cx) + np.square(vote_y[:, None] - cy)
    owner = squared.argmin(axis=1)
    count = np.bincount(owner, minlength=len(cy))
    heat = near_center[cy, cx]
    sure = np.bincount(owner, weights=foreground[rows, columns], minlength=len(cy)) / np.maximum(count, 1)
    # An object whose pixels do not agree on its center is less likely one object.
    spread = np.sqrt(
        np.bincount(owner, weights=squared[np.arange(len(owner)), owner], minlength=len(cy)) / np.maximum(count, 1)
    )
    agreement = np.exp(-0.5 * np.square(spread / (4.0 + 0.25 * np.sqrt(np.maximum(count, 1)))))
    scores = (np.clip(heat, 0.0, 1.0) ** 0.5 * sure * agreement).astype(np.float32)
    keep = count >= min_pixels
    number = np.cumsum(keep) * keep
    labels[rows, columns] = number[owner]
    return labels, scores[keep]


def over_supports(
    labels: NDArray[np.int32], scores: NDArray[np.float32], height: NDArray[np.float32], max_height_m: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The instances of which at least a quarter is over a support, where any support is known.

    The network was not trained on rooms without a table in view, where it finds objects in walls.
    """
    if not len(scores) or not np.isfinite(height).any():
        return labels, scores
    with np.errstate(invalid="ignore"):
        over = (height > -0.02) & (height < max_height_m)
    inside = labels > 0
    owner = labels[inside]
    sizes = np.bincount(owner, minlength=len(scores) + 1)
    covered = np.bincount(owner, weights=over[inside], minlength=len(scores) + 1)
    keep = (covered >= _OVER_SUPPORT * sizes) & (sizes > 0)
    if keep[1:].all():
        return labels, scores
    return (np.cumsum(keep) * keep).astype(np.int32)[labels], scores[keep[1:]]


def join_parts(
    labels: NDArray[np.int32], count: int, embeddings: NDArray[np.float32], cloud: Cloud
) -> NDArray[np.int64]:
    """Which instances are parts of one object, (L + 1,): the new label 0..K of each old one 0..L.

    A network divides objects of shapes that it was not trained on into parts that it knows: a stool into its seat and
    its legs. Parts are joined where they meet without a step in depth along a border that is long for the smaller of
    the two, are of one color, and have similar embeddings. Different objects that touch differ in one of these. Also
    joined are parts of one solid of revolution.

    Args:
        labels: (h, w) of the cloud's size, 0 = background, 1..L; count: L; embeddings: (L, D), unit length.
    """
    same = np.arange(count + 1, dtype=np.int64)
    if count < 2:
        return same
    size = count + 1
    borders, level = np.zeros(size * size), np.zeros(size * size)
    for first, second in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = labels[first], labels[second]
        rows, columns = np.nonzero((a != b) & (a > 0) & (b > 0))
        one, other = a[rows, columns], b[rows, columns]
        key = np.minimum(one, other) * size + np.maximum(one, other)
        step = np.abs(cloud.depth[first][rows, columns] - cloud.depth[second][rows, columns])
        borders += np.bincount(key, minlength=size * size)
        with np.errstate(invalid="ignore"):
            level += np.bincount(key, weights=step < _PART_STEP_M, minlength=size * size)
    pairs = np.flatnonzero(borders >= _PART_BORDER_PX)
    if not len(pairs):
        return same
    areas = np.bincount(labels.ravel(), minlength=size)
    inside = labels > 0
    owner = labels[inside]
    lab = np.stack([np.bincount(owner, weights=cloud.lab[..., k][inside], minlength=size) for k in range(3)], axis=1)
    lab = lab / np.maximum(areas, 1)[:, None].astype(np.float64)
    slices = RevolutionSlices(cloud, labels, count)
    for pair in pairs:
        i, j = divmod(int(pair), size)
        apart = np.abs(lab[i] - lab[j])
        alike = float(embeddings[i - 1] @ embeddings[j - 1])
        if (
            level[pair] > _PART_LEVEL * borders[pair]
            and borders[pair] > _PART_BORDER * np.sqrt(min(areas[i], areas[j]))
            and apart[1] + apart[2] + _PART_SHADE * apart[0] < _PART_COLOR
            and alike > _PART_ALIKE
        ) or (alike > _PART_NOT_UNLIKE and slices.are_one(i, j)):
            same[same == same[j]] = same[i]
    return np.unique(same, return_inverse=True)[1].astype(np.int64)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def _sigmoid(x: Image) -> Image:
    result: Image = np.clip(x, -30.0, 30.0)
    cv2.exp(np.negative(result, out=result), dst=result)
    result += np.float32(1.0)
    return np.divide(np.float32(1.0), result, out=result)


class LearnedSegmenter:
    """The trained network as a ``Segmenter``.

    Args:
        network: from the input (1, 10, h, w) to the five maps named in ``OUTPUTS``.
        vocabulary: names of the classes, in the order of the network's output.
        max_height_m: instances higher than this over their support are dropped [m].
    """

    def __init__(self, network: Network, vocabulary: tuple[str, ...], max_height_m: float = 0.6) -> None:
        self.network, self.vocabulary, self.max_height_m = network, vocabulary, max_height_m

    def segment(
        self,
        frame: Frame,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """See ``Segmenter.segment``. ``candidates`` is not used: the network also finds flat objects."""
        parts = self.decode(self.infer(frame, cloud, height), cloud, candidates, height, predicted)
        return joined(parts, group(len(parts.keys), parts.pairs, parts.log_odds))

    def infer(self, frame: Frame, cloud: Cloud, height: NDArray[np.float32]) -> tuple[Image, ...]:
        """The network's maps, named in ``OUTPUTS``, of a size padded to even numbers."""
        image = network_input(cloud, height)
        h, w = image.shape[1:]
        padded = np.pad(image, ((0, 0), (0, h % 2), (0, w % 2)))[None] if h % 2 or w % 2 else image[None]
        return self.network(padded)

    def decode(
        self,
        inferred: tuple[Image, ...],
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """Instances from the network's maps; see ``TwoStageSegmenter``."""
        h, w = cloud.depth.shape
        foreground, center, offset, classes, embedding = inferred
        # A mask without depth can be neither lifted nor tracked.
        known = np.isfinite(cloud.depth)
        labels, scores = group_pixels(
            _sigmoid(foreground[0, 0, :h, :w]) * known, _sigmoid(center[0, 0, :h, :w]), offset[0, :, :h, :w]
        )
        labels, scores = over_supports(labels, scores, height, self.max_height_m)
        count = len(scores)
        if not count:
            return Segmentation(labels, np.zeros(0, np.int64))
        maps = np.concatenate([classes[0], embedding[0]])
        means = pooled(maps, labels, count)
        logits, vectors = means[:, : len(self.vocabulary)], means[:, len(self.vocabulary) :]
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponent / exponent.sum(axis=1, keepdims=True)
        vectors = _unit(vectors)
        best = probabilities.argmax(axis=1)
        names = tuple(
            self.vocabulary[k] if probabilities[row, k] >= _UNKNOWN_CLASS else "object" for row, k in enumerate(best)
        )
        segmentation = Segmentation(
            labels,
            np.full(count, -1, np.int64),
            names,
            scores,
            vectors.astype(np.float32),
            self.vocabulary,
            probabilities.astype(np.float32),
        )
        return with_links(segmentation, self.offset_px(inferred, (h, w)), cloud, height)

    @staticmethod
    def offset_px(inferred: tuple[Image, ...], shape: tuple[int, ...]) -> Image:
        """(2, h, w) x and y from each pixel of an image of this shape to the middle of its object [pixels]."""
        return np.asarray(inferred[OUTPUTS.index("offset")][0, :, : shape[0], : shape[1]] * np.float32(OFFSET_SCALE_PX))


def pooled(maps: Image, labels: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """Means (L, C) of maps (C, h/2, w/2) over labels 1..L of an image (h, w); 0 where a label has no pixel there."""
    h, w = maps.shape[1:]
    small = labels[: 2 * h : 2, : 2 * w : 2]
    maps = maps[:, : small.shape[0], : small.shape[1]]
    inside = small > 0
    owner = small[inside] - 1
    sizes = np.maximum(np.bincount(owner, minlength=count), 1)
    sums = [np.bincount(owner, weights=channel[inside], minlength=count) for channel in maps]
    return (np.stack(sums, axis=1) / sizes[:, None]).astype(np.float32)
