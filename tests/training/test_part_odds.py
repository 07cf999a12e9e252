"""The regression by which neighboring segments are one object."""

from __future__ import annotations

import numpy as np
import pytest

from training.segmenter.part_odds import FOLDS, Pairs, fit, held_out_odds
from training.worlds.splits import SPLITS
from wm_perception.segmentation.part_features import FEATURES
from wm_perception.segmentation.part_links import _WEIGHTS


def drawn(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of different scales, labels drawn by known weights, and these."""
    rng = np.random.default_rng(4)
    true = np.array([2.0, -0.3, 0.0])
    features = rng.normal([0.0, 5.0, 1.0], [1.0, 6.0, 0.5], (count, 3))
    odds = features @ true + 0.5
    return features, rng.uniform(size=count) < 1.0 / (1.0 + np.exp(-odds)), true


def test_the_weights_that_made_the_labels_are_found() -> None:
    features, one, true = drawn(20_000)
    weights, constant = fit(features, one)
    assert weights == pytest.approx(true, abs=0.1)
    assert constant == pytest.approx(0.5, abs=0.15)


def test_every_pair_is_told_by_weights_from_other_worlds() -> None:
    features, one, true = drawn(4000)
    world = np.arange(4000) // 100
    # In the worlds of one fold all labels are the wrong way around: that must not change what is said of them.
    wrong = world % FOLDS == 2
    pairs = Pairs(features, one ^ wrong, world, np.full(4000, SPLITS.index("train")))
    odds = held_out_odds(pairs)
    assert np.corrcoef(odds[wrong], features[wrong] @ true)[0, 1] > 0.95


def test_the_shipped_weights_are_of_these_features() -> None:
    assert tuple(_WEIGHTS) == FEATURES
