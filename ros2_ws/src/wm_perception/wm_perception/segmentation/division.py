"""Instances divided where the network sees a border between two objects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]

APART_PX = ((0, 3), (3, 0), (0, 9), (9, 0))
"""Rows down and columns to the right of the other pixel that each channel of the network's ``apart`` looks at."""
BORDER = 0.0
"""Log-odds of two objects between a pixel's neighbors, to its left and right or above and below it, from which it is
on a border. Smaller divides more, and what is divided must be joined again."""
_MIN_PIXELS = 20
"""Of what is left of a part without its border. Larger leaves small things with what they touch."""


def borders(apart: Image, least: float = BORDER) -> NDArray[np.bool_]:
    """(h, w) whether a pixel lies on a border between two objects.

    Args:
        apart: (N, h, w) log-odds that a pixel and its neighbors ``APART_PX`` are of two objects.
        least: of a border.
    """
    across = np.full(apart.shape[1:], -np.inf, np.float32)
    for channel, (down, right) in zip(apart, APART_PX[:2], strict=False):
        # To where the middle between both is; the network was taught nothing where one is beyond the image.
        h, w = max(channel.shape[0] - down, 0), max(channel.shape[1] - right, 0)
        middle = across[down // 2 : down // 2 + h, right // 2 : right // 2 + w]
        np.maximum(middle, channel[:h, :w], out=middle)
    return across > least


def divide(
    labels: NDArray[np.int32], apart: Image, least: float = BORDER
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Instances (h, w), 1..L, in parts that borders separate, and the instance 1..L that each part is of.

    Every pixel of an instance goes to the nearest part of it.

    Args:
        labels: (h, w), 0 = background, none without a pixel; apart, least: see ``borders``.

    Returns:
        (h, w) the parts 1..P, P >= L; (P,).
    """
    inner = (~borders(apart, least)).astype(np.uint8)
    result = np.zeros_like(labels)
    owners: list[int] = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[window] == number
        found, parts, stats, _ = cv2.connectedComponentsWithStats(inner[window] * own, connectivity=4)
        large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _MIN_PIXELS) + 1
        if found < 3 or len(large) < 2:
            owners.append(number)
            result[window][own] = len(owners)
            continue
        new = np.zeros(found, np.int32)
        new[large] = len(owners) + 1 + np.arange(len(large))
        owners += [number] * len(large)
        cores = new[parts]
        # Of each pixel, the nearest pixel of a core, by its number.
        _, nearest = cv2.distanceTransformWithLabels(
            (cores == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        of_nearest = np.zeros(int(nearest.max()) + 1, np.int32)
        at = cores > 0
        of_nearest[nearest[at]] = cores[at]
        result[window][own] = of_nearest[nearest][own]
    return result, np.array(owners, np.int64)
