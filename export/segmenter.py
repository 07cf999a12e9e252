"""The segmenter as an exportable model: its tensors, its real inputs and its metric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.model import PERCEPTION_MODELS, ROOT, Axis, Feeds, Model, Quantization, Runner, Tensor

if TYPE_CHECKING:
    from torch import nn

_SEGMENTER_WORK = ROOT / "out/train/segmenter"


def _class_count(weights: Path) -> int:
    """Classes of trained weights; where there are none yet, those of the vocabulary, which grows at its end alone."""
    from safetensors import safe_open

    from training.segmenter.model import EMBEDDING
    from training.worlds.families import VOCABULARY

    if not weights.is_file():
        return len(VOCABULARY)
    with safe_open(weights, "np") as file:
        return int(file.get_slice("meaning.3.weight").get_shape()[0]) - EMBEDDING


def _segmenter_network(weights: Path) -> nn.Module:
    from safetensors.torch import load_file

    from training.segmenter.model import SegmenterNetwork

    network = SegmenterNetwork(classes=_class_count(weights))
    network.load_state_dict(load_file(weights))
    return network.eval().for_runtimes()


def _segmenter_facts(network: nn.Module) -> dict[str, str]:
    import json

    from training.segmenter.model import EMBEDDING, RuntimeNetwork
    from training.worlds.families import VOCABULARY
    from wm_perception.segmentation.learned import CHANNELS

    assert isinstance(network, RuntimeNetwork)
    return {
        "version": "1",
        "channels": json.dumps(list(CHANNELS)),
        "vocabulary": json.dumps(list(VOCABULARY[: network.classes])),
        "embedding": str(EMBEDDING),
    }


def prepared(split: str, least: int = 1) -> Any:
    """The segmenter's images (``training.worlds.dataset.Prepared``) of a split; None: fewer than ``least``.

    Args:
        split: "train", "seeds" or "families".
    """
    from training.worlds.dataset import Prepared

    folder = _SEGMENTER_WORK / f"features_{split}"
    if not (folder / "done.json").is_file():
        return None
    names = ("inputs", "masks", "clips", "classes")
    data = Prepared(*[np.load(folder / f"{name}.npy", mmap_mode="r") for name in names])
    return data if len(data.masks) >= least else None


def _segmenter_real(split: str, count: int) -> Iterator[Feeds]:
    from training.worlds.dataset import QUANTUM
    from wm_perception.segmentation.learned import INPUT

    data = prepared(split)
    if data is None:
        return
    # Evenly over all clips.
    for row in np.linspace(0, len(data.masks) - 1, min(count, len(data.masks))).astype(int):
        yield {INPUT: data.inputs[row][None].astype(np.float32) / np.float32(QUANTUM)}


def _segmenter_metric(run: Runner) -> dict[str, float]:
    from training.segmenter.evaluate import evaluate
    from wm_perception.segmentation.learned import INPUT, OUTPUTS

    def network(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        values = run({INPUT: image})
        return [values[name] for name in OUTPUTS]

    figures: dict[str, float] = {}
    for split in ("seeds", "families"):
        data = prepared(split)
        if data is None:
            continue
        found = evaluate(network, data, refined=False)
        figures[f"{split}_mask_ap"] = found.mask_ap
        figures[f"{split}_mask_ap50"] = found.mask_ap50
        figures[f"{split}_class_accuracy"] = found.class_accuracy
    return figures


def _maps() -> tuple[Tensor, ...]:
    from training.segmenter.model import EMBEDDING
    from wm_perception.segmentation.division import APART_PX
    from wm_perception.segmentation.learned import OUTPUTS

    channels = (1, 1, 2, _class_count(PERCEPTION_MODELS / "segmenter.safetensors"), EMBEDDING, len(APART_PX))
    sizes = (*3 * (("height", "width"),), *2 * (("half_height", "half_width"),), ("height", "width"))
    units = ("logit", "logit", "pixels / 32", "logit", "none", "logit")
    return tuple(
        Tensor(name, ("batch", count, *size), unit)
        for name, count, size, unit in zip(OUTPUTS, channels, sizes, units, strict=True)
    )


def make_segmenter() -> Model:
    """The segmenter, with its real inputs and its metric."""
    from wm_perception.segmentation.learned import CHANNELS, INPUT

    return Model(
        name="segmenter",
        task="wm_segmenter",
        folder=PERCEPTION_MODELS,
        network=_segmenter_network,
        inputs=(
            Tensor(
                INPUT,
                ("batch", len(CHANNELS), "height", "width"),
                "see channels",
                normalisation="wm_perception.segmentation.learned.network_input, -1..1, 0 where unknown",
            ),
        ),
        outputs=_maps(),
        # Usual: a camera of 640 x 480 at stride 2; most: one of 1280 x 720 at stride 1.
        axes={
            "batch": Axis(1, 1, 4),
            "height": Axis(32, 240, 720),
            "width": Axis(32, 320, 1280),
            "half_height": Axis(16, 120, 360),
            "half_width": Axis(16, 160, 640),
        },
        facts=_segmenter_facts,
        real=_segmenter_real,
        metric=_segmenter_metric,
        metric_key="seeds_mask_ap",
        # The last convolutions give logits and offsets over a wide range, too wide for eight bits. The context branch
        # works on one pixel, so that int8 saves nothing there.
        loads={"batch 1": {}, "4 images": {"batch": 4}},
        quantization=Quantization(
            ("Conv", "Add", "Relu"),
            ("/fine/fine.1/", "/meaning/meaning.3/", "/layers/layers.6/", "/context/"),
            ("/stem/",),
        ),
    )
