"""Appearance of a track over time: color, embedding, class, and the size that is usually seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm_perception.tracking.observation import Observation
from wm_perception.types import Array

CLASS_MEMORY = 0.93
"""Part of the summed class logarithms that is kept per frame (a time constant of 14 frames). Chosen by hand; larger
means that early frames count for longer."""
CLASS_FRAME_WEIGHT = 0.33
"""Weight of one frame's class logarithms: successive frames err alike, so each counts for a third. Chosen by hand."""
CLASS_FLOOR = 0.02
"""Least class probability of a single frame, so that no frame rules a class out. Chosen by hand; larger means that
single frames say less."""
COLOR_STEP = 22.0
"""Mean difference of RGB (0..255) at which two colors are as likely of two objects as of one. Chosen by hand; larger
means that color decides less."""
EMBEDDING_STEP = 0.35
"""The same for the cosine distance of embeddings. Chosen by hand; larger means that embeddings decide less."""
ALIKE_EMBEDDING = 0.5
"""Cosine of embeddings from which two tracks are of like appearance; introduced with the joining of parts, which was
measured on worlds of random assemblies (mask AP50 0.892 to 0.929, commit acb3397). Larger means that fewer are."""
ALIKE_COLOR = 12.0
"""Mean difference of RGB (0..255) below which two tracks are of like appearance; origin as ``ALIKE_EMBEDDING``. Larger
means that more are."""
ENLARGED_FRAMES = 4
"""Frames for which a segment must be much larger than the object before the object is taken to be that large. Chosen by
hand; larger means that merged segments are kept out for longer, and new views are accepted later."""


@dataclass
class Appearance:
    """Running means over the frames of a track.

    Attributes:
        color: (3,) mean RGB 0..255.
        seen_extent: longest side of what is usually seen of it [m].
        score: 0..1 of the segmenter, 0 where it gives none.
        embedding: (D,) unit length, or (0,).
        log_classes: (C,) unnormalized log probabilities in the order of the vocabulary, largest 0, or (0,).
        enlarged_frames: frames in succession in which its segment was much larger than ``seen_extent``.
    """

    color: Array
    seen_extent: float
    score: float = 0.0
    embedding: Array = field(default_factory=lambda: np.zeros(0))
    log_classes: Array = field(default_factory=lambda: np.zeros(0))
    enlarged_frames: int = 0

    def update(self, o: Observation, hits: int) -> None:
        """Update with a segment of a track that has been seen ``hits`` times before."""
        weight = max(1.0 / (hits + 1.0), 0.05)
        partial = o.hidden_fraction > 0.3 or o.on_border or self.is_enlarged(o)
        self.color = self.color + (0.3 * weight if partial else max(weight, 0.05)) * (o.color - self.color)
        if len(o.embedding):
            if len(self.embedding) != len(o.embedding):
                self.embedding = o.embedding.copy()
            mean = self.embedding + (0.5 if partial else 1.0) * weight * (o.embedding - self.embedding)
            self.embedding = mean / max(float(np.linalg.norm(mean)), 1e-9)
        if len(o.classes):
            logs = np.log(np.maximum(o.classes, CLASS_FLOOR))
            kept = CLASS_MEMORY * self.log_classes if len(self.log_classes) == len(logs) else 0.0
            self.log_classes = kept + CLASS_FRAME_WEIGHT * logs
            self.log_classes = self.log_classes - self.log_classes.max()
        if np.isfinite(o.score):
            self.score += max(weight, 0.2) * (o.score - self.score)
        cut_but_not_larger = o.on_border and o.extent < 1.2 * self.seen_extent + 0.01
        if not partial or self.enlarged_frames >= ENLARGED_FRAMES or cut_but_not_larger:
            self.seen_extent += max(weight, 0.2) * (o.extent - self.seen_extent)

    def is_enlarged(self, o: Observation) -> bool:
        """Whether a segment is much larger than what is usually seen."""
        return o.extent > 1.2 * self.seen_extent + 0.01

    def class_probabilities(self) -> Array:
        """(C,) over the vocabulary of the segmenter, or (0,)."""
        if not len(self.log_classes):
            return self.log_classes
        p = np.exp(self.log_classes - self.log_classes.max())
        return p / p.sum()

    def distance(self, o: Observation) -> float:
        """Difference of a segment, about 1 where it is doubtful: of embeddings, where there are any, and mean color."""
        return self._difference(o.color, o.embedding)

    def apart(self, other: Appearance) -> float:
        """The same difference of another track."""
        return self._difference(other.color, other.embedding)

    def _difference(self, other_color: Array, embedding: Array) -> float:
        color = min(float(np.abs(other_color - self.color).mean()) / COLOR_STEP, 4.0)
        if len(embedding) and len(self.embedding) == len(embedding):
            apart = 1.0 - float(embedding @ self.embedding)
            return 0.7 * min(apart / EMBEDDING_STEP, 4.0) + 0.3 * color
        return color

    def is_like(self, other: Appearance) -> bool:
        """Whether two tracks are so alike that one segment over both is taken to be one object."""
        if not len(self.embedding) or len(self.embedding) != len(other.embedding):
            return False
        color = float(np.abs(self.color - other.color).mean())
        return float(self.embedding @ other.embedding) > ALIKE_EMBEDDING and color < ALIKE_COLOR
