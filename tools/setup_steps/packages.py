"""Installs the locked requirements with pip."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Sequence

from setup_steps.reporter import Reporter, last_line
from setup_steps.ros_choice import clean_environment, ros_group
from setup_steps.ros_wheels import interpreter_includes, rewrite_baked_paths
from setup_steps.settings import FORMAT, LOGS, PIP_VERSION, REQUIREMENTS, ROOT, VENV, WHEELS_ONLY, SetupError
from setup_steps.stamps import digest, stamped, write_stamp


def groups_for(ros: str, extras: Sequence[str]) -> list[str]:
    """Requirement files to install."""
    return ["build", *([ros_group(ros)] if ros != "sourced" else []), "runtime", *extras]


def overrides_for(ros: str) -> Path:
    """File of pins that replace those of lock.txt, which holds Kilted's; /dev/null where there are none."""
    names = {"sourced": "sourced-ros.txt", "pip-jazzy": "lock-jazzy.txt"}
    return REQUIREMENTS / names[ros] if ros in names else Path(os.devnull)


def constraints_text(lock: str, overrides: str) -> str:
    """The lock with the overridden packages' lines replaced."""

    def name_of(line: str) -> str:
        return re.split(r"[=<>!~ ;\[]", line, maxsplit=1)[0].lower()

    replaced = [line for line in overrides.splitlines() if line and not line.startswith("#")]
    names = {name_of(line) for line in replaced}
    return "\n".join([line for line in lock.splitlines() if name_of(line) not in names] + replaced) + "\n"


def pip_problem(log: str) -> str | None:
    """What a failing pip means for the user, where it is one of the usual things; None otherwise."""
    signs = {
        "no name resolution": r"Temporary failure in name resolution|Name or service not known|NameResolutionError",
        "no connection": r"NewConnectionError|ConnectTimeout|Network is unreachable|Connection refused|ReadTimeout",
        "a proxy that refuses": r"ProxyError|407 Proxy",
        "an untrusted certificate": r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "no space left on the disk": r"No space left on device",
    }
    for problem, pattern in signs.items():
        if re.search(pattern, log):
            return problem
    return None


class PipProgress:
    """Turns pip's lines into 'n of about m packages, what is being downloaded'."""

    def __init__(self, about: int):
        self.about = about
        self.seen = 0
        self.current = ""

    def __call__(self, line: str) -> str | None:
        """A note for this line of pip's output, or None."""
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            self.seen += 1
            self.current = line.split()[1] if line.startswith("Coll") else ""
        elif "Downloading " in line and "metadata" not in line:
            self.current = "downloading " + line.split("Downloading ", 1)[1]
        elif line.startswith("Progress "):
            done, _, total = line[len("Progress ") :].partition(" of ")
            if total.isdigit() and int(total) > 20_000_000:
                return f"{self.current}: {int(done) / 1e6:.0f} MB"
            return None
        elif line.startswith("Installing collected packages"):
            self.current = "unpacking (half a minute or more)"
        else:
            return None
        return f"{min(self.seen, self.about)} of about {self.about} packages  {self.current}"


def install_packages(ros: str, extras: Sequence[str], version: tuple[int, int], reporter: Reporter) -> bool:
    """Installs the requirement groups whose stamp is not current; returns whether anything was installed."""
    lock = REQUIREMENTS / "lock.txt"
    overrides = overrides_for(ros)
    base: list[str | Path] = [FORMAT, ros, str(ROOT), f"{version[0]}.{version[1]}", lock, overrides]
    keys = {group: digest([*base, REQUIREMENTS / f"{group}.txt"]) for group in groups_for(ros, extras)}
    stale = [group for group, key in keys.items() if not stamped(f"pip-{group}", key)]
    if not stale:
        return False
    env = clean_environment(os.environ, ros)
    env.pop("PYTHONPATH", None)  # a sourced ROS's packages are not pip's to see
    pip = [str(VENV / "bin/python"), "-m", "pip", "install"]
    size = "about 600 MB to download, 2 GB on disk" if "runtime" in stale else "a few MB"
    if "training" in stale:
        size = "with torch; gigabytes, where it brings its CUDA libraries"
    elif "household" in stale and "runtime" not in stale:
        size = "about 360 MB to download, 660 MB on disk"
    with reporter.step(f"Python packages: {', '.join(stale)} ({size})"):
        LOGS.mkdir(parents=True, exist_ok=True)
        constraints = VENV / "wm-constraints.txt"
        constraints.write_text(constraints_text(lock.read_text(), overrides.read_text()))
        requirement_files = [arg for group in stale for arg in ("-r", str(REQUIREMENTS / f"{group}.txt"))]
        about = 210 if ros_group(ros) in stale else 60
        log = "pip.log"
        try:
            # Small, and with little patience: where there is no network this says so within seconds.
            reporter.run([*pip, "--retries", "1", "--timeout", "20", f"pip=={PIP_VERSION}"], env, log)
            command = [*pip, "--progress-bar", "raw", *WHEELS_ONLY, "-c", str(constraints), *requirement_files]
            reporter.run(command, env, log, PipProgress(about))
        except subprocess.CalledProcessError as error:
            text = (LOGS / log).read_text()
            problem = pip_problem(text)
            if problem:
                raise SetupError(
                    f"pip could not fetch the packages: {problem}",
                    "a package index that pip reaches (directly, through HTTPS_PROXY, or PIP_INDEX_URL for a mirror)"
                    " and 5 GB of free disk",
                    f"{VENV / 'bin/pip'} download --no-deps --dest /tmp numpy   (and see out/setup/{log})",
                ) from error
            raise SetupError(
                f"pip install failed ({last_line(LOGS / log)})",
                "the versions in requirements/lock.txt on the package index",
                f"less out/setup/{log}",
            ) from error
        if ros_group(ros) in stale:
            rewrite_baked_paths(VENV, *interpreter_includes(env))
    for group in stale:
        write_stamp(f"pip-{group}", keys[group])
    return True
