"""The start of a node's program, before it imports anything that takes time.

    from wm_ros.nodes.startup import run

    def main():
        # prints one line where a requirement is not installed; else imports the module and calls its main()
        return run("wm_perception.node", "perception_node", ("wm_core", "wm_ros", "wm_perception"))

It imports no large module itself.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Sequence
from types import FrameType

from wm_core.installed import refuse_where_missing


def end_quietly(status: int = 0) -> None:
    """From here until ``run_node`` takes over, SIGINT and SIGTERM end the process at once, with this status.

    Python's own reaction to SIGINT while modules are imported is a traceback from one of them.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(status)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


_interrupts: list[int] = []


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler that raises KeyboardInterrupt, and remembers that (``interrupted``)."""
    _interrupts.append(number)
    raise KeyboardInterrupt


def interrupted() -> bool:
    """Whether ``raise_interrupt`` was called: an ImportError is then a consequence of the interrupt.

    A C extension that is interrupted while it is imported raises ImportError, as rclpy does. Errors of
    other kinds stay errors: a recording may fail to be written after the interrupt that ended it.
    """
    return bool(_interrupts)


def end_as_usual() -> None:
    """Undoes ``end_quietly``: SIGINT raises KeyboardInterrupt, SIGTERM ends the process."""
    signal.signal(signal.SIGINT, raise_interrupt)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(module: str, program: str, packages: Sequence[str]) -> int:
    """Import a module and call its ``main``, ending without output when interrupted meanwhile; returns the exit status.

    Ends with status 1 and one line where a requirement of the ``packages`` is not installed; ``program`` is the name in
    that line.
    """
    end_quietly()
    refuse_where_missing(program, packages)
    status = importlib.import_module(module).main()
    return int(status or 0)
