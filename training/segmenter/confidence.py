"""Fits how far an instance can be trusted (wm_perception/segmentation/confidence.py).

``python -m training.segmenter.confidence`` runs the network on images that it was trained on, compares its instances
with the true ones, and prints the three numbers of the logistic function, and AP on the validation clips with the
network's scores, with the expected IoU, and with the true IoU in their place. It reads the features that
``make train-segmenter`` made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.optimize import minimize

from training.segmenter.evaluate import Network, average_precision, colors, found
from training.segmenter.features import command_line, loaded, validation_rows
from training.segmenter.options import validation_clips
from training.worlds.dataset import QUANTUM, Prepared
from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS
from wm_perception.segmentation.confidence import OFFSET, SCORE_GAIN, TOUCH_GAIN, expected_iou, touched_share
from wm_perception.segmentation.edges import to_color_edges

Array = NDArray[np.float64]


def true_ious(labels: NDArray[np.int32], count: int, ground_truth: NDArray[np.uint8]) -> Array:
    """(L,) the largest IoU of each instance with a true one.

    Args:
        labels: (h, w), 0 = background, 1..L; count: L; ground_truth: (h, w) ids, 0 = background.
    """
    common = np.zeros((int(ground_truth.max()) + 1, count + 1))
    np.add.at(common, (ground_truth.ravel(), labels.ravel()), 1.0)
    union = common.sum(axis=1, keepdims=True) + common.sum(axis=0, keepdims=True) - common
    overlap = (common / np.maximum(union, 1.0))[1:, 1:]
    return np.asarray(overlap.max(axis=0) if len(overlap) else np.zeros(count), np.float64)


def fitted(evidence: Array, ious: Array) -> Array:
    """(3,) gains of the score and of the touched share, and the offset, by the cross entropy of the IoUs.

    Args:
        evidence: (N, 2) scores and touched shares; ious: (N,) 0..1.
    """

    def loss(parameters: Array) -> float:
        logit = evidence @ parameters[:2] + parameters[2]
        return float(np.mean(np.logaddexp(0.0, logit) - ious * logit))

    return np.asarray(minimize(loss, np.array([1.0, 0.0, 0.0])).x)


def instances(
    network: Network, data: Prepared, rows: NDArray[np.int64], progress: Callable[[], None]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32], Array, Array]]:
    """True masks, labels, scores, touched shares and true IoUs of each of the images."""
    for row in rows:
        image = data.inputs[row].astype(np.float32) / QUANTUM
        labels, scores, _ = found(network, image, refined=False)
        labels = to_color_edges(labels, len(scores), colors(image))
        truth = np.array(data.masks[row])
        yield truth, labels, scores, touched_share(labels, len(scores)), true_ious(labels, len(scores), truth)
        progress()


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=1500, help="to fit to (default: %(default)s)")
    arguments = parser.parse_args()
    data, network = loaded(parser, arguments)
    clips = np.asarray(data.clips)
    trained = np.flatnonzero(
        ~np.isin(clips, validation_clips(clips)) & (clips // SEEDS_OF_A_SPLIT != SPLITS.index("stacks"))
    )
    trained = np.sort(np.random.default_rng(0).permutation(trained)[: arguments.images])
    console = Console()
    with Progress(console=console) as progress:
        bar = progress.add_task("images to fit to", total=len(trained))
        seen = list(instances(network, data, trained, lambda: progress.advance(bar)))
        evidence = np.concatenate([np.column_stack([s, t]) for _, _, s, t, _ in seen]).astype(np.float64)
        parameters = fitted(evidence, np.concatenate([iou for *_, iou in seen]))
        table = Table(
            "split", "network's score", "expected IoU", "true IoU", title="validation AP, by what it is ranked by"
        )
        for split, rows in validation_rows(clips):
            bar = progress.add_task(split, total=len(rows))
            images = list(instances(network, data, rows, lambda bar=bar: progress.advance(bar)))  # type: ignore[misc]
            truths = [image[0] for image in images]
            ranked = (
                [(labels, scores) for _, labels, scores, _, _ in images],
                [(labels, expected_iou(scores, touched)) for _, labels, scores, touched, _ in images],
                [(labels, iou.astype(np.float32)) for _, labels, _, _, iou in images],
            )
            table.add_row(split, *(f"{average_precision(truths, by)[1]:.3f}" for by in ranked))
    console.print(table)
    console.print(
        f"fitted to {len(evidence)} instances: SCORE_GAIN, TOUCH_GAIN, OFFSET = {np.round(parameters, 2).tolist()}"
    )
    console.print(f"in use: {[SCORE_GAIN, TOUCH_GAIN, OFFSET]}")


if __name__ == "__main__":
    main()
