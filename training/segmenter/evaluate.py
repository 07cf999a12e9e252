"""Masks of the trained segmenter against the ground truth, by COCO's definition, and pictures of the worst."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.common.model_card import WorstFrame
from training.worlds.dataset import QUANTUM, Prepared
from training.worlds.families import VOCABULARY
from training.worlds.splits import SEEDS_OF_A_SPLIT
from wm_perception.segmentation.confidence import expected_iou, touched_share
from wm_perception.segmentation.edges import to_color_edges
from wm_perception.segmentation.learned import INPUT, group_pixels, pooled

MIN_VISIBLE_PX = 30
"""Smaller objects are not scored, in images of 320 x 240."""

Network = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class Evaluation:
    """Scores over M images.

    Attributes:
        mask_ap50, mask_ap: class-agnostic, IoU 0.5 and 0.5..0.95 (Lin et al., Microsoft COCO, 2014).
        class_accuracy: of matched objects of a known class; unknown_rejected: of matched objects of no known class, the
            fraction called ``object``; nan where there are none.
        images, objects: how many; quality: (M,) mean IoU of the true objects of each image.
    """

    mask_ap50: float
    mask_ap: float
    class_accuracy: float
    unknown_rejected: float
    images: int
    objects: int
    quality: NDArray[np.float64]


def session(path: Path, threads: int) -> Network:
    """An ONNX Runtime session of a file as a function."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: run.run(None, {INPUT: image})


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-np.clip(x, -30.0, 30.0)))


def found(
    network: Network, image: NDArray[np.float32], refined: bool = True
) -> tuple[NDArray[np.int32], NDArray[np.float32], list[str]]:
    """Labels (h, w), scores (L,) and class names of one input (10, h, w).

    Args:
        refined: outlines moved to edges of color and scores that are expected IoUs, as in ``LearnedSegmenter.decode``;
            but for parts, which are joined there by the metric cloud, and are not here.
    """
    foreground, center, offset, classes, *_ = network(image[None])
    labels, scores = group_pixels(_sigmoid(foreground[0, 0]), _sigmoid(center[0, 0]), offset[0])
    if not len(scores):
        return labels, scores, []
    logits = pooled(classes[0], labels, len(scores))
    if refined:
        labels = to_color_edges(labels, len(scores), colors(image))
        scores = expected_iou(scores, touched_share(labels, len(scores)))
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = exponent.argmax(axis=1)
    sure = exponent.max(axis=1) / exponent.sum(axis=1)
    return labels, scores, [VOCABULARY[k] if p >= 0.5 else "object" for k, p in zip(best, sure, strict=True)]


def colors(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 red, green and blue of an input (10, h, w)."""
    return np.asarray(np.clip((image[:3].transpose(1, 2, 0) + 1.0) * 127.5, 0.0, 255.0), np.uint8)


def average_precision(
    ground_truths: list[NDArray[np.uint8]], predictions: list[tuple[NDArray[np.int32], NDArray[np.float32]]]
) -> tuple[float, float]:
    """COCO's mask AP at IoU 0.5 and over 0.5..0.95, class-agnostic.

    Args:
        ground_truths: masks (h, w) of instance ids, 0 background; predictions: labels (h, w) and scores (L,) of each.
    """
    from pycocotools import mask as codec
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for number, (ground_truth, (labels, scores)) in enumerate(zip(ground_truths, predictions, strict=True), start=1):
        images.append({"id": number, "height": ground_truth.shape[0], "width": ground_truth.shape[1]})
        for name in np.unique(ground_truth[ground_truth > 0]):
            inside = ground_truth == name
            area = int(inside.sum())
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": codec.encode(np.asfortranarray(inside.astype(np.uint8))),
                    "area": area,
                    "bbox": codec.toBbox(codec.encode(np.asfortranarray(inside.astype(np.uint8)))).tolist(),
                    "iscrowd": 0,
                }
            )
        for label, score in enumerate(scores, start=1):
            inside = labels == label
            results.append(
                {
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": codec.encode(np.asfortranarray(inside.astype(np.uint8))),
                    "score": float(score),
                }
            )
    if not annotations or not results:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        # Smaller objects are neither missed nor false: COCO leaves out areas beyond the range.
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[MIN_VISIBLE_PX, 1e9]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


def evaluate(
    network: Network, data: Prepared, progress: Callable[[int], None] = lambda _: None, refined: bool = True
) -> Evaluation:
    """Scores of a network on prepared images; ``refined`` as for ``found``."""
    ground_truths, predictions, quality = [], [], np.ones(len(data.masks))
    right = known = rejected = unknown = objects = 0
    for row in range(len(data.masks)):
        labels, scores, names = found(network, data.inputs[row].astype(np.float32) / QUANTUM, refined)
        ground_truth = np.array(data.masks[row])
        ground_truths.append(ground_truth)
        predictions.append((labels, scores))
        overlaps = []
        for number in np.unique(ground_truth[ground_truth > 0]):
            inside = ground_truth == number
            if int(inside.sum()) < MIN_VISIBLE_PX:
                continue
            objects += 1
            counts = np.bincount(labels[inside], minlength=len(scores) + 1)
            sizes = np.bincount(labels.ravel(), minlength=len(scores) + 1)
            iou = counts / (sizes + int(inside.sum()) - counts)
            iou[0] = 0.0
            best = int(iou.argmax())
            overlaps.append(float(iou[best]))
            if iou[best] >= 0.5:
                wanted = int(data.classes[row, number])
                if wanted >= 0:
                    known += 1
                    right += names[best - 1] == VOCABULARY[wanted]
                else:
                    unknown += 1
                    rejected += names[best - 1] == "object"
        quality[row] = float(np.mean(overlaps)) if overlaps else 1.0
        progress(row + 1)
    ap50, ap = average_precision(ground_truths, predictions)
    return Evaluation(
        ap50,
        ap,
        right / known if known else float("nan"),
        rejected / unknown if unknown else float("nan"),
        len(ground_truths),
        objects,
        quality,
    )


def worst_frames(
    network: Network, data: Prepared, quality: NDArray[np.float64], split: str, count: int
) -> list[WorstFrame]:
    """The images with the lowest quality: color, true instances, and what was found (with scores)."""
    frames = []
    for row in np.argsort(quality)[:count]:
        color = np.clip((data.inputs[row, :3].astype(float) / QUANTUM + 1.0) * 127.5, 0, 255).astype(np.uint8)
        color = np.ascontiguousarray(color.transpose(1, 2, 0))
        labels, _, _ = found(network, data.inputs[row].astype(np.float32) / QUANTUM)
        frames.append(
            WorstFrame(
                f"{split}, clip {data.clips[row] % SEEDS_OF_A_SPLIT}",
                f"mean IoU {quality[row]:.2f}",
                {"color": color, "ground truth": _painted(np.array(data.masks[row])), "found": _painted(labels)},
            )
        )
    return frames


def _painted(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(h, w, 3): every label in a color of its own, background black."""
    palette = np.random.default_rng(5).integers(70, 255, (256, 3)).astype(np.uint8)
    palette[0] = 0
    return palette[labels.astype(np.int64) % 256]
