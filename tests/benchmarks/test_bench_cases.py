"""Cached cases of the imagination benchmark follow the code that they are made by."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.imagination.worlds import CASE_SOURCES

MODULES = "import sys, wm_sim.simulator; print(*(m for m in sys.modules if m.startswith(('wm_sim.', 'wm_core.'))))"


def test_a_case_is_made_again_where_what_it_is_made_by_changes() -> None:
    """Every module of wm_sim and wm_core that the simulator imports is among the files that the cache's key is of."""
    done = subprocess.run([sys.executable, "-c", MODULES], capture_output=True, text=True, check=True)
    files = {"/".join(m.split(".")) + ".py" for m in done.stdout.split()}
    assert len(files) > 10
    named = {"/".join(p.parts[-2:]) for p in CASE_SOURCES}
    assert files <= named, files - named
