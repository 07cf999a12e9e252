"""Model cards say what they must, and nothing that the files do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_files import learned_model
from training.common.model_card import WorstFrame, duration, number, write_model_card
from wm_perception.models.files import sha256

FACTS: dict[str, Any] = {
    "title": "Segmenter",
    "summary": "Finds objects.",
    "architecture": "1x1 convolutions",
    "parameters": 230,
    "license": "Apache-2.0",
    "data": {
        "command": "make data",
        "seeds": "0 to 11",
        "about": "Tables in MuJoCo.",
        "splits": {"train": {"clips": 1200, "images": 9600}, "seeds": {"clips": 60}},
    },
    "training": {"command": "make train-segmenter", "seed": 7000, "seconds": 5400.0, "device": "cpu"},
    "metrics": {"seeds": {"mask_ap50": 0.93, "error_m": 0.012}, "families": {"mask_ap50": float("nan")}},
    "aims": {"seeds": {"mask_ap50": 0.92, "error_m": 0.008}},
    "baseline": {"seeds": {"mask_ap50": np.float64(0.51)}},
    "directions": {"error_m": "down"},
    "limits": ["Objects under 8 mm."],
}


def test_a_card_has_the_facts_pictures_and_checksums(tmp_path: Path):
    model = learned_model(tmp_path / "segmenter.onnx")
    (tmp_path / "segmenter.safetensors").write_bytes(b"weights")
    panels = dict.fromkeys(("color", "ground truth", "found"), np.zeros((24, 32, 3), np.uint8))
    card = write_model_card(
        tmp_path,
        "segmenter",
        FACTS,
        [{"step": 0, "validation": 2.0, "centre": 1.0}, {"step": 500, "validation": 1.0, "centre": 0.5}],
        [WorstFrame(f"seeds {k}", "IoU 0.3", panels) for k in range(3)],
    )
    text = card.read_text()
    assert "| mask_ap50 | **0.93** | ≥ 0.92 | 0.51 | - |" in text
    assert "| error_m | 0.012 | ≤ 0.008 | - | - |" in text
    assert "| seed | 7000 |" in text and "| time | 90 min |" in text and "`make data`" in text
    assert sha256(model) in text and "| input | `image` | float32 | (B, 10, h, w) |" in text
    assert "segmenter_curves.png" in text and "The 3 worst frames" in text and "- Objects under 8 mm." in text
    assert (tmp_path / "segmenter_curves.png").stat().st_size > 1000
    assert (tmp_path / "segmenter_worst.png").stat().st_size > 1000
    facts = json.loads((tmp_path / "segmenter.json").read_text())
    assert facts["files"]["segmenter.onnx"]["sha256"] == sha256(model)
    assert facts["metrics"]["families"]["mask_ap50"] is None and facts["baseline"]["seeds"]["mask_ap50"] == 0.51
    assert facts["onnx"]["metadata"]["task"] == "wm_segmenter" and facts["onnx"]["opset"] == 17


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="facts lack limits"):
        write_model_card(tmp_path, "segmenter", {**FACTS, "limits": []})
    with pytest.raises(ValueError, match=r"no .*/segmenter\.onnx"):
        write_model_card(tmp_path, "segmenter", FACTS)


def test_figures_are_for_people():
    assert [number(v) for v in (None, 0.12345, 12.345, 12345.6, 4321, "x")] == [
        "-", "0.123", "12.35", "12,346", "4,321", "x",
    ]  # fmt: skip
    assert [duration(s) for s in (59.6, 600, 7500)] == ["60 s", "10 min", "2 h 5 min"]
