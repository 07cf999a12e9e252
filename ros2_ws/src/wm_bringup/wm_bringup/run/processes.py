"""Runs the nodes of a graph as processes, and ends all of them.

    with ProcessGroup(out / "logs", graph_environment()) as processes:
        processes.start("sim", node_command("wm_sim.node", parameters={"scene": "demo"}))
        processes.start("perception", node_command("wm_perception.node", "/wm"))
        while not done():
            processes.check()  # raises ProcessDied with the end of the log of a node that ended by itself

Every process starts a session and a process group, so that one signal reaches it and all its children. When the block
ends, also by Ctrl-C or SIGTERM, the groups get SIGINT, then SIGTERM, then SIGKILL. When this process gets SIGKILL, a
guard process sees the end of its pipe and ends the groups in the same way.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from wm_bringup.run.ending_signals import ENDING_SIGNALS, deferred, handled, prepare_child
from wm_ros.nodes.startup import raise_interrupt

_TAIL_BYTES = 64 * 1024
"""Length of the end of a log that the last lines are looked for in [bytes]."""
_POLL_S = 0.02
"""Time between two checks for the end of processes [s]: an end is noticed this much later at most."""
# The guard runs with -I -S, without site packages, so that it starts in milliseconds. It reads lines "+PGID" and
# "-PGID". The end of its input means that the process that started it has ended, for whatever reason.
_GUARD = """
import os, signal, sys, time
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(s, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    number = int(line[1:])
    groups.add(number) if line[0] == "+" else groups.discard(number)
for s, wait in ((signal.SIGINT, 3.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 0.0)):
    end = time.monotonic() + wait
    for g in list(groups):
        try:
            os.killpg(g, s)
        except OSError:
            groups.discard(g)
    while groups and time.monotonic() < end:
        time.sleep(0.05)
        for g in list(groups):
            try:
                os.killpg(g, 0)
            except OSError:
                groups.discard(g)
"""


class NodeRefused(RuntimeError):
    """A node runs but has refused its configuration; the message gives the node's name and its reason."""


class ProcessDied(RuntimeError):
    """A process has ended without a request to stop.

    Attributes:
        name: the name given to ``ProcessGroup.start``.
        returncode: exit status; negative: the number of the signal that ended the process.
        log: file with the whole output of the process.
        tail: the last lines of the output.
    """

    def __init__(self, name: str, returncode: int, log: Path, tail: str) -> None:
        how = f"exit status {returncode}"
        if returncode < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-returncode).name
        said = f"; it said last:\n{tail}" if tail else "; it printed nothing"
        super().__init__(f"{name} ended by itself ({how}); log: {log}{said}")
        self.name, self.returncode, self.log, self.tail = name, returncode, log, tail


class Managed:
    """One process of a ``ProcessGroup``.

    Attributes:
        name, argv: as given to ``ProcessGroup.start``.
        log: file with the command line and the output of the process.
        may_end: whether the process may end with status 0 by itself (a player, a recorder with a duration).
        asked_to_stop: whether ``ProcessGroup.stop`` has signaled the process while it ran.
        started_at: ``time.monotonic()`` at the start [s].
        process: the process; it leads its session and its process group.
    """

    def __init__(self, name: str, argv: list[str], log: Path, env: Mapping[str, str], cwd: Path | None, may_end: bool):
        self.name, self.argv, self.log, self.may_end = name, argv, log, may_end
        self.asked_to_stop = False
        self.started_at = time.monotonic()
        self._code: int | None = None
        with log.open("wb") as file:
            file.write(f"$ {shlex.join(argv)}\n".encode())
            file.flush()
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=prepare_child(os.getpid()),
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the process group."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit status, or minus the number of the signal that ended the process; None while it runs."""
        # ``Popen.poll`` takes a lock, which a KeyboardInterrupt can leave locked; then it says None for ever.
        if self._code is None:
            try:
                ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return self.process.returncode
            if ended is None:
                return None
            self._code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            self.process.poll()  # takes the zombie away
        return self._code

    @property
    def group_alive(self) -> bool:
        """Whether a process of the group runs: the process itself or one that it started."""
        if self.alive:
            return True
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return _group_has_living(self.pid)

    def signal_group(self, number: int) -> None:
        """Send a signal to all processes of the group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def tail(self, lines: int = 20) -> str:
        """The last lines of the output, without blank lines and without the command line."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        kept = [line for line in text.splitlines() if line.strip() and not line.startswith("$ ")]
        return "\n".join(kept[-lines:])


class ProcessGroup:
    """Starts processes, reports one that ends by itself, and stops all of them. A context manager.

    Inside the block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does (main thread only). Start processes from
    a thread that lives longer than they do: the kernel ends them together with the thread that started them.

    Attributes:
        log_folder: folder of the logs.
        env: environment variables of all processes.
        processes: the processes by name, also those that have ended.
    """

    def __init__(self, log_folder: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> None:
        """The output of a process NAME goes to ``log_folder``/NAME.log. ``env`` None: this process's environment."""
        self.log_folder = Path(log_folder)
        self.env = dict(os.environ if env is None else env)
        self.env.setdefault("PYTHONUNBUFFERED", "1")
        self.processes: dict[str, Managed] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._handlers: dict[int, Any] = {}
        self._hurry = 0

    def __enter__(self) -> ProcessGroup:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING_SIGNALS:
                self._handlers[number] = signal.signal(number, raise_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._end_guard()
            for number, handler in self._handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._handlers = {}

    def __getitem__(self, name: str) -> Managed:
        return self.processes[name]

    def __iter__(self) -> Iterator[Managed]:
        return iter(list(self.processes.values()))

    def start(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        may_end: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Managed:
        """Start a process.

        Args:
            name: name of the process and of its log file. The name of a process that has ended may be used again.
            argv: the program and its arguments.
            may_end: whether the process may end with status 0 by itself.
            env: environment variables in addition to those of the group.
            cwd: working directory; None: that of this process.

        Raises:
            ValueError: a running process has this name.
            ProcessDied: the program cannot be executed.
        """
        old = self.processes.get(name)
        if old is not None and old.group_alive:
            raise ValueError(f"process {name}: got a name that is in use, expected a new one (pid {old.pid} runs)")
        self.log_folder.mkdir(parents=True, exist_ok=True)
        log = self.log_folder / f"{name}.log"
        command = [os.fspath(part) for part in argv]
        with deferred():
            try:
                managed = Managed(
                    name, command, log, {**self.env, **(env or {})}, Path(cwd) if cwd is not None else None, may_end
                )
            except OSError as error:
                raise ProcessDied(name, 127, log, f"cannot run {command[0]}: {error.strerror or error}") from error
            self.processes[name] = managed
            self._tell_guard(f"+{managed.pid}")
        return managed

    def check(self) -> None:
        """Check that no process has ended by itself, except those that may.

        Raises:
            ProcessDied: one has; the first in the order of the starts.
        """
        for managed in self:
            code = managed.returncode
            if code is None or managed.asked_to_stop or (managed.may_end and code == 0):
                continue
            raise ProcessDied(managed.name, code, managed.log, managed.tail())

    def wait(self, name: str, timeout_s: float | None = None) -> int:
        """Wait for the end of a process, ``check`` the others meanwhile, and return the exit status.

        Raises:
            TimeoutError: the process still runs after ``timeout_s`` [s]; None: no limit.
            ProcessDied: another process has ended by itself.
        """
        managed = self.processes[name]
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while (code := managed.returncode) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} still runs after {timeout_s:g} s; log: {managed.log}")
            self.check()
            time.sleep(_POLL_S)
        return code

    def stop(
        self, *names: str, interrupt_s: float = 6.0, terminate_s: float = 3.0, kill_s: float = 2.0
    ) -> dict[str, int | None]:
        """Stop the process groups of these names, or all, and return the exit statuses by name.

        All groups get SIGINT at once. Those that still run after ``interrupt_s`` get SIGTERM, and those that still run
        ``terminate_s`` later get SIGKILL; after ``kill_s`` more the method returns [s]. A Ctrl-C meanwhile skips the
        rest of the present wait.
        """
        chosen = [self.processes[name] for name in names] if names else list(self)
        for managed in chosen:
            managed.asked_to_stop = managed.asked_to_stop or managed.alive
        with handled(self._skip_wait):
            for number, seconds in (
                (signal.SIGINT, interrupt_s),
                (signal.SIGTERM, terminate_s),
                (signal.SIGKILL, kill_s),
            ):
                left = [managed for managed in chosen if managed.group_alive]
                if not left:
                    break
                for managed in left:
                    managed.signal_group(number)
                hurry = self._hurry
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline and self._hurry == hurry:
                    # The deadline covers the whole group: children that outlive the leader get no extra time.
                    if not any(managed.group_alive for managed in left):
                        break
                    time.sleep(_POLL_S)
        for managed in chosen:
            if not managed.group_alive:
                self._tell_guard(f"-{managed.pid}")
        return {managed.name: managed.returncode for managed in chosen}

    def _skip_wait(self, number: int, frame: FrameType | None) -> None:
        """A signal while the group is stopped does not interrupt that; it skips the rest of the present wait."""
        self._hurry += 1

    def _tell_guard(self, line: str) -> None:
        if self._guard is None:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):  # without the guard the kernel still ends the direct children
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()

    def _end_guard(self) -> None:
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(10.0)
        self._guard = None


def _group_has_living(group: int) -> bool:
    """Whether a process group has a member that is not a zombie (a container without an init reaps no orphans)."""
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    for number in numbers:
        try:
            # The command's name, in brackets, may have any characters. After it come state, parent and group.
            fields = Path("/proc", number, "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


_REFUSAL = "configure refused: "
"""Text of the log line in which a node gives the reason why it refuses its configuration."""
_REFUSAL_BYTES = 1 << 16
"""Length of the beginning of a log that is searched for a refusal [bytes]; nodes are configured soon after start."""


def check_nodes(processes: ProcessGroup) -> None:
    """Check that the processes run and that no log reports a refused configuration.

    Raises:
        ProcessDied: a process has ended by itself.
        NodeRefused: a node has refused its configuration; it would wait for another one without end.
    """
    processes.check()
    for managed in processes:
        try:
            with managed.log.open("rb") as file:
                text = file.read(_REFUSAL_BYTES).decode(errors="replace")
        except OSError:
            continue
        _, found, rest = text.partition(_REFUSAL)
        if found and "\n" in rest:
            raise NodeRefused(f"{managed.name} refused its configuration: {rest.partition(chr(10))[0].strip()}")
