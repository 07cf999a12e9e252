"""The scores of masks in clutter on images made by hand: the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.perception.clutter_scores import ClutterCounts, boundary, count_image, total


def squares(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(100, 120) with rectangles (row, column, height, width) as labels 1, 2, ..."""
    image = np.zeros((100, 120), np.int32)
    for number, (row, column, height, width) in enumerate(boxes, start=1):
        image[row : row + height, column : column + width] = number
    return image


TWO = squares((10, 10, 20, 20), (50, 60, 20, 20))


def test_perfect_masks_under_other_names() -> None:
    renamed = np.where(TWO == 1, 9, np.where(TWO == 2, 4, 0))
    scores = count_image(TWO, renamed).scores()
    assert all(value == 1.0 for value in scores.values()), scores


def test_a_missing_object_costs_recall_alone() -> None:
    counts = count_image(TWO, np.where(TWO == 1, 1, 0))
    assert counts.scores() == {
        "overlap_precision": 1.0,
        "overlap_recall": 0.5,
        "overlap_f": pytest.approx(2 / 3),
        "boundary_precision": 1.0,
        "boundary_recall": 0.5,
        "boundary_f": pytest.approx(2 / 3),
        "good_share": 0.5,
    }
    assert (counts.true, counts.found) == (2, 1)


def test_an_object_cut_in_two_keeps_its_larger_part() -> None:
    true = squares((10, 10, 20, 40))
    cut = squares((10, 10, 20, 28), (10, 38, 20, 12))
    counts = count_image(true, cut)
    assert counts.overlap == (20 * 28, 800, 800)
    scores = counts.scores()
    assert scores["overlap_precision"] == scores["overlap_recall"] == pytest.approx(0.7)
    # F of the larger part alone is 2 * 560 / (560 + 800).
    assert scores["good_share"] == 1.0


def test_two_objects_found_as_one() -> None:
    true = squares((10, 10, 20, 20), (10, 30, 20, 20))
    merged = squares((10, 10, 20, 40))
    counts = count_image(true, merged)
    assert counts.overlap == (400, 800, 800)
    assert counts.good == 0  # 2 * 400 / (400 + 800) is under 0.75
    # The outer boundary of the half that is assigned agrees; that between the two was not found.
    assert counts.scores()["boundary_recall"] < 0.6


def test_the_assignment_is_the_best_of_all_together() -> None:
    """Taking the largest F first would give up the second object."""
    true = squares((0, 0, 10, 100), (10, 0, 10, 60))
    found = np.zeros_like(true)
    found[0:10, 0:60] = 1
    found[10:20, 0:60] = 1
    found[0:10, 60:100] = 2
    # Found 1 has F 0.75 with the first and 0.67 with the second; found 2 has 0.57 with the first alone.
    counts = count_image(true, found)
    assert counts.overlap[0] == 600 + 400


def test_boundaries_a_pixel_apart_agree_and_ten_pixels_apart_do_not() -> None:
    true = squares((20, 20, 40, 40))
    near, far = squares((21, 21, 38, 38)), squares((30, 30, 20, 20))
    assert count_image(true, near).scores()["boundary_f"] == pytest.approx(152 / 154)  # all but the corners
    assert count_image(true, far).scores()["boundary_f"] == 0.0
    assert count_image(true, far).scores()["overlap_precision"] == 1.0


def test_edges_of_the_image_are_no_boundary() -> None:
    whole = np.ones((10, 12), bool)
    assert not boundary(whole).any()
    left = whole.copy()
    left[:, 6:] = False
    assert boundary(left)[:, 5].all() and boundary(left).sum() == 10


def test_small_objects_and_what_is_found_on_them_do_not_count() -> None:
    true = squares((10, 10, 20, 20), (50, 60, 4, 4))
    found = squares((10, 10, 20, 20), (50, 60, 4, 4))
    counts = count_image(true, found, least_pixels=25)
    assert (counts.true, counts.found, counts.overlap) == (1, 1, (400, 400, 400))


def test_nothing_there_and_nothing_found() -> None:
    empty = np.zeros((20, 20), np.int32)
    assert set(count_image(empty, empty).scores().values()) == {None}
    only_found = count_image(empty, squares((5, 5, 5, 5))[:20, :20]).scores()
    assert only_found["overlap_precision"] == 0.0 and only_found["overlap_recall"] is None
    with pytest.raises(ValueError, match="expected"):
        count_image(empty, np.zeros((10, 10), np.int32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_add_up_and_scores_stay_in_range(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def image() -> np.ndarray:
        boxes = [tuple(int(v) for v in (*rng.integers(0, 80, 2), *rng.integers(3, 30, 2))) for _ in range(4)]
        return squares(*boxes)  # type: ignore[arg-type]

    pairs = [(image(), image()) for _ in range(3)]
    parts = [count_image(t, f) for t, f in pairs]
    added = total(parts)
    assert added == parts[0] + parts[1] + parts[2] + ClutterCounts()
    for value in added.scores().values():
        assert value is not None and 0.0 <= value <= 1.0
    backwards = total(count_image(f, t) for t, f in pairs).scores()
    assert backwards["overlap_precision"] == pytest.approx(added.scores()["overlap_recall"])
