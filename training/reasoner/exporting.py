"""The trained reasoner as ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from training.common.exporting import export_onnx
from training.reasoner.model import ReasonerNetwork
from training.reasoner.options import INPUTS, OUTPUTS
from wm_perception.reasoning.features import (
    CAUSE_FEATURES,
    CONTACT_FEATURES,
    OBJECT_FEATURES,
    PAIR_FEATURES,
    RATE_HZ,
    SHAPE_FEATURES,
    STEP_FEATURES,
    VERSION,
    WINDOW,
)


def export(network: ReasonerNetwork, path: Path, facts: dict[str, str]) -> None:
    """Writes the ONNX file, for any number of things and rows; ``facts`` go into its metadata."""
    network = network.cpu().float().eval()
    examples = (
        torch.zeros(3, WINDOW, len(OBJECT_FEATURES)),
        torch.zeros(3, 3, WINDOW, len(PAIR_FEATURES)),
        torch.zeros(3, len(SHAPE_FEATURES)),
        torch.zeros(2, len(CONTACT_FEATURES)),
        torch.zeros(2, len(STEP_FEATURES)),
        torch.zeros(2, len(CAUSE_FEATURES)),
    )
    axes = {
        "objects": {0: "N"},
        "pairs": {0: "N", 1: "N"},
        "shapes": {0: "N"},
        "contacts": {0: "C"},
        "steps": {0: "M"},
        "causes": {0: "Q"},
        "pair_probabilities": {0: "N", 1: "N"},
        "object_probabilities": {0: "N"},
        "prior": {0: "N"},
        "contact_evidence": {0: "C"},
        "step_evidence": {0: "M"},
        "cause": {0: "Q"},
    }
    facts = {
        "task": "wm_reasoner",
        "version": str(VERSION),
        "rate_hz": str(RATE_HZ),
        "window": str(WINDOW),
        "scales": json.dumps([round(float(v), 6) for v in network.scales]),
        **facts,
    }
    export_onnx(network, path, examples, INPUTS, OUTPUTS, axes, facts)
