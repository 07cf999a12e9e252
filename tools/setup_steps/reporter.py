"""What set-up says on the terminal while its commands run, and where their whole output goes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

from setup_steps.settings import LOGS, ROOT


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
