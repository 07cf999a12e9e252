#!/usr/bin/env python3
"""Makes this checkout runnable: `make setup`, and first step of every other make target.

    python3 tools/bootstrap.py [--with test] [--with lint] [--with docs] [--with training] [--with export]

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
the workspace afresh. Standard library only; needs no package of its own.

A failure is one line that says what was found, what is expected and what to run; the whole output of the command
that failed is in out/setup/.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WORKSPACE = ROOT / "ros2_ws"
REQUIREMENTS = ROOT / "requirements"
EXTRA_INTERFACES = ROOT / "tools" / "ros_from_pip"
LOGS = ROOT / "out" / "setup"

SUPPORTED = ((3, 10), (3, 11), (3, 12), (3, 13))
SUPPORTED_TEXT = "CPython 3.10 to 3.13"
SUPPORTED_DISTROS = ("jazzy", "kilted")
DEFAULT_DISTRO = "kilted"
"""Of those, the one that pip installs where nothing else is said."""
PIP_VERSION = "25.3"
WHEELS_ONLY = ("--only-binary=:all:", "--no-binary=empy")
"""Nothing is compiled at install time, except that empy (pure Python) has no wheel."""
FORMAT = "3"
"""Part of every stamp: raise it when a step of this script changes what it leaves behind."""


class SetupError(Exception):
    """What was found, what is expected, and what to run, for one line on the terminal."""

    def __init__(self, found: str, expected: str, run: str):
        super().__init__(f"{found}; expected {expected}; run: {run}")


# --- Python ---------------------------------------------------------------------------------------------------------


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


# --- which ROS ------------------------------------------------------------------------------------------------------


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


# --- system packages ------------------------------------------------------------------------------------------------


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


# --- progress -------------------------------------------------------------------------------------------------------


class Reporter:
    """Says on the terminal what is being done, how far it is, and what it cost."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.started = time.monotonic()
        self.step_started = 0.0
        self.last_line = 0.0
        self.text = ""
        self.spoke = False

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step: its title before, its seconds after."""
        self.spoke = True
        self.step_started = self.last_line = time.monotonic()
        self.text = ""
        print(f"set-up: {title} ...", file=self.out, flush=True)
        yield
        self._erase()
        print(f"set-up: {title}: {time.monotonic() - self.step_started:.1f} s", file=self.out, flush=True)

    def tick(self) -> None:
        """Shows the latest progress: rewritten in place on a terminal, a line every 15 s in a log."""
        now = time.monotonic()
        text = f"  {now - self.step_started:4.0f} s  {self.text}"
        if self.live:
            print("\r\033[K" + text[: shutil.get_terminal_size().columns - 1], end="", file=self.out, flush=True)
        elif now - self.last_line > 15:
            self.last_line = now
            print(text, file=self.out, flush=True)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Calls tick every second, so that what is silent for long does not look dead."""
        over = threading.Event()

        def loop() -> None:
            while not over.wait(1.0):
                self.tick()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _erase(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=self.out, flush=True)

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log_name: str,
        progress: Callable[[str], str | None] = lambda line: None,
        cwd: Path = ROOT,
    ) -> str:
        """Runs a command with its output in out/setup/<log_name>; progress turns a line into what to show, or None."""
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / log_name
        with log.open("w") as file:
            file.write(f"$ {' '.join(command)}\n")
            process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            try:
                with self.ticking():
                    for line in process.stdout:
                        file.write(line)
                        self.text = progress(line.rstrip()) or self.text
                    code = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        self._erase()
        if code != 0:
            raise subprocess.CalledProcessError(code, list(command))
        return log.read_text()


def last_line(log: Path) -> str:
    """Last line of a log that says an error, else its last line; for the one line on the terminal."""
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()] if log.exists() else []
    errors = [line for line in lines if re.match(r"(E:|ERROR|.*\berror:)", line)]
    return (errors or lines or ["no output"])[-1][:300]


# --- virtual environment --------------------------------------------------------------------------------------------


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


# --- stamps ---------------------------------------------------------------------------------------------------------


def digest(parts: Iterable[str | Path]) -> str:
    """Hash of texts and of the contents of files; a missing file counts as empty."""
    total = hashlib.sha256()
    for part in parts:
        data = (part.read_bytes() if part.is_file() else b"") if isinstance(part, Path) else part.encode()
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()


def stamp_file(name: str) -> Path:
    """Where the stamp of a step lies; deleting .venv deletes all stamps."""
    return VENV / "wm-stamps" / name


def stamped(name: str, key: str) -> bool:
    """Whether the step was last done with this very key."""
    file = stamp_file(name)
    return file.exists() and file.read_text() == key


def write_stamp(name: str, key: str) -> None:
    """Notes that the step is done."""
    stamp_file(name).parent.mkdir(parents=True, exist_ok=True)
    stamp_file(name).write_text(key)


# --- packages -------------------------------------------------------------------------------------------------------


def ros_text(ros: str) -> str:
    """The chosen ROS in words, e.g. "ROS 2 Jazzy from pip"."""
    kind, _, distro = ros.partition("-")
    return f"ROS 2 {distro.capitalize()} from pip" if kind == "pip" else "ROS 2 as sourced"


def groups_for(ros: str, extras: Sequence[str]) -> list[str]:
    """Requirement files to install."""
    return ["build", *([ros_group(ros)] if ros != "sourced" else []), "runtime", *extras]


def ros_group(ros: str) -> str:
    """The requirement file of a ROS from pip: ros-kilted for pip-kilted."""
    return ros.replace("pip-", "ros-")


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


# --- ROS wheels -----------------------------------------------------------------------------------------------------

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


# --- workspace ------------------------------------------------------------------------------------------------------


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


# --- last step ------------------------------------------------------------------------------------------------------

WRAPPER = """#!/usr/bin/env bash
# Written by `make setup`: the wm command with its environment, from any folder and with nothing sourced.
source "{root}/tools/env.sh" || exit 1
exec "{root}/.venv/bin/python" -m wm_bringup.cli "$@"
"""

GL_PROBE = (
    "import mujoco; c = mujoco.GLContext(16, 16); c.make_current(); "
    "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), mujoco.mjtFontScale.mjFONTSCALE_100)"
)

IMPORT_PROBE = (
    "import rclpy, wm_core, wm_dynamics, wm_planning, wm_ros, wm_perception, wm_imagination, wm_sim, wm_bringup, "
    "tf2_msgs.msg, wm_msgs.msg, mujoco, cv2, onnxruntime, av; wm_msgs.msg.SceneGraph(); print('ok')"
)


def probe_rendering(env: Mapping[str, str]) -> str | None:
    """First of MuJoCo's headless back ends that starts here, or None."""
    for backend in ("egl", "osmesa"):
        done = subprocess.run(
            [str(VENV / "bin/python"), "-c", GL_PROBE], env={**env, "MUJOCO_GL": backend}, capture_output=True
        )
        if done.returncode == 0:
            return backend
    return None


def ensure_rendering(env: Mapping[str, str], reporter: Reporter) -> str:
    """Name of a rendering back end; installs Mesa's software one where EGL does not start and this user may."""
    backend = probe_rendering(env)
    if backend is None:
        try:
            install_system_packages(["libosmesa6"], reporter)
            backend = probe_rendering(env)
        except SetupError as error:
            print(f"set-up: warning: {error}", flush=True)
    if backend is None:
        print(
            "set-up: warning: MuJoCo can render with neither EGL nor OSMesa, so the simulated camera will not start "
            "(real cameras and recordings will); run: apt-get install libegl1 libgl1-mesa-dri libosmesa6",
            flush=True,
        )
    return backend or "egl"


def finish(ros: str, reporter: Reporter) -> None:
    """Writes the wm command and the choice of renderer, and imports everything once in the finished environment."""
    with reporter.step("the wm command, and a first import of everything"):
        wrapper = VENV / "bin/wm"
        wrapper.write_text(WRAPPER.format(root=ROOT))
        wrapper.chmod(0o755)
        env = clean_environment(os.environ, ros)
        (VENV / "wm_mujoco_gl").write_text(ensure_rendering(env, reporter) + "\n")
        check = f'source "{ROOT}/tools/env.sh" && exec python -c "{IMPORT_PROBE}"'
        try:
            reporter.run(["bash", "-c", check], env, "import.log")
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"what was installed does not import ({last_line(LOGS / 'import.log')})",
                "rclpy, wm_msgs and the packages to import",
                "less out/setup/import.log   (to start afresh: make distclean setup)",
            ) from error


def compile_dynamics(ros: str, reporter: Reporter) -> None:
    """Compiles the learned dynamics, so that the first start of the imagination need not; it also runs without."""
    sources = sorted((WORKSPACE / "src/wm_dynamics/wm_dynamics").rglob("*.py"))
    key = digest([FORMAT, platform.node(), *sources, REQUIREMENTS / "lock.txt"])
    if stamped("dynamics", key):
        return
    with reporter.step("the learned dynamics, compiled for this processor (half a minute the first time)"):
        command = f'source "{ROOT}/tools/env.sh" && exec python -m wm_dynamics.contact_step.compiled'
        try:
            reporter.run(["bash", "-c", command], clean_environment(os.environ, ros), "dynamics.log")
        except subprocess.CalledProcessError:
            print(
                f"set-up: warning: the learned dynamics cannot be compiled ({last_line(LOGS / 'dynamics.log')}), so it "
                "runs in ONNX Runtime, several times slower; see out/setup/dynamics.log",
                flush=True,
            )
    write_stamp("dynamics", key)


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
        choices=["test", "lint", "docs", "training", "export"],
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
