"""The features that the segmenter's training made, for commands that look at its network."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.segmenter.evaluate import Network, session
from training.segmenter.options import MODELS, validation_clips
from training.worlds.dataset import Prepared, load_prepared
from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Options that name the network, the folder of its training, and the cores to use."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=MODELS / "segmenter.onnx", help="ONNX file (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("out/train/segmenter"), help="folder of the training (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    return parser


def loaded(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> tuple[Prepared, Network]:
    """The features and the network that the command line names; ends the command where they are not there."""
    try:
        return load_prepared(arguments.work / "features_train"), session(arguments.model, arguments.threads)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")


def validation_rows(clips: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Name of each split that has clips kept for validation, and the rows of their images, of the clips (M,) of all."""
    kept = validation_clips(clips)
    for index in np.unique(kept // SEEDS_OF_A_SPLIT):
        yield SPLITS[index], np.flatnonzero(np.isin(clips, kept[kept // SEEDS_OF_A_SPLIT == index]))
