"""The files of trained models."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import lru_cache
from pathlib import Path

SHIPPED = ("segmenter", "reasoner")
"""Names of the models that come with the package, where they have been trained."""


class ModelError(ValueError):
    """A model that cannot be used; the message names the file, the fault, what was found and what was expected."""


def model_folders() -> list[Path]:
    """Folders searched for shipped models: beside the sources, then the installed share folders."""
    folders = [Path(__file__).resolve().parents[2] / "models"]
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders += [Path(prefix) / "share" / "wm_perception" / "models" for prefix in [*prefixes, sys.prefix]]
    return [f for f in folders if f.is_dir()]


def shipped_model(name: str) -> Path | None:
    """The ONNX file of a shipped model, or None where none is installed."""
    return next((f / f"{name}.onnx" for f in model_folders() if (f / f"{name}.onnx").is_file()), None)


def model_path(name: str, given: str = "") -> Path:
    """The file to load: the one given, or else the shipped one.

    Raises:
        ModelError: it is not there.
    """
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no such file"
            raise ModelError(f"{name} model {path}: {what}, expected an ONNX file ({name}_model)")
        return path
    found = shipped_model(name)
    if found is None:
        places = ", ".join(str(f) for f in model_folders()) or "no folder wm_perception/models at all"
        raise ModelError(f"{name} model: no {name}.onnx in {places}; run: make train-{name}")
    return found


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)
