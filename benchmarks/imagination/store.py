"""Results on disk that are made again only when the code or the weights that they depend on have changed."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from wm_core.private_folder import private_folder

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "out" / "bench" / "cache"

T = TypeVar("T")


def fingerprint(files: Iterable[Path]) -> str:
    """A short hash of the contents of files (of those that are there)."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.is_file():
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def cached(name: str, key: str, make: Callable[[], T], folder: Path | None = None) -> T:
    """What ``make`` returns, or returned last time for this name and key; what is kept of other keys is deleted.

    Results are kept as pickles, so only in a folder that nobody else can write.

    Raises:
        UntrustedFolderError: somebody else can write the folder.
    """
    where = private_folder(folder or FOLDER)
    path = where / f"{name}-{key}.pickle"
    if path.is_file():
        with path.open("rb") as file:
            found: Any = pickle.load(file)
        return found
    result = make()
    for old in where.glob(f"{name}-*.pickle"):
        if old.name.rsplit("-", 1)[0] == name:
            old.unlink(missing_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    temporary.write_bytes(pickle.dumps(result))
    temporary.replace(path)
    return result
