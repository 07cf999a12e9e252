"""The supervisor: nothing survives it, and what dies under it is reported with its last words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from wm_bringup.run.node_command import node_command, parameter_text
from wm_bringup.run.private_graph import domain_is_used, graph_environment
from wm_bringup.run.processes import NodeRefused, ProcessDied, ProcessGroup, check_nodes

# Starts a child of its own, writes both ids, and waits; deaf to what `deaf` names.
FAMILY = """
import os, signal, subprocess, sys, time
for name in sys.argv[2:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""

SUPERVISOR = """
import sys, time
from pathlib import Path
from wm_bringup.run.processes import ProcessGroup
folder = Path(sys.argv[1])
try:
    with ProcessGroup(folder / "logs") as group:
        group.start("family", [sys.executable, "-S", str(folder / "family.py"), str(folder / "ids")])
        while True:
            group.check()
            time.sleep(0.02)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def with_word(word: str) -> list[int]:
    """Ids of the running processes that have a word on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if word in words and running(int(folder.name)):
            found.append(int(folder.name))
    return found


@pytest.fixture
def family(tmp_path: Path) -> Path:
    file = tmp_path / "family.py"
    file.write_text(FAMILY)
    return file


def ids_of(file: Path, wait_for) -> list[int]:
    wait_for(file.exists, what=f"{file.name}")
    return [int(word) for word in file.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [(), ("SIGINT",), ("SIGINT", "SIGTERM")])
def test_children_of_children_end(tmp_path, family, wait_for, deaf):
    with ProcessGroup(tmp_path / "logs") as group:
        group.start("family", [sys.executable, "-S", str(family), str(tmp_path / "ids"), *deaf])
        pids = ids_of(tmp_path / "ids", wait_for)
        assert all(running(pid) for pid in pids)
        group.check()
        codes = group.stop(interrupt_s=0.5, terminate_s=0.5)
    assert not any(running(pid) for pid in pids)
    expected = {(): -signal.SIGINT, ("SIGINT",): -signal.SIGTERM}.get(deaf, -signal.SIGKILL)
    assert codes["family"] in (expected, 1)  # python ends with 1 or by the signal after KeyboardInterrupt


def test_children_left_by_a_dead_parent_end(tmp_path, family, wait_for):
    with ProcessGroup(tmp_path / "logs") as group:
        leader = group.start("family", [sys.executable, "-S", str(family), str(tmp_path / "ids")])
        pids = ids_of(tmp_path / "ids", wait_for)
        os.kill(leader.pid, signal.SIGKILL)
        wait_for(lambda: not leader.alive)
        assert running(pids[1])
        with pytest.raises(ProcessDied, match="SIGKILL"):
            group.check()
    wait_for(lambda: not running(pids[1]), 3.0, "the orphan to end")


def test_a_crash_is_reported_with_its_last_words(tmp_path, wait_for):
    with ProcessGroup(tmp_path) as group:
        node = group.start("node", [sys.executable, "-c", "print('camera 7 is gone'); raise SystemExit(3)"])
        wait_for(lambda: not node.alive)
        with pytest.raises(ProcessDied) as error:
            group.check()
    assert error.value.name == "node" and error.value.returncode == 3
    assert "camera 7 is gone" in str(error.value) and str(tmp_path / "node.log") in str(error.value)


def test_a_node_that_refuses_its_configuration_is_reported(tmp_path, wait_for):
    node = tmp_path / "node.py"
    said = "[ERROR] [1.0] [wm.perception]: configure refused: bad.onnx: no"
    node.write_text(f"import time\nprint({said!r}, flush=True)\ntime.sleep(600)\n")

    def refused() -> str:
        try:
            check_nodes(group)
        except NodeRefused as error:
            return str(error)
        return ""

    with ProcessGroup(tmp_path / "logs") as group:
        group.start("perception", [sys.executable, "-S", str(node)])
        group.start("imagination", [sys.executable, "-S", "-c", "import time; print('fine'); time.sleep(600)"])
        assert wait_for(refused) == "perception refused its configuration: bad.onnx: no"


def test_ends_that_are_no_crash(tmp_path, wait_for):
    with ProcessGroup(tmp_path) as group:
        player = group.start("player", [sys.executable, "-S", "-c", ""], may_end=True)
        assert group.wait("player", 10.0) == 0
        group.check()
        sleeper = group.start("sleeper", [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        with pytest.raises(ValueError, match="in use"):
            group.start("sleeper", ["true"])
        with pytest.raises(TimeoutError, match="sleeper still runs"):
            group.wait("sleeper", 0.1)
        group.stop("sleeper")
        assert not sleeper.alive
        group.check()  # asked to stop: no crash
        group.start("player", [sys.executable, "-S", "-c", ""], may_end=True)
        assert group["player"].pid != player.pid


def test_program_that_is_not_there(tmp_path):
    with ProcessGroup(tmp_path) as group, pytest.raises(ProcessDied, match="cannot run no-such-program"):
        group.start("ghost", ["no-such-program"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_end_of_the_supervisor_leaves_nothing(tmp_path, family, wait_for, number):
    script = tmp_path / "supervisor.py"
    script.write_text(textwrap.dedent(SUPERVISOR))
    supervisor = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        pids = ids_of(tmp_path / "ids", wait_for)
        begin = time.monotonic()
        supervisor.send_signal(number)
        output, _ = supervisor.communicate(timeout=30)
        wait_for(lambda: not any(running(pid) for pid in pids), 10.0, "the family to end")
        assert time.monotonic() - begin < 20.0
    finally:
        supervisor.kill()
    if number != signal.SIGKILL:
        assert supervisor.returncode == 130 and "interrupted" in output


# A signal that comes while the fork's hooks run: an exception is lost there.
FORK_HOOK = """
import os, signal
os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGTERM))
"""


def test_a_signal_while_a_process_starts_is_not_lost(tmp_path, family, wait_for):
    script = tmp_path / "supervisor.py"
    script.write_text(textwrap.dedent(FORK_HOOK + SUPERVISOR))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 130 and "interrupted" in done.stdout
    wait_for(lambda: not with_word(str(family)), 10.0, "the family to end")


def test_an_interrupted_poll_does_not_hide_the_end_of_a_process(tmp_path, family, wait_for):
    with ProcessGroup(tmp_path / "logs") as group:
        leader = group.start("family", [sys.executable, "-S", str(family), str(tmp_path / "ids")])
        pids = ids_of(tmp_path / "ids", wait_for)
        leader.process._waitpid_lock.acquire()  # as KeyboardInterrupt leaves it in ``Popen.poll``
        assert leader.alive
        codes = group.stop(interrupt_s=600.0)  # longer than a test may take
    assert codes["family"] in (-signal.SIGINT, 1)
    assert not any(running(pid) for pid in pids)


@pytest.mark.parametrize(
    "value",
    [True, False, 3, -1.5, 5.0, 1e-7, 1e22, "3", "true", "", 'a "b" ü:', "/x", [1.0, 2.5], ["a", "1"], float("inf")],
)
def test_parameters_keep_their_type(value):
    read = yaml.safe_load(parameter_text(value))
    assert read == value and type(read) is type(value)


def test_node_command():
    command = node_command(
        "wm_sim.node", "sim", {"seed": 3, "rate": 30.0}, ["/x/a.yaml"], {"/camera/a": "/b"}, arguments=["--fast"]
    )
    assert command[:4] == [sys.executable, "-m", "wm_sim.node", "--fast"]
    assert command[4:] == [
        *["--ros-args", "-r", "__ns:=/sim", "--params-file", "/x/a.yaml"],
        *["-p", "seed:=3", "-p", "rate:=30.0", "-r", "/camera/a:=/b"],
    ]
    assert node_command("wm_sim.node") == [sys.executable, "-m", "wm_sim.node"]
    with pytest.raises(ValueError, match="expected OLD:=NEW"):
        node_command("wm_sim.node", remaps=["/a=/b"])


def test_the_domain_of_these_tests_counts_as_used_while_no_node_of_theirs_runs():
    assert domain_is_used(int(os.environ["ROS_DOMAIN_ID"]))


def test_graph_environment_is_private():
    env = graph_environment({"PATH": "/bin", "ROS_LOCALHOST_ONLY": "0"})
    assert 1 <= int(env["ROS_DOMAIN_ID"]) <= 101
    assert env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert env["PATH"] == "/bin" and "ROS_LOCALHOST_ONLY" not in env
