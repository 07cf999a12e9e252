"""The cache of the compiled contact step on disk, and its verification.

Numba keeps compiled functions as pickles, and reading a pickle runs code. So they are read only from a folder that this
user alone can write, and only where they match the manifest beside them; anything else is removed and compiled again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wm_core.constants import GRAVITY_M_S2
from wm_core.private_folder import UntrustedFolderError, clear, faults, private_folder, write_manifest

log = logging.getLogger(__name__)

SOURCES = (
    "simd.py",
    "simd_array.py",
    "numbers.py",
    "records.py",
    "emission.py",
    "formulas/mechanics.py",
    "formulas/ground.py",
    "formulas/nearest.py",
    "formulas/pairs.py",
    "formulas/network.py",
    "formulas/motion.py",
    "kernel.py",
    "rollout_tables.py",
    "broad_phase_kernel.py",
    "parts_kernel.py",
    "waking_kernel.py",
    "compilable.py",
    "manifold.py",
    "overlaps.py",
    "overlaps_kernel.py",
    "rollout_kernel.py",
    "sleeping.py",
    "body_tables.py",
    "part_shapes.py",
)
"""What is compiled depends on these files of this folder."""
COMPILED_FUNCTIONS = 2
"""Number of functions whose compiled code is kept."""
COMPILE_S = 30
"""About how long a first compilation takes [s]; for the log."""
_LOCK = "lock"

_kept = False


def is_kept() -> bool:
    """Whether functions that are declared now are to be read from the disk and kept there: within ``opened`` alone."""
    return _kept


def cache_folder() -> Path:
    """Where compiled code is kept: a folder for each version in ``NUMBA_CACHE_DIR``, or in the user's cache.

    Raises:
        RuntimeError: neither is known: the user has no home.
    """
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    digest.update(f"gravity {GRAVITY_M_S2}".encode())
    for package in ("numba", "llvmlite", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}".encode())
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen) / digest.hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wm" / "numba" / digest.hexdigest()[:16]


def trusted_folder() -> Path | None:
    """``cache_folder``, made where there is none; None, with the reason in the log, where it cannot be used."""
    try:
        folder = cache_folder()
    except RuntimeError as error:
        log.warning("the contact step is compiled anew at every start: %s; set NUMBA_CACHE_DIR or HOME", error)
        return None
    try:
        folder = private_folder(folder)
        folder.chmod(0o700)
    except UntrustedFolderError as error:
        log.warning("the contact step is compiled anew at every start, because its cache cannot be trusted: %s", error)
        return None
    except OSError as error:
        log.warning("%s: cannot be written (%s), so the contact step is compiled anew at every start", folder, error)
        return None
    return folder


@contextlib.contextmanager
def opened() -> Iterator[None]:
    """Functions that are declared within are read from the cache where it is whole, and kept in it.

    Of several processes that start at once, one compiles and the others wait for what it made.
    """
    global _kept
    import numba.core.config

    config: Any = numba.core.config  # its attributes are made at run time
    folder = trusted_folder()
    before = config.CACHE_DIR
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(only_one(folder))
            wrong = faults(folder, (_LOCK,))
            if wrong:
                log.warning("%s: %s; compiled again", folder, "; ".join(wrong[:3]))
                clear(folder, (_LOCK,))
        if folder is None or len(list(folder.rglob("*.nbc"))) < COMPILED_FUNCTIONS:
            log.warning("compiling the contact step for this processor, once, about %d s", COMPILE_S)
        try:
            _kept = folder is not None
            # Numba reads the folder as functions are declared.
            config.CACHE_DIR = str(folder) if folder is not None else before
            yield
            if folder is not None:
                write_manifest(folder, (_LOCK,))
        finally:
            _kept = False
            config.CACHE_DIR = before


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Held by one process at a time."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
