"""Perception and imagination in one process, instead of one each.

    ros2 launch wm_bringup wm.launch.py container:=true
    python -m wm_bringup.run.container --ros-args -r __ns:=/wm --params-file my_robot.yaml

It saves the memory of a second interpreter with its libraries. The two then share one interpreter lock, and a fault in
one takes the other along: where the machine has cores and memory to spare, separate processes are better.
Parameters given with ``-p NAME:=VALUE`` go to both; parameters files tell them apart by name.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import sys
from importlib import import_module

from wm_ros.nodes.memory import share_arenas
from wm_ros.nodes.running import run_nodes


def main() -> None:
    """Run both nodes until SIGINT or SIGTERM."""
    share_arenas()
    # By name: nodes are all rclpy, which has no useful types, and so are not for mypy to follow.
    perception, imagination = import_module("wm_perception.node"), import_module("wm_imagination.node")
    sys.exit(run_nodes([(perception.PerceptionNode, 1), (imagination.ImaginationNode, imagination.THREADS)]))


if __name__ == "__main__":
    main()
