"""Dynamics backends for tests, made once in a process. One that cannot be made fails its tests: models are shipped."""

from __future__ import annotations

from functools import cache

from wm_dynamics.base import Dynamics
from wm_dynamics.factory import make_dynamics


@cache
def shared_dynamics(name: str) -> Dynamics:
    """The backend of a name."""
    return make_dynamics(name)
