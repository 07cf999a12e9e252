"""Trained networks as files: weights, and ONNX with facts in its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

OPSET = 18
"""Of the ONNX operators: 18 is read by ONNX Runtime since 1.14 and by TensorRT since 10."""


def export_onnx(
    network: nn.Module,
    path: Path,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    facts: Mapping[str, str],
) -> None:
    """Write the ONNX file, checked.

    Args:
        network: in evaluation mode. examples: inputs of any allowed size.
        axes: names of the sizes that are free, by tensor and axis.
        facts: what goes into the file's metadata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network,
        examples,
        path,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes=axes,
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def save_weights(network: nn.Module, path: Path) -> None:
    """The weights alone, as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, path)
