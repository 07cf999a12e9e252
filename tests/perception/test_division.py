"""Instances divided along the borders that the network sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.worlds.dataset import apart
from wm_perception.segmentation.division import APART_PX, borders, divide

SURE = 6.0
"""Log-odds of a network that knows."""


def as_network(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a network that knows the true ids (h, w) says; 0 where its training asks for nothing."""
    truth = apart(mask)
    return np.select([truth == 1, truth == 0], [SURE, -SURE], 0.0).astype(np.float32)


def test_the_target_says_which_neighbors_are_of_two_objects() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:16, 4:15], mask[4:16, 15:26] = 2, 3
    truth = dict(zip(APART_PX, apart(mask), strict=True))
    right = truth[0, 3]
    assert (right[4:16, 4:12] == 0).all() and (right[4:16, 12:15] == 1).all() and (right[4:16, 15:23] == 0).all()
    assert (right[4:16, 23:] == 2).all() and (right[:4] == 2).all(), "of the background and the margin nothing is known"
    assert (truth[0, 9][4:16, 6:15] == 1).all()
    assert (truth[3, 0][4:13, 4:26] == 0).all() and not (truth[9, 0] == 1).any()


def test_two_things_in_one_instance_are_two_parts_of_it() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:40], mask[10:50, 40:70] = 2, 3
    mask[52:58, 20:60] = 4
    found = np.where(mask == 4, 2, (mask > 0).astype(np.int32)).astype(np.int32)
    parts, whole = divide(found, as_network(mask))
    assert whole.tolist() == [1, 1, 2]
    assert len(np.unique(parts[mask == 4])) == 1
    sides = [np.bincount(parts[mask == k], minlength=4) for k in (2, 3)]
    for own in sides:
        # The border is where the network says, to a pixel.
        assert own.max() >= 0.96 * own.sum() and own[0] == 0
    assert sides[0].argmax() != sides[1].argmax()


def test_one_thing_is_one_part_whatever_its_color() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:70] = 2
    parts, whole = divide((mask > 0).astype(np.int32), as_network(mask))
    assert whole.tolist() == [1] and (parts == (mask > 0)).all()


def test_a_scrap_beyond_a_border_stays_with_its_instance() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:40], mask[20:23, 40:44] = 2, 3
    parts, whole = divide((mask > 0).astype(np.int32), as_network(mask))
    assert whole.tolist() == [1] and (parts == (mask > 0)).all()


def test_borders_lie_between_the_two_that_are_compared() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :15], mask[:, 15:] = 1, 2
    columns = np.flatnonzero(borders(as_network(mask))[10])
    assert {14, 15} <= set(columns.tolist()) and all(abs(c - 14.5) < 2.0 for c in columns)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_every_pixel_keeps_its_instance(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 50), np.int32)
    for _ in range(count):
        y, x = rng.integers(0, 30), rng.integers(0, 40)
        labels[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = rng.integers(1, count + 1)
    labels = (
        np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
        if labels.min() == 0
        else labels
    )
    parts, whole = divide(labels, rng.normal(0.0, 3.0, (len(APART_PX), 40, 50)).astype(np.float32))
    assert set(np.unique(parts[parts > 0]).tolist()) == set(range(1, len(whole) + 1))
    assert (np.concatenate([[0], whole])[parts] == labels).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 9)])
def test_images_smaller_than_the_distances(shape: tuple[int, int]) -> None:
    labels = np.ones(shape, np.int32)
    parts, whole = divide(labels, np.zeros((len(APART_PX), *shape), np.float32))
    assert (parts == labels).all() and whole.tolist() == [1]
