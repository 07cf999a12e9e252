"""Trains the dynamics network from scratch and writes its weights, ONNX file and model card: `make train-dynamics`.

Steps: simulated clips (made where they are missing), training on rollouts of growing length with a checkpoint every
minute (a run that was cut off goes on), calibration of the scatter on clips kept out of training, export, evaluation
on held-out seeds and shapes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.dynamics.data import FOLDER, DynamicsClip, generate, load
from training.dynamics.exporting import export, weights_file
from training.dynamics.options import MODELS, VALIDATION, Options, horizon
from training.dynamics.trainer import Trainer, calibrate, draw_windows


def train(options: Options, clips: list[DynamicsClip], checkpoint: Path, console: Console) -> Trainer:
    """Trains to the end, from the checkpoint if there is one."""
    trainer = Trainer(options)
    if checkpoint.exists():
        trainer.load(checkpoint)
        console.print(f"going on from step {trainer.step} of {options.steps} ({checkpoint})")
    count = max(2, round(VALIDATION * len(clips)))
    seen, watched = clips[:-count], clips[-count:]
    numbers = sum(p.numel() for p in trainer.network.parameters())
    console.print(f"{numbers:,} parameters, {len(seen)} clips to train on, {len(watched)} to watch")
    if not trainer.curve:
        trainer.curve.append({"step": 0, **trainer.watch(watched)})
        console.print(_line(trainer.curve[-1]))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    saved = begun = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=options.steps, completed=trainer.step)
        recent: list[float] = []
        while trainer.step < options.steps:
            steps = horizon(trainer.step, options)
            rng = np.random.default_rng([options.seed, trainer.step])
            parts = trainer.train_step(draw_windows(seen, options.batch, steps, rng), steps)
            recent.append(parts["pose"])
            progress.update(task, completed=trainer.step, description=f"train, pose loss {np.mean(recent[-50:]):.3f}")
            now = time.monotonic()
            last = trainer.step == options.steps
            if trainer.step % max(options.steps // 12, 1) == 0 or last:
                row = {"step": trainer.step, "loss": float(np.mean(recent[-100:]))}
                trainer.curve.append({**row, **trainer.watch(watched)})
                console.print(_line(trainer.curve[-1]))
            if now - saved > 60 or last:
                trainer.seconds += now - begun
                begun = saved = now
                trainer.save(checkpoint)
    trainer.average.load_state_dict(trainer.best)
    if trainer.skipped:
        console.print(f"{trainer.skipped} steps had gradients that were not finite and changed nothing")
    return trainer


def _line(row: dict[str, float]) -> str:
    return (
        f"step {row['step']:.0f}: FDE over what moves, watched clips: 0.25 s {1e3 * row['fde_0.25s_m']:.1f} mm, "
        f"0.5 s {1e3 * row['fde_0.5s_m']:.1f} mm, 1 s {1e3 * row['fde_1.0s_m']:.1f} mm "
        f"(straight {1e3 * row['straight_1.0s_m']:.0f}), median {1e3 * row['fde_median_1.0s_m']:.1f} mm, "
        f"at rest {1e3 * row['at_rest_1.0s_m']:.1f} mm, pairs 5 mm deep {row['deep_pairs']:.3f} a window"
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=48, help="windows a step")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--longest", type=int, default=24, help="steps of the longest rollout trained on")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all)")
    parser.add_argument("--checkpoint", type=Path, default=Path("out/train/dynamics/checkpoint.safetensors"))
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--no-card", action="store_true", help="leave the evaluation and the card for later")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    console = Console(width=None if sys.stdout.isatty() else 150)
    options = Options(given.seed, given.steps, given.batch, given.rate, given.clips, given.longest)
    clips = load(generate(options.clips, FOLDER))
    trainer = train(options, clips, given.checkpoint, console)
    count = max(2, round(VALIDATION * len(clips)))
    calibration = calibrate(trainer.average, clips[-count:], options.seed)
    console.print(f"scatter: {calibration}")
    weights_file(trainer.average, _made(given.out) / "dynamics.safetensors")
    facts: dict[str, Any] = {
        "training": json.dumps({**vars(options), "seconds": round(trainer.seconds)}),
        "scatter_factor": f"{calibration['factor']:.4f}",
    }
    export(trainer.average, given.out / "dynamics.onnx", facts, calibration["factor"])
    console.print(f"written: {given.out / 'dynamics.onnx'}")
    if not given.no_card:
        from training.dynamics.card import write_card

        card = write_card(given.out, trainer.average, trainer.curve, options, trainer.seconds, calibration)
        console.print(f"written: {card}")
    return 0


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
