"""Options of the dynamics' training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODELS = Path("ros2_ws/src/wm_dynamics/models")
VALIDATION = 0.06
"""Fraction of the training clips that are kept for validation and calibration; not the held-out splits."""
STILL_M = 0.004
"""Windows in which no object moves further [m] are drawn ten times less often."""
CHI2_3_90 = 6.251
"""90 % quantile of the chi-square distribution with three degrees of freedom."""


@dataclass(frozen=True)
class Options:
    """What determines the weights; kept in checkpoints.

    Attributes:
        seed: of the first weights and of every batch; steps: of the training; batch: windows a step.
        rate: highest learning rate; clips: of the training set; longest: steps of the longest rollout.
    """

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    longest: int


def horizon(step: int, options: Options) -> int:
    """Rollout length in steps: from 4 to ``longest`` over the first two thirds of training."""
    done = min(1.0, 1.5 * step / max(options.steps, 1))
    return round(4 + (options.longest - 4) * done)
