"""Trains the segmenter from scratch and writes its weights, ONNX file and model card: `make train-segmenter`.

Steps: data (`python -m training.worlds.generate`, made here if it is missing), features, training with a checkpoint
every few minutes (a run that was cut off goes on), evaluation on held-out seeds and on held-out shapes and textures,
export.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file

from training.segmenter.exporting import export
from training.segmenter.model import parameters
from training.segmenter.options import MODELS, VALIDATION_CLIPS, Options
from training.segmenter.trainer import Batches, Trainer, validation_loss
from training.worlds.dataset import Prepared, prepare
from training.worlds.generate import IMAGES, SIBLINGS, generate


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
