"""Functions over arrays that compiled code may call, and that stay functions of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    from numba.extending import register_jitable as _jitable
except ImportError:  # then nothing compiles them

    def _jitable(function: Function) -> Function:
        return function


compilable: Callable[[Function], Function] = _jitable
"""Marks such a function."""
