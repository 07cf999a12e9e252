"""TensorRT 10 and 11, and TensorRT-RTX, on one NVIDIA GPU."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.inference import cuda, engine_builder, engine_cache, engine_file, tensorrt_library
from wm_core.inference.base import (
    BackendStatus,
    BackendUnavailableError,
    DeviceMemoryError,
    EngineCorruptError,
    EngineMismatchError,
    Feeds,
    InferenceError,
    InferenceSession,
    InputShapeError,
    ModelFileError,
    Profile,
    TensorSpec,
    expect_file,
    is_memory_error,
    onnx_metadata,
)

log = logging.getLogger(__name__)

_GRAPHS = 8
"""Shapes for which a session keeps a CUDA graph. Larger uses more GPU memory."""


def tensorrt_status(name: str) -> BackendStatus:
    """Whether a TensorRT runtime can be used here."""
    if tensorrt_library.runtime_module(name) is None:
        return BackendStatus(name, False, f"Python package {name} is not installed")
    installed = tensorrt_library.runtime_version(name)
    device = cuda.probe()
    if isinstance(device, str):
        return BackendStatus(name, False, f"{name} {installed}, but {device}")
    try:
        tensorrt_library.load_runtime(name)
    except Exception as error:  # its libraries are missing, or of another CUDA
        return BackendStatus(name, False, f"{name} {installed} does not import ({error})")
    if name == "tensorrt" and int(installed.partition(".")[0] or 0) < 10:
        return BackendStatus(name, False, f"tensorrt {installed}, expected 10 or 11")
    if name == "tensorrt_rtx" and device.architecture not in tensorrt_library.RTX_ARCHITECTURES:
        served = ", ".join(tensorrt_library.RTX_ARCHITECTURES)
        return BackendStatus(name, False, f"tensorrt_rtx {installed} serves {served}, the GPU is {device}")
    return BackendStatus(name, True, f"{name} {installed}, {device}")


class TensorRTSession(InferenceSession):
    """A TensorRT engine, from the cache or built now, with one execution context and one stream.

    Inputs go through pinned memory, copies and kernels are on one stream, and from the second run with the same shapes
    on all of it is one CUDA graph (TensorRT-RTX captures graphs itself). Runs from several threads follow one another.

    Args:
        path: an ONNX file; or an engine file, built by this machine's runtime for its GPU.
        backend: tensorrt or tensorrt_rtx.
        profile: bounds of the inputs; None: from the metadata.
        cuda_graph: False: launch kernels one by one.
        cache: folder of engines; None: ``engine_cache.cache_folder()``.

    Raises:
        BackendUnavailableError: the runtime or a GPU is not available.
        ModelFileError, EngineCorruptError, EngineMismatchError: the file is absent, damaged, or does not fit.
        DeviceMemoryError: not enough memory.
    """

    def __init__(
        self,
        path: str | Path,
        backend: str = "tensorrt",
        profile: Profile | None = None,
        cuda_graph: bool = True,
        check_finite: bool = False,
        cache: Path | None = None,
    ) -> None:
        super().__init__(path, check_finite)
        self.backend = backend
        expect_file(self.path, f"an ONNX model, or an engine ({engine_file.SUFFIX})")
        status = tensorrt_status(backend)
        if not status.available:
            raise BackendUnavailableError(f"{backend}: {status.reason}")
        self._trt = tensorrt_library.load_runtime(backend)
        self._logger = tensorrt_library.Logger()
        self._cuda = cuda.Context()
        self._buffers: dict[str, cuda.Buffer] = {}
        self._graphs: dict[Any, cuda.Graph] = {}
        self._shapes: dict[Any, dict[str, tuple[int, ...]]] = {}
        self._current: Any = None
        self._cuda_graph = cuda_graph
        self._engine: Any = None
        self._context: Any = None
        self.device = str(self._cuda.device)
        self._runtime = self._trt.Runtime(self._logger.bound(self._trt))
        kept = engine_cache.trusted_cache(cache)
        try:
            if self.path.suffix == ".onnx":
                self._load_onnx(profile, kept)
            else:
                self._load_file()
            self._make_context(kept)
        except BaseException:
            self._release()
            raise
        self._read_specs()

    # Loading

    def _load_onnx(self, profile: Profile | None, cache: Path | None) -> None:
        self.metadata = onnx_metadata(self.path)
        bounds = engine_builder.profile_of(self.path) if profile is None else profile
        content = self.path.read_bytes()
        rtx = self.backend == "tensorrt_rtx"
        device = self._cuda.device
        key = engine_file.EngineKey(
            self.path.stem,
            hashlib.sha256(content).hexdigest(),
            self.backend,
            tensorrt_library.runtime_version(self.backend),
            "" if rtx else device.name,
            (device.architecture,),
            self.metadata.get("precision", "file"),
            engine_file.profile_key(bounds),
        )
        if cache is None:
            built = self._build(bounds, key)
            self.reasons += (f"engine built in {built.seconds:.1f} s, not kept",)
            self._deserialize(built.engine, self.path)
            return
        file = cache / key.file_name
        with engine_cache.only_builder(file):
            if file.is_file() and not engine_cache.is_foreign(file):
                try:
                    head, engine = engine_file.read_engine(file)
                    engine_file.check_fits(head, key)
                    self._deserialize(engine, file)
                    self.reasons += (f"engine {file.name} from the cache",)
                    return
                except (EngineCorruptError, EngineMismatchError) as error:
                    log.warning("%s: built again: %s", self.path, error)
            built = self._build(bounds, key)
            source = str(self.path.resolve())
            engine_file.write_engine(file, key, built.engine, self.metadata, source, built.seconds)
            engine_cache.remove_stale(engine_file.read_head(file), cache)
            self.reasons += (f"engine {file.name} built in {built.seconds:.1f} s",)
        self._deserialize(built.engine, file)

    def _build(self, bounds: Profile, key: engine_file.EngineKey) -> engine_builder.Build:
        device = self._cuda.device
        log.info("%s: building an engine for %s with %s; this may take minutes", self.path, device, self.backend)
        return engine_builder.build(
            self.backend, self.path, bounds, key.architectures if self.backend == "tensorrt_rtx" else ()
        )

    def _load_file(self) -> None:
        if self.path.suffix != engine_file.SUFFIX:
            # As trtexec writes them, without a head.
            self._deserialize(self.path.read_bytes(), self.path)
            return
        head, engine = engine_file.read_engine(self.path)
        if head.key.runtime != self.backend:
            raise EngineMismatchError(f"{self.path}: the engine is of {head.key.runtime}, expected {self.backend}")
        engine_file.check_runs_here(head, tensorrt_library.runtime_version(self.backend), self._cuda.device)
        self.metadata = head.metadata
        self._deserialize(engine, self.path)

    def _deserialize(self, engine: bytes, file: Path) -> None:
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            said = self._logger.text()
            if is_memory_error(said):
                raise DeviceMemoryError(f"{file}: not enough memory for the engine: {said}")
            if "driver version is insufficient" in said or "no CUDA-capable device" in said:
                raise BackendUnavailableError(f"{self.backend}: its CUDA does not go with this driver: {said}")
            raise EngineCorruptError(f"{file}: {self.backend} refuses the engine: {said}")

    def _make_context(self, cache: Path | None) -> None:
        self._kernels: Any = None
        self._kernel_file: Path | None = None
        if self.backend == "tensorrt_rtx":
            # Kernels are compiled for this GPU at the first run, and kept for a fast next start.
            config = self._engine.create_runtime_config()
            self._kernels = config.create_runtime_cache()
            where = f"{self._cuda.device.architecture}-{tensorrt_library.runtime_version(self.backend)}"
            if cache is not None:
                self._kernel_file = cache / f"{self.path.stem}-{where}.kernels"
                compiled = engine_cache.read_kernels(self._kernel_file)
                if compiled is not None:
                    self._kernels.deserialize(compiled)
            config.set_runtime_cache(self._kernels)
            if self._cuda_graph:
                config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._context = self._engine.create_execution_context(config)
        else:
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceMemoryError(f"{self.path}: not enough memory to run the engine: {self._logger.text()}")

    def _read_specs(self) -> None:
        trt, engine = self._trt, self._engine
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for k in range(engine.num_io_tensors):
            name = engine.get_tensor_name(k)
            shape = tuple(None if s < 0 else int(s) for s in engine.get_tensor_shape(name))
            spec = TensorSpec(name, shape, np.dtype(trt.nptype(engine.get_tensor_dtype(name))))
            (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(spec)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    # Running

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        with self._lock:
            # CUDA's context is current per thread.
            self._cuda.use()
            key = tuple(feeds[s.name].shape for s in self.inputs)
            graph = self._graphs.get(key)
            shapes = self._shapes[key] if graph is not None else self._prepare(key)
            for spec in self.inputs:
                value = feeds[spec.name]
                np.copyto(self._buffers[spec.name].array(value.shape, value.dtype), value)
            if graph is not None:
                graph.launch()
                self._cuda.synchronize()
            else:
                self._enqueue(feeds, shapes)
                self._cuda.synchronize()
            # Copied, as the next run overwrites the pinned memory.
            values = {s.name: self._buffers[s.name].array(shapes[s.name], s.dtype).copy() for s in self.outputs}
            wanted = self._cuda_graph and self.backend == "tensorrt" and graph is None and len(self._graphs) < _GRAPHS
            if wanted:
                self._capture(key, feeds, shapes, values)
            return values

    def _prepare(self, key: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs, with the context set to those of the inputs and enough memory for all."""
        if key == self._current:
            return self._shapes[key]
        context = self._context
        for spec, shape in zip(self.inputs, key, strict=True):
            if not context.set_input_shape(spec.name, shape):
                least, usual, most = (tuple(s) for s in self._engine.get_tensor_profile_shape(spec.name, 0))
                raise InputShapeError(
                    f"{self.path}: input {spec.name!r} has shape {shape}, expected {least} to {most} (the engine's "
                    f"profile, tuned for {usual})"
                )
        sizes: dict[str, tuple[int, ...]] = {}
        for spec in self.outputs:
            shape = tuple(int(n) for n in context.get_tensor_shape(spec.name))
            if min(shape, default=0) < 0:
                raise ModelFileError(
                    f"{self.path}: output {spec.name!r} has a size that follows from the values, {shape}; expected "
                    "sizes that follow from those of the inputs; run it with onnxruntime_cuda"
                )
            sizes[spec.name] = shape
        self._current = None
        for spec, shape in (*zip(self.inputs, key, strict=True), *((s, sizes[s.name]) for s in self.outputs)):
            size = int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize
            held = self._buffers.get(spec.name)
            if held is None or held.size < size:
                # Graphs hold the old address.
                self._drop_graphs()
                if held is not None:
                    held.free()
                    del self._buffers[spec.name]
                self._buffers[spec.name] = cuda.Buffer(self._cuda, size)
            context.set_tensor_address(spec.name, self._buffers[spec.name].address)
        if len(self._shapes) > 4 * _GRAPHS:
            self._shapes = {k: v for k, v in self._shapes.items() if k in self._graphs}
        self._shapes[key], self._current = sizes, key
        return sizes

    def _enqueue(self, feeds: Feeds, shapes: dict[str, tuple[int, ...]]) -> None:
        """Copies and kernels, onto the stream."""
        for spec in self.inputs:
            self._buffers[spec.name].to_device(feeds[spec.name].nbytes)
        if not self._context.execute_async_v3(self._cuda.stream):
            said = self._logger.text()
            kind = DeviceMemoryError if is_memory_error(said) else InferenceError
            raise kind(f"{self.path}: {self.backend} fails: {said}")
        for spec in self.outputs:
            size = int(np.prod(shapes[spec.name], dtype=np.int64)) * spec.dtype.itemsize
            self._buffers[spec.name].to_host(size)

    def _capture(self, key: Any, feeds: Feeds, shapes: dict[str, tuple[int, ...]], values: Feeds) -> None:
        """Capture the last run as a graph, and keep it if its outputs are the same."""
        graph = cuda.Graph(self._cuda)
        try:
            graph.begin()
            try:
                self._enqueue(feeds, shapes)
            except BaseException:
                graph.end(keep=False)
                raise
            graph.end()
            graph.launch()
            self._cuda.synchronize()
            same = all(
                np.allclose(self._buffers[s.name].array(shapes[s.name], s.dtype), values[s.name], 1e-2, 1e-3, True)
                for s in self.outputs
            )
            if not same:
                raise InferenceError("its outputs differ")
        except InferenceError as error:
            log.warning("%s: goes on without CUDA graphs: %s", self.path, error)
            self._cuda_graph = False
            graph.free()
            return
        self._graphs[key] = graph

    def _drop_graphs(self) -> None:
        for graph in self._graphs.values():
            graph.free()
        self._graphs.clear()

    def _release(self) -> None:
        """Free all, in the order of dependence."""
        self._cuda.use()
        file = getattr(self, "_kernel_file", None)
        if file is not None and self._kernels is not None and self._context is not None:
            try:
                engine_cache.write_kernels(file, bytes(self._kernels.serialize()))
            except (OSError, TypeError) as error:
                log.info("%s: compiled kernels are not kept: %s", self.path, error)
        self._drop_graphs()
        self._context = self._kernels = None
        self._engine = None
        self._runtime = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        self._cuda.close()
