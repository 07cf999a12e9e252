"""The reasoner as an exportable model: its tensors, its real inputs and its metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.model import PERCEPTION_MODELS, ROOT, Axis, Feeds, Model, Runner, Tensor

if TYPE_CHECKING:
    from torch import nn

_REASONER_DATA = ROOT / "out/data/reasoner"
_REASONER_CLIPS = 12
"""Held-out clips of each split for the metric, enough to detect a precision that fails. Larger takes longer."""


def _reasoner_network(weights: Path) -> nn.Module:
    from safetensors.torch import load_file

    from training.reasoner.model import ReasonerNetwork

    network = ReasonerNetwork()
    network.load_state_dict(load_file(weights))
    return network.eval()


def _reasoner_facts(network: nn.Module) -> dict[str, str]:
    import json

    from wm_perception.reasoning.features import RATE_HZ, VERSION, WINDOW

    scales: Any = network.scales
    return {
        "version": str(VERSION),
        "rate_hz": str(RATE_HZ),
        "window": str(WINDOW),
        "scales": json.dumps([round(float(v), 6) for v in scales]),
    }


def _labeled_clips(split: str, clips: int) -> list[Any]:
    from training.reasoner.data import read_shard

    labeled_clips: list[Any] = []
    for shard in sorted((_REASONER_DATA / split).glob("*.npz")):
        if len(labeled_clips) >= clips:
            break
        labeled_clips += read_shard(shard)
    return labeled_clips[:clips]


def _watch_labeled_clips(labeled_clips: Sequence[Any], run: Runner) -> dict[str, float]:
    """Figures of the reasoner's card on these clips, with ``run`` in place of the network."""
    import json

    from training.reasoner.card import Result, evaluate_clip
    from wm_perception.reasoning.reasoner import Reasoner
    from wm_perception.types import PerceptionConfig

    facts = _reasoner_facts(_reasoner_network(PERCEPTION_MODELS / "reasoner.safetensors"))
    reasoner = Reasoner(PerceptionConfig(), run, json.loads(facts["scales"]))
    result = Result()

    def renewed() -> Reasoner:
        reasoner.reset()
        return reasoner

    for k, labeled in enumerate(labeled_clips):
        evaluate_clip(renewed, labeled, k, result)
    return result.figures()


def _reasoner_real(split: str, count: int) -> Iterator[Feeds]:
    labeled_clips = _labeled_clips(split, 1 + count // 40)
    if not labeled_clips:
        return
    import torch

    # The inputs that the network gets while the reasoner processes clips.
    network = _reasoner_network(PERCEPTION_MODELS / "reasoner.safetensors")
    described = make_reasoner()
    fed: list[dict[str, NDArray[Any]]] = []

    def watched(feeds: Feeds) -> dict[str, NDArray[Any]]:
        fed.append({k: np.array(v) for k, v in feeds.items()})
        with torch.inference_mode():
            values = network(*[torch.from_numpy(feeds[t.name]) for t in described.inputs])
        return {t.name: v.numpy() for t, v in zip(described.outputs, values, strict=True)}

    _watch_labeled_clips(labeled_clips, watched)
    for row in np.linspace(0, len(fed) - 1, min(count, len(fed))).astype(int):
        yield fed[row]


def _reasoner_metric(run: Runner) -> dict[str, float]:
    figures: dict[str, float] = {}
    for split in ("seeds", "families"):
        labeled_clips = _labeled_clips(split, _REASONER_CLIPS)
        if labeled_clips:
            found = _watch_labeled_clips(labeled_clips, run)
            figures |= {f"{split}_{k}": found[k] for k in ("events_f1", "caused_f1", "property_spearman")}
    return figures


def make_reasoner() -> Model:
    """The reasoner, with its real inputs and its metric."""
    from wm_perception.models.reasoner import reasoner_contract

    inputs, outputs = reasoner_contract()
    features = (f"{kind}_FEATURES" for kind in ("OBJECT", "PAIR", "SHAPE", "CONTACT", "STEP", "CAUSE"))
    units = (
        "probability",
        "probability",
        "means, then precisions, of log mass, friction, restitution",
        "as prior",
        "as prior",
        "probability",
    )
    return Model(
        name="reasoner",
        task="wm_reasoner",
        folder=PERCEPTION_MODELS,
        network=_reasoner_network,
        inputs=tuple(
            Tensor(t.name, t.shape, f"see wm_perception.reasoning.features.{names}", normalisation="in the features")
            for t, names in zip(inputs, features, strict=True)
        ),
        outputs=tuple(Tensor(t.name, t.shape, unit) for t, unit in zip(outputs, units, strict=True)),
        axes={"N": Axis(1, 8, 64), "C": Axis(0, 4, 256), "M": Axis(0, 8, 64), "Q": Axis(0, 16, 96)},
        facts=_reasoner_facts,
        real=_reasoner_real,
        metric=_reasoner_metric,
        metric_key="seeds_events_f1",
        gpu=False,
        loads={"batch 1": {}, "24 things": {"N": 24, "C": 16, "M": 24, "Q": 96}},
    )
