"""Options of the segmenter's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    """

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    assemblies: int = 0
    homeware: int = 0
