"""The trained segmenter as ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from training.common.exporting import export_onnx
from training.segmenter.model import EMBEDDING, SegmenterNetwork
from training.worlds.families import VOCABULARY
from wm_perception.segmentation.learned import CHANNELS, INPUT, OUTPUTS


def export(network: SegmenterNetwork, path: Path, facts: dict[str, str]) -> None:
    """Writes the ONNX file: any batch, any even image size; ``facts`` go into its metadata."""
    plain = network.cpu().float().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(2, len(CHANNELS), 240, 320)
    axes = {INPUT: {0: "batch", 2: "height", 3: "width"}}
    for name in OUTPUTS:
        half = name in ("classes", "embedding")
        axes[name] = {0: "batch", 2: "half_height" if half else "height_", 3: "half_width" if half else "width_"}
    facts = {
        "task": "wm_segmenter",
        "version": "1",
        "channels": json.dumps(list(CHANNELS)),
        "vocabulary": json.dumps(list(VOCABULARY)),
        "embedding": str(EMBEDDING),
        **facts,
    }
    export_onnx(plain.for_runtimes(), path, (example,), (INPUT,), OUTPUTS, axes, facts)
