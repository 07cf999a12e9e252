"""One interface to run a model, whichever runtime this machine has.

``open_session(path, backend="auto")`` returns an ``InferenceSession`` over ONNX Runtime on the CPU or over torch.
``available_backends`` says which can be used here and, of the others, why not.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BACKENDS = ("onnxruntime_cpu", "torch")
"""In the order in which ``auto`` tries them."""


class InferenceError(RuntimeError):
    """A model or runtime that cannot be used; the message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: name, shape (a name or None where the axis is dynamic), NumPy dtype."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class BackendStatus:
    """Whether a runtime can be used here, and why or why not."""

    name: str
    available: bool
    reason: str


class InferenceSession(Protocol):
    """A loaded model; ``metadata`` is what its maker wrote into the file, by key."""

    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises ``InferenceError`` on a missing, unknown or wrongly shaped or typed input."""
        ...


_ONNX_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(bool)": np.dtype(np.bool_),
}


def check_feeds(where: str, specs: tuple[TensorSpec, ...], feeds: Mapping[str, NDArray[Any]]) -> None:
    """Check inputs against their specification.

    Raises:
        InferenceError: names the model, the input, what was found and what was expected.
    """
    expected = {s.name for s in specs}
    if set(feeds) != expected:
        raise InferenceError(f"{where}: got inputs {sorted(feeds)}, expected {sorted(expected)}")
    for spec in specs:
        value = feeds[spec.name]
        if value.dtype != spec.dtype:
            raise InferenceError(f"{where}: input {spec.name!r} has dtype {value.dtype}, expected {spec.dtype}")
        fits = value.ndim == len(spec.shape) and all(
            not isinstance(want, int) or got == want for got, want in zip(value.shape, spec.shape, strict=True)
        )
        if not fits:
            raise InferenceError(f"{where}: input {spec.name!r} has shape {value.shape}, expected {spec.shape}")


class OnnxRuntimeSession:
    """ONNX Runtime on the CPU.

    Raises:
        InferenceError: the runtime is not installed, or the file is absent or no ONNX model.
    """

    backend = "onnxruntime_cpu"

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InferenceError(f"{self.path}: no such file, expected an ONNX model")
        try:
            import onnxruntime
        except ImportError as error:
            raise InferenceError(
                f"onnxruntime_cpu: cannot import onnxruntime ({error}); pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or max(1, (os.cpu_count() or 2) // 2)
        options.inter_op_num_threads = 1
        # Else its threads burn the robot's cores while they wait for the next frame.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types of its own C++ module for a bad file
            raise InferenceError(f"{self.path}: ONNX Runtime refuses it: {error}") from error
        self.inputs = tuple(self._spec(i) for i in self._session.get_inputs())
        self.outputs = tuple(self._spec(o) for o in self._session.get_outputs())
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def _spec(self, value: Any) -> TensorSpec:
        if value.type not in _ONNX_TYPES:
            raise InferenceError(f"{self.path}: {value.name!r} is {value.type}, expected one of {sorted(_ONNX_TYPES)}")
        return TensorSpec(value.name, tuple(value.shape), _ONNX_TYPES[value.type])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name; see ``InferenceSession.run``."""
        check_feeds(str(self.path), self.inputs, feeds)
        try:
            values = self._session.run(None, {name: np.ascontiguousarray(v) for name, v in feeds.items()})
        except Exception as error:  # onnxruntime raises types of its own C++ module
            sizes = {name: tuple(v.shape) for name, v in feeds.items()}
            raise InferenceError(f"{self.path}: fails on inputs of shapes {sizes}: {error}") from error
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}


class TorchSession:
    """A torch program saved by ``torch.export.save`` (.pt2), on the CPU; for training and comparison, not the robot.

    Raises:
        InferenceError: torch is not installed, or the file is absent or no exported program.
    """

    backend = "torch"

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InferenceError(f"{self.path}: no such file, expected a torch exported program (.pt2)")
        try:
            import torch
        except ImportError as error:
            raise InferenceError(
                f"torch: cannot import torch ({error}); the robot's runtime has none by design, use onnxruntime_cpu, "
                "or install requirements/training.txt"
            ) from error
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        try:
            program = torch.export.load(str(self.path))
        except Exception as error:  # torch raises many types for a bad archive
            raise InferenceError(f"{self.path}: torch refuses it as an exported program: {error}") from error
        self._module = program.module()
        self.metadata: Mapping[str, str] = {}
        signature = program.graph_signature
        nodes = {node.name: node for node in program.graph.nodes}
        self.inputs = tuple(self._spec(nodes[name]) for name in signature.user_inputs)
        self.outputs = tuple(self._spec(nodes[name]) for name in signature.user_outputs)

    def _spec(self, node: Any) -> TensorSpec:
        value = node.meta["val"]
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        return TensorSpec(node.name, shape, np.dtype(str(value.dtype).removeprefix("torch.")))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name; see ``InferenceSession.run``."""
        check_feeds(str(self.path), self.inputs, feeds)
        tensors = [self._torch.from_numpy(np.ascontiguousarray(feeds[s.name])) for s in self.inputs]
        with self._torch.inference_mode():
            values = self._module(*tensors)
        values = values if isinstance(values, (tuple, list)) else (values,)
        return {spec.name: value.numpy() for spec, value in zip(self.outputs, values, strict=True)}


_SESSIONS: dict[str, Callable[[str | Path, int | None], InferenceSession]] = {
    "onnxruntime_cpu": OnnxRuntimeSession,
    "torch": TorchSession,
}
_MODULES = {"onnxruntime_cpu": "onnxruntime", "torch": "torch"}
_SUFFIXES = {"onnxruntime_cpu": ".onnx", "torch": ".pt2"}


def available_backends() -> tuple[BackendStatus, ...]:
    """Every runtime that wm knows, in the order of preference, with whether it can be used here and why."""
    statuses = []
    for name in BACKENDS:
        module = _MODULES[name]
        if importlib.util.find_spec(module) is None:
            statuses.append(BackendStatus(name, False, f"Python package {module} is not installed"))
            continue
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version(module)
        except PackageNotFoundError:
            found = "version unknown"
        statuses.append(BackendStatus(name, True, f"{module} {found}"))
    return tuple(statuses)


def open_session(path: str | Path, backend: str = "auto", threads: int | None = None) -> InferenceSession:
    """Load a model.

    Args:
        path: an ``.onnx`` model, or a ``.pt2`` torch program.
        backend: ``auto``, or one of ``BACKENDS``.
        threads: CPU threads; None: half of the cores, so that the rest of the robot goes on.

    Raises:
        InferenceError: the backend is unknown, not installed, or refuses the file.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise InferenceError(f"backend: got {backend!r}, expected auto or one of {BACKENDS}")
        return _SESSIONS[backend](path, threads)
    suffix = Path(path).suffix
    fitting = [name for name in BACKENDS if _SUFFIXES[name] == suffix]
    if not fitting:
        raise InferenceError(f"{path}: got a file ending in {suffix!r}, expected one of {sorted(_SUFFIXES.values())}")
    return _SESSIONS[fitting[0]](path, threads)
