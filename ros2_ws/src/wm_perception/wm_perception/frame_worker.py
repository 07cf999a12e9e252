"""A worker that processes the newest frame in two halves: the first of the next frame beside the second of this one.

What is left of the second half when its result is out runs beside the first half of the next frame in any case.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

Rest = Callable[[], Callable[[], None] | None]
"""A second half; what it returns is left to do when its result is out, None: nothing."""

OVERLAP = ("auto", "always", "never")


def overlaps(setting: str, cores: int, network_threads: int) -> bool:
    """Whether the halves run beside one another: ``setting``: one of ``OVERLAP``.

    Where the network's threads have all cores, the two halves compete for them: on two cores with two threads
    a frame took 29 % longer for 9 % more frames a second (docs/perception_bench.md).
    """
    return setting == "always" or (setting == "auto" and cores > network_threads)


class FrameWorker(Generic[Item]):
    """Two threads, one for each half; no queue grows, as only the newest waiting item is kept.

    ``first`` gets an item and returns a function without arguments, the second half. That is called in the second
    thread, in the order of the items, while the first thread may already process the next one. Where the second half is
    the slower one, the first begins no further item while one waits between the two. What the second half returns is
    called after it in the same thread, before the second half of the next item. None of them may raise.

    Args:
        first: the first half. merge: of an item that still waits and a newer one, the item to process.
        overlap: False: an item is finished, but for what is left to do then, before the next is begun.
        name: of the threads.
    """

    def __init__(
        self,
        first: Callable[[Item], Rest],
        merge: Callable[[Item, Item], Item] = lambda old, new: new,
        overlap: bool = True,
        name: str = "frames",
    ) -> None:
        self._first, self._merge, self._overlap = first, merge, overlap
        self._wake = threading.Condition()
        self._waiting: Item | None = None
        self._rest: Rest | None = None
        self._in_first = self._in_second = self._in_left = False
        self._working = True
        # Daemon threads: a frame that hangs does not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._begin_frames, name=name, daemon=True),
            threading.Thread(target=self._finish_frames, name=f"{name}, second half", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, item: Item) -> bool:
        """Process this item next; returns whether it replaces one that still waited."""
        with self._wake:
            waiting = self._waiting
            self._waiting = item if waiting is None else self._merge(waiting, item)
            self._wake.notify_all()
            return waiting is not None

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no item waits or is processed; False when ``timeout_s`` [s] passed first."""
        with self._wake:
            return self._wake.wait_for(self._idle, timeout_s)

    def drain(self) -> None:
        """Called by the first half: wait until all earlier items are finished, or the worker is stopped."""
        with self._wake:
            self._wake.wait_for(lambda: self._drained() or not self._working)

    def stop(self, timeout_s: float) -> bool:
        """Drop the waiting item and end both threads; False when a frame was still being processed."""
        with self._wake:
            self._working = False
            self._waiting = self._rest = None
            self._wake.notify_all()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _drained(self) -> bool:
        return self._rest is None and not (self._in_second or self._in_left)

    def _idle(self) -> bool:
        return self._waiting is None and not self._in_first and self._drained()

    def _may_begin(self) -> bool:
        return self._waiting is not None and self._rest is None and (self._overlap or not self._in_second)

    def _begin_frames(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: not self._working or self._may_begin())
                if not self._working or self._waiting is None:
                    return
                item, self._waiting = self._waiting, None
                self._in_first = True
            rest = self._first(item)
            del item  # its images need not stay while the next one is waited for
            with self._wake:
                self._rest = rest if self._working else None
                self._in_first = False
                self._wake.notify_all()
            del rest

    def _finish_frames(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: not self._working or self._rest is not None)
                if not self._working or self._rest is None:
                    return
                rest, self._rest = self._rest, None
                self._in_second = True
                self._wake.notify_all()
            left = rest()
            del rest
            with self._wake:
                self._in_second, self._in_left = False, left is not None
                self._wake.notify_all()
            if left is None:
                continue
            left()
            del left
            with self._wake:
                self._in_left = False
                self._wake.notify_all()
