"""The model, runtime and precision that a configuration selects on this machine."""

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
    """The model that a configuration selects on this machine.

    Attributes:
        kind: learned, geometric or onnx.
        path: the model file; None for geometric.
        backend: runtime that runs it, of ``wm_core.inference.backends.BACKENDS``.
        precision: of the file; why: reasons for backend and precision.
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
    """The model used as ``segmenter`` or ``reasoner``; its file exists, but is not checked.

    ``auto`` means the shipped weights, and geometry only where none are installed: bad weights are refused, not
    skipped. With a file, ``auto`` selects learned or onnx by the file's metadata.

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
        # The reasoner's tensors are small: copying them to a GPU takes longer than running it on the CPU. Whether a GPU
        # runtime runs a user's own segmenter is not known: the user has to name it.
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
"""Backends that failed to run a model on this machine, with the reason."""


def _precision(wanted: str, backend: str, path: Path) -> tuple[str, str]:
    """The precision of a shipped model on a backend, and why.

    Raises:
        ModelError: the file of the precision chosen is absent, or is not for this backend.
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
    """SHA-256 of the weights that a file was exported from, by its metadata; its name where that has none."""
    try:
        return onnx_metadata(path).get("weights_sha256") or path.name
    except InferenceError:
        return path.name


def threads(config: PerceptionConfig) -> int:
    """CPU threads of a network: as configured, but no more than the machine has."""
    return max(1, min(config.inference_threads, os.cpu_count() or 1))
