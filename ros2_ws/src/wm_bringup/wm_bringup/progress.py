"""Which step of a command is under way, and how many seconds each took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_DETAIL_EVERY_S = 0.1
"""A terminal is redrawn at most this often [s]."""


class Stage:
    """A step that is under way; ``detail`` says how far it is.

    Attributes:
        name: of the step.
        text: the newest detail.
    """

    def __init__(self, name: str, status: Any) -> None:
        self.name, self._status, self._shown, self.text = name, status, 0.0, ""

    def detail(self, text: str) -> None:
        """Show a text beside the name; the last one stays after the step."""
        self.text = text
        now = time.monotonic()
        if self._status is not None and now - self._shown > _DETAIL_EVERY_S:
            self._shown = now
            self._status.update(f"{self.name}: {text}")


class ProgressLog:
    """Steps of a command, printed as they begin and end.

    Args:
        console: of rich, to print on.

    Attributes:
        seconds: wall-clock time [s] of the steps that are done, by name.
    """

    def __init__(self, console: Any) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._begin = time.monotonic()

    @property
    def total_s(self) -> float:
        """Time [s] since this was made."""
        return time.monotonic() - self._begin

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A step; in a file its name is printed when it begins, so that a log shows where it hangs."""
        from rich.markup import escape

        begin = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(name) as status:
                stage = Stage(name, status)
                yield stage
        else:
            self.console.print(f"... {escape(name)}")
            stage = Stage(name, None)
            yield stage
        self.seconds[name] = time.monotonic() - begin
        detail = f"  [dim]{escape(stage.text)}[/]" if stage.text else ""
        self.console.print(f"[green]{self.seconds[name]:6.1f} s[/]  {escape(name)}{detail}")
