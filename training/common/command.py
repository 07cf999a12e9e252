"""The common part of the command lines of all trainings."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console


def add_options(
    parser: argparse.ArgumentParser, models: Path, name: str, steps: int, batch: int, rate: float, clips: int
) -> None:
    """Add the options of the weights, of the folders, and of the device."""
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=steps, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=batch, help="images or windows a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=rate, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=clips, help="of the training set (default: %(default)s)")
    parser.add_argument("--held-out-clips", type=int, default=60, help="of each held-out split (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("out/data"), help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("out/train") / name, help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=models, help="where the weights go (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")


def prepare_device(arguments: argparse.Namespace) -> torch.device:
    """The requested device; the number of threads is set."""
    torch.set_num_threads(arguments.threads)
    chosen = arguments.device
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if chosen == "auto" else chosen)


def open_console() -> Console:
    """As wide as the terminal; 160 columns in a log."""
    return Console(width=None if sys.stdout.isatty() else 160)
