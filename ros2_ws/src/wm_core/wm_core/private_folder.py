"""Folders that hold code to be run: compiled functions, engines, pickles.

Whoever can write into such a folder, or replace it, can run programs as its reader. So it is used only if it belongs to
this user and nobody else may write it, and if the same holds for the folders above it, which may also belong to root
(the rules by which ssh trusts a key file). A manifest of SHA-256 sums shows which files are damaged.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

MANIFEST = "manifest.json"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedFolderError(OSError):
    """A folder that another user can write or replace; the message names the user and the remedy."""


def private_folder(folder: str | Path) -> Path:
    """A folder that only this user can write, resolved; made (mode 0700) where there is none.

    Raises:
        UntrustedFolderError: see ``check_folder``.
        OSError: it cannot be made.
    """
    # Existing folders are checked first, so that nothing is made where others can write.
    path, missing = check_folder(folder)
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        _check(place, place == path)
    return path


def check_folder(folder: str | Path) -> tuple[Path, list[Path]]:
    """Whether ``private_folder`` accepts a folder; makes nothing. Returns it, resolved, and those still to be made.

    Folders above it may belong to root; those that everybody may write (/tmp) have to be sticky, so that nobody can
    move this user's files away. A group may write where it is this user's own and has no other member.

    Raises:
        UntrustedFolderError: somebody else can write it, or a folder above it.
    """
    path = Path(folder).expanduser().resolve()
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for place in (p for p in (path, *path.parents) if p not in missing):
        _check(place, place == path)
    return path, missing


def _check(path: Path, is_last: bool) -> None:
    found = path.stat()
    user = os.geteuid()
    if not stat.S_ISDIR(found.st_mode):
        raise UntrustedFolderError(f"{path}: is no folder, expected one")
    if found.st_uid != user and (is_last or found.st_uid != 0):
        expected = _user_name(user) + ("" if is_last or user == 0 else " or root")
        raise UntrustedFolderError(
            f"{path}: belongs to {_user_name(found.st_uid)}, expected {expected}; "
            f"run: chown {_user_name(user)} {path}, or name another folder"
        )
    if _others_write(found) and (is_last or not found.st_mode & stat.S_ISVTX):
        raise UntrustedFolderError(
            f"{path}: mode {stat.S_IMODE(found.st_mode):04o} lets others write it, expected that only "
            f"{_user_name(user)} may; run: chmod go-w {path}, or name another folder"
        )


def write_atomic(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file such that readers find either all of it or the file before, also with several writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def foreign(path: Path) -> str:
    """Why a file or folder can be written by others; empty where it cannot."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        return "is neither file nor folder"
    if found.st_uid != os.geteuid():
        return f"belongs to {_user_name(found.st_uid)}"
    return "can be written by others" if _others_write(found) else ""


def _others_write(found: os.stat_result) -> bool:
    mode = found.st_mode & _OTHERS_WRITE
    return bool(mode) and not (mode == stat.S_IWGRP and _is_own_group(found.st_gid))


def write_manifest(folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Write the manifest of a folder, without files of the names left out, and let nobody else write its files."""
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & _OTHERS_WRITE and not path.is_symlink():
            path.chmod(mode & ~_OTHERS_WRITE)
    sums = _sums(folder, left_out)
    if _read_manifest(folder) != sums:
        write_atomic(folder / MANIFEST, [json.dumps(sums, indent=1, sort_keys=True).encode() + b"\n"])


def faults(folder: Path, left_out: tuple[str, ...] = ()) -> list[str]:
    """Differences between a folder and its manifest, one phrase each; none for an empty folder.

    Args:
        folder: of ``private_folder``. left_out: names of files that are in no manifest, such as locks.
    """
    # Left by somebody else when the folder was open to others.
    strange = [f"{path.relative_to(folder)} {why}" for path in sorted(folder.rglob("*")) if (why := foreign(path))]
    if strange:
        return strange
    expected, found = _read_manifest(folder), _sums(folder, left_out)
    if expected is None:
        return [f"{MANIFEST} is missing or broken"] if found else []
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"{name} is not in {MANIFEST}" for name in sorted(found.keys() - expected.keys())]
    wrong += [f"{name} was changed" for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    return wrong


def clear(folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Remove the content of a folder, except files of the names left out.

    Raises:
        OSError: something cannot be removed.
    """
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in left_out:
            path.unlink(missing_ok=True)


def _sums(folder: Path, left_out: tuple[str, ...]) -> dict[str, str]:
    ignored = {MANIFEST, *left_out}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (path.parent == folder and path.name in ignored)
    }


def _read_manifest(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else None


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def _is_own_group(number: int) -> bool:
    """Whether a group is the one that a user of that name has alone, as many distributions give each user."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    return user.pw_gid == number and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
