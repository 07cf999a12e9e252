"""A limit on requests that are worked on at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BusyError(RuntimeError):
    """Too many requests are waiting already."""


class Turns:
    """Lets ``concurrent`` requests be worked on at a time, in whatever threads they come."""

    def __init__(self, concurrent: int) -> None:
        self.concurrent = concurrent
        self._free = threading.Semaphore(concurrent)
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def take(self, max_waiting: int, should_stop: Callable[[], bool]) -> Iterator[None]:
        """A place, held while the block runs. A request that should stop while it waits goes on without one.

        Raises:
            BusyError: ``max_waiting`` requests wait already.
        """
        with self._lock:
            if self._inside >= max_waiting + self.concurrent:
                raise BusyError(f"busy: {self._inside} requests are being worked on or waiting; ask again later")
            self._inside += 1
        mine = False
        try:
            while not mine and not should_stop():
                mine = self._free.acquire(timeout=0.05)
            yield
        finally:
            if mine:
                self._free.release()
            with self._lock:
                self._inside -= 1
