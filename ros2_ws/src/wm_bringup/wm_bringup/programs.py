"""Programs of this package that ``ros2 run`` and ``ros2 launch`` start; light, as ``wm_ros.startup`` says."""

from wm_ros.startup import run


def lifecycle_manager() -> int:
    """Run the lifecycle manager until SIGINT or SIGTERM; returns the exit status."""
    return run("wm_bringup.lifecycle_manager")


def container() -> int:
    """Run perception and imagination in one process; returns the exit status."""
    return run("wm_bringup.container")
