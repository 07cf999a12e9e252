"""Torch, for training and comparison; the robot's runtime does not include it, by design."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.inference.base import (
    BackendUnavailableError,
    DeviceMemoryError,
    Feeds,
    InferenceError,
    InferenceSession,
    ModelFileError,
    TensorSpec,
    expect_file,
    is_memory_error,
)


class TorchSession(InferenceSession):
    """A torch program saved by ``torch.export.save`` (.pt2), on the CPU.

    Raises:
        BackendUnavailableError: torch is not installed.
        ModelFileError: the file is absent or no exported program.
    """

    backend = "torch"

    def __init__(self, path: str | Path, threads: int | None = None, check_finite: bool = False) -> None:
        super().__init__(path, check_finite)
        expect_file(self.path, "a torch exported program (.pt2)")
        try:
            import torch
        except ImportError as error:
            raise BackendUnavailableError(
                f"torch: cannot import torch ({error}); the robot's runtime has none by design, use onnxruntime_cpu, "
                "or install requirements/training.txt"
            ) from error
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        try:
            program = torch.export.load(str(self.path))
        except Exception as error:  # torch raises many types for a bad archive
            raise ModelFileError(f"{self.path}: torch refuses it as an exported program: {error}") from error
        self._module: Any = program.module()
        self.device = f"CPU, {torch.get_num_threads()} threads"
        signature = program.graph_signature
        nodes = {node.name: node for node in program.graph.nodes}
        self.inputs = tuple(self._spec(nodes[str(name)]) for name in signature.user_inputs)
        self.outputs = tuple(self._spec(nodes[str(name)]) for name in signature.user_outputs)

    def _spec(self, node: Any) -> TensorSpec:
        value = node.meta["val"]
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        return TensorSpec(node.name, shape, np.dtype(str(value.dtype).removeprefix("torch.")))

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        tensors = [self._torch.from_numpy(np.ascontiguousarray(feeds[s.name])) for s in self.inputs]
        try:
            with self._torch.inference_mode():
                values = self._module(*tensors)
        except (RuntimeError, MemoryError) as error:
            sizes = {name: tuple(v.shape) for name, v in feeds.items()}
            if is_memory_error(error) or isinstance(error, MemoryError):
                raise DeviceMemoryError(f"{self.path}: not enough memory for inputs of {sizes}: {error}") from error
            raise InferenceError(f"{self.path}: fails on inputs of shapes {sizes}: {error}") from error
        values = values if isinstance(values, (tuple, list)) else (values,)
        return {spec.name: value.numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def _release(self) -> None:
        self._module = None
