"""Runs the nodes of a graph as processes, and leaves none behind.

    with ProcessGroup(out / "logs", graph_environment()) as processes:
        processes.start("sim", node_command("wm_sim.node", parameters={"scene": "demo"}))
        processes.start("perception", node_command("wm_perception.node", "/wm"))
        while not done():
            processes.check()  # raises ProcessDied with the end of the log of a node that ended by itself

Every process leads a session of its own, so that one signal reaches all it started. When the block ends, also by
Ctrl-C or SIGTERM, they get SIGINT, then SIGTERM, then SIGKILL. When this process is killed outright, a guard process
notices that its pipe was closed and ends them all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
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
from types import TracebackType
from typing import Any

from wm_ros.nodes.startup import raise_interrupt

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 64 * 1024
_POLL_S = 0.02
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

try:
    _LIBC: Any = ctypes.CDLL(None)
except (OSError, TypeError):
    _LIBC = None

# Runs with -I -S: the standard library alone, so that it starts in milliseconds. It reads "+PGID" and "-PGID"; the
# end of its input means that the supervisor is gone, however it went.
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
    """A node that runs, but did not accept its configuration; the message names the node and says why."""


class ProcessDied(RuntimeError):
    """A process that ended though nobody asked it to.

    Attributes:
        name: the one given to ``ProcessGroup.start``.
        returncode: exit status; negative: the signal that ended it.
        log: file with its whole output.
        tail: the last lines of it.
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
        log: file that has its output.
        may_end: whether it may end with status 0 by itself (a player, a recorder with a duration).
        started_at: ``time.monotonic()`` at its start.
    """

    def __init__(self, name: str, argv: list[str], log: Path, env: Mapping[str, str], cwd: Path | None, may_end: bool):
        self.name, self.argv, self.log, self.may_end = name, argv, log, may_end
        self.asked_to_stop = False
        self.started_at = time.monotonic()
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
                preexec_fn=_prepare_child(os.getpid()),
            )

    @property
    def pid(self) -> int:
        """Process id; also that of its process group."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    @property
    def group_alive(self) -> bool:
        """Whether it or anything that it started in its group still runs."""
        alive = self.alive  # reaps it, or its zombie would keep the group
        if alive:
            return True
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return _group_has_living(self.pid)

    def signal_group(self, number: int) -> None:
        """Send a signal to it and to all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
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
    """Starts processes, says when one of them dies, stops all of them. A context manager.

    Inside the block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does (main thread only). Start processes from
    a thread that lives as long as they: the kernel ends them with the thread that started them.
    """

    def __init__(self, log_folder: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> None:
        """Output of a process NAME goes to ``log_folder``/NAME.log. ``env`` None: the environment as it is."""
        self.log_folder = Path(log_folder)
        self.env = dict(os.environ if env is None else env)
        self.env.setdefault("PYTHONUNBUFFERED", "1")
        self.processes: dict[str, Managed] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._handlers: dict[int, Any] = {}
        self._hurry = 0

    def __enter__(self) -> ProcessGroup:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING_SIGNALS:
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
            name: of it, and of its log file. The name of a process that has ended may be used again.
            argv: the program and its arguments.
            may_end: it may end with status 0 by itself.
            env: variables beside those of the group.
            cwd: folder that it runs in.

        Raises:
            ValueError: the name is in use.
            ProcessDied: the program cannot be executed.
        """
        old = self.processes.get(name)
        if old is not None and old.group_alive:
            raise ValueError(f"process {name}: got a name that is in use, expected a new one (pid {old.pid} runs)")
        self.log_folder.mkdir(parents=True, exist_ok=True)
        log = self.log_folder / f"{name}.log"
        command = [os.fspath(part) for part in argv]
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
        """Raises ProcessDied for the first process that ended though nobody asked it to."""
        for managed in self:
            code = managed.returncode
            if code is None or managed.asked_to_stop or (managed.may_end and code == 0):
                continue
            raise ProcessDied(managed.name, code, managed.log, managed.tail())

    def wait(self, name: str, timeout_s: float | None = None) -> int:
        """Exit status of a process, waiting for its end; ``check``s the others meanwhile.

        Raises:
            TimeoutError: it still runs after ``timeout_s``.
            ProcessDied: another process ended.
        """
        managed = self.processes[name]
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while managed.returncode is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} still runs after {timeout_s:g} s; log: {managed.log}")
            self.check()
            time.sleep(_POLL_S)
        return int(managed.process.returncode)

    def stop(
        self, *names: str, interrupt_s: float = 6.0, terminate_s: float = 3.0, kill_s: float = 2.0
    ) -> dict[str, int | None]:
        """Stop the processes of these names, or all, with everything they started; their exit statuses by name.

        All get SIGINT at once, those left after ``interrupt_s`` SIGTERM, and after ``terminate_s`` more SIGKILL. A
        Ctrl-C meanwhile goes to the next step.
        """
        chosen = [self.processes[name] for name in names] if names else list(self)
        for managed in chosen:
            managed.asked_to_stop = managed.asked_to_stop or managed.alive
        with self._hurrying():
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
                    # What a leader left in its group when it ended gets no time of its own.
                    if not any(managed.group_alive for managed in left):
                        break
                    time.sleep(_POLL_S)
        for managed in chosen:
            if not managed.group_alive:
                self._tell_guard(f"-{managed.pid}")
        return {managed.name: managed.returncode for managed in chosen}

    @contextlib.contextmanager
    def _hurrying(self) -> Iterator[None]:
        """Signals do not break off stopping; they make it go faster."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hurry(number: int, frame: Any) -> None:
            self._hurry += 1

        previous = {number: signal.signal(number, hurry) for number in _ENDING_SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

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
        with contextlib.suppress(OSError):  # without its guard the kernel's signal still ends the direct children
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


def _prepare_child(parent: int) -> Any:
    def prepare() -> None:
        # A shell without job control starts background commands with SIGINT ignored, and that is inherited.
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it died before the request above
                os._exit(1)

    return prepare


def _group_has_living(group: int) -> bool:
    """Whether a process group has a member that is not a zombie (nobody may reap orphans in a bare container)."""
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    for number in numbers:
        try:
            # The command's name, in brackets, may hold anything; the fields after it are: state, parent, group.
            fields = Path("/proc", number, "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


_REFUSAL = "configure refused: "
_REFUSAL_BYTES = 1 << 16


def check_nodes(processes: ProcessGroup) -> None:
    """Check that the processes live and that none says that it refuses its configuration.

    Raises:
        ProcessDied: one ended by itself.
        NodeRefused: one of them refused; it would go on waiting for a better configuration.
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
