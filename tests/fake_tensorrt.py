"""A stand-in for the Python module of TensorRT, on core/fake_cuda.c: the calls that wm_core makes, of 10, 11 and RTX.

An "engine" is the ONNX file; a "kernel" runs it with ONNX Runtime on what lies in the memory of the "device". So
numbers really go through the buffers, copies and graphs of ``wm_core.inference.tensor_rt``; what it does not tell is
whether NVIDIA's libraries do as their documentation says.
"""

from __future__ import annotations

import ctypes
import json
import types
from enum import IntEnum
from typing import Any

import numpy as np

_MARK = b"STANDIN\n"


class Driver:
    """tests/core/fake_cuda.c, compiled."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.fake_notes.restype = ctypes.c_char_p
        self._kernel = ctypes.CFUNCTYPE(None)
        self._kept: list[Any] = []

    def calls(self) -> list[str]:
        """Since the last time."""
        found = self.library.fake_notes().decode().split()
        self.library.fake_forget()
        return found

    def kernel(self, run: Any) -> None:
        """Put a function on the stream."""
        self._kept.append(self._kernel(run))
        self.library.fake_kernel(self._kept[-1])


def module(name: str, version: str, driver: Driver, calls: list[str]) -> types.ModuleType:
    """A module of this version; ``calls`` notes what is asked of it."""
    import onnxruntime

    trt: Any = types.ModuleType(name)
    trt.__version__ = version
    major = int(version.partition(".")[0])
    rtx = name == "tensorrt_rtx"

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2

    class Severity(IntEnum):
        STRONGLY_TYPED = 1

    class DataType(IntEnum):
        FLOAT = 0

    trt.ILogger = ILogger
    trt.BuilderFlag = types.SimpleNamespace(TF32="TF32")
    trt.ProfilingVerbosity = types.SimpleNamespace(DETAILED=2)
    trt.MemoryPoolType = types.SimpleNamespace(WORKSPACE=0)
    trt.TensorIOMode = types.SimpleNamespace(INPUT=1, OUTPUT=2)
    trt.DataType = DataType
    trt.nptype = lambda dtype: np.float32
    if major < 11:
        trt.NetworkDefinitionCreationFlag = Severity
    if rtx:
        trt.ComputeCapability = types.SimpleNamespace(SM89=89, SM120=120)
        trt.CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    class Tensor:
        def __init__(self, name: str, shape: Any) -> None:
            self.name, self.shape, self.dtype = name, shape, DataType.FLOAT

    class Network:
        def __init__(self, flags: int) -> None:
            calls.append(f"create_network({flags})")
            self.inputs: list[Tensor] = []
            self.num_layers = 1

        @property
        def num_inputs(self) -> int:
            return len(self.inputs)

        def get_input(self, k: int) -> Tensor:
            return self.inputs[k]

        def get_layer(self, k: int) -> Any:
            return types.SimpleNamespace(
                type=types.SimpleNamespace(name="ELEMENTWISE"), num_outputs=1, get_output=lambda i: Tensor("y", (-1,))
            )

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: Network, logger: Any) -> None:
            self.network = network

        def parse(self, content: bytes) -> bool:
            try:
                session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            except Exception:
                return False
            for value in session.get_inputs():
                self.network.inputs.append(
                    Tensor(value.name, tuple(s if isinstance(s, int) else -1 for s in value.shape))
                )
            self.network.content = content  # type: ignore[attr-defined]
            return True

        def get_error(self, k: int) -> Any:
            return types.SimpleNamespace(desc=lambda: "it is no model")

    class Profile:
        def __init__(self) -> None:
            self.shapes: dict[str, Any] = {}

        def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
            self.shapes[name] = [least, usual, most]

    class Config:
        profiling_verbosity = 0

        def __init__(self) -> None:
            self.profile: dict[str, Any] = {}

        def clear_flag(self, flag: str) -> None:
            calls.append(f"clear_flag({flag})")

        def set_memory_pool_limit(self, pool: int, size: int) -> None:
            calls.append("set_memory_pool_limit")

        def add_optimization_profile(self, profile: Profile) -> None:
            self.profile = profile.shapes

    if rtx:

        def set_compute_capability(self: Config, capability: int, k: int) -> None:
            calls.append(f"set_compute_capability({capability})")

        Config.set_compute_capability = set_compute_capability  # type: ignore[attr-defined]

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int = 0) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
            calls.append("build_serialized_network")
            if trt.fail == "build":
                self.logger.log(ILogger.ERROR, trt.fail_text)
                return None
            return _MARK + json.dumps(config.profile).encode() + b"\n" + network.content

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine, self.shapes, self.addresses = engine, {}, {}

        def set_input_shape(self, name: str, shape: Any) -> bool:
            bounds = self.engine.profile.get(name)
            if bounds and not all(a <= n <= c for a, n, c in zip(bounds[0], shape, bounds[2], strict=True)):
                return False
            self.shapes[name] = tuple(shape)
            return True

        def get_tensor_shape(self, name: str) -> Any:
            return (-1,) if trt.fail == "data-dependent" else self.engine.shapes_of(self.shapes)[name]

        def set_tensor_address(self, name: str, address: int) -> None:
            self.addresses[name] = address

        def execute_async_v3(self, stream: int) -> bool:
            assert stream
            if trt.fail == "execute":
                self.engine.logger.log(ILogger.ERROR, trt.fail_text)
                return False
            shapes, addresses = dict(self.shapes), dict(self.addresses)

            def view(name: str, shape: Any) -> Any:
                memory = (ctypes.c_float * int(np.prod(shape))).from_address(addresses[name])
                return np.frombuffer(memory, np.float32).reshape(shape)

            def run() -> None:
                values = self.engine.session.run(None, {n: view(n, s).copy() for n, s in shapes.items()})
                for value, name in zip(values, self.engine.outputs, strict=True):
                    view(name, value.shape)[...] = value * trt.wrong
                    # As in a graph that was captured with other memory than the one it runs with.

            driver.kernel(run)
            return True

    class Engine:
        def __init__(self, content: bytes, logger: Any) -> None:
            head, _, model = content[len(_MARK) :].partition(b"\n")
            self.profile, self.logger = json.loads(head), logger
            self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            self.inputs = {v.name: v.shape for v in self.session.get_inputs()}
            self.outputs = {v.name: v.shape for v in self.session.get_outputs()}
            self.num_io_tensors = len(self.inputs) + len(self.outputs)

        def get_tensor_name(self, k: int) -> str:
            return [*self.inputs, *self.outputs][k]

        def get_tensor_shape(self, name: str) -> Any:
            return tuple(s if isinstance(s, int) else -1 for s in {**self.inputs, **self.outputs}[name])

        def get_tensor_dtype(self, name: str) -> int:
            return DataType.FLOAT

        def get_tensor_mode(self, name: str) -> int:
            return 1 if name in self.inputs else 2

        def get_tensor_profile_shape(self, name: str, k: int) -> Any:
            return self.profile[name]

        def shapes_of(self, given: dict[str, Any]) -> dict[str, Any]:
            zeros = {n: np.zeros(s, np.float32) for n, s in given.items()}
            return {n: v.shape for n, v in zip(self.outputs, self.session.run(None, zeros), strict=True)}

        def create_execution_context(self, config: Any = None) -> Context | None:
            calls.append(f"create_execution_context(graphs={getattr(config, 'cuda_graph_strategy', None)})")
            return None if trt.fail == "context" else Context(self)

    if rtx:

        class Cache:
            content = b""

            def deserialize(self, content: bytes) -> bool:
                calls.append(f"cache.deserialize({len(content)})")
                return True

            def serialize(self) -> bytes:
                return b"kernels"

        class RuntimeConfig:
            cuda_graph_strategy = None

            def create_runtime_cache(self) -> Cache:
                return Cache()

            def set_runtime_cache(self, cache: Cache) -> None:
                calls.append("set_runtime_cache")

        Engine.create_runtime_config = lambda self: RuntimeConfig()  # type: ignore[attr-defined]

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            calls.append("deserialize_cuda_engine")
            if trt.fail == "deserialize" or not content.startswith(_MARK):
                self.logger.log(ILogger.ERROR, trt.fail_text or "magic tag does not match")
                return None
            return Engine(content, self.logger)

    trt.OnnxParser, trt.Builder, trt.Runtime = OnnxParser, Builder, Runtime
    trt.fail, trt.fail_text, trt.wrong = "", "", 1.0
    return trt
