"""A segmenter that knows the true masks: what is left of the errors with it is not the segmenter's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.reasoner.rendered_clips import RenderedClip
from training.worlds.families import VOCABULARY
from wm_perception.types import Cloud, Frame, PredictedObject, Segmentation

_SURE = 0.9
"""Probability of the true class: as a good network's. Larger makes priors by class stronger than they can be live."""


class OracleSegmenter:
    """True masks and classes of the frames of a clip, by their stamps.

    Identities are not given: association is the tracker's, as with any segmenter.
    """

    def __init__(self, clip: RenderedClip) -> None:
        self._frames = {frame.stamp_ns: frame for frame in clip.frames}
        self._class_names = dict(zip(clip.ground_truth.ids.tolist(), clip.ground_truth.class_names, strict=True))

    def segment(
        self,
        frame: Frame,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """As ``Segmenter.segment``.

        Raises:
            KeyError: the clip has no frame of this stamp.
        """
        true = self._frames[frame.stamp_ns].ids
        h, w = cloud.depth.shape
        step = max(1, round(true.shape[0] / h))
        ids = true[::step, ::step][:h, :w]
        present = [int(i) for i in np.unique(ids) if i]
        labels = np.zeros((h, w), np.int32)
        probabilities = np.full((len(present), len(VOCABULARY)), (1.0 - _SURE) / (len(VOCABULARY) - 1), np.float32)
        names = []
        for row, number in enumerate(present):
            labels[ids == number] = row + 1
            name = self._class_names[number]
            names.append(name if name in VOCABULARY else "object")
            if name in VOCABULARY:
                probabilities[row, VOCABULARY.index(name)] = _SURE
            else:
                probabilities[row] = 1.0 / len(VOCABULARY)
        return Segmentation(
            labels,
            np.full(len(present), -1, np.int64),
            tuple(names),
            np.ones(len(present), np.float32),
            np.zeros((0, 0), np.float32),
            VOCABULARY,
            probabilities,
        )
