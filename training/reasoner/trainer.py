"""Steps of the reasoner's training: losses and calibration."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from training.common import trainer as common
from training.reasoner.batches import Batches, evidence_batch
from training.reasoner.examples import Example
from training.reasoner.model import ReasonerNetwork
from training.reasoner.options import Z90, Options
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
    shapes, ground_truth, free, contacts, contact_of, steps, step_of, causes, caused = batch[5:]
    mask = here[:, :, None] & here[:, None]
    mask = mask & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    pair, single = network.interaction(objects, pairs, mask)
    near = (mask & pairs[:, :, :, CENTER, -1].bool() | pair_targets.any(dim=-1) & mask)[..., None]
    entropy = functional.binary_cross_entropy_with_logits
    each = entropy(pair, pair_targets, reduction="none") * near
    scale = len(objects)
    events = entropy(single, object_targets, reduction="none") * here[..., None]
    mean, precision = posterior(network, shapes, contacts, contact_of, steps, step_of)
    nll = 0.5 * (precision * (mean - ground_truth) ** 2 - torch.log(precision))
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


class Trainer(common.Trainer[ReasonerNetwork, tuple[Tensor, ...]]):
    """Trains the reasoner on windows of motion."""

    recipe = common.Recipe(weight_decay=0.02, clip=2.0, decay=0.995, warm_up=100, floor=0.01)

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(options, lambda: ReasonerNetwork().to(device), device)

    def losses(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Of the network in training."""
        return losses(self.network, tuple(t.to(self.device) for t in batch))


@torch.no_grad()
def calibrate(network: ReasonerNetwork, examples: list[Example]) -> dict[str, float]:
    """Sets the factors of the standard deviations with which 90 % intervals hold 90 % of the true values.

    Returns:
        Coverage of 90 % before, per property, on objects with evidence.
    """
    network.eval()
    shapes, ground_truth, free, contacts, contact_of, steps, step_of = evidence_batch(examples, None)
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
    errors = ((mean - ground_truth.to(device)).abs() * torch.sqrt(precision)).cpu()[use]
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
