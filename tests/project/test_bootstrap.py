"""The set-up's decisions, on made-up machines: no network, nothing installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import bootstrap  # noqa: E402
from setup_steps import (  # noqa: E402
    packages,
    python_choice,
    reporter,
    ros_choice,
    ros_wheels,
    stamps,
    system_packages,
    virtual_environment,
    workspace,
)
from setup_steps.settings import VENV, SetupError  # noqa: E402


def requirements_in(file: Path) -> list[Requirement]:
    lines = (line.split(" #")[0].strip() for line in file.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- Python


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_every_supported_python_is_accepted(minor: int) -> None:
    assert python_choice.python_refusal((3, minor), "CPython", "x86_64") is None


@pytest.mark.parametrize(
    ("version", "implementation", "machine", "names"),
    [
        ((3, 9), "CPython", "x86_64", "Python 3.9"),
        ((3, 14), "CPython", "x86_64", "Python 3.14"),
        ((3, 11), "PyPy", "x86_64", "PyPy"),
        ((3, 11), "CPython", "aarch64", "aarch64"),
    ],
)
def test_a_refused_python_is_named(version, implementation, machine, names) -> None:
    assert names in python_choice.python_refusal(version, implementation, machine)


def test_a_wrong_python_is_refused_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setattr(python_choice, "find_interpreter", lambda version: None)
    monkeypatch.setattr(bootstrap, "choose_ros", lambda *_: "pip-kilted")
    assert bootstrap.main([]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for said in ("found Python 3.9", "expected CPython 3.10 to 3.13", "run: make setup PYTHON="):
        assert said in line


def test_a_wrong_python_goes_on_under_another_one(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    monkeypatch.setattr(python_choice, "find_interpreter", lambda v: "/usr/bin/python3.11" if v == (3, 11) else None)
    monkeypatch.setattr(os, "execve", lambda path, argv, env: seen.append((path, env)))
    with pytest.raises(SetupError):  # execve returned, which it only does here
        python_choice.choose_python({"HOME": "/x"})
    assert seen[0][0] == "/usr/bin/python3.11"
    assert seen[0][1]["WM_PYTHON_CHOSEN"] == "1", "without this mark it could go round in circles"


@pytest.mark.parametrize("content", ["", "#!/bin/sh\necho 'Python 3.7.3'\n[ \"$1\" = -c ] && exit 1\nexit 0\n"])
def test_make_says_so_where_python_is_absent_or_ancient(tmp_path: Path, content: str) -> None:
    python = tmp_path / "python3"
    if content:
        python.write_text(content)
        python.chmod(0o755)
    done = subprocess.run(["make", "-C", str(ROOT), "setup", f"PYTHON={python}"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "expected CPython 3.10 to 3.13" in done.stderr
    assert ("found Python 3.7.3" if content else "found no") in done.stderr


# --- which ROS


THEIR_VENV = Path("/home/me/wm/.venv")
KILTED_PIP = "pip-kilted"
JAZZY = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
JAZZY_RCLPY = "/opt/ros/jazzy/lib/python3.12/site-packages/rclpy/__init__.py"
OUR_RCLPY = str(THEIR_VENV / "lib/python3.11/site-packages/rclpy/__init__.py")


@pytest.mark.parametrize(
    ("environ", "rclpy_file", "expected"),
    [
        ({}, None, KILTED_PIP),
        ({"WM_ROS_DISTRO": "jazzy"}, None, "pip-jazzy"),
        ({**JAZZY, "WM_ROS": "pip", "WM_ROS_DISTRO": "kilted"}, JAZZY_RCLPY, KILTED_PIP),
        ({**JAZZY, "WM_ROS_DISTRO": "jazzy"}, JAZZY_RCLPY, "sourced"),
        (JAZZY, JAZZY_RCLPY, "sourced"),
        ({**JAZZY, "ROS_DISTRO": "kilted"}, JAZZY_RCLPY, "sourced"),
        ({**JAZZY, "WM_ROS": "pip"}, JAZZY_RCLPY, KILTED_PIP),
        ({"ROS_DISTRO": "jazzy"}, None, KILTED_PIP),  # a container image that names a distribution nobody sourced
        (
            {"ROS_DISTRO": "kilted", "AMENT_PREFIX_PATH": str(THEIR_VENV)},
            OUR_RCLPY,
            KILTED_PIP,
        ),  # our own env.sh was sourced
    ],
)
def test_the_sourced_ros_is_used_where_there_is_one(environ, rclpy_file, expected) -> None:
    assert ros_choice.choose_ros(environ, lambda: rclpy_file, THEIR_VENV) == expected


@pytest.mark.parametrize(
    ("environ", "rclpy_file", "says"),
    [
        (JAZZY, None, "cannot import rclpy"),
        ({**JAZZY, "ROS_DISTRO": "humble"}, "/opt/ros/humble/rclpy/__init__.py", "ROS 2 humble"),
        ({"WM_ROS": "sourced"}, None, "cannot import rclpy"),
        ({"WM_ROS": "apt"}, None, "WM_ROS=apt"),
        ({"WM_ROS_DISTRO": "humble"}, None, "WM_ROS_DISTRO=humble"),
        ({**JAZZY, "WM_ROS_DISTRO": "kilted"}, JAZZY_RCLPY, "WM_ROS_DISTRO=kilted, and ROS 2 jazzy sourced"),
    ],
)
def test_half_a_ros_is_refused(environ, rclpy_file, says) -> None:
    with pytest.raises(SetupError, match=re.escape(says)) as caught:
        ros_choice.choose_ros(environ, lambda: rclpy_file, THEIR_VENV)
    assert "; expected " in str(caught.value)
    assert "; run: " in str(caught.value)


@pytest.mark.parametrize(
    ("said", "wish", "distro"),
    [
        (None, "", "kilted"),
        ("pip-jazzy", "", "jazzy"),  # what was once chosen stays chosen: make test after WM_ROS_DISTRO=jazzy make setup
        ("pip-jazzy", "kilted", "kilted"),
        ("pip", "", "kilted"),  # written before there was a choice
        ("sourced", "", "kilted"),
    ],
)
def test_an_environment_keeps_its_distribution(tmp_path: Path, said, wish, distro) -> None:
    if said is not None:
        (tmp_path / "wm_ros").write_text(f"{said}\n")
    assert ros_choice.choose_pip_distro({"WM_ROS_DISTRO": wish} if wish else {}, tmp_path) == distro


@pytest.mark.slow
def test_another_distribution_gets_another_environment(monkeypatch, tmp_path: Path, capsys) -> None:
    venv = tmp_path / ".venv"
    monkeypatch.setattr(virtual_environment, "VENV", venv)
    monkeypatch.setattr(reporter, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(ros_choice.installed_ros, "__defaults__", (venv,))
    monkeypatch.setattr(virtual_environment.venv_version, "__defaults__", (venv,))
    virtual_environment.ensure_venv("pip-kilted", reporter.Reporter())
    (venv / "mine").touch()
    virtual_environment.ensure_venv("pip-kilted", reporter.Reporter())
    assert (venv / "mine").exists()
    virtual_environment.ensure_venv("pip-jazzy", reporter.Reporter())
    assert not (venv / "mine").exists()
    assert ros_choice.installed_ros(venv) == "pip-jazzy"
    assert ".venv holds ROS 2 Kilted from pip: making it anew for ROS 2 Jazzy from pip" in capsys.readouterr().out


def test_a_sourced_ros_gets_no_ros_wheels_and_its_own_numpy() -> None:
    assert "ros-kilted" in packages.groups_for("pip-kilted", [])
    assert "ros-jazzy" in packages.groups_for("pip-jazzy", [])
    assert not [group for group in packages.groups_for("sourced", ["test"]) if group.startswith("ros")]
    lock = (ROOT / "requirements/lock.txt").read_text()
    overrides = (ROOT / "requirements/sourced-ros.txt").read_text()
    pins = [
        line for line in packages.constraints_text(lock, overrides).splitlines() if re.match(r"numpy[=<>~! ]", line)
    ]
    assert len(pins) == 1
    assert pins[0].startswith("numpy==1."), "rclpy of Ubuntu 24.04 is compiled against NumPy 1"


def test_both_distributions_ask_for_the_same() -> None:
    """What Kilted splits from ament_cmake_ros is the one difference."""
    kilted, jazzy = (
        {r.name.replace(distro, "*") for r in requirements_in(ROOT / f"requirements/ros-{distro}.txt")}
        for distro in ("kilted", "jazzy")
    )
    assert kilted - jazzy == {"ros-*-ament-cmake-ros-core"}
    assert jazzy <= kilted


def test_builds_see_no_other_workspace() -> None:
    dirty = {
        "PATH": "/usr/bin",
        "PYTHONPATH": "/elsewhere/lib",
        "AMENT_PREFIX_PATH": "/opt/ros/jazzy",
        "COLCON_PREFIX_PATH": "/elsewhere/install",
        "PIP_TARGET": "/elsewhere",
    }
    env = ros_choice.clean_environment(dirty, "pip-kilted")
    assert "/elsewhere" not in " ".join(env.values())
    assert env["AMENT_PREFIX_PATH"] == str(VENV)
    own = f"{ROOT}/ros2_ws/install/wm_core"
    sourced = ros_choice.clean_environment({**dirty, "AMENT_PREFIX_PATH": f"{own}:/opt/ros/jazzy"}, "sourced")
    assert sourced["AMENT_PREFIX_PATH"] == "/opt/ros/jazzy"


def test_interfaces_that_ros_has_are_not_built_again(tmp_path: Path) -> None:
    assert [p.name for p in workspace.missing_interfaces({"AMENT_PREFIX_PATH": str(tmp_path)})] == ["tf2_msgs"]
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "tf2_msgs").touch()
    assert workspace.missing_interfaces({"AMENT_PREFIX_PATH": f"/nowhere:{tmp_path}"}) == []


# --- the machine


def test_missing_debian_packages_are_named(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    monkeypatch.setattr(system_packages, "library_loads", lambda soname: soname != "libusb-1.0.so.0")
    missing = system_packages.missing_system_packages()
    assert {"g++", "cmake", "make"} <= set(missing)
    assert not {"libegl1", "libusb-1.0-0"} & set(missing)
    assert "libusb-1.0-0" in system_packages.missing_system_packages(["training"])


def test_a_user_who_may_not_install_gets_the_command(monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name, **_: "/usr/bin/apt-get" if name == "apt-get" else None)
    with pytest.raises(SetupError) as caught:
        system_packages.install_system_packages(["g++", "cmake"], reporter.Reporter())
    assert "lacks g++ cmake" in str(caught.value)
    assert "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends g++ cmake'" in str(caught.value)


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (
            "NewConnectionError: Failed to establish a new connection: [Errno 101] Network is unreachable",
            "no connection",
        ),
        ("NameResolutionError(... Temporary failure in name resolution)", "no name resolution"),
        ("ProxyError('Unable to connect to proxy', OSError('Tunnel connection failed: 403'))", "a proxy that refuses"),
        ("OSError: [Errno 28] No space left on device", "no space left on the disk"),
        ("ERROR: No matching distribution found for numpy==99", None),
    ],
)
def test_what_pip_failed_on_is_said(log, problem) -> None:
    assert packages.pip_problem(log) == problem


def test_no_network_is_one_line(monkeypatch, tmp_path: Path) -> None:
    """A real pip, pointed at a port where nobody listens."""
    for module in (packages, reporter):
        monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(packages, "stamped", lambda name, key: False)
    monkeypatch.setattr(packages, "PIP_VERSION", "0.0.0")
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(SetupError) as caught:
        packages.install_packages("pip-kilted", [], sys.version_info[:2], reporter.Reporter())
    assert "pip could not fetch the packages: no connection" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- ROS wheels


def test_baked_paths_are_rewritten_and_nothing_else(tmp_path: Path) -> None:
    share = tmp_path / "share/some_msgs/cmake"
    share.mkdir(parents=True)
    other = "set(x /opt/python-of-mine/include)\n"
    (share / "export.cmake").write_text(
        'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp313-cp313/include/python3.13;'
        '/opt/python/cp313-cp313/lib/python3.13/site-packages/numpy/_core/include"\n'
    )
    (share / "old.cmake").write_text("/opt/python/cp310-cp310/lib/python3.10/site-packages/numpy/core/include\n")
    (share / "other.cmake").write_text(other)
    assert ros_wheels.rewrite_baked_paths(tmp_path, r"/py\1/include", "/np/include") == 2
    text = (share / "export.cmake").read_text()
    assert text == 'INTERFACE_INCLUDE_DIRECTORIES "/py\\1/include;/np/include"\n'
    assert (share / "old.cmake").read_text() == "/np/include\n"
    assert (share / "other.cmake").read_text() == other
    assert ros_wheels.rewrite_baked_paths(tmp_path, "/other", "/other") == 0, "a second run finds nothing"


@pytest.mark.smoke
def test_no_baked_path_is_left_in_this_environment() -> None:
    if not ros_choice.installed_ros().startswith("pip-"):
        pytest.skip("ROS 2 is not from pip here")
    left = [f for f in (VENV / "share").rglob("*.cmake") if "/opt/python/" in f.read_text(errors="replace")]
    assert left == []


# --- lock


@pytest.mark.parametrize("ros", ["pip-kilted", "pip-jazzy"])
@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_the_locks_pin_every_requirement_once_on_every_python(minor: int, ros: str, tmp_path: Path) -> None:
    environment = {**default_environment(), "python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1"}
    pins: dict[str, list[Requirement]] = {}
    constraints = tmp_path / "constraints.txt"
    lock = (ROOT / "requirements/lock.txt").read_text()
    constraints.write_text(packages.constraints_text(lock, packages.overrides_for(ros).read_text()))
    for pin in requirements_in(constraints):
        if pin.marker is None or pin.marker.evaluate(environment):
            pins.setdefault(canonical(pin.name), []).append(pin)
    for group in packages.groups_for(ros, ["test", "lint", "docs", "training", "export", "household"]):
        for wanted in requirements_in(ROOT / f"requirements/{group}.txt"):
            found = pins.get(canonical(wanted.name), [])
            assert len(found) == 1, f"{wanted.name} on Python 3.{minor}: {len(found)} pins; run: make lock"
            (specifier,) = found[0].specifier
            assert specifier.operator == "=="
            assert wanted.specifier.contains(specifier.version), f"{found[0]} is not {wanted}; run: make lock"


def test_the_robot_needs_no_torch() -> None:
    for group in ("build", "ros-kilted", "ros-jazzy", "runtime"):
        names = {canonical(r.name) for r in requirements_in(ROOT / f"requirements/{group}.txt")}
        assert not names & {"torch", "torchvision", "tensorrt", "triton"}


# --- stamps


def test_the_workspace_is_rebuilt_for_an_interface_and_not_for_a_module(tmp_path: Path) -> None:
    package = tmp_path / "p"
    (package / "p").mkdir(parents=True)
    (package / "msg").mkdir()
    (package / "config").mkdir()
    (package / "package.xml").write_text("<package/>")
    (package / "msg/A.msg").write_text("int32 a")
    (package / "p/module.py").write_text("x = 1")
    (package / "config/a.yaml").write_text("a: 1")

    def key() -> str:
        return stamps.digest(workspace.build_inputs([tmp_path]))

    before = key()
    (package / "p/module.py").write_text("x = 2")
    (package / "config/a.yaml").write_text("a: 2")  # a link in the install space: no rebuild
    assert key() == before
    (package / "config/b.yaml").write_text("")
    with_file = key()
    assert with_file != before, "a new data file must be installed"
    (package / "msg/A.msg").write_text("int64 a")
    assert key() != with_file


def test_a_workspace_built_by_hand_is_built_again(tmp_path: Path) -> None:
    """Its programs would run under the system's Python, which has not what .venv has."""
    python = tmp_path / ".venv/bin/python"
    assert not workspace.programs_run_under(tmp_path, python)
    for name in ("perception", "imagination"):
        folder = tmp_path / f"wm_{name}/lib/wm_{name}"
        folder.mkdir(parents=True)
        (folder / f"{name}_node").write_text(f"#!{python}\nimport sys\n")
    assert workspace.programs_run_under(tmp_path, python)
    (tmp_path / "wm_imagination/lib/wm_imagination/imagination_node").write_text("#!/usr/bin/python3\nimport sys\n")
    assert not workspace.programs_run_under(tmp_path, python)
    assert workspace.programs_run_under(ROOT / "ros2_ws/install", VENV / "bin/python")


# --- env.sh


def run_bash(script: str, **extra: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), **extra}
    return subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)


def test_env_may_be_sourced_twice_and_under_strict_bash() -> None:
    names = "PATH|LD_LIBRARY_PATH|PYTHONPATH|AMENT_PREFIX_PATH|MUJOCO_GL|RMW|FASTDDS|FASTRTPS|ROS_DISTRO"
    show = f"env | grep -E '^({names})' | sort"
    source = f'source "{ROOT}/tools/env.sh"'
    once = run_bash(f"set -euo pipefail; {source}; {show}")
    twice = run_bash(f"set -euo pipefail; {source}; {source}; case $- in *u*) ;; *) exit 9 ;; esac; {show}")
    assert once.returncode == 0, once.stderr
    assert twice.returncode == 0, twice.stderr
    assert twice.stdout == once.stdout
    assert "RMW_IMPLEMENTATION=rmw_fastrtps_cpp" in once.stdout


def test_env_keeps_what_the_user_has_set() -> None:
    done = run_bash(
        f'source "{ROOT}/tools/env.sh"; '
        'echo "$FASTDDS_DEFAULT_PROFILES_FILE $FASTRTPS_DEFAULT_PROFILES_FILE $MUJOCO_GL"',
        FASTDDS_DEFAULT_PROFILES_FILE="/mine.xml",
        FASTRTPS_DEFAULT_PROFILES_FILE="/older.xml",
        MUJOCO_GL="glfw",
    )
    assert done.stdout.split() == ["/mine.xml", "/older.xml", "glfw"]


@pytest.mark.smoke
def test_env_names_the_profile_to_the_fast_dds_that_is_here() -> None:
    """Jazzy's Fast DDS 2 and Kilted's Fast DDS 3 read different variables; with the wrong one images are lost."""
    done = run_bash(f'source "{ROOT}/tools/env.sh"; env')
    said = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    read, other = names if said.get("ROS_DISTRO") == "jazzy" else names[::-1]
    assert Path(said[read]).is_file()
    assert other not in said or other in os.environ, f"{other} makes Fast DDS warn in every process"
    libraries = [f for name in ("fastdds", "fastrtps") for f in (VENV / "lib").glob(f"lib{name}.so")]
    for file in libraries:  # ROS 2 from pip
        assert read.encode() in file.read_bytes()


def test_env_chooses_small_segments_where_shared_memory_is_small() -> None:
    """As in a container, whose /dev/shm has 64 MiB unless told otherwise."""
    mounted = "unshare --mount bash -c 'mount -t tmpfs -o size={} tmpfs /dev/shm && {}'"
    profile = "${FASTDDS_DEFAULT_PROFILES_FILE:-$FASTRTPS_DEFAULT_PROFILES_FILE}"
    show = f'source "{ROOT}/tools/env.sh" && basename "{profile}"'
    if run_bash(mounted.format("64m", "true")).returncode != 0:
        pytest.skip("needs the right to mount (root)")
    assert run_bash(mounted.format("64m", show)).stdout.strip() == "fastdds_small_shm.xml"
    assert run_bash(mounted.format("1g", show)).stdout.strip() == "fastdds.xml"


def test_env_says_what_to_run_before_set_up(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/env.sh").write_text((ROOT / "tools/env.sh").read_text())
    done = run_bash(f'source "{tmp_path}/tools/env.sh" && echo sourced')
    assert done.returncode != 0
    assert "sourced" not in done.stdout
    assert f"run: make -C {tmp_path} setup" in done.stderr


@pytest.mark.smoke
@pytest.mark.ros
def test_a_node_is_one_process_and_ctrl_c_ends_it(node_process, wait_for) -> None:
    """No re-exec on start, the pid we hold is the node's, and SIGINT reaches rclpy."""
    process = node_process("timeit", "-n1", "-r1", "-s", NODE, "run()")
    wait_for(lambda: "spinning" in process.output or not process.alive, what="the node to spin")
    assert f"spinning {process.process.pid}\n" in process.output
    assert process.stop() == 0, process.output
    assert "clean" in process.output


NODE = """
def run():
    import os, rclpy
    from rclpy.executors import ExternalShutdownException
    rclpy.init()
    node = rclpy.create_node("bootstrap_test")
    # Said from within: a signal before rclpy.spin() has begun is another matter.
    node.create_timer(0.05, lambda: print("spinning", os.getpid(), flush=True))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except rclpy._rclpy_pybind11.RCLError:
        # rclpy's own signal handler ends the context in a thread of its own, also while spin() makes a wait set of it.
        assert not rclpy.ok()
    print("clean", flush=True)
"""
