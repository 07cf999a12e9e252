"""Beginnings and ends of touches, from flags of every step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import IMAGINED_CONTACT_GAP_STEPS
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.rollout_tables import Flags


def touches_of(flags: Flags, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    """Row, time [s], a, b, began of the beginnings and ends in flags (steps, R, Q) of pairs (Q,); short gaps are
    closed.
    """
    steps = len(flags)
    padded = np.zeros((steps + 2, *flags.shape[1:]), dtype=bool)
    padded[1:-1] = flags
    for gap in range(1, IMAGINED_CONTACT_GAP_STEPS + 1):
        if steps > gap + 1:
            both = flags[: -gap - 1] & flags[gap + 1 :]
            for k in range(1, gap + 1):
                padded[1 + k : 1 + k + len(both)] |= both
    changes = padded[1:] != padded[:-1]
    step, row, pair = np.nonzero(changes)
    began = padded[step + 1, row, pair]
    # A touch within the first two steps began at the start. A touch lasts for its whole step: it ends with the next
    # step, which has none. One that ends just before the end of the rollout may continue, and is left open.
    when = np.where(began, np.where(step <= 1, 0.0, (step + 1) * STEP_S), (step + 1) * STEP_S)
    kept = began | (step + IMAGINED_CONTACT_GAP_STEPS <= steps)
    return row[kept], when[kept], a[pair[kept]], b[pair[kept]], began[kept]
