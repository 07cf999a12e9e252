"""Quality of service by purpose, in one place.

A best-effort publisher does not match a reliable subscriber. So cameras are read best effort, which matches both kinds
of driver, and images made here are published reliably, which matches both kinds of viewer.
"""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


SENSOR = _profile(reliable=False, depth=5)
"""Camera streams and odometry, in both directions: the newest matters, lost ones are not sent again."""

SCENE_GRAPH = _profile(reliable=True, depth=1, latched=True)
"""The scene graph: a late subscriber gets the latest at once."""

FRAME_REPORTS = _profile(reliable=True, depth=50, latched=True)
"""The outcome of each frame: none may be lost, as a player in lock-step waits for it."""

MATCHED_INPUTS = _profile(reliable=True, depth=1, latched=True)
"""Which inputs a node hears: a player waits for it, so a late one gets it at once."""

METADATA = _profile(reliable=True, depth=1, latched=True)
"""Metadata that seldom changes: labels, model versions, robot descriptions."""

COMMAND = _profile(reliable=True, depth=10)
"""Requests and commands: none may be lost."""

DERIVED_IMAGE = _profile(reliable=True, depth=2)
"""Images made here for people and other nodes (overlay, instances, imagined frames)."""

MARKERS = _profile(reliable=True, depth=2)
"""RViz markers; they come with every scene graph."""

DIAGNOSTICS = _profile(reliable=True, depth=10)
"""/diagnostics."""

TF = _profile(reliable=True, depth=100)
"""/tf."""

TF_STATIC = _profile(reliable=True, depth=100, latched=True)
"""/tf_static."""

CLOCK = _profile(reliable=False, depth=1)
"""/clock, as rclpy itself subscribes to it."""


def heartbeat(lease_s: float) -> QoSProfile:
    """Heartbeats of lifecycle nodes: a node that has not published for ``lease_s`` [s] is reported as not alive.

    A publisher's lease must not be longer than a subscriber's, or the two do not match.
    """
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(nanoseconds=round(lease_s * 1e9)),
    )


PROFILES: dict[str, QoSProfile] = {
    "sensor": SENSOR,
    "scene_graph": SCENE_GRAPH,
    "frame_reports": FRAME_REPORTS,
    "matched_inputs": MATCHED_INPUTS,
    "metadata": METADATA,
    "command": COMMAND,
    "derived_image": DERIVED_IMAGE,
    "markers": MARKERS,
    "diagnostics": DIAGNOSTICS,
    "tf": TF,
    "tf_static": TF_STATIC,
    "clock": CLOCK,
}
"""The profiles above by name."""
