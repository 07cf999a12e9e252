#!/usr/bin/env python3
"""Resolves every file in requirements/ on every supported Python and writes requirements/lock.txt.

    python3 tools/lock.py            # needs python3.10 ... python3.13 on PATH or under ~/.pyenv/versions

The oldest Python is resolved first and its choice is imposed on the others, so that one version serves all wherever
such a version exists; where none does, the lock has one line per range of Pythons, with a marker.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bootstrap import PIP_VERSION, REQUIREMENTS, SUPPORTED, WHEELS_ONLY, find_interpreter

GROUPS = ["build", "ros", "runtime", "test", "lint", "training", "export"]


def resolve(python: str, folder: Path, constraints: dict[str, str]) -> dict[str, str]:
    """What pip would install on this interpreter, name -> version; raises CalledProcessError where it cannot."""
    venv = folder / "venv"
    if not venv.exists():
        subprocess.run([python, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin/pip"), "install", "-q", f"pip=={PIP_VERSION}"], check=True)
    constraint_file = folder / "constraints.txt"
    constraint_file.write_text("".join(f"{name}=={version}\n" for name, version in sorted(constraints.items())))
    report = folder / "report.json"
    command = [str(venv / "bin/pip"), "install", "-q", "--dry-run", "--ignore-installed", *WHEELS_ONLY]
    command += ["--report", str(report), "-c", str(constraint_file)]
    for group in GROUPS:
        command += ["-r", str(REQUIREMENTS / f"{group}.txt")]
    subprocess.run(command, check=True)
    found = {}
    for item in json.loads(report.read_text())["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
        found[name] = item["metadata"]["version"].partition("+")[0]
    return found


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


def main() -> int:
    """Writes the lock; exit status 1 where an interpreter is missing or nothing resolves."""
    resolved: dict[tuple[int, int], dict[str, str]] = {}
    chosen: dict[str, str] = {}
    for version in SUPPORTED:
        python = find_interpreter(version)
        if python is None:
            print(f"lock: no python{version[0]}.{version[1]} on PATH or under ~/.pyenv/versions", file=sys.stderr)
            return 1
        folder = Path(tempfile.mkdtemp(prefix="wm-lock-"))
        try:
            print(f"lock: Python {version[0]}.{version[1]} ...", flush=True)
            try:
                resolved[version] = resolve(python, folder, chosen)
            except subprocess.CalledProcessError:
                print("lock: the older Pythons' versions do not serve here; resolving afresh", flush=True)
                resolved[version] = resolve(python, folder, {})
        finally:
            shutil.rmtree(folder)
        chosen = {**resolved[version], **chosen}
    minors = " ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    header = [
        f"# Every package that set-up may install, direct or not, resolved on Python {minors}.",
        "# Written by tools/lock.py from the other files in this folder; do not edit.",
    ]
    (REQUIREMENTS / "lock.txt").write_text("\n".join(header + lock_lines(resolved)) + "\n")
    print(f"lock: {len(lock_lines(resolved))} lines in requirements/lock.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
