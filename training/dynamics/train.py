"""Trains the dynamics network from scratch and writes its weights, ONNX file and model card: `make train-dynamics`.

Steps: simulated clips (made where they are missing), training on rollouts of growing length with a checkpoint every
minute (a run that was cut off goes on), calibration of the scatter on clips kept out of training, export, evaluation
on held-out seeds and shapes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from training.common.command import open_console
from training.common.exporting import save_weights
from training.common.trainer import count_parameters
from training.dynamics.data import FOLDER, DynamicsClip, generate, load
from training.dynamics.exporting import export
from training.dynamics.options import MODELS, VALIDATION, Options, horizon
from training.dynamics.trainer import Trainer, Windows, calibrate, draw_windows


def train(options: Options, clips: list[DynamicsClip], checkpoint: Path, console: Console) -> Trainer:
    """Trains to the end, from the checkpoint if there is one."""
    trainer = Trainer(options)
    trainer.resume(checkpoint, console)
    count = max(2, round(VALIDATION * len(clips)))
    seen, watched = clips[:-count], clips[-count:]
    console.print(
        f"{count_parameters(trainer.network):,} parameters, {len(seen)} clips to train on, {len(watched)} to watch"
    )
    if not trainer.curve:
        trainer.curve.append({"step": 0, **trainer.watch(watched)})
        console.print(_line(0, trainer.curve[-1]))

    def batch_of(step: int) -> tuple[Windows, int]:
        steps = horizon(step, options)
        return draw_windows(seen, options.batch, steps, np.random.default_rng([options.seed, step])), steps

    def watched_errors(smooth: dict[str, float]) -> dict[str, float]:
        row = {"loss": smooth["pose"], **trainer.watch(watched)}
        console.print(_line(trainer.step, row))
        return row

    trainer.fit(batch_of, watched_errors, max(options.steps // 12, 1), checkpoint, console)
    trainer.average.load_state_dict(trainer.best)
    return trainer


def _line(step: int, row: dict[str, float]) -> str:
    return (
        f"step {step}: FDE over what moves, watched clips: 0.25 s {1e3 * row['fde_0.25s_m']:.1f} mm, "
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
    console = open_console()
    options = Options(given.seed, given.steps, given.batch, given.rate, given.clips, given.longest)
    clips = load(generate(options.clips, FOLDER))
    trainer = train(options, clips, given.checkpoint, console)
    count = max(2, round(VALIDATION * len(clips)))
    calibration = calibrate(trainer.average, clips[-count:], options.seed)
    console.print(f"scatter: {calibration}")
    save_weights(trainer.average, given.out / "dynamics.safetensors")
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


if __name__ == "__main__":
    sys.exit(main())
