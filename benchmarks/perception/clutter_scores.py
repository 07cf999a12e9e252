"""Overlap and boundary scores of masks in clutter.

The metric of unseen-object segmentation (Dave et al., "Towards Segmenting Anything That Moves", ICCV workshops 2019;
Xie et al., "The Best of Both Modes", CoRL 2019): found masks are assigned to true ones so that the sum of F is largest,
and pixels are counted over all objects together. F is 2 P R / (P + R).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Labels = NDArray[np.integer]

BOUNDARY_SHARE = 0.003
"""Distance within which boundaries agree, as a part of the image's diagonal, as in the papers; at least a pixel."""
GOOD_F = 0.75
"""Overlap F above which an object counts as segmented well."""


@dataclass(frozen=True)
class ClutterCounts:
    """Pixels and objects of images, which add up.

    Attributes:
        overlap: pixels (common, found, true) of masks; boundary: (found on a true one, found, true on a found one,
            true) of boundaries; good: true objects with F above ``GOOD_F``; true, found: how many there are.
    """

    overlap: tuple[int, int, int] = (0, 0, 0)
    boundary: tuple[int, int, int, int] = (0, 0, 0, 0)
    good: int = 0
    true: int = 0
    found: int = 0

    def __add__(self, other: ClutterCounts) -> ClutterCounts:
        return ClutterCounts(
            tuple(a + b for a, b in zip(self.overlap, other.overlap, strict=True)),  # type: ignore[arg-type]
            tuple(a + b for a, b in zip(self.boundary, other.boundary, strict=True)),  # type: ignore[arg-type]
            self.good + other.good,
            self.true + other.true,
            self.found + other.found,
        )

    def scores(self) -> dict[str, float | None]:
        """Precision, recall and F of overlap and boundary, and the share of good objects, 0..1; None: nothing there."""
        common, found, true = self.overlap
        on_true, edges, on_found, true_edges = self.boundary
        result: dict[str, float | None] = {}
        for name, precision, recall in (
            ("overlap", _ratio(common, found), _ratio(common, true)),
            ("boundary", _ratio(on_true, edges), _ratio(on_found, true_edges)),
        ):
            result |= {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f": _f(precision, recall)}
        result["good_share"] = _ratio(self.good, self.true)
        return result


def total(counts: Iterable[ClutterCounts]) -> ClutterCounts:
    """Over all images."""
    return sum(counts, ClutterCounts())


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _f(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None:
        return None
    return 2.0 * precision * recall / (precision + recall) if precision + recall > 0.0 else 0.0


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask (h, w) with a neighbor, of four, that is not in it; the image's edge is no boundary."""
    padded = np.pad(mask, 1, mode="edge")
    whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~whole


def _near(edge: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels within ``reach`` pixels of an edge."""
    size = 2 * reach + 1
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x * x + y * y <= reach * reach).astype(np.uint8).reshape(size, size)
    return cv2.dilate(edge.astype(np.uint8), disk) > 0


def count_image(true: Labels, found: Labels, least_pixels: int = 0) -> ClutterCounts:
    """Counts of one image.

    Args:
        true, found: labels (h, w), 0 = background. least_pixels: true objects with fewer are not scored, nor are the
            pixels found on them.

    Raises:
        ValueError: images of different sizes.
    """
    if true.shape != found.shape:
        raise ValueError(f"found: got {found.shape}, expected {true.shape} as the true labels")
    names, sizes = np.unique(true[true > 0], return_counts=True)
    small = np.isin(true, names[sizes < least_pixels])
    true, found = np.where(small, 0, true), np.where(small, 0, found)
    true_masks = [true == name for name in names[sizes >= least_pixels]]
    found_masks = [found == name for name in np.unique(found[found > 0])]
    reach = max(1, int(np.ceil(BOUNDARY_SHARE * np.hypot(*true.shape))))
    true_edges, found_edges = [boundary(m) for m in true_masks], [boundary(m) for m in found_masks]
    true_near, found_near = [_near(e, reach) for e in true_edges], [_near(e, reach) for e in found_edges]
    common = np.array([[int((t & f).sum()) for f in found_masks] for t in true_masks]).reshape(
        len(true_masks), len(found_masks)
    )
    true_sizes = np.array([int(m.sum()) for m in true_masks])
    found_sizes = np.array([int(m.sum()) for m in found_masks])
    overlap_f = 2.0 * common / np.maximum(true_sizes[:, None] + found_sizes[None], 1)
    rows, columns = linear_sum_assignment(-overlap_f)
    on_true = sum(int((found_edges[c] & true_near[r]).sum()) for r, c in zip(rows, columns, strict=True))
    on_found = sum(int((true_edges[r] & found_near[c]).sum()) for r, c in zip(rows, columns, strict=True))
    return ClutterCounts(
        (int(common[rows, columns].sum()), int(found_sizes.sum()), int(true_sizes.sum())),
        (on_true, sum(int(e.sum()) for e in found_edges), on_found, sum(int(e.sum()) for e in true_edges)),
        int((overlap_f[rows, columns] > GOOD_F).sum()),
        len(true_masks),
        len(found_masks),
    )
