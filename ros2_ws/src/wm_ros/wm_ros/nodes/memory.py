"""Keeping the memory of a long-running process small: glibc's allocator holds freed memory back.

Every thread that allocates gets one of up to 8 arenas for each processor, and an arena gives memory back only from its
end: one small block that stays there keeps all that was freed below it. A node whose requests run in any of its
executor's threads, and allocate and free some 10 MB each, fills them one after the other.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

ARENAS = 2
"""Arenas that all threads share. Larger holds more freed memory back; 1 makes threads wait for one another."""
LARGE_BYTES = 8 << 20
"""Blocks of this size (states of a thousand futures) come from the system and go back to it at once. Otherwise glibc
raises its own bound, up to 32 MiB, with every such block that is freed. Smaller ones (images, what is made on the way)
are used again: each anew from the system, page by page, added 25 ms to the 122 ms of processor that a perceived frame
takes, and a quarter to those of a video. ``Trimmer`` returns what is left of them.
"""
KEPT_BYTES = 8 << 20
"""Free memory at the end of an arena that is kept. Where the bound on large blocks is set, glibc gives back what
exceeds 128 KiB whenever a block is freed there. Each image that came was then copied to fresh pages: 2 ms of
processor for one of 640x480 with its depth, 0.2 when they are used again. Larger is as good for larger images, and
holds more back for good: ``Trimmer`` does not reach the ends of arenas.
"""
TRIM_S = 2.0
"""Least time between trims [s]: one takes about 2 ms after a request for images, less after others."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>
_SETTINGS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

_MALLINFO = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
)  # fmt: skip


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of <malloc.h>."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO)


@dataclass(frozen=True)
class Heap:
    """Memory that the allocators of this process hold.

    Attributes:
        used_bytes: in allocated blocks; grows with leaks.
        free_bytes: in free blocks that glibc keeps, some of them not backed by memory after trimming; grows with
            fragmentation.
        python_blocks: small objects of the interpreter, which has an allocator of its own.
    """

    used_bytes: int
    free_bytes: int
    python_blocks: int


def heap() -> Heap | None:
    """The memory held now; None with another C library, or a glibc before 2.33."""
    libc = _glibc()
    if libc is None or not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Mallinfo
    info = libc.mallinfo2()
    return Heap(int(info.uordblks + info.hblkhd), int(info.fordblks), sys.getallocatedblocks())


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if all(hasattr(libc, name) for name in ("mallopt", "malloc_trim", "gnu_get_libc_version")) else None


def share_arenas(arenas: int = ARENAS, large_bytes: int = LARGE_BYTES, kept_bytes: int = KEPT_BYTES) -> bool:
    """Let all threads share a few arenas, and use their memory again; to be called before there are threads.

    Returns:
        Whether it was done: not where the environment has settings of its own for glibc's allocator, nor with another
        C library.
    """
    libc = _glibc()
    if libc is None or any(name in os.environ for name in _SETTINGS):
        return False
    settings = ((_M_ARENA_MAX, arenas), (_M_MMAP_THRESHOLD, large_bytes), (_M_TRIM_THRESHOLD, kept_bytes))
    return all(bool(libc.mallopt(name, value)) for name, value in settings)


class Trimmer:
    """Returns free memory to the system at intervals.

    Args:
        every_s: least time between two trims [s].
    """

    def __init__(self, every_s: float = TRIM_S) -> None:
        self._libc, self._every_s, self._last_s = _glibc(), every_s, time.monotonic()

    def trim(self) -> bool:
        """Return free memory, if ``every_s`` has passed; whether it did."""
        now = time.monotonic()
        if self._libc is None or now - self._last_s < self._every_s:
            return False
        self._last_s = now
        self._libc.malloc_trim(0)  # ctypes releases the interpreter's lock
        return True
