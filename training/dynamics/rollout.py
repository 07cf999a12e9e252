"""Rollouts of the dynamics network over batches of clip windows, in torch, for its training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dynamics.data import DynamicsClip
from training.dynamics.model import DynamicsStep, rotation_of
from wm_dynamics.contact_step.body_tables import (
    HOVER_M,
    HULL_POINTS,
    MAX_SLACK_M,
    PLANE_ROWS,
    ROWS,
    SLOW_START_M_S,
    STEP_S,
    near_distance,
    surfaces_beneath,
)


@dataclass
class WindowBatch:
    """Windows of T steps, their bodies one after another (B in all).

    Attributes:
        ground_truth: (T, 13, B) states. parameters: (rows, B). bounds: (B,) [m].
        hull_row: (H,); hull_points: (3, HULL_POINTS, H). surfaces: (B, S, PLANE_ROWS). floor: (B,) [m].
        candidates: (Q, 2) pairs within one window, the smaller body first. kinematic, scored: (B,) bool.
        window: (B,) index of each body's window.
    """

    ground_truth: Tensor
    parameters: Tensor
    bounds: Tensor
    hull_row: Tensor
    hull_points: Tensor
    surfaces: NDArray[np.float32]
    floor: NDArray[np.float32]
    candidates: Tensor
    kinematic: Tensor
    scored: Tensor
    window: NDArray[np.int64]


def make_batch(windows: Sequence[tuple[DynamicsClip, int]], steps: int) -> WindowBatch:
    """A batch of windows (clip, first step), each of ``steps`` steps after its first; absent and static bodies are
    left out.
    """
    ground_truth, parameters, bounds, hulls, hull_rows, surfaces, floors = [], [], [], [], [], [], []
    candidates, kinematic, window = [], [], []
    count = 0
    tops = max([len(c.surfaces) for c, _ in windows] + [1])
    for number, (clip, first) in enumerate(windows):
        rows = np.flatnonzero(clip.present[first : first + steps + 1].all(axis=0) & ~clip.is_static)
        ground_truth.append(clip.states[first : first + steps + 1, rows].transpose(0, 2, 1))
        parameters.append(clip.parameters[rows].T)
        bounds.append(clip.bounds[rows])
        with_hull = np.flatnonzero(clip.has_hull[rows])
        hull_rows.append(count + with_hull)
        hulls.append(clip.hulls[rows[with_hull]])
        own = np.full((tops, PLANE_ROWS), np.nan, np.float32)
        own[: len(clip.surfaces)] = clip.surfaces
        surfaces.append(np.broadcast_to(own, (len(rows), *own.shape)))
        floors.append(np.full(len(rows), clip.floor_z, np.float32))
        kinematic.append(clip.kinematic[rows])
        window.append(np.full(len(rows), number))
        for i in range(len(rows)):
            for j in range(i + 1, len(rows)):
                small, large = (i, j) if clip.bounds[rows[i]] <= clip.bounds[rows[j]] else (j, i)
                candidates.append((count + small, count + large))
        count += len(rows)
    moves = np.concatenate(kinematic)
    return WindowBatch(
        ground_truth=torch.from_numpy(np.concatenate(ground_truth, axis=2)),
        parameters=torch.from_numpy(np.ascontiguousarray(np.concatenate(parameters, axis=1))),
        bounds=torch.from_numpy(np.concatenate(bounds)),
        hull_row=torch.from_numpy(np.concatenate(hull_rows).astype(np.int64)),
        hull_points=torch.from_numpy(
            np.ascontiguousarray(np.concatenate(hulls).reshape(-1, 3, HULL_POINTS).transpose(1, 2, 0))
        ),
        surfaces=np.concatenate(surfaces),
        floor=np.concatenate(floors),
        candidates=torch.from_numpy(np.array(candidates, dtype=np.int64).reshape(-1, 2)),
        kinematic=torch.from_numpy(moves),
        scored=torch.from_numpy(~moves),
        window=np.concatenate(window),
    )


def near_pairs(batch: WindowBatch, position: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (P,) each of the candidates near enough to touch within a step, and their numbers (P,)."""
    a, b = batch.candidates[:, 0], batch.candidates[:, 1]
    apart = position[:, a] - position[:, b]
    distance = torch.sqrt((apart * apart).sum(0))
    speed = torch.sqrt(((velocity[:, a] - velocity[:, b]) ** 2).sum(0))
    near = distance - batch.bounds[a] - batch.bounds[b] < near_distance(STEP_S) + STEP_S * speed
    return a[near], b[near], torch.nonzero(near)[:, 0]


def planes(batch: WindowBatch, position: Tensor) -> Tensor:
    """(PLANE_ROWS, B) surfaces beneath."""
    plane, _ = surfaces_beneath(position.detach().numpy(), batch.bounds.numpy(), batch.surfaces, batch.floor)
    return torch.from_numpy(plane)


def roll_out(
    model: DynamicsStep,
    batch: WindowBatch,
    steps: int,
    noise: Tensor | None = None,
    overlaps: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """States (steps, 13, B) after each step, and deviations (steps, 2, B), from the ground truth at step 0.

    Kinematic bodies follow the ground truth. ``noise``: (steps, 6, B) standard normal numbers, scaled by the
    deviations and added to the velocities; None: none. ``overlaps``: a list to which the
    depths (P,) [m] of near pairs before each step but the first are appended, beyond those of the true start.
    """
    state = batch.ground_truth[0]
    position, quaternion, linear, angular = state[:3], state[3:7], state[7:10], state[10:13]
    out, deviations = [], []
    kinematic = batch.kinematic.unsqueeze(0)
    plane_slack = torch.zeros(len(batch.bounds))
    slack = torch.zeros(len(batch.candidates))
    for step in range(1, steps + 1):
        ground_truth = batch.ground_truth[step]
        was = batch.ground_truth[step - 1]
        linear = torch.where(kinematic, (ground_truth[:3] - was[:3]) / STEP_S, linear)
        with torch.no_grad():
            a, b, number = near_pairs(batch, position, linear)
            plane = planes(batch, position)

        if step == 1:
            with torch.no_grad():
                first = model(
                    position, quaternion, linear, angular, batch.parameters, plane, a, b, batch.hull_row,
                    batch.hull_points, plane_slack, slack[number],
                )  # fmt: skip
                slow = (linear.norm(dim=0) + batch.bounds * angular.norm(dim=0)) < SLOW_START_M_S
                plane_slack = torch.clamp(-first.plane_gap, 0.0, MAX_SLACK_M)
                hovers = slow & (first.plane_gap > 0) & (first.plane_gap < HOVER_M)
                plane_slack = torch.where(hovers, -first.plane_gap, plane_slack)
                slack[number] = torch.clamp(-first.pair_gap, 0.0, MAX_SLACK_M)
        result = model(
            position, quaternion, linear, angular, batch.parameters, plane, a, b, batch.hull_row, batch.hull_points,
            plane_slack, slack[number],
        )  # fmt: skip
        if overlaps is not None and step > 1:
            overlaps.append(torch.relu(-(result.pair_gap + slack[number])))
        position = torch.where(kinematic, ground_truth[:3], result.position)
        quaternion = torch.where(kinematic, ground_truth[3:7], result.quaternion)
        linear, angular = result.linear, result.angular
        if noise is not None:
            linear = linear + noise[step - 1, :3] * result.deviation[0]
            angular = angular + noise[step - 1, 3:] * result.deviation[1]
        out.append(torch.cat([position, quaternion, linear, angular]))
        deviations.append(result.deviation)
    return torch.stack(out), torch.stack(deviations)


def pose_errors(states: Tensor, ground_truth: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Position error and displacement of the outline by the rotation error (T, B) each [m]; of round objects about
    their axis 0.
    """
    apart = states[:, :3] - ground_truth[:, :3]
    position = torch.sqrt((apart * apart).sum(1) + 1e-10)
    half = parameters[ROWS["half"]]
    cylinder = parameters[ROWS["cylinder"]][0]
    total = torch.zeros_like(position)
    steps, _, count = states.shape
    q, p = states[:, 3:7].permute(1, 0, 2).reshape(4, -1), ground_truth[:, 3:7].permute(1, 0, 2).reshape(4, -1)
    difference = (rotation_of(q) - rotation_of(p)).reshape(3, 3, steps, count)
    capsule = ((half[0] == 0) & (half[2] > 0)).to(half.dtype)
    weights = torch.stack([half[0] * (1 - cylinder), half[1] * (1 - cylinder), half[2] + 0.0 * capsule])
    total = ((difference**2).sum(0) * (weights**2).unsqueeze(1)).sum(0)
    return position, torch.sqrt(total + 1e-10)
