"""Programs are interrupted while they start, and deployed commands end on their stop signal. Real processes."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import NodeProcess
from live_graph import Asker, eventually, has_loaded, marked

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "ros2_ws/src/wm_bringup/deploy"

pytestmark = pytest.mark.ros

STARTS = [
    ("wm_perception.node", "_multiarray_umath"),
    ("wm_perception.node", "librmw_fastrtps_cpp"),
    ("wm_perception.node", "onnxruntime_pybind11_state"),
    ("wm_imagination.node", "librmw_fastrtps_cpp"),
    ("wm_imagination.node", "libllvmlite"),  # it compiles, as its cache is empty: longer than anybody waits
    ("wm_sim.node", "_multiarray_umath"),
    ("wm_sim.node", "libmujoco"),
    ("wm_bringup.run.lifecycle_manager", "librmw_fastrtps_cpp"),
    ("wm_bringup.run.container", "_rclpy_pybind11"),
]


@pytest.mark.parametrize(
    ("number", "starts"), [(signal.SIGINT, STARTS), (signal.SIGTERM, STARTS[1::4])], ids=["SIGINT", "SIGTERM"]
)
def test_interrupts_while_starting(tmp_path, number, starts):
    """At several points of starting, told by what is loaded: no traceback, status 0, nothing left."""
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "WM_TEST_MARK": mark, "XDG_CACHE_HOME": str(tmp_path)}
    for index, (module, library) in enumerate(starts):
        process = NodeProcess([sys.executable, "-m", module], tmp_path / f"{index}.log", environment)
        try:
            eventually(lambda p=process, name=library: has_loaded(p, name), 60.0, f"{module} to load {library}")
            process.signal_group(number)
            status = process.process.wait(30.0)
        finally:
            process.stop()
        assert status == 0, f"{module} at {library}: {process.output}"
        assert "Traceback" not in process.output and "Error" not in process.output, f"{module}: {process.output}"
    assert not marked(mark)


def test_wm_run_is_interrupted_while_it_starts(tmp_path):
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "WM_TEST_MARK": mark}
    for index, library in enumerate(("_rclpy_pybind11", "librmw_fastrtps_cpp")):
        command = [sys.executable, "-m", "wm_bringup.cli", "run"]
        process = NodeProcess(command, tmp_path / f"{index}.log", environment)
        try:
            eventually(lambda p=process, name=library: has_loaded(p, name), 60.0, f"wm run to load {library}")
            os.kill(process.process.pid, signal.SIGINT)
            assert process.process.wait(30.0) in (0, 130), process.output
            eventually(lambda: not marked(mark), 15.0, "its nodes to end")
        finally:
            process.stop()
        assert "Traceback" not in process.output, process.output


def unit_option(name: str) -> str:
    lines = (DEPLOY / "wm.service").read_text().splitlines()
    (value,) = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
    return value


def deployed_commands() -> dict[str, tuple[list[str], str]]:
    """What the unit and the compose file run, and the signal that they end it with; each pair of the two once."""
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["wm"]
    both = {
        "systemd": (shlex.split(unit_option("ExecStart")), unit_option("KillSignal")),
        "compose": (service["command"], service["stop_signal"]),
    }
    if both["systemd"] == both["compose"]:
        return {"systemd and compose": both["systemd"]}
    return both


@pytest.mark.parametrize("kind", deployed_commands())
def test_deployed_command_ends_on_its_stop_signal(tmp_path, kind):
    """It starts the nodes, and ends on the signal with status 0 and nothing left."""
    words, name = deployed_commands()[kind]
    parameters = tmp_path / "robot.yaml"
    lines = ["/**/perception:", "  ros__parameters:", "    pipeline: {segmenter: geometric, reasoner: geometric}"]
    parameters.write_text("\n".join([*lines, "/**/imagination:", "  ros__parameters: {backend: straight}", ""]))
    words = [word.replace("/opt/wm", str(ROOT)).replace("/etc/wm/robot.yaml", str(parameters)) for word in words]
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "WM_TEST_MARK": mark}
    process = NodeProcess(words, tmp_path / "out.log", environment)
    asker = Asker()
    try:
        eventually(
            lambda: (
                getattr(asker.diagnostics.get("imagination: state"), "message", "") == "active"
                and getattr(asker.diagnostics.get("perception: state"), "message", "") == "active"
            ),
            90.0,
            "the nodes to be active",
        )
        assert len(marked(mark)) >= 3
        os.kill(
            process.process.pid, getattr(signal, name)
        )  # to the main process alone, as KillMode=mixed and docker do
        assert process.process.wait(20.0) == 0, process.output
        eventually(lambda: not marked(mark), 10.0, "all that it started to end")
    finally:
        asker.close()
        process.stop()
    assert "Traceback" not in process.output


def test_unit_file_is_one(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "wm.service").read_text()
    assert "/opt/wm/.venv/bin/wm" in text
    unit = tmp_path / "wm.service"
    unit.write_text(text.replace("/opt/wm", str(ROOT)))
    checked = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if "wm.service" in line]
    assert not complaints, complaints
    # The drop-in replaces the command, and the signal that `ros2 launch` needs.
    dropped = (DEPLOY / "launch.conf").read_text()
    assert "\nExecStart=\nExecStart=/bin/bash -c" in dropped and "\nKillSignal=SIGINT\n" in dropped


def test_compose_file_is_one():
    file = DEPLOY / "compose.yaml"
    service = yaml.safe_load(file.read_text())["services"]["wm"]
    # Names of the Compose specification.
    assert set(service) <= {
        *("image", "build", "command", "volumes", "environment", "network_mode", "ipc", "init", "stop_signal"),
        *("stop_grace_period", "restart"),
    }
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert context == ROOT and (context / service["build"]["dockerfile"]).is_file()
    (volume,) = service["volumes"]
    default = volume.partition(":-")[2].partition("}")[0]
    assert (DEPLOY / default).is_file() and volume.endswith(":/etc/wm/robot.yaml:ro")
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        checked = subprocess.run(["docker", "compose", "-f", file, "config", "-q"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
