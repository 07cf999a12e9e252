"""The compiled rollout reads no memory that it has freed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CROWD = """
import hashlib
import numpy as np
from wm_core.interventions import Hypothesis, set_velocity
from wm_core.scene_graph import SceneGraph
from wm_dynamics.learned.backend import LearnedDynamics

across = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2)
positions = np.column_stack([0.05 * across, np.full(len(across), 0.03)])
scene = SceneGraph.build(np.arange(1, 26), positions, np.full((25, 3), 0.05))
pushes = [Hypothesis(f"{k}", (set_velocity(13, (np.cos(k), np.sin(k), 0.0)),)) for k in range(16)]
answer = LearnedDynamics(threads=1).rollout([scene], pushes, np.linspace(0.0, 0.5, 16))
assert answer.completed == len(pushes)
print(hashlib.sha256(np.ascontiguousarray(answer.states).tobytes()).hexdigest())
"""
"""Twenty-five objects side by side, for which the room for near pairs has to grow; prints a hash of the states."""


@pytest.mark.slow
def test_freed_memory_is_not_read() -> None:
    """glibc overwrites what is freed where ``MALLOC_PERTURB_`` is set (mallopt(3))."""

    def states(**variables: str) -> str:
        command = [sys.executable, "-c", CROWD]
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
        return done.stdout

    assert states(MALLOC_PERTURB_="165") == states()
