"""Functions over arrays that compiled code may call, and that stay functions of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def _as_it_is(function: Function) -> Function:
    return function


try:
    from numba.extending import register_jitable

    compilable: Callable[[Function], Function] = register_jitable
except ImportError:  # then nothing compiles them
    compilable = _as_it_is
"""Marks such a function."""
