"""The installed TensorRT and TensorRT-RTX: which module, which version, what they log."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from typing import Any

log = logging.getLogger(__name__)

RUNTIMES = ("tensorrt", "tensorrt_rtx")
RTX_ARCHITECTURES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""Compute capabilities that TensorRT-RTX 1.7 builds for; Jetson and data-center GPUs of others need TensorRT."""


def runtime_module(name: str) -> str | None:
    """The installed module of a TensorRT runtime; None where there is none.

    NVIDIA's package of that name is empty and depends on bindings and libraries; the bindings suffice.
    """
    return next((m for m in (name, f"{name}_bindings") if importlib.util.find_spec(m) is not None), None)


def load_runtime(name: str) -> Any:
    """The Python module of a TensorRT runtime.

    Raises:
        ImportError: it is not installed, or its libraries are missing.
    """
    return importlib.import_module(runtime_module(name) or name)


def runtime_version(name: str) -> str:
    """Version of the installed runtime; empty where there is none."""
    dashed = name.replace("_", "-")
    for distribution in (name, *(f"{dashed}-cu{n}{end}" for n in (13, 12) for end in ("", "-bindings"))):
        with contextlib.suppress(PackageNotFoundError):
            return version(distribution)
    try:
        return str(load_runtime(name).__version__)
    except Exception:  # missing, or its libraries are
        return ""


class Logger:
    """Keeps TensorRT's last errors for our messages, and logs errors and warnings for debugging."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=40)

    def bound(self, trt: Any) -> Any:
        """A logger of this TensorRT module that writes here."""
        lines = self.lines

        class Bound(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    lines.append(message)
                    log.debug("%s: %s", trt.__name__, message)
                elif severity == trt.ILogger.WARNING:
                    log.debug("%s: %s", trt.__name__, message)

        return Bound()

    def text(self) -> str:
        """The last errors, in one line."""
        return "; ".join(list(self.lines)[-3:]) or "it gave no reason"
