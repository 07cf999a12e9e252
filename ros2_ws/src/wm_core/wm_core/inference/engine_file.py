"""Engine files: a TensorRT engine with all that it depends on, and the checks that it is whole and of use here.

An engine file (``.wmengine``) is one line ``WMENGINE 1``, one line of JSON (its key, metadata, size and SHA-256), and
the engine as TensorRT serialized it. It is written beside its place and moved there, so that it is whole or not there
at all. An engine is code that will be run: use no file from anybody whose program you would not run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wm_core.inference import cuda
from wm_core.inference.base import EngineCorruptError, EngineMismatchError, Profile, expect_file
from wm_core.private_folder import write_atomic

SUFFIX = ".wmengine"
_MAGIC = b"WMENGINE 1\n"
_HEADER_LIMIT = 1 << 20
"""Bytes of the line of JSON at most, so that a damaged file is not read whole in search of its end."""


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on; two engines with the same key are interchangeable.

    Attributes:
        model: stem of the ONNX file; model_sha256: of its content.
        runtime: tensorrt or tensorrt_rtx; runtime_version: of the library that built it.
        gpu: name; empty for TensorRT-RTX, whose engines run on every GPU of their architectures.
        architectures: compute capabilities, e.g. SM89.
        precision: as the ONNX file says, e.g. fp16.
        profile: of each input name, smallest, usual and largest shape.
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
        """Name of its engine's file in the cache."""
        return f"{self.model}-{self.runtime}-{self.precision}-{self.digest[:16]}{SUFFIX}"

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> EngineKey:
        """The key of what ``dataclasses.asdict`` and JSON made of it.

        Raises:
            KeyError, TypeError: a field is missing or of another type.
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
        """Differences from another key, one phrase each: this value and the other."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{k} {mine[k]!r}, expected {theirs[k]!r}" for k in mine if mine[k] != theirs[k] and k != "model"]


def profile_key(
    profile: Profile,
) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]:
    """A profile as part of a key."""
    return tuple(sorted((name, tuple(a), tuple(b), tuple(c)) for name, (a, b, c) in profile.items()))


@dataclass(frozen=True)
class EngineFile:
    """The head of an engine file; see the module.

    Attributes:
        path: of the file. key: what the engine depends on. metadata: of the ONNX file.
        source: the ONNX file that it was built from; empty: not known.
        size: of the engine [bytes]; sha256: of the engine; offset: of the engine in the file [bytes].
        build_seconds: time to build it [s].
    """

    path: Path
    key: EngineKey
    metadata: Mapping[str, str]
    source: str
    size: int
    sha256: str
    build_seconds: float
    offset: int


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
        EngineCorruptError: it is no engine file, or is truncated.
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
        ModelFileError, EngineCorruptError: as ``read_head``; or the engine's checksum differs.
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
    """Compare the key of an engine file with the key expected.

    Raises:
        EngineMismatchError: names all that differs.
    """
    differences = found.key.differences(expected)
    if differences:
        raise EngineMismatchError(f"{found.path}: the engine is of {'; '.join(differences)}")


def check_runs_here(found: EngineFile, installed: str, device: cuda.Device) -> None:
    """Whether an engine file that was built elsewhere can run on this machine.

    Args:
        installed: version of the runtime here; device: the GPU here.

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
