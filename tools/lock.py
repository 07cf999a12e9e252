#!/usr/bin/env python3
"""Resolves every file in requirements/ on every supported Python and writes the locks.

    python3 tools/lock.py            # needs python3.10 ... python3.13 on PATH or under ~/.pyenv/versions
    python3 tools/lock.py --distro jazzy     # that distribution's lock alone; the rest stays as it is locked
    python3 tools/lock.py --keep     # what is locked keeps its version; what a requirement file has gained is added

lock.txt holds everything, with the ROS packages of Kilted; lock-jazzy.txt holds the ROS packages of Jazzy, which
replace those of the same names. The oldest Python is resolved first and its choice is imposed on the others, so that
one version serves all wherever such a version exists; where none does, the lock has one line per range of Pythons,
with a marker.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from setup_steps.python_choice import find_interpreter
from setup_steps.settings import PIP_VERSION, REQUIREMENTS, SUPPORTED, WHEELS_ONLY

GROUPS = ["build", "ros-kilted", "runtime", "test", "lint", "docs", "training", "export", "household"]
JAZZY_GROUPS = ["ros-jazzy"]


class LockError(Exception):
    """What stands in the way of a lock, in one line."""


def resolve(python: str, groups: Sequence[str], constraints: Sequence[str]) -> dict[str, str]:
    """What pip would install on this interpreter, name -> version; raises CalledProcessError where it cannot."""
    folder = Path(tempfile.mkdtemp(prefix="wm-lock-"))
    try:
        venv = folder / "venv"
        subprocess.run([python, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin/pip"), "install", "-q", f"pip=={PIP_VERSION}"], check=True)
        constraint_file = folder / "constraints.txt"
        constraint_file.write_text("".join(f"{line}\n" for line in constraints))
        report = folder / "report.json"
        command = [str(venv / "bin/pip"), "install", "-q", "--dry-run", "--ignore-installed", *WHEELS_ONLY]
        command += ["--report", str(report), "-c", str(constraint_file)]
        for group in groups:
            command += ["-r", str(REQUIREMENTS / f"{group}.txt")]
        subprocess.run(command, check=True)
        found = {}
        for item in json.loads(report.read_text())["install"]:
            name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
            found[name] = item["metadata"]["version"].partition("+")[0]
        return found
    finally:
        shutil.rmtree(folder)


def resolve_everywhere(groups: Sequence[str], fixed: Sequence[str] = ()) -> dict[tuple[int, int], dict[str, str]]:
    """What pip would install on every supported Python; ``fixed``: lines of constraints that always hold."""
    resolved: dict[tuple[int, int], dict[str, str]] = {}
    chosen: dict[str, str] = {}
    for version in SUPPORTED:
        python = find_interpreter(version)
        if python is None:
            raise LockError(f"no python{version[0]}.{version[1]} on PATH or under ~/.pyenv/versions")
        print(f"lock: {', '.join(groups)} on Python {version[0]}.{version[1]} ...", flush=True)
        try:
            pins = [f"{name}=={pick}" for name, pick in sorted(chosen.items())]
            resolved[version] = resolve(python, groups, [*fixed, *pins])
        except subprocess.CalledProcessError:
            print("lock: the older Pythons' versions do not serve here; resolving afresh", flush=True)
            resolved[version] = resolve(python, groups, fixed)
        chosen = {**resolved[version], **chosen}
    return resolved


def lock_lines(resolved: dict[tuple[int, int], dict[str, str]]) -> list[str]:
    """One `name==version` line per package, and one per Python with a marker where the versions differ."""
    lines = []
    for name in sorted({name for versions in resolved.values() for name in versions}):
        versions = {minor: picks[name] for minor, picks in resolved.items() if name in picks}
        if len(set(versions.values())) == 1:
            lines.append(f"{name}=={next(iter(versions.values()))}")
        else:
            for (major, minor), version in sorted(versions.items()):
                lines.append(f'{name}=={version} ; python_version == "{major}.{minor}"')
    return lines


def locked(name: str) -> list[str]:
    """The pins of a lock, a line each."""
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def write_lock(name: str, says: str, lines: Sequence[str]) -> None:
    """Writes a lock with its two lines of explanation."""
    minors = " ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    header = [
        f"# {says}, resolved on Python {minors}.",
        "# Written by tools/lock.py from the other files in this folder; do not edit.",
    ]
    (REQUIREMENTS / name).write_text("\n".join([*header, *lines]) + "\n")
    print(f"lock: {len(lines)} lines in requirements/{name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the locks; exit status 1 where an interpreter is missing or nothing resolves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--distro", choices=["kilted", "jazzy"], help="write the lock of this distribution alone")
    parser.add_argument("--keep", action="store_true", help="keep the versions that are locked")
    arguments = parser.parse_args(argv)
    only, keep = arguments.distro, arguments.keep
    try:
        if only in (None, "kilted"):
            lines = lock_lines(resolve_everywhere(GROUPS, locked("lock.txt") if keep else ()))
            write_lock("lock.txt", "Every package that set-up may install, direct or not", lines)
        if only in (None, "jazzy"):
            # Everything but ROS is the same for both, so that a difference between them is one of ROS.
            fixed = [line for line in locked("lock.txt") if not line.startswith("ros-")]
            fixed += locked("lock-jazzy.txt") if keep else []
            lines = [line for line in lock_lines(resolve_everywhere(JAZZY_GROUPS, fixed)) if line.startswith("ros-")]
            write_lock("lock-jazzy.txt", "The ROS packages of Jazzy, in place of Kilted's in lock.txt", lines)
    except (LockError, subprocess.CalledProcessError) as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
