"""The program ``wm`` as colcon installs it: says in one line what is not installed, and only then imports the rest."""

from __future__ import annotations

import sys

from wm_core.installed import refuse_where_missing

PACKAGES = ("wm_core", "wm_ros", "wm_perception", "wm_imagination", "wm_sim", "wm_bringup")


def main() -> None:
    """Run one subcommand."""
    refuse_where_missing("wm", PACKAGES)
    from wm_bringup.cli import main as run

    sys.exit(run())
