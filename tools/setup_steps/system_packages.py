"""The Debian packages that this machine lacks, and their installation."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Sequence

from setup_steps.reporter import Reporter, last_line
from setup_steps.settings import LOGS, SetupError


def library_loads(soname: str) -> bool:
    """Whether the dynamic linker finds this library."""
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def python_headers_present() -> bool:
    """Whether this interpreter's Python.h is there; the generated message packages are C extensions."""
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").exists()


def missing_system_packages(extras: Sequence[str] = ()) -> list[str]:
    """Debian names of what this machine lacks for set-up with these extra requirement groups."""
    system_python = sys.base_prefix == "/usr"
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    mesa = ("/usr/lib/*/dri/swrast_dri.so", "/usr/lib/*/libgallium*.so", "/usr/lib*/dri/swrast_dri.so")
    present = {
        "g++": bool(shutil.which("g++") or shutil.which("c++")),
        "make": bool(shutil.which("make")),
        "cmake": bool(shutil.which("cmake")),
        "libegl1": library_loads("libEGL.so.1"),
        "libgl1": library_loads("libGL.so.1"),
        "libgl1-mesa-dri": any(glob.glob(pattern) for pattern in mesa),
    }
    if "training" in extras:
        present["libusb-1.0-0"] = library_loads("libusb-1.0.so.0")  # Open3D does not import without it
    try:
        import ensurepip  # noqa: F401  (Debian leaves it out of python3; then venvs have no pip)

        has_venv = True
    except ImportError:
        has_venv = False
    if system_python:
        present[f"{minor}-venv"] = has_venv
        present[f"{minor}-dev"] = python_headers_present()
    elif not has_venv:
        raise SetupError(
            f"{sys.executable} has no ensurepip", "a Python with venv and pip", "make setup PYTHON=/usr/bin/python3"
        )
    elif not python_headers_present():
        raise SetupError(
            f"{sys.executable} has no Python.h", "a Python with its headers", "make setup PYTHON=/usr/bin/python3"
        )
    return [package for package, there in present.items() if not there]


def install_system_packages(packages: Sequence[str], reporter: Reporter) -> None:
    """Installs Debian packages where this user may; else refuses with the command to run."""
    as_root = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"
    by_hand = as_root if os.geteuid() == 0 else f"sudo sh -c '{as_root}'"
    found = f"this machine lacks {' '.join(packages)}"
    if not shutil.which("apt-get"):
        raise SetupError(
            f"{found}, and has no apt-get", "Debian or Ubuntu", "your package manager, for the equivalents"
        )
    if os.geteuid() == 0:
        prefix = []
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        prefix = ["sudo", "-n"]
    else:
        raise SetupError(f"{found}, and this user may not install them", "these Debian packages", by_hand)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    install = [*prefix, *environment, "apt-get", "install", "-y", "--no-install-recommends", *packages]
    try:
        # The package lists of a container are often empty or old; updating costs seconds.
        with contextlib.suppress(subprocess.CalledProcessError):
            reporter.run([*prefix, *environment, "apt-get", "update"], dict(os.environ), "apt-update.log")
        reporter.run(install, dict(os.environ), "apt-install.log")
    except subprocess.CalledProcessError as error:
        raise SetupError(
            f"{found}, and apt-get install failed ({last_line(LOGS / 'apt-install.log')})",
            "network access to the Debian mirror",
            by_hand,
        ) from error
