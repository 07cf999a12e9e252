"""Topics that the viewers' layouts show."""

from __future__ import annotations

from pathlib import Path

import yaml

BRINGUP = Path(__file__).resolve().parents[1] / "ros2_ws/src/wm_bringup"


def rviz_topics() -> set[str]:
    config = yaml.safe_load((BRINGUP / "rviz/wm.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    return {d["Topic"]["Value"] for d in displays if isinstance(d.get("Topic"), dict)}
