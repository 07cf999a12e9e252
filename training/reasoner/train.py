"""Trains the reasoner from scratch and writes its weights, ONNX file and model card: `make train-reasoner`.

Steps: simulated clips (made where they are missing), most of them with simulated tracks and some rendered and run
through perception itself, training with a checkpoint every minute (an interrupted run is resumed), calibration,
export, evaluation on held-out seeds and shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from training.common.command import add_options, open_console, prepare_device
from training.common.exporting import save_weights
from training.common.trainer import count_parameters
from training.reasoner.batches import Batches
from training.reasoner.clips import load_seen_examples, make_perceived_clips
from training.reasoner.data import make_shards
from training.reasoner.examples import Example, load_examples
from training.reasoner.exporting import export
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

    The last clips of each kind validate; intervals are calibrated on those with real tracks, if any.
    """
    trainer = Trainer(options, device)
    trainer.resume(checkpoint, console)
    examples_used, watch = [], []
    for examples, weight in ((imitated, 1), (seen, SEEN_WEIGHT)):
        count = len(examples) - max(1, round(VALIDATION * len(examples))) if examples else 0
        examples_used += weight * examples[:count]
        watch.append(examples[count:])
    batches, watched = Batches(examples_used, options), Batches([*watch[0], *watch[1]], options)
    console.print(
        f"{count_parameters(trainer.network):,} parameters; {len(imitated)} imitated and {len(seen)} seen clips, "
        f"of which {len(watch[0])} and {len(watch[1])} are watched; "
        f"{len(batches.lively)} windows, {len(batches.causes)} pairs of causes, {device}"
    )

    def watched_losses(smooth: dict[str, float]) -> dict[str, float]:
        loss = validation_loss(trainer, watched)
        words = ", ".join(f"{k} {v:.3f}/{loss[k]:.3f}" for k, v in smooth.items())
        console.print(f"step {trainer.step}, training/validation: {words}")
        return {"validation": sum(loss.values()), **smooth}

    trainer.fit(batches.at, watched_losses, 250, checkpoint, console)
    covered = calibrate(trainer.average, watch[1] or watch[0])
    console.print(f"coverage before calibration {covered}, scales {trainer.average.scales.tolist()}")
    return trainer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, MODELS, "reasoner", steps=6000, batch=48, rate=2e-3, clips=640)
    parser.set_defaults(held_out_clips=40, data=Path("out/data/reasoner"))
    parser.add_argument(
        "--seen-clips",
        type=int,
        default=360,
        help="of it that are run through perception itself (default: %(default)s)",
    )
    parser.add_argument("--no-card", action="store_true", help="leave out the evaluation and the model card")
    arguments = parser.parse_args()
    device, console = prepare_device(arguments), open_console()
    chosen = arguments.seed, arguments.steps, arguments.batch, arguments.rate, arguments.clips, arguments.seen_clips
    options = Options(*chosen)
    shards = make_shards(arguments.data / "train", "train", options.clips, arguments.threads, console)
    examples = load_examples(shards, arguments.work / "examples", arguments.threads, console, VIEWS)
    make_perceived_clips(arguments.data / "seen", options.seen_clips, arguments.threads, console)
    seen = load_seen_examples(arguments.data / "seen", options.seen_clips)
    trainer = train(options, examples, seen, arguments.work / "checkpoint.safetensors", device, console)
    weights = arguments.models / "reasoner.safetensors"
    save_weights(trainer.average, weights)
    facts: dict[str, Any] = {"seed": str(options.seed), "steps": str(options.steps)}
    export(trainer.average, arguments.models / "reasoner.onnx", facts)
    console.print(f"written: {arguments.models / 'reasoner.onnx'}, {weights}")
    if not arguments.no_card:
        from training.reasoner.card import write_card

        write_card(arguments, options, trainer, console)


if __name__ == "__main__":
    main()
