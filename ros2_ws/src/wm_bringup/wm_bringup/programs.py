"""Programs of this package that a shell, ``ros2 run`` or ``ros2 launch`` starts.

They are light, as ``wm_ros.nodes.startup`` says.
"""

from wm_bringup.packages import PACKAGES
from wm_core.installed import refuse_where_missing
from wm_ros.nodes.startup import end_as_usual, end_quietly, run


def wm() -> int:
    """Run one subcommand of ``wm``; returns the exit status."""
    end_quietly(130)
    refuse_where_missing("wm", PACKAGES)
    from wm_bringup.cli import main

    end_as_usual()
    return int(main() or 0)


def lifecycle_manager() -> int:
    """Run the lifecycle manager until SIGINT or SIGTERM; returns the exit status."""
    return run("wm_bringup.run.lifecycle_manager", "lifecycle_manager", ("wm_core", "wm_ros", "wm_bringup"))


def container() -> int:
    """Run perception and imagination in one process; returns the exit status."""
    packages = ("wm_core", "wm_dynamics", "wm_ros", "wm_perception", "wm_imagination")
    return run("wm_bringup.run.container", "container", packages)
