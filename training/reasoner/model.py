"""The reasoner's network: contacts and events, properties from evidence, and causes.

Three parts, small enough for a robot's one core:

* Interaction: a token per object and one per ordered pair, each from a window of ``WINDOW`` steps; two rounds in which
  pairs get messages from their two objects and objects attend to their pairs (attention logits come from the geometry
  of the pair). Then events and touch. Nothing depends on the order of the objects.
* Evidence: each contact and each step of sliding gives a Gaussian over mass, friction and restitution, with a learned
  mean and precision; multiplied with a prior from size and shape, so that certainty only grows.
* Causes: whether a contact caused an event, from how its influence spread
  (``wm_perception.reasoning.causes.cause_row``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_perception.reasoning.features import (
    CAUSE_FEATURES,
    CONTACT_FEATURES,
    OBJECT_EVENTS,
    OBJECT_FEATURES,
    PAIR_EVENTS,
    PAIR_FEATURES,
    SHAPE_FEATURES,
    STEP_FEATURES,
    WINDOW,
)

OBJECT_WIDTH, PAIR_WIDTH, HEADS, ROUNDS = 96, 64, 4, 2
"""Sizes of the shipped weights; larger ones cost time on the robot."""
PROPERTIES = 3
"""Properties that are estimated: log mass, friction, restitution."""
DROPOUT = 0.1
"""Probability that a hidden value is dropped in training; more regularizes more."""


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers, with dropout, because there are few contacts to learn from."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden, outputs),
    )


class Round(nn.Module):
    """Pairs get messages from their objects, then objects attend to their pairs."""

    def __init__(self) -> None:
        super().__init__()
        d, e = OBJECT_WIDTH, PAIR_WIDTH
        self.object_norm, self.pair_norm = nn.LayerNorm(d), nn.LayerNorm(e)
        self.first, self.second, self.own = nn.Linear(d, e), nn.Linear(d, e), nn.Linear(e, e)
        self.back = nn.Linear(e, e)
        self.pair_out = nn.Linear(e, e)
        self.attention, self.value = nn.Linear(e, HEADS), nn.Linear(e, d)
        self.object_out = nn.Sequential(nn.Linear(2 * d, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, objects: Tensor, pairs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Objects (B, N, D), pairs (B, N, N, E), mask (B, N, N) of pairs that exist."""
        h, e = self.object_norm(objects), self.pair_norm(pairs)
        mixed = self.own(e) + self.back(e.transpose(1, 2)) + self.first(h)[:, :, None] + self.second(h)[:, None]
        pairs = pairs + self.pair_out(nn.functional.gelu(mixed))
        e = nn.functional.gelu(pairs)
        logits = self.attention(e).masked_fill(~mask[..., None], -1e4)
        weight = torch.softmax(logits, dim=2) * mask[..., None].to(pairs.dtype)
        b, n = objects.shape[0], objects.shape[1]
        value = self.value(e).reshape(b, n, n, HEADS, OBJECT_WIDTH // HEADS)
        attended = (weight[..., None] * value).sum(dim=2).reshape(b, n, OBJECT_WIDTH)
        return objects + self.object_out(torch.cat([h, attended], dim=-1)), pairs


class ReasonerNetwork(nn.Module):
    """The three parts that the module describes.

    Attributes:
        scales: (3,) factors of the standard deviations of the properties, set by calibration.
    """

    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.object_in = nn.Sequential(
            nn.Linear(WINDOW * len(OBJECT_FEATURES), OBJECT_WIDTH), nn.GELU(), nn.Linear(OBJECT_WIDTH, OBJECT_WIDTH)
        )
        self.pair_in = nn.Sequential(
            nn.Linear(WINDOW * len(PAIR_FEATURES), PAIR_WIDTH), nn.GELU(), nn.Linear(PAIR_WIDTH, PAIR_WIDTH)
        )
        self.rounds = nn.ModuleList(Round() for _ in range(ROUNDS))
        self.pair_head = perceptron(2 * PAIR_WIDTH + 2 * OBJECT_WIDTH, PAIR_WIDTH, len(PAIR_EVENTS) + 1)
        self.object_head = perceptron(OBJECT_WIDTH, OBJECT_WIDTH, len(OBJECT_EVENTS))
        self.prior = perceptron(len(SHAPE_FEATURES), 32, 2 * PROPERTIES)
        self.contact = perceptron(len(CONTACT_FEATURES), 64, 2 * PROPERTIES)
        self.step = perceptron(len(STEP_FEATURES), 64, 2 * PROPERTIES)
        self.cause = perceptron(len(CAUSE_FEATURES), 64, 1)
        self.register_buffer("scales", torch.ones(PROPERTIES))

    def interaction(self, objects: Tensor, pairs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of pair events and touch (B, N, N, 3), symmetric, and of object events (B, N, 4).

        Args:
            objects: (B, N, W, Fo); pairs: (B, N, N, W, Fp); mask: (B, N, N) bool, pairs of different existing objects.
        """
        h = self.object_in(objects.flatten(2))
        e = self.pair_in(pairs.flatten(3))
        for layer in self.rounds:
            h, e = layer(h, e, mask)
        both = h[:, :, None] + h[:, None]
        apart = torch.abs(h[:, :, None] - h[:, None])
        sum_, difference = e + e.transpose(1, 2), torch.abs(e - e.transpose(1, 2))
        return self.pair_head(torch.cat([sum_, difference, both, apart], dim=-1)), self.object_head(h)

    @staticmethod
    def gaussian(values: Tensor) -> tuple[Tensor, Tensor]:
        """Means (..., 3) and precisions (..., 3) of a head's output (..., 6)."""
        return values[..., :PROPERTIES], torch.exp(values[..., PROPERTIES:].clamp(-7.0, 6.0))

    def forward(
        self, objects: Tensor, pairs: Tensor, shapes: Tensor, contacts: Tensor, steps: Tensor, causes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One instant on the robot: every probability and Gaussian, ready to use.

        Args:
            objects: (N, W, Fo); pairs: (N, N, W, Fp); shapes: (N, Fs); contacts: (C, Fc); steps: (M, Fm);
                causes: (Q, Fq).

        Returns:
            pair_probabilities (N, N, 3): contact, separation, touching; object_probabilities (N, 4);
            prior (N, 6), contact_evidence (C, 6), step_evidence (M, 6): means and precisions; cause (Q,): probability.
        """
        # Not torch.eye: TensorRT has no EyeLike of a free size.
        number = torch.arange(objects.shape[0], device=objects.device)
        eye = number[:, None] == number[None]
        pair, single = self.interaction(objects[None], pairs[None], (~eye)[None])

        def with_precision(values: Tensor) -> Tensor:
            mean, precision = self.gaussian(values)
            return torch.cat([mean, precision], dim=-1)

        return (
            torch.sigmoid(pair[0]),
            torch.sigmoid(single[0]),
            with_precision(self.prior(shapes)),
            with_precision(self.contact(contacts)),
            with_precision(self.step(steps)),
            torch.sigmoid(self.cause(causes))[..., 0],
        )
