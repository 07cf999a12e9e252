"""Memory, file descriptors, threads and processor time of a process, from Linux's /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024
"""Bytes of the unit in /proc/PID/status."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
"""Ticks a second [Hz], the unit of processor times in /proc/PID/stat."""


@dataclass(frozen=True)
class Usage:
    """Resources of a process at an instant.

    Attributes:
        rss_bytes: resident memory; anonymous_bytes: its part that is neither a file nor shared.
        descriptors, threads: how many are open, how many exist.
        cpu_s: processor time since its start [s].
    """

    rss_bytes: int
    anonymous_bytes: int
    descriptors: int
    threads: int
    cpu_s: float


def usage_of(pid: int) -> Usage:
    """Resources of a process now.

    Raises:
        ProcessLookupError: there is no such process (any more).
    """
    folder = Path("/proc", str(pid))
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        # The command's name, in brackets, may hold anything.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir(folder / "fd"))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(f"process {pid} is gone") from error
    if "VmRSS" not in status:  # a zombie has no memory
        raise ProcessLookupError(f"process {pid} has ended")
    return Usage(
        rss_bytes=int(status["VmRSS"].split()[0]) * _KIB,
        anonymous_bytes=int(status["RssAnon"].split()[0]) * _KIB,
        descriptors=descriptors,
        threads=int(status["Threads"]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
    )
