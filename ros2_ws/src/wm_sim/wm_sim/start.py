"""The program ``sim_camera_node``: says in one line what is not installed, and only then imports the node."""

from __future__ import annotations

import sys

from wm_core.installed import refuse_where_missing


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    refuse_where_missing("sim_camera_node", ["wm_core", "wm_ros", "wm_sim"])
    from wm_sim.node import main as run

    sys.exit(run())
