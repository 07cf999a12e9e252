"""How far an instance can be trusted, learned from how well the network's instances fitted the true ones.

After Huang et al., Mask Scoring R-CNN, CVPR 2019: what the network is sure of is not how well a mask fits. A piece of
an object touches the object's other pieces, and the network may be sure of each.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.segmentation.edges import beside_others

SCORE_GAIN, TOUCH_GAIN, OFFSET = 5.97, -1.43, -2.55
"""Of the logistic function that gives the expected IoU with the true mask, from the network's score and the touched
part of the outline; fitted by ``python -m training.segmenter.confidence``, which prints them."""


def touched_share(labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """(L,) part 0..1 of each instance's outline along which it touches others; 0 without an outline.

    Args:
        labels: (h, w), 0 = background, 1..L; count: L.
    """
    touching = beside_others(labels, 1)
    covered = (labels > 0).astype(np.uint8)
    rim = touching | (cv2.erode(covered, np.ones((3, 3), np.uint8)) != covered)
    of_rim = np.bincount(labels[rim], minlength=count + 1)[1:]
    of_touching = np.bincount(labels[touching], minlength=count + 1)[1:]
    return np.asarray(of_touching / np.maximum(of_rim, 1), np.float64)


def expected_iou(scores: NDArray[np.float32], touched: NDArray[np.float64]) -> NDArray[np.float32]:
    """Expected IoU 0..1 of instances with the true ones, from the network's scores and ``touched_share``, (L,) each."""
    return np.asarray(1.0 / (1.0 + np.exp(-(SCORE_GAIN * scores + TOUCH_GAIN * touched + OFFSET))), np.float32)
