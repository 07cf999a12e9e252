"""Dynamics backends for tests: made once, and skipped with the reason where one cannot be made here."""

from __future__ import annotations

from functools import cache

import pytest

from wm_core.inference.base import InferenceError
from wm_dynamics.base import Dynamics
from wm_dynamics.factory import make_dynamics


@cache
def _made(name: str) -> Dynamics | str:
    try:
        return make_dynamics(name)
    except (InferenceError, ImportError) as error:
        return f"backend {name}: {error}"


def dynamics_or_skip(name: str) -> Dynamics:
    """The backend; skips the test, saying why, where its model does not load."""
    made = _made(name)
    if isinstance(made, str):
        pytest.skip(made)
    return made
