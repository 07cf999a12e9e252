"""Outlines of instances are moved to edges of color near them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wm_perception.segmentation.edges import to_color_edges


def _scene() -> tuple[np.ndarray, np.ndarray]:
    """True labels of a blue and a red square side by side on gray, and their image."""
    labels = np.zeros((60, 80), np.int32)
    labels[15:45, 10:40], labels[15:45, 40:70] = 1, 2
    colors = np.array([[128, 128, 128], [30, 40, 200], [200, 40, 30]], np.uint8)
    return labels, colors[labels]


def test_a_border_that_is_two_pixels_off_comes_to_the_edge_of_color() -> None:
    labels, rgb = _scene()
    off = labels.copy()
    off[15:45, 40:42] = 1
    found = to_color_edges(off, 2, rgb)
    assert (found != labels).sum() <= 6 < (off != labels).sum() == 60


def test_an_outline_that_is_a_pixel_too_small_or_too_large_comes_to_the_edge_of_color() -> None:
    labels, rgb = _scene()
    for off in (np.pad(labels, 1)[2:, 1:-1], np.pad(labels, 1)[:-2, 1:-1], np.pad(labels, 1)[1:-1, :-2]):
        found = to_color_edges(off, 2, rgb)
        assert (found != labels).sum() < 0.5 * (off != labels).sum()


def test_without_an_edge_of_color_nothing_but_the_surroundings_of_the_outline_changes() -> None:
    labels, _ = _scene()
    found = to_color_edges(labels, 2, np.full((60, 80, 3), 90, np.uint8))
    inner = np.zeros_like(labels, bool)
    inner[18:42, 13:36] = inner[18:42, 44:67] = True
    assert (found[inner] == labels[inner]).all()
    assert (found[:12] == 0).all() and (found[48:] == 0).all()


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_no_instance_is_lost_and_none_invented(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 50), np.int32)
    for label in range(1, count + 1):
        row, column = rng.integers(0, 36), rng.integers(0, 46)
        labels[row : row + rng.integers(1, 15), column : column + rng.integers(1, 15)] = label
    rgb = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    before = labels.copy()
    found = to_color_edges(labels, count, rgb)
    assert set(np.unique(found)) - {0} == set(np.unique(before)) - {0}
    assert (labels == before).all() and found.dtype == np.int32
