"""Steps of the segmenter's training: batches, losses, checkpoints."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.segmenter.model import SegmenterNetwork
from training.segmenter.options import EMA_DECAY, TEMPERATURE, Options, learning_rate
from training.worlds.dataset import Prepared, augment, targets


class Batches:
    """Random batches of pairs of images of one clip, with their targets, made in a thread ahead of time."""

    def __init__(self, data: Prepared, rows: NDArray[np.int64], options: Options, first_step: int) -> None:
        self.data, self.options = data, options
        clips = data.clips[rows]
        self.groups = [rows[clips == c] for c in np.unique(clips)]
        self.groups = [g for g in self.groups if len(g) >= 2]
        self._queue: queue.Queue[tuple[NDArray[Any], ...]] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._fill, args=(first_step,), daemon=True)
        self._thread.start()

    def _fill(self, first_step: int) -> None:
        for step in range(first_step, self.options.steps):
            # By step, so that a resumed run sees what the whole run would have seen.
            rng = np.random.default_rng([self.options.seed, step])
            rows = [
                int(r)
                for g in rng.integers(0, len(self.groups), self.options.batch // 2)
                for r in rng.choice(self.groups[g], 2, replace=False)
            ]
            self._queue.put(collate(self.data, rows, rng))

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        while True:
            yield self._queue.get()


def collate(data: Prepared, rows: list[int], rng: np.random.Generator | None) -> tuple[NDArray[Any], ...]:
    """Images (B, 10, h, w), maps (B, 4, h, w), weights (B, 2, h, w), classes (B, h/2, w/2), masks (B, h/2, w/2)."""
    columns: list[list[NDArray[Any]]] = [[], [], [], [], []]
    for row in rows:
        image, mask = augment(data.inputs[row], np.array(data.masks[row]), rng)
        maps, weights, meaning = targets(mask, data.classes[row])
        values: tuple[NDArray[Any], ...] = (image, maps, weights, meaning, mask[::2, ::2])
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return tuple(np.stack(c) for c in columns)


def losses(outputs: tuple[Tensor, ...], batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Of each map; all means over the batch."""
    foreground, center, offset, classes, embedding = (o.float() for o in outputs)
    _, maps, weights, meaning, masks = batch
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
    """One thing in two images of a clip looks alike, and unlike all others (van den Oord et al., InfoNCE, 2018).

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
    truth = torch.arange(len(queries), device=embedding.device)
    return 0.5 * (functional.cross_entropy(other, truth) + functional.cross_entropy(other.T, truth))


class Trainer:
    """Network, its moving average and the optimizer, with checkpoints."""

    def __init__(self, options: Options, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.options, self.device = options, device
        self.network = SegmenterNetwork().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = SegmenterNetwork().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=options.rate, weight_decay=0.01)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        # Half precision where the processor multiplies it fast.
        mkldnn = torch.ops.mkldnn
        self.half = device.type == "cuda" or bool(mkldnn._is_mkldnn_bf16_supported())

    def train_step(self, batch: tuple[NDArray[Any], ...]) -> dict[str, float]:
        """One step; returns the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options)
        tensors = tuple(torch.from_numpy(b).to(self.device) for b in batch)
        image = tensors[0].to(memory_format=torch.channels_last)
        self.network.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            outputs = self.network(image)
        parts = losses(outputs, tensors)
        total = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                if mean.dtype.is_floating_point:
                    mean.lerp_(value, 1.0 - decay)
                else:
                    mean.copy_(value)
        return {k: float(v.detach()) for k, v in parts.items()}

    def save(self, path: Path) -> None:
        """Everything that going on needs, in one safetensors file."""
        tensors = {f"network.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v.contiguous() for k, v in self.average.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in state.items()}
        part = path.with_suffix(".part")
        facts = {
            "step": str(self.step),
            "options": json.dumps(vars(self.options)),
            "curve": json.dumps(self.curve),
            "seconds": str(self.seconds),
        }
        save_file(tensors, part, facts)
        part.rename(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: the checkpoint is of a run with other options.
        """
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            facts = file.metadata()
        if json.loads(facts["options"]) != vars(self.options):
            raise ValueError(
                f"{path}: checkpoint of a run with {facts['options']}, expected {json.dumps(vars(self.options))}; "
                "delete it to start again"
            )
        tensors = load_file(path)
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        self.average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.curve = int(facts["step"]), json.loads(facts["curve"])
        self.seconds = float(facts["seconds"])


@torch.no_grad()
def validation_loss(trainer: Trainer, data: Prepared, rows: NDArray[np.int64]) -> float:
    """Sum of the losses of the moving average on images that are not trained on."""
    trainer.average.eval()
    total = []
    for start in range(0, len(rows), 8):
        batch = tuple(
            torch.from_numpy(b).to(trainer.device) for b in collate(data, rows[start : start + 8].tolist(), None)
        )
        with torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=trainer.half):
            outputs = trainer.average(batch[0].to(memory_format=torch.channels_last))
        total.append(sum(float(v) for v in losses(outputs, batch).values()))
    return float(np.mean(total))
