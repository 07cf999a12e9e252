"""Random numbers for the scatter of belief samples: the same in every request, so they are drawn once."""

from __future__ import annotations

import functools
import threading

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

KEPT_TABLES = 4
"""Tables that are kept; 64 samples of 8 objects for 2 s are 1.5 MB."""
DRAWN_STEPS = 12
"""Steps that are drawn together. To set up a generator takes some 20 us, as long as to draw 2,000 numbers: with one for
each step and sample, the first request with 64 samples took 0.1 s longer."""


class SampleNoise:
    """Standard normal numbers of S samples and M bodies, by sample, step and body alone; sample 0 gets none."""

    def __init__(self, samples: int, bodies: int) -> None:
        self._samples, self._bodies = samples, bodies
        self._lock = threading.Lock()
        self._until: Floats = np.zeros((0, 6, samples, bodies), dtype=np.float32)

    def at(self, step: int) -> Floats:
        """(6, S, M) numbers of a step."""
        return self.until(step + 1)[step]

    def until(self, steps: int) -> Floats:
        """(steps or more, 6, S, M) numbers of the first steps."""
        with self._lock:
            have = len(self._until)
            if have < steps:
                portions = range(have // DRAWN_STEPS, -(-steps // DRAWN_STEPS))
                self._until = np.concatenate([self._until, *map(self._drawn, portions)])
            return self._until

    def _drawn(self, portion: int) -> Floats:
        made = np.zeros((DRAWN_STEPS, 6, self._samples, self._bodies), dtype=np.float32)
        for s in range(1, self._samples):
            # Body by body, so that one more body leaves the numbers of the others as they are.
            numbers = np.random.default_rng([s, portion]).standard_normal((self._bodies, DRAWN_STEPS, 6), np.float32)
            made[:, :, s] = numbers.transpose(1, 2, 0)
        return made


@functools.lru_cache(maxsize=KEPT_TABLES)
def sample_noise(samples: int, bodies: int) -> SampleNoise:
    """The numbers of so many samples and bodies."""
    return SampleNoise(samples, bodies)
