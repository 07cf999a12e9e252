"""The common part of all trainings: optimizer, moving average, schedule, checkpoints, and the loop over steps."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SMOOTHING = 0.02
"""Weight of a new step in the losses that are shown and kept: about the mean of the last fifty steps."""
SAVE_EVERY_S = 60.0
"""Time [s] between checkpoints: as much is lost when a run is interrupted."""


class CommonOptions(Protocol):
    """The part that the options of all trainings have in common."""

    @property
    def seed(self) -> int:
        """Of the first weights and of every batch."""

    @property
    def steps(self) -> int:
        """Of the whole training."""

    @property
    def rate(self) -> float:
        """Highest learning rate."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimizer; a larger ``clip`` follows single batches more, a larger ``decay`` less.

    Attributes:
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        decay: of the moving average, reached after about 9 / (1 - decay) steps.
        warm_up: steps over which the learning rate rises.
        floor: last learning rate, as a fraction of the highest.
    """

    weight_decay: float
    clip: float
    decay: float
    warm_up: int
    floor: float

    def learning_rate(self, step: int, options: CommonOptions) -> float:
        """Rises over the warm-up, then falls as a cosine to the floor."""
        if step < self.warm_up:
            return options.rate * (step + 1) / self.warm_up
        done = min(1.0, (step - self.warm_up) / max(options.steps - self.warm_up, 1))
        return options.rate * self.fallen(1.0, done)

    def fallen(self, top: float, done: float) -> float:
        """Learning rate as a fraction of the highest, after a part 0..1 of a cosine from ``top`` to the floor."""
        return self.floor + (top - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")


class Trainer(ABC, Generic[Network, Batch]):
    """Network, its moving average and the optimizer, with checkpoints.

    Args:
        options: a frozen dataclass; a checkpoint of a run with other options is refused.
        build: makes the network, twice, after the seed is set.

    Attributes:
        network, average: in training, and its moving average; step: steps done; seconds: of training [s].
        skipped: steps with a gradient that was not finite; curve: history of the losses.
    """

    recipe: ClassVar[Recipe]

    def __init__(self, options: CommonOptions, build: Callable[[], Network], device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.options, self.device = options, device
        self.network, self.average = build(), build()
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.rate, weight_decay=self.recipe.weight_decay
        )
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        self.curve: list[dict[str, float]] = []

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the network in training by name, weighted: their sum is minimized."""

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step; returns the losses. A step whose gradient is not finite changes nothing but the count of steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.step, self.options)
        parts = self.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.skipped += 1
        self.step += 1
        decay = min(self.recipe.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                if mean.dtype.is_floating_point:
                    mean.lerp_(value, 1.0 - decay)
                else:
                    mean.copy_(value)
        return {k: float(v.detach()) for k, v in parts.items()}

    def fit(
        self,
        batch_of: Callable[[int], Batch],
        watch: Callable[[dict[str, float]], dict[str, float]],
        every: int,
        checkpoint: Path,
        console: Console,
    ) -> None:
        """Train to the end.

        Args:
            batch_of: the batch of a step, always the same one, so that a resumed run has those of an uninterrupted one.
            watch: the history's entry for a step, from the smoothed losses; called every ``every`` steps and at
                the end.
            checkpoint: written every minute and at the end.
        """
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
            bar = progress.add_task("training", total=self.options.steps, completed=self.step)
            while self.step < self.options.steps:
                parts = self.train_step(batch_of(self.step))
                weight = SMOOTHING if smooth else 1.0
                smooth = {k: (1 - weight) * smooth.get(k, v) + weight * v for k, v in parts.items()}
                progress.update(bar, advance=1, description=f"training, loss {sum(smooth.values()):.3f}")
                last = self.step == self.options.steps
                if self.step % every == 0 or last:
                    self.curve.append({"step": self.step, **watch(smooth)})
                now = time.monotonic()
                if now - saved > SAVE_EVERY_S or last:
                    self.seconds += now - saved
                    self.save(checkpoint)
                    saved = now
        if self.skipped:
            console.print(f"{self.skipped} steps had gradients that were not finite and changed nothing")

    def resume(self, checkpoint: Path, console: Console) -> None:
        """Resume from a checkpoint if there is one."""
        if checkpoint.exists():
            self.load(checkpoint)
            console.print(f"going on from step {self.step} of {self.options.steps} ({checkpoint})")

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs, in one safetensors file."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= self.more_tensors()
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        facts = {
            "step": str(self.step),
            "seconds": f"{self.seconds:.1f}",
            "options": json.dumps(vars(self.options)),
            "curve": json.dumps(self.curve),
            **self.more_facts(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, facts)
        part.rename(path)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            ValueError: the checkpoint is of a run with other options.
        """
        with safe_open(path, "pt") as file:
            facts = file.metadata()
        if json.loads(facts["options"]) != vars(self.options):
            raise ValueError(
                f"{path}: checkpoint of a run with {facts['options']}, expected {json.dumps(vars(self.options))}; "
                "delete it to start again"
            )
        tensors = load_file(path)
        self.network.load_state_dict(below("network.", tensors))
        self.average.load_state_dict(below("average.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in below("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.curve, self.seconds = int(facts["step"]), json.loads(facts["curve"]), float(facts["seconds"])
        self.restore(tensors, facts)

    def more_tensors(self) -> dict[str, Tensor]:
        """What a training keeps in its checkpoint beyond the common: tensors by name."""
        return {}

    def more_facts(self) -> dict[str, str]:
        """What a training keeps in its checkpoint beyond the common: text by name."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        """Restore what ``more_tensors`` and ``more_facts`` gave."""


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def count_parameters(network: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in network.parameters())
