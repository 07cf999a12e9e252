"""Shipped models by name."""

from __future__ import annotations

from typing import Any

from wm_perception.models.files import model_path
from wm_perception.models.reasoner import load_learned_reasoner
from wm_perception.models.segmenter import load_learned_segmenter


def load_shipped(name: str) -> Any:
    """Load and check a shipped model (``SHIPPED``) as perception does.

    Raises:
        ModelError: it is absent, or breaks its contract.
    """
    path = model_path(name)
    return load_learned_segmenter(path) if name == "segmenter" else load_learned_reasoner(path)
