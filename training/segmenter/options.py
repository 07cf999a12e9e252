"""Options of the segmenter's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODELS = Path("ros2_ws/src/wm_perception/models")
TEMPERATURE = 0.1
VALIDATION_CLIPS = 40
"""The last clips of the training set: to watch training with, never trained on, not the held-out splits."""


@dataclass(frozen=True)
class Options:
    """What decides the weights."""

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    assemblies: int = 0
