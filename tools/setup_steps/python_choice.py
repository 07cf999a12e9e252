"""Which Python set-up goes on under."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import subprocess
import sys
from typing import Mapping

from setup_steps.settings import SUPPORTED, SUPPORTED_TEXT, SetupError


def python_refusal(version: tuple[int, int], implementation: str, machine: str) -> str | None:
    """Why ROS 2 from pip cannot run on this interpreter, or None where it can."""
    if implementation != "CPython":
        return f"{implementation} {version[0]}.{version[1]}"
    if version not in SUPPORTED:
        return f"Python {version[0]}.{version[1]}"
    if machine not in ("x86_64", "amd64", "AMD64"):
        return f"a {machine} machine"
    return None


def find_interpreter(version: tuple[int, int]) -> str | None:
    """Path of python<major>.<minor> on PATH or under ~/.pyenv/versions, if it runs."""
    name = f"python{version[0]}.{version[1]}"
    candidates = [shutil.which(name)]
    candidates += sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version[0]}.{version[1]}.*/bin/{name}")))
    for path in candidates:
        if path and subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0:
            return path
    return None


def choose_python(environ: Mapping[str, str]) -> None:
    """Goes on under a supported interpreter: this one, else another found on the machine; else refuses."""
    version = sys.version_info[:2]
    refusal = python_refusal(version, platform.python_implementation(), platform.machine())
    if refusal is None:
        return
    if platform.machine() in ("x86_64", "amd64", "AMD64") and "WM_PYTHON_CHOSEN" not in environ:
        for other in ((3, 12), (3, 11), (3, 13), (3, 10)):
            path = find_interpreter(other)
            if path:
                print(f"set-up: {refusal} is not supported, going on with {path}", flush=True)
                os.execve(path, [path, *sys.argv], {**environ, "WM_PYTHON_CHOSEN": "1"})
    raise SetupError(
        f"found {refusal} ({sys.executable})",
        f"{SUPPORTED_TEXT} on x86-64 (ROS 2 from pip has wheels for nothing else), or a sourced ROS 2 Jazzy or Kilted",
        "make setup PYTHON=/path/to/python3.12",
    )
