"""Which ROS 2 is used, sourced or from pip, and the environment that commands under it get."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Mapping

from setup_steps.settings import DEFAULT_DISTRO, ROOT, SUPPORTED_DISTROS, VENV, SetupError


def probe_rclpy(python: str, environ: Mapping[str, str]) -> str | None:
    """File that `import rclpy` loads under this interpreter and environment, or None where it cannot be imported."""
    done = subprocess.run(
        [python, "-c", "import rclpy; print(rclpy.__file__)"], env=dict(environ), capture_output=True, text=True
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 and done.stdout.strip() else None


def installed_ros(venv: Path = VENV) -> str:
    """What .venv was made for: 'sourced', 'pip-kilted' or 'pip-jazzy'; '' where there is none, or none that says so."""
    file = venv / "wm_ros"
    said = file.read_text().strip() if file.exists() else ""
    return f"pip-{DEFAULT_DISTRO}" if said == "pip" else said  # written before there was a choice of distribution


def ros_text(ros: str) -> str:
    """The chosen ROS in words, e.g. "ROS 2 Jazzy from pip"."""
    kind, _, distro = ros.partition("-")
    return f"ROS 2 {distro.capitalize()} from pip" if kind == "pip" else "ROS 2 as sourced"


def ros_group(ros: str) -> str:
    """The requirement file of a ROS from pip: ros-kilted for pip-kilted."""
    return ros.replace("pip-", "ros-")


def choose_pip_distro(environ: Mapping[str, str], venv: Path = VENV) -> str:
    """The distribution that pip is to install: WM_ROS_DISTRO, else the one in .venv already, else Kilted."""
    wish = environ.get("WM_ROS_DISTRO", "")
    if wish:
        if wish not in SUPPORTED_DISTROS:
            raise SetupError(
                f"found WM_ROS_DISTRO={wish}",
                " or ".join(SUPPORTED_DISTROS),
                f"WM_ROS_DISTRO={DEFAULT_DISTRO} make setup",
            )
        return wish
    kind, _, distro = installed_ros(venv).partition("-")
    return distro if kind == "pip" and distro in SUPPORTED_DISTROS else DEFAULT_DISTRO


def choose_ros(
    environ: Mapping[str, str],
    rclpy_file: Callable[[], str | None],
    venv: Path = VENV,
) -> str:
    """'sourced' where this shell has a ROS 2 with a working rclpy, 'pip-DISTRO' where not; refuses what is between.

    rclpy_file says which rclpy this shell's python3 imports (None: none). The one in our own .venv does not count:
    it is there because tools/env.sh was sourced.
    """
    wish = environ.get("WM_ROS", "")
    if wish not in ("", "pip", "sourced"):
        raise SetupError(f"found WM_ROS={wish}", "pip or sourced", "unset WM_ROS")
    from_pip = f"pip-{choose_pip_distro(environ, venv)}"
    distro = environ.get("ROS_DISTRO", "")
    if wish == "pip" or (not wish and not distro):
        return from_pip
    file = rclpy_file()
    if file is not None and Path(file).is_relative_to(venv) and wish != "sourced":
        return from_pip
    prefixes = [p for p in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    foreign = [p for p in prefixes if not Path(p).is_relative_to(venv.parent)]
    if file is None and not foreign and wish != "sourced":
        return from_pip  # ROS_DISTRO alone: container images set it before anybody sources anything
    if file is None:
        raise SetupError(
            f"found ROS_DISTRO={distro or 'unset'}, but {shutil.which('python3') or 'python3'} cannot import rclpy",
            "the distribution's own Python with ROS 2 sourced, or no ROS at all",
            f"source /opt/ros/{distro or 'jazzy'}/setup.bash && make setup PYTHON=/usr/bin/python3"
            "   (or, in a shell where ROS is not sourced: make setup)",
        )
    if distro not in SUPPORTED_DISTROS:
        raise SetupError(
            f"found ROS 2 {distro or '(ROS_DISTRO unset)'} sourced",
            "Jazzy or Kilted",
            "make setup, in a shell where ROS is not sourced (ROS 2 Kilted then comes from pip)",
        )
    asked = environ.get("WM_ROS_DISTRO", "")
    if asked not in ("", distro):
        raise SetupError(
            f"found WM_ROS_DISTRO={asked}, and ROS 2 {distro} sourced",
            "WM_ROS_DISTRO only where ROS 2 comes from pip",
            f"unset WM_ROS_DISTRO   (or, for {asked} from pip: WM_ROS=pip WM_ROS_DISTRO={asked} make setup)",
        )
    return "sourced"


def clean_environment(environ: Mapping[str, str], ros: str) -> dict[str, str]:
    """The environment of our own commands, without what other workspaces and other virtual environments left in it."""
    env = dict(environ)
    for name in ("PYTHONHOME", "VIRTUAL_ENV", "COLCON_PREFIX_PATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"):
        env.pop(name, None)
    if ros != "sourced":
        for name in ("PYTHONPATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "ROS_DISTRO"):
            env.pop(name, None)
        env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(VENV)
    else:
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH"):
            parts = [p for p in env.get(name, "").split(os.pathsep) if p and not Path(p).is_relative_to(ROOT)]
            env[name] = os.pathsep.join(parts)
    env["PATH"] = os.pathsep.join([str(VENV / "bin"), env.get("PATH", os.defpath)])
    env.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore", PIP_NO_INPUT="1")
    return env
