"""Options of the reasoner's training, and the tensors of its network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

MODELS = Path("ros2_ws/src/wm_perception/models")
OPSET = 18
VALIDATION = 0.08
"""Part of the clips of the training set that training is watched and calibrated with; not the held-out splits."""
VIEWS = 2
"""How often each imitated clip is perceived, each time with other errors."""
SEEN_WEIGHT = 3
"""How often a clip that perception really saw is in the lessons: there are fewer, and they are what matters."""
INPUTS = ("objects", "pairs", "shapes", "contacts", "steps", "causes")
OUTPUTS = (
    "pair_probabilities",
    "object_probabilities",
    "prior",
    "contact_evidence",
    "step_evidence",
    "cause",
)
Z90 = 1.6449


@dataclass(frozen=True)
class Options:
    """What decides the weights."""

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    seen_clips: int


def learning_rate(step: int, options: Options) -> float:
    """Rises over 100 steps, then falls as a cosine to 1 %."""
    if step < 100:
        return options.rate * (step + 1) / 100
    done = min(1.0, (step - 100) / max(options.steps - 100, 1))
    return options.rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))
