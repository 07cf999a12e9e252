"""Masks of a segmenter on the clips that its training keeps for validation, by split.

``python -m training.segmenter.validate``: for choosing between weights, as the held-out splits are for measuring alone.
It reads the features that ``make train-segmenter`` made. The network alone is without what follows it: outlines at
edges of color, and scores that know what an instance touches.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.segmenter.evaluate import evaluate, session
from training.segmenter.options import MODELS, validation_clips
from training.worlds.dataset import Prepared, load_prepared
from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=MODELS / "segmenter.onnx", help="ONNX file (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("out/train/segmenter"), help="folder of the training (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    arguments = parser.parse_args()
    try:
        data = load_prepared(arguments.work / "features_train")
        network = session(arguments.model, arguments.threads)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    kept = validation_clips(np.asarray(data.clips))
    console = Console()
    table = Table(
        "split", "images", "AP50", "AP", "AP of the network alone", "classes right", title=str(arguments.model)
    )
    with Progress(console=console) as progress:
        for index in np.unique(kept // SEEDS_OF_A_SPLIT):
            rows = np.flatnonzero(np.isin(data.clips, kept[kept // SEEDS_OF_A_SPLIT == index]))
            part = Prepared(data.inputs[rows], data.masks[rows], data.clips[rows], data.classes[rows])
            bar = progress.add_task(SPLITS[index], total=2 * len(rows))
            found = evaluate(network, part, lambda _, bar=bar: progress.advance(bar))  # type: ignore[misc]
            alone = evaluate(network, part, lambda _, bar=bar: progress.advance(bar), refined=False)  # type: ignore[misc]
            figures = (found.mask_ap50, found.mask_ap, alone.mask_ap, found.class_accuracy)
            table.add_row(SPLITS[index], str(len(rows)), *("-" if np.isnan(v) else f"{v:.3f}" for v in figures))
    console.print(table)


if __name__ == "__main__":
    main()
