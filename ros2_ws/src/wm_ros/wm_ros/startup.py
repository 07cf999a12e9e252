"""What a node's program does first, before it imports anything that takes time.

    from wm_ros.startup import run

    def main():
        return run("wm_perception.node")    # imports it, and calls its main()

Imports nothing heavy itself.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType


def end_quietly() -> None:
    """From here until ``run_node`` takes over, SIGINT and SIGTERM end the process at once, as asked: status 0.

    Python's own answer to SIGINT while modules are imported is a traceback out of whichever was just being read.
    """
    if os.name != "posix":
        return

    def end(number: int, frame: FrameType | None) -> None:
        sys.stdout.flush()
        os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def run(module: str) -> int:
    """Import a module and call its ``main``, ending quietly when interrupted meanwhile; returns the exit status."""
    end_quietly()
    status = importlib.import_module(module).main()
    return int(status or 0)
