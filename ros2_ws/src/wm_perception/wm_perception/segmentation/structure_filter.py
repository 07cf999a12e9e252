"""Instances without what is no thing: pieces of walls and of the sides of bins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_perception.lifting.structure import Structure
from wm_perception.types import Cloud, Segmentation

_MOSTLY = 0.7
"""Part of an instance on walls or sides from which it is dropped. Larger keeps walls that were taken for objects,
smaller drops things that lean on walls."""
_PARTLY = 0.25
"""Part of an instance on walls or sides from which these pixels are cut off. Larger leaves strips of wall on things."""
_LOW_M, _RAISED = 0.02, 0.25
"""Height over the support [m] up to which pixels of an instance are not counted, where this part of it at least is
higher. Larger drops low things beside a side that are one instance with it."""
_LEFT = 0.35
"""Part of an instance that must be left when pixels were cut off. Larger drops more that is half hidden by a wall."""
_SAMPLES = 4000
"""Pixels of instances that are looked at. Larger: slower, and surer of small instances."""
_WHOLE = 0.6
"""Part of the pixels of a container's sides that are of one instance, from which the segmenter has seen it as one
thing: a tray, a basket. Larger drops more of these."""


def without_structure(
    segmentation: Segmentation,
    cloud: Cloud,
    height: NDArray[np.float32],
    structure: Structure,
    longest_m: float,
) -> tuple[Segmentation, dict[int, int]]:
    """The instances that are things.

    An instance that is mostly on a wall, or on the sides of a container, is dropped; from others that are partly on
    them those pixels are cut off. Where one instance has most of a container's sides, the container is that thing.

    Args:
        height: (h, w) over the support below each pixel [m], NaN where there is none.
        longest_m: a container that is longer is never one of the instances.

    Returns:
        What is left, labels renumbered, and the label of each container that is an instance, by its index in
        ``structure.containers``.
    """
    count = len(segmentation.keys)
    if not structure or not count:
        return segmentation, {}
    labels = segmentation.labels.ravel()
    points, normals, depth = cloud.points.reshape(-1, 3), cloud.normals.reshape(-1, 3), cloud.depth.ravel()
    # Whether a pixel without depth is on a wall is not known.
    pixels = np.flatnonzero((labels > 0) & np.isfinite(depth))
    things = _containers_as_things(structure, segmentation.labels, cloud, longest_m)
    others = replace(structure, containers=tuple(c for k, c in enumerate(structure.containers) if k not in things))
    some = pixels[:: max(1, len(pixels) // _SAMPLES)]
    on = _on(others, points[some], depth[some], normals[some])
    # What lies low may be the floor of a bin that was taken into a piece of its side.
    low = height.ravel()[some] < _LOW_M
    sizes = np.bincount(labels[some], minlength=count + 1)
    raised = np.bincount(labels[some], weights=on | ~low, minlength=count + 1)
    raised = np.where(raised >= _RAISED * sizes, raised, sizes)
    share = np.bincount(labels[some], weights=on, minlength=count + 1) / np.maximum(raised, 1)
    if share.max() < _PARTLY:
        return segmentation, things
    keep = share < _MOSTLY
    keep[0] = False
    cut = keep & (share >= _PARTLY)
    result = labels.copy()
    if cut.any():
        rows = pixels[cut[labels[pixels]]]
        away = rows[_on(others, points[rows], depth[rows], normals[rows])]
        result[away] = 0
        before = np.bincount(labels[rows], minlength=count + 1)
        lost = np.bincount(labels[away], minlength=count + 1)
        keep &= before - lost >= _LEFT * before
    number = (np.cumsum(keep) * keep).astype(np.int32)
    left = {k: int(number[label]) for k, label in things.items() if keep[label]}
    return _some(segmentation, number, number[result].reshape(segmentation.labels.shape), keep[1:]), left


def _on(
    structure: Structure,
    points: NDArray[np.float32],
    depth: NDArray[np.float32],
    normals: NDArray[np.float32],
) -> NDArray[np.bool_]:
    return np.asarray(structure.on_walls(points, depth) | (structure.on_sides(points, depth, normals) >= 0))


def _containers_as_things(
    structure: Structure, labels: NDArray[np.int32], cloud: Cloud, longest_m: float
) -> dict[int, int]:
    """Which containers are one instance, and which."""
    things: dict[int, int] = {}
    if not structure.containers:
        return things
    every = np.s_[::3, ::3]
    owner = labels[every].ravel()
    side = structure.on_sides(cloud.points[every].reshape(-1, 3), cloud.depth[every].ravel())
    for index, container in enumerate(structure.containers):
        if float(container.shape.sizes.max()) > longest_m:
            continue
        votes = np.bincount(owner[side == index])
        if len(votes) > 1 and votes[1:].max() > _WHOLE * votes.sum():
            things[index] = int(votes[1:].argmax()) + 1
    return things


def _some(
    segmentation: Segmentation, number: NDArray[np.int32], labels: NDArray[np.int32], keep: NDArray[np.bool_]
) -> Segmentation:
    """Some of the instances (L,), with the new number of each (L + 1,), and their new labels (h, w)."""
    pairs = number[segmentation.pairs]
    both = (pairs > 0).all(axis=1)
    names = tuple(n for n, k in zip(segmentation.class_names, keep, strict=False) if k)
    return replace(
        segmentation,
        labels=labels,
        keys=segmentation.keys[keep],
        class_names=names,
        scores=segmentation.scores[keep] if len(segmentation.scores) else segmentation.scores,
        embeddings=segmentation.embeddings[keep] if segmentation.embeddings.size else segmentation.embeddings,
        class_probabilities=segmentation.class_probabilities[keep]
        if segmentation.class_probabilities.size
        else segmentation.class_probabilities,
        pairs=pairs[both].astype(np.int64),
        log_odds=segmentation.log_odds[both],
    )
