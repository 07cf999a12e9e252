"""The interface of all runtimes: tensors and their checks, named errors, and the session."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

Feeds = Mapping[str, NDArray[Any]]
Profile = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
"""Of each input the smallest, the usual and the largest shape."""


class InferenceError(RuntimeError):
    """A model or runtime that cannot be used; the message names the file, what was found and what was expected."""


class BackendUnavailableError(InferenceError):
    """A runtime chosen by name is not available: no such library, no GPU, or one that it does not support."""


class ModelFileError(InferenceError):
    """The file is absent, or the runtime cannot load it."""


class InputNameError(InferenceError):
    """An input is missing or unknown."""


class InputShapeError(InferenceError):
    """An input has another shape than the model, or the profile of its engine, accepts."""


class InputTypeError(InferenceError):
    """An input has another dtype than the model accepts."""


class InputValueError(InferenceError):
    """An input holds NaN or infinity, in a session that checks for them."""


class EngineCorruptError(InferenceError):
    """An engine file is cut off or changed: its checksum, or the runtime, refuses it."""


class EngineMismatchError(InferenceError):
    """An engine is of another model, runtime version, GPU, compute capability, precision or profile."""


class DeviceMemoryError(InferenceError):
    """Not enough memory, on the GPU or in the machine."""


class ClosedError(InferenceError):
    """The session has been closed."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: of the tensor.
        shape: sizes; a name or None where the axis is dynamic.
        dtype: NumPy type.
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class BackendStatus:
    """Whether a runtime can be used on this machine.

    Attributes:
        name: of ``wm_core.inference.backends.BACKENDS``.
        available: whether it can be used. reason: why or why not.
    """

    name: str
    available: bool
    reason: str


def check_feeds(where: str, specs: Sequence[TensorSpec], feeds: Feeds) -> None:
    """Check inputs against their specification.

    Raises:
        InputNameError, InputTypeError, InputShapeError: names the model, the input, what was found and expected.
    """
    for spec in specs:
        value = feeds.get(spec.name)
        if value is None:
            raise InputNameError(f"{where}: got inputs {sorted(feeds)}, expected {sorted(s.name for s in specs)}")
        if value.dtype != spec.dtype:
            raise InputTypeError(f"{where}: input {spec.name!r} has dtype {value.dtype}, expected {spec.dtype}")
        if len(value.shape) != len(spec.shape):
            raise InputShapeError(f"{where}: input {spec.name!r} has shape {value.shape}, expected {spec.shape}")
        for got, want in zip(value.shape, spec.shape, strict=True):
            if got != want and want.__class__ is int:
                raise InputShapeError(f"{where}: input {spec.name!r} has shape {value.shape}, expected {spec.shape}")
    if len(feeds) != len(specs):
        raise InputNameError(f"{where}: got inputs {sorted(feeds)}, expected {sorted(s.name for s in specs)}")


def check_finite(where: str, feeds: Feeds) -> None:
    """Check that inputs are finite.

    Raises:
        InputValueError: names the model, the input, and how many values are not.
    """
    for name, value in feeds.items():
        # One pass: a sum is finite only if all terms are (but not the other way round).
        if value.dtype.kind != "f" or np.isfinite(value.sum(dtype=np.float64)):
            continue
        bad = int((~np.isfinite(value)).sum())
        if bad:
            raise InputValueError(
                f"{where}: input {name!r}: {bad} of {value.size} values are NaN or infinite, expected finite ones"
            )


class InferenceSession(ABC):
    """A loaded model. May be run from several threads; ``close`` it, or use it in a ``with`` statement.

    Attributes:
        backend: one of ``wm_core.inference.backends.BACKENDS``.
        device: what it runs on, e.g. ``CPU, 2 threads``.
        path: of the file.
        inputs, outputs: specifications of the tensors.
        metadata: of the file, by key.
        reasons: why this backend was chosen, one sentence each.
    """

    backend = ""

    def __init__(self, path: str | Path, check_finite: bool = False) -> None:
        self.path = Path(path)
        self.device = ""
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.metadata: Mapping[str, str] = {}
        self.reasons: tuple[str, ...] = ()
        self._check_finite = check_finite
        self._closed = False
        self._where = str(self.path)
        self._lock = threading.Lock()

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Outputs by name, in arrays of their own.

        Raises:
            InputNameError, InputShapeError, InputTypeError: an input does not match the model's specification.
            InputValueError: NaN or infinity, where the session was opened with ``check_finite``.
            DeviceMemoryError: not enough memory.
            ClosedError: the session has been closed.
            InferenceError: the runtime fails in another way.
        """
        if self._closed:
            raise ClosedError(f"{self._where}: the session is closed, expected an open one")
        check_feeds(self._where, self.inputs, feeds)
        if self._check_finite:
            check_finite(self._where, feeds)
        return self._run(feeds)

    @abstractmethod
    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Outputs by name; the inputs have been checked."""

    def warm_up(self, shapes: Mapping[str, Sequence[int]], times: int = 2) -> None:
        """Run on zeros of these shapes, by input name, so that memory, kernels and graphs exist at the first frame.

        Raises:
            InferenceError: as ``run``.
        """
        zeros = {s.name: np.zeros(tuple(shapes[s.name]), s.dtype) for s in self.inputs if s.name in shapes}
        for _ in range(times):
            self.run(zeros)

    def close(self) -> None:
        """Free its resources; may be repeated. Waits for a run in another thread where the runtime needs that."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()

    def _release(self) -> None:  # noqa: B027 - some runtimes hold no resources
        """Free the runtime's resources; called once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r}, {self.backend}, {self.device or 'device unknown'})"


def expect_file(path: Path, what: str) -> None:
    """Raises ``ModelFileError`` where there is no such file."""
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file, expected {what}")


_MEMORY_WORDS = ("out of memory", "outofmemory", "failed to allocate", "bad allocation", "can't allocate", "bad_alloc")


def is_memory_error(text: object) -> bool:
    """Whether a runtime's message is about a lack of memory."""
    lower = str(text).lower()
    return any(word in lower for word in _MEMORY_WORDS)


def onnx_metadata(path: Path) -> dict[str, str]:
    """``metadata_props`` of an ONNX file.

    Raises:
        ModelFileError: absent, or no such message.
    """
    # Imported here, as only engines and lower precisions need it, and it takes longer to import than ONNX Runtime.
    import onnx

    expect_file(path, "an ONNX model")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, whose types depend on which of its implementations is in use
        raise ModelFileError(f"{path}: no ONNX model ({error})") from error
    return {entry.key: entry.value for entry in model.metadata_props}
