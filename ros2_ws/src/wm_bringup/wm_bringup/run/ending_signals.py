"""The signals that end a group of processes, as they start one and as its processes inherit them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
"""Option of prctl(2), from linux/prctl.h: the signal that a process gets when its parent thread ends."""
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the block of a ``ProcessGroup``."""

try:
    _LIBC: Any = ctypes.CDLL(None)
except (OSError, TypeError):
    _LIBC = None


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block a handler of its own gets the signals; in another thread than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block the signals wait; the first that came comes when it ends.

    Else KeyboardInterrupt could be raised in the hooks that Python calls after a fork, where it is lost, or while a
    process is started that no group knows yet, which then nobody ends.
    """
    came: list[int] = []
    try:
        with handled(lambda number, frame: came.append(number)):
            yield
    finally:
        for number in came[:1]:
            signal.raise_signal(number)


def prepare_child(parent: int) -> Callable[[], None]:
    """What a child does between fork and exec: it takes signals as usual, and ends with its parent (a process id)."""

    def prepare() -> None:
        # A shell without job control ignores SIGINT in background commands, and children inherit that.
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # the parent ended before prctl took effect
                os._exit(1)

    return prepare
