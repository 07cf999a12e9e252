"""The log-odds that two neighboring segments are parts of one object, and the grouping of segments by these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_perception.segmentation.part_features import part_features
from wm_perception.segmentation.part_network import shipped
from wm_perception.types import Array, Cloud, Segmentation

_LOG_ODDS = 6.0
"""Log-odds are no larger than this: surer than one in 400 the network is nowhere."""


def with_links(
    segmentation: Segmentation,
    offset_px: NDArray[np.float32],
    apart: NDArray[np.float32],
    cloud: Cloud,
    height: NDArray[np.float32],
) -> Segmentation:
    """The segmentation with the log-odds of its neighboring segments, see ``part_features`` for the arguments."""
    pairs, features = part_features(segmentation, offset_px, apart, cloud, height)
    odds = np.clip(shipped().log_odds(features), -_LOG_ODDS, _LOG_ODDS)
    return replace(segmentation, pairs=pairs, log_odds=odds)


def group(count: int, pairs: NDArray[np.int64], log_odds: Array) -> NDArray[np.int64]:
    """Which of the labels 1..count are one object: (count + 1,) the new label 0..K of each old one.

    The two groups with the largest sum of log-odds between them are joined for as long as that is positive (greedy
    additive edge contraction, Keuper et al., ICCV 2015): a part that is like one part of an object and unlike all
    others is none of it.
    """
    member = np.arange(count + 1, dtype=np.int64)
    between: dict[int, dict[int, float]] = {}
    for (a, b), odds in zip(pairs.tolist(), log_odds.tolist(), strict=True):
        between.setdefault(a, {})[b] = between.setdefault(b, {})[a] = odds
    while between:
        odds, a, b = max(((v, a, b) for a, row in between.items() for b, v in row.items() if a < b), default=(0, 0, 0))
        if odds <= 0.0:
            break
        for other, value in between.pop(b).items():
            del between[other][b]
            if other != a:
                between[a][other] = between[other][a] = between[a].get(other, 0.0) + value
        member[member == b] = a
    return np.unique(member, return_inverse=True)[1].astype(np.int64)


def joined(segmentation: Segmentation, new: NDArray[np.int64]) -> Segmentation:
    """The segmentation with its labels joined to the new ones (L + 1,), see ``group``.

    Scores, embeddings and the logarithms of class probabilities are means by area; links are those between the new
    ones, the surest where there are several.
    """
    count = int(new.max()) if len(new) else 0
    if count == len(segmentation.keys):
        return segmentation
    areas = np.bincount(segmentation.labels.ravel(), minlength=len(new))[1:].astype(np.float64)
    share = np.zeros((count, len(areas)))
    share[new[1:] - 1, np.arange(len(areas))] = np.maximum(areas, 1e-6)
    share /= share.sum(axis=1, keepdims=True)
    largest = share.argmax(axis=1)
    embeddings = share @ segmentation.embeddings if segmentation.embeddings.size else segmentation.embeddings
    if embeddings.size:
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-6)
    classes = segmentation.class_probabilities
    if classes.size:
        classes = np.exp(share @ np.log(np.maximum(classes, 1e-9)))
        classes = classes / classes.sum(axis=1, keepdims=True)
    ends = new[segmentation.pairs]
    links: dict[tuple[int, int], float] = {}
    for (a, b), odds in zip(ends.tolist(), segmentation.log_odds.tolist(), strict=True):
        if a != b:
            pair = (min(a, b), max(a, b))
            links[pair] = max(links.get(pair, -np.inf), odds)
    return replace(
        segmentation,
        labels=new.astype(np.int32)[segmentation.labels],
        keys=segmentation.keys[largest],
        class_names=tuple(segmentation.class_names[k] for k in largest) if segmentation.class_names else (),
        scores=(share @ segmentation.scores).astype(np.float32) if len(segmentation.scores) else segmentation.scores,
        embeddings=embeddings.astype(np.float32),
        class_probabilities=classes.astype(np.float32),
        pairs=np.array(list(links), np.int64).reshape(-1, 2),
        log_odds=np.array(list(links.values())),
    )
