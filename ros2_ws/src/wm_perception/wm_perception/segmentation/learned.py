"""Instances from a trained network, which gives each pixel's object probability and its offset to the object's center.

The network (training/segmenter/model.py) gives foreground, center, offset, class and embedding maps, after
Cheng et al., Panoptic-DeepLab, CVPR 2020; pixels go to the center that they point at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.segmentation.confidence import expected_iou, touched_share
from wm_perception.segmentation.division import BORDER, divide
from wm_perception.segmentation.edges import to_color_edges
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
OUTPUTS = ("foreground", "centre", "offset", "classes", "embedding", "apart")
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

Network = Callable[[Image], tuple[NDArray[np.float32], ...]]


def network_input(cloud: Cloud, height: NDArray[np.float32]) -> Image:
    """The network's input for a frame, (10, h, w) float32 in -1..1, 0 where unknown.

    Colors; height over the support below, over 0.3 m; whether that is known; normals toward the right of the camera,
    level forward, and up; the logarithm of depth over the image's median; depth against its surroundings of 15 pixels
    (a step of 8 % is 1).

    Args:
        cloud: of the frame; height: (h, w) [m], NaN where there is no support below.
    """
    out = np.empty((len(CHANNELS), *cloud.depth.shape), np.float32)
    for k, channel in enumerate(cv2.split(cloud.rgb)):
        np.multiply(channel, np.float32(2.0 / 255.0), out=out[k])
    out[:3] -= np.float32(1.0)
    np.divide(height, np.float32(_HEIGHT_SCALE_M), out=out[3])
    cv2.patchNaNs(out[3], 0.0)
    np.clip(out[3], -1.0, 1.0, out=out[3])
    out[4] = np.isfinite(height)
    right = cloud.world_T_camera[:3, 0].astype(np.float32)
    turn = np.zeros((3, 3), np.float64)
    level = float(np.hypot(right[0], right[1]))
    c, s = (right[0] / level, right[1] / level) if level > 1e-6 else (1.0, 0.0)
    turn[0, :2], turn[1, :2], turn[2, 2] = (c, s), (-s, c), 1.0
    normals = cv2.transform(cloud.normals, turn)
    cv2.patchNaNs(normals, 0.0)
    cv2.mixChannels([normals], [out[5], out[6], out[7]], [0, 0, 1, 1, 2, 2])
    valid = np.isfinite(cloud.depth)
    if not valid.any():
        out[8:] = 0.0
        return out
    # As numbers: products with a mask convert it each time.
    known = valid.astype(np.float32)
    depth = np.where(valid, cloud.depth, np.float32(0.0))
    some = depth[::4, ::4][valid[::4, ::4]]
    middle = _median(some) if len(some) else 1.0
    logarithm = np.log(np.maximum(depth, 0.05) / np.float32(middle))
    np.multiply(np.clip(logarithm, -1.0, 1.0), known, out=out[8])
    mean = cv2.boxFilter(logarithm * known, -1, (_RELIEF_WINDOW, _RELIEF_WINDOW))
    mean /= np.maximum(cv2.boxFilter(known, -1, (_RELIEF_WINDOW, _RELIEF_WINDOW)), 1e-3)
    logarithm -= mean
    logarithm *= np.float32(_RELIEF_GAIN)
    np.multiply(np.clip(logarithm, -1.0, 1.0, out=logarithm), known, out=out[9])
    return out


def _median(values: NDArray[np.float32]) -> float:
    """Of at least one value; NumPy's own takes several times as long."""
    half = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, half)[half])
    ordered = np.partition(values, (half - 1, half))
    return float((ordered[half - 1] + ordered[half]) / np.float32(2.0))


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
    # By index into the flat image: much faster than by rows and columns.
    pixels = np.flatnonzero(foreground > threshold)
    if not len(pixels):
        return labels, np.zeros(0, np.float32)
    rows, columns = np.divmod(pixels, w)
    vote_x = columns + offset[0].ravel()[pixels] * OFFSET_SCALE_PX
    vote_y = rows + offset[1].ravel()[pixels] * OFFSET_SCALE_PX
    # Votes concentrate at centers; the center map gives their probability and separates close ones.
    x = np.clip(np.rint(vote_x), 0, w - 1).astype(np.int64)
    y = np.clip(np.rint(vote_y), 0, h - 1).astype(np.int64)
    votes = np.bincount(y * w + x, minlength=h * w).reshape(h, w).astype(np.float32)
    votes = cv2.GaussianBlur(votes, (0, 0), 2.0)
    peak = np.sqrt(votes / max(float(votes.max()), 1e-6)) * 0.3 + cv2.GaussianBlur(center, (0, 0), 1.0)
    strongest = cv2.dilate(peak, np.ones((9, 9), np.uint8))
    near_center = cv2.dilate(center, np.ones((5, 5), np.uint8))
    candidates = (peak >= strongest) & (near_center > 0.12) & (votes > 0.05)
    cy, cx = np.divmod(np.flatnonzero(candidates), w)
    if not len(cy):
        return labels, np.zeros(0, np.float32)
    order = np.argsort(-peak[cy, cx])[:_MAX_INSTANCES]
    cy, cx = cy[order], cx[order]
    squared, owner = np.full(len(pixels), np.inf), np.zeros(len(pixels), np.int64)
    for k, (x_k, y_k) in enumerate(zip(cx.tolist(), cy.tolist(), strict=True)):
        here = np.square(vote_x - x_k) + np.square(vote_y - y_k)
        owner[here < squared] = k
        np.minimum(squared, here, out=squared)
    count = np.bincount(owner, minlength=len(cy))
    heat = near_center[cy, cx]
    sure = np.bincount(owner, weights=foreground.ravel()[pixels], minlength=len(cy)) / np.maximum(count, 1)
    # An object whose pixels do not agree on its center is less likely one object.
    spread = np.sqrt(np.bincount(owner, weights=squared, minlength=len(cy)) / np.maximum(count, 1))
    agreement = np.exp(-0.5 * np.square(spread / (4.0 + 0.25 * np.sqrt(np.maximum(count, 1)))))
    scores = (np.clip(heat, 0.0, 1.0) ** 0.5 * sure * agreement).astype(np.float32)
    keep = count >= min_pixels
    number = np.cumsum(keep) * keep
    labels.ravel()[pixels] = number[owner]
    return labels, scores[keep]


def over_supports(
    labels: NDArray[np.int32],
    scores: NDArray[np.float32],
    height: NDArray[np.float32],
    depth: NDArray[np.float32],
    max_height_m: float,
    min_pixels: int = 20,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The instances that can be lifted, and of which at least a quarter is over a support, where any support is known.

    A mask reaches over pixels without depth, as of a glossy lid, but without enough that have it, it can be neither
    lifted nor tracked. The network was not trained on rooms without a table in view, where it finds objects in walls.
    """
    if not len(scores):
        return labels, scores
    inside = (labels > 0) & np.isfinite(depth)
    owner = labels[inside]
    sizes = np.bincount(owner, minlength=len(scores) + 1)
    keep = sizes >= min_pixels
    if np.isfinite(height).any():
        with np.errstate(invalid="ignore"):
            over = (height > -0.02) & (height < max_height_m)
        covered = np.bincount(owner, weights=over[inside], minlength=len(scores) + 1)
        keep &= covered >= _OVER_SUPPORT * sizes
    keep[0] = False
    if keep[1:].all():
        return labels, scores
    return (np.cumsum(keep) * keep).astype(np.int32)[labels], scores[keep[1:]]


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
        network: from the input (1, 10, h, w) to the maps named in ``OUTPUTS``.
        vocabulary: names of the classes, in the order of the network's output.
        max_height_m: instances higher than this over their support are dropped [m].
        border: log-odds from which pixels are on a border between two objects, see ``division.borders``.

    Attributes:
        uses_tracks: False, ``predicted`` is not looked at.
    """

    uses_tracks = False

    def __init__(
        self, network: Network, vocabulary: tuple[str, ...], max_height_m: float = 0.6, border: float = BORDER
    ) -> None:
        self.network, self.vocabulary, self.max_height_m, self.border = network, vocabulary, max_height_m, border

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
        return self.refine(joined(parts, group(len(parts.keys), parts.pairs, parts.log_odds)), cloud)

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
        """Segments from the network's maps, and the log-odds of neighbors being one object; see ``TwoStageSegmenter``.

        A network divides objects of shapes that it was not trained on into parts that it knows: a stool into its seat
        and its legs.
        """
        h, w = cloud.depth.shape
        foreground, center, offset, classes, embedding, apart = inferred
        labels, scores = group_pixels(
            _sigmoid(foreground[0, 0, :h, :w]), _sigmoid(center[0, 0, :h, :w]), offset[0, :, :h, :w]
        )
        labels, scores = over_supports(labels, scores, height, cloud.depth, self.max_height_m)
        if not len(scores):
            return Segmentation(labels, np.zeros(0, np.int64))
        labels, whole = divide(labels, apart[0, :, :h, :w], self.border)
        scores, count = scores[whole - 1], len(whole)
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
        return with_links(segmentation, self.offset_px(inferred, (h, w)), apart[0, :, :h, :w], cloud, height)

    def refine(self, segmentation: Segmentation, cloud: Cloud) -> Segmentation:
        """Whole objects with outlines at edges of color, and expected IoUs as scores; see ``RefiningSegmenter``."""
        count = len(segmentation.scores)
        labels = to_color_edges(segmentation.labels, count, cloud.rgb)
        scores = expected_iou(segmentation.scores, touched_share(labels, count))
        return replace(segmentation, labels=labels, scores=scores)

    @staticmethod
    def offset_px(inferred: tuple[Image, ...], shape: tuple[int, ...]) -> Image:
        """(2, h, w) x and y from each pixel of an image of this shape to the middle of its object [pixels]."""
        return np.asarray(inferred[OUTPUTS.index("offset")][0, :, : shape[0], : shape[1]] * np.float32(OFFSET_SCALE_PX))


def pooled(maps: Image, labels: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """Means (L, C) of maps (C, h/2, w/2) over labels 1..L of an image (h, w); 0 where a label has no pixel there."""
    h, w = maps.shape[1:]
    small = labels[: 2 * h : 2, : 2 * w : 2]
    maps = maps[:, : small.shape[0], : small.shape[1]]
    flat = small.ravel()
    inside = np.flatnonzero(flat)
    means = np.zeros((count, len(maps)), np.float32)
    if not len(inside):
        return means
    # In the order of labels, so that each label's pixels lie together.
    inside = inside[np.argsort(flat[inside], kind="stable")]
    present, first = np.unique(flat[inside], return_index=True)
    sums = np.add.reduceat(maps.reshape(len(maps), -1)[:, inside], first, axis=1, dtype=np.float64)
    means[present - 1] = (sums / np.diff(first, append=len(inside))).T
    return means
