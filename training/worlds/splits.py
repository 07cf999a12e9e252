"""The splits of the random worlds, and the random generators of a world."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Split = Literal["train", "seeds", "families", "assemblies", "household", "homeware", "stacks"]
"""In an order that stays: a split's place in it is a part of the seed of its worlds."""
SPLITS: tuple[Split, ...] = get_args(Split)
MEASURED_ONLY: tuple[Split, ...] = ("household",)
"""Splits that nothing may be trained on, because of the licenses of what is in them."""
SEEDS_OF_A_SPLIT = 1_000_000
"""More than the seeds of any split, so that seed + this times the split's index names a clip among all of them."""


def generator(split: Split, seed: int, purpose: int) -> np.random.Generator:
    """A stream of its own for each purpose (0: the scene, 1: its appearance, 2: its depth sensor, 3: its shadows).

    Raises:
        ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    return np.random.default_rng([SPLITS.index(split) + 1, seed, purpose])
