"""The network by which neighboring segments are one object."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="training is not installed; run: make test WITH=training")

from training.segmenter.part_odds import FOLDS, HIDDEN, MEMBERS, Pairs, fit, held_out_odds
from training.worlds.splits import SPLITS
from wm_perception.segmentation.part_features import FEATURES
from wm_perception.segmentation.part_network import PartNetwork, shipped


def drawn(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of different scales, labels drawn by known weights, and these."""
    rng = np.random.default_rng(4)
    true = np.array([2.0, -0.3, 0.0])
    features = rng.normal([0.0, 5.0, 1.0], [1.0, 6.0, 0.5], (count, 3))
    odds = features @ true + 0.5
    return features, rng.uniform(size=count) < 1.0 / (1.0 + np.exp(-odds)), true


def test_the_odds_that_made_the_labels_are_found() -> None:
    features, one, true = drawn(20_000)
    network = fit(features, one)
    fresh = drawn(20_000)[0][:500] + 0.1
    wanted = fresh @ true + 0.5
    likely = np.abs(wanted) < 4.0
    assert np.abs(network.log_odds(fresh) - wanted)[likely].mean() < 0.4


def test_what_only_two_features_together_say_is_found() -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(8000, 3))
    one = features[:, 0] * features[:, 1] > 0.0
    network = fit(features[:6000], one[:6000])
    assert ((network.log_odds(features[6000:]) > 0.0) == one[6000:]).mean() > 0.9


def test_a_network_comes_back_from_its_file() -> None:
    features, one, _ = drawn(2000)
    network = fit(features, one)
    stored = json.loads(json.dumps(network.as_dict("abc")))
    assert PartNetwork.from_dict(stored, "abc").log_odds(features) == pytest.approx(
        network.log_odds(features), abs=0.02
    )
    with pytest.raises(ValueError, match=r"got features a, b, c; expected a, c, b; .*part_odds"):
        PartNetwork.from_dict(stored, "acb")


def test_every_pair_is_told_by_a_network_from_other_worlds() -> None:
    features, one, true = drawn(4000)
    world = np.arange(4000) // 100
    # In the worlds of one fold all labels are the wrong way around: that must not change what is said of them.
    wrong = world % FOLDS == 2
    pairs = Pairs(features, one ^ wrong, world, np.full(4000, SPLITS.index("train")), np.zeros(4000))
    odds = held_out_odds(pairs)
    assert np.corrcoef(odds[wrong], features[wrong] @ true)[0, 1] > 0.95


def test_the_shipped_network_is_of_these_features() -> None:
    network = shipped()
    assert len(network.mean) == len(FEATURES) and network.hidden.shape == (len(FEATURES), HIDDEN * MEMBERS)
    assert np.isfinite(network.log_odds(np.zeros((2, len(FEATURES))))).all()
