"""Windows, losses and figures of the dynamics' training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from training.common import trainer as common
from training.dynamics.data import DynamicsClip
from training.dynamics.model import DynamicsStep
from training.dynamics.options import CHI2_3_90, STILL_M, Options
from training.dynamics.rollout import make_batch, pose_errors, roll_out
from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import STEP_S

Windows = list[tuple[DynamicsClip, int]]
"""Clips, and the step that each window begins at."""


def draw_windows(clips: list[DynamicsClip], count: int, steps: int, rng: np.random.Generator) -> Windows:
    """Windows (clip, first step) that no intervention falls into, nearly all with something in motion."""
    windows: Windows = []
    while len(windows) < count:
        clip = clips[int(rng.integers(len(clips)))]
        first = int(rng.integers(0, len(clip.states) - steps - 1))
        if clip.disturbed[first + 1 : first + steps + 1].any():
            continue
        rows = ~clip.is_static & ~clip.kinematic & clip.present[first : first + steps + 1].all(axis=0)
        if not rows.any():
            continue
        moved = np.linalg.norm(clip.states[first + steps, rows, :3] - clip.states[first, rows, :3], axis=1).max()
        if moved < STILL_M and rng.uniform() > 0.1:
            continue
        windows.append((clip, first))
    return windows


def losses(network: DynamicsStep, windows: Windows, steps: int) -> dict[str, Tensor]:
    """Pose error over the rollout, robust (a meter counts little more than centimeters); velocity error; created
    energy; penetration depth; likelihood of the end. A larger factor in the sum weighs its term more.
    """
    batch = make_batch(windows, steps)
    overlaps: list[Tensor] = []
    states, deviations = roll_out(network, batch, steps, overlaps=overlaps)
    ground_truth = batch.ground_truth[1:]
    position, turned = pose_errors(states, ground_truth, batch.parameters)
    scored = batch.scored
    moves = (batch.ground_truth[-1, :3] - batch.ground_truth[0, :3]).norm(dim=0) > 0.002
    weight = torch.where(moves, 1.0, 0.3) * scored
    weight = weight / weight.sum().clamp(min=1.0)

    def robust(error: Tensor, unit: float) -> Tensor:
        return torch.log1p(error / unit)

    pose = (robust(position, 0.06) + 0.5 * robust(turned, 0.06)).mean(dim=0)
    spread = torch.sqrt((states[:, 7:10] - ground_truth[:, 7:10]).square().sum(1) + 1e-8)
    velocity = robust(spread, 0.1).mean(dim=0)
    # Energy per mass [J/kg] must not rise in a step by more than its uncertainty.
    whole = torch.cat([batch.ground_truth[:1], states])
    energy = 0.5 * whole[:, 7:10].square().sum(1) + GRAVITY_M_S2 * whole[:, 2]
    pushed = torch.zeros(len(batch.scored), dtype=torch.bool)
    with_pusher = set(batch.window[batch.kinematic.numpy()].tolist())
    pushed[[int(w) in with_pusher for w in batch.window]] = True
    made = torch.relu(energy[1:] - energy[:-1] - 0.03).clamp(max=1.0).mean(dim=0) * ~pushed
    # Objects must not penetrate by more than 1 mm; depths beyond 3 cm count as 3 cm.
    sunk = torch.stack([torch.relu(depth - 0.001).clamp(max=0.03).sum() for depth in overlaps or [states.new_zeros(1)]])
    # Variance of the end from the deviations of each step; the mean has no gradient here.
    left = torch.arange(steps - 1, -1, -1, dtype=torch.float32)[:, None] * STEP_S
    variance = (deviations[:, 0] ** 2 * left**2).sum(0) + 1e-7
    error = (states[-1, :3] - ground_truth[-1, :3]).detach().square().sum(0)
    # Student's t with 4 degrees of freedom: a few rollouts leave the ground truth altogether.
    nll = 1.5 * torch.log(variance) + 3.5 * torch.log1p(error / (4.0 * variance))
    return {
        "pose": (pose * weight).sum(),
        "velocity": 0.3 * (velocity * weight).sum(),
        "energy": 2.0 * (made * weight).sum(),
        "overlap": 60.0 * sunk.sum() / max(steps - 1, 1) / scored.sum().clamp(min=1),
        "scatter": 0.02 * (nll * weight).sum(),
    }


class Trainer(common.Trainer[DynamicsStep, tuple[Windows, int]]):
    """Trains the dynamics on windows of clips, rolled out for some steps; keeps the best weights (early stopping)."""

    recipe = common.Recipe(weight_decay=0.001, clip=0.5, decay=0.99, warm_up=50, floor=0.02)

    def __init__(self, options: Options) -> None:
        super().__init__(options, DynamicsStep, torch.device("cpu"))
        self.best = {k: v.clone() for k, v in self.average.state_dict().items()}
        self.best_score = math.inf

    def losses(self, batch: tuple[Windows, int]) -> dict[str, Tensor]:
        """Losses of the network in training."""
        return losses(self.network, *batch)

    def more_tensors(self) -> dict[str, Tensor]:
        """The best weights so far."""
        return {f"best.{k}": v for k, v in self.best.items()}

    def more_facts(self) -> dict[str, str]:
        """The score of the best weights so far."""
        return {"best_score": repr(self.best_score)}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        """The best weights so far."""
        self.best = common.below("best.", tensors)
        self.best_score = float(facts["best_score"])

    def watch(self, clips: list[DynamicsClip]) -> dict[str, float]:
        """Errors on validation clips; the weights with the least so far are kept (early stopping)."""
        row = measure(self.average, clips, self.options.seed, count=140)
        score = row["ade_1.0s_m"] + row["fde_1.0s_m"] + row["outline_1.0s_m"]
        if score < self.best_score:
            self.best_score = score
            self.best = {k: v.clone() for k, v in self.average.state_dict().items()}
        return row


@torch.no_grad()
def measure(
    network: DynamicsStep, clips: list[DynamicsClip], seed: int, count: int = 96, steps: int = 60
) -> dict[str, float]:
    """Displacement errors of objects that move in windows of clips, and those of straight lines beside."""
    rng = np.random.default_rng(seed)
    windows = draw_windows(clips, count, steps, rng)
    batch = make_batch(windows, steps)
    overlaps: list[Tensor] = []
    states, _ = roll_out(network, batch, steps, overlaps=overlaps)
    position, turned = pose_errors(states, batch.ground_truth[1:], batch.parameters)
    displacement = (batch.ground_truth[-1, :3] - batch.ground_truth[0, :3]).norm(dim=0)
    use = batch.scored & (displacement > 0.01)
    rest = batch.scored & ~(displacement > 0.01)
    result: dict[str, float] = {}
    for name, at in (("0.25", 15), ("0.5", 30), ("1.0", 60)):
        result[f"fde_{name}s_m"] = float(position[at - 1, use].mean())
        straight = batch.ground_truth[0, :3] + batch.ground_truth[0, 7:10] * at * STEP_S - batch.ground_truth[at, :3]
        result[f"straight_{name}s_m"] = float(straight.norm(dim=0)[use].mean())
    result["ade_1.0s_m"] = float(position[:, use].mean())
    result["fde_median_1.0s_m"] = float(position[-1, use].median())
    result["outline_1.0s_m"] = float(turned[-1, use].mean())
    result["at_rest_1.0s_m"] = float(position[-1, rest].mean())
    result["deep_pairs"] = sum(float((depth > 0.005).sum()) for depth in overlaps) / len(overlaps) / count
    return result


@torch.no_grad()
def calibrate(
    network: DynamicsStep, clips: list[DynamicsClip], seed: int, samples: int = 24, count: int = 48, steps: int = 45
) -> dict[str, float]:
    """The factor on the deviations with which 90 % regions of sampled ends hold 90 % of the true ends.

    Regions are balls about the samples' mean that would hold 90 % of a normal distribution of their mean variance.
    """
    rng = np.random.default_rng(seed)
    windows = draw_windows(clips, count, steps, rng)
    batch = make_batch(windows, steps)
    torch.manual_seed(seed)
    mean, _ = roll_out(network, batch, steps)
    displacement = (batch.ground_truth[-1, :3] - batch.ground_truth[0, :3]).norm(dim=0)
    use = batch.scored & (displacement > 0.01)
    coverage: dict[float, float] = {}
    for factor in (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0):
        ends = []
        for _ in range(samples):
            noise = factor * torch.randn(steps, 6, batch.ground_truth.shape[2])
            ends.append(roll_out(network, batch, steps, noise)[0][-1, :3])
        stacked = torch.stack(ends)
        variance = stacked.var(dim=0).mean(0) + 1e-8
        error = (batch.ground_truth[-1, :3] - mean[-1, :3]).square().sum(0)
        coverage[factor] = float((error < CHI2_3_90 * variance)[use].float().mean())
        if coverage[factor] > 0.93:
            break
    factors, values = list(coverage), list(coverage.values())
    chosen = float(np.interp(0.9, np.maximum.accumulate(values), factors))
    return {"factor": chosen, "coverage_at_1": coverage.get(1.0, float("nan")), "coverage": max(values)}
