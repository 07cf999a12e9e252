"""The program ``sim_camera_node``: light, so that an interrupt while the node's modules are imported ends it."""

from wm_ros.nodes.startup import run


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    return run("wm_sim.node", "sim_camera_node", ("wm_core", "wm_dynamics", "wm_ros", "wm_sim"))
