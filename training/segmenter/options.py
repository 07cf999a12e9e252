"""Options of the segmenter's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS

MODELS = Path("ros2_ws/src/wm_perception/models")
TEMPERATURE = 0.1
"""Of the contrastive loss; larger values separate similar objects less."""
VALIDATION_CLIPS = 40
"""Clips of the training set that are kept for validation, the last ones of each of its splits."""


@dataclass(frozen=True)
class Options:
    """What determines the weights; kept in checkpoints.

    Attributes:
        seed: of the first weights and of every batch; steps: of the training; batch: images a step.
        rate: highest learning rate; clips: of the training set; assemblies: further clips of random assemblies;
        homeware: further clips of household things.
        stacks: further clips of things that stand on each other; settling: how many of the steps, the last ones, see
        these too.
    """

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    assemblies: int = 0
    homeware: int = 0
    stacks: int = 0
    settling: int = 0


def validation_clips(clips: NDArray[np.int64]) -> NDArray[np.int64]:
    """The clips, of those of all images (M,), that are not trained on: the last ones of each split but ``stacks``."""
    known = np.unique(clips)
    known = known[known // SEEDS_OF_A_SPLIT != SPLITS.index("stacks")]
    splits = np.unique(known // SEEDS_OF_A_SPLIT)
    each = max(VALIDATION_CLIPS // max(len(splits), 1), 1)
    return np.concatenate([known[known // SEEDS_OF_A_SPLIT == s][-each:] for s in splits] or [known])
