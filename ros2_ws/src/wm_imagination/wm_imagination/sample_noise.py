"""The random numbers by which belief samples scatter: the same in every request, so they are drawn once."""

from __future__ import annotations

import functools
import threading

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

KEPT_TABLES = 4
"""Tables that are kept; 64 samples of 8 things for 2 s are 1.5 MB."""


class SampleNoise:
    """Standard normal numbers of S samples and M bodies, by sample, step and body alone; sample 0 gets none."""

    def __init__(self, samples: int, bodies: int) -> None:
        self._shape = (6, samples, bodies)
        self._lock = threading.Lock()
        self._until: Floats = np.zeros((0, *self._shape), dtype=np.float32)

    def at(self, step: int) -> Floats:
        """(6, S, M) numbers of a step."""
        return self.until(step + 1)[step]

    def until(self, steps: int) -> Floats:
        """(steps or more, 6, S, M) numbers of the first steps."""
        with self._lock:
            have = len(self._until)
            if have < steps:
                # Some more, so that asking step by step does not copy all of them at every step.
                more = np.stack([self._drawn(step) for step in range(have, max(steps, have + 12))])
                self._until = np.concatenate([self._until, more])
            return self._until

    def _drawn(self, step: int) -> Floats:
        made = np.zeros(self._shape, dtype=np.float32)
        for s in range(1, self._shape[1]):
            made[:, s] = np.random.default_rng([s, step]).standard_normal((self._shape[2], 6)).T
        return made


@functools.lru_cache(maxsize=KEPT_TABLES)
def sample_noise(samples: int, bodies: int) -> SampleNoise:
    """The numbers of so many samples and bodies."""
    return SampleNoise(samples, bodies)
