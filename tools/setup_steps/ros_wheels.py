"""Points the CMake files of ROS wheels at this Python: they name folders of the machine that built the wheels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Mapping

from setup_steps.settings import VENV

BAKED_PYTHON_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+t?/include/python3\.\d+t?")
BAKED_NUMPY_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+t?/lib/python3\.\d+t?/site-packages/numpy/_?core/include")


def interpreter_includes(env: Mapping[str, str]) -> tuple[str, str]:
    """Include folders of the virtual environment's Python and NumPy."""
    code = "import sysconfig, numpy; print(sysconfig.get_paths()['include']); print(numpy.get_include())"
    done = subprocess.run(
        [str(VENV / "bin/python"), "-c", code], env=dict(env), capture_output=True, text=True, check=True
    )
    python_include, numpy_include = done.stdout.split("\n")[:2]
    return python_include, numpy_include


def rewrite_baked_paths(prefix: Path, python_include: str, numpy_include: str) -> int:
    """Replaces the build machine's include folders in the wheels' CMake files; returns how many files changed."""
    changed = 0
    for folder in ("share", "lib/cmake"):
        for file in sorted((prefix / folder).rglob("*.cmake")):
            text = file.read_text(errors="surrogateescape")
            if "/opt/python/" not in text:
                continue
            # Functions, not strings: a path may hold what re.sub would read as an escape.
            new = BAKED_NUMPY_INCLUDE.sub(lambda _: numpy_include, text)
            new = BAKED_PYTHON_INCLUDE.sub(lambda _: python_include, new)
            if new != text:
                file.write_text(new, errors="surrogateescape")
                changed += 1
    return changed
