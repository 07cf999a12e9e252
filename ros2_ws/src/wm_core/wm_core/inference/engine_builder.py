"""TensorRT engines from ONNX files."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wm_core.inference import tensorrt_library
from wm_core.inference.base import (
    DeviceMemoryError,
    InferenceError,
    ModelFileError,
    Profile,
    expect_file,
    is_memory_error,
    onnx_metadata,
)
from wm_core.inference.tensorrt_library import RTX_ARCHITECTURES, Logger

_WORKSPACE = 1 << 30
"""Bytes of GPU memory that TensorRT may use for a layer. Chosen by hand; larger lets it try faster kernels."""


@dataclass(frozen=True)
class Build:
    """A built engine.

    Attributes:
        engine: as TensorRT serialized it. seconds: time to build it [s].
        layers: count of the network's layers by type; dtypes: count of its tensors by dtype.
    """

    engine: bytes
    seconds: float
    layers: Mapping[str, int] = field(default_factory=dict)
    dtypes: Mapping[str, int] = field(default_factory=dict)


def build(
    name: str,
    path: Path,
    profile: Profile | None = None,
    architectures: Sequence[str] = (),
    workspace_bytes: int = _WORKSPACE,
) -> Build:
    """Build an engine from an ONNX file with TensorRT 10 or 11, or TensorRT-RTX.

    Networks are strongly typed, so that the file alone determines the precision of each operation; TensorRT 11 and
    TensorRT-RTX have no other mode. TF32 stays off: fp32 files are computed in fp32.

    Args:
        name: see ``tensorrt_library.RUNTIMES``.
        profile: bounds of the inputs; None: from the file's metadata ``axes`` (``profile_of``).
        architectures: TensorRT-RTX builds for these without a GPU; empty: for the GPU that is here.

    Raises:
        ImportError: the runtime is not installed.
        ModelFileError: TensorRT refuses the file; the message names its reasons.
        DeviceMemoryError: not enough memory to build it.
        InferenceError: it cannot be built, or not for such an architecture.
    """
    trt = tensorrt_library.load_runtime(name)
    expect_file(path, "an ONNX model")
    profile = profile_of(path) if profile is None else profile
    logger = Logger()
    bound = logger.bound(trt)
    begin = time.perf_counter()
    builder = trt.Builder(bound)
    typed = getattr(getattr(trt, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED", None)
    # TensorRT 11 ignores the flag, or does not have it any more.
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, bound)
    if not parser.parse(path.read_bytes()):
        reasons = [str(parser.get_error(k).desc()).splitlines()[0] for k in range(parser.num_errors)]
        raise ModelFileError(f"{path}: {name} refuses it: {'; '.join(reasons) or logger.text()}")
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if architectures:
        if not hasattr(config, "set_compute_capability"):
            raise InferenceError(
                f"{name}: got architectures {list(architectures)}, expected none: it builds for its GPU"
            )
        known = [a for a in RTX_ARCHITECTURES if hasattr(trt.ComputeCapability, a)]
        unknown = [a for a in architectures if a not in known]
        if unknown:
            raise InferenceError(f"{name}: got architecture {unknown[0]!r}, expected some of {', '.join(known)}")
        config.num_compute_capabilities = len(architectures)
        for k, architecture in enumerate(architectures):
            config.set_compute_capability(getattr(trt.ComputeCapability, architecture), k)
    else:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    inputs = [network.get_input(k) for k in range(network.num_inputs)]
    if any(-1 in tuple(tensor.shape) for tensor in inputs):
        bounds = builder.create_optimization_profile()
        for tensor in inputs:
            if tensor.name not in profile:
                raise ModelFileError(
                    f"{path}: input {tensor.name!r} {tuple(tensor.shape)} has open sizes and no bounds, expected a "
                    "profile, or metadata 'axes' with [least, usual, most] of each"
                )
            bounds.set_shape(tensor.name, *[tuple(s) for s in profile[tensor.name]])
        config.add_optimization_profile(bounds)
    layers: dict[str, int] = {}
    dtypes: dict[str, int] = {}
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        layers[layer.type.name] = layers.get(layer.type.name, 0) + 1
        for i in range(layer.num_outputs):
            kind = layer.get_output(i).dtype.name
            dtypes[kind] = dtypes.get(kind, 0) + 1
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        if is_memory_error(logger.text()):
            raise DeviceMemoryError(f"{path}: {name} has not enough memory to build it: {logger.text()}")
        raise InferenceError(f"{path}: {name} cannot build it: {logger.text()}")
    return Build(bytes(engine), time.perf_counter() - begin, dict(sorted(layers.items())), dict(sorted(dtypes.items())))


def profile_of(path: Path) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Bounds of a file's inputs from its metadata: ``tensors`` has their shapes, ``axes`` the bounds of named sizes.

    Empty where the metadata has none.

    Raises:
        ModelFileError: they cannot be read.
    """
    metadata = onnx_metadata(path)
    if "axes" not in metadata or "tensors" not in metadata:
        return {}
    try:
        axes = {str(k): [int(n) for n in v] for k, v in json.loads(metadata["axes"]).items()}
        found = {}
        for name, tensor in json.loads(metadata["tensors"]).items():
            a, b, c = (tuple(s if isinstance(s, int) else axes[s][k] for s in tensor["shape"]) for k in range(3))
            found[str(name)] = (a, b, c)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{path}: metadata 'axes' {metadata['axes'][:80]!r}: expected {{name: [least, usual, most]}} of every name "
            f"in 'tensors' ({error})"
        ) from error
    return found
