"""The trained reasoner as ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from training.common.exporting import export_onnx
from training.reasoner.model import ReasonerNetwork
from wm_perception.models.reasoner import reasoner_contract
from wm_perception.reasoning.features import RATE_HZ, VERSION, WINDOW


def export(network: ReasonerNetwork, path: Path, facts: dict[str, str]) -> None:
    """Writes the ONNX file, for any number of objects and rows; ``facts`` go into its metadata."""
    network = network.cpu().float().eval()
    inputs, outputs = reasoner_contract()
    sizes = {"N": 3, "C": 2, "M": 2, "Q": 2}
    examples = tuple(torch.zeros([s if isinstance(s, int) else sizes[s] for s in t.shape]) for t in inputs)
    axes = {t.name: {k: s for k, s in enumerate(t.shape) if isinstance(s, str)} for t in (*inputs, *outputs)}
    facts = {
        "task": "wm_reasoner",
        "version": str(VERSION),
        "rate_hz": str(RATE_HZ),
        "window": str(WINDOW),
        "scales": json.dumps([round(float(v), 6) for v in network.scales]),
        **facts,
    }
    export_onnx(network, path, examples, [t.name for t in inputs], [t.name for t in outputs], axes, facts)
