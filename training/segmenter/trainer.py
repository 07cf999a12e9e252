"""Steps of the segmenter's training: batches and losses."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from training.common import trainer as common
from training.segmenter.model import SegmenterNetwork
from training.segmenter.options import TEMPERATURE, Options
from training.worlds.dataset import Prepared, apart, augment, targets
from training.worlds.splits import SEEDS_OF_A_SPLIT, SPLITS

SETTLING_RATE = 0.1
"""First learning rate of the settling steps, as a fraction of the highest: enough to learn that touching things of two
colors may be two, and too little to forget shapes."""
STACKS_SHARE = 0.2
"""Part of the pairs of settling steps that is of stacks. With 0.15 a block on another one was told apart in some images
and not in others; without assemblies beside them 0.15 was enough, and unseen shapes were divided more often."""


class Batches:
    """Random batches of pairs of images of one clip, with their targets, made in a thread ahead of time.

    Attributes:
        data: images and masks; options: of the training.
        groups: rows of each clip with two images or more, but for clips of stacks.
        stacks: those of clips of stacks.
    """

    def __init__(self, data: Prepared, rows: NDArray[np.int64], options: Options, first_step: int) -> None:
        self.data, self.options = data, options
        clips = data.clips[rows]
        groups = [(SPLITS[c // SEEDS_OF_A_SPLIT], rows[clips == c]) for c in np.unique(clips)]
        self.groups = [g for split, g in groups if len(g) >= 2 and split != "stacks"]
        self.stacks = [g for split, g in groups if len(g) >= 2 and split == "stacks"]
        self._queue: queue.Queue[tuple[NDArray[Any], ...]] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._fill, args=(first_step,), daemon=True)
        self._thread.start()

    def _fill(self, first_step: int) -> None:
        for step in range(first_step, self.options.steps):
            # By step, so that a resumed run has the batches of an uninterrupted one.
            rng = np.random.default_rng([self.options.seed, step])
            pairs = self.options.batch // 2
            groups = [self.groups[k] for k in rng.integers(0, len(self.groups), pairs)]
            if self.stacks and step >= self.options.steps - self.options.settling:
                for k in np.flatnonzero(rng.uniform(size=pairs) < STACKS_SHARE):
                    groups[k] = self.stacks[int(rng.integers(len(self.stacks)))]
            rows = [int(r) for group in groups for r in rng.choice(group, 2, replace=False)]
            self._queue.put(collate(self.data, rows, rng))

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        while True:
            yield self._queue.get()


def collate(data: Prepared, rows: list[int], rng: np.random.Generator | None) -> tuple[NDArray[Any], ...]:
    """Images (B, 10, h, w), maps (B, 4, h, w), weights (B, 2, h, w), and what is apart (B, N, h, w), which comes last.

    Before that come classes (B, h/2, w/2) and masks (B, h/2, w/2).
    """
    columns: list[list[NDArray[Any]]] = [[], [], [], [], [], []]
    for row in rows:
        image, mask = augment(data.inputs[row], np.array(data.masks[row]), rng)
        maps, weights, meaning = targets(mask, data.classes[row])
        values: tuple[NDArray[Any], ...] = (image, maps, weights, meaning, mask[::2, ::2], apart(mask))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return tuple(np.stack(c) for c in columns)


def losses(outputs: tuple[Tensor, ...], batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The loss of each map but apart, a mean over the batch. A larger factor weighs its map more.

    Args:
        outputs: of ``SegmenterNetwork.features``; batch: see ``collate``.
    """
    foreground, center, offset, classes, embedding, _ = (o.float() for o in outputs)
    _, maps, weights, meaning, masks, _ = batch
    border = weights[:, 0:1]
    inside = maps[:, 0:1]
    entropy = functional.binary_cross_entropy_with_logits(foreground, inside, weight=border)
    probability = torch.sigmoid(foreground) * (border > 0)
    overlap = 1.0 - (2.0 * (probability * inside).sum((1, 2, 3)) + 1.0) / (
        probability.sum((1, 2, 3)) + inside.sum((1, 2, 3)) + 1.0
    )
    target = maps[:, 1:2]
    heat = functional.binary_cross_entropy_with_logits(center, target, weight=(1.0 + 12.0 * target) * (border > 0))
    step = functional.smooth_l1_loss(offset, maps[:, 2:4], beta=0.05, reduction="none").sum(1)
    towards = (step * weights[:, 1]).sum() / weights[:, 1].sum().clamp(min=1.0)
    small = functional.interpolate(weights[:, 1:2], size=meaning.shape[-2:])[:, 0]
    known = meaning >= 0
    kinds = functional.cross_entropy(classes, meaning, ignore_index=-100, reduction="none")
    kind = (kinds * small * known).sum() / (small * known).sum().clamp(min=1.0)
    return {
        "foreground": entropy + 0.5 * overlap.mean(),
        "centre": 4.0 * heat,
        "offset": 2.0 * towards,
        "classes": 0.3 * kind,
        "embedding": 0.15 * contrast(embedding, masks),
    }


def contrast(embedding: Tensor, masks: Tensor) -> Tensor:
    """Pulls the embeddings of one object in two images together, apart from all others (van den Oord, InfoNCE, 2018).

    Args:
        embedding: (B, D, h, w); masks: (B, h, w) ids; rows 2k and 2k + 1 are of one clip.
    """
    vectors: list[list[Tensor]] = []
    names: list[list[int]] = []
    for row in range(len(masks)):
        flat = masks[row].reshape(-1).long()
        sizes = torch.bincount(flat, minlength=256)
        ids = torch.nonzero(sizes[1:] >= 8).flatten() + 1
        sums = torch.zeros(256, embedding.shape[1], device=embedding.device)
        sums = sums.index_add(0, flat, embedding[row].flatten(1).T)
        mean = functional.normalize(sums[ids] / sizes[ids, None], dim=1)
        vectors.append(list(mean))
        names.append(ids.tolist())
    queries: list[Tensor] = []
    keys: list[Tensor] = []
    for k in range(0, len(masks) - 1, 2):
        for a, name in enumerate(names[k]):
            if name in names[k + 1]:
                queries.append(vectors[k][a])
                keys.append(vectors[k + 1][names[k + 1].index(name)])
    if len(queries) < 2:
        return embedding.sum() * 0.0
    other = torch.stack(queries) @ torch.stack(keys).T / TEMPERATURE
    own = torch.arange(len(queries), device=embedding.device)
    return 0.5 * (functional.cross_entropy(other, own) + functional.cross_entropy(other.T, own))


class Recipe(common.Recipe):
    """The schedule of the segmenter: a warm-up and a cosine, then a lower cosine over the settling steps.

    Assemblies and household things teach that what changes its color may be one object; trained with them to the end,
    the network also took a block on another one for a single object (docs/models.md). The settling steps see stacks.
    """

    def learning_rate(self, step: int, options: common.CommonOptions) -> float:
        """As of a training without settling steps; then from a tenth of the highest rate to the floor."""
        assert isinstance(options, Options)
        before = options.steps - options.settling
        if step < before:
            return super().learning_rate(step, replace(options, steps=before, settling=0))
        return options.rate * self.fallen(SETTLING_RATE, (step - before) / options.settling)


class Trainer(common.Trainer[SegmenterNetwork, tuple[NDArray[Any], ...]]):
    """Trains the segmenter on pairs of images."""

    recipe = Recipe(weight_decay=0.01, clip=5.0, decay=0.998, warm_up=200, floor=0.01)

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(
            options,
            lambda: SegmenterNetwork().to(device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            device,
        )
        # Half precision where the processor multiplies it fast.
        self.half = device.type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def losses(self, batch: tuple[NDArray[Any], ...]) -> dict[str, Tensor]:
        """Losses of the network in training."""
        self.network.train()
        return self.losses_of(self.network, batch)

    def losses_of(self, network: SegmenterNetwork, batch: tuple[NDArray[Any], ...]) -> dict[str, Tensor]:
        """Losses of a network, on the trainer's device and in its precision."""
        tensors = tuple(torch.from_numpy(b).to(self.device) for b in batch)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            outputs = network.features(tensors[0].to(memory_format=torch.channels_last))
        return losses(outputs, tensors)


@torch.no_grad()
def validation_loss(trainer: Trainer, data: Prepared, rows: NDArray[np.int64]) -> float:
    """Sum of the losses of the moving average on images that are not trained on."""
    trainer.average.eval()
    total = []
    for start in range(0, len(rows), 8):
        batch = collate(data, rows[start : start + 8].tolist(), None)
        total.append(sum(float(v) for v in trainer.losses_of(trainer.average, batch).values()))
    return float(np.mean(total))
