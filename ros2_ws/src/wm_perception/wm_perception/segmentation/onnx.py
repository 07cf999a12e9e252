"""A user's own instance segmenter, an ONNX file, in place of wm's. docs/models.md has the contract of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.inference.base import InferenceError
from wm_perception.models.contract import (
    Tensor,
    check_tensors,
    check_values,
    load,
    names_in,
    number_in,
    probe,
    shape_text,
)
from wm_perception.models.files import ModelError
from wm_perception.segmentation.geometric import distance_to
from wm_perception.types import Cloud, Frame, PredictedObject, Segmentation

Image = NDArray[np.float32]

INPUTS = (Tensor("rgb", (1, 3, "H", "W")), Tensor("depth", (1, 1, "H", "W"), optional=True))
"""``rgb``: 0..1; ``depth`` [m], 0 where unknown. H and W are fixed by the file, or left open: then the image's own."""

OUTPUTS = (
    Tensor("masks", ("N", "h", "w"), also=((1, "N", "h", "w"), ("N", 1, "h", "w"))),
    Tensor("scores", ("N",), also=((1, "N"),)),
    Tensor("labels", ("N",), np.int64, ((1, "N"),), optional=True),
    Tensor("embeddings", ("N", "D"), also=((1, "N", "D"),), optional=True),
)
"""``masks`` 0..1 over the whole input; ``scores`` 0..1; ``labels`` index the metadata ``vocabulary``."""

_PROBE_SIZE = (96, 128)
"""Height and width [pixels] of the image that a model is tried on when it is loaded."""
_RIM_PIXELS = 3
"""Pixels by which what stands clear of the supports is widened, as objects' lowest pixels do not. Larger takes in more
of the support."""
_CLEAR_SHARE = 0.5
"""Part of a mask that must stand clear of the supports. Larger drops flat objects, smaller accepts the table."""
_LEFT_SHARE = 0.25
"""Part of a mask that surer ones must leave free. Larger drops more of two masks that overlap."""
_KEY_SHARE = 0.5
"""Part of a label's points that must lie on a predicted object for it to be that object."""
_PAD_GRAY = 0.5
"""Color 0..1 of the padding."""


@dataclass(frozen=True)
class Placement:
    """The place of an image in a network's input: scaled, in the upper left corner, the rest padded.

    Attributes:
        size: (H, W) of the input [pixels]; used: (H, W) of the scaled image in it.
    """

    size: tuple[int, int]
    used: tuple[int, int]


def place(image: tuple[int, int], fixed: tuple[int | None, int | None], multiple: int = 1) -> Placement:
    """The placement of an image (H, W) in an input of fixed sizes; open ones (None) are multiples of ``multiple``."""
    scales = [want / have for want, have in zip(fixed, image, strict=True) if want is not None]
    scale = min(scales, default=1.0)
    used = [max(1, min(round(have * scale), want or 2**31)) for have, want in zip(image, fixed, strict=True)]
    size = [want or -(-have // multiple) * multiple for have, want in zip(used, fixed, strict=True)]
    return Placement((size[0], size[1]), (used[0], used[1]))


class OnnxSegmenter:
    """An ONNX instance segmenter as a ``Segmenter``.

    Its masks are cut to what stands clear of the supports and has depth; where they overlap, the higher score wins.

    Args:
        path: of the file.
        threads: of the CPU; None: half of the cores.
        min_pixels: of the cloud, smaller instances are dropped.
        backend: what runs it, see ``wm_core.inference.backends.BACKENDS``.

    Raises:
        ModelError: the file is not such a model; found from what it states and by running it once.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, min_pixels: int = 50, backend: str = "onnxruntime_cpu"
    ) -> None:
        self.path, self.min_pixels = Path(path), min_pixels
        self._session = session = load(path, threads, backend)
        check_tensors(path, "input", session.inputs, INPUTS)
        check_tensors(path, "output", session.outputs, OUTPUTS)
        self.takes_depth = any(s.name == "depth" for s in session.inputs)
        names = {s.name for s in session.outputs}
        self.vocabulary: tuple[str, ...] = ()
        if "labels" in names:
            self.vocabulary = names_in(path, session.metadata, "vocabulary")
        self._mask_threshold = number_in(path, session.metadata, "mask_threshold", 0.5, 0.0, 1.0)
        self._score_threshold = number_in(path, session.metadata, "score_threshold", 0.5, 0.0, 1.0)
        self._multiple = int(number_in(path, session.metadata, "size_multiple", 1, 1, 1024))
        sizes = {s.name: tuple(v if isinstance(v, int) else None for v in s.shape[2:]) for s in session.inputs}
        if self.takes_depth and sizes["depth"] != sizes["rgb"]:
            raise ModelError(
                f"{path}: input 'depth': got size {shape_text(sizes['depth'])}, expected that of 'rgb', "
                f"{shape_text(sizes['rgb'])}"
            )
        self._fixed: tuple[int | None, int | None] = (sizes["rgb"][0], sizes["rgb"][1])
        trial = place(_PROBE_SIZE, self._fixed, self._multiple)
        self._outputs(probe(path, session, self._feeds(*_test_image(), trial)))

    def _feeds(self, color: NDArray[np.uint8], depth: Image, at: Placement) -> dict[str, NDArray[Any]]:
        rows, columns = at.used
        rgb = np.full((1, 3, *at.size), _PAD_GRAY, np.float32)
        scaled = color
        if color.shape[:2] != at.used:
            shrink = rows < color.shape[0]
            scaled = cv2.resize(color, (columns, rows), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
        for k in range(3):
            np.multiply(scaled[..., k], np.float32(1.0 / 255.0), out=rgb[0, k, :rows, :columns])
        feeds: dict[str, NDArray[Any]] = {"rgb": rgb}
        if self.takes_depth:
            meters = np.zeros((1, 1, *at.size), np.float32)
            known = np.where(np.isfinite(depth) & (depth > 0.0), depth, np.float32(0.0))
            # Nearest, as a mean of two depths lies between two surfaces.
            meters[0, 0, :rows, :columns] = cv2.resize(known, (columns, rows), interpolation=cv2.INTER_NEAREST)
            feeds["depth"] = meters
        return feeds

    def _outputs(self, values: dict[str, NDArray[Any]]) -> tuple[Image, Image, NDArray[np.int64], Image]:
        """Masks (N, h, w), scores (N,), labels (N,) or (0,), embeddings (N, D) or (N, 0).

        Raises:
            ModelError: an output breaks the contract.
        """
        sizes: dict[str, int] = {}
        # Scores first: their length says which axis of the masks is N.
        check_values(self.path, values, [OUTPUTS[1], OUTPUTS[0], *OUTPUTS[2:]], sizes)
        count, h, w = sizes["N"], sizes["h"], sizes["w"]
        masks, scores = values["masks"].reshape(count, h, w), values["scores"].reshape(count)
        labels = values["labels"].reshape(-1) if "labels" in values else np.zeros(0, np.int64)
        vectors = values.get("embeddings", np.zeros((count, 0), np.float32)).reshape(count, sizes.get("D", 0))
        for name, array in (("masks", masks), ("scores", scores)):
            if array.size and not (array.min() >= -1e-3 and array.max() <= 1.001):
                raise ModelError(
                    f"{self.path}: output {name!r}: got values {array.min():.3g}..{array.max():.3g}, expected 0..1 "
                    "(after a sigmoid)"
                )
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.vocabulary)):
            raise ModelError(
                f"{self.path}: output 'labels': got values {labels.min()}..{labels.max()}, expected "
                f"0..{len(self.vocabulary) - 1}, the classes in metadata 'vocabulary'"
            )
        return masks, scores, labels, vectors

    def segment(
        self,
        frame: Frame,
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """See ``Segmenter.segment``.

        Raises:
            ModelError: the model failed on this frame, or its output breaks the contract.
        """
        return self.decode(self.infer(frame, cloud, height), cloud, candidates, height, predicted)

    def infer(self, frame: Frame, cloud: Cloud, height: NDArray[np.float32]) -> tuple[Placement, dict[str, Any]]:
        """The placement of the frame in the input, and the model's outputs; see ``TwoStageSegmenter``.

        Raises:
            ModelError: the model failed on this frame.
        """
        at = place((frame.camera.height, frame.camera.width), self._fixed, self._multiple)
        try:
            return at, self._session.run(self._feeds(frame.color, frame.depth_m, at))
        except InferenceError as error:
            raise ModelError(str(error)) from error

    def decode(
        self,
        inferred: tuple[Placement, dict[str, Any]],
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        height: NDArray[np.float32],
        predicted: list[PredictedObject],
    ) -> Segmentation:
        """Instances from the model's outputs; see ``TwoStageSegmenter``.

        Raises:
            ModelError: the model's output breaks the contract.
        """
        at, values = inferred
        masks, scores, classes, vectors = self._outputs(values)
        sure = np.flatnonzero(scores >= self._score_threshold)
        sure = sure[np.argsort(-scores[sure], kind="stable")]
        rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _RIM_PIXELS + 1, 2 * _RIM_PIXELS + 1))
        known = np.isfinite(cloud.depth)
        clear = (cv2.dilate(candidates.astype(np.uint8), rim) > 0) & known
        owner = np.full(clear.shape, -1, np.int64)
        kept: list[int] = []
        for row in sure:
            mask = self._at_cloud(masks[row], at, (clear.shape[0], clear.shape[1])) & known
            inside = mask & clear
            area = int(inside.sum())
            # The table itself, or a wall, is no object, whatever the network's score.
            if area < self.min_pixels or area < _CLEAR_SHARE * int(mask.sum()):
                continue
            free = inside & (owner < 0)
            if int(free.sum()) < max(self.min_pixels, _LEFT_SHARE * area):
                continue
            owner[free] = len(kept)
            kept.append(int(row))
        labels = (owner + 1).astype(np.int32)
        if not kept:
            return Segmentation(labels, np.zeros(0, np.int64))
        chosen = np.array(kept)
        sureness = np.clip(scores[chosen], 0.0, 1.0).astype(np.float32)
        keys = predicted_keys(cloud, labels, len(kept), predicted)
        embeddings = np.zeros((0, 0), np.float32)
        if vectors.shape[1]:
            vectors = vectors[chosen]
            embeddings = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-6))
        if not self.vocabulary:
            return Segmentation(labels, keys, (), sureness, embeddings)
        classes = classes[chosen]
        names = tuple(self.vocabulary[k] for k in classes)
        probabilities = class_probabilities(classes, sureness, len(self.vocabulary))
        return Segmentation(labels, keys, names, sureness, embeddings, self.vocabulary, probabilities)

    def _at_cloud(self, mask: Image, at: Placement, size: tuple[int, int]) -> NDArray[np.bool_]:
        """A mask (h, w) over the network's input, thresholded, at the cloud's size."""
        h, w = mask.shape
        rows = max(1, round(h * at.used[0] / at.size[0]))
        columns = max(1, round(w * at.used[1] / at.size[1]))
        part = np.ascontiguousarray(mask[:rows, :columns])
        return cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > self._mask_threshold


def class_probabilities(classes: NDArray[np.int64], scores: Image, count: int) -> Image:
    """(L, C): a class has its score, the others share the rest evenly."""
    if count == 1:
        return np.ones((len(classes), 1), np.float32)
    spread = np.repeat((1.0 - scores)[:, None] / (count - 1), count, axis=1)
    spread[np.arange(len(classes)), classes] = scores
    return (spread / spread.sum(axis=1, keepdims=True)).astype(np.float32)


def predicted_keys(
    cloud: Cloud, labels: NDArray[np.int32], count: int, predicted: list[PredictedObject]
) -> NDArray[np.int64]:
    """(L,) key of the predicted object that most of each label's points lie on, at most one label each; -1 = none."""
    keys = np.full(count, -1, np.int64)
    if not predicted:
        return keys
    mask = labels > 0
    points, owner = cloud.points[mask], labels[mask] - 1
    distances = np.stack([distance_to(p, points) for p in predicted])
    distances[distances > np.array([p.margin_m for p in predicted])[:, None]] = np.inf
    nearest = np.where(np.isfinite(distances).any(axis=0), distances.argmin(axis=0), -1)
    on = nearest >= 0
    votes = np.zeros((count, len(predicted)))
    np.add.at(votes, (owner[on], nearest[on]), 1.0)
    share = votes / np.maximum(np.bincount(owner, minlength=count), 1)[:, None]
    # The largest part of an object is the one that carries on its key.
    for label, row in sorted(np.argwhere(share >= _KEY_SHARE).tolist(), key=lambda cell: -votes[cell[0], cell[1]]):
        if keys[label] < 0 and predicted[row].key not in keys:
            keys[label] = predicted[row].key
    return keys


def _test_image() -> tuple[NDArray[np.uint8], Image]:
    """An image to try a model on: a red box on a gray table, (H, W, 3) uint8 and its depth (H, W) [m]."""
    h, w = _PROBE_SIZE
    color = np.full((h, w, 3), 140, np.uint8)
    depth = np.repeat(np.linspace(1.6, 0.8, h, dtype=np.float32)[:, None], w, axis=1)
    box = slice(h // 3, 2 * h // 3), slice(w // 3, 2 * w // 3)
    color[box], depth[box] = (200, 30, 30), 0.8
    return color, depth
