"""Options of the segmenter's training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

MODELS = Path("ros2_ws/src/wm_perception/models")
OPSET = 18
EMA_DECAY = 0.998
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


def learning_rate(step: int, options: Options) -> float:
    """Rises over 200 steps, then falls as a cosine to 1 %."""
    if step < 200:
        return options.rate * (step + 1) / 200
    done = (step - 200) / max(options.steps - 200, 1)
    return options.rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))
