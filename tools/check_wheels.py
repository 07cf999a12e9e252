#!/usr/bin/env python3
"""Asks the package index whether every locked package has a wheel for each supported Python: `make check-wheels`.

    .venv/bin/python tools/check_wheels.py [3.12 3.13]      # these alone; by default every supported one

pip resolves the locks on this machine's platform without installing anything; none of the interpreters is needed. What
turns out to be one wheel for all of Python 3 is asked for once. Minutes, most of them spent waiting for the index.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

sys.path.insert(0, str(Path(__file__).parent))
from setup_steps.settings import REQUIREMENTS, SUPPORTED, WHEELS_ONLY

LOCKS = ("lock.txt", "lock-jazzy.txt")


class MissingWheelError(Exception):
    """What pip finds no wheel of, in its own words."""


def resolve(python: str, pins: Sequence[str]) -> list[dict[str, object]]:
    """pip's report of what it would install for this Python ("3.13"), an entry per pin.

    Raises:
        MissingWheelError: one of them has no wheel.
    """
    with tempfile.TemporaryDirectory(prefix="wm-wheels-") as name:
        folder = Path(name)
        (folder / "pins.txt").write_text("\n".join(pins) + "\n")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--python-version", python, "--target", str(folder / "target"), *WHEELS_ONLY]
        # Metadata alone is read, also where the index does not serve it by itself.
        command += ["--use-feature=fast-deps", "--disable-pip-version-check"]
        command += ["--report", str(folder / "report.json"), "-r", str(folder / "pins.txt")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            errors = re.findall(r"^ERROR: (.*)", done.stderr, flags=re.MULTILINE)
            raise MissingWheelError((errors or done.stderr.strip().splitlines() or ["pip failed without a word"])[-1])
        return list(json.loads((folder / "report.json").read_text())["install"])


def pins_for(lock: str, python: str) -> list[str]:
    """The ``name==version`` of a lock that hold for this Python; pip itself would ask markers about its own Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = []
    for line in lock.splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                pins.append(f"{pin.name}{pin.specifier}")
    return pins


def pin_of(entry: dict) -> str:
    """The line of the lock that an entry of the report answers."""
    name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
    return f"{name}=={entry['metadata']['version']}"


def serves_all(entry: dict, pythons: Sequence[str]) -> bool:
    """Whether what pip chose is a wheel (or empy's source) of pure Python that every one of these may install."""
    metadata = entry["metadata"]
    pure = entry["download_info"]["url"].endswith(("-none-any.whl", ".tar.gz"))
    return pure and all(SpecifierSet(metadata.get("requires_python", "")).contains(f"{p}.0") for p in pythons)


def main(argv: Sequence[str] | None = None) -> int:
    """One line per lock and Python; exit status 1 where a wheel is missing."""
    supported = [f"{major}.{minor}" for major, minor in SUPPORTED]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help=f"of {', '.join(supported)}; default: all")
    pythons = parser.parse_args(argv).pythons or supported
    failed = False

    def check(python: str, lock: str, pins: Sequence[str]) -> list[dict]:
        nonlocal failed
        begin = time.monotonic()
        entries: list[dict] = []
        try:
            entries = resolve(python, pins)
            verdict = f"{len(entries)} of {len(pins)} packages found"
        except MissingWheelError as error:
            failed, verdict = True, str(error)
        print(f"wheels: Python {python}, {lock}: {verdict} ({time.monotonic() - begin:.0f} s)", flush=True)
        return entries

    for lock in LOCKS:
        text = (REQUIREMENTS / lock).read_text()
        entries = check(pythons[0], lock, pins_for(text, pythons[0]))
        once = {pin_of(entry) for entry in entries if serves_all(entry, pythons)}
        jobs = [(python, lock, [pin for pin in pins_for(text, python) if pin not in once]) for python in pythons[1:]]
        with ThreadPoolExecutor(max(len(jobs), 1)) as pool:
            list(pool.map(lambda job: check(*job), jobs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
