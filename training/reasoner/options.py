"""Options of the reasoner's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODELS = Path("ros2_ws/src/wm_perception/models")
VALIDATION = 0.08
"""Fraction of the training clips that are kept for validation and calibration; not the held-out splits."""
VIEWS = 2
"""How often each clip is given simulated tracks, each time with other errors."""
SEEN_WEIGHT = 3
"""How often a clip of real tracks is repeated in training: there are fewer, and the robot has only these."""
Z90 = 1.6449
"""Half width of the 90 % interval of a normal distribution, in standard deviations."""


@dataclass(frozen=True)
class Options:
    """What determines the weights; kept in checkpoints.

    Attributes:
        seed: of the first weights and of every batch; steps: of the training; batch: windows a step.
        rate: highest learning rate; clips, seen_clips: of the training set, with simulated and with real tracks.
    """

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    seen_clips: int
