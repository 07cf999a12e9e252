"""Stamps of what set-up has done: a step is skipped while its key, a hash of all it depends on, is unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Iterable

from setup_steps.settings import VENV


def digest(parts: Iterable[str | Path]) -> str:
    """Hash of texts and of the contents of files; a missing file counts as empty."""
    total = hashlib.sha256()
    for part in parts:
        data = (part.read_bytes() if part.is_file() else b"") if isinstance(part, Path) else part.encode()
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()


def stamp_file(name: str) -> Path:
    """Where the stamp of a step lies; deleting .venv deletes all stamps."""
    return VENV / "wm-stamps" / name


def stamped(name: str, key: str) -> bool:
    """Whether the step was last done with this very key."""
    file = stamp_file(name)
    return file.exists() and file.read_text() == key


def write_stamp(name: str, key: str) -> None:
    """Notes that the step is done."""
    stamp_file(name).parent.mkdir(parents=True, exist_ok=True)
    stamp_file(name).write_text(key)
