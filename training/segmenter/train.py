"""Trains the segmenter from scratch and writes its weights, ONNX file and model card: `make train-segmenter`.

Steps: data (`python -m training.worlds.generate`, made here if it is missing), features, training with a checkpoint
every few minutes (an interrupted run is resumed), evaluation on held-out seeds and on held-out shapes and textures,
export.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from training.common.command import add_options, open_console, prepare_device
from training.common.exporting import save_weights
from training.common.trainer import count_parameters
from training.segmenter.borders import BorderTrainer
from training.segmenter.exporting import export
from training.segmenter.model import SegmenterNetwork
from training.segmenter.options import MODELS, Options, validation_clips
from training.segmenter.trainer import Batches, Trainer, collate, validation_loss
from training.worlds.dataset import Prepared, prepare
from training.worlds.generate import IMAGES, SIBLINGS, generate
from training.worlds.splits import Split


def train(options: Options, data: Prepared, checkpoint: Path, device: torch.device, console: Console) -> Trainer:
    """Trains to the end, from the checkpoint if there is one."""
    trainer = Trainer(options, device)
    trainer.resume(checkpoint, console)
    watched = np.isin(data.clips, validation_clips(data.clips))
    rows, watch = np.flatnonzero(~watched), np.flatnonzero(watched)[::2]
    console.print(
        f"{count_parameters(trainer.network):,} parameters, {len(rows)} images to train on, {len(watch)} to watch, "
        f"{device}{', bfloat16' if trainer.half else ''}"
    )
    batches = iter(Batches(data, rows, options, trainer.step))

    def watched_losses(smooth: dict[str, float]) -> dict[str, float]:
        loss = validation_loss(trainer, data, watch)
        words = ", ".join(f"{k} {v:.3f}" for k, v in smooth.items())
        console.print(f"step {trainer.step}: {words}; validation {loss:.3f}")
        return {"validation": loss, **smooth}

    trainer.fit(lambda _: next(batches), watched_losses, 500, checkpoint, console)
    return trainer


def train_borders(
    network: SegmenterNetwork,
    options: Options,
    steps: int,
    data: Prepared,
    checkpoint: Path,
    device: torch.device,
    console: Console,
) -> BorderTrainer:
    """Trains the head for borders of a trained network, from the checkpoint if there is one; the network gets it."""
    trainer = BorderTrainer(network, options, steps, device)
    trainer.resume(checkpoint, console)
    watched = np.isin(data.clips, validation_clips(data.clips))
    rows, watch = np.flatnonzero(~watched), np.flatnonzero(watched)[::4]
    console.print(f"borders: {count_parameters(trainer.network):,} parameters")
    batches = iter(Batches(data, rows, trainer.options, trainer.step))  # type: ignore[arg-type]
    kept = [collate(data, watch[k : k + 8].tolist(), None) for k in range(0, len(watch), 8)]

    def watched_losses(smooth: dict[str, float]) -> dict[str, float]:
        loss = trainer.watched(kept)
        console.print(f"borders, step {trainer.step}: {smooth['apart']:.3f}; validation {loss:.3f}")
        return {"validation": loss, **smooth}

    trainer.fit(lambda _: next(batches), watched_losses, 250, checkpoint, console)
    network.apart.load_state_dict(trainer.average.state_dict())
    return trainer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, MODELS, "segmenter", steps=17000, batch=8, rate=2e-3, clips=1000)
    parser.add_argument(
        "--assemblies", type=int, default=300, help="also as many clips of random assemblies (default: %(default)s)"
    )
    parser.add_argument(
        "--homeware", type=int, default=1200, help="also as many clips of household things (default: %(default)s)"
    )
    parser.add_argument(
        "--settling",
        type=int,
        default=3000,
        help="how many of the steps, the last ones, see stacks too (default: %(default)s)",
    )
    parser.add_argument(
        "--stacks",
        type=int,
        default=400,
        help="also as many clips of things that stand on each other (default: %(default)s)",
    )
    parser.add_argument(
        "--borders",
        type=int,
        default=2500,
        help="further steps, of the head that sees borders between objects alone (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.settling < arguments.steps:
        parser.error(f"--settling: got {arguments.settling}, expected 0 to {arguments.steps - 1}, fewer than --steps")
    if arguments.batch < 2 or arguments.batch % 2:
        parser.error(f"--batch: got {arguments.batch}, expected an even number of at least 2")
    device, console = prepare_device(arguments), open_console()
    a = arguments
    options = Options(a.seed, a.steps, a.batch, a.rate, a.clips, a.assemblies, a.homeware, a.stacks, a.settling)
    more: tuple[tuple[Split, int], ...] = (
        ("assemblies", a.assemblies),
        ("homeware", a.homeware),
        ("stacks", a.stacks),
    )
    shards = []
    for split, clips in more:
        if clips:
            shards += generate(a.data / split, split, clips, IMAGES, 0, a.threads, console)
    shards += generate(a.data / "train", "train", a.clips, IMAGES, SIBLINGS, a.threads, console)
    data = prepare(shards, arguments.work / "features_train", arguments.threads, console)
    trainer = train(options, data, arguments.work / "checkpoint.safetensors", device, console)
    borders = train_borders(trainer.average, options, a.borders, data, a.work / "borders.safetensors", device, console)
    weights = arguments.models / "segmenter.safetensors"
    save_weights(trainer.average, weights)
    export(
        trainer.average, arguments.models / "segmenter.onnx", {"seed": str(options.seed), "steps": str(options.steps)}
    )
    console.print(f"written: {arguments.models / 'segmenter.onnx'}, {weights}")
    console.print("lower precisions beside it are of other weights now; for new ones: make export ARGS=--install")
    with contextlib.suppress(KeyboardInterrupt):
        from training.segmenter.card import write_card

        write_card(arguments, options, trainer, borders, console)


if __name__ == "__main__":
    main()
