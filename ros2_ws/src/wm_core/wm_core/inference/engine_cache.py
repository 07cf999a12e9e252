"""The folder in which engines and compiled kernels are kept from start to start."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from wm_core.inference import cuda, tensorrt_library
from wm_core.inference.base import InferenceError
from wm_core.inference.engine_file import SUFFIX, EngineFile, read_head
from wm_core.private_folder import UntrustedFolderError, foreign, private_folder, write_atomic

log = logging.getLogger(__name__)

_KERNELS_MAGIC = b"WMKERNELS 1\n"


def cache_folder() -> Path:
    """Where engines are kept: ``WM_ENGINE_CACHE``, else ``wm/engines`` in the user's cache folder."""
    named = os.environ.get("WM_ENGINE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wm" / "engines"


def trusted_cache(folder: Path | None = None) -> Path | None:
    """``folder``, or else ``cache_folder()``, made where there is none; None, with the reason in the log, where
    somebody else could write it, as its files are code that is run.
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
    """Whether others can write a file in a trusted folder, as before it became trusted; the reason is logged."""
    why = foreign(file)
    if why:
        log.warning("%s: %s; it is not used", file, why)
    return bool(why)


def write_kernels(path: Path, kernels: bytes) -> None:
    """Write kernels that TensorRT-RTX compiled, behind their SHA-256."""
    write_atomic(path, [_KERNELS_MAGIC, hashlib.sha256(kernels).hexdigest().encode() + b"\n", kernels])


def read_kernels(path: Path) -> bytes | None:
    """Kernels of ``write_kernels``; None where there is no such file, or a damaged one, which is logged."""
    if not path.is_file() or is_foreign(path):
        return None
    magic, _, rest = path.read_bytes().partition(b"\n")
    digest, _, kernels = rest.partition(b"\n")
    if magic + b"\n" == _KERNELS_MAGIC and hashlib.sha256(kernels).hexdigest().encode() == digest:
        return kernels
    log.warning("%s: broken, or of an older version; kernels are compiled again", path)
    return None


def state_of(found: EngineFile) -> tuple[bool, str]:
    """Whether an engine in the cache can still be used, and why not."""
    source = Path(found.source)
    if found.source and not source.is_file():
        return False, f"its model {source} is gone"
    if found.source and hashlib.sha256(source.read_bytes()).hexdigest() != found.key.model_sha256:
        return False, f"its model {source} has changed"
    installed = tensorrt_library.runtime_version(found.key.runtime)
    if installed and installed != found.key.runtime_version:
        return False, f"built by {found.key.runtime} {found.key.runtime_version}, {installed} is installed"
    device = cuda.probe()
    if isinstance(device, cuda.Device) and device.architecture not in found.key.architectures:
        return False, f"for {', '.join(found.key.architectures)}, the GPU is {device.architecture}"
    if isinstance(device, cuda.Device) and found.key.gpu not in ("", device.name):
        return False, f"for {found.key.gpu}, the GPU is {device.name}"
    return True, "fits"


def cached(folder: Path | None = None) -> Iterator[tuple[Path, EngineFile | InferenceError]]:
    """The engine files in the cache, with their heads or the error in reading them."""
    for path in sorted((folder or cache_folder()).glob(f"*{SUFFIX}")):
        try:
            yield path, read_head(path)
        except InferenceError as error:
            yield path, error


def remove_stale(kept: EngineFile, folder: Path) -> list[Path]:
    """Remove older engines of the ONNX file, runtime, GPU and profile of one just built; returns their paths."""
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
    """A lock on ``path`` between processes, so that two nodes do not build one engine twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            log.info("%s: no file locks here; an engine may be built twice", path.parent)
        yield
