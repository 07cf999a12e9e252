"""The parameters of the node ``lifecycle_manager``."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.parameters import parameter


@dataclass(frozen=True)
class LifecycleManagerParameters:
    """Parameters of the node ``lifecycle_manager``."""

    node_names: tuple[str, ...] = parameter(
        ("perception", "imagination"),
        "lifecycle nodes in the order in which they are brought up; names without a leading / are in the manager's "
        "namespace",
        read_only=True,
    )
    autostart: bool = parameter(True, "bring the nodes up at once; false: when ~/startup is called", read_only=True)
    heartbeat_timeout_s: float = parameter(
        4.0,
        "a node without a heartbeat for so long has failed; at least twice its heartbeat_period_s; 0: not watched",
        unit="s",
        minimum=0.0,
        maximum=60.0,
        read_only=True,
    )
    transition_timeout_s: float = parameter(
        120.0, "how long a transition may take", unit="s", minimum=1.0, maximum=3600.0, read_only=True
    )
    max_attempts: int = parameter(
        3, "failures in a row after which the nodes are left as they are", minimum=0, maximum=1000, read_only=True
    )
    retry_delay_s: float = parameter(
        1.0, "between taking down and bringing up again", unit="s", minimum=0.0, maximum=60.0, read_only=True
    )
    stable_s: float = parameter(
        60.0,
        "after so long without a failure they are counted anew",
        unit="s",
        minimum=1.0,
        maximum=1e5,
        read_only=True,
    )
