"""The reasoner that a configuration names, loaded and checked before the first frame."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wm_perception.models.choice import chosen
from wm_perception.models.contract import Tensor, check_tensors, check_values, load, probe
from wm_perception.models.files import ModelError
from wm_perception.types import PerceptionConfig

if TYPE_CHECKING:
    from wm_perception.reasoning.reasoner import Reasoner

REASONER_TASK = "wm_reasoner"


def reasoner_contract() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of the reasoner: N objects, C contacts, M steps of motion, Q candidate causes."""
    from wm_perception.reasoning import features

    window = features.WINDOW
    return (
        Tensor("objects", ("N", window, len(features.OBJECT_FEATURES))),
        Tensor("pairs", ("N", "N", window, len(features.PAIR_FEATURES))),
        Tensor("shapes", ("N", len(features.SHAPE_FEATURES))),
        Tensor("contacts", ("C", len(features.CONTACT_FEATURES))),
        Tensor("steps", ("M", len(features.STEP_FEATURES))),
        Tensor("causes", ("Q", len(features.CAUSE_FEATURES))),
    ), (
        Tensor("pair_probabilities", ("N", "N", 3)),
        Tensor("object_probabilities", ("N", 4)),
        Tensor("prior", ("N", 6)),
        Tensor("contact_evidence", ("C", 6)),
        Tensor("step_evidence", ("M", 6)),
        Tensor("cause", ("Q",)),
    )


def load_learned_reasoner(
    path: str | Path,
    threads: int | None = None,
    config: PerceptionConfig | None = None,
    backend: str = "onnxruntime_cpu",
) -> Reasoner:
    """The trained reasoner.

    Raises:
        ModelError: the file is not such a model.
    """
    from wm_perception.reasoning.reasoner import Reasoner

    session = load(path, threads, backend)
    task = session.metadata.get("task", "")
    if task != REASONER_TASK:
        found = repr(task) if task else f"none (inputs {', '.join(repr(s.name) for s in session.inputs)})"
        raise ModelError(f"{path}: metadata 'task': got {found}, expected {REASONER_TASK!r}")
    inputs, outputs = reasoner_contract()
    check_tensors(path, "input", session.inputs, inputs)
    check_tensors(path, "output", session.outputs, outputs)
    # With two sizes, as an export may have kept the size of its example input.
    for n, c, m, q in ((1, 1, 1, 1), (4, 3, 2, 5)):
        sizes: dict[str, int] = {"N": n, "C": c, "M": m, "Q": q}
        feeds = {t.name: np.zeros([s if isinstance(s, int) else sizes[s] for s in t.shape], np.float32) for t in inputs}
        check_values(path, probe(path, session, feeds), outputs, dict(sizes))
    text = session.metadata.get("scales", "[1, 1, 1]")
    try:
        scales = np.asarray(json.loads(text), dtype=np.float64)
    except ValueError:
        scales = np.zeros(0)
    if scales.shape != (3,) or not (np.isfinite(scales) & (scales > 0.0)).all():
        raise ModelError(f"{path}: metadata 'scales': got {text[:80]!r}, expected three positive numbers")

    # A function, not the bound method: a copy of the pipeline shares the session.
    def network(feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        return session.run(feeds)

    return Reasoner(config or PerceptionConfig(), network, scales.tolist())


def make_reasoner(config: PerceptionConfig) -> Reasoner:
    """The reasoner that a configuration names; see ``chosen``.

    Raises:
        ModelError: its model is absent or breaks its contract.
    """
    from wm_perception.reasoning.reasoner import Reasoner

    choice = chosen("reasoner", config)
    if choice.path is None:
        return Reasoner(config)
    # The tensors are small: more threads make it slower.
    return load_learned_reasoner(choice.path, 1, config, choice.backend)
