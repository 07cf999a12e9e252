"""TensorRT engines: building them from ONNX, and keeping them in files that say what they are of.

An engine file (``.wmengine``) is one line ``WMENGINE 1``, one line of JSON (its key, metadata, size and SHA-256), and
the engine as TensorRT serialized it. One file, written beside its place and moved there, so that it is whole or not
there at all. An engine is code that will be run: take files from nobody you would not take a program from.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wm_core.inference import cuda
from wm_core.inference.base import (
    BackendStatus,
    DeviceMemoryError,
    EngineCorruptError,
    EngineMismatchError,
    InferenceError,
    ModelFileError,
    Profile,
    expect_file,
    is_memory_error,
    onnx_metadata,
)
from wm_core.private_folder import UntrustedFolderError, foreign, private_folder, write_atomic

log = logging.getLogger(__name__)

RUNTIMES = ("tensorrt", "tensorrt_rtx")
SUFFIX = ".wmengine"
_MAGIC = b"WMENGINE 1\n"
_HEADER_LIMIT = 1 << 20
_WORKSPACE = 1 << 30
RTX_ARCHITECTURES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""What TensorRT-RTX 1.7 builds for; Jetson and data-center GPUs of other numbers take standard TensorRT."""


# What an engine is of.


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on; two engines with one key are interchangeable.

    Attributes:
        model: stem of the ONNX file; ``model_sha256``: of its content.
        runtime: tensorrt or tensorrt_rtx; ``runtime_version``: of the library that built it.
        gpu: its name; empty for TensorRT-RTX, whose engines serve every GPU of their architectures.
        architectures: compute capabilities, e.g. SM89.
        precision: as the ONNX file says, e.g. fp16.
        profile: of each input, least, usual and most shape.
    """

    model: str
    model_sha256: str
    runtime: str
    runtime_version: str
    gpu: str
    architectures: tuple[str, ...]
    precision: str
    profile: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """Of its engine in the cache."""
        return f"{self.model}-{self.runtime}-{self.precision}-{self.digest[:16]}{SUFFIX}"

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> EngineKey:
        """From what ``dataclasses.asdict`` and JSON made of one.

        Raises:
            KeyError, TypeError: something is missing or of another kind.
        """
        profile = tuple((str(n), tuple(a), tuple(b), tuple(c)) for n, a, b, c in values["profile"])
        return EngineKey(
            str(values["model"]),
            str(values["model_sha256"]),
            str(values["runtime"]),
            str(values["runtime_version"]),
            str(values["gpu"]),
            tuple(str(a) for a in values["architectures"]),
            str(values["precision"]),
            profile,
        )

    def differences(self, other: EngineKey) -> list[str]:
        """What is not the same in another key, one phrase each: what is here, and what is there."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{k} {mine[k]!r}, expected {theirs[k]!r}" for k in mine if mine[k] != theirs[k] and k != "model"]


def profile_key(
    profile: Profile,
) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]:
    """A profile as part of a key."""
    return tuple(sorted((name, tuple(a), tuple(b), tuple(c)) for name, (a, b, c) in profile.items()))


@dataclass(frozen=True)
class EngineFile:
    """The head of an engine file: see the module. ``source``: the ONNX file that it was built from."""

    path: Path
    key: EngineKey
    metadata: Mapping[str, str]
    source: str
    size: int
    sha256: str
    build_seconds: float
    offset: int


# Files.


def cache_folder() -> Path:
    """Where engines are kept: ``WM_ENGINE_CACHE``, else ``wm/engines`` in the user's cache folder."""
    named = os.environ.get("WM_ENGINE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wm" / "engines"


def trusted_cache(folder: Path | None = None) -> Path | None:
    """``folder``, or else ``cache_folder()``, made where there is none; None, with the reason in the log, where
    somebody else could write it: what lies there is code that would be run.
    """
    chosen = folder or cache_folder()
    try:
        return private_folder(chosen)
    except UntrustedFolderError as error:
        log.warning("engines are built anew at every start, because their cache cannot be trusted: %s", error)
    except OSError as error:
        log.warning("engines are built anew at every start, because %s cannot be made: %s", chosen, error)
    return None


def is_foreign(file: Path) -> bool:
    """Whether a file in a trusted folder was left there by somebody else when it was not; said in the log."""
    why = foreign(file)
    if why:
        log.warning("%s: %s; it is not used", file, why)
    return bool(why)


_KERNELS_MAGIC = b"WMKERNELS 1\n"


def write_kernels(path: Path, kernels: bytes) -> None:
    """Write kernels that TensorRT-RTX compiled, behind their SHA-256."""
    write_atomic(path, [_KERNELS_MAGIC, hashlib.sha256(kernels).hexdigest().encode() + b"\n", kernels])


def read_kernels(path: Path) -> bytes | None:
    """What ``write_kernels`` wrote; None, with the reason in the log, where there is none, or not that."""
    if not path.is_file() or is_foreign(path):
        return None
    magic, _, rest = path.read_bytes().partition(b"\n")
    digest, _, kernels = rest.partition(b"\n")
    if magic + b"\n" == _KERNELS_MAGIC and hashlib.sha256(kernels).hexdigest().encode() == digest:
        return kernels
    log.warning("%s: broken, or of an older version; kernels are compiled again", path)
    return None


def write_engine(
    path: Path, key: EngineKey, engine: bytes, metadata: Mapping[str, str], source: str = "", seconds: float = 0.0
) -> Path:
    """Write an engine file."""
    head = {
        "key": asdict(key),
        "metadata": dict(metadata),
        "source": source,
        "size": len(engine),
        "sha256": hashlib.sha256(engine).hexdigest(),
        "build_seconds": round(seconds, 3),
    }
    write_atomic(path, [_MAGIC, json.dumps(head).encode() + b"\n", engine])
    return path


def read_head(path: Path) -> EngineFile:
    """The head of an engine file, without its engine.

    Raises:
        ModelFileError: there is no such file.
        EngineCorruptError: it is no engine file, or is cut off.
    """
    expect_file(path, f"an engine file ({SUFFIX})")
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
        if magic != _MAGIC:
            raise EngineCorruptError(f"{path}: begins with {magic[:16]!r}, expected {_MAGIC!r}")
        line = file.readline(_HEADER_LIMIT)
    try:
        head = json.loads(line)
        found = EngineFile(
            path,
            EngineKey.from_json(head["key"]),
            {str(k): str(v) for k, v in head["metadata"].items()},
            str(head["source"]),
            int(head["size"]),
            str(head["sha256"]),
            float(head["build_seconds"]),
            len(_MAGIC) + len(line),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineCorruptError(f"{path}: its head is no JSON of an engine ({error})") from error
    size = path.stat().st_size - found.offset
    if size != found.size:
        raise EngineCorruptError(f"{path}: has {size} bytes of engine, expected {found.size}")
    return found


def read_engine(path: Path) -> tuple[EngineFile, bytes]:
    """An engine file, with its checksum compared.

    Raises:
        ModelFileError, EngineCorruptError: as ``read_head``; or its content was changed.
    """
    head = read_head(path)
    with path.open("rb") as file:
        file.seek(head.offset)
        engine = file.read()
    digest = hashlib.sha256(engine).hexdigest()
    if digest != head.sha256:
        raise EngineCorruptError(f"{path}: the engine's sha256 is {digest}, expected {head.sha256}")
    return head, engine


def check_fits(found: EngineFile, expected: EngineKey) -> None:
    """Compare what an engine file is of with what is wanted here.

    Raises:
        EngineMismatchError: names everything that differs.
    """
    differences = found.key.differences(expected)
    if differences:
        raise EngineMismatchError(f"{found.path}: the engine is of {'; '.join(differences)}")


def check_runs_here(found: EngineFile, status: BackendStatus, installed: str, device: cuda.Device) -> None:
    """Whether an engine file that somebody else built can run on this machine.

    Raises:
        EngineMismatchError: another runtime version, GPU or compute capability.
    """
    key, wrong = found.key, []
    if key.runtime_version != installed:
        wrong.append(f"{key.runtime} {key.runtime_version}, expected {installed}")
    if device.architecture not in key.architectures:
        wrong.append(f"compute capability {', '.join(key.architectures)}, expected {device.architecture}")
    elif key.gpu and key.gpu != device.name:
        wrong.append(f"GPU {key.gpu!r}, expected {device.name!r}")
    if wrong:
        raise EngineMismatchError(f"{found.path}: the engine is of {'; '.join(wrong)}; build it here: wm export")


def state_of(found: EngineFile) -> tuple[bool, str]:
    """Whether an engine in the cache is still of use, and why not."""
    source = Path(found.source)
    if found.source and not source.is_file():
        return False, f"its model {source} is gone"
    if found.source and hashlib.sha256(source.read_bytes()).hexdigest() != found.key.model_sha256:
        return False, f"its model {source} has changed"
    installed = runtime_version(found.key.runtime)
    if installed and installed != found.key.runtime_version:
        return False, f"built by {found.key.runtime} {found.key.runtime_version}, {installed} is installed"
    device = cuda.probe()
    if isinstance(device, cuda.Device) and device.architecture not in found.key.architectures:
        return False, f"for {', '.join(found.key.architectures)}, the GPU is {device.architecture}"
    if isinstance(device, cuda.Device) and found.key.gpu not in ("", device.name):
        return False, f"for {found.key.gpu}, the GPU is {device.name}"
    return True, "fits"


def cached(folder: Path | None = None) -> Iterator[tuple[Path, EngineFile | InferenceError]]:
    """The engine files in the cache, with their heads or what is wrong with them."""
    for path in sorted((folder or cache_folder()).glob(f"*{SUFFIX}")):
        try:
            yield path, read_head(path)
        except InferenceError as error:
            yield path, error


def remove_stale(kept: EngineFile, folder: Path) -> list[Path]:
    """Remove engines of the same ONNX file, runtime, GPU and profile as one just built that it takes the place of."""
    gone = []
    for path, found in cached(folder):
        if path == kept.path or not isinstance(found, EngineFile) or not kept.source or found.source != kept.source:
            continue
        same = ("runtime", "gpu", "architectures", "profile")
        if all(getattr(found.key, k) == getattr(kept.key, k) for k in same):
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


@contextlib.contextmanager
def only_builder(path: Path) -> Iterator[None]:
    """Held by one process at a time, so that two nodes do not build one engine twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            log.info("%s: no file locks here; an engine may be built twice", path.parent)
        yield


# Building.


class Logger:
    """Keeps what TensorRT says, so that an error can repeat it, and hands warnings on."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=40)

    def bound(self, trt: Any) -> Any:
        """As a logger of this TensorRT module."""
        lines = self.lines

        class Bound(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    lines.append(message)
                    log.debug("%s: %s", trt.__name__, message)
                elif severity == trt.ILogger.WARNING:
                    log.debug("%s: %s", trt.__name__, message)

        return Bound()

    def text(self) -> str:
        """The last errors, in one line."""
        return "; ".join(list(self.lines)[-3:]) or "it gave no reason"


@dataclass(frozen=True)
class Build:
    """An engine, how long it took [s], and what the network was: layers by type, tensors by dtype."""

    engine: bytes
    seconds: float
    layers: Mapping[str, int] = field(default_factory=dict)
    dtypes: Mapping[str, int] = field(default_factory=dict)


def runtime_module(name: str) -> str | None:
    """The installed module of a TensorRT runtime; None where there is none.

    The packages of NVIDIA are one that has only a name and depends on bindings and libraries; those suffice.
    """
    return next((m for m in (name, f"{name}_bindings") if importlib.util.find_spec(m) is not None), None)


def load_runtime(name: str) -> Any:
    """The Python module of a TensorRT runtime.

    Raises:
        ImportError: it is not installed, or its libraries are missing.
    """
    return importlib.import_module(runtime_module(name) or name)


def runtime_version(name: str) -> str:
    """Of the installed runtime; empty where there is none."""
    dashed = name.replace("_", "-")
    for distribution in (name, *(f"{dashed}-cu{n}{end}" for n in (13, 12) for end in ("", "-bindings"))):
        with contextlib.suppress(PackageNotFoundError):
            return version(distribution)
    try:
        return str(load_runtime(name).__version__)
    except Exception:  # missing, or its libraries are
        return ""


def build(
    name: str,
    path: Path,
    profile: Profile | None = None,
    architectures: Sequence[str] = (),
    workspace_bytes: int = _WORKSPACE,
) -> Build:
    """Build an engine from an ONNX file with TensorRT 10 or 11, or TensorRT-RTX.

    Networks are strongly typed, so that the file alone says what is computed in which precision: TensorRT 11 and
    TensorRT-RTX know nothing else. TF32 stays off: an fp32 file is meant.

    Args:
        name: see ``RUNTIMES``.
        profile: bounds of the inputs; None: from the file's metadata ``axes`` (``profile_of``).
        architectures: TensorRT-RTX builds for these without a GPU; empty: for the GPU that is here.

    Raises:
        ImportError: the runtime is not installed.
        ModelFileError: TensorRT refuses the file; the message has its reasons.
        DeviceMemoryError: not enough memory to build it.
        InferenceError: it cannot be built, or not for such an architecture.
    """
    trt = load_runtime(name)
    expect_file(path, "an ONNX model")
    profile = profile_of(path) if profile is None else profile
    logger = Logger()
    bound = logger.bound(trt)
    begin = time.perf_counter()
    builder = trt.Builder(bound)
    typed = getattr(getattr(trt, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED", None)
    # TensorRT 11 takes the flag for nothing, or has it no more.
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

    Empty where the metadata does not say.

    Raises:
        ModelFileError: what it says is not understood.
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
