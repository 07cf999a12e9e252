"""torch tensors as a number type of the contact step's formulas (``wm_dynamics.contact_step.numbers``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wm_dynamics.contact_step import numbers


def _where(mask: Tensor, one: Tensor | float, other: Tensor | float) -> Tensor:
    given = [v for v in (one, other) if isinstance(v, Tensor)]
    kind = given[0].dtype if given else torch.get_default_dtype()
    first, second = (v if isinstance(v, Tensor) else torch.tensor(v, dtype=kind) for v in (one, other))
    return torch.where(mask, first, second)


def _at_least(value: Tensor, low: Tensor | float) -> Tensor:
    if isinstance(low, Tensor):
        return torch.maximum(value, low)
    return torch.relu(value) if low == 0.0 else torch.clamp(value, min=low)


def _at_most(value: Tensor, high: Tensor | float) -> Tensor:
    return torch.minimum(value, high) if isinstance(high, Tensor) else torch.clamp(value, max=high)


def _greatest(values: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    index = values.argmax(0).view(1, 1, -1).expand(3, 1, -1)
    return tuple(v.gather(1, index) for v in vectors)


def _farthest(points: Tensor, directions: Tensor, tolerance: float) -> Tensor:
    reach = (directions.unsqueeze(2) * points.unsqueeze(1)).sum(0)  # (E, N, B)
    best = (reach >= reach.amax(1, keepdim=True) - tolerance).to(points.dtype)
    best = best / best.sum(1, keepdim=True)
    return (best.unsqueeze(0) * points.unsqueeze(1)).sum(2)


def _stack(*values: Tensor) -> Tensor:
    if any(v.shape != values[0].shape for v in values):
        # Added to zeros: to expand them, an exported graph works their shapes out first, in ten nodes each.
        zeros = torch.zeros_like(max(values, key=Tensor.numel))
        values = tuple(v if v.shape == zeros.shape else v + zeros for v in values)
    return torch.stack(values)


def _scatter_add(values: Tensor, index: Tensor, more: Tensor) -> Tensor:
    return values.scatter_add(-1, index.expand(*(int(n) for n in more.shape[:-1]), -1), more)


numbers.exp.register(Tensor, torch.exp)
numbers.log.register(Tensor, torch.log)
numbers.tanh.register(Tensor, torch.tanh)
numbers.sqrt.register(Tensor, torch.sqrt)
numbers.sigmoid.register(Tensor, torch.sigmoid)
numbers.sine_cosine.register(Tensor, lambda value: (torch.sin(value), torch.cos(value)))
numbers.where.register(Tensor, _where)
numbers.flag.register(Tensor, lambda mask, like: mask.to(like.dtype))
numbers.at_least.register(Tensor, _at_least)
numbers.at_most.register(Tensor, _at_most)
numbers.most.register(Tensor, lambda values: values.amax(0, keepdim=True))
numbers.least.register(Tensor, lambda values: values.amin(0, keepdim=True))
numbers.greatest.register(Tensor, _greatest)
numbers.stack.register(Tensor, _stack)
numbers.join.register(Tensor, lambda *values, axis=0: torch.cat(values, axis))
numbers.parts.register(Tensor, lambda values, axis=0: values.unbind(axis))
numbers.farthest.register(Tensor, _farthest)
numbers.dense.register(Tensor, lambda matrix, bias, values: matrix @ values + bias)
numbers.gather.register(Tensor, lambda values, index: values.index_select(-1, index))
numbers.scatter_add.register(Tensor, _scatter_add)


@numbers.without_gradient.register
def _without_gradient(_: Tensor) -> Any:
    return torch.no_grad()
