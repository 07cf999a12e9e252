"""Trains the segmenter from scratch and writes its weights, ONNX file and model card: `make train-segmenter`.

Steps: data (`python -m training.worlds.generate`, made here if it is missing), features, training with a checkpoint
every few minutes (a run that was cut off goes on), evaluation on held-out seeds and on held-out shapes and textures, export.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.segmenter.model import EMBEDDING, SegmenterNetwork, parameters
from training.worlds.dataset import Prepared, augment, prepare, targets
from training.worlds.families import VOCABULARY
from training.worlds.generate import IMAGES, SIBLINGS, generate
from wm_perception.segmentation.learned import CHANNELS, OUTPUTS

MODELS = Path("ros2_ws/src/wm_perception/models")
OPSET = 18
EMA_DECAY = 0.998
TEMPERATURE = 0.1
VALIDATION_CLIPS = 40
"""The last clips of the training set: to watch training with, never trained on, not the held-out splits."""


@dataclass(frozen=True)
class Options:
    """What decides the weights."""

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    assemblies: int = 0


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
    foreground, centre, offset, classes, embedding = (o.float() for o in outputs)
    _, maps, weights, meaning, masks = batch
    border = weights[:, 0:1]
    inside = maps[:, 0:1]
    entropy = functional.binary_cross_entropy_with_logits(foreground, inside, weight=border)
    probability = torch.sigmoid(foreground) * (border > 0)
    overlap = 1.0 - (2.0 * (probability * inside).sum((1, 2, 3)) + 1.0) / (
        probability.sum((1, 2, 3)) + inside.sum((1, 2, 3)) + 1.0
    )
    target = maps[:, 1:2]
    heat = functional.binary_cross_entropy_with_logits(centre, target, weight=(1.0 + 12.0 * target) * (border > 0))
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


def learning_rate(step: int, options: Options) -> float:
    """Rises over 200 steps, then falls as a cosine to 1 %."""
    if step < 200:
        return options.rate * (step + 1) / 200
    done = (step - 200) / max(options.steps - 200, 1)
    return options.rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))


class Trainer:
    """Network, its moving average and the optimiser, with checkpoints."""

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


def export(network: SegmenterNetwork, path: Path, facts: dict[str, str]) -> None:
    """Writes the ONNX file: any batch, any even image size; ``facts`` go into its metadata."""
    import onnx

    network = network.cpu().float().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, len(CHANNELS), 240, 320)
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    for name in OUTPUTS:
        half = name in ("classes", "embedding")
        axes[name] = {0: "batch", 2: "half_height" if half else "height_", 3: "half_width" if half else "width_"}
    torch.onnx.export(
        network,
        (example,),
        path,
        input_names=["image"],
        output_names=list(OUTPUTS),
        dynamic_axes=axes,
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )
    model = onnx.load(path)
    facts = {
        "task": "wm_segmenter",
        "version": "1",
        "channels": json.dumps(list(CHANNELS)),
        "vocabulary": json.dumps(list(VOCABULARY)),
        "embedding": str(EMBEDDING),
        **facts,
    }
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def train(options: Options, data: Prepared, checkpoint: Path, device: torch.device, console: Console) -> Trainer:
    """Trains to the end, from the checkpoint if there is one."""
    trainer = Trainer(options, device)
    if checkpoint.exists():
        trainer.load(checkpoint)
        console.print(f"going on from step {trainer.step} of {options.steps} ({checkpoint})")
    clips = np.unique(data.clips)
    watched = np.isin(data.clips, clips[-VALIDATION_CLIPS:])
    rows, watch = np.flatnonzero(~watched), np.flatnonzero(watched)[::2]
    console.print(
        f"{parameters(trainer.network):,} parameters, {len(rows)} images to train on, {len(watch)} to watch, {device}"
        f"{', bfloat16' if trainer.half else ''}"
    )
    batches = iter(Batches(data, rows, options, trainer.step))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    smooth: dict[str, float] = {}
    saved = last = time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("training", total=options.steps, completed=trainer.step)
        while trainer.step < options.steps:
            parts = trainer.train_step(next(batches))
            weight = 0.02 if smooth else 1.0
            smooth = {k: (1 - weight) * smooth.get(k, v) + weight * v for k, v in parts.items()}
            progress.update(bar, advance=1, description=f"training, loss {sum(smooth.values()):.3f}")
            if trainer.step % 500 == 0 or trainer.step == options.steps:
                watched_loss = validation_loss(trainer, data, watch)
                trainer.curve.append({"step": trainer.step, "validation": watched_loss, **smooth})
                words = ", ".join(f"{k} {v:.3f}" for k, v in smooth.items())
                console.print(f"step {trainer.step}: {words}; validation {watched_loss:.3f}")
            now = time.monotonic()
            trainer.seconds, last = trainer.seconds + now - last, now
            if now - saved > 120 or trainer.step == options.steps:
                checkpoint.parent.mkdir(parents=True, exist_ok=True)
                trainer.save(checkpoint)
                saved = time.monotonic()
    return trainer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4500, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=8, help="images, even (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=1200, help="of the training set (default: %(default)s)")
    parser.add_argument(
        "--assemblies", type=int, default=0, help="also as many clips of random assemblies (default: none)"
    )
    parser.add_argument("--held-out-clips", type=int, default=60, help="of each held-out split (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("out/data"), help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("out/train/segmenter"), help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=MODELS, help="where the weights go (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    arguments = parser.parse_args()
    if arguments.batch < 2 or arguments.batch % 2:
        parser.error(f"--batch: got {arguments.batch}, expected an even number of at least 2")
    torch.set_num_threads(arguments.threads)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if arguments.device == "auto" else arguments.device
    )
    console = Console(width=None if sys.stdout.isatty() else 160)
    a = arguments
    options = Options(a.seed, a.steps, a.batch, a.rate, a.clips, a.assemblies)
    shards = []
    if a.assemblies:
        shards = generate(a.data / "assemblies", "assemblies", a.assemblies, IMAGES, 0, a.threads, console)
    shards += generate(arguments.data / "train", "train", options.clips, IMAGES, SIBLINGS, arguments.threads, console)
    data = prepare(shards, arguments.work / "features_train", arguments.threads, console)
    trainer = train(options, data, arguments.work / "checkpoint.safetensors", device, console)
    weights = arguments.models / "segmenter.safetensors"
    arguments.models.mkdir(parents=True, exist_ok=True)
    save_file({k: v.cpu().contiguous() for k, v in trainer.average.state_dict().items()}, weights)
    export(
        trainer.average, arguments.models / "segmenter.onnx", {"seed": str(options.seed), "steps": str(options.steps)}
    )
    console.print(f"written: {arguments.models / 'segmenter.onnx'}, {weights}")
    console.print("lower precisions beside it are of other weights now; for new ones: make export ARGS=--install")
    with contextlib.suppress(KeyboardInterrupt):
        from training.segmenter.card import write_card

        write_card(arguments, options, trainer, console)


if __name__ == "__main__":
    main()
