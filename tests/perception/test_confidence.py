"""How far an instance is trusted: what touches others is less surely one whole object."""

from __future__ import annotations

import numpy as np
import pytest

from wm_perception.segmentation.confidence import expected_iou, touched_share


def test_share_of_the_outline_that_touches_others() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 5:25], labels[10:30, 25:45] = 1, 2
    labels[2:6, 50:56] = 3
    shares = touched_share(labels, 3)
    # Of a square of 20 pixels 76 are its outline, of which 20 are beside the other one.
    assert shares.tolist() == pytest.approx([20 / 76, 20 / 76, 0.0])


@pytest.mark.parametrize("other", [1, 7])
def test_an_instance_within_another_one_is_touched_all_around(other: int) -> None:
    inner = 4
    labels = np.full((30, 30), other, np.int32)
    labels[10:20, 10:20] = inner
    shares = touched_share(labels, 7)
    assert shares[inner - 1] == 1.0
    assert shares[other - 1] == 1.0  # the image's edge is not an outline
    assert shares[[1, 2, 4, 5]].tolist() == [0.0] * 4


def test_the_expected_iou_grows_with_the_score_and_falls_with_what_is_touched() -> None:
    scores = np.linspace(0.0, 1.0, 11).astype(np.float32)
    alone = expected_iou(scores, np.zeros(11))
    touched = expected_iou(scores, np.full(11, 0.7))
    assert (np.diff(alone) > 0).all() and (touched < alone).all()
    assert ((alone > 0) & (alone < 1)).all() and alone[-1] > 0.9 and alone[0] < 0.1
    assert alone.dtype == np.float32
    assert expected_iou(np.zeros(0, np.float32), np.zeros(0)).shape == (0,)
