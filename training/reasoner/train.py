"""Trains the reasoner from scratch and writes its weights, ONNX file and model card: `make train-reasoner`.

Steps: simulated lessons (made where they are missing), most of them perceived with imitated errors and some drawn and
run through perception itself, training with a checkpoint every minute (a run that was cut off goes on), calibration,
export, evaluation on held-out seeds and shapes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file

from training.reasoner.batches import Batches
from training.reasoner.clips import load_seen_examples, make_seen_lessons
from training.reasoner.data import Example, load_examples, make_shards
from training.reasoner.exporting import export
from training.reasoner.model import parameters
from training.reasoner.options import MODELS, SEEN_WEIGHT, VALIDATION, VIEWS, Options
from training.reasoner.trainer import Trainer, calibrate, validation_loss


def train(
    options: Options,
    imitated: list[Example],
    seen: list[Example],
    checkpoint: Path,
    device: torch.device,
    console: Console,
) -> Trainer:
    """Trains to the end, from the checkpoint if there is one.

    The last clips of each kind are watched; intervals are calibrated on those that perception really saw, if any.
    """
    trainer = Trainer(options, device)
    if checkpoint.exists():
        trainer.load(checkpoint)
        console.print(f"going on from step {trainer.step} of {options.steps} ({checkpoint})")
    lessons, watch = [], []
    for examples, weight in ((imitated, 1), (seen, SEEN_WEIGHT)):
        count = len(examples) - max(1, round(VALIDATION * len(examples))) if examples else 0
        lessons += weight * examples[:count]
        watch.append(examples[count:])
    batches, watched = Batches(lessons, options), Batches([*watch[0], *watch[1]], options)
    console.print(
        f"{parameters(trainer.network):,} parameters; {len(imitated)} imitated and {len(seen)} seen clips, "
        f"of which {len(watch[0])} and {len(watch[1])} are watched; "
        f"{len(batches.lively)} windows, {len(batches.causes)} questions of cause, {device}"
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    smooth: dict[str, float] = {}
    saved = time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("training", total=options.steps, completed=trainer.step)
        while trainer.step < options.steps:
            parts = trainer.train_step(batches.at(trainer.step))
            weight = 0.02 if smooth else 1.0
            smooth = {k: (1 - weight) * smooth.get(k, v) + weight * v for k, v in parts.items()}
            progress.update(bar, advance=1, description=f"training, loss {sum(smooth.values()):.3f}")
            if trainer.step % 250 == 0 or trainer.step == options.steps:
                loss = validation_loss(trainer, watched)
                trainer.curve.append({"step": trainer.step, "validation": sum(loss.values()), **smooth})
                words = ", ".join(f"{k} {v:.3f}/{loss[k]:.3f}" for k, v in smooth.items())
                console.print(f"step {trainer.step}, training/validation: {words}")
            if time.monotonic() - saved > 60 or trainer.step == options.steps:
                trainer.seconds += time.monotonic() - saved
                saved = time.monotonic()
                trainer.save(checkpoint)
    covered = calibrate(trainer.average, watch[1] or watch[0])
    console.print(f"coverage before calibration {covered}, scales {trainer.average.scales.tolist()}")
    return trainer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=6000, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=48, help="windows (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=640, help="of the training set (default: %(default)s)")
    parser.add_argument(
        "--seen-clips", type=int, default=360, help="of it that perception itself sees (default: %(default)s)"
    )
    parser.add_argument("--held-out-clips", type=int, default=40, help="of each held-out split (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("out/data/reasoner"), help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("out/train/reasoner"), help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=MODELS, help="where the weights go (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    parser.add_argument("--no-card", action="store_true", help="leave out the evaluation and the model card")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if arguments.device == "auto" else arguments.device
    )
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = arguments.seed, arguments.steps, arguments.batch, arguments.rate, arguments.clips, arguments.seen_clips
    options = Options(*chosen)
    shards = make_shards(arguments.data / "train", "train", options.clips, arguments.threads, console)
    examples = load_examples(shards, arguments.work / "examples", arguments.threads, console, VIEWS)
    make_seen_lessons(arguments.data / "seen", options.seen_clips, arguments.threads, console)
    seen = load_seen_examples(arguments.data / "seen", options.seen_clips)
    trainer = train(options, examples, seen, arguments.work / "checkpoint.safetensors", device, console)
    arguments.models.mkdir(parents=True, exist_ok=True)
    weights = arguments.models / "reasoner.safetensors"
    save_file({k: v.cpu().contiguous() for k, v in trainer.average.state_dict().items()}, weights)
    facts: dict[str, Any] = {"seed": str(options.seed), "steps": str(options.steps)}
    export(trainer.average, arguments.models / "reasoner.onnx", facts)
    console.print(f"written: {arguments.models / 'reasoner.onnx'}, {weights}")
    if not arguments.no_card:
        from training.reasoner.card import write_card

        write_card(arguments, options, trainer, console)


if __name__ == "__main__":
    main()
