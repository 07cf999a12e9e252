"""Frames that cannot be used."""

from __future__ import annotations

from wm_core.health.findings import Finding, Severity
from wm_ros.health.inputs import FrameLog
from wm_ros.nodes.lifecycle import ManagedNode


class BadFrameError(Exception):
    """A frame that cannot be used.

    Attributes:
        counter: name in diagnostics. detail: what was found. advice: what to do.
        resets: whether tracks from the frames before it are wrong, so that they have to be forgotten.
    """

    def __init__(self, counter: str, detail: str, advice: str = "", resets: bool = False) -> None:
        super().__init__(detail)
        self.counter, self.detail, self.advice, self.resets = counter, detail, advice, resets


class BadFrames:
    """Counts frames that cannot be used in diagnostics; causes that last become findings (``log``)."""

    def __init__(self, node: ManagedNode) -> None:
        self._diagnostics = node.diagnostics
        self.log = FrameLog()

    def add(self, error: BadFrameError) -> None:
        """Count a frame that cannot be used."""
        self._diagnostics.counter(error.counter, advice=error.advice).add(1, error.detail)
        self.log.bad(Finding(error.counter, Severity.ERROR, error.detail, run=error.advice))
