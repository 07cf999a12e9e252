"""The segmenter that a configuration names, loaded and checked before the first frame."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wm_core.inference.backends import GPU_BACKENDS
from wm_core.inference.base import InferenceError
from wm_perception.models.choice import REFUSED_BACKENDS, SEGMENTER_TASK, chosen, threads
from wm_perception.models.contract import Tensor, check_tensors, check_values, load, names_in, probe, shape_text
from wm_perception.models.files import ModelError
from wm_perception.segmentation.geometric import GeometricSegmenter
from wm_perception.types import PerceptionConfig, Segmenter

log = logging.getLogger(__name__)

_EMBEDDING_SIZE = 16
"""Numbers of an embedding, as the network was trained (training/segmenter)."""


def learned_contract(channels: int, classes: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of wm's own segmenter; h and w are even, h2 and w2 half of them."""
    from wm_perception.segmentation.division import APART_PX
    from wm_perception.segmentation.learned import INPUT, OUTPUTS

    full, half = ("h", "w"), ("h2", "w2")
    sizes = ((1, *full), (1, *full), (2, *full), (classes, *half), (_EMBEDDING_SIZE, *half), (len(APART_PX), *full))
    return (Tensor(INPUT, ("B", channels, *full)),), tuple(
        Tensor(name, ("B", *size)) for name, size in zip(OUTPUTS, sizes, strict=True)
    )


def load_learned_segmenter(
    path: str | Path, threads: int | None = None, max_height_m: float = 0.6, backend: str = "onnxruntime_cpu"
) -> Segmenter:
    """wm's own trained segmenter, for objects up to ``max_height_m`` [m] over their support.

    Raises:
        ModelError: the file is not such a model.
    """
    from wm_perception.segmentation.learned import CHANNELS, INPUT, OUTPUTS, LearnedSegmenter

    session = load(path, threads, backend)
    task = session.metadata.get("task", "")
    if task != SEGMENTER_TASK:
        found = repr(task) if task else f"none (inputs {', '.join(repr(s.name) for s in session.inputs)})"
        raise ModelError(
            f"{path}: metadata 'task': got {found}, expected {SEGMENTER_TASK!r}; a segmenter of your own is used by "
            "segmenter: onnx"
        )
    vocabulary = names_in(path, session.metadata, "vocabulary")
    channels = names_in(path, session.metadata, "channels")
    if channels != CHANNELS:
        raise ModelError(f"{path}: metadata 'channels': got {', '.join(channels)}; expected {', '.join(CHANNELS)}")
    inputs, outputs = learned_contract(len(CHANNELS), len(vocabulary))
    check_tensors(path, "input", session.inputs, inputs)
    check_tensors(path, "output", session.outputs, outputs)
    if any(isinstance(size, int) for size in session.inputs[0].shape[2:]):
        raise ModelError(
            f"{path}: input {INPUT!r}: got fixed sizes {shape_text(session.inputs[0].shape)}, expected {inputs[0]} "
            "with h and w left open, since cameras differ"
        )
    # With two sizes, as an export may have kept the size of its example input.
    for h, w in ((64, 96), (50, 42)):
        values = probe(path, session, {INPUT: np.zeros((1, len(CHANNELS), h, w), np.float32)})
        check_values(path, values, outputs, {"B": 1, "h": h, "w": w, "h2": h // 2, "w2": w // 2})

    if backend in GPU_BACKENDS:
        # With the usual size, so that kernels and graphs exist at the first frame.
        try:
            session.warm_up({INPUT: (1, len(CHANNELS), 240, 320)})
        except InferenceError as error:
            raise ModelError(str(error)) from error

    def network(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        values = session.run({INPUT: image})
        return tuple(values[name] for name in OUTPUTS)

    return LearnedSegmenter(network, vocabulary, max_height_m)


def make_segmenter(config: PerceptionConfig) -> Segmenter:
    """The segmenter that a configuration names; see ``chosen``.

    Raises:
        ModelError: its model is absent or breaks its contract.
    """
    choice = chosen("segmenter", config)
    if choice.path is None:
        return GeometricSegmenter()
    if choice.kind == "onnx":
        from wm_perception.segmentation.onnx import OnnxSegmenter

        return OnnxSegmenter(choice.path, threads(config), config.min_pixels, choice.backend)
    try:
        return load_learned_segmenter(choice.path, threads(config), config.max_height_m, choice.backend)
    except ModelError as error:
        if config.inference_backend != "auto" or choice.backend not in GPU_BACKENDS:
            raise
        log.warning("%s does not run the segmenter, going on without it: %s", choice.backend, error)
        REFUSED_BACKENDS[choice.backend] = str(error)
        return make_segmenter(config)
