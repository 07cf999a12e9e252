"""The program ``perception_node``: light, so that an interrupt while the node's modules are imported ends it."""

from wm_ros.nodes.startup import run


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    return run("wm_perception.node", "perception_node", ("wm_core", "wm_ros", "wm_perception"))
