"""Options of the reasoner's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODELS = Path("ros2_ws/src/wm_perception/models")
VALIDATION = 0.08
"""Part of the clips of the training set that training is watched and calibrated with; not the held-out splits."""
VIEWS = 2
"""How often each imitated clip is perceived, each time with other errors."""
SEEN_WEIGHT = 3
"""How often a clip that perception really saw is in the lessons: there are fewer, and they are what matters."""
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
