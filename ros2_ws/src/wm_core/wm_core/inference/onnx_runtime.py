"""ONNX Runtime: on the CPU, and on NVIDIA GPUs by its CUDA and TensorRT providers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.inference import cuda, engine_cache
from wm_core.inference.base import (
    BackendStatus,
    BackendUnavailableError,
    DeviceMemoryError,
    Feeds,
    InferenceError,
    InferenceSession,
    ModelFileError,
    Profile,
    TensorSpec,
    expect_file,
    is_memory_error,
)

PROVIDERS = {
    "onnxruntime_cpu": "CPUExecutionProvider",
    "onnxruntime_cuda": "CUDAExecutionProvider",
    "onnxruntime_tensorrt": "TensorrtExecutionProvider",
}

_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(bool)": np.dtype(np.bool_),
}


def cores() -> int:
    """CPU cores that this process may use: affinity, and the quota of its container (cgroup v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, count)


def usual_threads(count: int | None = None) -> int:
    """Threads of one model on ``count`` cores (None: those of this process).

    Both of two; of more, half, which leaves cores to the rest of the robot; never more than 6, as the layers of small
    networks are too short to be divided further.
    """
    count = cores() if count is None else count
    return max(1, min(count, 2, 6)) if count <= 4 else min(count // 2, 6)


def cpu_flags() -> frozenset[str]:
    """Features of the processor by Linux's names; empty where it does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def int8_is_fast(flags: frozenset[str] | None = None) -> tuple[bool, str]:
    """Whether int8 models gain on this processor, and why or why not.

    With VNNI products of eight-bit numbers are summed in 32 bits at once. Without it, AVX2 sums pairs in 16 bits, which
    overflows (onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range"), so that int8 is
    slower or wrong there.
    """
    flags = cpu_flags() if flags is None else flags
    for flag in ("avx512_vnni", "avx_vnni"):
        if flag in flags:
            return True, f"the processor has {flag}"
    return False, "the processor has no VNNI"


def provider_status(name: str) -> BackendStatus:
    """Whether an ONNX Runtime backend can be used here."""
    try:
        import onnxruntime
    except ImportError as error:
        return BackendStatus(name, False, f"Python package onnxruntime is not installed ({error})")
    version = getattr(onnxruntime, "__version__", "version unknown")
    if name == "onnxruntime_cpu":
        return BackendStatus(name, True, f"onnxruntime {version}")
    provider = PROVIDERS[name]
    if provider not in onnxruntime.get_available_providers():
        return BackendStatus(name, False, f"onnxruntime {version} is built without {provider}; onnxruntime-gpu has it")
    device = cuda.probe()
    if isinstance(device, str):
        return BackendStatus(name, False, f"onnxruntime {version} has {provider}, but {device}")
    return BackendStatus(name, True, f"onnxruntime {version}, {device}")


class OnnxRuntimeSession(InferenceSession):
    """ONNX Runtime with one of its providers.

    On the CPU inputs and outputs are not copied; binding outputs to arrays made before gained nothing
    (benchmarks/engines). On a GPU inputs and outputs of a shape that was used before stay bound to the same device
    memory, and with ``cuda_graph`` the whole run is one launch.

    Args:
        threads: CPU threads; None: see ``usual_threads``.
        profile: bounds of the inputs, for the engines of the TensorRT provider.
        cuda_graph: GPU only.

    Raises:
        BackendUnavailableError: the runtime, its provider or a GPU is not available.
        ModelFileError: the file is absent or no ONNX model.
        DeviceMemoryError: not enough memory for it.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        backend: str = "onnxruntime_cpu",
        profile: Profile | None = None,
        cuda_graph: bool = False,
        check_finite: bool = False,
        cache: Path | None = None,
    ) -> None:
        super().__init__(path, check_finite)
        self.backend = backend
        expect_file(self.path, "an ONNX model")
        status = provider_status(backend)
        if not status.available:
            raise BackendUnavailableError(f"{backend}: {status.reason}")
        import onnxruntime

        self._gpu = backend != "onnxruntime_cpu"
        self._graphs = cuda_graph and self._gpu
        count = threads or usual_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count
        options.inter_op_num_threads = 1
        # Otherwise its threads use the robot's cores while they wait for the next frame.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            if self._gpu and hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            providers = _providers(backend, profile, self._graphs, cache)
            self._session: Any = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime raises types of its own C++ module for a bad file
            if is_memory_error(error):
                raise DeviceMemoryError(f"{self.path}: not enough memory to load it: {error}") from error
            raise ModelFileError(f"{self.path}: ONNX Runtime refuses it: {error}") from error
        # It goes on with the next provider, without an error, where one fails to start.
        first = self._session.get_providers()[0]
        if first != PROVIDERS[backend]:
            raise BackendUnavailableError(
                f"{backend}: got {first} from onnxruntime, expected {PROVIDERS[backend]}; its CUDA libraries are "
                "missing or do not fit"
            )
        self._runtime = onnxruntime
        self.device = str(cuda.probe()) if self._gpu else f"CPU, {count} thread{'s' if count > 1 else ''}"
        self.inputs = tuple(self._spec(i) for i in self._session.get_inputs())
        self.outputs = tuple(self._spec(o) for o in self._session.get_outputs())
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._names = [o.name for o in self.outputs]
        self._bound: dict[Any, _Binding | None] = {}

    def _spec(self, value: Any) -> TensorSpec:
        if value.type not in _TYPES:
            raise ModelFileError(f"{self.path}: {value.name!r} is {value.type}, expected one of {sorted(_TYPES)}")
        return TensorSpec(value.name, tuple(value.shape), _TYPES[value.type])

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        session = self._session
        try:
            values = self._run_on_gpu(feeds) if self._gpu else session.run(None, feeds)
        except Exception as error:  # onnxruntime raises types of its own C++ module
            sizes = {name: tuple(v.shape) for name, v in feeds.items()}
            if is_memory_error(error):
                raise DeviceMemoryError(f"{self.path}: not enough memory for inputs of {sizes}: {error}") from error
            raise InferenceError(f"{self.path}: fails on inputs of shapes {sizes}: {error}") from error
        return dict(zip(self._names, values, strict=True))

    def _run_on_gpu(self, feeds: Feeds) -> list[NDArray[Any]]:
        # Bound memory is shared by all runs of one shape.
        with self._lock:
            key = tuple(feeds[s.name].shape for s in self.inputs)
            if key not in self._bound and len(self._bound) < _BINDINGS:
                values = self._plain(feeds)
                self._bound[key] = _Binding(self, len(self._bound), feeds, [v.shape for v in values])
                return values
            binding = self._bound.get(key)
            if binding is None:
                return self._plain(feeds)
            try:
                return binding.run(feeds)
            except Exception:  # e.g. outputs whose sizes follow from the values
                self._bound[key] = None
                return self._plain(feeds)

    def _plain(self, feeds: Feeds) -> list[NDArray[Any]]:
        options = self._runtime.RunOptions()
        if self._graphs:
            # No graph for this run: a graph needs memory that stays.
            options.add_run_config_entry("gpu_graph_id", "-1")
        held = {n: np.ascontiguousarray(v) for n, v in feeds.items()}
        found: list[NDArray[Any]] = self._session.run(None, held, options)
        return found

    def _release(self) -> None:
        self._bound.clear()
        self._session = None


_BINDINGS = 8
"""Shapes for which a session keeps device memory; others are copied each time. Larger uses more GPU memory."""


class _Binding:
    """Device memory for the inputs and outputs of one set of shapes."""

    def __init__(self, owner: OnnxRuntimeSession, number: int, feeds: Feeds, shapes: list[tuple[int, ...]]) -> None:
        value = owner._runtime.OrtValue
        self._session = owner._session
        self._inputs = {n: value.ortvalue_from_numpy(np.ascontiguousarray(v), "cuda", 0) for n, v in feeds.items()}
        self._outputs = [
            value.ortvalue_from_shape_and_type(shape, spec.dtype.type, "cuda", 0)
            for shape, spec in zip(shapes, owner.outputs, strict=True)
        ]
        self._binding = self._session.io_binding()
        for name, held in self._inputs.items():
            self._binding.bind_ortvalue_input(name, held)
        for spec, held in zip(owner.outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(spec.name, held)
        self._options = owner._runtime.RunOptions()
        if owner._graphs:
            # One graph for each set of shapes (onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html).
            self._options.add_run_config_entry("gpu_graph_id", str(number + 1))

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        for name, held in self._inputs.items():
            held.update_inplace(np.ascontiguousarray(feeds[name]))
        self._session.run_with_iobinding(self._binding, self._options)
        return [held.numpy() for held in self._outputs]


def _providers(backend: str, profile: Profile | None, graphs: bool, cache: Path | None) -> list[Any]:
    """Providers with their options, the chosen one first."""
    graph = {"enable_cuda_graph": "1"} if graphs else {}
    cuda_options: Mapping[str, str] = {"device_id": "0", "cudnn_conv_algo_search": "HEURISTIC", **graph}
    cpu = PROVIDERS["onnxruntime_cpu"]
    if backend == "onnxruntime_cpu":
        return [cpu]
    if backend == "onnxruntime_cuda":
        return [(PROVIDERS[backend], cuda_options), cpu]
    folder = engine_cache.trusted_cache((cache or engine_cache.cache_folder()) / "onnxruntime_tensorrt")
    kept = {}
    if folder is not None:
        kept = {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder),
        }
    options = {
        "device_id": "0",
        **kept,
        **({"trt_cuda_graph_enable": "True"} if graphs else {}),
    }
    if profile:
        for key, which in (("min", 0), ("opt", 1), ("max", 2)):
            text = ",".join(f"{name}:{'x'.join(map(str, shapes[which]))}" for name, shapes in profile.items())
            options[f"trt_profile_{key}_shapes"] = text
    return [(PROVIDERS[backend], options), (PROVIDERS["onnxruntime_cuda"], {"device_id": "0"}), cpu]
