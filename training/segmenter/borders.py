"""Training of the head that says which neighboring pixels are of two objects, on the features of a trained network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from training.common import trainer as common
from training.segmenter.model import BorderHead, SegmenterNetwork
from training.segmenter.options import Options

RATE = 4e-3
"""Highest learning rate. The head is small, and nothing else is trained."""
TWO_WEIGHT = 3.0
"""Further weight of neighbors that are of two objects; larger divides more."""


class BorderTrainer(common.Trainer[BorderHead, tuple[NDArray[Any], ...]]):
    """Trains the head of a network whose other weights stay as they are.

    Args:
        options: of the network's training; steps: of this one.
    """

    recipe = common.Recipe(weight_decay=0.01, clip=5.0, decay=0.99, warm_up=50, floor=0.01)

    def __init__(self, network: SegmenterNetwork, options: Options, steps: int, device: torch.device) -> None:
        # All of its steps see stacks, as the settling steps of the network.
        options = replace(options, steps=steps, settling=steps, rate=RATE)
        self.whole = network.to(device).eval()
        features = network.head.in_channels
        super().__init__(
            options,
            lambda: BorderHead(features).to(device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            device,
        )
        self.half = device.type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def losses(self, batch: tuple[NDArray[Any], ...]) -> dict[str, Tensor]:
        """The loss of the head in training."""
        return {"apart": self.loss_of(self.network.train(), batch)}

    def loss_of(self, head: BorderHead, batch: tuple[NDArray[Any], ...]) -> Tensor:
        """Cross entropy of a head, the mean over the distances."""
        image = torch.from_numpy(batch[0]).to(self.device).to(memory_format=torch.channels_last)
        truth = torch.from_numpy(batch[-1]).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                *_, features = self.whole.features(image)
            apart = head(image, features).float()
        two = (truth == 1).float()
        weight = (truth < 2).float() * (1.0 + TWO_WEIGHT * two)
        each = functional.binary_cross_entropy_with_logits(apart, two, weight=weight, reduction="none")
        loss: Tensor = (each.sum((0, 2, 3)) / weight.sum((0, 2, 3)).clamp(min=1.0)).mean()
        return loss

    @torch.no_grad()
    def watched(self, batches: list[tuple[NDArray[Any], ...]]) -> float:
        """Loss of the moving average on batches that are not trained on."""
        return float(np.mean([float(self.loss_of(self.average.eval(), batch)) for batch in batches]))
