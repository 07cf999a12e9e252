"""Builds the workspace with colcon, where anything that a build depends on has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Mapping, Sequence

from setup_steps.reporter import Reporter, last_line
from setup_steps.ros_choice import clean_environment
from setup_steps.settings import EXTRA_INTERFACES, FORMAT, LOGS, REQUIREMENTS, ROOT, VENV, WORKSPACE, SetupError
from setup_steps.stamps import digest, stamped, write_stamp


def build_inputs(bases: Sequence[Path]) -> list[str | Path]:
    """What a build depends on: interface files and package metadata by content, installed data files by name.

    Python modules are not among them: --symlink-install makes the workspace see them as they are edited.
    """
    by_content = {"package.xml", "setup.py", "setup.cfg", "CMakeLists.txt"}
    data_folders = {"launch", "config", "rviz", "scenes", "worlds"}
    inputs: list[str | Path] = []
    for base in bases:
        for file in sorted(base.rglob("*")):
            relative = file.relative_to(base)
            if not file.is_file() or "__pycache__" in relative.parts:
                continue
            if file.name in by_content or file.suffix in (".msg", ".srv", ".action"):
                inputs += [str(relative), file]
            elif len(relative.parts) > 1 and relative.parts[1] in data_folders:
                inputs.append(str(relative))
    return inputs


def missing_interfaces(env: Mapping[str, str]) -> list[Path]:
    """Interface packages under tools/ros_from_pip that this ROS does not have already."""
    prefixes = [Path(p) for p in env.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    index = "share/ament_index/resource_index/packages"
    packages = sorted(file.parent for file in EXTRA_INTERFACES.glob("*/package.xml"))
    return [package for package in packages if not any((p / index / package.name).exists() for p in prefixes)]


def programs_run_under(install: Path, python: Path) -> bool:
    """Whether the node programs of an install space name this interpreter; false where there is none.

    A `colcon build` by hand, in a shell without .venv, installs them for another one.
    """
    lines = []
    for program in install.glob("*/lib/*/*_node"):
        with program.open("rb") as file:
            lines.append(file.readline().decode(errors="replace").strip())
    return bool(lines) and all(str(python) in line for line in lines)


def build_workspace(ros: str, version: tuple[int, int], reporter: Reporter) -> bool:
    """colcon build, where anything it depends on has changed; returns whether it ran."""
    env = clean_environment(os.environ, ros)
    bases = [WORKSPACE / "src", *missing_interfaces(env)]
    ros_key = digest(
        [FORMAT, ros, str(ROOT), f"{version[0]}.{version[1]}", env.get("AMENT_PREFIX_PATH", "")]
        + [REQUIREMENTS / f"{name}.txt" for name in ("ros-kilted", "ros-jazzy", "build", "lock", "lock-jazzy")]
    )
    key = digest([ros_key, *build_inputs(bases)])
    installed = (WORKSPACE / "install/local_setup.bash").exists()
    ours = programs_run_under(WORKSPACE / "install", VENV / "bin/python")
    if installed and ours and stamped("workspace", key):
        return False
    with reporter.step("workspace: message types and packages (a minute or two the first time)"):
        if not ours or not stamped("workspace-ros", ros_key):
            # CMake caches name the Python and the ROS they were configured for.
            for name in ("build", "install", "log"):
                shutil.rmtree(WORKSPACE / name, ignore_errors=True)
        command = [str(VENV / "bin/python"), "-m", "colcon", "--log-base", "log", "build", "--symlink-install"]
        command += ["--base-paths", *map(str, bases), "--event-handlers", "console_cohesion-", "--cmake-args"]
        command += [f"-DPython3_EXECUTABLE={VENV / 'bin/python'}", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"]
        command += ["--no-warn-unused-cli"]
        try:
            reporter.run(command, env, "colcon.log", ColconProgress(), cwd=WORKSPACE)
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"colcon build failed ({last_line(LOGS / 'colcon.log')})",
                "every package to build",
                "less out/setup/colcon.log   (after a change of ROS or compiler: make distclean setup)",
            ) from error
        write_stamp("workspace-ros", ros_key)
    write_stamp("workspace", key)
    return True


class ColconProgress:
    """Turns colcon's lines into 'n packages built, building which'."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.built = 0

    def __call__(self, line: str) -> str | None:
        """What to show after this line of colcon's output, or None."""
        words = line.split()
        if line.startswith("Starting >>>"):
            self.running.append(words[2])
        elif line.startswith("Finished <<<") and words[2] in self.running:
            self.running.remove(words[2])
            self.built += 1
        else:
            return None
        return f"{self.built} packages built, building {', '.join(self.running) or 'no more'}"
