#!/usr/bin/env python3
"""Makes this checkout runnable: `make setup`, and first step of every other make target.

    python3 tools/bootstrap.py [--with test] [--with lint] [--with docs] [--with training] [--with export]
        [--with household]

In this order, each step skipped where its stamp says that nothing it depends on has changed:

  1. check the Python, the compilers and the system libraries; install the Debian packages that are missing
  2. create .venv
  3. install the locked requirements (requirements/*.txt, versions in requirements/lock.txt)
  4. point the ROS wheels' CMake files at this Python
  5. build the workspace with colcon
  6. find out how MuJoCo can render, write .venv/bin/wm, and import what was built
  7. compile the learned dynamics for this processor

ROS 2 comes from PyPI (Kilted, or Jazzy with WM_ROS_DISTRO=jazzy), or is the one sourced in this shell (Jazzy or
Kilted). WM_ROS=pip or WM_ROS=sourced overrides the choice. One checkout holds one ROS: another choice builds .venv and
the workspace afresh.

The steps are the modules of tools/setup_steps/. Standard library only: this runs before anything is installed.

A failure is one line that says what was found, what is expected and what to run; the whole output of the command
that failed is in out/setup/.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import shutil
import sys
import time
from typing import Iterator, Sequence

from setup_steps.finish import IMPORT_PROBE, WRAPPER, compile_dynamics, finish
from setup_steps.packages import install_packages
from setup_steps.python_choice import choose_python
from setup_steps.reporter import Reporter
from setup_steps.ros_choice import choose_ros, clean_environment, probe_rclpy, ros_text
from setup_steps.settings import FORMAT, LOGS, ROOT, VENV, SetupError
from setup_steps.stamps import digest, stamped, write_stamp
from setup_steps.system_packages import install_system_packages, missing_system_packages
from setup_steps.virtual_environment import ensure_venv
from setup_steps.workspace import build_workspace


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Holds a lock, so that two make targets at once do not install into one environment."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another set-up is running in this checkout, waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def setup(extras: Sequence[str]) -> None:
    """All steps in order."""
    reporter = Reporter()
    environ = dict(os.environ)
    outside = clean_environment(environ, "sourced")
    python = shutil.which("python3", path=environ.get("PATH")) or sys.executable
    ros = choose_ros(environ, lambda: probe_rclpy(python, {**outside, "PATH": environ.get("PATH", os.defpath)}))
    if ros != "sourced":
        choose_python(environ)
    with only_one():
        # The name of the very first stamp: it says that this machine's packages were once complete.
        system_key = digest([FORMAT, sys.base_prefix, platform.node(), "training" if "training" in extras else ""])
        if not stamped("system", system_key):
            missing = missing_system_packages(extras)
            if missing:
                with reporter.step(f"system packages: {' '.join(missing)}"):
                    install_system_packages(missing, reporter)
                    still = missing_system_packages(extras)
                    if still:
                        raise SetupError(
                            f"{' '.join(still)} installed, yet not found",
                            "it to work",
                            "less out/setup/apt-install.log",
                        )
        version = ensure_venv(ros, reporter)
        write_stamp("system", system_key)
        changed = install_packages(ros, extras, version, reporter)
        changed = build_workspace(ros, version, reporter) or changed
        finish_key = digest([FORMAT, ros, str(ROOT), WRAPPER, IMPORT_PROBE])
        if changed or not stamped("finish", finish_key) or not (VENV / "bin/wm").exists():
            finish(ros, reporter)
            write_stamp("finish", finish_key)
        compile_dynamics(ros, reporter)
    seconds = time.monotonic() - reporter.started
    source = f"ROS 2 {environ.get('ROS_DISTRO')} as sourced" if ros == "sourced" else ros_text(ros)
    verb = "done" if reporter.spoke else "up to date"
    print(f"set-up: {verb} in {seconds:.1f} s (Python {version[0]}.{version[1]}, {source})", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status 1 with one line where something is missing, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        choices=["test", "lint", "docs", "training", "export", "household"],
        help="requirement groups beside build, ros and runtime",
    )
    arguments = parser.parse_args(argv)
    try:
        setup(sorted(set(arguments.extras)))
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run it again to go on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
