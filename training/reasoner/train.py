"""Trains the reasoner from scratch and writes its weights, ONNX file and model card: `make train-reasoner`.

Steps: simulated lessons (made where they are missing), most of them perceived with imitated errors and some drawn and
run through perception itself, training with a checkpoint every minute (a run that was cut off goes on), calibration,
export, evaluation on held-out seeds and shapes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
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

from training.reasoner.clips import load_seen_examples, make_seen_lessons
from training.reasoner.data import Example, load_examples, make_shards
from training.reasoner.model import ReasonerNetwork, parameters
from wm_perception.reasoning.features import (
    AHEAD,
    CAUSE_FEATURES,
    CENTRE,
    CONTACT_FEATURES,
    OBJECT_FEATURES,
    PAIR_FEATURES,
    RATE_HZ,
    SHAPE_FEATURES,
    STEP_FEATURES,
    VERSION,
    WINDOW,
)

MODELS = Path("ros2_ws/src/wm_perception/models")
OPSET = 18
VALIDATION = 0.08
"""Part of the clips of the training set that training is watched and calibrated with; not the held-out splits."""
VIEWS = 2
"""How often each imitated clip is perceived, each time with other errors."""
SEEN_WEIGHT = 3
"""How often a clip that perception really saw is in the lessons: there are fewer, and they are what matters."""
INPUTS = ("objects", "pairs", "shapes", "contacts", "steps", "causes")
OUTPUTS = (
    "pair_probabilities",
    "object_probabilities",
    "prior",
    "contact_evidence",
    "step_evidence",
    "cause",
)
Z90 = 1.6449


@dataclass(frozen=True)
class Options:
    """What decides the weights."""

    seed: int
    steps: int
    batch: int
    rate: float
    clips: int
    seen_clips: int


class Batches:
    """Random batches by step number, so that a resumed run sees what the whole run would have seen."""

    def __init__(self, examples: list[Example], options: Options) -> None:
        self.examples, self.options = examples, options
        lively: list[tuple[int, int, int]] = []
        quiet: list[tuple[int, int, int]] = []
        for x, example in enumerate(examples):
            n, count = example.here.shape
            if not n:
                continue
            happens = np.asarray(example.pair_events.any(axis=(0, 1, 3)) | example.object_events.any(axis=(0, 2)))
            moving = np.asarray((example.objects[..., 0] > 0.1).any(axis=0))
            for c in range(CENTRE, count - AHEAD):
                close = happens[max(0, c - 2) : c + 3].any()
                (lively if close or moving[c] else quiet).append((n, x, c))
        self.lively, self.quiet = np.array(lively), np.array(quiet)
        self.causes = np.concatenate([e.cause_rows for e in examples])
        self.caused = np.concatenate([e.caused for e in examples])

    def at(self, step: int) -> tuple[Tensor, ...]:
        """The batch of a step."""
        rng = np.random.default_rng([self.options.seed, step])
        size = self.options.batch
        some = self.lively[rng.integers(0, len(self.lively), 8 * size)]
        # Of about one number of things, so that little is padded.
        some = some[np.argsort(some[:, 0], kind="stable")]
        start = int(rng.integers(0, 8)) * size
        windows = some[start : start + size]
        if len(self.quiet):
            windows = np.concatenate([windows, self.quiet[rng.integers(0, len(self.quiet), max(1, size // 12))]])
        rows = rng.integers(0, len(self.examples), max(8, size))
        causes = rng.integers(0, len(self.causes), 512)
        return (
            *interaction_batch(self.examples, windows),
            *evidence_batch([self.examples[k] for k in rows], rng),
            torch.from_numpy(self.causes[causes]),
            torch.from_numpy(self.caused[causes].astype(np.float32)),
        )


def interaction_batch(examples: list[Example], windows: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """Objects (B, N, W, Fo), pairs (B, N, N, W, Fp), here (B, N), pair targets (B, N, N, 3), object targets (B, N, 4).

    Args:
        windows: (B, 3) things, example, centre step.
    """
    count, n = len(windows), int(windows[:, 0].max())
    objects = np.zeros((count, n, WINDOW, len(OBJECT_FEATURES)), np.float32)
    pairs = np.zeros((count, n, n, WINDOW, len(PAIR_FEATURES)), np.float32)
    here = np.zeros((count, n), bool)
    pair_targets = np.zeros((count, n, n, 3), np.float32)
    object_targets = np.zeros((count, n, 4), np.float32)
    for b, (m, x, c) in enumerate(windows):
        e = examples[x]
        part = slice(c - CENTRE, c + AHEAD + 1)
        objects[b, :m] = e.objects[:, part]
        pairs[b, :m, :m] = e.pairs[:, :, part]
        here[b, :m] = e.here[:, c]
        pair_targets[b, :m, :m, :2] = e.pair_events[:, :, c]
        pair_targets[b, :m, :m, 2] = e.touching[:, :, c]
        object_targets[b, :m] = e.object_events[:, c]
    return tuple(torch.from_numpy(v) for v in (objects, pairs, here, pair_targets, object_targets))


def evidence_batch(examples: list[Example], rng: np.random.Generator | None) -> tuple[Tensor, ...]:
    """Shapes (K, Fs), truth (K, 3), free (K,), contacts (C, Fc), whose (C,), steps (M, Fm), whose (M,).

    With a generator, things keep a random part of their evidence: the robot also judges early.
    """
    columns: list[list[NDArray[Any]]] = [[], [], [], [], [], [], []]
    shapes, truth, free, contacts, contact_of, steps, step_of = columns
    offset = 0
    for e in examples:
        n = len(e.free)
        shapes.append(e.shapes)
        truth.append(e.properties)
        free.append(e.free)
        keep = np.ones(n) if rng is None else rng.uniform(0.0, 1.4, n)
        for rows, owner, into, into_of in (
            (e.contact_rows, e.contact_of, contacts, contact_of),
            (e.step_rows, e.step_of, steps, step_of),
        ):
            kept = np.ones(len(owner), bool) if rng is None else rng.uniform(size=len(owner)) < keep[owner]
            into.append(rows[kept])
            into_of.append(owner[kept] + offset)
        offset += n
    return tuple(torch.from_numpy(np.concatenate(v)) for v in columns)


def posterior(
    network: ReasonerNetwork, shapes: Tensor, contacts: Tensor, contact_of: Tensor, steps: Tensor, step_of: Tensor
) -> tuple[Tensor, Tensor]:
    """Means and precisions (K, 3) of all evidence together: the product of Gaussians."""
    mean, precision = network.gaussian(network.prior(shapes))
    weighted = mean * precision
    for values, owner in ((network.contact(contacts), contact_of), (network.step(steps), step_of)):
        m, p = network.gaussian(values)
        weighted = weighted.index_add(0, owner, m * p)
        precision = precision.index_add(0, owner, p)
    return weighted / precision, precision


def losses(network: ReasonerNetwork, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Of each part."""
    objects, pairs, here, pair_targets, object_targets = batch[:5]
    shapes, truth, free, contacts, contact_of, steps, step_of, causes, caused = batch[5:]
    mask = here[:, :, None] & here[:, None]
    mask = mask & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    pair, single = network.interaction(objects, pairs, mask)
    near = (mask & pairs[:, :, :, CENTRE, -1].bool() | pair_targets.any(dim=-1) & mask)[..., None]
    entropy = functional.binary_cross_entropy_with_logits
    each = entropy(pair, pair_targets, reduction="none") * near
    scale = len(objects)
    events = entropy(single, object_targets, reduction="none") * here[..., None]
    mean, precision = posterior(network, shapes, contacts, contact_of, steps, step_of)
    nll = 0.5 * (precision * (mean - truth) ** 2 - torch.log(precision))
    nll = (nll * free[:, None]).sum(dim=0) / free.sum().clamp(min=1)
    return {
        "pairs": 0.5 * each[..., :2].sum() / scale,
        "touch": 0.05 * each[..., 2].sum() / scale,
        "objects": events.sum() / scale,
        "mass": 0.3 * nll[0],
        "friction": 0.3 * nll[1],
        "restitution": 0.3 * nll[2],
        "cause": entropy(network.cause(causes)[:, 0], caused),
    }


def learning_rate(step: int, options: Options) -> float:
    """Rises over 100 steps, then falls as a cosine to 1 %."""
    if step < 100:
        return options.rate * (step + 1) / 100
    done = min(1.0, (step - 100) / max(options.steps - 100, 1))
    return options.rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


class Trainer:
    """Network, its moving average and the optimiser, with checkpoints."""

    def __init__(self, options: Options, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.options, self.device = options, device
        self.network, self.average = ReasonerNetwork().to(device), ReasonerNetwork().to(device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=options.rate, weight_decay=0.02)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []

    def train_step(self, batch: tuple[Tensor, ...]) -> dict[str, float]:
        """One step; returns the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options)
        parts = losses(self.network, tuple(t.to(self.device) for t in batch))
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.995, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1.0 - decay)
        return {k: float(v.detach()) for k, v in parts.items()}

    def save(self, path: Path) -> None:
        """Everything that going on needs, in one safetensors file."""
        tensors = {f"network.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v.contiguous() for k, v in self.average.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in state.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        facts = {
            "step": str(self.step),
            "seconds": f"{self.seconds:.1f}",
            "options": json.dumps(vars(self.options)),
            "curve": json.dumps(self.curve),
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
def calibrate(network: ReasonerNetwork, examples: list[Example]) -> dict[str, float]:
    """Sets how much wider standard deviations have to be for 90 % intervals to hold 90 % of the truths.

    Returns:
        Coverage of 90 % before, per property, on things with evidence.
    """
    network.eval()
    shapes, truth, free, contacts, contact_of, steps, step_of = evidence_batch(examples, None)
    device = network.scales.device
    mean, precision = posterior(
        network,
        shapes.to(device),
        contacts.to(device),
        contact_of.to(device),
        steps.to(device),
        step_of.to(device),
    )
    some = torch.zeros(len(shapes), dtype=torch.bool)
    some[contact_of] = True
    use = some & free
    errors = ((mean - truth.to(device)).abs() * torch.sqrt(precision)).cpu()[use]
    if len(errors) < 20:
        return {}
    coverage = (errors < Z90).float().mean(dim=0)
    network.scales.copy_(torch.quantile(errors, 0.9, dim=0) / Z90)
    return dict(zip(("log_mass", "friction", "restitution"), coverage.tolist(), strict=True))


@torch.no_grad()
def validation_loss(trainer: Trainer, batches: Batches, count: int = 12) -> dict[str, float]:
    """Losses of the moving average on clips that are not trained on."""
    trainer.average.eval()
    total: dict[str, list[float]] = {}
    for k in range(count):
        batch = tuple(t.to(trainer.device) for t in batches.at(10_000_000 + k))
        for name, value in losses(trainer.average, batch).items():
            total.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in total.items()}


def export(network: ReasonerNetwork, path: Path, facts: dict[str, str]) -> None:
    """Writes the ONNX file, for any number of things and rows; ``facts`` go into its metadata."""
    import onnx

    network = network.cpu().float().eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = (
        torch.zeros(3, WINDOW, len(OBJECT_FEATURES)),
        torch.zeros(3, 3, WINDOW, len(PAIR_FEATURES)),
        torch.zeros(3, len(SHAPE_FEATURES)),
        torch.zeros(2, len(CONTACT_FEATURES)),
        torch.zeros(2, len(STEP_FEATURES)),
        torch.zeros(2, len(CAUSE_FEATURES)),
    )
    axes = {
        "objects": {0: "N"},
        "pairs": {0: "N", 1: "N"},
        "shapes": {0: "N"},
        "contacts": {0: "C"},
        "steps": {0: "M"},
        "causes": {0: "Q"},
        "pair_probabilities": {0: "N", 1: "N"},
        "object_probabilities": {0: "N"},
        "prior": {0: "N"},
        "contact_evidence": {0: "C"},
        "step_evidence": {0: "M"},
        "cause": {0: "Q"},
    }
    torch.onnx.export(
        network,
        examples,
        path,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_axes=axes,
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )
    model = onnx.load(path)
    facts = {
        "task": "wm_reasoner",
        "version": str(VERSION),
        "rate_hz": str(RATE_HZ),
        "window": str(WINDOW),
        "scales": json.dumps([round(float(v), 6) for v in network.scales]),
        **facts,
    }
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


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
