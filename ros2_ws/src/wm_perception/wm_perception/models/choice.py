"""Which model, runtime and precision a configuration comes down to on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wm_core.inference.backends import GPU_BACKENDS, choose
from wm_core.inference.base import InferenceError, onnx_metadata
from wm_core.inference.onnx_runtime import int8_is_fast
from wm_perception.models.contract import load
from wm_perception.models.files import ModelError, model_path, sha256, shipped_model
from wm_perception.types import PerceptionConfig

SEGMENTER_TASK = "wm_segmenter"
"""Metadata ``task`` of wm's own segmenter; any other model is a user's own."""


@dataclass(frozen=True)
class Choice:
    """What a configuration comes down to here: ``kind`` is learned, geometric or onnx; ``path`` None for geometric.

    ``backend`` runs it; ``precision`` is that of the file; ``why``: of both, in words.
    """

    kind: str
    path: Path | None = None
    backend: str = ""
    precision: str = "fp32"
    why: str = ""

    def __str__(self) -> str:
        if not self.path:
            return self.kind
        return (
            f"{self.kind}, {self.path} (sha256 {sha256(self.path)[:12]}), {self.precision} on {self.backend} "
            f"({self.why})"
        )


def chosen(name: str, config: PerceptionConfig) -> Choice:
    """Which model is used for ``segmenter`` or ``reasoner``; the file is there, but not looked into.

    ``auto`` means the shipped weights, and geometry only where none are installed: bad weights are refused, not passed
    over. With a file, ``auto`` takes a segmenter for what its metadata says it is.

    Raises:
        ModelError: the file is not there.
    """
    kind, given = getattr(config, name), getattr(config, f"{name}_model")
    if kind == "geometric" or (kind == "auto" and not given and shipped_model(name) is None):
        return Choice("geometric")
    path = model_path(name, given)
    if kind == "auto" and name == "segmenter" and given:
        kind = "learned" if load(path).metadata.get("task") == SEGMENTER_TASK else "onnx"
    kind = "onnx" if kind == "onnx" else "learned"
    try:
        # The reasoner's tensors are small: bringing them to a GPU takes longer than running it here. Of a segmenter
        # of one's own it is not known whether a GPU runtime takes it: that has to be asked for.
        gpu = name == "segmenter" and kind == "learned"
        backend, reasons = choose(config.inference_backend, path, gpu, REFUSED_BACKENDS)
    except InferenceError as error:
        raise ModelError(f"inference_backend: {error}") from error
    if name == "reasoner" or given:
        return Choice(kind, path, backend, "the file's precision", reasons[-1])
    precision, why = _precision(config.inference_precision, backend, path)
    variant = path if precision == "fp32" else path.with_name(f"{path.stem}_{precision}.onnx")
    return Choice(kind, variant, backend, precision, f"{reasons[-1]}; {why}")


REFUSED_BACKENDS: dict[str, str] = {}
"""Backends that turned out not to run a model here, with the reason."""


def _precision(wanted: str, backend: str, path: Path) -> tuple[str, str]:
    """The precision of a shipped model on a backend, and why.

    Raises:
        ModelError: one was asked for whose file is not there, or that is not for this backend.
    """
    on_gpu = backend in GPU_BACKENDS
    fast, cpu = int8_is_fast()
    if wanted != "auto":
        file = path if wanted == "fp32" else path.with_name(f"{path.stem}_{wanted}.onnx")
        if not file.is_file():
            raise ModelError(f"inference_precision: got {wanted!r}, but there is no {file}; run: make export")
        if wanted == "int8" and (on_gpu or not fast):
            where = f"{backend} takes another int8 file (docs/engines.md)" if on_gpu else cpu
            raise ModelError(f"inference_precision: got 'int8', expected auto, fp32 or fp16 here: {where}")
        return wanted, f"{wanted} was asked for"
    best, why = ("fp16", "on a GPU") if on_gpu else ("int8", cpu) if fast else ("fp32", cpu)
    variant = path.with_name(f"{path.stem}_{best}.onnx")
    if best != "fp32" and not variant.is_file():
        return "fp32", f"no {variant.name} beside it"
    if best != "fp32" and _weights(variant) != _weights(path):
        return "fp32", f"{variant.name} is of other weights; run: make export ARGS=--install"
    return best, why


def _weights(path: Path) -> str:
    """SHA-256 of the weights that a file was exported from, as it says itself; its name where it says nothing."""
    try:
        return onnx_metadata(path).get("weights_sha256") or path.name
    except InferenceError:
        return path.name


def threads(config: PerceptionConfig) -> int:
    """Of a network: as configured, but no more than the machine has."""
    return max(1, min(config.inference_threads, os.cpu_count() or 1))
