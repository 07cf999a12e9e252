"""One interface to run a model, whichever runtime this machine has.

``open_session(path, backend="auto")`` returns an ``InferenceSession``: TensorRT, TensorRT-RTX, ONNX Runtime on an
NVIDIA GPU or on the CPU, or torch. ``available_backends`` lists those that can be used here and, of the others, why
not. docs/engines.md lists which have been run on which machines.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from wm_core.inference.base import (
    BackendStatus,
    BackendUnavailableError,
    InferenceError,
    InferenceSession,
    ModelFileError,
    Profile,
)
from wm_core.inference.engine_file import SUFFIX, read_head
from wm_core.inference.onnx_runtime import OnnxRuntimeSession, provider_status
from wm_core.inference.tensor_rt import TensorRTSession, tensorrt_status
from wm_core.inference.tensorrt_library import RUNTIMES
from wm_core.inference.torch_session import TorchSession

log = logging.getLogger(__name__)

BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_tensorrt", "onnxruntime_cuda", "onnxruntime_cpu", "torch")
"""In the order in which ``auto`` tries them."""

GPU_BACKENDS = BACKENDS[:4]

_MODULES = {name: "onnxruntime" if name.startswith("onnxruntime") else name for name in BACKENDS}
_SUFFIXES = {
    ".onnx": BACKENDS[:5],
    ".pt2": ("torch",),
    SUFFIX: ("tensorrt", "tensorrt_rtx"),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
}


def available_backends() -> tuple[BackendStatus, ...]:
    """The status of every runtime, in the order of preference."""
    return tuple(status_of(name) for name in BACKENDS)


def status_of(name: str) -> BackendStatus:
    """The status of one of ``BACKENDS``."""
    if name in RUNTIMES:
        return tensorrt_status(name)
    module = _MODULES[name]
    if importlib.util.find_spec(module) is None:
        return BackendStatus(name, False, f"Python package {module} is not installed")
    if name in ("onnxruntime_cpu", "onnxruntime_cuda", "onnxruntime_tensorrt"):
        return provider_status(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version(module)
    except PackageNotFoundError:
        found = "version unknown"
    return BackendStatus(name, True, f"{module} {found}")


def fitting(path: str | Path) -> tuple[str, ...]:
    """Backends that load a file of this kind, in the order of preference.

    Raises:
        ModelFileError: none does.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ModelFileError(f"{path}: got a file ending in {path.suffix!r}, expected one of {sorted(_SUFFIXES)}")
    if path.suffix == SUFFIX and path.is_file():
        return (read_head(path).key.runtime,)
    return _SUFFIXES[path.suffix]


def choose(
    backend: str, path: str | Path = "model.onnx", gpu: bool = True, without: Mapping[str, str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """The backend for a file, and the reasons: a sentence for each that was skipped, and for the one chosen.

    Args:
        gpu: False: ``auto`` does not use the GPU.
        without: backends that ``auto`` skips, with the reason.

    Raises:
        BackendUnavailableError: unknown, or not available here.
        ModelFileError: no backend loads such a file.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise BackendUnavailableError(f"backend: got {backend!r}, expected auto or one of {BACKENDS}")
        status = status_of(backend)
        if not status.available:
            raise BackendUnavailableError(f"{backend}: {status.reason}")
        return backend, (f"{backend} was asked for: {status.reason}",)
    said = []
    for name in fitting(path):
        if name in GPU_BACKENDS and not gpu:
            continue
        if without and name in without:
            said.append(f"{name}: {without[name]}")
            continue
        status = status_of(name)
        said.append(f"{name}: {status.reason}")
        if status.available:
            return name, tuple(said)
    raise BackendUnavailableError(f"{path}: no runtime for it here: {'; '.join(said)}")


def open_session(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    *,
    gpu: bool = True,
    profile: Profile | None = None,
    cuda_graph: bool = True,
    check_finite: bool = False,
    cache: Path | None = None,
) -> InferenceSession:
    """Load a model.

    ``auto`` uses the first of ``BACKENDS`` that is available and loads the file; a GPU runtime that then refuses the
    model, or has no memory for it, is skipped with a warning. A backend chosen by name is used or refused.

    Args:
        path: an ``.onnx`` model, a ``.wmengine`` of ``wm export``, an ``.engine`` or ``.plan`` of trtexec, or a
            ``.pt2`` torch program.
        backend: ``auto``, or one of ``BACKENDS``.
        threads: CPU threads; None: see ``usual_threads``.
        gpu: False: ``auto`` does not use the GPU.
        profile: bounds of the inputs for engines, smallest, usual and largest shape of each; None: from the metadata.
        cuda_graph: False: no CUDA graphs.
        check_finite: refuse inputs with NaN or infinity, at the cost of a pass over each input.
        cache: folder of engines; None: the user's.

    Raises:
        BackendUnavailableError: the backend is unknown or not available here.
        ModelFileError, EngineCorruptError, EngineMismatchError: the file is absent, damaged, or does not fit.
        DeviceMemoryError: not enough memory.
    """
    name, reasons = choose(backend, path, gpu)
    names = [name]
    if backend == "auto":
        order = fitting(path)
        names += [n for n in order[order.index(name) + 1 :] if status_of(n).available]
    for number, candidate in enumerate(names):
        try:
            session = _open(candidate, path, threads, profile, cuda_graph, check_finite, cache)
        except InferenceError as error:
            if candidate not in GPU_BACKENDS or number + 1 == len(names):
                raise
            log.warning("%s: %s refuses it, going on with %s: %s", path, candidate, names[number + 1], error)
            reasons += (f"{candidate} refuses it: {error}", f"{names[number + 1]} instead")
            continue
        session.reasons = (*reasons, *session.reasons)
        log.info("%s: %s on %s (%s)", path, candidate, session.device, "; ".join(session.reasons))
        return session
    raise AssertionError("unreachable")


def _open(
    name: str,
    path: str | Path,
    threads: int | None,
    profile: Profile | None,
    cuda_graph: bool,
    check_finite: bool,
    cache: Path | None,
) -> InferenceSession:
    makers: dict[str, Callable[[], InferenceSession]] = {
        "torch": lambda: TorchSession(path, threads, check_finite),
        "onnxruntime_cpu": lambda: OnnxRuntimeSession(path, threads, check_finite=check_finite),
        **{
            n: lambda: OnnxRuntimeSession(path, threads, name, profile, cuda_graph, check_finite, cache)
            for n in ("onnxruntime_cuda", "onnxruntime_tensorrt")
        },
        **{n: lambda: TensorRTSession(path, name, profile, cuda_graph, check_finite, cache) for n in RUNTIMES},
    }
    return makers[name]()
