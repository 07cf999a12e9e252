"""The contract of a model: checks of its tensors, its metadata, and its outputs in a trial run.

Every refusal is a ``ModelError`` that names the file, the tensor or metadata, what was found and what was expected.
docs/models.md has the contracts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.inference.backends import open_session
from wm_core.inference.base import InferenceError, InferenceSession, TensorSpec
from wm_perception.models.files import ModelError


@dataclass(frozen=True)
class Tensor:
    """The specification of a model's input or output.

    Attributes:
        name: of the tensor.
        shape: a number is a fixed size, a letter any size; one letter stands for one size.
        dtype: of its values.
        also: other shapes that are accepted, e.g. with a leading batch axis.
        optional: the model may lack it.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: Any = np.float32
    also: tuple[tuple[int | str, ...], ...] = ()
    optional: bool = False

    @property
    def shapes(self) -> tuple[tuple[int | str, ...], ...]:
        """All shapes that are accepted."""
        return (self.shape, *self.also)

    def __str__(self) -> str:
        shapes = " or ".join(shape_text(s) for s in self.shapes)
        return f"{self.name!r} {np.dtype(self.dtype)} {shapes}"


def shape_text(shape: Sequence[int | str | None]) -> str:
    """``(1, 3, H, ?)`` of a shape; ? is a size that the file leaves open without a name."""
    return f"({', '.join('?' if s is None else str(s) for s in shape)}{',' if len(shape) == 1 else ''})"


def load(
    path: str | Path, threads: int | None = None, backend: str = "onnxruntime_cpu", gpu: bool = True
) -> InferenceSession:
    """A session over a model file.

    Args:
        backend: see ``wm_core.inference.backends.BACKENDS``, or auto; gpu: False: auto leaves the GPU alone.

    Raises:
        ModelError: absent, no model that the runtime can load, or no such runtime here.
    """
    # auto names the accepted endings where this file's is none of them.
    backend = backend if Path(path).suffix == ".onnx" else "auto"
    try:
        return open_session(path, backend, threads, gpu=gpu)
    except InferenceError as error:
        raise ModelError(str(error)) from error


def check_tensors(path: str | Path, kind: str, found: Sequence[TensorSpec], expected: Sequence[Tensor]) -> None:
    """Compare the inputs or outputs that a file states with their specification.

    Args:
        kind: ``input`` or ``output``. Inputs beyond the expected are refused, as nothing could be fed to them; outputs
            are not.

    Raises:
        ModelError: names the file and the tensor.
    """
    by_name = {s.name: s for s in found}
    listed = ", ".join(f"{s.name!r} {s.dtype} {shape_text(s.shape)}" for s in found) or "none"
    for tensor in expected:
        if tensor.name not in by_name:
            if tensor.optional:
                continue
            raise ModelError(f"{path}: {kind} {tensor.name!r} is missing: got {listed}; expected {tensor}")
        spec = by_name[tensor.name]
        if spec.dtype != np.dtype(tensor.dtype):
            raise ModelError(f"{path}: {kind} {tensor.name!r}: got {spec.dtype}, expected {tensor}")
        # A runtime gives () for a shape that the file does not state; a trial run shows it.
        if spec.shape and not any(_fits(spec.shape, shape) for shape in tensor.shapes):
            raise ModelError(f"{path}: {kind} {tensor.name!r}: got shape {shape_text(spec.shape)}, expected {tensor}")
    known = {tensor.name for tensor in expected}
    unknown = [s for s in found if s.name not in known]
    if kind == "input" and unknown:
        s = unknown[0]
        raise ModelError(
            f"{path}: input {s.name!r} {s.dtype} {shape_text(s.shape)} is not known, "
            f"expected {', '.join(str(t) for t in expected)}"
        )


def _fits(shape: Sequence[int | str | None], expected: Sequence[int | str]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(got, int) or isinstance(want, str) or got == want
        for got, want in zip(shape, expected, strict=True)
    )


def check_values(
    path: str | Path, values: Mapping[str, NDArray[Any]], expected: Sequence[Tensor], sizes: dict[str, int]
) -> None:
    """Compare a model's output values with their specification.

    Args:
        sizes: known sizes by letter; those found here are added.

    Raises:
        ModelError: names the file and the tensor: absent, of another shape, or with values that are no numbers.
    """
    for tensor in expected:
        if tensor.name not in values:
            if tensor.optional:
                continue
            raise ModelError(f"{path}: output {tensor.name!r} is missing, expected {tensor}")
        value = values[tensor.name]
        bound = next((b for s in tensor.shapes if (b := _bind(value.shape, s, sizes)) is not None), None)
        if bound is None:
            known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
            raise ModelError(
                f"{path}: output {tensor.name!r}: it gave shape {shape_text(value.shape)}, expected {tensor}"
                + (f" with {known}" if known else "")
            )
        sizes.update(bound)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ModelError(
                f"{path}: output {tensor.name!r}: {int((~np.isfinite(value)).sum())} of {value.size} values are NaN or "
                "infinite, expected finite ones"
            )


def _bind(shape: Sequence[int], expected: Sequence[int | str], sizes: Mapping[str, int]) -> dict[str, int] | None:
    """Sizes by letter that make the shapes agree, or None."""
    if len(shape) != len(expected):
        return None
    bound = dict(sizes)
    for got, want in zip(shape, expected, strict=True):
        if got != (bound.setdefault(want, got) if isinstance(want, str) else want):
            return None
    return bound


def names_in(path: str | Path, metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    """A list of names in a model's metadata: a JSON list, or words between commas.

    Raises:
        ModelError: absent, empty, or not a list of different names.
    """
    text = metadata.get(key, "").strip()
    if not text:
        keys = ", ".join(sorted(metadata)) or "none at all"
        raise ModelError(f"{path}: metadata {key!r} is missing: got {keys}; expected a JSON list of names")
    try:
        names: Any = json.loads(text) if text.startswith("[") else [word.strip() for word in text.split(",")]
    except ValueError as error:
        raise ModelError(f"{path}: metadata {key!r}: got {text[:80]!r}, expected a JSON list ({error})") from error
    if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) < len(names):
        raise ModelError(f"{path}: metadata {key!r}: got {text[:80]!r}, expected a JSON list of different names")
    return tuple(names)


def number_in(
    path: str | Path, metadata: Mapping[str, str], key: str, default: float, low: float, high: float
) -> float:
    """A number in a model's metadata, or the default where it is absent.

    Raises:
        ModelError: no number, or out of range.
    """
    text = metadata.get(key, "")
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise ModelError(f"{path}: metadata {key!r}: got {text[:80]!r}, expected a number") from error
    if not low <= value <= high:
        raise ModelError(f"{path}: metadata {key!r}: got {value:g}, expected {low:g}..{high:g}")
    return value


def probe(path: str | Path, session: InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a model once.

    Raises:
        ModelError: it fails.
    """
    try:
        return session.run(feeds)
    except InferenceError as error:
        raise ModelError(str(error)) from error
