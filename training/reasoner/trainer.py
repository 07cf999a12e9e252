"""Steps of the reasoner's training: losses, checkpoints, calibration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.reasoner.batches import Batches, evidence_batch
from training.reasoner.data import Example
from training.reasoner.model import ReasonerNetwork
from training.reasoner.options import Z90, Options, learning_rate
from wm_perception.reasoning.features import CENTER


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
    near = (mask & pairs[:, :, :, CENTER, -1].bool() | pair_targets.any(dim=-1) & mask)[..., None]
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


class Trainer:
    """Network, its moving average and the optimizer, with checkpoints."""

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
