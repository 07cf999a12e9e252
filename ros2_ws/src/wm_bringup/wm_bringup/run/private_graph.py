"""The environment of a graph of its own: a DDS domain that nobody else on this machine uses."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def domain_ports(domain: int) -> range:
    """The UDP ports of a DDS domain, by the RTPS standard's formula; its last ones are of its 120th participant."""
    return range(7400 + 250 * domain, 7400 + 250 * (domain + 1))


def domain_is_used(domain: int) -> bool:
    """Whether a process of this machine has a socket among the ports of a DDS domain."""
    ports = domain_ports(domain)
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            if int(line.split()[1].rpartition(":")[2], 16) in ports:
                return True
    return False


def graph_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment (of ``base``, or this process) for a graph that nobody else's nodes are in, and that stays here.

    A random ROS_DOMAIN_ID of 1 to 101 (free of Linux's ephemeral ports) that no process of this machine uses, and
    discovery limited to this machine. To be in the same graph, call ``os.environ.update(...)`` with it before rclpy is
    initialized.
    """
    env = dict(os.environ if base is None else base)
    domains = [1 + secrets.randbelow(101) for _ in range(50)]
    env["ROS_DOMAIN_ID"] = str(next((d for d in domains if not domain_is_used(d)), domains[0]))
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    env.pop("ROS_LOCALHOST_ONLY", None)
    env.pop("ROS_STATIC_PEERS", None)
    return env
