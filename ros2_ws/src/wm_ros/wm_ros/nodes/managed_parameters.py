"""The parameters of every managed node; without rclpy, so that a parameters file can be checked without it."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.parameters import parameter

HEARTBEAT_PERIOD_S = 0.5
"""Time between heartbeats [s]; a manager's ``heartbeat_timeout_s`` is several of them."""


@dataclass(frozen=True)
class ManagedNodeParameters:
    """Parameters that every ``ManagedNode`` has beside its own."""

    autostart: bool = parameter(True, "configure and activate without a lifecycle manager", read_only=True)
    diagnostics_period_s: float = parameter(
        1.0, "time between messages on /diagnostics", unit="s", minimum=0.1, maximum=60.0, read_only=True
    )
    heartbeat_period_s: float = parameter(
        HEARTBEAT_PERIOD_S,
        "time between heartbeats (~/heartbeat), which a lifecycle manager watches",
        unit="s",
        minimum=0.05,
        maximum=10.0,
        read_only=True,
    )
