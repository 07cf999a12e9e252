"""RViz and Foxglove show topics that are published."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from viewer_topics import rviz_topics
from wm_imagination.ros import imagined_topics
from wm_perception.ros import perceived_topics

ROOT = Path(__file__).resolve().parents[2]
BRINGUP = ROOT / "ros2_ws/src/wm_bringup"


def published_topics() -> set[str]:
    """Absolute names of what the nodes publish, the simulator's as its source says it."""
    text = (ROOT / "ros2_ws/src/wm_sim/wm_sim/node.py").read_text()
    names = re.findall(r'create_publisher\(\s*\w+,\s*"([\w/]+)"', text)
    simulated = {name if name.startswith("/") else f"/{name}" for name in names}
    own = {f"/wm/{name}" for name in (*perceived_topics.TOPICS, *imagined_topics.TOPICS)}
    return simulated | own | {"/tf", "/tf_static", "/diagnostics"}


def test_rviz_shows_topics_that_exist():
    topics = rviz_topics()
    assert topics and topics <= published_topics()
    config = yaml.safe_load((BRINGUP / "rviz/wm.rviz").read_text())
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "map"


def test_foxglove_shows_topics_that_exist():
    layout = json.loads((BRINGUP / "foxglove/wm.json").read_text())
    text = json.dumps(layout)
    topics = set(layout["configById"]["3D!scene"]["topics"])
    images = {
        config["imageMode"]["imageTopic"] for name, config in layout["configById"].items() if name.startswith("Image!")
    }
    assert topics | images <= published_topics()

    def panels(node: Any) -> set[str]:
        return {node} if isinstance(node, str) else panels(node["first"]) | panels(node["second"])

    assert panels(layout["layout"]) == set(layout["configById"])
    assert "/wm/scene_graph" in text
