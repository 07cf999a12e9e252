"""Instance masks against the ground truth by COCO's definition (Lin et al., Microsoft COCO, 2014), class-agnostic."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_PIXELS = 25
"""Of a 320x240 mask (100 of 640x480): smaller true objects and wrong finds do not count, by COCO's area range."""


def available() -> bool:
    """Whether pycocotools is installed (requirements/training.txt)."""
    return importlib.util.find_spec("pycocotools") is not None


def encode(labels: NDArray[np.integer], scores: NDArray[np.floating] | None = None) -> list[dict[str, Any]]:
    """Masks of a label image (h, w), 0 = background, as run lengths.

    Args:
        scores: (L,) of labels 1..L, for found instances; None: a true image, of any ids.
    """
    from pycocotools import mask as codec

    names = [int(n) for n in np.unique(labels) if n > 0]
    if not names:
        return []
    # All at once: the codec expects (h, w, n) in column order.
    stack = np.asfortranarray((labels[:, :, None] == np.array(names)).astype(np.uint8))
    found = []
    for k, (name, code) in enumerate(zip(names, codec.encode(stack), strict=True)):
        entry = {"segmentation": code, "area": int(stack[:, :, k].sum()), "size": labels.shape}
        if scores is not None:
            entry["score"] = float(scores[name - 1])
        found.append(entry)
    return found


def average_precision(
    ground_truths: Sequence[list[dict[str, Any]]],
    predictions: Sequence[list[dict[str, Any]]],
    least_pixels: int = LEAST_PIXELS,
) -> tuple[float | None, float | None]:
    """Mask AP at IoU 0.5, and over IoU 0.5 to 0.95, by pycocotools; None without true objects.

    Args:
        ground_truths, predictions: masks of each image by ``encode``.
    """
    from pycocotools import mask as codec
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (true, found) in enumerate(zip(ground_truths, predictions, strict=True), start=1):
        sizes = [m["size"] for m in (*true, *found)] or [(1, 1)]
        images.append({"id": number, "height": sizes[0][0], "width": sizes[0][1]})
        for m in true:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": m["segmentation"],
                    "area": m["area"],
                    "bbox": codec.toBbox(m["segmentation"]).tolist(),
                    "iscrowd": 0,
                }
            )
        for m in found:
            entry = {"image_id": number, "category_id": 1, "segmentation": m["segmentation"], "score": m["score"]}
            results.append(entry)
    if not any(a["area"] >= least_pixels for a in annotations):
        return None, None
    if not results:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[least_pixels, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU, recall, class, area, detections): as in COCO's summary, which needs its own area ranges.
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return float(precision[0].mean()), float(precision.mean())


def best_ious(
    ground_truth: NDArray[np.integer], labels: NDArray[np.integer], names: Sequence[int]
) -> NDArray[np.float64]:
    """For each named true object the largest IoU with any found one."""
    count = int(labels.max()) + 1
    sizes = np.bincount(labels.ravel(), minlength=count)
    result = np.zeros(len(names))
    for k, name in enumerate(names):
        inside = ground_truth == name
        common = np.bincount(labels[inside], minlength=count)
        iou = common / np.maximum(sizes + int(inside.sum()) - common, 1)
        iou[0] = 0.0
        result[k] = iou.max()
    return result


def mean_iou(ground_truth: NDArray[np.integer], labels: NDArray[np.integer], names: Sequence[int]) -> float:
    """Quality of a frame's segmentation, 0..1: best IoUs of the true objects, averaged with a 0 for each wrong find.

    A find is wrong if no true object covers half of it; those below ``LEAST_PIXELS`` do not count.
    """
    found = best_ious(ground_truth, labels, names)
    covered = np.bincount(labels[ground_truth > 0], minlength=int(labels.max()) + 1)
    sizes = np.bincount(labels.ravel(), minlength=len(covered))
    wrong = int(((sizes >= LEAST_PIXELS) & (2 * covered < sizes))[1:].sum())
    total = len(found) + wrong
    return float(found.sum() / total) if total else 1.0
