#!/usr/bin/env python3
"""Asks the package index whether every locked package has a wheel for each supported Python: `make check-wheels`.

    .venv/bin/python tools/check_wheels.py [3.12 3.13]      # these alone; by default every supported one

pip resolves the locks, for one Python after the other, on this machine's platform and without installing: none of the
interpreters is needed. Where the index serves metadata by itself or in ranges, no wheel is downloaded.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bootstrap import REQUIREMENTS, SUPPORTED, WHEELS_ONLY

LOCKS = ("lock.txt", "lock-jazzy.txt")


def check(python: str, lock: Path) -> str | None:
    """What pip finds no wheel of, for this Python ("3.13"), in its own words; None where it finds all."""
    with tempfile.TemporaryDirectory(prefix="wm-wheels-") as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--use-feature=fast-deps", "--python-version", python, "--target", folder, *WHEELS_ONLY]
        command += ["--disable-pip-version-check", "-r", str(lock)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    errors = re.findall(r"^ERROR: (.*)", done.stderr, flags=re.MULTILINE)
    return (errors or done.stderr.strip().splitlines() or ["pip failed without a word"])[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """One line per lock and Python; exit status 1 where a wheel is missing."""
    supported = [f"{major}.{minor}" for major, minor in SUPPORTED]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help=f"of {', '.join(supported)}; default: all")
    pythons = parser.parse_args(argv).pythons or supported
    jobs = [(python, lock) for lock in LOCKS for python in pythons]
    failed = False
    # pip waits for the index nearly all the time.
    with ThreadPoolExecutor(len(pythons)) as pool:
        results = pool.map(lambda job: check(job[0], REQUIREMENTS / job[1]), jobs)
        for (python, lock), problem in zip(jobs, results, strict=True):
            lines = (REQUIREMENTS / lock).read_text().splitlines()
            packages = sum(1 for line in lines if line and not line.startswith("#"))
            verdict = problem or f"{packages} packages, each has a wheel (empy, pure Python, its source)"
            print(f"wheels: Python {python}, {lock}: {verdict}", flush=True)
            failed = failed or problem is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
