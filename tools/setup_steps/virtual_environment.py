"""Creates .venv, or keeps the one that is there."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setup_steps.reporter import Reporter, last_line
from setup_steps.ros_choice import clean_environment, installed_ros, ros_text
from setup_steps.settings import LOGS, SUPPORTED, VENV, SetupError


def venv_version(venv: Path = VENV) -> tuple[int, int] | None:
    """Python version of an existing virtual environment, or None where there is none that runs."""
    done = None
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [str(venv / "bin/python"), "-c", "import sys, pip; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
    if done is None or done.returncode != 0:
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def ensure_venv(ros: str, reporter: Reporter) -> tuple[int, int]:
    """Creates .venv, or keeps the one there where it runs and is of the right kind; returns its Python version."""
    config = VENV / "pyvenv.cfg"
    system_site = config.exists() and "include-system-site-packages = true" in config.read_text()
    version = venv_version() if config.exists() else None
    same_ros = installed_ros() in ("", ros) and system_site == (ros == "sourced")
    if version in SUPPORTED and same_ros:
        if version != sys.version_info[:2]:
            print(
                f"set-up: keeping .venv with Python {version[0]}.{version[1]} "
                f"(to use {sys.version_info[0]}.{sys.version_info[1]}: make distclean setup)",
                flush=True,
            )
        (VENV / "wm_ros").write_text(f"{ros}\n")
        return version
    if VENV.exists():
        if not config.exists():
            raise SetupError(
                f"{VENV} exists and is no virtual environment", "to create one there", f"mv {VENV} {VENV}.old"
            )
        if installed_ros() not in ("", ros):
            print(f"set-up: .venv holds {ros_text(installed_ros())}: making it anew for {ros_text(ros)}", flush=True)
        shutil.rmtree(VENV)
    with reporter.step(f"virtual environment .venv (Python {platform.python_version()})"):
        command = [sys.executable, "-m", "venv", str(VENV)]
        if ros == "sourced":
            command.append("--system-site-packages")
        try:
            reporter.run(command, clean_environment(os.environ, ros), "venv.log")
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"{sys.executable} -m venv failed ({last_line(LOGS / 'venv.log')})",
                "a Python with venv and pip",
                f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
            ) from error
    (VENV / "wm_ros").write_text(f"{ros}\n")
    return sys.version_info[0], sys.version_info[1]
