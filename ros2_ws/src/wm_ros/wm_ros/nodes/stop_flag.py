"""An event that a signal handler may set."""

from __future__ import annotations

import contextlib
import os
import select


class StopFlag:
    """An event that a signal handler may set.

    A handler must not set a threading.Event: its lock is not reentrant, so that a handler which runs while the same
    thread is on its way into or out of ``wait`` blocks for good.
    """

    def __init__(self) -> None:
        self._set = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def set(self) -> None:
        """Set it, for good; from any thread or signal handler."""
        self._set = True
        with contextlib.suppress(OSError):  # full: then it is readable already; closed: nobody waits
            os.write(self._write, b"x")

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Wait for at most ``timeout_s`` [s]; whether it is set."""
        if not self._set:
            poll = select.poll()
            poll.register(self._read, select.POLLIN)
            poll.poll(max(timeout_s, 0.0) * 1000.0)
        return self._set

    def close(self) -> None:
        """Close its pipe, once nobody waits."""
        self._set = True
        ends, self._read, self._write = (self._read, self._write), -1, -1
        for end in ends:
            os.close(end)
