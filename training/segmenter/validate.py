"""Masks of a segmenter on the clips that its training keeps for validation, by split.

``python -m training.segmenter.validate``: for choosing between weights, as the held-out splits are for measuring alone.
It reads the features that ``make train-segmenter`` made. The network alone is without what follows it: outlines at
edges of color, and scores that know what an instance touches.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.segmenter.evaluate import evaluate
from training.segmenter.features import command_line, loaded, validation_rows
from training.worlds.dataset import Prepared


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    arguments = parser.parse_args()
    data, network = loaded(parser, arguments)
    console = Console()
    table = Table(
        "split", "images", "AP50", "AP", "AP of the network alone", "classes right", title=str(arguments.model)
    )
    with Progress(console=console) as progress:
        for split, rows in validation_rows(np.asarray(data.clips)):
            part = Prepared(data.inputs[rows], data.masks[rows], data.clips[rows], data.classes[rows])
            bar = progress.add_task(split, total=2 * len(rows))
            found = evaluate(network, part, lambda _, bar=bar: progress.advance(bar))  # type: ignore[misc]
            alone = evaluate(network, part, lambda _, bar=bar: progress.advance(bar), refined=False)  # type: ignore[misc]
            figures = (found.mask_ap50, found.mask_ap, alone.mask_ap, found.class_accuracy)
            table.add_row(split, str(len(rows)), *("-" if np.isnan(v) else f"{v:.3f}" for v in figures))
    console.print(table)


if __name__ == "__main__":
    main()
